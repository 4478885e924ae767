//! Items of an index that only a far store has: put down while near sources are worked through, taken up many at a time.
//!
//! A round trip costs the same for one chunk and for a thousand. So workers do not ask for what a batch lacks; they leave it here,
//! and threads that do nothing else fetch whatever has come together by the time they are free. Bounded: who is too far ahead waits.

use std::collections::VecDeque;
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};

/// Items that are worth a call, as long as more may come.
const WORTH: usize = 64;
/// Items of a call at most ...
const ITEMS_MAX: usize = 1024;
/// ... and their plain bytes, unless one alone has more.
const LEN_MAX: u64 = 32 << 20;
/// Items that may wait.
const WAITING_MAX: usize = 8 * ITEMS_MAX;

/// Items that wait to be fetched.
#[derive(Default)]
pub(super) struct Deferred {
    state: Mutex<State>,
    moved: Condvar,
}

#[derive(Default)]
struct State {
    /// Item and its plain length.
    items: VecDeque<(usize, u64)>,
    /// Plain bytes of all of them.
    len: u64,
    /// Nothing more comes.
    ended: bool,
    /// Nothing more is wanted.
    stopped: bool,
}

impl Deferred {
    /// Leaves items, each with its plain length in bytes; waits when too many are there already.
    pub(super) fn push(&self, items: &[(usize, u64)]) {
        let waits = |state: &mut State| state.items.len() >= WAITING_MAX && !state.stopped;
        let mut state = self
            .moved
            .wait_while(self.lock(), waits)
            .unwrap_or_else(PoisonError::into_inner);
        state.len += items.iter().map(|(_, len)| len).sum::<u64>();
        state.items.extend(items);
        drop(state);
        self.moved.notify_all();
    }

    /// The next items that are worth a call, or those that are left; `None` at the end.
    pub(super) fn take(&self) -> Option<Vec<usize>> {
        let waits =
            |state: &mut State| !state.ended && !state.stopped && state.items.len() < WORTH && state.len < LEN_MAX;
        let mut state = self
            .moved
            .wait_while(self.lock(), waits)
            .unwrap_or_else(PoisonError::into_inner);
        if state.stopped {
            return None;
        }
        let (mut taken, mut len_taken) = (Vec::new(), 0);
        while let Some(&(item, len)) = state.items.front()
            && taken.len() < ITEMS_MAX
            && (taken.is_empty() || len_taken + len <= LEN_MAX)
        {
            state.items.pop_front();
            state.len -= len;
            taken.push(item);
            len_taken += len;
        }
        drop(state);
        self.moved.notify_all();
        (!taken.is_empty()).then_some(taken)
    }

    /// Nothing more comes.
    pub(super) fn end(&self) {
        self.lock().ended = true;
        self.moved.notify_all();
    }

    /// Nothing more is wanted.
    pub(super) fn stop(&self) {
        self.lock().stopped = true;
        self.moved.notify_all();
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn items_come_together_up_to_the_bounds_of_a_call_and_the_rest_at_the_end() {
        let deferred = Deferred::default();
        let few: Vec<_> = (0..2 * ITEMS_MAX + 5).map(|item| (item, 1)).collect();
        deferred.push(&few);
        deferred.push(&[(9000, LEN_MAX + 1), (9001, 1)]);
        deferred.end();
        assert_eq!(deferred.take(), Some((0..ITEMS_MAX).collect()));
        assert_eq!(deferred.take(), Some((ITEMS_MAX..2 * ITEMS_MAX).collect()));
        assert_eq!(deferred.take(), Some((2 * ITEMS_MAX..2 * ITEMS_MAX + 5).collect()));
        assert_eq!(deferred.take(), Some(vec![9000]), "longer than a call alone");
        assert_eq!(deferred.take(), Some(vec![9001]));
        assert_eq!(deferred.take(), None);
    }

    #[test]
    fn whoever_waits_goes_on_when_nothing_more_is_wanted() {
        let deferred = Deferred::default();
        let many: Vec<_> = (0..WAITING_MAX).map(|item| (item, 1)).collect();
        deferred.push(&many);
        std::thread::scope(|scope| {
            scope.spawn(|| deferred.push(&[(1, 1)]));
            scope.spawn(|| deferred.stop());
        });
        assert_eq!(deferred.take(), None);
    }
}
