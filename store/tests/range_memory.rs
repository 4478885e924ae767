//! What a range read costs in memory: alone in its program, since it counts what the whole program allocates.

// A helper that fails is a test that fails.
#![allow(clippy::unwrap_used)]

use std::alloc::{GlobalAlloc, Layout, System};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use bytes::Bytes;
use cairn_formats::{
    Chunk, ChunkForm, ChunkIndex, ChunkSizes, Chunker, Dialect, DigestAlgorithm, FeatureFlags, IndexEncoder, Level,
};
use cairn_store::{
    ChunkStore as _, IndexedObject, ObjectChunks, PackOptions, PackStore, RangeOptions, RangeReads, SyncPolicy,
};

/// The system's allocator, which counts what it is asked for.
struct Counting;

static ALLOCATED: AtomicU64 = AtomicU64::new(0);

#[global_allocator]
static ALLOCATOR: Counting = Counting;

// SAFETY: every call goes to the system's allocator as it came.
#[allow(unsafe_code)]
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        ALLOCATED.fetch_add(layout.size() as u64, Ordering::Relaxed);
        unsafe { System.alloc(layout) }
    }
    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        ALLOCATED.fetch_add(layout.size() as u64, Ordering::Relaxed);
        unsafe { System.alloc_zeroed(layout) }
    }
    unsafe fn realloc(&self, at: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        ALLOCATED.fetch_add(size.saturating_sub(layout.size()) as u64, Ordering::Relaxed);
        unsafe { System.realloc(at, layout, size) }
    }
    unsafe fn dealloc(&self, at: *mut u8, layout: Layout) {
        unsafe { System.dealloc(at, layout) }
    }
}

const PAYLOAD: u64 = 1 << 20;

/// Goal: 1 MiB out of an incompressible object of 1 GiB costs no decoding and at most 1.1 times its bytes of memory.
/// Method: an object of `CAIRN_RANGE_MIB` (256 unless told) cut as casync does, every allocation of the program counted.
#[test]
fn a_range_costs_hardly_more_memory_than_its_bytes() {
    let mib: usize = std::env::var("CAIRN_RANGE_MIB").map_or(256, |text| text.parse().unwrap());
    let folder = tempfile::tempdir().unwrap();
    let options = PackOptions {
        sync: SyncPolicy::None,
        ..PackOptions::default()
    };
    let (store, _) = PackStore::open(folder.path(), options).unwrap();
    let (object, expected) = incompressible(&store, mib << 20);
    let reads = RangeReads::new(store, RangeOptions::default());
    let mut random = fastrand::Rng::with_seed(5);
    let mut worst = 0.0_f64;
    let (mut all, mut requests) = (0, 0);
    for n in 0..300 {
        let start = random.u64(..object.object_len() - PAYLOAD);
        let before = ALLOCATED.load(Ordering::Relaxed);
        let pieces: Vec<Bytes> = reads
            .read(Arc::clone(&object), start..start + PAYLOAD)
            .map(Result::unwrap)
            .collect();
        let allocated = ALLOCATED.load(Ordering::Relaxed) - before;
        // Pages and the memory that stays with the thread come with the first requests.
        if n >= 100 {
            worst = worst.max(allocated as f64 / PAYLOAD as f64);
            all += allocated;
            requests += 1;
        }
        let digest = DigestAlgorithm::default().id(&pieces.concat());
        assert_eq!(digest, expected(start), "at {start}");
    }
    let mean = all as f64 / (requests * PAYLOAD) as f64;
    println!(
        "{mib} MiB: {mean:.4} times the payload, at most {worst:.4}; {} chunks decoded",
        reads.decoded()
    );
    assert_eq!(reads.decoded(), 0);
    assert!(worst <= 1.1, "{worst}");
}

/// Stores noise that can be made again from any multiple of 1 MiB on; what tells the digest of a MiB of it.
fn incompressible(
    store: &PackStore,
    len: usize,
) -> (Arc<dyn ObjectChunks>, impl Fn(u64) -> cairn_formats::ChunkId + use<>) {
    fn block(n: u64) -> Vec<u8> {
        let mut bytes = vec![0; PAYLOAD as usize];
        fastrand::Rng::with_seed(n).fill(&mut bytes);
        bytes
    }
    let sizes = ChunkSizes::DEFAULT;
    let mut file = Vec::new();
    let mut index = IndexEncoder::start(FeatureFlags::blob(DigestAlgorithm::default()), sizes, &mut file);
    let mut chunker = Chunker::new(sizes, Dialect::default());
    let mut open = Vec::new();
    let mut put = |plain: Vec<u8>| {
        let chunk = Chunk::from_plain(DigestAlgorithm::default(), plain.into());
        index.push(chunk.id(), chunk.plain().len(), &mut file);
        store
            .put_many(&[chunk.encode(ChunkForm::Compressed, Level::new(1))])
            .unwrap();
    };
    for n in 0..len as u64 / PAYLOAD {
        let bytes = block(n);
        let mut rest = &bytes[..];
        while let Some(cut) = chunker.cut(rest) {
            open.extend_from_slice(&rest[..cut]);
            rest = &rest[cut..];
            put(std::mem::take(&mut open));
        }
        open.extend_from_slice(rest);
    }
    if !open.is_empty() {
        put(open);
    }
    store.flush().unwrap();
    index.finish(&mut file);
    let object = Arc::new(IndexedObject::new(ChunkIndex::parse(file.into()).unwrap()));
    let expected = |start: u64| {
        let two = [block(start / PAYLOAD), block(start / PAYLOAD + 1)].concat();
        let from = (start % PAYLOAD) as usize;
        DigestAlgorithm::default().id(&two[from..from + PAYLOAD as usize])
    };
    (object, expected)
}
