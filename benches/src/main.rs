//! The same work by `cairn`, casync and desync (and nginx, and MinIO), side by side, in one run, as a table.
//!
//! Repeats are interleaved (every tool once, then every tool again) and medians are shown, because the machine may be busy
//! with other things; for the same reason the figures to compare are CPU seconds, not seconds. Every result is checked: a
//! tool that is fast and wrong stops the run. The tables are printed and added to `benches/RESULTS.md`.

mod blobs;
mod cdn;
mod data;
mod far;
mod ingest;
mod kernels;
mod load;
mod mount;
mod objects;
mod packs;
mod places;
mod process;
mod pull;
mod reapi;
mod releases;
mod s3;
mod serve;
mod slow_disk;
mod table;
mod tools;
mod trees;
mod uploads;

use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Parser, ValueEnum};

use crate::tools::Tool;

type Result<T> = std::result::Result<T, Box<dyn std::error::Error>>;

/// Compares cairn with casync, desync and nginx on the same work.
#[derive(Debug, Parser)]
struct Arguments {
    /// MiB of each input
    #[arg(long, default_value_t = 1024)]
    size: u64,
    /// How often each measurement is taken; the median is shown
    #[arg(long, default_value_t = 3)]
    repeats: usize,
    /// Chunks in the index of the part places, about 60 bytes of disk each while they are written
    #[arg(long, default_value_t = 20_000_000)]
    rows: u64,
    /// Small chunks in the store of the part places, about 250 bytes of disk each
    #[arg(long, default_value_t = 5_000_000)]
    records: u64,
    /// Only these parts [default: all]
    #[arg(long, value_delimiter = ',')]
    only: Vec<Part>,
    /// Only these tools in the parts blobs, serve and mount [default: all]
    #[arg(long, value_delimiter = ',')]
    tools: Vec<Tool>,
    /// Directory trees that become the tar input, in this order, until the size is reached
    #[arg(long, value_delimiter = ',', default_values = ["/usr/lib", "/usr/share", "/usr/bin"])]
    trees: Vec<PathBuf>,
    /// Drop the files from the page cache before each run
    #[arg(long)]
    cold: bool,
    /// Milliseconds that a flush takes, of the disks that ingest into packs is measured on besides (needs root)
    #[arg(long, value_delimiter = ',')]
    flush_ms: Vec<u64>,
    /// GiB of memory to take first and hold to the end. A virtual machine gives free pages back to its host and pays for each
    /// that it takes again more than for a copy of the page, which falls on whoever comes first; with most memory held, files
    /// take the pages of files
    #[arg(long, default_value_t = 0)]
    hold_memory: usize,
    #[command(flatten)]
    s3: s3::Options,
    /// Folder for inputs, stores and outputs, about eight times the size [default: the temporary folder]
    #[arg(long)]
    scratch: Option<PathBuf>,
    /// File that the tables are added to [default: benches/RESULTS.md, if it is there; else none]
    #[arg(long)]
    results: Option<PathBuf>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Part {
    /// Chunker and digests, one core
    Kernels,
    /// Durable ingest beside one fsync a file
    Ingest,
    /// The pack store beside the flat one and the disk
    Packs,
    /// The object layer, without a door
    Objects,
    /// Where chunks lie: existence, reads and memory of a look-up
    Places,
    /// Ten releases of one package beside restic and borg: what they take of a disk. Needs a package index, restic and borg
    Releases,
    /// make, extract, verify
    Blobs,
    /// Chunks over HTTP
    Serve,
    /// tar, untar, update
    Trees,
    /// Chunks over SSH
    Far,
    /// An update over HTTP from a server 20 ms away, beside desync's
    Pull,
    /// Reads through mount-index
    Mount,
    /// Memory of the server while 64 clients upload; only when named
    Uploads,
    /// Objects over S3 beside MinIO; only when named
    S3,
    /// Objects over HTTP for caches beside nginx; only when named
    Cdn,
    /// The Remote Execution API beside buildbox-casd, loaded by ghz; only when named
    Reapi,
}

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().collect();
    if arguments.get(1).is_some_and(|first| first == far::AS_SSH) {
        return far::as_ssh(&arguments[2..]).unwrap_or(ExitCode::FAILURE);
    }
    match run(&Arguments::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("cairn-benches: {error}");
            ExitCode::FAILURE
        }
    }
}

fn run(arguments: &Arguments) -> Result<()> {
    let wanted = |part| arguments.only.is_empty() || arguments.only.contains(&part);
    let tools: Vec<Tool> = if arguments.tools.is_empty() {
        Tool::ALL.to_vec()
    } else {
        arguments.tools.clone()
    };
    let _held = hold(arguments.hold_memory << 30);
    let scratch = match &arguments.scratch {
        Some(folder) => tempfile::tempdir_in(folder)?,
        None => tempfile::tempdir()?,
    };
    let mut report = table::heading(arguments.size)?;
    print!("{report}");
    let mut add = |section: String| {
        print!("{section}");
        report += &section;
    };

    if wanted(Part::Kernels) {
        add(kernels::run(arguments.repeats)?);
    }
    if wanted(Part::Ingest) {
        add(ingest::run(scratch.path(), arguments.repeats)?);
    }
    if wanted(Part::Packs) {
        add(packs::run(scratch.path(), arguments.repeats, &arguments.flush_ms)?);
    }
    if wanted(Part::Objects) {
        add(objects::run(scratch.path(), arguments.repeats)?);
    }
    if wanted(Part::Places) {
        let (rows, records) = (arguments.rows, arguments.records);
        add(places::run(scratch.path(), rows, records, arguments.repeats)?);
    }
    // Only when asked for: it fetches from a package index.
    if arguments.only.contains(&Part::Releases) {
        add(releases::run(scratch.path())?);
    }
    // Only when asked for: it needs MinIO, whose build takes long.
    if arguments.only.contains(&Part::S3) {
        add(s3::run(scratch.path(), &arguments.s3, arguments.repeats)?);
    }
    if arguments.only.contains(&Part::Cdn) {
        add(cdn::run(scratch.path(), arguments.repeats, arguments.size << 20)?);
    }
    // Only when asked for: it needs ghz and buildbox-casd.
    if arguments.only.contains(&Part::Reapi) {
        let share = arguments.size as f64 / 1024.0;
        add(reapi::run(scratch.path(), arguments.repeats, share)?);
    }
    // Only when asked for: it needs seventeen times the size.
    if arguments.only.contains(&Part::Uploads) {
        add(uploads::run(scratch.path(), arguments.size << 20)?);
    }
    if [
        Part::Blobs,
        Part::Serve,
        Part::Mount,
        Part::Trees,
        Part::Far,
        Part::Pull,
    ]
    .into_iter()
    .any(&wanted)
    {
        let inputs = data::Inputs::make(scratch.path(), &arguments.trees, arguments.size << 20)?;
        if wanted(Part::Trees) {
            add(trees::run(scratch.path(), &inputs, &tools, arguments.repeats)?);
        }
        if wanted(Part::Far) {
            add(far::run(scratch.path(), &inputs.tree, arguments.repeats)?);
        }
        if wanted(Part::Pull) {
            add(pull::run(scratch.path(), &inputs, arguments.repeats)?);
        }
        if !(wanted(Part::Blobs) || wanted(Part::Serve) || wanted(Part::Mount)) {
            return finish(arguments, &report);
        }
        let bench = blobs::Blobs::prepare(scratch.path(), &inputs, &tools, arguments.repeats, arguments.cold)?;
        if wanted(Part::Blobs) {
            add(bench.run()?);
        }
        if wanted(Part::Serve) {
            add(serve::run(scratch.path(), bench.store(), &tools, arguments.repeats)?);
        }
        if wanted(Part::Mount) {
            add(mount::run(
                scratch.path(),
                bench.store(),
                bench.tree_index(),
                &inputs.tree,
                &tools,
                arguments.repeats,
            )?);
        }
    }

    finish(arguments, &report)
}

fn finish(arguments: &Arguments, report: &str) -> Result<()> {
    let default = PathBuf::from("benches/RESULTS.md");
    let results = arguments
        .results
        .clone()
        .or_else(|| default.exists().then_some(default));
    if let Some(results) = results {
        table::append(&results, report)?;
        println!("\nadded to {}", results.display());
    }
    Ok(())
}

/// So many bytes of new memory, with one byte written to each page.
fn hold(len: usize) -> Vec<u8> {
    const PAGE: usize = 4096;
    let mut memory = vec![0_u8; len];
    memory.iter_mut().step_by(PAGE).for_each(|byte| *byte = 1);
    memory
}
