//! A real sshd on a port of its own, with a key that it takes.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::support::{Server, free_port, ok};

/// An sshd that ends with this.
pub struct Sshd {
    /// The port that it listens on, at 127.0.0.1.
    pub port: u16,
    /// An ssh that needs no questions answered: for `CASYNC_SSH_PATH`. Without `-p` it goes to this sshd (casync has no ports).
    pub ssh: PathBuf,
    _server: Server,
}

impl Sshd {
    /// Starts one whose keys and settings are in `folder`.
    pub fn start(folder: &Path) -> Self {
        for key in ["host", "user"] {
            ok(Command::new("ssh-keygen")
                .args(["-q", "-t", "ed25519", "-N", "", "-f"])
                .arg(folder.join(key)));
        }
        fs::rename(folder.join("user.pub"), folder.join("authorized")).expect("renamed");
        let port = free_port();
        let config = format!(
            "ListenAddress 127.0.0.1\nPort {port}\nHostKey {0}/host\nAuthorizedKeysFile {0}/authorized\n\
             PermitRootLogin yes\nStrictModes no\nUsePAM no\nPidFile none\nPasswordAuthentication no\n\
             Subsystem sftp internal-sftp\n",
            folder.display()
        );
        fs::write(folder.join("sshd_config"), config).expect("written");
        fs::create_dir_all("/run/sshd").expect("sshd's own folder");
        let mut sshd = Command::new("/usr/sbin/sshd");
        sshd.arg("-D").arg("-e").arg("-f").arg(folder.join("sshd_config"));
        let server = Server::start(&mut sshd, port);
        let user = ok(Command::new("id").arg("-un")).stdout;
        let config = format!(
            "Host *\nUser {}\nIdentityFile {1}/user\nIdentitiesOnly yes\nStrictHostKeyChecking no\n\
             UserKnownHostsFile {1}/known\nLogLevel ERROR\n",
            String::from_utf8_lossy(&user).trim(),
            folder.display()
        );
        fs::write(folder.join("ssh_config"), config).expect("written");
        let ssh = script(
            folder,
            "ssh",
            &format!(
                "case \"$1\" in -p) ;; *) set -- -p {port} \"$@\" ;; esac\nexec ssh -F {}/ssh_config \"$@\"",
                folder.display()
            ),
        );
        Self {
            port,
            ssh,
            _server: server,
        }
    }
}

/// A shell script that can be run.
pub fn script(folder: &Path, name: &str, body: &str) -> PathBuf {
    let path = folder.join(name);
    fs::write(&path, format!("#!/bin/sh\n{body}\n")).expect("written");
    fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).expect("a mode");
    path
}
