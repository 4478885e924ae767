//! Several ranges in one answer: `multipart/byteranges` (RFC 9110, section 14.6).

use std::collections::VecDeque;
use std::ops::Range;
use std::sync::Arc;

use bytes::Bytes;
use cairn_index::names::Content;
use cairn_index::{Objects, Tenant};

use crate::s3::content::Pieces;

/// What a body of several ranges is made of.
pub(super) struct Several {
    /// `Content-Type` of the answer.
    pub(super) content_type: String,
    /// Bytes of it.
    pub(super) len: u64,
    parts: VecDeque<(Bytes, Range<u64>)>,
    end: Bytes,
}

impl Several {
    /// - `kind`: type of the object; `size`: its bytes.
    pub(super) fn of(ranges: Vec<Range<u64>>, kind: &str, size: u64) -> Self {
        let boundary = format!("{:032x}", fastrand::u128(..));
        let mut parts = VecDeque::with_capacity(ranges.len());
        let mut len = 0;
        for range in ranges {
            let (first, last) = (range.start, range.end - 1);
            // The blank line of the first part is the end of the preamble, of which there is none.
            let head = format!(
                "\r\n--{boundary}\r\nContent-Type: {kind}\r\nContent-Range: bytes {first}-{last}/{size}\r\n\r\n"
            );
            len += head.len() as u64 + (range.end - range.start);
            parts.push_back((Bytes::from(head), range));
        }
        let end = Bytes::from(format!("\r\n--{boundary}--\r\n"));
        Self {
            content_type: format!("multipart/byteranges; boundary={boundary}"),
            len: len + end.len() as u64,
            parts,
            end,
        }
    }

    /// The body: each range is opened when the one before it was read.
    pub(super) fn read(self, objects: Arc<Objects>, tenant: Tenant, content: Content) -> Pieces {
        let end = std::iter::once(Ok(self.end));
        let parts = self.parts.into_iter().flat_map(move |(head, range)| {
            let (opened, failed) = match objects.read(&tenant, &content, range) {
                Ok(reader) => (Some(reader), None),
                Err(error) => (None, Some(Err(error))),
            };
            std::iter::once(Ok(head))
                .chain(failed)
                .chain(opened.into_iter().flatten())
        });
        Box::new(parts.chain(end))
    }
}
