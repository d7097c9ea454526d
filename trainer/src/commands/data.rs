//! `lenslet data`: looks through data sets and keeps the good part of them.

use crate::cli::{CheckArgs, DataArgs, DataVerb, ExampleArgs, FilterArgs};
use crate::compute;
use crate::data::corpus::Files;
use crate::data::example;
use crate::data::filter::{self, Criteria, Judge, Judged, Kept, Reason, write};
use crate::data::formats::Format;
use crate::data::record::Select;
use crate::data::screen::Screen;
use crate::data::survey::Survey;
use crate::recipe::Recipe;
use crate::report::table::Table;
use crate::run_folder::new_file;
use crate::session::Reading;
use crate::shell::Command;
use anyhow::{Context, Result, bail, ensure};
use model::{Tokenizer, hf, write_atomically};
use std::io::Write;
use std::path::{Path, PathBuf};

pub(super) fn run(verb: &DataVerb) -> Result<()> {
    match verb {
        DataVerb::Example(args) => compute::with_threads(None, || example(args)),
        DataVerb::Check(args) => compute::with_threads(args.threads, || check(args)),
        DataVerb::Filter(args) => compute::with_threads(args.compute.threads, || filter(args)),
    }
}

fn example(args: &ExampleArgs) -> Result<()> {
    let written = example::write(&args.folder, args.images as usize, args.seed)?;
    let example::Written { train, heldout, questions } = written;
    outln!("{train} pictures to train on and {heldout} held out, with {questions} questions:");
    for (file, about) in example::FILES {
        outln!("  {:<24} {about}", file);
    }
    let recipe = args.folder.join("recipe.toml");
    outln!("next:");
    outln!("  {}", Command::new("data check").flag("--recipe", &recipe));
    outln!("  {}", Command::new("train").flag("--recipe", &recipe).plain("--dry-run"));
    outln!("  {}", Command::new("train").flag("--recipe", &recipe));
    Ok(())
}

fn check(args: &CheckArgs) -> Result<()> {
    args.json.as_deref().map(new_file).transpose()?;
    let recipe = recipe(&args.data)?;
    let train = files(&args.data, recipe.as_ref())?;
    let heldout = recipe.as_ref().and_then(|recipe| recipe.data.heldout());
    let max_bad = args.max_bad.unwrap_or(train.max_bad);
    let named = args.tokenizer.as_deref().map(tokenizer).transpose()?;
    let reader = Reader::of(recipe.as_ref(), &train)?;
    let screen = match &named {
        Some(named) if recipe.is_none() => Screen::of(Some(named)),
        _ => reader.screen(),
    };
    let mut surveys = Vec::new();
    for files in [Some(train), heldout].into_iter().flatten() {
        let survey = Survey::of(&files, &screen, named.as_ref().or(screen.tokenizer))?;
        outln!("{}\n", survey.table());
        surveys.push(survey);
    }
    if let [train, heldout] = &surveys[..] {
        outln!("images of the second that are in the first, too: {}", heldout.shared_images(train));
    }
    if let Some(path) = &args.json {
        let json = serde_json::to_string_pretty(&surveys).context("--json")?;
        write_atomically(path, |file| writeln!(file, "{json}")).with_context(|| path.display().to_string())?;
    }
    for survey in &surveys {
        let (path, broken, share) = (survey.path.display(), survey.broken, 100.0 * max_bad);
        let all = survey.usable + broken;
        ensure!(!survey.is_bad(max_bad), "{path}: {broken} of {all} records are broken, more than {share} %");
    }
    Ok(())
}

fn filter(args: &FilterArgs) -> Result<()> {
    let recipe = recipe(&args.data)?;
    let files = files(&args.data, recipe.as_ref())?;
    let report = args.report.clone().unwrap_or_else(|| args.out.with_file_name("report.html"));
    new_file(&args.out)?;
    new_file(&report)?;
    ensure!(args.out != report, "{}: given for the records and for the page", report.display());
    let criteria = Criteria {
        min_words: args.min_words,
        max_words: args.max_words,
        min_density: args.min_density,
        max_hamming: args.max_hamming,
        max_overlap: args.max_overlap,
        min_similarity: args.min_similarity,
        keep_share: args.keep_share,
    };
    ensure!(
        args.model.is_none() || args.min_similarity.is_some() || args.keep_share.is_some(),
        "--model compares images with texts: say what to keep by --min-similarity or --keep-share"
    );
    let judge = match &args.model {
        Some(name) => Some(Judge::open(&hf::resolve(name)?, &compute::open(&args.compute.device)?)?),
        None => None,
    };
    let judged = Judged::of(&files, &criteria, judge.as_ref())?;
    let kept = write(&judged, &args.out)?;
    if let Err(error) = filter::report(&judged, &criteria, &report) {
        // Nothing half done: the records would be there without what was left out.
        let _ = std::fs::remove_file(&args.out);
        return Err(error);
    }
    show(&judged, kept, args, &files);
    outln!("what went and why, with pictures: {}", report.display());
    Ok(())
}

/// What went, and how to train on what is kept.
fn show(judged: &Judged, kept: Kept, args: &FilterArgs, files: &Files<'_>) {
    let mut table = Table::new(["left out", "records"]);
    let unread = judged.found.bad.count;
    if unread > 0 {
        table.row(["record cannot be read".to_string(), unread.to_string()]);
    }
    for reason in Reason::ALL {
        table.row([reason.name().to_string(), judged.count(reason).to_string()]);
    }
    outln!("{table}");
    for line in judged.found.passed_over.lines() {
        outln!("{line}");
    }
    outln!("kept {} of {} records; to train on them:\n", kept.records, judged.verdicts.len() + unread);
    outln!("[data]\nsource = \"{}\"\npath = {:?}", kept.format.name(), args.out);
    let images = files.images.unwrap_or(files.path);
    // Images of shards are named by their shard, those of a folder by their place in it.
    let shards = files.format == Format::Webdataset && images.is_dir();
    let images = if shards { images.join("*.tar") } else { images.to_owned() };
    outln!("images = {images:?}\n");
}

fn recipe(args: &DataArgs) -> Result<Option<Recipe>> {
    let Some(path) = &args.recipe else { return Ok(None) };
    Ok(Some(Recipe::load(path, &args.set)?))
}

/// The data set that the recipe trains on, or that the arguments name.
fn files<'a>(args: &'a DataArgs, recipe: Option<&'a Recipe>) -> Result<Files<'a>> {
    if let Some(recipe) = recipe {
        let found = recipe.data.train();
        return found.context("data.source: scenes are drawn, there is nothing to read");
    }
    let (Some(format), Some(path)) = (args.source, &args.path) else {
        bail!("--recipe, or --source and --path, say which data set");
    };
    let images = images(format, args.images.as_ref())?;
    Ok(Files {
        select: Select {
            field: args.split_field.clone().unwrap_or_else(|| Select::default().field),
            split: args.split.clone(),
            limit: None,
        },
        ..Files::new(format, path, images)
    })
}

fn images(format: Format, images: Option<&PathBuf>) -> Result<Option<&Path>> {
    let name = format.name();
    match (format.has_images(), images) {
        (true, None) => {
            bail!("--source {name} needs --images, the folder or archive that its image names are relative to")
        }
        (false, Some(_)) => bail!("--images: --source {name} has its images in --path"),
        (_, images) => Ok(images.map(PathBuf::as_path)),
    }
}

/// What records are read with.
enum Reader {
    /// What a recipe's run has.
    Run(Box<Reading>),
    /// A tokenizer alone.
    Tokenizer(Tokenizer),
    /// Nothing is known.
    Nothing,
}

impl Reader {
    fn of(recipe: Option<&Recipe>, train: &Files<'_>) -> Result<Reader> {
        let Some(recipe) = recipe else {
            return Ok(Reader::Nothing);
        };
        let (found, _) = train.open()?;
        let texts = found.records.iter().flat_map(|record| record.content.texts());
        match (Reading::of(recipe.clone(), texts), recipe.pretrained.text()) {
            (Ok(reading), _) => Ok(Reader::Run(Box::new(reading))),
            (Err(error), Some(name)) => {
                errln!("records are not read as the model would: {error:#}");
                Ok(Reader::Tokenizer(tokenizer(name)?))
            }
            (Err(error), None) => Err(error),
        }
    }

    fn screen(&self) -> Screen<'_> {
        match self {
            Reader::Run(reading) => reading.screen(),
            Reader::Tokenizer(tokenizer) => Screen::of(Some(tokenizer)),
            Reader::Nothing => Screen::of(None),
        }
    }
}

/// The tokenizer of a file, a folder or a model in the hub's cache.
fn tokenizer(name: &str) -> Result<Tokenizer> {
    let path = Path::new(name);
    Ok(match path.is_file() {
        true => Tokenizer::load(path)?,
        false => Tokenizer::open(&hf::resolve(name)?)?,
    })
}
