//! make, extract and verify, every tool on the same files.
//!
//! All tools extract from and verify one store that casync made, so that none is helped by its own way to write frames.
//! casync uses one thread; the others take what cores there are. `cairn` syncs its chunks before it ends, the others do not;
//! so a make is measured a second time with nobody syncing. What earlier runs left dirty is written out before each run:
//! otherwise one tool's sync pays for another's bytes.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};

use crate::Result;
use crate::data::Inputs;
use crate::process::{Usage, measure};
use crate::table::{self, Line};
use crate::tools::{Start, Sync, Tool};

/// The prepared stores and indexes.
pub(crate) struct Blobs<'a> {
    folder: &'a Path,
    inputs: &'a Inputs,
    tools: &'a [Tool],
    repeats: usize,
    cold: bool,
    stores_made: AtomicUsize,
    /// Chunks of the tree and of its edited version, by casync.
    store: PathBuf,
    tree_index: PathBuf,
    edited_index: PathBuf,
    /// Chunks of the random bytes, by casync.
    random_store: PathBuf,
    random_index: PathBuf,
}

impl<'a> Blobs<'a> {
    /// Lets casync make the stores that the reading verbs start from.
    pub(crate) fn prepare(
        folder: &'a Path,
        inputs: &'a Inputs,
        tools: &'a [Tool],
        repeats: usize,
        cold: bool,
    ) -> Result<Self> {
        let blobs = Self {
            folder,
            inputs,
            tools,
            repeats,
            cold,
            stores_made: AtomicUsize::new(0),
            store: folder.join("store"),
            tree_index: folder.join("tree.caibx"),
            edited_index: folder.join("edited.caibx"),
            random_store: folder.join("random-store"),
            random_index: folder.join("random.caibx"),
        };
        for (store, index, input) in [
            (&blobs.store, &blobs.tree_index, &inputs.tree),
            (&blobs.store, &blobs.edited_index, &inputs.edited),
            (&blobs.random_store, &blobs.random_index, &inputs.random),
        ] {
            fs::create_dir_all(store)?;
            measure(Tool::Casync.make(store, index, input, Sync::Default)?)?;
        }
        Ok(blobs)
    }

    /// A store with the chunks of the tree and its edited version.
    pub(crate) fn store(&self) -> &Path {
        &self.store
    }

    /// The index of the tree in that store.
    pub(crate) fn tree_index(&self) -> &Path {
        &self.tree_index
    }

    /// Measures all rows and returns them as a section.
    pub(crate) fn run(&self) -> Result<String> {
        let mut lines = Vec::new();
        let (tree, random) = (&self.inputs.tree, &self.inputs.random);
        for (work, sync) in [
            ("make, all new", Sync::Default),
            ("make, all new, nobody syncs", Sync::Nobody),
        ] {
            self.row(&mut lines, work, "tree", tree, |tool| {
                self.make_new(tool, tree, &self.tree_index, sync)
            })?;
            self.row(&mut lines, work, "random", random, |tool| {
                self.make_new(tool, random, &self.random_index, sync)
            })?;
        }
        self.row(&mut lines, "make, all known", "tree", tree, |tool| {
            self.make_known(tool)
        })?;
        self.row(&mut lines, "extract", "tree", tree, |tool| {
            self.extract(tool, &self.store, &self.tree_index, tree, Start::Nothing)
        })?;
        self.row(&mut lines, "extract", "random", random, |tool| {
            self.extract(tool, &self.random_store, &self.random_index, random, Start::Nothing)
        })?;
        let seed = Start::Seed {
            blob: tree,
            index: &self.tree_index,
        };
        let edited = &self.inputs.edited;
        self.row(&mut lines, "extract, 90 % equal seed", "edited tree", edited, |tool| {
            self.extract(tool, &self.store, &self.edited_index, edited, seed)
        })?;
        self.row(
            &mut lines,
            "extract, in place over the old",
            "edited tree",
            edited,
            |tool| self.extract(tool, &self.store, &self.edited_index, edited, Start::InPlace),
        )?;
        let verified = self.random_store.as_path();
        self.row(&mut lines, "verify", "random", random, |tool| {
            self.verify(tool, verified, &self.random_index)
        })?;
        let tree_store = self.own_store_of_tree()?;
        self.row(&mut lines, "verify", "tree", tree, |tool| {
            self.verify(tool, &tree_store, &self.tree_index)
        })?;
        let cache = if self.cold {
            "dropped from the page cache before"
        } else {
            "read once before"
        };
        Ok(table::blobs("make, extract, verify", &lines, cache, self.repeats))
    }

    fn row(
        &self,
        lines: &mut Vec<Line>,
        work: &'static str,
        input: &'static str,
        file: &Path,
        run: impl Fn(Tool) -> Result<Usage>,
    ) -> Result<()> {
        let bytes = fs::metadata(file)?.len();
        let mut runs: Vec<Vec<Usage>> = vec![Vec::new(); self.tools.len()];
        for _ in 0..self.repeats {
            for (tool, runs) in self.tools.iter().zip(&mut runs) {
                rustix::fs::sync();
                let usage = run(*tool).map_err(|error| format!("{work}, {input}: {error}"))?;
                eprintln!(
                    "{work}, {input}, {}: {:.2} s, {:.2} s CPU",
                    tool.name(),
                    usage.wall,
                    usage.cpu
                );
                runs.push(usage);
            }
        }
        lines.extend(self.tools.iter().zip(runs).map(|(&tool, runs)| Line {
            work,
            input,
            bytes,
            tool,
            runs,
        }));
        Ok(())
    }

    fn make_new(&self, tool: Tool, input: &Path, expected: &Path, sync: Sync) -> Result<Usage> {
        // ext4 looks twice at inodes deleted in the last minutes: removing a store slows the next one's making several times.
        // So stores stay until the whole scratch folder goes, but not in memory: later runs would pay for finding free pages.
        let number = self.stores_made.fetch_add(1, Ordering::Relaxed);
        let (store, index) = (
            self.folder.join(format!("new-store-{number}")),
            self.folder.join("new.caibx"),
        );
        fs::create_dir(&store)?;
        self.warm_or_cold(&[input])?;
        let usage = measure(tool.make(&store, &index, input, sync)?)?;
        check_index(tool, &index, expected)?;
        // A store nobody can extract from would be quick to make.
        let output = self.folder.join("new.out");
        measure(Tool::Casync.extract(&store, &index, &output, Start::Nothing)?)?;
        same(&output, input)?;
        fs::remove_file(output)?;
        fs::remove_file(index)?;
        rustix::fs::sync();
        each_file(&store, &drop_cached)?;
        Ok(usage)
    }

    fn make_known(&self, tool: Tool) -> Result<Usage> {
        // desync cuts a little differently, so its chunks have to be there first; the others find all of theirs.
        let index = self.folder.join("known.caibx");
        if tool == Tool::Desync {
            measure(tool.make(&self.store, &index, &self.inputs.tree, Sync::Default)?)?;
        }
        self.warm_or_cold(&[&self.inputs.tree])?;
        let usage = measure(tool.make(&self.store, &index, &self.inputs.tree, Sync::Default)?)?;
        check_index(tool, &index, &self.tree_index)?;
        fs::remove_file(index)?;
        Ok(usage)
    }

    fn extract(&self, tool: Tool, store: &Path, index: &Path, expected: &Path, start: Start<'_>) -> Result<Usage> {
        let output = self.folder.join("extracted");
        if let Start::InPlace = start {
            fs::copy(&self.inputs.tree, &output)?;
        }
        self.warm_or_cold(&[store, &self.inputs.tree])?;
        let usage = measure(tool.extract(store, index, &output, start)?)?;
        same(&output, expected)?;
        fs::remove_file(output)?;
        Ok(usage)
    }

    fn verify(&self, tool: Tool, store: &Path, index: &Path) -> Result<Usage> {
        self.warm_or_cold(&[store])?;
        measure(tool.verify(store, index)?)
    }

    /// A store of the tree alone: casync's verify goes by the index, the others' by the folder.
    fn own_store_of_tree(&self) -> Result<PathBuf> {
        let (store, index) = (self.folder.join("tree-store"), self.folder.join("tree-again.caibx"));
        fs::create_dir(&store)?;
        measure(Tool::Casync.make(&store, &index, &self.inputs.tree, Sync::Default)?)?;
        fs::remove_file(index)?;
        Ok(store)
    }

    /// Reads the files once, or pushes them out of the page cache. A folder stands for all files below it.
    fn warm_or_cold(&self, paths: &[&Path]) -> Result<()> {
        for path in paths {
            each_file(path, &|file| if self.cold { drop_cached(file) } else { read(file) })?;
        }
        Ok(())
    }
}

/// Calls `visit` for a file, or for all files below a folder.
fn each_file(path: &Path, visit: &dyn Fn(&mut File) -> Result<()>) -> Result<()> {
    if !path.is_dir() {
        return visit(&mut File::open(path)?);
    }
    for entry in fs::read_dir(path)? {
        each_file(&entry?.path(), visit)?;
    }
    Ok(())
}

fn read(file: &mut File) -> Result<()> {
    std::io::copy(file, &mut std::io::sink())?;
    Ok(())
}

fn drop_cached(file: &mut File) -> Result<()> {
    file.sync_data()?;
    Ok(rustix::fs::fadvise(&*file, 0, None, rustix::fs::Advice::DontNeed)?)
}

/// Ours must be casync's index byte for byte. desync's cuts differ at chunks of exactly the minimum (dialect 2).
fn check_index(tool: Tool, index: &Path, expected: &Path) -> Result<()> {
    if tool == Tool::Desync {
        Ok(())
    } else {
        same(index, expected)
    }
}

/// Fails unless both files hold the same bytes.
pub(crate) fn same(path: &Path, expected: &Path) -> Result<()> {
    use std::io::{BufRead as _, BufReader};
    let (mut left, mut right) = (
        BufReader::with_capacity(1 << 20, File::open(path)?),
        BufReader::with_capacity(1 << 20, File::open(expected)?),
    );
    let mut offset = 0;
    loop {
        let (a, b) = (left.fill_buf()?, right.fill_buf()?);
        let len = a.len().min(b.len());
        if a[..len] != b[..len] || (len == 0 && a.len() != b.len()) {
            let (path, expected) = (path.display(), expected.display());
            return Err(format!("{path} differs from {expected} within 1 MiB after offset {offset}").into());
        }
        if len == 0 {
            return Ok(());
        }
        left.consume(len);
        right.consume(len);
        offset += len;
    }
}
