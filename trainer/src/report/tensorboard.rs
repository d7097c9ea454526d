//! `tensorboard/events.out.tfevents.<time>.lenslet`: a run's curves as TensorBoard reads them.
//!
//! Records are framed as TFRecord frames them (length, its masked CRC-32C, bytes, their masked CRC-32C) and hold `Event`
//! messages in protobuf's wire format. The horizontal axis counts the steps of all phases together, so that it grows
//! throughout a run, which is what TensorBoard expects.
//!
//! A run that goes on from a checkpoint voids the steps behind it. They are cut off from the files, since TensorBoard's
//! quick reader (`--load_fast=true`) does not heed a `SessionLog`; and a `SessionLog` says so, too, to a TensorBoard that
//! has read them already.

use crate::eval::Figures;
use crate::metrics::StepMetrics;
use crate::run_folder::{explain, open_own};
use anyhow::{Context, Result};
use std::fs::{self, File, OpenOptions};
use std::io::{BufReader, ErrorKind, Read, Write};
use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};

/// What stands in front of the time in a file's name.
const PREFIX: &str = "events.out.tfevents.";
/// Castagnoli's polynomial, bits reversed.
const CASTAGNOLI: u32 = 0x82f6_3b78;
/// `SessionLog.status`: a program (re)starts; what came before at this step or later is void.
const START: u64 = 1;

/// One process's share of a run's events.
#[derive(Debug)]
pub struct Board {
    path: PathBuf,
    file: File,
    /// The last step there is.
    last: usize,
}

impl Board {
    /// Starts a file in `folder`, behind the first `step` steps of the run. Events of later steps, which were lost, are
    /// cut off from the files of earlier processes, and a TensorBoard that has read them is told to forget them.
    pub fn start(folder: &Path, step: usize) -> Result<Board> {
        fs::create_dir_all(folder).with_context(|| format!("{}: cannot be made", folder.display()))?;
        forget(folder, step)?;
        let (path, file) = create(folder)?;
        let mut board = Board { path, file, last: step };
        board.event(0, &string(3, "brain.Event:2"))?;
        board.event(step + 1, &message(7, &varint(1, START)))?;
        Ok(board)
    }

    /// Adds what was measured at a step, counted over all phases.
    pub fn step(&mut self, step: usize, line: &StepMetrics) -> Result<()> {
        self.last = step;
        let scalars: Vec<(String, f64)> = line.scalars().collect();
        self.scalars(step, scalars.iter().map(|(tag, value)| (tag.as_str(), *value)))
    }

    /// Adds the evaluation of the model after the last step, as `eval/…`.
    pub fn figures(&mut self, figures: &Figures) -> Result<()> {
        let tagged: Vec<(String, f64)> = figures.iter().map(|(key, v)| (format!("eval/{key}"), *v)).collect();
        self.scalars(self.last, tagged.iter().map(|(tag, value)| (tag.as_str(), *value)))
    }

    fn scalars<'s>(&mut self, step: usize, scalars: impl Iterator<Item = (&'s str, f64)>) -> Result<()> {
        let value = |(tag, value): (&str, f64)| message(1, &[string(1, tag), float(2, value as f32)].concat());
        let summary: Vec<u8> = scalars.flat_map(value).collect();
        self.event(step, &message(5, &summary))
    }

    /// Appends an event: its time, its step and what it holds.
    fn event(&mut self, step: usize, what: &[u8]) -> Result<()> {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let event = [&double(1, now.as_secs_f64())[..], &varint(2, step as u64), what].concat();
        let record = frame(&event);
        let written = self.file.write_all(&record);
        written.map_err(|error| explain(error, &self.path, record.len()))
    }
}

/// A new file, named by the second; by a later one where several start within a second.
fn create(folder: &Path) -> Result<(PathBuf, File)> {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    let mut second = now.as_secs();
    loop {
        let path = folder.join(format!("{PREFIX}{second:010}.lenslet"));
        match OpenOptions::new().append(true).create_new(true).open(&path) {
            Ok(file) => return Ok((path, file)),
            Err(error) if error.kind() == ErrorKind::AlreadyExists => second += 1,
            Err(error) => return Err(explain(error, &path, 0)),
        }
    }
}

/// Cuts every file of `folder` in front of its first event of a step behind `step`, and in front of a record that a process
/// left unfinished when it was killed.
fn forget(folder: &Path, step: usize) -> Result<()> {
    for entry in fs::read_dir(folder).with_context(|| folder.display().to_string())? {
        let path = entry?.path();
        let name = path.file_name().map(|name| name.to_string_lossy().into_owned());
        if !name.is_some_and(|name| name.starts_with(PREFIX)) {
            continue;
        }
        let cannot = || format!("{}: cannot be cut", path.display());
        let file = open_own(&path, OpenOptions::new().read(true).write(true)).with_context(cannot)?;
        let (mut kept, mut reader) = (0, BufReader::new(&file));
        while let Some(event) = record(&mut reader).filter(|event| step_of(event) <= step as u64) {
            kept += (event.len() + FRAME) as u64;
        }
        file.set_len(kept).with_context(cannot)?;
    }
    Ok(())
}

/// Bytes of a record beside what it holds.
const FRAME: usize = 16;
/// Bytes an event of ours has at the most, by far.
const MOST: u64 = 1 << 20;

fn frame(data: &[u8]) -> Vec<u8> {
    let length = (data.len() as u64).to_le_bytes();
    let (of_length, of_data) = (masked_crc(&length).to_le_bytes(), masked_crc(data).to_le_bytes());
    [&length[..], &of_length, data, &of_data].concat()
}

/// The next record's contents; None where no whole one is left.
fn record(reader: &mut impl Read) -> Option<Vec<u8>> {
    let mut head = [0; 12];
    reader.read_exact(&mut head).ok()?;
    let (length, sum) = head.split_first_chunk::<8>()?;
    let size = u64::from_le_bytes(*length);
    if sum != masked_crc(length).to_le_bytes() || size > MOST {
        return None;
    }
    let mut data = vec![0; size as usize];
    reader.read_exact(&mut data).ok()?;
    let mut sum = [0; 4];
    reader.read_exact(&mut sum).ok()?;
    (sum == masked_crc(&data).to_le_bytes()).then_some(data)
}

/// A checksum of bytes that may hold checksums, turned and shifted as TFRecord has it.
fn masked_crc(bytes: &[u8]) -> u32 {
    crc32c(bytes).rotate_right(15).wrapping_add(0xa282_ead8)
}

fn crc32c(bytes: &[u8]) -> u32 {
    const TABLE: [u32; 256] = crc_table();
    !bytes.iter().fold(!0, |crc, byte| (crc >> 8) ^ TABLE[((crc ^ u32::from(*byte)) & 0xff) as usize])
}

const fn crc_table() -> [u32; 256] {
    let (mut table, mut byte) = ([0; 256], 0);
    while byte < 256 {
        let (mut crc, mut bit) = (byte as u32, 0);
        while bit < 8 {
            crc = (crc >> 1) ^ (CASTAGNOLI * (crc & 1));
            bit += 1;
        }
        table[byte] = crc;
        byte += 1;
    }
    table
}

/// The step of an event that [`Board`] wrote: time (nine bytes), then the step.
fn step_of(event: &[u8]) -> u64 {
    let bytes = event.get(10..).unwrap_or_default().iter().take(10);
    let mut step = 0;
    for (place, byte) in bytes.enumerate() {
        step |= u64::from(byte & 0x7f).checked_shl(7 * place as u32).unwrap_or(0);
        if byte & 0x80 == 0 {
            break;
        }
    }
    step
}

fn key(field: u32, wire: u32) -> u8 {
    (field << 3 | wire) as u8
}

fn varint(field: u32, value: u64) -> Vec<u8> {
    let mut bytes = vec![key(field, 0)];
    bytes.extend(bare_varint(value));
    bytes
}

fn bare_varint(mut value: u64) -> Vec<u8> {
    let mut bytes = Vec::new();
    while value >= 0x80 {
        bytes.push(value as u8 | 0x80);
        value >>= 7;
    }
    bytes.push(value as u8);
    bytes
}

fn double(field: u32, value: f64) -> Vec<u8> {
    [&[key(field, 1)][..], &value.to_le_bytes()].concat()
}

fn float(field: u32, value: f32) -> Vec<u8> {
    [&[key(field, 5)][..], &value.to_le_bytes()].concat()
}

fn message(field: u32, bytes: &[u8]) -> Vec<u8> {
    [&[key(field, 2)][..], &bare_varint(bytes.len() as u64), bytes].concat()
}

fn string(field: u32, text: &str) -> Vec<u8> {
    message(field, text.as_bytes())
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// The steps of a folder's events, file by file.
    fn steps(folder: &Path) -> Vec<Vec<u64>> {
        let mut paths: Vec<PathBuf> = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect();
        paths.sort();
        let of = |path: &PathBuf| {
            let bytes = fs::read(path).unwrap();
            let mut rest = &bytes[..];
            let found: Vec<u64> = std::iter::from_fn(|| record(&mut rest)).map(|event| step_of(&event)).collect();
            assert!(rest.is_empty(), "{} bytes are no record", rest.len());
            found
        };
        paths.iter().map(of).collect()
    }

    #[test]
    fn checksums_are_those_of_the_standard() {
        // RFC 3720, B.4, and the check value of the CRC catalogue.
        assert_eq!(crc32c(&[0; 32]), 0x8a91_36aa);
        assert_eq!(crc32c(&[0xff; 32]), 0x62a8_ab43);
        assert_eq!(crc32c(&(0..32).collect::<Vec<u8>>()), 0x46dd_794e);
        assert_eq!(crc32c(b"123456789"), 0xe306_9283);
    }

    #[test]
    fn an_event_is_the_bytes_that_protobuf_writes() {
        let summary = message(5, &message(1, &[string(1, "loss"), float(2, 1.5)].concat()));
        let event = [double(1, 2.0), varint(2, 300), summary].concat();
        let expected = b"\x09\0\0\0\0\0\0\0\x40\x10\xac\x02\x2a\x0d\x0a\x0b\x0a\x04loss\x15\0\0\xc0\x3f";
        assert_eq!(event, expected);
        assert_eq!(step_of(&event), 300);
        assert_eq!(record(&mut &frame(&event)[..]), Some(event));
    }

    #[test]
    fn going_on_forgets_the_steps_that_were_lost() {
        let folder = tempfile::tempdir().unwrap();
        let line = StepMetrics::default();
        let mut board = Board::start(folder.path(), 0).unwrap();
        (1..=300).for_each(|step| board.step(step, &line).unwrap());
        // Killed in the midst of a record.
        board.file.write_all(&frame(b"half")[..9]).unwrap();
        let mut board = Board::start(folder.path(), 200).unwrap();
        board.step(201, &line).unwrap();
        let first = [0, 1].into_iter().chain(1..=200).collect();
        assert_eq!(steps(folder.path()), [first, vec![0, 201, 201]]);
        let figures = Figures::from([("count.accuracy".into(), 0.5)]);
        Board::start(folder.path(), 0).unwrap().figures(&figures).unwrap();
        assert_eq!(steps(folder.path()), [vec![0], vec![0], vec![0, 1, 0]]);
    }

    #[test]
    fn other_files_of_the_folder_are_left_alone() {
        let folder = tempfile::tempdir().unwrap();
        fs::write(folder.path().join("notes.txt"), "mine").unwrap();
        Board::start(folder.path(), 3).unwrap();
        assert_eq!(fs::read(folder.path().join("notes.txt")).unwrap(), b"mine");
    }

    proptest! {
        #[test]
        fn any_bytes_are_read_without_a_panic(bytes in prop::collection::vec(any::<u8>(), 0..64), at in 0usize..40) {
            step_of(&bytes);
            record(&mut &bytes[..]);
            let mut framed = frame(&bytes);
            prop_assert_eq!(record(&mut &framed[..]).unwrap(), bytes);
            let place = at % framed.len();
            framed[place] ^= 1;
            prop_assert!(record(&mut &framed[..]).is_none(), "a bit that fell over is found");
        }
    }
}
