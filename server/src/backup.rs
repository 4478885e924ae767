//! Backups of all that the data folder keeps in packs, with their rows and the index files of stores; and the way back.
//!
//! A backup is taken while the server runs and is one moment of each folder (`cairn_index::backup`); index files are copied first, so
//! that what they name is in the packs behind them. `BACKUP` in it is written last and says what there is: a folder without it is
//! none. Packs that are full are hard links where the file system has them, so a backup beside the data folder costs little and
//! outlives a mistake, but not the disk: copy it elsewhere for that. `restore` fills a data folder that has none of the parts.
//! Not here: who may ask for one (`gateway`), how a folder is copied while it is written to (`index`).

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io;
use std::os::unix::fs::DirBuilderExt as _;
use std::path::{Component, Path, PathBuf};
use std::process::ExitCode;
use std::sync::{Arc, Mutex, TryLockError};

use cairn_gateway::admin::{Backup, BackupError};
use cairn_index::{BACKUP_INDEX, BACKUP_PACKS, Database, backup};
use cairn_store::{PackEngine, PackOptions, PackStore};
use clap::Args;
use serde::{Deserialize, Serialize};
use serde_json::json;

use crate::config::Config;
use crate::data::DataFolder;
use crate::keeper::{Rows, index_files, unix_seconds};
use crate::objects;
use crate::places::{self, Packs};
use crate::routes::{App, chain};
use crate::store_verbs::{Own, print};

/// What a backup says of itself; without it there is none.
const MANIFEST_NAME: &str = "BACKUP";
const FORMAT_VERSION: u32 = 1;
/// Index files of stores.
const INDEXES: &str = "indexes";
/// Packs of stores with their rows.
const STORES: &str = "stores";
/// Those of buckets.
const OBJECTS: &str = "objects";

const BACKUP_HELP: &str = "\
The server must not run; of one that runs, ask for a backup at its internal address (docs/admin.md).

EXAMPLES
  cairnd backup /srv/backups/before-upgrade
  cairnd --data ./fresh restore /srv/backups/before-upgrade";

/// `backup`
#[derive(Debug, Args)]
#[command(after_long_help = BACKUP_HELP)]
pub(crate) struct BackupArgs {
    /// Reports as a JSON object
    #[arg(long)]
    json: bool,
    /// Folder of the backup, not there yet
    #[arg(value_name = "DIR")]
    to: PathBuf,
}

/// `restore`
#[derive(Debug, Args)]
#[command(after_long_help = "\
Fills a data folder that has none of what the backup has; nothing is written over. The backup stays as it is and may be restored
again. Stores are put where the settings (--config, --data) have them.

EXAMPLES
  cairnd --data ./fresh restore /srv/backups/before-upgrade")]
pub(crate) struct RestoreArgs {
    /// Reports as a JSON object
    #[arg(long)]
    json: bool,
    /// Folder of the backup
    #[arg(value_name = "DIR")]
    from: PathBuf,
}

/// A folder of packs that is open.
#[derive(Clone)]
pub(crate) struct Part {
    /// The store's; of objects, whatever they are called.
    pub(crate) name: String,
    pub(crate) folder: PathBuf,
    pub(crate) rows: Arc<Rows>,
    pub(crate) packs: Arc<PackEngine>,
}

impl Part {
    fn copy(&self, to: &Path) -> Result<PartEntry, String> {
        let report = backup(&self.rows, &self.packs, &self.folder, to).map_err(|error| chain(&error))?;
        let (packs, copied) = (report.packs, report.copied);
        Ok(PartEntry { packs, copied })
    }
}

/// The backups of a server that runs.
pub(crate) struct Backups {
    folder: PathBuf,
    objects: Part,
    app: Arc<App>,
    /// One at a time.
    running: Mutex<()>,
}

impl Backups {
    /// - `objects`: those of buckets.
    /// - `app`: whose stores are in them too.
    pub(crate) fn new(config: &Config, objects: Part, app: &Arc<App>) -> Self {
        let folder = config.admin.backups.clone();
        Self {
            folder: folder.unwrap_or_else(|| config.data.join("backups")),
            objects,
            app: Arc::clone(app),
            running: Mutex::new(()),
        }
    }
}

impl std::fmt::Debug for Backups {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Backups")
            .field("folder", &self.folder)
            .finish_non_exhaustive()
    }
}

impl cairn_gateway::admin::Backups for Backups {
    fn create(&self, name: &str) -> Result<Backup, BackupError> {
        let _running = match self.running.try_lock() {
            Err(TryLockError::WouldBlock) => return Err(BackupError::Busy),
            Err(TryLockError::Poisoned(poisoned)) => poisoned.into_inner(),
            Ok(running) => running,
        };
        let to = self.folder.join(name);
        if to.exists() {
            return Err(BackupError::Exists);
        }
        let (stores, indexes) = self.app.roots().backup_parts();
        let made = fs::create_dir_all(&self.folder).map_err(|error| error.to_string());
        let written = made.and_then(|()| write_backup(Some(&self.objects), &stores, &indexes, &to));
        let manifest = written.map_err(|error| {
            tracing::error!(folder = %to.display(), error, "a backup could not be taken");
            BackupError::Failed
        })?;
        tracing::info!(folder = %to.display(), "a backup was taken");
        Ok(manifest.shown(name))
    }

    fn list(&self) -> Result<Vec<Backup>, BackupError> {
        let entries = match fs::read_dir(&self.folder) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
            entries => entries,
        };
        let names = entries.and_then(|entries| {
            entries
                .map(|entry| Ok(entry?.file_name()))
                .collect::<io::Result<Vec<_>>>()
        });
        let names = names.map_err(|error| {
            tracing::error!(folder = %self.folder.display(), %error, "the backups cannot be listed");
            BackupError::Failed
        })?;
        let mut names: Vec<String> = names.into_iter().filter_map(|name| name.into_string().ok()).collect();
        names.sort();
        // One that is being written, or was given up, is none.
        let whole = names.iter().filter_map(|name| {
            let manifest = read_manifest(&self.folder.join(name)).ok()?;
            Some(manifest.shown(name))
        });
        Ok(whole.collect())
    }
}

/// What a backup has.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Manifest {
    version: u32,
    written_by: String,
    /// Seconds since 1970 UTC, when it was begun.
    taken_at: u64,
    objects: Option<PartEntry>,
    stores: BTreeMap<String, PartEntry>,
    /// Stores whose index files are in it.
    indexes: Vec<String>,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
struct PartEntry {
    packs: u64,
    /// Bytes that were copied and not linked.
    copied: u64,
}

/// Writes a backup.
///
/// - `objects`: those of buckets. `stores`: packs of stores; of two with one name, which are places of a mirror, the first.
/// - `indexes`: names of stores, and their folders of index files.
/// - `to`: not there yet; what was written of it is taken away again if it fails.
fn write_backup(
    objects: Option<&Part>,
    stores: &[Part],
    indexes: &[(String, PathBuf)],
    to: &Path,
) -> Result<Manifest, String> {
    let failed = |error: io::Error| format!("cannot write the backup {}: {error}", to.display());
    // As what it is a copy of.
    create_closed(to).map_err(failed)?;
    let written = fill(objects, stores, indexes, to);
    if written.is_err() {
        // What is left says by itself that it is no backup.
        let _ = fs::remove_dir_all(to);
    }
    written
}

fn fill(objects: Option<&Part>, stores: &[Part], indexes: &[(String, PathBuf)], to: &Path) -> Result<Manifest, String> {
    let failed = |error: io::Error| format!("cannot write the backup {}: {error}", to.display());
    let mut manifest = Manifest {
        version: FORMAT_VERSION,
        written_by: concat!("cairnd ", env!("CARGO_PKG_VERSION")).to_owned(),
        taken_at: unix_seconds(),
        objects: None,
        stores: BTreeMap::new(),
        indexes: Vec::new(),
    };
    fs::create_dir(to.join(INDEXES)).map_err(failed)?;
    for (name, folder) in indexes {
        copy_indexes(folder, &to.join(INDEXES).join(name))?;
        manifest.indexes.push(name.clone());
    }
    fs::create_dir(to.join(STORES)).map_err(failed)?;
    for part in stores {
        if !manifest.stores.contains_key(&part.name) {
            let entry = part.copy(&to.join(STORES).join(&part.name))?;
            manifest.stores.insert(part.name.clone(), entry);
        }
    }
    manifest.objects = objects.map(|part| part.copy(&to.join(OBJECTS))).transpose()?;
    let text = serde_json::to_vec_pretty(&manifest).map_err(|error| error.to_string())?;
    // All else first, then what says that it is whole.
    sync_all(to).map_err(failed)?;
    fs::write(to.join(MANIFEST_NAME), text).map_err(failed)?;
    sync_all(to).map_err(failed)?;
    Ok(manifest)
}

/// Makes a folder that is its owner's alone: the rows of objects have the secrets of access keys.
fn create_closed(folder: &Path) -> io::Result<()> {
    fs::DirBuilder::new().mode(objects::FOLDER_MODE).create(folder)
}

fn sync_all(folder: &Path) -> io::Result<()> {
    rustix::fs::syncfs(File::open(folder)?).map_err(io::Error::from)
}

/// Links or copies the index files of a store. They get their names when they are whole, and never change.
fn copy_indexes(from: &Path, to: &Path) -> Result<(), String> {
    let failed = |path: &Path, error: io::Error| format!("cannot copy {}: {error}", path.display());
    fs::create_dir_all(to).map_err(|error| failed(to, error))?;
    for file in index_files(from)? {
        let name = file.strip_prefix(from).map_err(|error| error.to_string())?;
        let target = to.join(name);
        let folder = target.parent().unwrap_or(to);
        fs::create_dir_all(folder).map_err(|error| failed(folder, error))?;
        match link_or_copy(&file, &target) {
            // Deleted meanwhile.
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            done => done.map_err(|error| failed(&file, error))?,
        }
    }
    Ok(())
}

fn link_or_copy(from: &Path, to: &Path) -> io::Result<()> {
    match fs::hard_link(from, to) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Err(error),
        Err(_) => fs::copy(from, to).map(drop),
        Ok(()) => Ok(()),
    }
}

/// `cairnd backup`: of a data folder that no server uses.
pub(crate) fn run_backup(config: &Config, arguments: &BackupArgs) -> Result<ExitCode, String> {
    // A mistyped folder is not made.
    if !config.data.join("FORMAT").is_file() {
        return Err(format!("{} is no data folder: it has no FORMAT", config.data.display()));
    }
    let _data = DataFolder::open(&config.data).map_err(|error| error.to_string())?;
    let mut stores = Vec::new();
    let mut indexes = Vec::new();
    for (name, settings) in &config.stores {
        let folder = config.index_folder(name, settings);
        if folder.is_dir() {
            indexes.push((name.clone(), folder));
        }
        if !settings.upstream.is_empty() || !settings.mirror.is_empty() {
            continue;
        }
        let own = Own::open(config, name, settings, true, None)?;
        if let (Some(packs), Some(index)) = (own.packs, own.index) {
            stores.push(Part {
                name: name.clone(),
                folder: own.folder,
                rows: Arc::new(Database::logged(index, Arc::clone(packs.engine()) as Arc<_>)),
                packs: Arc::clone(packs.engine()),
            });
        }
    }
    let folder = config.data.join(objects::FOLDER_NAME);
    let objects = match PackStore::is_at(&folder) {
        false => None,
        true => {
            let (packs, _) = Packs::open(&folder, &PackOptions::default(), config.s3.places_cache, None)?;
            Some(Part {
                name: objects::FOLDER_NAME.to_owned(),
                folder,
                rows: Arc::new(Database::logged(packs.index, Arc::clone(&packs.engine) as Arc<_>)),
                packs: packs.engine,
            })
        }
    };
    let manifest = write_backup(objects.as_ref(), &stores, &indexes, &arguments.to)?;
    print(
        arguments.json,
        &json!(manifest),
        &format!("{}: {}", arguments.to.display(), manifest.words()),
    )?;
    Ok(ExitCode::SUCCESS)
}

/// `cairnd restore`
pub(crate) fn run_restore(config: &Config, arguments: &RestoreArgs) -> Result<ExitCode, String> {
    let from = &arguments.from;
    let manifest = read_manifest(from)?;
    let data = DataFolder::open(&config.data).map_err(|error| error.to_string())?;
    let mut wanted = Vec::new();
    if manifest.objects.is_some() {
        wanted.push((from.join(OBJECTS), config.data.join(objects::FOLDER_NAME)));
    }
    for name in manifest.stores.keys() {
        let settings = config.stores.get(name);
        let settings =
            settings.ok_or_else(|| format!("the backup has a store {name:?} that the settings do not name"))?;
        wanted.push((from.join(STORES).join(name), config.chunk_folder(name, settings)));
    }
    let mut indexes = Vec::new();
    for name in &manifest.indexes {
        let settings = config.stores.get(name);
        let settings = settings
            .ok_or_else(|| format!("the backup has indexes of a store {name:?} that the settings do not name"))?;
        indexes.push((from.join(INDEXES).join(name), config.index_folder(name, settings)));
    }
    // Looked at all before anything is written.
    for (_, to) in wanted.iter().chain(&indexes) {
        let is_empty = match fs::read_dir(to) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => true,
            Err(error) => return Err(format!("cannot look into {}: {error}", to.display())),
            Ok(mut entries) => entries.next().is_none(),
        };
        if !is_empty {
            return Err(format!(
                "{} has something in it: restore into another data folder, or move it away first",
                to.display()
            ));
        }
    }
    if !wanted.is_empty() {
        data.begin_packs().map_err(|error| error.to_string())?;
    }
    for (part, to) in &wanted {
        restore_part(part, to).map_err(|error| format!("cannot restore {}: {error}", to.display()))?;
    }
    for (folder, to) in &indexes {
        copy_indexes(folder, to)?;
    }
    sync_all(&config.data).map_err(|error| format!("cannot sync {}: {error}", config.data.display()))?;
    print(
        arguments.json,
        &json!(manifest),
        &format!("{}: {}", config.data.display(), manifest.words()),
    )?;
    Ok(ExitCode::SUCCESS)
}

/// A part under another name, which it loses when it is whole.
fn restore_part(part: &Path, to: &Path) -> io::Result<()> {
    let parent = to.parent().unwrap_or(Path::new("."));
    fs::create_dir_all(parent)?;
    let name = to.file_name().unwrap_or_default().to_string_lossy();
    let temporary = parent.join(format!(".tmp-restore-{name}"));
    match fs::remove_dir_all(&temporary) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    match name == objects::FOLDER_NAME {
        true => create_closed(&temporary)?,
        false => fs::create_dir(&temporary)?,
    }
    copy_files(&part.join(BACKUP_PACKS), &temporary)?;
    let database = places::begin(&temporary)?;
    fs::create_dir_all(&database)?;
    copy_files(&part.join(BACKUP_INDEX), &database)?;
    sync_all(&temporary)?;
    // Empty, as was seen.
    match fs::remove_dir(to) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    fs::rename(&temporary, to)
}

/// Copies, not links: what is restored is written to, and the backup is to stay as it is.
fn copy_files(from: &Path, to: &Path) -> io::Result<()> {
    for entry in fs::read_dir(from)? {
        let entry = entry?;
        if entry.file_type()?.is_file() {
            fs::copy(entry.path(), to.join(entry.file_name()))?;
        }
    }
    Ok(())
}

fn read_manifest(from: &Path) -> Result<Manifest, String> {
    let path = from.join(MANIFEST_NAME);
    let text = fs::read(&path)
        .map_err(|error| format!("{} is no whole backup: {}: {error}", from.display(), path.display()))?;
    let manifest: Manifest =
        serde_json::from_slice(&text).map_err(|error| format!("{} is damaged: {error}", path.display()))?;
    if manifest.version > FORMAT_VERSION {
        return Err(format!(
            "{} has format {}, this cairnd reads {FORMAT_VERSION}: a newer one is needed",
            path.display(),
            manifest.version
        ));
    }
    let is_plain = |name: &str| {
        let mut parts = Path::new(name).components();
        matches!((parts.next(), parts.next()), (Some(Component::Normal(_)), None))
    };
    let names = manifest.stores.keys().chain(&manifest.indexes);
    match names.into_iter().find(|name| !is_plain(name)) {
        Some(name) => Err(format!(
            "{} names a folder {name:?}, which is none of a backup",
            path.display()
        )),
        None => Ok(manifest),
    }
}

impl Manifest {
    fn shown(&self, name: &str) -> Backup {
        Backup {
            name: name.to_owned(),
            taken_at: self.taken_at,
            contents: json!({ "objects": self.objects, "stores": self.stores, "indexes": self.indexes }),
        }
    }

    fn words(&self) -> String {
        let parts = || self.stores.values().chain(&self.objects);
        let packs: u64 = parts().map(|part| part.packs).sum();
        let copied: u64 = parts().map(|part| part.copied).sum();
        format!(
            "{} folders with {packs} packs ({copied} bytes copied, the rest linked), indexes of {} stores",
            parts().count(),
            self.indexes.len()
        )
    }
}
