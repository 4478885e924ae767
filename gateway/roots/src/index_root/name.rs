//! Names of indexes in URLs: percent-decoded bytes, folder by folder.

use std::ffi::OsStr;
use std::fmt;
use std::os::unix::ffi::OsStrExt as _;
use std::path::Path;

use super::IndexNames;

/// Most bytes of a name with its folders; file systems take 255 a component.
const NAME_LEN_MAX: usize = 1024;
const COMPONENT_LEN_MAX: usize = 255;
/// Names that begin so are files in the making.
pub(super) const TEMPORARY_PREFIX: &str = ".tmp-";

/// A checked name: relative, no `.` or `..`, no empty component, no NUL.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct IndexName(Vec<u8>);

impl IndexName {
    /// Decodes the path of a URL, which begins with `/`. An error is the rule that it breaks.
    pub(super) fn parse(path: &str, names: IndexNames) -> Result<Self, &'static str> {
        let path = path.strip_prefix('/').ok_or("it has no name")?;
        let name = decode(path)?;
        if name.len() > NAME_LEN_MAX {
            return Err("the name is longer than 1024 bytes");
        }
        for component in name.split(|&byte| byte == b'/') {
            match component {
                b"" => return Err("a folder or the name is empty"),
                b"." | b".." => return Err("`.` and `..` are no names"),
                _ if component.len() > COMPONENT_LEN_MAX => return Err("a component is longer than 255 bytes"),
                _ if component.contains(&0) => return Err("it holds a NUL"),
                _ if component.starts_with(TEMPORARY_PREFIX.as_bytes()) => return Err("it begins with `.tmp-`"),
                _ => {}
            }
        }
        if names == IndexNames::Suffixed && !name.ends_with(b".caibx") && !name.ends_with(b".caidx") {
            return Err("the name must end in .caibx or .caidx");
        }
        Ok(Self(name))
    }

    pub(super) fn as_bytes(&self) -> &[u8] {
        &self.0
    }

    pub(super) fn as_path(&self) -> &Path {
        Path::new(OsStr::from_bytes(&self.0))
    }
}

impl fmt::Display for IndexName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Escaped: names are opaque bytes, and this goes to logs and to people.
        self.0.escape_ascii().fmt(f)
    }
}

fn decode(path: &str) -> Result<Vec<u8>, &'static str> {
    let mut bytes = path.bytes();
    let mut name = Vec::with_capacity(path.len());
    while let Some(byte) = bytes.next() {
        name.push(match byte {
            b'%' => {
                let mut digit = || bytes.next().and_then(|byte| char::from(byte).to_digit(16));
                match (digit(), digit()) {
                    (Some(high), Some(low)) => (high * 16 + low) as u8,
                    _ => return Err("a % is not followed by two hex digits"),
                }
            }
            byte => byte,
        });
    }
    Ok(name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names() {
        let check = |path: &str, expected: Option<&[u8]>| {
            let name = IndexName::parse(path, IndexNames::Suffixed).ok();
            assert_eq!(name.as_ref().map(|name| &name.0[..]), expected, "{path}");
        };
        check("/a.caibx", Some(b"a.caibx"));
        check("/a/b/c.caidx", Some(b"a/b/c.caidx"));
        check("/%ff%20%25.caibx", Some(b"\xff %.caibx"));
        check("/..a.caibx", Some(b"..a.caibx"));
        check("/a%2Fb.caibx", Some(b"a/b.caibx"));
        check("/.caibx", Some(b".caibx"));
        check("/../a.caibx", None);
        check("/%2e%2e/a.caibx", None);
        check("/a/%2e%2e%2fb.caibx", None);
        check("/a/./b.caibx", None);
        check("//a.caibx", None);
        check("/%2fetc/a.caibx", None);
        check("/a//b.caibx", None);
        check("/a.caibx/", None);
        check("/a%00.caibx", None);
        check("/a%zz.caibx", None);
        check("/a%f", None);
        check("/a%+f.caibx", None);
        check("/a.txt", None);
        check("/.tmp-1.caibx", None);
        check("/", None);
        check("", None);
        check(&format!("/{}.caibx", "a".repeat(250)), None);
        check(&format!("/{}b.caibx", "a/".repeat(600)), None);
        assert!(IndexName::parse("/latest", IndexNames::Any).is_ok());
        assert!(IndexName::parse("/..", IndexNames::Any).is_err());
    }
}
