//! Search: the objects of a bucket by what is said of them.
//!
//! Each object has rows under its tags, type, size, time, owner and metadata, written by the commit that makes it what is read when no
//! version is named. A query goes along the narrowest of the ranges that its conditions give (found by looking at the first rows of
//! each), reads the objects there, and keeps those to which all else applies. It reads [`SEARCH_KEYS_MAX`] rows at most, and then says
//! where to go on, though it may have found nothing yet.

use std::collections::BTreeSet;
use std::ops::RangeInclusive;

use bytes::Bytes;

use super::bucket::{Bucket, BucketId};
use super::content::within;
use super::listing::ListedObject;
use super::name::{ObjectKey, Owner};
use super::objects::Objects;
use super::rows;
use super::version::ObjectVersion;
use crate::kv::{Order, View};
use crate::{Error, Key, KeyRange, KeyReader, Result, Table, Tenant};

/// Rows that one request reads, at most.
pub const SEARCH_KEYS_MAX: usize = 10_000;

/// Objects in a page, at most.
pub const SEARCH_LIMIT_MAX: usize = 1000;

/// Tags that a query may ask for, and so for metadata: as many as an object may have tags.
pub const SEARCH_PAIRS_MAX: usize = 10;

/// Rows looked at of each range, first and, if all have more, then.
const PROBES: [usize; 2] = [32, 256];

/// Objects read at once.
const READ_AT_ONCE: usize = 100;

/// Bytes of a name or a value that its row is found by; the rest is compared in the object.
const WORD_LEN_MAX: usize = 256;

/// What objects are found by. The numbers are on disk.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
#[repr(u8)]
enum Kind {
    Tag = 1,
    ContentType = 2,
    Size = 3,
    Created = 4,
    Owner = 5,
    Metadata = 6,
}

/// Which objects are looked for: those to which all of this applies.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Search {
    /// How their keys begin.
    pub prefix: String,
    /// Tags that they have, with these values.
    pub tags: Vec<(String, String)>,
    /// Metadata that they have, with these values.
    pub metadata: Vec<(String, String)>,
    /// Their type, exactly.
    pub content_type: Option<String>,
    /// Whose they are.
    pub owner: Option<Owner>,
    /// Their bytes.
    pub size: Option<RangeInclusive<u64>>,
    /// When they were made, in milliseconds since 1970 UTC.
    pub created_ms: Option<RangeInclusive<u64>>,
}

impl Search {
    /// Errors: [`Error::TooLarge`].
    pub(super) fn validate(&self) -> Result<()> {
        within("list of tags looked for", self.tags.len(), SEARCH_PAIRS_MAX)?;
        within("list of metadata looked for", self.metadata.len(), SEARCH_PAIRS_MAX)
    }

    fn matches(&self, key: &ObjectKey, version: &ObjectVersion) -> bool {
        let Some(object) = version.object() else {
            return false;
        };
        let has =
            |pairs: &[(String, String)], wanted: &[(String, String)]| wanted.iter().all(|pair| pairs.contains(pair));
        key.as_str().starts_with(&self.prefix)
            && has(&object.tags, &self.tags)
            && has(&object.metadata, &self.metadata)
            && (self.content_type.is_none() || self.content_type == object.headers.content_type)
            && self.owner.as_ref().is_none_or(|owner| *owner == version.owner)
            && self.size.as_ref().is_none_or(|size| size.contains(&object.size))
            && self
                .created_ms
                .as_ref()
                .is_none_or(|created| created.contains(&version.created_ms()))
    }

    /// The ranges of rows in which all that is looked for lies, each for itself. Not empty.
    fn ranges(&self, tenant: &Tenant, id: BucketId) -> Vec<KeyRange> {
        let prefix = self.prefix.as_bytes();
        let mut ranges = Vec::new();
        let mut equal = |start: Key| ranges.push(start.text_start(prefix).range());
        for (name, value) in &self.tags {
            equal(pair_row(tenant, id, Kind::Tag, name, value));
        }
        for (name, value) in &self.metadata {
            equal(pair_row(tenant, id, Kind::Metadata, name, value));
        }
        for (kind, word) in [
            (Kind::Owner, self.owner.as_ref().map(Owner::as_str)),
            (Kind::ContentType, self.content_type.as_deref()),
        ] {
            word.into_iter()
                .for_each(|word| equal(word_row(tenant, id, kind, word)));
        }
        if !prefix.is_empty() || ranges.is_empty() && self.size.is_none() && self.created_ms.is_none() {
            ranges.push(rows::in_bucket(tenant, Table::Objects, id).text_start(prefix).range());
        }
        for (kind, numbers) in [(Kind::Size, &self.size), (Kind::Created, &self.created_ms)] {
            if let Some(numbers) = numbers {
                let row = |number: u64| start(tenant, id, kind).u64(number);
                ranges.push(KeyRange {
                    start: row(*numbers.start()).into_bytes(),
                    end: row(*numbers.end()).range().end,
                });
            }
        }
        ranges
    }
}

/// Where a search goes on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SearchPlace {
    /// Which of the query's ranges.
    range: usize,
    /// Behind this row.
    after: Vec<u8>,
}

impl SearchPlace {
    /// As bytes for those who go on later. They hold the names of rows, and belong to the query.
    pub fn to_bytes(&self) -> Vec<u8> {
        [&[self.range.min(255) as u8], self.after.as_slice()].concat()
    }

    /// Reads [`SearchPlace::to_bytes`].
    ///
    /// Errors: [`Error::BadPlace`].
    pub fn from_bytes(bytes: &[u8]) -> Result<Self> {
        let (range, after) = bytes.split_first().ok_or(Error::BadPlace { what: "search" })?;
        Ok(Self {
            range: usize::from(*range),
            after: after.to_vec(),
        })
    }
}

/// A page of what was found.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SearchPage {
    /// Objects, in the order of the range that was gone along, by key if not by size or time.
    pub objects: Vec<ListedObject>,
    /// Where to go on; `None`: that was all.
    pub next: Option<SearchPlace>,
    /// Rows that were read for it.
    pub scanned: usize,
}

impl Objects<'_> {
    /// Objects that are read when no version is named, to which all of a query applies. Of one moment, page by page.
    ///
    /// - `from`: where a page of the same query ended.
    /// - `limit`: 1 to [`SEARCH_LIMIT_MAX`]; what is out of range is taken for the nearest.
    /// - Errors: [`Error::BadPlace`], [`Error::TooLarge`].
    pub fn search(&self, search: &Search, from: Option<&SearchPlace>, limit: usize) -> Result<SearchPage> {
        search.validate()?;
        self.search_within(search, from, limit, SEARCH_KEYS_MAX)
    }

    /// [`Objects::search`] that reads so many rows at most.
    pub(super) fn search_within(
        &self,
        search: &Search,
        from: Option<&SearchPlace>,
        limit: usize,
        keys_max: usize,
    ) -> Result<SearchPage> {
        let Bucket { tenant, id, .. } = self.bucket;
        let snapshot = self.names.kv.snapshot()?;
        let ranges = search.ranges(tenant, *id);
        let mut page = SearchPage::default();
        let (range, rest) = match from {
            None => {
                let range = narrowest(snapshot.as_ref(), &ranges, &mut page.scanned, keys_max)?;
                (range, ranges[range].clone())
            }
            Some(place) => {
                let bad = Error::BadPlace { what: "search" };
                let range = ranges.get(place.range).filter(|range| range.contains(&place.after));
                (place.range, range.ok_or(bad)?.clone().after(&place.after))
            }
        };
        let walk = Walk {
            view: snapshot.as_ref(),
            tenant,
            id: *id,
            search,
            range,
            keys_max,
        };
        walk.fill(rest, limit.clamp(1, SEARCH_LIMIT_MAX), &mut page)?;
        Ok(page)
    }
}

/// A range being gone along.
struct Walk<'a> {
    view: &'a dyn View,
    tenant: &'a Tenant,
    id: BucketId,
    search: &'a Search,
    range: usize,
    keys_max: usize,
}

impl Walk<'_> {
    fn fill(&self, range: KeyRange, limit: usize, page: &mut SearchPage) -> Result<()> {
        let mut rest = Some(range);
        while let Some(range) = rest {
            // Each row may have an object to be read besides.
            let left = self.keys_max.saturating_sub(page.scanned) / 2;
            let scanned = self.view.scan(&range, Order::Forward, left.min(READ_AT_ONCE))?;
            page.scanned += scanned.rows.len();
            let mut objects = self.objects(&scanned.rows, page)?.into_iter();
            for (row_key, _) in &scanned.rows {
                let Some((key, version)) = objects.next().flatten() else {
                    continue;
                };
                if !self.search.matches(&key, &version) {
                    continue;
                }
                page.objects.push(ListedObject { key, version });
                if page.objects.len() == limit {
                    page.next = Some(self.place(row_key));
                    return Ok(());
                }
            }
            if page.scanned + 2 > self.keys_max {
                page.next = scanned
                    .rest
                    .and(scanned.rows.last())
                    .map(|(row_key, _)| self.place(row_key));
                return Ok(());
            }
            rest = scanned.rest;
        }
        Ok(())
    }

    fn place(&self, row_key: &[u8]) -> SearchPlace {
        SearchPlace {
            range: self.range,
            after: row_key.to_vec(),
        }
    }

    /// The objects of some rows, in order.
    fn objects(
        &self,
        found: &[(Bytes, crate::Row)],
        page: &mut SearchPage,
    ) -> Result<Vec<Option<(ObjectKey, ObjectVersion)>>> {
        let objects = rows::in_bucket(self.tenant, Table::Objects, self.id);
        let is_object = |key: &[u8]| key.starts_with(objects.as_bytes());
        if found.first().is_some_and(|(key, _)| is_object(key)) {
            let read = |(row_key, row): &(Bytes, crate::Row)| {
                let (key, _) = rows::read_of_key(row_key, &objects, false)?;
                Ok(Some((key, ObjectVersion::decode(&row.value)?)))
            };
            return found.iter().map(read).collect();
        }
        let keys: Vec<ObjectKey> = found
            .iter()
            .map(|(row_key, _)| read_row(self.tenant, row_key))
            .collect::<Result<_>>()?;
        let places: Vec<Key> = keys
            .iter()
            .map(|key| rows::of_key(self.tenant, Table::Objects, self.id, key))
            .collect();
        let places: Vec<&[u8]> = places.iter().map(Key::as_bytes).collect();
        page.scanned += places.len();
        let read = |(key, row): (ObjectKey, Option<crate::Row>)| {
            row.map(|row| Ok((key, ObjectVersion::decode(&row.value)?))).transpose()
        };
        keys.into_iter().zip(self.view.get_many(&places)?).map(read).collect()
    }
}

/// Which range has the fewest rows, as far as a look at each tells.
///
/// - `keys_max`: of which looking takes no more than a half.
fn narrowest(view: &dyn View, ranges: &[KeyRange], scanned: &mut usize, keys_max: usize) -> Result<usize> {
    if ranges.len() < 2 {
        return Ok(0);
    }
    for limit in PROBES {
        if *scanned + limit * ranges.len() > keys_max / 2 {
            break;
        }
        let mut least: Option<(usize, usize)> = None;
        for (n, range) in ranges.iter().enumerate() {
            let page = view.scan(range, Order::Forward, limit)?;
            *scanned += page.rows.len();
            if page.rest.is_none() && least.is_none_or(|(count, _)| page.rows.len() < count) {
                least = Some((page.rows.len(), n));
            }
        }
        if let Some((_, n)) = least {
            return Ok(n);
        }
    }
    // All are long. They come in an order in which the earlier ones are more likely to be short.
    Ok(0)
}

fn start(tenant: &Tenant, id: BucketId, kind: Kind) -> Key {
    rows::in_bucket(tenant, Table::Search, id).byte(kind as u8)
}

fn word_row(tenant: &Tenant, id: BucketId, kind: Kind, word: &str) -> Key {
    start(tenant, id, kind).bytes(cut(word))
}

fn pair_row(tenant: &Tenant, id: BucketId, kind: Kind, name: &str, value: &str) -> Key {
    start(tenant, id, kind).bytes(cut(name)).bytes(cut(value))
}

fn cut(word: &str) -> &[u8] {
    let bytes = word.as_bytes();
    &bytes[..bytes.len().min(WORD_LEN_MAX)]
}

/// The rows by which an object is found.
pub(super) fn found_by(bucket: &Bucket, key: &ObjectKey, version: &ObjectVersion) -> BTreeSet<Key> {
    let Some(object) = version.object() else {
        return BTreeSet::new();
    };
    let Bucket { tenant, id, .. } = bucket;
    let mut starts = vec![
        start(tenant, *id, Kind::Size).u64(object.size),
        start(tenant, *id, Kind::Created).u64(version.created_ms()),
        word_row(tenant, *id, Kind::Owner, version.owner.as_str()),
    ];
    let content_type = object.headers.content_type.as_deref();
    starts.extend(content_type.map(|word| word_row(tenant, *id, Kind::ContentType, word)));
    for (kind, pairs) in [(Kind::Tag, &object.tags), (Kind::Metadata, &object.metadata)] {
        starts.extend(
            pairs
                .iter()
                .map(|(name, value)| pair_row(tenant, *id, kind, name, value)),
        );
    }
    starts
        .into_iter()
        .map(|start| start.bytes(key.as_str().as_bytes()))
        .collect()
}

/// Takes a row of [`found_by`] apart: the object's key.
fn read_row(tenant: &Tenant, row_key: &[u8]) -> Result<ObjectKey> {
    let malformed = |reason| Error::Malformed {
        what: "row of the search",
        reason,
    };
    let mut reader = KeyReader::of(row_key, tenant, Table::Search)?;
    let _bucket = reader.u64()?;
    match reader.byte()? {
        kind if [Kind::Size as u8, Kind::Created as u8].contains(&kind) => {
            let _number = reader.u64()?;
        }
        kind if [Kind::Tag as u8, Kind::Metadata as u8].contains(&kind) => {
            let _pair = (reader.bytes()?, reader.bytes()?);
        }
        kind if [Kind::Owner as u8, Kind::ContentType as u8].contains(&kind) => {
            let _word = reader.bytes()?;
        }
        _ => return Err(malformed("it is of a later release")),
    }
    let key = String::from_utf8(reader.bytes()?).map_err(|_| malformed("an object's key is no text"))?;
    reader.end()?;
    ObjectKey::new(key)
}
