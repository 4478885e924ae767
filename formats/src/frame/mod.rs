//! Compressed chunk bodies: the content of a `.cacnk` file.
//!
//! Written: exactly one zstd frame with content size and without checksum (the chunk id is one). Read: zstd frames in any
//! number with skippable ones among them, one gzip member, or one xz stream, told apart by magic.
//!
//! Invariants: no output past the caller's bound, no allocation above it (xz adds its dictionary, itself bounded), nothing
//! after the last frame, and every refusal names the offset and the rule. Not here: whether the bytes are the right ones
//! (`chunk.rs`). Hot path: no zeroing, no copy of plain bytes. Byte tables: `formats/FORMATS.md`, "Chunk bodies".

mod foreign;
#[cfg(test)]
mod tests;
mod write;
mod zstd;

use std::borrow::Cow;
use std::ops::Range;

pub use write::{Level, compress_frame, raw_frame};

/// Why bytes are not the compressed form of a chunk.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum FrameError {
    /// It holds more than the bound allows.
    #[error("holds more than the {plain_len_max} bytes allowed")]
    TooLong {
        /// The bound.
        plain_len_max: usize,
        /// What its frame claims to hold, when it claims anything.
        announced: Option<u64>,
    },
    /// It breaks a rule of its format.
    #[error("not a compressed chunk: {rule} (at byte {offset})")]
    Broken {
        /// Offset in the compressed bytes: where the rule is broken, or where the frame or member starts that breaks it.
        offset: usize,
        /// The rule.
        rule: Cow<'static, str>,
    },
}

impl FrameError {
    fn broken(offset: usize, rule: impl Into<Cow<'static, str>>) -> Self {
        Self::Broken {
            offset,
            rule: rule.into(),
        }
    }
}

/// The formats that a chunk body may have.
enum Codec {
    Zstd,
    Gzip,
    Xz,
}

impl Codec {
    fn of(body: &[u8]) -> Result<Self, FrameError> {
        match body {
            [] => Err(FrameError::broken(0, "it is empty")),
            [0x1f, 0x8b, ..] => Ok(Self::Gzip),
            [0xfd, b'7', b'z', b'X', b'Z', 0, ..] => Ok(Self::Xz),
            _ if zstd::is_magic(body) => Ok(Self::Zstd),
            _ => Err(FrameError::broken(
                0,
                "it starts with the magic number of neither zstd nor gzip nor xz",
            )),
        }
    }
}

/// Decodes a compressed chunk into `plain`, whose length is also the bound; how many bytes it has.
///
/// - Reads what [`decompress_frame`] reads. After an error the content of `plain` means nothing.
/// - Errors: [`FrameError::TooLong`] when it holds more than `plain` takes, [`FrameError::Broken`] for any broken rule.
pub fn decompress_frame_into(frame: &[u8], plain: &mut [u8]) -> Result<usize, FrameError> {
    match Codec::of(frame)? {
        Codec::Zstd => zstd::decode_into(frame, plain),
        Codec::Gzip => foreign::gzip_into(frame, plain),
        Codec::Xz => foreign::xz_into(frame, plain),
    }
}

/// The plain bytes of a compressed chunk, at most `plain_len_max` of them.
///
/// - Any number of zstd frames, with or without content size, skippable frames among them; or one gzip member; or one xz
///   stream. A size that a header announces is believed only as far as the frame's own blocks can hold it.
/// - Errors: [`FrameError::TooLong`] above the bound, [`FrameError::Broken`] for any broken rule.
pub fn decompress_frame(frame: &[u8], plain_len_max: usize) -> Result<Vec<u8>, FrameError> {
    match Codec::of(frame)? {
        Codec::Zstd => zstd::decode(frame, plain_len_max),
        Codec::Gzip => foreign::gzip(frame, plain_len_max),
        Codec::Xz => foreign::xz(frame, plain_len_max),
    }
}

/// Where the plain bytes of a compressed chunk lie in it, piece by piece, if it is one zstd frame of raw blocks, so that they
/// can be handed on without decoding. Its checksum, if it has one, is not looked at: the caller proves the chunk by its id.
pub fn raw_pieces(frame: &[u8]) -> Option<Vec<Range<usize>>> {
    zstd::raw_blocks(frame)
}

/// Bytes that a client's frame may have above our own in raw blocks: a longer header, a checksum, more and smaller blocks.
fn frame_len_max(plain_len: usize) -> usize {
    write::raw_frame_len(plain_len) + plain_len / 64 + 64
}

/// Whether every reader of the family takes this body for `plain_len` bytes: exactly one zstd frame, nothing before or after
/// it, hardly longer than the same bytes in raw blocks (a frame can be stuffed with empty blocks).
///
/// Call it for a body that has been decoded: the blocks' content is not looked at.
pub(crate) fn is_one_frame(body: &[u8], plain_len: usize) -> bool {
    body.len() <= frame_len_max(plain_len)
        && zstd::Frame::parse(body, 0)
            .is_ok_and(|frame| frame.kind == zstd::FrameKind::Zstd && frame.range.end == body.len())
}
