//! `lenslet compare`: runs side by side.

use crate::cli::CompareArgs;
use crate::report::html::{Comparison, REPORT, is_page};
use crate::run_folder::{new_file, write_whole};
use anyhow::{Result, ensure};

pub(super) fn run(args: &CompareArgs) -> Result<()> {
    let out = &args.out;
    ensure!(
        out.extension().is_some_and(|ending| ending == "html"),
        "--out {}: expected a name that ends in .html",
        out.display()
    );
    // A run's own page stays.
    if !is_page(out) || out.ends_with(REPORT) {
        new_file(out)?;
    }
    let (comparison, bad) = Comparison::read(&args.runs);
    bad.iter().for_each(|error| errln!("left out: {error:#}"));
    let count = comparison.len();
    ensure!(count >= 2, "{count} of {} folders can be read; comparing takes two runs", args.runs.len());
    write_whole(out, comparison.page()?.as_bytes())?;
    outln!("{}", comparison.text()?);
    outln!("in {}: the same with curves and answers", out.display());
    Ok(())
}
