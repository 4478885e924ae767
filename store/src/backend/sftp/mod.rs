//! Chunks and indexes as files behind SFTP, in casync's layout: `path/<4 hex>/<64 hex>[.cacnk]`.
//!
//! A few connections are shared by all callers, with many requests in flight on each; they are opened when they are needed
//! and opened again when they break (`session.rs`; keys in `login.rs`, the server's key in `trust.rs`).
//!
//! Invariant: a file under its final name is whole. It is written under a temporary name in the same folder, synced where the
//! server can (`fsync@openssh.com`), closed, then renamed over what is there (`posix-rename@openssh.com`). A cut connection
//! leaves a temporary name, which `prune` removes when it is old.

mod login;
mod packs;
mod session;
mod trust;

use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, SystemTime};

use bytes::Bytes;
use futures_util::StreamExt as _;
use futures_util::stream;
use tokio::sync::{Mutex, Semaphore};

use super::flat::path::{TEMPORARY, is_foreign_temporary};
use super::http::HttpOptions;
use super::remote::body::Spool;
use super::remote::{Fault, Files, Page, Try};
use crate::location::SshLocation;
use crate::rate;
use session::{Entry, Session, Trouble};

/// Names deleted by one job.
const REMOVED_TOGETHER: usize = 16;
/// Operations on one connection at once: each may have a file open, and the library takes handles for text, which OpenSSH's
/// are up to the 128th.
const IN_FLIGHT_MAX: usize = 64;
/// A body longer than this may take longer than the time for one request, which is meant for chunks.
const TIMED_LEN_MAX: usize = 16 << 20;

/// How an SFTP server is reached; time limits, tries and parallelism are [`HttpOptions`]'.
#[derive(Clone, Debug)]
pub struct SftpOptions {
    /// Who logs in where the location names nobody.
    pub user: Option<String>,
    /// Private keys, tried in order; those that are not there are passed over.
    pub identities: Vec<PathBuf>,
    /// The socket of an ssh-agent, whose keys are tried after the files.
    pub agent: Option<PathBuf>,
    /// Files of OpenSSH's `known_hosts` form. A server whose key is in none of them is refused.
    pub known_hosts: Vec<PathBuf>,
    /// Connections at most. 0 counts as 1.
    pub connections: usize,
    /// Sync each file before it gets its name, where the server can.
    pub sync: bool,
}

impl Default for SftpOptions {
    fn default() -> Self {
        Self {
            user: None,
            identities: Vec::new(),
            agent: None,
            known_hosts: Vec::new(),
            connections: 4,
            sync: true,
        }
    }
}

impl SftpOptions {
    /// What `ssh` would use without a configuration: the keys and known hosts of `$HOME/.ssh`, the system's known hosts, the
    /// agent of `$SSH_AUTH_SOCK`, the user of `$USER`. `ssh`'s own configuration file is not read.
    ///
    /// - `environment`: the value of a variable; empty ones count as unset.
    pub fn from_environment(environment: &dyn Fn(&str) -> Option<String>) -> Self {
        let set = |name: &str| environment(name).filter(|value| !value.is_empty());
        let home = set("HOME").map(|home| PathBuf::from(home).join(".ssh"));
        let at_home = |names: &[&str]| -> Vec<PathBuf> {
            let folder = home.iter();
            folder
                .flat_map(|folder| names.iter().map(|name| folder.join(name)))
                .collect()
        };
        let mut known_hosts = at_home(&["known_hosts", "known_hosts2"]);
        known_hosts.push("/etc/ssh/ssh_known_hosts".into());
        Self {
            user: set("USER").or_else(|| set("LOGNAME")),
            identities: at_home(&["id_ed25519", "id_ecdsa", "id_rsa"]),
            agent: set("SSH_AUTH_SOCK").map(PathBuf::from),
            known_hosts,
            ..Self::default()
        }
    }
}

/// What the files of a folder are, which settles what may happen to it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Holds {
    /// Chunks: a file of the right name and length is as good as the one to write. A missing folder is made on writing.
    Chunks {
        /// The folder has to be there.
        read_only: bool,
    },
    /// Anything: its folder must be there.
    Indexes,
}

/// A folder behind SFTP.
pub(crate) struct Folder {
    location: SshLocation,
    /// The folder at the server, without `/` at the end.
    base: String,
    holds: Holds,
    options: SftpOptions,
    network: HttpOptions,
    slots: Vec<Slot>,
}

/// Room for one connection.
struct Slot {
    session: Mutex<Option<Arc<Session>>>,
    permits: Semaphore,
    /// Operations that use it or wait for it.
    busy: AtomicUsize,
}

/// Counts an operation for as long as it lives.
struct Busy<'s>(&'s AtomicUsize);

impl Drop for Busy<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

impl Folder {
    /// Prepares a client; nothing is asked yet.
    ///
    /// - `path`: the folder at the server.
    pub(crate) fn open(
        location: &SshLocation,
        path: &str,
        holds: Holds,
        options: SftpOptions,
        network: HttpOptions,
    ) -> Self {
        let slots = (0..options.connections.max(1)).map(|_| Slot {
            session: Mutex::new(None),
            permits: Semaphore::new(IN_FLIGHT_MAX),
            busy: AtomicUsize::new(0),
        });
        Self {
            location: location.clone(),
            base: path.trim_end_matches('/').to_owned(),
            holds,
            options,
            network,
            slots: slots.collect(),
        }
    }

    fn path(&self, name: &str) -> String {
        format!("{}/{name}", self.base)
    }

    /// Runs an operation on the connection that has least to do, within the time for one try.
    async fn with<T, F>(&self, limit: Option<Duration>, operation: impl FnOnce(Arc<Session>) -> F) -> Try<T>
    where
        F: Future<Output = Result<T, Trouble>> + Send,
    {
        let least = self.slots.iter().min_by_key(|slot| slot.busy.load(Ordering::Relaxed));
        let slot = least.expect("at least one slot");
        slot.busy.fetch_add(1, Ordering::Relaxed);
        let _busy = Busy(&slot.busy);
        let Ok(_permit) = slot.permits.acquire().await else {
            return Err(Fault::passing("the store is being closed"));
        };
        let session = self.session(slot).await?;
        let answer = match limit {
            None => operation(session.clone()).await,
            Some(limit) => match tokio::time::timeout(limit, operation(session.clone())).await {
                Ok(answer) => answer,
                Err(_) => Err(Trouble::TimedOut(limit)),
            },
        };
        answer.map_err(|trouble| {
            // What was under way there is in an unknown state: files may be open, answers on their way.
            if trouble.breaks_the_connection() {
                session.abandon();
            }
            trouble.into_failure()
        })
    }

    /// The connection of a slot: the one that is there if it works, else a new one.
    async fn session(&self, slot: &Slot) -> Try<Arc<Session>> {
        let mut place = slot.session.lock().await;
        if let Some(session) = place.as_ref().filter(|session| session.works()) {
            return Ok(session.clone());
        }
        *place = None;
        let limit = self.network.connect_timeout;
        let connect = Session::connect(&self.location, &self.options, self.network.idle_timeout, limit);
        let session = Arc::new(connect.await?);
        if self.holds == (Holds::Chunks { read_only: true }) {
            self.must_be_there(&session).await?;
        }
        *place = Some(session.clone());
        Ok(session)
    }

    /// A store that is only read and is not there is no empty store.
    async fn must_be_there(&self, session: &Session) -> Try<()> {
        match session.stat(&format!("{}/", self.base)).await {
            Ok(Some(_)) => Ok(()),
            Ok(None) => Err(Fault::refused(format!(
                "there is no folder {} at the server",
                self.base
            ))),
            Err(trouble) => Err(trouble.into_failure()),
        }
    }

    /// Writes a file under a temporary name in the folder of `path`, durable where the server can. Returns its path.
    async fn write_temporary(&self, session: &Session, path: &str, body: &Bytes) -> Result<String, Trouble> {
        let (folder, _) = path.rsplit_once('/').unwrap_or(("", path));
        let temporary = format!("{folder}/{TEMPORARY}{:016x}", fastrand::u64(..));
        let handle = match session.create(&temporary).await {
            Err(Trouble::Missing) if self.holds != Holds::Indexes => {
                session.make_folder(&self.base).await?;
                session.make_folder(folder).await?;
                session.create(&temporary).await
            }
            created => created,
        };
        let handle = handle.map_err(|trouble| match trouble {
            Trouble::Missing => Trouble::Refused(format!("there is no folder {folder} at the server").into()),
            trouble => trouble,
        })?;
        let written = async {
            session.write_all(&handle, body).await?;
            if self.options.sync {
                session.sync(&handle).await?;
            }
            Ok(())
        };
        let written: Result<(), Trouble> = match written.await {
            // While its bytes are still there: without them the disk would not be full any more.
            Err(trouble) => Err(session.explained(trouble, folder).await),
            written => written,
        };
        // A file that failed is closed too, or the server would keep it for as long as the connection lasts.
        let closed = match &written {
            Err(trouble) if trouble.breaks_the_connection() => Ok(()),
            _ => session.close(handle).await,
        };
        match written.and(closed) {
            Ok(()) => Ok(temporary),
            Err(trouble) => {
                if !trouble.breaks_the_connection() {
                    // The first error is the one to tell.
                    let _ = session.remove(&temporary).await;
                }
                Err(trouble)
            }
        }
    }

    async fn write_once(&self, session: Arc<Session>, name: &str, body: &Bytes) -> Result<(), Trouble> {
        let path = self.path(name);
        let temporary = self.write_temporary(&session, &path, body).await?;
        let outcome = match session.replace(&temporary, &path).await {
            Err(Trouble::CannotReplace) if self.holds != Holds::Indexes => {
                match session.stat(&path).await? {
                    // Somebody else's, equal by its name.
                    Some(there) if there.is_file && there.len == body.len() as u64 => Err(Trouble::AlreadyThere),
                    _ => Err(Trouble::CannotReplace),
                }
            }
            outcome => outcome,
        };
        match outcome {
            Ok(()) => Ok(()),
            Err(trouble) => {
                if !trouble.breaks_the_connection() {
                    // The first error is the one to tell.
                    let _ = session.remove(&temporary).await;
                }
                match trouble {
                    Trouble::AlreadyThere => Ok(()),
                    trouble => Err(trouble),
                }
            }
        }
    }

    async fn entries(session: &Session, path: &str) -> Result<Vec<Entry>, Trouble> {
        match session.list(path).await {
            Err(Trouble::Missing) => Ok(Vec::new()),
            entries => entries,
        }
    }
}

impl Files for Folder {
    fn removed_together(&self) -> usize {
        REMOVED_TOGETHER
    }

    async fn read(&self, name: &str, len_max: usize, spool: Option<&Spool>) -> Try<Option<Bytes>> {
        let path = self.path(name);
        // An index may take as long as it keeps coming.
        let limit = if spool.is_some() { None } else { self.network.timeout };
        let rate = self.network.rate_limit.as_deref();
        let read = |session: Arc<Session>| async move { session.read(&path, len_max, spool, rate).await };
        self.with(limit, read).await
    }

    async fn len(&self, name: &str) -> Try<Option<u64>> {
        let path = self.path(name);
        let look = |session: Arc<Session>| async move {
            let stat = session.stat(&path).await?;
            Ok(stat.filter(|stat| stat.is_file).map(|stat| stat.len))
        };
        self.with(self.network.timeout, look).await
    }

    async fn write(&self, name: &str, body: Bytes, _content_type: &'static str) -> Try<()> {
        let limit = self.network.timeout.filter(|_| body.len() <= TIMED_LEN_MAX);
        rate::pause_for(self.network.rate_limit.as_deref(), body.len()).await;
        self.with(limit, |session| self.write_once(session, name, &body)).await
    }

    async fn remove(&self, names: Vec<String>) -> Try<()> {
        let paths: Vec<String> = names.iter().map(|name| self.path(name)).collect();
        let remove = |session: Arc<Session>| async move {
            let answers = (0..paths.len()).map(|at| session.remove(&paths[at]));
            let mut answers = stream::iter(answers).buffered(REMOVED_TOGETHER);
            while let Some(answer) = answers.next().await {
                match answer {
                    Ok(()) | Err(Trouble::Missing) => {}
                    Err(trouble) => return Err(trouble),
                }
            }
            Ok(())
        };
        self.with(self.network.timeout, remove).await
    }

    async fn parts(&self) -> Try<Vec<String>> {
        let list = |session: Arc<Session>| async move {
            let entries = match session.list(&format!("{}/", self.base)).await {
                Err(Trouble::Missing) => {
                    let words = format!("there is no folder {} at the server", self.base);
                    return Err(Trouble::Refused(words.into()));
                }
                entries => entries?,
            };
            let names = entries.into_iter().map(|entry| entry.name);
            let is_digit = |digit: u8| matches!(digit, b'0'..=b'9' | b'a'..=b'f');
            Ok(names
                .filter(|name| name.len() == 4 && name.bytes().all(is_digit))
                .collect())
        };
        self.with(self.network.timeout, list).await
    }

    async fn list(&self, part: &str, _after: Option<&str>) -> Try<Page> {
        let path = self.path(part);
        let list = |session: Arc<Session>| async move { Self::entries(&session, &path).await };
        let entries = self.with(self.network.timeout, list).await?;
        let files = entries.into_iter().filter(|entry| entry.is_file);
        let mut files: Vec<_> = files
            .map(|entry| (format!("{part}/{}", entry.name), entry.len))
            .collect();
        files.sort_unstable();
        Ok(Page {
            files,
            more_after: None,
        })
    }

    async fn remove_stale(&self, part: &str, age: Duration) -> Try<u64> {
        let path = self.path(part);
        let before = SystemTime::now().checked_sub(age).unwrap_or(SystemTime::UNIX_EPOCH);
        let remove = |session: Arc<Session>| async move {
            let mut removed = 0;
            for entry in Self::entries(&session, &path).await? {
                let temporary = entry.name.starts_with(TEMPORARY) || is_foreign_temporary(&entry.name);
                if entry.is_file && temporary && entry.changed <= before {
                    match session.remove(&format!("{path}/{}", entry.name)).await {
                        Ok(()) => removed += 1,
                        Err(Trouble::Missing) => {}
                        Err(trouble) => return Err(trouble),
                    }
                }
            }
            Ok(removed)
        };
        self.with(self.network.timeout, remove).await
    }
}

impl fmt::Debug for Folder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Folder").field(&self.location).finish()
    }
}

#[cfg(test)]
pub(crate) mod tests;
