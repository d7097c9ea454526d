use super::*;
use crate::data::formats::Ask;
use crate::data::record::Select;
use std::fs;
use tempfile::TempDir;

/// Ten records: three of one image, one of its copy, one broken, short, long, thin and repeated texts.
fn set() -> TempDir {
    let folder = TempDir::new().unwrap();
    let picture = |seed: u32, size: u32| {
        RgbImage::from_fn(size, size, |x, y| {
            let value = (8 * x / size * 7919 + 8 * y / size * 104_729 + seed * 1_299_709).wrapping_mul(2_654_435_761);
            image::Rgb([(value >> 8) as u8, (value >> 16) as u8, (value >> 24) as u8])
        })
    };
    for (name, seed, size) in [("a", 1, 64), ("copy", 1, 96), ("b", 2, 64), ("c", 3, 64)] {
        picture(seed, size).save(folder.path().join(format!("{name}.png"))).unwrap();
    }
    fs::write(folder.path().join("junk.png"), "junk").unwrap();
    let lines = [
        ("0", "a", "a brown dog jumps over a wooden fence"),
        ("1", "a", "the same brown animal above green grass"),
        ("2", "copy", "two cats sleep near one warm stove"),
        ("3", "b", "three birds sit quietly upon an old roof"),
        ("4", "junk", "something nobody could ever see anywhere"),
        ("5", "c", "far too short"),
        ("6", "c", "one two three four five six seven eight nine ten eleven twelve thirteen"),
        ("7", "c", "it is what it is and that is that"),
        ("8", "c", "Three birds sit quietly upon an old roof!"),
        ("9", "c", "a red boat crosses the calm lake & <b>"),
    ];
    let line = |(id, image, said): &(&str, &str, &str)| {
        format!(r#"{{"id":"{id}","image":"{image}.png","mine":[1, 2],"prompt":"Q","completion":"{said}"}}"#)
    };
    let lines: Vec<String> = lines.iter().map(line).collect();
    fs::write(folder.path().join("d.json"), format!("[{}]", lines.join(",\r\n"))).unwrap();
    folder
}

const STRICT: Criteria = Criteria {
    min_words: Some(5),
    max_words: Some(12),
    min_density: Some(0.3),
    max_hamming: Some(4),
    max_overlap: Some(0.9),
    min_similarity: None,
    keep_share: None,
};

#[test]
fn each_record_goes_for_the_first_reason_that_holds_and_the_rest_stays_as_it_was() {
    let folder = set();
    let path = folder.path().join("d.json");
    let judged = Judged::of(&Files::new(Format::Completion, &path, Some(folder.path())), &STRICT, None).unwrap();
    let reasons: Vec<Option<(Reason, Option<usize>)>> =
        judged.verdicts.iter().map(|verdict| verdict.as_ref().map(|verdict| (verdict.reason, verdict.twin))).collect();
    let expected = [
        None,
        None,
        Some((Reason::TwinImage, Some(0))),
        None,
        Some((Reason::Broken, None)),
        Some((Reason::Short, None)),
        Some((Reason::Long, None)),
        Some((Reason::Thin, None)),
        Some((Reason::TwinText, Some(3))),
        None,
    ];
    assert_eq!(reasons, expected);

    let before = fs::read(&path).unwrap();
    let out = folder.path().join("kept.jsonl");
    let kept = write(&judged, &out).unwrap();
    assert_eq!((kept.records, kept.format), (4, Format::Completion));
    let text = fs::read_to_string(&out).unwrap();
    let lines: Vec<&str> = text.lines().collect();
    assert!(lines.len() == 4 && before.windows(lines[3].len()).any(|window| window == lines[3].as_bytes()), "{text}");
    let (again, _) = Format::Completion.open(&out, Some(folder.path()), &Select::default(), &Ask::default()).unwrap();
    let ids: Vec<&str> = again.records.iter().map(|record| record.id.as_str()).collect();
    assert_eq!(ids, ["0", "1", "3", "9"]);
    assert_eq!(fs::read(&path).unwrap(), before, "the input stays as it is");

    let page = folder.path().join("r.html");
    report(&judged, &STRICT, &page).unwrap();
    let page = fs::read_to_string(&page).unwrap();
    assert!(page.contains("4 of 10 records are kept."), "{page}");
    assert!(page.contains("<td>near-duplicate image<td class=\"n\">1<td>hashes that differ in at most 4 bits</tr>"));
    assert!(page.contains("calm lake &amp; &lt;b&gt;") && !page.contains("<b>"));
    // Each of the nine readable records, and the two that stand in for another.
    assert_eq!(page.matches("src=\"data:image/png;base64,iVBOR").count(), 11);
    assert!(!page.contains("http"), "nothing is fetched");
}

#[test]
fn without_criteria_only_what_is_broken_goes() {
    let folder = set();
    let path = folder.path().join("d.json");
    let judged =
        Judged::of(&Files::new(Format::Completion, &path, Some(folder.path())), &Criteria::default(), None).unwrap();
    assert_eq!((judged.kept().count(), judged.count(Reason::Broken)), (9, 1));
}

#[test]
fn what_is_no_json_by_lines_is_kept_as_messages_or_coco() {
    let folder = set();
    let class = folder.path().join("classes/red_dog");
    fs::create_dir_all(&class).unwrap();
    fs::copy(folder.path().join("a.png"), class.join("1.png")).unwrap();
    let root = folder.path().join("classes");
    let out = folder.path().join("kept.jsonl");
    let judged = Judged::of(&Files::new(Format::Folder, &root, None), &Criteria::default(), None).unwrap();
    assert_eq!(write(&judged, &out).unwrap().format, Format::Messages);
    let (found, source) = Format::Messages.open(&out, Some(&root), &Select::default(), &Ask::default()).unwrap();
    let content = &found.records[0].content;
    assert_eq!(
        (content.turns[0].answer.as_str(), content.images[0].as_str()),
        ("a photo of a red dog.", "red_dog/1.png")
    );
    assert!(source.load(&content.images[0]).is_ok());

    let published = r#"{"images": [{"id": 1, "file_name": "a.png"}],
        "annotations": [{"image_id": 1, "caption": "one"}, {"image_id": 1, "caption": "two"}]}"#;
    let path = folder.path().join("coco.json");
    fs::write(&path, published).unwrap();
    let judged = Judged::of(&Files::new(Format::Coco, &path, Some(folder.path())), &Criteria::default(), None).unwrap();
    assert_eq!(write(&judged, &out).unwrap().format, Format::Coco);
    let (found, _) = Format::Coco.open(&out, Some(folder.path()), &Select::default(), &Ask::default()).unwrap();
    assert_eq!(
        (found.records[0].id.as_str(), &found.records[0].content.captions[..]),
        ("1", &["one".to_string(), "two".into()][..])
    );
}

#[test]
fn short_answers_are_judged_with_their_questions() {
    let folder = set();
    let path = folder.path().join("q.jsonl");
    let line = |q: &str| format!(r#"{{"image":"a.png","prompt":"<image>{q}","completion":"yes"}}"#);
    fs::write(&path, [line("is it red ?"), line("is it blue ?")].join("\n")).unwrap();
    let strict = Criteria { max_overlap: Some(0.9), ..Criteria::default() };
    let judged = Judged::of(&Files::new(Format::Completion, &path, Some(folder.path())), &strict, None).unwrap();
    assert_eq!(judged.texts, ["is it red ? yes", "is it blue ? yes"]);
    assert_eq!(judged.kept().count(), 2);
}
