//! `verify` and `verify-index`: what is there is checked.

use std::collections::BTreeSet;
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::Mutex;

use cairn_formats::{ChunkId, DigestAlgorithm};
use cairn_store::PackCheck;
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
        workers: arguments.effort.workers(),
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
    let repair = match (&source, mending.repair) {
        (_, false) => Repair::Leave,
        (None, true) => Repair::Remove,
        (Some(source), true) => Repair::From(&**source),
    };
    let packs = match store.packs() {
        Some(packs) => check_packs(context, packs)?,
        None => PackCheck::default(),
    };
    let store = store.chunks();
    let bad = Mutex::new(Vec::new());
    let bad_ids = Mutex::new(BTreeSet::new());
    let bar = context.bar("verifying", Unit::Chunks);
    let mut effort = arguments.effort.clone();
    effort.workers = effort.workers.or(arguments.concurrency);
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
    let check = engine::verify_store(store, context.digest, repair, effort.workers(), progress, &on_bad)?;
    drop(bar);
    let mut bad = bad.into_inner().unwrap_or_else(std::sync::PoisonError::into_inner);
    bad.sort();
    let suspects: Vec<String> = packs
        .suspects
        .iter()
        .map(|suspect| format!("{}: {}", suspect.file, suspect.what))
        .collect();
    let mut lines: String = suspects.iter().chain(&bad).map(|line| format!("{line}\n")).collect();
    lines += &format!(
        "{} chunks, {} stored, {} plain: {} bad{}{}",
        check.chunks,
        human(check.bytes),
        human(check.bytes_plain),
        check.bad,
        if check.healed > 0 {
            format!(", {} healed", check.healed)
        } else {
            String::new()
        },
        if check.removed > 0 {
            format!(", {} removed", check.removed)
        } else {
            String::new()
        },
    );
    let object = json!({
        "chunks": check.chunks,
        "bytes": check.bytes,
        "bytes-plain": check.bytes_plain,
        "bad": check.bad,
        "removed": check.removed,
        "healed": check.healed,
        "bad-chunks": bad,
        "packs": packs.packs,
        "bad-packs": suspects,
    });
    context.report(&object, &lines)?;
    if let Some(desync) = &arguments.with_desync {
        let ours = bad_ids.into_inner().unwrap_or_else(std::sync::PoisonError::into_inner);
        agree(context, desync, Path::new(&arguments.store), &ours)?;
    }
    // Where healed chunks lay, packs stay as they are until they are written anew: every chunk is sound all the same.
    if check.bad == check.healed && (suspects.is_empty() || check.bad > 0) {
        return Ok(());
    }
    if check.bad == 0 {
        let failure = Failure::incomplete(format!(
            "{}: {} places in its packs are bad",
            store.name(),
            suspects.len()
        ));
        return Err(failure.try_this("no chunk that counts lies there; `cairn store gc` writes packs anew"));
    }
    let failure = Failure::incomplete(format!(
        "{}: {} of {} chunks are bad{}",
        store.name(),
        check.bad - check.healed,
        check.chunks,
        if source.is_some() {
            ", and not to be had elsewhere"
        } else {
            ""
        }
    ));
    Err(failure.try_this(if mending.repair {
        "they were removed: store them again with `cairn chop` or `cairn cache`"
    } else {
        "remove them with -r, then store them again with `cairn chop` or `cairn cache`"
    }))
}

/// Packs against their own footers.
fn check_packs(context: &Context, packs: Packs<'_>) -> Outcome<PackCheck> {
    let bar = context.bar("reading packs", Unit::Bytes);
    let check = packs.check(&mut |bytes| {
        context.progress.advance(bytes);
        context.progress.check().is_ok()
    })?;
    drop(bar);
    context.progress.check().map_err(engine::Error::from)?;
    Ok(check)
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
