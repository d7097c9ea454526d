//! The table of ops: the oracle's gradients against finite differences, every device and type against the oracle, nothing
//! missing.

use engine::table::{Case, finite_differences, follows_oracle, grid, rows};
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
fn the_oracles_gradients_agree_with_finite_differences() {
    all_cases(|case| Ok(finite_differences(case)));
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
    for isa in Isa::ALL {
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

#[test]
fn every_op_has_a_row_and_cases() {
    let table = rows();
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("src/ops");
    let entries = std::fs::read_dir(&folder).unwrap_or_else(|e| panic!("{}: {e}", folder.display()));
    let names = entries.map(|e| e.unwrap().file_name().into_string().unwrap());
    let ops: BTreeSet<String> = names.filter_map(|n| Some(n.strip_suffix(".rs")?.to_string())).collect();
    let mut wrong = Vec::new();
    for op in ops.iter().filter(|op| *op != "mod") {
        // Recomputation has no arithmetic of its own: tests/recompute.rs compares whole blocks.
        match table.iter().find(|row| row.op == op) {
            None => wrong
                .push(format!("engine/src/ops/{op}.rs has no row in engine/src/table/rows.rs: add row(\"{op}\", …)")),
            Some(row) if row.cases.is_empty() && op != "recompute" => {
                wrong.push(format!("the row of `{op}` in engine/src/table/rows.rs has no case"));
            }
            Some(_) => {}
        }
    }
    for row in table.iter().chain(&grid()).filter(|row| !ops.contains(row.op)) {
        wrong.push(format!(
            "engine/src/table/rows.rs has a row for `{}`, but there is no engine/src/ops/{}.rs",
            row.op, row.op
        ));
    }
    assert!(wrong.is_empty(), "\n{}", wrong.join("\n"));
}
