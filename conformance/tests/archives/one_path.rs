//! One entry out of an archive, without the rest.

use std::fs;

use cairn_conformance::support::{self, Server, args, cairn, free_port, ok};
use cairn_conformance::trees::{self, For, Ground, Without, assert_same};

/// The figure of the issue: at most 12 chunks for one path of 100 000, over HTTP.
#[test]
fn one_path_of_a_hundred_thousand_takes_a_dozen_chunks() {
    const CHUNKS_MAX: usize = 12;
    let ground = Ground::new();
    let (tree, store, index) = (ground.path("tree"), ground.path("store"), ground.path("t.caidx"));
    fs::create_dir(&tree).expect("a folder");
    fs::create_dir(&store).expect("a folder");
    // Links, which are made faster, and are files of their own to an archive.
    for file in 0..4 {
        fs::write(
            tree.join(format!("file{file}")),
            support::input(file, 100 + 50 * file as usize),
        )
        .expect("a file");
    }
    for number in 4..100_000 {
        let from = tree.join(format!("file{}", number % 4));
        fs::hard_link(from, tree.join(format!("file{number}"))).expect("a link");
    }
    // Where an archive is cut hangs on the times in it, too.
    for name in ["file0", "file1", "file2", "file3", "."] {
        let entry = fs::File::open(tree.join(name)).expect("an entry");
        entry.set_modified(std::time::UNIX_EPOCH).expect("a time");
    }
    ok(cairn().args(args!["tar", "-i", "-s", store, index, tree]));
    let port = free_port();
    let log = ground.path("log");
    let address = format!("127.0.0.1:{port}");
    let server = Server::start(
        cairn().args(args!["chunk-server", "-s", store, "-l", address, "--log", log]),
        port,
    );
    let requests = || {
        fs::read_to_string(&log)
            .expect("a log")
            .lines()
            .filter(|line| line.contains("GET"))
            .count()
    };
    let out = ground.path("out");
    for number in [0, 77_777, 99_999] {
        let name = format!("file{number}");
        let before = requests();
        ok(cairn().args(args!["list", "-i", "-s", server.url(), index, name]));
        let listed = requests() - before;
        ok(cairn().args(args!["untar", "-i", "-s", server.url(), "--path", name, index, out]));
        let restored = requests() - before - listed;
        assert!(0 < listed && listed <= CHUNKS_MAX, "list of {name}: {listed} chunks");
        assert!(
            0 < restored && restored <= CHUNKS_MAX,
            "untar of {name}: {restored} chunks"
        );
        assert!(fs::read(&out).expect("a file") == fs::read(tree.join(&name)).expect("a file"));
    }
}

#[test]
fn one_path_is_restored_alone() {
    let ground = Ground::new();
    let (tree, store, index, archive) = (
        ground.path("tree"),
        ground.path("store"),
        ground.path("t.caidx"),
        ground.path("t.catar"),
    );
    fs::create_dir(&store).expect("a folder");
    trees::make(&tree, 33, For::Casync);
    fs::create_dir_all(tree.join("sub/folder/deep")).expect("folders");
    fs::write(tree.join("sub/folder/file"), support::input(1, 3_000_000)).expect("a file");
    std::os::unix::fs::symlink("nowhere", tree.join("sub/link")).expect("a link");
    ok(cairn().args(args!["tar", "-i", "-s", store, index, tree]));
    ok(cairn().args(args!["tar", archive, tree]));
    let out = ground.path("out");
    for path in ["sub/folder", "sub/folder/file", "sub/link", "sub/folder/deep", "."] {
        for indexed in [true, false] {
            let mut command = cairn();
            command.args(args!["untar", "--strict", "--path", path]);
            if indexed {
                command.args(args!["-i", "-s", store, index, out]);
            } else {
                command.args(args![archive, out]);
            }
            ok(&mut command);
            assert_same(&tree.join(path), &out, Without::default(), path);
            ground.clear("out");
        }
    }
}
