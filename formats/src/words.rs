//! Little-endian 64-bit words, which chunk indexes, archives and the protocol are made of, and the form that their records
//! share: the record's size in bytes with these 16, its type, its body.
//!
//! Not here: bounds and rules, which are those of each format.

/// Bytes of size and type.
pub(crate) const HEADER_LEN: usize = 16;

/// The word at `at`; the caller has made sure that it is there.
pub(crate) fn word(bytes: &[u8], at: usize) -> u64 {
    u64::from_le_bytes(bytes[at..at + 8].try_into().expect("eight bytes"))
}

pub(crate) fn push_words(out: &mut Vec<u8>, words: &[u64]) {
    for word in words {
        out.extend_from_slice(&word.to_le_bytes());
    }
}

/// Appends a whole record, whose body comes in parts.
pub(crate) fn push_record(out: &mut Vec<u8>, kind: u64, body: &[&[u8]]) {
    let len: usize = body.iter().map(|part| part.len()).sum();
    push_words(out, &[(HEADER_LEN + len) as u64, kind]);
    for part in body {
        out.extend_from_slice(part);
    }
}
