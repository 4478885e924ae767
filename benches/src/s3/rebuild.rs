//! The index layer without a door: an index that was lost is made again from the packs, and objects are searched for.
//!
//! Two buckets, one with versions and one without, get objects with tags, types and metadata, overwrites and deletes; of the second,
//! settings are changed. Everything that listings tell of versions, markers and buckets is digested before and after.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

use cairn_index::names::{
    Bucket, BucketName, Cause, Condition, List, ListBuckets, NewBucket, ObjectKey, Search, VersionStart, Versioning,
};
use cairn_index::{Compression, DigestsWanted, Tenant};
use sha2::{Digest as _, Sha256};

use crate::Result;
use crate::objects::{INDEX_FOLDER, World, owner};
use crate::s3::Bench;
use crate::s3::body::mix;
use crate::s3::report::Report;
use crate::s3::search::{KINDS, PAGE_LEN, QUERIES, TAGS, TYPES};

const THREADS: u64 = 64;
/// One object in so many is overwritten, one in so many deleted.
const CHANGED_EVERY: u64 = 10;

pub(super) fn run(bench: &Bench<'_>, report: &mut Report) -> Result<()> {
    let (folder, count) = (bench.folder.join("rebuild"), bench.options.s3_rows);
    let world = World::open(&folder, Compression::Deferred)?;
    let begun = Instant::now();
    let buckets = make_buckets(&world)?;
    fill(&world, &buckets, count)?;
    let filled = begun.elapsed().as_secs_f64();
    search(&world, &buckets[0], count, report)?;
    let before = digest(&world)?;
    drop(world);
    std::fs::remove_dir_all(folder.join(INDEX_FOLDER))?;
    let begun = Instant::now();
    let world = World::open(&folder, Compression::Deferred)?;
    let seconds = begun.elapsed().as_secs_f64();
    let after = digest(&world)?;
    report.text(&format!(
        "Index of {count} objects, made in {filled:.0} s, wiped: made again from the packs in {seconds:.1} s ({:.2} minutes). \
         Versions, markers and buckets listed: {} before, {} after.",
        seconds / 60.0,
        before.0,
        after.0
    ));
    let differs = if before == after { 0.0 } else { 1.0 };
    report.at_most("index wiped and made again: listings that differ", Some(differs), 0.0);
    match before == after && before.0 > count {
        true => Ok(()),
        false => Err("the index that was made again tells something else".into()),
    }
}

/// With versions, and without.
fn make_buckets(world: &World) -> Result<[Bucket; 2]> {
    let tenant = Tenant::default();
    let buckets = world.objects.names().buckets(&tenant);
    let make = |name: &str, versioning| -> Result<Bucket> {
        let name = BucketName::new(name)?;
        buckets.create(&name, NewBucket::of(owner()?))?;
        Ok(buckets.update(&name, |record| {
            record.versioning = versioning;
            record.settings.quota_objects = Some(1 << 40);
            Ok(())
        })?)
    };
    Ok([make("kept", Versioning::Enabled)?, make("plain", Versioning::Unset)?])
}

fn fill(world: &World, buckets: &[Bucket; 2], count: u64) -> Result<()> {
    let next = AtomicU64::new(0);
    let work = || -> Result<()> {
        loop {
            let n = next.fetch_add(1, Ordering::Relaxed);
            if n >= count {
                return Ok(());
            }
            let bucket = &buckets[usize::from(n % 4 == 3)];
            put(world, bucket, n, n)?;
            if n % CHANGED_EVERY == 1 {
                put(world, bucket, n, n + count)?;
            }
            if n % CHANGED_EVERY == 2 {
                let objects = world.objects.names().objects(bucket);
                objects.delete(&key(n)?, None, &owner()?, &Condition::Always, &Cause::default())?;
            }
        }
    };
    std::thread::scope(|scope| {
        let threads: Vec<_> = (0..THREADS)
            .map(|_| scope.spawn(|| work().map_err(|error| error.to_string())))
            .collect();
        for thread in threads {
            thread.join().map_err(|_| "a thread panicked")??;
        }
        Ok(())
    })
}

fn key(n: u64) -> Result<ObjectKey> {
    Ok(ObjectKey::new(format!("folder-{}/{n}", n / 1000))?)
}

/// - `seed`: of its bytes.
fn put(world: &World, bucket: &Bucket, n: u64, seed: u64) -> Result<()> {
    let mut writer = world.objects.writer(bucket, &DigestsWanted::default())?;
    let len = 16 + mix(seed) as usize % 200;
    let bytes: Vec<u8> = (0..len as u64).map(|at| mix(seed ^ at << 48) as u8).collect();
    writer.push(&bytes)?;
    let describe = |new: &mut cairn_index::names::NewVersion| {
        new.record.headers.content_type = Some(TYPES[n as usize % TYPES.len()].to_owned());
        new.record.tags = vec![("batch".to_owned(), format!("{}", mix(n) % TAGS))];
        new.record.metadata = vec![("number".to_owned(), n.to_string())];
    };
    writer
        .finish()?
        .put(&key(n)?, &owner()?, describe, &Condition::Always, &Cause::default())?;
    Ok(())
}

/// Entries of all listings, and a digest of all that they tell.
fn digest(world: &World) -> Result<(u64, [u8; 32])> {
    let mut sum = Sha256::new();
    let mut count = 0;
    let tenant = Tenant::default();
    let names = world.objects.names();
    let page = names.buckets(&tenant).list(&ListBuckets {
        limit: 100,
        ..ListBuckets::default()
    })?;
    for bucket in &page.buckets {
        sum.update(format!("{bucket:?}"));
        count += 1;
        let objects = names.objects(bucket);
        let mut list = List {
            limit: 1000,
            ..List::default()
        };
        loop {
            let page = objects.list(&list)?;
            count += page.entries.len() as u64;
            page.entries.iter().for_each(|entry| sum.update(format!("{entry:?}")));
            match page.next {
                Some(next) => list.start = next,
                None => break,
            }
        }
        list.start = Default::default();
        let mut from = VersionStart::default();
        loop {
            let page = objects.list_versions(&list, &from)?;
            count += page.entries.len() as u64;
            page.entries.iter().for_each(|entry| sum.update(format!("{entry:?}")));
            match page.next {
                Some(next) => from = next,
                None => break,
            }
        }
    }
    Ok((count, sum.finalize().into()))
}

/// What pages of queries of each kind take.
fn search(world: &World, bucket: &Bucket, count: u64, report: &mut Report) -> Result<()> {
    let mut text = format!("Search among {count} objects, pages of {PAGE_LEN}, {QUERIES} queries each:\n");
    let objects = world.objects.names().objects(bucket);
    let now = u64::try_from(
        std::time::SystemTime::now()
            .duration_since(std::time::UNIX_EPOCH)?
            .as_millis(),
    )?;
    let query = |kind: &str, n: u64| -> Result<Search> {
        let chance = mix(n);
        let all = Search::default();
        Ok(match kind {
            "prefix" => Search {
                prefix: format!("folder-{}/", chance % (count / 1000).max(1)),
                ..all
            },
            "tag" => Search {
                tags: vec![("batch".to_owned(), (chance % TAGS).to_string())],
                ..all
            },
            "type" => Search {
                content_type: Some(TYPES[n as usize % TYPES.len()].to_owned()),
                ..all
            },
            "size" => Search {
                size: Some(16 + chance % 200..=17 + chance % 200),
                ..all
            },
            "date" => Search {
                created_ms: Some(now - chance % 60_000 - 1000..=now - chance % 60_000),
                ..all
            },
            "owner" => Search {
                owner: Some(owner()?),
                ..all
            },
            "metadata" => Search {
                metadata: vec![("number".to_owned(), (chance % count).to_string())],
                ..all
            },
            _ => Search {
                prefix: format!("folder-{}", chance % 10),
                tags: vec![("batch".to_owned(), (chance % TAGS).to_string())],
                content_type: Some(TYPES[n as usize % TYPES.len()].to_owned()),
                ..all
            },
        })
    };
    let mut worst: f64 = 0.0;
    for kind in KINDS {
        let mut latencies = Vec::new();
        let (mut found, mut scanned_max) = (0, 0);
        for n in 0..QUERIES {
            let query = query(kind, n)?;
            let since = Instant::now();
            let page = objects.search(&query, None, PAGE_LEN)?;
            latencies.push(since.elapsed().as_secs_f64() * 1e3);
            found += page.objects.len();
            scanned_max = scanned_max.max(page.scanned);
        }
        latencies.sort_by(f64::total_cmp);
        let p95 = latencies[latencies.len() * 95 / 100];
        worst = worst.max(p95);
        text += &format!(
            "- {kind}: p95 {p95:.2} ms, median {:.2} ms, {found} found, at most {scanned_max} rows read\n",
            latencies[latencies.len() / 2]
        );
    }
    report.text(&text);
    report.at_most(
        &format!("search among {count} objects: p95 of the slowest kind, ms"),
        Some(worst),
        50.0,
    );
    Ok(())
}
