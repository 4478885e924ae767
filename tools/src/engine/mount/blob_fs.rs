//! A file system of one folder with one file: a blob.

use std::collections::HashSet;
use std::ffi::OsStr;
use std::fmt;
use std::ops::Range;
use std::sync::{Arc, Mutex};
use std::time::{Duration, SystemTime};

use fuser::{
    BsdFileFlags, Errno, FileAttr, FileHandle, FileType, Filesystem, FopenFlags, Generation, INodeNo, KernelConfig,
    LockOwner, OpenAccMode, OpenFlags, ReplyAttr, ReplyData, ReplyDirectory, ReplyEmpty, ReplyEntry, ReplyOpen,
    ReplyStatfs, ReplyWrite, Request, TimeOrNow, WriteFlags,
};

use super::{BlobFile, configure};
use crate::engine::Error;
use crate::engine::batch::lock;

/// The folder.
const ROOT: INodeNo = INodeNo(1);
/// The file in it.
const FILE: INodeNo = INodeNo(2);
/// How long the kernel may believe what it was told: nothing changes but by the kernel's own requests.
const TTL: Duration = Duration::from_secs(3600);
/// Errors that are told once each; more different ones than these are not told at all.
const REPORTS_MAX: usize = 1000;

/// Tells people of errors that a request can only call "I/O error", each once.
pub(crate) struct Report {
    tell: Box<dyn Fn(String) + Send + Sync>,
    told: Mutex<HashSet<String>>,
}

impl Report {
    /// - `tell`: gets a line without its end.
    pub(crate) fn new(tell: impl Fn(String) + Send + Sync + 'static) -> Self {
        Self {
            tell: Box::new(tell),
            told: Mutex::default(),
        }
    }

    /// - `what`: what could not be done, before a colon.
    pub(super) fn error(&self, what: &dyn fmt::Display, error: &(dyn std::error::Error + 'static)) {
        let cause = crate::failure::chain(error);
        let mut told = lock(&self.told);
        if told.len() < REPORTS_MAX && told.insert(cause.clone()) {
            (self.tell)(format!("{what}: {cause}"));
        }
    }
}

impl fmt::Debug for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Report").finish_non_exhaustive()
    }
}

/// One blob as a file.
#[derive(Debug)]
pub(crate) struct BlobFs {
    blob: Arc<BlobFile>,
    name: String,
    report: Report,
    /// User and group of both inodes.
    owner: (u32, u32),
    mounted: SystemTime,
    changed: Mutex<SystemTime>,
}

impl BlobFs {
    /// - `name`: of the file.
    pub(crate) fn new(blob: Arc<BlobFile>, name: String, report: Report) -> Self {
        let now = SystemTime::now();
        Self {
            blob,
            name,
            report,
            owner: (rustix::process::geteuid().as_raw(), rustix::process::getegid().as_raw()),
            mounted: now,
            changed: Mutex::new(now),
        }
    }

    fn attributes(&self, inode: INodeNo) -> Option<FileAttr> {
        let (kind, perm, nlink, size, changed) = match inode {
            ROOT => (FileType::Directory, 0o555, 2, 0, self.mounted),
            FILE => {
                let perm = if self.blob.is_writable() { 0o644 } else { 0o444 };
                (FileType::RegularFile, perm, 1, self.blob.len(), *lock(&self.changed))
            }
            _ => return None,
        };
        Some(FileAttr {
            ino: inode,
            size,
            blocks: size.div_ceil(512),
            atime: changed,
            mtime: changed,
            ctime: changed,
            crtime: self.mounted,
            kind,
            perm,
            nlink,
            uid: self.owner.0,
            gid: self.owner.1,
            rdev: 0,
            blksize: 4096,
            flags: 0,
        })
    }

    /// The answer to a request that an error ended: people learn what it was, the program gets a number.
    fn failed(&self, what: &str, range: Range<u64>, error: &Error) -> Errno {
        let words = format!("{}: cannot {what} bytes {}..{}", self.name, range.start, range.end);
        self.report.error(&words, error);
        match error {
            Error::File { source, .. } => Errno::from(std::io::Error::from_raw_os_error(
                source.raw_os_error().unwrap_or(Errno::EIO.code()),
            )),
            _ => Errno::EIO,
        }
    }
}

impl Filesystem for BlobFs {
    fn init(&mut self, _: &Request, config: &mut KernelConfig) -> std::io::Result<()> {
        configure(config);
        Ok(())
    }

    fn lookup(&self, _: &Request, parent: INodeNo, name: &OsStr, reply: ReplyEntry) {
        match self.attributes(FILE) {
            Some(attributes) if parent == ROOT && name == OsStr::new(&self.name) => {
                reply.entry(&TTL, &attributes, Generation(0));
            }
            _ => reply.error(Errno::ENOENT),
        }
    }

    fn getattr(&self, _: &Request, inode: INodeNo, _: Option<FileHandle>, reply: ReplyAttr) {
        match self.attributes(inode) {
            Some(attributes) => reply.attr(&TTL, &attributes),
            None => reply.error(Errno::ENOENT),
        }
    }

    /// Times may be set; length, mode and owner stay what they are, as those of a disk's device would.
    fn setattr(
        &self,
        _: &Request,
        inode: INodeNo,
        mode: Option<u32>,
        uid: Option<u32>,
        gid: Option<u32>,
        size: Option<u64>,
        _: Option<TimeOrNow>,
        mtime: Option<TimeOrNow>,
        _: Option<SystemTime>,
        _: Option<FileHandle>,
        _: Option<SystemTime>,
        _: Option<SystemTime>,
        _: Option<SystemTime>,
        _: Option<BsdFileFlags>,
        reply: ReplyAttr,
    ) {
        let resized = size.is_some_and(|size| size != self.blob.len());
        if inode != FILE || resized || mode.is_some() || uid.is_some() || gid.is_some() {
            return reply.error(Errno::EPERM);
        }
        match mtime {
            Some(TimeOrNow::SpecificTime(time)) => *lock(&self.changed) = time,
            Some(TimeOrNow::Now) => *lock(&self.changed) = SystemTime::now(),
            None => {}
        }
        match self.attributes(inode) {
            Some(attributes) => reply.attr(&TTL, &attributes),
            None => reply.error(Errno::ENOENT),
        }
    }

    fn open(&self, _: &Request, inode: INodeNo, flags: OpenFlags, reply: ReplyOpen) {
        if inode != FILE {
            reply.error(Errno::EISDIR);
        } else if flags.acc_mode() != OpenAccMode::O_RDONLY && !self.blob.is_writable() {
            reply.error(Errno::EROFS);
        } else {
            reply.opened(FileHandle(0), FopenFlags::FOPEN_KEEP_CACHE);
        }
    }

    fn read(
        &self,
        _: &Request,
        _: INodeNo,
        _: FileHandle,
        offset: u64,
        size: u32,
        _: OpenFlags,
        _: Option<LockOwner>,
        reply: ReplyData,
    ) {
        match self.blob.read(offset, size as usize) {
            Ok(bytes) => reply.data(&bytes),
            // Never the part that could be read: the kernel would take the rest for zeros.
            Err(error) => reply.error(self.failed("read", offset..offset + u64::from(size), &error)),
        }
    }

    fn write(
        &self,
        _: &Request,
        _: INodeNo,
        _: FileHandle,
        offset: u64,
        data: &[u8],
        _: WriteFlags,
        _: OpenFlags,
        _: Option<LockOwner>,
        reply: ReplyWrite,
    ) {
        match self.blob.write(offset, data) {
            // As a disk that ends here.
            Ok(0) if !data.is_empty() => reply.error(Errno::ENOSPC),
            Ok(written) => {
                *lock(&self.changed) = SystemTime::now();
                reply.written(written as u32);
            }
            Err(error) => reply.error(self.failed("write", offset..offset + data.len() as u64, &error)),
        }
    }

    fn flush(&self, _: &Request, _: INodeNo, _: FileHandle, _: LockOwner, reply: ReplyEmpty) {
        match self.blob.note() {
            Ok(()) => reply.ok(),
            Err(error) => reply.error(self.failed("note", 0..self.blob.len(), &error)),
        }
    }

    fn fsync(&self, _: &Request, _: INodeNo, _: FileHandle, _: bool, reply: ReplyEmpty) {
        match self.blob.sync() {
            Ok(()) => reply.ok(),
            Err(error) => reply.error(self.failed("sync", 0..self.blob.len(), &error)),
        }
    }

    fn readdir(&self, _: &Request, inode: INodeNo, _: FileHandle, offset: u64, mut reply: ReplyDirectory) {
        if inode != ROOT {
            return reply.error(Errno::ENOTDIR);
        }
        let entries = [
            (ROOT, FileType::Directory, "."),
            (ROOT, FileType::Directory, ".."),
            (FILE, FileType::RegularFile, &self.name),
        ];
        for (at, (inode, kind, name)) in entries.into_iter().enumerate().skip(offset as usize) {
            if reply.add(inode, at as u64 + 1, kind, name) {
                break;
            }
        }
        reply.ok();
    }

    fn statfs(&self, _: &Request, _: INodeNo, reply: ReplyStatfs) {
        const BLOCK_LEN: u32 = 4096;
        let blocks = self.blob.len().div_ceil(u64::from(BLOCK_LEN));
        reply.statfs(blocks, 0, 0, 2, 0, BLOCK_LEN, 255, BLOCK_LEN);
    }
}
