//! Archives: the bytes are casync's, and each tool puts back what each other one packed, in every direction that both can.
//!
//! `CAIRN_CONFORMANCE_TREES` sets how many random trees are compared (50 unless told, 500 for a release).

mod support;
mod trees;

use std::fs;

use support::{args, cairn, casync, ok};
use trees::{For, Ground};

/// Trees compared unless `CAIRN_CONFORMANCE_TREES` says otherwise.
const TREES: u64 = 50;

fn count() -> u64 {
    match std::env::var("CAIRN_CONFORMANCE_TREES") {
        Ok(count) => count.parse().expect("CAIRN_CONFORMANCE_TREES is a number"),
        Err(_) => TREES,
    }
}

#[test]
fn archives_of_random_trees_are_casyncs_byte_for_byte() {
    let ground = Ground::new();
    let (tree, ours, theirs) = (
        ground.path("tree"),
        ground.path("ours.catar"),
        ground.path("theirs.catar"),
    );
    for seed in 0..count() {
        trees::make(&tree, seed, For::CasyncMakes);
        ok(cairn().args(args!["tar", ours, tree]));
        ok(casync().args(args!["make", theirs, tree]));
        let (ours, theirs) = (
            fs::read(&ours).expect("an archive"),
            fs::read(&theirs).expect("an archive"),
        );
        let differ = ours.iter().zip(&theirs).position(|(a, b)| a != b);
        assert!(ours == theirs, "tree {seed}: differs at byte {differ:?}");
        ground.clear("tree");
    }
}

#[test]
fn every_choice_of_features_is_casyncs() {
    let ground = Ground::new();
    let (tree, ours, theirs) = (
        ground.path("tree"),
        ground.path("ours.catar"),
        ground.path("theirs.catar"),
    );
    trees::make(&tree, 1, For::CasyncMakes);
    for (number, features) in [
        &["--with=unix", "--with=32bit-uids"][..],
        &["--with=fat", "--with=user-names", "--with=32bit-uids"],
        &["--with=best", "--without=nsec-time", "--without=usec-time"],
        &["--with=2sec-time", "--with=32bit-uids", "--with=fifos"],
        &["--without=user-names"],
        &["--without=privileged"],
        &["--without=nsec-time"],
        &["--without=xattrs", "--without=acl"],
        &["--with=fuse"],
        &["--with=chattr", "--with=symlinks"],
    ]
    .into_iter()
    .enumerate()
    {
        ok(cairn().arg("tar").args(features).args(args![ours, tree]));
        ok(casync().arg("make").args(features).args(args![theirs, tree]));
        assert!(
            fs::read(&ours).expect("an archive") == fs::read(&theirs).expect("an archive"),
            "{number}: {features:?}"
        );
    }
}
