// Faults of a block's threads, turned from signals into errors, and the memory that provokes them: it ends at a page that
// nobody may touch.
#include "core.h"

#include <signal.h>
#include <sys/mman.h>
#include <ucontext.h>

namespace emu {

static thread_local Worker* worker_of_thread;

static struct sigaction before[NSIG];

std::string describe_address(const Launch& launch, uintptr_t address) {
    size_t nearest = SIZE_MAX;
    std::string text = "an address outside every argument";
    for (unsigned i = 0; i < launch.range_count; i++) {
        const Range& range = launch.ranges[i];
        bool after = address >= range.start + range.bytes;
        size_t distance = after ? address - (range.start + range.bytes) : address < range.start ? range.start - address : 0;
        if (distance >= nearest || distance > (size_t(1) << 24)) continue;
        nearest = distance;
        text = std::to_string(distance) + (after ? " bytes past the end of argument " : " bytes before the start of argument ") +
               std::to_string(range.argument) + " (" + std::to_string(range.bytes) + " bytes)";
    }
    return text;
}

static uintptr_t program_counter(const void* context) {
    const mcontext_t& machine = static_cast<const ucontext_t*>(context)->uc_mcontext;
#if defined(__x86_64__)
    return uintptr_t(machine.gregs[REG_RIP]);
#else
    return uintptr_t(machine.pc);
#endif
}

/// A fault may also be a stack's: its guard page lies just above its lowest.
static std::string describe_fault(const Worker& worker, uintptr_t address) {
    uintptr_t bottom = reinterpret_cast<uintptr_t>(worker.current);
    if (address - bottom < 2 * 4096) return "of the thread's stack of " + std::to_string(STACK) + " bytes for local variables";
    return describe_address(*worker.launch, address);
}

static void on_fault(int signal, siginfo_t* info, void* context) {
    Worker* worker = worker_of_thread;
    if (!worker || !worker->running) {
        if (before[signal].sa_flags & SA_SIGINFO) return before[signal].sa_sigaction(signal, info, context);
        sigaction(signal, &before[signal], nullptr);
        return;
    }
    uintptr_t address = reinterpret_cast<uintptr_t>(info->si_addr);
    worker->error = signal == SIGFPE ? "an integer division by zero" : "out of bounds, " + describe_fault(*worker, address);
    if (worker->current)
        worker->error += ": thread " + std::to_string(worker->current->id) + " at " + code_place(program_counter(context) + 1);
    worker->failed = true;
    siglongjmp(worker->escape, 1);
}

static void catch_faults() {
    static const bool once = [] {
        struct sigaction action = {};
        action.sa_sigaction = on_fault;
        action.sa_flags = SA_SIGINFO | SA_ONSTACK;
        for (int signal : {SIGSEGV, SIGBUS, SIGFPE}) sigaction(signal, &action, &before[signal]);
        return true;
    }();
    (void)once;
}

void watch_faults(Worker* worker) {
    catch_faults();
    worker_of_thread = worker;
}

unsigned char* guarded(size_t bytes) {
    size_t page = 4096, whole = bytes + 2 * page;
    void* start = mmap(nullptr, whole, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (start == MAP_FAILED) return nullptr;
    unsigned char* inside = static_cast<unsigned char*>(start) + page;
    if (mprotect(inside, bytes, PROT_READ | PROT_WRITE) == 0) return inside;
    // Linux allows a process so many mappings and no more.
    munmap(start, whole);
    return nullptr;
}

}  // namespace emu

/// New memory of NaNs whose end lies at a page that nobody may touch, and so does the page before its start.
extern "C" void* emu_allocate(size_t bytes) {
    size_t page = 4096, whole = (bytes + page - 1) / page * page;
    unsigned char* start = emu::guarded(whole);
    if (!start) return nullptr;
    memset(start, emu::NAN_BYTE, whole);
    return start + (whole - bytes);
}

extern "C" void emu_free(void* memory, size_t bytes) {
    size_t page = 4096, whole = (bytes + page - 1) / page * page;
    munmap(static_cast<char*>(memory) - (whole - bytes) - page, whole + 2 * page);
}
