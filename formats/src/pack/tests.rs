use super::*;
use crate::{Chunk, ChunkId, DigestAlgorithm, Level, compress_frame};

const PACK: PackUuid = PackUuid([7; 16]);

fn header() -> PackHeader {
    PackHeader {
        incompat: PACK_HAS_SNAPSHOTS,
        ..PackHeader::new(PACK, 3, DigestAlgorithm::Sha256, 1_700_000_000)
    }
}

fn head(kind: RecordKind, payload: &[u8], plain_len: usize) -> RecordHead {
    RecordHead {
        kind,
        pinned: kind == RecordKind::Chunk,
        domain: DomainId(9),
        synced: 64,
        id: ChunkId::from_bytes([payload.len() as u8; 32]),
        len: payload.len() as u32,
        plain_len: plain_len as u32,
        crc: payload_crc(payload),
    }
}

/// A sealed pack of chunks of all small lengths with commits, removals and pieces of a snapshot between them, and the plain bytes.
fn pack() -> (Vec<u8>, Vec<PackEntry>, Vec<u8>) {
    let mut file = header().encode().to_vec();
    let (mut entries, mut plain) = (Vec::new(), Vec::new());
    for n in 0..40usize {
        let (kind, payload, plain_len) = match n % 10 {
            8 => (RecordKind::Commit, vec![b'c'; n], 0),
            9 => (RecordKind::Removals, Vec::new(), 0),
            7 => (RecordKind::Snapshot, vec![b's'; n], 0),
            _ => {
                let chunk = vec![n as u8; n];
                plain.extend_from_slice(&chunk);
                (RecordKind::Chunk, compress_frame(&chunk, Level::DEFAULT), n)
            }
        };
        let head = head(kind, &payload, plain_len);
        let span = head.push(&PACK, file.len() as u64, &mut file);
        file.extend_from_slice(&payload);
        assert_eq!((span.end, span.payload % 8), (file.len() as u64, 0));
        entries.push(head.entry(span));
    }
    let start = file.len() as u64;
    let footer = PackFooter::new(entries.clone(), *blake3::hash(&file).as_bytes(), start);
    file.extend_from_slice(&footer.encode());
    (file, entries, plain)
}

/// All records up to `end`, one after the other.
fn scan(file: &[u8], end: u64) -> Vec<PackEntry> {
    let (mut at, mut found) = (PACK_HEADER_LEN as u64, Vec::new());
    while at < end {
        let (head, span) = RecordHead::decode(&PACK, at, &file[at as usize..]).unwrap();
        assert_eq!(payload_crc(&file[span.payload as usize..span.end as usize]), head.crc);
        found.push(head.entry(span));
        at = span.end;
    }
    found
}

fn footer(file: &[u8]) -> Option<Result<PackFooter, PackError>> {
    let tail = PackTail::decode(file.len() as u64, &file[file.len() - PACK_TAIL_LEN..])?;
    Some(PackFooter::decode(&tail, &file[tail.start as usize..]))
}

#[test]
fn records_and_footer_say_the_same() {
    let (file, mut entries, _) = pack();
    assert_eq!(PackHeader::decode(&file), Ok(header()));
    let footer = footer(&file).unwrap().unwrap();
    assert_eq!(scan(&file, footer.start), entries);
    assert_eq!(footer.root, *blake3::hash(&file[..footer.start as usize]).as_bytes());
    let chunks = footer.entries.partition_point(|entry| entry.kind == RecordKind::Chunk);
    assert!(footer.entries[..chunks].is_sorted_by_key(|entry| (entry.domain, entry.id)));
    assert!(footer.entries[chunks..].is_sorted_by_key(|entry| (entry.kind, entry.offset)));
    let mut listed = footer.entries;
    listed.sort_by_key(|entry| entry.offset);
    entries.sort_by_key(|entry| entry.offset);
    assert_eq!(listed, entries);
}

/// The promise to people without our tool: `zstd -d` of a pack gives the plain chunks.
#[test]
fn a_pack_is_a_zstd_stream_of_its_chunks() {
    let (file, _, plain) = pack();
    let mut out = vec![0; plain.len()];
    let len = zstd_safe::decompress(&mut out[..], &file).unwrap();
    assert_eq!((len, out), (plain.len(), plain));
}

/// Every single flipped bit in a header, a head or a footer is seen.
#[test]
fn a_flipped_bit_is_seen() {
    let (file, entries, _) = pack();
    let footer_start = footer(&file).unwrap().unwrap().start as usize;
    for at in 0..file.len() {
        let mut bad = file.clone();
        bad[at] ^= 1 << (at % 8);
        if (8..PACK_HEADER_LEN).contains(&at) {
            assert!(PackHeader::decode(&bad).is_err(), "header byte {at}");
        }
        for entry in &entries {
            let head_start = entry.offset as usize - 64;
            if (head_start..entry.offset as usize).contains(&at) {
                assert!(find_record(&PACK, head_start as u64, &bad[head_start..entry.offset as usize]).is_none());
            }
        }
        if at >= footer_start + 8 {
            assert!(footer(&bad).is_none_or(|footer| footer.is_err()), "footer byte {at}");
        }
    }
}

/// A damaged record does not hide those behind it, and no record is found in the bytes of an uploaded chunk.
#[test]
fn the_next_record_is_found_behind_damage() {
    let (mut file, entries, _) = pack();
    let second = entries[1].offset as usize;
    file[second - 64] ^= 1;
    let from = entries[0].offset as usize + entries[0].len as usize;
    let (found, span) = find_record(&PACK, from as u64, &file[from..]).unwrap();
    assert_eq!(found.entry(span), entries[2]);
    assert_eq!(find_record(&PackUuid([8; 16]), 0, &file), None, "of another pack");
    assert_eq!(find_record(&PACK, 8, &file), None, "at another place");
}

#[test]
fn other_files_and_newer_packs_are_refused_in_words() {
    let file = header().encode();
    assert_eq!(PackHeader::decode(&[0; 100]), Err(PackError::NotAPack));
    let cut = PackHeader::decode(&file[..20]).unwrap_err();
    assert_eq!(cut.to_string(), "the pack ends at byte 20 in the middle of its header");
    for (at, words) in [
        (16, "of format 2 with features 0x0"),
        (28, "of format 1 with features 0x2"),
    ] {
        let mut newer = file;
        newer[at] += if at == 28 { 2 } else { 1 };
        let crc = crc32c(&[&newer[..60]]);
        newer[60..].copy_from_slice(&crc.to_le_bytes());
        assert!(PackHeader::decode(&newer).unwrap_err().to_string().contains(words));
    }
}

#[test]
fn removals_are_read_as_written() {
    let chunk = Chunk::from_plain(DigestAlgorithm::default(), bytes::Bytes::from_static(b"gone"));
    let removals = [1, 2].map(|pack| Removal {
        domain: DomainId(pack),
        id: chunk.id(),
        pack,
        offset: 8 * u64::from(u32::MAX),
    });
    let payload = Removal::encode_all(&removals);
    assert_eq!(Removal::decode_all(&payload), Ok(removals.to_vec()));
    assert!(Removal::decode_all(&payload[1..]).is_err());
}

#[test]
fn pieces_of_a_snapshot_are_read_as_written() {
    let head = SnapshotHead {
        uuid: SnapshotUuid([5; 16]),
        commit: 1 << 40,
        piece: 7,
        is_end: true,
    };
    let piece = SnapshotHead { is_end: false, ..head };
    assert_eq!(SnapshotHead::decode(&piece.encode()), Ok(piece));
    let end = SnapshotEnd {
        root: [9; 32],
        rest: (u32::MAX, 1 << 34),
        words: b"words",
    };
    let payload = end.encode(&head);
    assert_eq!(SnapshotHead::decode(&payload), Ok(head));
    assert_eq!(SnapshotEnd::decode(&payload), Ok(end));
    for len in 0..payload.len() - 5 {
        assert!(SnapshotEnd::decode(&payload[..len]).is_err());
    }
    let mut odd = payload;
    odd[28] = 2;
    assert!(SnapshotHead::decode(&odd).is_err() && SnapshotHead::decode(&odd[..31]).is_err());
}
