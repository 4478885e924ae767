//! MinIO, built by `tools/bootstrap` where `CAIRN_FULL` is set: the S3 server that most people run themselves.

use std::net::TcpStream;
use std::process::{Child, Command, Stdio};

use tempfile::TempDir;

use crate::{ACCESS_KEY, S3Server, SECRET_KEY, free_port};

/// A MinIO on a free port, with one bucket; ends with its value.
pub struct Minio {
    child: Child,
    port: u16,
    folder: TempDir,
}

impl Minio {
    /// One in the full run (`CAIRN_FULL`), none otherwise: its build takes a quarter of an hour.
    pub fn start_in_full_run() -> Option<Self> {
        std::env::var_os("CAIRN_FULL").map(|_| Self::start())
    }

    fn start() -> Self {
        // Somebody else may be faster with a port.
        for _ in 0..10 {
            let folder = tempfile::tempdir().unwrap();
            // A folder in its data folder is a bucket.
            std::fs::create_dir_all(folder.path().join("data").join(S3Server::BUCKET)).unwrap();
            let port = free_port();
            let child = Command::new("minio")
                .args(["server", "--quiet", "--address"])
                .arg(format!("127.0.0.1:{port}"))
                .arg(folder.path().join("data"))
                .env("MINIO_ROOT_USER", ACCESS_KEY)
                .env("MINIO_ROOT_PASSWORD", SECRET_KEY)
                .env("MINIO_BROWSER", "off")
                .env("MINIO_UPDATE", "off")
                .env("HOME", folder.path())
                .stdin(Stdio::null())
                .stdout(Stdio::null())
                .stderr(Stdio::null())
                .spawn()
                .expect("minio is on PATH: CAIRN_FULL=1 tools/bootstrap test builds it");
            let mut server = Self { child, port, folder };
            if server.is_ready() {
                return server;
            }
        }
        panic!("MinIO does not start");
    }

    fn is_ready(&mut self) -> bool {
        use std::io::{Read as _, Write as _};
        while self.child.try_wait().unwrap().is_none() {
            let Ok(mut stream) = TcpStream::connect(("127.0.0.1", self.port)) else {
                std::thread::yield_now();
                continue;
            };
            let mut answer = String::new();
            let asked = stream.write_all(b"GET /minio/health/ready HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n");
            if asked.and_then(|()| stream.read_to_string(&mut answer)).is_ok() && answer.starts_with("HTTP/1.1 200") {
                return true;
            }
        }
        false
    }

    /// `s3+http://…/BUCKET/place`.
    pub fn url(&self, place: &str) -> String {
        format!("s3+http://127.0.0.1:{}/{}/{place}", self.port, S3Server::BUCKET)
    }
}

impl Drop for Minio {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        // The folder goes after the process.
        let _ = &self.folder;
    }
}
