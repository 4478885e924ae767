//! Groups and chains.

use std::sync::Arc;

use cairn_formats::{Chunk, ChunkForm};
use cairn_store::{ChunkStore, Error, FailoverGroup, FlatOptions, FlatStore, StoreChain};
use tempfile::TempDir;

use crate::servers::{Fault, Server, answer};
use crate::{chunks, encoded, error_of, ids, open, quick, read, shared};

fn flat(folder: &TempDir, chunks: &[Chunk]) -> Arc<dyn ChunkStore> {
    let store = FlatStore::open(folder.path(), FlatOptions::default()).unwrap();
    store.put_many(&encoded(chunks, ChunkForm::Compressed)).unwrap();
    store.flush().unwrap();
    shared(store)
}

fn broken() -> (Fault, Arc<dyn ChunkStore>) {
    let server = Fault::start(|_, _| answer("500 Broken", "", b""));
    let store = shared(open(&server.url(), quick()));
    (server, store)
}

#[test]
fn a_group_moves_on_from_a_failing_member_and_stays_there() {
    let folder = tempfile::tempdir().unwrap();
    let all = chunks(1, 10);
    let good = flat(&folder, &all);
    let (server, bad) = broken();
    let group = FailoverGroup::new(vec![bad, good]);
    read(&group, &all);
    let asked = server.requests().len();
    assert!(asked > 0);
    read(&group, &all);
    assert_eq!(group.has_many(&ids(&all)).unwrap(), [true; 10]);
    assert_eq!(server.requests().len(), asked, "the failing member is not asked again");
    assert!(matches!(
        group.put_many(&encoded(&all, ChunkForm::Plain)),
        Err(Error::ReadOnly { .. })
    ));
}

#[test]
fn a_group_says_missing_only_when_every_member_does() {
    let (one, two) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let all = chunks(1, 10);
    let (part, rest) = (flat(&one, &all[..4]), flat(&two, &all[4..]));
    let (_server, bad) = broken();
    let lagging = FailoverGroup::new(vec![part.clone(), rest.clone()]);
    read(&lagging, &all);
    assert!(matches!(error_of(&lagging), Error::Missing { .. }));
    assert_eq!(lagging.has_many(&ids(&chunks(2, 2))).unwrap(), [false; 2]);
    for members in [vec![part.clone(), bad.clone()], vec![bad, part]] {
        let group = FailoverGroup::new(members);
        assert!(matches!(error_of(&group), Error::Unavailable { .. }));
        assert!(matches!(group.has_many(&ids(&all)), Err(Error::Unavailable { .. })));
        assert!(matches!(
            group.stat(all[9].id(), ChunkForm::Plain),
            Err(Error::Unavailable { .. })
        ));
        read(&group, &all[..4]);
        assert_eq!(group.has_many(&ids(&all[..4])).unwrap(), [true; 4]);
    }
}

#[test]
fn a_chain_moves_on_past_missing_and_stops_at_an_error() {
    let (one, two) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let all = chunks(1, 10);
    let (first, second) = (flat(&one, &all[..4]), flat(&two, &all[2..]));
    let chain = StoreChain::new(vec![first.clone(), second.clone()]);
    read(&chain, &all);
    assert_eq!(chain.has_many(&ids(&all)).unwrap(), [true; 10]);
    assert!(chain.stat(all[9].id(), ChunkForm::Plain).unwrap().is_some());
    assert!(matches!(error_of(&chain), Error::Missing { .. }));
    let (_server, bad) = broken();
    let chain = StoreChain::new(vec![first, bad, second]);
    read(&chain, &all[..4]);
    assert!(matches!(
        chain.get_many(&ids(&all[4..5])).pop(),
        Some(Err(Error::Unavailable { .. }))
    ));
    assert!(matches!(chain.has_many(&ids(&all)), Err(Error::Unavailable { .. })));
    assert!(matches!(
        chain.put_many(&encoded(&all, ChunkForm::Plain)),
        Err(Error::ReadOnly { .. })
    ));
}

/// Only what is still looked for goes on to the next store.
#[test]
fn the_next_store_is_asked_for_the_rest_only() {
    let folder = tempfile::tempdir().unwrap();
    let all = chunks(1, 6);
    let local = flat(&folder, &all[..5]);
    let server = Fault::start(|_, _| answer("404 Not Found", "", b""));
    let remote = shared(open(&server.url(), quick()));
    for store in [
        shared(StoreChain::new(vec![local.clone(), remote.clone()])),
        shared(FailoverGroup::new(vec![local, remote])),
    ] {
        let before = server.requests().len();
        assert!(matches!(
            store.get_many(&ids(&all)).pop(),
            Some(Err(Error::Missing { .. }))
        ));
        assert_eq!(server.requests().len() - before, 2, "one chunk in two forms");
    }
}

#[test]
fn a_group_of_servers_survives_one_that_dies() {
    let folder = tempfile::tempdir().unwrap();
    let all = chunks(1, 50);
    flat(&folder, &all);
    let (one, two) = (
        Server::nginx(folder.path(), ""),
        Server::desync("chunk-server", folder.path(), &[]),
    );
    let group = FailoverGroup::new(vec![
        shared(open(&one.url(), quick())),
        shared(open(&two.url(), quick())),
    ]);
    read(&group, &all);
    drop(one);
    read(&group, &all);
    assert_eq!(group.has_many(&ids(&all)).unwrap(), [true; 50]);
}
