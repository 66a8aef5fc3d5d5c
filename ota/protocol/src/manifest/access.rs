//! What a function may reach: stores, topics, other machines, secrets. Nothing that is not named is granted.

use super::word::{BucketName, Origin, SecretName, Socket};
use crate::TopicFilter;
use crate::limits::{GRANTS_MAX, QUOTA_MB_MAX, SCRATCH_MB_MAX};
use crate::strict::Section;
use serde::{Deserialize, Serialize};

/// What a function may reach beside its input and output.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Access {
    /// Key-value stores of its own that it may open.
    pub keyvalue: Vec<BucketName>,
    /// Topics it may publish to.
    pub publish: Vec<TopicFilter>,
    /// Key-value stores that all functions of the node share which name them here.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub keyvalue_shared: Vec<BucketName>,
    /// Containers of files of its own that it may open.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub blobstore: Vec<BucketName>,
    /// Where it may send HTTP requests; `http://<function>.sedge.internal` is another function of the node.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub outgoing: Vec<Origin>,
    /// Where it may connect or send datagrams to.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub sockets: Vec<Socket>,
    /// Secrets of the node that it may read through `wasi:config`.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub secrets: Vec<SecretName>,
    /// Size of a directory `/scratch` that lives as long as the instance, in its memory, MiB; 0 is none.
    #[serde(skip_serializing_if = "is_zero")]
    pub scratch_mb: u32,
}

/// How much a function may keep on a node.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Quota {
    /// Keys and values of all its key-value stores together, MiB.
    pub keyvalue_mb: u32,
    /// Files of all its containers together, MiB.
    pub blobstore_mb: u32,
}

impl Default for Quota {
    fn default() -> Self {
        Self { keyvalue_mb: 16, blobstore_mb: 64 }
    }
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde asks for this form")]
fn is_zero(number: &u32) -> bool {
    *number == 0
}

impl Access {
    pub(super) fn read(section: Section<'_>) -> Self {
        let access = Self {
            keyvalue: section.list("keyvalue"),
            keyvalue_shared: section.list("keyvalue_shared"),
            blobstore: section.list("blobstore"),
            publish: section.list("publish"),
            outgoing: section.list("outgoing"),
            sockets: section.list("sockets"),
            secrets: section.list("secrets"),
            scratch_mb: section.number("scratch_mb", 0..=SCRATCH_MB_MAX).unwrap_or(0),
        };
        section.finish();
        access
    }

    /// Most bytes of the scratch directory; 0 is none. An instance may take them beside its linear memory.
    #[must_use]
    pub fn scratch_bytes(&self) -> u64 {
        u64::from(self.scratch_mb) * 1024 * 1024
    }

    /// The first rule that is broken.
    pub(super) fn check(&self) -> Result<(), String> {
        let lists = [
            self.keyvalue.len(),
            self.keyvalue_shared.len(),
            self.blobstore.len(),
            self.publish.len(),
            self.outgoing.len(),
            self.sockets.len(),
            self.secrets.len(),
        ];
        if lists.into_iter().any(|grants| grants > GRANTS_MAX) {
            return Err(format!("more than {GRANTS_MAX} grants of one kind"));
        }
        if let Some(name) = self.keyvalue.iter().find(|name| self.keyvalue_shared.contains(name)) {
            return Err(format!("the store `{}` is both the function's own and shared: name it once", name.as_str()));
        }
        if self.scratch_mb > SCRATCH_MB_MAX {
            return Err("access.scratch_mb out of range".to_owned());
        }
        Ok(())
    }
}

impl Quota {
    pub(super) fn read(section: Section<'_>) -> Self {
        let default = Self::default();
        let quota = Self {
            keyvalue_mb: section.number("keyvalue_mb", 1..=QUOTA_MB_MAX).unwrap_or(default.keyvalue_mb),
            blobstore_mb: section.number("blobstore_mb", 1..=QUOTA_MB_MAX).unwrap_or(default.blobstore_mb),
        };
        section.finish();
        quota
    }

    pub(super) fn is_default(&self) -> bool {
        *self == Self::default()
    }

    pub(super) fn check(&self) -> Result<(), String> {
        let fits = |megabytes| (1..=QUOTA_MB_MAX).contains(&megabytes);
        if fits(self.keyvalue_mb) && fits(self.blobstore_mb) { Ok(()) } else { Err("quota out of range".to_owned()) }
    }
}
