use super::*;
use crate::data::record::{Content, Turn};
use proptest::prelude::*;
use serde_json::{Value, json};

fn parse(format: Format, text: &str) -> Result<Found> {
    format.parse(text.as_bytes(), Path::new("d.jsonl"), &Select::default(), &Ask::default())
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
    let turn = |(question, answer): &(&str, &str)| Turn { question: question.to_string(), answer: answer.to_string() };
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
    for images in [json!(["b.png", "c.png"]), json!([{"path": "b.png", "bytes": null}, {"path": "c.png"}]), json!([])] {
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
        (Format::Messages, json!({"messages": messages(parts("what is this ? ", ""))}), "what is this ? <image>"),
        (Format::Messages, json!({"messages": messages(parts("look at ", " ?"))}), "look at <image> ?"),
        (Format::Messages, json!({"messages": messages(parts("", "what ?"))}), "what ?"),
        (Format::Messages, json!({"messages": messages(json!("what ?\n<image>"))}), "what ?\n<image>"),
        (Format::Messages, json!({"messages": later}), "and <image> ?"),
        (Format::Completion, json!({"prompt": "look at <image> ?", "completion": "a"}), "look at <image> ?"),
        (Format::Completion, json!({"prompt": "<image>\nwhat ?", "completion": "a"}), "what ?"),
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
    assert_eq!(one(Format::Completion, two).turns[0].question, "compare <image> with <image>");
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
        (json!([assistant, user]), "messages[0].role: turns do not alternate: `assistant` speaks where `user` should"),
        (json!([user, assistant, {"role": "system", "content": "s"}]), "messages[2].role: only the first"),
        (json!([{"role": "tool", "content": "s"}]), "messages[0].role: unknown role `tool`"),
        (json!([{"content": "s"}]), "messages[0].role: expected `user` or `assistant`, found nothing"),
        (json!([user, {"role": "assistant", "content": 5}]), "messages[1].content: expected text or a list of parts"),
        (json!([user, {"role": "assistant", "content": " "}]), "messages[1].content: says nothing"),
        (json!([user, {"role": "assistant", "content": "<image>"}]), "messages[1].content: an answer with the mark"),
        (json!([{"role": "user", "content": [{"type": "audio"}]}]), "messages[0].content[0].type: `audio`: expected"),
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
        assert!(found.starts_with(&format!("d.jsonl:1: record `1`: {expected}")), "{found}\n{expected}");
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
    let content = one(Format::Completion, json!({"prompt": "so: ", "completion": " a cat\n", "image": "a.png"}));
    assert_eq!(content.turns, turns(&[("so: ", " a cat\n")]));
    let content = one(
        Format::Messages,
        json!({"image": "a.png", "messages": [{"role": "user", "content": "q"}, {"role": "assistant", "content": "  a"}]}),
    );
    assert_eq!(content.turns, turns(&[("q", "  a")]));
    for (record, expected) in [
        (json!({"image": "a", "completion": "x"}), "prompt: expected text or messages, found nothing"),
        (json!({"image": "a", "prompt": "x"}), "completion: expected text, found nothing"),
        (json!({"image": "a", "prompt": "x", "completion": ""}), "completion: says nothing"),
        (json!({"image": "a", "prompt": [], "completion": "x"}), "completion: expected messages, found text"),
        (json!({"prompt": "<image>x", "completion": "y"}), "image: missing, but the conversation has the mark"),
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
    for text in [published.to_string(), serde_json::to_string_pretty(&published).unwrap(), lines.into()] {
        let found = parse(Format::Coco, &text).unwrap();
        let [nine, four] = &found.records[..] else { panic!("{found:?}") };
        assert_eq!((nine.id.as_str(), four.id.as_str()), ("9", "4"));
        assert_eq!(nine.content.images, ["9.jpg"]);
        assert_eq!((nine.content.captions.len(), &nine.content.turns[0].answer[..]), (0, "nine"));
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
    assert_eq!((found.records.len(), found.records[0].content.turns[0].answer.as_str()), (1, "a"));
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

const FILES: [Format; 4] = [Format::Llava, Format::Messages, Format::Completion, Format::Coco];

/// A value as records have them, well-formed or not.
fn value() -> impl Strategy<Value = Value> {
    const WORDS: [&str; 12] =
        ["user", "assistant", "system", "human", "gpt", "text", "image", "a.png", "<image> what", "", "x", "<image>"];
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
}
