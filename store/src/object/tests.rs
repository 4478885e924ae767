use std::ops::Range;
use std::sync::Arc;

use bytes::Bytes;
use cairn_formats::{
    Chunk, ChunkForm, ChunkIndex, ChunkSizes, DigestAlgorithm, FeatureFlags, IndexEncoder, Level, StorableChunk,
};
use tempfile::TempDir;

use super::*;
use crate::{ChunkStore as _, CompactOptions, Error, LogPosition, PackOptions, PackStore, Prune as _};

/// Noise, text, zeros, chunks above a block, one-byte chunks, and some of them again.
fn chunks() -> Vec<Chunk> {
    let mut random = fastrand::Rng::with_seed(3);
    let mut chunks: Vec<Chunk> = Vec::new();
    for n in 0..700 {
        let len = match n % 7 {
            0 => random.usize(130_000..300_000) / 10 * (1 + n % 10),
            1 => 1,
            _ => random.usize(1..20_000),
        };
        let plain = match n % 5 {
            0 => vec![0; len],
            1 => format!("{n} ").into_bytes().into_iter().cycle().take(len).collect(),
            2 if n > 10 => {
                chunks.push(chunks[n / 2].clone());
                continue;
            }
            _ => std::iter::repeat_with(|| random.u8(..)).take(len).collect::<Vec<u8>>(),
        };
        chunks.push(Chunk::from_plain(DigestAlgorithm::default(), Bytes::from(plain)));
    }
    chunks
}

struct Stored {
    _folder: TempDir,
    store: PackStore,
    object: Arc<dyn ObjectChunks>,
    bytes: Vec<u8>,
    chunks: Vec<Chunk>,
}

fn stored() -> Stored {
    let folder = tempfile::tempdir().unwrap();
    let options = PackOptions {
        pack_len: 2 << 20,
        ..PackOptions::default()
    };
    let (store, _) = PackStore::open(folder.path(), options).unwrap();
    let chunks = chunks();
    let storable: Vec<StorableChunk> = chunks
        .iter()
        .map(|chunk| chunk.encode(ChunkForm::Compressed, Level::new(1)))
        .collect();
    for some in storable.chunks(50) {
        store.put_many(some).unwrap();
        store.flush().unwrap();
    }
    let mut file = Vec::new();
    let flags = FeatureFlags::blob(DigestAlgorithm::default());
    let mut index = IndexEncoder::start(flags, ChunkSizes::new(1, 65536, 1 << 20).unwrap(), &mut file);
    chunks
        .iter()
        .for_each(|chunk| index.push(chunk.id(), chunk.plain().len(), &mut file));
    index.finish(&mut file);
    let index = ChunkIndex::parse(file.into()).unwrap();
    Stored {
        object: Arc::new(IndexedObject::new(index)),
        bytes: chunks.iter().flat_map(|chunk| chunk.plain().to_vec()).collect(),
        chunks,
        store,
        _folder: folder,
    }
}

fn read(reads: &Arc<RangeReads>, stored: &Stored, range: Range<u64>) -> crate::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    for piece in reads.read(Arc::clone(&stored.object), range) {
        bytes.extend_from_slice(&piece?);
    }
    Ok(bytes)
}

fn check(reads: &Arc<RangeReads>, stored: &Stored, seed: u64) {
    let mut random = fastrand::Rng::with_seed(seed);
    let len = stored.bytes.len() as u64;
    for n in 0..60 {
        let start = random.u64(..len + 10);
        let end = match n % 3 {
            0 => start + random.u64(..300),
            1 => start + random.u64(..1 << 20),
            _ => u64::MAX,
        };
        let expected = &stored.bytes[start.min(len) as usize..end.min(len) as usize];
        let found = read(reads, stored, start..end).unwrap();
        assert!(found == expected, "{start}..{end}: {} bytes", found.len());
    }
}

/// Goal: any range of an object is its bytes, however it is cut into extents, also while packs are written anew beneath it.
#[test]
fn ranges_are_the_objects_bytes() {
    let stored = stored();
    assert_eq!(stored.object.pages(), 3);
    let options = RangeOptions::default();
    let of_options = [
        options.clone(),
        RangeOptions {
            gap: 0,
            extent_len: 1,
            proven_for: None,
            ..options.clone()
        },
        RangeOptions {
            extent_len: 100_000,
            ahead: 0,
            ..options
        },
    ];
    let reads = of_options.map(|options| RangeReads::new(stored.store.clone(), options));
    for (seed, reads) in (0..).zip(&reads) {
        check(reads, &stored, seed);
    }
    // Half of the packs go, and with them places that were looked up before.
    let compact = CompactOptions {
        live_share_min: 1.0,
        commits_kept_from: LogPosition {
            pack: u32::MAX,
            offset: 0,
        },
    };
    assert!(stored.store.engine().compact(&compact).unwrap().packs_removed > 2);
    for (seed, reads) in (10..).zip(&reads) {
        check(reads, &stored, seed);
    }
}

/// Chunks in raw blocks are not decoded; others are.
#[test]
fn only_what_is_compressed_is_decoded() {
    let stored = stored();
    let reads = RangeReads::new(stored.store.clone(), RangeOptions::default());
    let mut start = 0;
    let mut compressed = 0;
    for chunk in &stored.chunks {
        let end = start + chunk.plain().len() as u64;
        let frame = chunk.encode(ChunkForm::Compressed, Level::new(1));
        compressed += u64::from(cairn_formats::raw_pieces(frame.bytes()).is_none());
        read(&reads, &stored, start..end).unwrap();
        assert_eq!(reads.decoded(), compressed, "{} {}", chunk.id(), chunk.plain().len());
        start = end;
    }
    assert!(compressed > 100 && compressed < stored.chunks.len() as u64);
}

#[test]
fn a_chunk_that_is_gone_is_named() {
    let stored = stored();
    let reads = RangeReads::new(stored.store.clone(), RangeOptions::default());
    read(&reads, &stored, 0..u64::MAX).unwrap();
    let gone = stored.chunks[300].id();
    stored.store.remove_many(&[gone]).unwrap();
    let error = read(&reads, &stored, 0..u64::MAX).unwrap_err();
    assert!(matches!(error, Error::Missing { id, .. } if id == gone), "{error}");
}

/// An index may name chunks of other lengths than they have: that is told, and nothing of them is answered.
#[test]
fn a_list_that_lies_about_lengths_is_found_out() {
    let stored = stored();
    for len_error in [-1_isize, 1] {
        let mut file = Vec::new();
        let flags = FeatureFlags::blob(DigestAlgorithm::default());
        let mut index = IndexEncoder::start(flags, ChunkSizes::new(1, 65536, 1 << 20).unwrap(), &mut file);
        let noise = stored
            .chunks
            .iter()
            .find(|chunk| chunk.plain().len() > 200_000)
            .unwrap();
        index.push(noise.id(), noise.plain().len().strict_add_signed(len_error), &mut file);
        index.finish(&mut file);
        let object = Arc::new(IndexedObject::new(ChunkIndex::parse(file.into()).unwrap()));
        let reads = RangeReads::new(stored.store.clone(), RangeOptions::default());
        for range in [0..10, 0..u64::MAX] {
            let pieces: Vec<_> = reads.read(object.clone(), range).collect();
            assert!(matches!(pieces[..], [Err(Error::Corrupt { .. })]), "{pieces:?}");
        }
    }
}

/// Goal: what was decoded is not decoded again while there is room for it, and is what it was, in whole and in parts.
#[test]
fn a_chunk_that_was_decoded_is_kept() {
    let stored = stored();
    let plain = PlainCache::new(1 << 30);
    let options = RangeOptions {
        plain: Some(plain.clone()),
        ..RangeOptions::default()
    };
    let reads = RangeReads::new(stored.store.clone(), options);
    check(&reads, &stored, 5);
    assert!(read(&reads, &stored, 0..u64::MAX).unwrap() == stored.bytes);
    let decoded = reads.decoded();
    assert!(decoded > 0 && plain.bytes() > 0);
    check(&reads, &stored, 6);
    assert_eq!(reads.decoded(), decoded);
    // With hardly any room it is only slower.
    let plain = PlainCache::new(100_000);
    let options = RangeOptions {
        plain: Some(plain.clone()),
        ..RangeOptions::default()
    };
    check(&RangeReads::new(stored.store.clone(), options), &stored, 7);
    assert!(plain.bytes() <= 100_000);
}

/// Goal: a crowd that begins to read one cold object decodes each of its chunks once, and gets its bytes.
/// Method: what is decoded is kept, so a chunk is decoded a second time only by one who was at it at the same moment as another.
#[test]
fn a_crowd_of_readers_decodes_each_chunk_once() {
    let folder = tempfile::tempdir().unwrap();
    let (store, _) = PackStore::open(folder.path(), PackOptions::default()).unwrap();
    let algorithm = DigestAlgorithm::default();
    // No two are the same: one that comes again may be decoded by two who are at two places.
    let chunks: Vec<Chunk> = (0..400_u32)
        .map(|n| Chunk::from_plain(algorithm, n.to_be_bytes().repeat(8 << 10).into()))
        .collect();
    let storable: Vec<StorableChunk> = chunks
        .iter()
        .map(|chunk| chunk.encode(ChunkForm::Compressed, Level::new(1)))
        .collect();
    store.put_many(&storable).unwrap();
    store.flush().unwrap();
    let mut file = Vec::new();
    let flags = FeatureFlags::blob(algorithm);
    let mut index = IndexEncoder::start(flags, ChunkSizes::new(1, 65536, 1 << 20).unwrap(), &mut file);
    for chunk in &chunks {
        index.push(chunk.id(), chunk.plain().len(), &mut file);
    }
    index.finish(&mut file);
    let stored = Stored {
        object: Arc::new(IndexedObject::new(ChunkIndex::parse(file.into()).unwrap())),
        bytes: chunks.iter().flat_map(|chunk| chunk.plain().to_vec()).collect(),
        chunks,
        store,
        _folder: folder,
    };
    let options = RangeOptions {
        plain: Some(PlainCache::new(1 << 30)),
        ..RangeOptions::default()
    };
    let reads = RangeReads::new(stored.store.clone(), options);
    let begin = std::sync::Barrier::new(16);
    std::thread::scope(|scope| {
        for _ in 0..16 {
            scope.spawn(|| {
                begin.wait();
                assert!(read(&reads, &stored, 0..u64::MAX).unwrap() == stored.bytes);
            });
        }
    });
    assert_eq!(reads.decoded(), stored.chunks.len() as u64);
}
