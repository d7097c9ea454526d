//! Captions as words: a plain equivalent of the Penn Treebank tokenizer that `pycocoevalcap` runs in Java.
//!
//! Lower case; punctuation drops out, but brackets stay as the Treebank's `-lrb-` and `-rrb-`; `n't`, `'s`, `'re`, `'ve`,
//! `'ll`, `'d` and `'m` are words of their own; hyphens, figures with points or commas in them and abbreviations such as
//! `a.m.` stay whole. The fixture compares both on captions of every kind; the Treebank's rarer rules (fractions, addresses,
//! emoticons) are left out.

/// What a word may end with that is a word of its own.
const CLITICS: [&str; 7] = ["n't", "'s", "'re", "'ve", "'ll", "'d", "'m"];

/// The words of a caption.
///
/// ```
/// use lenslet::eval::metrics::caption_tokens::tokens;
/// let words = tokens("A man's T-shirt, isn't it \"red\"?");
/// assert_eq!(words, ["a", "man", "'s", "t-shirt", "is", "n't", "it", "red"]);
/// ```
pub fn tokens(caption: &str) -> Vec<String> {
    let text = caption.to_lowercase().replace(['\u{2019}', '\u{2018}'], "'").replace('\u{2026}', " ");
    let mut words = Vec::new();
    for chunk in text.split_whitespace() {
        for piece in chunk.split_inclusive(parts_words) {
            let mark = piece.chars().next_back().filter(|c| parts_words(*c));
            push_piece(piece.trim_end_matches(parts_words), &mut words);
            words.extend(mark.and_then(bracket).map(String::from));
        }
    }
    words
}

/// Marks that part words wherever they stand.
fn parts_words(c: char) -> bool {
    matches!(c, '"' | ';' | '?' | '!' | '`' | '\u{201c}' | '\u{201d}') || bracket(c).is_some()
}

/// A bracket as the Treebank writes it.
fn bracket(c: char) -> Option<&'static str> {
    Some(match c {
        '(' => "-lrb-",
        ')' => "-rrb-",
        '[' => "-lsb-",
        ']' => "-rsb-",
        '{' => "-lcb-",
        '}' => "-rcb-",
        _ => return None,
    })
}

/// Words between spaces and marks, which may still be joined by a comma, a colon or a dash.
fn push_piece(piece: &str, words: &mut Vec<String>) {
    let bytes = piece.as_bytes();
    let is_digit = |at: Option<usize>| at.and_then(|at| bytes.get(at)).is_some_and(u8::is_ascii_digit);
    let mut start = 0;
    for (at, byte) in bytes.iter().enumerate() {
        let in_figure = is_digit(at.checked_sub(1)) && is_digit(Some(at + 1));
        let cuts = match byte {
            b',' | b':' => !in_figure,
            b'-' => bytes.get(at + 1) == Some(&b'-') || at > 0 && bytes[at - 1] == b'-',
            _ => false,
        };
        if cuts {
            push_word(&piece[start..at], words);
            start = at + 1;
        }
    }
    push_word(&piece[start..], words);
}

/// A word without the points, quotes and hyphens around it, and its clitic as a word of its own.
fn push_word(word: &str, words: &mut Vec<String>) {
    // The apostrophe of `'s` by itself, or of `'em`, is a part of it.
    let word = word.trim_matches('-').trim_start_matches('.');
    let word = if CLITICS.contains(&word) { word } else { word.trim_matches('\'') };
    let word = if is_abbreviation(word) { word } else { word.trim_end_matches(['.', '\'', '-']) };
    let clitic = CLITICS.iter().find(|clitic| word.len() > clitic.len() && word.ends_with(**clitic));
    match (word, clitic) {
        ("", _) => {}
        ("cannot", _) => words.extend(["can".into(), "not".into()]),
        (_, Some(clitic)) => words.extend([word[..word.len() - clitic.len()].into(), clitic.to_string()]),
        _ => words.push(word.into()),
    }
}

/// Single letters with a point behind each, as in `a.m.` and `u.s.`, and titles.
fn is_abbreviation(word: &str) -> bool {
    if matches!(word, "st." | "mr." | "mrs." | "ms." | "dr." | "jr.") {
        return true;
    }
    let letters: Vec<&str> = word.split_terminator('.').collect();
    word.ends_with('.') && letters.len() > 1 && letters.iter().all(|part| part.len() == 1)
}
