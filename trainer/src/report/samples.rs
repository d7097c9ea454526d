//! `samples.json` and `samples.md`: pictures, questions and answers, to be looked at.

use serde::{Deserialize, Serialize};

/// What the model said at one time.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Utterance {
    /// `before training`, `halfway` or `after training`.
    pub when: String,
    pub answer: String,
    /// Whether it is right: what was expected, or any description that is true.
    pub right: bool,
}

/// One question with what the model said.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Shown {
    /// The picture, relative to the run's folder.
    pub image: String,
    /// Where the model looked, relative to the run's folder.
    pub attention: Option<String>,
    /// What the model read before: the system's text, and earlier questions with their answers.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub before: Vec<String>,
    /// What was asked.
    pub question: String,
    /// What the data say, if anything.
    pub expected: Option<String>,
    /// The answers in the order of training.
    pub said: Vec<Utterance>,
}

impl Shown {
    /// Takes an answer in, in place of one from the same time.
    pub fn add(&mut self, said: Utterance) {
        self.said.retain(|other| other.when != said.when);
        self.said.push(said);
    }
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
        for before in &sample.before {
            page += &format!("- before: {}\n", escape(before));
        }
        for said in &sample.said {
            let mark = if said.right { "right" } else { "wrong" };
            page += &format!("- {}: **{}** ({mark})\n", escape(&said.when), escape(&said.answer));
        }
        if let Some(expected) = &sample.expected {
            page += &format!("- expected: {}\n", escape(expected));
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
    path.replace('%', "%25").replace(' ', "%20").replace('(', "%28").replace(')', "%29")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_sample_shows_picture_question_answer_and_expectation() {
        let said = |when: &str, answer: &str, right| Utterance { when: when.into(), answer: answer.into(), right };
        let mut sample = Shown {
            image: "images/0 (a).png".into(),
            attention: None,
            before: Vec::new(),
            question: "is *it* <red> ?".into(),
            expected: Some("yes".into()),
            said: vec![said("before training", "yes", true), said("halfway", "no", false)],
        };
        sample.add(said("halfway", "no\n", false));
        let with_attention = Shown {
            attention: Some("attention/0.png".into()),
            expected: None,
            before: vec!["system: *short*".into()],
            said: vec![said("halfway", " ", false)],
            ..sample.clone()
        };
        let expected = "\
# flags

## 1. is \\*it\\* \\<red\\> ?

![picture](images/0%20%28a%29.png)

- before training: **yes** (right)
- halfway: **no** (wrong)
- expected: yes

## 2. is \\*it\\* \\<red\\> ?

![picture and where the model looked](attention/0.png)

- before: system: \\*short\\*
- halfway: **(nothing)** (wrong)
";
        assert_eq!(markdown("flags", &[sample, with_attention]), expected);
    }
}
