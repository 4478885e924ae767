//! Stores and indexes in buckets of real servers and behind OpenSSH's own SFTP server: what one tool writes the others
//! read, and prune; `cairn`, desync v1.1.0 and, over SFTP, casync.

use std::collections::BTreeSet;
use std::fs;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::Command;

use cairn_conformance::support::{
    Server, args, built, cairn, casync, chunk_files, desync, free_port, input, ok, refused, run,
};
use cairn_test_servers::{ACCESS_KEY, GsServer, S3Server, SECRET_KEY, Sshd};

/// A place for stores and indexes behind a network, and the folder that it is at the server.
trait Place {
    /// The URL of something in it, as a tool takes it.
    fn url(&self, name: &str) -> String;

    /// The same for desync.
    fn desync_url(&self, name: &str) -> String {
        self.url(name)
    }

    /// Where that is on this machine.
    fn here(&self, name: &str) -> PathBuf;

    /// Gives a tool what it needs to get in.
    fn with(&self, command: Command) -> Command;
}

impl Place for S3Server {
    fn url(&self, name: &str) -> String {
        Self::url(self, name)
    }

    fn here(&self, name: &str) -> PathBuf {
        self.object(name)
    }

    fn with(&self, mut command: Command) -> Command {
        command
            .env("S3_ACCESS_KEY", ACCESS_KEY)
            .env("S3_SECRET_KEY", SECRET_KEY)
            .env("S3_REGION", "us-east-1");
        command
    }
}

impl Place for GsServer {
    fn url(&self, name: &str) -> String {
        Self::url(self, name)
    }

    fn here(&self, name: &str) -> PathBuf {
        self.object(name)
    }

    fn with(&self, mut command: Command) -> Command {
        command.env("STORAGE_EMULATOR_HOST", self.endpoint());
        command
    }
}

/// An sshd, and a home whose `.ssh` lets `cairn` in; desync and casync come in by a script in ssh's place or by curl's means.
struct Far {
    sshd: Sshd,
    ssh: PathBuf,
}

impl Far {
    fn start() -> Self {
        let sshd = Sshd::start();
        let folder = sshd.path("home/.ssh");
        fs::create_dir_all(&folder).expect("a folder");
        fs::copy(sshd.identity(), folder.join("id_ed25519")).expect("a key");
        fs::copy(sshd.path("user.pub"), folder.join("id_ed25519.pub")).expect("a key");
        fs::copy(sshd.known_hosts(), folder.join("known_hosts")).expect("the server's key");
        // desync has no ports in its locations.
        let ssh = sshd.path("ssh");
        let script = format!(
            "#!/bin/sh\nexec ssh -F none -p {} -i {} -o IdentitiesOnly=yes -o UserKnownHostsFile={} -o LogLevel=ERROR \"$@\"\n",
            sshd.port(),
            sshd.identity().display(),
            sshd.known_hosts().display()
        );
        fs::write(&ssh, script).expect("a script");
        ok(Command::new("chmod").arg("755").arg(&ssh));
        Self { sshd, ssh }
    }
}

impl Place for Far {
    fn url(&self, name: &str) -> String {
        self.sshd.url(name)
    }

    fn desync_url(&self, name: &str) -> String {
        format!("sftp://{}@127.0.0.1{}", self.sshd.user(), self.here(name).display())
    }

    fn here(&self, name: &str) -> PathBuf {
        self.sshd.path(name)
    }

    fn with(&self, mut command: Command) -> Command {
        command
            .env("HOME", self.sshd.path("home"))
            .env("USER", self.sshd.user())
            .env("CASYNC_SSH_PATH", &self.ssh)
            .env_remove("SSH_AUTH_SOCK");
        command
    }
}

fn ids(store: &Path) -> BTreeSet<String> {
    chunk_files(store).into_iter().map(|(name, _)| name).collect()
}

fn assert_same(one: &Path, other: &Path) {
    ok(Command::new("cmp").arg(one).arg(other));
}

/// Two blobs that share nothing, in a folder of their own.
fn blobs() -> (tempfile::TempDir, PathBuf, PathBuf) {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let (blob, other) = (folder.path().join("blob"), folder.path().join("other"));
    fs::write(&blob, input(51, 3_000_000)).expect("a file");
    fs::write(&other, input(52, 1_000_000)).expect("a file");
    (folder, blob, other)
}

/// Goal: each tool extracts what the other made, byte for byte, and what one prunes is what the other means.
/// Method: both ways through the same place; after each prune the folder at the server has the kept chunks and no others.
fn tools_share(place: &dyn Place, make_store: bool) {
    let (folder, blob, other) = blobs();
    let out = |name: &str| folder.path().join(name);
    for (maker, name) in [("cairn", "ours"), ("desync", "theirs")] {
        let (store, index, rest) = (name.to_owned(), format!("{name}.caibx"), format!("{name}-rest.caibx"));
        if make_store {
            fs::create_dir(place.here(&store)).expect("a folder");
        }
        let tool = |maker: &str| place.with(if maker == "cairn" { cairn() } else { desync() });
        let url = |user: &str, name: &str| match user {
            "cairn" => place.url(name),
            _ => place.desync_url(name),
        };
        let reader = if maker == "cairn" { "desync" } else { "cairn" };
        for (index, source) in [(&index, &blob), (&rest, &other)] {
            ok(tool(maker).args(args!["make", "-s", url(maker, &store), url(maker, index), source]));
        }
        let back = out(&format!("{name}.back"));
        ok(tool(reader).args(args!["extract", "-s", url(reader, &store), url(reader, &index), back]));
        assert_same(&blob, &back);
        // What one pruned, the other reads; nothing but the kept chunks is left.
        let everything = ids(&place.here(&store));
        ok(tool(reader).args(args!["prune", "-y", "-s", url(reader, &store), url(reader, &index)]));
        let kept = ids(&place.here(&store));
        assert!(kept.len() < everything.len() && kept.is_subset(&everything), "{name}");
        let listed = ok(tool(maker).args(args!["list-chunks", url(maker, &index)])).stdout;
        let listed: BTreeSet<String> = String::from_utf8_lossy(&listed)
            .lines()
            .map(|id| format!("{id}.cacnk"))
            .collect();
        assert_eq!(kept, listed, "{name}");
        ok(place.with(cairn()).args(args!["verify", "-s", place.url(&store)]));
        for verb in ["stat", "ls"] {
            told_alike(place, verb, &store);
        }
        let back = out(&format!("{name}.again"));
        ok(tool(maker).args(args!["extract", "-s", url(maker, &store), url(maker, &index), back]));
        assert_same(&blob, &back);
        // And the maker prunes after the reader has added.
        ok(tool(reader).args(args!["make", "-s", url(reader, &store), url(reader, &rest), &other]));
        ok(tool(maker).args(args!["prune", "-y", "-s", url(maker, &store), url(maker, &index)]));
        assert_eq!(ids(&place.here(&store)), kept, "{name}");
    }
}

/// A store is counted and listed as the folder that it is at the server is.
fn told_alike(place: &dyn Place, verb: &str, store: &str) {
    let told = |store: &std::ffi::OsStr| {
        let said = ok(place.with(cairn()).args(["store", verb]).arg(store)).stdout;
        let mut lines: Vec<String> = String::from_utf8_lossy(&said).lines().map(str::to_owned).collect();
        lines.sort();
        lines
    };
    let (far, here) = (told(place.url(store).as_ref()), told(place.here(store).as_ref()));
    assert!(far.len() > 1, "{far:?}");
    assert_eq!(far, here, "{verb}");
}

/// Goal: what `cairn` does with a folder it does with this place: copies, trees, damage, a server in front.
fn every_verb_works(place: &dyn Place, settings: &str) {
    let (folder, blob, _) = blobs();
    let out = |name: &str| folder.path().join(name);
    let us = || place.with(cairn());
    let local = out("local");
    ok(cairn().args(args!["make", "-s", local, out("i.caibx"), &blob]));
    // There and back, also from one to the other.
    ok(us().args(args!["cache", "-s", local, "-c", place.url("copy"), out("i.caibx")]));
    assert_eq!(chunk_files(&local), chunk_files(&place.here("copy")));
    for verb in ["stat", "ls"] {
        told_alike(place, verb, "copy");
    }
    ok(us().args(args![
        "cache",
        "-s",
        place.url("copy"),
        "-c",
        place.url("twice"),
        out("i.caibx")
    ]));
    ok(us().args(args![
        "convert",
        "-s",
        place.url("twice"),
        "--uncompressed",
        out("plain")
    ]));
    ok(us().args(args!["extract", "-s", out("plain"), out("i.caibx"), out("blob.back")]));
    assert_same(&blob, &out("blob.back"));
    // A tree.
    fs::create_dir_all(out("tree/folder")).expect("a folder");
    for number in 0..20 {
        fs::write(out(&format!("tree/folder/{number}")), input(number, 20_000)).expect("a file");
    }
    ok(us().args(args![
        "tar",
        "-i",
        "-s",
        place.url("copy"),
        place.url("t.caidx"),
        out("tree")
    ]));
    ok(us().args(args![
        "untar",
        "-i",
        "-s",
        place.url("copy"),
        place.url("t.caidx"),
        out("tree.back")
    ]));
    ok(Command::new("diff").arg("-r").args([out("tree"), out("tree.back")]));
    // Damage is found, named, and removed on request.
    let (name, _) = chunk_files(&place.here("twice")).remove(0);
    let file = place.here("twice").join(&name[..4]).join(&name);
    ok(Command::new("chmod").arg("644").arg(&file));
    fs::write(&file, "damaged").expect("written");
    let bad = run(us().args(args!["verify", "-s", place.url("twice")]));
    assert_eq!(bad.status.code(), Some(3), "{bad:?}");
    assert!(String::from_utf8_lossy(&bad.stdout).contains(&name[..64]), "{bad:?}");
    assert_eq!(
        run(us().args(args!["verify", "-r", "-s", place.url("twice")]))
            .status
            .code(),
        Some(3)
    );
    assert!(!file.exists());
    ok(us().args(args!["verify", "-s", place.url("twice")]));
    // A server in front of it.
    let (public, internal) = (free_port(), free_port());
    let config = format!(
        "data = '{}'\n[listen]\npublic = '127.0.0.1:{public}'\ninternal = '127.0.0.1:{internal}'\ns3 = '127.0.0.1:0'\n\
         [stores.far]\nupstream = ['{}']\n{settings}",
        out("data").display(),
        place.url("copy")
    );
    fs::write(out("cairnd.toml"), config).expect("written");
    let mut cairnd = Command::new(built("cairnd"));
    cairnd.arg("--config").arg(out("cairnd.toml"));
    let server = Server::start(&mut cairnd, public);
    let front = format!("http://127.0.0.1:{public}/store/far/");
    ok(cairn().args(args!["extract", "-s", front, out("i.caibx"), out("through.back")]));
    assert_same(&blob, &out("through.back"));
    drop(server);
}

#[test]
fn desync_and_we_share_a_bucket() {
    tools_share(&S3Server::start(), false);
}

#[test]
fn desync_and_we_share_a_folder_behind_sftp() {
    tools_share(&Far::start(), true);
}

#[test]
fn a_bucket_is_a_store_like_any_other() {
    let settings = format!("upstream_s3_access_key = '{ACCESS_KEY}'\nupstream_s3_secret_key = '{SECRET_KEY}'\n");
    every_verb_works(&S3Server::start(), &settings);
}

#[test]
fn a_bucket_of_googles_is_a_store_like_any_other() {
    let server = GsServer::start_open();
    let settings = format!("upstream_gs_endpoint = '{}'\n", server.endpoint());
    every_verb_works(&server, &settings);
}

#[test]
fn a_folder_behind_sftp_is_a_store_like_any_other() {
    let far = Far::start();
    let settings = format!(
        "upstream_ssh_identity = '{}'\nupstream_ssh_known_hosts = '{}'\n",
        far.sshd.identity().display(),
        far.sshd.known_hosts().display()
    );
    every_verb_works(&far, &settings);
}

/// casync reads what we wrote, over SFTP; it writes nothing there, so the reverse is what it wrote at the server.
#[test]
fn casync_reads_a_folder_behind_sftp_that_we_wrote() {
    let far = Far::start();
    let (folder, blob, _) = blobs();
    let back = |name: &str| folder.path().join(name);
    ok(far
        .with(cairn())
        .args(args!["make", "-s", far.url("store"), far.url("b.caibx"), &blob]));
    // casync's SFTP is curl's, with keys of an agent alone.
    let socket = far.here("agent");
    let mut agent = Command::new("ssh-agent");
    let mut agent = agent
        .args(["-D", "-a"])
        .arg(&socket)
        .spawn()
        .expect("tools/bootstrap installs openssh-client");
    // The socket has its name before it listens.
    while UnixStream::connect(&socket).is_err() {
        std::thread::yield_now();
    }
    ok(Command::new("ssh-add")
        .arg("-q")
        .arg(far.sshd.identity())
        .env("SSH_AUTH_SOCK", &socket));
    ok(far.with(casync()).env("SSH_AUTH_SOCK", &socket).args(args![
        "extract",
        format!("--store={}", far.url("store")),
        far.url("b.caibx"),
        back("by-casync")
    ]));
    assert_same(&blob, &back("by-casync"));
    agent.kill().expect("our own child");
    agent.wait().expect("our own child");
    ok(casync().args(args![
        "make",
        format!("--store={}", far.here("theirs").display()),
        far.here("c.caibx"),
        &blob
    ]));
    ok(far.with(cairn()).args(args![
        "extract",
        "-s",
        far.url("theirs"),
        far.url("c.caibx"),
        back("from-casync")
    ]));
    assert_same(&blob, &back("from-casync"));
    // What we pruned over SFTP, casync's own collector finds nothing to take from.
    ok(far
        .with(cairn())
        .args(args!["prune", "-y", "-s", far.url("theirs"), far.url("c.caibx")]));
    let before = ids(&far.here("theirs"));
    ok(casync().args(args![
        "gc",
        format!("--store={}", far.here("theirs").display()),
        far.here("c.caibx")
    ]));
    assert_eq!(ids(&far.here("theirs")), before);
}

#[test]
fn what_cannot_be_reached_is_one_line_with_its_cause() {
    let server = S3Server::start();
    let (folder, blob, _) = blobs();
    let index = folder.path().join("i.caibx");
    let words = refused(server.with(cairn()).env("S3_SECRET_KEY", "another").args(args![
        "make",
        "-s",
        server.url("store"),
        index,
        &blob
    ]));
    assert!(
        words.contains("SignatureDoesNotMatch") && words.contains(&server.url("store")),
        "{words}"
    );
    assert_eq!(words.trim_end().lines().count(), 1, "{words}");
    let far = Far::start();
    fs::remove_file(far.sshd.path("home/.ssh/known_hosts")).expect("it is there");
    let words = refused(
        far.with(cairn())
            .args(args!["make", "-s", far.url("store"), index, &blob]),
    );
    assert!(words.contains("ssh-keyscan"), "{words}");
    assert_eq!(words.trim_end().lines().count(), 1, "{words}");
    let words = refused(cairn().args(args!["verify", "-s", "http://h/store"]));
    assert!(words.contains("cannot be listed"), "{words}");
}
