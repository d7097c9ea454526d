// What the lanes of a warp do together: meetings, shuffles and votes. The last lane to arrive carries it out for all.
#include "checker.h"

namespace emu {

void together(const char* what, unsigned mask, void* operand, Together execute, void* context, Place place) {
    Fiber& me = fiber();
    Worker& worker = *me.worker;
    unsigned lane = me.id % 32, bit = 1u << lane, warp = me.id - lane;
    if (!(mask & bit)) fail("%s at %s:%d: thread %u is not in its own mask %#x", what, place.file, place.line, me.id, mask);
    Meeting& meeting = worker.meetings[warp + __builtin_ctz(mask)];
    if (meeting.arrived == 0) meeting.mask = mask, meeting.what = what, meeting.place = place;
    if (meeting.mask != mask || meeting.what != what || meeting.place.line != place.line)
        fail("lanes of a warp part: thread %u is at %s, %s:%d with mask %#x, where others of its warp are at %s, %s:%d with mask %#x",
             me.id, what, place.file, place.line, mask, meeting.what, meeting.place.file, meeting.place.line, meeting.mask);
    meeting.operands[lane] = operand;
    meeting.arrived |= bit;
    if (meeting.arrived != mask) return wait(me, what, place);
    if (execute) execute(meeting.operands, mask, context);
    meeting.arrived = 0;
    for (unsigned rest = mask & ~bit; rest; rest &= rest - 1) worker.fibers[warp + __builtin_ctz(rest)]->state = State::Ready;
}

static void order_lanes(void* const*, unsigned mask, void*) {
    Fiber& me = fiber();
    if (!me.worker->launch->check) return;
    unsigned met[32], count = 0;
    for (unsigned rest = mask; rest; rest &= rest - 1) met[count++] = me.id / 32 * 32 + __builtin_ctz(rest);
    check_met(met, count);
}

void warp_barrier(unsigned mask, Place place) { together("__syncwarp", mask, nullptr, order_lanes, nullptr, place); }

/// Which shuffle it is, and where.
struct ShuffleCall {
    const char* what;
    Place place;
};

static void exchange_values(void* const* operands, unsigned mask, void* context) {
    const ShuffleCall& call = *static_cast<const ShuffleCall*>(context);
    unsigned warp = fiber().id / 32 * 32;
    uint64_t values[32];
    for (unsigned rest = mask; rest; rest &= rest - 1) {
        int lane = __builtin_ctz(rest);
        values[lane] = static_cast<Shuffle*>(operands[lane])->value;
    }
    for (unsigned rest = mask; rest; rest &= rest - 1) {
        Shuffle& mine = *static_cast<Shuffle*>(operands[__builtin_ctz(rest)]);
        if (!(mask >> mine.source & 1))
            fail("%s at %s:%d: lane %d of threads %u–%u reads lane %d, which is not in the mask %#x", call.what, call.place.file,
                 call.place.line, __builtin_ctz(rest), warp, warp + 31, mine.source, mask);
        mine.value = values[mine.source];
    }
}

void shuffle(const char* what, unsigned mask, Shuffle& operand, Place place) {
    ShuffleCall call = {what, place};
    together(what, mask, &operand, exchange_values, &call, place);
}

struct Vote {
    bool mine;
    unsigned all;
};

static void count_votes(void* const* operands, unsigned mask, void*) {
    unsigned all = 0;
    for (unsigned rest = mask; rest; rest &= rest - 1) {
        int lane = __builtin_ctz(rest);
        all |= unsigned(static_cast<Vote*>(operands[lane])->mine) << lane;
    }
    for (unsigned rest = mask; rest; rest &= rest - 1) static_cast<Vote*>(operands[__builtin_ctz(rest)])->all = all;
}

unsigned ballot(unsigned mask, bool predicate, Place place) {
    Vote vote = {predicate, 0};
    together("__ballot_sync", mask, &vote, count_votes, nullptr, place);
    return vote.all;
}

}  // namespace emu
