//! zstd as clients send it: any number of frames, cut anywhere into messages.
//!
//! Memory: the window that a frame asks for, up to [`WINDOW_LOG_MAX`], and one piece of plain bytes. Plain bytes are handed on as
//! they come, so what a few bytes blow up to is bounded by whoever takes them.

use std::fmt;

use tonic::Status;
use zstd_safe::{DCtx, DParameter, InBuffer, OutBuffer};

use super::error::Answer;

/// A frame may ask for a window of two to the power of this, 8 MiB: what levels up to 19 use.
const WINDOW_LOG_MAX: u32 = 23;
/// Plain bytes handed on together.
const PIECE_LEN: usize = 128 << 10;

/// Decodes frames as their bytes come.
pub(super) struct Decoder {
    context: DCtx<'static>,
    piece: Vec<u8>,
    /// The last frame has ended, or none has begun.
    at_end: bool,
}

impl fmt::Debug for Decoder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Decoder").field("at_end", &self.at_end).finish()
    }
}

impl Decoder {
    /// At the beginning of a frame.
    pub(super) fn new() -> Answer<Self> {
        let mut context = DCtx::create();
        context
            .set_parameter(DParameter::WindowLogMax(WINDOW_LOG_MAX))
            .map_err(failed)?;
        Ok(Self {
            context,
            piece: Vec::with_capacity(PIECE_LEN),
            at_end: true,
        })
    }

    /// Takes the next bytes; hands plain ones on.
    ///
    /// Errors: `INVALID_ARGUMENT` for what is no zstd; those of `take`.
    pub(super) fn push(&mut self, bytes: &[u8], mut take: impl FnMut(&[u8]) -> Answer<()>) -> Answer<()> {
        let mut input = InBuffer::around(bytes);
        loop {
            self.piece.clear();
            let is_idle = self.at_end && input.pos() == bytes.len();
            let mut output = OutBuffer::around(&mut self.piece);
            let hint = self
                .context
                .decompress_stream(&mut output, &mut input)
                .map_err(failed)?;
            let is_full = output.pos() == PIECE_LEN;
            // Asked for nothing between two frames, it tells what it would like of the next.
            self.at_end = hint == 0 || is_idle;
            if !self.piece.is_empty() {
                take(&self.piece)?;
            }
            // A full piece may have left plain bytes behind in the decoder.
            if input.pos() == bytes.len() && !is_full {
                return Ok(());
            }
        }
    }

    /// Whether all frames that began have ended.
    pub(super) fn is_at_end(&self) -> bool {
        self.at_end
    }
}

fn failed(code: usize) -> super::error::Failed {
    Status::invalid_argument(format!(
        "the bytes are no zstd that is taken here: {}",
        zstd_safe::get_error_name(code).to_lowercase()
    ))
    .into()
}

/// Decodes all of some frames.
///
/// - `len`: plain bytes that they have to give.
pub(super) fn decode(bytes: &[u8], len: usize) -> Answer<Vec<u8>> {
    let mut decoder = Decoder::new()?;
    let mut plain = Vec::with_capacity(len);
    decoder.push(bytes, |piece| {
        if plain.len() + piece.len() > len {
            return Err(Status::invalid_argument("there are more bytes than the digest says").into());
        }
        plain.extend_from_slice(piece);
        Ok(())
    })?;
    if plain.len() != len || !decoder.is_at_end() {
        return Err(Status::invalid_argument("there are fewer bytes than the digest says").into());
    }
    Ok(plain)
}

#[cfg(test)]
mod tests {
    use cairn_formats::{Level, compress_frame, raw_frame};
    use proptest::prelude::*;

    use super::*;

    fn frames(plain: &[u8]) -> Vec<u8> {
        let (first, second) = plain.split_at(plain.len() / 3);
        let skippable = [&[0x50, 0x2a, 0x4d, 0x18, 3, 0, 0, 0][..], b"abc"].concat();
        [compress_frame(first, Level::new(3)), skippable, raw_frame(second)].concat()
    }

    #[test]
    fn what_is_cut_short_goes_on_or_is_no_zstd_is_refused() {
        let plain: Vec<u8> = (0..600_000_u32).flat_map(|n| (n / 7).to_le_bytes()).collect();
        let coded = frames(&plain);
        assert_eq!(decode(&coded, plain.len()).unwrap(), plain);
        for (bytes, len) in [
            (&coded[..coded.len() - 1], plain.len()),
            (&coded[..], plain.len() - 1),
            (&coded[..], plain.len() + 1),
            (&coded[1..], plain.len()),
            (b"", 1),
        ] {
            assert!(decode(bytes, len).is_err());
        }
        assert_eq!(decode(b"", 0).unwrap(), b"");
    }

    #[test]
    fn a_frame_that_asks_for_a_large_window_is_refused() {
        let mut context = zstd_safe::CCtx::create();
        context.set_parameter(zstd_safe::CParameter::WindowLog(27)).unwrap();
        context
            .set_parameter(zstd_safe::CParameter::ContentSizeFlag(false))
            .unwrap();
        let mut coded = Vec::with_capacity(1 << 20);
        let mut output = OutBuffer::around(&mut coded);
        let plain = vec![7; 1000];
        let mut input = InBuffer::around(&plain);
        context.compress_stream(&mut output, &mut input).unwrap();
        context.end_stream(&mut output).unwrap();
        assert!(decode(&coded, plain.len()).is_err());
    }

    proptest! {
        #[test]
        fn frames_may_be_cut_anywhere(plain in prop::collection::vec(0_u8..4, 0..5000), cuts in prop::collection::vec(1_usize..700, 1..20)) {
            let coded = frames(&plain);
            let (mut decoder, mut read, mut rest) = (Decoder::new().unwrap(), Vec::new(), &coded[..]);
            for cut in cuts.iter().cycle() {
                if rest.is_empty() { break; }
                let (now, later) = rest.split_at((*cut).min(rest.len()));
                decoder.push(now, |piece| { read.extend_from_slice(piece); Ok(()) }).unwrap();
                rest = later;
            }
            prop_assert!(decoder.is_at_end());
            prop_assert_eq!(read, plain);
        }
    }
}
