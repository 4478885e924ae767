//! Digests of whole objects, off the path of their bytes: a thread takes the next bytes of all uploads that have some together.
//!
//! MD5 is slower than all else that happens to an upload, and serial within it; across uploads it goes 8 or 16 at a time
//! ([`Md5Kernel`]). The thread begins when all uploads that go on have bytes there, or as many as there are lanes, or somebody
//! waits, without a timer: an upload alone has it to itself and loses nothing. All uploads together may be so many bytes ahead, which
//! the fast ones take: lanes are the fuller the longer nobody has to wait. Not here: which digests are wanted, what they are compared
//! with.

use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;

use bytes::Bytes;
use cairn_formats::{Checksum, ChecksumAlgorithm, ChecksumStream, Md5Kernel, Md5Stream};

use crate::names::DigestFunction;

/// Bytes of one upload that are taken in one go: lanes of one length run full, and nobody waits long.
const PIECE_LEN: usize = 128 << 10;

/// Which digests of the whole are wanted.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct DigestsWanted {
    /// MD5: the entity tag.
    pub md5: bool,
    /// Check sums, each kind once.
    pub checksums: Vec<ChecksumAlgorithm>,
}

/// Digests of all bytes.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Digested {
    /// If it was wanted.
    pub md5: Option<[u8; 16]>,
    /// In the order in which they were wanted.
    pub checksums: Vec<Checksum>,
    /// SHA-256, if it was wanted as a check sum or by the bucket.
    pub sha256: Option<[u8; 32]>,
    /// BLAKE3, if the bucket wants it.
    pub blake3: Option<[u8; 32]>,
}

impl Digested {
    /// The sum of a kind, if it was wanted.
    pub fn checksum(&self, algorithm: ChecksumAlgorithm) -> Option<&Checksum> {
        self.checksums.iter().find(|sum| sum.algorithm() == algorithm)
    }
}

/// Digests as far as they have come.
#[derive(Clone, Debug)]
pub(super) struct Sums {
    md5: Option<Md5Stream>,
    checksums: Vec<ChecksumStream>,
    /// How many of them were asked for as check sums.
    asked: usize,
    blake3: Option<Box<blake3::Hasher>>,
}

impl Sums {
    pub(super) fn new(wanted: &DigestsWanted) -> Self {
        Self::with_whole(wanted, &[])
    }

    /// - `whole`: digests that objects are found by, besides.
    pub(super) fn with_whole(wanted: &DigestsWanted, whole: &[DigestFunction]) -> Self {
        let mut kinds = wanted.checksums.clone();
        if whole.contains(&DigestFunction::Sha256) && !kinds.contains(&ChecksumAlgorithm::Sha256) {
            kinds.push(ChecksumAlgorithm::Sha256);
        }
        Self {
            md5: wanted.md5.then(Md5Stream::default),
            checksums: kinds.into_iter().map(ChecksumStream::new).collect(),
            asked: wanted.checksums.len(),
            blake3: whole.contains(&DigestFunction::Blake3).then(Box::default),
        }
    }

    fn is_empty(&self) -> bool {
        self.md5.is_none() && self.checksums.is_empty() && self.blake3.is_none()
    }

    /// Takes the next bytes, here and now.
    pub(super) fn update(&mut self, bytes: &[u8]) {
        if let Some(md5) = &mut self.md5 {
            md5.update(bytes);
        }
        self.update_others(bytes);
    }

    /// All but MD5, which goes in lanes.
    fn update_others(&mut self, bytes: &[u8]) {
        self.checksums.iter_mut().for_each(|sum| sum.update(bytes));
        if let Some(blake3) = &mut self.blake3 {
            blake3.update(bytes);
        }
    }

    pub(super) fn finish(self) -> Digested {
        let mut checksums: Vec<Checksum> = self.checksums.into_iter().map(ChecksumStream::finish).collect();
        let sha256 = checksums
            .iter()
            .find(|sum| sum.algorithm() == ChecksumAlgorithm::Sha256);
        let sha256 = sha256.and_then(|sum| sum.as_bytes().try_into().ok());
        checksums.truncate(self.asked);
        Digested {
            md5: self.md5.map(Md5Stream::finish),
            checksums,
            sha256,
            blake3: self.blake3.map(|blake3| *blake3.finalize().as_bytes()),
        }
    }
}

/// The threads that work out digests.
#[derive(Debug)]
pub(super) struct Digests {
    shared: Arc<Shared>,
    ahead_max: usize,
    threads: Vec<JoinHandle<()>>,
}

#[derive(Debug, Default)]
struct Shared {
    state: Mutex<State>,
    /// Somebody has bytes, or it is over.
    work: Condvar,
    /// Bytes have been taken.
    taken: Condvar,
}

#[derive(Debug, Default)]
struct State {
    uploads: HashMap<u64, Upload>,
    /// Those that have bytes and whose sums are here.
    ready: VecDeque<u64>,
    next: u64,
    /// Bytes of all of them that wait.
    queued: usize,
    /// Who waits for bytes to be taken.
    waiting: usize,
    closing: bool,
}

#[derive(Debug)]
struct Upload {
    /// `None` while a thread has them.
    sums: Option<Sums>,
    queue: VecDeque<Bytes>,
    queued: usize,
}

impl Shared {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn wait<'a>(&self, on: &Condvar, state: MutexGuard<'a, State>) -> MutexGuard<'a, State> {
        on.wait(state).unwrap_or_else(PoisonError::into_inner)
    }

    /// Until it is over.
    fn work(&self) {
        let kernel = Md5Kernel::best();
        let mut state = self.state();
        loop {
            if state.ready.is_empty() && state.closing {
                return;
            }
            if !state.is_time(kernel.lanes()) {
                state = self.wait(&self.work, state);
                continue;
            }
            let batch = state.take_batch(kernel.lanes());
            drop(state);
            let done = compute(kernel, batch);
            state = self.state();
            let mut is_any_empty = false;
            for (ticket, sums, len) in done {
                is_any_empty |= state.put_back(ticket, sums, len);
            }
            // Whoever waits may go on when there is nothing left of his, at the latest.
            if is_any_empty {
                self.taken.notify_all();
            }
        }
    }
}

type Piece = (u64, Sums, Bytes);

/// Takes the pieces into their sums. Returns them with the bytes taken.
fn compute(kernel: Md5Kernel, mut batch: Vec<Piece>) -> Vec<(u64, Sums, usize)> {
    let mut streams: Vec<(Md5Stream, &[u8])> = Vec::with_capacity(batch.len());
    let mut whose = Vec::with_capacity(batch.len());
    for (at, (_, sums, bytes)) in batch.iter_mut().enumerate() {
        if let Some(md5) = sums.md5.take() {
            streams.push((md5, &bytes[..]));
            whose.push(at);
        }
        sums.update_others(bytes);
    }
    kernel.update(&mut streams);
    let streams: Vec<Md5Stream> = streams.into_iter().map(|(stream, _)| stream).collect();
    for (at, stream) in whose.into_iter().zip(streams) {
        batch[at].1.md5 = Some(stream);
    }
    let done = |(ticket, sums, bytes): Piece| (ticket, sums, bytes.len());
    batch.into_iter().map(done).collect()
}

impl State {
    /// Whether there is work, and lanes would not run empty for want of a little patience.
    fn is_time(&self, lanes: usize) -> bool {
        let wanted = self.uploads.len().min(lanes);
        !self.ready.is_empty() && (self.waiting > 0 || self.closing || self.ready.len() >= wanted)
    }

    fn take_batch(&mut self, count: usize) -> Vec<Piece> {
        let mut batch = Vec::with_capacity(count);
        while batch.len() < count
            && let Some(ticket) = self.ready.pop_front()
        {
            let Some(upload) = self.uploads.get_mut(&ticket) else {
                continue;
            };
            let Some(front) = upload.queue.front_mut() else {
                continue;
            };
            let piece = front.split_to(front.len().min(PIECE_LEN));
            if front.is_empty() {
                upload.queue.pop_front();
            }
            if let Some(sums) = upload.sums.take() {
                batch.push((ticket, sums, piece));
            }
        }
        batch
    }

    /// Returns whether nothing is left of the upload's.
    fn put_back(&mut self, ticket: u64, sums: Sums, len: usize) -> bool {
        // It may have been given up meanwhile.
        let Some(upload) = self.uploads.get_mut(&ticket) else {
            return false;
        };
        upload.sums = Some(sums);
        upload.queued -= len;
        self.queued -= len;
        if !upload.queue.is_empty() {
            self.ready.push_back(ticket);
        }
        upload.queue.is_empty()
    }
}

impl Digests {
    /// - `threads`: as many cores as digests may take; at least one.
    /// - `ahead_max`: bytes of all uploads that wait before who pushes has to, but for one push of each.
    pub(super) fn new(threads: usize, ahead_max: usize) -> Self {
        let shared = Arc::<Shared>::default();
        let work = |_| {
            let shared = Arc::clone(&shared);
            std::thread::spawn(move || shared.work())
        };
        let threads = (0..threads.max(1)).map(work).collect();
        Self {
            shared,
            ahead_max,
            threads,
        }
    }

    /// Begins the digests of an upload.
    pub(super) fn begin(&self, sums: Sums) -> DigestHandle {
        let mut state = self.shared.state();
        let ticket = state.next;
        state.next += 1;
        let is_idle = sums.is_empty();
        let upload = Upload {
            sums: Some(sums),
            queue: VecDeque::new(),
            queued: 0,
        };
        state.uploads.insert(ticket, upload);
        DigestHandle {
            shared: Arc::clone(&self.shared),
            ticket,
            ahead_max: self.ahead_max,
            is_idle,
        }
    }
}

impl Drop for Digests {
    fn drop(&mut self) {
        self.shared.state().closing = true;
        self.shared.work.notify_all();
        for thread in self.threads.drain(..) {
            let _ = thread.join();
        }
    }
}

/// The digests of one upload; given up when it is dropped.
#[derive(Debug)]
pub(super) struct DigestHandle {
    shared: Arc<Shared>,
    ticket: u64,
    ahead_max: usize,
    /// None are wanted.
    is_idle: bool,
}

impl DigestHandle {
    /// Takes the next bytes, and waits while too many do.
    pub(super) fn push(&self, bytes: Bytes) {
        if self.is_idle || bytes.is_empty() {
            return;
        }
        let mut state = self.shared.state();
        while state.uploads[&self.ticket].queued > 0 && state.queued + bytes.len() > self.ahead_max {
            state = self.wait_until_taken(state);
        }
        state.queued += bytes.len();
        let upload = state
            .uploads
            .get_mut(&self.ticket)
            .expect("it is there until this is dropped");
        upload.queued += bytes.len();
        upload.queue.push_back(bytes);
        if upload.sums.is_some() && upload.queue.len() == 1 {
            state.ready.push_back(self.ticket);
            drop(state);
            self.shared.work.notify_one();
        }
    }

    /// Waits for the rest.
    pub(super) fn finish(self) -> Digested {
        let mut state = self.shared.state();
        loop {
            let upload = state
                .uploads
                .get_mut(&self.ticket)
                .expect("it is there until this is dropped");
            if upload.queued == 0
                && let Some(sums) = upload.sums.take()
            {
                drop(state);
                return sums.finish();
            }
            state = self.wait_until_taken(state);
        }
    }

    fn wait_until_taken<'a>(&self, mut state: MutexGuard<'a, State>) -> MutexGuard<'a, State> {
        state.waiting += 1;
        self.shared.work.notify_one();
        let mut state = self.shared.wait(&self.shared.taken, state);
        state.waiting -= 1;
        state
    }
}

impl Drop for DigestHandle {
    fn drop(&mut self) {
        let mut state = self.shared.state();
        if let Some(upload) = state.uploads.remove(&self.ticket) {
            state.queued -= upload.queued;
        }
        drop(state);
        // The others may be all there are now.
        self.shared.work.notify_one();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Goal: uploads that share lanes get each its own digests, whatever they push and whoever gives up.
    #[test]
    fn uploads_of_many_threads_get_their_own_digests() {
        let digests = Digests::new(2, 1_000_000);
        std::thread::scope(|scope| {
            for seed in 0..24 {
                let digests = &digests;
                scope.spawn(move || {
                    let mut random = fastrand::Rng::with_seed(seed);
                    let wanted = DigestsWanted {
                        md5: seed % 5 != 1,
                        checksums: ChecksumAlgorithm::ALL[..random.usize(..=5)].to_vec(),
                    };
                    let whole = &DigestFunction::ALL[random.usize(..=2)..];
                    let mut sums = Sums::with_whole(&wanted, whole);
                    let handle = digests.begin(sums.clone());
                    for _ in 0..random.usize(..12) {
                        let mut bytes = vec![0; random.usize(..400_000)];
                        random.fill(&mut bytes);
                        sums.update(&bytes);
                        handle.push(bytes.into());
                    }
                    if seed % 7 != 3 {
                        assert_eq!(handle.finish(), sums.finish());
                    }
                });
            }
        });
        let state = digests.shared.state();
        assert!(state.uploads.is_empty(), "all have ended");
        assert_eq!(state.queued, 0, "nothing waits for those who gave up");
    }

    #[test]
    fn digests_that_objects_are_found_by_are_no_check_sums_that_were_asked_for() {
        let of = |checksums: &[ChecksumAlgorithm], whole: &[DigestFunction]| {
            let wanted = DigestsWanted {
                md5: false,
                checksums: checksums.to_vec(),
            };
            let mut sums = Sums::with_whole(&wanted, whole);
            sums.update(b"ab");
            sums.update(b"c");
            sums.finish()
        };
        let hex = |digest: Option<[u8; 32]>| digest.map(|digest| digest[..2].to_vec());
        // Of `abc`: ba7816bf… and 6437b3ac….
        let (sha256, blake3) = (Some(vec![0xba, 0x78]), Some(vec![0x64, 0x37]));
        let both = of(&[ChecksumAlgorithm::Crc32], &DigestFunction::ALL);
        assert_eq!((hex(both.sha256), hex(both.blake3)), (sha256.clone(), blake3.clone()));
        assert_eq!(both.checksums.len(), 1);
        let asked = of(&[ChecksumAlgorithm::Sha256], &[DigestFunction::Sha256]);
        assert_eq!((hex(asked.sha256), asked.blake3), (sha256, None));
        assert_eq!(asked.checksums.len(), 1);
        let one = of(&[], &[DigestFunction::Blake3]);
        assert_eq!((one.sha256, hex(one.blake3)), (None, blake3));
        assert!(one.checksums.is_empty());
    }
}
