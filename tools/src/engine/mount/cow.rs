//! Copy on write: a sparse local file that holds the blocks of a blob that were written, and a map that says which.
//!
//! The map lies beside the file, as `FILE.map`:
//!
//! ```text
//! 0   8 bytes  "cairncow"
//! 8   u32      version, 1
//! 12  u32      bytes of a block, 4096
//! 16  u64      bytes of the blob
//! 24  32 bytes SHA-512/256 of the blob's index
//! 56           a bit per block, set when the file holds it; the first in the lowest bit of its byte
//! ```
//!
//! Invariants: a bit is set after the whole block is in the file, and never cleared; a map is replaced whole, and a map that
//! was synced names only blocks that were synced before it.

use std::fs::File;
use std::io::{ErrorKind, Read as _};
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};

use bytes::Bytes;
use cairn_formats::{ChunkIndex, DigestAlgorithm};

use super::bitmap::Bitmap;
use super::{open_alone, replace_file};
use crate::engine::batch::lock;
use crate::engine::error::file;
use crate::engine::{Error, Result};

const BLOCK_LEN: u64 = 4096;
const MAGIC: &[u8; 8] = b"cairncow";
const VERSION: u32 = 1;
const HEADER_LEN: usize = 56;

/// What was written to a blob.
#[derive(Debug)]
pub(crate) struct Overlay {
    path: PathBuf,
    map_path: PathBuf,
    file: File,
    header: [u8; HEADER_LEN],
    len: u64,
    written: Bitmap,
    /// Held while a block is made of old and new bytes.
    writing: Mutex<()>,
    /// Something was written since the map was saved.
    changed: AtomicBool,
}

/// Whether what is saved has to be on the disk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Durability {
    /// It has.
    Synced,
    /// The system writes it when it likes.
    Later,
}

impl Overlay {
    /// Opens the overlay of a blob, or makes an empty one.
    ///
    /// Errors: it cannot be opened, another mount has it, or it belongs to another index.
    pub(crate) fn open(path: &Path, index: &ChunkIndex) -> Result<Self> {
        let mut name = path.as_os_str().to_owned();
        name.push(".map");
        let map_path = PathBuf::from(name);
        let len = index.blob_len();
        let mut header = [0; HEADER_LEN];
        header[..8].copy_from_slice(MAGIC);
        header[8..12].copy_from_slice(&VERSION.to_le_bytes());
        header[12..16].copy_from_slice(&(BLOCK_LEN as u32).to_le_bytes());
        header[16..24].copy_from_slice(&len.to_le_bytes());
        header[24..].copy_from_slice(DigestAlgorithm::Sha512_256.id(index.as_bytes()).as_bytes());

        let (overlay, found) = open_alone(path)?;
        let written = match read_map(&map_path, &header, len.div_ceil(BLOCK_LEN))? {
            Some(written) if found == len => written,
            None if found == 0 => Bitmap::new(len.div_ceil(BLOCK_LEN)),
            _ => {
                return Err(Error::State {
                    path: path.to_owned(),
                    what: "not an overlay, or without its .map file, or cut short",
                });
            }
        };
        overlay.set_len(len).map_err(file(path, "make room in"))?;
        let overlay = Self {
            path: path.to_owned(),
            map_path,
            file: overlay,
            header,
            len,
            written,
            writing: Mutex::new(()),
            changed: AtomicBool::new(true),
        };
        // From the start on the two belong together, and an unwritable folder is known before anything is written.
        overlay.save(Durability::Later)?;
        Ok(overlay)
    }

    /// The bytes from `offset` on, at most `len`, of what was written over what `base` gives.
    pub(super) fn read(&self, offset: u64, len: usize, base: impl Fn(u64, usize) -> Result<Bytes>) -> Result<Bytes> {
        let end = offset.saturating_add(len as u64).min(self.len);
        if offset >= end {
            return Ok(Bytes::new());
        }
        let runs = self.runs(offset, end);
        if let [(false, _)] = runs[..] {
            return base(offset, len);
        }
        let mut out = vec![0; (end - offset) as usize];
        for (written, range) in runs {
            let place = &mut out[(range.start - offset) as usize..(range.end - offset) as usize];
            if written {
                self.file
                    .read_exact_at(place, range.start)
                    .map_err(file(&self.path, "read"))?;
            } else {
                place.copy_from_slice(&base(range.start, place.len())?);
            }
        }
        Ok(out.into())
    }

    /// Parts of a range that are written, or not, as a whole.
    fn runs(&self, offset: u64, end: u64) -> Vec<(bool, std::ops::Range<u64>)> {
        let mut runs: Vec<(bool, std::ops::Range<u64>)> = Vec::new();
        let mut start = offset;
        while start < end {
            let stop = (start / BLOCK_LEN + 1).saturating_mul(BLOCK_LEN).min(end);
            let written = self.written.get(start / BLOCK_LEN);
            match runs.last_mut() {
                Some((same, range)) if *same == written => range.end = stop,
                _ => runs.push((written, start..stop)),
            }
            start = stop;
        }
        runs
    }

    /// Takes bytes; blocks that are written in part are filled up from `base`. Returns how many bytes fit before the end.
    pub(super) fn write(&self, offset: u64, bytes: &[u8], base: impl Fn(u64, usize) -> Result<Bytes>) -> Result<usize> {
        let end = offset.saturating_add(bytes.len() as u64).min(self.len);
        if offset >= end {
            return Ok(0);
        }
        let bytes = &bytes[..(end - offset) as usize];
        let _alone = lock(&self.writing);
        let (first, last) = (offset / BLOCK_LEN, (end - 1) / BLOCK_LEN);
        for block in if first == last { vec![first] } else { vec![first, last] } {
            let range = block * BLOCK_LEN..((block + 1) * BLOCK_LEN).min(self.len);
            let whole = offset <= range.start && end >= range.end;
            if !whole && !self.written.get(block) {
                let old = base(range.start, (range.end - range.start) as usize)?;
                self.write_file(&old, range.start)?;
            }
        }
        self.write_file(bytes, offset)?;
        (first..=last).for_each(|block| self.written.set(block));
        self.changed.store(true, Ordering::Relaxed);
        Ok(bytes.len())
    }

    fn write_file(&self, bytes: &[u8], offset: u64) -> Result<()> {
        self.file
            .write_all_at(bytes, offset)
            .map_err(file(&self.path, "write to"))
    }

    /// Saves the map of what was written until now.
    pub(super) fn save(&self, durability: Durability) -> Result<()> {
        let synced = durability == Durability::Synced;
        let changed = self.changed.swap(false, Ordering::Relaxed);
        if !changed && !synced {
            return Ok(());
        }
        let map = self.written.to_bytes();
        let saved = (|| {
            if synced {
                self.file.sync_data().map_err(file(&self.path, "sync"))?;
            }
            replace_file(&self.map_path, &[&self.header, &map], synced)
        })();
        if saved.is_err() {
            self.changed.store(true, Ordering::Relaxed);
        }
        saved
    }
}

/// The map in a file, `None` where there is no file.
///
/// Errors: it cannot be read, is of another version, or of another blob.
fn read_map(path: &Path, header: &[u8; HEADER_LEN], blocks: u64) -> Result<Option<Bitmap>> {
    let opened = match File::open(path) {
        Ok(opened) => opened,
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(file(path, "open")(error)),
    };
    let mut bytes = Vec::new();
    opened
        .take(HEADER_LEN as u64 + Bitmap::bytes_len(blocks) + 1)
        .read_to_end(&mut bytes)
        .map_err(file(path, "read"))?;
    let wrong = |what| Error::State {
        path: path.to_owned(),
        what,
    };
    if bytes.len() < HEADER_LEN || bytes[..8] != MAGIC[..] {
        return Err(wrong("not the map of an overlay"));
    }
    if bytes[8..12] != header[8..12] {
        return Err(wrong("written by another version of cairn, which has to read it"));
    }
    if bytes[..HEADER_LEN] != header[..] {
        return Err(wrong("the overlay of another index"));
    }
    let written = Bitmap::from_bytes(blocks, &bytes[HEADER_LEN..]).ok_or_else(|| wrong("cut short"))?;
    Ok(Some(written))
}

#[cfg(test)]
mod tests {
    use cairn_formats::{Chunk, ChunkSizes, FeatureFlags, IndexEncoder};

    use super::*;

    const LEN: usize = 3 * 4096 + 100;

    fn index(fill: u8) -> ChunkIndex {
        let digest = DigestAlgorithm::Sha512_256;
        let mut bytes = Vec::new();
        let mut encoder = IndexEncoder::start(FeatureFlags::blob(digest), ChunkSizes::DEFAULT, &mut bytes);
        let chunk = Chunk::from_plain(digest, Bytes::from(vec![fill; LEN]));
        encoder.push(chunk.id(), LEN, &mut bytes);
        encoder.finish(&mut bytes);
        ChunkIndex::parse(bytes.into()).unwrap()
    }

    /// Random writes and reads against a plain buffer, opened again in between.
    #[test]
    fn an_overlay_reads_as_a_buffer_would() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("overlay");
        let base = |offset: u64, len: usize| Ok(Bytes::from(vec![7; len.min(LEN - offset as usize)]));
        let mut model = vec![7; LEN];
        let mut random = fastrand::Rng::with_seed(3);
        for _ in 0..20 {
            let overlay = Overlay::open(&path, &index(7)).unwrap();
            for _ in 0..10 {
                let offset = random.usize(..LEN + 10);
                let len = random.usize(..6000);
                let bytes: Vec<u8> = std::iter::repeat_with(|| random.u8(..)).take(len).collect();
                let written = overlay.write(offset as u64, &bytes, base).unwrap();
                assert_eq!(written, bytes.len().min(LEN.saturating_sub(offset)));
                if written > 0 {
                    model[offset..offset + written].copy_from_slice(&bytes[..written]);
                }
                let offset = random.usize(..LEN);
                let len = random.usize(1..9000);
                let read = overlay.read(offset as u64, len, base).unwrap();
                assert!(read == model[offset..(offset + len).min(LEN)]);
            }
            assert!(overlay.written.count() > 0);
            overlay
                .save(if random.bool() {
                    Durability::Synced
                } else {
                    Durability::Later
                })
                .unwrap();
        }
    }

    #[test]
    fn overlays_of_others_are_refused() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("overlay");
        let open = |fill| Overlay::open(&path, &index(fill)).unwrap_err().to_string();
        drop(Overlay::open(&path, &index(7)).unwrap());
        assert!(open(8).contains("another index"));
        let held = Overlay::open(&path, &index(7)).unwrap();
        assert!(open(7).contains("in use"), "{}", open(7));
        drop(held);
        let map = folder.path().join("overlay.map");
        let mut bytes = std::fs::read(&map).unwrap();
        bytes[8] = 2;
        std::fs::write(&map, &bytes).unwrap();
        assert!(open(7).contains("another version"));
        std::fs::remove_file(&map).unwrap();
        assert!(open(7).contains("without its .map"));
        std::fs::write(&map, b"short").unwrap();
        assert!(open(7).contains("not the map"));
    }
}
