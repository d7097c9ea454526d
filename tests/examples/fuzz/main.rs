//! Hands files with mistakes to every reader; docs/security.md says how to build and run it.
//!
//! Each try takes a whole folder, changes one of its files or two, and has the reader read it in a process that is watched:
//! one that panics, ends, takes longer than five seconds or more than a gibibyte is a fault, and its folder is kept.

mod mutate;
mod readers;

use clap::Parser;
use rand::seq::IteratorRandom;
use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;
use readers::{Files, READERS, Reader};
use rustix::process::{Resource, Rlimit, setrlimit};
use std::error::Error;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitCode, Stdio};
use std::time::{Duration, Instant};

/// What a reader may take of memory beyond what its process has at its start.
const MEMORY: u64 = 1 << 30;
/// How long one try may take.
const PATIENCE: Duration = Duration::from_secs(5);

type Result<T> = std::result::Result<T, Box<dyn Error>>;

/// Hands files with mistakes to readers of files.
#[derive(Parser)]
struct Arguments {
    /// Which readers; all where none is named.
    readers: Vec<String>,
    /// How long each is tried, in seconds.
    #[arg(long, default_value_t = 60)]
    seconds: u64,
    /// How often each is tried at the most.
    #[arg(long, default_value_t = u64::MAX)]
    tries: u64,
    /// Draws the mistakes.
    #[arg(long, default_value_t = 0)]
    seed: u64,
    /// Where the folders of faults are kept.
    #[arg(long, default_value = "target/fuzz")]
    keep: PathBuf,
    /// Only this try, in this very process: for a debugger.
    #[arg(long)]
    only: Option<u64>,
    /// The side that reads, from this try on in this folder.
    #[arg(long, hide = true)]
    from: Option<u64>,
}

fn main() -> ExitCode {
    let mut arguments = std::env::args().skip(1);
    if arguments.next().as_deref() == Some(model::sandbox::ARGUMENT) {
        let served = model::sandbox::serve(&arguments.next().unwrap_or_default());
        return ExitCode::from(u8::from(served.is_err()));
    }
    model::sandbox::enable();
    match run(&Arguments::parse()) {
        Ok(0) => ExitCode::SUCCESS,
        Ok(faults) => {
            eprintln!("{faults} faults");
            ExitCode::FAILURE
        }
        Err(error) => {
            eprintln!("error: {error}");
            ExitCode::FAILURE
        }
    }
}

fn run(arguments: &Arguments) -> Result<usize> {
    let known = || READERS.iter().map(|reader| reader.name).collect::<Vec<_>>().join(", ");
    if let Some(name) = arguments.readers.iter().find(|name| !READERS.iter().any(|reader| reader.name == **name)) {
        return Err(format!("no reader `{name}`; there are {}", known()).into());
    }
    let chosen =
        |reader: &&Reader| arguments.readers.is_empty() || arguments.readers.iter().any(|name| name == reader.name);
    let mut faults = 0;
    for reader in READERS.iter().filter(chosen) {
        match (arguments.from, arguments.only) {
            (Some(first), _) => read(reader, arguments, first)?,
            (_, Some(only)) => one(reader, &(reader.seeds)()?, arguments.seed, only, &arguments.keep.join("only"))?,
            _ => faults += watch(reader, arguments)?,
        }
    }
    Ok(faults)
}

/// One try: a seed's files, some of them changed, in a folder, and the reader on it.
fn one(reader: &Reader, seeds: &[Files], seed: u64, number: u64, folder: &Path) -> Result<()> {
    let mut rng = ChaCha8Rng::seed_from_u64(seed);
    rng.set_stream(number);
    let mut files = seeds[rng.random_range(0..seeds.len())].clone();
    for _ in 0..rng.random_range(1..3) {
        let chosen = files.keys().filter(|name| !name.starts_with('=')).choose(&mut rng).cloned();
        if let Some(name) = chosen {
            let changed = mutate::file(&mut rng, &name, &files[&name]);
            files.insert(name, changed);
        }
    }
    let _ = std::fs::remove_dir_all(folder);
    for (name, bytes) in &files {
        let path = folder.join(name.trim_start_matches('='));
        std::fs::create_dir_all(path.parent().unwrap_or(folder))?;
        std::fs::write(path, bytes)?;
    }
    (reader.read)(folder);
    Ok(())
}

/// The side that reads: says which try it is at in a file that the other watches.
fn read(reader: &Reader, arguments: &Arguments, first: u64) -> Result<()> {
    let seeds = (reader.seeds)()?;
    let limit = Some(own_memory()? + MEMORY);
    setrlimit(Resource::As, Rlimit { current: limit, maximum: limit })?;
    let nothing = Some(0);
    setrlimit(Resource::Core, Rlimit { current: nothing, maximum: nothing })?;
    std::panic::set_hook(Box::new(|panic| {
        eprintln!("{panic}");
        std::process::abort();
    }));
    let at = std::fs::File::create(arguments.keep.join("at"))?;
    for number in first..first.saturating_add(arguments.tries) {
        at.write_all_at(&number.to_le_bytes(), 0)?;
        one(reader, &seeds, arguments.seed, number, &arguments.keep.join("try"))?;
    }
    Ok(())
}

/// Address space of this process in bytes.
fn own_memory() -> Result<u64> {
    let pages = std::fs::read_to_string("/proc/self/statm")?;
    Ok(pages.split(' ').next().unwrap_or_default().parse::<u64>()? * 4096)
}

/// The side that watches: how many faults there were.
fn watch(reader: &Reader, arguments: &Arguments) -> Result<usize> {
    let place = tempfile::tempdir()?;
    let (mut next, mut faults) = (0, 0);
    let start = Instant::now();
    let until = start + Duration::from_secs(arguments.seconds);
    while next < arguments.tries && Instant::now() < until {
        let mut child = Command::new(std::env::current_exe()?)
            .arg(reader.name)
            .args(["--from", &next.to_string(), "--tries", &(arguments.tries - next).to_string()])
            .args(["--seed", &arguments.seed.to_string(), "--keep"])
            .arg(place.path())
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(std::fs::File::create(place.path().join("said"))?)
            .spawn()?;
        let (at, why) = follow(&mut child, &place.path().join("at"), until)?;
        next = at + 1;
        if let Some(why) = why {
            faults += 1;
            keep(reader, arguments, place.path(), at, &why)?;
        }
    }
    let seconds = start.elapsed().as_secs();
    println!("{}: {next} tries in {seconds} s, {faults} faults", reader.name);
    Ok(faults)
}

/// Follows a process to its end: the try it was at, and why it was ended there, if not by the time.
fn follow(child: &mut Child, file: &Path, until: Instant) -> Result<(u64, Option<String>)> {
    let (mut last, mut since) = (None, Instant::now());
    loop {
        let bytes: Option<[u8; 8]> = std::fs::read(file).ok().and_then(|bytes| bytes.try_into().ok());
        let at = bytes.map(u64::from_le_bytes);
        if at != last {
            (last, since) = (at, Instant::now());
        }
        let number = at.unwrap_or(0);
        if let Some(status) = child.try_wait()? {
            return Ok((number, (!status.success()).then(|| format!("ended: {status}"))));
        }
        let slow = since.elapsed() > PATIENCE && at.is_some();
        if slow || Instant::now() > until {
            child.kill()?;
            child.wait()?;
            return Ok((number, slow.then(|| format!("takes more than {} s", PATIENCE.as_secs()))));
        }
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// Keeps the folder of a fault, and says where.
fn keep(reader: &Reader, arguments: &Arguments, place: &Path, number: u64, why: &str) -> Result<()> {
    let said = std::fs::read_to_string(place.join("said")).unwrap_or_default();
    let kept = arguments.keep.join(format!("{}-{}-{number}", reader.name, arguments.seed));
    std::fs::create_dir_all(&arguments.keep)?;
    let copied = Command::new("cp").arg("-r").arg(place.join("try")).arg(&kept).status()?;
    let last: Vec<&str> = said.lines().rev().take(3).collect();
    println!(
        "{}: try {number}: {why}: {} (kept: {}, {copied}; again: {} --seed {} --only {number})",
        reader.name,
        last.into_iter().rev().collect::<Vec<_>>().join(" "),
        kept.display(),
        reader.name,
        arguments.seed
    );
    Ok(())
}
