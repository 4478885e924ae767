//! The HTTP store and index client against real servers (nginx, desync) and one that lies, cuts and stalls.
//! Groups and chains of stores are here too: what matters about them is what they make of failing members.

// The lint spares test functions only, not what they call.
#![allow(clippy::unwrap_used)]

mod chunks;
mod faults;
mod indexes;
mod servers;
mod together;

use std::error::Error as _;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use cairn_formats::{Chunk, ChunkForm, ChunkId, DigestAlgorithm, Level, StorableChunk};
use cairn_store::{ChunkStore, Error, HttpLocation, HttpOptions, HttpStore, Proxy};

/// Options for tests: no proxy from the environment, pauses too short to notice.
fn quick() -> HttpOptions {
    HttpOptions {
        proxy: Proxy::Direct,
        error_retry_base_interval: Duration::from_micros(1),
        ..HttpOptions::default()
    }
}

fn open(url: &str, options: HttpOptions) -> HttpStore {
    try_open(url, options).unwrap()
}

fn try_open(url: &str, options: HttpOptions) -> cairn_store::Result<HttpStore> {
    HttpStore::open(&HttpLocation::parse(url).unwrap(), ChunkForm::Compressed, options)
}

/// Chunks of a few kilobytes that differ by `seed` and position.
fn chunks(seed: u8, count: usize) -> Vec<Chunk> {
    let plain = |number: usize| {
        let text: String = (0..500).map(|line| format!("{seed} {number} {line}\n")).collect();
        Bytes::from(text)
    };
    (0..count)
        .map(|number| Chunk::from_plain(DigestAlgorithm::Sha512_256, plain(number)))
        .collect()
}

fn encoded(chunks: &[Chunk], form: ChunkForm) -> Vec<StorableChunk> {
    chunks.iter().map(|chunk| chunk.encode(form, Level::DEFAULT)).collect()
}

fn ids(chunks: &[Chunk]) -> Vec<ChunkId> {
    chunks.iter().map(Chunk::id).collect()
}

/// Reads and proves chunks.
fn read(store: &dyn ChunkStore, chunks: &[Chunk]) {
    let found = store.get_many(&ids(chunks));
    assert_eq!(found.len(), chunks.len());
    for (found, chunk) in found.into_iter().zip(chunks) {
        let opened = found.unwrap().open(DigestAlgorithm::Sha512_256, 1 << 20).unwrap();
        assert_eq!(opened.plain(), chunk.plain());
    }
}

/// The error of reading one chunk that is nowhere.
fn error_of(store: &dyn ChunkStore) -> Error {
    store.get_many(&ids(&chunks(99, 1))).pop().unwrap().unwrap_err()
}

/// An error and its causes in one line.
fn told(error: &Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        text += &format!(": {cause}");
        source = cause.source();
    }
    text
}

fn shared(store: impl ChunkStore + 'static) -> Arc<dyn ChunkStore> {
    Arc::new(store)
}
