//! Owners that have other numbers on disk than in the archive, as those of a container have: casync's `--uid-shift` and
//! `--uid-range`.
//!
//! Numbers alone are moved, of owners and of ACL entries. Names stay, and go before numbers, as casync has it.

use std::io;
use std::num::NonZeroU32;

use cairn_formats::{AclEntry, Metadata};

/// Where the numbers of an archive's owners are on disk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct OwnerShift {
    /// The number on disk of the archive's number 0.
    pub(crate) first: u32,
    /// Numbers there are; those above begin again at 0. `None`: all that the system has.
    pub(crate) count: Option<NonZeroU32>,
}

impl OwnerShift {
    /// Numbers of the disk become those of the archive.
    ///
    /// Errors: a number that is below the first; the metadata is then of no use.
    pub(super) fn to_archive(self, metadata: &mut Metadata) -> io::Result<()> {
        map(metadata, |id| {
            let moved = id.checked_sub(self.first).map(|id| self.wrap(id));
            moved.ok_or_else(|| {
                let words = format!(
                    "its number {id}, or one of its ACL, is below --uid-shift={}",
                    self.first
                );
                io::Error::new(io::ErrorKind::InvalidInput, words)
            })
        })
    }

    /// Numbers of the archive become those of the disk.
    ///
    /// Errors: a number that the system does not have; the metadata is then of no use.
    pub(super) fn to_disk(self, metadata: &mut Metadata) -> io::Result<()> {
        map(metadata, |id| {
            let moved = self.first.checked_add(self.wrap(id));
            // All ones mean nobody, also in 16 bits (casync, `uid_is_valid`).
            let moved = moved.filter(|id| !matches!(*id, 0xffff | u32::MAX));
            moved.ok_or_else(|| {
                let words = format!(
                    "number {id} moved by --uid-shift={} is none that the system has",
                    self.first
                );
                io::Error::new(io::ErrorKind::InvalidInput, words)
            })
        })
    }

    fn wrap(self, id: u32) -> u32 {
        self.count.map_or(id, |count| id % count)
    }
}

fn map(metadata: &mut Metadata, moved: impl Fn(u32) -> io::Result<u32>) -> io::Result<()> {
    (metadata.uid, metadata.gid) = (moved(metadata.uid)?, moved(metadata.gid)?);
    let acl = &mut metadata.acl;
    for entries in [
        &mut acl.users,
        &mut acl.groups,
        &mut acl.default_users,
        &mut acl.default_groups,
    ] {
        for entry in entries.iter_mut() {
            entry.id = moved(entry.id)?;
        }
        // The archive's order, which numbers that begin again may have left.
        let key = |entry: &AclEntry| (entry.id, entry.name.clone(), entry.permissions);
        entries.sort_by_key(key);
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_go_there_and_back_and_out_of_range_are_refused() {
        let shift = |first, count| OwnerShift {
            first,
            count: NonZeroU32::new(count),
        };
        let owned = |uid, gid| Metadata {
            uid,
            gid,
            ..Metadata::default()
        };
        for (shift, disk, archive) in [
            (shift(100_000, 0x10000), 100_005, 5),
            (shift(0, 0), 70_000, 70_000),
            (shift(4_294_900_000, 0), 4_294_900_001, 1),
        ] {
            let mut metadata = owned(disk, disk);
            shift.to_archive(&mut metadata).unwrap();
            assert_eq!((metadata.uid, metadata.gid), (archive, archive), "{shift:?}");
            shift.to_disk(&mut metadata).unwrap();
            assert_eq!((metadata.uid, metadata.gid), (disk, disk), "{shift:?}");
        }
        let mut many = owned(70_000, 131_073);
        shift(0, 0x10000).to_archive(&mut many).unwrap();
        assert_eq!((many.uid, many.gid), (4464, 1));
        assert!(shift(6, 0).to_archive(&mut owned(5, 6)).is_err());
        assert!(shift(u32::MAX - 5, 0).to_disk(&mut owned(5, 5)).is_err());
        assert!(shift(u32::MAX - 5, 0).to_disk(&mut owned(6, 6)).is_err());
        assert!(shift(0xffff, 0).to_disk(&mut owned(0, 0)).is_err());
    }
}
