//! Bad input, bad luck and bad clients: refused with an error that names chunk and offset, nothing half visible, and a second
//! run finishes the job.

use std::fs;
use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use cairn_conformance::support::{args, built, cairn, cairnd, chunk_files, input, ok, refused, run};

fn with<const N: usize>(mut command: Command, args: [std::ffi::OsString; N]) -> Command {
    command.args(args);
    command
}

/// A folder with a blob, its index and its store.
struct Made {
    folder: tempfile::TempDir,
    bytes: Vec<u8>,
}

impl Made {
    fn new(seed: u64, len: usize) -> Self {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let bytes = input(seed, len);
        let made = Self { folder, bytes };
        fs::write(made.path("blob"), &made.bytes).expect("a file");
        fs::create_dir(made.path("store")).expect("a folder");
        ok(&mut with(
            cairn(),
            args![
                "make",
                "-s",
                made.path("store"),
                made.path("index.caibx"),
                made.path("blob")
            ],
        ));
        made
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// Extracts with a changed index; must be refused and leave no output.
    fn refuses_index(&self, name: &str, change: impl FnOnce(&mut Vec<u8>)) -> String {
        let mut index = fs::read(self.path("index.caibx")).expect("an index");
        change(&mut index);
        let path = self.path(name);
        fs::write(&path, index).expect("a file");
        let words = refused(&mut with(
            cairn(),
            args!["extract", "-s", self.path("store"), path, self.path("out")],
        ));
        assert!(!self.path("out").exists(), "{name}: {words}");
        assert_eq!(words.trim_end().lines().count(), 1, "one line: {words}");
        words
    }
}

fn put(index: &mut [u8], at: usize, word: u64) {
    index[at..at + 8].copy_from_slice(&word.to_le_bytes());
}

fn get(index: &[u8], at: usize) -> u64 {
    u64::from_le_bytes(index[at..at + 8].try_into().expect("eight bytes"))
}

#[test]
fn lying_indexes_are_refused_by_name_and_offset() {
    let made = Made::new(1, 700_000);
    for (name, at, word, named) in [
        ("index-size", 0, 47, "byte 0"),
        ("index-type", 8, 1, "byte"),
        ("unknown-flag", 16, 1 << 40 | 0xb000_0000_0000_0000, "byte 16"),
        ("min-above-avg", 24, 1 << 20, "byte 24"),
        ("max-too-big", 40, 1 << 40, "byte"),
        ("table-size", 48, 56, "byte 48"),
        ("falling-ends", 104, 1, "byte 104"),
        ("huge-chunk", 64, 1 << 62, "byte 64"),
    ] {
        let words = made.refuses_index(name, |index| put(index, at, word));
        assert!(words.contains(named) && words.contains(name), "{name}: {words}");
    }
    let end = fs::metadata(made.path("index.caibx")).expect("an index").len();
    for (name, behind) in [("one-byte", 1), ("an-item", 40), ("much", 100_000)] {
        let words = made.refuses_index(name, |index| index.resize(index.len() + behind, 0));
        assert!(
            words.contains("trailing bytes") && words.contains(&format!("byte {end})")),
            "{words}"
        );
    }
    made.refuses_index("cut", |index| index.truncate(index.len() - 1));
    made.refuses_index("empty", |index| index.clear());
    made.refuses_index("garbage", |index| index.fill(0x5a));
    // An end that is one off: the chunk is whole and has its right name, but not the length that the index says.
    let words = made.refuses_index("shifted", |index| {
        let end = get(index, 64);
        put(index, 64, end - 1)
    });
    assert!(words.contains("chunk") && words.contains("byte 0"), "{words}");
    let words = made.refuses_index("unknown-chunk", |index| index[72] ^= 1);
    assert!(words.contains("chunk") && words.contains("store"), "{words}");
}

#[test]
fn zero_chunks_of_false_sizes_are_refused() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let path = |name: &str| folder.path().join(name);
    fs::write(path("zeros"), vec![0; 3 << 18]).expect("a file");
    fs::create_dir(path("store")).expect("a folder");
    ok(&mut with(
        cairn(),
        args!["make", "-s", path("store"), path("index.caibx"), path("zeros")],
    ));
    let mut index = fs::read(path("index.caibx")).expect("an index");
    put(&mut index, 64 + 80, (2 << 18) + 1000);
    fs::write(path("lie.caibx"), index).expect("a file");
    let words = refused(&mut with(
        cairn(),
        args!["extract", "-s", path("store"), path("lie.caibx"), path("out")],
    ));
    assert!(
        words.contains("byte 524288") && words.contains("chunk 1c8109946feed9f9"),
        "{words}"
    );
    assert!(!path("out").exists());
}

/// A frame that inflates to gigabytes, in place of a chunk.
#[test]
fn zstd_bombs_are_refused_within_bounds() {
    let made = Made::new(2, 300_000);
    let (name, _) = chunk_files(&made.path("store")).into_iter().next().expect("a chunk");
    let chunk = made.path("store").join(&name[..4]).join(&name);
    fs::set_permissions(&chunk, fs::Permissions::from_mode(0o644)).expect("our own file");
    let mut zstd = Command::new("zstd")
        .args(["-19", "-q", "-c"])
        .stdin(Stdio::piped())
        .stdout(fs::File::create(&chunk).expect("our own file"))
        .spawn()
        .expect("zstd is installed by `tools/bootstrap test`");
    let mut stdin = zstd.stdin.take().expect("it is piped");
    let zeros = vec![0; 1 << 20];
    for _ in 0..1024 {
        stdin.write_all(&zeros).expect("zstd reads");
    }
    drop(stdin);
    assert!(zstd.wait().expect("our own child").success());
    let words = refused(&mut with(
        cairn(),
        args![
            "extract",
            "-s",
            made.path("store"),
            made.path("index.caibx"),
            made.path("out")
        ],
    ));
    assert!(words.contains(&name[..64]) && words.contains("byte"), "{words}");
    assert!(!made.path("out").exists());

    let found = run(&mut with(cairn(), args!["verify", "-s", made.path("store")]));
    assert!(!found.status.success());
    let words = String::from_utf8_lossy(&found.stderr).into_owned() + &String::from_utf8_lossy(&found.stdout);
    assert!(words.contains(&name[..64]), "{words}");
    run(&mut with(cairn(), args!["verify", "-r", "-s", made.path("store")]));
    ok(&mut with(
        cairn(),
        args![
            "chop",
            "-s",
            made.path("store"),
            made.path("index.caibx"),
            made.path("blob")
        ],
    ));
    ok(&mut with(
        cairn(),
        args![
            "extract",
            "-s",
            made.path("store"),
            made.path("index.caibx"),
            made.path("out")
        ],
    ));
    assert!(fs::read(made.path("out")).expect("an output") == made.bytes);
}

#[test]
fn garbage_at_the_chunk_root_is_refused_and_leaves_nothing() {
    let made = Made::new(3, 200_000);
    let data = made.path("data");
    let server = cairnd(&data);
    let (name, right) = chunk_files(&made.path("store")).into_iter().next().expect("a chunk");
    let path = format!("/store/default/{}/{name}", &name[..4]);
    let other = format!("/store/default/abcd/abcd{}.cacnk", &name[4..64]);
    for (path, body, status) in [
        (path.as_str(), b"garbage".to_vec(), 400),
        (path.as_str(), right[..right.len() - 1].to_vec(), 400),
        (path.as_str(), [&right[..], b"more"].concat(), 400),
        (path.as_str(), Vec::new(), 400),
        (other.as_str(), right.clone(), 400),
        ("/store/default/abcd/nonsense.cacnk", right.clone(), 400),
        ("/store/default/../../escape", right.clone(), 400),
        ("/store/default/%2e%2e/%2e%2e/escape", right.clone(), 400),
    ] {
        let (found, head, answer) = server.request("PUT", path, &[], &body);
        let words = String::from_utf8_lossy(&answer);
        assert!(
            found == status || path.contains("escape") && found == 404,
            "{path}: {head}\n{words}"
        );
    }
    // A body announced longer than any chunk is refused before it is read; one that never comes whole is no chunk.
    let huge = format!("PUT {path} HTTP/1.1\r\nhost: x\r\ncontent-length: 99999999999\r\n\r\n");
    let mut stream = TcpStream::connect(("127.0.0.1", server.port)).expect("the server listens");
    stream.write_all(huge.as_bytes()).expect("a request head");
    let mut answer = [0; 12];
    stream.read_exact(&mut answer).expect("an answer");
    assert_eq!(&answer, b"HTTP/1.1 413");
    let cut = format!(
        "PUT {path} HTTP/1.1\r\nhost: x\r\ncontent-length: {}\r\n\r\n",
        right.len()
    );
    let mut stream = TcpStream::connect(("127.0.0.1", server.port)).expect("the server listens");
    stream.write_all(cut.as_bytes()).expect("a request head");
    stream.write_all(&right[..right.len() / 2]).expect("half a body");
    drop(stream);

    assert_eq!(server.request("GET", &path, &[], b"").0, 404);
    assert_eq!(server.request("PUT", &path, &[], &right).0, 200);
    let (status, head, body) = server.request("GET", &path, &[], b"");
    assert!(status == 200 && body == right, "{head}");
    assert!(server.stop().success());
    let counted = ok(Command::new(built("cairnd"))
        .arg("--data")
        .arg(&data)
        .args(["store", "ls"]))
    .stdout;
    let lines = String::from_utf8_lossy(&counted).into_owned();
    assert_eq!(lines.lines().count(), 1, "{lines}");
    assert!(lines.starts_with(&name[..64]), "{lines}");
}

#[test]
fn garbage_at_the_index_root_is_refused_and_leaves_nothing() {
    let made = Made::new(4, 200_000);
    let server = cairnd(&made.path("data"));
    let index = fs::read(made.path("index.caibx")).expect("an index");
    let mut lie = index.clone();
    put(&mut lie, 64, 1 << 50);
    for body in [
        b"garbage".to_vec(),
        index[..100].to_vec(),
        [&index[..], b"x"].concat(),
        lie,
    ] {
        assert_eq!(server.request("PUT", "/index/default/a.caibx", &[], &body).0, 415);
        assert_eq!(server.request("GET", "/index/default/a.caibx", &[], b"").0, 404);
    }
    assert_eq!(server.request("PUT", "/index/default/a.caibx", &[], &index).0, 200);
    assert!(server.request("GET", "/index/default/a.caibx", &[], b"").2 == index);
    // A POST shows what its reader has, as an index.
    assert_eq!(server.request("POST", "/index/default/a.caibx", &[], b"x").0, 400);
    assert_eq!(server.request("PATCH", "/index/default/a.caibx", &[], b"x").0, 405);
}

#[test]
fn a_full_disk_is_a_clear_error_and_a_second_run_finishes() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let mount = folder.path().join("small");
    fs::create_dir(&mount).expect("a folder");
    ok(Command::new("mount")
        .args(["-t", "tmpfs", "-o", "size=4m", "cairn-test"])
        .arg(&mount));
    let unmount = Unmount(mount.clone());
    let blob = folder.path().join("blob");
    let mut random = fastrand::Rng::with_seed(5);
    let bytes: Vec<u8> = std::iter::repeat_with(|| random.u8(..)).take(8 << 20).collect();
    fs::write(&blob, &bytes).expect("a file");
    let store = mount.join("store");
    fs::create_dir(&store).expect("a folder");
    let index = folder.path().join("index.caibx");
    let words = refused(&mut with(cairn(), args!["make", "-s", store, index, blob]));
    assert!(words.contains("No space left") && words.contains("store"), "{words}");
    assert_eq!(words.trim_end().lines().count(), 1, "{words}");
    assert!(!index.exists(), "no index names what is not there");
    ok(&mut with(cairn(), args!["verify", "-s", store]));

    ok(Command::new("mount").args(["-o", "remount,size=64m"]).arg(&mount));
    ok(&mut with(cairn(), args!["make", "-s", store, index, blob]));
    ok(&mut with(cairn(), args!["verify", "-s", store]));
    let out = folder.path().join("out");
    ok(&mut with(cairn(), args!["extract", "-s", store, index, out]));
    assert!(fs::read(out).expect("an output") == bytes);

    ok(Command::new("mount").args(["-o", "remount,size=12m"]).arg(&mount));
    let words = refused(&mut with(
        cairn(),
        args!["extract", "-s", store, index, mount.join("out")],
    ));
    assert!(
        words.contains("out") && words.contains("bytes") || words.contains("No space"),
        "{words}"
    );
    assert!(!mount.join("out").exists());
    drop(unmount);
}

struct Unmount(PathBuf);

impl Drop for Unmount {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("-l").arg(&self.0).status();
    }
}

/// Root ignores permission bits, so the folder is read-only by its mount.
#[test]
fn a_read_only_store_is_a_clear_error() {
    let made = Made::new(6, 300_000);
    let mount = made.path("read-only");
    fs::create_dir(&mount).expect("a folder");
    ok(Command::new("mount").arg("--bind").arg(made.path("store")).arg(&mount));
    let unmount = Unmount(mount.clone());
    ok(Command::new("mount").args(["-o", "remount,ro,bind"]).arg(&mount));
    fs::write(made.path("other"), input(7, 300_000)).expect("a file");
    let words = refused(&mut with(
        cairn(),
        args!["make", "-s", mount, made.path("other.caibx"), made.path("other")],
    ));
    assert!(words.contains("read-only") || words.contains("Read-only"), "{words}");
    assert!(!made.path("other.caibx").exists());
    ok(&mut with(
        cairn(),
        args!["extract", "-s", mount, made.path("index.caibx"), made.path("out")],
    ));
    drop(unmount);
}

/// Killed at random moments: never a wrong or torn chunk under its final name, and the last run finishes.
/// `CAIRN_KILLS` sets how often; the full run is 100.
#[test]
fn a_killed_make_leaves_no_torn_chunk() {
    let kills: u64 = std::env::var("CAIRN_KILLS").map_or(10, |text| text.parse().expect("CAIRN_KILLS is a number"));
    let folder = tempfile::tempdir().expect("a temporary folder");
    let path = |name: &str| folder.path().join(name);
    let bytes = input(8, 48 << 20);
    fs::write(path("blob"), &bytes).expect("a file");
    let began = std::time::Instant::now();
    fs::create_dir(path("timing")).expect("a folder");
    ok(&mut with(
        cairn(),
        args!["make", "-s", path("timing"), path("timing.caibx"), path("blob")],
    ));
    let whole_run = began.elapsed();
    let mut random = fastrand::Rng::with_seed(9);
    for kill in 0..kills {
        let store = path(&format!("store{kill}"));
        fs::create_dir(&store).expect("a folder");
        let index = path(&format!("index{kill}.caibx"));
        let mut child = with(cairn(), args!["make", "-s", store, index, path("blob")])
            .stdin(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .expect("cairn is built");
        // The moment is what is random here, not what is waited for.
        let moment = std::time::Instant::now() + whole_run.mul_f64(random.f64());
        while std::time::Instant::now() < moment && child.try_wait().expect("our own child").is_none() {
            std::thread::yield_now();
        }
        let _ = child.kill();
        let finished = child.wait().expect("our own child").success();
        check_every_chunk(&store);
        assert!(finished || !index.exists() || fs::read(&index).expect("an index").len() > 104);
        ok(&mut with(cairn(), args!["make", "-s", store, index, path("blob")]));
        let out = path("out");
        ok(&mut with(cairn(), args!["extract", "-s", store, index, out]));
        assert!(fs::read(&out).expect("an output") == bytes, "kill {kill}");
        fs::remove_dir_all(store).expect("the store");
    }
}

/// Each `.cacnk` opens to its name, by tools that are not ours.
fn check_every_chunk(store: &Path) {
    use sha2::Digest as _;
    for (name, frame) in chunk_files(store) {
        let Some(id) = name.strip_suffix(".cacnk") else {
            assert!(name.starts_with('.'), "{name} is neither a chunk nor a temporary file");
            continue;
        };
        let mut zstd = Command::new("zstd")
            .args(["-d", "-q", "-c"])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("zstd is installed by `tools/bootstrap test`");
        let mut stdin = zstd.stdin.take().expect("it is piped");
        let writer = std::thread::spawn(move || stdin.write_all(&frame));
        let plain = zstd.wait_with_output().expect("our own child");
        writer
            .join()
            .expect("it does not panic")
            .expect("zstd reads all of a whole frame");
        assert!(plain.status.success(), "{name} is torn");
        let digest = sha2::Sha512_256::digest(&plain.stdout);
        let found: String = digest.iter().map(|byte| format!("{byte:02x}")).collect();
        assert_eq!(found, id);
    }
}

/// The second version of a file with one part rewritten costs little.
#[test]
fn one_percent_rewritten_costs_less_than_five_percent() {
    let made = Made::new(10, 64 << 20);
    let before: usize = chunk_files(&made.path("store"))
        .iter()
        .map(|(_, bytes)| bytes.len())
        .sum();
    let mut changed = made.bytes.clone();
    let one_percent = changed.len() / 100;
    let mut random = fastrand::Rng::with_seed(11);
    changed[20_000_000..20_000_000 + one_percent].fill_with(|| random.u8(..));
    fs::write(made.path("second"), changed).expect("a file");
    ok(&mut with(
        cairn(),
        args![
            "make",
            "-s",
            made.path("store"),
            made.path("second.caibx"),
            made.path("second")
        ],
    ));
    let after: usize = chunk_files(&made.path("store"))
        .iter()
        .map(|(_, bytes)| bytes.len())
        .sum();
    assert!(
        (after - before) * 20 < before,
        "{} new bytes over {before}",
        after - before
    );
}
