//! The key-value engine as all else sees it: ordered rows, consistent reads, and commits that hold or change nothing.
//!
//! There are no interactive transactions. Who changes rows reads them, says in the batch what must not have changed since
//! ([`Check`]), and tries again when it did ([`Commit::Conflict`]). Counters are added to, so that they conflict with nobody.
//!
//! Invariants: a commit happens whole and durably (as the engine was opened) or not at all; commits have one order; a read
//! sees all commits answered before it; one call of a [`View`] sees one state. Every call may block.

use std::fmt;

use bytes::Bytes;
use cairn_store::SyncPolicy;

use crate::{Error, KeyRange, Result, show_key};

/// Bytes of a key, at most.
pub const KEY_LEN_MAX: usize = 4 << 10;

/// Bytes of a value, at most: what is longer is cut in pages by its table, or belongs in a pack.
pub const VALUE_LEN_MAX: usize = 64 << 10;

/// Bytes of all keys and values of a batch, checks included, at most.
pub const BATCH_LEN_MAX: usize = 4 << 20;

/// Rows that one scan answers, at most.
pub const SCAN_ROWS_MAX: usize = 10_000;

/// Bytes of keys and values after which a scan answers what it has.
pub const SCAN_LEN: usize = 4 << 20;

/// Number of a commit, from 1 on. A row has that of the commit that wrote it last.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Version(pub(crate) u64);

impl Version {
    /// As a number, for messages and for what is kept by value.
    pub fn as_u64(self) -> u64 {
        self.0
    }
}

impl fmt::Display for Version {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// A row as it was read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Row {
    /// The commit that wrote it.
    pub version: Version,
    /// What it holds, 0 to [`VALUE_LEN_MAX`] bytes.
    pub value: Bytes,
}

impl Row {
    /// The value of a counter, a row that [`Batch::add`] writes. `None`: it holds something else.
    pub fn counter(&self) -> Option<i64> {
        self.value.as_ref().try_into().ok().map(i64::from_be_bytes)
    }
}

/// From which end a range is scanned.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Order {
    /// By ascending keys.
    Forward,
    /// By descending keys.
    Reverse,
}

/// What a scan found.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Page {
    /// Keys and rows in the order asked for.
    pub rows: Vec<(Bytes, Row)>,
    /// Where to go on, in the same order; `None`: there is nothing more.
    pub rest: Option<KeyRange>,
}

/// Rows to be read.
pub trait View {
    /// The rows of these keys; one answer per key, in order, all of one moment.
    ///
    /// Errors: [`Error::Damaged`], [`Error::Unavailable`].
    fn get_many(&self, keys: &[&[u8]]) -> Result<Vec<Option<Row>>>;

    /// The first rows of a range, all of one moment.
    ///
    /// - `limit`: rows wanted, at most [`SCAN_ROWS_MAX`]; a page also ends at [`SCAN_LEN`] bytes, but holds at least one row
    ///   if there is one and `limit` is not 0.
    /// - Errors: as [`View::get_many`].
    fn scan(&self, range: &KeyRange, order: Order, limit: usize) -> Result<Page>;
}

/// Conveniences.
pub trait ViewExt: View {
    /// [`View::get_many`] of one.
    fn get(&self, key: impl AsRef<[u8]>) -> Result<Option<Row>> {
        Ok(self.get_many(&[key.as_ref()])?.pop().flatten())
    }

    /// Visits all rows of a range, ascending, until an error, which is returned. Of one moment only on a snapshot.
    fn for_each<E: From<Error>>(
        &self,
        range: KeyRange,
        mut visit: impl FnMut(Bytes, Row) -> std::result::Result<(), E>,
    ) -> std::result::Result<(), E> {
        let mut rest = Some(range);
        while let Some(range) = rest {
            let page = self.scan(&range, Order::Forward, SCAN_ROWS_MAX)?;
            page.rows.into_iter().try_for_each(|(key, row)| visit(key, row))?;
            rest = page.rest;
        }
        Ok(())
    }
}

impl<V: View + ?Sized> ViewExt for V {}

/// A key-value engine that is ready for use.
pub trait Kv: View + Send + Sync + fmt::Debug {
    /// Makes the writes of a batch if all of its checks hold. When this returns [`Commit::Done`] they are durable, unless the batch
    /// says otherwise ([`Batch::relax`]).
    ///
    /// Errors: [`Error::TooLarge`], [`Error::WrittenTwice`], [`Error::NotACounter`], [`Error::Overflow`]: nothing was done.
    /// [`Error::Unavailable`]: it is not known whether it was; [`Error::Broken`] until the engine is opened again. [`Error::Full`]: it
    /// may happen yet, and others can be tried.
    fn commit(&self, batch: Batch) -> Result<Commit>;

    /// All rows as they are now, whatever is committed later. Held for long it keeps old rows on the disk.
    fn snapshot(&self) -> Result<Box<dyn View + '_>>;
}

/// What became of a batch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[must_use]
pub enum Commit {
    /// It happened: the version of the rows it wrote.
    Done(Version),
    /// It did not, because a check does not hold.
    Conflict(Conflict),
}

/// The first check of a batch that does not hold.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Conflict {
    /// Which one, counted from 0.
    pub check: usize,
    /// The version that the row has; `None`: there is no row.
    pub found: Option<Version>,
}

/// What has to be true of a row for a batch to happen.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Check {
    /// It is there as that commit left it.
    Version(Version),
    /// It is not there.
    Absent,
}

impl Check {
    /// That a row is still what was read.
    pub fn unchanged(row: Option<&Row>) -> Self {
        row.map_or(Self::Absent, |row| Self::Version(row.version))
    }

    pub(crate) fn holds(self, found: Option<Version>) -> bool {
        match self {
            Self::Version(version) => found == Some(version),
            Self::Absent => found.is_none(),
        }
    }
}

/// What is to happen to a row.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Write {
    Put(Bytes),
    Delete,
    Add(i64),
    /// The key is that of a counter. It goes up by one, and a row gets this value under `start` and the counter's number.
    Append {
        start: Bytes,
        value: Bytes,
    },
}

/// Checks and writes that go together. Each key is written at most once.
#[derive(Clone, Debug, Default)]
pub struct Batch {
    pub(crate) checks: Vec<(Bytes, Check)>,
    pub(crate) writes: Vec<(Bytes, Write)>,
    pub(crate) sync: SyncPolicy,
}

impl Batch {
    /// A batch that does nothing yet.
    pub fn new() -> Self {
        Self::default()
    }

    /// Makes the batch depend on a row. The row need not be one that it writes.
    pub fn check(&mut self, key: impl AsRef<[u8]>, check: Check) -> &mut Self {
        self.checks.push((Bytes::copy_from_slice(key.as_ref()), check));
        self
    }

    /// Writes a row, whether it is there or not.
    pub fn put(&mut self, key: impl AsRef<[u8]>, value: impl Into<Bytes>) -> &mut Self {
        self.write(key, Write::Put(value.into()))
    }

    /// Takes a row away; that it is not there is no error.
    pub fn delete(&mut self, key: impl AsRef<[u8]>) -> &mut Self {
        self.write(key, Write::Delete)
    }

    /// Adds to a counter, which is 0 while its row is not there.
    pub fn add(&mut self, key: impl AsRef<[u8]>, difference: i64) -> &mut Self {
        self.write(key, Write::Add(difference))
    }

    /// Counts a counter up by one and writes a new row whose key is `start` and the counter as it is then (`u64`, big-endian): rows
    /// numbered in the order of their commits, without a gap, from 1 on, for which commits do not conflict.
    pub fn append(&mut self, counter: impl AsRef<[u8]>, start: impl AsRef<[u8]>, value: impl Into<Bytes>) -> &mut Self {
        let start = Bytes::copy_from_slice(start.as_ref());
        let value = value.into();
        self.write(counter, Write::Append { start, value })
    }

    /// Lets it be acknowledged before it is durable. It is visible then, and outlives the process; a power cut may take it, and then
    /// takes all that was committed after it, too.
    pub fn relax(&mut self, sync: SyncPolicy) -> &mut Self {
        self.sync = sync;
        self
    }

    fn write(&mut self, key: impl AsRef<[u8]>, write: Write) -> &mut Self {
        self.writes.push((Bytes::copy_from_slice(key.as_ref()), write));
        self
    }

    /// Whether it writes nothing.
    pub fn is_empty(&self) -> bool {
        self.writes.is_empty()
    }

    /// Bytes of its keys and values; [`BATCH_LEN_MAX`] is the most.
    pub fn byte_len(&self) -> usize {
        let checks: usize = self.checks.iter().map(|(key, _)| key.len()).sum();
        let writes: usize = self.writes.iter().map(|(key, write)| key.len() + write.len()).sum();
        checks + writes
    }

    /// Holds the batch to the limits. Every engine asks before it does anything.
    pub(crate) fn validate(&self) -> Result<()> {
        within("batch", self.byte_len(), BATCH_LEN_MAX)?;
        let keys = self.checks.iter().map(|(key, _)| key);
        for key in keys.chain(self.writes.iter().map(|(key, _)| key)) {
            within("key", key.len(), KEY_LEN_MAX)?;
        }
        for (_, write) in &self.writes {
            if let Write::Append { start, .. } = write {
                within("key", start.len() + size_of::<u64>(), KEY_LEN_MAX)?;
            }
            within("value", write.value_len(), VALUE_LEN_MAX)?;
        }
        let mut written: Vec<&Bytes> = self.writes.iter().map(|(key, _)| key).collect();
        written.sort_unstable();
        match written.windows(2).find(|pair| pair[0] == pair[1]) {
            Some(pair) => Err(Error::WrittenTwice { key: show_key(pair[0]) }),
            None => Ok(()),
        }
    }
}

impl Write {
    fn len(&self) -> usize {
        match self {
            Self::Append { start, .. } => start.len() + 2 * size_of::<u64>() + self.value_len(),
            _ => self.value_len(),
        }
    }

    fn value_len(&self) -> usize {
        match self {
            Self::Put(value) | Self::Append { value, .. } => value.len(),
            Self::Delete => 0,
            Self::Add(_) => size_of::<i64>(),
        }
    }

    /// Whether what it does depends on what the row holds.
    pub(crate) fn reads(&self) -> bool {
        matches!(self, Self::Add(_) | Self::Append { .. })
    }

    /// The row that is written besides, once the counter holds this.
    pub(crate) fn appended(&self, counter: Option<&Bytes>) -> Option<(Bytes, Bytes)> {
        match self {
            Self::Append { start, value } => {
                let number = counter.map(AsRef::as_ref).unwrap_or_default();
                Some((Bytes::from([start, number].concat()), value.clone()))
            }
            _ => None,
        }
    }

    /// What the row holds afterwards; `None`: it is gone.
    ///
    /// - `now`: what it holds, needed where [`Write::reads`] says so.
    pub(crate) fn resolve(&self, key: &[u8], now: Option<&Bytes>) -> Result<Option<Bytes>> {
        let difference = match self {
            Self::Put(value) => return Ok(Some(value.clone())),
            Self::Delete => return Ok(None),
            Self::Add(difference) => difference,
            Self::Append { .. } => &1,
        };
        let counter = match now {
            None => 0,
            Some(value) => value
                .as_ref()
                .try_into()
                .map(i64::from_be_bytes)
                .map_err(|_| Error::NotACounter {
                    key: show_key(key),
                    len: value.len(),
                })?,
        };
        let sum = counter
            .checked_add(*difference)
            .ok_or_else(|| Error::Overflow { key: show_key(key) })?;
        Ok(Some(Bytes::copy_from_slice(&sum.to_be_bytes())))
    }
}

fn within(what: &'static str, len: usize, max: usize) -> Result<()> {
    if len > max {
        return Err(Error::TooLarge { what, len, max });
    }
    Ok(())
}
