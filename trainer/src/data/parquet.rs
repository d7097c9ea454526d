//! Parquet files of images and texts, as the hub has data sets: an `image` column, or a list `images`, of bytes or of structs
//! with `bytes`. Texts are read once; the bytes of an image when they are asked for, by its row.

use super::files::in_folder;
use super::passed_over::PassedOver;
use anyhow::{Context, Error, Result, bail, ensure};
use bytes::Bytes;
use parquet::basic::Type as Physical;
use parquet::column::reader::ColumnReader;
use parquet::errors::ParquetError;
use parquet::file::reader::{ChunkReader, FileReader, Length, SerializedFileReader};
use parquet::record::{Field, Row};
use parquet::schema::types::{ColumnDescriptor, Type, TypePtr};
use serde_json::{Map, Value};
use std::fs::File;
use std::io::{self, BufReader, Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// The most bytes of a file's texts, and how many times as many as the file has they may be where it is large: a text that is
/// kept once may stand in every row.
const MAX_TEXTS: u64 = 256 << 20;
const MAX_GROWTH: u64 = 16;
/// The most bytes that one column of a group of rows may unpack to.
const MAX_COLUMN: i64 = 2 << 30;

/// Columns that hold images.
const IMAGES: [&str; 2] = ["image", "images"];

/// Parquet files that are one data set.
#[derive(Debug)]
pub(super) struct Tables(Vec<Table>);

struct Table {
    path: PathBuf,
    name: String,
    /// Of the whole file.
    bytes: u64,
    reader: SerializedFileReader<Whole>,
    /// The first row of each group.
    starts: Vec<usize>,
    /// The column of images, and the number of its bytes' leaf.
    images: &'static str,
    column: usize,
}

impl std::fmt::Debug for Table {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}", self.path.display())
    }
}

/// A row without its images' bytes.
pub(super) struct Texts {
    /// Its name, `train.parquet/12`.
    pub(super) name: String,
    /// Its columns.
    pub(super) record: Map<String, Value>,
    /// The names of its images, `train.parquet/12/0`.
    pub(super) images: Vec<String>,
}

impl Tables {
    /// A file, or all `.parquet` files of a folder in alphabetical order.
    ///
    /// # Errors
    /// Names the file that is damaged or has no column of images.
    pub(super) fn open(path: &Path, passed: &mut PassedOver) -> Result<Tables> {
        let paths = in_folder(path, "parquet", passed)?.unwrap_or_else(|| vec![path.to_owned()]);
        paths.into_iter().map(Table::open).collect::<Result<_>>().map(Tables)
    }

    /// Hands `see` every row in order, until it says that it has enough.
    ///
    /// # Errors
    /// Names the file and the row that cannot be read.
    pub(super) fn rows(&self, mut see: impl FnMut(Texts) -> bool) -> Result<()> {
        for table in &self.0 {
            let about = || table.path.display().to_string();
            let columns = table.texts()?;
            let most = MAX_TEXTS.max(MAX_GROWTH * table.bytes);
            let mut taken = 0;
            let mut rows = guarded(|| table.reader.get_row_iter(Some(columns))).with_context(about)?;
            for number in 0.. {
                let row = guarded(|| rows.next().transpose());
                let Some(row) = row.with_context(|| format!("{}: row {number}", about()))? else {
                    break;
                };
                let name = format!("{}/{number}", table.name);
                let mut record = object(row);
                taken += record.values().map(bytes).sum::<u64>();
                ensure!(
                    taken <= most,
                    "{}: row {number}: the texts up to here take more than {most} bytes; split the file",
                    about()
                );
                let count = match record.remove(table.images) {
                    Some(Value::Array(images)) => images.len(),
                    Some(Value::Null) => 0,
                    _ => 1,
                };
                let images = (0..count).map(|i| format!("{name}/{i}")).collect();
                if !see(Texts { name, record, images }) {
                    return Ok(());
                }
            }
        }
        Ok(())
    }

    /// The bytes of the image called `name`.
    ///
    /// # Errors
    /// When there is no such image, or its file is damaged.
    pub(super) fn read(&self, name: &str) -> Result<Vec<u8>> {
        let mut parts = name.rsplitn(3, '/');
        let mut number = || parts.next().and_then(|part| part.parse::<usize>().ok());
        let place = number().zip(number());
        let table = parts.next().and_then(|file| self.0.iter().find(|table| table.name == file));
        let ((image, row), table) = place.zip(table).with_context(|| format!("{name}: no such image"))?;
        guarded(|| table.image(row, image)).with_context(|| name.to_string())
    }
}

impl Table {
    fn open(path: PathBuf) -> Result<Table> {
        let about = || path.display().to_string();
        let length = std::fs::metadata(&path).with_context(about)?.len();
        let name = path.file_name().and_then(|name| name.to_str()).map(String::from);
        let file = Whole { path: path.clone(), length };
        let reader = guarded(|| SerializedFileReader::new(file));
        let reader = reader.with_context(|| format!("{}: not a Parquet file", about()))?;
        let metadata = reader.metadata();
        let (mut starts, mut rows) = (Vec::new(), 0usize);
        for group in metadata.row_groups() {
            let unpacked = group.columns().iter().map(|column| column.uncompressed_size());
            let largest = unpacked.max().unwrap_or(0);
            ensure!(
                largest <= MAX_COLUMN,
                "{}: a column of a group of rows takes {largest} bytes, at most {MAX_COLUMN} are read; write smaller groups",
                about()
            );
            starts.push(rows);
            let count = usize::try_from(group.num_rows()).ok();
            let all = count.and_then(|count| rows.checked_add(count));
            rows = all.with_context(|| format!("{}: {} rows in a group", about(), group.num_rows()))?;
        }
        let columns = metadata.file_metadata().schema_descr().columns();
        let leaf = |name: &&'static str| {
            let leaves = columns.iter().enumerate().filter(|(_, column)| is_image(column, name));
            // Bytes of the image itself, not of what else is kept with it.
            Some((*name, leaves.min_by_key(|(_, column)| column.path().parts().len())?.0))
        };
        let column = IMAGES.iter().find_map(leaf);
        let (images, column) =
            column.with_context(|| format!("{}: no column `image` or `images` of bytes", about()))?;
        Ok(Table {
            bytes: length,
            images,
            column,
            name: name.with_context(|| format!("{}: its name is not text", about()))?,
            path,
            reader,
            starts,
        })
    }

    /// The columns to read as texts: all but the images' bytes.
    fn texts(&self) -> Result<Type> {
        let root = self.reader.metadata().file_metadata().schema();
        let fields = root.get_fields().iter().filter_map(|field| match IMAGES.contains(&field.name()) {
            true => without_bytes(field),
            false => Some(field.clone()),
        });
        let fields: Vec<TypePtr> = fields.collect();
        let name = self.path.display();
        ensure!(!fields.is_empty(), "{name}: nothing but images");
        let has = |fields: &[TypePtr]| fields.iter().any(|field| field.name() == "images");
        ensure!(!has(root.get_fields()) || has(&fields), "{name}: images: expected structs with `bytes` and `path`");
        Ok(Type::group_type_builder(root.name()).with_fields(fields).build()?)
    }

    /// The bytes of one of a row's images.
    fn image(&self, row: usize, image: usize) -> Result<Vec<u8>> {
        let group = self.starts.partition_point(|start| *start <= row);
        let group = group.checked_sub(1).context("no rows")?;
        let reader = self.reader.get_row_group(group)?;
        let most = reader.metadata().column(self.column).column_descr().max_def_level();
        let ColumnReader::ByteArrayColumnReader(mut column) = reader.get_column_reader(self.column)? else {
            bail!("images that are not bytes");
        };
        let before = row - self.starts[group];
        ensure!(column.skip_records(before)? == before, "no such row");
        let (mut levels, mut repeated, mut values) = (Vec::new(), Vec::new(), Vec::new());
        let (records, ..) = column.read_records(1, Some(&mut levels), Some(&mut repeated), &mut values)?;
        ensure!(records == 1, "no such row");
        let here = most == 0 || levels.get(image).is_some_and(|level| *level == most);
        ensure!(here, "has no bytes: only the path of a file that is not in the data set");
        let before = levels.iter().take(image).filter(|level| **level == most).count();
        Ok(values.get(before).context("no bytes")?.data().to_vec())
    }
}

/// About how many bytes a value takes.
fn bytes(value: &Value) -> u64 {
    match value {
        Value::String(text) => text.len() as u64,
        Value::Array(items) => items.iter().map(bytes).sum(),
        Value::Object(fields) => fields.values().map(bytes).sum(),
        _ => 8,
    }
}

/// What a reader that panics on damaged files gives.
fn guarded<T, E: Into<Error>>(work: impl FnOnce() -> Result<T, E>) -> Result<T> {
    model::guarded(|| work().map_err(Into::into))
}

/// Whether a leaf of the column `name` holds images' bytes: `image`, `image.bytes`, `images.list.element.bytes`.
fn is_image(column: &ColumnDescriptor, name: &str) -> bool {
    let parts = column.path().parts();
    let (first, last) = (parts.first(), parts.last());
    column.physical_type() == Physical::BYTE_ARRAY
        && first.is_some_and(|first| first == name)
        && (parts.len() == 1 || last.is_some_and(|name| name == "bytes"))
}

/// A type without its leaf `bytes`; none where nothing else is left.
fn without_bytes(field: &TypePtr) -> Option<TypePtr> {
    if field.is_primitive() {
        return (field.name() != "bytes" && !IMAGES.contains(&field.name())).then(|| field.clone());
    }
    let fields: Vec<TypePtr> = field.get_fields().iter().filter_map(without_bytes).collect();
    if fields.is_empty() {
        return None;
    }
    let info = field.get_basic_info();
    let mut kept = Type::group_type_builder(field.name())
        .with_converted_type(info.converted_type())
        .with_logical_type(info.logical_type_ref().cloned())
        .with_fields(fields);
    if info.has_repetition() {
        kept = kept.with_repetition(info.repetition());
    }
    kept.build().ok().map(Arc::new)
}

/// A row as JSON; columns that have no counterpart there are left out.
fn object(row: Row) -> Map<String, Value> {
    let columns = row.into_columns().into_iter();
    columns.filter_map(|(name, field)| Some((name, value(field)?))).collect()
}

fn value(field: Field) -> Option<Value> {
    Some(match field {
        Field::Null => Value::Null,
        Field::Bool(value) => value.into(),
        Field::Int(value) => value.into(),
        Field::Long(value) => value.into(),
        Field::UInt(value) => value.into(),
        Field::ULong(value) => value.into(),
        Field::Double(value) => value.into(),
        Field::Str(text) => text.into(),
        Field::Group(row) => object(row).into(),
        Field::ListInternal(list) => list.elements().iter().cloned().filter_map(value).collect(),
        _ => return None,
    })
}

/// A file that is opened anew for each read, so that threads do not share a place in it, and never read beyond its end.
struct Whole {
    path: PathBuf,
    length: u64,
}

impl Length for Whole {
    fn len(&self) -> u64 {
        self.length
    }
}

impl ChunkReader for Whole {
    type T = BufReader<ToTheEnd>;

    fn get_read(&self, start: u64) -> Result<Self::T, ParquetError> {
        let mut file = model::open_file(&self.path)?;
        file.seek(SeekFrom::Start(start))?;
        Ok(BufReader::new(ToTheEnd(file)))
    }

    fn get_bytes(&self, start: u64, length: usize) -> Result<Bytes, ParquetError> {
        let inside = start.checked_add(length as u64).is_some_and(|end| end <= self.length);
        if !inside {
            let message = format!("{length} bytes at {start} are beyond the file's {}: truncated", self.length);
            return Err(ParquetError::General(message));
        }
        let mut bytes = vec![0; length];
        self.get_read(start)?.read_exact(&mut bytes)?;
        Ok(bytes.into())
    }
}

/// A file of which nothing is read behind its end: a page's header that speaks of thousands of millions of values is otherwise
/// skipped one by one, with zero bytes read for each.
struct ToTheEnd(File);

impl Read for ToTheEnd {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        match self.0.read(into)? {
            0 if !into.is_empty() => Err(io::ErrorKind::UnexpectedEof.into()),
            read => Ok(read),
        }
    }
}

#[cfg(test)]
#[path = "parquet_tests.rs"]
mod tests;
