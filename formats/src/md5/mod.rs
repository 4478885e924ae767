//! MD5, of many streams at once: the ETags of concurrent uploads.
//!
//! MD5 is the slowest digest that anyone asks for (a long chain of additions, each waiting for the one before), and it is serial
//! within a stream. Streams are independent: the kernels here take the next bytes of several in the lanes of one vector.
//! On a Zen 5 core: `md-5` 0.74 GB/s, OpenSSL 3.0 0.88, AVX2 with 8 streams 2.9, AVX-512 with 16 6.4 (`make bench`, row `kernels`).
//! `lanes.rs` keeps the lanes busy, one file a kernel holds the rounds, and a stream alone is the `md-5` crate's.
//!
//! Not for anything that has to withstand somebody: MD5 is broken. Hot path, as `digest/`. Not here: threads, which gather what
//! is ready.

#[cfg(target_arch = "x86_64")]
mod avx2;
#[cfg(target_arch = "x86_64")]
mod avx512;
mod lanes;
#[cfg(target_arch = "x86_64")]
mod rounds;
#[cfg(test)]
mod tests;

use lanes::{Block, Run};

/// Initial state (RFC 1321 section 3.3).
const INITIAL: [u32; 4] = [0x6745_2301, 0xefcd_ab89, 0x98ba_dcfe, 0x1032_5476];

/// The MD5 of bytes that come in pieces.
#[derive(Clone, Debug)]
pub struct Md5Stream {
    state: [u32; 4],
    /// Bytes so far; the last `len % 64` of them are at the beginning of `tail`.
    len: u64,
    tail: Block,
}

impl Default for Md5Stream {
    /// Of no bytes yet.
    fn default() -> Self {
        Self {
            state: INITIAL,
            len: 0,
            tail: [0; 64],
        }
    }
}

impl Md5Stream {
    /// Takes the next bytes.
    pub fn update(&mut self, bytes: &[u8]) {
        if let Some(run) = self.take(bytes) {
            ::md5::block_api::compress(run.state, run.blocks);
        }
    }

    /// The digest, 16 bytes.
    pub fn finish(mut self) -> [u8; 16] {
        // RFC 1321 sections 3.1 and 3.2: a one bit, zeros, the length in bits as 8 bytes.
        let bits = self.len.wrapping_mul(8);
        let filled = (self.len % 64) as usize;
        let zeros = (64 + 55 - filled) % 64;
        let mut padding = [0; 128];
        padding[0] = 0x80;
        padding[1 + zeros..9 + zeros].copy_from_slice(&bits.to_le_bytes());
        self.update(&padding[..9 + zeros]);
        let mut digest = [0; 16];
        for (place, word) in digest.chunks_exact_mut(4).zip(self.state) {
            place.copy_from_slice(&word.to_le_bytes());
        }
        digest
    }

    /// Takes the next bytes but for their whole blocks, which are the answer.
    fn take<'a>(&'a mut self, mut bytes: &'a [u8]) -> Option<Run<'a>> {
        let filled = (self.len % 64) as usize;
        self.len = self.len.wrapping_add(bytes.len() as u64);
        if filled > 0 {
            let (head, rest) = bytes.split_at(bytes.len().min(64 - filled));
            self.tail[filled..filled + head.len()].copy_from_slice(head);
            if filled + head.len() < 64 {
                return None;
            }
            ::md5::block_api::compress(&mut self.state, &[self.tail]);
            bytes = rest;
        }
        let (blocks, end) = bytes.as_chunks::<64>();
        self.tail[..end.len()].copy_from_slice(end);
        (!blocks.is_empty()).then_some(Run {
            state: &mut self.state,
            blocks,
        })
    }
}

/// A way to compute MD5 of many streams on this CPU.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Md5Kernel {
    /// One stream after the other by the `md-5` crate. Runs everywhere.
    Library,
    /// 8 streams in AVX2 vectors.
    Avx2,
    /// 16 streams in AVX-512 vectors; up to 8 as [`Md5Kernel::Avx2`].
    Avx512,
}

impl Md5Kernel {
    const ALL: [Self; 3] = [Self::Library, Self::Avx2, Self::Avx512];

    /// The kernels this CPU can run, slowest first; never empty.
    pub fn available() -> Vec<Self> {
        Self::ALL.into_iter().filter(|kernel| kernel.is_available()).collect()
    }

    /// The fastest kernel this CPU can run.
    pub fn best() -> Self {
        let mut all = Self::ALL.into_iter().rev();
        all.find(|kernel| kernel.is_available()).unwrap_or(Self::Library)
    }

    /// Streams that it takes at once.
    pub fn lanes(self) -> usize {
        match self {
            Self::Library => 1,
            Self::Avx2 => 8,
            Self::Avx512 => 16,
        }
    }

    /// Takes the next bytes of several streams. A kernel that this CPU lacks falls back to the library.
    ///
    /// Best given pieces of equal length, and as many as there are lanes.
    pub fn update(self, pieces: &mut [(Md5Stream, &[u8])]) {
        let runs: Vec<Run<'_>> = pieces
            .iter_mut()
            .filter_map(|(stream, bytes)| stream.take(bytes))
            .collect();
        #[cfg(target_arch = "x86_64")]
        match self {
            Self::Library => {}
            Self::Avx2 => {
                if let Some(kernel) = avx2::Avx2::detect() {
                    return lanes::compress(&kernel, runs);
                }
            }
            Self::Avx512 => {
                // Seen on Zen 4, whose vectors of 512 bits are two of 256: so many streams cost less in one.
                if runs.len() <= Self::Avx2.lanes()
                    && let Some(kernel) = avx2::Avx2::detect()
                {
                    return lanes::compress(&kernel, runs);
                }
                if let Some(kernel) = avx512::Avx512::detect() {
                    return lanes::compress(&kernel, runs);
                }
            }
        }
        one_by_one(runs);
    }

    fn is_available(self) -> bool {
        match self {
            Self::Library => true,
            #[cfg(target_arch = "x86_64")]
            Self::Avx2 => avx2::Avx2::detect().is_some(),
            #[cfg(target_arch = "x86_64")]
            Self::Avx512 => avx512::Avx512::detect().is_some(),
            #[cfg(not(target_arch = "x86_64"))]
            _ => false,
        }
    }
}

fn one_by_one(runs: Vec<Run<'_>>) {
    for run in runs {
        ::md5::block_api::compress(run.state, run.blocks);
    }
}
