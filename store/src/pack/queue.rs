//! Records that wait to be written, in the order in which they came: what each becomes in a pack, who waits for which.
//!
//! A chunk that waits counts as on its way, one whose removal waits as gone. Who writes takes all items at once (`log.rs`). Not
//! here: files, locks.

use std::collections::HashMap;

use bytes::Bytes;
use cairn_formats::{
    ChunkForm, ChunkId, DomainId, RecordHead, RecordKind, Removal, SnapshotHead, SnapshotUuid, StorableChunk,
    payload_crc, raw_frame,
};

use super::{ChunkKey, ChunkPlace};
use crate::SyncPolicy;

/// A record that waits to be written.
#[derive(Clone, Debug)]
pub(super) struct Item {
    pub(super) content: Content,
    pub(super) payload: Bytes,
    crc: u32,
    /// When it has to be durable; what replaces or takes something away always is before anybody is told.
    sync: SyncPolicy,
}

#[derive(Clone, Debug)]
pub(super) enum Content {
    Chunk {
        key: ChunkKey,
        plain_len: u32,
        pinned: bool,
        /// It is only written anew.
        is_moved: bool,
        /// Another record of it is there already (condemned, or not pinned).
        is_again: bool,
    },
    /// Its number stands before the batch once it is written.
    Commit,
    Removals(Vec<Removal>),
    Snapshot(SnapshotHead),
}

impl Item {
    fn new(content: Content, payload: Bytes) -> Self {
        let (crc, sync) = (payload_crc(&payload), SyncPolicy::Sync);
        Self {
            content,
            payload,
            crc,
            sync,
        }
    }

    pub(super) fn commit(batch: Bytes, sync: SyncPolicy) -> Self {
        Self {
            sync,
            ..Self::new(Content::Commit, batch)
        }
    }

    /// When it has to be durable.
    pub(super) fn sync(&self) -> SyncPolicy {
        match &self.content {
            // The locations may outlive the log's tail: of a chunk that was moved or removed they must not know more than it.
            Content::Chunk { is_again: true, .. } | Content::Removals(_) | Content::Snapshot(_) => SyncPolicy::Sync,
            Content::Chunk { is_again: false, .. } | Content::Commit => self.sync,
        }
    }

    /// Whether it is a batch of the index that is acknowledged before it is durable.
    pub(super) fn is_early_commit(&self) -> bool {
        matches!(self.content, Content::Commit) && self.sync != SyncPolicy::Sync
    }

    pub(super) fn removals(removals: Vec<Removal>) -> Self {
        let payload = Bytes::from(Removal::encode_all(&removals));
        Self::new(Content::Removals(removals), payload)
    }

    /// A piece of a snapshot, or its end.
    pub(super) fn snapshot(head: SnapshotHead, payload: Bytes) -> Self {
        Self::new(Content::Snapshot(head), payload)
    }

    pub(super) fn is_moved(&self) -> bool {
        matches!(self.content, Content::Chunk { is_moved: true, .. })
    }

    pub(super) fn is_piece_of(&self, uuid: SnapshotUuid) -> bool {
        matches!(self.content, Content::Snapshot(head) if head.uuid == uuid)
    }

    pub(super) fn is_snapshot(&self) -> bool {
        matches!(self.content, Content::Snapshot(_))
    }

    /// A chunk that is written anew from elsewhere in the store. The caller has checked its sum.
    pub(super) fn moved(key: ChunkKey, place: ChunkPlace, payload: Bytes) -> Self {
        let content = Content::Chunk {
            key,
            plain_len: place.plain_len,
            pinned: place.pinned,
            is_moved: true,
            is_again: true,
        };
        Self {
            content,
            payload,
            crc: place.crc,
            sync: SyncPolicy::Sync,
        }
    }

    /// The same, in another frame.
    pub(super) fn moved_as(key: ChunkKey, place: ChunkPlace, payload: Bytes) -> Self {
        let crc = payload_crc(&payload);
        Self::moved(key, ChunkPlace { crc, ..place }, payload)
    }

    /// Bytes of the payload.
    pub(super) fn len(&self) -> usize {
        self.payload.len()
    }

    pub(super) fn chunk(key: ChunkKey, pinned: bool, is_again: bool, chunk: &StorableChunk, sync: SyncPolicy) -> Self {
        let payload = match chunk.form() {
            ChunkForm::Compressed => chunk.bytes().clone(),
            ChunkForm::Plain => Bytes::from(raw_frame(chunk.bytes())),
        };
        let content = Content::Chunk {
            key,
            plain_len: chunk.plain_len() as u32,
            pinned,
            is_moved: false,
            is_again,
        };
        Self {
            sync,
            ..Self::new(content, payload)
        }
    }

    /// The chunk that is new to the store.
    pub(super) fn new_chunk(&self) -> Option<ChunkKey> {
        match self.content {
            Content::Chunk {
                key, is_moved: false, ..
            } => Some(key),
            _ => None,
        }
    }

    pub(super) fn head(&self, synced: u64) -> RecordHead {
        let (kind, domain, id, plain_len, pinned) = match &self.content {
            Content::Chunk {
                key, plain_len, pinned, ..
            } => (RecordKind::Chunk, key.domain, key.id, *plain_len, *pinned),
            other => {
                let kind = match other {
                    Content::Removals(_) => RecordKind::Removals,
                    Content::Snapshot(_) => RecordKind::Snapshot,
                    _ => RecordKind::Commit,
                };
                (kind, DomainId::default(), digest(&self.payload), 0, false)
            }
        };
        RecordHead {
            kind,
            pinned,
            domain,
            synced,
            id,
            len: self.payload.len() as u32,
            plain_len,
            crc: self.crc,
        }
    }
}

/// The chunk that is taken away.
pub(super) fn key_of(removal: &Removal) -> ChunkKey {
    ChunkKey {
        domain: removal.domain,
        id: removal.id,
    }
}

pub(super) fn digest(payload: &[u8]) -> ChunkId {
    ChunkId::from_bytes(*blake3::hash(payload).as_bytes())
}

/// Records that wait, and how far the writers have come. Tickets count records since the store was opened.
#[derive(Debug, Default)]
pub(super) struct Queue {
    pub(super) items: Vec<Item>,
    /// Bytes of payload that wait or are being written.
    pub(super) bytes: usize,
    /// The ticket of the last record that came.
    pub(super) enqueued: u64,
    /// The ticket of the last record that was published.
    pub(super) done: u64,
    /// Somebody is writing, or about to.
    pub(super) writing: bool,
    /// Tickets that are waited for, one for each who waits, the writer among them.
    pub(super) waiting: Vec<u64>,
    /// How many waited when the last write ended.
    pub(super) expected: usize,
    /// Chunks that wait or are being written, and whether they will be pinned.
    pub(super) pending: HashMap<ChunkKey, (u64, bool)>,
    /// Chunks whose removal waits or is being written: whoever puts one now must not be told that it is there.
    pub(super) leaving: HashMap<ChunkKey, u64>,
}

impl Queue {
    /// Whether a chunk that is there now is about to be taken away.
    pub(super) fn leaves(&self, key: &ChunkKey) -> bool {
        self.leaving.contains_key(key)
    }

    pub(super) fn push(&mut self, item: Item) {
        self.enqueued += 1;
        self.bytes += item.payload.len();
        if let Some(key) = item.new_chunk() {
            let pinned = matches!(item.content, Content::Chunk { pinned: true, .. });
            self.pending.insert(key, (self.enqueued, pinned));
            self.leaving.remove(&key);
        }
        if let Content::Removals(removals) = &item.content {
            for removal in removals {
                self.leaving.insert(key_of(removal), self.enqueued);
            }
        }
        self.items.push(item);
    }
}

/// Bytes that a record has before what was queued.
pub(super) fn commit_extra(item: &Item) -> usize {
    match item.content {
        Content::Commit => 8,
        _ => 0,
    }
}
