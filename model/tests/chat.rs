//! Chat templates: the reference's texts, ids and masks, and what happens where there is none or it does harm.

use model::{Chat, Message, Part, Role, Tokenizer};
use proptest::prelude::*;
use serde::Deserialize;
use serde_json::{Value, json};
use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::sync::LazyLock;
use tempfile::TempDir;

/// What tests/fixtures/chat.py made.
#[derive(Deserialize)]
struct Fixture {
    tokenizer: Value,
    cases: Vec<Case>,
}

#[derive(Deserialize)]
struct Case {
    name: String,
    template: String,
    config: Value,
    messages: Vec<Said>,
    /// Each as JSON.
    variables: BTreeMap<String, String>,
    processor: bool,
    error: Option<String>,
    #[serde(default)]
    text: String,
    #[serde(default)]
    prompt: String,
    #[serde(default)]
    ids: Vec<u32>,
    #[serde(default)]
    learn: Vec<u8>,
    #[serde(default)]
    prompt_ids: Vec<u32>,
}

#[derive(Deserialize)]
struct Said {
    role: String,
    content: Value,
}

static FIXTURE: LazyLock<Fixture> = LazyLock::new(|| {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/fixtures/chat.json");
    let text = std::fs::read_to_string(path).unwrap();
    serde_json::from_str(&text).unwrap()
});

fn message(said: &Said) -> Message {
    let role = match said.role.as_str() {
        "system" => Role::System,
        "user" => Role::User,
        _ => Role::Assistant,
    };
    let part = |part: &Value| part["text"].as_str().map_or(Part::Image, |text| Part::Text(text.into()));
    let content = match &said.content {
        Value::String(text) => vec![Part::Text(text.clone())],
        parts => parts.as_array().unwrap().iter().map(part).collect(),
    };
    Message { role, content }
}

/// A folder with the fixtures' tokenizer and these files.
fn folder(config: &Value, files: &[(&str, &str)]) -> TempDir {
    let folder = tempfile::tempdir().unwrap();
    let write = |name: &str, content: &str| std::fs::write(folder.path().join(name), content).unwrap();
    write("tokenizer.json", &FIXTURE.tokenizer.to_string());
    write("tokenizer_config.json", &config.to_string());
    files.iter().for_each(|(name, content)| write(name, content));
    folder
}

fn open(folder: &TempDir) -> model::Result<(Tokenizer, Chat)> {
    let tokenizer = Tokenizer::open(folder.path())?;
    let chat = Chat::open(folder.path(), &tokenizer)?;
    Ok((tokenizer, chat))
}

#[test]
fn a_template_for_texts_takes_lists_of_parts_beside_a_processor() {
    let joins = "{% for m in messages %}{{ m['role'] + ': ' + m['content'] + '\\n' }}{% endfor %}\
        {% if add_generation_prompt %}assistant:{% endif %}";
    // It takes a list, but leaves images out.
    let leaves_out = "{% for m in messages %}{{ m['role'] }}: {% if m['content'] is string %}{{ m['content'] }}{% else %}\
        {% for p in m['content'] if p['type'] == 'text' %}{{ p['text'] }}{% endfor %}{% endif %}\n\n{% endfor %}\
        {% if add_generation_prompt %}assistant:{% endif %}";
    let image = json!({"eos_token": "</s>", "image_token": "<image>"});
    for template in [joins, leaves_out] {
        let folder = folder(
            &image,
            &[("chat_template.jinja", template), ("processor_config.json", "{\"image_token\": \"<image>\"}")],
        );
        let (tokenizer, chat) = open(&folder).unwrap();
        let asked = |content: Vec<Part>| [Message { role: Role::User, content }];
        let parts = asked(vec![Part::Image, Part::Text("\nwhat?".into())]);
        let text = chat.render(&parts, true).unwrap().unwrap();
        assert_eq!(text, "user: <image>\nwhat?\nassistant:");
        let ids = chat.prompt(&tokenizer, &parts).unwrap();
        // What is written is what was used, and reads lists and texts alike.
        let written = tempfile::tempdir().unwrap();
        chat.save(written.path()).unwrap();
        std::fs::copy(written.path().join("chat_template.jinja"), folder.path().join("chat_template.jinja")).unwrap();
        let (_, again) = open(&folder).unwrap();
        assert_eq!(again.prompt(&tokenizer, &parts).unwrap(), ids);
        let plain = asked(vec![Part::Text("what?".into())]);
        assert_eq!(again.render(&plain, false).unwrap().unwrap(), "user: what?\n");
        again.save(written.path()).unwrap();
        let files = [folder.path(), written.path()]
            .map(|folder| std::fs::read_to_string(folder.join("chat_template.jinja")).unwrap());
        assert_eq!(files[0], files[1], "once is enough");
    }
}

#[test]
fn texts_ids_and_masks_equal_those_of_the_reference() {
    assert_eq!(FIXTURE.cases.len(), 19);
    for case in &FIXTURE.cases {
        let mut files = vec![("chat_template.jinja", case.template.as_str())];
        if case.processor {
            files.push(("processor_config.json", r#"{"processor_class": "LlavaProcessor"}"#));
        }
        let (tokenizer, mut chat) = open(&folder(&case.config, &files)).unwrap();
        for (name, value) in &case.variables {
            chat.set(name, value).unwrap();
        }
        let mut messages: Vec<Message> = case.messages.iter().map(message).collect();
        if let Some(folded) = folded(&messages)
            && !case.text.contains(words(&messages[0]).trim())
        {
            // The reference refuses the system's text or drops it; here it stands in front of the question.
            let [told, written] = [&messages, &folded].map(|messages| chat.turn(&tokenizer, messages).unwrap());
            assert_eq!((told.ids, told.loss_mask), (written.ids, written.loss_mask), "{}", case.name);
            if case.error.is_some() {
                continue;
            }
            messages.remove(0);
        }
        let asked = &messages[..messages.len() - 1];
        if let Some(error) = &case.error {
            let said = chat.turn(&tokenizer, &messages).unwrap_err().to_string();
            let error = if error == "not a prefix" { "message 1 out otherwise" } else { error };
            assert!(said.contains(error), "{}: {said}", case.name);
            continue;
        }
        assert_eq!(chat.render(&messages, false).unwrap().unwrap(), case.text, "{}", case.name);
        assert_eq!(chat.render(asked, true).unwrap().unwrap(), case.prompt, "{}", case.name);
        assert_eq!(chat.prompt(&tokenizer, asked).unwrap(), case.prompt_ids, "{}", case.name);
        let turn = chat.turn(&tokenizer, &messages).unwrap();
        assert_eq!(turn.ids, case.ids, "{}", case.name);
        let learn: Vec<u8> = turn.loss_mask.iter().map(|&learn| learn.into()).collect();
        assert_eq!(learn, case.learn, "{}", case.name);
    }
}

fn words(message: &Message) -> String {
    let text = |part: &Part| match part {
        Part::Text(text) => text.clone(),
        Part::Image => String::new(),
    };
    message.content.iter().map(text).collect()
}

/// A conversation that begins with a system's text, with that text on a line of its own in front of the question.
fn folded(messages: &[Message]) -> Option<Vec<Message>> {
    let [system, question, rest @ ..] = messages else {
        return None;
    };
    let mut first = question.clone();
    first.content.insert(0, Part::Text(words(system) + "\n"));
    (system.role == Role::System).then(|| [&[first], rest].concat())
}

const SIMPLE: &str = "{% for m in messages %}{{ m.role }}: {{ m.content }}\n{% endfor %}";

fn ask(parts: &[Part]) -> Message {
    Message { role: Role::User, content: parts.to_vec() }
}

#[test]
fn templates_are_found_wherever_folders_keep_them() {
    let plain = json!({"eos_token": "</s>"});
    let field = json!({"chat_template": SIMPLE}).to_string();
    let with = |template: Value| json!({"eos_token": "</s>", "chat_template": template});
    let named = json!([{"name": "tools", "template": "no"}, {"name": "default", "template": SIMPLE}]);
    for folder in [
        folder(&plain, &[("chat_template.jinja", SIMPLE), ("chat_template.json", "{}")]),
        folder(&plain, &[("chat_template.json", &field)]),
        folder(&with(json!(SIMPLE)), &[]),
        folder(&with(named), &[]),
    ] {
        let (_, chat) = open(&folder).unwrap();
        let text = chat.render(&[Message::text(Role::User, "hm")], false).unwrap();
        assert_eq!(text.as_deref(), Some("user: hm\n"));
        let saved = tempfile::tempdir().unwrap();
        chat.save(saved.path()).unwrap();
        assert_eq!(std::fs::read_to_string(saved.path().join("chat_template.jinja")).unwrap(), SIMPLE);
    }
    for (template, expected) in [
        (json!(3), "field `chat_template`: expected a text"),
        (json!([{"name": "rag", "template": "x"}]), "field `chat_template`: a list without"),
        (json!("{% if %}"), "tokenizer_config.json: syntax error"),
        (json!(null), "has no chat template"),
    ] {
        let error = open(&folder(&with(template), &[])).unwrap_err().to_string();
        assert!(error.contains(expected), "{error}");
    }
}

#[test]
fn an_image_is_one_token_where_the_vocabulary_has_one() {
    let question = ask(&[Part::Image, Part::Text("What?".into())]);
    let plain = json!({"bos_token": "<s>", "eos_token": "</s>"});
    let image = FIXTURE.tokenizer["added_tokens"].as_array().unwrap().len() as u32 - 1;
    let (tokenizer, chat) = open(&folder(&plain, &[("chat_template.jinja", SIMPLE)])).unwrap();
    assert_eq!(chat.image_token(), Some(image));
    assert_eq!(chat.render(std::slice::from_ref(&question), false).unwrap().unwrap(), "user: <image>What?\n");
    let forged = ask(&[Part::Text("<image>".into())]);
    let error = chat.prompt(&tokenizer, &[forged]).unwrap_err().to_string();
    assert!(error.contains("0 images, but `<image>` occurs 1 times"), "{error}");
    // The model says which, if it is another.
    let other = [("chat_template.jinja", SIMPLE), ("config.json", r#"{"image_token_index": 3}"#)];
    assert_eq!(open(&folder(&plain, &other)).unwrap().1.image_token(), Some(3));
    let none = [("chat_template.jinja", SIMPLE), ("config.json", r#"{"image_token_index": 3000}"#)];
    let error = open(&folder(&plain, &none)).unwrap_err().to_string();
    assert!(error.contains("config.json: field `image_token_index`"), "{error}");
    let unknown = [("chat_template.jinja", SIMPLE), ("processor_config.json", r#"{"image_token": "<img>"}"#)];
    assert!(open(&folder(&plain, &unknown)).unwrap_err().to_string().contains("`<img>` is not in"));
}

#[test]
fn llava_without_a_template_has_that_of_its_documentation() {
    let config = json!({"bos_token": "<s>", "eos_token": "</s>"});
    let files = [("config.json", r#"{"model_type": "llava"}"#), ("processor_config.json", r#"{"patch_size": 14}"#)];
    let (tokenizer, chat) = open(&folder(&config, &files)).unwrap();
    let talk = [
        ask(&[Part::Image, Part::Text("What?".into())]),
        Message::text(Role::Assistant, "A cat."),
        Message::text(Role::User, "Sure?"),
    ];
    let text = chat.render(&talk, true).unwrap().unwrap();
    assert_eq!(text, "USER: <image>\nWhat? ASSISTANT: A cat.</s>USER: Sure? ASSISTANT:");
    let ids = chat.prompt(&tokenizer, &talk).unwrap();
    assert_eq!(tokenizer.decode_with_specials(&ids).unwrap(), format!("<s>{text}"));
    let turn = chat.turn(&tokenizer, &talk[..2]).unwrap();
    let learned: Vec<u32> = turn.ids.iter().zip(&turn.loss_mask).filter(|(_, l)| **l).map(|(id, _)| *id).collect();
    assert_eq!(tokenizer.decode_with_specials(&learned).unwrap(), " A cat.</s>");
}

#[test]
fn lenslets_own_layout_survives_being_written() {
    let tokenizer = Tokenizer::word_level(["what", "is", "it", "red", "?"]).unwrap();
    let folder = tempfile::tempdir().unwrap();
    tokenizer.save(folder.path()).unwrap();
    let chat = Chat::open(folder.path(), &tokenizer).unwrap();
    chat.save(folder.path()).unwrap();
    let again = Chat::open(folder.path(), &tokenizer).unwrap();
    let talk = [
        ask(&[Part::Image, Part::Text("What is <eos>it?".into())]),
        Message::text(Role::Assistant, "red"),
        Message::text(Role::User, "it?"),
    ];
    for chat in [chat, again] {
        assert_eq!((chat.image_token(), chat.render(&talk, true).unwrap()), (None, None));
        // Nobody can write a special token.
        let ids = chat.prompt(&tokenizer, &talk).unwrap();
        assert_eq!(ids.iter().filter(|id| **id == tokenizer.specials().eos).count(), 1);
        assert_eq!((ids[0], ids[ids.len() - 1]), (4, 5));
        // Its place for a system's text is in front of the first question.
        let system = Message::text(Role::System, "red");
        let error = chat.turn(&tokenizer, std::slice::from_ref(&system)).unwrap_err().to_string();
        assert!(error.contains("without a question"), "{error}");
        let told = chat.prompt(&tokenizer, &[system, Message::text(Role::User, "it?")]).unwrap();
        let written = chat.prompt(&tokenizer, &[Message::text(Role::User, "red\nit?")]).unwrap();
        assert_eq!(told, written);
        // The words beside an image that is shown elsewhere do not run together.
        let parted = [Part::Text("what is".into()), Part::Image, Part::Text("it?".into())];
        let parted = chat.prompt(&tokenizer, &[ask(&parted)]).unwrap();
        let whole = chat.prompt(&tokenizer, &[Message::text(Role::User, "what is it?")]);
        assert_eq!(parted, whole.unwrap());
    }
}

#[test]
fn a_systems_text_is_read_whatever_the_template_does_with_it() {
    let tokenizer = Tokenizer::word_level(["be", "brief", "what", "red", "sys", "q", "a"]).unwrap();
    let says = "{% if m.role == 'system' %}sys {{ m.content }} {% endif %}";
    let refuses = "{% if m.role == 'system' %}{{ raise_exception('no system') }}{% endif %}";
    for (system, shown) in
        [(says, "sys be brief q what a red "), (refuses, "q be brief\nwhat a red "), ("", "q be brief\nwhat a red ")]
    {
        let folder = tempfile::tempdir().unwrap();
        tokenizer.save(folder.path()).unwrap();
        let turns = "{% if m.role == 'user' %}q {{ m.content }} {% endif %}{% if m.role == 'assistant' %}a {{ m.content }} {% endif %}";
        let template = format!("{{% for m in messages %}}{system}{turns}{{% endfor %}}");
        std::fs::write(folder.path().join("chat_template.jinja"), template).unwrap();
        let chat = Chat::open(folder.path(), &tokenizer).unwrap();
        let talk = [(Role::System, "be brief"), (Role::User, "what"), (Role::Assistant, "red")];
        let talk = talk.map(|(role, text)| Message::text(role, text));
        assert_eq!(chat.render(&talk, false).unwrap().as_deref(), Some(shown), "{system}");
        assert!(chat.turn(&tokenizer, &talk).is_ok(), "{system}");
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 200, failure_persistence: None, ..ProptestConfig::default() })]

    /// Whatever a file says, the answer is a conversation or an error.
    #[test]
    fn damaged_templates_never_panic(
        which in 0usize..19,
        cuts in prop::collection::vec(any::<prop::sample::Index>(), 0..6),
        with in prop::sample::select(vec!["", "{%", "%}", "{{", "generation", "-", "|", "(", "'", "\u{fdd0}", "*9999999", "~"]),
    ) {
        let case = &FIXTURE.cases[which];
        let letters: Vec<char> = case.template.chars().collect();
        let cuts: BTreeSet<usize> = cuts.iter().map(|cut| cut.index(letters.len())).collect();
        let mut template = String::new();
        for (i, letter) in letters.iter().enumerate() {
            if cuts.contains(&i) { template.push_str(with) } else { template.push(*letter) }
        }
        let messages: Vec<Message> = case.messages.iter().map(message).collect();
        if let Ok((tokenizer, chat)) = open(&folder(&case.config, &[("chat_template.jinja", &template)])) {
            if let Ok(turn) = chat.turn(&tokenizer, &messages) {
                prop_assert_eq!(turn.ids.len(), turn.loss_mask.len());
            }
            let _ = chat.prompt(&tokenizer, &messages);
        }
    }

    #[test]
    fn what_is_learned_is_what_the_assistant_says(question in any::<String>(), answer in any::<String>()) {
        let case = FIXTURE.cases.iter().find(|case| case.name == "chatml, marked").unwrap();
        let (tokenizer, chat) = open(&folder(&case.config, &[("chat_template.jinja", &case.template)])).unwrap();
        let messages = [Message::text(Role::User, question), Message::text(Role::Assistant, answer.as_str())];
        let turn = chat.turn(&tokenizer, &messages).unwrap();
        let learned: Vec<u32> = turn.ids.iter().zip(&turn.loss_mask).filter(|(_, l)| **l).map(|(id, _)| *id).collect();
        let said = tokenizer.decode_with_specials(&learned).unwrap();
        prop_assert!(said.ends_with(&format!("{answer}<|im_end|>")), "{said:?}");
    }
}
