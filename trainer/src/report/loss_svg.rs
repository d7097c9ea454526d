//! `loss.svg`: one panel per phase, one smooth curve for the loss and one for each of its parts.

use super::curve::{Curve, thin};
use crate::metrics::StepMetrics;
use anyhow::{Context, Result, anyhow, ensure};
use plotters::coord::Shift;
use plotters::prelude::*;

/// Width of the picture and height of a panel, in pixels.
const PANEL: (u32, u32) = (960, 380);
/// Points drawn per curve at most.
const POINTS: usize = 600;
/// Colours that stay apart for colour-blind eyes (Okabe and Ito); the first is the loss.
const COLOURS: [RGBColor; 6] = [
    RGBColor(0, 0, 0),
    RGBColor(0, 114, 178),
    RGBColor(213, 94, 0),
    RGBColor(0, 158, 115),
    RGBColor(204, 121, 167),
    RGBColor(86, 180, 233),
];

/// The curves of a run as an SVG file; `parts` names the metrics drawn beside the loss, where a phase has them.
///
/// # Errors
/// When there is nothing to draw.
pub fn svg(metrics: &[StepMetrics], parts: &[&str]) -> Result<String> {
    let mut phases: Vec<&str> = Vec::new();
    for step in metrics {
        if !phases.contains(&step.phase.as_str()) {
            phases.push(&step.phase);
        }
    }
    ensure!(!phases.is_empty(), "there are no metrics to draw");
    let mut text = String::new();
    {
        let height = PANEL.1 * phases.len() as u32;
        let page = SVGBackend::with_string(&mut text, (PANEL.0, height)).into_drawing_area();
        page.fill(&WHITE).map_err(drawing)?;
        for (panel, phase) in page.split_evenly((phases.len(), 1)).iter().zip(phases) {
            let steps: Vec<&StepMetrics> = metrics.iter().filter(|step| step.phase == phase).collect();
            draw(panel, phase, &curves(&steps, parts)).with_context(|| phase.to_string())?;
        }
        page.present().map_err(drawing)?;
    }
    Ok(text)
}

fn drawing(error: impl std::fmt::Display) -> anyhow::Error {
    anyhow!("loss.svg: {error}")
}

/// The loss and those parts that were measured.
fn curves(steps: &[&StepMetrics], parts: &[&str]) -> Vec<Curve> {
    let curve = |name: &str, value: &dyn Fn(&StepMetrics) -> Option<f64>| {
        let points = steps.iter().filter_map(|step| Some((step.step as f64, value(step)?)));
        Curve::new(name, points)
    };
    let mut curves = vec![curve("loss", &|step| Some(step.loss))];
    curves.extend(
        parts
            .iter()
            .map(|part| curve(part, &|step| step.parts.get(*part).copied())),
    );
    curves.retain(|curve| !curve.raw.is_empty());
    curves
}

/// The largest value shown: all smoothed ones, and the measured ones but for the highest hundredth.
fn ceiling(curves: &[Curve]) -> f64 {
    let smooth = curves
        .iter()
        .flat_map(|curve| &curve.smooth)
        .map(|(_, y)| *y)
        .fold(0.0, f64::max);
    let mut raw: Vec<f64> = curves.iter().flat_map(|curve| &curve.raw).map(|(_, y)| *y).collect();
    raw.sort_by(f64::total_cmp);
    let most = raw.get(raw.len() * 99 / 100).copied().unwrap_or(0.0);
    (smooth.max(most) * 1.05).max(1e-6)
}

fn draw(panel: &DrawingArea<SVGBackend<'_>, Shift>, phase: &str, curves: &[Curve]) -> Result<()> {
    let steps = curves.iter().flat_map(|curve| &curve.raw).map(|(x, _)| *x);
    let (first, last) = steps.fold((f64::MAX, f64::MIN), |(low, high), x| (low.min(x), high.max(x)));
    ensure!(first <= last, "not one finite loss to draw");
    let top = ceiling(curves);
    let mut chart = ChartBuilder::on(panel)
        .caption(phase, ("sans-serif", 18))
        .margin(12)
        .x_label_area_size(38)
        .y_label_area_size(58)
        .build_cartesian_2d(first..last.max(first + 1.0), 0.0..top)
        .map_err(drawing)?;
    chart
        .configure_mesh()
        .light_line_style(WHITE)
        .bold_line_style(RGBColor(225, 225, 225))
        .axis_style(RGBColor(120, 120, 120))
        .label_style(("sans-serif", 13))
        .x_desc("step")
        .y_desc("loss")
        .x_label_formatter(&|x| format!("{x:.0}"))
        .y_label_formatter(&|y| format!("{y:.2}"))
        .draw()
        .map_err(drawing)?;
    for (curve, colour) in curves.iter().zip(COLOURS.iter().cycle()) {
        let faint = thin(&curve.raw, POINTS)
            .into_iter()
            .map(|(x, y)| (x, y.clamp(0.0, top)));
        chart
            .draw_series(LineSeries::new(faint, colour.mix(0.18)))
            .map_err(drawing)?;
        let end = curve.smooth.last().map_or(0.0, |(_, y)| *y);
        chart
            .draw_series(LineSeries::new(thin(&curve.smooth, POINTS), colour.stroke_width(2)))
            .map_err(drawing)?
            .label(format!("{} {end:.3}", curve.name))
            .legend(move |(x, y)| PathElement::new([(x, y), (x + 18, y)], colour.stroke_width(2)));
    }
    chart
        .configure_series_labels()
        .position(SeriesLabelPosition::UpperRight)
        .background_style(WHITE.mix(0.85))
        .border_style(RGBColor(200, 200, 200))
        .label_font(("sans-serif", 14))
        .draw()
        .map_err(drawing)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeMap;

    fn steps(phase: &str, count: usize) -> Vec<StepMetrics> {
        let step = |i: usize| {
            let noise = ((i * 7919) % 101) as f64 / 101.0 - 0.5;
            let itc = 3.0 * (-(i as f64) / 200.0).exp() + 0.4 + 0.3 * noise;
            let itm = 0.6 * (-(i as f64) / 400.0).exp() + 0.1 + 0.1 * noise;
            let parts = BTreeMap::from([("itc".to_string(), itc), ("itm".to_string(), itm)]);
            StepMetrics {
                phase: phase.into(),
                step: i + 1,
                loss: itc + itm,
                lr: 1e-3,
                grad_norm: 1.0,
                parts: if phase == "phase1" { parts } else { BTreeMap::new() },
                ..StepMetrics::default()
            }
        };
        (0..count).map(step).collect()
    }

    #[test]
    fn each_phase_has_a_panel_and_each_part_a_curve() {
        let metrics = [steps("phase1", 1500), steps("phase2", 40)].concat();
        let text = svg(&metrics, &["itc", "itm", "itg"]).unwrap();
        assert_eq!(
            text.matches("<polyline").count() - text.matches("stroke=\"#787878\"").count(),
            2 * (3 + 1) + 4,
            "raw, smooth, legend"
        );
        for word in ["phase1", "phase2", "itc 0.", "itm 0.", "step", "height=\"760\""] {
            assert!(text.contains(word), "{word}");
        }
        assert!(!text.contains("itg") && text.len() < 150_000, "{} bytes", text.len());
    }

    #[test]
    fn losses_that_are_not_numbers_are_left_out_and_nothing_at_all_is_an_error() {
        let mut metrics = steps("phase1", 3);
        metrics[1].loss = f64::NAN;
        metrics[2].loss = f64::INFINITY;
        assert!(svg(&metrics, &[]).unwrap().contains("phase1"));
        metrics[0].loss = f64::NAN;
        assert!(svg(&metrics, &[]).is_err() && svg(&[], &[]).is_err());
    }
}
