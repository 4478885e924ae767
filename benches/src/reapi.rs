//! The Remote Execution API's cache beside bazel-remote and buildbox-casd, loaded by ghz: look-ups of 10 000 digests, batches of 64 KiB,
//! streams of 100 MB.
//!
//! All get the same blobs by the same calls, and their answers are compared before anything is measured. ghz takes most of the cores, so
//! what counts is the server's CPU time. Peers are those of the two that are on the PATH; bazel-remote, of which the goals are, is in no
//! registry.

use std::fs;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Instant;

use bytes::Bytes;
use cairn_index::BlobHasher;
use cairn_index::names::BlobFunction;
use cairn_proto::execution::batch_update_blobs_request::Request as Update;
use cairn_proto::execution::{BatchReadBlobsRequest, BatchUpdateBlobsRequest, Digest, FindMissingBlobsRequest};
use cairn_proto::google::bytestream::{ReadRequest, WriteRequest};
use prost::Message;

use crate::Result;
use crate::cdn::wait;
use crate::load::Connection;
use crate::process::{Server, cpu_seconds};
use crate::serve::{CONNECT_EVERY, START_WITHIN, free_address};
use crate::table::median;
use crate::tools::ours;

const BUCKET: &str = "main";
const CAS: &str = "build.bazel.remote.execution.v2.ContentAddressableStorage";
const STREAM: &str = "google.bytestream.ByteStream";
/// Digests of a look-up; every second is there.
const DIGESTS: usize = 10_000;
/// Blobs of a batch, of 64 KiB each.
const BATCH: usize = 48;
const MEDIUM_LEN: usize = 64 << 10;
const STREAM_LEN: usize = 100_000_000;
/// Bytes of a message of an upload.
const MESSAGE_LEN: usize = 1 << 20;

/// A server with the blobs in it.
struct Peer {
    name: &'static str,
    /// Ours alone has one.
    instance: &'static str,
    server: Server,
    address: SocketAddr,
}

/// What is measured.
struct Work {
    shown: &'static str,
    call: String,
    calls: usize,
    clients: usize,
    /// GiB that a call moves, where that is what counts.
    gib: f64,
    goal: f64,
}

/// What one run of ghz showed.
struct Shown {
    per_second: f64,
    cpu_per_call: f64,
}

/// Measures all servers with all calls.
///
/// - `share`: of the calls, 1.0 in a full run.
pub(crate) fn run(scratch: &Path, repeats: usize, share: f64) -> Result<String> {
    let folder = scratch.join("reapi");
    fs::create_dir_all(&folder)?;
    let blobs = Blobs::new();
    let mut peers = Vec::new();
    if is_there("bazel-remote") {
        peers.push(bazel_remote(&folder)?);
    }
    if is_there("buildbox-casd") {
        peers.push(casd(&folder)?);
    }
    if peers.is_empty() {
        return Err("neither bazel-remote nor buildbox-casd is on the PATH".into());
    }
    peers.push(cairnd(&folder)?);
    for peer in &peers {
        blobs.put(peer, &folder)?;
        blobs.compare(peer, &folder)?;
    }
    let gib = |bytes: usize| bytes as f64 / f64::from(1 << 30);
    let counted = |calls: f64| ((calls * share) as usize).max(8);
    let works = [
        Work {
            shown: "FindMissing of 10 000 digests",
            call: format!("{CAS}.FindMissingBlobs"),
            calls: counted(400.0),
            clients: 8,
            gib: 0.0,
            goal: 3.0,
        },
        Work {
            shown: "BatchRead of 48 blobs of 64 KiB",
            call: format!("{CAS}.BatchReadBlobs"),
            calls: counted(1000.0),
            clients: 8,
            gib: gib(BATCH * MEDIUM_LEN),
            goal: 2.0,
        },
        Work {
            shown: "Read of 100 MB",
            call: format!("{STREAM}.Read"),
            calls: counted(40.0),
            clients: 4,
            gib: gib(STREAM_LEN),
            goal: 1.0,
        },
    ];
    let mut text = format!(
        "\n### Remote Execution API\n\nLoaded by ghz on the same cores, page cache warm, median of {repeats}, interleaved. Goals are of bazel-remote.\n\n\
         | call | server | calls/s | server CPU-s per 1000 calls | CPU-s per GiB | ours per CPU-s / its | goal |\n|---|---|---|---|---|---|---|\n"
    );
    for work in &works {
        let mut shown: Vec<Vec<Shown>> = peers.iter().map(|_| Vec::new()).collect();
        for repeat in 0..=repeats {
            for (peer, shown) in peers.iter().zip(&mut shown) {
                let one = load(peer, &folder, work)?;
                // The first warms.
                if repeat > 0 {
                    shown.push(one);
                }
            }
        }
        let cpus: Vec<f64> = shown
            .iter()
            .map(|shown| median(shown.iter().map(|one| one.cpu_per_call).collect()))
            .collect();
        let ours = cpus.last().copied().unwrap_or(f64::NAN);
        for ((peer, shown), cpu) in peers.iter().zip(shown).zip(cpus) {
            let speed = median(shown.iter().map(|one| one.per_second).collect());
            let per_gib = if work.gib > 0.0 {
                format!("{:.2}", cpu / work.gib)
            } else {
                String::new()
            };
            let (ratio, goal) = match peer.instance.is_empty() {
                true => (format!("{:.2}", cpu / ours), format!("≥ {}", work.goal)),
                false => Default::default(),
            };
            text += &format!(
                "| {} | {} | {speed:.1} | {:.2} | {per_gib} | {ratio} | {goal} |\n",
                work.shown,
                peer.name,
                cpu * 1000.0
            );
        }
    }
    Ok(text)
}

/// What all servers hold.
struct Blobs {
    small: Vec<Bytes>,
    /// Of the same length, and not put.
    gone: Vec<Bytes>,
    medium: Vec<Bytes>,
    long: Bytes,
}

impl Blobs {
    fn new() -> Self {
        let mut random = fastrand::Rng::with_seed(1);
        let mut noise = |len: usize| -> Bytes { std::iter::repeat_with(|| random.u8(..)).take(len).collect() };
        Self {
            small: (0..DIGESTS / 2).map(|_| noise(100)).collect(),
            gone: (0..DIGESTS / 2).map(|_| noise(100)).collect(),
            medium: (0..BATCH).map(|_| noise(MEDIUM_LEN)).collect(),
            long: noise(STREAM_LEN),
        }
    }

    /// Puts them, and writes the requests that are measured to files.
    fn put(&self, peer: &Peer, folder: &Path) -> Result<()> {
        let instance_name = peer.instance.to_owned();
        for batch in [&self.small, &self.medium] {
            let update = |bytes: &Bytes| Update {
                digest: Some(digest(bytes)),
                data: bytes.clone(),
                ..Default::default()
            };
            let request = BatchUpdateBlobsRequest {
                instance_name: instance_name.clone(),
                requests: batch.iter().map(update).collect(),
                ..Default::default()
            };
            once(
                peer,
                folder,
                &format!("{CAS}.BatchUpdateBlobs"),
                &request.encode_to_vec(),
            )?;
        }
        let prefix = if peer.instance.is_empty() {
            String::new()
        } else {
            format!("{}/", peer.instance)
        };
        let long = digest(&self.long);
        let place = format!("blobs/{}/{}", long.hash, long.size_bytes);
        let mut messages = Vec::with_capacity(STREAM_LEN + (1 << 20));
        for (at, data) in self.long.chunks(MESSAGE_LEN).enumerate() {
            let message = WriteRequest {
                resource_name: format!("{prefix}uploads/bench/{place}"),
                write_offset: i64::try_from(at * MESSAGE_LEN)?,
                finish_write: (at + 1) * MESSAGE_LEN >= STREAM_LEN,
                data: self.long.slice_ref(data),
            };
            message.encode_length_delimited(&mut messages)?;
        }
        once(peer, folder, &format!("{STREAM}.Write"), &messages)?;
        let find = FindMissingBlobsRequest {
            instance_name: instance_name.clone(),
            blob_digests: self
                .small
                .iter()
                .zip(&self.gone)
                .flat_map(|(there, gone)| [digest(there), digest(gone)])
                .collect(),
            ..Default::default()
        };
        fs::write(request_file(peer, folder, "FindMissingBlobs"), find.encode_to_vec())?;
        let read = BatchReadBlobsRequest {
            instance_name,
            digests: self.medium.iter().map(|bytes| digest(bytes)).collect(),
            ..Default::default()
        };
        fs::write(request_file(peer, folder, "BatchReadBlobs"), read.encode_to_vec())?;
        let stream = ReadRequest {
            resource_name: format!("{prefix}{place}"),
            ..Default::default()
        };
        fs::write(request_file(peer, folder, "Read"), stream.encode_to_vec())?;
        Ok(())
    }

    /// All have to say the same, and it has to be right.
    fn compare(&self, peer: &Peer, folder: &Path) -> Result<()> {
        let find = FindMissingBlobsRequest::decode(&fs::read(request_file(peer, folder, "FindMissingBlobs"))?[..])?;
        let asked: Vec<String> = find.blob_digests.iter().map(json_of).collect();
        let told = ask(
            peer,
            &format!("{CAS}/FindMissingBlobs"),
            &format!(
                "{{\"instance_name\":\"{}\",\"blob_digests\":[{}]}}",
                peer.instance,
                asked.join(",")
            ),
        )?;
        let missing = self
            .gone
            .iter()
            .filter(|gone| told.contains(&digest(gone).hash))
            .count();
        if missing != self.gone.len() || told.matches("\"hash\"").count() != missing {
            return Err(format!("{} misses other blobs", peer.name).into());
        }
        let read = BatchReadBlobsRequest::decode(&fs::read(request_file(peer, folder, "BatchReadBlobs"))?[..])?;
        let asked: Vec<String> = read.digests.iter().map(json_of).collect();
        let told = ask(
            peer,
            &format!("{CAS}/BatchReadBlobs"),
            &format!(
                "{{\"instance_name\":\"{}\",\"digests\":[{}]}}",
                peer.instance,
                asked.join(",")
            ),
        )?;
        let (told, expected) = (data_of(&told)?, self.medium.concat());
        if told != expected {
            return Err(format!("{} reads other bytes", peer.name).into());
        }
        let stream = ReadRequest::decode(&fs::read(request_file(peer, folder, "Read"))?[..])?;
        let told = ask(
            peer,
            &format!("{STREAM}/Read"),
            &format!("{{\"resource_name\":\"{}\"}}", stream.resource_name),
        )?;
        if data_of(&told)? != self.long {
            return Err(format!("{} streams other bytes", peer.name).into());
        }
        Ok(())
    }
}

fn digest(bytes: &[u8]) -> Digest {
    let digest = BlobHasher::digest(BlobFunction::Sha256, bytes);
    Digest {
        hash: digest.hash().iter().map(|byte| format!("{byte:02x}")).collect(),
        size_bytes: i64::try_from(bytes.len()).unwrap_or(i64::MAX),
    }
}

fn json_of(digest: &Digest) -> String {
    format!("{{\"hash\":\"{}\",\"size_bytes\":{}}}", digest.hash, digest.size_bytes)
}

/// All bytes in the fields `data` of answers in JSON, in order.
fn data_of(answers: &str) -> Result<Vec<u8>> {
    use base64::Engine as _;
    let mut bytes = Vec::new();
    for piece in answers.split("\"data\": \"").skip(1) {
        let text = piece.split('"').next().unwrap_or_default();
        base64::engine::general_purpose::STANDARD.decode_vec(text, &mut bytes)?;
    }
    Ok(bytes)
}

fn request_file(peer: &Peer, folder: &Path, call: &str) -> PathBuf {
    folder.join(format!("{}-{call}", peer.name))
}

fn apis() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../gateway/proto/apis")
}

fn proto_of(call: &str) -> PathBuf {
    let file = if call.starts_with(STREAM) {
        "google/bytestream/bytestream.proto"
    } else {
        "build/bazel/remote/execution/v2/remote_execution.proto"
    };
    apis().join(file)
}

/// Asks once by grpcurl. Returns the answer in JSON.
fn ask(peer: &Peer, call: &str, request: &str) -> Result<String> {
    let file = tempfile::NamedTempFile::new()?;
    fs::write(file.path(), request)?;
    let output = Command::new("grpcurl")
        .args(["-plaintext", "-max-msg-sz", "67108864", "-import-path"])
        .arg(apis())
        .arg("-proto")
        .arg(proto_of(call).strip_prefix(apis())?)
        .args(["-d", "@", &peer.address.to_string(), call])
        .stdin(fs::File::open(file.path())?)
        .output()?;
    match output.status.success() {
        true => Ok(String::from_utf8(output.stdout)?),
        false => Err(format!("{call} of {}: {}", peer.name, String::from_utf8_lossy(&output.stderr)).into()),
    }
}

fn ghz(peer: &Peer, call: &str, file: &Path, calls: usize, clients: usize) -> Result<f64> {
    let output = Command::new("ghz")
        .args([
            "--insecure",
            "--format",
            "json",
            "--max-recv-message-size",
            "64MB",
            "--import-paths",
        ])
        .arg(apis())
        .arg("--proto")
        .arg(proto_of(call))
        .args(["--call", call, "--binary-file"])
        .arg(file)
        .args([
            "-n",
            &calls.to_string(),
            "-c",
            &clients.to_string(),
            &peer.address.to_string(),
        ])
        .output()?;
    let told = String::from_utf8_lossy(&output.stdout);
    if !output.status.success() || !told.contains(&format!("{{\"OK\":{calls}}}")) {
        let words = String::from_utf8_lossy(&output.stderr);
        let told: String = told.chars().take(500).collect();
        return Err(format!("{call} of {}: {words} {told}", peer.name).into());
    }
    let per_second = told
        .split("\"rps\":")
        .nth(1)
        .and_then(|rest| rest.split([',', '\n']).next());
    Ok(per_second.unwrap_or_default().trim().parse()?)
}

fn once(peer: &Peer, folder: &Path, call: &str, request: &[u8]) -> Result<()> {
    let file = folder.join("once");
    fs::write(&file, request)?;
    ghz(peer, call, &file, 1, 1).map(drop)
}

fn load(peer: &Peer, folder: &Path, work: &Work) -> Result<Shown> {
    let call = work.call.rsplit('.').next().unwrap_or_default();
    let cpu = cpu_seconds(peer.server.pid())?;
    let file = request_file(peer, folder, call);
    let per_second = ghz(peer, &work.call, &file, work.calls, work.clients)?;
    let cpu = cpu_seconds(peer.server.pid())? - cpu;
    Ok(Shown {
        per_second,
        cpu_per_call: cpu / work.calls as f64,
    })
}

fn is_there(program: &str) -> bool {
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path).any(|folder| folder.join(program).is_file())
}

fn bazel_remote(folder: &Path) -> Result<Peer> {
    let (address, http, cache) = (free_address()?, free_address()?, folder.join("bazel-remote"));
    let mut command = Command::new("bazel-remote");
    command
        .arg(format!("--grpc_address={address}"))
        .arg(format!("--http_address={http}"))
        .arg("--dir")
        .arg(&cache)
        .args(["--max_size=10", "--access_log_level=none"])
        .stdin(Stdio::null());
    let mut server = Server::start(command, &folder.join("bazel-remote.log"))?;
    wait(&mut server, address)?;
    Ok(Peer {
        name: "bazel-remote",
        instance: "",
        server,
        address,
    })
}

fn casd(folder: &Path) -> Result<Peer> {
    let (address, cache) = (free_address()?, folder.join("casd"));
    fs::create_dir_all(&cache)?;
    let mut command = Command::new("buildbox-casd");
    command
        .arg(format!("--bind={address}"))
        .arg(&cache)
        .stdin(Stdio::null());
    let mut server = Server::start(command, &folder.join("casd.log"))?;
    wait(&mut server, address)?;
    Ok(Peer {
        name: "buildbox-casd",
        instance: "",
        server,
        address,
    })
}

fn cairnd(folder: &Path) -> Result<Peer> {
    let (data, config) = (folder.join("data"), folder.join("cairnd.toml"));
    let settings =
        "[tokens.bench]\ntoken = \"a-token-of-the-bench-alone\"\nwritable = true\n[grpc]\nanonymous = \"bench\"\n";
    fs::write(&config, settings)?;
    let mut command = Command::new(ours("cairnd")?);
    command
        .arg("--config")
        .arg(config)
        .arg("--data")
        .arg(&data)
        .stdin(Stdio::null());
    let (public, address, s3) = (free_address()?, free_address()?, free_address()?);
    for (name, address) in [("--listen", public), ("--internal", address), ("--s3", s3)] {
        command.arg(name).arg(address.to_string());
    }
    let mut server = Server::start(command, &folder.join("cairnd.log"))?;
    for address in [public, address, s3] {
        wait(&mut server, address)?;
    }
    // It listens before it has made the token.
    let (file, begun) = (data.join("admin-token"), Instant::now());
    while !file.exists() && begun.elapsed() < START_WITHIN {
        std::thread::sleep(CONNECT_EVERY);
    }
    let token = fs::read_to_string(file)?;
    let body = format!("{{\"name\": \"{BUCKET}\", \"owner\": \"admin\"}}");
    let mut admin = Connection::open(address)?;
    let head = format!(
        "POST /api/v1/admin/buckets HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer {}\r\nContent-Type: application/json\r\n\
         Content-Length: {}\r\n\r\n{body}",
        token.trim(),
        body.len()
    );
    admin.send(head.as_bytes())?;
    let answer = admin.head()?;
    if !(200..300).contains(&answer.status) {
        return Err(format!("the bucket: {}", answer.status).into());
    }
    Ok(Peer {
        name: "cairnd",
        instance: BUCKET,
        server,
        address,
    })
}
