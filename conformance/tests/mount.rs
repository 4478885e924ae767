//! Blobs through FUSE: what a mount shows, keeps, takes and leaves behind.
//!
//! These tests need `/dev/fuse`, the right to mount, and `fusermount3`; where one is missing they fail.

use std::fs::{self, File};
use std::io::{Read as _, Seek as _, SeekFrom};
use std::os::unix::fs::{FileExt as _, MetadataExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use cairn_conformance::mounted::{Mount, assert_gone, mounts};
use cairn_conformance::support::{self, args, cairn, cairnd, casync, copy_of_cairn, desync, input, ok, refused};
use rustix::process::Signal;

/// A folder with a blob, its index and store by `cairn`, and a place to mount on.
struct Place {
    folder: tempfile::TempDir,
    bytes: Vec<u8>,
}

impl Place {
    fn new(seed: u64, len: usize) -> Self {
        let place = Self {
            folder: tempfile::tempdir().expect("a temporary folder"),
            bytes: input(seed, len),
        };
        fs::write(place.path("source"), &place.bytes).expect("the blob");
        ok(cairn().args(args![
            "make",
            "-s",
            place.path("store"),
            place.path("blob.caibx"),
            place.path("source")
        ]));
        fs::create_dir(place.path("mnt")).expect("a folder to mount on");
        fs::create_dir(place.path("empty")).expect("an empty store");
        place
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn command(&self, store: &str, more: &[&str]) -> Command {
        let mut command = cairn();
        command.args(args![
            "mount-index",
            "-s",
            store,
            self.path("blob.caibx"),
            self.path("mnt")
        ]);
        command.args(more);
        command.current_dir(self.folder.path());
        command
    }

    /// Mounts the blob from a store beside it, by a name of this folder.
    #[track_caller]
    fn mount(&self, store: &str, more: &[&str]) -> Mount {
        Mount::start(&mut self.command(store, more), &self.path("mnt"))
    }

    /// Ids and ranges of the blob's chunks.
    fn chunks(&self) -> Vec<(String, std::ops::Range<usize>)> {
        let listed = ok(cairn().args(args!["chunk", self.path("source")])).stdout;
        let listed = String::from_utf8(listed).expect("ids and numbers");
        let chunk = |line: &str| {
            let fields: Vec<&str> = line.split_whitespace().collect();
            let (start, len): (usize, usize) = (fields[0].parse().expect("start"), fields[1].parse().expect("length"));
            (fields[2].to_owned(), start..start + len)
        };
        listed.lines().map(chunk).collect()
    }

    fn chunk_file(&self, id: &str) -> PathBuf {
        self.path("store").join(&id[..4]).join(format!("{id}.cacnk"))
    }
}

/// Reads at random places, some past the end, on several threads with a file each.
fn read_anywhere(path: &Path, bytes: &[u8]) {
    std::thread::scope(|scope| {
        for seed in 0..4 {
            scope.spawn(move || {
                let file = File::open(path).expect("the mounted blob");
                let mut random = fastrand::Rng::with_seed(seed);
                for _ in 0..200 {
                    let offset = random.usize(..bytes.len() + 100);
                    let len = if random.bool() { 4096 } else { random.usize(1..300_000) };
                    let mut buffer = vec![0; len];
                    let mut filled = 0;
                    while let read @ 1.. = file
                        .read_at(&mut buffer[filled..], (offset + filled) as u64)
                        .expect("a read")
                    {
                        filled += read;
                    }
                    let expected = &bytes[offset.min(bytes.len())..(offset + len).min(bytes.len())];
                    assert!(buffer[..filled] == *expected, "{len} bytes at {offset}");
                }
            });
        }
    });
}

#[test]
fn a_mounted_blob_is_read_whole_and_anywhere() {
    let place = Place::new(1, 20 << 20);
    let theirs = place.path("theirs.castr");
    ok(casync().args(args![
        "make",
        format!("--store={}", theirs.display()),
        place.path("theirs.caibx"),
        place.path("source")
    ]));
    let server = cairnd(&place.path("data"));
    let url = format!("{}/store/default/", server.url());
    ok(cairn().args(args![
        "make",
        "-s",
        &url,
        place.path("served.caibx"),
        place.path("source")
    ]));

    for (index, store) in [
        ("blob.caibx", &*place.path("store").to_string_lossy()),
        ("theirs.caibx", &*theirs.to_string_lossy()),
        ("served.caibx", &url),
    ] {
        let mut command = cairn();
        command.args(args!["mount-index", "-s", store, place.path(index), place.path("mnt")]);
        let mount = Mount::start(&mut command, &place.path("mnt"));
        let path = mount.folder.join(index.trim_end_matches(".caibx"));
        let listed = fs::read_dir(&mount.folder).expect("the mount");
        let listed: Vec<PathBuf> = listed.map(|entry| entry.expect("an entry").path()).collect();
        assert_eq!(listed, [path.as_path()]);
        let found = fs::metadata(&path).expect("the file");
        assert_eq!((found.len(), found.mode() & 0o777), (place.bytes.len() as u64, 0o444));
        assert!(fs::read(&path).expect("the whole blob") == place.bytes, "{index}");
        read_anywhere(&path, &place.bytes);
        let refused = File::options().write(true).open(&path).expect_err("it is read-only");
        assert_eq!(refused.raw_os_error(), Some(rustix::io::Errno::ROFS.raw_os_error()));
        let words = mount.end();
        assert!(!words.contains("cannot read"), "{index}: {words}");
    }
}

#[test]
fn an_empty_and_a_tiny_blob_are_mounted() {
    for len in [0, 1, 4096] {
        let place = Place::new(2, len);
        let mount = place.mount("store", &[]);
        assert!(fs::read(mount.blob()).expect("the blob") == place.bytes);
        mount.end();
    }
}

#[test]
fn a_missing_or_damaged_chunk_is_an_error_for_its_own_bytes() {
    let place = Place::new(3, 8 << 20);
    let chunks = place.chunks();
    // One chunk that comes once, so that its bytes are in one place.
    let alone = |from: usize| {
        let once =
            |(id, _): &&(String, std::ops::Range<usize>)| chunks.iter().filter(|(other, _)| other == id).count() == 1;
        chunks[from..]
            .iter()
            .find(once)
            .expect("not everything repeats")
            .clone()
    };
    let (missing, damaged) = (alone(chunks.len() / 3), alone(2 * chunks.len() / 3));
    let away = place.path("away");
    fs::rename(place.chunk_file(&missing.0), &away).expect("the chunk's file");
    fs::write(place.chunk_file(&damaged.0), b"no frame").expect("the chunk's file");

    let mount = place.mount("store", &[]);
    let file = File::open(mount.blob()).expect("the blob");
    let pages = |range: &std::ops::Range<usize>| range.start / 4096 * 4096..range.end.next_multiple_of(4096);
    let bad = [pages(&missing.1), pages(&damaged.1)];
    for at in (0..place.bytes.len()).step_by(4096) {
        let mut page = vec![0; 4096.min(place.bytes.len() - at)];
        match file.read_exact_at(&mut page, at as u64) {
            Ok(()) => {
                assert!(page == place.bytes[at..at + page.len()], "byte {at}");
                assert!(
                    !missing.1.contains(&at) && !damaged.1.contains(&at),
                    "byte {at} is in a bad chunk"
                );
            }
            Err(error) => {
                assert_eq!(
                    error.raw_os_error(),
                    Some(rustix::io::Errno::IO.raw_os_error()),
                    "{error}"
                );
                assert!(bad.iter().any(|bad| bad.contains(&at)), "byte {at} is in no bad chunk");
            }
        }
    }
    // A chunk that comes back is read: nobody remembers the error.
    fs::rename(&away, place.chunk_file(&missing.0)).expect("the chunk's file");
    let mut bytes = vec![0; missing.1.len()];
    file.read_exact_at(&mut bytes, missing.1.start as u64)
        .expect("it is back");
    assert!(bytes == place.bytes[missing.1.clone()]);
    drop(file);
    let words = mount.end();
    assert!(words.contains(&missing.0) && words.contains(&damaged.0), "{words}");
    assert_eq!(words.matches(&missing.0).count(), 1, "{words}");
}

#[test]
fn what_was_read_is_kept_and_taken_up_again() {
    let place = Place::new(4, 16 << 20);
    let half = place.bytes.len() / 2;
    let read_half = |mount: &Mount| {
        let mut bytes = Vec::new();
        let file = File::open(mount.blob()).expect("the blob");
        file.take(half as u64).read_to_end(&mut bytes).expect("the first half");
        assert!(bytes == place.bytes[..half]);
    };
    let options = ["--cor-file", "copies", "--cor-state-save", "state"];
    let mount = place.mount("store", &options);
    read_half(&mount);
    let taken = place
        .command("store", &options)
        .arg("--allow-other")
        .output()
        .expect("a second mount");
    let words = String::from_utf8_lossy(&taken.stderr);
    assert!(words.contains("copies: in use by another mount"), "{words}");
    mount.end();

    // No store has any chunk now: what was read comes from the file, the rest cannot be had.
    let mount = place.mount("empty", &options);
    read_half(&mount);
    let file = File::open(mount.blob()).expect("the blob");
    let random_end = place.chunks().last().expect("a chunk").1.end as u64 - 1;
    file.read_exact_at(&mut [0], random_end).expect_err("it was never read");
    drop(file);
    mount.end();

    // What somebody else wrote into the file is not believed.
    let copies = File::options()
        .write(true)
        .open(place.path("copies"))
        .expect("the copies");
    copies.write_all_at(&[0xaa; 8192], 100_000).expect("a wrong place");
    drop(copies);
    let mount = place.mount("store", &options);
    assert!(fs::read(mount.blob()).expect("the blob") == place.bytes);
    mount.end();
    let mount = place.mount("empty", &options);
    assert!(fs::read(mount.blob()).expect("the blob") == place.bytes);
    mount.end();

    // Without its state the file is looked at chunk by chunk.
    let mount = place.mount("empty", &["--cor-file", "copies"]);
    assert!(fs::read(mount.blob()).expect("the blob") == place.bytes);
    mount.end();

    // Another file is filled from the state.
    let more = [
        "--cor-file",
        "second",
        "--cor-state-save",
        "second.state",
        "--cor-state-init",
        "state",
    ];
    let mount = place.mount("store", &more);
    let wanted = fs::read(place.path("state")).expect("the state");
    loop {
        mount.signal(Signal::HUP);
        if fs::read(place.path("second.state")).is_ok_and(|state| state == wanted) {
            break;
        }
        std::thread::yield_now();
    }
    mount.end();
    let mount = place.mount("empty", &more);
    assert!(fs::read(mount.blob()).expect("the blob") == place.bytes);
    mount.end();
    let words = refused(&mut place.command("store", &["--cor-file", "third", "--cor-state-init", "source"]));
    assert!(
        words.contains("source: its length is not that of a state of this index"),
        "{words}"
    );
}

#[test]
fn the_state_of_copies_is_desyncs() {
    let place = Place::new(5, 8 << 20);
    let theirs = |store: &str| {
        let mut command = desync();
        command.args([
            "mount-index",
            "-s",
            store,
            "--cor-file",
            "copies",
            "--cor-state-save",
            "state",
        ]);
        command.args(["blob.caibx", "mnt"]).current_dir(place.folder.path());
        command
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::piped());
        let mut child = command.spawn().expect("desync is built");
        let words = child.stderr.take().expect("it is piped");
        let mount = Mount {
            child,
            folder: place.path("mnt"),
            words: Some(std::thread::spawn(move || {
                std::io::read_to_string(words).unwrap_or_default()
            })),
        };
        while !mount.blob().exists() {
            std::thread::yield_now();
        }
        mount
    };
    let mount = theirs("store");
    assert!(fs::read(mount.blob()).expect("the blob") == place.bytes);
    mount.end();
    let options = ["--cor-file", "copies", "--cor-state-save", "state"];
    let mount = place.mount("empty", &options);
    assert!(fs::read(mount.blob()).expect("the blob") == place.bytes);
    mount.end();
    fs::remove_file(place.path("copies")).expect("the copies");
    fs::remove_file(place.path("state")).expect("their state");
    let mount = place.mount("store", &options);
    assert!(fs::read(mount.blob()).expect("the blob") == place.bytes);
    mount.end();
    let mount = theirs("empty");
    assert!(fs::read(mount.blob()).expect("the blob") == place.bytes);
    mount.end();
}

#[test]
fn what_is_written_goes_to_the_overlay_alone() {
    let place = Place::new(6, 8 << 20);
    let before = support::chunk_files(&place.path("store"));
    let mut model = place.bytes.clone();
    let mut random = fastrand::Rng::with_seed(6);
    for round in 0..3 {
        let mut mount = place.mount("store", &["--cow", "overlay"]);
        assert!(fs::read(mount.blob()).expect("the blob") == model, "round {round}");
        let file = File::options()
            .read(true)
            .write(true)
            .open(mount.blob())
            .expect("it is writable");
        for _ in 0..50 {
            let offset = random.usize(..model.len());
            let len = random.usize(1..100_000).min(model.len() - offset);
            let bytes: Vec<u8> = std::iter::repeat_with(|| random.u8(..)).take(len).collect();
            file.write_all_at(&bytes, offset as u64).expect("a write");
            model[offset..offset + len].copy_from_slice(&bytes);
            let mut back = vec![0; len.min(1000)];
            file.read_exact_at(&mut back, offset as u64).expect("a read");
            assert!(back == bytes[..back.len()]);
        }
        if round == 1 {
            file.sync_all().expect("a sync");
        }
        let full = file.write_at(b"more", model.len() as u64).expect_err("it cannot grow");
        assert_eq!(full.raw_os_error(), Some(rustix::io::Errno::NOSPC.raw_os_error()));
        assert!(file.set_len(10).is_err(), "it cannot shrink");
        drop(file);
        read_anywhere(&mount.blob(), &model);
        if round == 0 {
            // Killed: what was written before the file was closed is there all the same.
            mount.child.kill().expect("our own child");
            mount.wait();
            ok(Command::new("fusermount3").args(["-u", "-z"]).arg(place.path("mnt")));
        } else {
            mount.end();
        }
    }
    let mount = place.mount("store", &["--cow", "overlay", "--cor-file", "copies"]);
    assert!(fs::read(mount.blob()).expect("the blob") == model);
    mount.end();
    assert!(
        support::chunk_files(&place.path("store")) == before,
        "the store was written to"
    );
    let mount = place.mount("store", &[]);
    assert!(fs::read(mount.blob()).expect("the blob") == place.bytes);
    mount.end();

    fs::write(place.path("other"), b"another blob").expect("a file");
    ok(cairn().args(args![
        "make",
        "-s",
        place.path("store"),
        place.path("blob.caibx"),
        place.path("other")
    ]));
    let words = refused(&mut place.command("store", &["--cow", "overlay"]));
    assert!(words.contains("overlay.map: the overlay of another index"), "{words}");
    let words = refused(&mut place.command("store", &["--cow", "source"]));
    assert!(words.contains("source: not an overlay"), "{words}");
    assert!(
        fs::read(place.path("source")).expect("the source") == place.bytes,
        "it was touched"
    );
}

#[test]
fn a_mount_in_use_frees_its_folder_at_once_and_serves_what_is_open() {
    let place = Place::new(7, 8 << 20);
    let mut mount = place.mount("store", &[]);
    let mut file = File::open(mount.blob()).expect("the blob");
    mount.signal(Signal::INT);
    while mounts().contains(&*mount.folder.to_string_lossy()) {
        std::thread::yield_now();
    }
    let mut bytes = Vec::new();
    file.seek(SeekFrom::Start(1 << 20)).expect("a seek");
    file.read_to_end(&mut bytes).expect("it is served");
    assert!(bytes == place.bytes[1 << 20..]);
    drop(file);
    let (status, words) = (mount.wait(), mount.words());
    assert!(
        status.success() && words.contains("another signal ends it now"),
        "{status} {words}"
    );
    assert_gone(&mount.folder);

    let mut mount = place.mount("store", &[]);
    let file = File::open(mount.blob()).expect("the blob");
    mount.signal(Signal::TERM);
    while mounts().contains(&*mount.folder.to_string_lossy()) {
        std::thread::yield_now();
    }
    mount.signal(Signal::TERM);
    assert_eq!(mount.wait().code(), Some(130));
    drop(file);

    // Somebody else's unmount ends it too.
    let mut mount = place.mount("store", &[]);
    ok(Command::new("fusermount3").arg("-u").arg(&mount.folder));
    let (status, words) = (mount.wait(), mount.words());
    assert!(status.success(), "{status} {words}");
    assert_gone(&mount.folder);
}

#[test]
fn what_is_in_the_way_of_a_mount_is_said() {
    let place = Place::new(8, 100_000);
    let says = |folder: &str, words: &str| {
        let mut command = cairn();
        command.args(["mount-index", "-s", "store", "blob.caibx", folder]);
        let said = refused(command.current_dir(place.folder.path()));
        assert!(said.contains(words), "{said}");
        assert_eq!(said.lines().count(), 1, "{said}");
    };
    says("nowhere", "nowhere: cannot mount: cannot open the folder");
    says("source", "source: cannot mount: cannot open the folder");
    says("store", "store: cannot mount: the folder is not empty");
    let words = refused(&mut place.command("nostore", &[]));
    assert!(words.contains("nostore"), "{words}");
    assert_gone(&place.path("mnt"));
}

/// Goal: no name becomes a mount option (casync issue 273).
#[test]
fn names_never_become_mount_options() {
    let place = Place::new(9, 100_000);
    let name = "x,allow_other,suid,dev,subtype=y";
    fs::rename(place.path("blob.caibx"), place.path(&format!("{name}.caibx"))).expect("the index");
    let folder = place.path("mnt,allow_other,suid");
    fs::create_dir(&folder).expect("a folder");
    let mut command = cairn();
    command.args(args![
        "mount-index",
        "-s",
        place.path("store"),
        place.path(&format!("{name}.caibx")),
        &folder
    ]);
    let mount = Mount::start(&mut command, &folder);
    let mounts = mounts();
    let line = mounts
        .lines()
        .find(|line| line.contains(&*folder.to_string_lossy()))
        .expect("it is mounted");
    let fields: Vec<&str> = line.split(' ').collect();
    assert!(
        line.contains(" - fuse.cairn cairn ") || line.contains(" - fuse cairn "),
        "{line}"
    );
    assert!(fields[5].split(',').any(|option| option == "nosuid"), "{line}");
    assert!(fields[5].split(',').any(|option| option == "nodev"), "{line}");
    assert!(!fields[fields.len() - 1].contains("allow_other"), "{line}");
    assert!(fs::read(folder.join(name)).expect("the blob") == place.bytes);
    mount.end();
}

/// Goal: a user without rights mounts through `fusermount3`, nobody else sees the mount, and a missing right or program is said
/// in a plain word.
/// Method: in mounts of our own, since where no udev runs `/dev/fuse` is open to root alone.
#[test]
fn users_who_may_not_mount_go_through_fusermount3() {
    let place = Place::new(10, 1 << 20);
    copy_of_cairn(&place.path("cairn"));
    fs::set_permissions(place.folder.path(), fs::Permissions::from_mode(0o777)).expect("our folder");
    std::os::unix::fs::chown(place.path("mnt"), Some(65534), Some(65534)).expect("these tests run as root");
    let run = |script: &str| {
        let nobody = "setpriv --reuid=65534 --regid=65534 --clear-groups";
        let script = format!(
            "set -e; mkdir dev; mount -t tmpfs none dev; mknod dev/fuse c 10 229; mount --bind dev/fuse /dev/fuse\n\
             start() {{ {nobody} ./cairn mount-index -s store blob.caibx mnt; }}\n\
             {script}\numount /dev/fuse; umount dev; rmdir dev"
        );
        let mut command = Command::new("unshare");
        command
            .args(["-m", "bash", "-c", &script])
            .current_dir(place.folder.path());
        command.env("HOME", place.folder.path());
        let output = support::run(&mut command);
        let words = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(output.status.success(), "{script}\n{}\n{words}", output.status);
        words
    };
    run(
        "chmod 666 /dev/fuse; start >ready & until grep -qs mounted ready; do kill -0 $!; done\n\
         setpriv --reuid=65534 --regid=65534 --clear-groups cat mnt/blob >seen\n\
         ! cat mnt/blob\n\
         setpriv --reuid=65534 --regid=65534 --clear-groups fusermount3 -u mnt; wait $!",
    );
    assert!(fs::read(place.path("seen")).expect("what the user saw") == place.bytes);
    let words = run("chmod 600 /dev/fuse; ! start");
    assert!(words.contains("/dev/fuse is not open to this user"), "{words}");
    let words = run("chmod 666 /dev/fuse; export FUSERMOUNT_PATH=/nowhere/fusermount3; ! start");
    assert!(
        words.contains("only root may mount") && words.contains("Debian: fuse3"),
        "{words}"
    );
    assert_gone(&place.path("mnt"));
}

#[test]
fn the_store_file_of_a_mount_is_read_again() {
    let place = Place::new(11, 8 << 20);
    let name = |store: &str| format!("{{\"stores\": [{:?}], \"cache\": \"\"}}", place.path(store));
    fs::write(place.path("stores.json"), name("empty")).expect("the store file");
    let mut command = cairn();
    command.args(args!["mount-index", "--store-file", place.path("stores.json")]);
    command.args(args![place.path("blob.caibx"), place.path("mnt")]);
    let mount = Mount::start(&mut command, &place.path("mnt"));
    fs::read(mount.blob()).expect_err("the store is empty");
    fs::write(place.path("stores.json"), name("store")).expect("the store file");
    mount.signal(Signal::HUP);
    let bytes = loop {
        if let Ok(bytes) = fs::read(mount.blob()) {
            break bytes;
        }
    };
    assert!(bytes == place.bytes);
    mount.end();
}

/// Goal: a file system inside a mounted blob can be used and written, and is sound and whole when the overlay is mounted again.
#[test]
fn a_file_system_in_a_blob_is_written_through_the_overlay() {
    let place = Place::new(12, 0);
    let image = File::create(place.path("source")).expect("an image");
    image.set_len(16 << 20).expect("room");
    ok(Command::new("mkfs.ext4").args(["-q", "-F"]).arg(place.path("source")));
    ok(cairn().args(args![
        "make",
        "-s",
        place.path("store"),
        place.path("blob.caibx"),
        place.path("source")
    ]));
    let inner = place.path("inner");
    fs::create_dir(&inner).expect("a folder");
    let written = input(12, 3 << 20);
    for round in 0..2 {
        let mount = place.mount("store", &["--cow", "overlay"]);
        ok(Command::new("mount").args(["-o", "loop"]).arg(mount.blob()).arg(&inner));
        if round == 0 {
            fs::write(inner.join("file"), &written).expect("a file inside");
        }
        let read = fs::read(inner.join("file"));
        // A child that another test has just forked holds our files until it runs its program.
        while !support::run(Command::new("umount").arg(&inner)).status.success() {
            std::thread::yield_now();
        }
        assert!(read.expect("the file inside") == written, "round {round}");
        ok(Command::new("fsck.ext4").args(["-n", "-f"]).arg(mount.blob()));
        mount.end();
    }
}
