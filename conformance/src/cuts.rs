//! Generated inputs for comparing indexes with another tool's: streams on which chunkers go wrong, each with chunk sizes.
//!
//! Input number n is always the same bytes and sizes, so a difference is repeated by its number alone.
//! `CAIRN_CONFORMANCE_INPUTS` sets how many are compared (500 unless told, 10000 for a release).

use std::fs;
use std::ops::Range;
use std::path::Path;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};

use crate::support::{cairn, ok};

/// Compared unless `CAIRN_CONFORMANCE_INPUTS` says otherwise.
const INPUTS: u64 = 500;
/// Inputs are compared by this many threads.
const THREADS: usize = 2;
/// A thread's folder is emptied after this many inputs: other tools store every chunk as a file.
const INPUTS_PER_FOLDER: u64 = 50;
/// Streams are at most this long, unless the sizes are so large that nothing would be cut.
const STREAM_LEN_MAX: usize = 300_000;

/// How many inputs to compare.
pub fn inputs() -> u64 {
    match std::env::var("CAIRN_CONFORMANCE_INPUTS") {
        Ok(count) => count.parse().expect("CAIRN_CONFORMANCE_INPUTS is a number"),
        Err(_) => INPUTS,
    }
}

/// Chunk sizes in bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Sizes {
    /// Smallest.
    pub min: u64,
    /// Average.
    pub avg: u64,
    /// Largest.
    pub max: u64,
}

/// Shorthand for tables of sizes.
pub const fn sizes(min: u64, avg: u64, max: u64) -> Sizes {
    Sizes { min, avg, max }
}

/// A stream to cut.
pub struct Input {
    /// What to cut it at.
    pub sizes: Sizes,
    /// The whole stream.
    pub bytes: Vec<u8>,
    /// What kind of stream it is, for failures.
    pub kind: &'static str,
}

/// Input `number`, cut at one of `table` or, every third time, at what `random_sizes` makes.
pub fn input(number: u64, table: &[Sizes], random_sizes: fn(&mut fastrand::Rng) -> Sizes) -> Input {
    let mut random = fastrand::Rng::with_seed(number.wrapping_mul(0x9e37_79b9_7f4a_7c15) ^ 0x6361_6972);
    let sizes = if number % 3 == 2 {
        random_sizes(&mut random)
    } else {
        table[random.usize(..table.len())]
    };
    let len = stream_len(&mut random, sizes);
    let (kind, bytes) = stream(&mut random, len);
    Input { sizes, bytes, kind }
}

/// Half of the lengths are at a border of the rule, the rest anywhere.
fn stream_len(random: &mut fastrand::Rng, sizes: Sizes) -> usize {
    let most = STREAM_LEN_MAX.max(3 * sizes.max as usize).min(STREAM_LEN_MAX * 32);
    // Small chunks are many files to the other tool.
    let most = most.min(3000 * sizes.avg as usize);
    let around = |random: &mut fastrand::Rng, at: u64| (at + random.u64(..3)).saturating_sub(1) as usize;
    let len = match random.u8(..12) {
        0 => random.usize(..4),
        1 => around(random, 48),
        2 => around(random, sizes.min),
        3 => around(random, sizes.avg),
        4 => around(random, sizes.max),
        5 => around(random, sizes.max * 2),
        _ => random.usize(..=most),
    };
    len.min(most)
}

fn stream(random: &mut fastrand::Rng, len: usize) -> (&'static str, Vec<u8>) {
    let mut bytes = vec![0; len];
    let kind = match random.u8(..10) {
        0 => "zeros",
        1 => {
            bytes.fill(random.u8(..));
            "one byte value"
        }
        2 => {
            random.fill(&mut bytes);
            bytes.iter_mut().for_each(|byte| *byte &= 1);
            "two symbols"
        }
        3 => {
            let period = random.usize(1..200);
            let cycle = noise(random, period);
            bytes
                .iter_mut()
                .zip(cycle.iter().cycle())
                .for_each(|(byte, &value)| *byte = value);
            "periodic"
        }
        4 => {
            let half = random.usize(1..9000);
            random.fill(&mut bytes);
            for (at, byte) in bytes.iter_mut().enumerate() {
                if at / half % 2 == 1 {
                    *byte = 0;
                }
            }
            "half zero"
        }
        5 => {
            bytes = crate::support::input(random.u64(..), len);
            "mixed"
        }
        6 => {
            let mut at = 0;
            while at < len {
                let (run, rest) = (random.usize(1..300), random.usize(..60));
                let value = random.u8(..);
                bytes[at..len.min(at + run)].fill(value);
                at += run;
                let rest_end = len.min(at + rest);
                if at < rest_end {
                    random.fill(&mut bytes[at..rest_end]);
                }
                at += rest;
            }
            "short runs"
        }
        7 => {
            bytes
                .iter_mut()
                .for_each(|byte| *byte = b" etaoinshrdlu\n"[random.usize(..14)]);
            "letters"
        }
        _ => {
            random.fill(&mut bytes);
            "noise"
        }
    };
    (kind, bytes)
}

fn noise(random: &mut fastrand::Rng, len: usize) -> Vec<u8> {
    let mut bytes = vec![0; len];
    random.fill(&mut bytes);
    bytes
}

/// `cairn make` of a file, without storing anything: the bytes of the index.
pub fn our_index(blob: &Path, index: &Path, sizes: Sizes, dialect: &str) -> Vec<u8> {
    let Sizes { min, avg, max } = sizes;
    ok(cairn()
        .args([
            "make",
            "--chunk-size",
            &format!("{min}B:{avg}B:{max}B"),
            "--dialect",
            dialect,
        ])
        .args([index, blob]));
    fs::read(index).expect("an index that was just made")
}

/// Lengths of the chunks of an index.
pub fn chunk_lens(index: &[u8]) -> Vec<u64> {
    let (items, _) = index[64..index.len() - 40].as_chunks::<40>();
    let ends = items
        .iter()
        .map(|item| u64::from_le_bytes(item[..8].try_into().expect("eight bytes")));
    let mut before = 0;
    ends.map(|end| end - std::mem::replace(&mut before, end)).collect()
}

/// A folder in memory where the system has one: black-box tools write and read thousands of small files.
pub fn folder() -> tempfile::TempDir {
    let memory = Path::new("/dev/shm");
    if memory.is_dir() {
        tempfile::tempdir_in(memory)
    } else {
        tempfile::tempdir()
    }
    .expect("a temporary folder")
}

/// What a run has met, so that a test can show that it tested what it says.
#[derive(Debug, Default)]
pub struct Met {
    /// Inputs compared.
    pub inputs: u64,
    /// Chunks of all inputs.
    pub chunks: u64,
    /// Chunks of exactly min bytes that are not the last.
    pub cut_at_min: u64,
    /// Chunks of exactly max bytes that are not the last.
    pub cut_at_max: u64,
    /// Inputs without a chunk.
    pub empty: u64,
    differences: Vec<String>,
}

impl Met {
    fn add(&mut self, sizes: Sizes, index: &[u8]) {
        let lens = chunk_lens(index);
        let inner = &lens[..lens.len().saturating_sub(1)];
        self.inputs += 1;
        self.chunks += lens.len() as u64;
        self.empty += u64::from(lens.is_empty());
        self.cut_at_min += inner.iter().filter(|&&len| len == sizes.min && len < sizes.max).count() as u64;
        self.cut_at_max += inner.iter().filter(|&&len| len == sizes.max).count() as u64;
    }
}

/// Compares the indexes that `both` makes (theirs, ours) of all inputs in `numbers`; panics with the first differences.
pub fn compare(
    numbers: Range<u64>,
    input: impl Fn(u64) -> Input + Sync,
    both: impl Fn(&Path, Sizes) -> (Vec<u8>, Vec<u8>) + Sync,
) -> Met {
    let next = AtomicU64::new(numbers.start);
    let met = Mutex::new(Met::default());
    std::thread::scope(|scope| {
        for _ in 0..THREADS {
            scope.spawn(|| {
                let mut home = folder();
                for done in 1.. {
                    let number = next.fetch_add(1, Ordering::Relaxed);
                    if number >= numbers.end {
                        break;
                    }
                    if done % INPUTS_PER_FOLDER == 0 {
                        home = folder();
                    }
                    let Input { sizes, bytes, kind } = input(number);
                    fs::write(home.path().join("blob"), &bytes).expect("room for an input");
                    let (theirs, ours) = both(home.path(), sizes);
                    let mut met = met.lock().expect("no thread panics with it");
                    met.add(sizes, &ours);
                    if let Some(difference) = difference(&theirs, &ours) {
                        let len = bytes.len();
                        met.differences
                            .push(format!("input {number} ({kind}, {len} bytes, {sizes:?}): {difference}"));
                    }
                }
            });
        }
    });
    let met = met.into_inner().expect("no thread panics with it");
    assert!(
        met.differences.is_empty(),
        "{} of {} inputs differ:\n{}",
        met.differences.len(),
        met.inputs,
        met.differences[..met.differences.len().min(10)].join("\n")
    );
    println!("{met:?}");
    met
}

fn difference(theirs: &[u8], ours: &[u8]) -> Option<String> {
    (theirs != ours).then(|| {
        let at = theirs.iter().zip(ours).take_while(|(their, our)| their == our).count();
        let (their_lens, our_lens) = (chunk_lens(theirs), chunk_lens(ours));
        let chunk = their_lens
            .iter()
            .zip(&our_lens)
            .take_while(|(their, our)| their == our)
            .count();
        format!(
            "indexes of {} and {} bytes (theirs, ours) differ from byte {at} on; chunk {chunk} has {:?} and {:?} bytes",
            theirs.len(),
            ours.len(),
            their_lens.get(chunk),
            our_lens.get(chunk)
        )
    })
}
