use super::*;
use proptest::prelude::*;

/// A tar archive of these files.
fn archive(entries: &[(&str, &[u8])]) -> Vec<u8> {
    let mut tar = tar::Builder::new(Vec::new());
    for (name, bytes) in entries {
        let mut header = tar::Header::new_gnu();
        header.set_size(bytes.len() as u64);
        tar.append_data(&mut header, name, *bytes).unwrap();
    }
    tar.into_inner().unwrap()
}

/// Opens archives of these bytes, called `0.tar` and so on, by `pattern`.
fn open(shards: &[&[u8]], pattern: &str) -> Result<Vec<(String, Vec<u8>)>> {
    let folder = tempfile::tempdir().unwrap();
    for (i, bytes) in shards.iter().enumerate() {
        std::fs::write(folder.path().join(format!("{i}.tar")), bytes).unwrap();
    }
    let mut members = Vec::new();
    let shards = Shards::open(&folder.path().join(pattern), |name, member| members.push((name.to_string(), *member)))?;
    let read = |(name, member): (String, Member)| {
        assert_eq!(shards.find(&name).unwrap(), member);
        Ok((name, shards.read(member, 1 << 20)?))
    };
    members.into_iter().map(read).collect()
}

#[test]
fn members_of_all_shards_come_in_order_with_long_names_too() {
    let long = format!("{}/{}.txt", "d".repeat(90), "n".repeat(150));
    let first = archive(&[("./a.txt", b"one"), (&long, b"two"), ("empty.txt", b"")]);
    let second = archive(&[("a.txt", &[7; 5000])]);
    let expected = [
        ("0.tar/a.txt".to_string(), b"one".to_vec()),
        (format!("0.tar/{long}"), b"two".to_vec()),
        ("0.tar/empty.txt".into(), Vec::new()),
        ("1.tar/a.txt".into(), vec![7; 5000]),
    ];
    for pattern in ["{0..1}.tar", "{0,1}.tar", "", "*.tar"] {
        assert_eq!(open(&[&first, &second], pattern).unwrap(), expected, "{pattern}");
    }
}

#[test]
fn pax_names_are_read() {
    let mut tar = tar::Builder::new(Vec::new());
    let name = "p".repeat(120) + ".txt";
    tar.append_pax_extensions([("path", name.as_bytes())]).unwrap();
    let mut header = tar::Header::new_ustar();
    header.set_size(2);
    tar.append_data(&mut header, "short", &b"hi"[..]).unwrap();
    let bytes = tar.into_inner().unwrap();
    assert_eq!(open(&[&bytes], "0.tar").unwrap(), [(format!("0.tar/{name}"), b"hi".to_vec())]);
}

#[test]
fn links_stand_for_the_members_they_lead_to() {
    let mut tar = tar::Builder::new(Vec::new());
    let mut link = |kind: EntryType, name: &str, target: &str| {
        let mut header = tar::Header::new_gnu();
        header.set_entry_type(kind);
        header.set_size(0);
        tar.append_link(&mut header, name, target).unwrap();
    };
    link(EntryType::Symlink, "d/ahead.txt", "../e/a.txt");
    link(EntryType::Symlink, "circle", "circle");
    link(EntryType::Symlink, "out.txt", "/etc/passwd");
    let mut header = tar::Header::new_gnu();
    header.set_size(3);
    tar.append_data(&mut header, "e/a.txt", &b"one"[..]).unwrap();
    let mut link = |kind: EntryType, name: &str, target: &str| {
        let mut header = tar::Header::new_gnu();
        header.set_entry_type(kind);
        header.set_size(0);
        tar.append_link(&mut header, name, target).unwrap();
    };
    link(EntryType::Link, "hard.txt", "e/a.txt");
    link(EntryType::Symlink, "again.txt", "hard.txt");
    let bytes = tar.into_inner().unwrap();
    let names = ["d/ahead.txt", "e/a.txt", "hard.txt", "again.txt"];
    let expected = names.map(|name| (format!("0.tar/{name}"), b"one".to_vec()));
    assert_eq!(open(&[&bytes], "0.tar").unwrap(), expected);
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("0.TAR"), &bytes).unwrap();
    std::fs::write(folder.path().join("._0.TAR"), "x").unwrap();
    std::fs::write(folder.path().join("README"), "x").unwrap();
    let passed = Shards::open(folder.path(), |_, _| ()).unwrap().passed_over;
    let lines = passed.lines().collect::<Vec<_>>().join("\n");
    for expected in [
        "2 members that are no file, nor a link to one: 0.TAR/circle, 0.TAR/out.txt",
        "1 files that are no .tar: README",
        "1 files whose names begin with a dot: ",
    ] {
        assert!(lines.contains(expected), "{lines}");
    }
}

#[test]
fn damaged_archives_are_named_with_the_place() {
    let good = archive(&[("a.txt", &[1; 600]), ("b.txt", &[2; 600])]);
    let message = |bytes: &[u8]| format!("{:#}", open(&[bytes], "0.tar").unwrap_err());
    for (length, expected) in [
        (600, "0.tar: truncated: `a.txt` takes 600 bytes from 512 on, the file has 600"),
        (1600, "0.tar: no tar archive at byte 1112 of 1600"),
        (1536, "0.tar: truncated: ends at byte 1536 without the end of an archive"),
        (2500, "0.tar: truncated: `b.txt` takes 600 bytes from 2048 on, the file has 2500"),
        (3072, "0.tar: truncated: ends at byte 3072 without the end of an archive"),
        (0, "0.tar: truncated: ends at byte 0 without"),
    ] {
        let text = message(&good[..length]);
        assert!(text.contains(expected), "{length}: {text}");
    }
    let mut bytes = good.clone();
    bytes[1540] ^= 1;
    assert!(message(&bytes).contains("0.tar: no tar archive at byte 1112 of"), "{}", message(&bytes));
    assert!(message(b"\x1f\x8b rest").contains("a gzip, compressed"));
    assert!(message(b"version https://git-lfs.github.com/spec/v1").contains("a Git LFS pointer"));
    // A size beyond the file.
    let mut header = tar::Header::new_gnu();
    header.set_path("c.txt").unwrap();
    header.set_size(u64::MAX / 2);
    header.set_cksum();
    assert!(message(header.as_bytes()).contains("truncated: `c.txt` takes 9223372036854775807 bytes"));
    // A name as long as the file.
    header.set_entry_type(EntryType::GNULongName);
    header.set_size(3 << 20);
    header.set_cksum();
    let mut bytes = header.as_bytes().to_vec();
    bytes.resize(4 << 20, b'n');
    assert!(message(&bytes).contains("headers of more than 1048576 bytes"), "{}", message(&bytes));
}

#[test]
fn patterns_stand_for_shards() {
    let names = |pattern: &str| -> Result<Vec<String>, String> {
        let paths = expand(Path::new(pattern), &mut PassedOver::default()).map_err(|error| error.to_string())?;
        Ok(paths.iter().map(|path| path.display().to_string()).collect())
    };
    assert_eq!(names("a-{008..010}.tar").unwrap(), ["a-008.tar", "a-009.tar", "a-010.tar"]);
    assert_eq!(names("{x,y}{1..2}").unwrap(), ["x1", "x2", "y1", "y2"]);
    assert_eq!(names("a.tar::b.tar").unwrap(), ["a.tar", "b.tar"]);
    for (pattern, expected) in [
        ("{0..4000000000}", "more than 100000 shards"),
        ("{0..99}{0..99}{0..99}", "more than 100000 shards"),
        ("{1..0}{0..9}", "ends before it starts"),
        ("{0..x}", "expected a range of numbers"),
        ("{0..1", "`{` without `}`"),
    ] {
        let message = names(pattern).unwrap_err();
        assert!(message.starts_with(pattern) && message.contains(expected), "{message}");
    }
    let same = Shards::open(Path::new("x/a.tar::y/a.tar"), |_, _| ()).unwrap_err().to_string();
    assert!(same.contains("cannot be read") || same.contains("shards of one name"), "{same}");
}

proptest! {
    #[test]
    fn any_bytes_are_read_or_refused(bytes in proptest::collection::vec(any::<u8>(), 0..2000)) {
        let _ = open(&[&bytes], "0.tar");
    }

    #[test]
    fn damaged_archives_never_panic(at in any::<prop::sample::Index>(), with in any::<[u8; 4]>(), cut in 0usize..4000) {
        let mut bytes = archive(&[("a.txt", &[1; 600]), (&"long/".repeat(40), b"x"), ("b.txt", b"y")]);
        let at = at.index(bytes.len() - 4);
        bytes[at..at + 4].copy_from_slice(&with);
        bytes.truncate(bytes.len().saturating_sub(cut.saturating_sub(3000)));
        if let Ok(members) = open(&[&bytes], "0.tar") {
            prop_assert!(members.iter().map(|(_, bytes)| bytes.len()).sum::<usize>() <= bytes.len());
        }
    }

    #[test]
    fn patterns_never_panic(pattern in "[{}.,:0-9a/]{0,12}") {
        let _ = expand(Path::new(&pattern), &mut PassedOver::default());
    }
}

#[test]
fn braces_stand_for_every_choice_and_stay_within_bounds() {
    let names = |text: &str| {
        let mut paths = Vec::new();
        braces(text, &mut paths).map(|()| paths.iter().map(|path| path.display().to_string()).collect::<Vec<_>>())
    };
    let expected = ["a-08-x.tar", "a-08-y.tar", "a-09-x.tar", "a-09-y.tar"];
    assert_eq!(names("a-{08..09}-{x,y}.tar").unwrap(), expected);
    assert_eq!(names("plain.tar").unwrap(), ["plain.tar"]);
    let many = "{a}".repeat(50_000);
    assert_eq!(names(&many).unwrap(), ["a".repeat(50_000)]);
    let wide = format!("{{{}..9}}", "0".repeat(1 << 20));
    for bad in ["{0..9}".repeat(6), "{0..4294967295}".into(), many.clone() + &"{0..9}".repeat(4), wide, "{a".into()] {
        let error = names(&bad).unwrap_err();
        assert!(error.len() < 400, "{} bytes", error.len());
    }
}
