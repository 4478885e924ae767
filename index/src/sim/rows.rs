//! Rows and places as RocksDB without its own log keeps them: after a crash, what any prefix of the changes since the last
//! `persist` makes; or lost altogether.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use cairn_store::{Change, ChunkKey, ChunkPlace, Locations, LogPosition, Restore, StoreName, Watermark};

use super::process::{Outcome, ensure};
use crate::database::{Engine, Frozen};
use crate::kv::{Order, Page, Row, Version, View};
use crate::memory::Rows;
use crate::record::CommitRecord;
use crate::sealed::{decode_rows, decode_words};
use crate::{Key, KeyRange, Result, Table, Tenant};

/// Pages of chunks belong to a manifest that is named or pending, and nothing is left of others.
///
/// - `rows`: of a store that has just been collected; none of its manifests is named.
pub(super) fn check_pages(rows: &Rows) -> Outcome {
    let tenant = Tenant::default();
    for table in [Table::ManifestPages, Table::ManifestsPending] {
        let range = Key::of(&tenant, table).range();
        let left = rows
            .scan(&range, Order::Forward, usize::MAX)
            .map_err(|error| format!("{error:?}"))?;
        ensure!(
            left.rows.is_empty(),
            "{} rows are left in {table:?} of manifests that nothing names",
            left.rows.len()
        );
    }
    Ok(())
}

/// What is made from the log.
#[derive(Clone, Debug, Default)]
pub(super) struct Made {
    pub(super) rows: Rows,
    pub(super) places: BTreeMap<ChunkKey, ChunkPlace>,
    watermark: Watermark,
    /// What was applied last was not durable in the log.
    ahead: bool,
}

#[derive(Clone, Debug)]
enum Event {
    Changes(Vec<Change>, LogPosition, Ahead),
    Restore(Restore),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Ahead {
    Yes,
    No,
}

impl Made {
    fn happen(&mut self, event: &Event) {
        match event {
            Event::Changes(changes, position, ahead) => {
                changes.iter().for_each(|change| self.change(change));
                self.watermark.position = *position;
                self.ahead = *ahead == Ahead::Yes;
            }
            Event::Restore(Restore::Begin) => (self.rows, self.watermark.commit) = (Rows::default(), 0),
            Event::Restore(Restore::Rows(piece)) => {
                let rows = Arc::make_mut(&mut self.rows.rows);
                rows.extend(decode_rows(piece).expect("what we wrote"));
            }
            Event::Restore(Restore::End { commit, words }) => {
                let (version, count) = decode_words(words).expect("what we wrote");
                assert_eq!(count, self.rows.rows.len() as u64, "rows of the snapshot");
                (self.rows.version, self.watermark.commit) = (version, *commit);
            }
        }
    }

    fn change(&mut self, change: &Change) {
        match change {
            Change::Put(key, place) => _ = self.places.insert(*key, *place),
            Change::Remove(key) => _ = self.places.remove(key),
            Change::Commit(number, record) if *number > self.watermark.commit => {
                self.watermark.commit = *number;
                self.rows.apply(&CommitRecord::decode(record).expect("what we wrote"));
            }
            Change::Commit(..) => {}
        }
    }
}

/// The engine of the simulator, and the locations of its packs.
#[derive(Debug, Default)]
pub(super) struct SimRows(Mutex<State>);

#[derive(Debug, Default)]
struct State {
    durable: Made,
    later: Vec<Event>,
    now: Made,
    /// It was found out that the log has lost what is here.
    refused: bool,
}

impl State {
    fn happen(&mut self, event: Event) {
        self.now.happen(&event);
        self.later.push(event);
    }
}

impl SimRows {
    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Falls back to what the disk may have.
    pub(super) fn lose_process(&self, random: &mut fastrand::Rng) {
        let mut state = self.state();
        let State {
            durable, later, now, ..
        } = &mut *state;
        let arriving = random.usize(..=later.len());
        later.drain(..).take(arriving).for_each(|event| durable.happen(&event));
        now.clone_from(durable);
    }

    /// Whether they were found to be ahead of the log, and are to be made again.
    pub(super) fn is_refused(&self) -> bool {
        self.state().refused
    }

    pub(super) fn table(&self) -> Made {
        self.state().now.clone()
    }
}

impl View for SimRows {
    fn get_many(&self, keys: &[&[u8]]) -> Result<Vec<Option<Row>>> {
        self.state().now.rows.get_many(keys)
    }

    fn scan(&self, range: &KeyRange, order: Order, limit: usize) -> Result<Page> {
        self.state().now.rows.scan(range, order, limit)
    }
}

impl Engine for SimRows {
    fn version(&self) -> Version {
        self.state().now.rows.version
    }

    fn apply(&self, _record: &CommitRecord) -> Result<()> {
        unreachable!("the log applies what is committed")
    }

    fn snapshot(&self) -> Result<Box<dyn View + '_>> {
        Ok(Box::new(self.table().rows))
    }

    fn freeze(&self) -> Result<Option<Frozen<'_>>> {
        let Made { rows, watermark, .. } = self.table();
        Ok(Some(Frozen {
            version: rows.version,
            rows: Box::new(rows),
            watermark,
        }))
    }
}

impl Locations for SimRows {
    fn get_many(&self, keys: &[ChunkKey]) -> cairn_store::Result<Vec<Option<ChunkPlace>>> {
        let state = self.state();
        Ok(keys.iter().map(|key| state.now.places.get(key).copied()).collect())
    }

    fn apply(&self, changes: &[Change], watermark: LogPosition) -> cairn_store::Result<()> {
        self.state()
            .happen(Event::Changes(changes.to_vec(), watermark, Ahead::No));
        Ok(())
    }

    fn apply_ahead(&self, changes: &[Change], watermark: LogPosition) -> cairn_store::Result<()> {
        self.state()
            .happen(Event::Changes(changes.to_vec(), watermark, Ahead::Yes));
        Ok(())
    }

    fn fell_back(&self) -> cairn_store::Result<()> {
        let mut state = self.state();
        if !state.now.ahead {
            return Ok(());
        }
        state.refused = true;
        Err(cairn_store::Error::Refused {
            store: StoreName::new("sim"),
            action: "open the index",
            source: "it is ahead of the log".into(),
        })
    }

    fn watermark(&self) -> cairn_store::Result<Watermark> {
        Ok(self.state().now.watermark)
    }

    fn persist(&self) -> cairn_store::Result<()> {
        let mut state = self.state();
        state.durable = state.now.clone();
        state.later.clear();
        Ok(())
    }

    fn keeps_rows(&self) -> bool {
        true
    }

    fn restore(&self, step: Restore) -> cairn_store::Result<()> {
        self.state().happen(Event::Restore(step));
        Ok(())
    }

    fn for_each(
        &self,
        visit: &mut dyn FnMut(ChunkKey, ChunkPlace) -> cairn_store::Result<()>,
    ) -> cairn_store::Result<()> {
        let places = self.table().places;
        places.into_iter().try_for_each(|(key, place)| visit(key, place))
    }
}
