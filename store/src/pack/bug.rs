//! Bugs that the simulators must find (`sim/`): each is one line turned around. In a program none of them is there.

/// A bug that a test can plant.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
// Nobody else has a use for all of them, and nobody outside for any.
#[cfg_attr(not(any(test, feature = "sim")), allow(dead_code, unreachable_pub))]
pub enum Bug {
    /// Records are acknowledged before the sync.
    MissingSync,
    /// A new pack's name is not synced.
    MissingNameSync,
    /// After a failed sync the same file is used and synced again.
    TrustAfterFailedSync,
    /// A pack is removed before what was moved out of it is durable.
    UnlinkFirst,
    /// Frames are not compared with the sum in their place.
    UncheckedFrame,
    /// The locations are told that more of the log has been applied than has.
    EarlyWatermark,
    /// A batch of the index counts although something before it is torn.
    CommitBehindGap,
    /// Compaction forgets which chunks were removed from older packs.
    ForgottenRemovals,
    /// A snapshot of the index counts before all of it is there.
    HalfSnapshot,
    /// Compaction forgets pieces of the snapshot that counts.
    ForgottenPieces,
    /// The collector does not look at what was named while it condemned (`index`).
    MissingRemark,
    /// The collector takes away what it condemned wherever it is by now (`index`).
    SweepById,
    /// A version is named although chunks may have been collected since they were found (`index`).
    UnfencedVersion,
    /// Parts stay when their upload has ended (`index`).
    KeptParts,
    /// An event is written before the change that it tells of (`index`).
    EventOutside,
    /// A seam counts although the part behind it was sent again (`index`).
    StaleSeam,
    /// Packs that are compressed at rest are removed before what was made of them is durable.
    SqueezeFirst,
    /// Pages of a manifest stay when it has gone (`index`).
    KeptPages,
    /// Nobody asks whether the locations are ahead of a log that ends too early.
    AheadOfLog,
}

#[cfg(any(test, feature = "sim"))]
thread_local! {
    static PLANTED: std::cell::Cell<Option<Bug>> = const { std::cell::Cell::new(None) };
}

/// Plants a bug for whatever runs on this thread.
#[cfg(any(test, feature = "sim"))]
pub fn plant(bug: Option<Bug>) {
    PLANTED.set(bug);
}

/// Whether the bug is there: never, but in the simulator's own test.
#[cfg(any(test, feature = "sim"))]
pub fn is_planted(bug: Bug) -> bool {
    PLANTED.get() == Some(bug)
}

/// Never.
#[cfg(not(any(test, feature = "sim")))]
pub(super) const fn is_planted(_bug: Bug) -> bool {
    false
}
