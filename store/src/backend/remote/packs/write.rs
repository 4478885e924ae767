//! Writing: chunks gather in a pack in memory, which is sealed when it is full or flushed, and only then sent.
//!
//! Whoever fills a pack sends one; two are on their way at a time, and who would make a fourth waits. A pack that could not be
//! sent stays, and is sent again by the next put or flush: what was put is lost with the process alone. Those who flush together
//! share a pack. Invariant: a place is published once its pack is there, whole and durable.

use std::collections::{HashSet, VecDeque};
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::SystemTime;

use bytes::Bytes;
use cairn_formats::{
    ChunkForm, ChunkId, DigestAlgorithm, DomainId, PACK_TAIL_LEN, PackEntry, PackFooter, PackHeader, PackUuid,
    RECORD_PREFIX_LEN_MAX, RecordHead, RecordKind, StorableChunk, payload_crc, raw_frame,
};

use super::RemotePackStore;
use super::files::PackFiles;
use super::names::pack_name;
use crate::backend::remote::Fault;
use crate::{Error, Result};

/// Packs on their way at once.
const SENT_TOGETHER: usize = 2;
/// Full packs in memory, those on their way too, before who puts more has to wait.
const FULL_MAX: usize = 3;
/// Bytes of a footer a chunk (`formats`, "Packs"), and of its frame's head.
const ENTRY_LEN: usize = 52;
const FOOTER_LEN: usize = 8 + PACK_TAIL_LEN;

/// A pack that grows in memory.
#[derive(Debug)]
pub(super) struct Building {
    uuid: PackUuid,
    bytes: Vec<u8>,
    entries: Vec<PackEntry>,
}

/// A pack ready to be sent.
#[derive(Clone, Debug)]
pub(super) struct Sealed {
    uuid: PackUuid,
    name: String,
    body: Bytes,
    footer: PackFooter,
}

impl Building {
    pub(super) fn new(algorithm: DigestAlgorithm) -> std::io::Result<Self> {
        let uuid = random_uuid()?;
        let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
        let seconds = now.map_or(0, |since| u32::try_from(since.as_secs()).unwrap_or(u32::MAX));
        // Packs in a bucket have no order: their number is 0.
        let header = PackHeader::new(uuid, 0, algorithm, seconds);
        Ok(Self {
            uuid,
            bytes: header.encode().to_vec(),
            entries: Vec::new(),
        })
    }

    /// Whether so long a frame makes it longer than `pack_len`. The first one always fits.
    pub(super) fn is_full_for(&self, frame_len: usize, pack_len: u64) -> bool {
        let records = self.bytes.len() + RECORD_PREFIX_LEN_MAX + frame_len;
        let footer = FOOTER_LEN + (self.entries.len() + 1) * ENTRY_LEN;
        !self.entries.is_empty() && (records + footer) as u64 > pack_len
    }

    pub(super) fn push(&mut self, id: ChunkId, frame: &[u8], plain_len: u32) {
        let head = RecordHead {
            kind: RecordKind::Chunk,
            pinned: false,
            domain: DomainId::default(),
            synced: 0,
            id,
            len: frame.len() as u32,
            plain_len,
            crc: payload_crc(frame),
        };
        let span = head.push(&self.uuid, self.bytes.len() as u64, &mut self.bytes);
        self.bytes.extend_from_slice(frame);
        self.entries.push(head.entry(span));
    }

    pub(super) fn seal(mut self) -> Sealed {
        let root = *blake3::hash(&self.bytes).as_bytes();
        let footer = PackFooter::new(self.entries, root, self.bytes.len() as u64);
        self.bytes.extend_from_slice(&footer.encode());
        Sealed {
            uuid: self.uuid,
            name: pack_name(self.uuid, &root),
            body: self.bytes.into(),
            footer,
        }
    }
}

/// A chunk as packs have it.
pub(super) fn frame_of(chunk: &StorableChunk) -> Bytes {
    match chunk.form() {
        ChunkForm::Compressed => chunk.bytes().clone(),
        ChunkForm::Plain => Bytes::from(raw_frame(chunk.bytes())),
    }
}

/// 16 bytes that nobody can guess.
pub(super) fn random_uuid() -> std::io::Result<PackUuid> {
    let mut bytes = [0; 16];
    // Up to 256 bytes come whole.
    rustix::rand::getrandom(&mut bytes, rustix::rand::GetRandomFlags::empty())?;
    Ok(PackUuid(bytes))
}

/// What was put and is not there yet.
#[derive(Debug, Default)]
pub(super) struct Writing {
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Debug, Default)]
struct State {
    open: Option<Building>,
    /// Number of the open pack, and the next one to be begun.
    next: u64,
    full: VecDeque<(u64, Full)>,
    sent: Vec<u64>,
    /// Chunks in all of these.
    pending: HashSet<ChunkId>,
    /// Some of what was put was there already, when the losses were so many.
    relied: Option<u64>,
}

#[derive(Debug)]
enum Full {
    Built(Building),
    Sealed(Sealed),
}

impl State {
    /// Takes the open pack as full.
    fn close_open(&mut self) {
        if let Some(open) = self.open.take() {
            self.full.push_back((self.next, Full::Built(open)));
            self.next += 1;
        }
    }

    fn in_memory(&self) -> usize {
        self.full.len() + self.sent.len()
    }

    /// Whether a pack of this number or a lesser one is not there yet.
    fn has_until(&self, number: u64) -> bool {
        (self.open.is_some() && self.next <= number)
            || self.full.iter().any(|(full, _)| *full <= number)
            || self.sent.iter().any(|sent| *sent <= number)
    }
}

impl<F: PackFiles> RemotePackStore<F> {
    fn writing(&self) -> MutexGuard<'_, State> {
        self.writing.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes chunks; sends a pack if that fills one.
    pub(super) fn put(&self, chunks: &[StorableChunk]) -> Result<()> {
        self.writable()?;
        let mut filled = false;
        for chunk in chunks {
            filled |= self.put_one(chunk, &frame_of(chunk))?;
        }
        if filled {
            self.send_one()?;
        }
        Ok(())
    }

    /// Returns whether a pack is full now.
    fn put_one(&self, chunk: &StorableChunk, frame: &[u8]) -> Result<bool> {
        loop {
            let mut state = self.writing();
            if state.pending.contains(&chunk.id()) {
                return Ok(false);
            }
            let known = self.shared.known();
            if known.place(chunk.id()).is_some() {
                state.relied.get_or_insert(known.losses);
                return Ok(false);
            }
            drop(known);
            let is_full = |open: &Building| open.is_full_for(frame.len(), self.options.pack_len);
            let filled = state.open.as_ref().is_some_and(is_full);
            if filled {
                if state.in_memory() >= FULL_MAX {
                    drop(state);
                    self.send_one()?;
                    continue;
                }
                state.close_open();
            }
            if state.open.is_none() {
                state.open = Some(Building::new(self.algorithm).map_err(|error| Error::Unavailable {
                    store: self.shared.name.clone(),
                    action: "begin a pack",
                    source: error.into(),
                })?);
            }
            if let Some(open) = &mut state.open {
                open.push(chunk.id(), frame, chunk.plain_len() as u32);
                state.pending.insert(chunk.id());
            }
            return Ok(filled);
        }
    }

    /// Sends a full pack, or waits until one is sent, if there is any.
    fn send_one(&self) -> Result<()> {
        let mut state = self.writing();
        if state.sent.len() < SENT_TOGETHER
            && let Some((number, full)) = state.full.pop_front()
        {
            return self.send(state, number, full);
        }
        if !state.sent.is_empty() {
            let waited = self.writing.changed.wait(state);
            drop(waited.unwrap_or_else(PoisonError::into_inner));
        }
        Ok(())
    }

    /// Makes all that was put before durable.
    pub(super) fn settle(&self) -> Result<()> {
        let mut state = self.writing();
        let last = state.next;
        while state.has_until(last) {
            if state.sent.len() >= SENT_TOGETHER {
                state = self.writing.changed.wait(state).unwrap_or_else(PoisonError::into_inner);
                continue;
            }
            if state.full.is_empty() && state.open.is_some() && state.next <= last {
                // What others have put meanwhile goes with it.
                state.close_open();
            }
            match state.full.pop_front() {
                Some((number, full)) => {
                    self.send(state, number, full)?;
                    state = self.writing();
                }
                None => state = self.writing.changed.wait(state).unwrap_or_else(PoisonError::into_inner),
            }
        }
        let relied = state.relied.take();
        drop(state);
        match relied {
            Some(losses) => self.still_there(losses),
            None => Ok(()),
        }
    }

    /// Who was told that chunks are there, and had others delete some meanwhile, may rely on nothing.
    fn still_there(&self, losses: u64) -> Result<()> {
        if let Err(error) = self.refresh("look whether chunks are still there") {
            // To be looked at again.
            self.rely(losses);
            return Err(error);
        }
        if self.shared.known().losses == losses {
            return Ok(());
        }
        Err(Error::Unavailable {
            store: self.shared.name.clone(),
            action: "keep chunks that were there already",
            source: "others have deleted chunks meanwhile, perhaps some of these: run it again".into(),
        })
    }

    /// Somebody has been told that chunks are there.
    ///
    /// - `losses`: [`Known::losses`](super::known::Known::losses) at that time.
    pub(super) fn rely(&self, losses: u64) {
        if !self.read_only {
            self.writing().relied.get_or_insert(losses);
        }
    }

    fn send(&self, mut state: MutexGuard<'_, State>, number: u64, full: Full) -> Result<()> {
        state.sent.push(number);
        drop(state);
        let sealed = match full {
            Full::Built(building) => building.seal(),
            Full::Sealed(sealed) => sealed,
        };
        let outcome = self.upload(&sealed, "store a pack", false);
        let mut state = self.writing();
        state.sent.retain(|sent| *sent != number);
        match &outcome {
            Ok(()) => {
                for entry in &sealed.footer.entries {
                    state.pending.remove(&entry.id);
                }
            }
            Err(_) => state.full.push_front((number, Full::Sealed(sealed))),
        }
        drop(state);
        self.writing.changed.notify_all();
        outcome
    }

    /// Puts a pack and publishes what is in it.
    ///
    /// - `wins`: as in [`Known::add`](super::known::Known::add).
    pub(super) fn upload(&self, sealed: &Sealed, action: &'static str, wins: bool) -> Result<()> {
        let (shared, pack, part_len) = (self.shared.clone(), sealed.clone(), self.options.part_len);
        let sent = async move {
            let Sealed { name, body, .. } = pack;
            let created = match body.len() > part_len {
                true => {
                    let files = &shared.files;
                    files
                        .create_in_parts(&name, body.clone(), part_len, &shared.patience)
                        .await?
                }
                false => {
                    let create = || shared.files.create(&name, body.clone());
                    shared.patience.insist(create).await.map_err(Fault::from)?
                }
            };
            if created {
                return Ok(());
            }
            // An earlier try, whose answer was lost: nobody else has this name.
            let len = shared
                .patience
                .insist(|| shared.files.len(&name))
                .await
                .map_err(Fault::from)?;
            match len {
                Some(len) if len == body.len() as u64 => Ok(()),
                len => Err(Fault::Refused(
                    format!("{name} is there with another length: {len:?}").into(),
                )),
            }
        };
        let answer = self.workers.run(sent);
        answer.map_or_else(
            || Err(crate::backend::remote::lost(&self.shared.name, action)),
            |outcome| outcome.map_err(|fault| fault.into_error(&self.shared.name, action)),
        )?;
        if let Some(footers) = &self.shared.footers {
            footers.put(&sealed.name, &sealed.body[sealed.footer.start as usize..]);
        }
        let len = sealed.body.len() as u64;
        let mut known = self.shared.known_mut();
        // Unless a listing has found it first.
        if known
            .add(&sealed.name, sealed.uuid, len, &sealed.footer, true, wins)
            .is_none()
            && wins
        {
            known.prefer(sealed.uuid, &sealed.footer);
        }
        Ok(())
    }
}
