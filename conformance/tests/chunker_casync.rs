//! `cairn make` writes casync's index, byte for byte: every size triple, every kind of awkward stream, and one large file.

use std::fs;
use std::path::Path;

use cairn_conformance::cuts::{self, Sizes, compare, folder, input, inputs, our_index, sizes};
use cairn_conformance::support::{self, casync, ok};

/// One large file has this many MiB unless `CAIRN_CONFORMANCE_LARGE_MIB` says otherwise (1024 for a release).
const LARGE_MIB: usize = 32;

const TABLE: &[Sizes] = &[
    sizes(16384, 65536, 262_144),
    sizes(4096, 16384, 65536),
    sizes(1024, 4096, 16384),
    // The divisor is clamped: below min, above max, behind the pole of its formula.
    sizes(4096, 4096, 16384),
    sizes(60000, 65536, 70000),
    sizes(512 << 10, 2 << 20, 8 << 20),
    sizes(2 << 20, 4 << 20, 5 << 20),
    sizes(100_000, 16 << 20, 32 << 20),
    // Cuts at exactly min are common.
    sizes(64, 256, 1024),
    sizes(100, 120, 1000),
    sizes(3943, 3943, 8000),
    // Every position of a run of zeros is a candidate.
    sizes(1000, 5251, 20000),
    sizes(673_487, 673_487, 700_000),
    // Around the window.
    sizes(48, 48, 49),
    sizes(47, 47, 48),
    sizes(60, 65, 70),
    sizes(10, 20, 48),
    sizes(1, 1, 100),
    sizes(1, 64, 1000),
    // Fixed sizes.
    sizes(1000, 1000, 1000),
    sizes(48, 48, 48),
    sizes(40, 40, 40),
    sizes(65536, 65536, 65536),
];

/// Any triple that casync can cut with: max is 48 or more.
fn random_sizes(random: &mut fastrand::Rng) -> Sizes {
    let scale = 1 << random.u32(2..15);
    let min = random.u64(1..=scale);
    let avg = min + random.u64(..=3 * scale);
    let max = avg + random.u64(..=6 * scale);
    sizes(min, avg, max.max(48))
}

/// casync's index and ours of `folder/blob`.
fn both(folder: &Path, sizes: Sizes) -> (Vec<u8>, Vec<u8>) {
    let Sizes { min, avg, max } = sizes;
    let (blob, theirs) = (folder.join("blob"), folder.join("theirs.caibx"));
    ok(casync()
        .arg("make")
        .arg(format!("--store={}", folder.join("store.castr").display()))
        .arg(format!("--chunk-size={min}:{avg}:{max}"))
        .args([&theirs, &blob]));
    let ours = our_index(&blob, &folder.join("ours.caibx"), sizes, "casync");
    (fs::read(theirs).expect("casync made an index"), ours)
}

#[test]
fn generated_inputs_give_casyncs_index() {
    let met = compare(0..inputs(), |number| input(number, TABLE, random_sizes), both);
    assert_eq!(met.inputs, inputs());
    assert!(
        met.cut_at_min > 0 && met.cut_at_max > 0 && met.empty > 0,
        "the inputs miss what they are for: {met:?}"
    );
}

#[test]
fn every_size_triple_gives_casyncs_index() {
    // Long enough that each triple cuts several times.
    let met = compare(
        0..TABLE.len() as u64,
        |number| {
            let sizes = TABLE[number as usize];
            let len = (1 << 20)
                .max(4 * sizes.max as usize)
                .min(1000 * sizes.avg as usize)
                .min(24 << 20);
            let bytes = support::input(number, len);
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

#[test]
fn a_large_file_gives_casyncs_index() {
    let mib = match std::env::var("CAIRN_CONFORMANCE_LARGE_MIB") {
        Ok(mib) => mib.parse().expect("CAIRN_CONFORMANCE_LARGE_MIB is a number"),
        Err(_) => LARGE_MIB,
    };
    let folder = folder();
    fs::write(folder.path().join("blob"), support::input(1, mib << 20)).expect("room for the file");
    let (theirs, ours) = both(folder.path(), TABLE[0]);
    assert!(
        theirs == ours,
        "the indexes of {mib} MiB differ: {:?}",
        cuts::chunk_lens(&ours).len()
    );
}
