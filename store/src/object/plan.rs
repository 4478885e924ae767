//! Which bytes of which packs make a range: pages are resolved with one look-up each, neighbours are read together.
//!
//! Resolved pages are kept until a pack goes; a place that is out of date all the same is found out by who reads it.

use std::ops::Range;
use std::sync::Arc;

use cairn_formats::ChunkId;

use super::read::RangeReads;
use super::{ObjectChunks, PAGE_LEN};
use crate::pack::ChunkPlace;
use crate::{Error, Result};

/// A page whose chunks have been looked up.
#[derive(Debug)]
pub(super) struct Page {
    /// Of the store's packs, when that was.
    pub(super) generation: u64,
    /// Where the object's chunks begin and end: one more than chunks.
    cuts: Vec<u64>,
    ids: Vec<ChunkId>,
    places: Vec<Option<ChunkPlace>>,
}

/// A chunk of which bytes are wanted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Wanted {
    pub(super) id: ChunkId,
    pub(super) plain_len: usize,
    /// Of its plain bytes.
    pub(super) bytes: Range<usize>,
    pub(super) place: Option<ChunkPlace>,
}

impl Wanted {
    pub(super) fn is_whole(&self) -> bool {
        self.bytes.len() == self.plain_len
    }
}

/// The rest of a range, cut into extents: chunks that lie one behind the other in one pack.
#[derive(Debug)]
pub(super) struct Plan {
    reads: Arc<RangeReads>,
    object: Arc<dyn ObjectChunks>,
    range: Range<u64>,
    page: usize,
    resolved: Option<Arc<Page>>,
    /// Which chunk of the page is next.
    next: usize,
}

impl Plan {
    /// - `range`: bytes of the object; what lies behind its end is left out.
    pub(super) fn new(reads: Arc<RangeReads>, object: Arc<dyn ObjectChunks>, range: Range<u64>) -> Self {
        let range = range.start..range.end.min(object.object_len());
        let (mut low, mut high) = (0, object.pages());
        while low < high {
            let middle = low + (high - low) / 2;
            if object.page_start(middle) <= range.start {
                low = middle + 1;
            } else {
                high = middle;
            }
        }
        Self {
            reads,
            object,
            range,
            page: low.saturating_sub(1),
            resolved: None,
            next: 0,
        }
    }

    /// The next extent; none behind the last.
    pub(super) fn next(&mut self) -> Result<Option<Vec<Wanted>>> {
        let mut extent: Vec<Wanted> = Vec::new();
        let mut plain_len = 0;
        while let Some(wanted) = self.peek()? {
            if !self.reads.options().join(&extent, plain_len, &wanted) {
                break;
            }
            plain_len += wanted.bytes.len() as u64;
            self.range.start += wanted.bytes.len() as u64;
            self.next += 1;
            extent.push(wanted);
        }
        Ok((!extent.is_empty()).then_some(extent))
    }

    /// The first chunk of what is left.
    fn peek(&mut self) -> Result<Option<Wanted>> {
        while self.range.start < self.range.end && self.page < self.object.pages() {
            let page = match &self.resolved {
                Some(page) => page,
                None => {
                    let page = self.reads.resolve(&*self.object, self.page)?;
                    self.next = page
                        .cuts
                        .partition_point(|&cut| cut <= self.range.start)
                        .saturating_sub(1);
                    self.resolved.insert(page)
                }
            };
            let Some(&id) = page.ids.get(self.next) else {
                self.page += 1;
                self.resolved = None;
                continue;
            };
            let (start, end) = (page.cuts[self.next], page.cuts[self.next + 1]);
            return Ok(Some(Wanted {
                id,
                plain_len: (end - start) as usize,
                bytes: (self.range.start - start) as usize..(self.range.end.min(end) - start) as usize,
                place: page.places[self.next],
            }));
        }
        Ok(None)
    }
}

impl Page {
    /// Looks the chunks of a page up, all at once.
    pub(super) fn look_up(reads: &RangeReads, object: &dyn ObjectChunks, page: usize) -> Result<Self> {
        let spans = object.page(page)?;
        // Before looking: what goes meanwhile makes the page old.
        let generation = reads.store().engine().generation();
        let mut cuts = Vec::with_capacity(PAGE_LEN + 1);
        cuts.push(object.page_start(page));
        for span in &spans {
            if span.range.start != cuts[cuts.len() - 1] || span.range.is_empty() {
                return Err(Error::Unavailable {
                    store: reads.store().engine().name().clone(),
                    action: "read an object: its list of chunks has gaps",
                    source: format!("chunk {} at byte {}", span.id, span.range.start).into(),
                });
            }
            cuts.push(span.range.end);
        }
        let ids: Vec<ChunkId> = spans.iter().map(|span| span.id).collect();
        let places = reads.store().places(&ids)?;
        Ok(Self {
            generation,
            cuts,
            ids,
            places,
        })
    }
}
