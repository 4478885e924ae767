//! A place in a bucket or behind SFTP as what it is: packs, or a file per chunk.
//!
//! Which of them it is, its `FORMAT` tells when it is first used. Not here: what else a location may be (`open.rs`).

use std::sync::Arc;

use crate::backend::bucket::Bucket;
use crate::backend::remote::packs::{AsItIs, PackFiles, RemotePacks};
use crate::backend::remote::store::{RemoteChunks, RemoteOptions};
use crate::backend::sftp::{Folder, Holds, SftpOptions};
use crate::location::{Location, SshLocation};
use crate::{Error, MemberSpec, Prune, Result, StoreName, StoreOptions, SyncPolicy};

/// A store behind a network that can be listed.
#[derive(Clone, Debug)]
pub enum RemoteKind {
    /// A file per chunk, in casync's layout.
    Flat(Arc<dyn RemoteChunks>),
    /// Many chunks a file.
    Packs(Arc<dyn RemotePacks>),
}

impl RemoteKind {
    /// Its chunks.
    pub fn chunks(&self) -> &dyn Prune {
        match self {
            Self::Flat(store) => &**store,
            Self::Packs(store) => &**store,
        }
    }
}

/// Opens a bucket or a folder behind SFTP, and asks what it is.
///
/// Errors: [`Error::Refused`] for other locations; what the server says.
pub fn open_remote(member: &MemberSpec) -> Result<RemoteKind> {
    let action = "open";
    match &member.location {
        location @ (Location::S3(_) | Location::Gs(_)) => open_bucket(location, &member.options)?.into_kind(action),
        Location::Sftp(sftp) => open_sftp(sftp, &member.options)?.into_kind(action),
        location => Err(no_packs(location)),
    }
}

/// Makes an empty place in a bucket or behind SFTP a store of packs; one that is such a store stays as it is.
///
/// Errors: [`Error::Refused`] when it holds something else, and for other locations.
pub fn init_remote_packs(member: &MemberSpec) -> Result<()> {
    match &member.location {
        location @ (Location::S3(_) | Location::Gs(_)) => open_bucket(location, &member.options)?.init(),
        Location::Sftp(sftp) => open_sftp(sftp, &member.options)?.init(),
        location => Err(no_packs(location)),
    }
}

fn no_packs(location: &Location) -> Error {
    Error::Refused {
        store: StoreName::new(location.to_string()),
        action: "keep packs",
        source: "packs are kept in folders, in buckets and behind SFTP".into(),
    }
}

/// A place in a bucket; nothing is asked yet.
pub(crate) fn open_bucket(location: &Location, options: &StoreOptions) -> Result<AsItIs<Bucket>> {
    let name = StoreName::new(location.to_string());
    let bucket = Bucket::open(location, location.key(), options).map_err(|fault| fault.into_error(&name, "open"))?;
    options.as_it_is(name, bucket)
}

/// A folder behind SFTP; nothing is asked yet.
pub(crate) fn open_sftp(location: &SshLocation, options: &StoreOptions) -> Result<AsItIs<Folder>> {
    let folder = Folder::open(
        location,
        location.path(),
        Holds::Chunks {
            read_only: options.read_only,
        },
        SftpOptions {
            sync: options.sftp.sync && options.sync == SyncPolicy::Sync,
            ..options.sftp.clone()
        },
        options.http.clone(),
    );
    options.as_it_is(StoreName::new(location.to_string()), folder)
}

impl StoreOptions {
    fn as_it_is<F: PackFiles>(&self, name: StoreName, files: F) -> Result<AsItIs<F>> {
        let flat = RemoteOptions {
            form: self.form,
            read_only: self.read_only,
            sealing: self.sealing.clone(),
            concurrency: self.http.concurrency,
            patience: self.http.patience(),
        };
        AsItIs::new(name, files, flat, self.packs.clone(), self.digest, self.on_suspect)
    }
}
