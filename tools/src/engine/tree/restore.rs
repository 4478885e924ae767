//! An archive's entries put on disk.
//!
//! Hot path: a new file costs open, its writes, owner, mode, times, link, close. Keep out: paths, allocations for what is not
//! there, copies of payload.
//!
//! Invariants: everything happens below open folders, no link is followed but on the way to the target itself; a file has its
//! name only when it is whole, its metadata too, however this ends; nothing that was there before is lost before what replaces
//! it is whole; an entry that is already as it should be is not touched; what
//! follows a change is done after it (owner, mode, attributes, ACL, label, capabilities, bits, times, locks; folders last).

use std::ffi::{CStr, CString, OsStr};
use std::io;
use std::os::fd::{AsFd as _, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Path, PathBuf};

use bytes::Bytes;
use cairn_formats::{Content, FeatureFlags, Node};
use rustix::fs::{AtFlags, FileType, Mode, OFlags, Stat};
use rustix::io::Errno;
use rustix::path::DecInt;

use super::apply::Applier;
use super::contents::{NewFile, is_same};
use super::features;
use super::links::{LinkKey, Links};
use super::metadata::{is_file, is_folder, is_link};
use super::note::{Note, Notes};
use super::owner_shift::OwnerShift;
use super::remove::remove_all;
use super::system::{self, magic};
use super::unpack::TreeSink;
use crate::engine::error::file;
use crate::engine::{Error, Result};

/// How an archive is restored.
#[derive(Clone, Debug)]
pub(crate) struct RestoreOptions {
    /// Owners as kept; else those of whoever runs this.
    pub(crate) same_owner: bool,
    /// Modes as kept; else what the umask leaves of them.
    pub(crate) same_permissions: bool,
    /// Extended attributes, ACLs, labels, capabilities.
    pub(crate) same_xattrs: bool,
    /// Owners by number although there are names.
    pub(crate) numeric_owner: bool,
    /// Remove what the archive does not have.
    pub(crate) delete: bool,
    /// Leave holes for zeros.
    pub(crate) sparse: bool,
    /// Make equal files links to one.
    pub(crate) hardlinks: bool,
    /// Take immutable and append-only away from what is there, where it is in the way.
    pub(crate) undo_immutable: bool,
    /// Owners' numbers are others on disk.
    pub(crate) shift: Option<OwnerShift>,
}

/// What was done.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct RestoreReport {
    /// Entries of the archive.
    pub(crate) entries: u64,
    /// Files written anew.
    pub(crate) files_written: u64,
    /// Files whose content was there already.
    pub(crate) files_unchanged: u64,
    /// Files that became links to equal ones.
    pub(crate) files_linked: u64,
    /// Bytes of files written anew.
    pub(crate) bytes_written: u64,
    /// Entries removed because the archive does not have them.
    pub(crate) removed: u64,
}

/// Puts entries on disk as they come.
pub(crate) struct Restorer {
    target: PathBuf,
    options: RestoreOptions,
    applier: Applier,
    /// `/proc/self/fd`, through which a file without a name gets one; `None` where it is not there.
    handles: Option<OwnedFd>,
    folders: Vec<Folder>,
    file: Option<OpenFile>,
    /// Path of the entry in hand, below the target.
    path: Vec<u8>,
    links: Links,
    notes: Notes,
    report: RestoreReport,
    /// For reading what is there.
    buffer: Vec<u8>,
}

struct Folder {
    fd: OwnedFd,
    /// `None` for a folder that is not the archive's: only its entries are.
    node: Option<Box<Node>>,
    path_len: usize,
    /// Names that the archive has, where the others are to go.
    names: Option<std::collections::HashSet<Box<[u8]>>>,
    /// What is made in it takes attributes from it.
    bequeaths: bool,
    fresh: bool,
    device: u64,
    magic: u64,
    /// Its file system has files without names.
    unnamed: bool,
    /// The quota project that it gives to what is made in it, if it does: nothing of another one gets a name in it.
    project: Option<u32>,
}

struct OpenFile {
    name: CString,
    node: Box<Node>,
    len: u64,
    done: u64,
    state: FileState,
    key: Option<LinkKey>,
}

enum FileState {
    /// Written without a name, so that nothing is left of it whenever this is killed; where the file system does not have
    /// that, under a temporary one.
    New {
        file: NewFile,
        temporary: Option<CString>,
        /// The mode that it was made with, if that is the final one.
        mode: Option<u32>,
    },
    /// What is there has been right so far.
    Same { fd: OwnedFd },
}

/// How names of files that are not whole yet begin.
const TEMPORARY_PREFIX: &str = ".cairn-";

/// Names of files that are not whole yet; whatever the length of the final one, they fit.
pub(super) fn temporary_name() -> CString {
    CString::new(format!("{TEMPORARY_PREFIX}{:016x}", fastrand::u64(..))).expect("no NUL")
}

fn is_temporary(name: &CStr) -> bool {
    let digits = name.to_bytes().strip_prefix(TEMPORARY_PREFIX.as_bytes());
    digits.is_some_and(|digits| digits.len() == 16 && digits.iter().all(u8::is_ascii_hexdigit))
}

fn cstring(name: &[u8]) -> CString {
    CString::new(name).expect("the decoder refuses names with a NUL")
}

impl Restorer {
    /// Restores into `target`, which is made if it is not there (its parent has to be).
    pub(crate) fn new(target: &Path, options: RestoreOptions) -> Self {
        let how = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        Self {
            target: target.to_owned(),
            applier: Applier::new(&options),
            handles: rustix::fs::open("/proc/self/fd", how, Mode::empty()).ok(),
            options,
            folders: Vec::new(),
            file: None,
            path: Vec::new(),
            links: Links::default(),
            notes: Notes::default(),
            report: RestoreReport::default(),
            buffer: Vec::new(),
        }
    }

    /// Restores single entries into a folder that is there and stays as it is.
    ///
    /// Errors: it cannot be opened.
    pub(crate) fn inside(folder: &Path, options: RestoreOptions) -> Result<Self> {
        let mut restorer = Self::new(folder, options);
        let how = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let fd = rustix::fs::open(folder, how, Mode::empty()).map_err(|error| file(folder, "open")(error.into()))?;
        restorer.push(fd, None, false)?;
        Ok(restorer)
    }

    /// What was done.
    pub(crate) fn report(&self) -> RestoreReport {
        self.report
    }

    /// What could not be restored.
    pub(crate) fn take_notes(&mut self) -> Notes {
        let mut notes = std::mem::take(&mut self.notes);
        self.applier.add_general_notes(&mut notes);
        notes
    }

    fn shown(&self) -> PathBuf {
        self.target.join(OsStr::from_bytes(&self.path))
    }

    fn failed(&self, action: &'static str) -> impl FnOnce(Errno) -> Error {
        let path = self.shown();
        move |error| file(&path, action)(error.into())
    }

    fn note(&mut self, what: String) {
        self.notes.push(Note::new(&self.path, what));
    }

    fn parent(&self) -> &Folder {
        self.folders.last().expect("entries come below a folder")
    }

    /// Goes on below an open folder.
    fn push(&mut self, fd: OwnedFd, node: Option<Box<Node>>, fresh: bool) -> Result<()> {
        let stat = rustix::fs::fstat(&fd).map_err(self.failed("look at"))?;
        let (magic, unnamed) = match self.folders.last() {
            Some(parent) if parent.device == stat.st_dev => (parent.magic, parent.unnamed),
            _ => {
                let magic = system::magic_of(&fd).map_err(file(&self.shown(), "look at the file system of"))?;
                (magic, self.handles.is_some())
            }
        };
        if !fresh && node.is_some() {
            remove_left_over(&fd);
        }
        // On some mounts a folder gives its group to what is made in it.
        let mut bequeaths = stat.st_gid != rustix::process::getegid().as_raw();
        if !fresh || self.folders.last().is_some_and(|parent| parent.bequeaths) {
            bequeaths |= stat.st_mode & 0o2000 != 0
                || system::attributes(&fd).is_ok_and(|bits| bits & features::INHERITED != 0)
                || rustix::fs::fgetxattr(&fd, super::acl::DEFAULT, &mut [0_u8; 4096][..]) != Err(Errno::NODATA);
            // Whoever runs this has to get in, whatever the mode; it is set again at the end.
            if node.is_some() && stat.st_mode & 0o700 != 0o700 && !rustix::process::geteuid().is_root() {
                let mode = Mode::from_raw_mode(stat.st_mode & 0o7777 | 0o700);
                rustix::fs::fchmod(&fd, mode).map_err(self.failed("open to its owner"))?;
            }
        }
        let gives_project =
            bequeaths && system::attributes(&fd).is_ok_and(|bits| bits & features::PROJECT_INHERITED != 0);
        let project = gives_project.then(|| system::quota_project(&fd).ok()).flatten();
        self.folders.push(Folder {
            fd,
            names: (self.options.delete && node.is_some()).then(Default::default),
            node,
            path_len: self.path.len(),
            bequeaths,
            fresh,
            device: stat.st_dev,
            magic,
            unnamed,
            project,
        });
        Ok(())
    }

    /// Gives the owners of the entry in hand the numbers that they have here.
    fn shift(&self, node: &mut Node) -> Result<()> {
        let shifted = self
            .options
            .shift
            .map_or(Ok(()), |shift| shift.to_disk(&mut node.metadata));
        shifted.map_err(file(&self.shown(), "restore the owner of"))
    }

    fn root(&mut self, node: Box<Node>) -> Result<()> {
        let target = self.target.clone();
        let fresh = match rustix::fs::mkdir(&target, Mode::from_raw_mode(0o700)) {
            Ok(()) => true,
            Err(Errno::EXIST) => false,
            Err(error) => return Err(file(&target, "make")(error.into())),
        };
        let how = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let fd = rustix::fs::open(&target, how, Mode::empty()).map_err(|error| file(&target, "open")(error.into()))?;
        self.push(fd, Some(node), fresh)
    }

    fn folder(&mut self, name: &CStr, node: Box<Node>) -> Result<()> {
        let how = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC | OFlags::NOFOLLOW;
        let mut fresh = true;
        loop {
            match self.make_folder(name, &node) {
                Ok(()) => break,
                Err(Errno::EXIST) => {}
                Err(error) => return Err(self.failed("make")(error)),
            }
            let stat = rustix::fs::statat(&self.parent().fd, name, AtFlags::SYMLINK_NOFOLLOW);
            if is_folder(&stat.map_err(self.failed("look at"))?) {
                fresh = false;
                self.unlock(name);
                break;
            }
            self.unlock(name);
            rustix::fs::unlinkat(&self.parent().fd, name, AtFlags::empty()).map_err(self.failed("replace"))?;
        }
        let open = |parent: &OwnedFd| rustix::fs::openat(parent, name, how, Mode::empty());
        let fd = match open(&self.parent().fd) {
            Err(Errno::ACCESS) if !fresh => {
                let mode = Mode::from_raw_mode(0o700);
                rustix::fs::chmodat(&self.parent().fd, name, mode, AtFlags::empty())
                    .map_err(self.failed("open to its owner"))?;
                open(&self.parent().fd)
            }
            fd => fd,
        };
        self.push(fd.map_err(self.failed("open"))?, Some(node), fresh)
    }

    fn make_folder(&mut self, name: &CStr, node: &Node) -> std::result::Result<(), Errno> {
        let parent = self.parent();
        if node.metadata.attributes & FeatureFlags::SUBVOLUME != 0 {
            if parent.magic == magic::BTRFS {
                match system::make_subvolume(&parent.fd, name.to_bytes()) {
                    Ok(()) => return Ok(()),
                    Err(error) if error.kind() == io::ErrorKind::AlreadyExists => return Err(Errno::EXIST),
                    Err(error) => self.note(format!("it is a folder, a subvolume could not be made: {error}")),
                }
            } else {
                self.note("it is a folder, only btrfs has subvolumes".to_owned());
            }
        }
        rustix::fs::mkdirat(&self.parent().fd, name, Mode::from_raw_mode(0o700))
    }

    fn file(&mut self, name: CString, node: Box<Node>, len: u64) -> Result<()> {
        let key = (self.options.hardlinks && len > 0).then(LinkKey::default);
        let mode = if self.parent().bequeaths {
            None
        } else {
            self.applier.plain_mode(&node)
        };
        let state = if self.is_there(&name)? {
            match self.unlock(&name).open_same(&name, &node, len)? {
                Some(fd) => FileState::Same { fd },
                None => self.open_new(None)?,
            }
        } else {
            self.open_new(mode)?
        };
        self.file = Some(OpenFile {
            name,
            node,
            len,
            done: 0,
            state,
            key,
        });
        if len == 0 { self.end_file() } else { Ok(()) }
    }

    fn is_there(&self, name: &CStr) -> Result<bool> {
        let parent = self.parent();
        if parent.fresh {
            return Ok(false);
        }
        match rustix::fs::statat(&parent.fd, name, AtFlags::SYMLINK_NOFOLLOW) {
            Ok(_) => Ok(true),
            Err(Errno::NOENT) => Ok(false),
            Err(error) => Err(self.failed("look at")(error)),
        }
    }

    /// A file that will be the one in hand.
    fn open_new(&mut self, mode: Option<u32>) -> Result<FileState> {
        let sparse = self.options.sparse;
        // Others have no work for each block, or would lose by it (btrfs does not compress what was reserved).
        let reserve = self.parent().magic == magic::EXT;
        let raw = Mode::from_raw_mode(mode.unwrap_or(0o600));
        let state = |fd, temporary| FileState::New {
            file: NewFile::new(fd, sparse, reserve),
            temporary,
            mode,
        };
        if self.parent().unnamed {
            let how = OFlags::WRONLY | OFlags::TMPFILE | OFlags::CLOEXEC;
            match rustix::fs::openat(&self.parent().fd, c".", how, raw) {
                Ok(fd) => return Ok(state(fd, None)),
                // What file systems, old kernels and emulated ones answer that do not have them.
                Err(Errno::OPNOTSUPP | Errno::ISDIR | Errno::INVAL | Errno::NOENT | Errno::NOSYS) => {
                    self.folders.last_mut().expect("entries come below a folder").unnamed = false;
                }
                Err(error) => return Err(self.failed("make")(error)),
            }
        }
        let how = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        loop {
            let name = temporary_name();
            match rustix::fs::openat(&self.parent().fd, &name, how, raw) {
                Ok(fd) => return Ok(state(fd, Some(name))),
                Err(Errno::EXIST) => {}
                Err(error) => return Err(self.failed("make a temporary file for")(error)),
            }
        }
    }

    /// Gives a file without a name one that is free. Errors: the system's.
    fn link_new(&self, fd: BorrowedFd<'_>, name: &CStr) -> std::result::Result<(), Errno> {
        // A tenth less work than by way of /proc. Kernels before 6.10 allow it to none but the privileged.
        match rustix::fs::linkat(fd, c"", &self.parent().fd, name, AtFlags::EMPTY_PATH) {
            Err(Errno::NOENT | Errno::INVAL) => {}
            result => return result,
        }
        let handles = self.handles.as_ref().ok_or(Errno::OPNOTSUPP)?;
        let follow = AtFlags::SYMLINK_FOLLOW;
        rustix::fs::linkat(handles, DecInt::from_fd(fd), &self.parent().fd, name, follow)
    }

    /// Gives a whole file its name, whatever has it now.
    fn name_new(&mut self, fd: BorrowedFd<'_>, temporary: Option<&CStr>, name: &CStr) -> Result<()> {
        let Some(theirs) = self.parent().project else {
            return self.name_one(fd, temporary, name);
        };
        let cannot = |error| file(&self.shown(), "change the quota project of")(error);
        let own = system::quota_project(fd).map_err(cannot)?;
        system::set_quota_project(fd, theirs).map_err(cannot)?;
        self.name_one(fd, temporary, name)?;
        system::set_quota_project(fd, own).map_err(|error| file(&self.shown(), "change the quota project of")(error))
    }

    fn name_one(&mut self, fd: BorrowedFd<'_>, temporary: Option<&CStr>, name: &CStr) -> Result<()> {
        if let Some(temporary) = temporary {
            return self.replace(temporary, name);
        }
        match self.link_new(fd, name) {
            Err(Errno::EXIST) => {}
            result => return result.map_err(self.failed("name")),
        }
        loop {
            let temporary = temporary_name();
            match self.link_new(fd, &temporary) {
                Err(Errno::EXIST) => {}
                Err(error) => return Err(self.failed("name")(error)),
                Ok(()) => return self.replace(&temporary, name),
            }
        }
    }

    /// Takes locks away from what is there, if that was asked for. What cannot be opened keeps them, and says so when it is in
    /// the way.
    fn unlock(&mut self, name: &CStr) -> &mut Self {
        if self.options.undo_immutable {
            let how = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC | OFlags::NONBLOCK;
            if let Ok(fd) = rustix::fs::openat(&self.parent().fd, name, how, Mode::empty()) {
                let _ = system::set_attributes(&fd, 0, features::LOCKING);
            }
        }
        self
    }

    /// The file that is there, if its content may be the one wanted.
    fn open_same(&mut self, name: &CStr, node: &Node, len: u64) -> Result<Option<OwnedFd>> {
        let stat =
            rustix::fs::statat(&self.parent().fd, name, AtFlags::SYMLINK_NOFOLLOW).map_err(self.failed("look at"))?;
        if !is_file(&stat) || stat.st_size as u64 != len {
            return Ok(None);
        }
        // One of several links cannot get metadata of its own.
        if stat.st_nlink > 1 && !self.options.hardlinks && !self.applier.agrees(&stat, node) {
            return Ok(None);
        }
        let how = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC | OFlags::NONBLOCK;
        match rustix::fs::openat(&self.parent().fd, name, how, Mode::empty()) {
            Ok(fd) => Ok(Some(fd)),
            // What cannot be read is written anew.
            Err(Errno::ACCESS) => Ok(None),
            Err(error) => Err(self.failed("open")(error)),
        }
    }

    fn write(&mut self, bytes: &[u8]) -> Result<()> {
        let Some(mut open) = self.file.take() else {
            return Ok(());
        };
        if let FileState::Same { fd } = &open.state {
            let same = is_same(fd, open.done, bytes, &mut self.buffer).map_err(file(&self.shown(), "read"))?;
            if !same {
                let mut state = self.open_new(None)?;
                if let FileState::New { file: new, .. } = &mut state {
                    let copied = new.copy(fd, open.done);
                    copied.map_err(file(&self.shown(), "copy what is the same of"))?;
                }
                open.state = state;
            }
        }
        if let Some(key) = &mut open.key {
            key.add(bytes);
        }
        let result = match &mut open.state {
            FileState::New { file, .. } => file.write(bytes),
            FileState::Same { .. } => Ok(()),
        };
        open.done += bytes.len() as u64;
        let whole = open.done == open.len;
        self.file = Some(open);
        result.map_err(|error| file(&self.shown(), "write")(error))?;
        if whole { self.end_file() } else { Ok(()) }
    }

    fn end_file(&mut self) -> Result<()> {
        let Some(mut open) = self.file.take() else {
            return Ok(());
        };
        if let FileState::New { file: new, .. } = &mut open.state
            && let Err(error) = new.finish(open.len)
        {
            self.file = Some(open);
            return Err(file(&self.shown(), "write")(error));
        }
        let (path, key) = (self.path.clone(), open.key.take());
        let parent = self.folders.last().expect("entries come below a folder");
        match &open.state {
            FileState::Same { fd } => {
                self.report.files_unchanged += 1;
                self.applier
                    .file(fd.as_fd(), &open.node, false, parent.magic, &path, &mut self.notes);
                self.applier.lock(fd.as_fd(), &open.node, &path, &mut self.notes);
            }
            FileState::New {
                file: new,
                temporary,
                mode,
            } => {
                self.report.files_written += 1;
                self.report.bytes_written += open.len;
                let (fd, fresh) = (new.fd(), !parent.bequeaths);
                match mode {
                    Some(mode) => self
                        .applier
                        .new_file(fd, &open.node, *mode, parent.magic, &path, &mut self.notes),
                    None => self
                        .applier
                        .file(fd, &open.node, fresh, parent.magic, &path, &mut self.notes),
                }
                self.name_new(fd, temporary.as_deref(), &open.name)?;
                if key.is_none() {
                    self.applier.lock(fd, &open.node, &path, &mut self.notes);
                }
            }
        }
        match key {
            Some(key) => self.link(key, open),
            None => Ok(()),
        }
    }

    /// Makes the file in hand a link to an equal one, if there was one.
    fn link(&mut self, key: LinkKey, open: OpenFile) -> Result<()> {
        let root = &self.folders[0].fd;
        let parent = &self.folders[self.folders.len() - 1].fd;
        let fd = match &open.state {
            FileState::New { file, .. } => file.fd(),
            FileState::Same { fd } => fd.as_fd(),
        };
        let linked = self
            .links
            .link(key, &open.node, fd, root, parent, &open.name, &self.path);
        match linked {
            Ok(true) => {
                self.report.files_linked += 1;
                return Ok(());
            }
            Ok(false) => {}
            Err(error) => self.notes.push(Note::new(
                &self.path,
                format!("it could not be linked to its equal: {error}"),
            )),
        }
        self.applier.lock(fd, &open.node, &self.path, &mut self.notes);
        Ok(())
    }

    /// Gives a finished entry its name, whatever has it now. Errors: nothing is left of it.
    fn replace(&mut self, temporary: &CStr, name: &CStr) -> Result<()> {
        let result = self.try_replace(temporary, name);
        if result.is_err() {
            let _ = rustix::fs::unlinkat(&self.parent().fd, temporary, AtFlags::empty());
        }
        result
    }

    fn try_replace(&self, temporary: &CStr, name: &CStr) -> Result<()> {
        let rename = |parent: &OwnedFd| rustix::fs::renameat(parent, temporary, parent, name);
        match rename(&self.parent().fd) {
            Ok(()) => return Ok(()),
            Err(Errno::ISDIR) => {}
            Err(error) => return Err(self.failed("replace")(error)),
        }
        // An empty folder is in nobody's way; a full one only when it may be removed.
        let removed = if self.options.delete {
            remove_all(&self.parent().fd, name)
        } else {
            rustix::fs::unlinkat(&self.parent().fd, name, AtFlags::REMOVEDIR)
        };
        removed.map_err(self.failed("replace the folder (a full one goes only with --delete)"))?;
        rename(&self.parent().fd).map_err(self.failed("replace"))
    }

    /// Links, devices, FIFOs, sockets.
    fn special(&mut self, name: &CStr, node: &Node) -> Result<()> {
        match self.make_special(name, node) {
            Ok(()) => self.finish_special(name, node, true),
            Err(Errno::EXIST) if self.is_same_special(name, node)? => self.finish_special(name, node, false),
            Err(Errno::EXIST) => loop {
                let temporary = temporary_name();
                match self.make_special(&temporary, node) {
                    Ok(()) => {
                        self.replace(&temporary, name)?;
                        return self.finish_special(name, node, true);
                    }
                    Err(Errno::EXIST) => {}
                    Err(error) => return self.missing(node, error),
                }
            },
            Err(error) => self.missing(node, error),
        }
    }

    /// An inode that this system, or this user, does not make is told and passed over.
    fn missing(&mut self, node: &Node, error: Errno) -> Result<()> {
        let excused = matches!(
            error,
            Errno::PERM | Errno::ACCESS | Errno::OPNOTSUPP | Errno::NOSYS | Errno::INVAL
        );
        if !excused {
            return Err(self.failed("make")(error));
        }
        let kind = match node.content {
            Content::Symlink { .. } => "symbolic link",
            Content::CharacterDevice(_) | Content::BlockDevice(_) => "device",
            Content::Fifo => "FIFO",
            _ => "socket",
        };
        self.note(format!("the {kind} could not be made: {}", io::Error::from(error)));
        Ok(())
    }

    fn make_special(&self, name: &CStr, node: &Node) -> std::result::Result<(), Errno> {
        let parent = &self.parent().fd;
        let kind = FileType::from_raw_mode(node.content.kind_bits());
        let device = match &node.content {
            Content::Symlink { target } => return rustix::fs::symlinkat(&target[..], parent, name),
            Content::CharacterDevice(device) | Content::BlockDevice(device) => {
                rustix::fs::makedev(device.major, device.minor)
            }
            _ => 0,
        };
        rustix::fs::mknodat(parent, name, kind, Mode::from_raw_mode(0o600), device)
    }

    fn is_same_special(&self, name: &CStr, node: &Node) -> Result<bool> {
        let parent = &self.parent().fd;
        let stat: Stat = rustix::fs::statat(parent, name, AtFlags::SYMLINK_NOFOLLOW).map_err(self.failed("look at"))?;
        if stat.st_mode & 0o170_000 != node.content.kind_bits() {
            return Ok(false);
        }
        Ok(match &node.content {
            Content::Symlink { target } => {
                let there = rustix::fs::readlinkat(parent, name, Vec::new()).map_err(self.failed("read the link"))?;
                is_link(&stat) && there.as_bytes() == &target[..]
            }
            Content::CharacterDevice(device) | Content::BlockDevice(device) => {
                stat.st_rdev == rustix::fs::makedev(device.major, device.minor)
            }
            _ => true,
        })
    }

    fn finish_special(&mut self, name: &CStr, node: &Node, fresh: bool) -> Result<()> {
        let parent = self.folders.last().expect("entries come below a folder");
        let fresh = fresh && !parent.bequeaths;
        self.applier
            .special(parent.fd.as_fd(), name, node, fresh, &self.path, &mut self.notes);
        Ok(())
    }

    /// Removes what a folder has and the archive has not.
    fn remove_others(&mut self, folder: &Folder) -> Result<()> {
        let Some(names) = &folder.names else { return Ok(()) };
        let listed = super::remove::names_of(&folder.fd).map_err(self.failed("list"))?;
        for name in listed {
            if !names.contains(name.to_bytes()) {
                let removed = remove_all(&folder.fd, &name);
                let path = self.shown().join(OsStr::from_bytes(name.to_bytes()));
                removed.map_err(|error| file(&path, "remove")(error.into()))?;
                self.report.removed += 1;
            }
        }
        Ok(())
    }
}

impl TreeSink for Restorer {
    fn start(&mut self, flags: FeatureFlags) -> Result<()> {
        self.applier.start(flags);
        Ok(())
    }

    fn enter(&mut self, name: Option<Bytes>, mut node: Box<Node>) -> Result<()> {
        self.report.entries += 1;
        let Some(name) = name else {
            self.shift(&mut node)?;
            return self.root(node);
        };
        let folder = self.folders.last_mut().expect("entries come below a folder");
        self.path.truncate(folder.path_len);
        if let Some(names) = &mut folder.names {
            names.insert(name.to_vec().into());
        }
        if !self.path.is_empty() {
            self.path.push(b'/');
        }
        self.path.extend_from_slice(&name);
        self.shift(&mut node)?;
        let name = cstring(&name);
        match node.content {
            Content::Directory => self.folder(&name, node),
            Content::File { len } => self.file(name, node, len),
            _ => self.special(&name, &node),
        }
    }

    fn payload(&mut self, bytes: Bytes) -> Result<()> {
        self.write(&bytes)
    }

    fn orphan(&mut self, name: Bytes) -> Result<()> {
        let mut path = self.path[..self.parent().path_len].to_vec();
        if !path.is_empty() {
            path.push(b'/');
        }
        path.extend_from_slice(&name);
        let what = "the archive has its name alone (desync loses FIFOs and sockets so)".to_owned();
        self.notes.push(Note::new(&path, what));
        Ok(())
    }

    fn leave(&mut self) -> Result<()> {
        let folder = self.folders.pop().expect("the decoder ends what it began");
        self.path.truncate(folder.path_len);
        let removed = self.remove_others(&folder);
        if let Some(node) = &folder.node {
            let parent_bequeaths = self.folders.last().is_some_and(|parent| parent.bequeaths);
            let fresh = folder.fresh && !parent_bequeaths;
            let fd = folder.fd.as_fd();
            self.applier
                .file(fd, node, fresh, folder.magic, &self.path, &mut self.notes);
            self.applier.lock(fd, node, &self.path, &mut self.notes);
        }
        removed
    }
}

impl Drop for Restorer {
    /// A file that is not whole does not stay.
    fn drop(&mut self) {
        if let Some(OpenFile {
            state: FileState::New {
                temporary: Some(name), ..
            },
            ..
        }) = &self.file
            && let Some(parent) = self.folders.last()
        {
            let _ = rustix::fs::unlinkat(&parent.fd, name, AtFlags::empty());
        }
    }
}

/// Removes what a run that was killed has left in a folder. What cannot be removed is in nobody's way.
fn remove_left_over(folder: &OwnedFd) {
    let names = super::remove::names_of(folder).unwrap_or_default();
    for name in names.iter().filter(|name| is_temporary(name)) {
        let _ = rustix::fs::unlinkat(folder, &**name, AtFlags::empty());
    }
}
