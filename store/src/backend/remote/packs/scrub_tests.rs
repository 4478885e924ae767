//! Damage on purpose in packs behind a network, and what a scrub makes of it.

use std::fs;
use std::path::Path;
use std::sync::Arc;

use cairn_formats::ChunkId;
use cairn_test_servers::S3Server;

use super::tests::{files, noise, packs, put, s3};
use super::*;
use crate::pack::{DamageKind, ScrubMemory};
use crate::{Location, StoreSpec, contract};

pub(super) fn scrub(store: &dyn RemotePacks, sources: &[Arc<dyn ChunkStore>], dry_run: bool) -> ScrubReport {
    let options = ScrubOptions {
        dry_run,
        workers: 3,
        ..ScrubOptions::default()
    };
    let notes = ScrubMemory::default();
    store.scrub(&options, sources, &notes, &mut |_| true).unwrap()
}

/// The one pack of a store, and what turns a bit of it around.
fn one_file(folder: &Path) -> (std::path::PathBuf, Vec<u8>) {
    let names = files(folder);
    let packs: Vec<_> = names.iter().filter(|name| name.ends_with(".pack")).collect();
    assert_eq!(packs.len(), 1, "{names:?}");
    let path = folder.join("packs").join(packs[0]);
    let bytes = fs::read(&path).unwrap();
    (path, bytes)
}

fn flip(path: &Path, whole: &[u8], at: usize) {
    let mut bytes = whole.to_vec();
    bytes[at] ^= 0x10;
    fs::remove_file(path).unwrap();
    fs::write(path, bytes).unwrap();
}

/// Goal: planted flips are healed chunks with a mirror, and named chunks without; whatever was left missing is healed by the next
/// upload. A scrub costs each byte once.
#[test]
fn flips_in_a_bucket_are_healed_from_a_mirror_and_named_without() {
    for has_mirror in [true, false] {
        let server = S3Server::start();
        let store = packs(&server.url("p"), s3());
        let chunks = noise(70, 120);
        put(&*store, &chunks);
        put(&*packs(&server.url("mirror"), s3()), &chunks);
        let mirror = crate::open_store(&StoreSpec::single(
            Location::parse(&server.url("mirror")).unwrap(),
            s3(),
        ))
        .unwrap();
        let mut random = fastrand::Rng::with_seed(7);
        let mut places = Vec::new();
        store
            .for_each_in_order(&mut |key, place| {
                places.push((key.id, place));
                Ok(())
            })
            .unwrap();
        let stats = store.pack_stats().unwrap();
        let names: Vec<String> = files(&server.object("p"));
        let flipped = random.choose_multiple(places, 30);
        for (_, place) in &flipped {
            let uuid = stats
                .iter()
                .find(|stat| stat.number == place.pack)
                .unwrap()
                .uuid
                .to_string();
            let name = names.iter().find(|name| name.starts_with(&uuid)).unwrap();
            let path = server.object("p/packs").join(name);
            let bytes = fs::read(&path).unwrap();
            flip(
                &path,
                &bytes,
                (place.offset + random.u64(..u64::from(place.len))) as usize,
            );
        }
        let mut expected: Vec<ChunkId> = flipped.iter().map(|(id, _)| *id).collect();
        expected.sort();
        let sources: Vec<Arc<dyn ChunkStore>> = if has_mirror { vec![mirror] } else { Vec::new() };
        let store = packs(&server.url("p"), s3());
        for dry_run in [true, false] {
            let before = server.counts()["get_object"];
            let report = scrub(&*store, &sources, dry_run);
            let mut named: Vec<ChunkId> = report.damages.iter().filter_map(|damage| damage.id).collect();
            named.sort();
            assert_eq!(named, expected);
            assert_eq!((report.chunks, report.damaged), (90, 30));
            assert_eq!(report.healed, if has_mirror && !dry_run { 30 } else { 0 });
            assert!(report.errors.is_empty(), "{:?}", report.errors);
            // The end and the rest of each pack, each damaged frame once more; the lease, and what is fetched.
            let asked = server.counts()["get_object"] - before;
            let most = 2 * stats.len() as u64 + 30 + if dry_run { 0 } else { 2 * stats.len() as u64 + 60 };
            assert!(asked <= most, "{asked} of {most}");
        }
        assert_eq!(store.has_many(&expected).unwrap(), vec![has_mirror; expected.len()]);
        let store = packs(&server.url("p"), s3());
        assert_eq!(store.has_many(&expected).unwrap(), vec![has_mirror; expected.len()]);
        put(&*store, &chunks);
        contract::reads_are_right(&*store, &chunks);
        let again = scrub(&*packs(&server.url("p"), s3()), &[], true);
        assert_eq!((again.damaged, again.chunks, again.unused), (0, 120, 30));
        assert!(!server.object("p/CURRENT").exists());
    }
}

/// A flip anywhere in a pack is found and costs no chunk, also in what is known of it from before.
#[test]
fn a_flip_in_any_part_of_a_pack_in_a_bucket_is_found_and_its_chunks_live_on() {
    let server = S3Server::start();
    let cache = tempfile::tempdir().unwrap();
    let mut options = s3();
    options.packs.cache = Some(cache.path().to_owned());
    let chunks = noise(71, 5);
    let first = packs(&server.url("p"), options.clone());
    put(&*first, &chunks);
    let mut places = Vec::new();
    first
        .for_each_in_order(&mut |_, place| {
            places.push(place);
            Ok(())
        })
        .unwrap();
    let (path, whole) = one_file(&server.object("p"));
    let start = places[0].offset as usize;
    for (at, what, left) in [
        (20, DamageKind::Header, 1),
        (start - 10, DamageKind::Head, 0),
        (whole.len() - 30, DamageKind::Footer, 1),
    ] {
        flip(&path, &whole, at);
        // The footer is known from before: what is wrong in the pack is found all the same.
        let store = packs(&server.url("p"), options.clone());
        let found: Vec<DamageKind> = scrub(&*store, &[], true)
            .damages
            .iter()
            .map(|damage| damage.what)
            .collect();
        assert_eq!(found, [what]);
        let report = scrub(&*store, &[], false);
        assert_eq!((report.damaged, report.chunks + report.healed), (1, 5), "{report:?}");
        contract::reads_are_right(&*store, &chunks);
        assert_eq!(scrub(&*store, &[], true).damaged, left, "{what:?}");
        for name in files(&server.object("p")) {
            fs::remove_file(server.object("p/packs").join(name)).unwrap();
        }
        fs::write(&path, &whole).unwrap();
    }
    // Nothing is wrong, and a pass that is stopped goes on with what it has not read.
    let store = packs(&server.url("p"), s3());
    put(&*store, &noise(72, 40));
    let notes = ScrubMemory::default();
    let options = ScrubOptions {
        verified_before: u64::MAX - 1,
        ..ScrubOptions::default()
    };
    let mut packs_read = 0;
    let stopped = store
        .scrub(&options, &[], &notes, &mut |_| {
            packs_read += 1;
            packs_read < 3
        })
        .unwrap();
    assert!(stopped.stopped && stopped.packs == 2, "{stopped:?}");
    let options = ScrubOptions {
        verified_before: 1,
        ..options
    };
    let rest = store.scrub(&options, &[], &notes, &mut |_| true).unwrap();
    assert_eq!(rest.packs, store.pack_stats().unwrap().len() - 2);
    assert_eq!((rest.damaged, rest.chunks + stopped.chunks >= 45), (0, true));
}
