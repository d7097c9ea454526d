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

/// Mbarriers by their index in the worker's list: who arrives shows those who wait what it has seen.
void check_mbarrier_init(size_t mbarrier, const void* at, const void* pc);
void check_mbarrier_invalidated(size_t mbarrier, const void* at, const void* pc);
/// The running thread knows that it is initialised.
void check_mbarrier_use(size_t mbarrier, const void* pc);
void check_arrival(size_t mbarrier, const void* pc);
void check_phase_completes(size_t mbarrier);
void check_phase_seen(size_t mbarrier);
void check_mbarrier_fence();
void check_proxy_fence();

/// Bulk copies. The first call answers the number by which the others know the copy.
unsigned check_load_starts(const BulkLoad& load, const void* pc);
void check_load_lands(unsigned job, uint32_t phase);
unsigned check_store_starts(const BulkStore& store, const void* pc);
/// Its thread has waited for the source to be read, for the target to be written.
void check_store_read(unsigned job);
void check_store_written(unsigned job);

void check_block_starts(Worker& worker);
/// All threads of the block have met.
void check_block_met();
/// These threads have met and see what each of them did before.
void check_met(const unsigned* threads, unsigned count);
/// A __threadfence: what the block did so far is visible to blocks that see its later atomics.
void check_fence();

}  // namespace emu
