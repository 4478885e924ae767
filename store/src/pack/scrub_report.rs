//! What a scrub is told, and what it tells: of packs in a folder and of those behind a network alike.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use cairn_formats::ChunkId;

use crate::{Error, RateLimit, StoreName};

/// Longest wait for the rate limit between two questions whether to go on.
const PAUSE_MAX: Duration = Duration::from_millis(100);

/// Damages that a report names; all are counted.
const DAMAGES_MAX: usize = 100_000;

/// How packs are scrubbed.
#[derive(Clone, Debug)]
pub struct ScrubOptions {
    /// Bytes read a second, at most.
    pub rate: Option<Arc<RateLimit>>,
    /// Packs that were verified at or after this are passed by, in seconds since 1970 UTC.
    pub verified_before: u64,
    /// Only look: nothing is taken out or written.
    pub dry_run: bool,
    /// Threads that decode and hash; reading is one thread's.
    pub workers: usize,
}

impl Default for ScrubOptions {
    fn default() -> Self {
        Self {
            rate: None,
            verified_before: u64::MAX,
            dry_run: false,
            workers: 1,
        }
    }
}

/// What is wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum DamageKind {
    /// The frame of a chunk does not have its check sum, or is not the chunk of its name.
    Chunk,
    /// The frame of a chunk cannot be read.
    Unreadable,
    /// What stands in front of a chunk whose frame is whole.
    Head,
    /// A batch of the index, or a list of removed chunks.
    Record,
    /// The pack's first bytes.
    Header,
    /// The pack has no whole footer.
    Footer,
    /// Bytes that belong to no record.
    Digest,
}

impl DamageKind {
    /// In a word, as the label of a metric.
    pub fn word(self) -> &'static str {
        match self {
            Self::Chunk => "chunk",
            Self::Unreadable => "unreadable",
            Self::Head => "head",
            Self::Record => "record",
            Self::Header => "header",
            Self::Footer => "footer",
            Self::Digest => "digest",
        }
    }
}

/// What became of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Fate {
    /// It was only named.
    Named,
    /// The chunk was fetched from this store and written anew.
    Repaired(StoreName),
    /// The chunk was whole, and was written anew.
    Rewritten,
    /// The chunk is missing now: the next upload of it heals the store.
    Missing,
}

/// One damaged place.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Damage {
    /// File name of the pack.
    pub pack: String,
    /// Where in it the damaged part begins (of a record: its payload).
    pub offset: u64,
    /// The chunk, or of other records the digest that names them.
    pub id: Option<ChunkId>,
    /// What is wrong.
    pub what: DamageKind,
    /// What became of it.
    pub fate: Fate,
}

/// What a pass did.
#[derive(Debug, Default)]
pub struct ScrubReport {
    /// Packs that were read to their end.
    pub packs: usize,
    /// Bytes that were read.
    pub bytes: u64,
    /// Chunks that are the chunks of their names.
    pub chunks: u64,
    /// New damage, the first 100 000 places.
    pub damages: Vec<Damage>,
    /// All new damage.
    pub damaged: u64,
    /// Damaged records of chunks that nothing names: deleted ones, and what was quarantined before.
    pub unused: u64,
    /// Chunks that were damaged and are whole again.
    pub healed: u64,
    /// What kept chunks from being repaired, and notes from being taken.
    pub errors: Vec<Error>,
    /// Somebody wanted no more: the next pass goes on here.
    pub stopped: bool,
}

impl fmt::Display for Damage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (pack, what, offset) = (&self.pack, self.what.word(), self.offset);
        write!(f, "{pack}: the {what}")?;
        if let Some(id) = self.id {
            write!(f, " of {id}")?;
        }
        write!(f, " at byte {offset} is damaged: ")?;
        match &self.fate {
            Fate::Named => f.write_str("left"),
            Fate::Repaired(store) => write!(f, "repaired from {store}"),
            Fate::Rewritten => f.write_str("written anew"),
            Fate::Missing => f.write_str("taken out"),
        }
    }
}

impl ScrubReport {
    /// Counts a damage, and names it while there are not too many.
    pub(crate) fn damage(&mut self, damage: Damage) {
        metrics::counter!("store_scrub_damaged_total", "what" => damage.what.word()).increment(1);
        if matches!(damage.fate, Fate::Repaired(_) | Fate::Rewritten) {
            metrics::counter!("store_scrub_healed_total").increment(1);
            self.healed += 1;
        }
        self.damaged += 1;
        if self.damages.len() < DAMAGES_MAX {
            self.damages.push(damage);
        }
    }
}

impl ScrubReport {
    /// Counts bytes that were read, and waits until more may be. Returns whether to go on.
    pub(crate) fn read(&mut self, bytes: u64, options: &ScrubOptions, go_on: &mut dyn FnMut(u64) -> bool) -> bool {
        metrics::counter!("store_scrub_bytes_total").increment(bytes);
        self.bytes += bytes;
        let mut wait = match &options.rate {
            Some(rate) => rate.take(bytes as usize),
            None => Duration::ZERO,
        };
        let mut heard = bytes;
        loop {
            if !go_on(std::mem::take(&mut heard)) {
                self.stopped = true;
                return false;
            }
            if wait.is_zero() {
                return true;
            }
            let step = wait.min(PAUSE_MAX);
            std::thread::sleep(step);
            wait -= step;
        }
    }
}
