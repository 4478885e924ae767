//! What may be deleted: the collector's fence, condemned chunks, manifests (`manifests.rs`), leases (`leases.rs`).
//!
//! A collection goes: mark what the manifests of a snapshot name; *condemn* the rest, which moves the generation on in the same
//! commit; *re-mark*: pardon what manifests named that were committed since the first mark; remove what is still condemned, at
//! the place that was condemned and no other; say that it is *swept*, which moves the generation on again.
//!
//! A writer takes the [`Fence`], then looks its chunks up (a condemned one counts as missing, and is sent again, to another
//! place), then commits with the fence: if the generation has moved, one of its chunks may have been condemned meanwhile, and it
//! looks them up anew. So a manifest that is committed after a condemning names nothing condemned by it, and one that was
//! committed before is seen by the re-mark; no clock is asked. Not here: the walk over places, removing chunks from packs.

mod leases;
mod manifests;

use cairn_formats::{ChunkId, DomainId};
use cairn_store::{ChunkKey, LogPosition};

use crate::kv::{Batch, Check, Commit, Kv, Order, View, ViewExt as _};
use crate::{Error, Key, KeyReader, Result, Table};

pub use leases::{Lease, end_lease, hold_lease, leases};
pub use manifests::{
    COMMIT_CHUNKS_MAX, MANIFEST_PAGE_CHUNKS, MANIFEST_STARTS_EVERY, Manifest, ManifestChunk, ManifestId, NewManifest,
    Published, Settled, drop_manifest, for_each_manifest, manifest, manifest_page, manifest_starts, manifests_named,
    sweep_all_manifests, sweep_manifests,
};
pub(crate) use manifests::{Rows, for_each_tenant, given_up, join, pages_in_commit, retire, tenants_after};

/// Chunks condemned, pardoned or swept in one commit, at most: their keys fill most of a batch.
pub const MARKS_MAX: usize = 50_000;

/// A chunk at a place: what is condemned is this record, not the chunk wherever it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct ChunkAt {
    /// The chunk.
    pub key: ChunkKey,
    /// Pack and offset of its record.
    pub at: LogPosition,
}

/// The generation at which a writer looked its chunks up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Fence {
    /// How often chunks have been condemned or swept.
    pub generation: u64,
    row: Check,
}

fn generation_key() -> Key {
    Key::of_index(Table::Collector).bytes(b"generation")
}

impl Fence {
    /// The fence as it stands. Taken before chunks are looked up.
    ///
    /// Errors: those of the engine, [`Error::Malformed`].
    pub fn now(view: &(impl View + ?Sized)) -> Result<Self> {
        let row = view.get(generation_key())?;
        let generation = match &row {
            None => 0,
            Some(row) => row
                .value
                .as_ref()
                .try_into()
                .map(u64::from_be_bytes)
                .map_err(|_| Error::Malformed {
                    what: "generation",
                    reason: "it is no number",
                })?,
        };
        Ok(Self {
            generation,
            row: Check::unchanged(row.as_ref()),
        })
    }

    /// Makes a batch depend on nothing having been condemned or swept since.
    pub fn guard(&self, batch: &mut Batch) {
        batch.check(generation_key(), self.row);
    }

    /// Has a batch move the generation on.
    fn pass(&self, batch: &mut Batch) {
        self.guard(batch);
        batch.put(generation_key(), (self.generation + 1).to_be_bytes().to_vec());
    }
}

fn mark_key(chunk: &ChunkAt) -> Key {
    Key::of_index(Table::Condemned)
        .u32(chunk.key.domain.0)
        .fixed(chunk.key.id.as_bytes())
        .u32(chunk.at.pack)
        .u64(chunk.at.offset)
}

/// Which of these are condemned; one answer per chunk, in order. A condemned chunk still reads, but nothing new may name it.
pub fn condemned(view: &(impl View + ?Sized), chunks: &[ChunkAt]) -> Result<Vec<bool>> {
    let keys: Vec<Key> = chunks.iter().map(mark_key).collect();
    let keys: Vec<&[u8]> = keys.iter().map(Key::as_bytes).collect();
    Ok(view.get_many(&keys)?.iter().map(Option::is_some).collect())
}

/// Condemns chunks, and moves the generation on in the same commit, once for each [`MARKS_MAX`] of them.
pub fn condemn(kv: &(impl Kv + ?Sized), chunks: &[ChunkAt]) -> Result<()> {
    for chunks in chunks.chunks(MARKS_MAX) {
        move_on(kv, |batch| {
            for chunk in chunks {
                batch.put(mark_key(chunk), Vec::new());
            }
        })?;
    }
    Ok(())
}

/// Takes chunks out of the condemned ones: a manifest names them after all.
pub fn pardon(kv: &(impl Kv + ?Sized), chunks: &[ChunkAt]) -> Result<()> {
    for chunks in chunks.chunks(MARKS_MAX) {
        let mut batch = Batch::new();
        for chunk in chunks {
            batch.delete(mark_key(chunk));
        }
        unconditional(kv, batch)?;
    }
    Ok(())
}

/// Forgets condemned chunks that are gone from their places, durably.
///
/// The generation moves on here too: a writer that found a place before it went and no mark after that must look again.
pub fn swept(kv: &(impl Kv + ?Sized), chunks: &[ChunkAt]) -> Result<()> {
    for chunks in chunks.chunks(MARKS_MAX) {
        move_on(kv, |batch| {
            for chunk in chunks {
                batch.delete(mark_key(chunk));
            }
        })?;
    }
    Ok(())
}

/// Commits a batch without checks.
fn unconditional(kv: &(impl Kv + ?Sized), batch: Batch) -> Result<()> {
    match kv.commit(batch)? {
        Commit::Done(_) => Ok(()),
        Commit::Conflict(_) => unreachable!("a batch without checks has no conflict"),
    }
}

fn move_on(kv: &(impl Kv + ?Sized), fill: impl Fn(&mut Batch)) -> Result<()> {
    loop {
        let mut batch = Batch::new();
        Fence::now(kv)?.pass(&mut batch);
        fill(&mut batch);
        if let Commit::Done(_) = kv.commit(batch)? {
            return Ok(());
        }
    }
}

/// Visits all condemned chunks, by domain and id, until an error, which is returned.
pub fn for_each_condemned<E: From<Error>>(
    view: &(impl View + ?Sized),
    mut visit: impl FnMut(ChunkAt) -> std::result::Result<(), E>,
) -> std::result::Result<(), E> {
    let table = Key::of_index(Table::Condemned);
    view.for_each(table.range(), |key, _| visit(mark(&key[table.as_bytes().len()..])?))
}

/// Whether anything is condemned at all.
pub(crate) fn any_condemned(view: &(impl View + ?Sized)) -> Result<bool> {
    let range = Key::of_index(Table::Condemned).range();
    Ok(!view.scan(&range, Order::Forward, 1)?.rows.is_empty())
}

/// What is behind the table in a mark's key.
fn mark(key: &[u8]) -> Result<ChunkAt> {
    let mut reader = KeyReader::new(key);
    let chunk = ChunkAt {
        key: ChunkKey {
            domain: DomainId(reader.u32()?),
            id: ChunkId::from_bytes(reader.fixed()?),
        },
        at: LogPosition {
            pack: reader.u32()?,
            offset: reader.u64()?,
        },
    };
    reader.end()?;
    Ok(chunk)
}

#[cfg(test)]
mod tests;
