//! A folder of packs with its index: where chunks lie, and rows, in RocksDB, in the folder `places` beside the packs.
//!
//! The index is made of the packs and can be made again from them: one that is missing (the folder of an older release),
//! damaged, or only half there is dropped and built, which the log tells. One of a later release is refused. `FORMAT` in the
//! folder says which it is. Not here: what is done with the packs (`folders.rs`), which chunks may go (`keeper.rs`).

use std::error::Error as _;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use cairn_index::{Error, RocksEngine, RocksOptions, check_schema};
use cairn_store::{Locations, OpenReport, PLACES_FOLDER, PackEngine, PackOptions, StoreName};

use crate::routes::chain;

/// The file that says what the folder is.
const FORMAT_NAME: &str = "FORMAT";
/// Its first line, with the version that a reader must know.
const FORMAT_LINE: &str = "cairn places 1";
/// RocksDB's own folder in it.
const DATABASE_NAME: &str = "db";
/// Of the memory for places, the part that holds what is not in files yet.
const BUFFER_SHARE: usize = 4;
/// Least bytes of it.
const BUFFER_LEN_LEAST: usize = 4 << 20;

/// Packs, and the index that is made of them.
#[derive(Debug)]
pub(crate) struct Packs {
    pub(crate) engine: Arc<PackEngine>,
    pub(crate) index: Arc<RocksEngine>,
    /// Why the index was built anew, if it was.
    pub(crate) rebuilt: Option<String>,
}

impl Packs {
    /// Opens a folder of packs for writing, and makes it one if it is empty.
    ///
    /// - `memory`: bytes that its index may take.
    /// - `rebuild`: why the index is to be built anew, if it is.
    /// - Errors, in words: the folder is another program's or a later release's, or cannot be read.
    pub(crate) fn open(
        path: &Path,
        options: &PackOptions,
        memory: usize,
        rebuild: Option<String>,
    ) -> Result<(Self, OpenReport), String> {
        let opened = match Self::try_open(path, options, memory, rebuild.clone()) {
            // Found while the log was applied: once more, from the packs alone.
            Err(error) if rebuild.is_none() && is_damaged(&error) => {
                Self::try_open(path, options, memory, Some(chain(&error)))
            }
            opened => opened,
        };
        opened.map_err(|error| chain(&error))
    }

    fn try_open(
        path: &Path,
        options: &PackOptions,
        memory: usize,
        rebuild: Option<String>,
    ) -> Result<(Self, OpenReport), cairn_store::Error> {
        let mut index = None;
        let mut rebuilt = None;
        let (engine, report) = PackEngine::open_folder_with(path, options.clone(), |places| {
            let (opened, why) = open_index(places, memory, rebuild).map_err(|error| refused(places, error))?;
            rebuilt = why;
            index = Some(Arc::clone(&opened));
            Ok(opened as Arc<dyn Locations>)
        })?;
        let index = index.expect("opened with the packs");
        let settled = index.retain_packs(&engine.pack_numbers());
        let settled =
            settled.and_then(|forgotten| check_schema(&*index, &path.display().to_string()).map(|_| forgotten));
        let forgotten = settled.map_err(|error| refused(path, error))?;
        if forgotten > 0 {
            tracing::warn!(
                folder = %path.display(),
                chunks = forgotten,
                "packs were taken away while cairnd did not run; their chunks are missing"
            );
        }
        let packs = Self {
            engine: Arc::new(engine),
            index,
            rebuilt: rebuilt.filter(|_| report.packs > 0),
        };
        Ok((packs, report))
    }
}

/// Takes an index away.
fn drop_index(places: &Path) -> io::Result<()> {
    // First, so that half of the rest is not taken for a whole.
    for removed in [fs::remove_file(places.join(FORMAT_NAME)), fs::remove_dir_all(places)] {
        match removed {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
    }
    Ok(())
}

/// The index in a folder, and why it is empty if it is.
fn open_index(
    places: &Path,
    memory: usize,
    rebuild: Option<String>,
) -> Result<(Arc<RocksEngine>, Option<String>), Error> {
    let unavailable = |source: io::Error| Error::Unavailable {
        place: places.display().to_string(),
        action: "open",
        source: source.into(),
    };
    let buffer_len = (memory / BUFFER_SHARE).max(BUFFER_LEN_LEAST);
    let options = RocksOptions {
        cache_len: memory.saturating_sub(buffer_len).max(BUFFER_LEN_LEAST),
        buffer_len,
        ..RocksOptions::default()
    };
    let database = places.join(DATABASE_NAME);
    let is_there = places.try_exists().map_err(unavailable)?;
    let why = match rebuild {
        Some(why) => why,
        None if read_format(places)? => match RocksEngine::open(&database, &options) {
            Err(error @ (Error::Damaged { .. } | Error::Malformed { .. })) => chain(&error),
            opened => return Ok((Arc::new(opened?), None)),
        },
        None if is_there => "its FORMAT is missing or damaged".to_owned(),
        None => "there is none".to_owned(),
    };
    drop_index(places).map_err(unavailable)?;
    begin_index(places).map_err(unavailable)?;
    Ok((Arc::new(RocksEngine::open(&database, &options)?), Some(why)))
}

fn begin_index(places: &Path) -> io::Result<()> {
    fs::create_dir_all(places)?;
    let temporary = places.join(".tmp-FORMAT");
    fs::write(&temporary, format!("{FORMAT_LINE}\n"))?;
    fs::rename(temporary, places.join(FORMAT_NAME))
}

/// Begins the index of a folder of packs, and says where its database is to be put.
pub(crate) fn begin(packs: &Path) -> io::Result<PathBuf> {
    let places = packs.join(PLACES_FOLDER);
    begin_index(&places)?;
    Ok(places.join(DATABASE_NAME))
}

/// Whether the folder is one of this release's.
fn read_format(places: &Path) -> Result<bool, Error> {
    let text = match fs::read(places.join(FORMAT_NAME)) {
        Ok(text) => text,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(false),
        Err(source) => {
            return Err(Error::Unavailable {
                place: places.display().to_string(),
                action: "open",
                source: source.into(),
            });
        }
    };
    let text = String::from_utf8_lossy(&text);
    match text.lines().next() {
        Some(FORMAT_LINE) => Ok(true),
        Some(line) if line.starts_with("cairn places ") => Err(Error::Unknown {
            place: places.to_owned(),
            what: format!("the format {line:?}"),
        }),
        _ => Ok(false),
    }
}

fn refused(place: &Path, error: Error) -> cairn_store::Error {
    cairn_store::Error::Refused {
        store: StoreName::new(place.display().to_string()),
        action: "open the index",
        source: error.into(),
    }
}

/// Whether an index that is built anew would help.
fn is_damaged(error: &cairn_store::Error) -> bool {
    let mut cause = error.source();
    while let Some(error) = cause {
        if let Some(Error::Damaged { .. } | Error::Malformed { .. }) = error.downcast_ref::<Error>() {
            return true;
        }
        cause = error.source();
    }
    false
}
