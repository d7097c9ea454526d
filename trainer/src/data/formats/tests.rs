use super::*;
use crate::data::record::{Content, Turn};
use proptest::prelude::*;
use serde_json::{Value, json};
use std::fs;
use tempfile::TempDir;

fn parse(format: Format, text: &str) -> Result<Found> {
    format.parse(
        text.as_bytes(),
        Path::new("d.jsonl"),
        &Select::default(),
        &Ask::default(),
    )
}

/// The only record of a text.
fn one(format: Format, value: Value) -> Content {
    let found = parse(format, &value.to_string()).unwrap();
    assert_eq!(found.bad.count, 0, "{}", found.bad.list());
    found.records.into_iter().next().unwrap().content
}

/// What is wrong with the only record of a text.
fn fault(format: Format, value: Value) -> String {
    let found = parse(format, &value.to_string()).unwrap();
    assert_eq!((found.bad.count, found.records.len()), (1, 0), "{value}");
    found.bad.first[0].to_string()
}

fn turns(pairs: &[(&str, &str)]) -> Vec<Turn> {
    let turn = |(question, answer): &(&str, &str)| Turn {
        question: question.to_string(),
        answer: answer.to_string(),
    };
    pairs.iter().map(turn).collect()
}

#[test]
fn messages_are_read_as_text_or_parts_with_a_system_first() {
    let text = json!({"image": "a.png", "messages": [
        {"role": "system", "content": "Be brief."},
        {"role": "user", "content": "<image>\nwhat?"}, {"role": "assistant", "content": "a cat"},
        {"role": "user", "content": "sure?"}, {"role": "assistant", "content": [{"type": "text", "text": "yes"}]}]});
    let expected = Content {
        images: vec!["a.png".into()],
        system: Some("Be brief.".into()),
        turns: turns(&[("what?", "a cat"), ("sure?", "yes")]),
        ..Content::default()
    };
    assert_eq!(one(Format::Messages, text), expected);
    let parts = |images: Value, first: Value| {
        json!({"images": images, "messages": [
        {"role": "user", "content": [first, {"type": "text", "text": "which is "}, {"type": "image", "image": "c.png"},
            {"type": "text", "text": "?"}]},
        {"role": "assistant", "content": "x"}]})
    };
    let image = json!({"type": "image", "path": "b.png"});
    for images in [
        json!(["b.png", "c.png"]),
        json!([{"path": "b.png", "bytes": null}, {"path": "c.png"}]),
        json!([]),
    ] {
        let content = one(Format::Messages, parts(images, image.clone()));
        assert_eq!(content.images, ["b.png", "c.png"]);
        assert_eq!(content.turns, turns(&[("<image>which is <image>?", "x")]));
    }
}

/// Where an image stands is each format's own: LLaVA's goes in front, those of all others where they say.
#[test]
fn an_image_goes_where_its_format_says() {
    let parts = |before: &str, after: &str| {
        let text = |text: &str| json!({"type": "text", "text": text});
        json!([text(before), {"type": "image"}, text(after)])
    };
    let messages =
        |content: Value| json!([{"role": "user", "content": content}, {"role": "assistant", "content": "a"}]);
    let later = json!([{"role": "user", "content": "hi"}, {"role": "assistant", "content": "yes?"},
        {"role": "user", "content": parts("and ", " ?")}, {"role": "assistant", "content": "a"}]);
    let llava = json!([{"from": "human", "value": "look at <image> ?"}, {"from": "gpt", "value": "a"}]);
    for (format, record, expected) in [
        (
            Format::Messages,
            json!({"messages": messages(parts("what is this ? ", ""))}),
            "what is this ? <image>",
        ),
        (
            Format::Messages,
            json!({"messages": messages(parts("look at ", " ?"))}),
            "look at <image> ?",
        ),
        (
            Format::Messages,
            json!({"messages": messages(parts("", "what ?"))}),
            "what ?",
        ),
        (
            Format::Messages,
            json!({"messages": messages(json!("what ?\n<image>"))}),
            "what ?\n<image>",
        ),
        (Format::Messages, json!({"messages": later}), "and <image> ?"),
        (
            Format::Completion,
            json!({"prompt": "look at <image> ?", "completion": "a"}),
            "look at <image> ?",
        ),
        (
            Format::Completion,
            json!({"prompt": "<image>\nwhat ?", "completion": "a"}),
            "what ?",
        ),
        (
            Format::Completion,
            json!({"prompt": [{"role": "user", "content": parts("see ", "")}], "completion": [{"role": "assistant", "content": "a"}]}),
            "see <image>",
        ),
        (Format::Llava, json!({"conversations": llava}), "look at  ?"),
    ] {
        let mut record = record;
        record["images"] = json!(["a.png"]);
        let content = one(format, record.clone());
        assert_eq!(content.turns.last().unwrap().question, expected, "{record}");
    }
    let two = json!({"images": ["a.png", "b.png"], "prompt": "compare <image> with <image>", "completion": "c"});
    assert_eq!(
        one(Format::Completion, two).turns[0].question,
        "compare <image> with <image>"
    );
    let named = json!([{"type": "image", "image": "b.png"}, {"type": "text", "text": "q"}]);
    let message = fault(Format::Messages, json!({"image": "a.png", "messages": messages(named)}));
    assert!(message.contains("messages: its parts name other images"), "{message}");
    let system = json!([{"role": "system", "content": [{"type": "image"}, {"type": "text", "text": "s"}]},
        {"role": "user", "content": "q"}, {"role": "assistant", "content": "a"}]);
    let message = fault(Format::Messages, json!({"image": "a.png", "messages": system}));
    assert!(message.contains("system: a system text with the mark"), "{message}");
}

#[test]
fn what_is_wrong_with_messages_is_said_with_its_place() {
    let with = |messages: Value| json!({"id": 1, "image": "a.png", "messages": messages});
    let user = json!({"role": "user", "content": "q"});
    let assistant = json!({"role": "assistant", "content": "a"});
    for (messages, expected) in [
        (json!("q"), "messages: expected a list of messages, found text"),
        (json!([]), "messages: empty"),
        (json!([user]), "messages: 1 entries: the last question has no answer"),
        (
            json!([assistant, user]),
            "messages[0].role: turns do not alternate: `assistant` speaks where `user` should",
        ),
        (
            json!([user, assistant, {"role": "system", "content": "s"}]),
            "messages[2].role: only the first",
        ),
        (
            json!([{"role": "tool", "content": "s"}]),
            "messages[0].role: unknown role `tool`",
        ),
        (
            json!([{"content": "s"}]),
            "messages[0].role: expected `user` or `assistant`, found nothing",
        ),
        (
            json!([user, {"role": "assistant", "content": 5}]),
            "messages[1].content: expected text or a list of parts",
        ),
        (
            json!([user, {"role": "assistant", "content": " "}]),
            "messages[1].content: says nothing",
        ),
        (
            json!([user, {"role": "assistant", "content": "<image>"}]),
            "messages[1].content: an answer with the mark",
        ),
        (
            json!([{"role": "user", "content": [{"type": "audio"}]}]),
            "messages[0].content[0].type: `audio`: expected",
        ),
        (
            json!([{"role": "user", "content": [{"type": "text"}]}]),
            "messages[0].content[0].text: expected text, found nothing",
        ),
        (
            json!([{"role": "user", "content": [4]}]),
            "messages[0].content[0].type: expected `text` or `image`, found nothing",
        ),
    ] {
        let found = fault(Format::Messages, with(messages));
        assert!(
            found.starts_with(&format!("d.jsonl:1: record `1`: {expected}")),
            "{found}\n{expected}"
        );
    }
}

#[test]
fn prompts_and_completions_are_texts_or_messages() {
    let text = json!({"prompt": "<image> what?", "completion": " a cat", "images": ["a.png"]});
    let talk = json!({"prompt": [{"role": "user", "content": "what?"}], "image": "a.png",
        "completion": [{"role": "assistant", "content": "a cat"}]});
    for record in [text, talk] {
        let content = one(Format::Completion, record);
        // A completion starts as it is written.
        let answer = content.turns[0].answer.clone();
        assert_eq!((content.images.len(), answer.trim_start()), (1, "a cat"));
        assert_eq!(content.turns, turns(&[("what?", &answer)]));
    }
    let content = one(
        Format::Completion,
        json!({"prompt": "so: ", "completion": " a cat\n", "image": "a.png"}),
    );
    assert_eq!(content.turns, turns(&[("so: ", " a cat\n")]));
    let content = one(
        Format::Messages,
        json!({"image": "a.png", "messages": [{"role": "user", "content": "q"}, {"role": "assistant", "content": "  a"}]}),
    );
    assert_eq!(content.turns, turns(&[("q", "  a")]));
    for (record, expected) in [
        (
            json!({"image": "a", "completion": "x"}),
            "prompt: expected text or messages, found nothing",
        ),
        (
            json!({"image": "a", "prompt": "x"}),
            "completion: expected text, found nothing",
        ),
        (
            json!({"image": "a", "prompt": "x", "completion": ""}),
            "completion: says nothing",
        ),
        (
            json!({"image": "a", "prompt": [], "completion": "x"}),
            "completion: expected messages, found text",
        ),
        (
            json!({"prompt": "<image>x", "completion": "y"}),
            "image: missing, but the conversation has the mark",
        ),
    ] {
        let found = fault(Format::Completion, record);
        assert!(found.starts_with(&format!("d.jsonl:1: {expected}")), "{found}");
    }
}

#[test]
fn coco_is_read_as_published_and_by_lines() {
    let published = json!({"info": {}, "images": [{"id": 9, "file_name": "9.jpg"}, {"id": 4, "file_name": "4.jpg"}],
        "annotations": [{"id": 1, "image_id": 4, "caption": "four"}, {"image_id": 9, "caption": " nine "},
            {"image_id": 4, "caption": "vier"}]});
    let lines = "{\"id\":9,\"file\":\"9.jpg\",\"captions\":[\"nine\"]}\n{\"id\":4,\"file\":\"4.jpg\",\"captions\":[\"four\",\"vier\"]}";
    for text in [
        published.to_string(),
        serde_json::to_string_pretty(&published).unwrap(),
        lines.into(),
    ] {
        let found = parse(Format::Coco, &text).unwrap();
        let [nine, four] = &found.records[..] else {
            panic!("{found:?}")
        };
        assert_eq!((nine.id.as_str(), four.id.as_str()), ("9", "4"));
        assert_eq!(nine.content.images, ["9.jpg"]);
        assert_eq!(
            (nine.content.captions.len(), &nine.content.turns[0].answer[..]),
            (0, "nine")
        );
        assert_eq!(four.content.captions, ["four", "vier"]);
        assert_eq!(four.content.turns, turns(&[("Describe the image.", "four")]));
    }
    let broken = json!({"images": [{"id": 1, "file_name": "1.jpg"}, {"id": 2}, {"id": 3, "file_name": "3.jpg"}],
        "annotations": [{"image_id": 1, "caption": "a"}, {"image_id": 2, "caption": "b"}, {"caption": "c"}, {"image_id": 3, "caption": 4}]});
    let bad = parse(Format::Coco, &broken.to_string()).unwrap().bad;
    let list = bad.list();
    assert_eq!(bad.count, 4, "{list}");
    for expected in [
        "d.jsonl: annotations[2].image_id: expected an image's number, found nothing",
        "d.jsonl: annotations[3].caption: expected text, found a number",
        "d.jsonl: record `2`: images[1].file_name: expected a file name, found nothing",
        "d.jsonl: record `3`: images[2].captions: none",
    ] {
        assert!(list.contains(expected), "{list}");
    }
    let doubtful = r#"{"images": [{"id": 1, "file_name": "1.jpg", "score": NaN}, {"id": 1, "file_name": "2.jpg"},
        {"id": 4, "file_name": NaN}], "annotations": [{"image_id": 1.0, "caption": "a"}, {"image_id": 4, "caption": "b"},
        {"image_id": 9, "caption": "c"}, {"image_id": 4, "caption": -Infinity}]}"#;
    let found = parse(Format::Coco, doubtful).unwrap();
    assert_eq!(
        (found.records.len(), found.records[0].content.turns[0].answer.as_str()),
        (1, "a")
    );
    let list = found.bad.list();
    for expected in [
        "record `1`: images[1].id: an image before has it, too",
        "record `4`: images[2].file_name: expected a file name, found an object (NaN at column 32: not JSON",
        "annotations[3].caption: expected text, found an object (-Infinity at column",
    ] {
        assert!(list.contains(expected), "{list}");
    }
    let passed: Vec<String> = found.passed_over.lines().collect();
    assert_eq!(passed, ["passed over: 1 captions of no image in `images`: image 9: c"]);
    let nulls = json!({"file": null, "file_name": "a.jpg", "captions": null, "caption": "one"});
    assert_eq!(one(Format::Coco, nulls).turns, turns(&[("Describe the image.", "one")]));
    let neither = parse(Format::Coco, "{\"annotations\": 5}").unwrap_err().to_string();
    assert!(neither.starts_with("d.jsonl: neither COCO's"), "{neither}");
}

#[test]
fn a_folder_of_classes_says_each_class_in_all_templates() {
    let root = TempDir::new().unwrap();
    for name in [
        "tabby_cat/2.png",
        "tabby_cat/deep/1.JPG",
        "dog/a.webp",
        "dog/note.txt",
        ".hidden/x.png",
    ] {
        let path = root.path().join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, "").unwrap();
    }
    fs::write(root.path().join("stray.png"), "").unwrap();
    let ask = Ask {
        templates: vec!["a {}.".into(), "the {} here".into()],
        ..Ask::default()
    };
    let read = |select: &Select| Format::Folder.open(root.path(), None, select, &ask);
    let (found, _) = read(&Select::default()).unwrap();
    let names: Vec<&str> = found
        .records
        .iter()
        .map(|record| record.content.images[0].as_str())
        .collect();
    assert_eq!(names, ["dog/a.webp", "tabby_cat/2.png", "tabby_cat/deep/1.JPG"]);
    let cat = &found.records[1].content;
    assert_eq!(cat.class.as_deref(), Some("tabby_cat"));
    assert_eq!(cat.captions, ["a tabby cat.", "the tabby cat here"]);
    let first = Select {
        limit: Some(1),
        ..Select::default()
    };
    assert_eq!(read(&first).unwrap().0.records.len(), 1);
    // torchvision follows links, and refuses classes without an image; here they are named.
    for name in [
        "elsewhere/y.png",
        "classes/fox/1.bmp",
        "classes/Dog/b.png",
        "classes/dog/1.PNG",
        "classes/cow/._1.png",
    ] {
        let path = root.path().join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, "").unwrap();
    }
    let classes = root.path().join("classes");
    std::os::unix::fs::symlink("../elsewhere", classes.join("yak")).unwrap();
    std::os::unix::fs::symlink("..", classes.join("dog/back")).unwrap();
    std::os::unix::fs::symlink("nowhere", classes.join("gone")).unwrap();
    let (found, _) = Format::Folder.open(&classes, None, &Select::default(), &ask).unwrap();
    let names: Vec<&str> = found.records.iter().map(|record| record.id.as_str()).collect();
    assert_eq!(names, ["Dog/b.png", "dog/1.PNG", "yak/y.png"]);
    let passed = found.passed_over.lines().collect::<Vec<_>>().join("\n");
    for expected in [
        "2 classes without a png, jpg, jpeg or webp: cow, fox",
        "1 files in classes that are no png, jpg, jpeg or webp: fox/1.bmp",
        "case or `_` alone tells apart: Dog and dog",
        "1 links to a folder they are in: ",
        "1 links that lead nowhere: ",
        "1 files whose names begin with a dot: ",
    ] {
        assert!(passed.contains(expected), "`{expected}` is not in\n{passed}");
    }
    let empty = TempDir::new().unwrap();
    let none = Format::Folder
        .open(empty.path(), None, &Select::default(), &ask)
        .unwrap_err();
    assert!(none.to_string().contains("no png, jpg, jpeg or webp"), "{none}");
}

/// Opens a shard of these members.
fn shard(members: &[(&str, &[u8])]) -> Result<Found> {
    let folder = TempDir::new().unwrap();
    let path = folder.path().join("s.tar");
    let mut tar = tar::Builder::new(fs::File::create(&path).unwrap());
    for (name, bytes) in members {
        let mut header = tar::Header::new_gnu();
        header.set_size(bytes.len() as u64);
        tar.append_data(&mut header, name, *bytes).unwrap();
    }
    tar.finish().unwrap();
    Ok(Format::Webdataset
        .open(&path, None, &Select::default(), &Ask::default())?
        .0)
}

#[test]
fn samples_of_a_shard_are_the_files_of_one_name() {
    let talk = br#"{"image": "other.png", "conversations": [{"from": "human", "value": "<image>q"}, {"from": "gpt", "value": "a"}]}"#;
    let found = shard(&[
        ("d/1.jpg", b"j"),
        ("d/1.txt", b"a cat\n"),
        ("d/2.json", talk),
        ("d/2.seg.png", b"p"),
        ("d/2.PNG", b"p"),
        ("3.png", b"p"),
        ("3.json", br#"{"caption": "three"}"#),
        ("4.txt", b"alone"),
        ("5.png", b"p"),
        ("6.png", b"p"),
        ("6.txt", b" "),
        ("7.json", b"{"),
        ("7.png", b"p"),
        ("8.png", b"p"),
        ("8.webp", b"p"),
        (
            "8.json",
            br#"{"texts": [{"user": "<image> or <image>?", "assistant": "the first"}]}"#,
        ),
    ])
    .unwrap();
    let said: Vec<(&str, &str, &str)> = found
        .records
        .iter()
        .map(|r| {
            (
                r.id.as_str(),
                r.content.images[0].as_str(),
                r.content.turns[0].answer.as_str(),
            )
        })
        .collect();
    assert_eq!(
        said,
        [
            ("s.tar/d/1", "s.tar/d/1.jpg", "a cat"),
            ("s.tar/d/2", "s.tar/d/2.PNG", "a"),
            ("s.tar/3", "s.tar/3.png", "three"),
            ("s.tar/8", "s.tar/8.png", "the first")
        ]
    );
    assert_eq!((found.text_only, found.bad.count), (1, 3), "{}", found.bad.list());
    let list = found.bad.list();
    for expected in [
        "`s.tar/5`: no conversations, messages",
        "`s.tar/6`: caption: says nothing",
        "`s.tar/7`: not JSON",
    ] {
        assert!(list.contains(expected), "{list}");
    }
}

/// Members are fields by the whole of their suffix, in any case; what is passed over is named.
#[test]
fn members_of_a_shard_are_looked_up_by_their_whole_names() {
    let said = |members: &[(&str, &[u8])]| {
        let found = shard(members).unwrap();
        let said = found
            .records
            .iter()
            .map(|r| format!("{}={}", r.id, r.content.turns[0].answer));
        let passed: Vec<String> = found.passed_over.lines().collect();
        (said.collect::<Vec<_>>().join(";"), found.bad.list(), passed.join("\n"))
    };
    for (members, expected, bad, passed) in [
        (
            vec![
                ("1.png", &b"p"[..]),
                ("1.txt", b"red"),
                ("1.ocr.txt", b"STOP"),
                ("1.seg.png", b"s"),
            ],
            "s.tar/1=red",
            "",
            "1 members `.ocr.txt`, which are not read: s.tar/1.ocr.txt",
        ),
        (
            vec![
                ("1.png", b"p"),
                ("1.json", br#"{"caption": "red"}"#),
                ("1.ocr.json", br#"{"text": "STOP"}"#),
            ],
            "s.tar/1=red",
            "",
            "members `.ocr.json`",
        ),
        (vec![("1.PNG", b"p"), ("1.Txt", b"red")], "s.tar/1=red", "", ""),
        (
            vec![
                ("._1.png", b"m"),
                ("1.png", b"p"),
                ("._1.txt", b"m"),
                ("1.txt", b"red"),
                (".DS_Store", b""),
            ],
            "s.tar/1=red",
            "",
            "3 members whose names begin with a dot: s.tar/._1.png",
        ),
        (
            vec![
                ("1.png", b"p"),
                ("1.txt", b"red"),
                ("1.json", br#"{"caption": null, "key": "1"}"#),
            ],
            "s.tar/1=red",
            "",
            "",
        ),
        (
            vec![
                ("1.png", b"p"),
                ("1.txt", b"red\n"),
                ("1.json", br#"{"caption": "red"}"#),
            ],
            "s.tar/1=red",
            "",
            "",
        ),
        (
            vec![
                ("1.png", b"p"),
                ("1.txt", b"blue"),
                ("1.json", br#"{"caption": "red"}"#),
            ],
            "s.tar/1=red",
            "",
            "1 texts `.txt` that say otherwise than their `.json`: s.tar/1",
        ),
        (
            vec![
                ("1.png", b"p"),
                ("1.txt", b"caf\xe9"),
                ("2.png", b"p"),
                ("2.txt", b"\xef\xbb\xbfvert"),
            ],
            "s.tar/2=vert",
            "`s.tar/1`: txt: not UTF-8",
            "",
        ),
        (
            vec![
                ("1.png", b"p"),
                ("1.txt", b"\xff\xfea\0"),
                ("2.png", b"p"),
                ("2.txt", b"\0a\0b"),
            ],
            "",
            "`s.tar/2`: txt: not UTF-8 text: it has NUL characters",
            "",
        ),
        (
            vec![
                ("1.png", b"p"),
                ("1.json", b"\xef\xbb\xbf{\"caption\": \"red\", \"score\": NaN}"),
            ],
            "s.tar/1=red",
            "",
            "",
        ),
        (
            vec![("1.png", b"p"), ("1.json", b"{\"caption\": NaN}")],
            "",
            "caption: expected text, found an object (NaN at column 13",
            "",
        ),
        (
            vec![("1.png", b"p"), ("1.txt", b"red"), ("1.TXT", b"blue")],
            "",
            "`s.tar/1`: txt: two members of this name",
            "",
        ),
        (
            vec![
                ("1.png", b"p"),
                ("1.txt", b"old"),
                ("2.png", b"p"),
                ("2.txt", b"two"),
                ("1.png", b"n"),
                ("1.txt", b"new"),
            ],
            "s.tar/2=two",
            "`s.tar/1`: image: s.tar/1.png: 2 members of this name",
            "",
        ),
    ] {
        let (found, listed, named) = said(&members);
        assert_eq!(found, expected, "{listed}");
        assert!(
            listed.contains(bad) && (listed.is_empty() == bad.is_empty()),
            "{listed}"
        );
        assert!(
            named.contains(passed) && (named.is_empty() == passed.is_empty()),
            "{named}"
        );
    }
}

const FILES: [Format; 4] = [Format::Llava, Format::Messages, Format::Completion, Format::Coco];

/// A value as records have them, well-formed or not.
fn value() -> impl Strategy<Value = Value> {
    const WORDS: [&str; 12] = [
        "user",
        "assistant",
        "system",
        "human",
        "gpt",
        "text",
        "image",
        "a.png",
        "<image> what",
        "",
        "x",
        "<image>",
    ];
    const KEYS: [&str; 16] = [
        "role",
        "content",
        "from",
        "value",
        "type",
        "text",
        "image",
        "images",
        "messages",
        "conversations",
        "prompt",
        "completion",
        "captions",
        "annotations",
        "file_name",
        "id",
    ];
    let leaf = prop_oneof![
        4 => prop::sample::select(&WORDS[..]).prop_map(Value::from),
        1 => any::<i64>().prop_map(Value::from),
        1 => Just(Value::Null),
        1 => any::<f64>().prop_map(Value::from),
    ];
    leaf.prop_recursive(5, 64, 6, |inner| {
        let key = prop::sample::select(&KEYS[..]).prop_map(String::from);
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..6).prop_map(Value::from),
            prop::collection::hash_map(key, inner, 0..6).prop_map(|map| Value::Object(map.into_iter().collect())),
        ]
    })
}

proptest! {
    #[test]
    fn any_bytes_are_read_or_refused(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
        for format in FILES {
            let _ = format.parse(&bytes, Path::new("d"), &Select::default(), &Ask::default());
        }
    }

    #[test]
    fn any_structure_is_accounted_for(records in proptest::collection::vec(value(), 1..4)) {
        let lines: Vec<String> = records.iter().map(Value::to_string).collect();
        for format in FILES {
            let array = Value::from(records.clone()).to_string();
            for text in [lines.join("\n"), array, json!({"images": records, "annotations": records}).to_string()] {
                let Ok(found) = parse(format, &text) else { continue };
                for record in found.records {
                    let Content { images, turns, .. } = record.content;
                    let marks: usize = turns.iter().map(|turn| turn.question.matches("<image>").count()).sum();
                    prop_assert!(!images.is_empty() && !turns.is_empty(), "{text}");
                    prop_assert!(marks == images.len() || (marks == 0 && images.len() == 1), "{text}");
                }
            }
        }
    }

    #[test]
    fn any_shard_is_accounted_for(
        members in proptest::collection::vec(("[ab]{1,2}\\.(txt|json|jpg|png|x\\.jpg)", value()), 0..6),
    ) {
        let bytes: Vec<Vec<u8>> = members.iter().map(|(_, value)| value.to_string().into_bytes()).collect();
        let members: Vec<(&str, &[u8])> = members.iter().zip(&bytes).map(|((name, _), bytes)| (name.as_str(), &bytes[..])).collect();
        if let Ok(found) = shard(&members) {
            prop_assert!(found.count() >= 1 && found.count() <= members.len());
        }
    }
}
