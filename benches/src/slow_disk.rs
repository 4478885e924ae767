//! A disk in a file whose flush takes as long as it is told: on a disk that answers a flush at once, durability costs nothing and
//! every way to get it looks the same.
//!
//! One file through FUSE, a loop device over it, ext4 on that. Only flushes wait; reads and writes are as fast as memory, for all
//! who are compared. Needs root, FUSE and loop devices.

use std::ffi::OsStr;
use std::fs::{self, File};
use std::io;
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, SystemTime};

use fuser::{
    BackgroundSession, Config, Errno, FileAttr, FileHandle, FileType, Filesystem, FopenFlags, Generation, INodeNo,
    KernelConfig, LockOwner, MountOption, OpenFlags, ReplyAttr, ReplyData, ReplyEmpty, ReplyEntry, ReplyOpen,
    ReplyWrite, Request, SessionACL, WriteFlags,
};

use crate::Result;

const FILE: INodeNo = INodeNo(2);
const NAME: &str = "disk";
const TTL: Duration = Duration::from_secs(3600);
const THREADS: usize = 4;
/// Bytes of one write request.
const WRITE_LEN: u32 = 1 << 20;

/// An empty ext4 on such a disk, until this is dropped.
pub(crate) struct SlowDisk {
    /// Where it is mounted.
    pub(crate) at: PathBuf,
    device: String,
    _session: BackgroundSession,
}

impl SlowDisk {
    /// - `folder`: gets the file and the mounts.
    /// - `len`: bytes of the disk.
    pub(crate) fn mount(folder: &Path, len: u64, flush: Duration) -> Result<Self> {
        let backing = File::options()
            .create(true)
            .truncate(true)
            .read(true)
            .write(true)
            .open(folder.join("slow-disk.img"))?;
        backing.set_len(len)?;
        let (fuse, at) = (folder.join("slow-disk-file"), folder.join("slow-disk"));
        fs::create_dir(&fuse)?;
        fs::create_dir(&at)?;
        let disk = Disk { backing, len, flush };
        let mut config = Config::default();
        config.mount_options = vec![MountOption::FSName("slow-disk".to_owned()), MountOption::RW];
        config.acl = SessionACL::Owner;
        config.n_threads = Some(THREADS);
        config.clone_fd = true;
        let session = fuser::spawn_mount(disk, &fuse, &config)?;
        let device = output(Command::new("losetup").args(["--find", "--show"]).arg(fuse.join(NAME)))?;
        let disk = Self {
            at,
            device,
            _session: session,
        };
        output(
            Command::new("mkfs.ext4")
                .args(["-q", "-m0", "-E", "lazy_itable_init=0,lazy_journal_init=0"])
                .arg(&disk.device),
        )?;
        output(Command::new("mount").arg(&disk.device).arg(&disk.at))?;
        Ok(disk)
    }
}

impl Drop for SlowDisk {
    fn drop(&mut self) {
        // What was never mounted is as good as unmounted.
        let _ = output(Command::new("umount").arg(&self.at));
        let _ = output(Command::new("losetup").arg("--detach").arg(&self.device));
    }
}

/// Runs a program of the system to its end; what it printed.
fn output(command: &mut Command) -> Result<String> {
    let output = command.output()?;
    if !output.status.success() {
        let words = String::from_utf8_lossy(&output.stderr);
        return Err(format!("{}: {}", command.get_program().to_string_lossy(), words.trim()).into());
    }
    Ok(String::from_utf8_lossy(&output.stdout).trim().to_owned())
}

/// The file system of the one file.
struct Disk {
    backing: File,
    len: u64,
    flush: Duration,
}

impl Disk {
    fn attributes(&self, inode: INodeNo) -> FileAttr {
        let is_file = inode == FILE;
        FileAttr {
            ino: inode,
            size: if is_file { self.len } else { 0 },
            blocks: 0,
            atime: SystemTime::UNIX_EPOCH,
            mtime: SystemTime::UNIX_EPOCH,
            ctime: SystemTime::UNIX_EPOCH,
            crtime: SystemTime::UNIX_EPOCH,
            kind: if is_file {
                FileType::RegularFile
            } else {
                FileType::Directory
            },
            perm: if is_file { 0o600 } else { 0o700 },
            nlink: 1,
            uid: 0,
            gid: 0,
            rdev: 0,
            blksize: 4096,
            flags: 0,
        }
    }
}

impl Filesystem for Disk {
    fn init(&mut self, _: &Request, config: &mut KernelConfig) -> io::Result<()> {
        // A smaller one costs speed only.
        let _ = config.set_max_write(WRITE_LEN);
        Ok(())
    }

    fn lookup(&self, _: &Request, _: INodeNo, name: &OsStr, reply: ReplyEntry) {
        if name == NAME {
            reply.entry(&TTL, &self.attributes(FILE), Generation(0));
        } else {
            reply.error(Errno::ENOENT);
        }
    }

    fn getattr(&self, _: &Request, inode: INodeNo, _: Option<FileHandle>, reply: ReplyAttr) {
        reply.attr(&TTL, &self.attributes(inode));
    }

    fn open(&self, _: &Request, _: INodeNo, _: OpenFlags, reply: ReplyOpen) {
        reply.opened(FileHandle(0), FopenFlags::FOPEN_KEEP_CACHE);
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
        let mut bytes = vec![0; (size as usize).min(self.len.saturating_sub(offset) as usize)];
        match self.backing.read_exact_at(&mut bytes, offset) {
            Ok(()) => reply.data(&bytes),
            Err(_) => reply.error(Errno::EIO),
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
        match self.backing.write_all_at(data, offset) {
            Ok(()) => reply.written(data.len() as u32),
            Err(_) => reply.error(Errno::EIO),
        }
    }

    /// The disk goes on reading and writing meanwhile.
    fn fsync(&self, _: &Request, _: INodeNo, _: FileHandle, _: bool, reply: ReplyEmpty) {
        let flush = self.flush;
        std::thread::spawn(move || {
            std::thread::sleep(flush);
            reply.ok();
        });
    }
}
