//! Names of chunk files, relative to the store's folder, without an allocation.

use std::ffi::CStr;
use std::fmt;

use cairn_formats::{ChunkForm, ChunkId};

/// Ending of compressed chunks.
pub(crate) const COMPRESSED: &str = ".cacnk";

/// How the names of temporary files begin: desync's prune knows them by it too.
pub(crate) const TEMPORARY: &str = ".tmp-cacnk";

/// Room for the ending of an encrypted chunk: `.xchacha20-poly1305-` and 8 digits.
const SUFFIX_LEN_MAX: usize = 32;

const LEN_MAX: usize = 5 + 64 + COMPRESSED.len() + SUFFIX_LEN_MAX + 1;

/// `<4 hex>/<64 hex>[.cacnk]`, with a cipher its own ending behind it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct ChunkPath {
    bytes: [u8; LEN_MAX],
    len: usize,
}

impl ChunkPath {
    pub(crate) fn new(id: ChunkId, form: ChunkForm, suffix: &str) -> Self {
        assert!(suffix.len() <= SUFFIX_LEN_MAX, "the ending {suffix} of a cipher");
        let hex = id.to_hex();
        let mut bytes = [0; LEN_MAX];
        bytes[..4].copy_from_slice(&hex[..4]);
        bytes[4] = b'/';
        bytes[5..69].copy_from_slice(&hex);
        let mut len = 69;
        if form == ChunkForm::Compressed {
            bytes[69..69 + COMPRESSED.len()].copy_from_slice(COMPRESSED.as_bytes());
            len += COMPRESSED.len();
        }
        bytes[len..len + suffix.len()].copy_from_slice(suffix.as_bytes());
        len += suffix.len();
        Self { bytes, len }
    }

    pub(crate) fn as_c_str(&self) -> &CStr {
        CStr::from_bytes_with_nul(&self.bytes[..=self.len]).expect("hex digits, then the NUL that is always there")
    }

    pub(crate) fn as_str(&self) -> &str {
        std::str::from_utf8(&self.bytes[..self.len]).expect("hex digits are ASCII")
    }

    /// The folder that it lies in: the first four digits.
    pub(crate) fn folder(&self) -> &str {
        &self.as_str()[..4]
    }
}

impl fmt::Display for ChunkPath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// Whether a file name is that of a chunk which desync is writing over SFTP: the final name and a number behind it.
pub(crate) fn is_foreign_temporary(name: &str) -> bool {
    let Some((chunk, number)) = name.split_at_checked(64) else {
        return false;
    };
    let number = number.strip_prefix(COMPRESSED).unwrap_or(number);
    chunk.parse::<ChunkId>().is_ok() && !number.is_empty() && number.bytes().all(|digit| digit.is_ascii_digit())
}

/// The chunk that a file name in a prefix folder stands for.
pub(crate) fn parse(name: &[u8], suffix: &str) -> Option<(ChunkId, ChunkForm)> {
    let name = std::str::from_utf8(name).ok()?.strip_suffix(suffix)?;
    let (hex, form) = match name.strip_suffix(COMPRESSED) {
        Some(hex) => (hex, ChunkForm::Compressed),
        None => (name, ChunkForm::Plain),
    };
    Some((hex.parse().ok()?, form))
}
