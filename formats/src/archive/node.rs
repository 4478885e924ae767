//! ENTRY and the records that belong to it, to and from [`Metadata`].

use bytes::Bytes;

use super::metadata::{AclDefault, AclEntry, Content, Metadata, Xattr, kind_of};
use super::record::*;
use crate::FeatureFlags;

const OTHER_PERMISSIONS: u64 = !7;
/// "None" to the kernel, in 16 and in 32 bits.
const NO_ID_16: u32 = 65535;
const NO_ID_32: u32 = u32::MAX;

/// Gathers an inode's records, which come in a fixed order.
#[derive(Debug)]
pub(super) struct NodeReader {
    pub(super) flags: FeatureFlags,
    pub(super) metadata: Metadata,
    /// Bytes of the records so far.
    pub(super) len: u64,
    stage: usize,
}

/// The order of the records after ENTRY, and whether there may be several.
const STAGES: [(u64, bool); 12] = [
    (USER, false),
    (GROUP, false),
    (XATTR, true),
    (ACL_USER, true),
    (ACL_GROUP, true),
    (ACL_GROUP_OBJ, false),
    (ACL_DEFAULT, false),
    (ACL_DEFAULT_USER, true),
    (ACL_DEFAULT_GROUP, true),
    (SELINUX, false),
    (FCAPS, false),
    (QUOTA_PROJECT_ID, false),
];

impl NodeReader {
    /// Whether records of this type belong to an ENTRY.
    pub(super) fn takes(kind: u64) -> bool {
        STAGES.iter().any(|&(stage, _)| stage == kind)
    }

    /// Begins with the body of an ENTRY. `archive`: the flags of the ENTRYs before, which all have to be the same.
    pub(super) fn start(body: &[u8], archive: Option<FeatureFlags>) -> Result<Self, &'static str> {
        let flags = FeatureFlags(word(body, 0));
        if let Some(rule) = flags.broken_rule() {
            return Err(rule);
        }
        if archive.is_some_and(|archive| archive != flags) {
            return Err("an ENTRY's feature flags are not those of the root");
        }
        let mode = u32::try_from(word(body, 8)).map_err(|_| "an ENTRY's mode has unknown bits")?;
        let attributes = word(body, 16);
        let mtime = word(body, 40);
        let reader = Self {
            flags,
            metadata: Metadata {
                mode,
                attributes,
                uid: id(word(body, 24), flags)?,
                gid: id(word(body, 32), flags)?,
                mtime: if flags.is_desync_archive() {
                    i128::from(mtime.cast_signed())
                } else {
                    i128::from(mtime)
                },
                ..Metadata::default()
            },
            len: ENTRY_LEN,
            stage: 0,
        };
        reader.check_entry()?;
        Ok(reader)
    }

    fn check_entry(&self) -> Result<(), &'static str> {
        let (flags, meta) = (self.flags, &self.metadata);
        if meta.mode & !0o177_777 != 0 {
            return Err("an ENTRY's mode has unknown bits");
        }
        let kept = match kind_of(meta.mode) {
            0o040_000 | 0o100_000 => true,
            0o120_000 => flags.has(FeatureFlags::SYMLINKS),
            0o020_000 | 0o060_000 => flags.has(FeatureFlags::DEVICE_NODES),
            0o010_000 => flags.has(FeatureFlags::FIFOS),
            0o140_000 => flags.has(FeatureFlags::SOCKETS),
            _ => return Err("an ENTRY's mode is of no kind of inode"),
        };
        if !kept {
            return Err("an ENTRY is of a kind that the feature flags do not keep");
        }
        if meta.attributes & !(flags.0 & FeatureFlags::ATTRIBUTES) != 0 {
            return Err("an ENTRY has attributes that the feature flags do not keep");
        }
        if meta.attributes != 0 && !matches!(kind_of(meta.mode), 0o040_000 | 0o100_000) {
            return Err("an ENTRY that is neither a file nor a directory has attributes");
        }
        match flags.time_granularity() {
            None if meta.mtime != 0 => Err("an ENTRY has a time though the feature flags keep none"),
            Some(_) if !flags.is_desync_archive() && meta.mtime == i128::from(u64::MAX) => {
                Err("an ENTRY's time is all ones")
            }
            Some(granularity) if meta.mtime % i128::from(granularity) != 0 => {
                Err("an ENTRY's time is finer than the feature flags say")
            }
            _ => Ok(()),
        }
    }

    /// Takes a record that [`NodeReader::takes`] says belongs here.
    pub(super) fn add(&mut self, kind: u64, body: Bytes, limit: u64) -> Result<(), &'static str> {
        self.len += HEADER_LEN + body.len() as u64;
        if self.len > limit {
            return Err("an entry's metadata is longer than the limit");
        }
        let stage = STAGES.iter().position(|&(stage, _)| stage == kind);
        let stage = stage.ok_or("a record that belongs to no ENTRY")?;
        let (_, several) = STAGES[stage];
        if stage + 1 < self.stage || stage + 1 == self.stage && !several {
            return Err("an entry's records are not in their order, or there are two of a kind");
        }
        self.stage = stage + 1;

        let flags = self.flags;
        let has = |bits| flags.has(bits);
        let desync = flags.is_desync_archive();
        let meta = &mut self.metadata;
        let kept = match kind {
            USER | GROUP => has(FeatureFlags::USER_NAMES),
            XATTR => has(FeatureFlags::XATTRS),
            SELINUX => has(FeatureFlags::SELINUX),
            FCAPS => has(FeatureFlags::FCAPS),
            QUOTA_PROJECT_ID => has(FeatureFlags::QUOTA_PROJECT_ID),
            _ => has(FeatureFlags::ACL),
        };
        if !kept {
            return Err("an entry has a record of a kind that the feature flags do not keep");
        }
        let inode = kind_of(meta.mode);
        let (is_file, is_directory) = (inode == 0o100_000, inode == 0o040_000);
        let fits = match kind {
            USER | GROUP | SELINUX => true,
            FCAPS => is_file,
            QUOTA_PROJECT_ID => is_file || is_directory,
            ACL_DEFAULT | ACL_DEFAULT_USER | ACL_DEFAULT_GROUP => is_directory,
            _ => inode != 0o120_000 || desync,
        };
        if !fits {
            return Err("an entry has a record that does not go with its kind of inode");
        }
        match kind {
            USER => meta.user = Some(user_name(&body)?),
            GROUP => meta.group = Some(user_name(&body)?),
            XATTR => {
                let xattr = xattr(&body, desync)?;
                if meta.xattrs.last().is_some_and(|last| last.name >= xattr.name) {
                    return Err("extended attributes are not in the order of their names, or one is there twice");
                }
                meta.xattrs.push(xattr);
            }
            ACL_USER => push_acl(&mut meta.acl.users, &body, flags)?,
            ACL_GROUP => push_acl(&mut meta.acl.groups, &body, flags)?,
            ACL_DEFAULT_USER => push_acl(&mut meta.acl.default_users, &body, flags)?,
            ACL_DEFAULT_GROUP => push_acl(&mut meta.acl.default_groups, &body, flags)?,
            ACL_GROUP_OBJ => meta.acl.group_obj = Some(permissions(word(&body, 0))?),
            ACL_DEFAULT => {
                meta.acl.default = Some(AclDefault {
                    user_obj: permissions(word(&body, 0))?,
                    group_obj: permissions(word(&body, 8))?,
                    other: permissions(word(&body, 16))?,
                    mask: match word(&body, 24) {
                        u64::MAX => None,
                        mask => Some(permissions(mask)?),
                    },
                });
            }
            SELINUX => meta.selinux = Some(text(&body).ok_or("a label is empty, holds a NUL or does not end in one")?),
            FCAPS => meta.fcaps = Some(body),
            QUOTA_PROJECT_ID => {
                let project = u32::try_from(word(&body, 0)).ok().filter(|&project| project != 0);
                meta.quota_project = Some(project.ok_or("a quota project is 0 or above 2^32 - 1")?);
            }
            _ => return Err("a record that belongs to no ENTRY"),
        }
        Ok(())
    }

    /// The rule that the records break together, if any.
    pub(super) fn broken_rule(&self) -> Option<&'static str> {
        let acl = &self.metadata.acl;
        if acl.group_obj.is_none() && !(acl.users.is_empty() && acl.groups.is_empty()) {
            return Some("an ACL has named entries but no ACL_GROUP_OBJ");
        }
        let named = !(acl.default_users.is_empty() && acl.default_groups.is_empty());
        let masked = acl.default.is_some_and(|default| default.mask.is_some());
        (named && !masked).then_some("a default ACL has named entries but no mask")
    }
}

fn id(id: u64, flags: FeatureFlags) -> Result<u32, &'static str> {
    let id = u32::try_from(id).map_err(|_| "a user or group id is above 2^32 - 1")?;
    let good = if flags.has(FeatureFlags::UIDS_32BIT) {
        id != NO_ID_16 && id != NO_ID_32
    } else if flags.has(FeatureFlags::UIDS_16BIT) {
        id < NO_ID_16
    } else {
        id == 0
    };
    if good {
        Ok(id)
    } else {
        Err("a user or group id that the feature flags do not allow (65535 and 2^32 - 1 mean none)")
    }
}

fn permissions(word: u64) -> Result<u8, &'static str> {
    if word & OTHER_PERMISSIONS == 0 {
        Ok(word as u8)
    } else {
        Err("an ACL has permissions other than 1, 2 and 4")
    }
}

fn user_name(body: &Bytes) -> Result<Bytes, &'static str> {
    let name = text(body).ok_or("a user or group name is empty, holds a NUL or does not end in one")?;
    if is_owner_name(&name) {
        Ok(name)
    } else {
        Err("a user or group name is root, or holds other characters than casync allows")
    }
}

/// Whether archives take it as the name of a user or group: `[A-Za-z_][A-Za-z0-9_-]*` of at most 255 bytes, and root, which is
/// known by its number, goes without.
pub fn is_owner_name(name: &[u8]) -> bool {
    let first = name
        .first()
        .is_some_and(|first| first.is_ascii_alphabetic() || *first == b'_');
    let rest = name
        .iter()
        .all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'-'));
    first && rest && name.len() <= NAME_LEN_MAX && name != b"root"
}

fn xattr(body: &Bytes, desync: bool) -> Result<Xattr, &'static str> {
    let end = body.iter().position(|&byte| byte == 0);
    let end = end.ok_or("an extended attribute's name does not end in a NUL")?;
    let name = body.slice(..end);
    let mut value = body.slice(end + 1..);
    if desync && value.last() == Some(&0) {
        value.truncate(value.len() - 1);
    }
    if let Some(rule) = broken_xattr_rule(&name, &value) {
        return Err(rule);
    }
    Ok(Xattr { name, value })
}

fn broken_xattr_rule(name: &[u8], value: &[u8]) -> Option<&'static str> {
    let dot = name.iter().position(|&byte| byte == b'.');
    if !dot.is_some_and(|dot| dot > 0 && name.last() != Some(&b'.')) {
        Some("an extended attribute's name has no dot inside")
    } else if name.len() > NAME_LEN_MAX || name.contains(&0) {
        Some("an extended attribute's name is longer than 255 bytes or holds a NUL")
    } else if value.len() > XATTR_VALUE_LEN_MAX {
        Some("an extended attribute's value is longer than 64 KiB")
    } else {
        None
    }
}

fn push_acl(entries: &mut Vec<AclEntry>, body: &Bytes, flags: FeatureFlags) -> Result<(), &'static str> {
    let name = match body.len() {
        16 => None,
        _ => Some(user_name(&body.slice(16..))?),
    };
    let entry = AclEntry {
        id: id(word(body, 0), flags)?,
        name,
        permissions: permissions(word(body, 8))?,
    };
    let key = |entry: &AclEntry| (entry.id, entry.name.clone(), entry.permissions);
    if entries.last().is_some_and(|last| key(last) >= key(&entry)) {
        return Err("ACL entries are not in the order of their ids and names, or one is there twice");
    }
    entries.push(entry);
    Ok(())
}

/// Appends ENTRY and its records.
///
/// Errors: the rule that the node breaks; `out` is then as long as it was.
pub(super) fn push_node(
    metadata: &Metadata,
    content: &Content,
    flags: FeatureFlags,
    out: &mut Vec<u8>,
) -> Result<(), &'static str> {
    let start = out.len();
    let result = try_push_node(metadata, content, flags, out);
    if result.is_err() {
        out.truncate(start);
    }
    result
}

fn try_push_node(
    metadata: &Metadata,
    content: &Content,
    flags: FeatureFlags,
    out: &mut Vec<u8>,
) -> Result<(), &'static str> {
    if kind_of(metadata.mode) != content.kind_bits() {
        return Err("the mode is of another kind of inode");
    }
    let desync = flags.is_desync_archive();
    let mtime = if desync {
        i64::try_from(metadata.mtime).map(i64::cast_unsigned)
    } else {
        u64::try_from(metadata.mtime)
    };
    let mtime = mtime.map_err(|_| "a time before 1970 or after 2554 has no place in an archive")?;
    let words = [
        ENTRY_LEN,
        ENTRY_TYPE,
        flags.0,
        u64::from(metadata.mode),
        metadata.attributes,
        u64::from(metadata.uid),
        u64::from(metadata.gid),
        mtime,
    ];
    let entry = out.len();
    push_words(out, &words);
    // What is read is checked there; what is written obeys the same rules, so it goes through the same code.
    let mut check = NodeReader::start(&out[entry + HEADER_LEN as usize..], Some(flags))?;
    let mut push = |kind: u64, body: &[&[u8]]| {
        let at = out.len();
        push_record(out, kind, body);
        check.add(kind, Bytes::copy_from_slice(&out[at + HEADER_LEN as usize..]), u64::MAX)
    };
    for (kind, name) in [(USER, &metadata.user), (GROUP, &metadata.group)] {
        if let Some(name) = name {
            push(kind, &[name, b"\0"])?;
        }
    }
    for xattr in &metadata.xattrs {
        if let Some(rule) = broken_xattr_rule(&xattr.name, &xattr.value) {
            return Err(rule);
        }
        push(
            XATTR,
            &[&xattr.name, b"\0", &xattr.value, if desync { b"\0" } else { b"" }],
        )?;
    }
    let acl = &metadata.acl;
    for (kind, entries) in [(ACL_USER, &acl.users), (ACL_GROUP, &acl.groups)] {
        push_acl_entries(kind, entries, &mut push)?;
    }
    if let Some(permissions) = acl.group_obj {
        push(ACL_GROUP_OBJ, &[&u64::from(permissions).to_le_bytes()])?;
    }
    if let Some(default) = acl.default {
        let mask = default.mask.map_or(u64::MAX, u64::from);
        let word = |permissions: u8| u64::from(permissions).to_le_bytes();
        let (user, group, other) = (word(default.user_obj), word(default.group_obj), word(default.other));
        push(ACL_DEFAULT, &[&user, &group, &other, &mask.to_le_bytes()])?;
    }
    for (kind, entries) in [
        (ACL_DEFAULT_USER, &acl.default_users),
        (ACL_DEFAULT_GROUP, &acl.default_groups),
    ] {
        push_acl_entries(kind, entries, &mut push)?;
    }
    if let Some(label) = &metadata.selinux {
        push(SELINUX, &[label, b"\0"])?;
    }
    if let Some(value) = &metadata.fcaps {
        push(FCAPS, &[value])?;
    }
    if let Some(project) = metadata.quota_project {
        push(QUOTA_PROJECT_ID, &[&u64::from(project).to_le_bytes()])?;
    }
    check.broken_rule().map_or(Ok(()), Err)
}

fn push_acl_entries(
    kind: u64,
    entries: &[AclEntry],
    push: &mut impl FnMut(u64, &[&[u8]]) -> Result<(), &'static str>,
) -> Result<(), &'static str> {
    for entry in entries {
        let (id, permissions) = (u64::from(entry.id), u64::from(entry.permissions));
        let (id, permissions) = (id.to_le_bytes(), permissions.to_le_bytes());
        match &entry.name {
            Some(name) => push(kind, &[&id, &permissions, name, b"\0"])?,
            None => push(kind, &[&id, &permissions])?,
        }
    }
    Ok(())
}
