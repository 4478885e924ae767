//! Bugs that the simulator must find (`sim/`), as the pack store has them. In a program none of them is there.

#[cfg(test)]
pub(crate) use cairn_store::sim::{Bug, is_planted};

/// See the pack store's list.
#[cfg(not(test))]
#[derive(Clone, Copy, Debug)]
pub(crate) enum Bug {
    MissingRemark,
    SweepById,
    UnfencedVersion,
    KeptParts,
    EventOutside,
    StaleSeam,
    KeptPages,
}

/// Never.
#[cfg(not(test))]
pub(crate) const fn is_planted(_bug: Bug) -> bool {
    false
}
