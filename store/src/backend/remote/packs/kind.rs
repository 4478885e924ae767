//! A bucket's place or a folder behind SFTP as what it is, packs or a file per chunk: its `FORMAT` tells, which is read when it is
//! first used.

use std::fmt;
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use cairn_formats::{ChunkForm, ChunkId, DigestAlgorithm, EncodedChunk, StorableChunk};

use super::files::PackFiles;
use super::names::{FORMAT_NAME, Format};
use super::open::{Opening, check_digest, read_format};
use super::write::random_uuid;
use super::{RemotePackOptions, RemotePackStore, again};
use crate::backend::remote::store::{RemoteOptions, RemoteStore};
use crate::backend::remote::workers::Workers;
use crate::backend::remote::{Fault, lost};
use crate::pack::Suspect;
use crate::{ChunkStat, ChunkStore, Error, Prune, RemoteKind, Result, StoreName};

/// A store on named files that becomes what it is when it is first used.
pub(crate) struct AsItIs<F> {
    name: StoreName,
    files: Arc<F>,
    workers: Arc<Workers>,
    flat: RemoteOptions,
    packs: RemotePackOptions,
    digest: DigestAlgorithm,
    on_suspect: fn(&StoreName, &Suspect),
    opened: OnceLock<Opened<F>>,
    /// Held by who opens it.
    opening: Mutex<()>,
}

/// What it is.
pub(super) enum Opened<F> {
    /// A file per chunk, in casync's layout.
    Flat(RemoteStore<F>),
    /// Many chunks a file.
    Packs(Box<RemotePackStore<F>>),
}

impl<F: PackFiles> AsItIs<F> {
    /// Prepares a store; nothing is asked yet.
    pub(crate) fn new(
        name: StoreName,
        files: F,
        flat: RemoteOptions,
        packs: RemotePackOptions,
        digest: DigestAlgorithm,
        on_suspect: fn(&StoreName, &Suspect),
    ) -> Result<Self> {
        let workers = Workers::start(flat.concurrency).map_err(|source| Error::Unavailable {
            store: name.clone(),
            action: "start its network thread",
            source: source.into(),
        })?;
        Ok(Self {
            name,
            files: Arc::new(files),
            workers: Arc::new(workers),
            flat,
            packs,
            digest,
            on_suspect,
            opened: OnceLock::new(),
            opening: Mutex::new(()),
        })
    }

    /// What it is, asked once. An error is not kept: the next call asks again.
    fn opened(&self, action: &'static str) -> Result<&Opened<F>> {
        if let Some(opened) = self.opened.get() {
            return Ok(opened);
        }
        let _one = self.opening.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(opened) = self.opened.get() {
            return Ok(opened);
        }
        let opened = self.open(action)?;
        Ok(self.opened.get_or_init(|| opened))
    }

    fn format(&self, action: &'static str) -> Result<Option<Format>> {
        let (files, patience) = (self.files.clone(), self.flat.patience.clone());
        let read = self.workers.run(async move { read_format(&*files, &patience).await });
        let text = match read {
            Some(text) => text.map_err(|fault| fault.into_error(&self.name, action))?,
            None => return Err(lost(&self.name, action)),
        };
        match text {
            None => Ok(None),
            Some(text) => Format::parse(&text).map_err(|words| self.refused("open", words)),
        }
    }

    fn open(&self, action: &'static str) -> Result<Opened<F>> {
        let Some(format) = self.format(action)? else {
            return Ok(Opened::Flat(RemoteStore::new(
                self.name.clone(),
                self.files.clone(),
                self.workers.clone(),
                self.flat.clone(),
            )));
        };
        if self.flat.sealing.is_on() {
            let words = "packs hold their chunks as they are; keep encrypted chunks in a flat store";
            return Err(self.refused("encrypt chunks", words.to_owned()));
        }
        if !self.flat.read_only {
            if self.flat.form == ChunkForm::Plain {
                let words = "packs hold zstd frames; leave out --uncompressed, or write to a flat store";
                return Err(self.refused("store plain chunks", words.to_owned()));
            }
            check_digest(&self.name, &format, self.digest)?;
        }
        let opening = Opening {
            name: self.name.clone(),
            patience: self.flat.patience.clone(),
            options: self.packs.clone(),
            read_only: self.flat.read_only,
        };
        let (store, suspects) = RemotePackStore::open(self.files.clone(), self.workers.clone(), &format, opening)?;
        for suspect in &suspects {
            (self.on_suspect)(&self.name, suspect);
        }
        Ok(Opened::Packs(Box::new(store)))
    }

    /// Makes an empty place a store of packs; one that is such a store already stays as it is.
    ///
    /// Errors: [`Error::Refused`] when it holds something else.
    pub(crate) fn init(&self) -> Result<()> {
        let action = "make it a pack store";
        if self.format(action)?.is_some() {
            return Ok(());
        }
        let (files, patience) = (self.files.clone(), self.flat.patience.clone());
        let look = async move { patience.insist(|| files.any_name()).await.map_err(Fault::from) };
        let found = match self.workers.run(look) {
            Some(found) => found.map_err(|fault| fault.into_error(&self.name, action))?,
            None => return Err(lost(&self.name, action)),
        };
        if let Some(found) = found {
            return Err(self.refused(action, format!("it has to be empty, and holds {found}")));
        }
        let store = random_uuid().map_err(|error| Error::Unavailable {
            store: self.name.clone(),
            action,
            source: error.into(),
        })?;
        let format = Format {
            store,
            algorithm: self.digest,
        };
        let (files, patience) = (self.files.clone(), self.flat.patience.clone());
        let text = Bytes::from(format.encode());
        let create = async move {
            let create = || files.create(FORMAT_NAME, text.clone());
            patience.insist(create).await.map_err(Fault::from)
        };
        match self.workers.run(create) {
            // Somebody was faster, or an earlier try: it is one now.
            Some(created) => created
                .map(|_| ())
                .map_err(|fault| fault.into_error(&self.name, action)),
            None => Err(lost(&self.name, action)),
        }
    }

    fn refused(&self, action: &'static str, words: String) -> Error {
        Error::Refused {
            store: self.name.clone(),
            action,
            source: words.into(),
        }
    }

    /// Opens it, and says what it is.
    pub(crate) fn into_kind(self, action: &'static str) -> Result<RemoteKind> {
        Ok(match self.open(action)? {
            Opened::Flat(store) => RemoteKind::Flat(Arc::new(store)),
            Opened::Packs(store) => RemoteKind::Packs(Arc::new(*store)),
        })
    }

    fn store(&self, action: &'static str) -> Result<&dyn Prune> {
        Ok(match self.opened(action)? {
            Opened::Flat(store) => store,
            Opened::Packs(store) => &**store,
        })
    }
}

impl<F: PackFiles> ChunkStore for AsItIs<F> {
    fn name(&self) -> &StoreName {
        &self.name
    }

    fn has_many(&self, ids: &[ChunkId]) -> Result<Vec<bool>> {
        self.store("look for a chunk")?.has_many(ids)
    }

    fn get_many(&self, ids: &[ChunkId]) -> Vec<Result<EncodedChunk>> {
        match self.store("read a chunk") {
            Ok(store) => store.get_many(ids),
            Err(error) => {
                let mut answers: Vec<_> = ids.iter().skip(1).map(|_| Err(again(&error))).collect();
                answers.push(Err(error));
                answers.truncate(ids.len());
                answers
            }
        }
    }

    fn put_many(&self, chunks: &[StorableChunk]) -> Result<()> {
        if self.flat.read_only {
            return Err(Error::ReadOnly {
                store: self.name.clone(),
            });
        }
        self.store("store a chunk")?.put_many(chunks)
    }

    fn flush(&self) -> Result<()> {
        match self.opened.get() {
            // Nothing was put.
            None => Ok(()),
            Some(Opened::Flat(store)) => store.flush(),
            Some(Opened::Packs(store)) => store.flush(),
        }
    }

    fn stat(&self, id: ChunkId, form: ChunkForm) -> Result<Option<ChunkStat>> {
        self.store("look for a chunk")?.stat(id, form)
    }

    fn get_resident(&self, id: ChunkId, form: ChunkForm) -> Option<EncodedChunk> {
        match self.opened.get()? {
            Opened::Flat(store) => store.get_resident(id, form),
            Opened::Packs(store) => store.get_resident(id, form),
        }
    }

    fn set_aside(&self, damaged: &EncodedChunk) -> Result<bool> {
        self.store("set a chunk aside")?.set_aside(damaged)
    }
}

impl<F: PackFiles> Prune for AsItIs<F> {
    fn for_each_id(&self, visit: &mut dyn FnMut(ChunkId) -> Result<()>) -> Result<()> {
        self.store("list its chunks")?.for_each_id(visit)
    }

    fn remove_many(&self, ids: &[ChunkId]) -> Result<()> {
        if self.flat.read_only {
            return Err(Error::ReadOnly {
                store: self.name.clone(),
            });
        }
        self.store("delete chunks")?.remove_many(ids)
    }

    fn remove_stale_temporaries(&self, age: Duration) -> Result<u64> {
        self.store("delete left-over temporary files")?
            .remove_stale_temporaries(age)
    }
}

impl<F> fmt::Debug for AsItIs<F> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("AsItIs")
            .field("name", &self.name)
            .field("concurrency", &self.workers.concurrency())
            .finish_non_exhaustive()
    }
}
