//! `lenslet chat`: a conversation in the terminal.

use super::assistant::{Assistant, say};
use crate::cli::ChatArgs;
use crate::compute;
use crate::output::visible;
use anyhow::{Context, Result, bail, ensure};
use engine::Device;
use model::{Chat, Generator, Kept, Message, Part, Prompt, Request, Role};
use serde_json::{Value, json};
use std::io::{BufRead, ErrorKind, IsTerminal, Read, Write};
use std::path::{Path, PathBuf};
use std::time::Instant;

const HELP: &str = "\
Type a question and press Enter. Lines that start with / are commands:
  /image FILE  show an image; the next question may be about it
  /reset       forget everything said and shown
  /save FILE   write the conversation to a new JSON file, as messages for training
  /help        print this
  /quit        leave, as does Ctrl-D";

/// The longest line that is taken.
const MAX_LINE: u64 = 1 << 20;

/// What invites a question.
const PROMPT: &str = "> ";

pub(super) fn run(args: &ChatArgs) -> Result<()> {
    let device = compute::open(&args.compute.device)?;
    compute::with_threads(args.compute.threads, || talk(args, &device))
}

fn talk(args: &ChatArgs, device: &Device) -> Result<()> {
    let assistant = Assistant::open(&args.model, device, args.dtype)?;
    let mut conversation = Conversation::new(args, &assistant)?;
    for file in &args.image {
        conversation.show(file)?;
    }
    let interactive = std::io::stdin().is_terminal();
    if interactive {
        eprintln!("{}", dimmed("/help lists the commands, Ctrl-D leaves"));
    }
    let (mut lines, mut line) = (std::io::stdin().lock(), Vec::new());
    loop {
        if interactive {
            write(PROMPT)?;
        }
        line.clear();
        if (&mut lines).take(MAX_LINE).read_until(b'\n', &mut line)? == 0 {
            return write(if interactive { "\n" } else { "" });
        }
        ensure!((line.len() as u64) < MAX_LINE, "a line of {MAX_LINE} bytes or more: no model reads so much at once");
        match conversation.hear(String::from_utf8_lossy(&line).trim()) {
            Ok(true) => {}
            Ok(false) => return Ok(()),
            Err(error) if nobody_reads(&error) => return Err(error),
            Err(error) => errln!("error: {error:#}"),
        }
    }
}

fn write(text: &str) -> Result<()> {
    let mut out = std::io::stdout();
    out.write_all(text.as_bytes())?;
    Ok(out.flush()?)
}

/// Whether what reads the answers has gone.
fn nobody_reads(error: &anyhow::Error) -> bool {
    let cause = error.root_cause().downcast_ref::<std::io::Error>();
    cause.is_some_and(|cause| cause.kind() == ErrorKind::BrokenPipe)
}

/// What was said and shown, and the cache that holds it.
struct Conversation<'a> {
    args: &'a ChatArgs,
    assistant: &'a Assistant,
    chat: Chat,
    generator: Generator<'a>,
    messages: Vec<Message>,
    /// The files of all images, in the order they were shown: the generator's numbers.
    images: Vec<PathBuf>,
    /// How many of them no question came with yet.
    waiting: usize,
    kept: Option<Kept>,
}

impl<'a> Conversation<'a> {
    fn new(args: &'a ChatArgs, assistant: &'a Assistant) -> Result<Conversation<'a>> {
        let mut conversation = Conversation {
            args,
            assistant,
            chat: assistant.chat()?,
            generator: assistant.generator(),
            messages: Vec::new(),
            images: Vec::new(),
            waiting: 0,
            kept: None,
        };
        conversation.reset();
        Ok(conversation)
    }

    fn reset(&mut self) {
        self.kept = None;
        self.generator.forget_images();
        self.images.clear();
        self.waiting = 0;
        let system = self.args.system.iter();
        self.messages = system.map(|text| Message::text(Role::System, text)).collect();
    }

    /// Does what a line says; false to leave.
    fn hear(&mut self, line: &str) -> Result<bool> {
        let (word, rest) = line.split_once(char::is_whitespace).unwrap_or((line, ""));
        match word {
            "" => {}
            "/image" => self.show(file(word, rest)?)?,
            "/reset" => {
                self.reset();
                eprintln!("{}", dimmed("everything is forgotten"));
            }
            "/save" => self.save(file(word, rest)?)?,
            "/help" => eprintln!("{HELP}"),
            "/quit" => return Ok(false),
            _ if word.starts_with('/') => bail!("`{word}` is no command; /help lists them"),
            _ => self.ask(line)?,
        }
        Ok(true)
    }

    fn show(&mut self, file: &Path) -> Result<()> {
        let pixels = self.assistant.pixels(file)?;
        self.assistant.takes_images(self.images.len() + 1).context("/reset starts a new conversation")?;
        let asked = self.messages.iter().any(|message| message.role == Role::User);
        if asked && self.assistant.has_images_in_front() {
            let note = "this model takes its image in front of the first question: it goes there, as in training";
            eprintln!("{}", dimmed(note));
        }
        self.generator.see(&pixels)?;
        self.images.push(file.to_path_buf());
        self.waiting += 1;
        eprintln!("{}", dimmed(&format!("image {}: {}", self.images.len(), file.display())));
        Ok(())
    }

    /// Answers a question; one that cannot be answered was never asked.
    fn ask(&mut self, question: &str) -> Result<()> {
        let system = self.args.system.iter().filter(|_| self.messages.len() < 2);
        self.assistant.hint(system.map(String::as_str).chain([question]))?;
        let mut content = vec![Part::Image; self.waiting];
        content.push(Part::Text(question.to_string()));
        self.messages.push(Message { role: Role::User, content });
        match self.answer() {
            Ok(text) => {
                self.messages.push(Message::text(Role::Assistant, text));
                self.waiting = 0;
                Ok(())
            }
            Err(error) => {
                self.messages.pop();
                Err(error)
            }
        }
    }

    fn answer(&mut self) -> Result<String> {
        let prompt = Prompt {
            ids: self.chat.prompt(&self.assistant.tokenizer, &self.messages)?,
            images: (0..self.images.len()).collect(),
        };
        let settings = self.assistant.settings(&self.args.answer, &self.generator, &prompt);
        let settings = settings.context("/reset starts a new conversation")?;
        let request = Request { prompt, settings };
        let start = Instant::now();
        let answer = say(|listener| self.generator.resume(&mut self.kept, &request, listener))?;
        let (tokens, seconds) = (answer.ids.len(), start.elapsed().as_secs_f64());
        let plural = if tokens == 1 { "" } else { "s" };
        let speed = tokens as f64 / seconds.max(1e-9);
        eprintln!("{}", dimmed(&format!("[{tokens} token{plural}, {speed:.1} tokens/s]")));
        Ok(answer.text)
    }

    fn save(&self, file: &Path) -> Result<()> {
        if file.exists() {
            bail!("{} exists already; name a new file", file.display());
        }
        let shown = self.images.len() - self.waiting;
        let conversation = json!({
            "messages": self.messages.iter().map(message).collect::<Vec<_>>(),
            "images": self.images[..shown],
        });
        model::write_atomically(file, |out| writeln!(out, "{conversation:#}"))
            .with_context(|| format!("{}: the conversation could not be saved", file.display()))?;
        eprintln!("{}", dimmed(&format!("saved to {}", file.display())));
        Ok(())
    }
}

fn file<'l>(command: &str, rest: &'l str) -> Result<&'l Path> {
    match rest.trim() {
        "" => bail!("{command} needs a file: {command} FILE"),
        path => Ok(Path::new(path)),
    }
}

fn message(message: &Message) -> Value {
    let role = match message.role {
        Role::System => "system",
        Role::User => "user",
        Role::Assistant => "assistant",
    };
    let part = |part: &Part| match part {
        Part::Text(text) => json!({ "type": "text", "text": text }),
        Part::Image => json!({ "type": "image" }),
    };
    json!({ "role": role, "content": message.content.iter().map(part).collect::<Vec<_>>() })
}

/// Text that steps back behind the answers, where standard error is a terminal.
fn dimmed(text: &str) -> String {
    let text = visible(text);
    match std::io::stderr().is_terminal() {
        true => format!("\u{1b}[2m{text}\u{1b}[0m"),
        false => text.to_string(),
    }
}
