//! Several copies of one store, of which any that works may answer (`a|b`).
//!
//! The member that answered last is asked first; after an error the next one is, and stays first. Members are meant to be
//! equal, but one may lag behind: a chunk is missing only when every member says so. While a member that might have it does
//! not answer, the answer is that member's error, never "missing" (desync takes the first member's word). Reading only:
//! writing to one member would make them differ.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use cairn_formats::{ChunkForm, ChunkId, EncodedChunk, StorableChunk};

use crate::{ChunkStat, ChunkStore, Error, Result, StoreName};

/// Stores that hold the same chunks.
#[derive(Debug)]
pub struct FailoverGroup {
    name: StoreName,
    members: Vec<Arc<dyn ChunkStore>>,
    /// The member to ask first.
    active: AtomicUsize,
}

impl FailoverGroup {
    /// A group of these members, the first asked first. Without any, every chunk is missing.
    pub fn new(members: Vec<Arc<dyn ChunkStore>>) -> Self {
        let names: Vec<String> = members.iter().map(|member| member.name().to_string()).collect();
        Self {
            name: StoreName::new(names.join("|")),
            members,
            active: AtomicUsize::new(0),
        }
    }

    /// The members with their numbers, the active one first.
    fn in_turn(&self) -> impl Iterator<Item = (usize, &Arc<dyn ChunkStore>)> {
        let first = self.active.load(Ordering::Relaxed);
        let count = self.members.len();
        (0..count).map(move |step| {
            let number = (first + step) % count;
            (number, &self.members[number])
        })
    }

    /// Member `number` failed: the next one is asked first from now on, unless another thread has moved on already.
    fn failed(&self, number: usize) {
        let next = (number + 1) % self.members.len();
        let _ = self
            .active
            .compare_exchange(number, next, Ordering::Relaxed, Ordering::Relaxed);
    }

    fn missing(&self, id: ChunkId) -> Error {
        Error::Missing {
            id,
            store: self.name.clone(),
        }
    }
}

#[deny(clippy::missing_trait_methods)]
impl ChunkStore for FailoverGroup {
    fn name(&self) -> &StoreName {
        &self.name
    }

    fn has_many(&self, ids: &[ChunkId]) -> Result<Vec<bool>> {
        let mut has = vec![false; ids.len()];
        let mut open: Vec<usize> = (0..ids.len()).collect();
        let mut failure = None;
        for (number, member) in self.in_turn() {
            if open.is_empty() {
                break;
            }
            let asked: Vec<ChunkId> = open.iter().map(|&index| ids[index]).collect();
            match member.has_many(&asked) {
                Ok(answers) => {
                    for (&index, answer) in open.iter().zip(answers) {
                        has[index] = answer;
                    }
                    open.retain(|&index| !has[index]);
                }
                Err(error) => {
                    self.failed(number);
                    failure.get_or_insert(error);
                }
            }
        }
        match failure {
            Some(error) if !open.is_empty() => Err(error),
            _ => Ok(has),
        }
    }

    fn get_many(&self, ids: &[ChunkId]) -> Vec<Result<EncodedChunk>> {
        let mut chunks: Vec<Result<EncodedChunk>> = ids.iter().map(|&id| Err(self.missing(id))).collect();
        let mut open: Vec<usize> = (0..ids.len()).collect();
        for (number, member) in self.in_turn() {
            if open.is_empty() {
                break;
            }
            let asked: Vec<ChunkId> = open.iter().map(|&index| ids[index]).collect();
            for (&index, answer) in open.iter().zip(member.get_many(&asked)) {
                match &answer {
                    Err(Error::Missing { .. }) => continue,
                    // One damaged chunk says nothing about the rest of this member.
                    Ok(_) | Err(Error::Corrupt { .. }) => {}
                    Err(_) => self.failed(number),
                }
                // The first member's error is the one worth telling, unless a later member has the chunk.
                if answer.is_ok() || matches!(chunks[index], Err(Error::Missing { .. })) {
                    chunks[index] = answer;
                }
            }
            open.retain(|&index| chunks[index].is_err());
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
        let mut failure = None;
        for (number, member) in self.in_turn() {
            match member.stat(id, form) {
                Ok(Some(stat)) => return Ok(Some(stat)),
                Ok(None) => {}
                Err(error) => {
                    self.failed(number);
                    failure.get_or_insert(error);
                }
            }
        }
        failure.map_or(Ok(None), Err)
    }

    fn get_resident(&self, id: ChunkId, form: ChunkForm) -> Option<EncodedChunk> {
        self.in_turn().find_map(|(_, member)| member.get_resident(id, form))
    }

    fn is_far(&self) -> bool {
        self.in_turn().any(|(_, member)| member.is_far())
    }

    fn set_aside(&self, damaged: &EncodedChunk) -> Result<bool> {
        // Whichever holds just these bytes.
        for (_, member) in self.in_turn() {
            if member.set_aside(damaged)? {
                return Ok(true);
            }
        }
        Ok(false)
    }
}
