//! Bytes that came in pieces, taken out in other pieces; copied only where a piece wanted lies across two that came.

use std::collections::VecDeque;

use bytes::Bytes;

/// A queue of bytes.
#[derive(Debug, Default)]
pub(crate) struct Input {
    pieces: VecDeque<Bytes>,
    len: u64,
}

impl Input {
    pub(crate) fn push(&mut self, bytes: Bytes) {
        if !bytes.is_empty() {
            self.len += bytes.len() as u64;
            self.pieces.push_back(bytes);
        }
    }

    /// Bytes that are there.
    pub(crate) fn len(&self) -> u64 {
        self.len
    }

    /// The next `N` bytes, which stay.
    pub(crate) fn peek<const N: usize>(&self) -> Option<[u8; N]> {
        let mut bytes = [0; N];
        let mut filled = 0;
        for piece in &self.pieces {
            let len = piece.len().min(N - filled);
            bytes[filled..filled + len].copy_from_slice(&piece[..len]);
            filled += len;
            if filled == N {
                return Some(bytes);
            }
        }
        None
    }

    /// The next bytes that lie together, `max` at most; `None` when there are none.
    pub(crate) fn take_some(&mut self, max: u64) -> Option<Bytes> {
        let front = self.pieces.front_mut()?;
        let bytes = front.split_to(max.min(front.len() as u64) as usize);
        if front.is_empty() {
            self.pieces.pop_front();
        }
        self.len -= bytes.len() as u64;
        Some(bytes)
    }

    /// The next `len` bytes, or `None` while they are not all there.
    pub(crate) fn take(&mut self, len: u64) -> Option<Bytes> {
        if self.len < len {
            return None;
        }
        let first = self.take_some(len).unwrap_or_default();
        if first.len() as u64 == len {
            return Some(first);
        }
        let mut bytes = Vec::with_capacity(len as usize);
        bytes.extend_from_slice(&first);
        while let Some(more) = self.take_some(len - bytes.len() as u64)
            && !more.is_empty()
        {
            bytes.extend_from_slice(&more);
        }
        Some(bytes.into())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pieces_come_out_as_they_are_wanted() {
        let mut input = Input::default();
        for piece in [&b"ab"[..], b"", b"cde", b"f"] {
            input.push(Bytes::from_static(piece));
        }
        assert_eq!(input.peek::<4>(), Some(*b"abcd"));
        assert_eq!(input.peek::<7>(), None);
        assert_eq!(input.take(7), None);
        assert_eq!(input.take(0), Some(Bytes::new()));
        assert_eq!(input.take(3).as_deref(), Some(&b"abc"[..]));
        assert_eq!(input.take_some(9).as_deref(), Some(&b"de"[..]));
        assert_eq!(input.take(1).as_deref(), Some(&b"f"[..]));
        assert_eq!((input.len(), input.take_some(1)), (0, None));
    }
}
