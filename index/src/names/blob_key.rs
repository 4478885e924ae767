//! What blobs are found by: a digest of their bytes, or what was asked for when they were made.
//!
//! Numbers of functions are those of the Remote Execution API and are on disk, as are the tags in front of keys.

use std::fmt;

use crate::Key;

/// In front of the keys of content.
const CONTENT: u8 = 1;

/// Bytes of the longest digest.
const HASH_LEN_MAX: usize = 64;

/// A function by which blobs are named.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(u8)]
#[non_exhaustive]
pub enum BlobFunction {
    /// SHA-256.
    Sha256 = 1,
    /// SHA-1.
    Sha1 = 2,
    /// MD5.
    Md5 = 3,
    /// SHA-384.
    Sha384 = 5,
    /// SHA-512.
    Sha512 = 6,
    /// BLAKE3 of 32 bytes.
    Blake3 = 9,
}

impl BlobFunction {
    /// All of them; those that clients should prefer first.
    pub const ALL: [Self; 6] = [
        Self::Sha256,
        Self::Blake3,
        Self::Sha512,
        Self::Sha384,
        Self::Sha1,
        Self::Md5,
    ];

    /// Bytes of its digests.
    pub fn hash_len(self) -> usize {
        match self {
            Self::Md5 => 16,
            Self::Sha1 => 20,
            Self::Sha256 | Self::Blake3 => 32,
            Self::Sha384 => 48,
            Self::Sha512 => 64,
        }
    }
}

/// Name of a blob: digest and length of its bytes.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct BlobDigest {
    function: BlobFunction,
    /// Behind the digest zeros.
    hash: [u8; HASH_LEN_MAX],
    size: u64,
}

impl BlobDigest {
    /// `None`: the function's digests have another length.
    pub fn new(function: BlobFunction, hash: &[u8], size: u64) -> Option<Self> {
        if hash.len() != function.hash_len() {
            return None;
        }
        let mut bytes = [0; HASH_LEN_MAX];
        bytes[..hash.len()].copy_from_slice(hash);
        Some(Self {
            function,
            hash: bytes,
            size,
        })
    }

    /// The function.
    pub fn function(&self) -> BlobFunction {
        self.function
    }

    /// The digest.
    pub fn hash(&self) -> &[u8] {
        &self.hash[..self.function.hash_len()]
    }

    /// Bytes of the blob.
    pub fn size(&self) -> u64 {
        self.size
    }

    fn append_to(&self, key: Key) -> Key {
        self.append_hash_to(key).u64(self.size)
    }

    fn append_hash_to(&self, key: Key) -> Key {
        key.byte(self.function as u8).bytes(self.hash())
    }

    /// What keys of blobs of this digest and any size begin with.
    pub(super) fn of_any_size(&self, key: Key) -> Key {
        self.append_hash_to(key.byte(CONTENT))
    }

    /// The same digest of so many bytes.
    pub(super) fn sized(mut self, size: u64) -> Self {
        self.size = size;
        self
    }
}

/// As clients write it: hexadecimal digits, `/`, bytes.
impl fmt::Display for BlobDigest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.hash().iter().try_for_each(|byte| write!(f, "{byte:02x}"))?;
        write!(f, "/{}", self.size)
    }
}

impl fmt::Debug for BlobDigest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?} {self}", self.function)
    }
}

/// What is kept in a bucket beside its objects, and how it is found.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum BlobKey {
    /// Bytes by their digest.
    Content(BlobDigest),
    /// The result of an action, by the digest of the action; of an instance, which is opaque.
    Action {
        /// The instance.
        instance: String,
        /// Digest of the action.
        action: BlobDigest,
    },
    /// What is known of an asset, by a digest of what it was asked for by; of an instance.
    Asset {
        /// The instance.
        instance: String,
        /// Digest of the request.
        request: [u8; 32],
    },
    /// How a blob was cut for clients, by a rule whose number the door gives.
    Layout {
        /// The blob.
        blob: BlobDigest,
        /// The rule.
        rule: u8,
    },
}

impl BlobKey {
    /// Whether equal keys mean equal bytes, so that what is there need not be written again.
    pub fn is_by_content(&self) -> bool {
        matches!(self, Self::Content(_))
    }

    pub(super) fn append_to(&self, key: Key) -> Key {
        match self {
            Self::Content(blob) => blob.append_to(key.byte(CONTENT)),
            Self::Action { instance, action } => action.append_to(key.byte(2).bytes(instance.as_bytes())),
            Self::Asset { instance, request } => key.byte(3).bytes(instance.as_bytes()).fixed(request),
            Self::Layout { blob, rule } => blob.append_to(key.byte(4).byte(*rule)),
        }
    }
}

impl From<BlobDigest> for BlobKey {
    fn from(digest: BlobDigest) -> Self {
        Self::Content(digest)
    }
}
