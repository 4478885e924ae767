//! Any bytes as an encrypted chunk: refused, or shorter by nonce and tag; what we seal opens, and no changed byte goes unseen.

#![no_main]

use cairn_formats::{ChunkCipher, CipherAlgorithm, CipherKey, NONCE_LEN};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|input: (bool, [u8; 32], [u8; NONCE_LEN], u16, &[u8])| {
    let (aes, key, nonce, at, bytes) = input;
    let (algorithm, extra) = if aes {
        (CipherAlgorithm::Aes256Gcm, 12 + 16)
    } else {
        (CipherAlgorithm::XChaCha20Poly1305, 24 + 16)
    };
    let cipher = ChunkCipher::new(algorithm, &CipherKey::from_bytes(key));
    if let Ok(plain) = cipher.open(bytes) {
        assert_eq!(plain.len() + extra, bytes.len());
    }
    let mut sealed = cipher.seal(&nonce, bytes);
    assert_eq!(sealed.len(), bytes.len() + extra);
    assert_eq!(cipher.open(&sealed).expect("our own body"), bytes);
    let at = usize::from(at) % sealed.len();
    sealed[at] ^= 1;
    cipher.open(&sealed).expect_err("a changed byte");
});
