//! Listings: objects, versions and uploads by key, page by page, common prefixes in one entry each.
//!
//! A page costs one seek, one more for each common prefix in it, and the rows it answers: keys below a common prefix are passed
//! over by seeking behind it. Places to go on from are behind an entry that was answered, so that a prefix is never answered twice.

use std::collections::VecDeque;

use bytes::Bytes;

use super::bucket::Bucket;
use super::ids::{VersionId, VersionOrder};
use super::name::ObjectKey;
use super::objects::Objects;
use super::rows;
use super::version::ObjectVersion;
use crate::kv::{Order, Row, View};
use crate::{Error, Key, KeyRange, KeyReader, Result, Table};

/// Rows that are read at once, at least and at most.
const ROWS_MIN: usize = 16;
const ROWS_MAX: usize = 1024;

/// Where a listing begins.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum ListStart {
    /// At its first key.
    #[default]
    Beginning,
    /// Behind this key, which need not be there.
    After(String),
    /// Behind all keys that begin so.
    AfterPrefix(String),
}

impl ListStart {
    /// As a text of hexadecimal digits, for those who go on later. [`ListStart::Beginning`] has none.
    pub fn to_token(&self) -> Option<String> {
        let (kind, text) = match self {
            Self::Beginning => return None,
            Self::After(key) => ('a', key),
            Self::AfterPrefix(prefix) => ('b', prefix),
        };
        let digits: String = text.bytes().map(|byte| format!("{byte:02x}")).collect();
        Some(format!("{kind}{digits}"))
    }

    /// Reads [`ListStart::to_token`].
    ///
    /// Errors: [`Error::BadPlace`].
    pub fn from_token(token: &str) -> Result<Self> {
        let bad = || Error::BadPlace { what: "listing" };
        let (kind, digits) = token.split_at_checked(1).ok_or_else(bad)?;
        if digits.len() % 2 != 0 || !digits.bytes().all(|digit| digit.is_ascii_hexdigit()) {
            return Err(bad());
        }
        let byte = |at: usize| u8::from_str_radix(&digits[at..at + 2], 16).map_err(|_| bad());
        let bytes: Vec<u8> = (0..digits.len()).step_by(2).map(byte).collect::<Result<_>>()?;
        let text = String::from_utf8(bytes).map_err(|_| bad())?;
        match kind {
            "a" => Ok(Self::After(text)),
            "b" => Ok(Self::AfterPrefix(text)),
            _ => Err(bad()),
        }
    }
}

/// What is listed.
#[derive(Clone, Debug, Default)]
pub struct List<'a> {
    /// How keys begin.
    pub prefix: &'a str,
    /// Keys that are equal up to this, behind the prefix, are one entry. Empty: there are no such.
    pub delimiter: &'a str,
    /// Where it begins.
    pub start: ListStart,
    /// Entries, at most.
    pub limit: usize,
}

/// An entry of a listing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Listed<T> {
    /// A key.
    Item(T),
    /// What several keys begin with.
    Prefix(String),
}

/// A page of a listing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ListPage<T, P = ListStart> {
    /// Entries, by key.
    pub entries: Vec<Listed<T>>,
    /// Where the next page begins; `None`: this was the last.
    pub next: Option<P>,
}

/// An object in a listing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ListedObject {
    /// Its key.
    pub key: ObjectKey,
    /// What it is.
    pub version: ObjectVersion,
}

/// A version in a listing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ListedVersion {
    /// Its key.
    pub key: ObjectKey,
    /// What it is.
    pub version: ObjectVersion,
    /// Whether it is the newest.
    pub is_latest: bool,
}

/// Where a listing of versions begins.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum VersionStart {
    /// Where [`List::start`] says.
    #[default]
    AsListed,
    /// Behind this version of a key, whatever [`List::start`] says.
    Version(ObjectKey, VersionId),
    /// Behind a common prefix that was answered.
    AfterPrefix(String),
}

/// Rows of a range as they are needed.
pub(super) struct Stream<'a> {
    view: &'a dyn View,
    rows: VecDeque<(Bytes, Row)>,
    rest: Option<KeyRange>,
    take: usize,
    most: usize,
}

impl<'a> Stream<'a> {
    /// - `most`: rows wanted, as far as is known.
    pub(super) fn new(view: &'a dyn View, range: KeyRange, most: usize) -> Self {
        let most = most.clamp(1, ROWS_MAX);
        Self {
            view,
            rows: VecDeque::new(),
            rest: Some(range),
            take: most,
            most,
        }
    }

    /// Reads few rows at a time: most will be passed over.
    pub(super) fn with_leaps(mut self) -> Self {
        self.take = ROWS_MIN.min(self.most);
        self
    }

    pub(super) fn peek(&mut self) -> Result<Option<&(Bytes, Row)>> {
        while self.rows.is_empty() {
            let Some(range) = self.rest.take().filter(|range| !range.is_empty()) else {
                return Ok(None);
            };
            let page = self.view.scan(&range, Order::Forward, self.take)?;
            self.take = (2 * self.take).min(self.most);
            (self.rows, self.rest) = (page.rows.into(), page.rest);
        }
        Ok(self.rows.front())
    }

    pub(super) fn take(&mut self) -> Option<(Bytes, Row)> {
        self.rows.pop_front()
    }

    /// Passes over all keys before one.
    pub(super) fn skip_to(&mut self, start: &[u8]) {
        while self.rows.front().is_some_and(|(key, _)| key.as_ref() < start) {
            self.rows.pop_front();
        }
        if self.rows.is_empty()
            && let Some(rest) = &mut self.rest
            && rest.start.as_slice() < start
        {
            rest.start = start.to_vec();
            self.take = ROWS_MIN.min(self.most);
        }
    }
}

/// What keys begin with up to the delimiter, if they have it behind the prefix.
pub(super) fn common_prefix<'k>(key: &'k str, prefix: &str, delimiter: &str) -> Option<&'k str> {
    if delimiter.is_empty() {
        return None;
    }
    let behind = key.get(prefix.len()..)?;
    let at = behind.find(delimiter)?;
    key.get(..prefix.len() + at + delimiter.len())
}

/// The keys of a listing in a table whose keys begin with `start` and go on with an object's key.
pub(super) fn range_of(start: &Key, list_prefix: &str, from: &ListStart) -> KeyRange {
    let mut range = start.clone().text_start(list_prefix.as_bytes()).range();
    let first = match from {
        ListStart::Beginning => return range,
        // Rows of a key may have more behind it, all of which are passed over.
        ListStart::After(key) => start.clone().bytes(key.as_bytes()).range().end,
        ListStart::AfterPrefix(prefix) => start.clone().text_start(prefix.as_bytes()).range().end,
    };
    let first = first.unwrap_or_else(|| vec![0xff; crate::KEY_LEN_MAX]);
    if first > range.start {
        range.start = first;
    }
    range
}

/// The key behind all that begin with a common prefix.
pub(super) fn behind_prefix(start: &Key, prefix: &str) -> Vec<u8> {
    let range = start.clone().text_start(prefix.as_bytes()).range();
    range.end.unwrap_or_else(|| vec![0xff; crate::KEY_LEN_MAX])
}

impl Objects<'_> {
    /// Objects by key: those that are read when no version is named.
    ///
    /// - `limit` 0: an empty page, and the last.
    pub fn list(&self, list: &List<'_>) -> Result<ListPage<ListedObject>> {
        let Bucket { tenant, id, .. } = self.bucket;
        let start = rows::in_bucket(tenant, Table::Objects, *id);
        let mut page = ListPage {
            entries: Vec::new(),
            next: None,
        };
        if list.limit == 0 {
            return Ok(page);
        }
        let range = range_of(&start, list.prefix, &list.start);
        let kv: &dyn View = self.names.kv.as_ref();
        let mut stream = Stream::new(kv, range, list.limit.saturating_add(1));
        if !list.delimiter.is_empty() {
            stream = stream.with_leaps();
        }
        while let Some((row_key, _)) = stream.peek()? {
            if page.entries.len() == list.limit {
                page.next = place_behind(page.entries.last(), |object| object.key.as_str());
                break;
            }
            let (key, _) = rows::read_of_key(row_key, &start, false)?;
            if let Some(prefix) = common_prefix(key.as_str(), list.prefix, list.delimiter) {
                stream.skip_to(&behind_prefix(&start, prefix));
                page.entries.push(Listed::Prefix(prefix.to_owned()));
            } else if let Some((_, row)) = stream.take() {
                let version = ObjectVersion::decode(&row.value)?;
                page.entries.push(Listed::Item(ListedObject { key, version }));
            }
        }
        Ok(page)
    }

    /// All versions by key, the newest of each first, delete markers among them. All of one moment.
    pub fn list_versions(&self, list: &List<'_>, from: &VersionStart) -> Result<ListPage<ListedVersion, VersionStart>> {
        let mut page = ListPage {
            entries: Vec::new(),
            next: None,
        };
        if list.limit == 0 {
            return Ok(page);
        }
        let snapshot = self.names.kv.snapshot()?;
        let mut versions = VersionStream::new(snapshot.as_ref(), self.bucket, list, from)?;
        while let Some(key) = versions.peek_key()? {
            if page.entries.len() == list.limit {
                page.next = match page.entries.last() {
                    Some(Listed::Item(last)) => Some(VersionStart::Version(last.key.clone(), last.version.id)),
                    Some(Listed::Prefix(prefix)) => Some(VersionStart::AfterPrefix(prefix.clone())),
                    None => None,
                };
                break;
            }
            if let Some(prefix) = common_prefix(key.as_str(), list.prefix, list.delimiter) {
                versions.skip_prefix(prefix);
                page.entries.push(Listed::Prefix(prefix.to_owned()));
            } else if let Some(version) = versions.take(key)? {
                page.entries.push(Listed::Item(version));
            }
        }
        Ok(page)
    }
}

pub(super) fn place_behind<T>(last: Option<&Listed<T>>, key: impl Fn(&T) -> &str) -> Option<ListStart> {
    Some(match last? {
        Listed::Item(item) => ListStart::After(key(item).to_owned()),
        Listed::Prefix(prefix) => ListStart::AfterPrefix(prefix.clone()),
    })
}

/// The three tables of versions as one.
struct VersionStream<'a> {
    /// `Objects`, `Markers`, `Versions`, with what their keys begin with.
    streams: [(Key, Stream<'a>); 3],
    /// Versions of this key count only if they are older.
    behind: Option<(ObjectKey, VersionOrder)>,
}

impl<'a> VersionStream<'a> {
    fn new(view: &'a dyn View, bucket: &Bucket, list: &List<'_>, from: &VersionStart) -> Result<Self> {
        let (from, behind) = match from {
            VersionStart::AsListed => (list.start.clone(), None),
            VersionStart::AfterPrefix(prefix) => (ListStart::AfterPrefix(prefix.clone()), None),
            VersionStart::Version(key, id) => {
                let order = order_of(view, bucket, key, *id)?;
                (ListStart::Beginning, Some((key.clone(), order)))
            }
        };
        let stream = |table| {
            let start = rows::in_bucket(&bucket.tenant, table, bucket.id);
            let mut range = range_of(&start, list.prefix, &from);
            if let Some((key, order)) = &behind {
                let first = match table {
                    // The version that a place is behind is passed over by its order.
                    Table::Versions => rows::version(&bucket.tenant, bucket.id, key, *order),
                    _ => rows::of_key(&bucket.tenant, table, bucket.id, key),
                };
                range.start = range.start.max(first.into_bytes());
            }
            let mut stream = Stream::new(view, range, list.limit.saturating_add(1));
            if !list.delimiter.is_empty() {
                stream = stream.with_leaps();
            }
            (start, stream)
        };
        Ok(Self {
            streams: [Table::Objects, Table::Markers, Table::Versions].map(stream),
            behind,
        })
    }

    /// The key whose turn it is.
    fn peek_key(&mut self) -> Result<Option<ObjectKey>> {
        loop {
            let mut least: Option<(ObjectKey, usize)> = None;
            for (n, (start, stream)) in self.streams.iter_mut().enumerate() {
                let Some((row_key, _)) = stream.peek()? else {
                    continue;
                };
                let (key, _) = rows::read_of_key(row_key, start, n == 2)?;
                if least.as_ref().is_none_or(|(least, _)| key < *least) {
                    least = Some((key, n));
                }
            }
            let Some((key, n)) = least else {
                return Ok(None);
            };
            // What was answered by an earlier page, in a row that cannot be told by its key.
            let passed = match (&self.behind, n) {
                (Some((behind, order)), 0 | 1) if *behind == key => {
                    let row = self.streams[n].1.peek()?;
                    row.map(|(_, row)| ObjectVersion::decode(&row.value))
                        .transpose()?
                        .is_some_and(|version| version.order >= *order)
                }
                (Some((behind, order)), _) if *behind == key => {
                    let row = self.streams[n].1.peek()?;
                    let at = row.map(|(row_key, _)| row_key.clone());
                    let at = at
                        .map(|at| rows::read_of_key(&at, &self.streams[n].0, true))
                        .transpose()?;
                    at.and_then(|(_, at)| at).is_some_and(|at| at >= *order)
                }
                _ => false,
            };
            if !passed {
                return Ok(Some(key));
            }
            self.streams[n].1.take();
        }
    }

    fn take(&mut self, key: ObjectKey) -> Result<Option<ListedVersion>> {
        for (n, (start, stream)) in self.streams.iter_mut().enumerate() {
            let Some((row_key, _)) = stream.peek()? else {
                continue;
            };
            if rows::read_of_key(row_key, start, n == 2)?.0 == key
                && let Some((_, row)) = stream.take()
            {
                return Ok(Some(ListedVersion {
                    key,
                    version: ObjectVersion::decode(&row.value)?,
                    is_latest: n < 2,
                }));
            }
        }
        Ok(None)
    }

    fn skip_prefix(&mut self, prefix: &str) {
        for (start, stream) in &mut self.streams {
            stream.skip_to(&behind_prefix(start, prefix));
        }
    }
}

/// The order of a version.
fn order_of(view: &dyn View, bucket: &Bucket, key: &ObjectKey, id: VersionId) -> Result<VersionOrder> {
    if let Some(order) = id.order() {
        return Ok(order);
    }
    let tables = [Table::NullVersions, Table::Objects, Table::Markers];
    let keys = tables.map(|table| rows::of_key(&bucket.tenant, table, bucket.id, key));
    let found = view.get_many(&keys.each_ref().map(Key::as_bytes))?;
    let mut found = found.into_iter();
    if let Some(row) = found.next().flatten() {
        return Ok(VersionOrder(KeyReader::new(&row.value).u64()?));
    }
    for row in found.flatten() {
        let version = ObjectVersion::decode(&row.value)?;
        if version.id.is_null() {
            return Ok(version.order);
        }
    }
    // Of what is not there nothing can have been passed over: all versions of the key are answered (again).
    Ok(VersionOrder(u64::MAX))
}
