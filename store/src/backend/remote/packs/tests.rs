//! Packs in a bucket of a real S3 server and behind a real sshd: promises, faults, collections.

use std::fs;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use cairn_formats::{Chunk, ChunkForm, ChunkId, DigestAlgorithm, Level, StorableChunk};
use cairn_test_servers::{GsServer, S3Server, S3Trouble, Sshd, WeakLink};

use super::scrub_tests::scrub;
use super::*;
use crate::backend::bucket::{gs, s3};
use crate::backend::sftp;
use crate::contract::{self, ids_of};
use crate::pack::DamageKind;
use crate::{
    ChunkStoreExt as _, Location, MemberSpec, RemoteKind, StoreOptions, error_chain, init_remote_packs, open_prunable,
    open_remote,
};

/// Packs small enough that a test has many.
fn small(options: StoreOptions) -> StoreOptions {
    let packs = RemotePackOptions {
        pack_len: 256 << 10,
        ..RemotePackOptions::default()
    };
    StoreOptions { packs, ..options }
}

/// Chunks that make one pack, and options; in parts unless the operation is that of a whole object.
fn one_pack(seed: u64, operation: &str) -> (Vec<StorableChunk>, StoreOptions) {
    let mut options = s3();
    if operation == "put_object" {
        return (noise(seed, 3), options);
    }
    options.packs.pack_len = 64 << 20;
    options.packs.part_len = 10 << 20;
    (noise(seed, 600), options)
}

pub(super) fn s3() -> StoreOptions {
    small(s3::tests::quick())
}

pub(super) fn member(url: &str, options: StoreOptions) -> MemberSpec {
    let location = Location::parse(url).unwrap();
    MemberSpec { location, options }
}

pub(super) fn packs(url: &str, options: StoreOptions) -> Arc<dyn RemotePacks> {
    let member = member(url, options);
    init_remote_packs(&member).unwrap();
    match open_remote(&member).unwrap() {
        RemoteKind::Packs(packs) => packs,
        RemoteKind::Flat(store) => panic!("{} is flat", store.name()),
    }
}

/// Chunks of 20 000 bytes that no frame makes shorter.
pub(super) fn noise(seed: u64, count: usize) -> Vec<StorableChunk> {
    let mut random = fastrand::Rng::with_seed(seed);
    let mut chunk = || -> Vec<u8> { std::iter::repeat_with(|| random.u8(..)).take(20_000).collect() };
    let chunks = (0..count).map(|_| Chunk::from_plain(DigestAlgorithm::default(), Bytes::from(chunk())));
    chunks
        .map(|chunk| chunk.encode(ChunkForm::Compressed, Level::DEFAULT))
        .collect()
}

fn ids(chunks: &[StorableChunk]) -> Vec<ChunkId> {
    let mut ids: Vec<ChunkId> = chunks.iter().map(StorableChunk::id).collect();
    ids.sort();
    ids
}

pub(super) fn put(store: &dyn RemotePacks, chunks: &[StorableChunk]) {
    store.put_many(chunks).unwrap();
    store.flush().unwrap();
}

/// Files in the folder that a store's packs are at the server.
pub(super) fn files(folder: &Path) -> Vec<String> {
    let Ok(entries) = fs::read_dir(folder.join("packs")) else {
        return Vec::new();
    };
    let mut names: Vec<String> = entries
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    names.sort();
    names
}

fn refused(error: &Error, words: &str) {
    let text = error_chain(error);
    assert!(matches!(error, Error::Refused { .. }) && text.contains(words), "{text}");
}

#[test]
fn packs_in_a_bucket_keep_every_promise() {
    let server = S3Server::start();
    for place in ["", "a/prefix with blanks"] {
        contract::writable(&*packs(&server.url(place), s3()));
        // Opened as any store is, it is what it is.
        let store = open_prunable(&member(&server.url(place), s3())).unwrap();
        contract::reads_are_right(&*store, &contract::chunks(2, ChunkForm::Compressed));
        contract::writable(&*store);
        if place.is_empty() {
            fs::remove_dir_all(server.bucket()).unwrap();
            fs::create_dir(server.bucket()).unwrap();
        }
    }
    let names = files(&server.object("a/prefix with blanks"));
    assert!(
        !names.is_empty() && names.iter().all(|name| name.ends_with(".pack")),
        "{names:?}"
    );
}

/// Goal: packs in a bucket of Google's are as they are elsewhere, each put whole and only where nothing is.
#[test]
fn packs_in_a_bucket_of_googles_keep_every_promise() {
    let server = GsServer::start();
    let mut options = small(gs::tests::quick(&server.endpoint()));
    let url = server.url("a/prefix with blanks");
    let store = packs(&url, options.clone());
    contract::writable(&*store);
    let again = open_prunable(&member(&url, options.clone())).unwrap();
    contract::reads_are_right(&*again, &contract::chunks(2, ChunkForm::Compressed));
    // Longer than a part: whole all the same.
    options.packs.pack_len = 64 << 20;
    options.packs.part_len = 10 << 20;
    let store = packs(&server.url("p"), options.clone());
    let chunks = noise(1, 600);
    for trouble in [S3Trouble::Answer("SlowDown"), S3Trouble::Lost] {
        server.fail("put_object", 1, trouble);
    }
    put(&*store, &chunks);
    assert_eq!(files(&server.object("p")).len(), 1, "{:?}", server.counts());
    assert!(!server.counts().contains_key("create_multipart_upload"));
    contract::reads_are_right(&*packs(&server.url("p"), options.clone()), &chunks);
    // One alone deletes.
    let other = packs(&server.url("p"), options);
    let owner = store.own(false).unwrap();
    refused(&other.own(false).unwrap_err(), "another collects it");
    refused(
        &other.remove_many(&ids(&chunks)[..1]).unwrap_err(),
        "another collects it",
    );
    drop(owner);
    other.remove_many(&ids(&chunks)[..500]).unwrap();
    assert_eq!(other.compact(0.9).unwrap().packs_removed, 1);
    assert_eq!(ids_of(&*other), &ids(&chunks)[500..]);
    contract::reads_are_right(
        &*other,
        &chunks
            .iter()
            .filter(|chunk| ids(&chunks)[500..].contains(&chunk.id()))
            .cloned()
            .collect::<Vec<_>>(),
    );
}

#[test]
fn packs_behind_sftp_keep_every_promise() {
    let server = Sshd::start();
    let store = packs(&server.url("made"), small(sftp::tests::quick(&server)));
    contract::writable(&*store);
    put(&*store, &noise(1, 30));
    let again = packs(&server.url("made"), small(sftp::tests::quick(&server)));
    contract::reads_are_right(&*again, &noise(1, 30));
    let names = files(&server.path("made"));
    assert!(names.iter().all(|name| name.ends_with(".pack")), "{names:?}");
}

/// Goal: what is written costs a request a pack or part, what is read a request a run of slabs, and opening again a listing.
#[test]
fn requests_are_few() {
    let server = S3Server::start();
    let cache = tempfile::tempdir().unwrap();
    let mut options = s3();
    options.packs.cache = Some(cache.path().to_owned());
    let store = packs(&server.url("p"), options.clone());
    let chunks = noise(2, 300);
    let before = server.requests();
    put(&*store, &chunks);
    let count = files(&server.object("p")).len() as u64;
    // 6 MB in packs of 256 KiB.
    assert!((23..30).contains(&count), "{count}");
    assert_eq!(server.requests() - before, count, "{:?}", server.counts());

    let before = server.counts();
    let store = packs(&server.url("p"), options);
    let after = server.counts();
    assert_eq!(after["list_objects_v2"] - before["list_objects_v2"], 1);
    // `FORMAT`, for `init` and for the store.
    assert_eq!(after["get_object"] - before["get_object"], 2);
    let before = server.requests();
    contract::reads_are_right(&*store, &chunks);
    assert_eq!(server.requests() - before, count);
    contract::reads_are_right(&*store, &chunks);
    assert_eq!(server.requests() - before, count);

    // A cache that has been damaged is passed by.
    for folder in fs::read_dir(cache.path()).unwrap() {
        for file in fs::read_dir(folder.unwrap().path().join("footers")).unwrap() {
            fs::write(file.unwrap().path(), "something else").unwrap();
        }
    }
    let mut options = s3();
    options.packs.cache = Some(cache.path().to_owned());
    contract::reads_are_right(&*packs(&server.url("p"), options), &chunks);
}

#[test]
fn slabs_on_a_disk_outlive_the_store() {
    let server = S3Server::start();
    let cache = tempfile::tempdir().unwrap();
    let mut options = s3();
    options.packs.cache = Some(cache.path().to_owned());
    options.packs.cache_len = 100 << 20;
    let chunks = noise(3, 40);
    put(&*packs(&server.url("p"), options.clone()), &chunks);
    contract::reads_are_right(&*packs(&server.url("p"), options.clone()), &chunks);
    let store = packs(&server.url("p"), options);
    let before = server.requests();
    contract::reads_are_right(&*store, &chunks);
    assert_eq!(server.requests(), before);
}

#[test]
fn several_write_at_once() {
    let server = S3Server::start();
    let stores = [1, 2].map(|_| packs(&server.url("p"), s3()));
    std::thread::scope(|scope| {
        for (n, store) in stores.iter().enumerate() {
            scope.spawn(move || put(&**store, &noise(n as u64, 60)));
            scope.spawn(move || put(&**store, &noise(7, 30)));
        }
    });
    let store = packs(&server.url("p"), s3());
    for (seed, count) in [(0, 60), (1, 60), (7, 30)] {
        contract::reads_are_right(&*store, &noise(seed, count));
    }
    assert_eq!(ids_of(&*store).len(), 150);
    // What others have put since is found when it is wanted.
    let late = noise(8, 3);
    put(&*stores[0], &late);
    store.compact(0.0).unwrap();
    contract::reads_are_right(&*store, &late);
    contract::reads_are_right(&*stores[1], &noise(1, 60));
}

/// Goal: whatever a server does to an upload, nothing half or wrong is seen, the error says what happened, and what was put
/// gets there once the server is well.
#[test]
fn uploads_that_fail_leave_nothing_and_go_on() {
    let cases = [
        ("put_object", S3Trouble::Answer("InternalError"), "500"),
        ("put_object", S3Trouble::Answer("AccessDenied"), "AccessDenied"),
        ("put_object", S3Trouble::Answer("QuotaExceeded"), "QuotaExceeded"),
        ("put_object", S3Trouble::Silence, "no answer within"),
        ("create_multipart_upload", S3Trouble::Answer("SlowDown"), "503"),
        ("upload_part", S3Trouble::Answer("InternalError"), "500"),
        ("upload_part", S3Trouble::Answer("AccessDenied"), "AccessDenied"),
        ("complete_multipart_upload", S3Trouble::Answer("InternalError"), "500"),
    ];
    for (n, (operation, trouble, cause)) in cases.into_iter().enumerate() {
        let server = S3Server::start();
        let (chunks, mut options) = one_pack(n as u64, operation);
        if matches!(trouble, S3Trouble::Silence) {
            options.http.timeout = Some(Duration::from_millis(300));
        }
        let store = packs(&server.url("p"), options.clone());
        server.fail(operation, 1000, trouble);
        store.put_many(&chunks).unwrap();
        let error = store.flush().unwrap_err();
        let text = error_chain(&error);
        assert!(
            text.starts_with(&store.name().to_string()) && text.contains("store a pack"),
            "{text}"
        );
        assert!(text.contains(cause), "{operation}: {text}");
        assert_eq!(
            matches!(error, Error::Refused { .. }),
            cause == "AccessDenied",
            "{text}"
        );
        assert_eq!(store.has_many(&ids(&chunks)).unwrap(), vec![false; chunks.len()]);
        assert_eq!(files(&server.object("p")), Vec::<String>::new(), "{operation}");
        store.flush().unwrap_err();
        server.heal();
        store.flush().unwrap();
        contract::reads_are_right(&*store, &chunks);
        contract::reads_are_right(&*packs(&server.url("p"), s3()), &chunks);
        assert_eq!(files(&server.object("p")).len(), 1);
    }
}

#[test]
fn answers_that_get_lost_are_no_failures() {
    for operation in [
        "put_object",
        "complete_multipart_upload",
        "upload_part",
        "create_multipart_upload",
    ] {
        let server = S3Server::start();
        let (chunks, options) = one_pack(5, operation);
        let store = packs(&server.url("p"), options);
        server.fail(operation, 1, S3Trouble::Lost);
        put(&*store, &chunks);
        contract::reads_are_right(&*store, &chunks);
        assert_eq!(files(&server.object("p")).len(), 1, "{operation}");
        contract::reads_are_right(&*packs(&server.url("p"), s3()), &chunks);
    }
}

#[test]
fn reads_that_fail_say_so() {
    let server = S3Server::start();
    let mut options = s3();
    options.http.timeout = Some(Duration::from_millis(300));
    let chunks = noise(6, 3);
    put(&*packs(&server.url("p"), options.clone()), &chunks);
    for (trouble, cause) in [
        (S3Trouble::Answer("InternalError"), "500"),
        (S3Trouble::Answer("AccessDenied"), "AccessDenied"),
        (S3Trouble::Silence, "no answer within"),
    ] {
        let store = packs(&server.url("p"), options.clone());
        server.fail("get_object", 1000, trouble.clone());
        let answers = store.get_many(&ids(&chunks));
        assert_eq!(answers.len(), chunks.len());
        for answer in answers {
            let text = error_chain(&answer.unwrap_err());
            assert!(text.contains("read a chunk") && text.contains(cause), "{text}");
        }
        server.heal();
        contract::reads_are_right(&*store, &chunks);
        // A listing that fails opens nothing.
        server.fail("list_objects_v2", 1000, trouble);
        let error = open_remote(&member(&server.url("p"), options.clone())).unwrap_err();
        assert!(error_chain(&error).contains(cause), "{}", error_chain(&error));
        server.heal();
    }
}

/// Goal: a cut connection leaves no pack under a final name that is not whole.
#[test]
fn a_cut_connection_leaves_no_pack() {
    let server = Sshd::start();
    let address = SocketAddr::from(([127, 0, 0, 1], server.port()));
    let quick = || small(sftp::tests::quick(&server));
    let chunks = noise(4, 9);
    packs(&server.url("store"), quick());
    for bytes in [9_000, 30_000, 100_000, 150_000] {
        let link = WeakLink::cut_after(address, bytes);
        let known = format!("[127.0.0.1]:{} {}\n", link.address().port(), server.host_key());
        fs::write(server.path("known-link"), known).unwrap();
        let mut options = quick();
        options.http.error_retry = 1;
        options.sftp.connections = 1;
        options.sftp.known_hosts = vec![server.path("known-link")];
        let store = packs(&server.url_at(link.address().port(), "store"), options);
        store.put_many(&chunks).unwrap();
        let error = store.flush().unwrap_err();
        assert!(
            matches!(
                error,
                Error::Unavailable {
                    action: "store a pack",
                    ..
                }
            ),
            "{}",
            error_chain(&error)
        );
        assert_eq!(ids_of(&*packs(&server.url("store"), quick())), []);
        assert!(
            files(&server.path("store"))
                .iter()
                .all(|name| name.starts_with(".tmp-"))
        );
        link.allow(u64::MAX);
        store.flush().unwrap();
        contract::reads_are_right(&*packs(&server.url("store"), quick()), &chunks);
        for name in files(&server.path("store")) {
            fs::remove_file(server.path("store/packs").join(name)).unwrap();
        }
    }
}

/// Goal: what is damaged, foreign or newer is told of, never served and never deleted, and the rest works.
#[test]
fn what_is_not_whole_is_left_alone() {
    let server = S3Server::start();
    let place = server.object("p");
    let (good, bad) = (noise(10, 3), noise(11, 3));
    let store = packs(&server.url("p"), s3());
    put(&*store, &good);
    let kept = files(&place).remove(0);
    put(&*store, &bad);
    let victim = files(&place).into_iter().find(|name| *name != kept).unwrap();
    let path = place.join("packs").join(&victim);
    let whole = fs::read(&path).unwrap();
    let flipped = |at: usize| {
        let mut bytes = whole.clone();
        bytes[at] ^= 1;
        bytes
    };
    let newer = {
        let mut bytes = whole.clone();
        bytes[16] = 2;
        let crc = crc_of(&bytes[..60]);
        bytes[60..64].copy_from_slice(&crc.to_le_bytes());
        bytes
    };
    for (bytes, words) in [
        (whole[..whole.len() - 1].to_vec(), "does not end as a sealed pack"),
        (Vec::new(), "empty"),
        (b"something else".to_vec(), "does not end"),
        (flipped(whole.len() - 100), "check sum"),
        (flipped(20), "header"),
        (newer, "format 2"),
    ] {
        fs::write(&path, &bytes).unwrap();
        let store = packs(&server.url("p"), s3());
        let suspects = store.suspects();
        assert_eq!(suspects.len(), 1, "{words}");
        assert!(suspects[0].file.ends_with(&victim), "{suspects:?}");
        assert!(suspects[0].what.contains(words), "{suspects:?}");
        assert_eq!(ids_of(&*store), ids(&good));
        assert!(!store.has(bad[0].id()).unwrap());
        store.remove_many(&ids(&good)[..1]).unwrap();
        store.compact(1.0).unwrap();
        assert_eq!(fs::read(&path).unwrap(), bytes, "{words}");
        put(&*store, &good);
        contract::reads_are_right(&*store, &good);
    }
    // In a frame, it is one chunk.
    fs::write(&path, flipped(200)).unwrap();
    let store = packs(&server.url("p"), s3());
    let answers = store.get_many(&bad.iter().map(StorableChunk::id).collect::<Vec<_>>());
    assert!(matches!(answers[0], Err(Error::Corrupt { .. })) && answers[1..].iter().all(Result::is_ok));
    let damages = scrub(&*store, &[], true).damages;
    assert!(
        matches!(&damages[..], [one] if one.what == DamageKind::Chunk && one.id == Some(bad[0].id())),
        "{damages:?}"
    );
    // Its bytes stay, whatever is collected.
    store.remove_many(&ids(&bad)[..2]).unwrap();
    store.compact(1.0).unwrap();
    // A file of another name is nobody's.
    fs::write(place.join("packs/README"), "mine").unwrap();
    contract::reads_are_right(&*packs(&server.url("p"), s3()), &good);
}

/// CRC-32C, as `formats` has it.
fn crc_of(bytes: &[u8]) -> u32 {
    cairn_formats::payload_crc(bytes)
}

#[test]
fn what_was_taken_away_stays_away_and_its_space_comes_back() {
    let server = S3Server::start();
    let store = packs(&server.url("p"), s3());
    let (kept, gone) = (noise(20, 30), noise(21, 30));
    // Mixed, so that no pack is dead as a whole.
    let mixed: Vec<_> = kept
        .iter()
        .chain(&gone)
        .enumerate()
        .map(|(n, _)| {
            if n % 2 == 0 {
                kept[n / 2].clone()
            } else {
                gone[n / 2].clone()
            }
        })
        .collect();
    put(&*store, &mixed);
    let bytes = |store: &dyn RemotePacks| store.pack_stats().unwrap().iter().map(|pack| pack.bytes).sum::<u64>();
    let before = bytes(&*store);
    for ids in ids(&gone).chunks(7) {
        store.remove_many(ids).unwrap();
    }
    for store in [&store, &packs(&server.url("p"), s3())] {
        assert_eq!(ids_of(&**store), ids(&kept));
        assert!(!store.has(gone[3].id()).unwrap());
    }
    // Somebody reads all the time.
    let reader = packs(&server.url("p"), s3());
    let report = store.compact(0.9).unwrap();
    assert!(report.packs_removed >= 4 && report.bytes_moved >= 600_000, "{report:?}");
    for store in [&store, &reader, &packs(&server.url("p"), s3())] {
        contract::reads_are_right(&**store, &kept);
        assert_eq!(ids_of(&**store), ids(&kept));
        assert!(!store.has(gone[3].id()).unwrap());
    }
    assert!(bytes(&*store) < before * 6 / 10);
    // No list is needed any more, and nobody owns the store.
    assert!(files(&server.object("p")).iter().all(|name| name.ends_with(".pack")));
    assert!(!server.object("p/CURRENT").exists());
    assert_eq!(store.compact(0.9).unwrap(), CompactReport::default());
    // What is gone can be put again.
    put(&*store, &gone);
    contract::reads_are_right(&*packs(&server.url("p"), s3()), &gone);
}

#[test]
fn many_small_packs_become_few() {
    let server = S3Server::start();
    let store = packs(&server.url("p"), s3());
    let chunks = noise(22, 20);
    for chunk in chunks.chunks(1) {
        put(&*store, chunk);
    }
    assert_eq!(files(&server.object("p")).len(), 20);
    store.compact(0.5).unwrap();
    assert!(files(&server.object("p")).len() <= 3);
    contract::reads_are_right(&*store, &chunks);
    assert_eq!(store.compact(0.5).unwrap(), CompactReport::default());
}

/// Goal: a collection that is stopped anywhere loses nothing, and the next one ends it.
/// Method: let each request of it fail in turn.
#[test]
fn a_collection_may_stop_anywhere() {
    for operation in ["put_object", "delete_objects", "get_object", "list_objects_v2"] {
        for skipped in 0..3 {
            let server = S3Server::start();
            let mut options = s3();
            options.http.error_retry = 1;
            let store = packs(&server.url("p"), options.clone());
            let chunks = noise(23, 40);
            put(&*store, &chunks);
            let gone: Vec<_> = chunks.iter().step_by(2).map(StorableChunk::id).collect();
            let kept: Vec<_> = chunks.iter().skip(1).step_by(2).cloned().collect();
            store.remove_many(&gone).unwrap();
            let fresh = packs(&server.url("p"), options.clone());
            server.fail(operation, skipped, S3Trouble::None);
            server.fail(operation, 1, S3Trouble::Answer("InternalError"));
            // Some of these are not asked for so often.
            let _ = fresh.compact(0.9);
            server.heal();
            drop(fresh);
            let fresh = packs(&server.url("p"), options.clone());
            contract::reads_are_right(&*fresh, &kept);
            assert_eq!(ids_of(&*fresh), ids(&kept), "{operation} {skipped}");
            let owner = fresh.own(true).unwrap();
            fresh.compact(0.9).unwrap();
            drop(owner);
            contract::reads_are_right(&*packs(&server.url("p"), options), &kept);
            assert!(files(&server.object("p")).len() <= 3, "{operation} {skipped}");
        }
    }
}

#[test]
fn one_alone_deletes() {
    let server = S3Server::start();
    let sshd = Sshd::start();
    for (url, options) in [
        (server.url("p"), s3()),
        (sshd.url("store"), small(sftp::tests::quick(&sshd))),
    ] {
        let first = packs(&url, options.clone());
        let chunks = noise(24, 3);
        put(&*first, &chunks);
        let second = packs(&url, options.clone());
        let owner = first.own(false).unwrap();
        let words = format!("process {}", std::process::id());
        refused(&second.own(false).unwrap_err(), &words);
        refused(&second.compact(0.5).unwrap_err(), &words);
        refused(&second.remove_many(&ids(&chunks)).unwrap_err(), "--take-over");
        // The owner itself may, and others may write.
        first.remove_many(&ids(&chunks)[..1]).unwrap();
        put(&*second, &noise(25, 1));
        drop(owner);
        second.remove_many(&ids(&chunks)[1..2]).unwrap();
        let dead = first.own(false).unwrap();
        let owner = second.own(true).unwrap();
        refused(&first.compact(1.0).unwrap_err(), &words);
        second.compact(1.0).unwrap();
        drop(dead);
        drop(owner);
        drop(first.own(false).unwrap());
        assert_eq!(ids_of(&*packs(&url, options)).len(), 2);
    }
}

/// Goal: who was told that a chunk is there, and had it deleted by somebody else before its flush, hears of it.
#[test]
fn a_flush_does_not_rely_on_what_others_have_deleted() {
    for compacted in [false, true] {
        let server = S3Server::start();
        let chunks = noise(26, 12);
        let collector = packs(&server.url("p"), s3());
        put(&*collector, &chunks);
        let writer = packs(&server.url("p"), s3());
        assert!(writer.has(chunks[0].id()).unwrap());
        writer.put_many(&chunks[..3]).unwrap();
        collector.remove_many(&[chunks[0].id()]).unwrap();
        if compacted {
            collector.compact(1.0).unwrap();
        }
        writer.put_many(&noise(27, 2)).unwrap();
        let error = writer.flush().unwrap_err();
        assert!(
            error_chain(&error).contains("deleted chunks meanwhile"),
            "{}",
            error_chain(&error)
        );
        put(&*writer, &chunks[..3]);
        contract::reads_are_right(&*packs(&server.url("p"), s3()), &chunks);
        // A collection that deletes nothing disturbs nobody.
        assert!(writer.has(chunks[1].id()).unwrap());
        collector.compact(1.0).unwrap();
        writer.flush().unwrap();
    }
}

#[test]
fn only_an_empty_place_becomes_a_store() {
    let server = S3Server::start();
    let flat = open_prunable(&member(&server.url("flat"), s3())).unwrap();
    flat.put_many(&noise(30, 1)).unwrap();
    refused(
        &init_remote_packs(&member(&server.url("flat"), s3())).unwrap_err(),
        "has to be empty",
    );
    contract::writable(&*flat);
    let url = server.url("later");
    fs::create_dir_all(server.object("later")).unwrap();
    fs::write(server.object("later/FORMAT"), "cairn pack objects 2\n").unwrap();
    for error in [
        init_remote_packs(&member(&url, s3())).unwrap_err(),
        open_remote(&member(&url, s3())).unwrap_err(),
        open_prunable(&member(&url, s3()))
            .unwrap()
            .has(ChunkId::from_bytes([1; 32]))
            .unwrap_err(),
    ] {
        refused(&error, "later release");
    }
    packs(&server.url("p"), s3());
    let plain = StoreOptions {
        form: ChunkForm::Plain,
        ..s3()
    };
    refused(
        &open_remote(&member(&server.url("p"), plain)).unwrap_err(),
        "--uncompressed",
    );
    let other = StoreOptions {
        digest: DigestAlgorithm::Sha256,
        ..s3()
    };
    refused(&open_remote(&member(&server.url("p"), other)).unwrap_err(), "--digest");
    let read_only = StoreOptions {
        read_only: true,
        ..s3()
    };
    let store = packs(&server.url("p"), read_only);
    assert!(matches!(store.put_many(&noise(1, 1)), Err(Error::ReadOnly { .. })));
    assert!(matches!(store.remove_many(&[]), Err(Error::ReadOnly { .. })));
}

#[test]
fn an_interrupted_collection_lets_go() {
    let server = S3Server::start();
    let flag = Arc::new(std::sync::atomic::AtomicBool::new(false));
    let mut options = s3();
    options.http.cancelled = Some(flag.clone());
    let store = packs(&server.url("p"), options);
    put(&*store, &noise(40, 3));
    let owner = store.own(false).unwrap();
    assert!(server.object("p/CURRENT").exists());
    flag.store(true, std::sync::atomic::Ordering::Relaxed);
    let error = store.compact(0.5).unwrap_err();
    assert!(error_chain(&error).contains("interrupted"), "{}", error_chain(&error));
    drop(owner);
    assert!(!server.object("p/CURRENT").exists());
}

/// Goal: frames get smaller, ids stay, and packs that hardly shrink are left; nobody else deletes meanwhile.
#[test]
fn packs_in_a_bucket_are_compressed_anew() {
    let server = S3Server::start();
    let store = packs(&server.url("p"), s3());
    let words: Vec<String> = (0..2000).map(|n| format!("{} ", n * n)).collect();
    let mut random = fastrand::Rng::with_seed(80);
    let mut text = || -> Vec<u8> { (0..6000).flat_map(|_| random.choice(&words).unwrap().bytes()).collect() };
    let chunks: Vec<StorableChunk> = (0..60)
        .map(|_| Chunk::from_plain(DigestAlgorithm::default(), Bytes::from(text())))
        .map(|chunk| chunk.encode(ChunkForm::Compressed, Level::new(1)))
        .collect();
    put(&*store, &chunks);
    let hard = noise(81, 13);
    put(&*store, &hard);
    let before: u64 = store.pack_stats().unwrap().iter().map(|pack| pack.bytes).sum();
    let options = crate::RecompressOptions {
        level: Level::new(19),
        gain_min: 0.02,
        below: u32::MAX,
        commits_kept_from: crate::LogPosition::default(),
    };
    let other = packs(&server.url("p"), s3());
    let owner = other.own(false).unwrap();
    refused(
        &store.recompress(&options, &mut |_| Ok(())).unwrap_err(),
        "another collects it",
    );
    drop(owner);
    let report = store.recompress(&options, &mut |_| Ok(())).unwrap();
    assert!(report.packs_removed > 2 && report.packs_left >= 1, "{report:?}");
    assert!(report.bytes_after < report.bytes_before, "{report:?}");
    let after: u64 = store.pack_stats().unwrap().iter().map(|pack| pack.bytes).sum();
    assert!(after < before, "{after} of {before}");
    for store in [store, packs(&server.url("p"), s3())] {
        contract::reads_are_right(&*store, &chunks);
        contract::reads_are_right(&*store, &hard);
        assert_eq!(ids_of(&*store).len(), 73);
    }
    // Done before: nothing shrinks.
    let again = packs(&server.url("p"), s3())
        .recompress(&options, &mut |_| Ok(()))
        .unwrap();
    assert_eq!((again.packs_removed, again.bytes_after), (0, 0), "{again:?}");
}
