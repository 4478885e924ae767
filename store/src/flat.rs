//! Chunks as files in one directory, in the layout that casync-family clients read directly.
//!
//! A chunk is `<first 4 hex digits>/<64 hex digits>.cacnk` (zstd, xz or gzip) or the same without ending (plain).

use std::fs;
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};

use cairn_formats::{ChunkForm, ChunkId, EncodedChunk, StorableChunk};

use crate::resident::ResidentReader;
use crate::{ChunkStat, ChunkStore, Error, Result, StoreName};

/// When written chunks become durable.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum SyncPolicy {
    /// Before `flush` returns.
    #[default]
    Sync,
    /// Within a batch, not before `flush` returns.
    Batch,
    /// When the system likes.
    None,
}

/// How a flat store is opened.
#[derive(Clone, Debug)]
pub struct FlatOptions {
    /// Form in which new chunks are written.
    pub form: ChunkForm,
    /// Refuse writes.
    pub read_only: bool,
    /// When written chunks become durable.
    pub sync: SyncPolicy,
}

impl Default for FlatOptions {
    fn default() -> Self {
        Self {
            form: ChunkForm::Compressed,
            read_only: false,
            sync: SyncPolicy::Sync,
        }
    }
}

/// A casync-layout chunk folder.
#[derive(Debug)]
pub struct FlatStore {
    name: StoreName,
    root: PathBuf,
    options: FlatOptions,
    resident: Option<ResidentReader>,
}

impl FlatStore {
    /// Opens a folder, which must exist.
    ///
    /// Errors: [`Error::Refused`] when it is not a folder that can be read.
    pub fn open(root: &Path, options: FlatOptions) -> Result<Self> {
        let name = StoreName::new(root.display().to_string());
        match fs::metadata(root) {
            Ok(meta) if meta.is_dir() => Ok(Self {
                name,
                root: root.to_owned(),
                resident: ResidentReader::open(root).ok(),
                options,
            }),
            Ok(_) => Err(Error::Refused {
                store: name,
                action: "open",
                source: "it is not a folder".into(),
            }),
            Err(source) => Err(Error::Refused {
                store: name,
                action: "open",
                source: source.into(),
            }),
        }
    }

    fn path(&self, id: ChunkId, form: ChunkForm) -> PathBuf {
        let hex = id.to_string();
        let ending = if form == ChunkForm::Compressed { ".cacnk" } else { "" };
        self.root.join(&hex[..4]).join(format!("{hex}{ending}"))
    }

    fn unavailable(&self, action: &'static str, source: io::Error) -> Error {
        Error::Unavailable {
            store: self.name.clone(),
            action,
            source: source.into(),
        }
    }
}

impl ChunkStore for FlatStore {
    fn name(&self) -> &StoreName {
        &self.name
    }

    fn has_many(&self, ids: &[ChunkId]) -> Result<Vec<bool>> {
        ids.iter()
            .map(|&id| {
                for form in [ChunkForm::Compressed, ChunkForm::Plain] {
                    if self
                        .path(id, form)
                        .try_exists()
                        .map_err(|source| self.unavailable("look for a chunk", source))?
                    {
                        return Ok(true);
                    }
                }
                Ok(false)
            })
            .collect()
    }

    fn get_many(&self, ids: &[ChunkId]) -> Vec<Result<EncodedChunk>> {
        ids.iter()
            .map(|&id| {
                for form in [ChunkForm::Compressed, ChunkForm::Plain] {
                    match fs::read(self.path(id, form)) {
                        Ok(bytes) => {
                            return Ok(EncodedChunk {
                                id,
                                form,
                                bytes: bytes.into(),
                            });
                        }
                        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                        Err(source) => return Err(self.unavailable("read a chunk", source)),
                    }
                }
                Err(Error::Missing {
                    id,
                    store: self.name.clone(),
                })
            })
            .collect()
    }

    fn put_many(&self, chunks: &[StorableChunk]) -> Result<()> {
        if self.options.read_only {
            return Err(Error::ReadOnly {
                store: self.name.clone(),
            });
        }
        for chunk in chunks {
            let path = self.path(chunk.id(), chunk.form());
            let folder = path.parent().expect("a chunk lies in a folder");
            let write = || {
                fs::create_dir_all(folder)?;
                let temporary = folder.join(format!(".tmp-cacnk{:016x}", fastrand::u64(..)));
                fs::File::create_new(&temporary)?.write_all(chunk.bytes())?;
                fs::rename(&temporary, &path)
            };
            write().map_err(|source| self.unavailable("write a chunk", source))?;
        }
        Ok(())
    }

    fn flush(&self) -> Result<()> {
        Ok(())
    }

    fn stat(&self, id: ChunkId, form: ChunkForm) -> Result<Option<ChunkStat>> {
        let other = match form {
            ChunkForm::Compressed => ChunkForm::Plain,
            ChunkForm::Plain => ChunkForm::Compressed,
        };
        for form in [form, other] {
            match fs::metadata(self.path(id, form)) {
                Ok(meta) if meta.is_file() => {
                    return Ok(Some(ChunkStat {
                        stored: Some((form, meta.len())),
                    }));
                }
                Ok(_) => {}
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                Err(source) => return Err(self.unavailable("look for a chunk", source)),
            }
        }
        Ok(None)
    }

    fn get_resident(&self, id: ChunkId, form: ChunkForm) -> Option<EncodedChunk> {
        self.resident.as_ref()?.get(id, form)
    }
}
