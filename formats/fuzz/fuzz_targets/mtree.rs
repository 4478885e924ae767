//! Any bytes as mtree(5) text: refused, or what was read is written, and read again the same.

#![no_main]

use cairn_formats::{DigestAlgorithm, FeatureFlags, MtreeEntry, MtreeLine, MtreePaths, MtreeReader};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|text: &[u8]| {
    let flags = FeatureFlags::archive(DigestAlgorithm::Sha512_256);
    for paths in [MtreePaths::Whole, MtreePaths::Nested] {
        let mut reader = MtreeReader::new(paths);
        let mut again = MtreeReader::new(MtreePaths::Whole);
        for line in text.split(|&byte| byte == b'\n') {
            let Ok(entry) = reader.line(line) else {
                break;
            };
            let Some(entry) = entry else {
                continue;
            };
            assert!(!entry.path.starts_with(b"/") && !entry.path.split(|&byte| byte == b'/').any(|name| name == b".."));
            let MtreeEntry { path, node, digest, .. } = &entry;
            let digest = *digest;
            let line = MtreeLine {
                path,
                node,
                flags,
                digest,
            }
            .to_string();
            let mut expected = entry.clone();
            expected.contents = None;
            // What these flags have no place for.
            expected.node.metadata.attributes &= flags.0;
            assert_eq!(again.line(line.as_bytes()), Ok(Some(expected)), "{line}");
        }
    }
});
