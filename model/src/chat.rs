//! Conversations as ids, in the layout that a model was trained on.

use crate::chat_template::{Found, Rendered, Template, find, llava};
use crate::error::{Error, Result, at, input};
use crate::files::write_atomically;
use crate::texts::{Texts, Turn};
use crate::tokenizer::{Roles, Starts, Tokenizer, Tokens};
use minijinja::context;
use minijinja::value::Value;
use std::io::Write;
use std::ops::Range;
use std::path::Path;

/// Lenslet's own layout as a chat template, for other libraries.
const OWN: &str = "\
{% for message in messages %}
{% if message.role == 'user' %}<user>{{ message.content }}{% endif %}
{% if message.role == 'assistant' %}<assistant>{% generation %}{{ message.content }}<eos>{% endgeneration %}{% endif %}
{% endfor %}
{% if add_generation_prompt %}<assistant>{% endif %}
";

/// Who says a message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Role {
    /// Sets the scene.
    System,
    /// Asks.
    User,
    /// Answers: what a model learns.
    Assistant,
}

impl Role {
    fn name(self) -> &'static str {
        match self {
            Role::System => "system",
            Role::User => "user",
            Role::Assistant => "assistant",
        }
    }
}

/// A piece of a message.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Part {
    /// Words.
    Text(String),
    /// An image; which one, the order tells.
    Image,
}

/// What one side says at a time.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Message {
    /// Who.
    pub role: Role,
    /// What, in order.
    pub content: Vec<Part>,
}

impl Message {
    /// A message of words only.
    pub fn text(role: Role, text: impl Into<String>) -> Message {
        Message { role, content: vec![Part::Text(text.into())] }
    }

    /// Its texts one after another, `image` where an image is; those that an image parts stay parted where that is nothing.
    fn words(&self, image: &str) -> String {
        let (mut words, mut parted) = (String::new(), false);
        for part in &self.content {
            match part {
                Part::Image => {
                    words += image;
                    parted = image.is_empty() && !words.is_empty();
                }
                Part::Text(text) => {
                    if parted && !words.ends_with(char::is_whitespace) && !text.starts_with(char::is_whitespace) {
                        words.push(' ');
                    }
                    parted = false;
                    words += text;
                }
            }
        }
        words
    }
}

/// How conversations are laid out: by a model's chat template, or Lenslet's own way,
/// `<user> question <assistant> answer <eos>`, again and again. A system's text that a layout has no place for stands in front
/// of the first question, in training and in generation alike.
///
/// ```
/// use model::{Chat, Message, Role, Tokenizer};
/// let tokenizer = Tokenizer::word_level(["what", "is", "it", "red"])?;
/// let folder = tempfile::tempdir()?;
/// let chat = Chat::open(folder.path(), &tokenizer)?; // no template there: Lenslet's own
/// let asked = Message::text(Role::User, "what is it");
/// let told = Message::text(Role::Assistant, "red");
/// assert_eq!(chat.prompt(&tokenizer, &[asked.clone()])?, [4, 8, 9, 10, 5]);
/// let turn = chat.turn(&tokenizer, &[asked, told])?;
/// assert_eq!(turn.ids, [4, 8, 9, 10, 5, 11, 2]);
/// assert_eq!(turn.loss_mask, [false, false, false, false, false, true, true]);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug, Clone)]
pub struct Chat {
    layout: Layout,
}

#[derive(Debug, Clone)]
enum Layout {
    Own(Roles),
    Template(Box<ByTemplate>),
}

#[derive(Debug, Clone)]
struct ByTemplate {
    template: Template,
    content: Content,
    /// The token that stands for an image, and its id.
    image_token: Option<(String, u32)>,
    /// Whether the tokenizer's special tokens go around a text that does not start with them.
    processor: bool,
    /// Whether it has a place for a system's text, which it neither refuses nor leaves out.
    system: bool,
}

/// What a template takes as a message's content.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Content {
    /// A text.
    Text,
    /// A list of parts, each of a type.
    Parts,
    /// Either.
    Both,
}

impl Chat {
    /// The layout of a Hugging Face folder: `chat_template.jinja`, `chat_template.json`, or the `chat_template` of
    /// `tokenizer_config.json`; without any, Lenslet's own for a vocabulary with `<user>` and `<assistant>`, and for LLaVA
    /// (`config.json`'s `model_type`) the one of its documentation, `USER: <image>⏎question ASSISTANT:`.
    ///
    /// # Errors
    /// When a file is malformed, or there is no layout at all.
    pub fn open(folder: &Path, tokenizer: &Tokenizer) -> Result<Chat> {
        Chat::laid_out(folder, tokenizer, find(folder, tokenizer)?)
    }

    /// Lenslet's own layout.
    ///
    /// # Errors
    /// When the vocabulary has no `<user>` and `<assistant>`.
    pub fn own(tokenizer: &Tokenizer) -> Result<Chat> {
        Ok(Chat { layout: Layout::Own(roles(tokenizer)?) })
    }

    /// The layout of a language model's folder, with `token` for every image, which the vocabulary has; LLaVA's where the
    /// folder has none.
    ///
    /// # Errors
    /// When a file is malformed, or the token is not in the vocabulary.
    pub fn with_images(folder: &Path, tokenizer: &Tokenizer, token: &str) -> Result<Chat> {
        let Some(id) = tokenizer.id(token) else {
            return Err(Error::Tokenizer(format!("`{token}` is not in the vocabulary")));
        };
        let mut found = find(folder, tokenizer)?;
        if found.template.is_none() && tokenizer.specials().roles.is_none() {
            found.template = Some(llava(folder, token)?);
            found.processor = true;
        }
        found.image_token = Some((token.into(), id));
        found.images = true;
        Chat::laid_out(folder, tokenizer, found)
    }

    fn laid_out(folder: &Path, tokenizer: &Tokenizer, found: Found) -> Result<Chat> {
        let own = |template: &Template| template.source() == OWN;
        let layout = match (found.template, tokenizer.specials().roles) {
            (None, Some(roles)) => Layout::Own(roles),
            (Some(template), Some(roles)) if own(&template) => Layout::Own(roles),
            (Some(mut template), _) => {
                for (name, token) in tokenizer.names() {
                    template.set(name, token.as_str().into());
                }
                if let Some((token, _)) = &found.image_token {
                    template.set("image_token", token.as_str().into());
                    if found.images && takes(&template, PROBE.into()) && !shows(&template, token) {
                        template = template.joining_parts(token)?;
                    }
                }
                let mut by = ByTemplate {
                    content: content(&template),
                    template,
                    image_token: found.image_token,
                    processor: found.processor,
                    system: true,
                };
                by.system = by.says_system();
                Layout::Template(Box::new(by))
            }
            (None, None) => {
                let message = "has no chat template, and its vocabulary no <user> and <assistant>; put the model's \
                               chat_template.jinja there";
                return Err(at(folder)(message));
            }
        };
        Ok(Chat { layout })
    }

    /// Sets a variable of the template, as JSON: `tools`, `enable_thinking`, or whatever else it reads. Lenslet's own
    /// layout has none.
    ///
    /// # Errors
    /// When `json` is none.
    pub fn set(&mut self, name: &str, json: &str) -> Result<()> {
        if let Layout::Template(by) = &mut self.layout {
            let value: Value = serde_json::from_str(json).map_err(at(by.template.path()))?;
            by.template.set(name, value);
        }
        Ok(())
    }

    /// The id that stands for an image among the ids, one for each; None where images are not part of the text, and
    /// precede it.
    pub fn image_token(&self) -> Option<u32> {
        match &self.layout {
            Layout::Own(_) => None,
            Layout::Template(by) => by.image_token.as_ref().map(|(_, id)| *id),
        }
    }

    /// Whether special tokens in messages are ordinary characters: in Lenslet's own layout they are, in a template's text not.
    pub fn is_literal(&self) -> bool {
        matches!(self.layout, Layout::Own(_))
    }

    /// A conversation for training: its ids, and which the assistant says. Where a template does not mark what that is,
    /// it is what a message adds to the conversation before it, up to the token that ends it.
    ///
    /// # Errors
    /// When the template refuses, or lays a conversation out otherwise once it goes on.
    pub fn turn(&self, tokenizer: &Tokenizer, messages: &[Message]) -> Result<Turn> {
        match &self.layout {
            Layout::Own(roles) => own(tokenizer, *roles, messages),
            Layout::Template(by) => by.turn(tokenizer, messages),
        }
    }

    /// A conversation up to where the assistant's next message starts: what generation continues.
    pub fn prompt(&self, tokenizer: &Tokenizer, messages: &[Message]) -> Result<Vec<u32>> {
        match &self.layout {
            Layout::Own(roles) => {
                let mut ids = own(tokenizer, *roles, messages)?.ids;
                ids.push(roles.assistant);
                Ok(ids)
            }
            Layout::Template(by) => {
                let rendered = by.render(messages, true)?;
                Ok(by.tokens(tokenizer, messages, &rendered.text)?.ids)
            }
        }
    }

    /// A conversation as the template's text; None for Lenslet's own layout, which knows no text.
    pub fn render(&self, messages: &[Message], add_generation_prompt: bool) -> Result<Option<String>> {
        match &self.layout {
            Layout::Own(_) => Ok(None),
            Layout::Template(by) => Ok(Some(by.render(messages, add_generation_prompt)?.text)),
        }
    }

    /// Writes `chat_template.jinja` to a folder, from which [`Chat::open`] and `transformers` read the same layout.
    pub fn save(&self, folder: &Path) -> Result<()> {
        let source = match &self.layout {
            Layout::Own(_) => OWN,
            Layout::Template(by) => by.template.source(),
        };
        let path = folder.join("chat_template.jinja");
        write_atomically(&path, |file| file.write_all(source.as_bytes())).map_err(at(&path))
    }
}

/// What templates are tried out with.
const PROBE: &str = "probe";

/// What a template takes, tried out: vision models' go through parts, text models' join texts.
fn content(template: &Template) -> Content {
    match (takes(template, PROBE.into()), takes(template, Value::from_iter([text_part(PROBE)]))) {
        (true, true) => Content::Both,
        (false, true) => Content::Parts,
        _ => Content::Text,
    }
}

/// Whether the text of such a content is in what a template lays out.
fn takes(template: &Template, content: Value) -> bool {
    let text = laid_out(template, content);
    // A list that is printed as such shows its keys.
    text.contains(PROBE) && !text.contains("'type'") && !text.contains("\"type\"")
}

/// Whether a template puts `token` where an image is among the parts.
fn shows(template: &Template, token: &str) -> bool {
    let parts = Value::from_iter([image_part(), text_part(PROBE)]);
    laid_out(template, parts).contains(token)
}

/// A question with this content; nothing where the template refuses.
fn laid_out(template: &Template, content: Value) -> String {
    let message = Value::from_iter([context! { role => "user", content }]);
    template.render(message, true).map_or(String::new(), |rendered| rendered.text)
}

fn image_part() -> Value {
    context! { type => "image" }
}

fn text_part(text: &str) -> Value {
    context! { type => "text", text }
}

impl ByTemplate {
    /// Whether a system's text is there once it is rendered.
    fn says_system(&self) -> bool {
        const PROBE: &str = "probe";
        let messages = [Message::text(Role::System, PROBE), Message::text(Role::User, "question")];
        self.render(&messages, true).is_ok_and(|rendered| rendered.text.contains(PROBE))
    }

    fn render(&self, messages: &[Message], add_generation_prompt: bool) -> Result<Rendered> {
        if !self.system && messages.iter().any(|message| message.role == Role::System) {
            return self.render(&system_in_question(messages)?, add_generation_prompt);
        }
        let value = |message: &Message| context! { role => message.role.name(), content => self.content(message) };
        self.template.render(Value::from_iter(messages.iter().map(value)), add_generation_prompt)
    }

    fn content(&self, message: &Message) -> Value {
        let image = self.image_token.as_ref().map(|(token, _)| token.as_str());
        let parts = match self.content {
            Content::Text => false,
            Content::Parts => true,
            Content::Both => image.is_some() && message.content.contains(&Part::Image),
        };
        if !parts {
            return message.words(image.unwrap_or_default()).into();
        }
        let value = |part: &Part| match part {
            Part::Text(text) => Some(text_part(text)),
            Part::Image => image.map(|_| image_part()),
        };
        Value::from_iter(message.content.iter().filter_map(value))
    }

    fn turn(&self, tokenizer: &Tokenizer, messages: &[Message]) -> Result<Turn> {
        let rendered = self.render(messages, false)?;
        let tokens = self.tokens(tokenizer, messages, &rendered.text)?;
        let loss_mask = match rendered.says {
            Some(says) => within(&tokens.places, &says),
            None => {
                let mut loss_mask = within(&tokens.places, &self.additions(messages, &rendered.text)?);
                forget_behind_ends(&tokens.ids, &mut loss_mask, tokenizer.ends());
                loss_mask
            }
        };
        Ok(Turn { ids: tokens.ids, loss_mask })
    }

    /// The text's tokens, with one for every image.
    fn tokens(&self, tokenizer: &Tokenizer, messages: &[Message], text: &str) -> Result<Tokens> {
        let begun = |token: &String| text.starts_with(token.as_str());
        let begun = tokenizer.names().get("bos_token").is_some_and(begun);
        let tokens = tokenizer.tokens(text, self.processor && !begun)?;
        let Some((token, id)) = &self.image_token else {
            return Ok(tokens);
        };
        let images = messages.iter().flat_map(|message| &message.content);
        let images = images.filter(|part| **part == Part::Image).count();
        let found = tokens.ids.iter().filter(|found| *found == id).count();
        if found != images {
            let cause = "a message's text may hold it, or the template leave images out";
            return input("messages", format!("{images} images, but `{token}` occurs {found} times; {cause}"));
        }
        Ok(tokens)
    }

    /// What each of the assistant's messages adds to the text of those before it.
    fn additions(&self, messages: &[Message], whole: &str) -> Result<Vec<Range<usize>>> {
        let mut additions = Vec::new();
        for (i, message) in messages.iter().enumerate() {
            if message.role != Role::Assistant {
                continue;
            }
            let before = self.render(&messages[..i], true)?.text;
            let after = match i + 1 == messages.len() {
                true => whole.to_string(),
                false => self.render(&messages[..=i], false)?.text,
            };
            if !(after.starts_with(&before) && whole.starts_with(&after)) {
                return Err(at(self.template.path())(format!(
                    "the chat template lays message {i} out otherwise once the conversation goes on, so what to learn \
                     of it cannot be told; mark that with {{% generation %}} and {{% endgeneration %}}"
                )));
            }
            additions.push(before.len()..after.len());
        }
        Ok(additions)
    }
}

/// Which tokens lie in the ranges, at least in part.
fn within(places: &[(usize, usize)], ranges: &[Range<usize>]) -> Vec<bool> {
    let inside = |&(start, end): &(usize, usize)| ranges.iter().any(|range| start < range.end && range.start < end);
    places.iter().map(inside).collect()
}

/// Behind the token that ends an answer there is nothing to learn: generation stops there.
fn forget_behind_ends(ids: &[u32], learn: &mut [bool], ends: &[u32]) {
    let mut ended = false;
    for (id, learn) in ids.iter().zip(learn) {
        ended &= *learn;
        *learn &= !ended;
        ended |= *learn && ends.contains(id);
    }
}

/// Messages for a layout without a place for a system: its text stands on a line of its own in front of the question behind it.
fn system_in_question(messages: &[Message]) -> Result<Vec<Message>> {
    let (mut folded, mut before) = (Vec::<Message>::with_capacity(messages.len()), Vec::new());
    for message in messages {
        match message.role {
            Role::System => before.push(Part::Text(format!("{}\n", message.words("")))),
            Role::Assistant if !before.is_empty() => break,
            role => {
                let content = before.drain(..).chain(message.content.iter().cloned()).collect();
                folded.push(Message { role, content });
            }
        }
    }
    match before.is_empty() {
        true => Ok(folded),
        false => input("messages", "a system's text without a question behind it"),
    }
}

/// Lenslet's own layout. Special tokens in messages are ordinary characters.
fn own(tokenizer: &Tokenizer, roles: Roles, messages: &[Message]) -> Result<Turn> {
    let mut turn = Turn::default();
    for message in &system_in_question(messages)? {
        let ids = tokenizer.encode(&message.words(""))?;
        match message.role {
            Role::System => {}
            Role::User => {
                turn.push(&[roles.user], false);
                turn.push(&ids, false);
            }
            Role::Assistant => {
                turn.push(&[roles.assistant], false);
                turn.push(&ids, true);
                turn.push(&[tokenizer.specials().eos], true);
            }
        }
    }
    Ok(turn)
}

/// Questions and answers as messages.
fn messages<S: AsRef<str>>(exchanges: &[(S, S)]) -> Vec<Message> {
    let both = |(question, answer): &(S, S)| {
        [(Role::User, question), (Role::Assistant, answer)].map(|(role, text)| Message::text(role, text.as_ref()))
    };
    exchanges.iter().flat_map(both).collect()
}

fn roles(tokenizer: &Tokenizer) -> Result<Roles> {
    let missing = "the vocabulary has no <user> and <assistant>; its conversations take a chat template";
    tokenizer.specials().roles.ok_or_else(|| Error::Tokenizer(missing.into()))
}

impl Turn {
    /// A conversation of questions and answers in Lenslet's own layout; the answers and the `<eos>` behind each are to be
    /// learned.
    ///
    /// ```
    /// use model::{Tokenizer, Turn};
    /// let tokenizer = Tokenizer::word_level(["what", "is", "it", "red"])?;
    /// let turn = Turn::conversation(&tokenizer, &[("what is it", "red")])?;
    /// assert_eq!(turn.loss_mask, [false, false, false, false, false, true, true]);
    /// assert_eq!(turn.ids.last(), Some(&tokenizer.specials().eos));
    /// # Ok::<(), model::Error>(())
    /// ```
    pub fn conversation<S: AsRef<str>>(tokenizer: &Tokenizer, exchanges: &[(S, S)]) -> Result<Turn> {
        own(tokenizer, roles(tokenizer)?, &messages(exchanges))
    }

    fn push(&mut self, ids: &[u32], learn: bool) {
        self.ids.extend_from_slice(ids);
        self.loss_mask.resize(self.ids.len(), learn);
    }
}

/// A conversation so far and a new question in Lenslet's own layout, up to where the answer starts: what generation
/// continues.
pub fn prompt<S: AsRef<str>>(tokenizer: &Tokenizer, so_far: &[(S, S)], question: &str) -> Result<Vec<u32>> {
    let layout = Layout::Own(roles(tokenizer)?);
    let mut messages = messages(so_far);
    messages.push(Message::text(Role::User, question));
    Chat { layout }.prompt(tokenizer, &messages)
}

fn starts(tokenizer: &Tokenizer) -> Result<Starts> {
    let missing = "the vocabulary has no two different special tokens for the Q-Former's texts to start with; \
                   `Tokenizer::load` adds <cls> and <dec>";
    tokenizer.specials().starts.ok_or_else(|| Error::Tokenizer(missing.into()))
}

impl Texts {
    /// Texts to be compared or matched with images: `<cls> text`, cut to `most` tokens.
    pub fn for_matching<S: AsRef<str>>(tokenizer: &Tokenizer, texts: &[S], most: usize) -> Result<Texts> {
        let cls = starts(tokenizer)?.cls;
        let start = |text: &S| {
            let mut ids = vec![cls];
            ids.extend(tokenizer.encode(text.as_ref())?);
            ids.truncate(most);
            Ok(ids)
        };
        let rows: Vec<_> = texts.iter().map(start).collect::<Result<_>>()?;
        Ok(Texts::pad(&rows, tokenizer.specials().pad))
    }

    /// Texts the Q-Former learns to say: `<dec> text <eos>`, cut to `most` tokens, the end left out then; the targets are
    /// [`Texts::next_tokens`].
    pub fn for_captioning<S: AsRef<str>>(tokenizer: &Tokenizer, texts: &[S], most: usize) -> Result<Texts> {
        let specials = tokenizer.specials();
        let dec = starts(tokenizer)?.dec;
        let whole = |text: &S| {
            let mut ids = vec![dec];
            ids.extend(tokenizer.encode(text.as_ref())?);
            ids.push(specials.eos);
            ids.truncate(most);
            Ok(ids)
        };
        let rows: Vec<_> = texts.iter().map(whole).collect::<Result<_>>()?;
        Ok(Texts::pad(&rows, specials.pad))
    }
}
