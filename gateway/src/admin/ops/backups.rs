//! Backups: take one, list those that there are.

use cairn_identity::Permit;
use serde_json::{Value, json};

use crate::admin::backups::{Backup, BackupError};
use crate::admin::error::{AdminError, AdminResult, Code};
use crate::admin::request::{Answer, Ask};
use crate::admin::service::Core;
use crate::admin::shapes;
use crate::date::rfc3339;

/// Characters of a name, at most.
const NAME_LEN_MAX: usize = 64;

impl From<BackupError> for AdminError {
    fn from(error: BackupError) -> Self {
        match error {
            BackupError::Exists => Code::BackupExists,
            BackupError::Busy => Code::Busy,
            BackupError::Failed => Code::Internal,
        }
        .into()
    }
}

/// Those that there are, by name.
pub(in crate::admin) fn list(core: &Core, _permit: Permit, mut ask: Ask) -> AdminResult<Answer> {
    ask.end()?;
    let shown = core.backups().list()?.into_iter().map(show);
    Ok(Answer::ok(shapes::page("backups", shown.collect(), None)))
}

/// Takes one.
pub(in crate::admin) fn create(core: &Core, _permit: Permit, mut ask: Ask) -> AdminResult<Answer> {
    let name = ask.text("name")?;
    ask.end()?;
    if !is_name(&name) {
        return Err(AdminError::field(
            "name",
            "1 to 64 of a-z, A-Z, 0-9, '.', '_' and '-', the first a letter or digit",
        ));
    }
    Ok(Answer::created(show(core.backups().create(&name)?)))
}

fn show(backup: Backup) -> Value {
    json!({
        "name": backup.name,
        "taken_at": rfc3339(backup.taken_at.saturating_mul(1000)),
        "contents": backup.contents,
    })
}

/// Whether it is a plain name of a folder, whatever the file system.
fn is_name(name: &str) -> bool {
    name.len() <= NAME_LEN_MAX
        && name.starts_with(|first: char| first.is_ascii_alphanumeric())
        && name
            .chars()
            .all(|one| one.is_ascii_alphanumeric() || ".-_".contains(one))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_plain_names_of_folders() {
        for good in ["a", "2026-11-21T10.00", "before_upgrade", &"x".repeat(64)] {
            assert!(is_name(good), "{good}");
        }
        for bad in [
            "",
            ".",
            "..",
            ".hidden",
            "a/b",
            "a\\b",
            "ä",
            "a b",
            "a\0",
            "-x",
            &"x".repeat(65),
        ] {
            assert!(!is_name(bad), "{bad:?}");
        }
    }
}
