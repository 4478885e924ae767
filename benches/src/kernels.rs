//! The kernels under everything, one core: the chunker and the digests, in GB/s of thread CPU time.
//!
//! Buffers are in memory and fit a cache, as the batches of `cairn make` do. OpenSSL is measured by its own
//! `openssl speed`, between our repeats.

use std::hint::black_box;
use std::process::Command;
use std::time::Duration;

use cairn_formats::{ChunkSizes, Chunker, CutRule, Dialect, DigestKernel, Kernel, Md5Kernel, Md5Stream};
use rustix::time::{ClockId, clock_gettime};
use sha2::Digest as _;

use crate::Result;
use crate::table::median;

/// Bytes of one repeat.
const WORK: usize = 256 << 20;
/// Bytes of random data that every kernel goes over again and again.
const DATA: usize = 8 << 20;

/// One measured thing: a name and how to do it once over `bytes` bytes.
struct Subject<'a> {
    name: String,
    bytes: usize,
    work: Box<dyn FnMut() + 'a>,
    rates: Vec<f64>,
}

pub(crate) fn run(repeats: usize) -> Result<String> {
    let mut random = fastrand::Rng::with_seed(3);
    let mut data = vec![0u8; DATA];
    random.fill(&mut data);
    let data = &data[..];
    let batches = batches(data, &mut random);

    let mut chunkers: Vec<Subject<'_>> = Vec::new();
    for &kernel in Kernel::available() {
        let rule = CutRule::new(ChunkSizes::DEFAULT, Dialect::Casync)?.with_kernel(kernel);
        chunkers.push(subject(format!("search, {}", kernel_name(kernel)), DATA, move || {
            black_box(rule.candidates(data, 0, 0));
        }));
        chunkers.push(subject(
            format!("sequential with skip, {}", kernel_name(kernel)),
            DATA,
            move || {
                let mut chunker = Chunker::new(ChunkSizes::DEFAULT, Dialect::Casync).with_kernel(kernel);
                let mut rest = data;
                while let Some(len) = chunker.cut(rest) {
                    rest = black_box(&rest[len..]);
                }
            },
        ));
    }

    let one = &data[..64 << 10];
    let mut digests: Vec<Subject<'_>> = vec![
        subject("SHA-512/256, sha2, 64 KiB".into(), one.len(), move || {
            black_box(sha2::Sha512_256::digest(one));
        }),
        subject(
            "SHA-256, sha2 (SHA instructions where the CPU has them), 64 KiB".into(),
            one.len(),
            move || {
                black_box(sha2::Sha256::digest(one));
            },
        ),
    ];
    for (name, batch) in &batches {
        for kernel in DigestKernel::available()
            .into_iter()
            .filter(|&kernel| kernel != DigestKernel::Library)
        {
            let bytes = batch.iter().map(|plain| plain.len()).sum();
            digests.push(subject(format!("SHA-512/256, {kernel:?}, {name}"), bytes, move || {
                black_box(kernel.ids(batch));
            }));
        }
    }

    // Uploads at once, whose next bytes are taken together.
    for count in [1, 2, 4, 8, 16] {
        let pieces: Vec<&[u8]> = data.chunks(256 << 10).take(count).collect();
        for kernel in Md5Kernel::available() {
            let pieces = pieces.clone();
            let bytes = pieces.iter().map(|piece| piece.len()).sum();
            let name = format!("MD5, {kernel:?}, {count} of 256 KiB");
            digests.push(subject(name, bytes, move || {
                let streams = pieces.iter().map(|&piece| (Md5Stream::default(), piece));
                kernel.update(black_box(&mut streams.collect::<Vec<_>>()));
            }));
        }
    }

    let mut openssl = [
        ("SHA-512/256, OpenSSL, 64 KiB", "sha512-256", Vec::new()),
        ("SHA-256, OpenSSL, 64 KiB", "sha256", Vec::new()),
        ("MD5, OpenSSL, 64 KiB", "md5", Vec::new()),
    ];
    for _ in 0..repeats {
        for subject in chunkers.iter_mut().chain(&mut digests) {
            let rate = rate(subject.bytes, &mut subject.work);
            subject.rates.push(rate);
        }
        for (_, algorithm, rates) in &mut openssl {
            rates.push(openssl_rate(algorithm)?);
        }
    }

    let mut text = format!(
        "\n### Kernels\n\nGB/s of CPU time on one core, median of {repeats}, interleaved.\n\n| chunker, 16:64:256 KiB, random data | GB/s |\n|---|---|\n"
    );
    for subject in chunkers {
        text += &format!("| {} | {:.2} |\n", subject.name, median(subject.rates));
    }
    let sha2 = median(digests[0].rates.clone());
    let ssl = median(openssl[0].2.clone());
    text += "\n| digest | GB/s | / sha2 SHA-512/256 | / OpenSSL SHA-512/256 |\n|---|---|---|---|\n";
    let digests = digests.into_iter().map(|subject| (subject.name, subject.rates));
    for (name, rates) in digests.chain(openssl.into_iter().map(|(name, _, rates)| (name.to_owned(), rates))) {
        let rate = median(rates);
        text += &format!("| {name} | {rate:.2} | {:.2} | {:.2} |\n", rate / sha2, rate / ssl);
    }
    Ok(text)
}

/// Batches as callers have them: few and many, equal and not.
fn batches<'a>(data: &'a [u8], random: &mut fastrand::Rng) -> Vec<(String, Vec<&'a [u8]>)> {
    let mut batches: Vec<(String, Vec<&[u8]>)> = Vec::new();
    for count in [1, 2, 4, 8, 16, 64] {
        batches.push((
            format!("{count} of 64 KiB"),
            data.chunks(64 << 10).take(count).collect(),
        ));
    }
    for count in [16, 64] {
        let mut rest = data;
        let plains = (0..count).map(|_| {
            let (plain, behind) = rest.split_at(random.usize(16 << 10..=112 << 10));
            rest = behind;
            plain
        });
        batches.push((format!("{count} of 16 to 112 KiB"), plains.collect()));
    }
    batches
}

/// `Avx2` of `Kernel(Avx2)`.
fn kernel_name(kernel: Kernel) -> String {
    let debug = format!("{kernel:?}");
    debug.trim_start_matches("Kernel(").trim_end_matches(')').to_owned()
}

fn subject<'a>(name: String, bytes: usize, work: impl FnMut() + 'a) -> Subject<'a> {
    Subject {
        name,
        bytes,
        work: Box::new(work),
        rates: Vec::new(),
    }
}

/// GB/s of thread CPU time.
fn rate(bytes: usize, work: &mut dyn FnMut()) -> f64 {
    let rounds = (WORK / bytes).max(1);
    work();
    let start = thread_time();
    for _ in 0..rounds {
        work();
    }
    (rounds * bytes) as f64 / (thread_time() - start).as_secs_f64() / 1e9
}

fn thread_time() -> Duration {
    let now = clock_gettime(ClockId::ThreadCPUTime);
    Duration::new(now.tv_sec.unsigned_abs(), now.tv_nsec.unsigned_abs() as u32)
}

/// GB/s of user CPU time by `openssl speed`, whose last line ends in thousands of bytes a second (`1188429.82k`).
fn openssl_rate(algorithm: &str) -> Result<f64> {
    let output = Command::new("openssl")
        .args(["speed", "-seconds", "1", "-bytes", "65536", "-evp", algorithm])
        .output()
        .map_err(|error| format!("openssl does not start: {error}"))?;
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let figure = text.split_whitespace().last().and_then(|word| word.strip_suffix('k'));
    let thousands: f64 = figure
        .ok_or_else(|| format!("openssl speed wrote no figure: {text}"))?
        .parse()?;
    Ok(thousands / 1e6)
}
