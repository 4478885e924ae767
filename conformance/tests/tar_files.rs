//! Tar files in and out: the archive is the one that the unpacked tree would give, and GNU tar restores what comes out.

use std::fs;
use std::os::unix::fs::FileExt as _;
use std::path::Path;
use std::process::Command;

use cairn_conformance::support::{self, args, cairn, casync, ok, refused};
use cairn_conformance::trees::{self, For, Ground, Without, assert_same};

fn tar() -> Command {
    Command::new("tar")
}

#[track_caller]
fn assert_same_file(a: &Path, b: &Path) {
    let (one, other) = (fs::read(a).expect("a file"), fs::read(b).expect("a file"));
    let differ = one.iter().zip(&other).position(|(a, b)| a != b);
    assert!(one == other, "{} and {} differ at {differ:?}", a.display(), b.display());
}

/// What tars have no place for.
const NOT_IN_TARS: [&str; 2] = ["--without=chattr", "--without=quota-projid"];

/// A random tree without sockets (tars have none), with a hard link and a sparse file.
fn tree(ground: &Ground, seed: u64) -> std::path::PathBuf {
    let tree = ground.path("tree");
    trees::make(&tree, seed, For::CasyncMakes);
    ok(Command::new("find").arg(&tree).args(["-type", "s", "-delete"]));
    fs::write(tree.join("linked"), "two names").expect("a file");
    fs::hard_link(tree.join("linked"), tree.join("a second name of it")).expect("a link");
    let sparse = fs::File::create(tree.join("sparse")).expect("a file");
    sparse.set_len(3_000_000).expect("a length");
    for at in [70_000, 1_500_000, 2_999_000] {
        sparse.write_all_at(b"not zeros", at).expect("written");
    }
    tree
}

#[test]
fn a_posix_tar_gives_the_archive_of_its_tree() {
    let ground = Ground::new();
    for seed in 0..5 {
        let tree = tree(&ground, seed);
        let (file, theirs, ours) = (
            ground.path("tree.tar"),
            ground.path("theirs.catar"),
            ground.path("ours.catar"),
        );
        ok(tar()
            .args([
                "--format=posix",
                "--xattrs",
                "--xattrs-include=*",
                "--numeric-owner",
                "-cf",
            ])
            .args(args![file, "-C", tree, "."]));
        // By number: a tar of numbers has no names.
        let kept = [NOT_IN_TARS[0], NOT_IN_TARS[1], "--without=user-names"];
        ok(casync().arg("make").args(kept).args(args![theirs, tree]));
        ok(cairn()
            .args(["tar", "--input-format=tar"])
            .args(kept)
            .args(args![ours, file]));
        assert_same_file(&ours, &theirs);
        ground.clear("tree");
    }
}

#[test]
fn a_gnu_tar_with_holes_and_long_names_gives_the_archive_of_its_tree() {
    let ground = Ground::new();
    let tree = tree(&ground, 7);
    let (file, theirs, ours) = (
        ground.path("tree.tar"),
        ground.path("theirs.catar"),
        ground.path("ours.catar"),
    );
    ok(tar()
        .args(["--format=gnu", "--sparse", "-cf"])
        .args(args![file, "-C", tree, "."]));
    let kept = ["--with=unix", "--with=32bit-uids"];
    ok(casync().args(["make"]).args(kept).args(args![theirs, tree]));
    ok(cairn()
        .args(["tar", "--input-format=tar"])
        .args(kept)
        .args(args![ours, file]));
    assert_same_file(&ours, &theirs);
    // The same through a pipe, cut and indexed.
    let pipe = format!(
        "cat {} | {} tar --input-format=tar --with=unix --with=32bit-uids -i -s {} {} -",
        file.display(),
        cairn().get_program().to_string_lossy(),
        ground.path("store").display(),
        ground.path("ours.caidx").display()
    );
    ok(Command::new("sh").args(["-c", &pipe]));
    let back = ground.path("back.catar");
    ok(cairn().args(args![
        "extract",
        "-s",
        ground.path("store"),
        ground.path("ours.caidx"),
        back
    ]));
    assert_same_file(&back, &theirs);
}

#[test]
fn a_tar_made_of_an_archive_unpacks_to_the_same_tree() {
    let ground = Ground::new();
    let tree = tree(&ground, 3);
    let (archive, file, again, unpacked) = (
        ground.path("tree.catar"),
        ground.path("out.tar"),
        ground.path("again.catar"),
        ground.path("unpacked"),
    );
    ok(casync().arg("make").args(NOT_IN_TARS).args(args![archive, tree]));
    ok(cairn().args(args!["untar", "--output-format=gnu-tar", archive, file]));
    ok(cairn()
        .args(["tar", "--input-format=tar"])
        .args(NOT_IN_TARS)
        .args(args![again, file]));
    assert_same_file(&again, &archive);
    fs::create_dir(&unpacked).expect("a folder");
    ok(tar()
        .args(["--xattrs", "--xattrs-include=*", "-C"])
        .args(args![unpacked, "-xf", file]));
    let repacked = ground.path("repacked.catar");
    ok(casync().arg("make").args(NOT_IN_TARS).args(args![repacked, unpacked]));
    assert_same_file(&repacked, &archive);
}

/// What a layer puts over what came before: the last entry of a name holds, a folder keeps what is in it.
#[test]
fn the_last_entry_of_a_name_holds() {
    let ground = Ground::new();
    let (first, second, unpacked) = (ground.path("first"), ground.path("second"), ground.path("unpacked"));
    for (tree, text) in [(&first, "old"), (&second, "new")] {
        fs::create_dir_all(tree.join("folder")).expect("a folder");
        fs::write(tree.join("folder/same"), text).expect("a file");
        fs::write(tree.join("folder").join(text), text).expect("a file");
    }
    let file = ground.path("both.tar");
    ok(tar().args(args!["-cf", file, "-C", first, "."]));
    ok(tar().args(args!["-rf", file, "-C", second, "./folder"]));
    let (ours, theirs) = (ground.path("ours.catar"), ground.path("theirs.catar"));
    ok(cairn().args(args![
        "tar",
        "--input-format=tar",
        "--with=unix",
        "--without=sec-time",
        ours,
        file
    ]));
    fs::create_dir(&unpacked).expect("a folder");
    ok(tar().args(args!["-C", unpacked, "-xf", file]));
    ok(casync().args(args!["make", "--with=unix", "--without=sec-time", theirs, unpacked]));
    assert_same_file(&ours, &theirs);
}

#[test]
fn tars_that_lie_are_refused() {
    let ground = Ground::new();
    let good = ground.path("good.tar");
    let tree = ground.path("t");
    fs::create_dir(&tree).expect("a folder");
    fs::write(tree.join("file"), vec![5; 2000]).expect("a file");
    ok(tar().args(args!["-cf", good, "-C", ground.path(""), "t"]));
    let bytes = fs::read(&good).expect("a tar");
    let (bad, out) = (ground.path("bad.tar"), ground.path("out.catar"));
    let words = |tar: &[u8]| {
        fs::write(&bad, tar).expect("written");
        let words = refused(cairn().args(args!["tar", "--input-format=tar", out, bad]));
        assert!(!out.exists());
        words
    };
    let cut = words(&bytes[..1800]);
    assert!(cut.contains("it is cut short"), "{cut}");
    let mut flipped = bytes.clone();
    flipped[600] ^= 1;
    assert!(words(&flipped).contains("no header of a tar is at byte 512"));
    let up = ground.path("up.tar");
    ok(tar()
        .args(["--transform=s,^t,../t,", "-P", "-cf"])
        .args(args![up, "-C", ground.path(""), "t"]));
    assert!(words(&fs::read(up).expect("a tar")).contains("its path holds .."));
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
    sparse.write_all_at(b"end", 900_000).expect("a file");
    std::os::unix::fs::chown(tree.join("first"), Some(1), Some(70_000)).expect("an owner");
    trees::set(&tree.join("first"), "user.kept", b"value");
    trees::set(
        &tree.join("first"),
        "security.capability",
        &[1, 0, 0, 2, 0, 0x20, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0],
    );
    let (file, archive, out) = (ground.path("t.tar"), ground.path("t.catar"), ground.path("out"));
    let xattrs = ["--xattrs", "--xattrs-include=*", "--acls"];
    for form in [
        &xattrs[..],
        &["--format=posix", "--sparse"],
        &["--format=gnu", "--sparse"],
        &["--format=ustar", "--exclude=nnn*", "--exclude=link"],
    ] {
        let mut command = tar();
        command.args(form).arg("--sort=none");
        ok(command.args(args!["-C", tree, "-cf", file, "."]));
        ok(cairn().args(args!["tar", "--input-format", "tar", archive, file]));
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
            command.stdin(fs::File::open(&file).expect("a tar"));
            assert!(command.status().expect("our own program").success());
            assert!(fs::read(&again).expect("an archive") == fs::read(&archive).expect("an archive"));
            ok(casync().args(args!["list", archive]));
        }
        ground.clear("out");
    }
    // Names that leave the root are refused.
    let evil = ground.path("evil.tar");
    ok(tar().args(args!["-P", "-C", tree.join("folder"), "-cf", evil, "../first"]));
    let words = refused(cairn().args(args!["tar", "--input-format", "tar", archive, evil]));
    assert!(words.contains("../first"), "{words}");
}

#[test]
fn archives_become_tar_files_that_gnu_tar_restores() {
    let ground = Ground::new();
    let (tree, archive, file, out) = (
        ground.path("tree"),
        ground.path("t.catar"),
        ground.path("t.tar"),
        ground.path("out"),
    );
    for seed in [11, 12, 13] {
        trees::make(&tree, seed, For::Plain);
        ok(cairn().args(args!["tar", archive, tree]));
        ok(cairn().args(args!["untar", "--output-format", "tar", archive, file]));
        fs::create_dir(&out).expect("a folder");
        let mut command = tar();
        command.args([
            "--xattrs",
            "--xattrs-include=*",
            "--acls",
            "--same-owner",
            "-p",
            "--numeric-owner",
        ]);
        ok(command.args(args!["-C", out, "-xf", file]));
        assert_same(&tree, &out, Without::default(), &format!("by tar, tree {seed}"));
        // And back: the same archive.
        let again = ground.path("again.catar");
        ok(cairn().args(args!["tar", "--input-format", "gnu-tar", again, file]));
        assert!(
            fs::read(&again).expect("an archive") == fs::read(&archive).expect("an archive"),
            "tree {seed}"
        );
        ground.clear("out");
        ground.clear("tree");
    }
}
