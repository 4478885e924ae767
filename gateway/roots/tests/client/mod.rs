//! A root on a real socket, and a client that says exactly what a test wants said: no library hides a header.

#![allow(dead_code, reason = "each test program uses its own part")]

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{Shutdown as Side, SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use cairn_formats::{Chunk, ChunkForm, DigestAlgorithm, Level};
use cairn_roots::{Handler, ServeOptions, ShutdownTrigger, serve, shutdown_channel};
use tokio::runtime::Runtime;
use tokio::task::JoinHandle;

/// A client that waits longer has found a hang.
pub(crate) const HANG: Duration = Duration::from_secs(60);

/// A running listener.
pub(crate) struct Server {
    pub(crate) address: SocketAddr,
    pub(crate) trigger: ShutdownTrigger,
    pub(crate) serving: JoinHandle<()>,
    pub(crate) runtime: Runtime,
}

impl Server {
    pub(crate) fn start<H: Handler>(handler: H) -> Self {
        Self::start_with(handler, ServeOptions::default(), 2)
    }

    pub(crate) fn start_with<H: Handler>(handler: H, options: ServeOptions, threads: usize) -> Self {
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(threads)
            .enable_all()
            .build()
            .unwrap();
        let listener = runtime.block_on(tokio::net::TcpListener::bind("127.0.0.1:0")).unwrap();
        let address = listener.local_addr().unwrap();
        let (trigger, shutdown) = shutdown_channel();
        let serving = runtime.spawn(serve(listener, Arc::new(handler), None, options, shutdown));
        Self {
            address,
            trigger,
            serving,
            runtime,
        }
    }

    pub(crate) fn connect(&self) -> Client {
        Client::connect(self.address)
    }

    /// One request on its own connection.
    pub(crate) fn ask(&self, method: &str, path: &str, headers: &[(&str, &str)], body: &[u8]) -> Answer {
        self.connect().ask(method, path, headers, body)
    }

    #[track_caller]
    pub(crate) fn status(&self, method: &str, path: &str, body: &[u8]) -> u16 {
        self.ask(method, path, &[], body).status
    }
}

/// One connection.
pub(crate) struct Client {
    reader: BufReader<TcpStream>,
}

#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) headers: Vec<(String, String)>,
    pub(crate) body: Vec<u8>,
}

impl Answer {
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        let mut values = self
            .headers
            .iter()
            .filter(|(known, _)| known == name)
            .map(|(_, value)| &value[..]);
        let value = values.next();
        assert_eq!(values.next(), None, "{name} is there twice");
        value
    }

    pub(crate) fn text(&self) -> String {
        String::from_utf8(self.body.clone()).unwrap()
    }
}

impl Client {
    pub(crate) fn connect(address: SocketAddr) -> Self {
        Self::try_connect(address).unwrap()
    }

    /// As [`Client::connect`], `None` when nobody listens (any more).
    pub(crate) fn try_connect(address: SocketAddr) -> Option<Self> {
        let stream = TcpStream::connect(address).ok()?;
        stream.set_read_timeout(Some(HANG)).unwrap();
        // A head and a body sent one after the other would wait 40 ms for each other.
        stream.set_nodelay(true).unwrap();
        Some(Self {
            reader: BufReader::new(stream),
        })
    }

    /// A request and its answer; `None` when the connection ended instead, wherever.
    pub(crate) fn try_ask(&mut self, method: &str, path: &str, body: &[u8]) -> Option<Answer> {
        let head = format!(
            "{method} {path} HTTP/1.1\r\nHost: test\r\nContent-Length: {}\r\n\r\n",
            body.len()
        );
        self.try_send(&[head.as_bytes(), body].concat()).then_some(())?;
        self.try_receive(method)
    }

    pub(crate) fn send(&mut self, bytes: &[u8]) {
        self.reader.get_mut().write_all(bytes).unwrap();
    }

    /// Sends what may find the connection closed already.
    pub(crate) fn try_send(&mut self, bytes: &[u8]) -> bool {
        self.reader.get_mut().write_all(bytes).is_ok()
    }

    pub(crate) fn stop_sending(&mut self) {
        self.reader.get_mut().shutdown(Side::Write).unwrap();
    }

    pub(crate) fn ask(&mut self, method: &str, path: &str, headers: &[(&str, &str)], body: &[u8]) -> Answer {
        let mut head = format!("{method} {path} HTTP/1.1\r\nHost: test\r\n");
        for (name, value) in headers {
            head += &format!("{name}: {value}\r\n");
        }
        if method == "PUT" || method == "POST" && !body.is_empty() {
            head += &format!("Content-Length: {}\r\n", body.len());
        }
        head += "\r\n";
        self.send(head.as_bytes());
        // Who is refused before all is read is told so, and then hung up on.
        self.try_send(body);
        self.receive(method)
    }

    /// The answer to a request of `method`.
    #[track_caller]
    pub(crate) fn receive(&mut self, method: &str) -> Answer {
        self.try_receive(method).expect("an answer")
    }

    /// As [`Client::receive`], `None` when the connection ended instead.
    pub(crate) fn try_receive(&mut self, method: &str) -> Option<Answer> {
        let mut line = String::new();
        if self.reader.read_line(&mut line).unwrap_or(0) == 0 {
            return None;
        }
        let status = line.split(' ').nth(1).unwrap().parse().unwrap();
        let mut headers = Vec::new();
        loop {
            line.clear();
            if self.reader.read_line(&mut line).unwrap_or(0) == 0 {
                return None;
            }
            let Some((name, value)) = line.trim_end().split_once(':') else {
                break;
            };
            headers.push((name.to_ascii_lowercase(), value.trim().to_owned()));
        }
        let mut answer = Answer {
            status,
            headers,
            body: Vec::new(),
        };
        if method != "HEAD" && !matches!(status, 204 | 304) {
            if answer.header("transfer-encoding") == Some("chunked") {
                while self.receive_piece(&mut answer.body)? {}
                return Some(answer);
            }
            let len = answer
                .header("content-length")
                .expect("every other answer has a length")
                .parse()
                .unwrap();
            answer.body.resize(len, 0);
            self.reader.read_exact(&mut answer.body).ok()?;
        }
        Some(answer)
    }

    /// The next piece of a chunked body; whether more follow. `None` when the connection ended instead.
    fn receive_piece(&mut self, body: &mut Vec<u8>) -> Option<bool> {
        let mut line = String::new();
        if self.reader.read_line(&mut line).unwrap_or(0) == 0 {
            return None;
        }
        let (start, len) = (body.len(), usize::from_str_radix(line.trim_end(), 16).unwrap());
        body.resize(start + len + 2, 0);
        self.reader.read_exact(&mut body[start..]).ok()?;
        body.truncate(start + len);
        Some(len > 0)
    }

    /// The status of an interim answer, which is a head alone.
    pub(crate) fn receive_interim(&mut self) -> u16 {
        let mut head = String::new();
        while !head.ends_with("\r\n\r\n") {
            assert_ne!(self.reader.read_line(&mut head).unwrap(), 0, "the connection ended");
        }
        head.split(' ').nth(1).unwrap().parse().unwrap()
    }

    /// Whether the server has closed the connection, all of its bytes read.
    pub(crate) fn is_closed(&mut self) -> bool {
        matches!(self.reader.read(&mut [0]), Ok(0) | Err(_))
    }
}

/// A chunk as a client has it.
pub(crate) struct Sample {
    pub(crate) hex: String,
    pub(crate) plain: Vec<u8>,
    pub(crate) frame: Vec<u8>,
}

impl Sample {
    pub(crate) fn new(plain: &[u8]) -> Self {
        Self::with_digest(DigestAlgorithm::Sha512_256, plain)
    }

    pub(crate) fn with_digest(algorithm: DigestAlgorithm, plain: &[u8]) -> Self {
        let chunk = Chunk::from_plain(algorithm, Bytes::copy_from_slice(plain));
        Self {
            hex: chunk.id().to_string(),
            plain: plain.to_vec(),
            frame: chunk.encode(ChunkForm::Compressed, Level::DEFAULT).bytes().to_vec(),
        }
    }

    pub(crate) fn plain_path(&self) -> String {
        format!("/{}/{}", &self.hex[..4], self.hex)
    }

    pub(crate) fn frame_path(&self) -> String {
        self.plain_path() + ".cacnk"
    }
}

/// Every regular file below `folder`, by its path in it.
pub(crate) fn files(folder: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    let mut folders = vec![folder.to_owned()];
    while let Some(next) = folders.pop() {
        for entry in std::fs::read_dir(next).unwrap() {
            let entry = entry.unwrap();
            if entry.file_type().unwrap().is_dir() {
                folders.push(entry.path());
            } else {
                found.push(entry.path().strip_prefix(folder).unwrap().to_owned());
            }
        }
    }
    found.sort();
    found
}
