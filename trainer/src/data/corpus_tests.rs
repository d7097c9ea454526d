use super::*;
use crate::data::{CorpusSource, Pair, Source, test_data};
use rayon::prelude::*;
use std::fmt::Write;

fn files<'a>(conversations: &'a Path, images: &'a Path, split: Option<&str>) -> Files<'a> {
    Files {
        select: Select { split: split.map(String::from), ..Select::default() },
        ..Files::new(Format::Llava, conversations, Some(images))
    }
}

fn square(size: usize) -> ImageProcessor {
    ImageProcessor { size, ..ImageProcessor::default() }
}

/// Writes `count` records about `count` images; image `missing` is not written, image `cut` is cut off.
fn write_set(folder: &Path, count: usize, missing: usize, cut: usize) {
    let mut lines = String::new();
    for i in 0..count {
        let talk = r#"[{"from":"human","value":"<image>what ?"},{"from":"gpt","value":"this"}]"#;
        writeln!(lines, r#"{{"id":"r{i}","image":"{i}.png","conversations":{talk}}}"#).unwrap();
        let path = folder.join(format!("{i}.png"));
        if i != missing {
            RgbImage::from_pixel(9, 5, image::Rgb([i as u8, 0, 0])).save(&path).unwrap();
        }
        if i == cut {
            let bytes = std::fs::read(&path).unwrap();
            std::fs::write(&path, &bytes[..bytes.len() / 2]).unwrap();
        }
    }
    std::fs::write(folder.join("d.jsonl"), lines).unwrap();
}

#[test]
fn missing_and_cut_off_images_are_bad_records_and_the_others_keep_theirs() {
    let folder = tempfile::tempdir().unwrap();
    write_set(folder.path(), 200, 3, 8);
    let path = folder.path().join("d.jsonl");
    let corpus = Corpus::load(&files(&path, folder.path(), None), &square(4)).unwrap();
    assert_eq!((corpus.samples.len(), corpus.images.len(), corpus.bad.count), (198, 198, 2));
    for sample in &corpus.samples {
        let number: u8 = sample.id[1..].parse().unwrap();
        assert_eq!(corpus.picture(sample).unwrap().get_pixel(3, 3).0, [number, 0, 0]);
    }
    let summary = corpus.summary();
    assert!(summary.contains("2 bad left out") && summary.contains("d.jsonl:4: record `r3`: image: "), "{summary}");
    assert!(summary.contains("d.jsonl:9: record `r8`: image: ") && summary.contains("truncated PNG"), "{summary}");

    let strict = Files { max_bad: 0.005, ..files(&path, folder.path(), None) };
    let message = Corpus::load(&strict, &square(4)).unwrap_err().to_string();
    assert!(message.starts_with("2 of 200 records are bad"), "{message}");
}

#[test]
fn images_decoded_when_asked_for_are_the_same_and_broken_ones_give_way_to_the_next() {
    let folder = tempfile::tempdir().unwrap();
    write_set(folder.path(), 200, 3, 8);
    let path = folder.path().join("d.jsonl");
    let late = Files { keep: Some(false), ..files(&path, folder.path(), None) };
    let [now, later] = [files(&path, folder.path(), None), late.clone()].map(|files| {
        let corpus = Corpus::load(&files, &square(4)).unwrap();
        CorpusSource::new(corpus, 3, None)
    });
    assert_eq!((now.corpus.samples.len(), later.corpus.samples.len()), (198, 200));
    let red = |source: &CorpusSource, i: u64| source.conversation(i, 0.0).unwrap().images[0].get_pixel(0, 0).0[0];
    let ids: Vec<u8> = (0..400).into_par_iter().map(|i| red(&later, i)).collect();
    let count = |id: u8| ids.iter().filter(|found| **found == id).count();
    // Two passes: records 4 and 9 stand in for 3 and 8.
    assert_eq!([count(3), count(8), count(4), count(9), count(5)], [0, 0, 4, 4, 2]);
    assert!((0..400).rev().all(|i| red(&later, i) == ids[i as usize]));
    let broken = later.corpus.broken();
    assert_eq!(broken.count, 2, "{}", broken.list());
    assert!(broken.list().contains("record `r8`: image: "), "{}", broken.list());
    for place in 0..200 {
        if let (Ok(image), false) = (later.corpus.images.get(place), [3, 8].contains(&place)) {
            assert_eq!(image, now.corpus.images.get(place - usize::from(place > 3) - usize::from(place > 8)).unwrap());
        }
    }

    let strict = Files { max_bad: 0.005, ..late };
    let strict = CorpusSource::new(Corpus::load(&strict, &square(4)).unwrap(), 3, None);
    let message = (0..200).find_map(|i| strict.pair(i).err()).unwrap().to_string();
    assert!(message.starts_with("2 of 200 records are bad"), "{message}");
}

#[test]
fn one_of_several_captions_is_drawn_for_each_pass() {
    let folder = tempfile::tempdir().unwrap();
    write_set(folder.path(), 6, 99, 99);
    let lines: Vec<String> =
        (0..6).map(|i| format!(r#"{{"file":"{i}.png","captions":["{i} a","{i} b","{i} c"]}}"#)).collect();
    let path = folder.path().join("c.jsonl");
    std::fs::write(&path, lines.join("\n")).unwrap();
    let coco = Files { format: Format::Coco, ..files(&path, folder.path(), None) };
    let source = CorpusSource::new(Corpus::load(&coco, &square(4)).unwrap(), 1, None);
    assert_eq!(source.corpus.samples[2].captions, ["2 a", "2 b", "2 c"]);
    let pairs: Vec<Pair> = (0..60).map(|i| source.pair(i).unwrap()).collect();
    for pair in &pairs {
        let number = pair.image.get_pixel(0, 0).0[0].to_string();
        assert!(pair.caption.starts_with(&number) && pair.could_say(&format!("{number} c")));
        assert!(!pair.could_say(&format!("{} c", 9)));
    }
    for ending in ["a", "b", "c"] {
        let drawn = pairs.iter().filter(|pair| pair.caption.ends_with(ending)).count();
        assert!((8..=32).contains(&drawn), "{ending}: {drawn} of 60");
    }
    assert!((0..60).rev().all(|i| source.pair(i).unwrap().caption == pairs[i as usize].caption));
}

#[test]
fn images_that_do_not_fit_in_memory_are_refused_with_the_need() {
    let message = keeps(Some(true), 1 << 20, 4096).unwrap_err().to_string();
    assert!(message.contains("48.0 TiB") && message.contains("data.keep"), "{message}");
    assert!(!keeps(None, 1 << 20, 4096).unwrap() && keeps(None, 10, 24).unwrap() && !keeps(Some(false), 1, 1).unwrap());
}

/// (folder, conversations, images, split, conversations expected, images expected)
type Real = (&'static str, &'static str, &'static str, Option<&'static str>, usize, usize);
const REAL: [Real; 5] = [
    ("flags", "caption-llava.jsonl", "images", Some("train"), 184, 184),
    ("flags", "caption-llava.jsonl", "images", Some("heldout"), 46, 46),
    ("nlvr", "train1k-llava.jsonl", "train1k-images.zip", None, 1000, 1000),
    ("nlvr", "dev-llava.jsonl", "dev-images.zip", None, 989, 989),
    ("coco_cc", "caption-llava.jsonl", "images", None, 83, 83),
];

#[test]
fn real_data_sets_read_completely() {
    for (name, conversations, images, split, samples, pictures) in REAL {
        let Some(folder) = test_data::folder(name) else {
            continue;
        };
        let (conversations, images) = (folder.join(conversations), folder.join(images));
        let corpus = Corpus::load(&files(&conversations, &images, split), &square(24)).unwrap();
        assert_eq!((corpus.samples.len(), corpus.images.len()), (samples, pictures), "{name}");
        assert_eq!((corpus.bad.count, corpus.text_only), (0, 0), "{name}: {}", corpus.summary());
        let images: Vec<RgbImage> = (0..pictures).map(|place| corpus.images.get(place).unwrap()).collect();
        assert!(images.iter().all(|image| image.dimensions() == (24, 24)));
        let distinct: std::collections::HashSet<&[u8]> = images.iter().map(|i| i.as_raw().as_slice()).collect();
        assert!(distinct.len() * 10 > pictures * 9, "{name}: only {} distinct images", distinct.len());
    }
}
