//! casync's protocol over SSH, both ends: real casync and desync with `cairn` at the far end, and `cairn` with theirs.
//!
//! Through a real sshd on a port of its own, and through a script in ssh's place that runs the command here.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;

use cairn_conformance::support::{Server, args, built, cairn, casync, desync, free_port, input, ok, refused};

/// A folder with a blob, a tree, and a way to a far end.
struct Far {
    folder: tempfile::TempDir,
    ssh: PathBuf,
    /// How the far end is called in `ssh://` locations.
    host: String,
    _sshd: Option<Server>,
}

impl Far {
    /// The far end is here.
    fn local() -> Self {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let ssh = script(folder.path(), "ssh", "shift\nexec sh -c \"$*\"");
        Self::filled(folder, ssh, "nowhere".to_owned(), None)
    }

    /// The far end is behind an sshd.
    fn behind_sshd() -> Self {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let path = folder.path();
        for key in ["host", "user"] {
            ok(Command::new("ssh-keygen")
                .args(["-q", "-t", "ed25519", "-N", "", "-f"])
                .arg(path.join(key)));
        }
        fs::rename(path.join("user.pub"), path.join("authorized")).expect("renamed");
        let port = free_port();
        let config = format!(
            "ListenAddress 127.0.0.1\nPort {port}\nHostKey {0}/host\nAuthorizedKeysFile {0}/authorized\n\
             PermitRootLogin yes\nStrictModes no\nUsePAM no\nPidFile none\nPasswordAuthentication no\n",
            path.display()
        );
        fs::write(path.join("sshd_config"), config).expect("written");
        fs::create_dir_all("/run/sshd").expect("sshd's own folder");
        let mut sshd = Command::new("/usr/sbin/sshd");
        sshd.arg("-D").arg("-e").arg("-f").arg(path.join("sshd_config"));
        let sshd = Server::start(&mut sshd, port);
        let user = ok(Command::new("id").arg("-un")).stdout;
        let config = format!(
            "Host *\nUser {}\nIdentityFile {1}/user\nIdentitiesOnly yes\nStrictHostKeyChecking no\n\
             UserKnownHostsFile {1}/known\nLogLevel ERROR\n",
            String::from_utf8_lossy(&user).trim(),
            path.display()
        );
        fs::write(path.join("ssh_config"), config).expect("written");
        // casync has no ports in its locations.
        let ssh = script(
            path,
            "ssh",
            &format!(
                "case \"$1\" in -p) ;; *) set -- -p {port} \"$@\" ;; esac\nexec ssh -F {}/ssh_config \"$@\"",
                path.display()
            ),
        );
        Self::filled(folder, ssh, format!("127.0.0.1:{port}"), Some(sshd))
    }

    fn filled(folder: tempfile::TempDir, ssh: PathBuf, host: String, sshd: Option<Server>) -> Self {
        let far = Self {
            folder,
            ssh,
            host,
            _sshd: sshd,
        };
        fs::write(far.path("blob"), input(41, 3_000_000)).expect("a file");
        fs::create_dir_all(far.path("tree/folder")).expect("a folder");
        for number in 0..40 {
            fs::write(far.path(&format!("tree/folder/{number}")), input(number, 20_000)).expect("a file");
        }
        far
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// casync's name for a file at the far end; it always goes to the default port.
    fn theirs(&self, name: &str) -> String {
        format!("127.0.0.1:{}", self.path(name).display())
    }

    fn ours(&self, name: &str) -> String {
        format!("ssh://{}{}", self.host, self.path(name).display())
    }

    /// A command whose far end is this program.
    fn with(&self, mut command: Command, remote: &Path) -> Command {
        command
            .env("CASYNC_SSH_PATH", &self.ssh)
            .env("CASYNC_REMOTE_PATH", remote);
        command
    }

    #[track_caller]
    fn assert_same(&self, one: &str, other: &str) {
        ok(Command::new("diff").arg("-r").args([self.path(one), self.path(other)]));
    }
}

fn script(folder: &Path, name: &str, body: &str) -> PathBuf {
    let path = folder.join(name);
    fs::write(&path, format!("#!/bin/sh\n{body}\n")).expect("written");
    fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).expect("a mode");
    path
}

/// casync makes to us and extracts from us: blobs, trees, an archive; a second make sends nothing that is there.
fn casync_uses_us(far: &Far) {
    let us = built("cairn");
    let store = far.theirs("far-store");
    for (name, source) in [("blob.caibx", "blob"), ("tree.caidx", "tree")] {
        for _ in 0..2 {
            ok(far.with(casync(), &us).args(args![
                "make",
                format!("--store={store}"),
                far.theirs(name),
                far.path(source)
            ]));
        }
        let back = far.path(&format!("{source}.back"));
        ok(far
            .with(casync(), &us)
            .args(args!["extract", format!("--store={store}"), far.theirs(name), back]));
        far.assert_same(source, &format!("{source}.back"));
    }
    ok(cairn().args(args!["verify", "-s", far.path("far-store")]));
    ok(far
        .with(casync(), &us)
        .args(args!["make", far.theirs("tree.catar"), far.path("tree")]));
    let back = far.path("archive.back");
    ok(casync().args(args!["extract", far.path("tree.catar"), back]));
    far.assert_same("tree", "archive.back");
}

/// desync and cairn extract from us, and cairn from casync and desync.
fn all_read_from_each_other(far: &Far) {
    ok(cairn().args(args![
        "make",
        "-s",
        far.path("store"),
        far.path("b.caibx"),
        far.path("blob")
    ]));
    let index = far.path("b.caibx");
    let us = built("cairn");
    let desyncs = script(far.folder.path(), "far-desync", "exec desync \"$@\"");
    let back = |name: &str| far.path(name);
    // desync has no ports either.
    let port_less = format!("ssh://127.0.0.1{}", far.path("store").display());
    ok(far
        .with(desync(), &us)
        .args(args!["extract", "-s", port_less, index, back("by-desync")]));
    far.assert_same("blob", "by-desync");
    for (name, remote) in [("by-us", us.as_path()), ("from-casync", Path::new("casync"))] {
        ok(far.with(cairn(), remote).args(args![
            "extract",
            "-s",
            far.ours("store"),
            far.ours("b.caibx"),
            back(name)
        ]));
        far.assert_same("blob", name);
    }
    // desync gives no indexes, and answers only the first id of a request.
    ok(far
        .with(cairn(), &desyncs)
        .args(args!["extract", "-s", far.ours("store"), index, back("from-desync")]));
    far.assert_same("blob", "from-desync");
    // desync reads nothing but zstd frames, whatever the store has.
    ok(cairn().args(args![
        "make",
        "--uncompressed",
        "-s",
        far.path("plain"),
        far.path("p.caibx"),
        far.path("blob")
    ]));
    let plain = format!("ssh://127.0.0.1{}", far.path("plain").display());
    ok(far.with(desync(), &us).args(args![
        "extract",
        "-s",
        plain,
        far.path("p.caibx"),
        back("plain-by-desync")
    ]));
    far.assert_same("blob", "plain-by-desync");
}

#[test]
fn casync_makes_to_us_and_extracts_from_us() {
    casync_uses_us(&Far::local());
}

#[test]
fn casync_makes_to_us_and_extracts_from_us_through_sshd() {
    casync_uses_us(&Far::behind_sshd());
}

#[test]
fn desync_and_casync_and_we_read_from_each_other_through_sshd() {
    all_read_from_each_other(&Far::behind_sshd());
}

/// A far end that is not there, and one whose key has changed, are told in a line.
#[test]
fn a_far_end_that_cannot_be_reached_is_one_line() {
    let far = Far::local();
    let broken = script(far.folder.path(), "broken", "echo 'Connection refused' >&2; exit 255");
    let words = refused(
        far.with(cairn(), Path::new("casync"))
            .env("CASYNC_SSH_PATH", broken)
            .args(args![
                "extract",
                "-e",
                "0",
                "-s",
                far.ours("store"),
                far.ours("x.caibx"),
                far.path("out")
            ]),
    );
    assert!(words.contains("Connection refused"), "{words}");
    assert_eq!(words.trim_end().lines().count(), 1, "{words}");
    let words = refused(cairn().args(args!["extract", "-s", "s", "ssh://-oProxyCommand=x/p", far.path("out")]));
    assert!(words.contains("a host or user that ssh would take"), "{words}");
}
