//! An archived inode as the system would show it: owner, extended attributes, attribute bits.

use std::sync::Mutex;

use bytes::Bytes;
use cairn_formats::{AclEntry, Content, FeatureFlags, Metadata, Node};

use super::acl;
use super::features::{to_chattr, to_fat};
use super::system::{Owner, Owners};
use crate::engine::batch::lock;

/// Shows the inodes of one archive. Any number of threads may ask.
#[derive(Debug)]
pub(crate) struct Shown {
    flags: FeatureFlags,
    owners: Mutex<Owners>,
}

impl Shown {
    /// - `flags`: of the archive.
    pub(crate) fn new(flags: FeatureFlags) -> Self {
        let owners = Mutex::default();
        Self { flags, owners }
    }

    /// User and group here: by name where the archive keeps names and this system has it, else by number.
    pub(crate) fn owner(&self, metadata: &Metadata) -> (u32, u32) {
        (
            self.id(Owner::User, metadata.user.as_ref(), metadata.uid),
            self.id(Owner::Group, metadata.group.as_ref(), metadata.gid),
        )
    }

    fn id(&self, owner: Owner, name: Option<&Bytes>, number: u32) -> u32 {
        name.and_then(|name| lock(&self.owners).id(owner, name))
            .unwrap_or(number)
    }

    /// All extended attributes, those that archives keep apart too, by name.
    pub(crate) fn xattrs(&self, node: &Node) -> Vec<(Bytes, Bytes)> {
        let metadata = &node.metadata;
        let mut xattrs: Vec<(Bytes, Bytes)> = metadata
            .xattrs
            .iter()
            .map(|xattr| (xattr.name.clone(), xattr.value.clone()))
            .collect();
        let mut add = |name: &'static str, value: Bytes| xattrs.push((Bytes::from_static(name.as_bytes()), value));
        if let Some(value) = &metadata.fcaps {
            add("security.capability", value.clone());
        }
        if let Some(label) = &metadata.selinux {
            // The kernel counts the NUL in.
            add("security.selinux", [&label[..], b"\0"].concat().into());
        }
        let ids = |owner: Owner, entries: &[AclEntry]| -> Vec<u32> {
            entries
                .iter()
                .map(|entry| self.id(owner, entry.name.as_ref(), entry.id))
                .collect()
        };
        let list = &metadata.acl;
        let (users, groups) = (ids(Owner::User, &list.users), ids(Owner::Group, &list.groups));
        if let Some(value) = acl::access(list, metadata.mode, &users, &groups) {
            add(acl::ACCESS, value.into());
        }
        let (users, groups) = (
            ids(Owner::User, &list.default_users),
            ids(Owner::Group, &list.default_groups),
        );
        if let Some(value) = acl::default(list, &users, &groups) {
            add(acl::DEFAULT, value.into());
        }
        xattrs.sort();
        // An archive of desync's may have one of them as a plain attribute too.
        xattrs.dedup_by(|one, before| one.0 == before.0);
        xattrs
    }

    /// `FS_*_FL` bits, as `lsattr` shows them.
    pub(crate) fn attribute_bits(&self, metadata: &Metadata) -> u32 {
        to_chattr(metadata.attributes & self.flags.0)
    }

    /// FAT's attributes, as `fatattr` shows them.
    pub(crate) fn fat_bits(&self, metadata: &Metadata) -> u32 {
        to_fat(metadata.attributes & self.flags.0)
    }

    /// The number of a device, 0 for other inodes.
    pub(crate) fn device(node: &Node) -> (u32, u32) {
        match node.content {
            Content::CharacterDevice(device) | Content::BlockDevice(device) => (device.major, device.minor),
            _ => (0, 0),
        }
    }
}
