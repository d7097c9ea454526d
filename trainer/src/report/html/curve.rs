//! A metric over the steps of a run, as it was measured and smoothed, and thinned to what a picture can show.

/// What is drawn as one line.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Curve {
    /// What it is called.
    pub(super) name: String,
    /// Step and value as measured, values that are not finite left out.
    pub(super) raw: Vec<(f64, f64)>,
    /// Step and smoothed value.
    pub(super) smooth: Vec<(f64, f64)>,
}

impl Curve {
    /// What has no noise, such as a schedule: shown as it is.
    pub(super) fn exact(name: &str, points: impl IntoIterator<Item = (f64, f64)>) -> Curve {
        let raw: Vec<(f64, f64)> = points.into_iter().filter(|(_, y)| y.is_finite()).collect();
        Curve { name: name.into(), smooth: raw.clone(), raw }
    }

    /// Smooths a metric by an exponential mean over about a fiftieth of the steps, 500 at the most, without the bias
    /// towards its start (Kingma and Ba 2015).
    pub(super) fn new(name: &str, points: impl IntoIterator<Item = (f64, f64)>) -> Curve {
        let Curve { name, raw, .. } = Curve::exact(name, points);
        let keep = 1.0 - 1.0 / (1.0 + (raw.len() as f64 / 50.0).min(500.0));
        let (mut sum, mut weight) = (0.0, 0.0);
        let smooth = raw.iter().map(|(x, y)| {
            sum = keep * sum + y;
            weight = keep * weight + 1.0;
            (*x, sum / weight)
        });
        Curve { name, smooth: smooth.collect(), raw }
    }
}

/// At most about `most` of the points: of each stretch the lowest and the highest, so that no spike is lost, and the last
/// of all.
pub(super) fn thin(points: &[(f64, f64)], most: usize) -> Vec<(f64, f64)> {
    if points.len() <= most {
        return points.to_vec();
    }
    let stretch = (2 * points.len()).div_ceil(most.max(2));
    let mut kept = Vec::with_capacity(most + 1);
    for part in points.chunks(stretch) {
        let by_height = |a: &&(f64, f64), b: &&(f64, f64)| a.1.total_cmp(&b.1);
        let ends = part.iter().min_by(by_height).zip(part.iter().max_by(by_height));
        let Some((low, high)) = ends else { continue };
        let (first, second) = if low.0 <= high.0 { (low, high) } else { (high, low) };
        kept.push(*first);
        if first != second {
            kept.push(*second);
        }
    }
    kept.extend(points.last().filter(|last| kept.last() != Some(last)));
    kept
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn smoothing_has_no_bias_and_keeps_a_constant() {
        let curve = Curve::new("loss", (1..=300).map(|step| (f64::from(step), 2.0)));
        assert!(curve.smooth.iter().all(|(_, y)| (y - 2.0).abs() < 1e-12));
        assert_eq!(Curve::new("", [(1.0, f64::NAN), (2.0, 1.0)]).raw, [(2.0, 1.0)]);
    }

    #[test]
    fn thinning_keeps_spikes_order_and_the_last_point() {
        let mut points: Vec<(f64, f64)> = (0..100_000).map(|i| (f64::from(i), f64::from(i % 7))).collect();
        points[54_321].1 = 1e6;
        points[12_345].1 = -1e6;
        let thinned = thin(&points, 1000);
        assert!(thinned.len() <= 1001 && thinned.len() > 900, "{}", thinned.len());
        assert!(thinned.windows(2).all(|pair| pair[0].0 < pair[1].0));
        for kept in [points[54_321], points[12_345], points[99_999]] {
            assert!(thinned.contains(&kept), "{kept:?}");
        }
        assert_eq!(thin(&points[..900], 1000), &points[..900]);
        assert!(thin(&[], 10).is_empty());
    }
}
