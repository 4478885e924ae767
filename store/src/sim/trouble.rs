//! What a seed decides on before anything happens, and what happens to the disk from outside: the same for every simulator.

use std::time::Duration;

use cairn_formats::{Chunk, ChunkForm, DigestAlgorithm, Level, StorableChunk};

use super::{Disk, Faults};

/// Longest time that passes between two calls, in milliseconds.
const WAIT_MAX: u64 = 150;

/// Most room that a disk has left when it fills up, in bytes.
const ROOM_MAX: usize = 6000;

impl Faults {
    /// Those of a seed, and whether its disk changes bytes in silence.
    ///
    /// - `calm`: one seed in so many has none that are told.
    /// - `most`: of what reads, writes, syncs and names fail in, in ten thousand.
    /// - `damaged`: one seed in so many.
    pub fn drawn(random: &mut fastrand::Rng, calm: u32, most: [u32; 4], damaged: u32) -> (Self, bool) {
        let mut faults = Self::default();
        if random.u32(..calm) > 0 {
            let mut some = |most: u32| if random.u32(..3) == 0 { random.u32(1..most) } else { 0 };
            faults.read_error = some(most[0]);
            faults.write_error = some(most[1]);
            faults.sync_error = some(most[2]);
            faults.name_error = some(most[3]);
        }
        let damages = random.u32(..damaged) == 0;
        if damages && random.bool() {
            faults.misdirected = 300;
        }
        (faults, damages)
    }
}

impl Disk {
    /// The power goes soon.
    ///
    /// - `within`: operations, unless it goes at once or nearly so.
    pub fn cut_soon(&self, random: &mut fastrand::Rng, within: u64) {
        let operations = if random.bool() {
            random.u64(..12)
        } else {
            random.u64(..within)
        };
        self.cut_after(operations);
    }

    /// Time passes.
    pub fn wait_a_while(&self, random: &mut fastrand::Rng) {
        self.wait(Duration::from_millis(random.u64(..WAIT_MAX)));
    }

    /// It is nearly full, or has room again. Returns for how many bytes; `None`: for all.
    pub fn change_room(&self, random: &mut fastrand::Rng, fills_up: bool) -> Option<usize> {
        let room = (fills_up && random.bool()).then(|| random.usize(..ROOM_MAX));
        self.set_room(room);
        room
    }
}

/// Chunks of a run, short and long ones in turn, the same in each.
pub fn chunks(count: usize, longest: usize) -> Vec<StorableChunk> {
    let mut random = fastrand::Rng::with_seed(7);
    let make = |n: usize| {
        let len = [40, 300, 700, longest][n % 4] + random.usize(..300);
        let plain: Vec<u8> = std::iter::repeat_with(|| random.u8(..)).take(len).collect();
        Chunk::from_plain(DigestAlgorithm::default(), plain.into()).encode(ChunkForm::Compressed, Level::DEFAULT)
    };
    (0..count).map(make).collect()
}
