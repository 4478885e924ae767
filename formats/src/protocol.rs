//! Frames of the casync protocol, which two programs speak over a pipe, mostly through SSH.
//!
//! A [`FrameDecoder`] takes bytes as they come and gives frames; [`Frame::push`] appends one. Only the frames: who may send
//! what when is for the two sides (`store`, `tools`). Byte table: `formats/FORMATS.md`, "SSH protocol".

use bytes::Bytes;

use crate::ChunkId;
use crate::input::Input;
use crate::words::{HEADER_LEN, push_record, push_words, word};

/// Bytes of a frame at most, header included.
pub const PROTOCOL_FRAME_LEN_MAX: u64 = 16 << 20;
/// Bytes of an ABORT's text that are kept.
pub const ABORT_REASON_LEN_MAX: usize = 4096;

const HELLO: u64 = 0x3c71_d094_8ca5_fbee;
const INDEX: u64 = 0xb32a_91dd_2b3e_27f8;
const INDEX_EOF: u64 = 0x4f09_32f1_0437_18f5;
const ARCHIVE: u64 = 0x95d6_428a_69ed_dcc5;
const ARCHIVE_EOF: u64 = 0x450b_ef66_3f24_cbad;
const REQUEST: u64 = 0x8ab4_27e0_f89d_9210;
const CHUNK: u64 = 0x5213_dd18_0a84_bc8c;
const MISSING: u64 = 0xd010_f9fa_c82b_7b6c;
const GOODBYE: u64 = 0xad20_5dbf_1a36_86c3;
const ABORT: u64 = 0xe7d9_136b_7efe_a352;

const ID_LEN: usize = 32;
const CHUNK_HEAD_LEN: usize = HEADER_LEN + 8 + ID_LEN;
/// Bytes of a REQUEST beside its ids.
pub(crate) const REQUEST_OVERHEAD: usize = HEADER_LEN + 8;
const HIGH_PRIORITY: u64 = 1;
const COMPRESSED: u64 = 1;

/// What a side offers and wants, as its first frame says it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HelloFlags(pub u64);

#[expect(missing_docs, reason = "the names say it, and casync's tables")]
impl HelloFlags {
    pub const READABLE_STORE: u64 = 0x1;
    pub const WRITABLE_STORE: u64 = 0x2;
    pub const READABLE_INDEX: u64 = 0x4;
    pub const WRITABLE_INDEX: u64 = 0x8;
    pub const READABLE_ARCHIVE: u64 = 0x10;
    pub const WRITABLE_ARCHIVE: u64 = 0x20;
    pub const PULL_CHUNKS: u64 = 0x40;
    pub const PULL_INDEX: u64 = 0x80;
    pub const PULL_ARCHIVE: u64 = 0x100;
    pub const PUSH_CHUNKS: u64 = 0x200;
    pub const PUSH_INDEX: u64 = 0x400;
    /// The side that gets an index shall ask for the chunks that it names.
    pub const PUSH_INDEX_CHUNKS: u64 = 0x800;
    pub const PUSH_ARCHIVE: u64 = 0x1000;
    const KNOWN: u64 = 0x1fff;
    /// What each want needs of the other side's offer.
    const NEEDS: [(u64, u64); 7] = [
        (Self::PULL_CHUNKS, Self::READABLE_STORE),
        (Self::PULL_INDEX, Self::READABLE_INDEX),
        (Self::PULL_ARCHIVE, Self::READABLE_ARCHIVE),
        (Self::PUSH_CHUNKS, Self::WRITABLE_STORE),
        (Self::PUSH_INDEX, Self::WRITABLE_INDEX),
        (Self::PUSH_INDEX_CHUNKS, Self::WRITABLE_STORE),
        (Self::PUSH_ARCHIVE, Self::WRITABLE_ARCHIVE),
    ];

    /// Whether any of these bits is set.
    pub fn has(self, bits: u64) -> bool {
        self.0 & bits != 0
    }

    /// Whether the other side offers all that this side wants.
    pub fn wants_are_met_by(self, other: Self) -> bool {
        Self::NEEDS
            .into_iter()
            .all(|(want, offer)| !self.has(want) || other.has(offer))
    }
}

/// One message.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Frame {
    /// First of each side.
    Hello(HelloFlags),
    /// The next bytes of an index file, at least one.
    Index(Bytes),
    /// The index file ends.
    IndexEof,
    /// The next bytes of an archive, at least one.
    Archive(Bytes),
    /// The archive ends.
    ArchiveEof,
    /// Chunks that the sender wants, at least one.
    Request {
        /// Before others.
        high_priority: bool,
        /// Their names.
        ids: Vec<ChunkId>,
    },
    /// A chunk.
    Chunk {
        /// Its name; nothing is proven.
        id: ChunkId,
        /// Whether `data` is compressed, as in a chunk file.
        compressed: bool,
        /// Its bytes, at least one.
        data: Bytes,
    },
    /// The sender has no such chunk.
    Missing(ChunkId),
    /// The sender is done.
    Goodbye,
    /// The sender gives up.
    Abort {
        /// An errno, or something like it.
        code: u64,
        /// Why. What is not UTF-8 is replaced.
        reason: String,
    },
}

/// Bytes that are no frame.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("bad frame of the casync protocol at byte {offset}: {rule}")]
pub struct ProtocolError {
    /// Offset in what the other side sent.
    pub offset: u64,
    /// The rule broken.
    pub rule: &'static str,
}

/// Reads frames from bytes pushed in. Holds one frame at most, and what was pushed beyond it.
#[derive(Debug, Default)]
pub struct FrameDecoder {
    input: Input,
    offset: u64,
    failed: Option<ProtocolError>,
}

impl FrameDecoder {
    /// A decoder at the beginning of what the other side sends.
    pub fn new() -> Self {
        Self::default()
    }

    /// Takes the next bytes.
    pub fn push(&mut self, bytes: Bytes) {
        self.input.push(bytes);
    }

    /// Whether the bytes so far end between two frames.
    pub fn is_between_frames(&self) -> bool {
        self.input.len() == 0
    }

    /// The next frame, or `None` while it is not all there.
    ///
    /// Errors: a frame that breaks a rule, before its body is waited for where its header says it; the same again ever after.
    #[expect(clippy::should_implement_trait, reason = "no frame yet is not the end")]
    pub fn next(&mut self) -> Result<Option<Frame>, ProtocolError> {
        if let Some(error) = &self.failed {
            return Err(error.clone());
        }
        let offset = self.offset;
        self.try_next().map_err(|rule| {
            let error = ProtocolError { offset, rule };
            self.failed = Some(error.clone());
            error
        })
    }

    fn try_next(&mut self) -> Result<Option<Frame>, &'static str> {
        let Some(header) = self.input.peek::<HEADER_LEN>() else {
            return Ok(None);
        };
        let (size, kind) = (word(&header, 0), word(&header, 8));
        if !(HEADER_LEN as u64..=PROTOCOL_FRAME_LEN_MAX).contains(&size) {
            return Err("its size is not 16 bytes to 16 MiB");
        }
        check_size(kind, size as usize)?;
        let Some(frame) = self.input.take(size) else {
            return Ok(None);
        };
        self.offset += size;
        parse(kind, frame).map(Some)
    }
}

fn check_size(kind: u64, size: usize) -> Result<(), &'static str> {
    let good = match kind {
        HELLO => size == HEADER_LEN + 8,
        INDEX | ARCHIVE => size > HEADER_LEN,
        INDEX_EOF | ARCHIVE_EOF | GOODBYE => size == HEADER_LEN,
        REQUEST => size > HEADER_LEN + 8 && (size - HEADER_LEN - 8).is_multiple_of(ID_LEN),
        CHUNK => size > CHUNK_HEAD_LEN,
        MISSING => size == HEADER_LEN + ID_LEN,
        ABORT => size > HEADER_LEN + 8,
        _ => return Err("it is of unknown type"),
    };
    if good {
        Ok(())
    } else {
        Err("its size does not go with its type")
    }
}

fn parse(kind: u64, frame: Bytes) -> Result<Frame, &'static str> {
    let body = frame.slice(HEADER_LEN..);
    Ok(match kind {
        HELLO => {
            let flags = word(&body, 0);
            if flags == 0 || flags & !HelloFlags::KNOWN != 0 {
                return Err("a HELLO with no or unknown flags");
            }
            Frame::Hello(HelloFlags(flags))
        }
        INDEX => Frame::Index(body),
        INDEX_EOF => Frame::IndexEof,
        ARCHIVE => Frame::Archive(body),
        ARCHIVE_EOF => Frame::ArchiveEof,
        REQUEST => {
            let flags = word(&body, 0);
            if flags & !HIGH_PRIORITY != 0 {
                return Err("a REQUEST with unknown flags");
            }
            Frame::Request {
                high_priority: flags & HIGH_PRIORITY != 0,
                ids: body[8..].chunks_exact(ID_LEN).map(id).collect(),
            }
        }
        CHUNK => {
            let flags = word(&body, 0);
            if flags & !COMPRESSED != 0 {
                return Err("a CHUNK with unknown flags");
            }
            Frame::Chunk {
                id: id(&body[8..8 + ID_LEN]),
                compressed: flags & COMPRESSED != 0,
                data: body.slice(8 + ID_LEN..),
            }
        }
        MISSING => Frame::Missing(id(&body)),
        GOODBYE => Frame::Goodbye,
        _ => {
            let Some((0, reason)) = body[8..].split_last() else {
                return Err("an ABORT's text does not end in a NUL");
            };
            let reason = &reason[..reason.len().min(ABORT_REASON_LEN_MAX)];
            Frame::Abort {
                code: word(&body, 0),
                reason: String::from_utf8_lossy(reason).into_owned(),
            }
        }
    })
}

impl Frame {
    /// Appends the frame. One that is empty where it may not be, or longer than 16 MiB, is a fault of the caller: the other
    /// side refuses it.
    pub fn push(&self, out: &mut Vec<u8>) {
        let flag = |set: &bool| u64::from(*set).to_le_bytes();
        match self {
            Self::Hello(flags) => push_record(out, HELLO, &[&flags.0.to_le_bytes()]),
            Self::Index(bytes) => push_record(out, INDEX, &[bytes]),
            Self::IndexEof => push_record(out, INDEX_EOF, &[]),
            Self::Archive(bytes) => push_record(out, ARCHIVE, &[bytes]),
            Self::ArchiveEof => push_record(out, ARCHIVE_EOF, &[]),
            Self::Request { high_priority, ids } => {
                let ids: Vec<u8> = ids.iter().flat_map(|id| *id.as_bytes()).collect();
                push_record(out, REQUEST, &[&flag(high_priority), &ids]);
            }
            Self::Chunk { id, compressed, data } => {
                push_record(out, CHUNK, &[&flag(compressed), id.as_bytes(), data]);
            }
            Self::Missing(id) => push_record(out, MISSING, &[id.as_bytes()]),
            Self::Goodbye => push_record(out, GOODBYE, &[]),
            Self::Abort { code, reason } => push_record(out, ABORT, &[&code.to_le_bytes(), reason.as_bytes(), b"\0"]),
        }
    }
}

/// Appends the beginning of a CHUNK whose `data_len` bytes the caller sends next, so that they are not copied.
pub fn push_chunk_head(id: ChunkId, compressed: bool, data_len: usize, out: &mut Vec<u8>) {
    let size = (CHUNK_HEAD_LEN + data_len) as u64;
    push_words(out, &[size, CHUNK, u64::from(compressed)]);
    out.extend_from_slice(id.as_bytes());
}

/// Appends a REQUEST of ordinary priority.
pub(crate) fn push_request(ids: &[ChunkId], out: &mut Vec<u8>) {
    push_words(out, &[(REQUEST_OVERHEAD + ids.len() * ID_LEN) as u64, REQUEST, 0]);
    ids.iter().for_each(|id| out.extend_from_slice(id.as_bytes()));
}

fn id(bytes: &[u8]) -> ChunkId {
    ChunkId::from_bytes(bytes.try_into().expect("32 bytes"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn all() -> Vec<Frame> {
        let id = |byte| ChunkId::from_bytes([byte; 32]);
        vec![
            Frame::Hello(HelloFlags(0x1fff)),
            Frame::Index(Bytes::from_static(b"index")),
            Frame::IndexEof,
            Frame::Archive(Bytes::from_static(b"archive")),
            Frame::ArchiveEof,
            Frame::Request {
                high_priority: true,
                ids: (0..100).map(id).collect(),
            },
            Frame::Chunk {
                id: id(7),
                compressed: false,
                data: vec![1; 100_000].into(),
            },
            Frame::Missing(id(8)),
            Frame::Goodbye,
            Frame::Abort {
                code: 5,
                reason: "tired".to_owned(),
            },
        ]
    }

    #[test]
    fn frames_round_trip_in_pieces_of_any_size() {
        let mut sent = Vec::new();
        all().iter().for_each(|frame| frame.push(&mut sent));
        for piece in [1, 15, 16, 17, 1000, sent.len()] {
            let mut decoder = FrameDecoder::new();
            let mut got = Vec::new();
            for bytes in sent.chunks(piece) {
                decoder.push(Bytes::copy_from_slice(bytes));
                while let Some(frame) = decoder.next().unwrap() {
                    got.push(frame);
                }
            }
            assert!(decoder.is_between_frames());
            assert_eq!(got, all(), "in pieces of {piece}");
        }
    }

    #[test]
    fn a_chunks_head_is_that_of_its_frame() {
        let (id, data) = (ChunkId::from_bytes([3; 32]), Bytes::from_static(b"data"));
        let mut apart = Vec::new();
        push_chunk_head(id, true, data.len(), &mut apart);
        apart.extend_from_slice(&data);
        let mut whole = Vec::new();
        Frame::Chunk {
            id,
            compressed: true,
            data,
        }
        .push(&mut whole);
        assert_eq!(apart, whole);
    }

    fn rule(size: u64, kind: u64, body: &[u8]) -> &'static str {
        let mut bytes = [size.to_le_bytes(), kind.to_le_bytes()].concat();
        bytes.extend_from_slice(body);
        let mut decoder = FrameDecoder::new();
        decoder.push(bytes.into());
        let error = decoder.next().unwrap_err();
        assert_eq!(decoder.next(), Err(error.clone()), "an error stays");
        assert_eq!(error.offset, 0);
        error.rule
    }

    /// Sizes are judged by the header alone: nothing is waited for, nor is memory taken for it.
    #[test]
    fn what_is_no_frame_is_refused() {
        let size = "its size is not 16 bytes to 16 MiB";
        for bad in [0, 15, (16 << 20) + 1, u64::MAX] {
            assert_eq!(rule(bad, HELLO, b""), size);
        }
        let fits = "its size does not go with its type";
        for (bad, kind) in [
            (16, HELLO),
            (25, HELLO),
            (16, INDEX),
            (17, INDEX_EOF),
            (24, REQUEST),
            (57, REQUEST),
            (56, CHUNK),
            (47, MISSING),
            (24, ABORT),
        ] {
            assert_eq!(rule(bad, kind, b""), fits);
        }
        assert_eq!(rule(16, 1, b""), "it is of unknown type");
        assert_eq!(rule(24, HELLO, &[0; 8]), "a HELLO with no or unknown flags");
        assert_eq!(rule(24, HELLO, &[255; 8]), "a HELLO with no or unknown flags");
        assert_eq!(rule(56, REQUEST, &[2; 40]), "a REQUEST with unknown flags");
        assert_eq!(rule(57, CHUNK, &[2; 41]), "a CHUNK with unknown flags");
        assert_eq!(rule(25, ABORT, &[1; 9]), "an ABORT's text does not end in a NUL");
    }

    #[test]
    fn wants_have_to_be_offered() {
        let client = HelloFlags(HelloFlags::PULL_CHUNKS);
        assert!(client.wants_are_met_by(HelloFlags(HelloFlags::READABLE_STORE)));
        assert!(!client.wants_are_met_by(HelloFlags(HelloFlags::WRITABLE_STORE)));
    }
}
