//! RocksDB alone: chunks, watermarks, copies, and folders that are not right.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use cairn_formats::{ChunkId, DomainId};
use cairn_store::{Change, ChunkKey, ChunkPlace, Locations, PackEngine, PackOptions};

use super::*;
use crate::kv::{Batch, Commit, Kv as _, ViewExt as _};
use crate::{Database, Tenant};

fn open(place: &Path) -> Result<RocksEngine> {
    RocksEngine::open(place, &RocksOptions::default())
}

fn key(n: u32) -> ChunkKey {
    let mut id = [0; 32];
    // Spread, as digests are.
    id[..4].copy_from_slice(&n.wrapping_mul(0x9e37_79b9).to_be_bytes());
    ChunkKey {
        domain: DomainId(n % 2),
        id: ChunkId::from_bytes(id),
    }
}

fn place(n: u32) -> ChunkPlace {
    ChunkPlace {
        pack: 1,
        offset: u64::from(n) * 8,
        len: 100 + n,
        plain_len: 200 + n,
        crc: n,
        pinned: n.is_multiple_of(3),
    }
}

fn put(n: u32) -> Change {
    Change::Put(key(n), place(n))
}

fn at(offset: u64) -> LogPosition {
    LogPosition { pack: 1, offset }
}

fn watermark(offset: u64) -> Watermark {
    Watermark {
        position: at(offset),
        commit: 0,
    }
}

/// Rows and chunks in files, and the engine closed.
fn filled(folder: &Path) {
    let engine = open(folder).unwrap();
    Locations::apply(&engine, &(0..1000).map(put).collect::<Vec<_>>(), at(8)).unwrap();
    let kv = Database::new(Arc::new(engine));
    let mut batch = Batch::new();
    (0..100).for_each(|n| _ = batch.put(format!("row {n}"), vec![b'x'; 1000]));
    assert!(matches!(kv.commit(batch).unwrap(), Commit::Done(_)));
    kv.engine().flush().unwrap();
}

/// The one file of a folder whose name ends so, and is the longest of them.
fn file(folder: &Path, matches: impl Fn(&str) -> bool) -> PathBuf {
    let entries = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap());
    let found = entries.filter(|entry| matches(&entry.file_name().to_string_lossy()));
    found
        .max_by_key(|entry| entry.metadata().unwrap().len())
        .unwrap()
        .path()
}

#[test]
fn chunks_are_found_where_they_were_put_last() {
    let folder = tempfile::tempdir().unwrap();
    let engine = open(folder.path()).unwrap();
    let apply = |changes: &[Change], offset| Locations::apply(&engine, changes, at(offset)).unwrap();
    apply(&(0..500).map(put).collect::<Vec<_>>(), 8);
    engine.persist().unwrap();
    let moved = |n| Change::Put(key(n), place(1000 + n));
    apply(
        &[moved(1), Change::Remove(key(2)), moved(3), Change::Remove(key(3))],
        16,
    );

    let places = Locations::get_many(&engine, &[7, 1, 2, 3, 999, 7].map(key)).unwrap();
    assert_eq!(
        places,
        [Some(place(7)), Some(place(1001)), None, None, None, Some(place(7))]
    );
    let mut seen = Vec::new();
    let all = Locations::for_each(&engine, &mut |key, place| {
        seen.push((key, place));
        Ok(())
    });
    all.unwrap();
    assert_eq!(seen.len(), 498);
    assert!(seen.contains(&(key(1), place(1001))));
    let stopped = Locations::for_each(&engine, &mut |_, _| Err(engine.store_error(malformed("enough"))));
    assert!(stopped.is_err());

    let crooked = ChunkPlace { offset: 4, ..place(1) };
    assert!(Locations::apply(&engine, &[Change::Put(key(1), crooked)], at(24)).is_err());
    assert_eq!(*engine.applied(), watermark(16), "nothing of it was applied");
}

#[test]
fn the_watermark_is_what_the_files_have() {
    let folder = tempfile::tempdir().unwrap();
    let engine = open(folder.path()).unwrap();
    let now = |engine: &RocksEngine| Locations::watermark(engine).unwrap();
    assert_eq!(now(&engine), Watermark::default());
    Locations::apply(&engine, &[put(1)], at(8)).unwrap();
    assert_eq!(now(&engine), Watermark::default(), "it is in memory");
    engine.flush().unwrap();
    assert_eq!(now(&engine), watermark(8));
    Locations::apply(&engine, &[put(1)], at(16)).unwrap();
    assert_eq!(now(&engine), watermark(8));
    drop(engine);
    assert_eq!(now(&open(folder.path()).unwrap()), watermark(16), "closing flushes");
}

#[test]
fn a_copy_is_an_index_of_its_own() {
    let folder = tempfile::tempdir().unwrap();
    let [first, copy] = ["first", "copy"].map(|name| folder.path().join(name));
    filled(&first);
    let engine = open(&first).unwrap();
    engine.checkpoint(&copy).unwrap();
    Locations::apply(&engine, &[Change::Remove(key(1))], at(16)).unwrap();
    let copy = open(&copy).unwrap();
    assert_eq!(Locations::get_many(&copy, &[key(1)]).unwrap(), [Some(place(1))]);
    assert_eq!(copy.get("row 7").unwrap().unwrap().value.len(), 1000);
    assert_eq!(copy.version(), Version(1));
    assert!(engine.checkpoint(&first).is_err(), "not over what is there");
}

#[test]
fn a_record_that_is_none_changes_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let engine = open(folder.path()).unwrap();
    let changes = [put(1), Change::Commit(1, Bytes::from_static(b"no record"))];
    let error = Locations::apply(&engine, &changes, at(8)).unwrap_err();
    assert!(matches!(error, cairn_store::Error::Unavailable { .. }), "{error:?}");
    assert_eq!(Locations::get_many(&engine, &[key(1)]).unwrap(), [None]);
}

/// Goal: rows, chunks and the packs are one store: what was committed is there after the index was lost.
/// Method: commits through a real pack store; the index's folder is deleted, and the packs opened with a new one.
#[test]
fn a_wiped_index_comes_back_from_the_packs() {
    let folder = tempfile::tempdir().unwrap();
    let [packs, index] = ["packs", "index"].map(|name| folder.path().join(name));
    let open = || {
        let engine = Arc::new(open(&index).unwrap());
        let locations = Arc::clone(&engine) as Arc<dyn Locations>;
        let (packs, report) = PackEngine::open_folder(&packs, PackOptions::default(), locations).unwrap();
        assert_eq!(report.suspects, []);
        Database::logged(engine, Arc::new(packs))
    };
    let kv = open();
    for n in 0..50 {
        let mut batch = Batch::new();
        batch.put(format!("row {n}"), format!("{n}")).add("rows", 1);
        if n % 3 == 1 {
            batch.delete(format!("row {}", n / 2));
        }
        assert!(matches!(kv.commit(batch).unwrap(), Commit::Done(_)));
        if n == 20 {
            kv.engine().flush().unwrap();
        }
    }
    let all = |kv: &Database<RocksEngine>| kv.scan(&KeyRange::prefix(b""), Order::Forward, 1000).unwrap();
    let (before, version) = (all(&kv), kv.engine().version());
    drop(kv);
    let kv = open();
    assert_eq!(
        (all(&kv), kv.engine().version()),
        (before.clone(), version),
        "opened again"
    );
    drop(kv);
    std::fs::remove_dir_all(&index).unwrap();
    let kv = open();
    assert_eq!((all(&kv), kv.engine().version()), (before, version), "made again");
    assert_eq!(kv.get("rows").unwrap().unwrap().counter(), Some(50));
}

#[test]
fn a_folder_that_is_open_is_locked() {
    let folder = tempfile::tempdir().unwrap();
    let _engine = open(folder.path()).unwrap();
    let error = open(folder.path()).unwrap_err();
    assert!(matches!(error, Error::Locked { .. }), "{error:?}");
    assert!(
        error
            .to_string()
            .ends_with("is open elsewhere: stop the other server first"),
        "{error}"
    );
}

/// Goal: whatever file is missing, cut or overwritten, opening or reading says that the index is damaged; nothing is made anew.
#[test]
fn a_damaged_folder_says_so() {
    type Damage = fn(&Path);
    let damages: [(&str, Damage); 6] = [
        ("no CURRENT", |folder| {
            std::fs::remove_file(folder.join("CURRENT")).unwrap()
        }),
        ("CURRENT of garbage", |folder| {
            std::fs::write(folder.join("CURRENT"), "garbage").unwrap()
        }),
        ("no MANIFEST", |folder| {
            std::fs::remove_file(file(folder, |name| name.starts_with("MANIFEST"))).unwrap();
        }),
        ("half a MANIFEST", |folder| {
            let path = file(folder, |name| name.starts_with("MANIFEST"));
            let mut bytes = std::fs::read(&path).unwrap();
            let middle = bytes.len() / 2;
            bytes[middle] ^= 1;
            std::fs::write(path, bytes).unwrap();
        }),
        ("no table", |folder| {
            std::fs::remove_file(file(folder, |name| name.ends_with(".sst"))).unwrap()
        }),
        ("a flipped bit in a table", |folder| {
            let path = file(folder, |name| name.ends_with(".sst"));
            let mut bytes = std::fs::read(&path).unwrap();
            // In the rows, which come first.
            bytes[100] ^= 1;
            std::fs::write(path, bytes).unwrap();
        }),
    ];
    for (what, damage) in damages {
        let folder = tempfile::tempdir().unwrap();
        filled(folder.path());
        damage(folder.path());
        let read = open(folder.path()).and_then(|engine| {
            let keys: Vec<_> = (0..1000).map(key).collect();
            engine.places(&keys)?;
            engine.scan(&KeyRange::prefix(b""), Order::Forward, 1000)
        });
        let error = read.expect_err(what);
        assert!(matches!(error, Error::Damaged { .. }), "{what}: {error:?}");
        assert!(error.to_string().contains("have it rebuilt from the packs"), "{error}");
    }
}

#[test]
fn a_folder_of_something_else_is_left_alone() {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("notes.txt"), "mine").unwrap();
    let error = open(folder.path()).unwrap_err();
    assert!(
        matches!(&error, Error::Damaged { source, .. } if source.to_string().contains("notes.txt")),
        "{error:?}"
    );
    assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 1);

    let error = open(&folder.path().join("notes.txt")).unwrap_err();
    assert!(matches!(error, Error::Unavailable { action: "open", .. }), "{error:?}");
}

#[test]
fn families_of_a_later_release_are_refused() {
    let folder = tempfile::tempdir().unwrap();
    filled(folder.path());
    let families = [ROWS, CHUNKS, ENGINE];
    let mut db = DB::open_cf(&rocksdb::Options::default(), folder.path(), families).unwrap();
    db.create_cf("novelty", &rocksdb::Options::default()).unwrap();
    drop(db);
    let error = open(folder.path()).unwrap_err();
    assert!(matches!(error, Error::Unknown { .. }), "{error:?}");
    assert!(
        error.to_string().contains("a family of rows named \"novelty\""),
        "{error}"
    );
}

#[test]
fn rows_that_we_did_not_write_are_no_rows() {
    let folder = tempfile::tempdir().unwrap();
    let engine = open(folder.path()).unwrap();
    let mut batch = WriteBatch::default();
    batch.put_cf(engine.family(ROWS), Tenant::default().as_str(), b"short");
    batch.put_cf(engine.family(CHUNKS), [0; 36], b"short");
    engine.db.write_opt(batch, &engine.log.write_options()).unwrap();
    assert!(matches!(engine.get("default"), Err(Error::Malformed { .. })));
    assert!(matches!(
        engine.scan(&KeyRange::prefix(b""), Order::Forward, 9),
        Err(Error::Malformed { .. })
    ));
    let nobody = ChunkKey {
        domain: DomainId(0),
        id: ChunkId::from_bytes([0; 32]),
    };
    assert!(matches!(engine.places(&[nobody]), Err(Error::Malformed { .. })));
    assert!(Locations::for_each(&engine, &mut |_, _| Ok(())).is_err());
}

/// Goal: what is flushed and merged is counted, and writes that are slowed down or stopped are told, until they are not.
/// Method: files of level 0 are said to be too many, at a number that no compaction mends.
#[test]
fn what_slows_writes_is_told() {
    let folder = tempfile::tempdir().unwrap();
    let engine = Arc::new(open(folder.path()).unwrap());
    let kv = Database::new(Arc::clone(&engine));
    let write = |n: u32| {
        let mut batch = Batch::new();
        (0..40).for_each(|row| _ = batch.put(format!("row {row} {n}"), vec![b'x'; 50_000]));
        assert!(matches!(kv.commit(batch).unwrap(), Commit::Done(_)));
    };
    let state = || engine.state().unwrap();
    let set = |name: &str, value: &str| engine.db.set_options_cf(engine.family(ROWS), &[(name, value)]).unwrap();
    set("level0_file_num_compaction_trigger", "1000");
    assert_eq!((state().flushed_len, state().level_0_files), (0, 0));
    write(1);
    assert!(state().buffered_len > 2_000_000, "{:?}", state());
    engine.flush().unwrap();
    let first = state();
    assert!(first.flushed_len > 0 && first.level_0_files == 1, "{first:?}");
    assert_eq!((first.write_rate_max, first.writes_stopped), (0, false));
    write(2);
    engine.flush().unwrap();
    assert!(state().flushed_len > first.flushed_len && state().level_0_files == 2);
    assert_eq!(state().stalled, Duration::ZERO);

    set("level0_slowdown_writes_trigger", "2");
    assert!(state().write_rate_max > 0, "{:?}", state());
    write(3);
    let slowed = state();
    assert!(slowed.stalled > Duration::ZERO && !slowed.writes_stopped, "{slowed:?}");
    set("level0_stop_writes_trigger", "2");
    assert!(state().writes_stopped);
    set("level0_stop_writes_trigger", "36");
    set("level0_slowdown_writes_trigger", "20");
    let after = state();
    assert_eq!((after.write_rate_max, after.writes_stopped), (0, false));
    assert!(after.stalled >= slowed.stalled);

    assert_eq!((after.compaction_read_len, after.compaction_written_len), (0, 0));
    engine
        .db
        .compact_range_cf(engine.family(ROWS), None::<&[u8]>, None::<&[u8]>);
    engine
        .db
        .wait_for_compact(&rocksdb::WaitForCompactOptions::default())
        .unwrap();
    let merged = state();
    assert!(
        merged.compaction_read_len > 0 && merged.compaction_written_len > 0,
        "{merged:?}"
    );
    assert_eq!((merged.compactions, merged.failures), (0, 0), "{merged:?}");
}
