//! How much of the packs is still named, and which of them are worth writing anew.

use std::collections::BTreeMap;

use cairn_formats::{PACK_HEADER_LEN, RECORD_PREFIX_LEN_MAX};

use super::{LogPosition, PackEngine};
use crate::Result;

/// Bytes of a pack that a chunk takes besides its frame, about: prefix, rounding, entry of the footer.
const RECORD_COST: u64 = RECORD_PREFIX_LEN_MAX as u64 + 96;

/// Dead bytes for which a pack is not written anew, as a share of it.
const NOT_WORTH_IT: f64 = 0.01;

/// What of a pack is named.
#[derive(Clone, Copy, Default)]
pub(super) struct Usage {
    /// Bytes of frames, and how many.
    live: u64,
    chunks: u64,
}

impl Usage {
    /// Bytes of the pack that these frames take.
    pub(super) fn needed(&self) -> u64 {
        self.live + self.chunks * RECORD_COST + PACK_HEADER_LEN as u64
    }
}

impl PackEngine {
    /// What the locations name, per pack.
    pub(super) fn usage(&self) -> Result<BTreeMap<u32, Usage>> {
        let mut usage: BTreeMap<u32, Usage> = BTreeMap::new();
        self.locations.for_each(&mut |_, place| {
            let usage = usage.entry(place.pack).or_default();
            usage.live += u64::from(place.len);
            usage.chunks += 1;
            Ok(())
        })?;
        Ok(usage)
    }

    /// The share of living frames below which packs have to be written anew so that the dead bytes of all are at most a share
    /// of the living; `None` if they are. A pack still open that is due is sealed for it.
    ///
    /// - `commits_kept_from`: as [`super::CompactOptions::commits_kept_from`]; packs that it keeps are passed by.
    pub fn share_to_compact(&self, dead_share_max: f64, commits_kept_from: LogPosition) -> Result<Option<f64>> {
        self.settle_all()?;
        let usage = self.usage()?;
        let (pieces, rest) = {
            let snapshots = self.snapshots();
            (snapshots.needed_bytes(), snapshots.rest())
        };
        let kept_from = commits_kept_from.max(rest);
        let mut packs = Vec::new();
        let (mut dead_in_all, mut live_in_all) = (0, 0);
        for number in self.pack_numbers() {
            let Some(pack) = self.pack(number) else {
                continue;
            };
            let len = pack.file.len();
            let len = len.map_err(|error| self.unavailable("read a pack", error))?;
            let mut usage = usage.get(&number).copied().unwrap_or_default();
            // Nothing can be done about a pack whose commits are needed.
            if self.snapshots().has_commits_from(number, kept_from) {
                live_in_all += usage.live;
                continue;
            }
            usage.live += pieces.get(&number).copied().unwrap_or(0);
            let dead = len.saturating_sub(usage.needed());
            dead_in_all += dead;
            live_in_all += usage.live;
            packs.push((usage.live as f64 / len.max(1) as f64, number, dead, len));
        }
        packs.sort_unstable_by(|a, b| a.0.total_cmp(&b.0));
        let mut share = None;
        let open = self.open_number();
        for (live_share, number, dead, len) in packs {
            if dead_in_all as f64 <= dead_share_max * live_in_all as f64 || (dead as f64) < NOT_WORTH_IT * len as f64 {
                break;
            }
            dead_in_all -= dead;
            share = Some(live_share.next_up());
            if number == open {
                self.seal_open()?;
            }
        }
        Ok(share)
    }
}
