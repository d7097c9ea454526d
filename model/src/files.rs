//! Files that are whole or absent, and no longer than expected.

use crate::error::at;
use serde::de::DeserializeOwned;
use std::fs::{File, Metadata, OpenOptions};
use std::io::{Error, ErrorKind, Read, Result};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

/// Lets `write` fill a temporary file beside `path`, makes sure it is on the disk, and renames it to `path`: after a crash
/// there is the whole file, the one before it, or none.
///
/// # Errors
/// Those of the file system; nothing is left behind then.
pub fn write_atomically(path: &Path, write: impl FnOnce(&mut File) -> Result<()>) -> Result<()> {
    // A rename would take the place of a link or a device.
    if std::fs::symlink_metadata(path).is_ok_and(|about| !about.is_file()) {
        return Err(Error::other("a link, a folder, a pipe or a device is there"));
    }
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty());
    let folder = folder.unwrap_or(Path::new("."));
    let mut builder = tempfile::Builder::new();
    builder.prefix(".tmp-");
    // Temporary files are private by default; this one becomes an ordinary one, as readable as the umask allows.
    builder.permissions(std::os::unix::fs::PermissionsExt::from_mode(0o666));
    let mut file = builder.tempfile_in(folder)?;
    write(file.as_file_mut())?;
    file.as_file().sync_all()?;
    file.persist(path)?;
    // The rename itself is on the disk once the folder is.
    File::open(folder)?.sync_all()?;
    Ok(())
}

/// Opens a file to read: a pipe, a device or a folder may have no end.
///
/// # Errors
/// Those of the file system; where it is no regular file.
pub fn open_file(path: &Path) -> Result<File> {
    // Some devices act when they are opened; and a pipe that nobody writes to would have this wait.
    let regular = |about: Metadata| about.is_file().then_some(()).ok_or_else(not_regular);
    regular(std::fs::metadata(path)?)?;
    let flags = rustix::fs::OFlags::NONBLOCK.bits() as i32;
    let file = OpenOptions::new().read(true).custom_flags(flags).open(path)?;
    regular(file.metadata()?)?;
    Ok(file)
}

fn not_regular() -> Error {
    let what = "a folder, a pipe, a socket or a device, not a regular file";
    Error::new(ErrorKind::InvalidInput, what)
}

/// All bytes of a file, of which there are at most `most`, whatever the system says of its size.
///
/// # Errors
/// As [`open_file`]; where there are more.
pub fn read_file(path: &Path, most: u64) -> Result<Vec<u8>> {
    let mut bytes = Vec::new();
    let file = open_file(path)?;
    let beyond = || Error::new(ErrorKind::FileTooLarge, format!("more than {most} bytes, the most that are read"));
    // Known at once of most files; others say less than they have.
    if file.metadata()?.len() > most {
        return Err(beyond());
    }
    file.take(most.saturating_add(1)).read_to_end(&mut bytes)?;
    if bytes.len() as u64 > most { Err(beyond()) } else { Ok(bytes) }
}

/// The content of a model's file of at most `most` bytes.
pub(crate) fn read_up_to(path: &Path, most: u64) -> crate::error::Result<Vec<u8>> {
    let bytes = read_file(path, most).map_err(at(path))?;
    match other_kind(&bytes) {
        Some(message) => Err(at(path)(message)),
        None => Ok(bytes),
    }
}

/// What is to be said of a model's file that starts like one of another kind.
pub(crate) fn other_kind(start: &[u8]) -> Option<String> {
    let kind = file_kind(start)?;
    Some(format!("{kind}, not what its name says; `hf download OWNER/NAME` fetches whole files"))
}

/// JSON as Python's `json` writes and reads it: `NaN` and infinities, which the format does not have, become texts, so that
/// they do no harm in a field nobody reads, and are named where one is read as a number.
pub(crate) fn parse_json<T: DeserializeOwned>(path: &Path, bytes: &[u8]) -> crate::error::Result<T> {
    serde_json::from_slice(bytes)
        .or_else(|error| serde_json::from_slice(&quote_constants(bytes)).map_err(|_| error))
        .map_err(at(path))
}

/// Puts quotes around Python's constants that are outside texts.
fn quote_constants(bytes: &[u8]) -> Vec<u8> {
    let constants: [&[u8]; 3] = [b"NaN", b"-Infinity", b"Infinity"];
    let mut quoted = Vec::with_capacity(bytes.len());
    let (mut rest, mut inside) = (bytes, false);
    while let Some(&byte) = rest.first() {
        let constant = constants.iter().find(|constant| !inside && rest.starts_with(constant));
        let taken = match constant {
            Some(constant) => constant.len(),
            // An escaped quote ends no text.
            None if inside && byte == b'\\' => 2.min(rest.len()),
            None => 1,
        };
        let quote = constant.map(|_| b'"');
        quoted.extend(quote.into_iter().chain(rest[..taken].iter().copied()).chain(quote));
        inside ^= byte == b'"';
        rest = &rest[taken..];
    }
    quoted
}

/// What a file is that was taken for another, by how it starts; none where that is not known.
pub fn file_kind(start: &[u8]) -> Option<&'static str> {
    const KINDS: [(&[u8], &str); 23] = [
        (b"GIF8", "a GIF"),
        (b"BM", "a BMP"),
        (b"II*\0", "a TIFF"),
        (b"MM\0*", "a TIFF"),
        (b"\x89PNG", "a PNG"),
        (b"\xff\xd8\xff", "a JPEG"),
        (b"\xff\x0a", "a JPEG XL"),
        (b"\0\0\0\x0cJXL ", "a JPEG XL"),
        (b"\0\0\0\x0cjP  ", "a JPEG 2000"),
        (b"8BPS", "a Photoshop file"),
        (b"%PDF", "a PDF"),
        (b"<svg", "an SVG"),
        (b"<!doctype html", "an HTML page"),
        (b"<html", "an HTML page"),
        (b"<?xml", "an XML file"),
        (b"PK\x03\x04", "a zip"),
        (b"\x1f\x8b", "a gzip"),
        (b"\x28\xb5\x2f\xfd", "a zstd file"),
        (b"7z\xbc\xaf", "a 7-Zip"),
        (b"PAR1", "a Parquet file"),
        (b"\0\x05\x16\x07", "an AppleDouble file of macOS, without the data"),
        (
            b"version https://git-lfs.github.com/spec/",
            "a Git LFS pointer in place of the file (fetch it with `git lfs pull`)",
        ),
        (b"\xff\xfe", "UTF-16 text"),
    ];
    let text = start.strip_prefix(b"\xef\xbb\xbf").unwrap_or(start);
    let text = text.trim_ascii_start();
    let starts = |with: &[u8]| {
        let of = |bytes: &[u8]| bytes.get(..with.len()).is_some_and(|start| start.eq_ignore_ascii_case(with));
        // Markup may stand behind white space; what is no text starts at once.
        of(start) || with[0] == b'<' && of(text)
    };
    match start.get(4..12) {
        _ if start.is_empty() => Some("an empty file"),
        Some(brand) if brand.starts_with(b"ftypavi") => Some("an AVIF"),
        Some(brand) if [b"ftyphei", b"ftyphev", b"ftypmif", b"ftypmsf"].iter().any(|heif| brand.starts_with(*heif)) => {
            Some("a HEIC")
        }
        Some(brand) if brand.starts_with(b"ftyp") => Some("a video"),
        _ if start.starts_with(b"RIFF") && start.get(8..12) == Some(b"WEBP") => Some("a WebP"),
        _ => KINDS.iter().find(|(with, _)| starts(with)).map(|(_, kind)| *kind),
    }
}

#[cfg(test)]
mod tests {
    use super::file_kind;

    #[test]
    fn files_are_known_by_how_they_start() {
        for (start, expected) in [
            (&b"GIF89a\x01\0"[..], Some("a GIF")),
            (b"\0\0\0\x1cftypavif\0\0", Some("an AVIF")),
            (b"\0\0\0\x18ftypheic\0\0", Some("a HEIC")),
            (b"\0\0\0\x18ftypmp42\0\0", Some("a video")),
            (b"\n <!DOCTYPE HTML><title>404", Some("an HTML page")),
            (b"\xef\xbb\xbf<html>", Some("an HTML page")),
            (b"\n BM", None),
            (b"RIFF\x10\0\0\0WEBPVP8 ", Some("a WebP")),
            (b"", Some("an empty file")),
            (b"{\"a\": 1}", None),
        ] {
            assert_eq!(file_kind(start), expected, "{start:?}");
        }
        let pointer = b"version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 5\n";
        assert!(file_kind(pointer).is_some_and(|kind| kind.contains("git lfs pull")));
    }
}
