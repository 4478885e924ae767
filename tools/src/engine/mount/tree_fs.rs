//! A file system of one archive, read through its GOODBYE tables as it is looked at. Read-only.
//!
//! An inode's number is the offset of its ENTRY (the root's is 1, which no other can have). Of what the kernel holds, the place
//! in the archive is remembered until it forgets it (some fifty bytes an inode), and the records are read again when they are
//! asked for, which the kernel rarely does; listings are places too, and kept within a bound. A table that lies ends in an I/O
//! error and a line that says where; nothing is believed that its records do not bear out.

use std::collections::{HashMap, VecDeque};
use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt as _;
use std::sync::{Arc, Mutex};
use std::time::{Duration, SystemTime};

use cairn_formats::{ArchiveBytes as _, ArchiveLimits, ArchiveLookup, Content, EntryPlace, Placed};
use fuser::{
    Errno, FileAttr, FileHandle, FileType, Filesystem, Generation, INodeNo, InitFlags, IoctlFlags, KernelConfig,
    LockOwner, OpenFlags, ReplyAttr, ReplyData, ReplyDirectory, ReplyDirectoryPlus, ReplyEntry, ReplyIoctl, ReplyOpen,
    ReplyStatfs, ReplyXattr, Request,
};

use super::{Report, configure};
use crate::engine::Result;
use crate::engine::batch::lock;
use crate::engine::tree::{ArchiveSource, Lookup, Shown};

const ROOT: INodeNo = INodeNo(1);
/// An archive does not change while it is mounted.
const TTL: Duration = Duration::from_secs(24 * 3600);
/// Entries of one directory; each takes 24 bytes while the directory is listed.
const DIRECTORY_ENTRIES_MAX: usize = 1 << 20;
/// Entries of listings that are kept beside the one listed last.
const LISTED_ENTRIES_MAX: usize = 1 << 16;
/// `FS_IOC_GETFLAGS`, answered by an `unsigned int` (its number says `long`).
const GETFLAGS: u32 = 0x8008_6601;
/// `FS_IOC_FSGETXATTR`, answered by a `struct fsxattr`.
const FSGETXATTR: u32 = 0x801c_581f;
/// `FAT_IOCTL_GET_ATTRIBUTES`, answered by a `__u32`.
const FAT_GET_ATTRIBUTES: u32 = 0x8004_7210;

/// One archive as a tree.
#[derive(Debug)]
pub(crate) struct TreeFs {
    lookup: Lookup,
    shown: Shown,
    report: Report,
    root: Arc<Placed>,
    /// What the kernel holds, by inode.
    known: Mutex<HashMap<u64, Known>>,
    listings: Mutex<Listings>,
}

/// An inode that the kernel holds. There may be millions.
#[derive(Clone, Copy, Debug)]
struct Known {
    place: EntryPlace,
    /// Where its content begins, so that reading needs no records.
    content_start: u64,
    content_end: u64,
    /// How many times the kernel was told of it.
    times: u64,
}

type Listing = Arc<Vec<EntryPlace>>;

/// The listings used last, by the inode of their directory.
#[derive(Debug, Default)]
struct Listings {
    /// The newest is at the end.
    kept: VecDeque<(u64, Listing)>,
}

impl Listings {
    fn get(&mut self, inode: u64) -> Option<Listing> {
        let at = self.kept.iter().position(|(other, _)| *other == inode)?;
        let found = self.kept.remove(at)?;
        let listing = Arc::clone(&found.1);
        self.kept.push_back(found);
        Some(listing)
    }

    fn put(&mut self, inode: u64, listing: Listing) {
        self.kept.retain(|(other, _)| *other != inode);
        self.kept.push_back((inode, listing));
        // An empty one takes room too.
        let room =
            |kept: &VecDeque<(u64, Listing)>| -> usize { kept.iter().map(|(_, listing)| 1 + listing.len()).sum() };
        while self.kept.len() > 1 && room(&self.kept) > LISTED_ENTRIES_MAX {
            self.kept.pop_front();
        }
    }
}

impl TreeFs {
    /// Reads the root of an archive.
    ///
    /// Errors: it is no archive, not a whole one, or cannot be read.
    pub(crate) fn open(archive: ArchiveSource, report: Report) -> Result<Self> {
        let limits = ArchiveLimits {
            directory_entries_max: DIRECTORY_ENTRIES_MAX,
            ..ArchiveLimits::default()
        };
        let lookup = ArchiveLookup::open(archive, limits)?;
        let root = Arc::new(lookup.root().clone());
        Ok(Self {
            shown: Shown::new(lookup.flags()),
            lookup,
            report,
            root,
            known: Mutex::default(),
            listings: Mutex::default(),
        })
    }

    /// Length of the archive.
    pub(crate) fn archive_len(&self) -> u64 {
        self.lookup.bytes().len()
    }

    fn inode(&self, placed: &Placed) -> INodeNo {
        if placed.at == self.root.at {
            ROOT
        } else {
            INodeNo(placed.at)
        }
    }

    /// What the kernel asks for by its inode.
    fn placed(&self, inode: INodeNo) -> std::result::Result<Arc<Placed>, Errno> {
        if inode == ROOT {
            return Ok(Arc::clone(&self.root));
        }
        let place = lock(&self.known).get(&inode.0).map(|known| known.place);
        match self.lookup.entry(place.ok_or(Errno::ESTALE)?) {
            Ok(Some(placed)) => Ok(Arc::new(placed)),
            Ok(None) => Err(Errno::ESTALE),
            Err(error) => {
                self.report.error(
                    &format!("cannot read the entry at byte {} of the archive", inode.0),
                    &error,
                );
                Err(Errno::EIO)
            }
        }
    }

    /// Counts that the kernel was told of an inode.
    fn remember(&self, placed: &Placed) {
        let Some(place) = placed.place() else { return };
        let known = Known {
            place,
            content_start: placed.content.start,
            content_end: placed.content.end,
            times: 0,
        };
        lock(&self.known).entry(placed.at).or_insert(known).times += 1;
    }

    /// The kernel holds an inode so many times less.
    fn untold(&self, inode: INodeNo, times: u64) {
        let mut known = lock(&self.known);
        if let Some(held) = known.get_mut(&inode.0) {
            held.times = held.times.saturating_sub(times);
            if held.times == 0 {
                known.remove(&inode.0);
            }
        }
        // A walk over everything leaves no table of that size behind.
        if known.len() < known.capacity() / 8 {
            known.shrink_to_fit();
        }
    }

    fn attributes(&self, placed: &Placed) -> FileAttr {
        let metadata = &placed.node.metadata;
        let (kind, size) = match &placed.node.content {
            Content::Directory => (FileType::Directory, 0),
            Content::File { len } => (FileType::RegularFile, *len),
            Content::Symlink { target } => (FileType::Symlink, target.len() as u64),
            Content::CharacterDevice(_) => (FileType::CharDevice, 0),
            Content::BlockDevice(_) => (FileType::BlockDevice, 0),
            Content::Fifo => (FileType::NamedPipe, 0),
            Content::Socket => (FileType::Socket, 0),
        };
        let (uid, gid) = self.shown.owner(metadata);
        let (major, minor) = Shown::device(&placed.node);
        let time = time(metadata.mtime);
        FileAttr {
            ino: self.inode(placed),
            size,
            blocks: size.div_ceil(512),
            atime: time,
            mtime: time,
            ctime: time,
            crtime: time,
            kind,
            perm: (metadata.mode & 0o7777) as u16,
            // 1 tells `find` and its like that a directory's links do not count its folders.
            nlink: 1,
            uid,
            gid,
            // The kernel's wire form of a device number.
            rdev: minor & 0xff | major << 8 | (minor & !0xff) << 12,
            blksize: 4096,
            flags: 0,
        }
    }

    /// The entries of a directory.
    fn listing(&self, directory: &Placed) -> std::result::Result<Listing, Errno> {
        if directory.node.content != Content::Directory {
            return Err(Errno::ENOTDIR);
        }
        if let Some(listing) = lock(&self.listings).get(directory.at) {
            return Ok(listing);
        }
        let places = self.lookup.places(directory);
        let listing: Listing = Arc::new(places.map_err(|error| self.failed(directory, "list", &error))?);
        lock(&self.listings).put(directory.at, Arc::clone(&listing));
        Ok(listing)
    }

    /// Hands the entries of a directory from the `first` on to `add`, until it has no more room.
    fn list(
        &self,
        directory: &Placed,
        first: usize,
        mut add: impl FnMut(u64, &Placed, &FileAttr, &OsStr) -> bool,
    ) -> std::result::Result<(), Errno> {
        let listing = self.listing(directory)?;
        for (at, &place) in listing.iter().enumerate().skip(first) {
            let child = match self.lookup.entry(place) {
                Ok(Some(child)) => child,
                // A name without an inode, as desync left them.
                Ok(None) => continue,
                Err(error) => return Err(self.failed(directory, "list", &error)),
            };
            let name = OsStr::from_bytes(child.name.as_deref().unwrap_or_default());
            // The two before are the directory itself and its parent; the kernel goes on from one behind.
            if add(at as u64 + 3, &child, &self.attributes(&child), name) {
                break;
            }
        }
        Ok(())
    }

    /// The answer to a request that an error ended: people learn what it was, the program gets a number.
    fn failed(&self, placed: &Placed, what: &str, error: &(dyn std::error::Error + 'static)) -> Errno {
        let name = match &placed.name {
            Some(name) => name.escape_ascii().to_string(),
            None => "the root".to_owned(),
        };
        self.report.error(
            &format!("cannot {what} {name} (byte {} of the archive)", placed.at),
            error,
        );
        Errno::EIO
    }
}

/// A time of an archive; one that the system cannot hold is 1970.
fn time(nanoseconds: i128) -> SystemTime {
    let ago = Duration::from_nanos_u128(nanoseconds.unsigned_abs());
    let time = if nanoseconds < 0 {
        SystemTime::UNIX_EPOCH.checked_sub(ago)
    } else {
        SystemTime::UNIX_EPOCH.checked_add(ago)
    };
    time.unwrap_or(SystemTime::UNIX_EPOCH)
}

impl Filesystem for TreeFs {
    fn init(&mut self, _: &Request, config: &mut KernelConfig) -> std::io::Result<()> {
        configure(config);
        // ACLs are the kernel's to enforce. What it does not have costs that, or speed.
        for capability in [
            InitFlags::FUSE_POSIX_ACL,
            InitFlags::FUSE_DO_READDIRPLUS,
            InitFlags::FUSE_READDIRPLUS_AUTO,
            InitFlags::FUSE_NO_OPEN_SUPPORT,
            InitFlags::FUSE_NO_OPENDIR_SUPPORT,
        ] {
            let _ = config.add_capabilities(capability);
        }
        Ok(())
    }

    fn lookup(&self, _: &Request, parent: INodeNo, name: &OsStr, reply: ReplyEntry) {
        let directory = match self.placed(parent) {
            Ok(directory) => directory,
            Err(error) => return reply.error(error),
        };
        match self.lookup.child(&directory, name.as_bytes()) {
            Ok(Some(child)) => {
                // First, since the kernel asks for it as soon as it has the answer.
                self.remember(&child);
                reply.entry(&TTL, &self.attributes(&child), Generation(0));
            }
            Ok(None) => reply.error(Errno::ENOENT),
            Err(error) => {
                let what = format!("look for {} in", name.as_bytes().escape_ascii());
                reply.error(self.failed(&directory, &what, &error));
            }
        }
    }

    fn forget(&self, _: &Request, inode: INodeNo, times: u64) {
        self.untold(inode, times);
    }

    fn getattr(&self, _: &Request, inode: INodeNo, _: Option<FileHandle>, reply: ReplyAttr) {
        match self.placed(inode) {
            Ok(placed) => reply.attr(&TTL, &self.attributes(&placed)),
            Err(error) => reply.error(error),
        }
    }

    fn readlink(&self, _: &Request, inode: INodeNo, reply: ReplyData) {
        match self.placed(inode).as_deref().map(|placed| &placed.node.content) {
            Ok(Content::Symlink { target }) => reply.data(target),
            Ok(_) => reply.error(Errno::EINVAL),
            Err(error) => reply.error(*error),
        }
    }

    /// Nothing depends on who has what open: the kernel need not ask again.
    fn open(&self, _: &Request, _: INodeNo, _: OpenFlags, reply: ReplyOpen) {
        reply.error(Errno::ENOSYS);
    }

    fn opendir(&self, _: &Request, _: INodeNo, _: OpenFlags, reply: ReplyOpen) {
        reply.error(Errno::ENOSYS);
    }

    fn read(
        &self,
        _: &Request,
        inode: INodeNo,
        _: FileHandle,
        offset: u64,
        size: u32,
        _: OpenFlags,
        _: Option<LockOwner>,
        reply: ReplyData,
    ) {
        let Some(known) = lock(&self.known).get(&inode.0).copied() else {
            return reply.error(Errno::ESTALE);
        };
        let start = known.content_start.saturating_add(offset).min(known.content_end);
        let end = start.saturating_add(u64::from(size)).min(known.content_end);
        match self.lookup.bytes().stream(start..end) {
            Ok(bytes) => reply.data(&bytes),
            // Never the part that could be read: the kernel would take the rest for zeros.
            Err(error) => reply.error(match self.placed(inode) {
                Ok(placed) => self.failed(&placed, "read", &error),
                Err(errno) => errno,
            }),
        }
    }

    fn readdir(&self, _: &Request, inode: INodeNo, _: FileHandle, offset: u64, mut reply: ReplyDirectory) {
        let directory = match self.placed(inode) {
            Ok(directory) => directory,
            Err(error) => return reply.error(error),
        };
        for (at, name) in [".", ".."].into_iter().enumerate().skip(offset as usize) {
            if reply.add(inode, at as u64 + 1, FileType::Directory, name) {
                return reply.ok();
            }
        }
        let listed = self.list(
            &directory,
            (offset as usize).saturating_sub(2),
            |next, _, attributes, name| reply.add(attributes.ino, next, attributes.kind, name),
        );
        match listed {
            Ok(()) => reply.ok(),
            Err(error) => reply.error(error),
        }
    }

    fn readdirplus(&self, _: &Request, inode: INodeNo, _: FileHandle, offset: u64, mut reply: ReplyDirectoryPlus) {
        let directory = match self.placed(inode) {
            Ok(directory) => directory,
            Err(error) => return reply.error(error),
        };
        let own = self.attributes(&directory);
        for (at, name) in [".", ".."].into_iter().enumerate().skip(offset as usize) {
            if reply.add(inode, at as u64 + 1, name, &TTL, &own, Generation(0)) {
                return reply.ok();
            }
        }
        let mut told = Vec::new();
        let listed = self.list(
            &directory,
            (offset as usize).saturating_sub(2),
            |next, child, attributes, name| {
                let full = reply.add(attributes.ino, next, name, &TTL, attributes, Generation(0));
                if !full {
                    // Every entry of such an answer counts as looked up.
                    self.remember(child);
                    told.push(INodeNo(child.at));
                }
                full
            },
        );
        match listed {
            Ok(()) => reply.ok(),
            Err(error) => {
                for inode in told {
                    self.untold(inode, 1);
                }
                reply.error(error);
            }
        }
    }

    fn statfs(&self, _: &Request, _: INodeNo, reply: ReplyStatfs) {
        const BLOCK_LEN: u32 = 4096;
        let blocks = self.archive_len().div_ceil(u64::from(BLOCK_LEN));
        reply.statfs(blocks, 0, 0, 0, 0, BLOCK_LEN, 255, BLOCK_LEN);
    }

    fn getxattr(&self, _: &Request, inode: INodeNo, name: &OsStr, size: u32, reply: ReplyXattr) {
        let placed = match self.placed(inode) {
            Ok(placed) => placed,
            Err(error) => return reply.error(error),
        };
        let xattrs = self.shown.xattrs(&placed.node);
        match xattrs.iter().find(|(other, _)| other[..] == *name.as_bytes()) {
            Some((_, value)) => answer(value, size, reply),
            None => reply.error(Errno::ENODATA),
        }
    }

    fn listxattr(&self, _: &Request, inode: INodeNo, size: u32, reply: ReplyXattr) {
        let placed = match self.placed(inode) {
            Ok(placed) => placed,
            Err(error) => return reply.error(error),
        };
        let xattrs = self.shown.xattrs(&placed.node);
        let names: Vec<&[u8]> = xattrs.iter().flat_map(|(name, _)| [&name[..], b"\0"]).collect();
        answer(&names.concat(), size, reply);
    }

    /// Attribute bits and the quota project, which the system asks by its own ioctls.
    fn ioctl(
        &self,
        _: &Request,
        inode: INodeNo,
        _: FileHandle,
        _: IoctlFlags,
        command: u32,
        _: &[u8],
        _: u32,
        reply: ReplyIoctl,
    ) {
        let placed = match self.placed(inode) {
            Ok(placed) => placed,
            Err(error) => return reply.error(error),
        };
        let metadata = &placed.node.metadata;
        match command {
            GETFLAGS => reply.ioctl(0, &self.shown.attribute_bits(metadata).to_ne_bytes()),
            FAT_GET_ATTRIBUTES => reply.ioctl(0, &self.shown.fat_bits(metadata).to_ne_bytes()),
            FSGETXATTR => {
                // xflags, extsize, nextents, projid, cowextsize, 8 bytes of padding.
                let mut answer = [0; 28];
                answer[12..16].copy_from_slice(&metadata.quota_project.unwrap_or(0).to_ne_bytes());
                reply.ioctl(0, &answer);
            }
            _ => reply.error(Errno::ENOTTY),
        }
    }
}

/// Answers a question for an attribute: its length where no room is given.
fn answer(value: &[u8], size: u32, reply: ReplyXattr) {
    if size == 0 {
        reply.size(value.len() as u32);
    } else if value.len() > size as usize {
        reply.error(Errno::ERANGE);
    } else {
        reply.data(value);
    }
}
