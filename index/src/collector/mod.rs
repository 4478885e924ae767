//! The collector: takes away the chunks that nothing names, while writers go on.
//!
//! One collection: *mark* what the manifests, versions, uploads and blobs of a snapshot name; *condemn* every other record that is not pinned, was not put
//! since the oldest lease began, and was not asked for lately; *re-mark* from a later snapshot and pardon what has been named
//! since; wait the grace time; *sweep* what is still condemned, at its place and no other; *compact* packs that are mostly dead.
//! `liveness/` says why no order of writers and collector loses a chunk.
//!
//! It keeps no state but the condemned marks, so it may be stopped, or killed, at any moment: the next collection's mark counts
//! as the re-mark of what it finds condemned. One collector a store (the pack store takes no second), one collection at a time.

mod control;
mod marks;
#[cfg(test)]
mod tests;

use std::cell::Cell;
use std::collections::BTreeMap;
use std::num::{NonZeroU32, NonZeroU64};
use std::sync::{Arc, Mutex, TryLockError};
use std::time::{Duration, Instant};

use cairn_formats::{DomainId, Level};
use cairn_store::{
    ChunkKey, ChunkPlace, CompactOptions, CompactReport, LogPosition, PackEngine, RateLimit, RecompressOptions,
    RecompressReport,
};

use crate::bug::{Bug, is_planted};
use crate::database::{Database, Engine};
use crate::kv::{Kv as _, Version, View};
use crate::liveness::{
    ChunkAt, Manifest, ManifestChunk, any_condemned, condemn, for_each_condemned, for_each_manifest, leases,
    manifest_page, pardon, sweep_all_manifests, swept,
};
use crate::names::{Root, for_each_root, sweep_names};
use crate::sealed::{SnapshotPolicy, SnapshotReport, write_snapshot};
use crate::{Error, Result, Tenant};

pub use control::{CollectControl, CollectStage};
use marks::{Marks, NamedSet, chunk_at};

/// Chunks condemned, pardoned or removed in one commit, for which writers wait; fewer than [`crate::MARKS_MAX`].
const STEP_CHUNKS: usize = 8192;

/// A pack of which a sample shrinks by a smaller share is not compressed anew.
const RECOMPRESS_GAIN_MIN: f64 = 0.02;

/// Of packs that are compressed anew one part in so many is saved, about: what a snapshot that frees them for it is worth. Of what
/// came compressed, and of what did not.
const RECOMPRESS_GAIN_PART: u64 = 10;
const SQUEEZE_GAIN_PART: u64 = 2;

/// Whether everything that keeps chunks alive is known here.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Roots {
    /// Indexes may lie elsewhere: nothing is ever collected.
    #[default]
    Unrooted,
    /// The operator has declared that what no manifest names, and no pin keeps, may go.
    Rooted,
}

/// How a collection goes.
#[derive(Clone, Debug)]
pub struct CollectOptions {
    /// Whether it may run at all.
    pub roots: Roots,
    /// Whether pinned chunks stay though nothing names them.
    pub keep_pinned: bool,
    /// Chunks that are named elsewhere, and stay.
    pub also_named: Arc<[ChunkKey]>,
    /// Records at or behind this are new, and stay: who stored them may be about to name them. The default: those that come
    /// while the collection runs.
    pub new_from: LogPosition,
    /// Seconds since 1970 UTC, for leases and manifests that were left behind.
    pub now: u64,
    /// Between the re-mark and the sweep: for readers who hold a list of chunks of something deleted meanwhile.
    pub grace: Duration,
    /// Bytes of manifests read and of chunks written anew, a second.
    pub bytes_per_second: Option<NonZeroU64>,
    /// Bytes of memory for what is named, at most: 1.5 a chunk named; with less, more is kept.
    pub mark_memory: usize,
    /// Packs are written anew until the dead bytes in all of them are at most this share of the living ones.
    pub dead_share_max: f64,
    /// Packs with batches of the index at or behind this are kept, unless a snapshot has them: they are needed to make the index
    /// again if it is lost. The default keeps all of them.
    pub commits_kept_from: LogPosition,
    /// When a snapshot of the index is written, so that packs with older batches can be given back.
    pub snapshots: SnapshotPolicy,
    /// Keep a pack's worth of room for a full disk.
    pub reserve: bool,
    /// Packs that have come to rest are compressed anew; `None`: they stay as they came.
    pub recompress: Option<Recompress>,
    /// Days without use after which a blob goes; `None`: none goes.
    pub blob_days: Option<NonZeroU32>,
    /// Only tell what would be condemned.
    pub dry_run: bool,
}

/// How packs are compressed anew.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Recompress {
    /// zstd's level.
    pub level: Level,
    /// Bytes of frames a second that are compressed anew: what it takes of a processor is up to the level.
    pub bytes_per_second: Option<NonZeroU64>,
}

impl Default for CollectOptions {
    fn default() -> Self {
        Self {
            roots: Roots::default(),
            keep_pinned: true,
            also_named: Arc::default(),
            new_from: LogPosition {
                pack: u32::MAX,
                offset: 0,
            },
            now: 0,
            grace: Duration::from_secs(3600),
            bytes_per_second: None,
            mark_memory: 256 << 20,
            dead_share_max: 0.05,
            commits_kept_from: LogPosition::default(),
            snapshots: SnapshotPolicy::default(),
            reserve: true,
            recompress: None,
            blob_days: None,
            dry_run: false,
        }
    }
}

/// Chunks and the bytes of their frames.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Amount {
    /// How many.
    pub chunks: u64,
    /// Bytes of their frames.
    pub bytes: u64,
}

impl Amount {
    fn add(&mut self, place: &ChunkPlace) {
        self.chunks += 1;
        self.bytes += u64::from(place.len);
    }
}

/// What a collection did; of a dry run, what it would have condemned.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct CollectReport {
    /// Manifests, versions and parts of uploads that were read for the mark, and chunks in them, repeats included.
    pub manifests: u64,
    /// See above.
    pub references: u64,
    /// Plain bytes of what they name, repeats included.
    pub logical_bytes: u64,
    /// Plain bytes of the chunks that stay because they are named, each counted once.
    pub unique_bytes: u64,
    /// Chunks that stay because they are named.
    pub named: Amount,
    /// Chunks that stay because they are pinned.
    pub pinned: Amount,
    /// Chunks that stay because they are new, leased or were asked for lately.
    pub recent: Amount,
    /// Chunks that were condemned, per domain.
    pub condemned: BTreeMap<DomainId, Amount>,
    /// Marks that were taken back.
    pub pardoned: u64,
    /// Chunks that are gone.
    pub swept: Amount,
    /// The snapshot of the index, if one was due.
    pub snapshot: Option<SnapshotReport>,
    /// What became of the packs.
    pub compacted: CompactReport,
    /// What became of those that had come to rest.
    pub recompressed: RecompressReport,
    /// Manifests replaced, dropped or left behind, whose pages are gone.
    pub manifests_swept: u64,
    /// The disk was full and the reserve was given up for it.
    pub used_reserve: bool,
    /// There was no room to write anew what is left of mostly dead packs; the next collection goes on.
    pub short_of_room: bool,
    /// It was stopped before its end.
    pub stopped: bool,
    /// How long each of its steps took, pauses included.
    pub took: CollectTimes,
}

/// How long the steps of a collection took.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct CollectTimes {
    /// Reading what is named.
    pub mark: Duration,
    /// Choosing what goes.
    pub condemn: Duration,
    /// Reading what has been named since.
    pub remark: Duration,
    /// Deleting; the grace time is not in it.
    pub sweep: Duration,
    /// Writing a snapshot of the index, and what is left of packs anew.
    pub compact: Duration,
    /// Compressing packs anew.
    pub recompress: Duration,
}

impl CollectReport {
    /// What was condemned in all domains.
    pub fn condemned_total(&self) -> Amount {
        let mut total = Amount::default();
        for amount in self.condemned.values() {
            total.chunks += amount.chunks;
            total.bytes += amount.bytes;
        }
        total
    }
}

/// Collects one store.
#[derive(Debug)]
pub struct Collector<E> {
    kv: Arc<Database<E>>,
    packs: Arc<PackEngine>,
    marks: Arc<Marks<E>>,
    running: Mutex<()>,
}

impl<E: Engine + 'static> Collector<E> {
    /// The collector of a store. To be made when the store is opened, before anyone writes, even if it is never run: from now on
    /// the store knows what was condemned before.
    ///
    /// - `lease_window`: how long a chunk is kept after somebody was told that it is there.
    /// - Errors: [`Error::Store`] when the store has a collector.
    pub fn new(kv: Arc<Database<E>>, packs: Arc<PackEngine>, lease_window: Duration) -> Result<Self> {
        let marks = Arc::new(Marks::new(Arc::clone(kv.engine()), lease_window));
        marks.set_any(any_condemned(kv.engine().as_ref())?);
        packs.consult(marks.clone())?;
        Ok(Self {
            kv,
            packs,
            marks,
            running: Mutex::new(()),
        })
    }

    /// One collection. One that was stopped says so in its report.
    ///
    /// Errors: [`Error::Unrooted`], [`Error::Collecting`]; those of the index and the store, after which it can be run again.
    pub fn collect(&self, options: &CollectOptions, control: &CollectControl) -> Result<CollectReport> {
        if options.roots == Roots::Unrooted {
            return Err(Error::Unrooted);
        }
        let _running = match self.running.try_lock() {
            Err(TryLockError::WouldBlock) => return Err(Error::Collecting),
            Ok(guard) => guard,
            Err(TryLockError::Poisoned(poisoned)) => poisoned.into_inner(),
        };
        let mut run = Run::new(self, options, control);
        let outcome = run.all();
        run.report.used_reserve = run.used_reserve.get();
        if options.reserve && !options.dry_run {
            // There may be no room for it yet; the next collection tries again.
            match self.packs.keep_reserve() {
                Err(error) if !error.is_full() => return Err(error.into()),
                _ => {}
            }
        }
        match outcome {
            Err(Error::Stopped) => run.report.stopped = true,
            outcome => outcome?,
        }
        Ok(run.report)
    }
}

/// Compresses packs, the one that is being written included, that hold what came in raw blocks; nothing is collected. What hardly
/// shrinks is left, and not tried again while the store is open. May run beside a collection.
///
/// - `kv`: the rows whose log the packs are.
/// - `wait`: how long to wait before so many bytes are compressed.
/// - Errors: [`Error::Stopped`]; those of the index and the store, after which it can be run again. A disk without room is none: what
///   was written anew by then stays so.
pub fn squeeze<E: Engine>(
    kv: &Database<E>,
    packs: &PackEngine,
    level: Level,
    wait: &dyn Fn(u64) -> Duration,
    control: &CollectControl,
) -> Result<RecompressReport> {
    packs.sync()?;
    packs.seal_open()?;
    let options = RecompressOptions {
        level,
        gain_min: RECOMPRESS_GAIN_MIN,
        below: u32::MAX,
        commits_kept_from: LogPosition::default(),
    };
    let pace = |bytes| control.rest(wait(bytes));
    let seal = |held: u64| {
        let is_due = SnapshotPolicy::default().is_due(packs, held / SQUEEZE_GAIN_PART)?;
        Ok(is_due && write_snapshot(kv.engine().as_ref(), packs, &mut |bytes| pace(bytes))?.is_some())
    };
    let mut report = RecompressReport::default();
    match recompress(packs, &options, &pace, seal, &mut report) {
        Err(error) if !error.is_full() => Err(error),
        _ => Ok(report),
    }
}

/// Compresses packs, those too that a snapshot frees for it.
///
/// - `seal`: writes one if it is worth so many bytes that are held; whether it did.
fn recompress(
    packs: &PackEngine,
    options: &RecompressOptions,
    pace: &dyn Fn(u64) -> Result<()>,
    mut seal: impl FnMut(u64) -> Result<bool>,
    all: &mut RecompressReport,
) -> Result<()> {
    for _ in 0..2 {
        let done = through(|ended| packs.recompress(options, &mut |bytes| ended(pace(bytes))))?;
        all.packs_removed += done.packs_removed;
        all.packs_left = done.packs_left;
        all.bytes_before += done.bytes_before;
        all.bytes_after += done.bytes_after;
        all.bytes_held = done.bytes_held;
        if done.bytes_held == 0 || !seal(done.bytes_held)? {
            break;
        }
    }
    Ok(())
}

/// Of manifests: how many, chunks and plain bytes in them with repeats.
#[derive(Clone, Copy, Debug, Default)]
struct Totals {
    manifests: u64,
    references: u64,
    bytes: u64,
}

/// One collection, and what it knows.
pub(crate) struct Run<'a, E> {
    collector: &'a Collector<E>,
    options: &'a CollectOptions,
    control: &'a CollectControl,
    limit: Option<RateLimit>,
    used_reserve: Cell<bool>,
    report: CollectReport,
    /// The mark saw all commits up to this.
    marked: Version,
    named: NamedSet,
    /// Records at or behind this stay.
    horizon: LogPosition,
}

impl<'a, E: Engine + 'static> Run<'a, E> {
    pub(crate) fn new(collector: &'a Collector<E>, options: &'a CollectOptions, control: &'a CollectControl) -> Self {
        Self {
            collector,
            options,
            control,
            limit: options.bytes_per_second.map(RateLimit::new),
            used_reserve: Cell::new(false),
            report: CollectReport::default(),
            marked: Version::default(),
            named: NamedSet::new(0, 0),
            horizon: LogPosition::default(),
        }
    }

    fn all(&mut self) -> Result<()> {
        use CollectStage as Stage;
        self.timed(Stage::Mark, Self::mark, |took| &mut took.mark)?;
        self.timed(Stage::Condemn, Self::condemn, |took| &mut took.condemn)?;
        if self.options.dry_run {
            return Ok(());
        }
        self.timed(Stage::Remark, Self::remark, |took| &mut took.remark)?;
        self.control.begin(Stage::Grace);
        self.control.rest(self.options.grace)?;
        self.timed(Stage::Sweep, Self::sweep, |took| &mut took.sweep)?;
        self.timed(Stage::Compact, Self::compact, |took| &mut took.compact)?;
        self.timed(Stage::Recompress, Self::recompress, |took| &mut took.recompress)
    }

    fn timed(
        &mut self,
        stage: CollectStage,
        step: impl FnOnce(&mut Self) -> Result<()>,
        took: impl FnOnce(&mut CollectTimes) -> &mut Duration,
    ) -> Result<()> {
        self.control.begin(stage);
        let begun = Instant::now();
        let done = step(self);
        *took(&mut self.report.took) = begun.elapsed();
        done
    }

    /// Learns what is named, and pardons what an earlier collection, cut short, condemned of it.
    pub(crate) fn mark(&mut self) -> Result<()> {
        let kv = &self.collector.kv;
        if !self.options.dry_run {
            // What waits for room first: it may be what makes chunks needless, or marks of an earlier collection, which have to be
            // seen here to be pardoned.
            self.with_room(|| Ok(self.collector.packs.sync()?))?;
        }
        self.horizon = self.collector.packs.position().min(self.options.new_from);
        for lease in leases(kv.as_ref())? {
            if lease.until >= self.options.now {
                self.horizon = self.horizon.min(lease.begun);
            }
        }
        // Read first: what is committed between the two is looked at twice.
        self.marked = kv.engine().version();
        let snapshot = kv.snapshot()?;
        let also = &self.options.also_named;
        let (named, totals) = self.named_by(snapshot.as_ref(), Version::default(), also)?;
        (self.report.manifests, self.report.references) = (totals.manifests, totals.references);
        self.report.logical_bytes = totals.bytes;
        self.named = named;
        if !self.options.dry_run {
            self.pardon_named(snapshot.as_ref(), &self.named)?;
        }
        Ok(())
    }

    /// What manifests name that were committed after a version.
    fn named_by(&self, view: &(impl View + ?Sized), since: Version, also: &[ChunkKey]) -> Result<(NamedSet, Totals)> {
        let mut totals = Totals::default();
        for_each_manifest(view, since, |_, _, manifest| {
            totals.manifests += 1;
            totals.references += manifest.chunks;
            totals.bytes += manifest.len;
            Ok::<_, Error>(())
        })?;
        for_each_root(view, since, |_, root| {
            totals.manifests += 1;
            totals.references += root.count();
            totals.bytes += root.len();
            self.control.step()
        })?;
        let mut named = NamedSet::new(totals.references + also.len() as u64, self.options.mark_memory);
        also.iter().for_each(|key| named.insert(key));
        for_each_manifest(view, since, |tenant, _, manifest| {
            self.name_pages(view, tenant, &manifest, &mut named)
        })?;
        for_each_root(view, since, |tenant, root| match root {
            Root::Chunks(domain, chunks) => {
                self.pace(36 * chunks.len() as u64)?;
                name_all(&mut named, domain, &chunks);
                self.control.step()
            }
            Root::Manifest(manifest) => self.name_pages(view, tenant, &manifest, &mut named),
        })?;
        Ok((named, totals))
    }

    fn name_pages(
        &self,
        view: &(impl View + ?Sized),
        tenant: &Tenant,
        manifest: &Manifest,
        named: &mut NamedSet,
    ) -> Result<()> {
        for page in 0..manifest.pages() {
            let chunks = manifest_page(view, tenant, manifest, page)?;
            self.pace(36 * chunks.len() as u64)?;
            name_all(named, manifest.domain, &chunks);
        }
        self.control.step()
    }

    /// Takes back the marks on what is named. Returns how many.
    fn pardon_named(&self, view: &(impl View + ?Sized), named: &NamedSet) -> Result<u64> {
        let kv = self.collector.kv.as_ref();
        let mut count = 0;
        in_batches(
            |visit| {
                for_each_condemned(view, |chunk| {
                    if named.contains(&chunk.key) {
                        visit(chunk)
                    } else {
                        Ok(())
                    }
                })
            },
            |chunks| {
                count += chunks.len() as u64;
                self.with_room(|| pardon(kv, chunks))
            },
        )?;
        Ok(count)
    }

    pub(crate) fn condemn(&mut self) -> Result<()> {
        let Collector { kv, packs, marks, .. } = self.collector;
        marks.set_any(true);
        let mut report = std::mem::take(&mut self.report);
        let this = &*self;
        let found = in_batches(
            |visit| {
                through(|ended| {
                    packs.locations().for_each(&mut |key, place| {
                        let at = chunk_at(key, &place);
                        let kept = if place.pinned && this.options.keep_pinned {
                            &mut report.pinned
                        } else if this.named.contains(&key) {
                            report.unique_bytes += u64::from(place.plain_len);
                            &mut report.named
                        } else if at.at >= this.horizon || marks.is_touched(&key) {
                            &mut report.recent
                        } else {
                            report.condemned.entry(key.domain).or_default().add(&place);
                            return ended(visit(at));
                        };
                        kept.add(&place);
                        Ok(())
                    })
                })
            },
            |chunks| {
                this.control.step()?;
                if this.options.dry_run {
                    return Ok(());
                }
                this.with_room(|| condemn(kv.as_ref(), chunks))
            },
        );
        self.report = report;
        found
    }

    /// Pardons what has been named since the mark. After this no manifest can come to name what is condemned.
    pub(crate) fn remark(&mut self) -> Result<()> {
        if is_planted(Bug::MissingRemark) {
            return Ok(());
        }
        let snapshot = self.collector.kv.snapshot()?;
        let (named, totals) = self.named_by(snapshot.as_ref(), self.marked, &[])?;
        if totals.manifests > 0 {
            self.report.pardoned += self.pardon_named(snapshot.as_ref(), &named)?;
        }
        Ok(())
    }

    pub(crate) fn sweep(&mut self) -> Result<()> {
        let Collector { kv, packs, marks, .. } = self.collector;
        let mut gone = Amount::default();
        let outcome = in_batches(
            |visit| for_each_condemned(kv.as_ref(), visit),
            |chunks| {
                self.control.step()?;
                let keys: Vec<ChunkKey> = chunks.iter().map(|chunk| chunk.key).collect();
                let places = packs.locations().get_many(&keys)?;
                let there = chunks.iter().zip(places).filter_map(|(chunk, place)| {
                    let place =
                        place.filter(|place| chunk_at(chunk.key, place) == *chunk || is_planted(Bug::SweepById))?;
                    Some((chunk.key, place))
                });
                let there: Vec<(ChunkKey, ChunkPlace)> = there.collect();
                self.with_room(|| {
                    packs.remove_at(&there)?;
                    swept(kv.as_ref(), chunks)
                })?;
                there.iter().for_each(|(_, place)| gone.add(place));
                Ok(())
            },
        );
        self.report.swept = gone;
        outcome?;
        marks.set_any(false);
        let now_ms = self.options.now.saturating_mul(1000);
        self.with_room(|| sweep_names(kv.as_ref(), now_ms, self.options.blob_days))?;
        self.report.manifests_swept += self.with_room(|| sweep_all_manifests(kv.as_ref(), self.options.now))? as u64;
        Ok(())
    }

    /// Writes a snapshot of the index if that makes enough of the packs needless. Returns whether there is a new one.
    ///
    /// - `also_held`: bytes that would be free besides.
    fn seal(&mut self, also_held: u64) -> Result<bool> {
        let Collector { kv, packs, .. } = self.collector;
        if !self.options.snapshots.is_due(packs, also_held)? {
            return Ok(false);
        }
        let write = || write_snapshot(kv.engine().as_ref(), packs, &mut |bytes| self.pace(bytes));
        let written = match write() {
            Err(error) if error.is_full() && self.release_reserve()? => write(),
            done => done,
        }
        .or_else(|error| {
            self.report.short_of_room |= error.is_full();
            if error.is_full() { Ok(None) } else { Err(error) }
        })?;
        self.report.snapshot = written.or(self.report.snapshot);
        Ok(written.is_some())
    }

    fn compact(&mut self) -> Result<()> {
        self.seal(0)?;
        let packs = &self.collector.packs;
        let Some(live_share_min) =
            packs.share_to_compact(self.options.dead_share_max, self.options.commits_kept_from)?
        else {
            return Ok(());
        };
        let options = CompactOptions {
            live_share_min,
            commits_kept_from: self.options.commits_kept_from,
        };
        let compact = || through(|ended| packs.compact_paced(&options, &mut |bytes| ended(self.pace(bytes))));
        let compacted = match compact() {
            Err(error) if error.is_full() && self.release_reserve()? => compact(),
            done => done,
        };
        let compacted = match compacted {
            Err(error) if error.is_full() => {
                self.report.short_of_room = true;
                return Ok(());
            }
            done => done?,
        };
        self.report.compacted = compacted;
        Ok(())
    }

    /// Compresses packs anew that are older than all leases.
    fn recompress(&mut self) -> Result<()> {
        let Some(Recompress {
            level,
            bytes_per_second,
        }) = self.options.recompress
        else {
            return Ok(());
        };
        let limit = bytes_per_second.map(RateLimit::new);
        let options = RecompressOptions {
            level,
            gain_min: RECOMPRESS_GAIN_MIN,
            below: self.horizon.pack,
            commits_kept_from: self.options.commits_kept_from,
        };
        let control = self.control;
        let pace = |bytes| {
            let wait = limit.as_ref().map(|limit| limit.take(bytes as usize));
            control.rest(wait.unwrap_or_default())
        };
        let mut report = RecompressReport::default();
        let packs = Arc::clone(&self.collector.packs);
        let seal = |held| self.seal(held / RECOMPRESS_GAIN_PART);
        let done = recompress(&packs, &options, &pace, seal, &mut report);
        self.report.recompressed = report;
        match done {
            Err(error) if error.is_full() => {
                self.report.short_of_room = true;
                Ok(())
            }
            done => done,
        }
    }

    /// Waits as long as the rate asks for.
    fn pace(&self, bytes: u64) -> Result<()> {
        let wait = self.limit.as_ref().map(|limit| limit.take(bytes as usize));
        self.control.rest(wait.unwrap_or_default())
    }

    /// Does something that writes; once more, with the room in reserve, if there is none on the disk.
    fn with_room<T>(&self, mut work: impl FnMut() -> Result<T>) -> Result<T> {
        match work() {
            Err(error) if error.is_full() && self.release_reserve()? => work(),
            done => done,
        }
    }

    /// Returns whether there was one.
    fn release_reserve(&self) -> Result<bool> {
        let released = self.collector.packs.release_reserve()?;
        self.used_reserve.set(self.used_reserve.get() || released);
        Ok(released)
    }
}

fn name_all(named: &mut NamedSet, domain: DomainId, chunks: &[ManifestChunk]) {
    for chunk in chunks {
        named.insert(&ChunkKey { domain, id: chunk.id });
    }
}

/// Gathers chunks, and hands them on [`STEP_CHUNKS`] at a time.
fn in_batches(
    walk: impl FnOnce(&mut dyn FnMut(ChunkAt) -> Result<()>) -> Result<()>,
    mut each: impl FnMut(&[ChunkAt]) -> Result<()>,
) -> Result<()> {
    let mut batch = Vec::new();
    walk(&mut |chunk| {
        batch.push(chunk);
        if batch.len() == STEP_CHUNKS {
            each(&batch)?;
            batch.clear();
        }
        Ok(())
    })?;
    if batch.is_empty() { Ok(()) } else { each(&batch) }
}

/// Runs a walk of the store whose visitor may end it with an error of ours.
fn through<T>(
    walk: impl FnOnce(&mut dyn FnMut(Result<()>) -> cairn_store::Result<()>) -> cairn_store::Result<T>,
) -> Result<T> {
    let mut ours = None;
    let done = walk(&mut |outcome| {
        outcome.map_err(|error| {
            ours = Some(error);
            cairn_store::Error::Unavailable {
                store: cairn_store::StoreName::new("the collector"),
                action: "go on",
                source: "it ended".into(),
            }
        })
    });
    match ours {
        Some(error) => Err(error),
        None => Ok(done?),
    }
}
