//! `untar`: an archive, or one that is stored in chunks, becomes a tree again.

use std::fs::File;
use std::io::Read;
use std::sync::Arc;

use bytes::Bytes;
use cairn_formats::ChunkIndex;
use cairn_store::ChunkStore;
use serde_json::json;

use super::tar::tell;
use crate::bar::Unit;
use crate::cli::{Effort, Sources, TreeFormat, Untar};
use crate::context::Context;
use crate::engine::tree::{RestoreOptions, Restorer, TreeSink, Unpacker};
use crate::engine::{self, Progress};
use crate::failure::{Failure, Outcome};
use crate::sizes::human;

/// Bytes of an archive file read at a time.
const BLOCK_LEN: usize = 512 << 10;

/// Restores a tree.
pub(crate) fn untar(context: &Context, arguments: &Untar) -> Outcome<()> {
    if arguments.output_format == TreeFormat::Tar {
        return Err(Failure::usage("--output-format tar: not there yet"));
    }
    let input = Input::open(context, &arguments.input, arguments.index, &arguments.sources)?;
    let options = RestoreOptions {
        same_owner: !arguments.no_same_owner,
        same_permissions: !arguments.no_same_permissions,
        same_xattrs: !arguments.no_same_xattrs,
        numeric_owner: arguments.numeric_owner,
        delete: arguments.delete,
        sparse: !arguments.no_sparse,
        hardlinks: arguments.hardlinks,
    };
    let mut restorer = Restorer::new(&arguments.target, options);
    let bar = context.bar("restoring", Unit::Bytes);
    let result = input.unpack(&arguments.effort, &context.progress, &mut restorer);
    drop(bar);
    let (report, notes) = (restorer.report(), restorer.take_notes());
    drop(restorer);
    let told = tell(&notes, arguments.strict);
    result?;
    if arguments.print_stats || context.json || context.verbose {
        let object = json!({
            "entries": report.entries,
            "files-written": report.files_written,
            "files-unchanged": report.files_unchanged,
            "files-linked": report.files_linked,
            "bytes-written": report.bytes_written,
            "removed": report.removed,
            "not-restored": notes.count(),
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
        let file = File::open(name).map_err(|error| Failure::io(name, "open", &error))?;
        if let Ok(meta) = file.metadata() {
            context.progress.set_total(meta.len());
        }
        Ok(Self::Stream(Box::new(file), name.to_owned()))
    }

    /// Hands the archive's entries to a sink.
    pub(super) fn unpack(self, effort: &Effort, progress: &Progress, sink: &mut dyn TreeSink) -> Outcome<()> {
        let mut unpacker = Unpacker::new(sink);
        match self {
            Self::Stream(mut stream, name) => loop {
                progress.check().map_err(engine::Error::from)?;
                let mut block = vec![0; BLOCK_LEN];
                let len = match stream.read(&mut block) {
                    Ok(0) => break,
                    Ok(len) => len,
                    Err(error) if error.kind() == std::io::ErrorKind::Interrupted => continue,
                    Err(error) => return Err(Failure::io(name, "read", &error)),
                };
                unpacker.push(Bytes::from(block).slice(..len))?;
                progress.advance(len as u64);
            },
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
