//! Searches over HTTP: objects with tags, types and metadata are put through the S3 door, and `objects/search` is asked for them.

use std::time::{Instant, SystemTime, UNIX_EPOCH};

use crate::Result;
use crate::s3::Bench;
use crate::s3::body::mix;
use crate::s3::client::Client;
use crate::s3::report::Report;
use crate::s3::servers::{Api, BUCKET, Peer, Which};
use crate::s3::sign::{date, encode};

/// Objects of a folder.
const FOLDER_LEN: u64 = 1000;
/// Bytes of an object: from this on, so many lengths.
const LENS: (u64, u64) = (16, 200);
/// Clients that put them.
const THREADS: u64 = 64;
/// Values that a tag has.
pub(super) const TAGS: u64 = 1000;
pub(super) const TYPES: [&str; 4] = ["text/plain", "image/jpeg", "application/json", "video/mp4"];
/// Queries of each kind.
pub(super) const QUERIES: u64 = 200;
pub(super) const PAGE_LEN: usize = 100;
/// What objects are asked for by.
pub(super) const KINDS: [&str; 8] = [
    "prefix",
    "tag",
    "type",
    "size",
    "date",
    "owner",
    "metadata",
    "prefix, tag and type",
];

pub(super) fn run(bench: &Bench<'_>, report: &mut Report) -> Result<()> {
    let count = bench.options.s3_rows;
    let peer = Peer::start(&Which::cairnd(), bench.folder)?;
    let begun = (unix_seconds()?, Instant::now());
    fill(&peer, count)?;
    let (until, filled) = (unix_seconds()?, begun.1.elapsed().as_secs_f64());
    let mut api = peer.api()?;
    let owner = text(
        &api.get(&format!("objects/search?bucket={BUCKET}&limit=1"))?,
        "\"owner\":\"",
    )?;
    let world = World {
        count,
        put: begun.0..until.max(begun.0 + 1),
        owner,
    };
    let mut lines = format!(
        "Search over HTTP among {count} objects that were put in {filled:.0} s, pages of {PAGE_LEN}, {QUERIES} queries each:\n"
    );
    let mut worst = [0.0f64; 2];
    for kind in KINDS {
        let seen = world.ask(&mut api, kind)?;
        worst = [worst[0].max(seen.p95), worst[1].max(seen.scanned as f64)];
        lines += &format!(
            "- {kind}: p95 {:.2} ms, median {:.2} ms, {} found, at most {} rows read\n",
            seen.p95, seen.median, seen.found, seen.scanned
        );
    }
    report.text(&lines);
    let what = format!("search over HTTP among {count} objects");
    report.at_most(&format!("{what}: p95 of the slowest kind, ms"), Some(worst[0]), 50.0);
    report.at_most(&format!("{what}: rows read by a request"), Some(worst[1]), 10_000.0);
    Ok(())
}

fn unix_seconds() -> Result<u64> {
    Ok(SystemTime::now().duration_since(UNIX_EPOCH)?.as_secs())
}

fn fill(peer: &Peer, count: u64) -> Result<()> {
    let work = |first: u64| -> Result<()> {
        let mut client: Client = peer.client()?;
        for n in (first..count).step_by(THREADS as usize) {
            let headers = [
                ("content-type", type_of(n)),
                ("x-amz-meta-number", &n.to_string()),
                ("x-amz-tagging", &format!("batch={}", mix(n) % TAGS)),
            ];
            let key = format!("folder-{}/{n}", n / FOLDER_LEN);
            let bytes: Vec<u8> = (0..LENS.0 + mix(n) % LENS.1)
                .map(|at| mix(n ^ at << 48) as u8)
                .collect();
            client.put_described(BUCKET, &key, &headers, &bytes)?;
        }
        Ok(())
    };
    std::thread::scope(|scope| {
        let begin = |first| scope.spawn(move || work(first).map_err(|error| error.to_string()));
        let threads: Vec<_> = (0..THREADS).map(begin).collect();
        for thread in threads {
            thread.join().map_err(|_| "a client panicked")??;
        }
        Ok(())
    })
}

fn type_of(n: u64) -> &'static str {
    TYPES[n as usize % TYPES.len()]
}

/// What there is to be found.
struct World {
    count: u64,
    /// Seconds in which it was put.
    put: std::ops::Range<u64>,
    owner: String,
}

/// What queries of one kind took, in milliseconds.
struct Seen {
    p95: f64,
    median: f64,
    found: usize,
    /// The most rows that one of them read.
    scanned: u64,
}

impl World {
    fn ask(&self, api: &mut Api, kind: &str) -> Result<Seen> {
        let (mut latencies, mut found, mut scanned) = (Vec::new(), 0, 0);
        for n in 0..QUERIES {
            let (query, word) = self.query(kind, n);
            let path = format!("objects/search?bucket={BUCKET}&limit={PAGE_LEN}&{query}");
            let since = Instant::now();
            let answer = api.get(&path)?;
            latencies.push(since.elapsed().as_secs_f64() * 1e3);
            let objects = answer.matches("\"version_id\":").count();
            if answer.matches(&word).count() < objects {
                return Err(format!("{path} finds what has no {word}").into());
            }
            found += objects;
            scanned = scanned.max(text(&answer, "\"scanned\":")?.parse::<u64>()?);
        }
        if found == 0 {
            return Err(format!("searches by {kind} find nothing").into());
        }
        latencies.sort_by(f64::total_cmp);
        Ok(Seen {
            p95: latencies[latencies.len() * 95 / 100],
            median: latencies[latencies.len() / 2],
            found,
            scanned,
        })
    }

    /// A query, and what is in all that it finds.
    fn query(&self, kind: &str, n: u64) -> (String, String) {
        let chance = mix(n);
        let folder = chance % self.count.div_ceil(FOLDER_LEN);
        let batch = chance % TAGS;
        match kind {
            "prefix" => (
                format!("prefix=folder-{folder}/"),
                format!("\"key\":\"folder-{folder}/"),
            ),
            "tag" => (format!("tag.batch={batch}"), format!("\"batch\":\"{batch}\"")),
            "type" => (format!("content_type={}", encode(type_of(n))), type_of(n).to_owned()),
            "size" => {
                let len = LENS.0 + chance % LENS.1;
                (format!("size_min={len}&size_max={len}"), format!("\"size\":{len},"))
            }
            "date" => {
                let time = rfc3339(self.put.start + chance % (self.put.end - self.put.start));
                let second = time.trim_end_matches('Z');
                (
                    format!("created_from={second}.000Z&created_to={second}.999Z"),
                    format!("\"created_at\":\"{second}"),
                )
            }
            "owner" => (
                format!("owner={}", encode(&self.owner)),
                format!("\"owner\":\"{}\"", self.owner),
            ),
            "metadata" => {
                let number = chance % self.count;
                (format!("meta.number={number}"), format!("\"number\":\"{number}\""))
            }
            _ => (
                format!(
                    "prefix=folder-{}&tag.batch={batch}&content_type={}",
                    chance % 10,
                    encode(type_of(n))
                ),
                format!("\"batch\":\"{batch}\""),
            ),
        }
    }
}

fn rfc3339(seconds: u64) -> String {
    let (day, time) = date(seconds);
    format!(
        "{}-{}-{}T{}:{}:{}Z",
        &day[..4],
        &day[4..6],
        &day[6..],
        &time[..2],
        &time[2..4],
        &time[4..]
    )
}

/// What stands behind `mark` in a document, up to the end of the value.
fn text(document: &str, mark: &str) -> Result<String> {
    let (_, rest) = document
        .split_once(mark)
        .ok_or_else(|| format!("{document} has no {mark}"))?;
    let end = rest.find(['"', ',', '}']).unwrap_or(rest.len());
    Ok(rest[..end].to_owned())
}
