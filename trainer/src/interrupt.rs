//! Being asked to stop: the first SIGINT, SIGTERM or SIGHUP is noted, and training saves after the step it is at; a second ends
//! the program at once.

use anyhow::{Context, Result};
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM, SIGXFSZ};
use signal_hook::flag;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};

/// The exit status of a run that was asked to stop and did.
pub const STATUS: u8 = 130;

static ASKED: OnceLock<Arc<AtomicBool>> = OnceLock::new();

/// From now on signals are noted.
pub fn listen() -> Result<()> {
    let asked = ASKED.get_or_init(Default::default);
    for signal in [SIGINT, SIGTERM, SIGHUP] {
        // `nohup` has it ignored.
        if signal == SIGHUP && ignored(signal) {
            continue;
        }
        // In this order: the flag that the first signal sets is what the second finds set.
        flag::register_conditional_shutdown(signal, STATUS.into(), asked.clone())
            .and_then(|_| flag::register(signal, asked.clone()))
            .context("signals cannot be listened to")?;
    }
    Ok(())
}

/// From now on a file that grows beyond what a file may have is an error of the write, and not the end of the process.
pub fn outlive_full_files() -> std::io::Result<()> {
    // The flag is never read: that something listens is enough.
    flag::register(SIGXFSZ, Arc::default()).map(|_| ())
}

/// Whether this process was started with a signal ignored; where the system does not say, it was not.
fn ignored(signal: i32) -> bool {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let mask = status.lines().find_map(|line| line.strip_prefix("SigIgn:"));
    let mask = mask.and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok());
    mask.is_some_and(|mask| mask >> (signal - 1) & 1 == 1)
}

/// Whether a signal has come.
pub fn asked() -> bool {
    ASKED.get().is_some_and(|asked| asked.load(Ordering::Relaxed))
}

/// Goes on unless a signal has come.
///
/// # Errors
/// [`Stopped`] when one has.
pub fn heed() -> Result<()> {
    match asked() {
        true => Err(Stopped("stopped as asked".into()).into()),
        false => Ok(()),
    }
}

/// A run that stopped because it was asked to; what is said tells how to go on.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct Stopped(pub String);
