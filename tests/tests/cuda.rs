//! The CUDA kernels without a GPU: every specialisation compiles for every architecture, and well.

use kernels::cuda::{self, Driver};
use kernels::gpu::nvrtc::Nvrtc;
use kernels::gpu::ptxas::{Limits, Report};
use kernels::gpu::specialisations;

const ARCHITECTURES: [&str; 3] = ["sm_80", "sm_90a", "sm_100a"];

#[test]
fn every_specialisation_compiles_without_spills() {
    let driver = match cuda::driver() {
        Driver::Found { version, .. } => Some(version.0),
        _ => None,
    };
    let nvrtc = match Nvrtc::find(driver) {
        Ok(nvrtc) => nvrtc,
        Err(error) if std::env::var_os("CI").is_some() => panic!("CI is set, which calls for NVRTC: {error}"),
        Err(error) => return eprintln!("skipped: {error}"),
    };
    let mut wrong = Vec::new();
    for specialisation in specialisations() {
        let limits = Limits { threads: specialisation.threads as u32 };
        let runs_on = |architecture: &&str| specialisation.module.runs_on(architecture);
        for architecture in ARCHITECTURES.into_iter().filter(runs_on) {
            match specialisation.module.compile(&nvrtc, architecture) {
                Ok(compiled) => {
                    let report = Report::parse(&compiled.log);
                    assert!(!report.functions.is_empty(), "{}: the log names no kernel", specialisation.module);
                    let found = report.violations(&limits);
                    wrong.extend(found.iter().map(|text| format!("{architecture} {}: {text}", specialisation.module)));
                }
                Err(error) => wrong.push(error.to_string()),
            }
        }
    }
    assert!(wrong.is_empty(), "{} violations:\n{}", wrong.len(), wrong.join("\n"));
}
