//! Slabs: pieces of remote packs of 8 MiB, kept in memory and, where a folder is given, on a disk.
//!
//! A slab is fetched once however many want it. Reading forwards, up to four come with one request; a few chunks from the
//! middle of nowhere are fetched by themselves, and their slab once it is wanted again. What is kept on the disk carries its
//! digest: a torn or flipped file is none.

use std::collections::{HashMap, HashSet};
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bytes::Bytes;
use cairn_formats::PackUuid;
use tokio::sync::{Semaphore, watch};

use super::footers::keep_file;
use super::known::PackObject;

/// Bytes of a slab; the last of a pack is shorter.
pub(super) const SLAB_LEN: u64 = 8 << 20;
/// Slabs that one request brings at most, which begins a run of as many at a multiple of it.
const RUN_SLABS: u64 = 4;
/// Slabs on their way at once, over all readers.
const SLABS_COMING: u32 = 8;
/// From so many wanted bytes on, a slab is fetched whole.
const WORTH_LEN: u64 = 1 << 20;
/// Slabs remembered as asked for once.
const TOUCHED_MAX: usize = 1 << 16;

/// What is here of the packs.
#[derive(Debug)]
pub(super) struct Slabs {
    state: Mutex<State>,
    memory_len: usize,
    disk: Option<SlabFiles>,
    pub(super) room: Semaphore,
}

#[derive(Debug, Default)]
struct State {
    slabs: HashMap<Key, Slab>,
    /// Bytes of those that are here.
    len: usize,
    clock: u64,
    touched: HashSet<Key>,
}

/// Slot of a pack, number of a slab in it.
type Key = (u32, u64);

#[derive(Debug)]
enum Slab {
    Here { bytes: Bytes, used: u64 },
    Coming(watch::Receiver<Option<Bytes>>),
}

/// How a slab may be had.
pub(super) enum Ask {
    /// It is here.
    Here(Bytes),
    /// Somebody fetches it. Once the sender is gone without bytes, ask again.
    Coming(watch::Receiver<Option<Bytes>>),
    /// The caller fetches these, one after the other, and tells.
    Fetch(Vec<Coming>),
    /// Better the wanted bytes alone.
    Alone,
}

/// A slab that the caller has promised to fetch; dropped, somebody else may.
pub(super) struct Coming {
    pub(super) number: u64,
    tell: watch::Sender<Option<Bytes>>,
}

impl Slabs {
    /// - `memory_len`: bytes kept in memory; `disk`: a folder, and bytes kept there.
    pub(super) fn new(memory_len: usize, disk: Option<(PathBuf, u64)>) -> Self {
        Self {
            state: Mutex::default(),
            memory_len,
            disk: disk.map(|(folder, len_max)| SlabFiles::new(folder, len_max)),
            room: Semaphore::new(SLABS_COMING as usize),
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// - `wanted`: bytes of it that the caller will use.
    pub(super) fn ask(&self, pack: &PackObject, number: u64, wanted: u64) -> Ask {
        let mut state = self.lock();
        let key = (pack.slot, number);
        if let Some(ask) = state.has(key) {
            return ask;
        }
        // Whoever reads forwards comes from the slab before, or to the first one.
        let before = number.checked_sub(1).map(|before| state.is_known((pack.slot, before)));
        let forwards = before == Some(true);
        if number > 0 && !forwards && wanted < WORTH_LEN && self.disk.is_none() && state.touched.insert(key) {
            if state.touched.len() > TOUCHED_MAX {
                state.touched.clear();
            }
            return Ask::Alone;
        }
        let slabs = pack.end.div_ceil(SLAB_LEN);
        let end = match forwards {
            true => (number / RUN_SLABS + 1) * RUN_SLABS,
            false => number + 1,
        };
        let mut coming = Vec::new();
        for number in number..end.min(slabs).max(number + 1) {
            let key = (pack.slot, number);
            if state.is_known(key) {
                break;
            }
            let (tell, told) = watch::channel(None);
            state.slabs.insert(key, Slab::Coming(told));
            coming.push(Coming { number, tell });
        }
        Ask::Fetch(coming)
    }

    /// A slab that is in memory.
    pub(super) fn resident(&self, slot: u32, number: u64) -> Option<Bytes> {
        match self.lock().has((slot, number)) {
            Some(Ask::Here(bytes)) => Some(bytes),
            _ => None,
        }
    }

    /// A promised slab is here.
    pub(super) fn arrived(&self, pack: &PackObject, coming: Coming, bytes: Bytes) {
        let mut state = self.lock();
        state.clock += 1;
        let used = state.clock;
        state.len += bytes.len();
        let slab = Slab::Here {
            bytes: bytes.clone(),
            used,
        };
        if let Some(Slab::Here { bytes, .. }) = state.slabs.insert((pack.slot, coming.number), slab) {
            state.len -= bytes.len();
        }
        while state.len > self.memory_len && state.drop_oldest(used) {}
        drop(state);
        // Those who wait have it even if it has no room here.
        coming.tell.send_replace(Some(bytes));
    }

    /// What is here of a slab is not right.
    pub(super) fn forget(&self, pack: &PackObject, number: u64) {
        let mut state = self.lock();
        if let Some(Slab::Here { bytes, .. }) = state.slabs.remove(&(pack.slot, number)) {
            state.len -= bytes.len();
        }
        drop(state);
        if let Some(disk) = &self.disk {
            disk.remove(pack.uuid, number);
        }
    }

    /// The disk's copies, if there is a disk for them.
    pub(super) fn disk(&self) -> Option<&SlabFiles> {
        self.disk.as_ref()
    }
}

impl State {
    fn has(&mut self, key: Key) -> Option<Ask> {
        self.clock += 1;
        let clock = self.clock;
        match self.slabs.get_mut(&key)? {
            Slab::Here { bytes, used } => {
                *used = clock;
                Some(Ask::Here(bytes.clone()))
            }
            // One whose fetcher gave up is nobody's.
            Slab::Coming(told) => match told.has_changed() {
                Ok(_) => Some(Ask::Coming(told.clone())),
                Err(_) => None,
            },
        }
    }

    fn is_known(&self, key: Key) -> bool {
        match self.slabs.get(&key) {
            Some(Slab::Here { .. }) => true,
            Some(Slab::Coming(told)) => told.has_changed().is_ok(),
            None => false,
        }
    }

    /// Drops what was used longest ago, but not what was used now.
    fn drop_oldest(&mut self, now: u64) -> bool {
        let here = self.slabs.iter().filter_map(|(&key, slab)| match slab {
            Slab::Here { used, .. } => Some((*used, key)),
            Slab::Coming(_) => None,
        });
        let Some((used, key)) = here.min() else {
            return false;
        };
        if used == now {
            return false;
        }
        if let Some(Slab::Here { bytes, .. }) = self.slabs.remove(&key) {
            self.len -= bytes.len();
        }
        true
    }
}

/// Slabs as files: `<uuid of the pack>-<number>.slab`, the bytes and their BLAKE3.
#[derive(Clone, Debug)]
pub(super) struct SlabFiles {
    shared: Arc<Files>,
}

#[derive(Debug)]
struct Files {
    folder: PathBuf,
    len_max: u64,
    /// Held while there is written and made room.
    writing: Mutex<()>,
}

const DIGEST_LEN: usize = 32;

impl SlabFiles {
    fn new(folder: PathBuf, len_max: u64) -> Self {
        Self {
            shared: Arc::new(Files {
                folder,
                len_max,
                writing: Mutex::new(()),
            }),
        }
    }

    fn path(&self, pack: PackUuid, number: u64) -> PathBuf {
        self.shared.folder.join(format!("{pack}-{number}.slab"))
    }

    /// The bytes of a slab, if they are here, whole, and as many as they should be. Waits for the disk.
    pub(super) fn get(&self, pack: PackUuid, number: u64, len: usize) -> Option<Bytes> {
        let bytes = Bytes::from(fs::read(self.path(pack, number)).ok()?);
        let at = bytes.len().checked_sub(DIGEST_LEN).filter(|&at| at == len)?;
        let right = digest(pack, number, &bytes[..at]) == bytes[at..];
        right.then(|| bytes.slice(..at))
    }

    /// Keeps a slab. Waits for the disk; what cannot be kept is passed by.
    pub(super) fn put(&self, pack: PackUuid, number: u64, bytes: &[u8]) {
        let _one = self.shared.writing.lock().unwrap_or_else(PoisonError::into_inner);
        let file_len = (bytes.len() + DIGEST_LEN) as u64;
        // A folder that is not there has room.
        let _ = make_room(&self.shared.folder, self.shared.len_max.saturating_sub(file_len));
        let _ = keep_file(&self.path(pack, number), &[bytes, &digest(pack, number, bytes)]);
    }

    fn remove(&self, pack: PackUuid, number: u64) {
        // What is not there need not go.
        let _ = fs::remove_file(self.path(pack, number));
    }
}

/// A slab that was taken for another would have another digest.
fn digest(pack: PackUuid, number: u64, bytes: &[u8]) -> [u8; DIGEST_LEN] {
    let mut hasher = blake3::Hasher::new();
    hasher.update(&pack.0).update(&number.to_le_bytes()).update(bytes);
    *hasher.finalize().as_bytes()
}

/// Removes slabs, those written longest ago first, until all together have at most `len_max` bytes.
fn make_room(folder: &Path, len_max: u64) -> std::io::Result<()> {
    let mut files = Vec::new();
    for entry in fs::read_dir(folder)? {
        let entry = entry?;
        if entry.path().extension().is_some_and(|ending| ending == "slab") {
            let meta = entry.metadata()?;
            files.push((meta.modified()?, meta.len(), entry.path()));
        }
    }
    files.sort();
    let mut len: u64 = files.iter().map(|(_, len, _)| len).sum();
    for (_, file_len, path) in files {
        if len <= len_max {
            break;
        }
        fs::remove_file(path)?;
        len -= file_len;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use cairn_formats::PackFooter;

    fn pack(slabs: u64) -> Arc<PackObject> {
        let mut known = super::super::known::Known::default();
        let footer = PackFooter::new(Vec::new(), [0; 32], slabs * SLAB_LEN);
        let pack = known.add(
            "packs/x",
            PackUuid([1; 16]),
            slabs * SLAB_LEN + 100,
            &footer,
            true,
            false,
        );
        pack.unwrap()
    }

    fn fetched(slabs: &Slabs, pack: &PackObject, number: u64, wanted: u64) -> Vec<u64> {
        match slabs.ask(pack, number, wanted) {
            Ask::Fetch(coming) => {
                let numbers = coming.iter().map(|coming| coming.number).collect();
                for one in coming {
                    slabs.arrived(pack, one, Bytes::from_static(b"slab"));
                }
                numbers
            }
            Ask::Here(_) => vec![],
            Ask::Coming(_) | Ask::Alone => vec![u64::MAX],
        }
    }

    #[test]
    fn whoever_reads_forwards_gets_ever_more_at_once() {
        let (slabs, pack) = (Slabs::new(1 << 20, None), pack(10));
        let runs: Vec<_> = (0..10).map(|number| fetched(&slabs, &pack, number, 100)).collect();
        let brought: Vec<_> = runs.iter().filter(|run| !run.is_empty()).collect();
        assert_eq!(brought, [&vec![0], &vec![1, 2, 3], &vec![4, 5, 6, 7], &vec![8, 9]]);
    }

    #[test]
    fn a_chunk_from_the_middle_is_fetched_alone_and_its_slab_the_second_time() {
        let (slabs, pack) = (Slabs::new(1 << 20, None), pack(10));
        assert!(matches!(slabs.ask(&pack, 5, 100), Ask::Alone));
        assert_eq!(fetched(&slabs, &pack, 5, 100), [5]);
        assert_eq!(fetched(&slabs, &pack, 8, WORTH_LEN), [8]);
    }

    #[test]
    fn what_nobody_fetches_any_more_is_asked_for_anew() {
        let (slabs, pack) = (Slabs::new(1 << 20, None), pack(1));
        let Ask::Fetch(coming) = slabs.ask(&pack, 0, 1) else {
            panic!("nobody has it");
        };
        assert!(matches!(slabs.ask(&pack, 0, 1), Ask::Coming(_)));
        drop(coming);
        assert_eq!(fetched(&slabs, &pack, 0, 1), [0]);
    }

    #[test]
    fn memory_is_bounded_and_keeps_what_was_used_last() {
        let (slabs, pack) = (Slabs::new(9, None), pack(10));
        for number in [0, 8, 9] {
            fetched(&slabs, &pack, number, WORTH_LEN);
        }
        let here: Vec<_> = (0..10)
            .filter(|&number| slabs.resident(pack.slot, number).is_some())
            .collect();
        assert_eq!(here, [8, 9]);
        slabs.forget(&pack, 9);
        assert!(slabs.resident(pack.slot, 9).is_none());
    }

    /// Goal: what a crash or a disk has done to the cache is never served.
    #[test]
    fn torn_flipped_and_strange_files_are_no_slabs() {
        let folder = tempfile::tempdir().unwrap();
        let files = SlabFiles::new(folder.path().join("slabs"), 10_000);
        let pack = PackUuid([3; 16]);
        files.put(pack, 1, b"bytes of a slab");
        let path = files.path(pack, 1);
        let good = fs::read(&path).unwrap();
        assert_eq!(files.get(pack, 1, 15).as_deref(), Some(&b"bytes of a slab"[..]));
        assert_eq!(files.get(pack, 1, 14), None);
        assert_eq!(files.get(pack, 2, 15), None);
        fs::copy(&path, files.path(pack, 2)).unwrap();
        assert_eq!(files.get(pack, 2, 15), None, "of another slab");
        for at in 0..good.len() {
            let mut bad = good.clone();
            bad[at] ^= 4;
            fs::write(&path, &bad).unwrap();
            assert_eq!(files.get(pack, 1, 15), None, "byte {at}");
            fs::write(&path, &good[..at]).unwrap();
            assert_eq!(files.get(pack, 1, 15), None, "torn at {at}");
        }
        for number in 0..400 {
            files.put(pack, number, &[0; 68]);
        }
        let len: u64 = fs::read_dir(folder.path().join("slabs"))
            .unwrap()
            .map(|entry| entry.unwrap().metadata().unwrap().len())
            .sum();
        assert_eq!(len, 10_000);
    }
}
