//! How calls are timed: a few to warm up, then samples of about the same length, told by their quantiles.

use anyhow::Result;
use kernels::Device;
use std::time::{Duration, Instant};

/// A sample holds as many calls as take so long: beyond the clock's grain and a launch's cost.
const SAMPLE: Duration = Duration::from_millis(2);
const WARM_UP: usize = 5;
/// Samples taken, unless they would take longer than `MOST` together.
const SAMPLES: usize = 30;
const MOST: Duration = Duration::from_millis(1500);
const FEWEST: usize = 5;

/// Seconds per call: the median and the quantiles around it.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Timing {
    /// Half of the samples took less.
    pub(super) median: f64,
    /// A fifth took less.
    pub(super) p20: f64,
    /// A fifth took more.
    pub(super) p80: f64,
    /// How many samples there were.
    pub(super) samples: usize,
}

impl Timing {
    fn of(seconds: Vec<f64>) -> Timing {
        let [median, p20, p80] = quantiles(&seconds);
        Timing { median, p20, p80, samples: seconds.len() }
    }

    /// The median and the quantiles.
    pub(super) fn quantiles(&self) -> [f64; 3] {
        [self.median, self.p20, self.p80]
    }
}

/// The median of some values and their quantiles at 20 and 80 %; there is at least one.
pub(super) fn quantiles(values: &[f64]) -> [f64; 3] {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    [0.5, 0.2, 0.8].map(|share| sorted[((sorted.len() - 1) as f64 * share).round() as usize])
}

/// A call whose samples are taken one at a time, so that another program's can come in between.
pub(super) struct Sampler<'a, F> {
    device: &'a Device,
    call: F,
    /// Calls in a sample.
    pub(super) calls: usize,
}

impl<'a, F: FnMut() -> Result<()>> Sampler<'a, F> {
    /// Warms up and finds out how many calls make a sample.
    pub(super) fn new(device: &'a Device, call: F) -> Result<Sampler<'a, F>> {
        let mut sampler = Sampler { device, call, calls: 1 };
        sampler.sample()?;
        sampler.calls = WARM_UP - 1;
        let warm = sampler.sample()?;
        sampler.calls = (SAMPLE.as_secs_f64() / warm.max(1e-9)).ceil().clamp(1.0, 1e6) as usize;
        Ok(sampler)
    }

    /// Seconds per call of one sample; the device has done its work when it ends.
    pub(super) fn sample(&mut self) -> Result<f64> {
        let begin = Instant::now();
        for _ in 0..self.calls {
            (self.call)()?;
        }
        self.device.synchronize()?;
        Ok(begin.elapsed().as_secs_f64() / self.calls as f64)
    }
}

/// Times `count` things by samples taken in turn: `sample(i)` takes one of thing i.
pub(super) fn in_turn(count: usize, mut sample: impl FnMut(usize) -> Result<f64>) -> Result<Vec<Timing>> {
    let (begin, mut seconds) = (Instant::now(), vec![Vec::with_capacity(SAMPLES); count]);
    for taken in 0..SAMPLES {
        if taken >= FEWEST && begin.elapsed() > MOST * count as u32 {
            break;
        }
        for (which, seconds) in seconds.iter_mut().enumerate() {
            seconds.push(sample(which)?);
        }
    }
    Ok(seconds.into_iter().map(Timing::of).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quantiles_are_those_of_the_sorted_samples() {
        let timing = Timing::of((0..=10).rev().map(f64::from).collect());
        assert_eq!((timing.median, timing.p20, timing.p80, timing.samples), (5.0, 2.0, 8.0, 11));
    }

    #[test]
    fn a_slow_call_is_timed_about_right_and_a_failing_one_fails() {
        let device = Device::cpu();
        let slow = || {
            std::thread::sleep(Duration::from_millis(20));
            Ok(())
        };
        let mut sampler = Sampler::new(&device, slow).unwrap();
        let timings = in_turn(2, |which| if which == 0 { sampler.sample() } else { Ok(1.0) }).unwrap();
        assert!(timings[0].p20 >= 0.02 && timings[0].samples >= FEWEST, "{timings:?}");
        assert_eq!((timings[1].median, timings[1].samples), (1.0, timings[0].samples));
        assert!(Sampler::new(&device, || anyhow::bail!("no")).is_err());
    }
}
