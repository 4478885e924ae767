//! `.caexclude` files: which entries of a folder are left out.
//!
//! casync's rules: a line is a glob; `#` starts a comment; `!` takes in again and wins; a `/` anywhere anchors the pattern to
//! the file's folder, at the end it means folders only. A pattern without `/` counts at every depth below. The globs are those
//! of fnmatch(3) with `FNM_PERIOD`, in bytes.

use std::sync::Arc;

/// One component of a pattern.
#[derive(Debug, PartialEq, Eq)]
struct Rule {
    pattern: Vec<u8>,
    anchored: bool,
    folders_only: bool,
    then: Then,
}

/// What a match means.
#[derive(Debug, PartialEq, Eq)]
enum Then {
    Exclude,
    Include,
    /// The pattern goes on below.
    Below(Arc<Rule>),
}

/// The rules in force for the entries of one folder.
#[derive(Clone, Debug, Default)]
pub(super) struct Rules(Vec<Arc<Rule>>);

impl Rules {
    /// Adds the rules of a file. Errors: the number of a line that is no pattern, from 1.
    pub(super) fn add(&mut self, file: &[u8]) -> Result<(), usize> {
        for (number, line) in file.split(|&byte| byte == b'\n').enumerate() {
            let line = line.trim_ascii();
            if line.is_empty() || line.starts_with(b"#") {
                continue;
            }
            self.0.push(Arc::new(parse(line).ok_or(number + 1)?));
        }
        Ok(())
    }

    /// Whether an entry is left out, and the rules for what is below it when it is a folder.
    pub(super) fn test(&self, name: &[u8], folder: bool) -> (bool, Self) {
        let (mut excluded, mut included, mut below) = (false, false, Vec::new());
        for rule in &self.0 {
            if folder && !rule.anchored {
                below.push(Arc::clone(rule));
            }
            if rule.folders_only && !folder || !glob(&rule.pattern, name) {
                continue;
            }
            match &rule.then {
                Then::Exclude => excluded = true,
                Then::Include => included = true,
                Then::Below(next) => below.push(Arc::clone(next)),
            }
        }
        (excluded && !included, Self(below))
    }
}

fn parse(line: &[u8]) -> Option<Rule> {
    let (pattern, then) = match line.strip_prefix(b"!") {
        Some(rest) => (rest, Then::Include),
        None => (line, Then::Exclude),
    };
    let anchored = pattern.contains(&b'/');
    let folders_only = pattern.ends_with(b"/");
    let components: Vec<&[u8]> = pattern
        .split(|&byte| byte == b'/')
        .filter(|component| !component.is_empty())
        .collect();
    if components
        .iter()
        .any(|component| *component == b"." || *component == b"..")
    {
        return None;
    }
    let (last, before) = components.split_last()?;
    let mut rule = Rule {
        pattern: last.to_vec(),
        anchored,
        folders_only,
        then,
    };
    for component in before.iter().rev() {
        rule = Rule {
            pattern: component.to_vec(),
            anchored: true,
            folders_only: true,
            then: Then::Below(Arc::new(rule)),
        };
    }
    Some(rule)
}

/// fnmatch(3) with `FNM_PERIOD`: a leading period has to be written.
fn glob(pattern: &[u8], name: &[u8]) -> bool {
    let hidden = name.first() == Some(&b'.');
    if hidden && matches!(pattern.first(), Some(b'*' | b'?' | b'[')) {
        return false;
    }
    let (mut at, mut seen) = (0, 0);
    // Where to go on when what follows the last star does not match: a star takes one byte more.
    let mut retry: Option<(usize, usize)> = None;
    while at < pattern.len() || seen < name.len() {
        if pattern.get(at) == Some(&b'*') {
            retry = Some((at, seen + 1));
            at += 1;
            continue;
        }
        if let (true, Some(&byte)) = (at < pattern.len(), name.get(seen))
            && let Some(len) = one(&pattern[at..], byte)
        {
            at += len;
            seen += 1;
            continue;
        }
        match retry {
            Some((star, from)) if from <= name.len() => {
                retry = Some((star, from + 1));
                (at, seen) = (star + 1, from);
            }
            _ => return false,
        }
    }
    true
}

/// Length of the pattern's first element when it matches `byte`.
fn one(pattern: &[u8], byte: u8) -> Option<usize> {
    match pattern[0] {
        b'?' => Some(1),
        b'\\' => (pattern.get(1) == Some(&byte)).then_some(2),
        b'[' => match set(pattern, byte) {
            Some((true, len)) => Some(len),
            Some((false, _)) => None,
            None => (byte == b'[').then_some(1),
        },
        literal => (literal == byte).then_some(1),
    }
}

/// Whether `byte` is in the set that opens `pattern`, and the set's length; `None` when the set has no end.
fn set(pattern: &[u8], byte: u8) -> Option<(bool, usize)> {
    let negated = matches!(pattern.get(1), Some(b'!' | b'^'));
    let mut at = if negated { 2 } else { 1 };
    let first = at;
    let mut found = false;
    loop {
        match *pattern.get(at)? {
            b']' if at > first => return Some((found != negated, at + 1)),
            b'[' if pattern.get(at + 1) == Some(&b':') => {
                let len = pattern[at + 2..].windows(2).position(|end| end == b":]")?;
                found |= class(&pattern[at + 2..at + 2 + len], byte);
                at += len + 4;
            }
            _ => {
                let (low, next) = literal(pattern, at)?;
                at = next;
                let range = pattern.get(at) == Some(&b'-') && pattern.get(at + 1).is_some_and(|&end| end != b']');
                if range {
                    let (high, next) = literal(pattern, at + 1)?;
                    at = next;
                    found |= (low..=high).contains(&byte);
                } else {
                    found |= low == byte;
                }
            }
        }
    }
}

fn literal(pattern: &[u8], at: usize) -> Option<(u8, usize)> {
    match *pattern.get(at)? {
        b'\\' => Some((*pattern.get(at + 1)?, at + 2)),
        byte => Some((byte, at + 1)),
    }
}

fn class(name: &[u8], byte: u8) -> bool {
    match name {
        b"alpha" => byte.is_ascii_alphabetic(),
        b"digit" => byte.is_ascii_digit(),
        b"alnum" => byte.is_ascii_alphanumeric(),
        b"upper" => byte.is_ascii_uppercase(),
        b"lower" => byte.is_ascii_lowercase(),
        b"space" => byte.is_ascii_whitespace() || byte == 0x0b,
        b"blank" => matches!(byte, b' ' | b'\t'),
        b"punct" => byte.is_ascii_punctuation(),
        b"print" => byte.is_ascii_graphic() || byte == b' ',
        b"graph" => byte.is_ascii_graphic(),
        b"cntrl" => byte.is_ascii_control(),
        b"xdigit" => byte.is_ascii_hexdigit(),
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn globs_match_as_fnmatch_does() {
        for (pattern, name, expected) in [
            ("a", "a", true),
            ("a", "ab", false),
            ("*", "abc", true),
            ("*", ".abc", false),
            (".*", ".abc", true),
            ("?bc", ".bc", false),
            ("[.]bc", ".bc", false),
            ("*.o", "x.o", true),
            ("*.o", "x.o.c", false),
            ("a*b*c", "aXXbYYbZZc", true),
            ("a*b*c", "aXXbYYbZZ", false),
            ("**a", "bba", true),
            ("[a-c]x", "bx", true),
            ("[!a-c]x", "bx", false),
            ("[^a-c]x", "dx", true),
            ("[]x]", "]", true),
            ("[a-]", "-", true),
            ("[[:digit:]a]?", "7z", true),
            ("[", "[", true),
            ("[ab", "[ab", true),
            ("\\*", "*", true),
            ("\\*", "a", false),
            ("a\\", "a\\", false),
            ("", "", true),
        ] {
            assert_eq!(glob(pattern.as_bytes(), name.as_bytes()), expected, "{pattern} {name}");
        }
    }

    #[test]
    fn rules_reach_as_far_as_casyncs() {
        let mut rules = Rules::default();
        rules
            .add(b"# comment\n\n *.o \n!keep.o\n/top\ndir/\na/b/*.c\n")
            .unwrap();
        let excluded = |path: &str, folder: bool| {
            let mut rules = rules.clone();
            let mut components = path.split('/').peekable();
            while let Some(component) = components.next() {
                let last = components.peek().is_none();
                let (out, below) = rules.test(component.as_bytes(), !last || folder);
                if out {
                    return true;
                }
                rules = below;
            }
            false
        };
        assert!(excluded("x.o", false) && excluded("deep/er/x.o", false));
        assert!(!excluded("keep.o", false) && !excluded("deep/keep.o", false));
        assert!(excluded("top", false) && !excluded("deep/top", false));
        assert!(excluded("dir", true) && !excluded("dir", false) && !excluded("x/dir", true));
        assert!(excluded("a/b/x.c", false) && !excluded("b/x.c", false) && !excluded("a/b/c/x.c", false));
        for line in ["..", "a/../b", "/", "./a"] {
            assert_eq!(Rules::default().add(format!("\n{line}\n").as_bytes()), Err(2), "{line}");
        }
    }
}
