//! Holds the rules of the repository itself: which crate may use which, which crates stay free of I/O and of heavy
//! libraries, and that documents, scripts and the bootstrap say what is true.
//!
//! The arrows are read from the manifests through cargo, so an exception has to be written down here to exist. A new
//! crate fails `every_crate_has_its_arrows` until it has a row.

// A helper that fails is a test that fails.
#![allow(clippy::unwrap_used)]

use std::collections::BTreeSet;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use cairn_conformance::support::whole_path;

/// What a crate of the workspace may depend on, of the workspace's own crates.
const ARROWS: &[(&str, &[&str])] = &[
    ("cairn-formats", &[]),
    // The servers are for its tests.
    ("cairn-store", &["cairn-formats", "cairn-test-servers"]),
    ("cairn-index", &["cairn-formats", "cairn-store"]),
    ("cairn-roots", &["cairn-formats", "cairn-store"]),
    ("cairn-identity", &[]),
    ("cairn-proto", &[]),
    ("cairn-client", &["cairn-formats"]),
    (
        "cairn-gateway",
        &[
            "cairn-formats",
            "cairn-store",
            "cairn-index",
            "cairn-identity",
            "cairn-proto",
            "cairn-roots",
        ],
    ),
    (
        "cairn",
        &[
            "cairn-formats",
            "cairn-store",
            "cairn-roots",
            "cairn-identity",
            "cairn-client",
        ],
    ),
    (
        "cairnd",
        &[
            "cairn-formats",
            "cairn-store",
            "cairn-index",
            "cairn-identity",
            "cairn-gateway",
            "cairn-roots",
        ],
    ),
    // Sees only the network face and the command line of the built programs.
    ("cairn-conformance", &["cairn-test-servers"]),
    ("cairn-test-servers", &[]),
    (
        "cairn-benches",
        &[
            "cairn-formats",
            "cairn-store",
            "cairn-index",
            "cairn-roots",
            "cairn-proto",
        ],
    ),
];

/// Crates that must not be linked into one of ours, not even through another crate.
const NEVER_LINKED: &[(&str, &[&str])] = &[
    (
        "cairn-formats",
        &[
            "tokio", "hyper", "reqwest", "http", "axum", "rustix", "mio", "socket2", "memmap2", "tempfile", "rustls",
        ],
    ),
    ("cairn-store", &["axum", "s3s", "tonic", "rocksdb", "librocksdb-sys"]),
    ("cairn-index", &["axum", "s3s", "tonic"]),
    ("cairn-roots", &["axum", "s3s", "tonic", "rocksdb", "librocksdb-sys"]),
    (
        "cairn-identity",
        &["tokio", "hyper", "http", "axum", "rustix", "mio", "rustls"],
    ),
    ("cairn-gateway", &["axum"]),
    ("cairn-proto", &["axum", "hyper", "mio", "socket2"]),
    (
        "cairn",
        &[
            "axum",
            "s3s",
            "tonic",
            "rocksdb",
            "librocksdb-sys",
            "ffmpeg-next",
            "openssl-sys",
        ],
    ),
    ("cairnd", &["ffmpeg-next", "openssl-sys"]),
];

/// Crates that one of ours must not name itself; what a library brings with it is its own business.
const NEVER_NAMED: &[(&str, &[&str])] = &[("cairn-store", &["hyper", "hyper-util"])];

/// Standard-library doors that product code of these folders must not use. `std::io` traits over buffers are fine.
const NEVER_CALLED: &[(&str, &[&str])] = &[
    (
        "formats/src",
        &[
            "std::fs",
            "std::net",
            "std::env",
            "std::process",
            "std::thread",
            "Instant::now",
            "SystemTime",
            "async fn",
        ],
    ),
    // Only `server` and `tools` read environment, arguments and config files.
    ("store/src", &["std::env", "env::var"]),
    ("index/src", &["std::env", "env::var"]),
    ("gateway/roots/src", &["std::env", "env::var"]),
    ("gateway/src", &["std::env", "env::var"]),
    (
        "gateway/identity/src",
        &[
            "std::fs",
            "std::net",
            "std::env",
            "std::process",
            "std::thread",
            "Instant::now",
            "SystemTime",
            "async fn",
        ],
    ),
];

#[test]
fn every_crate_has_its_arrows() {
    let members: BTreeSet<String> = members().into_iter().map(|member| member.name).collect();
    let rows: BTreeSet<String> = ARROWS.iter().map(|(name, _)| (*name).to_owned()).collect();
    assert_eq!(
        members, rows,
        "the crates of the workspace (left) and the rows of ARROWS (right)"
    );
}

#[test]
fn arrows_between_crates_hold() {
    let members = members();
    let names: BTreeSet<&str> = members.iter().map(|member| member.name.as_str()).collect();
    for member in &members {
        let (_, allowed) = ARROWS
            .iter()
            .find(|(name, _)| *name == member.name)
            .expect("checked by the test above");
        for dependency in member
            .dependencies
            .iter()
            .filter(|dependency| names.contains(dependency.as_str()))
        {
            assert!(
                allowed.contains(&dependency.as_str()),
                "{} must not depend on {dependency}: if it needs to, the code is in the wrong crate",
                member.name
            );
        }
    }
}

/// The root manifest's `[workspace.dependencies]` is the list of what may be depended on: an addition is a decision seen there.
#[test]
fn dependencies_come_from_the_one_list() {
    let manifests = tracked().into_iter().filter(|file| file.ends_with("Cargo.toml"));
    // The fuzz crates are workspaces of their own.
    for file in manifests.filter(|file| file.components().count() > 1 && !file.to_string_lossy().contains("fuzz")) {
        let text = std::fs::read_to_string(root().join(&file)).unwrap();
        let mut depends = false;
        for line in text.lines().map(str::trim) {
            if line.starts_with('[') {
                depends = line.ends_with("dependencies]");
            } else if depends && !line.is_empty() && !line.starts_with('#') {
                assert!(line.contains("workspace = true"), "{}: {line}", file.display());
            }
        }
    }
}

#[test]
fn light_crates_stay_light() {
    for (name, forbidden) in NEVER_LINKED {
        let tree = output(Command::new(cargo()).current_dir(root()).args([
            "tree",
            "--package",
            name,
            "--edges",
            "normal",
            "--prefix",
            "none",
            "--format",
            "{p}",
            "--locked",
        ]));
        for line in tree.lines() {
            let linked = line.split(' ').next().unwrap_or_default();
            assert!(
                !forbidden.contains(&linked),
                "{name} must not link {linked}; `cargo tree -p {name} -i {linked}` says why it does"
            );
        }
    }
    let members = members();
    for (name, forbidden) in NEVER_NAMED {
        let member = members
            .iter()
            .find(|member| member.name == *name)
            .expect("a crate of the workspace");
        for dependency in &member.dependencies {
            assert!(
                !forbidden.contains(&dependency.as_str()),
                "{name} must not name {dependency} in its manifest"
            );
        }
    }
}

#[test]
fn pure_code_touches_nothing_outside() {
    for (folder, forbidden) in NEVER_CALLED {
        for file in tracked()
            .into_iter()
            .filter(|file| file.starts_with(folder) && extension(file) == "rs")
        {
            let text = std::fs::read_to_string(root().join(&file)).unwrap();
            // Tests stand at the end of a file; `tests.rs`, `scrub_tests.rs`, folders `tests` and the simulator are all tests.
            let name = file.to_string_lossy();
            let product =
                if name.ends_with("tests.rs") || ["/src/sim/", "/tests/"].iter().any(|part| name.contains(part)) {
                    ""
                } else {
                    text.split("#[cfg(test)]").next().unwrap_or("")
                };
            for (number, line) in product.lines().enumerate() {
                let code = line.trim_start();
                let used = forbidden
                    .iter()
                    .find(|door| !code.starts_with("//") && code.contains(**door));
                if let Some(door) = used {
                    panic!(
                        "{}:{}: {folder} must not use {door}: {code}",
                        file.display(),
                        number + 1
                    );
                }
            }
        }
    }
}

#[test]
fn documents_name_files_that_exist() {
    for document in tracked().into_iter().filter(|file| extension(file) == "md") {
        let text = std::fs::read_to_string(root().join(&document)).unwrap();
        let beside = document.parent().expect("a relative path has a parent");
        for name in links(&text) {
            let (file, _anchor) = name.split_once('#').unwrap_or((name.as_str(), ""));
            let outside = file.contains("://") || file.starts_with("mailto:") || file.is_empty();
            assert!(
                outside || root().join(beside).join(file).exists(),
                "{} links {name}, which is not there",
                document.display()
            );
        }
        for name in quoted_paths(&text) {
            assert!(
                root().join(&name).exists() || root().join(beside).join(&name).exists(),
                "{} names `{name}`, which is not there",
                document.display()
            );
        }
    }
}

#[test]
fn shell_scripts_parse() {
    let mut scripts = 0;
    for file in tracked() {
        let Ok(text) = std::fs::read_to_string(root().join(&file)) else {
            continue;
        };
        let first = text.lines().next().unwrap_or_default();
        if !first.starts_with("#!") || !first.ends_with("sh") {
            continue;
        }
        scripts += 1;
        let mode = std::fs::metadata(root().join(&file)).unwrap().permissions().mode();
        assert_ne!(mode & 0o111, 0, "{} is not executable", file.display());
        let parsed = Command::new("bash").arg("-n").arg(root().join(&file)).output().unwrap();
        assert!(
            parsed.status.success(),
            "{}: {}",
            file.display(),
            String::from_utf8_lossy(&parsed.stderr)
        );
    }
    assert!(scripts >= 5, "only {scripts} scripts found, the search is broken");
}

/// Goal: where everything is installed, bootstrap changes nothing and says nothing.
/// Method: this test runs after `tools/bootstrap test`, so a second run has nothing to do.
#[test]
fn bootstrap_with_nothing_to_do_is_silent() {
    let second = Command::new("tools/bootstrap")
        .current_dir(root())
        .arg("test")
        .stdin(Stdio::null())
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&second.stderr);
    assert!(second.status.success(), "tools/bootstrap test: {said}");
    assert_eq!(
        said, "",
        "a second run had something to do; run `tools/bootstrap test` first"
    );
    assert!(second.stdout.is_empty());
}

/// Goal: without the right to install packages, bootstrap prints the one command to run and changes nothing.
/// Method: a search path on which some packages and sudo are not to be found, as a user without rights.
#[test]
fn bootstrap_without_rights_says_what_to_run() {
    let place = tempfile::tempdir().unwrap();
    let (clone, bin) = (place.path().join("clone"), place.path().join("bin"));
    std::fs::create_dir_all(clone.join("tools")).unwrap();
    std::fs::create_dir_all(&bin).unwrap();
    std::fs::copy(root().join("tools/bootstrap"), clone.join("tools/bootstrap")).unwrap();
    for program in ["bash", "dirname", "cat", "id", "apt-get", "cc"] {
        std::os::unix::fs::symlink(which(program), bin.join(program)).unwrap();
    }
    for folder in [place.path(), &clone, &clone.join("tools"), &bin] {
        std::fs::set_permissions(folder, std::fs::Permissions::from_mode(0o755)).unwrap();
    }

    // Programs are named by their whole path: the search path of the child is the empty-handed one.
    let mut command = if rustix::process::geteuid().is_root() {
        let mut command = Command::new(which("setpriv"));
        command
            .args(["--reuid=65534", "--regid=65534", "--clear-groups"])
            .arg(which("bash"));
        command
    } else {
        Command::new(which("bash"))
    };
    command.arg(clone.join("tools/bootstrap")).arg("test");
    command
        .env("HOME", place.path())
        .env("PATH", &bin)
        .env_remove("CAIRN_CACHE")
        .env_remove("XDG_CACHE_HOME");
    let refused = command.output().unwrap();
    let said = String::from_utf8_lossy(&refused.stderr);
    assert_eq!(refused.status.code(), Some(1), "{said}");
    assert!(said.contains("an administrator has to run"), "{said}");
    assert!(
        said.contains("apt-get install -y --no-install-recommends") && said.contains("casync"),
        "{said}"
    );
    assert!(!place.path().join(".cache").exists(), "it wrote into the cache folder");
}

/// Goal: a command that does not exist is a usage line and status 2.
#[test]
fn bootstrap_refuses_an_unknown_command() {
    let refused = Command::new("tools/bootstrap")
        .current_dir(root())
        .arg("everything")
        .output()
        .unwrap();
    assert_eq!(refused.status.code(), Some(2));
    assert!(String::from_utf8_lossy(&refused.stderr).contains("usage: tools/bootstrap run|test"));
}

/// Goal: the page of metrics has each metric that there is, and none that there is not.
#[test]
fn metrics_are_those_of_their_page() {
    let page = std::fs::read_to_string(root().join("docs/metrics.md")).unwrap();
    let rows = page.lines().filter_map(|line| line.strip_prefix("| `"));
    let cells = rows.filter_map(|row| row.split(" | ").next());
    let documented: BTreeSet<&str> = cells.flat_map(|cell| cell.split(['`', ',', ' '])).collect();
    let documented: BTreeSet<&str> = documented.into_iter().filter(|name| !name.is_empty()).collect();
    let has_own = |folder: &str| {
        [
            "store/src",
            "index/src",
            "gateway/src",
            "gateway/roots/src",
            "server/src",
        ]
        .contains(&folder)
    };
    let mut recorded = BTreeSet::new();
    for file in tracked().into_iter().filter(|file| extension(file) == "rs") {
        if !file.ancestors().any(|folder| folder.to_str().is_some_and(has_own)) {
            continue;
        }
        let text = std::fs::read_to_string(root().join(&file)).unwrap();
        for open in ["counter!(", "gauge!(", "histogram!("] {
            for behind in text.split(open).skip(1) {
                let Some(name) = behind
                    .trim_start()
                    .strip_prefix('"')
                    .and_then(|name| name.split('"').next())
                else {
                    continue;
                };
                recorded.insert(name.to_owned());
            }
        }
    }
    assert!(recorded.len() > 50, "only {} metrics were found", recorded.len());
    let is_documented =
        |name: &str| documented.contains(name) || (name.starts_with("process_") && documented.contains("process_*"));
    let unknown: Vec<_> = recorded.iter().filter(|name| !is_documented(name)).collect();
    assert!(unknown.is_empty(), "not in docs/metrics.md: {unknown:?}");
    let gone: Vec<_> = documented
        .iter()
        .filter(|name| **name != "process_*" && !recorded.contains(**name))
        .collect();
    assert!(gone.is_empty(), "in docs/metrics.md, and recorded nowhere: {gone:?}");
}

/// A crate of the workspace and all crates its manifest names, for whatever kind of use.
struct Member {
    name: String,
    dependencies: Vec<String>,
}

fn members() -> Vec<Member> {
    let text = output(Command::new(cargo()).current_dir(root()).args([
        "metadata",
        "--no-deps",
        "--locked",
        "--format-version",
        "1",
    ]));
    let metadata: serde_json::Value = serde_json::from_str(&text).unwrap();
    let packages = metadata["packages"].as_array().expect("cargo lists packages");
    let name = |value: &serde_json::Value| value["name"].as_str().expect("cargo names everything").to_owned();
    packages
        .iter()
        .map(|package| Member {
            name: name(package),
            dependencies: package["dependencies"]
                .as_array()
                .expect("cargo lists dependencies")
                .iter()
                .map(name)
                .collect(),
        })
        .collect()
}

/// Targets of `[text](target)` outside code fences.
fn links(text: &str) -> Vec<String> {
    prose(text)
        .flat_map(|line| {
            line.split("](")
                .skip(1)
                .filter_map(|rest| rest.split_once(')'))
                .map(|(link, _)| link.to_owned())
        })
        .collect()
}

/// `quoted/words` that begin with a folder of the repository: those claim to be paths. Patterns and places to fill in
/// (`<name>`, `{name}`, `NAME`, `*`, `…`) are not, nor is what is built.
fn quoted_paths(text: &str) -> Vec<String> {
    let is_path = |word: &&str| {
        let (first, rest) = word.split_once('/').unwrap_or((word, ""));
        let root_file = !word.contains('/')
            && word.ends_with(".md")
            && word
                .chars()
                .all(|c| c.is_ascii_uppercase() || c == '.' || c == 'm' || c == 'd');
        let built = ["target", "data"].contains(&first);
        let folder = !built && ![".", "..", ""].contains(&first) && !rest.is_empty() && root().join(first).is_dir();
        let place = word
            .split('/')
            .any(|part| !part.is_empty() && part.chars().all(|c| c.is_ascii_uppercase()));
        let literal = !place && !word.contains(|c: char| c.is_whitespace() || "<>{}*…?$".contains(c));
        literal && (root_file || folder)
    };
    prose(text)
        .flat_map(|line| {
            line.split('`')
                .skip(1)
                .step_by(2)
                .filter(is_path)
                .map(str::to_owned)
                .collect::<Vec<_>>()
        })
        .collect()
}

fn prose(text: &str) -> impl Iterator<Item = &str> {
    let mut fenced = false;
    text.lines().filter(move |line| {
        let fence = line.trim_start().starts_with("```");
        fenced ^= fence;
        !fenced && !fence
    })
}

/// Every file git keeps, relative to the root, in order.
fn tracked() -> Vec<PathBuf> {
    let files: Vec<PathBuf> = output(Command::new("git").current_dir(root()).args(["ls-files", "-z"]))
        .split_terminator('\0')
        .map(PathBuf::from)
        .collect();
    assert!(files.len() > 20, "git lists only {} files", files.len());
    files.into_iter().filter(|file| root().join(file).is_file()).collect()
}

fn extension(file: &Path) -> &str {
    file.extension()
        .and_then(|extension| extension.to_str())
        .unwrap_or_default()
}

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .parent()
        .expect("conformance is a folder of the repository")
}

fn cargo() -> &'static str {
    env!("CARGO")
}

/// Whole path of a program on the search path.
fn which(program: &str) -> PathBuf {
    whole_path(&Command::new(program))
}

/// What a command printed; its failure is the test's.
fn output(command: &mut Command) -> String {
    let done = command
        .stdin(Stdio::null())
        .output()
        .unwrap_or_else(|error| panic!("{command:?}: {error}"));
    assert!(
        done.status.success(),
        "{command:?}: {}",
        String::from_utf8_lossy(&done.stderr)
    );
    String::from_utf8(done.stdout).expect("cargo and git print UTF-8")
}
