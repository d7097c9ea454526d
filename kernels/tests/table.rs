//! That the table of ops, which tests kernels against plain loops on every device, knows every family of them.

use std::path::{Path, PathBuf};

/// Folders of kernels/src that are no family.
const INFRASTRUCTURE: [&str; 2] = ["cpu", "gpu"];
/// Families without a place on the tape, tested here alone: stepping parameters, reading images, drawing pairs.
const APART: [&str; 3] = ["optimizer", "pixels", "matching"];

fn file(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(path)
}

/// Folders in a folder of this crate.
fn folders(folder: &str) -> Vec<String> {
    let entries = std::fs::read_dir(file(folder)).unwrap_or_else(|e| panic!("{folder}: {e}"));
    let folders = entries.map(Result::unwrap).filter(|entry| entry.path().is_dir());
    folders.map(|entry| entry.file_name().into_string().unwrap()).collect()
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
    let mut families = folders("src");
    families.retain(|family| !INFRASTRUCTURE.contains(&family.as_str()) && !APART.contains(&family.as_str()));
    let missing = families.iter().filter(|family| !used.contains(&family.as_str()));
    let mut wrong: Vec<String> = missing
        .map(|family| {
            format!("kernels/src/{family}: no row of engine/src/table/rows.rs names `{family}` among its kernels")
        })
        .collect();
    let unknown = used.iter().filter(|name| !families.iter().any(|family| family == *name));
    wrong.extend(unknown.map(|name| {
        format!("a row of engine/src/table/rows.rs names `{name}` among its kernels; there is no kernels/src/{name}")
    }));
    assert!(wrong.is_empty(), "\n{}", wrong.join("\n"));
}

#[test]
fn every_cuda_source_is_in_the_one_list() {
    let list = std::fs::read_to_string(file("src/gpu/families.rs")).expect("src/gpu/families.rs");
    let specialised: Vec<String> = kernels::gpu::specialisations().iter().map(|s| s.module.path()).collect();
    let mut wrong = Vec::new();
    for folder in folders("src").into_iter().chain(["gpu/golden".into(), "gpu/include".into()]) {
        for entry in std::fs::read_dir(file("src").join(&folder)).unwrap() {
            let place = format!("{folder}/{}", entry.unwrap().file_name().to_str().unwrap());
            if place.ends_with(".cu") && !specialised.contains(&format!("kernels/src/{place}")) {
                wrong.push(format!("kernels/src/{place} is in no `modules()` of kernels/src/gpu/families.rs"));
            }
            if place.contains(".cu") && !list.contains(&format!("\"{place}\"")) {
                wrong.push(format!("kernels/src/{place} is not in the list of kernels/src/gpu/families.rs"));
            }
        }
    }
    assert!(wrong.is_empty(), "\n{}", wrong.join("\n"));
}
