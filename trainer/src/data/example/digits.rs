//! The ten digits as strokes, 0.6 wide and 1 high around the origin; y points down.

use super::canvas::Point;

pub(super) fn strokes(digit: usize) -> Vec<Vec<Point>> {
    let line = |points: &[Point]| points.to_vec();
    match digit {
        0 => vec![arc([0.0, 0.0], [0.3, 0.5], [0.0, 360.0])],
        1 => vec![line(&[[-0.2, -0.28], [0.06, -0.5], [0.06, 0.5]])],
        2 => {
            let mut points = arc([0.0, -0.22], [0.28, 0.28], [190.0, 390.0]);
            points.extend([[-0.3, 0.5], [0.3, 0.5]]);
            vec![points]
        }
        3 => vec![arc([-0.02, -0.25], [0.26, 0.25], [-150.0, 90.0]), arc([-0.02, 0.24], [0.3, 0.26], [-90.0, 150.0])],
        4 => vec![line(&[[0.12, 0.5], [0.12, -0.5], [-0.3, 0.2], [0.3, 0.2]])],
        5 => {
            let mut points = line(&[[0.26, -0.5], [-0.2, -0.5], [-0.23, -0.04]]);
            points.extend(arc([0.0, 0.2], [0.29, 0.3], [-130.0, 150.0]));
            vec![points]
        }
        6 => vec![arc([0.0, 0.22], [0.28, 0.28], [0.0, 360.0]), arc([0.25, 0.2], [0.53, 0.7], [180.0, 262.0])],
        7 => vec![line(&[[-0.3, -0.5], [0.3, -0.5], [-0.08, 0.5]])],
        8 => vec![arc([0.0, -0.25], [0.22, 0.25], [0.0, 360.0]), arc([0.0, 0.25], [0.28, 0.25], [0.0, 360.0])],
        // A six upside down.
        _ => strokes(6).into_iter().map(|stroke| stroke.into_iter().map(|[x, y]| [-x, -y]).collect()).collect(),
    }
}

/// Part of an ellipse between two angles, in degrees clockwise from the right.
fn arc(centre: Point, radii: Point, [from, to]: [f32; 2]) -> Vec<Point> {
    const PIECES: usize = 20;
    let at = |i: usize| {
        let (sin, cos) = (from + (to - from) * i as f32 / PIECES as f32).to_radians().sin_cos();
        [centre[0] + radii[0] * cos, centre[1] + radii[1] * sin]
    };
    (0..=PIECES).map(at).collect()
}
