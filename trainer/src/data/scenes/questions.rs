//! The kinds of question, and drawing one whose answer follows from the scene.

use rand::seq::IndexedRandom;
use rand::{Rng, RngExt};

use super::existence::{Candidates, candidates, present_weight, ways};
use super::language::{Caption, NUMBERS};
use super::pairs::{Colour, Pair, PairSet, Shape};
use super::placement::{choose_weighted, draw_pair};
use super::scene::{Axis, Object, Relation, Scene};

/// How the absent pairs of existence questions are drawn, after POPE (Li et al. 2023).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Negatives {
    /// Any absent pair.
    Random,
    /// An absent one of the eight most frequent pairs.
    Popular,
    /// An absent pair whose colour and shape both occur in the scene, where there is one; else one of them does.
    Adversarial,
}

impl Negatives {
    /// Every way.
    pub const ALL: [Self; 3] = [Self::Random, Self::Popular, Self::Adversarial];
}

/// What a question asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum QuestionKind {
    /// `is there a red circle ?`, from a set of questions half of which are answered yes, half no.
    Existence(Negatives),
    /// `how many shapes are there ?`, `how many red shapes are there ?`, `how many circles are there ?`
    Count,
    /// `what colour is the circle ?`, where there is one circle.
    Colour,
    /// `what shape is the red one ?`, where one thing is red.
    Shape,
    /// `is the red circle left of the blue square ?`, half yes, half no.
    Spatial(Relation),
    /// `is the red circle left of or right of the blue square ?`, answered by one of the two.
    Choice(Axis),
    /// `where is the red circle ?`, answered by the ninth of the image.
    Where,
    /// `what is left of the blue square ?`, where that is one thing beyond doubt.
    Which,
    /// `describe the image .`, answered by the list of all objects.
    Describe,
    /// `describe a relation .`, answered by any relation that can be told.
    DescribeRelation,
}

impl QuestionKind {
    /// Every kind.
    pub const ALL: [Self; 19] = [
        Self::Existence(Negatives::Random),
        Self::Existence(Negatives::Popular),
        Self::Existence(Negatives::Adversarial),
        Self::Count,
        Self::Colour,
        Self::Shape,
        Self::Spatial(Relation::LeftOf),
        Self::Spatial(Relation::RightOf),
        Self::Spatial(Relation::Above),
        Self::Spatial(Relation::Below),
        Self::Spatial(Relation::InFrontOf),
        Self::Spatial(Relation::Behind),
        Self::Choice(Axis::Horizontal),
        Self::Choice(Axis::Vertical),
        Self::Choice(Axis::Depth),
        Self::Where,
        Self::Which,
        Self::Describe,
        Self::DescribeRelation,
    ];
}

/// A question about a scene and its answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Turn {
    /// What the question asks for.
    pub kind: QuestionKind,
    /// The question, or the request.
    pub question: String,
    /// The answer. Other answers may be as right only for [`QuestionKind::DescribeRelation`].
    pub answer: String,
}

impl Turn {
    fn new(kind: QuestionKind, question: String, answer: impl ToString) -> Self {
        Self { kind, question, answer: answer.to_string() }
    }

    fn yes_no(kind: QuestionKind, question: String, yes: bool) -> Self {
        Self::new(kind, question, if yes { "yes" } else { "no" })
    }
}

/// What the questions so far were about, so that no yes or no can be had from an earlier one.
#[derive(Default)]
pub(super) struct Asked {
    pairs: PairSet,
    relations: Vec<(Axis, usize, usize)>,
}

/// Questions of one kind about a scene for evaluation, each to be asked on its own: for a yes-no kind one answered yes and
/// one answered no, for others one. Empty where the scene has no such question.
pub fn balanced_questions(scene: &Scene, kind: QuestionKind, rng: &mut impl Rng) -> Vec<Turn> {
    let both = [true, false];
    let none = Asked::default();
    match kind {
        QuestionKind::Existence(negatives) if !ways(scene.split).contains(&negatives) => Vec::new(),
        QuestionKind::Existence(negatives) => {
            let Some(from) = existence_candidates(scene, negatives, &none) else {
                return Vec::new();
            };
            both.map(|yes| existence(scene, negatives, &from, yes, rng)).into()
        }
        QuestionKind::Spatial(relation) => {
            let pairs = open_pairs(scene, relation.axis(), &none);
            both.into_iter().filter_map(|yes| Some(spatial(scene, *pairs.choose(rng)?, relation, yes))).collect()
        }
        QuestionKind::Choice(axis) => {
            let pairs = open_pairs(scene, axis, &none);
            pairs.choose(rng).map(|&pair| choice(scene, pair, axis, rng)).into_iter().collect()
        }
        QuestionKind::Count => vec![count(scene, rng)],
        QuestionKind::Colour => colour(scene, rng).into_iter().collect(),
        QuestionKind::Shape => shape(scene, rng).into_iter().collect(),
        QuestionKind::Where => where_is(scene, rng).into_iter().collect(),
        QuestionKind::Which => which(scene, rng).into_iter().collect(),
        QuestionKind::Describe => vec![describe(scene)],
        QuestionKind::DescribeRelation => describe_relation(scene, rng).into_iter().collect(),
    }
}

/// [`balanced_questions`] of every kind.
pub fn evaluation(scene: &Scene, rng: &mut impl Rng) -> Vec<Turn> {
    QuestionKind::ALL.into_iter().flat_map(|kind| balanced_questions(scene, kind, rng)).collect()
}

/// Asks after a pair not asked after before. Whether there is anything to ask does not depend on the answer drawn.
pub(super) fn ask_existence(scene: &Scene, asked: &mut Asked, rng: &mut impl Rng) -> Option<Turn> {
    let &negatives = ways(scene.split).choose(rng)?;
    let from = existence_candidates(scene, negatives, asked)?;
    let turn = existence(scene, negatives, &from, rng.random(), rng);
    asked.pairs = super::language::mentions(&turn.question).into_iter().fold(asked.pairs, PairSet::with);
    Some(turn)
}

fn existence_candidates(scene: &Scene, negatives: Negatives, asked: &Asked) -> Option<Candidates> {
    let Candidates { present, absent } = candidates(scene.world, scene.split, negatives, scene.pairs());
    let (present, absent) = (present.without(asked.pairs), absent.without(asked.pairs));
    (!present.is_empty() && !absent.is_empty()).then_some(Candidates { present, absent })
}

fn existence(scene: &Scene, negatives: Negatives, from: &Candidates, yes: bool, rng: &mut impl Rng) -> Turn {
    let pair = if yes {
        draw_pair(from.present, |pair| present_weight(scene.world, scene.split, negatives, pair), rng)
    } else {
        draw_pair(from.absent, |_| 1.0, rng)
    };
    Turn::yes_no(QuestionKind::Existence(negatives), format!("is there {} {pair} ?", pair.article()), yes)
}

/// Asks how two objects lie along an axis on which they were not compared before. Whether there is anything to ask does
/// not depend on the answer drawn.
pub(super) fn ask_spatial(scene: &Scene, asked: &mut Asked, rng: &mut impl Rng) -> Option<Turn> {
    let (axis, pair) = compare(scene, asked, rng)?;
    let relation = *axis.relations().choose(rng)?;
    Some(spatial(scene, pair, relation, rng.random()))
}

/// As [`ask_spatial`], with the two relations of the axis to choose from.
pub(super) fn ask_choice(scene: &Scene, asked: &mut Asked, rng: &mut impl Rng) -> Option<Turn> {
    let (axis, pair) = compare(scene, asked, rng)?;
    Some(choice(scene, pair, axis, rng))
}

/// Draws an axis, then two objects not compared along it before. Depth shows in fewer than half of the scenes; half the
/// questions there make up for it.
fn compare(scene: &Scene, asked: &mut Asked, rng: &mut impl Rng) -> Option<(Axis, (usize, usize))> {
    let open = Axis::ALL.map(|axis| open_pairs(scene, axis, asked));
    let weights = [0, 1, 2].map(|i| [1.0, 1.0, 2.0][i] * f64::from(u8::from(!open[i].is_empty())));
    if weights == [0.0; 3] {
        return None;
    }
    let axis = choose_weighted(&weights, rng);
    let &(a, b) = open[axis].choose(rng)?;
    asked.relations.push((Axis::ALL[axis], a, b));
    Some((Axis::ALL[axis], (a, b)))
}

fn open_pairs(scene: &Scene, axis: Axis, asked: &Asked) -> Vec<(usize, usize)> {
    scene.decisive(axis).filter(|&(a, b)| !asked.relations.contains(&(axis, a, b))).collect()
}

/// Whether one of two objects is `relation` the other, put in the order that makes `yes` the answer.
fn spatial(scene: &Scene, (a, b): (usize, usize), relation: Relation, yes: bool) -> Turn {
    let (a, b) = if scene.holds(a, relation, b) == Some(yes) { (a, b) } else { (b, a) };
    let (a, b) = (scene.objects[a].pair, scene.objects[b].pair);
    Turn::yes_no(QuestionKind::Spatial(relation), format!("is the {a} {} the {b} ?", relation.words()), yes)
}

/// How one of two objects lies to the other, of the two relations of an axis. Which comes first is drawn, so that either
/// answer is as likely.
fn choice(scene: &Scene, (a, b): (usize, usize), axis: Axis, rng: &mut impl Rng) -> Turn {
    let (a, b) = if rng.random() { (a, b) } else { (b, a) };
    let [first, second] = axis.relations();
    let answer = if scene.holds(a, first, b) == Some(true) { first } else { second };
    let (a, b) = (scene.objects[a].pair, scene.objects[b].pair);
    Turn::new(
        QuestionKind::Choice(axis),
        format!("is the {a} {} or {} the {b} ?", first.words(), second.words()),
        answer.words(),
    )
}

/// Counts everything, a colour or a shape. Colours and shapes are drawn by their count, so that answers other than zero
/// and one are not rare.
pub(super) fn count(scene: &Scene, rng: &mut impl Rng) -> Turn {
    const WEIGHT_OF_COUNT: [f64; 5] = [1.0, 0.7, 3.0, 5.0, 5.0];
    let number = |of: &dyn Fn(&Object) -> bool| scene.objects.iter().filter(|object| of(object)).count();
    let (noun, count) = match choose_weighted(&[0.4, 0.3, 0.3], rng) {
        0 => ("shapes".to_string(), scene.objects.len()),
        1 => {
            let counts = Colour::ALL.map(|colour| number(&|object| object.pair.colour == colour));
            let i = by_count(&counts, &WEIGHT_OF_COUNT, rng);
            (format!("{} shapes", Colour::ALL[i].word()), counts[i])
        }
        _ => {
            let counts = Shape::ALL.map(|shape| number(&|object| object.pair.shape == shape));
            let i = by_count(&counts, &WEIGHT_OF_COUNT, rng);
            (Shape::ALL[i].plural().to_string(), counts[i])
        }
    };
    Turn::new(QuestionKind::Count, format!("how many {noun} are there ?"), NUMBERS[count])
}

/// Draws one of the counts that occur by its weight, then evenly something with that count.
fn by_count(counts: &[usize], weight_of_count: &[f64; 5], rng: &mut impl Rng) -> usize {
    let mut having = [0.0; 5];
    counts.iter().for_each(|&count| having[count] += 1.0);
    let weights: Vec<f64> = counts.iter().map(|&count| weight_of_count[count] / having[count]).collect();
    choose_weighted(&weights, rng)
}

/// An object that is alone in what `same` compares.
fn unique<'a>(scene: &'a Scene, same: impl Fn(Pair, Pair) -> bool, rng: &mut impl Rng) -> Option<&'a Object> {
    let alone = |object: &&Object| scene.objects.iter().filter(|other| same(other.pair, object.pair)).count() == 1;
    let objects: Vec<_> = scene.objects.iter().filter(alone).collect();
    objects.choose(rng).copied()
}

pub(super) fn colour(scene: &Scene, rng: &mut impl Rng) -> Option<Turn> {
    let Pair { colour, shape } = unique(scene, |a, b| a.shape == b.shape, rng)?.pair;
    Some(Turn::new(QuestionKind::Colour, format!("what colour is the {} ?", shape.word()), colour.word()))
}

pub(super) fn shape(scene: &Scene, rng: &mut impl Rng) -> Option<Turn> {
    let Pair { colour, shape } = unique(scene, |a, b| a.colour == b.colour, rng)?.pair;
    Some(Turn::new(QuestionKind::Shape, format!("what shape is the {} one ?", colour.word()), shape.word()))
}

pub(super) fn where_is(scene: &Scene, rng: &mut impl Rng) -> Option<Turn> {
    let plain = (0..scene.objects.len()).filter_map(|a| Some((scene.objects[a].pair, scene.region(a)?)));
    let &(pair, region) = plain.collect::<Vec<_>>().choose(rng)?;
    Some(Turn::new(QuestionKind::Where, format!("where is the {pair} ?"), region))
}

pub(super) fn which(scene: &Scene, rng: &mut impl Rng) -> Option<Turn> {
    let everything =
        Relation::ALL.into_iter().flat_map(|relation| (0..scene.objects.len()).map(move |b| (relation, b)));
    let plain: Vec<_> = everything.filter_map(|(relation, b)| Some((relation, b, only(scene, relation, b)?))).collect();
    let &(relation, b, a) = plain.choose(rng)?;
    let (a, b) = (scene.objects[a].pair, scene.objects[b].pair);
    let answer = format!("{} {a}", a.article());
    Some(Turn::new(QuestionKind::Which, format!("what is {} the {b} ?", relation.words()), answer))
}

/// The one object that is `relation` object `b`, if that is beyond doubt for every other object. Objects that do not
/// overlap are neither in front of nor behind each other; that is no doubt.
fn only(scene: &Scene, relation: Relation, b: usize) -> Option<usize> {
    let mut found = None;
    for a in (0..scene.objects.len()).filter(|&a| a != b) {
        match scene.holds(a, relation, b) {
            Some(true) if found.is_none() => found = Some(a),
            Some(true) => return None,
            Some(false) => {}
            None if relation.axis() == Axis::Depth => {}
            None => return None,
        }
    }
    found
}

pub(super) fn describe(scene: &Scene) -> Turn {
    Turn::new(QuestionKind::Describe, "describe the image .".to_string(), scene.list_caption())
}

pub(super) fn describe_relation(scene: &Scene, rng: &mut impl Rng) -> Option<Turn> {
    let caption: Caption = scene.relation_caption(rng)?;
    Some(Turn::new(QuestionKind::DescribeRelation, "describe a relation .".to_string(), caption))
}
