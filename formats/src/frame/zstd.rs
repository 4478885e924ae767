//! Reading zstd frames: the layout is walked here, the blocks are decoded by libzstd in one step.
//!
//! Walking first (a few bytes per 128 KiB) tells how much a frame can hold at most, whatever its header announces. With that
//! the output has its final size before decoding starts, libzstd uses it as its window, and no header can make it allocate.
//! Source: RFC 8878.

use std::cell::RefCell;
use std::ops::Range;

use super::FrameError;

const MAGIC: u32 = 0xfd2f_b528;
const SKIPPABLE_MAGIC: u32 = 0x184d_2a50;
/// The most bytes in a block (RFC 8878, section 3.1.1.2.3).
pub(super) const BLOCK_LEN_MAX: usize = 128 << 10;
/// The largest window that readers of streams accept unasked (libzstd: `ZSTD_WINDOWLOG_LIMIT_DEFAULT`, 27), casync's too.
const WINDOW_LEN_MAX: u64 = 1 << 27;
/// libzstd's `ZSTD_error_dstSize_tooSmall`, as its functions return it.
const OUTPUT_TOO_SMALL: usize = 0_usize.wrapping_sub(70);

thread_local! {
    static DECOMPRESSOR: RefCell<zstd_safe::DCtx<'static>> = RefCell::new(zstd_safe::DCtx::create());
}

/// What a frame is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum FrameKind {
    /// Holds content.
    Zstd,
    /// Holds something for others.
    Skippable,
}

/// Where a frame lies and what it can hold.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Frame {
    pub(super) kind: FrameKind,
    pub(super) range: Range<usize>,
    /// Content size in the header. Never above `plain_len_max`.
    announced: Option<u64>,
    /// Content of the raw and RLE blocks.
    plain_len_min: u64,
    /// The same, and the most that the compressed blocks can hold.
    plain_len_max: u64,
}

/// Whether a frame that this module reads starts here.
pub(super) fn is_magic(body: &[u8]) -> bool {
    number::<4>(body, 0).is_some_and(|magic| magic == MAGIC.into() || is_skippable(magic))
}

fn is_skippable(magic: u64) -> bool {
    magic & !0xf == u64::from(SKIPPABLE_MAGIC)
}

/// The little-endian number of `N` bytes at `at`, if there are so many.
fn number<const N: usize>(body: &[u8], at: usize) -> Option<u64> {
    let bytes = body.get(at..)?.get(..N)?;
    Some(
        bytes
            .iter()
            .rev()
            .fold(0, |number, &byte| number << 8 | u64::from(byte)),
    )
}

impl Frame {
    /// Walks the frame that starts at `start`: header, block headers, end.
    pub(super) fn parse(body: &[u8], start: usize) -> Result<Self, FrameError> {
        let cut = || FrameError::broken(body.len(), "the zstd frame is cut short");
        let magic = number::<4>(body, start).ok_or_else(cut)?;
        if is_skippable(magic) {
            let len = number::<4>(body, start + 4).ok_or_else(cut)?;
            let end = (start as u64 + 8)
                .checked_add(len)
                .filter(|&end| end <= body.len() as u64);
            return Ok(Self {
                kind: FrameKind::Skippable,
                range: start..usize::try_from(end.ok_or_else(cut)?).map_err(|_| cut())?,
                announced: Some(0),
                plain_len_min: 0,
                plain_len_max: 0,
            });
        }
        if magic != MAGIC.into() {
            return Err(FrameError::broken(
                start,
                "bytes that are no zstd frame follow the last one",
            ));
        }
        let mut at = start + 4;
        let header = Header::parse(body, &mut at, start)?;
        let block_len_max = header.window_len.min(BLOCK_LEN_MAX as u64);
        let (mut plain_len_min, mut plain_len_max) = (0, 0);
        loop {
            let block = number::<3>(body, at).ok_or_else(cut)?;
            let (last, kind, len) = (block & 1 == 1, block >> 1 & 3, block >> 3);
            if len > block_len_max {
                return Err(FrameError::broken(
                    at,
                    format!("zstd block of {len} bytes, its frame allows {block_len_max}"),
                ));
            }
            at += 3;
            match kind {
                0 => {
                    plain_len_min += len;
                    plain_len_max += len;
                    at += len as usize;
                }
                1 => {
                    plain_len_min += len;
                    plain_len_max += len;
                    at += 1;
                }
                2 => {
                    plain_len_max += block_len_max;
                    at += len as usize;
                }
                _ => return Err(FrameError::broken(at - 3, "zstd block of the reserved type")),
            }
            if at > body.len() {
                return Err(cut());
            }
            if last {
                break;
            }
        }
        if header.checksum {
            at += 4;
        }
        if at > body.len() {
            return Err(cut());
        }
        if let Some(announced) = header.content_len
            && !(plain_len_min..=plain_len_max).contains(&announced)
        {
            return Err(FrameError::broken(
                start,
                format!(
                    "the zstd frame announces {announced} bytes, its blocks hold {plain_len_min} to {plain_len_max}"
                ),
            ));
        }
        Ok(Self {
            kind: FrameKind::Zstd,
            range: start..at,
            announced: header.content_len,
            plain_len_min,
            plain_len_max,
        })
    }

    /// How many of `room` bytes the content may take.
    fn room(&self, room: usize, plain_len_max: usize) -> Result<usize, FrameError> {
        if self.announced.unwrap_or(self.plain_len_min) > room as u64 {
            return Err(FrameError::TooLong {
                plain_len_max,
                announced: self.announced,
            });
        }
        Ok(room.min(usize::try_from(self.announced.unwrap_or(self.plain_len_max)).unwrap_or(usize::MAX)))
    }

    /// What libzstd's refusal of this frame means, given `room` bytes of output.
    fn refused(&self, code: usize, plain_len_max: usize) -> FrameError {
        if code == OUTPUT_TOO_SMALL && self.announced.is_none() {
            return FrameError::TooLong {
                plain_len_max,
                announced: None,
            };
        }
        let rule = match code {
            OUTPUT_TOO_SMALL => "zstd frame: holds more than it announces".to_owned(),
            _ => format!("zstd frame: {}", zstd_safe::get_error_name(code).to_lowercase()),
        };
        FrameError::broken(self.range.start, rule)
    }
}

/// A zstd frame's header.
struct Header {
    window_len: u64,
    content_len: Option<u64>,
    checksum: bool,
}

impl Header {
    /// Reads the header whose magic ends at `at`, and moves `at` to its end.
    fn parse(body: &[u8], at: &mut usize, start: usize) -> Result<Self, FrameError> {
        let cut = || FrameError::broken(body.len(), "the zstd frame's header is cut short");
        let mut next = |len: usize| {
            let number = match len {
                0 => Some(0),
                1 => number::<1>(body, *at),
                2 => number::<2>(body, *at),
                4 => number::<4>(body, *at),
                _ => number::<8>(body, *at),
            };
            *at += len;
            number.ok_or_else(cut)
        };
        let descriptor = next(1)?;
        if descriptor & 0b1000 != 0 {
            return Err(FrameError::broken(start + 4, "zstd frame with the reserved bit set"));
        }
        let single_segment = descriptor & 0b10_0000 != 0;
        let window = if single_segment { None } else { Some(next(1)?) };
        if next([0, 1, 2, 4][(descriptor & 3) as usize])? != 0 {
            return Err(FrameError::broken(start, "zstd frame that needs a dictionary"));
        }
        let content_len = match descriptor >> 6 {
            0 if !single_segment => None,
            0 => Some(next(1)?),
            1 => Some(next(2)? + 256),
            2 => Some(next(4)?),
            _ => Some(next(8)?),
        };
        // The window is the whole content when there is a single segment, else 2^(10+e) and m eighths more.
        let window_len = match (window, content_len) {
            (Some(window), _) => {
                let base = 1_u64 << (10 + (window >> 3));
                base + base / 8 * (window & 7)
            }
            (None, content_len) => content_len.unwrap_or(0),
        };
        if window_len > WINDOW_LEN_MAX {
            return Err(FrameError::broken(
                start,
                format!("zstd frame with a window of {window_len} bytes, at most {WINDOW_LEN_MAX} are read"),
            ));
        }
        Ok(Self {
            window_len,
            content_len,
            checksum: descriptor & 0b100 != 0,
        })
    }
}

/// Where the plain bytes of a body lie in it, piece by piece, if it is one frame that holds them as they are.
pub(super) fn raw_blocks(body: &[u8]) -> Option<Vec<Range<usize>>> {
    let mut at = 4;
    if number::<4>(body, 0)? != MAGIC.into() {
        return None;
    }
    let header = Header::parse(body, &mut at, 0).ok()?;
    let (mut pieces, mut plain_len) = (Vec::new(), 0);
    loop {
        let block = number::<3>(body, at)?;
        let (last, kind, len) = (block & 1 == 1, block >> 1 & 3, block >> 3);
        let piece = at + 3..at + 3 + len as usize;
        if kind != 0 || len > header.window_len.min(BLOCK_LEN_MAX as u64) || piece.end > body.len() {
            return None;
        }
        at = piece.end;
        plain_len += len;
        if len > 0 {
            pieces.push(piece);
        }
        if last {
            break;
        }
    }
    let end = at + if header.checksum { 4 } else { 0 };
    (end == body.len() && header.content_len.is_none_or(|announced| announced == plain_len)).then_some(pieces)
}

/// The frames of a body, in order; stops at the first error.
fn frames(body: &[u8]) -> impl Iterator<Item = Result<Frame, FrameError>> + '_ {
    let mut next = Some(0);
    std::iter::from_fn(move || {
        let start = next.filter(|&start| start < body.len())?;
        let frame = Frame::parse(body, start);
        next = frame.as_ref().ok().map(|frame| frame.range.end);
        Some(frame)
    })
}

pub(super) fn decode_into(body: &[u8], plain: &mut [u8]) -> Result<usize, FrameError> {
    let (plain_len_max, mut filled) = (plain.len(), 0);
    for frame in frames(body) {
        let frame = frame?;
        if frame.kind == FrameKind::Skippable {
            continue;
        }
        let room = frame.room(plain_len_max - filled, plain_len_max)?;
        filled += DECOMPRESSOR
            .with_borrow_mut(|context| {
                context.decompress(&mut plain[filled..filled + room], &body[frame.range.clone()])
            })
            .map_err(|code| frame.refused(code, plain_len_max))?;
    }
    Ok(filled)
}

pub(super) fn decode(body: &[u8], plain_len_max: usize) -> Result<Vec<u8>, FrameError> {
    let mut plain = Vec::new();
    for frame in frames(body) {
        let frame = frame?;
        if frame.kind == FrameKind::Skippable {
            continue;
        }
        // Memory of exactly this size, not zeroed: libzstd stops at its end.
        let room = frame.room(plain_len_max - plain.len(), plain_len_max)?;
        let mut content = Vec::with_capacity(room);
        DECOMPRESSOR
            .with_borrow_mut(|context| context.decompress(&mut content, &body[frame.range.clone()]))
            .map_err(|code| frame.refused(code, plain_len_max))?;
        if plain.is_empty() {
            plain = content;
        } else {
            plain.reserve_exact(content.len());
            plain.extend_from_slice(&content);
        }
    }
    Ok(plain)
}
