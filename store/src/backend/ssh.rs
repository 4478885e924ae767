//! Chunks behind a casync (or `cairn pull`) at the other end of an SSH connection.
//!
//! Starts `ssh HOST casync pull - - - PATH` and speaks the casync protocol over its pipes. Many ids are in flight on one
//! connection, so a batch costs one round trip; several callers share a few connections. The protocol has no question "is it
//! there": that costs the chunk. casync answers an id once in a session, so one asked for again gets a new session.
//!
//! [`SshStore`] is read-only: over this protocol a server asks for the chunks of an index that is pushed, and takes no others.
//! That is `ssh/push.rs`.
//! A remote end that falls silent, leaves, or talks nonsense is an error within the time limit; nothing waits for ever.

mod push;

use std::collections::{HashMap, HashSet};
use std::ffi::OsString;
use std::fmt;
use std::io::{Read as _, Write as _};
use std::path::Path;
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::sync::mpsc::{self, Receiver};
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use cairn_formats::{ChunkForm, ChunkId, EncodedChunk, Frame, FrameDecoder, HelloFlags, StorableChunk};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::process::{Pid, PidfdFlags, pidfd_open};

pub(crate) use push::push_index;
pub use push::{SshPush, SshPushed};

use crate::file::{map_file, nameless_file};
use crate::location::SshLocation;
use crate::{BoxError, ChunkStore, Error, RateLimit, Result, Sealing, StoreName};

/// Ids under way. Their REQUESTs (56 bytes each) fit in a pipe, so writing them never waits for a remote end that waits for us.
const REQUEST_IDS_MAX: usize = 1024;
/// Bytes read at once.
const READ_LEN: usize = 256 << 10;
/// Bytes of what the child says on its standard error that an error repeats.
const SAID_LEN_MAX: usize = 2048;

/// Frames read from an end that no longer listens, to learn why.
const PARTING_FRAMES_MAX: usize = 1024;

/// How long an error waits for what `ssh` has to say of it.
const LAST_WORDS_WITHIN: Duration = Duration::from_secs(1);

/// How a remote casync is reached.
#[derive(Clone, Debug)]
pub struct SshOptions {
    /// Program that is run as `PROGRAM [-p PORT] [USER@]HOST COMMAND` (`CASYNC_SSH_PATH`).
    pub ssh: OsString,
    /// Command at the other end that understands `pull - - - PATH` (`CASYNC_REMOTE_PATH`); words for the remote shell.
    pub remote: String,
    /// Connections at most.
    pub connections: usize,
    /// Longest silence of the other end while something is asked of it; `None` waits.
    pub timeout: Option<Duration>,
    /// How often a batch is tried again, on a new connection.
    pub error_retry: u32,
    /// Wait before the first new try; it grows with each.
    pub error_retry_base_interval: Duration,
    /// Bytes a second that a push sends at most, shared with others that use it.
    pub rate_limit: Option<Arc<RateLimit>>,
}

impl Default for SshOptions {
    fn default() -> Self {
        Self {
            ssh: "ssh".into(),
            remote: "casync".to_owned(),
            connections: 2,
            timeout: Some(Duration::from_secs(60)),
            error_retry: 3,
            error_retry_base_interval: Duration::from_millis(500),
            rate_limit: None,
        }
    }
}

/// A chunk store that is read over SSH.
pub struct SshStore {
    name: StoreName,
    location: SshLocation,
    options: SshOptions,
    sealing: Sealing,
    pool: Mutex<Pool>,
    freed: Condvar,
}

#[derive(Default)]
struct Pool {
    idle: Vec<Session>,
    open: usize,
}

/// What the other end said about a chunk.
enum Answer {
    Missing,
    Here { compressed: bool, data: Bytes },
}

impl SshStore {
    /// Prepares a client; nothing is started yet.
    pub fn open(location: &SshLocation, options: SshOptions, sealing: Sealing) -> Self {
        Self {
            name: StoreName::new(location.to_string()),
            location: location.clone(),
            options,
            sealing,
            pool: Mutex::default(),
            freed: Condvar::new(),
        }
    }

    /// Asks for chunks, each once, on one connection; again on another when it breaks.
    fn ask(&self, ids: &[ChunkId], action: &'static str) -> Result<HashMap<ChunkId, Answer>> {
        let mut seen = HashSet::new();
        let ids: Vec<ChunkId> = ids.iter().copied().filter(|id| seen.insert(*id)).collect();
        retried(&self.options, &self.name, action, || self.try_ask(&ids))
    }

    fn try_ask(&self, ids: &[ChunkId]) -> std::result::Result<HashMap<ChunkId, Answer>, BoxError> {
        let mut place = self.place();
        let used = place.session.take().filter(|session| !session.asked_any(ids));
        let mut session = match used {
            Some(session) => session,
            None => {
                let command = format!("pull - - - {}", shell_quoted(self.location.path()));
                Session::start(&self.location, &self.options, &command, HelloFlags::PULL_CHUNKS)?
            }
        };
        let answers = session.ask(ids)?;
        place.session = Some(session);
        Ok(answers)
    }

    /// A connection that nobody uses, or the right to open one.
    fn place(&self) -> Place<'_> {
        let mut pool = self.pool.lock().unwrap_or_else(PoisonError::into_inner);
        while pool.open >= self.options.connections.max(1) {
            pool = self.freed.wait(pool).unwrap_or_else(PoisonError::into_inner);
        }
        pool.open += 1;
        Place {
            store: self,
            session: pool.idle.pop(),
        }
    }

    fn read(&self, id: ChunkId, answer: Option<&Answer>) -> Result<EncodedChunk> {
        let Some(Answer::Here { compressed, data }) = answer else {
            return Err(Error::Missing {
                id,
                store: self.name.clone(),
            });
        };
        let form = if *compressed {
            ChunkForm::Compressed
        } else {
            ChunkForm::Plain
        };
        let bytes = data.clone();
        self.sealing.open(&self.name, EncodedChunk { id, form, bytes })
    }
}

/// A place among the connections; given back when it is dropped, with the connection if that still works.
struct Place<'s> {
    store: &'s SshStore,
    session: Option<Session>,
}

impl Drop for Place<'_> {
    fn drop(&mut self) {
        let mut pool = self.store.pool.lock().unwrap_or_else(PoisonError::into_inner);
        pool.open -= 1;
        pool.idle.extend(self.session.take());
        self.store.freed.notify_one();
    }
}

impl ChunkStore for SshStore {
    fn name(&self) -> &StoreName {
        &self.name
    }

    fn has_many(&self, ids: &[ChunkId]) -> Result<Vec<bool>> {
        let answers = self.ask(ids, "look for a chunk")?;
        Ok(ids
            .iter()
            .map(|id| matches!(answers.get(id), Some(Answer::Here { .. })))
            .collect())
    }

    fn get_many(&self, ids: &[ChunkId]) -> Vec<Result<EncodedChunk>> {
        match self.ask(ids, "read a chunk") {
            Ok(answers) => ids.iter().map(|&id| self.read(id, answers.get(&id))).collect(),
            Err(Error::Unavailable { store, action, source }) => {
                let source: Arc<BoxError> = Arc::new(source);
                ids.iter()
                    .map(|_| {
                        Err(Error::Unavailable {
                            store: store.clone(),
                            action,
                            source: source.to_string().into(),
                        })
                    })
                    .collect()
            }
            Err(error) => vec![Err(error)],
        }
    }

    fn put_many(&self, _chunks: &[StorableChunk]) -> Result<()> {
        Err(Error::ReadOnly {
            store: self.name.clone(),
        })
    }

    fn flush(&self) -> Result<()> {
        Ok(())
    }
}

impl fmt::Debug for SshStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SshStore")
            .field("name", &self.name)
            .finish_non_exhaustive()
    }
}

/// Does something with a far end, again after a while when that fails, as often as the options say.
fn retried<T>(
    options: &SshOptions,
    name: &StoreName,
    action: &'static str,
    mut attempt: impl FnMut() -> std::result::Result<T, BoxError>,
) -> Result<T> {
    let mut tries = 0;
    loop {
        let source = match attempt() {
            Ok(answer) => return Ok(answer),
            Err(source) => source,
        };
        if tries == options.error_retry {
            return Err(Error::Unavailable {
                store: name.clone(),
                action,
                source,
            });
        }
        tries += 1;
        let jitter = fastrand::f64() / 2.0 + 0.75;
        std::thread::sleep(options.error_retry_base_interval.mul_f64(f64::from(tries) * jitter));
    }
}

/// The bytes of the index at a location, as long as it has at most `len_max`.
pub(crate) fn pull_index(
    location: &SshLocation,
    options: &SshOptions,
    len_max: u64,
    folder: &Path,
) -> std::result::Result<Bytes, BoxError> {
    let command = format!("pull - - {} -", shell_quoted(location.path()));
    let mut session = Session::start(location, options, &command, HelloFlags::PULL_INDEX)?;
    session.index(len_max, folder).map_err(|error| session.explained(error))
}

/// One `ssh` and the program at its other end. Ends with the value.
struct Session {
    child: Child,
    /// `None` once the session has ended.
    input: Option<ChildStdin>,
    output: ChildStdout,
    /// Gathers the end of what the child says on its standard error.
    said: Receiver<String>,
    decoder: FrameDecoder,
    buffer: BytesMut,
    timeout: Option<Duration>,
    asked: HashSet<ChunkId>,
}

impl Session {
    /// Runs `arguments`, words for the remote shell, at the other end, and says what we want.
    fn start(
        location: &SshLocation,
        options: &SshOptions,
        arguments: &str,
        want: u64,
    ) -> std::result::Result<Self, BoxError> {
        let mut command = Command::new(&options.ssh);
        if let Some(port) = location.port() {
            command.arg("-p").arg(port.to_string());
        }
        command.arg(location.destination());
        command.arg(format!("{} {arguments}", options.remote));
        let mut child = command
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .map_err(|error| format!("{} does not start: {error}", options.ssh.display()))?;
        let (Some(input), Some(output), Some(errors)) = (child.stdin.take(), child.stdout.take(), child.stderr.take())
        else {
            return Err("the pipes of ssh are not there".into());
        };
        let (say, said) = mpsc::channel();
        // Ends with the last process that has the pipe, which need not be the child.
        std::thread::spawn(move || say.send(last_words(errors)));
        let mut session = Self {
            child,
            input: Some(input),
            output,
            said,
            decoder: FrameDecoder::new(),
            buffer: BytesMut::new(),
            timeout: options.timeout,
            asked: HashSet::new(),
        };
        session
            .greet(HelloFlags(want))
            .map_err(|error| session.explained(error))?;
        Ok(session)
    }

    fn greet(&mut self, ours: HelloFlags) -> std::result::Result<(), BoxError> {
        self.send([Frame::Hello(ours)])?;
        match self.frame()? {
            Frame::Hello(theirs) if ours.wants_are_met_by(theirs) && theirs.wants_are_met_by(ours) => Ok(()),
            Frame::Hello(theirs) => Err(format!(
                "the other end does not offer what we want, or wants what we do not offer (its flags are {:#x})",
                theirs.0
            )
            .into()),
            frame => Err(unexpected(&frame)),
        }
    }

    /// Whether casync would leave one of these without an answer: it gives each once.
    fn asked_any(&self, ids: &[ChunkId]) -> bool {
        ids.iter().any(|id| self.asked.contains(id))
    }

    /// Asks for chunks, none of them twice, and waits for all answers, which come in any order.
    fn ask(&mut self, ids: &[ChunkId]) -> std::result::Result<HashMap<ChunkId, Answer>, BoxError> {
        let mut answers = HashMap::with_capacity(ids.len());
        for ids in ids.chunks(REQUEST_IDS_MAX) {
            self.ask_some(ids, &mut answers)
                .map_err(|error| self.explained(error))?;
        }
        Ok(answers)
    }

    fn ask_some(
        &mut self,
        ids: &[ChunkId],
        answers: &mut HashMap<ChunkId, Answer>,
    ) -> std::result::Result<(), BoxError> {
        self.asked.extend(ids);
        let mut waiting: HashSet<ChunkId> = ids.iter().copied().collect();
        // A frame for each, sent together: desync answers only the first id of a REQUEST.
        let requests = ids.iter().map(|&id| Frame::Request {
            high_priority: true,
            ids: vec![id],
        });
        self.send(requests)?;
        while !waiting.is_empty() {
            let (id, answer) = match self.frame()? {
                Frame::Chunk { id, compressed, data } => (id, Answer::Here { compressed, data }),
                Frame::Missing(id) => (id, Answer::Missing),
                frame => return Err(unexpected(&frame)),
            };
            if !waiting.remove(&id) {
                return Err(format!("the other end answers for chunk {id}, which was not asked for").into());
            }
            answers.insert(id, answer);
        }
        Ok(())
    }

    /// The bytes of the index that the other end sends, `len_max` at most, from a file without a name in `folder`.
    fn index(&mut self, len_max: u64, folder: &Path) -> std::result::Result<Bytes, BoxError> {
        let mut file = nameless_file(folder)?;
        let mut len = 0;
        loop {
            match self.frame()? {
                Frame::Index(bytes) => {
                    len += bytes.len() as u64;
                    if len > len_max {
                        return Err(format!("the index is longer than {len_max} bytes").into());
                    }
                    file.write_all(&bytes)?;
                }
                Frame::IndexEof => return Ok(map_file(&file)?),
                frame => return Err(unexpected(&frame)),
            }
        }
    }

    fn send(&mut self, frames: impl IntoIterator<Item = Frame>) -> std::result::Result<(), BoxError> {
        let mut bytes = Vec::new();
        frames.into_iter().for_each(|frame| frame.push(&mut bytes));
        let input = self.input.as_mut().ok_or("the session has ended")?;
        match input.write_all(&bytes).and_then(|()| input.flush()) {
            Ok(()) => Ok(()),
            Err(error) if error.kind() == std::io::ErrorKind::BrokenPipe => Err(self.parting()),
            Err(error) => Err(format!("the other end does not listen: {error}").into()),
        }
    }

    /// Why the other end no longer listens. It may have said so before it left: what it sent is still to be read.
    fn parting(&mut self) -> BoxError {
        for _ in 0..PARTING_FRAMES_MAX {
            match self.frame() {
                Ok(frame @ Frame::Abort { .. }) => return unexpected(&frame),
                Ok(_) => {}
                Err(error) => return error,
            }
        }
        "the other end does not listen".into()
    }

    /// The next frame, within the time limit for the next byte.
    fn frame(&mut self) -> std::result::Result<Frame, BoxError> {
        loop {
            if let Some(frame) = self.decoder.next()? {
                return Ok(frame);
            }
            let limit = self.limit()?;
            let mut events = [PollFd::new(&self.output, PollFlags::IN)];
            match poll(&mut events, limit.as_ref()) {
                Ok(0) => return Err(self.silence()),
                Err(rustix::io::Errno::INTR) => continue,
                other => other?,
            };
            self.read()?;
        }
    }

    /// Takes what the other end has sent by now; waits when that is nothing.
    fn read(&mut self) -> std::result::Result<(), BoxError> {
        self.buffer.resize(READ_LEN, 0);
        match self.output.read(&mut self.buffer) {
            Ok(0) if self.decoder.is_between_frames() => Err("the other end has left".into()),
            Ok(0) => Err("the other end has left in the middle of a frame".into()),
            Ok(read) => {
                self.decoder.push(self.buffer.split_to(read).freeze());
                Ok(())
            }
            Err(error) if error.kind() == std::io::ErrorKind::Interrupted => Ok(()),
            Err(error) => Err(error.into()),
        }
    }

    fn limit(&self) -> std::result::Result<Option<Timespec>, BoxError> {
        let limit = self.timeout.map(Timespec::try_from).transpose();
        limit.map_err(|_| "the time limit is too long".into())
    }

    fn silence(&self) -> BoxError {
        let seconds = self.timeout.unwrap_or_default().as_secs();
        format!("the other end is silent for {seconds} seconds").into()
    }

    /// Waits until the program at the other end, which has said goodbye, has ended well.
    fn finish(&mut self) -> std::result::Result<(), BoxError> {
        self.input = None;
        let child = pidfd_open(Pid::from_child(&self.child), PidfdFlags::empty())?;
        loop {
            match poll(&mut [PollFd::new(&child, PollFlags::IN)], self.limit()?.as_ref()) {
                Ok(0) => return Err(self.silence()),
                Err(rustix::io::Errno::INTR) => continue,
                other => other?,
            };
            let status = self.child.wait()?;
            return match status.success() {
                true => Ok(()),
                false => Err(format!("the other end said goodbye, then failed ({status})").into()),
            };
        }
    }

    /// Ends the session and adds the last words of `ssh` to an error.
    fn explained(&mut self, error: BoxError) -> BoxError {
        self.input = None;
        let said = self.said.recv_timeout(LAST_WORDS_WITHIN).unwrap_or_default();
        let _ = self.child.kill();
        match said.trim() {
            "" => error,
            said => format!("{error}; ssh said: {said}").into(),
        }
    }
}

impl Drop for Session {
    fn drop(&mut self) {
        // A word of farewell, for servers that log a bare end; nobody waits for an answer.
        let mut farewell = Vec::new();
        Frame::Goodbye.push(&mut farewell);
        let _ = self.input.as_mut().map(|input| input.write_all(&farewell));
        self.input = None;
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn unexpected(frame: &Frame) -> BoxError {
    match frame {
        Frame::Abort { code, reason } => format!("the other end gives up: {reason} (code {code})").into(),
        Frame::Goodbye => "the other end says goodbye early".into(),
        _ => "the other end sends a frame that has no place here".into(),
    }
}

fn last_words(mut errors: impl std::io::Read) -> String {
    let (mut kept, mut buffer) = (Vec::new(), [0; 1024]);
    while let Ok(read @ 1..) = errors.read(&mut buffer) {
        kept.extend_from_slice(&buffer[..read]);
        let excess = kept.len().saturating_sub(SAID_LEN_MAX);
        kept.drain(..excess);
    }
    String::from_utf8_lossy(&kept).into_owned()
}

/// One word for a POSIX shell.
fn shell_quoted(word: &str) -> String {
    format!("'{}'", word.replace('\'', r"'\''"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::location::Location;
    use crate::{ChunkStoreExt as _, FlatOptions, FlatStore, contract};

    pub(super) fn at(path: &Path) -> SshLocation {
        match Location::parse(&format!("ssh://nowhere{}", path.display())) {
            Ok(Location::Ssh(location)) => location,
            other => panic!("an ssh location: {other:?}"),
        }
    }

    /// A program in place of ssh that runs the command here.
    pub(super) fn local_ssh(folder: &Path, script: &str) -> SshOptions {
        let ssh = folder.join("ssh");
        // By another process: a child that another test has just forked holds what is open here for writing, and then it cannot be run.
        let mut install = Command::new("install")
            .args(["-m", "755", "/dev/stdin"])
            .arg(&ssh)
            .stdin(Stdio::piped())
            .spawn()
            .unwrap();
        let mut program = install.stdin.take().unwrap();
        program.write_all(format!("#!/bin/sh\n{script}\n").as_bytes()).unwrap();
        drop(program);
        assert!(install.wait().unwrap().success());
        SshOptions {
            ssh: ssh.into(),
            error_retry: 0,
            ..SshOptions::default()
        }
    }

    fn open(path: &Path, options: SshOptions) -> SshStore {
        SshStore::open(&at(path), options, Sealing::default())
    }

    /// The real casync at the other end, over a pipe.
    #[test]
    fn a_remote_casync_is_read() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("it's a store");
        std::fs::create_dir(&path).unwrap();
        let flat = FlatStore::open(&path, FlatOptions::default()).unwrap();
        let chunks = contract::chunks(11, ChunkForm::Compressed);
        flat.put_many(&chunks).unwrap();
        flat.flush().unwrap();

        let store = open(&path, local_ssh(folder.path(), "shift\nexec sh -c \"$*\""));
        contract::reads_are_right(&store, &chunks);
        contract::missing_is_definite(&store);
        assert!(matches!(store.put_many(&chunks), Err(Error::ReadOnly { .. })));
        let repeated = [chunks[0].id(), chunks[1].id(), chunks[0].id()];
        assert!(store.get_many(&repeated).into_iter().all(|chunk| chunk.is_ok()));
    }

    #[test]
    fn a_remote_index_is_read() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a.caibx");
        let mut index = Vec::new();
        let sizes = cairn_formats::ChunkSizes::new(16 << 10, 64 << 10, 256 << 10).unwrap();
        let flags = cairn_formats::FeatureFlags::blob(cairn_formats::DigestAlgorithm::default());
        cairn_formats::IndexEncoder::start(flags, sizes, &mut index).finish(&mut index);
        std::fs::write(&path, &index).unwrap();
        let location = at(&path);
        let options = local_ssh(folder.path(), "shift\nexec sh -c \"$*\"");
        let pulled = pull_index(&location, &options, 1 << 20, folder.path()).unwrap();
        assert_eq!(pulled, index);
        let error = pull_index(&location, &options, 50, folder.path()).unwrap_err();
        assert_eq!(error.to_string(), "the index is longer than 50 bytes");
    }

    fn why(script: &str, timeout: Duration) -> String {
        let folder = tempfile::tempdir().unwrap();
        let options = SshOptions {
            timeout: Some(timeout),
            ..local_ssh(folder.path(), script)
        };
        let error = open(folder.path(), options)
            .get(ChunkId::from_bytes([1; 32]))
            .unwrap_err();
        std::error::Error::source(&error).unwrap().to_string()
    }

    #[test]
    fn remote_ends_that_fail_say_why() {
        let long = Duration::from_secs(60);
        // One that has left before it is greeted is told like one that leaves after: the write meets a closed pipe, or does not.
        for script in ["exec <&-; printf 'abc'", "head -c 24 >/dev/null; printf 'abc'"] {
            let why = why(script, long);
            assert!(
                why.starts_with("the other end has left in the middle of a frame"),
                "{why}"
            );
        }
        assert_eq!(
            why("head -c 24 >/dev/null; echo 'host key has changed' >&2; exit 255", long),
            "the other end has left; ssh said: host key has changed"
        );
        assert!(
            why("head -c 100 /dev/zero", long).starts_with("bad frame of the casync protocol at byte 0"),
            "garbage"
        );
        assert!(
            why("printf 'abc'", long).starts_with("the other end has left in the middle of a frame"),
            "cut"
        );
        assert!(
            why("exec 3>&1; exec cat >/dev/null", Duration::from_millis(10)).starts_with("the other end is silent"),
            "silence"
        );
    }
}
