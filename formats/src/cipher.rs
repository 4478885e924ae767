//! Encrypted chunks, as desync 1.1.0 writes them: the last step before a store and the first behind it.
//!
//! Body: nonce ‖ ciphertext ‖ 16-byte tag, over the plain or the compressed bytes, without associated data. The file name's
//! ending names algorithm and key, so that chunks under several keys live in one store. A chunk's id stays the digest of its
//! plain bytes. Randomness is an argument; the key never shows in `Debug`.
//!
//! Not here: indexes, which are never encrypted.

use std::fmt;
use std::str::FromStr;

use aes_gcm::Aes256Gcm;
use aes_gcm::aead::{AeadInOut, KeyInit};
use chacha20poly1305::XChaCha20Poly1305;
use sha2::{Digest, Sha256};

/// Random bytes that sealing one chunk takes; `aes-256-gcm` uses the first 12.
pub const NONCE_LEN: usize = 24;
const TAG_LEN: usize = 16;

/// How chunks are encrypted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum CipherAlgorithm {
    /// `xchacha20-poly1305`: a nonce of 24 bytes, long enough to be random for any number of chunks.
    #[default]
    XChaCha20Poly1305,
    /// `aes-256-gcm`: a nonce of 12 bytes, good for some 2^32 chunks under one key.
    Aes256Gcm,
}

/// A 256-bit key. Parsed from 64 hex digits in either case, as desync's `--encryption-key` and `DESYNC_ENCRYPTION_KEY`.
#[derive(Clone, PartialEq, Eq)]
pub struct CipherKey([u8; 32]);

/// Why a text is no key or no algorithm. Never shows the key.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ParseCipherError {
    /// Not 64 hex digits.
    #[error(
        "not an encryption key: expected 64 hex digits, as `openssl rand -hex 32` makes them, got {len} bytes of text"
    )]
    Key {
        /// Length of the text.
        len: usize,
    },
    /// No such algorithm.
    #[error("no encryption algorithm `{name}`: try xchacha20-poly1305 or aes-256-gcm")]
    Algorithm {
        /// The text.
        name: String,
    },
}

/// Why a body does not decrypt.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum CipherError {
    /// It has no room for nonce and tag.
    #[error("not an encrypted chunk: it has {len} bytes, nonce and tag alone have {least}")]
    TooShort {
        /// Its length.
        len: usize,
        /// The least that an encrypted chunk has.
        least: usize,
    },
    /// The tag does not fit: another key, another algorithm, or changed bytes.
    #[error("not decrypted: the bytes were changed, or written under another key than {key_id}")]
    Refused {
        /// Id of the key that was tried.
        key_id: KeyId,
    },
}

/// First four bytes of the SHA-256 of a key, shown as 8 lowercase hex digits: tells keys apart without showing them.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct KeyId([u8; 4]);

/// Seals and opens chunk bodies with one key. `Debug` shows algorithm and key id.
#[derive(Clone)]
pub struct ChunkCipher {
    algorithm: CipherAlgorithm,
    key_id: KeyId,
    aead: Aead,
}

#[derive(Clone)]
enum Aead {
    XChaCha20Poly1305(Box<XChaCha20Poly1305>),
    Aes256Gcm(Box<Aes256Gcm>),
}

impl CipherAlgorithm {
    /// The name in options and file names.
    pub fn name(self) -> &'static str {
        match self {
            Self::XChaCha20Poly1305 => "xchacha20-poly1305",
            Self::Aes256Gcm => "aes-256-gcm",
        }
    }

    fn nonce_len(self) -> usize {
        match self {
            Self::XChaCha20Poly1305 => 24,
            Self::Aes256Gcm => 12,
        }
    }
}

impl FromStr for CipherAlgorithm {
    type Err = ParseCipherError;

    fn from_str(name: &str) -> Result<Self, Self::Err> {
        [Self::XChaCha20Poly1305, Self::Aes256Gcm]
            .into_iter()
            .find(|algorithm| algorithm.name() == name)
            .ok_or_else(|| ParseCipherError::Algorithm { name: name.to_owned() })
    }
}

impl CipherKey {
    /// The key with these bytes.
    pub fn from_bytes(bytes: [u8; 32]) -> Self {
        Self(bytes)
    }

    /// What tells this key from others.
    pub fn id(&self) -> KeyId {
        let digest = Sha256::digest(self.0);
        KeyId([digest[0], digest[1], digest[2], digest[3]])
    }
}

impl FromStr for CipherKey {
    type Err = ParseCipherError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let not_a_key = ParseCipherError::Key { len: text.len() };
        let Ok(hex) = <&[u8; 64]>::try_from(text.as_bytes()) else {
            return Err(not_a_key);
        };
        let mut key = [0; 32];
        for (byte, pair) in key.iter_mut().zip(hex.chunks_exact(2)) {
            let (Some(high), Some(low)) = (char::from(pair[0]).to_digit(16), char::from(pair[1]).to_digit(16)) else {
                return Err(not_a_key);
            };
            *byte = (high << 4 | low) as u8;
        }
        Ok(Self(key))
    }
}

impl fmt::Debug for CipherKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "CipherKey({})", self.id())
    }
}

impl fmt::Display for KeyId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:08x}", u32::from_be_bytes(self.0))
    }
}

impl fmt::Debug for KeyId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl fmt::Debug for ChunkCipher {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "ChunkCipher({}-{})", self.algorithm.name(), self.key_id)
    }
}

impl ChunkCipher {
    /// A cipher for chunk bodies.
    pub fn new(algorithm: CipherAlgorithm, key: &CipherKey) -> Self {
        Self {
            algorithm,
            key_id: key.id(),
            aead: match algorithm {
                CipherAlgorithm::XChaCha20Poly1305 => {
                    Aead::XChaCha20Poly1305(Box::new(XChaCha20Poly1305::new(&key.0.into())))
                }
                CipherAlgorithm::Aes256Gcm => Aead::Aes256Gcm(Box::new(Aes256Gcm::new(&key.0.into()))),
            },
        }
    }

    /// What file names of its chunks end in, after `.cacnk` or nothing: `.xchacha20-poly1305-50d64035`.
    pub fn suffix(&self) -> String {
        format!(".{}-{}", self.algorithm.name(), self.key_id)
    }

    /// How many bytes longer a sealed body is: nonce and tag.
    pub fn overhead(&self) -> usize {
        self.algorithm.nonce_len() + TAG_LEN
    }

    /// Encrypts a chunk's bytes.
    ///
    /// `nonce`: fresh random bytes for every call. One used twice under a key gives both chunks away.
    pub fn seal(&self, nonce: &[u8; NONCE_LEN], plain: &[u8]) -> Vec<u8> {
        let nonce = &nonce[..self.algorithm.nonce_len()];
        let mut body = Vec::with_capacity(nonce.len() + plain.len() + TAG_LEN);
        body.extend_from_slice(nonce);
        body.extend_from_slice(plain);
        let (nonce, text) = body.split_at_mut(nonce.len());
        const FITS: &str = "a nonce of the algorithm's length, and a chunk is far below its 64 GiB";
        let tag: [u8; TAG_LEN] = match &self.aead {
            Aead::XChaCha20Poly1305(aead) => aead
                .encrypt_inout_detached((&*nonce).try_into().expect(FITS), b"", text.into())
                .expect(FITS)
                .into(),
            Aead::Aes256Gcm(aead) => aead
                .encrypt_inout_detached((&*nonce).try_into().expect(FITS), b"", text.into())
                .expect(FITS)
                .into(),
        };
        body.extend_from_slice(&tag);
        body
    }

    /// Decrypts a stored body: the bytes that were sealed, shorter than the body by nonce and tag.
    ///
    /// Errors: [`CipherError::TooShort`], [`CipherError::Refused`]. It does not say whether the chunk is the right one: two
    /// chunks under one key can change places, which their ids tell.
    pub fn open(&self, body: &[u8]) -> Result<Vec<u8>, CipherError> {
        let least = self.algorithm.nonce_len() + TAG_LEN;
        let too_short = CipherError::TooShort { len: body.len(), least };
        let (nonce, rest) = body.split_at_checked(self.algorithm.nonce_len()).ok_or(too_short)?;
        let (text, tag) = rest.split_last_chunk::<TAG_LEN>().ok_or(too_short)?;
        let mut plain = text.to_vec();
        const CUT: &str = "a nonce of the algorithm's length was cut off";
        let opened = match &self.aead {
            Aead::XChaCha20Poly1305(aead) => aead.decrypt_inout_detached(
                nonce.try_into().expect(CUT),
                b"",
                plain.as_mut_slice().into(),
                tag.into(),
            ),
            Aead::Aes256Gcm(aead) => aead.decrypt_inout_detached(
                nonce.try_into().expect(CUT),
                b"",
                plain.as_mut_slice().into(),
                tag.into(),
            ),
        };
        match opened {
            Ok(()) => Ok(plain),
            Err(_) => Err(CipherError::Refused { key_id: self.key_id }),
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// The key of desync's own tests, whose file name ending they give.
    const KEY: &str = "6368616e676520746869732070617373776f726420746f206120736563726574";
    const ALGORITHMS: [CipherAlgorithm; 2] = [CipherAlgorithm::XChaCha20Poly1305, CipherAlgorithm::Aes256Gcm];

    fn hex(text: &str) -> Vec<u8> {
        let digits: Vec<u32> = text.chars().map(|digit| digit.to_digit(16).unwrap()).collect();
        digits.chunks(2).map(|pair| (pair[0] << 4 | pair[1]) as u8).collect()
    }

    #[test]
    fn names_are_desyncs() {
        let key: CipherKey = KEY.parse().unwrap();
        let suffixes = ALGORITHMS.map(|algorithm| ChunkCipher::new(algorithm, &key).suffix());
        assert_eq!(suffixes, [".xchacha20-poly1305-50d64035", ".aes-256-gcm-50d64035"]);
        for algorithm in ALGORITHMS {
            assert_eq!(algorithm.name().parse(), Ok(algorithm));
        }
        assert_eq!(KEY.to_uppercase().parse(), Ok(key.clone()));
        assert_eq!(
            "rot13".parse::<CipherAlgorithm>().unwrap_err().to_string(),
            "no encryption algorithm `rot13`: try xchacha20-poly1305 or aes-256-gcm"
        );
        for wrong in [
            "",
            "not-hex",
            &KEY[1..],
            &KEY.replace('6', "g"),
            &KEY.replace("63", "é"),
        ] {
            assert!(wrong.parse::<CipherKey>().is_err());
        }
    }

    #[test]
    fn the_key_is_never_shown() {
        let key: CipherKey = KEY.parse().unwrap();
        let cipher = ChunkCipher::new(CipherAlgorithm::Aes256Gcm, &key);
        let refused = cipher.open(&[0; 99]).unwrap_err();
        let shown = format!("{key:?} {cipher:?} {refused:?} {refused}");
        assert!(!shown.contains("6368") && !shown.contains("99, 104, 97"), "{shown}");
        assert!(shown.contains("50d64035"));
    }

    /// Made by the libraries that desync is built on: Go's crypto/cipher and golang.org/x/crypto/chacha20poly1305.
    #[test]
    fn bodies_are_what_other_libraries_write() {
        let key = CipherKey::from_bytes(std::array::from_fn(|at| at as u8));
        let nonce = std::array::from_fn(|at| 0x40 + at as u8);
        for (algorithm, body) in ALGORITHMS.into_iter().zip(KNOWN) {
            let cipher = ChunkCipher::new(algorithm, &key);
            assert_eq!(cipher.seal(&nonce, b"a chunk"), hex(body));
            assert_eq!(cipher.open(&hex(body)).unwrap(), b"a chunk");
        }
    }

    const KNOWN: [&str; 2] = [
        "404142434445464748494a4b4c4d4e4f5051525354555657b5196618a58e12d67990008e2d8cf3ea2360f51da48fb1",
        "404142434445464748494a4b8399cd4b5352ecb4baf53c1662e91cacba127be56399aa",
    ];

    #[test]
    fn every_changed_byte_and_every_cut_is_noticed() {
        let key: CipherKey = KEY.parse().unwrap();
        for algorithm in ALGORITHMS {
            let cipher = ChunkCipher::new(algorithm, &key);
            let body = cipher.seal(&[7; NONCE_LEN], b"some bytes");
            for at in 0..body.len() {
                let mut changed = body.clone();
                changed[at] ^= 0x10;
                assert!(matches!(cipher.open(&changed), Err(CipherError::Refused { .. })));
                assert!(cipher.open(&body[..at]).is_err());
            }
            assert_eq!(
                cipher.open(&[]),
                Err(CipherError::TooShort {
                    len: 0,
                    least: cipher.overhead()
                })
            );
            let other = ChunkCipher::new(algorithm, &CipherKey::from_bytes([1; 32]));
            assert!(other.open(&body).is_err());
        }
    }

    proptest! {
        #[test]
        fn what_is_sealed_opens(key: [u8; 32], nonce: [u8; NONCE_LEN], plain in prop::collection::vec(any::<u8>(), 0..2000)) {
            for algorithm in ALGORITHMS {
                let cipher = ChunkCipher::new(algorithm, &CipherKey::from_bytes(key));
                let body = cipher.seal(&nonce, &plain);
                prop_assert!(body.starts_with(&nonce[..algorithm.nonce_len()]));
                prop_assert_eq!(body.len(), plain.len() + cipher.overhead());
                prop_assert_eq!(&cipher.open(&body).unwrap(), &plain);
            }
        }
    }
}
