//! Archives put together record by record, so that each may be wrong.

use super::super::goodbye::{self, Item, name_hash};
use super::super::record::*;
use super::*;

/// What casync writes when it is told nothing.
pub(super) const FLAGS: u64 = 0xb000_0001_ffef_fe26;
pub(super) const DIRECTORY: u64 = 0o040_755;
pub(super) const FILE: u64 = 0o100_644;
pub(super) const SYMLINK_MODE: u64 = 0o120_777;
pub(super) const CHARACTER_DEVICE: u64 = 0o020_644;
pub(super) const FIFO: u64 = 0o010_644;

pub(super) fn record(kind: u64, body: &[u8]) -> Vec<u8> {
    let mut out = Vec::new();
    push_record(&mut out, kind, &[body]);
    out
}

pub(super) fn sized(size: u64, kind: u64, body: &[u8]) -> Vec<u8> {
    [&size.to_le_bytes(), &kind.to_le_bytes(), body].concat()
}

pub(super) fn entry_of(words: [u64; 6]) -> Vec<u8> {
    record(ENTRY_TYPE, &words.map(u64::to_le_bytes).concat())
}

pub(super) fn entry(mode: u64) -> Vec<u8> {
    entry_of([FLAGS, mode, 0, 0, 0, 0])
}

pub(super) fn name(name: &[u8]) -> Vec<u8> {
    record(FILENAME, &[name, b"\0"].concat())
}

pub(super) fn file(named: &[u8], payload: &[u8]) -> Vec<u8> {
    [name(named), entry(FILE), record(PAYLOAD, payload)].concat()
}

/// A directory: `start` and its entries, with the right table after them.
pub(super) fn closed(start: Vec<u8>, children: &[Vec<u8>]) -> Vec<u8> {
    let entry_at = if word(&start, 8) == FILENAME {
        word(&start, 0)
    } else {
        0
    };
    let mut out = start;
    let mut items = Vec::new();
    for child in children {
        let from = out.len() as u64;
        out.extend_from_slice(child);
        let named = match word(child, 0) {
            len @ 17..=272 => &child[16..len as usize - 1],
            _ => &[],
        };
        items.push(Item {
            hash: name_hash(named),
            start: from,
            end: out.len() as u64,
        });
    }
    let at = out.len() as u64;
    goodbye::push(items, entry_at, at, &mut out);
    out
}

pub(super) fn directory(named: &[u8], children: &[Vec<u8>]) -> Vec<u8> {
    closed([name(named), entry(DIRECTORY)].concat(), children)
}

pub(super) fn root(children: &[Vec<u8>]) -> Vec<u8> {
    closed(entry(DIRECTORY), children)
}

pub(super) fn refusal(archive: &[u8]) -> ArchiveError {
    let error = steps(archive, archive.len().max(1)).expect_err("it is refused");
    assert_eq!(steps(archive, 1), Err(error.clone()), "the same, byte by byte");
    error
}
