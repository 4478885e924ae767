//! Chunk GET over HTTP: cairnd, `cairn chunk-server`, desync's chunk-server and nginx on the same folder.
//!
//! Servers and load share the machine's cores, so requests per second say little where cores are few: the figure is CPU time
//! of the server per request. All files are in the page cache.

use std::fs;
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use crate::Result;
use crate::load::{self, Connection, Target};
use crate::process::{Server, cpu_seconds, measure};
use crate::table::median;
use crate::tools::{Tool, ours};

/// Connections, as the issue has it.
const CONNECTIONS: usize = 16;
/// GETs of one repeat; a store with fewer chunks is asked for them again.
const REQUESTS: usize = 20_000;
/// Answers whose bytes are compared before anything is timed.
const COMPARED: usize = 200;
/// How long after a refused connection the next is tried.
pub(crate) const CONNECT_EVERY: Duration = Duration::from_millis(20);
/// A server has to accept connections within this.
pub(crate) const START_WITHIN: Duration = Duration::from_secs(20);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Program {
    Nginx,
    Cairnd,
    CairndPacks,
    /// With packs of its own, empty.
    CairndEmpty,
    CairnChunkServer,
    Desync,
}

impl Program {
    fn name(self) -> &'static str {
        match self {
            Self::Nginx => "nginx, one process, sendfile",
            Self::Cairnd => "cairnd, the same folder",
            Self::CairndPacks => "cairnd, packs",
            Self::CairndEmpty => "cairnd, packs of its own",
            Self::CairnChunkServer => "cairn chunk-server",
            Self::Desync => "desync chunk-server",
        }
    }

    /// What stands before the chunk's path.
    fn prefix(self) -> &'static str {
        match self {
            Self::Cairnd | Self::CairndPacks | Self::CairndEmpty => "/store/default/",
            Self::Nginx | Self::CairnChunkServer | Self::Desync => "/",
        }
    }

    fn command(self, folder: &Path, store: &Path, address: SocketAddr) -> Result<Command> {
        Ok(match self {
            Self::Nginx => {
                let temporary: String = ["client_body", "proxy", "fastcgi", "uwsgi", "scgi"]
                    .map(|kind| format!("{kind}_temp_path {}/nginx-{kind};\n", folder.display()))
                    .concat();
                let config = format!(
                    "daemon off;\nmaster_process off;\npid {folder}/nginx.pid;\nerror_log {folder}/nginx.error;\n\
                     events {{ worker_connections 256; }}\n\
                     http {{\n{temporary}access_log off;\nsendfile on;\ntcp_nopush on;\nkeepalive_requests 100000000;\n\
                     server {{ listen {address}; root {store}; }}\n}}\n",
                    folder = folder.display(),
                    store = store.display(),
                );
                let path = folder.join("nginx.conf");
                fs::write(&path, config)?;
                let mut command = Command::new("nginx");
                command
                    .arg("-e")
                    .arg(folder.join("nginx.error"))
                    .arg("-p")
                    .arg(folder)
                    .arg("-c")
                    .arg(path);
                command
            }
            Self::Cairnd | Self::CairndPacks | Self::CairndEmpty => {
                let name = format!("{self:?}");
                let config = match self {
                    Self::Cairnd => format!("[stores.default]\npath = \"{}\"\nwritable = false\n", store.display()),
                    Self::CairndPacks => {
                        let packs = folder.join("serve-packs");
                        let mut copy = Command::new(ours("cairn")?);
                        copy.args(["store", "copy", "--packs"]).arg(store).arg(&packs);
                        measure(copy)?;
                        format!("[stores.default]\npath = \"{}\"\nwritable = true\n", packs.display())
                    }
                    _ => "[stores.default]\nwritable = true\n".to_owned(),
                };
                let path = folder.join(format!("{name}.toml"));
                fs::write(&path, config)?;
                let mut command = Command::new(ours("cairnd")?);
                command
                    .arg("--config")
                    .arg(path)
                    .arg("--data")
                    .arg(folder.join(format!("{name}-data")));
                command
                    .arg("--listen")
                    .arg(address.to_string())
                    .arg("--internal")
                    .arg(free_address()?.to_string())
                    .args(["--s3", "127.0.0.1:0"]);
                command
            }
            Self::CairnChunkServer => {
                let mut command = Command::new(ours("cairn")?);
                command
                    .arg("chunk-server")
                    .arg("-s")
                    .arg(store)
                    .arg("-l")
                    .arg(address.to_string());
                command
            }
            Self::Desync => {
                let mut command = Command::new("desync");
                command
                    .arg("chunk-server")
                    .arg("-s")
                    .arg(store)
                    .arg("-l")
                    .arg(address.to_string());
                command
            }
        })
    }
}

/// A server that listens.
pub(crate) struct Listening {
    pub(crate) server: Server,
    pub(crate) address: SocketAddr,
}

/// A server under load and what its repeats showed.
struct Contender {
    program: Program,
    server: Server,
    address: SocketAddr,
    targets: Vec<Target>,
    per_second: Vec<f64>,
    cpu_per_request: Vec<f64>,
    median_latency: Vec<f64>,
    p99: Vec<f64>,
}

/// Measures all servers on the chunks of `store`.
pub(crate) fn run(folder: &Path, store: &Path, tools: &[Tool], repeats: usize) -> Result<String> {
    let chunks = chunks(store)?;
    if chunks.is_empty() {
        return Err("the store to be served has no chunks".into());
    }
    let mut contenders = Vec::new();
    for program in [
        Program::Nginx,
        Program::Cairnd,
        Program::CairndPacks,
        Program::CairnChunkServer,
        Program::Desync,
    ] {
        let wanted = match program {
            Program::Nginx => true,
            Program::Cairnd | Program::CairndPacks | Program::CairndEmpty | Program::CairnChunkServer => {
                tools.contains(&Tool::Cairn)
            }
            Program::Desync => tools.contains(&Tool::Desync),
        };
        if wanted {
            contenders.push(contender(program, folder, store, &chunks)?);
        }
    }
    for _ in 0..repeats {
        for contender in &mut contenders {
            let before = cpu_seconds(contender.server.pid())?;
            let answers = load::run(contender.address, &contender.targets, CONNECTIONS)
                .map_err(|error| format!("{}: {error}", contender.program.name()))?;
            let cpu = cpu_seconds(contender.server.pid())? - before;
            let requests = answers.latencies.len();
            contender.per_second.push(requests as f64 / answers.wall);
            contender.cpu_per_request.push(cpu / requests as f64 * 1e6);
            contender.median_latency.push(answers.latencies[requests / 2] * 1e6);
            contender.p99.push(answers.latencies[requests * 99 / 100] * 1e6);
        }
    }
    Ok(section(&contenders, &chunks, repeats))
}

/// Starts a server and waits until it listens.
pub(crate) fn start(program: Program, folder: &Path, store: &Path) -> Result<Listening> {
    let address = free_address()?;
    let log = folder.join(format!("{program:?}.log"));
    let mut server = Server::start(program.command(folder, store, address)?, &log)?;
    let start = Instant::now();
    while TcpStream::connect(address).is_err() {
        // Nobody tells when it listens; its end is seen at once.
        if server.wait(None, CONNECT_EVERY)? || start.elapsed() > START_WITHIN {
            let text = fs::read_to_string(&log)?;
            return Err(format!("{} does not serve: {}", program.name(), text.trim()).into());
        }
    }
    Ok(Listening { server, address })
}

fn contender(program: Program, folder: &Path, store: &Path, chunks: &[(String, u64)]) -> Result<Contender> {
    let Listening { server, address } = start(program, folder, store)?;
    let target = |(path, len): &(String, u64)| Target {
        path: format!("{}{path}", program.prefix()),
        len: *len,
    };
    let targets: Vec<Target> = chunks.iter().map(target).cycle().take(REQUESTS).collect();

    let mut connection = Connection::open(address)?;
    for (path, _) in chunks.iter().take(COMPARED) {
        let mut body = Vec::new();
        connection.get(&format!("{}{path}", program.prefix()), Some(&mut body))?;
        if body != fs::read(store.join(path))? {
            return Err(format!("{} serves other bytes for {path} than the file has", program.name()).into());
        }
    }
    drop(connection);
    // Once without a clock, to fill caches and pools.
    load::run(address, &targets[..targets.len() / 4], CONNECTIONS)
        .map_err(|error| format!("{}: {error}", program.name()))?;
    Ok(Contender {
        program,
        server,
        address,
        targets,
        per_second: Vec::new(),
        cpu_per_request: Vec::new(),
        median_latency: Vec::new(),
        p99: Vec::new(),
    })
}

/// Path below the store and length of every chunk, in a random but fixed order.
fn chunks(store: &Path) -> Result<Vec<(String, u64)>> {
    let mut chunks = Vec::new();
    for folder in fs::read_dir(store)? {
        let folder = folder?;
        if !folder.file_type()?.is_dir() {
            continue;
        }
        for file in fs::read_dir(folder.path())? {
            let file = file?;
            let name = file.file_name().to_string_lossy().into_owned();
            if name.ends_with(".cacnk") {
                chunks.push((
                    format!("{}/{name}", folder.file_name().to_string_lossy()),
                    file.metadata()?.len(),
                ));
            }
        }
    }
    chunks.sort();
    fastrand::Rng::with_seed(16).shuffle(&mut chunks);
    Ok(chunks)
}

/// An address of this machine whose port was free a moment ago.
pub(crate) fn free_address() -> Result<SocketAddr> {
    Ok(TcpListener::bind("127.0.0.1:0")?.local_addr()?)
}

fn section(contenders: &[Contender], chunks: &[(String, u64)], repeats: usize) -> String {
    let mean = chunks.iter().map(|(_, len)| len).sum::<u64>() / chunks.len() as u64;
    let mut text = format!(
        "\n### Chunk GET over HTTP\n\n{} chunks of {mean} bytes on average, {CONNECTIONS} connections, {REQUESTS} GETs a repeat, \
         median of {repeats}, interleaved, page cache warm. The load runs on the same cores.\n\n\
         | server | GET/s | server CPU-µs per GET | GET per CPU-second | / nginx | / desync | median µs | p99 µs |\n\
         |---|---|---|---|---|---|---|---|\n",
        chunks.len()
    );
    let per_cpu = |contender: &Contender| 1e6 / median(contender.cpu_per_request.clone());
    let of = |program| {
        contenders
            .iter()
            .find(|contender| contender.program == program)
            .map(per_cpu)
    };
    let ratio = |mine: f64, other: Option<f64>| other.map_or(String::new(), |other| format!("{:.2}", mine / other));
    for contender in contenders {
        let mine = per_cpu(contender);
        text += &format!(
            "| {} | {:.0} | {:.1} | {mine:.0} | {} | {} | {:.0} | {:.0} |\n",
            contender.program.name(),
            median(contender.per_second.clone()),
            median(contender.cpu_per_request.clone()),
            ratio(mine, of(Program::Nginx)),
            ratio(mine, of(Program::Desync)),
            median(contender.median_latency.clone()),
            median(contender.p99.clone()),
        );
    }
    text
}
