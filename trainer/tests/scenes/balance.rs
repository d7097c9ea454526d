//! Texts alone give no answer away: yes and no are as frequent overall, by kind, by turn and by question.

use std::collections::HashMap;

use lenslet::data::scenes::{QuestionKind, QuestionWeights, Split, Turn, dialogue, evaluation};

use crate::SCENES;

/// How often yes, and how often either.
#[derive(Clone, Copy, Default, Debug)]
struct Tally {
    yes: u32,
    all: u32,
}

impl Tally {
    fn add(&mut self, yes: bool) {
        self.yes += u32::from(yes);
        self.all += 1;
    }

    /// Distance of the share of yes from one half, in standard deviations of fair coins.
    fn sigmas(self) -> f64 {
        let n = f64::from(self.all);
        (f64::from(self.yes) - n / 2.0).abs() / (n / 4.0).sqrt()
    }
}

fn is_yes_no(turn: &Turn) -> bool {
    matches!(turn.kind, QuestionKind::Existence(_) | QuestionKind::Spatial(_))
}

/// The yes-no turns of the dialogues about scenes, with their places in the dialogue.
fn dialogues(split: Split, scenes: std::ops::Range<u64>) -> Vec<Vec<(usize, Turn)>> {
    let weights: QuestionWeights =
        toml::from_str("existence = 3\nspatial = 3\ncount = 1\ncolour = 1\nwhere = 1").expect("weights");
    let yes_no_turns = scenes.map(|index| {
        let turns = dialogue(&SCENES.scene(split, index), &weights, 4, false, &mut SCENES.text_rng(split, index, 0));
        turns.into_iter().enumerate().filter(|(_, turn)| is_yes_no(turn)).collect()
    });
    yes_no_turns.collect()
}

#[test]
fn dialogues_say_yes_as_often_as_no() {
    let mut overall = Tally::default();
    let mut by_kind: HashMap<QuestionKind, Tally> = HashMap::new();
    let mut by_turn: HashMap<(bool, usize), Tally> = HashMap::new();
    for (place, turn) in dialogues(Split::Train, 0..100_000).into_iter().flatten() {
        let (yes, existence) = (turn.answer == "yes", matches!(turn.kind, QuestionKind::Existence(_)));
        overall.add(yes);
        by_kind.entry(turn.kind).or_default().add(yes);
        by_turn.entry((existence, place)).or_default().add(yes);
    }
    println!("overall {overall:?}\nby kind {by_kind:?}\nby turn {by_turn:?}");
    assert!(overall.sigmas() < 4.0, "{overall:?}");
    assert_eq!((by_kind.len(), by_turn.len()), (9, 8));
    by_kind.iter().for_each(|(kind, tally)| assert!(tally.sigmas() < 4.0, "{kind:?}: {tally:?}"));
    by_turn.iter().for_each(|(turn, tally)| assert!(tally.sigmas() < 4.0, "{turn:?}: {tally:?}"));
}

#[test]
fn every_question_of_the_dialogues_is_answered_yes_as_often_as_no() {
    let mut spatial: HashMap<String, Tally> = HashMap::new();
    let (mut first, mut later): (HashMap<String, Tally>, HashMap<String, Tally>) = Default::default();
    for dialogue in dialogues(Split::Train, 0..100_000) {
        let mut existence = &mut first;
        for (_, Turn { kind, question, answer }) in dialogue {
            if matches!(kind, QuestionKind::Spatial(_)) {
                spatial.entry(question).or_default().add(answer == "yes");
            } else {
                existence.entry(question).or_default().add(answer == "yes");
                existence = &mut later;
            }
        }
    }
    // 25 x 24 ordered pairs of training pairs, six relations. Among so many, 4 sigma would be passed by chance.
    assert_eq!((first.len(), later.len(), spatial.len()), (25, 25, 25 * 24 * 6));
    let worst = |tallies: &HashMap<String, Tally>| tallies.values().map(|tally| tally.sigmas()).fold(0.0, f64::max);
    println!("worst sigmas: spatial {}, first existence {}, later {}", worst(&spatial), worst(&first), worst(&later));
    spatial.iter().for_each(|(question, tally)| assert!(tally.sigmas() < 5.0, "{question}: {tally:?}"));
    first.iter().for_each(|(question, tally)| assert!(tally.sigmas() < 4.0, "{question}: {tally:?}"));
    // Later ones leave out the pairs asked after before, which shifts them a little: 0.06 and 4 sigma are allowed.
    for (question, tally) in later {
        let (share, sigma) = (f64::from(tally.yes) / f64::from(tally.all), 0.5 / f64::from(tally.all).sqrt());
        println!("{question} {share:.3}");
        assert!((share - 0.5).abs() < 0.06 + 4.0 * sigma, "{question}: {share}");
    }
}

/// Learns the commoner answer to each question from the texts about training scenes alone.
fn majority_answers() -> HashMap<String, bool> {
    let mut votes: HashMap<String, i32> = HashMap::new();
    for (_, turn) in dialogues(Split::Train, 0..100_000).into_iter().flatten() {
        *votes.entry(turn.question).or_default() += if turn.answer == "yes" { 1 } else { -1 };
    }
    votes.into_iter().map(|(question, votes)| (question, votes >= 0)).collect()
}

#[test]
fn guessing_from_the_question_alone_is_no_better_than_a_coin() {
    let majority = majority_answers();
    let mut by_kind: HashMap<QuestionKind, Tally> = HashMap::new();
    for index in 0..5_000 {
        let scene = SCENES.scene(Split::HeldOut, index);
        for turn in
            evaluation(&scene, &mut SCENES.text_rng(Split::HeldOut, index, 0)).iter().filter(|turn| is_yes_no(turn))
        {
            let guess = majority.get(&turn.question).copied().unwrap_or(true);
            by_kind.entry(turn.kind).or_default().add(guess == (turn.answer == "yes"));
        }
    }
    println!("{by_kind:?}");
    assert_eq!(by_kind.len(), 9);
    let mut in_dialogues = Tally::default();
    for (_, turn) in dialogues(Split::HeldOut, 0..20_000).into_iter().flatten() {
        let guess = majority.get(&turn.question).copied().unwrap_or(true);
        in_dialogues.add(guess == (turn.answer == "yes"));
    }
    println!("in dialogues {in_dialogues:?}");
    let share = f64::from(in_dialogues.yes) / f64::from(in_dialogues.all);
    assert!((share - 0.5).abs() < 0.02, "{share}");
    for (kind, right) in by_kind {
        assert!(right.sigmas() < 4.0, "{kind:?}: {right:?}");
    }
}

/// A guesser may also count the answers of the very set it is tested on; with one yes and one no per scene, each pair
/// of questions by itself is balanced, and so is every question text.
#[test]
fn evaluation_questions_come_as_yes_and_no() {
    for (split, kinds) in [(Split::HeldOut, 9), (Split::Compositional, 7)] {
        let mut by_kind: HashMap<QuestionKind, Tally> = HashMap::new();
        let mut by_question: HashMap<(QuestionKind, String), Tally> = HashMap::new();
        for index in 0..20_000 {
            let scene = SCENES.scene(split, index);
            for turn in evaluation(&scene, &mut SCENES.text_rng(split, index, 0)).into_iter().filter(is_yes_no) {
                by_kind.entry(turn.kind).or_default().add(turn.answer == "yes");
                by_question.entry((turn.kind, turn.question)).or_default().add(turn.answer == "yes");
            }
        }
        println!("{split:?} {by_kind:?}");
        assert_eq!(by_kind.len(), kinds);
        by_kind.iter().for_each(|(kind, tally)| assert_eq!(2 * tally.yes, tally.all, "{kind:?}"));
        for ((kind, question), tally) in
            by_question.iter().filter(|((kind, _), _)| matches!(kind, QuestionKind::Existence(_)))
        {
            assert!(tally.sigmas() < 4.0, "{split:?} {kind:?} {question}: {tally:?}");
        }
        by_question.iter().for_each(|((_, question), tally)| assert!(tally.sigmas() < 5.0, "{question}: {tally:?}"));
    }
}

/// The guess that fits count questions best is the commonest number.
#[test]
fn no_number_answers_most_count_questions() {
    let mut answers: HashMap<String, u32> = HashMap::new();
    for index in 0..20_000 {
        let scene = SCENES.scene(Split::HeldOut, index);
        for turn in evaluation(&scene, &mut SCENES.text_rng(Split::HeldOut, index, 0)) {
            if turn.kind == QuestionKind::Count {
                *answers.entry(turn.answer).or_default() += 1;
            }
        }
    }
    println!("{answers:?}");
    assert_eq!(answers.len(), 5);
    assert!(answers.values().all(|&n| n < 20_000 / 3), "{answers:?}");
}
