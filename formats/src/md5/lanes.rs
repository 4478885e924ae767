//! The lane scheduler: pieces of many streams over the few lanes of an MD5 kernel.
//!
//! A lane whose piece ends takes the next one at once, the longest first; when too few are busy to pay for a vector, the `md-5`
//! crate goes on from the state that each lane has reached. Whole blocks are read where they lie. No `unsafe` here.

/// Input of one compression.
pub(super) type Block = [u8; 64];

/// Chaining values of all lanes: four words, each a vector over the lanes, so that a kernel loads a word at once.
#[derive(Clone)]
#[repr(align(64))]
pub(super) struct State<const LANES: usize>(pub(super) [[u32; LANES]; 4]);

/// The compression function of MD5 on several lanes. An instance is proof that the CPU can run it.
pub(super) trait Kernel<const LANES: usize> {
    /// The fewest busy lanes at which a call costs no more than compressing each lane's blocks by the library.
    const WORTHWHILE: usize;

    /// Takes `data[lane]` into lane `lane` of `state`; every lane's slice has the same number of blocks.
    fn compress(&self, state: &mut State<LANES>, data: [&[Block]; LANES]);
}

/// Whole blocks on their way into one stream's state.
#[derive(Debug)]
pub(super) struct Run<'a> {
    pub(super) state: &'a mut [u32; 4],
    pub(super) blocks: &'a [Block],
}

/// Takes the blocks of each run into its state.
pub(super) fn compress<const LANES: usize, K: Kernel<LANES>>(kernel: &K, mut runs: Vec<Run<'_>>) {
    // Longest last, because the runs are popped from the end.
    runs.sort_unstable_by_key(|run| run.blocks.len());
    let mut state = State([[0; LANES]; 4]);
    let mut lanes: [Option<Run<'_>>; LANES] = [const { None }; LANES];
    loop {
        for (at, lane) in lanes.iter_mut().enumerate() {
            if lane.is_none()
                && let Some(run) = runs.pop()
            {
                for (vector, word) in state.0.iter_mut().zip(run.state.iter()) {
                    vector[at] = *word;
                }
                *lane = Some(run);
            }
        }
        let busy = lanes.iter().flatten().count();
        if busy < K::WORTHWHILE {
            for (at, lane) in lanes.iter_mut().enumerate() {
                if let Some(run) = lane {
                    *run.state = std::array::from_fn(|word| state.0[word][at]);
                    ::md5::block_api::compress(run.state, run.blocks);
                }
            }
            debug_assert!(runs.is_empty(), "lanes are left empty only when nothing waits");
            return;
        }

        // As far as the lane that ends first. Idle lanes follow a busy one: their state is never read.
        let step = lanes.iter().flatten().map(|run| run.blocks.len()).min().unwrap_or(0);
        let any = lanes.iter().flatten().next().map_or(&[][..], |run| &run.blocks[..step]);
        let data = std::array::from_fn(|at| lanes[at].as_ref().map_or(any, |run| &run.blocks[..step]));
        kernel.compress(&mut state, data);

        for (at, slot) in lanes.iter_mut().enumerate() {
            if let Some(run) = slot {
                run.blocks = &run.blocks[step..];
                if run.blocks.is_empty() {
                    *run.state = std::array::from_fn(|word| state.0[word][at]);
                    *slot = None;
                }
            }
        }
    }
}

/// Round constants: the first 32 bits of the fractions of `abs(sin(i + 1))` (RFC 1321 section 3.4).
#[rustfmt::skip] // Eight a line.
pub(super) const ROUND_CONSTANTS: [u32; 64] = [
    0xd76aa478, 0xe8c7b756, 0x242070db, 0xc1bdceee, 0xf57c0faf, 0x4787c62a, 0xa8304613, 0xfd469501,
    0x698098d8, 0x8b44f7af, 0xffff5bb1, 0x895cd7be, 0x6b901122, 0xfd987193, 0xa679438e, 0x49b40821,
    0xf61e2562, 0xc040b340, 0x265e5a51, 0xe9b6c7aa, 0xd62f105d, 0x02441453, 0xd8a1e681, 0xe7d3fbc8,
    0x21e1cde6, 0xc33707d6, 0xf4d50d87, 0x455a14ed, 0xa9e3e905, 0xfcefa3f8, 0x676f02d9, 0x8d2a4c8a,
    0xfffa3942, 0x8771f681, 0x6d9d6122, 0xfde5380c, 0xa4beea44, 0x4bdecfa9, 0xf6bb4b60, 0xbebfbc70,
    0x289b7ec6, 0xeaa127fa, 0xd4ef3085, 0x04881d05, 0xd9d4d039, 0xe6db99e5, 0x1fa27cf8, 0xc4ac5665,
    0xf4292244, 0x432aff97, 0xab9423a7, 0xfc93a039, 0x655b59c3, 0x8f0ccc92, 0xffeff47d, 0x85845dd1,
    0x6fa87e4f, 0xfe2ce6e0, 0xa3014314, 0x4e0811a1, 0xf7537e82, 0xbd3af235, 0x2ad7d2bb, 0xeb86d391,
];
