//! The `tojson` filter of chat templates: what Python's `json.dumps` writes, for models were trained on that.

use minijinja::value::{Kwargs, Value};
use minijinja::{Error, ErrorKind};
use serde::Serialize;
use serde_json::ser::{CharEscape, Formatter, Serializer};
use std::io::{Result as Written, Write};

/// `value|tojson(indent, separators, ensure_ascii, sort_keys)`.
pub(super) fn tojson(value: &Value, options: Kwargs) -> Result<String, Error> {
    let indent: Option<usize> = options.get("indent")?;
    let separators: Option<(String, String)> = options.get::<Option<Value>>("separators")?.map(pair).transpose()?;
    let sorted = options.get::<Option<bool>>("sort_keys")?.unwrap_or(false);
    let ascii = options.get::<Option<bool>>("ensure_ascii")?.unwrap_or(false);
    options.assert_all_used()?;
    if indent.is_some_and(|indent| indent > 64) {
        return Err(Error::new(ErrorKind::InvalidOperation, "tojson: indent is more than 64"));
    }
    let item = if indent.is_some() { "," } else { ", " };
    let (item, key) = separators.unwrap_or((item.into(), ": ".into()));
    let style = Python { item, key, indent, ascii, depth: 0, filled: false };
    let mut out = Serializer::with_formatter(Vec::new(), style);
    let written = if sorted {
        // This map keeps its keys in order.
        serde_json::to_value(value).and_then(|value| value.serialize(&mut out))
    } else {
        value.serialize(&mut out)
    };
    written.map_err(|error| Error::new(ErrorKind::BadSerialization, error.to_string()))?;
    Ok(String::from_utf8_lossy(&out.into_inner()).into_owned())
}

fn pair(value: Value) -> Result<(String, String), Error> {
    let parts: Vec<String> = value.try_iter()?.map(|part| part.to_string()).collect();
    <[String; 2]>::try_from(parts)
        .map(|[item, key]| (item, key))
        .map_err(|_| Error::new(ErrorKind::InvalidOperation, "tojson: separators are two texts"))
}

/// How Python lays JSON out.
struct Python {
    /// Between items.
    item: String,
    /// Between a key and its value.
    key: String,
    /// Spaces per level, each item on a line of its own.
    indent: Option<usize>,
    /// Other letters than ASCII's as escapes.
    ascii: bool,
    depth: usize,
    /// Whether the list or table just closed holds something.
    filled: bool,
}

impl Python {
    fn line<W: ?Sized + Write>(&self, to: &mut W) -> Written<()> {
        match self.indent {
            Some(indent) => write!(to, "\n{:1$}", "", indent * self.depth),
            None => Ok(()),
        }
    }

    fn open<W: ?Sized + Write>(&mut self, to: &mut W, bracket: &[u8]) -> Written<()> {
        self.depth += 1;
        self.filled = false;
        to.write_all(bracket)
    }

    fn close<W: ?Sized + Write>(&mut self, to: &mut W, bracket: &[u8]) -> Written<()> {
        self.depth -= 1;
        if self.filled {
            self.line(to)?;
        }
        self.filled = true;
        to.write_all(bracket)
    }

    fn separate<W: ?Sized + Write>(&mut self, to: &mut W, first: bool) -> Written<()> {
        if !first {
            to.write_all(self.item.as_bytes())?;
        }
        self.line(to)
    }
}

impl Formatter for Python {
    fn begin_array<W: ?Sized + Write>(&mut self, to: &mut W) -> Written<()> {
        self.open(to, b"[")
    }

    fn end_array<W: ?Sized + Write>(&mut self, to: &mut W) -> Written<()> {
        self.close(to, b"]")
    }

    fn begin_array_value<W: ?Sized + Write>(&mut self, to: &mut W, first: bool) -> Written<()> {
        self.separate(to, first)
    }

    fn end_array_value<W: ?Sized + Write>(&mut self, _: &mut W) -> Written<()> {
        self.filled = true;
        Ok(())
    }

    fn begin_object<W: ?Sized + Write>(&mut self, to: &mut W) -> Written<()> {
        self.open(to, b"{")
    }

    fn end_object<W: ?Sized + Write>(&mut self, to: &mut W) -> Written<()> {
        self.close(to, b"}")
    }

    fn begin_object_key<W: ?Sized + Write>(&mut self, to: &mut W, first: bool) -> Written<()> {
        self.separate(to, first)
    }

    fn begin_object_value<W: ?Sized + Write>(&mut self, to: &mut W) -> Written<()> {
        to.write_all(self.key.as_bytes())
    }

    fn end_object_value<W: ?Sized + Write>(&mut self, _: &mut W) -> Written<()> {
        self.filled = true;
        Ok(())
    }

    /// The exponent has a sign and two digits.
    fn write_f64<W: ?Sized + Write>(&mut self, to: &mut W, value: f64) -> Written<()> {
        let text = format!("{value:?}");
        match text.split_once('e') {
            Some((digits, exponent)) => {
                let (sign, exponent) = exponent.strip_prefix('-').map_or(("+", exponent), |rest| ("-", rest));
                write!(to, "{digits}e{sign}{exponent:0>2}")
            }
            None => to.write_all(text.as_bytes()),
        }
    }

    fn write_string_fragment<W: ?Sized + Write>(&mut self, to: &mut W, fragment: &str) -> Written<()> {
        if !self.ascii {
            return to.write_all(fragment.as_bytes());
        }
        for letter in fragment.chars() {
            match letter {
                ' '..='~' => write!(to, "{letter}")?,
                _ => {
                    for unit in letter.encode_utf16(&mut [0; 2]) {
                        write!(to, "\\u{unit:04x}")?;
                    }
                }
            }
        }
        Ok(())
    }

    fn write_char_escape<W: ?Sized + Write>(&mut self, to: &mut W, escape: CharEscape) -> Written<()> {
        match escape {
            // Python leaves it as it is.
            CharEscape::Solidus => to.write_all(b"/"),
            other => serde_json::ser::CompactFormatter.write_char_escape(to, other),
        }
    }
}
