//! What every store promises: one function per promise, run for every backend and every wrapper.

use bytes::Bytes;
use cairn_formats::{CHUNK_LEN_MAX, Chunk, ChunkForm, ChunkId, DigestAlgorithm, Level, StorableChunk};

use std::sync::Arc;

use crate::{ChunkStore, ChunkStoreExt as _, Error, Location, MemberSpec, Prune, StoreOptions, open_prunable};

/// Chunks that are all different: text, noise, zeros, one byte.
pub(crate) fn chunks(seed: u64, form: ChunkForm) -> Vec<StorableChunk> {
    let mut random = fastrand::Rng::with_seed(seed);
    let noise: Vec<u8> = std::iter::repeat_with(|| random.u8(..)).take(70_000).collect();
    let plains = [
        noise,
        format!("text {seed} ").repeat(900).into_bytes(),
        vec![seed as u8; 10_000],
        vec![seed as u8],
    ];
    let plains = plains.map(|plain| Chunk::from_plain(DigestAlgorithm::default(), Bytes::from(plain)));
    plains.iter().map(|chunk| chunk.encode(form, Level::DEFAULT)).collect()
}

fn ids(chunks: &[StorableChunk]) -> Vec<ChunkId> {
    chunks.iter().map(StorableChunk::id).collect()
}

/// All promises of a store that can be written.
pub(crate) fn writable(store: &dyn ChunkStore) {
    what_was_put_is_had(store);
    answers_are_in_order_and_definite(store);
    putting_again_changes_nothing(store);
    empty_batches_are_fine(store);
}

/// Flushed chunks are there, and are what was put.
fn what_was_put_is_had(store: &dyn ChunkStore) {
    for form in [ChunkForm::Compressed, ChunkForm::Plain] {
        let chunks = chunks(if form == ChunkForm::Plain { 1 } else { 2 }, form);
        store.put_many(&chunks).unwrap();
        store.flush().unwrap();
        reads_are_right(store, &chunks);
    }
}

/// Also for stores that are only read: these chunks are had.
pub(crate) fn reads_are_right(store: &dyn ChunkStore, chunks: &[StorableChunk]) {
    assert_eq!(store.has_many(&ids(chunks)).unwrap(), vec![true; chunks.len()]);
    for (got, put) in store.get_many(&ids(chunks)).into_iter().zip(chunks) {
        let opened = got.unwrap().open(DigestAlgorithm::default(), CHUNK_LEN_MAX).unwrap();
        assert_eq!((opened.id(), opened.plain().len()), (put.id(), put.plain_len()));
        assert!(store.stat(put.id(), ChunkForm::Compressed).unwrap().is_some());
        if let Some(resident) = store.get_resident(put.id(), ChunkForm::Compressed) {
            resident.open(DigestAlgorithm::default(), CHUNK_LEN_MAX).unwrap();
        }
    }
}

/// Missing chunks among present ones: one answer per id, in order, repeats answered each time.
fn answers_are_in_order_and_definite(store: &dyn ChunkStore) {
    let put = chunks(3, ChunkForm::Compressed);
    store.put_many(&put).unwrap();
    store.flush().unwrap();
    missing_is_definite(store);
    let absent = ChunkId::from_bytes([7; 32]);
    let asked = [put[1].id(), absent, put[0].id(), put[1].id(), absent];
    assert_eq!(store.has_many(&asked).unwrap(), [true, false, true, true, false]);
    for (answer, id) in store.get_many(&asked).into_iter().zip(asked) {
        match answer {
            Ok(chunk) => assert!(chunk.id == id && id != absent),
            Err(Error::Missing { id: missing, .. }) => assert!(missing == id && id == absent),
            Err(error) => panic!("{error}"),
        }
    }
}

/// A chunk that nobody put is missing, and asking is no error.
pub(crate) fn missing_is_definite(store: &dyn ChunkStore) {
    let absent = ChunkId::from_bytes([9; 32]);
    assert!(!store.has(absent).unwrap());
    assert!(matches!(store.get(absent), Err(Error::Missing { id, .. }) if id == absent));
    assert!(store.stat(absent, ChunkForm::Plain).unwrap().is_none());
    assert!(store.get_resident(absent, ChunkForm::Compressed).is_none());
}

/// Every operation is idempotent.
fn putting_again_changes_nothing(store: &dyn ChunkStore) {
    let chunks = chunks(4, ChunkForm::Compressed);
    for _ in 0..3 {
        store.put_many(&chunks).unwrap();
        store.put_many(&chunks[..2]).unwrap();
        store.flush().unwrap();
        store.flush().unwrap();
    }
    reads_are_right(store, &chunks);
}

fn empty_batches_are_fine(store: &dyn ChunkStore) {
    assert_eq!(store.has_many(&[]).unwrap(), Vec::<bool>::new());
    assert!(store.get_many(&[]).is_empty());
    store.put_many(&[]).unwrap();
    store.flush().unwrap();
}

/// A store at a URL, as people write it.
pub(crate) fn open(url: &str, options: StoreOptions) -> Arc<dyn Prune> {
    let location = Location::parse(url).unwrap();
    open_prunable(&MemberSpec { location, options }).unwrap()
}

/// All chunks that are there, sorted.
pub(crate) fn ids_of(store: &dyn Prune) -> Vec<ChunkId> {
    let mut ids = Vec::new();
    store
        .for_each_id(&mut |id| {
            ids.push(id);
            Ok(())
        })
        .unwrap();
    ids.sort();
    ids
}
