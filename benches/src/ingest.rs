//! Durable ingest: our flat store, which syncs once a batch, beside the same files written with one fsync each.

use std::fs::{self, File};
use std::io::Write as _;
use std::path::Path;
use std::time::Instant;

use bytes::Bytes;
use cairn_formats::{Chunk, ChunkForm, DigestAlgorithm, Level, StorableChunk};
use cairn_store::{ChunkStore as _, FlatOptions, FlatStore};

use crate::Result;
use crate::table::median;

/// Chunks of one repeat.
const CHUNKS: usize = 2048;
/// Bytes of a chunk; about the mean of a stored chunk of binaries.
const CHUNK_LEN: usize = 27 << 10;
/// Chunks handed over at once.
const BATCH: usize = 256;

pub(crate) fn run(folder: &Path, repeats: usize) -> Result<String> {
    let mut random = fastrand::Rng::with_seed(7);
    let plains = (0..CHUNKS)
        .map(|_| {
            let mut plain = vec![0; CHUNK_LEN];
            random.fill(&mut plain);
            Bytes::from(plain)
        })
        .collect();
    let chunks: Vec<StorableChunk> = Chunk::from_plain_many(DigestAlgorithm::default(), plains)
        .iter()
        .map(|chunk| chunk.encode(ChunkForm::Compressed, Level::new(3)))
        .collect();

    let (mut ours, mut each) = (Vec::new(), Vec::new());
    for repeat in 0..repeats {
        let store = |way| folder.join(format!("ingest-{way}-{repeat}"));
        ours.push(timed(&store("ours"), |store| flat(store, &chunks))?);
        each.push(timed(&store("each"), |store| one_fsync_a_file(store, &chunks))?);
    }
    let (ours, each) = (median(ours), median(each));
    let rate = |seconds: f64| CHUNKS as f64 / seconds;
    Ok(format!(
        "\n### Durable ingest\n\n{CHUNKS} chunks of {} KiB into a new folder, durable when it ends; median of {repeats}, interleaved.\n\n\
         | way | seconds | chunks/s | ratio |\n|---|---|---|---|\n\
         | flat store, one sync a flush | {ours:.3} | {:.0} | {:.1} |\n| write, fsync, rename, fsync of the folder; each file | {each:.3} | {:.0} | 1 |\n",
        CHUNK_LEN >> 10,
        rate(ours),
        each / ours,
        rate(each),
    ))
}

/// Seconds of `work` on the new folder `store`. It stays: ext4 is slow to reuse inodes that were just deleted.
fn timed(store: &Path, work: impl Fn(&Path) -> Result<()>) -> Result<f64> {
    fs::create_dir(store)?;
    rustix::fs::sync();
    let start = Instant::now();
    work(store)?;
    let seconds = start.elapsed().as_secs_f64();
    let mut files = 0;
    for folder in fs::read_dir(store)? {
        let path = folder?.path();
        files += if path.is_dir() { fs::read_dir(path)?.count() } else { 0 };
    }
    if files != CHUNKS {
        return Err(format!("{files} files in the store instead of {CHUNKS}").into());
    }
    Ok(seconds)
}

fn flat(store: &Path, chunks: &[StorableChunk]) -> Result<()> {
    let store = FlatStore::open(store, FlatOptions::default())?;
    for batch in chunks.chunks(BATCH) {
        store.put_many(batch)?;
    }
    Ok(store.flush()?)
}

fn one_fsync_a_file(store: &Path, chunks: &[StorableChunk]) -> Result<()> {
    for chunk in chunks {
        let name = chunk.id().to_string();
        let folder = store.join(&name[..4]);
        fs::create_dir_all(&folder)?;
        let temporary = folder.join(".tmp");
        let mut file = File::create(&temporary)?;
        file.write_all(chunk.bytes())?;
        file.sync_all()?;
        fs::rename(&temporary, folder.join(format!("{name}.cacnk")))?;
        File::open(&folder)?.sync_all()?;
    }
    Ok(())
}
