//! Programs that people use: aws, rclone, s3cmd, restic, mc.

use std::path::Path;
use std::process::Command;

use cairn_conformance::s3::Door;
use cairn_conformance::support::{input, ok};

use crate::is_full;

fn write_tree(folder: &Path) {
    std::fs::create_dir_all(folder.join("a/b")).unwrap();
    for (name, seed, len) in [
        ("one", 1, 100),
        ("a/two", 2, 3 << 20),
        ("a/b/three ü+%", 3, 20 << 20),
        ("a/b/empty", 4, 0),
    ] {
        std::fs::write(folder.join(name), input(seed, len)).unwrap();
    }
}

fn same_trees(left: &Path, right: &Path) {
    ok(Command::new("diff").arg("-r").arg(left).arg(right));
}

/// An aws-cli.
#[derive(Clone, Copy)]
enum Aws {
    /// Debian's, whatever else is on the path.
    Debian,
    /// PyPI's.
    Newest,
}

impl Aws {
    fn command(self, door: &Door, home: &Path) -> Command {
        let mut command = match self {
            Self::Debian => door.client("/usr/bin/aws", home),
            Self::Newest => {
                // It would sign links by version 2, which is refused.
                let config = home.join("aws-config");
                std::fs::write(&config, "[default]\ns3 =\n  signature_version = s3v4\n").unwrap();
                let mut command = door.client("cairn-python", home);
                command.env("AWS_CONFIG_FILE", config).args(["-B", "-m", "awscli"]);
                command
            }
        };
        command.args(["--endpoint-url", &door.url]);
        command
    }
}

/// Goal: what people do with aws works: buckets, copies both ways, listings, sync, deletes, presigned links.
#[test]
fn aws_copies_lists_and_syncs() {
    aws_copies(Aws::Debian);
}

#[test]
fn the_newest_aws_copies_lists_and_syncs() {
    aws_copies(Aws::Newest);
}

fn aws_copies(version: Aws) {
    let folder = tempfile::tempdir().unwrap();
    let door = Door::start(&folder.path().join("data"), &[]);
    let (tree, back) = (folder.path().join("tree"), folder.path().join("back"));
    write_tree(&tree);
    let aws = |words: &[&str]| {
        let mut command = version.command(&door, folder.path());
        String::from_utf8(ok(command.args(words)).stdout).unwrap()
    };
    let (tree_text, back_text) = (tree.to_str().unwrap(), back.to_str().unwrap());
    aws(&["s3", "mb", "s3://abc"]);
    assert!(aws(&["s3", "ls"]).contains("abc"));
    aws(&["s3", "cp", "--recursive", tree_text, "s3://abc/tree/"]);
    let listed = aws(&["s3", "ls", "--recursive", "s3://abc/tree/"]);
    assert!(listed.contains("20971520 tree/a/b/three ü+%"), "{listed}");
    assert!(aws(&["s3", "ls", "s3://abc/tree/"]).contains("PRE a/"));
    aws(&["s3", "sync", "s3://abc/tree/", back_text]);
    same_trees(&tree, &back);
    aws(&["s3", "sync", "s3://abc/tree/", "s3://abc/copy/"]);
    aws(&["s3", "mv", "s3://abc/copy/one", "s3://abc/moved"]);
    let moved = folder.path().join("moved");
    aws(&["s3", "cp", "s3://abc/moved", moved.to_str().unwrap()]);
    assert_eq!(std::fs::read(&moved).unwrap(), input(1, 100));
    let head = aws(&["s3api", "head-object", "--bucket", "abc", "--key", "moved"]);
    assert!(head.contains("\"ContentLength\": 100"), "{head}");
    let link = aws(&["s3", "presign", "s3://abc/moved"]);
    let got = ok(Command::new("curl").args(["-sf", link.trim()])).stdout;
    assert_eq!(got, input(1, 100));
    let versioning = ["--versioning-configuration", "Status=Enabled"];
    aws(&[&["s3api", "put-bucket-versioning", "--bucket", "abc"], &versioning[..]].concat());
    aws(&["s3", "rm", "s3://abc/moved"]);
    let versions = aws(&["s3api", "list-object-versions", "--bucket", "abc", "--prefix", "moved"]);
    assert!(versions.contains("\"DeleteMarkers\""), "{versions}");
    let tagging = ["--tagging", "TagSet=[{Key=a,Value=1}]"];
    aws(&[
        &["s3api", "put-object-tagging", "--bucket", "abc", "--key", "copy/a/two"],
        &tagging[..],
    ]
    .concat());
    let tags = aws(&["s3api", "get-object-tagging", "--bucket", "abc", "--key", "copy/a/two"]);
    assert!(tags.contains("\"Value\": \"1\""), "{tags}");
    aws(&["s3", "mb", "s3://second"]);
    aws(&["s3", "cp", "--recursive", "s3://abc/tree/", "s3://second/"]);
    aws(&["s3", "rb", "--force", "s3://second"]);
    let listed = aws(&["s3", "ls"]);
    assert!(listed.contains("abc") && !listed.contains("second"), "{listed}");
}

/// Goal: many files, empty ones among them, go up without one that waits for the client's time-out.
#[test]
fn aws_uploads_many_files_and_none_hangs() {
    aws_uploads_many(Aws::Debian);
}

#[test]
fn the_newest_aws_uploads_many_files_and_none_hangs() {
    aws_uploads_many(Aws::Newest);
}

fn aws_uploads_many(version: Aws) {
    let folder = tempfile::tempdir().unwrap();
    let door = Door::start(&folder.path().join("data"), &[]);
    let tree = folder.path().join("tree");
    std::fs::create_dir(&tree).unwrap();
    for number in 0..60 {
        std::fs::write(tree.join(format!("empty {number}")), b"").unwrap();
        std::fs::write(tree.join(format!("small {number}")), input(number, 100)).unwrap();
    }
    std::fs::write(tree.join("large"), input(99, 20 << 20)).unwrap();
    let aws = |words: &[&str]| {
        let mut command = version.command(&door, folder.path());
        command.env("AWS_MAX_ATTEMPTS", "1").args(["--cli-read-timeout", "30"]);
        String::from_utf8(ok(command.args(words)).stdout).unwrap()
    };
    aws(&["s3", "mb", "s3://abc"]);
    aws(&[
        "s3",
        "cp",
        "--quiet",
        "--recursive",
        tree.to_str().unwrap(),
        "s3://abc/",
    ]);
    assert_eq!(aws(&["s3", "ls", "s3://abc/"]).lines().count(), 121);
}

/// Goal: rclone's copy, check, sync and multi-thread transfers work.
#[test]
fn rclone_copies_checks_and_syncs() {
    rclone_copies("/usr/bin/rclone", &[]);
}

/// Goal: as above, in each way of sending that a newer one has.
#[test]
fn the_newest_rclone_copies_checks_and_syncs() {
    rclone_copies("cairn-rclone", &[]);
    rclone_copies(
        "cairn-rclone",
        &["--s3-use-multipart-uploads=true", "--s3-upload-concurrency=8"],
    );
    rclone_copies(
        "cairn-rclone",
        &[
            "--s3-use-multipart-uploads=false",
            "--s3-use-unsigned-payload=true",
            "--s3-no-head",
        ],
    );
}

/// - `more`: options of every command.
fn rclone_copies(program: &str, more: &[&str]) {
    let folder = tempfile::tempdir().unwrap();
    let door = Door::start(&folder.path().join("data"), &[]);
    let (tree, back) = (folder.path().join("tree"), folder.path().join("back"));
    write_tree(&tree);
    let rclone = |words: &[&str]| {
        let mut command = door.client(program, folder.path());
        command
            .env("RCLONE_CONFIG", folder.path().join("rclone.conf"))
            .env("RCLONE_CONFIG_DOOR_TYPE", "s3")
            .env("RCLONE_CONFIG_DOOR_PROVIDER", "Other")
            .env("RCLONE_CONFIG_DOOR_ENV_AUTH", "true")
            .env("RCLONE_CONFIG_DOOR_REGION", "us-east-1")
            .env("RCLONE_CONFIG_DOOR_ENDPOINT", &door.url)
            .args(["--retries", "1", "--low-level-retries", "1"])
            .args(more)
            .args(words);
        String::from_utf8(ok(&mut command).stdout).unwrap()
    };
    let (tree_text, back_text) = (tree.to_str().unwrap(), back.to_str().unwrap());
    rclone(&["mkdir", "door:abc"]);
    rclone(&[
        "copy",
        tree_text,
        "door:abc/tree",
        "--s3-upload-cutoff",
        "5Mi",
        "--s3-chunk-size",
        "5Mi",
    ]);
    rclone(&["check", tree_text, "door:abc/tree"]);
    rclone(&["check", "--download", tree_text, "door:abc/tree"]);
    std::fs::remove_file(tree.join("one")).unwrap();
    std::fs::write(tree.join("a/two"), b"changed").unwrap();
    rclone(&["sync", tree_text, "door:abc/tree"]);
    rclone(&["check", tree_text, "door:abc/tree"]);
    rclone(&[
        "copy",
        "door:abc/tree",
        back_text,
        "--multi-thread-streams",
        "4",
        "--multi-thread-cutoff",
        "1Mi",
    ]);
    same_trees(&tree, &back);
    rclone(&["copy", "door:abc/tree", "door:abc/copy"]);
    assert_eq!(
        rclone(&["lsf", "-R", "--files-only", "door:abc/copy"]).lines().count(),
        3
    );
    rclone(&["moveto", "door:abc/copy/a/two", "door:abc/moved"]);
    assert_eq!(rclone(&["lsf", "--files-only", "door:abc"]), "moved\n");
    let sums = rclone(&["hashsum", "md5", "door:abc/moved"]);
    assert!(sums.starts_with("8977dfac2f8e04cb96e66882235f5aba"), "{sums}");
    rclone(&["delete", "door:abc/copy"]);
    assert_eq!(rclone(&["lsf", "-R", "--files-only", "door:abc/copy"]), "");
    rclone(&["purge", "door:abc"]);
}

/// Goal: MinIO's client works; it is built and run in the full run alone (`CAIRN_FULL=1`).
#[test]
fn mc_copies_mirrors_and_compares_in_the_full_run() {
    if !is_full() {
        eprintln!("not the full run: mc does not ask");
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let door = Door::start(&folder.path().join("data"), &[]);
    let (tree, back) = (folder.path().join("tree"), folder.path().join("back"));
    write_tree(&tree);
    let mc = |words: &[&str]| {
        let mut command = door.client("mc", folder.path());
        let host = door.url.replace("://", &format!("://{}:{}@", door.key, door.secret));
        command.env("MC_HOST_door", host).arg("--config-dir").arg(folder.path());
        String::from_utf8(ok(command.args(words)).stdout).unwrap()
    };
    let (tree_text, back_text) = (tree.to_str().unwrap(), back.to_str().unwrap());
    mc(&["mb", "door/abc"]);
    mc(&["cp", "--recursive", &format!("{tree_text}/"), "door/abc/tree/"]);
    mc(&["mirror", "door/abc/tree", back_text]);
    same_trees(&tree, &back);
    std::fs::remove_file(tree.join("one")).unwrap();
    std::fs::write(tree.join("a/two"), b"changed").unwrap();
    mc(&["mirror", "--overwrite", "--remove", tree_text, "door/abc/tree"]);
    mc(&["mirror", "--overwrite", "--remove", "door/abc/tree", back_text]);
    same_trees(&tree, &back);
    assert_eq!(mc(&["cat", "door/abc/tree/a/two"]), "changed");
    assert!(mc(&["stat", "door/abc/tree/a/two"]).contains("7 B"));
    mc(&["tag", "set", "door/abc/tree/a/two", "a=1"]);
    assert!(mc(&["tag", "list", "door/abc/tree/a/two"]).contains('1'));
    mc(&["cp", "door/abc/tree/a/two", "door/abc/copy"]);
    mc(&["version", "enable", "door/abc"]);
    mc(&["rm", "door/abc/copy"]);
    assert!(mc(&["ls", "--versions", "door/abc/copy"]).contains("DEL"));
    mc(&["undo", "door/abc/copy"]);
    assert_eq!(mc(&["cat", "door/abc/copy"]), "changed");
    mc(&["rb", "--force", "door/abc"]);
}

/// Goal: s3cmd's copies, listings and deletes work.
#[test]
fn s3cmd_copies_and_lists() {
    let folder = tempfile::tempdir().unwrap();
    let door = Door::start(&folder.path().join("data"), &[]);
    let (tree, back) = (folder.path().join("tree"), folder.path().join("back"));
    write_tree(&tree);
    std::fs::create_dir(&back).unwrap();
    let host = door.url.trim_start_matches("http://");
    let s3cmd = |words: &[&str]| {
        let mut command = door.client("s3cmd", folder.path());
        command
            .args([
                "--config",
                "/dev/null",
                "--no-ssl",
                "--region=us-east-1",
                "--no-progress",
            ])
            .arg(format!("--host={host}"))
            .arg(format!("--host-bucket={host}"))
            .arg(format!("--access_key={}", door.key))
            .arg(format!("--secret_key={}", door.secret))
            .args(words);
        String::from_utf8(ok(&mut command).stdout).unwrap()
    };
    let (tree_text, back_text) = (format!("{}/", tree.display()), format!("{}/", back.display()));
    s3cmd(&["mb", "s3://abc"]);
    s3cmd(&["sync", "--multipart-chunk-size-mb=5", &tree_text, "s3://abc/tree/"]);
    assert!(s3cmd(&["ls", "-r", "s3://abc/"]).contains("s3://abc/tree/a/b/three ü+%"));
    s3cmd(&["sync", "s3://abc/tree/", &back_text]);
    same_trees(&tree, &back);
    s3cmd(&["cp", "s3://abc/tree/one", "s3://abc/copy"]);
    s3cmd(&["del", "--recursive", "--force", "s3://abc/"]);
    s3cmd(&["rb", "s3://abc"]);
}

/// Goal: a restic repository lives in a bucket: it is begun, written, checked, read back and pruned.
#[test]
fn restic_keeps_a_repository() {
    let folder = tempfile::tempdir().unwrap();
    let door = Door::start(&folder.path().join("data"), &[]);
    let (tree, back) = (folder.path().join("tree"), folder.path().join("back"));
    write_tree(&tree);
    let restic = |words: &[&str]| {
        let mut command = door.client("restic", folder.path());
        command
            .current_dir(folder.path())
            .env("RESTIC_REPOSITORY", format!("s3:{}/repository/of/restic", door.url))
            .env("RESTIC_PASSWORD", "a word")
            .env("RESTIC_CACHE_DIR", folder.path().join("cache"));
        ok(command.args(words));
    };
    restic(&["init"]);
    restic(&["backup", "tree"]);
    std::fs::write(tree.join("a/two"), b"changed").unwrap();
    restic(&["backup", "tree"]);
    restic(&["check", "--read-data"]);
    restic(&["restore", "latest", "--target", back.to_str().unwrap()]);
    same_trees(&tree, &back.join("tree"));
    restic(&["forget", "--keep-last", "1", "--prune"]);
    restic(&["check"]);
}
