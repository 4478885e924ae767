//! An archive's entries as a tar stream, as they come: POSIX headers, with extensions where the plain ones do not suffice
//! (long names, times finer than a second, extended attributes). GNU tar, bsdtar and container tools read it.

use std::io::{self, Write};
use std::path::PathBuf;

use bytes::Bytes;
use cairn_formats::{AclEntry, Content, FeatureFlags, Node};
use tar::{EntryType, Header};

use super::note::{Note, Notes};
use super::shown::Shown;
use super::unpack::TreeSink;
use crate::engine::Result;
use crate::engine::error::file;

const BLOCK_LEN: u64 = 512;
/// Largest number that seven, or eleven, octal digits hold.
const ID_MAX: u64 = 0o7_777_777;
const SIZE_MAX: u64 = 0o77_777_777_777;
/// Bytes of a name, and of a link's target, in a plain header.
const NAME_LEN_MAX: usize = 100;

/// Writes a tar.
pub(crate) struct TarWriter<W> {
    output: W,
    target: PathBuf,
    path: Vec<u8>,
    path_lens: Vec<usize>,
    /// Payload of the file in hand, and zeros to fill its last block.
    left: u64,
    padding: usize,
    notes: Notes,
    shown: Option<Shown>,
}

impl<W: Write> TarWriter<W> {
    /// - `target`: what the output is called in errors.
    pub(crate) fn new(output: W, target: PathBuf) -> Self {
        Self {
            output,
            target,
            path: Vec::new(),
            path_lens: Vec::new(),
            left: 0,
            padding: 0,
            notes: Notes::default(),
            shown: None,
        }
    }

    /// Ends the tar.
    pub(crate) fn finish(mut self) -> Result<(W, Notes)> {
        self.write(&[0; 2 * BLOCK_LEN as usize])?;
        self.output.flush().map_err(file(&self.target, "write"))?;
        Ok((self.output, self.notes))
    }

    fn write(&mut self, bytes: &[u8]) -> Result<()> {
        self.output.write_all(bytes).map_err(file(&self.target, "write"))
    }

    /// A header, and before it one with what it cannot hold.
    fn header(&mut self, node: &Node, kind: EntryType) -> Result<()> {
        let metadata = &node.metadata;
        let mut header = Header::new_ustar();
        let mut more = Vec::new();
        header.set_entry_type(kind);
        header.set_mode(metadata.mode & 0o7777);
        let seconds = metadata.mtime.div_euclid(1_000_000_000);
        let nanoseconds = metadata.mtime.rem_euclid(1_000_000_000);
        let plain = u64::try_from(seconds).ok().filter(|&seconds| seconds <= SIZE_MAX);
        header.set_mtime(plain.unwrap_or_default());
        if nanoseconds != 0 || plain.is_none() {
            record(&mut more, b"mtime", decimal(metadata.mtime).as_bytes());
        }
        for (id, key) in [(metadata.uid, "uid"), (metadata.gid, "gid")] {
            let id = u64::from(id);
            let small = if id <= ID_MAX { id } else { 0 };
            match key {
                "uid" => header.set_uid(small),
                _ => header.set_gid(small),
            }
            if id > ID_MAX {
                record(&mut more, key.as_bytes(), id.to_string().as_bytes());
            }
        }
        let len = match node.content {
            Content::File { len } => len,
            _ => 0,
        };
        header.set_size(if len <= SIZE_MAX { len } else { 0 });
        if len > SIZE_MAX {
            record(&mut more, b"size", len.to_string().as_bytes());
        }
        let mut name = if self.path.is_empty() {
            b".".to_vec()
        } else {
            self.path.clone()
        };
        if kind == EntryType::Directory {
            name.push(b'/');
        }
        let target: &[u8] = match &node.content {
            Content::Symlink { target } => target,
            _ => b"",
        };
        if name.len() > NAME_LEN_MAX {
            record(&mut more, b"path", &name);
        }
        if target.len() > NAME_LEN_MAX {
            record(&mut more, b"linkpath", target);
        }
        if let Some(ustar) = header.as_ustar_mut() {
            for (place, bytes) in [(&mut ustar.name, name.as_slice()), (&mut ustar.linkname, target)] {
                let len = bytes.len().min(NAME_LEN_MAX);
                place[..len].copy_from_slice(&bytes[..len]);
            }
            for (place, name) in [(&mut ustar.uname, &metadata.user), (&mut ustar.gname, &metadata.group)] {
                // One byte is the NUL's.
                let name = name
                    .as_deref()
                    .filter(|name| name.len() < place.len())
                    .unwrap_or_default();
                place[..name.len()].copy_from_slice(name);
            }
        }
        if let Content::CharacterDevice(device) | Content::BlockDevice(device) = node.content {
            let number = |set: io::Result<()>| set.map_err(file(&self.target, "write a device to"));
            number(header.set_device_major(device.major))?;
            number(header.set_device_minor(device.minor))?;
        }
        if let Some(shown) = &self.shown {
            // As star and GNU tar keep them.
            for (name, value) in shown.xattrs(node) {
                record(&mut more, &[b"SCHILY.xattr.", name.as_ref()].concat(), &value);
            }
        }
        acls(&mut more, node);
        header.set_cksum();
        if !more.is_empty() {
            let mut extension = Header::new_ustar();
            extension.set_entry_type(EntryType::XHeader);
            extension.set_size(more.len() as u64);
            extension.set_mode(0o644);
            extension.set_mtime(0);
            extension.set_uid(0);
            extension.set_gid(0);
            if let Some(ustar) = extension.as_ustar_mut() {
                ustar.name[..8].copy_from_slice(b"./@PaxHd");
            }
            extension.set_cksum();
            self.write(extension.as_bytes())?;
            more.resize(more.len().next_multiple_of(BLOCK_LEN as usize), 0);
            self.write(&more)?;
        }
        self.write(header.as_bytes())?;
        self.left = len;
        self.padding = (len.next_multiple_of(BLOCK_LEN) - len) as usize;
        Ok(())
    }
}

impl<W: Write> TreeSink for TarWriter<W> {
    fn start(&mut self, flags: FeatureFlags) -> Result<()> {
        self.shown = Some(Shown::new(flags));
        Ok(())
    }

    fn enter(&mut self, name: Option<Bytes>, node: Box<Node>) -> Result<()> {
        let len = self.path.len();
        if let Some(name) = name {
            if !self.path.is_empty() {
                self.path.push(b'/');
            }
            self.path.extend_from_slice(&name);
        }
        let kind = match &node.content {
            Content::Directory => EntryType::Directory,
            Content::File { .. } => EntryType::Regular,
            Content::Symlink { .. } => EntryType::Symlink,
            Content::CharacterDevice(_) => EntryType::Char,
            Content::BlockDevice(_) => EntryType::Block,
            Content::Fifo => EntryType::Fifo,
            Content::Socket => {
                self.notes
                    .push(Note::new(&self.path, "it is left out: tars have no sockets".to_owned()));
                self.path.truncate(len);
                return Ok(());
            }
        };
        self.header(&node, kind)?;
        if kind == EntryType::Directory {
            self.path_lens.push(len);
        } else {
            self.path.truncate(len);
        }
        Ok(())
    }

    fn payload(&mut self, bytes: Bytes) -> Result<()> {
        self.write(&bytes)?;
        self.left -= bytes.len() as u64;
        if self.left == 0 {
            self.write(&[0; BLOCK_LEN as usize][..self.padding])?;
        }
        Ok(())
    }

    fn orphan(&mut self, name: Bytes) -> Result<()> {
        let path = [self.path.as_slice(), &name].join(&b'/');
        self.notes.push(Note::new(
            &path,
            "the archive has a name for it and nothing else".to_owned(),
        ));
        Ok(())
    }

    fn leave(&mut self) -> Result<()> {
        if let Some(len) = self.path_lens.pop() {
            self.path.truncate(len);
        }
        Ok(())
    }
}

/// Appends `LENGTH KEY=VALUE\n`, the length being that of all of it.
fn record(out: &mut Vec<u8>, key: &[u8], value: &[u8]) {
    let rest = key.len() + value.len() + 3;
    let mut len = rest + 1;
    while len != rest + len.to_string().len() {
        len = rest + len.to_string().len();
    }
    out.extend_from_slice(len.to_string().as_bytes());
    for part in [b" ", key, b"=", value, b"\n"] {
        out.extend_from_slice(part);
    }
}

/// ACLs in words, which is how GNU tar and star take them.
fn acls(out: &mut Vec<u8>, node: &Node) {
    let acl = &node.metadata.acl;
    let class = |shift: u32| (node.metadata.mode >> shift & 7) as u8;
    if let Some(group) = acl.group_obj {
        let text = acl_text(class(6), &acl.users, group, &acl.groups, Some(class(3)), class(0));
        record(out, b"SCHILY.acl.access", text.as_bytes());
    }
    if let Some(default) = acl.default {
        let (users, groups) = (&acl.default_users, &acl.default_groups);
        let text = acl_text(
            default.user_obj,
            users,
            default.group_obj,
            groups,
            default.mask,
            default.other,
        );
        record(out, b"SCHILY.acl.default", text.as_bytes());
    }
}

fn acl_text(user: u8, users: &[AclEntry], group: u8, groups: &[AclEntry], mask: Option<u8>, other: u8) -> String {
    let bits = |permissions: u8| {
        let bit = |bit: u8, letter| if permissions & bit != 0 { letter } else { '-' };
        [bit(4, 'r'), bit(2, 'w'), bit(1, 'x')].iter().collect::<String>()
    };
    let named = |tag: &str, entries: &[AclEntry]| {
        let texts = entries.iter().map(|entry| {
            let name = entry.name.as_deref().and_then(|name| std::str::from_utf8(name).ok());
            let who = name.map_or_else(|| entry.id.to_string(), str::to_owned);
            format!("{tag}:{who}:{}\n", bits(entry.permissions))
        });
        texts.collect::<String>()
    };
    let mask = mask.map_or(String::new(), |mask| format!("mask::{}\n", bits(mask)));
    format!(
        "user::{}\n{}group::{}\n{}{mask}other::{}\n",
        bits(user),
        named("user", users),
        bits(group),
        named("group", groups),
        bits(other)
    )
}

/// Nanoseconds as a decimal number of seconds.
fn decimal(nanoseconds: i128) -> String {
    let (sign, size) = if nanoseconds < 0 {
        ("-", -nanoseconds)
    } else {
        ("", nanoseconds)
    };
    format!("{sign}{}.{:09}", size / 1_000_000_000, size % 1_000_000_000)
}
