//! A folder on disk as the bytes of its archive.
//!
//! Hot path. The archive is pulled: whoever reads it gets records and file contents in its own buffer, a file's bytes with no
//! copy between. A file costs open, stat, what its metadata costs, as few reads as the buffer allows, close.
//!
//! Invariants: everything is opened below an open folder, without following links; children are in byte order; a file adds
//! exactly as many bytes as were announced, or the archive fails with its name; what is left out is left out before a byte of
//! it is written, and a mount or a vanished file never costs its neighbours.

use std::ffi::{CStr, CString};
use std::io::{self, BufWriter, Read, Write as _};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Path, PathBuf};

use bytes::Bytes;
use cairn_formats::{ArchiveEncoder, ArchiveForm, Content, Device, FeatureFlags, Metadata, Node};
use rustix::fs::{AtFlags, FileType, Mode, OFlags, Stat};
use rustix::io::Errno;

use super::archive_reader::{ArchiveReader, Walk};
use super::exclude::Rules;
use super::features;
use super::metadata::{MetadataReader, Place, Step, is_file, is_folder};
use super::note::{Note, Notes};
use super::owner_shift::OwnerShift;
use super::system::{self, magic};
use crate::engine::error::file;
use crate::engine::{Error, Result};

/// Bytes of directory entries asked for at a time.
const LISTING_LEN: usize = 64 << 10;
/// Longest `.caexclude` that is read.
const EXCLUDE_LEN_MAX: u64 = 1 << 20;
const EXCLUDE_NAME: &CStr = c".caexclude";

/// How a tree becomes an archive.
#[derive(Clone, Debug)]
pub(crate) struct WalkOptions {
    /// What is kept and what is left out; in normal form.
    pub(crate) flags: FeatureFlags,
    /// Owners' numbers are others in the archive.
    pub(crate) shift: Option<OwnerShift>,
}

/// The archive of a folder, to be read.
pub(crate) type TreeReader = ArchiveReader<FolderWalk>;

/// Goes through a folder.
pub(crate) struct FolderWalk {
    source: PathBuf,
    flags: FeatureFlags,
    shift: Option<OwnerShift>,
    encoder: ArchiveEncoder,
    metadata: MetadataReader,
    folders: Vec<Folder>,
    file: Option<OpenFile>,
    /// Path of the entry in hand, below the source.
    path: Vec<u8>,
    listing: Box<[std::mem::MaybeUninit<u8>]>,
    notes: Notes,
    /// Where files lie and all records, once [`TreeReader::remember`] was called.
    files: Option<Vec<FileSpan>>,
    copy: Option<BufWriter<std::fs::File>>,
}

/// Where the bytes of a file lie in the archive.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct FileSpan {
    /// Offset of its first byte.
    pub(crate) offset: u64,
    /// Its length in bytes.
    pub(crate) len: u64,
    /// Its path below the source.
    pub(crate) path: Vec<u8>,
}

struct Folder {
    fd: OwnedFd,
    /// Names with their NULs, one behind the other.
    names: Vec<u8>,
    /// Offset of each name, in byte order of the names, and what the listing says it is.
    order: Vec<(u32, FileType)>,
    next: usize,
    path_len: usize,
    device: u64,
    magic: u64,
    mount: Option<u64>,
    rules: Rules,
}

struct OpenFile {
    fd: OwnedFd,
    left: u64,
}

/// A child that will be in the archive.
struct Child {
    fd: Option<OwnedFd>,
    stat: Stat,
    content: Content,
    magic: u64,
    mount: Option<u64>,
    attributes: Option<u32>,
    rules: Rules,
}

impl TreeReader {
    /// Opens a folder. Errors: it is no folder, or cannot be read.
    pub(crate) fn open(source: &Path, options: &WalkOptions) -> Result<Self> {
        let flags = OFlags::RDONLY | OFlags::CLOEXEC | OFlags::DIRECTORY | OFlags::NOCTTY;
        let fd = rustix::fs::open(source, flags, Mode::empty()).map_err(|error| file(source, "open")(error.into()))?;
        let mut walk = FolderWalk {
            source: source.to_owned(),
            flags: options.flags,
            shift: options.shift,
            encoder: ArchiveEncoder::new(options.flags, ArchiveForm::Sorted)?,
            metadata: MetadataReader::new(options.flags),
            folders: Vec::new(),
            file: None,
            path: Vec::new(),
            listing: vec![std::mem::MaybeUninit::uninit(); LISTING_LEN].into(),
            notes: Notes::default(),
            files: None,
            copy: None,
        };
        let start = walk.root(&fd);
        let (node, child) = start.map_err(|(action, error)| file(source, action)(error))?;
        let mut records = Vec::with_capacity(4096);
        walk.encoder.root(&node, &mut records)?;
        walk.enter(fd, child)?;
        Ok(Self::new(walk, records))
    }

    /// Remembers from now on where files lie, and writes all records to a file as they are made. To be called first.
    ///
    /// Errors: the records cannot be written.
    pub(crate) fn remember(&mut self, records: std::fs::File) -> Result<()> {
        let mut copy = BufWriter::new(records);
        let written = copy.write_all(&self.records);
        written.map_err(file(&self.walk.source, "keep the records of"))?;
        self.walk.copy = Some(copy);
        self.walk.files = Some(Vec::new());
        Ok(())
    }

    /// The folder, and the files that were passed after [`TreeReader::remember`].
    ///
    /// Errors: the records could not be written.
    pub(crate) fn into_files(self) -> Result<(OwnedFd, Vec<FileSpan>)> {
        let mut walk = self.walk;
        if let Some(copy) = &mut walk.copy {
            copy.flush().map_err(file(&walk.source, "keep the records of"))?;
        }
        let how = OFlags::RDONLY | OFlags::CLOEXEC | OFlags::DIRECTORY;
        let root = rustix::fs::open(&walk.source, how, Mode::empty());
        let root = root.map_err(|error| file(&walk.source, "open")(error.into()))?;
        Ok((root, walk.files.unwrap_or_default()))
    }
}

impl FolderWalk {
    /// Gives owners the numbers that the archive has for them.
    fn shift(&self, metadata: &mut Metadata) -> Step<()> {
        match self.shift {
            Some(shift) if self.flags.has(FeatureFlags::UIDS_16BIT | FeatureFlags::UIDS_32BIT) => {
                let shifted = shift.to_archive(metadata);
                shifted.map_err(|error| ("keep the owner of", error))
            }
            _ => Ok(()),
        }
    }

    fn root(&mut self, fd: &OwnedFd) -> Step<(Node, Child)> {
        let failed = |action| move |error: Errno| (action, io::Error::from(error));
        let stat = rustix::fs::fstat(fd).map_err(failed("look at"))?;
        let magic = system::magic_of(fd).map_err(|error| ("look at the file system of", error))?;
        let mount = self
            .mount(fd.as_fd())
            .map_err(|error| ("look at the mount of", error))?;
        let mut metadata = self.metadata.read(Place::Open(fd.as_fd()), &stat, magic, None)?;
        self.shift(&mut metadata)?;
        let child = Child {
            fd: None,
            stat,
            content: Content::Directory,
            magic,
            mount,
            attributes: None,
            rules: Rules::default(),
        };
        let content = Content::Directory;
        Ok((Node { metadata, content }.reduced(self.flags), child))
    }

    /// Goes on to the next child, or ends a folder.
    fn go_on(&mut self, records: &mut Vec<u8>) -> Result<()> {
        let folder = self.folders.last_mut().expect("called with an open folder");
        self.path.truncate(folder.path_len);
        let Some(&(at, kind)) = folder.order.get(folder.next) else {
            self.encoder.leave(records)?;
            self.folders.pop();
            return Ok(());
        };
        folder.next += 1;
        let name = CStr::from_bytes_until_nul(&folder.names[at as usize..])
            .expect("names were stored with their NULs")
            .to_owned();
        if !self.path.is_empty() {
            self.path.push(b'/');
        }
        self.path.extend_from_slice(name.to_bytes());
        let child = match self.child(&name, kind) {
            Ok(Some(child)) => child,
            Ok(None) => return Ok(()),
            Err((_, error)) if error.kind() == io::ErrorKind::NotFound => {
                let what = "it vanished while the folder was read".to_owned();
                self.notes.push(Note::new(&self.path, what));
                return Ok(());
            }
            Err(("", _)) => {
                let what = "it is left out: desync takes FIFOs and sockets for folders".to_owned();
                self.notes.push(Note::new(&self.path, what));
                return Ok(());
            }
            Err((action, error)) => return Err(file(&self.shown(), action)(error)),
        };
        self.put(&name, child, records)
    }

    /// Opens or looks at a child; `None` when it is left out.
    fn child(&self, name: &CStr, listed: FileType) -> Step<Option<Child>> {
        let folder = self.folders.last().expect("called with an open folder");
        let flags = self.flags;
        let failed = |action| move |error: Errno| (action, io::Error::from(error));
        let look = || rustix::fs::statat(&folder.fd, name, AtFlags::SYMLINK_NOFOLLOW).map_err(failed("look at"));
        let known = match listed {
            FileType::Directory | FileType::RegularFile => None,
            _ => Some(look()?),
        };
        let is_open_kind = known.as_ref().is_none_or(|stat| is_folder(stat) || is_file(stat));
        let (fd, stat) = if is_open_kind {
            let mut how = OFlags::RDONLY | OFlags::CLOEXEC | OFlags::NOCTTY | OFlags::NOFOLLOW | OFlags::NONBLOCK;
            if listed == FileType::Directory {
                how |= OFlags::DIRECTORY;
            }
            let fd = rustix::fs::openat(&folder.fd, name, how, Mode::empty()).map_err(failed("open"))?;
            let stat = rustix::fs::fstat(&fd).map_err(failed("look at"))?;
            if !is_folder(&stat) && !is_file(&stat) {
                let error = io::Error::other("it changed its kind while the folder was read");
                return Err(("archive", error));
            }
            (Some(fd), stat)
        } else {
            (None, known.expect("looked at above"))
        };
        let Some(content) = content(&stat) else {
            return Err(("archive", io::Error::other("archives have no such kind of inode")));
        };
        if !content.is_kept_by(flags) {
            return Ok(None);
        }
        if flags.is_desync_archive() && matches!(content, Content::Fifo | Content::Socket) {
            return Err(("", io::ErrorKind::Unsupported.into()));
        }
        let (mut magic, mut mount, mut attributes) = (folder.magic, None, None);
        if let Some(fd) = &fd {
            if flags.has(features::CHATTR_KEPT | FeatureFlags::EXCLUDE_NODUMP) {
                let bits = system::attributes(fd).map_err(|error| ("read the attribute bits of", error))?;
                if flags.has(FeatureFlags::EXCLUDE_NODUMP) && bits & features::NODUMP != 0 {
                    return Ok(None);
                }
                attributes = Some(bits);
            }
            mount = self
                .mount(fd.as_fd())
                .map_err(|error| ("look at the mount of", error))?;
            if mount.is_some() && folder.mount.is_some() && mount != folder.mount {
                return Ok(None);
            }
            if stat.st_dev != folder.device {
                magic = system::magic_of(fd).map_err(|error| ("look at the file system of", error))?;
            }
        }
        let (excluded, rules) = folder.rules.test(name.to_bytes(), is_folder(&stat));
        let child = Child {
            fd,
            stat,
            content,
            magic,
            mount,
            attributes,
            rules,
        };
        Ok((!excluded).then_some(child))
    }

    /// The mount that an open inode is on; asked only where mounts are left out.
    fn mount(&self, fd: BorrowedFd<'_>) -> io::Result<Option<u64>> {
        use rustix::fs::StatxFlags;
        if !self.flags.has(FeatureFlags::EXCLUDE_SUBMOUNTS) {
            return Ok(None);
        }
        let answer = rustix::fs::statx(fd, c"", AtFlags::EMPTY_PATH, StatxFlags::MNT_ID)?;
        Ok(Some(answer.stx_mnt_id))
    }

    /// Writes a child's records and goes into it.
    fn put(&mut self, name: &CString, child: Child, records: &mut Vec<u8>) -> Result<()> {
        let folder = self.folders.last().expect("called with an open folder");
        let parent = folder.fd.as_fd();
        let place = child
            .fd
            .as_ref()
            .map_or(Place::Named(parent, name), |fd| Place::Open(fd.as_fd()));
        let read = self.metadata.read(place, &child.stat, child.magic, child.attributes);
        let mut metadata = read.map_err(|(action, error)| file(&self.shown(), action)(error))?;
        let shifted = self.shift(&mut metadata);
        shifted.map_err(|(action, error)| file(&self.shown(), action)(error))?;
        let stat = &child.stat;
        if self.flags.time_granularity().is_some() && !self.flags.is_desync_archive() && stat.st_mtime < 0 {
            let what = "its time is before 1970, which archives cannot hold; 1970 is kept".to_owned();
            self.notes.push(Note::new(&self.path, what));
        }
        let content = match &child.content {
            Content::File { .. } if magic::VIRTUAL.contains(&child.magic) => Content::File { len: 0 },
            Content::Symlink { .. } => {
                let target = rustix::fs::readlinkat(parent, name, Vec::new());
                let target = target.map_err(|error| file(&self.shown(), "read the link")(error.into()))?;
                Content::Symlink {
                    target: Bytes::from(target.into_bytes()),
                }
            }
            content => content.clone(),
        };
        let node = Node { metadata, content }.reduced(self.flags);
        self.encoder.child(name.to_bytes(), &node, records)?;
        match (node.content, child.fd) {
            (Content::File { len }, Some(fd)) if len > 0 => {
                if let Some(files) = &mut self.files {
                    files.push(FileSpan {
                        offset: self.encoder.position(),
                        len,
                        path: self.path.clone(),
                    });
                }
                self.file = Some(OpenFile { fd, left: len });
            }
            (Content::Directory, Some(fd)) => self.enter(fd, Child { fd: None, ..child })?,
            _ => {}
        }
        Ok(())
    }

    /// Opens the folder in hand: lists and sorts it, and reads its rules.
    fn enter(&mut self, fd: OwnedFd, child: Child) -> Result<()> {
        let mut folder = Folder {
            fd,
            names: Vec::new(),
            order: Vec::new(),
            next: 0,
            path_len: self.path.len(),
            device: child.stat.st_dev,
            magic: child.magic,
            mount: child.mount,
            rules: child.rules,
        };
        if !magic::VIRTUAL.contains(&folder.magic) {
            let listed = folder.list(&mut self.listing);
            listed.map_err(|error| file(&self.shown(), "list")(error.into()))?;
            if self.flags.has(FeatureFlags::EXCLUDE_FILE) && folder.has(EXCLUDE_NAME) {
                self.read_rules(&mut folder)?;
            }
        }
        self.folders.push(folder);
        Ok(())
    }

    fn read_rules(&self, folder: &mut Folder) -> Result<()> {
        let path = self.shown().join(std::ffi::OsStr::from_bytes(EXCLUDE_NAME.to_bytes()));
        let flags = OFlags::RDONLY | OFlags::CLOEXEC | OFlags::NOCTTY | OFlags::NONBLOCK;
        let opened = rustix::fs::openat(&folder.fd, EXCLUDE_NAME, flags, Mode::empty());
        let opened = opened.map_err(|error| file(&path, "open")(error.into()))?;
        let mut text = Vec::new();
        let read = std::fs::File::from(opened)
            .take(EXCLUDE_LEN_MAX + 1)
            .read_to_end(&mut text);
        read.map_err(file(&path, "read"))?;
        let bad = |what: String| file(&path, "use")(io::Error::new(io::ErrorKind::InvalidData, what));
        if text.len() as u64 > EXCLUDE_LEN_MAX {
            return Err(bad(format!("it is longer than {EXCLUDE_LEN_MAX} bytes")));
        }
        let added = folder.rules.add(&text);
        added.map_err(|line| bad(format!("line {line} is no pattern")))
    }

    /// Path of the entry in hand, for people.
    fn shown(&self) -> PathBuf {
        self.source.join(std::ffi::OsStr::from_bytes(&self.path))
    }
}

/// The kind of an inode, a link without its target.
fn content(stat: &Stat) -> Option<Content> {
    let device = Device {
        major: rustix::fs::major(stat.st_rdev),
        minor: rustix::fs::minor(stat.st_rdev),
    };
    Some(match FileType::from_raw_mode(stat.st_mode) {
        FileType::Directory => Content::Directory,
        FileType::RegularFile => Content::File {
            len: stat.st_size as u64,
        },
        FileType::Symlink => Content::Symlink { target: Bytes::new() },
        FileType::CharacterDevice => Content::CharacterDevice(device),
        FileType::BlockDevice => Content::BlockDevice(device),
        FileType::Fifo => Content::Fifo,
        FileType::Socket => Content::Socket,
        FileType::Unknown => return None,
    })
}

impl Walk for FolderWalk {
    fn step(&mut self, records: &mut Vec<u8>) -> Result<bool> {
        if self.folders.is_empty() {
            return Ok(false);
        }
        self.go_on(records)?;
        if let Some(copy) = &mut self.copy {
            let written = copy.write_all(records);
            written.map_err(file(&self.source, "keep the records of"))?;
        }
        Ok(true)
    }

    fn read_file(&mut self, room: &mut [u8]) -> Result<Option<usize>> {
        let Some(open) = &mut self.file else { return Ok(None) };
        let len = open.left.min(room.len() as u64) as usize;
        let read = match rustix::io::read(&open.fd, &mut room[..len]) {
            Ok(read) => read,
            Err(Errno::INTR) => return Ok(Some(0)),
            Err(error) => return Err(file(&self.shown(), "read")(error.into())),
        };
        if read == 0 && len > 0 {
            let missing = open.left;
            return Err(Error::Shrunk {
                path: self.shown(),
                missing,
            });
        }
        self.encoder.payload(read as u64)?;
        open.left -= read as u64;
        if open.left == 0 {
            self.file = None;
        }
        Ok(Some(read))
    }

    fn take_notes(&mut self) -> Notes {
        std::mem::take(&mut self.notes)
    }
}

impl Folder {
    fn list(&mut self, buffer: &mut [std::mem::MaybeUninit<u8>]) -> std::result::Result<(), Errno> {
        let mut listing = rustix::fs::RawDir::new(&self.fd, buffer);
        while let Some(entry) = listing.next() {
            let entry = entry?;
            let name = entry.file_name();
            if matches!(name.to_bytes(), b"." | b"..") {
                continue;
            }
            // Two billion bytes of names in one folder would have to be there first.
            let at = u32::try_from(self.names.len()).map_err(|_| Errno::OVERFLOW)?;
            self.order.push((at, entry.file_type()));
            self.names.extend_from_slice(name.to_bytes_with_nul());
        }
        let names = &self.names;
        let name = |at: u32| CStr::from_bytes_until_nul(&names[at as usize..]).map_or(&b""[..], CStr::to_bytes);
        self.order.sort_unstable_by(|a, b| name(a.0).cmp(name(b.0)));
        Ok(())
    }

    fn has(&self, wanted: &CStr) -> bool {
        let name = |at: u32| CStr::from_bytes_until_nul(&self.names[at as usize..]).map_or(&b""[..], CStr::to_bytes);
        self.order
            .binary_search_by(|entry| name(entry.0).cmp(wanted.to_bytes()))
            .is_ok()
    }
}
