//! One SSH connection with one SFTP session on it, and the operations that a store needs of it.
//!
//! Reads and writes of a file are in flight together, as many as the window holds, so a chunk costs three round trips to
//! read and five to write whatever its length.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, SystemTime};

use bytes::Bytes;
use futures_util::{StreamExt as _, stream};
use russh::client::Handle;
use russh_sftp::client::error::Error as SftpError;
use russh_sftp::client::{Config, RawSftpSession};
use russh_sftp::protocol::{FileAttributes, OpenFlags, Packet, StatusCode};

use super::SftpOptions;
use super::login;
use super::trust::Client;
use crate::BoxError;
use crate::backend::remote::body::{Body, BodyFault, Spool};
use crate::backend::remote::patience::Failure;
use crate::backend::remote::{Fault, Try};
use crate::location::SshLocation;
use crate::rate::{self, RateLimit};

/// Bytes asked for with the length of a file, before it is known: most chunks are shorter.
const FIRST_READ_LEN: u32 = 64 << 10;
/// Bytes of one read or write, unless the server allows less.
const PIECE_LEN_MAX: u64 = 255 << 10;
/// What every server takes (draft-ietf-secsh-filexfer-02, section 3).
const PIECE_LEN_SAFE: u64 = 32 << 10;
/// Pieces of one file in flight.
const PIECES_IN_FLIGHT: usize = 8;
/// Longest packet taken: a piece and its header, or a long page of a listing.
const PACKET_LEN_MAX: u32 = 1 << 20;
/// Names in one folder: 16 million chunks have 256 in each.
const ENTRIES_MAX: usize = 1 << 20;

const POSIX_RENAME: &str = "posix-rename@openssh.com";
const FSYNC: &str = "fsync@openssh.com";
const LIMITS: &str = "limits@openssh.com";
const STATVFS: &str = "statvfs@openssh.com";

/// What went wrong with an operation.
#[derive(Debug, thiserror::Error)]
pub(super) enum Trouble {
    #[error("no such file")]
    Missing,
    #[error("the file is there, and the server cannot replace it (it has no {POSIX_RENAME})")]
    CannotReplace,
    #[error("it is there already")]
    AlreadyThere,
    #[error("no answer within {0:?}")]
    TimedOut(Duration),
    #[error("no room left: the file system at the server is full")]
    Full,
    #[error("{0}")]
    Short(String),
    #[error("{0}")]
    Refused(BoxError),
    #[error(transparent)]
    Body(#[from] BodyFault),
    #[error("the server answered: {0}")]
    Sftp(SftpError),
}

impl From<SftpError> for Trouble {
    fn from(error: SftpError) -> Self {
        match error {
            SftpError::Status(status) => match status.status_code {
                StatusCode::NoSuchFile => Self::Missing,
                StatusCode::PermissionDenied => Self::Refused("no permission at the server".into()),
                StatusCode::OpUnsupported => Self::Refused("the server cannot do it".into()),
                _ => Self::Sftp(SftpError::Status(status)),
            },
            error => Self::Sftp(error),
        }
    }
}

impl Trouble {
    /// Whether the connection is of no more use.
    pub(super) fn breaks_the_connection(&self) -> bool {
        match self {
            Self::TimedOut(_) => true,
            Self::Sftp(SftpError::Status(status)) => {
                matches!(
                    status.status_code,
                    StatusCode::NoConnection | StatusCode::ConnectionLost
                )
            }
            Self::Sftp(_) => true,
            _ => false,
        }
    }

    pub(super) fn into_failure(self) -> Failure<Fault> {
        match self {
            Self::Sftp(SftpError::Timeout) => Fault::passing("no answer to a request in time"),
            Self::Sftp(SftpError::IO(_) | SftpError::UnexpectedBehavior(_) | SftpError::UnexpectedPacket) => {
                Fault::passing("the connection was cut")
            }
            Self::TimedOut(_) | Self::Short(_) => Fault::passing(self),
            Self::Sftp(_) if self.breaks_the_connection() => Fault::passing(self),
            Self::Full | Self::Sftp(_) => Fault::lasting(self),
            Self::Missing | Self::CannotReplace | Self::AlreadyThere | Self::Refused(_) | Self::Body(_) => {
                Fault::refused(self)
            }
        }
    }
}

/// What a file is like.
#[derive(Clone, Copy, Debug)]
pub(super) struct Stat {
    pub(super) is_file: bool,
    pub(super) len: u64,
}

/// A file in a folder.
#[derive(Debug)]
pub(super) struct Entry {
    pub(super) name: String,
    pub(super) is_file: bool,
    /// Bytes, of a file.
    pub(super) len: u64,
    pub(super) changed: SystemTime,
}

/// One connection.
pub(super) struct Session {
    sftp: RawSftpSession,
    ssh: Handle<Client>,
    abandoned: AtomicBool,
    extensions: Extensions,
}

#[derive(Clone, Copy)]
struct Extensions {
    posix_rename: bool,
    fsync: bool,
    statvfs: bool,
    read_len: u64,
    write_len: u64,
}

impl Session {
    /// Connects, proves the server's key, logs in, and starts SFTP.
    ///
    /// - `quiet`: longest silence while something is asked; `limit`: longest time for all of this.
    pub(super) async fn connect(
        location: &SshLocation,
        options: &SftpOptions,
        quiet: Duration,
        limit: Duration,
    ) -> Try<Self> {
        let connect = async {
            let ssh = login::connect(location, options, quiet).await?;
            Self::start(ssh, quiet).await
        };
        tokio::time::timeout(limit, connect)
            .await
            .unwrap_or_else(|_| Err(Fault::passing(format!("not connected within {limit:?}"))))
    }

    async fn start(ssh: Handle<Client>, quiet: Duration) -> Try<Self> {
        let cut = |error: russh::Error| Fault::passing(error);
        let mut channel = ssh.channel_open_session().await.map_err(cut)?;
        channel.request_subsystem(true, "sftp").await.map_err(cut)?;
        loop {
            match channel.wait().await {
                Some(russh::ChannelMsg::Success) => break,
                Some(russh::ChannelMsg::WindowAdjusted { .. }) => {}
                Some(russh::ChannelMsg::Failure) => {
                    return Err(Fault::refused("the server offers no SFTP"));
                }
                _ => return Err(Fault::passing("the server closed the connection")),
            }
        }
        let config = Config {
            max_packet_len: PACKET_LEN_MAX,
            request_timeout_secs: quiet.as_secs().max(1),
            ..Config::default()
        };
        let mut sftp = RawSftpSession::new_with_config(channel.into_stream(), config);
        let told = |error: SftpError| Trouble::from(error).into_failure();
        let version = sftp.init().await.map_err(told)?;
        let has = |name: &str| version.extensions.contains_key(name);
        let mut extensions = Extensions {
            posix_rename: has(POSIX_RENAME),
            fsync: has(FSYNC),
            statvfs: has(STATVFS),
            read_len: PIECE_LEN_SAFE,
            write_len: PIECE_LEN_SAFE,
        };
        if has(LIMITS) {
            let limits = russh_sftp::client::rawsession::Limits::from(sftp.limits().await.map_err(told)?);
            let len = |limit: Option<u64>| limit.unwrap_or(PIECE_LEN_SAFE).clamp(1, PIECE_LEN_MAX);
            (extensions.read_len, extensions.write_len) = (len(limits.read_len), len(limits.write_len));
            sftp.set_limits(limits);
        }
        Ok(Self {
            sftp,
            ssh,
            abandoned: AtomicBool::new(false),
            extensions,
        })
    }

    /// Whether it can be used.
    pub(super) fn works(&self) -> bool {
        !self.abandoned.load(Ordering::Relaxed) && !self.ssh.is_closed()
    }

    /// Lets nobody use it any more.
    pub(super) fn abandon(&self) {
        self.abandoned.store(true, Ordering::Relaxed);
    }

    /// What is at a path, `None` where nothing is.
    pub(super) async fn stat(&self, path: &str) -> Result<Option<Stat>, Trouble> {
        match self.sftp.stat(path).await {
            Ok(found) => Ok(Some(stat_of(&found.attrs))),
            Err(error) => match error.into() {
                Trouble::Missing => Ok(None),
                trouble => Err(trouble),
            },
        }
    }

    /// The bytes of a file, `None` where there is none.
    pub(super) async fn read(
        &self,
        path: &str,
        len_max: usize,
        spool: Option<&Spool>,
        rate: Option<&RateLimit>,
    ) -> Result<Option<Bytes>, Trouble> {
        let opened = self.sftp.open(path, OpenFlags::READ, FileAttributes::empty()).await;
        let handle = match opened.map_err(Trouble::from) {
            Ok(opened) => opened.handle,
            Err(Trouble::Missing) => return Ok(None),
            Err(trouble) => return Err(trouble),
        };
        let read = self.read_open(&handle, len_max, spool, rate).await;
        // A file that was only read is closed whatever that comes to.
        let closed = self.sftp.close(handle).await;
        let bytes = read?;
        closed?;
        Ok(Some(bytes))
    }

    async fn read_open(
        &self,
        handle: &str,
        len_max: usize,
        spool: Option<&Spool>,
        rate: Option<&RateLimit>,
    ) -> Result<Bytes, Trouble> {
        let first_len = u64::from(FIRST_READ_LEN).min(self.extensions.read_len) as u32;
        let (found, first) = tokio::join!(self.sftp.fstat(handle), self.sftp.read(handle, 0, first_len));
        let stat = stat_of(&found?.attrs);
        if !stat.is_file {
            return Err(Trouble::Refused("it is no file".into()));
        }
        let mut body = Body::new(stat.len, len_max, spool)?;
        if stat.len == 0 {
            return Ok(body.finish()?);
        }
        let mut first = first?.data;
        // One that grows while it is read is taken as it was.
        first.truncate(usize::try_from(stat.len).unwrap_or(usize::MAX));
        rate::pause_for(rate, first.len()).await;
        if first.len() as u64 == stat.len {
            return Ok(first.into());
        }
        body.push(&first)?;
        let piece_len = self.extensions.read_len;
        let starts = (first.len() as u64..stat.len).step_by(usize::try_from(piece_len).unwrap_or(usize::MAX));
        let reads = starts.map(|start| self.read_piece(handle, start, piece_len.min(stat.len - start)));
        let mut pieces = stream::iter(reads).buffered(PIECES_IN_FLIGHT);
        while let Some(piece) = pieces.next().await {
            let piece = piece?;
            rate::pause_for(rate, piece.len()).await;
            body.push(&piece)?;
        }
        Ok(body.finish()?)
    }

    /// The bytes `start..end` of a file, `None` where there is none. Errors: [`Trouble::Short`] where it ends before.
    pub(super) async fn read_range(
        &self,
        path: &str,
        start: u64,
        end: u64,
        rate: Option<&RateLimit>,
    ) -> Result<Option<Bytes>, Trouble> {
        let opened = self.sftp.open(path, OpenFlags::READ, FileAttributes::empty()).await;
        let handle = match opened.map_err(Trouble::from) {
            Ok(opened) => opened.handle,
            Err(Trouble::Missing) => return Ok(None),
            Err(trouble) => return Err(trouble),
        };
        let piece_len = self.extensions.read_len;
        let starts = (start..end).step_by(usize::try_from(piece_len).unwrap_or(usize::MAX));
        let reads = starts.map(|at| self.read_piece(&handle, at, piece_len.min(end - at)));
        let mut pieces = stream::iter(reads).buffered(PIECES_IN_FLIGHT);
        let mut bytes = Vec::with_capacity(usize::try_from(end.saturating_sub(start)).unwrap_or(0));
        let read = loop {
            match pieces.next().await {
                Some(Ok(piece)) => {
                    rate::pause_for(rate, piece.len()).await;
                    bytes.extend_from_slice(&piece);
                }
                Some(Err(trouble)) => break Err(trouble),
                None => break Ok(()),
            }
        };
        drop(pieces);
        let closed = self.sftp.close(handle).await;
        read?;
        closed?;
        Ok(Some(bytes.into()))
    }

    /// Exactly these bytes: a server may give fewer than it was asked for, but not none.
    async fn read_piece(&self, handle: &str, start: u64, len: u64) -> Result<Vec<u8>, Trouble> {
        let mut piece = Vec::new();
        while (piece.len() as u64) < len {
            let have = piece.len() as u64;
            let left = u32::try_from(len - have).unwrap_or(u32::MAX);
            match self.sftp.read(handle, start + have, left).await {
                Ok(answer) if !answer.data.is_empty() => {
                    let wanted = answer.data.len().min(left as usize);
                    piece.extend_from_slice(&answer.data[..wanted]);
                }
                Ok(_) => return Err(short(start + have)),
                Err(SftpError::Status(status)) if status.status_code == StatusCode::Eof => {
                    return Err(short(start + have));
                }
                Err(error) => return Err(error.into()),
            }
        }
        Ok(piece)
    }

    /// Opens a new file for writing.
    pub(super) async fn create(&self, path: &str) -> Result<String, Trouble> {
        let flags = OpenFlags::WRITE | OpenFlags::CREATE | OpenFlags::EXCLUDE;
        Ok(self.sftp.open(path, flags, FileAttributes::empty()).await?.handle)
    }

    /// Writes a whole file.
    pub(super) async fn write_all(&self, handle: &str, body: &[u8]) -> Result<(), Trouble> {
        let piece_len = self.extensions.write_len as usize;
        let writes = (0..body.len()).step_by(piece_len).map(|start| {
            let piece = &body[start..body.len().min(start + piece_len)];
            self.sftp.write(handle, start as u64, piece.to_vec())
        });
        let mut answers = stream::iter(writes).buffer_unordered(PIECES_IN_FLIGHT);
        while let Some(answer) = answers.next().await {
            answer?;
        }
        Ok(())
    }

    /// Makes a file's bytes durable, where the server can.
    pub(super) async fn sync(&self, handle: &str) -> Result<(), Trouble> {
        if self.extensions.fsync {
            self.sftp.fsync(handle).await?;
        }
        Ok(())
    }

    pub(super) async fn close(&self, handle: String) -> Result<(), Trouble> {
        self.sftp.close(handle).await?;
        Ok(())
    }

    /// Gives a file another name, in place of what has it.
    ///
    /// Errors: [`Trouble::CannotReplace`] where something has it and the server cannot.
    pub(super) async fn replace(&self, from: &str, to: &str) -> Result<(), Trouble> {
        if self.extensions.posix_rename {
            let mut names = Vec::new();
            for name in [from, to] {
                names.extend((name.len() as u32).to_be_bytes());
                names.extend(name.as_bytes());
            }
            return match self.sftp.extended(POSIX_RENAME, names).await? {
                Packet::Status(status) if status.status_code == StatusCode::Ok => Ok(()),
                Packet::Status(status) => Err(SftpError::Status(status).into()),
                _ => Err(SftpError::UnexpectedPacket.into()),
            };
        }
        match self.sftp.rename(from, to).await.map_err(Trouble::from) {
            Ok(_) => Ok(()),
            Err(trouble) => match self.stat(to).await? {
                Some(_) => Err(Trouble::CannotReplace),
                None => Err(trouble),
            },
        }
    }

    /// Gives a file a name that nothing has. Returns `false` where something has it; the protocol's own rename replaces nothing
    /// (draft-ietf-secsh-filexfer-02, section 6.5).
    pub(super) async fn rename_to_new(&self, from: &str, to: &str) -> Result<bool, Trouble> {
        match self.sftp.rename(from, to).await.map_err(Trouble::from) {
            Ok(_) => Ok(true),
            Err(trouble) if trouble.breaks_the_connection() => Err(trouble),
            Err(trouble) => match self.stat(to).await? {
                Some(_) => Ok(false),
                None => Err(trouble),
            },
        }
    }

    /// Deletes a file. Errors: [`Trouble::Missing`].
    pub(super) async fn remove(&self, path: &str) -> Result<(), Trouble> {
        self.sftp.remove(path).await?;
        Ok(())
    }

    /// Makes a folder if it is not there.
    pub(super) async fn make_folder(&self, path: &str) -> Result<(), Trouble> {
        match self
            .sftp
            .mkdir(path, FileAttributes::empty())
            .await
            .map_err(Trouble::from)
        {
            Ok(_) => Ok(()),
            // Servers of this version have no word for "it is there".
            Err(trouble @ (Trouble::Sftp(SftpError::Status(_)) | Trouble::Refused(_))) => {
                match self.stat(path).await? {
                    Some(stat) if !stat.is_file => Ok(()),
                    _ => Err(trouble),
                }
            }
            Err(trouble) => Err(trouble),
        }
    }

    /// What is in a folder. Errors: [`Trouble::Missing`].
    pub(super) async fn list(&self, path: &str) -> Result<Vec<Entry>, Trouble> {
        let handle = self.sftp.opendir(path).await?.handle;
        let mut entries = Vec::new();
        let listed = loop {
            match self.sftp.readdir(handle.as_str()).await {
                Ok(page) => entries.extend(page.files.into_iter().map(|file| Entry {
                    is_file: stat_of(&file.attrs).is_file,
                    len: stat_of(&file.attrs).len,
                    changed: SystemTime::UNIX_EPOCH + Duration::from_secs(file.attrs.mtime.unwrap_or(0).into()),
                    name: file.filename,
                })),
                Err(SftpError::Status(status)) if status.status_code == StatusCode::Eof => break Ok(()),
                Err(error) => break Err(error.into()),
            }
            if entries.len() > ENTRIES_MAX {
                break Err(Trouble::Refused(
                    format!("{path}: more than {ENTRIES_MAX} files").into(),
                ));
            }
        };
        let closed = self.sftp.close(handle).await;
        listed?;
        closed?;
        Ok(entries)
    }

    /// A failed write, with the reason that the protocol has no word for.
    pub(super) async fn explained(&self, trouble: Trouble, folder: &str) -> Trouble {
        let plain_failure =
            matches!(&trouble, Trouble::Sftp(SftpError::Status(status)) if status.status_code == StatusCode::Failure);
        if !plain_failure || !self.extensions.statvfs {
            return trouble;
        }
        match self.sftp.statvfs(folder).await {
            Ok(room) if room.blocks_avail == 0 || (room.inodes > 0 && room.inodes_avail == 0) => Trouble::Full,
            _ => trouble,
        }
    }
}

/// Servers that do not tell what something is have files.
fn stat_of(attributes: &FileAttributes) -> Stat {
    const KIND: u32 = 0o170_000;
    const FILE: u32 = 0o100_000;
    Stat {
        is_file: attributes
            .permissions
            .is_none_or(|mode| mode & KIND == FILE || mode & KIND == 0),
        len: attributes.size.unwrap_or(0),
    }
}

fn short(at: u64) -> Trouble {
    Trouble::Short(format!("the file ended at byte {at}, earlier than its length"))
}
