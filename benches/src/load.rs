//! A small HTTP/1.1 load generator: GETs over kept connections, each answer read to its end and its length checked.

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

impl Connection {
    pub(crate) fn open(address: SocketAddr) -> Result<Self> {
        let stream = TcpStream::connect(address)?;
        stream.set_nodelay(true)?;
        stream.set_read_timeout(Some(ANSWER_WITHIN))?;
        let stream = BufReader::with_capacity(64 << 10, stream);
        Ok(Self {
            stream,
            line: String::new(),
            scratch: vec![0; 64 << 10],
        })
    }

    /// GETs `path` and returns the length of the body, which is added to `keep` where given. Anything but 200 is an error.
    pub(crate) fn get(&mut self, path: &str, mut keep: Option<&mut Vec<u8>>) -> Result<u64> {
        write!(self.stream.get_mut(), "GET {path} HTTP/1.1\r\nHost: localhost\r\n\r\n")?;
        let status = self.read_line()?.to_owned();
        if status.split(' ').nth(1) != Some("200") {
            return Err(format!("GET {path}: {status}").into());
        }
        let (mut len, mut chunked) = (None, false);
        loop {
            let line = self.read_line()?;
            let Some((name, value)) = line.split_once(':') else {
                break;
            };
            if name.eq_ignore_ascii_case("content-length") {
                len = Some(value.trim().parse::<u64>()?);
            }
            chunked |= name.eq_ignore_ascii_case("transfer-encoding") && value.trim().eq_ignore_ascii_case("chunked");
        }
        if !chunked {
            let len = len.ok_or("an answer without length")?;
            self.body(len, &mut keep)?;
            return Ok(len);
        }
        let mut total = 0;
        loop {
            let len = u64::from_str_radix(self.read_line()?.split(';').next().unwrap_or_default().trim(), 16)?;
            self.body(len, &mut keep)?;
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

    fn body(&mut self, mut len: u64, keep: &mut Option<&mut Vec<u8>>) -> Result<()> {
        while len > 0 {
            let part = len.min(self.scratch.len() as u64) as usize;
            self.stream.read_exact(&mut self.scratch[..part])?;
            if let Some(keep) = keep {
                keep.extend_from_slice(&self.scratch[..part]);
            }
            len -= part as u64;
        }
        Ok(())
    }
}
