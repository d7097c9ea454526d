//! In which order a data set is gone through, without end: every pass shuffled by the seed, and, if wanted, in batches of
//! similar length. The sample at any place is the same whenever it is asked for.

use rand::SeedableRng;
use rand::seq::SliceRandom;
use rand_chacha::ChaCha8Rng;
use std::cmp::Reverse;
use std::collections::VecDeque;
use std::sync::{Arc, Mutex, PoisonError};

/// Batches of one length are sought among so many at the most, as in `transformers`.
const WINDOW: usize = 50;
/// Windows per pass at the least, so that a sample's repetitions hardly meet.
const WINDOWS: usize = 4;
/// Permutations remembered: threads that prepare batches are close to each other.
const KEPT: usize = 4;

/// An endless sequence of shuffled passes over `count` samples.
#[derive(Debug)]
pub struct Order {
    seed: u64,
    count: usize,
    passes: Memo<Vec<u32>>,
    windows: Memo<Vec<u64>>,
}

/// A place in the sequence.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Place {
    /// The pass it belongs to.
    pub pass: u64,
    /// The sample's number.
    pub sample: usize,
}

impl Order {
    /// Over `count` samples.
    pub fn new(count: usize, seed: u64) -> Order {
        Order { seed, count, passes: Memo::default(), windows: Memo::default() }
    }

    /// What is at place `index`; none where there are no samples. A permutation is made once per pass.
    pub fn at(&self, index: u64) -> Option<Place> {
        let pass = index.checked_div(self.count as u64)?;
        let order = self.passes.get(pass, || {
            let mut order: Vec<u32> = (0..self.count as u32).collect();
            order.shuffle(&mut rng(self.seed, pass));
            order
        });
        let sample = *order.get((index % self.count as u64) as usize)? as usize;
        Some(Place { pass, sample })
    }

    /// The same in batches of `batch` samples whose `length` is similar: a window of the sequence is sorted by it and cut
    /// into batches, and these are shuffled.
    pub fn grouped(&self, index: u64, batch: usize, length: impl Fn(usize) -> usize) -> Option<Place> {
        let batches = (self.count / batch.max(1) / WINDOWS).clamp(1, WINDOW);
        let size = (batches * batch.max(1)) as u64;
        let window = index / size;
        let places = self.windows.get(window, || {
            let long = |place: &u64| self.at(*place).map_or(0, |place| length(place.sample));
            let mut places: Vec<u64> = (window * size..(window + 1) * size).collect();
            places.sort_by_cached_key(|place| (Reverse(long(place)), *place));
            let mut batches: Vec<&[u64]> = places.chunks(batch.max(1)).collect();
            batches.shuffle(&mut rng(!self.seed, window));
            batches.concat()
        });
        self.at(places[(index % size) as usize])
    }
}

/// A generator of its own for each number.
pub(super) fn rng(seed: u64, number: u64) -> ChaCha8Rng {
    ChaCha8Rng::seed_from_u64(seed ^ number.wrapping_mul(0x9e37_79b9_7f4a_7c15))
}

/// The latest few values of a function.
#[derive(Debug)]
struct Memo<T>(Mutex<VecDeque<(u64, Arc<T>)>>);

impl<T> Default for Memo<T> {
    fn default() -> Memo<T> {
        Memo(Mutex::default())
    }
}

impl<T> Memo<T> {
    /// The value for `key`, made if it is not remembered; others who ask wait until it is there.
    fn get(&self, key: u64, make: impl FnOnce() -> T) -> Arc<T> {
        let mut kept = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((_, value)) = kept.iter().find(|(known, _)| *known == key) {
            return value.clone();
        }
        let value = Arc::new(make());
        kept.push_front((key, value.clone()));
        kept.truncate(KEPT);
        value
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashSet;

    #[test]
    fn every_pass_has_every_sample_once_in_another_order_and_any_place_can_be_asked_for() {
        let order = Order::new(37, 5);
        let all: Vec<Place> = (0..370).map(|i| order.at(i).unwrap()).collect();
        for (pass, places) in all.chunks(37).enumerate() {
            let samples: HashSet<usize> = places.iter().map(|place| place.sample).collect();
            assert_eq!(samples.len(), 37);
            assert!(places.iter().all(|place| place.pass == pass as u64));
        }
        assert_ne!(
            all[..37].iter().map(|p| p.sample).collect::<Vec<_>>(),
            all[37..74].iter().map(|p| p.sample).collect::<Vec<_>>()
        );
        let again = Order::new(37, 5);
        assert!((0..370).rev().all(|i| again.at(i as u64) == Some(all[i])));
        assert!(Order::new(0, 5).at(3).is_none());
    }

    #[test]
    fn grouped_batches_are_of_similar_length_and_leave_nothing_out() {
        let length = |sample: usize| sample * 7 % 101;
        let order = Order::new(128, 1);
        let spread = |at: &dyn Fn(u64) -> Place| -> usize {
            let places: Vec<usize> = (0..128).map(|i| length(at(i).sample)).collect();
            let ends = |batch: &[usize]| batch.iter().max().unwrap() - batch.iter().min().unwrap();
            places.chunks(8).map(ends).sum()
        };
        let grouped = |i: u64| order.grouped(i, 8, length).unwrap();
        let (plain, similar) = (spread(&|i| order.at(i).unwrap()), spread(&grouped));
        assert!(similar * 2 < plain, "{similar} against {plain}");
        let samples: HashSet<usize> = (0..128).map(|i| grouped(i).sample).collect();
        assert_eq!(samples.len(), 128);
        // Long batches are not all in front.
        let first: Vec<usize> = (0..128).step_by(8).map(|i| length(grouped(i).sample)).collect();
        assert!(first.windows(2).any(|pair| pair[0] < pair[1]));
        let again = Order::new(128, 1);
        assert!((0..500).rev().all(|i| again.grouped(i, 8, length) == order.grouped(i, 8, length)));
    }
}
