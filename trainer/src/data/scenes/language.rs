//! The words, captions as claims, and judging what a text claims.

use std::collections::BTreeSet;
use std::fmt;

use super::pairs::{Colour, Pair, PairSet, Shape};
use super::scene::{Relation, Scene};

/// Words for numbers, from zero.
pub(super) const NUMBERS: [&str; 5] = ["zero", "one", "two", "three", "four"];

/// Words that stand for no colour, shape, number or relation.
const OTHER_WORDS: &str = "? . , a an and or is are there how many what colour shape shapes the one where centre top bottom \
                           left right yes no describe image relation";

/// Every word of every text about a scene, punctuation included, without repetition, in a fixed order. Texts separate
/// words by single spaces.
pub fn vocabulary() -> Vec<&'static str> {
    let relations = Relation::ALL.iter().flat_map(|relation| relation.words().split(' '));
    let words = OTHER_WORDS
        .split_whitespace()
        .chain(Colour::ALL.map(Colour::word))
        .chain(Shape::ALL.map(Shape::word))
        .chain(Shape::ALL.map(Shape::plural))
        .chain(relations)
        .chain(NUMBERS);
    let mut seen = BTreeSet::new();
    words.filter(|word| seen.insert(*word)).collect()
}

/// What a caption claims. Shown, it is the caption's text.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Caption {
    /// These objects exist: `a red circle , a blue square and a green ring .` A true one may leave objects out; their
    /// order claims nothing. Never empty.
    List(Vec<Pair>),
    /// `a red circle left of a blue square .`
    Relation {
        /// The object the caption starts with.
        subject: Pair,
        /// How it lies to the other.
        relation: Relation,
        /// The other object.
        object: Pair,
    },
    /// `three shapes .` or `two circles .`
    Count {
        /// What is counted; everything if `None`.
        shape: Option<Shape>,
        /// How many there are, four at most.
        count: usize,
    },
}

impl Caption {
    /// Reads a caption; `None` for anything but the exact text some caption is shown as.
    pub fn parse(text: &str) -> Option<Self> {
        let words: Vec<&str> = text.split(' ').collect();
        let (&stop, words) = words.split_last()?;
        if stop != "." {
            return None;
        }
        parse_count(words).or_else(|| parse_relation(words)).or_else(|| parse_list(words))
    }

    /// Whether the scene bears the claim out; `None` where that cannot be told by eye, such as for left and right of
    /// objects almost above each other.
    pub fn holds(&self, scene: &Scene) -> Option<bool> {
        match self {
            Self::List(pairs) => {
                let named: PairSet = pairs.iter().copied().collect();
                Some(named.len() == pairs.len() && named.without(scene.pairs()).is_empty())
            }
            Self::Relation { subject, relation, object } => match (scene.find(*subject), scene.find(*object)) {
                (Some(a), Some(b)) if a != b => scene.holds(a, *relation, b),
                _ => Some(false),
            },
            Self::Count { shape, count } => {
                let counted = scene.objects.iter().filter(|object| shape.is_none_or(|s| s == object.pair.shape));
                Some(counted.count() == *count)
            }
        }
    }

    /// The pairs the caption names.
    pub fn pairs(&self) -> PairSet {
        match self {
            Self::List(pairs) => pairs.iter().copied().collect(),
            Self::Relation { subject, object, .. } => PairSet::EMPTY.with(*subject).with(*object),
            Self::Count { .. } => PairSet::EMPTY,
        }
    }
}

impl fmt::Display for Caption {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::List(pairs) => {
                for (i, pair) in pairs.iter().enumerate() {
                    let link = if i == 0 {
                        ""
                    } else if i + 1 == pairs.len() {
                        "and "
                    } else {
                        ", "
                    };
                    write!(f, "{link}{} {pair} ", pair.article())?;
                }
                write!(f, ".")
            }
            Self::Relation { subject, relation, object } => {
                write!(f, "{} {subject} {} {} {object} .", subject.article(), relation.words(), object.article())
            }
            Self::Count { shape, count } => write!(f, "{} {} .", NUMBERS[*count], counted_noun(*shape, *count)),
        }
    }
}

fn counted_noun(shape: Option<Shape>, count: usize) -> &'static str {
    match (shape, count) {
        (None, 1) => "shape",
        (None, _) => "shapes",
        (Some(shape), 1) => shape.word(),
        (Some(shape), _) => shape.plural(),
    }
}

fn parse_count(words: &[&str]) -> Option<Caption> {
    let &[number, noun] = words else { return None };
    let count = NUMBERS.iter().position(|&word| word == number)?;
    let mut counted = Shape::ALL.into_iter().map(Some).chain([None]);
    let shape = counted.find(|&shape| counted_noun(shape, count) == noun)?;
    Some(Caption::Count { shape, count })
}

fn parse_relation(words: &[&str]) -> Option<Caption> {
    let (subject, rest) = words.split_at_checked(3)?;
    let (relation, object) = rest.split_at_checked(rest.len().checked_sub(3)?)?;
    let relation = Relation::ALL.into_iter().find(|r| r.words().split(' ').eq(relation.iter().copied()))?;
    Some(Caption::Relation { subject: parse_named(subject)?, relation, object: parse_named(object)? })
}

fn parse_list(words: &[&str]) -> Option<Caption> {
    let (first, rest) = words.split_at_checked(3)?;
    let mut pairs = vec![parse_named(first)?];
    for (i, item) in rest.chunks(4).enumerate() {
        let link = if 4 * (i + 1) < rest.len() { "," } else { "and" };
        let (&word, named) = item.split_first()?;
        if word != link {
            return None;
        }
        pairs.push(parse_named(named)?);
    }
    Some(Caption::List(pairs))
}

/// Reads `a red circle` or `an orange ring`.
fn parse_named(words: &[&str]) -> Option<Pair> {
    let &[article, colour, shape] = words else { return None };
    parse_pair(colour, shape).filter(|pair| pair.article() == article)
}

fn parse_pair(colour: &str, shape: &str) -> Option<Pair> {
    Some(Pair {
        colour: Colour::ALL.into_iter().find(|c| c.word() == colour)?,
        shape: Shape::ALL.into_iter().find(|s| s.word() == shape)?,
    })
}

/// Whether `text` is a caption and what it claims can be seen in the scene.
pub fn is_true(text: &str, scene: &Scene) -> bool {
    Caption::parse(text).and_then(|caption| caption.holds(scene)) == Some(true)
}

/// The pairs any text names, a colour directly before a shape, each as often as it occurs.
pub fn mentions(text: &str) -> Vec<Pair> {
    let words: Vec<&str> = text.split_whitespace().collect();
    words.windows(2).filter_map(|two| parse_pair(two[0], two[1])).collect()
}

/// The mentions of a text that are not in the scene, as CHAIR counts them (Rohrbach et al. 2018).
pub fn hallucinated(text: &str, scene: &Scene) -> Vec<Pair> {
    mentions(text).into_iter().filter(|&pair| scene.find(pair).is_none()).collect()
}
