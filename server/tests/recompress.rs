//! Packs that `cairnd` compresses anew while it serves them.
// A helper that fails is a test that fails.
#![allow(clippy::unwrap_used)]

#[path = "../../gateway/roots/tests/client/mod.rs"]
mod client;
mod daemon;

use client::{Client, Sample, files};
use daemon::{Daemon, index_of, wait_until};

const LEVEL: i32 = 19;

/// A rooted store that takes chunks quickly. With the level at which packs are compressed anew, 0 for none, and the rate.
fn settings(level: i32, bytes_per_second: u64) -> String {
    format!(
        "[stores.default]\nwritable = true\nrooted = true\npack_len = 1048576\nframe_level = 1\n\
         [collect]\ninterval_seconds = 1\nlease_seconds = 1\ngrace_seconds = 0\nrecompress_level = {level}\n\
         recompress_bytes_per_second = {bytes_per_second}\n"
    )
}

/// Chunks of words, sent plain, so that the server frames them, and an index that names them.
struct Filled {
    samples: Vec<Sample>,
}

impl Filled {
    fn put(client: &mut Client) -> Self {
        let mut random = fastrand::Rng::with_seed(1);
        let mut word = || -> String {
            let len = random.usize(3..10);
            std::iter::repeat_with(|| random.lowercase()).take(len).collect()
        };
        let words: Vec<String> = (0..600).map(|_| word()).collect();
        let mut phrase = |len: usize| -> String {
            let some = std::iter::repeat_with(|| words[random.usize(..600)].clone());
            some.take(len).collect::<Vec<_>>().join(" ")
        };
        let phrases: Vec<String> = (0..300).map(|n| phrase(n % 5 + 1)).collect();
        let mut text = || -> Vec<u8> {
            let some = std::iter::repeat_with(|| format!("{} ", phrases[random.usize(..300)]).into_bytes());
            some.flatten().take(32_000).collect()
        };
        let samples: Vec<Sample> = (0..800).map(|_| Sample::new(&text())).collect();
        for sample in &samples {
            let path = format!("/store/default{}", sample.plain_path());
            assert_eq!(client.ask("PUT", &path, &[], &sample.plain).status, 200);
        }
        let filled = Self { samples };
        let put = client.ask("PUT", "/index/default/all.caibx", &[], &filled.index());
        assert_eq!(put.status, 200, "{}", put.text());
        filled
    }

    fn index(&self) -> Vec<u8> {
        index_of(&self.samples.iter().collect::<Vec<_>>())
    }

    /// Ids and bytes are as they were put.
    fn check(&self, client: &mut Client) {
        let index = client.ask("GET", "/index/default/all.caibx", &[], b"");
        assert!(index.body == self.index(), "{}", index.status);
        for sample in &self.samples {
            let path = format!("/store/default{}", sample.plain_path());
            assert!(
                client.ask("GET", &path, &[], b"").body == sample.plain,
                "{}",
                sample.hex
            );
        }
    }
}

fn pack_bytes(daemon: &Daemon) -> u64 {
    let store = daemon.data().join("packs/default");
    let packs = files(&store)
        .into_iter()
        .filter(|file| file.extension().is_some_and(|end| end == "pack"));
    // One may go at any moment.
    packs
        .map(|file| store.join(file).metadata().map_or(0, |meta| meta.len()))
        .sum()
}

fn counter(daemon: &Daemon, name: &str) -> u64 {
    let page = daemon.metrics();
    let line = format!("{name}{{store=\"default\"}} ");
    let value = page.lines().find_map(|found| found.strip_prefix(&line));
    value.map_or(0, |value| value.parse().unwrap())
}

/// Goal: what came quickly becomes smaller under the same ids and reads as before; a rate holds it up; killed in the middle it goes
/// on after the start; and what it did it does not do again.
#[test]
fn packs_at_rest_become_smaller_once_while_they_are_served() {
    // Nothing is collected while the chunks wait for their index.
    let daemon = Daemon::start(&settings(0, 0).replace("interval_seconds = 1", "interval_seconds = 0"));
    let mut client = Client::connect(daemon.public);
    let filled = Filled::put(&mut client);
    daemon.configure(&settings(0, 0));
    let before = pack_bytes(&daemon);
    assert!(before > 3 << 20, "{before} bytes are too few packs");
    // The leases on it end.
    wait_until("collections", || daemon.collections() >= 4);

    // At a byte a second nothing gets done, however long it has; and a new rate holds for what runs.
    daemon.configure(&settings(LEVEL, 1));
    wait_until("it has begun", || {
        daemon.metrics().contains("gc_running{store=\"default\"} 1")
    });
    filled.check(&mut client);
    assert_eq!(counter(&daemon, "store_recompressed_bytes_total"), 0);
    assert!(pack_bytes(&daemon) >= before);

    // Killed as soon as something is smaller.
    daemon.configure(&settings(LEVEL, 2 << 20));
    wait_until("a pack is written anew", || pack_bytes(&daemon) < before);
    drop(client);
    let folder = daemon.kill();
    let daemon = Daemon::start_in(folder, &settings(LEVEL, 0), &[]);
    let mut client = Client::connect(daemon.public);
    filled.check(&mut client);
    daemon.wait_for_log("packs were compressed anew", 1);
    let ended = daemon.collections();
    wait_until("collections", || daemon.collections() >= ended + 3);
    filled.check(&mut client);
    let after = pack_bytes(&daemon);
    assert!(after * 20 < before * 19, "{after} of {before} bytes");
    let (done, saved) = (
        counter(&daemon, "store_recompressed_bytes_total"),
        counter(&daemon, "store_recompression_saved_bytes_total"),
    );
    assert!(done > saved && saved > 0, "{saved} of {done} bytes");

    // All is done: neither further collections nor a start do it again.
    let ended = daemon.collections();
    wait_until("collections", || daemon.collections() >= ended + 3);
    assert_eq!(counter(&daemon, "store_recompressed_bytes_total"), done);
    drop(client);
    let daemon = Daemon::start_in(daemon.leave(), &settings(LEVEL, 0), &[]);
    wait_until("collections", || daemon.collections() >= 3);
    assert_eq!(counter(&daemon, "store_recompressed_bytes_total"), 0);
    filled.check(&mut Client::connect(daemon.public));
    assert!(!daemon.log().contains("ERROR"), "{}", daemon.log());
}
