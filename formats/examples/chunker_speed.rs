//! Speed of the chunker on one core, by kernel: `cargo run --release -p cairn-formats --example chunker_speed [FILE]`.
//!
//! Prints GB/s of stream cut (sequential form, with its skip of the first min - 48 bytes of each chunk). Without a file the
//! data is random. Time is the thread's own processor time, and the best of several runs counts: other work on the machine
//! only ever makes a run slower.

use cairn_formats::{ChunkSizes, Chunker, CutRule, Dialect, Kernel};

const RUNS: usize = 15;
const LEN: usize = 64 << 20;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let data = match std::env::args_os().nth(1) {
        Some(path) => std::fs::read(path)?,
        None => {
            let mut noise = vec![0; LEN];
            fastrand::Rng::with_seed(1).fill(&mut noise);
            noise
        }
    };
    let zeros = vec![0; LEN];
    for &kernel in Kernel::available() {
        let name = kernel.name();
        // D is odd at the default sizes, even at the next.
        for sizes in [
            ChunkSizes::DEFAULT,
            ChunkSizes::new(32 << 10, 128 << 10, 512 << 10)?,
            ChunkSizes::new(4 << 10, 16 << 10, 64 << 10)?,
        ] {
            let chunker = Chunker::new(sizes, Dialect::Casync).with_kernel(kernel);
            let (cuts, speed) = best(&data, |bytes| cuts(chunker.clone(), bytes));
            println!(
                "{name:8} cut    {:7}:{:7}:{:7}  {speed:6.2} GB/s  {cuts} chunks",
                sizes.min(),
                sizes.avg(),
                sizes.max()
            );
        }
        let chunker = Chunker::new(ChunkSizes::DEFAULT, Dialect::Casync).with_kernel(kernel);
        let (cuts, speed) = best(&zeros, |bytes| cuts(chunker.clone(), bytes));
        println!("{name:8} cut    zeros                    {speed:6.2} GB/s  {cuts} chunks");
        let rule = CutRule::new(ChunkSizes::DEFAULT, Dialect::Casync)?.with_kernel(kernel);
        let (found, speed) = best(&data, |bytes| candidates(rule, bytes));
        println!("{name:8} search, every position          {speed:6.2} GB/s  {found} candidates");
        // Zero runs are all candidates at this size: the densest input there is.
        let dense = CutRule::new(ChunkSizes::new(1000, 5251, 20000)?, Dialect::Casync)?.with_kernel(kernel);
        let (found, speed) = best(&zeros, |bytes| candidates(dense, bytes));
        println!("{name:8} search, zeros are candidates    {speed:6.2} GB/s  {found} candidates");
    }
    Ok(())
}

fn candidates(rule: CutRule, data: &[u8]) -> usize {
    let blocks = data.chunks(1 << 20).enumerate();
    blocks
        .map(|(at, block)| rule.candidates(block, 0, (at << 20) as u64).count())
        .sum()
}

fn best<T>(data: &[u8], mut work: impl FnMut(&[u8]) -> T) -> (T, f64) {
    let mut least = f64::INFINITY;
    let mut result = work(data);
    for _ in 0..RUNS {
        let started = thread_seconds();
        result = work(data);
        least = least.min(thread_seconds() - started);
    }
    (result, data.len() as f64 / least / 1e9)
}

fn cuts(mut chunker: Chunker, data: &[u8]) -> usize {
    let (mut at, mut count) = (0, 0);
    for block in data.chunks(1 << 20) {
        let end = at + block.len();
        while let Some(len) = chunker.cut(&data[at..end]) {
            at += len;
            count += 1;
        }
        at = end;
    }
    count
}

fn thread_seconds() -> f64 {
    let now = rustix::time::clock_gettime(rustix::time::ClockId::ThreadCPUTime);
    now.tv_sec as f64 + now.tv_nsec as f64 / 1e9
}
