//! Every kind of entry, and all that an archive keeps of one, comes back as it was.

use std::fs;
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;

use cairn_conformance::support::{self, args, cairn, casync, desync, ok, run};
use cairn_conformance::trees::{self, Ground, Without, assert_same};

use crate::archived;

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
