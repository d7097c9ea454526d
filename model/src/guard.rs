//! Libraries that panic on damaged files.

use anyhow::{Error, Result, anyhow};
use std::cell::Cell;
use std::panic::{AssertUnwindSafe, catch_unwind, set_hook, take_hook};
use std::sync::Once;

thread_local! {
    static GUARDED: Cell<bool> = const { Cell::new(false) };
}
static HOOK: Once = Once::new();

/// What `work` gives; a panic within it becomes an error and prints nothing. What `work` changes must not be used afterwards.
pub(super) fn guarded<T, E: Into<Error>>(work: impl FnOnce() -> Result<T, E>) -> Result<T> {
    HOOK.call_once(|| {
        let usual = take_hook();
        set_hook(Box::new(move |info| {
            if !GUARDED.get() {
                usual(info);
            }
        }));
    });
    let before = GUARDED.replace(true);
    let done = catch_unwind(AssertUnwindSafe(work));
    GUARDED.set(before);
    match done {
        Ok(result) => result.map_err(Into::into),
        Err(_) => Err(anyhow!("damaged in a way that its reader does not survive")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn panics_become_errors_and_results_stay() {
        let message = guarded(|| -> Result<u8> { panic!("gone") }).unwrap_err().to_string();
        assert!(message.contains("damaged"), "{message}");
        assert_eq!(guarded(|| Ok::<_, Error>(3)).unwrap(), 3);
        assert!(
            guarded(|| Err::<u8, _>(anyhow!("as it is")))
                .unwrap_err()
                .to_string()
                .contains("as it is")
        );
    }
}
