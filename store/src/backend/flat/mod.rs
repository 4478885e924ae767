//! Chunks as files in one directory, in the layout casync-family clients read directly.
//!
//! A chunk is `<first 4 hex digits>/<64 hex digits>.cacnk` (zstd, xz or gzip) or the same without ending (plain); both are
//! read without being told, the form that is written is looked for first. Everything else in the folder is left alone.
//!
//! Invariants: a file under its final name is whole and (but for the weaker [`SyncPolicy`] values) durable; it is never
//! rewritten, unless it was empty, which only a crash of another tool leaves behind. `store/DURABILITY.md` has the whole promise.
//! Hot path: one open, one stat, one read a chunk. Not here: verifying reads (`wrapper/verify.rs`), deciding what to delete.

pub(crate) mod path;
mod resident;
mod stage;
mod walk;

use std::io;
use std::os::fd::{AsFd as _, OwnedFd};
use std::path::Path;
use std::time::{Duration, SystemTime};

use bytes::Bytes;
use cairn_formats::{CHUNK_LEN_MAX, ChunkForm, ChunkId, EncodedChunk, StorableChunk};
use rustix::buffer::spare_capacity;
use rustix::fs::{AtFlags, CWD, FileType, Mode, OFlags, Stat, fstat, openat, renameat, statat, unlinkat};
use rustix::io::{Errno, read};

use crate::{ChunkStat, ChunkStore, Error, Prune, Result, Sealing, StoreName};
use path::ChunkPath;
use stage::Stage;

pub use walk::StoredChunk;

/// Most bytes of a chunk file: the longest chunk, incompressible, in a frame of any writer.
const FILE_LEN_MAX: u64 = CHUNK_LEN_MAX as u64 + (CHUNK_LEN_MAX as u64 >> 7) + 4096;

/// What is put behind the name of a chunk file that is set aside: no tool takes it for a chunk then.
const DAMAGED: &str = ".damaged";

/// A chunk whose file changed less than this ago may be another writer's that is not on the disk yet (the kernel writes back
/// after 30 to 40 s by default; twice that for slow disks): the next flush syncs it before anybody relies on it.
const SETTLED_AFTER: Duration = Duration::from_secs(80);

/// When written chunks become visible and durable.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum SyncPolicy {
    /// Both before `flush` returns: written under temporary names, one sync of the file system a batch, then renamed.
    #[default]
    Sync,
    /// Visible when `flush` returns, durable a moment later (at the first flush 50 ms after the last sync, and when the store
    /// is closed). A power cut may leave torn chunks of that moment.
    Batch,
    /// Visible at once, durable when the system likes. A power cut may leave torn chunks.
    None,
}

/// How a flat store is opened.
#[derive(Clone, Debug)]
pub struct FlatOptions {
    /// Form that is looked for first.
    pub form: ChunkForm,
    /// Refuse writes.
    pub read_only: bool,
    /// When written chunks become durable.
    pub sync: SyncPolicy,
    /// How chunks are encrypted; those that are not encrypted so are not seen.
    pub sealing: Sealing,
    /// Permission bits of chunk files, before the umask.
    pub file_mode: u32,
    /// Permission bits of folders, before the umask.
    pub folder_mode: u32,
}

impl Default for FlatOptions {
    fn default() -> Self {
        Self {
            form: ChunkForm::Compressed,
            read_only: false,
            sync: SyncPolicy::Sync,
            sealing: Sealing::default(),
            file_mode: 0o444,
            folder_mode: 0o777,
        }
    }
}

/// A casync-layout chunk folder.
#[derive(Debug)]
pub struct FlatStore {
    name: StoreName,
    root: OwnedFd,
    resident: Option<resident::ResidentReader>,
    options: FlatOptions,
    stage: Stage,
}

impl FlatStore {
    /// Opens a folder, which must exist.
    ///
    /// Errors: [`Error::Refused`] when it is not a folder that can be read.
    pub fn open(root: &Path, options: FlatOptions) -> Result<Self> {
        let name = StoreName::new(root.display().to_string());
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let opened = openat(CWD, root, flags, Mode::empty()).map_err(|error| Error::Refused {
            store: name.clone(),
            action: "open: it is not a folder that can be read",
            source: io::Error::from(error).into(),
        })?;
        let resident = resident::ResidentReader::open(root).ok();
        let stage = Stage::new(options.sync);
        Ok(Self {
            name,
            root: opened,
            resident,
            options,
            stage,
        })
    }

    /// The two forms, the wanted one first.
    fn forms(&self) -> [ChunkForm; 2] {
        forms(self.options.form)
    }

    fn unavailable(&self, action: &'static str, source: impl Into<io::Error>) -> Error {
        let source: io::Error = source.into();
        Error::Unavailable {
            store: self.name.clone(),
            action,
            source: source.into(),
        }
    }

    fn path(&self, id: ChunkId, form: ChunkForm) -> ChunkPath {
        ChunkPath::new(id, form, self.options.sealing.suffix())
    }

    fn get_one(&self, id: ChunkId) -> Result<EncodedChunk> {
        for form in self.forms() {
            if let Some(bytes) = self
                .read(&self.path(id, form))
                .map_err(|error| self.unavailable("read a chunk", error))?
            {
                return self.options.sealing.open(&self.name, EncodedChunk { id, form, bytes });
            }
        }
        Err(Error::Missing {
            id,
            store: self.name.clone(),
        })
    }

    /// A chunk file's bytes. Empty files and things that are no files are no chunks.
    fn read(&self, path: &ChunkPath) -> io::Result<Option<Bytes>> {
        let flags = OFlags::RDONLY | OFlags::CLOEXEC | OFlags::NOCTTY | OFlags::NONBLOCK;
        let opened = match openat(&self.root, path.as_c_str(), flags, Mode::empty()) {
            Ok(opened) => opened,
            Err(Errno::NOENT | Errno::NOTDIR) => return Ok(None),
            Err(error) => return Err(error.into()),
        };
        let stat = fstat(&opened)?;
        let len = stat.st_size as u64;
        if FileType::from_raw_mode(stat.st_mode) != FileType::RegularFile || len == 0 {
            return Ok(None);
        }
        if len > FILE_LEN_MAX {
            let message = format!("{path}: {len} bytes, longer than any chunk");
            return Err(io::Error::new(io::ErrorKind::InvalidData, message));
        }
        // One read: `read_to_end` would begin with 8 KiB and double.
        let mut bytes = Vec::with_capacity(len as usize);
        while (bytes.len() as u64) < len {
            match read(&opened, spare_capacity(&mut bytes)) {
                // Cut short meanwhile: not a chunk of ours, its digest will tell.
                Ok(0) => break,
                Ok(_) | Err(Errno::INTR) => {}
                Err(error) => return Err(error.into()),
            }
        }
        Ok(Some(Bytes::from(bytes)))
    }

    /// What a chunk file is like, `None` where [`FlatStore::read`] would find nothing.
    fn look(&self, path: &ChunkPath) -> Result<Option<Stat>> {
        match statat(&self.root, path.as_c_str(), AtFlags::empty()) {
            Ok(stat) if FileType::from_raw_mode(stat.st_mode) == FileType::RegularFile && stat.st_size > 0 => {
                Ok(Some(stat))
            }
            Ok(_) | Err(Errno::NOENT | Errno::NOTDIR) => Ok(None),
            Err(error) => Err(self.unavailable("look for a chunk", error)),
        }
    }

    /// Whether a chunk is there for somebody who will not write it again because of the answer: the next flush covers it.
    fn holds(&self, path: &ChunkPath, now: SystemTime) -> Result<bool> {
        let Some(stat) = self.look(path)? else {
            return Ok(false);
        };
        if self.options.sync == SyncPolicy::Sync && !self.options.read_only && !is_settled(&stat, now) {
            self.stage.note(path);
        }
        Ok(true)
    }
}

/// Whether a file has been as it is for so long that it is on the disk. A time to come is a clock set back: not known.
fn is_settled(stat: &Stat, now: SystemTime) -> bool {
    let changed = SystemTime::UNIX_EPOCH + Duration::from_secs(u64::try_from(stat.st_ctime).unwrap_or(0));
    now.duration_since(changed).is_ok_and(|since| since >= SETTLED_AFTER)
}

/// Both forms, `first` first.
fn forms(first: ChunkForm) -> [ChunkForm; 2] {
    match first {
        ChunkForm::Compressed => [ChunkForm::Compressed, ChunkForm::Plain],
        ChunkForm::Plain => [ChunkForm::Plain, ChunkForm::Compressed],
    }
}

impl ChunkStore for FlatStore {
    fn name(&self) -> &StoreName {
        &self.name
    }

    fn has_many(&self, ids: &[ChunkId]) -> Result<Vec<bool>> {
        let now = SystemTime::now();
        ids.iter()
            .map(|&id| {
                let [wanted, other] = self.forms().map(|form| self.path(id, form));
                Ok(self.holds(&wanted, now)? || self.holds(&other, now)?)
            })
            .collect()
    }

    fn get_many(&self, ids: &[ChunkId]) -> Vec<Result<EncodedChunk>> {
        ids.iter().map(|&id| self.get_one(id)).collect()
    }

    fn put_many(&self, chunks: &[StorableChunk]) -> Result<()> {
        if self.options.read_only {
            return Err(Error::ReadOnly {
                store: self.name.clone(),
            });
        }
        let now = SystemTime::now();
        for chunk in chunks {
            let path = self.path(chunk.id(), chunk.form());
            if !self.holds(&path, now)? {
                let bytes = self.options.sealing.seal(&self.name, chunk.bytes())?;
                self.stage
                    .put(self.root.as_fd(), &path, &bytes, &self.options)
                    .map_err(|error| self.write_error(error))?;
            }
        }
        Ok(())
    }

    fn flush(&self) -> Result<()> {
        self.stage
            .flush(self.root.as_fd())
            .map_err(|error| self.write_error(error))
    }

    fn stat(&self, id: ChunkId, form: ChunkForm) -> Result<Option<ChunkStat>> {
        for form in forms(form) {
            if let Some(stat) = self.look(&self.path(id, form))? {
                return Ok(Some(ChunkStat {
                    stored: Some((form, self.options.sealing.opened_len(stat.st_size as u64))),
                }));
            }
        }
        Ok(None)
    }

    fn get_resident(&self, id: ChunkId, form: ChunkForm) -> Option<EncodedChunk> {
        if self.options.sealing.is_on() {
            return None;
        }
        self.resident.as_ref()?.get(id, form)
    }

    fn set_aside(&self, damaged: &EncodedChunk) -> Result<bool> {
        self.set_aside_at(damaged, SystemTime::now())
    }
}

impl FlatStore {
    /// A file that changed a moment ago stays: somebody may be copying into it, and would end with a chunk that is not there.
    fn set_aside_at(&self, damaged: &EncodedChunk, now: SystemTime) -> Result<bool> {
        let path = self.path(damaged.id, damaged.form);
        if self.options.read_only || !self.look(&path)?.is_some_and(|stat| is_settled(&stat, now)) {
            return Ok(false);
        }
        let stored = self.get_one(damaged.id)?;
        if (stored.form, &stored.bytes) != (damaged.form, &damaged.bytes) {
            return Ok(false);
        }
        let aside = format!("{path}{DAMAGED}");
        renameat(&self.root, path.as_c_str(), &self.root, aside).map_err(|error| self.write_error(error.into()))?;
        Ok(true)
    }

    fn write_error(&self, error: io::Error) -> Error {
        match error.raw_os_error().map(Errno::from_raw_os_error) {
            Some(Errno::ROFS | Errno::ACCESS | Errno::PERM) => {
                let action = if error.raw_os_error() == Some(Errno::ROFS.raw_os_error()) {
                    "write: its file system is read-only"
                } else {
                    "write: no permission"
                };
                Error::Refused {
                    store: self.name.clone(),
                    action,
                    source: error.into(),
                }
            }
            _ => self.unavailable("write chunks", error),
        }
    }
}

impl Prune for FlatStore {
    fn for_each_id(&self, visit: &mut dyn FnMut(ChunkId) -> Result<()>) -> Result<()> {
        let mut last = None;
        self.for_each_file(&mut |chunk| {
            // The two forms of one chunk lie in one folder; most stores have one form, so this is nearly always enough.
            if last.replace(chunk.id) == Some(chunk.id) {
                Ok(())
            } else {
                visit(chunk.id)
            }
        })
    }

    fn remove_many(&self, ids: &[ChunkId]) -> Result<()> {
        if self.options.read_only {
            return Err(Error::ReadOnly {
                store: self.name.clone(),
            });
        }
        for &id in ids {
            for form in self.forms() {
                match unlinkat(&self.root, self.path(id, form).as_c_str(), AtFlags::empty()) {
                    Ok(()) | Err(Errno::NOENT | Errno::NOTDIR) => {}
                    Err(error) => return Err(self.write_error(error.into())),
                }
            }
        }
        Ok(())
    }

    fn remove_stale_temporaries(&self, age: Duration) -> Result<u64> {
        self.remove_stale(age)
    }
}

impl Drop for FlatStore {
    fn drop(&mut self) {
        self.stage.abandon(self.root.as_fd());
    }
}

#[cfg(test)]
mod tests;
