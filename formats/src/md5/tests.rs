//! Every kernel against the `md-5` crate.

use ::md5::Digest as _;
use proptest::prelude::*;

use super::*;

fn expected(bytes: &[u8]) -> [u8; 16] {
    ::md5::Md5::digest(bytes).into()
}

/// Goal: the padding and the joints between pieces are right at every edge.
#[test]
fn lengths_around_the_block_edges() {
    let bytes: Vec<u8> = (0..400).map(|at| (at * 7) as u8).collect();
    for len in [0, 1, 54, 55, 56, 57, 63, 64, 65, 119, 120, 127, 128, 129, 191, 192, 300] {
        for cut in [0, 1, 63, 64, 65, 100, len] {
            let cut = cut.min(len);
            let mut stream = Md5Stream::default();
            stream.update(&bytes[..cut]);
            stream.update(&bytes[cut..len]);
            assert_eq!(stream.finish(), expected(&bytes[..len]), "{len} bytes, cut at {cut}");
        }
    }
}

/// The published examples (RFC 1321 appendix A.5), so that not everything rests on one library.
#[test]
fn published_examples() {
    for (text, digest) in [
        ("", "d41d8cd98f00b204e9800998ecf8427e"),
        ("abc", "900150983cd24fb0d6963f7d28e17f72"),
        ("message digest", "f96b697d7cb7938d525a2f31aaf161d0"),
    ] {
        let mut stream = Md5Stream::default();
        stream.update(text.as_bytes());
        let found: String = stream.finish().iter().map(|byte| format!("{byte:02x}")).collect();
        assert_eq!(found, digest);
    }
}

proptest! {
    /// Goal: lanes that end, refill and fall idle at any moment never mix, in streams that go on over many calls.
    #[test]
    fn many_streams_in_pieces_agree_with_one(
        lens in prop::collection::vec(0usize..6000, 0..40),
        pieces in prop::collection::vec(1usize..1500, 1..9),
        seed in any::<u64>(),
    ) {
        let mut random = fastrand::Rng::with_seed(seed);
        let bytes: Vec<Vec<u8>> = lens
            .iter()
            .map(|&len| (0..len).map(|_| random.u8(..)).collect())
            .collect();
        for kernel in Md5Kernel::available() {
            let mut streams = vec![Md5Stream::default(); bytes.len()];
            let mut done = vec![0; bytes.len()];
            let mut sizes = pieces.iter().copied().cycle();
            while done.iter().zip(&bytes).any(|(done, bytes)| *done < bytes.len()) {
                let mut batch: Vec<(Md5Stream, &[u8])> = Vec::new();
                for (at, stream) in streams.drain(..).enumerate() {
                    // Now and then a stream has nothing new.
                    let piece = if random.u32(..4) == 0 { 0 } else { sizes.next().unwrap() };
                    let end = bytes[at].len().min(done[at] + piece);
                    batch.push((stream, &bytes[at][done[at]..end]));
                    done[at] = end;
                }
                kernel.update(&mut batch);
                streams = batch.into_iter().map(|(stream, _)| stream).collect();
            }
            for (stream, bytes) in streams.into_iter().zip(&bytes) {
                prop_assert_eq!(stream.finish(), expected(bytes), "{:?}", kernel);
            }
        }
    }
}
