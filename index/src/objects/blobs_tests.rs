//! Blobs over real packs and RocksDB: they read back whatever their size, share chunks with all else, and go when nobody asks for them.

use std::num::NonZeroU32;

use bytes::Bytes;
use cairn_formats::decompress_frame;

use super::tests::World;
use super::*;
use crate::names::{Blob, BlobDigest, BlobFunction, BlobKey};

fn noise(seed: u64, len: usize) -> Bytes {
    super::tests::noise(seed, len).into()
}

fn sha256(bytes: &[u8]) -> BlobDigest {
    BlobHasher::digest(BlobFunction::Sha256, bytes)
}

fn write(world: &World, bucket: &Bucket, bytes: &[u8]) -> BlobDigest {
    let digest = sha256(bytes);
    let mut writer = world.objects.blob_writer(bucket, digest).unwrap();
    bytes.chunks(9000).for_each(|piece| writer.push(piece).unwrap());
    writer.finish().unwrap();
    digest
}

fn find(world: &World, bucket: &Bucket, digest: BlobDigest) -> Option<Blob> {
    world.objects.names().blobs(bucket).get(&digest.into()).unwrap()
}

/// What a decoder of several frames has of them.
fn plain_of(frames: BlobFrames) -> Vec<u8> {
    frames
        .flat_map(|frame| decompress_frame(&frame.unwrap(), 1 << 20).unwrap())
        .collect()
}

#[test]
fn digests_are_those_of_the_standards() {
    for (function, hex) in [
        (BlobFunction::Md5, "900150983cd24fb0d6963f7d28e17f72"),
        (BlobFunction::Sha1, "a9993e364706816aba3e25717850c26c9cd0d89d"),
        (
            BlobFunction::Sha256,
            "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad",
        ),
        (
            BlobFunction::Blake3,
            "6437b3ac38465133ffb63b75273a8db548c558465d79db03fd359c6cd5bd9d85",
        ),
        (
            BlobFunction::Sha384,
            "cb00753f45a35e8bb5a03d699ac65007272c32ab0eded1631a8b605a43ff5bed8086072ba1e7cc2358baeca134c825a7",
        ),
        (
            BlobFunction::Sha512,
            "ddaf35a193617abacc417349ae20413112e6fa4e89a97ea20a9eeee64b55d39a2192992a274fc1a836ba3c23a3feebbd454d4423643ce80e2a9ac94fa54ca49f",
        ),
    ] {
        let digest = BlobHasher::digest(function, b"abc");
        assert_eq!(digest.to_string(), format!("{hex}/3"));
        assert_eq!(digest.hash().len(), function.hash_len());
    }
}

/// Goal: a blob of any size, by whichever way it came, is what was sent: as a whole, from an offset on, and as frames.
#[test]
fn blobs_read_back_whole_in_part_and_as_frames() {
    let world = World::new();
    let bucket = world.bucket("bucket", |_| {});
    let sizes = [1, 100, 4095, 4096, 5000, 70_000, 900_000];
    let blobs: Vec<Bytes> = (0..).zip(sizes).map(|(seed, len)| noise(seed, len)).collect();
    let together: Vec<(BlobKey, Bytes)> = blobs.iter().map(|blob| (sha256(blob).into(), blob.clone())).collect();
    world.objects.put_blobs(&bucket, &together).unwrap();
    for (seed, len) in (100..).zip(sizes) {
        let alone = noise(seed, len);
        write(&world, &bucket, &alone);
        for bytes in [&alone, &blobs[seed as usize - 100]] {
            let blob = find(&world, &bucket, sha256(bytes)).unwrap();
            assert_eq!(world.objects.blob_bytes(bucket.tenant(), &blob).unwrap(), bytes);
            for from in [0, 1, len / 2, len - 1, len] {
                let read = world.objects.read_blob(bucket.tenant(), &blob, from as u64..u64::MAX);
                let read: Vec<u8> = read.unwrap().flat_map(|piece| piece.unwrap()).collect();
                assert_eq!(read, bytes[from..], "{len} bytes from {from}");
                let frames = world.objects.blob_frames(bucket.tenant(), &blob, from as u64).unwrap();
                assert_eq!(plain_of(frames), bytes[from..], "{len} bytes from {from}");
            }
        }
    }
}

#[test]
fn bytes_of_another_digest_become_no_blob() {
    let world = World::new();
    let bucket = world.bucket("bucket", |_| {});
    let bytes = noise(1, 50_000);
    for (claimed, sent) in [
        (sha256(&noise(2, 50_000)), &bytes[..]),
        (sha256(&bytes), &bytes[1..]),
        (sha256(&bytes[1..]), &bytes[..]),
    ] {
        let mut writer = world.objects.blob_writer(&bucket, claimed).unwrap();
        let failed = writer.push(sent).and_then(|()| writer.finish());
        assert!(matches!(failed, Err(crate::Error::WrongDigest { .. })), "{failed:?}");
        assert!(find(&world, &bucket, claimed).is_none());
    }
}

/// Goal: blobs and objects of equal bytes are stored once, and each keeps the chunks when the other goes.
#[test]
fn a_blob_shares_chunks_with_objects_and_keeps_them() {
    let world = World::new();
    let bucket = world.bucket("bucket", |_| {});
    let bytes = noise(3, 200_000);
    world.put(&bucket, "object", &bytes);
    let chunks = world.chunk_count();
    let digest = write(&world, &bucket, &bytes);
    assert_eq!(world.chunk_count(), chunks, "nothing is stored twice");
    let key = crate::names::ObjectKey::new("object".to_owned()).unwrap();
    let rows = world.objects.names().objects(&bucket);
    let me = crate::names::Owner::new("me").unwrap();
    let (condition, cause) = (crate::names::Condition::Always, crate::names::Cause::default());
    rows.delete(&key, None, &me, &condition, &cause).unwrap();
    world.collect();
    world.collect();
    let blob = find(&world, &bucket, digest).unwrap();
    assert_eq!(world.objects.blob_bytes(bucket.tenant(), &blob).unwrap(), bytes);
}

/// Goal: what nobody has used for so many days goes, rows first, then chunks; what is left out of that stays.
#[test]
fn blobs_that_nobody_uses_go_with_their_chunks() {
    let world = World::new();
    let bucket = world.bucket("bucket", |_| {});
    let digests: Vec<BlobDigest> = [30_000, 900_000, 10]
        .iter()
        .map(|&len| write(&world, &bucket, &noise(len as u64, len)))
        .collect();
    world.collect();
    assert!(digests.iter().all(|&digest| find(&world, &bucket, digest).is_some()));
    world.collect_blobs(NonZeroU32::new(30));
    assert!(digests.iter().all(|&digest| find(&world, &bucket, digest).is_none()));
    world.collect();
    world.collect();
    assert_eq!(world.chunk_count(), 0);
}

/// Goal: a blob that is a part of another's content reads as its own bytes, and keeps the chunks alone.
#[test]
fn a_slice_reads_as_its_own_bytes_and_keeps_its_chunks() {
    let world = World::new();
    let bucket = world.bucket("bucket", |_| {});
    let bytes = noise(5, 100_000);
    let digest = write(&world, &bucket, &bytes);
    let whole = find(&world, &bucket, digest).unwrap();
    let place = 30_007..60_001;
    let slice = &bytes[30_007..60_001];
    let key = BlobKey::from(sha256(slice));
    let chunks = world.chunk_count();
    world
        .objects
        .slice_blob(&bucket, &whole, &[(sha256(slice), place)])
        .unwrap();
    assert_eq!(world.chunk_count(), chunks, "nothing is stored for it");
    let blobs = world.objects.names().blobs(&bucket);
    blobs.delete(&digest.into()).unwrap();
    world.collect();
    world.collect();
    let left = world.chunk_count();
    assert!(left > 0 && left < chunks, "{left} of {chunks}");
    let blob = blobs.get(&key).unwrap().unwrap();
    assert_eq!(world.objects.blob_bytes(bucket.tenant(), &blob).unwrap(), slice);
    for from in [0, 1, 5000, slice.len() - 1] {
        let frames = world.objects.blob_frames(bucket.tenant(), &blob, from as u64).unwrap();
        assert_eq!(plain_of(frames), slice[from..]);
    }
}

/// Goal: what is put together of blobs is one blob, and they are parts of it then: each chunk is there once.
#[test]
fn a_blob_put_together_of_others_costs_no_room_in_the_end() {
    let world = World::new();
    let bucket = world.bucket("bucket", |_| {});
    let bytes = noise(9, 400_000);
    let parts: Vec<Bytes> = [0..70_000, 70_000..250_000, 250_000..400_000]
        .into_iter()
        .map(|range| bytes.slice(range))
        .collect();
    let found = |parts: &[Bytes]| -> Vec<(BlobDigest, Blob)> {
        let named = parts.iter().map(|part| sha256(part));
        named
            .map(|digest| (digest, find(&world, &bucket, digest).unwrap()))
            .collect()
    };
    for part in &parts {
        write(&world, &bucket, part);
    }
    let wrong = world
        .objects
        .splice_blob(&bucket, sha256(b"other"), &found(&parts[..1]));
    assert!(matches!(wrong, Err(crate::Error::WrongDigest { .. })), "{wrong:?}");
    let digest = sha256(&bytes);
    world.objects.splice_blob(&bucket, digest, &found(&parts)).unwrap();
    world.collect();
    world.collect();
    let whole = find(&world, &bucket, digest).unwrap();
    assert_eq!(world.objects.blob_bytes(bucket.tenant(), &whole).unwrap(), bytes);
    let chunks = world.objects.chunks(bucket.tenant(), &whole.content).unwrap();
    assert_eq!(
        world.chunk_count(),
        chunks.len(),
        "those of the parts' own ends are gone"
    );
    for (part, (_, blob)) in parts.iter().zip(found(&parts)) {
        assert_eq!(world.objects.blob_bytes(bucket.tenant(), &blob).unwrap(), part);
    }
    // Slices can be put together, too, and one can come again.
    let twice = [&parts[1][..], &parts[1][..]].concat();
    let two = found(&parts[1..2]);
    world
        .objects
        .splice_blob(&bucket, sha256(&twice), &[two[0].clone(), two[0].clone()])
        .unwrap();
    let blob = find(&world, &bucket, sha256(&twice)).unwrap();
    assert_eq!(world.objects.blob_bytes(bucket.tenant(), &blob).unwrap(), twice);
}

#[test]
fn a_bucket_takes_its_blobs_with_it_and_sees_no_others() {
    let world = World::new();
    let (one, two) = (world.bucket("one", |_| {}), world.bucket("two", |_| {}));
    let bytes = noise(6, 60_000);
    let digest = write(&world, &one, &bytes);
    assert!(find(&world, &two, digest).is_none(), "a digest is no password");
    world.objects.names().buckets(one.tenant()).delete(one.name()).unwrap();
    world.collect();
    world.collect();
    world.collect();
    assert_eq!(world.chunk_count(), 0);
}
