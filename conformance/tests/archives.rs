//! Archives: the bytes are casync's, and each tool puts back what each other one packed, in every direction that both can.
//!
//! `CAIRN_CONFORMANCE_TREES` sets how many random trees are compared (50 unless told, 500 for a release).

mod support;
mod trees;

use std::fs;
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;

use support::{Server, args, cairn, casync, desync, free_port, ok, refused, run};
use trees::{For, Ground, Without, assert_same};

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

/// A tree with one of everything that the named tests need, its archive and where it is restored.
fn archived(ground: &Ground, fill: impl FnOnce(&Path)) -> (std::path::PathBuf, std::path::PathBuf) {
    let tree = ground.path("tree");
    fs::create_dir(&tree).expect("a folder");
    fill(&tree);
    let archive = ground.path("archive.catar");
    ok(cairn().args(args!["tar", archive, tree]));
    (archive, ground.path("out"))
}

#[test]
fn fifos_and_sockets_are_archived_and_none_leaves_an_orphan() {
    let ground = Ground::new();
    let tree = ground.path("tree");
    fs::create_dir(&tree).expect("a folder");
    trees::special(&tree.join("a-fifo"), rustix::fs::FileType::Fifo);
    trees::special(&tree.join("b-socket"), rustix::fs::FileType::Socket);
    fs::write(tree.join("c-file"), b"after them").expect("a file");
    let (archive, out) = (ground.path("archive.catar"), ground.path("out"));
    for style in ["casync", "desync"] {
        ok(cairn().args(args!["tar", "--style", style, archive, tree]));
        ok(cairn().args(args!["untar", "--strict", archive, out]));
        assert_eq!(fs::read(out.join("c-file")).expect("a file"), b"after them");
        assert_eq!(out.join("a-fifo").exists(), style == "casync");
        ground.clear("out");
        ok(casync().args(args!["list", archive]));
    }
    // desync can read the one that is for it.
    fs::create_dir(&out).expect("a folder");
    ok(desync().args(args!["untar", archive, out]));
    assert_eq!(fs::read(out.join("c-file")).expect("a file"), b"after them");
    ground.clear("out");
    // desync's archives have their names alone: what follows stays where it was, and the loss is told.
    ok(desync().args(args!["tar", archive, tree]));
    let told = run(cairn().args(args!["untar", "--strict", archive, out]));
    assert_eq!(told.status.code(), Some(3));
    let words = String::from_utf8_lossy(&told.stderr).into_owned();
    assert!(words.contains("a-fifo") && words.contains("b-socket"), "{words}");
    assert_eq!(fs::read(out.join("c-file")).expect("a file"), b"after them");
}

#[test]
fn a_mount_below_the_source_hides_none_of_its_neighbours() {
    let ground = Ground::new();
    let tree = ground.path("tree");
    fs::create_dir_all(tree.join("b-mount")).expect("folders");
    fs::write(tree.join("a"), b"a").expect("a file");
    fs::write(tree.join("c"), b"c").expect("a file");
    let mount = tree.join("b-mount");
    ok(std::process::Command::new("mount").args(args!["-t", "tmpfs", "none", mount]));
    let (archive, out) = (ground.path("archive.catar"), ground.path("out"));
    fs::write(mount.join("inside"), b"i").expect("a file");
    let mut made = Vec::new();
    for option in ["-x", "--strict"] {
        made.push(run(cairn().args(args!["tar", option, archive, tree])));
        made.push(run(cairn().args(args!["untar", archive, out])));
        assert_eq!(out.join("b-mount/inside").exists(), option != "-x");
        assert!(out.join("a").exists() && out.join("c").exists());
        ground.clear("out");
    }
    ok(std::process::Command::new("umount").arg(&mount));
    assert!(made.iter().all(|output| output.status.success()));
}

#[test]
fn names_of_any_length_and_bytes_are_restored_and_replaced() {
    let ground = Ground::new();
    let names: Vec<Vec<u8>> = (237..=255)
        .map(|len| vec![b'n'; len])
        .chain([
            b"back\\slash".to_vec(),
            b"line\nfeed".to_vec(),
            vec![0xff, 0xfe],
            b"-dash".to_vec(),
        ])
        .collect();
    let path =
        |folder: &Path, name: &[u8]| folder.join(<std::ffi::OsStr as std::os::unix::ffi::OsStrExt>::from_bytes(name));
    let (archive, out) = archived(&ground, |tree| {
        for name in &names {
            fs::write(path(tree, name), name).expect("a file");
        }
    });
    ok(cairn().args(args!["untar", "--strict", archive, out]));
    for name in &names {
        fs::write(path(&out, name), b"other").expect("a file");
    }
    ok(cairn().args(args!["untar", "--strict", archive, out]));
    assert_same(&ground.path("tree"), &out, Without::default(), "names");
}

#[test]
fn attribute_values_keep_every_byte() {
    let ground = Ground::new();
    let (_, out) = archived(&ground, |tree| {
        fs::write(tree.join("file"), b"").expect("a file");
        for (name, value) in [("user.empty", &b""[..]), ("user.nul", b"\0"), ("user.text", b"text")] {
            trees::set(&tree.join("file"), name, value);
        }
    });
    let (tree, archive) = (ground.path("tree"), ground.path("archive.catar"));
    for style in ["casync", "desync"] {
        ok(cairn().args(args!["tar", "--style", style, archive, tree]));
        ok(cairn().args(args!["untar", "--strict", archive, out]));
        assert_same(&tree, &out, Without::default(), style);
        ground.clear("out");
    }
    ok(desync().args(args!["tar", archive, tree]));
    ok(cairn().args(args!["untar", "--strict", archive, out]));
    assert_same(&tree, &out, Without::default(), "desync");
}

#[test]
fn an_update_touches_only_what_changed() {
    let ground = Ground::new();
    let (archive, out) = archived(&ground, |tree| {
        for number in 0..40 {
            fs::write(tree.join(format!("file{number}")), support::input(number, 50_000)).expect("a file");
        }
        fs::create_dir(tree.join("folder")).expect("a folder");
        std::os::unix::fs::symlink("target", tree.join("link")).expect("a link");
    });
    let tree = ground.path("tree");
    ok(cairn().args(args!["untar", archive, out]));
    let state = |name: &str| {
        let meta = fs::symlink_metadata(out.join(name)).expect("an entry");
        (meta.ino(), meta.ctime(), meta.ctime_nsec())
    };
    let names: Vec<String> = (0..40).map(|number| format!("file{number}")).collect();
    let before: Vec<_> = names.iter().map(|name| state(name)).collect();
    let others = (state("link"), state("folder"));
    let mut changed = support::input(7, 50_000);
    changed[30_000] ^= 1;
    fs::write(tree.join("file7"), &changed).expect("a file");
    fs::write(out.join("extra"), b"x").expect("a file");
    fs::create_dir_all(out.join("folder-extra/below")).expect("folders");
    ok(cairn().args(args!["tar", archive, tree]));
    let told = ok(cairn().args(args!["--json", "untar", archive, out]));
    let told: serde_json::Value = serde_json::from_slice(&told.stderr).expect("JSON");
    assert_eq!(
        (told["files-written"].as_u64(), told["files-unchanged"].as_u64()),
        (Some(1), Some(39))
    );
    for (name, before) in names.iter().zip(before) {
        assert_eq!(state(name) == before, name != "file7", "{name}");
    }
    assert_eq!((state("link"), state("folder")), others);
    assert_eq!(fs::read(out.join("file7")).expect("a file"), changed);
    assert!(out.join("extra").exists() && out.join("folder-extra/below").exists());
    ok(cairn().args(args!["untar", "--delete", archive, out]));
    assert_same(&tree, &out, Without::default(), "with --delete");
}

#[test]
fn every_kind_is_replaced_by_every_other_and_nothing_is_followed() {
    let ground = Ground::new();
    let outside = ground.path("outside");
    fs::create_dir(&outside).expect("a folder");
    fs::write(outside.join("kept"), b"kept").expect("a file");
    let kinds = ["file", "folder", "link", "fifo", "dangling"];
    let make = |path: &Path, kind: &str| match kind {
        "file" => fs::write(path, kind).expect("a file"),
        "folder" => fs::create_dir(path).expect("a folder"),
        "link" => std::os::unix::fs::symlink(&outside, path).expect("a link"),
        "dangling" => std::os::unix::fs::symlink(outside.join("made"), path).expect("a link"),
        _ => trees::special(path, rustix::fs::FileType::Fifo),
    };
    let (archive, out) = archived(&ground, |tree| {
        for old in kinds {
            for new in kinds {
                make(&tree.join(format!("{old}-{new}")), new);
            }
        }
        // A folder with an entry, where there will be a link to a folder.
        fs::write(tree.join("link-folder/kept"), b"mine").expect("a file");
    });
    fs::create_dir(&out).expect("a folder");
    for old in kinds {
        for new in kinds {
            make(&out.join(format!("{old}-{new}")), old);
        }
    }
    ok(cairn().args(args!["untar", "--strict", archive, out]));
    assert_same(&ground.path("tree"), &out, Without::default(), "replaced");
    assert_eq!(fs::read(outside.join("kept")).expect("a file"), b"kept");
    assert!(!outside.join("made").exists());
    // A folder with something in it goes only when it may.
    let full = out.join("folder-file");
    fs::remove_file(&full).expect("a file");
    fs::create_dir(&full).expect("a folder");
    fs::write(full.join("mine"), b"mine").expect("a file");
    let words = refused(cairn().args(args!["untar", archive, out]));
    assert!(words.contains("folder-file") && words.contains("--delete"), "{words}");
    assert!(full.join("mine").exists());
    ok(cairn().args(args!["untar", "--delete", archive, out]));
    assert_same(&ground.path("tree"), &out, Without::default(), "replaced with --delete");
}

#[test]
fn a_cut_archive_is_an_error_wherever_it_is_cut() {
    let ground = Ground::new();
    let (archive, out) = archived(&ground, |tree| {
        fs::create_dir(tree.join("folder")).expect("a folder");
        fs::write(tree.join("folder/file"), vec![7; 3000]).expect("a file");
        fs::write(tree.join("last"), b"").expect("a file");
    });
    let whole = fs::read(&archive).expect("an archive");
    let cut = ground.path("cut.catar");
    for len in (0..whole.len()).step_by(37).chain([whole.len() - 1]) {
        fs::write(&cut, &whole[..len]).expect("an archive");
        let words = refused(cairn().args(args!["untar", cut, out]));
        assert!(words.contains("cut short") && words.contains("byte"), "{len}: {words}");
        ground.clear("out");
    }
    fs::write(&cut, [&whole[..], b"more"].concat()).expect("an archive");
    let words = refused(cairn().args(args!["untar", cut, out]));
    assert!(words.contains(&format!("byte {}", whole.len())), "{words}");
}

#[test]
fn archives_in_any_order_lose_nothing_and_delete_nothing_restored() {
    // desync keeps the order of a tar; casync removes what it has just restored from such archives.
    let ground = Ground::new();
    let tree = ground.path("tree");
    fs::create_dir(&tree).expect("a folder");
    for name in ["z", "a", "m", "b"] {
        fs::write(tree.join(name), name).expect("a file");
    }
    let (tar, archive, out) = (ground.path("t.tar"), ground.path("archive.catar"), ground.path("out"));
    let unsorted = args![
        "--no-recursion",
        "-C",
        tree,
        "-cf",
        tar,
        ".",
        "./z",
        "./a",
        "./m",
        "./b"
    ];
    ok(std::process::Command::new("tar").args(unsorted));
    ok(desync().args(args!["tar", "--input-format", "tar", archive, tar]));
    ok(cairn().args(args!["untar", "--delete", archive, out]));
    for name in ["z", "a", "m", "b"] {
        assert_eq!(fs::read(out.join(name)).expect("a file"), name.as_bytes());
    }
}

#[test]
fn capabilities_acls_labels_and_names_are_not_lost() {
    let ground = Ground::new();
    let (archive, out) = archived(&ground, |tree| {
        let file = tree.join("file");
        fs::write(&file, b"x").expect("a file");
        std::os::unix::fs::chown(&file, Some(1), Some(2)).expect("an owner");
        trees::set(
            &file,
            "security.capability",
            &[1, 0, 0, 2, 0, 0x20, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0],
        );
        trees::set(&file, "security.selinux", b"a:b:c:s0\0");
        let acl = [
            &[2, 0, 0, 0][..],
            &[1, 0, 6, 0, 255, 255, 255, 255],
            &[2, 0, 4, 0, 1, 0, 0, 0],
            &[4, 0, 4, 0, 255, 255, 255, 255],
            &[16, 0, 6, 0, 255, 255, 255, 255],
            &[32, 0, 4, 0, 255, 255, 255, 255],
        ]
        .concat();
        trees::set(&file, "system.posix_acl_access", &acl);
        let set_id = tree.join("setuid");
        fs::write(&set_id, b"x").expect("a file");
        std::os::unix::fs::chown(&set_id, Some(3), Some(4)).expect("an owner");
        fs::set_permissions(&set_id, std::os::unix::fs::PermissionsExt::from_mode(0o6755)).expect("a mode");
        fs::create_dir(tree.join("read-only")).expect("a folder");
        fs::write(tree.join("read-only/inside"), b"x").expect("a file");
        fs::set_permissions(
            tree.join("read-only"),
            std::os::unix::fs::PermissionsExt::from_mode(0o555),
        )
        .expect("a mode");
    });
    ok(cairn().args(args!["untar", "--strict", archive, out]));
    assert_same(&ground.path("tree"), &out, Without::default(), "faithful");
    let bytes = fs::read(&archive).expect("an archive");
    assert!(bytes.windows(7).any(|window| window == b"daemon\0"), "no owner's name");
    // What cannot be restored is named, and with --strict the exit code says it.
    ok(cairn().args(args![
        "untar",
        "--no-same-owner",
        "--no-same-permissions",
        "--no-same-xattrs",
        archive,
        ground.path("plain")
    ]));
    let plain = fs::metadata(ground.path("plain/setuid")).expect("a file");
    assert_eq!((plain.uid(), plain.mode() & 0o7000), (0, 0));
}

#[test]
fn equal_files_become_links_on_request() {
    let ground = Ground::new();
    let (archive, out) = archived(&ground, |tree| {
        fs::write(tree.join("a"), vec![5; 5000]).expect("a file");
        fs::create_dir(tree.join("folder")).expect("a folder");
        fs::hard_link(tree.join("a"), tree.join("folder/b")).expect("a link");
        let other = fs::File::create(tree.join("other")).expect("a file");
        std::io::Write::write_all(&mut &other, &[5; 5000]).expect("a file");
        other.set_modified(std::time::UNIX_EPOCH).expect("a time");
    });
    let inode = |name: &str| fs::metadata(out.join(name)).expect("a file").ino();
    ok(cairn().args(args!["untar", archive, out]));
    assert_ne!(inode("a"), inode("folder/b"));
    ok(cairn().args(args!["untar", "--hardlinks", archive, out]));
    assert_eq!(inode("a"), inode("folder/b"));
    // Another time is another file.
    assert_ne!(inode("a"), inode("other"));
    assert_same(&ground.path("tree"), &out, Without::default(), "links");
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
fn a_file_that_loses_bytes_while_it_is_read_is_an_error_that_names_it() {
    let ground = Ground::new();
    let tree = ground.path("tree");
    fs::create_dir(&tree).expect("a folder");
    // A file of procfs's kind says another length than it has: the virtual file system's content is left out, and a file
    // that is cut while a full pipe holds the reader back ends early.
    let file = tree.join("shrinking");
    fs::write(&file, vec![1; 8 << 20]).expect("a file");
    let mut child = cairn()
        .args(args!["tar", "-", tree])
        .stdout(std::process::Stdio::piped())
        .stderr(std::process::Stdio::piped())
        .spawn()
        .expect("our own program");
    let mut pipe = child.stdout.take().expect("it is piped");
    let mut first = [0; 1];
    std::io::Read::read_exact(&mut pipe, &mut first).expect("a byte");
    fs::File::options()
        .write(true)
        .open(&file)
        .expect("a file")
        .set_len(4 << 20)
        .expect("shorter");
    let mut rest = Vec::new();
    std::io::Read::read_to_end(&mut pipe, &mut rest).expect("the rest");
    let output = child.wait_with_output().expect("our own child");
    let words = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(1), "{words}");
    assert!(words.contains("shrinking") && words.contains("lost"), "{words}");
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

/// An old tree of which 5 % changed fetches what changed, touches only that, and needs no index of what is there.
#[test]
fn an_update_of_an_old_tree_fetches_only_what_changed() {
    const FILES: usize = 200;
    let ground = Ground::new();
    let (tree, store, index) = (ground.path("tree"), ground.path("store"), ground.path("t.caidx"));
    let (out, fresh) = (ground.path("out"), ground.path("fresh"));
    fs::create_dir(&store).expect("a folder");
    for number in 0..FILES {
        let folder = tree.join(format!("folder{}", number % 7));
        fs::create_dir_all(&folder).expect("a folder");
        let content = support::input(number as u64, 20_000 + 1000 * (number % 90));
        fs::write(folder.join(format!("file{number}")), content).expect("a file");
    }
    ok(cairn().args(args!["tar", "-i", "-s", store, index, tree]));
    ok(cairn().args(args!["untar", "-i", "-s", store, index, out]));
    let path = |root: &Path, number: usize| root.join(format!("folder{}/file{number}", number % 7));
    let state = |number: usize| {
        let meta = fs::metadata(path(&out, number)).expect("a file");
        (
            meta.ino(),
            meta.mtime(),
            meta.mtime_nsec(),
            meta.ctime(),
            meta.ctime_nsec(),
        )
    };
    let before: Vec<_> = (0..FILES).map(state).collect();
    let changed = |number: usize| number % 20 == 5;
    for number in (0..FILES).filter(|number| changed(*number)) {
        let mut content = fs::read(path(&tree, number)).expect("a file");
        content[10_000..10_100].fill(number as u8);
        fs::write(path(&tree, number), content).expect("a file");
    }
    ok(cairn().args(args!["tar", "-i", "-s", store, index, tree]));
    let told = |command: &mut std::process::Command| -> serde_json::Value {
        serde_json::from_slice(&ok(command).stderr).expect("JSON")
    };
    let whole = told(cairn().args(args![
        "--json",
        "untar",
        "-i",
        "-s",
        store,
        "--no-target-seed",
        "--seed",
        out,
        index,
        fresh
    ]));
    // The cost is known before, and nothing happens yet.
    let planned = ok(cairn().args(args!["--json", "untar", "--dry-run", "-i", "-s", store, index, out]));
    let planned: serde_json::Value = serde_json::from_slice(&planned.stdout).expect("JSON");
    let update = told(cairn().args(args!["--json", "untar", "-i", "-s", store, index, out]));
    assert_eq!(planned["chunks-from-store"], update["chunks-from-store"]);
    for report in [&whole, &update] {
        let (store, seeds) = (
            report["chunks-from-store"].as_u64(),
            report["chunks-from-seeds"].as_u64(),
        );
        assert!(store > Some(0) && store.map(|store| 5 * store) < seeds, "{report}");
    }
    assert_eq!(update["files-written"], 10);
    for (number, before) in before.into_iter().enumerate() {
        assert_eq!(state(number) == before, !changed(number), "file {number}");
    }
    assert_same(&tree, &out, Without::default(), "updated");
    assert_same(&tree, &fresh, Without::default(), "from a seed");
    // A seed is not believed, and any file will do: here the archive itself, and one with garbage.
    let (archive, garbage) = (ground.path("t.catar"), ground.path("garbage"));
    ok(cairn().args(args!["tar", archive, tree]));
    fs::write(&garbage, support::input(99, 300_000)).expect("a file");
    ground.clear("fresh");
    let report = told(cairn().args(args![
        "--json", "untar", "-i", "-s", store, "--seed", garbage, "--seed", archive, index, fresh
    ]));
    assert_eq!(report["chunks-from-store"], 0);
    assert_same(&tree, &fresh, Without::default(), "from its archive");
}

#[test]
fn tar_files_become_archives_with_the_content_of_hard_links() {
    let ground = Ground::new();
    let tree = ground.path("tree");
    fs::create_dir_all(tree.join("folder")).expect("folders");
    fs::write(tree.join("first"), support::input(5, 70_000)).expect("a file");
    fs::hard_link(tree.join("first"), tree.join("folder/second")).expect("a link");
    fs::write(tree.join(format!("folder/{}", "n".repeat(200))), b"long").expect("a file");
    std::os::unix::fs::symlink("t".repeat(150), tree.join("link")).expect("a link");
    trees::special(&tree.join("fifo"), rustix::fs::FileType::Fifo);
    let sparse = fs::File::create(tree.join("sparse")).expect("a file");
    std::os::unix::fs::FileExt::write_all_at(&sparse, b"end", 900_000).expect("a file");
    std::os::unix::fs::chown(tree.join("first"), Some(1), Some(70_000)).expect("an owner");
    trees::set(&tree.join("first"), "user.kept", b"value");
    trees::set(
        &tree.join("first"),
        "security.capability",
        &[1, 0, 0, 2, 0, 0x20, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0],
    );
    let (tar, archive, out) = (ground.path("t.tar"), ground.path("t.catar"), ground.path("out"));
    let xattrs = ["--xattrs", "--xattrs-include=*", "--acls"];
    for form in [
        &xattrs[..],
        &["--format=posix", "--sparse"],
        &["--format=gnu", "--sparse"],
        &["--format=ustar", "--exclude=nnn*", "--exclude=link"],
    ] {
        let mut command = std::process::Command::new("tar");
        command.args(form).arg("--sort=none");
        ok(command.args(args!["-C", tree, "-cf", tar, "."]));
        ok(cairn().args(args!["tar", "--input-format", "tar", archive, tar]));
        ok(cairn().args(args!["untar", "--strict", archive, out]));
        let read = |path: &str| fs::read(out.join(path)).expect("a file");
        assert!(
            read("first") == support::input(5, 70_000) && read("folder/second") == read("first"),
            "{form:?}"
        );
        assert!(read("sparse") == fs::read(tree.join("sparse")).expect("a file"));
        if form == xattrs {
            assert_same(&tree, &out, Without::default(), "from a tar");
            // In memory and through a pipe it is the same archive, which casync takes.
            let again = ground.path("again.catar");
            let mut command = cairn();
            command.args(args!["tar", "--input-format", "tar", again, "-"]);
            command.stdin(fs::File::open(&tar).expect("a tar"));
            assert!(command.status().expect("our own program").success());
            assert!(fs::read(&again).expect("an archive") == fs::read(&archive).expect("an archive"));
            ok(casync().args(args!["list", archive]));
        }
        ground.clear("out");
    }
    // Names that leave the root are refused.
    let words = ground.path("evil.tar");
    ok(std::process::Command::new("tar").args(args!["-P", "-C", tree.join("folder"), "-cf", words, "../first"]));
    let words = refused(cairn().args(args!["tar", "--input-format", "tar", archive, words]));
    assert!(words.contains("../first"), "{words}");
}

#[test]
fn archives_become_tar_files_that_gnu_tar_restores() {
    let ground = Ground::new();
    let (tree, archive, tar, out) = (
        ground.path("tree"),
        ground.path("t.catar"),
        ground.path("t.tar"),
        ground.path("out"),
    );
    for seed in [11, 12, 13] {
        trees::make(&tree, seed, For::Plain);
        ok(cairn().args(args!["tar", archive, tree]));
        ok(cairn().args(args!["untar", "--output-format", "tar", archive, tar]));
        fs::create_dir(&out).expect("a folder");
        let mut command = std::process::Command::new("tar");
        command.args([
            "--xattrs",
            "--xattrs-include=*",
            "--acls",
            "--same-owner",
            "-p",
            "--numeric-owner",
        ]);
        ok(command.args(args!["-C", out, "-xf", tar]));
        assert_same(&tree, &out, Without::default(), &format!("by tar, tree {seed}"));
        // And back: the same archive.
        let again = ground.path("again.catar");
        ok(cairn().args(args!["tar", "--input-format", "gnu-tar", again, tar]));
        assert!(
            fs::read(&again).expect("an archive") == fs::read(&archive).expect("an archive"),
            "tree {seed}"
        );
        ground.clear("out");
        ground.clear("tree");
    }
}

#[test]
fn trees_deeper_than_paths_and_handle_limits_go_both_ways() {
    const LEVELS: usize = 1500;
    let ground = Ground::new();
    let (tree, archive, out, again) = (
        ground.path("tree"),
        ground.path("t.catar"),
        ground.path("out"),
        ground.path("again.catar"),
    );
    fs::create_dir(&tree).expect("a folder");
    // The soft limit that most systems give is too low for either way.
    let limited = || {
        let mut command = std::process::Command::new("sh");
        command
            .args(["-c", "ulimit -Sn 256; exec \"$0\" \"$@\""])
            .arg(support::built("cairn"));
        command
    };
    let open = |fd: std::os::fd::BorrowedFd<'_>| {
        let how = rustix::fs::OFlags::DIRECTORY | rustix::fs::OFlags::RDONLY;
        rustix::fs::openat(fd, "level", how, rustix::fs::Mode::empty()).expect("a folder")
    };
    let mut fd = std::os::fd::OwnedFd::from(fs::File::open(&tree).expect("a folder"));
    for _ in 0..LEVELS {
        let mode = rustix::fs::Mode::from_raw_mode(0o755);
        rustix::fs::mkdirat(&fd, "level", mode).expect("a folder");
        fd = open(std::os::fd::AsFd::as_fd(&fd));
    }
    ok(limited().args(args!["tar", archive, tree]));
    ok(limited().args(args!["untar", "--strict", archive, out]));
    ok(limited().args(args!["tar", again, out]));
    assert!(fs::read(&again).expect("an archive") == fs::read(&archive).expect("an archive"));
    // Replacing it all by a file removes it by handles too.
    fs::remove_file(&archive).expect("an archive");
    let flat = ground.path("flat");
    fs::create_dir(&flat).expect("a folder");
    fs::write(flat.join("level"), b"a file").expect("a file");
    ok(limited().args(args!["tar", archive, flat]));
    ok(limited().args(args!["untar", "--delete", archive, out]));
    assert_same(&flat, &out, Without::default(), "replaced");
    ok(limited().args(args!["untar", "--delete", archive, tree]));
}

#[test]
fn locked_files_are_restored_last_and_replaced_on_request() {
    use rustix::fs::{IFlags, ioctl_getflags, ioctl_setflags};
    let ground = Ground::new();
    let lock = |path: &Path, flags: IFlags| {
        let file = fs::File::open(path).expect("a file");
        ioctl_setflags(&file, ioctl_getflags(&file).expect("bits") | flags).expect("bits");
    };
    let tree = ground.path("tree");
    fs::create_dir_all(tree.join("folder")).expect("folders");
    fs::write(tree.join("folder/file"), b"old").expect("a file");
    fs::write(tree.join("append"), b"old").expect("a file");
    lock(&tree.join("append"), IFlags::APPEND);
    lock(&tree.join("folder/file"), IFlags::IMMUTABLE);
    lock(&tree.join("folder"), IFlags::IMMUTABLE);
    let (archive, out) = (ground.path("t.catar"), ground.path("out"));
    ok(cairn().args(args!["tar", archive, tree]));
    ok(cairn().args(args!["untar", "--strict", archive, out]));
    assert_same(&tree, &out, Without::default(), "locked");
    // Nothing changed: nothing is in the way.
    ok(cairn().args(args!["untar", "--strict", archive, out]));
    ground.clear("tree");
    fs::create_dir_all(tree.join("folder")).expect("folders");
    fs::write(tree.join("folder/file"), b"newer").expect("a file");
    fs::write(tree.join("append"), b"new").expect("a file");
    ok(cairn().args(args!["tar", archive, tree]));
    let words = refused(cairn().args(args!["untar", archive, out]));
    assert!(words.contains("append") && words.contains("not permitted"), "{words}");
    ok(cairn().args(args!["untar", "--strict", "--undo-immutable", archive, out]));
    assert_same(&tree, &out, Without::default(), "unlocked");
}
