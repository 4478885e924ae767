//! A tar file as the bytes of an archive, without unpacking it.
//!
//! One pass over the headers makes a tree in memory (a name that comes again replaces what came before, as unpacking would);
//! then the archive is pulled from it, its folders in byte order, files read where they lie in the tar. So the archive is the
//! one that the unpacked tree would give: desync keeps the tar's order, which casync cannot restore, and empties hard links.
//!
//! Headers by the `tar` crate. Memory: one node per entry.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, Seek as _};
use std::ops::Range;
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use bytes::Bytes;
use cairn_formats::{ArchiveEncoder, ArchiveForm, Content, Device, FeatureFlags, Metadata, Node, Xattr};
use rustix::io::Errno;
use tar::{EntryType, Header};

use super::acl;
use super::archive_reader::{ArchiveReader, Walk};
use super::note::{Note, Notes};
use super::owner_shift::OwnerShift;
use super::system::{Owner, Owners};
use super::walk::WalkOptions;
use crate::engine::Result;
use crate::engine::error::file;

/// Mode of folders that a tar implies but does not hold, the root among them.
const IMPLIED_MODE: u32 = 0o755;
/// Bytes of one extension: names, attributes.
const EXTENSION_LEN_MAX: u64 = 4 << 20;
/// Folders inside each other.
const DEPTH_MAX: usize = 2048;

/// The archive of what is in a tar file, to be read.
pub(crate) type TarReader = ArchiveReader<TarWalk>;

/// Goes through the entries of a tar file.
pub(crate) struct TarWalk {
    source: PathBuf,
    tar: File,
    encoder: ArchiveEncoder,
    shift: Option<OwnerShift>,
    folders: Vec<std::collections::btree_map::IntoIter<Vec<u8>, Branch>>,
    data: Option<Data>,
    notes: Notes,
}

/// An entry and, for a folder, what is in it.
#[derive(Default)]
struct Branch {
    metadata: Metadata,
    content: Option<Content>,
    place: Place,
    children: BTreeMap<Vec<u8>, Branch>,
}

/// Where a file's bytes are.
#[derive(Clone, Default)]
struct Place {
    /// Where the first byte is in the tar.
    at: u64,
    /// The pieces of the file that are there, one behind the other, in order; zeros are between them. `None`: all of it.
    pieces: Option<Arc<[Range<u64>]>>,
}

/// A file whose bytes are being read.
struct Data {
    place: Place,
    /// Offset in the file.
    offset: u64,
    len: u64,
    /// Pieces that are behind the offset, and bytes of the tar before the one at hand.
    passed: usize,
    passed_len: u64,
}

impl Data {
    /// What comes next: so many bytes from there in the tar, or zeros.
    fn next(&mut self) -> (u64, Option<u64>) {
        let Some(pieces) = &self.place.pieces else {
            return (self.len - self.offset, Some(self.place.at + self.offset));
        };
        while let Some(piece) = pieces.get(self.passed).filter(|piece| piece.end <= self.offset) {
            self.passed += 1;
            self.passed_len += piece.end - piece.start;
        }
        match pieces.get(self.passed) {
            Some(piece) if piece.start <= self.offset => {
                let at = self.place.at + self.passed_len + (self.offset - piece.start);
                (piece.end - self.offset, Some(at))
            }
            Some(piece) => (piece.start - self.offset, None),
            None => (self.len - self.offset, None),
        }
    }
}

impl TarReader {
    /// Reads the headers of a tar file; `-` is standard input, which goes through a file without a name.
    ///
    /// Errors: it cannot be read or is no tar, or an entry's name leads out of the tree.
    pub(crate) fn open(source: &Path, options: &WalkOptions) -> Result<Self> {
        let flags = options.flags;
        let read = |error| file(source, "read")(error);
        let tar = if source == Path::new("-") {
            let mut spool = tempfile::tempfile().map_err(file(source, "make a temporary file for"))?;
            io::copy(&mut io::stdin().lock(), &mut spool).map_err(read)?;
            spool.rewind().map_err(read)?;
            spool
        } else {
            File::open(source).map_err(file(source, "open"))?
        };
        let mut notes = Notes::default();
        let mut root = tree(&tar, source, flags, &mut notes)?;
        let form = ArchiveForm::Sorted;
        let mut walk = TarWalk {
            source: source.to_owned(),
            tar,
            encoder: ArchiveEncoder::new(flags, form)?,
            shift: options.shift,
            folders: Vec::new(),
            data: None,
            notes,
        };
        let mut node = Node {
            metadata: std::mem::take(&mut root.metadata),
            content: Content::Directory,
        };
        walk.shift(b".", &mut node.metadata)?;
        let mut records = Vec::with_capacity(4096);
        walk.encoder.root(&node.reduced(flags), &mut records)?;
        walk.folders.push(root.children.into_iter());
        Ok(Self::new(walk, records))
    }
}

impl TarWalk {
    /// Gives owners the numbers that the archive has for them.
    fn shift(&self, name: &[u8], metadata: &mut Metadata) -> Result<()> {
        let shifted = self.shift.map_or(Ok(()), |shift| shift.to_archive(metadata));
        shifted.map_err(|error| file(&self.source, "read the tar")(named(error, name)))
    }
}

impl Walk for TarWalk {
    fn read_file(&mut self, room: &mut [u8]) -> Result<Option<usize>> {
        let Some(data) = &mut self.data else { return Ok(None) };
        let (len, at) = data.next();
        let len = len.min(room.len() as u64) as usize;
        let read = match at {
            None => {
                room[..len].fill(0);
                len
            }
            Some(at) => match rustix::io::pread(&self.tar, &mut room[..len], at) {
                Err(Errno::INTR) => return Ok(Some(0)),
                read => read.map_err(|error| file(&self.source, "read")(error.into()))?,
            },
        };
        if read == 0 {
            let missing = data.len - data.offset;
            let words = format!("it is cut short: {missing} bytes of a file are missing");
            return Err(file(&self.source, "read the tar")(io::Error::other(words)));
        }
        data.offset += read as u64;
        if data.offset == data.len {
            self.data = None;
        }
        self.encoder.payload(read as u64)?;
        Ok(Some(read))
    }

    fn step(&mut self, records: &mut Vec<u8>) -> Result<bool> {
        let Some(folder) = self.folders.last_mut() else {
            return Ok(false);
        };
        let Some((name, branch)) = folder.next() else {
            self.folders.pop();
            self.encoder.leave(records)?;
            return Ok(true);
        };
        let flags = self.encoder.flags();
        let content = branch.content.unwrap_or(Content::Directory);
        if !content.is_kept_by(flags) {
            return Ok(true);
        }
        let mut node = Node {
            metadata: branch.metadata,
            content,
        };
        self.shift(&name, &mut node.metadata)?;
        let node = node.reduced(flags);
        self.encoder.child(&name, &node, records)?;
        match node.content {
            Content::Directory => {
                self.folders.push(branch.children.into_iter());
            }
            Content::File { len } if len > 0 => {
                self.data = Some(Data {
                    place: branch.place,
                    offset: 0,
                    len,
                    passed: 0,
                    passed_len: 0,
                });
            }
            _ => {}
        }
        Ok(true)
    }

    fn take_notes(&mut self) -> Notes {
        std::mem::take(&mut self.notes)
    }
}

/// Where the pieces of a sparse file are, whose GNU header is at `header`.
///
/// Errors: pieces out of order or beyond the file's end.
fn sparse(tar: &File, header: u64, len: u64) -> io::Result<Place> {
    /// Offset in a header, and number, of pieces; the flag that more blocks of them follow.
    const FIRST: (usize, usize, usize) = (386, 4, 482);
    const MORE: (usize, usize, usize) = (0, 21, 504);
    let mut pieces: Vec<Range<u64>> = Vec::new();
    let (mut at, mut form) = (header, FIRST);
    loop {
        let mut block = [0; 512];
        tar.read_exact_at(&mut block, at)?;
        at += block.len() as u64;
        let (start, count, flag) = form;
        for piece in block[start..start + count * 24].chunks_exact(24) {
            let (Some(offset), Some(size)) = (octal(&piece[..12]), octal(&piece[12..])) else {
                break;
            };
            let end = offset.checked_add(size).filter(|&end| end <= len);
            let end = end.filter(|_| pieces.last().is_none_or(|last| last.end <= offset));
            let end = end.ok_or_else(|| io::Error::other("the pieces of a sparse file do not fit in it"))?;
            if size > 0 {
                pieces.push(offset..end);
            }
        }
        if block[flag] == 0 {
            break;
        }
        form = MORE;
    }
    Ok(Place {
        at,
        pieces: Some(pieces.into()),
    })
}

/// Where the pieces of a sparse file in posix form 1.0 are: its data begins with a map, decimal lines padded to a block.
///
/// Errors: no such map, or pieces out of order or beyond the file's end.
fn sparse_in_data(tar: &File, entry: &Entry, len: u64) -> io::Result<Place> {
    let bad = || io::Error::other("the map of its pieces is not in its form");
    let mut map = vec![0; entry.len.min(EXTENSION_LEN_MAX) as usize];
    tar.read_exact_at(&mut map, entry.data_at)?;
    let mut read = 0;
    let mut number = || -> io::Result<u64> {
        let line = map[read..].split(|&byte| byte == b'\n').next().unwrap_or_default();
        read += line.len() + 1;
        let number = std::str::from_utf8(line).ok().filter(|_| read <= map.len());
        number.and_then(|line| line.parse().ok()).ok_or_else(bad)
    };
    let mut pieces: Vec<Range<u64>> = Vec::new();
    for _ in 0..number()? {
        let (offset, size) = (number()?, number()?);
        let end = offset.checked_add(size).filter(|&end| end <= len);
        let end = end.filter(|_| pieces.last().is_none_or(|last| last.end <= offset));
        let end = end.ok_or_else(bad)?;
        if size > 0 {
            pieces.push(offset..end);
        }
    }
    Ok(Place {
        at: entry.data_at + (read as u64).next_multiple_of(512),
        pieces: Some(pieces.into()),
    })
}

/// Blocks of pieces after the GNU header of a sparse file.
fn sparse_blocks(tar: &File, header: u64) -> io::Result<u64> {
    let mut more = [0];
    tar.read_exact_at(&mut more, header + 482)?;
    let mut blocks = 0;
    while more[0] != 0 {
        blocks += 1;
        tar.read_exact_at(&mut more, header + 512 * blocks + 504)?;
    }
    Ok(blocks)
}

/// A number of a header, octal or in base 256; `None` for an empty field.
fn octal(field: &[u8]) -> Option<u64> {
    if field[0] & 0x80 != 0 {
        return Some(u64::from_be_bytes(field[4..].try_into().ok()?));
    }
    let text = std::str::from_utf8(field).ok()?.trim_matches(['\0', ' ']);
    u64::from_str_radix(text, 8).ok()
}

/// One entry's header, with what the extensions before it say.
struct Entry {
    header: Header,
    /// Where the header and the data are.
    header_at: u64,
    data_at: u64,
    /// Bytes of data in the tar.
    len: u64,
    path: Vec<u8>,
    link: Vec<u8>,
    extensions: Vec<(Vec<u8>, Vec<u8>)>,
}

impl Entry {
    /// Length of a sparse file in posix form 1.0.
    fn sparse_len(&self) -> Option<u64> {
        let len = find(&self.extensions, b"GNU.sparse.realsize")?;
        std::str::from_utf8(len).ok()?.parse().ok()
    }
}

/// Reads entry after entry. The `tar` crate's own reader takes extensions apart at newlines, which values may hold, so only
/// its headers are used.
struct Entries<'a> {
    tar: &'a File,
    at: u64,
}

impl Entries<'_> {
    fn next(&mut self) -> io::Result<Option<Entry>> {
        let (mut path, mut link, mut extensions) = (None, None, Vec::new());
        loop {
            let header_at = self.at;
            let mut block = [0; 512];
            match read_some(self.tar, &mut block, header_at)? {
                // GNU tar takes an end without zero blocks too.
                0 if path.is_none() && link.is_none() && extensions.is_empty() => return Ok(None),
                512 => {}
                _ => return Err(io::ErrorKind::UnexpectedEof.into()),
            }
            if block == [0; 512] {
                return Ok(None);
            }
            let header = Header::from_byte_slice(&block).clone();
            let unsigned: u32 = block.iter().map(|&byte| u32::from(byte)).sum();
            let stored: u32 = block[148..156].iter().map(|&byte| u32::from(byte)).sum();
            if header.cksum()? != unsigned - stored + 8 * u32::from(b' ') {
                return Err(io::Error::other(format!("no header of a tar is at byte {header_at}")));
            }
            let pax_len = find(&extensions, b"size").and_then(|len| std::str::from_utf8(len).ok()?.parse().ok());
            let len: u64 = match pax_len {
                Some(len) => len,
                None => header.entry_size()?,
            };
            let data_at = header_at + 512;
            let end = len
                .checked_next_multiple_of(512)
                .and_then(|len| len.checked_add(data_at));
            self.at =
                end.ok_or_else(|| io::Error::other(format!("an entry's size at byte {header_at} is too long")))?;
            let kind = header.entry_type();
            match kind {
                EntryType::XHeader => extensions = pax(&self.data(data_at, len)?)?,
                EntryType::GNULongName => path = Some(until_nul(self.data(data_at, len)?)),
                EntryType::GNULongLink => link = Some(until_nul(self.data(data_at, len)?)),
                EntryType::XGlobalHeader => {}
                _ => {
                    // The blocks of pieces that follow a sparse file's header do not count.
                    let data_at = match kind {
                        EntryType::GNUSparse => data_at + 512 * sparse_blocks(self.tar, header_at)?,
                        _ => data_at,
                    };
                    self.at += data_at - header_at - 512;
                    let extension = |key: &[u8]| find(&extensions, key).map(<[u8]>::to_vec);
                    let path = extension(b"GNU.sparse.name").or(path).or_else(|| extension(b"path"));
                    let link = link.or_else(|| extension(b"linkpath"));
                    return Ok(Some(Entry {
                        path: path.unwrap_or_else(|| header.path_bytes().into_owned()),
                        link: link.unwrap_or_else(|| header.link_name_bytes().unwrap_or_default().into_owned()),
                        header,
                        header_at,
                        data_at,
                        len,
                        extensions,
                    }));
                }
            }
        }
    }

    /// The data of an extension.
    fn data(&self, at: u64, len: u64) -> io::Result<Vec<u8>> {
        if len > EXTENSION_LEN_MAX {
            return Err(io::Error::other(format!(
                "an extension at byte {at} is longer than {EXTENSION_LEN_MAX} bytes"
            )));
        }
        let mut data = vec![0; len as usize];
        self.tar.read_exact_at(&mut data, at)?;
        Ok(data)
    }
}

fn read_some(tar: &File, buffer: &mut [u8], at: u64) -> io::Result<usize> {
    let mut filled = 0;
    while filled < buffer.len() {
        match tar.read_at(&mut buffer[filled..], at + filled as u64) {
            Ok(0) => break,
            Ok(len) => filled += len,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(filled)
}

fn find<'e>(extensions: &'e [(Vec<u8>, Vec<u8>)], key: &[u8]) -> Option<&'e [u8]> {
    let mut all = extensions.iter().rev();
    all.find(|(known, _)| known == key).map(|(_, value)| value.as_slice())
}

fn until_nul(mut bytes: Vec<u8>) -> Vec<u8> {
    let end = bytes.iter().position(|&byte| byte == 0).unwrap_or(bytes.len());
    bytes.truncate(end);
    bytes
}

/// Takes `LENGTH KEY=VALUE\n` apart, again and again.
fn pax(mut rest: &[u8]) -> io::Result<Vec<(Vec<u8>, Vec<u8>)>> {
    let mut all = Vec::new();
    while !rest.is_empty() {
        let record = (|| {
            let space = rest.iter().take(20).position(|&byte| byte == b' ')?;
            let len: usize = std::str::from_utf8(&rest[..space]).ok()?.parse().ok()?;
            let record = rest.get(space + 1..len)?.strip_suffix(b"\n")?;
            let equals = record.iter().position(|&byte| byte == b'=')?;
            Some((len, record[..equals].to_vec(), record[equals + 1..].to_vec()))
        })();
        let (len, key, value) = record.ok_or_else(|| io::Error::other("an extension header is not in its form"))?;
        all.push((key, value));
        rest = &rest[len..];
    }
    Ok(all)
}

/// All entries of a tar.
fn tree(tar: &File, source: &Path, flags: FeatureFlags, notes: &mut Notes) -> Result<Branch> {
    let bad = |error: io::Error| file(source, "read the tar")(error);
    let mut root = implied();
    let mut owners = Owners::default();
    let mut entries = Entries { tar, at: 0 };
    while let Some(entry) = entries.next().map_err(bad)? {
        put(&mut root, &entry, tar, flags, &mut owners, notes).map_err(|error| bad(named(error, &entry.path)))?;
    }
    if root.content != Some(Content::Directory) {
        return Err(bad(io::Error::other("its root is not a folder")));
    }
    Ok(root)
}

/// Puts an entry in its place, over what was there.
fn put(
    root: &mut Branch,
    entry: &Entry,
    tar: &File,
    flags: FeatureFlags,
    owners: &mut Owners,
    notes: &mut Notes,
) -> io::Result<()> {
    let kind = entry.header.entry_type();
    let mut metadata = metadata(entry, flags, owners, notes)?;
    let device = || -> io::Result<Device> {
        Ok(Device {
            major: entry.header.device_major()?.unwrap_or_default(),
            minor: entry.header.device_minor()?.unwrap_or_default(),
        })
    };
    let mut place = Place::default();
    let content = match kind {
        // Tars of old have folders as files with a slash at the end.
        EntryType::Regular if entry.path.ends_with(b"/") => Content::Directory,
        EntryType::Directory => Content::Directory,
        EntryType::Regular | EntryType::Continuous if entry.sparse_len().is_some() => {
            let len = entry.sparse_len().unwrap_or_default();
            place = sparse_in_data(tar, entry, len)?;
            Content::File { len }
        }
        EntryType::Regular | EntryType::Continuous => {
            place.at = entry.data_at;
            Content::File { len: entry.len }
        }
        EntryType::GNUSparse => {
            let len = entry.header.as_gnu().map(tar::GnuHeader::real_size).transpose()?;
            let len = len.unwrap_or(entry.len);
            place = sparse(tar, entry.header_at, len)?;
            Content::File { len }
        }
        EntryType::Symlink => Content::Symlink {
            target: Bytes::copy_from_slice(&entry.link),
        },
        EntryType::Link => {
            // As unpacking would: the file that has the other name, whatever this header says.
            let target = root.find(&names(&entry.link)?);
            let target = target.filter(|target| target.content != Some(Content::Directory));
            let target = target.ok_or_else(|| io::Error::other("it is a hard link to what is not there before it"))?;
            (metadata, place) = (target.metadata.clone(), target.place.clone());
            target.content.clone().unwrap_or(Content::Directory)
        }
        EntryType::Char => Content::CharacterDevice(device()?),
        EntryType::Block => Content::BlockDevice(device()?),
        EntryType::Fifo => Content::Fifo,
        _ => {
            let what = "it is left out: archives have no such kind of entry".to_owned();
            notes.push(Note::new(&entry.path, what));
            return Ok(());
        }
    };
    let branch = root.at(names(&entry.path)?)?;
    if content != Content::Directory {
        branch.children.clear();
    }
    metadata.mode = metadata.mode & 0o7777 | content.kind_bits();
    (branch.metadata, branch.content, branch.place) = (metadata, Some(content), place);
    Ok(())
}

fn implied() -> Branch {
    Branch {
        metadata: Metadata {
            mode: IMPLIED_MODE | Content::Directory.kind_bits(),
            ..Metadata::default()
        },
        content: Some(Content::Directory),
        ..Branch::default()
    }
}

impl Branch {
    fn find(&self, names: &[Vec<u8>]) -> Option<&Self> {
        names
            .iter()
            .try_fold(self, |branch, name| branch.children.get(name.as_slice()))
    }

    /// The branch at a path; folders on the way that are not there are made. What is there is no folder becomes one, as
    /// unpacking would not do: that is refused.
    fn at(&mut self, names: Vec<Vec<u8>>) -> io::Result<&mut Self> {
        if names.len() > DEPTH_MAX {
            return Err(io::Error::other(format!("it is more than {DEPTH_MAX} folders deep")));
        }
        let mut branch = self;
        for name in names {
            if branch.content != Some(Content::Directory) {
                return Err(io::Error::other("what is above it is no folder"));
            }
            branch = branch.children.entry(name).or_insert_with(implied);
        }
        Ok(branch)
    }
}

/// The names of a path. A leading `/` or `./` says nothing; `..` is refused.
fn names(path: &[u8]) -> io::Result<Vec<Vec<u8>>> {
    let parts = path.split(|&byte| byte == b'/');
    let mut names = Vec::new();
    for part in parts.filter(|part| !part.is_empty() && *part != b".") {
        if part == b".." || part.len() > 255 || part.contains(&0) {
            return Err(io::Error::other(
                "its path holds .., or a name that is longer than 255 bytes or holds a NUL",
            ));
        }
        names.push(part.to_vec());
    }
    Ok(names)
}

fn named(error: io::Error, path: &[u8]) -> io::Error {
    io::Error::new(error.kind(), format!("{}: {error}", String::from_utf8_lossy(path)))
}

/// What a header and its extensions say of an inode.
fn metadata(entry: &Entry, flags: FeatureFlags, owners: &mut Owners, notes: &mut Notes) -> io::Result<Metadata> {
    let header = &entry.header;
    let id = |id: io::Result<u64>| id.and_then(|id| u32::try_from(id).map_err(io::Error::other));
    // Names that archives do not take are left out when the node is put into one.
    let text = |bytes: Option<&[u8]>| bytes.map(Bytes::copy_from_slice);
    let mut metadata = Metadata {
        mode: header.mode()? & 0o7777,
        uid: id(header.uid())?,
        gid: id(header.gid())?,
        mtime: i128::from(header.mtime()?) * 1_000_000_000,
        user: text(header.username_bytes()),
        group: text(header.groupname_bytes()),
        ..Metadata::default()
    };
    for (key, value) in &entry.extensions {
        let number = || std::str::from_utf8(value).ok().and_then(|text| text.parse().ok());
        let value = Bytes::copy_from_slice(value);
        match key.as_slice() {
            b"uid" => metadata.uid = number().unwrap_or(metadata.uid),
            b"gid" => metadata.gid = number().unwrap_or(metadata.gid),
            b"mtime" => metadata.mtime = nanoseconds(&value).unwrap_or(metadata.mtime),
            b"uname" => metadata.user = Some(value),
            b"gname" => metadata.group = Some(value),
            b"RHT.security.selinux" => metadata.selinux = Some(label(&value)),
            b"GNU.sparse.map" | b"GNU.sparse.numblocks" => {
                return Err(io::Error::other(
                    "it is sparse in form 0 of posix tars, of which only form 1.0 is read",
                ));
            }
            key if key.starts_with(b"GNU.sparse.") => {}
            b"SCHILY.acl.access" | b"SCHILY.acl.default" => {
                let access = key.ends_with(b"access");
                let in_bytes = format!("SCHILY.xattr.{}", if access { acl::ACCESS } else { acl::DEFAULT });
                if find(&entry.extensions, in_bytes.as_bytes()).is_none() {
                    match acl::List::parse_text(&value, owners) {
                        Some(list) => keep_acl(&mut metadata, list, access, flags, owners),
                        None => {
                            let what = "its ACL, of which nothing could be made, is left out".to_owned();
                            notes.push(Note::new(&entry.path, what));
                        }
                    }
                }
            }
            key => {
                if let Some(name) = key.strip_prefix(b"SCHILY.xattr.") {
                    attribute(&mut metadata, name, value, flags, owners);
                }
            }
        }
    }
    Ok(metadata)
}

fn attribute(metadata: &mut Metadata, name: &[u8], value: Bytes, flags: FeatureFlags, owners: &mut Owners) {
    let is_access = name == acl::ACCESS.as_bytes();
    if !is_access && name != acl::DEFAULT.as_bytes() {
        match name {
            b"security.capability" => metadata.fcaps = Some(value),
            b"security.selinux" => metadata.selinux = Some(label(&value)),
            _ => metadata.xattrs.push(Xattr {
                name: Bytes::copy_from_slice(name),
                value,
            }),
        }
        return;
    }
    if let Some(list) = acl::List::parse(&value) {
        keep_acl(metadata, list, is_access, flags, owners);
    }
}

fn keep_acl(metadata: &mut Metadata, list: acl::List, is_access: bool, flags: FeatureFlags, owners: &mut Owners) {
    let names = flags.has(FeatureFlags::USER_NAMES);
    let numbers = flags.has(FeatureFlags::UIDS_16BIT | FeatureFlags::UIDS_32BIT);
    // Two closures look names up in one table, one after the other.
    let owners = std::cell::RefCell::new(owners);
    let keep = |owner: Owner| {
        let owners = &owners;
        move |id: u32| {
            let name = names.then(|| owners.borrow_mut().name(owner, id)).flatten();
            (if numbers { id } else { 0 }, name)
        }
    };
    if is_access {
        list.keep_access(&mut metadata.acl, keep(Owner::User), keep(Owner::Group));
    } else {
        list.keep_default(&mut metadata.acl, keep(Owner::User), keep(Owner::Group));
    }
}

fn label(value: &Bytes) -> Bytes {
    let end = value.iter().position(|&byte| byte == 0).unwrap_or(value.len());
    value.slice(..end)
}

/// A decimal number of seconds.
fn nanoseconds(text: &[u8]) -> Option<i128> {
    let text = std::str::from_utf8(text).ok()?;
    let (seconds, fraction) = text.split_once('.').unwrap_or((text, ""));
    let digits: String = fraction.chars().chain("000000000".chars()).take(9).collect();
    let (whole, part): (i128, i128) = (seconds.parse().ok()?, digits.parse().ok()?);
    let sign = if seconds.starts_with('-') { -1 } else { 1 };
    whole.checked_mul(1_000_000_000)?.checked_add(sign * part)
}
