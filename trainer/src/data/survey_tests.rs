use super::*;
use crate::data::formats::Format;
use crate::data::test_data;
use std::fs;
use std::path::Path;

fn survey(format: Format, path: &Path, images: Option<&Path>) -> Survey {
    Survey::of(&Files::new(format, path, images), &Screen::of(None), None).unwrap()
}

fn spread(survey: &Survey, name: &str) -> Spread {
    survey.spreads.iter().find(|(known, _)| known == name).unwrap().1
}

#[test]
fn spreads_are_of_ranks() {
    let spread = Spread::of((1..=100).rev().collect()).unwrap();
    assert_eq!([spread.min, spread.median, spread.p90, spread.p99, spread.max], [1, 50, 90, 99, 100]);
    assert_eq!(spread.mean, 50.5);
    assert_eq!(Spread::of(vec![7]).unwrap().median, 7);
    assert!(Spread::of(Vec::new()).is_none());
}

#[test]
fn everything_broken_or_double_is_counted_and_named() {
    let folder = tempfile::tempdir().unwrap();
    for (name, shade) in [("a", 1), ("copy", 1), ("b", 2), ("cut", 3)] {
        let image = RgbImage::from_pixel(30, 20, image::Rgb([shade; 3]));
        image.save(folder.path().join(format!("{name}.png"))).unwrap();
    }
    let cut = folder.path().join("cut.png");
    let bytes = fs::read(&cut).unwrap();
    fs::write(&cut, &bytes[..40]).unwrap();
    let line = |id: &str, image: &str, said: &str| {
        format!(r#"{{"id":"{id}","image":"{image}.png","prompt":"q r","completion":"{said}"}}"#)
    };
    let lines = [
        line("1", "a", "one two three"),
        line("2", "copy", "one two three"),
        line("3", "a", "four"),
        line("4", "b", "one two three"),
        line("5", "cut", "five"),
        line("6", "gone", "six"),
        line("7", "gone", "seven"),
        line("8", "b", " "),
        r#"{"prompt":"q","completion":"c"}"#.into(),
        "junk".into(),
    ];
    let path = folder.path().join("d.jsonl");
    fs::write(&path, lines.join("\n")).unwrap();
    let survey = survey(Format::Completion, &path, Some(folder.path()));
    assert_eq!((survey.records, survey.usable, survey.broken, survey.without_image), (10, 4, 5, 1));
    assert_eq!((survey.images, survey.duplicate_images.copies), (3, 1));
    assert_eq!(survey.duplicate_images.largest, [["a.png", "copy.png"]]);
    assert_eq!((survey.duplicate_texts.copies, survey.duplicate_records.copies), (2, 1));
    assert_eq!(survey.duplicate_records.largest, [["1", "2"]]);
    let kinds: Vec<(&str, usize)> = survey.broken_kinds.iter().map(|(kind, count)| (kind.as_str(), *count)).collect();
    assert_eq!(
        kinds,
        [
            ("completion: says nothing", 1),
            ("image: No such file or directory (os error N)", 2),
            ("image: no IEND chunk", 1),
            ("record: expected value", 1)
        ]
    );
    assert_eq!((spread(&survey, "image width").max, spread(&survey, "answer, words").median), (30, 3));
    assert!(survey.is_bad(0.5) && !survey.is_bad(0.6));
    let table = survey.table();
    for part in
        ["4 usable, 5 broken", "broken: 2 x image: No such file", "record `7`: image: ", "such as a.png = copy.png)"]
    {
        assert!(table.contains(part), "{part} is not in\n{table}");
    }
}

#[test]
fn real_sets_are_whole() {
    for (name, format, path, images, records, pictures) in [
        ("flags", Format::Llava, "caption-llava.jsonl", "images", 230, 230),
        ("nlvr", Format::Llava, "train1k-llava.jsonl", "train1k-images.zip", 1000, 1000),
        ("coco_cc", Format::Coco, "coco_cc.jsonl", "images", 83, 83),
    ] {
        let Some(folder) = test_data::folder(name) else {
            continue;
        };
        let survey = survey(format, &folder.join(path), Some(&folder.join(images)));
        assert_eq!((survey.usable, survey.images, survey.broken), (records, pictures, 0), "{name}");
        let answers = spread(&survey, "answers per turn").max;
        assert_eq!(answers, if name == "coco_cc" { 5 } else { 1 });
    }
}
