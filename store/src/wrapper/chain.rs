//! Several stores, asked in order for what the ones before do not have (`-s a -s b`).
//!
//! A missing chunk moves on to the next store; an error stops the search for that chunk, since the store that failed might
//! have had it and the ones behind may be slower or staler. A damaged chunk moves on too: another copy is as good. Reading
//! only: which store to write to is the caller's choice.

use std::sync::Arc;

use cairn_formats::{ChunkForm, ChunkId, EncodedChunk, StorableChunk};

use crate::{ChunkStat, ChunkStore, Error, Result, StoreName};

/// Stores in the order in which they are asked.
#[derive(Debug)]
pub struct StoreChain {
    name: StoreName,
    stores: Vec<Arc<dyn ChunkStore>>,
}

impl StoreChain {
    /// A chain of these stores, the first asked first. Without any, every chunk is missing.
    pub fn new(stores: Vec<Arc<dyn ChunkStore>>) -> Self {
        let names: Vec<String> = stores.iter().map(|store| store.name().to_string()).collect();
        Self {
            name: StoreName::new(names.join(", ")),
            stores,
        }
    }
}

#[deny(clippy::missing_trait_methods)]
impl ChunkStore for StoreChain {
    fn name(&self) -> &StoreName {
        &self.name
    }

    fn has_many(&self, ids: &[ChunkId]) -> Result<Vec<bool>> {
        let mut has = vec![false; ids.len()];
        let mut open: Vec<usize> = (0..ids.len()).collect();
        for store in &self.stores {
            if open.is_empty() {
                break;
            }
            let asked: Vec<ChunkId> = open.iter().map(|&index| ids[index]).collect();
            for (&index, answer) in open.iter().zip(store.has_many(&asked)?) {
                has[index] = answer;
            }
            open.retain(|&index| !has[index]);
        }
        Ok(has)
    }

    fn get_many(&self, ids: &[ChunkId]) -> Vec<Result<EncodedChunk>> {
        let mut chunks: Vec<Result<EncodedChunk>> = ids
            .iter()
            .map(|&id| {
                Err(Error::Missing {
                    id,
                    store: self.name.clone(),
                })
            })
            .collect();
        let mut open: Vec<usize> = (0..ids.len()).collect();
        for store in &self.stores {
            if open.is_empty() {
                break;
            }
            let asked: Vec<ChunkId> = open.iter().map(|&index| ids[index]).collect();
            let answers = store.get_many(&asked);
            open = open
                .into_iter()
                .zip(answers)
                .filter_map(|(index, answer)| {
                    let goes_on = matches!(answer, Err(Error::Missing { .. } | Error::Corrupt { .. }));
                    // A missing chunk is missing from the whole chain, and a damaged copy remains worth telling.
                    if !matches!(answer, Err(Error::Missing { .. })) {
                        chunks[index] = answer;
                    }
                    goes_on.then_some(index)
                })
                .collect();
        }
        chunks
    }

    fn put_many(&self, _chunks: &[StorableChunk]) -> Result<()> {
        Err(Error::ReadOnly {
            store: self.name.clone(),
        })
    }

    fn flush(&self) -> Result<()> {
        Ok(())
    }

    fn stat(&self, id: ChunkId, form: ChunkForm) -> Result<Option<ChunkStat>> {
        for store in &self.stores {
            if let Some(stat) = store.stat(id, form)? {
                return Ok(Some(stat));
            }
        }
        Ok(None)
    }

    fn get_resident(&self, id: ChunkId, form: ChunkForm) -> Option<EncodedChunk> {
        self.stores.iter().find_map(|store| store.get_resident(id, form))
    }

    fn is_far(&self) -> bool {
        self.stores.iter().any(|store| store.is_far())
    }

    fn set_aside(&self, damaged: &EncodedChunk) -> Result<bool> {
        // Whichever holds just these bytes.
        for store in &self.stores {
            if store.set_aside(damaged)? {
                return Ok(true);
            }
        }
        Ok(false)
    }
}
