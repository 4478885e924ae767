//! A small HTTP/1.1 load generator: requests over kept connections, each answer read to its end and its length checked.
//!
//! Blocking, a thread a connection, and nothing copied that need not be: the load shares the servers' cores.

use std::io::{BufRead, BufReader, Read, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::time::{Duration, Instant};

use crate::Result;

/// An answer that takes longer stops the run.
const ANSWER_WITHIN: Duration = Duration::from_secs(30);

/// One thing to ask for.
#[derive(Clone, Debug)]
pub(crate) struct Target {
    /// Path of the request.
    pub(crate) path: String,
    /// Bytes of the body that has to come back.
    pub(crate) len: u64,
}

/// What a run showed.
pub(crate) struct Answers {
    pub(crate) wall: f64,
    /// Seconds of each request, ascending.
    pub(crate) latencies: Vec<f64>,
}

/// Asks for all `targets` once, spread over `connections`.
pub(crate) fn run(address: SocketAddr, targets: &[Target], connections: usize) -> Result<Answers> {
    let start = Instant::now();
    let results: Vec<Result<Vec<f64>>> = std::thread::scope(|scope| {
        let workers: Vec<_> = (0..connections)
            .map(|first| {
                scope.spawn(move || {
                    let work = || -> Result<Vec<f64>> {
                        let mut connection = Connection::open(address)?;
                        let mut latencies = Vec::with_capacity(targets.len() / connections + 1);
                        for target in targets.iter().skip(first).step_by(connections) {
                            let start = Instant::now();
                            let len = connection.get(&target.path, None)?;
                            latencies.push(start.elapsed().as_secs_f64());
                            if len != target.len {
                                let Target { path, len: expected } = target;
                                return Err(format!("{path} came with {len} bytes instead of {expected}").into());
                            }
                        }
                        Ok(latencies)
                    };
                    work().map_err(|error| error.to_string())
                })
            })
            .collect();
        workers
            .into_iter()
            .map(|worker| Ok(worker.join().map_err(|_| "a load thread panicked")??))
            .collect()
    });
    let wall = start.elapsed().as_secs_f64();
    let mut latencies = Vec::with_capacity(targets.len());
    for result in results {
        latencies.extend(result?);
    }
    latencies.sort_by(f64::total_cmp);
    Ok(Answers { wall, latencies })
}

/// One kept connection.
pub(crate) struct Connection {
    stream: BufReader<TcpStream>,
    line: String,
    scratch: Vec<u8>,
}

/// The head of an answer.
#[derive(Clone, Debug)]
pub(crate) struct Head {
    pub(crate) status: u16,
    pub(crate) etag: Option<String>,
    /// Bytes of the body; `None`: it comes in pieces that say their lengths.
    pub(crate) len: Option<u64>,
}

impl Connection {
    pub(crate) fn open(address: SocketAddr) -> Result<Self> {
        let stream = TcpStream::connect(address)?;
        stream.set_nodelay(true)?;
        stream.set_read_timeout(Some(ANSWER_WITHIN))?;
        let stream = BufReader::with_capacity(64 << 10, stream);
        Ok(Self {
            stream,
            line: String::new(),
            scratch: vec![0; 256 << 10],
        })
    }

    /// GETs `path` and returns the length of the body, which is added to `keep` where given. Anything but 200 is an error.
    pub(crate) fn get(&mut self, path: &str, mut keep: Option<&mut Vec<u8>>) -> Result<u64> {
        self.send(format!("GET {path} HTTP/1.1\r\nHost: localhost\r\n\r\n").as_bytes())?;
        let head = self.head()?;
        if head.status != 200 {
            return Err(format!("GET {path}: {}", head.status).into());
        }
        self.body(&head, &mut |bytes| {
            if let Some(keep) = &mut keep {
                keep.extend_from_slice(bytes);
            }
            Ok(())
        })
    }

    /// Sends bytes of a request.
    pub(crate) fn send(&mut self, bytes: &[u8]) -> Result<()> {
        Ok(self.stream.get_mut().write_all(bytes)?)
    }

    /// Reads the head of an answer.
    pub(crate) fn head(&mut self) -> Result<Head> {
        let status = self.read_line()?.split(' ').nth(1).unwrap_or_default().parse()?;
        let (mut len, mut chunked, mut etag) = (None, false, None);
        loop {
            let line = self.read_line()?;
            let Some((name, value)) = line.split_once(':') else {
                break;
            };
            let value = value.trim();
            if name.eq_ignore_ascii_case("content-length") {
                len = Some(value.parse::<u64>()?);
            } else if name.eq_ignore_ascii_case("etag") {
                etag = Some(value.to_owned());
            }
            chunked |= name.eq_ignore_ascii_case("transfer-encoding") && value.eq_ignore_ascii_case("chunked");
        }
        let has_none = status == 204 || status == 304;
        match (chunked, len) {
            (false, None) if !has_none => Err("an answer without length".into()),
            (true, _) => Ok(Head {
                status,
                etag,
                len: None,
            }),
            (false, len) => Ok(Head {
                status,
                etag,
                len: Some(len.unwrap_or(0)),
            }),
        }
    }

    /// Reads the body of an answer, which `take` gets in pieces. Returns its length.
    pub(crate) fn body(&mut self, head: &Head, take: &mut dyn FnMut(&[u8]) -> Result<()>) -> Result<u64> {
        if let Some(len) = head.len {
            self.piece(len, take)?;
            return Ok(len);
        }
        let mut total = 0;
        loop {
            let len = u64::from_str_radix(self.read_line()?.split(';').next().unwrap_or_default().trim(), 16)?;
            self.piece(len, take)?;
            self.read_line()?;
            total += len;
            if len == 0 {
                return Ok(total);
            }
        }
    }

    fn read_line(&mut self) -> Result<&str> {
        self.line.clear();
        if self.stream.read_line(&mut self.line)? == 0 {
            return Err("the server closed the connection".into());
        }
        Ok(self.line.trim_end())
    }

    fn piece(&mut self, mut len: u64, take: &mut dyn FnMut(&[u8]) -> Result<()>) -> Result<()> {
        while len > 0 {
            let part = len.min(self.scratch.len() as u64) as usize;
            let read = self.stream.read(&mut self.scratch[..part])?;
            if read == 0 {
                return Err("the server closed the connection".into());
            }
            take(&self.scratch[..read])?;
            len -= read as u64;
        }
        Ok(())
    }
}
