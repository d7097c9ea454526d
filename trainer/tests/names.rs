//! Names that nobody knows, in flags and variables, are refused with those that are known; nothing falls back to a default.

use std::process::{Command, Output};

fn lenslet(arguments: &[&str], variables: &[(&str, &str)]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_lenslet"));
    command.args(arguments).envs(variables.iter().copied());
    command.output().expect("the binary runs")
}

#[test]
fn what_is_not_known_is_refused_by_name() {
    const TEST: [&str; 5] = ["kernels", "test", "--device", "cpu", "add"];
    const EMULATED: [&str; 5] = ["kernels", "test", "--device", "emulated", "add"];
    const ISAS: &str = "not known; expected one of portable, avx2, avx512, avx512bf16, avx512amx";
    type Words<'w> = &'w [&'w str];
    type Variables<'v> = &'v [(&'v str, &'v str)];
    let all: &[(Words<'_>, Variables<'_>, Words<'_>)] = &[
        (&TEST, &[("LENSLET_ISA", "avx3")], &["LENSLET_ISA=avx3", ISAS]),
        (&["bench", "step", "--size", "S"], &[("LENSLET_ISA", "AVX2")], &["LENSLET_ISA=AVX2", ISAS]),
        (&["demo", "--max-steps", "1"], &[("LENSLET_ISA", "amx")], &["LENSLET_ISA=amx", ISAS]),
        (&EMULATED, &[("LENSLET_CACHE", "/dev/null/x")], &["LENSLET_CACHE=/dev/null/x", "no folder can be made there"]),
        (&EMULATED, &[("LENSLET_CXX", "no-such-compiler")], &["no-such-compiler", "LENSLET_CXX"]),
        (&EMULATED, &[("LENSLET_CUDA_SOURCES", "no/such/folder")], &["LENSLET_CUDA_SOURCES", "no/such/folder"]),
        (&["bench", "gemmm"], &[], &["`gemmm` has no bench", "gemm, attention"]),
        (&["bench", "peak", "--device", "emulated"], &[], &["`peak` is not timed on emulated"]),
        (&["bench", "--grid", "huge"], &[], &["'huge'", "tiny, small, full"]),
        (&["bench", "step", "--size", "XL"], &[], &["'XL'", "possible values"]),
        (&["bench", "step", "--size", "S", "--dtype", "f8"], &[], &["'f8'", "possible values"]),
        (&["kernels", "test", "nrom"], &[], &["`nrom` is tested by no op", "norm"]),
        (&["kernels", "test", "gemm_tiny"], &[], &["`gemm_tiny` is tested by no op", "gemm"]),
        (&["kernels", "test", "--device", "cpu", "--seed", "3"], &[], &["the seed", "`cpu` has none"]),
        (&["kernels", "test", "--device", "emulated:foo"], &[], &["`emulated:foo` is not known", "`emulated:check`"]),
        (&["kernels", "test", "--device", "cuda:x"], &[], &["`cuda:x` is not known", "`cuda:N`"]),
        (&["kernels", "test", "--grid", "big"], &[], &["'big'", "small, full"]),
        (&["demo", "--device", "gpu"], &[], &["`gpu` is not known", "`cpu`"]),
    ];
    for (arguments, variables, expected) in all {
        let output = lenslet(arguments, variables);
        let told = [&output.stdout[..], &output.stderr].concat();
        let told = String::from_utf8_lossy(&told);
        assert!(!output.status.success(), "{arguments:?} {variables:?} is taken:\n{told}");
        for part in *expected {
            assert!(told.contains(part), "{arguments:?} {variables:?}: {part} in\n{told}");
        }
        assert!(!told.contains("panicked"), "{told}");
    }
}

#[test]
fn names_of_sources_and_of_instruction_sets_are_taken() {
    for (arguments, variables) in [
        (&["kernels", "test", "--device", "cpu", "add"][..], &[("LENSLET_ISA", "portable")][..]),
        (&["kernels", "test", "--device", "cpu", "gemm_simt", "golden_bulk"], &[("LENSLET_ISA", "")]),
    ] {
        let output = lenslet(arguments, variables);
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    }
}

#[test]
fn a_variable_that_nobody_reads_is_named() {
    let output = lenslet(&["env"], &[("LENSLET_ISE", "avx2"), ("LENSLET_ISA", "portable")]);
    let (told, aside) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(aside.contains("LENSLET_ISE is none of lenslet's variables: LENSLET_CACHE"), "{aside}");
    assert!(told.contains("instructions  portable: "), "{told}");
}
