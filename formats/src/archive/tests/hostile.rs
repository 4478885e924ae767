//! Archives that mean harm or were damaged: each is refused, with the entry and the offset named.

use expect_test::{Expect, expect};

use super::super::record::*;
use super::raw::*;
use super::*;

/// Kind and body of each record that may follow an ENTRY, in their order, as a directory or (FCAPS) a file takes them.
fn metadata_records() -> Vec<(u64, Vec<u8>)> {
    let words = |words: &[u64]| words.iter().flat_map(|word| word.to_le_bytes()).collect::<Vec<u8>>();
    vec![
        (USER, b"user\0".to_vec()),
        (GROUP, b"group\0".to_vec()),
        (XATTR, b"user.a\0value".to_vec()),
        (ACL_USER, words(&[1, 7])),
        (ACL_GROUP, words(&[1, 7])),
        (ACL_GROUP_OBJ, words(&[7])),
        (ACL_DEFAULT, words(&[7, 7, 7, 7])),
        (ACL_DEFAULT_USER, words(&[1, 7])),
        (ACL_DEFAULT_GROUP, words(&[1, 7])),
        (SELINUX, b"label\0".to_vec()),
        (FCAPS, vec![1; 20]),
        (QUOTA_PROJECT_ID, words(&[1])),
    ]
}

/// What a reader says to each archive, a line each.
fn check(archives: &[(&str, Vec<u8>)], expected: Expect) {
    let lines: Vec<_> = archives
        .iter()
        .map(|(what, archive)| {
            let ArchiveError { offset, entry, rule } = refusal(archive);
            format!("{what}: {offset} {entry}: {rule}\n")
        })
        .collect();
    expected.assert_eq(&lines.concat());
}

#[test]
fn the_archives_made_here_are_good_but_for_what_is_wrong_with_them() {
    let fifo = [name(b"fifo"), entry(FIFO)].concat();
    let archive = root(&[directory(b"d", &[file(b"a", b"1")]), file(b"e", b""), fifo]);
    assert_eq!(steps(&archive, 5).unwrap().len(), 8);
}

#[test]
fn bad_names_are_refused() {
    let named = |body: &[u8]| {
        root(&[
            file(b"A", b""),
            [record(FILENAME, body), entry(FILE), record(PAYLOAD, b"")].concat(),
        ])
    };
    check(
        &[
            ("empty", named(b"\0")),
            ("two NULs", named(b"\0\0")),
            ("dot", named(b".\0")),
            ("dots", named(b"..\0")),
            ("absolute", named(b"/etc\0")),
            ("slash at the end", named(b"etc/\0")),
            ("up and away", named(b"../etc\0")),
            ("inner NUL", named(b"a\0b\0")),
            ("no NUL", named(b"abc")),
            ("256 bytes", named(&[&[b'x'; 256][..], b"\0"].concat())),
        ],
        expect![[r#"
            empty: 162 .: a record's size is outside what its type may have
            two NULs: 162 .: a name is empty, holds a NUL or does not end in one
            dot: 162 .: a name is . or ..
            dots: 162 ..: a name is . or ..
            absolute: 162 /etc: a name holds a /
            slash at the end: 162 etc/: a name holds a /
            up and away: 162 ../etc: a name holds a /
            inner NUL: 162 .: a name is empty, holds a NUL or does not end in one
            no NUL: 162 .: a name is empty, holds a NUL or does not end in one
            256 bytes: 162 .: a record's size is outside what its type may have
        "#]],
    );
}

#[test]
fn a_name_that_comes_twice_is_refused() {
    check(
        &[
            ("one after the other", root(&[file(b"a", b""), file(b"a", b"")])),
            (
                "out of order",
                root(&[file(b"b", b""), file(b"a", b""), file(b"c", b""), file(b"b", b"")]),
            ),
            (
                "a link, then a directory",
                root(&[
                    [name(b"d"), entry(SYMLINK_MODE), record(SYMLINK, b"/etc\0")].concat(),
                    directory(b"d", &[file(b"passwd", b"")]),
                ]),
            ),
        ],
        expect![[r#"
            one after the other: 162 a: a name is there twice in a directory
            out of order: 358 b: a name is there twice in a directory
            a link, then a directory: 167 d: a name is there twice in a directory
        "#]],
    );
    let unsorted = root(&[file(b"b", b""), file(b"a", b""), file(b"c", b"")]);
    assert!(steps(&unsorted, 7).is_ok(), "desync keeps the order of a tar");
}

/// Sizes below a header's, and near 2^63 and 2^64: nothing underflows, overflows or is waited for.
#[test]
fn sizes_that_no_record_has_are_refused() {
    let start = |kind: u64| match kind {
        ENTRY_TYPE => Vec::new(),
        FILENAME | GOODBYE => entry(DIRECTORY),
        PAYLOAD | FCAPS => [entry(DIRECTORY), name(b"n"), entry(FILE)].concat(),
        SYMLINK => [entry(DIRECTORY), name(b"n"), entry(SYMLINK_MODE)].concat(),
        DEVICE => [entry(DIRECTORY), name(b"n"), entry(CHARACTER_DEVICE)].concat(),
        _ => [entry(DIRECTORY), name(b"n"), entry(DIRECTORY)].concat(),
    };
    let kinds = metadata_records().into_iter().map(|(kind, _)| kind);
    for kind in kinds.chain([ENTRY_TYPE, FILENAME, PAYLOAD, SYMLINK, DEVICE, GOODBYE]) {
        let start = start(kind);
        let huge = [i64::MAX as u64 + 1, u64::MAX - 16, u64::MAX - 1, u64::MAX];
        for size in [0, 1, 8, 15].into_iter().chain(huge) {
            let archive = [start.clone(), sized(size, kind, &[b'x'; 600])].concat();
            let error = refusal(&archive);
            assert_eq!(error.offset, start.len() as u64, "{kind:#x} of {size}");
            let expected = [
                "a record's size is outside what its type may have",
                "a GOODBYE record's size does not go with the entries of its directory",
            ];
            assert!(expected.contains(&error.rule), "{kind:#x} of {size}: {}", error.rule);
        }
    }
}

/// Goal: records that belong to an ENTRY come in one order, singles once.
/// Method: every pair of them, both ways.
#[test]
fn records_out_of_order_or_twice_are_refused() {
    let records = metadata_records();
    let several = [XATTR, ACL_USER, ACL_GROUP, ACL_DEFAULT_USER, ACL_DEFAULT_GROUP];
    for (first, (first_kind, first_body)) in records.iter().enumerate() {
        for (second, (second_kind, second_body)) in records.iter().enumerate() {
            let mode = if [*first_kind, *second_kind].contains(&FCAPS) {
                FILE
            } else {
                DIRECTORY
            };
            let start = [entry(DIRECTORY), name(b"n"), entry(mode)].concat();
            let offset = (start.len() + 16 + first_body.len()) as u64;
            let archive = [
                start,
                record(*first_kind, first_body),
                record(*second_kind, second_body),
            ]
            .concat();
            let error = refusal(&archive);
            let expected = match first.cmp(&second) {
                std::cmp::Ordering::Less => continue,
                std::cmp::Ordering::Equal if *first_kind == XATTR => {
                    "extended attributes are not in the order of their names, or one is there twice"
                }
                std::cmp::Ordering::Equal if several.contains(first_kind) => {
                    "ACL entries are not in the order of their ids and names, or one is there twice"
                }
                _ => "an entry's records are not in their order, or there are two of a kind",
            };
            let default = [ACL_DEFAULT, ACL_DEFAULT_USER, ACL_DEFAULT_GROUP];
            if mode == FILE && default.contains(first_kind) {
                assert_eq!(
                    error.rule,
                    "an entry has a record that does not go with its kind of inode"
                );
            } else {
                assert_eq!(
                    error,
                    ArchiveError {
                        offset,
                        entry: "n".into(),
                        rule: expected
                    }
                );
            }
        }
    }
}

#[test]
fn records_that_say_the_impossible_are_refused() {
    let with = |mode: u64, kind: u64, body: &[u8]| {
        [
            entry(DIRECTORY),
            name(b"n"),
            entry(mode),
            record(kind, body),
            name(b"next"),
        ]
        .concat()
    };
    let words = |words: &[u64]| words.iter().flat_map(|word| word.to_le_bytes()).collect::<Vec<u8>>();
    check(
        &[
            ("user without a name", with(FILE, USER, b"\0\0")),
            ("user root", with(FILE, USER, b"root\0")),
            ("user by number", with(FILE, USER, b"0\0")),
            ("user with a space", with(FILE, GROUP, b"a b\0")),
            ("user without NUL", with(FILE, GROUP, b"ab")),
            ("attribute without NUL", with(FILE, XATTR, b"user.a")),
            ("attribute without a dot", with(FILE, XATTR, b"usera\0v")),
            ("attribute of dots", with(FILE, XATTR, b".user.\0v")),
            (
                "attribute's long name",
                with(FILE, XATTR, &[b"user.", &[b'x'; 300][..], b"\0v"].concat()),
            ),
            (
                "attribute's long value",
                with(FILE, XATTR, &[b"user.a\0", &[0; 65537][..]].concat()),
            ),
            ("attribute of a link", with(SYMLINK_MODE, XATTR, b"user.a\0")),
            (
                "ACL with a name of nothing",
                with(FILE, ACL_USER, &[&words(&[1, 7])[..], b"\0"].concat()),
            ),
            (
                "ACL without NUL",
                with(FILE, ACL_USER, &[&words(&[1, 7])[..], b"ab"].concat()),
            ),
            ("ACL's permissions", with(FILE, ACL_USER, &words(&[1, 8]))),
            ("ACL's id", with(FILE, ACL_USER, &words(&[1 << 32, 7]))),
            ("ACL's none id", with(FILE, ACL_USER, &words(&[65535, 7]))),
            ("ACL without the group's own", with(FILE, ACL_USER, &words(&[1, 7]))),
            ("default ACL of a file", with(FILE, ACL_DEFAULT, &words(&[7, 7, 7, 7]))),
            (
                "default ACL without mask",
                with(DIRECTORY, ACL_DEFAULT_USER, &words(&[1, 7])),
            ),
            (
                "default ACL's mask",
                with(DIRECTORY, ACL_DEFAULT, &words(&[7, 7, 7, 8])),
            ),
            ("label of nothing", with(FILE, SELINUX, b"\0\0")),
            ("capabilities of a directory", with(DIRECTORY, FCAPS, &[1; 20])),
            ("quota project 0", with(FILE, QUOTA_PROJECT_ID, &words(&[0]))),
            (
                "quota project of 33 bits",
                with(FILE, QUOTA_PROJECT_ID, &words(&[1 << 32])),
            ),
            ("quota project of a FIFO", with(FIFO, QUOTA_PROJECT_ID, &words(&[1]))),
            ("target of nothing", with(SYMLINK_MODE, SYMLINK, b"\0\0")),
            ("target with a NUL", with(SYMLINK_MODE, SYMLINK, b"a\0b\0")),
            ("target without NUL", with(SYMLINK_MODE, SYMLINK, b"ab")),
            ("major number", with(CHARACTER_DEVICE, DEVICE, &words(&[4096, 0]))),
            ("minor number", with(CHARACTER_DEVICE, DEVICE, &words(&[0, 1 << 20]))),
            ("huge number", with(CHARACTER_DEVICE, DEVICE, &words(&[1 << 32, 0]))),
        ],
        expect![[r#"
            user without a name: 146 n: a user or group name is empty, holds a NUL or does not end in one
            user root: 146 n: a user or group name is root, or holds other characters than casync allows
            user by number: 146 n: a user or group name is root, or holds other characters than casync allows
            user with a space: 146 n: a user or group name is root, or holds other characters than casync allows
            user without NUL: 146 n: a user or group name is empty, holds a NUL or does not end in one
            attribute without NUL: 146 n: an extended attribute's name does not end in a NUL
            attribute without a dot: 146 n: an extended attribute's name has no dot inside
            attribute of dots: 146 n: an extended attribute's name has no dot inside
            attribute's long name: 146 n: an extended attribute's name is longer than 255 bytes or holds a NUL
            attribute's long value: 146 n: an extended attribute's value is longer than 64 KiB
            attribute of a link: 146 n: an entry has a record that does not go with its kind of inode
            ACL with a name of nothing: 146 n: a user or group name is empty, holds a NUL or does not end in one
            ACL without NUL: 146 n: a user or group name is empty, holds a NUL or does not end in one
            ACL's permissions: 146 n: an ACL has permissions other than 1, 2 and 4
            ACL's id: 146 n: a user or group id is above 2^32 - 1
            ACL's none id: 146 n: a user or group id that the feature flags do not allow (65535 and 2^32 - 1 mean none)
            ACL without the group's own: 178 n: an ACL has named entries but no ACL_GROUP_OBJ
            default ACL of a file: 146 n: an entry has a record that does not go with its kind of inode
            default ACL without mask: 178 n: a default ACL has named entries but no mask
            default ACL's mask: 146 n: an ACL has permissions other than 1, 2 and 4
            label of nothing: 146 n: a label is empty, holds a NUL or does not end in one
            capabilities of a directory: 146 n: an entry has a record that does not go with its kind of inode
            quota project 0: 146 n: a quota project is 0 or above 2^32 - 1
            quota project of 33 bits: 146 n: a quota project is 0 or above 2^32 - 1
            quota project of a FIFO: 146 n: an entry has a record that does not go with its kind of inode
            target of nothing: 146 n: a symbolic link's target is empty, holds a NUL or does not end in one
            target with a NUL: 146 n: a symbolic link's target is empty, holds a NUL or does not end in one
            target without NUL: 146 n: a symbolic link's target is empty, holds a NUL or does not end in one
            major number: 146 n: a device's numbers are not below 4096 and 1048576
            minor number: 146 n: a device's numbers are not below 4096 and 1048576
            huge number: 146 n: a device's numbers are not below 4096 and 1048576
        "#]],
    );
}

#[test]
fn entries_that_say_the_impossible_are_refused() {
    let child = |words: [u64; 6]| [entry(DIRECTORY), name(b"n"), entry_of(words)].concat();
    check(
        &[
            ("nothing", Vec::new()),
            ("an index", sized(48, 0x9682_4d9c_7b12_9ff9, &[0; 32])),
            ("a name for the root", [name(b"n"), entry(DIRECTORY)].concat()),
            ("a file for the root", [entry(FILE), record(PAYLOAD, b"")].concat()),
            ("unknown flags", entry_of([1 << 40, DIRECTORY, 0, 0, 0, 0])),
            ("all flags", entry_of([u64::MAX, DIRECTORY, 0, 0, 0, 0])),
            ("flags against each other", entry_of([0x28, DIRECTORY, 0, 0, 0, 0])),
            ("other flags than the root's", child([FLAGS & !2, FILE, 0, 0, 0, 0])),
            ("mode of no kind", child([FLAGS, 0o644, 0, 0, 0, 0])),
            ("mode of two kinds", child([FLAGS, 0o170_644, 0, 0, 0, 0])),
            ("mode of 17 bits", child([FLAGS, 0o300_644, 0, 0, 0, 0])),
            ("mode of 33 bits", child([FLAGS, 1 << 32 | FILE, 0, 0, 0, 0])),
            ("unknown attributes", child([FLAGS, FILE, 1, 0, 0, 0])),
            ("attributes not kept", child([FLAGS, FILE, 1 << 20, 0, 0, 0])),
            ("attributes of a FIFO", child([FLAGS, FIFO, 1 << 16, 0, 0, 0])),
            ("no user", child([FLAGS, FILE, 0, 65535, 0, 0])),
            ("no group", child([FLAGS, FILE, 0, 0, 0xffff_ffff, 0])),
            ("group of 33 bits", child([FLAGS, FILE, 0, 0, 1 << 32, 0])),
            ("no time", child([FLAGS, FILE, 0, 0, 0, u64::MAX])),
            (
                "an owner that is not kept",
                entry_of([0x2000_0000_0000_0000, DIRECTORY, 0, 1, 0, 0]),
            ),
            (
                "a time that is not kept",
                entry_of([0x2000_0000_0000_0000, DIRECTORY, 0, 0, 0, 1]),
            ),
            (
                "a time too fine",
                entry_of([0x2000_0000_0000_0010, DIRECTORY, 0, 0, 0, 1_500]),
            ),
            (
                "a link that is not kept",
                [
                    entry_of([0x2000_0000_0000_0000, DIRECTORY, 0, 0, 0, 0]),
                    name(b"n"),
                    entry_of([0x2000_0000_0000_0000, SYMLINK_MODE, 0, 0, 0, 0]),
                ]
                .concat(),
            ),
            (
                "a name that is not kept",
                [
                    entry_of([0x2000_0000_0000_0000, DIRECTORY, 0, 0, 0, 0]),
                    record(USER, b"user\0"),
                ]
                .concat(),
            ),
        ],
        expect![[r#"
            nothing: 0 .: it is cut short: the directories that are open have no end
            an index: 0 .: it does not start with an ENTRY: it is no archive
            a name for the root: 0 .: it does not start with an ENTRY: it is no archive
            a file for the root: 0 .: the root is not a directory
            unknown flags: 0 .: feature flags with unknown bits
            all flags: 0 .: feature flags with unknown bits
            flags against each other: 0 .: feature flags with more than one granularity of time
            other flags than the root's: 82 n: an ENTRY's feature flags are not those of the root
            mode of no kind: 82 n: an ENTRY's mode is of no kind of inode
            mode of two kinds: 82 n: an ENTRY's mode is of no kind of inode
            mode of 17 bits: 82 n: an ENTRY's mode has unknown bits
            mode of 33 bits: 82 n: an ENTRY's mode has unknown bits
            unknown attributes: 82 n: an ENTRY has attributes that the feature flags do not keep
            attributes not kept: 82 n: an ENTRY has attributes that the feature flags do not keep
            attributes of a FIFO: 82 n: an ENTRY that is neither a file nor a directory has attributes
            no user: 82 n: a user or group id that the feature flags do not allow (65535 and 2^32 - 1 mean none)
            no group: 82 n: a user or group id that the feature flags do not allow (65535 and 2^32 - 1 mean none)
            group of 33 bits: 82 n: a user or group id is above 2^32 - 1
            no time: 82 n: an ENTRY's time is all ones
            an owner that is not kept: 0 .: a user or group id that the feature flags do not allow (65535 and 2^32 - 1 mean none)
            a time that is not kept: 0 .: an ENTRY has a time though the feature flags keep none
            a time too fine: 0 .: an ENTRY's time is finer than the feature flags say
            a link that is not kept: 82 n: an ENTRY is of a kind that the feature flags do not keep
            a name that is not kept: 64 .: an entry has a record of a kind that the feature flags do not keep
        "#]],
    );
}

/// What follows an ENTRY goes by its mode; anything else is refused.
#[test]
fn contents_of_another_kind_are_refused() {
    let followers = [
        ("ENTRY", entry(FILE)),
        ("PAYLOAD", record(PAYLOAD, b"abc")),
        ("SYMLINK", record(SYMLINK, b"abc\0")),
        ("DEVICE", record(DEVICE, &[0; 16])),
        ("FILENAME", name(b"z")),
        ("GOODBYE", closed(entry(DIRECTORY), &[]).split_off(64)),
        ("INDEX", sized(48, 0x9682_4d9c_7b12_9ff9, &[0; 32])),
        ("unknown", record(1, &[0; 16])),
    ];
    let modes = [
        ("directory", DIRECTORY),
        ("file", FILE),
        ("link", SYMLINK_MODE),
        ("device", CHARACTER_DEVICE),
        ("FIFO", FIFO),
    ];
    let mut archives = Vec::new();
    for (kind, mode) in modes {
        for (what, follower) in &followers {
            let good = match kind {
                "directory" => matches!(*what, "FILENAME" | "GOODBYE"),
                "file" => *what == "PAYLOAD",
                "link" => *what == "SYMLINK",
                "device" => *what == "DEVICE",
                _ => matches!(*what, "FILENAME" | "GOODBYE"),
            };
            if !good {
                let archive = [entry(DIRECTORY), name(b"n"), entry(mode), follower.clone()].concat();
                archives.push((format!("{kind}, {what}"), archive));
            }
        }
    }
    for (what, follower) in &followers {
        if !matches!(*what, "FILENAME" | "GOODBYE") {
            archives.push((
                format!("whole file, {what}"),
                [entry(DIRECTORY), file(b"n", b"1"), follower.clone()].concat(),
            ));
        }
    }
    let archives: Vec<_> = archives
        .iter()
        .map(|(what, archive)| (what.as_str(), archive.clone()))
        .collect();
    check(
        &archives,
        expect![[r#"
        directory, ENTRY: 146 n: neither a FILENAME nor a GOODBYE follows in a directory
        directory, PAYLOAD: 146 n: neither a FILENAME nor a GOODBYE follows in a directory
        directory, SYMLINK: 146 n: neither a FILENAME nor a GOODBYE follows in a directory
        directory, DEVICE: 146 n: neither a FILENAME nor a GOODBYE follows in a directory
        directory, INDEX: 146 n: a record of unknown type
        directory, unknown: 146 n: a record of unknown type
        file, ENTRY: 146 n: no PAYLOAD follows a regular file's ENTRY
        file, SYMLINK: 146 n: no PAYLOAD follows a regular file's ENTRY
        file, DEVICE: 146 n: no PAYLOAD follows a regular file's ENTRY
        file, FILENAME: 146 n: no PAYLOAD follows a regular file's ENTRY
        file, GOODBYE: 146 n: no PAYLOAD follows a regular file's ENTRY
        file, INDEX: 146 n: a record of unknown type
        file, unknown: 146 n: a record of unknown type
        link, ENTRY: 146 n: no SYMLINK follows a symbolic link's ENTRY
        link, PAYLOAD: 146 n: no SYMLINK follows a symbolic link's ENTRY
        link, DEVICE: 146 n: no SYMLINK follows a symbolic link's ENTRY
        link, FILENAME: 146 n: no SYMLINK follows a symbolic link's ENTRY
        link, GOODBYE: 146 n: no SYMLINK follows a symbolic link's ENTRY
        link, INDEX: 146 n: a record of unknown type
        link, unknown: 146 n: a record of unknown type
        device, ENTRY: 146 n: no DEVICE follows a device's ENTRY
        device, PAYLOAD: 146 n: no DEVICE follows a device's ENTRY
        device, SYMLINK: 146 n: no DEVICE follows a device's ENTRY
        device, FILENAME: 146 n: no DEVICE follows a device's ENTRY
        device, GOODBYE: 146 n: no DEVICE follows a device's ENTRY
        device, INDEX: 146 n: a record of unknown type
        device, unknown: 146 n: a record of unknown type
        FIFO, ENTRY: 146 .: neither a FILENAME nor a GOODBYE follows in a directory
        FIFO, PAYLOAD: 146 .: neither a FILENAME nor a GOODBYE follows in a directory
        FIFO, SYMLINK: 146 .: neither a FILENAME nor a GOODBYE follows in a directory
        FIFO, DEVICE: 146 .: neither a FILENAME nor a GOODBYE follows in a directory
        FIFO, INDEX: 146 n: a record of unknown type
        FIFO, unknown: 146 n: a record of unknown type
        whole file, ENTRY: 163 .: neither a FILENAME nor a GOODBYE follows in a directory
        whole file, PAYLOAD: 163 .: neither a FILENAME nor a GOODBYE follows in a directory
        whole file, SYMLINK: 163 .: neither a FILENAME nor a GOODBYE follows in a directory
        whole file, DEVICE: 163 .: neither a FILENAME nor a GOODBYE follows in a directory
        whole file, INDEX: 163 .: a record of unknown type
        whole file, unknown: 163 .: a record of unknown type
    "#]],
    );
}

/// desync leaves names without inodes for FIFOs and sockets, and only desync does.
#[test]
fn a_name_without_an_inode_is_refused_outside_desyncs_archives() {
    check(
        &[
            ("in the middle", root(&[name(b"fifo"), file(b"z", b"")])),
            ("at the end", root(&[file(b"a", b""), name(b"fifo")])),
        ],
        expect![[r#"
            in the middle: 85 fifo: no ENTRY follows a FILENAME
            at the end: 183 fifo: no ENTRY follows a FILENAME
        "#]],
    );
}

/// Goal: as many folders inside each other as anyone likes: refused by default, and nothing recurses when they are allowed.
#[test]
fn a_million_folders_inside_each_other_are_refused() {
    const DEPTH: usize = 1_000_000;
    let open = Bytes::from([name(b"d"), entry(DIRECTORY)].concat());
    let read = |depth_max: usize| {
        let limits = ArchiveLimits {
            depth_max,
            ..ArchiveLimits::default()
        };
        let mut decoder = ArchiveDecoder::new(limits);
        decoder.push(entry(DIRECTORY).into());
        let mut pushed = 1;
        loop {
            match decoder.next() {
                Ok(Step::NeedBytes) if pushed < DEPTH => {
                    decoder.push(open.clone());
                    pushed += 1;
                }
                Ok(Step::NeedBytes) => decoder.finish(),
                Ok(_) => {}
                Err(error) => return error,
            }
        }
    };
    let error = read(ArchiveLimits::default().depth_max);
    assert_eq!(error.rule, "directories are nested deeper than the limit");
    assert_eq!(error.offset, 64 + 2048 * 82);
    assert_eq!(error.entry.len(), "…".len() + 1024);

    let error = read(2 * DEPTH);
    assert_eq!(error.rule, "it is cut short: the directories that are open have no end");
    assert_eq!(error.offset, 64 + (DEPTH as u64 - 1) * 82);
}

#[test]
fn limits_hold() {
    let read = |archive: &[u8], limits: ArchiveLimits| {
        let mut decoder = ArchiveDecoder::new(limits);
        decoder.push(Bytes::copy_from_slice(archive));
        decoder.finish();
        loop {
            match decoder.next() {
                Ok(Step::End) => return None,
                Ok(_) => {}
                Err(error) => return Some((error.offset, error.rule)),
            }
        }
    };
    let three = root(&[file(b"a", b""), file(b"b", b""), file(b"c", b"")]);
    let with = |directory_entries_max, metadata_len_max| ArchiveLimits {
        depth_max: 1,
        directory_entries_max,
        metadata_len_max,
    };
    assert_eq!(read(&three, with(3, 64)), None);
    let rule = "a directory has more entries than the limit";
    assert_eq!(read(&three, with(2, 64)), Some((64 + 2 * 98, rule)));

    let attribute = record(XATTR, b"user.a\0value");
    let long = closed([entry(DIRECTORY), attribute].concat(), &[]);
    assert_eq!(read(&long, with(0, 64 + 28)), None);
    let rule = "an entry's metadata is longer than the limit";
    assert_eq!(read(&long, with(0, 64 + 27)), Some((64, rule)));
}

#[test]
fn an_archive_by_desync_cut_anywhere_is_an_error() {
    for end in 0..DESYNC_KINDS.len() {
        let error = steps(&DESYNC_KINDS[..end], 4096).unwrap_err();
        assert_eq!(error.offset, end as u64, "{error}");
    }
}

/// After an error there is no going on.
#[test]
fn an_error_stays() {
    let mut decoder = ArchiveDecoder::new(ArchiveLimits::default());
    decoder.push(sized(1, ENTRY_TYPE, &[]).into());
    let error = decoder.next().unwrap_err();
    decoder.push(root(&[]).into());
    assert_eq!(decoder.next(), Err(error));
}
