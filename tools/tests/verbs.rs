//! Every verb as a script sees it: what it prints, what it leaves, its exit code, its words for bad input.

mod support;

use std::fs;
use std::io::Write as _;
use std::path::PathBuf;
use std::process::Stdio;

use support::Folder;

impl Folder {
    /// With `old` and `new`, their indexes and one store for both.
    fn new() -> Self {
        let folder = Self::empty();
        let old = noise(1, 1_500_000);
        let mut new = old.clone();
        new[700_000..800_000].fill(3);
        for (name, bytes) in [("old", &old), ("new", &new)] {
            fs::write(folder.path(name), bytes).expect("a file");
            folder.ok(&["make", "-s", "store", &format!("{name}.caibx"), name]);
        }
        folder
    }

    /// Must end with `code` and one line; the line.
    #[track_caller]
    fn says(&self, code: i32, arguments: &[&str]) -> String {
        let words = self.fails(code, arguments);
        assert_eq!(words.trim_end().lines().count(), 1, "{words}");
        words
    }

    /// The file of one of a store's chunks.
    fn a_chunk(&self, store: &str) -> PathBuf {
        let first = |folder: PathBuf| {
            fs::read_dir(folder)
                .expect("a folder")
                .flatten()
                .next()
                .expect("an entry")
                .path()
        };
        first(first(self.path(store)))
    }

    fn chunks(&self, store: &str) -> usize {
        let prefixes = fs::read_dir(self.path(store)).expect("a store").flatten();
        prefixes
            .map(|prefix| fs::read_dir(prefix.path()).expect("a folder").count())
            .sum()
    }
}

fn noise(seed: u64, len: usize) -> Vec<u8> {
    let mut random = fastrand::Rng::with_seed(seed);
    std::iter::repeat_with(|| random.u8(..)).take(len).collect()
}

#[test]
fn make_from_a_pipe_writes_the_same_index_to_a_pipe() {
    let folder = Folder::new();
    let mut command = folder.command(&["make", "-s", "piped", "-", "-"]);
    let mut child = command
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .expect("cairn is built");
    let bytes = fs::read(folder.path("old")).expect("a file");
    child
        .stdin
        .take()
        .expect("a pipe")
        .write_all(&bytes)
        .expect("cairn reads");
    let output = child.wait_with_output().expect("our own child");
    assert!(output.status.success());
    assert!(output.stdout == fs::read(folder.path("old.caibx")).expect("an index"));
    folder.ok(&["extract", "-s", "piped", "old.caibx", "out"]);
    assert!(fs::read(folder.path("out")).expect("an output") == bytes);
}

#[test]
fn dry_runs_tell_and_change_nothing() {
    let folder = Folder::new();
    fs::write(folder.path("third"), noise(3, 400_000)).expect("a file");
    let before = folder.chunks("store");
    folder.ok(&["make", "--dry-run", "-s", "store", "third.caibx", "third"]);
    assert!(!folder.path("third.caibx").exists());
    let told = folder.json(&["--json", "prune", "--dry-run", "-s", "store", "old.caibx"]);
    assert!(told["deleted"].as_u64() > Some(0), "{told}");
    let told = folder.json(&["--json", "cache", "--dry-run", "-s", "store", "-c", "copy", "old.caibx"]);
    assert!(told["copied"].as_u64() > Some(0), "{told}");
    assert_eq!((folder.chunks("store"), folder.chunks("copy")), (before, 0));
}

#[test]
fn extract_reports_where_bytes_came_from() {
    let folder = Folder::new();
    let told = folder.json(&[
        "--json",
        "extract",
        "--seed",
        "old.caibx:old",
        "-s",
        "store",
        "new.caibx",
        "out",
    ]);
    assert_eq!(told["bytes-total"], 1_500_000);
    assert!(
        told["bytes-copied-from-seeds"]
            .as_u64()
            .max(told["bytes-cloned-from-seeds"].as_u64())
            > Some(1_000_000),
        "{told}"
    );
    assert!(fs::read(folder.path("out")).expect("an output") == fs::read(folder.path("new")).expect("a file"));
    let told = folder.json(&[
        "--json",
        "extract",
        "-k",
        "--seed-dir",
        ".",
        "-s",
        "store",
        "new.caibx",
        "out",
    ]);
    assert_eq!(told["bytes-in-place"], 1_500_000);
}

#[test]
fn ranges_of_a_blob_are_written_exactly() {
    let folder = Folder::new();
    let bytes = fs::read(folder.path("old")).expect("a file");
    for (offset, length, expected) in [
        (0, 0, &bytes[..]),
        (1_499_999, 5, &bytes[1_499_999..]),
        (1_500_000, 0, &[]),
        (65_536, 131_072, &bytes[65_536..196_608]),
    ] {
        let (offset, length) = (offset.to_string(), length.to_string());
        folder.ok(&["cat", "-s", "store", "-o", &offset, "-l", &length, "old.caibx", "part"]);
        assert!(
            fs::read(folder.path("part")).expect("an output") == expected,
            "{offset} {length}"
        );
    }
    let words = folder.says(1, &["cat", "-s", "store", "-o", "1500001", "old.caibx"]);
    assert!(words.contains("1500000 bytes"), "{words}");
}

#[test]
fn verify_ends_with_3_repair_removes_and_chop_heals() {
    let folder = Folder::new();
    folder.ok(&["verify", "-s", "store"]);
    let chunk = folder.a_chunk("store");
    fs::remove_file(&chunk).expect("a file");
    fs::write(&chunk, b"garbage").expect("a file");
    let output = folder.run(&["--json", "verify", "-s", "store"]);
    assert_eq!(output.status.code(), Some(3));
    let told: serde_json::Value = serde_json::from_slice(&output.stdout).expect("JSON");
    let name = chunk.file_stem().expect("a name").to_string_lossy().into_owned();
    assert!(
        told["bad"] == 1 && told["bad-chunks"][0].as_str().is_some_and(|line| line.contains(&name)),
        "{told}"
    );
    assert!(chunk.exists());
    assert_eq!(folder.run(&["verify", "-r", "-s", "store"]).status.code(), Some(3));
    assert!(!chunk.exists());
    folder.ok(&["chop", "-s", "store", "old.caibx", "old"]);
    folder.ok(&["chop", "-s", "store", "new.caibx", "new"]);
    folder.ok(&["extract", "-s", "store", "old.caibx", "out"]);
}

#[test]
fn verify_index_names_offset_and_chunk() {
    let folder = Folder::new();
    folder.ok(&["verify-index", "old.caibx", "old"]);
    let words = folder.says(1, &["verify-index", "old.caibx", "new"]);
    assert!(
        words.contains("new: at byte ") && words.contains("names chunk"),
        "{words}"
    );
    let output = folder.run(&["--json", "verify-index", "--keep-going", "old.caibx", "new"]);
    assert_eq!(output.status.code(), Some(3));
    let told: serde_json::Value = serde_json::from_slice(&output.stdout).expect("JSON");
    assert!(told["bad"].as_u64() > Some(1), "{told}");
    fs::write(
        folder.path("short"),
        &fs::read(folder.path("old")).expect("a file")[..1_000_000],
    )
    .expect("a file");
    let words = folder.says(1, &["verify-index", "old.caibx", "short"]);
    assert!(words.contains("1000000 bytes") && words.contains("1500000"), "{words}");
}

#[test]
fn info_and_diff_agree_about_what_is_missing() {
    let folder = Folder::new();
    let info = folder.json(&[
        "info",
        "-s",
        "store",
        "--seed",
        "old.caibx:old",
        "--chunks-info",
        "new.caibx",
    ]);
    let diff = folder.json(&["--json", "diff", "-s", "store", "old.caibx", "new.caibx"]);
    assert_eq!(info["dedup-size-not-in-seed"], diff["bytes-missing"]);
    assert_eq!(info["not-in-seed-nor-cache"], diff["chunks-missing"]);
    assert_eq!(
        info["dedup-size-not-in-seed-nor-cache-compressed"],
        diff["bytes-missing-stored"]
    );
    assert_eq!(info["in-store"], info["unique"]);
    assert!(
        folder
            .ok(&["info", "-f", "plain", "new.caibx"])
            .contains("Blob size: 1500000\n")
    );
    let same = folder.json(&["--json", "diff", "old.caibx", "old.caibx"]);
    assert_eq!(same["chunks-missing"], 0);
}

#[test]
fn lists_and_inspections_agree() {
    let folder = Folder::new();
    let ids = folder.ok(&["list-chunks", "old.caibx"]);
    let json = folder.json(&["--json", "list-chunks", "old.caibx"]);
    assert_eq!(json.as_array().map(Vec::len), Some(ids.lines().count()));
    let inspected = folder.json(&["inspect-chunks", "-s", "store", "old.caibx"]);
    assert_eq!(inspected[0]["id"], ids.lines().next().expect("a chunk"));
    assert!(inspected[0]["compressed_size"].as_u64() > Some(0));
    let cut = folder.ok(&["chunk", "old"]);
    let named: Vec<&str> = cut.lines().filter_map(|line| line.split('\t').nth(2)).collect();
    assert_eq!(named, ids.lines().collect::<Vec<_>>());
}

#[test]
fn cache_ignores_what_it_is_told_and_goes_on_past_what_is_missing() {
    let folder = Folder::new();
    folder.ok(&[
        "cache",
        "-s",
        "store",
        "-c",
        "delta",
        "--ignore",
        "old.caibx",
        "new.caibx",
    ]);
    let delta = folder.chunks("delta");
    assert!(delta > 0 && delta < folder.chunks("store") / 2, "{delta}");
    fs::write(folder.path("known.txt"), folder.ok(&["list-chunks", "old.caibx"])).expect("a file");
    folder.ok(&[
        "cache",
        "-s",
        "store",
        "-c",
        "listed",
        "--ignore-chunks",
        "known.txt",
        "new.caibx",
    ]);
    assert_eq!(folder.chunks("listed"), delta);
    let words = folder.says(1, &["cache", "-s", "delta", "-c", "copy", "new.caibx"]);
    assert!(words.contains("chunk ") && words.contains("delta"), "{words}");
    let output = folder.run(&["cache", "--keep-going", "-s", "delta", "-c", "copy", "new.caibx"]);
    assert_eq!(output.status.code(), Some(3));
    assert_eq!(folder.chunks("copy"), delta);
    // One store after the other has them all.
    folder.ok(&["cache", "-s", "delta", "-s", "store", "-c", "copy", "new.caibx"]);
    folder.ok(&["extract", "-s", "copy", "new.caibx", "out"]);
}

#[test]
fn prune_wants_a_yes() {
    let folder = Folder::new();
    let before = folder.chunks("store");
    let words = folder.says(2, &["prune", "-s", "store", "old.caibx"]);
    assert!(words.contains("-y"), "{words}");
    assert_eq!(folder.chunks("store"), before);
    folder.ok(&["prune", "-y", "-s", "store", "old.caibx"]);
    assert!(folder.chunks("store") < before);
    folder.ok(&["extract", "-s", "store", "old.caibx", "out"]);
    folder.says(1, &["extract", "-s", "store", "new.caibx", "out"]);
}

#[test]
fn convert_gives_a_store_with_the_same_chunks() {
    let folder = Folder::new();
    folder.ok(&["convert", "-s", "store", "-u", "plain"]);
    folder.ok(&["convert", "-s", "plain", "--compression-level", "19", "again"]);
    assert_eq!(folder.chunks("plain"), folder.chunks("store"));
    for store in ["plain", "again"] {
        folder.ok(&["extract", "-s", store, "new.caibx", "out"]);
        assert!(fs::read(folder.path("out")).expect("an output") == fs::read(folder.path("new")).expect("a file"));
    }
}

#[test]
fn a_cache_fills_and_then_serves_alone() {
    let folder = Folder::new();
    folder.ok(&["extract", "-s", "store", "-c", "cache", "old.caibx", "out"]);
    fs::create_dir(folder.path("empty")).expect("a folder");
    folder.ok(&["extract", "-s", "empty", "-c", "cache", "old.caibx", "again"]);
    assert!(fs::read(folder.path("again")).expect("an output") == fs::read(folder.path("old")).expect("a file"));
}

#[test]
fn bad_input_is_one_line_that_names_it_and_the_same_as_an_object() {
    let folder = Folder::new();
    fs::write(folder.path("garbage.caibx"), vec![0x55; 500]).expect("a file");
    for (code, arguments, named) in [
        (
            1,
            &["extract", "-s", "store", "absent.caibx", "out"][..],
            "absent.caibx",
        ),
        (1, &["extract", "-s", "store", "garbage.caibx", "out"], "garbage.caibx"),
        (1, &["extract", "-s", "absent", "old.caibx", "out"], "absent"),
        (2, &["extract", "old.caibx", "out"], "-s"),
        (
            1,
            &["extract", "-s", "oci+https://host/r", "old.caibx", "out"],
            "not in a planned release",
        ),
        (2, &["extract", "-s", "htp://host", "old.caibx", "out"], "htp"),
        (1, &["make", "x.caibx", "absent"], "absent"),
        (1, &["make", "x.caibx", "."], "folder"),
        (1, &["chop", "-s", "store", "old.caibx", "new"], "at byte"),
        (1, &["list-chunks", "garbage.caibx"], "byte 8"),
        (
            1,
            &["--config", "absent.json", "list-chunks", "old.caibx"],
            "absent.json",
        ),
        (
            1,
            &["--config", "old", "list-chunks", "old.caibx"],
            "not a configuration",
        ),
    ] {
        let words = folder.says(code, arguments);
        assert!(
            words.starts_with("cairn: ") && words.contains(named),
            "{arguments:?}: {words}"
        );
        let object = folder.says(code, &[&["--json"], arguments].concat());
        let object: serde_json::Value = serde_json::from_str(&object).expect("JSON");
        assert_eq!(object["error"]["exit_code"], code);
        let message = object["error"]["message"].as_str().expect("a message");
        assert!(words.contains(message), "{words} / {message}");
    }
    assert!(!folder.path("out").exists() && !folder.path("x.caibx").exists());
}

#[test]
fn the_configuration_file_is_desyncs() {
    let folder = Folder::new();
    let text = r#"{"s3-credentials": null, "store-options": {"*lain": {"uncompressed": true, "n": 3}}}"#;
    fs::write(folder.path("c.json"), text).expect("a file");
    folder.ok(&["--config", "c.json", "make", "-s", "plain", "p.caibx", "old"]);
    let chunk = folder.a_chunk("plain");
    assert!(chunk.extension().is_none(), "{}", chunk.display());
    folder.ok(&["config", "-w"]);
    let shown = folder.json(&["config"]);
    assert!(shown.get("store-options").is_some(), "{shown}");
    assert!(folder.path("config/cairn/config.json").exists());
}

/// desync's encrypted form: ids and indexes stay as they are, files get the cipher's ending, `convert` re-keys.
#[test]
fn stores_are_encrypted_and_keyed_anew_by_the_configuration() {
    let folder = Folder::new();
    let keys = ["11", "22"].map(|pair| pair.repeat(32));
    let text = serde_json::json!({ "store-options": {
        "first": { "encryption-key": keys[0] },
        "second": { "encryption-key": keys[1], "encryption-algorithm": "aes-256-gcm" },
    }});
    fs::write(folder.path("c.json"), text.to_string()).expect("a file");
    folder.ok(&["--config", "c.json", "convert", "-s", "store", "first"]);
    folder.ok(&["--config", "c.json", "convert", "-s", "first", "second"]);
    for (store, algorithm) in [("first", ".xchacha20-poly1305-"), ("second", ".aes-256-gcm-")] {
        assert_eq!(folder.chunks(store), folder.chunks("store"));
        let chunk = folder.a_chunk(store);
        assert!(
            chunk.to_string_lossy().contains(&format!(".cacnk{algorithm}")),
            "{}",
            chunk.display()
        );
        folder.ok(&["--config", "c.json", "extract", "-s", store, "new.caibx", "out"]);
        assert!(fs::read(folder.path("out")).expect("an output") == fs::read(folder.path("new")).expect("a file"));
        folder.ok(&["--config", "c.json", "verify", "-s", store]);
        // Without the key there is nothing to see.
        folder.says(1, &["extract", "-s", store, "new.caibx", "again"]);
    }
}

#[test]
fn completions_and_pages_are_written() {
    let folder = Folder::new();
    for shell in ["bash", "zsh", "fish"] {
        assert!(folder.ok(&["completion", shell]).contains("verify-index"));
    }
    folder.ok(&["manpage", "man"]);
    assert!(folder.path("man/cairn-extract.1").exists());
}

/// `docs/cli.md` names only flags that exist, and each verb of the tool.
#[test]
fn the_page_for_desync_users_is_in_step() {
    let page = fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/cli.md")).expect("docs/cli.md");
    let folder = Folder(tempfile::tempdir().expect("a temporary folder"));
    let help = folder.ok(&["--help"]);
    let verbs: Vec<&str> = help
        .lines()
        .skip_while(|line| *line != "Commands:")
        .skip(1)
        .take_while(|line| !line.is_empty())
        .filter_map(|line| line.split_whitespace().next())
        .filter(|verb| *verb != "help")
        .collect();
    assert!(verbs.len() > 15, "{help}");
    let mut flags = help.clone();
    for verb in &verbs {
        flags += &folder.ok(&[verb, "--help"]);
        for line in folder
            .ok(&[verb, "--help"])
            .lines()
            .skip_while(|line| *line != "Commands:")
            .skip(1)
        {
            let Some(inner) = line.split_whitespace().next() else {
                break;
            };
            if inner == "help" {
                continue;
            }
            flags += &folder.ok(&[verb, inner, "--help"]);
        }
        assert!(
            page.contains(&format!("`{verb}`")),
            "docs/cli.md does not have the verb {verb}"
        );
    }
    for row in page.lines().filter(|line| line.starts_with("| ")) {
        // The second column is what cairn has.
        let ours = row.replace("\\|", "").split('|').nth(2).unwrap_or_default().to_owned();
        for word in ours.split('`').filter(|word| word.starts_with("--")) {
            let word = word.split('*').next().unwrap_or(word);
            assert!(flags.contains(word), "docs/cli.md names {word}, which no verb has");
        }
    }
    for flag in flags.split_whitespace().filter_map(|word| word.strip_prefix("--")) {
        // A choice that needs no value is `--flag[=<BOOL>]`.
        let flag = flag.split('[').next().unwrap_or(flag);
        let flag = flag.trim_end_matches(|end: char| !end.is_ascii_alphanumeric());
        let known = ["help", "version", "cache-limit", "uncompressed"].contains(&flag) || flag.is_empty();
        assert!(
            known || page.contains(&format!("--{flag}")),
            "docs/cli.md does not have --{flag}"
        );
    }
}
