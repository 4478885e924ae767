//! `verify` and `verify-index`: what is there is checked.

use std::collections::BTreeSet;
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::{Arc, Mutex};

use cairn_formats::{ChunkId, DigestAlgorithm};
use cairn_store::{ChunkStore, Damage, DamageKind, Fate, ScrubOptions, StoreName, error_chain};
use serde_json::json;

use crate::bar::Unit;
use crate::cli::{Access, Verify, VerifyIndex};
use crate::context::{Context, Packs, Purpose};
use crate::engine::{self, CopyOptions, Repair};
use crate::failure::{Failure, Outcome};
use crate::sizes::human;

/// Bad chunks that a JSON report lists at most.
const LISTED_MAX: usize = 10_000;

/// Checks a store, or each store of a mirror.
pub(crate) fn verify(context: &Context, arguments: &Verify) -> Outcome<()> {
    let members = context.mirror_members(&arguments.store)?;
    if members.len() < 2 {
        return verify_one(context, arguments);
    }
    let mut outcome = Ok(());
    for member in &members {
        let others: Vec<String> = members.iter().filter(|other| *other != member).cloned().collect();
        let mut arguments = arguments.clone();
        arguments.store.clone_from(member);
        arguments.mending.from.splice(..0, others.iter().cloned());
        let checked = verify_one(context, &arguments).and_then(|()| lacks(context, &arguments, &others));
        if let Err(failure) = checked {
            // The others all the same.
            if outcome.is_ok() {
                outcome = Err(failure);
            } else {
                eprintln!("cairn: {}", failure.message);
            }
        }
    }
    outcome
}

/// Looks for chunks that other stores of a mirror have and this one has not; with `repair`, copies them.
fn lacks(context: &Context, arguments: &Verify, others: &[String]) -> Outcome<()> {
    let (access, repair) = (Access::default(), arguments.mending.repair);
    let purpose = if repair { Purpose::Change } else { Purpose::Read };
    let to = context.prunable(&arguments.store, &access, purpose)?;
    let options = CopyOptions {
        digest: context.digest,
        encode: None,
        keep_going: true,
        dry_run: !repair,
        workers: arguments.workers(),
    };
    let mut lacking = 0;
    for other in others {
        let from = context.prunable(other, &access, Purpose::Read)?;
        let from = from.chunks();
        let bar = context.bar("comparing", Unit::Chunks);
        let copied = engine::copy(
            from,
            to.chunks(),
            options,
            &context.progress,
            &mut |take| from.for_each_id(take),
            // What is bad in the other one is told when that is checked.
            &|_| {},
        )?;
        drop(bar);
        lacking += copied.copied;
    }
    if lacking == 0 {
        return Ok(());
    }
    let name = to.chunks().name();
    if repair {
        return context.report(
            &json!({ "store": name.to_string(), "copied": lacking }),
            &format!("{name}: {lacking} chunks that it lacked were copied"),
        );
    }
    let failure = Failure::incomplete(format!("{name}: {lacking} chunks of the mirror are not there"));
    Err(failure.try_this("copy them with -r"))
}

fn verify_one(context: &Context, arguments: &Verify) -> Outcome<()> {
    let mending = &arguments.mending;
    let purpose = if mending.repair { Purpose::Change } else { Purpose::Read };
    let store = context.prunable(&arguments.store, &Access::default(), purpose)?;
    if arguments.with_desync.is_some() && arguments.store.contains("://") {
        return Err(Failure::usage("desync checks folders only: --with-desync needs one"));
    }
    if arguments.with_desync.is_some() && store.packs().is_some() {
        return Err(Failure::usage("--with-desync: desync does not read packs").try_this("see `cairn store export`"));
    }
    let source = match &mending.from[..] {
        [] => None,
        from => Some(context.proven_chain(from)?),
    };
    if let Some(packs) = store.packs() {
        return verify_packs(context, packs, store.chunks().name(), source, arguments);
    }
    let repair = match (&source, mending.repair) {
        (_, false) => Repair::Leave,
        (None, true) => Repair::Remove,
        (Some(source), true) => Repair::From(&**source),
    };
    let store = store.chunks();
    let bad = Mutex::new(Vec::new());
    let bad_ids = Mutex::new(BTreeSet::new());
    let bar = context.bar("verifying", Unit::Chunks);
    let on_bad = |error: &cairn_formats::ChunkError| {
        bad_ids
            .lock()
            .unwrap_or_else(std::sync::PoisonError::into_inner)
            .insert(error.id());
        let mut bad = bad.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        if bad.len() < LISTED_MAX {
            bad.push(error.to_string());
        }
    };
    let progress = &context.progress;
    let check = engine::verify_store(store, context.digest, repair, arguments.workers(), progress, &on_bad)?;
    drop(bar);
    let mut bad = bad.into_inner().unwrap_or_else(std::sync::PoisonError::into_inner);
    bad.sort();
    let mut lines: String = bad.iter().map(|line| format!("{line}\n")).collect();
    let sums = Sums {
        chunks: check.chunks,
        bytes: check.bytes,
        bytes_plain: check.bytes_plain,
        bad: check.bad,
        healed: check.healed,
        removed: check.removed,
    };
    lines += &sums.line();
    let object = sums.object(&bad);
    context.report(&object, &lines)?;
    if let Some(desync) = &arguments.with_desync {
        let ours = bad_ids.into_inner().unwrap_or_else(std::sync::PoisonError::into_inner);
        agree(context, desync, Path::new(&arguments.store), &ours)?;
    }
    sums.outcome(store.name(), source.is_some(), mending.repair)
}

/// What a check of a store came to.
struct Sums {
    chunks: u64,
    bytes: u64,
    bytes_plain: u64,
    bad: u64,
    healed: u64,
    removed: u64,
}

impl Sums {
    fn line(&self) -> String {
        let some = |count: u64, word: &str| match count {
            0 => String::new(),
            count => format!(", {count} {word}"),
        };
        format!(
            "{} chunks, {} stored, {} plain: {} bad{}{}",
            self.chunks,
            human(self.bytes),
            human(self.bytes_plain),
            self.bad,
            some(self.healed, "healed"),
            some(self.removed, "removed"),
        )
    }

    /// - `bad`: a line for each bad chunk.
    fn object(&self, bad: &[String]) -> serde_json::Value {
        json!({
            "chunks": self.chunks,
            "bytes": self.bytes,
            "bytes-plain": self.bytes_plain,
            "bad": self.bad,
            "removed": self.removed,
            "healed": self.healed,
            "bad-chunks": bad,
            "packs": 0,
            "bad-packs": [],
        })
    }

    /// Errors: some chunks are bad still.
    fn outcome(&self, store: &StoreName, has_source: bool, repair: bool) -> Outcome<()> {
        let left = self.bad - self.healed;
        if left == 0 {
            return Ok(());
        }
        let elsewhere = if has_source {
            ", and not to be had elsewhere"
        } else {
            ""
        };
        let failure = Failure::incomplete(format!("{store}: {left} of {} chunks are bad{elsewhere}", self.chunks));
        Err(failure.try_this(if repair {
            "they were removed: store them again with `cairn chop` or `cairn cache`"
        } else {
            "remove them with -r, then store them again with `cairn chop` or `cairn cache`"
        }))
    }
}

/// Checks packs, wherever they are, in one reading: what a scrub of `cairnd` checks.
fn verify_packs(
    context: &Context,
    packs: Packs<'_>,
    store: &StoreName,
    source: Option<Arc<dyn ChunkStore>>,
    arguments: &Verify,
) -> Outcome<()> {
    let repair = arguments.mending.repair;
    let options = ScrubOptions {
        dry_run: !repair,
        workers: arguments.workers(),
        ..ScrubOptions::default()
    };
    let has_source = source.is_some();
    let sources: Vec<Arc<dyn ChunkStore>> = source.into_iter().collect();
    let stats = packs.stats()?;
    let bar = context.bar("verifying", Unit::Bytes);
    let report = packs.scrub(&options, &sources, &mut |bytes| {
        context.progress.advance(bytes);
        context.progress.check().is_ok()
    })?;
    drop(bar);
    context.progress.check().map_err(engine::Error::from)?;
    for error in &report.errors {
        eprintln!("cairn: warning: {}", error_chain(error));
    }
    let is_chunk = |damage: &&Damage| matches!(damage.what, DamageKind::Chunk | DamageKind::Unreadable);
    let with_fate = |fits: fn(&Fate) -> bool| {
        let chunks = report.damages.iter().filter(is_chunk);
        chunks.filter(|damage| fits(&damage.fate)).count() as u64
    };
    let bad = with_fate(|_| true);
    let sums = Sums {
        chunks: report.chunks + bad,
        bytes: stats.iter().map(|pack| pack.live_bytes).sum(),
        bytes_plain: stats.iter().map(|pack| pack.live_bytes_plain).sum(),
        bad,
        healed: with_fate(|fate| matches!(fate, Fate::Repaired(_) | Fate::Rewritten)),
        removed: with_fate(|fate| matches!(fate, Fate::Missing)),
    };
    let lines_of = |chunks: bool| {
        let some = report.damages.iter().filter(|damage| is_chunk(damage) == chunks);
        some.take(LISTED_MAX).map(Damage::to_string).collect::<Vec<_>>()
    };
    let suspects = packs.suspects();
    let mut places = lines_of(false);
    places.extend(
        suspects
            .iter()
            .map(|suspect| format!("{}: {}", suspect.file, suspect.what)),
    );
    let chunks = lines_of(true);
    let mut lines: String = places.iter().chain(&chunks).map(|line| format!("{line}\n")).collect();
    lines += &sums.line();
    let mut object = sums.object(&chunks);
    object["packs"] = json!(report.packs);
    object["bad-packs"] = json!(places);
    context.report(&object, &lines)?;
    sums.outcome(store, has_source, repair)?;
    let mended = |damage: &&Damage| !is_chunk(damage) && matches!(damage.fate, Fate::Rewritten);
    let left = places.len() - report.damages.iter().filter(mended).count().min(places.len());
    if left == 0 {
        return Ok(());
    }
    let failure = Failure::incomplete(format!("{store}: {left} places in its packs are bad"));
    Err(failure.try_this(if repair {
        "no chunk that counts lies there; `cairn store gc` writes packs anew"
    } else {
        "chunks that lie there are moved with -r; `cairn store gc` writes packs anew"
    }))
}

/// A second opinion: a real desync checks the same store, and has to find the same chunks bad.
fn agree(context: &Context, desync: &Path, store: &Path, ours: &BTreeSet<ChunkId>) -> Outcome<()> {
    let digest = match context.digest {
        DigestAlgorithm::Sha512_256 => "sha512-256",
        DigestAlgorithm::Sha256 => "sha256",
    };
    let mut command = Command::new(desync);
    command
        .args(["--digest", digest, "verify", "-s"])
        .arg(store)
        .stdin(Stdio::null());
    let output = command
        .output()
        .map_err(|error| Failure::io(desync.display(), "run", &error))?;
    let words = String::from_utf8_lossy(&output.stderr);
    if !output.status.success() {
        let said = words.lines().last().unwrap_or_default();
        return Err(Failure::new(format!("{}: it failed: {said}", desync.display())));
    }
    // It ends with 0 whatever it finds; a line for each bad chunk begins with words and its id.
    let theirs: BTreeSet<ChunkId> = words
        .lines()
        .filter_map(|line| line.split([' ', ':']).find_map(|word| word.parse().ok()))
        .collect();
    if *ours == theirs {
        let found = theirs.len();
        context.say(|| format!("{} finds the same {found} chunks bad", desync.display()));
        return Ok(());
    }
    for id in ours.difference(&theirs) {
        eprintln!("cairn: chunk {id} is bad, but not to desync");
    }
    for id in theirs.difference(ours) {
        eprintln!("cairn: chunk {id} is bad to desync alone");
    }
    Err(Failure::incomplete(format!(
        "{}: desync does not agree on {} chunks",
        store.display(),
        ours.symmetric_difference(&theirs).count()
    )))
}

/// Checks a blob against its index.
pub(crate) fn verify_index(context: &Context, arguments: &VerifyIndex) -> Outcome<()> {
    let index = context.index(&arguments.index, &arguments.access)?;
    let bar = context.bar("verifying", Unit::Bytes);
    let workers = arguments.effort.workers();
    let bad = engine::verify_blob(
        &index,
        &arguments.blob,
        arguments.keep_going,
        workers,
        &context.progress,
    )?;
    drop(bar);
    if context.json || arguments.keep_going {
        let list: Vec<_> = bad
            .iter()
            .map(|span| {
                json!({
                    "start": span.range.start,
                    "length": span.range.end - span.range.start,
                    "id": span.id.to_string(),
                    "found": span.found.map(|id| id.to_string()),
                })
            })
            .collect();
        let lines: String = bad
            .iter()
            .map(|span| format!("{}\t{}\n", span.range.start, span.id))
            .collect();
        let lines = format!("{lines}{} of {} chunks are bad", bad.len(), index.len());
        context.report(
            &json!({ "chunks": index.len(), "bad": bad.len(), "bad-chunks": list }),
            &lines,
        )?;
    }
    let Some(first) = bad.first() else { return Ok(()) };
    let found = first.found.map_or_else(
        || "the file ends before".to_owned(),
        |id| format!("the file holds {id}"),
    );
    let message = format!(
        "{}: at byte {} the index names chunk {}, {found}",
        arguments.blob.display(),
        first.range.start,
        first.id
    );
    let failure = if arguments.keep_going {
        Failure::incomplete(message)
    } else {
        Failure::new(message)
    };
    Err(failure.try_this("mend the file with `cairn extract -k`, or make a new index"))
}
