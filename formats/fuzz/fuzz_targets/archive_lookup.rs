//! An archive by casync with some of its words changed: the search ends, reads inside the archive alone, gives no entry another
//! name than was asked for, and agrees with a reading of the whole where that finds nothing wrong.

#![no_main]

use std::cell::Cell;
use std::convert::Infallible;
use std::ops::Range;

use bytes::Bytes;
use cairn_formats::{ArchiveBytes, ArchiveDecoder, ArchiveLimits, ArchiveLookup, Content, Placed, Step};
use libfuzzer_sys::fuzz_target;

const KINDS: &[u8] = include_bytes!("../../testdata/kinds.catar");
/// A name costs at most: 64 items of the same hash, 64 levels each, some reads of metadata for each of them.
const READS_MAX: u32 = 64 * 64 + 64 * 64;

struct Counted {
    archive: Bytes,
    reads: Cell<u32>,
}

impl ArchiveBytes for &Counted {
    type Error = Infallible;

    fn len(&self) -> u64 {
        self.archive.len() as u64
    }

    fn read(&self, range: Range<u64>) -> Result<Bytes, Infallible> {
        self.reads.set(self.reads.get() + 1);
        Ok(self.archive.slice(range.start as usize..range.end as usize))
    }
}

/// Each change: 2 bytes of where, 1 of how many bytes (1 to 8), then those.
fn changed(mut changes: &[u8]) -> Bytes {
    let mut archive = KINDS.to_vec();
    while let [low, high, len, rest @ ..] = changes {
        let at = usize::from(u16::from_le_bytes([*low, *high])) % archive.len();
        let len = (usize::from(len % 8) + 1).min(rest.len()).min(archive.len() - at);
        archive[at..at + len].copy_from_slice(&rest[..len]);
        changes = &rest[len..];
    }
    archive.into()
}

/// All entries but the root, as a reader of the whole has them: offset and name.
fn read_whole(archive: &Bytes) -> Option<Vec<(u64, Bytes)>> {
    let mut decoder = ArchiveDecoder::new(ArchiveLimits::default());
    decoder.push(archive.clone());
    decoder.finish();
    let mut entries = Vec::new();
    loop {
        match decoder.next().ok()? {
            Step::Enter {
                name: Some(name), at, ..
            } => entries.push((at, name)),
            Step::End => return Some(entries),
            Step::NeedBytes => unreachable!("all bytes are there"),
            _ => {}
        }
    }
}

fuzz_target!(|changes: &[u8]| {
    let archive = changed(changes);
    let whole = read_whole(&archive);
    let counted = Counted {
        archive,
        reads: Cell::new(0),
    };
    let Ok(lookup) = ArchiveLookup::open(&counted, ArchiveLimits::default()) else {
        assert!(whole.is_none(), "a whole archive can be opened");
        return;
    };
    let mut entries = Vec::new();
    let mut todo: Vec<Placed> = vec![lookup.root().clone()];
    while let Some(directory) = todo.pop() {
        for name in [&b"file"[..], b"deep", b"f3", b"nothing"] {
            counted.reads.set(0);
            let found = lookup.child(&directory, name);
            assert!(
                counted.reads.get() <= READS_MAX,
                "a search of {} reads",
                counted.reads.get()
            );
            if let Ok(Some(found)) = found {
                assert_eq!(found.name.as_deref(), Some(name));
            }
        }
        let Ok(children) = lookup.children(&directory) else {
            assert!(whole.is_none(), "a whole archive can be listed");
            continue;
        };
        for child in children {
            let Ok(child) = child else {
                assert!(whole.is_none(), "a whole archive can be listed");
                continue;
            };
            let name = child.name.clone().expect("only the root has no name");
            entries.push((child.at, name));
            assert!(directory.content.contains(&child.at), "inside its directory");
            if child.node.content == Content::Directory {
                todo.push(child);
            }
        }
    }
    if let Some(whole) = whole {
        entries.sort();
        assert_eq!(entries, whole);
    }
});
