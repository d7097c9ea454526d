//! Readers of benchmarks: what they understand, what they refuse, and that nothing makes them panic.

use super::captioned::{self, Captioned};
use super::prompts as prompts_of;
use super::*;
use crate::eval::records;
use proptest::prelude::*;
use serde::Deserialize;

const POPE: &str = r#"{"question_id": 1, "image": "a.jpg", "text": "Is there a dog in the image?", "label": "yes"}
{"question_id": 2, "image": "a.jpg", "text": "Is there a cat in the image?", "label": "No"}"#;
const VSR: &str = r#"{"image": "a.jpg", "caption": "The dog is under the table.", "label": 1, "relation": "under"}"#;
const VQA: &str = r#"[{"image": "a.jpg", "question": "How many?", "answers": ["2", {"answer": "two"}], "answer_type": "number"},
 {"image": "b.jpg", "question": "What?", "answer": "dog"}]"#;
const QUESTIONS: &str =
    r#"{"data_subtype": "val2014", "questions": [{"question_id": 7, "image_id": 42, "question": "How many?"}]}"#;
const ANNOTATIONS: &str =
    r#"{"annotations": [{"question_id": 7, "answer_type": "number", "answers": [{"answer": "2"}]}]}"#;
const NLVR: &str = r#"{"sentence": "a", "label": "true", "identifier": "12-0", "directory": "2"}"#;
const LINES: &str = r#"{"file": "a.jpg", "captions": ["a dog", "the dog"], "objects": [{"category": "dog"}]}
{"image": "b.jpg", "conversations": [{"from": "human", "value": "<image>\nWhat?"}, {"from": "gpt", "value": "a cat"}]}"#;
const CAPTIONS: &str = r#"{"images": [{"id": 1, "file_name": "a.jpg"}, {"id": 2, "file_name": "b.jpg"}],
 "annotations": [{"image_id": 1, "caption": "a dog"}, {"image_id": 1, "caption": "the dog"}]}"#;
const INSTANCES: &str = r#"{"images": [{"id": 1, "file_name": "a.jpg"}], "categories": [{"id": 18, "name": "dog"}],
 "annotations": [{"image_id": 1, "category_id": 18, "bbox": [1, 2, 3, 4]}]}"#;

/// A task read from one file of this name.
fn read(name: Name, file: &str, text: &str) -> Result<Box<dyn Task>> {
    read_all(name, &[(file, text)], &["a.jpg", "b.jpg", "COCO_val2014_000000000042.jpg"])
}

fn read_all(name: Name, files: &[(&str, &str)], images: &[&str]) -> Result<Box<dyn Task>> {
    let folder = tempfile::tempdir().expect("a folder");
    for image in images {
        std::fs::write(folder.path().join(image), "").expect("written");
    }
    let write = |(file, text): &(&str, &str)| {
        let path = folder.path().join(file);
        std::fs::write(&path, text).expect("written");
        path
    };
    let source = Source { data: files.iter().map(write).collect(), ..Source::default() };
    open(name, &source, &Pictures::open(folder.path())?)
}

/// What is said of a file, or of those of its records that cannot be asked.
fn refused(name: Name, file: &str, text: &str) -> String {
    let task = match read(name, file, text) {
        Ok(task) => task,
        Err(error) => return format!("{error:#}"),
    };
    let faults = task.items().iter().filter_map(|item| Some((&item.image, item.fault.as_ref()?)));
    let lines: Vec<String> = faults.map(|(place, why)| format!("{place}: {why}")).collect();
    assert!(!lines.is_empty(), "{name:?}: nothing is said of {text}");
    lines.join("\n")
}

#[test]
fn every_format_is_understood() {
    let pope = read(Name::Pope, "coco_pope_random.json", POPE).unwrap();
    assert_eq!(pope.items()[1].expected, "no");
    let vsr = read(Name::Vsr, "vsr.jsonl", VSR).unwrap();
    assert_eq!(vsr.items()[0].expected, "true");
    assert_eq!(
        vsr.items()[0].question,
        "Is this statement true of the picture? The dog is under the table.\nAnswer true or false."
    );
    let vqa = read(Name::Vqa, "vqa.json", VQA).unwrap();
    assert_eq!((vqa.items()[0].expected.as_str(), vqa.items()[1].expected.as_str()), ("2 | two", "dog"));
    let talk = r#"{"image": "a.jpg", "conversations": [{"from": "human", "value": "<image>\nHow many?"},
        {"from": "gpt", "value": "2"}, {"from": "human", "value": "Of what?"}, {"from": "gpt", "value": "dogs"}]}"#;
    let vqa = read(Name::Vqa, "llava.json", &talk.replace('\n', "")).unwrap();
    let of = |i: usize| (vqa.items()[i].question.as_str(), vqa.items()[i].expected.as_str());
    assert_eq!((of(0), of(1)), (("How many?", "2"), ("Of what?", "dogs")));
    let captions = read(Name::Caption, "lines.jsonl", LINES).unwrap();
    assert_eq!(captions.items()[0].question, "Describe the picture in one sentence.");
    assert_eq!(captions.items()[1].question, "What?", "the data's own question");
    let chair = read_all(Name::Chair, &[("i.json", INSTANCES), ("c.json", CAPTIONS)], &["a.jpg", "b.jpg"]);
    let faults: Vec<_> = chair.unwrap().items().iter().map(|item| item.fault.is_some()).collect();
    assert_eq!(faults, [false, true], "nobody looked for objects in b.jpg");
    let chair = read(Name::Chair, "i.json", INSTANCES).unwrap();
    assert_eq!(chair.items()[0].expected, "dog");
}

/// What Python and tables write for answers and labels, and turns as for training.
#[test]
fn answers_and_labels_are_read_however_they_are_written() {
    let expected = |name: Name, text: &str| -> Vec<String> {
        let task = read(name, "x.json", text).unwrap();
        task.items().iter().map(|item| item.expected.clone()).collect()
    };
    let vqa = r#"[{"image": "a.jpg", "question": "q", "answer": 2, "score": NaN},
        {"image": "a.jpg", "question": "q", "answers": [2.5, true, {"answer": 7}, {"answer": "x"}]}]"#;
    assert_eq!(expected(Name::Vqa, vqa), ["2", "2.5 | true | 7 | x"]);
    for (label, yes) in
        [("true", true), ("1.0", true), ("\"True\"", true), ("\"1\"", true), ("false", false), ("0", false)]
    {
        assert_eq!(expected(Name::Vsr, &VSR.replace(": 1", &format!(": {label}"))), [yes.to_string()]);
        let pope = POPE.replace("\"yes\"", label);
        assert_eq!(expected(Name::Pope, &pope)[0], if yes { "yes" } else { "no" });
    }
    let talk =
        r#"{"image": "a.jpg", "conversations": [{"from": "system", "value": "s"}, {"from": "gpt", "value": "hi"},
        {"from": "human", "value": "<image>\nWhat?"}, {"from": "gpt", "value": "a cat"}]}"#
            .replace('\n', "");
    for name in [Name::Vqa, Name::Caption] {
        let task = read(name, "x.json", &talk).unwrap();
        let item = &task.items()[0];
        assert_eq!((item.question.as_str(), item.expected.as_str()), ("What?", "a cat"), "{name:?}");
    }
}

#[test]
fn pictures_may_lie_in_any_folder_if_only_one_has_them() {
    let folder = tempfile::tempdir().unwrap();
    for order in 0..6 {
        let sub = folder.path().join(format!("deep/{}", order % 2));
        std::fs::create_dir_all(&sub).unwrap();
        std::fs::write(sub.join(format!("dev-12-0-{order}.png")), "").unwrap();
    }
    std::fs::write(folder.path().join("deep/COCO_val2014_000000000042.jpg"), "").unwrap();
    for (file, text) in [("dev.json", NLVR), ("q.json", QUESTIONS), ("a.json", ANNOTATIONS)] {
        std::fs::write(folder.path().join(file), text).unwrap();
    }
    let read = |name: Name, files: &[&str]| {
        let data = files.iter().map(|file| folder.path().join(file)).collect();
        let source = Source { data, ..Source::default() };
        open(name, &source, &Pictures::open(folder.path())?)
    };
    assert_eq!(read(Name::Nlvr, &["dev.json"]).unwrap().items()[3].image, "deep/1/dev-12-0-3.png");
    let vqa = read(Name::Vqa, &["q.json", "a.json"]).unwrap();
    assert_eq!(vqa.items()[0].image, "deep/COCO_val2014_000000000042.jpg");
    std::fs::write(folder.path().join("deep/dev-12-0-0.png"), "").unwrap();
    let message = format!("{:#}", read(Name::Nlvr, &["dev.json"]).err().unwrap());
    assert!(message.contains("in several folders: deep/0/dev-12-0-0.png, deep/dev-12-0-0.png"), "{message}");
}

#[test]
fn conversations_are_read_as_training_reads_them() {
    let system = r#"{"role": "system", "content": "be brief"}, "#;
    let user = r#"{"role": "user", "content": [{"type": "image"}, {"type": "text", "text": "How many?"}]}, "#;
    let more = r#"{"role": "assistant", "content": "2"}, {"role": "user", "content": "Of what?"}, {"role": "assistant", "content": "dogs"}"#;
    let messages = format!(r#"{{"images": ["a.jpg"], "messages": [{system}{user}{more}]}}"#);
    let llava = r#"{"image": ["a.jpg", "b.jpg"], "system": "be brief", "conversations": [
        {"from": "human", "value": "<image><image> How many?"}, {"from": "gpt", "value": "2"},
        {"from": "human", "value": "Of what?"}, {"from": "gpt", "value": "dogs"}]}"#;
    for (text, marks, more) in
        [(messages.as_str(), "", vec![]), (&llava.replace('\n', ""), "<image><image> ", vec!["b.jpg"])]
    {
        let vqa = read(Name::Vqa, "x.json", text).unwrap();
        let [first, second] = vqa.items() else { panic!("{text}") };
        assert_eq!(first.question, format!("{marks}How many?"));
        assert_eq!((second.question.as_str(), second.expected.as_str()), ("Of what?", "dogs"));
        assert_eq!(second.before, [(first.question.clone(), "2".to_string())]);
        for item in [first, second] {
            assert_eq!(item.system.as_deref(), Some("be brief"));
            assert_eq!(
                (item.image.as_str(), &item.more_images),
                ("a.jpg", &more.iter().map(|m| m.to_string()).collect())
            );
        }
        let caption = read(Name::Caption, "x.json", text).unwrap();
        assert_eq!((&caption.items()[0].system, &caption.items()[0].question), (&first.system, &first.question));
        assert_eq!(caption.items()[0].expected, "2");
    }
    let completion = r#"{"image": "a.jpg", "system": "be brief", "prompt": "How many?", "completion": "2"}"#;
    for name in [Name::Vqa, Name::Caption] {
        let task = read(name, "x.json", completion).unwrap();
        let [item] = task.items() else { panic!("{name:?}") };
        assert_eq!((item.question.as_str(), item.expected.as_str()), ("How many?", "2"));
        assert_eq!(item.system.as_deref(), Some("be brief"));
    }
    let later = r#"{"image": "a.jpg", "conversations": [{"from": "human", "value": "Ready?"}, {"from": "gpt", "value": "yes"},
        {"from": "human", "value": "<image>What?"}, {"from": "gpt", "value": "a dog"}]}"#;
    let later = read(Name::Vqa, "x.json", &later.replace('\n', "")).unwrap();
    let shown_later: Vec<bool> = later.items().iter().map(|item| item.shown_later).collect();
    assert_eq!(shown_later, [true, false]);
    let refused =
        refused(Name::Vqa, "x.json", r#"{"image": "a.jpg", "conversations": [{"from": "human", "value": "?"}]}"#);
    assert!(refused.contains("x.json:1: conversations: 1 entries: the last question has no answer"), "{refused}");
    let line =
        read(Name::Vqa, "x.json", r#"{"image": "a.jpg", "question": "<image>\nHow many?", "answer": "2"}"#).unwrap();
    assert_eq!(line.items()[0].question, "How many?");
}

/// One image with the answers `red` and `square` to two questions, and a caption without one.
#[test]
fn another_questions_answer_is_no_caption() {
    let talk = |image: &str, system: &str, question: &str, answer: &str| {
        format!(r#"{{"image": {image}, "system": "{system}", "prompt": "{question}", "completion": "{answer}"}}"#)
    };
    let lines = [
        talk(r#""a.jpg""#, "s", "Colour?", "a red dog"),
        talk(r#""a.jpg""#, "s", "Shape?", "square"),
        talk(r#""a.jpg""#, "s", "Colour?", "crimson"),
        talk(r#""a.jpg""#, "t", "Colour?", "red in t"),
        talk(r#"["a.jpg", "b.jpg"]"#, "s", "Colour?", "both"),
        r#"{"image": "a.jpg", "caption": "a cat"}"#.into(),
        r#"{"image": "a.jpg", "objects": [{"category": "bird"}]}"#.into(),
        r#"{"image": "b.jpg", "objects": [{"category": "cup"}]}"#.into(),
    ]
    .join("\n");
    let expected = |name: Name| -> Vec<String> {
        let task = read(name, "x.jsonl", &lines).unwrap();
        task.items().iter().map(|item| item.expected.clone()).collect()
    };
    let of_questions = ["a red dog | crimson", "square", "red in t", "both", "a cat", ""];
    assert_eq!(expected(Name::Caption), of_questions);
    let shown = "bird | cat | dog";
    assert_eq!(expected(Name::Chair), [shown, shown, shown, shown, shown, "cup"]);
    // Whatever was asked, all of it is said about the image.
    let retrieval = read(Name::Retrieval, "x.jsonl", &lines).unwrap();
    let faults: Vec<_> = retrieval.items().iter().map(|item| item.fault.as_deref()).collect();
    let pair = "several images with one caption";
    assert_eq!(faults, [None, Some(pair), Some("no caption in the data")]);
    assert_eq!(retrieval.items()[0].expected, "a red dog | square | crimson | red in t | a cat");
}

#[test]
fn a_caption_is_asked_for_as_in_training() {
    let asked = |prompts: &[&str], trained: &[&str]| {
        let source = Source {
            prompts: prompts.iter().map(|p| p.to_string()).collect(),
            trained: TrainingQuestions {
                questions: trained.iter().map(|q| (q.to_string(), 1)).collect(),
                ..TrainingQuestions::default()
            },
            ..Source::default()
        };
        let image = |question: Option<&str>| Captioned {
            captions: vec!["a dog".into()],
            question: question.map(String::from),
            ..Captioned::default()
        };
        let items = caption::items(&[image(None), image(Some("Own?"))], &source, |_| None).unwrap();
        prompts_of(Name::Caption, &source, &items)
    };
    assert_eq!(asked(&[], &[]), ["Describe the picture in one sentence.", "Own?"]);
    assert_eq!(asked(&[], &["What?", "Other?"]), ["What?", "Own?"]);
    assert_eq!(asked(&["Given."], &["What?"]), ["Given."]);
}

#[test]
fn vqas_pair_comes_in_any_order_and_images_have_cocos_names() {
    let images = ["COCO_val2014_000000000042.jpg"];
    for files in [[("q", QUESTIONS), ("a", ANNOTATIONS)], [("a", ANNOTATIONS), ("q", QUESTIONS)]] {
        let vqa = read_all(Name::Vqa, &files, &images).unwrap();
        assert_eq!((vqa.items()[0].image.as_str(), vqa.items()[0].expected.as_str()), (images[0], "2"));
    }
    let later = read_all(Name::Vqa, &[("q", QUESTIONS), ("a", ANNOTATIONS)], &["000000000042.jpg"]).unwrap();
    assert_eq!(later.items()[0].image, "000000000042.jpg");
    let alone = format!("{:#}", read(Name::Vqa, "q", QUESTIONS).err().unwrap());
    assert!(alone.contains("give both"), "{alone}");
}

#[test]
fn coco_and_lines_say_the_same() {
    let file = Path::new("x");
    let coco = captioned::parse(CAPTIONS.as_bytes(), file).unwrap();
    let line = r#"{"image": "a.jpg", "captions": ["a dog", "the dog"]}"#;
    assert_eq!(coco[0], captioned::parse(line.as_bytes(), file).unwrap()[0]);
    let nothing = Captioned { image: "b.jpg".into(), ..Captioned::default() };
    assert_eq!(coco[1], nothing);
    let faults: Vec<_> = coco.iter().map(|image| captioned::no_caption(image).is_some()).collect();
    assert_eq!(faults, [false, true]);
}

#[test]
fn what_is_wrong_is_named_by_file_line_and_field() {
    for (name, text, naming) in [
        (Name::Pope, "", "x.json: not one record"),
        (Name::Pope, "{\"image\": \"a.jpg\"}", "x.json:1: missing field `text`"),
        (
            Name::Pope,
            &POPE.replace("No", "maybe"),
            "x.json:2: label: expected true or false, yes or no, or 1 or 0, found \"maybe\"",
        ),
        (
            Name::Vsr,
            &VSR.replace(": 1", ": 2"),
            "x.json:1: label: expected true or false, yes or no, or 1 or 0, found 2",
        ),
        (Name::Vsr, &VSR.replace("\"under\"", "[3]"), "x.json:1: relation: invalid type: sequence"),
        (Name::Vsr, &VSR.replace(": 1", ": NaN"), "or 1 or 0, found {} (NaN at column 71: not JSON"),
        (
            Name::Pope,
            &POPE.replace("\"a.jpg\"", "NaN"),
            "x.json:1: image: invalid type: map, expected a string (NaN at column 29: not JSON",
        ),
        (Name::Vqa, &VQA.replace("\"2\", ", "[2], "), "x.json:1: answers: expected text, a number, true or false"),
        (
            Name::Vqa,
            "{\"image\": \"a.jpg\", \"question\": 5, \"answer\": \"x\"}",
            "x.json:1: question: invalid type: integer `5`",
        ),
        (
            Name::Vqa,
            "{\"image\": \"a.jpg\", \"conversations\": [{\"from\": \"gpt\", \"value\": \"x\"}]}",
            "x.json:1: conversations[0].from: turns do not alternate",
        ),
        (
            Name::Nlvr,
            &NLVR.replace("true", "perhaps"),
            "x.json:1: label: expected true or false, yes or no, or 1 or 0, found \"perhaps\"",
        ),
        (
            Name::Vqa,
            "\n\n{\"image\": \"a.jpg\", \"question\": \"?\"}",
            "x.json:3: expected `question` with `answer` or `answers`",
        ),
        (Name::Vqa, "[1, 2", "x.json:1: EOF"),
        (
            Name::Vqa,
            "[\n{\"image\":\"a.jpg\",\"question\":\"?\",\"answer\":\"x\"},\n{\"question\":\"?\",\"answer\":\"x\"}]",
            "x.json:3: missing field `image`",
        ),
        (
            Name::Vqa,
            "[\n{\"image\":\"a.jpg\",\"question\":\"?\",\"answer\":\"x\"},\n{}]",
            "x.json:3: expected `question` with `answer` or `answers`, or a conversation",
        ),
        (Name::Caption, "{\"image\": \"a.jpg\"}", "x.json:1: no caption"),
        (Name::Caption, &CAPTIONS.replace("image_id\": 1", "image_id\": 9"), "an annotation of image 9"),
        (
            Name::Caption,
            &CAPTIONS.replace("\"a dog\"", "NaN"),
            "x.json:2: annotations: invalid type: map, expected a string (NaN at column 45: not JSON",
        ),
        (Name::Chair, &INSTANCES.replace("category_id\": 18", "category_id\": 3"), "category 3 is not in"),
        (
            Name::Matching,
            "{\"image\": \"a.jpg\", \"caption\": \"x\", \"label\": 7}",
            "x.json:1: label: expected true or false, yes or no, or 1 or 0, found 7",
        ),
        (Name::Matching, "{\"image\": \"a.jpg\", \"caption\": \"x\"}", "two images or more"),
        (Name::Zeroshot, "x", "not a folder with a folder for each class"),
    ] {
        let message = refused(name, "x.json", text);
        assert!(message.contains(naming), "{name:?}: `{naming}` is not in {message}");
    }
}

#[test]
fn a_prompt_has_a_place_for_the_question() {
    let source =
        |prompts: &[&str]| Source { prompts: prompts.iter().map(|p| p.to_string()).collect(), ..Source::default() };
    assert_eq!(source(&["{} Yes or no?"]).prompt("{}").unwrap(), "{} Yes or no?");
    assert_eq!(source(&["Tell me."]).prompt("Describe it.").unwrap(), "Tell me.");
    assert!(source(&["Yes or no?"]).prompt("{}").unwrap_err().to_string().contains("the place of the question"));
    assert!(source(&["{}", "{}"]).prompt("{}").is_err());
}

#[test]
fn splits_come_from_the_names_of_files() {
    let files = [
        ("coco_pope_popular.json", POPE),
        ("coco_pope_random.json", POPE),
        ("notes.json", POPE),
        ("._coco_pope_random.json", "no JSON"),
    ];
    let folder = tempfile::tempdir().unwrap();
    files.iter().for_each(|(name, text)| std::fs::write(folder.path().join(name), text).unwrap());
    let source = Source { data: vec![folder.path().to_owned()], limit: Some(1), ..Source::default() };
    let pope = pope::Pope::open(&source).unwrap();
    assert_eq!(pope.items().len(), 2, "one of each split, and nothing of other files");
}

/// Has every reader look at a file.
fn read_by_all(bytes: &[u8]) {
    #[derive(Deserialize)]
    struct Anything(#[allow(dead_code)] serde_json::Value);
    let file = Path::new("x.json");
    let _ = records::parse::<Anything>(bytes, file, None);
    let _ = captioned::parse(bytes, file);
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("dev.json");
    std::fs::write(&path, bytes).expect("written");
    let pictures = Pictures::open(folder.path()).expect("a folder");
    for name in Name::value_variants() {
        for data in [vec![path.clone()], vec![path.clone(), path.clone()]] {
            let source = Source { data, ..Source::default() };
            let _ = open(*name, &source, &pictures);
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(96))]

    #[test]
    fn arbitrary_bytes_are_read_or_refused(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
        read_by_all(&bytes);
    }

    /// A valid file with a stretch of it replaced by a piece of JSON, of text, or by nothing.
    #[test]
    fn changed_files_are_read_or_refused(
        which in 0usize..9,
        at in any::<proptest::sample::Index>(),
        length in 0usize..24,
        piece in prop_oneof![
            Just("null"), Just("-1"), Just("1e999"), Just("18446744073709551616"), Just("\""), Just("{"), Just("[["),
            Just("\"\\ud800\""), Just("{\"image\": {}}"), Just(""), Just("\n"), Just("\"label\": 1,"), Just("../../x"), Just("\0"),
        ],
    ) {
        let text = [POPE, VSR, VQA, QUESTIONS, ANNOTATIONS, NLVR, LINES, CAPTIONS, INSTANCES][which];
        let at = at.index(text.len());
        let end = (at + length).min(text.len());
        let bytes = [&text.as_bytes()[..at], piece.as_bytes(), &text.as_bytes()[end..]].concat();
        read_by_all(&bytes);
    }
}

#[test]
fn deep_nesting_is_refused() {
    let deep = "[".repeat(100_000);
    read_by_all(deep.as_bytes());
    read_by_all(format!("{{\"annotations\": {deep}").as_bytes());
}
