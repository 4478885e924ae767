//! Tables that lie: refused by a reader of the whole; by the search refused or of no effect.

use expect_test::expect;

use super::super::goodbye::name_hash;
use super::super::record::word;
use super::raw::*;
use super::*;

/// A table lies in one word: what a reader of the whole says, and what the search says when it lists the root and when it
/// looks for the three entries.
#[test]
fn lying_tables_are_refused() {
    let good = root(&[
        file(b"a", b"payload"),
        directory(b"d", &[file(b"in", b"")]),
        file(b"z", b""),
    ]);
    let at = (good.len() - 16 - 4 * 24) as u64;
    let item = |number: usize| at as usize + 16 + 24 * number;
    let by_name = |name: &[u8]| {
        let hash = name_hash(name);
        let mut items = (0..3).map(item);
        items.find(|&item| word(&good, item + 16) == hash).expect("it is there")
    };
    let (a, d, z, tail) = (by_name(b"a"), by_name(b"d"), by_name(b"z"), item(3));
    let set = |at: usize, value: u64| {
        let mut archive = good.clone();
        archive[at..at + 8].copy_from_slice(&value.to_le_bytes());
        archive
    };
    let swapped = {
        let mut archive = good.clone();
        let (one, other) = (item(0), item(1));
        archive[one..one + 24].copy_from_slice(&good[other..other + 24]);
        archive[other..other + 24].copy_from_slice(&good[one..one + 24]);
        archive
    };
    let repeated = {
        let mut archive = good.clone();
        archive[z..z + 24].copy_from_slice(&good[a..a + 24]);
        archive
    };
    let lies = [
        ("marker", set(tail + 16, 0)),
        ("size: one item less", set(tail + 8, 16 + 3 * 24)),
        ("size: one item more", set(tail + 8, 16 + 5 * 24)),
        ("size: no whole items", set(tail + 8, 16 + 4 * 24 + 1)),
        ("size: 0", set(tail + 8, 0)),
        ("size: 2^64 - 1", set(tail + 8, u64::MAX)),
        ("way to the directory: 0", set(tail, 0)),
        ("way to the directory: into it", set(tail, at - 64)),
        ("way to the directory: before it", set(tail, at + 1)),
        ("way to the directory: 2^64 - 1", set(tail, u64::MAX)),
        ("offset: 0", set(a, 0)),
        ("offset: another entry's", set(a, word(&good, z))),
        ("offset: into a payload", set(a, word(&good, a) - 98)),
        ("offset: the root's", set(a, at)),
        ("offset: before the archive", set(a, at + 1)),
        ("offset: 2^64 - 1", set(a, u64::MAX)),
        ("size of a file: 0", set(a + 8, 0)),
        ("size of a file: one less", set(a + 8, word(&good, a + 8) - 1)),
        ("size of a file: one more", set(a + 8, word(&good, a + 8) + 1)),
        ("size of a file: 2^64 - 1", set(a + 8, u64::MAX)),
        ("size of a directory: the next file too", set(d + 8, word(&good, d))),
        ("size of a directory: one less", set(d + 8, word(&good, d + 8) - 1)),
        ("hash: another", set(a + 16, 1)),
        ("hash: of another entry", set(a + 16, name_hash(b"z"))),
        ("items: swapped", swapped),
        ("items: one twice", repeated),
    ];
    let mut report = String::new();
    for (what, archive) in &lies {
        let ArchiveError { offset, entry, rule } = refusal(archive);
        report += &format!("{what}\n  read: {} {entry}: {rule}\n", offset as i64 - at as i64);
        let lookup = match ArchiveLookup::open(archive.as_slice(), ArchiveLimits::default()) {
            Ok(lookup) => lookup,
            Err(error) => {
                report += &format!("  open: {error}\n");
                continue;
            }
        };
        let listed: Result<Vec<_>, _> = lookup.children(lookup.root()).and_then(Iterator::collect);
        report += &match listed {
            Ok(children) => format!("  list: {} entries\n", children.len()),
            Err(error) => format!("  list: {error}\n"),
        };
        for name in [&b"a"[..], b"d", b"z"] {
            let found = lookup.find([name]);
            let found = found.and_then(|found| match found {
                Some(found) => lookup.child(&found, b"in").map(|_| Some(found)),
                None => Ok(None),
            });
            match found {
                Ok(Some(found)) => {
                    assert_eq!(found.name.as_deref(), Some(name), "{what}");
                    assert_eq!(archive[found.at as usize - name.len() - 1..][..name.len()], *name);
                }
                Ok(None) => report += &format!("  find {}: not there\n", name.escape_ascii()),
                Err(error) => report += &format!("  find {}: {error}\n", name.escape_ascii()),
            }
        }
    }
    expect![[r#"
        marker
          read: 0 .: a GOODBYE record's tail has not the marker
          open: bad archive at byte 600, entry ".": no GOODBYE tail ends the directory
        size: one item less
          read: 0 .: a GOODBYE record's tail does not give its size
          open: bad archive at byte 600, entry ".": a GOODBYE record's tail does not give the way to its directory
        size: one item more
          read: 0 .: a GOODBYE record's tail does not give its size
          open: bad archive at byte 600, entry ".": a GOODBYE record's tail points out of its directory
        size: no whole items
          read: 0 .: a GOODBYE record's tail does not give its size
          open: bad archive at byte 600, entry ".": a GOODBYE record's tail points out of its directory
        size: 0
          read: 0 .: a GOODBYE record's tail does not give its size
          open: bad archive at byte 600, entry ".": a GOODBYE record's tail points out of its directory
        size: 2^64 - 1
          read: 0 .: a GOODBYE record's tail does not give its size
          open: bad archive at byte 600, entry ".": a GOODBYE record's tail points out of its directory
        way to the directory: 0
          read: 0 .: a GOODBYE record's tail does not give the way to its directory
          open: bad archive at byte 600, entry ".": a GOODBYE record's tail does not give the way to its directory
        way to the directory: into it
          read: 0 .: a GOODBYE record's tail does not give the way to its directory
          open: bad archive at byte 600, entry ".": a GOODBYE record's tail does not give the way to its directory
        way to the directory: before it
          read: 0 .: a GOODBYE record's tail does not give the way to its directory
          open: bad archive at byte 600, entry ".": a GOODBYE record's tail points out of its directory
        way to the directory: 2^64 - 1
          read: 0 .: a GOODBYE record's tail does not give the way to its directory
          open: bad archive at byte 600, entry ".": a GOODBYE record's tail points out of its directory
        offset: 0
          read: 0 .: a GOODBYE record's items are not the entries of its directory
          list: bad archive at byte 512, entry ".": an item of a GOODBYE record points out of its directory
          find a: bad archive at byte 552, entry ".": an item of a GOODBYE record points out of its directory
        offset: another entry's
          read: 0 .: a GOODBYE record's items are not the entries of its directory
          list: bad archive at byte 512, entry ".": an item of a GOODBYE record points out of its directory
          find a: bad archive at byte 552, entry ".": an item of a GOODBYE record points out of its directory
        offset: into a payload
          read: 0 .: a GOODBYE record's items are not the entries of its directory
          list: bad archive at byte 512, entry ".": the items of a GOODBYE record do not fill their directory
          find a: bad archive at byte 162, entry ".": a record of unknown type
        offset: the root's
          read: 0 .: a GOODBYE record's items are not the entries of its directory
          list: bad archive at byte 512, entry ".": an item of a GOODBYE record points out of its directory
          find a: bad archive at byte 552, entry ".": an item of a GOODBYE record points out of its directory
        offset: before the archive
          read: 0 .: a GOODBYE record's items are not the entries of its directory
          list: bad archive at byte 512, entry ".": an item of a GOODBYE record points out of its directory
          find a: bad archive at byte 552, entry ".": an item of a GOODBYE record points out of its directory
        offset: 2^64 - 1
          read: 0 .: a GOODBYE record's items are not the entries of its directory
          list: bad archive at byte 512, entry ".": an item of a GOODBYE record points out of its directory
          find a: bad archive at byte 552, entry ".": an item of a GOODBYE record points out of its directory
        size of a file: 0
          read: 0 .: a GOODBYE record's items are not the entries of its directory
          list: bad archive at byte 512, entry ".": an item of a GOODBYE record points out of its directory
          find a: bad archive at byte 552, entry ".": an item of a GOODBYE record points out of its directory
        size of a file: one less
          read: 0 .: a GOODBYE record's items are not the entries of its directory
          list: bad archive at byte 512, entry ".": the items of a GOODBYE record do not fill their directory
          find a: bad archive at byte 82, entry "a": an item of a GOODBYE record gives another size than the entry has
        size of a file: one more
          read: 0 .: a GOODBYE record's items are not the entries of its directory
          list: bad archive at byte 512, entry ".": the items of a GOODBYE record do not fill their directory
          find a: bad archive at byte 82, entry "a": an item of a GOODBYE record gives another size than the entry has
        size of a file: 2^64 - 1
          read: 0 .: a GOODBYE record's items are not the entries of its directory
          list: bad archive at byte 512, entry ".": an item of a GOODBYE record points out of its directory
          find a: bad archive at byte 552, entry ".": an item of a GOODBYE record points out of its directory
        size of a directory: the next file too
          read: 0 .: a GOODBYE record's items are not the entries of its directory
          list: bad archive at byte 512, entry ".": the items of a GOODBYE record do not fill their directory
          find d: bad archive at byte 488, entry "d": no GOODBYE tail ends the directory
        size of a directory: one less
          read: 0 .: a GOODBYE record's items are not the entries of its directory
          list: bad archive at byte 512, entry ".": the items of a GOODBYE record do not fill their directory
          find d: bad archive at byte 389, entry "d": no GOODBYE tail ends the directory
        hash: another
          read: 0 .: a GOODBYE record's items are not the entries of its directory
          list: bad archive at byte 64, entry ".": an item of a GOODBYE record points to another name
          find a: not there
        hash: of another entry
          read: 0 .: a GOODBYE record's items are not the entries of its directory
          list: bad archive at byte 64, entry ".": an item of a GOODBYE record points to another name
          find a: not there
        items: swapped
          read: 0 .: a GOODBYE record's items are not the entries of its directory
          list: bad archive at byte 512, entry ".": the items of a GOODBYE record are not in order
          find z: not there
        items: one twice
          read: 0 .: a GOODBYE record's items are not the entries of its directory
          list: bad archive at byte 512, entry ".": the items of a GOODBYE record do not fill their directory
          find z: not there
    "#]]
    .assert_eq(&report);
}

/// Goal: a table that lies is an error or finds nothing; never a wrong entry, a panic or an endless search.
/// Method: flip each bit of the archive; whatever is found under a name has that name.
#[test]
fn lying_tables_find_nothing_false() {
    let names: [&[u8]; 4] = [b"file", b"dir", b"sock", b"link"];
    for bit in 0..KINDS.len() * 8 {
        let mut archive = KINDS.to_vec();
        archive[bit / 8] ^= 1 << (bit % 8);
        let Ok(lookup) = ArchiveLookup::open(archive.as_slice(), ArchiveLimits::default()) else {
            continue;
        };
        for name in names {
            if let Ok(Some(found)) = lookup.find([name]) {
                assert_eq!(found.name.as_deref(), Some(name), "bit {bit}");
            }
        }
        let root = lookup.root().clone();
        if let Ok(children) = lookup.children(&root) {
            assert!(children.count() <= archive.len() / 100);
        }
    }
}
