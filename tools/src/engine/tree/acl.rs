//! POSIX access control lists as the kernel hands them over (`system.posix_acl_access`, `system.posix_acl_default`), and as
//! archives keep them.
//!
//! An attribute is a 4-byte version, 2, and 8-byte entries: tag, permissions (16 bits each), id (32 bits), little-endian.
//! Archives keep the owner's, the mask's and the others' entries of an access list in the mode, and the group's beside it.

use bytes::Bytes;
use cairn_formats::{Acl, AclDefault, AclEntry};

use super::system::{Owner, Owners};

/// Name of the access list's attribute.
pub(super) const ACCESS: &str = "system.posix_acl_access";
/// Name of the default list's attribute.
pub(super) const DEFAULT: &str = "system.posix_acl_default";

const VERSION: u32 = 2;
const USER_OBJ: u16 = 0x01;
const USER: u16 = 0x02;
const GROUP_OBJ: u16 = 0x04;
const GROUP: u16 = 0x08;
const MASK: u16 = 0x10;
const OTHER: u16 = 0x20;
/// Id of entries that have none.
const NO_ID: u32 = u32::MAX;

/// What the entries of one attribute say.
#[derive(Debug, Default)]
pub(super) struct List {
    user_obj: Option<u8>,
    group_obj: Option<u8>,
    mask: Option<u8>,
    other: Option<u8>,
    /// Ids and permissions.
    users: Vec<(u32, u8)>,
    groups: Vec<(u32, u8)>,
}

impl List {
    /// Reads an attribute; `None` when it is none.
    pub(super) fn parse(attribute: &[u8]) -> Option<Self> {
        let (version, entries) = attribute.split_first_chunk::<4>()?;
        if u32::from_le_bytes(*version) != VERSION || entries.len() % 8 != 0 {
            return None;
        }
        let mut list = Self::default();
        for entry in entries.chunks_exact(8) {
            let tag = u16::from_le_bytes([entry[0], entry[1]]);
            let permissions = entry[2] & 7;
            let id = u32::from_le_bytes([entry[4], entry[5], entry[6], entry[7]]);
            match tag {
                USER_OBJ => list.user_obj = Some(permissions),
                USER => list.users.push((id, permissions)),
                GROUP_OBJ => list.group_obj = Some(permissions),
                GROUP => list.groups.push((id, permissions)),
                MASK => list.mask = Some(permissions),
                OTHER => list.other = Some(permissions),
                _ => return None,
            }
        }
        Some(list)
    }

    /// Reads the text of acl(5), short or long, entries apart by commas or lines; a fourth field (star's number) counts before a
    /// name. `None` when it is none, or names nobody here.
    pub(super) fn parse_text(text: &[u8], owners: &mut Owners) -> Option<Self> {
        let text = std::str::from_utf8(text).ok()?;
        let mut list = Self::default();
        for entry in text.split([',', '\n']).map(str::trim).filter(|entry| !entry.is_empty()) {
            let mut fields = entry.split(':');
            let (tag, who, bits) = (fields.next()?, fields.next()?, fields.next()?);
            let mut permissions = 0;
            for letter in bits.bytes() {
                permissions |= match letter {
                    b'r' => 4,
                    b'w' => 2,
                    b'x' => 1,
                    b'-' => 0,
                    _ => return None,
                };
            }
            let number = fields.next().unwrap_or(who).parse().ok();
            let mut id = |owner: Owner| number.or_else(|| owners.id(owner, &Bytes::copy_from_slice(who.as_bytes())));
            match (tag, who) {
                ("user" | "u", "") => list.user_obj = Some(permissions),
                ("group" | "g", "") => list.group_obj = Some(permissions),
                ("mask" | "m", "") => list.mask = Some(permissions),
                ("other" | "o", "") => list.other = Some(permissions),
                ("user" | "u", _) => list.users.push((id(Owner::User)?, permissions)),
                ("group" | "g", _) => list.groups.push((id(Owner::Group)?, permissions)),
                _ => return None,
            }
        }
        Some(list)
    }

    /// Enters an access list.
    ///
    /// - `user`, `group`: how an entry is kept: the id and the name that the archive stores.
    pub(super) fn keep_access(
        self,
        acl: &mut Acl,
        user: impl FnMut(u32) -> (u32, Option<Bytes>),
        group: impl FnMut(u32) -> (u32, Option<Bytes>),
    ) {
        if self.mask.is_some() {
            acl.group_obj = self.group_obj;
        }
        acl.users = kept(self.users, user);
        acl.groups = kept(self.groups, group);
    }

    /// Enters a default list, as [`List::keep_access`].
    pub(super) fn keep_default(
        self,
        acl: &mut Acl,
        user: impl FnMut(u32) -> (u32, Option<Bytes>),
        group: impl FnMut(u32) -> (u32, Option<Bytes>),
    ) {
        if let (Some(user_obj), Some(group_obj), Some(other)) = (self.user_obj, self.group_obj, self.other) {
            acl.default = Some(AclDefault {
                user_obj,
                group_obj,
                other,
                mask: self.mask,
            });
            acl.default_users = kept(self.users, user);
            acl.default_groups = kept(self.groups, group);
        }
    }
}

/// Entries in an archive's order: by id, no name before a name, name, permissions.
fn kept(entries: Vec<(u32, u8)>, mut keep: impl FnMut(u32) -> (u32, Option<Bytes>)) -> Vec<AclEntry> {
    let mut kept: Vec<AclEntry> = entries
        .into_iter()
        .map(|(id, permissions)| {
            let (id, name) = keep(id);
            AclEntry { id, permissions, name }
        })
        .collect();
    kept.sort_by(|a, b| (a.id, &a.name, a.permissions).cmp(&(b.id, &b.name, b.permissions)));
    kept
}

/// The access list's attribute for a mode, or `None` where the mode says all.
///
/// - `users`, `groups`: the numbers on this system of the named entries, in order.
pub(super) fn access(acl: &Acl, mode: u32, users: &[u32], groups: &[u32]) -> Option<Vec<u8>> {
    let group_obj = acl.group_obj?;
    let class = |shift: u32| (mode >> shift & 7) as u8;
    Some(attribute(
        class(6),
        &numbered(&acl.users, users),
        group_obj,
        &numbered(&acl.groups, groups),
        Some(class(3)),
        class(0),
    ))
}

/// The default list's attribute, if there is one.
pub(super) fn default(acl: &Acl, users: &[u32], groups: &[u32]) -> Option<Vec<u8>> {
    let default = acl.default.as_ref()?;
    Some(attribute(
        default.user_obj,
        &numbered(&acl.default_users, users),
        default.group_obj,
        &numbered(&acl.default_groups, groups),
        default.mask,
        default.other,
    ))
}

fn numbered(entries: &[AclEntry], ids: &[u32]) -> Vec<(u32, u8)> {
    let permissions = entries.iter().map(|entry| entry.permissions);
    let mut numbered: Vec<(u32, u8)> = ids.iter().copied().zip(permissions).collect();
    numbered.sort_unstable();
    numbered
}

/// The kernel wants the tags in this order.
fn attribute(user: u8, users: &[(u32, u8)], group: u8, groups: &[(u32, u8)], mask: Option<u8>, other: u8) -> Vec<u8> {
    let mut attribute = Vec::from(VERSION.to_le_bytes());
    let mut push = |tag: u16, permissions: u8, id: u32| {
        attribute.extend_from_slice(&tag.to_le_bytes());
        attribute.extend_from_slice(&u16::from(permissions).to_le_bytes());
        attribute.extend_from_slice(&id.to_le_bytes());
    };
    push(USER_OBJ, user, NO_ID);
    for &(id, permissions) in users {
        push(USER, permissions, id);
    }
    push(GROUP_OBJ, group, NO_ID);
    for &(id, permissions) in groups {
        push(GROUP, permissions, id);
    }
    if let Some(mask) = mask {
        push(MASK, mask, NO_ID);
    }
    push(OTHER, other, NO_ID);
    attribute
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lists_survive_the_way_through_an_archive() {
        let bytes = attribute(7, &[(5, 6), (1000, 4)], 5, &[(0, 1)], Some(6), 4);
        let mut acl = Acl::default();
        let names = |id: u32| (id, (id == 5).then(|| Bytes::from_static(b"five")));
        List::parse(&bytes).unwrap().keep_access(&mut acl, names, names);
        assert_eq!((acl.group_obj, acl.users.len(), acl.groups.len()), (Some(5), 2, 1));
        assert_eq!(acl.users[0].name.as_deref(), Some(&b"five"[..]));
        assert_eq!(access(&acl, 0o100_764, &[5, 1000], &[0]), Some(bytes.clone()));
        let mut acl = Acl::default();
        List::parse(&bytes).unwrap().keep_default(&mut acl, names, names);
        assert_eq!(default(&acl, &[5, 1000], &[0]), Some(bytes));
        assert!(acl.users.is_empty() && access(&acl, 0o764, &[], &[]).is_none());
    }

    #[test]
    fn what_the_mode_says_needs_no_list() {
        let bytes = attribute(6, &[], 4, &[], None, 4);
        let mut acl = Acl::default();
        let names = |id: u32| (id, None);
        List::parse(&bytes).unwrap().keep_access(&mut acl, names, names);
        assert!(acl.group_obj.is_none() && acl.users.is_empty());
        assert!(List::parse(b"\x01\0\0\0").is_none() && List::parse(&bytes[..9]).is_none());
    }
}
