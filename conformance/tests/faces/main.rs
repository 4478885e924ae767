//! One object, many faces: what S3 clients put is extracted by casync and desync from `/index/{bucket}`, what desync pushes is an
//! object of S3, and each is reached by those alone who may.

// A helper that fails is a test that fails.
#![allow(clippy::unwrap_used)]

mod archives;
mod tool;

use std::fs;
use std::path::{Path, PathBuf};

use cairn_conformance::s3::Door;
use cairn_conformance::support::{args, cairn, casync, chunk_files, desync, input, ok, refused, request};

const MIB: usize = 1 << 20;
/// Of the configuration; they read, and read and write, alone.
const READER: &str = "reader-0123456789abcdef";
const WRITER: &str = "writer-0123456789abcdef";

/// A server with a bucket `abc`, and a folder.
struct Ground {
    folder: tempfile::TempDir,
    door: Door,
}

impl Ground {
    fn start() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let settings = [
            ("CAIRN_TOKENS__READER__TOKEN", READER),
            ("CAIRN_TOKENS__READER__BUCKETS", "[\"abc\"]"),
            ("CAIRN_TOKENS__WRITER__TOKEN", WRITER),
            ("CAIRN_TOKENS__WRITER__WRITABLE", "true"),
        ];
        let door = Door::start(&folder.path().join("data"), &settings);
        let ground = Self { folder, door };
        ground.script("import door; door.client().create_bucket(Bucket='abc')", &[]);
        ground
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn script(&self, program: &str, arguments: &[&str]) -> String {
        self.door.script(self.folder.path(), program, arguments)
    }

    /// Puts a file as an object, by boto3.
    fn put(&self, key: &str, file: &Path) {
        let program = "import door, sys; door.client().upload_file(sys.argv[2], 'abc', sys.argv[1])";
        self.script(program, &[key, file.to_str().unwrap()]);
    }

    /// The bytes of an object, by boto3.
    fn get(&self, key: &str) -> Vec<u8> {
        let file = self.path("got");
        let program = "import door, sys; door.client().download_file('abc', sys.argv[1], sys.argv[2])";
        self.script(program, &[key, file.to_str().unwrap()]);
        fs::read(file).unwrap()
    }

    fn file(&self, name: &str, bytes: &[u8]) -> PathBuf {
        let path = self.path(name);
        fs::write(&path, bytes).unwrap();
        path
    }

    /// The index of an object is what casync makes of the file `in`, byte for byte.
    fn compare_index(&self, key: &str) {
        let (own, store) = (self.path("own.caibx"), self.path("own.castr"));
        let _ = fs::remove_file(&own);
        ok(casync().args(args![
            "make",
            format!("--store={}", store.display()),
            own,
            self.path("in")
        ]));
        let (status, served) = self.ask("GET", &format!("/index/abc/{key}.caibx"), READER, b"");
        assert_eq!(status, 200);
        assert!(served == fs::read(&own).unwrap(), "the index of {key}");
    }

    fn ask(&self, method: &str, path: &str, token: &str, body: &[u8]) -> (u16, Vec<u8>) {
        let token = format!("Bearer {token}");
        let headers = [("authorization", token.as_str())];
        let (status, head, body) = request(self.door.public, method, path, &headers, body);
        assert!(head.contains("content-security-policy: sandbox"), "{head}");
        (status, body)
    }

    /// Puts the chunks of a local store.
    fn put_chunks(&self, bucket: &str, chunks: &[(String, Vec<u8>)]) {
        for (name, frame) in chunks {
            let (status, words) = self.ask("PUT", &chunk_path(bucket, name), WRITER, frame);
            assert_eq!(status, 200, "{}", String::from_utf8_lossy(&words));
        }
    }
}

fn chunk_path(bucket: &str, name: &str) -> String {
    format!("/store/{bucket}/{}/{name}", &name[..4])
}

/// Goal: what S3 clients put is rebuilt by casync, desync and cairn from its index and its bucket's chunks: long, within a row, empty,
/// and in parts.
#[test]
fn an_object_of_s3_is_extracted_from_its_index() {
    let ground = Ground::start();
    for (key, len) in [
        ("deep/er/long.bin", 20 * MIB),
        ("short", 700),
        ("empty", 0),
        ("some", 3 * MIB),
    ] {
        let bytes = input(len as u64, len);
        ground.put(key, &ground.file("in", &bytes));
        let (store, index) = (
            ground.door.store("abc"),
            ground.door.index("abc", &format!("{key}.caibx")),
        );
        let out = ground.path("out");
        for tool in ["casync", "desync", "cairn"] {
            ok(&mut match tool {
                "casync" => {
                    let mut casync = casync();
                    casync.args(args!["extract", format!("--store={store}"), index, out]);
                    casync
                }
                _ => {
                    let mut program = if tool == "cairn" { cairn() } else { desync() };
                    program.args(args!["extract", "-s", format!("{store}/"), index, out]);
                    program
                }
            });
            assert!(fs::read(&out).unwrap() == bytes, "{key} by {tool}");
            fs::remove_file(&out).unwrap();
        }
        ground.compare_index(key);
    }
    refused(casync().args(args![
        "extract",
        format!("--store={}", ground.door.store("abc")),
        ground.door.index("abc", "nothing.caibx"),
        ground.path("out")
    ]));
}

/// Uploads of the usual run, and of the full one (`CAIRN_FULL=1`).
const UPLOADS: (u64, u64) = (3, 20);

/// Goal: what comes in parts of any size in any order has casync's index of the whole, byte for byte.
#[test]
fn parts_in_any_order_have_casyncs_index() {
    const PROGRAM: &str = "
import door, sys
key, file, lens, order = sys.argv[1:]
s3, lens = door.client(), [int(n) for n in lens.split()]
named = {'Bucket': 'abc', 'Key': key}
named['UploadId'] = s3.create_multipart_upload(**named)['UploadId']
data, parts = open(file, 'rb').read(), {}
for n in map(int, order.split()):
    at = sum(lens[:n])
    tag = s3.upload_part(PartNumber=n + 1, Body=data[at:at + lens[n]], **named)['ETag']
    parts[n] = {'PartNumber': n + 1, 'ETag': tag}
s3.complete_multipart_upload(MultipartUpload={'Parts': [parts[n] for n in sorted(parts)]}, **named)
";
    let ground = Ground::start();
    let full = std::env::var_os("CAIRN_FULL").is_some();
    for seed in 0..if full { UPLOADS.1 } else { UPLOADS.0 } {
        let mut random = fastrand::Rng::with_seed(seed);
        let count = random.usize(2..6);
        let mut lens: Vec<usize> = (0..count).map(|_| random.usize(5 * MIB..9 * MIB)).collect();
        lens[count - 1] = random.usize(1..6 * MIB);
        let mut order: Vec<usize> = (0..count).collect();
        random.shuffle(&mut order);
        let bytes = input(seed, lens.iter().sum());
        let (key, file) = (format!("parts-{seed}"), ground.file("in", &bytes));
        let words = |numbers: &[usize]| numbers.iter().map(|number| format!("{number} ")).collect::<String>();
        ground.script(PROGRAM, &[&key, file.to_str().unwrap(), &words(&lens), &words(&order)]);
        ground.compare_index(&key);
        assert!(ground.get(&key) == bytes, "{key}");
    }
}

/// Goal: what desync and cairn push is an object at once, blob and archive alike, and its index is what they pushed.
#[test]
fn what_is_pushed_is_an_object() {
    let ground = Ground::start();
    let bytes = input(7, 5 * MIB);
    let file = ground.file("in", &bytes);
    let local = ground.path("local.caibx");
    for tool in ["desync", "cairn"] {
        let make = || if tool == "cairn" { cairn() } else { desync() };
        let index = ground.door.index("abc", &format!("from/{tool}.bin.caibx"));
        ok(make().args(args![
            "make",
            "-s",
            format!("{}/", ground.door.store("abc")),
            index,
            file
        ]));
        assert!(ground.get(&format!("from/{tool}.bin")) == bytes, "{tool}");
        let _ = fs::remove_file(&local);
        ok(make().args(args!["make", local, file]));
        let (status, served) = ground.ask("GET", &format!("/index/abc/from/{tool}.bin.caibx"), READER, b"");
        assert_eq!(status, 200);
        assert!(served == fs::read(&local).unwrap(), "{tool}");
    }
    // An archive: its object is the .catar, its index has the archive's flags.
    let (tree, catar) = (ground.path("tree"), ground.path("tree.catar"));
    fs::create_dir_all(tree.join("a/b")).unwrap();
    fs::write(tree.join("a/b/file"), &bytes[..MIB]).unwrap();
    fs::write(tree.join("short"), b"short").unwrap();
    let index = ground.door.index("abc", "trees/tree.caidx");
    ok(cairn().args(args![
        "tar",
        "-i",
        "-s",
        format!("{}/", ground.door.store("abc")),
        index,
        tree
    ]));
    ok(cairn().args(args!["tar", catar, tree]));
    assert!(ground.get("trees/tree.catar") == fs::read(&catar).unwrap());
    let out = ground.path("out");
    fs::create_dir(&out).unwrap();
    ok(casync().args(args![
        "extract",
        format!("--store={}", ground.door.store("abc")),
        index,
        out
    ]));
    ok(std::process::Command::new("diff").arg("-r").arg(&tree).arg(&out));
    // An object that is no archive has no index of one.
    ground.put("no.catar", &file);
    assert_eq!(ground.ask("GET", "/index/abc/no.caidx", READER, b"").0, 404);
    assert_eq!(ground.ask("GET", "/index/abc/no.catar.caibx", READER, b"").0, 200);
}

/// Goal: an index is taken when all of its chunks are there, those that are not are named, and one that lies, or is none, makes no
/// object.
#[test]
fn an_index_with_missing_chunks_names_them_and_a_lying_one_is_refused() {
    let ground = Ground::start();
    let bytes = input(8, 4 * MIB);
    let (file, index, store) = (ground.file("in", &bytes), ground.path("in.caibx"), ground.path("store"));
    ok(cairn().args(args!["make", "-s", store, index, file]));
    let index = fs::read(index).unwrap();
    let chunks = chunk_files(&store);
    assert!(chunks.len() > 20, "{}", chunks.len());
    let (kept_back, rest) = chunks.split_at(3);
    ground.put_chunks("abc", rest);
    let (status, words) = ground.ask("PUT", "/index/abc/x/y.bin.caibx", WRITER, &index);
    let words = String::from_utf8(words).unwrap();
    assert_eq!(status, 409, "{words}");
    let mut named: Vec<&str> = words.lines().filter(|line| line.len() == 64).collect();
    named.sort_unstable();
    let expected: Vec<&str> = kept_back
        .iter()
        .map(|(name, _)| name.trim_end_matches(".cacnk"))
        .collect();
    assert_eq!(named, expected, "{words}");

    ground.put_chunks("abc", kept_back);
    // A last chunk that is a byte longer, or shorter, than it is said to be.
    let end = index.len() - 80;
    let len = u64::from_le_bytes(index[end..end + 8].try_into().unwrap());
    assert_eq!(len, bytes.len() as u64);
    for lie in [len - 1, len + 1] {
        let mut lying = index.clone();
        lying[end..end + 8].copy_from_slice(&lie.to_le_bytes());
        let (status, words) = ground.ask("PUT", "/index/abc/x/y.bin.caibx", WRITER, &lying);
        let words = String::from_utf8(words).unwrap();
        assert!(status == 400 && words.contains("bytes, and not"), "{status} {words}");
    }
    for (none, expected) in [(&b"no index"[..], 415), (&index[..index.len() - 1], 415), (b"", 415)] {
        assert_eq!(ground.ask("PUT", "/index/abc/x/y.bin.caibx", WRITER, none).0, expected);
    }
    assert_eq!(ground.ask("GET", "/index/abc/x/y.bin.caibx", READER, b"").0, 404);

    assert_eq!(ground.ask("PUT", "/index/abc/x/y.bin.caibx", WRITER, &index).0, 200);
    assert!(ground.get("x/y.bin") == bytes);
    assert!(ground.ask("GET", "/index/abc/x/y.bin.caibx", READER, b"") == (200, index.clone()));
    // A real object of the name wins.
    ground.put("x/z.caibx", &ground.file("real", b"real"));
    assert_eq!(
        ground.ask("GET", "/index/abc/x/z.caibx", READER, b""),
        (200, b"real".to_vec())
    );
    assert_eq!(ground.ask("PUT", "/index/abc/x/z.caibx", WRITER, &index).0, 409);
    for path in ["/index/abc/x", "/index/abc/.caibx", "/index/abc/"] {
        assert_eq!(ground.ask("PUT", path, WRITER, &index).0, 400, "{path}");
    }
    assert_eq!(ground.ask("DELETE", "/index/abc/x/y.bin.caibx", WRITER, b"").0, 405);
}

/// Goal: nothing of a bucket is answered to whom it is not for: nobody, a wrong token or secret, a token of another bucket, one that
/// only reads, another tenant, another domain.
#[test]
fn nobody_else_finds_anything() {
    let ground = Ground::start();
    let bytes = input(9, MIB);
    ground.put("x", &ground.file("in", &bytes));
    let index = ground.ask("GET", "/index/abc/x.caibx", READER, b"").1;
    let (local, store) = (ground.path("in.caibx"), ground.path("store"));
    ok(cairn().args(args!["make", "-s", store, local, ground.path("in")]));
    let chunks = chunk_files(&store);
    let (name, frame) = &chunks[0];
    let own = chunk_path("abc", name);
    assert_eq!(ground.ask("GET", &own, READER, b"").0, 200);

    // Who shows nothing, or something wrong, is told the same of what is there and of what is not.
    for path in [
        own.as_str(),
        "/index/abc/x.caibx",
        "/store/nothing/aa",
        "/index/nothing/x.caibx",
    ] {
        for method in ["GET", "HEAD", "PUT"] {
            let (status, head, _) = request(ground.door.public, method, path, &[], b"");
            assert!(
                status == 401 && head.contains("www-authenticate: basic"),
                "{method} {path}: {status}"
            );
            assert_eq!(
                ground.ask(method, path, "reader-0123456789abcdeg", b"").0,
                401,
                "{method} {path}"
            );
        }
    }
    let wrong = ground
        .door
        .index("abc", "x.caibx")
        .replace(&ground.door.key, "AKIAOTHER");
    refused(desync().args(args!["list-chunks", wrong]));
    // Tokens: for one bucket, for reading.
    ground.script("import door; door.client().create_bucket(Bucket='xyz')", &[]);
    assert_eq!(ground.ask("GET", "/index/xyz/x.caibx", READER, b"").0, 403);
    assert_eq!(ground.ask("PUT", &own, READER, frame).0, 403);
    assert_eq!(ground.ask("PUT", "/index/abc/y.caibx", READER, &index).0, 403);
    assert_eq!(ground.ask("GET", "/index/xyz/x.caibx", WRITER, b"").0, 404);
    assert_eq!(ground.ask("GET", "/index/nothing/x.caibx", WRITER, b"").0, 404);

    // A bucket with a domain to itself has no chunks of others, though they are of one owner.
    ground.script(OWN_DOMAIN, &["own"]);
    assert_eq!(ground.ask("GET", &chunk_path("own", name), WRITER, b"").0, 404);
    assert_eq!(ground.ask("HEAD", &chunk_path("own", name), WRITER, b"").0, 404);
    let (status, words) = ground.ask("PUT", "/index/own/x.caibx", WRITER, &index);
    let words = String::from_utf8(words).unwrap();
    assert!(
        status == 409 && words.contains(name.trim_end_matches(".cacnk")),
        "{status} {words}"
    );
    // Within the tenant's domain they are shared.
    assert_eq!(ground.ask("GET", &chunk_path("xyz", name), WRITER, b"").0, 200);

    // A second tenant: its own bucket answers nothing of the first's, and the first's is not there.
    let (key, secret) = second_tenant(&ground);
    let basic = |path: &str, method: &str, body: &[u8]| {
        let coded = ground.script(
            "import base64, sys; print(base64.b64encode(sys.argv[1].encode()).decode())",
            &[&format!("{key}:{secret}")],
        );
        let value = format!("Basic {}", coded.trim());
        request(
            ground.door.public,
            method,
            path,
            &[("authorization", value.as_str())],
            body,
        )
        .0
    };
    ground.script(
        "import door, sys; door.client(key=sys.argv[1], secret=sys.argv[2]).create_bucket(Bucket='second')",
        &[&key, &secret],
    );
    assert_eq!(basic("/index/abc/x.caibx", "GET", b""), 404);
    assert_eq!(basic(&own, "GET", b""), 404);
    assert_eq!(basic(&own, "PUT", frame), 404);
    for (name, _) in &chunks {
        assert_eq!(basic(&chunk_path("second", name), "GET", b""), 404, "{name}");
        assert_eq!(basic(&chunk_path("second", name), "HEAD", b""), 404, "{name}");
    }
    assert_eq!(basic("/index/second/x.caibx", "PUT", &index), 409);
    for (name, frame) in &chunks {
        assert_eq!(basic(&chunk_path("second", name), "PUT", frame), 200);
    }
    assert_eq!(basic("/index/second/x.caibx", "PUT", &index), 200);
}

/// Makes a bucket with a dedup domain to itself.
const OWN_DOMAIN: &str = "\
import door, sys
answer = door.Signed('PUT', '/' + sys.argv[1], headers={'x-cairn-domain': 'own'}).send()
assert answer.status == 200, answer";

/// An access key of another tenant, by the admin API.
fn second_tenant(ground: &Ground) -> (String, String) {
    let token = fs::read_to_string(ground.path("data/admin-token")).unwrap();
    let token = format!("Bearer {}", token.trim());
    let headers = [("authorization", token.as_str()), ("content-type", "application/json")];
    let asked = br#"{"owner": "other", "tenant": "second"}"#;
    let (status, _, body) = request(ground.door.internal, "POST", "/api/v1/admin/keys", &headers, asked);
    let words = String::from_utf8(body).unwrap();
    assert_eq!(status, 201, "{words}");
    let key: serde_json::Value = serde_json::from_str(&words).unwrap();
    let text = |name: &str| key[name].as_str().unwrap().to_owned();
    (text("id"), text("secret"))
}
