//! `chunk-server` and `index-server`: the roots of `cairnd`, alone and configured by flags.

use std::future::Future;
use std::io::Write;
use std::net::ToSocketAddrs as _;
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError, RwLock};

use cairn_roots::{
    Access, Body, ChunkRoot, ChunkRootOptions, Grant, Handler, IndexNames, IndexRoot, IndexRootOptions, ServeOptions,
    Tls, Token, WorkerOptions, Workers, serve, server_tls, shutdown_channel,
};
use http::{Request, Response};
use hyper::body::Incoming;
use serde::Deserialize;
use tokio::net::TcpListener;
use tokio::signal::unix::{SignalKind, signal};

use crate::cli::{ChunkServer, IndexServer, Listening, ReloadableSources, Sources, SyncName, Writing};
use crate::context::{Context, folder_only, sealing};
use crate::failure::{Failure, Outcome};

/// Where the servers listen when nobody says; desync's `:http` would need root and open the machine to everybody.
const LISTEN: &str = "127.0.0.1:8000";

/// Serves a store.
pub(crate) fn chunk_server(context: &Context, arguments: &ChunkServer) -> Outcome<()> {
    let runtime = runtime()?;
    let workers = Workers::new(WorkerOptions::default());
    let sealing = sealing(
        "--",
        arguments.encryption,
        arguments.encryption_key.as_deref(),
        arguments.encryption_algorithm.as_deref(),
    )?;
    let open = || open_chunk_root(context, arguments, &workers).map(|root| root.sealed(sealing.clone()));
    let root = Arc::new(Chunks {
        root: RwLock::new(Arc::new(open()?)),
        log: RequestLog::open(&arguments.listening)?,
    });
    let reload = || match open() {
        Ok(new) => *root.root.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(new),
        Err(failure) => eprintln!("{}; the stores before it stay", failure.line(context.json)),
    };
    runtime.block_on(run(context, &arguments.listening, Arc::clone(&root), &reload))
}

/// Serves a folder of indexes.
pub(crate) fn index_server(context: &Context, arguments: &IndexServer) -> Outcome<()> {
    folder_only(&arguments.store)?;
    let runtime = runtime()?;
    let options = IndexRootOptions {
        access: access(&arguments.listening),
        names: IndexNames::Any,
        ..IndexRootOptions::default()
    };
    let root = IndexRoot::new(&arguments.store, options, Workers::new(WorkerOptions::default()))
        .map_err(|error| Failure::new(crate::failure::chain(&error)))?;
    let root = Arc::new(Indexes {
        root,
        log: RequestLog::open(&arguments.listening)?,
    });
    runtime.block_on(run(context, &arguments.listening, root, &|| {}))
}

/// desync's `--store-file`.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct StoreFile {
    #[serde(default)]
    stores: Vec<String>,
    #[serde(default)]
    cache: String,
}

/// The sources of the flags, or those that the store file names now in place of them.
pub(super) fn sources_now(given: &ReloadableSources) -> Outcome<Sources> {
    let mut sources = given.flags.clone();
    if let Some(path) = &given.store_file {
        let text = std::fs::read(path).map_err(|error| Failure::io(path.display(), "read the store file", &error))?;
        let file: StoreFile = serde_json::from_slice(&text)
            .map_err(|error| Failure::new(format!("{}: not a store file: {error}", path.display())))?;
        sources.stores = file.stores;
        sources.cached.cache = (!file.cache.is_empty()).then(|| file.cache.into());
    }
    Ok(sources)
}

fn open_chunk_root(context: &Context, arguments: &ChunkServer, workers: &Workers) -> Outcome<ChunkRoot> {
    let sources = sources_now(&arguments.sources)?;
    let store = if arguments.listening.writable {
        let ([store], None) = (&sources.stores[..], &sources.cached.cache) else {
            return Err(Failure::usage("-w takes exactly one store and no cache"));
        };
        let writing = Writing {
            compression_level: 3,
            uncompressed: false,
            sync: SyncName::Sync,
        };
        context.target(store, &sources.access, &writing)?.0
    } else {
        context.sources(&sources)?
    };
    let options = ChunkRootOptions {
        digest: context.digest,
        access: access(&arguments.listening),
        ..ChunkRootOptions::default()
    };
    Ok(ChunkRoot::new(store, options, workers.clone()))
}

fn access(listening: &Listening) -> Access {
    let grant = match &listening.authorization {
        Some(value) => Grant::Tokens(vec![Token::new(value)]),
        None => Grant::Anyone,
    };
    Access {
        read: grant.clone(),
        write: if listening.writable { grant } else { Grant::Nobody },
    }
}

fn runtime() -> Outcome<tokio::runtime::Runtime> {
    tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .map_err(|error| Failure::io("the server", "start its threads", &error))
}

/// Listens until SIGINT or SIGTERM, lets requests in flight end; SIGHUP reloads.
async fn run<H: Handler>(context: &Context, listening: &Listening, handler: Arc<H>, reload: &dyn Fn()) -> Outcome<()> {
    // Before anyone is told that there is a server: a signal that nobody listens for ends the process.
    let fail = |error| Failure::io("signals", "listen for them", &error);
    let mut hangup = signal(SignalKind::hangup()).map_err(fail)?;
    let mut terminate = signal(SignalKind::terminate()).map_err(fail)?;
    let mut interrupt = signal(SignalKind::interrupt()).map_err(fail)?;
    let tls = match (&listening.cert, &listening.key) {
        (Some(certificate), Some(key)) => {
            let client_ca = listening.client_ca.as_deref().filter(|_| listening.mutual_tls);
            let config = server_tls(certificate, key, client_ca).map_err(|error| Failure::new(error.to_string()))?;
            Some(Arc::new(Tls::new(config)))
        }
        _ => None,
    };
    let standard = [LISTEN.to_owned()];
    let addresses = if listening.listen.is_empty() {
        &standard[..]
    } else {
        &listening.listen[..]
    };
    let (trigger, shutdown) = shutdown_channel();
    let mut servers = Vec::new();
    for address in addresses {
        let listener = listen(address).await?;
        let bound = listener
            .local_addr()
            .map_err(|error| Failure::io(address, "listen", &error))?;
        eprintln!(
            "cairn: serving on {}://{bound}/",
            if tls.is_some() { "https" } else { "http" }
        );
        let server = serve(
            listener,
            Arc::clone(&handler),
            tls.clone(),
            ServeOptions::default(),
            shutdown.clone(),
        );
        servers.push(tokio::spawn(server));
    }
    loop {
        tokio::select! {
            _ = hangup.recv() => tokio::task::block_in_place(reload),
            _ = terminate.recv() => break,
            _ = interrupt.recv() => break,
        }
    }
    context.say(|| "shutting down".to_owned());
    trigger.begin();
    for server in servers {
        server
            .await
            .map_err(|error| Failure::new(format!("the server failed: {error}")))?;
    }
    Ok(())
}

async fn listen(address: &str) -> Outcome<TcpListener> {
    // desync's `:8080` is every address of the machine, said in so many words.
    let full = if address.starts_with(':') {
        format!("0.0.0.0{address}")
    } else {
        address.to_owned()
    };
    let resolved = full
        .to_socket_addrs()
        .ok()
        .and_then(|mut addresses| addresses.next())
        .ok_or_else(|| Failure::usage(format!("{address}: not an address such as 127.0.0.1:8000 or :8000")))?;
    TcpListener::bind(resolved)
        .await
        .map_err(|error| Failure::io(address, "listen", &error).try_this("choose another address or port with -l"))
}

/// A line per request, where asked for.
struct RequestLog(Option<Mutex<Box<dyn Write + Send>>>);

impl RequestLog {
    fn open(listening: &Listening) -> Outcome<Self> {
        let Some(path) = &listening.log else {
            return Ok(Self(None));
        };
        let output: Box<dyn Write + Send> = if path == Path::new("-") {
            Box::new(std::io::stdout())
        } else {
            let opened = std::fs::File::options().append(true).create(true).open(path);
            Box::new(opened.map_err(|error| Failure::io(path.display(), "open the log", &error))?)
        };
        Ok(Self(Some(Mutex::new(output))))
    }

    async fn around(
        &self,
        request: Request<Incoming>,
        answer: impl AsyncFnOnce(Request<Incoming>) -> Response<Body>,
    ) -> Response<Body> {
        let Some(output) = &self.0 else {
            return answer(request).await;
        };
        let line = format!("{} {}", request.method(), request.uri().path());
        let response = answer(request).await;
        let mut output = output.lock().unwrap_or_else(PoisonError::into_inner);
        // A full disk under the log is no reason to refuse chunks.
        let _ = writeln!(output, "{line} {}", response.status().as_u16());
        response
    }
}

struct Chunks {
    root: RwLock<Arc<ChunkRoot>>,
    log: RequestLog,
}

impl Handler for Chunks {
    fn handle(&self, request: Request<Incoming>) -> impl Future<Output = Response<Body>> + Send {
        let root = Arc::clone(&self.root.read().unwrap_or_else(PoisonError::into_inner));
        self.log
            .around(request, async move |request| root.answer(request, 0).await)
    }
}

struct Indexes {
    root: IndexRoot,
    log: RequestLog,
}

impl Handler for Indexes {
    fn handle(&self, request: Request<Incoming>) -> impl Future<Output = Response<Body>> + Send {
        self.log
            .around(request, async move |request| self.root.answer(request, 0).await)
    }
}
