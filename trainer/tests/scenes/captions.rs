//! Captions, their parser and their judge.

use lenslet::data::scenes::{
    Caption, CaptionKind, Pair, PairSet, Relation, Shape, Split, hallucinated, is_true, mentions, vocabulary,
};
use proptest::prelude::*;

use crate::plain;
use crate::{SCENES, WORLDS};

#[test]
fn captions_are_true_and_false_ones_false() {
    for (scenes, split) in WORLDS.iter().flat_map(|scenes| Split::ALL.map(|split| (scenes, split))) {
        for index in 0..3_000 {
            let scene = scenes.scene(split, index);
            let mut rng = scenes.text_rng(split, index, 0);
            let kinds = [CaptionKind::List, CaptionKind::Relation, CaptionKind::Count];
            let true_ones = kinds.into_iter().filter_map(|kind| scene.caption(kind, &mut rng)).collect::<Vec<_>>();
            for caption in true_ones.into_iter().chain([scene.any_caption(&mut rng)]) {
                let text = caption.to_string();
                assert!(is_true(&text, &scene) && hallucinated(&text, &scene).is_empty(), "{split:?} {index}: {text}");
                assert_eq!(plain::judge(&scene, &text), Some(true), "{split:?} {index}: {text}");
                assert_eq!(Caption::parse(&text), Some(caption));
            }
            let other = scenes.scene(split, index + 1);
            for caption in [scene.false_caption(&other, &mut rng), scene.altered_caption(&mut rng)] {
                let text = caption.to_string();
                assert!(!is_true(&text, &scene), "{split:?} {index}: {text}");
                assert_eq!(caption.holds(&scene), Some(false), "{split:?} {index}: {text}");
                assert_eq!(plain::judge(&scene, &text), Some(false), "{split:?} {index}: {text}");
                assert_eq!(Caption::parse(&text), Some(caption));
            }
        }
    }
}

/// The judge and the plain one agree on captions of other scenes too, undecided ones included.
#[test]
fn captions_of_other_scenes_are_judged_alike() {
    let mut verdicts = [0; 3];
    for index in 0..300 {
        let scene = SCENES.scene(Split::Train, index);
        for other in 0..300 {
            let caption =
                SCENES.scene(Split::HeldOut, other).any_caption(&mut SCENES.text_rng(Split::HeldOut, other, 0));
            let verdict = caption.holds(&scene);
            assert_eq!(verdict, plain::judge(&scene, &caption.to_string()), "{index}: {caption}");
            verdicts[verdict.map_or(2, usize::from)] += 1;
        }
    }
    assert!(verdicts.iter().all(|&n| n > 20), "{verdicts:?}");
}

#[test]
fn every_claim_reads_back_as_it_was_written() {
    let pairs: Vec<Pair> = PairSet::ALL.iter().collect();
    let mut captions = Vec::new();
    for (i, &subject) in pairs.iter().enumerate() {
        let object = pairs[(i * 7 + 1) % pairs.len()];
        captions.extend(Relation::ALL.map(|relation| Caption::Relation { subject, relation, object }));
        captions.extend((1..6).map(|n| Caption::List((0..n).map(|k| pairs[(i + 11 * k) % pairs.len()]).collect())));
    }
    let counted = Shape::ALL.map(Some).into_iter().chain([None]);
    captions.extend(counted.flat_map(|shape| (0..5).map(move |count| Caption::Count { shape, count })));
    for caption in captions {
        assert_eq!(Caption::parse(&caption.to_string()), Some(caption));
    }
}

#[test]
fn what_is_no_caption_is_not_true() {
    let scene = SCENES.scene(Split::Train, 0);
    let list = scene.caption(CaptionKind::List, &mut SCENES.text_rng(Split::Train, 0, 0)).expect("a list").to_string();
    assert!(is_true(&list, &scene));
    let broken = [
        String::new(),
        ".".to_string(),
        list.trim_end_matches(" .").to_string(),
        format!("{list} ."),
        format!(" {list}"),
        list.to_uppercase(),
        list.replacen("a ", "an ", 1),
        list.replace(" .", " and ."),
    ];
    for text in broken {
        assert_eq!(Caption::parse(&text), None, "{text}");
        assert!(!is_true(&text, &scene), "{text}");
    }
    for text in [
        "one shapes .",
        "two circle .",
        "five shapes .",
        "a red circle , a blue square .",
        "a red circle left a blue square .",
    ] {
        assert_eq!(Caption::parse(text), None, "{text}");
    }
    // Claiming the same object twice claims two of it.
    let name = plain::name(&scene.objects[0]);
    let article = list.split(' ').next().expect("an article");
    let twice = format!("{article} {name} and {article} {name} .");
    if let Some(caption) = Caption::parse(&twice) {
        assert_eq!(caption.holds(&scene), Some(false));
    }
}

#[test]
fn mentions_count_every_name_in_any_text() {
    let scene = SCENES.scene(Split::Train, 3);
    let (here, absent) = (scene.objects[0].pair, PairSet::HELD_OUT.iter().next().expect("a pair"));
    let text = format!("the {here} and a {absent} , {absent} red is there circle");
    assert_eq!(mentions(&text), [here, absent, absent]);
    assert_eq!(hallucinated(&text, &scene), [absent, absent]);
    assert_eq!(hallucinated("", &scene), []);
}

proptest! {
    #[test]
    fn any_string_parses_to_its_own_meaning_or_not_at_all(text in "\\PC*") {
        if let Some(caption) = Caption::parse(&text) {
            prop_assert_eq!(caption.to_string(), text);
        }
    }

    #[test]
    fn any_words_parse_to_their_own_meaning_or_not_at_all(picks in prop::collection::vec(0..1000usize, 0..14)) {
        let words = vocabulary();
        let mut text: Vec<_> = picks.iter().map(|pick| words[pick % words.len()]).collect();
        text.push(".");
        let text = text.join(" ");
        let scene = SCENES.scene(Split::Train, picks.len() as u64);
        if let Some(caption) = Caption::parse(&text) {
            prop_assert_eq!(&caption.to_string(), &text);
        }
        let _ = (is_true(&text, &scene), hallucinated(&text, &scene));
    }

    /// One word of a true caption replaced: it stays a caption with another meaning, or stops being one.
    #[test]
    fn a_changed_word_changes_the_meaning(index in 0..500u64, at in 0..20usize, with in 0..1000usize) {
        let scene = SCENES.scene(Split::Train, index);
        let caption = scene.any_caption(&mut SCENES.text_rng(Split::Train, index, 0));
        let (text, words) = (caption.to_string(), vocabulary());
        let mut changed: Vec<_> = text.split(' ').collect();
        let at = at % changed.len();
        changed[at] = words[with % words.len()];
        let changed = changed.join(" ");
        let parsed = Caption::parse(&changed);
        prop_assert_eq!(parsed == Some(caption), changed == text);
    }
}
