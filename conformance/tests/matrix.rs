//! The table "Where each verb works" of `docs/cli.md`, cell by cell: what it says works gives the right bytes, what it says
//! does not is refused with a line. A row without a check, and a check without a row, fail.
//!
//! Folders, `cairn chunk-server` and `index-server`, an S3 server, SFTP and `cairn pull` behind a real sshd; mounts need root and `/dev/fuse`.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use cairn_conformance::mounted::Mount;
use cairn_conformance::sshd::{Sshd, script};
use cairn_conformance::support::{Server, args, built, cairn, free_port, input, ok, run};
use cairn_test_servers::{ACCESS_KEY, S3Server, SECRET_KEY};

/// A file's path in the tree.
const IN_TREE: &str = "folder/file7";

/// The table's columns.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Column {
    Folder,
    Http,
    S3,
    Sftp,
    Ssh,
}

/// A blob, a tree, and a store that has both, to be reached in all ways.
struct Rooms {
    folder: tempfile::TempDir,
    sshd: Sshd,
    store: Server,
    indexes: Server,
    /// Its bucket is the folder.
    buckets: S3Server,
}

impl Rooms {
    fn new() -> Self {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let path = |name: &str| folder.path().join(name);
        for name in ["store", "empty", "indexes"] {
            fs::create_dir(path(name)).expect("a folder");
        }
        fs::create_dir_all(path("tree/folder")).expect("folders");
        for number in 0..20 {
            fs::write(path(&format!("tree/folder/file{number}")), input(number, 40_000)).expect("a file");
        }
        fs::write(path("blob"), input(77, 2_000_000)).expect("a file");
        let (blob, tree) = (path("indexes/blob.caibx"), path("indexes/tree.caidx"));
        ok(cairn().args(args!["make", "-s", path("store"), blob, path("blob")]));
        ok(cairn().args(args!["tar", "-i", "-s", path("store"), tree, path("tree")]));
        let serve = |verb: &str, name: &str| serve(verb, &path(name));
        let sshd = Sshd::start(folder.path());
        fs::create_dir_all(path("home/.ssh")).expect("folders");
        fs::copy(path("user"), path("home/.ssh/id_ed25519")).expect("a key");
        let host = fs::read_to_string(path("host.pub")).expect("the server's key");
        let known = format!("[127.0.0.1]:{} {host}", sshd.port);
        fs::write(path("home/.ssh/known_hosts"), known).expect("written");
        Self {
            sshd,
            buckets: S3Server::start_showing(folder.path()),
            store: serve("chunk-server", "store"),
            indexes: serve("index-server", "indexes"),
            folder,
        }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// Where a folder is for a column, whose server is `server`.
    fn at(&self, column: Column, name: &str, server: &Server) -> String {
        match column {
            Column::Folder => self.path(name).display().to_string(),
            Column::Http => server.url(),
            Column::S3 => self.buckets.url(name),
            Column::Sftp => format!("sftp://127.0.0.1:{}{}", self.sshd.port, self.path(name).display()),
            Column::Ssh => format!("ssh://127.0.0.1:{}{}", self.sshd.port, self.path(name).display()),
        }
    }

    /// The store that has everything.
    fn store(&self, column: Column) -> String {
        self.at(column, "store", &self.store)
    }

    fn index(&self, column: Column, name: &str) -> String {
        format!("{}/{name}", self.at(column, "indexes", &self.indexes))
    }

    /// `cairn` whose far ends are `cairn`.
    fn cairn(&self) -> Command {
        let mut command = cairn();
        command
            .env("CASYNC_SSH_PATH", &self.sshd.ssh)
            .env("CASYNC_REMOTE_PATH", built("cairn"))
            .env("S3_ACCESS_KEY", ACCESS_KEY)
            .env("S3_SECRET_KEY", SECRET_KEY)
            .env("HOME", self.path("home"))
            .env("USER", text(ok(Command::new("id").arg("-un"))).trim());
        command
    }

    /// Nothing is left of the check before.
    fn clear(&self) {
        for name in ["out", "empty"] {
            let path = self.path(name);
            let _ = fs::remove_dir_all(&path).or_else(|_| fs::remove_file(&path));
        }
        fs::create_dir(self.path("empty")).expect("a folder");
    }

    /// Lets every far end of `cairn` be this verb, started here, with this index and this store, whatever was asked for. Its own
    /// way to its store is the real one.
    fn far_end(&self, cairn: &mut Command, verb: &str, index: &str, store: &str) {
        let body = format!(
            "export CASYNC_SSH_PATH='{}' CASYNC_REMOTE_PATH='{1}'\nexec '{1}' {verb} - - '{index}' '{store}'",
            self.sshd.ssh.display(),
            built("cairn").display(),
        );
        let remote = script(self.folder.path(), "remote", &body);
        let nearby = script(self.folder.path(), "nearby", "shift\nexec sh -c \"$*\"");
        cairn.env("CASYNC_SSH_PATH", nearby).env("CASYNC_REMOTE_PATH", remote);
    }

    fn blob(&self) -> Vec<u8> {
        fs::read(self.path("blob")).expect("the blob")
    }

    fn assert_blob(&self) {
        assert!(fs::read(self.path("out")).expect("what was written") == self.blob());
    }

    fn assert_tree(&self, below: &str) {
        ok(Command::new("diff")
            .arg("-r")
            .args([self.path("tree").join(below), self.path("out")]));
    }

    /// What was written to the empty store gives the blob or the tree.
    fn assert_stored(&self, index: &str) {
        let (empty, index, out) = (self.path("empty"), self.path("indexes").join(index), self.path("out"));
        ok(cairn().args(args!["verify", "-s", empty]));
        if index.extension().is_some_and(|ending| ending == "caidx") {
            ok(cairn().args(args!["untar", "-i", "-s", empty, index, out]));
            self.assert_tree("");
        } else {
            ok(cairn().args(args!["extract", "-s", empty, index, out]));
            self.assert_blob();
        }
    }

    fn chunks_of_blob(&self) -> String {
        text(ok(cairn().args(args!["list-chunks", self.path("indexes/blob.caibx")])))
    }
}

/// Serves a folder, to be written too.
fn serve(verb: &str, folder: &Path) -> Server {
    let port = free_port();
    let address = format!("127.0.0.1:{port}");
    Server::start(cairn().args(args![verb, "-w", "-s", folder, "-l", address]), port)
}

fn text(output: Output) -> String {
    String::from_utf8(output.stdout).expect("UTF-8")
}

/// What a cell comes to.
enum Ran {
    /// It ended, well or not.
    Ended(Output),
    /// It served or was mounted, and everything was checked.
    Checked,
}

/// Runs the verb of a row in a column, and checks what it gave if it ended well. `None` for a row that is unknown here.
#[expect(clippy::too_many_lines, reason = "a table, an arm a row")]
fn try_cell(rooms: &Rooms, row: &str, column: Column) -> Option<Ran> {
    rooms.clear();
    // The store to be written, with a server that has not seen another one there.
    let server = serve("chunk-server", &rooms.path("empty"));
    let empty = rooms.at(column, "empty", &server);
    let (store, out) = (rooms.store(column), rooms.path("out"));
    let (blob_index, tree_index) = (rooms.index(column, "blob.caibx"), rooms.index(column, "tree.caidx"));
    let mut cairn = rooms.cairn();
    let end = |cairn: &mut Command, arguments: &[std::ffi::OsString], check: &dyn Fn(&str)| {
        let output = run(cairn.args(arguments));
        if output.status.success() {
            check(&String::from_utf8_lossy(&output.stdout));
        }
        Some(Ran::Ended(output))
    };
    match row {
        "`make`" => end(
            &mut cairn,
            &args![
                "make",
                "-s",
                empty,
                rooms.index(column, "new.caibx"),
                rooms.path("blob")
            ],
            &|_| rooms.assert_stored("new.caibx"),
        ),
        "`chop`" => end(
            &mut cairn,
            &args!["chop", "-s", empty, blob_index, rooms.path("blob")],
            &|_| {
                rooms.assert_stored("blob.caibx");
            },
        ),
        "`tar -i`" => end(
            &mut cairn,
            &args![
                "tar",
                "-i",
                "-s",
                empty,
                rooms.index(column, "new.caidx"),
                rooms.path("tree")
            ],
            &|_| rooms.assert_stored("new.caidx"),
        ),
        "`extract`" => end(&mut cairn, &args!["extract", "-s", store, blob_index, out], &|_| {
            rooms.assert_blob()
        }),
        "`cat`" => end(&mut cairn, &args!["cat", "-s", store, blob_index, out], &|_| {
            rooms.assert_blob()
        }),
        "`untar -i`" => end(&mut cairn, &args!["untar", "-i", "-s", store, tree_index, out], &|_| {
            rooms.assert_tree("")
        }),
        "`untar -i --path`" => end(
            &mut cairn,
            &args!["untar", "-i", "-s", store, "--path", IN_TREE, tree_index, out],
            &|_| rooms.assert_tree(IN_TREE),
        ),
        "`list -i`" => end(&mut cairn, &args!["list", "-i", "-s", store, tree_index], &|listed| {
            assert!(listed.lines().count() == 22 && listed.contains(IN_TREE), "{listed}");
        }),
        "`mtree -i`" => end(&mut cairn, &args!["mtree", "-i", "-s", store, tree_index], &|lines| {
            // But for the root's line, which has the time of the folder itself.
            let folder = text(ok(crate::cairn().args(args!["mtree", rooms.path("tree")])));
            assert_eq!(lines, folder);
        }),
        "`mount`" | "`mount-index`" => {
            let (verb, index) = match row {
                "`mount`" => ("mount", tree_index),
                _ => ("mount-index", blob_index),
            };
            fs::create_dir(&out).expect("a folder");
            let mounted = Mount::start(cairn.args(args![verb, "-s", store, index, out]), &out);
            if verb == "mount" {
                rooms.assert_tree("");
            } else {
                assert!(fs::read(mounted.blob()).expect("the blob") == rooms.blob());
            }
            mounted.end();
            Some(Ran::Checked)
        }
        "`info`" => end(&mut cairn, &args!["info", "-s", store, blob_index], &|told| {
            let told: serde_json::Value = serde_json::from_str(told).expect("JSON");
            assert!(
                told["in-store"].as_u64() > Some(0) && told["in-store"] == told["unique"],
                "{told}"
            );
        }),
        "`inspect-chunks`" => end(&mut cairn, &args!["inspect-chunks", "-s", store, blob_index], &|told| {
            let chunks = rooms.chunks_of_blob();
            let told: serde_json::Value = serde_json::from_str(told).expect("JSON");
            let told = told
                .as_array()
                .expect("a list")
                .iter()
                .filter_map(|chunk| chunk["id"].as_str());
            assert_eq!(told.collect::<BTreeSet<_>>(), chunks.lines().collect());
        }),
        "`list-chunks`" => end(&mut cairn, &args!["list-chunks", blob_index], &|told| {
            assert_eq!(told, rooms.chunks_of_blob())
        }),
        "`verify-index`" => end(
            &mut cairn,
            &args!["verify-index", blob_index, rooms.path("blob")],
            &|_| {},
        ),
        "`cache` from" => end(
            &mut cairn,
            &args!["cache", "-s", store, "-c", rooms.path("empty"), blob_index],
            &|_| {
                rooms.assert_stored("blob.caibx");
            },
        ),
        "`cache` to" => end(
            &mut cairn,
            &args!["cache", "-s", rooms.path("store"), "-c", empty, blob_index],
            &|_| {
                rooms.assert_stored("blob.caibx");
            },
        ),
        "`verify`" => end(&mut cairn, &args!["verify", "-s", store], &|_| {}),
        "`prune`" => {
            // Of a store of its own, as it goes.
            ok(crate::cairn().args(args![
                "chop",
                "-s",
                rooms.path("empty"),
                rooms.path("indexes/blob.caibx"),
                rooms.path("blob")
            ]));
            end(&mut cairn, &args!["prune", "-y", "-s", empty, tree_index], &|_| {
                let left = cairn_conformance::support::chunk_files(&rooms.path("empty"));
                assert!(left.is_empty(), "{} chunks are left", left.len());
            })
        }
        "`chunk-server` in front of it" => {
            let port = free_port();
            let address = format!("127.0.0.1:{port}");
            let server = Server::start(cairn.args(args!["chunk-server", "-s", store, "-l", address]), port);
            ok(crate::cairn().args(args![
                "extract",
                "-s",
                server.url(),
                rooms.path("indexes/blob.caibx"),
                out
            ]));
            rooms.assert_blob();
            Some(Ran::Checked)
        }
        "`index-server`" if column == Column::Folder => {
            let got = rooms.indexes.request("GET", "/blob.caibx", &[], b"");
            assert!(got.0 == 200 && got.2 == fs::read(rooms.path("indexes/blob.caibx")).expect("an index"));
            Some(Ran::Checked)
        }
        "`index-server`" => {
            let indexes = rooms.at(column, "indexes", &rooms.indexes);
            end(
                &mut cairn,
                &args!["index-server", "-s", indexes, "-l", "127.0.0.1:0"],
                &|_| {},
            )
        }
        "`pull` giving from it" => {
            rooms.far_end(&mut cairn, "pull", "-", &store);
            end(
                &mut cairn,
                &args![
                    "extract",
                    "-s",
                    "ssh://far/store",
                    rooms.path("indexes/blob.caibx"),
                    out
                ],
                &|_| rooms.assert_blob(),
            )
        }
        "`push` taking into it" => {
            let index = rooms.path("indexes/new.caibx").display().to_string();
            rooms.far_end(&mut cairn, "push", &index, &empty);
            end(
                &mut cairn,
                &args![
                    "make",
                    "-s",
                    "ssh://far/store",
                    "ssh://far/new.caibx",
                    rooms.path("blob")
                ],
                &|_| rooms.assert_stored("new.caibx"),
            )
        }
        _ => None,
    }
}

/// The rows of the table: its first cell, and whether `cairn` does it in each column.
fn table() -> Vec<(String, [bool; 5])> {
    let page = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/cli.md");
    let page = fs::read_to_string(page).expect("docs/cli.md");
    let (_, chapter) = page.split_once("## Where each verb works\n").expect("the chapter");
    let (chapter, _) = chapter.split_once("\n## ").expect("another chapter");
    let rows = chapter.lines().filter(|line| line.starts_with("| `"));
    rows.map(|row| {
        let cells: Vec<&str> = row.trim_matches('|').split('|').map(str::trim).collect();
        let [verb, places @ ..] = &cells[..] else {
            panic!("no cells: {row}")
        };
        let does = |cell: &str| match cell {
            "d c" | "c" => true,
            "d" | "–" => false,
            _ => panic!("a cell is none of `d c`, `c`, `d` and `–`: {row}"),
        };
        let places: [&str; 5] = places.try_into().unwrap_or_else(|_| panic!("not five places: {row}"));
        ((*verb).to_owned(), places.map(does))
    })
    .collect()
}

fn check(column: Column) {
    let rooms = Rooms::new();
    let table = table();
    let rows: BTreeSet<&str> = table.iter().map(|(row, _)| row.as_str()).collect();
    assert!(
        rows.len() == table.len() && rows.len() >= 23,
        "a row is gone, or there twice: {rows:?}"
    );
    for (row, does) in &table {
        let (does, what) = (does[column as usize], format!("{row}, {column:?}"));
        let ran = try_cell(&rooms, row, column).unwrap_or_else(|| panic!("{row} has no check: write one"));
        let Ran::Ended(output) = ran else {
            assert!(does, "{what} works, which docs/cli.md denies");
            continue;
        };
        let words = String::from_utf8_lossy(&output.stderr);
        assert_eq!(
            output.status.success(),
            does,
            "{what} is not as docs/cli.md says: {}\n{words}",
            output.status
        );
        if !does {
            let code = output.status.code();
            assert!(matches!(code, Some(1 | 2)), "{what}: {}\n{words}", output.status);
            assert_eq!(words.trim_end().lines().count(), 1, "{what}: {words}");
            assert!(words.starts_with("cairn: ") && words.contains("://"), "{what}: {words}");
        }
    }
}

#[test]
fn every_verb_works_with_folders_as_documented() {
    check(Column::Folder);
}

#[test]
fn every_verb_works_over_http_as_documented() {
    check(Column::Http);
}

#[test]
fn every_verb_works_with_buckets_as_documented() {
    check(Column::S3);
}

#[test]
fn every_verb_works_over_sftp_as_documented() {
    check(Column::Sftp);
}

#[test]
fn every_verb_works_over_ssh_as_documented() {
    check(Column::Ssh);
}
