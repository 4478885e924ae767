//! Keys whose bytes sort as their parts do: the tenant, the table, then what the table says.
//!
//! Invariants: keys of two tenants never mix; a key is its parts' encodings one after the other, none of which is the beginning
//! of another, so that comparing bytes compares parts; what [`Key`] builds, [`KeyReader`] takes apart. Table numbers are on
//! disk and never used anew. Not here: what the parts of a table mean.
//!
//! | part | bytes |
//! |---|---|
//! | tenant, bytes | each 0x00 as 0x00 0xff, then 0x00 0x01 |
//! | table | one byte |
//! | u32, u64 | big-endian |
//! | fixed | as they are |

use std::fmt;
use std::ops::Bound;

use crate::{Error, Result};

/// Whose rows. Letters `a-z`, digits, `-`, `_` and `.`, 1 to 64 of them, beginning with a letter or a digit.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Tenant(String);

/// Bytes of a tenant's name, at most.
pub const TENANT_LEN_MAX: usize = 64;

impl Tenant {
    /// A tenant of this name.
    ///
    /// Errors: [`Error::BadName`].
    pub fn new(name: &str) -> Result<Self> {
        let inside = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || b"-_.".contains(&byte);
        let begins = |byte: &u8| byte.is_ascii_lowercase() || byte.is_ascii_digit();
        if name.len() > TENANT_LEN_MAX || !name.as_bytes().first().is_some_and(begins) || !name.bytes().all(inside) {
            return Err(Error::BadName {
                what: "tenant",
                name: name.chars().take(TENANT_LEN_MAX).collect(),
                rule: "1 to 64 of a-z, 0-9, '-', '_' and '.', beginning with a letter or digit",
            });
        }
        Ok(Self(name.to_owned()))
    }

    /// Its name.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl Default for Tenant {
    /// The one tenant of a server that has one.
    fn default() -> Self {
        Self("default".to_owned())
    }
}

/// What kind of rows. The numbers are on disk.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(u8)]
#[non_exhaustive]
pub enum Table {
    /// Facts about the index itself: its schema.
    Meta = 1,
    // 2 was meant for packs and is not used again: see ARCHITECTURE.md, "index".
    /// Condemned chunks: domain, id and location.
    Condemned = 3,
    /// Leases of writers.
    Leases = 4,
    /// Manifests: which chunks something is made of.
    Manifests = 5,
    /// The collector's generation and where it stands.
    Collector = 6,
    /// Chunks of manifests, in pages.
    ManifestPages = 7,
    /// Manifests whose pages are there and do not count, or no more.
    ManifestsPending = 8,
    /// Buckets by name. This and all that follow: `names/`.
    Buckets = 9,
    /// Whose each bucket's name is; of the index itself.
    BucketNames = 10,
    /// Buckets that are gone and have rows left.
    BucketsGone = 11,
    /// The version of each key that is read when none is named.
    Objects = 12,
    /// Delete markers that are the newest version of their key.
    Markers = 13,
    /// Versions that are not the newest of their key.
    Versions = 14,
    /// Which of a key's older versions is the one named null.
    NullVersions = 15,
    /// Which objects hold a chunk within their row.
    InlineChunks = 16,
    /// Parts that objects were made of, in pages.
    PartLists = 17,
    /// Uploads that go on.
    Uploads = 18,
    /// Parts of uploads.
    Parts = 19,
    /// Uploads that have ended and may have parts left.
    UploadsEnded = 20,
    /// What uploads became that were completed lately.
    UploadsDone = 21,
    /// Access keys; of the index itself.
    AccessKeys = 22,
    /// Which access keys a tenant has.
    TenantKeys = 23,
    /// Events, by shard and position.
    Outbox = 24,
    /// The last position of each shard of events.
    OutboxEnds = 25,
    /// How far each shard of events has been sealed, and how far each consumer has come.
    OutboxCursors = 26,
    /// Objects by what people look for.
    Search = 27,
    /// Counters of objects and bytes.
    Usage = 28,
    /// Dedup domains: the last number given, and those of tenants.
    Domains = 29,
    /// Blobs by digest, and what is kept beside them: that they are there, and when they were used last.
    Blobs = 30,
    /// What blobs are made of.
    BlobContents = 31,
    /// Objects by the digests of their bytes.
    Digests = 32,
    /// Buckets that show something to everybody; of the index itself.
    Shown = 33,
    /// Objects that lack a digest which their bucket wants; of the index itself.
    Undigested = 34,
    /// Whether blobs were taken away: its version says when.
    BlobsRemoved = 35,
}

impl Table {
    fn of(number: u8) -> Option<Self> {
        [
            Self::Meta,
            Self::Condemned,
            Self::Leases,
            Self::Manifests,
            Self::Collector,
            Self::ManifestPages,
            Self::ManifestsPending,
            Self::Buckets,
            Self::BucketNames,
            Self::BucketsGone,
            Self::Objects,
            Self::Markers,
            Self::Versions,
            Self::NullVersions,
            Self::InlineChunks,
            Self::PartLists,
            Self::Uploads,
            Self::Parts,
            Self::UploadsEnded,
            Self::UploadsDone,
            Self::AccessKeys,
            Self::TenantKeys,
            Self::Outbox,
            Self::OutboxEnds,
            Self::OutboxCursors,
            Self::Search,
            Self::Usage,
            Self::Domains,
            Self::Blobs,
            Self::BlobContents,
            Self::Digests,
            Self::Shown,
            Self::Undigested,
            Self::BlobsRemoved,
        ]
        .into_iter()
        .find(|table| *table as u8 == number)
    }
}

/// Room for most keys.
const KEY_LEN_MEAN: usize = 80;

/// A key being built, and built: each call appends a part.
#[derive(Clone, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Key(Vec<u8>);

impl Key {
    /// A key of a table of a tenant, without further parts: also what all its keys begin with.
    pub fn of(tenant: &Tenant, table: Table) -> Self {
        Self(Vec::with_capacity(KEY_LEN_MEAN))
            .bytes(tenant.0.as_bytes())
            .byte(table as u8)
    }

    /// A key of a table that belongs to the index itself and to no tenant. It sorts before those of all tenants.
    pub fn of_index(table: Table) -> Self {
        Self(Vec::new()).bytes(b"").byte(table as u8)
    }

    /// What all keys of a tenant begin with.
    pub fn of_tenant(tenant: &Tenant) -> Self {
        Self(Vec::with_capacity(KEY_LEN_MEAN)).bytes(tenant.0.as_bytes())
    }

    /// Appends a number that sorts by value.
    pub fn u32(mut self, number: u32) -> Self {
        self.0.extend_from_slice(&number.to_be_bytes());
        self
    }

    /// Appends a number that sorts by value.
    pub fn u64(mut self, number: u64) -> Self {
        self.0.extend_from_slice(&number.to_be_bytes());
        self
    }

    /// Appends bytes whose number every key of the table agrees on, such as a digest.
    pub fn fixed<const N: usize>(mut self, bytes: &[u8; N]) -> Self {
        self.0.extend_from_slice(bytes);
        self
    }

    /// Appends what follows in another key of the same parts.
    pub(crate) fn rest_of(mut self, rest: &[u8]) -> Self {
        self.0.extend_from_slice(rest);
        self
    }

    /// Appends bytes of any number, such as a name.
    pub fn bytes(mut self, bytes: &[u8]) -> Self {
        self = self.text_start(bytes);
        self.0.extend_from_slice(&[0, 1]);
        self
    }

    /// Appends what all keys begin with whose next part, written by [`Key::bytes`], begins with `start`. Nothing may follow.
    pub fn text_start(mut self, start: &[u8]) -> Self {
        for (n, piece) in start.split(|byte| *byte == 0).enumerate() {
            if n > 0 {
                self.0.extend_from_slice(&[0, 0xff]);
            }
            self.0.extend_from_slice(piece);
        }
        self
    }

    /// Appends one byte.
    pub fn byte(mut self, byte: u8) -> Self {
        self.0.push(byte);
        self
    }

    /// The key's bytes.
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }

    /// The key's bytes.
    pub fn into_bytes(self) -> Vec<u8> {
        self.0
    }

    /// All keys that begin with this one, itself included.
    pub fn range(&self) -> KeyRange {
        KeyRange::prefix(&self.0)
    }
}

impl AsRef<[u8]> for Key {
    fn as_ref(&self) -> &[u8] {
        &self.0
    }
}

impl fmt::Debug for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&show_key(&self.0))
    }
}

/// A key for people: printable bytes as they are, others as `\xNN`, at most the first 64.
pub fn show_key(key: &[u8]) -> String {
    const SHOWN: usize = 64;
    let mut text: String = key
        .iter()
        .take(SHOWN)
        .map(|byte| byte.escape_ascii().to_string())
        .collect();
    if key.len() > SHOWN {
        text.push('…');
    }
    text
}

/// Takes a key apart, part by part, in the order in which it was built.
#[derive(Clone, Debug)]
pub struct KeyReader<'a>(&'a [u8]);

impl<'a> KeyReader<'a> {
    /// Begins at the start of a key.
    pub fn new(key: &'a [u8]) -> Self {
        Self(key)
    }

    /// Begins behind tenant and table, which have to be these.
    ///
    /// Errors: as the other calls, [`Error::Malformed`].
    pub fn of(key: &'a [u8], tenant: &Tenant, table: Table) -> Result<Self> {
        let mut reader = Self::new(key);
        if reader.bytes()? != tenant.0.as_bytes() || reader.table()? != table {
            return Err(malformed("it is of another table"));
        }
        Ok(reader)
    }

    /// The table.
    pub fn table(&mut self) -> Result<Table> {
        Table::of(self.byte()?).ok_or(malformed("its table is unknown"))
    }

    /// One byte.
    pub fn byte(&mut self) -> Result<u8> {
        self.fixed::<1>().map(|[byte]| byte)
    }

    /// What [`Key::u32`] wrote.
    pub fn u32(&mut self) -> Result<u32> {
        self.fixed().map(u32::from_be_bytes)
    }

    /// What [`Key::u64`] wrote.
    pub fn u64(&mut self) -> Result<u64> {
        self.fixed().map(u64::from_be_bytes)
    }

    /// What [`Key::fixed`] wrote.
    pub fn fixed<const N: usize>(&mut self) -> Result<[u8; N]> {
        let (bytes, rest) = self.0.split_first_chunk().ok_or(malformed("it ends early"))?;
        self.0 = rest;
        Ok(*bytes)
    }

    /// What [`Key::bytes`] wrote.
    pub fn bytes(&mut self) -> Result<Vec<u8>> {
        let mut bytes = Vec::new();
        loop {
            let at = self
                .0
                .iter()
                .position(|byte| *byte == 0)
                .ok_or(malformed("it ends early"))?;
            bytes.extend_from_slice(&self.0[..at]);
            let escaped = self.0.get(at + 1).copied();
            match escaped {
                Some(0xff) => bytes.push(0),
                Some(1) => {}
                _ => return Err(malformed("a zero byte in it is not escaped")),
            }
            self.0 = &self.0[at + 2..];
            if escaped == Some(1) {
                return Ok(bytes);
            }
        }
    }

    /// Nothing may be left.
    pub fn end(self) -> Result<()> {
        if self.0.is_empty() {
            Ok(())
        } else {
            Err(malformed("it goes on behind its last part"))
        }
    }
}

fn malformed(reason: &'static str) -> Error {
    Error::Malformed { what: "key", reason }
}

/// Keys from one, included, up to another, not included. Empty when the bounds have crossed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KeyRange {
    /// The first key.
    pub start: Vec<u8>,
    /// The key behind the last one; `None`: to the end.
    pub end: Option<Vec<u8>>,
}

impl KeyRange {
    /// All keys that begin with these bytes.
    pub fn prefix(prefix: &[u8]) -> Self {
        // The least key behind them all: the last byte that can grow, grown, and what follows it dropped.
        let end = prefix.iter().rposition(|byte| *byte != 0xff).map(|last| {
            let mut end = prefix[..=last].to_vec();
            end[last] += 1;
            end
        });
        Self {
            start: prefix.to_vec(),
            end,
        }
    }

    /// The keys of all tenants, without those of the index itself, which begin with a zero byte.
    pub fn of_tenants() -> Self {
        Self {
            start: vec![1],
            end: None,
        }
    }

    /// What is left of the range behind this key, itself not included.
    pub fn after(mut self, key: &[u8]) -> Self {
        let mut next = key.to_vec();
        next.push(0);
        if next > self.start {
            self.start = next;
        }
        self
    }

    /// What is left of the range before this key, itself not included.
    pub fn before(mut self, key: &[u8]) -> Self {
        if self.end.as_deref().is_none_or(|end| key < end) {
            self.end = Some(key.to_vec());
        }
        self
    }

    /// Whether no key can be in it.
    pub fn is_empty(&self) -> bool {
        self.end.as_ref().is_some_and(|end| *end <= self.start)
    }

    /// Whether it holds this key.
    pub fn contains(&self, key: &[u8]) -> bool {
        self.start.as_slice() <= key && self.end.as_deref().is_none_or(|end| key < end)
    }

    /// As the standard library's collections take it. Not for an empty range: they panic at one.
    pub(crate) fn bounds(&self) -> (Bound<&[u8]>, Bound<&[u8]>) {
        (
            Bound::Included(&self.start),
            self.end.as_deref().map_or(Bound::Unbounded, Bound::Excluded),
        )
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn tenants_have_plain_names() {
        for name in ["default", "a", "0", "team-7_x.y", &"z".repeat(64)] {
            assert_eq!(Tenant::new(name).unwrap().as_str(), name);
        }
        for name in ["", "-a", "A", "a/b", "a\0", "ä", "a b", &"z".repeat(65)] {
            assert!(matches!(Tenant::new(name), Err(Error::BadName { .. })), "{name:?}");
        }
    }

    #[test]
    fn keys_of_tenants_do_not_mix() {
        let [a, ab] = ["a", "a-b"].map(|name| Tenant::new(name).unwrap());
        assert!(
            !Key::of_tenant(&a)
                .range()
                .contains(Key::of(&ab, Table::Manifests).as_bytes())
        );
        assert!(
            Key::of_tenant(&a)
                .range()
                .contains(Key::of(&a, Table::Manifests).as_bytes())
        );
        assert!(
            !Key::of(&a, Table::Manifests)
                .range()
                .contains(Key::of(&a, Table::Leases).as_bytes())
        );
    }

    #[test]
    fn a_key_is_taken_apart_as_it_was_built() {
        let tenant = Tenant::default();
        let key = Key::of(&tenant, Table::Manifests)
            .u32(7)
            .bytes(b"a\0b")
            .u64(9)
            .fixed(&[1, 2, 3]);
        let mut reader = KeyReader::of(key.as_bytes(), &tenant, Table::Manifests).unwrap();
        assert_eq!(reader.u32().unwrap(), 7);
        assert_eq!(reader.bytes().unwrap(), b"a\0b");
        assert_eq!(reader.u64().unwrap(), 9);
        assert_eq!(reader.fixed::<3>().unwrap(), [1, 2, 3]);
        reader.end().unwrap();
    }

    #[test]
    fn a_key_of_something_else_is_an_error() {
        let tenant = Tenant::default();
        let key = Key::of(&tenant, Table::Manifests).u32(7);
        assert!(KeyReader::of(key.as_bytes(), &tenant, Table::Leases).is_err());
        assert!(KeyReader::of(key.as_bytes(), &Tenant::new("other").unwrap(), Table::Manifests).is_err());
        assert!(KeyReader::new(key.as_bytes()).end().is_err());
        let mut short = KeyReader::of(key.as_bytes(), &tenant, Table::Manifests).unwrap();
        assert!(short.u64().is_err() && short.bytes().is_err());
        assert!(KeyReader::new(b"a\0\x02").bytes().is_err() && KeyReader::new(b"a\0").bytes().is_err());
        assert!(KeyReader::new(&[200]).table().is_err());
    }

    #[test]
    fn ranges_end_behind_the_last_key_of_their_prefix() {
        let check = |prefix: &[u8], end: Option<&[u8]>| assert_eq!(KeyRange::prefix(prefix).end.as_deref(), end);
        check(b"", None);
        check(b"a", Some(b"b"));
        check(b"a\xff\xff", Some(b"b"));
        check(b"\xff\xff", None);
    }

    #[test]
    fn what_is_left_of_a_range() {
        let range = KeyRange::prefix(b"a");
        assert!(!range.clone().after(b"a1").contains(b"a1") && range.clone().after(b"a1").contains(b"a1\0"));
        assert_eq!(range.clone().after(b"A"), range);
        assert!(!range.clone().before(b"a1").contains(b"a1") && range.clone().before(b"a1").contains(b"a0"));
        assert_eq!(range.clone().before(b"z"), range);
        assert!(range.clone().before(b"a").is_empty() && !range.is_empty());
    }

    #[test]
    fn shown_keys_are_short_and_printable() {
        assert_eq!(show_key(b"a\0\xff"), "a\\x00\\xff");
        assert_eq!(show_key(&[b'a'; 100]).chars().count(), 65);
    }

    proptest! {
        /// Names are the parts that need escaping: full of zeros and 0xff here.
        #[test]
        fn bytes_of_keys_sort_as_their_parts(
            a in (name(), any::<u64>(), name()),
            b in (name(), any::<u64>(), name()),
        ) {
            let key = |(x, n, y): &(Vec<u8>, u64, Vec<u8>)| Key(Vec::new()).bytes(x).u64(*n).bytes(y);
            prop_assert_eq!(key(&a).cmp(&key(&b)), a.cmp(&b));
            let built = key(&a);
            let mut reader = KeyReader::new(built.as_bytes());
            prop_assert_eq!((reader.bytes().unwrap(), reader.u64().unwrap(), reader.bytes().unwrap()), a);
            reader.end().unwrap();
        }

        #[test]
        fn the_start_of_a_name_finds_just_the_names_that_begin_so(a in name(), b in name()) {
            let range = Key(Vec::new()).text_start(&a).range();
            prop_assert_eq!(range.contains(Key(Vec::new()).bytes(&b).as_bytes()), b.starts_with(&a));
        }

        #[test]
        fn no_bytes_make_the_reader_panic(bytes in prop::collection::vec(any::<u8>(), 0..40)) {
            let mut reader = KeyReader::new(&bytes);
            let _ = (reader.bytes(), reader.table(), reader.u32(), reader.bytes(), reader.u64());
        }
    }

    fn name() -> impl Strategy<Value = Vec<u8>> {
        let byte = prop_oneof![Just(0_u8), Just(1), Just(0xff), Just(0xfe), any::<u8>()];
        prop::collection::vec(byte, 0..6)
    }
}
