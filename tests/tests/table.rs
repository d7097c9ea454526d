//! The table of ops: derivatives against finite differences, every device and type against the oracle, nothing missing.

use engine::table::{Case, finite_differences, follows_oracle, rows};
use engine::{DType, Device, Result};
use std::collections::BTreeSet;
use std::path::Path;

fn all_cases(check: impl Fn(&Case) -> Result<Vec<String>>) {
    let mut wrong = Vec::new();
    for case in rows().iter().flat_map(|row| &row.cases) {
        match check(case) {
            Ok(found) => wrong.extend(found),
            Err(error) => wrong.push(format!("{}: {error}", case.name)),
        }
    }
    assert!(wrong.is_empty(), "{} differences:\n{}", wrong.len(), wrong.join("\n"));
}

#[test]
fn derivatives_agree_with_finite_differences() {
    all_cases(finite_differences);
}

#[test]
fn the_cpu_follows_the_oracle_in_every_type() {
    for dtype in [DType::F64, DType::F32, DType::BF16] {
        all_cases(|case| follows_oracle(case, &Device::cpu(), dtype));
    }
}

#[test]
fn every_instruction_set_follows_the_oracle() {
    use kernels::cpu::simd::{Isa, isa, set_isa};
    let best = isa();
    for isa in [Isa::Portable, Isa::Avx2, Isa::Avx512, Isa::Avx512Bf16] {
        if set_isa(isa) == isa {
            for dtype in [DType::F32, DType::BF16] {
                all_cases(|case| follows_oracle(case, &Device::cpu(), dtype));
            }
        }
    }
    set_isa(best);
}

#[test]
fn the_cuda_kernels_follow_the_oracle_when_emulated() {
    let device = Device::emulated(kernels::gpu::Emulation::default()).expect("a C++ compiler");
    for dtype in [DType::F32, DType::BF16] {
        all_cases(|case| follows_oracle(case, &device, dtype));
    }
}

/// Names of the Rust files in a folder of the workspace, without those that are no family or op.
fn files(folder: &str, except: &[&str]) -> BTreeSet<String> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("..").join(folder);
    let entries = std::fs::read_dir(&path).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
    let names = entries.map(|e| e.unwrap().file_name().into_string().unwrap());
    let stems = names.filter_map(|n| n.strip_suffix(".rs").map(str::to_string));
    stems.filter(|n| !except.contains(&n.as_str())).collect()
}

#[test]
fn no_op_and_no_kernel_is_missing() {
    let table = rows();
    let ops: BTreeSet<String> = table.iter().map(|r| r.op.to_string()).collect();
    assert_eq!(
        ops,
        files("engine/src/ops", &["mod"]),
        "rows of the table (left) and files in engine/src/ops (right)"
    );
    let used: BTreeSet<String> = table.iter().flat_map(|r| r.kernels).map(|k| k.to_string()).collect();
    let infrastructure = ["lib", "device", "dtype", "error", "view", "dispatch", "cuda", "profile"];
    let mut families = files("kernels/src", &infrastructure);
    // What has no place on the tape is checked in the kernels' own tests: stepping parameters, reading images, drawing pairs.
    for family in ["optimizer", "pixels", "matching"] {
        assert!(families.remove(family), "{family}");
    }
    assert_eq!(
        used, families,
        "kernels named in the table (left) and families in kernels/src (right)"
    );
    // Recomputation has no arithmetic of its own: engine/tests/recompute.rs compares whole blocks.
    let empty: Vec<&str> = table.iter().filter(|r| r.cases.is_empty()).map(|r| r.op).collect();
    assert_eq!(empty, ["recompute"], "ops without a case");
}
