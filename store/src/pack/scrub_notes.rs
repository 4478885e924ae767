//! What passes of the scrub note for the next: how far they have come, when a pack was last whole, where damage is kept.

use std::collections::BTreeMap;
use std::fmt;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use cairn_formats::PackUuid;

use crate::file::replace_file;

/// The file that a folder of packs keeps its [`ScrubFile`] in.
const STATE_NAME: &str = "SCRUB";

/// What is known of a pack from earlier passes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct PackScrub {
    /// When it was last read to its end, in seconds since 1970 UTC.
    pub verified_at: Option<u64>,
    /// Up to where the pass that goes on has come; 0 when none has begun.
    pub cursor: u64,
    /// Damaged records that were found in it, quarantined ones among them.
    pub damaged: u64,
}

/// Where passes note how far they came. What is lost costs time, and the protection of quarantined bytes until the next pass.
pub trait ScrubState: Send + Sync + fmt::Debug {
    /// What was noted last.
    fn load(&self) -> io::Result<BTreeMap<PackUuid, PackScrub>>;
    /// Notes all of it.
    fn save(&self, packs: &BTreeMap<PackUuid, PackScrub>) -> io::Result<()>;
}

/// Notes that live as long as the program.
#[derive(Debug, Default)]
pub struct ScrubMemory(Mutex<BTreeMap<PackUuid, PackScrub>>);

impl ScrubState for ScrubMemory {
    fn load(&self) -> io::Result<BTreeMap<PackUuid, PackScrub>> {
        Ok(self.0.lock().unwrap_or_else(PoisonError::into_inner).clone())
    }

    fn save(&self, packs: &BTreeMap<PackUuid, PackScrub>) -> io::Result<()> {
        packs.clone_into(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner));
        Ok(())
    }
}

/// Notes in a small file: a line a pack, with its name, when it was verified (`-`: never), cursor and damaged records.
#[derive(Clone, Debug)]
pub struct ScrubFile(PathBuf);

impl ScrubFile {
    /// The notes of a folder of packs.
    pub fn in_folder(folder: &Path) -> Self {
        Self(folder.join(STATE_NAME))
    }
}

impl ScrubState for ScrubFile {
    fn load(&self) -> io::Result<BTreeMap<PackUuid, PackScrub>> {
        match std::fs::read_to_string(&self.0) {
            // A line that is not ours costs a reading of one pack.
            Ok(text) => Ok(text.lines().filter_map(parse_line).collect()),
            Err(error) if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::InvalidData) => {
                Ok(BTreeMap::new())
            }
            Err(error) => Err(error),
        }
    }

    fn save(&self, packs: &BTreeMap<PackUuid, PackScrub>) -> io::Result<()> {
        let line = |(uuid, pack): (&PackUuid, &PackScrub)| {
            let verified_at = pack.verified_at.map_or("-".to_owned(), |at| at.to_string());
            format!("{uuid} {verified_at} {} {}\n", pack.cursor, pack.damaged)
        };
        replace_file(&self.0, packs.iter().map(line).collect::<String>().as_bytes(), None)
    }
}

fn parse_line(line: &str) -> Option<(PackUuid, PackScrub)> {
    let mut words = line.split(' ');
    let uuid = u128::from_str_radix(words.next().filter(|word| word.len() == 32)?, 16).ok()?;
    let verified_at = match words.next()? {
        "-" => None,
        at => Some(at.parse().ok()?),
    };
    let pack = PackScrub {
        verified_at,
        cursor: words.next()?.parse().ok()?,
        damaged: words.next()?.parse().ok()?,
    };
    Some((PackUuid(uuid.to_be_bytes()), pack))
}
