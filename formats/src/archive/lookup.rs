//! One entry of an archive, without reading the rest.
//!
//! A path costs, for each directory on it, the table's tail, as many items as its search tree is deep, and the entry's own
//! records. The tables are hints from outside: an item is believed only as far as the records it points to agree, so a lie
//! ends in an error or in "not there", never in a read out of bounds or without end.

use std::collections::HashSet;
use std::ops::Range;

use bytes::Bytes;

use super::decoder::{ArchiveDecoder, ArchiveLimits, Step};
use super::error::ArchiveError;
use super::goodbye::{self, ITEM_LEN, Item, Tail, name_hash};
use super::metadata::{Content, Node};
use super::record::HEADER_LEN;
use crate::FeatureFlags;

/// Bytes read at once where an entry's records begin; most entries have fewer.
const HEAD_LEN: u64 = 512;
/// Entries of one directory that may have the hash looked for. Honest archives have one.
const SAME_HASH_MAX: usize = 64;

/// An archive that can be read anywhere.
pub trait ArchiveBytes {
    /// What can go wrong.
    type Error;

    /// Length of the archive in bytes.
    fn len(&self) -> u64;

    /// Exactly these bytes; the range lies inside the archive.
    fn read(&self, range: Range<u64>) -> Result<Bytes, Self::Error>;

    /// Whether there are no bytes.
    fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

/// Why an entry was not found.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum LookupError<E> {
    /// The archive breaks a rule.
    #[error(transparent)]
    Archive(#[from] ArchiveError),
    /// The archive could not be read.
    #[error("the archive could not be read")]
    Read(#[source] E),
}

/// An entry and where it lies.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Placed {
    /// Its name; `None` for the root.
    pub name: Option<Bytes>,
    /// What it is.
    pub node: Node,
    /// Offset of its ENTRY record. No other entry has it.
    pub at: u64,
    /// Where its payload is (a file) or its entries and their table are (a directory); empty for other kinds.
    pub content: Range<u64>,
}

/// Where an entry lies, as a table or an earlier look says; small, so that many can be kept. Believed only when it is read again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct EntryPlace(Item);

impl Placed {
    /// What [`ArchiveLookup::entry`] finds this entry by; `None` for the root.
    pub fn place(&self) -> Option<EntryPlace> {
        let name = self.name.as_deref()?;
        // The FILENAME record lies right before the ENTRY; its name ends in a NUL.
        let record_len = HEADER_LEN + name.len() as u64 + 1;
        Some(EntryPlace(Item {
            hash: name_hash(name),
            start: self.at.checked_sub(record_len)?,
            end: self.content.end,
        }))
    }
}

/// An entry, or why it could not be read.
type Found<B> = Result<Placed, LookupError<<B as ArchiveBytes>::Error>>;

/// Finds entries through the GOODBYE tables.
#[derive(Debug)]
pub struct ArchiveLookup<B> {
    bytes: B,
    limits: ArchiveLimits,
    flags: FeatureFlags,
    root: Placed,
}

impl<B: ArchiveBytes> ArchiveLookup<B> {
    /// Reads the root.
    ///
    /// Errors: bytes that are no archive, or not a whole one.
    pub fn open(bytes: B, limits: ArchiveLimits) -> Result<Self, LookupError<B::Error>> {
        let mut decoder = ArchiveDecoder::new(limits);
        let root = enter(&bytes, &mut decoder, 0..bytes.len())?;
        let (Some(root), Some(flags)) = (root, decoder.flags()) else {
            return Err(broken(None, 0, "it does not start with an ENTRY: it is no archive").into());
        };
        let lookup = Self {
            bytes,
            limits,
            flags,
            root,
        };
        lookup.tail(&lookup.root)?;
        Ok(lookup)
    }

    /// The archive's bytes.
    pub fn bytes(&self) -> &B {
        &self.bytes
    }

    /// The flags of the archive.
    pub fn flags(&self) -> FeatureFlags {
        self.flags
    }

    /// The root directory.
    pub fn root(&self) -> &Placed {
        &self.root
    }

    /// The entry at a path of names, or `None` where there is none (or something on the way is no directory). An empty path
    /// is the root.
    pub fn find<'n>(&self, path: impl IntoIterator<Item = &'n [u8]>) -> Result<Option<Placed>, LookupError<B::Error>> {
        let mut at = self.root.clone();
        for name in path {
            match self.child(&at, name)? {
                Some(child) => at = child,
                None => return Ok(None),
            }
        }
        Ok(Some(at))
    }

    /// The entry of this name in a directory.
    pub fn child(&self, directory: &Placed, name: &[u8]) -> Result<Option<Placed>, LookupError<B::Error>> {
        if directory.node.content != Content::Directory {
            return Ok(None);
        }
        let tail = self.tail(directory)?;
        let start = directory.content.start;
        let hash = name_hash(name);
        let mut same = 0;
        let mut places = vec![0_u64];
        while let Some(place) = places.pop() {
            if place >= tail.items {
                continue;
            }
            let at = tail.item_at(place);
            let item = self.read(at..at + ITEM_LEN)?;
            let item = tail
                .item(&item, start)
                .map_err(|rule| broken(Some(directory), at, rule))?;
            // Equal hashes may lie on both sides.
            if hash >= item.hash {
                places.push(2 * place + 2);
            }
            if hash <= item.hash {
                places.push(2 * place + 1);
            }
            if hash == item.hash {
                same += 1;
                if same > SAME_HASH_MAX {
                    return Err(broken(
                        Some(directory),
                        at,
                        "too many items of a GOODBYE record have the same hash",
                    )
                    .into());
                }
                let found = self.read_entry(Some(directory), item)?;
                if found.as_ref().is_some_and(|found| found.name.as_deref() == Some(name)) {
                    return Ok(found);
                }
            }
        }
        self.child_in_order(directory, &tail, hash, name)
    }

    /// desync wrote tables in the order of the archive until 2019; those cannot be searched, only read.
    fn child_in_order(
        &self,
        directory: &Placed,
        tail: &Tail,
        hash: u64,
        name: &[u8],
    ) -> Result<Option<Placed>, LookupError<B::Error>> {
        if !self.flags.has(FeatureFlags::NSEC_TIME) || self.flags.has(FeatureFlags::USER_NAMES) {
            return Ok(None);
        }
        let items = self.items(directory, tail)?;
        let same = items.into_iter().filter(|item| item.hash == hash);
        for item in same.take(SAME_HASH_MAX) {
            let found = self.read_entry(Some(directory), item)?;
            if found.as_ref().is_some_and(|found| found.name.as_deref() == Some(name)) {
                return Ok(found);
            }
        }
        Ok(None)
    }

    /// All entries of a directory, in the order of the archive, each read when it is asked for.
    ///
    /// Errors: a table that does not fill its directory; an entry that is not what its item says, or has the name of one before.
    pub fn children<'l>(
        &'l self,
        directory: &Placed,
    ) -> Result<impl Iterator<Item = Found<B>> + use<'l, B>, LookupError<B::Error>> {
        let items = if directory.node.content == Content::Directory {
            let tail = self.tail(directory)?;
            self.items(directory, &tail)?
        } else {
            Vec::new()
        };
        // Only names of one hash can be the same; honest archives have none.
        let mut hashes: Vec<u64> = items.iter().map(|item| item.hash).collect();
        hashes.sort_unstable();
        let shared: HashSet<u64> = hashes
            .array_windows()
            .filter_map(|[one, next]| (one == next).then_some(*one))
            .collect();
        let mut names = HashSet::new();
        let directory = directory.clone();
        Ok(items.into_iter().filter_map(move |item| {
            let found = self.read_entry(Some(&directory), item).transpose()?;
            Some(found.and_then(|placed| {
                if shared.contains(&item.hash) && !names.insert(placed.name.clone()) {
                    return Err(broken(Some(&directory), item.start, "a name is there twice in a directory").into());
                }
                Ok(placed)
            }))
        }))
    }

    /// Where all entries of a directory lie, in the order of the archive. Nothing is read but the table, and the names of those
    /// whose hashes are the same.
    ///
    /// Errors: a table that does not fill its directory; a name that is there twice.
    pub fn places(&self, directory: &Placed) -> Result<Vec<EntryPlace>, LookupError<B::Error>> {
        if directory.node.content != Content::Directory {
            return Ok(Vec::new());
        }
        let tail = self.tail(directory)?;
        let items = self.items(directory, &tail)?;
        let mut by_hash = items.clone();
        by_hash.sort_by_key(|item| item.hash);
        let mut names = HashSet::new();
        for same in by_hash.chunk_by(|one, next| one.hash == next.hash) {
            for &item in same.iter().filter(|_| same.len() > 1) {
                let found = self.read_entry(Some(directory), item)?;
                if found.is_some_and(|placed| !names.insert(placed.name)) {
                    return Err(broken(Some(directory), item.start, "a name is there twice in a directory").into());
                }
            }
        }
        Ok(items.into_iter().map(EntryPlace).collect())
    }

    /// The entry at a place; `None` for a name without an inode.
    ///
    /// Errors: the entry is not what the place says.
    pub fn entry(&self, place: EntryPlace) -> Result<Option<Placed>, LookupError<B::Error>> {
        self.read_entry(None, place.0)
    }

    /// All items of a table, in the order of the archive. They have to fill the directory without a gap.
    fn items(&self, directory: &Placed, tail: &Tail) -> Result<Vec<Item>, LookupError<B::Error>> {
        let table = self.read(tail.item_at(0)..tail.item_at(tail.items))?;
        let start = directory.content.start;
        let refuse = |rule| Err(broken(Some(directory), tail.at, rule).into());
        let items: Result<Vec<Item>, _> = table
            .chunks_exact(ITEM_LEN as usize)
            .map(|item| tail.item(item, start))
            .collect();
        let items = items.map_err(|rule| broken(Some(directory), tail.at, rule))?;
        let mut by_place = items.clone();
        by_place.sort_by_key(|item| item.start);
        // A tree by their hashes, or by their places (desync until 2019). By hashes alone: equal ones may lie either way.
        let mut sorted = by_place.clone();
        sorted.sort_by_key(|item| item.hash);
        let hashes = |items: &[Item]| items.iter().map(|item| item.hash).collect::<Vec<_>>();
        if hashes(&items) != hashes(&goodbye::as_tree(&sorted)) && items != by_place {
            return refuse("the items of a GOODBYE record are not in order");
        }
        let mut end = start;
        for item in &by_place {
            if item.start != end {
                return refuse("the items of a GOODBYE record do not fill their directory");
            }
            end = item.end;
        }
        if end != tail.at {
            return refuse("the items of a GOODBYE record do not fill their directory");
        }
        Ok(by_place)
    }

    /// The tail of a directory's table, checked against the directory.
    fn tail(&self, directory: &Placed) -> Result<Tail, LookupError<B::Error>> {
        let Range { start, end } = directory.content;
        let at = end.checked_sub(ITEM_LEN).filter(|&at| at >= start);
        let at = at.ok_or_else(|| broken(Some(directory), end, "it is cut short: a directory has no end"))?;
        let tail = self.read(at..end)?;
        let tail = Tail::parse(&tail, directory.at, end).map_err(|rule| broken(Some(directory), at, rule))?;
        if tail.entry_at != directory.at || tail.at < start {
            let rule = "a GOODBYE record's tail does not give the way to its directory";
            return Err(broken(Some(directory), at, rule).into());
        }
        if tail.items > self.limits.directory_entries_max as u64 {
            return Err(broken(Some(directory), at, "a directory has more entries than the limit").into());
        }
        Ok(tail)
    }

    /// The entry that an item points to; `None` for a name without an inode, as desync leaves them.
    fn read_entry(&self, directory: Option<&Placed>, item: Item) -> Result<Option<Placed>, LookupError<B::Error>> {
        let mut decoder = ArchiveDecoder::within(self.limits, self.flags, item.start);
        let placed = enter(&self.bytes, &mut decoder, item.start..item.end).map_err(|error| match error {
            // Before a name was read, all that is known is the directory.
            LookupError::Archive(ArchiveError { offset, entry, rule }) if entry == "." => {
                broken(directory, offset, rule).into()
            }
            error => error,
        })?;
        let name = placed.as_ref().and_then(|placed| placed.name.as_deref());
        if placed.is_some() && name.map(name_hash) != Some(item.hash) {
            return Err(broken(
                directory,
                item.start,
                "an item of a GOODBYE record points to another name",
            )
            .into());
        }
        Ok(placed)
    }

    fn read(&self, range: Range<u64>) -> Result<Bytes, LookupError<B::Error>> {
        self.bytes.read(range).map_err(LookupError::Read)
    }
}

/// Reads the entry that a decoder stands before; it has to fill `range`. `None` for a name without an inode.
fn enter<B: ArchiveBytes>(
    bytes: &B,
    decoder: &mut ArchiveDecoder,
    range: Range<u64>,
) -> Result<Option<Placed>, LookupError<B::Error>> {
    let mut read = range.start;
    // A FIFO's or socket's records end where another one's header begins.
    let readable = bytes.len().min(range.end.saturating_add(HEADER_LEN));
    loop {
        match decoder.next()? {
            Step::NeedBytes if read < readable => {
                let end = readable.min(read + HEAD_LEN);
                decoder.push(bytes.read(read..end).map_err(LookupError::Read)?);
                read = end;
            }
            Step::NeedBytes => decoder.finish(),
            Step::Enter { name, node, at } => {
                let content = decoder.position()..range.end;
                let len = content.end.checked_sub(content.start);
                let fits = match node.content {
                    Content::Directory => len.is_some(),
                    Content::File { len: expected } => len == Some(expected),
                    _ => len == Some(0),
                };
                if !fits {
                    return Err(ArchiveError {
                        offset: at,
                        entry: name
                            .as_deref()
                            .map_or_else(|| ".".to_owned(), |name| String::from_utf8_lossy(name).into_owned()),
                        rule: "an item of a GOODBYE record gives another size than the entry has",
                    }
                    .into());
                }
                return Ok(Some(Placed {
                    name,
                    node: *node,
                    at,
                    content,
                }));
            }
            Step::Orphan { .. } => return Ok(None),
            _ => {
                return Err(broken(None, range.start, "an item of a GOODBYE record points to no entry").into());
            }
        }
    }
}

/// An error of a directory's table; of the archive's beginning when there is no directory yet.
fn broken(directory: Option<&Placed>, offset: u64, rule: &'static str) -> ArchiveError {
    let name = directory.and_then(|directory| directory.name.as_deref());
    ArchiveError {
        offset,
        entry: name.map_or_else(|| ".".to_owned(), |name| String::from_utf8_lossy(name).into_owned()),
        rule,
    }
}
