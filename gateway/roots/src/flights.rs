//! Equal requests in flight are one: the first does the work, those that come before it is done share its result.

use std::collections::HashMap;
use std::hash::Hash;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::OnceCell;

/// Work in flight by what it is for.
#[derive(Debug)]
pub(crate) struct Flights<K, V> {
    cells: Mutex<HashMap<K, Arc<OnceCell<V>>>>,
}

impl<K: Copy + Eq + Hash, V: Clone> Flights<K, V> {
    pub(crate) fn new() -> Self {
        Self {
            cells: Mutex::new(HashMap::new()),
        }
    }

    /// The result of `work`, or of equal work that is already under way. A result is forgotten once it is there; when the
    /// caller that works goes away, another one waiting starts anew.
    pub(crate) async fn share<F: Future<Output = V>>(&self, key: K, work: impl FnOnce() -> F) -> V {
        let cell = Arc::clone(self.lock().entry(key).or_default());
        let _leave = Leave {
            flights: self,
            key,
            cell: &cell,
        };
        cell.get_or_init(work).await.clone()
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<K, Arc<OnceCell<V>>>> {
        self.cells.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Takes the cell out of the map when its result is there or nobody waits for it any more.
struct Leave<'a, K: Copy + Eq + Hash, V: Clone> {
    flights: &'a Flights<K, V>,
    key: K,
    cell: &'a Arc<OnceCell<V>>,
}

impl<K: Copy + Eq + Hash, V: Clone> Drop for Leave<'_, K, V> {
    fn drop(&mut self) {
        let mut cells = self.flights.lock();
        // Two owners are the map and this caller: nobody else waits.
        if cells
            .get(&self.key)
            .is_some_and(|cell| Arc::ptr_eq(cell, self.cell) && (cell.initialized() || Arc::strong_count(cell) == 2))
        {
            cells.remove(&self.key);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::{AtomicUsize, Ordering};
    use tokio::sync::Notify;

    #[tokio::test]
    async fn equal_work_runs_once_and_is_forgotten() {
        let flights = Arc::new(Flights::new());
        let (runs, go) = (Arc::new(AtomicUsize::new(0)), Arc::new(Notify::new()));
        let callers: Vec<_> = (0..10)
            .map(|_| {
                let (flights, runs, go) = (Arc::clone(&flights), Arc::clone(&runs), Arc::clone(&go));
                tokio::spawn(async move {
                    flights
                        .share(7, || async {
                            go.notified().await;
                            runs.fetch_add(1, Ordering::Relaxed)
                        })
                        .await
                })
            })
            .collect();
        // One thread runs the test: yielding lets every caller reach its await.
        tokio::task::yield_now().await;
        go.notify_one();
        for caller in callers {
            assert_eq!(caller.await.unwrap(), 0);
        }
        assert_eq!(runs.load(Ordering::Relaxed), 1);
        assert!(flights.lock().is_empty());
    }

    #[tokio::test]
    async fn a_caller_that_goes_away_leaves_the_work_to_the_next() {
        let flights = Arc::new(Flights::new());
        let first = tokio::spawn({
            let flights = Arc::clone(&flights);
            async move { flights.share(7, std::future::pending::<u32>).await }
        });
        tokio::task::yield_now().await;
        let second = tokio::spawn({
            let flights = Arc::clone(&flights);
            async move { flights.share(7, || async { 5 }).await }
        });
        tokio::task::yield_now().await;
        first.abort();
        assert_eq!(second.await.unwrap(), 5);
        assert!(flights.lock().is_empty());
    }
}
