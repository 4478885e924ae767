use std::path::PathBuf;
use std::process::Command;
use std::sync::Barrier;

use cairn_formats::{CHUNK_LEN_MAX, Chunk, Level};
use tempfile::TempDir;

use super::*;
use crate::ChunkStoreExt as _;
use crate::contract;

fn small() -> PackOptions {
    PackOptions {
        pack_len: 64 << 10,
        ..PackOptions::default()
    }
}

fn open(folder: &TempDir) -> PackStore {
    let (store, report) = PackStore::open(folder.path(), small()).unwrap();
    assert_eq!(report.suspects, []);
    store
}

fn chunk(n: u64) -> StorableChunk {
    let mut random = fastrand::Rng::with_seed(n);
    let plain: Vec<u8> = std::iter::repeat_with(|| random.u8(..)).take(5000).collect();
    Chunk::from_plain(DigestAlgorithm::default(), plain.into()).encode(ChunkForm::Compressed, Level::DEFAULT)
}

fn chunks(range: std::ops::Range<u64>) -> Vec<StorableChunk> {
    range.map(chunk).collect()
}

fn put(store: &PackStore, chunks: &[StorableChunk]) {
    store.put_many(chunks).unwrap();
    store.flush().unwrap();
}

fn packs(folder: &TempDir) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(folder.path())
        .unwrap()
        .map(|entry| entry.unwrap().path());
    let mut packs: Vec<PathBuf> = entries
        .filter(|path| path.extension().is_some_and(|end| end == "pack"))
        .collect();
    packs.sort();
    packs
}

fn disk_bytes(folder: &TempDir) -> u64 {
    packs(folder).iter().map(|path| path.metadata().unwrap().len()).sum()
}

#[test]
fn the_contract_is_kept() {
    for sync in [SyncPolicy::Sync, SyncPolicy::Batch, SyncPolicy::None] {
        let folder = tempfile::tempdir().unwrap();
        let (store, _) = PackStore::open(folder.path(), PackOptions { sync, ..small() }).unwrap();
        contract::writable(&store);
    }
}

#[test]
fn chunks_of_many_packs_are_there_after_opening_again() {
    let folder = tempfile::tempdir().unwrap();
    let all = chunks(0..100);
    put(&open(&folder), &all);
    assert!(packs(&folder).len() > 5);
    let store = open(&folder);
    contract::reads_are_right(&store, &all);
    let mut listed = Vec::new();
    store
        .for_each_id(&mut |id| {
            listed.push(id);
            Ok(())
        })
        .unwrap();
    let mut ids: Vec<ChunkId> = all.iter().map(StorableChunk::id).collect();
    ids.sort();
    listed.sort();
    assert_eq!(listed, ids);
}

/// A pack is of use to people who have zstd and not us.
#[test]
fn zstd_reads_a_pack() {
    let folder = tempfile::tempdir().unwrap();
    let all = chunks(0..7);
    put(&open(&folder), &all);
    let out = Command::new("zstd")
        .arg("-dc")
        .arg(&packs(&folder)[0])
        .output()
        .unwrap();
    assert!(out.status.success(), "{}", String::from_utf8_lossy(&out.stderr));
    assert_eq!(out.stdout.len(), 7 * 5000);
}

/// A process that is killed leaves a pack without a footer.
#[test]
fn a_pack_left_open_is_read_and_sealed() {
    let folder = tempfile::tempdir().unwrap();
    let all = chunks(0..8);
    let killed = open(&folder);
    put(&killed, &all);
    std::mem::forget(killed);
    // The lock went with the process; here it is still held by the forgotten store.
    let copy = tempfile::tempdir().unwrap();
    for name in ["FORMAT".into(), packs(&folder)[0].file_name().unwrap().to_owned()] {
        std::fs::copy(folder.path().join(&name), copy.path().join(&name)).unwrap();
    }
    let (store, report) = PackStore::open(copy.path(), small()).unwrap();
    assert_eq!((report.packs, report.unsealed), (1, 1));
    contract::reads_are_right(&store, &all);
    drop(store);
    let (_, report) = PackStore::open(copy.path(), small()).unwrap();
    assert_eq!((report.packs, report.unsealed), (1, 0));
}

#[test]
fn two_ids_at_once_are_stored_once() {
    let folder = tempfile::tempdir().unwrap();
    let store = open(&folder);
    let all = chunks(0..20);
    let start = Barrier::new(8);
    std::thread::scope(|scope| {
        for _ in 0..8 {
            scope.spawn(|| {
                start.wait();
                for part in all.chunks(3) {
                    put(&store, part);
                    assert!(part.iter().all(|chunk| store.has(chunk.id()).unwrap()));
                }
            });
        }
    });
    drop(store);
    let stored: u64 = all.iter().map(|chunk| chunk.bytes().len() as u64 + 160).sum();
    assert!(
        disk_bytes(&folder) < stored + 1000,
        "{} of {stored}",
        disk_bytes(&folder)
    );
}

#[test]
fn domains_do_not_see_each_other() {
    let folder = tempfile::tempdir().unwrap();
    let first = open(&folder);
    let second = PackStore::new(first.engine().clone(), DomainId(2));
    let shared = chunk(1);
    put(&first, std::slice::from_ref(&shared));
    assert!(!second.has(shared.id()).unwrap());
    assert!(second.get(shared.id()).is_err());
    put(&second, std::slice::from_ref(&shared));
    first.remove_many(&[shared.id()]).unwrap();
    assert!(!first.has(shared.id()).unwrap() && second.has(shared.id()).unwrap());
}

#[test]
fn what_was_removed_stays_removed_and_its_space_comes_back() {
    let folder = tempfile::tempdir().unwrap();
    let all = chunks(0..100);
    let store = open(&folder);
    put(&store, &all);
    let before = disk_bytes(&folder);
    let (gone, kept) = all.split_at(70);
    let gone: Vec<ChunkId> = gone.iter().map(StorableChunk::id).collect();
    store.remove_many(&gone).unwrap();
    assert_eq!(store.has_many(&gone).unwrap(), vec![false; 70]);
    drop(store);
    let store = open(&folder);
    assert_eq!(store.has_many(&gone).unwrap(), vec![false; 70]);
    let options = CompactOptions {
        live_share_min: 0.9,
        commits_kept_from: LogPosition {
            pack: u32::MAX,
            offset: 0,
        },
    };
    let report = store.engine().compact(&options).unwrap();
    assert!(
        report.packs_removed > 5 && disk_bytes(&folder) < before / 2,
        "{report:?}"
    );
    contract::reads_are_right(&store, kept);
    drop(store);
    let store = open(&folder);
    assert_eq!(store.has_many(&gone).unwrap(), vec![false; 70]);
    contract::reads_are_right(&store, kept);
    // And they can be put again.
    put(&store, &all);
    contract::reads_are_right(&store, &all);
}

/// A flipped bit costs one chunk, which is named, then missing, and healed by putting it again.
#[test]
fn a_damaged_chunk_is_named_and_healed_by_the_next_upload() {
    let folder = tempfile::tempdir().unwrap();
    let all = chunks(0..8);
    put(&open(&folder), &all);
    let path = &packs(&folder)[0];
    let mut bytes = std::fs::read(path).unwrap();
    let frame = all[3].bytes();
    let at = bytes.windows(frame.len()).position(|window| window == frame).unwrap();
    bytes[at + 100] ^= 4;
    std::fs::write(path, bytes).unwrap();
    let store = open(&folder);
    let error = store.get(all[3].id()).unwrap_err();
    assert!(matches!(error, Error::Corrupt { .. }), "{error}");
    assert!(!store.has(all[3].id()).unwrap());
    put(&store, &all);
    contract::reads_are_right(&store, &all);
    drop(store);
    contract::reads_are_right(&open(&folder), &all);
}

/// Batches come back in order, each once, from a store that was closed and from one that was killed.
#[test]
fn commits_are_replayed() {
    #[derive(Debug, Default)]
    struct Rows(MemoryLocations, Mutex<Vec<(u64, Bytes)>>);
    impl Locations for Rows {
        fn get_many(&self, keys: &[ChunkKey]) -> Result<Vec<Option<ChunkPlace>>> {
            self.0.get_many(keys)
        }
        fn apply(&self, changes: &[Change], watermark: LogPosition) -> Result<()> {
            for change in changes {
                if let Change::Commit(number, batch) = change {
                    self.1.lock().unwrap().push((*number, batch.clone()));
                }
            }
            self.0.apply(changes, watermark)
        }
        fn watermark(&self) -> Result<Watermark> {
            self.0.watermark()
        }
        fn persist(&self) -> Result<()> {
            Ok(())
        }
        fn for_each(&self, visit: &mut dyn FnMut(ChunkKey, ChunkPlace) -> Result<()>) -> Result<()> {
            self.0.for_each(visit)
        }
    }
    let folder = tempfile::tempdir().unwrap();
    let mut expected = Vec::new();
    for round in 0..3u8 {
        let rows = Arc::new(Rows::default());
        let (engine, _) = PackEngine::open_folder(folder.path(), small(), rows.clone()).unwrap();
        assert_eq!(*rows.1.lock().unwrap(), expected, "replayed");
        let engine = Arc::new(engine);
        let store = PackStore::new(engine.clone(), DomainId::default());
        for n in 0..10u8 {
            store.put_many(&[chunk(u64::from(round * 10 + n))]).unwrap();
            let batch = Bytes::from(vec![round, n]);
            engine.commit(batch.clone()).unwrap();
            expected.push((expected.len() as u64 + 1, batch));
            assert!(store.has(chunk(u64::from(round * 10 + n)).id()).unwrap());
        }
        assert_eq!(*rows.1.lock().unwrap(), expected, "as they came");
    }
}

#[test]
fn other_folders_are_refused_in_words() {
    let why = |path: &Path| {
        let error = PackStore::open(path, small()).unwrap_err();
        let source = std::error::Error::source(&error)
            .map(ToString::to_string)
            .unwrap_or_default();
        format!("{error}: {source}").replace(&path.display().to_string(), "DIR")
    };
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("file"), "").unwrap();
    let not_empty = why(folder.path());
    assert_eq!(
        not_empty,
        "DIR refused to make a pack store: it is not empty, and no pack store"
    );
    std::fs::write(folder.path().join("FORMAT"), "cairn pack store 2\n").unwrap();
    assert!(why(folder.path()).contains("a later release has made it"));
    let folder = tempfile::tempdir().unwrap();
    let first = open(&folder);
    assert!(why(folder.path()).contains("another program has it open for writing"));
    put(&first, &chunks(0..3));
    // Reading beside a writer is allowed.
    let options = PackOptions {
        read_only: true,
        ..small()
    };
    let (reader, _) = PackStore::open(folder.path(), options).unwrap();
    contract::reads_are_right(&reader, &chunks(0..3));
    assert!(matches!(reader.put_many(&chunks(0..1)), Err(Error::ReadOnly { .. })));
}

/// A file that is no pack of ours is told of and left alone.
#[test]
fn a_foreign_pack_is_left_alone() {
    let folder = tempfile::tempdir().unwrap();
    put(&open(&folder), &chunks(0..3));
    let foreign = folder.path().join("00000009-ffffffffffffffffffffffffffffffff.pack");
    std::fs::write(&foreign, vec![1; 1000]).unwrap();
    let renamed = folder.path().join("00000008-ffffffffffffffffffffffffffffffff.pack");
    std::fs::copy(&packs(&folder)[0], &renamed).unwrap();
    let (store, report) = PackStore::open(folder.path(), small()).unwrap();
    assert_eq!(report.packs, 1);
    assert_eq!(report.suspects.len(), 2, "{report:?}");
    contract::reads_are_right(&store, &chunks(0..3));
    put(&store, &chunks(3..5));
    assert!(foreign.exists() && renamed.exists());
}

/// Every cut of the last pack and a few flips: nothing wrong is ever read, and what was whole is there.
#[test]
fn any_cut_of_the_last_pack_keeps_the_whole_records() {
    let folder = tempfile::tempdir().unwrap();
    let all = chunks(0..6);
    put(&open(&folder), &all);
    let name = packs(&folder)[0].file_name().unwrap().to_owned();
    let bytes = std::fs::read(&packs(&folder)[0]).unwrap();
    let ends: Vec<usize> = all
        .iter()
        .map(|chunk| {
            bytes
                .windows(chunk.bytes().len())
                .position(|window| window == chunk.bytes())
                .unwrap()
                + chunk.bytes().len()
        })
        .collect();
    for cut in (0..bytes.len()).step_by(97).chain(ends.iter().copied()) {
        let copy = tempfile::tempdir().unwrap();
        std::fs::copy(folder.path().join("FORMAT"), copy.path().join("FORMAT")).unwrap();
        std::fs::write(copy.path().join(&name), &bytes[..cut]).unwrap();
        for _ in 0..2 {
            let (store, _) = PackStore::open(copy.path(), small()).unwrap();
            for (chunk, end) in all.iter().zip(&ends) {
                assert_eq!(store.has(chunk.id()).unwrap(), *end <= cut, "cut at {cut}");
                if *end <= cut {
                    store
                        .get(chunk.id())
                        .unwrap()
                        .open(DigestAlgorithm::default(), CHUNK_LEN_MAX)
                        .unwrap();
                }
            }
        }
    }
}

/// Condemns what it is told to.
#[derive(Debug, Default)]
struct Marks(Mutex<Vec<ChunkPlace>>);

impl Liveness for Marks {
    fn condemned(&self, chunks: &[(ChunkKey, ChunkPlace)]) -> Result<Vec<bool>> {
        let marks = self.0.lock().unwrap();
        let is_marked = |place: &ChunkPlace| marks.iter().any(|mark| mark.is_at(place.pack, place.offset));
        Ok(chunks.iter().map(|(_, place)| is_marked(place)).collect())
    }

    fn touched(&self, _: &[(ChunkKey, ChunkPlace)]) {}
}

#[test]
fn what_is_condemned_reads_and_is_written_anew() {
    let folder = tempfile::tempdir().unwrap();
    let store = open(&folder);
    let all = chunks(0..4);
    put(&store, &all);
    let ids: Vec<ChunkId> = all.iter().map(StorableChunk::id).collect();
    let before = store.engine().places(&store.keys(&ids)).unwrap();
    let marks = Arc::new(Marks(Mutex::new(vec![before[1].unwrap()])));
    store.engine().consult(marks.clone()).unwrap();
    assert!(store.engine().consult(marks).is_err(), "one is enough");
    assert_eq!(store.has_many(&ids).unwrap(), [true, false, true, true]);
    assert_eq!(store.stat(ids[1], ChunkForm::Compressed).unwrap(), None);
    contract::reads_are_right(&store, &all[..1]);
    assert!(store.get_many(&ids[1..2])[0].is_ok(), "it reads");
    put(&store, &all);
    let after = store.engine().places(&store.keys(&ids)).unwrap();
    assert!(after[1] != before[1] && after[1].is_some(), "it lies elsewhere");
    assert_eq!([after[0], after[2], after[3]], [before[0], before[2], before[3]]);
    // What was condemned goes; what was sent since stays.
    let condemned = (store.key(ids[1]), before[1].unwrap());
    store.engine().remove_at(&[condemned]).unwrap();
    contract::reads_are_right(&store, &all);
}

#[test]
fn pinning_counts_only_what_is_pinned() {
    let folder = tempfile::tempdir().unwrap();
    let store = open(&folder);
    let all = chunks(0..2);
    put(&store, &all[..1]);
    let pinning = store.clone().pinning();
    let ids = [all[0].id(), all[1].id()];
    assert_eq!(pinning.has_many(&ids).unwrap(), [false, false]);
    // One on its way without a pin, asked for with one.
    store.put_many(&all[1..]).unwrap();
    pinning.put_many(&all).unwrap();
    pinning.flush().unwrap();
    assert_eq!(pinning.has_many(&ids).unwrap(), [true, true]);
    drop((store, pinning));
    assert_eq!(open(&folder).pinning().has_many(&ids).unwrap(), [true, true]);
}

#[test]
fn the_reserve_is_a_pack_long_and_can_be_given_up() {
    let folder = tempfile::tempdir().unwrap();
    let store = open(&folder);
    let at = folder.path().join("RESERVE");
    for left_behind in [false, true] {
        if left_behind {
            std::fs::write(&at, "half").unwrap();
        }
        store.engine().keep_reserve().unwrap();
        assert_eq!(at.metadata().unwrap().len(), small().pack_len);
    }
    drop(store);
    let store = open(&folder);
    assert!(store.engine().release_reserve().unwrap());
    assert!(!at.exists() && !store.engine().release_reserve().unwrap());
}

#[test]
fn chunks_are_listed_in_the_order_in_which_they_lie_and_counted() {
    let folder = tempfile::tempdir().unwrap();
    let store = open(&folder);
    let chunks = chunks(0..100);
    put(&store, &chunks);
    store.remove_many(&[chunks[3].id()]).unwrap();
    let mut places = Vec::new();
    let visit = &mut |key: ChunkKey, place: ChunkPlace| {
        places.push((place.pack, place.offset, key.id));
        Ok(())
    };
    store.engine().for_each_in_order(visit).unwrap();
    let listed: Vec<ChunkId> = places.iter().map(|(_, _, id)| *id).collect();
    let put: Vec<ChunkId> = chunks
        .iter()
        .map(StorableChunk::id)
        .filter(|&id| id != chunks[3].id())
        .collect();
    assert_eq!(listed, put);
    assert!(places.is_sorted());
    let stats = store.engine().pack_stats().unwrap();
    assert_eq!(stats.iter().map(|stat| stat.live_chunks).sum::<u64>(), 99);
    assert_eq!(stats.iter().map(|stat| stat.live_bytes_plain).sum::<u64>(), 99 * 5000);
    assert_eq!(stats.iter().map(|stat| stat.bytes).sum::<u64>(), disk_bytes(&folder));
}

/// Goal: what an index of places outside this process knows is never out of step with the packs.
#[test]
fn who_writes_without_the_kept_locations_removes_them() {
    let folder = tempfile::tempdir().unwrap();
    let places = folder.path().join(crate::PLACES_FOLDER);
    drop(PackStore::open(folder.path(), PackOptions::default()).unwrap());
    std::fs::create_dir(&places).unwrap();
    std::fs::write(places.join("FORMAT"), "cairn places 1").unwrap();
    let read_only = PackOptions {
        read_only: true,
        ..PackOptions::default()
    };
    drop(PackStore::open(folder.path(), read_only).unwrap());
    assert!(places.exists(), "who only reads leaves them");
    drop(PackStore::open(folder.path(), PackOptions::default()).unwrap());
    assert!(!places.exists());
}

/// Goal: locations that keep only where a record lies find chunks whose record head is damaged, by the footer.
#[test]
fn a_damaged_head_hides_no_chunk() {
    let folder = tempfile::tempdir().unwrap();
    let all = chunks(0..4);
    put(&open(&folder), &all);
    let store = open(&folder);
    let place = store.places(&[all[2].id()]).unwrap()[0].unwrap();
    let file = std::fs::File::options().write(true).open(&packs(&folder)[0]).unwrap();
    std::os::unix::fs::FileExt::write_all_at(&file, &[0xff; 8], place.offset - 40).unwrap();
    assert_eq!(store.places(&[all[2].id()]).unwrap(), [Some(place)]);
    contract::reads_are_right(&store, &all);
    let mut listed = 0;
    let visit = &mut |_, _| {
        listed += 1;
        Ok(())
    };
    store.engine().locations().for_each(visit).unwrap();
    assert_eq!(listed, all.len());
}

/// Goal: what is in the pack being written is listed with the rest.
#[test]
fn locations_list_what_was_just_written() {
    let folder = tempfile::tempdir().unwrap();
    let store = open(&folder);
    let all = chunks(0..30);
    put(&store, &all);
    store.remove_many(&[all[29].id(), all[3].id()]).unwrap();
    let mut listed = BTreeMap::new();
    let visit = &mut |key: ChunkKey, place: ChunkPlace| {
        listed.insert(key.id, place);
        Ok(())
    };
    store.engine().locations().for_each(visit).unwrap();
    assert_eq!(listed.len(), 28);
    for (id, place) in listed {
        assert_eq!(store.places(&[id]).unwrap(), [Some(place)]);
    }
}

/// Goal: compressing anew shrinks what can be shrunk, once, and changes no id, no plain byte and no pin.
#[test]
fn packs_shrink_and_chunks_stay() {
    let folder = tempfile::tempdir().unwrap();
    let store = open(&folder);
    let text = |n: u64| {
        let mut random = fastrand::Rng::with_seed(n);
        let words = std::iter::repeat_with(|| format!("{} ", random.u8(..)).into_bytes());
        let plain: Vec<u8> = words.flatten().take(20_000).collect();
        Chunk::from_plain(DigestAlgorithm::default(), plain.into())
    };
    let quick = Level::new(-7);
    let texts: Vec<StorableChunk> = (0..40).map(|n| text(n).encode(ChunkForm::Compressed, quick)).collect();
    put(&store.clone().pinning(), &texts);
    let noise = chunks(0..40);
    put(&store, &noise);
    store.remove_many(&[texts[5].id()]).unwrap();
    drop(store);
    let options = RecompressOptions {
        level: Level::new(19),
        gain_min: 0.02,
        below: u32::MAX,
        commits_kept_from: LogPosition::default(),
    };
    let kept: Vec<StorableChunk> = texts
        .iter()
        .filter(|chunk| chunk.id() != texts[5].id())
        .cloned()
        .collect();
    let check = |store: &PackStore| {
        contract::reads_are_right(store, &kept);
        contract::reads_are_right(store, &noise);
        assert!(!store.has(texts[5].id()).unwrap());
        let ids: Vec<ChunkId> = kept.iter().chain(&noise).map(StorableChunk::id).collect();
        let pinned = store.clone().pinning().has_many(&ids).unwrap();
        assert!(pinned[..kept.len()].iter().all(|&pinned| pinned) && !pinned[kept.len()]);
    };
    let before = disk_bytes(&folder);
    let store = open(&folder);
    let mut paced = 0;
    let report = store.engine().recompress(&options, &mut |bytes| {
        paced += bytes;
        Ok(())
    });
    let report = report.unwrap();
    assert!(report.packs_removed > 2 && report.packs_left > 1, "{report:?}");
    assert!(
        report.bytes_after * 10 < report.bytes_before * 9 && paced > report.bytes_before,
        "{report:?} {paced}"
    );
    check(&store);
    drop(store);
    assert!(disk_bytes(&folder) < before);
    let store = open(&folder);
    check(&store);
    let again = store.engine().recompress(&options, &mut |_| Ok(())).unwrap();
    assert_eq!(again.packs_removed, 0, "{again:?}");
    let mut paced = 0;
    let known = store.engine().recompress(&options, &mut |bytes| {
        paced += bytes;
        Ok(())
    });
    assert_eq!((known.unwrap(), paced), (again, 0), "they are not even tried");
    // A pace that says stop is obeyed.
    drop(store);
    let store = open(&folder);
    let stop = || {
        Err(crate::Error::ReadOnly {
            store: store.name().clone(),
        })
    };
    assert!(store.engine().recompress(&options, &mut |_| stop()).is_err());
    check(&store);
}
