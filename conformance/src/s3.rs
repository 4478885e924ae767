//! `cairnd`'s S3 door for the tests: started on a folder, with the key that it prints once, asked by programs that we did not
//! write.

use std::io::{BufRead as _, BufReader};
use std::path::Path;
use std::process::{Child, Command, Stdio};

use crate::support::{built, end, ok, request};

/// A server with an S3 door; ends with its value.
pub struct Door {
    child: Child,
    /// `http://127.0.0.1:<port>`, or `https://localhost:<port>`.
    pub url: String,
    /// Port of the public listener: chunk and index roots.
    pub public: u16,
    /// Port of the internal one: metrics.
    pub internal: u16,
    /// Id of the first access key; empty where the folder had one already.
    pub key: String,
    /// Its secret.
    pub secret: String,
    /// Address of its metrics page.
    pub metrics: String,
    /// `http://127.0.0.1:<port>`: its admin API; empty where it has none.
    pub admin: String,
    /// What that asks for.
    pub admin_token: String,
}

impl Door {
    /// Starts on a data folder.
    ///
    /// - `settings`: variables of settings.
    pub fn start(data: &Path, settings: &[(&str, &str)]) -> Self {
        let mut child = Command::new(built("cairnd"))
            .arg("--data")
            .arg(data)
            .args([
                "--listen",
                "127.0.0.1:0",
                "--internal",
                "127.0.0.1:0",
                "--s3",
                "127.0.0.1:0",
            ])
            .env("CAIRN_S3__DOMAINS", "[\"s3.test\"]")
            .envs(settings.iter().copied())
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .expect("it was built");
        let lines = BufReader::new(child.stdout.take().expect("it is piped")).lines();
        let (mut url, mut key, mut secret, mut metrics) = (String::new(), String::new(), String::new(), String::new());
        let (mut public, mut internal) = (0, 0);
        let (mut admin, mut admin_token) = (String::new(), String::new());
        for line in lines.map_while(Result::ok) {
            if let Some(address) = line.trim().strip_prefix("s3 ") {
                url = address
                    .trim()
                    .trim_end_matches('/')
                    .replace("https://127.0.0.1", "https://localhost");
            }
            for (name, value) in [
                ("AWS_ACCESS_KEY_ID=", &mut key),
                ("AWS_SECRET_ACCESS_KEY=", &mut secret),
            ] {
                if let Some((_, found)) = line.split_once(name) {
                    *value = found.to_owned();
                }
            }
            for (name, port) in [("health ", &mut public), ("metrics ", &mut internal)] {
                if let Some(address) = line.trim().strip_prefix(name) {
                    *port = port_of(address);
                }
            }
            if let Some(address) = line.trim().strip_prefix("metrics ") {
                address.trim().clone_into(&mut metrics);
            }
            if let Some((address, file)) = line
                .trim()
                .strip_prefix("admin ")
                .and_then(|rest| rest.split_once("  token in "))
            {
                admin = address.trim().trim_end_matches("/api/v1/admin/").to_owned();
                let token = std::fs::read_to_string(file).expect("the server has made it");
                admin_token = token.trim().to_owned();
            }
            if line.trim() == "try:" {
                break;
            }
        }
        assert!(!url.is_empty(), "the server told no address of its S3 door");
        Self {
            child,
            url,
            public,
            internal,
            key,
            secret,
            metrics,
            admin,
            admin_token,
        }
    }

    /// A client of it: its key and region in the variables that all of them read, and nothing of the user's.
    pub fn client(&self, program: &str, home: &Path) -> Command {
        let mut command = Command::new(program);
        command
            .env("HOME", home)
            .env("CAIRN_S3", &self.url)
            .env("CAIRN_S3_METRICS", &self.metrics)
            .env("CAIRN_S3_PID", self.child.id().to_string())
            .env("CAIRN_ADMIN_API", &self.admin)
            .env("CAIRN_ADMIN_TOKEN", &self.admin_token)
            .env("AWS_ACCESS_KEY_ID", &self.key)
            .env("AWS_SECRET_ACCESS_KEY", &self.secret)
            .env("AWS_DEFAULT_REGION", "us-east-1")
            .env("AWS_EC2_METADATA_DISABLED", "true")
            .env_remove("AWS_CA_BUNDLE")
            .env_remove("AWS_PROFILE")
            .env_remove("AWS_SESSION_TOKEN")
            .stdin(Stdio::null());
        command
    }

    /// Id of its process.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// The key and its secret as the beginning of a URL's host: `id:secret@`.
    pub fn userinfo(&self) -> String {
        let secret = self.secret.replace('/', "%2F").replace('+', "%2B");
        format!("{}:{secret}@", self.key)
    }

    /// Where a bucket is a chunk root.
    pub fn store(&self, bucket: &str) -> String {
        format!("http://{}127.0.0.1:{}/store/{bucket}", self.userinfo(), self.public)
    }

    /// Where the index of an object is.
    pub fn index(&self, bucket: &str, name: &str) -> String {
        format!(
            "http://{}127.0.0.1:{}/index/{bucket}/{name}",
            self.userinfo(),
            self.public
        )
    }

    /// Runs a program of boto3, beside the suites' own module `door`; what it prints.
    pub fn script(&self, home: &Path, program: &str, arguments: &[&str]) -> String {
        let suites = Path::new(env!("CARGO_MANIFEST_DIR")).join("s3");
        let mut command = self.client("cairn-python", home);
        command.args(["-B", "-W", "ignore", "-c", program]).args(arguments);
        String::from_utf8(ok(command.current_dir(suites)).stdout).expect("text")
    }

    /// The value of a metric.
    pub fn metric(&self, name_and_labels: &str) -> u64 {
        let (status, _, page) = request(self.internal, "GET", "/metrics", &[], b"");
        assert_eq!(status, 200);
        let page = String::from_utf8(page).expect("text");
        let line = page
            .lines()
            .find_map(|line| line.strip_prefix(name_and_labels)?.strip_prefix(' '));
        line.map_or(0, |value| value.parse::<f64>().expect("a number") as u64)
    }

    /// Ends it as a power cut would.
    pub fn kill(mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// The port in `http://127.0.0.1:<port>/…`.
fn port_of(url: &str) -> u16 {
    let port = url.rsplit(':').next().and_then(|end| end.split('/').next());
    port.and_then(|port| port.parse().ok()).expect("an address")
}

impl Drop for Door {
    fn drop(&mut self) {
        end(&mut self.child);
    }
}
