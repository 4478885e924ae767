//! S3 over HTTP: cairnd and, in the same run and interleaved, MinIO; each row of issue 6 as a piece of work with its goal.
//!
//! Servers and load share the machine's cores, so the figures to compare are CPU seconds of the server; those of the load are told
//! apart. Bodies are not signed (`UNSIGNED-PAYLOAD`) on either side. All that is read is compared with what was sent.

mod body;
pub(crate) mod client;
mod large;
mod many;
mod rebuild;
mod report;
mod search;
mod servers;
pub(crate) mod sign;
mod work;

use std::path::Path;

use clap::{Args, ValueEnum};

use crate::Result;
use body::{Bodies, Kind};
use report::Report;
use servers::{Peer, Which};
use work::{Load, Operation};

/// What of S3 is measured, and how much of it.
#[derive(Clone, Debug, Args)]
pub(crate) struct Options {
    /// Only this of the part s3 [default: all but load]
    #[arg(long, value_delimiter = ',')]
    s3_work: Vec<Work>,
    /// The other server
    #[arg(long, default_value = "minio")]
    s3_peer: PeerKind,
    /// MiB of each run with large objects
    #[arg(long, default_value_t = 256)]
    s3_mib: u64,
    /// Operations of each run with small ones
    #[arg(long, default_value_t = 10_000)]
    s3_small: u64,
    /// Keys that both servers list
    #[arg(long, default_value_t = 20_000)]
    s3_keys: u64,
    /// Keys that only cairnd lists, besides; 0: it does not
    #[arg(long, default_value_t = 0)]
    s3_many_keys: u64,
    /// Parts of 5 MiB of the upload that is completed
    #[arg(long, default_value_t = 100)]
    s3_parts: u64,
    /// Clients of the work memory
    #[arg(long, default_value_t = 1000)]
    s3_memory_clients: usize,
    /// Objects that are searched, and of the index that is rebuilt
    #[arg(long, default_value_t = 50_000)]
    s3_rows: u64,
    /// Seconds for which nothing is asked before disks are looked at
    #[arg(long, default_value_t = 60)]
    s3_idle: u64,
    /// Of the work load: what is asked for
    #[arg(long, default_value = "mixed")]
    s3_operation: Operation,
    /// Of the work load: bodies
    #[arg(long, default_value = "text")]
    s3_bodies: Kind,
    /// Of the work load: bytes of an object, 1 KiB to 1 GiB
    #[arg(long, default_value_t = 64 << 10)]
    s3_len: u64,
    /// Of the work load: clients at once
    #[arg(long, default_value_t = 16)]
    s3_clients: usize,
    /// Of the work load: operations
    #[arg(long, default_value_t = 10_000)]
    s3_count: u64,
    /// Of the work load: operations a second; without it the next is asked for when one is answered
    #[arg(long)]
    s3_rate: Option<f64>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Work {
    /// PUT of text of 16 MiB, new and repeated, and what it takes of the disk
    Text,
    /// PUT of bytes of 16 MiB that do not compress
    Random,
    /// GET of 16 MiB: decoded, from the cache of plain chunks, not compressed
    Get,
    /// PUT and GET of 4 KiB
    Small,
    /// Listings, and HEAD with all those keys in place
    List,
    /// Ten releases of a package; needs a package index
    Releases,
    /// The end of a long upload in parts
    Complete,
    /// Memory while a thousand clients put 8 MiB each
    Memory,
    /// The index layer, without a door: made again from the packs, and searched
    Rebuild,
    /// Searches over HTTP, by each thing that can be asked for
    Search,
    /// One load as `--s3-operation` and the others after it say; only when named
    Load,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum PeerKind {
    Minio,
    /// With `MINIO_FS_OSYNC=on`.
    MinioOsync,
    None,
}

/// Measures what `options` says.
pub(crate) fn run(folder: &Path, options: &Options, repeats: usize) -> Result<String> {
    let folder = folder.join("s3");
    std::fs::create_dir(&folder)?;
    let bench = Bench {
        folder: &folder,
        options,
        repeats,
    };
    let mut report = Report::default();
    let load = std::fs::read_to_string("/proc/loadavg")?;
    let before = load.split_whitespace().next().unwrap_or_default().to_owned();
    for work in Work::value_variants() {
        let is_wanted = match options.s3_work.is_empty() {
            true => *work != Work::Load,
            false => options.s3_work.contains(work),
        };
        if !is_wanted {
            continue;
        }
        match work {
            Work::Text => large::text(&bench, &mut report)?,
            Work::Random => large::random(&bench, &mut report)?,
            Work::Get => large::get(&bench, &mut report)?,
            Work::Small => many::small(&bench, &mut report)?,
            Work::List => many::list(&bench, &mut report)?,
            Work::Releases => large::releases(&bench, &mut report)?,
            Work::Complete => large::complete(&bench, &mut report)?,
            Work::Memory => many::memory(&bench, &mut report)?,
            Work::Rebuild => rebuild::run(&bench, &mut report)?,
            Work::Search => search::run(&bench, &mut report)?,
            Work::Load => free(&bench, &mut report)?,
        }
    }
    Ok(report.section(&before, repeats, options.s3_peer != PeerKind::None))
}

/// What all work needs.
pub(crate) struct Bench<'a> {
    folder: &'a Path,
    options: &'a Options,
    repeats: usize,
}

impl Bench<'_> {
    /// The server that ours is held to, if there is one.
    fn other(&self) -> Option<Which> {
        match self.options.s3_peer {
            PeerKind::Minio => Some(Which::Minio { osync: false }),
            PeerKind::MinioOsync => Some(Which::Minio { osync: true }),
            PeerKind::None => None,
        }
    }

    /// Starts some of ours and the other one.
    fn start(&self, ours: &[Which]) -> Result<Vec<Peer>> {
        let all = ours.iter().cloned().chain(self.other());
        all.map(|which| Peer::start(&which, self.folder)).collect()
    }
}

/// One load, as the options say.
fn free(bench: &Bench<'_>, report: &mut Report) -> Result<()> {
    let options = bench.options;
    let bodies = Bodies::new(options.s3_bodies);
    let peers = bench.start(&[Which::cairnd()])?;
    // What is read is put first.
    const OBJECTS: u64 = 1000;
    let objects = OBJECTS.min(options.s3_count);
    let load = Load {
        operation: options.s3_operation,
        clients: options.s3_clients,
        count: options.s3_count,
        objects,
        keys_per_folder: 0,
        prefix: "load",
        first: 0,
        len: options.s3_len,
        part_len: 5 << 20,
        bodies: &bodies,
        rate: options.s3_rate,
    };
    let mut runs = report::Runs::default();
    for peer in &peers {
        let (operation, count) = match options.s3_operation {
            // Each is deleted once.
            Operation::Delete => (Operation::Put, options.s3_count),
            Operation::Put | Operation::Multipart => (Operation::Put, 0),
            _ => (Operation::Put, objects),
        };
        work::run(
            peer,
            &Load {
                operation,
                count,
                rate: None,
                ..load
            },
        )?;
    }
    for _ in 0..bench.repeats {
        for peer in &peers {
            runs.add(peer.name, work::run(peer, &load)?);
        }
        if options.s3_operation == Operation::Delete {
            break;
        }
    }
    let loop_kind = options
        .s3_rate
        .map_or("closed loop".to_owned(), |rate| format!("{rate} a second"));
    report.table(
        &format!(
            "{:?}, {:?}, {} bytes, {} clients, {loop_kind}",
            options.s3_operation, options.s3_bodies, options.s3_len, options.s3_clients
        ),
        &runs,
    );
    Ok(())
}
