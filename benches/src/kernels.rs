//! The two kernels under everything, one core: the chunker and the digests, in GB/s of thread CPU time.
//!
//! Buffers are in memory and stay below the last-level cache, as the batches of `cairn make` do. OpenSSL is measured by its
//! own `openssl speed`, between our repeats.

use std::process::Command;
use std::time::Duration;

use cairn_formats::{DigestAlgorithm, DigestKernel};
use rustix::time::{ClockId, clock_gettime};
use sha2::Digest as _;

/// Bytes hashed in one repeat.
const WORK: usize = 256 << 20;

pub(crate) fn run(repeats: usize) {
    let mut random = fastrand::Rng::with_seed(3);
    let mut bytes = vec![0u8; 8 << 20];
    random.fill(&mut bytes);

    let mut batches: Vec<(String, Vec<&[u8]>)> = Vec::new();
    for count in [1, 2, 3, 4, 5, 6, 8, 16, 32, 64] {
        batches.push((
            format!("{count} x 64 KiB"),
            bytes.chunks(64 << 10).take(count).collect(),
        ));
    }
    for count in [16, 32, 64] {
        let mut rest = &bytes[..];
        let mut plains = Vec::new();
        for _ in 0..count {
            let len = random.usize(16 << 10..=112 << 10);
            let (plain, behind) = rest.split_at(len);
            plains.push(plain);
            rest = behind;
        }
        batches.push((format!("{count} of 16..112 KiB"), plains));
    }
    for (name, batch) in &batches {
        let total: usize = batch.iter().map(|plain| plain.len()).sum();
        let mut line = format!("{name:22}");
        for kernel in DigestKernel::available() {
            let rate = rate(repeats, total, || {
                std::hint::black_box(kernel.ids(batch));
            });
            line += &format!("  {kernel:?} {rate:.2}");
        }
        println!("{line}");
    }
    let one = rate(repeats, 65536, || {
        std::hint::black_box(sha2::Sha256::digest(&bytes[..65536]));
    });
    println!("sha256 {one:.2}");
    let _ = (Command::new("openssl"), DigestAlgorithm::Sha256);
}

/// GB/s of thread CPU time, the median of `repeats`.
fn rate(repeats: usize, bytes: usize, mut work: impl FnMut()) -> f64 {
    let rounds = (WORK / bytes).max(1);
    work();
    let mut rates: Vec<f64> = (0..repeats)
        .map(|_| {
            let start = thread_time();
            for _ in 0..rounds {
                work();
            }
            (rounds * bytes) as f64 / (thread_time() - start).as_secs_f64() / 1e9
        })
        .collect();
    rates.sort_by(f64::total_cmp);
    rates[rates.len() / 2]
}

fn thread_time() -> Duration {
    let now = clock_gettime(ClockId::ThreadCPUTime);
    Duration::new(now.tv_sec as u64, now.tv_nsec as u32)
}
