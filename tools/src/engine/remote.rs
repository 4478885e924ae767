//! The far end of casync's protocol: what `ssh HOST cairn pull …` and `push …` run, spoken over standard input and output.
//!
//! pull gives the chunks, the index and the archive that are asked for; push takes an index, asks for the chunks that the stores
//! lack, many at a time, and says goodbye when all of it is durable. Several ids a request are answered in order, repeated ones
//! each time.
//!
//! Invariants: a chunk that was pushed is stored only after its digest was checked, and the index gets its name after its chunks
//! are durable; memory is one batch; the end of the input ends the session wherever it is; nothing is waited for twice.

use std::collections::{HashMap, HashSet};
use std::fs::File;
use std::io::{Read as _, Write as _};
use std::os::fd::{AsFd, BorrowedFd};
use std::path::Path;

use bytes::Bytes;
use cairn_formats::{
    CHUNK_LEN_MAX, ChunkForm, ChunkId, ChunkIndex, EncodedChunk, Frame, FrameDecoder, HelloFlags, Level,
    PROTOCOL_FRAME_LEN_MAX, compress_frame, push_chunk_head,
};
use cairn_store::{ChunkStore, RateLimit};
use rustix::event::{PollFd, PollFlags, poll};
use rustix::io::Errno;

use super::error::file;
use super::{Error, Progress, Result};

/// Chunks looked up together: their frames are in memory at once.
const BATCH_CHUNKS: usize = 16;
/// Ids of one request. The answer to one is on its way while the next is written.
const REQUEST_IDS: usize = 256;
/// Ids asked for and not answered. Their REQUESTs fit in a pipe, so writing them never waits for a side that waits for us.
const OUTSTANDING_IDS_MAX: usize = 1024;
/// Ids remembered as asked for, because a store shows its chunks when it is flushed. With more, it is flushed in between.
const ASKED_IDS_MAX: usize = 1 << 16;
/// Bytes read at once, and of the pieces of an index or archive.
const PIECE_LEN: usize = 64 << 10;
/// Bytes gathered before they are written.
const OUTPUT_LEN: usize = 256 << 10;
/// Longest index that is taken: it is kept in memory.
const INDEX_LEN_MAX: usize = 1 << 30;
/// Bytes that tell a chunk index from other files.
const INDEX_HEAD_LEN: usize = 16;
/// `EIO`, for an ABORT.
const ABORT_CODE: u64 = 5;

/// Both directions of a session.
pub(crate) struct Wire<'a> {
    input: BorrowedFd<'a>,
    output: BorrowedFd<'a>,
    decoder: FrameDecoder,
    pending: Vec<u8>,
    rate: Option<&'a RateLimit>,
    progress: &'a Progress,
}

/// What a session of [`push`] brought.
#[derive(Debug, Default)]
pub(crate) struct Pushed {
    /// The index, whose chunks are durable.
    pub(crate) index: Option<Bytes>,
    /// Whether an archive came, whole.
    pub(crate) archive: bool,
}

impl<'a> Wire<'a> {
    pub(crate) fn new(
        input: BorrowedFd<'a>,
        output: BorrowedFd<'a>,
        rate: Option<&'a RateLimit>,
        progress: &'a Progress,
    ) -> Self {
        Self {
            input,
            output,
            decoder: FrameDecoder::new(),
            pending: Vec::new(),
            rate,
            progress,
        }
    }

    /// Says hello and hears it. Errors: the other side wants what is not offered.
    fn greet(&mut self, offer: u64) -> Result<Option<HelloFlags>> {
        let ours = HelloFlags(offer);
        self.send(&Frame::Hello(ours))?;
        match self.receive()? {
            None => Ok(None),
            Some(Frame::Hello(theirs)) if theirs.wants_are_met_by(ours) => Ok(Some(theirs)),
            Some(Frame::Hello(theirs)) => Err(refused(format!("it wants what is not offered (flags {:#x})", theirs.0))),
            Some(frame) => Err(unexpected(&frame)),
        }
    }

    fn send(&mut self, frame: &Frame) -> Result<()> {
        frame.push(&mut self.pending);
        if self.pending.len() >= OUTPUT_LEN {
            self.flush()?;
        }
        Ok(())
    }

    fn send_chunk(&mut self, chunk: &EncodedChunk) -> Result<()> {
        let compressed = chunk.form == ChunkForm::Compressed;
        push_chunk_head(chunk.id, compressed, chunk.bytes.len(), &mut self.pending);
        self.pending.extend_from_slice(&chunk.bytes);
        if self.pending.len() >= OUTPUT_LEN {
            self.flush()?;
        }
        Ok(())
    }

    fn flush(&mut self) -> Result<()> {
        if let Some(rate) = self.rate {
            std::thread::sleep(rate.take(self.pending.len()));
        }
        let mut rest = self.pending.as_slice();
        while !rest.is_empty() {
            match rustix::io::write(self.output, rest) {
                Ok(len) => rest = &rest[len..],
                Err(Errno::INTR) => self.progress.check()?,
                // Pipes of casync's do not block.
                Err(Errno::AGAIN) => wait(self.output, PollFlags::OUT, self.progress)?,
                Err(error) => return Err(wire("write to the other end")(error.into())),
            }
        }
        self.pending.clear();
        Ok(())
    }

    /// The next frame; `None` at an end between two frames. What was sent is on its way before anything is waited for.
    fn receive(&mut self) -> Result<Option<Frame>> {
        loop {
            let frame = self.decoder.next();
            if let Some(frame) = frame.map_err(|error| refused(error.to_string()))? {
                return Ok(Some(frame));
            }
            self.flush()?;
            let mut buffer = vec![0; PIECE_LEN];
            match rustix::io::read(self.input, &mut buffer) {
                Ok(0) if self.decoder.is_between_frames() => return Ok(None),
                Ok(0) => return Err(refused("it was cut off in the middle of a frame".to_owned())),
                Ok(len) => {
                    self.decoder.push(Bytes::from(buffer).slice(..len));
                    if let Some(rate) = self.rate {
                        std::thread::sleep(rate.take(len));
                    }
                }
                Err(Errno::INTR) => self.progress.check()?,
                Err(Errno::AGAIN) => wait(self.input, PollFlags::IN, self.progress)?,
                Err(error) => return Err(wire("read from the other end")(error.into())),
            }
        }
    }

    /// Tells the other side that all it sent is kept.
    pub(crate) fn goodbye(&mut self) -> Result<()> {
        self.send(&Frame::Goodbye)?;
        self.flush()
    }

    /// Tells the other side why this one gives up; it may be gone already.
    pub(crate) fn abort(&mut self, reason: &str) {
        let reason = reason.replace('\0', " ");
        Frame::Abort {
            code: ABORT_CODE,
            reason,
        }
        .push(&mut self.pending);
        let _ = self.flush();
    }
}

/// Gives what is asked for until the other side has enough.
///
/// - `index`, `archive`: files to be pulled whole, where they were named.
/// - Errors: the other side breaks the protocol, or something cannot be read; tell it with [`Wire::abort`].
pub(crate) fn pull(
    wire: &mut Wire<'_>,
    store: Option<&dyn ChunkStore>,
    index: Option<&Path>,
    archive: Option<&Path>,
) -> Result<()> {
    let mut offer = 0;
    for (given, flag) in [
        (store.is_some(), HelloFlags::READABLE_STORE),
        (index.is_some(), HelloFlags::READABLE_INDEX),
        (archive.is_some(), HelloFlags::READABLE_ARCHIVE),
    ] {
        offer |= if given { flag } else { 0 };
    }
    let Some(wants) = wire.greet(offer)? else {
        return Ok(());
    };
    if let (Some(path), true) = (index, wants.has(HelloFlags::PULL_INDEX)) {
        check_is_index(path)?;
        send_file(wire, path, Frame::Index)?;
        wire.send(&Frame::IndexEof)?;
    }
    if let (Some(path), true) = (archive, wants.has(HelloFlags::PULL_ARCHIVE)) {
        send_file(wire, path, Frame::Archive)?;
        wire.send(&Frame::ArchiveEof)?;
    }
    loop {
        match (wire.receive()?, store) {
            (None | Some(Frame::Goodbye), _) => return wire.flush(),
            (Some(Frame::Request { ids, .. }), Some(store)) => answer(wire, store, &ids)?,
            (Some(frame), _) => return Err(unexpected(&frame)),
        }
    }
}

/// Refuses a file that does not begin as a chunk index does; the other side checks the rest as it reads it.
fn check_is_index(path: &Path) -> Result<()> {
    let mut head = Vec::with_capacity(INDEX_HEAD_LEN);
    let opened = File::open(path).map_err(file(path, "open"))?;
    let read = opened.take(INDEX_HEAD_LEN as u64).read_to_end(&mut head);
    read.map_err(file(path, "read"))?;
    match <&[u8; INDEX_HEAD_LEN]>::try_from(&head[..]) {
        Ok(head) if ChunkIndex::starts_one(head) => Ok(()),
        _ => Err(refused(format!("{} is not a chunk index", path.display()))),
    }
}

fn send_file(wire: &mut Wire<'_>, path: &Path, frame: fn(Bytes) -> Frame) -> Result<()> {
    let mut opened = File::open(path).map_err(file(path, "open"))?;
    loop {
        let mut piece = vec![0; PIECE_LEN];
        let len = opened.read(&mut piece).map_err(file(path, "read"))?;
        if len == 0 {
            return Ok(());
        }
        wire.send(&frame(Bytes::from(piece).slice(..len)))?;
    }
}

/// One answer an id, in order.
fn answer(wire: &mut Wire<'_>, store: &dyn ChunkStore, ids: &[ChunkId]) -> Result<()> {
    for few in ids.chunks(BATCH_CHUNKS) {
        for (got, &id) in store.get_many(few).into_iter().zip(few) {
            match got.map(compressed) {
                Ok(chunk) if fits(&chunk) => wire.send_chunk(&chunk)?,
                Ok(chunk) => {
                    let words = format!("chunk {id} is too long for the protocol: {} bytes", chunk.bytes.len());
                    return Err(refused(words));
                }
                Err(cairn_store::Error::Missing { .. }) => wire.send(&Frame::Missing(id))?,
                Err(error) => return Err(error.into()),
            }
        }
    }
    Ok(())
}

/// As every client reads it: desync takes the data for a zstd frame whatever the flag says, and casync sends nothing else.
fn compressed(chunk: EncodedChunk) -> EncodedChunk {
    match chunk.form {
        ChunkForm::Compressed => chunk,
        ChunkForm::Plain => EncodedChunk {
            id: chunk.id,
            form: ChunkForm::Compressed,
            bytes: compress_frame(&chunk.bytes, Level::DEFAULT).into(),
        },
    }
}

fn fits(chunk: &EncodedChunk) -> bool {
    // A little less than the limit leaves room for the frame's head.
    chunk.bytes.len() as u64 <= PROTOCOL_FRAME_LEN_MAX - 64
}

/// What the far end of a push can take.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Offer {
    /// Chunks, into a store.
    pub(crate) store: bool,
    /// An index.
    pub(crate) index: bool,
    /// An archive.
    pub(crate) archive: bool,
}

/// Where pushed chunks go.
pub(crate) struct Target<'a> {
    /// The store that is written.
    pub(crate) store: &'a dyn ChunkStore,
    /// Stores whose chunks need not be sent, read only.
    pub(crate) others: Option<&'a dyn ChunkStore>,
}

/// Greets who pushes; returns what it wants, which is offered.
pub(crate) fn greet_push(wire: &mut Wire<'_>, offer: Offer) -> Result<HelloFlags> {
    let flags = [
        (offer.store, HelloFlags::WRITABLE_STORE),
        (offer.index, HelloFlags::WRITABLE_INDEX),
        (offer.archive, HelloFlags::WRITABLE_ARCHIVE),
    ];
    let offered = flags.into_iter().filter(|(given, _)| *given);
    let wants = wire.greet(offered.fold(0, |bits, (_, flag)| bits | flag))?;
    wants.ok_or_else(|| refused("it left before it said hello".to_owned()))
}

/// Takes what the other side said that it pushes: an archive; an index and the chunks that are lacking of it, which are durable
/// when this returns.
///
/// The caller keeps what came, then says [`Wire::goodbye`].
///
/// - `wants`: from [`greet_push`]; `target`: for the chunks; `archive`: where an archive's bytes go.
/// - Errors: as [`pull`]; a chunk that is not what its name says, a chunk that the other side does not have.
pub(crate) fn push(
    wire: &mut Wire<'_>,
    wants: HelloFlags,
    target: Option<&Target<'_>>,
    archive: Option<&mut File>,
) -> Result<Pushed> {
    let mut pushed = Pushed::default();
    if let (Some(archive), true) = (archive, wants.has(HelloFlags::PUSH_ARCHIVE)) {
        take_archive(wire, archive)?;
        pushed.archive = true;
    }
    if wants.has(HelloFlags::PUSH_INDEX) {
        let bytes = take_index(wire)?;
        let index = ChunkIndex::parse(bytes.clone()).map_err(|error| refused(format!("the index pushed: {error}")))?;
        if let (Some(target), true) = (target, wants.has(HelloFlags::PUSH_INDEX_CHUNKS)) {
            take_chunks(wire, &index, target)?;
        }
        pushed.index = Some(bytes);
    }
    Ok(pushed)
}

fn take_archive(wire: &mut Wire<'_>, archive: &mut File) -> Result<()> {
    loop {
        match wire.receive()? {
            Some(Frame::Archive(bytes)) => archive
                .write_all(&bytes)
                .map_err(file(Path::new("the archive"), "write"))?,
            Some(Frame::ArchiveEof) => return Ok(()),
            None => return Err(refused("it left in the middle of the archive".to_owned())),
            Some(frame) => return Err(unexpected(&frame)),
        }
    }
}

fn take_index(wire: &mut Wire<'_>) -> Result<Bytes> {
    let mut index = Vec::new();
    loop {
        match wire.receive()? {
            Some(Frame::Index(bytes)) if index.len() + bytes.len() <= INDEX_LEN_MAX => index.extend_from_slice(&bytes),
            Some(Frame::Index(_)) => return Err(refused(format!("its index is longer than {INDEX_LEN_MAX} bytes"))),
            Some(Frame::IndexEof) => return Ok(index.into()),
            None => return Err(refused("it left in the middle of the index".to_owned())),
            Some(frame) => return Err(unexpected(&frame)),
        }
    }
}

/// Asks for the chunks that are not there, checks and stores them; durable when this returns.
fn take_chunks(wire: &mut Wire<'_>, index: &ChunkIndex, target: &Target<'_>) -> Result<()> {
    let mut spans = index.spans().peekable();
    let mut asked: HashSet<ChunkId> = HashSet::new();
    let mut outstanding: HashMap<ChunkId, u64> = HashMap::new();
    let mut batch = Vec::with_capacity(BATCH_CHUNKS);
    loop {
        while spans.peek().is_some()
            && outstanding.len() + REQUEST_IDS <= OUTSTANDING_IDS_MAX
            && asked.len() < ASKED_IDS_MAX
        {
            let window = spans.by_ref().take(REQUEST_IDS);
            let window = window.filter(|span| asked.insert(span.id));
            let window: Vec<(ChunkId, u64)> = window
                .map(|span| (span.id, span.range.end - span.range.start))
                .collect();
            let wanted = lacking(target, window)?;
            let ids: Vec<ChunkId> = wanted.iter().map(|(id, _)| *id).collect();
            outstanding.extend(wanted);
            if !ids.is_empty() {
                wire.send(&Frame::Request {
                    high_priority: false,
                    ids,
                })?;
            }
        }
        if outstanding.is_empty() {
            target.store.put_many(&std::mem::take(&mut batch))?;
            target.store.flush()?;
            asked.clear();
            if spans.peek().is_none() {
                return Ok(());
            }
            continue;
        }
        let chunk = receive_chunk(wire)?;
        let id = chunk.id;
        let Some(len) = outstanding.remove(&id) else {
            return Err(refused(format!("it sends chunk {id}, which was not asked for")));
        };
        let limit = usize::try_from(len).unwrap_or(usize::MAX).min(CHUNK_LEN_MAX);
        let proven = chunk.verify(index.digest_algorithm(), limit);
        let proven = proven.map_err(|error| refused(format!("a chunk pushed: {error}")))?;
        if proven.plain_len() as u64 != len {
            return Err(lying_index(id, len, proven.plain_len()));
        }
        batch.push(proven);
        if batch.len() == BATCH_CHUNKS {
            target.store.put_many(&batch)?;
            batch.clear();
        }
    }
}

/// Those of the chunks that no store has.
fn lacking(target: &Target<'_>, chunks: Vec<(ChunkId, u64)>) -> Result<Vec<(ChunkId, u64)>> {
    let mut chunks = chunks;
    for store in [Some(target.store), target.others].into_iter().flatten() {
        let ids: Vec<ChunkId> = chunks.iter().map(|(id, _)| *id).collect();
        let mut has = store.has_many(&ids)?.into_iter();
        chunks.retain(|_| !has.next().unwrap_or(false));
    }
    Ok(chunks)
}

fn receive_chunk(wire: &mut Wire<'_>) -> Result<EncodedChunk> {
    match wire.receive()? {
        Some(Frame::Chunk { id, compressed, data }) => Ok(EncodedChunk {
            id,
            form: if compressed {
                ChunkForm::Compressed
            } else {
                ChunkForm::Plain
            },
            bytes: data,
        }),
        Some(Frame::Missing(id)) => Err(refused(format!("it does not have chunk {id} of its own index"))),
        None => Err(refused("it left before it sent all chunks of its index".to_owned())),
        Some(frame) => Err(unexpected(&frame)),
    }
}

fn lying_index(id: ChunkId, said: u64, found: usize) -> Error {
    refused(format!("its index says {said} bytes for chunk {id}, which has {found}"))
}

fn wait(fd: BorrowedFd<'_>, flags: PollFlags, progress: &Progress) -> Result<()> {
    match poll(&mut [PollFd::new(&fd.as_fd(), flags)], None) {
        Ok(_) | Err(Errno::INTR) => Ok(progress.check()?),
        Err(error) => Err(wire("wait for the other end")(error.into())),
    }
}

fn unexpected(frame: &Frame) -> Error {
    refused(match frame {
        Frame::Abort { code, reason } => format!("it gives up: {reason} (code {code})"),
        Frame::Goodbye => "it says goodbye early".to_owned(),
        _ => "it sends a frame that has no place here".to_owned(),
    })
}

fn wire(action: &'static str) -> impl FnOnce(std::io::Error) -> Error {
    move |error| refused(format!("cannot {action}: {error}"))
}

fn refused(why: String) -> Error {
    Error::Remote(why)
}
