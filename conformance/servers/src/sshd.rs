//! OpenSSH's own sshd with its sftp-server, on a port of its own, for whoever runs the test.

use std::fs;
use std::net::{SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use tempfile::TempDir;

use crate::free_port;

/// An sshd with a host key, and a key that it lets in.
pub struct Sshd {
    child: Child,
    port: u16,
    folder: TempDir,
}

impl Sshd {
    /// Starts it. Its files lie in a folder of its own, which tests may use too.
    pub fn start() -> Self {
        Self::start_with("internal-sftp")
    }

    /// - `sftp`: what is run for the SFTP subsystem: `internal-sftp`, with options, or a command.
    pub fn start_with(sftp: &str) -> Self {
        let mut said = String::new();
        // Somebody else may be faster with a port.
        for _ in 0..10 {
            let folder = tempfile::tempdir().unwrap();
            let port = free_port();
            let mut server = Self {
                child: spawn(folder.path(), port, sftp),
                port,
                folder,
            };
            if server.accepts() {
                return server;
            }
            said = fs::read_to_string(server.path("log")).unwrap_or_default();
        }
        panic!("sshd does not start: {said}");
    }

    fn accepts(&mut self) -> bool {
        let address = SocketAddr::from(([127, 0, 0, 1], self.port));
        while self.child.try_wait().unwrap().is_none() {
            if TcpStream::connect_timeout(&address, Duration::from_secs(1)).is_ok() {
                return true;
            }
            std::thread::yield_now();
        }
        false
    }

    /// Where it listens, on 127.0.0.1.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// A path in its folder.
    pub fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// The private key that is let in.
    pub fn identity(&self) -> PathBuf {
        self.path("user")
    }

    /// A `known_hosts` file with the server's key, for this port.
    pub fn known_hosts(&self) -> PathBuf {
        self.path("known_hosts")
    }

    /// Who runs the test, and is let in.
    pub fn user(&self) -> String {
        words(Command::new("id").arg("-un"))
    }

    /// `sftp://user@127.0.0.1:PORT` and the path of `name` in its folder.
    pub fn url(&self, name: &str) -> String {
        self.url_at(self.port, name)
    }

    /// The same through another port, that of something in between.
    pub fn url_at(&self, port: u16, name: &str) -> String {
        format!("sftp://{}@127.0.0.1:{port}{}", self.user(), self.path(name).display())
    }

    /// The server's public key, as `known_hosts` has it behind the host.
    pub fn host_key(&self) -> String {
        let line = fs::read_to_string(self.path("host.pub")).unwrap();
        line.split_ascii_whitespace().take(2).collect::<Vec<_>>().join(" ")
    }
}

impl Drop for Sshd {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn spawn(folder: &Path, port: u16, sftp: &str) -> Child {
    for key in ["host", "user"] {
        words(
            Command::new("ssh-keygen")
                .args(["-q", "-t", "ed25519", "-N", "", "-f"])
                .arg(folder.join(key)),
        );
    }
    let here = folder.display();
    let config = format!(
        "ListenAddress 127.0.0.1\nPort {port}\nHostKey {here}/host\nAuthorizedKeysFile {here}/user.pub\n\
         PermitRootLogin yes\nStrictModes no\nUsePAM no\nPidFile none\nPasswordAuthentication no\n\
         MaxStartups 100\nSubsystem sftp {sftp}\n"
    );
    fs::write(folder.join("sshd_config"), config).unwrap();
    let host = fs::read_to_string(folder.join("host.pub")).unwrap();
    fs::write(folder.join("known_hosts"), format!("[127.0.0.1]:{port} {host}")).unwrap();
    // Where the package's own scripts did not run.
    let _ = fs::create_dir_all("/run/sshd");
    Command::new("/usr/sbin/sshd")
        .args(["-D", "-E"])
        .arg(folder.join("log"))
        .arg("-f")
        .arg(folder.join("sshd_config"))
        .stdin(Stdio::null())
        .spawn()
        .expect("tools/bootstrap installs openssh-server")
}

/// What a command says on its standard output; it must succeed.
fn words(command: &mut Command) -> String {
    let output = command.stdin(Stdio::null()).output();
    let output = output.expect("tools/bootstrap installs openssh-client");
    assert!(
        output.status.success(),
        "{command:?}: {}",
        String::from_utf8_lossy(&output.stderr)
    );
    String::from_utf8_lossy(&output.stdout).trim().to_owned()
}
