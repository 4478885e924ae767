//! Bodies of objects: any piece of any object, made from one base and a stamp every few KiB, so that neither sending nor comparing
//! costs much, and yet no chunk of one object is in another.

use clap::ValueEnum;

use crate::Result;

/// Bytes that objects have in common, but for the stamps.
const BASE_LEN: usize = 8 << 20;
/// Between two stamps; the shortest chunk of more than a small object has several.
const STAMP_EVERY: usize = 4 << 10;
const STAMP_LEN: usize = 8;

/// What bodies are like.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Kind {
    /// Lines of a log, no chunk twice; zstd makes about a quarter of them.
    Text,
    /// Chance: nothing compresses it, no chunk twice.
    Random,
    /// The same text in every object.
    Same,
}

/// Makes bodies of a kind.
pub(crate) struct Bodies {
    kind: Kind,
    base: Vec<u8>,
}

impl Bodies {
    pub(crate) fn new(kind: Kind) -> Self {
        let mut random = fastrand::Rng::with_seed(0x53);
        let mut base = vec![0; BASE_LEN];
        match kind {
            Kind::Random => random.fill(&mut base),
            Kind::Text | Kind::Same => base = text(&mut random),
        }
        Self { kind, base }
    }

    /// The bytes of an object from `at` on.
    pub(crate) fn fill(&self, object: u64, at: u64, out: &mut [u8]) {
        let object = if self.kind == Kind::Same { 0 } else { object + 1 };
        let mut done = 0;
        while done < out.len() {
            let at = at as usize + done;
            let (block, within) = (at / STAMP_EVERY, at % STAMP_EVERY);
            let len = (STAMP_EVERY - within).min(out.len() - done);
            let from = block * STAMP_EVERY % BASE_LEN + within;
            let piece = &mut out[done..done + len];
            piece.copy_from_slice(&self.base[from..from + len]);
            if within < STAMP_LEN {
                let stamp = mix(object << 32 ^ block as u64).to_le_bytes();
                let stamp = &stamp[within..STAMP_LEN.min(within + len)];
                piece[..stamp.len()].copy_from_slice(stamp);
            }
            done += len;
        }
    }

    /// Holds bytes that came back to those that were sent.
    ///
    /// - `scratch`: grows as it needs.
    pub(crate) fn check(&self, object: u64, at: u64, found: &[u8], scratch: &mut Vec<u8>) -> Result<()> {
        if scratch.len() < found.len() {
            scratch.resize(found.len(), 0);
        }
        let expected = &mut scratch[..found.len()];
        self.fill(object, at, expected);
        if expected == found {
            return Ok(());
        }
        Err(format!("object {object} came back with other bytes at {at}").into())
    }
}

/// One-to-one, and without a pattern (splitmix64).
pub(crate) fn mix(number: u64) -> u64 {
    let mut mixed = number.wrapping_add(0x9e37_79b9_7f4a_7c15);
    mixed = (mixed ^ mixed >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    mixed = (mixed ^ mixed >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
    mixed ^ mixed >> 31
}

fn text(random: &mut fastrand::Rng) -> Vec<u8> {
    let words: Vec<String> = (0..512)
        .map(|_| {
            let len = random.usize(3..10);
            std::iter::repeat_with(|| random.lowercase()).take(len).collect()
        })
        .collect();
    let mut text = Vec::with_capacity(BASE_LEN + 256);
    let mut seconds = 0_u64;
    while text.len() < BASE_LEN {
        seconds += random.u64(..3);
        let word = |random: &mut fastrand::Rng| words[random.usize(..512).min(random.usize(..512))].as_str();
        let line = format!(
            "2026-11-21T{:02}:{:02}:{:02}Z level=info request={:08x} path=/{}/{}/{} status=200 bytes={} {} {} {} {}\n",
            seconds / 3600 % 24,
            seconds / 60 % 60,
            seconds % 60,
            random.u32(..),
            word(random),
            word(random),
            word(random),
            random.u32(..100_000),
            word(random),
            word(random),
            word(random),
            word(random),
        );
        text.extend_from_slice(line.as_bytes());
    }
    text.truncate(BASE_LEN);
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pieces_are_those_of_the_whole_however_it_is_sliced() {
        let bodies = Bodies::new(Kind::Text);
        let mut whole = vec![0; 50_000];
        bodies.fill(7, 0, &mut whole);
        for (from, to) in [(0, 1), (3, 9), (4090, 4110), (4097, 20_000), (49_999, 50_000)] {
            let mut piece = vec![0; to - from];
            bodies.fill(7, from as u64, &mut piece);
            assert_eq!(piece, whole[from..to], "{from} to {to}");
        }
        let mut other = vec![0; 50_000];
        bodies.fill(8, 0, &mut other);
        assert!(
            whole
                .chunks(STAMP_EVERY)
                .zip(other.chunks(STAMP_EVERY))
                .all(|(one, other)| one != other)
        );
        assert!(bodies.check(8, 0, &whole, &mut Vec::new()).is_err());
    }
}
