//! An archive to nodes, as its bytes come.
//!
//! Nothing is believed: kinds go by the mode, every length is bounded before it is waited for, tables are compared with what
//! was seen, an early end is an error and so are bytes after the end. There is no recursion: depth is a count.

use std::collections::HashSet;

use bytes::Bytes;

use super::error::{ArchiveError, EntryPath};
use super::goodbye::{self, Item, name_hash};
use super::metadata::{Content, Device, Node, kind_of};
use super::node::NodeReader;
use super::record::*;
use crate::FeatureFlags;
use crate::input::Input;

/// What a reader puts up with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ArchiveLimits {
    /// Directories inside each other, root included. casync stops at 64 nodes.
    pub depth_max: usize,
    /// Entries of one directory; each costs 24 bytes of memory until the directory ends.
    pub directory_entries_max: usize,
    /// Bytes of ENTRY and the records that belong to it.
    pub metadata_len_max: u64,
}

impl Default for ArchiveLimits {
    fn default() -> Self {
        Self {
            depth_max: 2048,
            directory_entries_max: 1 << 24,
            metadata_len_max: 8 << 20,
        }
    }
}

/// What comes next in an archive.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Step {
    /// Nothing, until more bytes are pushed (or the end is told).
    NeedBytes,
    /// An entry. A directory is entered; a file's payload follows, if it has any.
    Enter {
        /// Its name in the directory that is open; `None` for the root.
        name: Option<Bytes>,
        /// What it is.
        node: Box<Node>,
        /// Offset of its ENTRY record.
        at: u64,
    },
    /// Bytes of the file entered last, in order, until there are as many as it said.
    Payload(Bytes),
    /// A name without an inode, as desync writes for FIFOs and sockets: something is missing here.
    Orphan {
        /// The name.
        name: Bytes,
    },
    /// The directory that is open has ended.
    Leave,
    /// The archive is whole and nothing follows it.
    End,
}

/// Reads an archive from bytes pushed in.
#[derive(Debug)]
pub struct ArchiveDecoder {
    limits: ArchiveLimits,
    input: Input,
    finished: bool,
    position: u64,
    flags: Option<FeatureFlags>,
    open: Vec<Directory>,
    path: EntryPath,
    state: State,
}

#[derive(Debug)]
struct Directory {
    item: Item,
    entry_at: u64,
    items: Vec<Item>,
    last_name: Vec<u8>,
    /// Hashes of all names, once one came out of order.
    unsorted: Option<HashSet<u64>>,
}

#[derive(Debug)]
enum State {
    /// An ENTRY has to come: the root's, or that of the name before.
    Entry { name: Option<Bytes>, item: Item },
    /// Records of an entry, then what its kind wants.
    Records {
        name: Option<Bytes>,
        item: Item,
        at: u64,
        reader: Box<NodeReader>,
    },
    /// A file's bytes.
    Payload { item: Item, left: u64 },
    /// A FILENAME or the GOODBYE of the directory that is open.
    Children,
    /// After the root's GOODBYE.
    Ended,
    /// After an error: it is given again.
    Failed(ArchiveError),
}

impl ArchiveDecoder {
    /// A decoder at the beginning of an archive.
    pub fn new(limits: ArchiveLimits) -> Self {
        let item = Item::default();
        Self {
            limits,
            input: Input::default(),
            finished: false,
            position: 0,
            flags: None,
            open: Vec::new(),
            path: EntryPath::default(),
            state: State::Entry { name: None, item },
        }
    }

    /// A decoder before the FILENAME of some entry, at `position`. Good for that entry alone: what is around it is not known.
    pub(super) fn within(limits: ArchiveLimits, flags: FeatureFlags, position: u64) -> Self {
        Self {
            position,
            flags: Some(flags),
            open: vec![Directory {
                item: Item::default(),
                entry_at: 0,
                items: Vec::new(),
                last_name: Vec::new(),
                unsorted: None,
            }],
            state: State::Children,
            ..Self::new(limits)
        }
    }

    /// The flags of the archive, once its root was read.
    pub fn flags(&self) -> Option<FeatureFlags> {
        self.flags
    }

    /// Offset of the next byte to be looked at.
    pub fn position(&self) -> u64 {
        self.position
    }

    /// Takes the next bytes of the archive. Push after [`Step::NeedBytes`], so that little lies about.
    pub fn push(&mut self, bytes: Bytes) {
        self.input.push(bytes);
    }

    /// Tells that no bytes follow those pushed.
    pub fn finish(&mut self) {
        self.finished = true;
    }

    /// What comes next.
    ///
    /// Errors: the first rule of the format or limit that the archive breaks, with entry and offset; the same again ever after.
    #[expect(
        clippy::should_implement_trait,
        reason = "an error or a need of bytes is not the end of an iteration"
    )]
    pub fn next(&mut self) -> Result<Step, ArchiveError> {
        if let State::Failed(error) = &self.state {
            return Err(error.clone());
        }
        let result = self.try_next();
        if let Err(error) = &result {
            self.state = State::Failed(error.clone());
        }
        result
    }

    fn try_next(&mut self) -> Result<Step, ArchiveError> {
        loop {
            let step = match std::mem::replace(&mut self.state, State::Children) {
                State::Entry { name, item } => self.entry(name, item)?,
                State::Records { name, item, at, reader } => self.records(name, item, at, reader)?,
                State::Payload { item, left } => self.payload(item, left)?,
                State::Children => self.children()?,
                State::Ended => self.ended()?,
                State::Failed(error) => return Err(error),
            };
            if let Some(step) = step {
                return Ok(step);
            }
        }
    }

    /// An ENTRY, its body included.
    fn entry(&mut self, name: Option<Bytes>, item: Item) -> Result<Option<Step>, ArchiveError> {
        let first = self
            .input
            .peek()
            .map(|bytes: [u8; HEADER_LEN as usize]| Header::parse(&bytes));
        if name.is_none() && first.is_some_and(|first| first.kind != ENTRY_TYPE) {
            return Err(self.error("it does not start with an ENTRY: it is no archive"));
        }
        let Some(header) = self.header()? else {
            self.state = State::Entry { name, item };
            return Ok(Some(Step::NeedBytes));
        };
        if header.kind != ENTRY_TYPE {
            // What desync leaves of a FIFO or socket.
            if let (Some(name), true, FILENAME | GOODBYE) = (
                &name,
                self.flags.is_some_and(FeatureFlags::is_desync_archive),
                header.kind,
            ) {
                let name = name.clone();
                self.close(item);
                self.path.pop();
                self.state = State::Children;
                return Ok(Some(Step::Orphan { name }));
            }
            return Err(self.error("no ENTRY follows a FILENAME"));
        }
        let at = self.position;
        let Some(record) = self.take(ENTRY_LEN)? else {
            self.state = State::Entry { name, item };
            return Ok(Some(Step::NeedBytes));
        };
        let reader =
            NodeReader::start(&record[HEADER_LEN as usize..], self.flags).map_err(|rule| self.path.error(at, rule))?;
        self.flags = Some(reader.flags);
        if name.is_none() && kind_of(reader.metadata.mode) != Content::Directory.kind_bits() {
            return Err(self.path.error(at, "the root is not a directory"));
        }
        self.state = State::Records {
            name,
            item,
            at,
            reader: Box::new(reader),
        };
        Ok(None)
    }

    fn records(
        &mut self,
        name: Option<Bytes>,
        item: Item,
        at: u64,
        mut reader: Box<NodeReader>,
    ) -> Result<Option<Step>, ArchiveError> {
        while let Some(header) = self.header()? {
            if NodeReader::takes(header.kind) {
                let offset = self.position;
                let Some(record) = self.take(header.size)? else {
                    break;
                };
                reader
                    .add(
                        header.kind,
                        record.slice(HEADER_LEN as usize..),
                        self.limits.metadata_len_max,
                    )
                    .map_err(|rule| self.path.error(offset, rule))?;
                continue;
            }
            if let Some(rule) = reader.broken_rule() {
                return Err(self.error(rule));
            }
            let Some(content) = self.content(&reader, header)? else {
                break;
            };
            return self.enter(name, item, at, reader, content).map(Some);
        }
        self.state = State::Records { name, item, at, reader };
        Ok(Some(Step::NeedBytes))
    }

    /// The record that an inode's kind wants, or `None` while it is not all there. The kind goes by the mode alone.
    fn content(&mut self, reader: &NodeReader, header: Header) -> Result<Option<Content>, ArchiveError> {
        let kind = kind_of(reader.metadata.mode);
        let content = match kind {
            0o040_000 => Content::Directory,
            0o010_000 => Content::Fifo,
            0o140_000 => Content::Socket,
            0o100_000 => {
                self.expect(header, PAYLOAD, "no PAYLOAD follows a regular file's ENTRY")?;
                if header.size > ARCHIVE_LEN_MAX.saturating_sub(self.position) {
                    return Err(self.error("a file's payload ends behind byte 2^63"));
                }
                if self.take(HEADER_LEN)?.is_none() {
                    return Ok(None);
                }
                Content::File {
                    len: header.size - HEADER_LEN,
                }
            }
            0o120_000 => {
                self.expect(header, SYMLINK, "no SYMLINK follows a symbolic link's ENTRY")?;
                let offset = self.position;
                let Some(record) = self.take(header.size)? else {
                    return Ok(None);
                };
                let rule = "a symbolic link's target is empty, holds a NUL or does not end in one";
                let target = text(&record.slice(HEADER_LEN as usize..));
                Content::Symlink {
                    target: target.ok_or_else(|| self.path.error(offset, rule))?,
                }
            }
            _ => {
                self.expect(header, DEVICE, "no DEVICE follows a device's ENTRY")?;
                let offset = self.position;
                let Some(record) = self.take(header.size)? else {
                    return Ok(None);
                };
                let numbers = (u32::try_from(word(&record, 16)), u32::try_from(word(&record, 24)));
                let device = match numbers {
                    (Ok(major), Ok(minor)) => Some(Device { major, minor }),
                    _ => None,
                };
                let device = device.filter(|device| device.is_good()).ok_or_else(|| {
                    self.path
                        .error(offset, "a device's numbers are not below 4096 and 1048576")
                })?;
                if kind == 0o020_000 {
                    Content::CharacterDevice(device)
                } else {
                    Content::BlockDevice(device)
                }
            }
        };
        Ok(Some(content))
    }

    fn expect(&self, header: Header, kind: u64, rule: &'static str) -> Result<(), ArchiveError> {
        if header.kind == kind {
            Ok(())
        } else {
            Err(self.error(rule))
        }
    }

    fn enter(
        &mut self,
        name: Option<Bytes>,
        item: Item,
        at: u64,
        reader: Box<NodeReader>,
        content: Content,
    ) -> Result<Step, ArchiveError> {
        match content {
            Content::Directory => {
                if self.open.len() >= self.limits.depth_max {
                    return Err(self.error("directories are nested deeper than the limit"));
                }
                self.open.push(Directory {
                    item,
                    entry_at: at,
                    items: Vec::new(),
                    last_name: Vec::new(),
                    unsorted: None,
                });
                self.state = State::Children;
            }
            Content::File { len } if len > 0 => self.state = State::Payload { item, left: len },
            _ => {
                self.close(item);
                self.path.pop();
                self.state = State::Children;
            }
        }
        let metadata = reader.metadata;
        Ok(Step::Enter {
            name,
            node: Box::new(Node { metadata, content }),
            at,
        })
    }

    fn payload(&mut self, item: Item, left: u64) -> Result<Option<Step>, ArchiveError> {
        let Some(bytes) = self.input.take_some(left) else {
            self.state = State::Payload { item, left };
            return self.starved();
        };
        let len = bytes.len() as u64;
        self.position += len;
        if len < left {
            self.state = State::Payload { item, left: left - len };
        } else {
            self.close(item);
            self.path.pop();
            self.state = State::Children;
        }
        Ok(Some(Step::Payload(bytes)))
    }

    fn children(&mut self) -> Result<Option<Step>, ArchiveError> {
        let Some(header) = self.header()? else {
            return Ok(Some(Step::NeedBytes));
        };
        match header.kind {
            FILENAME => {
                let start = self.position;
                let Some(record) = self.take(header.size)? else {
                    return Ok(Some(Step::NeedBytes));
                };
                let body = record.slice(HEADER_LEN as usize..);
                let rule = "a name is empty, holds a NUL or does not end in one";
                let name = text(&body).ok_or_else(|| self.path.error(start, rule))?;
                self.path.push(&name);
                if let Some(rule) = broken_name_rule(&name) {
                    return Err(self.path.error(start, rule));
                }
                let hash = name_hash(&name);
                if let Err(rule) = self.check_name(&name, hash) {
                    return Err(self.path.error(start, rule));
                }
                let item = Item { hash, start, end: 0 };
                self.state = State::Entry { name: Some(name), item };
                Ok(None)
            }
            GOODBYE => self.goodbye(header),
            _ => Err(self.error("neither a FILENAME nor a GOODBYE follows in a directory")),
        }
    }

    /// Names may come in any order (desync keeps that of a tar), but only once. By their hashes, once they are out of order:
    /// two names of one hash are taken for one, which nobody meets without meaning to.
    fn check_name(&mut self, name: &Bytes, hash: u64) -> Result<(), &'static str> {
        let limit = self.limits.directory_entries_max;
        let Some(directory) = self.open.last_mut() else {
            return Err("no directory is open");
        };
        if directory.items.len() >= limit {
            return Err("a directory has more entries than the limit");
        }
        if directory.unsorted.is_none() && **name <= *directory.last_name {
            directory.unsorted = Some(directory.items.iter().map(|item| item.hash).collect());
        }
        let again = directory.unsorted.as_mut().is_some_and(|hashes| !hashes.insert(hash));
        if again {
            return Err("a name is there twice in a directory");
        }
        // A copy: a slice would keep all that was pushed with it.
        directory.last_name.clear();
        directory.last_name.extend_from_slice(name);
        Ok(())
    }

    fn goodbye(&mut self, header: Header) -> Result<Option<Step>, ArchiveError> {
        let at = self.position;
        let entries = self.open.last().map_or(0, |directory| directory.items.len() as u64);
        if goodbye::record_len(entries) != Some(header.size) {
            return Err(self.error("a GOODBYE record's size does not go with the entries of its directory"));
        }
        let Some(record) = self.take(header.size)? else {
            return Ok(Some(Step::NeedBytes));
        };
        let Some(directory) = self.open.pop() else {
            return Err(self.error("no directory is open"));
        };
        if let Some(rule) = goodbye::broken_rule(&record, directory.items, directory.entry_at, at) {
            return Err(self.path.error(at, rule));
        }
        self.close(directory.item);
        self.path.pop();
        self.state = if self.open.is_empty() {
            State::Ended
        } else {
            State::Children
        };
        Ok(Some(Step::Leave))
    }

    fn ended(&mut self) -> Result<Option<Step>, ArchiveError> {
        self.state = State::Ended;
        if self.input.len() > 0 {
            return Err(self.error("bytes follow the end of the root directory"));
        }
        Ok(Some(if self.finished { Step::End } else { Step::NeedBytes }))
    }

    fn close(&mut self, item: Item) {
        let end = self.position;
        if let Some(parent) = self.open.last_mut() {
            parent.items.push(Item { end, ..item });
        }
    }

    /// The header of the next record, not taken, its size checked; `None` while it is not all there.
    fn header(&mut self) -> Result<Option<Header>, ArchiveError> {
        let Some(bytes) = self.input.peek::<{ HEADER_LEN as usize }>() else {
            self.starved()?;
            return Ok(None);
        };
        let header = Header::parse(&bytes);
        match header.sizes() {
            None => Err(self.error("a record of unknown type")),
            Some(sizes) if !sizes.contains(&header.size) => {
                Err(self.error("a record's size is outside what its type may have"))
            }
            Some(_) => Ok(Some(header)),
        }
    }

    /// The next `len` bytes, `None` while they are not all there. The caller bounded `len`.
    fn take(&mut self, len: u64) -> Result<Option<Bytes>, ArchiveError> {
        let Some(bytes) = self.input.take(len) else {
            self.starved()?;
            return Ok(None);
        };
        self.position += len;
        Ok(Some(bytes))
    }

    /// Too few bytes are there: right as long as more may come.
    fn starved(&self) -> Result<Option<Step>, ArchiveError> {
        if self.finished {
            return Err(self.path.error(
                self.position + self.input.len(),
                "it is cut short: the directories that are open have no end",
            ));
        }
        Ok(Some(Step::NeedBytes))
    }

    fn error(&self, rule: &'static str) -> ArchiveError {
        self.path.error(self.position, rule)
    }
}
