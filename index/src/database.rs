//! Commits over an engine of this process: one lane, in which whoever comes first commits for all who wait (group commit).
//!
//! The leader takes what has queued, works out each batch on top of the ones before it, writes one record of those that hold
//! to the log, and has it applied; only then is anyone answered. So a commit costs a share of a sync, checks are exact, and the
//! order of the log is that of the versions. When the log or the engine fails half-way, nobody knows what is durable, and the
//! lane takes nothing more until the index is opened again, which replays the log. A full disk is another thing: the log keeps what
//! it had no room for, and the lane goes on once that has been written.
//!
//! Not here: what durable means (`log` or the engine), engines that check commits themselves (PostgreSQL, later).

use std::collections::{BTreeMap, HashMap};
use std::fmt;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};

use bytes::Bytes;
use cairn_store::{PackEngine, SyncPolicy, Watermark};

use crate::error::BoxError;
use crate::kv::{BATCH_LEN_MAX, Batch, Commit, Conflict, Kv, Order, Page, Row, Version, View};
use crate::record::{Change, CommitRecord};
use crate::{Error, KeyRange, Result};

/// Rows on which commits are made by a [`Database`].
pub trait Engine: View + Send + Sync + fmt::Debug {
    /// Version of the last commit that was applied; that of an empty engine is 0.
    fn version(&self) -> Version;

    /// Applies a record, whole or not at all. One that is not newer than [`Engine::version`] was applied before and is passed
    /// over. Reads see it when this returns.
    fn apply(&self, record: &CommitRecord) -> Result<()>;

    /// See [`Kv::snapshot`].
    fn snapshot(&self) -> Result<Box<dyn View + '_>>;

    /// All rows of one moment, with where the log stood then. `None`: the packs are not its log.
    fn freeze(&self) -> Result<Option<Frozen<'_>>> {
        Ok(None)
    }
}

/// All rows of one moment.
pub struct Frozen<'a> {
    /// The rows.
    pub rows: Box<dyn View + 'a>,
    /// How much of the log had been applied.
    pub watermark: Watermark,
    /// The last commit in it.
    pub version: Version,
}

impl fmt::Debug for Frozen<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Frozen")
            .field("watermark", &self.watermark)
            .field("version", &self.version)
            .finish_non_exhaustive()
    }
}

/// Where commits become durable before they count.
pub trait CommitLog: Send + Sync + fmt::Debug {
    /// Takes an encoded [`CommitRecord`]. When this returns it is durable, unless `sync` says otherwise, and the engine has applied it.
    ///
    /// Errors: the record may or may not be applied when the log is read again. For want of room ([`Error::is_full`]): it
    /// waits, and is written with what comes next.
    fn commit(&self, record: Bytes, sync: SyncPolicy) -> std::result::Result<(), BoxError>;

    /// Has what waits written, and applied.
    fn settle(&self) -> std::result::Result<(), BoxError>;
}

/// The packs are the log: the engine is the locations of the pack store.
impl CommitLog for PackEngine {
    fn commit(&self, record: Bytes, sync: SyncPolicy) -> std::result::Result<(), BoxError> {
        Ok(self.commit_as(record, sync)?)
    }

    fn settle(&self) -> std::result::Result<(), BoxError> {
        Ok(self.sync()?)
    }
}

/// Bytes of batches that are committed as one record, unless one batch is longer.
pub const GROUP_LEN: usize = BATCH_LEN_MAX;

/// An engine with its lane.
#[derive(Debug)]
pub struct Database<E> {
    engine: Arc<E>,
    log: Option<Arc<dyn CommitLog>>,
    lane: Mutex<Lane>,
    settled: Condvar,
}

#[derive(Debug, Default)]
struct Lane {
    queue: Vec<(Ticket, Batch)>,
    answers: HashMap<Ticket, Result<Commit>>,
    next: Ticket,
    /// Somebody is committing for all.
    led: bool,
    broken: bool,
    /// The log keeps a record up to this version that it had no room for.
    waiting: Option<Version>,
}

type Ticket = u64;
type Group = Vec<(Ticket, Batch)>;

impl<E: Engine> Database<E> {
    /// Commits go to the engine alone and are as durable as it makes them.
    pub fn new(engine: Arc<E>) -> Self {
        Self {
            engine,
            log: None,
            lane: Mutex::default(),
            settled: Condvar::new(),
        }
    }

    /// Commits go to a log, which has them applied to the engine. Nobody else may commit to that log.
    pub fn logged(engine: Arc<E>, log: Arc<dyn CommitLog>) -> Self {
        Self {
            log: Some(log),
            ..Self::new(engine)
        }
    }

    /// The engine underneath.
    pub fn engine(&self) -> &Arc<E> {
        &self.engine
    }

    fn lane(&self) -> MutexGuard<'_, Lane> {
        self.lane.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Works out a group, makes it durable and visible, and answers everyone in it.
    ///
    /// - `waiting`: see [`Lane`].
    fn commit_group(&self, group: &Group, waiting: &mut Option<Version>) -> Result<Vec<Result<Commit>>> {
        // What waits is older than all that is worked out now.
        if let (Some(last), Some(log)) = (*waiting, &self.log) {
            log.settle().map_err(|source| log_failed("write what waits", source))?;
            *waiting = None;
            self.expect(last)?;
        }
        let plan = Plan::of(self.engine.as_ref(), group)?;
        if !plan.record.commits.is_empty() {
            match &self.log {
                None => self.engine.apply(&plan.record)?,
                Some(log) => {
                    let committed = log.commit(plan.record.encode(), strictest(group));
                    let committed = committed.map_err(|source| log_failed("commit", source));
                    if committed.as_ref().is_err_and(Error::is_full) {
                        *waiting = Some(plan.record.last());
                    }
                    committed?;
                }
            }
            self.expect(plan.record.last())?;
        }
        Ok(plan.answers)
    }

    /// All up to this version, and no more, has been applied.
    fn expect(&self, version: Version) -> Result<()> {
        if self.engine.version() == version {
            Ok(())
        } else {
            Err(Error::Broken)
        }
    }
}

/// When all of a group are durable as they want to be.
fn strictest(group: &Group) -> SyncPolicy {
    let wants = |sync| group.iter().any(|(_, batch)| batch.sync == sync);
    let mut policies = [SyncPolicy::Sync, SyncPolicy::Batch].into_iter();
    policies.find(|sync| wants(*sync)).unwrap_or(SyncPolicy::None)
}

fn log_failed(action: &'static str, source: BoxError) -> Error {
    let error = Error::Unavailable {
        place: "the log".to_owned(),
        action,
        source,
    };
    if error.is_full() {
        Error::Full(Arc::new(error))
    } else {
        error
    }
}

impl<E: Engine> View for Database<E> {
    fn get_many(&self, keys: &[&[u8]]) -> Result<Vec<Option<Row>>> {
        self.engine.get_many(keys)
    }

    fn scan(&self, range: &KeyRange, order: Order, limit: usize) -> Result<Page> {
        self.engine.scan(range, order, limit)
    }
}

impl<E: Engine> Kv for Database<E> {
    fn commit(&self, batch: Batch) -> Result<Commit> {
        batch.validate()?;
        let mut lane = self.lane();
        let ticket = lane.next;
        lane.next += 1;
        lane.queue.push((ticket, batch));
        loop {
            if let Some(answer) = lane.answers.remove(&ticket) {
                return answer;
            }
            if lane.broken {
                return Err(Error::Broken);
            }
            if lane.led {
                lane = self.settled.wait(lane).unwrap_or_else(PoisonError::into_inner);
                continue;
            }
            let group = lane.take_group();
            lane.led = true;
            let mut waiting = lane.waiting;
            drop(lane);
            let leading = Leading { database: self };
            let answers = self.commit_group(&group, &mut waiting);
            lane = self.lane();
            lane.waiting = waiting;
            match answers {
                Ok(answers) => lane
                    .answers
                    .extend(group.iter().map(|(ticket, _)| *ticket).zip(answers)),
                Err(Error::Full(error)) => {
                    let full = group
                        .iter()
                        .map(|(ticket, _)| (*ticket, Err(Error::Full(error.clone()))));
                    lane.answers.extend(full);
                }
                Err(error) => {
                    // The others find the lane broken.
                    lane.broken = true;
                    if group.iter().any(|(queued, _)| *queued == ticket) {
                        lane.answers.insert(ticket, Err(error));
                    }
                }
            }
            drop(lane);
            drop(leading);
            lane = self.lane();
        }
    }

    fn snapshot(&self) -> Result<Box<dyn View + '_>> {
        self.engine.snapshot()
    }
}

impl Lane {
    fn take_group(&mut self) -> Group {
        let mut len = 0;
        let fits = |(_, batch): &&(Ticket, Batch)| {
            len += batch.byte_len();
            len <= GROUP_LEN
        };
        let count = self.queue.iter().take_while(fits).count().max(1);
        self.queue.drain(..count.min(self.queue.len())).collect()
    }
}

/// Gives the lead away when it goes out of scope. A leader that panics leaves the lane broken.
struct Leading<'a, E: Engine> {
    database: &'a Database<E>,
}

impl<E: Engine> Drop for Leading<'_, E> {
    fn drop(&mut self) {
        let mut lane = self.database.lane();
        lane.led = false;
        lane.broken |= std::thread::panicking();
        drop(lane);
        self.database.settled.notify_all();
    }
}

/// What a group comes to.
struct Plan {
    answers: Vec<Result<Commit>>,
    record: CommitRecord,
}

impl Plan {
    fn of(engine: &impl Engine, group: &Group) -> Result<Self> {
        let mut rows = read_what_matters(engine, group)?;
        let mut record = CommitRecord {
            first: Version(engine.version().0 + 1),
            commits: Vec::new(),
        };
        let answer = |(_, batch): &(Ticket, Batch)| {
            let broken = batch.checks.iter().enumerate().find_map(|(check, (key, expected))| {
                let found = row(&rows, key).map(|row| row.version);
                (!expected.holds(found)).then_some(Conflict { check, found })
            });
            if let Some(conflict) = broken {
                return Ok(Commit::Conflict(conflict));
            }
            if batch.is_empty() {
                return Ok(Commit::Done(Version(record.first.0 + record.commits.len() as u64 - 1)));
            }
            let mut changes: Vec<Change> = Vec::with_capacity(batch.writes.len());
            for (key, write) in &batch.writes {
                let now = row(&rows, key).map(|row| &row.value);
                let value = write.resolve(key, now)?;
                let appended = write.appended(value.as_ref());
                changes.push((key.clone(), value));
                changes.extend(appended.map(|(key, value)| (key, Some(value))));
            }
            let version = Version(record.first.0 + record.commits.len() as u64);
            for (key, value) in &changes {
                // Most are looked at by nobody.
                if let Some(row) = rows.get_mut(key) {
                    *row = value.clone().map(|value| Row { version, value });
                }
            }
            record.commits.push(changes);
            Ok(Commit::Done(version))
        };
        let answers = group.iter().map(answer).collect();
        Ok(Self { answers, record })
    }
}

fn row<'a>(rows: &'a BTreeMap<Bytes, Option<Row>>, key: &Bytes) -> Option<&'a Row> {
    rows.get(key)?.as_ref()
}

/// The rows that the group's checks and additions look at, `None` where there is none.
fn read_what_matters(engine: &impl Engine, group: &Group) -> Result<BTreeMap<Bytes, Option<Row>>> {
    let mut keys: Vec<&Bytes> = Vec::new();
    for (_, batch) in group {
        keys.extend(batch.checks.iter().map(|(key, _)| key));
        let added = batch.writes.iter().filter(|(_, write)| write.reads());
        keys.extend(added.map(|(key, _)| key));
    }
    keys.sort_unstable();
    keys.dedup();
    let wanted: Vec<&[u8]> = keys.iter().map(|key| key.as_ref()).collect();
    let rows = engine.get_many(&wanted)?;
    Ok(keys.into_iter().cloned().zip(rows).collect())
}
