//! GOODBYE: the table that ends a directory and makes an archive seekable from its end.
//!
//! Items are sorted by the hash of the name and laid out as a complete binary search tree in breadth-first order, so a
//! lookup reads few of them. Offsets count backwards from the table. Source: `formats/FORMATS.md`, "GOODBYE".

use siphasher::sip::SipHasher24;

use super::record::{GOODBYE, HEADER_LEN, push_words, word};

const TAIL_MARKER: u64 = 0x5744_6fa5_3370_2943;
/// Bytes of an item, and of the tail.
pub(super) const ITEM_LEN: u64 = 24;
const HASH_KEY: (u64, u64) = (0x8574_442b_0f1d_84b3, 0x2736_ed30_d1c2_2ec1);

/// One entry of a directory, by absolute offsets.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Item {
    /// Hash of the name.
    pub(super) hash: u64,
    /// Offset of the FILENAME record.
    pub(super) start: u64,
    /// End of the entry, what is in it included.
    pub(super) end: u64,
}

/// What the tail of a record says.
#[derive(Clone, Copy, Debug)]
pub(super) struct Tail {
    /// Where the directory's ENTRY is.
    pub(super) entry_at: u64,
    /// Where the record is.
    pub(super) at: u64,
    /// How many items it has.
    pub(super) items: u64,
}

impl Tail {
    /// Reads the tail whose record ends at `end`, of a directory that begins not before `start`.
    pub(super) fn parse(tail: &[u8], start: u64, end: u64) -> Result<Self, &'static str> {
        let (back, len) = (word(tail, 0), word(tail, 8));
        if word(tail, 16) != TAIL_MARKER {
            return Err("no GOODBYE tail ends the directory");
        }
        let items = len.checked_sub(HEADER_LEN + ITEM_LEN).filter(|len| len % ITEM_LEN == 0);
        let at = end.checked_sub(len).filter(|&at| at >= start);
        let entry_at = at.and_then(|at| at.checked_sub(back)).filter(|&at| at >= start);
        match (items, at, entry_at) {
            (Some(items), Some(at), Some(entry_at)) => Ok(Self {
                entry_at,
                at,
                items: items / ITEM_LEN,
            }),
            _ => Err("a GOODBYE record's tail points out of its directory"),
        }
    }

    /// Where item `number` is.
    pub(super) fn item_at(&self, number: u64) -> u64 {
        self.at + HEADER_LEN + ITEM_LEN * number
    }

    /// Reads an item of a directory whose entries begin at `start`.
    pub(super) fn item(&self, item: &[u8], start: u64) -> Result<Item, &'static str> {
        let from = self.at.checked_sub(word(item, 0)).filter(|&from| from >= start);
        let end = from.and_then(|from| from.checked_add(word(item, 8)));
        match (from, end) {
            (Some(from), Some(end)) if from < end && end <= self.at => Ok(Item {
                hash: word(item, 16),
                start: from,
                end,
            }),
            _ => Err("an item of a GOODBYE record points out of its directory"),
        }
    }
}

/// Hash of a name, by which tables are ordered.
pub(super) fn name_hash(name: &[u8]) -> u64 {
    SipHasher24::new_with_keys(HASH_KEY.0, HASH_KEY.1).hash(name)
}

/// Size of the record for `items` entries.
pub(super) fn record_len(items: u64) -> Option<u64> {
    items.checked_add(1)?.checked_mul(ITEM_LEN)?.checked_add(HEADER_LEN)
}

/// Appends the record. `at` is where it begins, `entry_at` where the directory's ENTRY does; items in the order of the archive.
pub(super) fn push(mut items: Vec<Item>, entry_at: u64, at: u64, out: &mut Vec<u8>) {
    let len = HEADER_LEN + ITEM_LEN * (items.len() as u64 + 1);
    // Stable: equal hashes keep the archive's order.
    items.sort_by_key(|item| item.hash);
    push_words(out, &[len, GOODBYE]);
    for item in as_tree(&items) {
        push_words(out, &[at - item.start, item.end - item.start, item.hash]);
    }
    push_words(out, &[at - entry_at, len, TAIL_MARKER]);
}

/// The items of a complete binary search tree, level by level.
pub(super) fn as_tree(sorted: &[Item]) -> Vec<Item> {
    let mut tree = sorted.to_vec();
    let levels = sorted.len().checked_ilog2().map_or(0, |log| log + 1);
    place(sorted, &mut tree, 0, levels);
    tree
}

/// Puts the root of `sorted` at position `at` and its halves below it. As deep as the tree: 64 levels at most.
fn place(sorted: &[Item], tree: &mut [Item], at: usize, levels: u32) {
    if sorted.is_empty() {
        return;
    }
    let full = 1_usize << (levels - 1);
    let half_full = full - 1 + full / 2;
    let root = full - 1 - half_full.saturating_sub(sorted.len());
    tree[at] = sorted[root];
    place(&sorted[..root], tree, 2 * at + 1, levels - 1);
    place(&sorted[root + 1..], tree, 2 * at + 2, levels - 1);
}

/// The rule that a directory's GOODBYE record breaks, if any.
///
/// - `items`: what was seen of the directory, in order; `entry_at`, `at`: as in [`push`].
/// - Items in the order of the archive, which desync wrote until 2019, are good too.
pub(super) fn broken_rule(record: &[u8], items: Vec<Item>, entry_at: u64, at: u64) -> Option<&'static str> {
    let tail = record.len() - ITEM_LEN as usize;
    let mut expected = Vec::with_capacity(record.len());
    push(items.clone(), entry_at, at, &mut expected);
    if record == expected {
        return None;
    }
    if record[tail + 16..] != expected[tail + 16..] {
        return Some("a GOODBYE record's tail has not the marker");
    }
    if record[tail + 8..tail + 16] != expected[tail + 8..tail + 16] {
        return Some("a GOODBYE record's tail does not give its size");
    }
    if record[tail..tail + 8] != expected[tail..tail + 8] {
        return Some("a GOODBYE record's tail does not give the way to its directory");
    }
    let mut in_order = Vec::with_capacity(record.len());
    for item in &items {
        push_words(&mut in_order, &[at - item.start, item.end - item.start, item.hash]);
    }
    (record[HEADER_LEN as usize..tail] != in_order)
        .then_some("a GOODBYE record's items are not the entries of its directory")
}
