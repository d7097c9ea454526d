//! Hallucination in captions, after CHAIR (Rohrbach et al. 2018): objects mentioned that the image does not show.

use super::caption_tokens::tokens;
use super::coco_objects::COCO;
use super::{Measure, share};
use std::collections::{BTreeMap, BTreeSet};

/// The longest phrase that names an object, in words.
const LONGEST: usize = 3;
/// Words in front of an animal that are no persons then: `baby elephant`.
const AGES: [&str; 3] = ["baby", "adult", "mother"];

/// Words for objects, each with the category it stands for.
#[derive(Debug, Clone)]
pub struct Objects {
    categories: BTreeMap<String, String>,
}

impl Objects {
    /// COCO's 80 categories with plain synonyms, and those of `more` that are not among them, by their names alone.
    pub fn coco<'n>(more: impl IntoIterator<Item = &'n str>) -> Objects {
        let mut categories = BTreeMap::new();
        for line in COCO.lines() {
            let mut words = line.split(',').map(str::trim);
            let category = words.next().unwrap_or_default();
            for word in std::iter::once(category).chain(words) {
                categories.insert(word.to_string(), category.to_string());
            }
        }
        // The colour is commoner than the fruit: only these are the fruit.
        categories.remove("orange");
        categories.insert("oranges".into(), "orange".into());
        let mut objects = Objects { categories };
        for name in more {
            let name = tokens(name).join(" ");
            if name != "orange" && objects.category(&name).is_none() {
                objects.categories.insert(name.clone(), name);
            }
        }
        objects
    }

    /// The category that a word or phrase names, in the singular or plural.
    pub fn category(&self, phrase: &str) -> Option<&str> {
        let known = |phrase: &str| self.categories.get(phrase).map(String::as_str);
        known(phrase).or_else(|| singulars(phrase).iter().find_map(|singular| known(singular)))
    }

    /// The category of an object as a data set names it.
    pub fn canonical(&self, name: &str) -> String {
        let name = tokens(name).join(" ");
        self.category(&name).map_or(name.clone(), String::from)
    }

    /// The categories a caption mentions, in its order and as often as it does; the longest phrase counts.
    pub fn mentions(&self, caption: &str) -> Vec<&str> {
        let words = tokens(caption);
        let (mut found, mut at) = (Vec::new(), 0);
        while at < words.len() {
            let longest = LONGEST.min(words.len() - at);
            let phrase = (1..=longest).rev().find_map(|n| Some((n, self.category(&words[at..at + n].join(" "))?)));
            let qualifies = AGES.contains(&words[at].as_str())
                && words.get(at + 1).and_then(|next| self.category(next)).is_some_and(|next| ANIMALS.contains(&next));
            match phrase {
                Some((n, category)) if !qualifies => {
                    found.push(category);
                    at += n;
                }
                _ => at += 1,
            }
        }
        found
    }
}

/// COCO's animals.
const ANIMALS: [&str; 10] = ["bird", "cat", "dog", "horse", "sheep", "cow", "elephant", "bear", "zebra", "giraffe"];

/// What a phrase in the plural may be in the singular, by the common rules of English; that which is an object decides.
fn singulars(phrase: &str) -> Vec<String> {
    const IRREGULAR: [(&str, &str); 6] = [
        ("people", "person"),
        ("men", "man"),
        ("children", "child"),
        ("mice", "mouse"),
        ("geese", "goose"),
        ("ves", "f"),
    ];
    let changed =
        |(plural, singular): &(&str, &str)| phrase.strip_suffix(plural).map(|stem| format!("{stem}{singular}"));
    let mut found: Vec<String> = IRREGULAR.iter().filter_map(changed).collect();
    found.extend(phrase.strip_suffix('s').map(String::from));
    found.extend(phrase.strip_suffix("ies").map(|stem| format!("{stem}y")));
    found.extend(phrase.strip_suffix("ves").map(|stem| format!("{stem}fe")));
    let hissing = |stem: &&str| ["s", "x", "z", "ch", "sh"].iter().any(|end| stem.ends_with(end));
    found.extend(phrase.strip_suffix("es").filter(hissing).map(String::from));
    found
}

/// What one caption mentions, in numbers.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Mentions {
    /// The caption's cluster.
    pub cluster: usize,
    /// Objects mentioned, as often as they are.
    pub named: usize,
    /// Of these, objects that are not there.
    pub absent: usize,
    /// Objects that are there.
    pub there: usize,
    /// Of these, objects that are mentioned.
    pub seen: usize,
}

impl Mentions {
    /// Of a caption that mentions `named` about an image with the objects `there`.
    pub fn count(cluster: usize, named: &[&str], there: &BTreeSet<String>) -> Mentions {
        Mentions {
            cluster,
            named: named.len(),
            absent: named.iter().filter(|name| !there.contains(**name)).count(),
            there: there.len(),
            seen: there.iter().filter(|object| named.contains(&object.as_str())).count(),
        }
    }
}

/// `chair_i`, the share of mentions that are of objects not there; `chair_s`, the share of captions with such a mention; and
/// `recall`, the share of the objects there that are mentioned, without which silence would be best.
pub fn measures(captions: &[Mentions]) -> Vec<Measure> {
    let of = |name: &str, part: fn(&Mentions) -> (usize, usize)| {
        let row = |caption: &Mentions| {
            let (some, all) = part(caption);
            (caption.cluster, vec![some as f64, all as f64])
        };
        Measure::new(name, share, captions.iter().map(row))
    };
    let is_false = |caption: &Mentions| (caption.cluster, f64::from(u8::from(caption.absent > 0)));
    vec![
        of("chair_i", |caption| (caption.absent, caption.named)),
        Measure::mean("chair_s", captions.iter().map(is_false)),
        of("recall", |caption| (caption.seen, caption.there)),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_longest_phrase_counts_and_plurals_are_known() {
        let objects = Objects::coco([]);
        for (caption, found) in [
            ("Two men and a woman eat hot dogs.", vec!["person", "person", "hot dog"]),
            ("A teddy bear beside a bear", vec!["teddy bear", "bear"]),
            ("a baby elephant with its mother", vec!["elephant", "person"]),
            ("an orange cat eats oranges", vec!["cat", "orange"]),
            ("buses, benches, knives and sofas", vec!["bus", "bench", "knife", "couch"]),
            ("skis, skies, a pair of scissors", vec!["skis", "scissors"]),
            ("the tv remote on a dining table", vec!["tv", "remote", "dining table"]),
            ("a couple of things to see", vec![]),
        ] {
            assert_eq!(objects.mentions(caption), found, "{caption}");
        }
    }

    #[test]
    fn every_category_is_known_by_its_own_name() {
        let objects = Objects::coco([]);
        let names: Vec<&str> = COCO.lines().map(|line| line.split(',').next().unwrap().trim()).collect();
        assert_eq!(names.len(), 80);
        for name in names {
            let mentioned = if name == "orange" { "oranges" } else { name };
            assert_eq!(objects.mentions(mentioned), [name]);
            assert_eq!(objects.canonical(name), name);
        }
        let own = Objects::coco(["Traffic cone", "sofa"]);
        assert_eq!(own.mentions("three traffic cones and a sofa"), ["traffic cone", "couch"]);
    }

    #[test]
    fn hallucinations_count_by_mention_and_by_caption() {
        let there: BTreeSet<String> = ["dog", "car"].map(String::from).into();
        let captions = [(0, vec!["dog", "cat", "cat"]), (1, vec!["dog"]), (2, vec![])];
        let counts = captions.map(|(cluster, named)| Mentions::count(cluster, &named, &there));
        let values: Vec<f64> = measures(&counts).iter().map(Measure::value).collect();
        assert_eq!(values, [0.5, 1.0 / 3.0, 2.0 / 6.0]);
        assert_eq!(measures(&[Mentions::default()])[0].value(), 0.0, "silence says nothing wrong");
    }
}
