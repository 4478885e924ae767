//! One file behind a network: a chunk index at a URL.

use std::sync::Arc;

use bytes::Bytes;

use super::body::Spool;
use super::patience::Patience;
use super::workers::Workers;
use super::{Fault, Files, lost};
use crate::{Error, Result, StoreName};

/// A file that is read and replaced as a whole.
pub(crate) trait RemoteFile: Send + Sync {
    /// Its bytes, `len_max` at most; long ones are mapped from the spool.
    fn get(&self, action: &'static str, len_max: usize, spool: Spool) -> Result<Bytes>;

    /// Puts these bytes in its place.
    fn put(&self, action: &'static str, body: Bytes) -> Result<()>;
}

/// A file of a backend.
pub(crate) struct OneFile<F> {
    name: StoreName,
    files: Arc<F>,
    path: Arc<str>,
    patience: Arc<Patience>,
    workers: Workers,
}

impl<F: Files> OneFile<F> {
    /// - `path`: as [`Files`] takes it.
    pub(crate) fn new(name: StoreName, files: F, path: &str, patience: Patience) -> Result<Self> {
        let workers = Workers::start(1).map_err(|source| Error::Unavailable {
            store: name.clone(),
            action: "start its network thread",
            source: source.into(),
        })?;
        Ok(Self {
            name,
            files: Arc::new(files),
            path: path.into(),
            patience: Arc::new(patience),
            workers,
        })
    }

    fn run<T: Send + 'static>(
        &self,
        action: &'static str,
        job: impl Future<Output = std::result::Result<T, Fault>> + Send + 'static,
    ) -> Result<T> {
        match self.workers.run(job) {
            Some(answer) => answer.map_err(|fault| fault.into_error(&self.name, action)),
            None => Err(lost(&self.name, action)),
        }
    }
}

impl<F: Files> RemoteFile for OneFile<F> {
    fn get(&self, action: &'static str, len_max: usize, spool: Spool) -> Result<Bytes> {
        let (files, path, patience) = (self.files.clone(), self.path.clone(), self.patience.clone());
        let found = self.run(action, async move {
            let answer = patience.insist(|| files.read(&path, len_max, Some(&spool))).await;
            answer.map_err(Fault::from)
        })?;
        found.ok_or_else(|| Error::NoIndex {
            store: self.name.clone(),
        })
    }

    fn put(&self, action: &'static str, body: Bytes) -> Result<()> {
        let (files, path, patience) = (self.files.clone(), self.path.clone(), self.patience.clone());
        self.run(action, async move {
            let write = || files.write(&path, body.clone(), "application/octet-stream");
            patience.insist(write).await.map_err(Fault::from)
        })
    }
}
