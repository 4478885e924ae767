//! The end of a connection whose client may still be sending.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::Sleep;

use crate::serve::Shutdown;

/// Bytes dropped at once.
const DROPPED_LEN: usize = 16 << 10;

/// A stream that, once its own side has ended, takes and drops what still comes: until the other side has ended too, or for a time.
///
/// A socket that is closed with bytes unread resets its connection, and a client that learns of this first never reads the answer
/// which refuses what it is sending (RFC 9112, 9.6).
#[derive(Debug)]
pub(crate) struct Lingering<S> {
    stream: S,
    most: Duration,
    /// Once it has begun nobody is waited for: who serves the connection polls it then.
    shutdown: Shutdown,
    /// Its own side has ended, and when the other has to.
    end: Option<Pin<Box<Sleep>>>,
}

impl<S> Lingering<S> {
    /// - `most`: how long bytes are taken after the end of its own side.
    pub(crate) fn new(stream: S, most: Duration, shutdown: Shutdown) -> Self {
        Self {
            stream,
            most,
            shutdown,
            end: None,
        }
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Lingering<S> {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, into: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(cx, into)
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> AsyncWrite for Lingering<S> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(cx, bytes)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        pieces: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write_vectored(cx, pieces)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let Self {
            stream,
            most,
            shutdown,
            end,
        } = &mut *self;
        let end = match end {
            Some(end) => end,
            None => {
                ready!(Pin::new(&mut *stream).poll_shutdown(cx))?;
                end.insert(Box::pin(tokio::time::sleep(*most)))
            }
        };
        let mut dropped = [0; DROPPED_LEN];
        loop {
            let mut dropped = ReadBuf::new(&mut dropped);
            if most.is_zero() || shutdown.has_begun() || end.as_mut().poll(cx).is_ready() {
                return Poll::Ready(Ok(()));
            }
            match ready!(Pin::new(&mut *stream).poll_read(cx, &mut dropped)) {
                Ok(()) if !dropped.filled().is_empty() => {}
                // The other side has ended, one way or another.
                _ => return Poll::Ready(Ok(())),
            }
        }
    }
}
