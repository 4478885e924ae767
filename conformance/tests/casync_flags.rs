//! casync's own flags: the same bytes, owners and lines as the real casync for each that both have, and a row in `docs/cli.md`
//! for each that it has.
//!
//! These tests need root; mounts need `/dev/fuse`.

use std::fs;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
use std::path::Path;

use cairn_conformance::mounted::Mount;
use cairn_conformance::support::{args, cairn, casync, input, ok, refused};
use cairn_conformance::trees::{self, Ground};
use rustix::fs::FileType;

/// Owner and group of every entry, links not followed.
fn owners(root: &Path) -> Vec<(String, u32, u32)> {
    let mut found = Vec::new();
    let mut paths = vec![root.to_owned()];
    while let Some(path) = paths.pop() {
        let meta = fs::symlink_metadata(&path).expect("an inode");
        let below = path.strip_prefix(root).expect("it is below").display().to_string();
        found.push((below, meta.uid(), meta.gid()));
        if meta.is_dir() {
            paths.extend(
                fs::read_dir(&path)
                    .expect("a folder")
                    .flatten()
                    .map(|entry| entry.path()),
            );
        }
    }
    found.sort();
    found
}

/// A tree whose owners have numbers of all kinds, those of a container that begins at `first` among them.
fn owned(tree: &Path, first: u32) {
    fs::create_dir(tree).expect("a folder");
    std::os::unix::fs::chown(tree, Some(first), Some(first)).expect("an owner");
    for (uid, gid) in [(0, 0), (5, 2), (65_534, 1000), (70_000, 4000), (131_073, 65_536)] {
        let path = tree.join(format!("f{uid}"));
        fs::write(&path, b"x").expect("a file");
        let acl = [
            &[2, 0, 0, 0][..],
            &[1, 0, 6, 0, 255, 255, 255, 255],
            &[&[2, 0, 4, 0][..], &(first + 90_000).to_le_bytes()].concat(),
            &[&[2, 0, 6, 0][..], &(first + 90_001).to_le_bytes()].concat(),
            &[4, 0, 4, 0, 255, 255, 255, 255],
            &[16, 0, 6, 0, 255, 255, 255, 255],
            &[32, 0, 4, 0, 255, 255, 255, 255],
        ]
        .concat();
        trees::set(&path, "system.posix_acl_access", &acl);
        std::os::unix::fs::chown(&path, Some(first + uid), Some(first + gid)).expect("an owner");
    }
    std::os::unix::fs::symlink("f0", tree.join("link")).expect("a link");
    std::os::unix::fs::lchown(tree.join("link"), Some(first + 33), Some(first + 33)).expect("an owner");
}

#[test]
fn owners_numbers_are_shifted_as_casync_shifts_them() {
    let ground = Ground::new();
    let (ours, theirs) = (ground.path("ours.catar"), ground.path("theirs.catar"));
    let (tree, out, other) = (ground.path("tree"), ground.path("out"), ground.path("other"));
    for (first, flags) in [
        (0, &["--uid-shift=yes"][..]),
        (0, &["--uid-shift=no"]),
        (0, &["--uid-range=1000"]),
        (0, &["--uid-range=4294967296"]),
        (100_000, &["--uid-shift=100000"]),
        (100_000, &["--uid-shift=100000", "--uid-range=4294967296"]),
        (3_000_000_000, &["--uid-shift=3000000000", "--uid-range=70000"]),
    ] {
        owned(&tree, first);
        ok(cairn().arg("tar").args(flags).args(args![ours, tree]));
        ok(casync().args(flags).args(args!["make", theirs, tree]));
        assert!(
            fs::read(&ours).expect("an archive") == fs::read(&theirs).expect("an archive"),
            "tar {flags:?}"
        );
        // What was shifted away comes back with the same flags, and whatever the archive with any.
        for archive in [&ours, &theirs] {
            ok(cairn()
                .args(["untar", "--strict"])
                .args(flags)
                .args(args![archive, out]));
            ok(casync().args(flags).args(args!["extract", archive, other]));
            assert_eq!(owners(&out), owners(&other), "untar {flags:?}");
            let acl = |root: &Path| {
                let mut value = [0; 200];
                let path = root.join("f70000");
                let len = rustix::fs::getxattr(&path, "system.posix_acl_access", &mut value[..]).expect("an ACL");
                value[..len].to_vec()
            };
            assert_eq!(acl(&out), acl(&other), "the ACL, untar {flags:?}");
            // Nothing is left to do for a second run.
            let changed = fs::symlink_metadata(out.join("f70000")).expect("a file");
            ok(cairn()
                .args(["untar", "--strict"])
                .args(flags)
                .args(args![archive, out]));
            let again = fs::symlink_metadata(out.join("f70000")).expect("a file");
            assert_eq!(
                (changed.ctime(), changed.ctime_nsec()),
                (again.ctime(), again.ctime_nsec()),
                "{flags:?}"
            );
            ground.clear("out");
            ground.clear("other");
        }
        ground.clear("tree");
    }
    // A number that is below the shift: casync says "Invalid argument".
    owned(&tree, 100_000);
    fs::write(tree.join("below"), b"x").expect("a file");
    refused(casync().args(args!["--uid-shift=100000", "make", theirs, tree]));
    let words = refused(cairn().args(args!["tar", "--uid-shift=100000", ours, tree]));
    assert!(words.contains("below") && words.contains("number 0"), "{words}");
    assert_eq!(words.trim_end().lines().count(), 1, "{words}");
    for wrong in [
        "--uid-shift=-1",
        "--uid-shift=65535",
        "--uid-range=4294967297",
        "--uid-range=x",
    ] {
        refused(casync().args(args![wrong, "make", theirs, tree]));
        refused(cairn().args(args!["tar", wrong, ours, tree]));
    }
}

#[test]
fn lists_without_what_is_below_are_casyncs() {
    let ground = Ground::new();
    let (tree, archive) = (ground.path("tree"), ground.path("t.catar"));
    fs::create_dir_all(tree.join("folder/below")).expect("folders");
    fs::write(tree.join("folder/file"), b"x").expect("a file");
    ok(casync().args(args!["make", archive, tree]));
    for choice in ["yes", "no", "true", "off", "1"] {
        let flag = format!("--recursive={choice}");
        let ours = ok(cairn().args(args!["list", flag, archive])).stdout;
        let theirs = ok(casync().args(args![flag, "list", archive])).stdout;
        assert_eq!(
            String::from_utf8_lossy(&ours),
            String::from_utf8_lossy(&theirs),
            "{flag}"
        );
    }
}

#[test]
fn the_folder_of_a_mount_is_made_unless_told_otherwise() {
    let ground = Ground::new();
    let (tree, archive) = (ground.path("tree"), ground.path("t.catar"));
    fs::create_dir(&tree).expect("a folder");
    fs::write(tree.join("file"), b"x").expect("a file");
    ok(casync().args(args!["make", archive, tree]));
    let mnt = ground.path("mnt");
    for command in [
        &mut *casync().args(args!["--mkdir=no", "mount", archive, mnt]),
        &mut *cairn().args(args!["mount", "--mkdir=no", archive, mnt]),
    ] {
        refused(command);
        assert!(!mnt.exists());
    }
    for flag in ["--mkdir=yes", "--mkdir"] {
        let mounted = Mount::start(cairn().args(args!["mount", flag, archive, mnt]), &mnt);
        assert_eq!(fs::read(mnt.join("file")).expect("a file"), b"x");
        mounted.end();
        fs::remove_dir(&mnt).expect("the folder that was made");
    }
    // What is no archive makes no folder.
    refused(cairn().args(args!["mount", tree.join("file"), mnt]));
    assert!(!mnt.exists());
}

/// Goal: the lines that casync, and we, write about a tree give the archive of the tree; lines that lie are refused.
#[test]
fn lines_of_mtree_with_files_beside_them_become_the_archive() {
    let ground = Ground::new();
    let tree = ground.path("tree");
    fs::create_dir_all(tree.join("folder/with space")).expect("folders");
    fs::write(tree.join("folder/file"), input(3, 500_000)).expect("a file");
    fs::write(tree.join("folder/with space/b\\ack"), b"x").expect("a file");
    fs::write(tree.join("empty"), b"").expect("a file");
    std::os::unix::fs::chown(tree.join("empty"), Some(1), Some(70_000)).expect("an owner");
    fs::set_permissions(tree.join("empty"), fs::Permissions::from_mode(0o4711)).expect("a mode");
    std::os::unix::fs::symlink("folder/file", tree.join("link")).expect("a link");
    trees::special(&tree.join("fifo"), FileType::Fifo);
    let (ours, theirs, lines) = (
        ground.path("ours.catar"),
        ground.path("theirs.catar"),
        ground.path("lines"),
    );
    ok(casync().args(args!["make", theirs, tree]));
    let from_mtree = |name: &Path| {
        let mut command = cairn();
        command.args(args!["tar", "--input-format", "mtree", ours, name]);
        command
    };
    // The lines of either, beside the files.
    let beside = tree.join("lines");
    for mut command in [cairn(), casync()] {
        let text = ok(command.args(args!["mtree", theirs])).stdout;
        // casync invents attributes for FIFOs.
        let text = String::from_utf8(text).expect("names of ours");
        let plain: String = text
            .lines()
            .map(|line| match line.split_once(" flags=") {
                Some((before, rest)) if line.contains("type=fifo") => {
                    format!("{before} {}\n", rest.split_once(' ').map_or("", |(_, rest)| rest))
                }
                _ => format!("{line}\n"),
            })
            .collect();
        fs::write(&beside, plain).expect("the lines");
        ok(&mut from_mtree(&beside));
        assert!(
            fs::read(&ours).expect("an archive") == fs::read(&theirs).expect("an archive"),
            "{command:?}"
        );
    }
    // As the BSDs write them: names in folders that are entered and left, bytes from elsewhere.
    let nested = "#mtree\n/set type=file uid=0 gid=0 mode=0644\n. type=dir mode=0755\n    sub type=dir mode=0700\n        \
                  copy size=1 contents=tree/folder/with\\040space/b\\134ack\n    ..\n    last size=0 contents=tree/empty\n..\n";
    fs::write(&lines, nested).expect("the lines");
    ok(&mut from_mtree(&lines));
    let out = ground.path("out");
    ok(cairn().args(args!["untar", "--strict", ours, out]));
    assert_eq!(fs::read(out.join("sub/copy")).expect("a file"), b"x");
    assert_eq!(fs::metadata(out.join("sub")).expect("a folder").mode() & 0o7777, 0o700);
    assert_eq!(fs::metadata(out.join("last")).expect("a file").len(), 0);
    // Through a pipe the files are in the working folder, and in chunks it is the same archive.
    let (store, index) = (ground.path("store"), ground.path("t.caidx"));
    fs::create_dir(&store).expect("a folder");
    let mut piped = cairn();
    piped
        .current_dir(ground.path(""))
        .args(args!["tar", "-i", "-s", store, "--input-format", "mtree", index, "-"])
        .stdin(fs::File::open(&lines).expect("the lines"));
    assert!(piped.status().expect("our own program").success());
    ground.clear("out");
    ok(cairn().args(args!["untar", "-i", "-s", store, index, out]));
    assert_eq!(fs::read(out.join("sub/copy")).expect("a file"), b"x");

    let digest = "0".repeat(64);
    for (text, word) in [
        ("absent type=file size=1\n".to_owned(), "absent"),
        ("tree/folder/file type=file size=3\n".to_owned(), "3 bytes"),
        (
            format!("tree/folder/file type=file size=500000 sha512256digest={digest}\n"),
            "digest",
        ),
        (format!("tree/empty type=file size=0 sha256digest={digest}\n"), "digest"),
        ("../lines type=file size=1\n".to_owned(), "line 1"),
        ("\nfile type=file\n".to_owned(), "line 2"),
        ("link type=link link=x\nlink/below type=fifo\n".to_owned(), "no folder"),
    ] {
        fs::write(&lines, &text).expect("the lines");
        fs::remove_file(&ours).ok();
        let words = refused(&mut from_mtree(&lines));
        assert!(words.contains(word), "{text}: {words}");
        assert!(!ours.exists(), "{text}");
    }
}

#[test]
fn every_flag_of_casync_has_a_row() {
    let page = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/cli.md");
    let page = fs::read_to_string(page).expect("docs/cli.md");
    let (_, chapter) = page.split_once("## casync's own command line\n").expect("the chapter");
    let rows: String = chapter
        .lines()
        .filter_map(|row| {
            row.strip_prefix("| ")?
                .split(" | ")
                .next()
                .map(|cell| format!("{cell}\n"))
        })
        .collect();
    let help = ok(casync().arg("--help")).stdout;
    let help = String::from_utf8(help).expect("UTF-8");
    let mut flags = 0;
    for word in help.split_whitespace().filter(|word| word.starts_with("--")) {
        let flag = word.split(['=', '[', ',']).next().unwrap_or(word);
        assert!(
            rows.contains(&format!("`{flag}`")),
            "docs/cli.md has no row for casync's {flag}"
        );
        flags += 1;
    }
    assert!(flags > 30, "casync's help was read: {help}");
}
