//! Being asked to stop: the first SIGINT or SIGTERM is noted, and training saves after the step it is at; a second ends the
//! program at once.

use anyhow::{Context, Result};
use signal_hook::consts::{SIGINT, SIGTERM};
use signal_hook::flag;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};

/// The exit status of a run that was asked to stop and did.
pub const STATUS: u8 = 130;

static ASKED: OnceLock<Arc<AtomicBool>> = OnceLock::new();

/// From now on signals are noted.
///
/// # Errors
/// When the system does not allow it.
pub fn listen() -> Result<()> {
    let asked = ASKED.get_or_init(Default::default);
    for signal in [SIGINT, SIGTERM] {
        // In this order: the flag that the first signal sets is what the second finds set.
        flag::register_conditional_shutdown(signal, STATUS.into(), asked.clone())
            .and_then(|_| flag::register(signal, asked.clone()))
            .context("signals cannot be listened to")?;
    }
    Ok(())
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
