//! What may be relied on: the pack store asks whoever deletes chunks.
//!
//! A condemned record still reads, but who asks whether the chunk is there is told no, and who puts it has it written anew, to
//! another place. Not here: what is condemned, and when it goes (`index`).

use std::fmt;
use std::sync::Arc;

use super::{ChunkKey, ChunkPlace, PackEngine};
use crate::{Error, Result};

/// Knows which records are to be deleted. Records are known by key, pack and offset: no more of a place need be right.
pub trait Liveness: Send + Sync + fmt::Debug {
    /// Which of these records are condemned; one answer each, in order.
    fn condemned(&self, chunks: &[(ChunkKey, ChunkPlace)]) -> Result<Vec<bool>>;

    /// Somebody is being told that these are there.
    fn touched(&self, chunks: &[(ChunkKey, ChunkPlace)]);
}

impl PackEngine {
    /// Has it be asked what may be relied on, from now on.
    ///
    /// Errors: [`Error::Refused`] when another is asked already: one store has one who deletes.
    pub fn consult(&self, liveness: Arc<dyn Liveness>) -> Result<()> {
        self.liveness.set(liveness).map_err(|_| Error::Refused {
            store: self.name.clone(),
            action: "take a second collector",
            source: "a store has one, from its opening on".into(),
        })
    }

    /// Of places that were found, those that may be relied on.
    pub(super) fn relied_on(
        &self,
        keys: &[ChunkKey],
        mut places: Vec<Option<ChunkPlace>>,
        pinned: bool,
    ) -> Result<Vec<Option<ChunkPlace>>> {
        if pinned {
            places
                .iter_mut()
                .for_each(|place| *place = place.filter(|place| place.pinned));
        }
        let Some(liveness) = self.liveness.get() else {
            return Ok(places);
        };
        let found: Vec<usize> = (0..keys.len()).filter(|&n| places[n].is_some()).collect();
        let chunks: Vec<_> = found.iter().filter_map(|&n| Some((keys[n], places[n]?))).collect();
        if chunks.is_empty() {
            return Ok(places);
        }
        // Touched first: between asking and touching a collection might condemn them.
        liveness.touched(&chunks);
        let condemned = liveness.condemned(&chunks)?;
        for (n, _) in found.into_iter().zip(condemned).filter(|(_, condemned)| *condemned) {
            places[n] = None;
        }
        Ok(places)
    }
}
