//! What captions are judged by: their length, how dense they are, and how much of them another one says.

use std::collections::{BTreeSet, HashMap};

/// English words that carry grammar rather than content.
const FUNCTION_WORDS: &str = "a about above after again all also am an and any are as at be because been before being below \
    between both but by can could did do does doing down each either for from further had has have having he her here hers \
    him his how i if in into is it its itself just may me might more most must my no nor not of off on once only or other \
    our out over own same shall she should so some such than that the their them then there these they this those through \
    to too under until up upon us very was we were what when where which while who whom why will with would you your";
/// Numbers a set of words is summed up in, in groups that are compared as a whole: (groups, numbers in each). With many
/// numbers in a group unlike sets rarely meet, with few slightly alike ones hardly ever miss each other.
const STRICT: (usize, usize) = (16, 4);
const LOOSE: (usize, usize) = (32, 2);
/// From this overlap on the strict groups miss fewer than one pair in fifty.
const STRICT_FROM: f64 = 0.7;
/// Captions of one group that a caption is compared with.
const COMPARED: usize = 256;

/// A text's words in lower case, without what is no letter or digit.
pub(super) fn words(text: &str) -> Vec<String> {
    let words = text.split(|c: char| !c.is_alphanumeric() && c != '\'');
    words.filter(|word| !word.is_empty()).map(str::to_lowercase).collect()
}

/// The share of words that carry content and were not said before: low where a text is filler, or repeats itself.
pub(super) fn density(words: &[String]) -> f64 {
    let content: BTreeSet<&str> = words.iter().map(String::as_str).filter(|word| !is_function_word(word)).collect();
    content.len() as f64 / words.len().max(1) as f64
}

fn is_function_word(word: &str) -> bool {
    FUNCTION_WORDS.split_whitespace().any(|known| known == word)
}

/// The words two texts share, of all that either has (Jaccard's index); 1 of two texts without words.
fn overlap(a: &BTreeSet<u64>, b: &BTreeSet<u64>) -> f64 {
    let shared = a.intersection(b).count();
    let all = a.len() + b.len() - shared;
    if all == 0 { 1.0 } else { shared as f64 / all as f64 }
}

/// For each text the first one before it that it shares at least `least` of its words with and that is kept itself.
///
/// Candidates are found by MinHash (Broder 1997): sets that overlap by the share J have the same least hash with that
/// chance.
pub(super) fn twins(texts: &[Vec<String>], least: f64) -> Vec<Option<usize>> {
    let (groups, size) = if least >= STRICT_FROM { STRICT } else { LOOSE };
    let sets: Vec<BTreeSet<u64>> = texts.iter().map(|words| words.iter().map(|word| hash(word)).collect()).collect();
    let mut buckets: HashMap<(usize, u64), Vec<usize>> = HashMap::new();
    let mut twins = Vec::with_capacity(sets.len());
    for (number, set) in sets.iter().enumerate() {
        let places: Vec<(usize, u64)> =
            (0..groups).map(|group| (group, least_hashes(set, group * size, size))).collect();
        let near = places.iter().filter_map(|place| buckets.get(place)).flatten();
        let twin = near.filter(|&&other| overlap(&sets[other], set) >= least).min().copied();
        twins.push(twin);
        if twin.is_none() {
            for place in places {
                let bucket = buckets.entry(place).or_default();
                if bucket.len() < COMPARED {
                    bucket.push(number);
                }
            }
        }
    }
    twins
}

/// The least hashes of a set under `count` hash functions from number `first` on, in one.
fn least_hashes(set: &BTreeSet<u64>, first: usize, count: usize) -> u64 {
    (first..first + count).fold(0, |all, function| {
        let least = set.iter().map(|word| mixed(word ^ mixed(function as u64 + 1))).min();
        mixed(all ^ least.unwrap_or(0))
    })
}

/// FNV-1a.
fn hash(word: &str) -> u64 {
    let step = |hash: u64, byte: u8| (hash ^ u64::from(byte)).wrapping_mul(0x100_0000_01b3);
    word.bytes().fold(0xcbf2_9ce4_8422_2325, step)
}

/// The finaliser of SplitMix64 (Steele et al. 2014): every bit of the input moves every bit of the result.
fn mixed(mut x: u64) -> u64 {
    x = (x ^ x >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    x = (x ^ x >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
    x ^ x >> 31
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_are_plain_and_density_counts_new_content() {
        assert_eq!(words("A dog's RED ball, über-fast!"), ["a", "dog's", "red", "ball", "über", "fast"]);
        let dense = |text: &str| density(&words(text));
        assert_eq!(dense("a red ball on the grass"), 0.5);
        assert_eq!(dense("red red red red"), 0.25);
        assert_eq!(dense(""), 0.0);
        assert_eq!(dense("this is what it is"), 0.0);
    }

    #[test]
    fn texts_of_the_same_words_are_twins() {
        let texts = [
            "a family sits at a table with a cake",
            "three birds walk on dry grass",
            "A family sits at a table, with cake!",
            "a family sits at the long table with a chocolate cake",
            "Three birds walk on dry grass.",
        ];
        let texts: Vec<Vec<String>> = texts.iter().map(|text| words(text)).collect();
        assert_eq!(twins(&texts, 0.9), [None, None, Some(0), None, Some(1)]);
        assert_eq!(twins(&texts, 0.6), [None, None, Some(0), Some(0), Some(1)]);
        assert_eq!(twins(&[Vec::new(), Vec::new()], 1.0), [None, Some(0)]);
    }

    #[test]
    fn hardly_any_pair_is_missed() {
        // Texts of 20 words in pairs that share 18 of 22 (0.82).
        let word = |n: usize| format!("w{n}");
        let texts: Vec<Vec<String>> = (0..200)
            .map(|i| {
                let (pair, second) = (i / 2, i % 2);
                (0..18)
                    .map(|n| word(100 * pair + n))
                    .chain((0..2).map(|n| word(100 * pair + 50 + 2 * second + n)))
                    .collect()
            })
            .collect();
        let found = twins(&texts, 0.8);
        let right = (0..100).filter(|pair| found[2 * pair + 1] == Some(2 * pair)).count();
        assert!(right >= 98, "{right} of 100");
        assert!((0..100).all(|pair| found[2 * pair].is_none()));
    }
}
