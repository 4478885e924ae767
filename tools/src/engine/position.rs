//! Where an index names a chunk: a compact hash table of item positions, for seeds and for repeats inside one blob.
//!
//! Four bytes a slot, the ids stay in the (mapped) index. A big table lies in an unlinked temporary file, so that a plan for
//! sixteen million chunks does not cost anonymous memory.

use std::io;

use cairn_formats::{ChunkId, ChunkIndex};
use memmap2::MmapMut;

/// Tables up to this many bytes are kept in memory.
const MEMORY_LEN_MAX: usize = 4 << 20;
const EMPTY: u32 = 0;

/// First position of each id of one index.
#[derive(Debug)]
pub(super) struct PositionTable {
    slots: MmapMut,
    mask: usize,
}

impl PositionTable {
    /// Reads an index once. Errors: no temporary file could be made for a big one. An index past 2^32 - 2 items is cut off
    /// there: chunks beyond are not found, which costs a fetch and no more.
    pub(super) fn build(index: &ChunkIndex) -> io::Result<Self> {
        let items = index.len().min(u32::MAX as usize - 1);
        let slots = (items + items / 2).next_power_of_two().max(16);
        let len = slots * size_of::<u32>();
        let slots_map = if len <= MEMORY_LEN_MAX {
            MmapMut::map_anon(len)?
        } else {
            let file = tempfile::tempfile()?;
            file.set_len(len as u64)?;
            map_private_file(&file)?
        };
        let mut table = Self {
            slots: slots_map,
            mask: slots - 1,
        };
        for position in 0..items {
            let id = index.span(position).id;
            let slot = table.probe(id, index);
            if table.slot(slot) == EMPTY {
                table.slots[slot * 4..slot * 4 + 4].copy_from_slice(&(position as u32 + 1).to_le_bytes());
            }
        }
        Ok(table)
    }

    /// The first item of `index` (the one that the table was built from) with this id.
    pub(super) fn find(&self, id: ChunkId, index: &ChunkIndex) -> Option<usize> {
        match self.slot(self.probe(id, index)) {
            EMPTY => None,
            position => Some(position as usize - 1),
        }
    }

    /// The slot that holds `id`, or the empty one where it belongs. Ends because a third of the slots is empty.
    fn probe(&self, id: ChunkId, index: &ChunkIndex) -> usize {
        let mut at = usize::from_le_bytes(id.as_bytes()[..8].try_into().expect("eight bytes")) & self.mask;
        loop {
            let position = self.slot(at);
            if position == EMPTY || index.span(position as usize - 1).id == id {
                return at;
            }
            at = (at + 1) & self.mask;
        }
    }

    fn slot(&self, at: usize) -> u32 {
        u32::from_le_bytes(self.slots[at * 4..at * 4 + 4].try_into().expect("four bytes"))
    }
}

#[allow(unsafe_code)] // the only way to map a file
fn map_private_file(file: &std::fs::File) -> io::Result<MmapMut> {
    // SAFETY: the file was made by `tempfile` and has no name, so nobody else can change or cut it while it is mapped.
    unsafe { MmapMut::map_mut(file) }
}
