// The checker's calls, for the emulator's other parts: made only where a launch asks for checks. See checker.cpp.
#pragma once

#include "core.h"

namespace emu {

/// What an access does, as bits.
enum Kind : unsigned { Read = 1, Write = 2, Atomic = 4, AtomicRead = Atomic | Read, AtomicWrite = Atomic | Write, AtomicChange = Atomic | Read | Write };

/// One thread's access to memory from the code at `pc`: ends the launch if it must not be.
void check_access(const void* address, size_t bytes, Kind kind, const void* pc);
/// The target of an asynchronous copy belongs to the copy until its thread has waited for it.
void check_copy_starts(const void* to, size_t bytes, const void* pc);
void check_copy_done(const void* to, size_t bytes);

void check_block_starts(Worker& worker);
/// All threads of the block have met.
void check_block_met();
/// These threads have met and see what each of them did before.
void check_met(const unsigned* threads, unsigned count);
/// A __threadfence: what the block did so far is visible to blocks that see its later atomics.
void check_fence();

}  // namespace emu
