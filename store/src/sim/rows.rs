//! Locations of the simulated store, in two kinds: in memory, gone with the process; and kept, as RocksDB without its own log
//! keeps them: after a crash, what any prefix of the changes since the last `persist` makes.

use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

use bytes::Bytes;

use crate::pack::{Change, ChunkKey, ChunkPlace, Locations, LogPosition, Restore, Watermark};
use crate::{Error, Result, StoreName};

/// What is made from the log.
#[derive(Clone, Debug, Default)]
struct Table {
    places: BTreeMap<ChunkKey, ChunkPlace>,
    watermark: Watermark,
    /// Batches of the index, as they were applied.
    commits: Vec<(u64, Bytes)>,
    /// What was applied last was not durable in the log.
    ahead: bool,
}

impl Table {
    fn apply(&mut self, changes: &[Change], position: LogPosition) {
        for change in changes {
            match change {
                Change::Put(key, place) => {
                    self.places.insert(*key, *place);
                }
                Change::Remove(key) => {
                    self.places.remove(key);
                }
                Change::Commit(number, batch) => {
                    if *number > self.watermark.commit {
                        self.watermark.commit = *number;
                        self.commits.push((*number, batch.clone()));
                    }
                }
            }
        }
        self.watermark.position = position;
    }

    fn restore(&mut self, step: &Restore) {
        match step {
            Restore::Begin => {
                self.commits.clear();
                self.watermark.commit = 0;
            }
            Restore::Rows(rows) => {
                let mut rest = &rows[..];
                while let Some((head, behind)) = rest.split_first_chunk::<12>() {
                    let number = u64::from_le_bytes(head[..8].try_into().expect("eight bytes"));
                    let len = u32::from_le_bytes(head[8..].try_into().expect("four bytes")) as usize;
                    self.commits.push((number, Bytes::copy_from_slice(&behind[..len])));
                    rest = &behind[len..];
                }
            }
            Restore::End { commit, .. } => self.watermark.commit = *commit,
        }
    }

    fn happen(&mut self, event: &Event) {
        match event {
            Event::Changes(changes, position, ahead) => {
                self.apply(changes, *position);
                self.ahead = *ahead;
            }
            Event::Restore(step) => self.restore(step),
        }
    }
}

/// Batches as a piece of a snapshot.
pub(super) fn encode_commits(commits: &[(u64, Bytes)]) -> Vec<u8> {
    let mut piece = Vec::new();
    for (number, batch) in commits {
        piece.extend_from_slice(&number.to_le_bytes());
        piece.extend_from_slice(&(batch.len() as u32).to_le_bytes());
        piece.extend_from_slice(batch);
    }
    piece
}

#[derive(Clone, Debug)]
enum Event {
    Changes(Vec<Change>, LogPosition, bool),
    Restore(Restore),
}

/// Locations and what a crash leaves of them.
#[derive(Debug)]
pub(super) struct Rows {
    kept: bool,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    durable: Table,
    later: Vec<Event>,
    now: Table,
    /// Calls of `apply` until one fails.
    fail_in: Option<u32>,
    faults: u64,
    /// The log has lost what is here.
    fell_back: bool,
}

impl Rows {
    pub(super) fn new(kept: bool) -> Self {
        Self {
            kept,
            state: Mutex::default(),
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Falls back to what the disk may have.
    pub(super) fn lose_process(&self, random: &mut fastrand::Rng) {
        let mut state = self.state();
        let State {
            durable, later, now, ..
        } = &mut *state;
        let arriving = random.usize(..=later.len());
        for event in later.drain(..).take(arriving) {
            durable.happen(&event);
        }
        if !self.kept {
            *durable = Table::default();
        }
        now.clone_from(durable);
        state.fail_in = None;
    }

    /// Whether the log has lost what is here, so that these are to be made anew.
    pub(super) fn has_fallen_back(&self) -> bool {
        self.state().fell_back
    }

    /// After so many calls, one `apply` fails.
    pub(super) fn fail_in(&self, calls: u32) {
        self.state().fail_in = Some(calls);
    }

    /// No failures that were asked for and have not come.
    pub(super) fn calm(&self) {
        self.state().fail_in = None;
    }

    pub(super) fn faults(&self) -> u64 {
        self.state().faults
    }

    /// Batches of the index that have been applied, in the order in which they were.
    pub(super) fn commits(&self) -> Vec<(u64, Bytes)> {
        self.state().now.commits.clone()
    }

    /// Batches of one moment, and how much of the log had been applied.
    pub(super) fn frozen(&self) -> (Watermark, Vec<(u64, Bytes)>) {
        let state = self.state();
        (state.now.watermark, state.now.commits.clone())
    }

    pub(super) fn places(&self) -> BTreeMap<ChunkKey, ChunkPlace> {
        self.state().now.places.clone()
    }
}

impl Rows {
    fn take(&self, changes: &[Change], watermark: LogPosition, ahead: bool) -> Result<()> {
        let mut state = self.state();
        match &mut state.fail_in {
            Some(0) => {
                state.fail_in = None;
                state.faults += 1;
                return Err(Error::Unavailable {
                    store: StoreName::new("rows"),
                    action: "apply",
                    source: "as the simulation wants".into(),
                });
            }
            Some(left) => *left -= 1,
            None => {}
        }
        state.now.apply(changes, watermark);
        state.now.ahead = ahead;
        if self.kept {
            state.later.push(Event::Changes(changes.to_vec(), watermark, ahead));
        }
        Ok(())
    }
}

impl Locations for Rows {
    fn get_many(&self, keys: &[ChunkKey]) -> Result<Vec<Option<ChunkPlace>>> {
        let state = self.state();
        Ok(keys.iter().map(|key| state.now.places.get(key).copied()).collect())
    }

    fn apply(&self, changes: &[Change], watermark: LogPosition) -> Result<()> {
        self.take(changes, watermark, false)
    }

    fn apply_ahead(&self, changes: &[Change], watermark: LogPosition) -> Result<()> {
        self.take(changes, watermark, true)
    }

    fn fell_back(&self) -> Result<()> {
        let mut state = self.state();
        if !state.now.ahead {
            return Ok(());
        }
        state.fell_back = true;
        Err(Error::Unavailable {
            store: StoreName::new("rows"),
            action: "open",
            source: "the log has lost what is here".into(),
        })
    }

    fn watermark(&self) -> Result<Watermark> {
        Ok(if self.kept {
            self.state().now.watermark
        } else {
            Watermark::default()
        })
    }

    fn persist(&self) -> Result<()> {
        let mut state = self.state();
        if self.kept {
            let State {
                durable, later, now, ..
            } = &mut *state;
            durable.clone_from(now);
            later.clear();
        }
        Ok(())
    }

    fn keeps_rows(&self) -> bool {
        true
    }

    fn restore(&self, step: Restore) -> Result<()> {
        let mut state = self.state();
        state.now.restore(&step);
        if self.kept {
            state.later.push(Event::Restore(step));
        }
        Ok(())
    }

    fn for_each(&self, visit: &mut dyn FnMut(ChunkKey, ChunkPlace) -> Result<()>) -> Result<()> {
        self.places().into_iter().try_for_each(|(key, place)| visit(key, place))
    }
}
