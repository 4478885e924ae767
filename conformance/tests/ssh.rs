//! casync's protocol over SSH, both ends: real casync and desync with `cairn` at the far end, and `cairn` with theirs, reading
//! and making.
//!
//! Through a real sshd on a port of its own, and through a script in ssh's place that runs the command here.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;

use cairn_conformance::sshd::{Sshd, script};
use cairn_conformance::support::{args, built, cairn, casync, copy_of_cairn, desync, input, ok, refused, whole_path};

/// A folder with a blob, a tree, and a way to a far end.
struct Far {
    folder: tempfile::TempDir,
    ssh: PathBuf,
    /// How the far end is called in `ssh://` locations.
    host: String,
    _sshd: Option<Sshd>,
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
        let sshd = Sshd::start(folder.path());
        let (ssh, host) = (sshd.ssh.clone(), format!("127.0.0.1:{}", sshd.port));
        Self::filled(folder, ssh, host, Some(sshd))
    }

    fn filled(folder: tempfile::TempDir, ssh: PathBuf, host: String, sshd: Option<Sshd>) -> Self {
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

    /// A command whose connection is cut in one direction after half a megabyte. (`head` would hold back what it has.)
    fn with_cut(&self, command: Command, remote: &Path) -> Command {
        let body = format!(
            "dd bs=64k iflag=count_bytes count=500000 status=none | {} \"$@\"",
            self.ssh.display()
        );
        let cut = script(self.folder.path(), "cut-ssh", &body);
        let mut command = self.with(command, remote);
        command.env("CASYNC_SSH_PATH", cut);
        command
    }

    #[track_caller]
    fn assert_same(&self, one: &str, other: &str) {
        ok(Command::new("diff").arg("-r").args([self.path(one), self.path(other)]));
    }
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
    // Who comes through an sshd has the system's search path.
    let theirs = format!("exec '{}' \"$@\"", whole_path(&desync()).display());
    let desyncs = script(far.folder.path(), "far-desync", &theirs);
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

/// We make to the far end, a blob and a tree; a second make sends nothing, and one that is cut off leaves no index.
fn we_make_to(far: &Far, remote: &Path, kind: &str) {
    let store = far.ours(&format!("{kind}-store"));
    let at_far = far.path(&format!("{kind}-store"));
    let steps: [(&str, &[&str], &str); 2] = [("make", &[], "blob.caibx"), ("tar", &["-i"], "tree.caidx")];
    for (verb, flags, name) in steps {
        let index = format!("{kind}-{name}");
        let source = name.split('.').next().expect("a name");
        let run = |mut command: Command| {
            command.args(args![verb, "--verbose", "-s", store, "-e", "0"]);
            command.args(flags).args(args![far.ours(&index), far.path(source)]);
            command
        };
        let words = refused(&mut run(far.with_cut(cairn(), remote)));
        // casync leaves without a word, ours says why.
        let told = ["the other end has left", "it was cut off", "it left before"];
        assert!(told.iter().any(|told| words.contains(told)), "{words}");
        assert!(!far.path(&index).exists(), "an index after a cut");
        if at_far.exists() {
            ok(cairn().args(args!["verify", "-s", at_far]));
        }
        ok(&mut run(far.with(cairn(), remote)));
        let again = ok(&mut run(far.with(cairn(), remote))).stderr;
        let again = String::from_utf8_lossy(&again).into_owned();
        assert!(again.contains("pushed 0 chunks"), "{again}");
        ok(cairn().args(args!["verify", "-s", at_far]));
        let back = format!("{source}.of-{kind}");
        let extract = ["extract", "untar"][usize::from(verb == "tar")];
        let mut command = cairn();
        command.arg(extract).args(flags);
        ok(command.args(args!["-s", at_far, far.path(&index), far.path(&back)]));
        far.assert_same(source, &back);
    }
    // An index of chunks that are elsewhere goes alone.
    let index = format!("{kind}-alone.caibx");
    ok(far.with(cairn(), remote).args(args![
        "make",
        "-s",
        far.path("near"),
        far.ours(&index),
        far.path("blob")
    ]));
    ok(cairn().args(args!["verify-index", far.path(&index), far.path("blob")]));
    assert!(!far.path("default.castr").exists(), "a store that nobody asked for");
}

#[test]
fn we_make_to_casync_through_sshd() {
    we_make_to(&Far::behind_sshd(), Path::new("casync"), "casync");
}

#[test]
fn we_make_to_us_through_sshd() {
    we_make_to(&Far::behind_sshd(), &built("cairn"), "cairn");
}

/// What cannot be written at the far end, or over this protocol, is told in its own words, and nothing has its final name.
#[test]
fn a_push_that_is_refused_is_told_why() {
    let far = Far::behind_sshd();
    fs::create_dir(far.path("locked")).expect("a folder");
    fs::set_permissions(far.path("locked"), fs::Permissions::from_mode(0o555)).expect("a mode");
    fs::set_permissions(far.folder.path(), fs::Permissions::from_mode(0o755)).expect("a mode");
    copy_of_cairn(&far.path("cairn"));
    // Root may write everywhere: the far end is somebody else.
    let nobody = "if [ \"$(id -u)\" = 0 ]; then exec setpriv --reuid 65534 --regid 65534 --clear-groups";
    for program in ["casync".to_owned(), far.path("cairn").display().to_string()] {
        let body = format!("{nobody} {program} \"$@\"; fi\nexec {program} \"$@\"");
        let remote = script(far.folder.path(), "unprivileged", &body);
        let words = refused(far.with(cairn(), &remote).args(args![
            "make",
            "-e",
            "0",
            "-s",
            far.ours("locked/store"),
            far.ours("locked/x.caibx"),
            far.path("blob")
        ]));
        assert!(words.to_lowercase().contains("permission"), "{program}: {words}");
        assert_eq!(fs::read_dir(far.path("locked")).expect("listed").count(), 0);
    }
    let us = built("cairn");
    let words = refused(far.with(cairn(), &us).args(args![
        "make",
        "-s",
        far.ours("store"),
        far.path("near.caibx"),
        far.path("blob")
    ]));
    assert!(words.contains("only with the index that names them"), "{words}");
    let words = refused(far.with(cairn(), &us).args(args![
        "extract",
        "-e",
        "0",
        "-s",
        far.path("near"),
        far.ours("blob"),
        far.path("out")
    ]));
    assert!(words.contains("is not a chunk index"), "{words}");
}
