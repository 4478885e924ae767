//! What is stored in raw blocks at first, and what becomes of it.

use super::tests::*;
use super::*;
use crate::collector::CollectControl;

/// Lines that compress.
fn lines(seed: u64, len: usize) -> Vec<u8> {
    let mut random = fastrand::Rng::with_seed(seed);
    let some = std::iter::repeat_with(|| format!("line {:06x} of a log, as all the others\n", random.u32(..1 << 24)));
    some.flat_map(String::into_bytes).take(len).collect()
}

/// Goal: deferred chunks are made small when somebody has time, the newest pack included, and read back before, after, and after
/// the index was opened again; nothing is left to be done.
#[test]
fn what_was_deferred_is_compressed_at_rest_and_reads_back() {
    let world = World::with(|options| options.compression = Compression::Deferred);
    let bucket = world.bucket("bucket", |_| {});
    let (text, other) = (lines(1, 3_000_000), noise(1, 1_000_000));
    world.put(&bucket, "text", &text);
    world.put(&bucket, "noise", &other);
    let waiting = world.objects.deferred_bytes();
    assert!(waiting >= 4_000_000, "{waiting} bytes wait");
    assert!(world.get(&bucket, "text") == text);

    let squeeze = || world.squeeze(&|_| Duration::ZERO, &CollectControl::new()).unwrap();
    let report = squeeze();
    assert!(report.packs_removed > 0 && report.bytes_held == 0, "{report:?}");
    assert!(report.bytes_after < report.bytes_before / 2, "{report:?}");
    world.objects.settle_deferred(waiting);
    assert_eq!(world.objects.deferred_bytes(), 0);
    assert!(world.get(&bucket, "text") == text);
    assert_eq!(squeeze().packs_removed, 0, "nothing is left to be done");

    let world = world.reopen();
    assert!(world.get(&bucket, "text") == text);
    assert!(world.get(&bucket, "noise") == other);
}

/// Goal: one that is told to stop does, and what is there reads back; the next goes on.
#[test]
fn compressing_at_rest_can_be_stopped() {
    let world = World::with(|options| options.compression = Compression::Deferred);
    let bucket = world.bucket("bucket", |_| {});
    let text = lines(2, 3_000_000);
    world.put(&bucket, "text", &text);
    let control = CollectControl::new();
    let seen = std::cell::Cell::new(0);
    let wait = |bytes| {
        seen.set(seen.get() + bytes);
        if seen.get() > 1_000_000 {
            control.stop();
        }
        Duration::ZERO
    };
    let stopped = world.squeeze(&wait, &control);
    assert!(matches!(stopped, Err(Error::Stopped)));
    assert!(world.get(&bucket, "text") == text);
    let done = world.squeeze(&|_| Duration::ZERO, &CollectControl::new());
    assert!(done.unwrap().packs_removed > 0);
    assert!(world.get(&bucket, "text") == text);
}

/// Goal: bytes that do not compress are stored as they are, and only they.
#[test]
fn noise_is_not_compressed_and_text_is() {
    let world = World::with(|options| options.compression = Compression::Level(1));
    let bucket = world.bucket("bucket", |settings| {
        settings.chunk_sizes = cairn_formats::ChunkSizes::DEFAULT
    });
    let noise = noise(1, 2_000_000);
    assert!(world.body(&bucket, &noise).counts().stored_bytes > 2_000_000);
    let text = world.body(&bucket, &lines(1, 2_000_000));
    assert!(text.counts().stored_bytes < 1_000_000);
    world.put(&bucket, "noise", &noise);
    assert!(world.get(&bucket, "noise") == noise);
    assert_eq!(world.objects.reads(bucket.record.settings.domain).decoded(), 0);
}

/// Goal: an upload of more chunks than a commit names is joined page by page, also when chunks have been condemned meanwhile.
#[test]
fn an_upload_of_very_many_chunks_is_joined_page_by_page() {
    let world = World::new();
    let sizes = cairn_formats::ChunkSizes::new(48, 96, 400).unwrap();
    let bucket = world.bucket("bucket", |settings| settings.chunk_sizes = sizes);
    let upload = world.upload(&bucket, "long");
    let bytes = noise(1, 3_000_000);
    for (n, part) in bytes.chunks(1_000_000).enumerate().rev() {
        world.part(&bucket, &upload, n as u64 + 1, part);
    }
    let parts = [listed(1), listed(2), listed(3)];
    // The fence moves between the pages and the commit.
    let describe = |_: &mut crate::names::NewVersion| {
        let nobody = crate::ChunkAt {
            key: cairn_store::ChunkKey {
                domain: bucket.record.settings.domain,
                id: cairn_formats::ChunkId::from_bytes([7; 32]),
            },
            at: cairn_store::LogPosition::default(),
        };
        crate::condemn(world.objects.kv(), &[nobody]).unwrap();
    };
    let (condition, cause) = (crate::names::Condition::Always, crate::names::Cause::default());
    let done = world
        .objects
        .complete(&bucket, &upload, &parts, describe, &condition, &cause);
    let done = done.unwrap();
    assert_eq!(world.objects.completion_bytes(), done.bytes_read);
    assert!(world.get(&bucket, "long") == bytes);
    let record = done.written.version.object().unwrap().clone();
    let index = world.objects.index_file(bucket.tenant(), &record, None).unwrap();
    assert!(index == index_of(&bytes, sizes));
}
