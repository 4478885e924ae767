//! The flat store on a real folder.

use std::fs;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use super::*;
use crate::contract::{self, chunks};
use crate::{CacheOptions, CacheStore, ChunkStoreExt as _, FailoverGroup, StoreChain};

fn open(folder: &tempfile::TempDir, sync: SyncPolicy, form: ChunkForm) -> FlatStore {
    FlatStore::open(
        folder.path(),
        FlatOptions {
            sync,
            form,
            ..FlatOptions::default()
        },
    )
    .unwrap()
}

fn default_store(folder: &tempfile::TempDir) -> FlatStore {
    open(folder, SyncPolicy::Sync, ChunkForm::Compressed)
}

/// Every file below a folder, by name.
fn files(folder: &tempfile::TempDir) -> Vec<PathBuf> {
    let mut files: Vec<PathBuf> = fs::read_dir(folder.path())
        .unwrap()
        .flat_map(|prefix| fs::read_dir(prefix.unwrap().path()).unwrap())
        .map(|file| file.unwrap().path())
        .collect();
    files.sort();
    files
}

#[test]
fn it_keeps_the_contract_under_every_policy_and_form() {
    for sync in [SyncPolicy::Sync, SyncPolicy::Batch, SyncPolicy::None] {
        for form in [ChunkForm::Compressed, ChunkForm::Plain] {
            let folder = tempfile::tempdir().unwrap();
            contract::writable(&open(&folder, sync, form));
        }
    }
}

#[test]
fn wrappers_keep_the_contract() {
    let (behind, front, empty) = (
        tempfile::tempdir().unwrap(),
        tempfile::tempdir().unwrap(),
        tempfile::tempdir().unwrap(),
    );
    let store: Arc<dyn ChunkStore> = Arc::new(default_store(&behind));
    let options = CacheOptions {
        bytes_max: Some(1 << 20),
        repair: true,
        digest: Default::default(),
    };
    contract::writable(&CacheStore::open(Arc::clone(&store), front.path(), options).unwrap());
    let put = chunks(2, ChunkForm::Compressed);
    let other: Arc<dyn ChunkStore> = Arc::new(default_store(&empty));
    let chain = StoreChain::new(vec![Arc::clone(&other), Arc::clone(&store)]);
    contract::reads_are_right(&chain, &put);
    contract::missing_is_definite(&chain);
    let group = FailoverGroup::new(vec![Arc::clone(&store), store]);
    contract::reads_are_right(&group, &put);
    contract::missing_is_definite(&group);
}

#[test]
fn nothing_is_visible_before_the_flush_and_nothing_is_left_without_it() {
    let folder = tempfile::tempdir().unwrap();
    let store = default_store(&folder);
    let put = chunks(1, ChunkForm::Compressed);
    store.put_many(&put).unwrap();
    assert!(!store.has(put[0].id()).unwrap());
    assert!(
        files(&folder)
            .iter()
            .all(|file| file.file_name().unwrap().to_str().unwrap().starts_with(".tmp-cacnk"))
    );
    drop(store);
    assert_eq!(files(&folder), Vec::<PathBuf>::new());
}

#[test]
fn flushes_of_many_threads_each_cover_what_their_thread_put() {
    let folder = tempfile::tempdir().unwrap();
    let store = default_store(&folder);
    std::thread::scope(|scope| {
        for thread in 0..8 {
            let store = &store;
            scope.spawn(move || {
                for round in 0..20 {
                    // Neighbouring threads put the same chunks.
                    let put = chunks(thread / 2 * 100 + round, ChunkForm::Compressed);
                    store.put_many(&put).unwrap();
                    store.flush().unwrap();
                    assert!(
                        store
                            .has_many(&put.iter().map(StorableChunk::id).collect::<Vec<_>>())
                            .unwrap()
                            .iter()
                            .all(|has| *has)
                    );
                }
            });
        }
    });
    assert!(
        files(&folder)
            .iter()
            .all(|file| file.extension().is_some_and(|ending| ending == "cacnk"))
    );
}

/// What a crash of a tool that syncs nothing leaves: the second run heals it.
#[test]
fn an_empty_file_is_no_chunk_and_is_replaced() {
    let folder = tempfile::tempdir().unwrap();
    let store = default_store(&folder);
    let put = chunks(1, ChunkForm::Compressed);
    store.put_many(&put).unwrap();
    store.flush().unwrap();
    let file = files(&folder).remove(0);
    fs::remove_file(&file).unwrap();
    fs::write(&file, b"").unwrap();
    let ids: Vec<ChunkId> = put.iter().map(StorableChunk::id).collect();
    assert_eq!(store.has_many(&ids).unwrap().iter().filter(|has| !**has).count(), 1);
    store.put_many(&put).unwrap();
    store.flush().unwrap();
    contract::reads_are_right(&store, &put);
}

/// Chunks that another writer has just made are part of the next flush, few or many, also when they are gone by then.
#[test]
fn chunks_of_another_writer_are_synced_with_our_flush() {
    let folder = tempfile::tempdir().unwrap();
    let other = open(&folder, SyncPolicy::None, ChunkForm::Compressed);
    for count in [1, 3] {
        let put: Vec<StorableChunk> = (0..count)
            .flat_map(|seed| chunks(seed, ChunkForm::Compressed))
            .collect();
        let ids: Vec<ChunkId> = put.iter().map(StorableChunk::id).collect();
        other.put_many(&put).unwrap();
        let store = default_store(&folder);
        assert!(store.has_many(&ids).unwrap().iter().all(|has| *has));
        assert!(store.stage.noted() > 0);
        store.flush().unwrap();
        assert_eq!(store.stage.noted(), 0);
        store.put_many(&put).unwrap();
        assert!(store.stage.noted() > 0);
        other.remove_many(&ids[..1]).unwrap();
        store.flush().unwrap();
        assert_eq!(store.stage.noted(), 0);
        assert_eq!(files(&folder).len(), ids.len() - 1);
    }
}

#[test]
fn files_settle_with_time_unless_the_clock_was_set_back() {
    let folder = tempfile::tempdir().unwrap();
    let stat = rustix::fs::stat(folder.path()).unwrap();
    let changed = SystemTime::UNIX_EPOCH + Duration::from_secs(stat.st_ctime as u64);
    assert!(!is_settled(&stat, changed));
    assert!(!is_settled(&stat, changed - Duration::from_secs(3600)));
    assert!(is_settled(&stat, changed + SETTLED_AFTER));
}

/// Somebody removes our temporaries (as desync's prune does): an error, nothing visible, and no later write is believed.
#[test]
fn a_failed_flush_shows_nothing_and_stops_the_store() {
    let folder = tempfile::tempdir().unwrap();
    let store = default_store(&folder);
    let put = chunks(1, ChunkForm::Compressed);
    store.put_many(&put).unwrap();
    fs::remove_file(files(&folder).remove(0)).unwrap();
    assert!(matches!(store.flush(), Err(Error::Unavailable { .. })));
    assert_eq!(files(&folder), Vec::<PathBuf>::new());
    assert!(store.put_many(&put).is_err() && store.flush().is_err());
    let store = default_store(&folder);
    store.put_many(&put).unwrap();
    store.flush().unwrap();
    contract::reads_are_right(&store, &put);
}

/// Goal: a damaged chunk can be put again, no sound one is ever moved, and nothing that is still being written.
#[test]
fn a_damaged_chunk_is_set_aside_and_can_be_put_again() {
    let folder = tempfile::tempdir().unwrap();
    let store = default_store(&folder);
    let put = chunks(5, ChunkForm::Compressed);
    store.put_many(&put).unwrap();
    store.flush().unwrap();
    let (id, path) = (put[0].id(), store.path(put[0].id(), ChunkForm::Compressed));
    let file = folder.path().join(path.as_str());
    let sound = store.get(id).unwrap();
    fs::remove_file(&file).unwrap();
    fs::write(&file, b"not a frame").unwrap();
    let damaged = store.get(id).unwrap();
    let now = SystemTime::now();
    let later = now + 2 * SETTLED_AFTER;
    assert!(
        !store.set_aside_at(&damaged, now).unwrap(),
        "somebody may be writing it"
    );
    assert!(!store.set_aside_at(&sound, later).unwrap(), "it holds other bytes");
    let read_only = FlatOptions {
        read_only: true,
        ..FlatOptions::default()
    };
    let read_only = FlatStore::open(folder.path(), read_only).unwrap();
    assert!(!read_only.set_aside_at(&damaged, later).unwrap(), "it may not");

    assert!(store.set_aside_at(&damaged, later).unwrap());
    assert!(matches!(store.get(id), Err(Error::Missing { .. })));
    assert!(!store.set_aside_at(&damaged, later).unwrap(), "it is gone");
    assert_eq!(fs::read(file.with_extension("cacnk.damaged")).unwrap(), b"not a frame");
    store.put_many(&put).unwrap();
    store.flush().unwrap();
    contract::reads_are_right(&store, &put);
    let mut seen = 0;
    store
        .for_each_id(&mut |_| {
            seen += 1;
            Ok(())
        })
        .unwrap();
    assert_eq!(seen, put.len(), "what was set aside is no chunk");
}

#[test]
fn a_read_only_store_takes_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let options = FlatOptions {
        read_only: true,
        ..FlatOptions::default()
    };
    let store = FlatStore::open(folder.path(), options).unwrap();
    assert!(matches!(
        store.put_many(&chunks(1, ChunkForm::Plain)),
        Err(Error::ReadOnly { .. })
    ));
    assert!(matches!(store.remove_many(&[]), Err(Error::ReadOnly { .. })));
}

#[test]
fn what_is_no_folder_is_refused_by_name() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("file");
    fs::write(&file, b"x").unwrap();
    for path in [file, folder.path().join("absent")] {
        let error = FlatStore::open(&path, FlatOptions::default()).unwrap_err().to_string();
        assert!(error.contains(path.to_str().unwrap()), "{error}");
    }
}

#[test]
fn walking_finds_chunks_and_passes_over_the_rest() {
    let folder = tempfile::tempdir().unwrap();
    let store = default_store(&folder);
    let put = chunks(1, ChunkForm::Compressed);
    store.put_many(&put).unwrap();
    store.flush().unwrap();
    let prefix = files(&folder)[0].parent().unwrap().to_owned();
    fs::write(prefix.join("notes.txt"), b"x").unwrap();
    fs::write(prefix.join(".tmp-cacnk0"), b"x").unwrap();
    fs::write(folder.path().join("index.caibx"), b"x").unwrap();
    let mut found = Vec::new();
    store
        .for_each_id(&mut |id| {
            found.push(id);
            Ok(())
        })
        .unwrap();
    let mut expected: Vec<ChunkId> = put.iter().map(StorableChunk::id).collect();
    expected.sort();
    found.sort();
    assert_eq!(found, expected);
    assert_eq!(store.remove_stale_temporaries(Duration::from_secs(3600)).unwrap(), 0);
    assert_eq!(store.remove_stale_temporaries(Duration::ZERO).unwrap(), 1);
    store.remove_many(&expected).unwrap();
    store.remove_many(&expected).unwrap();
    assert!(!store.has(expected[0]).unwrap());
    assert!(prefix.join("notes.txt").exists() && folder.path().join("index.caibx").exists());
}

#[test]
fn a_limited_cache_evicts_the_least_recently_used() {
    let (behind, front) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let store = Arc::new(open(&behind, SyncPolicy::None, ChunkForm::Compressed));
    let mut noise: Vec<StorableChunk> = (10..20)
        .map(|seed| chunks(seed, ChunkForm::Compressed).remove(0))
        .collect();
    noise.truncate(10);
    store.put_many(&noise).unwrap();
    let options = CacheOptions {
        bytes_max: Some(300_000),
        repair: false,
        digest: Default::default(),
    };
    let cache = CacheStore::open(store, front.path(), options).unwrap();
    for chunk in &noise {
        cache.get(chunk.id()).unwrap();
        // The first is used all the time, so it stays.
        cache.get(noise[0].id()).unwrap();
    }
    let held = default_store(&front);
    let there: Vec<bool> = held
        .has_many(&noise.iter().map(StorableChunk::id).collect::<Vec<_>>())
        .unwrap();
    assert!(there[0] && there[9] && !there[1], "{there:?}");
    let bytes: u64 = files(&front).iter().map(|file| fs::metadata(file).unwrap().len()).sum();
    assert!(bytes <= 300_000, "{bytes}");
}

#[test]
fn a_damaged_chunk_in_the_cache_is_fetched_again() {
    let (behind, front) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let store = Arc::new(default_store(&behind));
    let put = chunks(1, ChunkForm::Compressed);
    store.put_many(&put).unwrap();
    store.flush().unwrap();
    let options = CacheOptions {
        bytes_max: None,
        repair: true,
        digest: Default::default(),
    };
    let cache = CacheStore::open(store, front.path(), options).unwrap();
    contract::reads_are_right(&cache, &put);
    for file in files(&front) {
        fs::remove_file(&file).unwrap();
        fs::write(&file, b"garbage").unwrap();
    }
    contract::reads_are_right(&cache, &put);
    contract::reads_are_right(&default_store(&front), &put);
}
