//! Archives: the bytes are casync's, and each tool puts back what each other one packed, in every direction that both can.
//!
//! `CAIRN_CONFORMANCE_TREES` sets how many random trees are compared (50 unless told, 500 for a release).

mod entries;
mod faults;
mod one_path;
mod updates;

use std::fs;
use std::path::Path;

use cairn_conformance::support::{Server, args, cairn, casync, desync, free_port, ok, refused};
use cairn_conformance::trees::{self, For, Ground, Without, assert_same};

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

#[test]
fn every_tool_restores_what_every_other_archived() {
    let ground = Ground::new();
    let (tree, archive, out) = (ground.path("tree"), ground.path("archive.catar"), ground.path("out"));
    for seed in 0..count() / 2 {
        trees::make(&tree, seed, For::Casync);
        ok(cairn().args(args!["tar", archive, tree]));
        ok(cairn().args(args!["untar", "--strict", archive, out]));
        assert_same(&tree, &out, Without::default(), &format!("cairn → cairn, tree {seed}"));
        ground.clear("out");
        // What casync makes is the same bytes, so this is casync → cairn too.
        ok(casync().args(args!["extract", archive, out]));
        assert_same(&tree, &out, Without::default(), &format!("cairn → casync, tree {seed}"));
        ground.clear("out");
        ground.clear("tree");

        trees::make(&tree, seed, For::Desync);
        ok(cairn().args(args!["tar", "--style", "desync", archive, tree]));
        fs::create_dir(&out).expect("a folder");
        ok(desync().args(args!["untar", archive, out]));
        // desync does not restore the times of links.
        let links = Without { link_times: true };
        assert_same(&tree, &out, links, &format!("cairn → desync, tree {seed}"));
        ground.clear("out");
        ok(desync().args(args!["tar", archive, tree]));
        ok(cairn().args(args!["untar", "--strict", archive, out]));
        assert_same(&tree, &out, Without::default(), &format!("desync → cairn, tree {seed}"));
        ground.clear("out");
        ground.clear("tree");
    }
}

#[test]
fn indexed_archives_go_from_tool_to_tool_by_folder_and_http() {
    let ground = Ground::new();
    let (tree, store, out) = (ground.path("tree"), ground.path("store"), ground.path("out"));
    fs::create_dir(&store).expect("a folder");
    trees::make(&tree, 3, For::Casync);
    let (ours, theirs) = (ground.path("ours.caidx"), ground.path("theirs.caidx"));
    ok(cairn().args(args!["tar", "-i", "-s", store, ours, tree]));
    ok(casync().args(args!["make", format!("--store={}", store.display()), theirs, tree]));
    assert!(
        fs::read(&ours).expect("an index") == fs::read(&theirs).expect("an index"),
        "the index is not casync's"
    );
    let port = free_port();
    let address = format!("127.0.0.1:{port}");
    let server = Server::start(cairn().args(args!["chunk-server", "-s", store, "-l", address]), port);
    for place in [store.display().to_string(), server.url()] {
        ok(cairn().args(args!["untar", "-i", "-s", place, theirs, out]));
        assert_same(&tree, &out, Without::default(), &format!("{place} → cairn"));
        ground.clear("out");
        ok(casync().args(args!["extract", format!("--store={place}"), ours, out]));
        assert_same(&tree, &out, Without::default(), &format!("{place} → casync"));
        ground.clear("out");
    }
    ground.clear("tree");

    trees::make(&tree, 4, For::Desync);
    let index = ground.path("desync.caidx");
    ok(desync().args(args!["tar", "-i", "-s", store, index, tree]));
    for place in [store.display().to_string(), server.url()] {
        ok(cairn().args(args!["untar", "-i", "-s", place, index, out]));
        assert_same(&tree, &out, Without::default(), &format!("desync, {place} → cairn"));
        ground.clear("out");
    }
    ok(cairn().args(args!["tar", "-i", "--style", "desync", "-s", store, index, tree]));
    for place in [store.display().to_string(), server.url()] {
        fs::create_dir(&out).expect("a folder");
        ok(desync().args(args!["untar", "-i", "-s", place, index, out]));
        assert_same(
            &tree,
            &out,
            Without { link_times: true },
            &format!("cairn, {place} → desync"),
        );
        ground.clear("out");
    }
}

#[test]
fn sha256_indexes_of_trees_are_readable() {
    let ground = Ground::new();
    let (tree, store, index, out) = (
        ground.path("tree"),
        ground.path("store"),
        ground.path("t.caidx"),
        ground.path("out"),
    );
    fs::create_dir(&store).expect("a folder");
    trees::make(&tree, 9, For::Casync);
    ok(cairn().args(args!["--digest", "sha256", "tar", "-i", "-s", store, index, tree]));
    ok(cairn().args(args!["untar", "-i", "-s", store, index, out]));
    assert_same(&tree, &out, Without::default(), "sha256, cairn");
    ground.clear("out");
    ok(casync().args(args!["extract", format!("--store={}", store.display()), index, out]));
    assert_same(&tree, &out, Without::default(), "sha256, casync");
}

#[test]
fn lists_and_mtrees_are_casyncs() {
    let ground = Ground::new();
    let (tree, archive) = (ground.path("tree"), ground.path("archive.catar"));
    trees::make(&tree, 21, For::CasyncMakes);
    ok(cairn().args(args!["tar", archive, tree]));
    let ours = ok(cairn().args(args!["list", "--null", archive])).stdout;
    let ours: Vec<&[u8]> = ours.split(|&byte| byte == 0).filter(|path| !path.is_empty()).collect();
    let mut found = trees::inodes(&tree, Without::default()).into_keys().collect::<Vec<_>>();
    found.iter_mut().for_each(|path| match path.first() {
        Some(_) => drop(path.remove(0)),
        None => path.push(b'.'),
    });
    assert!(ours.iter().all(|path| found.contains(&path.to_vec())) && ours.len() == found.len());
    // casync prints the same lines, but for the attributes that it invents for FIFOs in mtree.
    let plain = ground.path("plain");
    fs::create_dir_all(plain.join("folder/below")).expect("folders");
    fs::write(plain.join("folder/file"), b"x").expect("a file");
    trees::special(&plain.join("fifo"), rustix::fs::FileType::Fifo);
    ok(cairn().args(args!["tar", archive, plain]));
    for verb in ["list", "mtree"] {
        let (ours, theirs) = (
            ok(cairn().args(args![verb, archive])),
            ok(casync().args(args![verb, archive])),
        );
        let text = |bytes: Vec<u8>| String::from_utf8(bytes).expect("UTF-8");
        let (ours, theirs) = (text(ours.stdout), text(theirs.stdout));
        let without_fifo = |text: &str| {
            text.lines()
                .filter(|line| !line.contains("fifo"))
                .collect::<Vec<_>>()
                .join("\n")
        };
        assert_eq!(without_fifo(&ours), without_fifo(&theirs), "{verb}");
        assert_eq!(ours.lines().count(), theirs.lines().count());
    }
    let flat = ok(cairn().args(args!["list", "--flat", archive, "folder"]));
    assert_eq!(
        String::from_utf8_lossy(&flat.stdout),
        "drwxr-xr-x folder\ndrwxr-xr-x folder/below\n-rw-r--r-- folder/file\n"
    );
    let words = refused(cairn().args(args!["list", archive, "folder/absent"]));
    assert!(words.contains("folder/absent"), "{words}");
    // A folder on disk gives the lines of its archive.
    let disk = ok(cairn().args(args!["mtree", plain])).stdout;
    assert!(disk == ok(cairn().args(args!["mtree", archive])).stdout);
}

/// A tree with one of everything that the named tests need, its archive and where it is restored.
fn archived(ground: &Ground, fill: impl FnOnce(&Path)) -> (std::path::PathBuf, std::path::PathBuf) {
    let tree = ground.path("tree");
    fs::create_dir(&tree).expect("a folder");
    fill(&tree);
    let archive = ground.path("archive.catar");
    ok(cairn().args(args!["tar", archive, tree]));
    (archive, ground.path("out"))
}
