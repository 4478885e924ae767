//! The objects of buckets: their packs and index in the folder `objects` of the data folder, their care, and the S3 door to them.
//!
//! What buckets hold is named by rows of the same index, so the folder is always collected and scrubbed as a rooted store is.
//! Who asks first finds a key: it is made at the first start and told once. Not here: what the door does (`cairn_gateway`).

mod digester;
mod rest;

use std::fs::Permissions;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use cairn_gateway::PoolOptions;
use cairn_gateway::cdn::{Cdn, Purger};
use cairn_gateway::faces::{Faces, FacesOptions};
use cairn_gateway::grpc::Grpc;
use cairn_gateway::s3::{BodyOptions, LogRequests, LogSwitch, S3, S3Options};
use cairn_index::names::{FirstKey, Names, Owner};
use cairn_index::{Compression, ObjectOptions, Objects, RocksEngine, Tenant};
use cairn_roots::Workers;
use cairn_store::{PackOptions, SyncPolicy};

use crate::backup::Part;
use crate::care::Care;
use crate::config::{self, Config, FIRST_OWNER};
use crate::early::EarlySync;
use crate::events::Sealer;
use crate::folders::log_opened;
use crate::places::Packs;
use crate::routes::chain;
use crate::scrub::Scrubber;
use crate::upkeep::Upkeep;
use crate::uploads::Expirer;
use digester::Digester;
use rest::Rest;

/// Folder of it all, in the data folder.
pub(crate) const FOLDER_NAME: &str = "objects";
/// Its owner's alone.
pub(crate) const FOLDER_MODE: u32 = 0o700;
/// Its name in logs and metrics.
pub(crate) const STORE_NAME: &str = "objects";

/// Objects that are open.
#[derive(Debug)]
pub(crate) struct ObjectStore {
    objects: Arc<Objects>,
    /// Ends before what it works on does.
    _rest: Rest,
    /// As that.
    _digester: Digester,
    folder: PathBuf,
    /// Ends before the packs do.
    care: Care,
    /// As that.
    scrubber: Scrubber,
    /// As that.
    _sealer: Sealer,
    /// As that.
    _expirer: Expirer,
    /// As that.
    _early: EarlySync,
    /// Requests that the door logs.
    log: Arc<LogSwitch>,
}

/// A key that was made just now, to be told once.
#[derive(Debug)]
pub(crate) struct MadeKey {
    pub(crate) id: String,
    pub(crate) secret: String,
}

impl ObjectStore {
    /// Opens the objects of a data folder, made if they are missing.
    ///
    /// Errors, in words: the folder cannot be made or is damaged beyond its own repair.
    pub(crate) fn open(config: &Config) -> Result<Self, String> {
        let path = config.data.join(FOLDER_NAME);
        std::fs::create_dir_all(&path).map_err(|error| format!("cannot make folder {}: {error}", path.display()))?;
        close_to_others(&path);
        let options = PackOptions {
            sync: SyncPolicy::Sync,
            direct: true,
            ..PackOptions::default()
        };
        let digest = options.algorithm;
        let begun = std::time::Instant::now();
        let (packs, report) = Packs::open(&path, &options, config.s3.places_cache, None)?;
        if let Some(why) = &packs.rebuilt {
            tracing::warn!(folder = %path.display(), why, "the index of objects was built anew from the packs");
        }
        log_opened(&path, &packs.engine, &report, begun);
        let care = Care::start(STORE_NAME, &packs.engine, &packs.index, true, &config.collect)?;
        let scrubber = Scrubber::start(STORE_NAME, &path, &packs.engine, &config.scrub)?;
        let options = ObjectOptions {
            digest,
            compression: match config.s3.deferred {
                true => Compression::Deferred,
                false => Compression::Level(config.s3.frame_level),
            },
            buffer_len: config.s3.buffer_bytes,
            lease: Duration::from_secs(config.s3.lease_seconds),
            plain_len: config.s3.plain_cache,
            ..ObjectOptions::default()
        };
        let (engine, early_packs) = (Arc::clone(&packs.engine), Arc::clone(&packs.engine));
        let objects = Objects::new(Names::new(care.rows()), packs.engine, options);
        let owner = Owner::new(FIRST_OWNER).map_err(|error| chain(&error))?;
        let sealer = Sealer::start(&objects, &owner)?;
        let log = Arc::<LogSwitch>::default();
        log.set(logged(config.log.requests));
        let rest = Rest::start(STORE_NAME, care.rows(), engine, Arc::clone(&objects), &config.s3)?;
        let digester = Digester::start(&objects, config.s3.rest_bytes_per_second)?;
        let early = EarlySync::start(&early_packs)?;
        let expirer = Expirer::start(&objects, Duration::from_secs(config.s3.upload_age_seconds))?;
        Ok(Self {
            objects,
            _rest: rest,
            _digester: digester,
            folder: path,
            care,
            scrubber,
            _sealer: sealer,
            log,
            _expirer: expirer,
            _early: early,
        })
    }

    /// The objects.
    pub(crate) fn objects(&self) -> &Arc<Objects> {
        &self.objects
    }

    /// Their rows and places.
    pub(crate) fn index(&self) -> Arc<RocksEngine> {
        Arc::clone(self.care.rows().engine())
    }

    /// What a backup needs of them.
    pub(crate) fn backup_part(&self) -> Part {
        self.care.part(&self.folder)
    }

    /// For those who ask for collections and scrubs.
    pub(crate) fn upkeep(&self) -> Upkeep {
        Upkeep {
            collections: self.care.collections(),
            scrubs: self.scrubber.scrubs(),
        }
    }

    /// Makes a key if there is none.
    pub(crate) fn first_key(&self) -> Result<Option<MadeKey>, String> {
        let owner = Owner::new(FIRST_OWNER).map_err(|error| chain(&error))?;
        let first = self.objects.names().first_access_key(&Tenant::default(), &owner);
        Ok(match first.map_err(|error| chain(&error))? {
            FirstKey::Made(key) => Some(MadeKey {
                id: key.id.to_string(),
                secret: key.secret.reveal().to_owned(),
            }),
            FirstKey::There => None,
        })
    }

    /// The door to them.
    pub(crate) fn door(&self, settings: &config::S3) -> S3 {
        let options = S3Options {
            region: settings.region.clone(),
            domains: settings.domains.clone(),
            trust_forwarded: settings.trust_forwarded,
            pool: pool_of(settings),
            bodies: BodyOptions {
                idle: Duration::from_secs(settings.body_idle_seconds),
                ..BodyOptions::default()
            },
            log: Arc::clone(&self.log),
            ..S3Options::default()
        };
        S3::new(Arc::clone(&self.objects), options)
    }

    /// Blobs beside them, for the internal listener, where the settings want that.
    ///
    /// Errors, in words: the HTTP client of what is fetched does not start.
    pub(crate) fn grpc(&self, config: &Config) -> Result<Option<Grpc>, String> {
        if !config.grpc.enabled {
            return Ok(None);
        }
        let options = config.grpc.options(config, pool_of(&config.s3));
        let door = Grpc::new(Arc::clone(&self.objects), options);
        if !config.grpc.fetch_hosts.is_empty() {
            door.set_outgoing(Some(config.outgoing.sender()?));
        }
        Ok(Some(door))
    }

    /// Their chunks and indexes, for the public listener.
    pub(crate) fn faces(&self, config: &Config, workers: &Workers) -> Faces {
        let options = FacesOptions {
            index_len_max: config.limits.index_bytes,
            frame_level: config.s3.frame_level,
            pull_ids: config.limits.pull_ids,
            pool: pool_of(&config.s3),
        };
        Faces::new(Arc::clone(&self.objects), options, workers.clone())
    }

    /// Their bytes for caches and browsers, for the public listener.
    pub(crate) fn cdn(&self, config: &Config) -> Cdn {
        Cdn::new(Arc::clone(&self.objects), pool_of(&config.s3))
    }

    /// Tells caches in front of changes, where settings name any. Called within the runtime.
    ///
    /// Errors, in words: the HTTP client does not start.
    pub(crate) fn purger(&self, config: &Config) -> Result<Option<Purger>, String> {
        let targets: Vec<_> = config
            .cdn
            .purge
            .iter()
            .map(|(name, purge)| purge.target(name))
            .collect();
        if targets.is_empty() || !config.cdn.enabled {
            return Ok(None);
        }
        let outgoing = config.outgoing.sender()?;
        Ok(Some(Purger::start(self.objects.names(), &outgoing, &targets)))
    }

    /// Takes new settings as far as they do not need a restart.
    pub(crate) fn configure(&self, config: &Config) {
        self.care.configure(&config.collect);
        self.scrubber.configure(&config.scrub);
        self.log.set(logged(config.log.requests));
    }
}

/// Rows have the secrets of access keys, which signatures are checked with: nobody but the server's user reads the folder, whatever the
/// umask is.
fn close_to_others(folder: &Path) {
    if let Err(error) = std::fs::set_permissions(folder, Permissions::from_mode(FOLDER_MODE)) {
        tracing::warn!(folder = %folder.display(), %error, "others of this machine may read the secrets of access keys");
    }
}

fn logged(requests: config::LogRequests) -> LogRequests {
    match requests {
        config::LogRequests::All => LogRequests::All,
        config::LogRequests::Changes => LogRequests::Changes,
        config::LogRequests::None => LogRequests::None,
    }
}

fn pool_of(settings: &config::S3) -> PoolOptions {
    PoolOptions {
        jobs: settings.jobs,
        waiting: settings.waiting,
        patience: Duration::from_secs(settings.wait_seconds),
    }
}
