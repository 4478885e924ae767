//! The chunks of a bucket's dedup domain, as a chunk root has them.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use cairn_formats::{DomainId, Level};
use cairn_identity::Permit;
use cairn_index::Tenant;
use cairn_index::names::Bucket;
use cairn_roots::{Access, Body, ChunkRoot, ChunkRootOptions, Grant, VerifyReads};
use http::Response;

use super::{Answer, Ask, Core};

/// Roots that are kept open: each remembers, in 4 MiB, what it has checked of late.
const ROOTS_KEPT_MAX: usize = 16;

/// A chunk root for each domain that was asked for lately.
#[derive(Debug, Default)]
pub(super) struct ChunkRoots(Mutex<HashMap<(Tenant, DomainId), Arc<ChunkRoot>>>);

/// GET, HEAD and PUT of a chunk, and requests for many.
pub(super) async fn answer(core: &Core, _permit: Permit, ask: Ask) -> Answer<Response<Body>> {
    let root = core.roots.of(core, &ask.bucket);
    Ok(root.answer(ask.request, ask.path_at).await)
}

impl ChunkRoots {
    pub(super) fn of(&self, core: &Core, bucket: &Bucket) -> Arc<ChunkRoot> {
        let key = (bucket.tenant().clone(), bucket.record.settings.domain);
        let mut roots = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(root) = roots.get(&key) {
            return Arc::clone(root);
        }
        if roots.len() >= ROOTS_KEPT_MAX {
            roots.clear();
        }
        let options = ChunkRootOptions {
            digest: core.objects.options().digest,
            access: Access {
                read: Grant::Decided,
                write: Grant::Decided,
            },
            verify_reads: VerifyReads::default(),
            frame_level: Some(Level::new(core.options.frame_level)),
            // Chunks are collected here: that one is there is a promise.
            ask_for_heads: true,
            pull_ids: core.options.pull_ids,
        };
        let root = ChunkRoot::new(core.objects.chunk_store(bucket), options, core.workers.clone());
        let root = Arc::new(root);
        roots.insert(key, Arc::clone(&root));
        root
    }
}
