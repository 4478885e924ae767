//! Archives by casync, decoded and encoded again.

use super::*;
use bytes::Bytes;

mod hostile;
mod random;
mod raw;
mod tables;

/// All steps of an archive that comes in pieces of `piece` bytes.
fn steps(archive: &[u8], piece: usize) -> Result<Vec<Step>, ArchiveError> {
    let mut decoder = ArchiveDecoder::new(ArchiveLimits::default());
    let mut pieces = archive.chunks(piece);
    let mut steps: Vec<Step> = Vec::new();
    loop {
        match decoder.next()? {
            Step::NeedBytes => match pieces.next() {
                Some(piece) => decoder.push(Bytes::copy_from_slice(piece)),
                None => decoder.finish(),
            },
            Step::End => return Ok(steps),
            Step::Payload(bytes) => match steps.last_mut() {
                Some(Step::Payload(before)) => *before = [before.as_ref(), &bytes].concat().into(),
                _ => steps.push(Step::Payload(bytes)),
            },
            step => steps.push(step),
        }
    }
}

fn encode(steps: &[Step], flags: crate::FeatureFlags, form: ArchiveForm) -> Vec<u8> {
    let mut encoder = ArchiveEncoder::new(flags, form).unwrap();
    let mut out = Vec::new();
    for step in steps {
        match step {
            Step::Enter { name: None, node, .. } => encoder.root(node, &mut out).unwrap(),
            Step::Enter {
                name: Some(name), node, ..
            } => encoder.child(name, node, &mut out).unwrap(),
            Step::Payload(bytes) => {
                encoder.payload(bytes.len() as u64).unwrap();
                out.extend_from_slice(bytes);
            }
            Step::Leave => encoder.leave(&mut out).unwrap(),
            Step::Orphan { .. } | Step::NeedBytes | Step::End => unreachable!("not in these archives"),
        }
        assert_eq!(encoder.position(), out.len() as u64);
    }
    assert!(encoder.is_finished());
    out
}

/// Every kind of inode, attributes, ACLs, capabilities, names of all sorts: `casync make kinds.catar TREE`, as root.
const KINDS: &[u8] = include_bytes!("../../testdata/kinds.catar");

#[test]
fn casyncs_archive_comes_back_byte_for_byte() {
    let flags = crate::FeatureFlags(u64::from_le_bytes(KINDS[16..24].try_into().unwrap()));
    let whole = steps(KINDS, KINDS.len()).unwrap();
    for piece in [1, 7, 16, 100] {
        assert_eq!(steps(KINDS, piece).unwrap(), whole, "in pieces of {piece}");
    }
    assert!(encode(&whole, flags, ArchiveForm::Sorted) == KINDS);
    assert!(encode(&whole, flags, ArchiveForm::AnyOrder) == KINDS);
}

#[test]
fn an_archive_cut_anywhere_is_an_error() {
    for end in 0..KINDS.len() {
        let error = steps(&KINDS[..end], 4096).unwrap_err();
        assert_eq!(
            error.rule, "it is cut short: the directories that are open have no end",
            "cut at {end}"
        );
        assert_eq!(error.offset, end as u64);
    }
}

#[test]
fn bytes_after_the_end_are_an_error() {
    let error = steps(&[KINDS, b"\0"].concat(), 4096).unwrap_err();
    assert_eq!(error.rule, "bytes follow the end of the root directory");
    assert_eq!(error.offset, KINDS.len() as u64);
}

/// The same tree by desync v1.1.0: a FILENAME alone for FIFO and socket, a NUL after each attribute's value.
const DESYNC_KINDS: &[u8] = include_bytes!("../../testdata/desync-kinds.catar");

#[test]
fn desyncs_archive_is_read_with_what_is_missing_named() {
    let steps = steps(DESYNC_KINDS, 4096).unwrap();
    let orphans: Vec<_> = steps
        .iter()
        .filter_map(|step| match step {
            Step::Orphan { name } => Some(name.as_ref()),
            _ => None,
        })
        .collect();
    assert_eq!(orphans, [b"fifo", b"sock"]);
    let value = |wanted: &[u8]| {
        steps.iter().find_map(|step| match step {
            Step::Enter { node, .. } => node.metadata.xattrs.iter().find(|xattr| xattr.name == wanted),
            _ => None,
        })
    };
    assert_eq!(value(b"user.mime").unwrap().value.as_ref(), b"text/plain");
    assert_eq!(value(b"user.empty").unwrap().value.as_ref(), b"");
}

impl ArchiveBytes for &[u8] {
    type Error = std::convert::Infallible;

    fn len(&self) -> u64 {
        (**self).len() as u64
    }

    fn read(&self, range: std::ops::Range<u64>) -> Result<Bytes, Self::Error> {
        Ok(Bytes::copy_from_slice(&self[range.start as usize..range.end as usize]))
    }
}

/// Every entry is found by its path, the same as in a reading of the whole; names that are not there are not.
fn check_lookup(archive: &[u8], steps: &[Step]) {
    let lookup = ArchiveLookup::open(archive, ArchiveLimits::default()).unwrap();
    let mut path: Vec<Bytes> = Vec::new();
    for step in steps {
        match step {
            Step::Enter { name, node, at } => {
                path.extend(name.clone());
                let found = lookup.find(path.iter().map(|name| name.as_ref())).unwrap().unwrap();
                assert_eq!((&found.node, found.at), (&**node, *at), "{path:?}");
                let missing: &[u8] = b"not there";
                assert_eq!(lookup.child(&found, missing).unwrap(), None);
                if node.content != Content::Directory {
                    path.pop();
                }
            }
            Step::Leave => {
                path.pop();
            }
            _ => {}
        }
    }
    assert_eq!(path.len(), 0);
}

#[test]
fn each_entry_is_found_by_its_path() {
    for archive in [KINDS, DESYNC_KINDS] {
        check_lookup(archive, &steps(archive, archive.len()).unwrap());
    }
}

#[test]
fn a_directory_is_listed_in_the_order_of_the_archive() {
    let lookup = ArchiveLookup::open(KINDS, ArchiveLimits::default()).unwrap();
    let deep = lookup.find([b"dir".as_ref(), b"deep"]).unwrap().unwrap();
    let names: Vec<_> = lookup
        .children(&deep)
        .unwrap()
        .map(|child| child.unwrap().name.unwrap())
        .collect();
    let directory = "d".repeat(100);
    let expected = [directory.as_str(), "f0", "f1", "f2", "f3", "f4", "f5", "f6"];
    assert_eq!(names, expected);
}

/// Known answers of `formats/FORMATS.md`.
#[test]
fn names_have_these_hashes() {
    let hashes = [b"a".as_ref(), b"file1.txt", b"hello world", b"\xc3\xa4"].map(goodbye::name_hash);
    let expected = [
        0x51ba_5a19_e058_c7ad,
        0xb2fe_30e6_9d94_cf21,
        0xb036_453e_fd8c_f353,
        0x2927_8e5e_cf5f_9e31,
    ];
    assert_eq!(hashes, expected);
}
