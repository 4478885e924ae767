//! The wrappers around flat stores on real folders.

use std::num::NonZeroUsize;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use cairn_formats::{CHUNK_LEN_MAX, ChunkForm, ChunkId, DigestAlgorithm, EncodedChunk, StorableChunk};

use crate::contract::{self, chunks};
use crate::{ChunkStat, StoreName, VerifyStore};
use crate::{
    ChunkStore, ChunkStoreExt as _, Error, FlatOptions, FlatStore, LimitStore, MetricsStore, Result, StoreChain,
};

fn flat(folder: &tempfile::TempDir) -> Arc<FlatStore> {
    Arc::new(FlatStore::open(folder.path(), FlatOptions::default()).unwrap())
}

fn verified(inner: Arc<dyn ChunkStore>) -> VerifyStore {
    VerifyStore::new(inner, DigestAlgorithm::default(), CHUNK_LEN_MAX)
}

#[test]
fn they_keep_the_contract() {
    let folders: [_; 3] = std::array::from_fn(|_| tempfile::tempdir().unwrap());
    contract::writable(&verified(flat(&folders[0])));
    contract::writable(&LimitStore::new(flat(&folders[1]), NonZeroUsize::MIN));
    contract::writable(&MetricsStore::new(flat(&folders[2]), "flat"));
}

/// One damaged chunk of a batch: its answer is the error that names it, the others are had; a chain reads it elsewhere.
#[test]
fn a_damaged_chunk_is_an_error_and_another_store_helps() {
    let folders: [_; 2] = std::array::from_fn(|_| tempfile::tempdir().unwrap());
    let (damaged, sound) = (flat(&folders[0]), flat(&folders[1]));
    let put = chunks(1, ChunkForm::Compressed);
    for store in [&damaged, &sound] {
        store.put_many(&put).unwrap();
        store.flush().unwrap();
    }
    let hex = put[1].id().to_string();
    let file = folders[0].path().join(&hex[..4]).join(format!("{hex}.cacnk"));
    std::fs::remove_file(&file).unwrap();
    std::fs::write(&file, &put[0].bytes()[..]).unwrap();

    let store: Arc<dyn ChunkStore> = Arc::new(verified(damaged));
    let ids: Vec<ChunkId> = put.iter().map(StorableChunk::id).collect();
    for (at, answer) in store.get_many(&ids).into_iter().enumerate() {
        match answer {
            Ok(chunk) => assert!(at != 1 && chunk.id == ids[at]),
            Err(error @ Error::Corrupt { .. }) => {
                let source = std::error::Error::source(&error).unwrap().to_string();
                assert!(at == 1 && source.contains(&hex), "{source}");
            }
            Err(error) => panic!("{error}"),
        }
    }
    assert!(store.get_resident(ids[1], ChunkForm::Compressed).is_none());
    contract::reads_are_right(&StoreChain::new(vec![store, sound]), &put);
}

/// Counts who is inside at once; each caller stays until a second one has had every chance to come in too.
#[derive(Debug)]
struct Crowd {
    inner: Arc<FlatStore>,
    inside: AtomicUsize,
    most: AtomicUsize,
}

impl ChunkStore for Crowd {
    fn name(&self) -> &StoreName {
        self.inner.name()
    }

    fn has_many(&self, ids: &[ChunkId]) -> Result<Vec<bool>> {
        let inside = self.inside.fetch_add(1, Ordering::SeqCst) + 1;
        self.most.fetch_max(inside, Ordering::SeqCst);
        std::thread::yield_now();
        let answer = self.inner.has_many(ids);
        self.inside.fetch_sub(1, Ordering::SeqCst);
        answer
    }

    fn get_many(&self, ids: &[ChunkId]) -> Vec<Result<EncodedChunk>> {
        self.inner.get_many(ids)
    }

    fn put_many(&self, _: &[StorableChunk]) -> Result<()> {
        panic!("a caller's mistake")
    }

    fn flush(&self) -> Result<()> {
        self.inner.flush()
    }

    fn stat(&self, id: ChunkId, form: ChunkForm) -> Result<Option<ChunkStat>> {
        self.inner.stat(id, form)
    }
}

#[test]
fn no_more_calls_than_allowed_are_inside_and_a_panic_gives_its_place_back() {
    let folder = tempfile::tempdir().unwrap();
    let crowd = Arc::new(Crowd {
        inner: flat(&folder),
        inside: AtomicUsize::new(0),
        most: AtomicUsize::new(0),
    });
    let calls_max = NonZeroUsize::new(2).unwrap();
    let store = LimitStore::new(Arc::clone(&crowd) as Arc<dyn ChunkStore>, calls_max);
    let put = chunks(1, ChunkForm::Plain);
    for _ in 0..calls_max.get() {
        let panicked = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| store.put_many(&put)));
        assert!(panicked.is_err());
    }
    std::thread::scope(|scope| {
        for _ in 0..8 {
            scope.spawn(|| {
                for _ in 0..200 {
                    assert!(!store.has(put[0].id()).unwrap());
                }
            });
        }
    });
    let most = crowd.most.load(Ordering::SeqCst);
    assert!((1..=calls_max.get()).contains(&most), "{most}");
}
