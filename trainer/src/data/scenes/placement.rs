//! Drawing a scene: which pairs, and where they lie.

use rand::seq::SliceRandom;
use rand::{Rng, RngExt};

use super::pairs::{Pair, PairSet};
use super::scene::{Object, Scene};
use super::split::Split;
use super::world::World;

/// Gap between an object and the image's edge, and between two objects that do not overlap, in image sides.
const GAP: f32 = 0.02;
/// Share of the back object that an overlap may leave visible: enough to recognise it, little enough to see the overlap.
/// The bounds are measured on a coarse grid.
const VISIBLE: std::ops::RangeInclusive<f32> = 0.5..=0.92;

impl Scene {
    /// Draws a scene of `split`.
    pub(super) fn draw(world: World, split: Split, rng: &mut impl Rng) -> Self {
        let mut pairs = draw_pairs(world, split, rng);
        // After the shuffle, which pair is in front owes nothing to frequency, nor to being held out.
        pairs.shuffle(rng);
        let overlap = pairs.len() >= 2 && rng.random_bool(world.overlap());
        let mut objects = loop {
            if let Some(objects) = place(&pairs, world.radii(), overlap, rng) {
                break objects;
            }
        };
        if overlap {
            // `place` overlaps the first two. Reorder everything but keep those two in order.
            let front = objects.remove(1);
            let back = objects.remove(0);
            let at = rng.random_range(0..=objects.len());
            objects.insert(at, back);
            objects.insert(rng.random_range(at + 1..=objects.len()), front);
        }
        Self { world, split, objects, background: rng.random_range(0.10..0.35), noise_seed: rng.next_u64() }
    }
}

/// Draws distinct pairs one after the other by [`Pair::frequency`]; a compositional scene starts from a held-out pair.
fn draw_pairs(world: World, split: Split, rng: &mut impl Rng) -> Vec<Pair> {
    let count = 1 + choose_weighted(&world.count_weights(), rng);
    let mut pairs = Vec::with_capacity(count);
    if split == Split::Compositional {
        let held_out: Vec<_> = world.held_out().iter().collect();
        pairs.push(held_out[rng.random_range(0..held_out.len())]);
    }
    while pairs.len() < count {
        let rest = world.pairs_of(split).without(pairs.iter().copied().collect());
        pairs.push(draw_pair(rest, Pair::frequency, rng));
    }
    pairs
}

/// Draws a pair of `set`, which is not empty, by weight.
pub(super) fn draw_pair(set: PairSet, weight: impl Fn(Pair) -> f64, rng: &mut impl Rng) -> Pair {
    let mut weights = [0.0; Pair::COUNT];
    let mut members = [None; Pair::COUNT];
    for (i, pair) in set.iter().enumerate() {
        weights[i] = weight(pair);
        members[i] = Some(pair);
    }
    members[choose_weighted(&weights[..set.len()], rng)].expect("a member of the set")
}

/// Draws an index with chance proportional to its weight; at least one weight is above zero.
pub(super) fn choose_weighted(weights: &[f64], rng: &mut impl Rng) -> usize {
    let mut left = rng.random::<f64>() * weights.iter().sum::<f64>();
    for (i, &weight) in weights.iter().enumerate() {
        if left < weight {
            return i;
        }
        left -= weight;
    }
    weights.iter().rposition(|&weight| weight > 0.0).unwrap_or(0)
}

/// Puts one object per pair into the image, the first two overlapping if `overlap` says so; `None` where this try ran
/// out of room.
fn place(pairs: &[Pair], radii: [f32; 2], overlap: bool, rng: &mut impl Rng) -> Option<Vec<Object>> {
    const TRIES: usize = 40;
    let mut objects: Vec<Object> = Vec::with_capacity(pairs.len());
    for (i, &pair) in pairs.iter().enumerate() {
        let placed = (0..TRIES).find_map(|_| {
            let mut object = draw_object(pair, radii, rng);
            let fits = if overlap && i == 1 {
                move_onto(&objects[0], &mut object, rng) && recognisable(&objects[0], &object)
            } else {
                objects.iter().all(|other| apart(other, &object))
            };
            fits.then_some(object)
        })?;
        objects.push(placed);
    }
    Some(objects)
}

fn draw_object(pair: Pair, radii: [f32; 2], rng: &mut impl Rng) -> Object {
    let rgb = pair.colour.rgb().map(|mean| (mean + rng.random_range(-0.04..0.04f32)).clamp(0.0, 1.0));
    let mut object = Object { pair, x: 0.5, y: 0.5, radius: rng.random_range(radii[0]..radii[1]), rgb };
    let margin = object.reach() + GAP;
    object.x = rng.random_range(margin..1.0 - margin);
    object.y = rng.random_range(margin..1.0 - margin);
    object
}

fn apart(a: &Object, b: &Object) -> bool {
    (a.x - b.x).hypot(a.y - b.y) >= a.reach() + b.reach() + GAP
}

/// Moves `object` to a centre 0.9 to 1.2 mean radii from that of `base`, if it then lies inside the image.
fn move_onto(base: &Object, object: &mut Object, rng: &mut impl Rng) -> bool {
    let mean = (base.radius + object.radius) / 2.0;
    let (dx, dy) = loop {
        let (dx, dy) = (rng.random_range(-1.2..1.2f32), rng.random_range(-1.2..1.2f32));
        if (0.9..1.2).contains(&dx.hypot(dy)) {
            break (dx, dy);
        }
    };
    object.x = base.x + mean * dx;
    object.y = base.y + mean * dy;
    let margin = object.reach() + GAP;
    let inside = margin..1.0 - margin;
    inside.contains(&object.x) && inside.contains(&object.y)
}

/// Whether the back one of two overlapping objects stays recognisable, whichever it is and also upside down. Asking for
/// all four keeps the distribution of scenes the same under mirroring and under swapping depth, so that no relation of
/// two given pairs is likelier than its opposite, and text alone says nothing about the answer to a question.
fn recognisable(a: &Object, b: &Object) -> bool {
    let (dx, dy) = (b.x - a.x, b.y - a.y);
    [dy, -dy].iter().all(|&dy| VISIBLE.contains(&visible(a, b, dx, dy)) && VISIBLE.contains(&visible(b, a, -dx, -dy)))
}

/// Share of `back` that `front`, with its centre `(dx, dy)` off that of `back`, leaves visible.
fn visible(back: &Object, front: &Object, dx: f32, dy: f32) -> f32 {
    const GRID: usize = 20;
    let reach = back.reach();
    let at = |i: usize| reach * ((2 * i + 1) as f32 / GRID as f32 - 1.0);
    let (mut all, mut seen) = (0, 0);
    for (x, y) in (0..GRID * GRID).map(|i| (at(i % GRID), at(i / GRID))) {
        if back.distance(x, y) < 0.0 {
            all += 1;
            seen += usize::from(front.distance(x - dx, y - dy) >= 0.0);
        }
    }
    seen as f32 / all as f32
}
