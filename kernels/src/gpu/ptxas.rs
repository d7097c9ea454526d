//! What the assembler says about compiled kernels: registers, shared memory, spills, warnings.
//!
//! The log of NVRTC 12 and 13 is plain text for people; lines it is not known to hold are passed over.

/// Registers of one multiprocessor, the most that one block can hold on every architecture from sm_80 on.
const REGISTERS: u32 = 65536;
/// Registers are handed out to whole warps, eight to a lane at a time.
const LANES: u32 = 32;
const GRAIN: u32 = 8;
/// Static shared memory beyond so many bytes assembles, but does not load.
const STATIC_SHARED: u64 = 48 << 10;

/// What one function takes from the machine.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Resources {
    /// The name in the compiled code: mangled unless the kernel is `extern "C"`.
    pub name: String,
    /// Whether it is a kernel; otherwise it is a function that kernels call and that was not inlined.
    pub kernel: bool,
    /// Registers a thread; zero for functions that are not kernels, which use their caller's.
    pub registers: u32,
    /// Static shared memory, in bytes a block.
    pub shared: u64,
    /// Bytes a thread writes to local memory because registers ran out.
    pub spill_stores: u64,
    /// Bytes a thread reads back.
    pub spill_loads: u64,
    /// Local memory, in bytes a thread.
    pub stack: u64,
}

/// A complaint of the compiler or the assembler.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Warning {
    /// The assembler's number for it, such as `C7508`, where it has one.
    pub code: Option<String>,
    /// The line as written.
    pub text: String,
}

/// All that one log says.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Report {
    /// The functions, in the log's order.
    pub functions: Vec<Resources>,
    /// The complaints, in the log's order.
    pub warnings: Vec<Warning>,
}

/// What [`Report::violations`] measures against.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Threads in a block.
    pub threads: u32,
}

impl Report {
    /// Reads the log of a compilation with `--ptxas-options=-v`.
    pub fn parse(log: &str) -> Report {
        let mut report = Report::default();
        // Numbers of the kernel being compiled and of the function being described: a kernel's callees come in between.
        let (mut kernel, mut function) = (None, None);
        for line in log.lines() {
            if let Some(name) = between(line, "Compiling entry function '", "'") {
                kernel = Some(report.find_or_add(name, true));
                function = kernel;
            } else if let Some((_, name)) = line.split_once("Function properties for ") {
                function = Some(report.find_or_add(name.trim(), false));
            } else if line.contains(" bytes stack frame") {
                if let Some(found) = function.and_then(|i| report.functions.get_mut(i)) {
                    found.stack = number_before(line, " bytes stack frame");
                    found.spill_stores = number_before(line, " bytes spill stores");
                    found.spill_loads = number_before(line, " bytes spill loads");
                }
            } else if line.contains(": Used ") {
                if let Some(found) = kernel.and_then(|i| report.functions.get_mut(i)) {
                    found.registers = number_before(line, " registers").try_into().unwrap_or(u32::MAX);
                    found.shared = number_before(line, " bytes smem");
                }
            } else {
                report.warnings.extend(warning(line));
            }
        }
        report
    }

    /// The kernel of that name.
    pub fn kernel(&self, name: &str) -> Option<&Resources> {
        self.functions.iter().find(|f| f.kernel && f.name == name)
    }

    /// A sentence for each thing in the report that makes kernels slow or keeps them from running: spills, stack
    /// frames, serialised tensor core instructions, more registers than a multiprocessor has.
    pub fn violations(&self, limits: &Limits) -> Vec<String> {
        let warnings = self.warnings.iter().filter(|warning| warning.is_serious());
        let warnings = warnings.map(|warning| warning.text.clone());
        let functions = self.functions.iter().flat_map(|function| function.violations(limits));
        warnings.chain(functions).collect()
    }

    fn find_or_add(&mut self, name: &str, kernel: bool) -> usize {
        match self.functions.iter().position(|f| f.name == name) {
            Some(found) => {
                self.functions[found].kernel |= kernel;
                found
            }
            None => {
                self.functions.push(Resources { name: name.to_owned(), kernel, ..Resources::default() });
                self.functions.len() - 1
            }
        }
    }
}

impl Resources {
    fn violations(&self, limits: &Limits) -> Vec<String> {
        let name = &self.name;
        let mut found = Vec::new();
        if self.spill_stores > 0 || self.spill_loads > 0 {
            let (stores, loads) = (self.spill_stores, self.spill_loads);
            found.push(format!(
                "{name} spills: {stores} bytes stored, {loads} loaded a thread; it needs fewer live values or a smaller block"
            ));
        }
        if self.stack > 0 {
            let stack = self.stack;
            found.push(format!(
                "{name} has a stack frame of {stack} bytes: an array is indexed at run time or a call is not inlined"
            ));
        }
        if self.shared > STATIC_SHARED {
            let shared = self.shared;
            found.push(format!(
                "{name} has {shared} bytes of static shared memory, {STATIC_SHARED} at most: make it dynamic"
            ));
        }
        let threads = u64::from(limits.threads).next_multiple_of(LANES.into());
        let taken = u64::from(self.registers).next_multiple_of(GRAIN.into()).saturating_mul(threads);
        if taken > REGISTERS.into() {
            let registers = self.registers;
            found.push(format!(
                "{name} takes {registers} registers in each of {threads} threads, {taken} with rounding: a block has {REGISTERS}"
            ));
        }
        found
    }
}

impl Warning {
    /// The assembler's 75xx: instructions ignored, serialised, or waits put in by force.
    fn is_serious(&self) -> bool {
        self.code.as_ref().is_some_and(|code| code.starts_with("C75"))
    }
}

/// Reads one line as a complaint. Quoted source is indented, complaints are not.
fn warning(line: &str) -> Option<Warning> {
    if line.starts_with(char::is_whitespace) || line.starts_with("Remark") {
        return None;
    }
    let code = between(line, "(C", ")").filter(|code| code.len() == 4 && code.bytes().all(|b| b.is_ascii_digit()));
    let spelt = line.to_ascii_lowercase().contains("warning");
    (spelt || code.is_some()).then(|| Warning { code: code.map(|code| format!("C{code}")), text: line.to_owned() })
}

fn between<'a>(line: &'a str, before: &str, after: &str) -> Option<&'a str> {
    let (_, rest) = line.split_once(before)?;
    rest.split_once(after).map(|(found, _)| found)
}

/// The number that stands right before `unit`, zero without one.
fn number_before(line: &str, unit: &str) -> u64 {
    let number = line.split_once(unit).and_then(|(before, _)| {
        let digits = before.trim_end_matches(|c: char| c.is_ascii_digit()).len();
        before[digits..].parse().ok()
    });
    number.unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// NVRTC 13.0: a kernel that is fine, one with shared memory, a callee with a frame, one that spills.
    const AMPERE: &str = "\
k.cu(13): warning #177-D: variable \"unused\" was declared but never referenced
  extern \"C\" __global__ void stack(float* y,int n){ int unused; } // warning
                                                            ^

Remark: The warnings can be suppressed with \"-diag-suppress <warning-number>\"

ptxas info    : 0 bytes gmem
ptxas info    : Compiling entry function '_Z4tmplILi3EEvPf' for 'sm_80'
ptxas info    : Function properties for _Z4tmplILi3EEvPf
ptxas         .     0 bytes stack frame, 0 bytes spill stores, 0 bytes spill loads
ptxas info    : Used 8 registers, used 0 barriers, 360 bytes cmem[0]
ptxas info    : Compile time = 1.644 ms
ptxas info    : Compiling entry function 'stack' for 'sm_80'
ptxas info    : Function properties for stack
ptxas         .     0 bytes stack frame, 0 bytes spill stores, 0 bytes spill loads
ptxas info    : Used 24 registers, used 1 barriers, 512 bytes smem, 364 bytes cmem[0]
ptxas info    : Compile time = 3.477 ms
ptxas info    : Function properties for _Z6helperf
ptxas         .     16 bytes stack frame, 16 bytes spill stores, 16 bytes spill loads
ptxas info    : Compiling entry function 'spill' for 'sm_80'
ptxas info    : Function properties for spill
ptxas         .     496 bytes stack frame, 744 bytes spill stores, 768 bytes spill loads
ptxas info    : Used 32 registers, used 0 barriers, 496 bytes cumulative stack size, 372 bytes cmem[0]
ptxas info    : Compile time = 18.354 ms
";

    /// NVRTC 13.0, with tensor core instructions that cannot overlap.
    const HOPPER: &str = "\
ptxas info    : (C7508) Potential Performance Loss: 'setmaxnreg' ignored; unable to determine register count at entry.
ptxas info    : (C7517) warpgroup.wait is injected in around line 42 by compiler to allow use of registers defined by GMMA in function 'mma'
ptxas info    : 0 bytes gmem
ptxas info    : Compiling entry function 'mma' for 'sm_90a'
ptxas info    : Function properties for mma
ptxas         .     0 bytes stack frame, 0 bytes spill stores, 0 bytes spill loads
ptxas info    : Used 30 registers, used 0 barriers
ptxas info    : Compile time = 2.214 ms
";

    const BLACKWELL: &str = "\
ptxas info    : 0 bytes gmem
ptxas info    : Compiling entry function 'stack' for 'sm_100a'
ptxas info    : Function properties for stack
ptxas         .     0 bytes stack frame, 0 bytes spill stores, 0 bytes spill loads
ptxas info    : Used 24 registers, used 1 barriers, 512 bytes smem
ptxas info    : Compile time = 4.278 ms
";

    #[test]
    fn each_function_gets_its_own_numbers() {
        let report = Report::parse(AMPERE);
        let names: Vec<_> = report.functions.iter().map(|f| (f.name.as_str(), f.kernel)).collect();
        let expected = [("_Z4tmplILi3EEvPf", true), ("stack", true), ("_Z6helperf", false), ("spill", true)];
        assert_eq!(names, expected);
        let stack = report.kernel("stack").unwrap();
        assert_eq!((stack.registers, stack.shared, stack.stack), (24, 512, 0));
        let spill = report.kernel("spill").unwrap();
        assert_eq!((spill.registers, spill.shared), (32, 0));
        assert_eq!((spill.stack, spill.spill_stores, spill.spill_loads), (496, 744, 768));
        assert!(report.kernel("_Z6helperf").is_none());
        assert_eq!(report.warnings.len(), 1, "{:?}", report.warnings);
    }

    #[test]
    fn violations_name_the_function_and_the_number() {
        let found = Report::parse(AMPERE).violations(&Limits { threads: 256 });
        assert_eq!(found.len(), 4, "{found:#?}");
        assert!(found[0].contains("_Z6helperf") && found[1].contains("16 bytes"));
        assert!(found[2].contains("744") && found[3].contains("496"), "{found:#?}");
        let fine = Report::parse(BLACKWELL);
        assert_eq!(fine.kernel("stack").map(|f| f.registers), Some(24));
        assert!(fine.violations(&Limits { threads: 1024 }).is_empty());
    }

    #[test]
    fn codes_of_the_assembler_are_violations() {
        let report = Report::parse(HOPPER);
        let codes: Vec<_> = report.warnings.iter().flat_map(|w| w.code.as_deref()).collect();
        assert_eq!(codes, ["C7508", "C7517"]);
        assert_eq!(report.violations(&Limits { threads: 128 }).len(), 2);
    }

    #[test]
    fn registers_are_counted_as_the_hardware_hands_them_out() {
        let of = |registers, threads| {
            let log = format!("Compiling entry function 'k' for 'sm_80'\nptxas info : Used {registers} registers");
            Report::parse(&log).violations(&Limits { threads })
        };
        assert!(of(64, 1024).is_empty() && of(168, 384).is_empty() && of(255, 256).is_empty());
        assert_eq!(of(65, 1024).len(), 1);
        assert_eq!(of(170, 384).len(), 1, "170 become 176, and 176 · 384 is above 65536");
    }

    #[test]
    fn static_shared_memory_has_a_limit() {
        let log = "Compiling entry function 'k' for 'sm_80'\nptxas info : Used 10 registers, 80000 bytes smem";
        assert!(Report::parse(log).violations(&Limits { threads: 32 })[0].contains("80000"));
    }

    proptest! {
        #[test]
        fn any_text_is_read(text in any::<String>(), threads in any::<u32>()) {
            Report::parse(&text).violations(&Limits { threads });
        }

        /// Real lines with numbers beyond every type, cut and put together in any order.
        #[test]
        fn any_mixture_of_real_pieces_is_read(
            pieces in prop::collection::vec((0..AMPERE.lines().count(), any::<u128>(), 0..200_usize), 0..30),
            threads in any::<u32>(),
        ) {
            let lines: Vec<&str> = AMPERE.lines().collect();
            let text: Vec<String> = pieces.iter().map(|&(line, number, cut)| {
                let line = lines[line].replace("16 ", &format!("{number} ")).replace("24 ", &format!("{number} "));
                line.chars().skip(cut % 60).collect()
            }).collect();
            Report::parse(&text.join("\n")).violations(&Limits { threads });
        }
    }
}
