//! The pack store: durable ingest by many writers beside the flat store and beside the disk itself, existence, random reads.

use std::fs::{self, File};
use std::hint::black_box;
use std::io::{self, Write as _};
use std::os::unix::fs::FileExt as _;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use bytes::Bytes;
use cairn_formats::{Chunk, ChunkForm, ChunkId, DigestAlgorithm, DomainId, Level, StorableChunk};
use cairn_store::{
    ChunkStore, FlatOptions, FlatStore, Host, HostFile, MemoryLocations, PackEngine, PackOptions, PackStore, StoreName,
};

use crate::Result;
use crate::slow_disk::SlowDisk;
use crate::table::median;

/// Chunks of one repeat.
const CHUNKS: usize = 8192;
const CHUNK_LEN: usize = 64 << 10;
const WRITERS: usize = 16;
/// Chunks that a writer puts before it waits for them to be durable.
const BATCH: usize = 16;
/// Bytes of a slow disk.
const DISK_LEN: u64 = 12 << 30;
/// Bytes of a write of the plain file that shows what the disk can do, synced after each.
const PLAIN_WRITE: usize = 16 << 20;
/// Chunks of the store that is asked for existence and read at random, and their length.
const SMALL_CHUNKS: usize = 1_000_000;
const SMALL_LEN: usize = 100;

/// - `flushes`: milliseconds that a flush of the disk takes; each is one more table of ingest.
pub(crate) fn run(folder: &Path, repeats: usize, flushes: &[u64]) -> Result<String> {
    let mut text = ingest(folder, repeats, "the disk of the scratch folder")?;
    for &milliseconds in flushes {
        let folder = tempfile::tempdir_in(folder)?;
        let disk = SlowDisk::mount(folder.path(), DISK_LEN, Duration::from_millis(milliseconds))?;
        let what = format!("a disk in memory whose flush takes {milliseconds} ms");
        text += &ingest(&disk.at, repeats, &what)?;
    }
    Ok(text + &lookups(folder, repeats)?)
}

fn chunks(count: usize, len: usize, seed: u64) -> Vec<StorableChunk> {
    let mut random = fastrand::Rng::with_seed(seed);
    let plains = (0..count).map(|_| {
        let mut plain = vec![0; len];
        random.fill(&mut plain);
        Bytes::from(plain)
    });
    let chunks = Chunk::from_plain_many(DigestAlgorithm::default(), plains.collect());
    chunks
        .iter()
        .map(|chunk| chunk.encode(ChunkForm::Compressed, Level::new(1)))
        .collect()
}

fn ingest(folder: &Path, repeats: usize, disk: &str) -> Result<String> {
    let chunks = chunks(CHUNKS, CHUNK_LEN, 11);
    let mut rows: Vec<(&str, Vec<f64>)> = [
        "pack store",
        "pack store, on a host that forgets what is written",
        "flat store, one sync a flush",
        "flat layout, one fsync a file and folder",
        "one plain file, a sync every 16 MiB",
    ]
    .map(|way| (way, Vec::new()))
    .into();
    for repeat in 0..repeats {
        let place = |way: &str| -> Result<std::path::PathBuf> {
            let place = folder.join(format!("packs-{way}-{repeat}"));
            fs::create_dir(&place)?;
            Ok(place)
        };
        let at = place("pack")?;
        rows[0].1.push(timed(|| {
            let (store, _) = PackStore::open(&at, PackOptions::default())?;
            by_many(&store, &chunks)
        })?);
        rows[1].1.push(timed(|| by_many(&forgetful()?, &chunks))?);
        let at = place("flat")?;
        rows[2].1.push(timed(|| {
            by_many(&FlatStore::open(&at, FlatOptions::default())?, &chunks)
        })?);
        let at = place("each")?;
        rows[3].1.push(timed(|| one_fsync_a_file(&at, &chunks))?);
        let at = place("plain")?;
        rows[4].1.push(timed(|| plain_file(&at, &chunks))?);
    }
    let ours = median(rows[0].1.clone());
    let mut text = format!(
        "\n### Ingest by {WRITERS} writers\n\n{CHUNKS} frames of {} KiB, each writer durable every {BATCH}, on {disk}; median of {repeats}, interleaved.\n\n\
         | way | seconds | MiB/s | time / pack store |\n|---|---|---|---|\n",
        CHUNK_LEN >> 10
    );
    for (way, seconds) in rows {
        let seconds = median(seconds);
        let rate = ((CHUNKS * CHUNK_LEN) >> 20) as f64 / seconds;
        text += &format!("| {way} | {seconds:.3} | {rate:.0} | {:.2} |\n", seconds / ours);
    }
    Ok(text)
}

fn timed(work: impl FnOnce() -> Result<()>) -> Result<f64> {
    rustix::fs::sync();
    let start = Instant::now();
    work()?;
    Ok(start.elapsed().as_secs_f64())
}

/// Every writer its share, durable batch by batch; everything is there in the end.
fn by_many(store: &dyn ChunkStore, chunks: &[StorableChunk]) -> Result<()> {
    std::thread::scope(|scope| {
        let writers: Vec<_> = chunks
            .chunks(chunks.len().div_ceil(WRITERS))
            .map(|share| {
                scope.spawn(move || {
                    share.chunks(BATCH).try_for_each(|batch| {
                        store.put_many(batch)?;
                        store.flush()
                    })
                })
            })
            .collect();
        writers
            .into_iter()
            .try_for_each(|writer| writer.join().expect("writers do not panic"))
    })?;
    let ids: Vec<ChunkId> = chunks.iter().map(StorableChunk::id).collect();
    if store.has_many(&ids)?.contains(&false) {
        return Err("a chunk that was put is not there".into());
    }
    Ok(())
}

fn one_fsync_a_file(at: &Path, chunks: &[StorableChunk]) -> Result<()> {
    let write = |chunk: &StorableChunk| -> io::Result<()> {
        let name = chunk.id().to_string();
        let folder = at.join(&name[..4]);
        fs::create_dir_all(&folder)?;
        let temporary = folder.join(format!(".tmp-{name}"));
        let mut file = File::create(&temporary)?;
        file.write_all(chunk.bytes())?;
        file.sync_all()?;
        fs::rename(&temporary, folder.join(format!("{name}.cacnk")))?;
        File::open(&folder)?.sync_all()
    };
    std::thread::scope(|scope| {
        let shares = chunks.chunks(chunks.len().div_ceil(WRITERS));
        let writers: Vec<_> = shares
            .map(|share| scope.spawn(move || share.iter().try_for_each(write)))
            .collect();
        writers
            .into_iter()
            .try_for_each(|writer| writer.join().expect("writers do not panic"))
    })?;
    Ok(())
}

fn plain_file(at: &Path, chunks: &[StorableChunk]) -> Result<()> {
    let file = File::create(at.join("file"))?;
    let mut offset = 0;
    for group in chunks.chunks(PLAIN_WRITE / CHUNK_LEN) {
        for chunk in group {
            file.write_all_at(chunk.bytes(), offset)?;
            offset += chunk.bytes().len() as u64;
        }
        file.sync_data()?;
    }
    Ok(())
}

fn lookups(folder: &Path, repeats: usize) -> Result<String> {
    let at = folder.join("packs-lookups");
    let chunks = chunks(SMALL_CHUNKS, SMALL_LEN, 12);
    let mut random = fastrand::Rng::with_seed(13);
    let mut ids: Vec<ChunkId> = chunks.iter().map(StorableChunk::id).collect();
    random.shuffle(&mut ids);
    let absent: Vec<ChunkId> = ids.iter().map(|id| DigestAlgorithm::Sha256.id(id.as_bytes())).collect();
    let (store, _) = PackStore::open(&at, PackOptions::default())?;
    for batch in chunks.chunks(10_000) {
        store.put_many(batch)?;
    }
    store.flush()?;
    drop((store, chunks));
    let (mut open, mut present, mut missing, mut one, mut many) = (vec![], vec![], vec![], vec![], vec![]);
    for _ in 0..repeats {
        let start = Instant::now();
        let (store, _) = PackStore::open(&at, PackOptions::default())?;
        open.push(start.elapsed().as_secs_f64());
        let rate = |ids: &[ChunkId], work: &dyn Fn(&[ChunkId]) -> Result<()>| -> Result<f64> {
            let start = Instant::now();
            ids.chunks(1000).try_for_each(work)?;
            Ok(ids.len() as f64 / start.elapsed().as_secs_f64())
        };
        let asked = |wanted: bool| {
            let store = &store;
            move |ids: &[ChunkId]| match store.has_many(ids)?.contains(&!wanted) {
                false => Ok(()),
                true => Err("a wrong answer about existence".into()),
            }
        };
        present.push(rate(&ids, &asked(true))?);
        missing.push(rate(&absent, &asked(false))?);
        one.push(rate(&ids[..100_000], &|ids| {
            ids.iter().try_for_each(|&id| {
                black_box(store.get_many(&[id]).remove(0)?);
                Ok(())
            })
        })?);
        many.push(rate(&ids, &|ids| {
            store.get_many(ids).into_iter().try_for_each(|answer| {
                black_box(answer?);
                Ok(())
            })
        })?);
    }
    let millions = |rates: Vec<f64>| median(rates) / 1e6;
    Ok(format!(
        "\n### Look-ups in a pack store\n\n{SMALL_CHUNKS} chunks of {SMALL_LEN} bytes, places in memory, files in the page cache, one thread; median of {repeats}.\n\n\
         | what | figure |\n|---|---|\n| open | {:.2} s |\n| has-many by 1000, present | {:.2} M/s |\n| has-many by 1000, absent | {:.2} M/s |\n\
         | get, one at a time, at random | {:.2} M/s |\n| get by 1000, at random | {:.2} M/s |\n",
        median(open),
        millions(present),
        millions(missing),
        millions(one),
        millions(many),
    ))
}

/// A pack store whose files are forgotten as they are written: what the engine itself costs.
fn forgetful() -> Result<PackStore> {
    let host = Arc::new(Forgetful(Instant::now()));
    let (engine, _) = PackEngine::open_on(
        StoreName::new("forgetful"),
        host,
        PackOptions::default(),
        Arc::new(MemoryLocations::default()),
    )?;
    Ok(PackStore::new(Arc::new(engine), DomainId::default()))
}

#[derive(Debug)]
struct Forgetful(Instant);

impl Host for Forgetful {
    fn list(&self) -> io::Result<Vec<String>> {
        Ok(Vec::new())
    }
    fn create(&self, _name: &str) -> io::Result<Arc<dyn HostFile>> {
        Ok(Arc::new(ForgetfulFile(AtomicU64::new(0))))
    }
    fn open(&self, _name: &str) -> io::Result<Arc<dyn HostFile>> {
        Err(io::ErrorKind::NotFound.into())
    }
    fn remove(&self, _name: &str) -> io::Result<()> {
        Ok(())
    }
    fn sync_names(&self) -> io::Result<()> {
        Ok(())
    }
    fn now(&self) -> Duration {
        self.0.elapsed()
    }
    fn unix_seconds(&self) -> u64 {
        0
    }
    fn random(&self) -> io::Result<[u8; 16]> {
        Ok([1; 16])
    }
}

#[derive(Debug)]
struct ForgetfulFile(AtomicU64);

impl HostFile for ForgetfulFile {
    fn len(&self) -> io::Result<u64> {
        Ok(self.0.load(Ordering::Relaxed))
    }
    fn read_at(&self, _offset: u64, _buffer: &mut [u8]) -> io::Result<usize> {
        Err(io::ErrorKind::Unsupported.into())
    }
    fn write_at(&self, offset: u64, pieces: &[&[u8]]) -> io::Result<()> {
        let len: usize = pieces.iter().map(|piece| piece.len()).sum();
        self.0.fetch_max(offset + len as u64, Ordering::Relaxed);
        Ok(())
    }
    fn truncate(&self, _len: u64) -> io::Result<()> {
        Ok(())
    }
    fn sync(&self) -> io::Result<()> {
        Ok(())
    }
}
