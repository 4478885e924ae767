//! Restoring where it is hard: killed on the way, without the rights, on file systems that have more or less than ext4.
//!
//! `CAIRN_KILLS` sets how often `cairn untar` is killed (20 unless told). The volumes are files behind loop devices, so these
//! tests need root, `mkfs.xfs` and `btrfs`; where something is missing they fail.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::time::Instant;

use cairn_conformance::mounted::Mount;
use cairn_conformance::support::{args, built, cairn, casync, copy_of_cairn, input, ok, run};
use cairn_conformance::trees::{self, Ground, Without, assert_same};
use rustix::fs::FileType;

/// Exit code of what was done but for what was listed (`docs/exit-codes.md`).
const INCOMPLETE: i32 = 3;

/// Contents and metadata of every file, by its path below the root.
fn files(root: &Path) -> BTreeMap<PathBuf, (Vec<u8>, u32, u32, i64)> {
    let mut found = BTreeMap::new();
    let mut folders = vec![root.to_owned()];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder).expect("a folder").flatten() {
            let (path, meta) = (entry.path(), entry.metadata().expect("an inode"));
            if meta.is_dir() {
                folders.push(path);
            } else {
                let below = path.strip_prefix(root).expect("it is below").to_owned();
                let bytes = fs::read(&path).expect("a file");
                found.insert(below, (bytes, meta.mode(), meta.uid(), meta.mtime()));
            }
        }
    }
    found
}

/// A tree of files of many sizes; those whose number `changed` picks differ from the others' version.
fn fill(tree: &Path, version: u64, changed: impl Fn(u64) -> bool) {
    for number in 0..240 {
        let folder = tree.join(format!("folder{}", number % 5));
        fs::create_dir_all(&folder).expect("a folder");
        let path = folder.join(format!("file{number}"));
        let seed = if changed(number) {
            number + 1000 * version
        } else {
            number
        };
        let len = if number % 40 == 0 {
            6_000_000
        } else {
            500 * number as usize
        };
        fs::write(&path, input(seed, len)).expect("a file");
        std::os::unix::fs::chown(&path, Some(seed as u32), Some(7)).expect("an owner: is this root?");
        fs::set_permissions(&path, fs::Permissions::from_mode(0o440)).expect("a mode");
        let time = std::time::UNIX_EPOCH + std::time::Duration::from_secs(1_000_000 + seed);
        fs::File::open(&path)
            .expect("a file")
            .set_modified(time)
            .expect("a time");
    }
}

/// How a tree is restored when it is killed.
struct Scene {
    what: &'static str,
    /// What the target holds before.
    before: Option<PathBuf>,
    command: Box<dyn Fn(&Path) -> Command>,
}

/// Goal: whenever `untar` is killed, a file that has its name is whole, content and metadata; the next run finishes, and what
/// the killed one left is gone.
/// Method: into nothing and over an old tree; an archive and an index; and where files cannot be without names, which a
/// missing /proc brings about.
#[test]
fn a_killed_untar_leaves_no_half_file() {
    let kills: u64 = std::env::var("CAIRN_KILLS").map_or(20, |text| text.parse().expect("CAIRN_KILLS is a number"));
    let ground = Ground::new();
    let (old, new, out) = (ground.path("old"), ground.path("new"), ground.path("out"));
    fill(&old, 1, |number| number % 3 == 0);
    fill(&new, 2, |number| number % 3 == 0);
    let (archive, index, store) = (ground.path("t.catar"), ground.path("t.caidx"), ground.path("store"));
    fs::create_dir(&store).expect("a folder");
    ok(cairn().args(args!["tar", archive, new]));
    ok(cairn().args(args!["tar", "-i", "-s", store, index, new]));
    let from_archive = {
        let archive = archive.clone();
        move |out: &Path| {
            let mut command = cairn();
            command.args(args!["untar", "--strict", archive, out]);
            command
        }
    };
    let without_proc = move |out: &Path| {
        let mut command = Command::new("unshare");
        command.args(["--mount", "sh", "-c", "mount -t tmpfs none /proc && exec \"$0\" \"$@\""]);
        command.args(args![built("cairn"), "untar", "--strict", archive, out]);
        command
    };
    let from_index = move |out: &Path| {
        let mut command = cairn();
        command.args(args!["untar", "--strict", "-i", "-s", store, index, out]);
        command
    };
    let scenes = [
        Scene {
            what: "an archive into nothing",
            before: None,
            command: Box::new(from_archive.clone()),
        },
        Scene {
            what: "an archive over an old tree",
            before: Some(old.clone()),
            command: Box::new(from_archive),
        },
        Scene {
            what: "an index over an old tree",
            before: Some(old.clone()),
            command: Box::new(from_index),
        },
        Scene {
            what: "an archive over an old tree, without /proc",
            before: Some(old.clone()),
            command: Box::new(without_proc),
        },
    ];
    let (older, newer) = (files(&old), files(&new));
    let prepare = |scene: &Scene| {
        ground.clear("out");
        if let Some(before) = &scene.before {
            ok(Command::new("cp").arg("-a").args([before, &out]));
        }
    };
    let mut durations: Vec<_> = scenes
        .iter()
        .map(|scene| {
            prepare(scene);
            let began = Instant::now();
            ok(&mut (scene.command)(&out));
            let whole_run = began.elapsed();
            assert_same(&new, &out, Without::default(), scene.what);
            whole_run
        })
        .collect();
    let mut random = fastrand::Rng::with_seed(11);
    let mut halfway = 0;
    for kill in 0..kills {
        let (scene, whole_run) = (
            &scenes[kill as usize % scenes.len()],
            durations[kill as usize % scenes.len()],
        );
        prepare(scene);
        let began = Instant::now();
        let mut child = (scene.command)(&out)
            .stdin(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .expect("our own program");
        // The moment is what is random here, not what is waited for.
        let moment = began + whole_run.mul_f64(random.f64());
        while Instant::now() < moment && child.try_wait().expect("our own child").is_none() {
            std::thread::yield_now();
        }
        // Faster than it was when it was measured: the next kill is to come on the way.
        if Instant::now() < moment {
            durations[kill as usize % scenes.len()] = began.elapsed();
        }
        let _ = child.kill();
        let finished = child.wait().expect("our own child").success();
        let there = if out.exists() { files(&out) } else { BTreeMap::new() };
        let mut whole = 0;
        for (path, file) in &there {
            let shown = path.display();
            if newer.get(path) == Some(file) {
                whole += 1;
                continue;
            }
            let kept = scene.before.is_some() && older.get(path) == Some(file);
            let temporary = path
                .file_name()
                .is_some_and(|name| name.to_string_lossy().starts_with(".cairn-"));
            assert!(
                kept || temporary,
                "kill {kill}, {}: {shown} is neither whole nor as it was",
                scene.what
            );
        }
        halfway += u64::from(!finished && whole > 0 && whole < newer.len());
        ok(&mut (scene.command)(&out));
        assert_same(
            &new,
            &out,
            Without::default(),
            &format!("after kill {kill}, {}", scene.what),
        );
    }
    assert!(
        kills < 10 || halfway > kills / 4,
        "only {halfway} of {kills} kills came on the way"
    );
}

/// What a tool says on standard error.
fn words(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

/// Asserts that one line names both the entry and what of it is not as it was.
#[track_caller]
fn assert_told(words: &str, entry: &str, what: &str) {
    let told = words.lines().any(|line| line.contains(entry) && line.contains(what));
    assert!(told, "nothing about {what} of {entry}:\n{words}");
}

/// cap_net_raw+ep, version 2.
const CAPABILITIES: [u8; 20] = [1, 0, 0, 2, 0, 0x20, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];

#[test]
fn who_is_not_root_is_told_what_could_not_be_restored() {
    let ground = Ground::new();
    let tree = ground.path("tree");
    fs::create_dir_all(tree.join("folder")).expect("folders");
    for name in ["capable", "trusted", "plain", "folder/owned"] {
        fs::write(tree.join(name), name).expect("a file");
    }
    trees::set(&tree.join("capable"), "security.capability", &CAPABILITIES);
    trees::set(&tree.join("trusted"), "trusted.secret", b"x");
    trees::set(&tree.join("plain"), "user.open", b"x");
    std::os::unix::fs::chown(tree.join("folder/owned"), Some(1), Some(2)).expect("an owner");
    rustix::fs::mknodat(
        rustix::fs::CWD,
        tree.join("device"),
        FileType::CharacterDevice,
        rustix::fs::Mode::from_raw_mode(0o600),
        rustix::fs::makedev(1, 3),
    )
    .expect("a device");
    trees::special(&tree.join("fifo"), FileType::Fifo);
    let (archive, home) = (ground.path("t.catar"), ground.path("home"));
    ok(cairn().args(args!["tar", archive, tree]));
    fs::create_dir(&home).expect("a folder");
    std::os::unix::fs::chown(&home, Some(65534), Some(65534)).expect("an owner");
    // The program too has to be where everybody may read it.
    let program = ground.path("cairn");
    copy_of_cairn(&program);
    for path in [&archive, &program, &ground.path("")] {
        fs::set_permissions(path, fs::Permissions::from_mode(0o755)).expect("a mode");
    }
    let nobody = |options: &[&str], out: &Path| {
        let mut command = Command::new("setpriv");
        command.args(["--reuid=65534", "--regid=65534", "--clear-groups"]);
        command
            .arg(&program)
            .arg("untar")
            .args(options)
            .args(args![archive, out]);
        // Where coverage is measured, it may not write its counts.
        run(command
            .env("HOME", "/nonexistent")
            .env("LLVM_PROFILE_FILE", "/dev/null"))
    };
    let lenient = nobody(&[], &home.join("lenient"));
    assert_eq!(lenient.status.code(), Some(0), "{}", words(&lenient));
    let out = home.join("strict");
    let strict = nobody(&["--strict"], &out);
    let told = words(&strict);
    assert_eq!(strict.status.code(), Some(INCOMPLETE), "{told}");
    for (entry, what) in [
        ("capable", "capabilities"),
        ("trusted", "attribute trusted.secret"),
        ("device", "device could not be made"),
        (".", "owners were not restored"),
    ] {
        assert_told(&told, entry, what);
    }
    assert!(!told.contains("plain") && !told.contains("fifo"), "{told}");
    // Everything else is as it was.
    for name in ["capable", "trusted", "plain", "folder/owned"] {
        let (was, is) = (
            fs::metadata(tree.join(name)).expect("a file"),
            fs::metadata(out.join(name)).expect("a file"),
        );
        assert_eq!(fs::read(out.join(name)).expect("a file"), name.as_bytes());
        assert_eq!((was.mode(), was.mtime()), (is.mode(), is.mtime()), "{name}");
        assert_eq!((is.uid(), is.gid()), (65534, 65534), "{name}");
    }
    assert!(fs::symlink_metadata(out.join("fifo")).is_ok());
    // Who asks for less has nothing to be told.
    let rest = nobody(&["--strict", "--no-same-owner", "--no-same-xattrs"], &home.join("less"));
    let told = words(&rest);
    assert_eq!(told.lines().count(), 2, "only the device, and how many: {told}");
    assert_told(&told, "device", "could not be made");
}

/// A file system in a file, mounted until it is dropped.
struct Volume {
    _image: tempfile::TempPath,
    folder: tempfile::TempDir,
}

impl Volume {
    /// - `make`: the program that makes the file system, with its options.
    fn new(make: &[&str], len: u64) -> Self {
        let image = tempfile::NamedTempFile::new().expect("a temporary file");
        image.as_file().set_len(len).expect("a length");
        let image = image.into_temp_path();
        let folder = tempfile::tempdir().expect("a temporary folder");
        // Debian has these programs where only root's PATH looks.
        let path = format!("{}:/usr/sbin:/sbin", std::env::var("PATH").unwrap_or_default());
        ok(Command::new(make[0]).args(&make[1..]).arg(&image).env("PATH", path));
        ok(Command::new("mount")
            .args(["-o", "loop"])
            .args([&*image, folder.path()]));
        Self { _image: image, folder }
    }

    fn xfs() -> Self {
        Self::new(&["mkfs.xfs", "-q", "-f"], 320 << 20)
    }

    fn btrfs() -> Self {
        Self::new(&["mkfs.btrfs", "-q"], 128 << 20)
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }
}

impl Drop for Volume {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg(self.folder.path()).status();
    }
}

/// Goal: labels are put back where the file system takes them, whether or not a system obeys them, and told where it does not.
/// Method: an archive with a label and capabilities; ramfs, which has no attributes at all.
#[test]
fn labels_and_the_like_are_told_where_the_file_system_has_none() {
    let ground = Ground::new();
    let (tree, archive, out) = (ground.path("tree"), ground.path("t.catar"), ground.path("out"));
    fs::create_dir(&tree).expect("a folder");
    for name in ["labelled", "capable", "plain"] {
        fs::write(tree.join(name), name).expect("a file");
    }
    trees::set(
        &tree.join("labelled"),
        "security.selinux",
        b"system_u:object_r:etc_t:s0\0",
    );
    trees::set(&tree.join("capable"), "security.capability", &CAPABILITIES);
    ok(casync().args(args!["make", archive, tree]));
    ok(cairn().args(args!["untar", "--strict", archive, out]));
    assert_same(&tree, &out, Without::default(), "on a disk");
    let volume = tempfile::tempdir().expect("a temporary folder");
    ok(Command::new("mount").args(["-t", "ramfs", "none"]).arg(volume.path()));
    let told = run(cairn().args(args!["untar", "--strict", archive, volume.path().join("out")]));
    let bytes = fs::read(volume.path().join("out/labelled"));
    ok(Command::new("umount").arg(volume.path()));
    assert_eq!(told.status.code(), Some(INCOMPLETE), "{}", words(&told));
    assert_told(&words(&told), "labelled", "label could not be restored");
    assert_told(&words(&told), "capable", "capabilities could not be restored");
    assert_eq!(words(&told).lines().count(), 3, "those, and how many: {}", words(&told));
    assert_eq!(bytes.expect("a file"), b"labelled");
}

/// Quota projects as `lsattr` shows them, by name.
fn projects(tree: &Path) -> Vec<(String, u32)> {
    let listed = ok(Command::new("lsattr").args(["-p", "-R"]).arg(tree)).stdout;
    let listed = String::from_utf8(listed).expect("names of ours");
    let prefix = format!("{}/", tree.display());
    let mut projects: Vec<_> = listed
        .lines()
        .filter_map(|line| {
            let mut words = line.split_whitespace();
            let project = words.next()?.parse().ok()?;
            Some((words.nth(1)?.strip_prefix(&prefix)?.to_owned(), project))
        })
        .collect();
    projects.sort();
    projects
}

#[test]
fn quota_projects_are_kept_and_restored_where_there_are_any() {
    let ground = Ground::new();
    let (volume, btrfs) = (Volume::xfs(), Volume::btrfs());
    let tree = volume.path("tree");
    fs::create_dir_all(tree.join("inherits")).expect("folders");
    fs::write(tree.join("in-project"), b"x").expect("a file");
    fs::write(tree.join("in-none"), b"x").expect("a file");
    ok(Command::new("chattr").args(["-p", "42"]).arg(tree.join("in-project")));
    ok(Command::new("chattr")
        .args(["-p", "4000000000", "+P"])
        .arg(tree.join("inherits")));
    fs::write(tree.join("inherits/child"), b"x").expect("a file");
    let expected = [
        ("in-none", 0),
        ("in-project", 42),
        ("inherits", 4_000_000_000),
        ("inherits/child", 4_000_000_000),
    ];
    let expected = expected.map(|(name, project)| (name.to_owned(), project));
    assert_eq!(projects(&tree), expected);
    let (ours, theirs) = (ground.path("ours.catar"), ground.path("theirs.catar"));
    ok(cairn().args(args!["tar", ours, tree]));
    ok(casync().args(args!["make", theirs, tree]));
    assert!(fs::read(&ours).expect("an archive") == fs::read(&theirs).expect("an archive"));
    let out = volume.path("out");
    ok(cairn().args(args!["untar", "--strict", ours, out]));
    assert_eq!(projects(&out), expected);
    // A folder that gives its project to what is made in it gives it to no entry that has another.
    ok(Command::new("chattr").args(["-p", "5", "+P"]).arg(&out));
    fs::remove_file(out.join("in-none")).expect("a file");
    ok(cairn().args(args!["untar", "--strict", ours, out]));
    assert_eq!(projects(&out), expected, "mended");
    // btrfs has no projects.
    let elsewhere = btrfs.path("out");
    let told = run(cairn().args(args!["untar", "--strict", ours, elsewhere]));
    assert_eq!(told.status.code(), Some(INCOMPLETE), "{}", words(&told));
    for name in ["in-project", "inherits", "inherits/child"] {
        assert_told(&words(&told), name, "quota project");
    }
    assert!(!words(&told).contains("in-none"), "{}", words(&told));
    assert_eq!(fs::read(elsewhere.join("inherits/child")).expect("a file"), b"x");
}

/// Whether a folder is a subvolume's root, and whether that is read-only.
fn subvolume(path: &Path) -> Option<bool> {
    let output = run(Command::new("btrfs")
        .args(["property", "get", "-t", "subvol"])
        .arg(path)
        .arg("ro"));
    let inode = fs::metadata(path).expect("a folder").ino();
    (inode == 256 && output.status.success()).then(|| output.stdout.starts_with(b"ro=true"))
}

#[test]
fn subvolumes_are_kept_and_restored_where_there_are_any() {
    let ground = Ground::new();
    let volume = Volume::btrfs();
    let tree = volume.path("tree");
    let btrfs = |arguments: &[&str], path: &Path| drop(ok(Command::new("btrfs").args(arguments).arg(path)));
    btrfs(&["subvolume", "create"], &tree);
    for name in ["locked", "open", "open/below"] {
        btrfs(&["subvolume", "create"], &tree.join(name));
        fs::write(tree.join(name).join("file"), name).expect("a file");
    }
    fs::create_dir(tree.join("folder")).expect("a folder");
    ok(Command::new("btrfs")
        .args(["property", "set", "-t", "subvol"])
        .arg(tree.join("locked"))
        .args(["ro", "true"]));
    let (ours, theirs) = (ground.path("ours.catar"), ground.path("theirs.catar"));
    ok(cairn().args(args!["tar", ours, tree]));
    ok(casync().args(args!["make", theirs, tree]));
    assert!(fs::read(&ours).expect("an archive") == fs::read(&theirs).expect("an archive"));
    let out = volume.path("out");
    // A second run finds everything as it should be.
    for _ in 0..2 {
        ok(cairn().args(args!["untar", "--strict", ours, out]));
        for (name, expected) in [
            ("locked", Some(true)),
            ("open", Some(false)),
            ("open/below", Some(false)),
            ("folder", None),
        ] {
            assert_eq!(subvolume(&out.join(name)), expected, "{name}");
        }
        assert_same(&tree, &out, Without::default(), "subvolumes");
    }
    // Elsewhere they are folders, which is told.
    let elsewhere = ground.path("elsewhere");
    let told = run(cairn().args(args!["untar", "--strict", ours, elsewhere]));
    assert_eq!(told.status.code(), Some(INCOMPLETE), "{}", words(&told));
    for name in ["locked", "open", "open/below"] {
        assert_told(&words(&told), name, "subvolume");
    }
    assert_eq!(
        fs::read(elsewhere.join("open/below/file")).expect("a file"),
        b"open/below"
    );
}

/// Bits of an entry's `flags` that FAT has: hidden, system, archive (`formats/FORMATS.md`).
const FAT_BITS: u64 = 0x2000 | 0x4000 | 0x8000;
/// How an ENTRY begins: its length, 64, and its type.
const ENTRY: [u8; 16] = [64, 0, 0, 0, 0, 0, 0, 0, 0x51, 0xbb, 0x5b, 0xea, 0xbc, 0xfa, 0x96, 0x13];

/// An archive with FAT's bits on its only file, which a system without FAT cannot make: casync's, its ENTRY changed.
#[test]
fn bits_of_fat_are_shown_by_a_mount_and_told_where_there_are_none() {
    let ground = Ground::new();
    let (tree, archive) = (ground.path("tree"), ground.path("t.catar"));
    fs::create_dir(&tree).expect("a folder");
    fs::write(tree.join("file"), b"x").expect("a file");
    ok(casync().args(args!["make", archive, tree]));
    let mut bytes = fs::read(&archive).expect("an archive");
    let entries: Vec<usize> = (0..bytes.len()).filter(|&at| bytes[at..].starts_with(&ENTRY)).collect();
    assert_eq!(entries.len(), 2, "the root's and the file's: {entries:?}");
    let flags = entries[1] + 32;
    assert_eq!(bytes[flags..flags + 8], [0; 8]);
    bytes[flags..flags + 8].copy_from_slice(&FAT_BITS.to_le_bytes());
    fs::write(&archive, &bytes).expect("an archive");
    let mtree = String::from_utf8(ok(casync().args(args!["mtree", archive])).stdout).expect("UTF-8");
    assert!(
        mtree.contains("flags=hidden,system,archive"),
        "the hand-built archive is casync's: {mtree}"
    );
    // casync reads the bits from our mount as it would from FAT.
    let (mnt, again) = (ground.path("mnt"), ground.path("again.catar"));
    fs::create_dir(&mnt).expect("a folder");
    let mounted = Mount::start(cairn().args(args!["mount", archive, mnt]), &mnt);
    ok(casync().args(args!["make", again, mnt]));
    assert!(fs::read(&again).expect("an archive") == bytes, "casync, from the mount");
    ok(cairn().args(args!["tar", again, mnt]));
    assert!(fs::read(&again).expect("an archive") == bytes, "cairn, from the mount");
    mounted.end();
    // This disk has none.
    let out = ground.path("out");
    let told = run(cairn().args(args!["untar", "--strict", archive, out]));
    assert_eq!(told.status.code(), Some(INCOMPLETE), "{}", words(&told));
    assert_told(&words(&told), "file", "FAT attributes");
    assert_same(&tree, &out, Without::default(), "but for FAT's bits");
}
