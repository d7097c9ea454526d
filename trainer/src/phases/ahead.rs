//! Batches made ahead of the step that takes them, by threads of their own.

use anyhow::{Context, Result};
use std::io;
use std::ops::Range;
use std::sync::mpsc::{Receiver, sync_channel};
use std::thread::available_parallelism;

/// Has `make` called for every index, about `most` of them ahead of `take`, which gets what it made in the order of the
/// indices. Every thread makes every n-th, so that the order of work changes nothing.
///
/// # Errors
/// Those of `take`; those of `make` come to it.
pub(super) fn ahead<T: Send, R>(
    indices: Range<usize>,
    most: usize,
    make: impl Fn(usize) -> Result<T> + Sync,
    take: impl FnOnce(&mut dyn Iterator<Item = Result<T>>) -> Result<R>,
) -> Result<R> {
    // Half the cores: the others compute.
    let threads = available_parallelism().map_or(1, |cores| cores.get().div_ceil(2));
    let threads = threads.clamp(1, most.max(1));
    std::thread::scope(|scope| {
        let receivers: io::Result<Vec<Receiver<Result<T>>>> = (0..threads)
            .map(|thread| {
                let (sender, receiver) = sync_channel(most.div_ceil(threads));
                let (make, mine) = (&make, indices.clone().skip(thread).step_by(threads));
                let work = move || {
                    for index in mine {
                        // The one who takes hung up: it failed or is done, and says so itself.
                        if sender.send(make(index)).is_err() {
                            return;
                        }
                    }
                };
                std::thread::Builder::new().spawn_scoped(scope, work)?;
                Ok(receiver)
            })
            .collect();
        let receivers = receivers.context("threads that make batches cannot be started (see `ulimit -u`)")?;
        let next = |place: usize| {
            let made = receivers[place % threads].recv();
            made.context("a thread that makes batches ended early").and_then(|made| made)
        };
        take(&mut (0..indices.len()).map(next))
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use anyhow::bail;

    #[test]
    fn what_was_made_comes_in_order_from_any_start() {
        for (range, most) in [(0..100, 4), (7..23, 1), (5..5, 3), (3..5, 100)] {
            let make = |index: usize| {
                std::thread::sleep(std::time::Duration::from_micros((index * 37 % 11) as u64));
                Ok(index * 2)
            };
            let taken = ahead(range.clone(), most, make, |made| made.collect::<Result<Vec<_>>>()).unwrap();
            assert_eq!(taken, range.map(|index| index * 2).collect::<Vec<_>>());
        }
    }

    #[test]
    fn an_error_comes_in_its_place_and_hanging_up_ends_the_threads() {
        let make = |index: usize| match index {
            5 => bail!("no image"),
            other => Ok(other),
        };
        let error = ahead(0..1_000_000, 8, make, |made| {
            let mut sum = 0;
            for index in made {
                sum += index?;
            }
            Ok(sum)
        });
        assert_eq!(error.unwrap_err().to_string(), "no image");
    }
}
