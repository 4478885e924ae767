//! Inputs: a real tree as tar, its second version with a tenth of it new, and bytes that do not compress.

use std::fs::File;
use std::io::{Read as _, Write as _};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use crate::Result;

/// Of every such stretch of the first version ...
const STRETCH: usize = 10 << 20;
/// ... the second version has this much replaced.
const EDIT: usize = 1 << 20;
/// Bytes inserted with each edit, so that offsets move too.
const INSERTED: usize = 4097;

/// The files all tools work on.
pub(crate) struct Inputs {
    /// Tar of real trees.
    pub(crate) tree: PathBuf,
    /// The same with about a tenth edited.
    pub(crate) edited: PathBuf,
    /// Random bytes.
    pub(crate) random: PathBuf,
}

impl Inputs {
    /// Writes the files into `folder`, `len` bytes each (the tar less where the trees hold less).
    pub(crate) fn make(folder: &Path, trees: &[PathBuf], len: u64) -> Result<Self> {
        let inputs = Self {
            tree: folder.join("tree.tar"),
            edited: folder.join("edited.tar"),
            random: folder.join("random.bin"),
        };
        tar(&inputs.tree, trees, len)?;
        edit(&inputs.tree, &inputs.edited)?;
        random(&inputs.random, len)?;
        Ok(inputs)
    }
}

fn tar(path: &Path, trees: &[PathBuf], len: u64) -> Result<()> {
    let mut child = Command::new("tar")
        .args([
            "--create",
            "--sort=name",
            "--ignore-failed-read",
            "--warning=none",
            "--absolute-names",
        ])
        .args(trees)
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .map_err(|error| format!("tar does not start: {error}"))?;
    let stdout = child.stdout.take().ok_or("tar has no output")?;
    std::io::copy(&mut stdout.take(len), &mut File::create(path)?)?;
    // It is still writing when the size is reached.
    let _ = child.kill();
    child.wait()?;
    Ok(())
}

/// Replaced stretches hold bytes from elsewhere in the file with every 61st changed: new chunks that compress as well.
fn edit(from: &Path, to: &Path) -> Result<()> {
    let input = File::open(from)?;
    let mut output = std::io::BufWriter::new(File::create(to)?);
    let mut random = fastrand::Rng::with_seed(61);
    let mut other = vec![0; EDIT];
    let mut stretch = Vec::with_capacity(STRETCH);
    loop {
        stretch.clear();
        (&input).take(STRETCH as u64).read_to_end(&mut stretch)?;
        if stretch.len() < EDIT {
            output.write_all(&stretch)?;
            output.flush()?;
            return Ok(());
        }
        let at = random.usize(0..=stretch.len() - EDIT);
        other.copy_from_slice(&stretch[stretch.len() - EDIT..]);
        other.reverse();
        for byte in other.iter_mut().step_by(61) {
            *byte = random.u8(..);
        }
        output.write_all(&stretch[..at])?;
        output.write_all(&other)?;
        output.write_all(&other[..INSERTED])?;
        output.write_all(&stretch[at + EDIT..])?;
    }
}

fn random(path: &Path, len: u64) -> Result<()> {
    let mut output = File::create(path)?;
    let mut random = fastrand::Rng::with_seed(3);
    let mut buffer = vec![0; 1 << 20];
    for _ in 0..len >> 20 {
        random.fill(&mut buffer);
        output.write_all(&buffer)?;
    }
    Ok(())
}
