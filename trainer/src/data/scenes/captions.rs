//! Drawing captions: true ones, and ones that are false of a scene.

use rand::seq::IndexedRandom;
use rand::{Rng, RngExt};

use super::language::Caption;
use super::pairs::{Colour, Pair, Shape};
use super::placement::choose_weighted;
use super::scene::{Axis, Scene};

/// What a caption tells.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum CaptionKind {
    /// All objects from left to right.
    List,
    /// How one object lies to another.
    Relation,
    /// How many shapes there are, or how many of one shape.
    Count,
}

impl Scene {
    /// A true caption of this kind; `None` where the scene has no relation that can be told.
    pub fn caption(&self, kind: CaptionKind, rng: &mut impl Rng) -> Option<Caption> {
        match kind {
            CaptionKind::List => Some(self.list_caption()),
            CaptionKind::Relation => self.relation_caption(rng),
            CaptionKind::Count => Some(self.count_caption(rng)),
        }
    }

    /// A true caption of a random kind, most often a list and rarely a count.
    pub fn any_caption(&self, rng: &mut impl Rng) -> Caption {
        let kind =
            [CaptionKind::List, CaptionKind::Relation, CaptionKind::Count][choose_weighted(&[0.65, 0.30, 0.05], rng)];
        self.caption(kind, rng).unwrap_or_else(|| self.list_caption())
    }

    /// A caption that is false of this scene beyond doubt: one of `other` if that is, else one of this scene altered.
    pub fn false_caption(&self, other: &Scene, rng: &mut impl Rng) -> Caption {
        let theirs = other.any_caption(rng);
        if theirs.holds(self) == Some(false) { theirs } else { self.altered_caption(rng) }
    }

    /// A caption that is false of this scene beyond doubt although only one thing in it is: a colour or a shape, the
    /// relation, or the number.
    pub fn altered_caption(&self, rng: &mut impl Rng) -> Caption {
        match self.any_caption(rng) {
            Caption::List(mut pairs) => {
                let at = rng.random_range(0..pairs.len());
                pairs[at] = self.altered_pair(pairs[at], rng);
                Caption::List(pairs)
            }
            Caption::Relation { subject, relation, object } => {
                Caption::Relation { subject, relation: relation.opposite(), object }
            }
            Caption::Count { shape, count } => Caption::Count { shape, count: (count + rng.random_range(1..5)) % 5 },
        }
    }

    /// An absent pair, allowed in texts about this scene, with the colour or the shape of `pair`.
    fn altered_pair(&self, pair: Pair, rng: &mut impl Rng) -> Pair {
        let allowed = self.allowed().without(self.pairs());
        let colours = Colour::ALL.map(|colour| Pair { colour, ..pair });
        let shapes = Shape::ALL.map(|shape| Pair { shape, ..pair });
        let near: Vec<Pair> = colours.into_iter().chain(shapes).filter(|&other| allowed.contains(other)).collect();
        *near.choose(rng).expect("six pairs or more are near, at most two of them held out and three others present")
    }

    pub(super) fn list_caption(&self) -> Caption {
        Caption::List(self.left_to_right().iter().map(|object| object.pair).collect())
    }

    pub(super) fn relation_caption(&self, rng: &mut impl Rng) -> Option<Caption> {
        let axes: Vec<Axis> = Axis::ALL.into_iter().filter(|&axis| self.decisive(axis).next().is_some()).collect();
        let axis = *axes.choose(rng)?;
        let pairs: Vec<_> = self.decisive(axis).collect();
        let &(a, b) = pairs.choose(rng)?;
        let (a, b) = if rng.random() { (a, b) } else { (b, a) };
        let relation = self.relation(axis, a, b)?;
        Some(Caption::Relation { subject: self.objects[a].pair, relation, object: self.objects[b].pair })
    }

    fn count_caption(&self, rng: &mut impl Rng) -> Caption {
        let shape = if rng.random() { self.objects.choose(rng).map(|object| object.pair.shape) } else { None };
        let count = self.objects.iter().filter(|object| shape.is_none_or(|s| s == object.pair.shape)).count();
        Caption::Count { shape, count }
    }
}
