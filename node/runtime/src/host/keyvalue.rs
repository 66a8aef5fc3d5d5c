//! `wasi:keyvalue`: buckets that the manifest grants, kept by the host.

#![expect(unreachable_pub, reason = "the generated bindings re-export the resource types")]

use super::bindings::keyvalue::{atomics, batch, store};
use super::{HostError, StoreRef, Swap};
use crate::limits::{KEY_BYTES_MAX, KEYS_PER_BATCH_MAX, MIB};
use crate::state::State;
use sedge_protocol::manifest::BucketName;
use std::sync::Arc;
use wasmtime::component::Resource;

type Answer<T> = wasmtime::Result<Result<T, store::Error>>;

/// An open bucket.
#[derive(Debug, Clone)]
pub struct Bucket {
    name: Arc<str>,
    shared: bool,
}

/// A value that was read in order to be swapped.
#[derive(Debug)]
pub struct Cas {
    bucket: Bucket,
    key: String,
    seen: Option<Vec<u8>>,
}

impl From<HostError> for store::Error {
    fn from(error: HostError) -> Self {
        // `access-denied` has no room for a reason.
        Self::Other(error.to_string())
    }
}

impl State {
    fn bucket(&mut self, bucket: &Resource<Bucket>) -> wasmtime::Result<Bucket> {
        Ok(self.table().get(bucket)?.clone())
    }

    fn store_of<'a>(&'a self, bucket: &'a Bucket) -> StoreRef<'a> {
        let quota_bytes = u64::from(self.manifest().quota.keyvalue_mb) * MIB;
        StoreRef { owner: (!bucket.shared).then(|| self.function()), bucket: &bucket.name, quota_bytes }
    }

    /// Counts one operation for each key, unless a key or their number is out of bounds.
    fn admit<'a>(&self, keys: impl ExactSizeIterator<Item = &'a str>) -> Result<(), store::Error> {
        let count = keys.len();
        if count > KEYS_PER_BATCH_MAX {
            return Err(store::Error::Other(format!("a batch has at most {KEYS_PER_BATCH_MAX} keys")));
        }
        for key in keys {
            if !(1..=KEY_BYTES_MAX).contains(&key.len()) {
                return Err(store::Error::Other(format!("a key has 1 to {KEY_BYTES_MAX} bytes")));
            }
        }
        self.call.count_kv(count);
        Ok(())
    }

    /// One operation on one key.
    fn on_key<T>(
        &mut self,
        bucket: &Resource<Bucket>,
        key: &str,
        operation: impl FnOnce(&Self, StoreRef<'_>) -> Result<T, HostError>,
    ) -> Answer<T> {
        let bucket = self.bucket(bucket)?;
        Ok(self.admit([key].into_iter()).and_then(|()| Ok(operation(self, self.store_of(&bucket))?)))
    }
}

impl store::Host for State {
    fn open(&mut self, identifier: String) -> Answer<Resource<Bucket>> {
        let access = &self.manifest().access;
        let named = |list: &[BucketName]| list.iter().any(|granted| granted.as_str() == identifier);
        let shared = named(&access.keyvalue_shared);
        if !shared && !named(&access.keyvalue) {
            self.refuse("wasi:keyvalue/store", &format!("the store `{identifier}`"), &format!("keyvalue = [\"{identifier}\"]"));
            return Ok(Err(store::Error::AccessDenied));
        }
        Ok(Ok(self.table().push(Bucket { name: identifier.into(), shared })?))
    }
}

impl store::HostBucket for State {
    fn get(&mut self, bucket: Resource<Bucket>, key: String) -> Answer<Option<Vec<u8>>> {
        self.on_key(&bucket, &key, |state, store| state.host.kv_get(store, &key))
    }

    fn set(&mut self, bucket: Resource<Bucket>, key: String, value: Vec<u8>) -> Answer<()> {
        self.on_key(&bucket, &key, |state, store| state.host.kv_set(store, vec![(key.clone(), value)]))
    }

    fn delete(&mut self, bucket: Resource<Bucket>, key: String) -> Answer<()> {
        self.on_key(&bucket, &key, |state, store| state.host.kv_delete(store, std::slice::from_ref(&key)))
    }

    fn exists(&mut self, bucket: Resource<Bucket>, key: String) -> Answer<bool> {
        self.on_key(&bucket, &key, |state, store| Ok(state.host.kv_get(store, &key)?.is_some()))
    }

    fn list_keys(&mut self, bucket: Resource<Bucket>, cursor: Option<String>) -> Answer<store::KeyResponse> {
        let bucket = self.bucket(&bucket)?;
        self.call.count_kv(1);
        let page = self.host.kv_list(self.store_of(&bucket), cursor.as_deref());
        Ok(page.map(|page| store::KeyResponse { keys: page.keys, cursor: page.cursor }).map_err(Into::into))
    }

    fn drop(&mut self, bucket: Resource<Bucket>) -> wasmtime::Result<()> {
        self.table().delete(bucket)?;
        Ok(())
    }
}

impl batch::Host for State {
    fn get_many(&mut self, bucket: Resource<Bucket>, keys: Vec<String>) -> Answer<Vec<(String, Option<Vec<u8>>)>> {
        let bucket = self.bucket(&bucket)?;
        let get = |key: String| {
            let value = self.host.kv_get(self.store_of(&bucket), &key)?;
            Ok((key, value))
        };
        Ok(self.admit(keys.iter().map(String::as_str)).and_then(|()| keys.into_iter().map(get).collect()))
    }

    fn set_many(&mut self, bucket: Resource<Bucket>, pairs: Vec<(String, Vec<u8>)>) -> Answer<()> {
        let bucket = self.bucket(&bucket)?;
        let admitted = self.admit(pairs.iter().map(|(key, _)| key.as_str()));
        Ok(admitted.and_then(|()| Ok(self.host.kv_set(self.store_of(&bucket), pairs)?)))
    }

    fn delete_many(&mut self, bucket: Resource<Bucket>, keys: Vec<String>) -> Answer<()> {
        let bucket = self.bucket(&bucket)?;
        let admitted = self.admit(keys.iter().map(String::as_str));
        Ok(admitted.and_then(|()| Ok(self.host.kv_delete(self.store_of(&bucket), &keys)?)))
    }
}

impl atomics::Host for State {
    fn increment(&mut self, bucket: Resource<Bucket>, key: String, delta: i64) -> Answer<i64> {
        self.on_key(&bucket, &key, |state, store| state.host.kv_increment(store, &key, delta))
    }

    fn swap(&mut self, cas: Resource<Cas>, value: Vec<u8>) -> wasmtime::Result<Result<(), atomics::CasError>> {
        let mut cas = self.table().delete(cas)?;
        self.call.count_kv(1);
        let swap = Swap { expected: cas.seen.as_deref(), value: &value };
        match self.host.kv_swap(self.store_of(&cas.bucket), &cas.key, swap) {
            Ok(true) => Ok(Ok(())),
            Ok(false) => {
                // The caller gets a handle on what is there now, to try again with.
                match self.host.kv_get(self.store_of(&cas.bucket), &cas.key) {
                    Ok(seen) => cas.seen = seen,
                    Err(error) => return Ok(Err(atomics::CasError::StoreError(error.into()))),
                }
                Ok(Err(atomics::CasError::CasFailed(self.table().push(cas)?)))
            }
            Err(error) => Ok(Err(atomics::CasError::StoreError(error.into()))),
        }
    }
}

impl atomics::HostCas for State {
    fn new(&mut self, bucket: Resource<Bucket>, key: String) -> Answer<Resource<Cas>> {
        let seen = self.on_key(&bucket, &key, |state, store| state.host.kv_get(store, &key))?;
        let bucket = self.bucket(&bucket)?;
        match seen {
            Ok(seen) => Ok(Ok(self.table().push(Cas { bucket, key, seen })?)),
            Err(error) => Ok(Err(error)),
        }
    }

    fn current(&mut self, cas: Resource<Cas>) -> Answer<Option<Vec<u8>>> {
        Ok(Ok(self.table().get(&cas)?.seen.clone()))
    }

    fn drop(&mut self, cas: Resource<Cas>) -> wasmtime::Result<()> {
        self.table().delete(cas)?;
        Ok(())
    }
}
