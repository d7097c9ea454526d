//! Short free answers, compared as the VQA challenge's server does (Antol et al. 2015).
//!
//! Case, articles, punctuation, missing apostrophes and number words do not count. The challenge's offline script compares
//! raw texts where all people gave the same answer; this is the server's way, which also LLaVA and its successors follow.

use std::collections::HashMap;

/// Marks that are dropped beside a space, and become one elsewhere.
const PUNCTUATION: &str = ";/[]\"{}()=+\\_-><@`,?!";
/// Numbers as the server writes them.
const NUMBERS: [&str; 11] = ["zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten"];
/// Words that get their apostrophe back where it was left out. Those that are words without it (`wed`, `shed`) are not
/// among them.
const CONTRACTIONS: &str = "ain't aren't can't could've couldn't didn't doesn't don't hadn't hasn't haven't he'd he's \
    how'd how'll how's isn't it'd it'll ma'am mightn't might've mustn't must've needn't not've o'clock oughtn't shan't \
    should've shouldn't somebody'll somebody's someone'd someone'll someone's something'd something'll that's there'd \
    there're there's they'd they'll they're they've 'twas wasn't we've weren't what'll what're what's what've when's \
    where'd where's where've who'd who'll who's who've why'll why're why's won't would've wouldn't y'all you'd you'll \
    you're you've";
/// The same with two apostrophes, of which one was left out.
const DOUBLE: &str = "couldn't've hadn't've he'd've it'd've mightn't've she'd've shouldn't've somebody'd've someone'd've \
    something'd've there'd've they'd've we'd've who'd've wouldn't've y'all'll y'all'd've you'd've";

/// An answer as it is compared. One of which nothing would be left, such as `A`, keeps its own letters.
///
/// ```
/// use lenslet::eval::metrics::vqa::normalised;
/// assert_eq!(normalised("The two dogs, isnt it?"), "2 dogs isn't it");
/// assert_eq!(normalised("A"), "a");
/// ```
pub fn normalised(answer: &str) -> String {
    let plain = plain(answer);
    match plain.is_empty() {
        true => answer.trim().to_lowercase(),
        false => plain,
    }
}

fn plain(answer: &str) -> String {
    let answer = answer.to_lowercase().replace([',', '?'], "").replace("'s", " 's");
    let answer = answer.replace(['\n', '\t'], " ");
    let plain = without_points(&without_punctuation(answer.trim()));
    let words = plain.split_whitespace().map(|word| match NUMBERS.iter().position(|number| *number == word) {
        Some(number) => number.to_string(),
        None if word == "none" => "0".into(),
        None => word.into(),
    });
    let words = words.filter(|word| !matches!(word.as_str(), "a" | "an" | "the"));
    words.map(|word| contraction(&word).unwrap_or(word)).collect::<Vec<_>>().join(" ")
}

fn without_punctuation(answer: &str) -> String {
    let mut plain = answer.to_string();
    for mark in PUNCTUATION.chars() {
        let beside_space = answer.contains(&format!("{mark} ")) || answer.contains(&format!(" {mark}"));
        plain = plain.replace(mark, if beside_space { "" } else { " " });
    }
    plain
}

/// Without points that no digit follows.
fn without_points(text: &str) -> String {
    let mut plain = String::with_capacity(text.len());
    let mut rest = text.chars().peekable();
    while let Some(c) = rest.next() {
        if c != '.' || rest.peek().is_some_and(char::is_ascii_digit) {
            plain.push(c);
        }
    }
    plain
}

fn contraction(word: &str) -> Option<String> {
    if word == "somebody'd" {
        // So the server's list has it.
        return Some("somebodyd".into());
    }
    let bare = word.replace('\'', "");
    let list = if bare.len() == word.len() { CONTRACTIONS } else { DOUBLE };
    let whole = list.split_whitespace().find(|whole| whole.replace('\'', "") == bare);
    whole.map(String::from)
}

/// The challenge's accuracy: min(1, people who said so / 3), averaged over the sets that leave one of the people out.
pub fn accuracy(answer: &str, people: &[String]) -> f64 {
    let answer = normalised(answer);
    if answer.is_empty() {
        return 0.0;
    }
    let same = people.iter().filter(|said| normalised(said) == answer).count();
    let of = |agreeing: usize| (agreeing as f64 / 3.0).min(1.0);
    let others = (people.len() - same) as f64 * of(same);
    let own = if same > 0 { same as f64 * of(same - 1) } else { 0.0 };
    (others + own) / people.len().max(1) as f64
}

/// The answer given most often, as it is compared; of several given as often, all.
pub fn right(people: &[String]) -> Vec<String> {
    let mut counts = HashMap::<String, usize>::new();
    for said in people {
        *counts.entry(normalised(said)).or_default() += 1;
    }
    let most = counts.values().copied().max();
    let mut right: Vec<String> = counts.into_iter().filter(|(_, n)| Some(*n) == most).map(|(said, _)| said).collect();
    right.sort();
    right
}

/// Whether the answer is one of those given most often. Nothing is no answer.
pub fn exact(answer: &str, people: &[String]) -> bool {
    let said = normalised(answer);
    !said.is_empty() && right(people).contains(&said)
}
