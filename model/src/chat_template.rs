//! Chat templates: Jinja programs that lay out a conversation as the model was trained to read it.
//!
//! They run as `transformers` runs them, with its filters and functions, and within limits of work and memory.

mod json;
mod source;

pub(crate) use source::{Found, find, llava};

use crate::error::{Result, at, input};
use crate::sandbox::{self, Processes};
use minijinja::syntax::SyntaxConfig;
use minijinja::value::Value;
use minijinja::{Environment, Error, ErrorKind, UndefinedBehavior, context};
use serde::de::DeserializeOwned;
use std::collections::BTreeMap;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// Longest template read, in bytes.
const MAX_TEMPLATE: usize = 1 << 20;
/// Longest text written, in bytes.
const MAX_TEXT: usize = 16 << 20;
/// What one rendering may do: about as many steps, or 64 times as many bytes.
const FUEL: u64 = 2_000_000;
/// How deep macros may call each other.
const MAX_DEPTH: usize = 100;
/// Around what the assistant says, while it is rendered: noncharacters, which no interchanged text holds.
const MARKS: [char; 2] = ['\u{fdd0}', '\u{fdd1}'];
/// The filter that sets them.
const MARKER: &str = "assistant_says";

/// What a process that serves is called that renders a template.
pub(crate) const JOB: &str = "chat-template";

/// A template, compiled.
#[derive(Debug, Clone)]
pub(crate) struct Template {
    program: Runs,
    /// As it was read.
    source: String,
    /// The file it was read from.
    path: PathBuf,
    /// Whether it says by itself what the assistant says.
    marks: bool,
    /// Its variables beside the messages.
    variables: BTreeMap<String, Value>,
}

/// A conversation laid out.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Rendered {
    /// All of it.
    pub(crate) text: String,
    /// What the assistant says, in bytes of the text; None where the template does not tell.
    pub(crate) says: Option<Vec<Range<usize>>>,
}

impl Template {
    /// Compiles a template that was read from `path`.
    ///
    /// # Errors
    /// When it is too long or not Jinja.
    pub(crate) fn new(source: String, path: &Path) -> Result<Template> {
        if source.len() > MAX_TEMPLATE {
            let length = source.len();
            return Err(at(path)(format!("a chat template of {length} bytes, at most {MAX_TEMPLATE} are read")));
        }
        let marked = mark(&source);
        let marks = marked != source;
        let program = match sandbox::enabled() {
            true => Processes::start(JOB, marked.into()).map(|apart| Runs::Apart(Arc::new(apart))),
            false => Program::new(marked).map(|here| Runs::Here(Arc::new(here))),
        };
        Ok(Template {
            program: program.map_err(at(path))?,
            source,
            path: path.to_path_buf(),
            marks,
            variables: ["tools", "documents"].map(|none| (none.into(), ().into())).into(),
        })
    }

    /// The same behind another piece of template.
    fn behind(&self, front: &str) -> Result<Template> {
        Ok(Template {
            variables: self.variables.clone(),
            ..Template::new(format!("{front}{}", self.source), &self.path)?
        })
    }

    /// Sets a variable, in place of what it was before.
    pub(crate) fn set(&mut self, name: &str, value: Value) {
        self.variables.insert(name.to_string(), value);
    }

    /// As it was read.
    pub(crate) fn source(&self) -> &str {
        &self.source
    }

    /// The file it was read from.
    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// Lays out messages, and with `add_generation_prompt` what comes before the assistant's next one.
    ///
    /// # Errors
    /// When the template refuses or does too much.
    pub(crate) fn render(&self, messages: Value, add_generation_prompt: bool) -> Result<Rendered> {
        let variables = Value::from(self.variables.clone());
        let variables = context! { messages, add_generation_prompt, ..variables };
        let text = match &self.program {
            Runs::Here(program) => program.render(variables),
            Runs::Apart(processes) => processes.ask(&variables).map(|text| match text {
                serde_json::Value::String(text) => text,
                other => other.to_string(),
            }),
        };
        let text = text.map_err(|why| at(&self.path)(format!("the chat template refuses: {why}")))?;
        if !self.marks {
            return Ok(Rendered { text, says: None });
        }
        let (text, says) = unmark(&text)?;
        Ok(Rendered { text, says: Some(says) })
    }
}

/// Where a template runs.
#[derive(Debug, Clone)]
enum Runs {
    /// In this process: natively written filters and operators have no bound on stack and time.
    Here(Arc<Program>),
    /// Apart from it.
    Apart(Arc<Processes>),
}

/// A compiled template.
#[derive(Debug)]
struct Program(Environment<'static>);

impl Program {
    /// Compiles it.
    fn new(source: String) -> std::result::Result<Program, String> {
        let mut environment = environment();
        let compiled = environment.add_template_owned("chat", source);
        compiled.map_err(|error| error.to_string())?;
        Ok(Program(environment))
    }

    /// The text it makes of some variables.
    fn render(&self, variables: Value) -> std::result::Result<String, String> {
        let template = self.0.get_template("chat");
        let text = template.and_then(|template| template.render(variables));
        match text {
            Ok(text) if text.len() > MAX_TEXT => Err(format!("it writes more than {MAX_TEXT} bytes")),
            Ok(text) => Ok(text),
            Err(error) => Err(reason(&error)),
        }
    }
}

/// Renders for another process: the first request is a template, every other the variables of one rendering.
pub(crate) fn server() -> impl FnMut(&[u8]) -> std::result::Result<serde_json::Value, String> {
    let mut program: Option<Program> = None;
    move |request| match &program {
        None => {
            program = Some(Program::new(parsed(request)?)?);
            Ok(serde_json::Value::Null)
        }
        Some(program) => Ok(program.render(parsed(request)?)?.into()),
    }
}

fn parsed<T: DeserializeOwned>(request: &[u8]) -> std::result::Result<T, String> {
    serde_json::from_slice(request).map_err(|error| error.to_string())
}

/// The whole chain of causes: what a filter or function says of itself is often the last.
fn reason(error: &Error) -> String {
    let mut text = error.to_string();
    let mut cause = std::error::Error::source(error);
    while let Some(error) = cause {
        text += &format!(": {error}");
        cause = error.source();
    }
    text
}

/// Jinja with what `transformers` adds to it.
fn environment() -> Environment<'static> {
    let mut environment = Environment::new();
    environment.set_syntax(
        SyntaxConfig::builder().trim_blocks(true).lstrip_blocks(true).build().expect("the usual delimiters are valid"),
    );
    environment.set_fuel(Some(FUEL));
    environment.set_recursion_limit(MAX_DEPTH);
    environment.set_undefined_behavior(UndefinedBehavior::Lenient);
    environment.set_unknown_method_callback(minijinja_contrib::pycompat::unknown_method_callback);
    environment.add_filter("tojson", json::tojson);
    environment.add_filter(MARKER, |text: String| format!("{}{text}{}", MARKS[0], MARKS[1]));
    // As in Python, texts and tables are iterable, and nothing is not.
    environment
        .add_test("iterable", |value: &Value| value.as_str().is_some() || !value.is_none() && value.try_iter().is_ok());
    environment.add_function("raise_exception", |message: String| -> std::result::Result<(), Error> {
        Err(Error::new(ErrorKind::InvalidOperation, message))
    });
    environment.add_function("strftime_now", |format: String| {
        jiff::fmt::strtime::format(&format, &jiff::ZonedDateTime::now())
            .map_err(|error| Error::new(ErrorKind::InvalidOperation, format!("strftime_now: {error}")))
    });
    environment
}

/// The template with its `{% generation %}` blocks, which Jinja does not know, as blocks of a filter: they trim the space
/// around them alike.
fn mark(source: &str) -> String {
    let mut marked = String::with_capacity(source.len());
    let mut rest = source;
    while let Some(start) = rest.find("{%") {
        let (before, tag) = rest.split_at(start);
        marked += before;
        let end = tag.find("%}").map_or(tag.len(), |end| end + 2);
        let (tag, behind) = tag.split_at(end);
        let word = tag.trim_start_matches("{%").trim_end_matches("%}");
        let word = word.trim_start_matches(['-', '+']).trim_end_matches(['-', '+']).trim();
        match word {
            "generation" => marked += &tag.replace("generation", &format!("filter {MARKER}")),
            "endgeneration" => marked += &tag.replace("endgeneration", "endfilter"),
            _ => marked += tag,
        }
        rest = behind;
    }
    marked + rest
}

/// The text without marks, and where they were.
fn unmark(marked: &str) -> Result<(String, Vec<Range<usize>>)> {
    let mut text = String::with_capacity(marked.len());
    let mut says = Vec::new();
    let mut open = None;
    for letter in marked.chars() {
        match (letter, open) {
            (letter, None) if letter == MARKS[0] => open = Some(text.len()),
            (letter, Some(start)) if letter == MARKS[1] => {
                says.push(start..text.len());
                open = None;
            }
            (letter, _) if MARKS.contains(&letter) => {
                return input("messages", format!("{:?} is no character of a text", letter));
            }
            (letter, _) => text.push(letter),
        }
    }
    Ok((text, says))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn render(source: &str) -> Result<Rendered> {
        let messages = Value::from_iter([context! { role => "user", content => "hé" }]);
        Template::new(source.into(), Path::new("chat_template.jinja"))?.render(messages, false)
    }

    #[test]
    fn generation_blocks_become_spans() {
        let rendered =
            render("a\n  {% generation %}\nb{{ messages[0].content }}\n  {%- endgeneration -%}  \nc").unwrap();
        assert_eq!(rendered.text, "a\nbhéc");
        assert_eq!(rendered.says.unwrap().first(), Some(&(2..6)));
        assert_eq!(render("{{ '{% generation' }}").unwrap().says, None);
        assert!(render("{% generation %}").is_err());
        let forged = render("{% generation %}\u{fdd1}{% endgeneration %}").unwrap_err().to_string();
        assert!(forged.contains("no character"), "{forged}");
    }

    #[test]
    fn json_is_as_python_writes_it() {
        let value = r#"{"b": [1, 2.0, 1e30, 0.00001], "a": "é<\n\x7f", "e": [], "t": true, "n": none}"#;
        for (options, expected) in [
            ("", "{\"b\": [1, 2.0, 1e+30, 1e-05], \"a\": \"é<\\n\x7f\", \"e\": [], \"t\": true, \"n\": null}"),
            (
                "ensure_ascii=true, sort_keys=true, separators=(',', ':')",
                r#"{"a":"\u00e9<\n\u007f","b":[1,2.0,1e+30,1e-05],"e":[],"n":null,"t":true}"#,
            ),
        ] {
            let text = render(&format!("{{{{ {value}|tojson({options}) }}}}")).unwrap().text;
            assert_eq!(text, expected, "{options}");
        }
        let text = render("{{ {'a': [1, {}], 'b': {'c': 2}}|tojson(indent=2) }}").unwrap().text;
        assert_eq!(text, "{\n  \"a\": [\n    1,\n    {}\n  ],\n  \"b\": {\n    \"c\": 2\n  }\n}");
    }

    #[test]
    fn functions_and_tests_of_python_are_there() {
        assert_eq!(render("{{ 'a' is iterable }}{{ 1 is iterable }}").unwrap().text, "TrueFalse");
        assert_eq!(render("{{ messages[0].get('x') is none }}{{ tools }}").unwrap().text, "TrueNone");
        assert_eq!(render("{{ strftime_now('%Y')|length }}").unwrap().text, "4");
        assert!(render("{{ strftime_now('%!') }}").is_err());
        let error = render("{{ raise_exception('no\tgood') }}").unwrap_err().to_string();
        assert!(
            error.contains("chat_template.jinja: the chat template refuses") && error.contains("no\tgood"),
            "{error}"
        );
    }

    #[test]
    fn work_and_memory_are_bounded() {
        let doubling =
            "{% set ns = namespace(x='xx') %}{% for i in range(99) %}{% set ns.x = ns.x ~ ns.x %}{% endfor %}";
        let looping = "{% for i in range(9999) %}{% for j in range(9999) %}{% endfor %}{% endfor %}";
        let deep = "{% macro m() %}{{ m() }}{% endmacro %}{{ m() }}";
        let wide = "{{ 'x' * 99999999999 }}";
        let padded = "{{ [[]]|tojson(indent=999999999) }}";
        let nested = format!("{}1{}", "{{ (".repeat(9000), ")".repeat(9000));
        for hostile in [doubling, looping, deep, wide, padded, &nested] {
            assert!(render(hostile).is_err());
        }
        assert!(render(&" ".repeat(MAX_TEMPLATE + 1)).is_err());
    }
}
