//! Where time goes: how long each kernel call on the CPU took, what it computed and what it touched.
//!
//! The checks of a call's arguments count their bytes; kernels that multiply matrices say how many floating-point operations
//! they take. While nothing is recorded each of these costs a read of a flag.

use std::cell::Cell;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, OnceLock};
use std::time::Instant;

static RECORDING: AtomicBool = AtomicBool::new(false);
static EVENTS: Mutex<Vec<Event>> = Mutex::new(Vec::new());

/// One kernel call.
#[derive(Debug, Clone, PartialEq)]
pub struct Event {
    /// The kernel.
    pub kernel: &'static str,
    /// The thread that called it, by its number among those that compute; 0 where it is none of them.
    pub thread: usize,
    /// Seconds since recording began.
    pub start: f64,
    /// Seconds it took.
    pub seconds: f64,
    /// Floating-point operations of its matrix products; 0 for kernels that move memory.
    pub flops: f64,
    /// Bytes of its arguments, each counted once.
    pub bytes: f64,
}

/// Records every kernel call from now on, forgetting those recorded before.
pub fn begin() {
    epoch();
    EVENTS.lock().expect("no panic while events are locked").clear();
    RECORDING.store(true, Ordering::Relaxed);
}

/// Ends recording and returns what was recorded, in the order in which the calls ended.
pub fn end() -> Vec<Event> {
    RECORDING.store(false, Ordering::Relaxed);
    std::mem::take(&mut EVENTS.lock().expect("no panic while events are locked"))
}

/// What all starts are counted from.
fn epoch() -> Instant {
    static EPOCH: OnceLock<Instant> = OnceLock::new();
    *EPOCH.get_or_init(Instant::now)
}

fn recording() -> bool {
    RECORDING.load(Ordering::Relaxed)
}

thread_local! {
    /// Bytes and operations of the call that this thread is about to make.
    static NEXT: Cell<(f64, f64)> = const { Cell::new((0.0, 0.0)) };
}

/// A call whose arguments are checked from here on.
pub(crate) fn prepare() {
    if recording() {
        NEXT.set((0.0, 0.0));
    }
}

/// The call that is prepared touches so many bytes more.
pub(crate) fn touches(bytes: usize) {
    if recording() {
        let (all, flops) = NEXT.get();
        NEXT.set((all + bytes as f64, flops));
    }
}

/// The call that is prepared takes so many floating-point operations.
pub(crate) fn computes(flops: f64) {
    if recording() {
        NEXT.set((NEXT.get().0, flops));
    }
}

/// A call under way: it is recorded when this is dropped.
pub(crate) struct Span {
    kernel: &'static str,
    /// When it began, its bytes and operations; None while nothing is recorded.
    call: Option<(Instant, (f64, f64))>,
}

/// Begins the call that was prepared.
pub(crate) fn span(kernel: &'static str) -> Span {
    let call = recording().then(|| (Instant::now(), NEXT.take()));
    Span { kernel, call }
}

impl Drop for Span {
    fn drop(&mut self) {
        let Some((begin, (bytes, flops))) = self.call else {
            return;
        };
        let seconds = begin.elapsed().as_secs_f64();
        let Ok(mut events) = EVENTS.lock() else { return };
        // A call of another thread may end after recording did.
        if !recording() {
            return;
        }
        events.push(Event {
            kernel: self.kernel,
            thread: rayon::current_thread_index().unwrap_or(0),
            start: (begin - epoch()).as_secs_f64(),
            seconds,
            flops,
            bytes,
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::gemm::{Epilogue, Gemm, Layout, gemm};
    use crate::{DType, Device, View, ViewMut};

    #[test]
    fn calls_are_recorded_with_their_work_while_it_is_asked_for() {
        let device = Device::cpu();
        let zeros = |n: usize| device.allocate(4 * n).unwrap();
        let (a, b, mut c) = (zeros(6), zeros(12), zeros(8));
        let mut multiply = || {
            let view = |buffer, len| View::new(buffer, DType::F32, 0, len);
            let mut out = ViewMut::new(&mut c, DType::F32, 0, 8);
            gemm(Gemm::new(Layout::Nn, 2, 4, 3), view(&a, 6), view(&b, 12), &mut out, Epilogue::default()).unwrap();
        };
        multiply();
        begin();
        multiply();
        multiply();
        let found = end();
        multiply();
        assert!(end().is_empty());
        // Other tests compute beside this one.
        let mine: Vec<&Event> = found.iter().filter(|event| event.flops == 48.0).collect();
        assert!(mine.len() >= 2, "{found:?}");
        assert_eq!((mine[0].kernel, mine[0].bytes), ("gemm", 4.0 * 26.0));
        assert!(mine[0].seconds > 0.0 && mine[1].start >= mine[0].start);
    }
}
