//! What lies in the packs: sums a pack, the chunks in the order of the disk, and a check of every byte.

use std::collections::BTreeMap;

use cairn_formats::{PackEntry, PackUuid, RecordKind};

use super::log::pack_name;
use super::recover::in_order;
use super::{ChunkKey, ChunkPlace, Pack, PackEngine, Suspect};
use crate::Result;

/// Bytes read at once while a pack is checked.
const CHECK_LEN: u64 = 1 << 20;

/// Chunks looked up together.
const LOOKUP_CHUNKS: usize = 4096;

/// One pack in figures.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PackStat {
    /// Its place in the log.
    pub number: u32,
    /// Its name.
    pub uuid: PackUuid,
    /// Bytes of its file.
    pub bytes: u64,
    /// It has its footer.
    pub sealed: bool,
    /// Chunks in it that count.
    pub live_chunks: u64,
    /// Bytes of their frames.
    pub live_bytes: u64,
    /// Bytes of the chunks themselves.
    pub live_bytes_plain: u64,
}

/// What a check of the packs found.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PackCheck {
    /// Packs that were read.
    pub packs: usize,
    /// Their bytes.
    pub bytes: u64,
    /// Records that were read and agree with their footers.
    pub records: u64,
    /// What is not as it was written.
    pub suspects: Vec<Suspect>,
    /// Somebody wanted no more.
    pub stopped: bool,
}

impl PackEngine {
    /// The packs in figures, in the order of their numbers.
    pub fn pack_stats(&self) -> Result<Vec<PackStat>> {
        let mut stats = BTreeMap::new();
        for number in self.pack_numbers() {
            let Some(pack) = self.pack(number) else { continue };
            let stat = PackStat {
                number,
                uuid: pack.uuid,
                bytes: self.pack_len(&pack)?,
                sealed: self.footer(&pack)?.is_some(),
                live_chunks: 0,
                live_bytes: 0,
                live_bytes_plain: 0,
            };
            stats.insert(number, stat);
        }
        self.locations().for_each(&mut |_, place| {
            // A pack that was begun since the list was made is left out.
            if let Some(stat) = stats.get_mut(&place.pack) {
                stat.live_chunks += 1;
                stat.live_bytes += u64::from(place.len);
                stat.live_bytes_plain += u64::from(place.plain_len);
            }
            Ok(())
        })?;
        Ok(stats.into_values().collect())
    }

    /// Visits every chunk in the order in which they lie, until an error, which is returned. One that is moved meanwhile may
    /// come twice, one that is put meanwhile not at all. Memory: the entries of one pack.
    pub fn for_each_in_order(&self, visit: &mut dyn FnMut(ChunkKey, ChunkPlace) -> Result<()>) -> Result<()> {
        let mut done = None;
        // Asked anew each time: what is moved goes to later packs.
        while let Some(number) = self.pack_numbers().into_iter().find(|&number| Some(number) > done) {
            done = Some(number);
            let Some(pack) = self.pack(number) else { continue };
            let mut chunks = match self.footer(&pack)? {
                Some(footer) => {
                    let entries = in_order(footer.entries).into_iter();
                    let chunks = entries.filter(|entry| entry.kind == RecordKind::Chunk);
                    chunks
                        .map(|entry| (key_of(&entry), ChunkPlace::of(number, &entry)))
                        .collect()
                }
                None => self.places_in(number)?,
            };
            for chunks in chunks.chunks_mut(LOOKUP_CHUNKS) {
                let keys: Vec<ChunkKey> = chunks.iter().map(|(key, _)| *key).collect();
                let places = self.locations().find_many(&keys)?;
                for ((key, place), now) in chunks.iter().zip(places) {
                    if now.is_some_and(|now| now.is_at(place.pack, place.offset)) {
                        visit(*key, *place)?;
                    }
                }
            }
        }
        Ok(())
    }

    /// Places in a pack that has no footer yet, in order.
    fn places_in(&self, number: u32) -> Result<Vec<(ChunkKey, ChunkPlace)>> {
        let mut places = Vec::new();
        self.locations().for_each(&mut |key, place| {
            if place.pack == number {
                places.push((key, place));
            }
            Ok(())
        })?;
        places.sort_unstable_by_key(|(_, place)| place.offset);
        Ok(places)
    }

    /// Reads every byte of the sealed packs: each footer's digest, and its entries against the records themselves, which is
    /// all that an index of the store could be made from.
    ///
    /// - `go_on`: hears of bytes that were read; `false` ends the check.
    pub fn check_packs(&self, go_on: &mut dyn FnMut(u64) -> bool) -> Result<PackCheck> {
        let mut check = PackCheck::default();
        for number in self.pack_numbers() {
            let Some(pack) = self.pack(number) else { continue };
            let Some(footer) = self.footer(&pack)? else { continue };
            let mut suspect = |what: String| {
                let file = pack_name(pack.number, pack.uuid);
                check.suspects.push(Suspect { file, what });
            };
            let mut hasher = blake3::Hasher::new();
            let mut at = 0;
            while at < footer.start {
                let bytes = self.read_range(&pack, at, footer.start.min(at + CHECK_LEN))?;
                if bytes.is_empty() {
                    break;
                }
                hasher.update(&bytes);
                at += bytes.len() as u64;
                check.bytes += bytes.len() as u64;
                if !go_on(bytes.len() as u64) {
                    check.stopped = true;
                    return Ok(check);
                }
            }
            if *hasher.finalize().as_bytes() != footer.root {
                suspect(format!(
                    "its {} bytes do not have the digest in its footer",
                    footer.start
                ));
            }
            let records = self.records(&pack, footer.start)?;
            let named = in_order(footer.entries);
            for entry in difference(&named, &records) {
                let id = entry.id;
                let at = entry.offset;
                suspect(format!("its footer names {id} at byte {at}, where that record is not"));
            }
            for entry in difference(&records, &named) {
                let id = entry.id;
                let at = entry.offset;
                suspect(format!(
                    "the record of {id} at byte {at} is not the one that its footer names"
                ));
            }
            check.packs += 1;
            check.records += records.len() as u64;
        }
        Ok(check)
    }

    pub(super) fn pack_len(&self, pack: &Pack) -> Result<u64> {
        let len = pack.file.len();
        len.map_err(|error| self.unavailable("read a pack", error))
    }
}

fn key_of(entry: &PackEntry) -> ChunkKey {
    ChunkKey {
        domain: entry.domain,
        id: entry.id,
    }
}

/// Entries of `a` that are not in `b`; both in order of their offsets.
fn difference<'a>(a: &'a [PackEntry], b: &'a [PackEntry]) -> impl Iterator<Item = &'a PackEntry> {
    a.iter().filter(
        |entry| match b.binary_search_by_key(&entry.offset, |other| other.offset) {
            Ok(found) => b[found] != **entry,
            Err(_) => true,
        },
    )
}
