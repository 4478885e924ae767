//! Uploads in parts: whatever order and sizes they come in, the object is the one that one put makes, and nothing of others is left.

use super::*;

/// Goal: parts in any order make the object that one put makes, with casync's index; in order the end reads nothing.
#[test]
fn parts_in_any_order_make_the_object() {
    let world = World::new();
    let bucket = world.bucket("bucket", |_| {});
    // All of them take minutes.
    let cases = std::env::var("CASES").map_or(40, |cases| cases.parse().expect("a number of cases"));
    for seed in 0..cases {
        let mut random = fastrand::Rng::with_seed(seed);
        let count = random.u64(1..8);
        let parts: Vec<Vec<u8>> = (1..=count)
            .map(|number| {
                let len = if number == count {
                    random.usize(1..40_000)
                } else {
                    random.usize(20_000..120_000)
                };
                match random.u32(..8) {
                    0 => vec![0; len],
                    1 => vec![7; len],
                    2 => noise(9, 100).into_iter().cycle().take(len).collect(),
                    _ => noise(seed * 100 + number, len),
                }
            })
            .collect();
        let upload = world.upload(&bucket, "parts");
        let mut order: Vec<u64> = (1..=count).collect();
        if seed % 3 > 0 {
            random.shuffle(&mut order);
        }
        for &number in &order {
            if random.u32(..6) == 0 {
                // To be sent again.
                world.part(&bucket, &upload, number, &noise(number, 30_000));
            }
            world.part(&bucket, &upload, number, &parts[number as usize - 1]);
        }
        let mut numbers: Vec<u64> = (1..=count).collect();
        if seed % 5 == 4 && count > 2 {
            numbers.remove(1);
        }
        let done = world.complete(&bucket, &upload, &numbers);
        let whole: Vec<u8> = numbers
            .iter()
            .flat_map(|&number| parts[number as usize - 1].clone())
            .collect();
        assert!(world.get(&bucket, "parts") == whole, "seed {seed}");
        let record = done.written.version.object().unwrap().clone();
        let index = world.objects.index_file(bucket.tenant(), &record, None).unwrap();
        assert!(index == index_of(&whole, small()), "seed {seed}");
        let md5s: Vec<u8> = numbers
            .iter()
            .flat_map(|&number| md5(&parts[number as usize - 1]))
            .collect();
        let etag = Etag::of_parts(&md5(&md5s), numbers.len() as u32);
        assert_eq!(record.etag, etag);
        let sum = cairn_formats::Checksum::of(cairn_formats::ChecksumAlgorithm::Crc32, &whole);
        assert_eq!(record.checksums[0].value(), sum.as_bytes());
    }
}

/// Goal: of ordinary data sent in order, or in any order, the end reads nothing.
#[test]
fn the_end_of_ordinary_parts_reads_nothing() {
    let world = World::new();
    let bucket = world.bucket("bucket", |_| {});
    for (key, order) in [("in order", [1, 2, 3, 4, 5, 6]), ("any order", [4, 1, 6, 3, 2, 5])] {
        let upload = world.upload(&bucket, key);
        for number in order {
            world.part(&bucket, &upload, number, &noise(number, 400_000));
        }
        let done = world.complete(&bucket, &upload, &[1, 2, 3, 4, 5, 6]);
        assert_eq!(done.bytes_read, 0, "{key}");
        assert_eq!(done.counts.new_chunks, 0, "{key}");
    }
    println!(
        "{} bytes of 4 800 000 were read for seams while parts came",
        world.objects.seam_bytes()
    );
}

/// Goal: parts keep their chunks while the upload goes on, over a restart, too; an upload that was given up keeps nothing.
#[test]
fn parts_are_kept_until_their_upload_ends() {
    let world = World::new();
    let bucket = world.bucket("bucket", |_| {});
    let upload = world.upload(&bucket, "kept");
    for number in [3, 1, 2] {
        world.part(&bucket, &upload, number, &noise(number, 100_000));
    }
    let lost = world.upload(&bucket, "lost");
    world.part(&bucket, &lost, 1, &noise(77, 100_000));
    world
        .objects
        .names()
        .uploads(&bucket)
        .abort(&lost.key, lost.id)
        .unwrap();
    let world = world.reopen();
    world.collect();
    let done = world.complete(&bucket, &upload, &[1, 2, 3]);
    assert_eq!(done.bytes_read, 0);
    let whole: Vec<u8> = (1..=3).flat_map(|number| noise(number, 100_000)).collect();
    assert!(world.get(&bucket, "kept") == whole);
    world.collect();
    assert!(world.get(&bucket, "kept") == whole);
    let chunks = index_of(&whole, small()).len() / 40 - 2;
    assert_eq!(
        world.chunk_count(),
        chunks,
        "neither heads of parts nor the other upload are kept"
    );
}

/// Goal: parts that cannot be listed so are refused.
#[test]
fn parts_that_do_not_fit_are_refused() {
    let world = World::new();
    let bucket = world.bucket("bucket", |_| {});
    let upload = world.upload(&bucket, "key");
    world.part(&bucket, &upload, 1, &noise(1, 10_000));
    world.part(&bucket, &upload, 2, &noise(2, 10_000));
    let complete = |listed: &[ListedPart]| {
        let done = world
            .objects
            .complete(&bucket, &upload, listed, |_| {}, &Condition::Always, &Cause::default());
        done.unwrap_err()
    };
    assert!(matches!(complete(&[]), Error::PartOrder));
    assert!(matches!(complete(&[listed(2), listed(1)]), Error::PartOrder));
    assert!(matches!(
        complete(&[listed(1), listed(3)]),
        Error::PartTooSmall { number: 1, .. }
    ));
    assert!(matches!(complete(&[listed(3)]), Error::NoPart { number: 3 }));
    let other = ListedPart {
        etag: Some(Etag::of_md5(&[0; 16])),
        ..listed(2)
    };
    assert!(matches!(complete(&[other]), Error::NoPart { number: 2 }));
}

/// Goal: lists of chunks of uploads that are completed at once take bounded memory; one that is alone always goes.
#[test]
fn uploads_that_are_completed_at_once_are_bounded() {
    let options = ObjectOptions {
        join_len: 10,
        ..options()
    };
    let world = open(TempDir::new().unwrap(), options);
    let bucket = world.bucket("bucket", |_| {});
    let upload = world.upload(&bucket, "key");
    world.part(&bucket, &upload, 1, &noise(1, 100_000));
    let complete = || {
        world.objects.complete(
            &bucket,
            &upload,
            &[listed(1)],
            |_| {},
            &Condition::Always,
            &Cause::default(),
        )
    };
    world.objects.joined.fetch_add(1, Ordering::Relaxed);
    assert!(matches!(complete(), Err(Error::Busy { .. })));
    world.objects.joined.fetch_sub(1, Ordering::Relaxed);
    complete().unwrap();
    assert_eq!(world.objects.joined.load(Ordering::Relaxed), 0);
    assert!(world.get(&bucket, "key") == noise(1, 100_000));
}

/// Goal: buckets whose sizes have no certified cuts, and those whose sizes change on the way, are cut as casync does, too.
#[test]
fn buckets_beyond_the_lemma_are_cut_right() {
    let world = World::new();
    for (name, sizes) in [("fixed", (4096, 4096, 4096)), ("close", (3000, 3500, 4000))] {
        let sizes = ChunkSizes::new(sizes.0, sizes.1, sizes.2).unwrap();
        let bucket = world.bucket(name, |settings| settings.chunk_sizes = sizes);
        let upload = world.upload(&bucket, "key");
        for number in [2, 3, 1] {
            world.part(&bucket, &upload, number, &noise(number, 50_001));
        }
        let (sizes, bucket) = if name == "close" {
            let buckets = world.objects.names().buckets(bucket.tenant());
            let change = |record: &mut crate::names::BucketRecord| {
                record.settings.chunk_sizes = small();
                Ok(())
            };
            (small(), buckets.update(bucket.name(), change).unwrap())
        } else {
            (sizes, bucket)
        };
        let done = world.complete(&bucket, &upload, &[1, 2, 3]);
        let whole: Vec<u8> = (1..=3).flat_map(|number| noise(number, 50_001)).collect();
        assert!(world.get(&bucket, "key") == whole);
        let record = done.written.version.object().unwrap();
        let index = world.objects.index_file(bucket.tenant(), record, None).unwrap();
        assert!(index == index_of(&whole, sizes), "{name}");
        println!("{name}: {} of 150 003 bytes read", done.bytes_read);
    }
}

/// Goal: a part out of a range of another object is right, by reference and by reading.
#[test]
fn parts_are_copied_from_ranges() {
    let world = World::new();
    let bucket = world.bucket("bucket", |_| {});
    let other = world.bucket("other", |settings| settings.domain = cairn_formats::DomainId(7));
    let source = noise(5, 400_000);
    let version = world.put(&bucket, "source", &source);
    let chunks = world.chunk_count();
    let wanted = DigestsWanted {
        md5: true,
        checksums: Vec::new(),
    };
    for (to, ranges) in [
        (&bucket, [0..400_000, 30_001..333_333, 100_000..400_000, 77..20_077]),
        (&other, [0..400_000, 5..300_000, 100_000..400_000, 77..20_077]),
    ] {
        let mut record = UploadRecord::of(owner());
        record.checksum = None;
        let upload = world.objects.names().uploads(to).begin(&key("copied"), record).unwrap();
        let mut whole = Vec::new();
        for (number, range) in (1..).zip(ranges) {
            let bytes = &source[range.start as usize..range.end as usize];
            let body = world.objects.copy_part(&bucket, &version, range, to, &wanted).unwrap();
            assert_eq!(body.digested().md5, Some(md5(bytes)));
            body.put_part(&upload, PartNumber::new(number).unwrap(), None).unwrap();
            whole.extend_from_slice(bytes);
        }
        let done = world.complete(to, &upload, &[1, 2, 3, 4]);
        assert!(world.get(to, "copied") == whole);
        let record = done.written.version.object().unwrap();
        let index = world.objects.index_file(to.tenant(), record, None).unwrap();
        assert!(index == index_of(&whole, small()));
        if to == &bucket {
            let new = world.chunk_count() - chunks;
            assert!(new < 60, "{new} new chunks: only edges and seams are new");
        }
    }
}

/// Goal: more uploads at a time than the limit are told so, and the limit counts those that ended.
#[test]
fn uploads_over_the_limit_are_refused() {
    let folder = TempDir::new().unwrap();
    let world = open(
        folder,
        ObjectOptions {
            uploads_max: 2,
            ..options()
        },
    );
    let bucket = world.bucket("bucket", |_| {});
    let wanted = DigestsWanted::default();
    let one = world.objects.writer(&bucket, &wanted).unwrap();
    let _two = world.objects.writer(&bucket, &wanted).unwrap();
    assert!(matches!(
        world.objects.writer(&bucket, &wanted),
        Err(Error::Busy { .. })
    ));
    drop(one);
    world.objects.writer(&bucket, &wanted).unwrap();
}
