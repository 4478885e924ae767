//! What all forms of the chunker have to agree on: known answers, and the byte-by-byte reference on awkward data.

use sha2::{Digest, Sha256};

use super::*;

/// Streams on which chunkers go wrong, of `len` bytes each.
pub(super) fn awkward_streams(len: usize, seed: u64) -> Vec<(String, Vec<u8>)> {
    let mut random = fastrand::Rng::with_seed(seed);
    let mut noise = vec![0; len];
    random.fill(&mut noise);
    let mut streams = vec![
        ("zeros".to_owned(), vec![0; len]),
        ("0xff".to_owned(), vec![0xff; len]),
        (
            "two symbols".to_owned(),
            noise.iter().map(|byte| b'a' + (byte & 1)).collect(),
        ),
        (
            "half zero".to_owned(),
            noise
                .iter()
                .enumerate()
                .map(|(at, &byte)| if at / 1500 % 2 == 0 { 0 } else { byte })
                .collect(),
        ),
        (
            "ends in zeros".to_owned(),
            noise
                .iter()
                .enumerate()
                .map(|(at, &b)| if at < len / 3 { b } else { 0 })
                .collect(),
        ),
    ];
    for period in [2, 3, 7, 31, 48, 49, 64, 1000] {
        let cycle = noise.iter().copied().take(period).collect::<Vec<_>>();
        streams.push((
            format!("period {period}"),
            cycle.iter().copied().cycle().take(len).collect(),
        ));
    }
    // Runs of every length around the window and the jump's block, with other bytes between.
    let mut runs = Vec::new();
    while runs.len() < len {
        let value = random.u8(..);
        runs.extend(std::iter::repeat_n(value, random.usize(1..400)));
        runs.extend((0..random.usize(0..60)).map(|_| random.u8(..)));
    }
    runs.truncate(len);
    streams.push(("runs".to_owned(), runs));
    streams.push(("noise".to_owned(), noise));
    streams
}

/// Size triples: those of casync's known answers, cuts at min, clamped divisors, tiny, fixed, zeros as candidates.
pub(super) fn size_triples() -> Vec<(ChunkSizes, Dialect)> {
    let triples = [
        (16384, 65536, 262_144),
        (4096, 16384, 65536),
        (1024, 4096, 16384),
        (4096, 4096, 16384),
        (64, 256, 1024),
        (60, 65, 70),
        (48, 48, 49),
        (1, 1, 100),
        (10, 20, 48),
        (10, 100, 1000),
        (48, 100, 1000),
        (60000, 65536, 70000),
        (1000, 1000, 1000),
        (1, 1, 1),
        // D = 3943, a prime factor of the zero window's hash + 1: by the formula and by the clamp.
        (1000, 5251, 20000),
        (3943, 3943, 20000),
        (673_487, 673_487, 700_000),
        (512 << 10, 2 << 20, 8 << 20),
        (1 << 20, 16 << 20, 32 << 20),
    ];
    let mut all = Vec::new();
    for (min, avg, max) in triples {
        let sizes = ChunkSizes::new(min, avg, max).unwrap();
        for dialect in [Dialect::Casync, Dialect::Desync] {
            if sizes.check(dialect).is_ok() {
                all.push((sizes, dialect));
            }
        }
    }
    all
}

/// Ends of all chunks, with the stream pushed in pieces whose lengths `piece` chooses.
fn pushed_cuts(mut chunker: Chunker, data: &[u8], mut piece: impl FnMut() -> usize) -> Vec<usize> {
    let mut ends = Vec::new();
    let mut at = 0;
    while at < data.len() {
        let end = data.len().min(at + piece());
        while let Some(len) = chunker.cut(&data[at..end]) {
            at += len;
            ends.push(at);
        }
        at = end;
    }
    if chunker.open_len() > 0 {
        ends.push(data.len());
    }
    ends
}

#[test]
fn sequential_form_equals_the_reference() {
    let mut random = fastrand::Rng::with_seed(7);
    for (sizes, dialect) in size_triples() {
        for (name, data) in awkward_streams(100_000, sizes.min() as u64) {
            let expected = reference::cuts(&data, sizes, dialect);
            for &kernel in Kernel::available() {
                let chunker = Chunker::new(sizes, dialect).with_kernel(kernel);
                let what = || format!("{name}, {sizes:?}, {dialect:?}, {}", kernel.name());
                assert_eq!(
                    pushed_cuts(chunker.clone(), &data, || usize::MAX / 2),
                    expected,
                    "{}",
                    what()
                );
                assert_eq!(
                    pushed_cuts(chunker.clone(), &data, || random.usize(0..120)),
                    expected,
                    "{}",
                    what()
                );
                assert_eq!(
                    pushed_cuts(chunker, &data, || random.usize(0..9000)),
                    expected,
                    "{}",
                    what()
                );
            }
        }
    }
}

#[test]
fn single_byte_pushes_give_the_same_cuts() {
    let sizes = ChunkSizes::new(64, 256, 1024).unwrap();
    for (name, data) in awkward_streams(5000, 3) {
        let expected = reference::cuts(&data, sizes, Dialect::Casync);
        assert_eq!(
            pushed_cuts(Chunker::new(sizes, Dialect::Casync), &data, || 1),
            expected,
            "{name}"
        );
    }
}

/// The stream V of the known answers: SHA-256("vector" ‖ LE64(i)) for i = 0, 1, …
fn known_stream() -> Vec<u8> {
    let mut stream = Vec::new();
    for i in 0u64.. {
        if stream.len() >= 400_000 {
            break;
        }
        stream.extend_from_slice(
            &Sha256::new()
                .chain_update("vector")
                .chain_update(i.to_le_bytes())
                .finalize(),
        );
    }
    stream.truncate(400_000);
    stream
}

/// Cuts that the real casync made of stream V.
#[test]
fn known_answers_of_casync() {
    let stream = known_stream();
    let known: [(_, usize, &[usize], &str); 5] = [
        (
            (16384, 65536, 262_144),
            7,
            &[39339, 152_757, 265_282, 288_380, 322_599, 385_522, 400_000],
            "21f341ebea94fda9623c059fd881f413",
        ),
        (
            (4096, 16384, 65536),
            27,
            &[15120, 19821, 27711, 45151, 58741, 68451],
            "ae66f109e040f7c7dd00aefbfbce2eca",
        ),
        (
            (1024, 4096, 16384),
            100,
            &[2032, 18416, 19542, 21242, 25280, 28928],
            "a37c3d748f44052fc10742a0af405d6b",
        ),
        (
            (4096, 4096, 16384),
            53,
            &[4524, 14426, 21332, 29417, 39317, 47132],
            "665b6c7114b9bc08fafa41c62f0ca8fe",
        ),
        (
            (64, 256, 1024),
            1525,
            &[108, 393, 542, 730, 1208, 1826],
            "273254b704b53629b9a55387f3d30517",
        ),
    ];
    for ((min, avg, max), count, firsts, digest) in known {
        let chunker = Chunker::new(ChunkSizes::new(min, avg, max).unwrap(), Dialect::Casync);
        let ends = pushed_cuts(chunker, &stream, || usize::MAX / 2);
        assert_eq!(ends.len(), count);
        assert_eq!(&ends[..firsts.len()], firsts);
        let bytes = ends
            .iter()
            .flat_map(|&end| (end as u64).to_le_bytes())
            .collect::<Vec<_>>();
        let found = Sha256::digest(&bytes)[..16]
            .iter()
            .map(|byte| format!("{byte:02x}"))
            .collect::<String>();
        assert_eq!(found, digest);
    }
}

#[test]
fn known_window_hashes() {
    let counting = (0..=0x30).collect::<Vec<u8>>();
    assert_eq!(kernel::hash(&counting[..48]), 0x6b67_dec6);
    assert_eq!(kernel::hash(&counting[1..]), 0xa3fc_25f1);
    assert_eq!(kernel::hash(&[0; 48]), 0x9e48_9e48);
    assert_eq!(kernel::hash(&[0xff; 48]), 0xfdc4_023b);
    assert_eq!(kernel::hash(&[b'a'; 48]), 0x0d7c_0d7c);
}

#[test]
fn known_divisors() {
    let divisor = |avg: u64, dialect| {
        ChunkSizes::new(48, avg, CHUNK_LEN_MAX as u64)
            .unwrap()
            .discriminator(dialect)
    };
    for (avg, expected) in [
        (1024, 768),
        (4096, 3075),
        (8192, 6153),
        (16384, 12318),
        (32768, 24680),
        (65536, 49535),
        (131_072, 99777),
        (262_144, 202_440),
        (1 << 20, 886_711),
        (2 << 20, 2_030_716),
        (4 << 20, 5_721_670),
        (8 << 20, 62_724_856),
    ] {
        assert_eq!(divisor(avg, Dialect::Casync), expected);
        assert_eq!(divisor(avg, Dialect::Desync), expected);
    }
    // Behind the formula's pole casync ends at max.
    for avg in [9_324_556, 16 << 20, CHUNK_LEN_MAX as u64] {
        assert_eq!(divisor(avg, Dialect::Casync), CHUNK_LEN_MAX as u32);
    }
}

#[test]
fn sizes_that_the_dialects_tool_refuses() {
    let check = |min, avg, max, dialect| {
        ChunkSizes::new(min, avg, max)
            .unwrap()
            .check(dialect)
            .map_err(|e| e.rule)
    };
    assert_eq!(
        check(10, 20, 40, Dialect::Casync),
        Err("max >= 48 unless all three are equal")
    );
    assert_eq!(check(40, 40, 40, Dialect::Casync), Ok(()));
    assert_eq!(check(10, 20, 48, Dialect::Casync), Ok(()));
    assert_eq!(
        check(47, 64, 1024, Dialect::Desync),
        Err("min >= 48 in desync's dialect")
    );
    assert_eq!(check(48, 64, 1024, Dialect::Desync), Ok(()));
    assert!(ChunkSizes::new(0, 1, 2).is_err());
    assert!(ChunkSizes::new(3, 2, 4).is_err());
    assert!(ChunkSizes::new(1, 5, 4).is_err());
    assert!(ChunkSizes::new(1, 1, CHUNK_LEN_MAX as u64 + 1).is_err());
}

#[test]
fn chunker_is_total_for_sizes_that_the_rule_refuses() {
    let data = awkward_streams(500, 5).pop().unwrap().1;
    let cuts = |min, avg, max, dialect| {
        let sizes = ChunkSizes::new(min, avg, max).unwrap();
        assert!(CutRule::new(sizes, dialect).is_err());
        let ends = pushed_cuts(Chunker::new(sizes, dialect), &data, || 100);
        assert_eq!(ends, reference::cuts(&data, sizes, dialect));
        ends
    };
    assert_eq!(cuts(10, 20, 40, Dialect::Casync)[..3], [40, 80, 120]);
    assert_eq!(cuts(10, 20, 40, Dialect::Desync)[..3], [40, 80, 120]);
    cuts(10, 60, 100, Dialect::Desync);
}

#[test]
fn every_average_terminates() {
    let data = vec![1; 100_000];
    let mut random = fastrand::Rng::with_seed(11);
    for _ in 0..2000 {
        let avg = random.u64(1..=CHUNK_LEN_MAX as u64);
        let sizes = ChunkSizes::new(random.u64(1..=avg), avg, random.u64(avg..=CHUNK_LEN_MAX as u64)).unwrap();
        for dialect in [Dialect::Casync, Dialect::Desync] {
            let ends = pushed_cuts(Chunker::new(sizes, dialect), &data, || 30_000);
            assert_eq!(ends.last(), Some(&data.len()));
        }
    }
}

/// Ends of all chunks, found by searching blocks of `block_len` bytes on their own.
fn swept_cuts(rule: CutRule, data: &[u8], mut block_len: impl FnMut() -> usize) -> Vec<usize> {
    let mut blocks = Vec::new();
    let mut start = 0;
    while start < data.len() {
        let end = data.len().min(start + block_len());
        blocks.push((start, end));
        start = end;
    }
    // Searched last to first: no block may depend on another.
    let mut candidates = blocks
        .iter()
        .rev()
        .map(|&(start, end)| {
            let pre_roll = start.min(47);
            rule.candidates(&data[start - pre_roll..end], pre_roll, start as u64)
        })
        .collect::<Vec<_>>();
    candidates.reverse();
    let mut sweep = Sweep::new(rule);
    let mut ends = Vec::new();
    for block in &candidates {
        while let Some(end) = sweep.cut(block) {
            ends.push(end as usize);
        }
    }
    ends.extend(sweep.finish().map(|end| end as usize));
    ends
}

#[test]
fn parallel_form_equals_the_reference() {
    let mut random = fastrand::Rng::with_seed(8);
    for (sizes, dialect) in size_triples() {
        for (name, data) in awkward_streams(100_000, sizes.max() as u64) {
            let expected = reference::cuts(&data, sizes, dialect);
            for &kernel in Kernel::available() {
                let rule = CutRule::new(sizes, dialect).unwrap().with_kernel(kernel);
                let what = || format!("{name}, {sizes:?}, {dialect:?}, {}", kernel.name());
                assert_eq!(swept_cuts(rule, &data, || usize::MAX / 2), expected, "{}", what());
                assert_eq!(swept_cuts(rule, &data, || random.usize(1..200)), expected, "{}", what());
                assert_eq!(
                    swept_cuts(rule, &data, || random.usize(1..30_000)),
                    expected,
                    "{}",
                    what()
                );
            }
        }
    }
}

#[test]
fn candidates_equal_the_reference_and_stay_small() {
    for (sizes, dialect) in size_triples().into_iter().filter(|(sizes, _)| !sizes.is_fixed()) {
        for (name, data) in awkward_streams(60_000, sizes.avg() as u64) {
            let expected = reference::candidates(&data, sizes, dialect);
            for &kernel in Kernel::available() {
                let rule = CutRule::new(sizes, dialect).unwrap().with_kernel(kernel);
                let found = rule.candidates(&data, 0, 0);
                let mut positions = Vec::new();
                let mut at = 0;
                while let Some(position) = found.first(at, data.len() as u64) {
                    positions.push(position as usize);
                    at = position + 1;
                }
                assert_eq!(positions, expected, "{name}, {sizes:?}, {dialect:?}, {}", kernel.name());
                assert_eq!(found.count(), expected.len());
                assert!(found.heap_len() <= data.len() / 8 + 16, "{name}, {sizes:?}");
            }
        }
    }
}

/// Cuts each part of a stream from its first certified cut on, and joins the parts as parallel workers would.
fn certified_cuts(rule: CutRule, data: &[u8], parts: &[usize]) -> Vec<usize> {
    let starts = std::iter::once(0)
        .chain(
            parts
                .iter()
                .filter_map(|&part| rule.first_certified_cut(&data[part..]).map(|cut| part + cut)),
        )
        .collect::<Vec<_>>();
    let mut ends = Vec::new();
    for (at, &start) in starts.iter().enumerate() {
        // A part's certified cut can lie behind that of the next.
        let stop = starts[at + 1..].iter().copied().min().unwrap_or(data.len());
        if start >= stop {
            continue;
        }
        let part_ends = pushed_cuts(rule.into(), &data[start..], || usize::MAX / 2);
        let part_ends = part_ends
            .into_iter()
            .map(|end| start + end)
            .take_while(|&end| end <= stop)
            .collect::<Vec<_>>();
        assert_eq!(
            part_ends.last(),
            Some(&stop),
            "the next part's certified cut is hit exactly"
        );
        ends.extend(part_ends);
    }
    ends
}

#[test]
fn certified_form_equals_the_reference() {
    let mut random = fastrand::Rng::with_seed(9);
    let mut certified = 0;
    for (sizes, dialect) in size_triples() {
        for (name, data) in awkward_streams(100_000, sizes.avg() as u64 + 1) {
            let expected = reference::cuts(&data, sizes, dialect);
            for &kernel in Kernel::available() {
                let rule = CutRule::new(sizes, dialect).unwrap().with_kernel(kernel);
                let mut parts = (0..6).map(|_| random.usize(1..data.len())).collect::<Vec<_>>();
                parts.sort_unstable();
                let what = || format!("{name}, {sizes:?}, {dialect:?}, {}", kernel.name());
                assert_eq!(certified_cuts(rule, &data, &parts), expected, "{}", what());
                certified += parts
                    .iter()
                    .filter(|&&part| rule.first_certified_cut(&data[part..]).is_some())
                    .count();
            }
        }
    }
    assert!(
        certified > 300,
        "only {certified} certified cuts: the test shows too little"
    );
}

#[test]
fn certified_cut_does_not_depend_on_where_the_chunking_began() {
    let mut random = fastrand::Rng::with_seed(10);
    let sizes = ChunkSizes::new(64, 256, 1024).unwrap();
    for dialect in [Dialect::Casync, Dialect::Desync] {
        let rule = CutRule::new(sizes, dialect).unwrap();
        for _ in 0..300 {
            let data = (0..6000).map(|_| random.u8(..)).collect::<Vec<_>>();
            let part = random.usize(0..3000);
            let Some(cut) = rule.first_certified_cut(&data[part..]) else {
                continue;
            };
            for began in (0..=part + 48).step_by(7) {
                let ends = pushed_cuts(rule.into(), &data[began..], || usize::MAX / 2);
                assert!(
                    ends.contains(&(part + cut - began)),
                    "began at {began}, part at {part}, cut {cut}"
                );
            }
        }
    }
}

#[test]
fn fixed_sizes_have_no_certified_cut() {
    let data = awkward_streams(50_000, 1).pop().unwrap().1;
    for (min, avg, max) in [(1000, 1000, 1000), (600, 700, 1000)] {
        let rule = CutRule::new(ChunkSizes::new(min, avg, max).unwrap(), Dialect::Casync).unwrap();
        assert_eq!(rule.first_certified_cut(&data), None);
    }
}

mod properties {
    use proptest::prelude::*;

    use super::*;

    /// Bytes with structure: pieces of noise, runs, short periods and few symbols.
    fn stream() -> impl Strategy<Value = Vec<u8>> {
        let piece = prop_oneof![
            prop::collection::vec(any::<u8>(), 0..1500),
            prop::collection::vec(0u8..2, 0..1500),
            (any::<u8>(), 0usize..3000).prop_map(|(value, len)| vec![value; len]),
            (0usize..3000).prop_map(|len| vec![0; len]),
            (prop::collection::vec(any::<u8>(), 1..60), 0usize..3000).prop_map(|(cycle, len)| cycle
                .into_iter()
                .cycle()
                .take(len)
                .collect()),
        ];
        prop::collection::vec(piece, 0..8).prop_map(|pieces| pieces.concat())
    }

    fn rule() -> impl Strategy<Value = (ChunkSizes, Dialect)> {
        let dialect = prop_oneof![Just(Dialect::Casync), Just(Dialect::Desync)];
        (1u64..600, 0u64..600, 0u64..2000, dialect).prop_map(|(min, more, most, dialect)| {
            let min = if dialect == Dialect::Desync { min.max(48) } else { min };
            let max = (min + more + most).max(48);
            (ChunkSizes::new(min, min + more, max).unwrap(), dialect)
        })
    }

    proptest! {
        #[test]
        fn all_forms_and_kernels_agree(
            data in stream(),
            (sizes, dialect) in rule(),
            pieces in prop::collection::vec(1usize..700, 1..10),
        ) {
            let expected = reference::cuts(&data, sizes, dialect);
            for &kernel in Kernel::available() {
                let rule = CutRule::new(sizes, dialect).unwrap().with_kernel(kernel);
                let mut piece = pieces.iter().copied().cycle();
                let mut next = || piece.next().unwrap();
                prop_assert_eq!(&pushed_cuts(rule.into(), &data, &mut next), &expected);
                prop_assert_eq!(&swept_cuts(rule, &data, &mut next), &expected);
                let parts = pieces.iter().scan(0, |at, &piece| { *at += piece; Some(*at) });
                let parts = parts.filter(|&at| at < data.len()).collect::<Vec<_>>();
                prop_assert_eq!(&certified_cuts(rule, &data, &parts), &expected);
            }
        }
    }
}
