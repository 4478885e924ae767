//! Records: a size, a type, a body.

use bytes::Bytes;

pub(super) use crate::words::{push_record, push_words, word};

pub(crate) const ENTRY_TYPE: u64 = 0x1396_fabc_ea5b_bb51;
pub(super) const USER: u64 = 0xf453_131a_aeea_ccb3;
pub(super) const GROUP: u64 = 0x25eb_6ac9_6939_6a52;
pub(super) const XATTR: u64 = 0xb815_7091_f80b_c486;
pub(super) const ACL_USER: u64 = 0x297d_c88b_2ef1_2faf;
pub(super) const ACL_GROUP: u64 = 0x36f2_acb5_6cb3_dd0b;
pub(super) const ACL_GROUP_OBJ: u64 = 0x2304_7110_441f_38f3;
pub(super) const ACL_DEFAULT: u64 = 0xfe3e_eda6_823c_8cd0;
pub(super) const ACL_DEFAULT_USER: u64 = 0xbdf0_3df9_bd01_0a91;
pub(super) const ACL_DEFAULT_GROUP: u64 = 0xa0cb_1168_782d_1f51;
pub(super) const SELINUX: u64 = 0x46fa_f060_2fd2_6c59;
pub(super) const FCAPS: u64 = 0xf726_7db0_afed_0629;
pub(super) const QUOTA_PROJECT_ID: u64 = 0x161b_af2d_8772_a72b;
pub(super) const PAYLOAD: u64 = 0x8b9e_1d93_d6dc_ffc9;
pub(super) const SYMLINK: u64 = 0x664a_6fb6_830e_0d6c;
pub(super) const DEVICE: u64 = 0xac3d_ace3_69df_e643;
pub(super) const FILENAME: u64 = 0x6dbb_6ebc_b316_1f0b;
pub(super) const GOODBYE: u64 = 0xdfd3_5c5e_8327_c403;

pub(super) const HEADER_LEN: u64 = crate::words::HEADER_LEN as u64;
pub(super) const ENTRY_LEN: u64 = 64;

/// Bytes of a name in a directory, of a user, of a group.
pub(super) const NAME_LEN_MAX: usize = 255;
/// Bytes of a symbolic link's target, of a label.
pub(super) const TARGET_LEN_MAX: usize = 4095;
/// Bytes of an extended attribute's value.
pub(super) const XATTR_VALUE_LEN_MAX: usize = 65536;
/// Where an archive ends at the latest, and so what a file's length is below: file systems count in signed 64-bit numbers.
pub(super) const ARCHIVE_LEN_MAX: u64 = i64::MAX as u64;
/// Bytes of `security.capability`; 24 is the longest that kernels know.
pub(super) const FCAPS_LEN_MAX: usize = 4096;

/// Size and type of a record.
#[derive(Clone, Copy, Debug)]
pub(super) struct Header {
    pub(super) size: u64,
    pub(super) kind: u64,
}

impl Header {
    pub(super) fn parse(bytes: &[u8]) -> Self {
        Self {
            size: word(bytes, 0),
            kind: word(bytes, 8),
        }
    }

    /// The sizes that a record of this type may have, header included, or `None` for an unknown type. GOODBYE's depends on
    /// the directory.
    pub(super) fn sizes(self) -> Option<std::ops::RangeInclusive<u64>> {
        let name_max = HEADER_LEN + NAME_LEN_MAX as u64 + 1;
        Some(match self.kind {
            ENTRY_TYPE => ENTRY_LEN..=ENTRY_LEN,
            USER | GROUP | FILENAME => 18..=name_max,
            // One more: desync ends values with a NUL.
            XATTR => 20..=HEADER_LEN + NAME_LEN_MAX as u64 + 1 + XATTR_VALUE_LEN_MAX as u64 + 1,
            ACL_USER | ACL_GROUP | ACL_DEFAULT_USER | ACL_DEFAULT_GROUP => 32..=name_max + 16,
            ACL_GROUP_OBJ | QUOTA_PROJECT_ID => 24..=24,
            ACL_DEFAULT => 48..=48,
            SELINUX | SYMLINK => 18..=HEADER_LEN + TARGET_LEN_MAX as u64 + 1,
            FCAPS => 16..=HEADER_LEN + FCAPS_LEN_MAX as u64,
            PAYLOAD => 16..=ARCHIVE_LEN_MAX,
            DEVICE => 32..=32,
            GOODBYE => 40..=ARCHIVE_LEN_MAX,
            _ => return None,
        })
    }
}

/// The text of a body that ends with its only NUL.
pub(super) fn text(body: &Bytes) -> Option<Bytes> {
    let (last, text) = body.split_last()?;
    (*last == 0 && !text.is_empty() && !text.contains(&0)).then(|| body.slice(..text.len()))
}

/// The rule that a name of a directory entry breaks, if any.
pub(super) fn broken_name_rule(name: &[u8]) -> Option<&'static str> {
    match name {
        [] => Some("a name is empty"),
        b"." | b".." => Some("a name is . or .."),
        _ if name.len() > NAME_LEN_MAX => Some("a name is longer than 255 bytes"),
        _ if name.contains(&b'/') => Some("a name holds a /"),
        _ if name.contains(&0) => Some("a name holds a NUL"),
        _ => None,
    }
}
