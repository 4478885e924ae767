//! The pack store of `cairnd`: kills, folders of older releases, what else the data folder can be asked.
// A helper that fails is a test that fails.
#![allow(clippy::unwrap_used)]

#[path = "../../gateway/roots/tests/client/mod.rs"]
mod client;
mod daemon;

use std::collections::BTreeMap;
use std::fs;
use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::sync::Mutex;

use client::{Client, Sample, files};
use daemon::{Daemon, command, wait_until};

/// Packs so small that a test fills some.
const SMALL: &str = "[stores.default]\nwritable = true\npack_len = 1048576\n";

fn sample(seed: u64) -> Sample {
    let mut random = fastrand::Rng::with_seed(seed);
    let len = random.usize(1..20_000);
    let plain: Vec<u8> = std::iter::repeat_with(|| random.u8(..)).take(len).collect();
    Sample::new(&plain)
}

fn path(sample: &Sample) -> String {
    format!("/store/default{}", sample.frame_path())
}

#[track_caller]
fn assert_there(client: &mut Client, sample: &Sample) {
    let answer = client.ask("GET", &path(sample), &[], b"");
    assert_eq!((answer.status, &answer.body), (200, &sample.frame), "{}", sample.hex);
}

/// Uploads until the server is gone; seeds of what was answered with 200.
fn upload(public: SocketAddr, seeds: std::ops::Range<u64>, acknowledged: &Mutex<Vec<u64>>) {
    // The others may have had all answers that were waited for before this one came: then it is gone already.
    let Ok(mut stream) = TcpStream::connect(public) else {
        return;
    };
    for seed in seeds {
        let sample = sample(seed);
        let head = format!(
            "PUT {} HTTP/1.1\r\nHost: test\r\nContent-Length: {}\r\n\r\n",
            path(&sample),
            sample.frame.len()
        );
        if stream.write_all(&[head.as_bytes(), &sample.frame].concat()).is_err() {
            return;
        }
        match answered(&mut stream) {
            Some(true) => acknowledged.lock().unwrap().push(seed),
            _ => return,
        }
    }
}

/// Whether a request was answered with 200; `None` when the answer did not come whole, as of a server that was killed.
fn answered(stream: &mut TcpStream) -> Option<bool> {
    let mut answer = Vec::new();
    loop {
        let mut bytes = [0; 4096];
        match stream.read(&mut bytes) {
            Ok(0) | Err(_) => return None,
            Ok(len) => answer.extend_from_slice(&bytes[..len]),
        }
        let text = String::from_utf8_lossy(&answer).to_ascii_lowercase();
        let Some((head, body)) = text.split_once("\r\n\r\n") else {
            continue;
        };
        let len = head.split("content-length: ").nth(1)?.lines().next()?.parse().ok()?;
        if body.len() >= len {
            return Some(head.starts_with("http/1.1 200"));
        }
    }
}

/// Goal: a chunk whose upload was answered is there after a kill at any moment, and the server starts on what is left.
/// Method: several clients upload; the server is killed after a random number of answers, and started again on the same folder.
/// `CAIRN_KILLS` sets how often; the full run is 200. With `CAIRN_PACKS_GIB` so much is in packs before. The longest time from the
/// start after a kill to the line that says that it listens is printed.
#[test]
fn kills_under_load_lose_no_acknowledged_chunk() {
    const WRITERS: u64 = 4;
    const SEEDS: u64 = 1_000_000;
    let kills: u64 = std::env::var("CAIRN_KILLS").map_or(20, |text| text.parse().expect("CAIRN_KILLS is a number"));
    let mut random = fastrand::Rng::with_seed(7);
    let acknowledged = Mutex::new(Vec::new());
    let mut folder = tempfile::tempdir().unwrap();
    let gibibytes: u64 = std::env::var("CAIRN_PACKS_GIB").map_or(0, |text| text.parse().expect("a number"));
    let config = if gibibytes > 0 { "" } else { SMALL };
    if gibibytes > 0 {
        folder = filled(gibibytes << 14);
    }
    let mut longest = std::time::Duration::ZERO;
    for kill in 0..kills {
        let daemon = Daemon::start_in(folder, config, &[]);
        let before = acknowledged.lock().unwrap().len();
        let wanted = before + random.usize(1..80);
        std::thread::scope(|scope| {
            for writer in 0..WRITERS {
                let first = (kill * WRITERS + writer) * SEEDS;
                let (public, acknowledged) = (daemon.public, &acknowledged);
                scope.spawn(move || upload(public, first..first + SEEDS, acknowledged));
            }
            wait_until("uploads", || acknowledged.lock().unwrap().len() >= wanted);
            daemon.signal(rustix::process::Signal::KILL);
        });
        folder = daemon.kill();
        let begun = std::time::Instant::now();
        let daemon = Daemon::start_in(folder, config, &[]);
        longest = longest.max(begun.elapsed());
        let mut client = Client::connect(daemon.public);
        let acknowledged = acknowledged.lock().unwrap();
        for &seed in &acknowledged[before..] {
            assert_there(&mut client, &sample(seed));
        }
        folder = if random.bool() { daemon.kill() } else { daemon.leave() };
    }
    println!("ready at most {} ms after a kill", longest.as_millis());
    let daemon = Daemon::start_in(folder, config, &[]);
    let mut client = Client::connect(daemon.public);
    for &seed in acknowledged.lock().unwrap().iter() {
        assert_there(&mut client, &sample(seed));
    }
    assert!(!daemon.log().contains("not whole"), "{}", daemon.log());
}

/// A data folder with so many chunks of 64 KiB that do not compress.
fn filled(chunks: u64) -> tempfile::TempDir {
    let daemon = Daemon::start("");
    std::thread::scope(|scope| {
        for writer in 0..8 {
            let daemon = &daemon;
            scope.spawn(move || {
                let mut client = Client::connect(daemon.public);
                let mut random = fastrand::Rng::with_seed(writer);
                let mut plain = vec![0; 64 << 10];
                for _ in 0..chunks / 8 {
                    random.fill(&mut plain);
                    let sample = Sample::new(&plain);
                    assert_eq!(
                        client.try_ask("PUT", &path(&sample), &sample.frame).unwrap().status,
                        200
                    );
                }
            });
        }
    });
    daemon.leave()
}

/// A data folder as release 0.1 leaves it.
fn older(samples: &[Sample]) -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    let data = folder.path().join("data");
    for sample in samples {
        let file = data.join(format!("store/default{}", sample.frame_path()));
        fs::create_dir_all(file.parent().unwrap()).unwrap();
        fs::write(file, &sample.frame).unwrap();
    }
    fs::create_dir_all(data.join("index/default")).unwrap();
    let format = "uuid = \"6a0f0c4e-0000-4000-8000-000000000000\"\nversion = 1\nleast_reader = 1\nleast_writer = 1\n";
    fs::write(data.join("FORMAT"), format).unwrap();
    folder
}

fn chunk_files(data: &Path) -> Vec<PathBuf> {
    let store = data.join("store/default");
    let listed = if store.exists() { files(&store) } else { Vec::new() };
    let is_chunk = |file: &PathBuf| file.extension().is_some_and(|ending| ending == "cacnk");
    listed.into_iter().filter(is_chunk).collect()
}

/// Goal: a flat folder of release 0.1 goes over into packs while it is served, whatever stops the server; `export` gives it back.
/// Method: at so few bytes a second that it cannot end, the server is killed five times as soon as files go; then it may end.
#[test]
fn an_older_data_folder_goes_over_into_packs_through_kills_and_comes_back() {
    let samples: Vec<Sample> = (0..1500)
        .map(|n| Sample::new(format!("chunk {n}").as_bytes()))
        .collect();
    let mut folder = older(&samples);
    let data = folder.path().join("data");
    fs::write(data.join("store/default/README"), "not a chunk").unwrap();
    let index = fs::read(concat!(
        env!("CARGO_MANIFEST_DIR"),
        "/testdata/data-0.1/index/default/blob.caibx"
    ))
    .unwrap();
    fs::write(data.join("index/default/blob.caibx"), &index).unwrap();
    let slow = format!("{SMALL}[limits]\nconvert_rate = 1\n");
    let mut random = fastrand::Rng::with_seed(3);
    for _kill in 0..5 {
        let left = chunk_files(&data).len();
        let daemon = Daemon::start_in(folder, &slow, &[]);
        let mut client = Client::connect(daemon.public);
        for _ in 0..30 {
            assert_there(&mut client, random.choice(&samples).unwrap());
        }
        wait_until("chunks go over", || chunk_files(&data).len() < left);
        folder = daemon.kill();
        assert!(!chunk_files(&data).is_empty(), "it was stopped in the middle");
    }
    let daemon = Daemon::start_in(folder, &format!("{SMALL}[limits]\nconvert_rate = 0\n"), &[]);
    let late = sample(1);
    assert_eq!(daemon.status("PUT", &path(&late), &late.frame), 200);
    daemon.wait_for_log("was taken over into packs", 1);
    let mut client = Client::connect(daemon.public);
    for sample in samples.iter().chain([&late]) {
        assert_there(&mut client, sample);
    }
    let page = daemon.metrics();
    assert!(page.contains("store_conversion_running{store=\"default\"} 0"), "{page}");
    assert_eq!(
        files(&data.join("store/default")),
        [PathBuf::from("README")],
        "what is no chunk stays"
    );
    let format = fs::read_to_string(data.join("FORMAT")).unwrap();
    assert!(
        format.contains("least_reader = 2") && format.contains("6a0f0c4e-"),
        "{format}"
    );

    let folder = daemon.leave();
    for _again in 0..2 {
        let words = done(&folder, &["store", "export", "--all", "older"]);
        assert!(words.starts_with("1501 chunks"), "{words}");
    }
    let older = folder.path().join("older");
    for sample in samples.iter().chain([&late]) {
        let file = older.join(format!("store/default{}", sample.frame_path()));
        assert!(fs::read(file).unwrap() == sample.frame, "{}", sample.hex);
    }
    assert_eq!(chunk_files(&older).len(), 1501);
    assert_eq!(fs::read(older.join("index/default/blob.caibx")).unwrap(), index);
    let format = fs::read_to_string(older.join("FORMAT")).unwrap();
    assert!(format.contains("least_reader = 1"), "{format}");
}

fn run(folder: &tempfile::TempDir, arguments: &[&str]) -> Output {
    command(folder.path()).args(arguments).output().unwrap()
}

#[track_caller]
fn done(folder: &tempfile::TempDir, arguments: &[&str]) -> String {
    let output = run(folder, arguments);
    let words = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(output.status.success(), "{arguments:?}: {words}");
    String::from_utf8(output.stdout).unwrap()
}

#[track_caller]
fn failed(folder: &tempfile::TempDir, arguments: &[&str], code: i32) -> String {
    let output = run(folder, arguments);
    let words = [output.stdout, output.stderr].concat();
    let words = String::from_utf8(words).unwrap();
    assert_eq!(output.status.code(), Some(code), "{arguments:?}: {words}");
    words
}

fn packs(folder: &tempfile::TempDir) -> Vec<PathBuf> {
    let store = folder.path().join("data/packs/default");
    let listed = files(&store)
        .into_iter()
        .filter(|file| file.extension().is_some_and(|end| end == "pack"));
    listed.map(|file| store.join(file)).collect()
}

#[test]
fn the_stores_of_a_data_folder_are_counted_checked_and_collected() {
    let daemon = Daemon::start(SMALL);
    let samples: Vec<Sample> = (0..300).map(sample).collect();
    let mut client = Client::connect(daemon.public);
    for sample in &samples {
        assert_eq!(client.ask("PUT", &path(sample), &[], &sample.frame).status, 200);
    }
    let in_use = command(daemon.path()).args(["store", "stat"]).output().unwrap();
    assert_eq!(in_use.status.code(), Some(1));
    assert!(String::from_utf8_lossy(&in_use.stderr).contains("in use by process"));
    let folder = daemon.leave();
    let stat: serde_json::Value = serde_json::from_str(&done(&folder, &["store", "stat", "--json"])).unwrap();
    let plain: usize = samples.iter().map(|sample| sample.plain.len()).sum();
    assert_eq!((&stat["chunks"], &stat["bytes-unique"]), (&300.into(), &plain.into()));
    assert!(
        stat["packs"].as_u64().unwrap() > 1 && stat["live-share"].as_f64().unwrap() > 0.9,
        "{stat}"
    );
    assert_eq!(done(&folder, &["store", "ls"]).lines().count(), 300);
    assert_eq!(
        done(&folder, &["store", "ls", "--packs"]).lines().count(),
        packs(&folder).len()
    );
    assert!(done(&folder, &["store", "verify"]).contains("300 chunks: 0 bad"));
    assert!(done(&folder, &["store", "rebuild-index"]).contains("300 chunks found"));

    // One flipped bit is named by both, and taken out on request.
    let pack = &packs(&folder)[0];
    let mut bytes = fs::read(pack).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 4;
    fs::write(pack, bytes).unwrap();
    let name = pack.file_name().unwrap().to_str().unwrap();
    assert!(failed(&folder, &["store", "rebuild-index"], 3).contains(name));
    assert!(failed(&folder, &["store", "verify"], 3).contains("300 chunks: 1 bad"));
    failed(&folder, &["store", "verify", "--repair"], 3);
    assert_eq!(done(&folder, &["store", "ls"]).lines().count(), 299);

    // No index names anything: all of it may go, and only when that is asked for.
    let before: u64 = packs(&folder).iter().map(|pack| pack.metadata().unwrap().len()).sum();
    done(&folder, &["store", "gc"]);
    let told = done(&folder, &["store", "gc", "--prune", "--dry-run"]);
    assert!(told.contains("299 chunks would be deleted"), "{told}");
    assert_eq!(done(&folder, &["store", "ls"]).lines().count(), 299);
    fs::write(folder.path().join("data/index/default/bad.caibx"), "no index").unwrap();
    assert!(failed(&folder, &["store", "gc", "--prune"], 1).contains("nothing was deleted"));
    fs::remove_file(folder.path().join("data/index/default/bad.caibx")).unwrap();
    done(&folder, &["store", "gc", "--prune"]);
    assert_eq!(done(&folder, &["store", "ls"]), "");
    assert!(packs(&folder).contains(pack), "one with damage is kept");
    done(&folder, &["store", "gc", "--release-damaged"]);
    let after: u64 = packs(&folder).iter().map(|pack| pack.metadata().unwrap().len()).sum();
    assert!(after * 20 < before, "{after} of {before} bytes are left");
    let daemon = Daemon::start_in(folder, SMALL, &[]);
    assert_eq!(daemon.status("GET", &path(&samples[0]), b""), 404);
}

#[test]
fn folders_that_are_not_what_the_settings_say_are_refused_in_words() {
    let daemon = Daemon::start("");
    let put = sample(1);
    assert_eq!(daemon.status("PUT", &path(&put), &put.frame), 200);
    let folder = daemon.leave();
    let configure = |text: &str| fs::write(folder.path().join("cairnd.toml"), text).unwrap();
    configure("[stores.default]\nkind = 'flat'");
    assert!(failed(&folder, &[], 1).contains("cairnd store export"));
    configure("[stores.default]\nwritable = true\nkind = 'packs'\npath = 'data/index'");
    fs::write(folder.path().join("data/index/x"), "").unwrap();
    assert!(failed(&folder, &[], 1).contains("not empty, and no pack store"));
    configure("");
    let format = folder.path().join("data/packs/default/FORMAT");
    let before = fs::read(&format).unwrap();
    fs::write(&format, "cairn pack store 9\n").unwrap();
    assert!(failed(&folder, &[], 1).contains("later release"));
    fs::write(&format, before).unwrap();
    let daemon = Daemon::start_in(folder, "", &[]);
    assert_there(&mut Client::connect(daemon.public), &put);
}

#[test]
fn settings_of_a_store_of_packs_are_read_again_while_it_stays_open() {
    let daemon = Daemon::start("[stores.default]\nwritable = true");
    let put = sample(1);
    assert_eq!(daemon.status("PUT", &path(&put), &put.frame), 200);
    daemon.configure("[stores.default]\nwritable = true\nwrite_token = 'secret'");
    daemon.wait_for_log("was read again", 1);
    assert_eq!(daemon.status("PUT", &path(&put), &put.frame), 401);
    assert_eq!(daemon.status("GET", &path(&put), b""), 200);
    daemon.configure("[stores.default]\nwritable = true\npack_len = 2097152");
    daemon.wait_for_log("was read again", 2);
    assert!(daemon.log().contains("change with a restart"), "{}", daemon.log());
    assert_eq!(daemon.status("PUT", &path(&put), &put.frame), 200);
}

/// Goal: data folders of earlier releases open, and give what they gave. Both hold one blob; how they were made is in
/// `testdata/README.md`.
#[test]
fn data_folders_of_earlier_releases_open() {
    for release in ["data-0.1", "data-0.2"] {
        let kept = Path::new(env!("CARGO_MANIFEST_DIR")).join("testdata").join(release);
        let folder = tempfile::tempdir().unwrap();
        for file in files(&kept) {
            let target = folder.path().join("data").join(&file);
            fs::create_dir_all(target.parent().unwrap()).unwrap();
            fs::copy(kept.join(&file), target).unwrap();
        }
        let daemon = Daemon::start_in(folder, "", &[]);
        if release == "data-0.1" {
            daemon.wait_for_log("was taken over into packs", 1);
            assert!(!daemon.data().join("store/default").exists());
        }
        let index = daemon.ask("GET", "/index/default/blob.caibx", &[], b"").body;
        let index = cairn_formats::ChunkIndex::parse(index.into()).unwrap();
        let mut blob = Vec::new();
        let mut seen = BTreeMap::new();
        for span in index.spans() {
            let id = span.id.to_string();
            let plain = seen.entry(span.id).or_insert_with(|| {
                let answer = daemon.ask("GET", &format!("/store/default/{}/{id}", &id[..4]), &[], b"");
                assert_eq!(answer.status, 200, "{release}: {id}");
                answer.body
            });
            blob.extend_from_slice(plain);
        }
        let lines: String = (0..20_000).map(|n| format!("line {n}\n")).collect();
        assert!(blob == lines.as_bytes(), "{release}");
    }
}

/// Goal: the index of places is made again from the packs, whatever happened to it, with what was deleted deleted; one of a
/// later release is refused.
#[test]
fn an_index_that_is_gone_or_damaged_is_made_again() {
    let daemon = Daemon::start(SMALL);
    let samples: Vec<Sample> = (0..200).map(sample).collect();
    let mut client = Client::connect(daemon.public);
    for sample in &samples {
        assert_eq!(client.ask("PUT", &path(sample), &[], &sample.frame).status, 200);
    }
    let mut folder = daemon.leave();
    // Chunks that no index names are deleted, but for those of one index.
    let kept: Vec<&Sample> = samples.iter().step_by(2).collect();
    let index = daemon::index_of(&kept);
    fs::write(folder.path().join("data/index/default/kept.caibx"), index).unwrap();
    done(&folder, &["store", "gc", "--prune", "--live-share", "0"]);
    let places = folder.path().join("data/packs/default/places");
    type Damage = fn(&Path);
    let damages: [(&str, Damage); 5] = [
        ("gone", |places| fs::remove_dir_all(places).unwrap()),
        ("half gone", |places| fs::remove_file(places.join("FORMAT")).unwrap()),
        ("no table", |places| {
            fs::remove_file(longest(&places.join("db"), ".sst")).unwrap()
        }),
        ("no CURRENT", |places| {
            fs::remove_file(places.join("db/CURRENT")).unwrap()
        }),
        ("of something else", |places| {
            fs::write(places.join("FORMAT"), "something").unwrap()
        }),
    ];
    for (what, damage) in damages {
        damage(&places);
        let daemon = Daemon::start_in(folder, SMALL, &[]);
        assert!(
            daemon.log().contains("built anew from the packs"),
            "{what}: {}",
            daemon.log()
        );
        let mut client = Client::connect(daemon.public);
        for (n, sample) in samples.iter().enumerate() {
            let status = client.ask("GET", &path(sample), &[], b"").status;
            assert_eq!(status, if n % 2 == 0 { 200 } else { 404 }, "{what}: {n}");
        }
        folder = daemon.leave();
    }
    let daemon = Daemon::start_in(folder, SMALL, &[]);
    assert!(!daemon.log().contains("built anew"), "{}", daemon.log());
    let folder = daemon.leave();
    // A pack that is taken away takes its chunks with it, and no others; they can be put again.
    let taken = packs(&folder).remove(0);
    let bytes = fs::metadata(&taken).unwrap().len();
    assert!(bytes > 100_000, "{bytes}");
    fs::rename(&taken, folder.path().join("taken")).unwrap();
    let daemon = Daemon::start_in(folder, SMALL, &[]);
    assert!(daemon.log().contains("were taken away"), "{}", daemon.log());
    let mut client = Client::connect(daemon.public);
    let mut again = 0;
    for sample in kept {
        if client.ask("HEAD", &path(sample), &[], b"").status == 404 {
            assert_eq!(client.ask("PUT", &path(sample), &[], &sample.frame).status, 200);
            again += 1;
        }
        assert_there(&mut client, sample);
    }
    assert!(again > 0 && again < 100, "{again}");
    let folder = daemon.leave();
    fs::write(places.join("FORMAT"), "cairn places 9\n").unwrap();
    let words = failed(&folder, &[], 1);
    assert!(
        words.contains("cairn places 9") && words.contains("use the release"),
        "{words}"
    );
    assert!(done(&folder, &["store", "rebuild-index"]).contains("100 chunks found"));
}

/// Goal: damage is found before somebody asks for the chunk, and healed from a mirror, or else by the next upload.
#[test]
fn packs_are_scrubbed_while_they_are_served() {
    const SCRUBBED: &str = "[scrub]\ninterval_seconds = 1\nbytes_per_second = 0\n";
    for mirror in ["mirror = ['far']\n", ""] {
        let config = format!("[stores.default]\nwritable = true\n{mirror}");
        let daemon = Daemon::start(&config);
        let samples: Vec<Sample> = (0..50).map(sample).collect();
        let mut client = Client::connect(daemon.public);
        for sample in &samples {
            assert_eq!(client.ask("PUT", &path(sample), &[], &sample.frame).status, 200);
        }
        let folder = daemon.leave();
        // In the middle of the longest frame.
        let longest = samples.iter().max_by_key(|sample| sample.frame.len()).unwrap();
        let pack = &packs(&folder)[0];
        let mut bytes = fs::read(pack).unwrap();
        let at = bytes
            .windows(longest.frame.len())
            .position(|part| part == longest.frame)
            .unwrap();
        bytes[at + longest.frame.len() / 2] ^= 1;
        fs::write(pack, bytes).unwrap();
        let daemon = Daemon::start_in(folder, &format!("{config}{SCRUBBED}"), &[]);
        // Those of the objects are, too, and maybe before.
        let is_told = |line: &str| line.contains("packs were scrubbed") && line.contains("\"store\":\"default\"");
        wait_until("a scrub", || daemon.log().lines().any(is_told));
        let (log, page) = (daemon.log(), daemon.metrics());
        assert!(log.contains("a pack is damaged") && log.contains(&longest.hex), "{log}");
        assert!(page.contains("store_scrub_damaged_total{what=\"chunk\"} 1"), "{page}");
        let counted = "verify_runs_total{store=\"default\",result=\"damaged\"} 1";
        assert!(page.contains(counted), "{page}");
        let mut client = Client::connect(daemon.public);
        if mirror.is_empty() {
            assert_eq!(client.ask("GET", &path(longest), &[], b"").status, 404);
            assert_eq!(client.ask("PUT", &path(longest), &[], &longest.frame).status, 200);
        } else {
            assert!(page.contains("store_scrub_healed_total 1"), "{page}");
        }
        for sample in &samples {
            assert_there(&mut client, sample);
        }
    }
}

/// The longest file of a folder whose name ends so.
fn longest(folder: &Path, ending: &str) -> PathBuf {
    let entries = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap());
    let found = entries.filter(|entry| entry.file_name().to_string_lossy().ends_with(ending));
    found
        .max_by_key(|entry| entry.metadata().unwrap().len())
        .unwrap()
        .path()
}

/// A server that was told to export does not take a running one's folder, nor a pack store for a flat folder.
#[test]
fn an_export_goes_to_a_folder_of_its_own() {
    let daemon = Daemon::start("");
    let put = sample(1);
    assert_eq!(daemon.status("PUT", &path(&put), &put.frame), 200);
    let folder = daemon.leave();
    assert!(failed(&folder, &["store", "export", "data/packs/default"], 1).contains("no flat folder"));
    let words = done(&folder, &["store", "export", "flat"]);
    assert!(words.contains("1 written"), "{words}");
    let file = folder.path().join("flat").join(&put.frame_path()[1..]);
    assert!(fs::read(file).unwrap() == put.frame);
    let words = failed(&folder, &["store", "stat", "--store", "other"], 1);
    assert!(words.contains("default"), "{words}");
    let nowhere = Command::new(env!("CARGO_BIN_EXE_cairnd"))
        .args(["--data", "/no/such", "store", "stat"])
        .output();
    assert_eq!(nowhere.unwrap().status.code(), Some(1));
}

/// Goal: the schema of the rows, of objects and of a rooted store, is told, left for the one before, and taken up again by the server.
#[test]
fn the_schema_of_the_rows_is_told_and_changed() {
    let settings = "[stores.default]\nwritable = true\nrooted = true\n";
    let daemon = Daemon::start(settings);
    let put = sample(1);
    assert_eq!(daemon.status("PUT", &path(&put), &put.frame), 200);
    let mut folder = daemon.leave();
    for store in [&[][..], &["--store", "default"]] {
        let ask = |folder: &tempfile::TempDir, words: &[&str]| done(folder, &[&["migrate"], store, words].concat());
        assert!(ask(&folder, &["status"]).contains("schema: 4; this release writes 4"));
        assert!(ask(&folder, &["up"]).contains("nothing is to be done"));
        let told = ask(&folder, &["down", "1", "--dry-run"]);
        assert!(told.contains("from schema 4 to 3 would be taken"), "{told}");
        assert!(ask(&folder, &["status"]).contains("schema: 4;"));
        ask(&folder, &["down", "1"]);
        assert!(ask(&folder, &["status"]).contains("schema: 1;"));
        assert!(failed(&folder, &["migrate", "down", "5"], 1).contains("schema 5"));
        folder = Daemon::start_in(folder, settings, &[]).leave();
        assert!(ask(&folder, &["status"]).contains("schema: 4;"));
    }
}
