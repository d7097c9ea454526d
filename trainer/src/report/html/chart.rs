//! A chart as inline SVG. Lines are stretched to whatever width there is, while labels are HTML, which keeps its size: a
//! chart reads the same on a phone.

use super::curve::{Curve, thin};
use super::escape;

/// Points of a curve at the most.
const POINTS: usize = 1000;
/// The plot's inner coordinates; it is drawn wider or narrower as the page is.
const WIDTH: f64 = 1000.0;
const HEIGHT: f64 = 300.0;
/// Curves that differ by more than this factor are drawn on a logarithmic axis.
const DECADES: f64 = 100.0;
/// Colours there are in the style sheet.
const COLOURS: usize = 6;

/// One or several curves over the same steps.
pub(super) struct Chart<'a> {
    /// What is drawn.
    pub(super) title: &'a str,
    /// A sentence about it.
    pub(super) about: &'a str,
    /// The curves; those without points are left out.
    pub(super) curves: Vec<Curve>,
    /// Steps at which something begins, such as a phase, with its name.
    pub(super) marks: &'a [(f64, String)],
    /// A value in words.
    pub(super) format: fn(f64) -> String,
    /// The axis may be logarithmic.
    pub(super) may_be_log: bool,
}

/// The ranges of steps and values that a plot shows.
struct Axes {
    x: (f64, f64),
    y: (f64, f64),
    log: bool,
}

impl Chart<'_> {
    /// The chart as HTML, empty if there is nothing to draw.
    pub(super) fn html(mut self) -> String {
        self.curves.retain(|curve| !curve.raw.is_empty());
        if self.curves.is_empty() {
            return String::new();
        }
        let axes = Axes::of(&self.curves, self.may_be_log);
        let (title, about) = (escape(self.title), escape(self.about));
        let log = if axes.log { " The axis is logarithmic." } else { "" };
        format!(
            "<figure class=\"chart\">\n<figcaption><b>{title}.</b> {about}{log}</figcaption>\n{plot}{table}</figure>\n",
            plot = self.plot(&axes),
            table = self.table(),
        )
    }

    fn plot(&self, axes: &Axes) -> String {
        let lines = self.curves.iter().enumerate().map(|(i, curve)| {
            let (name, colour) = (escape(&curve.name), i % COLOURS);
            let line = |class: &str, points: &[(f64, f64)]| {
                format!(
                    "<polyline class=\"{class} c{colour}\" data-name=\"{name}\" points=\"{}\"/>\n",
                    axes.points(points)
                )
            };
            let raw = (curve.raw != curve.smooth).then(|| line("raw", &curve.raw));
            raw.unwrap_or_default() + &line("smooth", &curve.smooth)
        });
        let grid = axes.y_ticks().into_iter().map(|y| {
            let y = axes.place_y(y);
            format!("<line class=\"grid\" x1=\"0\" x2=\"{WIDTH}\" y1=\"{y:.1}\" y2=\"{y:.1}\"/>\n")
        });
        let marks = self.marks.iter().map(|(x, _)| {
            let x = axes.place_x(*x);
            format!("<line class=\"mark\" x1=\"{x:.1}\" x2=\"{x:.1}\" y1=\"0\" y2=\"{HEIGHT}\"/>\n")
        });
        format!(
            "<div class=\"plot\" data-x=\"{} {}\" data-y=\"{} {}\" data-log=\"{}\">\n\
             <svg viewBox=\"0 0 {WIDTH} {HEIGHT}\" preserveAspectRatio=\"none\" role=\"img\" aria-label=\"{}\">\n{}{}{}</svg>\n{}</div>\n",
            axes.x.0,
            axes.x.1,
            axes.y.0,
            axes.y.1,
            axes.log,
            escape(&self.label()),
            grid.collect::<String>(),
            marks.collect::<String>(),
            lines.collect::<String>(),
            self.labels(axes),
        )
    }

    /// The chart in a sentence.
    fn label(&self) -> String {
        let course = |curve: &Curve| {
            let (first, last) = ends(&curve.smooth);
            format!("{} from {} to {}", curve.name, (self.format)(first), (self.format)(last))
        };
        format!("{}: {}", self.title, self.curves.iter().map(course).collect::<Vec<_>>().join("; "))
    }

    /// Numbers along the axes, and the names of marks.
    fn labels(&self, axes: &Axes) -> String {
        let mut labels = String::new();
        for y in axes.y_ticks() {
            let top = 100.0 * axes.place_y(y) / HEIGHT;
            labels += &format!("<span class=\"y\" style=\"top:{top:.1}%\">{}</span>\n", escape(&(self.format)(y)));
        }
        for x in axes.x_ticks() {
            let left = 100.0 * axes.place_x(x) / WIDTH;
            labels += &format!("<span class=\"x\" style=\"left:{left:.1}%\">{x}</span>\n");
        }
        for (x, name) in self.marks {
            let left = 100.0 * axes.place_x(*x) / WIDTH;
            labels += &format!("<span class=\"m\" style=\"left:{left:.1}%\">{}</span>\n", escape(name));
        }
        labels + "<span class=\"step\">step</span>\n"
    }

    /// The curves' names, colours and a few values.
    fn table(&self) -> String {
        let rows = self.curves.iter().enumerate().map(|(i, curve)| {
            let (first, last) = ends(&curve.smooth);
            let values = curve.raw.iter().map(|(_, y)| *y);
            let (low, high) = values.fold((f64::MAX, f64::MIN), |(low, high), y| (low.min(y), high.max(y)));
            let cells =
                [first, low, high, last].map(|value| format!("<td class=\"number\">{}</td>", (self.format)(value)));
            format!(
                "<tr><th scope=\"row\"><span class=\"key c{}\"></span>{}</th>{}</tr>\n",
                i % COLOURS,
                escape(&curve.name),
                cells.concat()
            )
        });
        let head = ["first", "lowest", "highest", "last"]
            .map(|name| format!("<th scope=\"col\" class=\"number\">{name}</th>"));
        format!(
            "<table class=\"legend\">\n<thead><tr><th scope=\"col\">curve</th>{}</tr></thead>\n<tbody>\n{}</tbody>\n</table>\n",
            head.concat(),
            rows.collect::<String>()
        )
    }
}

impl Axes {
    fn of(curves: &[Curve], may_be_log: bool) -> Axes {
        let xs = curves.iter().flat_map(|curve| &curve.raw).map(|(x, _)| *x);
        let (first, last) = xs.fold((f64::MAX, f64::MIN), |(low, high), x| (low.min(x), high.max(x)));
        let smooth = curves.iter().flat_map(|curve| &curve.smooth).map(|(_, y)| *y);
        let (low, high) = smooth.fold((f64::MAX, f64::MIN), |(low, high), y| (low.min(y), high.max(y)));
        let mut raw: Vec<f64> = curves.iter().flat_map(|curve| &curve.raw).map(|(_, y)| *y).collect();
        raw.sort_by(f64::total_cmp);
        // What is measured is drawn but for the outermost hundredths, the smoothed in full.
        let quantile = |share: f64| raw[((raw.len() - 1) as f64 * share) as usize];
        let (low, high) = (low.min(quantile(0.01)), high.max(quantile(0.99)));
        let log = may_be_log && low > 0.0 && high / low >= DECADES;
        let y = match log {
            true => (low / 1.1, high * 1.1),
            false => (low.min(0.0) * 1.05, (high * 1.05).max(low.min(0.0) + 1e-12)),
        };
        Axes { x: (first, last.max(first + 1.0)), y, log }
    }

    fn place_x(&self, x: f64) -> f64 {
        WIDTH * (x - self.x.0) / (self.x.1 - self.x.0)
    }

    fn place_y(&self, y: f64) -> f64 {
        let scale = |y: f64| if self.log { y.max(f64::MIN_POSITIVE).ln() } else { y };
        let (low, high) = (scale(self.y.0), scale(self.y.1));
        let share = (scale(y) - low) / (high - low);
        HEIGHT * (1.0 - share.clamp(0.0, 1.0))
    }

    /// Points of a polyline; a lone one is drawn twice, as a dot.
    fn points(&self, points: &[(f64, f64)]) -> String {
        let mut thinned = thin(points, POINTS);
        if let [only] = thinned[..] {
            thinned.push(only);
        }
        let place = |(x, y): (f64, f64)| format!("{:.1},{:.1}", self.place_x(x), self.place_y(y));
        thinned.into_iter().map(place).collect::<Vec<_>>().join(" ")
    }

    fn y_ticks(&self) -> Vec<f64> {
        if !self.log {
            return ticks(self.y, 5.0);
        }
        let (low, high) = (self.y.0.log10().ceil() as i32, self.y.1.log10().floor() as i32);
        let every = ((high - low) / 5).max(0) as usize + 1;
        (low..=high).step_by(every).map(|power| 10f64.powi(power)).collect()
    }

    /// Whole steps.
    fn x_ticks(&self) -> Vec<f64> {
        let whole = ticks(self.x, 5.0).into_iter().filter(|x| x.fract() == 0.0 && *x >= self.x.0);
        let mut whole: Vec<f64> = whole.collect();
        if whole.is_empty() {
            whole.push(self.x.0);
        }
        whole
    }
}

/// About `count` round numbers within a range.
fn ticks((low, high): (f64, f64), count: f64) -> Vec<f64> {
    let raw = (high - low) / count;
    let power = 10f64.powf(raw.log10().floor());
    let step = [1.0, 2.0, 5.0, 10.0].map(|nice| nice * power).into_iter().find(|step| *step >= raw * 0.999);
    let step = step.unwrap_or(10.0 * power);
    let (first, last) = ((low / step).ceil() as i64, (high / step).floor() as i64);
    (first..=last).take(20).map(|i| i as f64 * step).collect()
}

fn ends(points: &[(f64, f64)]) -> (f64, f64) {
    let value = |point: Option<&(f64, f64)>| point.map_or(0.0, |(_, y)| *y);
    (value(points.first()), value(points.last()))
}

/// A number in as few digits as tell it apart.
pub(super) fn number(value: f64) -> String {
    let trim = |text: String| match text.contains('.') {
        true => text.trim_end_matches('0').trim_end_matches('.').to_string(),
        false => text,
    };
    match value.abs() {
        0.0 => "0".into(),
        size if size >= 999_500.0 => trim(format!("{:.2}", value / 1e6)) + "M",
        size if size >= 9_999.5 => trim(format!("{:.1}", value / 1e3)) + "k",
        size if size >= 99.95 => format!("{value:.0}"),
        size if size >= 9.995 => trim(format!("{value:.1}")),
        size if size >= 0.9995 => trim(format!("{value:.2}")),
        size if size >= 0.00995 => trim(format!("{value:.4}")),
        _ => format!("{value:.1e}").replace(".0e", "e"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn curve(values: &[f64]) -> Curve {
        Curve::new("loss", values.iter().enumerate().map(|(i, y)| (i as f64 + 1.0, *y)))
    }

    #[test]
    fn ticks_are_round_and_within() {
        assert_eq!(ticks((0.0, 10.0), 5.0), [0.0, 2.0, 4.0, 6.0, 8.0, 10.0]);
        assert_eq!(ticks((1.0, 97.0), 5.0), [20.0, 40.0, 60.0, 80.0]);
        assert!(ticks((0.0, 3e-9), 5.0).len() > 3);
    }

    #[test]
    fn numbers_are_short() {
        for (value, text) in [
            (0.0, "0"),
            (1.5, "1.5"),
            (0.0015, "1.5e-3"),
            (123.4, "123"),
            (12_345.0, "12.3k"),
            (2e6, "2M"),
            (-0.5, "-0.5"),
            (1e-5, "1e-5"),
        ] {
            assert_eq!(number(value), text);
        }
    }

    #[test]
    fn a_curve_over_decades_has_a_logarithmic_axis_and_others_begin_at_zero() {
        let axes = Axes::of(&[curve(&[1000.0, 10.0, 1.0, 0.5])], true);
        assert!(axes.log && axes.y_ticks() == [1.0, 10.0, 100.0, 1000.0], "{:?}", axes.y_ticks());
        assert!(!Axes::of(&[curve(&[1000.0, 10.0, 1.0, 0.5])], false).log);
        let plain = Axes::of(&[curve(&[3.0, 2.0])], true);
        assert_eq!((plain.log, plain.y.0, plain.place_y(0.0)), (false, 0.0, HEIGHT));
    }

    #[test]
    fn one_point_no_change_and_no_points_are_drawn() {
        for values in [&[0.0][..], &[2.0; 7], &[-1.0, 1.0]] {
            let chart = Chart {
                title: "t",
                about: "",
                curves: vec![curve(values)],
                marks: &[],
                format: number,
                may_be_log: true,
            };
            let html = chart.html();
            assert!(html.contains("<polyline") && !html.contains("NaN") && !html.contains("inf"), "{html}");
        }
        let none = Chart {
            title: "t",
            about: "",
            curves: vec![curve(&[f64::NAN])],
            marks: &[],
            format: number,
            may_be_log: true,
        };
        assert_eq!(none.html(), "");
    }
}
