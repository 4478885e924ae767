//! `cairnd`, the server: reads the configuration, opens stores, listens, obeys signals, and leaves in order.
//!
//! SIGHUP reads the configuration again: stores, tokens, certificates and logging change between two requests; a bad
//! configuration is logged and the old one stays. SIGTERM and SIGINT let requests in flight end. Exit codes: 0 after a
//! shutdown, 1 when the server cannot run (one line says why), 2 for a wrong command line.

mod admin;
mod backup;
mod care;
mod config;
mod convert;
mod data;
mod early;
mod events;
mod folders;
mod keeper;
mod log;
mod memory;
mod metrics;
mod migrate;
mod objects;
mod places;
mod routes;
mod scrub;
mod store_gc;
mod store_verbs;
mod upkeep;
mod uploads;

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use cairn_roots::{ServeOptions, Shutdown, Tls, WorkerOptions, Workers, serve, server_tls, shutdown_channel};
use clap::{Parser, Subcommand};
use tokio::net::TcpListener;
use tokio::signal::unix::{SignalKind, signal};

use crate::admin::AdminDoor;
use crate::config::{Config, Overrides, TlsFiles};
use crate::data::DataFolder;
use crate::log::LogLevel;
use crate::metrics::Metrics;
use crate::objects::{MadeKey, ObjectStore};
use crate::routes::{App, Internal, Public, Roots};

/// Read when no file is named and it is there.
const CONFIG_FILE: &str = "cairnd.toml";
/// Threads for jobs that are not counted by `limits.jobs`: pieces of large indexes, health.
const SPARE_BLOCKING_THREADS: usize = 32;
/// Bytes of a request's line and headers that the S3 door reads; it takes 16 KiB of headers.
const S3_HEADER_BYTES: usize = 64 << 10;
/// Headers of a request at the S3 door.
const S3_HEADERS: usize = 512;
/// Connections of the internal listener, at least.
const INTERNAL_CONNECTIONS: usize = 64;

/// Serves chunk stores and chunk indexes to cairn, casync and desync over HTTP.
///
/// Without any configuration it keeps one store, `default`, in ./data and listens on this machine alone:
/// chunks at http://127.0.0.1:8000/store/default/, indexes at http://127.0.0.1:8000/index/default/,
/// S3 at http://127.0.0.1:9000/ (its first access key is printed at the first start, once), health at http://127.0.0.1:8000/health, metrics at http://127.0.0.1:8001/metrics,
/// the admin API at http://127.0.0.1:8001/api/v1/admin/ (docs/admin.md), gRPC at grpc://127.0.0.1:8001 (docs/grpc.md).
#[derive(Debug, Parser)]
#[command(name = "cairnd", version, after_long_help = AFTER_HELP)]
struct Arguments {
    /// TOML file of settings (docs/settings.md lists them) [default: cairnd.toml here, if there is one]
    #[arg(long, short, value_name = "FILE", env = "CAIRN_CONFIG")]
    config: Option<PathBuf>,
    /// Folder of everything the server keeps (setting data) [default: ./data]
    #[arg(long, value_name = "DIR")]
    data: Option<PathBuf>,
    /// Address and port of stores, indexes and health (setting listen.public) [default: 127.0.0.1:8000]
    #[arg(long, value_name = "ADDRESS:PORT")]
    listen: Option<SocketAddr>,
    /// Address and port of the metrics page (setting listen.internal) [default: 127.0.0.1:8001]
    #[arg(long, value_name = "ADDRESS:PORT")]
    internal: Option<SocketAddr>,
    /// Address and port of the S3 door (setting listen.s3) [default: 127.0.0.1:9000]
    #[arg(long, value_name = "ADDRESS:PORT")]
    s3: Option<SocketAddr>,
    /// Check the settings, print them as JSON without secrets, and leave
    #[arg(long)]
    check: bool,
    #[command(subcommand)]
    verb: Option<Verb>,
}

/// What else it can do than serve.
#[derive(Debug, Subcommand)]
enum Verb {
    /// Look into the stores of the data folder, check them, give back their space, write them out; no server may use it
    Store(store_verbs::StoreArgs),
    /// Tell or change the schema of a store's rows; no server may use it
    Migrate(migrate::MigrateArgs),
    /// Copy packs, rows and index files of the data folder, as of one moment; no server may use it
    Backup(backup::BackupArgs),
    /// Fill an empty data folder from a backup
    Restore(backup::RestoreArgs),
}

const AFTER_HELP: &str = "\
SETTINGS
  Read from the TOML file, then from variables (CAIRN_LISTEN__PUBLIC=127.0.0.1:9999 is listen.public), then from the
  command line. An unknown name is refused. Every setting with unit and default: docs/settings.md.

SIGNALS
  SIGHUP           read settings, tokens and certificates again; no request fails, a bad configuration is logged and the
                   old one stays (listen.*, limits.*, s3.*, admin.* and grpc.* need a restart)
  SIGTERM, SIGINT  stop accepting, let requests in flight end (limits.drain_seconds), leave; a second one leaves at once

EXIT CODES
  0  shut down as asked      1  cannot run: one line on standard error names the setting, port or file
  2  wrong command line

EXAMPLES
  cairnd                                      one store in ./data, on this machine alone
  cairnd --config /etc/cairnd.toml --check    are these settings right?
  cairnd store stat                           what is in the stores of ./data?
  cairn make -s http://127.0.0.1:8000/store/default/ http://127.0.0.1:8000/index/default/usr.caibx usr.tar
  desync extract -s http://127.0.0.1:8000/store/default/ http://127.0.0.1:8000/index/default/usr.caibx usr.tar";

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    match run(&arguments) {
        Ok(code) => code,
        Err(error) => {
            eprintln!("cairnd: {error}");
            ExitCode::FAILURE
        }
    }
}

fn run(arguments: &Arguments) -> Result<ExitCode, String> {
    let file = match &arguments.config {
        Some(file) => Some(file.clone()),
        None => Some(PathBuf::from(CONFIG_FILE)).filter(|file| file.exists()),
    };
    let overrides = Overrides {
        data: arguments.data.clone(),
        public: arguments.listen,
        internal: arguments.internal,
        s3: arguments.s3,
    };
    let config = Config::load(file.as_deref(), &overrides).map_err(|error| error.to_string())?;
    if arguments.check {
        let shown = serde_json::to_string_pretty(&config).map_err(|error| error.to_string())?;
        println!("{shown}");
        return Ok(ExitCode::SUCCESS);
    }
    match &arguments.verb {
        Some(Verb::Store(arguments)) => return store_verbs::run(&config, arguments),
        Some(Verb::Migrate(arguments)) => return migrate::run(&config, arguments),
        Some(Verb::Backup(arguments)) => return backup::run_backup(&config, arguments),
        Some(Verb::Restore(arguments)) => return backup::run_restore(&config, arguments),
        None => {}
    }
    let level = log::install(&config.log.level)?;
    for name in config::unknown_variables() {
        tracing::warn!(variable = name, "this variable is no setting");
    }
    raise_handles();
    let mut runtime = tokio::runtime::Builder::new_multi_thread();
    if config.limits.threads > 0 {
        runtime.worker_threads(config.limits.threads);
    }
    let runtime = runtime
        .max_blocking_threads(config.limits.jobs + config.s3.jobs + SPARE_BLOCKING_THREADS)
        .enable_all()
        .build()
        .map_err(|error| format!("cannot start threads: {error}"))?;
    let started = Started {
        file: file.as_deref(),
        overrides: &overrides,
        level: &level,
    };
    let result = runtime.block_on(run_server(config, &started));
    // Jobs still running are durable or invisible: nothing to wait for.
    runtime.shutdown_timeout(Duration::from_secs(1));
    result.map(|()| ExitCode::SUCCESS)
}

/// Takes as many handles as the system lets us have: systems give 1,024 to programs that do not ask, fewer than `limits.connections`.
fn raise_handles() {
    use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
    let limit = getrlimit(Resource::Nofile);
    let raised = Rlimit {
        current: limit.maximum,
        ..limit
    };
    if let Err(error) = setrlimit(Resource::Nofile, raised) {
        tracing::warn!(%error, "no more handles than the shell gave can be had");
    }
}

/// What stays as it is however often the settings are read.
struct Started<'a> {
    file: Option<&'a Path>,
    overrides: &'a Overrides,
    level: &'a LogLevel,
}

async fn run_server(config: Config, started: &Started<'_>) -> Result<(), String> {
    // First of all, so that no signal is missed from here on.
    let catch = |kind| signal(kind).map_err(|error| format!("cannot catch signals: {error}"));
    let (mut hangup, mut terminate, mut interrupt) = (
        catch(SignalKind::hangup())?,
        catch(SignalKind::terminate())?,
        catch(SignalKind::interrupt())?,
    );
    let data = open_data(&config)?;
    let workers = Workers::new(WorkerOptions {
        jobs: config.limits.jobs,
        body_bytes: config.limits.body_bytes,
    });
    let metrics = Metrics::install(config.data.clone())?;
    // Before the stores: a port in use should not begin to take over a folder.
    let public = listen("listen.public", config.listen.public).await?;
    let internal = listen("listen.internal", config.listen.internal).await?;
    let s3 = match config.s3.enabled {
        true => Some(listen("listen.s3", config.listen.s3).await?),
        false => None,
    };
    let roots = Roots::open(&config, &workers, None)?;
    let objects = match &s3 {
        Some(_) => Some(ObjectStore::open(&config).map_err(|error| format!("objects: {error}"))?),
        None => None,
    };
    let first_key = objects.as_ref().map_or(Ok(None), ObjectStore::first_key)?;
    let faces = objects.as_ref().map(|objects| objects.faces(&config, &workers));
    let grpc = objects.as_ref().map_or(Ok(None), |objects| objects.grpc(&config))?;
    let cdn = objects.as_ref().filter(|_| config.cdn.enabled);
    let cdn = cdn.map(|objects| objects.cdn(&config));
    let mut _purger = objects.as_ref().map_or(Ok(None), |objects| objects.purger(&config))?;
    let app = Arc::new(App::new(roots, faces, grpc, cdn, metrics.clone()));
    app.set_tokens(&config);
    let admin = AdminDoor::open(&config, objects.as_ref(), &app)?;
    if let Some(admin) = &admin {
        app.set_admin(&admin.door);
    }
    let tls = match &config.tls {
        Some(files) => Some(Arc::new(Tls::new(read_tls(files)?))),
        None => None,
    };
    let listeners = Listeners {
        public: &public,
        internal: &internal,
        s3: s3.as_ref(),
    };
    announce(&config, &app.roots(), &listeners, admin.as_ref(), first_key.as_ref())?;

    let (trigger, shutdown) = shutdown_channel();
    let options = ServeOptions {
        connections: config.limits.connections,
        header_bytes: config.limits.header_bytes,
        headers: config.limits.headers,
        idle: Duration::from_secs(config.limits.idle_seconds),
        linger: Duration::from_secs(config.limits.linger_seconds),
        drain: Duration::from_secs(config.limits.drain_seconds),
        h2c: None,
    };
    let internal_options = ServeOptions {
        connections: INTERNAL_CONNECTIONS.max(config.grpc.connections),
        h2c: config.grpc.enabled.then(|| config.grpc.h2c()),
        ..options
    };
    let serving = tokio::spawn(serve(
        public,
        Arc::new(Public(Arc::clone(&app))),
        tls.clone(),
        options,
        shutdown.clone(),
    ));
    let serving_s3 = tokio::spawn(serve_s3(
        s3,
        objects.as_ref(),
        &config,
        tls.clone(),
        options,
        shutdown.clone(),
    ));
    let serving_internal = tokio::spawn(serve(
        internal,
        Arc::new(Internal {
            app: Arc::clone(&app),
            admin: admin.map(|admin| admin.door),
            objects: objects.as_ref().map(ObjectStore::index),
        }),
        None,
        internal_options,
        shutdown,
    ));
    let mut upkeep = tokio::time::interval(metrics::UPKEEP);
    let mut config = config;
    loop {
        tokio::select! {
            _ = terminate.recv() => break,
            _ = interrupt.recv() => break,
            _ = hangup.recv() => match reload(&config, started, &data, &workers, &app, tls.as_deref()) {
                Ok(new) => {
                    if let Some(objects) = &objects {
                        objects.configure(&new);
                        if new.outgoing != config.outgoing {
                            app.set_outgoing(&new);
                        }
                        if new.cdn.purge != config.cdn.purge || new.outgoing != config.outgoing {
                            _purger = None;
                            match objects.purger(&new) {
                                Ok(purger) => _purger = purger,
                                Err(error) => tracing::error!(error, "caches are no longer told of changes"),
                            }
                        }
                    }
                    config = new;
                    tracing::info!("the configuration was read again");
                }
                Err(error) => tracing::error!(error, "the new configuration is not used, the old one stays"),
            },
            _ = upkeep.tick() => metrics.upkeep(),
        }
    }
    tracing::info!("shutting down");
    app.leave();
    trigger.begin();
    tokio::select! {
        _ = async { tokio::join!(serving, serving_s3, serving_internal) } => {}
        _ = terminate.recv() => {}
        _ = interrupt.recv() => {}
    }
    tracing::info!("shut down");
    Ok(())
}

/// Serves the S3 door, where there is one, until shutdown.
fn serve_s3(
    listener: Option<TcpListener>,
    objects: Option<&ObjectStore>,
    config: &Config,
    tls: Option<Arc<Tls>>,
    options: ServeOptions,
    shutdown: Shutdown,
) -> impl Future<Output = ()> + use<> {
    // Its own bound of headers answers as S3 does; that of the connection is only to be above it.
    let options = ServeOptions {
        header_bytes: options.header_bytes.max(S3_HEADER_BYTES),
        headers: options.headers.max(S3_HEADERS),
        ..options
    };
    let door = objects.map(|objects| Arc::new(objects.door(&config.s3)));
    async move {
        if let (Some(listener), Some(door)) = (listener, door) {
            serve(listener, door, tls, options, shutdown).await;
        }
    }
}

/// Locks the data folder, and closes it to older programs if it is to hold what they do not know.
fn open_data(config: &Config) -> Result<DataFolder, String> {
    let data = DataFolder::open(&config.data).map_err(|error| error.to_string())?;
    if config.has_own_packs() {
        data.begin_packs().map_err(|error| error.to_string())?;
    }
    Ok(data)
}

/// Reads the configuration again and puts it in force, all or nothing.
fn reload(
    old: &Config,
    started: &Started<'_>,
    data: &DataFolder,
    workers: &Workers,
    app: &App,
    tls: Option<&Tls>,
) -> Result<Config, String> {
    let new = Config::load(started.file, started.overrides).map_err(|error| error.to_string())?;
    if new.data != old.data
        || new.listen != old.listen
        || new.limits != old.limits
        || new.s3 != old.s3
        || new.admin != old.admin
        || new.grpc != old.grpc
        || new.cdn.enabled != old.cdn.enabled
        || new.tls.is_some() != old.tls.is_some()
    {
        tracing::warn!(
            "data, listen, limits, s3, admin, grpc, and whether there are tls and cdn, change with a restart only"
        );
    }
    // Folders follow the data folder that is locked.
    let new = Config {
        data: old.data.clone(),
        listen: old.listen.clone(),
        limits: old.limits.clone(),
        s3: old.s3.clone(),
        admin: old.admin.clone(),
        grpc: old.grpc.clone(),
        ..new
    };
    if new.has_own_packs() {
        data.begin_packs().map_err(|error| error.to_string())?;
    }
    let roots = Roots::open(&new, workers, Some(&app.roots()))?;
    let certificate = match (&new.tls, tls) {
        (Some(files), Some(tls)) => Some((tls, read_tls(files)?)),
        _ => None,
    };
    started.level.set(&new.log.level)?;
    if let Some((tls, certificate)) = certificate {
        tls.replace(certificate);
    }
    app.replace_roots(roots);
    app.set_tokens(&new);
    Ok(new)
}

async fn listen(setting: &str, address: SocketAddr) -> Result<TcpListener, String> {
    TcpListener::bind(address).await.map_err(|error| match error.kind() {
        std::io::ErrorKind::AddrInUse => {
            format!("setting {setting}: {address} is in use by another program; stop it or choose another port")
        }
        _ => format!("setting {setting}: cannot listen on {address}: {error}"),
    })
}

fn read_tls(files: &TlsFiles) -> Result<rustls::ServerConfig, String> {
    server_tls(&files.certificate, &files.key, files.client_ca.as_deref())
        .map_err(|error| format!("setting tls: {error}"))
}

/// Where it listens.
struct Listeners<'a> {
    public: &'a TcpListener,
    internal: &'a TcpListener,
    s3: Option<&'a TcpListener>,
}

/// Tells people where the server is and what to try. Standard output has this and nothing else.
fn announce(
    config: &Config,
    roots: &Roots,
    listeners: &Listeners<'_>,
    admin: Option<&AdminDoor>,
    first_key: Option<&MadeKey>,
) -> Result<(), String> {
    let address = |listener: &TcpListener| listener.local_addr().map_err(|error| error.to_string());
    let scheme = if config.tls.is_some() { "https" } else { "http" };
    let base = format!("{scheme}://{}", address(listeners.public)?);
    let name = roots.names().next().unwrap_or(config::DEFAULT_STORE);
    let mut lines = vec![format!(
        "cairnd {} keeps its data in {}",
        env!("CARGO_PKG_VERSION"),
        config.data.display()
    )];
    for name in roots.names() {
        lines.push(format!("  chunks   {base}/store/{name}/"));
        lines.push(format!("  indexes  {base}/index/{name}/"));
    }
    if let Some(s3) = listeners.s3 {
        lines.push(format!("  s3       {scheme}://{}/", address(s3)?));
    }
    if let Some(key) = first_key {
        lines.push("the first access key, shown this once:".to_owned());
        lines.push(format!("  export AWS_ACCESS_KEY_ID={}", key.id));
        lines.push(format!("  export AWS_SECRET_ACCESS_KEY={}", key.secret));
    }
    lines.push(format!("  health   {base}/health"));
    let internal = address(listeners.internal)?;
    lines.push(format!("  metrics  http://{internal}/metrics"));
    if let Some(admin) = admin {
        let token = match &admin.token_file {
            Some(file) => format!("token in {}", file.display()),
            None => "token: setting admin.token".to_owned(),
        };
        lines.push(format!("  admin    http://{internal}/api/v1/admin/  {token}"));
    }
    lines.push("try:".to_owned());
    lines.push(format!(
        "  cairn make -s {base}/store/{name}/ {base}/index/{name}/usr.caibx usr.tar"
    ));
    lines.push(format!(
        "  desync extract -s {base}/store/{name}/ {base}/index/{name}/usr.caibx usr.tar"
    ));
    lines.push(format!("  curl {base}/health\n"));
    // Nobody listening to this is no reason not to serve.
    let _ = std::io::Write::write_all(&mut std::io::stdout(), lines.join("\n").as_bytes());
    Ok(())
}
