//! The servers that are measured, each on a fresh folder: `cairnd` with this or that setting, and MinIO.
//!
//! Durability: cairnd syncs chunks and names before it answers. MinIO syncs the data of what it writes (O_DIRECT and fdatasync, O_DSYNC
//! for what is short) and by default neither renames nor folders, so that a power cut may take the name of an object that was
//! acknowledged; with `MINIO_FS_OSYNC=on` it calls `sync` after each rename.

use std::fs;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Instant;

use crate::Result;
use crate::load::Connection;
use crate::process::{Peak, Server, cpu_seconds};
use crate::releases::size;
use crate::s3::client::Client;
use crate::s3::sign::Signer;
use crate::serve::{CONNECT_EVERY, START_WITHIN, free_address};
use crate::tools::ours;

/// Id and secret of MinIO's key, which protect nothing.
const MINIO_KEY: [&str; 2] = ["benchkey", "benchsecret"];
/// The bucket that all is in.
pub(crate) const BUCKET: &str = "bench";

/// A server, and how it is set.
#[derive(Clone, Debug)]
pub(crate) enum Which {
    /// With these lines in `[s3]`.
    Cairnd {
        name: &'static str,
        settings: String,
    },
    Minio {
        osync: bool,
    },
}

impl Which {
    /// As it is without any setting.
    pub(crate) fn cairnd() -> Self {
        Self::cairnd_with("cairnd", "")
    }

    pub(crate) fn cairnd_with(name: &'static str, settings: &str) -> Self {
        let settings = settings.to_owned();
        Self::Cairnd { name, settings }
    }
}

/// A server that answers.
pub(crate) struct Peer {
    pub(crate) name: &'static str,
    pub(crate) is_ours: bool,
    server: Server,
    pub(crate) address: SocketAddr,
    internal: Option<SocketAddr>,
    pub(crate) signer: Signer,
    data: PathBuf,
}

impl Peer {
    /// Starts it on a folder of its own in `folder`, and makes the bucket.
    pub(crate) fn start(which: &Which, folder: &Path) -> Result<Self> {
        let folder = tempfile::Builder::new().prefix("s3-").tempdir_in(folder)?.keep();
        let peer = match which {
            Which::Cairnd { name, settings } => Self::start_cairnd(name, settings, &folder)?,
            Which::Minio { osync } => Self::start_minio(*osync, &folder)?,
        };
        // MinIO says that it is ready before it is.
        let begun = Instant::now();
        while let Err(error) = peer.client()?.create_bucket(BUCKET) {
            if begun.elapsed() > START_WITHIN {
                return Err(error);
            }
            std::thread::sleep(CONNECT_EVERY);
        }
        Ok(peer)
    }

    fn start_cairnd(name: &'static str, settings: &str, folder: &Path) -> Result<Self> {
        let (data, log, config) = (folder.join("data"), folder.join("log"), folder.join("cairnd.toml"));
        fs::write(&config, format!("[s3]\n{settings}\n"))?;
        let (address, internal) = (free_address()?, free_address()?);
        let mut command = Command::new(ours("cairnd")?);
        command.arg("--config").arg(config).arg("--data").arg(&data);
        for (name, address) in [
            ("--listen", free_address()?),
            ("--internal", internal),
            ("--s3", address),
        ] {
            command.arg(name).arg(address.to_string());
        }
        let server = Server::start(command, &log)?;
        let mut peer = Self {
            name,
            is_ours: true,
            server,
            address,
            internal: Some(internal),
            signer: Signer::new("", ""),
            data,
        };
        peer.wait_for("/health/ready", internal, &log)?;
        let told = fs::read_to_string(&log)?;
        let word = |name: &str| -> Result<String> {
            let (_, rest) = told.split_once(name).ok_or("cairnd has told no key")?;
            Ok(rest.split_whitespace().next().unwrap_or_default().to_owned())
        };
        peer.signer = Signer::new(&word("AWS_ACCESS_KEY_ID=")?, &word("AWS_SECRET_ACCESS_KEY=")?);
        Ok(peer)
    }

    fn start_minio(osync: bool, folder: &Path) -> Result<Self> {
        let (data, log, address) = (folder.join("data"), folder.join("log"), free_address()?);
        fs::create_dir(&data)?;
        let mut command = Command::new("minio");
        command
            .args(["server", "--quiet", "--address", &address.to_string()])
            .arg(&data)
            .env("MINIO_ROOT_USER", MINIO_KEY[0])
            .env("MINIO_ROOT_PASSWORD", MINIO_KEY[1])
            .env("MINIO_BROWSER", "off")
            .env("MINIO_UPDATE", "off")
            .env("MINIO_FS_OSYNC", if osync { "on" } else { "off" })
            .env("HOME", folder);
        let started = Server::start(command, &log);
        let server = started.map_err(|error| format!("{error}: CAIRN_FULL=1 tools/bootstrap test builds it"))?;
        let mut peer = Self {
            name: if osync { "MinIO, MINIO_FS_OSYNC=on" } else { "MinIO" },
            is_ours: false,
            server,
            address,
            internal: None,
            signer: Signer::new(MINIO_KEY[0], MINIO_KEY[1]),
            data,
        };
        peer.wait_for("/minio/health/ready", address, &log)?;
        Ok(peer)
    }

    fn wait_for(&mut self, path: &str, address: SocketAddr, log: &Path) -> Result<()> {
        let begun = Instant::now();
        let ready = |address| Connection::open(address).and_then(|mut connection| connection.get(path, None));
        while ready(address).is_err() {
            // Nobody tells when it is ready; its end is seen at once.
            if self.server.wait(None, CONNECT_EVERY)? || begun.elapsed() > START_WITHIN {
                return Err(format!("{} does not serve: {}", self.name, fs::read_to_string(log)?).into());
            }
        }
        Ok(())
    }

    pub(crate) fn client(&self) -> Result<Client> {
        Client::open(self.address, &self.signer)
    }

    /// A connection to the admin API, as whoever has the server's token. MinIO has none.
    pub(crate) fn api(&self) -> Result<Api> {
        Ok(Api {
            connection: Connection::open(self.internal.ok_or("it has no such API")?)?,
            token: fs::read_to_string(self.data.join("admin-token"))?.trim().to_owned(),
        })
    }

    /// Bytes of disk that it takes for all it has.
    pub(crate) fn disk(&self) -> Result<u64> {
        // It may be moving files meanwhile.
        let tries = (0..10).find_map(|_| size(&self.data).ok());
        Ok(tries.ok_or("the folder of a server changes all the time")?.disk)
    }

    /// A value that it shows; 0: it does not.
    pub(crate) fn metric(&self, name: &str) -> Result<f64> {
        let Some(internal) = self.internal else {
            return Ok(0.0);
        };
        let mut text = Vec::new();
        Connection::open(internal)?.get("/metrics", Some(&mut text))?;
        let text = String::from_utf8(text)?;
        let value = text
            .lines()
            .find_map(|line| line.strip_prefix(name)?.trim().parse().ok());
        Ok(value.unwrap_or(0.0))
    }

    /// Begins to measure.
    pub(crate) fn meter(&self) -> Result<Meter> {
        let pid = self.server.pid();
        Ok(Meter {
            pid,
            cpu: cpu_seconds(pid)?,
            peak: Peak::watch(pid),
        })
    }
}

/// A connection to the admin API.
pub(crate) struct Api {
    connection: Connection,
    token: String,
}

impl Api {
    /// The answer to a GET of what lies under `/api/v1/`.
    pub(crate) fn get(&mut self, path: &str) -> Result<String> {
        let token = &self.token;
        let head = format!("GET /api/v1/{path} HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer {token}\r\n\r\n");
        self.connection.send(head.as_bytes())?;
        let head = self.connection.head()?;
        let mut answer = Vec::new();
        self.connection.body(&head, &mut |bytes| {
            answer.extend_from_slice(bytes);
            Ok(())
        })?;
        let answer = String::from_utf8(answer)?;
        match head.status {
            200 => Ok(answer),
            status => Err(format!("GET {path}: {status} {answer}").into()),
        }
    }
}

/// What a server has used so far.
pub(crate) struct Meter {
    pid: u32,
    cpu: f64,
    peak: Peak,
}

impl Meter {
    /// Seconds of CPU, and the most anonymous memory, since then.
    pub(crate) fn end(self) -> Result<(f64, u64)> {
        let cpu = cpu_seconds(self.pid)? - self.cpu;
        Ok((cpu, self.peak.end()?))
    }
}
