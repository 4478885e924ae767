use std::path::{Path, PathBuf};

use bytes::Bytes;
use proptest::prelude::*;

use super::*;
use crate::{CHUNK_LEN_MAX, Chunk, ChunkError, ChunkForm, ChunkId, DigestAlgorithm, EncodedChunk};

const DIGEST: DigestAlgorithm = DigestAlgorithm::Sha512_256;

fn noise(len: usize) -> Vec<u8> {
    let mut random = fastrand::Rng::with_seed(len as u64);
    std::iter::repeat_with(|| random.u8(..)).take(len).collect()
}

fn text(len: usize) -> Vec<u8> {
    (0_u64..)
        .flat_map(|number| format!("{number}\n").into_bytes())
        .take(len)
        .collect()
}

/// A frame as casync writes it: streamed, no content size.
fn streamed(plain: &[u8], checksum: bool) -> Vec<u8> {
    let mut context = zstd_safe::CCtx::create();
    context
        .set_parameter(zstd_safe::CParameter::ContentSizeFlag(false))
        .unwrap();
    context
        .set_parameter(zstd_safe::CParameter::ChecksumFlag(checksum))
        .unwrap();
    let mut frame = Vec::with_capacity(zstd_safe::compress_bound(plain.len()));
    context.compress2(&mut frame, plain).unwrap();
    frame
}

fn skippable(content: &[u8]) -> Vec<u8> {
    let len = (content.len() as u32).to_le_bytes();
    [&[0x5a, 0x2a, 0x4d, 0x18], &len[..], content].concat()
}

fn gzip(plain: &[u8]) -> Vec<u8> {
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::default());
    std::io::Write::write_all(&mut encoder, plain).unwrap();
    encoder.finish().unwrap()
}

/// What both ways in make of a body; they have to agree.
fn decode(body: &[u8], plain_len_max: usize) -> Result<Vec<u8>, FrameError> {
    let owned = decompress_frame(body, plain_len_max);
    let mut slot = vec![0xaa; plain_len_max];
    let into = decompress_frame_into(body, &mut slot).map(|len| slot[..len].to_vec());
    assert_eq!(owned, into);
    if let Ok(plain) = &owned {
        assert!(plain.capacity() <= plain_len_max, "{} bytes taken", plain.capacity());
    }
    owned
}

#[track_caller]
fn refused(body: &[u8], plain_len_max: usize, message: &str) {
    match decode(body, plain_len_max) {
        Ok(plain) => panic!("{} bytes read", plain.len()),
        Err(error) => assert_eq!(error.to_string(), message),
    }
}

#[test]
fn lengths_around_every_border_round_trip() {
    let borders = [
        0,
        1,
        2,
        255,
        256,
        257,
        65_791,
        65_792,
        BLOCK,
        BLOCK + 1,
        2 * BLOCK,
        2 * BLOCK + 1,
        300_000,
    ];
    const BLOCK: usize = 128 << 10;
    for len in borders {
        for plain in [noise(len), text(len), vec![0; len], vec![7; len]] {
            for frame in [
                compress_frame(&plain, Level::DEFAULT),
                compress_frame(&plain, Level::new(-5)),
                raw_frame(&plain),
                streamed(&plain, false),
                streamed(&plain, true),
                gzip(&plain),
            ] {
                assert_eq!(decode(&frame, len).unwrap(), plain);
                assert_eq!(decode(&frame, len + 100).unwrap(), plain);
                if len > 0 {
                    assert!(matches!(decode(&frame, len - 1), Err(FrameError::TooLong { .. })));
                }
            }
        }
    }
}

#[test]
fn the_frame_fits_the_content() {
    assert_eq!(compress_frame(&[0; 262_144], Level::DEFAULT).len(), 9 + 4 + 4 + 4);
    assert_eq!(compress_frame(b"aaa", Level::DEFAULT).len(), 6 + 4 + 4);
    let noise = noise(100_000);
    assert_eq!(compress_frame(&noise, Level::DEFAULT), raw_frame(&noise));
    assert_eq!(raw_frame(&noise).len(), noise.len() + 9 + 3);
    // One part in two hundred is not worth decoding.
    let nearly = [&noise[..], &[0; 500]].concat();
    assert_eq!(compress_frame(&nearly, Level::new(19)), raw_frame(&nearly));
    let text = text(100_000);
    assert!(compress_frame(&text, Level::DEFAULT).len() < 50_000);
    assert!(compress_frame(&text, Level::new(12)).len() < compress_frame(&text, Level::new(1)).len());
}

#[test]
fn frames_follow_each_other_and_skippable_ones_are_skipped() {
    let body = [
        skippable(b"before"),
        streamed(b"one ", true),
        skippable(b""),
        compress_frame(b"two ", Level::DEFAULT),
        raw_frame(b""),
        streamed(b"three", false),
        skippable(b"after"),
    ]
    .concat();
    assert_eq!(decode(&body, 13).unwrap(), b"one two three");
    refused(&body, 12, "holds more than the 12 bytes allowed");
    assert_eq!(decode(&skippable(b"nothing else"), 10).unwrap(), b"");
}

#[test]
fn what_is_broken_is_named_with_its_offset() {
    let frame = raw_frame(b"abc");
    refused(b"", 9, "not a compressed chunk: it is empty (at byte 0)");
    refused(
        b"plain",
        9,
        "not a compressed chunk: it starts with the magic number of neither zstd nor gzip nor xz (at byte 0)",
    );
    for len in 4..frame.len() {
        let error = decode(&frame[..len], 9).unwrap_err().to_string();
        assert!(error.contains("cut short"), "{error}");
    }
    refused(
        &[&frame[..], b"x"].concat(),
        9,
        "not a compressed chunk: the zstd frame is cut short (at byte 13)",
    );
    refused(
        &[&frame[..], b"garbage"].concat(),
        9,
        "not a compressed chunk: bytes that are no zstd frame follow the last one (at byte 12)",
    );
    refused(
        &[&skippable(b"12345")[..7], b"\xff"].concat(),
        9,
        "not a compressed chunk: the zstd frame is cut short (at byte 8)",
    );

    let edit = |at: usize, byte: u8| {
        let mut frame = frame.clone();
        frame[at] = byte;
        frame
    };
    refused(
        &edit(4, 0x28),
        9,
        "not a compressed chunk: zstd frame with the reserved bit set (at byte 4)",
    );
    refused(
        &edit(4, 0x21),
        9,
        "not a compressed chunk: zstd frame that needs a dictionary (at byte 0)",
    );
    refused(
        &edit(5, 4),
        9,
        "not a compressed chunk: the zstd frame announces 4 bytes, its blocks hold 3 to 3 (at byte 0)",
    );
    refused(
        &edit(5, 2),
        9,
        "not a compressed chunk: zstd block of 3 bytes, its frame allows 2 (at byte 6)",
    );
    refused(
        &edit(6, 3 << 3 | 7),
        9,
        "not a compressed chunk: zstd block of the reserved type (at byte 6)",
    );

    let mut damaged = streamed(&text(5000), true);
    let last = damaged.len() - 1;
    damaged[last] ^= 1;
    refused(
        &damaged,
        5000,
        "not a compressed chunk: zstd frame: restored data doesn't match checksum (at byte 0)",
    );

    let mut trailing = gzip(b"abc");
    trailing.push(0);
    refused(
        &trailing,
        9,
        "not a compressed chunk: bytes follow the compressed stream (at byte 23)",
    );
    let cut = &gzip(b"abc")[..15];
    assert!(decode(cut, 9).unwrap_err().to_string().contains("gzip member"));
}

#[test]
fn headers_that_lie_take_no_memory() {
    // A window of 3.75 TiB.
    let window = [0x28, 0xb5, 0x2f, 0xfd, 0x00, 0xff, 0x01, 0x00, 0x00];
    refused(
        &window,
        9,
        "not a compressed chunk: zstd frame with a window of 4123168604160 bytes, at most 134217728 are read (at byte 0)",
    );
    // Content of 2^62 bytes in one segment, and in a window of its own.
    let mut content = vec![0x28, 0xb5, 0x2f, 0xfd, 0xc0, 0x00];
    content.extend_from_slice(&(1_u64 << 62).to_le_bytes());
    content.extend_from_slice(&[1, 0, 0]);
    refused(
        &content,
        9,
        "not a compressed chunk: the zstd frame announces 4611686018427387904 bytes, its blocks hold 0 to 0 (at byte 0)",
    );
    content[4] = 0xe0;
    content.remove(5);
    assert!(
        decode(&content, 9)
            .unwrap_err()
            .to_string()
            .contains("a window of 4611686018427387904")
    );
    // 100 000 runs of 128 KiB in 400 KB.
    let mut bomb = vec![0x28, 0xb5, 0x2f, 0xfd, 0x00, 0x88];
    for _ in 0..100_000 {
        let header = (128_u32 << 10) << 3 | 1 << 1;
        bomb.extend_from_slice(&header.to_le_bytes()[..3]);
        bomb.push(0);
    }
    bomb.extend_from_slice(&[1, 0, 0]);
    refused(&bomb, 1 << 20, "holds more than the 1048576 bytes allowed");
    // The same, compressed, without a size.
    let bomb = streamed(&vec![0; 64 << 20], false);
    refused(&bomb, 1 << 20, "holds more than the 1048576 bytes allowed");
    let bomb = gzip(&vec![0; 8 << 20]);
    refused(&bomb, 1 << 20, "holds more than the 1048576 bytes allowed");
}

/// Found by fuzzing: how much room the output had decided which of two rules was named.
#[test]
fn content_longer_than_announced_is_named_alike_by_both_ways_in() {
    let frame = b"\x28\xb5\x2f\xfd\x60\x2a\x00\x6d\x00\x000cairn\n\x01\x00#QK\x11";
    refused(
        frame,
        256 << 10,
        "not a compressed chunk: zstd frame: holds more than it announces (at byte 0)",
    );
}

fn testdata() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("testdata")
}

/// Chunk files of a store, with the ids in their names.
fn chunk_files(store: &Path) -> Vec<EncodedChunk> {
    let mut chunks = Vec::new();
    for folder in std::fs::read_dir(store).unwrap() {
        for file in std::fs::read_dir(folder.unwrap().path()).unwrap() {
            let path = file.unwrap().path();
            chunks.push(EncodedChunk {
                id: path.file_stem().unwrap().to_str().unwrap().parse().unwrap(),
                form: ChunkForm::Compressed,
                bytes: std::fs::read(&path).unwrap().into(),
            });
        }
    }
    chunks.sort_by_key(|chunk| chunk.id);
    chunks
}

#[test]
fn chunk_files_of_the_reference_tools_open() {
    for (store, count, kept) in [
        ("casync.castr", 4, true),
        ("desync.castr", 4, true),
        ("gzip.castr", 1, false),
        ("xz.castr", 1, false),
    ] {
        let chunks = chunk_files(&testdata().join(store));
        assert_eq!(chunks.len(), count, "{store}");
        for chunk in chunks {
            let opened = chunk.open(DIGEST, CHUNK_LEN_MAX).unwrap();
            let plain = decode(&chunk.bytes, opened.plain().len()).unwrap();
            assert_eq!(&plain, opened.plain());
            assert!(matches!(
                decode(&chunk.bytes, plain.len() - 1),
                Err(FrameError::TooLong { .. })
            ));
            let before = chunk.bytes.clone();
            let storable = chunk.verify(DIGEST, CHUNK_LEN_MAX).unwrap();
            assert_eq!(storable.bytes() == &before, kept, "{store}");
            assert_eq!(decode(storable.bytes(), plain.len()).unwrap(), plain);
        }
    }
    let counting = std::fs::read(testdata().join("counting.blob")).unwrap();
    let xz = &chunk_files(&testdata().join("xz.castr"))[0].bytes;
    assert_eq!(decode(xz, counting.len()).unwrap(), counting);
    refused(
        &[&xz[..], b"more"].concat(),
        counting.len(),
        &format!(
            "not a compressed chunk: bytes follow the compressed stream (at byte {})",
            xz.len()
        ),
    );
    let error = decode(&xz[..xz.len() / 2], counting.len()).unwrap_err().to_string();
    assert!(error.contains("xz stream"), "{error}");
}

fn encoded(plain: &[u8], body: Vec<u8>) -> EncodedChunk {
    EncodedChunk {
        id: DIGEST.id(plain),
        form: ChunkForm::Compressed,
        bytes: body.into(),
    }
}

#[test]
fn a_body_is_kept_only_when_every_reader_takes_it() {
    let plain = text(1000);
    let kept = |body: Vec<u8>| {
        let storable = encoded(&plain, body.clone()).verify(DIGEST, 1 << 20).unwrap();
        assert_eq!(storable.plain_len(), plain.len());
        assert_eq!(decode(storable.bytes(), plain.len()).unwrap(), plain);
        storable.bytes() == &body
    };
    assert!(kept(compress_frame(&plain, Level::DEFAULT)));
    assert!(kept(raw_frame(&plain)));
    assert!(kept(streamed(&plain, true)));
    assert!(!kept(gzip(&plain)));
    assert!(!kept([raw_frame(&plain), skippable(b"")].concat()));
    assert!(!kept([raw_frame(&plain[..500]), raw_frame(&plain[500..])].concat()));
    assert!(!kept([raw_frame(&plain), raw_frame(b"")].concat()));
    // A frame stuffed with empty blocks.
    let mut stuffed = raw_frame(&plain);
    let block = stuffed.split_off(7);
    stuffed.extend_from_slice(&[0; 300]);
    stuffed.extend_from_slice(&block);
    assert!(!kept(stuffed));
}

#[test]
fn lengths_that_an_index_lies_about_are_named() {
    let plain = text(1000);
    let chunk = Chunk::from_plain(DIGEST, plain.clone().into());
    let id: ChunkId = chunk.id();
    let sized = encoded(&plain, raw_frame(&plain));
    let unsized_frame = encoded(&plain, streamed(&plain, false));
    let bare = EncodedChunk {
        form: ChunkForm::Plain,
        bytes: Bytes::from(plain.clone()),
        id,
    };
    for chunk in [&sized, &unsized_frame, &bare] {
        assert_eq!(chunk.open_exact(DIGEST, 1000).unwrap().plain(), &plain);
        assert_eq!(
            chunk.open_exact(DIGEST, 1001).unwrap_err().to_string(),
            format!("chunk {id}: it has 1000 bytes, the index says 1001")
        );
        let longer = chunk.open_exact(DIGEST, 999).unwrap_err();
        let mut slot = [0; 999];
        let slots = EncodedChunk::open_into_many(std::slice::from_ref(chunk), DIGEST, &mut [&mut slot]);
        assert_eq!(slots, [Err(longer.clone())]);
        match longer {
            ChunkError::Length {
                expected: 999,
                found: 1000,
                ..
            } => {}
            ChunkError::Longer { expected: 999, .. } => assert_eq!(chunk.bytes, unsized_frame.bytes),
            other => panic!("{other}"),
        }
    }
    let mut wrong = encoded(&plain, raw_frame(&plain));
    wrong.id = DIGEST.id(b"another");
    let results = EncodedChunk::open_exact_many(
        &[sized.clone(), wrong, unsized_frame.clone(), bare, sized],
        DIGEST,
        &[Some(1000), Some(1000), None, Some(999), Some(1)],
    );
    let shown: Vec<_> = results
        .iter()
        .map(|result| result.as_ref().err().map(ToString::to_string).unwrap_or_default())
        .collect();
    assert_eq!(
        shown,
        [
            String::new(),
            format!("chunk {}: its bytes have digest {id}", DIGEST.id(b"another")),
            String::new(),
            format!("chunk {id}: it has 1000 bytes, the index says 999"),
            format!("chunk {id}: it has 1000 bytes, the index says 1"),
        ]
    );
}

/// Bytes of every kind of compressibility.
fn any_plain() -> impl Strategy<Value = Vec<u8>> {
    prop_oneof![
        prop::collection::vec(any::<u8>(), 0..3000),
        (any::<u8>(), 0..300_000_usize).prop_map(|(byte, len)| vec![byte; len]),
        (0..300_000_usize).prop_map(text),
        (0..300_000_usize).prop_map(noise),
        (0..200_000_usize, 0..200_000_usize).prop_map(|(a, b)| [noise(a), text(b)].concat()),
    ]
}

/// Pieces are told only of one whole frame, whoever wrote it.
#[test]
fn raw_pieces_of_other_writers() {
    let plain = noise(300_000);
    for checksum in [false, true] {
        let frame = streamed(&plain, checksum);
        let pieces = raw_pieces(&frame).unwrap();
        assert_eq!(pieces.len(), 3);
        assert_eq!(
            pieces
                .into_iter()
                .flat_map(|piece| frame[piece].to_vec())
                .collect::<Vec<u8>>(),
            plain
        );
        assert_eq!(raw_pieces(&frame[..frame.len() - 1]), None);
        assert_eq!(raw_pieces(&[&frame[..], &[0]].concat()), None);
        assert_eq!(raw_pieces(&[frame.clone(), frame].concat()), None);
    }
    assert_eq!(raw_pieces(&compress_frame(&text(1000), Level::DEFAULT)), None);
    assert_eq!(raw_pieces(&skippable(b"x")), None);
    assert_eq!(raw_pieces(&[]), None);
    assert_eq!(raw_pieces(&raw_frame(&[])), Some(vec![]));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn what_is_written_is_read(plain in any_plain(), level in -7..12) {
        let frame = compress_frame(&plain, Level::new(level));
        prop_assert!(frame.len() <= raw_frame(&plain).len() + 4);
        prop_assert!(is_one_frame(&frame, plain.len()));
        prop_assert_eq!(decode(&frame, plain.len()).unwrap(), &plain[..]);
        prop_assert_eq!(decode(&raw_frame(&plain), plain.len()).unwrap(), &plain[..]);
        let raw = raw_frame(&plain);
        let pieces = raw_pieces(&raw).unwrap();
        prop_assert_eq!(pieces.into_iter().flat_map(|piece| raw[piece].to_vec()).collect::<Vec<u8>>(), &plain[..]);
        if let Some(pieces) = raw_pieces(&frame) {
            prop_assert_eq!(pieces.into_iter().flat_map(|piece| frame[piece].to_vec()).collect::<Vec<u8>>(), &plain[..]);
        }
    }

    #[test]
    fn a_damaged_frame_is_refused_or_within_bounds(plain in any_plain(), at in any::<prop::sample::Index>(), bit in 0..8_u8) {
        let mut frame = compress_frame(&plain, Level::DEFAULT);
        let at = at.index(frame.len());
        frame[at] ^= 1 << bit;
        if let Ok(damaged) = decode(&frame, plain.len()) {
            prop_assert!(damaged.len() <= plain.len());
        }
    }
}
