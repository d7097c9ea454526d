//! Memory of this process and this machine.

/// Bytes of memory a process holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Resident {
    /// Now.
    pub current: u64,
    /// The most so far.
    pub peak: u64,
}

/// Memory this process holds; None where the system does not say (no `/proc`).
pub fn resident() -> Option<Resident> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    Some(Resident { current: field(&status, "VmRSS")?, peak: field(&status, "VmHWM")? })
}

/// Memory new allocations can get without swapping, in bytes; None where the system does not say.
pub fn available() -> Option<u64> {
    field(&std::fs::read_to_string("/proc/meminfo").ok()?, "MemAvailable")
}

/// The machine's memory in bytes; None where the system does not say.
pub fn total() -> Option<u64> {
    field(&std::fs::read_to_string("/proc/meminfo").ok()?, "MemTotal")
}

/// Bytes that the disk of a folder has room for; None where the system does not say.
pub fn free_disk(folder: &std::path::Path) -> Option<u64> {
    let disk = rustix::fs::statvfs(folder).ok()?;
    Some(disk.f_bavail.saturating_mul(disk.f_frsize))
}

/// The value of a line `name:   123 kB`, in bytes.
fn field(text: &str, name: &str) -> Option<u64> {
    let line = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'))?;
    let kib: u64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    kib.checked_mul(1024)
}

/// A size for people: `512 B`, `1.5 KiB`, `23.4 GiB`.
pub fn size(bytes: u64) -> String {
    const UNITS: [&str; 5] = ["B", "KiB", "MiB", "GiB", "TiB"];
    let mut value = bytes as f64;
    let mut unit = 0;
    while value >= 1023.95 && unit + 1 < UNITS.len() {
        value /= 1024.0;
        unit += 1;
    }
    match unit {
        0 => format!("{bytes} B"),
        _ => format!("{value:.1} {}", UNITS[unit]),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_readable() {
        let table = [
            (0, "0 B"),
            (1023, "1023 B"),
            (1024, "1.0 KiB"),
            (1 << 20, "1.0 MiB"),
            ((1 << 20) - 1, "1.0 MiB"),
            (25 << 30, "25.0 GiB"),
            (u64::MAX, "16777216.0 TiB"),
        ];
        for (bytes, text) in table {
            assert_eq!(size(bytes), text);
        }
    }

    #[test]
    fn fields_are_read_in_bytes_and_damaged_ones_are_none() {
        let text = "VmPeak:\t  9 kB\nVmHWM:\t  2048 kB\nVmRSS:\t  junk kB\nVmBig: 99999999999999999999 kB\n";
        assert_eq!(field(text, "VmHWM"), Some(2 << 20));
        assert_eq!((field(text, "VmRSS"), field(text, "VmBig"), field(text, "Vm")), (None, None, None));
    }

    #[test]
    fn a_large_allocation_shows_in_the_peak() {
        let block = std::hint::black_box(vec![1u8; 64 << 20]);
        let with = resident().unwrap();
        assert!(with.peak >= block.len() as u64 && with.current <= with.peak && with.current > 0, "{with:?}");
        assert!(available().unwrap() <= total().unwrap());
    }
}
