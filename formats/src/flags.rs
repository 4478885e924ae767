//! The 64-bit word that tells what the writer of an archive or an index kept.
//!
//! One word in every file, in what casync calls normal form: no bit that another one makes void. Byte table and the names:
//! `formats/FORMATS.md`, "Feature flags".

use crate::{Dialect, DigestAlgorithm};

/// What the writer of a file kept of the inodes that it read, and how chunks are named. Bits 13 to 27 are also what an inode's
/// own attributes word may hold.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FeatureFlags(pub u64);

/// Not a name of a feature flag, nor of a set of them.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "unknown feature {0:?}: expected one of casync's names, like user-names, nsec-time, xattrs, or a set: best, unix, fat, chattr, fat-attrs, privileged, fuse, all"
)]
pub struct ParseFlagError(String);

#[expect(missing_docs, reason = "the names are casync's and say it")]
impl FeatureFlags {
    pub const UIDS_16BIT: u64 = 1 << 0;
    pub const UIDS_32BIT: u64 = 1 << 1;
    pub const USER_NAMES: u64 = 1 << 2;
    pub const SEC_TIME: u64 = 1 << 3;
    pub const USEC_TIME: u64 = 1 << 4;
    pub const NSEC_TIME: u64 = 1 << 5;
    pub const TWO_SEC_TIME: u64 = 1 << 6;
    pub const READ_ONLY: u64 = 1 << 7;
    pub const PERMISSIONS: u64 = 1 << 8;
    pub const SYMLINKS: u64 = 1 << 9;
    pub const DEVICE_NODES: u64 = 1 << 10;
    pub const FIFOS: u64 = 1 << 11;
    pub const SOCKETS: u64 = 1 << 12;
    pub const FLAG_HIDDEN: u64 = 1 << 13;
    pub const FLAG_SYSTEM: u64 = 1 << 14;
    pub const FLAG_ARCHIVE: u64 = 1 << 15;
    pub const FLAG_APPEND: u64 = 1 << 16;
    pub const FLAG_NOATIME: u64 = 1 << 17;
    pub const FLAG_COMPR: u64 = 1 << 18;
    pub const FLAG_NOCOW: u64 = 1 << 19;
    pub const FLAG_NODUMP: u64 = 1 << 20;
    pub const FLAG_DIRSYNC: u64 = 1 << 21;
    pub const FLAG_IMMUTABLE: u64 = 1 << 22;
    pub const FLAG_SYNC: u64 = 1 << 23;
    pub const FLAG_NOCOMP: u64 = 1 << 24;
    pub const FLAG_PROJINHERIT: u64 = 1 << 25;
    pub const SUBVOLUME: u64 = 1 << 26;
    pub const SUBVOLUME_READ_ONLY: u64 = 1 << 27;
    pub const XATTRS: u64 = 1 << 28;
    pub const ACL: u64 = 1 << 29;
    pub const SELINUX: u64 = 1 << 30;
    pub const FCAPS: u64 = 1 << 31;
    pub const QUOTA_PROJECT_ID: u64 = 1 << 32;
    pub const EXCLUDE_FILE: u64 = 1 << 60;
    pub const SHA512_256: u64 = 1 << 61;
    pub const EXCLUDE_SUBMOUNTS: u64 = 1 << 62;
    pub const EXCLUDE_NODUMP: u64 = 1 << 63;
}

/// Every flag that people name, by its name on casync's command line.
const NAMES: [(&str, u64); 33] = [
    ("16bit-uids", FeatureFlags::UIDS_16BIT),
    ("32bit-uids", FeatureFlags::UIDS_32BIT),
    ("user-names", FeatureFlags::USER_NAMES),
    ("sec-time", FeatureFlags::SEC_TIME),
    ("usec-time", FeatureFlags::USEC_TIME),
    ("nsec-time", FeatureFlags::NSEC_TIME),
    ("2sec-time", FeatureFlags::TWO_SEC_TIME),
    ("read-only", FeatureFlags::READ_ONLY),
    ("permissions", FeatureFlags::PERMISSIONS),
    ("symlinks", FeatureFlags::SYMLINKS),
    ("device-nodes", FeatureFlags::DEVICE_NODES),
    ("fifos", FeatureFlags::FIFOS),
    ("sockets", FeatureFlags::SOCKETS),
    ("flag-hidden", FeatureFlags::FLAG_HIDDEN),
    ("flag-system", FeatureFlags::FLAG_SYSTEM),
    ("flag-archive", FeatureFlags::FLAG_ARCHIVE),
    ("flag-append", FeatureFlags::FLAG_APPEND),
    ("flag-noatime", FeatureFlags::FLAG_NOATIME),
    ("flag-compr", FeatureFlags::FLAG_COMPR),
    ("flag-nocow", FeatureFlags::FLAG_NOCOW),
    ("flag-nodump", FeatureFlags::FLAG_NODUMP),
    ("flag-dirsync", FeatureFlags::FLAG_DIRSYNC),
    ("flag-immutable", FeatureFlags::FLAG_IMMUTABLE),
    ("flag-sync", FeatureFlags::FLAG_SYNC),
    ("flag-nocomp", FeatureFlags::FLAG_NOCOMP),
    ("flag-projinherit", FeatureFlags::FLAG_PROJINHERIT),
    ("subvolume", FeatureFlags::SUBVOLUME),
    ("subvolume-ro", FeatureFlags::SUBVOLUME_READ_ONLY),
    ("xattrs", FeatureFlags::XATTRS),
    ("acl", FeatureFlags::ACL),
    ("selinux", FeatureFlags::SELINUX),
    ("fcaps", FeatureFlags::FCAPS),
    ("quota-projid", FeatureFlags::QUOTA_PROJECT_ID),
];

/// Sets of flags that casync names.
const SETS: [(&str, u64); 8] = [
    ("best", FeatureFlags::BEST),
    ("unix", 0x1f09),
    ("fat", 0xe0c0),
    ("chattr", 0x3ff_0000),
    ("fat-attrs", 0xe000),
    ("privileged", 0x1_ec41_4407),
    ("fuse", 0x13ff_fffb),
    ("all", 0x1_ffff_ffff),
];

impl FeatureFlags {
    /// Every bit that has a meaning.
    const KNOWN: u64 = 0xf000_0001_ffff_ffff;
    /// The most that archives keep: of flags that exclude each other, the one that keeps more.
    const BEST: u64 = 0x1_ffff_fe26;
    /// What desync writes in an archive, whatever is in it.
    const DESYNC_ARCHIVE: u64 = 0xb000_0000_1000_1f22;
    /// Bits that an inode's own attributes word may hold.
    pub(crate) const ATTRIBUTES: u64 = 0xfff_e000;

    /// What casync 2 writes in the index of a blob.
    pub fn blob(algorithm: DigestAlgorithm) -> Self {
        Self(Self::EXCLUDE_FILE | Self::EXCLUDE_NODUMP).with_digest(algorithm)
    }

    /// What casync 2 writes in an archive when it is told nothing: all that it can keep, exclude files and nodump honoured.
    pub fn archive(algorithm: DigestAlgorithm) -> Self {
        Self(Self::BEST | Self::EXCLUDE_FILE | Self::EXCLUDE_NODUMP)
            .with_digest(algorithm)
            .normal_form()
    }

    /// What desync writes in an archive.
    pub fn desync_archive() -> Self {
        Self(Self::DESYNC_ARCHIVE)
    }

    /// Whether this is desync's word: then attribute values may end in a NUL too many, and times are signed.
    pub fn is_desync_archive(self) -> bool {
        self.0 == Self::DESYNC_ARCHIVE
    }

    /// The flags of one of casync's names, or of one of its sets.
    ///
    /// Errors: [`ParseFlagError`] with the name, when it is neither.
    pub fn named(name: &str) -> Result<Self, ParseFlagError> {
        let mut all = NAMES.iter().chain(&SETS);
        let found = all.find(|(known, _)| *known == name);
        found
            .map(|&(_, bits)| Self(bits))
            .ok_or_else(|| ParseFlagError(name.to_owned()))
    }

    /// The names of the flags that are set, in the order of their bits; those without a name on casync's command line are
    /// left out.
    pub fn names(self) -> impl Iterator<Item = &'static str> {
        NAMES
            .into_iter()
            .filter(move |&(_, bit)| self.0 & bit != 0)
            .map(|(name, _)| name)
    }

    /// Whether any of these bits is set.
    pub fn has(self, bits: u64) -> bool {
        self.0 & bits != 0
    }

    /// The same flags with another digest.
    pub fn with_digest(self, algorithm: DigestAlgorithm) -> Self {
        match algorithm {
            DigestAlgorithm::Sha512_256 => Self(self.0 | Self::SHA512_256),
            DigestAlgorithm::Sha256 => Self(self.0 & !Self::SHA512_256),
        }
    }

    /// The same flags without those that others make void.
    pub fn normal_form(self) -> Self {
        let mut bits = self.0;
        for (strong, weak) in [
            (Self::UIDS_32BIT, Self::UIDS_16BIT),
            (Self::NSEC_TIME, Self::USEC_TIME | Self::SEC_TIME | Self::TWO_SEC_TIME),
            (Self::USEC_TIME, Self::SEC_TIME | Self::TWO_SEC_TIME),
            (Self::SEC_TIME, Self::TWO_SEC_TIME),
            (Self::ACL, Self::PERMISSIONS | Self::READ_ONLY),
            (Self::PERMISSIONS, Self::READ_ONLY),
            (Self::EXCLUDE_NODUMP, Self::FLAG_NODUMP),
        ] {
            if bits & strong != 0 {
                bits &= !weak;
            }
        }
        if bits & Self::SUBVOLUME == 0 {
            bits &= !Self::SUBVOLUME_READ_ONLY;
        }
        Self(bits)
    }

    /// The rule that these flags break, if any. casync refuses a file whose flags are not in normal form, and writes no other.
    pub fn broken_rule(self) -> Option<&'static str> {
        let has = |flags| self.has(flags);
        if has(!Self::KNOWN) {
            Some("feature flags with unknown bits")
        } else if has(Self::UIDS_32BIT) && has(Self::UIDS_16BIT) {
            Some("feature flags with both 32-bit and 16-bit user ids")
        } else if has(Self::NSEC_TIME) && has(Self::USEC_TIME | Self::SEC_TIME | Self::TWO_SEC_TIME)
            || has(Self::USEC_TIME) && has(Self::SEC_TIME | Self::TWO_SEC_TIME)
            || has(Self::SEC_TIME) && has(Self::TWO_SEC_TIME)
        {
            Some("feature flags with more than one granularity of time")
        } else if has(Self::ACL) && has(Self::PERMISSIONS | Self::READ_ONLY) {
            Some("feature flags with ACLs and permissions")
        } else if has(Self::ACL) && !has(Self::UIDS_16BIT | Self::UIDS_32BIT | Self::USER_NAMES) {
            Some("feature flags with ACLs but without users")
        } else if has(Self::PERMISSIONS) && has(Self::READ_ONLY) {
            Some("feature flags with permissions and read-only")
        } else if has(Self::EXCLUDE_NODUMP) && has(Self::FLAG_NODUMP) {
            Some("feature flags that keep the nodump attribute and skip files that have it")
        } else if has(Self::SUBVOLUME_READ_ONLY) && !has(Self::SUBVOLUME) {
            Some("feature flags with read-only subvolumes but without subvolumes")
        } else {
            None
        }
    }

    /// The digest that names the chunks (bit 61).
    pub fn digest_algorithm(self) -> DigestAlgorithm {
        if self.has(Self::SHA512_256) {
            DigestAlgorithm::Sha512_256
        } else {
            DigestAlgorithm::Sha256
        }
    }

    /// Whose cuts an index with these flags has, as far as they tell: desync up to v1.1.0 leaves bit 60 clear in the index of
    /// a blob, and cuts by its own rule.
    pub fn dialect(self) -> Dialect {
        let of_blob = self.0 & 0x1_ffff_ffff == 0;
        if of_blob && !self.has(Self::EXCLUDE_FILE) {
            Dialect::Desync
        } else {
            Dialect::Casync
        }
    }

    /// Nanoseconds between two times that can be told apart, or `None` when no times are kept.
    pub fn time_granularity(self) -> Option<u64> {
        const GRANULARITIES: [(u64, u64); 4] = [
            (FeatureFlags::NSEC_TIME, 1),
            (FeatureFlags::USEC_TIME, 1_000),
            (FeatureFlags::SEC_TIME, 1_000_000_000),
            (FeatureFlags::TWO_SEC_TIME, 2_000_000_000),
        ];
        let mut all = GRANULARITIES.into_iter();
        all.find(|&(flag, _)| self.has(flag))
            .map(|(_, granularity)| granularity)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What casync 2+20201210 and desync v1.1.0 were seen to write.
    #[test]
    fn the_words_that_writers_put_in_archives() {
        let archive = FeatureFlags::archive(DigestAlgorithm::Sha512_256);
        assert_eq!(archive, FeatureFlags(0xb000_0001_ffef_fe26));
        assert_eq!(
            FeatureFlags::archive(DigestAlgorithm::Sha256),
            FeatureFlags(0x9000_0001_ffef_fe26)
        );
        assert_eq!(archive.broken_rule(), None);
        assert_eq!(FeatureFlags::desync_archive().broken_rule(), None);
    }

    #[test]
    fn normal_form_breaks_no_rule() {
        let mut random = fastrand::Rng::with_seed(5);
        for _ in 0..10_000 {
            let flags = FeatureFlags(random.u64(..) & FeatureFlags::KNOWN | FeatureFlags::USER_NAMES).normal_form();
            assert_eq!(flags.broken_rule(), None, "{:#x}", flags.0);
        }
    }

    #[test]
    fn names_round_trip() {
        for (name, bits) in NAMES {
            assert_eq!(FeatureFlags::named(name).unwrap().0, bits);
            assert_eq!(FeatureFlags(bits).names().collect::<Vec<_>>(), [name]);
        }
        let error = FeatureFlags::named("atime").unwrap_err().to_string();
        assert!(error.starts_with("unknown feature \"atime\""), "{error}");
    }
}
