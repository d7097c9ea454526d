use super::*;
use crate::data::test_data;
use std::fmt::Write;

fn files<'a>(conversations: &'a Path, images: &'a Path, split: Option<&str>) -> Files<'a> {
    Files {
        conversations,
        images,
        select: Select {
            split: split.map(String::from),
            ..Select::default()
        },
        max_bad: 0.01,
    }
}

fn square(size: usize) -> ImageProcessor {
    ImageProcessor {
        size,
        ..ImageProcessor::default()
    }
}

/// Writes `count` records about `count` images; image `missing` is not written, image `cut` is cut off.
fn write_set(folder: &Path, count: usize, missing: usize, cut: usize) {
    let mut lines = String::new();
    for i in 0..count {
        let talk = r#"[{"from":"human","value":"<image>what ?"},{"from":"gpt","value":"this"}]"#;
        writeln!(lines, r#"{{"id":"r{i}","image":"{i}.png","conversations":{talk}}}"#).unwrap();
        let path = folder.join(format!("{i}.png"));
        if i != missing {
            RgbImage::from_pixel(9, 5, image::Rgb([i as u8, 0, 0]))
                .save(&path)
                .unwrap();
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
    assert_eq!(
        (corpus.samples.len(), corpus.images.len(), corpus.bad.count),
        (198, 198, 2)
    );
    for sample in &corpus.samples {
        let number: u8 = sample.id[1..].parse().unwrap();
        assert_eq!(corpus.images[sample.image].get_pixel(3, 3).0, [number, 0, 0]);
    }
    let summary = corpus.summary();
    assert!(
        summary.contains("2 bad left out") && summary.contains("d.jsonl:4: record `r3`: image: "),
        "{summary}"
    );
    assert!(
        summary.contains("d.jsonl:9: record `r8`: image: ") && summary.contains("truncated PNG"),
        "{summary}"
    );

    let strict = Files {
        max_bad: 0.005,
        ..files(&path, folder.path(), None)
    };
    let message = Corpus::load(&strict, &square(4)).unwrap_err().to_string();
    assert!(message.starts_with("2 of 200 records are bad"), "{message}");
}

#[test]
fn images_that_do_not_fit_in_memory_are_refused_with_the_need() {
    let message = check_memory(1 << 20, 4096).unwrap_err().to_string();
    assert!(
        message.contains("48.0 TiB") && message.contains("image_size"),
        "{message}"
    );
}

/// (folder, conversations, images, split, conversations expected, images expected)
type Real = (
    &'static str,
    &'static str,
    &'static str,
    Option<&'static str>,
    usize,
    usize,
);
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
        assert_eq!(
            (corpus.samples.len(), corpus.images.len()),
            (samples, pictures),
            "{name}"
        );
        assert_eq!(
            (corpus.bad.count, corpus.text_only),
            (0, 0),
            "{name}: {}",
            corpus.summary()
        );
        assert!(corpus.images.iter().all(|image| image.dimensions() == (24, 24)));
        let distinct: std::collections::HashSet<&[u8]> = corpus.images.iter().map(|i| i.as_raw().as_slice()).collect();
        assert!(
            distinct.len() * 10 > pictures * 9,
            "{name}: only {} distinct images",
            distinct.len()
        );
    }
}
