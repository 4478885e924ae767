//! Where a verb writes a file to.

use std::fs::File;
use std::io::Write;
use std::path::Path;

use crate::engine::{Reserving, name_file, new_file};
use crate::failure::{Failure, Outcome};

/// Lets `write` write to a file, which gets its name when it is whole; `-` is standard output. `write` is told what to call it.
///
/// Errors: the file cannot be made or named, and those of `write`.
pub(super) fn output<T>(path: &Path, write: impl FnOnce(&mut dyn Write, &Path) -> Outcome<T>) -> Outcome<T> {
    if path == Path::new("-") {
        return write(&mut std::io::stdout().lock(), Path::new("standard output"));
    }
    // A pipe or a device is written as it is.
    if std::fs::metadata(path).is_ok_and(|meta| !meta.is_file()) {
        let opened = File::options().write(true).open(path);
        let mut special = opened.map_err(|error| Failure::io(path.display(), "open", &error))?;
        return write(&mut special, path);
    }
    let mut new = new_file(path, None)?;
    let mut reserving = Reserving::new(new.as_file_mut());
    let written = write(&mut reserving, path)?;
    let finished = reserving.finish();
    finished.map_err(|error| Failure::io(path.display(), "end", &error))?;
    name_file(new, path)?;
    Ok(written)
}
