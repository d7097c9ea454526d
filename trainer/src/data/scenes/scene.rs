//! A scene: objects in drawing order, and the relations between them that can be told by eye.

use super::pairs::{Pair, PairSet, Shape};
use super::split::Split;
use super::world::World;

/// Least distance of two centres along an axis, in image sides, for left, right, above and below to be plain.
const DECISIVE: f32 = 0.15;
/// How far from a boundary between thirds a centre must be for its region to be plain.
const REGION_MARGIN: f32 = 0.03;

/// One shape of a scene.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Object {
    /// Colour and shape.
    pub pair: Pair,
    /// Centre from the left edge, in image sides.
    pub x: f32,
    /// Centre from the top edge, in image sides.
    pub y: f32,
    /// Size, in image sides: a circle's radius, and about half the extent of the other shapes.
    pub radius: f32,
    /// Red, green and blue as drawn, in `0..=1`.
    pub rgb: [f32; 3],
}

impl Object {
    /// Radius of the smallest circle round the centre that holds the whole shape, in image sides.
    pub fn reach(&self) -> f32 {
        self.radius
            * match self.pair.shape {
                Shape::Circle | Shape::Ring => 1.0,
                Shape::Square => 0.82 * std::f32::consts::SQRT_2,
                Shape::Triangle => 1.2,
                Shape::Cross => 1.063,
            }
    }

    /// Signed distance to the shape's outline from a point `(dx, dy)` off its centre, negative inside, in image sides.
    /// Exact near edges; outside corners of the square, triangle and cross it may fall short.
    pub(super) fn distance(&self, dx: f32, dy: f32) -> f32 {
        const HALF_ROOT_3: f32 = 0.866_025_4;
        let (r, ax, ay) = (self.radius, dx.abs(), dy.abs());
        match self.pair.shape {
            Shape::Circle => (dx * dx + dy * dy).sqrt() - r,
            Shape::Square => ax.max(ay) - 0.82 * r,
            // Three half planes, each half a circumradius (1.2 r) from the centre; the apex points up.
            Shape::Triangle => dy.max(HALF_ROOT_3 * ax - 0.5 * dy) - 0.6 * r,
            Shape::Cross => {
                let half = 0.36 * r;
                if ax.max(ay) < half {
                    // Inside both bars, the nearest edge point is the corner between two arms.
                    -((half - ax) * (half - ax) + (half - ay) * (half - ay)).sqrt()
                } else {
                    (ax - r).max(ay - half).min((ax - half).max(ay - r))
                }
            }
            Shape::Ring => ((dx * dx + dy * dy).sqrt() - 0.73 * r).abs() - 0.27 * r,
        }
    }
}

/// Two opposite relations lie on one axis.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Axis {
    /// Left and right.
    Horizontal,
    /// Above and below.
    Vertical,
    /// In front and behind.
    Depth,
}

impl Axis {
    /// Every axis.
    pub const ALL: [Self; 3] = [Self::Horizontal, Self::Vertical, Self::Depth];

    /// The two relations on this axis.
    pub fn relations(self) -> [Relation; 2] {
        match self {
            Self::Horizontal => [Relation::LeftOf, Relation::RightOf],
            Self::Vertical => [Relation::Above, Relation::Below],
            Self::Depth => [Relation::InFrontOf, Relation::Behind],
        }
    }
}

/// How one object lies to another.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[allow(missing_docs)]
pub enum Relation {
    LeftOf,
    RightOf,
    Above,
    Below,
    InFrontOf,
    Behind,
}

impl Relation {
    /// Every relation.
    pub const ALL: [Self; 6] = [Self::LeftOf, Self::RightOf, Self::Above, Self::Below, Self::InFrontOf, Self::Behind];

    /// The axis this relation lies on.
    pub fn axis(self) -> Axis {
        Axis::ALL[self as usize / 2]
    }

    /// The other relation of the same axis.
    pub fn opposite(self) -> Self {
        Self::ALL[self as usize ^ 1]
    }

    /// The words for it, between the two objects.
    pub const fn words(self) -> &'static str {
        ["left of", "right of", "above", "below", "in front of", "behind"][self as usize]
    }
}

/// A vector scene. What it shows and what is true of it depend on nothing else.
#[derive(Clone, Debug, PartialEq)]
pub struct Scene {
    /// How rich it is.
    pub world: World,
    /// The split it belongs to, which with the world decides the pairs its texts may name.
    pub split: Split,
    /// One to four objects of different pairs, drawn in this order: later ones lie in front.
    pub objects: Vec<Object>,
    /// Grey level behind the objects, in `0..=1`.
    pub background: f32,
    /// Seed of the pixel noise.
    pub noise_seed: u64,
}

impl Scene {
    /// The pairs that it and texts about it may have.
    pub fn allowed(&self) -> PairSet {
        self.world.pairs_of(self.split)
    }

    /// The pairs that occur.
    pub fn pairs(&self) -> PairSet {
        self.objects.iter().map(|object| object.pair).collect()
    }

    /// The place in [`Scene::objects`] of the object with this pair, of which there is one at most.
    pub fn find(&self, pair: Pair) -> Option<usize> {
        self.objects.iter().position(|object| object.pair == pair)
    }

    /// Whether objects `a` and `b` overlap. Placement leaves a gap between the enclosing circles of all others.
    pub fn overlap(&self, a: usize, b: usize) -> bool {
        let (a, b) = (&self.objects[a], &self.objects[b]);
        (a.x - b.x).hypot(a.y - b.y) < a.reach() + b.reach()
    }

    /// How object `a` lies to object `b` along `axis`; `None` where it cannot be told by eye.
    pub fn relation(&self, axis: Axis, a: usize, b: usize) -> Option<Relation> {
        let [first, second] = axis.relations();
        let (p, q) = (&self.objects[a], &self.objects[b]);
        let choose = |decisive: bool, is_first: bool| decisive.then_some(if is_first { first } else { second });
        match axis {
            Axis::Horizontal => choose((p.x - q.x).abs() >= DECISIVE, p.x < q.x),
            Axis::Vertical => choose((p.y - q.y).abs() >= DECISIVE, p.y < q.y),
            Axis::Depth => choose(a != b && self.overlap(a, b), a > b),
        }
    }

    /// Whether `a` is `relation` `b`; `None` where it cannot be told by eye.
    pub fn holds(&self, a: usize, relation: Relation, b: usize) -> Option<bool> {
        self.relation(relation.axis(), a, b).map(|true_one| true_one == relation)
    }

    /// The pairs `a < b` of objects whose relation along `axis` can be told.
    pub(super) fn decisive(&self, axis: Axis) -> impl Iterator<Item = (usize, usize)> {
        let n = self.objects.len();
        (0..n)
            .flat_map(move |a| (a + 1..n).map(move |b| (a, b)))
            .filter(move |&(a, b)| self.relation(axis, a, b).is_some())
    }

    pub fn left_to_right(&self) -> Vec<&Object> {
        let mut objects: Vec<_> = self.objects.iter().collect();
        objects.sort_by(|a, b| a.x.total_cmp(&b.x));
        objects
    }

    /// Which ninth of the image the centre of object `a` is in; `None` close to a boundary.
    pub fn region(&self, a: usize) -> Option<&'static str> {
        let third = |v: f32| {
            let plain = [1.0 / 3.0, 2.0 / 3.0].iter().all(|edge| (v - edge).abs() >= REGION_MARGIN);
            plain.then_some((v * 3.0) as usize)
        };
        let object = &self.objects[a];
        let (column, row) = (third(object.x)?, third(object.y)?);
        Some(
            [["top left", "top", "top right"], ["left", "centre", "right"], ["bottom left", "bottom", "bottom right"]]
                [row][column],
        )
    }
}
