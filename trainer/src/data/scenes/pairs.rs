//! Colours, shapes, their pairs, and how often each pair occurs.

use std::fmt;

/// The colour of an object.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[allow(missing_docs)]
pub enum Colour {
    Red,
    Green,
    Blue,
    Yellow,
    Purple,
    Orange,
}

impl Colour {
    /// Every colour, in the order of their numbers.
    pub const ALL: [Self; 6] = [Self::Red, Self::Green, Self::Blue, Self::Yellow, Self::Purple, Self::Orange];

    /// The word for this colour.
    pub const fn word(self) -> &'static str {
        ["red", "green", "blue", "yellow", "purple", "orange"][self as usize]
    }

    /// Mean red, green and blue in `0..=1`.
    pub(super) const fn rgb(self) -> [f32; 3] {
        [
            [0.86, 0.16, 0.16],
            [0.16, 0.70, 0.24],
            [0.20, 0.32, 0.92],
            [0.93, 0.86, 0.20],
            [0.60, 0.24, 0.78],
            [0.95, 0.54, 0.12],
        ][self as usize]
    }
}

/// The shape of an object.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[allow(missing_docs)]
pub enum Shape {
    Circle,
    Square,
    Triangle,
    Cross,
    Ring,
}

impl Shape {
    /// Every shape, in the order of their numbers.
    pub const ALL: [Self; 5] = [Self::Circle, Self::Square, Self::Triangle, Self::Cross, Self::Ring];

    /// The word for one of this shape.
    pub const fn word(self) -> &'static str {
        ["circle", "square", "triangle", "cross", "ring"][self as usize]
    }

    /// The word for several, or none, of this shape.
    pub const fn plural(self) -> &'static str {
        ["circles", "squares", "triangles", "crosses", "rings"][self as usize]
    }
}

/// What tells the objects of a scene apart: a colour and a shape, shown as `red circle`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Pair {
    pub colour: Colour,
    pub shape: Shape,
}

impl Pair {
    /// How many pairs there are.
    pub const COUNT: usize = Colour::ALL.len() * Shape::ALL.len();

    /// The pair's number in `0..COUNT`.
    pub const fn index(self) -> usize {
        self.colour as usize * Shape::ALL.len() + self.shape as usize
    }

    const fn from_index(index: usize) -> Self {
        Self { colour: Colour::ALL[index / Shape::ALL.len()], shape: Shape::ALL[index % Shape::ALL.len()] }
    }

    /// The pair at place `rank` of the fixed order of falling frequency. 7 and 30 share no factor, so every pair has
    /// one rank, and neighbours in rank differ in colour and shape.
    pub(super) const fn of_rank(rank: usize) -> Self {
        Self::from_index((7 * rank + 3) % Self::COUNT)
    }

    /// How often scenes draw this pair, up to a common factor: `1 / (1 + rank / 20)`.
    pub(super) fn frequency(self) -> f64 {
        // 13 is the inverse of 7 modulo 30.
        let rank = (self.index() + Self::COUNT - 3) * 13 % Self::COUNT;
        1.0 / (1.0 + 0.05 * rank as f64)
    }

    /// `a` or `an`.
    pub(super) fn article(self) -> &'static str {
        if self.colour == Colour::Orange { "an" } else { "a" }
    }
}

impl fmt::Display for Pair {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.colour.word(), self.shape.word())
    }
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct PairSet(u32);

impl PairSet {
    /// No pair.
    pub const EMPTY: Self = Self(0);
    /// All thirty.
    pub const ALL: Self = Self((1 << Pair::COUNT) - 1);
    /// The pairs kept out of training: every shape once, five different colours.
    pub const HELD_OUT: Self = Self::EMPTY
        .with(Pair { colour: Colour::Red, shape: Shape::Ring })
        .with(Pair { colour: Colour::Green, shape: Shape::Triangle })
        .with(Pair { colour: Colour::Blue, shape: Shape::Cross })
        .with(Pair { colour: Colour::Yellow, shape: Shape::Circle })
        .with(Pair { colour: Colour::Purple, shape: Shape::Square });

    /// The pairs of the first `colours` colours and the first `shapes` shapes.
    pub const fn of_first(colours: usize, shapes: usize) -> Self {
        let (mut set, mut index) = (Self::EMPTY, 0);
        while index < Pair::COUNT {
            let pair = Pair::from_index(index);
            if (pair.colour as usize) < colours && (pair.shape as usize) < shapes {
                set = set.with(pair);
            }
            index += 1;
        }
        set
    }

    /// This set and `pair`.
    pub const fn with(self, pair: Pair) -> Self {
        Self(self.0 | 1 << pair.index())
    }

    /// The pairs of this set that are not in `other`.
    pub const fn without(self, other: Self) -> Self {
        Self(self.0 & !other.0)
    }

    /// The pairs in both sets.
    pub const fn and(self, other: Self) -> Self {
        Self(self.0 & other.0)
    }

    /// Whether `pair` is in the set.
    pub const fn contains(self, pair: Pair) -> bool {
        self.0 >> pair.index() & 1 == 1
    }

    /// How many pairs are in the set.
    pub const fn len(self) -> usize {
        self.0.count_ones() as usize
    }

    /// Whether the set has no pair.
    pub const fn is_empty(self) -> bool {
        self.0 == 0
    }

    /// The pairs, by rising number.
    pub fn iter(self) -> impl Iterator<Item = Pair> {
        let mut rest = self.0;
        std::iter::from_fn(move || {
            let index = rest.trailing_zeros() as usize;
            rest &= rest.wrapping_sub(1);
            (index < Pair::COUNT).then(|| Pair::from_index(index))
        })
    }
}

impl FromIterator<Pair> for PairSet {
    fn from_iter<I: IntoIterator<Item = Pair>>(pairs: I) -> Self {
        pairs.into_iter().fold(Self::EMPTY, Self::with)
    }
}
