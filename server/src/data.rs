//! The data folder: its `FORMAT` file, and the lock that keeps a second server out.
//!
//! `FORMAT` says which versions can read and write the folder; a folder that needs a newer program is refused with a plain
//! word. The lock is the kernel's (`flock`), so it ends with the process, whatever way it ends.

use std::fs::File;
use std::io::{self, Read as _, Write as _};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use figment::Figment;
use figment::providers::{Format as _, Toml};
use rustix::fs::{FlockOperation, flock};
use serde::Deserialize;

/// The newest layout that this program knows.
const FORMAT_VERSION: u32 = 2;
/// A folder begins with this one, so that releases that know no other can go on with it while nothing is in packs.
const FLAT_VERSION: u32 = 1;
/// The layout with packs.
const PACKS_VERSION: u32 = 2;

/// The folder of a running server. The lock is held as long as this lives.
#[derive(Debug)]
pub(crate) struct DataFolder {
    path: PathBuf,
    format: Mutex<FormatFile>,
    _lock: File,
}

/// The folder cannot be used.
#[derive(Debug, thiserror::Error)]
pub(crate) enum DataError {
    /// The system refuses.
    #[error("data folder {}: cannot {action} {}: {source}", folder.display(), path.display())]
    Io {
        /// The data folder.
        folder: PathBuf,
        /// What was tried.
        action: &'static str,
        /// On which file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// Another server has it.
    #[error("data folder {} is in use by process {holder} (lock {}); stop it or choose another folder", folder.display(), lock.display())]
    InUse {
        /// The data folder.
        folder: PathBuf,
        /// The lock file.
        lock: PathBuf,
        /// Process id as the holder wrote it.
        holder: String,
    },
    /// It was written by a newer program.
    #[error("data folder {} needs a newer cairnd: it has format {version}, this one writes {FORMAT_VERSION}", folder.display())]
    Newer {
        /// The data folder.
        folder: PathBuf,
        /// The folder's version.
        version: u32,
    },
    /// `FORMAT` is damaged.
    #[error("data folder {}: FORMAT is damaged: {reason}", folder.display())]
    Damaged {
        /// The data folder.
        folder: PathBuf,
        /// What is wrong.
        reason: String,
    },
}

/// What `FORMAT` says. Names that a newer program added are passed over: `least_*` tell whether they matter.
#[derive(Clone, Debug, Deserialize)]
struct FormatFile {
    uuid: String,
    version: u32,
    least_reader: u32,
    least_writer: u32,
}

impl DataFolder {
    /// Opens the folder, makes it where it is missing, and takes its lock.
    pub(crate) fn open(folder: &Path) -> Result<Self, DataError> {
        let io = |action, path: &Path| {
            let (folder, path) = (folder.to_owned(), path.to_owned());
            move |source| DataError::Io {
                folder,
                action,
                path,
                source,
            }
        };
        std::fs::create_dir_all(folder).map_err(io("make", folder))?;
        let lock_path = folder.join("LOCK");
        let mut lock = File::options()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .open(&lock_path)
            .map_err(io("open", &lock_path))?;
        match flock(&lock, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => {}
            Err(rustix::io::Errno::WOULDBLOCK) => {
                let mut holder = String::new();
                // Only for the message.
                let _ = lock.take(20).read_to_string(&mut holder);
                return Err(DataError::InUse {
                    folder: folder.to_owned(),
                    lock: lock_path,
                    holder: holder.trim().to_owned(),
                });
            }
            Err(error) => return Err(io("lock", &lock_path)(error.into())),
        }
        lock.set_len(0)
            .and_then(|()| writeln!(lock, "{}", std::process::id()))
            .map_err(io("write", &lock_path))?;
        let format_path = folder.join("FORMAT");
        let format = match std::fs::read_to_string(&format_path) {
            Ok(text) => check_format(folder, &text)?,
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                let begin = || {
                    let format = FormatFile::new(new_uuid()?, FLAT_VERSION);
                    write_format(folder, &format).map(|()| format)
                };
                begin().map_err(io("write", &format_path))?
            }
            Err(error) => return Err(io("read", &format_path)(error)),
        };
        Ok(Self {
            path: folder.to_owned(),
            format: Mutex::new(format),
            _lock: lock,
        })
    }

    /// Says in `FORMAT` that there are packs from now on, before there are any: a program that does not know them would take
    /// the folder for an empty one.
    pub(crate) fn begin_packs(&self) -> Result<(), DataError> {
        let mut format = self.format.lock().unwrap_or_else(PoisonError::into_inner);
        if format.version >= PACKS_VERSION {
            return Ok(());
        }
        let new = FormatFile::new(format.uuid.clone(), PACKS_VERSION);
        write_format(&self.path, &new).map_err(|source| DataError::Io {
            folder: self.path.clone(),
            action: "write",
            path: self.path.join("FORMAT"),
            source,
        })?;
        *format = new;
        Ok(())
    }
}

impl FormatFile {
    fn new(uuid: String, version: u32) -> Self {
        Self {
            uuid,
            version,
            least_reader: version,
            least_writer: version,
        }
    }
}

/// Writes a new `FORMAT` of the first release into a folder that is to be used by it.
pub(crate) fn write_flat_format(folder: &Path) -> io::Result<()> {
    write_format(folder, &FormatFile::new(new_uuid()?, FLAT_VERSION))
}

fn check_format(folder: &Path, text: &str) -> Result<FormatFile, DataError> {
    let damaged = |reason: String| DataError::Damaged {
        folder: folder.to_owned(),
        reason,
    };
    let format: FormatFile = Figment::from(Toml::string(text))
        .extract()
        .map_err(|error| damaged(error.to_string()))?;
    if format.uuid.len() != 36 {
        return Err(damaged("its uuid is not one".to_owned()));
    }
    if format.least_reader.max(format.least_writer) > FORMAT_VERSION {
        return Err(DataError::Newer {
            folder: folder.to_owned(),
            version: format.version,
        });
    }
    Ok(format)
}

fn write_format(folder: &Path, format: &FormatFile) -> io::Result<()> {
    let text = format!(
        "# What can use this data folder; see docs/upgrading.md. Do not edit.\n\
         uuid = \"{}\"\nversion = {}\nleast_reader = {}\nleast_writer = {}\nwritten_by = \"cairnd {}\"\n",
        format.uuid,
        format.version,
        format.least_reader,
        format.least_writer,
        env!("CARGO_PKG_VERSION"),
    );
    let temporary = folder.join(".tmp-FORMAT");
    let mut file = File::create(&temporary)?;
    file.write_all(text.as_bytes())?;
    file.sync_all()?;
    std::fs::rename(&temporary, folder.join("FORMAT"))?;
    File::open(folder)?.sync_all()
}

/// A random UUID (version 4).
fn new_uuid() -> io::Result<String> {
    let mut bytes = [0; 16];
    File::open("/dev/urandom")?.read_exact(&mut bytes)?;
    bytes[6] = bytes[6] & 0x0f | 0x40;
    bytes[8] = bytes[8] & 0x3f | 0x80;
    let hex: String = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
    Ok([&hex[..8], &hex[8..12], &hex[12..16], &hex[16..20], &hex[20..]].join("-"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_folder_is_made_opened_again_and_locked() {
        let parent = tempfile::tempdir().unwrap();
        let folder = parent.path().join("a/data");
        let first = DataFolder::open(&folder).unwrap();
        let text = std::fs::read_to_string(folder.join("FORMAT")).unwrap();
        let error = DataFolder::open(&folder).unwrap_err().to_string();
        assert!(
            error.contains("LOCK") && error.contains(&std::process::id().to_string()),
            "{error}"
        );
        drop(first);
        DataFolder::open(&folder).unwrap();
        assert_eq!(std::fs::read_to_string(folder.join("FORMAT")).unwrap(), text);
    }

    #[test]
    fn a_folder_is_closed_to_older_programs_when_it_gets_packs() {
        let folder = tempfile::tempdir().unwrap();
        let data = DataFolder::open(folder.path()).unwrap();
        let text = || std::fs::read_to_string(folder.path().join("FORMAT")).unwrap();
        let uuid = |text: &str| text.lines().find(|line| line.starts_with("uuid")).unwrap().to_owned();
        let before = text();
        assert!(before.contains("least_reader = 1"), "{before}");
        data.begin_packs().unwrap();
        data.begin_packs().unwrap();
        let after = text();
        assert!(
            after.contains("least_reader = 2") && after.contains("least_writer = 2"),
            "{after}"
        );
        assert_eq!(uuid(&before), uuid(&after));
        drop(data);
        DataFolder::open(folder.path()).unwrap();
    }

    #[test]
    fn a_newer_folder_is_refused_and_a_newer_writer_that_kept_us_in_mind_is_not() {
        let folder = tempfile::tempdir().unwrap();
        let write = |least: u32| {
            let uuid = new_uuid().unwrap();
            let text =
                format!("uuid = '{uuid}'\nversion = 9\nleast_reader = {least}\nleast_writer = {least}\nnew = 1\n");
            std::fs::write(folder.path().join("FORMAT"), text).unwrap();
        };
        write(FORMAT_VERSION + 1);
        let error = DataFolder::open(folder.path()).unwrap_err().to_string();
        assert!(error.contains("newer"), "{error}");
        write(1);
        DataFolder::open(folder.path()).unwrap();
        std::fs::write(folder.path().join("FORMAT"), "\0\0").unwrap();
        let error = DataFolder::open(folder.path()).unwrap_err().to_string();
        assert!(error.contains("damaged"), "{error}");
    }
}
