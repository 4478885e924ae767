//! `mount-index`: a blob as a file, read from its store as it is needed.

use std::sync::Arc;

use cairn_store::ChunkStore;
use serde_json::json;

use super::mounting::{SwapStore, blob_options, mount_options, report, say_ready, signals, stay};
use crate::cli::MountIndex;
use crate::context::Context;
use crate::engine::IndexedBlob;
use crate::engine::mount::{BlobFile, BlobFs, CopyOnRead, CopyOnReadOptions, Mounted, Overlay, entry_name};
use crate::failure::{Failure, Outcome};

/// Mounts a blob until a signal.
pub(crate) fn mount_index(context: &Context, arguments: &MountIndex) -> Outcome<()> {
    let store = SwapStore::open(context, &arguments.sources)?;
    let index = context.index(&arguments.index, &arguments.sources.flags.access)?;
    let overlay = match &arguments.cow {
        Some(path) => Some(Overlay::open(path, &index)?),
        None => None,
    };
    let chunks: Arc<dyn ChunkStore> = store.clone();
    let blob = IndexedBlob::new(index, chunks, blob_options(&arguments.mounting));
    let blob = Arc::new(match &arguments.cor_file {
        Some(file) => {
            let options = CopyOnReadOptions {
                file: file.clone(),
                state_save: arguments.cor_state_save.clone(),
                state_init: arguments.cor_state_init.clone(),
                init_threads: arguments.cor_init_n,
            };
            BlobFile::with_copies(CopyOnRead::open(blob, &options)?, overlay)
        }
        None => BlobFile::from_store(blob, overlay),
    });
    let name = entry_name(&arguments.index, "blob");
    let folder = &arguments.folder;
    let signals = signals()?;
    let filesystem = BlobFs::new(Arc::clone(&blob), name.clone(), report(context.json));
    let options = mount_options(&arguments.mounting, blob.is_writable());
    let mounted = Mounted::start(filesystem, folder, options)?;
    let file = folder.join(&name);
    say_ready(
        context,
        &json!({ "mounted": folder.to_string_lossy(), "file": file.to_string_lossy(), "length": blob.len() }),
        &format!("mounted {}, {} bytes", file.display(), blob.len()),
    );
    let hangup = || {
        if let Err(error) = blob.save_state() {
            eprintln!("{}", Failure::from(error).line(context.json));
        }
        store.reload(context, &arguments.sources);
    };
    let ended = stay(context, mounted, folder, &signals, &hangup);
    blob.save()?;
    ended
}
