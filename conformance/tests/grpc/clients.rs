//! Clients of the Remote Execution API that we did not write: what they put they find again, elsewhere and compressed.

use std::fs;
use std::io::{BufRead as _, BufReader, Write as _};
use std::net::TcpListener;
use std::path::Path;
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use cairn_conformance::s3::Door;
use cairn_conformance::support::{ok, run};
use tempfile::TempDir;

use super::{TOKEN, seed, settings};

/// A server with a bucket `main`, which calls that show nothing may use too.
pub(super) struct World {
    pub(super) folder: TempDir,
    pub(super) door: Door,
}

impl World {
    pub(super) fn start() -> Self {
        Self::with(&[("CAIRN_GRPC__ANONYMOUS", "ci")])
    }

    pub(super) fn with(more: &[(&'static str, &'static str)]) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let settings = [&settings(), more].concat();
        let door = Door::start(&folder.path().join("data"), &settings);
        let mut make = Command::new("curl");
        make.args(["-sSf", "-H", &format!("Authorization: Bearer {}", door.admin_token)])
            .args(["-d", r#"{"name": "main", "owner": "admin"}"#])
            .arg(format!("{}/api/v1/admin/buckets", door.admin));
        ok(&mut make);
        Self { folder, door }
    }

    pub(super) fn address(&self) -> String {
        format!("127.0.0.1:{}", self.door.internal)
    }
}

fn noise(seed: u64, len: usize) -> Vec<u8> {
    let mut random = fastrand::Rng::with_seed(seed);
    std::iter::repeat_with(|| random.u8(..)).take(len).collect()
}

/// Goal: calls by reflection alone, with a token shown and without one.
#[test]
fn grpcurl_finds_and_calls_the_services() {
    let world = World::with(&[]);
    let ask = |shown: &str, words: &[&str]| {
        let mut command = Command::new("grpcurl");
        command
            .args(["-plaintext", "-H", &format!("authorization: Bearer {shown}")])
            .args(words);
        run(&mut command)
    };
    let address = world.address();
    let listed = String::from_utf8(ask(TOKEN, &[&address, "list"]).stdout).unwrap();
    for service in [
        "ContentAddressableStorage",
        "google.bytestream.ByteStream",
        "grpc.health.v1.Health",
    ] {
        assert!(listed.contains(service), "{listed}");
    }
    let call = [
        "-d",
        r#"{"instance_name": "main"}"#,
        &address,
        "build.bazel.remote.execution.v2.Capabilities/GetCapabilities",
    ];
    let answer = String::from_utf8(ask(TOKEN, &call).stdout).unwrap();
    assert!(
        answer.contains("BLAKE3") && answer.contains("\"maxBatchTotalSizeBytes\": \"4128768\""),
        "{answer}"
    );
    let refused = ask("wrong", &call);
    assert!(String::from_utf8_lossy(&refused.stderr).contains("Unauthenticated"));
}

/// Goal: files and trees that the Go SDK puts come back the same.
#[test]
fn remotetool_takes_files_and_trees_there_and_back() {
    let world = World::start();
    let tool = |operation: &str, words: &[&str]| {
        let mut command = Command::new("remotetool");
        command
            .env("HOME", world.folder.path())
            .args([
                "--service",
                &world.address(),
                "--service_no_security",
                "--service_no_auth",
            ])
            .args(["--instance", "main", "--alsologtostderr", "--operation", operation])
            .args(words);
        let output = ok(&mut command);
        format!(
            "{}{}",
            String::from_utf8_lossy(&output.stdout),
            String::from_utf8_lossy(&output.stderr)
        )
    };
    let place = world.folder.path();
    let tree = place.join("tree");
    fs::create_dir_all(tree.join("a/b")).unwrap();
    for (n, name) in ["one", "a/two", "a/b/three"].iter().enumerate() {
        fs::write(tree.join(name), noise(n as u64, 1 << (7 * n))).unwrap();
    }
    fs::write(tree.join("large"), noise(9, 9_000_000)).unwrap();
    let large = tree.join("large");
    tool("upload_blob", &["--path", large.to_str().unwrap()]);
    let back = place.join("back");
    let digest = format!("{}/9000000", sha256_of(&large));
    tool(
        "download_blob",
        &["--digest", &digest, "--path", back.to_str().unwrap()],
    );
    assert_eq!(fs::read(&back).unwrap(), fs::read(&large).unwrap());
    let said = tool("upload_dir", &["--path", tree.to_str().unwrap()]);
    let (_, root) = said.split_once("Directory root digest: ").unwrap();
    let copy = place.join("copy");
    tool(
        "download_dir",
        &[
            "--digest",
            root.lines().next().unwrap().trim(),
            "--path",
            copy.to_str().unwrap(),
        ],
    );
    ok(Command::new("diff").arg("-r").arg(&tree).arg(&copy));
}

fn sha256_of(file: &Path) -> String {
    let said = ok(Command::new("sha256sum").arg(file)).stdout;
    String::from_utf8_lossy(&said[..64]).into_owned()
}

fn bazel_workspace(place: &Path) {
    fs::create_dir_all(place).unwrap();
    fs::write(place.join("WORKSPACE"), "").unwrap();
    let rules = (0..8).map(|n| {
        format!("genrule(name = 'g{n}', srcs = ['in'], outs = ['out{n}'], cmd = 'seq {n} 200000 > $@; cat $< >> $@')\n")
    });
    fs::write(place.join("BUILD"), rules.collect::<String>()).unwrap();
    fs::write(place.join("in"), noise(1, 100_000)).unwrap();
}

/// Runs a build of a workspace in a clean output base, and returns what it says.
fn bazel(world: &World, program: &str, work: &str, root: &str, more: &[String]) -> String {
    let place = world.folder.path();
    let mut command = Command::new(program);
    command
        .env("HOME", place)
        .current_dir(place.join(work))
        .arg(format!("--output_user_root={}", place.join(root).display()))
        .arg("--batch")
        .args(["build", "//...", "--symlink_prefix=/", "--color=no", "--curses=no"])
        .arg(format!("--remote_cache=grpc://{}", world.address()))
        .arg("--remote_instance_name=main")
        .args(more);
    let output = ok(&mut command);
    // Bazel leaves folders that cannot be written to.
    ok(Command::new("chmod").args(["-R", "u+w"]).arg(place.join(root)));
    String::from_utf8_lossy(&output.stderr).into_owned()
}

/// Goal: what one build has made, another with nothing of its own takes from here, all of it. With Bazel 2 (npm) and 4 (Debian).
#[test]
fn the_second_build_of_bazel_takes_everything_from_here() {
    for program in ["cairn-bazel", "/usr/bin/bazel"] {
        let world = World::start();
        bazel_workspace(&world.folder.path().join("work"));
        let first = bazel(&world, program, "work", "first", &[]);
        assert!(!first.contains("remote cache hit"), "{program}: {first}");
        let second = bazel(&world, program, "work", "second", &[]);
        assert!(second.contains("8 remote cache hit"), "{program}: {second}");
    }
}

/// Answers every request with the same bytes. Returns the address, and how many requests there were.
fn origin(bytes: Vec<u8>) -> (String, Arc<AtomicUsize>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap().to_string();
    let requests = Arc::new(AtomicUsize::new(0));
    let counted = Arc::clone(&requests);
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let mut stream = stream.unwrap();
            let mut head = BufReader::new(stream.try_clone().unwrap()).lines();
            // Who leaves without a word has asked for nothing.
            let asked = head.by_ref().map_while(Result::ok).take_while(|line| !line.is_empty());
            if asked.count() == 0 {
                continue;
            }
            counted.fetch_add(1, Ordering::SeqCst);
            let len = bytes.len();
            let head = format!("HTTP/1.1 200 OK\r\nContent-Length: {len}\r\nConnection: close\r\n\r\n");
            let _ = stream.write_all(&[head.as_bytes(), &bytes].concat());
        }
    });
    (address, requests)
}

/// Goal: what a build downloads comes from elsewhere once; every later build has it from here.
#[test]
fn bazel_downloads_through_the_server_once() {
    let archive = noise(7, 300_000);
    let (origin, requests) = origin(archive.clone());
    let world = World::with(&[
        ("CAIRN_GRPC__ANONYMOUS", "ci"),
        ("CAIRN_GRPC__FETCH_HOSTS", r#"["127.0.0.1"]"#),
        ("CAIRN_OUTGOING__HOSTS", r#"["127.0.0.1"]"#),
        ("CAIRN_OUTGOING__PRIVATE", r#"["127.0.0.1"]"#),
        ("CAIRN_OUTGOING__PLAIN", "true"),
    ]);
    let work = world.folder.path().join("work");
    fs::create_dir_all(&work).unwrap();
    fs::write(world.folder.path().join("archive"), &archive).unwrap();
    let sum = sha256_of(&world.folder.path().join("archive"));
    let repository = format!(
        "load('@bazel_tools//tools/build_defs/repo:http.bzl', 'http_file')\n\
         http_file(name = 'archive', urls = ['http://{origin}/archive'], sha256 = '{sum}')\n"
    );
    fs::write(work.join("WORKSPACE"), repository).unwrap();
    let rule = "genrule(name = 'g', srcs = ['@archive//file'], outs = ['o'], cmd = 'cp $< $@')\n";
    fs::write(work.join("BUILD"), rule).unwrap();
    // 2.1 does not download so yet.
    for root in ["first", "second"] {
        let more = [
            format!("--experimental_remote_downloader=grpc://{}", world.address()),
            // Else it would keep what it has downloaded for itself.
            "--repository_cache=".to_owned(),
        ];
        bazel(&world, "/usr/bin/bazel", "work", root, &more);
        assert_eq!(requests.load(Ordering::SeqCst), 1, "{root}");
    }
}

/// Goal: moon's results come back from here, compressed on their way.
#[test]
fn moon_takes_its_outputs_back_with_zstd() {
    let world = World::start();
    let place = world.folder.path().join("moon");
    fs::create_dir_all(place.join(".moon")).unwrap();
    fs::create_dir_all(place.join("app")).unwrap();
    fs::write(
        place.join(".moon/workspace.yml"),
        format!(
            "projects: ['app']\nremote:\n  host: 'grpc://{}'\n  cache:\n    instanceName: main\n    compression: zstd\n",
            world.address()
        ),
    )
    .unwrap();
    let task =
        "language: 'bash'\ntasks:\n  build:\n    command: 'cp in out'\n    inputs: ['in']\n    outputs: ['out']\n";
    fs::write(place.join("app/moon.yml"), task).unwrap();
    fs::write(place.join("app/in"), "one line of text\n".repeat(300_000)).unwrap();
    let git = |words: &[&str]| {
        let mut command = Command::new("git");
        command.current_dir(&place).env("HOME", world.folder.path());
        ok(command
            .args(["-c", "user.name=x", "-c", "user.email=x@example.net"])
            .args(words));
    };
    git(&["init", "-q"]);
    git(&["add", "-A"]);
    git(&["commit", "-qm", "one"]);
    let moon = || {
        let mut command = Command::new("moon");
        command
            .current_dir(&place)
            .env("HOME", world.folder.path())
            .env("MOON_HOME", world.folder.path().join("moon-home"))
            .env("CI", "false")
            .args(["run", "app:build", "--log", "debug"]);
        let output = ok(&mut command);
        format!(
            "{}{}",
            String::from_utf8_lossy(&output.stdout),
            String::from_utf8_lossy(&output.stderr)
        )
    };
    moon();
    fs::remove_dir_all(place.join(".moon/cache")).unwrap();
    fs::remove_file(place.join("app/out")).unwrap();
    let again = moon();
    assert!(
        again.contains("cached from remote") || again.contains("(cached"),
        "{again}"
    );
    assert_eq!(
        fs::read(place.join("app/out")).unwrap(),
        fs::read(place.join("app/in")).unwrap()
    );
}

/// Goal: a client that cuts blobs by FastCDC sends and reads of a second version what has changed.
/// Method: buildbox-casd stands between; a proxy counts what goes over the wire. The chunk that changed is found by asking for the lists.
#[test]
fn of_a_second_version_only_the_changed_chunks_go_over_the_wire() {
    let world = World::start();
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut command = world.door.client("cairn-python", world.folder.path());
    command
        .args(["-B", "-W", "ignore", "-m", "unittest", "-v", "test_chunking"])
        .env("CAIRN_GRPC", world.address())
        .env("CAIRN_GRPC_TOKEN", TOKEN)
        .env("CAIRN_TEST_FOLDER", world.folder.path())
        .env("CAIRN_SEED", seed())
        .current_dir(root.join("grpc"));
    let words = ok(&mut command).stderr;
    assert!(String::from_utf8_lossy(&words).contains("\nOK"));
}
