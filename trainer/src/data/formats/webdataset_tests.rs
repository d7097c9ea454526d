use super::super::{Ask, Format};
use crate::data::record::{Found, Select};
use anyhow::Result;
use proptest::prelude::*;
use std::fs;
use tempfile::TempDir;

/// Opens a shard of these members.
fn shard(members: &[(&str, &[u8])]) -> Result<Found> {
    let folder = TempDir::new().unwrap();
    let path = folder.path().join("s.tar");
    let mut tar = tar::Builder::new(fs::File::create(&path).unwrap());
    for (name, bytes) in members {
        let mut header = tar::Header::new_gnu();
        header.set_size(bytes.len() as u64);
        tar.append_data(&mut header, name, *bytes).unwrap();
    }
    tar.finish().unwrap();
    Ok(Format::Webdataset.open(&path, None, &Select::default(), &Ask::default())?.0)
}

#[test]
fn samples_of_a_shard_are_the_files_of_one_name() {
    let talk = br#"{"image": "other.png", "conversations": [{"from": "human", "value": "<image>q"}, {"from": "gpt", "value": "a"}]}"#;
    let found = shard(&[
        ("d/1.jpg", b"j"),
        ("d/1.txt", b"a cat\n"),
        ("d/2.json", talk),
        ("d/2.seg.png", b"p"),
        ("d/2.PNG", b"p"),
        ("3.png", b"p"),
        ("3.json", br#"{"caption": "three"}"#),
        ("4.txt", b"alone"),
        ("5.png", b"p"),
        ("6.png", b"p"),
        ("6.txt", b" "),
        ("7.json", b"{"),
        ("7.png", b"p"),
        ("8.png", b"p"),
        ("8.webp", b"p"),
        ("8.json", br#"{"texts": [{"user": "<image> or <image>?", "assistant": "the first"}]}"#),
    ])
    .unwrap();
    let said: Vec<(&str, &str, &str)> = found
        .records
        .iter()
        .map(|r| (r.id.as_str(), r.content.images[0].as_str(), r.content.turns[0].answer.as_str()))
        .collect();
    assert_eq!(
        said,
        [
            ("s.tar/d/1", "s.tar/d/1.jpg", "a cat"),
            ("s.tar/d/2", "s.tar/d/2.PNG", "a"),
            ("s.tar/3", "s.tar/3.png", "three"),
            ("s.tar/8", "s.tar/8.png", "the first")
        ]
    );
    assert_eq!((found.text_only, found.bad.count), (1, 3), "{}", found.bad.list());
    let list = found.bad.list();
    for expected in ["`s.tar/5`: no conversations, messages", "`s.tar/6`: caption: says nothing", "`s.tar/7`: not JSON"]
    {
        assert!(list.contains(expected), "{list}");
    }
}

/// Members are fields by the whole of their suffix, in any case; what is passed over is named.
#[test]
fn members_of_a_shard_are_looked_up_by_their_whole_names() {
    let said = |members: &[(&str, &[u8])]| {
        let found = shard(members).unwrap();
        let said = found.records.iter().map(|r| format!("{}={}", r.id, r.content.turns[0].answer));
        let passed: Vec<String> = found.passed_over.lines().collect();
        (said.collect::<Vec<_>>().join(";"), found.bad.list(), passed.join("\n"))
    };
    for (members, expected, bad, passed) in [
        (
            vec![("1.png", &b"p"[..]), ("1.txt", b"red"), ("1.ocr.txt", b"STOP"), ("1.seg.png", b"s")],
            "s.tar/1=red",
            "",
            "1 members `.ocr.txt`, which are not read: s.tar/1.ocr.txt",
        ),
        (
            vec![("1.png", b"p"), ("1.json", br#"{"caption": "red"}"#), ("1.ocr.json", br#"{"text": "STOP"}"#)],
            "s.tar/1=red",
            "",
            "members `.ocr.json`",
        ),
        (vec![("1.PNG", b"p"), ("1.Txt", b"red")], "s.tar/1=red", "", ""),
        (
            vec![("._1.png", b"m"), ("1.png", b"p"), ("._1.txt", b"m"), ("1.txt", b"red"), (".DS_Store", b"")],
            "s.tar/1=red",
            "",
            "3 members whose names begin with a dot: s.tar/._1.png",
        ),
        (
            vec![("1.png", b"p"), ("1.txt", b"red"), ("1.json", br#"{"caption": null, "key": "1"}"#)],
            "s.tar/1=red",
            "",
            "",
        ),
        (vec![("1.png", b"p"), ("1.txt", b"red\n"), ("1.json", br#"{"caption": "red"}"#)], "s.tar/1=red", "", ""),
        (
            vec![("1.png", b"p"), ("1.txt", b"blue"), ("1.json", br#"{"caption": "red"}"#)],
            "s.tar/1=red",
            "",
            "1 texts `.txt` that say otherwise than their `.json`: s.tar/1",
        ),
        (
            vec![("1.png", b"p"), ("1.txt", b"caf\xe9"), ("2.png", b"p"), ("2.txt", b"\xef\xbb\xbfvert")],
            "s.tar/2=vert",
            "`s.tar/1`: txt: not UTF-8",
            "",
        ),
        (
            vec![("1.png", b"p"), ("1.txt", b"\xff\xfea\0"), ("2.png", b"p"), ("2.txt", b"\0a\0b")],
            "",
            "`s.tar/2`: txt: not UTF-8 text: it has NUL characters",
            "",
        ),
        (
            vec![("1.png", b"p"), ("1.json", b"\xef\xbb\xbf{\"caption\": \"red\", \"score\": NaN}")],
            "s.tar/1=red",
            "",
            "",
        ),
        (
            vec![("1.png", b"p"), ("1.json", b"{\"caption\": NaN}")],
            "",
            "caption: expected text, found an object (NaN at column 13",
            "",
        ),
        (
            vec![("1.png", b"p"), ("1.txt", b"red"), ("1.TXT", b"blue")],
            "",
            "`s.tar/1`: txt: two members of this name",
            "",
        ),
        (
            vec![
                ("1.png", b"p"),
                ("1.txt", b"old"),
                ("2.png", b"p"),
                ("2.txt", b"two"),
                ("1.png", b"n"),
                ("1.txt", b"new"),
            ],
            "s.tar/2=two",
            "`s.tar/1`: image: s.tar/1.png: 2 members of this name",
            "",
        ),
    ] {
        let (found, listed, named) = said(&members);
        assert_eq!(found, expected, "{listed}");
        assert!(listed.contains(bad) && (listed.is_empty() == bad.is_empty()), "{listed}");
        assert!(named.contains(passed) && (named.is_empty() == passed.is_empty()), "{named}");
    }
}

/// A member's bytes: a record, a text, or junk.
fn bytes() -> impl Strategy<Value = Vec<u8>> {
    let record = r#"{"caption": "c", "text": null, "conversations": [{"from": "human", "value": "<image>q"}]}"#;
    let bytes: [&[u8]; 6] = [record.as_bytes(), br#"{"caption": "c"}"#, b"{\"score\": NaN}", b"c", b"", b"\xff\xfe"];
    prop::sample::select(bytes.map(<[u8]>::to_vec).to_vec())
}

proptest! {
    #[test]
    fn any_shard_is_accounted_for(
        members in proptest::collection::vec(("[ab]{1,2}\\.(txt|json|jpg|png|x\\.jpg)", bytes()), 0..6),
    ) {
        let members: Vec<(&str, &[u8])> = members.iter().map(|(name, bytes)| (name.as_str(), &bytes[..])).collect();
        if let Ok(found) = shard(&members) {
            prop_assert!(found.count() >= 1 && found.count() <= members.len());
        }
    }
}
