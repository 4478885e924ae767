//! What the packs themselves say of a record, for locations that do not keep all of it in memory.

use std::fmt;
use std::sync::{Arc, PoisonError};

use cairn_formats::{PACK_TAIL_LEN, PackFooter, PackTail, RECORD_HEAD_LEN, RecordHead, RecordKind};

use super::{ChunkKey, ChunkPlace, Pack, Packs, checksum_error};
use crate::{Error, Result, StoreName};

/// The packs of an open store, by their records.
#[derive(Clone)]
pub struct PackHeads {
    store: StoreName,
    packs: Arc<Packs>,
}

impl fmt::Debug for PackHeads {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("PackHeads").field(&self.store).finish()
    }
}

impl PackHeads {
    pub(super) fn new(store: StoreName, packs: Arc<Packs>) -> Self {
        Self { store, packs }
    }

    /// The chunk whose frame begins at an offset; `None` where the pack is gone or its head is not whole.
    pub(super) fn head(&self, pack: u32, offset: u64) -> Result<Option<(ChunkKey, ChunkPlace)>> {
        match self.pack(pack) {
            Some(pack) => self.read_head(&pack, offset),
            None => Ok(None),
        }
    }

    /// The same, of a chunk that is known to be there: if the head is damaged, the pack's footer tells what it said.
    ///
    /// `None` only where the pack is gone.
    pub(super) fn head_of(&self, key: ChunkKey, pack: u32, offset: u64) -> Result<Option<(ChunkKey, ChunkPlace)>> {
        let Some(pack) = self.pack(pack) else {
            return Ok(None);
        };
        if let Some(head) = self.read_head(&pack, offset)? {
            return Ok(Some(head));
        }
        let sealed = self.entries(&pack)?.unwrap_or_default();
        let mut at_place = sealed.into_iter().filter(|(_, place)| place.offset == offset);
        at_place
            .next()
            .map(Some)
            .ok_or_else(|| checksum_error(&self.store, key.id))
    }

    /// The same, without waiting for a disk.
    pub(super) fn resident(&self, pack: u32, offset: u64) -> Option<(ChunkKey, ChunkPlace)> {
        let pack = self.pack(pack)?;
        let mut head = [0; RECORD_HEAD_LEN];
        let from = offset.checked_sub(RECORD_HEAD_LEN as u64)?;
        pack.file.read_resident(from, &mut head).then_some(())?;
        decode(&pack, offset, &head)
    }

    /// Numbers of the packs that are there.
    pub(super) fn numbers(&self) -> Vec<u32> {
        let packs = self.packs.read().unwrap_or_else(PoisonError::into_inner);
        packs.keys().copied().collect()
    }

    /// The chunks of a sealed pack; `None` if it has no footer.
    pub(super) fn sealed(&self, pack: u32) -> Result<Option<Vec<(ChunkKey, ChunkPlace)>>> {
        match self.pack(pack) {
            Some(pack) => self.entries(&pack),
            None => Ok(None),
        }
    }

    fn pack(&self, number: u32) -> Option<Arc<Pack>> {
        let packs = self.packs.read().unwrap_or_else(PoisonError::into_inner);
        packs.get(&number).cloned()
    }

    fn read_head(&self, pack: &Pack, offset: u64) -> Result<Option<(ChunkKey, ChunkPlace)>> {
        let Some(from) = offset.checked_sub(RECORD_HEAD_LEN as u64) else {
            return Ok(None);
        };
        let mut head = [0; RECORD_HEAD_LEN];
        let len = self.read(pack, from, &mut head)?;
        Ok(decode(pack, offset, &head[..len]))
    }

    fn entries(&self, pack: &Pack) -> Result<Option<Vec<(ChunkKey, ChunkPlace)>>> {
        let len = pack.file.len().map_err(|error| self.unavailable(error))?;
        let Some(tail_start) = len.checked_sub(PACK_TAIL_LEN as u64) else {
            return Ok(None);
        };
        let mut tail = [0; PACK_TAIL_LEN];
        let read = self.read(pack, tail_start, &mut tail)?;
        let Some(tail) = PackTail::decode(len, &tail[..read]) else {
            return Ok(None);
        };
        let mut footer = vec![0; (len - tail.start) as usize];
        let read = self.read(pack, tail.start, &mut footer)?;
        let Ok(footer) = PackFooter::decode(&tail, &footer[..read]) else {
            return Ok(None);
        };
        let chunks = footer.entries.iter().filter(|entry| entry.kind == RecordKind::Chunk);
        let placed = chunks.map(|entry| {
            let (domain, id) = (entry.domain, entry.id);
            (ChunkKey { domain, id }, ChunkPlace::of(pack.number, entry))
        });
        Ok(Some(placed.collect()))
    }

    fn read(&self, pack: &Pack, offset: u64, buffer: &mut [u8]) -> Result<usize> {
        pack.file
            .read_at(offset, buffer)
            .map_err(|error| self.unavailable(error))
    }

    fn unavailable(&self, error: std::io::Error) -> Error {
        Error::Unavailable {
            store: self.store.clone(),
            action: "read a pack",
            source: error.into(),
        }
    }
}

fn decode(pack: &Pack, offset: u64, head: &[u8]) -> Option<(ChunkKey, ChunkPlace)> {
    let (head, span) = RecordHead::decode_before(&pack.uuid, offset, head)?;
    let (domain, id) = (head.domain, head.id);
    (head.kind == RecordKind::Chunk).then(|| (ChunkKey { domain, id }, ChunkPlace::of(pack.number, &head.entry(span))))
}
