//! Objects in parts, sent in any order: each part is cut and stored as it comes, seams as soon as both neighbours are there.
//!
//! A part is stored as an object of its own would be, and its row keeps what `cairn_formats::PartCuts` says of it. Whoever finishes a
//! part cuts the seams to its neighbours, from bytes that are still in memory on one side, and writes them into the row of the part
//! in front. Completing joins lists; only seams that nobody has cut (a part was left out or sent again, two came in the same
//! moment, data without certified cuts) are read and cut then. Parts cut by another rule than the bucket has now are cut anew.

use std::cell::OnceCell;
use std::collections::{BTreeMap, HashMap};
use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use bytes::{Bytes, BytesMut};
use cairn_formats::{ChunkSizes, Dialect, JoinStep, Md5Stream, NullChunk, PartCuts, PartCutter, PartJoin};
use cairn_store::{ChunkStore as _, ChunkStoreExt as _};

use super::digests::{DigestsWanted, Sums};
use super::ingest::{Fringe, IngestCounts};
use super::put::{Body, Gathered, Open};
use super::{Objects, rule};
use crate::bug::{Bug, is_planted};
use crate::liveness::ManifestChunk;
use crate::names::{
    Bucket, Cause, Checksum, ChecksumKind, Chunking, Condition, Content, Etag, NewPart, NewVersion, ObjectVersion,
    Part, PartChange, PartNumber, PartsChanged, SEAM_CHUNKS_MAX, Upload, Written,
};
use crate::{Error, KeyReader, Result};

/// How often a seam is written again because its part's row has changed.
const SEAM_TRIES: u32 = 3;

/// What the object path keeps in a part's row.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct PartState {
    /// Tells a part from one of the same number that was sent before or after it.
    generation: u64,
    sizes: ChunkSizes,
    dialect: Dialect,
    certified: Option<u64>,
    is_closed: bool,
    seam: Option<SeamState>,
}

/// The seam behind a part, whose chunks are in its row.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct SeamState {
    /// Generation of the part behind it.
    right: u64,
    /// Which of that part's own chunks follows.
    from: u32,
}

impl PartState {
    const FORM: u8 = 1;
    const LEN: usize = 1 + 8 + 12 + 1 + 8 + 1 + 1 + 12;

    fn encode(&self) -> Bytes {
        let mut bytes = Vec::with_capacity(Self::LEN);
        bytes.push(Self::FORM);
        bytes.extend_from_slice(&self.generation.to_be_bytes());
        for size in [self.sizes.min(), self.sizes.avg(), self.sizes.max()] {
            bytes.extend_from_slice(&(size as u32).to_be_bytes());
        }
        bytes.push(match self.dialect {
            Dialect::Casync => 0,
            Dialect::Desync => 1,
        });
        // No part is so long.
        bytes.extend_from_slice(&self.certified.unwrap_or(u64::MAX).to_be_bytes());
        bytes.push(u8::from(self.is_closed));
        let seam = self.seam.unwrap_or(SeamState { right: 0, from: 0 });
        bytes.push(u8::from(self.seam.is_some()));
        bytes.extend_from_slice(&seam.right.to_be_bytes());
        bytes.extend_from_slice(&seam.from.to_be_bytes());
        bytes.into()
    }

    fn decode(bytes: &[u8]) -> Result<Self> {
        let mut reader = KeyReader::new(bytes);
        if reader.byte()? != Self::FORM {
            return Err(malformed("its state is of a later release"));
        }
        let generation = reader.u64()?;
        let (min, avg, max) = (reader.u32()?, reader.u32()?, reader.u32()?);
        let sizes = ChunkSizes::new(min.into(), avg.into(), max.into());
        let state = Self {
            generation,
            sizes: sizes.map_err(|_| malformed("its chunk sizes do not fit together"))?,
            dialect: match reader.byte()? {
                0 => Dialect::Casync,
                1 => Dialect::Desync,
                _ => return Err(malformed("its rule of cuts is of a later release")),
            },
            certified: Some(reader.u64()?).filter(|cut| *cut != u64::MAX),
            is_closed: reader.byte()? != 0,
            seam: match (reader.byte()?, reader.u64()?, reader.u32()?) {
                (0, ..) => None,
                (_, right, from) => Some(SeamState { right, from }),
            },
        };
        reader.end()?;
        Ok(state)
    }
}

fn malformed(reason: &'static str) -> Error {
    Error::Malformed {
        what: "row of a part",
        reason,
    }
}

/// A part with its chunks, and what of their bytes is still in memory.
struct Known {
    part: Part,
    state: PartState,
    cuts: PartCuts,
    chunks: Vec<ManifestChunk>,
    plain: HashMap<usize, Bytes>,
}

/// Plain bytes of own chunks of parts.
struct Plains<'a> {
    objects: &'a Objects,
    open: &'a Open,
    null: OnceCell<NullChunk>,
    /// Bytes that came out of the store.
    read: u64,
}

impl Plains<'_> {
    fn get(&mut self, known: &Known, chunk: usize) -> Result<Bytes> {
        if let Some(plain) = known.plain.get(&chunk) {
            return Ok(plain.clone());
        }
        let chunk = known.chunks[chunk];
        self.read_chunk(&chunk)
    }

    fn read_chunk(&mut self, chunk: &ManifestChunk) -> Result<Bytes> {
        let settings = &self.open.bucket.record.settings;
        let (digest, len) = (self.objects.options.digest, chunk.len as usize);
        let max = settings.chunk_sizes.max();
        if len == max {
            let null = self.null.get_or_init(|| NullChunk::new(digest, max));
            if null.id() == chunk.id {
                return Ok(Bytes::from(vec![0; max]));
            }
        }
        let store = self.objects.store(settings.domain);
        let stored = match store.get(chunk.id) {
            // It was put a moment ago.
            Err(cairn_store::Error::Missing { .. }) => {
                store.flush()?;
                store.get(chunk.id)
            }
            stored => stored,
        }?;
        let opened = stored.open_exact(digest, len);
        let opened = opened.map_err(|source| cairn_store::Error::Corrupt {
            store: store.name().clone(),
            source,
        })?;
        self.read += u64::from(chunk.len);
        Ok(opened.into_plain())
    }
}

/// Bytes that joining takes a chunk: its name and length, twice, and where it ends.
const JOINED_LEN: u64 = 2 * 36 + 8;

/// An upload whose lists of chunks are in memory.
struct Joining<'a> {
    objects: &'a Objects,
    bytes: u64,
}

impl<'a> Joining<'a> {
    /// Errors: [`Error::Busy`].
    fn begin(objects: &'a Objects, parts: &[Part]) -> Result<Self> {
        let chunks = |part: &Part| match &part.content {
            Content::Inline { .. } => 1,
            Content::Chunks { chunks, .. } => chunks.len() as u64,
            Content::Manifest(manifest) => manifest.chunks,
        };
        let bytes = JOINED_LEN * parts.iter().map(chunks).sum::<u64>();
        let before = objects.joined.fetch_add(bytes, Ordering::Relaxed);
        let joining = Self { objects, bytes };
        if before > 0 && before + bytes > objects.options.join_len {
            return Err(Error::Busy {
                what: "large uploads being completed",
            });
        }
        Ok(joining)
    }
}

impl Drop for Joining<'_> {
    fn drop(&mut self) {
        self.objects.joined.fetch_sub(self.bytes, Ordering::Relaxed);
    }
}

/// A part of an object that is to be completed, as its sender knows it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ListedPart {
    /// Its number.
    pub number: PartNumber,
    /// The tag it was given.
    pub etag: Option<Etag>,
    /// Its check sum.
    pub checksum: Option<Checksum>,
}

/// An upload that has become a version.
#[derive(Clone, Debug)]
pub struct Completed {
    /// The version.
    pub written: Written,
    /// Bytes of parts that had to be read again for it.
    pub bytes_read: u64,
    /// Chunks of it that the parts did not have.
    pub counts: IngestCounts,
}

impl Objects {
    /// A body for a part out of a range of a version: by reference for the chunks inside, where that can be, and by reading else.
    ///
    /// - `from`: the version's bucket. `range`: within the object.
    /// - `wanted`: digests of the range. MD5 is known without reading if the range is all of an object of one part.
    /// - Errors: [`Error::ChunksMissing`] when it has lost chunks.
    pub fn copy_part(
        self: &Arc<Self>,
        from: &Bucket,
        version: &ObjectVersion,
        range: Range<u64>,
        to: &Bucket,
        wanted: &DigestsWanted,
    ) -> Result<Body> {
        let record = version.object().ok_or(malformed("a delete marker has no bytes"))?;
        let settings = &to.record.settings;
        let same_cuts =
            record.chunking.kind == settings.dialect.into() && record.chunking.sizes == settings.chunk_sizes;
        let is_inline = matches!(record.content, Content::Inline { .. });
        if !same_cuts || is_inline || record.content.domain() != settings.domain {
            let mut writer = self.part_writer(to, wanted)?;
            for piece in self.read(from.tenant(), &record.content, range)? {
                writer.push(&piece?)?;
            }
            return writer.finish();
        }
        let is_whole = range == (0..record.size);
        let md5 = record.etag.md5().filter(|_| is_whole);
        let unknown = DigestsWanted {
            md5: wanted.md5 && md5.is_none(),
            checksums: wanted.checksums.clone(),
        };
        let mut sums = Sums::new(&unknown);
        if unknown.md5 || !unknown.checksums.is_empty() {
            for piece in self.read(from.tenant(), &record.content, range.clone())? {
                sums.update(&piece?);
            }
        }
        let mut digested = sums.finish();
        digested.md5 = digested.md5.or(md5);
        let open = Open::new(self, to)?;
        let chunks = self.chunks(from.tenant(), &record.content)?;
        let (chunks, cuts, fringe) = self.refer(&open, &chunks, range)?;
        let content = open.content(&chunks)?;
        let chunking = Chunking {
            kind: settings.dialect.into(),
            sizes: settings.chunk_sizes,
        };
        let mut body = Body::of(open, content, chunks, chunking);
        body.digested = digested;
        body.part = Some((cuts, fringe));
        Ok(body)
    }

    /// The chunks of a range of chunks: its edges cut anew, those inside as they are.
    fn refer(
        &self,
        open: &Open,
        source: &[ManifestChunk],
        range: Range<u64>,
    ) -> Result<(Vec<ManifestChunk>, PartCuts, Fringe)> {
        let (sink, mut counts) = (open.sink(), IngestCounts::default());
        let mut plains = self.plains(open);
        let mut cutter = PartCutter::new(rule(&open.bucket)?);
        let (mut chunks, mut ends, mut fringe) = (Vec::new(), Vec::new(), Fringe::default());
        // The open chunk of the head.
        let mut held = BytesMut::new();
        let (mut start, mut end) = (0, 0_u64);
        let (mut in_step, mut is_closed) = (false, true);
        for (at, chunk) in source.iter().enumerate() {
            let here = start..start + u64::from(chunk.len);
            start = here.end;
            let wanted = here.start.max(range.start)..here.end.min(range.end);
            if wanted.is_empty() {
                continue;
            }
            let is_last = at + 1 == source.len();
            if in_step && wanted == here {
                end += u64::from(chunk.len);
                ends.push(end);
                chunks.push(*chunk);
                // Where the object ends is no cut, or may be none.
                is_closed = !is_last;
                continue;
            }
            let within = (wanted.start - here.start) as usize..(wanted.end - here.start) as usize;
            let plain = plains.read_chunk(chunk)?.slice(within);
            if in_step {
                // The last one, of which the end is not wanted.
                chunks.extend(sink.put(vec![plain.clone()], &mut counts)?);
                end += plain.len() as u64;
                ends.push(end);
                fringe.keep(ends.len() - 1, &plain);
                is_closed = false;
                continue;
            }
            held.extend_from_slice(&plain);
            let mut rest = &plain[..];
            while let Some(len) = cutter.cut(rest) {
                rest = &rest[len..];
                let own = held.split_to(held.len() - rest.len()).freeze();
                end += own.len() as u64;
                ends.push(end);
                fringe.keep(ends.len() - 1, &own);
                chunks.extend(sink.put(vec![own], &mut counts)?);
            }
            in_step = held.is_empty() && cutter.certified().is_some() && wanted.end == here.end;
        }
        if !held.is_empty() {
            let own = held.freeze();
            end += own.len() as u64;
            ends.push(end);
            fringe.keep(ends.len() - 1, &own);
            chunks.extend(sink.put(vec![own], &mut counts)?);
            is_closed = false;
        }
        self.seam_bytes.fetch_add(plains.read, Ordering::Relaxed);
        let ids = self.missing(open.bucket.record.settings.domain, &chunks)?;
        if !ids.is_empty() {
            return Err(Error::ChunksMissing { ids });
        }
        let certified = cutter.certified().filter(|cut| ends.binary_search(cut).is_ok());
        let cuts = PartCuts::new(ends, certified, is_closed).ok_or(malformed("its chunks do not ascend"))?;
        Ok((chunks, cuts, fringe))
    }

    fn plains<'a>(&'a self, open: &'a Open) -> Plains<'a> {
        Plains {
            objects: self,
            open,
            null: OnceCell::new(),
            read: 0,
        }
    }

    fn known(&self, bucket: &Bucket, part: Part) -> Result<Known> {
        let state = PartState::decode(&part.state)?;
        let chunks = self.chunks(bucket.tenant(), &part.content)?;
        let mut end = 0;
        let ends = chunks.iter().map(|chunk| {
            end += u64::from(chunk.len);
            end
        });
        let cuts = part_cuts(ends.collect(), &state)?;
        Ok(Known {
            part,
            state,
            cuts,
            chunks,
            plain: HashMap::new(),
        })
    }

    /// Cuts the seam between two parts and writes it into the left one's row, if it depends on nothing else.
    fn cut_ahead(&self, open: &Open, upload: &Upload, left: &Known, right: &Known) -> Result<()> {
        let is_sure = left.cuts.certified().is_some() || left.part.number.get() == 1;
        let same_rule = (left.state.sizes, left.state.dialect) == (right.state.sizes, right.state.dialect);
        if !is_sure || !same_rule || left.cuts.is_closed() || left.chunks.is_empty() {
            return Ok(());
        }
        let mut plains = self.plains(open);
        let pair = [left.cuts.clone(), right.cuts.clone()];
        let mut join = PartJoin::seam(rule(&open.bucket)?, &pair, |_| None);
        let (mut held, mut chunks) = (BytesMut::new(), Vec::new());
        while join.in_step().is_none() {
            match join.step() {
                JoinStep::Read { part, chunk } => {
                    let plain = plains.get([left, right][part], chunk)?;
                    held.extend_from_slice(&plain);
                    join.push(plain);
                }
                JoinStep::Chunk(len) => chunks.push(held.split_to(len).freeze()),
                JoinStep::Keep { .. } | JoinStep::Seam { .. } | JoinStep::Done => break,
            }
        }
        self.seam_bytes.fetch_add(plains.read, Ordering::Relaxed);
        let Some(from) = join.in_step().filter(|_| chunks.len() <= SEAM_CHUNKS_MAX) else {
            return Ok(());
        };
        let seam = open.sink().put(chunks, &mut IngestCounts::default())?;
        let uploads = self.names.uploads(&open.bucket);
        let mut row = left.part.row;
        for _ in 0..SEAM_TRIES {
            let state = PartState {
                seam: Some(SeamState {
                    right: right.state.generation,
                    from: u32::try_from(from).unwrap_or(u32::MAX),
                }),
                ..left.state
            };
            let change = PartChange {
                number: left.part.number,
                row,
                seam: seam.clone(),
                state: state.encode(),
            };
            match uploads.change_parts(upload, &[change], &open.fence) {
                Ok(PartsChanged::Done) => return Ok(()),
                Ok(PartsChanged::Stale) => {}
                // It is cut again when the upload is completed.
                Err(Error::FenceMoved) => return Ok(()),
                Err(error) => return Err(error),
            }
            let now = uploads.part(upload, left.part.number)?;
            match now {
                Some(now) if PartState::decode(&now.state)?.generation == left.state.generation => row = now.row,
                _ => return Ok(()),
            }
        }
        Ok(())
    }

    /// Makes an object of parts of an upload. Durable as its bucket says when this returns.
    ///
    /// - `listed`: which parts, in order. `describe`: adds to, or changes, what the upload said of the object.
    /// - Errors: [`Error::PartOrder`], [`Error::NoPart`], [`Error::PartTooSmall`]; as
    ///   [`crate::names::Uploads::complete`] but [`Error::FenceMoved`]; [`Error::ChunksMissing`].
    pub fn complete(
        self: &Arc<Self>,
        bucket: &Bucket,
        upload: &Upload,
        listed: &[ListedPart],
        describe: impl FnOnce(&mut NewVersion),
        condition: &Condition,
        cause: &Cause,
    ) -> Result<Completed> {
        let open = Open::new(self, bucket)?;
        let parts = self.listed_parts(bucket, upload, listed)?;
        let _joining = Joining::begin(self, &parts)?;
        let records: Vec<_> = parts.iter().map(Part::record).collect();
        let etag = match bucket.record.settings.etag {
            crate::names::EtagKind::Md5 => etag_of(&parts),
            crate::names::EtagKind::Opaque => self.opaque_etag()?,
        };
        let checksum = checksum_of(upload, &parts)?;
        let states = parts.iter().map(|part| PartState::decode(&part.state));
        let states: Vec<PartState> = states.collect::<Result<_>>()?;
        let settings = &bucket.record.settings;
        let by_rule = (settings.chunk_sizes, settings.dialect);
        let (gathered, bytes_read, counts) = if states.iter().all(|state| (state.sizes, state.dialect) == by_rule) {
            self.join(&open, &parts, &states)?
        } else {
            self.cut_anew(&open, &parts)?
        };
        drop((parts, states));
        self.completion_bytes.fetch_add(bytes_read, Ordering::Relaxed);
        let (content, chunks) = gathered.finish()?;
        let mut version = NewVersion::new(upload.record.owner.clone(), content.clone(), etag);
        let record = &mut version.record;
        record.headers = upload.record.headers.clone();
        record.metadata = upload.record.metadata.clone();
        record.tags = upload.record.tags.clone();
        record.storage_class = upload.record.storage_class;
        record.checksums.extend(checksum);
        record.chunking = Chunking {
            kind: settings.dialect.into(),
            sizes: settings.chunk_sizes,
        };
        version.set_parts(records);
        describe(&mut version);
        let uploads = self.names.uploads(bucket);
        loop {
            match uploads.complete(upload, &version, condition, cause) {
                Err(Error::FenceMoved) => {
                    version = version.with_fence(open.settle_content(content.content(), &chunks)?)
                }
                written => {
                    return Ok(Completed {
                        written: written?,
                        bytes_read,
                        counts,
                    });
                }
            }
        }
    }

    fn listed_parts(&self, bucket: &Bucket, upload: &Upload, listed: &[ListedPart]) -> Result<Vec<Part>> {
        if listed.is_empty() || listed.windows(2).any(|pair| pair[0].number >= pair[1].number) {
            return Err(Error::PartOrder);
        }
        let all = self.names.uploads(bucket).parts(upload, None, usize::MAX)?;
        let mut all: BTreeMap<PartNumber, Part> = all.into_iter().map(|part| (part.number, part)).collect();
        let mut parts = Vec::with_capacity(listed.len());
        for (at, wanted) in listed.iter().enumerate() {
            let number = wanted.number.get();
            let part = all.remove(&wanted.number).filter(|part| {
                let same_tag = wanted.etag.as_ref().is_none_or(|etag| *etag == Etag::of_md5(&part.md5));
                let same_sum = wanted.checksum.is_none() || wanted.checksum == part.checksum;
                same_tag && same_sum
            });
            let part = part.ok_or(Error::NoPart { number })?;
            if part.size < self.options.part_len_min && at + 1 < listed.len() {
                return Err(Error::PartTooSmall {
                    number,
                    size: part.size,
                    least: self.options.part_len_min,
                });
            }
            parts.push(part);
        }
        Ok(parts)
    }

    /// Joins the chunks of parts. Returns them, with the bytes that were read, and what was put. Of the lists of parts one is held at a
    /// time, and of all the parts where they were cut, eight bytes a chunk.
    fn join<'a>(
        &self,
        open: &'a Open,
        parts: &[Part],
        states: &[PartState],
    ) -> Result<(Gathered<'a>, u64, IngestCounts)> {
        let tenant = open.bucket.tenant();
        let cuts = parts.iter().zip(states).map(|(part, state)| {
            let (mut end, mut ends) = (0, Vec::new());
            self.for_each_chunk(tenant, &part.content, |page| {
                ends.extend(page.iter().map(|chunk| {
                    end += u64::from(chunk.len);
                    end
                }));
                Ok(())
            })?;
            part_cuts(ends, state)
        });
        let cuts: Vec<PartCuts> = cuts.collect::<Result<_>>()?;
        let seam_before = |right: usize| {
            let seam = states[right.checked_sub(1)?].seam?;
            let is_its_own = seam.right == states[right].generation || is_planted(Bug::StaleSeam);
            is_its_own.then_some(seam.from as usize)
        };
        let mut join = PartJoin::new(rule(&open.bucket)?, &cuts, seam_before);
        let (sink, mut counts) = (open.sink(), IngestCounts::default());
        let mut plains = self.plains(open);
        let (mut held, mut gathered) = (BytesMut::new(), Gathered::new(open));
        let mut list = (usize::MAX, Vec::new());
        let load = |list: &mut (usize, Vec<ManifestChunk>), part: usize| -> Result<()> {
            if list.0 != part {
                *list = (part, self.chunks(tenant, &parts[part].content)?);
            }
            Ok(())
        };
        loop {
            match join.step() {
                JoinStep::Keep { part, chunks: own } => {
                    load(&mut list, part)?;
                    gathered.push(&list.1[own])?;
                }
                JoinStep::Seam { part } => gathered.push(&parts[part - 1].seam)?,
                JoinStep::Read { part, chunk } => {
                    load(&mut list, part)?;
                    let plain = plains.read_chunk(&list.1[chunk])?;
                    held.extend_from_slice(&plain);
                    join.push(plain);
                }
                JoinStep::Chunk(len) => {
                    let plain = held.split_to(len).freeze();
                    gathered.push(&sink.put(vec![plain], &mut counts)?)?;
                }
                JoinStep::Done => return Ok((gathered, plains.read, counts)),
            }
        }
    }

    /// Cuts all bytes of parts again, whatever they were cut by.
    fn cut_anew<'a>(&self, open: &'a Open, parts: &[Part]) -> Result<(Gathered<'a>, u64, IngestCounts)> {
        let mut ingest = super::ingest::Ingest::new(open.sink(), rule(&open.bucket)?);
        let mut gathered = Gathered::new(open);
        let mut read = 0;
        for part in parts {
            for piece in self.read(open.bucket.tenant(), &part.content, 0..part.size)? {
                let piece = piece?;
                read += piece.len() as u64;
                ingest.push(&piece, piece.len());
                if ingest.unseen() >= self.block_len() {
                    let block = ingest.take_block();
                    ingest.put_block(block)?;
                    gathered.push(&ingest.take_chunks())?;
                }
            }
        }
        let block = ingest.take_block();
        ingest.put_block(block)?;
        let ingested = ingest.finish()?;
        gathered.push(&ingested.chunks)?;
        Ok((gathered, read, ingested.counts))
    }
}

fn part_cuts(ends: Vec<u64>, state: &PartState) -> Result<PartCuts> {
    let cuts = PartCuts::new(ends, state.certified, state.is_closed);
    cuts.ok_or(malformed("its cuts are not those of its chunks"))
}

impl Body {
    /// Has the body become a part of an upload, in place of one of the same number, and cuts the seams to its neighbours. Durable when
    /// this returns.
    ///
    /// - The body is of [`Objects::part_writer`] or [`Objects::copy_part`].
    /// - `checksum`: its check sum, if the upload has them; the caller has compared it.
    /// - Errors: as [`crate::names::Uploads::put_part`] but [`Error::FenceMoved`]; [`Error::ChunksMissing`] as in [`Body::put`].
    pub fn put_part(self, upload: &Upload, number: PartNumber, checksum: Option<Checksum>) -> Result<Part> {
        let objects = Arc::clone(&self.open.objects);
        let size = self.byte_len();
        let (cuts, fringe) = self.part.ok_or(malformed("its body is that of an object"))?;
        let settings = &self.open.bucket.record.settings;
        let state = PartState {
            generation: u64::from_be_bytes(objects.names.chance()?),
            sizes: settings.chunk_sizes,
            dialect: settings.dialect,
            certified: cuts.certified(),
            is_closed: cuts.is_closed(),
            seam: None,
        };
        let md5 = match self.digested.md5 {
            Some(md5) => md5,
            // A tag, and not more.
            None => objects.names.chance()?,
        };
        let mut new = NewPart {
            number,
            md5,
            checksum,
            size,
            content: self.content,
            state: state.encode(),
        };
        let mut open = self.open;
        let uploads_bucket = open.bucket.clone();
        let uploads = objects.names.uploads(&uploads_bucket);
        let part = loop {
            match uploads.put_part(upload, &new) {
                Err(Error::FenceMoved) => {
                    open.fence = open.settle(&self.chunks)?;
                    new.content = new.content.with_fence(open.fence);
                }
                part => break part?,
            }
        };
        let own = Known {
            part: part.clone(),
            state,
            cuts,
            chunks: self.chunks,
            plain: fringe.into_plain(),
        };
        let neighbour = |number: Option<u16>| -> Result<Option<Known>> {
            let Some(number) = number.and_then(|number| PartNumber::new(number.into())) else {
                return Ok(None);
            };
            let found = uploads.part(upload, number)?;
            found.map(|part| objects.known(&open.bucket, part)).transpose()
        };
        let seams = || -> Result<()> {
            if let Some(left) = neighbour(number.get().checked_sub(1))? {
                objects.cut_ahead(&open, upload, &left, &own)?;
            }
            if let Some(right) = neighbour(number.get().checked_add(1))? {
                objects.cut_ahead(&open, upload, &own, &right)?;
            }
            Ok(())
        };
        // The part is there. A seam that could not be cut now is cut when the upload is completed.
        let _ = seams();
        Ok(part)
    }
}

/// `hex(md5(md5 of part 1, …))-N`.
fn etag_of(parts: &[Part]) -> Etag {
    let mut md5 = Md5Stream::default();
    parts.iter().for_each(|part| md5.update(&part.md5));
    Etag::of_parts(&md5.finish(), u32::try_from(parts.len()).unwrap_or(u32::MAX))
}

/// The check sum of the whole, by what was said when the upload began; none if a part has none.
fn checksum_of(upload: &Upload, parts: &[Part]) -> Result<Option<Checksum>> {
    let Some((algorithm, kind)) = upload.record.checksum else {
        return Ok(None);
    };
    let raw = cairn_formats::ChecksumAlgorithm::from(algorithm);
    let mut sums = Vec::with_capacity(parts.len());
    for part in parts {
        let sum = part.checksum.as_ref().filter(|sum| sum.algorithm() == algorithm);
        let sum = sum.and_then(|sum| cairn_formats::Checksum::new(raw, sum.value()));
        match sum {
            Some(sum) => sums.push((sum, part.size)),
            None => return Ok(None),
        }
    }
    let whole = match kind {
        ChecksumKind::Composite => {
            let all: Vec<u8> = sums.iter().flat_map(|(sum, _)| sum.as_bytes().to_vec()).collect();
            cairn_formats::Checksum::of(raw, &all)
        }
        ChecksumKind::FullObject => {
            let mut rest = sums.iter();
            let Some((first, _)) = rest.next() else {
                return Ok(None);
            };
            let joined = rest.try_fold(*first, |sum, (next, len)| sum.join(next, *len));
            joined.ok_or(Error::Malformed {
                what: "upload",
                reason: "sums of its kind cannot be joined to one of the whole",
            })?
        }
    };
    Ok(Checksum::new(algorithm, kind, whole.as_bytes()))
}
