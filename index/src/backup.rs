//! A copy of a store while it is in use: its index, and the packs that are its log.
//!
//! The index is copied first, as of one moment (links, where the file system has them). Then packs that are full are linked, and the
//! one that is being written is copied as far as it goes; if any came or went meanwhile, once more. What the packs hold beyond the
//! index is applied when the copy is opened, as after a crash: the copy is the store at one moment between begin and end, whole.

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::io;
use std::path::Path;

use cairn_store::PackEngine;

use crate::database::{Database, Engine as _};
use crate::kv::Version;
use crate::{Error, Result, RocksEngine};

/// Names in a backup: the folder of the index, and that of the packs.
pub const BACKUP_INDEX: &str = "index";
/// See [`BACKUP_INDEX`].
pub const BACKUP_PACKS: &str = "packs";

/// How often packs are listed anew because some came or went.
const LISTINGS_MAX: u32 = 1000;

/// What a backup holds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct BackupReport {
    /// All commits up to this are in it, and maybe some later ones.
    pub version: Version,
    /// Packs in it.
    pub packs: u64,
    /// Bytes that were copied, and not linked.
    pub copied: u64,
}

/// Copies a store into a folder that is not there yet. To restore it, put its two folders where those of the store were.
///
/// - `folder`: that of the packs.
/// - Errors: [`Error::Unavailable`], after which what is in `to` is worth nothing; those of index and store.
pub fn backup(kv: &Database<RocksEngine>, packs: &PackEngine, folder: &Path, to: &Path) -> Result<BackupReport> {
    let failed = |source: io::Error| Error::Unavailable {
        place: to.display().to_string(),
        action: "back up",
        source: source.into(),
    };
    fs::create_dir(to).map_err(failed)?;
    packs.sync()?;
    let version = kv.engine().version();
    kv.engine().checkpoint(&to.join(BACKUP_INDEX))?;
    // What the copied index has is in the packs by now.
    packs.sync()?;
    let mut report = BackupReport {
        version,
        ..BackupReport::default()
    };
    copy_packs(folder, &to.join(BACKUP_PACKS), &mut report).map_err(failed)?;
    let synced = File::open(to).and_then(|folder| rustix::fs::syncfs(folder).map_err(io::Error::from));
    synced.map_err(failed)?;
    Ok(report)
}

fn copy_packs(from: &Path, to: &Path, report: &mut BackupReport) -> io::Result<()> {
    fs::create_dir(to)?;
    let mut whole: BTreeSet<String> = BTreeSet::new();
    for _ in 0..LISTINGS_MAX {
        let names = pack_names(from)?;
        match copy_listed(from, to, &names, &mut whole, report) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
            done => done?,
        }
        // A pack that went while the last one was copied may have what it held behind the part that was copied.
        if pack_names(from)? == names {
            for gone in pack_names(to)?.difference(&names) {
                fs::remove_file(to.join(gone))?;
            }
            fs::copy(from.join("FORMAT"), to.join("FORMAT"))?;
            report.packs = names.len() as u64;
            return Ok(());
        }
    }
    Err(io::Error::other("packs come and go faster than they are copied"))
}

/// Packs sort by their number, and only the last one is written to.
fn copy_listed(
    from: &Path,
    to: &Path,
    names: &BTreeSet<String>,
    whole: &mut BTreeSet<String>,
    report: &mut BackupReport,
) -> io::Result<()> {
    let last = names.last();
    for name in names {
        if whole.contains(name) {
            continue;
        }
        let (source, target) = (from.join(name), to.join(name));
        match fs::remove_file(&target) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        if Some(name) == last {
            report.copied += fs::copy(&source, &target)?;
            continue;
        }
        match fs::hard_link(&source, &target) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Err(error),
            Err(_) => report.copied += fs::copy(&source, &target)?,
            Ok(()) => {}
        }
        whole.insert(name.clone());
    }
    Ok(())
}

fn pack_names(folder: &Path) -> io::Result<BTreeSet<String>> {
    let names = fs::read_dir(folder)?.map(|entry| Ok(entry?.file_name().into_string().ok()));
    let names = names.collect::<io::Result<Vec<_>>>()?.into_iter().flatten();
    Ok(names.filter(|name| name.ends_with(".pack")).collect())
}
