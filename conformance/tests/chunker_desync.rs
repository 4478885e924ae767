//! `cairn make --dialect desync` writes the index of desync v1.1.0, byte for byte but for header flag 60.
//!
//! v1.1.0 does not test at exactly min, does not clamp its divisor, and leaves flag 60 clear, which casync and newer desync set.

use std::fs;
use std::path::Path;

use cairn_conformance::cuts::{self, Sizes, compare, input, inputs, our_index, sizes};
use cairn_conformance::support::{self, desync, ok};

/// desync is slower to start, so it gets a fifth of the inputs: 100 unless told, 2000 for a release.
const SHARE: u64 = 5;

/// Byte of an index that holds the flags' highest bits, and flag 60 in it.
const FLAGS_TOP: usize = 23;
const FLAG_60: u8 = 0x10;

const KIB: u64 = 1024;

/// desync takes whole KiB.
const TABLE: &[Sizes] = &[
    sizes(16 * KIB, 64 * KIB, 256 * KIB),
    sizes(4 * KIB, 16 * KIB, 64 * KIB),
    sizes(KIB, 4 * KIB, 16 * KIB),
    // Where casync clamps its divisor and desync does not.
    sizes(4 * KIB, 4 * KIB, 16 * KIB),
    sizes(60 * KIB, 64 * KIB, 68 * KIB),
    sizes(512 * KIB, 2048 * KIB, 8192 * KIB),
    sizes(100 * KIB, 8192 * KIB, 9000 * KIB),
    sizes(100 * KIB, 10_000 * KIB, 12_000 * KIB),
    // Small and close together.
    sizes(KIB, KIB, 2 * KIB),
    sizes(KIB, 2 * KIB, 3 * KIB),
    sizes(2 * KIB, 3 * KIB, 5 * KIB),
    // Fixed.
    sizes(2 * KIB, 2 * KIB, 2 * KIB),
];

fn random_sizes(random: &mut fastrand::Rng) -> Sizes {
    let min = random.u64(1..20);
    let avg = min + random.u64(..60);
    let max = avg + random.u64(..120);
    sizes(min * KIB, avg * KIB, max * KIB)
}

/// desync's index and ours of `folder/blob`, both with flag 60 as ours has it.
fn both(folder: &Path, sizes: Sizes) -> (Vec<u8>, Vec<u8>) {
    let [min, avg, max] = [sizes.min, sizes.avg, sizes.max].map(|bytes| bytes / KIB);
    let (blob, theirs) = (folder.join("blob"), folder.join("theirs.caibx"));
    ok(desync()
        .args(["make", "-m", &format!("{min}:{avg}:{max}")])
        .args([&theirs, &blob]));
    let ours = our_index(&blob, &folder.join("ours.caibx"), sizes, "desync");
    let mut theirs = fs::read(theirs).expect("desync made an index");
    assert_eq!(theirs[FLAGS_TOP] & FLAG_60, 0, "this is not desync v1.1.0");
    theirs[FLAGS_TOP] |= ours[FLAGS_TOP] & FLAG_60;
    (theirs, ours)
}

#[test]
fn generated_inputs_give_desyncs_index() {
    let numbers = 0..inputs().div_ceil(SHARE);
    let count = numbers.end;
    let met = compare(numbers, |number| input(number, TABLE, random_sizes), both);
    assert_eq!(met.inputs, count);
    assert!(
        met.cut_at_max > 0 && met.empty > 0,
        "the inputs miss what they are for: {met:?}"
    );
}

#[test]
fn every_size_triple_gives_desyncs_index() {
    let met = compare(
        0..TABLE.len() as u64,
        |number| {
            let sizes = TABLE[number as usize];
            let bytes = support::input(number, (2 << 20).max(4 * sizes.max as usize).min(24 << 20));
            cuts::Input {
                sizes,
                bytes,
                kind: "mixed",
            }
        },
        both,
    );
    assert_eq!(met.inputs, TABLE.len() as u64);
}
