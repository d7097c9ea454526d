//! Every answer is right, and questions name only what they may.

use std::collections::{BTreeSet, HashSet};

use lenslet::data::scenes::{
    Caption, Negatives, QuestionKind, QuestionWeights, Scene, Scenes, Split, Turn, dialogue, evaluation, is_true,
    vocabulary,
};

use crate::plain::{self, HELD_OUT};
use crate::{SCENES, WORLDS};

fn turns(scenes: &Scenes, split: Split, index: u64) -> (Scene, Vec<Turn>) {
    let scene = scenes.scene(split, index);
    let mut rng = scenes.text_rng(split, index, 0);
    let mut turns = dialogue(&scene, &QuestionWeights::EVEN, 6, false, &mut rng);
    turns.extend(evaluation(&scene, &mut rng));
    (scene, turns)
}

#[test]
fn every_answer_is_right() {
    for (scenes, split) in WORLDS.iter().flat_map(|scenes| Split::ALL.map(|split| (scenes, split))) {
        let mut kinds = HashSet::new();
        for index in 0..3_000 {
            let (scene, turns) = turns(scenes, split, index);
            for Turn { kind, question, answer } in turns {
                kinds.insert(kind);
                match plain::answer(&scene, &question) {
                    Some(right) => assert_eq!(answer, right, "{split:?} {index}: {question}"),
                    None => {
                        assert!(matches!(Caption::parse(&answer), Some(Caption::Relation { .. })), "{answer}");
                        assert_eq!(plain::judge(&scene, &answer), Some(true), "{split:?} {index}: {answer}");
                    }
                }
                if matches!(kind, QuestionKind::Describe | QuestionKind::DescribeRelation) {
                    assert!(is_true(&answer, &scene));
                }
            }
        }
        let asked = QuestionKind::ALL.into_iter().filter(|kind| {
            split != Split::Compositional || !matches!(kind, QuestionKind::Existence(n) if *n != Negatives::Adversarial)
        });
        assert_eq!(kinds, asked.collect(), "{:?} {split:?}", scenes.world);
    }
}

#[test]
fn training_texts_never_name_a_held_out_pair() {
    let both = [Split::Train, Split::HeldOut];
    for (scenes, split) in WORLDS.iter().flat_map(|scenes| both.map(|split| (scenes, split))) {
        for index in 0..5_000 {
            let (scene, turns) = turns(scenes, split, index);
            let other = scenes.scene(split, index + 1);
            let mut rng = scenes.text_rng(split, index, 1);
            let captions =
                [scene.any_caption(&mut rng), scene.false_caption(&other, &mut rng), scene.altered_caption(&mut rng)];
            let texts = turns.into_iter().map(|turn| format!("{} {}", turn.question, turn.answer));
            for text in texts.chain(captions.map(|caption| caption.to_string())) {
                assert!(HELD_OUT.iter().all(|pair| !text.contains(pair)), "{split:?} {index}: {text}");
            }
        }
    }
}

#[test]
fn compositional_existence_is_about_held_out_pairs_half_of_them_absent() {
    let mut absent_recombined = 0;
    for index in 0..4_000 {
        let (scene, turns) = turns(&SCENES, Split::Compositional, index);
        let mut in_evaluation = Vec::new();
        for turn in turns.iter().filter(|turn| matches!(turn.kind, QuestionKind::Existence(_))) {
            assert!(HELD_OUT.contains(&plain::names(&turn.question)[0].as_str()), "{}", turn.question);
            in_evaluation.push(turn.answer.as_str());
        }
        // The evaluation's come last: one of each, except where all five held-out pairs were shown, which four objects
        // cannot do.
        assert_eq!(in_evaluation[in_evaluation.len() - 2..], ["yes", "no"], "{index}");
        let words = |pair: &str| pair.split_once(' ').map(|(c, s)| (c.to_string(), s.to_string())).expect("two words");
        let shown: Vec<_> = scene.objects.iter().map(|object| words(&plain::name(object))).collect();
        let near = |pair: &&str| {
            let (c, s) = words(pair);
            !shown.contains(&(c.clone(), s.clone())) && shown.iter().any(|o| o.0 == c) && shown.iter().any(|o| o.1 == s)
        };
        let possible: Vec<_> = HELD_OUT.iter().filter(|pair| near(pair)).collect();
        let last_no = turns.iter().rfind(|turn| matches!(turn.kind, QuestionKind::Existence(_))).expect("asked");
        if !possible.is_empty() {
            absent_recombined += 1;
            assert!(possible.iter().any(|pair| last_no.question.contains(**pair)), "{index}: {}", last_no.question);
        }
    }
    assert!(absent_recombined > 400, "{absent_recombined}");
}

#[test]
fn a_dialogue_has_the_turns_asked_for_and_repeats_nothing() {
    let only = |text: &str| toml::from_str::<QuestionWeights>(text).expect("weights");
    let mut lengths = [0; 7];
    for index in 0..4_000 {
        let scene = SCENES.scene(Split::Train, index);
        for weights in [QuestionWeights::EVEN, only("existence = 1"), only("spatial = 1\ncount = 0.1")] {
            let turns = dialogue(&scene, &weights, 6, false, &mut SCENES.text_rng(Split::Train, index, 0));
            assert_eq!(turns, dialogue(&scene, &weights, 6, false, &mut SCENES.text_rng(Split::Train, index, 0)));
            let questions: HashSet<_> = turns.iter().map(|turn| &turn.question).collect();
            assert_eq!(questions.len(), turns.len(), "{turns:?}");
            if weights == QuestionWeights::EVEN {
                lengths[turns.len()] += 1;
            }
        }
    }
    assert!(lengths[6] > 3_960, "{lengths:?}");
}

#[test]
fn independent_turns_may_ask_after_the_same_in_other_words() {
    let weights: QuestionWeights = toml::from_str("spatial = 1").expect("weights");
    let mut again = 0;
    for index in 0..500 {
        let scene = SCENES.scene(Split::Train, index);
        let turns = dialogue(&scene, &weights, 6, true, &mut SCENES.text_rng(Split::Train, index, 0));
        let questions: HashSet<_> = turns.iter().map(|turn| &turn.question).collect();
        assert_eq!(questions.len(), turns.len(), "{turns:?}");
        // Two objects can be compared along three axes at most.
        again += usize::from(scene.objects.len() == 2 && turns.len() > 3);
    }
    assert!(again > 50, "{again}");
}

#[test]
fn texts_use_the_vocabulary_and_all_of_it() {
    let words = vocabulary();
    let known: BTreeSet<_> = words.iter().map(|word| word.to_string()).collect();
    assert_eq!(known.len(), words.len());
    let mut used = BTreeSet::new();
    for index in 0..3_000 {
        let (scene, turns) = turns(&SCENES, Split::Train, index);
        let caption = scene.any_caption(&mut SCENES.text_rng(Split::Train, index, 1)).to_string();
        let texts = turns.into_iter().flat_map(|turn| [turn.question, turn.answer]).chain([caption]);
        texts.for_each(|text| used.extend(text.split(' ').map(String::from)));
    }
    assert_eq!(used, known);
}

#[test]
fn weights_read_from_a_recipe_and_move_linearly() {
    let start: QuestionWeights = toml::from_str("existence = 2\nwhere = 1\ndescribe_relation = 0.5").expect("weights");
    let end: QuestionWeights = toml::from_str("existence = 4\nwhich = 2").expect("weights");
    let quarter = start.lerp(end, 0.25);
    assert_eq!((quarter.existence, quarter.r#where, quarter.which, quarter.describe_relation), (2.5, 0.75, 0.5, 0.375));
    assert_eq!((start.lerp(end, 0.0), start.lerp(end, 1.0)), (start, end));
    assert!(toml::from_str::<QuestionWeights>("existance = 1").is_err());
    assert!(start.check().is_ok());
    assert!(toml::from_str::<QuestionWeights>("").expect("weights").check().is_err());
    assert!(toml::from_str::<QuestionWeights>("count = 1\nwhere = -1").expect("weights").check().is_err());
    assert!(toml::from_str::<QuestionWeights>("count = nan").expect("weights").check().is_err());
}

#[test]
fn a_kind_without_weight_is_not_asked() {
    let weights: QuestionWeights = toml::from_str("where = 1\ncolour = 1").expect("weights");
    for index in 0..500 {
        let scene = SCENES.scene(Split::Train, index);
        for turn in dialogue(&scene, &weights, 4, false, &mut SCENES.text_rng(Split::Train, index, 0)) {
            assert!(matches!(turn.kind, QuestionKind::Where | QuestionKind::Colour), "{turn:?}");
        }
    }
}
