//! What lies in the packs: figures, chunks in order, a check of every byte.

use std::collections::BTreeMap;
use std::time::Duration;

use cairn_formats::{ChunkId, DomainId};

use super::files::PackFiles;
use super::lease::Ownership;
use super::read::ReadFault;
use super::{FOLDER, RemotePackStore, RemotePacks};
use crate::backend::remote::{Fault, lost};
use crate::pack::{ChunkKey, ChunkPlace, CompactReport, PackCheck, PackStat, Suspect};
use crate::{Prune, Result};

/// Bytes read at once while a pack is checked.
const CHECK_LEN: u64 = 16 << 20;

impl<F: PackFiles> Prune for RemotePackStore<F> {
    fn for_each_id(&self, visit: &mut dyn FnMut(ChunkId) -> Result<()>) -> Result<()> {
        let all = self.shared.known().in_order();
        all.into_iter().try_for_each(|(_, id)| visit(id))
    }

    fn remove_many(&self, ids: &[ChunkId]) -> Result<()> {
        self.take_away(ids)
    }

    fn remove_stale_temporaries(&self, age: Duration) -> Result<u64> {
        self.writable()?;
        let shared = self.shared.clone();
        let remove = async move {
            let remove = || shared.files.remove_stale(FOLDER, age);
            shared.patience.insist(remove).await.map_err(Fault::from)
        };
        self.ask(remove, "delete left-over temporary files")
    }
}

impl<F: PackFiles> RemotePacks for RemotePackStore<F> {
    fn pack_stats(&self) -> Result<Vec<PackStat>> {
        let known = self.shared.known();
        let mut stats: BTreeMap<u32, PackStat> = BTreeMap::new();
        for pack in known.packs() {
            let stat = PackStat {
                number: pack.slot,
                uuid: pack.uuid,
                bytes: pack.len,
                sealed: true,
                live_chunks: 0,
                live_bytes: 0,
                live_bytes_plain: 0,
            };
            stats.insert(pack.slot, stat);
        }
        for (place, _) in known.in_order() {
            if let Some(stat) = stats.get_mut(&place.slot) {
                stat.live_chunks += 1;
                stat.live_bytes += u64::from(place.len);
                stat.live_bytes_plain += u64::from(place.plain_len);
            }
        }
        Ok(stats.into_values().collect())
    }

    fn for_each_in_order(&self, visit: &mut dyn FnMut(ChunkKey, ChunkPlace) -> Result<()>) -> Result<()> {
        let all = self.shared.known().in_order();
        let domain = DomainId::default();
        all.into_iter()
            .try_for_each(|(place, id)| visit(ChunkKey { domain, id }, place.shown()))
    }

    fn check_packs(&self, go_on: &mut dyn FnMut(u64) -> bool) -> Result<PackCheck> {
        let action = "check a pack";
        let (packs, suspects) = {
            let known = self.shared.known();
            (known.packs().cloned().collect::<Vec<_>>(), known.suspects())
        };
        let mut check = PackCheck {
            suspects,
            ..PackCheck::default()
        };
        for pack in packs {
            let mut hasher = blake3::Hasher::new();
            let mut at = 0;
            while at < pack.end {
                let (shared, pack, start) = (self.shared.clone(), pack.clone(), at);
                let end = pack.end.min(at + CHECK_LEN);
                let read = self.workers.run(async move { shared.range(&pack, start, end).await });
                let bytes = match read {
                    Some(Ok(bytes)) => bytes,
                    // Somebody collects; its chunks are elsewhere.
                    Some(Err(ReadFault::Gone)) => break,
                    Some(Err(ReadFault::Failed(fault))) => return Err(fault.into_error(&self.shared.name, action)),
                    None => return Err(lost(&self.shared.name, action)),
                };
                hasher.update(&bytes);
                at += bytes.len() as u64;
                check.bytes += bytes.len() as u64;
                if !go_on(bytes.len() as u64) {
                    check.stopped = true;
                    return Ok(check);
                }
            }
            if at < pack.end {
                continue;
            }
            if !pack.name.contains(&*blake3::Hash::to_hex(&hasher.finalize())) {
                check.suspects.push(Suspect {
                    file: pack.name.to_string(),
                    what: format!("its {} bytes do not have the digest in its name", pack.end),
                });
            }
            check.packs += 1;
            check.records += pack.records;
        }
        Ok(check)
    }

    fn compact(&self, live_share_min: f64) -> Result<CompactReport> {
        self.compact_packs(live_share_min)
    }

    fn own(&self, take_over: bool) -> Result<Ownership<'_>> {
        self.take_lease(take_over)
    }
}
