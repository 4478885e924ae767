//! Reading: chunks of a batch are looked up together and had slab by slab, as many at a time as requests may be under way.
//!
//! Every frame is checked against the sum that its pack's footer holds; one that does not fit is fetched once more by itself.
//! A pack that is gone (somebody collects) sends the reader back to the listing.

use std::collections::HashSet;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use bytes::{Bytes, BytesMut};
use cairn_formats::{ChunkError, ChunkForm, ChunkId, EncodedChunk, PACK_HEADER_LEN, PackHeader, payload_crc};

use super::files::PackFiles;
use super::known::{PackObject, Place};
use super::slabs::{Ask, Coming, SLAB_LEN};
use super::{LISTING_AGE, RemotePackStore, Shared, again};
use crate::backend::remote::{Fault, lost};
use crate::{Error, Result};

/// Bytes between two wanted frames that are fetched rather than asking once more.
const GAP_LEN: u64 = 1 << 20;
/// Bytes of one request for frames alone, unless one frame is longer.
const RANGE_LEN: u64 = 8 << 20;
/// Times that chunks are looked up anew because their pack went away meanwhile.
const LOOKUPS_MAX: usize = 4;

/// A wanted frame.
#[derive(Clone, Copy, Debug)]
struct Frame {
    /// Which of the asked.
    n: usize,
    place: Place,
}

/// Frames that begin in the same slab.
#[derive(Clone, Debug)]
struct Job {
    pack: Arc<PackObject>,
    slab: u64,
    frames: Vec<Frame>,
}

/// Why a job has no frames.
pub(super) enum ReadFault {
    /// The pack is not there any more.
    Gone,
    Failed(Fault),
}

impl From<Fault> for ReadFault {
    fn from(fault: Fault) -> Self {
        Self::Failed(fault)
    }
}

impl<F: PackFiles> RemotePackStore<F> {
    /// Chunks, checked against their sums; one answer per id, in order.
    pub(super) fn read_many(&self, ids: &[ChunkId]) -> Vec<Result<EncodedChunk>> {
        let mut answers: Vec<Option<Result<EncodedChunk>>> = ids.iter().map(|_| None).collect();
        for _ in 0..LOOKUPS_MAX {
            let open: Vec<usize> = (0..ids.len()).filter(|&n| answers[n].is_none()).collect();
            let (jobs, missing) = self.jobs(ids, &open);
            let mut again_listed = false;
            if !missing.is_empty() {
                match self.refresh_if_older("read a chunk", LISTING_AGE) {
                    Ok(true) => again_listed = true,
                    Ok(false) => missing
                        .iter()
                        .for_each(|&n| answers[n] = Some(Err(self.missing(ids[n])))),
                    Err(error) => missing.iter().for_each(|&n| answers[n] = Some(Err(again(&error)))),
                }
            }
            let gone = self.run_jobs(ids, jobs, &mut answers);
            if gone > 0 && !again_listed {
                // If that fails, the pack that is gone tells it.
                let _ = self.refresh("read a chunk");
            } else if gone == 0 && !again_listed {
                break;
            }
        }
        let unanswered = |(answer, &id): (Option<Result<EncodedChunk>>, &ChunkId)| {
            answer.unwrap_or_else(|| match self.shared.known().place(id) {
                None => Err(self.missing(id)),
                Some(_) => Err(Error::Unavailable {
                    store: self.shared.name.clone(),
                    action: "read a chunk",
                    source: "its pack is listed, and then is not there".into(),
                }),
            })
        };
        answers.into_iter().zip(ids).map(unanswered).collect()
    }

    /// A frame that is in memory.
    pub(super) fn read_resident(&self, id: ChunkId) -> Option<Bytes> {
        let place = self.shared.known().place(id)?;
        let number = place.offset() / SLAB_LEN;
        let slab = self.shared.slabs.resident(place.slot, number)?;
        let at = (place.offset() - number * SLAB_LEN) as usize;
        let frame = slab.get(at..at + place.len as usize)?;
        (payload_crc(frame) == place.crc).then(|| Bytes::copy_from_slice(frame))
    }

    fn missing(&self, id: ChunkId) -> Error {
        Error::Missing {
            id,
            store: self.shared.name.clone(),
        }
    }

    /// What has to be read for these, in the order in which it lies, and which of them are nowhere.
    fn jobs(&self, ids: &[ChunkId], open: &[usize]) -> (Vec<Job>, Vec<usize>) {
        let known = self.shared.known();
        let (mut frames, mut missing) = (Vec::new(), Vec::new());
        for &n in open {
            match known.place(ids[n]) {
                Some(place) => frames.push(Frame { n, place }),
                None => missing.push(n),
            }
        }
        frames.sort_unstable_by_key(|frame| (frame.place.slot, frame.place.offset()));
        let mut jobs: Vec<Job> = Vec::new();
        for frame in frames {
            let slab = frame.place.offset() / SLAB_LEN;
            match jobs.last_mut() {
                Some(job) if (job.pack.slot, job.slab) == (frame.place.slot, slab) => job.frames.push(frame),
                _ => {
                    // A place that is answered has its pack.
                    let Some(pack) = known.pack(frame.place.slot).cloned() else {
                        continue;
                    };
                    jobs.push(Job {
                        pack,
                        slab,
                        frames: vec![frame],
                    });
                }
            }
        }
        (jobs, missing)
    }

    /// Reads frames. Returns how many have no answer because their pack is gone.
    fn run_jobs(&self, ids: &[ChunkId], jobs: Vec<Job>, answers: &mut [Option<Result<EncodedChunk>>]) -> usize {
        let action = "read a chunk";
        let name = &self.shared.name;
        let jobs: Arc<[Job]> = jobs.into();
        let (shared, wanted) = (self.shared.clone(), jobs.clone());
        let mut gone = 0;
        let mut answered = HashSet::new();
        self.workers.run_many(
            jobs.len(),
            move |index| {
                let (shared, job) = (shared.clone(), wanted[index].clone());
                async move { shared.read_job(&job).await }
            },
            |index, outcome| {
                answered.insert(index);
                let frames = &jobs[index].frames;
                match outcome {
                    Ok(found) => {
                        for (frame, bytes) in frames.iter().zip(found) {
                            let id = ids[frame.n];
                            let form = ChunkForm::Compressed;
                            answers[frame.n] = Some(match bytes {
                                Some(bytes) => Ok(EncodedChunk { id, form, bytes }),
                                None => Err(Error::Corrupt {
                                    store: name.clone(),
                                    source: ChunkError::Checksum { id },
                                }),
                            });
                        }
                    }
                    Err(ReadFault::Gone) => gone += frames.len(),
                    Err(ReadFault::Failed(fault)) => {
                        let error = fault.into_error(name, action);
                        frames
                            .iter()
                            .for_each(|frame| answers[frame.n] = Some(Err(again(&error))));
                    }
                }
                true
            },
        );
        for (index, job) in jobs.iter().enumerate() {
            if !answered.contains(&index) {
                job.frames
                    .iter()
                    .for_each(|frame| answers[frame.n] = Some(Err(lost(name, action))));
            }
        }
        gone
    }
}

impl<F: PackFiles> Shared<F> {
    /// The frames of a job, `None` for one that is damaged.
    async fn read_job(&self, job: &Job) -> std::result::Result<Vec<Option<Bytes>>, ReadFault> {
        let wanted = job.frames.iter().map(|frame| u64::from(frame.place.len)).sum();
        let mut found = match self.slab(&job.pack, job.slab, wanted).await? {
            Some(slab) => {
                let mut found = Vec::with_capacity(job.frames.len());
                for frame in &job.frames {
                    found.push(self.cut(job, frame.place, &slab).await?);
                }
                found
            }
            None => self.read_alone(&job.pack, &job.frames).await?,
        };
        for (bytes, frame) in found.iter_mut().zip(&job.frames) {
            let place = frame.place;
            let is_right = |bytes: &Bytes| bytes.len() == place.len as usize && payload_crc(bytes) == place.crc;
            if bytes.as_ref().is_some_and(is_right) {
                continue;
            }
            // Once more: it may have gone wrong on the way, or here.
            self.slabs.forget(&job.pack, job.slab);
            let again = self.range(&job.pack, place.offset(), place.end()).await?;
            *bytes = Some(again).filter(is_right);
        }
        Ok(found)
    }

    /// A frame out of the slab in which it begins, and those behind it if it goes on there. Copied: it may be kept for long, and
    /// a slab with it.
    async fn cut(&self, job: &Job, place: Place, slab: &Bytes) -> std::result::Result<Option<Bytes>, ReadFault> {
        let at = (place.offset() - job.slab * SLAB_LEN) as usize;
        let len = place.len as usize;
        let Some(first) = slab.get(at..slab.len().min(at + len)) else {
            return Ok(None);
        };
        if first.len() == len {
            return Ok(Some(Bytes::copy_from_slice(first)));
        }
        let mut frame = BytesMut::with_capacity(len);
        frame.extend_from_slice(first);
        let mut number = job.slab;
        while frame.len() < len {
            number += 1;
            let rest = len - frame.len();
            match self.slab(&job.pack, number, rest as u64).await? {
                Some(slab) if !slab.is_empty() => frame.extend_from_slice(&slab[..slab.len().min(rest)]),
                Some(_) => return Ok(None),
                None => {
                    let start = place.offset() + frame.len() as u64;
                    frame.extend_from_slice(&self.range(&job.pack, start, place.end()).await?);
                }
            }
        }
        Ok(Some(frame.freeze()))
    }

    /// A whole slab; `None`: better the wanted bytes alone.
    async fn slab(
        &self,
        pack: &Arc<PackObject>,
        number: u64,
        wanted: u64,
    ) -> std::result::Result<Option<Bytes>, ReadFault> {
        loop {
            match self.slabs.ask(pack, number, wanted) {
                Ask::Here(bytes) => return Ok(Some(bytes)),
                Ask::Alone => {
                    self.see_header(pack).await?;
                    return Ok(None);
                }
                Ask::Coming(mut told) => {
                    if let Ok(bytes) = told.wait_for(Option::is_some).await {
                        return Ok(bytes.clone());
                    }
                }
                Ask::Fetch(coming) => {
                    if let Some(bytes) = self.fetch(pack, coming).await? {
                        return Ok(Some(bytes));
                    }
                }
            }
        }
    }

    /// Fetches slabs that follow each other and tells whoever waits. Returns the first.
    async fn fetch(
        &self,
        pack: &Arc<PackObject>,
        mut coming: Vec<Coming>,
    ) -> std::result::Result<Option<Bytes>, ReadFault> {
        let mut first = None;
        let span = |number: u64| (number * SLAB_LEN, ((number + 1) * SLAB_LEN).min(pack.end));
        if let Some(disk) = self.slabs.disk() {
            // Those that the disk has, from the first on.
            while let Some(next) = coming.first() {
                let (disk, uuid, number) = (disk.clone(), pack.uuid, next.number);
                let (start, end) = span(number);
                let read = tokio::task::spawn_blocking(move || disk.get(uuid, number, (end - start) as usize));
                let Ok(Some(bytes)) = read.await else { break };
                first.get_or_insert(bytes.clone());
                self.slabs.arrived(pack, coming.remove(0), bytes);
            }
        }
        let (Some(from), Some(to)) = (coming.first(), coming.last()) else {
            return Ok(first);
        };
        let (start, end) = (span(from.number).0, span(to.number).1);
        if start > 0 {
            self.see_header(pack).await?;
        }
        let room = u32::try_from(coming.len()).unwrap_or(u32::MAX);
        let Ok(_room) = self.slabs.room.acquire_many(room).await else {
            return Err(Fault::Cancelled.into());
        };
        let bytes = self.range(pack, start, end).await?;
        if start == 0 {
            check_header(pack, &bytes)?;
        }
        for one in coming {
            let (from, to) = span(one.number);
            // Each in memory of its own, so that one can go alone.
            let slab = Bytes::copy_from_slice(&bytes[(from - start) as usize..(to - start) as usize]);
            if let Some(disk) = self.slabs.disk() {
                let (disk, uuid, number, slab) = (disk.clone(), pack.uuid, one.number, slab.clone());
                // A cache that cannot be filled is passed by.
                let _ = tokio::task::spawn_blocking(move || disk.put(uuid, number, &slab)).await;
            }
            first.get_or_insert(slab.clone());
            self.slabs.arrived(pack, one, slab);
        }
        Ok(first)
    }

    /// Frames by themselves, with small gaps between them.
    async fn read_alone(
        &self,
        pack: &Arc<PackObject>,
        frames: &[Frame],
    ) -> std::result::Result<Vec<Option<Bytes>>, ReadFault> {
        let mut found = Vec::with_capacity(frames.len());
        let mut rest = frames;
        while let Some(first) = rest.first() {
            let start = first.place.offset();
            let mut end = first.place.end();
            let mut count = 1;
            for frame in &rest[1..] {
                if frame.place.offset() > end + GAP_LEN || frame.place.end() - start > RANGE_LEN {
                    break;
                }
                end = end.max(frame.place.end());
                count += 1;
            }
            let bytes = self.range(pack, start, end).await?;
            let (these, others) = rest.split_at(count);
            for frame in these {
                let at = (frame.place.offset() - start) as usize;
                let frame = bytes.get(at..at + frame.place.len as usize);
                found.push(frame.map(Bytes::copy_from_slice));
            }
            rest = others;
        }
        Ok(found)
    }

    /// Nothing is served from a pack whose header is not that of the pack, or of a later format.
    async fn see_header(&self, pack: &Arc<PackObject>) -> std::result::Result<(), ReadFault> {
        if pack.header_seen.load(Ordering::Relaxed) {
            return Ok(());
        }
        let bytes = self.range(pack, 0, PACK_HEADER_LEN as u64).await?;
        Ok(check_header(pack, &bytes)?)
    }

    /// Bytes of a pack, as often tried as the options say.
    pub(super) async fn range(&self, pack: &PackObject, start: u64, end: u64) -> std::result::Result<Bytes, ReadFault> {
        let read = || self.files.read_range(&pack.name, start, end);
        let found = self.patience.insist(read).await.map_err(Fault::from)?;
        found.ok_or(ReadFault::Gone)
    }
}

fn check_header(pack: &PackObject, bytes: &[u8]) -> std::result::Result<(), Fault> {
    let refused = |what: String| Fault::Refused(format!("{}: {what}", pack.name).into());
    let header = PackHeader::decode(bytes).map_err(|error| refused(error.to_string()))?;
    if header.uuid != pack.uuid {
        return Err(refused("its header is that of another pack".to_owned()));
    }
    pack.header_seen.store(true, Ordering::Relaxed);
    Ok(())
}
