//! Which chunks have been checked against their ids lately, so that reading checks each of them now and then, not each time.
//!
//! A fixed table without locks: a chunk has one slot, a newer one takes it over. What is forgotten is checked again; what
//! is remembered wrongly would need 88 equal bits of two digests. Hot path: one load.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use cairn_formats::{ChunkForm, ChunkId};

/// Slots of the table, 8 bytes each: 2 MiB.
const SLOTS: usize = 1 << 18;
/// Low bits of a slot are a time in minutes since the table was made, plus one; 0 is an empty slot.
const TIME_BITS: u32 = 24;

#[derive(Debug)]
pub(crate) struct Verified {
    slots: Box<[AtomicU64]>,
    begun: Instant,
    age_max: Duration,
}

impl Verified {
    /// - `age_max`: how long a check counts, in whole minutes.
    pub(crate) fn new(age_max: Duration) -> Self {
        Self {
            slots: (0..SLOTS).map(|_| AtomicU64::new(0)).collect(),
            begun: Instant::now(),
            age_max,
        }
    }

    /// Whether the chunk was checked in this form within the time that counts.
    pub(crate) fn is_fresh(&self, id: ChunkId, form: ChunkForm) -> bool {
        let (slot, print) = self.place(id, form);
        let entry = slot.load(Ordering::Relaxed);
        let at = entry & ((1 << TIME_BITS) - 1);
        entry >> TIME_BITS == print && at != 0 && self.minute().saturating_sub(at) < self.age_max.as_secs() / 60
    }

    /// The chunk has been checked now.
    pub(crate) fn remember(&self, id: ChunkId, form: ChunkForm) {
        let (slot, print) = self.place(id, form);
        slot.store(print << TIME_BITS | self.minute(), Ordering::Relaxed);
    }

    fn minute(&self) -> u64 {
        (self.begun.elapsed().as_secs() / 60 + 1).min((1 << TIME_BITS) - 1)
    }

    fn place(&self, id: ChunkId, form: ChunkForm) -> (&AtomicU64, u64) {
        let word = |at: usize| u64::from_le_bytes(id.as_bytes()[at..at + 8].try_into().expect("eight bytes"));
        // A chunk may lie in both forms, as two files.
        let slot = word(0) ^ u64::from(form == ChunkForm::Plain);
        (&self.slots[slot as usize % SLOTS], word(8) >> TIME_BITS)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_check_counts_for_this_chunk_in_this_form_for_its_time() {
        let table = Verified::new(Duration::from_secs(3600));
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
        let table = Verified::new(Duration::ZERO);
        table.remember(one, ChunkForm::Compressed);
        assert!(!table.is_fresh(one, ChunkForm::Compressed), "no time counts");
    }
}
