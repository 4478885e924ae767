//! What every key-value engine promises, one function a promise, run over each of them; and the engines against a model.
//!
//! The engines: rows in memory; RocksDB with its own log; RocksDB as a cache of a log, which is how the server has it.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::{Arc, Mutex};

use bytes::Bytes;
use cairn_store::{Change, Locations, LogPosition, SyncPolicy};
use proptest::prelude::*;
use tempfile::TempDir;

use crate::error::BoxError;
use crate::{
    BATCH_LEN_MAX, Batch, Check, Commit, CommitLog, Conflict, Database, Engine, Error, KEY_LEN_MAX, Key, KeyRange, Kv,
    MemoryEngine, Order, RocksEngine, RocksLog, RocksOptions, Row, SCHEMA, Table, VALUE_LEN_MAX, Version, View,
    ViewExt as _, open_schema,
};

/// A log in memory over RocksDB.
#[derive(Debug)]
struct TestLog {
    engine: Arc<RocksEngine>,
    records: Arc<Mutex<Vec<Bytes>>>,
}

impl CommitLog for TestLog {
    fn commit(&self, record: Bytes, _: SyncPolicy) -> Result<(), BoxError> {
        let mut records = self.records.lock().unwrap();
        records.push(record.clone());
        apply(&self.engine, records.len() as u64, &record);
        Ok(())
    }

    fn settle(&self) -> Result<(), BoxError> {
        Ok(())
    }
}

fn apply(engine: &RocksEngine, number: u64, record: &Bytes) {
    let position = LogPosition {
        pack: 1,
        offset: number * 8,
    };
    Locations::apply(engine, &[Change::Commit(number, record.clone())], position).unwrap();
}

fn open_rocks(place: &Path, log: RocksLog) -> Arc<RocksEngine> {
    let options = RocksOptions {
        log,
        ..RocksOptions::default()
    };
    Arc::new(RocksEngine::open(place, &options).unwrap())
}

fn logged(place: &Path, records: &Arc<Mutex<Vec<Bytes>>>) -> Database<RocksEngine> {
    let engine = open_rocks(place, RocksLog::None);
    let applied = Locations::watermark(engine.as_ref()).unwrap();
    // From one too early: what was applied is passed over by its number.
    let again = applied.commit.saturating_sub(1);
    for (number, record) in (1..).zip(records.lock().unwrap().iter()).skip(again as usize) {
        apply(&engine, number, record);
    }
    let records = Arc::clone(records);
    let log = Arc::new(TestLog {
        engine: Arc::clone(&engine),
        records,
    });
    Database::logged(engine, log)
}

/// Holds every engine, new and empty, to a promise.
fn each(promise: impl Fn(&dyn Kv)) {
    let folder = tempfile::tempdir().unwrap();
    promise(&Database::new(Arc::new(MemoryEngine::new())));
    promise(&Database::new(open_rocks(&folder.path().join("own"), RocksLog::Own)));
    promise(&logged(&folder.path().join("logged"), &Arc::default()));
}

fn done(commit: Commit) -> Version {
    match commit {
        Commit::Done(version) => version,
        Commit::Conflict(conflict) => panic!("{conflict:?}"),
    }
}

fn put(kv: &dyn Kv, key: &str, value: &str) -> Version {
    let mut batch = Batch::new();
    batch.put(key, value.to_owned());
    done(kv.commit(batch).unwrap())
}

fn keys(view: &(impl View + ?Sized), range: &KeyRange, order: Order, limit: usize) -> (Vec<String>, Option<KeyRange>) {
    let page = view.scan(range, order, limit).unwrap();
    let key = |(key, _): (Bytes, Row)| String::from_utf8(key.to_vec()).unwrap();
    (page.rows.into_iter().map(key).collect(), page.rest)
}

#[test]
fn what_was_committed_is_read_with_its_version() {
    each(|kv| {
        assert_eq!(kv.get("a").unwrap(), None);
        let first = put(kv, "a", "1");
        let second = put(kv, "b", "");
        assert!(second > first);
        let rows = kv.get_many(&[b"b", b"x", b"a", b"b"]).unwrap();
        let row = |version, value: &'static str| {
            Some(Row {
                version,
                value: Bytes::from(value),
            })
        };
        assert_eq!(rows, [row(second, ""), None, row(first, "1"), row(second, "")]);
        let third = put(kv, "a", "2");
        assert_eq!(kv.get("a").unwrap(), row(third, "2"));
        let mut batch = Batch::new();
        batch.delete("a").delete("never there");
        let _ = done(kv.commit(batch).unwrap());
        assert_eq!(kv.get("a").unwrap(), None);
        assert_eq!(kv.get_many(&[]).unwrap(), []);
    });
}

#[test]
fn a_batch_happens_whole_or_not_at_all() {
    each(|kv| {
        let version = put(kv, "a", "1");
        let attempt = |key: &str, check| {
            let mut batch = Batch::new();
            batch
                .check("none", Check::Absent)
                .check(key, check)
                .put("a", "changed")
                .put("new", "x")
                .delete("b");
            kv.commit(batch).unwrap()
        };
        let conflict = |found| Commit::Conflict(Conflict { check: 1, found });
        assert_eq!(attempt("a", Check::Absent), conflict(Some(version)));
        assert_eq!(attempt("b", Check::Version(version)), conflict(None));
        assert_eq!(
            attempt("a", Check::Version(Version(version.0 + 1))),
            conflict(Some(version))
        );
        assert_eq!(kv.get("a").unwrap().unwrap().value, "1");
        assert_eq!(kv.get("new").unwrap(), None);

        let next = done(attempt("a", Check::Version(version)));
        assert_eq!(kv.get("new").unwrap().unwrap().version, next);
        assert_eq!(attempt("a", Check::Version(version)), conflict(Some(next)));
        let row = kv.get("a").unwrap();
        let _ = done(attempt("a", Check::unchanged(row.as_ref())));
        let _ = done(attempt("b", Check::unchanged(None)));
    });
}

#[test]
fn a_batch_of_checks_alone_is_answered() {
    each(|kv| {
        let version = put(kv, "a", "1");
        let ask = |check| {
            let mut batch = Batch::new();
            batch.check("a", check);
            kv.commit(batch).unwrap()
        };
        assert_eq!(ask(Check::Version(version)), Commit::Done(version));
        assert!(matches!(ask(Check::Absent), Commit::Conflict(_)));
        assert_eq!(put(kv, "b", "2").0, version.0 + 1, "it took no version");
    });
}

#[test]
fn counters_add_up() {
    each(|kv| {
        let add = |difference| {
            let mut batch = Batch::new();
            batch.add("n", difference);
            kv.commit(batch)
        };
        for difference in [5, -7, i64::MAX] {
            let _ = done(add(difference).unwrap());
        }
        assert_eq!(kv.get("n").unwrap().unwrap().counter(), Some(i64::MAX - 2));
        let error = add(3).unwrap_err();
        assert_eq!(error.to_string(), "counter n would overflow");
        put(kv, "n", "text");
        let error = add(1).unwrap_err();
        assert_eq!(error.to_string(), "row n holds 4 bytes and is no counter to add to");
        assert_eq!(kv.get("n").unwrap().unwrap().counter(), None);
        // The lane goes on after what was refused.
        put(kv, "n", "12345678");
        let _ = done(add(1).unwrap());
    });
}

/// Goal: rows are numbered without gap or repeat by whatever many threads append, and a batch that fails uses up no number.
#[test]
fn appended_rows_are_numbered_in_the_order_of_commits() {
    each(|kv| {
        let append = |text: String| {
            let mut batch = Batch::new();
            batch.append("end", "log ", text);
            done(kv.commit(batch).unwrap())
        };
        std::thread::scope(|scope| {
            for thread in 0..4 {
                scope.spawn(move || (0..25).for_each(|n| _ = append(format!("{thread} {n}"))));
            }
        });
        let mut failing = Batch::new();
        failing.append("end", "log ", "no").check("end", Check::Absent);
        assert!(matches!(kv.commit(failing).unwrap(), Commit::Conflict(_)));
        let page = kv.scan(&KeyRange::prefix(b"log "), Order::Forward, 1000).unwrap();
        let numbers: Vec<u64> = page
            .rows
            .iter()
            .map(|(key, _)| u64::from_be_bytes(key[4..].try_into().unwrap()))
            .collect();
        assert_eq!(numbers, (1..=100).collect::<Vec<u64>>());
        assert!(page.rows.windows(2).all(|pair| pair[0].1.version < pair[1].1.version));
        assert_eq!(kv.get("end").unwrap().unwrap().counter(), Some(100));
        let mut long = Batch::new();
        long.append("end", vec![0; KEY_LEN_MAX], "");
        assert!(matches!(kv.commit(long), Err(Error::TooLarge { what: "key", .. })));
    });
}

#[test]
fn limits_are_held() {
    each(|kv| {
        let commit = |fill: &dyn Fn(&mut Batch)| {
            let mut batch = Batch::new();
            fill(&mut batch);
            kv.commit(batch)
        };
        let value = |len: usize| Bytes::from(vec![7; len]);
        let full = vec![b'k'; KEY_LEN_MAX];
        let _ = done(commit(&|batch| _ = batch.put(&full, value(VALUE_LEN_MAX)).check(&full, Check::Absent)).unwrap());
        assert_eq!(kv.get(&full).unwrap().unwrap().value, value(VALUE_LEN_MAX));

        let refused = |fill: &dyn Fn(&mut Batch), text: &str| assert_eq!(commit(fill).unwrap_err().to_string(), text);
        let long = vec![b'k'; KEY_LEN_MAX + 1];
        refused(
            &|batch| _ = batch.put("v", value(VALUE_LEN_MAX + 1)),
            "value of 65537 bytes, the limit is 65536",
        );
        refused(&|batch| _ = batch.delete(&long), "key of 4097 bytes, the limit is 4096");
        refused(
            &|batch| _ = batch.check(&long, Check::Absent),
            "key of 4097 bytes, the limit is 4096",
        );
        refused(
            &|batch| _ = batch.put("twice", "1").add("twice", 1),
            "a batch writes row twice twice",
        );
        let fill = |batch: &mut Batch, count: usize| {
            for n in 0..count {
                batch.put(format!("{n:04}"), value(VALUE_LEN_MAX - 4));
            }
        };
        let count = BATCH_LEN_MAX / VALUE_LEN_MAX;
        let _ = done(commit(&|batch| fill(batch, count)).unwrap());
        refused(
            &|batch| {
                _ = {
                    fill(batch, count);
                    batch.delete("x")
                }
            },
            "batch of 4194305 bytes, the limit is 4194304",
        );
    });
}

#[test]
fn scans_go_both_ways_and_on_where_they_ended() {
    each(|kv| {
        for key in ["b/1", "a", "b/3", "c", "b/2", "b"] {
            put(kv, key, key);
        }
        let (range, all) = (KeyRange::prefix(b"b/"), KeyRange::prefix(b""));
        let scan = |range: &KeyRange, order, limit| keys(kv, range, order, limit);
        assert_eq!(
            scan(&range, Order::Forward, 9),
            (vec!["b/1".into(), "b/2".into(), "b/3".into()], None)
        );
        assert_eq!(
            scan(&range, Order::Reverse, 9),
            (vec!["b/3".into(), "b/2".into(), "b/1".into()], None)
        );
        assert_eq!(scan(&all, Order::Forward, 1).0, ["a"]);
        assert_eq!(scan(&all, Order::Reverse, 1).0, ["c"]);
        assert_eq!(scan(&range, Order::Forward, 3).1, None, "nothing is left");
        assert_eq!(scan(&range, Order::Forward, 0), (vec![], Some(range.clone())));
        assert_eq!(scan(&KeyRange::prefix(b"x"), Order::Forward, 9), (vec![], None));
        let crossed = KeyRange {
            start: b"c".to_vec(),
            end: Some(b"a".to_vec()),
        };
        assert_eq!(scan(&crossed, Order::Reverse, 9), (vec![], None));

        for order in [Order::Forward, Order::Reverse] {
            let (mut rest, mut found) = (Some(all.clone()), Vec::new());
            while let Some(range) = rest {
                let (keys, next) = scan(&range, order, 2);
                found.extend(keys);
                rest = next;
            }
            if order == Order::Reverse {
                found.reverse();
            }
            assert_eq!(found, ["a", "b", "b/1", "b/2", "b/3", "c"]);
        }
    });
}

#[test]
fn a_page_ends_at_its_bytes() {
    each(|kv| {
        for tens in 0..10 {
            let mut batch = Batch::new();
            for n in 0..10 {
                batch.put(format!("{tens}{n}"), vec![1; VALUE_LEN_MAX]);
            }
            let _ = done(kv.commit(batch).unwrap());
        }
        let all = KeyRange::prefix(b"");
        assert_eq!(
            keys(kv, &all, Order::Forward, usize::MAX).0.len(),
            crate::SCAN_LEN / VALUE_LEN_MAX
        );
        let mut count = 0;
        kv.for_each(all, |_, _| {
            count += 1;
            Ok::<_, Error>(())
        })
        .unwrap();
        assert_eq!(count, 100);
    });
}

#[test]
fn a_snapshot_stays_as_it_was() {
    each(|kv| {
        put(kv, "a", "1");
        put(kv, "b", "1");
        let snapshot = kv.snapshot().unwrap();
        put(kv, "a", "2");
        put(kv, "c", "2");
        let mut batch = Batch::new();
        batch.delete("b");
        let _ = done(kv.commit(batch).unwrap());
        assert_eq!(snapshot.get("a").unwrap().unwrap().value, "1");
        assert_eq!(snapshot.get("c").unwrap(), None);
        let all = KeyRange::prefix(b"");
        assert_eq!(keys(snapshot.as_ref(), &all, Order::Reverse, 9).0, ["b", "a"]);
        assert_eq!(keys(kv, &all, Order::Forward, 9).0, ["a", "c"]);
    });
}

/// Goal: no update is lost and no check passes wrongly, however commits fall together.
/// Method: threads that each count up, by addition and by read, check and put.
#[test]
fn commits_of_many_threads_do_not_lose_one() {
    const THREADS: i64 = 8;
    const EACH: i64 = 40;
    each(|kv| {
        std::thread::scope(|scope| {
            for _ in 0..THREADS {
                scope.spawn(|| {
                    for _ in 0..EACH {
                        loop {
                            let row = kv.get("checked").unwrap();
                            let now = row.as_ref().map_or(0, |row| row.counter().unwrap());
                            let mut batch = Batch::new();
                            batch
                                .check("checked", Check::unchanged(row.as_ref()))
                                .put("checked", (now + 1).to_be_bytes().to_vec())
                                .add("added", 1);
                            if let Commit::Done(version) = kv.commit(batch).unwrap() {
                                assert!(kv.get("checked").unwrap().unwrap().version >= version);
                                break;
                            }
                        }
                    }
                });
            }
        });
        for counter in ["checked", "added"] {
            assert_eq!(
                kv.get(counter).unwrap().unwrap().counter(),
                Some(THREADS * EACH),
                "{counter}"
            );
        }
    });
}

/// A log that fails when it is told to.
#[derive(Debug)]
struct FailingLog(Arc<MemoryEngine>, Mutex<bool>);

impl CommitLog for FailingLog {
    fn commit(&self, record: Bytes, _: SyncPolicy) -> Result<(), BoxError> {
        if *self.1.lock().unwrap() {
            return Err("the disk is gone".into());
        }
        Ok(self.0.apply(&crate::CommitRecord::decode(&record)?)?)
    }

    fn settle(&self) -> Result<(), BoxError> {
        Ok(())
    }
}

#[test]
fn a_commit_that_failed_half_way_is_the_last_one() {
    let engine = Arc::new(MemoryEngine::new());
    let log = Arc::new(FailingLog(Arc::clone(&engine), Mutex::new(false)));
    let kv = Database::logged(engine, Arc::clone(&log) as Arc<dyn CommitLog>);
    put(&kv, "a", "1");
    *log.1.lock().unwrap() = true;
    let commit = || {
        let mut batch = Batch::new();
        batch.put("a", "2");
        kv.commit(batch)
    };
    let error = commit().unwrap_err();
    assert!(
        matches!(error, Error::Unavailable { action: "commit", .. }),
        "{error:?}"
    );
    *log.1.lock().unwrap() = false;
    assert!(matches!(commit().unwrap_err(), Error::Broken));
    assert_eq!(kv.get("a").unwrap().unwrap().value, "1", "reads go on");
}

/// A log that takes records and applies nothing is found out.
#[test]
fn a_log_that_does_not_apply_is_no_log() {
    #[derive(Debug)]
    struct Forgetful;
    impl CommitLog for Forgetful {
        fn commit(&self, _: Bytes, _: SyncPolicy) -> Result<(), BoxError> {
            Ok(())
        }

        fn settle(&self) -> Result<(), BoxError> {
            Ok(())
        }
    }
    let kv = Database::logged(Arc::new(MemoryEngine::new()), Arc::new(Forgetful));
    let mut batch = Batch::new();
    batch.put("a", "1");
    assert!(matches!(kv.commit(batch).unwrap_err(), Error::Broken));
}

#[test]
fn a_schema_is_written_once_and_a_newer_one_refused() {
    let kv = Database::new(Arc::new(MemoryEngine::new()));
    open_schema(&kv, "here").unwrap();
    open_schema(&kv, "here").unwrap();
    let key = Key::of_index(Table::Meta).bytes(b"schema");
    assert_eq!(kv.get(&key).unwrap().unwrap().version, Version(1));
    let set = |value: Vec<u8>| {
        let mut batch = Batch::new();
        batch.put(&key, value);
        let _ = done(kv.commit(batch).unwrap());
        open_schema(&kv, "here").unwrap_err().to_string()
    };
    assert_eq!(
        set((SCHEMA + 1).to_be_bytes().to_vec()),
        format!(
            "the index in here has schema {} and this release knows schemas up to {SCHEMA}: use the newer release",
            SCHEMA + 1
        )
    );
    assert_eq!(set(vec![1]), "schema row: it is no number");
}

/// What a step of the property test does.
#[derive(Clone, Debug)]
enum Step {
    Commit(Vec<(u8, Wanted)>, Vec<(u8, Op)>),
    Scan(u8, u8, bool, u8),
    Flush,
    Reopen,
    Crash,
}

#[derive(Clone, Debug)]
enum Wanted {
    Absent,
    Now,
    Older,
}

#[derive(Clone, Debug)]
enum Op {
    Put(u8),
    Delete,
    Add(i8),
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let wanted = prop_oneof![1 => Just(Wanted::Absent), 4 => Just(Wanted::Now), 1 => Just(Wanted::Older)];
    let op = prop_oneof![
        3 => any::<u8>().prop_map(Op::Put),
        2 => Just(Op::Delete),
        3 => any::<i8>().prop_map(Op::Add),
    ];
    let commit = (
        prop::collection::vec((0..16_u8, wanted), 0..3),
        prop::collection::vec((0..16_u8, op), 0..5),
    );
    let step = prop_oneof![
        40 => commit.prop_map(|(checks, writes)| Step::Commit(checks, writes)),
        10 => (0..16_u8, 0..18_u8, any::<bool>(), 0..6_u8).prop_map(|(a, b, c, d)| Step::Scan(a, b, c, d)),
        2 => Just(Step::Flush),
        1 => Just(Step::Reopen),
        1 => Just(Step::Crash),
    ];
    prop::collection::vec(step, 1..60)
}

type Model = BTreeMap<Vec<u8>, (u64, Vec<u8>)>;

/// Goal: RocksDB as a cache of a log, and the memory engine, are the model, also after a crash.
/// Method: random commits and scans on all three; RocksDB is closed and opened, or opened from a copy of its files as they are
/// (what a crash leaves, memory lost) and given the log again.
#[test]
fn the_engines_are_the_model() {
    let config = ProptestConfig {
        cases: 48,
        failure_persistence: None,
        ..ProptestConfig::default()
    };
    proptest!(config, |(steps in steps())| {
        let mut model = Model::new();
        let mut version = 0;
        let memory = Database::new(Arc::new(MemoryEngine::new()));
        let records = Arc::default();
        let mut folder = tempfile::tempdir().unwrap();
        let mut rocks = Some(logged(folder.path(), &records));
        for step in steps {
            let engine = rocks.as_ref().unwrap();
            match step {
                Step::Commit(checks, writes) => {
                    let batch = batch(&model, &checks, &writes);
                    let wanted = expect(&mut model, &mut version, &batch);
                    for kv in [&memory as &dyn Kv, engine] {
                        let got = kv.commit(batch.clone()).map_err(|error| error.to_string());
                        prop_assert_eq!(&got, &wanted);
                    }
                }
                Step::Scan(from, to, forward, limit) => {
                    let range = KeyRange { start: vec![from], end: (to < 17).then(|| vec![to]) };
                    let order = if forward { Order::Forward } else { Order::Reverse };
                    let page = memory.scan(&range, order, usize::from(limit)).unwrap();
                    prop_assert_eq!(&engine.scan(&range, order, usize::from(limit)).unwrap(), &page);
                    let mut within: Vec<_> = model.iter().filter(|(key, _)| range.contains(key)).collect();
                    if !forward {
                        within.reverse();
                    }
                    within.truncate(usize::from(limit));
                    let found: Vec<_> = page.rows.iter().map(|(key, _)| key.to_vec()).collect();
                    prop_assert_eq!(found, within.into_iter().map(|(key, _)| key.clone()).collect::<Vec<_>>());
                }
                Step::Flush => engine.engine().flush().unwrap(),
                Step::Reopen => {
                    drop(rocks.take());
                    rocks = Some(logged(folder.path(), &records));
                }
                Step::Crash => {
                    let image = crash_image(folder.path());
                    rocks = Some(logged(image.path(), &records));
                    folder = image;
                }
            }
            let rocks = rocks.as_ref().unwrap();
            for kv in [&memory as &dyn Kv, rocks] {
                prop_assert_eq!(contents(kv), model.clone());
            }
            prop_assert_eq!(rocks.engine().version(), Version(version));
        }
    });
}

fn batch(model: &Model, checks: &[(u8, Wanted)], writes: &[(u8, Op)]) -> Batch {
    let mut batch = Batch::new();
    for (key, wanted) in checks {
        let now = model.get(&vec![*key]).map(|(version, _)| *version);
        let check = match (wanted, now) {
            (Wanted::Absent, _) | (Wanted::Now, None) => Check::Absent,
            (Wanted::Now, Some(now)) => Check::Version(Version(now)),
            (Wanted::Older, now) => Check::Version(Version(now.unwrap_or(3) - 1)),
        };
        batch.check([*key], check);
    }
    for (key, op) in writes {
        match op {
            Op::Put(value) => batch.put([*key], vec![*value; usize::from(*value) % 20]),
            Op::Delete => batch.delete([*key]),
            Op::Add(difference) => batch.add([*key], i64::from(*difference) << 56),
        };
    }
    batch
}

/// What the batch has to come to, worked out anew and simply.
fn expect(model: &mut Model, version: &mut u64, batch: &Batch) -> Result<Commit, String> {
    batch.validate().map_err(|error| error.to_string())?;
    for (check, (key, wanted)) in batch.checks.iter().enumerate() {
        let found = model.get(key.as_ref()).map(|(version, _)| Version(*version));
        let holds = match wanted {
            Check::Absent => found.is_none(),
            Check::Version(version) => found == Some(*version),
        };
        if !holds {
            return Ok(Commit::Conflict(Conflict { check, found }));
        }
    }
    if batch.is_empty() {
        return Ok(Commit::Done(Version(*version)));
    }
    let mut changed = model.clone();
    for (key, write) in &batch.writes {
        let now = model.get(key.as_ref()).map(|(_, value)| Bytes::from(value.clone()));
        match write.resolve(key, now.as_ref()).map_err(|error| error.to_string())? {
            Some(value) => changed.insert(key.to_vec(), (*version + 1, value.to_vec())),
            None => changed.remove(key.as_ref()),
        };
    }
    *version += 1;
    *model = changed;
    Ok(Commit::Done(Version(*version)))
}

fn contents(kv: &dyn Kv) -> Model {
    let mut rows = Model::new();
    kv.for_each(KeyRange::prefix(b""), |key, row| {
        rows.insert(key.to_vec(), (row.version.0, row.value.to_vec()));
        Ok::<_, Error>(())
    })
    .unwrap();
    rows
}

/// A copy of the files of an engine that is still open, all as they were at one moment: the engine's own threads delete and write
/// while it is made, so it counts only where nothing moved meanwhile.
fn crash_image(place: &Path) -> TempDir {
    for _ in 0..1000 {
        let image = tempfile::tempdir().unwrap();
        let before = listing(place);
        let copied = before
            .keys()
            .try_for_each(|name| std::fs::copy(place.join(name), image.path().join(name)).map(drop));
        if copied.is_ok() && listing(place) == before {
            return image;
        }
        std::thread::yield_now();
    }
    panic!("{} never stood still", place.display());
}

/// The files of a folder with their lengths and times; a file that goes while it is looked at is not there.
fn listing(place: &Path) -> BTreeMap<std::ffi::OsString, (u64, std::time::SystemTime)> {
    let entries = std::fs::read_dir(place).unwrap().map(Result::unwrap);
    entries
        .filter_map(|entry| {
            let about = entry.metadata().ok()?;
            Some((entry.file_name(), (about.len(), about.modified().unwrap())))
        })
        .collect()
}
