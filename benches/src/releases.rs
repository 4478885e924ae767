//! Ten releases of one package, stored as a file a chunk, in packs, by restic and by borg: what each takes of a disk.
//!
//! The releases are wheels of Django, fetched by pip when this runs, each unpacked and made a tar with sorted names and one time.
//! All compress with zstd at its level 3 (restic's `auto` is its library's default, which stands for 3).

use std::fs;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::Result;
use crate::process::measure;
use crate::tools::{Sync, Tool, ours};

const PACKAGE: &str = "django";
const RELEASES: [&str; 10] = [
    "4.2.1", "4.2.2", "4.2.3", "4.2.4", "4.2.5", "4.2.6", "4.2.7", "4.2.8", "4.2.9", "4.2.10",
];

/// What a folder takes.
#[derive(Clone, Copy, Default)]
pub(crate) struct Size {
    /// Lengths of the files.
    pub(crate) bytes: u64,
    /// Blocks of the disk for files and folders.
    pub(crate) disk: u64,
}

pub(crate) fn run(folder: &Path) -> Result<String> {
    let folder = folder.join("releases");
    fs::create_dir(&folder)?;
    let tars = tars(&folder)?;
    let plain = tars
        .iter()
        .map(|tar| Ok(fs::metadata(tar)?.len()))
        .sum::<Result<u64>>()?;

    let ours_in = |store: &str| -> Result<(PathBuf, PathBuf)> {
        let (store, indexes) = (folder.join(store), folder.join(format!("{store}-indexes")));
        fs::create_dir(&indexes)?;
        if store.ends_with("packs") {
            let mut init = Command::new(ours("cairn")?);
            init.args(["store", "init"]).arg(&store);
            measure(init)?;
        } else {
            fs::create_dir(&store)?;
        }
        for (n, tar) in tars.iter().enumerate() {
            measure(Tool::Cairn.make(&store, &indexes.join(format!("{n}.caibx")), tar, Sync::Default)?)?;
        }
        Ok((store, indexes))
    };
    let (flat, flat_indexes) = ours_in("flat")?;
    let (packs, packs_indexes) = ours_in("packs")?;
    check(&folder, &packs, &packs_indexes, &tars)?;

    let restic = folder.join("restic");
    let restic_command = || {
        let mut command = Command::new("restic");
        command
            .env("RESTIC_PASSWORD", "bench")
            .env("RESTIC_CACHE_DIR", folder.join("restic-cache"));
        command.arg("--repo").arg(&restic);
        command
    };
    let mut init = restic_command();
    init.args(["init", "--repository-version", "2"]);
    measure(init)?;
    let borg = folder.join("borg");
    let borg_command = || {
        let mut command = Command::new("borg");
        command.env("BORG_BASE_DIR", folder.join("borg-home"));
        command.env("BORG_UNKNOWN_UNENCRYPTED_REPO_ACCESS_IS_OK", "yes");
        command
    };
    let mut init = borg_command();
    init.args(["init", "--encryption=none"]).arg(&borg);
    measure(init)?;
    for (n, tar) in tars.iter().enumerate() {
        let mut backup = restic_command();
        backup.args(["backup", "--compression", "auto"]).arg(tar);
        measure(backup)?;
        let mut create = borg_command();
        create.args(["create", "--compression", "zstd,3"]);
        create.arg(format!("{}::{n}", borg.display())).arg(tar);
        measure(create)?;
    }

    let all = |store: Size, indexes: Size| Size {
        bytes: store.bytes + indexes.bytes,
        disk: store.disk + indexes.disk,
    };
    let (flat, packs) = (
        all(size(&flat)?, size(&flat_indexes)?),
        all(size(&packs)?, size(&packs_indexes)?),
    );
    let (restic, borg) = (size(&restic)?, size(&borg)?);
    let mut text = format!(
        "\n### Ten releases of one package\n\n{PACKAGE} {} to {}, tars of {} MiB together, zstd level 3, indexes included.\n\n\
         | store | bytes | bytes on disk | packs / it, bytes | packs / it, on disk |\n|---|---|---|---|---|\n",
        RELEASES[0],
        RELEASES[9],
        plain >> 20
    );
    for (name, size) in [
        ("cairn, packs", packs),
        ("cairn, a file a chunk", flat),
        ("restic", restic),
        ("borg", borg),
    ] {
        text += &format!(
            "| {name} | {} | {} | {:.3} | {:.3} |\n",
            size.bytes,
            size.disk,
            packs.bytes as f64 / size.bytes as f64,
            packs.disk as f64 / size.disk as f64
        );
    }
    Ok(text)
}

/// The releases as tar files, oldest first.
pub(crate) fn tars(folder: &Path) -> Result<Vec<PathBuf>> {
    let wheels = folder.join("wheels");
    let mut tars = Vec::new();
    for release in RELEASES {
        let mut fetch = Command::new("python3");
        fetch.args([
            "-m",
            "pip",
            "download",
            "--quiet",
            "--no-deps",
            "--only-binary=:all:",
            "--dest",
        ]);
        fetch.arg(wheels.join(release)).arg(format!("{PACKAGE}=={release}"));
        measure(fetch)?;
        let wheel = fs::read_dir(wheels.join(release))?
            .next()
            .ok_or("pip fetched nothing")??
            .path();
        let tree = folder.join(format!("{PACKAGE}-{release}"));
        let mut unpack = Command::new("unzip");
        unpack.arg("-q").arg(wheel).arg("-d").arg(&tree);
        measure(unpack)?;
        let tar = folder.join(format!("{PACKAGE}-{release}.tar"));
        let mut pack = Command::new("tar");
        pack.args([
            "--create",
            "--sort=name",
            "--mtime=@0",
            "--owner=0",
            "--group=0",
            "--numeric-owner",
        ]);
        pack.arg("--file").arg(&tar).arg("--directory").arg(&tree).arg(".");
        measure(pack)?;
        fs::remove_dir_all(&tree)?;
        tars.push(tar);
    }
    Ok(tars)
}

fn check(folder: &Path, store: &Path, indexes: &Path, tars: &[PathBuf]) -> Result<()> {
    let copy = folder.join("copy");
    for (n, tar) in tars.iter().enumerate() {
        let mut extract = Command::new(ours("cairn")?);
        extract.args(["extract", "-s"]).arg(store);
        extract.arg(indexes.join(format!("{n}.caibx"))).arg(&copy);
        measure(extract)?;
        if fs::read(&copy)? != fs::read(tar)? {
            return Err("a release comes back with other bytes".into());
        }
        fs::remove_file(&copy)?;
    }
    Ok(())
}

pub(crate) fn size(path: &Path) -> Result<Size> {
    /// What `st_blocks` counts in.
    const BLOCK_LEN: u64 = 512;
    let meta = fs::symlink_metadata(path)?;
    let mut sum = Size {
        bytes: if meta.is_file() { meta.len() } else { 0 },
        disk: meta.blocks() * BLOCK_LEN,
    };
    if meta.is_dir() {
        for entry in fs::read_dir(path)? {
            let inner = size(&entry?.path())?;
            sum.bytes += inner.bytes;
            sum.disk += inner.disk;
        }
    }
    Ok(sum)
}
