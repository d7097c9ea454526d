//! The similarity of images and captions, each with each.

use super::picture::picture;
use super::read::Files;
use super::{absent, escape};
use crate::similarity::Similarity;

/// Side of a thumbnail at the most, in pixels.
const THUMBNAIL: u32 = 96;

pub(super) fn section(run: &Files) -> String {
    let Some(found) = &run.similarity else {
        return absent(
            "Images and captions were not compared: the run is not over, or has no Q-Former that phase 1 trains.",
        );
    };
    let thumbnail = |i: usize| picture(&run.folder, &found.images[i], &format!("image {}", i + 1), THUMBNAIL);
    let n = found.images.len();
    let thumbnails: Vec<String> = (0..n).map(thumbnail).collect();
    let heads = thumbnails.iter().enumerate().map(|(i, image)| {
        format!(
            "<th scope=\"col\" title=\"{}\">{image}<span class=\"unseen\">caption {}</span></th>",
            escape(&found.captions[i]),
            i + 1
        )
    });
    let rows = thumbnails
        .iter()
        .enumerate()
        .map(|(i, image)| format!("<tr><th scope=\"row\">{image}</th>{}</tr>\n", cells(found, i)));
    let captions = thumbnails.iter().zip(&found.captions);
    let captions =
        captions.map(|(image, caption)| format!("<li>{image}<span>{}</span></li>\n", escape(&shorten(caption))));
    format!(
        "<p>{}</p>\n<figure>\n<div class=\"wide\" tabindex=\"0\">\n<table class=\"matrix\">\n\
         <thead><tr><th scope=\"col\"><span class=\"unseen\">image</span></th>{}</tr></thead>\n<tbody>\n{}</tbody>\n</table>\n</div>\n\
         <figcaption>Scores of held-out images (rows) and captions (columns, under the images they were written of): the \
         stronger the colour, the more alike. Each image's own caption has a frame; a dot marks the caption that it is most like.</figcaption>\n</figure>\n\
         <details>\n<summary>The captions</summary>\n<ol class=\"captions\">\n{}</ol>\n</details>\n",
        found_own(found),
        heads.collect::<String>(),
        rows.collect::<String>(),
        captions.collect::<String>()
    )
}

/// How many images score their own caption highest.
fn found_own(found: &Similarity) -> String {
    let n = found.images.len();
    let right = (0..n).filter(|&i| best(&found.scores[i]) == Some(i)).count();
    format!("{right} of {n} images find their own caption first; guessing finds one.")
}

fn best(row: &[f32]) -> Option<usize> {
    let scores = row.iter().enumerate().filter(|(_, score)| score.is_finite());
    scores.max_by(|a, b| a.1.total_cmp(b.1)).map(|(place, _)| place)
}

fn cells(found: &Similarity, i: usize) -> String {
    let all = found.scores.iter().flatten().filter(|score| score.is_finite());
    let (low, high) = all.fold((f32::MAX, f32::MIN), |(low, high), x| (low.min(*x), high.max(*x)));
    let best = best(&found.scores[i]);
    let cell = |(j, score): (usize, &f32)| {
        let share = ((score - low) / (high - low).max(1e-6)).clamp(0.0, 1.0);
        let share = if share.is_finite() { (100.0 * share).round() } else { 0.0 };
        let class = if i == j { " class=\"own\"" } else { "" };
        let dot = if best == Some(j) { "<i></i>" } else { "" };
        let title = format!("image {}, caption {}: {score:.2}", i + 1, j + 1);
        format!(
            "<td{class} style=\"--v:{share}%\" title=\"{title}\">{dot}<span class=\"unseen\">{score:.2}</span></td>"
        )
    };
    found.scores[i].iter().enumerate().map(cell).collect()
}

fn shorten(text: &str) -> String {
    const MOST: usize = 200;
    match text.chars().count() > MOST {
        true => text.chars().take(MOST).chain(['…']).collect(),
        false => text.to_string(),
    }
}
