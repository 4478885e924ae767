//! The place of one chunk index: a local path or a URL.
//!
//! Bytes only: parsing them is `formats`' business. A local index is mapped, not read: 40 bytes a chunk would be 640 MB for
//! a terabyte; so is a long one from a server, by way of a file without a name. It is replaced as a whole: written beside,
//! synced, renamed, folder synced. Not here: `-` (the tool's), the index root that a server shows.

use std::fs::{self, File};
use std::io::{self, Read as _, Write as _};
use std::path::{Path, PathBuf};

use bytes::Bytes;

use crate::backend::bucket::Bucket;
use crate::backend::http::{Answer, Ask, HttpClient, failed};
use crate::backend::remote::body::Spool;
use crate::backend::remote::file::{OneFile, RemoteFile};
use crate::backend::remote::workers::network_thread;
use crate::backend::sftp::{Folder, Holds};
use crate::backend::ssh::{pull_index, push_index};
use crate::file::{map_file, replace_file};
use crate::location::{Location, SshLocation};
use crate::open::not_yet;
use crate::{BoxError, Error, Result, SshOptions, StoreName, StoreOptions};

/// Longest index taken from a server or a pipe: 107 million chunks, 6.4 TiB at the default chunk size.
const INDEX_LEN_MAX: usize = 1 << 32;
/// Longest index from a server that is kept in memory; a longer one goes to a file without a name and is mapped.
const IN_MEMORY_LEN_MAX: usize = 16 << 20;
/// Where that file is.
const SPOOL_FOLDER: &str = "/var/tmp";

/// One index, wherever it is.
pub struct IndexStore {
    name: StoreName,
    place: Place,
}

enum Place {
    Local(PathBuf),
    Http(Box<HttpClient>),
    Remote(Box<dyn RemoteFile>),
    Ssh(SshLocation, Box<SshOptions>),
}

impl IndexStore {
    /// Prepares the access; nothing is read yet.
    ///
    /// Errors: [`Error::Refused`] for a certificate that cannot be used or a kind of store that this release does not have.
    pub fn open(location: &Location, options: &StoreOptions) -> Result<Self> {
        let name = StoreName::new(location.to_string());
        let place = match location {
            Location::Local(path) => Place::Local(path.clone()),
            Location::Http(http) => {
                let client =
                    HttpClient::new(http, options.http.clone()).map_err(|fault| failed(&name, "open", fault))?;
                Place::Http(Box::new(client))
            }
            Location::Ssh(location) => Place::Ssh(location.clone(), Box::new(options.ssh.clone())),
            Location::S3(_) | Location::Gs(_) => {
                let (folder, file) = location.key().rsplit_once('/').unwrap_or(("", location.key()));
                let bucket = Bucket::open(location, folder, options);
                let bucket = bucket.map_err(|fault| fault.into_error(&name, "open"))?;
                Place::Remote(Box::new(OneFile::new(
                    name.clone(),
                    bucket,
                    file,
                    options.http.patience(),
                )?))
            }
            Location::Sftp(sftp) => {
                let (folder, file) = sftp.path().rsplit_once('/').unwrap_or(("", sftp.path()));
                let (options, http) = (options.sftp.clone(), options.http.clone());
                let patience = http.patience();
                let folder = Folder::open(sftp, folder, Holds::Indexes, options, http);
                Place::Remote(Box::new(OneFile::new(name.clone(), folder, file, patience)?))
            }
            Location::Later(later) => return Err(not_yet(location, later)),
        };
        Ok(Self { name, place })
    }

    /// What people call it.
    pub fn name(&self) -> &StoreName {
        &self.name
    }

    /// The bytes of the index. A local file is mapped: it must not be cut short in place while the bytes are used
    /// (everything in this project replaces indexes as a whole).
    ///
    /// Errors: [`Error::NoIndex`] when there definitely is none.
    pub fn get(&self) -> Result<Bytes> {
        let action = "read the index";
        match &self.place {
            Place::Local(path) => read_local(path).map_err(|error| self.local_error(action, error)),
            Place::Http(client) => {
                let ask = Ask::Get {
                    len_max: INDEX_LEN_MAX,
                    spool: Some(spool()),
                };
                match self.ask(action, client, ask)? {
                    Answer::Done { body, .. } => Ok(body),
                    Answer::Missing => Err(Error::NoIndex {
                        store: self.name.clone(),
                    }),
                    Answer::BadRequest(fault) => Err(failed(&self.name, action, fault)),
                }
            }
            Place::Remote(file) => file.get(action, INDEX_LEN_MAX, spool()),
            Place::Ssh(location, options) => pull_index(location, options, INDEX_LEN_MAX as u64, SPOOL_FOLDER.as_ref())
                .map_err(|source| self.unavailable(action, source)),
        }
    }

    /// Stores the index in place of what is there. Locally it is durable when this returns.
    pub fn put(&self, index: Bytes) -> Result<()> {
        let action = "store the index";
        match &self.place {
            Place::Local(path) => write_local(path, &index).map_err(|error| self.local_error(action, error)),
            Place::Http(client) => {
                let content_type = "application/octet-stream";
                match self.ask(
                    action,
                    client,
                    Ask::Put {
                        body: index,
                        content_type,
                    },
                )? {
                    Answer::Done { .. } => Ok(()),
                    Answer::BadRequest(fault) => Err(failed(&self.name, action, fault)),
                    Answer::Missing => Err(self.unavailable(action, "no answer to an upload".into())),
                }
            }
            Place::Remote(file) => file.put(action, index),
            Place::Ssh(location, options) => {
                push_index(location, options, &index).map_err(|source| self.unavailable(action, source))
            }
        }
    }

    /// One request on a thread of its own, so that callers inside async code only block, as everywhere in this crate.
    fn ask(&self, action: &'static str, client: &HttpClient, ask: Ask) -> Result<Answer> {
        let runtime = network_thread().map_err(|error| self.unavailable(action, error.into()))?;
        let request = || runtime.block_on(client.ask(client.base(), &ask));
        let answer = std::thread::scope(|scope| scope.spawn(request).join());
        runtime.shutdown_background();
        match answer {
            Ok(answer) => answer.map_err(|fault| failed(&self.name, action, fault)),
            Err(_) => Err(self.unavailable(action, "the request was dropped before it was answered".into())),
        }
    }

    fn local_error(&self, action: &'static str, error: io::Error) -> Error {
        let store = self.name.clone();
        match error.kind() {
            io::ErrorKind::NotFound if action.starts_with("read") => Error::NoIndex { store },
            io::ErrorKind::NotFound | io::ErrorKind::PermissionDenied | io::ErrorKind::IsADirectory => Error::Refused {
                store,
                action,
                source: error.into(),
            },
            _ => self.unavailable(action, error.into()),
        }
    }

    fn unavailable(&self, action: &'static str, source: BoxError) -> Error {
        Error::Unavailable {
            store: self.name.clone(),
            action,
            source,
        }
    }
}

impl std::fmt::Debug for IndexStore {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("IndexStore").field(&self.name).finish()
    }
}

fn spool() -> Spool {
    Spool {
        memory_len_max: IN_MEMORY_LEN_MAX,
        folder: SPOOL_FOLDER.into(),
    }
}

/// Maps a file; reads what cannot be mapped (pipes, process substitution).
fn read_local(path: &Path) -> io::Result<Bytes> {
    let file = File::open(path)?;
    let meta = file.metadata()?;
    if meta.is_dir() {
        return Err(io::ErrorKind::IsADirectory.into());
    }
    if !meta.is_file() {
        let mut bytes = Vec::new();
        file.take(INDEX_LEN_MAX as u64 + 1).read_to_end(&mut bytes)?;
        if bytes.len() > INDEX_LEN_MAX {
            return Err(io::Error::other(format!(
                "longer than the {INDEX_LEN_MAX} bytes allowed"
            )));
        }
        return Ok(bytes.into());
    }
    map_file(&file)
}

/// Replaces a file as a whole; a link is followed, and a device or pipe is written to.
fn write_local(path: &Path, bytes: &[u8]) -> io::Result<()> {
    match fs::metadata(path) {
        Ok(old) if old.is_file() => replace_file(&fs::canonicalize(path)?, bytes, Some(old.permissions())),
        Ok(_) => File::options().write(true).open(path)?.write_all(bytes),
        Err(error) if error.kind() == io::ErrorKind::NotFound => replace_file(path, bytes, None),
        Err(error) => Err(error),
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::{PermissionsExt as _, symlink};

    use super::*;

    fn open(path: &Path) -> IndexStore {
        IndexStore::open(&Location::Local(path.to_owned()), &StoreOptions::default()).unwrap()
    }

    #[test]
    fn a_local_index_is_replaced_as_a_whole() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a_b:c.caibx");
        let index = open(&path);
        assert!(matches!(index.get(), Err(Error::NoIndex { .. })));
        index.put(Bytes::from_static(b"one")).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o640)).unwrap();
        let before = index.get().unwrap();
        index.put(Bytes::from_static(b"another")).unwrap();
        assert_eq!(&before[..], b"one", "a mapped index outlives its replacement");
        assert_eq!(&index.get().unwrap()[..], b"another");
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o640);
        assert_eq!(
            fs::read_dir(folder.path()).unwrap().count(),
            1,
            "nothing is left beside it"
        );
    }

    #[test]
    fn a_link_stays_a_link_and_an_empty_file_is_an_empty_index() {
        let folder = tempfile::tempdir().unwrap();
        let (target, link) = (folder.path().join("target"), folder.path().join("link"));
        File::create(&target).unwrap();
        symlink(&target, &link).unwrap();
        assert!(open(&link).get().unwrap().is_empty());
        open(&link).put(Bytes::from_static(b"index")).unwrap();
        assert!(fs::symlink_metadata(&link).unwrap().is_symlink());
        assert_eq!(fs::read(&target).unwrap(), b"index");
    }

    #[test]
    fn a_folder_in_its_place_or_no_folder_around_it_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        let put = |path: &Path| open(path).put(Bytes::from_static(b"index")).unwrap_err();
        assert!(matches!(put(folder.path()), Error::Refused { .. }));
        assert!(matches!(
            put(&folder.path().join("none/x.caibx")),
            Error::Refused { .. }
        ));
        assert!(matches!(open(folder.path()).get(), Err(Error::Refused { .. })));
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 0);
    }
}
