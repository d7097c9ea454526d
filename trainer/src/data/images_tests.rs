use super::*;
use proptest::prelude::*;
use std::io::{Cursor, Write};
use std::sync::LazyLock;
use zip::write::{SimpleFileOptions, ZipWriter};

static PICTURE: LazyLock<RgbImage> =
    LazyLock::new(|| RgbImage::from_fn(23, 17, |x, y| image::Rgb([(x * 11) as u8, (y * 15) as u8, (x * y) as u8])));
/// The picture as a PNG and a JPEG.
static FILES: LazyLock<[Vec<u8>; 2]> = LazyLock::new(|| {
    [image::ImageFormat::Png, image::ImageFormat::Jpeg].map(|format| {
        let mut bytes = Cursor::new(Vec::new());
        PICTURE.write_to(&mut bytes, format).unwrap();
        bytes.into_inner()
    })
});

fn message(result: Result<RgbImage>) -> String {
    format!("{:#}", result.unwrap_err())
}

fn zip_with(path: &Path, entries: &[(&str, &[u8])]) {
    let mut zip = ZipWriter::new(File::create(path).unwrap());
    for (name, bytes) in entries {
        zip.start_file(*name, SimpleFileOptions::default().compression_method(CompressionMethod::Stored)).unwrap();
        zip.write_all(bytes).unwrap();
    }
    zip.finish().unwrap();
}

#[test]
fn folders_and_zips_give_the_same_image_and_name_what_is_missing() {
    let folder = tempfile::tempdir().unwrap();
    let archive = folder.path().join("images.zip");
    std::fs::create_dir(folder.path().join("sub")).unwrap();
    std::fs::write(folder.path().join("sub/a.png"), &FILES[0]).unwrap();
    std::fs::write(folder.path().join("cut.jpg"), &FILES[1][..200]).unwrap();
    zip_with(&archive, &[("sub/a.png", &FILES[0]), ("cut.jpg", &FILES[1][..200])]);
    for path in [folder.path(), &archive] {
        let source = ImageSource::open(path).unwrap();
        assert_eq!(source.load("sub/a.png").unwrap(), *PICTURE);
        assert!(message(source.load("b.png")).contains("b.png"));
        let cut = message(source.load("cut.jpg"));
        assert!(cut.contains("cut.jpg") && cut.contains("truncated JPEG"), "{cut}");
    }
    let text = format!("{:#}", ImageSource::open(&folder.path().join("cut.jpg")).unwrap_err());
    assert!(text.contains("neither a folder nor a zip"), "{text}");
    assert!(ImageSource::open(&folder.path().join("none")).is_err());
}

#[test]
fn names_that_leave_the_source_are_refused() {
    let outer = tempfile::tempdir().unwrap();
    let inner = outer.path().join("images");
    std::fs::create_dir(&inner).unwrap();
    std::fs::write(outer.path().join("secret.png"), &FILES[0]).unwrap();
    let archive = outer.path().join("images.zip");
    zip_with(&archive, &[("../secret.png", &FILES[0])]);
    let absolute = outer.path().join("secret.png").display().to_string();
    for path in [&inner, &archive] {
        let source = ImageSource::open(path).unwrap();
        for name in [
            "../secret.png",
            "x/../../secret.png",
            "./../secret.png",
            &absolute,
            "",
            "C:x.png",
            "..\\secret.png",
            "a\0b",
        ] {
            let text = message(source.load(name));
            assert!(text.contains("not a name within the image folder"), "{name}: {text}");
        }
    }
}

#[test]
fn compressed_entries_are_refused_with_what_to_do() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("a.zip");
    zip_with(&path, &[("a.png", &FILES[0])]);
    let mut bytes = std::fs::read(&path).unwrap();
    let central = bytes.windows(4).position(|w| w == b"PK\x01\x02").unwrap();
    (bytes[8], bytes[central + 10]) = (8, 8);
    std::fs::write(&path, bytes).unwrap();
    let text = message(ImageSource::open(&path).unwrap().load("a.png"));
    assert!(text.contains("a.png: compressed (Deflate") && text.contains("zip -0"), "{text}");
}

fn tar_with(path: &Path, entries: &[(&str, &[u8])]) {
    let mut tar = tar::Builder::new(File::create(path).unwrap());
    for (name, bytes) in entries {
        let mut header = tar::Header::new_gnu();
        header.set_size(bytes.len() as u64);
        tar.append_data(&mut header, name, *bytes).unwrap();
    }
    tar.finish().unwrap();
}

#[test]
fn images_of_a_tar_are_read_where_they_lie() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("a.tar");
    tar_with(&path, &[("sub/a.png", &FILES[0]), ("cut.jpg", &FILES[1][..200])]);
    let source = ImageSource::open(&path).unwrap();
    assert_eq!(source.load("a.tar/sub/a.png").unwrap(), *PICTURE);
    let cut = message(source.load("a.tar/cut.jpg"));
    assert!(cut.contains("a.tar/cut.jpg") && cut.contains("truncated JPEG"), "{cut}");
    assert!(message(source.load("a.tar/b.png")).starts_with("a.tar/b.png: not in "));
    for name in ["sub/a.png", "./sub/a.png", "a.tar/./sub/a.png"] {
        assert_eq!(source.load(name).unwrap(), *PICTURE, "{name}");
    }
    // A name without its shard must be of one of them.
    let other = folder.path().join("b.tar");
    tar_with(
        &other,
        &[("sub/a.png", &FILES[0]), ("only.png", &FILES[0]), ("two.png", &FILES[0]), ("./two.png", &FILES[1])],
    );
    let both = ImageSource::open(&folder.path().join("{a,b}.tar")).unwrap();
    assert_eq!(both.load("only.png").unwrap(), *PICTURE);
    for (name, expected) in
        [("sub/a.png", "a.tar and in "), ("b.tar/two.png", "2 members of this name"), ("no.png", "b.tar")]
    {
        let text = message(both.load(name));
        assert!(text.contains(expected) || text.contains("1 other shards"), "{text}");
        assert!(!both.has(name), "{name}");
    }
}

fn replaced(bytes: &[u8], from: &[u8], to: &[u8]) -> Vec<u8> {
    let mut bytes = bytes.to_vec();
    for at in 0..bytes.len() - from.len() {
        if bytes[at..].starts_with(from) {
            bytes[at..at + from.len()].copy_from_slice(to);
        }
    }
    bytes
}

/// A file is told from another of its name and size by its start and its end, wherever it is kept.
#[test]
fn a_fingerprint_is_of_both_ends() {
    let folder = tempfile::tempdir().unwrap();
    for length in [0, 1, 5_000, 9_000, 20_000] {
        let (file, tar) = (folder.path().join("a.png"), folder.path().join("a.tar"));
        let print = |bytes: &[u8]| {
            std::fs::write(&file, bytes).unwrap();
            zip_with(&folder.path().join("a.zip"), &[("a.png", bytes)]);
            let mut archive = tar::Builder::new(File::create(&tar).unwrap());
            archive.append_path_with_name(&file, "a.png").unwrap();
            archive.finish().unwrap();
            let sources =
                [folder.path(), &folder.path().join("a.zip"), &tar].map(|path| ImageSource::open(path).unwrap());
            let [one, two, three] = sources.map(|source| source.fingerprint("a.png").unwrap());
            assert_eq!((one, one), (two, three));
            one
        };
        let mut bytes = vec![7; length];
        let mut seen = std::collections::HashSet::from([print(&bytes)]);
        let mut changed = 0;
        for at in [0, 1, length / 2, length.saturating_sub(4_000), length.saturating_sub(1)] {
            if at < length && (at < 8192 || at + 8192 >= length) && bytes[at] == 7 {
                bytes[at] = 8;
                changed += 1;
                seen.insert(print(&bytes));
            }
        }
        assert_eq!(seen.len(), 1 + changed, "{length}");
    }
}

#[test]
fn names_are_read_as_people_write_them() {
    let folder = tempfile::tempdir().unwrap();
    let inner = folder.path().join("images");
    std::fs::create_dir_all(inner.join("sub")).unwrap();
    std::fs::write(inner.join("sub/a.png"), &FILES[0]).unwrap();
    let link = folder.path().join("link");
    std::os::unix::fs::symlink(&inner, &link).unwrap();
    let archive = folder.path().join("images.zip");
    zip_with(
        &archive,
        &[("sub\\a.png", &FILES[0]), ("./b.png", &FILES[0]), ("c.png", &FILES[0]), ("./c.png", &FILES[1])],
    );
    let absolute = |folder: &Path| folder.join("sub/a.png").display().to_string();
    for (path, names) in [
        (&inner, vec![absolute(&inner), absolute(&link)]),
        (&link, vec![absolute(&inner), absolute(&link)]),
        (&archive, vec!["./b.png".into(), "b.png".into()]),
    ] {
        let source = ImageSource::open(path).unwrap();
        let usual = ["sub/a.png", "./sub/a.png", "sub//a.png", "sub\\a.png", "x/../sub/a.png"].map(String::from);
        for name in usual.into_iter().chain(names) {
            assert_eq!(source.load(&name).unwrap(), *PICTURE, "{}: {name}", path.display());
            assert!(source.has(&name));
        }
    }
    let zip = ImageSource::open(&archive).unwrap();
    assert!(message(zip.load("c.png")).contains("c.png: two entries of this name"));
    // As Python and other tools write it when a file is added again.
    let archive = folder.path().join("twice.zip");
    zip_with(&archive, &[("d.png", &FILES[0]), ("e.png", &FILES[0]), ("f.png", &FILES[1])]);
    let bytes = std::fs::read(&archive).unwrap();
    std::fs::write(&archive, replaced(&bytes, b"f.png", b"d.png")).unwrap();
    let zip = ImageSource::open(&archive).unwrap();
    assert!(message(zip.load("d.png")).contains("d.png: two entries of this name"));
    assert_eq!(zip.load("e.png").unwrap(), *PICTURE);
    assert_eq!(ImageSource::open(&inner).unwrap().relative(&absolute(&link)).unwrap(), "sub/a.png");
}

proptest! {
    #[test]
    fn damaged_zips_never_panic(at in any::<prop::sample::Index>(), with in any::<[u8; 4]>()) {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a.zip");
        zip_with(&path, &[("a.png", &FILES[0]), ("b.png", &FILES[0])]);
        let mut bytes = std::fs::read(&path).unwrap();
        let at = at.index(bytes.len() - 4);
        bytes[at..at + 4].copy_from_slice(&with);
        std::fs::write(&path, bytes).unwrap();
        if let Ok(source) = ImageSource::open(&path) {
            let _ = source.load("a.png");
            let _ = source.load("b.png");
        }
    }
}
