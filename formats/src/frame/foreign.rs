//! Reading gzip and xz, which casync writes on request. Not a hot path: output is grown by doubling, zeroed.

use std::cell::Cell;
use std::io::Read;

use super::FrameError;

/// The most that the xz decoder may take for its dictionary and itself, in KiB: presets up to 7. casync writes preset 6.
const XZ_MEMORY_KIB_MAX: u32 = 17 << 10;
/// The first piece of output that memory is taken for.
const GROW_LEN_MIN: usize = 64 << 10;

pub(super) fn gzip_into(body: &[u8], plain: &mut [u8]) -> Result<usize, FrameError> {
    Foreign::gzip(body).fill(plain)
}

pub(super) fn gzip(body: &[u8], plain_len_max: usize) -> Result<Vec<u8>, FrameError> {
    Foreign::gzip(body).all(plain_len_max)
}

pub(super) fn xz_into(body: &[u8], plain: &mut [u8]) -> Result<usize, FrameError> {
    let at = Cell::new(0);
    Foreign::xz(body, &at).fill(plain)
}

pub(super) fn xz(body: &[u8], plain_len_max: usize) -> Result<Vec<u8>, FrameError> {
    let at = Cell::new(0);
    Foreign::xz(body, &at).all(plain_len_max)
}

/// The body, and how far the decoder has read it.
struct Source<'a> {
    body: &'a [u8],
    at: &'a Cell<usize>,
}

impl Read for Source<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        let read = (&self.body[self.at.get()..]).read(buffer)?;
        self.at.set(self.at.get() + read);
        Ok(read)
    }
}

/// A decoder of one member or stream.
enum Foreign<'a> {
    Gzip {
        body: &'a [u8],
        decoder: flate2::bufread::GzDecoder<&'a [u8]>,
    },
    Xz {
        body: &'a [u8],
        at: &'a Cell<usize>,
        decoder: Box<lzma_rust2::XzReader<Source<'a>>>,
    },
}

impl<'a> Foreign<'a> {
    fn gzip(body: &'a [u8]) -> Self {
        Self::Gzip {
            body,
            decoder: flate2::bufread::GzDecoder::new(body),
        }
    }

    fn xz(body: &'a [u8], at: &'a Cell<usize>) -> Self {
        let source = Source { body, at };
        Self::Xz {
            body,
            at,
            decoder: Box::new(lzma_rust2::XzReader::new_mem_limit(source, false, XZ_MEMORY_KIB_MAX)),
        }
    }

    fn consumed(&self) -> usize {
        match self {
            Self::Gzip { body, decoder } => body.len() - decoder.get_ref().len(),
            Self::Xz { at, .. } => at.get(),
        }
    }

    /// Reads until `plain` is full or the stream has ended; how many bytes were read.
    fn read(&mut self, plain: &mut [u8]) -> Result<usize, FrameError> {
        let mut filled = 0;
        while filled < plain.len() {
            let (name, read) = match self {
                Self::Gzip { decoder, .. } => ("gzip member", decoder.read(&mut plain[filled..])),
                Self::Xz { decoder, .. } => ("xz stream", decoder.read(&mut plain[filled..])),
            };
            match read {
                Ok(0) => break,
                Ok(read) => filled += read,
                Err(error) if error.kind() == std::io::ErrorKind::Interrupted => {}
                Err(error) => return Err(FrameError::broken(self.consumed(), format!("{name}: {error}"))),
            }
        }
        Ok(filled)
    }

    /// Checks that the stream ends here, and the body with it.
    fn finish(mut self, plain_len_max: usize) -> Result<(), FrameError> {
        if self.read(&mut [0])? != 0 {
            return Err(FrameError::TooLong {
                plain_len_max,
                announced: None,
            });
        }
        let (Self::Gzip { body, .. } | Self::Xz { body, .. }) = self;
        if self.consumed() != body.len() {
            return Err(FrameError::broken(
                self.consumed(),
                "bytes follow the compressed stream",
            ));
        }
        Ok(())
    }

    fn fill(mut self, plain: &mut [u8]) -> Result<usize, FrameError> {
        let filled = self.read(plain)?;
        self.finish(plain.len())?;
        Ok(filled)
    }

    fn all(mut self, plain_len_max: usize) -> Result<Vec<u8>, FrameError> {
        let mut plain = Vec::new();
        loop {
            let filled = plain.len();
            let room = filled.max(GROW_LEN_MIN).min(plain_len_max - filled);
            plain.reserve_exact(room);
            plain.resize(filled + room, 0);
            let read = self.read(&mut plain[filled..])?;
            plain.truncate(filled + read);
            if read < room || filled + read == plain_len_max {
                self.finish(plain_len_max)?;
                return Ok(plain);
            }
        }
    }
}
