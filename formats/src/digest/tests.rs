//! Every kernel against the `sha2` crate.

use sha2::Digest as _;

use super::*;

fn expected(plain: &[u8]) -> ChunkId {
    ChunkId::from_bytes(sha2::Sha512_256::digest(plain).into())
}

type Hasher = Box<dyn Fn(&[&[u8]]) -> Vec<ChunkId>>;

/// Every way to hash a batch that this machine can run, the model of the instructions it lacks among them.
fn hashers() -> Vec<(String, Hasher)> {
    let mut hashers: Vec<(String, Hasher)> = Vec::new();
    for kernel in DigestKernel::available() {
        hashers.push((format!("{kernel:?}"), Box::new(move |plains| kernel.ids(plains))));
    }
    #[cfg(target_arch = "x86_64")]
    if let Some(model) = sha512_instructions::model::Model::detect() {
        hashers.push((
            "model of the SHA512 instructions".into(),
            Box::new(move |plains| lanes::ids(&model, plains)),
        ));
    }
    hashers
}

/// Checks one batch on every kernel.
fn check(plains: &[&[u8]]) {
    let expected: Vec<ChunkId> = plains.iter().map(|plain| expected(plain)).collect();
    for (name, hash) in hashers() {
        let lens: Vec<usize> = plains.iter().map(|plain| plain.len()).collect();
        assert!(hash(plains) == expected, "{name}, lengths {lens:?}");
    }
}

/// Goal: the padding is right at every edge, alone and beside other lengths.
/// Method: lengths around 0 to 3 blocks; batches of one and of all of them.
#[test]
fn lengths_around_the_padding_edges() {
    let bytes: Vec<u8> = (0..600).map(|i| (i * 7) as u8).collect();
    let lens = [
        0, 1, 111, 112, 113, 127, 128, 129, 239, 240, 241, 255, 256, 257, 367, 368, 384, 500,
    ];
    for len in lens {
        for copies in [1, 2, 3, 4, 8, 9] {
            check(&vec![&bytes[..len]; copies]);
        }
    }
    let all: Vec<&[u8]> = lens.iter().map(|&len| &bytes[len / 5..len / 5 + len]).collect();
    check(&all);
}

/// Goal: lanes that end, refill and fall idle at any moment never mix.
/// Method: seeded batches of 0 to 40 messages at odd addresses, mostly short, some up to 300 kB.
#[test]
fn random_batches() {
    const SEED: u64 = 0x6b65_726e_656c;
    let mut random = fastrand::Rng::with_seed(SEED);
    let mut bytes = vec![0; 310_000];
    random.fill(&mut bytes);
    for _ in 0..120 {
        let plains: Vec<&[u8]> = (0..random.usize(0..=40))
            .map(|_| {
                let max = [300, 4_000, 20_000, 300_000][[0, 0, 0, 1, 1, 1, 2, 2, 2, 3][random.usize(0..10)]];
                let from = random.usize(0..10_000);
                &bytes[from..from + random.usize(0..=max)]
            })
            .collect();
        check(&plains);
    }
}

/// The best kernel is one of the available, and what `id_many` uses agrees with `id`.
#[test]
fn many_agrees_with_one() {
    assert!(DigestKernel::available().contains(&DigestKernel::best()));
    let plains: Vec<&[u8]> = vec![
        b"",
        b"a",
        b"bc",
        &[0; 70_000],
        b"def",
        &[1; 65_536],
        b"g",
        b"h",
        b"i",
        b"j",
    ];
    for algorithm in [DigestAlgorithm::Sha512_256, DigestAlgorithm::Sha256] {
        let ones: Vec<ChunkId> = plains.iter().map(|plain| algorithm.id(plain)).collect();
        assert_eq!(algorithm.id_many(&plains), ones);
    }
}

/// The published example of SHA-512/256 ("abc"), so that not everything rests on one library.
#[test]
fn published_example() {
    let abc = "53048e2681941ef99b2e29b76b4c7dabe4c2d0c634fc6d46e0e2f13107e7af23";
    for (name, hash) in hashers() {
        let ids = hash(&[&b"abc"[..]; 8]);
        assert!(ids.iter().all(|id| id.to_string() == abc), "{name}");
    }
}
