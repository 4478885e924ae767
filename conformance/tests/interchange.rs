//! Stores and indexes written by one tool are used by the others, on folders and through `cairnd`, for every verb that both have.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use cairn_conformance::support::{KINDS, args, cairn, cairnd_of_kind, casync, chunk_files, desync, input, ok, refused};

/// The three that cut, store and rebuild blobs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Tool {
    Cairn,
    Casync,
    Desync,
}

const TOOLS: [Tool; 3] = [Tool::Cairn, Tool::Casync, Tool::Desync];

impl Tool {
    fn make(self, store: &str, index: &Path, blob: &Path) {
        ok(&mut match self {
            Self::Cairn => command(cairn(), args!["make", "-s", store, index, blob]),
            Self::Casync => command(casync(), args!["make", format!("--store={store}"), index, blob]),
            Self::Desync => command(desync(), args!["make", "-s", store, index, blob]),
        });
    }

    fn extract(self, store: &str, index: &str, out: &Path) {
        ok(&mut match self {
            Self::Cairn => command(cairn(), args!["extract", "-s", store, index, out]),
            Self::Casync => command(casync(), args!["extract", format!("--store={store}"), index, out]),
            Self::Desync => command(desync(), args!["extract", "-s", store, index, out]),
        });
    }
}

fn command<const N: usize>(mut command: Command, args: [std::ffi::OsString; N]) -> Command {
    command.args(args);
    command
}

struct Folder(tempfile::TempDir);

impl Folder {
    fn new() -> Self {
        Self(tempfile::tempdir().expect("a temporary folder"))
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    fn text(&self, name: &str) -> String {
        self.path(name)
            .into_os_string()
            .into_string()
            .expect("temporary paths are UTF-8")
    }

    fn blob(&self, seed: u64, len: usize) -> (PathBuf, Vec<u8>) {
        let bytes = input(seed, len);
        let path = self.path(&format!("blob{seed}"));
        fs::write(&path, &bytes).expect("a file");
        (path, bytes)
    }
}

#[test]
fn every_tool_rebuilds_what_every_other_stored_in_a_folder() {
    let folder = Folder::new();
    for (number, len) in [0, 1, 16_383, 16_384, 300_000, 9_000_000].into_iter().enumerate() {
        let (blob, bytes) = folder.blob(number as u64, len);
        for maker in TOOLS {
            let store = folder.text(&format!("{maker:?}{number}.castr"));
            fs::create_dir(&store).expect("a folder");
            let index = folder.path(&format!("{maker:?}{number}.caibx"));
            maker.make(&store, &index, &blob);
            for reader in TOOLS {
                let out = folder.path("out");
                reader.extract(&store, index.to_str().expect("UTF-8"), &out);
                assert!(
                    fs::read(&out).expect("an output") == bytes,
                    "{maker:?} → {reader:?}, {len} bytes"
                );
                fs::remove_file(out).expect("the output");
            }
        }
        let index = |tool: &str| fs::read(folder.path(&format!("{tool}{number}.caibx"))).expect("an index");
        assert!(index("Cairn") == index("Casync"), "index bytes, {len} bytes of blob");
    }
}

#[test]
fn one_store_written_by_all_three_serves_all_three() {
    let folder = Folder::new();
    let store = folder.text("store");
    fs::create_dir(&store).expect("a folder");
    let blobs: Vec<_> = (10..13).map(|seed| folder.blob(seed, 2_000_000)).collect();
    for (tool, (blob, _)) in TOOLS.into_iter().zip(&blobs) {
        tool.make(&store, &folder.path(&format!("{tool:?}.caibx")), blob);
    }
    for (maker, (_, bytes)) in TOOLS.into_iter().zip(&blobs) {
        for reader in TOOLS {
            let out = folder.path("out");
            reader.extract(&store, &folder.text(&format!("{maker:?}.caibx")), &out);
            assert!(&fs::read(&out).expect("an output") == bytes, "{maker:?} → {reader:?}");
            fs::remove_file(out).expect("the output");
        }
    }
    ok(&mut command(cairn(), args!["verify", "-s", store]));
    ok(&mut command(desync(), args!["verify", "-s", store]));
}

/// The first line: `cairn make` and a real `desync chop`/`make` to our server, real casync and desync extracting from it.
#[test]
fn the_main_job_through_cairnd() {
    for kind in KINDS {
        the_main_job(kind);
    }
}

fn the_main_job(kind: &str) {
    let folder = Folder::new();
    let server = cairnd_of_kind(&folder.path("data"), kind);
    let (store, indexes) = (
        format!("{}/store/default/", server.url()),
        format!("{}/index/default", server.url()),
    );
    let (blob, bytes) = folder.blob(20, 6_000_000);
    let (other, other_bytes) = folder.blob(21, 6_000_000);
    let (chopped, chopped_bytes) = folder.blob(22, 3_000_000);

    ok(&mut command(
        cairn(),
        args!["make", "-s", store, format!("{indexes}/ours.caibx"), blob],
    ));
    ok(&mut command(
        desync(),
        args!["make", "-s", store, format!("{indexes}/theirs.caibx"), other],
    ));
    let local_index = folder.path("chopped.caibx");
    ok(&mut command(desync(), args!["make", local_index, chopped]));
    ok(&mut command(desync(), args!["chop", "-s", store, local_index, chopped]));
    let (status, _, _) = server.request(
        "PUT",
        "/index/default/chopped.caibx",
        &[],
        &fs::read(&local_index).expect("an index"),
    );
    assert_eq!(status, 200);

    for (name, bytes) in [("ours", &bytes), ("theirs", &other_bytes), ("chopped", &chopped_bytes)] {
        for reader in TOOLS {
            let out = folder.path("out");
            reader.extract(&store, &format!("{indexes}/{name}.caibx"), &out);
            assert!(&fs::read(&out).expect("an output") == bytes, "{name} by {reader:?}");
            fs::remove_file(out).expect("the output");
        }
    }
}

/// Verbs besides make and extract that both have, with our server as the store and as the index store.
#[test]
fn desyncs_other_verbs_through_cairnd() {
    for kind in KINDS {
        desyncs_other_verbs(kind);
    }
}

fn desyncs_other_verbs(kind: &str) {
    let folder = Folder::new();
    let server = cairnd_of_kind(&folder.path("data"), kind);
    let (store, indexes) = (
        format!("{}/store/default/", server.url()),
        format!("{}/index/default", server.url()),
    );
    let (blob, bytes) = folder.blob(30, 4_000_000);
    let index = format!("{indexes}/blob.caibx");
    ok(&mut command(cairn(), args!["make", "-s", store, index, blob]));

    let listed = ok(&mut command(desync(), args!["list-chunks", index])).stdout;
    assert!(listed == ok(&mut command(cairn(), args!["list-chunks", index])).stdout);
    ok(&mut command(desync(), args!["verify-index", index, blob]));
    ok(&mut command(cairn(), args!["verify-index", index, blob]));
    for tool in [desync, cairn] {
        let part = ok(&mut command(
            tool(),
            args!["cat", "-s", store, "-o", "1000001", "-l", "70000", index],
        ))
        .stdout;
        assert!(part == bytes[1_000_001..1_070_001]);
        let cached = folder.path("cache");
        fs::create_dir(&cached).expect("a folder");
        ok(&mut command(tool(), args!["cache", "-s", store, "-c", cached, index]));
        let ids = String::from_utf8(listed.clone()).expect("hex digits");
        let mut wanted: Vec<String> = ids.lines().map(|id| format!("{id}.cacnk")).collect();
        wanted.sort();
        wanted.dedup();
        assert_eq!(
            chunk_files(&cached)
                .into_iter()
                .map(|(name, _)| name)
                .collect::<Vec<_>>(),
            wanted
        );
        fs::remove_dir_all(cached).expect("the cache");
        ok(&mut command(tool(), args!["info", "-s", store, index]));
    }
}

/// What the two print of the same store and index: the same values, and for people the same lines.
#[test]
fn reports_are_desyncs() {
    let folder = Folder::new();
    let (blob, _) = folder.blob(31, 3_000_000);
    let (store, index) = (folder.path("store"), folder.path("blob.caibx"));
    ok(&mut command(cairn(), args!["make", "-s", store, index, blob]));
    ok(&mut command(desync(), args!["verify", "-s", store]));
    let json = |tool: Command, verb: &str| -> serde_json::Value {
        let printed = ok(&mut command(tool, args![verb, "-s", store, index])).stdout;
        serde_json::from_slice(&printed).unwrap_or_else(|_| panic!("{verb} does not print JSON"))
    };
    for verb in ["inspect-chunks", "info"] {
        assert_eq!(json(cairn(), verb), json(desync(), verb), "{verb}");
    }
    let lines = |tool: Command| ok(&mut command(tool, args!["info", "-f", "plain", "-s", store, index])).stdout;
    assert_eq!(
        String::from_utf8(lines(cairn())).ok(),
        String::from_utf8(lines(desync())).ok()
    );
}

/// `chunk` prints start, length and id; desync's lines are dialect 2's.
#[test]
fn chunk_prints_what_desync_prints() {
    let folder = Folder::new();
    let (blob, _) = folder.blob(40, 5_000_000);
    let ours = ok(&mut command(
        cairn(),
        args!["chunk", "--dialect", "desync", "-m", "4:16:64", blob],
    ))
    .stdout;
    let theirs = ok(&mut command(desync(), args!["chunk", "-m", "4:16:64", blob])).stdout;
    assert_eq!(String::from_utf8_lossy(&ours), String::from_utf8_lossy(&theirs));
}

/// Our own prune and desync's leave the same chunks.
#[test]
fn prune_keeps_the_same_chunks_as_desyncs() {
    let folder = Folder::new();
    let (kept, _) = folder.blob(50, 2_000_000);
    let (dropped, _) = folder.blob(51, 2_000_000);
    for name in ["ours", "theirs"] {
        let store = folder.text(name);
        fs::create_dir(&store).expect("a folder");
        ok(&mut command(
            cairn(),
            args!["make", "-s", store, folder.path("kept.caibx"), kept],
        ));
        ok(&mut command(
            cairn(),
            args!["make", "-s", store, folder.path("dropped.caibx"), dropped],
        ));
        let tool = if name == "ours" { cairn() } else { desync() };
        ok(&mut command(
            tool,
            args!["prune", "-y", "-s", store, folder.path("kept.caibx")],
        ));
    }
    assert!(chunk_files(&folder.path("ours")) == chunk_files(&folder.path("theirs")));
}

/// A seed that shares most of a blob, by both tools on the same files.
#[test]
fn extract_with_a_seed_gives_the_same_bytes() {
    let folder = Folder::new();
    let (old, bytes) = folder.blob(60, 4_000_000);
    let mut changed = bytes;
    changed[2_000_000..2_100_000].reverse();
    let new = folder.path("new");
    fs::write(&new, &changed).expect("a file");
    let store = folder.text("store");
    fs::create_dir(&store).expect("a folder");
    let (old_index, new_index) = (folder.path("old.caibx"), folder.path("new.caibx"));
    ok(&mut command(cairn(), args!["make", old_index, old]));
    ok(&mut command(cairn(), args!["make", "-s", store, new_index, new]));
    for tool in [cairn, desync] {
        let out = folder.path("out");
        let seed = format!("{}:{}", folder.text("old.caibx"), old.display());
        ok(&mut command(
            tool(),
            args!["extract", "--seed", seed, "-s", store, new_index, out],
        ));
        assert!(fs::read(&out).expect("an output") == changed);
        // In place over the finished file, then over a damaged one.
        let mut damaged = changed.clone();
        damaged[1_000_000..1_000_010].fill(1);
        fs::write(&out, &damaged).expect("a file");
        ok(&mut command(
            tool(),
            args!["extract", "-k", "-s", store, new_index, out],
        ));
        assert!(fs::read(&out).expect("an output") == changed);
        fs::remove_file(out).expect("the output");
    }
}

/// A real desync gives a second opinion on a store, and where it differs from ours it is said.
#[test]
fn verify_takes_a_second_opinion() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let (blob, store) = (folder.path().join("blob"), folder.path().join("store"));
    fs::write(&blob, input(77, 900_000)).expect("a file");
    ok(cairn().args(args!["make", "-s", store, folder.path().join("blob.caibx"), blob]));
    let program = desync().get_program().to_owned();
    ok(cairn().args(args!["verify", "-s", store, "--with-desync", program]));
    let (name, _) = chunk_files(&store).remove(0);
    let damaged = store.join(&name[..4]).join(name);
    fs::write(&damaged, b"not a frame").expect("written");
    let words = refused(cairn().args(args!["verify", "-s", store, "--with-desync", program]));
    assert!(words.contains("chunks are bad"), "{words}");
    let words = refused(cairn().args(args!["verify", "-s", store, "--with-desync", "true"]));
    assert!(
        words.contains("is bad, but not to desync") && words.contains("does not agree on 1 chunks"),
        "{words}"
    );
}
