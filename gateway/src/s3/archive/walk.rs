//! A page of the keys inside an archive, in their order, without looking at what lies before it.

use cairn_index::names::{List, ListPage, ListStart, Listed, ListedObject, OBJECT_KEY_LEN_MAX, ObjectKey};

use super::{Archive, Directory, Seen};
use crate::s3::error::{Code, S3Result};

/// Entries looked at for one page, but for those of the last directory: a page may end early for them.
const LOOKED_AT_MAX: usize = 100_000;

/// Lists what `list.prefix` leads to; its first `inside` bytes are the archive's key and the `/` behind it.
pub(super) fn list(archive: &Archive, inside: usize, list: &List<'_>) -> S3Result<ListPage<ListedObject>> {
    let mut walk = Walk {
        archive,
        list,
        page: ListPage {
            entries: Vec::new(),
            next: None,
        },
        looked_at: 0,
        passed: None,
    };
    if list.limit == 0 {
        return Ok(walk.page);
    }
    // Whatever begins so is in this directory.
    let path_len = list.prefix.rfind('/').map_or(inside, |at| at + 1).max(inside);
    let path = &list.prefix[..path_len];
    if let Some(directory) = archive.directory(&path[inside..])? {
        walk.directory(directory, path)?;
    }
    Ok(walk.page)
}

struct Walk<'a> {
    archive: &'a Archive,
    list: &'a List<'a>,
    page: ListPage<ListedObject>,
    looked_at: usize,
    /// All up to this is in the page, or has nothing for it.
    passed: Option<ListStart>,
}

/// Whether there is room for more.
#[derive(PartialEq, Eq)]
enum Flow {
    GoOn,
    Full,
}

impl Walk<'_> {
    /// - `path`: of the directory as a key, with `/` behind.
    fn directory(&mut self, directory: Directory, path: &str) -> S3Result<Flow> {
        if self.looked_at > LOOKED_AT_MAX {
            // The next page begins here, unless this one has come no further than it began.
            let Some(passed) = self.passed.take() else {
                return Err(
                    Code::ArchiveUnreadable.with("Reason", "too many entries on the way to the first that is listed")
                );
            };
            self.page.next = Some(passed);
            return Ok(Flow::Full);
        }
        let entries = self.archive.entries(directory)?;
        self.looked_at += entries.len();
        for entry in entries.iter() {
            let key = format!("{path}{}", entry.name);
            let is_directory = matches!(entry.seen, Seen::Directory(_));
            if key.len() > OBJECT_KEY_LEN_MAX
                || !key.starts_with(self.list.prefix)
                || is_behind(&self.list.start, &key, is_directory)
            {
                continue;
            }
            let (flow, passed) = match &entry.seen {
                Seen::Directory(_) if self.list.delimiter == "/" => {
                    (self.push(Listed::Prefix(key.clone()))?, ListStart::AfterPrefix(key))
                }
                Seen::Directory(directory) => (self.directory(*directory, &key)?, ListStart::AfterPrefix(key)),
                Seen::File(file) => match self.common_prefix(&key) {
                    Some(prefix) => {
                        let prefix = prefix.to_owned();
                        let is_new = self.page.entries.last() != Some(&Listed::Prefix(prefix.clone()));
                        let flow = match is_new {
                            true => self.push(Listed::Prefix(prefix))?,
                            false => Flow::GoOn,
                        };
                        (flow, ListStart::After(key))
                    }
                    None => {
                        let listed = ListedObject {
                            key: ObjectKey::new(key.as_str())?,
                            version: self.archive.version_of(file)?,
                        };
                        (self.push(Listed::Item(listed))?, ListStart::After(key))
                    }
                },
            };
            if flow == Flow::Full {
                return Ok(Flow::Full);
            }
            self.passed = Some(passed);
        }
        Ok(Flow::GoOn)
    }

    /// What a key begins with up to the delimiter behind the prefix, for delimiters that are not the path's own.
    fn common_prefix<'k>(&self, key: &'k str) -> Option<&'k str> {
        let delimiter = self.list.delimiter;
        if delimiter.is_empty() {
            return None;
        }
        let behind = key.get(self.list.prefix.len()..)?;
        let at = behind.find(delimiter)?;
        key.get(..self.list.prefix.len() + at + delimiter.len())
    }

    fn push(&mut self, entry: Listed<ListedObject>) -> S3Result<Flow> {
        if self.page.entries.len() < self.list.limit {
            self.page.entries.push(entry);
            return Ok(Flow::GoOn);
        }
        self.page.next = match self.page.entries.last() {
            Some(Listed::Item(last)) => Some(ListStart::After(last.key.as_str().to_owned())),
            Some(Listed::Prefix(prefix)) => Some(ListStart::AfterPrefix(prefix.clone())),
            None => None,
        };
        Ok(Flow::Full)
    }
}

/// Whether a key, or all below a directory, lies before the start of the page.
fn is_behind(start: &ListStart, key: &str, is_directory: bool) -> bool {
    match start {
        ListStart::Beginning => false,
        ListStart::After(last) if is_directory => key < last.as_str() && !last.starts_with(key),
        ListStart::After(last) => key <= last.as_str(),
        ListStart::AfterPrefix(prefix) if is_directory => {
            key.starts_with(prefix.as_str()) || (key < prefix.as_str() && !prefix.starts_with(key))
        }
        ListStart::AfterPrefix(prefix) => key.starts_with(prefix.as_str()) || key < prefix.as_str(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_page_begins_behind_what_the_last_one_had() {
        let check = |start: ListStart, behind: &[&str], ahead: &[&str]| {
            for (keys, expected) in [(behind, true), (ahead, false)] {
                for key in keys {
                    assert_eq!(
                        is_behind(&start, key, key.ends_with('/')),
                        expected,
                        "{key} from {start:?}"
                    );
                }
            }
        };
        check(ListStart::Beginning, &[], &["a", "a/", "\u{1}"]);
        // Below a directory that the last key is in there may be more.
        check(
            ListStart::After("t/d/f5".to_owned()),
            &["t/d/f5", "t/d/f4", "t/c/", "t/d-x/", "t/d-x", "t/d"],
            &["t/d/", "t/d/f5/", "t/d/f50", "t/d/f6", "t/e", "t/"],
        );
        check(
            ListStart::AfterPrefix("t/d/".to_owned()),
            &["t/d/", "t/d/f", "t/c/", "t/d", "t/d.x"],
            &["t/", "t/d0", "t/e/"],
        );
        check(
            ListStart::AfterPrefix("t/f1".to_owned()),
            &["t/f1", "t/f12", "t/f1/", "t/f0/"],
            &["t/f2", "t/"],
        );
    }
}
