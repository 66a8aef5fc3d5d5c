//! Records of the journal, to bytes and back.
//!
//! ```text
//! set     1 tree key_len:u32 key value_len:u32 value      accept  3 id:u64 attempts:u32 len:u32 bytes
//! delete  2 tree key_len:u32 key                          attempt 4 id:u64 attempts:u32
//!                                                         finish  5 id:u64            little-endian
//! ```

use crate::batch::{ItemId, Record, Tree};

const SET: u8 = 1;
const DELETE: u8 = 2;
const ACCEPT: u8 = 3;
const ATTEMPT: u8 = 4;
const FINISH: u8 = 5;

impl Record {
    /// Bytes that [`Record::encode`] appends.
    pub(crate) fn encoded_len(&self) -> usize {
        match self {
            Self::Set { key, value, .. } => 10 + key.len() + value.len(),
            Self::Delete { key, .. } => 6 + key.len(),
            Self::Accept { bytes, .. } => 17 + bytes.len(),
            Self::Attempt { .. } => 13,
            Self::Finish { .. } => 9,
        }
    }

    /// Appends the record to `out`.
    pub(crate) fn encode(&self, out: &mut Vec<u8>) {
        match self {
            Self::Set { tree, key, value } => {
                out.extend([SET, tree_byte(*tree)]);
                put_bytes(out, key);
                put_bytes(out, value);
            }
            Self::Delete { tree, key } => {
                out.extend([DELETE, tree_byte(*tree)]);
                put_bytes(out, key);
            }
            Self::Accept { id, attempts, bytes } => {
                put_item(out, ACCEPT, *id);
                out.extend(attempts.to_le_bytes());
                put_bytes(out, bytes);
            }
            Self::Attempt { id, attempts } => {
                put_item(out, ATTEMPT, *id);
                out.extend(attempts.to_le_bytes());
            }
            Self::Finish { id } => put_item(out, FINISH, *id),
        }
    }
}

/// Every record in `payload`; `None` if any byte of it is not understood.
pub(crate) fn decode_all(mut payload: &[u8]) -> Option<Vec<Record>> {
    let mut records = Vec::new();
    while !payload.is_empty() {
        records.push(decode(&mut payload)?);
    }
    Some(records)
}

fn decode(input: &mut &[u8]) -> Option<Record> {
    let [tag] = take(input)?;
    Some(match tag {
        SET => Record::Set { tree: take_tree(input)?, key: take_bytes(input)?.into(), value: take_bytes(input)?.into() },
        DELETE => Record::Delete { tree: take_tree(input)?, key: take_bytes(input)?.into() },
        ACCEPT => Record::Accept { id: take_id(input)?, attempts: u32::from_le_bytes(take(input)?), bytes: take_bytes(input)?.into() },
        ATTEMPT => Record::Attempt { id: take_id(input)?, attempts: u32::from_le_bytes(take(input)?) },
        FINISH => Record::Finish { id: take_id(input)? },
        _ => return None,
    })
}

fn tree_byte(tree: Tree) -> u8 {
    u8::try_from(tree.index()).expect("there are fewer than 256 trees")
}

fn put_item(out: &mut Vec<u8>, tag: u8, id: ItemId) {
    out.push(tag);
    out.extend(id.0.to_le_bytes());
}

fn put_bytes(out: &mut Vec<u8>, bytes: &[u8]) {
    let length = u32::try_from(bytes.len()).expect("admission bounds every key, value and item");
    out.extend(length.to_le_bytes());
    out.extend(bytes);
}

fn take<const N: usize>(input: &mut &[u8]) -> Option<[u8; N]> {
    let (head, rest) = input.split_first_chunk::<N>()?;
    *input = rest;
    Some(*head)
}

fn take_id(input: &mut &[u8]) -> Option<ItemId> {
    take(input).map(u64::from_le_bytes).map(ItemId)
}

fn take_tree(input: &mut &[u8]) -> Option<Tree> {
    let [index] = take(input)?;
    Tree::ALL.get(usize::from(index)).copied()
}

fn take_bytes<'a>(input: &mut &'a [u8]) -> Option<&'a [u8]> {
    let length = usize::try_from(u32::from_le_bytes(take(input)?)).ok()?;
    let (head, rest) = input.split_at_checked(length)?;
    *input = rest;
    Some(head)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    pub(crate) fn any_record() -> impl Strategy<Value = Record> {
        let tree = prop::sample::select(Tree::ALL.to_vec());
        let bytes = prop::collection::vec(any::<u8>(), 0..40);
        prop_oneof![
            (tree.clone(), bytes.clone(), bytes.clone()).prop_map(|(tree, k, v)| Record::Set { tree, key: k.into(), value: v.into() }),
            (tree, bytes.clone()).prop_map(|(tree, k)| Record::Delete { tree, key: k.into() }),
            (any::<u64>(), any::<u32>(), bytes).prop_map(|(id, attempts, b)| Record::Accept { id: ItemId(id), attempts, bytes: b.into() }),
            (any::<u64>(), any::<u32>()).prop_map(|(id, attempts)| Record::Attempt { id: ItemId(id), attempts }),
            any::<u64>().prop_map(|id| Record::Finish { id: ItemId(id) }),
        ]
    }

    proptest! {
        #[test]
        fn records_survive_the_journal(records in prop::collection::vec(any_record(), 0..20)) {
            let mut bytes = Vec::new();
            for record in &records {
                record.encode(&mut bytes);
            }
            prop_assert_eq!(bytes.len(), records.iter().map(Record::encoded_len).sum::<usize>());
            prop_assert_eq!(decode_all(&bytes), Some(records));
        }

        #[test]
        fn random_bytes_never_panic(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            decode_all(&bytes);
        }
    }
}
