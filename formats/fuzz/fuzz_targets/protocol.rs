//! Any bytes as frames of the casync protocol: refused, or they encode to the same bytes.

#![no_main]

use bytes::Bytes;
use cairn_formats::{Frame, FrameDecoder};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|input: &[u8]| {
    let Some((&piece, sent)) = input.split_first() else {
        return;
    };
    let mut decoder = FrameDecoder::new();
    let mut again = Vec::new();
    for bytes in sent.chunks(usize::from(piece) + 1) {
        decoder.push(Bytes::copy_from_slice(bytes));
        loop {
            let frame = match decoder.next() {
                Ok(Some(frame)) => frame,
                Ok(None) => break,
                Err(error) => {
                    assert_eq!(decoder.next(), Err(error));
                    return;
                }
            };
            let start = again.len();
            frame.push(&mut again);
            // An ABORT's text is cut and its bytes may be replaced.
            if !matches!(frame, Frame::Abort { .. }) {
                assert_eq!(again[start..], sent[start..again.len()]);
            } else {
                return;
            }
        }
    }
});
