//! casync's layout over named files behind a network: one chunk store for buckets and SFTP.
//!
//! A chunk is `<first 4 hex digits>/<64 hex digits>.cacnk`, or the same without ending (plain); both are read without being
//! told, the form that was found last is looked for first. Everything else beside them is left alone.
//!
//! Blocking outside; inside, operations run on the store's own thread, `concurrency` at a time over all callers, each tried
//! again as the options say. Not here: verifying what is read (the reader's), deciding what to delete.

use std::collections::VecDeque;
use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use bytes::Bytes;
use cairn_formats::{CHUNK_LEN_MAX, ChunkForm, ChunkId, EncodedChunk, StorableChunk};

use super::patience::Patience;
use super::workers::Workers;
use super::{Fault, Files, Page, lost};
use crate::backend::flat::path::{ChunkPath, parse};
use crate::{ChunkStat, ChunkStore, Error, Prune, Result, Sealing, StoreName, StoredChunk};

/// Longest stored chunk: compressors lengthen what they cannot compress by less than a 128th, ciphers by some bytes.
pub(crate) const STORED_LEN_MAX: usize = CHUNK_LEN_MAX + CHUNK_LEN_MAX / 128 + 4096;

/// Parts of a store that are listed beside each other, so many pages in memory at most.
const LISTED_TOGETHER: usize = 64;

/// A store behind a network with a file per chunk, beyond its chunks.
pub trait RemoteChunks: Prune {
    /// Visits every file of a chunk, with its length in bytes as [`ChunkStore::get_many`] would give it (decrypted), in no order,
    /// until an error, which is returned. Lengths are those of the listing: nothing is asked of single files.
    fn for_each_file(&self, visit: &mut dyn FnMut(StoredChunk, u64) -> Result<()>) -> Result<()>;
}

/// A chunk store on named files.
pub(crate) struct RemoteStore<F> {
    shared: Arc<Shared<F>>,
    workers: Arc<Workers>,
}

/// How it is opened.
#[derive(Clone)]
pub(crate) struct RemoteOptions {
    /// The form that is looked for first.
    pub(crate) form: ChunkForm,
    /// Refuse writes.
    pub(crate) read_only: bool,
    /// How chunks are encrypted.
    pub(crate) sealing: Sealing,
    /// Operations under way at most.
    pub(crate) concurrency: usize,
    /// How often each is tried.
    pub(crate) patience: Patience,
}

struct Shared<F> {
    name: StoreName,
    files: Arc<F>,
    read_only: bool,
    sealing: Sealing,
    patience: Patience,
    /// Look for the plain form first.
    plain_first: AtomicBool,
}

impl<F: Files> RemoteStore<F> {
    /// Prepares a store; nothing is asked yet. The connections of `files` belong to the thread of `workers`.
    pub(crate) fn new(name: StoreName, files: Arc<F>, workers: Arc<Workers>, options: RemoteOptions) -> Self {
        Self {
            shared: Arc::new(Shared {
                name,
                files,
                read_only: options.read_only,
                sealing: options.sealing,
                patience: options.patience,
                plain_first: AtomicBool::new(options.form == ChunkForm::Plain),
            }),
            workers,
        }
    }

    /// Runs `job` on `count` items until one fails, whose error is returned, or `take` does.
    fn for_all<T, J>(
        &self,
        count: usize,
        action: &'static str,
        job: impl Fn(Arc<Shared<F>>, usize) -> J + Clone + Send + 'static,
        mut take: impl FnMut(usize, T) -> Result<()>,
    ) -> Result<()>
    where
        T: Send + 'static,
        J: Future<Output = std::result::Result<T, Fault>> + Send,
    {
        let mut done = 0;
        let mut outcome = Ok(());
        let shared = self.shared.clone();
        self.workers.run_many(
            count,
            move |index| job(shared.clone(), index),
            |index, answer| {
                done += 1;
                let taken = match answer {
                    // What comes after a failure is not wanted any more.
                    Ok(_) if outcome.is_err() => Ok(()),
                    Ok(answer) => take(index, answer),
                    Err(fault) => Err(fault.into_error(&self.shared.name, action)),
                };
                if outcome.is_ok() {
                    outcome = taken;
                }
                outcome.is_ok()
            },
        );
        // An answer that never came is not "done".
        match outcome {
            Ok(()) if done < count => Err(lost(&self.shared.name, action)),
            outcome => outcome,
        }
    }

    fn writable(&self) -> Result<()> {
        if self.shared.read_only {
            return Err(Error::ReadOnly {
                store: self.shared.name.clone(),
            });
        }
        Ok(())
    }

    fn parts(&self, action: &'static str) -> Result<Vec<String>> {
        let mut parts = Vec::new();
        self.for_all(
            1,
            action,
            |shared, _| async move {
                let parts = shared.patience.insist(|| shared.files.parts()).await;
                parts.map_err(Fault::from)
            },
            |_, found| {
                parts = found;
                Ok(())
            },
        )?;
        Ok(parts)
    }
}

impl<F: Files> ChunkStore for RemoteStore<F> {
    fn name(&self) -> &StoreName {
        &self.shared.name
    }

    fn has_many(&self, ids: &[ChunkId]) -> Result<Vec<bool>> {
        let mut has = vec![false; ids.len()];
        let wanted: Arc<[ChunkId]> = ids.into();
        self.for_all(
            ids.len(),
            "look for a chunk",
            move |shared, index| {
                let id = wanted[index];
                async move { shared.find(id, None).await }
            },
            |index, found| {
                has[index] = found.is_some();
                Ok(())
            },
        )?;
        Ok(has)
    }

    fn get_many(&self, ids: &[ChunkId]) -> Vec<Result<EncodedChunk>> {
        let action = "read a chunk";
        let mut chunks: Vec<Option<Result<EncodedChunk>>> = ids.iter().map(|_| None).collect();
        let wanted: Arc<[ChunkId]> = ids.into();
        let shared = self.shared.clone();
        self.workers.run_many(
            ids.len(),
            move |index| {
                let (shared, id) = (shared.clone(), wanted[index]);
                async move { shared.read(id).await }
            },
            |index, found| {
                let id = ids[index];
                chunks[index] = Some(match found {
                    Ok(Some((form, bytes))) => self
                        .shared
                        .sealing
                        .open(&self.shared.name, EncodedChunk { id, form, bytes }),
                    Ok(None) => Err(Error::Missing {
                        id,
                        store: self.shared.name.clone(),
                    }),
                    Err(fault) => Err(fault.into_error(&self.shared.name, action)),
                });
                true
            },
        );
        let lost = || Err(lost(&self.shared.name, action));
        chunks.into_iter().map(|chunk| chunk.unwrap_or_else(lost)).collect()
    }

    fn put_many(&self, chunks: &[StorableChunk]) -> Result<()> {
        self.writable()?;
        let action = "store a chunk";
        let mut bodies = Vec::with_capacity(chunks.len());
        for chunk in chunks {
            let path = self.shared.path(chunk.id(), chunk.form());
            let body = self.shared.sealing.seal(&self.shared.name, chunk.bytes())?;
            bodies.push((path, content_type(chunk.form()), body));
        }
        let bodies: Arc<[(ChunkPath, &'static str, Bytes)]> = bodies.into();
        self.for_all(
            chunks.len(),
            action,
            move |shared, index| {
                let (path, content_type, body) = bodies[index].clone();
                async move {
                    let write = || shared.files.write(path.as_str(), body.clone(), content_type);
                    shared.patience.insist(write).await.map_err(Fault::from)
                }
            },
            |_, ()| Ok(()),
        )
    }

    fn flush(&self) -> Result<()> {
        // Every put has waited for its answers.
        Ok(())
    }

    fn stat(&self, id: ChunkId, form: ChunkForm) -> Result<Option<ChunkStat>> {
        let mut stat = None;
        self.for_all(
            1,
            "look for a chunk",
            move |shared, _| async move { shared.find(id, Some(form)).await },
            |_, found| {
                stat = found.map(|(form, len)| ChunkStat {
                    stored: Some((form, self.shared.sealing.opened_len(len))),
                });
                Ok(())
            },
        )?;
        Ok(stat)
    }
}

impl<F: Files> Prune for RemoteStore<F> {
    fn for_each_id(&self, visit: &mut dyn FnMut(ChunkId) -> Result<()>) -> Result<()> {
        // A chunk's two forms follow one another, if not always within a page.
        let mut last = None;
        self.for_each_file(&mut |chunk, _| match last.replace(chunk.id) == Some(chunk.id) {
            true => Ok(()),
            false => visit(chunk.id),
        })
    }

    fn remove_many(&self, ids: &[ChunkId]) -> Result<()> {
        self.writable()?;
        let forms = [ChunkForm::Compressed, ChunkForm::Plain];
        let names: Vec<String> = ids
            .iter()
            .flat_map(|&id| forms.map(|form| self.shared.path(id, form).to_string()))
            .collect();
        let together = self.shared.files.removed_together();
        let batches: Arc<[Vec<String>]> = names.chunks(together).map(<[String]>::to_vec).collect();
        self.for_all(
            batches.len(),
            "delete chunks",
            move |shared, index| {
                let names = batches[index].clone();
                async move {
                    let remove = || shared.files.remove(names.clone());
                    shared.patience.insist(remove).await.map_err(Fault::from)
                }
            },
            |_, ()| Ok(()),
        )
    }

    fn remove_stale_temporaries(&self, age: Duration) -> Result<u64> {
        self.writable()?;
        let action = "delete left-over temporary files";
        let parts: Arc<[String]> = self.parts(action)?.into();
        let mut removed = 0;
        self.for_all(
            parts.len(),
            action,
            move |shared, index| {
                let part = parts[index].clone();
                async move {
                    let remove = || shared.files.remove_stale(&part, age);
                    shared.patience.insist(remove).await.map_err(Fault::from)
                }
            },
            |_, count: u64| {
                removed += count;
                Ok(())
            },
        )?;
        Ok(removed)
    }
}

impl<F: Files> RemoteChunks for RemoteStore<F> {
    fn for_each_file(&self, visit: &mut dyn FnMut(StoredChunk, u64) -> Result<()>) -> Result<()> {
        let action = "list its chunks";
        let mut pending: VecDeque<(String, Option<String>)> =
            self.parts(action)?.into_iter().map(|part| (part, None)).collect();
        while !pending.is_empty() {
            // So many and no more: their pages may have to wait for the visitor.
            let count = pending.len().min(LISTED_TOGETHER);
            let listed: Arc<[(String, Option<String>)]> = pending.drain(..count).collect();
            let wanted = listed.clone();
            self.for_all(
                listed.len(),
                action,
                move |shared, index| {
                    let (part, after) = wanted[index].clone();
                    async move {
                        let list = || shared.files.list(&part, after.as_deref());
                        shared.patience.insist(list).await.map_err(Fault::from)
                    }
                },
                |index, Page { files, more_after }| {
                    if let Some(after) = more_after {
                        pending.push_back((listed[index].0.clone(), Some(after)));
                    }
                    for (name, len) in files {
                        // Empty files are no chunks.
                        if let (Some(chunk), 1..) = (self.shared.chunk_of(&name), len) {
                            visit(chunk, self.shared.sealing.opened_len(len))?;
                        }
                    }
                    Ok(())
                },
            )?;
        }
        Ok(())
    }
}

impl<F: Files> Shared<F> {
    fn path(&self, id: ChunkId, form: ChunkForm) -> ChunkPath {
        ChunkPath::new(id, form, self.sealing.suffix())
    }

    /// The two forms, the wanted one first.
    fn forms(&self, first: Option<ChunkForm>) -> [ChunkForm; 2] {
        let plain_first = match first {
            Some(form) => form == ChunkForm::Plain,
            None => self.plain_first.load(Ordering::Relaxed),
        };
        match plain_first {
            true => [ChunkForm::Plain, ChunkForm::Compressed],
            false => [ChunkForm::Compressed, ChunkForm::Plain],
        }
    }

    /// The form in which a chunk is there, and its stored length. Empty files are no chunks.
    async fn find(
        &self,
        id: ChunkId,
        first: Option<ChunkForm>,
    ) -> std::result::Result<Option<(ChunkForm, u64)>, Fault> {
        for form in self.forms(first) {
            let path = self.path(id, form);
            if let Some(len @ 1..) = self.patience.insist(|| self.files.len(path.as_str())).await? {
                self.plain_first.store(form == ChunkForm::Plain, Ordering::Relaxed);
                return Ok(Some((form, len)));
            }
        }
        Ok(None)
    }

    async fn read(&self, id: ChunkId) -> std::result::Result<Option<(ChunkForm, Bytes)>, Fault> {
        for form in self.forms(None) {
            let path = self.path(id, form);
            let read = || self.files.read(path.as_str(), STORED_LEN_MAX, None);
            match self.patience.insist(read).await? {
                Some(bytes) if !bytes.is_empty() => {
                    self.plain_first.store(form == ChunkForm::Plain, Ordering::Relaxed);
                    return Ok(Some((form, bytes)));
                }
                _ => {}
            }
        }
        Ok(None)
    }

    /// The chunk that a listed name stands for.
    fn chunk_of(&self, name: &str) -> Option<StoredChunk> {
        let (folder, file) = name.split_once('/')?;
        let (id, form) = parse(file.as_bytes(), self.sealing.suffix())?;
        (folder.len() == 4 && file.starts_with(folder)).then_some(StoredChunk { id, form })
    }
}

fn content_type(form: ChunkForm) -> &'static str {
    match form {
        ChunkForm::Compressed => "application/zstd",
        ChunkForm::Plain => "application/octet-stream",
    }
}

impl<F> fmt::Debug for RemoteStore<F> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RemoteStore")
            .field("name", &self.shared.name)
            .field("concurrency", &self.workers.concurrency())
            .finish_non_exhaustive()
    }
}
