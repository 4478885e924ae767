//! A rooted store of packs under unmodified clients: what indexes name stays whole for casync and desync while `cairnd` collects, the
//! rest goes, and an index of what is gone is refused with the ids.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use cairn_conformance::support::{Server, args, cairn, cairnd_with, casync, desync, ok, refused};

const MIB: usize = 1 << 20;

/// A collection that has not done its work by then never does.
const HANG: Duration = Duration::from_secs(60);

/// A server that collects every second what no index names, and its folder.
struct Rooted {
    folder: tempfile::TempDir,
    server: Server,
}

impl Rooted {
    fn start() -> Self {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let settings = [
            ("CAIRN_STORES__DEFAULT__WRITABLE", "true"),
            ("CAIRN_STORES__DEFAULT__ROOTED", "true"),
            ("CAIRN_STORES__DEFAULT__PACK_LEN", "1048576"),
            ("CAIRN_COLLECT__INTERVAL_SECONDS", "1"),
            // Longer than an upload takes on a busy machine: its chunks wait for their index.
            ("CAIRN_COLLECT__LEASE_SECONDS", "15"),
            ("CAIRN_COLLECT__GRACE_SECONDS", "0"),
        ];
        let server = cairnd_with(&folder.path().join("data"), &settings);
        Self { folder, server }
    }

    fn store(&self) -> String {
        format!("{}/store/default/", self.server.url())
    }

    fn index(&self, name: &str) -> String {
        format!("{}/index/default/{name}.caibx", self.server.url())
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// Bytes that do not compress and of which nothing comes twice, in a file.
    fn blob(&self, name: &str, seed: u64, len: usize) -> (PathBuf, Vec<u8>) {
        let path = self.path(name);
        let mut random = fastrand::Rng::with_seed(seed);
        let bytes: Vec<u8> = std::iter::repeat_with(|| random.u8(..)).take(len).collect();
        fs::write(&path, &bytes).expect("a file");
        (path, bytes)
    }

    fn status(&self, method: &str, path: &str) -> u16 {
        self.server.request(method, path, &[], b"").0
    }

    fn pack_bytes(&self) -> u64 {
        let packs = fs::read_dir(self.path("data/packs/default")).expect("a folder of packs");
        let packs = packs.flatten().map(|entry| entry.path());
        // One may go at any moment.
        packs
            .filter(|path| path.extension().is_some_and(|end| end == "pack"))
            .map(|path| path.metadata().map_or(0, |meta| meta.len()))
            .sum()
    }

    /// Both real tools rebuild a blob from the server.
    fn check(&self, name: &str, bytes: &[u8]) {
        let out = self.path("out");
        for tool in ["casync", "desync"] {
            ok(&mut match tool {
                "casync" => {
                    let mut casync = casync();
                    casync.args(args![
                        "extract",
                        format!("--store={}", self.store()),
                        self.index(name),
                        out
                    ]);
                    casync
                }
                _ => {
                    let mut desync = desync();
                    desync.args(args!["extract", "-s", self.store(), self.index(name), out]);
                    desync
                }
            });
            assert!(fs::read(&out).expect("an output") == bytes, "{name} by {tool}");
            fs::remove_file(&out).expect("the output");
        }
    }

    fn make(&self, name: &str, blob: &Path) {
        ok(desync().args(args!["make", "-s", self.store(), self.index(name), blob]));
    }
}

#[track_caller]
fn wait_until(what: &str, mut is_so: impl FnMut() -> bool) {
    let begun = Instant::now();
    while !is_so() {
        assert!(begun.elapsed() < HANG, "still waiting: {what}");
        std::thread::yield_now();
    }
}

#[test]
fn unmodified_clients_use_a_rooted_store_while_it_is_collected() {
    let rooted = Rooted::start();
    let (kept, kept_bytes) = rooted.blob("kept", 1, MIB);
    let (gone, gone_bytes) = rooted.blob("gone", 2, 3 * MIB);
    rooted.make("kept", &kept);
    let alone = rooted.pack_bytes();
    rooted.make("gone", &gone);
    let both = rooted.pack_bytes();
    // Chopped by desync to where no index names it yet: the chunks of an index that is put later, by hand.
    let local = rooted.path("gone.caibx");
    ok(desync().args(args!["make", local, gone]));
    let ids = ok(desync().args(args!["list-chunks", local])).stdout;
    let ids = String::from_utf8(ids).expect("hex digits");
    let ids: Vec<&str> = ids.lines().collect();
    let chunk = |id: &str| format!("/store/default/{}/{id}.cacnk", &id[..4]);
    rooted.check("kept", &kept_bytes);
    rooted.check("gone", &gone_bytes);

    assert_eq!(rooted.status("DELETE", "/index/default/gone.caibx"), 200);
    wait_until("the chunks go", || {
        ids.iter().all(|id| rooted.status("GET", &chunk(id)) == 404)
    });
    // Room for the log of the index, and for what a pack must hold to be worth writing anew.
    let room = alone / 10 + (512 << 10);
    wait_until("space comes back", || rooted.pack_bytes() <= alone + room);
    assert!(both > alone + 2 * room, "{both} bytes with both, {alone} with one");
    rooted.check("kept", &kept_bytes);
    refused(casync().args(args![
        "extract",
        format!("--store={}", rooted.store()),
        local,
        rooted.path("out")
    ]));

    // An index of what is gone: refused, with the ids, as curl, desync and cairn show it.
    let put = rooted.server.request(
        "PUT",
        "/index/default/gone.caibx",
        &[],
        &fs::read(&local).expect("an index"),
    );
    let words = String::from_utf8_lossy(&put.2).into_owned();
    assert_eq!(put.0, 409, "{words}");
    assert!(ids.iter().all(|id| words.contains(id)), "{words}");
    let elsewhere = rooted.path("elsewhere");
    fs::create_dir(&elsewhere).expect("a folder");
    let words = refused(desync().args(args!["make", "-s", elsewhere, rooted.index("gone"), gone]));
    assert!(ids.iter().all(|id| words.contains(id)), "{words}");
    let words = refused(cairn().args(args!["make", "-s", elsewhere, rooted.index("gone"), gone]));
    assert!(words.contains("409") && words.contains("chunks"), "{words}");
    assert_eq!(rooted.status("GET", "/index/default/gone.caibx"), 404);

    // Sent again, by chop and by make, it is there again, whole.
    ok(desync().args(args!["chop", "-s", rooted.store(), local, gone]));
    rooted.make("gone", &gone);
    rooted.check("gone", &gone_bytes);
    rooted.check("kept", &kept_bytes);
}
