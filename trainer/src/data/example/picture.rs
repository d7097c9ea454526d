//! One picture of the example set: what it shows, what is said of it, and its pixels.

use super::canvas::{Canvas, Point, polygon, rectangle, stroke};
use super::digits::strokes;
use image::RgbImage;
use rand::seq::SliceRandom;
use rand::{Rng, RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;

/// Side of a picture, in pixels.
pub(super) const SIDE: usize = 64;

/// A colour with its name.
type Colour = (&'static str, [f32; 3]);

const COLOURS: [Colour; 5] = [
    ("red", [0.84, 0.14, 0.14]),
    ("green", [0.12, 0.62, 0.22]),
    ("blue", [0.14, 0.28, 0.84]),
    ("orange", [0.97, 0.58, 0.08]),
    ("black", [0.08, 0.08, 0.09]),
];

/// Directions with their unit vectors; y points down.
const DIRECTIONS: [(&str, Point); 4] =
    [("up", [0.0, -1.0]), ("down", [0.0, 1.0]), ("left", [-1.0, 0.0]), ("right", [1.0, 0.0])];

/// What a picture shows.
enum Subject {
    Digit(usize, Colour),
    Arrow(&'static str, Point, Colour),
    /// Bars from left to right, with heights in pixels.
    Chart(Vec<(Colour, f32)>),
}

/// A picture and what is said of it.
pub(super) struct Picture {
    pub(super) image: RgbImage,
    /// Captions that are all true.
    pub(super) captions: Vec<String>,
    /// Questions and answers.
    pub(super) questions: Vec<(&'static str, String)>,
}

impl Picture {
    /// The `index`-th picture of a seed; digits, arrows and charts take turns.
    pub(super) fn draw(seed: u64, index: usize) -> Picture {
        let mut rng = ChaCha8Rng::seed_from_u64(seed);
        rng.set_stream(index as u64);
        let subject = Subject::draw(index % 3, &mut rng);
        Picture { captions: subject.captions(), questions: subject.questions(), image: subject.render(&mut rng) }
    }
}

impl Subject {
    fn draw(kind: usize, rng: &mut ChaCha8Rng) -> Subject {
        let colour = COLOURS[rng.random_range(0..COLOURS.len())];
        match kind {
            0 => Subject::Digit(rng.random_range(0..10), colour),
            1 => {
                let (name, direction) = DIRECTIONS[rng.random_range(0..DIRECTIONS.len())];
                Subject::Arrow(name, direction, colour)
            }
            _ => {
                let mut heights: Vec<f32> = (0..5).map(|i| 8.0 + 10.0 * i as f32).collect();
                heights.shuffle(rng);
                let mut colours = COLOURS;
                colours.shuffle(rng);
                let count = rng.random_range(2..=4);
                let jittered = |(colour, height): (Colour, f32)| (colour, height + rng.random_range(-1.5..1.5));
                Subject::Chart(colours.into_iter().zip(heights).take(count).map(jittered).collect())
            }
        }
    }

    fn captions(&self) -> Vec<String> {
        match self {
            Subject::Digit(digit, (colour, _)) => {
                vec![format!("The digit {digit} in {colour}."), format!("{} {colour} {digit}.", article(colour))]
            }
            Subject::Arrow(direction, _, (colour, _)) => vec![
                format!("{} {colour} arrow that points {direction}.", article(colour)),
                format!("An arrow in {colour}, pointing {direction}."),
            ],
            Subject::Chart(bars) => {
                let (last, first) = bars.split_last().expect("two bars or more");
                let first: Vec<&str> = first.iter().map(|((name, _), _)| *name).collect();
                let (first, last) = (first.join(", "), last.0.0);
                vec![format!("A chart with bars in {first} and {last}."), format!("A bar chart: {first} and {last}.")]
            }
        }
    }

    fn questions(&self) -> Vec<(&'static str, String)> {
        let by_height = |a: &&(Colour, f32), b: &&(Colour, f32)| a.1.total_cmp(&b.1);
        let name = |bar: Option<&(Colour, f32)>| bar.map_or(String::new(), |((name, _), _)| name.to_string());
        let (kind, own) = match self {
            Subject::Digit(digit, (colour, _)) => {
                ("a digit", vec![("Which digit is it?", digit.to_string()), ("What colour is it?", colour.to_string())])
            }
            Subject::Arrow(direction, _, (colour, _)) => (
                "an arrow",
                vec![
                    ("Where does the arrow point?", direction.to_string()),
                    ("What colour is it?", colour.to_string()),
                ],
            ),
            Subject::Chart(bars) => (
                "a chart",
                vec![
                    ("Which bar is the tallest?", name(bars.iter().max_by(by_height))),
                    ("Which bar is the shortest?", name(bars.iter().min_by(by_height))),
                    ("How many bars are there?", bars.len().to_string()),
                ],
            ),
        };
        let about_kind = [("What is shown?", kind.to_string())];
        about_kind.into_iter().chain(own).collect()
    }

    fn render(&self, rng: &mut ChaCha8Rng) -> RgbImage {
        let light = rng.random_range(0.86..1.0f32);
        let background = [0, 1, 2].map(|_| light + rng.random_range(-0.04..0.04f32));
        let mut canvas = Canvas::new(SIDE, background);
        match self {
            Subject::Digit(digit, colour) => digit_on(&mut canvas, *digit, shade(colour, rng), rng),
            Subject::Arrow(_, direction, colour) => arrow_on(&mut canvas, *direction, shade(colour, rng), rng),
            Subject::Chart(bars) => chart_on(&mut canvas, bars, rng),
        }
        canvas.image(rng.random_range(0.005..0.03), rng.next_u64())
    }
}

fn article(colour: &str) -> &'static str {
    if colour.starts_with('o') { "An" } else { "A" }
}

/// The colour, a little different each time.
fn shade((_, rgb): &Colour, rng: &mut ChaCha8Rng) -> [f32; 3] {
    rgb.map(|channel| (channel + rng.random_range(-0.07..0.07f32)).clamp(0.0, 1.0))
}

/// Somewhere around the middle.
fn centre(rng: &mut ChaCha8Rng, off: f32) -> Point {
    [0, 1].map(|_| SIDE as f32 / 2.0 + rng.random_range(-off..off))
}

fn digit_on(canvas: &mut Canvas, digit: usize, colour: [f32; 3], rng: &mut ChaCha8Rng) {
    let (height, wide) = (rng.random_range(34.0..48.0f32), rng.random_range(0.9..1.2f32));
    let (middle, slant) = (centre(rng, 6.0), rng.random_range(-0.2..0.1f32));
    let (sin, cos) = rng.random_range(-0.1..0.1f32).sin_cos();
    let place = |[x, y]: Point| {
        let (x, y) = (height * (x * wide + slant * y), height * y);
        [middle[0] + cos * x - sin * y, middle[1] + sin * x + cos * y]
    };
    let width = rng.random_range(4.5..7.5);
    let lines: Vec<Vec<Point>> =
        strokes(digit).into_iter().map(|stroke| stroke.into_iter().map(place).collect()).collect();
    canvas.paint(colour, |at| lines.iter().map(|line| stroke(line, width, at)).fold(f32::MAX, f32::min));
}

fn arrow_on(canvas: &mut Canvas, direction: Point, colour: [f32; 3], rng: &mut ChaCha8Rng) {
    let (middle, half) = (centre(rng, 8.0), rng.random_range(14.0..21.0f32));
    let (width, head) = (rng.random_range(4.0..7.0f32), rng.random_range(11.0..15.0f32));
    let (sin, cos) = rng.random_range(-0.15..0.15f32).sin_cos();
    let ahead = [cos * direction[0] - sin * direction[1], sin * direction[0] + cos * direction[1]];
    let at = |along: f32, aside: f32| {
        [middle[0] + along * ahead[0] - aside * ahead[1], middle[1] + along * ahead[1] + aside * ahead[0]]
    };
    let shaft = [at(-half, 0.0), at(half - head, 0.0)];
    let tip = [at(half, 0.0), at(half - head, 0.75 * head), at(half - head, -0.75 * head)];
    canvas.paint(colour, |point| stroke(&shaft, width, point).min(polygon(&tip, point)));
}

fn chart_on(canvas: &mut Canvas, bars: &[(Colour, f32)], rng: &mut ChaCha8Rng) {
    let (left, ground) = (rng.random_range(5.0..9.0f32), rng.random_range(56.0..60.0f32));
    let room = (SIDE as f32 - 4.0 - left) / bars.len() as f32;
    let share = rng.random_range(0.6..0.8);
    for (i, (colour, height)) in bars.iter().enumerate() {
        let from = left + room * i as f32 + room * (1.0 - share) / 2.0;
        let (upper, lower) = ([from, ground - height], [from + room * share, ground]);
        canvas.paint(shade(colour, rng), |at| rectangle(upper, lower, at));
    }
    let axes = [[left - 2.0, ground - 52.0], [left - 2.0, ground], [SIDE as f32 - 3.0, ground]];
    canvas.paint([0.35; 3], |at| stroke(&axes, 1.5, at));
}
