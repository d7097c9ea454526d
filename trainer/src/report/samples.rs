//! `samples.md`: pictures, questions and answers, to be looked at.

/// One question with what the model said.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Shown {
    /// The picture, relative to the markdown file.
    pub image: String,
    /// Where the model looked, relative to the markdown file.
    pub attention: Option<String>,
    /// What was asked.
    pub question: String,
    /// What the data say, if anything.
    pub expected: Option<String>,
    /// What the model said.
    pub answer: String,
}

/// A markdown page with one section per sample.
pub fn markdown(title: &str, samples: &[Shown]) -> String {
    let mut page = format!("# {}\n", escape(title));
    for (index, sample) in samples.iter().enumerate() {
        page += &format!("\n## {}. {}\n\n", index + 1, escape(&sample.question));
        page += &match &sample.attention {
            Some(attention) => format!("![picture and where the model looked]({})\n\n", link(attention)),
            None => format!("![picture]({})\n\n", link(&sample.image)),
        };
        page += &format!("- answer: **{}**\n", escape(&sample.answer));
        if let Some(expected) = &sample.expected {
            let mark = if *expected == sample.answer {
                "the same"
            } else {
                "different"
            };
            page += &format!("- expected: {} ({mark})\n", escape(expected));
        }
    }
    page
}

/// Text that markdown and HTML show as it is, on one line.
fn escape(text: &str) -> String {
    let mut plain = String::with_capacity(text.len());
    for c in text.trim().chars() {
        match c {
            '\\' | '`' | '*' | '_' | '[' | ']' | '<' | '>' | '&' | '#' | '|' | '~' | '!' => plain.extend(['\\', c]),
            c if c.is_control() => plain.push(' '),
            c => plain.push(c),
        }
    }
    if plain.is_empty() { "(nothing)".into() } else { plain }
}

/// A relative path as a link's target.
fn link(path: &str) -> String {
    path.replace('%', "%25")
        .replace(' ', "%20")
        .replace('(', "%28")
        .replace(')', "%29")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_sample_shows_picture_question_answer_and_expectation() {
        let sample = Shown {
            image: "images/0 (a).png".into(),
            attention: None,
            question: "is *it* <red> ?".into(),
            expected: Some("yes".into()),
            answer: "no\n".into(),
        };
        let with_attention = Shown {
            attention: Some("attention/0.png".into()),
            expected: None,
            answer: " ".into(),
            ..sample.clone()
        };
        let expected = "\
# flags

## 1. is \\*it\\* \\<red\\> ?

![picture](images/0%20%28a%29.png)

- answer: **no**
- expected: yes (different)

## 2. is \\*it\\* \\<red\\> ?

![picture and where the model looked](attention/0.png)

- answer: **(nothing)**
";
        assert_eq!(markdown("flags", &[sample, with_attention]), expected);
    }
}
