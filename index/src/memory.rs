//! Rows in memory: the engine of tests and of the simulator, and of a server that keeps nothing.
//!
//! One sorted map behind a lock; a snapshot shares it, and the next commit while one is held copies it. Keep it small.

use std::collections::BTreeMap;
use std::sync::{Arc, PoisonError, RwLock, RwLockReadGuard};

use bytes::Bytes;

use crate::database::Engine;
use crate::kv::{Order, Page, Row, SCAN_LEN, SCAN_ROWS_MAX, Version, View};
use crate::record::CommitRecord;
use crate::{KeyRange, Result};

/// An engine that forgets everything with the process.
#[derive(Debug, Default)]
pub struct MemoryEngine {
    state: RwLock<Rows>,
}

/// What commits made, up to one of them.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Rows {
    pub(crate) rows: Arc<BTreeMap<Bytes, Row>>,
    pub(crate) version: Version,
}

impl Rows {
    /// Applies a record, unless it was applied before.
    pub(crate) fn apply(&mut self, record: &CommitRecord) {
        if record.last() <= self.version {
            return;
        }
        let rows = Arc::make_mut(&mut self.rows);
        for (version, (key, value)) in record.changes() {
            match value.clone() {
                Some(value) => rows.insert(key.clone(), Row { version, value }),
                None => rows.remove(key),
            };
        }
        self.version = record.last();
    }
}

impl MemoryEngine {
    /// An empty one.
    pub fn new() -> Self {
        Self::default()
    }

    fn state(&self) -> RwLockReadGuard<'_, Rows> {
        self.state.read().unwrap_or_else(PoisonError::into_inner)
    }
}

impl View for MemoryEngine {
    fn get_many(&self, keys: &[&[u8]]) -> Result<Vec<Option<Row>>> {
        self.state().get_many(keys)
    }

    fn scan(&self, range: &KeyRange, order: Order, limit: usize) -> Result<Page> {
        self.state().scan(range, order, limit)
    }
}

impl Engine for MemoryEngine {
    fn version(&self) -> Version {
        self.state().version
    }

    fn apply(&self, record: &CommitRecord) -> Result<()> {
        let mut state = self.state.write().unwrap_or_else(PoisonError::into_inner);
        state.apply(record);
        Ok(())
    }

    fn snapshot(&self) -> Result<Box<dyn View + '_>> {
        Ok(Box::new(self.state().clone()))
    }
}

impl View for Rows {
    fn get_many(&self, keys: &[&[u8]]) -> Result<Vec<Option<Row>>> {
        Ok(keys.iter().map(|key| self.rows.get(*key).cloned()).collect())
    }

    fn scan(&self, range: &KeyRange, order: Order, limit: usize) -> Result<Page> {
        if range.is_empty() {
            return Ok(Page::default());
        }
        let rows = self.rows.range::<[u8], _>(range.bounds());
        Ok(match order {
            Order::Forward => page(rows, range, order, limit),
            Order::Reverse => page(rows.rev(), range, order, limit),
        })
    }
}

/// As many rows as a page takes.
fn page<'a>(rows: impl Iterator<Item = (&'a Bytes, &'a Row)>, range: &KeyRange, order: Order, limit: usize) -> Page {
    let mut page = Page::default();
    let mut len = 0;
    for (key, row) in rows {
        if page.rows.len() >= limit.min(SCAN_ROWS_MAX) || len >= SCAN_LEN {
            page.rest = Some(rest(range, order, page.rows.last().map(|(key, _)| key.as_ref())));
            break;
        }
        len += key.len() + row.value.len();
        page.rows.push((key.clone(), row.clone()));
    }
    page
}

/// What is left of a range behind the last key that was answered, in the order of the scan.
pub(crate) fn rest(range: &KeyRange, order: Order, last: Option<&[u8]>) -> KeyRange {
    match (last, order) {
        (None, _) => range.clone(),
        (Some(last), Order::Forward) => range.clone().after(last),
        (Some(last), Order::Reverse) => range.clone().before(last),
    }
}
