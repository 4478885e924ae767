//! Any bytes as a pack: parts decode or are refused, what decodes lies inside and is written back as it was, and a record is
//! never found that is not of this pack at this place.

#![no_main]

use cairn_formats::{
    PACK_HEADER_LEN, PACK_TAIL_LEN, PackFooter, PackHeader, PackTail, PackUuid, RecordHead, Removal,
    SnapshotEnd, SnapshotHead, find_record, payload_crc,
};
use libfuzzer_sys::fuzz_target;

const PACK: PackUuid = PackUuid([7; 16]);

fuzz_target!(|bytes: &[u8]| {
    if let Ok(header) = PackHeader::decode(bytes) {
        assert_eq!(PackHeader::decode(&header.encode()), Ok(header));
    }
    if let Ok(removals) = Removal::decode_all(bytes) {
        assert_eq!(Removal::encode_all(&removals), bytes);
    }
    if let Ok(head) = SnapshotHead::decode(bytes) {
        assert!(bytes.starts_with(&head.encode()));
        if let Ok(end) = SnapshotEnd::decode(bytes) {
            assert_eq!(end.encode(&head), bytes);
        }
    }
    if let Some(tail_start) = bytes.len().checked_sub(PACK_TAIL_LEN)
        && let Some(tail) = PackTail::decode(bytes.len() as u64, &bytes[tail_start..])
    {
        let start = usize::try_from(tail.start).expect("inside of the bytes");
        if let Ok(footer) = PackFooter::decode(&tail, &bytes[start..]) {
            let ends = footer.entries.iter().map(|entry| entry.offset + u64::from(entry.len));
            assert!(ends.max().is_none_or(|end| end <= tail.start));
        }
    }
    let _ = RecordHead::decode(&PACK, 64, bytes);
    // Their check sums are not guessed, so what is found was made here.
    let mut pack = vec![0; PACK_HEADER_LEN];
    let own = find_record(&PACK, 0, bytes);
    assert_eq!(own, None);
    pack.extend_from_slice(bytes);
    let head = RecordHead {
        kind: cairn_formats::RecordKind::Chunk,
        pinned: false,
        domain: cairn_formats::DomainId(1),
        synced: 0,
        id: cairn_formats::ChunkId::from_bytes([1; 32]),
        len: bytes.len() as u32,
        plain_len: 0,
        crc: payload_crc(bytes),
    };
    let span = head.push(&PACK, pack.len() as u64, &mut pack);
    pack.extend_from_slice(bytes);
    let (found, at) = find_record(&PACK, 0, &pack).expect("the one that was written");
    assert_eq!((found, at.payload, at.end), (head, span.payload, span.end));
    assert_eq!(
        RecordHead::decode(&PACK, span.start, &pack[span.start as usize..]),
        Ok((head, span))
    );
});
