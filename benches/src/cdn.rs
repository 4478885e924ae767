//! Whole objects over HTTP for caches: cairnd's CDN door beside nginx on the same bytes, one kept connection, page cache warm.
//!
//! What does not compress lies in raw blocks here and in files there, which nginx hands to the kernel (sendfile). What compresses is decoded
//! here, and there by `gunzip on` from `.gz` files. The load runs on the same cores, so the figure is CPU time of the server.

use std::fs;
use std::net::SocketAddr;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Instant;

use crate::Result;
use crate::load::Connection;
use crate::process::{Server, cpu_seconds};
use crate::s3::client::Client;
use crate::s3::sign::Signer;
use crate::serve::{CONNECT_EVERY, START_WITHIN, free_address};
use crate::table::median;
use crate::tools::ours;

const BUCKET: &str = "bench";
/// Bytes that are read of each object in a repeat.
const BYTES: u64 = 2 << 30;

/// What is served.
struct Object {
    name: &'static str,
    shown: &'static str,
    len: usize,
    compresses: bool,
}

const OBJECTS: [Object; 4] = [
    Object {
        name: "random-1m",
        shown: "1 MiB, incompressible",
        len: 1 << 20,
        compresses: false,
    },
    Object {
        name: "random-16m",
        shown: "16 MiB, incompressible",
        len: 16 << 20,
        compresses: false,
    },
    Object {
        name: "text-1m",
        shown: "1 MiB, compressible",
        len: 1 << 20,
        compresses: true,
    },
    Object {
        name: "text-16m",
        shown: "16 MiB, compressible",
        len: 16 << 20,
        compresses: true,
    },
];

/// A server that listens.
struct Peer {
    server: Server,
    address: SocketAddr,
    /// What stands before an object's name.
    prefix: String,
}

/// What repeats have shown.
#[derive(Default)]
struct Shown {
    mib_per_second: Vec<f64>,
    cpu_per_gib: Vec<f64>,
}

/// Measures both servers on all objects.
///
/// - `bytes_max`: bytes of each object that are read in a repeat, at most.
pub(crate) fn run(scratch: &Path, repeats: usize, bytes_max: u64) -> Result<String> {
    let folder = scratch.join("cdn");
    let files = folder.join("files");
    fs::create_dir_all(&files)?;
    for (seed, object) in OBJECTS.iter().enumerate() {
        let bytes = bytes(seed as u64, object);
        fs::write(files.join(object.name), &bytes)?;
        if object.compresses {
            gzip(&files.join(object.name))?;
        }
    }
    let peers = [nginx(&folder, &files)?, cairnd(&folder, &files)?];
    let mut text = format!(
        "\n### Objects over HTTP for caches\n\nOne kept connection, whole objects, page cache warm, median of {repeats}, interleaved. nginx: sendfile, \
         and for what compresses `gunzip on` over `.gz` files. The load runs on the same cores.\n\n\
         | object | server | MiB/s | server CPU-s per GiB | CPU / nginx | MiB/s / nginx |\n|---|---|---|---|---|---|\n"
    );
    for object in &OBJECTS {
        let expected = fs::read(files.join(object.name))?;
        let mut shown = [Shown::default(), Shown::default()];
        let rounds = (BYTES.min(bytes_max) / object.len as u64).max(1);
        for repeat in 0..=repeats {
            for (peer, shown) in peers.iter().zip(&mut shown) {
                let path = format!("{}{}", peer.prefix, object.name);
                let mut connection = Connection::open(peer.address)?;
                if repeat == 0 {
                    // Once without a clock, and compared.
                    let mut got = Vec::new();
                    connection.get(&path, Some(&mut got))?;
                    if got != expected {
                        return Err(format!("{path} came with other bytes").into());
                    }
                    continue;
                }
                let (cpu, begun) = (cpu_seconds(peer.server.pid())?, Instant::now());
                for _ in 0..rounds {
                    connection.get(&path, None)?;
                }
                let (cpu, wall) = (cpu_seconds(peer.server.pid())? - cpu, begun.elapsed().as_secs_f64());
                let gib = (rounds * object.len as u64) as f64 / f64::from(1 << 30);
                shown.mib_per_second.push(gib * 1024.0 / wall);
                shown.cpu_per_gib.push(cpu / gib);
            }
        }
        let [nginx, cairnd] = shown.map(|shown| (median(shown.mib_per_second), median(shown.cpu_per_gib)));
        for (name, (speed, cpu)) in [("nginx", nginx), ("cairnd", cairnd)] {
            text += &format!(
                "| {} | {name} | {speed:.0} | {cpu:.3} | {:.2} | {:.2} |\n",
                object.shown,
                cpu / nginx.1,
                speed / nginx.0
            );
        }
    }
    Ok(text)
}

fn bytes(seed: u64, object: &Object) -> Vec<u8> {
    let mut random = fastrand::Rng::with_seed(seed);
    if !object.compresses {
        return std::iter::repeat_with(|| random.u8(..)).take(object.len).collect();
    }
    let words: Vec<String> = (0..2000)
        .map(|_| (0..random.usize(2..9)).map(|_| random.lowercase()).collect())
        .collect();
    let mut text = Vec::with_capacity(object.len + 16);
    while text.len() < object.len {
        text.extend_from_slice(words[random.usize(..words.len())].as_bytes());
        text.push(b' ');
    }
    text.truncate(object.len);
    text
}

/// `file.gz` beside a file.
fn gzip(file: &Path) -> Result<()> {
    let output = Command::new("gzip").arg("-9").arg("-k").arg("-f").arg(file).output()?;
    match output.status.success() {
        true => Ok(()),
        false => Err(format!("gzip: {}", String::from_utf8_lossy(&output.stderr)).into()),
    }
}

fn nginx(folder: &Path, files: &Path) -> Result<Peer> {
    let (address, at) = (free_address()?, folder.join("nginx"));
    fs::create_dir_all(&at)?;
    let shown = at.display();
    let temporary: String = ["client_body", "proxy", "fastcgi", "uwsgi", "scgi"]
        .map(|kind| format!("{kind}_temp_path {shown}/{kind};\n"))
        .concat();
    let files = files.display();
    let config = format!(
        "daemon off;\nmaster_process off;\npid {shown}/pid;\nerror_log {shown}/error;\nevents {{}}\nhttp {{\n{temporary}access_log off;\n\
         sendfile on;\ntcp_nopush on;\nkeepalive_requests 100000000;\nserver {{ listen {address};\n\
         location /random {{ root {files}; }}\nlocation /text {{ root {files}; gzip_static always; gunzip on; }}\n}}\n}}\n"
    );
    fs::write(at.join("conf"), config)?;
    let mut command = Command::new("nginx");
    command
        .arg("-e")
        .arg(at.join("error"))
        .arg("-p")
        .arg(&at)
        .arg("-c")
        .arg(at.join("conf"));
    let mut server = Server::start(command, &at.join("log"))?;
    wait(&mut server, address)?;
    Ok(Peer {
        server,
        address,
        prefix: "/".to_owned(),
    })
}

fn cairnd(folder: &Path, files: &Path) -> Result<Peer> {
    let (data, log, config) = (
        folder.join("data"),
        folder.join("cairnd.log"),
        folder.join("cairnd.toml"),
    );
    // What compresses is to lie compressed, as it does once the server has been at rest.
    fs::write(&config, "[s3]\ndeferred = false\nframe_level = 3\n")?;
    let (public, internal, s3) = (free_address()?, free_address()?, free_address()?);
    let mut command = Command::new(ours("cairnd")?);
    command
        .arg("--config")
        .arg(config)
        .arg("--data")
        .arg(&data)
        .stdin(Stdio::null());
    for (name, address) in [("--listen", public), ("--internal", internal), ("--s3", s3)] {
        command.arg(name).arg(address.to_string());
    }
    let mut server = Server::start(command, &log)?;
    for address in [public, internal, s3] {
        wait(&mut server, address)?;
    }
    let begun = Instant::now();
    let told = loop {
        let told = fs::read_to_string(&log)?;
        if told.contains("AWS_SECRET_ACCESS_KEY=") && told.contains("try:") || begun.elapsed() > START_WITHIN {
            break told;
        }
        std::thread::sleep(CONNECT_EVERY);
    };
    let word = |name: &str| -> Result<String> {
        let (_, rest) = told.split_once(name).ok_or("cairnd has told no key")?;
        Ok(rest.split_whitespace().next().unwrap_or_default().to_owned())
    };
    let signer = Signer::new(&word("AWS_ACCESS_KEY_ID=")?, &word("AWS_SECRET_ACCESS_KEY=")?);
    let mut client = Client::open(s3, &signer)?;
    client.create_bucket(BUCKET)?;
    for object in &OBJECTS {
        client.put_bytes(BUCKET, object.name, &fs::read(files.join(object.name))?)?;
    }
    let token = fs::read_to_string(data.join("admin-token"))?;
    let body = "{\"settings\": {\"public_read\": [\"\"]}}";
    let mut admin = Connection::open(internal)?;
    let head = format!(
        "PATCH /api/v1/admin/buckets/{BUCKET} HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer {}\r\nContent-Type: application/json\r\n\
         Content-Length: {}\r\n\r\n{body}",
        token.trim(),
        body.len()
    );
    admin.send(head.as_bytes())?;
    let answer = admin.head()?;
    if answer.status != 200 {
        return Err(format!("the bucket's settings: {}", answer.status).into());
    }
    Ok(Peer {
        server,
        address: public,
        prefix: format!("/cdn/{BUCKET}/"),
    })
}

pub(crate) fn wait(server: &mut Server, address: SocketAddr) -> Result<()> {
    let begun = Instant::now();
    while std::net::TcpStream::connect(address).is_err() {
        // Nobody tells when it listens; its end is seen at once.
        if server.wait(None, CONNECT_EVERY)? || begun.elapsed() > START_WITHIN {
            return Err(format!("nothing listens at {address}").into());
        }
    }
    Ok(())
}
