use super::super::json::MAX_RECORD;
use super::super::{Ask, Format};
use crate::data::record::{Content, Found, Record, Select, Turn};
use anyhow::Result;
use proptest::prelude::*;
use std::path::Path;

const TALK: &str = r#"[{"from":"human","value":"<image>\nwhat is it ?"},{"from":"gpt","value":"a cat"}]"#;

fn good(id: &str) -> String {
    format!(r#"{{"id":"{id}","image":"{id}.png","split":"train","conversations":{TALK}}}"#)
}

fn parse(bytes: &[u8], file: &Path, select: &Select) -> Result<Found> {
    Format::Llava.parse(bytes, file, select, &Ask::default())
}

fn load(text: &str) -> Result<Found> {
    parse(text.as_bytes(), Path::new("d.jsonl"), &Select::default())
}

#[test]
fn an_array_and_lines_read_alike() {
    let lines = load(&format!("{}\n\n{}\n", good("a"), good("b"))).unwrap();
    let array = load(&format!("[{},\n\n{}]", good("a"), good("b"))).unwrap();
    let without_bytes = |found: Found| -> Vec<Record> {
        let plain = |record| Record { bytes: None, ..record };
        found.records.into_iter().map(plain).collect()
    };
    let (lines, array) = (without_bytes(lines), without_bytes(array));
    assert_eq!(lines, array);
    let expected = Record {
        line: 3,
        id: "b".into(),
        bytes: None,
        content: Content {
            images: vec!["b.png".into()],
            turns: vec![Turn { question: "what is it ?".into(), answer: "a cat".into() }],
            ..Content::default()
        },
    };
    assert_eq!(lines[1], expected);
    assert_eq!(lines.len(), 2);
}

#[test]
fn a_record_is_known_by_its_bytes() {
    let array = format!("[\n {} ,\n{}]", good("a"), good("b"));
    let lines = format!("\u{feff}{}\n\n  {}  \r\n", good("a"), good("b"));
    for text in [array, lines] {
        let found = load(&text).unwrap();
        let of = |i: usize| text.as_bytes()[found.records[i].bytes.clone().unwrap()].to_vec();
        assert_eq!((of(0), of(1)), (good("a").into_bytes(), good("b").into_bytes()), "{text}");
    }
}

#[test]
fn several_images_have_a_mark_each_wherever_it_stands() {
    let two = r#"{"image":["a.png","b.png"],"conversations":[{"from":"human","value":"Q"},{"from":"gpt","value":"x"},
        {"from":"human","value":"and R"},{"from":"gpt","value":"y"}]}"#
        .replace('\n', " ");
    let questions = |text: &str| -> Vec<String> {
        let found = load(text).unwrap();
        let turns = &found.records[0].content.turns;
        turns.iter().map(|turn| turn.question.clone()).collect()
    };
    let marked = two.replace("\"Q", "\"<image> or <image> ?");
    assert_eq!(questions(&marked), ["<image> or <image> ?", "and R"]);
    assert_eq!(questions(&two), ["<image><image>Q", "and R"]);
    let later = two.replace("\"Q", "\"<image>Q").replace("and R", "<image>\\nand R");
    assert_eq!(questions(&later), ["<image>Q", "<image>\nand R"]);
    let one = two.replace(r#"["a.png","b.png"]"#, r#""a.png""#).replace("and R", "<image> R");
    assert_eq!(questions(&one), ["Q", "<image> R"]);
    let bad = load(&marked.replace(" or <image>", "")).unwrap().bad.list();
    assert!(bad.contains("conversations: 1 marks `<image>` for 2 images"), "{bad}");
}

#[test]
fn a_mark_may_be_missing_or_anywhere_in_a_question_and_ids_may_be_numbers() {
    for question in ["what is it ?", "what is it ?\\n<image>", "<image>what is it ?"] {
        let text = good("a").replace("<image>\\nwhat is it ?", question).replace("\"a\"", "7");
        let read = load(&text).unwrap();
        assert_eq!(
            (read.records[0].id.as_str(), read.records[0].content.turns[0].question.as_str()),
            ("7", "what is it ?")
        );
    }
    let nameless = load(&good("a").replace("\"id\":\"a\",", "")).unwrap();
    assert_eq!(nameless.records[0].id, "line 1");
}

#[test]
fn records_without_image_and_mark_are_left_out_and_counted() {
    let text_only = good("a").replace("\"image\":\"a.png\",", "").replace("<image>\\n", "");
    let read = load(&format!("{}\n{text_only}", good("b"))).unwrap();
    assert_eq!((read.records.len(), read.text_only, read.bad.count), (1, 1, 0));
}

#[test]
fn every_bad_record_is_named_by_file_line_id_and_field() {
    let talk = |entries: &str| good("a").replace(TALK, entries);
    let table = [
        (good("a").replace("\"image\":\"a.png\",", ""), "record `a`: image: missing, but"),
        (good("a").replace("\"a.png\"", "[5]"), "record `a`: image[0]: expected a file name, found a number"),
        (
            good("a").replace("\"a.png\"", "\"\""),
            "record `a`: image: expected a file name or a list of them, found empty text",
        ),
        (
            good("a").replace("human", "system"),
            "record `a`: conversations[1].from: turns do not alternate: `gpt` speaks where `human` should",
        ),
        (good("a").replace("human", "tool"), "record `a`: conversations[0].from: unknown speaker `tool`"),
        (
            good("a").replace("gpt", "system"),
            "record `a`: conversations[1].from: only the first turn may be the system's",
        ),
        (good("a").replace("human", "gpt"), "record `a`: conversations[0].from: turns do not alternate"),
        (good("a").replace("\"gpt\"", "5"), "record `a`: conversations[1].from: expected `gpt`, found a number"),
        (good("a").replace("a cat", " "), "record `a`: conversations[1].value: says nothing"),
        (good("a").replace("a cat", "<image>"), "record `a`: conversations[1].value: an answer with the mark"),
        (good("a").replace("\\nwhat is it ?", ""), "record `a`: conversations[0].value: says nothing"),
        (good("a").replace("\\nwhat", "<image>"), "record `a`: conversations: 2 marks"),
        (talk("[]"), "record `a`: conversations: empty"),
        (talk("\"hello\""), "record `a`: conversations: expected a list of turns, found text"),
        (talk("[1, 2]"), "record `a`: conversations[0].from: expected `human`, found nothing"),
        (
            talk(&TALK.replace("}]", r#"},{"from":"human","value":"and?"}]"#)),
            "record `a`: conversations: 3 entries: the last question has no answer",
        ),
        (good("a").replace("\"a\"", "true"), "id: expected text or a number"),
        ("17".into(), "expected an object, found a number"),
        (good("a").replace("\"image\"", "\"image\":\"b.png\",\"image\""), "the field `image` twice"),
        (
            good("a").replace("\"image\"", "\"images\":[\"b.png\"],\"image\""),
            "record `a`: image: other than `images` says",
        ),
        (good("a")[..40].into(), "not JSON: EOF"),
        (good("a").replace("cat", &"x".repeat(MAX_RECORD)), "1048713 bytes long, longer than 1048576"),
        ("[".repeat(1000) + "1" + &"]".repeat(1000), "not JSON"),
    ];
    for (bad, expected) in table {
        let list = load(&format!("{}\n{bad}\n", good("ok"))).unwrap().bad.list();
        let start = format!("  d.jsonl:2: {expected}");
        assert!(list.starts_with(&start), "found {list}\nexpected {start}");
    }
}

#[test]
fn a_system_turn_in_front_is_the_system_text_and_a_greeting_is_passed_over() {
    let turn = |from: &str, says: &str| format!(r#"{{"from":"{from}","value":"{says}"}}"#);
    let (system, greeting) = (turn("system", "Be brief."), turn("gpt", "Hello."));
    let talk = TALK.trim_matches(['[', ']']);
    for (front, field, expected, passed) in [
        (vec![], "", None, 0),
        (vec![&system], "", Some("Be brief."), 0),
        (vec![&greeting], "", None, 1),
        (vec![&system, &greeting], "", Some("Be brief."), 1),
        (vec![&greeting], r#""system":"Be kind.","#, Some("Be kind."), 1),
        (vec![&system], r#""system":"Be brief.","#, Some("Be brief."), 0),
    ] {
        let turns: Vec<&str> = front.iter().map(|turn| turn.as_str()).chain([talk]).collect();
        let line = format!(r#"{{"id":"g","image":"a.png",{field}"conversations":[{}]}}"#, turns.join(","));
        let found = load(&line).unwrap();
        assert_eq!(found.bad.count, 0, "{line}: {}", found.bad.list());
        let content = &found.records[0].content;
        assert_eq!((content.turns.len(), content.turns[0].answer.as_str()), (1, "a cat"), "{line}");
        assert_eq!(content.system.as_deref(), expected, "{line}");
        let lines: Vec<String> = found.passed_over.lines().collect();
        assert_eq!(lines.len(), passed, "{line}");
        assert!(passed == 0 || lines[0].contains("1 first turns that are not the human's: g"), "{lines:?}");
    }
    let other = format!(r#"{{"image":"a.png","system":"Be kind.","conversations":[{system},{talk}]}}"#);
    assert!(load(&other).unwrap().bad.list().contains("system: other than `conversations[0]`"));
}

/// What Python's json.dump writes.
#[test]
fn nan_is_read_where_nobody_reads_it_and_named_where_somebody_does() {
    let with = |field: &str| good("a").replacen('{', &format!("{{{field},"), 1);
    let unread = ["\"score\": NaN", "\"score\": [1, -Infinity, Infinity]", "\"say\": \"NaN \\\" Infinity\""];
    let lines: Vec<String> = unread.iter().map(|field| with(field)).collect();
    for text in [lines.join("\n"), format!("[{}]", lines.join(",\n "))] {
        let found = load(&text).unwrap();
        assert_eq!((found.records.len(), found.bad.count), (3, 0), "{text}: {}", found.bad.list());
        // Records stay where they are in the file, and as they are.
        let second = found.records[1].bytes.clone().unwrap();
        assert_eq!(&text[second], lines[1]);
    }
    let read = good("a").replace("\"a.png\"", "NaN");
    let column = read.find("NaN").unwrap() + 1;
    for (text, line, column) in [(read.clone(), 1, column), (format!("[{},\n  {read}]", good("b")), 2, column + 2)] {
        let list = load(&text).unwrap().bad.list();
        let start =
            format!("  d.jsonl:{line}: record `a`: image: expected a file name or a list of them, found an object");
        assert!(list.starts_with(&start), "{list}");
        assert!(list.contains(&format!("(NaN at column {column}: not JSON")), "{list}");
    }
    // A text that does not end hides nothing of the next line.
    let cut = format!("{{\"id\": \"x\n{}", with("\"score\": NaN"));
    assert_eq!(load(&cut).unwrap().records.len(), 1);
}

#[test]
fn files_that_are_no_utf8_are_said_to_be_so() {
    let latin = [
        good("b").as_bytes(),
        b"\n",
        &good("a").into_bytes().iter().map(|b| if *b == b'h' { 0xe9 } else { *b }).collect::<Vec<_>>(),
    ]
    .concat();
    let bad = parse(&latin, Path::new("d.jsonl"), &Select::default()).unwrap().bad.list();
    assert!(bad.contains("d.jsonl:2: not UTF-8"), "{bad}");
    let folder = tempfile::tempdir().unwrap();
    for (bytes, expected) in [
        (&b"\xff\xfe[\0"[..], "UTF-16 text, no records"),
        (b"version https://git-lfs.github.com/spec/v1\n", "a Git LFS pointer"),
        (b"<!DOCTYPE html>", "an HTML page, no records"),
    ] {
        let path = folder.path().join("d.json");
        std::fs::write(&path, bytes).unwrap();
        let opened = Format::Llava.open(&path, Some(folder.path()), &Select::default(), &Ask::default());
        let message = opened.map(|_| ()).unwrap_err().to_string();
        assert!(message.contains("d.json: ") && message.contains(expected), "{message}");
    }
}

#[test]
fn empty_and_broken_files_are_errors_that_name_file_and_line() {
    for (text, expected) in [
        ("", "d.jsonl: empty"),
        (" \n", "d.jsonl: empty"),
        ("[]", "d.jsonl: empty"),
        ("[", "d.jsonl:1: the file ends within its list"),
        ("[1\n", "d.jsonl:2: the file ends within its list"),
        ("[\n{},\n{]", "d.jsonl:3: not JSON"),
        ("[1\n2]", "d.jsonl:2: expected `,` or `]`"),
        ("[1,]", "d.jsonl:1: not JSON"),
    ] {
        let message = load(text).expect_err(text).to_string();
        assert!(message.starts_with(expected), "{text}: {message}");
    }
    let open = |path: &str| {
        let images = Some(Path::new("/"));
        let opened = Format::Llava.open(Path::new(path), images, &Select::default(), &Ask::default());
        format!("{:#}", opened.map(|_| ()).unwrap_err())
    };
    assert!(open("no/such.jsonl").contains("no/such.jsonl"));
    assert!(open("/dev/zero").contains("not a regular file"));
}

#[test]
fn splits_and_limits_select_and_an_absent_split_lists_those_there_are() {
    let text = format!("{}\n{}\n{}", good("a"), good("b").replace("train", "test"), good("c"));
    let select = |split: &str, limit| Select { split: Some(split.into()), limit, ..Select::default() };
    let read = |select| parse(text.as_bytes(), Path::new("d"), &select);
    let train = read(select("train", None)).unwrap();
    assert_eq!((train.records.len(), train.other_splits), (2, 1));
    assert_eq!(read(select("train", Some(1))).unwrap().records.len(), 1);
    let message = read(select("val", None)).unwrap_err().to_string();
    assert!(message.contains("no record has split = \"val\"; there are test (1), train (2)"), "{message}");
    let other = Select { field: "part".into(), ..select("x", None) };
    let bad = read(other).unwrap().bad;
    assert!(bad.count == 3 && bad.list().contains("record `a`: part: expected the name of a split"), "{}", bad.list());
}

#[test]
fn bad_records_are_capped_by_share_and_named_by_the_first_few() {
    let text = format!("{}\n{}", good("a"), "x\n".repeat(8));
    let bad = load(&text).unwrap().bad;
    assert_eq!((bad.count, bad.first.len()), (8, 5));
    assert!(bad.check(800, 0.01).is_ok());
    let message = bad.check(799, 0.01).unwrap_err().to_string();
    assert!(
        message.starts_with("8 of 799 records are bad, more than 1 %") && message.ends_with("and 3 more"),
        "{message}"
    );
}

proptest! {
    #[test]
    fn any_bytes_are_read_or_refused(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
        let _ = parse(&bytes, Path::new("d"), &Select::default());
    }

    #[test]
    fn a_damaged_file_never_panics(at in 0usize..400, with in "\\PC{0,2}", array in any::<bool>()) {
        let records = format!("{},\n{}", good("a"), good("b"));
        let text = if array { format!("[{records}]") } else { records.replace("},\n", "}\n") };
        let chars: Vec<char> = text.chars().collect();
        let at = at % chars.len();
        let damaged: String = chars[..at].iter().copied().chain(with.chars()).chain(chars[at + 1..].iter().copied()).collect();
        if let Ok(read) = load(&damaged) {
            prop_assert!(read.records.len() + read.bad.count + read.text_only <= 4);
        }
    }

    #[test]
    fn every_generated_record_is_accounted_for(
        speakers in proptest::collection::vec(0usize..4, 0..6), image in any::<bool>(), said in "[a-z<>]{0,9}",
    ) {
        let names = ["human", "gpt", "robot", ""];
        let entries: Vec<_> = speakers.iter().map(|s| serde_json::json!({"from": names[*s], "value": said})).collect();
        let mut record = serde_json::json!({"id": 1, "conversations": entries});
        if image {
            record["image"] = "a.png".into();
        }
        if let Ok(read) = load(&record.to_string()) {
            prop_assert_eq!(read.records.len() + read.bad.count + read.text_only, 1);
            let speakers = speakers.strip_prefix(&[1]).filter(|rest| rest.first() == Some(&0)).unwrap_or(&speakers);
            let alternating = speakers.iter().enumerate().all(|(i, s)| i % 2 == *s);
            prop_assert!(read.records.is_empty() || (image && alternating && speakers.len().is_multiple_of(2)));
        } else {
            prop_assert!(!image, "only records without an image leave a set empty");
        }
    }
}
