//! `cairn chunk-server` and `cairn index-server` as desync's users start them: flags, signals, real clients.

use std::fs;
use std::path::PathBuf;
use std::process::Command;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use cairn_conformance::support::{Server, cairn, casync, chunk_files, desync, free_port, input, ok, refused, run};
use rustix::process::Signal;

/// Two keys as `openssl rand -hex 32` makes them.
const KEYS: [&str; 2] = [
    "6368616e676520746869732070617373776f726420746f206120736563726574",
    "00112233445566778899aabbccddeeff00112233445566778899aabbccddeeff",
];

/// A folder with a blob, its index in `indexes` and its chunks in `store`.
struct Folder {
    folder: tempfile::TempDir,
    bytes: Vec<u8>,
}

impl Folder {
    fn new(seed: u64) -> Self {
        let folder = Self {
            folder: tempfile::tempdir().expect("a temporary folder"),
            bytes: input(seed, 2_000_000),
        };
        fs::write(folder.path("blob"), &folder.bytes).expect("a file");
        fs::create_dir(folder.path("indexes")).expect("a folder");
        folder.ok(cairn(), &["make", "-s", "store", "indexes/blob.caibx", "blob"]);
        folder
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// A tool that reads no configuration but the one that a test names.
    fn command(&self, mut command: Command, arguments: &[&str]) -> Command {
        command
            .current_dir(self.folder.path())
            .args(arguments)
            .env("HOME", self.folder.path())
            .env_remove("XDG_CONFIG_HOME");
        command
    }

    #[track_caller]
    fn ok(&self, command: Command, arguments: &[&str]) {
        ok(&mut self.command(command, arguments));
    }

    #[track_caller]
    fn refused(&self, command: Command, arguments: &[&str]) -> String {
        refused(&mut self.command(command, arguments))
    }

    fn serve(&self, arguments: &[&str]) -> Server {
        Server::start_printing(self.command(cairn(), arguments).args(["-l", "127.0.0.1:0"]))
    }

    /// A configuration of one location for desync and cairn alike.
    fn configure(&self, name: &str, location: &str, options: &serde_json::Value) {
        let text = serde_json::json!({ "store-options": { location: options } });
        fs::write(self.path(name), text.to_string()).expect("a file");
    }

    #[track_caller]
    fn assert_is_blob(&self, name: &str) {
        assert!(fs::read(self.path(name)).expect("an output") == self.bytes, "{name}");
    }

    /// Throw-away certificates: `<name>.pem` and `<name>.key` for server and client, signed by `ca`; `stranger` by nobody.
    fn certificates(&self) {
        let openssl = |words: &str| {
            let words: Vec<&str> = words.split(' ').collect();
            self.ok(Command::new("openssl"), &words);
        };
        const KEY: &str = "-newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes";
        for name in ["ca", "stranger"] {
            openssl(&format!(
                "req -x509 {KEY} -days 2 -subj /CN={name} -keyout {name}.key -out {name}.pem"
            ));
        }
        fs::write(self.path("names"), "subjectAltName=IP:127.0.0.1").expect("a file");
        for name in ["server", "client"] {
            openssl(&format!(
                "req {KEY} -subj /CN={name} -keyout {name}.key -out {name}.csr"
            ));
            openssl(&format!(
                "x509 -req -in {name}.csr -CA ca.pem -CAkey ca.key -CAcreateserial -days 2 -extfile names -out {name}.pem"
            ));
        }
    }
}

/// The path of a chunk at a chunk root, by its file's name.
fn chunk_path(name: &str) -> String {
    format!("/{}/{name}", &name[..4])
}

#[test]
fn casync_and_desync_read_from_both_servers() {
    let folder = Folder::new(1);
    let chunks = folder.serve(&["chunk-server", "-s", "store"]);
    let indexes = folder.serve(&["index-server", "-s", "indexes"]);
    let index = indexes.url() + "/blob.caibx";
    let store = format!("--store={}", chunks.url());
    folder.ok(casync(), &["extract", &store, &index, "by-casync"]);
    folder.ok(desync(), &["extract", "-s", &chunks.url(), &index, "by-desync"]);
    folder.ok(cairn(), &["extract", "-s", &chunks.url(), &index, "by-cairn"]);
    for name in ["by-casync", "by-desync", "by-cairn"] {
        folder.assert_is_blob(name);
    }
    // Nobody may write, and both say so.
    fs::write(folder.path("other"), input(2, 100_000)).expect("a file");
    for tool in [cairn, desync] {
        folder.refused(tool(), &["make", "-s", &chunks.url(), "other.caibx", "other"]);
        folder.refused(tool(), &["make", &(indexes.url() + "/other.caibx"), "other"]);
    }
    assert!(!folder.path("indexes/other.caibx").exists());
    assert!(
        chunks.stop().success() && indexes.stop().success(),
        "to be asked to end is no failure"
    );
}

#[test]
fn desync_and_cairn_write_to_both_servers() {
    let folder = Folder::new(3);
    for (name, tool) in [("by-cairn", cairn as fn() -> Command), ("by-desync", desync)] {
        let store = format!("{name}.castr");
        fs::create_dir(folder.path(&store)).expect("a folder");
        let chunks = folder.serve(&["chunk-server", "-w", "-s", &store]);
        let indexes = folder.serve(&["index-server", "-w", "-s", "indexes"]);
        let index = format!("{}/{name}.caibx", indexes.url());
        folder.ok(tool(), &["make", "-s", &chunks.url(), &index, "blob"]);
        // Whole and verified, as every other tool sees it.
        folder.ok(cairn(), &["verify", "-s", &store]);
        let local = format!("indexes/{name}.caibx");
        folder.ok(casync(), &["extract", &format!("--store={store}"), &local, name]);
        folder.assert_is_blob(name);
        // The other ways to write: chunks that an index names, and those of another store.
        for verb in [
            ["chop", "indexes/blob.caibx", "blob"],
            ["cache", "indexes/blob.caibx", ""],
        ] {
            // Emptied below the running server, as a prune by hand does.
            for prefix in fs::read_dir(folder.path(&store)).expect("a store").flatten() {
                fs::remove_dir_all(prefix.path()).expect("a folder of chunks");
            }
            match verb {
                ["chop", index, blob] => folder.ok(tool(), &["chop", "-s", &chunks.url(), index, blob]),
                [verb, index, _] => folder.ok(tool(), &[verb, "-s", "store", "-c", &chunks.url(), index]),
            }
            let names = |store: &str| chunk_files(&folder.path(store)).into_iter().map(|(name, _)| name);
            assert!(names(&store).eq(names("store")), "{verb:?}");
        }
    }
}

#[test]
fn a_store_file_is_swapped_under_load_without_a_failed_request() {
    let folder = Folder::new(4);
    folder.ok(cairn(), &["cache", "-s", "store", "-c", "second", "indexes/blob.caibx"]);
    let (name, body) = chunk_files(&folder.path("store")).swap_remove(0);
    // A chunk that only one of the two stores has tells which one answers.
    let (mark, _) = chunk_files(&folder.path("store")).swap_remove(1);
    fs::remove_file(folder.path("second").join(&mark[..4]).join(&mark)).expect("a chunk");
    let write = |text: &str| fs::write(folder.path("stores.json"), text).expect("a file");
    write(r#"{"stores": ["store"]}"#);
    let server = folder.serve(&["chunk-server", "--store-file", "stores.json"]);
    let (stop, asked) = (AtomicBool::new(false), AtomicUsize::new(0));
    std::thread::scope(|scope| {
        for _ in 0..3 {
            scope.spawn(|| {
                while !stop.load(Ordering::Relaxed) {
                    let (status, _, found) = server.request("GET", &chunk_path(&name), &[], b"");
                    assert!(status == 200 && found == body, "{status}");
                    asked.fetch_add(1, Ordering::Relaxed);
                }
            });
        }
        for round in 0..10 {
            let (store, expected) = if round % 2 == 0 {
                ("second", 404)
            } else {
                ("store", 200)
            };
            write(&format!(r#"{{"stores": ["{store}"], "cache": ""}}"#));
            server.signal(Signal::HUP);
            let before = asked.load(Ordering::Relaxed);
            while server.request("HEAD", &chunk_path(&mark), &[], b"").0 != expected
                || asked.load(Ordering::Relaxed) == before
            {
                std::thread::yield_now();
            }
        }
        // A file that cannot be used changes nothing.
        write("{");
        server.signal(Signal::HUP);
        let line = server.line_with("the stores before it stay");
        assert!(line.contains("stores.json"), "{line}");
        assert_eq!(server.request("HEAD", &chunk_path(&mark), &[], b"").0, 200);
        stop.store(true, Ordering::Relaxed);
    });
    assert!(asked.load(Ordering::Relaxed) >= 10);
    folder.refused(
        cairn(),
        &["chunk-server", "--store-file", "stores.json", "-l", "127.0.0.1:0"],
    );
}

#[test]
fn certificates_are_shown_and_demanded() {
    let folder = Folder::new(5);
    folder.certificates();
    let tls = [
        "--cert",
        "server.pem",
        "--key",
        "server.key",
        "--mutual-tls",
        "--client-ca",
        "ca.pem",
    ];
    let chunks = folder.serve(&[&["chunk-server", "-w", "-s", "store"][..], &tls].concat());
    let indexes = folder.serve(&[&["index-server", "-w", "-s", "indexes"][..], &tls].concat());
    let url = |server: &Server| format!("https://127.0.0.1:{}", server.port);
    let index = url(&indexes) + "/blob.caibx";
    let known = [
        "--ca-cert",
        "ca.pem",
        "--client-cert",
        "client.pem",
        "--client-key",
        "client.key",
    ];
    for (tool, out) in [(cairn as fn() -> Command, "by-cairn"), (desync, "by-desync")] {
        let extract = |certificates: &[&str]| {
            let verb = ["extract", "-s", &url(&chunks), "-e", "1"];
            folder.command(tool(), &[&verb[..], certificates, &[&index, out]].concat())
        };
        ok(&mut extract(&known));
        folder.assert_is_blob(out);
        ok(folder
            .command(tool(), &["make", "-s", &url(&chunks)])
            .args(known)
            .args([&index, "blob"]));
        fs::remove_file(folder.path(out)).expect("an output");
        // No certificate of the client, one of another authority, a server that is not trusted.
        refused(&mut extract(&known[..2]));
        refused(&mut extract(&[
            "--ca-cert",
            "ca.pem",
            "--client-cert",
            "stranger.pem",
            "--client-key",
            "stranger.key",
        ]));
        refused(&mut extract(&[
            "--ca-cert",
            "stranger.pem",
            "--client-cert",
            "client.pem",
            "--client-key",
            "client.key",
        ]));
        assert!(!folder.path(out).exists());
    }
    for wrong in [
        &["--cert", "server.pem"][..],
        &["--mutual-tls"],
        &["--cert", "blob", "--key", "server.key"],
    ] {
        let words = folder.refused(cairn(), &[&["chunk-server", "-s", "store"][..], wrong].concat());
        assert!(
            words.contains("--key") || words.contains("--client-ca") || words.contains("blob"),
            "{words}"
        );
    }
}

#[test]
fn one_authorization_opens_both_servers() {
    let folder = Folder::new(6);
    let chunks = folder.serve(&["chunk-server", "-w", "-s", "store", "--authorization", "Bearer 13"]);
    let mut command = folder.command(cairn(), &["index-server", "-w", "-s", "indexes", "-l", "127.0.0.1:0"]);
    let indexes = Server::start_printing(command.env("DESYNC_HTTP_AUTH", "Bearer 13"));
    let index = indexes.url() + "/blob.caibx";
    // For stores and for indexes, which the configuration knows by their folder.
    for (name, value) in [("right", "Bearer 13"), ("wrong", "Bearer 12")] {
        folder.configure(name, "http://127.0.0.1:*", &serde_json::json!({ "http-auth": value }));
    }
    for tool in [cairn, desync] {
        folder.ok(
            tool(),
            &[
                "--config",
                "right",
                "extract",
                "-s",
                &chunks.url(),
                "indexes/blob.caibx",
                "out",
            ],
        );
        folder.assert_is_blob("out");
        folder.ok(
            tool(),
            &["--config", "right", "make", "-s", &chunks.url(), "local.caibx", "blob"],
        );
        folder.ok(tool(), &["--config", "right", "list-chunks", &index]);
        folder.ok(tool(), &["--config", "right", "make", &index, "blob"]);
        for config in [&["--config", "wrong"][..], &[]] {
            let extract = ["extract", "-s", &chunks.url(), "indexes/blob.caibx", "never"];
            folder.refused(tool(), &[config, &extract].concat());
        }
        folder.refused(tool(), &["--config", "wrong", "list-chunks", &index]);
        assert!(!folder.path("never").exists());
    }
}

#[test]
fn plain_and_compressed_clients_use_one_server() {
    let folder = Folder::new(7);
    let server = folder.serve(&["chunk-server", "-u", "-w", "-s", "store"]);
    folder.configure("plain", &server.url(), &serde_json::json!({ "uncompressed": true }));
    fs::write(folder.path("other"), input(8, 500_000)).expect("a file");
    for tool in [cairn, desync] {
        let plain = |arguments: &[&str]| folder.ok(tool(), &[&["--config", "plain"], arguments].concat());
        plain(&["extract", "-s", &server.url(), "indexes/blob.caibx", "plain-out"]);
        folder.ok(tool(), &["extract", "-s", &server.url(), "indexes/blob.caibx", "out"]);
        folder.assert_is_blob("plain-out");
        folder.assert_is_blob("out");
        plain(&["make", "-s", &server.url(), "other.caibx", "other"]);
        folder.ok(casync(), &["extract", "--store=store", "other.caibx", "other-out"]);
        let extracted = fs::read(folder.path("other-out")).expect("an output");
        assert!(extracted == input(8, 500_000));
        // casync does not write over what is there.
        fs::remove_file(folder.path("other-out")).expect("an output");
    }
    folder.ok(cairn(), &["verify", "-s", "store"]);
}

#[test]
fn requests_are_logged_where_asked() {
    let folder = Folder::new(9);
    let server = folder.serve(&["chunk-server", "-s", "store", "--log", "requests"]);
    let (name, _) = chunk_files(&folder.path("store")).swap_remove(0);
    assert_eq!(server.request("GET", &chunk_path(&name), &[], b"").0, 200);
    assert_eq!(server.request("PUT", &chunk_path(&name), &[], b"x").0, 400);
    assert_eq!(server.request("HEAD", "/nothing", &[], b"").0, 400);
    assert!(server.stop().success());
    let log = fs::read_to_string(folder.path("requests")).expect("a log");
    let path = chunk_path(&name);
    assert_eq!(log, format!("GET {path} 200\nPUT {path} 400\nHEAD /nothing 400\n"));
}

#[test]
fn an_encrypted_wire_over_any_store() {
    let folder = Folder::new(10);
    for (algorithm, store) in [("xchacha20-poly1305", "clear"), ("aes-256-gcm", "sealed")] {
        let options =
            serde_json::json!({ "encryption": true, "encryption-key": KEYS[0], "encryption-algorithm": algorithm });
        fs::create_dir(folder.path(store)).expect("a folder");
        // The store behind the server is in clear once, and sealed under a key of its own the other time.
        folder.configure(
            "behind",
            "sealed",
            &serde_json::json!({ "encryption": true, "encryption-key": KEYS[1] }),
        );
        let mut command = folder.command(cairn(), &["--config", "behind", "chunk-server", "-w", "-s", store]);
        command.args(["--encryption", "--encryption-algorithm", algorithm, "-l", "127.0.0.1:0"]);
        let server = Server::start_printing(command.env("DESYNC_ENCRYPTION_KEY", KEYS[0]));
        folder.configure("client", &server.url(), &options);
        folder.configure(
            "stranger",
            &server.url(),
            &serde_json::json!({ "encryption": true, "encryption-key": KEYS[1] }),
        );
        for (maker, other) in [(cairn as fn() -> Command, desync as fn() -> Command), (desync, cairn)] {
            folder.ok(
                maker(),
                &["--config", "client", "make", "-s", &server.url(), "wire.caibx", "blob"],
            );
            let extract = ["extract", "-s", &server.url(), "wire.caibx", "out"];
            folder.ok(other(), &[&["--config", "client"], &extract[..]].concat());
            folder.assert_is_blob("out");
            // Another key has another path, and no key at all none.
            folder.refused(other(), &[&["--config", "stranger"], &extract[..]].concat());
            folder.refused(other(), &extract);
        }

        // Behind the server lies what its own store asks for.
        let files = chunk_files(&folder.path(store));
        let in_clear = files.iter().all(|(name, _)| name.ends_with(".cacnk"));
        assert_eq!(in_clear, store == "clear");
        assert_eq!(files.len(), chunk_files(&folder.path("store")).len());
        let (name, frame) = chunk_files(&folder.path("store")).swap_remove(0);
        let sealed = format!("{}.{algorithm}-50d64035", chunk_path(&name));
        let overhead = if algorithm == "aes-256-gcm" { 28 } else { 40 };
        let (status, head, body) = server.request("GET", &sealed, &[("range", "bytes=0-3")], b"");
        assert_eq!((status, body.len()), (200, frame.len() + overhead));
        assert!(head.contains("etag: w/") && !head.contains("accept-ranges"), "{head}");
        let (_, head, again) = server.request("GET", &sealed, &[], b"");
        assert!(body != again, "a nonce was used twice: {head}");
        let (status, head, _) = server.request("HEAD", &sealed, &[], b"");
        assert!(
            status == 200 && head.contains(&format!("content-length: {}", body.len())),
            "{head}"
        );
        let in_clear = server.request("GET", &chunk_path(&name), &[], b"");
        assert_eq!(in_clear.0, 400);
        assert!(String::from_utf8_lossy(&in_clear.2).contains("50d64035"));
        // What does not open is refused by the chunk's name, and stored nowhere.
        let before = chunk_files(&folder.path(store));
        for wrong in [&frame[..], b"short", &body[..body.len() - 1]] {
            let (status, _, words) = server.request("PUT", &sealed, &[], wrong);
            let words = String::from_utf8_lossy(&words).into_owned();
            assert!(status == 400 && words.contains(&name[..64]), "{words}");
        }
        assert!(chunk_files(&folder.path(store)) == before);
        assert_eq!(server.request("PUT", &sealed, &[], &again).0, 200);
    }
}

#[test]
fn desyncs_encrypted_server_and_folders_are_read_and_written() {
    let folder = Folder::new(12);
    for algorithm in ["xchacha20-poly1305", "aes-256-gcm"] {
        let options =
            serde_json::json!({ "encryption": true, "encryption-key": KEYS[1], "encryption-algorithm": algorithm });
        let port = free_port();
        let address = format!("127.0.0.1:{port}");
        let behind = format!("behind-{algorithm}");
        fs::create_dir(folder.path(&behind)).expect("a folder");
        let command = [
            "chunk-server",
            "-w",
            "-s",
            &behind,
            "-l",
            &address,
            "--encryption-key",
            KEYS[1],
        ];
        let mut command = folder.command(desync(), &command);
        let server = Server::start(command.args(["--encryption-algorithm", algorithm]), port);
        folder.configure("client", &server.url(), &options);
        let client = |arguments: &[&str]| folder.ok(cairn(), &[&["--config", "client"], arguments].concat());
        client(&["make", "-s", &server.url(), "wire.caibx", "blob"]);
        client(&["extract", "-s", &server.url(), "wire.caibx", "out"]);
        folder.assert_is_blob("out");
        folder.ok(cairn(), &["verify", "-s", &behind]);

        // Folders: each writes one, the other reads it and adds to it.
        let tools = [
            ("cairn", cairn as fn() -> Command, desync as fn() -> Command),
            ("desync", desync, cairn),
        ];
        for (name, maker, reader) in tools {
            let store = format!("{name}-{algorithm}");
            fs::create_dir(folder.path(&store)).expect("a folder");
            folder.configure("local", &folder.path(&store).to_string_lossy(), &options);
            let path = folder.path(&store);
            let path = path.to_str().expect("temporary paths are UTF-8");
            folder.ok(
                maker(),
                &["--config", "local", "make", "-s", path, "local.caibx", "blob"],
            );
            folder.ok(
                reader(),
                &["--config", "local", "extract", "-s", path, "local.caibx", "out"],
            );
            folder.assert_is_blob("out");
            let before = chunk_files(&folder.path(&store));
            assert!(before.iter().all(|(name, _)| name.contains(algorithm)));
            folder.ok(
                reader(),
                &["--config", "local", "make", "-s", path, "local.caibx", "blob"],
            );
            assert!(
                chunk_files(&folder.path(&store)) == before,
                "known chunks were written again"
            );
        }
    }
}

#[test]
fn bad_settings_of_a_server_are_one_line_that_names_them() {
    let folder = Folder::new(11);
    let taken = folder.serve(&["chunk-server", "-s", "store"]);
    let address = format!("127.0.0.1:{}", taken.port);
    fs::write(folder.path("not-a-store"), "").expect("a file");
    for (arguments, word) in [
        (&["chunk-server", "-s", "store", "-l", &address][..], &address[..]),
        (&["chunk-server", "-s", "store", "-l", "nowhere:99999"], "nowhere:99999"),
        (&["chunk-server", "-s", "missing"], "missing"),
        (&["chunk-server", "-s", "not-a-store"], "not-a-store"),
        (&["chunk-server"], "-s"),
        (&["chunk-server", "-w", "-s", "store", "-s", "store"], "-w"),
        (&["chunk-server", "-w", "-s", "store", "-c", "cache"], "-w"),
        (&["chunk-server", "-s", "store", "--encryption"], "--encryption"),
        (
            &["chunk-server", "-s", "store", "--encryption-key", "13"],
            "--encryption-key",
        ),
        (
            &[
                "chunk-server",
                "-s",
                "store",
                "--encryption-key",
                KEYS[0],
                "--encryption-algorithm",
                "rot13",
            ],
            "rot13",
        ),
        (&["index-server", "-s", "missing"], "missing"),
        (&["index-server", "-s", "indexes", "-l", &address], &address),
    ] {
        let output = run(&mut folder.command(cairn(), arguments));
        let words = String::from_utf8_lossy(&output.stderr);
        assert!(!output.status.success(), "{arguments:?}");
        assert!(
            words.trim_end().lines().count() == 1 && words.contains(word),
            "{arguments:?}: {words}"
        );
        assert!(!words.contains(KEYS[0]), "{words}");
    }
}
