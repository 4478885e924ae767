//! `cairn store`, and the other verbs on packs, as a script sees them.

mod support;

use std::fs;
use std::path::PathBuf;
use std::process::Command;
use std::time::{Duration, Instant};

use support::Folder;

/// A test that waits longer has found a hang.
const HANG: Duration = Duration::from_secs(120);

impl Folder {
    /// With `blob`, `blob.caibx` and its chunks in the flat folder `flat`.
    fn new(len: usize) -> Self {
        let folder = Self::empty();
        let mut random = fastrand::Rng::with_seed(5);
        let bytes: Vec<u8> = std::iter::repeat_with(|| random.u8(..)).take(len).collect();
        fs::write(folder.path("blob"), bytes).expect("a file");
        folder.ok(&["make", "-s", "flat", "blob.caibx", "blob"]);
        folder
    }

    fn packs(&self, store: &str) -> Vec<PathBuf> {
        let listed = fs::read_dir(self.path(store))
            .expect("a store")
            .flatten()
            .map(|entry| entry.path());
        let mut packs: Vec<PathBuf> = listed
            .filter(|path| path.extension().is_some_and(|end| end == "pack"))
            .collect();
        packs.sort();
        packs
    }

    fn ids(&self, store: &str) -> Vec<String> {
        let listed = self.ok(&["store", "ls", store]);
        let mut ids: Vec<String> = listed.lines().map(|line| line[..64].to_owned()).collect();
        ids.sort();
        ids
    }
}

#[test]
fn packs_are_a_store_like_any_other() {
    let folder = Folder::new(2_000_000);
    folder.ok(&["store", "init", "packs"]);
    folder.ok(&["make", "-s", "packs", "again.caibx", "blob"]);
    folder.ok(&["extract", "-s", "packs", "again.caibx", "copy"]);
    assert!(fs::read(folder.path("copy")).unwrap() == fs::read(folder.path("blob")).unwrap());
    assert_eq!(folder.ids("packs"), folder.ids("flat"));
    folder.ok(&["verify", "-s", "packs"]);
    folder.ok(&["store", "verify", "packs"]);
    let stat = folder.json(&["--json", "store", "stat", "packs", "blob.caibx"]);
    assert_eq!(
        (&stat["kind"], &stat["bytes-unique"]),
        (&"packs".into(), &2_000_000.into())
    );
    assert_eq!(
        (&stat["bytes-logical"], &stat["chunks-missing"]),
        (&2_000_000.into(), &0.into())
    );
    let flat = folder.json(&["--json", "store", "stat", "flat"]);
    assert_eq!(flat["chunks"], stat["chunks"]);
    assert_eq!(folder.ok(&["store", "ls", "--packs", "packs"]).lines().count(), 1);
    // What packs cannot do is said, and nothing is left.
    let words = folder.fails(1, &["make", "-u", "-s", "packs", "plain.caibx", "blob"]);
    assert!(words.contains("--uncompressed"), "{words}");
    folder.fails(1, &["store", "init", "flat"]);
    folder.fails(1, &["store", "export", "flat", "packs"]);
    folder.fails(2, &["store", "ls", "--packs", "flat"]);
    folder.fails(2, &["store", "gc", "flat"]);
    folder.fails(2, &["store", "copy", "http://127.0.0.1:9/", "packs"]);
}

#[test]
fn a_damaged_pack_is_named_healed_and_collected() {
    let folder = Folder::new(2_000_000);
    folder.ok(&["store", "copy", "--packs", "flat", "packs"]);
    let pack = folder.packs("packs").remove(0);
    let mut bytes = fs::read(&pack).unwrap();
    bytes[5000] ^= 1;
    fs::write(&pack, bytes).unwrap();
    let words = folder.fails(3, &["store", "verify", "packs"]);
    assert!(words.contains("1 of"), "{words}");
    folder.fails(3, &["store", "verify", "-r", "packs"]);
    folder.ok(&["store", "copy", "flat", "packs"]);
    folder.ok(&["extract", "-s", "packs", "blob.caibx", "copy"]);
    assert!(fs::read(folder.path("copy")).unwrap() == fs::read(folder.path("blob")).unwrap());
    // Nothing of it is wanted but the chunks of a smaller blob.
    fs::write(folder.path("small"), [7; 100_000]).unwrap();
    folder.ok(&["make", "-s", "packs", "small.caibx", "small"]);
    folder.fails(2, &["store", "gc", "packs", "small.caibx"]);
    let told = folder.json(&["--json", "store", "gc", "--dry-run", "packs", "small.caibx"]);
    assert!(told["deleted"].as_u64().unwrap() > 10, "{told}");
    assert_eq!(folder.ids("packs").len() as u64, told["chunks"].as_u64().unwrap());
    folder.ok(&["store", "gc", "-y", "packs", "small.caibx"]);
    let left: u64 = folder
        .packs("packs")
        .iter()
        .map(|pack| pack.metadata().unwrap().len())
        .sum();
    assert!(left < 200_000, "{left} bytes are left");
    folder.ok(&["extract", "-s", "packs", "small.caibx", "copy"]);
    folder.ok(&["store", "verify", "packs"]);
}

#[test]
fn packs_are_compressed_anew() {
    let folder = Folder::new(100_000);
    folder.ok(&["store", "copy", "--packs", "flat", "packs"]);
    let text: String = (0..200_000).map(|number| format!("{number}\n")).collect();
    fs::write(folder.path("text"), &text).unwrap();
    folder.ok(&["make", "-s", "packs", "text.caibx", "text"]);
    let ids = folder.ids("packs");
    folder.fails(2, &["store", "gc", "--recompress", "19", "flat", "blob.caibx"]);
    folder.fails(2, &["store", "gc", "--recompress", "23", "packs"]);
    let told = folder.json(&["--json", "store", "gc", "--recompress", "19", "packs"]);
    let number = |name: &str| told[name].as_u64().unwrap();
    assert!(
        number("packs-recompressed") >= 1 && number("bytes-after") < number("bytes-before"),
        "{told}"
    );
    assert_eq!(folder.ids("packs"), ids);
    folder.ok(&["extract", "-s", "packs", "text.caibx", "copy"]);
    assert_eq!(fs::read_to_string(folder.path("copy")).unwrap(), text);
    folder.ok(&["store", "verify", "packs"]);
    let again = folder.json(&[
        "--json",
        "store",
        "gc",
        "--recompress",
        "19",
        "--recompress-rate",
        "100M",
        "packs",
    ]);
    assert_eq!(again["packs-recompressed"], 0);
}

/// Goal: a copy from a flat folder into packs and back goes on where it was killed, and ends with the same chunks.
/// Method: each copy is killed twice and more as soon as its target has grown; then it may end.
#[test]
fn a_copy_into_packs_and_back_goes_on_where_it_was_killed() {
    let folder = Folder::new(48 << 20);
    folder.ok(&["store", "init", "packs"]);
    let size = |store: &str| -> u64 {
        let output = Command::new("du")
            .args(["-sb", "--"])
            .arg(folder.path(store))
            .output()
            .expect("du");
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        text.split_whitespace()
            .next()
            .expect("a size")
            .parse()
            .expect("a number")
    };
    fs::create_dir(folder.path("back")).unwrap();
    for (from, to) in [("flat", "packs"), ("packs", "back")] {
        for _kill in 0..5 {
            let before = size(to);
            let mut child = folder
                .command(&["store", "copy", from, to])
                .spawn()
                .expect("cairn is built");
            let begun = Instant::now();
            while size(to) <= before && child.try_wait().unwrap().is_none() {
                assert!(begun.elapsed() < HANG, "nothing comes");
            }
            let _ = child.kill();
            child.wait().unwrap();
        }
        folder.ok(&["store", "copy", from, to]);
        assert_eq!(folder.ids(from), folder.ids(to));
        folder.ok(&["store", "verify", to]);
        let again = folder.json(&["--json", "store", "copy", from, to]);
        assert_eq!(again["copied"], 0, "{again}");
    }
    folder.ok(&["extract", "-s", "back", "blob.caibx", "copy"]);
    assert!(fs::read(folder.path("copy")).unwrap() == fs::read(folder.path("blob")).unwrap());
}

/// A mirror of packs and a flat folder is written as a whole, and read while either half is gone; so is one by name, with a
/// cache in front.
#[test]
fn a_mirror_is_written_to_both_and_read_from_either() {
    let folder = Folder::new(600_000);
    folder.ok(&["store", "init", "packs"]);
    let config = r#"{"stores": {"both": {"stores": ["mirror:packs|files", "flat"], "cache": "cache"}}}"#;
    fs::create_dir_all(folder.path("config/cairn")).expect("a folder");
    fs::write(folder.path("config/cairn/config.json"), config).expect("a file");
    for (store, index) in [("mirror:packs|files", "a.caibx"), ("@both", "b.caibx")] {
        folder.ok(&["make", "-s", store, index, "blob"]);
    }
    let same = |store: &str| {
        folder.ok(&["extract", "-s", store, "a.caibx", "out"]);
        assert!(fs::read(folder.path("out")).expect("a file") == fs::read(folder.path("blob")).expect("a file"));
        fs::remove_file(folder.path("out")).expect("it is there");
    };
    ["packs", "files", "mirror:packs|files", "mirror-1:files|packs", "@both"]
        .iter()
        .for_each(|store| same(store));
    assert_eq!(folder.ids("packs"), folder.ids("files"));
    assert_eq!(folder.ids("cache"), folder.ids("files"));
    // Each half lacks something.
    let ids = folder.ids("files");
    for id in &ids[..5] {
        fs::remove_file(folder.path(&format!("files/{}/{id}.cacnk", &id[..4]))).expect("it is there");
    }
    same("mirror:packs|files");
    assert_eq!(folder.ids("files").len(), ids.len() - 5);
    // Writing the same again brings it back.
    folder.ok(&["make", "-s", "mirror:packs|files", "c.caibx", "blob"]);
    assert_eq!(folder.ids("files"), ids);
    folder.ok(&["prune", "-y", "-s", "mirror:packs|files", "a.caibx"]);
    assert_eq!(folder.ids("files"), ids);
    folder.ok(&["make", "-s", "flat", "none.caibx", "/dev/null"]);
    folder.ok(&["prune", "-y", "-s", "@both", "none.caibx"]);
    assert!(folder.ids("files").is_empty() && folder.ids("packs").is_empty());

    let words = folder.fails(2, &["cat", "-s", "@nobody", "a.caibx"]);
    assert!(
        words.contains("@nobody") && words.contains("no store of this name"),
        "{words}"
    );
    let words = folder.fails(2, &["cat", "-s", "mirror:packs", "a.caibx"]);
    assert!(words.contains("mirror-N:a|b"), "{words}");
}

/// A half that cannot be written is named: an error, or a warning where the other is enough.
#[test]
fn a_half_that_is_down_is_named() {
    let folder = Folder::new(100_000);
    let down = "mirror:files|http://127.0.0.1:9/store/";
    let words = folder.fails(1, &["make", "-e", "1", "-s", down, "a.caibx", "blob"]);
    assert!(words.contains("http://127.0.0.1:9/store/"), "{words}");
    assert!(!folder.path("a.caibx").exists());
    let output = folder.run(&[
        "make",
        "-e",
        "1",
        "-s",
        &down.replace("mirror", "mirror-1"),
        "a.caibx",
        "blob",
    ]);
    let words = String::from_utf8(output.stderr).expect("text");
    assert!(output.status.success(), "{words}");
    assert!(
        words.contains("cairn: warning: mirror-1:") && words.contains("127.0.0.1:9/store/ lacks"),
        "{words}"
    );
    folder.ok(&["extract", "-s", "files", "a.caibx", "out"]);
}

/// Goal: 100 planted flips in packs are 100 healed chunks with another store, be it a folder or the rest of a mirror, and 100
/// named chunks without.
#[test]
fn a_hundred_flips_are_healed_from_another_store() {
    let folder = Folder::new(14 << 20);
    let ids = folder.ids("flat");
    assert!(ids.len() >= 150, "{}", ids.len());
    let damaged = |name: &str| {
        folder.ok(&["store", "copy", "flat", name, "--packs"]);
        let listed = folder.ok(&["store", "ls", name]);
        for line in listed.lines().take(100) {
            // `id bytes plain-bytes pack:offset`
            let words: Vec<&str> = line.split(' ').collect();
            let (pack, offset) = words[3].split_once(':').expect("a place");
            let pack = folder
                .packs(name)
                .remove(usize::from_str_radix(pack, 16).expect("hex") - 1);
            flip(
                &pack,
                offset.parse::<u64>().expect("a number") + words[1].parse::<u64>().expect("a number") / 2,
            );
        }
        listed.lines().last().expect("it has some")[..64].to_owned()
    };
    damaged("alone");
    let words = folder.fails(3, &["store", "verify", "alone"]);
    assert!(words.contains("100 of"), "{words}");
    damaged("a");
    let told = folder.json(&["store", "verify", "a", "--repair", "--from", "flat", "--json"]);
    assert_eq!(
        (&told["bad"], &told["healed"], &told["removed"]),
        (&100.into(), &100.into(), &0.into()),
        "{told}"
    );
    assert_eq!(folder.ids("a"), ids);
    folder.ok(&["extract", "-s", "a", "blob.caibx", "out"]);
    // A mirror of packs and files, each with its own damage.
    let last = damaged("b");
    folder.ok(&["store", "copy", "flat", "c"]);
    fs::remove_file(folder.path(&format!("c/{}/{last}.cacnk", &last[..4]))).expect("it is there");
    let lines = folder.ok(&["store", "verify", "-r", "mirror:b|c"]);
    assert!(
        lines.contains("100 bad, 100 healed") && lines.contains("c: 1 chunks that it lacked"),
        "{lines}"
    );
    for name in ["b", "c"] {
        assert_eq!(folder.ids(name), ids);
        folder.ok(&["extract", "-s", name, "blob.caibx", "out"]);
    }
    folder.ok(&["store", "gc", "b"]);
    // What nobody has is removed, so that it can be stored again.
    let told = folder.run(&["store", "verify", "alone", "-r", "--from", "none", "--json"]);
    assert_eq!(told.status.code(), Some(1));
    fs::create_dir(folder.path("none")).expect("a folder");
    let told = folder.fails(3, &["store", "verify", "alone", "-r", "--from", "none"]);
    assert!(told.contains("not to be had elsewhere"), "{told}");
    folder.ok(&["store", "copy", "flat", "alone"]);
    folder.ok(&["extract", "-s", "alone", "blob.caibx", "out"]);
}

fn flip(file: &std::path::Path, at: u64) {
    use std::os::unix::fs::FileExt as _;
    let file = fs::File::options().read(true).write(true).open(file).expect("a pack");
    let mut byte = [0];
    file.read_exact_at(&mut byte, at).expect("it is long enough");
    file.write_all_at(&[byte[0] ^ 0x10], at).expect("it can be written");
}
