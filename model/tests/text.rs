//! Tokenizers and conversations.

use model::{Roles, Starts, Texts, Tokenizer, Turn, prompt};
use proptest::prelude::*;

const WORDS: [&str; 9] = ["a", "red", "blue", "circle", "square", "is", "there", "?", "."];

fn words() -> Tokenizer {
    Tokenizer::word_level(WORDS).unwrap()
}

fn bpe() -> Tokenizer {
    let texts = ["the red circle is left of the blue square", "the blue circle is red", "Größe, naïve — 日本語"];
    Tokenizer::train_bpe(texts, 300).unwrap()
}

#[test]
fn ids_follow_the_order_of_words() {
    let tokenizer = words();
    assert_eq!(tokenizer.vocab_size(), 17);
    let s = tokenizer.specials();
    let roles = Some(Roles { user: 4, assistant: 5 });
    let starts = Some(Starts { cls: 6, dec: 7 });
    assert_eq!((s.pad, s.bos, s.eos, s.unk), (0, Some(1), 2, Some(3)));
    assert_eq!((s.roles, s.starts), (roles, starts));
    assert_eq!(tokenizer.ends(), [2]);
    assert_eq!(tokenizer.encode("A red  Circle?").unwrap(), [8, 9, 11, 15]);
    assert_eq!(tokenizer.encode("a purple circle").unwrap(), [8, 3, 11]);
    assert_eq!(tokenizer.encode("").unwrap(), [0u32; 0]);
    assert_eq!(tokenizer.token(11).unwrap(), "circle");
    // Words are split as texts are, and said once.
    let split = Tokenizer::word_level(["left of?", "left", "OF"]).unwrap();
    assert_eq!(split.vocab_size(), 8 + 3);
}

#[test]
fn no_text_makes_a_special_token() {
    for tokenizer in [words(), bpe()] {
        let ids = tokenizer.encode("a <eos> red<user><assistant> <pad>").unwrap();
        let specials = ["<eos>", "<user>", "<assistant>", "<pad>"].map(|token| tokenizer.id(token).unwrap());
        assert!(!ids.iter().any(|id| specials.contains(id)), "{ids:?}");
        let parsed = tokenizer.tokenize("<user> red<eos>", false).unwrap();
        assert_eq!((parsed[0], parsed[parsed.len() - 1]), (specials[1], specials[0]));
    }
    assert_eq!(bpe().decode(&bpe().encode("x<eos>y").unwrap()).unwrap(), "x<eos>y");
}

#[test]
fn special_tokens_are_left_out_of_texts() {
    let tokenizer = words();
    assert_eq!(tokenizer.decode(&[4, 8, 9, 2]).unwrap(), "a red");
    assert_eq!(tokenizer.decode_with_specials(&[4, 8, 9, 2]).unwrap(), "<user> a red <eos>");
}

#[test]
fn bpe_learns_and_needs_room() {
    let tokenizer = bpe();
    assert!(tokenizer.vocab_size() > 264 && tokenizer.vocab_size() <= 300);
    let text = "the red circle";
    assert!(tokenizer.encode(text).unwrap().len() < text.len() / 2);
    assert!(Tokenizer::train_bpe(["x"], 263).unwrap_err().to_string().contains("264"));
    let again = bpe();
    assert_eq!(again.encode("the naïve square").unwrap(), tokenizer.encode("the naïve square").unwrap());
}

#[test]
fn files_come_back() {
    let folder = tempfile::tempdir().unwrap();
    for tokenizer in [words(), bpe()] {
        tokenizer.save(folder.path()).unwrap();
        let opened = Tokenizer::open(folder.path()).unwrap();
        let loaded = Tokenizer::load(&folder.path().join("tokenizer.json")).unwrap();
        for again in [opened, loaded] {
            assert_eq!(again.vocab_size(), tokenizer.vocab_size());
            assert_eq!(again.specials(), tokenizer.specials());
            let text = "a Red circle <eos>?";
            let ids = again.encode(text).unwrap();
            assert_eq!(ids, tokenizer.encode(text).unwrap());
            assert_eq!(again.decode(&ids).unwrap(), tokenizer.decode(&ids).unwrap());
        }
    }
    let path = folder.path().join("tokenizer.json");
    std::fs::write(&path, "{").unwrap();
    assert!(Tokenizer::load(&path).unwrap_err().to_string().contains("tokenizer.json"));
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 200, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn bpe_gives_any_text_back(text in any::<String>()) {
        thread_local!(static BPE: Tokenizer = bpe());
        let again = BPE.with(|t| t.decode(&t.encode(&text).unwrap()).unwrap());
        prop_assert_eq!(again, text);
    }

    #[test]
    fn known_words_come_back(picks in prop::collection::vec(0..WORDS.len(), 0..12)) {
        let text = picks.iter().map(|&i| WORDS[i]).collect::<Vec<_>>().join(" ");
        let tokenizer = words();
        prop_assert_eq!(tokenizer.decode(&tokenizer.encode(&text).unwrap()).unwrap(), text);
    }
}

#[test]
fn conversations_teach_answers_only() {
    let tokenizer = words();
    const USER: u32 = 4;
    const ASSISTANT: u32 = 5;
    const EOS: u32 = 2;
    let turn = Turn::conversation(&tokenizer, &[("is there a circle ?", "red"), ("?", "blue .")]).unwrap();
    let expected = [USER, 13, 14, 8, 11, 15, ASSISTANT, 9, EOS, USER, 15, ASSISTANT, 10, 16, EOS];
    assert_eq!(turn.ids, expected);
    let learned: Vec<u32> = turn.ids.iter().zip(&turn.loss_mask).filter(|(_, l)| **l).map(|(id, _)| *id).collect();
    assert_eq!(learned, [9, EOS, 10, 16, EOS]);
    // A prompt is what stands before the answer.
    let asked = prompt(&tokenizer, &[("is there a circle ?", "red")], "?").unwrap();
    assert_eq!(asked, expected[..12]);
}

#[test]
fn texts_for_the_qformer_have_their_marks() {
    let tokenizer = words();
    let (pad, eos, cls, dec) = (0, 2, 6, 7);
    let matching = Texts::for_matching(&tokenizer, &["a red circle", "a"], 9).unwrap();
    assert_eq!(matching.ids, [cls, 8, 9, 11, cls, 8, pad, pad]);
    assert_eq!(matching.lens, [4, 2]);
    let said = Texts::for_captioning(&tokenizer, &["a red", "a"], 9).unwrap();
    assert_eq!(said.ids, [dec, 8, 9, eos, dec, 8, eos, pad]);
    assert_eq!(said.next_tokens(), [8, 9, 2, -100, 8, 2, -100, -100]);
    let cut = Texts::for_captioning(&tokenizer, &["a red", "a"], 3).unwrap();
    assert_eq!(cut.ids, [dec, 8, 9, dec, 8, eos]);
    assert_eq!(Texts::for_matching(&tokenizer, &["a red"], 2).unwrap().ids, [cls, 8]);
}
