//! Many chunks in one answer: what a client asks of a chunk root in one request, and what comes back.
//!
//! Both are frames of the casync protocol ([`Frame`]), so that there is one table of bytes for SSH and HTTP: a REQUEST asks, CHUNK and
//! MISSING answer id by id in the order asked, GOODBYE ends the answer, ABORT ends it early. An answer that ends in neither was cut:
//! what came before holds, and the client asks again for the rest. An index root answers in the same way an index and what a reader
//! of it lacks ([`PullIndexAnswer`]). Byte tables: `formats/FORMATS.md`, "Many chunks at once".
//!
//! Not here: what the bytes of a chunk are worth ([`EncodedChunk::open`] proves them), HTTP.

use std::collections::HashSet;

use bytes::Bytes;

use crate::protocol::{REQUEST_OVERHEAD, push_request};
use crate::{ChunkForm, ChunkId, ChunkIndex, EncodedChunk, Frame, FrameDecoder, NullChunk, ProtocolError};

/// Ids of a request at most.
pub const PULL_IDS_MAX: usize = 16_384;
/// Bytes of a request at most.
pub const PULL_REQUEST_LEN_MAX: usize = REQUEST_OVERHEAD + PULL_IDS_MAX * 32;
/// Where a chunk root takes requests, behind its own path.
pub const PULL_PATH: &str = "/-/chunks";
/// Header by which a chunk root says that it takes requests; its value is how many ids one may have.
pub const PULL_HEADER: &str = "cairn-pull";
/// Type of requests and answers.
pub const PULL_CONTENT_TYPE: &str = "application/vnd.cairn.chunks";

/// Why bytes are no request or no answer to the one that was made.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PullError {
    /// They are no frames.
    #[error(transparent)]
    Frame(#[from] ProtocolError),
    /// A request that is not one REQUEST of at most [`PULL_IDS_MAX`] ids.
    #[error("not one REQUEST with 1 to {PULL_IDS_MAX} ids: {rule}")]
    Request {
        /// The rule broken.
        rule: &'static str,
    },
    /// Another chunk than the next one that was asked for.
    #[error("chunk {found} was answered where {asked} was asked for")]
    Order {
        /// The next id that was asked for.
        asked: ChunkId,
        /// The id answered.
        found: ChunkId,
    },
    /// A frame that has no place in an answer at this point.
    #[error("the answer breaks a rule after {answered} chunks: {rule}")]
    Answer {
        /// Chunks answered before.
        answered: usize,
        /// The rule broken.
        rule: &'static str,
    },
}

/// The request for these chunks, 1 to [`PULL_IDS_MAX`] of them, repeats allowed.
pub fn pull_request(ids: &[ChunkId]) -> Bytes {
    let mut request = Vec::with_capacity(REQUEST_OVERHEAD + ids.len() * 32);
    push_request(ids, &mut request);
    request.into()
}

/// Reads a request that is there in full, [`PULL_REQUEST_LEN_MAX`] bytes at most.
pub fn parse_pull_request(bytes: Bytes) -> Result<Vec<ChunkId>, PullError> {
    let refused = |rule| Err(PullError::Request { rule });
    if bytes.len() > PULL_REQUEST_LEN_MAX {
        return refused("it is longer");
    }
    let mut decoder = FrameDecoder::new();
    decoder.push(bytes);
    match decoder.next()? {
        Some(Frame::Request { ids, .. }) if decoder.is_between_frames() => Ok(ids),
        Some(Frame::Request { .. }) => refused("something follows it"),
        Some(_) => refused("it is another frame"),
        None => refused("it is cut"),
    }
}

/// What an answer says next.
#[derive(Clone, Debug)]
pub enum PullStep {
    /// The next chunk asked for, as it is stored. Not proven.
    Chunk(EncodedChunk),
    /// The root does not have the next chunk asked for.
    Missing(ChunkId),
    /// The root gives no answer to the next chunk asked for, nor to those behind it: ask for it alone, then for the rest.
    GivenUp {
        /// The chunk that it came to.
        id: ChunkId,
        /// Why, for people.
        reason: String,
    },
    /// All that was asked for is answered.
    End,
}

/// Reads the answer to one request from bytes pushed in. Holds one frame at most, and what was pushed beyond it.
#[derive(Debug)]
pub struct PullAnswer {
    asked: Vec<ChunkId>,
    answered: usize,
    ended: bool,
    frames: FrameDecoder,
}

impl PullAnswer {
    /// Of a request for these chunks.
    pub fn new(asked: Vec<ChunkId>) -> Self {
        Self {
            asked,
            answered: 0,
            ended: false,
            frames: FrameDecoder::new(),
        }
    }

    /// Takes the next bytes.
    pub fn push(&mut self, bytes: Bytes) {
        self.frames.push(bytes);
    }

    /// How many of the chunks asked for have been answered, from the first on.
    pub fn answered(&self) -> usize {
        self.answered
    }

    /// Whether the answer came to its end. One that stops without it was cut.
    pub fn has_ended(&self) -> bool {
        self.ended
    }

    /// The next step, or `None` while it is not all there.
    ///
    /// Errors: what no root may answer. The steps before hold.
    #[expect(clippy::should_implement_trait, reason = "no step yet is not the end")]
    pub fn next(&mut self) -> Result<Option<PullStep>, PullError> {
        let answered = self.answered;
        let refused = |rule| Err(PullError::Answer { answered, rule });
        if self.ended {
            return match self.frames.is_between_frames() {
                true => Ok(None),
                false => refused("something follows its end"),
            };
        }
        let Some(frame) = self.frames.next()? else {
            return Ok(None);
        };
        let asked = self.asked.get(answered).copied();
        Ok(Some(match (frame, asked) {
            (Frame::Chunk { id, compressed, data }, Some(asked)) => {
                self.advance(asked, id)?;
                let form = match compressed {
                    true => ChunkForm::Compressed,
                    false => ChunkForm::Plain,
                };
                PullStep::Chunk(EncodedChunk { id, form, bytes: data })
            }
            (Frame::Missing(id), Some(asked)) => {
                self.advance(asked, id)?;
                PullStep::Missing(id)
            }
            (Frame::Abort { reason, .. }, Some(id)) => {
                self.ended = true;
                PullStep::GivenUp { id, reason }
            }
            (Frame::Goodbye, None) => {
                self.ended = true;
                PullStep::End
            }
            (Frame::Goodbye, Some(_)) => return refused("it ends before all is answered"),
            (_, None) => return refused("it goes on after all is answered"),
            _ => return refused("a frame that is no answer"),
        }))
    }

    fn advance(&mut self, asked: ChunkId, found: ChunkId) -> Result<(), PullError> {
        if asked != found {
            return Err(PullError::Order { asked, found });
        }
        self.answered += 1;
        Ok(())
    }
}

/// Bytes of an index that is answered together with what its reader lacks, and of the index by which the reader says what it has.
pub const PULL_INDEX_LEN_MAX: usize = 16 << 20;
/// Bytes of an index in one frame.
const INDEX_PIECE_LEN: usize = 1 << 20;

/// The chunks of an index that a reader lacks who has those of `held`: each once, in the order in which the blob needs them, the first
/// `ids_max`. The null chunk is in nobody's way: whoever reads the index can make it.
pub fn lacking(index: &ChunkIndex, held: &HashSet<ChunkId>, ids_max: usize) -> Vec<ChunkId> {
    let null = NullChunk::of(index);
    let mut seen = HashSet::new();
    let wanted = index.spans().filter(|span| !null.is(span) && !held.contains(&span.id));
    wanted
        .map(|span| span.id)
        .filter(|&id| seen.insert(id))
        .take(ids_max)
        .collect()
}

/// The frames of an index, which come before those of its chunks.
pub fn index_frames(index: &Bytes) -> Bytes {
    let mut frames = Vec::with_capacity(index.len() + 16 * (index.len() / INDEX_PIECE_LEN + 2));
    for at in (0..index.len()).step_by(INDEX_PIECE_LEN) {
        Frame::Index(index.slice(at..index.len().min(at + INDEX_PIECE_LEN))).push(&mut frames);
    }
    Frame::IndexEof.push(&mut frames);
    frames.into()
}

/// Reads an answer that begins with an index, whose lacking chunks follow.
#[derive(Debug)]
pub struct PullIndexAnswer {
    held: HashSet<ChunkId>,
    ids_max: usize,
    file: Vec<u8>,
    frames: FrameDecoder,
    chunks: Option<PullAnswer>,
}

/// What such an answer says next.
#[derive(Clone, Debug)]
pub enum PullIndexStep {
    /// The index, once and first.
    Index(ChunkIndex),
    /// Of the chunks that are lacking.
    Chunk(PullStep),
}

impl PullIndexAnswer {
    /// Of a request that showed an index with these chunks.
    ///
    /// - `ids_max`: chunks that the root answers at most, as its header says.
    pub fn new(held: HashSet<ChunkId>, ids_max: usize) -> Self {
        Self {
            held,
            ids_max,
            file: Vec::new(),
            frames: FrameDecoder::new(),
            chunks: None,
        }
    }

    /// Takes the next bytes.
    pub fn push(&mut self, bytes: Bytes) {
        match &mut self.chunks {
            Some(chunks) => chunks.push(bytes),
            None => self.frames.push(bytes),
        }
    }

    /// Whether the answer came to its end. One that stops without it was cut.
    pub fn has_ended(&self) -> bool {
        self.chunks.as_ref().is_some_and(PullAnswer::has_ended)
    }

    /// The next step, or `None` while it is not all there.
    ///
    /// Errors: what no root may answer. The steps before hold.
    #[expect(clippy::should_implement_trait, reason = "no step yet is not the end")]
    pub fn next(&mut self) -> Result<Option<PullIndexStep>, PullError> {
        loop {
            if let Some(chunks) = &mut self.chunks {
                return Ok(chunks.next()?.map(PullIndexStep::Chunk));
            }
            let refused = |rule| Err(PullError::Answer { answered: 0, rule });
            match self.frames.next()? {
                None => return Ok(None),
                Some(Frame::Index(bytes)) if self.file.len() + bytes.len() <= PULL_INDEX_LEN_MAX => {
                    self.file.extend_from_slice(&bytes);
                }
                Some(Frame::Index(_)) => return refused("its index is longer than 16 MiB"),
                Some(Frame::IndexEof) => {
                    let Ok(index) = ChunkIndex::parse(std::mem::take(&mut self.file).into()) else {
                        return refused("it begins with no chunk index");
                    };
                    let lacking = lacking(&index, &self.held, self.ids_max);
                    self.chunks = Some(PullAnswer {
                        asked: lacking,
                        answered: 0,
                        ended: false,
                        frames: std::mem::take(&mut self.frames),
                    });
                    return Ok(Some(PullIndexStep::Index(index)));
                }
                Some(_) => return refused("it does not begin with an index"),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{ChunkSizes, DigestAlgorithm, FeatureFlags, IndexEncoder, push_chunk_head};

    fn id(byte: u8) -> ChunkId {
        ChunkId::from_bytes([byte; 32])
    }

    fn frames(frames: &[Frame]) -> Bytes {
        let mut bytes = Vec::new();
        frames.iter().for_each(|frame| frame.push(&mut bytes));
        bytes.into()
    }

    fn chunk(byte: u8, len: usize) -> Frame {
        Frame::Chunk {
            id: id(byte),
            compressed: true,
            data: vec![byte; len].into(),
        }
    }

    /// All steps of these bytes, and the error that ended them.
    fn read(asked: &[u8], bytes: &[u8], piece: usize) -> (Vec<String>, usize, bool, Option<PullError>) {
        let mut answer = PullAnswer::new(asked.iter().map(|&byte| id(byte)).collect());
        let mut steps = Vec::new();
        for piece in bytes.chunks(piece) {
            answer.push(Bytes::copy_from_slice(piece));
            loop {
                match answer.next() {
                    Ok(Some(PullStep::Chunk(chunk))) => {
                        steps.push(format!("{} {}", chunk.id.as_bytes()[0], chunk.bytes.len()))
                    }
                    Ok(Some(PullStep::Missing(id))) => steps.push(format!("no {}", id.as_bytes()[0])),
                    Ok(Some(PullStep::GivenUp { id, reason })) => steps.push(format!("{reason} {}", id.as_bytes()[0])),
                    Ok(Some(PullStep::End)) => steps.push("end".to_owned()),
                    Ok(None) => break,
                    Err(error) => return (steps, answer.answered(), answer.has_ended(), Some(error)),
                }
            }
        }
        (steps, answer.answered(), answer.has_ended(), None)
    }

    #[test]
    fn a_request_round_trips_and_has_bounds() {
        let ids: Vec<ChunkId> = (0..=255).map(id).collect();
        assert_eq!(parse_pull_request(pull_request(&ids)), Ok(ids));
        let most = vec![id(1); PULL_IDS_MAX];
        assert_eq!(pull_request(&most).len(), PULL_REQUEST_LEN_MAX);
        assert_eq!(parse_pull_request(pull_request(&most)), Ok(most.clone()));
        let refused = |bytes: Bytes, rule: &'static str| {
            assert_eq!(parse_pull_request(bytes), Err(PullError::Request { rule }));
        };
        refused(pull_request(&[most, vec![id(2)]].concat()), "it is longer");
        refused(frames(&[Frame::Goodbye]), "it is another frame");
        refused(pull_request(&[id(1)]).slice(..55), "it is cut");
        refused(Bytes::new(), "it is cut");
        refused(
            [pull_request(&[id(1)]), pull_request(&[id(2)])].concat().into(),
            "something follows it",
        );
        assert!(
            matches!(parse_pull_request(pull_request(&[])), Err(PullError::Frame(_))),
            "asks for nothing"
        );
    }

    #[test]
    fn an_answer_is_read_in_pieces_of_any_size() {
        let bytes = frames(&[chunk(1, 70_000), Frame::Missing(id(2)), chunk(1, 3), Frame::Goodbye]);
        for piece in [1, 16, 57, 1000, bytes.len()] {
            let (steps, answered, ended, error) = read(&[1, 2, 1], &bytes, piece);
            assert_eq!((answered, ended, error), (3, true, None));
            assert_eq!(steps, ["1 70000", "no 2", "1 3", "end"]);
        }
    }

    /// Goal: an answer that was cut anywhere is seen to be cut, and what came whole before holds.
    #[test]
    fn a_cut_shows_wherever_it_is() {
        let bytes = frames(&[chunk(1, 100), Frame::Missing(id(2)), Frame::Goodbye]);
        let ends = [156, 156 + 48];
        for len in 0..bytes.len() {
            let (steps, answered, ended, error) = read(&[1, 2], &bytes[..len], 64);
            assert_eq!((ended, error), (false, None), "cut at {len}");
            assert_eq!(answered, ends.iter().filter(|&&end| len >= end).count());
            assert_eq!(steps.len(), answered);
        }
    }

    #[test]
    fn what_was_not_asked_for_is_no_answer() {
        let error = |asked: &[u8], sent: &[Frame]| read(asked, &frames(sent), 1 << 20).3.unwrap();
        let order = PullError::Order {
            asked: id(1),
            found: id(2),
        };
        assert_eq!(error(&[1, 2], &[chunk(2, 9)]), order);
        assert_eq!(error(&[1], &[Frame::Missing(id(2))]), order);
        let rule = |answered, rule| PullError::Answer { answered, rule };
        assert_eq!(
            error(&[1], &[Frame::Goodbye]),
            rule(0, "it ends before all is answered")
        );
        assert_eq!(
            error(&[1], &[chunk(1, 9), chunk(1, 9)]),
            rule(1, "it goes on after all is answered")
        );
        assert_eq!(
            error(&[1], &[chunk(1, 9), Frame::Goodbye, Frame::Goodbye]),
            rule(1, "something follows its end")
        );
        assert_eq!(error(&[1], &[Frame::IndexEof]), rule(0, "a frame that is no answer"));
    }

    #[test]
    fn a_length_that_lies_is_refused_before_it_is_waited_for() {
        let mut head = Vec::new();
        push_chunk_head(id(1), true, 1 << 30, &mut head);
        let (_, answered, _, error) = read(&[1], &head, 1 << 20);
        assert!(matches!(error, Some(PullError::Frame(_))));
        assert_eq!(answered, 0);
    }

    #[test]
    fn a_root_may_give_up_and_says_where() {
        let abort = Frame::Abort {
            code: 5,
            reason: "broken".to_owned(),
        };
        let (steps, answered, ended, error) = read(&[1, 2, 3], &frames(&[chunk(1, 4), abort]), 7);
        assert_eq!(
            (steps, answered, ended, error),
            (vec!["1 4".to_owned(), "broken 2".to_owned()], 1, true, None)
        );
    }

    fn index(ids: &[u8]) -> Bytes {
        let mut file = Vec::new();
        let mut encoder = IndexEncoder::start(
            FeatureFlags::blob(DigestAlgorithm::default()),
            ChunkSizes::DEFAULT,
            &mut file,
        );
        ids.iter().for_each(|&byte| encoder.push(id(byte), 70_000, &mut file));
        encoder.finish(&mut file);
        file.into()
    }

    #[test]
    fn an_index_is_followed_by_what_its_reader_lacks() {
        let file = index(&[1, 2, 3, 2, 4]);
        let held: HashSet<ChunkId> = [id(1), id(9)].into();
        let parsed = ChunkIndex::parse(file.clone()).unwrap();
        assert_eq!(lacking(&parsed, &held, 10), [id(2), id(3), id(4)]);
        assert_eq!(lacking(&parsed, &held, 2), [id(2), id(3)]);
        let mut sent = index_frames(&file).to_vec();
        sent.extend_from_slice(&frames(&[
            chunk(2, 100),
            Frame::Missing(id(3)),
            chunk(4, 5),
            Frame::Goodbye,
        ]));
        for piece in [1, 17, 1000, sent.len()] {
            for cut in [sent.len(), sent.len() - 1, 20] {
                let mut answer = PullIndexAnswer::new(held.clone(), 10);
                let mut steps = Vec::new();
                for piece in sent[..cut].chunks(piece) {
                    answer.push(Bytes::copy_from_slice(piece));
                    while let Some(step) = answer.next().unwrap() {
                        steps.push(step);
                    }
                }
                assert_eq!(answer.has_ended(), cut == sent.len());
                if cut == sent.len() {
                    assert_eq!(steps.len(), 5);
                    assert!(matches!(&steps[0], PullIndexStep::Index(index) if index.len() == 5));
                    assert!(matches!(&steps[1], PullIndexStep::Chunk(PullStep::Chunk(chunk)) if chunk.id == id(2)));
                    assert!(matches!(steps[4], PullIndexStep::Chunk(PullStep::End)));
                }
            }
        }
    }

    #[test]
    fn an_answer_that_begins_with_no_index_is_refused() {
        let rule = |sent: Bytes| {
            let mut answer = PullIndexAnswer::new(HashSet::new(), 10);
            answer.push(sent);
            match answer.next() {
                Err(PullError::Answer { rule, .. }) => rule,
                other => panic!("{other:?}"),
            }
        };
        assert_eq!(rule(frames(&[Frame::Goodbye])), "it does not begin with an index");
        let junk = Frame::Index(Bytes::from_static(b"junk"));
        assert_eq!(rule(frames(&[junk, Frame::IndexEof])), "it begins with no chunk index");
        let piece = Frame::Index(vec![0; 9 << 20].into());
        assert_eq!(rule(frames(&[piece.clone(), piece])), "its index is longer than 16 MiB");
    }
}
