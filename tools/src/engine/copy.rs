//! Chunks from one store into another, each proven on the way.

use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};

use cairn_formats::{CHUNK_LEN_MAX, ChunkForm, ChunkId, DigestAlgorithm, EncodedChunk, Level};
use cairn_store::{ChunkStore, ChunkStoreExt as _};

use super::batch::lock;
use super::{Error, Progress, Result};

/// Chunks asked for together.
const BATCH_CHUNKS: usize = 64;
/// The same where each call costs a round trip.
const BATCH_CHUNKS_FAR: usize = 256;

/// How chunks are copied.
#[derive(Clone, Copy, Debug)]
pub(crate) struct CopyOptions {
    /// What names the chunks.
    pub(crate) digest: DigestAlgorithm,
    /// Encode anew; `None` keeps the bytes of a sound frame as they are.
    pub(crate) encode: Option<(ChunkForm, Level)>,
    /// Go on after a chunk that is missing or bad.
    pub(crate) keep_going: bool,
    /// Ask and count, copy nothing.
    pub(crate) dry_run: bool,
    /// Threads.
    pub(crate) workers: usize,
}

/// What was copied.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct CopyReport {
    /// Chunks looked at.
    pub(crate) chunks: u64,
    /// Chunks that were there already.
    pub(crate) present: u64,
    /// Chunks copied, or to be copied in a dry run.
    pub(crate) copied: u64,
    /// Stored bytes of those; 0 in a dry run.
    pub(crate) bytes: u64,
    /// Chunks that could not be had.
    pub(crate) failed: u64,
}

/// Feeds ids to the function it is given.
pub(crate) type ListIds<'a> =
    dyn FnMut(&mut dyn FnMut(ChunkId) -> cairn_store::Result<()>) -> cairn_store::Result<()> + 'a;

/// Copies what `to` does not have.
///
/// - `ids`: feeds chunks to the function it is given until that answers an error, which it returns.
/// - `on_bad`: with `keep_going`, hears of each chunk that could not be had.
/// - Errors: the first of any store or chunk; all that was copied before it is kept.
pub(crate) fn copy(
    from: &dyn ChunkStore,
    to: &dyn ChunkStore,
    options: CopyOptions,
    progress: &Progress,
    ids: &mut ListIds<'_>,
    on_bad: &(dyn Fn(&Error) + Sync),
) -> Result<CopyReport> {
    let (sender, receiver) = crossbeam_channel::bounded::<Vec<ChunkId>>(options.workers.max(1));
    let total = Mutex::new(CopyReport::default());
    let failure = Mutex::new(None);
    let stopped = AtomicBool::new(false);
    let batch_chunks = if from.is_far() { BATCH_CHUNKS_FAR } else { BATCH_CHUNKS };
    let listed = std::thread::scope(|scope| {
        for _ in 0..options.workers.max(1) {
            scope.spawn(|| {
                for batch in &receiver {
                    if stopped.load(Ordering::Relaxed) {
                        continue;
                    }
                    let result = progress.check().map_err(Error::from);
                    match result.and_then(|()| copy_batch(from, to, &batch, options, on_bad)) {
                        Ok(report) => lock(&total).add(&report),
                        Err(error) => {
                            stopped.store(true, Ordering::Relaxed);
                            lock(&failure).get_or_insert(error);
                        }
                    }
                    progress.advance(batch.len() as u64);
                }
            });
        }
        let mut batch = Vec::with_capacity(batch_chunks);
        let send = |batch: &mut Vec<ChunkId>| {
            // The workers take batches until the sender is gone, so this cannot fail.
            let _ = sender.send(std::mem::replace(batch, Vec::with_capacity(batch_chunks)));
        };
        let listed = ids(&mut |id| {
            batch.push(id);
            if batch.len() == batch_chunks {
                send(&mut batch);
            }
            Ok(())
        });
        send(&mut batch);
        drop(sender);
        listed
    });
    if let Some(error) = failure.into_inner().unwrap_or_else(std::sync::PoisonError::into_inner) {
        return Err(error);
    }
    listed?;
    if !options.dry_run {
        to.flush()?;
    }
    Ok(total.into_inner().unwrap_or_else(std::sync::PoisonError::into_inner))
}

fn copy_batch(
    from: &dyn ChunkStore,
    to: &dyn ChunkStore,
    ids: &[ChunkId],
    options: CopyOptions,
    on_bad: &(dyn Fn(&Error) + Sync),
) -> Result<CopyReport> {
    let mut report = CopyReport {
        chunks: ids.len() as u64,
        ..CopyReport::default()
    };
    let wanted = to.absent(ids)?;
    report.present = report.chunks - wanted.len() as u64;
    let mut fail = |error: Error| {
        report.failed += 1;
        if options.keep_going {
            on_bad(&error);
            return Ok(());
        }
        Err(error)
    };
    if options.dry_run {
        for (id, there) in wanted.iter().zip(from.has_many(&wanted)?) {
            if !there {
                fail(
                    cairn_store::Error::Missing {
                        id: *id,
                        store: from.name().clone(),
                    }
                    .into(),
                )?;
            }
        }
        report.copied = wanted.len() as u64 - report.failed;
        return Ok(report);
    }
    let mut storable = Vec::with_capacity(wanted.len());
    for encoded in from.get_many(&wanted) {
        let proven = encoded
            .map_err(Error::from)
            .and_then(|encoded| prove(from, encoded, options));
        match proven {
            Ok(chunk) => storable.push(chunk),
            Err(error) => fail(error)?,
        }
    }
    to.put_many(&storable)?;
    report.copied = storable.len() as u64;
    report.bytes = storable.iter().map(|chunk| chunk.bytes().len() as u64).sum();
    Ok(report)
}

fn prove(from: &dyn ChunkStore, encoded: EncodedChunk, options: CopyOptions) -> Result<cairn_formats::StorableChunk> {
    let proven = match options.encode {
        None => encoded.verify(options.digest, CHUNK_LEN_MAX),
        Some((form, level)) => encoded
            .open(options.digest, CHUNK_LEN_MAX)
            .map(|chunk| chunk.encode(form, level)),
    };
    proven.map_err(|source| {
        cairn_store::Error::Corrupt {
            store: from.name().clone(),
            source,
        }
        .into()
    })
}

impl CopyReport {
    fn add(&mut self, other: &Self) {
        self.chunks += other.chunks;
        self.present += other.present;
        self.copied += other.copied;
        self.bytes += other.bytes;
        self.failed += other.failed;
    }
}
