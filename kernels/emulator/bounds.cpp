// The checker's bounds, of shared memory and of arguments, and the words of its errors.
#include "checker_state.h"

#include <algorithm>

namespace emu {

// ---- telling

std::string place_of(const Access& access) { return code_place(checker.code_start + access.where); }

std::string name_of(uintptr_t address) {
    size_t offset = address - checker.shared.start;
    if (offset < ARENA) return name_shared(*fiber().worker, offset);
    for (const View& view : checker.views)
        if (address - view.range.start < view.range.bytes)
            return "byte " + std::to_string(address - view.range.start) + " of argument " + std::to_string(view.range.argument);
    return "unknown memory";
}

static const char* verb(Kind kind) { return kind == Read ? "reads" : kind == Write ? "writes" : kind == AtomicRead ? "reads atomically" : "changes atomically"; }

void tell(const char* problem, size_t bytes, Kind kind, const void* pc, const std::string& more) {
    fail("%s: thread %u %s %zu bytes at %s%s", problem, fiber().id, verb(kind), bytes,
         code_place(reinterpret_cast<uintptr_t>(pc)).c_str(), more.c_str());
}

static std::string block_of(uint32_t epoch) {
    if (epoch >= checker.block_start) return "";
    auto after = std::upper_bound(checker.blocks.begin(), checker.blocks.end(), epoch);
    return " of the grid's block " + std::to_string(after - checker.blocks.begin() - 1);
}

void tell_bulk(const Access& before, const char* does, uintptr_t address, size_t bytes, Kind kind, const void* pc) {
    const Job& job = checker.jobs[before.clock];
    const Worker& worker = *fiber().worker;
    bool known = (address - checker.shared.start < ARENA ? job.read : job.written).bytes;
    std::string who = "thread " + std::to_string(before.thread);
    std::string missing = job.load ? "which tells " + describe(worker, worker.mbarriers[job.mbarrier]) + ", and this thread has waited for no such phase"
                          : known  ? "which " + who + " has waited for, and nothing orders the two"
                                   : "which " + who + " has not waited for";
    tell("bulk copy under way", bytes, kind, pc, ", " + name_of(address) + "; " + who + "'s bulk copy at " + place_of(before) + " " + does + " it, " + missing);
}

void tell_race(const Access& before, const char* did, uintptr_t address, size_t bytes, Kind kind, const void* pc) {
    const char* problem = address - checker.shared.start < ARENA ? "race on shared memory" : "race on global memory";
    tell(problem, bytes, kind, pc,
         ", " + name_of(address) + "; thread " + std::to_string(before.thread) + block_of(before.epoch) + " " + did + " it at " +
             place_of(before) + ", and nothing orders the two");
}

// ---- bounds

void check_shared(size_t offset, size_t bytes, Kind kind, const void* pc) {
    const Worker& worker = *fiber().worker;
    size_t dynamic = dynamic_offset(*worker.launch);
    if (offset >= checker.recent_start && offset + bytes <= checker.recent_end) return;
    if (offset >= dynamic && offset + bytes <= dynamic + worker.launch->shared_bytes) return;
    for (const Static& one : worker.statics)
        if (offset >= one.offset && offset + bytes <= one.offset + one.bytes) {
            checker.recent_start = one.offset;
            checker.recent_end = one.offset + one.bytes;
            return;
        }
    std::string nearest = ", outside the " + std::to_string(worker.launch->shared_bytes) + " bytes of dynamic shared memory";
    for (const Static& one : worker.statics)
        if (offset < dynamic && offset + GAP >= one.offset && offset < one.offset + one.bytes + GAP)
            nearest = ", at byte " + std::to_string(int64_t(offset) - int64_t(one.offset)) + " of the " + std::to_string(one.bytes) +
                      " declared at " + one.place.file + ":" + std::to_string(one.place.line);
    tell("out of bounds of shared memory", bytes, kind, pc, nearest);
}

const View* check_global(uintptr_t address, size_t bytes, Kind kind, const void* pc) {
    std::vector<View>& views = checker.views;
    auto allows = [&](const View& view) {
        return address >= view.range.start && address + bytes <= view.range.start + view.range.bytes &&
               (!(kind & Write) || view.range.writable);
    };
    if (checker.recent < views.size() && allows(views[checker.recent])) return &views[checker.recent];
    for (size_t i = 0; i < views.size(); i++)
        if (allows(views[i])) return &views[checker.recent = i, i];
    if (address >= checker.code_start && address < checker.code_end) return nullptr;
    for (const View& view : views)
        if (address >= view.range.start && address + bytes <= view.range.start + view.range.bytes)
            tell("write to a read-only argument", bytes, kind, pc, ", " + name_of(address));
    tell("out of bounds", bytes, kind, pc, ", " + describe_address(*fiber().worker->launch, address));
}

}  // namespace emu
