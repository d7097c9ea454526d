//! That the table of ops, which tests kernels against plain loops on every device, knows every family of them.

use std::path::{Path, PathBuf};

/// Files of kernels/src that are no family.
const INFRASTRUCTURE: [&str; 8] = ["lib", "device", "dtype", "error", "view", "dispatch", "cuda", "profile"];
/// Families without a place on the tape, tested here alone: stepping parameters, reading images, drawing pairs.
const APART: [&str; 3] = ["optimizer", "pixels", "matching"];

fn file(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(path)
}

/// Names of the files in a folder of this crate that end so, without the ending.
fn names(folder: &str, ending: &str) -> Vec<String> {
    let entries = std::fs::read_dir(file(folder)).unwrap_or_else(|e| panic!("{folder}: {e}"));
    let names = entries.map(|e| e.unwrap().file_name().into_string().unwrap());
    names
        .filter_map(|n| Some(n.strip_suffix(ending)?.to_string()))
        .collect()
}

#[test]
fn every_family_is_in_the_table_of_ops() {
    let table = file("../engine/src/table/rows.rs");
    let table = std::fs::read_to_string(&table).unwrap_or_else(|e| panic!("{}: {e}", table.display()));
    // Rows read `row("op", &["family", "family"], cases)`.
    let used: Vec<&str> = table
        .split("row(\"")
        .filter_map(|row| row.split_once("&[")?.1.split(']').next())
        .flat_map(|families| families.split('"').skip(1).step_by(2))
        .collect();
    let mut families = names("src", ".rs");
    families.retain(|family| !INFRASTRUCTURE.contains(&family.as_str()) && !APART.contains(&family.as_str()));
    let missing = families.iter().filter(|family| !used.contains(&family.as_str()));
    let mut wrong: Vec<String> = missing
        .map(|family| {
            format!("kernels/src/{family}.rs: no row of engine/src/table/rows.rs names `{family}` among its kernels")
        })
        .collect();
    let unknown = used
        .iter()
        .filter(|name| !families.iter().any(|family| family == *name));
    wrong.extend(unknown.map(|name| {
        format!("a row of engine/src/table/rows.rs names `{name}` among its kernels; there is no kernels/src/{name}.rs")
    }));
    assert!(wrong.is_empty(), "\n{}", wrong.join("\n"));
}

#[test]
fn every_cuda_source_is_built_in_and_specialised() {
    let module = std::fs::read_to_string(file("src/gpu/module.rs")).expect("src/gpu/module.rs");
    let listed = |name: &str| module.contains(&format!("\"{name}\""));
    let specialised: Vec<&str> = kernels::gpu::specialisations()
        .iter()
        .map(|s| s.module.family())
        .collect();
    let mut wrong = Vec::new();
    for name in names("cuda", ".cu") {
        if !listed(&name) {
            wrong.push(format!(
                "kernels/cuda/{name}.cu is not among SOURCES of kernels/src/gpu/module.rs"
            ));
        }
        if !specialised.contains(&name.as_str()) {
            wrong.push(format!(
                "kernels/cuda/{name}.cu is in no `modules()` that `specialisations` of kernels/src/gpu lists"
            ));
        }
    }
    for name in names("cuda", ".cuh") {
        if !listed(&format!("{name}.cuh")) {
            wrong.push(format!(
                "kernels/cuda/{name}.cuh is not among HEADERS of kernels/src/gpu/module.rs"
            ));
        }
    }
    assert!(wrong.is_empty(), "\n{}", wrong.join("\n"));
}
