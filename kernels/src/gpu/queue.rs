//! Work that waits to be handed to a GPU as a whole.

use super::module::{Arg, Grid, Module};

/// Work in the order it was asked for.
#[derive(Debug)]
pub(super) enum Command {
    Launch { module: Module, kernel: &'static str, grid: Grid, args: Vec<Arg> },
    Upload { to: u64, data: Vec<u8> },
}

/// Most commands that wait: a loop that never reads anything back keeps no more.
const MOST: usize = 1 << 16;

/// What waits. Memory given back meanwhile waits, too: work before that may still use it.
#[derive(Debug, Default)]
pub(super) struct Queue {
    pub(super) collecting: bool,
    commands: Vec<Command>,
    /// Addresses with their sizes in bytes.
    freed: Vec<(u64, usize)>,
}

impl Queue {
    pub(super) fn push(&mut self, command: Command) {
        self.commands.push(command);
    }

    pub(super) fn is_full(&self) -> bool {
        self.commands.len() >= MOST
    }

    /// Whether this memory may be given back at once; otherwise it is with what waits.
    pub(super) fn may_free(&mut self, address: u64, bytes: usize) -> bool {
        if self.commands.is_empty() {
            return true;
        }
        self.freed.push((address, bytes));
        false
    }

    /// All that waits, and the memory to be given back once it is done.
    pub(super) fn take(&mut self) -> (Vec<Command>, Vec<(u64, usize)>) {
        (std::mem::take(&mut self.commands), std::mem::take(&mut self.freed))
    }
}
