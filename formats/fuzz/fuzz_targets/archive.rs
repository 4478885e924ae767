//! Any bytes as an archive: refused, or what was read encodes to the same bytes; by its tables no entry is found that a
//! reading of the whole does not see.

#![no_main]

use std::convert::Infallible;
use std::ops::Range;

use bytes::Bytes;
use cairn_formats::{
    ArchiveBytes, ArchiveDecoder, ArchiveEncoder, ArchiveForm, ArchiveLimits, ArchiveLookup, Content, Step,
};
use libfuzzer_sys::fuzz_target;

struct Memory(Bytes);

impl ArchiveBytes for Memory {
    type Error = Infallible;

    fn len(&self) -> u64 {
        self.0.len() as u64
    }

    fn read(&self, range: Range<u64>) -> Result<Bytes, Infallible> {
        Ok(self.0.slice(range.start as usize..range.end as usize))
    }
}

fuzz_target!(|file: &[u8]| {
    // The first byte cuts the input in pieces, so that records are met split.
    let Some((&piece, archive)) = file.split_first() else {
        return;
    };
    let lookup = ArchiveLookup::open(Memory(Bytes::copy_from_slice(archive)), ArchiveLimits::default());
    if let Ok(lookup) = &lookup {
        let mut todo = vec![lookup.root().clone()];
        let mut seen = 0;
        while let (Some(directory), true) = (todo.pop(), seen < 1000) {
            let Ok(children) = lookup.children(&directory) else {
                continue;
            };
            for child in children.flatten() {
                seen += 1;
                let name = child.name.clone().expect("only the root has no name");
                if let Ok(Some(found)) = lookup.child(&directory, &name) {
                    assert_eq!(found.name, child.name);
                }
                if child.node.content == Content::Directory {
                    todo.push(child);
                }
            }
        }
    }

    let mut decoder = ArchiveDecoder::new(ArchiveLimits::default());
    let mut pieces = archive.chunks(usize::from(piece) + 1);
    let mut encoder: Option<ArchiveEncoder> = None;
    let mut again = Vec::new();
    let mut whole = true;
    loop {
        let Ok(step) = decoder.next() else {
            return;
        };
        match step {
            Step::NeedBytes => match pieces.next() {
                Some(piece) => decoder.push(Bytes::copy_from_slice(piece)),
                None => decoder.finish(),
            },
            Step::Enter { name, node, .. } => {
                let flags = decoder.flags().expect("an entry was read");
                let encoder = encoder.get_or_insert_with(|| {
                    ArchiveEncoder::new(flags, ArchiveForm::AnyOrder).expect("flags that were read")
                });
                match name {
                    None => encoder.root(&node, &mut again),
                    Some(name) => encoder.child(&name, &node, &mut again),
                }
                .expect("what was read can be written");
            }
            Step::Payload(bytes) => {
                let encoder = encoder.as_mut().expect("a root came first");
                encoder
                    .payload(bytes.len() as u64)
                    .expect("as many bytes as the file said");
                again.extend_from_slice(&bytes);
            }
            Step::Orphan { .. } => whole = false,
            Step::Leave => encoder
                .as_mut()
                .expect("a root came first")
                .leave(&mut again)
                .expect("a directory is open"),
            Step::End => break,
        }
        if !whole {
            return;
        }
    }
    // Tables in listing order and values without desync's NUL are read and not written.
    if again.len() == archive.len() {
        assert!(lookup.is_ok(), "a whole archive can be searched");
    }
});
