//! What lies in the packs: figures, and chunks in order.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use cairn_formats::{ChunkId, DomainId};

use super::files::PackFiles;
use super::lease::Ownership;
use super::{FOLDER, RemotePackStore, RemotePacks};
use crate::backend::remote::Fault;
use crate::pack::{
    ChunkKey, ChunkPlace, CompactReport, PackStat, RecompressOptions, RecompressReport, ScrubOptions, ScrubReport,
    ScrubState, Suspect,
};
use crate::{ChunkStore, Prune, Result};

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

    fn suspects(&self) -> Vec<Suspect> {
        self.shared.known().suspects()
    }

    fn scrub(
        &self,
        options: &ScrubOptions,
        sources: &[Arc<dyn ChunkStore>],
        state: &dyn ScrubState,
        go_on: &mut dyn FnMut(u64) -> bool,
    ) -> Result<ScrubReport> {
        self.scrub_packs(options, sources, state, go_on)
    }

    fn compact(&self, live_share_min: f64) -> Result<CompactReport> {
        self.compact_packs(live_share_min)
    }

    fn recompress(
        &self,
        options: &RecompressOptions,
        pace: &mut dyn FnMut(u64) -> Result<()>,
    ) -> Result<RecompressReport> {
        self.recompress_packs(options, pace)
    }

    fn own(&self, take_over: bool) -> Result<Ownership<'_>> {
        self.take_lease(take_over)
    }
}
