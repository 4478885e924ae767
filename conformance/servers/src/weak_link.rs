//! A way to a server that breaks: it passes bytes on, and cuts connections after so many, or falls silent.

use std::io::{Read as _, Write as _};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::{self, JoinHandle};

/// Passes connections on to a server on loopback.
pub struct WeakLink {
    address: SocketAddr,
    shared: Arc<Shared>,
    acceptor: Option<JoinHandle<()>>,
}

struct Shared {
    server: SocketAddr,
    stop: AtomicBool,
    /// Bytes that the client may still send over all connections.
    allowance: AtomicU64,
    /// Past the allowance: keep the connection, pass nothing on.
    silent: bool,
    connections: AtomicUsize,
    open: Mutex<Vec<TcpStream>>,
}

impl WeakLink {
    /// Cuts every connection once clients have sent so many bytes in all. [`WeakLink::allow`] makes it work again.
    pub fn cut_after(server: SocketAddr, bytes: u64) -> Self {
        Self::start(server, bytes, false)
    }

    /// Falls silent once clients have sent so many bytes in all.
    pub fn silent_after(server: SocketAddr, bytes: u64) -> Self {
        Self::start(server, bytes, true)
    }

    fn start(server: SocketAddr, bytes: u64, silent: bool) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let shared = Arc::new(Shared {
            server,
            stop: AtomicBool::new(false),
            allowance: AtomicU64::new(bytes),
            silent,
            connections: AtomicUsize::new(0),
            open: Mutex::new(Vec::new()),
        });
        let accepted = shared.clone();
        let acceptor = thread::spawn(move || {
            let mut passers = Vec::new();
            for client in listener.incoming() {
                if accepted.stop.load(Ordering::SeqCst) {
                    break;
                }
                let (client, server) = (client.unwrap(), TcpStream::connect(accepted.server).unwrap());
                accepted.connections.fetch_add(1, Ordering::SeqCst);
                let mut open = accepted.open.lock().unwrap();
                for stream in [&client, &server] {
                    open.push(stream.try_clone().unwrap());
                }
                let (back, forth) = (server.try_clone().unwrap(), client.try_clone().unwrap());
                let shared = accepted.clone();
                passers.push(thread::spawn(move || pass(client, server, Some(&shared))));
                passers.push(thread::spawn(move || pass(back, forth, None)));
            }
            for passer in passers {
                passer.join().unwrap();
            }
        });
        Self {
            address,
            shared,
            acceptor: Some(acceptor),
        }
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Connections so far.
    pub fn connections(&self) -> usize {
        self.shared.connections.load(Ordering::SeqCst)
    }

    /// Lets so many more bytes through.
    pub fn allow(&self, bytes: u64) {
        self.shared.allowance.store(bytes, Ordering::SeqCst);
    }
}

impl Drop for WeakLink {
    fn drop(&mut self) {
        self.shared.stop.store(true, Ordering::SeqCst);
        for stream in self.shared.open.lock().unwrap().drain(..) {
            let _ = stream.shutdown(Shutdown::Both);
        }
        let _ = TcpStream::connect(self.address);
        if let Some(acceptor) = self.acceptor.take() {
            acceptor.join().unwrap();
        }
    }
}

/// Passes bytes on until an end closes or the allowance is used up.
fn pass(mut from: TcpStream, mut to: TcpStream, limit: Option<&Shared>) {
    let mut buffer = [0; 16 << 10];
    while let Ok(read @ 1..) = from.read(&mut buffer) {
        let mut passed = read;
        if let Some(shared) = limit {
            let take = |left: u64| Some(left.saturating_sub(read as u64));
            let left = shared.allowance.fetch_update(Ordering::SeqCst, Ordering::SeqCst, take);
            passed = usize::try_from(left.unwrap_or(0)).unwrap_or(read).min(read);
        }
        if to.write_all(&buffer[..passed]).is_err() {
            break;
        }
        if passed < read && limit.is_some_and(|shared| !shared.silent) {
            break;
        }
    }
    let _ = (from.shutdown(Shutdown::Both), to.shutdown(Shutdown::Both));
}
