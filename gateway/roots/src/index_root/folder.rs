//! The folder behind an index root. Every path is resolved by the kernel below the folder's handle with
//! `RESOLVE_BENEATH` and no links (Linux 5.6), so no name leads out of it.
//!
//! Durability: the temporary file is synced, then renamed, then its folder is synced, and folders made on the way before.

use std::collections::HashMap;
use std::fs::File;
use std::io::{self, Write as _};
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, SystemTime};

use bytes::Bytes;
use rustix::fs::{
    AtFlags, CWD, FileType, Mode, OFlags, ResolveFlags, Stat, fstat, fsync, mkdirat, openat, openat2, renameat, statat,
    unlinkat,
};
use rustix::io::Errno;
use sha2::Digest as _;

use super::PutError;
use super::name::{IndexName, TEMPORARY_PREFIX};

/// Digests of files remembered between requests.
const TAGS_MAX: usize = 4096;
/// Temporary files older than this belong to nobody.
const TEMPORARY_AGE_MAX: Duration = Duration::from_secs(24 * 60 * 60);
const HASH_LEN: usize = 256 << 10;
const BENEATH: ResolveFlags = ResolveFlags::BENEATH.union(ResolveFlags::NO_SYMLINKS);

/// The folder of an index root cannot be used.
#[derive(Debug, thiserror::Error)]
#[error("index folder {} cannot be opened", path.display())]
pub struct IndexRootError {
    path: PathBuf,
    source: io::Error,
}

#[derive(Debug)]
pub(super) struct Folder {
    root: OwnedFd,
    /// Tags by what tells a file's content apart from outside.
    tags: Mutex<HashMap<FileKey, Arc<str>>>,
}

/// A file that is there.
#[derive(Debug)]
pub(super) struct FoundIndex {
    pub(super) file: Arc<File>,
    pub(super) len: u64,
    /// Strong entity tag: the file's SHA-256 in quotes.
    pub(super) tag: Arc<str>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
struct FileKey {
    device: u64,
    inode: u64,
    len: i64,
    modified: (i64, i64),
    changed: (i64, i64),
}

impl Folder {
    pub(super) fn open(path: &Path) -> Result<Self, IndexRootError> {
        let opened = openat(
            CWD,
            path,
            OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC,
            Mode::empty(),
        );
        let root = opened.map_err(|source| IndexRootError {
            path: path.to_owned(),
            source: source.into(),
        })?;
        remove_old_temporaries(path);
        Ok(Self {
            root,
            tags: Mutex::new(HashMap::new()),
        })
    }

    /// The index of this name, `None` when there is no such file (a folder, a link or a device is none).
    pub(super) fn find(&self, name: &IndexName) -> io::Result<Option<FoundIndex>> {
        let flags = OFlags::RDONLY | OFlags::CLOEXEC | OFlags::NONBLOCK | OFlags::NOCTTY;
        let file = match openat2(&self.root, name.as_path(), flags, Mode::empty(), BENEATH) {
            Ok(file) => file,
            Err(Errno::NOENT | Errno::NOTDIR | Errno::LOOP | Errno::XDEV | Errno::NAMETOOLONG) => return Ok(None),
            Err(error) => return Err(error.into()),
        };
        let stat = fstat(&file)?;
        if FileType::from_raw_mode(stat.st_mode) != FileType::RegularFile {
            return Ok(None);
        }
        let file = File::from(file);
        let key = FileKey::of(&stat);
        let known = self.lock_tags().get(&key).cloned();
        let tag = match known {
            Some(tag) => tag,
            None => {
                let tag: Arc<str> = hash_file(&file)?.into();
                let mut tags = self.lock_tags();
                // Forgetting all of them now and then is cheaper than keeping an order.
                if tags.len() >= TAGS_MAX {
                    tags.clear();
                }
                tags.insert(key, Arc::clone(&tag));
                tag
            }
        };
        Ok(Some(FoundIndex {
            file: Arc::new(file),
            len: u64::try_from(stat.st_size).unwrap_or(0),
            tag,
        }))
    }

    fn lock_tags(&self) -> std::sync::MutexGuard<'_, HashMap<FileKey, Arc<str>>> {
        self.tags.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes an index's name away, durably. Returns whether there was one; what is no regular file is none.
    pub(super) fn remove(&self, name: &IndexName) -> Result<bool, PutError> {
        let path = name.as_path();
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let parent = path.parent().filter(|parent| !parent.as_os_str().is_empty());
        let parent = openat2(
            &self.root,
            parent.unwrap_or(Path::new(".")),
            flags,
            Mode::empty(),
            BENEATH,
        );
        let parent = match parent {
            Err(Errno::NOENT | Errno::NOTDIR | Errno::LOOP | Errno::XDEV | Errno::NAMETOOLONG) => return Ok(false),
            parent => parent?,
        };
        let file_name = path.file_name().ok_or(PutError::BadName("it has no name"))?;
        match statat(&parent, file_name, AtFlags::SYMLINK_NOFOLLOW) {
            Ok(stat) if FileType::from_raw_mode(stat.st_mode) == FileType::RegularFile => {}
            Ok(_) | Err(Errno::NOENT) => return Ok(false),
            Err(error) => return Err(error.into()),
        }
        match unlinkat(&parent, file_name, AtFlags::empty()) {
            Err(Errno::NOENT) => return Ok(false),
            removed => removed?,
        }
        fsync(&parent)?;
        Ok(true)
    }

    /// A handle on the folder that holds `name`, made with its parents where it is missing; what was made is durable.
    fn open_parent(&self, name: &IndexName) -> Result<OwnedFd, PutError> {
        let open = |at: &OwnedFd, component: &Path| {
            let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
            openat2(at, component, flags, Mode::empty(), BENEATH)
        };
        let mut folder = open(&self.root, Path::new("."))?;
        for component in name.as_path().parent().into_iter().flat_map(Path::iter).map(Path::new) {
            folder = match open(&folder, component) {
                Err(Errno::NOENT) => {
                    match mkdirat(&folder, component, Mode::from_raw_mode(0o777)) {
                        Ok(()) | Err(Errno::EXIST) => fsync(&folder)?,
                        Err(error) => return Err(error.into()),
                    }
                    open(&folder, component)?
                }
                opened => opened?,
            };
        }
        Ok(folder)
    }
}

impl From<Errno> for PutError {
    fn from(error: Errno) -> Self {
        match error {
            Errno::NOTDIR => Self::BadName("a part of the path is a file, not a folder"),
            Errno::ISDIR | Errno::NOTEMPTY => Self::BadName("there is a folder of this name"),
            Errno::LOOP | Errno::XDEV => Self::BadName("a part of the path is a link"),
            error => Self::Failed(io::Error::from(error).to_string()),
        }
    }
}

/// A file in the making, in the root folder itself; it goes away unless it is published.
#[derive(Debug)]
pub(super) struct Temporary {
    folder: Arc<Folder>,
    name: String,
    file: File,
    published: bool,
}

impl Temporary {
    pub(super) fn create(folder: Arc<Folder>) -> io::Result<Self> {
        let name = format!("{TEMPORARY_PREFIX}{:016x}", fastrand::u64(..));
        let flags = OFlags::RDWR | OFlags::CREATE | OFlags::EXCL | OFlags::CLOEXEC | OFlags::NOFOLLOW;
        let file = openat(&folder.root, &name, flags, Mode::from_raw_mode(0o644))?;
        Ok(Self {
            folder,
            name,
            file: file.into(),
            published: false,
        })
    }

    pub(super) fn append(&mut self, pieces: &[Bytes]) -> io::Result<()> {
        pieces.iter().try_for_each(|piece| self.file.write_all(piece))
    }

    /// The file's bytes, mapped.
    #[allow(unsafe_code)]
    pub(super) fn map(&self) -> io::Result<Bytes> {
        if self.file.metadata()?.len() == 0 {
            return Ok(Bytes::new());
        }
        // SAFETY: the file was created by this process under a fresh name (O_EXCL), is written by `append` alone, and is
        // never truncated or rewritten, not even once it is published: a later index replaces the name, not the bytes.
        let map = unsafe { memmap2::Mmap::map(&self.file)? };
        Ok(Bytes::from_owner(map))
    }

    /// Makes the file durable and visible under `name`.
    pub(super) fn publish(mut self, name: &IndexName) -> Result<(), PutError> {
        fsync(&self.file)?;
        let parent = self.folder.open_parent(name)?;
        let file_name = name.as_path().file_name().ok_or(PutError::BadName("it has no name"))?;
        renameat(&self.folder.root, &self.name, &parent, file_name)?;
        self.published = true;
        fsync(&parent)?;
        Ok(())
    }
}

impl Drop for Temporary {
    fn drop(&mut self) {
        if !self.published {
            // Left behind on failure, it is removed a day later.
            let _ = unlinkat(&self.folder.root, &self.name, AtFlags::empty());
        }
    }
}

impl FileKey {
    fn of(stat: &Stat) -> Self {
        Self {
            device: stat.st_dev,
            inode: stat.st_ino,
            len: stat.st_size,
            modified: (stat.st_mtime, stat.st_mtime_nsec as i64),
            changed: (stat.st_ctime, stat.st_ctime_nsec as i64),
        }
    }
}

/// The strong entity tag of an index.
pub(super) fn tag_of(bytes: &[u8]) -> String {
    quoted(sha2::Sha256::digest(bytes).as_slice())
}

fn hash_file(file: &File) -> io::Result<String> {
    use std::os::unix::fs::FileExt as _;
    let mut hasher = sha2::Sha256::new();
    let (mut piece, mut at) = (vec![0; HASH_LEN], 0);
    loop {
        match file.read_at(&mut piece, at)? {
            0 => return Ok(quoted(hasher.finalize().as_slice())),
            len => {
                hasher.update(&piece[..len]);
                at += len as u64;
            }
        }
    }
}

fn quoted(digest: &[u8]) -> String {
    let mut tag = String::from("\"");
    for byte in digest {
        tag.push_str(&format!("{byte:02x}"));
    }
    tag.push('"');
    tag
}

fn remove_old_temporaries(folder: &Path) {
    let Ok(entries) = std::fs::read_dir(folder) else { return };
    for entry in entries.flatten() {
        let is_old = || {
            let modified = entry.metadata().and_then(|meta| meta.modified()).ok()?;
            Some(SystemTime::now().duration_since(modified).ok()? > TEMPORARY_AGE_MAX)
        };
        if entry
            .file_name()
            .as_encoded_bytes()
            .starts_with(TEMPORARY_PREFIX.as_bytes())
            && is_old() == Some(true)
        {
            // Whoever cannot be removed takes room, not safety.
            let _ = std::fs::remove_file(entry.path());
        }
    }
}
