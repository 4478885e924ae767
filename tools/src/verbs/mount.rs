//! `mount`: an archive as a tree, read as it is looked at.

use std::path::Path;
use std::sync::Arc;

use cairn_store::ChunkStore;
use serde_json::json;

use super::mounting::{SwapStore, blob_options, mount_options, report, say_ready, signals, stay};
use crate::cli::Mount;
use crate::context::Context;
use crate::engine::IndexedBlob;
use crate::engine::mount::{Mounted, TreeFs};
use crate::engine::tree::ArchiveSource;
use crate::failure::{Failure, Outcome};

/// Mounts an archive, or an archive's index, until a signal.
pub(crate) fn mount(context: &Context, arguments: &Mount) -> Outcome<()> {
    let source = Path::new(&arguments.source);
    let mut store = None;
    let archive = if source.exists() && ArchiveSource::is_archive(source)? {
        ArchiveSource::open(source.to_owned())?
    } else {
        let index = context.index(&arguments.source, &arguments.sources.flags.access)?;
        let opened = SwapStore::open(context, &arguments.sources)?;
        let chunks: Arc<dyn ChunkStore> = opened.clone();
        store = Some(opened);
        ArchiveSource::Chunks(IndexedBlob::new(index, chunks, blob_options(&arguments.mounting)))
    };
    let filesystem = TreeFs::open(archive, report(context.json))?;
    let len = filesystem.archive_len();
    let signals = signals()?;
    let folder = &arguments.folder;
    if arguments.mkdir
        && let Err(error) = std::fs::create_dir(folder)
        && error.kind() != std::io::ErrorKind::AlreadyExists
    {
        return Err(Failure::io(folder.display(), "make the folder", &error));
    }
    let mounted = Mounted::start(filesystem, folder, mount_options(&arguments.mounting, false))?;
    say_ready(
        context,
        &json!({ "mounted": folder.to_string_lossy(), "length": len }),
        &format!("mounted {}, an archive of {len} bytes", folder.display()),
    );
    let hangup = || {
        if let Some(store) = &store {
            store.reload(context, &arguments.sources);
        }
    };
    stay(context, mounted, folder, &signals, &hangup)
}
