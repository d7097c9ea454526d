//! `lenslet report`: a run's page, made again.

use crate::cli::ReportArgs;
use crate::report::html;
use anyhow::Result;

pub(super) fn run(args: &ReportArgs) -> Result<()> {
    html::write(&args.run)?;
    outln!("{}", args.run.join(html::REPORT).display());
    Ok(())
}
