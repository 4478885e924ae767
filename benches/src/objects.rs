//! The object layer without a door: put and get by several threads, and the end of an upload in parts.
//!
//! All is durable when it is answered. Bodies compress about two to one (`text`), not at all (`random`), or are there already.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use cairn_index::names::{
    Bucket, BucketName, Cause, Condition, Names, NewBucket, ObjectKey, Owner, PartNumber, UploadRecord,
};
use cairn_index::{
    Collector, Compression, Database, DigestsWanted, ListedPart, ObjectOptions, Objects, RocksEngine, RocksOptions,
    Tenant,
};
use cairn_store::{PackEngine, PackOptions};
use rustix::time::{ClockId, clock_gettime};

use crate::Result;
use crate::table::median;

const LARGE_LEN: usize = 16 << 20;
const LARGE: usize = 32;
const LARGE_CLIENTS: usize = 8;
const SMALL_LEN: usize = 4 << 10;
const SMALL: usize = 8192;
const SMALL_CLIENTS: usize = 64;
/// Parts of an upload, of the least length that S3 allows.
const PARTS: usize = 64;
const PART_LEN: usize = 5 << 20;

/// What one way took: seconds, and seconds of CPU.
type Took = (f64, f64);

pub(crate) fn run(folder: &Path, repeats: usize) -> Result<String> {
    let mut rows: Vec<(String, f64, Vec<Took>)> = Vec::new();
    let mut uploads = Vec::new();
    for repeat in 0..repeats {
        let mut add = |name: &str, amount: f64, took: Took| match rows.iter_mut().find(|row| row.0 == name) {
            Some(row) => row.2.push(took),
            None => rows.push((name.to_owned(), amount, vec![took])),
        };
        for (compression, name) in [
            (Compression::Level(1), "level 1"),
            (Compression::Deferred, "raw blocks"),
        ] {
            let world = World::open(&folder.join(format!("objects-{name}-{repeat}")), compression)?;
            let mib = (LARGE * LARGE_LEN) as f64 / (1 << 20) as f64;
            for kind in ["text", "random"] {
                let bodies = bodies(kind, repeat as u64);
                add(
                    &format!("PUT 16 MiB, {kind}, new, {name}"),
                    mib,
                    world.put(kind, &bodies, LARGE_CLIENTS)?,
                );
                let again = format!("{kind} again");
                add(
                    &format!("PUT 16 MiB, {kind}, there already, {name}"),
                    mib,
                    world.put(&again, &bodies, LARGE_CLIENTS)?,
                );
                add(
                    &format!("GET 16 MiB, {kind}, {name}"),
                    mib,
                    world.get(kind, &bodies, LARGE_CLIENTS)?,
                );
            }
            if compression == Compression::Deferred {
                let small: Vec<Vec<u8>> = (0..SMALL)
                    .map(|n| noise(n as u64 + 1000 * repeat as u64, SMALL_LEN))
                    .collect();
                add(
                    "PUT 4 KiB, 64 clients (objects)",
                    SMALL as f64,
                    world.put("small", &small, SMALL_CLIENTS)?,
                );
                add(
                    "GET 4 KiB, 64 clients (objects)",
                    SMALL as f64,
                    world.get("small", &small, SMALL_CLIENTS)?,
                );
            }
            for shuffled in [false, true] {
                uploads.push((shuffled, world.upload(shuffled, repeat as u64)?));
            }
        }
    }
    let mut text = format!(
        "\n### Object layer\n\nNo door; {LARGE_CLIENTS} threads for 16 MiB, durable when answered; median of {repeats}.\n\n| work | MiB/s or objects/s | CPU-s per GiB or 1000 objects |\n|---|---|---|\n"
    );
    for (name, amount, took) in rows {
        let seconds = median(took.iter().map(|took| took.0).collect());
        let cpu = median(took.iter().map(|took| took.1).collect());
        let unit = if name.contains("objects") { 1000.0 } else { 1024.0 };
        text += &format!("| {name} | {:.0} | {:.2} |\n", amount / seconds, cpu / amount * unit);
    }
    text += &format!(
        "\nUploads of {PARTS} parts of 5 MiB, random bytes:\n\n| parts come | ms to complete | bytes read at the end | bytes read for seams before |\n|---|---|---|---|\n"
    );
    for shuffled in [false, true] {
        let of = |which: fn(&(f64, u64, u64)) -> f64| {
            let these = uploads.iter().filter(|(is, _)| *is == shuffled);
            median(these.map(|(_, upload)| which(upload)).collect())
        };
        let order = if shuffled { "in any order" } else { "in order" };
        let share = of(|upload| upload.2 as f64) / (PARTS * PART_LEN) as f64 * 100.0;
        text += &format!(
            "| {order} | {:.0} | {:.0} | {share:.2} % |\n",
            of(|upload| upload.0 * 1e3),
            of(|upload| upload.1 as f64)
        );
    }
    Ok(text)
}

fn noise(seed: u64, len: usize) -> Vec<u8> {
    let mut bytes = vec![0; len];
    fastrand::Rng::with_seed(seed).fill(&mut bytes);
    bytes
}

/// Bodies of which no piece comes twice.
fn bodies(kind: &str, seed: u64) -> Vec<Vec<u8>> {
    let body = |n: usize| {
        let mut bytes = noise(seed << 20 | n as u64, LARGE_LEN);
        if kind == "text" {
            // Four bits of chance a byte.
            bytes
                .iter_mut()
                .for_each(|byte| *byte = b"etaoinshrdlucmfw"[usize::from(*byte & 15)]);
        }
        bytes
    };
    (0..LARGE).map(body).collect()
}

pub(crate) struct World {
    pub(crate) objects: Arc<Objects>,
    pub(crate) bucket: Bucket,
    _collector: Collector<RocksEngine>,
}

/// In a world's folder.
pub(crate) const INDEX_FOLDER: &str = "index";

pub(crate) fn owner() -> Result<Owner> {
    Ok(Owner::new("bench")?)
}

impl World {
    /// Opens a folder, which is made, and its bucket.
    pub(crate) fn open(folder: &Path, compression: Compression) -> Result<Self> {
        std::fs::create_dir_all(folder)?;
        let engine = RocksEngine::open(&folder.join(INDEX_FOLDER), &RocksOptions::default())?;
        let engine = Arc::new(engine);
        let (packs, _) = PackEngine::open_folder(&folder.join("packs"), PackOptions::default(), engine.clone())?;
        let packs = Arc::new(packs);
        let kv = Arc::new(Database::logged(engine, packs.clone()));
        cairn_index::open_schema(kv.as_ref(), "the bench")?;
        let collector = Collector::new(kv.clone(), packs.clone(), Duration::from_secs(600))?;
        let options = ObjectOptions {
            compression,
            ..ObjectOptions::default()
        };
        let objects = Objects::new(Names::new(kv), packs, options);
        let tenant = Tenant::default();
        let buckets = objects.names().buckets(&tenant);
        let name = BucketName::new("bench")?;
        let bucket = match buckets.get(&name) {
            Ok(bucket) => bucket,
            Err(cairn_index::Error::NoBucket { .. }) => buckets.create(&name, NewBucket::of(owner()?))?,
            Err(error) => return Err(error.into()),
        };
        Ok(Self {
            objects,
            bucket,
            _collector: collector,
        })
    }

    fn put(&self, name: &str, bodies: &[Vec<u8>], clients: usize) -> Result<Took> {
        let wanted = DigestsWanted {
            md5: true,
            checksums: vec![cairn_formats::ChecksumAlgorithm::Crc64Nvme],
        };
        by_clients(clients, bodies, |n, body| {
            let mut writer = self.objects.writer(&self.bucket, &wanted)?;
            for piece in body.chunks(64 << 10) {
                writer.push(piece)?;
            }
            let key = ObjectKey::new(format!("{name}/{n}"))?;
            let (condition, cause) = (Condition::Always, Cause::default());
            writer.finish()?.put(&key, &owner()?, |_| {}, &condition, &cause)?;
            Ok(())
        })
    }

    fn get(&self, name: &str, bodies: &[Vec<u8>], clients: usize) -> Result<Took> {
        by_clients(clients, bodies, |n, body| {
            let key = ObjectKey::new(format!("{name}/{n}"))?;
            let version = self.objects.names().objects(&self.bucket).current(&key)?;
            let record = version.object().ok_or("it is no object")?;
            let mut rest = body;
            for piece in self
                .objects
                .read(self.bucket.tenant(), &record.content, 0..record.size)?
            {
                let piece = piece?;
                let (head, behind) = rest.split_at_checked(piece.len()).ok_or("more bytes than were put")?;
                if head != &piece[..] {
                    return Err("other bytes than were put".into());
                }
                rest = behind;
            }
            if rest.is_empty() {
                Ok(())
            } else {
                Err("less bytes than were put".into())
            }
        })
    }

    /// Seconds to complete, bytes read for that, bytes read for seams while parts came.
    fn upload(&self, shuffled: bool, seed: u64) -> Result<(f64, u64, u64)> {
        let mut random = fastrand::Rng::with_seed(seed);
        let key = ObjectKey::new(format!("parts/{shuffled}"))?;
        let upload = self
            .objects
            .names()
            .uploads(&self.bucket)
            .begin(&key, UploadRecord::of(owner()?))?;
        let mut order: Vec<usize> = (1..=PARTS).collect();
        if shuffled {
            random.shuffle(&mut order);
        }
        let wanted = DigestsWanted {
            md5: true,
            checksums: Vec::new(),
        };
        let before = self.objects.seam_bytes();
        let number = |n: usize| PartNumber::new(n as u64).ok_or("no number of a part");
        for n in order {
            let mut writer = self.objects.part_writer(&self.bucket, &wanted)?;
            writer.push(&noise(seed << 32 | (n as u64) << 8 | u64::from(shuffled), PART_LEN))?;
            writer.finish()?.put_part(&upload, number(n)?, None)?;
        }
        let listed = (1..=PARTS).map(|n| {
            Ok(ListedPart {
                number: number(n)?,
                etag: None,
                checksum: None,
            })
        });
        let listed = listed.collect::<Result<Vec<_>>>()?;
        let start = Instant::now();
        let (condition, cause) = (Condition::Always, Cause::default());
        let done = self
            .objects
            .complete(&self.bucket, &upload, &listed, |_| {}, &condition, &cause)?;
        let seconds = start.elapsed().as_secs_f64();
        Ok((seconds, done.bytes_read, self.objects.seam_bytes() - before))
    }
}

/// Has so many threads do each piece of work once.
fn by_clients(clients: usize, bodies: &[Vec<u8>], work: impl Fn(usize, &[u8]) -> Result<()> + Sync) -> Result<Took> {
    let next = AtomicU64::new(0);
    let (start, cpu) = (Instant::now(), process_time());
    let errors: Vec<String> = std::thread::scope(|scope| {
        let client = || {
            scope.spawn(|| {
                loop {
                    let n = next.fetch_add(1, Ordering::Relaxed) as usize;
                    let body = bodies.get(n)?;
                    if let Err(error) = work(n, body) {
                        return Some(error.to_string());
                    }
                }
            })
        };
        let threads: Vec<_> = (0..clients).map(|_| client()).collect();
        let join = |thread: std::thread::ScopedJoinHandle<'_, Option<String>>| match thread.join() {
            Ok(error) => error,
            Err(_) => Some("a client panicked".to_owned()),
        };
        threads.into_iter().filter_map(join).collect()
    });
    match errors.into_iter().next() {
        Some(error) => Err(error.into()),
        None => Ok((start.elapsed().as_secs_f64(), (process_time() - cpu).as_secs_f64())),
    }
}

pub(crate) fn process_time() -> Duration {
    let now = clock_gettime(ClockId::ProcessCPUTime);
    Duration::new(now.tv_sec.unsigned_abs(), now.tv_nsec.unsigned_abs() as u32)
}
