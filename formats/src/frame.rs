//! `.cacnk` frames: the compressed form of a chunk.

use std::cell::RefCell;

/// zstd compression level.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Level(i32);

/// Why bytes are not the compressed form of a chunk.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum FrameError {
    /// It holds more than the bound allows.
    #[error("holds more than the {plain_len_max} bytes allowed")]
    TooLong {
        /// The bound.
        plain_len_max: usize,
    },
    /// The decoder refuses it.
    #[error("not a zstd frame: {reason}")]
    Zstd {
        /// The decoder's word for it.
        reason: &'static str,
    },
}

impl Level {
    /// What `cairn make` uses, and casync.
    pub const DEFAULT: Self = Self(3);

    /// A level in zstd's own range, -131072..=22; others are brought into it.
    pub fn new(level: i32) -> Self {
        Self(level.clamp(zstd_safe::min_c_level(), zstd_safe::max_c_level()))
    }
}

thread_local! {
    static COMPRESSOR: RefCell<zstd_safe::CCtx<'static>> = RefCell::new(zstd_safe::CCtx::create());
    static DECOMPRESSOR: RefCell<zstd_safe::DCtx<'static>> = RefCell::new(zstd_safe::DCtx::create());
}

/// One zstd frame with content size, without checksum (the chunk id is one).
pub fn compress_frame(plain: &[u8], level: Level) -> Vec<u8> {
    let mut frame = Vec::with_capacity(zstd_safe::compress_bound(plain.len()));
    COMPRESSOR
        .with_borrow_mut(|context| context.compress(&mut frame, plain, level.0))
        .expect("the output has the size that zstd asks for");
    frame
}

/// Decodes a compressed chunk into `plain`, which is also the bound; how many bytes it has.
pub fn decompress_frame_into(frame: &[u8], plain: &mut [u8]) -> Result<usize, FrameError> {
    DECOMPRESSOR
        .with_borrow_mut(|context| context.decompress(plain, frame))
        .map_err(|code| FrameError::Zstd {
            reason: zstd_safe::get_error_name(code),
        })
}

/// The plain bytes of a compressed chunk, at most `plain_len_max` of them.
pub fn decompress_frame(frame: &[u8], plain_len_max: usize) -> Result<Vec<u8>, FrameError> {
    let announced = match zstd_safe::get_frame_content_size(frame) {
        Ok(Some(len)) => usize::try_from(len).unwrap_or(usize::MAX),
        _ => plain_len_max,
    };
    if announced > plain_len_max {
        return Err(FrameError::TooLong { plain_len_max });
    }
    let mut plain = Vec::with_capacity(announced);
    zstd_safe::decompress(&mut plain, frame).map_err(|code| FrameError::Zstd {
        reason: zstd_safe::get_error_name(code),
    })?;
    Ok(plain)
}
