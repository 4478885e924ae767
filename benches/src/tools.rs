//! How each tool is told to do the same work: sizes 16:64:256 KiB, SHA-512/256, zstd level 3 (the defaults of all three).

use std::path::{Path, PathBuf};
use std::process::Command;

use clap::ValueEnum;

use crate::Result;

/// A program that makes and extracts chunked blobs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Tool {
    Cairn,
    Casync,
    Desync,
}

/// When a make's chunks are durable.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Sync {
    /// As each tool does by default: `cairn` before it ends, the others when the system likes.
    Default,
    /// Nobody syncs.
    Nobody,
}

/// What an extract may use besides the store.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Start<'a> {
    /// Nothing.
    Nothing,
    /// Another blob and its index.
    Seed { blob: &'a Path, index: &'a Path },
    /// What the output file holds already.
    InPlace,
}

impl Tool {
    pub(crate) const ALL: [Self; 3] = [Self::Cairn, Self::Casync, Self::Desync];

    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Cairn => "cairn",
            Self::Casync => "casync",
            Self::Desync => "desync",
        }
    }

    fn command(self) -> Result<Command> {
        Ok(match self {
            Self::Cairn => Command::new(ours("cairn")?),
            Self::Casync | Self::Desync => Command::new(self.name()),
        })
    }

    /// Cuts `input`, puts its chunks into `store` (a folder that is there) and writes `index`.
    pub(crate) fn make(self, store: &Path, index: &Path, input: &Path, sync: Sync) -> Result<Command> {
        let mut command = self.command()?;
        command.arg("make");
        match self {
            Self::Casync => command.arg("--store").arg(store),
            Self::Cairn | Self::Desync => command.arg("-s").arg(store),
        };
        if self == Self::Cairn && sync == Sync::Nobody {
            command.args(["--sync", "none"]);
        }
        command.arg(index).arg(input);
        Ok(command)
    }

    /// Writes the blob of `index` to `output`.
    pub(crate) fn extract(self, store: &Path, index: &Path, output: &Path, start: Start<'_>) -> Result<Command> {
        let mut command = self.command()?;
        command.arg("extract");
        match self {
            Self::Casync => {
                command.arg("--store").arg(store);
                match start {
                    Start::Nothing => {}
                    Start::Seed { blob, .. } => {
                        command.arg("--seed").arg(blob);
                    }
                    // casync fails ("stale file handle") when its seed is the file it writes, so it fetches everything.
                    Start::InPlace => {
                        command.arg("--seed-output=no");
                    }
                }
            }
            Self::Cairn | Self::Desync => {
                command.arg("-s").arg(store);
                match start {
                    Start::Nothing => {}
                    Start::Seed { blob, index } => {
                        command
                            .arg("--seed")
                            .arg(format!("{}:{}", index.display(), blob.display()));
                    }
                    Start::InPlace => {
                        command.arg("-k");
                    }
                }
            }
        }
        command.arg(index).arg(output);
        Ok(command)
    }

    /// Writes the archive of a folder.
    pub(crate) fn tar(self, archive: &Path, tree: &Path) -> Result<Command> {
        let mut command = self.command()?;
        command.arg(if self == Self::Casync { "make" } else { "tar" });
        command.arg(archive).arg(tree);
        Ok(command)
    }

    /// Restores an archive into a folder that is there.
    pub(crate) fn untar(self, archive: &Path, target: &Path) -> Result<Command> {
        let mut command = self.command()?;
        command.arg(if self == Self::Casync { "extract" } else { "untar" });
        command.arg(archive).arg(target);
        Ok(command)
    }

    /// Cuts the archive of a folder into a store, with its index.
    pub(crate) fn index_tree(self, store: &Path, index: &Path, tree: &Path) -> Result<Command> {
        let mut command = self.command()?;
        match self {
            Self::Casync => command.args(["make", "--store"]).arg(store),
            Self::Cairn | Self::Desync => command.args(["tar", "-i", "-s"]).arg(store),
        };
        command.arg(index).arg(tree);
        Ok(command)
    }

    /// Makes a folder the indexed tree, whatever is in it.
    pub(crate) fn update_tree(self, store: &Path, index: &Path, target: &Path) -> Result<Command> {
        let mut command = self.command()?;
        match self {
            Self::Casync => command.args(["extract", "--store"]).arg(store),
            Self::Cairn | Self::Desync => command.args(["untar", "-i", "-s"]).arg(store),
        };
        command.arg(index).arg(target);
        Ok(command)
    }

    /// Reads and checks every chunk. casync has no such verb: it digests the blob of `index`, which decodes and checks every
    /// chunk of it and hashes the whole once more.
    pub(crate) fn verify(self, store: &Path, index: &Path) -> Result<Command> {
        let mut command = self.command()?;
        match self {
            Self::Casync => command.args(["digest", "--store"]).arg(store).arg(index),
            Self::Cairn | Self::Desync => command.args(["verify", "-s"]).arg(store),
        };
        Ok(command)
    }
}

/// A program of this workspace, built beside this one.
pub(crate) fn ours(name: &str) -> Result<PathBuf> {
    let path = std::env::current_exe()?.with_file_name(name);
    if path.exists() {
        return Ok(path);
    }
    Err(format!("{name} is not built: cargo build --release -p {name}").into())
}
