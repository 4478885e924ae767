//! Parts in any order against the chunker over the whole, with a caller that does what a server does: seams are cut as soon as
//! both neighbours are there, parts are sent again and left out, and the end counts what had to be read.

use std::collections::BTreeMap;

use bytes::Bytes;

use super::tests::awkward_streams;
use super::*;

/// One upload: parts by number, with what is known of each, and the seams that were cut ahead.
struct Upload {
    rule: CutRule,
    parts: BTreeMap<u32, (Bytes, PartCuts)>,
    /// Of a right part's number: lengths of the seam's chunks, and which own chunk follows.
    seams: BTreeMap<u32, (Vec<usize>, usize)>,
    /// Bytes wanted again when seams were cut ahead, at the end, and all bytes of parts.
    read: [u64; 3],
}

fn no_seam(_: usize) -> Option<usize> {
    None
}

fn own(cuts: &PartCuts, chunk: usize) -> std::ops::Range<usize> {
    let start = if chunk == 0 { 0 } else { cuts.ends()[chunk - 1] };
    start as usize..cuts.ends()[chunk] as usize
}

impl Upload {
    fn new(rule: CutRule) -> Self {
        Self {
            rule,
            parts: BTreeMap::new(),
            seams: BTreeMap::new(),
            read: [0; 3],
        }
    }

    fn put(&mut self, number: u32, data: Bytes, mut piece: impl FnMut() -> usize) {
        let mut cutter = PartCutter::new(self.rule);
        let mut at = 0;
        while at < data.len() {
            let end = data.len().min(at + piece());
            while let Some(len) = cutter.cut(&data[at..end]) {
                at += len;
            }
            at = end;
        }
        self.parts.insert(number, (data, cutter.finish()));
        self.seams.remove(&number);
        self.seams.remove(&(number + 1));
        self.cut_ahead(number);
        self.cut_ahead(number + 1);
    }

    /// The seam before a part, if both neighbours are there and the left one is sure of its own last cut.
    fn cut_ahead(&mut self, right: u32) {
        let (Some(left), Some(part)) = (self.parts.get(&right.wrapping_sub(1)), self.parts.get(&right)) else {
            return;
        };
        if left.1.certified().is_none() || left.1.is_closed() {
            return;
        }
        let pair = [left.1.clone(), part.1.clone()];
        let data = [&left.0, &part.0];
        let mut join = PartJoin::seam(self.rule, &pair, no_seam);
        let mut lens = Vec::new();
        while join.in_step().is_none() {
            match join.step() {
                JoinStep::Read { part, chunk } => join.push(data[part].slice(own(&pair[part], chunk))),
                JoinStep::Chunk(len) => lens.push(len),
                JoinStep::Done => break,
                step => panic!("{step:?}"),
            }
        }
        self.read[0] += join.bytes_read();
        match join.in_step() {
            Some(from) => drop(self.seams.insert(right, (lens, from))),
            None => assert!(pair[1].certified().is_none(), "a certified cut is always hit"),
        }
    }

    /// Ends of the chunks of the whole that these parts make.
    fn complete(&mut self, numbers: &[u32]) -> Vec<usize> {
        let parts: Vec<_> = numbers.iter().map(|number| &self.parts[number]).collect();
        let cuts: Vec<PartCuts> = parts.iter().map(|part| part.1.clone()).collect();
        self.read[2] += cuts.iter().map(PartCuts::part_len).sum::<u64>();
        let seams = &self.seams;
        let is_next = |part: usize| part > 0 && numbers[part - 1] + 1 == numbers[part];
        let known = |part: usize| is_next(part).then(|| Some(seams.get(&numbers[part])?.1)).flatten();
        let mut join = PartJoin::new(self.rule, &cuts, known);
        let (mut ends, mut end) = (Vec::new(), 0);
        let mut add = |len: usize| {
            end += len;
            ends.push(end);
        };
        let mut waiting = 0;
        loop {
            match join.step() {
                JoinStep::Keep { part, chunks } => {
                    assert!(!chunks.is_empty() && waiting == 0);
                    chunks.for_each(|chunk| add(own(&cuts[part], chunk).len()));
                }
                JoinStep::Seam { part } => self.seams[&numbers[part]].0.iter().for_each(|len| add(*len)),
                JoinStep::Read { part, chunk } => {
                    let bytes = parts[part].0.slice(own(&cuts[part], chunk));
                    waiting += bytes.len();
                    assert!(
                        waiting <= 2 * self.rule.sizes().max(),
                        "{waiting} bytes have to be kept"
                    );
                    join.push(bytes);
                }
                JoinStep::Chunk(len) => {
                    waiting -= len;
                    add(len);
                }
                JoinStep::Done => break,
            }
        }
        assert_eq!(waiting, 0, "all that was read is in a chunk");
        self.read[1] += join.bytes_read();
        ends
    }
}

fn whole_cuts(rule: CutRule, data: &[u8]) -> Vec<usize> {
    let (mut chunker, mut ends, mut at) = (Chunker::from(rule), Vec::new(), 0);
    while let Some(len) = chunker.cut(&data[at..]) {
        at += len;
        ends.push(at);
    }
    if at < data.len() {
        ends.push(data.len());
    }
    ends
}

fn noise(random: &mut fastrand::Rng, len: usize) -> Vec<u8> {
    let mut bytes = vec![0; len];
    random.fill(&mut bytes);
    bytes
}

/// One part's bytes, of one of the kinds on which joining could go wrong.
fn part_data(random: &mut fastrand::Rng, len: usize, kind: u32) -> Vec<u8> {
    match kind {
        0 => vec![0; len],
        1 => vec![random.u8(..); len],
        2 => (0..len).map(|_| random.u8(..2)).collect(),
        3 => {
            let period = random.usize(2..200);
            noise(random, period).into_iter().cycle().take(len).collect()
        }
        4 => {
            // Zeros between noise, longer and shorter than a chunk.
            let mut bytes = Vec::with_capacity(len);
            while bytes.len() < len {
                let run = random.usize(..30_000);
                bytes.extend(noise(random, run));
                bytes.resize(bytes.len() + random.usize(..30_000), 0);
            }
            bytes.truncate(len);
            bytes
        }
        _ => noise(random, len),
    }
}

/// Goal: the join of parts in any order is the cut of the whole.
/// Method: 2 000 uploads at 1:4:16 KiB, of 1 to 9 parts of 20 KB and more (the last shorter), of all kinds of data, in random
/// order, some sent twice with other bytes, some left out, pushed in pieces of any size.
#[test]
fn parts_in_any_order_join_to_the_cut_of_the_whole() {
    let rule = CutRule::new(ChunkSizes::new(1 << 10, 4 << 10, 16 << 10).unwrap(), Dialect::Casync).unwrap();
    let mut known_seams = 0;
    for seed in 0..2000 {
        let mut random = fastrand::Rng::with_seed(seed);
        let count = random.u32(1..10);
        // Some uploads are of one kind, most of kinds that alternate.
        let one = random.bool().then(|| random.u32(..12));
        let mut upload = Upload::new(rule);
        let mut order: Vec<u32> = (1..=count).collect();
        random.shuffle(&mut order);
        order.extend((0..random.u32(..3)).map(|_| 1 + random.u32(..count)));
        for number in order {
            let len = if number == count {
                random.usize(1..40_000)
            } else {
                random.usize(20_000..120_000)
            };
            let kind = one.unwrap_or_else(|| random.u32(..12));
            let data = part_data(&mut random, len, kind);
            let piece = random.usize(1..50_000);
            upload.put(number, data.into(), || piece);
        }
        let mut listed: Vec<u32> = (1..=count).collect();
        if random.u32(..4) == 0 {
            listed.retain(|_| random.u32(..4) > 0);
        }
        let whole: Vec<u8> = listed
            .iter()
            .flat_map(|number| upload.parts[number].0.to_vec())
            .collect();
        known_seams += upload.seams.len();
        assert_eq!(upload.complete(&listed), whole_cuts(rule, &whole), "seed {seed}");
    }
    assert!(known_seams > 2000, "only {known_seams} seams were cut ahead");
}

/// Goal: whatever the sizes and the dialect, and however short the parts, the join is right; only what is read differs.
#[test]
fn sizes_and_parts_beyond_the_lemma_join_too() {
    let mut random = fastrand::Rng::with_seed(77);
    for (sizes, dialect) in super::tests::size_triples() {
        let rule = CutRule::new(sizes, dialect).unwrap();
        for (name, data) in awkward_streams(100_000, sizes.min() as u64 + 3) {
            for longest in [40, 3000, 60_000] {
                let mut upload = Upload::new(rule);
                let (mut at, mut number) = (0, 0);
                while at < data.len() {
                    number += 1;
                    let end = data.len().min(at + random.usize(0..=longest));
                    upload.put(number, data[at..end].to_vec().into(), || 7001);
                    at = end;
                }
                let listed: Vec<u32> = (1..=number).collect();
                let found = upload.complete(&listed);
                assert_eq!(
                    found,
                    whole_cuts(rule, &data),
                    "{name}, {sizes:?}, {dialect:?}, parts up to {longest}"
                );
            }
        }
    }
}

/// Goal: of ordinary data the end reads nothing, and the seams little: 5 MiB parts at the default sizes.
#[test]
fn seams_are_a_small_share_of_ordinary_data() {
    let rule = CutRule::new(ChunkSizes::DEFAULT, Dialect::Casync).unwrap();
    let mut random = fastrand::Rng::with_seed(5);
    let data: Vec<Bytes> = (0..12).map(|_| noise(&mut random, 5 << 20).into()).collect();
    for shuffled in [false, true] {
        let mut upload = Upload::new(rule);
        let mut order: Vec<u32> = (0..12).collect();
        if shuffled {
            random.shuffle(&mut order);
        }
        for number in order {
            upload.put(number, data[number as usize].clone(), || 1 << 20);
        }
        let found = upload.complete(&(0..12).collect::<Vec<_>>());
        assert_eq!(found, whole_cuts(rule, &data.concat()));
        let [ahead, end, all] = upload.read;
        println!("shuffled {shuffled}: {ahead} of {all} bytes read for seams, {end} at the end");
        assert_eq!(end, 0, "all seams were cut when their second part came");
        assert!(ahead * 20 < all, "{ahead} of {all} bytes were read again");
    }
}

/// Goal: what was kept of a part is taken back only if it can be one.
#[test]
fn cuts_that_no_part_has_are_refused() {
    assert!(PartCuts::new(vec![], None, true).is_some());
    assert!(PartCuts::new(vec![5, 9], Some(5), false).is_some());
    for (ends, certified) in [
        (vec![0], None),
        (vec![5, 5], None),
        (vec![9, 5], None),
        (vec![5, 9], Some(6)),
    ] {
        assert!(PartCuts::new(ends, certified, false).is_none());
    }
}
