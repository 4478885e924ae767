//! The loop that accepts connections and the bounds that each of them has.
//!
//! HTTP/1.1 on plain listeners, and HTTP/2 where a listener asks for it and a client begins with it; over TLS both, as the client chooses. At the limit of connections no further one is
//! accepted until one ends. At shutdown connections finish the request that they are in, within a deadline.

use std::convert::Infallible;
use std::io;
use std::net::IpAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use http::{Request, Response};
use hyper::body::Incoming;
use hyper::server::conn::{http1, http2};
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Semaphore, watch};
use tokio::task::JoinSet;
use tokio_rustls::TlsAcceptor;

use crate::linger::Lingering;
use crate::reply::Body;

/// A TLS handshake that takes longer is given up.
const HANDSHAKE_MAX: Duration = Duration::from_secs(10);
/// Pause after an accept that failed for want of handles or memory.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);
/// Bytes of a request that a connection of HTTP/1.1 has read and nobody has taken; as many again may be on their way to who takes them.
const READ_LEN: usize = 64 << 10;
/// HTTP/2 windows: a chunk of the largest default size fits one.
const WINDOW_LEN: u32 = 1 << 20;
const STREAMS_MAX: u32 = 128;

/// Answers requests.
pub trait Handler: Send + Sync + 'static {
    /// The answer to one request. Cannot fail: what went wrong is a status.
    fn handle(&self, request: Request<Incoming>) -> impl Future<Output = Response<Body>> + Send;
}

/// The address at the other end of a request's connection: among its extensions.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Peer(pub IpAddr);

/// Bounds of a listener.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ServeOptions {
    /// Connections at once.
    pub connections: usize,
    /// Bytes of a request's line and headers together.
    pub header_bytes: usize,
    /// Headers of a request.
    pub headers: usize,
    /// How long a connection may take to send a whole head, waiting for its next request included.
    pub idle: Duration,
    /// How long a connection of HTTP/1.1 that is closed goes on taking what its client sends, so that the client reads the answer.
    pub linger: Duration,
    /// How long requests in flight may take to end once shutdown has begun.
    pub drain: Duration,
    /// HTTP/2 on a plain listener for clients that begin with it, as those of gRPC do; `None`: they are not understood.
    pub h2c: Option<H2c>,
}

/// Bounds of a connection of HTTP/2 without TLS.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct H2c {
    /// Requests at once.
    pub streams: u32,
    /// Bytes of a request's body on their way to who takes them; four times as many of all requests together.
    pub window: u32,
}

impl Default for ServeOptions {
    fn default() -> Self {
        Self {
            connections: 4096,
            header_bytes: 16 << 10,
            headers: 100,
            idle: Duration::from_secs(75),
            linger: Duration::from_secs(5),
            drain: Duration::from_secs(25),
            h2c: None,
        }
    }
}

/// Certificate and key of a listener; exchanged while it runs.
#[derive(Debug)]
pub struct Tls(ArcSwap<rustls::ServerConfig>);

impl Tls {
    /// Offers HTTP/2 and HTTP/1.1 with this configuration.
    pub fn new(config: rustls::ServerConfig) -> Self {
        Self(ArcSwap::from_pointee(with_protocols(config)))
    }

    /// New connections use `config`; those that are open keep theirs.
    pub fn replace(&self, config: rustls::ServerConfig) {
        self.0.store(Arc::new(with_protocols(config)));
    }
}

fn with_protocols(mut config: rustls::ServerConfig) -> rustls::ServerConfig {
    config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    config
}

/// Ends [`serve`]; dropping it does too.
#[derive(Debug)]
pub struct ShutdownTrigger(watch::Sender<bool>);

/// Told to [`serve`] and to each of its connections.
#[derive(Clone, Debug)]
pub struct Shutdown(watch::Receiver<bool>);

/// A trigger and what it triggers.
pub fn shutdown_channel() -> (ShutdownTrigger, Shutdown) {
    let (sender, receiver) = watch::channel(false);
    (ShutdownTrigger(sender), Shutdown(receiver))
}

impl ShutdownTrigger {
    /// Begins the shutdown.
    pub fn begin(&self) {
        self.0.send_replace(true);
    }
}

impl Shutdown {
    /// Waits for the shutdown to begin.
    pub async fn begun(&mut self) {
        // An error is a dropped trigger, which begins it too.
        let _ = self.0.wait_for(|begun| *begun).await;
    }

    pub(crate) fn has_begun(&self) -> bool {
        *self.0.borrow() || self.0.has_changed().is_err()
    }
}

/// Serves `listener` until shutdown, then waits for requests in flight, `options.drain` at most.
///
/// Errors: none while it runs; a connection's trouble is that connection's alone.
pub async fn serve<H: Handler>(
    listener: TcpListener,
    handler: Arc<H>,
    tls: Option<Arc<Tls>>,
    options: ServeOptions,
    mut shutdown: Shutdown,
) {
    let slots = Arc::new(Semaphore::new(options.connections.max(1)));
    let mut connections = JoinSet::new();
    loop {
        let accepted = tokio::select! {
            biased;
            () = shutdown.begun() => break,
            // Ended connections are let go as they end.
            Some(_) = connections.join_next() => continue,
            accepted = async {
                let slot = Arc::clone(&slots).acquire_owned().await.expect("the semaphore is never closed");
                listener.accept().await.map(|(stream, _)| (slot, stream))
            } => accepted,
        };
        let (slot, stream) = match accepted {
            Ok(accepted) => accepted,
            Err(error) => {
                if !is_of_the_connection(&error) {
                    tracing::warn!(%error, "could not accept a connection");
                    tokio::time::sleep(ACCEPT_PAUSE).await;
                }
                continue;
            }
        };
        let (handler, tls, shutdown) = (Arc::clone(&handler), tls.clone(), shutdown.clone());
        connections.spawn(async move {
            let _slot = slot;
            serve_stream(stream, handler, tls, options, shutdown).await;
        });
    }
    drop(listener);
    let drained = async { while connections.join_next().await.is_some() {} };
    if tokio::time::timeout(options.drain, drained).await.is_err() {
        tracing::warn!("requests still in flight at the end of the shutdown's time were cut");
        connections.shutdown().await;
    }
}

async fn serve_stream<H: Handler>(
    stream: TcpStream,
    handler: Arc<H>,
    tls: Option<Arc<Tls>>,
    options: ServeOptions,
    shutdown: Shutdown,
) {
    // Without it small answers wait for acknowledgements; failing is a connection that is gone already.
    let _ = stream.set_nodelay(true);
    let peer = stream.peer_addr().ok().map(|address| Peer(address.ip().to_canonical()));
    let handler = Arc::new(OfPeer { handler, peer });
    // Each kind in memory of its own, or every connection had that of the largest.
    let Some(tls) = tls else {
        return match options.h2c {
            Some(h2c) => Box::pin(serve_either(stream, handler, options, h2c, shutdown)).await,
            None => Box::pin(serve_http1(stream, handler, options, shutdown)).await,
        };
    };
    let acceptor = TlsAcceptor::from(tls.0.load_full());
    match tokio::time::timeout(HANDSHAKE_MAX, acceptor.accept(stream)).await {
        Ok(Ok(stream)) if stream.get_ref().1.alpn_protocol() == Some(b"h2") => {
            let bounds = H2c {
                streams: STREAMS_MAX,
                window: WINDOW_LEN,
            };
            Box::pin(serve_http2(stream, handler, options, bounds, shutdown)).await;
        }
        Ok(Ok(stream)) => Box::pin(serve_http1(stream, handler, options, shutdown)).await,
        Ok(Err(error)) => tracing::debug!(%error, "a TLS handshake failed"),
        Err(_) => tracing::debug!("a TLS handshake took too long"),
    }
}

/// What a connection of HTTP/2 begins with.
const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

/// Finds out by its first bytes which HTTP a client speaks.
async fn serve_either<H: Handler>(
    mut stream: TcpStream,
    handler: Arc<H>,
    options: ServeOptions,
    h2c: H2c,
    shutdown: Shutdown,
) {
    let mut head = Vec::with_capacity(PREFACE.len());
    let mut ended = shutdown.clone();
    let read = async {
        while head.len() < PREFACE.len() && PREFACE.starts_with(&head) {
            let more = PREFACE.len() - head.len();
            if (&mut stream).take(more as u64).read_buf(&mut head).await? == 0 {
                break;
            }
        }
        Ok::<_, io::Error>(())
    };
    tokio::select! {
        read = tokio::time::timeout(options.idle, read) => if !matches!(read, Ok(Ok(()))) { return },
        // Nothing was asked yet.
        () = ended.begun() => return,
    }
    let is_http2 = head == PREFACE;
    let (read, write) = stream.into_split();
    // As if nobody had looked.
    let stream = tokio::io::join(io::Cursor::new(head).chain(read), write);
    if is_http2 {
        Box::pin(serve_http2(stream, handler, options, h2c, shutdown)).await;
    } else {
        Box::pin(serve_http1(stream, handler, options, shutdown)).await;
    }
}

/// Tells the handler who is at the other end.
struct OfPeer<H> {
    handler: Arc<H>,
    peer: Option<Peer>,
}

impl<H: Handler> Handler for OfPeer<H> {
    async fn handle(&self, mut request: Request<Incoming>) -> Response<Body> {
        if let Some(peer) = self.peer {
            request.extensions_mut().insert(peer);
        }
        self.handler.handle(request).await
    }
}

type Answering = Pin<Box<dyn Future<Output = Result<Response<Body>, Infallible>> + Send>>;

/// Answers a request, in memory of its own: the work of all doors together takes tens of KiB, which a connection that waits, or whose
/// client takes an answer slowly, would have all the time.
fn answering<H: Handler>(handler: &Arc<H>, request: Request<Incoming>) -> Answering {
    let handler = Arc::clone(handler);
    Box::pin(async move { Ok(handler.handle(request).await) })
}

async fn serve_http1<H: Handler, S: AsyncRead + AsyncWrite + Send + Unpin + 'static>(
    stream: S,
    handler: Arc<H>,
    options: ServeOptions,
    mut shutdown: Shutdown,
) {
    let service = service_fn(|request| answering(&handler, request));
    let stream = Lingering::new(stream, options.linger, shutdown.clone());
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(options.idle)
        .max_headers(options.headers)
        .max_header_size(options.header_bytes)
        .max_buf_size(READ_LEN.max(options.header_bytes))
        .serve_connection(TokioIo::new(stream), service);
    tokio::pin!(connection);
    let ended = tokio::select! {
        ended = connection.as_mut() => ended,
        () = shutdown.begun() => {
            connection.as_mut().graceful_shutdown();
            connection.await
        }
    };
    if let Err(error) = ended {
        tracing::debug!(%error, "a connection ended early");
    }
}

async fn serve_http2<H: Handler, S: AsyncRead + AsyncWrite + Send + Unpin + 'static>(
    stream: S,
    handler: Arc<H>,
    options: ServeOptions,
    bounds: H2c,
    mut shutdown: Shutdown,
) {
    let service = service_fn(move |request| answering(&handler, request));
    let connection = http2::Builder::new(TokioExecutor::new())
        .timer(TokioTimer::new())
        .keep_alive_interval(options.idle)
        .max_header_list_size(u32::try_from(options.header_bytes).unwrap_or(u32::MAX))
        .max_concurrent_streams(bounds.streams)
        .initial_stream_window_size(bounds.window)
        .initial_connection_window_size(bounds.window.saturating_mul(4))
        .serve_connection(TokioIo::new(stream), service);
    tokio::pin!(connection);
    let ended = tokio::select! {
        ended = connection.as_mut() => ended,
        () = shutdown.begun() => {
            connection.as_mut().graceful_shutdown();
            connection.await
        }
    };
    if let Err(error) = ended {
        tracing::debug!(%error, "a connection ended early");
    }
}

/// Errors of accept that belong to the connection that was about to be, not to the listener.
fn is_of_the_connection(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::ConnectionRefused | io::ErrorKind::ConnectionAborted | io::ErrorKind::ConnectionReset
    )
}
