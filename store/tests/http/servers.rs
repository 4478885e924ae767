//! Real servers on loopback, and one that misbehaves on purpose.

use std::fs;
use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use tempfile::TempDir;

/// A server program that is stopped when dropped.
pub(crate) struct Server {
    child: Child,
    pub(crate) port: u16,
    _folder: TempDir,
}

impl Server {
    /// nginx over `root`, which also takes PUT.
    ///
    /// - `rules`: directives inside `location /`.
    pub(crate) fn nginx(root: &Path, rules: &str) -> Self {
        Self::nginx_with(root, "", "", rules)
    }

    /// - `listen`: words after the address; `server`: directives beside `location /`.
    pub(crate) fn nginx_with(root: &Path, listen: &str, server: &str, rules: &str) -> Self {
        Self::start(|folder, port| {
            let config = folder.join("nginx.conf");
            let (here, root) = (folder.display(), root.display());
            let text = format!(
                "daemon off; master_process off; pid {here}/pid; error_log {here}/error.log;
                events {{}}
                http {{
                    access_log off; default_type application/octet-stream; client_max_body_size 256m;
                    client_body_temp_path {here}/a; proxy_temp_path {here}/b; fastcgi_temp_path {here}/c;
                    uwsgi_temp_path {here}/d; scgi_temp_path {here}/e;
                    server {{
                        listen 127.0.0.1:{port} {listen};
                        {server}
                        location / {{ root {root}; dav_methods PUT; create_full_put_path on; {rules} }}
                    }}
                }}"
            );
            fs::write(&config, text).unwrap();
            let mut nginx = Command::new("nginx");
            nginx.arg("-c").arg(config).arg("-e").arg(folder.join("error.log"));
            nginx
        })
    }

    /// desync's `chunk-server` or `index-server` over `root`.
    pub(crate) fn desync(verb: &str, root: &Path, flags: &[&str]) -> Self {
        Self::start(|_, port| {
            let mut desync = Command::new("desync");
            desync.arg(verb).arg("-s").arg(root).args(flags);
            desync.arg("-l").arg(format!("127.0.0.1:{port}"));
            desync
        })
    }

    /// Starts a program on a free port and waits until it accepts. Another port is tried when someone else was faster.
    fn start(command: impl Fn(&Path, u16) -> Command) -> Self {
        let mut said = String::new();
        for _ in 0..10 {
            let folder = tempfile::tempdir().unwrap();
            let port = cairn_test_servers::free_port();
            let log = fs::File::create(folder.path().join("output")).unwrap();
            let child = command(folder.path(), port)
                .stdin(Stdio::null())
                .stdout(log.try_clone().unwrap())
                .stderr(log)
                .spawn()
                .expect("the bootstrap script installs nginx and desync");
            let mut server = Self {
                child,
                port,
                _folder: folder,
            };
            if server.accepts() {
                return server;
            }
            said = fs::read_to_string(server._folder.path().join("output")).unwrap_or_default();
        }
        panic!("the server does not start: {said}");
    }

    fn accepts(&mut self) -> bool {
        for _ in 0..4000 {
            if self.child.try_wait().unwrap().is_some() {
                return false;
            }
            if TcpStream::connect(("127.0.0.1", self.port)).is_ok() {
                return true;
            }
            thread::park_timeout(Duration::from_millis(5));
        }
        false
    }

    pub(crate) fn url(&self) -> String {
        format!("http://127.0.0.1:{}/", self.port)
    }

    pub(crate) fn tls_url(&self) -> String {
        format!("https://127.0.0.1:{}/", self.port)
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// An authority, a server's certificate for 127.0.0.1 and a client's, made by openssl.
pub(crate) struct Certificates {
    folder: TempDir,
}

impl Certificates {
    pub(crate) fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let openssl = |arguments: &str| {
            let output = Command::new("openssl")
                .args(arguments.split(' '))
                .current_dir(folder.path())
                .output()
                .expect("the bootstrap script installs openssl");
            assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        };
        let key = "-newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -sha256 -days 2";
        openssl(&format!(
            "req -x509 {key} -subj /CN=authority -keyout ca.key -out ca.pem"
        ));
        for (name, usage) in [("server", "serverAuth"), ("client", "clientAuth")] {
            let extensions = format!("subjectAltName=IP:127.0.0.1\nextendedKeyUsage={usage}\n");
            fs::write(folder.path().join("extensions"), extensions).unwrap();
            openssl(&format!(
                "req {key} -subj /CN={name} -keyout {name}.key -out {name}.csr"
            ));
            openssl(&format!(
                "x509 -req -in {name}.csr -CA ca.pem -CAkey ca.key -CAcreateserial -days 2 -extfile extensions -out {name}.pem"
            ));
        }
        Self { folder }
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }
}

/// A server that answers whatever a test wants, bytes on the wire, one request a connection.
pub(crate) struct Fault {
    pub(crate) address: SocketAddr,
    stop: Arc<AtomicBool>,
    requests: Arc<Mutex<Vec<String>>>,
    acceptor: Option<JoinHandle<()>>,
}

impl Fault {
    /// - `answer`: from the number of the request, counted from 0, and its text to the bytes sent before the connection is
    ///   closed. An answer that does not say `Connection: close` lets the client write into the closing connection, which
    ///   costs it a try. `None`: the connection is held open in silence until the client leaves.
    pub(crate) fn start(answer: impl Fn(usize, &str) -> Option<Vec<u8>> + Send + Sync + 'static) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let stop = Arc::new(AtomicBool::new(false));
        let requests = Arc::new(Mutex::new(Vec::new()));
        let (stopped, seen, answer) = (stop.clone(), requests.clone(), Arc::new(answer));
        let acceptor = thread::spawn(move || {
            let mut talks = Vec::new();
            for stream in listener.incoming() {
                if stopped.load(Ordering::SeqCst) {
                    break;
                }
                let (seen, answer) = (seen.clone(), answer.clone());
                talks.push(thread::spawn(move || talk(stream.unwrap(), &seen, &*answer)));
            }
            for talk in talks {
                talk.join().unwrap();
            }
        });
        Self {
            address,
            stop,
            requests,
            acceptor: Some(acceptor),
        }
    }

    pub(crate) fn url(&self) -> String {
        format!("http://{}/", self.address)
    }

    /// The requests so far, heads and bodies.
    pub(crate) fn requests(&self) -> Vec<String> {
        self.requests.lock().unwrap().clone()
    }
}

impl Drop for Fault {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::SeqCst);
        let _ = TcpStream::connect(self.address);
        if let Some(acceptor) = self.acceptor.take() {
            acceptor.join().unwrap();
        }
    }
}

fn talk(mut stream: TcpStream, seen: &Mutex<Vec<String>>, answer: &(dyn Fn(usize, &str) -> Option<Vec<u8>> + Sync)) {
    let mut request = Vec::new();
    while !is_whole(&request) {
        let mut piece = [0; 4096];
        match stream.read(&mut piece) {
            Ok(0) | Err(_) => return,
            Ok(len) => request.extend_from_slice(&piece[..len]),
        }
    }
    let text = String::from_utf8_lossy(&request).into_owned();
    let number = {
        let mut seen = seen.lock().unwrap();
        seen.push(text.clone());
        seen.len() - 1
    };
    match answer(number, &text) {
        // The client may have left before it is told everything.
        Some(bytes) => drop(stream.write_all(&bytes)),
        None => drop(stream.read(&mut [0])),
    }
}

/// Whether a request has arrived with its head and as much body as the head announces.
fn is_whole(request: &[u8]) -> bool {
    let text = String::from_utf8_lossy(request).to_ascii_lowercase();
    let Some((head, _)) = text.split_once("\r\n\r\n") else {
        return false;
    };
    let len: usize = head
        .lines()
        .find_map(|line| line.strip_prefix("content-length:")?.trim().parse().ok())
        .unwrap_or(0);
    request.len() >= head.len() + 4 + len
}

/// An answer with a body of its announced length.
pub(crate) fn answer(status: &str, headers: &str, body: &[u8]) -> Option<Vec<u8>> {
    let len = body.len();
    let mut bytes =
        format!("HTTP/1.1 {status}\r\nContent-Length: {len}\r\nConnection: close\r\n{headers}\r\n").into_bytes();
    bytes.extend_from_slice(body);
    Some(bytes)
}
