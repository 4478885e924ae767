//! Commits over an engine of this process: one lane, in which whoever comes first commits for all who wait (group commit).
//!
//! The leader takes what has queued, works out each batch on top of the ones before it, writes one record of those that hold
//! to the log, and has it applied; only then is anyone answered. So a commit costs a share of a sync, checks are exact, and the
//! order of the log is that of the versions. When the log or the engine fails half-way, nobody knows what is durable, and the
//! lane takes nothing more until the index is opened again, which replays the log.
//!
//! Not here: what durable means (`log` or the engine), engines that check commits themselves (PostgreSQL, later).

use std::collections::{BTreeMap, HashMap};
use std::fmt;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};

use bytes::Bytes;
use cairn_store::PackEngine;

use crate::error::BoxError;
use crate::kv::{BATCH_LEN_MAX, Batch, Commit, Conflict, Kv, Order, Page, Row, Version, View, Write};
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
}

/// Where commits become durable before they count.
pub trait CommitLog: Send + Sync + fmt::Debug {
    /// Takes an encoded [`CommitRecord`]. When this returns it is durable and the engine has applied it.
    ///
    /// Errors: the record may or may not be applied when the log is read again.
    fn commit(&self, record: Bytes) -> std::result::Result<(), BoxError>;
}

/// The packs are the log: the engine is the locations of the pack store.
impl CommitLog for PackEngine {
    fn commit(&self, record: Bytes) -> std::result::Result<(), BoxError> {
        Ok(Self::commit(self, record)?)
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
    fn commit_group(&self, group: &Group) -> Result<Vec<Result<Commit>>> {
        let plan = Plan::of(self.engine.as_ref(), group)?;
        if !plan.record.commits.is_empty() {
            match &self.log {
                None => self.engine.apply(&plan.record)?,
                Some(log) => log.commit(plan.record.encode()).map_err(|source| Error::Unavailable {
                    place: "the log".to_owned(),
                    action: "commit",
                    source,
                })?,
            }
            if self.engine.version() != plan.record.last() {
                return Err(Error::Broken);
            }
        }
        Ok(plan.answers)
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
            drop(lane);
            let leading = Leading { database: self };
            let answers = self.commit_group(&group);
            lane = self.lane();
            match answers {
                Ok(answers) => lane
                    .answers
                    .extend(group.iter().map(|(ticket, _)| *ticket).zip(answers)),
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
                let found = rows.get(key).map(|row| row.version);
                (!expected.holds(found)).then_some(Conflict { check, found })
            });
            if let Some(conflict) = broken {
                return Ok(Commit::Conflict(conflict));
            }
            if batch.is_empty() {
                return Ok(Commit::Done(Version(record.first.0 + record.commits.len() as u64 - 1)));
            }
            let resolve = |(key, write): &(Bytes, Write)| {
                let now = rows.get(key).map(|row| &row.value);
                Ok((key.clone(), write.resolve(key, now)?))
            };
            let changes: Vec<Change> = batch.writes.iter().map(resolve).collect::<Result<_>>()?;
            let version = Version(record.first.0 + record.commits.len() as u64);
            for (key, value) in &changes {
                match value.clone() {
                    Some(value) => rows.insert(key.clone(), Row { version, value }),
                    None => rows.remove(key),
                };
            }
            record.commits.push(changes);
            Ok(Commit::Done(version))
        };
        let answers = group.iter().map(answer).collect();
        Ok(Self { answers, record })
    }
}

/// The rows that the group's checks and additions look at.
fn read_what_matters(engine: &impl Engine, group: &Group) -> Result<BTreeMap<Bytes, Row>> {
    let mut keys: Vec<&Bytes> = Vec::new();
    for (_, batch) in group {
        keys.extend(batch.checks.iter().map(|(key, _)| key));
        let added = batch.writes.iter().filter(|(_, write)| matches!(write, Write::Add(_)));
        keys.extend(added.map(|(key, _)| key));
    }
    keys.sort_unstable();
    keys.dedup();
    let wanted: Vec<&[u8]> = keys.iter().map(|key| key.as_ref()).collect();
    let rows = engine.get_many(&wanted)?;
    let found = keys
        .into_iter()
        .zip(rows)
        .filter_map(|(key, row)| Some((key.clone(), row?)));
    Ok(found.collect())
}
