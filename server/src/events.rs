//! Events that nobody has fetched do not fill the disk: what is too old, or too much, is sealed into objects, the oldest first.
//!
//! Each change of an object writes its event into the outbox. A thread moves events that leave it (`OutboxBound`) to objects of
//! JSON lines in the bucket `cairn-events`, which the first owner can read: `<shard>/<first>-<last>.jsonl`. An event leaves the outbox after
//! its object is durable; after a crash in between the same object is written again. What keeps events makes none itself.
//!
//! `cairnd store events` prints those that are in the outbox while no server uses the folder.

use std::io::Write as _;
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::mpsc::{RecvTimeoutError, Sender, channel};
use std::thread::JoinHandle;
use std::time::Duration;

use cairn_index::names::{
    Bucket, BucketName, Cause, Condition, Names, NewBucket, ObjectKey, OutboxBound, Owner, Segment, Shard,
};
use cairn_index::{CommitLog, Database, DigestsWanted, Error, Objects, Tenant};
use cairn_store::{PackOptions, PackStore};
use clap::Args;

use crate::config::Config;
use crate::objects::FOLDER_NAME;
use crate::places::Packs;
use crate::routes::chain;

/// Where events go that leave the outbox.
const BUCKET_NAME: &str = "cairn-events";
/// Pause between two looks.
const LOOK_EVERY: Duration = Duration::from_secs(600);

/// The thread that seals; ends with its value.
#[derive(Debug)]
pub(crate) struct Sealer {
    stop: Option<Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl Sealer {
    /// - `owner`: who owns the bucket of events.
    pub(crate) fn start(objects: &Arc<Objects>, owner: &Owner) -> Result<Self, String> {
        let (stop, stopped) = channel();
        let (objects, owner) = (Arc::clone(objects), owner.clone());
        let work = move || {
            while stopped.recv_timeout(LOOK_EVERY) != Err(RecvTimeoutError::Disconnected) {
                match seal(&objects, &owner, &OutboxBound::default()) {
                    Ok(0) => {}
                    Ok(events) => tracing::info!(events, bucket = BUCKET_NAME, "events were sealed"),
                    Err(error) => tracing::error!(
                        error = chain(&error),
                        "events could not be sealed, and will be tried again"
                    ),
                }
            }
        };
        let thread = std::thread::Builder::new()
            .name("events".to_owned())
            .spawn(work)
            .map_err(|error| format!("cannot start a thread: {error}"))?;
        Ok(Self {
            stop: Some(stop),
            thread: Some(thread),
        })
    }
}

impl Drop for Sealer {
    fn drop(&mut self) {
        self.stop = None;
        // One that panicked has said so.
        let _ = self.thread.take().map(JoinHandle::join);
    }
}

/// Seals what has to leave. Returns how many events.
fn seal(objects: &Arc<Objects>, owner: &Owner, bound: &OutboxBound) -> cairn_index::Result<u64> {
    let tenant = Tenant::default();
    objects
        .names()
        .outbox(&tenant)
        .seal(bound, &mut |segment| keep(objects, &tenant, owner, segment))
}

fn keep(objects: &Arc<Objects>, tenant: &Tenant, owner: &Owner, segment: &Segment) -> cairn_index::Result<()> {
    let bucket = bucket(objects, tenant, owner)?;
    let wanted = DigestsWanted {
        md5: true,
        checksums: Vec::new(),
    };
    let mut writer = objects.writer(&bucket, &wanted)?;
    writer.push(&segment.lines)?;
    let (shard, first, last) = (segment.shard.get(), segment.first, segment.last);
    let key = ObjectKey::new(format!("{shard:02}/{first:020}-{last:020}.jsonl"))?;
    let body = writer.finish()?;
    body.put(
        &key,
        owner,
        |new| new.record.headers.content_type = Some("application/x-ndjson".to_owned()),
        &Condition::Always,
        &Cause::outbox(),
    )?;
    Ok(())
}

fn bucket(objects: &Objects, tenant: &Tenant, owner: &Owner) -> cairn_index::Result<Bucket> {
    let (buckets, name) = (objects.names().buckets(tenant), BucketName::new(BUCKET_NAME)?);
    match buckets.get(&name) {
        Err(Error::NoBucket { .. }) => {}
        found => return found,
    }
    match buckets.create(&name, NewBucket::of(owner.clone())) {
        Err(Error::BucketExists { .. }) => buckets.get(&name),
        made => made,
    }
}

/// Events that the verb reads at a time.
const READ_EVENTS: usize = 1000;

const AFTER_HELP: &str = "\
The server must not run: the data folder is locked meanwhile. Each line has the event's shard and position in it; events that have left
the outbox are in the bucket cairn-events.

EXAMPLES
  cairnd store events
  cairnd store events --tenant default | jq -r .event_type | sort | uniq -c";

/// `store events`
#[derive(Debug, Args)]
#[command(after_long_help = AFTER_HELP)]
pub(crate) struct EventsArgs {
    /// Whose events
    #[arg(long, value_name = "NAME")]
    tenant: Option<String>,
}

/// Prints the events of the outbox of a data folder that is locked, a line of JSON each.
pub(crate) fn print(config: &Config, arguments: &EventsArgs) -> Result<ExitCode, String> {
    let words = |error: cairn_index::Error| chain(&error);
    let path = config.data.join(FOLDER_NAME);
    if !PackStore::is_at(&path) {
        return Err(format!("{} has no objects", config.data.display()));
    }
    let tenant = match &arguments.tenant {
        None => Tenant::default(),
        Some(name) => Tenant::new(name).map_err(words)?,
    };
    let (packs, _) = Packs::open(&path, &PackOptions::default(), config.s3.places_cache, None)?;
    let rows = Database::logged(packs.index, packs.engine as Arc<dyn CommitLog>);
    let names = Names::new(Arc::new(rows));
    let outbox = names.outbox(&tenant);
    let mut out = std::io::BufWriter::new(std::io::stdout().lock());
    for shard in Shard::all() {
        let mut after = outbox.sealed(shard).map_err(words)?;
        loop {
            let events = outbox.read(shard, after, READ_EVENTS).map_err(words)?;
            let Some((last, _)) = events.last() else { break };
            after = *last;
            for (position, event) in &events {
                let mut line = event.to_json(&tenant);
                line["shard"] = shard.get().into();
                line["position"] = (*position).into();
                writeln!(out, "{line}").map_err(|error| format!("cannot write the events: {error}"))?;
            }
        }
    }
    out.flush()
        .map_err(|error| format!("cannot write the events: {error}"))?;
    Ok(ExitCode::SUCCESS)
}

#[cfg(test)]
mod tests {
    use cairn_index::names::List;

    use super::*;
    use crate::config::Config;
    use crate::objects::ObjectStore;

    /// Goal: what is above the bound is in objects, each event once and in order, and the rest is still in the outbox.
    #[test]
    fn events_above_the_bound_are_sealed_into_objects() {
        let folder = tempfile::tempdir().unwrap();
        let config = Config {
            data: folder.path().to_owned(),
            ..Config::default()
        };
        let store = ObjectStore::open(&config).unwrap();
        let (objects, tenant) = (store.objects(), Tenant::default());
        let owner = Owner::new("admin").unwrap();
        let name = BucketName::new("abc").unwrap();
        let made = objects
            .names()
            .buckets(&tenant)
            .create(&name, NewBucket::of(owner.clone()));
        let own = made.unwrap();
        for number in 0..30 {
            let mut writer = objects.writer(&own, &DigestsWanted::default()).unwrap();
            writer.push(b"x").unwrap();
            let key = ObjectKey::new(format!("key {number}")).unwrap();
            let body = writer.finish().unwrap();
            body.put(&key, &owner, |_| {}, &Condition::Always, &Cause::default())
                .unwrap();
        }
        let bound = OutboxBound {
            events: 10,
            ..OutboxBound::default()
        };
        let sealed = seal(objects, &owner, &bound).unwrap();
        assert_eq!(sealed, 20);
        assert_eq!(
            seal(objects, &owner, &bound).unwrap(),
            0,
            "what keeps events makes none"
        );

        let events = bucket(objects, &tenant, &owner).unwrap();
        let list = List {
            limit: 1000,
            ..List::default()
        };
        let page = objects.names().objects(&events).list(&list).unwrap();
        let mut lines = 0;
        for entry in page.entries {
            let cairn_index::names::Listed::Item(listed) = entry else {
                panic!("no delimiter was given")
            };
            let record = listed.version.object().unwrap();
            let pieces = objects.read(&tenant, &record.content, 0..record.size).unwrap();
            let bytes: Vec<u8> = pieces.flat_map(|piece| piece.unwrap().to_vec()).collect();
            for line in String::from_utf8(bytes).unwrap().lines() {
                let event: serde_json::Value = serde_json::from_str(line).unwrap();
                assert_eq!(event["event_type"], "object.created");
                lines += 1;
            }
        }
        assert_eq!(lines, sealed);
    }
}
