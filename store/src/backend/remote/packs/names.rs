//! Names below a pack store's place, and what its `FORMAT` says (`formats/FORMATS.md`, "Packs in a bucket").
//!
//! A pack's name carries its own random id and the digest of its records: no two are equal, and none is ever used again.

use cairn_formats::{ChunkId, DigestAlgorithm, PackUuid};

use super::files::FOLDER;
use crate::backend::flat::path::TEMPORARY;

/// What the store is.
pub(super) const FORMAT_NAME: &str = "FORMAT";
/// Longest text of it that is read.
pub(super) const FORMAT_LEN_MAX: usize = 4096;
/// Who alone may delete.
pub(super) const LEASE_NAME: &str = "CURRENT";

const FORMAT_LINE: &str = "cairn pack objects 1";
/// What folders of packs begin with that are opened on their own machine.
const FOLDER_LINE: &str = "cairn pack store ";

/// What a name in [`FOLDER`] stands for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Named {
    /// A sealed pack, and BLAKE3 of all before its footer.
    Pack(PackUuid, [u8; 32]),
    /// A list of chunks that no longer count where they lie, and its BLAKE3.
    Gone([u8; 32]),
    /// What a writer has not finished, or left.
    Temporary,
    /// Somebody else's, or a later release's.
    Other,
}

pub(super) fn pack_name(uuid: PackUuid, root: &[u8; 32]) -> String {
    format!("{FOLDER}/{uuid}-{}.pack", ChunkId::from_bytes(*root))
}

pub(super) fn gone_name(uuid: PackUuid, root: &[u8; 32]) -> String {
    format!("{FOLDER}/{uuid}-{}.gone", ChunkId::from_bytes(*root))
}

/// - `name`: from the store's place on.
pub(super) fn parse_name(name: &str) -> Named {
    let Some(name) = name.strip_prefix(FOLDER).and_then(|name| name.strip_prefix('/')) else {
        return Named::Other;
    };
    if name.starts_with(TEMPORARY) {
        return Named::Temporary;
    }
    let parse = |stem: &str| {
        let (uuid, root) = stem.split_once('-')?;
        Some((parse_uuid(uuid)?, *root.parse::<ChunkId>().ok()?.as_bytes()))
    };
    if let Some((uuid, root)) = name.strip_suffix(".pack").and_then(parse) {
        return Named::Pack(uuid, root);
    }
    match name.strip_suffix(".gone").and_then(parse) {
        Some((_, root)) => Named::Gone(root),
        None => Named::Other,
    }
}

fn parse_uuid(text: &str) -> Option<PackUuid> {
    let is_digit = |digit: u8| matches!(digit, b'0'..=b'9' | b'a'..=b'f');
    if text.len() != 32 || !text.bytes().all(is_digit) {
        return None;
    }
    u128::from_str_radix(text, 16)
        .ok()
        .map(|number| PackUuid(number.to_be_bytes()))
}

/// What a store says of itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Format {
    /// Its name: random.
    pub(super) store: PackUuid,
    /// The digest that names its chunks.
    pub(super) algorithm: DigestAlgorithm,
}

impl Format {
    pub(super) fn encode(&self) -> String {
        let digest = digest_name(self.algorithm);
        format!("{FORMAT_LINE}\nstore {}\ndigest {digest}\n", self.store)
    }

    /// - Returns `None` when the text says nothing of packs.
    /// - Errors: a word on why this cannot be opened.
    pub(super) fn parse(text: &[u8]) -> Result<Option<Self>, String> {
        let text = String::from_utf8_lossy(text);
        let mut lines = text.lines();
        let first = lines.next().unwrap_or_default();
        if first.starts_with(FOLDER_LINE) {
            return Err(
                "it is a pack store of the machine that has it as a folder: open it there, or serve it with cairnd"
                    .to_owned(),
            );
        }
        if first != FORMAT_LINE {
            return match first.starts_with("cairn ") {
                true => Err(format!(
                    "a later release has made it: {first:?}; this one knows {FORMAT_LINE:?}"
                )),
                false => Ok(None),
            };
        }
        let mut value = |key: &str| lines.next()?.strip_prefix(key)?.strip_prefix(' ');
        let store = value("store").and_then(parse_uuid);
        let algorithm = value("digest").and_then(|name| {
            [DigestAlgorithm::Sha512_256, DigestAlgorithm::Sha256]
                .into_iter()
                .find(|&algorithm| digest_name(algorithm) == name)
        });
        match (store, algorithm) {
            (Some(store), Some(algorithm)) => Ok(Some(Self { store, algorithm })),
            _ => Err(format!("its {FORMAT_NAME} is damaged")),
        }
    }
}

pub(super) fn digest_name(algorithm: DigestAlgorithm) -> &'static str {
    match algorithm {
        DigestAlgorithm::Sha512_256 => "sha512-256",
        DigestAlgorithm::Sha256 => "sha256",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_read_as_written_and_others_are_others() {
        let (uuid, root) = (PackUuid([0x1f; 16]), [0xa0; 32]);
        let name = pack_name(uuid, &root);
        assert_eq!(name, format!("packs/{}-{}.pack", "1f".repeat(16), "a0".repeat(32)));
        assert_eq!(parse_name(&name), Named::Pack(uuid, root));
        assert_eq!(parse_name(&gone_name(uuid, &root)), Named::Gone(root));
        assert_eq!(parse_name("packs/.tmp-cacnk00"), Named::Temporary);
        for other in [
            &name[6..],
            &name.replace("1f", "+f"),
            &name.to_uppercase(),
            "packs/x.pack",
            &format!("{name}2"),
        ] {
            assert_eq!(parse_name(other), Named::Other, "{other}");
        }
    }

    #[test]
    fn a_format_is_read_as_written_and_a_later_one_is_refused() {
        let format = Format {
            store: PackUuid([7; 16]),
            algorithm: DigestAlgorithm::Sha256,
        };
        assert_eq!(Format::parse(format.encode().as_bytes()), Ok(Some(format)));
        assert_eq!(Format::parse(b"something else"), Ok(None));
        assert!(
            Format::parse(b"cairn pack objects 2\n")
                .unwrap_err()
                .contains("later release")
        );
        assert!(Format::parse(b"cairn pack store 1\n").unwrap_err().contains("folder"));
        assert!(
            Format::parse(b"cairn pack objects 1\nstore 7\n")
                .unwrap_err()
                .contains("damaged")
        );
    }
}
