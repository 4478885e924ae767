use std::path::{Path, PathBuf};

use proptest::prelude::*;

use super::*;
use crate::{Chunker, Dialect};

fn testdata() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("testdata")
}

fn read(name: &str) -> Vec<u8> {
    std::fs::read(testdata().join(name)).unwrap()
}

/// The file that has the same items, written by us.
fn again(index: &ChunkIndex) -> Vec<u8> {
    let mut file = Vec::new();
    let mut encoder = IndexEncoder::start(index.flags(), index.sizes(), &mut file);
    for span in index.spans() {
        encoder.push(span.id, (span.range.end - span.range.start) as usize, &mut file);
    }
    encoder.finish(&mut file);
    file
}

/// The index of a blob, as `cairn make` writes it.
fn index_of(blob: &[u8], sizes: ChunkSizes, digest: DigestAlgorithm) -> Vec<u8> {
    let mut file = Vec::new();
    let mut encoder = IndexEncoder::start(FeatureFlags::blob(digest), sizes, &mut file);
    let (mut chunker, mut rest) = (Chunker::new(sizes, Dialect::Casync), blob);
    while let Some(len) = chunker.cut(rest) {
        encoder.push(digest.id(&rest[..len]), len, &mut file);
        rest = &rest[len..];
    }
    if !rest.is_empty() {
        encoder.push(digest.id(rest), rest.len(), &mut file);
    }
    encoder.finish(&mut file);
    file
}

#[test]
fn casyncs_indexes_are_made_byte_for_byte() {
    use DigestAlgorithm::{Sha256, Sha512_256};
    let small = ChunkSizes::new(1024, 4096, 16_384).unwrap();
    let counting = read("counting.blob");
    for (name, blob, sizes, digest) in [
        ("casync-counting.caibx", &counting[..], ChunkSizes::DEFAULT, Sha512_256),
        ("casync-zeros.caibx", &[0; 300_000], ChunkSizes::DEFAULT, Sha512_256),
        ("casync-tiny.caibx", b"a", ChunkSizes::DEFAULT, Sha512_256),
        ("casync-empty.caibx", b"", ChunkSizes::DEFAULT, Sha512_256),
        ("casync-small-sha256.caibx", &counting, small, Sha256),
        ("casync-small-sha512-256.caibx", &counting, small, Sha512_256),
    ] {
        let golden = read(name);
        assert_eq!(index_of(blob, sizes, digest), golden, "{name}");
        let index = ChunkIndex::parse(golden.into()).unwrap();
        assert_eq!(
            (index.blob_len(), index.digest_algorithm()),
            (blob.len() as u64, digest),
            "{name}"
        );
    }
}

#[test]
fn golden_indexes_are_read_and_written_again() {
    let mut folders = vec![testdata()];
    // The archives and indexes that the project shares lie beside a checkout, or where this variable says.
    let shared = std::env::var_os("CAIRN_SHARED").map_or_else(
        || Path::new(env!("CARGO_MANIFEST_DIR")).join("../../shared"),
        PathBuf::from,
    );
    folders.extend(["casync", "desync"].map(|tool| shared.join("testdata").join(tool)));
    let mut read = 0;
    for folder in folders.iter().filter(|folder| folder.exists()) {
        for file in std::fs::read_dir(folder).unwrap() {
            let path = file.unwrap().path();
            if path.extension().is_some_and(|kind| kind == "caibx" || kind == "caidx") {
                let golden = Bytes::from(std::fs::read(&path).unwrap());
                match ChunkIndex::parse(golden.clone()) {
                    Ok(index) => assert_eq!(again(&index), golden, "{}", path.display()),
                    Err(error) => panic!("{}: {error}", path.display()),
                }
                read += 1;
            }
        }
    }
    assert!(read >= 11, "{read} golden indexes");
}

#[test]
fn a_mapped_file_is_viewed_not_copied() {
    let golden = read("casync-small-sha256.caibx");
    let start = golden.as_ptr();
    let index = ChunkIndex::parse(Bytes::from_owner(golden)).unwrap();
    assert_eq!(index.as_bytes().as_ptr(), start);
    assert_eq!(index.len(), 8);
    assert_eq!(index.find(index.blob_len()), None);
    for (at, span) in index.spans().enumerate() {
        assert_eq!(index.find(span.range.start), Some(at));
        assert_eq!(index.find(span.range.end - 1), Some(at));
    }
}

#[test]
fn the_null_chunk_is_told_by_id_and_length() {
    let known = "1c8109946feed9f9e9fe4b5144d90f05a50fb3275e848cb72f4b9546d8c533f2";
    let null = NullChunk::new(DigestAlgorithm::Sha512_256, 262_144);
    assert_eq!((null.id(), null.plain_len()), (known.parse().unwrap(), 262_144));
    let sha256 = NullChunk::new(DigestAlgorithm::Sha256, 262_144);
    assert_eq!(
        sha256.id().to_string(),
        "8a39d2abd3999ab73c34db2476849cddf303ce389b35826850f9a700589b4a90"
    );
    let index = ChunkIndex::parse(read("casync-zeros.caibx").into()).unwrap();
    assert_eq!(NullChunk::of(&index), null);
    let spans: Vec<bool> = index.spans().map(|span| null.is(&span)).collect();
    assert_eq!(spans, [true, false]);
    let false_size = ChunkSpan {
        id: null.id(),
        range: 0..1000,
    };
    assert!(!null.is(&false_size));
}

/// An index of three chunks, 1024:4096:16384.
fn sample() -> Vec<u8> {
    let sizes = ChunkSizes::new(1024, 4096, 16_384).unwrap();
    let mut file = Vec::new();
    let mut encoder = IndexEncoder::start(FeatureFlags::blob(DigestAlgorithm::Sha256), sizes, &mut file);
    for len in [2000, 16_384, 7] {
        encoder.push(ChunkId::from_bytes([len as u8; 32]), len, &mut file);
    }
    encoder.finish(&mut file);
    file
}

#[track_caller]
fn refused(file: Vec<u8>, message: &str) {
    let error = ChunkIndex::parse(file.into()).unwrap_err();
    assert_eq!(error.to_string(), format!("not a chunk index: {message}"));
}

#[test]
fn every_rule_has_its_message() {
    let cases: &[(usize, u64, &str)] = &[
        (0, 47, "the INDEX record's size is not 48 (at byte 0)"),
        (8, 1, "it does not start with an INDEX record (at byte 8)"),
        (
            8,
            ENTRY_TYPE,
            "it is an archive (.catar), whose index is another file (.caidx) (at byte 8)",
        ),
        (16, 1 << 33, "feature flags with unknown bits (at byte 16)"),
        (16, u64::MAX, "feature flags with unknown bits (at byte 16)"),
        (16, 3, "feature flags with both 32-bit and 16-bit user ids (at byte 16)"),
        (
            16,
            0x30,
            "feature flags with more than one granularity of time (at byte 16)",
        ),
        (
            16,
            0x18,
            "feature flags with more than one granularity of time (at byte 16)",
        ),
        (
            16,
            0x48,
            "feature flags with more than one granularity of time (at byte 16)",
        ),
        (16, 0x2000_0102, "feature flags with ACLs and permissions (at byte 16)"),
        (
            16,
            0x2000_0000,
            "feature flags with ACLs but without users (at byte 16)",
        ),
        (16, 0x180, "feature flags with permissions and read-only (at byte 16)"),
        (
            16,
            0x8000_0000_0010_0000,
            "feature flags that keep the nodump attribute and skip files that have it (at byte 16)",
        ),
        (
            16,
            0x800_0000,
            "feature flags with read-only subvolumes but without subvolumes (at byte 16)",
        ),
        (24, 0, "the smallest chunk size is not in 1..=134217728 (at byte 24)"),
        (
            24,
            4097,
            "the chunk sizes are not smallest <= average <= largest (at byte 24)",
        ),
        (
            32,
            u64::MAX,
            "the average chunk size is not in 1..=134217728 (at byte 32)",
        ),
        (
            40,
            134_217_729,
            "the largest chunk size is not in 1..=134217728 (at byte 40)",
        ),
        (
            40,
            4095,
            "the chunk sizes are not smallest <= average <= largest (at byte 24)",
        ),
        (
            40,
            16_383,
            "a chunk is longer than the index's largest chunk size (at byte 104)",
        ),
        (48, 176, "the TABLE record's size is not open (all ones) (at byte 48)"),
        (56, INDEX_TYPE, "no TABLE record follows INDEX (at byte 56)"),
        (64, 0, "the table's tail starts before the end of the file (at byte 64)"),
        (104, 2000, "a chunk does not end behind the one before it (at byte 104)"),
        (104, 1999, "a chunk does not end behind the one before it (at byte 104)"),
        (
            144,
            18_384 + 16_385,
            "a chunk is longer than the index's largest chunk size (at byte 144)",
        ),
        (
            144,
            u64::MAX,
            "a chunk is longer than the index's largest chunk size (at byte 144)",
        ),
        (184, 1, "the table tail's first word is not 0 (at byte 184)"),
        (192, 1, "the table tail's second word is not 0 (at byte 192)"),
        (
            200,
            64,
            "the table tail does not give 48 as the table's offset (at byte 200)",
        ),
        (208, 175, "the table tail's size is not the table's (at byte 208)"),
        (
            216,
            0,
            "no table tail ends the file: it is cut short, or bytes follow it (at byte 216)",
        ),
    ];
    assert_eq!(sample().len(), 224);
    ChunkIndex::parse(sample().into()).unwrap();
    for (at, value, message) in cases {
        let mut file = sample();
        file[*at..at + 8].copy_from_slice(&value.to_le_bytes());
        refused(file, message);
    }
}

#[test]
fn a_cut_or_prolonged_file_is_refused() {
    let whole = sample();
    for len in 0..whole.len() {
        ChunkIndex::parse(whole[..len].to_vec().into()).unwrap_err();
    }
    refused(
        Vec::new(),
        "it is cut short: an index has at least 104 bytes (at byte 0)",
    );
    let trailing = "trailing bytes follow the end of its table (at byte 224)";
    for behind in [&[0][..], &[7], &[0; 40], &[0xff; 40], &[1; 99], &whole] {
        refused([&whole[..], behind].concat(), trailing);
    }
    refused(
        whole[..whole.len() - 1].to_vec(),
        "the table is not a whole number of 40-byte items: it is cut short, or bytes follow it (at byte 223)",
    );
    refused(
        [&whole[..184], &[7; 40]].concat(),
        "no table tail ends the file: it is cut short, or bytes follow it (at byte 216)",
    );
    // A second tail behind the first, its size right.
    let mut twice = [&whole[..], &whole[184..]].concat();
    twice[248..256].copy_from_slice(&216_u64.to_le_bytes());
    refused(
        twice,
        "the table's tail starts before the end of the file (at byte 184)",
    );
}

proptest! {
    #[test]
    fn what_is_written_is_read(lens in prop::collection::vec(1..300_usize, 0..200), sha256: bool) {
        let digest = if sha256 { DigestAlgorithm::Sha256 } else { DigestAlgorithm::Sha512_256 };
        let sizes = ChunkSizes::new(1, 100, 300).unwrap();
        let mut file = Vec::new();
        let mut encoder = IndexEncoder::start(FeatureFlags::blob(digest), sizes, &mut file);
        for &len in &lens {
            encoder.push(ChunkId::from_bytes([len as u8; 32]), len, &mut file);
        }
        encoder.finish(&mut file);
        prop_assert_eq!(file.len(), 104 + 40 * lens.len());
        let index = ChunkIndex::parse(file.clone().into()).unwrap();
        prop_assert_eq!(index.blob_len(), lens.iter().sum::<usize>() as u64);
        prop_assert_eq!(index.digest_algorithm(), digest);
        let read: Vec<usize> = index.spans().map(|span| (span.range.end - span.range.start) as usize).collect();
        prop_assert_eq!(read, lens);
        prop_assert_eq!(again(&index), file);
    }

    #[test]
    fn a_damaged_file_is_refused_or_keeps_the_promises(at in 0..224_usize, byte: u8) {
        let mut file = sample();
        file[at] = byte;
        if let Ok(index) = ChunkIndex::parse(file.clone().into()) {
            prop_assert_eq!(again(&index), file);
        }
    }
}
