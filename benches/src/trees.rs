//! Trees: archived, restored, brought up to date.
//!
//! The tree is what tar makes of the blobs' input, so it is the same size; its second version has every twentieth file changed.
//! casync's archives are restored by `cairn` and casync, desync's own by desync, which cannot read the other's attributes.

use std::fs::{self, File};
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicUsize, Ordering};

use crate::Result;
use crate::data::Inputs;
use crate::process::{Usage, measure};
use crate::table::{self, Line};
use crate::tools::Tool;

/// One file of so many differs in the second version.
const CHANGED: usize = 20;

struct Trees<'a> {
    folder: &'a Path,
    old: PathBuf,
    new: PathBuf,
    tools: &'a [Tool],
    repeats: usize,
    made: AtomicUsize,
}

/// Measures all rows and returns them as a section.
pub(crate) fn run(folder: &Path, inputs: &Inputs, tools: &[Tool], repeats: usize) -> Result<String> {
    let trees = Trees {
        folder,
        old: folder.join("old-tree"),
        new: folder.join("new-tree"),
        tools,
        repeats,
        made: AtomicUsize::new(0),
    };
    fs::create_dir(&trees.old)?;
    // The input is cut at its size, which tar does not like; what it could unpack is a tree all the same.
    let _ = Command::new("tar")
        .args(["--warning=none", "-C"])
        .arg(&trees.old)
        .arg("-xf")
        .arg(&inputs.tree)
        .stderr(std::process::Stdio::null())
        .status()?;
    let bytes = copy(&trees.old, &trees.new)?;
    let mut count = 0;
    change(&trees.new, &mut count)?;

    let mut lines = Vec::new();
    trees.row(&mut lines, "tar", bytes, |tool| trees.tar(tool))?;
    trees.row(&mut lines, "untar", bytes, |tool| trees.untar(tool))?;
    trees.row(&mut lines, "tar -i, all new", bytes, |tool| trees.index(tool))?;
    trees.row(&mut lines, "untar -i", bytes, |tool| trees.restore(tool))?;
    for tool in tools {
        let (store, index) = trees.stored(*tool, "new");
        fs::create_dir(&store)?;
        measure(tool.index_tree(&store, &index, &trees.new)?)?;
    }
    trees.row(&mut lines, "update, 5 % of the files changed", bytes, |tool| {
        trees.update(tool)
    })?;
    let title = "tar, untar, update of a tree";
    Ok(table::blobs(title, &lines, "read once before", repeats))
}

impl Trees<'_> {
    fn row(
        &self,
        lines: &mut Vec<Line>,
        work: &'static str,
        bytes: u64,
        run: impl Fn(Tool) -> Result<Usage>,
    ) -> Result<()> {
        let mut runs: Vec<Vec<Usage>> = vec![Vec::new(); self.tools.len()];
        for _ in 0..self.repeats {
            for (tool, runs) in self.tools.iter().zip(&mut runs) {
                rustix::fs::sync();
                let usage = run(*tool).map_err(|error| format!("{work}: {error}"))?;
                eprintln!("{work}, {}: {:.2} s, {:.2} s CPU", tool.name(), usage.wall, usage.cpu);
                runs.push(usage);
            }
        }
        lines.extend(self.tools.iter().zip(runs).map(|(&tool, runs)| Line {
            work,
            input: "tree",
            bytes,
            tool,
            runs,
        }));
        Ok(())
    }

    /// The archive of a tool: casync's is ours.
    fn archive(&self, tool: Tool) -> PathBuf {
        self.folder.join(format!("{}.catar", tool.name()))
    }

    fn stored(&self, tool: Tool, version: &str) -> (PathBuf, PathBuf) {
        let name = tool.name();
        (
            self.folder.join(format!("{name}-{version}-store")),
            self.folder.join(format!("{name}-{version}.caidx")),
        )
    }

    fn index(&self, tool: Tool) -> Result<Usage> {
        let number = self.made.fetch_add(1, Ordering::Relaxed);
        let (store, index) = self.stored(tool, &format!("old-{number}"));
        fs::create_dir(&store)?;
        let usage = measure(tool.index_tree(&store, &index, &self.old)?)?;
        // What the restoring starts from.
        let (last_store, last_index) = self.stored(tool, "old");
        for (link, to) in [(last_store, store), (last_index, index)] {
            let _ = fs::remove_file(&link);
            std::os::unix::fs::symlink(to, link)?;
        }
        Ok(usage)
    }

    fn restore(&self, tool: Tool) -> Result<Usage> {
        let target = self.target();
        fs::create_dir(&target)?;
        let (store, index) = self.stored(tool, "old");
        let usage = measure(tool.update_tree(&store, &index, &target)?)?;
        self.check(tool, &target, &self.old)?;
        Ok(usage)
    }

    fn tar(&self, tool: Tool) -> Result<Usage> {
        let archive = self.archive(tool);
        let usage = measure(tool.tar(&archive, &self.old)?)?;
        let theirs = self.archive(Tool::Casync);
        if tool == Tool::Cairn && theirs.exists() {
            crate::blobs::same(&archive, &theirs)?;
        }
        Ok(usage)
    }

    fn untar(&self, tool: Tool) -> Result<Usage> {
        // Never removed on the way: ext4 is slow to reuse inodes that were just deleted.
        let target = self.target();
        fs::create_dir(&target)?;
        let usage = measure(tool.untar(&self.archive(tool), &target)?)?;
        self.check(tool, &target, &self.old)?;
        Ok(usage)
    }

    fn update(&self, tool: Tool) -> Result<Usage> {
        let target = self.target();
        copy(&self.old, &target)?;
        rustix::fs::sync();
        let (store, index) = self.stored(tool, "new");
        let usage = measure(tool.update_tree(&store, &index, &target)?)?;
        self.check(tool, &target, &self.new)?;
        Ok(usage)
    }

    fn target(&self) -> PathBuf {
        let number = self.made.fetch_add(1, Ordering::Relaxed);
        self.folder.join(format!("restored-{number}"))
    }

    /// By casync's archive of both; desync leaves times of links behind, so its trees are compared by their files alone.
    fn check(&self, tool: Tool, target: &Path, expected: &Path) -> Result<()> {
        if tool == Tool::Desync {
            let mut diff = Command::new("diff");
            diff.args(["-r", "--no-dereference", "--brief"])
                .arg(target)
                .arg(expected);
            return measure(diff).map(drop);
        }
        let (one, other) = (self.folder.join("check.catar"), self.folder.join("expected.catar"));
        measure(Tool::Casync.tar(&one, target)?)?;
        measure(Tool::Casync.tar(&other, expected)?)?;
        crate::blobs::same(&one, &other)?;
        fs::remove_file(one)?;
        Ok(fs::remove_file(other)?)
    }
}

/// Copies a tree with everything; its size in bytes.
fn copy(from: &Path, to: &Path) -> Result<u64> {
    let mut cp = Command::new("cp");
    cp.arg("-a").arg(from).arg(to);
    measure(cp)?;
    size(from)
}

fn size(folder: &Path) -> Result<u64> {
    let mut bytes = 0;
    for entry in fs::read_dir(folder)? {
        let entry = entry?;
        let meta = entry.metadata()?;
        bytes += if meta.is_dir() {
            size(&entry.path())?
        } else {
            meta.len()
        };
    }
    Ok(bytes)
}

/// Adds to every twentieth file, in no order that matters.
fn change(folder: &Path, count: &mut usize) -> Result<()> {
    for entry in fs::read_dir(folder)? {
        let entry = entry?;
        let meta = entry.metadata()?;
        if meta.is_dir() {
            change(&entry.path(), count)?;
        } else if meta.is_file() {
            *count += 1;
            if count.is_multiple_of(CHANGED) {
                let mut file = File::options().append(true).open(entry.path())?;
                file.write_all(b"changed")?;
            }
        }
    }
    Ok(())
}
