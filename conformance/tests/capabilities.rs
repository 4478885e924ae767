//! `CAPABILITIES.md` names only tests that are there.

use std::fs;
use std::path::Path;

/// The text of every Rust file below a folder.
fn sources(folder: &Path, text: &mut String) {
    for entry in fs::read_dir(folder).expect("a folder of the repository").flatten() {
        let path = entry.path();
        let name = entry.file_name();
        if path.is_dir() && name != "target" && !name.to_string_lossy().starts_with('.') {
            sources(&path, text);
        } else if path.extension().is_some_and(|ending| ending == "rs") {
            text.push_str(&fs::read_to_string(&path).expect("a source file"));
        }
    }
}

#[test]
fn every_promise_has_its_tests() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    let page = fs::read_to_string(root.join("conformance/CAPABILITIES.md")).expect("the page");
    let mut text = String::new();
    for crate_folder in ["formats", "store", "gateway", "server", "tools", "conformance"] {
        sources(&root.join(crate_folder), &mut text);
    }
    let mut tests = 0;
    for row in page.lines().filter(|line| line.starts_with("| ")) {
        let held_by = row.split('|').nth(2).unwrap_or_default();
        for name in held_by.split('`').skip(1).step_by(2) {
            assert!(
                text.contains(&format!("#[test]\nfn {name}(")) || text.contains(&format!("#[test]\n    fn {name}(")),
                "{name}"
            );
            tests += 1;
        }
    }
    assert!(tests > 30, "the page was read");
}
