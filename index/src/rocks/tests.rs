//! RocksDB alone: chunks, watermarks, copies, and folders that are not right.

use std::path::Path;

use super::*;
use crate::kv::{Batch, Commit, Kv as _, ViewExt as _};
use crate::{Database, Tenant};
use std::sync::Arc;

fn open(place: &Path) -> Result<RocksEngine> {
    RocksEngine::open(place, &RocksOptions::default())
}

fn key(n: u32) -> ChunkKeyBytes {
    let mut key = [0; CHUNK_KEY_LEN];
    // Spread, as digests are.
    key[4..8].copy_from_slice(&n.wrapping_mul(0x9e37_79b9).to_be_bytes());
    key
}

fn place(n: u32) -> ChunkPlaceBytes {
    let mut place = [0; CHUNK_PLACE_LEN];
    place[..4].copy_from_slice(&n.to_be_bytes());
    place
}

/// Rows and chunks in files, and the engine closed.
fn filled(folder: &Path) {
    let engine = open(folder).unwrap();
    let mut changes = engine.changes();
    (0..1000).for_each(|n| changes.put_chunk(&key(n), &place(n)));
    changes.finish(b"mark").unwrap();
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
    let mut changes = engine.changes();
    (0..500).for_each(|n| changes.put_chunk(&key(n), &place(n)));
    changes.finish(b"1").unwrap();
    engine.flush().unwrap();
    let mut changes = engine.changes();
    changes.put_chunk(&key(1), &place(1001));
    changes.remove_chunk(&key(2));
    changes.put_chunk(&key(3), &place(1003));
    changes.remove_chunk(&key(3));
    changes.finish(b"2").unwrap();

    let places = engine.chunk_places(&[7, 1, 2, 3, 999, 7].map(key)).unwrap();
    assert_eq!(
        places,
        [Some(place(7)), Some(place(1001)), None, None, None, Some(place(7))]
    );
    let mut seen = Vec::new();
    engine
        .for_each_chunk(|key, place| {
            seen.push((key, place));
            Ok::<_, Error>(())
        })
        .unwrap();
    assert_eq!(seen.len(), 498);
    assert!(seen.is_sorted());
    let stopped = engine.for_each_chunk(|_, _| Err(malformed("enough")));
    assert!(matches!(stopped, Err(Error::Malformed { reason: "enough", .. })));
}

#[test]
fn the_watermark_is_what_the_files_have() {
    let folder = tempfile::tempdir().unwrap();
    let engine = open(folder.path()).unwrap();
    assert_eq!(engine.watermark(), None);
    engine.changes().finish(b"one").unwrap();
    assert_eq!(engine.watermark(), None, "it is in memory");
    engine.flush().unwrap();
    assert_eq!(engine.watermark().unwrap(), "one");
    engine.changes().finish(b"two").unwrap();
    assert_eq!(engine.watermark().unwrap(), "one");
    drop(engine);
    assert_eq!(
        open(folder.path()).unwrap().watermark().unwrap(),
        "two",
        "closing flushes"
    );
}

#[test]
fn a_copy_is_an_index_of_its_own() {
    let folder = tempfile::tempdir().unwrap();
    let [first, copy] = ["first", "copy"].map(|name| folder.path().join(name));
    filled(&first);
    let engine = open(&first).unwrap();
    engine.checkpoint(&copy).unwrap();
    let mut changes = engine.changes();
    changes.remove_chunk(&key(1));
    changes.finish(b"later").unwrap();
    let copy = open(&copy).unwrap();
    assert_eq!(copy.chunk_places(&[key(1)]).unwrap(), [Some(place(1))]);
    assert_eq!(copy.get("row 7").unwrap().unwrap().value.len(), 1000);
    assert_eq!(copy.version(), Version(1));
    assert!(engine.checkpoint(&first).is_err(), "not over what is there");
}

#[test]
fn a_record_that_is_none_changes_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let engine = open(folder.path()).unwrap();
    let mut changes = engine.changes();
    assert!(matches!(
        changes.commit(&Bytes::from_static(b"no record")),
        Err(Error::Malformed { .. })
    ));
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
            engine.chunk_places(&keys)?;
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
    batch.put_cf(engine.family(CHUNKS), key(1), b"short");
    engine.db.write_opt(batch, &engine.log.write_options()).unwrap();
    assert!(matches!(engine.get("default"), Err(Error::Malformed { .. })));
    assert!(matches!(
        engine.scan(&KeyRange::prefix(b""), Order::Forward, 9),
        Err(Error::Malformed { .. })
    ));
    assert!(matches!(engine.chunk_places(&[key(1)]), Err(Error::Malformed { .. })));
}
