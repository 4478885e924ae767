//! `untar`: an archive, or one that is stored in chunks, becomes a tree again.

use std::fs::File;
use std::io::{BufWriter, Read};
use std::ops::Range;
use std::os::unix::ffi::OsStrExt as _;
use std::path::Path;
use std::sync::Arc;

use bytes::Bytes;
use cairn_formats::{ArchiveBytes as _, ChunkIndex, Content};
use cairn_store::ChunkStore;
use serde_json::json;

use super::list;
use super::output::output;
use super::tar::{owner_shift, tell};
use crate::bar::Unit;
use crate::cli::{Effort, Sources, TreeFormat, Untar};
use crate::context::Context;
use crate::engine::tree::{
    ArchiveSource, Lookup, RestoreOptions, Restorer, SeedPlan, SeedStore, TarWriter, TreeSink, Unpacker,
    raise_handle_limit,
};
use crate::engine::{self, BufferPool, Progress};
use crate::failure::{Failure, Outcome};
use crate::sizes::human;

/// Bytes of an archive file read at a time.
const BLOCK_LEN: usize = 512 << 10;
/// Bytes of a part of an archive read at a time.
const PART_LEN: u64 = 1 << 20;

/// Restores a tree.
pub(crate) fn untar(context: &Context, arguments: &Untar) -> Outcome<()> {
    raise_handle_limit();
    if arguments.output_format == TreeFormat::Tar {
        return to_tar(context, arguments);
    }
    let options = RestoreOptions {
        same_owner: !arguments.no_same_owner,
        same_permissions: !arguments.no_same_permissions,
        same_xattrs: !arguments.no_same_xattrs,
        numeric_owner: arguments.numeric_owner,
        delete: arguments.delete,
        sparse: !arguments.no_sparse,
        hardlinks: arguments.hardlinks,
        undo_immutable: arguments.undo_immutable,
        shift: owner_shift(&arguments.shifting),
    };
    let (mut restorer, result);
    let mut seeds = None;
    match &arguments.path {
        None => {
            let mut input = Input::open(context, &arguments.input, arguments.index, &arguments.sources)?;
            seeds = input.add_seeds(context, arguments)?;
            if let (Input::Chunks(index, _), Some(seeds), true) = (&input, &seeds, arguments.dry_run) {
                return tell_plan(context, &seeds.plan(index));
            }
            restorer = Restorer::new(&arguments.target, options);
            let bar = context.bar("restoring", Unit::Bytes);
            result = input.unpack(&arguments.effort, &context.progress, &mut restorer);
            drop(bar);
        }
        Some(path) => (restorer, result) = one(context, arguments, path.as_os_str().as_bytes(), options)?,
    }
    let (report, notes) = (restorer.report(), restorer.take_notes());
    drop(restorer);
    let told = tell(&notes, arguments.strict);
    result?;
    if arguments.print_stats || context.json || context.verbose {
        let seeds = seeds.map(|seeds| seeds.report()).unwrap_or_default();
        let object = json!({
            "entries": report.entries,
            "files-written": report.files_written,
            "files-unchanged": report.files_unchanged,
            "files-linked": report.files_linked,
            "bytes-written": report.bytes_written,
            "removed": report.removed,
            "not-restored": notes.count(),
            "chunks-from-seeds": seeds.chunks,
            "bytes-from-seeds": seeds.bytes,
            "chunks-from-store": seeds.fetched,
            "seed-chunks-bad": seeds.bad,
        });
        let lines = format!(
            "{} entries: {} files written ({}), {} as they were, {} linked, {} removed",
            report.entries,
            report.files_written,
            human(report.bytes_written),
            report.files_unchanged,
            report.files_linked,
            report.removed
        );
        eprintln!("{}", if context.json { object.to_string() } else { lines });
    }
    told
}

/// Restores one entry, with what is below it, reading no more than that.
fn one(context: &Context, arguments: &Untar, path: &[u8], options: RestoreOptions) -> Outcome<(Restorer, Outcome<()>)> {
    let archive = list::open(context, &arguments.input, arguments.index, &arguments.sources)?;
    let entry = list::entry(&archive, path, &arguments.input)?;
    let target = &arguments.target;
    if entry.node.content == Content::Directory {
        // A folder's records are an archive of their own.
        let mut restorer = Restorer::new(target, options);
        let mut unpacker = Unpacker::new(&mut restorer);
        let mut result = pieces(
            context,
            &archive,
            entry.at..entry.content.end,
            arguments,
            &mut |bytes| unpacker.push(bytes),
        );
        if result.is_ok() {
            result = unpacker.finish().map_err(Failure::from);
        }
        return Ok((restorer, result));
    }
    let name = target.file_name().ok_or_else(|| {
        let words = format!("{}: the target of a single entry has to be a name", target.display());
        Failure::usage(words)
    })?;
    let mut restorer = Restorer::inside(engine::folder_of(target), options)?;
    restorer.start(archive.flags())?;
    let entered = restorer.enter(Some(Bytes::copy_from_slice(name.as_bytes())), Box::new(entry.node));
    let result = match entered {
        Ok(()) => pieces(context, &archive, entry.content, arguments, &mut |bytes| {
            restorer.payload(bytes)
        }),
        Err(error) => Err(error.into()),
    };
    Ok((restorer, result))
}

/// Hands over a part of an archive in order.
fn pieces(
    context: &Context,
    archive: &Lookup,
    range: Range<u64>,
    arguments: &Untar,
    take: &mut dyn FnMut(Bytes) -> engine::Result<()>,
) -> Outcome<()> {
    let source = archive.bytes();
    match source {
        // What was looked up is in memory: long parts are read ahead, short ones are there.
        ArchiveSource::Chunks(blob) if range.end - range.start > PART_LEN => {
            let (index, workers) = (blob.index(), arguments.effort.workers());
            Ok(engine::for_each(
                index,
                range,
                blob.store(),
                workers,
                &context.progress,
                take,
            )?)
        }
        _ => {
            let mut start = range.start;
            while start < range.end {
                context.progress.check().map_err(engine::Error::from)?;
                let end = range.end.min(start + PART_LEN);
                take(source.read(start..end)?)?;
                start = end;
            }
            Ok(())
        }
    }
}

/// What an update would cost.
fn tell_plan(context: &Context, plan: &SeedPlan) -> Outcome<()> {
    let object = json!({
        "chunks-from-seeds": plan.chunks_seeds,
        "bytes-from-seeds": plan.bytes_seeds,
        "chunks-from-store": plan.chunks_store,
        "bytes-from-store": plan.bytes_store,
    });
    let lines = format!(
        "{} in {} chunks are here, {} in {} chunks would be fetched",
        human(plan.bytes_seeds),
        plan.chunks_seeds,
        human(plan.bytes_store),
        plan.chunks_store
    );
    context.report(&object, &lines)
}

/// Makes a tar of an archive; a tar file gets its name when it is whole.
fn to_tar(context: &Context, arguments: &Untar) -> Outcome<()> {
    if arguments.path.is_some() {
        return Err(Failure::usage("--path restores to a folder, not to a tar"));
    }
    if owner_shift(&arguments.shifting).is_some() {
        return Err(Failure::usage(
            "--uid-shift and --uid-range restore to a folder, not to a tar",
        ));
    }
    let input = Input::open(context, &arguments.input, arguments.index, &arguments.sources)?;
    let bar = context.bar("writing the tar", Unit::Bytes);
    let notes = output(&arguments.target, |output, name| {
        let mut writer = TarWriter::new(BufWriter::with_capacity(BLOCK_LEN, output), name.to_owned());
        input.unpack(&arguments.effort, &context.progress, &mut writer)?;
        Ok(writer.finish()?.1)
    })?;
    drop(bar);
    tell(&notes, arguments.strict)
}

/// Where an archive's bytes come from.
pub(super) enum Input {
    /// A file or a pipe.
    Stream(Box<dyn Read>, String),
    /// An index and the stores that have its chunks.
    Chunks(ChunkIndex, Arc<dyn ChunkStore>),
}

impl Input {
    /// Opens an archive, or the index of one.
    pub(super) fn open(context: &Context, name: &str, index: bool, sources: &Sources) -> Outcome<Self> {
        if index {
            let index = context.index(name, &sources.access)?;
            context.progress.set_total(index.blob_len());
            return Ok(Self::Chunks(index, context.sources(sources)?));
        }
        if name == "-" {
            return Ok(Self::Stream(
                Box::new(std::io::stdin().lock()),
                "standard input".to_owned(),
            ));
        }
        if let Some(object) = context.object(Path::new(name), &sources.access)? {
            context.progress.set_total(object.byte_len());
            return Ok(Self::Stream(Box::new(object), name.to_owned()));
        }
        let file = File::open(name).map_err(|error| Failure::io(name, "open", &error))?;
        if let Ok(meta) = file.metadata() {
            context.progress.set_total(meta.len());
        }
        Ok(Self::Stream(Box::new(file), name.to_owned()))
    }

    /// Puts the seeds that the command line names, and the target itself, before the stores.
    fn add_seeds(&mut self, context: &Context, arguments: &Untar) -> Outcome<Option<Arc<SeedStore>>> {
        let Self::Chunks(index, store) = self else {
            return Ok(None);
        };
        let target = &arguments.target;
        let implied = !arguments.no_target_seed && target.read_dir().is_ok_and(|mut entries| entries.next().is_some());
        let mut seeds = SeedStore::new(index, Arc::clone(store), owner_shift(&arguments.shifting));
        let bar = context.bar("cutting seeds", Unit::Bytes);
        let workers = arguments.effort.workers();
        for seed in &arguments.seed {
            seeds.add(seed, index, workers, &context.progress)?;
        }
        if implied {
            match seeds.add(target, index, workers, &context.progress) {
                Ok(()) => {}
                Err(error @ engine::Error::Cancelled(_)) => return Err(error.into()),
                // It was only to save fetching.
                Err(error) => context.say(|| format!("the target is no seed: {error}")),
            }
        }
        drop(bar);
        let seeds = Arc::new(seeds);
        *store = seeds.clone();
        context.progress.set_total(context.progress.done() + index.blob_len());
        Ok(Some(seeds))
    }

    /// Hands the archive's entries to a sink.
    pub(super) fn unpack(self, effort: &Effort, progress: &Progress, sink: &mut dyn TreeSink) -> Outcome<()> {
        let mut unpacker = Unpacker::new(sink);
        match self {
            Self::Stream(mut stream, name) => {
                // Used again: a fresh block would cost the system more than the file's bytes do.
                let pool = BufferPool::default();
                loop {
                    progress.check().map_err(engine::Error::from)?;
                    let mut block = pool.take(BLOCK_LEN);
                    let len = match stream.read(&mut block.bytes_mut()[..BLOCK_LEN]) {
                        Ok(0) => break,
                        Ok(len) => len,
                        Err(error) if error.kind() == std::io::ErrorKind::Interrupted => continue,
                        Err(error) => return Err(Failure::io(name, "read", &error)),
                    };
                    unpacker.push(Bytes::from_owner(block).slice(..len))?;
                    progress.advance(len as u64);
                }
            }
            Self::Chunks(index, store) => {
                let all = 0..index.blob_len();
                engine::for_each(&index, all, &*store, effort.workers(), progress, &mut |bytes| {
                    unpacker.push(bytes)
                })?;
            }
        }
        Ok(unpacker.finish()?)
    }
}
