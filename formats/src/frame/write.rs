//! Writing: one zstd frame, by libzstd or by hand.
//!
//! By hand go chunks of one byte value (RLE blocks, 20 bytes or so) and those that zstd does not shrink worth decoding (raw
//! blocks: read at the speed of a copy, and their plain bytes lie in the file in one to three pieces).

use std::cell::RefCell;

use super::zstd::BLOCK_LEN_MAX;

/// zstd compression level.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Level(i32);

/// A frame that saves less than one part in this many is written in raw blocks.
const WORTHWHILE_PART: usize = 64;

/// Output memory stays with the thread for chunks up to this; longer ones are rare and would hold it for ever.
const KEPT_PLAIN_LEN_MAX: usize = 1 << 20;

thread_local! {
    static COMPRESSOR: RefCell<(zstd_safe::CCtx<'static>, Vec<u8>)> =
        RefCell::new((zstd_safe::CCtx::create(), Vec::new()));
}

impl Level {
    /// What `cairn make` uses, and casync.
    pub const DEFAULT: Self = Self(3);

    /// A level in zstd's own range, -131072..=22; others are brought into it.
    pub fn new(level: i32) -> Self {
        Self(level.clamp(zstd_safe::min_c_level(), zstd_safe::max_c_level()))
    }
}

/// One zstd frame with content size, without checksum (the chunk id is one).
///
/// Never longer than [`raw_frame`] of the same bytes. The answer has no spare capacity; libzstd's working memory and output
/// stay with the thread, which saves a page fault per 4 KiB.
pub fn compress_frame(plain: &[u8], level: Level) -> Vec<u8> {
    if let Some(&byte) = plain.first()
        && is_all(plain, byte)
    {
        return run_frame(byte, plain.len());
    }
    COMPRESSOR.with_borrow_mut(|(context, kept)| {
        let mut own = Vec::new();
        let output = if plain.len() <= KEPT_PLAIN_LEN_MAX {
            kept
        } else {
            &mut own
        };
        output.clear();
        output.reserve(zstd_safe::compress_bound(plain.len()));
        context
            .compress(output, plain, level.0)
            .expect("the output has the size that zstd asks for");
        if output.len() + plain.len() / WORTHWHILE_PART < raw_frame_len(plain.len()) {
            output.as_slice().to_vec()
        } else {
            raw_frame(plain)
        }
    })
}

/// One zstd frame that holds `plain` as it is: no compression, nothing to decode but a copy.
pub fn raw_frame(plain: &[u8]) -> Vec<u8> {
    let mut frame = Vec::with_capacity(raw_frame_len(plain.len()));
    push_header(&mut frame, plain.len());
    let mut rest = plain;
    loop {
        let (block, after) = rest.split_at(rest.len().min(BLOCK_LEN_MAX));
        push_block(&mut frame, Block::Raw, block.len(), after.is_empty());
        frame.extend_from_slice(block);
        rest = after;
        if rest.is_empty() {
            return frame;
        }
    }
}

/// Length of [`raw_frame`] of `plain_len` bytes.
pub(super) fn raw_frame_len(plain_len: usize) -> usize {
    let (_, _, size_len) = content_size(plain_len);
    5 + size_len + 3 * plain_len.div_ceil(BLOCK_LEN_MAX).max(1) + plain_len
}

/// One frame of `len` times `byte`, at least once.
///
/// Only the blocks after the first are RLE: zstd before 1.4.4 stumbles over a stream that starts with one, which is why
/// libzstd does not write it either.
fn run_frame(byte: u8, len: usize) -> Vec<u8> {
    let mut frame = Vec::new();
    push_header(&mut frame, len);
    push_block(&mut frame, Block::Raw, 1, len == 1);
    frame.push(byte);
    let mut rest = len - 1;
    while rest > 0 {
        let block = rest.min(BLOCK_LEN_MAX);
        rest -= block;
        push_block(&mut frame, Block::Run, block, rest == 0);
        frame.push(byte);
    }
    frame
}

/// Magic, descriptor (single segment, no checksum, no dictionary) and content size in the fewest bytes.
fn push_header(frame: &mut Vec<u8>, plain_len: usize) {
    const SINGLE_SEGMENT: u8 = 0b10_0000;
    frame.extend_from_slice(&[0x28, 0xb5, 0x2f, 0xfd]);
    let (code, number, len) = content_size(plain_len);
    frame.push(code << 6 | SINGLE_SEGMENT);
    frame.extend_from_slice(&number.to_le_bytes()[..len]);
}

/// A content size as a header has it: code in the descriptor, number, its length in bytes.
fn content_size(plain_len: usize) -> (u8, u64, usize) {
    let len = plain_len as u64;
    match len {
        0..=255 => (0, len, 1),
        256..=65_791 => (1, len - 256, 2),
        65_792..=0xffff_ffff => (2, len, 4),
        _ => (3, len, 8),
    }
}

#[derive(Clone, Copy)]
enum Block {
    Raw = 0,
    Run = 1,
}

fn push_block(frame: &mut Vec<u8>, block: Block, len: usize, last: bool) {
    let header = (len as u32) << 3 | (block as u32) << 1 | u32::from(last);
    frame.extend_from_slice(&header.to_le_bytes()[..3]);
}

/// Whether all bytes are `byte`. Most chunks are told in the first few.
fn is_all(plain: &[u8], byte: u8) -> bool {
    plain[0] == byte && plain[1..] == plain[..plain.len() - 1]
}
