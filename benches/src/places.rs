//! Where chunks lie: existence and places by the tables in memory and by RocksDB, what a look-up reads and what a chunk takes of
//! memory, at the size of terabytes.

use std::fs;
use std::hint::black_box;
use std::path::Path;
use std::sync::Arc;
use std::time::Instant;

use cairn_formats::{Chunk, ChunkForm, ChunkId, DigestAlgorithm, DomainId, Level, StorableChunk};
use cairn_index::{BlockReads, RocksEngine, RocksOptions};
use cairn_store::{
    Change, ChunkKey, ChunkPlace, ChunkStore, DenseLocations, Locations, LogPosition, MemoryLocations, PackEngine,
    PackOptions, PackStore, SyncPolicy,
};

use crate::Result;
use crate::table::median;

/// Ids of one has-many measurement.
const ASKED: u64 = 1_000_000;
/// Ids of one call.
const BATCH: usize = 1000;
/// Changes applied together.
const CHANGES: u64 = 100_000;
/// Look-ups one at a time.
const SINGLE: u64 = 200_000;
/// Least bytes of a record's plain chunk.
const RECORD_LEN: usize = 100;
/// Chunks of a TiB at 64 KiB.
const CHUNKS_OF_A_TIB: f64 = (1u64 << 24) as f64;

/// - `rows`: of RocksDB; `records`: of a store that is read.
pub(crate) fn run(folder: &Path, rows: u64, records: u64, repeats: usize) -> Result<String> {
    let mut text = "\n### Where chunks lie\n".to_owned();
    text += &existence(folder, repeats)?;
    text += &many_rows(folder, rows, repeats)?;
    text += &many_records(folder, records)?;
    Ok(text)
}

/// Id `n` of those that are there; from `1 << 60` on, of those that are not.
fn key(n: u64) -> ChunkKey {
    let mut random = fastrand::Rng::with_seed(n ^ 0x5eed_0000_0000);
    let mut id = [0; 32];
    random.fill(&mut id);
    ChunkKey {
        domain: DomainId::default(),
        id: ChunkId::from_bytes(id),
    }
}

fn fill(locations: &dyn Locations, rows: u64) -> Result<f64> {
    const FRAME_LEN: u64 = 27 << 10;
    const IN_A_PACK: u64 = (256 << 20) / FRAME_LEN;
    let start = Instant::now();
    let place = |n: u64| ChunkPlace {
        pack: (n / IN_A_PACK) as u32 + 1,
        offset: 64 + n % IN_A_PACK * FRAME_LEN,
        len: FRAME_LEN as u32 - 88,
        plain_len: 64 << 10,
        crc: n as u32,
        pinned: true,
    };
    let mut done = 0;
    while done < rows {
        let next = (done + CHANGES).min(rows);
        let changes: Vec<Change> = (done..next).map(|n| Change::Put(key(n), place(n))).collect();
        locations.apply(&changes, LogPosition { pack: 1, offset: next })?;
        done = next;
    }
    locations.persist()?;
    Ok(rows as f64 / start.elapsed().as_secs_f64())
}

/// Ids a second of one core's time, thousands at a time, in no order.
fn rate(locations: &dyn Locations, keys: &[ChunkKey], present: bool) -> Result<f64> {
    let start = cpu_seconds();
    for batch in keys.chunks(BATCH) {
        if locations
            .find_many(batch)?
            .iter()
            .any(|place| place.is_some() != present)
        {
            return Err("a wrong answer about existence".into());
        }
    }
    Ok(keys.len() as f64 / (cpu_seconds() - start))
}

/// Ids of those that are there, at random, and of those that are not.
fn asked(rows: u64) -> (Vec<ChunkKey>, Vec<ChunkKey>) {
    let mut random = fastrand::Rng::with_seed(7);
    let present = (0..ASKED).map(|_| key(random.u64(..rows))).collect();
    let absent = (0..ASKED).map(|n| key((1 << 60) + n)).collect();
    (present, absent)
}

fn existence(folder: &Path, repeats: usize) -> Result<String> {
    let dense = DenseLocations::default();
    let whole = MemoryLocations::default();
    let rocks = RocksEngine::open(&folder.join("places-few"), &RocksOptions::default())?;
    let ways: [(&str, &dyn Locations); 3] = [
        ("table of tags in memory", &dense),
        ("whole table in memory", &whole),
        ("RocksDB, all blocks cached", &rocks),
    ];
    let (present, absent) = asked(ASKED);
    let mut text = format!(
        "\nHas-many of {ASKED} random ids by {BATCH}, of {ASKED} chunks that are there, a second of one thread's CPU time; median of {repeats}.\n\n\
         | locations | fill, M/s | present, M/s | absent, M/s | memory of a chunk |\n|---|---|---|---|---|\n"
    );
    for (way, locations) in ways {
        let before = anonymous_len()?;
        let filled = fill(locations, ASKED)?;
        let memory = (anonymous_len()?.saturating_sub(before)) as f64 / ASKED as f64;
        if way.starts_with("RocksDB") {
            rocks.merge_places();
            rate(locations, &present, true)?;
        }
        let (mut there, mut not_there) = (vec![], vec![]);
        for _ in 0..repeats {
            there.push(rate(locations, &present, true)?);
            not_there.push(rate(locations, &absent, false)?);
        }
        text += &format!(
            "| {way} | {:.2} | {:.2} | {:.2} | {memory:.1} |\n",
            filled / 1e6,
            median(there) / 1e6,
            median(not_there) / 1e6
        );
    }
    let dense_len = dense.memory_len() as f64 / ASKED as f64;
    text += &format!("\nThe table of tags itself: {dense_len:.1} bytes a chunk.\n");
    Ok(text)
}

fn many_rows(folder: &Path, rows: u64, repeats: usize) -> Result<String> {
    let at = folder.join("places-many");
    // Two bytes a chunk for everything: blocks of data, of indexes and filters.
    let options = RocksOptions {
        cache_len: 2 * rows as usize,
        ..RocksOptions::default()
    };
    let rocks = RocksEngine::open(&at, &options)?;
    let filled = fill(&rocks, rows)?;
    let merging = Instant::now();
    rocks.merge_places();
    let merging = merging.elapsed().as_secs_f64();
    drop(rocks);
    let opening = Instant::now();
    let rocks = RocksEngine::open(&at, &options)?;
    let opening = opening.elapsed().as_secs_f64();
    let (present, absent) = asked(rows);
    let (mut there, mut not_there) = (vec![], vec![]);
    for _ in 0..repeats {
        there.push(rate(&rocks, &present, true)?);
        not_there.push(rate(&rocks, &absent, false)?);
    }
    let (single, reads) = BlockReads::of(|| one_by_one(&rocks, &present[..SINGLE as usize]));
    let (_, absent_reads) = BlockReads::of(|| one_by_one(&rocks, &absent[..SINGLE as usize]));
    let single = single?;
    let memory = rocks.places_memory()?;
    let disk = disk_len(&at)? as f64 / rows as f64;
    let each = |count: u64| count as f64 / SINGLE as f64;
    let of_a_tib = |bytes: f64| bytes * CHUNKS_OF_A_TIB / f64::from(1 << 20);
    Ok(format!(
        "\nRocksDB with {rows} rows, 2 bytes of cache a row, files in the page cache where there is room; rates of look-ups are of CPU time.\n\n| what | figure |\n|---|---|\n\
         | fill | {:.2} M/s, merged in {merging:.0} s more, opened in {opening:.2} s |\n\
         | has-many by {BATCH}, present | {:.2} M/s |\n| has-many by {BATCH}, absent | {:.2} M/s |\n\
         | one at a time, present | {:.3} M/s |\n\
         | blocks read, one present | {:.2}, of them index {:.2}, filter {:.2}; index blocks in memory {:.2} |\n\
         | blocks read, one absent | {:.2}, of them index {:.2}, filter {:.2} |\n\
         | memory of a chunk | {:.2} bytes in the cache, {:.3} held for files |\n\
         | disk of a chunk | {disk:.1} bytes |\n| a TiB at 64 KiB | {:.0} MiB of memory, {:.0} MiB of disk |\n",
        filled / 1e6,
        median(there) / 1e6,
        median(not_there) / 1e6,
        single / 1e6,
        each(reads.read),
        each(reads.index_read),
        each(reads.filter_read),
        each(reads.index_hits),
        each(absent_reads.read),
        each(absent_reads.index_read),
        each(absent_reads.filter_read),
        memory.cached as f64 / rows as f64,
        memory.readers as f64 / rows as f64,
        of_a_tib((memory.cached + memory.readers) as f64 / rows as f64),
        of_a_tib(disk),
    ))
}

fn one_by_one(locations: &dyn Locations, keys: &[ChunkKey]) -> Result<f64> {
    let start = cpu_seconds();
    for &key in keys {
        black_box(locations.get_many(&[key])?);
    }
    Ok(keys.len() as f64 / (cpu_seconds() - start))
}

/// Random GETs of small records.
fn many_records(folder: &Path, records: u64) -> Result<String> {
    let at = folder.join("places-records");
    let options = RocksOptions {
        cache_len: 2 * records as usize,
        ..RocksOptions::default()
    };
    let rocks = Arc::new(RocksEngine::open(&folder.join("places-of-records"), &options)?);
    let pack_options = PackOptions {
        sync: SyncPolicy::None,
        ..PackOptions::default()
    };
    let locations = Arc::clone(&rocks) as Arc<dyn Locations>;
    let (engine, _) = PackEngine::open_folder(&at, pack_options, locations)?;
    let store = PackStore::new(Arc::new(engine), DomainId::default());
    let mut ids = Vec::with_capacity(records as usize);
    for begin in (0..records).step_by(50_000) {
        let plains = (begin..(begin + 50_000).min(records)).map(|n| {
            let mut plain = vec![0; RECORD_LEN + (n % 100) as usize];
            fastrand::Rng::with_seed(n).fill(&mut plain);
            plain.into()
        });
        let chunks = Chunk::from_plain_many(DigestAlgorithm::default(), plains.collect());
        let chunks: Vec<StorableChunk> = chunks
            .iter()
            .map(|chunk| chunk.encode(ChunkForm::Compressed, Level::new(1)))
            .collect();
        store.put_many(&chunks)?;
        store.flush()?;
        ids.extend(chunks.iter().map(StorableChunk::id));
    }
    rocks.flush()?;
    rocks.merge_places();
    let mut random = fastrand::Rng::with_seed(9);
    let wanted: Vec<ChunkId> = (0..SINGLE).map(|_| ids[random.usize(..ids.len())]).collect();
    let (done, reads) = BlockReads::of(|| -> Result<f64> {
        let start = cpu_seconds();
        for &id in &wanted {
            black_box(store.get_many(&[id]).remove(0)?);
        }
        Ok(wanted.len() as f64 / (cpu_seconds() - start))
    });
    let each = |count: u64| count as f64 / SINGLE as f64;
    Ok(format!(
        "\n{records} records of {RECORD_LEN} to {} bytes, GET one at a time, at random, places in RocksDB with 2 bytes of cache a record: \
         {:.3} M/s; blocks read a GET {:.2}, of them index {:.2}.\n",
        RECORD_LEN + 99,
        done? / 1e6,
        each(reads.read),
        each(reads.index_read),
    ))
}

/// Seconds of CPU that this thread has had: what others do meanwhile is left out.
fn cpu_seconds() -> f64 {
    let time = rustix::time::clock_gettime(rustix::time::ClockId::ThreadCPUTime);
    time.tv_sec as f64 + time.tv_nsec as f64 / 1e9
}

/// Bytes of anonymous memory that this process has.
fn anonymous_len() -> Result<u64> {
    let status = fs::read_to_string("/proc/self/status")?;
    let line = status.lines().find_map(|line| line.strip_prefix("RssAnon:"));
    let kib = line
        .and_then(|line| line.split_whitespace().next())
        .ok_or("no RssAnon")?;
    Ok(kib.parse::<u64>()? << 10)
}

fn disk_len(folder: &Path) -> Result<u64> {
    let mut len = 0;
    for file in fs::read_dir(folder)? {
        len += file?.metadata()?.len();
    }
    Ok(len)
}
