//! One read for all who ask for the same bytes at the same moment.
//!
//! The first to ask for an extent reads it, proves and decodes its chunks; who asks for the very same meanwhile waits and gets the same
//! memory. Nobody is waited for who waits himself: who reads is at work, and who waits leads no flight. If who reads fails or dies, those
//! who waited read for themselves. Only a flight that is on its way is remembered, so nothing is held longer than without.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};

use bytes::Bytes;

use super::plan::Wanted;
use crate::Result;

/// Pack and offset of the first chunk.
type Start = (u32, u64);

/// The extents that are being read.
#[derive(Debug, Default)]
pub(super) struct Flights {
    now: Mutex<HashMap<Start, Arc<Flight>>>,
    shared: AtomicU64,
}

#[derive(Debug)]
struct Flight {
    extent: Vec<Wanted>,
    state: Mutex<State>,
    landed: Condvar,
}

#[derive(Debug)]
enum State {
    Flying,
    Landed(Vec<Bytes>),
    Lost,
}

enum Role {
    /// Reads for all.
    First(Arc<Flight>),
    /// Waits for who does.
    Joins(Arc<Flight>),
    /// Another extent begins at the same place.
    Alone,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Flights {
    /// The bytes of an extent: read here, or by who was at it already.
    pub(super) fn read(&self, extent: &[Wanted], read: impl FnOnce() -> Result<Vec<Bytes>>) -> Result<Vec<Bytes>> {
        let place = extent.first().and_then(|wanted| wanted.place);
        let Some(start) = place.map(|place| (place.pack, place.offset)) else {
            return read();
        };
        match self.role(start, extent) {
            Role::Alone => read(),
            Role::Joins(flight) => match flight.wait() {
                Some(bytes) => {
                    self.shared.fetch_add(1, Ordering::Relaxed);
                    Ok(bytes)
                }
                None => read(),
            },
            Role::First(flight) => {
                let mut landing = Landing {
                    flights: self,
                    start,
                    flight: &flight,
                    state: State::Lost,
                };
                let bytes = read()?;
                landing.state = State::Landed(bytes.clone());
                Ok(bytes)
            }
        }
    }

    /// Extents that somebody got from who was at them already.
    pub(super) fn shared(&self) -> u64 {
        self.shared.load(Ordering::Relaxed)
    }

    fn role(&self, start: Start, extent: &[Wanted]) -> Role {
        match lock(&self.now).entry(start) {
            Entry::Occupied(flying) if *flying.get().extent == *extent => Role::Joins(Arc::clone(flying.get())),
            Entry::Occupied(_) => Role::Alone,
            Entry::Vacant(place) => {
                let flight = Arc::new(Flight {
                    extent: extent.to_vec(),
                    state: Mutex::new(State::Flying),
                    landed: Condvar::new(),
                });
                Role::First(Arc::clone(place.insert(flight)))
            }
        }
    }
}

impl Flight {
    /// What was read; `None`: nothing was.
    fn wait(&self) -> Option<Vec<Bytes>> {
        let mut state = lock(&self.state);
        loop {
            match &*state {
                State::Flying => state = self.landed.wait(state).unwrap_or_else(PoisonError::into_inner),
                State::Landed(bytes) => return Some(bytes.clone()),
                State::Lost => return None,
            }
        }
    }
}

/// Ends a flight when it is dropped, were it by a panic.
struct Landing<'a> {
    flights: &'a Flights,
    start: Start,
    flight: &'a Flight,
    state: State,
}

impl Drop for Landing<'_> {
    fn drop(&mut self) {
        lock(&self.flights.now).remove(&self.start);
        *lock(&self.flight.state) = std::mem::replace(&mut self.state, State::Lost);
        self.flight.landed.notify_all();
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::AtomicUsize;

    use cairn_formats::DigestAlgorithm;

    use super::*;
    use crate::Error;
    use crate::pack::ChunkPlace;

    const READERS: usize = 8;

    fn extent(offset: u64, len: u32) -> Vec<Wanted> {
        vec![Wanted {
            id: DigestAlgorithm::default().id(&len.to_be_bytes()),
            plain_len: len as usize,
            bytes: 0..len as usize,
            place: Some(ChunkPlace {
                pack: 1,
                offset,
                len,
                plain_len: len,
                crc: 0,
                pinned: false,
            }),
        }]
    }

    /// Until all others have joined the flight: each holds it once more than the map and who reads.
    fn until_all_have_joined(flights: &Flights, start: Start) {
        while Arc::strong_count(&lock(&flights.now)[&start]) < READERS + 1 {
            std::thread::yield_now();
        }
    }

    /// What each of some readers of one extent got, and how many reads that was.
    fn crowd(first: impl Fn() -> Result<Vec<Bytes>> + Sync) -> (Vec<Result<Vec<Bytes>>>, usize) {
        let (flights, reads) = (Flights::default(), AtomicUsize::new(0));
        let got = std::thread::scope(|scope| {
            let reader = || {
                flights.read(&extent(8, 3), || {
                    if reads.fetch_add(1, Ordering::SeqCst) == 0 {
                        until_all_have_joined(&flights, (1, 8));
                        return first();
                    }
                    Ok(vec![Bytes::from_static(b"own")])
                })
            };
            let readers: Vec<_> = (0..READERS).map(|_| scope.spawn(reader)).collect();
            readers
                .into_iter()
                .map(|reader| reader.join().unwrap_or(Ok(Vec::new())))
                .collect()
        });
        assert!(lock(&flights.now).is_empty(), "nothing is left");
        (got, reads.into_inner())
    }

    #[test]
    fn a_crowd_is_one_read() {
        let (got, reads) = crowd(|| Ok(vec![Bytes::from_static(b"abc")]));
        assert_eq!(reads, 1);
        assert!(got.into_iter().all(|bytes| bytes.unwrap() == [&b"abc"[..]]));
    }

    #[test]
    fn who_waited_for_one_that_failed_reads() {
        let (got, reads) = crowd(|| {
            Err(Error::Missing {
                id: extent(8, 3)[0].id,
                store: crate::StoreName::new("here"),
            })
        });
        assert_eq!(reads, READERS);
        assert_eq!(got.iter().filter(|bytes| bytes.is_err()).count(), 1);
    }

    #[test]
    fn who_waited_for_one_that_died_reads() {
        let (got, reads) = crowd(|| panic!("as a bug would"));
        assert_eq!(reads, READERS);
        assert_eq!(got.iter().flatten().filter(|bytes| bytes.is_empty()).count(), 1);
    }

    /// Goal: an extent of other chunks or lengths that begins at the same place is another, and what has landed is read anew.
    #[test]
    fn only_the_very_same_is_shared() {
        let flights = Flights::default();
        let outer = flights.read(&extent(8, 3), || {
            for other in [extent(8, 4), extent(16, 3)] {
                let inner = flights.read(&other, || Ok(vec![Bytes::from_static(b"other")]));
                assert_eq!(inner.unwrap(), [&b"other"[..]]);
            }
            Ok(vec![Bytes::from_static(b"abc")])
        });
        assert_eq!(outer.unwrap(), [&b"abc"[..]]);
        let again = flights.read(&extent(8, 3), || Ok(Vec::new()));
        assert!(again.unwrap().is_empty());
        assert_eq!(flights.shared(), 0);
    }
}
