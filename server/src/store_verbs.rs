//! `cairnd store`: the stores of the data folder while no server uses it.
//!
//! The data folder is locked for the time of the verb, so that a server that runs is noticed, and none begins. A store whose
//! flat folder of an older release is not taken over yet is read from both. Not here: other folders and servers (`cairn
//! store`).

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;

use cairn_formats::{CHUNK_LEN_MAX, ChunkId, DigestAlgorithm, DomainId};
use cairn_index::RocksEngine;
use cairn_store::{
    ChunkStore, ChunkStoreExt as _, Damage, DamageKind, Error, FlatOptions, FlatStore, PackOptions, PackStat,
    PackStore, Prune, ScrubFile, ScrubMemory, ScrubOptions, ScrubState, StoreSpec, open_store,
};
use clap::{Args, Subcommand};
use serde_json::json;

use crate::config::{Config, DEFAULT_STORE, Kind, Store};
use crate::data::{self, DataFolder};
use crate::events;
use crate::folders::digest_of;
use crate::places::Packs;
use crate::routes::{chain, remote_options};
use crate::store_gc::Gc;

/// Something is bad or missing; it was listed. As in `cairn`.
const INCOMPLETE: u8 = 3;
/// Chunks copied or checked together.
const BATCH_CHUNKS: usize = 64;
/// Batches between two flushes of a store that is written out.
const FLUSH_BATCHES: usize = 64;

const AFTER_HELP: &str = "\
The server must not run: the data folder is locked meanwhile. Settings are read as the server reads them (--config, --data).
A folder of packs elsewhere, or one that is only read while the server runs, is `cairn store`'s.

EXIT CODES
  0  done      1  could not be done      2  wrong command line      3  done, and something is bad; it was listed

EXAMPLES
  cairnd store stat
  cairnd --data /var/lib/cairn store verify --repair --from https://other.example.org/store/default/
  cairnd store gc --prune --dry-run                  which chunks does no index of the store name?
  cairnd store export /srv/castr                     a flat folder for casync and desync
  cairnd store export --all /var/lib/cairn-0.1       a data folder for release 0.1";

/// `store`
#[derive(Debug, Args)]
#[command(after_long_help = AFTER_HELP)]
pub(crate) struct StoreArgs {
    /// Name of the store [default: default, or the only one]
    #[arg(long, global = true, value_name = "NAME")]
    store: Option<String>,
    /// Reports as JSON objects
    #[arg(long, global = true)]
    json: bool,
    #[command(subcommand)]
    verb: StoreVerb,
}

#[derive(Debug, Subcommand)]
enum StoreVerb {
    /// Tell how much is in the store, and how much of its disk space is needed
    Stat,
    /// List chunks (id, stored and plain bytes, place), or packs
    Ls {
        /// Packs instead of chunks: number, id, bytes, chunks and share that are needed
        #[arg(long)]
        packs: bool,
    },
    /// Print the events of changes of objects that are in the outbox, a line of JSON each
    Events(events::EventsArgs),
    /// Check every chunk against its name, and every pack against its footer
    Verify {
        /// Take bad chunks out of the store, so that they can be put again
        #[arg(short = 'r', long)]
        repair: bool,
        /// Fetch good ones in their place: folder or URL of a store, the first that has one; its keys are those of `upstream`
        #[arg(long, value_name = "STORE", requires = "repair")]
        from: Vec<String>,
    },
    /// Give back the space of deleted chunks: packs that are mostly not needed are written anew
    Gc {
        /// First delete the chunks that neither an index of the store nor a given one names
        #[arg(long)]
        prune: bool,
        /// Further indexes whose chunks are kept
        #[arg(value_name = "INDEX", requires = "prune")]
        indexes: Vec<PathBuf>,
        /// Tell what would be deleted, change nothing
        #[arg(long)]
        dry_run: bool,
        /// Packs are written anew when less than this share of them is needed, 0 to 1
        #[arg(long, default_value_t = 0.5, value_name = "SHARE")]
        live_share: f64,
        /// Packs too that are kept because damage was found in them: their damaged bytes are lost to whoever would look into them
        #[arg(long)]
        release_damaged: bool,
    },
    /// Make the index of places anew from the packs, and check that their footers and records agree
    RebuildIndex,
    /// Write the store out as a flat folder of casync's layout; goes on where it was stopped
    Export {
        /// All stores with their indexes, as a data folder that release 0.1 opens
        #[arg(long, conflicts_with = "store")]
        all: bool,
        /// Folder, made if it is not there
        #[arg(value_name = "DIR")]
        folder: PathBuf,
    },
}

/// A store of the data folder, open.
pub(crate) struct Own {
    pub(crate) folder: PathBuf,
    pub(crate) packs: Option<PackStore>,
    /// The packs' index, if they were opened to be changed.
    pub(crate) index: Option<Arc<RocksEngine>>,
    /// A flat store, or what is not taken over yet.
    pub(crate) flat: Option<FlatStore>,
    digest: DigestAlgorithm,
    suspects: Vec<String>,
    /// Why the index was built anew, if it was.
    rebuilt: Option<String>,
}

/// Does what is asked.
pub(crate) fn run(config: &Config, arguments: &StoreArgs) -> Result<ExitCode, String> {
    // A mistyped folder is not made.
    if !config.data.join("FORMAT").is_file() {
        return Err(format!("{} is no data folder: it has no FORMAT", config.data.display()));
    }
    let _data = DataFolder::open(&config.data).map_err(|error| error.to_string())?;
    let say = |object: serde_json::Value, lines: &str| print(arguments.json, &object, lines);
    match &arguments.verb {
        StoreVerb::Export { all: true, folder } => return export_all(config, folder, &say),
        // Of the objects, which are no store's.
        StoreVerb::Events(arguments) => return events::print(config, arguments),
        _ => {}
    }
    let (name, settings) = chosen(config, arguments.store.as_deref())?;
    let changes = matches!(
        arguments.verb,
        StoreVerb::Verify { repair: true, .. } | StoreVerb::Gc { dry_run: false, .. } | StoreVerb::RebuildIndex
    );
    let rebuild = matches!(arguments.verb, StoreVerb::RebuildIndex).then(|| "as was asked".to_owned());
    let own = Own::open(config, name, settings, changes, rebuild)?;
    if let (Some(why), false) = (&own.rebuilt, matches!(arguments.verb, StoreVerb::RebuildIndex)) {
        eprintln!("cairnd: warning: the index of places was built anew from the packs: {why}");
    }
    for suspect in &own.suspects {
        eprintln!("cairnd: warning: {suspect}; what it holds is left alone");
    }
    match &arguments.verb {
        StoreVerb::Stat => stat(name, &own, &say),
        StoreVerb::Events(_) => unreachable!("it was answered above"),
        StoreVerb::Ls { packs } => ls(&own, *packs, &say),
        StoreVerb::Verify { repair, from } => {
            let sources = from.iter().map(|place| open_source(place, settings));
            verify(&own, *repair, &sources.collect::<Result<Vec<_>, _>>()?, &say)
        }
        StoreVerb::Gc {
            prune,
            indexes,
            dry_run,
            live_share,
            release_damaged,
        } => {
            let gc = Gc {
                prune: prune.then_some(&indexes[..]),
                dry_run: *dry_run,
                live_share: *live_share,
                release_damaged: *release_damaged,
            };
            gc.run(config, name, settings, &own, &say)
        }
        StoreVerb::RebuildIndex => rebuild_index(&own, &say),
        StoreVerb::Export { folder, .. } => {
            let carried = export(&own, folder)?;
            carried.report(folder, &say)
        }
    }
}

pub(crate) type Say<'a> = dyn Fn(serde_json::Value, &str) -> Result<(), String> + 'a;

pub(crate) fn print(json: bool, object: &serde_json::Value, lines: &str) -> Result<(), String> {
    let text = if json {
        object.to_string()
    } else {
        lines.trim_end().to_owned()
    };
    let mut output = io::stdout().lock();
    match writeln!(output, "{text}") {
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => std::process::exit(0),
        written => written.map_err(|error| format!("standard output: {error}")),
    }
}

/// The store that is meant.
pub(crate) fn chosen<'a>(config: &'a Config, name: Option<&str>) -> Result<(&'a str, &'a Store), String> {
    let known = || config.stores.keys().cloned().collect::<Vec<_>>().join(", ");
    let found = match name {
        Some(name) => config.stores.get_key_value(name),
        None if config.stores.len() == 1 => config.stores.iter().next(),
        None => config.stores.get_key_value(DEFAULT_STORE),
    };
    let (name, settings) = found.ok_or_else(|| format!("name one of the stores with --store: {}", known()))?;
    if !settings.upstream.is_empty() {
        return Err(format!(
            "stores.{name} is in front of others and keeps no chunks of its own"
        ));
    }
    Ok((name, settings))
}

impl Own {
    pub(crate) fn open(
        config: &Config,
        name: &str,
        settings: &Store,
        changes: bool,
        rebuild: Option<String>,
    ) -> Result<Self, String> {
        let folder = config.chunk_folder(name, settings);
        let mut own = Self {
            packs: None,
            index: None,
            flat: None,
            digest: digest_of(settings),
            suspects: Vec::new(),
            rebuilt: None,
            folder,
        };
        let flat = |path: &Path| {
            let options = FlatOptions {
                read_only: !changes,
                ..FlatOptions::default()
            };
            FlatStore::open(path, options).map_err(|error| chain(&error))
        };
        if Config::kind(settings) == Kind::Flat {
            own.flat = Some(flat(&own.folder)?);
            return Ok(own);
        }
        if PackStore::is_at(&own.folder) {
            let options = PackOptions {
                algorithm: own.digest,
                pack_len: settings.pack_len,
                queue_len: settings.queue_len,
                read_only: !changes,
                ..PackOptions::default()
            };
            let (store, report) = if changes {
                let (packs, report) = Packs::open(&own.folder, &options, settings.places_cache, rebuild)?;
                (own.rebuilt, own.index) = (packs.rebuilt, Some(packs.index));
                (PackStore::new(packs.engine, DomainId::default()), report)
            } else {
                PackStore::open(&own.folder, options).map_err(|error| chain(&error))?
            };
            let suspects = report.suspects.into_iter();
            own.suspects = suspects
                .map(|suspect| format!("{}: {}", suspect.file, suspect.what))
                .collect();
            own.packs = Some(store);
        }
        let older = config.own_flat(name);
        if settings.path.is_none() && older.is_dir() {
            own.flat = Some(flat(&older)?);
        }
        Ok(own)
    }

    pub(crate) fn parts(&self) -> Vec<&dyn Prune> {
        let packs = self.packs.iter().map(|store| store as &dyn Prune);
        packs.chain(self.flat.iter().map(|store| store as &dyn Prune)).collect()
    }

    fn pack_stats(&self) -> Result<Vec<PackStat>, String> {
        match &self.packs {
            Some(packs) => packs.engine().pack_stats().map_err(|error| chain(&error)),
            None => Ok(Vec::new()),
        }
    }
}

fn stat(name: &str, own: &Own, say: &Say<'_>) -> Result<ExitCode, String> {
    let packs = own.pack_stats()?;
    let sum = |of: fn(&PackStat) -> u64| packs.iter().map(of).sum::<u64>();
    let (mut files, mut file_bytes) = (0u64, 0u64);
    if let Some(flat) = &own.flat {
        let counted = flat.for_each_file(&mut |file| {
            if let Some((_, len)) = flat.stat(file.id, file.form)?.and_then(|stat| stat.stored) {
                files += 1;
                file_bytes += len;
            }
            Ok(())
        });
        counted.map_err(|error| chain(&error))?;
    }
    let (live, stored) = (sum(|pack| pack.live_bytes), sum(|pack| pack.bytes));
    let chunks = sum(|pack| pack.live_chunks);
    let unique = sum(|pack| pack.live_bytes_plain);
    let share = if stored == 0 { 1.0 } else { live as f64 / stored as f64 };
    let object = json!({
        "store": name, "folder": own.folder, "kind": if own.packs.is_some() { "packs" } else { "flat" },
        "chunks": chunks, "bytes-unique": unique, "bytes-frames": live, "bytes-stored": stored,
        "packs": packs.len(), "live-share": share, "flat-chunks": files, "flat-bytes": file_bytes,
    });
    let mut lines = String::new();
    if own.packs.is_some() {
        lines += &format!(
            "chunks: {chunks}\nunique: {unique} bytes, plain\nstored: {stored} bytes; packs: {}, of which {:.1} % is needed\n",
            packs.len(),
            share * 100.0
        );
    }
    if own.flat.is_some() {
        lines += &format!("flat: {files} chunks in files, {file_bytes} bytes\n");
    }
    say(object, &lines)?;
    Ok(ExitCode::SUCCESS)
}

fn ls(own: &Own, packs: bool, say: &Say<'_>) -> Result<ExitCode, String> {
    if packs {
        for pack in own.pack_stats()? {
            let share = pack.live_bytes as f64 / pack.bytes.max(1) as f64;
            let (number, uuid, bytes, chunks) = (pack.number, pack.uuid, pack.bytes, pack.live_chunks);
            say(
                json!({
                    "number": number, "uuid": uuid.to_string(), "bytes": bytes, "sealed": pack.sealed,
                    "live-chunks": chunks, "live-bytes": pack.live_bytes, "live-share": share,
                }),
                &format!("{number:08x} {uuid} {bytes} {chunks} {share:.3}"),
            )?;
        }
        return Ok(ExitCode::SUCCESS);
    }
    let mut failed = None;
    let mut line = |object: serde_json::Value, line: String| {
        if let Err(error) = say(object, &line) {
            failed.get_or_insert(error);
        }
    };
    if let Some(packs) = &own.packs {
        let listed = packs.engine().for_each_in_order(&mut |key, place| {
            line(
                json!({
                    "id": key.id.to_string(), "bytes": place.len, "bytes-plain": place.plain_len, "pack": place.pack,
                    "offset": place.offset, "pinned": place.pinned,
                }),
                format!(
                    "{} {} {} {:08x}:{}",
                    key.id, place.len, place.plain_len, place.pack, place.offset
                ),
            );
            Ok(())
        });
        listed.map_err(|error| chain(&error))?;
    }
    if let Some(flat) = &own.flat {
        let listed = flat.for_each_file(&mut |file| {
            if let Some((_, len)) = flat.stat(file.id, file.form)?.and_then(|stat| stat.stored) {
                line(
                    json!({ "id": file.id.to_string(), "bytes": len }),
                    format!("{} {len}", file.id),
                );
            }
            Ok(())
        });
        listed.map_err(|error| chain(&error))?;
    }
    failed.map_or(Ok(ExitCode::SUCCESS), Err)
}

/// A store that good chunks are fetched from.
fn open_source(place: &str, settings: &Store) -> Result<Arc<dyn ChunkStore>, String> {
    let options = remote_options(settings, true);
    let spec = StoreSpec::parse(place, |_| options.clone()).map_err(|error| format!("--from {place}: {error}"))?;
    open_store(&spec).map_err(|error| format!("--from {place}: {}", chain(&error)))
}

/// What a check of a store found.
#[derive(Default)]
struct Checked {
    chunks: u64,
    bad: u64,
    healed: u64,
    findings: Vec<String>,
}

fn verify(own: &Own, repair: bool, sources: &[Arc<dyn ChunkStore>], say: &Say<'_>) -> Result<ExitCode, String> {
    let mut checked = Checked {
        findings: own.suspects.clone(),
        ..Checked::default()
    };
    if let Some(packs) = &own.packs {
        checked.packs(own, packs, repair, sources)?;
    }
    if let Some(flat) = &own.flat {
        checked.flat(own, flat, repair, sources)?;
    }
    let Checked {
        chunks,
        bad,
        healed,
        findings,
    } = checked;
    let mut lines: String = findings.iter().map(|line| format!("{line}\n")).collect();
    lines += &format!("{chunks} chunks: {bad} bad");
    if repair {
        lines += &format!(", {healed} healed, {} taken out", bad - healed.min(bad));
    }
    say(
        json!({
            "chunks": chunks, "bad": bad, "healed": healed, "findings": findings, "repaired": repair,
        }),
        &lines,
    )?;
    Ok(if findings.is_empty() {
        ExitCode::SUCCESS
    } else {
        ExitCode::from(INCOMPLETE)
    })
}

impl Checked {
    /// One scrub of all packs, whenever they were verified last.
    fn packs(
        &mut self,
        own: &Own,
        packs: &PackStore,
        repair: bool,
        sources: &[Arc<dyn ChunkStore>],
    ) -> Result<(), String> {
        let options = ScrubOptions {
            dry_run: !repair,
            workers: std::thread::available_parallelism().map_or(1, usize::from),
            ..ScrubOptions::default()
        };
        let notes: Box<dyn ScrubState> = match repair {
            true => Box::new(ScrubFile::in_folder(&own.folder)),
            false => Box::new(ScrubMemory::default()),
        };
        let report = packs.engine().scrub(&options, sources, &*notes, &mut |_| true);
        let report = report.map_err(|error| chain(&error))?;
        let is_chunk = |damage: &&Damage| matches!(damage.what, DamageKind::Chunk | DamageKind::Unreadable);
        let bad = report.damages.iter().filter(is_chunk).count() as u64;
        self.chunks += report.chunks + bad;
        self.bad += bad;
        self.healed += report.healed;
        self.findings.extend(report.damages.iter().map(Damage::to_string));
        self.findings.extend(report.errors.iter().map(|error| chain(error)));
        Ok(())
    }

    fn flat(
        &mut self,
        own: &Own,
        flat: &FlatStore,
        repair: bool,
        sources: &[Arc<dyn ChunkStore>],
    ) -> Result<(), String> {
        let mut batch = Vec::with_capacity(BATCH_CHUNKS);
        let mut damaged = Vec::new();
        let mut check = |batch: &mut Vec<ChunkId>| {
            for (answer, &id) in flat.get_many(batch).into_iter().zip(batch.iter()) {
                let proven = match answer {
                    Ok(encoded) => encoded.verify(own.digest, CHUNK_LEN_MAX).map(drop),
                    Err(Error::Missing { .. }) => continue,
                    Err(Error::Corrupt { source, .. }) => Err(source),
                    Err(error) => return Err(error),
                };
                self.chunks += 1;
                if let Err(error) = proven {
                    self.findings.push(chain(&error));
                    damaged.push(id);
                }
            }
            batch.clear();
            Ok(())
        };
        let listed = flat.for_each_id(&mut |id| {
            batch.push(id);
            if batch.len() == BATCH_CHUNKS {
                check(&mut batch)
            } else {
                Ok(())
            }
        });
        listed.and_then(|()| check(&mut batch)).map_err(|error| chain(&error))?;
        self.bad += damaged.len() as u64;
        if !repair {
            return Ok(());
        }
        flat.remove_many(&damaged).map_err(|error| chain(&error))?;
        for id in damaged {
            let good = sources.iter().find_map(|source| {
                let encoded = source.get_many(&[id]).pop()?.ok()?;
                encoded.verify(own.digest, CHUNK_LEN_MAX).ok()
            });
            if let Some(good) = good {
                flat.put_many(&[good]).map_err(|error| chain(&error))?;
                self.healed += 1;
            }
        }
        flat.flush().map_err(|error| chain(&error))
    }
}

fn rebuild_index(own: &Own, say: &Say<'_>) -> Result<ExitCode, String> {
    let Some(packs) = &own.packs else {
        return Err(format!("{} has no packs", own.folder.display()));
    };
    // Opening has made the index anew.
    let stats = own.pack_stats()?;
    let chunks: u64 = stats.iter().map(|pack| pack.live_chunks).sum();
    let mut checked = Checked {
        findings: own.suspects.clone(),
        ..Checked::default()
    };
    checked.packs(own, packs, false, &[])?;
    let bad = checked.findings;
    let mut lines: String = bad.iter().map(|line| format!("{line}\n")).collect();
    lines += &format!(
        "{chunks} chunks found in {} packs; {} read, {} findings",
        stats.len(),
        checked.chunks,
        bad.len()
    );
    let object = json!({ "chunks": chunks, "packs": stats.len(), "read": checked.chunks, "findings": bad });
    say(object, &lines)?;
    Ok(if bad.is_empty() {
        ExitCode::SUCCESS
    } else {
        ExitCode::from(INCOMPLETE)
    })
}

/// What was written out.
#[derive(Default)]
struct Carried {
    chunks: u64,
    copied: u64,
    bytes: u64,
    bad: Vec<String>,
}

impl Carried {
    fn report(&self, folder: &Path, say: &Say<'_>) -> Result<ExitCode, String> {
        let mut lines: String = self.bad.iter().map(|line| format!("{line}\n")).collect();
        lines += &format!(
            "{} chunks, {} written ({} bytes) to {}, {} could not be had",
            self.chunks,
            self.copied,
            self.bytes,
            folder.display(),
            self.bad.len()
        );
        let object = json!({
            "folder": folder, "chunks": self.chunks, "copied": self.copied, "bytes": self.bytes, "bad": self.bad,
        });
        say(object, &lines)?;
        Ok(if self.bad.is_empty() {
            ExitCode::SUCCESS
        } else {
            ExitCode::from(INCOMPLETE)
        })
    }
}

fn export(own: &Own, folder: &Path) -> Result<Carried, String> {
    if PackStore::is_at(folder) || folder.join("FORMAT").exists() {
        return Err(format!(
            "{} has a file FORMAT and is no flat folder; name another",
            folder.display()
        ));
    }
    fs::create_dir_all(folder).map_err(|error| format!("cannot make {}: {error}", folder.display()))?;
    let to = FlatStore::open(folder, FlatOptions::default()).map_err(|error| chain(&error))?;
    let mut carried = Carried::default();
    for part in own.parts() {
        let mut batch = Vec::with_capacity(BATCH_CHUNKS);
        let mut batches = 0;
        let mut carry = |batch: &mut Vec<ChunkId>| {
            carried.add(part, &to, batch, own.digest)?;
            batch.clear();
            batches += 1;
            if batches % FLUSH_BATCHES == 0 {
                to.flush()
            } else {
                Ok(())
            }
        };
        let listed = part.for_each_id(&mut |id| {
            batch.push(id);
            if batch.len() == BATCH_CHUNKS {
                carry(&mut batch)
            } else {
                Ok(())
            }
        });
        let written = listed.and_then(|()| carry(&mut batch)).and_then(|()| to.flush());
        written.map_err(|error| chain(&error))?;
    }
    Ok(carried)
}

impl Carried {
    fn add(
        &mut self,
        from: &dyn Prune,
        to: &FlatStore,
        ids: &[ChunkId],
        digest: DigestAlgorithm,
    ) -> cairn_store::Result<()> {
        self.chunks += ids.len() as u64;
        let wanted = to.absent(ids)?;
        let mut storable = Vec::with_capacity(wanted.len());
        for answer in from.get_many(&wanted) {
            let proven = match answer {
                Ok(encoded) => encoded.verify(digest, CHUNK_LEN_MAX),
                Err(Error::Corrupt { source, .. }) => Err(source),
                Err(error) => return Err(error),
            };
            match proven {
                Ok(chunk) => storable.push(chunk),
                Err(error) => self.bad.push(chain(&error)),
            }
        }
        to.put_many(&storable)?;
        self.copied += storable.len() as u64;
        self.bytes += storable.iter().map(|chunk| chunk.bytes().len() as u64).sum::<u64>();
        Ok(())
    }
}

/// Every store whose chunks are in the data folder, with its indexes, as release 0.1 keeps them.
fn export_all(config: &Config, folder: &Path, say: &Say<'_>) -> Result<ExitCode, String> {
    let mut sum = Carried::default();
    let mut stores = BTreeMap::new();
    for (name, settings) in &config.stores {
        if !settings.upstream.is_empty() || settings.path.is_some() {
            continue;
        }
        let own = Own::open(config, name, settings, false, None)?;
        let carried = export(&own, &folder.join("store").join(name))?;
        let (from, to) = (config.index_folder(name, settings), folder.join("index").join(name));
        if settings.indexes.is_none() {
            copy_tree(&from, &to)
                .map_err(|error| format!("cannot copy {} to {}: {error}", from.display(), to.display()))?;
        }
        stores.insert(name, carried.copied);
        sum.chunks += carried.chunks;
        sum.copied += carried.copied;
        sum.bytes += carried.bytes;
        sum.bad.extend(carried.bad);
    }
    // Last, so that half of it is no data folder.
    let format = folder.join("FORMAT");
    if !format.exists() {
        data::write_flat_format(folder).map_err(|error| format!("cannot write {}: {error}", format.display()))?;
    }
    sum.report(folder, say)
}

/// Copies files durably; those that are there already are left.
fn copy_tree(from: &Path, to: &Path) -> io::Result<()> {
    fs::create_dir_all(to)?;
    let entries = match fs::read_dir(from) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        entries => entries?,
    };
    for entry in entries {
        let entry = entry?;
        let target = to.join(entry.file_name());
        if entry.file_type()?.is_dir() {
            copy_tree(&entry.path(), &target)?;
        } else if entry.file_type()?.is_file() && !target.exists() {
            let temporary = to.join(".tmp-export");
            fs::copy(entry.path(), &temporary)?;
            File::open(&temporary)?.sync_all()?;
            fs::rename(&temporary, &target)?;
        }
    }
    File::open(to)?.sync_all()
}
