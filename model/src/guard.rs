//! Libraries that panic on damaged files.

use std::cell::Cell;
use std::panic::{AssertUnwindSafe, catch_unwind, set_hook, take_hook};
use std::sync::Once;

thread_local! {
    static GUARDED: Cell<bool> = const { Cell::new(false) };
}
static HOOK: Once = Once::new();

/// A panic that became an error.
#[derive(Debug, thiserror::Error)]
#[error("damaged in a way that its reader does not survive")]
pub struct Panicked;

/// What `work` gives; a panic within it becomes an error and prints nothing. What `work` changes must not be used afterwards.
pub fn guarded<T, E: From<Panicked>>(work: impl FnOnce() -> Result<T, E>) -> Result<T, E> {
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
    done.unwrap_or_else(|_| Err(Panicked.into()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::{Error, input};

    #[test]
    fn panics_become_errors_and_results_stay() {
        let panics = |text: &str| -> Result<u8, Error> { panic!("{text}") };
        let message = guarded(|| panics("gone")).unwrap_err().to_string();
        assert!(message.contains("damaged"), "{message}");
        assert_eq!(guarded(|| Ok::<_, Error>(3)).unwrap(), 3);
        let kept = guarded(|| input::<u8>("text", "as it is")).unwrap_err();
        assert!(kept.to_string().contains("as it is"));
    }
}
