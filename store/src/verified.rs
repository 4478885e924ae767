//! Which chunks have been checked against their ids lately, so that reading checks each of them now and then, not each time.
//!
//! A fixed table without locks: a chunk has a group of four slots, and when all are taken a newer chunk takes one over (with
//! single slots, two hot chunks that share one would push each other out for ever). What is forgotten is checked again;
//! what is remembered wrongly would need 57 equal bits of two digests. Hot path: four loads of one cache line.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use cairn_formats::{ChunkForm, ChunkId};

/// Groups of the table, 32 bytes each: 4 MiB.
const GROUPS: usize = 1 << 17;
const GROUP_LEN: usize = 4;
/// Low bits of a slot are a time in minutes since the table was made, plus one; 0 is an empty slot.
const TIME_BITS: u32 = 24;
const TIME: u64 = (1 << TIME_BITS) - 1;

/// Remembers, for a time, which chunks were found to be what their ids say. 4 MiB.
#[derive(Debug)]
pub struct VerifiedChunks {
    groups: Box<[[AtomicU64; GROUP_LEN]]>,
    begun: Instant,
    age_max: Duration,
}

impl VerifiedChunks {
    /// Nothing was checked yet.
    ///
    /// - `age_max`: how long a check counts, in whole minutes.
    pub fn new(age_max: Duration) -> Self {
        Self {
            groups: (0..GROUPS).map(|_| [const { AtomicU64::new(0) }; GROUP_LEN]).collect(),
            begun: Instant::now(),
            age_max,
        }
    }

    /// Whether the chunk was checked in this form within the time that counts.
    pub fn is_fresh(&self, id: ChunkId, form: ChunkForm) -> bool {
        let (group, print) = self.place(id, form);
        let entry = group
            .iter()
            .map(|slot| slot.load(Ordering::Relaxed))
            .find(|entry| entry >> TIME_BITS == print && entry & TIME != 0);
        entry.is_some_and(|entry| self.minute().saturating_sub(entry & TIME) < self.age_max.as_secs() / 60)
    }

    /// The chunk has been checked now.
    pub fn remember(&self, id: ChunkId, form: ChunkForm) {
        let (group, print) = self.place(id, form);
        let is_ours = |slot: &&AtomicU64| {
            let entry = slot.load(Ordering::Relaxed);
            entry >> TIME_BITS == print || entry & TIME == 0
        };
        // Any slot will do when all are taken, if only it is not the same for all chunks of the group.
        let slot = group.iter().find(is_ours).unwrap_or(&group[print as usize % GROUP_LEN]);
        slot.store(print << TIME_BITS | self.minute(), Ordering::Relaxed);
    }

    fn minute(&self) -> u64 {
        (self.begun.elapsed().as_secs() / 60 + 1).min(TIME)
    }

    fn place(&self, id: ChunkId, form: ChunkForm) -> (&[AtomicU64; GROUP_LEN], u64) {
        let word = |at: usize| u64::from_le_bytes(id.as_bytes()[at..at + 8].try_into().expect("eight bytes"));
        // A chunk may lie in both forms, as two files.
        let group = word(0) ^ u64::from(form == ChunkForm::Plain);
        (&self.groups[group as usize % GROUPS], word(8) >> TIME_BITS)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_check_counts_for_this_chunk_in_this_form_for_its_time() {
        let table = VerifiedChunks::new(Duration::from_secs(3600));
        let (one, other) = (ChunkId::from_bytes([1; 32]), ChunkId::from_bytes([2; 32]));
        assert!(!table.is_fresh(one, ChunkForm::Compressed));
        assert!(
            !table.is_fresh(ChunkId::from_bytes([0; 32]), ChunkForm::Compressed),
            "an empty slot is no check"
        );
        table.remember(one, ChunkForm::Compressed);
        assert!(table.is_fresh(one, ChunkForm::Compressed));
        assert!(!table.is_fresh(one, ChunkForm::Plain));
        assert!(!table.is_fresh(other, ChunkForm::Compressed));
        // Four chunks of one group stay; a fifth takes the place of one.
        let of_group = |last: u8| ChunkId::from_bytes(std::array::from_fn(|at| if at < 8 { 9 } else { last }));
        (10..15).for_each(|last| table.remember(of_group(last), ChunkForm::Compressed));
        let stayed = (10..15)
            .filter(|&last| table.is_fresh(of_group(last), ChunkForm::Compressed))
            .count();
        assert_eq!(stayed, 4);
        let table = VerifiedChunks::new(Duration::ZERO);
        table.remember(one, ChunkForm::Compressed);
        assert!(!table.is_fresh(one, ChunkForm::Compressed), "no time counts");
    }
}
