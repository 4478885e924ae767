//! Clients of the Remote Execution API that we did not write: what they put they find again, elsewhere and compressed.

use std::fs;
use std::path::Path;
use std::process::Command;

use cairn_conformance::s3::Door;
use cairn_conformance::support::{ok, run};
use tempfile::TempDir;

use super::{TOKEN, settings};

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

/// Goal: what one build has made, another with nothing of its own takes from here, all of it.
#[test]
fn the_second_build_of_bazel_takes_everything_from_here() {
    let world = World::start();
    let place = world.folder.path();
    bazel_workspace(&place.join("work"));
    let build = |root: &str| {
        let mut command = Command::new("cairn-bazel");
        command
            .env("HOME", place)
            .current_dir(place.join("work"))
            .arg(format!("--output_user_root={}", place.join(root).display()))
            .arg("--batch")
            .args(["build", "//...", "--symlink_prefix=/", "--color=no", "--curses=no"])
            .arg(format!("--remote_cache=grpc://{}", world.address()))
            .arg("--remote_instance_name=main");
        let output = ok(&mut command);
        String::from_utf8_lossy(&output.stderr).into_owned()
    };
    let first = build("first");
    assert!(!first.contains("remote cache hit"), "{first}");
    let second = build("second");
    assert!(second.contains("8 remote cache hit"), "{second}");
    // Bazel leaves folders that cannot be written to.
    ok(Command::new("chmod").args(["-R", "u+w"]).arg(place));
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
        .current_dir(root.join("grpc"));
    let words = ok(&mut command).stderr;
    assert!(String::from_utf8_lossy(&words).contains("\nOK"));
}
