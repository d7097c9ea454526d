//! Where a folder keeps its chat template, and which token stands for an image.

use super::Template;
use crate::error::{Result, at};
use crate::hf::{self, Fields};
use crate::tokenizer::{Tokenizer, folder_of};
use serde_json::Value;
use std::path::Path;

/// LLaVA 1.5's layout as its documentation has it, for folders from before templates.
const LLAVA: &str = "\
{% for message in messages %}
{% if message.role == 'user' %}USER: {% endif %}
{% if message.role == 'assistant' %}
ASSISTANT:{% generation %}
{{ ' ' }}{% for part in message.content %}{{ part.text }}{% endfor %}
{{ eos_token }}{% endgeneration %}
{% else %}
{% for part in message.content %}{{ part.text if part.type == 'text' else IMAGE ~ '\\n' }}{% endfor %}
{{ ' ' }}
{%- endif %}
{% endfor %}
{% if add_generation_prompt %}ASSISTANT:{% endif %}
";

/// In front of a template that knows texts only: a message's list of parts, as processors are given them, becomes its text,
/// with IMAGE for every image.
const JOIN_PARTS: &str = "\
{%- set joined = namespace(messages=[]) -%}
{%- for message in messages -%}
{%- if message['content'] is iterable and message['content'] is not string -%}
{%- set words = namespace(text='') -%}
{%- for part in message['content'] -%}
{%- set words.text = words.text ~ (part['text'] if part['type'] == 'text' else IMAGE) -%}
{%- endfor -%}
{%- set joined.messages = joined.messages + [dict(message, content=words.text)] -%}
{%- else -%}
{%- set joined.messages = joined.messages + [message] -%}
{%- endif -%}
{%- endfor -%}
{%- set messages = joined.messages %}
";

/// What a folder says of its conversations.
#[derive(Debug)]
pub(crate) struct Found {
    /// The template.
    pub(crate) template: Option<Template>,
    /// The token that stands for an image, and its id.
    pub(crate) image_token: Option<(String, u32)>,
    /// Whether texts and images go through one processor: it puts the tokenizer's special tokens around what a template
    /// does not start with them.
    pub(crate) processor: bool,
    /// Whether conversations are about images.
    pub(crate) images: bool,
}

/// Reads what a folder says.
///
/// # Errors
/// When a file is malformed, or its template is not Jinja.
pub(crate) fn find(folder: &Path, tokenizer: &Tokenizer) -> Result<Found> {
    let fields = |name: &str| Fields::open_if_there(&hf::file(folder, name)?);
    let words = folder_of(folder)?;
    let (config, tokens) = (fields("config.json")?, Fields::open_if_there(&words.join("tokenizer_config.json"))?);
    let (processor, images) = (fields("processor_config.json")?, fields("preprocessor_config.json")?);
    let image_token = image_token(&config, &tokens, &processor, tokenizer)?;
    let is_llava = config.optional::<String>("model_type")?.as_deref() == Some("llava");
    let template = match (source(&words, &processor, &tokens)?, &image_token) {
        (Some((source, file)), _) => Some(Template::new(source, &words.join(file))?),
        (None, Some((token, _))) if is_llava => Some(llava(folder, token)?),
        (None, _) => None,
    };
    let processor = !processor.is_empty() || images.has("processor_class") || tokens.has("processor_class");
    Ok(Found { template, image_token, processor, images: processor || is_llava })
}

impl Template {
    /// The same, but a message may also be a list of parts, in which `image` stands for an image.
    pub(crate) fn joining_parts(&self, image: &str) -> Result<Template> {
        let join = JOIN_PARTS.replace("IMAGE", &Value::from(image).to_string());
        self.behind(&join)
    }
}

/// LLaVA's documented layout, for the model in a folder, with `image` for every image: as text, for other libraries that read
/// the template have no variable for it.
pub(crate) fn llava(folder: &Path, image: &str) -> Result<Template> {
    let source = LLAVA.replace("IMAGE", &Value::from(image).to_string());
    Template::new(source, &folder.join("chat_template.jinja"))
}

/// The template and its file: a file of its own, else a field of the processor's or the tokenizer's configuration.
fn source(folder: &Path, processor: &Fields, tokens: &Fields) -> Result<Option<(String, &'static str)>> {
    const OWN: &str = "chat_template.jinja";
    let path = folder.join(OWN);
    if path.exists() {
        let bytes = crate::files::read_up_to(&path, super::MAX_TEMPLATE as u64)?;
        return Ok(Some((String::from_utf8(bytes).map_err(at(&path))?, OWN)));
    }
    const JSON: &str = "chat_template.json";
    let json = Fields::open_if_there(&folder.join(JSON))?;
    for (fields, name) in [(&json, JSON), (processor, "processor_config.json"), (tokens, "tokenizer_config.json")] {
        if let Some(source) = field(fields)? {
            return Ok(Some((source, name)));
        }
    }
    Ok(None)
}

/// `chat_template`: one, or several with names, of which "default" is taken.
fn field(fields: &Fields) -> Result<Option<String>> {
    const FIELD: &str = "chat_template";
    let named = |list: &[Value]| {
        let default = list.iter().find(|entry| entry["name"] == "default")?;
        Some(default["template"].as_str()?.to_string())
    };
    match fields.optional::<Value>(FIELD)? {
        None => Ok(None),
        Some(Value::String(source)) => Ok(Some(source)),
        Some(Value::Array(list)) => match named(&list) {
            Some(source) => Ok(Some(source)),
            None => fields.bad(FIELD, "a list without {\"name\": \"default\", \"template\": text}"),
        },
        Some(Value::Object(table)) => match table.get("default").and_then(Value::as_str) {
            Some(source) => Ok(Some(source.to_string())),
            None => fields.bad(FIELD, "a table without a text `default`"),
        },
        Some(_) => fields.bad(FIELD, "expected a text, or a list of {\"name\": text, \"template\": text}"),
    }
}

/// The token that configurations name, else the one whose id the model's has, else `<image>` where the vocabulary has it.
fn image_token(
    config: &Fields,
    tokens: &Fields,
    processor: &Fields,
    tokenizer: &Tokenizer,
) -> Result<Option<(String, u32)>> {
    const FIELD: &str = "image_token";
    let text = |value: &Value| value.as_str().or(value["content"].as_str()).map(String::from);
    // A list there names no part of a token.
    let extra = |field: &str| -> Result<Option<Value>> {
        let extra = tokens.optional::<Value>(field)?;
        Ok(extra.and_then(|extra| extra.get(FIELD).cloned()))
    };
    let named = [
        processor.optional::<Value>(FIELD)?,
        tokens.optional(FIELD)?,
        extra("extra_special_tokens")?,
        extra("model_specific_special_tokens")?,
    ];
    if let Some(token) = named.iter().flatten().find_map(text) {
        return match tokenizer.id(&token) {
            Some(id) => Ok(Some((token, id))),
            None => tokens.bad(FIELD, format!("`{token}` is not in tokenizer.json")),
        };
    }
    let id = match config.optional::<u32>("image_token_id")? {
        None => config.optional("image_token_index")?,
        id => id,
    };
    if let Some(id) = id {
        return match tokenizer.token(id) {
            Some(token) => Ok(Some((token, id))),
            None => config.bad("image_token_index", format!("{id} is no id of tokenizer.json")),
        };
    }
    Ok(tokenizer.id("<image>").map(|id| ("<image>".into(), id)))
}
