//! The lane scheduler: many messages of any lengths over the few lanes of a SHA-512/256 kernel.
//!
//! A lane whose message ends takes the next one at once, the longest first, so that lanes stand empty only at the end of
//! the batch; when too few are busy to pay for a vector, the `sha2` crate finishes each from the state its lane reached.
//! Chunks differ 16-fold in length: fixed groups of 4 would leave about 45 % of the lane time idle.
//!
//! Whole blocks are read where they lie; only a message's padded end (1 or 2 blocks) is copied. No `unsafe` here.

use crate::ChunkId;

/// Input of one compression.
pub(super) type Block = [u8; 128];

/// Chaining values of all lanes: eight words, each a vector over the lanes, so that a kernel loads a word at once.
#[derive(Clone)]
#[repr(align(64))]
pub(super) struct State<const LANES: usize>(pub(super) [[u64; LANES]; 8]);

/// The compression function of SHA-512 on several lanes. An instance is proof that the CPU can run it.
pub(super) trait Kernel<const LANES: usize> {
    /// The fewest busy lanes at which a call costs no more than compressing each lane's blocks by the library.
    const WORTHWHILE: usize;

    /// Takes `data[lane]` into lane `lane` of `state`; every lane's slice has the same number of blocks.
    fn compress(&self, state: &mut State<LANES>, data: [&[Block]; LANES]);
}

/// The SHA-512/256 ids of `messages`, in order.
pub(super) fn ids<const LANES: usize, K: Kernel<LANES>>(kernel: &K, messages: &[&[u8]]) -> Vec<ChunkId> {
    let mut ids = vec![ChunkId::from_bytes([0; 32]); messages.len()];
    let mut state = State([[0; LANES]; 8]);
    let mut lanes: [Option<Lane<'_>>; LANES] = [const { None }; LANES];

    // Longest last, because the queue is popped from its end.
    let mut queue: Vec<usize> = (0..messages.len()).collect();
    queue.sort_unstable_by_key(|&at| messages[at].len());

    loop {
        for (at, lane) in lanes.iter_mut().enumerate() {
            if lane.is_none()
                && let Some(message) = queue.pop()
            {
                *lane = Some(Lane::new(message, messages[message]));
                put(&mut state, at, &INITIAL);
            }
        }
        let busy = lanes.iter().flatten().count();
        if busy < K::WORTHWHILE {
            for (at, lane) in lanes.iter().enumerate() {
                if let Some(lane) = lane {
                    ids[lane.message] = lane.finish(take(&state, at));
                }
            }
            debug_assert!(queue.is_empty(), "lanes are left empty only when no message waits");
            return ids;
        }

        // As far as the lane that ends first. Idle lanes follow a busy one: their state is never read.
        let step = lanes.iter().flatten().map(|lane| lane.rest().len()).min().unwrap_or(0);
        let any = lanes
            .iter()
            .flatten()
            .next()
            .map_or(&[][..], |lane| &lane.rest()[..step]);
        let data = std::array::from_fn(|at| lanes[at].as_ref().map_or(any, |lane| &lane.rest()[..step]));
        kernel.compress(&mut state, data);

        for (at, slot) in lanes.iter_mut().enumerate() {
            if let Some(lane) = slot
                && lane.advance(step)
            {
                ids[lane.message] = id(&take(&state, at));
                *slot = None;
            }
        }
    }
}

/// One message on its way through a lane.
struct Lane<'a> {
    /// Place of the message in the batch.
    message: usize,
    /// Whole blocks of the message not yet compressed.
    body: &'a [Block],
    /// The message's last bytes with the padding behind them.
    tail: [Block; 2],
    /// Blocks of `tail` in use, 1 or 2.
    tail_len: usize,
    /// Blocks of `tail` already compressed.
    tail_done: usize,
}

impl<'a> Lane<'a> {
    /// Padding of FIPS 180-4 section 5.1.2: a one bit, zeros, the length in bits as 16 bytes.
    fn new(message: usize, plain: &'a [u8]) -> Self {
        let (body, end) = plain.as_chunks::<128>();
        let mut tail = [[0; 128]; 2];
        let tail_len = if end.len() + 1 + 16 <= 128 { 1 } else { 2 };
        let bytes = tail.as_flattened_mut();
        bytes[..end.len()].copy_from_slice(end);
        bytes[end.len()] = 0x80;
        let bits = 8 * plain.len() as u128;
        bytes[tail_len * 128 - 16..tail_len * 128].copy_from_slice(&bits.to_be_bytes());
        Self {
            message,
            body,
            tail,
            tail_len,
            tail_done: 0,
        }
    }

    /// The blocks that can be compressed in one go; never empty before the lane is done.
    fn rest(&self) -> &[Block] {
        if self.body.is_empty() {
            &self.tail[self.tail_done..self.tail_len]
        } else {
            self.body
        }
    }

    /// Marks `step` blocks of [`rest`](Self::rest) as compressed. Returns whether the message is done.
    fn advance(&mut self, step: usize) -> bool {
        if self.body.is_empty() {
            self.tail_done += step;
        } else {
            self.body = &self.body[step..];
        }
        self.tail_done == self.tail_len
    }

    /// Compresses all that is left, by the library.
    fn finish(&self, mut words: [u64; 8]) -> ChunkId {
        sha2::block_api::compress512(&mut words, self.body);
        sha2::block_api::compress512(&mut words, &self.tail[self.tail_done..self.tail_len]);
        id(&words)
    }
}

fn put<const LANES: usize>(state: &mut State<LANES>, lane: usize, words: &[u64; 8]) {
    for (vector, word) in state.0.iter_mut().zip(words) {
        vector[lane] = *word;
    }
}

fn take<const LANES: usize>(state: &State<LANES>, lane: usize) -> [u64; 8] {
    std::array::from_fn(|word| state.0[word][lane])
}

/// SHA-512/256 keeps the first four words of the state.
fn id(words: &[u64; 8]) -> ChunkId {
    let mut bytes = [0; 32];
    for (place, word) in bytes.chunks_exact_mut(8).zip(words) {
        place.copy_from_slice(&word.to_be_bytes());
    }
    ChunkId::from_bytes(bytes)
}

/// Initial state of SHA-512/256 (FIPS 180-4 section 5.3.6.2).
const INITIAL: [u64; 8] = [
    0x22312194fc2bf72c,
    0x9f555fa3c84c64c2,
    0x2393b86b6f53b151,
    0x963877195940eabd,
    0x96283ee2a88effe3,
    0xbe5e1e2553863992,
    0x2b0199fc2c85b8aa,
    0x0eb72ddc81c52ca2,
];

/// Round constants: the first 64 bits of the fractions of the cube roots of the first 80 primes (FIPS 180-4 section 4.2.3).
pub(super) const ROUND_CONSTANTS: [u64; 80] = [
    0x428a2f98d728ae22,
    0x7137449123ef65cd,
    0xb5c0fbcfec4d3b2f,
    0xe9b5dba58189dbbc,
    0x3956c25bf348b538,
    0x59f111f1b605d019,
    0x923f82a4af194f9b,
    0xab1c5ed5da6d8118,
    0xd807aa98a3030242,
    0x12835b0145706fbe,
    0x243185be4ee4b28c,
    0x550c7dc3d5ffb4e2,
    0x72be5d74f27b896f,
    0x80deb1fe3b1696b1,
    0x9bdc06a725c71235,
    0xc19bf174cf692694,
    0xe49b69c19ef14ad2,
    0xefbe4786384f25e3,
    0x0fc19dc68b8cd5b5,
    0x240ca1cc77ac9c65,
    0x2de92c6f592b0275,
    0x4a7484aa6ea6e483,
    0x5cb0a9dcbd41fbd4,
    0x76f988da831153b5,
    0x983e5152ee66dfab,
    0xa831c66d2db43210,
    0xb00327c898fb213f,
    0xbf597fc7beef0ee4,
    0xc6e00bf33da88fc2,
    0xd5a79147930aa725,
    0x06ca6351e003826f,
    0x142929670a0e6e70,
    0x27b70a8546d22ffc,
    0x2e1b21385c26c926,
    0x4d2c6dfc5ac42aed,
    0x53380d139d95b3df,
    0x650a73548baf63de,
    0x766a0abb3c77b2a8,
    0x81c2c92e47edaee6,
    0x92722c851482353b,
    0xa2bfe8a14cf10364,
    0xa81a664bbc423001,
    0xc24b8b70d0f89791,
    0xc76c51a30654be30,
    0xd192e819d6ef5218,
    0xd69906245565a910,
    0xf40e35855771202a,
    0x106aa07032bbd1b8,
    0x19a4c116b8d2d0c8,
    0x1e376c085141ab53,
    0x2748774cdf8eeb99,
    0x34b0bcb5e19b48a8,
    0x391c0cb3c5c95a63,
    0x4ed8aa4ae3418acb,
    0x5b9cca4f7763e373,
    0x682e6ff3d6b2b8a3,
    0x748f82ee5defb2fc,
    0x78a5636f43172f60,
    0x84c87814a1f0ab72,
    0x8cc702081a6439ec,
    0x90befffa23631e28,
    0xa4506cebde82bde9,
    0xbef9a3f7b2c67915,
    0xc67178f2e372532b,
    0xca273eceea26619c,
    0xd186b8c721c0c207,
    0xeada7dd6cde0eb1e,
    0xf57d4f7fee6ed178,
    0x06f067aa72176fba,
    0x0a637dc5a2c898a6,
    0x113f9804bef90dae,
    0x1b710b35131c471b,
    0x28db77f523047d84,
    0x32caab7b40c72493,
    0x3c9ebe0a15c9bebc,
    0x431d67c49c100d4c,
    0x4cc5d4becb3e42b6,
    0x597f299cfc657e2a,
    0x5fcb6fab3ad6faec,
    0x6c44198c4a475817,
];
