//! Random trees and random damage.

use proptest::prelude::*;

use super::*;
use crate::{DigestAlgorithm, FeatureFlags};

fn text(random: &mut fastrand::Rng, alphabet: &[u8], lens: std::ops::RangeInclusive<usize>) -> Bytes {
    let len = random.usize(lens);
    std::iter::repeat_with(|| alphabet[random.usize(..alphabet.len())])
        .take(len)
        .collect()
}

fn bytes(random: &mut fastrand::Rng, len_max: usize) -> Bytes {
    let len = random.usize(..=len_max);
    std::iter::repeat_with(|| random.u8(..)).take(len).collect()
}

/// Mostly short; sometimes as long as it may be.
fn entry_name(random: &mut fastrand::Rng) -> Bytes {
    let all: Vec<u8> = (1..=255).filter(|&byte| byte != b'/').collect();
    let name = match random.u8(..20) {
        0 => text(random, &all, 255..=255),
        1..6 => text(random, &all, 1..=8),
        _ => text(random, b"ab.-_", 1..=4),
    };
    match name.as_ref() {
        b"." | b".." => Bytes::from_static(b"..."),
        _ => name,
    }
}

fn user(random: &mut fastrand::Rng) -> Option<Bytes> {
    let name = text(random, b"abcxyz_", 1..=6);
    random.bool().then_some(name)
}

fn acl_entries(random: &mut fastrand::Rng, count_max: usize) -> Vec<AclEntry> {
    let count = random.usize(..=count_max);
    let mut entries: Vec<_> = std::iter::repeat_with(|| AclEntry {
        id: random.u32(..1000),
        name: user(random),
        permissions: random.u8(..8),
    })
    .take(count)
    .collect();
    entries.sort_by_key(|entry| entry.id);
    entries.dedup_by_key(|entry| entry.id);
    entries
}

/// An inode with all that there may be; what the flags do not keep is taken away afterwards.
fn node(random: &mut fastrand::Rng, content: Content, flags: FeatureFlags) -> Node {
    let count = random.usize(..4);
    let mut xattrs: Vec<Xattr> = std::iter::repeat_with(|| Xattr {
        name: [b"user.", text(random, b"abc.", 0..=3).as_ref(), b"x"].concat().into(),
        value: bytes(random, 20),
    })
    .take(count)
    .collect();
    xattrs.sort_by(|a, b| a.name.cmp(&b.name));
    xattrs.dedup_by(|a, b| a.name == b.name);
    let default = random.bool().then(|| AclDefault {
        user_obj: random.u8(..8),
        group_obj: random.u8(..8),
        other: random.u8(..8),
        mask: random.bool().then(|| random.u8(..8)),
    });
    let masked = usize::from(default.is_some_and(|default| default.mask.is_some()));
    let group_obj = random.bool().then(|| random.u8(..8));
    let named = usize::from(group_obj.is_some());
    let metadata = Metadata {
        mode: content.kind_bits() | random.u32(..0o10_000),
        attributes: random.u64(..),
        uid: random.u32(..60_000),
        gid: random.u32(..60_000),
        mtime: if flags.is_desync_archive() {
            i128::from(random.i64(..))
        } else {
            i128::from(random.u64(..u64::MAX))
        },
        user: user(random),
        group: user(random),
        xattrs,
        acl: Acl {
            users: acl_entries(random, 3 * named),
            groups: acl_entries(random, 3 * named),
            group_obj,
            default,
            default_users: acl_entries(random, 3 * masked),
            default_groups: acl_entries(random, 3 * masked),
        },
        selinux: random.bool().then(|| text(random, b"abc:_", 1..=30)),
        fcaps: random.bool().then(|| bytes(random, 24)),
        quota_project: random.bool().then(|| random.u32(1..)),
    };
    let mut node = Node { metadata, content }.reduced(flags);
    if !flags.has(FeatureFlags::UIDS_16BIT | FeatureFlags::UIDS_32BIT) {
        let acl = &mut node.metadata.acl;
        for entries in [
            &mut acl.users,
            &mut acl.groups,
            &mut acl.default_users,
            &mut acl.default_groups,
        ] {
            entries.iter_mut().for_each(|entry| entry.id = 0);
            entries.sort_by(|a, b| (&a.name, a.permissions).cmp(&(&b.name, b.permissions)));
            entries.dedup();
        }
    }
    node
}

/// Flags in normal form, any of them.
fn flags(random: &mut fastrand::Rng) -> FeatureFlags {
    let users = FeatureFlags::UIDS_32BIT | FeatureFlags::USER_NAMES;
    let known = FeatureFlags::archive(DigestAlgorithm::Sha512_256).0 | 0x1_ffff_ffff;
    match random.u8(..3) {
        0 => FeatureFlags::archive(DigestAlgorithm::Sha256),
        1 => FeatureFlags::desync_archive(),
        _ => FeatureFlags(random.u64(..) & known | users).normal_form(),
    }
}

/// The steps of a random tree, as a reader gives them but for the offsets.
fn tree(seed: u64) -> (FeatureFlags, Vec<Step>) {
    let mut random = fastrand::Rng::with_seed(seed);
    let flags = flags(&mut random);
    let mut steps = vec![Step::Enter {
        name: None,
        node: Box::new(node(&mut random, Content::Directory, flags)),
        at: 0,
    }];
    let entries = [0, 1, 2, 5, 30, 200][random.usize(..6)];
    directory(&mut random, flags, entries, 0, &mut steps);
    (flags, steps)
}

fn directory(random: &mut fastrand::Rng, flags: FeatureFlags, entries: usize, depth: usize, steps: &mut Vec<Step>) {
    let mut names: Vec<_> = (0..entries).map(|_| entry_name(random)).collect();
    names.sort();
    names.dedup();
    for name in names {
        let payload = bytes(random, 100);
        let device = Device {
            major: random.u32(..4096),
            minor: random.u32(..1 << 20),
        };
        let content = match random.u8(..10) {
            0 | 1 if depth < 6 => Content::Directory,
            2 => Content::Symlink {
                target: text(random, b"/.ab\xff\n", 1..=40),
            },
            3 => Content::CharacterDevice(device),
            4 => Content::BlockDevice(device),
            5 => Content::Fifo,
            6 => Content::Socket,
            _ => Content::File {
                len: payload.len() as u64,
            },
        };
        if !content.is_kept_by(flags) {
            continue;
        }
        let node = Box::new(node(random, content, flags));
        let content = node.content.clone();
        let name = Some(name);
        steps.push(Step::Enter { name, node, at: 0 });
        match content {
            Content::Directory => {
                let entries = random.usize(..8);
                directory(random, flags, entries, depth + 1, steps);
            }
            Content::File { len } if len > 0 => steps.push(Step::Payload(payload)),
            _ => {}
        }
    }
    steps.push(Step::Leave);
}

fn without_offsets(steps: Vec<Step>) -> Vec<Step> {
    let without = |step| match step {
        Step::Enter { name, node, .. } => Step::Enter { name, node, at: 0 },
        step => step,
    };
    steps.into_iter().map(without).collect()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(192))]

    /// Goal: what was encoded is what is decoded, in whatever pieces it comes, and every entry is found by its path.
    #[test]
    fn trees_come_back(seed: u64, piece in 1_usize..5000) {
        let (flags, expected) = tree(seed);
        let archive = encode(&expected, flags, ArchiveForm::Sorted);
        let whole = steps(&archive, archive.len()).unwrap();
        prop_assert_eq!(&steps(&archive, piece).unwrap(), &whole);
        prop_assert!(encode(&expected, flags, ArchiveForm::AnyOrder) == archive);
        check_lookup(&archive, &whole);
        prop_assert_eq!(without_offsets(whole), expected);
    }

    /// Goal: damaged archives are read the same, however they are sliced; what is read of them can be written.
    #[test]
    fn damage_is_met_at_the_same_place_in_any_pieces(
        at in 0..KINDS.len(), bit in 0_u8..8, piece in 1_usize..300, desync: bool,
    ) {
        let mut archive = if desync { DESYNC_KINDS } else { KINDS }.to_vec();
        let at = at % archive.len();
        archive[at] ^= 1 << bit;
        let whole = steps(&archive, archive.len());
        prop_assert_eq!(steps(&archive, piece), whole);
    }
}
