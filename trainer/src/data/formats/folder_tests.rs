use super::super::{Ask, Format};
use crate::data::record::Select;
use std::fs;
use tempfile::TempDir;

#[test]
fn a_folder_of_classes_says_each_class_in_all_templates() {
    let root = TempDir::new().unwrap();
    for name in ["tabby_cat/2.png", "tabby_cat/deep/1.JPG", "dog/a.webp", "dog/note.txt", ".hidden/x.png"] {
        let path = root.path().join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, "").unwrap();
    }
    fs::write(root.path().join("stray.png"), "").unwrap();
    let ask = Ask { templates: vec!["a {}.".into(), "the {} here".into()], ..Ask::default() };
    let read = |select: &Select| Format::Folder.open(root.path(), None, select, &ask);
    let (found, _) = read(&Select::default()).unwrap();
    let names: Vec<&str> = found.records.iter().map(|record| record.content.images[0].as_str()).collect();
    assert_eq!(names, ["dog/a.webp", "tabby_cat/2.png", "tabby_cat/deep/1.JPG"]);
    let cat = &found.records[1].content;
    assert_eq!(cat.class.as_deref(), Some("tabby_cat"));
    assert_eq!(cat.captions, ["a tabby cat.", "the tabby cat here"]);
    let first = Select { limit: Some(1), ..Select::default() };
    assert_eq!(read(&first).unwrap().0.records.len(), 1);
    // torchvision follows links, and refuses classes without an image; here they are named.
    for name in
        ["elsewhere/y.png", "classes/fox/1.bmp", "classes/Dog/b.png", "classes/dog/1.PNG", "classes/cow/._1.png"]
    {
        let path = root.path().join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, "").unwrap();
    }
    let classes = root.path().join("classes");
    std::os::unix::fs::symlink("../elsewhere", classes.join("yak")).unwrap();
    std::os::unix::fs::symlink("..", classes.join("dog/back")).unwrap();
    std::os::unix::fs::symlink("nowhere", classes.join("gone")).unwrap();
    let (found, _) = Format::Folder.open(&classes, None, &Select::default(), &ask).unwrap();
    let names: Vec<&str> = found.records.iter().map(|record| record.id.as_str()).collect();
    assert_eq!(names, ["Dog/b.png", "dog/1.PNG", "yak/y.png"]);
    let passed = found.passed_over.lines().collect::<Vec<_>>().join("\n");
    for expected in [
        "2 classes without a png, jpg, jpeg or webp: cow, fox",
        "1 files in classes that are no png, jpg, jpeg or webp: fox/1.bmp",
        "case or `_` alone tells apart: Dog and dog",
        "1 links to a folder they are in: ",
        "1 links that lead nowhere: ",
        "1 files whose names begin with a dot: ",
    ] {
        assert!(passed.contains(expected), "`{expected}` is not in\n{passed}");
    }
    let empty = TempDir::new().unwrap();
    let none = Format::Folder.open(empty.path(), None, &Select::default(), &ask).unwrap_err();
    assert!(none.to_string().contains("no png, jpg, jpeg or webp"), "{none}");
}
