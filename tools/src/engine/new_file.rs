//! A file that gets its name when it is whole: before that it has another one in the same folder, and goes with what failed.

use std::fs::Permissions;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;

use tempfile::NamedTempFile;

use super::Result;
use super::error::file;

/// The folder that a path is in.
pub(crate) fn folder_of(path: &Path) -> &Path {
    match path.parent() {
        Some(folder) if !folder.as_os_str().is_empty() => folder,
        _ => Path::new("."),
    }
}

/// A file for what will be at `path`; without `permissions` it has those of any new file.
///
/// Errors: the folder does not take it.
pub(crate) fn new_file(path: &Path, permissions: Option<Permissions>) -> Result<NamedTempFile> {
    tempfile::Builder::new()
        .prefix(".cairn-new-")
        // The user's umask takes its part of this.
        .permissions(permissions.unwrap_or(Permissions::from_mode(0o666)))
        .tempfile_in(folder_of(path))
        .map_err(file(path, "make a temporary file for"))
}

/// Gives the file its name, whatever has had it.
///
/// Errors: the folder does not take it.
pub(crate) fn name_file(new: NamedTempFile, path: &Path) -> Result<()> {
    let named = new.persist(path);
    named.map_err(|error| file(path, "rename the finished file to")(error.error))?;
    Ok(())
}
