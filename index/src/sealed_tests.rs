//! Snapshots in real packs: an index that was lost, or is an old copy, comes back; full disks are survived.

use std::path::Path;
use std::sync::Arc;

use cairn_store::{CompactOptions, CompactReport, Locations, LogPosition, PackEngine, PackOptions, Restore};

use crate::kv::{Batch, Commit, Kv as _, Order, Page, View as _, ViewExt as _};
use crate::small_disk::SmallDisk;
use crate::{Database, Engine as _, Error, KeyRange, RocksEngine, RocksOptions, Version, write_snapshot};

struct Store {
    kv: Database<RocksEngine>,
    packs: Arc<PackEngine>,
}

fn open(folder: &Path) -> Store {
    let engine = Arc::new(RocksEngine::open(&folder.join("index"), &RocksOptions::default()).unwrap());
    let options = PackOptions {
        pack_len: 64 << 10,
        ..PackOptions::default()
    };
    let locations = Arc::clone(&engine) as Arc<dyn Locations>;
    let (packs, report) = PackEngine::open_folder(&folder.join("packs"), options, locations).unwrap();
    assert_eq!(report.suspects, []);
    let packs = Arc::new(packs);
    Store {
        kv: Database::logged(engine, packs.clone()),
        packs,
    }
}

fn lose_index(folder: &Path) {
    std::fs::remove_dir_all(folder.join("index")).unwrap();
}

impl Store {
    /// Rows written, written over and deleted.
    fn commit(&self, numbers: std::ops::Range<u32>) {
        for n in numbers {
            let mut batch = Batch::new();
            batch.put(format!("row {n}"), vec![n as u8; 900]).add("rows", 1);
            batch.put(format!("old {}", n / 3), vec![1]);
            if n % 3 != 0 && n > 2 {
                batch.delete(format!("row {}", n - 1));
            }
            assert!(matches!(self.kv.commit(batch).unwrap(), Commit::Done(_)));
        }
    }

    fn snapshot(&self) -> crate::SnapshotReport {
        let written = write_snapshot(self.kv.engine().as_ref(), &self.packs, &mut |_| Ok(()));
        written.unwrap().expect("there are commits")
    }

    fn compact(&self) -> CompactReport {
        let options = CompactOptions {
            live_share_min: 1.0,
            commits_kept_from: LogPosition::default(),
        };
        self.packs.compact(&options).unwrap()
    }

    fn all(&self) -> (Page, Version) {
        let rows = self.kv.scan(&KeyRange::prefix(b""), Order::Forward, 10_000).unwrap();
        assert_eq!(rows.rest, None);
        (rows, self.kv.engine().version())
    }
}

/// Goal: packs full of commits go once a snapshot has them, and a lost index still comes back, row for row.
#[test]
fn a_lost_index_comes_back_from_a_snapshot_and_what_came_after() {
    let folder = tempfile::tempdir().unwrap();
    let store = open(folder.path());
    store.commit(0..600);
    assert_eq!(store.compact(), CompactReport::default(), "all commits are needed");
    let report = store.snapshot();
    assert!(report.rows > 100 && report.bytes > 100_000, "{report:?}");
    assert!(store.compact().bytes_removed > 300_000);
    store.commit(600..650);
    let before = store.all();
    drop(store);
    lose_index(folder.path());
    let store = open(folder.path());
    assert_eq!(store.all(), before, "made again");

    // The older snapshot goes too, and what was made again goes on.
    store.commit(650..900);
    store.snapshot();
    let nothing = write_snapshot(store.kv.engine().as_ref(), &store.packs, &mut |_| Ok(()));
    assert_eq!(nothing.unwrap(), None, "nothing was committed since");
    store.compact();
    let (before, stat) = (store.all(), store.packs.snapshot_stat(0.5).unwrap());
    let used: u64 = store.packs.pack_stats().unwrap().iter().map(|pack| pack.bytes).sum();
    assert!(used < 2 * stat.bytes + (64 << 10), "{used} bytes for {stat:?}");
    drop(store);
    assert_eq!(open(folder.path()).all(), before, "opened again");
    lose_index(folder.path());
    assert_eq!(open(folder.path()).all(), before, "made again");
}

/// Goal: an index that is older than the snapshot is replaced by it, deletes included.
#[test]
fn an_old_copy_of_the_index_catches_up() {
    let folder = tempfile::tempdir().unwrap();
    let store = open(folder.path());
    store.commit(0..100);
    let copy = folder.path().join("copy");
    store.kv.engine().checkpoint(&copy).unwrap();
    store.commit(100..300);
    let mut batch = Batch::new();
    batch.delete("rows");
    assert!(matches!(store.kv.commit(batch).unwrap(), Commit::Done(_)));
    store.snapshot();
    store.compact();
    store.commit(300..310);
    let before = store.all();
    drop(store);
    lose_index(folder.path());
    std::fs::rename(&copy, folder.path().join("index")).unwrap();
    let store = open(folder.path());
    assert_eq!(store.all(), before);
    store.commit(310..320);
}

/// Goal: a snapshot counts when it is whole, not before; what is written while it is, is not lost.
#[test]
fn a_snapshot_that_was_not_finished_counts_for_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let store = open(folder.path());
    store.commit(0..2000);
    let mut pieces = 0;
    let ended = write_snapshot(store.kv.engine().as_ref(), &store.packs, &mut |_| {
        pieces += 1;
        store.commit(3000 + pieces..3001 + pieces);
        if pieces == 1 { Ok(()) } else { Err(Error::Stopped) }
    });
    assert!(matches!(ended, Ok(_) | Err(Error::Stopped)), "{ended:?}");
    let packs = &store.packs;
    let mut unfinished = packs.begin_snapshot(1, LogPosition::default()).unwrap();
    assert!(
        packs.begin_snapshot(1, LogPosition::default()).is_err(),
        "one at a time"
    );
    unfinished.push(&[1]).unwrap();
    drop(unfinished);
    packs.sync().unwrap();
    let before = store.all();
    store.compact();
    drop(store);
    lose_index(folder.path());
    assert_eq!(open(folder.path()).all(), before);
}

/// Goal: while rows are made again nothing is taken for whole: a crash in the middle has it begun anew.
#[test]
fn rows_made_again_by_half_are_made_again() {
    let folder = tempfile::tempdir().unwrap();
    let store = open(folder.path());
    store.commit(0..50);
    store.snapshot();
    let before = store.all();
    let engine = store.kv.engine().clone();
    drop(store);
    let commit = Locations::watermark(engine.as_ref()).unwrap().commit;
    assert_eq!(commit, 50);
    Locations::restore(engine.as_ref(), Restore::Begin).unwrap();
    assert_eq!(
        (engine.version(), engine.get("rows").unwrap()),
        (Version::default(), None)
    );
    engine.flush().unwrap();
    assert_eq!(Locations::watermark(engine.as_ref()).unwrap().commit, 0);
    drop(engine);
    assert_eq!(open(folder.path()).all(), before);
}

/// Goal: a commit that finds no room fails, and the next one after there is room does not.
#[test]
fn commits_go_on_when_a_full_disk_has_room_again() {
    let disk = SmallDisk::new(24);
    let folder = tempfile::tempdir().unwrap();
    std::os::unix::fs::symlink(disk.path().join("packs"), folder.path().join("packs")).unwrap();
    std::fs::create_dir(disk.path().join("packs")).unwrap();
    let store = open(folder.path());
    store.commit(0..10);
    let ballast = disk.path().join("ballast");
    for _ in 0..3 {
        disk.fill("ballast");
        let before = store.all();
        let mut failed = 0;
        for n in 0..200 {
            let mut batch = Batch::new();
            batch.put(format!("late {n}"), vec![3; 5000]).add("late", 1);
            match store.kv.commit(batch) {
                Ok(_) => assert_eq!(failed, 0, "the log has an order"),
                Err(error) => {
                    assert!(matches!(error, Error::Full(_)) && error.is_full(), "{error:?}");
                    failed += 1;
                }
            }
        }
        assert!(failed > 100, "{failed}");
        assert!(store.all().0.rows.len() >= before.0.rows.len(), "reads go on");
        std::fs::remove_file(&ballast).unwrap();
        store.commit(10..20);
    }
    let before = store.all();
    drop(store);
    lose_index(folder.path());
    assert_eq!(open(folder.path()).all(), before);
}
