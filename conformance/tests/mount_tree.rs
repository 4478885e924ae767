//! Archives through FUSE: a mounted tree is the tree that was archived, and what is wrong with an archive is an error of what
//! it touches.
//!
//! These tests need root, `/dev/fuse` and `fusermount3`; where one is missing they fail.

use std::fs;
use std::os::unix::fs::FileExt as _;
use std::path::Path;

use cairn_conformance::mounted::{Mount, assert_gone, mounts};
use cairn_conformance::support::{args, cairn, cairnd, casync, desync, ok, refused};
use cairn_conformance::trees::{self, For, Ground, Without};

/// Random trees that are mounted and compared.
const TREES: u64 = 6;

fn mount(source: &Path, store: Option<&str>, folder: &Path) -> Mount {
    let mut command = cairn();
    command
        .arg("mount")
        .args(store.into_iter().flat_map(|store| ["-s", store]));
    Mount::start(command.args(args![source, folder]), folder)
}

fn eio(error: &std::io::Error) -> bool {
    error.raw_os_error() == Some(rustix::io::Errno::IO.raw_os_error())
}

#[test]
fn a_mounted_tree_is_the_tree_that_was_archived() {
    let ground = Ground::new();
    let (tree, mnt) = (ground.path("tree"), ground.path("mnt"));
    let server = cairnd(&ground.path("data"));
    let url = format!("{}/store/default/", server.url());
    let store = ground.path("store").to_string_lossy().into_owned();
    fs::create_dir(&mnt).expect("a folder to mount on");
    for seed in 0..TREES {
        trees::make(&tree, seed, For::CasyncMakes);
        let (archive, index) = (ground.path("tree.catar"), ground.path("tree.caidx"));
        ok(casync().args(args!["make", &archive, &tree]));
        let mounted = mount(&archive, None, &mnt);
        trees::assert_same(
            &tree,
            &mnt,
            Without::default(),
            &format!("casync's archive of tree {seed}"),
        );
        mounted.end();
        for store in [&store, &url] {
            ok(cairn().args(args!["tar", "-i", "-s", store, &index, &tree]));
            let mounted = mount(&index, Some(store), &mnt);
            trees::assert_same(&tree, &mnt, Without::default(), &format!("tree {seed} from {store}"));
            // A child that another test has just forked holds files of ours until it runs its program.
            let words = mounted.end();
            let is_of_that = |line: &str| line.contains("files are open and are served");
            assert!(words.lines().all(is_of_that), "{words}");
        }
        ground.clear("tree");
    }
}

#[test]
fn desyncs_archives_are_mounted() {
    let ground = Ground::new();
    let (tree, mnt) = (ground.path("tree"), ground.path("mnt"));
    fs::create_dir(&mnt).expect("a folder to mount on");
    for seed in 0..TREES {
        trees::make(&tree, seed, For::Desync);
        let archive = ground.path("tree.catar");
        ok(desync().args(args!["tar", &archive, &tree]));
        let mounted = mount(&archive, None, &mnt);
        trees::assert_same(
            &tree,
            &mnt,
            Without::default(),
            &format!("desync's archive of tree {seed}"),
        );
        mounted.end();
        ground.clear("tree");
    }
}

/// Goal: big folders are listed whole and in any order of questions, and looked into by name.
#[test]
fn a_folder_of_ten_thousand_entries_is_listed_and_looked_into() {
    let ground = Ground::new();
    let (tree, mnt) = (ground.path("tree"), ground.path("mnt"));
    fs::create_dir(&mnt).expect("a folder to mount on");
    fs::create_dir_all(tree.join("many")).expect("a folder");
    let name = |number: usize| format!("{number}-{}", "n".repeat(number % 200));
    for number in 0..10_000 {
        fs::write(tree.join("many").join(name(number)), number.to_string()).expect("a file");
    }
    ok(cairn().args(args!["tar", ground.path("tree.catar"), &tree]));
    let mounted = mount(&ground.path("tree.catar"), None, &mnt);
    let many = mnt.join("many");
    let read = |number: usize| fs::read_to_string(many.join(name(number)));
    assert_eq!(read(7777).expect("found without a listing"), "7777");
    assert!(!many.join("not there").exists());
    let list = || {
        let listed = fs::read_dir(&many).expect("a folder");
        let mut names: Vec<String> = listed
            .map(|entry| entry.expect("an entry").file_name().into_string().expect("ASCII"))
            .collect();
        names.sort();
        names
    };
    let mut expected: Vec<String> = (0..10_000).map(name).collect();
    expected.sort();
    std::thread::scope(|scope| {
        for _ in 0..3 {
            scope.spawn(|| assert!(list() == expected));
        }
    });
    for number in (0..10_000).step_by(97) {
        assert_eq!(read(number).expect("a file"), number.to_string());
    }
    mounted.end();
}

#[test]
fn a_mounted_tree_takes_no_writes_and_gives_no_devices_or_privileges() {
    let ground = Ground::new();
    let (tree, mnt) = (ground.path("tree"), ground.path("mnt"));
    fs::create_dir(&mnt).expect("a folder to mount on");
    fs::create_dir(&tree).expect("a folder");
    fs::write(tree.join("file"), b"bytes").expect("a file");
    ok(cairn().args(args!["tar", ground.path("tree.catar"), &tree]));
    let mounted = mount(&ground.path("tree.catar"), None, &mnt);
    let rofs = Some(rustix::io::Errno::ROFS.raw_os_error());
    let refused = [
        fs::write(mnt.join("file"), b"others").expect_err("read-only"),
        fs::write(mnt.join("new"), b"others").expect_err("read-only"),
        fs::remove_file(mnt.join("file")).expect_err("read-only"),
        fs::create_dir(mnt.join("folder")).expect_err("read-only"),
    ];
    for error in refused {
        assert_eq!(error.raw_os_error(), rofs, "{error}");
    }
    let mounts = mounts();
    let line = mounts
        .lines()
        .find(|line| line.contains(&*mnt.to_string_lossy()))
        .expect("it is mounted");
    let options = line.split(' ').nth(5).expect("options");
    for option in ["ro", "nosuid", "nodev"] {
        assert!(options.split(',').any(|other| other == option), "{line}");
    }
    mounted.end();
}

#[test]
fn a_missing_chunk_is_an_error_of_the_files_in_it() {
    let ground = Ground::new();
    let (tree, mnt) = (ground.path("tree"), ground.path("mnt"));
    fs::create_dir(&mnt).expect("a folder to mount on");
    fs::create_dir(&tree).expect("a folder");
    let mut random = fastrand::Rng::with_seed(1);
    let mut files = Vec::new();
    for number in 0..30 {
        let bytes: Vec<u8> = std::iter::repeat_with(|| random.u8(..)).take(200_000).collect();
        fs::write(tree.join(format!("{number:02}")), &bytes).expect("a file");
        files.push(bytes);
    }
    let (store, index) = (ground.path("store"), ground.path("tree.caidx"));
    ok(cairn().args(args!["tar", "-i", "-s", &store, &index, &tree]));
    let ids = ok(cairn().args(args!["list-chunks", &index])).stdout;
    let ids = String::from_utf8(ids).expect("ids");
    let ids: Vec<&str> = ids.lines().collect();
    let id = ids[ids.len() / 2];
    fs::remove_file(store.join(&id[..4]).join(format!("{id}.cacnk"))).expect("the chunk's file");
    let mounted = mount(&index, Some(&store.to_string_lossy()), &mnt);
    let mut failed = 0;
    for (number, bytes) in files.iter().enumerate() {
        match fs::read(mnt.join(format!("{number:02}"))) {
            Ok(read) => assert!(read == *bytes, "{number}"),
            Err(error) => {
                assert!(eio(&error), "{error}");
                failed += 1;
            }
        }
    }
    assert!((1..=3).contains(&failed), "{failed} files have a part in one chunk");
    let words = mounted.end();
    assert!(words.contains(id), "{words}");
}

/// Goal: tables that lie are I/O errors and a line that says where, whatever the lie; the rest of the tree stays readable.
/// Method: each field of a folder's table set to each of some lies, in a tree with another folder beside it.
#[test]
fn tables_that_lie_are_errors_of_their_folder() {
    let ground = Ground::new();
    let (tree, mnt) = (ground.path("tree"), ground.path("mnt"));
    fs::create_dir(&mnt).expect("a folder to mount on");
    for folder in ["good", "lies"] {
        fs::create_dir_all(tree.join(folder).join("inner")).expect("a folder");
        fs::write(tree.join(folder).join("file"), b"bytes").expect("a file");
    }
    let archive = ground.path("tree.catar");
    ok(cairn().args(args!["tar", &archive, &tree]));
    let honest = fs::read(&archive).expect("the archive");
    // The folder's table is the one before the root's: two items and a tail each.
    let marker = 0x5744_6fa5_3370_2943_u64.to_le_bytes();
    let tails: Vec<usize> = (0..honest.len() - 7)
        .filter(|&at| honest[at..at + 8] == marker)
        .collect();
    let tail = tails[tails.len() - 2] - 16;
    let mut seen = 0;
    for field in (tail - 48..tail + 24).step_by(8) {
        for lie in [0, 1, 63, 64, 1 << 20, 1 << 63, u64::MAX] {
            let mut bytes = honest.clone();
            bytes[field..field + 8].copy_from_slice(&lie.to_le_bytes());
            fs::write(&archive, &bytes).expect("the archive");
            let mounted = mount(&archive, None, &mnt);
            assert_eq!(fs::read(mnt.join("good/file")).expect("a good file"), b"bytes");
            let mut errors = 0;
            let listed = fs::read_dir(mnt.join("lies")).map(|entries| {
                entries
                    .filter_map(|entry| entry.map_err(|error| assert!(eio(&error), "{error}")).ok())
                    .count()
            });
            errors += usize::from(!matches!(listed, Ok(2)));
            for name in ["file", "inner", "other"] {
                match fs::symlink_metadata(mnt.join("lies").join(name)) {
                    Ok(_) => {}
                    Err(error) if error.kind() == std::io::ErrorKind::NotFound && name == "other" => {}
                    Err(error) => {
                        assert!(eio(&error) || error.kind() == std::io::ErrorKind::NotFound, "{error}");
                        errors += 1;
                    }
                }
            }
            let words = mounted.end();
            assert!(!words.contains("panicked"), "{words}");
            assert!(
                errors > 0 && words.contains("cairn: "),
                "byte {field} made {lie}: {words}"
            );
            seen += 1;
        }
    }
    assert_eq!(seen, 63);

    // What is no whole archive is not mounted at all.
    for len in [honest.len() - 1, honest.len() - 24, 100, 70] {
        fs::write(&archive, &honest[..len]).expect("the archive");
        let words = refused(cairn().args(args!["mount", &archive, &mnt]));
        assert!(words.contains("archive") || words.contains("GOODBYE"), "{words}");
        assert_gone(&mnt);
    }
    // A file that loses its end while it is mounted is an error too.
    fs::write(&archive, &honest).expect("the archive");
    let mounted = mount(&archive, None, &mnt);
    let file = fs::File::options().write(true).open(&archive).expect("the archive");
    file.set_len(100).expect("a shorter file");
    assert!(eio(&fs::read(mnt.join("good/file")).expect_err("its bytes are gone")));
    file.write_all_at(&honest, 0).expect("the bytes are back");
    assert_eq!(fs::read(mnt.join("good/file")).expect("a good file"), b"bytes");
    mounted.end();
}
