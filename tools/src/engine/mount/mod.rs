//! Blobs and trees as file systems, by FUSE.
//!
//! A file system here is a `fuser::Filesystem` over an [`IndexedBlob`](super::IndexedBlob); [`Mounted`] is its life from mount
//! to unmount. Requests are answered by a fixed number of threads, each of which may wait for a store.
//!
//! Invariants: nothing that a user or an archive names becomes part of a mount option (the source is always called `cairn`);
//! whatever a store, an index or an archive does to a request is an error of that request. Not here: signals, arguments.

mod bitmap;
mod blob_file;
mod blob_fs;
mod cor;
mod cow;
mod tree_fs;

use std::ffi::CString;
use std::fs::File;
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};
use std::process::Command;

use crossbeam_channel::Receiver;
use fuser::{Config, Filesystem, InitFlags, KernelConfig, MountOption, Session, SessionACL, SessionUnmounter};
use rustix::io::Errno;

pub(crate) use blob_file::BlobFile;
pub(crate) use blob_fs::{BlobFs, Report};
pub(crate) use cor::{CopyOnRead, CopyOnReadOptions};
pub(crate) use cow::Overlay;
pub(crate) use tree_fs::TreeFs;

use super::error::file;
use super::new_file::{folder_of, name_file, new_file};
use super::{Error, Result};

/// Threads that answer requests: as many may wait for a store at a time.
const THREADS: usize = 16;
/// Longest read or write that the kernel sends; it takes 1 MiB at most unless its administrator says otherwise.
const REQUEST_LEN_MAX: u32 = 1 << 20;
/// Requests that the kernel sends ahead of readers and on behalf of asynchronous ones.
const BACKGROUND_MAX: u16 = 64;
/// How far the kernel reads ahead in one go, KiB; its own default of 128 costs eight times the requests.
const KERNEL_READAHEAD_KIB: u32 = 1024;
/// The kernel's door to FUSE.
const DEVICE: &str = "/dev/fuse";
/// Mounts and unmounts on behalf of users who may not.
const HELPER: &str = "fusermount3";

/// Why a folder could not be mounted on.
#[derive(Debug, thiserror::Error)]
pub(crate) enum MountFault {
    /// The kernel has no FUSE, or this machine does not let us use it.
    #[error("there is no {DEVICE}")]
    NoDevice,
    /// Only some users may use it.
    #[error("{DEVICE} is not open to this user")]
    Device,
    /// We may not mount, and the program that may is not there.
    #[error("only root may mount, and the program {HELPER} that mounts for others is not there")]
    NoHelper,
    /// Mounting over files would hide them.
    #[error("the folder is not empty")]
    NotEmpty,
    /// The folder cannot be looked at, or is none.
    #[error("cannot open the folder: {0}")]
    Folder(io::Error),
    /// The system refused.
    #[error("the system refused: {0}")]
    Refused(io::Error),
}

/// Who may see a mount, and what for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct MountOptions {
    /// Other users than the one who mounts.
    pub(crate) allow_other: bool,
    /// Files may be written.
    pub(crate) writable: bool,
}

/// A mounted file system.
#[derive(Debug)]
pub(crate) struct Mounted {
    folder: PathBuf,
    unmounter: SessionUnmounter,
    ended: Receiver<io::Result<()>>,
}

/// What became of an unmount.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Unmounted {
    /// Nothing is left.
    Gone,
    /// The folder is free, but files are still open and are served until they are closed.
    InUse,
}

impl Mounted {
    /// Mounts on an empty folder and starts to serve.
    ///
    /// Errors: [`Error::Mount`] with what is missing.
    pub(crate) fn start(filesystem: impl Filesystem, folder: &Path, options: MountOptions) -> Result<Self> {
        let fault = |fault| Error::Mount {
            path: folder.to_owned(),
            fault,
        };
        let listed = std::fs::read_dir(folder).and_then(|mut entries| entries.next().transpose());
        if listed.map_err(|error| fault(MountFault::Folder(error)))?.is_some() {
            return Err(fault(MountFault::NotEmpty));
        }
        if !Path::new(DEVICE).exists() {
            return Err(fault(MountFault::NoDevice));
        }
        // Afterwards the folder is what was mounted, and a path relative to it leads elsewhere.
        let folder = std::path::absolute(folder).map_err(file(folder, "find"))?;
        let mut config = Config::default();
        config.mount_options = vec![
            MountOption::FSName("cairn".to_owned()),
            MountOption::Subtype("cairn".to_owned()),
            MountOption::DefaultPermissions,
            MountOption::NoDev,
            MountOption::NoSuid,
            if options.writable {
                MountOption::RW
            } else {
                MountOption::RO
            },
        ];
        config.acl = if options.allow_other {
            SessionACL::All
        } else {
            SessionACL::Owner
        };
        config.n_threads = Some(THREADS);
        config.clone_fd = true;
        let mut session = Session::new(filesystem, &folder, &config).map_err(|error| {
            fault(match error.kind() {
                io::ErrorKind::NotFound => MountFault::NoHelper,
                io::ErrorKind::PermissionDenied if File::open(DEVICE).is_err() => MountFault::Device,
                _ => MountFault::Refused(error),
            })
        })?;
        let unmounter = session.unmount_callable();
        let (sender, ended) = crossbeam_channel::bounded(1);
        std::thread::spawn(move || {
            let end = session.run().or_else(|error| match Errno::from_io_error(&error) {
                // The kernel's other word for a mount that is gone, to a thread that was just about to ask for more.
                Some(Errno::CONNABORTED) => Ok(()),
                _ => Err(error),
            });
            // Nobody listens any more when the tool is ending.
            let _ = sender.send(end);
        });
        read_ahead(&folder);
        Ok(Self {
            folder,
            unmounter,
            ended,
        })
    }

    /// Gets one message when the mount has ended, by [`Mounted::unmount`] or by somebody else's `umount`.
    pub(crate) fn ended(&self) -> &Receiver<io::Result<()>> {
        &self.ended
    }

    /// Takes the mount off its folder, also while files are open.
    ///
    /// Errors: the system refused.
    pub(crate) fn unmount(&mut self) -> Result<Unmounted> {
        let Err(error) = self.unmounter.unmount() else {
            return Ok(Unmounted::Gone);
        };
        let helper = Command::new(HELPER).args(["-u", "-z", "--"]).arg(&self.folder).output();
        if helper.is_ok_and(|helper| helper.status.success()) {
            return Ok(Unmounted::InUse);
        }
        Err(file(&self.folder, "unmount")(error))
    }
}

impl Drop for Mounted {
    fn drop(&mut self) {
        // A mount without the process behind it would stay, and answer every request with an error.
        let _ = self.unmount();
    }
}

/// What every file system here asks of the kernel at its start.
fn configure(config: &mut KernelConfig) {
    // What a kernel does not have costs speed only.
    for capability in [
        InitFlags::FUSE_PARALLEL_DIROPS,
        InitFlags::FUSE_ASYNC_DIO,
        InitFlags::FUSE_CACHE_SYMLINKS,
    ] {
        let _ = config.add_capabilities(capability);
    }
    let _ = config.set_max_write(REQUEST_LEN_MAX);
    let _ = config.set_max_background(BACKGROUND_MAX);
}

/// Lets the kernel read further ahead in a mount. Only root may ask for it; without, reads are shorter.
fn read_ahead(folder: &Path) {
    let Ok(stat) = rustix::fs::stat(folder) else { return };
    let (major, minor) = (rustix::fs::major(stat.st_dev), rustix::fs::minor(stat.st_dev));
    let _ = std::fs::write(
        format!("/sys/class/bdi/{major}:{minor}/read_ahead_kb"),
        KERNEL_READAHEAD_KIB.to_string(),
    );
}

/// Opens or makes a file that no other mount may use until it is closed; with its length.
///
/// Errors: it cannot be opened, or another mount has it.
fn open_alone(path: &Path) -> Result<(File, u64)> {
    use rustix::fs::{FlockOperation, flock};
    let opened = File::options()
        .read(true)
        .write(true)
        .create(true)
        .truncate(false)
        .open(path);
    let held = opened.map_err(file(path, "open"))?;
    match flock(&held, FlockOperation::NonBlockingLockExclusive) {
        Ok(()) => {}
        Err(rustix::io::Errno::WOULDBLOCK) => {
            return Err(Error::State {
                path: path.to_owned(),
                what: "in use by another mount",
            });
        }
        Err(error) => return Err(file(path, "lock")(error.into())),
    }
    let len = held.metadata().map_err(file(path, "look at"))?.len();
    Ok((held, len))
}

/// Puts a new file in place of `path`: whole, and durable where `synced`, when this returns.
fn replace_file(path: &Path, parts: &[&[u8]], synced: bool) -> Result<()> {
    let mut new = new_file(path, None)?;
    let written = parts.iter().try_for_each(|part| new.write_all(part));
    written.map_err(file(path, "write"))?;
    if synced {
        new.as_file().sync_all().map_err(file(path, "sync"))?;
    }
    name_file(new, path)?;
    if synced {
        let folder = File::open(folder_of(path)).and_then(|folder| folder.sync_all());
        folder.map_err(file(path, "sync the folder of"))?;
    }
    Ok(())
}

/// A name that may stand in a folder, made of what the user called something.
pub(crate) fn entry_name(name: &str, fallback: &str) -> String {
    let base = name.split(['?', '#']).next().unwrap_or(name);
    let base = if name.contains("://") { base } else { name };
    let base = base.rsplit('/').find(|part| !part.is_empty()).unwrap_or_default();
    let stem = match base.rsplit_once('.') {
        Some((stem, _)) if !stem.is_empty() => stem,
        _ => base,
    };
    if ["", ".", "..", "-"].contains(&stem) || CString::new(stem).is_err() || stem.len() > 255 {
        return fallback.to_owned();
    }
    stem.to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_in_the_mount_are_those_of_the_index() {
        for (index, name) in [
            ("disk.img.caibx", "disk.img"),
            ("a/b/disk.caibx", "disk"),
            ("disk", "disk"),
            (".caibx", ".caibx"),
            ("-", "blob"),
            ("a/..", "blob"),
            ("what?.caibx", "what?"),
            ("https://host/x/disk.caibx?token=secret.part", "disk"),
        ] {
            assert_eq!(entry_name(index, "blob"), name, "{index}");
        }
    }
}
