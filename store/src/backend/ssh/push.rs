//! An index, and the chunks that it names, pushed to a casync (or `cairn push`) at the other end of an SSH connection.
//!
//! Starts `ssh HOST casync push - - INDEX STORE`, sends the index, and answers for chunks while the other end asks. The protocol
//! has a chunk stored only when an index names it, and the index comes first: so the chunks of a run wait, encoded, in a file
//! without a name until the index is whole. Then only those that the other end lacks are sent.
//!
//! Invariants: one thread moves both directions and waits for whichever is ready, so neither end can lock the other; a push has
//! succeeded when the other end said goodbye *and* ended well, for casync names the index after its goodbye; a try after one
//! that was cut begins anew and sends what is still lacking.

use std::collections::{HashMap, VecDeque};
use std::fs::File;
use std::io::{ErrorKind, Write as _};
use std::os::unix::fs::FileExt as _;
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};

use bytes::Bytes;
use cairn_formats::{
    ChunkForm, ChunkId, EncodedChunk, Frame, HelloFlags, PROTOCOL_FRAME_LEN_MAX, StorableChunk, push_chunk_head,
};
use rustix::event::{PollFd, PollFlags, poll};

use super::{Session, SshOptions, retried, shell_quoted, unexpected};
use crate::file::nameless_file;
use crate::location::SshLocation;
use crate::{BoxError, ChunkStore, Error, Result, StoreName};

/// Bytes of the index in one frame.
const INDEX_PIECE_LEN: usize = 64 << 10;
/// Bytes gathered before the other end has taken them; a chunk may come on top.
const PENDING_LEN: usize = 256 << 10;
/// Bytes written at once: what a bandwidth limit and the time limit go by.
const WRITE_LEN: usize = 64 << 10;
/// Longest chunk that fits in a frame with its head.
const CHUNK_LEN_MAX: usize = PROTOCOL_FRAME_LEN_MAX as usize - 64;
/// How often the other end may ask for each chunk on average. casync asks once; this only keeps what it asks for bounded.
const ASKED_TIMES_MAX: usize = 4;
/// Where the chunks of a run wait.
const SPOOL_FOLDER: &str = "/var/tmp";

/// Takes the chunks of a run, then pushes them with their index.
#[derive(Debug)]
pub struct SshPush {
    name: StoreName,
    index: SshLocation,
    store: String,
    options: SshOptions,
    spool: Spool,
}

/// What went over the connection that succeeded.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SshPushed {
    /// Chunks that the other end lacked.
    pub chunks: u64,
    /// Their bytes as sent.
    pub bytes: u64,
}

impl SshPush {
    /// Prepares a push; nothing is started yet.
    ///
    /// Errors: [`Error::Refused`] when store and index are not on the same host: one far end writes both.
    pub fn open(index: &SshLocation, store: &SshLocation, options: SshOptions) -> Result<Self> {
        let name = StoreName::new(store.to_string());
        if (index.destination(), index.port()) != (store.destination(), store.port()) {
            return Err(Error::Refused {
                store: name,
                action: "take chunks",
                source: format!("{index} is on another host, and over SSH one far end writes chunks and index").into(),
            });
        }
        let spool = Spool::new(SPOOL_FOLDER.as_ref()).map_err(|source| Error::Unavailable {
            store: name.clone(),
            action: "keep chunks until they are pushed",
            source,
        })?;
        Ok(Self {
            name,
            index: index.clone(),
            store: store.path().to_owned(),
            options,
            spool,
        })
    }

    /// Pushes the index and those of its chunks that the other end lacks. When this returns well, the other end has said that
    /// it keeps them.
    pub fn finish(&self, index: &Bytes) -> Result<SshPushed> {
        let name = StoreName::new(self.index.to_string());
        retried(&self.options, &name, "take the index and its chunks", || {
            push(&self.index, &self.store, &self.options, index, Some(&self.spool))
        })
    }

    fn unavailable(&self, action: &'static str, source: std::io::Error) -> Error {
        Error::Unavailable {
            store: self.name.clone(),
            action,
            source: format!("{SPOOL_FOLDER}: {source}").into(),
        }
    }
}

/// The chunks of this run; what the far end has is known only to it, and asked of nobody.
#[deny(clippy::missing_trait_methods)]
impl ChunkStore for SshPush {
    fn name(&self) -> &StoreName {
        &self.name
    }

    fn has_many(&self, ids: &[ChunkId]) -> Result<Vec<bool>> {
        Ok(ids.iter().map(|&id| self.spool.place(id).is_some()).collect())
    }

    fn get_many(&self, ids: &[ChunkId]) -> Vec<Result<EncodedChunk>> {
        let read = |&id: &ChunkId| {
            let place = self.spool.place(id).ok_or_else(|| Error::Missing {
                id,
                store: self.name.clone(),
            })?;
            let mut bytes = vec![0; place.len as usize];
            let read = self.spool.file.read_exact_at(&mut bytes, place.offset);
            read.map_err(|error| self.unavailable("read a chunk that is to be pushed", error))?;
            Ok(EncodedChunk {
                id,
                form: place.form,
                bytes: bytes.into(),
            })
        };
        ids.iter().map(read).collect()
    }

    fn put_many(&self, chunks: &[StorableChunk]) -> Result<()> {
        for chunk in chunks {
            if chunk.bytes().len() > CHUNK_LEN_MAX {
                return Err(Error::Refused {
                    store: self.name.clone(),
                    action: "take a chunk",
                    source: format!(
                        "chunk {} has {} bytes, and a frame of casync's protocol {PROTOCOL_FRAME_LEN_MAX} at most",
                        chunk.id(),
                        chunk.bytes().len()
                    )
                    .into(),
                });
            }
            self.spool
                .put(chunk)
                .map_err(|error| self.unavailable("keep chunks until they are pushed", error))?;
        }
        Ok(())
    }

    fn flush(&self) -> Result<()> {
        Ok(())
    }

    fn stat(&self, id: ChunkId, _form: ChunkForm) -> Result<Option<crate::ChunkStat>> {
        Ok(self.spool.place(id).map(|place| crate::ChunkStat {
            stored: Some((place.form, u64::from(place.len))),
        }))
    }

    fn get_resident(&self, _id: ChunkId, _form: ChunkForm) -> Option<EncodedChunk> {
        None
    }

    fn is_far(&self) -> bool {
        true
    }

    fn set_aside(&self, _damaged: &EncodedChunk) -> Result<bool> {
        Ok(false)
    }
}

/// Encoded chunks one after the other in a file without a name.
#[derive(Debug)]
pub(super) struct Spool {
    file: File,
    end: AtomicU64,
    places: Mutex<HashMap<ChunkId, Place>>,
}

#[derive(Clone, Copy, Debug)]
struct Place {
    offset: u64,
    len: u32,
    form: ChunkForm,
}

impl Spool {
    fn new(folder: &Path) -> std::result::Result<Self, BoxError> {
        let file = nameless_file(folder).map_err(|error| format!("{}: {error}", folder.display()))?;
        Ok(Self {
            file,
            end: AtomicU64::new(0),
            places: Mutex::default(),
        })
    }

    fn place(&self, id: ChunkId) -> Option<Place> {
        let places = self.places.lock().unwrap_or_else(PoisonError::into_inner);
        places.get(&id).copied()
    }

    fn put(&self, chunk: &StorableChunk) -> std::io::Result<()> {
        let bytes = chunk.bytes();
        let offset = self.end.fetch_add(bytes.len() as u64, Ordering::Relaxed);
        self.file.write_all_at(bytes, offset)?;
        let place = Place {
            offset,
            len: bytes.len() as u32,
            form: chunk.form(),
        };
        let mut places = self.places.lock().unwrap_or_else(PoisonError::into_inner);
        places.insert(chunk.id(), place);
        Ok(())
    }
}

/// Pushes an index alone, for chunks that are elsewhere.
pub(crate) fn push_index(
    location: &SshLocation,
    options: &SshOptions,
    index: &Bytes,
) -> std::result::Result<(), BoxError> {
    // casync waits for ever without a store; it looks into none that it is not asked to fill. This is casync's own default.
    let folder = location.path().rsplit_once('/').map_or("", |(folder, _)| folder);
    push(location, &format!("{folder}/default.castr"), options, index, None).map(drop)
}

fn push(
    location: &SshLocation,
    store: &str,
    options: &SshOptions,
    index: &Bytes,
    spool: Option<&Spool>,
) -> std::result::Result<SshPushed, BoxError> {
    let command = format!("push - - {} {}", shell_quoted(location.path()), shell_quoted(store));
    let mut want = HelloFlags::PUSH_INDEX;
    if spool.is_some() {
        want |= HelloFlags::PUSH_CHUNKS | HelloFlags::PUSH_INDEX_CHUNKS;
    }
    let mut session = Session::start(location, options, &command, want)?;
    let mut push = Push {
        options,
        index,
        index_end: false,
        spool,
        asked: 0,
        queue: VecDeque::new(),
        pending: Vec::new(),
        written: 0,
        pushed: SshPushed::default(),
    };
    let pushed = push.run(&mut session).and_then(|()| session.finish());
    pushed.map_err(|error| session.explained(error))?;
    Ok(push.pushed)
}

/// The state of one session.
struct Push<'a> {
    options: &'a SshOptions,
    index: &'a [u8],
    /// Whether the end of the index was sent.
    index_end: bool,
    spool: Option<&'a Spool>,
    /// Ids asked for so far.
    asked: usize,
    queue: VecDeque<(ChunkId, Place)>,
    pending: Vec<u8>,
    /// How much of `pending` is on its way.
    written: usize,
    pushed: SshPushed,
}

impl Push<'_> {
    /// Sends and answers until the other end says goodbye.
    fn run(&mut self, session: &mut Session) -> std::result::Result<(), BoxError> {
        if let Some(input) = &session.input {
            rustix::io::ioctl_fionbio(input, true)?;
        }
        let index_len = self.index.len();
        loop {
            while let Some(frame) = session.decoder.next()? {
                match frame {
                    Frame::Request { ids, .. } => self.take_request(ids, index_len)?,
                    Frame::Goodbye if self.is_all_sent() => return Ok(()),
                    frame => return Err(unexpected(&frame)),
                }
            }
            self.fill()?;
            let limit = session.limit()?;
            // An end that no longer listens may still say why.
            let writer = session.input.as_ref().filter(|_| self.written < self.pending.len());
            let mut events = vec![PollFd::new(&session.output, PollFlags::IN)];
            events.extend(writer.map(|input| PollFd::new(input, PollFlags::OUT)));
            match poll(&mut events, limit.as_ref()) {
                Ok(0) => return Err(session.silence()),
                Err(rustix::io::Errno::INTR) => continue,
                other => other?,
            };
            let ready: Vec<bool> = events.iter().map(|event| !event.revents().is_empty()).collect();
            if ready.get(1) == Some(&true) {
                self.write(session)?;
            }
            if ready[0] {
                session.read()?;
            }
        }
    }

    fn is_all_sent(&self) -> bool {
        self.index_end && self.queue.is_empty() && self.written == self.pending.len()
    }

    fn take_request(&mut self, ids: Vec<ChunkId>, index_len: usize) -> std::result::Result<(), BoxError> {
        let Some(spool) = self.spool else {
            return Err("the other end asks for chunks, and was offered only an index".into());
        };
        self.asked += ids.len();
        // 40 bytes a chunk in an index.
        if self.asked > index_len / 40 * ASKED_TIMES_MAX {
            return Err("the other end asks for the same chunks again and again".into());
        }
        for id in ids {
            let place = spool.place(id);
            let place =
                place.ok_or_else(|| format!("the other end asks for chunk {id}, which is not of this index"))?;
            self.queue.push_back((id, place));
        }
        Ok(())
    }

    /// Tops up what is to be written: the index, then the chunks asked for.
    fn fill(&mut self) -> std::result::Result<(), BoxError> {
        if self.written == self.pending.len() {
            self.pending.clear();
            self.written = 0;
        }
        while self.pending.len() < PENDING_LEN {
            if !self.index_end {
                let (piece, rest) = self.index.split_at(self.index.len().min(INDEX_PIECE_LEN));
                self.index = rest;
                if piece.is_empty() {
                    Frame::IndexEof.push(&mut self.pending);
                    self.index_end = true;
                } else {
                    Frame::Index(Bytes::copy_from_slice(piece)).push(&mut self.pending);
                }
                continue;
            }
            let (Some(spool), Some((id, place))) = (self.spool, self.queue.pop_front()) else {
                return Ok(());
            };
            let len = place.len as usize;
            push_chunk_head(id, place.form == ChunkForm::Compressed, len, &mut self.pending);
            let start = self.pending.len();
            self.pending.resize(start + len, 0);
            let read = spool.file.read_exact_at(&mut self.pending[start..], place.offset);
            read.map_err(|error| format!("{SPOOL_FOLDER}: cannot read chunk {id} back: {error}"))?;
            self.pushed.chunks += 1;
            self.pushed.bytes += len as u64;
        }
        Ok(())
    }

    fn write(&mut self, session: &mut Session) -> std::result::Result<(), BoxError> {
        let Some(input) = &mut session.input else { return Ok(()) };
        let piece = &self.pending[self.written..];
        match input.write(&piece[..piece.len().min(WRITE_LEN)]) {
            Ok(len) => {
                self.written += len;
                if let Some(rate) = &self.options.rate_limit {
                    std::thread::sleep(rate.take(len));
                }
            }
            Err(error) if error.kind() == ErrorKind::BrokenPipe => session.input = None,
            Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::Interrupted) => {}
            Err(error) => return Err(error.into()),
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::path::PathBuf;
    use std::time::Duration;

    use cairn_formats::{ChunkSizes, DigestAlgorithm, FeatureFlags, IndexEncoder};

    use super::super::tests::{at, local_ssh};
    use super::*;
    use crate::{FlatOptions, FlatStore, contract};

    const HERE: &str = "shift\nexec sh -c \"$*\"";

    struct Fixture {
        folder: tempfile::TempDir,
        chunks: Vec<StorableChunk>,
        index: Bytes,
    }

    impl Fixture {
        fn new() -> Self {
            let chunks: Vec<_> = (0..50)
                .flat_map(|seed| contract::chunks(seed, ChunkForm::Compressed))
                .collect();
            let mut index = Vec::new();
            let sizes = ChunkSizes::new(1, 64 << 10, 256 << 10).unwrap();
            let flags = FeatureFlags::blob(DigestAlgorithm::default());
            let mut encoder = IndexEncoder::start(flags, sizes, &mut index);
            // An index may name a chunk again; and this one does not fit in a pipe.
            for _ in 0..50 {
                for chunk in &chunks {
                    encoder.push(chunk.id(), chunk.plain_len(), &mut index);
                }
            }
            encoder.finish(&mut index);
            Self {
                folder: tempfile::tempdir().unwrap(),
                chunks,
                index: index.into(),
            }
        }

        fn path(&self, name: &str) -> PathBuf {
            self.folder.path().join(name)
        }

        fn push(&self, options: SshOptions) -> Result<SshPushed> {
            let push = SshPush::open(&at(&self.path("a b.caibx")), &at(&self.path("store")), options)?;
            push.put_many(&self.chunks)?;
            assert!(contract_reads(&push, &self.chunks));
            push.finish(&self.index)
        }

        fn why(&self, script: &str, timeout: Duration) -> String {
            let options = SshOptions {
                timeout: Some(timeout),
                ..local_ssh(self.folder.path(), script)
            };
            let error = self.push(options).unwrap_err();
            assert!(!self.path("a b.caibx").exists(), "no index after: {error}");
            std::error::Error::source(&error).unwrap().to_string()
        }
    }

    fn contract_reads(store: &SshPush, chunks: &[StorableChunk]) -> bool {
        let ids: Vec<ChunkId> = chunks.iter().map(StorableChunk::id).collect();
        let got = store.get_many(&ids);
        got.iter()
            .zip(chunks)
            .all(|(got, chunk)| got.as_ref().is_ok_and(|got| got.bytes == chunk.bytes()))
    }

    /// The real casync at the other end, over a pipe: the second push sends nothing.
    #[test]
    fn a_remote_casync_takes_what_it_lacks() {
        let far = Fixture::new();
        let pushed = far.push(local_ssh(far.folder.path(), HERE)).unwrap();
        assert_eq!(pushed.chunks, 200);
        assert_eq!(std::fs::read(far.path("a b.caibx")).unwrap(), far.index);
        let store = FlatStore::open(&far.path("store"), FlatOptions::default()).unwrap();
        contract::reads_are_right(&store, &far.chunks);
        let again = far.push(local_ssh(far.folder.path(), HERE)).unwrap();
        assert_eq!(again, SshPushed::default());
    }

    #[test]
    fn an_index_goes_alone_and_no_store_is_made() {
        let far = Fixture::new();
        let options = local_ssh(far.folder.path(), HERE);
        push_index(&at(&far.path("b.caibx")), &options, &far.index).unwrap();
        assert_eq!(std::fs::read(far.path("b.caibx")).unwrap(), far.index);
        assert!(!far.path("default.castr").exists());
    }

    #[test]
    fn a_push_that_is_not_taken_is_an_error() {
        let far = Fixture::new();
        let long = Duration::from_secs(60);
        let cut = far.why("shift\nhead -c 1000000 | sh -c \"$*\"", long);
        assert!(cut.starts_with("the other end has left"), "{cut}");
        let hello = r"printf '\030\0\0\0\0\0\0\0\356\373\245\214\224\320q<\012\0\0\0\0\0\0\0'";
        let goodbye = r"printf '\020\0\0\0\0\0\0\0\303\206\066\032\277\135 \255'";
        let early = far.why(&format!("{hello}; {goodbye}; exec cat >/dev/null"), long);
        assert_eq!(early, "the other end says goodbye early");
        let silent = far.why(
            &format!("{hello}; exec 3>&1; exec cat >/dev/null"),
            Duration::from_millis(20),
        );
        assert!(silent.starts_with("the other end is silent"), "{silent}");
        // It keeps nothing and says goodbye: how it ends is what tells.
        let len = far.index.len() + far.index.len().div_ceil(INDEX_PIECE_LEN) * 16 + 24 + 16;
        let failed = far.why(
            &format!("{hello}; head -c {len} >/dev/null; {goodbye}; echo 'disk full' >&2; exit 1"),
            long,
        );
        assert!(
            failed.starts_with("the other end said goodbye, then failed"),
            "{failed}"
        );
        assert!(failed.ends_with("ssh said: disk full"), "{failed}");
    }

    #[test]
    fn one_far_end_writes_both() {
        let options = SshOptions::default();
        let other = crate::Location::parse("ssh://elsewhere/store").unwrap();
        let crate::Location::Ssh(other) = other else {
            panic!("an ssh location")
        };
        let error = SshPush::open(&at(Path::new("/a.caibx")), &other, options).unwrap_err();
        assert!(matches!(error, Error::Refused { .. }), "{error:?}");
    }
}
