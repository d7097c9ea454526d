//! The pages' commands: each is one that the command line takes, and names scripts and recipes that are there.

use clap::Parser;
use lenslet::cli::Cli;
use lenslet::recipe::Recipe;
use std::fs;
use std::path::{Path, PathBuf};

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

/// Each page with its text.
fn pages() -> Vec<(PathBuf, String)> {
    let docs = fs::read_dir(root().join("docs")).unwrap().map(|entry| entry.unwrap().path());
    let all = docs.chain(["README.md", "benches/README.md"].map(|page| root().join(page)));
    all.filter(|page| page.extension().is_some_and(|ending| ending == "md"))
        .map(|page| (page.clone(), fs::read_to_string(page).unwrap()))
        .collect()
}

/// The contents of a page's blocks in a language.
fn blocks<'p>(page: &'p str, language: &str) -> Vec<&'p str> {
    let fenced = page.split("```").skip(1).step_by(2);
    fenced.filter_map(|block| block.strip_prefix(language)?.strip_prefix('\n')).collect()
}

/// The words of a command without its comment, where quotes keep spaces together.
fn words(line: &str) -> Vec<String> {
    let (mut words, mut word, mut quote) = (Vec::new(), String::new(), None);
    for c in line.chars() {
        match (quote, c) {
            (Some(q), _) if c == q => quote = None,
            (None, '"' | '\'') => quote = Some(c),
            (None, ' ') => {
                if !word.is_empty() {
                    words.push(std::mem::take(&mut word));
                }
            }
            (None, '#') if word.is_empty() => break,
            _ => word.push(c),
        }
    }
    words.extend((!word.is_empty()).then_some(word));
    words
}

#[test]
fn every_command_is_one_that_is_taken() {
    let mut checked = 0;
    for (page, text) in pages() {
        for line in blocks(&text, "sh").join("\n").replace("\\\n", " ").lines() {
            let words = words(line);
            let words: Vec<&str> = words.iter().map(String::as_str).skip_while(|word| word.contains('=')).collect();
            let ours = match &words[..] {
                ["lenslet", rest @ ..] => rest,
                ["cargo", "run", rest @ ..] => {
                    let start = rest.iter().position(|word| *word == "--").expect("arguments behind --");
                    &rest[start + 1..]
                }
                ["python3", script, ..] => {
                    assert!(root().join(script).exists(), "{}: {line}: no such script", page.display());
                    continue;
                }
                _ => continue,
            };
            let parsed = Cli::try_parse_from(["lenslet"].iter().chain(ours));
            assert!(parsed.is_ok(), "{}: {line}: {}", page.display(), parsed.err().unwrap());
            let recipes = ours.iter().filter(|word| word.starts_with("recipes/"));
            recipes
                .for_each(|recipe| assert!(root().join(recipe).exists(), "{}: {line}: no such recipe", page.display()));
            checked += 1;
        }
    }
    assert!(checked > 25, "{checked} commands");
}

#[test]
fn the_recipe_of_the_readme_is_whole() {
    let text = fs::read_to_string(root().join("README.md")).unwrap();
    let recipe = blocks(&text, "toml")[0];
    Recipe::parse(recipe, Path::new("mine.toml"), &[]).unwrap();
}
