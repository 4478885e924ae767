//! `make`, `chop` and `chunk`: an input is cut.

use std::fs::File;
use std::io::{Read, Seek as _, SeekFrom, Write as _};
use std::path::Path;
use std::sync::Arc;

use bytes::Bytes;
use cairn_formats::{ChunkForm, ChunkId, EncodedChunk, FeatureFlags, StorableChunk};
use cairn_store::{ChunkStat, ChunkStore, ObjectInput, SshPush, StoreName};
use serde_json::json;

use crate::bar::Unit;
use crate::cli::{Access, Chop, Chunk, Cutting, Ignoring, Make, Storing};
use crate::context::Context;
use crate::engine::{self, IdSet, IndexSpool, MakeOptions, MakeReport};
use crate::failure::{Failure, Outcome};
use crate::sizes::human;

/// Cuts, stores, indexes.
pub(crate) fn make(context: &Context, arguments: &Make) -> Outcome<()> {
    let mut input = open(context, &arguments.input, &arguments.storing.access)?;
    let destination = Destination::open(
        context,
        arguments.store.as_deref(),
        &arguments.index,
        &arguments.cutting,
        &arguments.storing,
    )?;
    let options = &destination.options;
    let dry = destination.store().filter(|_| arguments.dry_run).map(DryRun);
    let target: Option<&dyn ChunkStore> = match &dry {
        Some(dry) => Some(dry),
        None => destination.store(),
    };
    let mut spool = IndexSpool::new(FeatureFlags::blob(options.digest), options.sizes)?;
    let bar = context.bar("making", Unit::Bytes);
    let report = engine::make(
        &mut input,
        &arguments.input,
        target,
        options,
        &context.progress,
        &mut |id, len| spool.push(id, len),
    )?;
    drop(bar);
    if !arguments.dry_run {
        destination.put_index(context, &arguments.index, spool.finish()?, &arguments.storing.access)?;
    }
    let quiet = !(arguments.print_stats || arguments.dry_run || context.json || context.verbose);
    if quiet {
        Ok(())
    } else {
        report_make(context, &report, arguments.dry_run)
    }
}

/// Stores the chunks that an index names.
pub(crate) fn chop(context: &Context, arguments: &Chop) -> Outcome<()> {
    let storing = &arguments.storing;
    let index = context.index(&arguments.index, &storing.access)?;
    let ignored = ignored(context, &arguments.ignoring, &storing.access)?;
    let mut input = open(context, &arguments.input, &storing.access)?;
    let (store, form) = context.target(&arguments.store, &storing.access, &storing.writing)?;
    let dry = DryRun(&*store);
    let target: &dyn ChunkStore = if arguments.dry_run { &dry } else { &*store };
    let options = MakeOptions {
        form,
        level: storing.writing.level(),
        workers: storing.effort.workers(),
        ..MakeOptions::default()
    };
    let bar = context.bar("chopping", Unit::Bytes);
    let wanted = |id| !ignored.contains(id);
    let report = engine::chop(
        &mut input,
        &arguments.input,
        &index,
        &wanted,
        Some(target),
        &options,
        &context.progress,
    )?;
    drop(bar);
    let quiet = !(arguments.dry_run || context.json || context.verbose);
    if quiet {
        Ok(())
    } else {
        report_make(context, &report, arguments.dry_run)
    }
}

/// Prints where a file would be cut.
pub(crate) fn chunk(context: &Context, arguments: &Chunk) -> Outcome<()> {
    let mut input = open(context, &arguments.input, &Access::default())?;
    input
        .skip(arguments.start)
        .map_err(|error| Failure::io(arguments.input.display(), "go to the start", &error))?;
    let options = MakeOptions {
        sizes: arguments.cutting.sizes(),
        dialect: arguments.cutting.dialect.into(),
        digest: context.digest,
        workers: arguments.effort.workers(),
        ..MakeOptions::default()
    };
    check_cutting(&options)?;
    let mut start = arguments.start;
    let mut output = std::io::BufWriter::new(std::io::stdout().lock());
    engine::make(
        &mut input,
        &arguments.input,
        None,
        &options,
        &context.progress,
        &mut |id, len| {
            let written = if context.json {
                writeln!(
                    output,
                    "{}",
                    json!({ "start": start, "length": len, "id": id.to_string() })
                )
            } else {
                writeln!(output, "{start}\t{len}\t{id}")
            };
            start += len as u64;
            written.map_err(engine::file(Path::new("standard output"), "write to"))
        },
    )?;
    output
        .flush()
        .map_err(|error| Failure::io("standard output", "write", &error))
}

/// The chunks that `--ignore` and `--ignore-chunks` name.
pub(crate) fn ignored(context: &Context, ignoring: &Ignoring, access: &Access) -> Outcome<IdSet> {
    let mut ignored = IdSet::default();
    for index in &ignoring.ignore {
        ignored.add(context.index(index, access)?)?;
    }
    for list in &ignoring.ignore_chunks {
        ignored.add_list(list)?;
    }
    Ok(ignored)
}

/// Where chunks and then the index go, and how chunks are made for it.
pub(super) struct Destination {
    chunks: Chunks,
    pub(super) options: MakeOptions,
}

enum Chunks {
    Nowhere,
    Store(Arc<dyn ChunkStore>),
    /// They wait for the index, which goes with them.
    Push(Box<SshPush>),
}

impl Destination {
    pub(super) fn open(
        context: &Context,
        store: Option<&str>,
        index: &str,
        cutting: &Cutting,
        storing: &Storing,
    ) -> Outcome<Self> {
        let (access, writing) = (&storing.access, &storing.writing);
        let (chunks, form) = match store {
            None => (Chunks::Nowhere, writing.form()),
            Some(store) => match context.ssh_push(store, index, access, writing)? {
                Some((push, form)) => (Chunks::Push(Box::new(push)), form),
                None => {
                    let (store, form) = context.target(store, access, writing)?;
                    (Chunks::Store(store), form)
                }
            },
        };
        let options = MakeOptions {
            sizes: cutting.sizes(),
            dialect: cutting.dialect.into(),
            digest: context.digest,
            form,
            level: writing.level(),
            workers: storing.effort.workers(),
        };
        check_cutting(&options)?;
        Ok(Self { chunks, options })
    }

    /// What takes the chunks, if they are wanted anywhere.
    pub(super) fn store(&self) -> Option<&dyn ChunkStore> {
        match &self.chunks {
            Chunks::Nowhere => None,
            Chunks::Store(store) => Some(&**store),
            Chunks::Push(push) => Some(&**push),
        }
    }

    /// Stores the index of the chunks that were given to [`Destination::store`].
    pub(super) fn put_index(&self, context: &Context, name: &str, index: Bytes, access: &Access) -> Outcome<()> {
        let Chunks::Push(push) = &self.chunks else {
            return context.put_index(name, index, access);
        };
        let pushed = push.finish(&index)?;
        context.say(|| format!("pushed {} chunks, {}", pushed.chunks, human(pushed.bytes)));
        Ok(())
    }
}

fn check_cutting(options: &MakeOptions) -> Outcome<()> {
    match cairn_formats::CutRule::new(options.sizes, options.dialect) {
        Ok(_) => Ok(()),
        Err(error) => Err(Failure::usage(error.to_string())),
    }
}

pub(super) fn report_make(context: &Context, report: &MakeReport, dry_run: bool) -> Outcome<()> {
    let object = json!({
        "bytes": report.bytes,
        "chunks": report.chunks,
        "chunks-stored": report.chunks_stored,
        "bytes-stored-plain": report.bytes_stored_plain,
        "bytes-stored": report.bytes_stored,
        "dry-run": dry_run,
    });
    let lines = format!(
        "{} in {} chunks; {} {} new, {} plain, {} stored",
        human(report.bytes),
        report.chunks,
        if dry_run { "would store" } else { "stored" },
        report.chunks_stored,
        human(report.bytes_stored_plain),
        human(report.bytes_stored)
    );
    // Standard output may be the index.
    eprintln!("{}", if context.json { object.to_string() } else { lines });
    Ok(())
}

/// An input: a file, a device, standard input, an object of a bucket.
pub(crate) enum Input {
    /// Something that can be sought.
    File(File),
    /// An object.
    Object(Box<ObjectInput>),
    /// A pipe.
    Stdin(std::io::Stdin),
}

fn open(context: &Context, path: &Path, access: &Access) -> Outcome<Input> {
    if path == Path::new("-") {
        return Ok(Input::Stdin(std::io::stdin()));
    }
    let progress = &context.progress;
    if let Some(object) = context.object(path, access)? {
        progress.set_total(object.byte_len());
        return Ok(Input::Object(Box::new(object)));
    }
    let fail = |action: &'static str| move |error| Failure::io(path.display(), action, &error);
    let mut file = File::open(path).map_err(fail("open"))?;
    if file.metadata().map_err(fail("look at"))?.is_dir() {
        return Err(Failure::new(format!(
            "{}: it is a folder: use `cairn tar`",
            path.display()
        )));
    }
    // A device's length is where its end is; what cannot be sought (a FIFO) has none.
    if let Ok(len) = file.seek(SeekFrom::End(0)) {
        progress.set_total(len);
        file.rewind().map_err(fail("rewind"))?;
    }
    Ok(Input::File(file))
}

impl Input {
    fn skip(&mut self, bytes: u64) -> std::io::Result<()> {
        match self {
            Self::File(file) => file.seek(SeekFrom::Start(bytes)).map(drop),
            Self::Object(object) => {
                object.skip(bytes);
                Ok(())
            }
            Self::Stdin(stdin) => std::io::copy(&mut stdin.lock().take(bytes), &mut std::io::sink()).map(drop),
        }
    }
}

impl Read for Input {
    fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        match self {
            Self::File(file) => file.read(buffer),
            Self::Object(object) => object.read(buffer),
            Self::Stdin(stdin) => stdin.lock().read(buffer),
        }
    }
}

/// A store that is asked but never written to.
#[derive(Debug)]
struct DryRun<'a>(&'a dyn ChunkStore);

#[deny(clippy::missing_trait_methods)]
impl ChunkStore for DryRun<'_> {
    fn name(&self) -> &StoreName {
        self.0.name()
    }

    fn has_many(&self, ids: &[ChunkId]) -> cairn_store::Result<Vec<bool>> {
        self.0.has_many(ids)
    }

    fn get_many(&self, ids: &[ChunkId]) -> Vec<cairn_store::Result<EncodedChunk>> {
        self.0.get_many(ids)
    }

    fn put_many(&self, _: &[StorableChunk]) -> cairn_store::Result<()> {
        Ok(())
    }

    fn flush(&self) -> cairn_store::Result<()> {
        Ok(())
    }

    fn stat(&self, id: ChunkId, form: ChunkForm) -> cairn_store::Result<Option<ChunkStat>> {
        self.0.stat(id, form)
    }

    fn get_resident(&self, id: ChunkId, form: ChunkForm) -> Option<EncodedChunk> {
        self.0.get_resident(id, form)
    }

    fn is_far(&self) -> bool {
        false
    }

    fn set_aside(&self, _: &EncodedChunk) -> cairn_store::Result<bool> {
        Ok(false)
    }
}
