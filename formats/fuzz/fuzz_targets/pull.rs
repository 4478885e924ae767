//! Any bytes as a request for many chunks and as the answer to one, or to one for an index: refused, or a request encodes to the same
//! bytes and an answer answers what was asked, in its order.

#![no_main]

use bytes::Bytes;
use cairn_formats::{
    ChunkId, PullAnswer, PullIndexAnswer, PullIndexStep, PullStep, lacking, parse_pull_request, pull_request,
};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|input: &[u8]| {
    if let Ok(ids) = parse_pull_request(Bytes::copy_from_slice(input)) {
        assert!(!ids.is_empty());
        // The priority is not kept.
        assert_eq!(pull_request(&ids)[24..], input[24..]);
    }
    // The first bytes say how the answer comes in pieces and how many chunks were asked for; ids are of one byte.
    let Some((&[piece, count], sent)) = input.split_first_chunk::<2>() else {
        return;
    };
    let asked: Vec<ChunkId> = (0..count).map(|byte| ChunkId::from_bytes([byte; 32])).collect();
    let mut of_index = PullIndexAnswer::new(asked.iter().copied().collect(), 100);
    let mut lacks = Vec::new();
    'read: for bytes in sent.chunks(usize::from(piece) + 1) {
        of_index.push(Bytes::copy_from_slice(bytes));
        loop {
            match of_index.next() {
                Ok(Some(PullIndexStep::Index(index))) => {
                    lacks = lacking(&index, &asked.iter().copied().collect(), 100);
                    lacks.reverse();
                }
                Ok(Some(PullIndexStep::Chunk(PullStep::Chunk(chunk)))) => assert_eq!(Some(chunk.id), lacks.pop()),
                Ok(Some(PullIndexStep::Chunk(PullStep::Missing(id)))) => assert_eq!(Some(id), lacks.pop()),
                Ok(Some(PullIndexStep::Chunk(_))) => {}
                Ok(None) => break,
                Err(_) => break 'read,
            }
        }
    }
    let mut answer = PullAnswer::new(asked.clone());
    let mut next = asked.iter();
    for bytes in sent.chunks(usize::from(piece) + 1) {
        answer.push(Bytes::copy_from_slice(bytes));
        loop {
            match answer.next() {
                Ok(Some(PullStep::Chunk(chunk))) => assert_eq!(Some(&chunk.id), next.next()),
                Ok(Some(PullStep::Missing(id))) => assert_eq!(Some(&id), next.next()),
                Ok(Some(PullStep::GivenUp { id, .. })) => {
                    assert_eq!(Some(&id), next.next());
                    assert!(answer.has_ended());
                }
                Ok(Some(PullStep::End)) => assert_eq!(next.next(), None),
                Ok(None) => break,
                Err(_) => return,
            }
            assert!(answer.answered() <= asked.len());
        }
    }
});
