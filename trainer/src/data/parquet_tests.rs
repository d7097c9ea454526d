use super::*;
use crate::data::formats::{Ask, Format};
use crate::data::images::ImageSource;
use crate::data::record::{Found, Select};
use parquet::data_type::{ByteArray, ByteArrayType};
use parquet::file::properties::WriterProperties;
use parquet::file::writer::SerializedFileWriter;
use parquet::schema::parser::parse_message_type;
use proptest::prelude::*;
use std::sync::LazyLock;
use tempfile::TempDir;

const ONE: &str = "message m { optional group image { optional binary bytes; optional binary path (UTF8); }
    optional binary text (UTF8); }";
const LIST: &str = "message m { optional group images (LIST) { repeated group list { optional group element {
    optional binary bytes; optional binary path (UTF8); } } }
    optional group texts (LIST) { repeated group list { optional group element {
    optional binary user (UTF8); optional binary assistant (UTF8); } } } }";

/// The values of a column with their definition and repetition levels.
type Column = (Vec<Vec<u8>>, Vec<i16>, Vec<i16>);

/// A file with a group of rows for each list of columns.
fn file(schema: &str, groups: &[Vec<Column>]) -> Vec<u8> {
    let schema = Arc::new(parse_message_type(schema).unwrap());
    let mut writer = SerializedFileWriter::new(Vec::new(), schema, Arc::new(WriterProperties::default())).unwrap();
    for columns in groups {
        let mut group = writer.next_row_group().unwrap();
        for (values, defined, repeated) in columns {
            let values: Vec<ByteArray> = values.iter().map(|value| value.clone().into()).collect();
            let mut column = group.next_column().unwrap().unwrap();
            let batch = column.typed::<ByteArrayType>();
            batch.write_batch(&values, Some(defined), Some(repeated)).unwrap();
            column.close().unwrap();
        }
        group.close().unwrap();
    }
    writer.into_inner().unwrap()
}

fn png(shade: u8) -> Vec<u8> {
    let mut bytes = std::io::Cursor::new(Vec::new());
    let image = image::RgbImage::from_pixel(5, 4, image::Rgb([shade; 3]));
    image.write_to(&mut bytes, image::ImageFormat::Png).unwrap();
    bytes.into_inner()
}

/// Two groups of three rows: an image by its bytes, by a path only, none at all; a text for each.
static FILE: LazyLock<Vec<u8>> = LazyLock::new(|| {
    let group = |first: u8| {
        let text = |i: u8| format!("text {}", first + i).into_bytes();
        vec![
            (vec![png(first)], vec![2, 1, 0], vec![0; 3]),
            (vec![b"a.png".to_vec(), b"b.png".to_vec()], vec![2, 2, 0], vec![0; 3]),
            ((0..3).map(text).collect(), vec![1; 3], vec![0; 3]),
        ]
    };
    file(ONE, &[group(10), group(20)])
});

fn open(bytes: &[u8]) -> Result<(Found, ImageSource, TempDir)> {
    let folder = TempDir::new().unwrap();
    let path = folder.path().join("t.parquet");
    std::fs::write(&path, bytes).unwrap();
    let (found, source) = Format::Parquet.open(&path, None, &Select::default(), &Ask::default())?;
    Ok((found, source, folder))
}

#[test]
fn rows_have_their_images_in_every_group() {
    let (found, source, _folder) = open(&FILE).unwrap();
    assert_eq!((found.records.len(), found.text_only, found.bad.count), (4, 2, 0));
    let last = &found.records[2];
    assert_eq!((last.id.as_str(), last.content.images[0].as_str()), ("t.parquet/3", "t.parquet/3/0"));
    assert_eq!(last.content.turns[0].answer, "text 20");
    for (row, shade) in [(0, 10), (3, 20)] {
        assert_eq!(source.load(&format!("t.parquet/{row}/0")).unwrap().get_pixel(0, 0).0, [shade; 3]);
    }
    for (name, expected) in [
        ("t.parquet/1/0", "only the path of a file"),
        ("t.parquet/0/1", "no bytes"),
        ("t.parquet/6/0", "no such row"),
        ("t.parquet/x/0", "no such image"),
        ("u.parquet/0/0", "no such image"),
    ] {
        let message = format!("{:#}", source.load(name).unwrap_err());
        assert!(message.contains(name) && (message.contains(expected) || name == "t.parquet/0/1"), "{message}");
    }
}

#[test]
fn a_row_may_have_several_images_and_turns() {
    let texts = |words: [&str; 2]| words.map(|word| word.as_bytes().to_vec()).to_vec();
    let bytes = file(
        LIST,
        &[vec![
            (vec![png(1), png(2), png(3)], vec![4, 4, 4], vec![0, 1, 0]),
            (vec![b"a".to_vec()], vec![4, 3, 3], vec![0, 1, 0]),
            (texts(["<image> or <image>?", "what?"]), vec![4, 4], vec![0, 0]),
            (texts(["one", "two"]), vec![4, 4], vec![0, 0]),
        ]],
    );
    let (found, source, _folder) = open(&bytes).unwrap();
    assert_eq!(found.bad.count, 0, "{}", found.bad.list());
    let [two, one] = &found.records[..] else { panic!("{found:?}") };
    assert_eq!(two.content.images, ["t.parquet/0/0", "t.parquet/0/1"]);
    assert_eq!(
        (two.content.turns[0].question.as_str(), one.content.turns[0].answer.as_str()),
        ("<image> or <image>?", "two")
    );
    let shades: Vec<u8> =
        ["0/0", "0/1", "1/0"].map(|name| source.load(&format!("t.parquet/{name}")).unwrap()[(0, 0)].0[0]).to_vec();
    assert_eq!(shades, [1, 2, 3]);
}

#[test]
fn what_is_no_set_of_images_is_said() {
    let message = |bytes: &[u8]| format!("{:#}", open(bytes).map(|_| ()).unwrap_err());
    assert!(message(b"PAR1 no").contains("t.parquet: not a Parquet file"));
    assert!(message(&FILE[..FILE.len() / 2]).contains("t.parquet: not a Parquet file"));
    let text = |name: &str| {
        file(
            &format!("message m {{ optional binary {name} (UTF8); }}"),
            &[vec![(vec![b"x".to_vec()], vec![1], vec![0])]],
        )
    };
    assert!(message(&text("text")).contains("no column `image` or `images` of bytes"));
    assert!(message(&text("image")).contains("nothing but images"));
}

/// A header of a page that says that a list of two thousand million numbers follows, in a field that is passed over.
#[test]
fn a_list_that_ends_behind_the_file_is_refused_at_once() {
    let mut bytes = FILE.clone();
    let reader = SerializedFileReader::new(Bytes::from(bytes.clone())).unwrap();
    let page = reader.metadata().row_group(1).column(2).data_page_offset() as usize;
    // Thrift's compact protocol: a field 15 further, a list; of doubles, its length in the next bytes: 2^31 - 1.
    let header = [0xf9, 0xf7, 0xff, 0xff, 0xff, 0xff, 0x07];
    bytes[page..page + header.len()].copy_from_slice(&header);
    let message = format!("{:#}", open(&bytes).map(|_| ()).unwrap_err());
    assert!(message.contains("t.parquet: row 3"), "{message}");
}

/// A text of half a MiB that is written once and stands in every row: 512 of them and their spare bytes are over 256 MiB.
#[test]
fn texts_beyond_all_bounds_are_refused() {
    const ROWS: usize = 600;
    let text = vec![b'x'; 512 << 10];
    let columns = vec![
        (Vec::new(), vec![0; ROWS], vec![0; ROWS]),
        (Vec::new(), vec![0; ROWS], vec![0; ROWS]),
        (vec![text; ROWS], vec![1; ROWS], vec![0; ROWS]),
    ];
    let bytes = file(ONE, &[columns]);
    assert!(bytes.len() < 2 << 20, "{} bytes", bytes.len());
    let message = format!("{:#}", open(&bytes).map(|_| ()).unwrap_err());
    assert!(message.contains("t.parquet: row 511: the texts up to here take more than"), "{message}");
}

/// Opens and reads everything there is.
fn read_all(bytes: &[u8]) {
    if let Ok((found, source, _folder)) = open(bytes) {
        for record in found.records {
            for name in record.content.images {
                let _ = source.read(&name);
            }
        }
    }
}

proptest! {
    #[test]
    fn any_bytes_are_read_or_refused(bytes in proptest::collection::vec(any::<u8>(), 0..300), ends in any::<bool>()) {
        let mut bytes = bytes;
        if ends {
            bytes.extend([40, 0, 0, 0]);
            bytes.extend(b"PAR1");
        }
        read_all(&bytes);
    }

    #[test]
    fn damaged_files_never_panic(at in any::<prop::sample::Index>(), with in any::<[u8; 2]>()) {
        let mut bytes = FILE.clone();
        let at = at.index(bytes.len() - 2);
        bytes[at..at + 2].copy_from_slice(&with);
        read_all(&bytes);
    }
}
