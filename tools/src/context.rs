//! What every verb needs: the configuration in force, stores and indexes by location, reports, a progress bar, signals.

use std::io::{Read as _, Write as _};
use std::num::NonZeroU64;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use cairn_formats::{CHUNK_LEN_MAX, ChunkCipher, ChunkForm, ChunkIndex, CipherAlgorithm, CipherKey, DigestAlgorithm};
use cairn_store::{
    Authorization, Behind, CacheOptions, CacheStore, ChunkKey, ChunkPlace, ChunkStore, CompactOptions, CompactReport,
    Cookie, GsConfigured, GsOptions, HttpOptions, IndexStore, LocalStore, Location, LogPosition, MemberSpec,
    ObjectInput, Ownership, PackOptions, PackStat, PackStore, Proxy, Prune, PullOffers, RateLimit, RecompressOptions,
    RecompressReport, RemoteChunks, RemoteKind, RemotePackOptions, RemotePacks, S3Options, ScrubMemory, ScrubOptions,
    ScrubReport, Sealing, SftpOptions, SshOptions, SshPush, StoreChain, StoreName, StoreOptions, StoreSpec,
    StoredChunk, Suspect, SyncPolicy, Together, VerifyStore, init_remote_packs, open_chain, open_prunable_spec,
    open_remote, open_store,
};

use crate::bar::{Bar, Unit};
use crate::cli::{Access, Cached, Global, Seeding, Sources, Writing};
use crate::config::{Config, StoreEntry};
use crate::engine::{Progress, Seed};
use crate::failure::{Failure, Outcome};

/// Longest index taken from standard input.
const INDEX_LEN_MAX: u64 = 1 << 30;
/// Connections to one remote casync: each has many chunks in flight, so `-n` needs no more.
const SSH_CONNECTIONS_MAX: usize = 2;
/// Connections to one SFTP server: one core at its end can encrypt on each.
const SFTP_CONNECTIONS_MAX: usize = 4;

/// One run of the tool.
#[derive(Debug)]
pub(crate) struct Context {
    pub(crate) json: bool,
    pub(crate) verbose: bool,
    pub(crate) digest: DigestAlgorithm,
    pub(crate) config: Config,
    pub(crate) config_path: PathBuf,
    pub(crate) progress: Arc<Progress>,
    /// What servers of this run say of requests for many chunks.
    pulls: PullOffers,
}

impl Context {
    /// Reads the configuration and listens for signals.
    pub(crate) fn new(global: &Global) -> Outcome<Self> {
        let (config_path, config) = Config::load(global.config.as_deref())?;
        let progress = Arc::new(Progress::default());
        Ok(Self {
            json: global.json,
            verbose: global.verbose,
            digest: global.digest.into(),
            config,
            config_path,
            progress,
            pulls: PullOffers::default(),
        })
    }

    /// The first Ctrl-C (or SIGTERM) lets the work clean up, the second ends it at once.
    pub(crate) fn obey_signals(&self) -> Outcome<()> {
        use signal_hook::consts::{SIGINT, SIGTERM};
        use signal_hook::flag;
        let cancelled = self.progress.cancel_flag();
        // Set by the handler itself: a thread that hears of the signal later may come after the end of a cut pipe, which would
        // then be taken for the end of the input.
        for signal in [SIGINT, SIGTERM] {
            let exit = crate::failure::Exit::Interrupted as i32;
            flag::register_conditional_shutdown(signal, exit, Arc::clone(&cancelled))
                .and_then(|_| flag::register(signal, Arc::clone(&cancelled)))
                .map_err(|error| Failure::io("signals", "listen for them", &error))?;
        }
        Ok(())
    }

    /// A word on what is being done, with `--verbose`.
    pub(crate) fn say(&self, words: impl FnOnce() -> String) {
        if self.verbose {
            eprintln!("cairn: {}", words());
        }
    }

    /// A bar for the work that `progress` counts.
    pub(crate) fn bar(&self, what: &'static str, unit: Unit) -> Bar {
        Bar::show(what, unit, &self.progress)
    }

    /// A report: the object with `--json`, else the lines.
    pub(crate) fn report(&self, object: &serde_json::Value, lines: &str) -> Outcome<()> {
        let mut text = if self.json {
            object.to_string()
        } else {
            lines.trim_end().to_owned()
        };
        text.push('\n');
        print(text.as_bytes())
    }

    /// How a location is reached: the flags, and what the configuration says of it.
    fn options(
        &self,
        location: &str,
        access: &Access,
        writing: Option<&Writing>,
        rate: &Rate,
    ) -> Outcome<StoreOptions> {
        let entry = self.config.options(location)?;
        let sealing = self.location_sealing(&entry)?;
        let mut http = HttpOptions {
            concurrency: entry.n.unwrap_or(access.concurrency),
            error_retry: entry.error_retry.unwrap_or(access.error_retry),
            error_retry_base_interval: entry
                .error_retry_base_interval
                .map_or(access.error_retry_base_interval, Duration::from_nanos),
            client_cert: entry.client_cert.clone().or_else(|| access.client_cert.clone()),
            client_key: entry.client_key.clone().or_else(|| access.client_key.clone()),
            ca_cert: entry.ca_cert.clone().or_else(|| access.ca_cert.clone()),
            trust_insecure: entry.trust_insecure || access.trust_insecure,
            authorization: entry.http_auth.clone().map(Authorization::Fixed),
            cookie: entry.http_cookie.clone().map(Cookie),
            proxy: access.proxy.clone().map_or(Proxy::Environment, Proxy::Url),
            rate_limit: rate.0.clone(),
            offers: self.pulls.clone(),
            cancelled: Some(self.progress.cancel_flag()),
            ..HttpOptions::default()
        };
        if let Some(timeout) = entry.timeout() {
            http.timeout = timeout;
        }
        let plain = entry.uncompressed || writing.is_some_and(|writing| writing.uncompressed);
        let environment = |name: &str| std::env::var(name).ok();
        let s3 = match Location::parse(location) {
            Ok(Location::S3(s3)) => S3Options::from_chain(&self.config.s3(&s3.server())?, &environment),
            _ => S3Options::default(),
        };
        let gs = GsConfigured {
            file: entry.gs_credentials.clone(),
            endpoint: entry.gs_endpoint.clone(),
        };
        let mut sftp = SftpOptions {
            connections: http.concurrency.min(SFTP_CONNECTIONS_MAX),
            ..SftpOptions::from_environment(&environment)
        };
        if let Some(identity) = &entry.ssh_identity {
            sftp.identities = vec![identity.clone()];
        }
        if let Some(known_hosts) = &entry.ssh_known_hosts {
            sftp.known_hosts = vec![known_hosts.clone()];
        }
        Ok(StoreOptions {
            s3,
            gs: GsOptions::from_chain(&gs, &environment),
            sftp,
            form: if plain { ChunkForm::Plain } else { ChunkForm::Compressed },
            sync: writing.map_or(SyncPolicy::Sync, |writing| writing.sync.into()),
            read_only: writing.is_none(),
            skip_verify: entry.skip_verify,
            sealing,
            digest: self.digest,
            on_suspect: warn_of,
            on_behind: warn_of_member,
            packs: RemotePackOptions {
                pack_len: entry.pack_size.unwrap_or(RemotePackOptions::default().pack_len),
                cache: cache_folder(&environment),
                cache_len: entry.pack_cache_limit.unwrap_or(0),
                ..RemotePackOptions::default()
            },
            ssh: SshOptions {
                ssh: std::env::var_os("CASYNC_SSH_PATH").unwrap_or_else(|| "ssh".into()),
                remote: std::env::var("CASYNC_REMOTE_PATH").unwrap_or_else(|_| "casync".to_owned()),
                connections: http.concurrency.min(SSH_CONNECTIONS_MAX),
                timeout: http.timeout,
                error_retry: http.error_retry,
                error_retry_base_interval: http.error_retry_base_interval,
                rate_limit: rate.0.clone(),
            },
            http,
        })
    }

    /// The cipher that the configuration gives a location.
    fn location_sealing(&self, entry: &StoreEntry) -> Outcome<Sealing> {
        let place = format!("{}: ", self.config_path.display());
        sealing(
            &place,
            entry.encryption,
            entry.encryption_key.as_deref(),
            entry.encryption_algorithm.as_deref(),
        )
    }

    fn spec(&self, text: &str, access: &Access, writing: Option<&Writing>, rate: &Rate) -> Outcome<StoreSpec> {
        let mut failure = None;
        let spec = StoreSpec::parse(text, |member| {
            self.options(member, access, writing, rate).unwrap_or_else(|error| {
                failure = Some(error);
                StoreOptions::default()
            })
        });
        match failure {
            Some(failure) => Err(failure),
            None => spec.map_err(|error| Failure::usage(format!("{error}"))),
        }
    }

    /// The stores to read from, with the cache in front.
    pub(crate) fn sources(&self, sources: &Sources) -> Outcome<Arc<dyn ChunkStore>> {
        let chain = self.chain(&sources.stores, &sources.access)?;
        self.cached(chain, &sources.cached)
    }

    /// Stores that are asked one after the other.
    pub(crate) fn chain(&self, stores: &[String], access: &Access) -> Outcome<Arc<dyn ChunkStore>> {
        if stores.is_empty() {
            return Err(Failure::usage("no store: name one with -s"));
        }
        let rate = Rate::new(access);
        let specs = |stores: &[String]| {
            let specs = stores.iter().map(|store| self.spec(store, access, None, &rate));
            specs.collect::<Outcome<Vec<StoreSpec>>>()
        };
        let open = |store: &String| -> Outcome<Arc<dyn ChunkStore>> {
            let Some(named) = self.config.named(store)? else {
                return Ok(open_store(&self.spec(store, access, None, &rate)?)?);
            };
            let cached = Cached {
                cache: named.cache.clone(),
                cache_limit: named.cache_limit,
                cache_repair: true,
            };
            self.cached(open_chain(&specs(&named.stores)?)?, &cached)
        };
        let mut opened = stores.iter().map(open).collect::<Outcome<Vec<_>>>()?;
        Ok(match opened.len() {
            1 => opened.remove(0),
            _ => Arc::new(StoreChain::new(opened)),
        })
    }

    /// As [`Context::chain`], but what is damaged in one store is had from the next.
    pub(crate) fn proven_chain(&self, stores: &[String]) -> Outcome<Arc<dyn ChunkStore>> {
        let prove = |store: &String| -> Outcome<Arc<dyn ChunkStore>> {
            let store = self.chain(std::slice::from_ref(store), &Access::default())?;
            Ok(Arc::new(VerifyStore::new(store, self.digest, CHUNK_LEN_MAX)))
        };
        let stores = stores.iter().map(prove).collect::<Outcome<Vec<_>>>()?;
        Ok(Arc::new(StoreChain::new(stores)))
    }

    /// The stores of a mirror, each as it is written by itself; of anything else none.
    pub(crate) fn mirror_members(&self, store: &str) -> Outcome<Vec<String>> {
        let mut members = Vec::new();
        let spec = StoreSpec::parse(self.config.written(store)?, |member| {
            members.push(member.to_owned());
            StoreOptions::default()
        });
        let spec = spec.map_err(|error| Failure::usage(error.to_string()))?;
        Ok(match spec.together {
            Together::Mirror { .. } => members,
            Together::Failover => Vec::new(),
        })
    }

    fn cached(&self, store: Arc<dyn ChunkStore>, cached: &Cached) -> Outcome<Arc<dyn ChunkStore>> {
        let Some(folder) = &cached.cache else { return Ok(store) };
        make_folder(folder)?;
        if PackStore::is_at(folder) {
            let failure = Failure::usage(format!("{} is a pack store, and no cache", folder.display()));
            return Err(failure.try_this("name a flat folder, or an empty one"));
        }
        let options = CacheOptions {
            bytes_max: cached.cache_limit,
            repair: cached.cache_repair,
            digest: self.digest,
        };
        Ok(Arc::new(CacheStore::open(store, folder, options)?))
    }

    /// A store to write to, and the form in which it wants chunks (the flags' or the configuration's). A local folder that is
    /// not there is made.
    pub(crate) fn target(
        &self,
        store: &str,
        access: &Access,
        writing: &Writing,
    ) -> Outcome<(Arc<dyn ChunkStore>, ChunkForm)> {
        let spec = self.spec(self.config.written(store)?, access, Some(writing), &Rate::new(access))?;
        for member in &spec.members {
            match &member.location {
                Location::Local(path) => make_folder(path)?,
                Location::Ssh(ssh) => {
                    return Err(Failure::usage(format!(
                        "{ssh}: over SSH the far end takes chunks only with the index that names them"
                    ))
                    .try_this(
                        "use make or tar -i with store and index both on that host, or write over another protocol",
                    ));
                }
                _ => {}
            }
        }
        let form = spec
            .members
            .first()
            .map_or(writing.form(), |member| member.options.form);
        Ok((open_store(&spec)?, form))
    }

    /// A push of chunks and the index that names them, where both are on the same host over SSH.
    ///
    /// - Returns the form of its chunks too; `None` when the store is not reached over SSH.
    pub(crate) fn ssh_push(
        &self,
        store: &str,
        index: &str,
        access: &Access,
        writing: &Writing,
    ) -> Outcome<Option<(SshPush, ChunkForm)>> {
        let parse = |text: &str| Location::parse(text).map_err(|error| Failure::usage(error.to_string()));
        if store.contains('|') {
            return Ok(None);
        }
        let store = self.config.written(store)?;
        let (Location::Ssh(store_at), Location::Ssh(index_at)) = (parse(store)?, parse(index)?) else {
            return Ok(None);
        };
        let options = self.options(store, access, Some(writing), &Rate::new(access))?;
        if options.sealing.is_on() {
            return Err(Failure::usage(format!(
                "{store_at}: encrypted chunks do not go over SSH: the far end checks what it stores"
            )));
        }
        let push = SshPush::open(&index_at, &store_at, options.ssh)?;
        Ok(Some((push, options.form)))
    }

    /// A store that can be listed and pruned.
    ///
    /// - `access`: how a server is talked to.
    pub(crate) fn prunable(&self, store: &str, access: &Access, purpose: Purpose) -> Outcome<Prunable> {
        let mut spec = self.spec(self.config.written(store)?, access, None, &Rate::new(access))?;
        for member in &mut spec.members {
            member.options.read_only = purpose == Purpose::Read;
        }
        Ok(match &spec.members[..] {
            [
                MemberSpec {
                    location: Location::Local(path),
                    options,
                },
            ] => Prunable::Local(LocalStore::open(path, options)?),
            [member] if matches!(member.location, Location::S3(_) | Location::Gs(_) | Location::Sftp(_)) => {
                match open_remote(member)? {
                    RemoteKind::Flat(store) => Prunable::Chunks(store),
                    RemoteKind::Packs(packs) => Prunable::Packs(packs),
                }
            }
            _ => Prunable::Mirror(open_prunable_spec(&spec)?),
        })
    }

    /// Makes an empty folder, place in a bucket or folder behind SFTP a store of packs.
    pub(crate) fn make_packs(&self, store: &str, access: &Access) -> Outcome<()> {
        let mut spec = self.spec(self.config.written(store)?, access, None, &Rate::new(access))?;
        let (Some(mut member), true) = (spec.members.pop(), spec.members.is_empty()) else {
            return Err(Failure::usage(format!(
                "{store}: one place alone can be made a pack store"
            )));
        };
        if let Location::Local(folder) = &member.location {
            let options = PackOptions {
                algorithm: self.digest,
                ..PackOptions::default()
            };
            PackStore::open(folder, options)?;
            return Ok(());
        }
        member.options.read_only = false;
        Ok(init_remote_packs(&member)?)
    }

    /// A local store, for what only those can do.
    pub(crate) fn local(&self, folder: &Path, purpose: Purpose) -> Outcome<LocalStore> {
        folder_only(folder)?;
        let entry = self.config.options(&folder.to_string_lossy())?;
        let options = StoreOptions {
            read_only: purpose == Purpose::Read,
            sealing: self.location_sealing(&entry)?,
            digest: self.digest,
            on_suspect: warn_of,
            ..StoreOptions::default()
        };
        Ok(LocalStore::open(folder, &options)?)
    }

    /// Reads and checks an index.
    pub(crate) fn index(&self, name: &str, access: &Access) -> Outcome<ChunkIndex> {
        let bytes = if name == "-" {
            let mut bytes = Vec::new();
            std::io::stdin()
                .lock()
                .take(INDEX_LEN_MAX + 1)
                .read_to_end(&mut bytes)
                .map_err(|error| Failure::io("standard input", "read the index", &error))?;
            if bytes.len() as u64 > INDEX_LEN_MAX {
                return Err(Failure::new(format!(
                    "standard input: the index is longer than {INDEX_LEN_MAX} bytes"
                )));
            }
            Bytes::from(bytes)
        } else {
            self.index_store(name, access)?.get()?
        };
        let shown = if name == "-" {
            "standard input".to_owned()
        } else {
            shown(name)
        };
        let index = ChunkIndex::parse(bytes).map_err(|error| {
            Failure::new(format!("{shown}: {error}")).try_this("make the index again, or fetch it again")
        })?;
        self.say(|| format!("{shown}: {} chunks, {} bytes", index.len(), index.blob_len()));
        Ok(index)
    }

    /// Stores a finished index; `-` writes it to standard output.
    pub(crate) fn put_index(&self, name: &str, bytes: Bytes, access: &Access) -> Outcome<()> {
        if name == "-" {
            return print(&bytes);
        }
        Ok(self.index_store(name, access)?.put(bytes)?)
    }

    /// An object of a bucket as an input; `None`: the path is one of this machine.
    pub(crate) fn object(&self, path: &Path, access: &Access) -> Outcome<Option<ObjectInput>> {
        let Some(text) = path.to_str().filter(|text| text.contains("://")) else {
            return Ok(None);
        };
        // Only what is a bucket's is read as one; a file may have any name.
        let Ok(location @ (Location::S3(_) | Location::Gs(_))) = Location::parse(text) else {
            return Ok(None);
        };
        let folder = text.rsplit_once('/').map_or("", |(folder, _)| folder);
        let options = self.options(folder, access, None, &Rate::new(access))?;
        Ok(Some(ObjectInput::open(&location, &options)?))
    }

    fn index_store(&self, name: &str, access: &Access) -> Outcome<IndexStore> {
        let location = Location::parse(name).map_err(|error| Failure::usage(error.to_string()))?;
        // As in desync, the configuration knows indexes by their folder.
        let folder = name.rsplit_once('/').map_or("", |(folder, _)| folder);
        let options = self.options(folder, access, None, &Rate::new(access))?;
        Ok(IndexStore::open(&location, &options)?)
    }

    /// Opens seeds; those of a folder that cannot be used are passed over, those named are not. The blob that is about to be
    /// written is no seed of itself when it is found in a folder. What has no index is cut as `like` was.
    pub(crate) fn seeds(
        &self,
        seeding: &Seeding,
        access: &Access,
        output: Option<&Path>,
        like: &ChunkIndex,
    ) -> Outcome<Vec<Seed>> {
        let mut seeds = Vec::new();
        for text in &seeding.seed {
            if has_no_index(Path::new(text)) {
                let bar = self.bar("cutting a seed", Unit::Bytes);
                seeds.push(Seed::cut(Path::new(text), like, &self.progress)?);
                drop(bar);
                continue;
            }
            let (index, blob) = match text.split_once(':') {
                Some((index, blob)) if !text.contains("://") => (index, PathBuf::from(blob)),
                _ => (text.as_str(), Path::new(text).with_extension("")),
            };
            seeds.push(Seed::open(self.index(index, access)?, &blob)?);
        }
        for folder in &seeding.seed_dir {
            let listed = std::fs::read_dir(folder).and_then(Iterator::collect::<std::io::Result<Vec<_>>>);
            let listed = listed.map_err(|error| Failure::io(folder.display(), "list the folder of seeds", &error))?;
            for path in listed.into_iter().map(|entry| entry.path()) {
                let blob = path.with_extension("");
                let is_output = output.is_some_and(|output| {
                    std::fs::canonicalize(output)
                        .is_ok_and(|output| std::fs::canonicalize(&blob).is_ok_and(|blob| blob == output))
                });
                if path.extension().is_none_or(|ending| ending != "caibx") || !blob.exists() || is_output {
                    continue;
                }
                match self
                    .index(&path.to_string_lossy(), access)
                    .and_then(|index| Ok(Seed::open(index, &blob)?))
                {
                    Ok(seed) => seeds.push(seed),
                    Err(failure) => eprintln!("cairn: seed passed over: {}", failure.message),
                }
            }
        }
        Ok(seeds)
    }
}

/// A store that can be listed and pruned.
#[derive(Debug)]
pub(crate) enum Prunable {
    Local(LocalStore),
    /// Packs in a bucket or behind SFTP.
    Packs(Arc<dyn RemotePacks>),
    /// A file per chunk there.
    Chunks(Arc<dyn RemoteChunks>),
    /// Several together.
    Mirror(Arc<dyn Prune>),
}

/// Packs, wherever they are.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Packs<'s> {
    Local(&'s PackStore),
    Remote(&'s dyn RemotePacks),
}

impl<'s> Packs<'s> {
    pub(crate) fn stats(self) -> Outcome<Vec<PackStat>> {
        Ok(match self {
            Self::Local(packs) => packs.engine().pack_stats()?,
            Self::Remote(packs) => packs.pack_stats()?,
        })
    }

    pub(crate) fn for_each_in_order(
        self,
        visit: &mut dyn FnMut(ChunkKey, ChunkPlace) -> cairn_store::Result<()>,
    ) -> Outcome<()> {
        match self {
            Self::Local(packs) => packs.engine().for_each_in_order(visit)?,
            Self::Remote(packs) => packs.for_each_in_order(visit)?,
        }
        Ok(())
    }

    /// Reads all packs from end to end, and settles what is damaged.
    pub(crate) fn scrub(
        self,
        options: &ScrubOptions,
        sources: &[Arc<dyn ChunkStore>],
        go_on: &mut dyn FnMut(u64) -> bool,
    ) -> Outcome<ScrubReport> {
        // Whoever asks wants all of it to be read, whenever that was done last.
        let notes = ScrubMemory::default();
        Ok(match self {
            Self::Local(packs) => packs.engine().scrub(options, sources, &notes, go_on)?,
            Self::Remote(packs) => packs.scrub(options, sources, &notes, go_on)?,
        })
    }

    /// What is not whole and was not opened.
    pub(crate) fn suspects(self) -> Vec<Suspect> {
        match self {
            // Told of when it was opened.
            Self::Local(_) => Vec::new(),
            Self::Remote(packs) => packs.suspects(),
        }
    }

    /// Writes packs anew of which less than `live_share` is needed.
    pub(crate) fn compact(self, live_share: f64) -> Outcome<CompactReport> {
        let options = CompactOptions {
            live_share_min: live_share,
            // A store that a tool works on alone has no index that could be made again from its packs; one that has keeps them.
            commits_kept_from: LogPosition::default(),
        };
        Ok(match self {
            Self::Local(packs) => packs.engine().compact(&options)?,
            Self::Remote(packs) => packs.compact(live_share)?,
        })
    }

    /// Compresses packs anew where that makes them smaller.
    pub(crate) fn recompress(
        self,
        options: &RecompressOptions,
        pace: &mut dyn FnMut(u64) -> cairn_store::Result<()>,
    ) -> Outcome<RecompressReport> {
        Ok(match self {
            Self::Local(packs) => packs.engine().recompress(options, pace)?,
            Self::Remote(packs) => packs.recompress(options, pace)?,
        })
    }

    /// Nobody else deletes while the value lives.
    ///
    /// - `take_over`: from somebody who is known to be dead.
    pub(crate) fn own(self, take_over: bool) -> Outcome<Option<Ownership<'s>>> {
        match self {
            // Its lock is held for as long as it is open.
            Self::Local(_) => Ok(None),
            Self::Remote(packs) => Ok(Some(packs.own(take_over)?)),
        }
    }
}

impl Prunable {
    pub(crate) fn chunks(&self) -> &dyn Prune {
        match self {
            Self::Local(store) => store.chunks(),
            Self::Packs(store) => &**store,
            Self::Chunks(store) => &**store,
            Self::Mirror(store) => &**store,
        }
    }

    /// Visits the files of a flat store's chunks, with their lengths in bytes. Returns whether it is one.
    pub(crate) fn for_each_file(
        &self,
        visit: &mut dyn FnMut(StoredChunk, u64) -> cairn_store::Result<()>,
    ) -> Outcome<bool> {
        match self {
            Self::Local(LocalStore::Flat(flat)) => flat.for_each_file(&mut |chunk| {
                // One that went away meanwhile is none.
                match flat.stat(chunk.id, chunk.form)?.and_then(|stat| stat.stored) {
                    Some((_, len)) => visit(chunk, len),
                    None => Ok(()),
                }
            })?,
            Self::Chunks(store) => store.for_each_file(visit)?,
            Self::Local(LocalStore::Packs(_)) | Self::Packs(_) | Self::Mirror(_) => return Ok(false),
        }
        Ok(true)
    }

    /// Its packs, if it has any.
    pub(crate) fn packs(&self) -> Option<Packs<'_>> {
        match self {
            Self::Local(store) => store.packs().map(Packs::Local),
            Self::Packs(store) => Some(Packs::Remote(&**store)),
            Self::Chunks(_) | Self::Mirror(_) => None,
        }
    }
}

/// What a local store is opened for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Purpose {
    /// Packs are seen as they are now, whoever writes to them meanwhile.
    Read,
    /// Chunks are deleted or packs written anew; nobody else writes to packs meanwhile.
    Change,
}

fn warn_of_member(store: &StoreName, behind: &Behind) {
    eprintln!("cairn: warning: {store}: {behind}");
}

fn warn_of(store: &StoreName, suspect: &Suspect) {
    eprintln!(
        "cairn: warning: {store}: {}: {}; what it holds is left alone",
        suspect.file, suspect.what
    );
}

/// Where what can be fetched again is kept between runs.
fn cache_folder(environment: &dyn Fn(&str) -> Option<String>) -> Option<PathBuf> {
    let set = |name: &str| environment(name).filter(|value| !value.is_empty()).map(PathBuf::from);
    let caches = set("XDG_CACHE_HOME").or_else(|| set("HOME").map(|home| home.join(".cache")))?;
    Some(caches.join("cairn/packs"))
}

/// Whether a seed's name is that of a file or device to be cut, rather than of an index.
fn has_no_index(path: &Path) -> bool {
    if path
        .extension()
        .is_some_and(|ending| ending == "caibx" || ending == "caidx")
    {
        return false;
    }
    let mut head = [0; 16];
    std::fs::metadata(path).is_ok_and(|meta| !meta.is_dir())
        && std::fs::File::open(path).is_ok_and(|mut file| match file.read_exact(&mut head) {
            Ok(()) => !ChunkIndex::starts_one(&head),
            Err(_) => true,
        })
}

/// The cipher that settings name, none when they are all left out. As in desync, the key may come from the environment, which
/// alone turns nothing on.
///
/// - `place`: what stands before the settings' names where they were written.
pub(crate) fn sealing(place: &str, on: bool, key: Option<&str>, algorithm: Option<&str>) -> Outcome<Sealing> {
    if !on && key.is_none() && algorithm.is_none() {
        return Ok(Sealing::default());
    }
    let algorithm = match algorithm {
        Some(name) => name
            .parse()
            .map_err(|error| Failure::usage(format!("{place}encryption-algorithm: {error}")))?,
        None => CipherAlgorithm::default(),
    };
    let key = key
        .map(str::to_owned)
        .or_else(|| std::env::var("DESYNC_ENCRYPTION_KEY").ok());
    let Some(key) = key else {
        return Err(Failure::usage(format!("{place}encryption is on without a key"))
            .try_this("give the key, or set DESYNC_ENCRYPTION_KEY"));
    };
    let key: CipherKey = key
        .parse()
        .map_err(|error| Failure::usage(format!("{place}encryption-key: {error}")))?;
    Ok(Sealing::with(ChunkCipher::new(algorithm, &key)))
}

/// One bandwidth limit for all stores of a verb.
struct Rate(Option<Arc<RateLimit>>);

impl Rate {
    fn new(access: &Access) -> Self {
        Self(
            access
                .bandwidth_limit
                .and_then(NonZeroU64::new)
                .map(|limit| Arc::new(RateLimit::new(limit))),
        )
    }
}

/// A location as it may be shown: without secrets.
fn shown(name: &str) -> String {
    Location::parse(name).map_or_else(|_| name.to_owned(), |location| location.to_string())
}

pub(crate) fn make_folder(folder: &Path) -> Outcome<()> {
    match std::fs::create_dir(folder) {
        Ok(()) => Ok(()),
        Err(error) if error.kind() == std::io::ErrorKind::AlreadyExists => Ok(()),
        Err(error) => Err(Failure::io(folder.display(), "make the store's folder", &error)),
    }
}

/// Writes to standard output. A reader that has gone away (`| head`) ends the tool quietly, as it does others.
pub(crate) fn print(bytes: &[u8]) -> Outcome<()> {
    let mut output = std::io::stdout().lock();
    match output.write_all(bytes).and_then(|()| output.flush()) {
        Ok(()) => Ok(()),
        Err(error) if error.kind() == std::io::ErrorKind::BrokenPipe => std::process::exit(0),
        Err(error) => Err(Failure::io("standard output", "write", &error)),
    }
}
/// Refuses a URL where only a folder will do.
pub(crate) fn folder_only(folder: &Path) -> Outcome<()> {
    let text = folder.to_string_lossy();
    if text.contains("://") {
        let words = format!("{text}: this works on a folder alone, not over a network: run it where the folder is");
        return Err(Failure::usage(words));
    }
    Ok(())
}
