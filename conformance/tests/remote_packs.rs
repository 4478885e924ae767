//! Packs in a bucket and behind SFTP, as `cairn` makes, reads, collects and copies them; what they cost in requests, counted at
//! the server.

use std::fs::{self, File};
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::Command;

use cairn_conformance::support::{args, cairn, input, ok, refused};
use cairn_test_servers::{ACCESS_KEY, GsServer, S3Server, SECRET_KEY, Sshd};

/// A machine of its own: a home, keys, a configuration, nothing cached.
struct Machine {
    home: tempfile::TempDir,
    /// The server of `gs://`.
    emulator: String,
}

impl Machine {
    fn new() -> Self {
        let home = tempfile::tempdir().expect("a temporary folder");
        fs::create_dir(home.path().join(".ssh")).expect("a folder");
        Self {
            home,
            emulator: String::new(),
        }
    }

    /// One that an sshd lets in.
    fn knowing(sshd: &Sshd) -> Self {
        let machine = Self::new();
        fs::copy(sshd.identity(), machine.path(".ssh/id_ed25519")).expect("a key");
        fs::copy(sshd.known_hosts(), machine.path(".ssh/known_hosts")).expect("the server's key");
        machine
    }

    fn path(&self, name: &str) -> PathBuf {
        self.home.path().join(name)
    }

    fn cairn(&self) -> Command {
        let mut command = cairn();
        command
            .env("HOME", self.home.path())
            .env("XDG_CONFIG_HOME", self.path("config"))
            .env("XDG_CACHE_HOME", self.path("cache"))
            .env("S3_ACCESS_KEY", ACCESS_KEY)
            .env("S3_SECRET_KEY", SECRET_KEY)
            .env("S3_REGION", "us-east-1")
            .env("STORAGE_EMULATOR_HOST", &self.emulator)
            .env_remove("SSH_AUTH_SOCK");
        command
    }

    /// Packs of so many bytes, for stores whose URL matches.
    fn pack_size(&self, location: &str, bytes: u64) {
        let folder = self.path("config/cairn");
        fs::create_dir_all(&folder).expect("a folder");
        let text = format!(r#"{{"store-options": {{"{location}": {{"pack-size": {bytes}}}}}}}"#);
        fs::write(folder.join("config.json"), text).expect("a file");
    }

    fn json(&self, arguments: &[std::ffi::OsString]) -> serde_json::Value {
        let said = ok(self.cairn().arg("--json").args(arguments)).stdout;
        serde_json::from_slice(&said).expect("JSON")
    }

    fn ids(&self, store: &str) -> Vec<String> {
        let said = ok(self.cairn().args(args!["store", "ls", store])).stdout;
        let mut ids: Vec<String> = String::from_utf8_lossy(&said)
            .lines()
            .map(|line| line.split(' ').next().unwrap_or_default().to_owned())
            .collect();
        ids.sort();
        ids
    }
}

/// The packs at the folder that a store is at its server.
fn packs(folder: &Path) -> Vec<String> {
    let Ok(entries) = fs::read_dir(folder.join("packs")) else {
        return Vec::new();
    };
    let names = entries.map(|entry| entry.expect("an entry").file_name().to_string_lossy().into_owned());
    let mut names: Vec<String> = names.filter(|name| name.ends_with(".pack")).collect();
    names.sort();
    names
}

fn same(one: &Path, other: &Path) {
    ok(Command::new("cmp").arg(one).arg(other));
}

/// Goal: every verb that takes a store takes packs behind a network.
/// Method: one life of a store: made, written, read, counted, damaged, mended, collected, exported.
fn a_life(machine: &Machine, url: &str, folder: &Path) {
    let file = |name: &str| machine.path(name);
    fs::write(file("a"), input(61, 3_000_000)).expect("a file");
    fs::write(file("b"), input(62, 2_000_000)).expect("a file");
    let run = |arguments: &[std::ffi::OsString]| ok(machine.cairn().args(arguments));
    run(&args!["store", "init", "--kind", "packs", url]);
    run(&args!["store", "init", url]);
    for name in ["a", "b"] {
        run(&args!["make", "-s", url, file(&format!("{name}.caibx")), file(name)]);
    }
    assert_eq!(packs(folder).len(), 2);
    run(&args!["extract", "-s", url, file("a.caibx"), file("a.back")]);
    same(&file("a"), &file("a.back"));
    // Nothing is sent twice.
    run(&args!["make", "-s", url, file("again.caibx"), file("a")]);
    assert_eq!(packs(folder).len(), 2);
    run(&args!["verify", "-s", url]);
    run(&args!["store", "verify", url]);
    let stat = machine.json(&args!["store", "stat", url, file("a.caibx"), file("b.caibx")]);
    assert_eq!((&stat["kind"], &stat["packs"]), (&"packs".into(), &2.into()));
    assert_eq!(
        (&stat["bytes-logical"], &stat["chunks-missing"]),
        (&5_000_000.into(), &0.into())
    );
    let listed = run(&args!["store", "ls", "--packs", url]).stdout;
    assert_eq!(String::from_utf8_lossy(&listed).lines().count(), 2);
    // Collected: only what `a` names stays.
    let asked = machine.json(&args!["store", "gc", "--dry-run", url, file("a.caibx")]);
    let done = machine.json(&args!["store", "gc", "-y", "--live-share", "0.9", url, file("a.caibx")]);
    assert!(
        asked["deleted"] == done["deleted"] && done["deleted"].as_u64() > Some(10),
        "{done}"
    );
    run(&args!["verify", "-s", url]);
    run(&args!["extract", "-s", url, file("a.caibx"), file("a.gc")]);
    same(&file("a"), &file("a.gc"));
    refused(
        machine
            .cairn()
            .args(args!["extract", "-s", url, file("b.caibx"), file("b.gc")]),
    );
    assert!(!folder.join("CURRENT").exists());
    // Somebody who was killed while deleting.
    fs::write(folder.join("CURRENT"), "process 1 on elsewhere\n").expect("a file");
    let words = refused(machine.cairn().args(args!["store", "gc", url]));
    assert!(
        words.contains("process 1 on elsewhere") && words.contains("--take-over"),
        "{words}"
    );
    run(&args!["store", "gc", "--take-over", url]);
    // And out again.
    run(&args!["store", "export", url, file("flat")]);
    assert_eq!(machine.ids(url), machine.ids(&file("flat").to_string_lossy()));
    run(&args!["extract", "-s", file("flat"), file("a.caibx"), file("a.flat")]);
    same(&file("a"), &file("a.flat"));
    run(&args!["prune", "-y", "-s", url, file("a.caibx")]);
    // A damaged chunk is named, taken out and healed.
    let pack = folder.join("packs").join(&packs(folder)[0]);
    let mut bytes = fs::read(&pack).expect("a pack");
    bytes[1000] ^= 1;
    // s3s-fs keeps the digest of what was put, and its file's mode is another.
    fs::remove_file(&pack).expect("a pack");
    fs::write(&pack, bytes).expect("a pack");
    let words = refused(machine.cairn().args(args!["verify", "-s", url]));
    assert!(words.contains("1 of"), "{words}");
    refused(machine.cairn().args(args!["verify", "-r", "-s", url]));
    run(&args!["make", "-s", url, file("again.caibx"), file("a")]);
    run(&args!["extract", "-s", url, file("a.caibx"), file("a.healed")]);
    same(&file("a"), &file("a.healed"));
}

#[test]
fn every_verb_takes_packs_in_a_bucket() {
    let server = S3Server::start();
    a_life(&Machine::new(), &server.url("a/place"), &server.object("a/place"));
}

#[test]
fn every_verb_takes_packs_in_a_bucket_of_googles() {
    let server = GsServer::start_open();
    let mut machine = Machine::new();
    machine.emulator = server.endpoint();
    a_life(&machine, &server.url("a/place"), &server.object("a/place"));
}

#[test]
fn every_verb_takes_packs_behind_sftp() {
    let sshd = Sshd::start();
    a_life(&Machine::knowing(&sshd), &sshd.url("store"), &sshd.path("store"));
}

/// Goal: chunks written in one session, and read again by somebody who has nothing of them, cost a two-hundredth of the requests
/// that an object a chunk would; at most 70 000 for 1 TiB.
/// Method: noise, which no frame makes shorter: the worst case. Counted at the server. `CAIRN_S3_MIB=1024` is the full size; at a
/// lesser one a few requests more are allowed, which do not grow with the data.
#[test]
fn packs_cost_a_two_hundredth_of_the_requests() {
    let mib: u64 = std::env::var("CAIRN_S3_MIB").map_or(128, |mib| mib.parse().expect("a number of MiB"));
    let (writer, reader) = (Machine::new(), Machine::new());
    let server = S3Server::start();
    let (blob, index) = (writer.path("blob"), writer.path("blob.caibx"));
    let mut random = fastrand::Rng::with_seed(63);
    let mut file = File::create(&blob).expect("a file");
    let mut piece = vec![0; 1 << 20];
    for _ in 0..mib {
        random.fill(&mut piece);
        file.write_all(&piece).expect("room for the blob");
    }
    drop(file);
    let url = server.url("packs");
    ok(writer.cairn().args(args!["store", "init", url]));
    let start = server.counts();
    ok(writer.cairn().args(args!["make", "-s", url, index, blob]));
    let made = server.counts();
    let back = reader.path("blob");
    ok(reader.cairn().args(args!["extract", "-s", url, index, back]));
    let read = server.counts();
    same(&blob, &back);
    let listed = ok(writer.cairn().args(args!["list-chunks", index])).stdout;
    let chunks = listed
        .split(|&byte| byte == b'\n')
        .filter(|line| !line.is_empty())
        .count() as u64;
    let sum = |counts: &std::collections::BTreeMap<&'static str, u64>| counts.values().sum::<u64>();
    let (writes, reads) = (sum(&made) - sum(&start), sum(&read) - sum(&made));
    let spare = if mib < 1024 { 4 } else { 0 };
    println!("{mib} MiB in {chunks} chunks: {writes} requests to write, {reads} to read; {start:?} {made:?} {read:?}");
    for requests in [writes, reads] {
        assert!(
            requests <= chunks / 200 + spare,
            "{requests} of {chunks}: {made:?} {read:?}"
        );
        assert!(
            (requests - spare.min(requests)) * (1 << 20) / mib <= 70_000,
            "{requests} for {mib} MiB"
        );
    }
}

/// Goal: a migration from a flat folder into packs and back, killed five times each way, ends with equal chunks.
/// Method: packs of 1 MiB; killed with SIGKILL as soon as there is more at the far end than before.
#[test]
fn a_migration_that_is_killed_goes_on() {
    let machine = Machine::new();
    let server = S3Server::start();
    let (url, folder) = (server.url("packs"), server.object("packs"));
    machine.pack_size(&url, 1 << 20);
    let (blob, index, flat) = (machine.path("blob"), machine.path("blob.caibx"), machine.path("flat"));
    fs::write(&blob, input(64, 24_000_000)).expect("a file");
    ok(machine.cairn().args(args!["make", "-s", flat, index, blob]));
    let there = || packs(&folder).len();
    killed(
        || machine.cairn(),
        &args!["store", "copy", "--packs", flat, url],
        &there,
    );
    let back = machine.path("back");
    let chunks = || {
        let folders = fs::read_dir(&back).map(|entries| entries.flatten().count());
        folders.unwrap_or(0)
    };
    killed(|| machine.cairn(), &args!["store", "copy", url, back], &chunks);
    let ids = machine.ids(&flat.to_string_lossy());
    assert_eq!(machine.ids(&url), ids);
    assert_eq!(machine.ids(&back.to_string_lossy()), ids);
    for store in [url, back.to_string_lossy().into_owned()] {
        ok(machine.cairn().args(args!["verify", "-s", store]));
        let out = machine.path("out");
        ok(machine.cairn().args(args!["extract", "-s", store, index, out]));
        same(&blob, &out);
    }
}

/// Runs a command that is killed five times, each time that there is more than before, then to its end.
fn killed(command: impl Fn() -> Command, arguments: &[std::ffi::OsString], there: &dyn Fn() -> usize) {
    for _ in 0..5 {
        let before = there();
        let mut child = command().args(arguments).spawn().expect("cairn is built");
        // One that is done before it could be killed is done.
        while there() <= before && child.try_wait().expect("our own child").is_none() {
            std::thread::yield_now();
        }
        let _ = child.kill();
        child.wait().expect("our own child");
    }
    ok(command().args(arguments));
}
