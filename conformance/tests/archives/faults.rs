//! Archives and inputs that are not whole.

use std::fs;

use cairn_conformance::support::{args, cairn, refused};
use cairn_conformance::trees::Ground;

use crate::archived;

#[test]
fn a_cut_archive_is_an_error_wherever_it_is_cut() {
    let ground = Ground::new();
    let (archive, out) = archived(&ground, |tree| {
        fs::create_dir(tree.join("folder")).expect("a folder");
        fs::write(tree.join("folder/file"), vec![7; 3000]).expect("a file");
        fs::write(tree.join("last"), b"").expect("a file");
    });
    let whole = fs::read(&archive).expect("an archive");
    let cut = ground.path("cut.catar");
    for len in (0..whole.len()).step_by(37).chain([whole.len() - 1]) {
        fs::write(&cut, &whole[..len]).expect("an archive");
        let words = refused(cairn().args(args!["untar", cut, out]));
        assert!(words.contains("cut short") && words.contains("byte"), "{len}: {words}");
        ground.clear("out");
    }
    fs::write(&cut, [&whole[..], b"more"].concat()).expect("an archive");
    let words = refused(cairn().args(args!["untar", cut, out]));
    assert!(words.contains(&format!("byte {}", whole.len())), "{words}");
}

#[test]
fn a_file_that_loses_bytes_while_it_is_read_is_an_error_that_names_it() {
    let ground = Ground::new();
    let tree = ground.path("tree");
    fs::create_dir(&tree).expect("a folder");
    // A file of procfs's kind says another length than it has: the virtual file system's content is left out, and a file
    // that is cut while a full pipe holds the reader back ends early.
    let file = tree.join("shrinking");
    fs::write(&file, vec![1; 8 << 20]).expect("a file");
    let mut child = cairn()
        .args(args!["tar", "-", tree])
        .stdout(std::process::Stdio::piped())
        .stderr(std::process::Stdio::piped())
        .spawn()
        .expect("our own program");
    let mut pipe = child.stdout.take().expect("it is piped");
    let mut first = [0; 1];
    std::io::Read::read_exact(&mut pipe, &mut first).expect("a byte");
    fs::File::options()
        .write(true)
        .open(&file)
        .expect("a file")
        .set_len(4 << 20)
        .expect("shorter");
    let mut rest = Vec::new();
    std::io::Read::read_to_end(&mut pipe, &mut rest).expect("the rest");
    let output = child.wait_with_output().expect("our own child");
    let words = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(1), "{words}");
    assert!(words.contains("shrinking") && words.contains("lost"), "{words}");
}
