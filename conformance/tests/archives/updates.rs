//! What is there already: an update touches and fetches only what changed, and replaces what is in the way.

use std::fs;
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;

use cairn_conformance::support::{self, args, cairn, desync, ok, refused};
use cairn_conformance::trees::{self, Ground, Without, assert_same};

use crate::archived;

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
