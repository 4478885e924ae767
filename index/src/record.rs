//! Commit records: a group of commits as the log holds it, with every write already worked out.
//!
//! Counters are written as their new values, so that applying a record twice is applying it once. Everything is checked when a
//! record is read: the log's check sums find damage, not what another release or a fault of ours wrote.
//!
//! Layout, little-endian: `format u8 = 1, first version u64`, then for each commit `writes u32`, and for each write
//! `key length u16, value length u32 (0xffff_ffff: the row is deleted), key, value`. Versions count up by one.

use bytes::{Buf as _, BufMut as _, Bytes, BytesMut};

use crate::kv::{KEY_LEN_MAX, VALUE_LEN_MAX, Version};
use crate::{Error, Result};

const FORMAT: u8 = 1;
const DELETED: u32 = u32::MAX;

/// What a commit does to a row: its key, and its value or `None` for none.
pub(crate) type Change = (Bytes, Option<Bytes>);

/// Some commits that follow each other.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CommitRecord {
    /// Version of the first.
    pub(crate) first: Version,
    /// What each does.
    pub(crate) commits: Vec<Vec<Change>>,
}

impl CommitRecord {
    /// Version of the last commit.
    pub fn last(&self) -> Version {
        Version((self.first.0 + self.commits.len() as u64).saturating_sub(1))
    }

    /// Each change with its version, in order.
    pub(crate) fn changes(&self) -> impl Iterator<Item = (Version, &Change)> {
        let versions = (self.first.0..).map(Version);
        versions
            .zip(&self.commits)
            .flat_map(|(version, changes)| changes.iter().map(move |change| (version, change)))
    }

    /// As the log holds it.
    pub fn encode(&self) -> Bytes {
        let mut bytes = BytesMut::new();
        bytes.put_u8(FORMAT);
        bytes.put_u64_le(self.first.0);
        for changes in &self.commits {
            bytes.put_u32_le(u32::try_from(changes.len()).expect("a batch of 4 MiB has fewer writes"));
            for (key, value) in changes {
                bytes.put_u16_le(u16::try_from(key.len()).expect("keys are at most KEY_LEN_MAX bytes"));
                let len = value
                    .as_ref()
                    .map(|value| u32::try_from(value.len()).expect("at most VALUE_LEN_MAX bytes"));
                bytes.put_u32_le(len.unwrap_or(DELETED));
                bytes.put_slice(key);
                bytes.put_slice(value.as_deref().unwrap_or_default());
            }
        }
        bytes.freeze()
    }

    /// Reads what [`CommitRecord::encode`] wrote, without copying.
    ///
    /// Errors: [`Error::Malformed`].
    pub fn decode(bytes: &Bytes) -> Result<Self> {
        let mut rest = bytes.clone();
        need(&rest, 9)?;
        if rest.get_u8() != FORMAT {
            return Err(malformed("its format is of a later release"));
        }
        let first = Version(rest.get_u64_le());
        let mut commits = Vec::new();
        while !rest.is_empty() {
            need(&rest, 4)?;
            let count = rest.get_u32_le() as usize;
            // Not allocated for what the count says but for what can be there: a write has six bytes at least.
            let mut changes = Vec::with_capacity(count.min(rest.len() / 6));
            for _ in 0..count {
                changes.push(change(&mut rest)?);
            }
            commits.push(changes);
        }
        if first.0 == 0 || first.0.checked_add(commits.len() as u64).is_none() {
            return Err(malformed("its versions are out of range"));
        }
        Ok(Self { first, commits })
    }
}

fn change(rest: &mut Bytes) -> Result<Change> {
    need(rest, 6)?;
    let (key_len, value_len) = (usize::from(rest.get_u16_le()), rest.get_u32_le());
    if key_len > KEY_LEN_MAX || (value_len != DELETED && value_len as usize > VALUE_LEN_MAX) {
        return Err(malformed("a row in it is too long"));
    }
    need(rest, key_len)?;
    let key = rest.split_to(key_len);
    if value_len == DELETED {
        return Ok((key, None));
    }
    need(rest, value_len as usize)?;
    Ok((key, Some(rest.split_to(value_len as usize))))
}

fn need(rest: &Bytes, len: usize) -> Result<()> {
    if rest.len() < len {
        return Err(malformed("it ends early"));
    }
    Ok(())
}

fn malformed(reason: &'static str) -> Error {
    Error::Malformed {
        what: "commit record",
        reason,
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn a_record_is_read_as_it_was_written(first in 1..u64::MAX / 2, commits in commits()) {
            let record = CommitRecord { first: Version(first), commits };
            let bytes = record.encode();
            prop_assert_eq!(CommitRecord::decode(&bytes).unwrap(), record);
        }

        /// Every prefix is either refused or a record of fewer commits; no bytes make it panic.
        #[test]
        fn a_damaged_record_is_refused_or_read(commits in commits(), cut in 0.0..1.0, flip in any::<(u16, u8)>()) {
            let mut bytes = CommitRecord { first: Version(1), commits }.encode().to_vec();
            let at = usize::from(flip.0) % bytes.len();
            bytes[at] ^= flip.1;
            bytes.truncate((bytes.len() as f64 * cut) as usize);
            if let Err(error) = CommitRecord::decode(&Bytes::from(bytes)) {
                let malformed = matches!(error, Error::Malformed { .. });
                prop_assert!(malformed);
            }
        }
    }

    #[test]
    fn versions_count_up() {
        let change = |key: &'static str| (Bytes::from(key), None);
        let record = CommitRecord {
            first: Version(5),
            commits: vec![vec![change("a"), change("b")], vec![], vec![change("c")]],
        };
        let versions: Vec<u64> = record.changes().map(|(version, _)| version.as_u64()).collect();
        assert_eq!((versions, record.last()), (vec![5, 5, 7], Version(7)));
    }

    #[test]
    fn records_of_later_releases_are_refused() {
        let mut bytes = CommitRecord {
            first: Version(1),
            commits: vec![],
        }
        .encode()
        .to_vec();
        bytes[0] = 2;
        let error = CommitRecord::decode(&Bytes::from(bytes)).unwrap_err();
        assert_eq!(error.to_string(), "commit record: its format is of a later release");
    }

    fn commits() -> impl Strategy<Value = Vec<Vec<Change>>> {
        let bytes = || prop::collection::vec(any::<u8>(), 0..8).prop_map(Bytes::from);
        let change = (bytes(), prop::option::of(bytes()));
        prop::collection::vec(prop::collection::vec(change, 0..4), 0..4)
    }
}
