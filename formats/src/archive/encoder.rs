//! A tree to an archive, node by node.

use std::collections::HashSet;

use super::error::{ArchiveError, EntryPath};
use super::goodbye::{self, Item, name_hash};
use super::metadata::{Content, Node};
use super::node::push_node;
use super::record::*;
use crate::FeatureFlags;

/// In which order a directory's entries come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ArchiveForm {
    /// By rising name, as casync writes and wants them.
    Sorted,
    /// Any, without repeats: what desync makes of a tar stream.
    AnyOrder,
}

/// Writes an archive record by record; the caller gathers the bytes.
///
/// The root first, then for each directory its entries and [`ArchiveEncoder::leave`]; after a file as many payload bytes as
/// it said. Memory: 24 bytes for each entry of the directories that are open.
#[derive(Debug)]
pub struct ArchiveEncoder {
    flags: FeatureFlags,
    form: ArchiveForm,
    position: u64,
    open: Vec<Directory>,
    path: EntryPath,
    /// The file whose payload is being written: what is left of it, and where its FILENAME is.
    payload: Option<(u64, Item)>,
    started: bool,
}

#[derive(Debug)]
struct Directory {
    /// Hash of its own name, and where its FILENAME is; for the root, where its ENTRY is.
    item: Item,
    entry_at: u64,
    items: Vec<Item>,
    last_name: Vec<u8>,
    hashes: HashSet<u64>,
}

impl ArchiveEncoder {
    /// An encoder at the beginning of an archive.
    ///
    /// Errors: flags that are not in normal form.
    pub fn new(flags: FeatureFlags, form: ArchiveForm) -> Result<Self, ArchiveError> {
        let path = EntryPath::default();
        if let Some(rule) = flags.broken_rule() {
            return Err(path.error(0, rule));
        }
        Ok(Self {
            flags,
            form,
            position: 0,
            open: Vec::new(),
            path,
            payload: None,
            started: false,
        })
    }

    /// The flags of the archive.
    pub fn flags(&self) -> FeatureFlags {
        self.flags
    }

    /// Bytes of the archive so far, payloads that were announced by [`ArchiveEncoder::payload`] included.
    pub fn position(&self) -> u64 {
        self.position
    }

    /// Whether the root was left: the archive is whole.
    pub fn is_finished(&self) -> bool {
        self.started && self.open.is_empty()
    }

    /// Appends the root, a directory, and enters it. First call of an archive.
    ///
    /// Errors: a node that breaks a rule of the format; nothing is appended then.
    pub fn root(&mut self, node: &Node, out: &mut Vec<u8>) -> Result<(), ArchiveError> {
        if self.started || node.content != Content::Directory {
            return Err(self.error("the root is one directory, and comes first"));
        }
        self.enter(node, Item::default(), out)?;
        self.started = true;
        Ok(())
    }

    /// Appends an entry of the directory that is open. A directory is entered; a file wants its payload next.
    ///
    /// - `name`: 1 to 255 bytes without `/` and NUL, not `.` or `..`.
    /// - Errors: a name or node that breaks a rule of the format, a name out of order or twice in a directory, a file whose
    ///   payload is not whole. Nothing is appended then.
    pub fn child(&mut self, name: &[u8], node: &Node, out: &mut Vec<u8>) -> Result<(), ArchiveError> {
        self.path.push(name);
        let result = self.try_child(name, node, out);
        if result.is_err() || node.content != Content::Directory && self.payload.is_none() {
            self.path.pop();
        }
        result
    }

    fn try_child(&mut self, name: &[u8], node: &Node, out: &mut Vec<u8>) -> Result<(), ArchiveError> {
        if self.payload.is_some() {
            return Err(self.error("the payload of the file before is not whole"));
        }
        if let Some(rule) = broken_name_rule(name) {
            return Err(self.error(rule));
        }
        let hash = name_hash(name);
        let fresh = match (self.open.last(), self.form) {
            (None, _) => return Err(self.error("no directory is open")),
            (Some(parent), ArchiveForm::Sorted) => parent.last_name.as_slice() < name,
            (Some(parent), ArchiveForm::AnyOrder) => !parent.hashes.contains(&hash),
        };
        if !fresh {
            return Err(self.error("names of a directory are not in order, or one is there twice"));
        }
        let start = out.len();
        push_record(out, FILENAME, &[name, b"\0"]);
        let item = Item {
            hash,
            start: self.position,
            end: 0,
        };
        self.position += (out.len() - start) as u64;
        if let Err(error) = self.enter(node, item, out) {
            self.position = item.start;
            out.truncate(start);
            return Err(error);
        }
        // The new directory, if it is one, lies above its parent by now.
        let depth = self.open.len() - 1 - usize::from(node.content == Content::Directory);
        let parent = &mut self.open[depth];
        match self.form {
            ArchiveForm::Sorted => {
                parent.last_name.clear();
                parent.last_name.extend_from_slice(name);
            }
            ArchiveForm::AnyOrder => {
                parent.hashes.insert(hash);
            }
        }
        Ok(())
    }

    fn enter(&mut self, node: &Node, item: Item, out: &mut Vec<u8>) -> Result<(), ArchiveError> {
        let (start, entry_at) = (out.len(), self.position);
        push_node(&node.metadata, &node.content, self.flags, out).map_err(|rule| self.error(rule))?;
        let mut file_len = None;
        let rule = match &node.content {
            Content::Directory | Content::Fifo | Content::Socket => None,
            Content::File { len } => {
                file_len = Some(*len);
                // Before it: names, records of this entry and the header, all far shorter than what is left below 2^64.
                match (out.len() - start) as u64 + entry_at + HEADER_LEN {
                    before if *len <= ARCHIVE_LEN_MAX.saturating_sub(before) => {
                        push_words(out, &[HEADER_LEN + len, PAYLOAD]);
                        None
                    }
                    _ => Some("a file's payload ends behind byte 2^63"),
                }
            }
            Content::Symlink { target } => {
                push_record(out, SYMLINK, &[target, b"\0"]);
                let good = (1..=TARGET_LEN_MAX).contains(&target.len()) && !target.contains(&0);
                (!good).then_some("a symbolic link's target is not 1 to 4095 bytes without NUL")
            }
            Content::CharacterDevice(device) | Content::BlockDevice(device) => {
                push_words(out, &[32, DEVICE, u64::from(device.major), u64::from(device.minor)]);
                (!device.is_good()).then_some("a device's numbers are not below 4096 and 1048576")
            }
        };
        if let Some(rule) = rule {
            out.truncate(start);
            return Err(self.error(rule));
        }
        self.position += (out.len() - start) as u64;
        match (&node.content, file_len) {
            (Content::Directory, _) => self.open.push(Directory {
                item,
                entry_at,
                items: Vec::new(),
                last_name: Vec::new(),
                hashes: HashSet::new(),
            }),
            (_, Some(len)) if len > 0 => self.payload = Some((len, item)),
            _ => self.close(item),
        }
        Ok(())
    }

    /// Counts payload of the file that was the last entry; the caller appends the bytes itself.
    ///
    /// Errors: more bytes than the file said, or no file that wants any.
    pub fn payload(&mut self, len: u64) -> Result<(), ArchiveError> {
        let Some((left, item)) = self.payload else {
            return if len == 0 {
                Ok(())
            } else {
                Err(self.error("no file wants payload"))
            };
        };
        let Some(left) = left.checked_sub(len) else {
            return Err(self.error("more payload than the file said"));
        };
        self.position += len;
        self.payload = (left > 0).then_some((left, item));
        if left == 0 {
            self.close(item);
            self.path.pop();
        }
        Ok(())
    }

    /// Payload bytes that the last file still wants.
    pub fn payload_left(&self) -> u64 {
        self.payload.map_or(0, |(left, _)| left)
    }

    /// Ends the directory that is open. The root's end is the archive's.
    ///
    /// Errors: no directory is open, or a file's payload is not whole.
    pub fn leave(&mut self, out: &mut Vec<u8>) -> Result<(), ArchiveError> {
        if self.payload.is_some() {
            return Err(self.error("the payload of the file before is not whole"));
        }
        let Some(directory) = self.open.pop() else {
            return Err(self.error("no directory is open"));
        };
        let start = out.len();
        goodbye::push(directory.items, directory.entry_at, self.position, out);
        self.position += (out.len() - start) as u64;
        self.close(directory.item);
        self.path.pop();
        Ok(())
    }

    fn close(&mut self, item: Item) {
        let end = self.position;
        if let Some(parent) = self.open.last_mut() {
            parent.items.push(Item { end, ..item });
        }
    }

    fn error(&self, rule: &'static str) -> ArchiveError {
        self.path.error(self.position, rule)
    }
}
