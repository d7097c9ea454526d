// Addresses of code turned into file and line, from the debugging information of the kernels' libraries.
//
// A thread that fails writes the address into the text; it is named later, away from the thread's small stack.
#include "core.h"

#include <dlfcn.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>

namespace emu {

static const char MARK[] = "<code ";

std::string code_place(uintptr_t address) {
    char text[40];
    snprintf(text, sizeof text, "%s%" PRIxPTR ">", MARK, address);
    return text;
}

/// `/a/b/kernel.cu:12 (discriminator 3)` as `kernel.cu:12`; nothing for what is unknown.
static std::string short_place(const std::string& line) {
    std::string text = line.substr(0, line.find_first_of(" \n"));
    text = text.substr(text.rfind('/') + 1);
    size_t colon = text.rfind(':');
    bool known = colon != std::string::npos && text[0] != '?' && text[colon + 1] != '?' && text[colon + 1] != '0';
    return known ? text : "";
}

/// The lines an address comes from, the innermost of inlined functions first.
static std::vector<std::string> lines_of(const char* library, uintptr_t offset) {
    std::vector<std::string> lines;
    std::string quoted;
    for (const char* c = library; *c; c++) quoted += *c == '\'' ? std::string("'\\''") : std::string(1, *c);
    char number[24];
    snprintf(number, sizeof number, "%#" PRIxPTR, offset);
    FILE* output = popen(("addr2line -i -e '" + quoted + "' " + number + " 2>/dev/null").c_str(), "r");
    if (!output) return lines;
    char line[1024];
    while (fgets(line, sizeof line, output)) {
        std::string place = short_place(line);
        // The emulator's own lines are no part of a kernel.
        if (!place.empty() && place.rfind("emulator.h:", 0) != 0) lines.push_back(place);
    }
    pclose(output);
    return lines;
}

static std::string name_place(uintptr_t address) {
    Dl_info found;
    if (!dladdr(reinterpret_cast<void*>(address), &found)) return "unknown code";
    // A return address lies behind the call that is meant.
    uintptr_t offset = address - 1 - reinterpret_cast<uintptr_t>(found.dli_fbase);
    std::vector<std::string> lines = lines_of(found.dli_fname, offset);
    std::string place;
    for (size_t i = 0; i < lines.size(); i++) place += (i == 0 ? "" : i == 1 ? " (from " : ", from ") + lines[i];
    if (!place.empty()) return place + (lines.size() > 1 ? ")" : "");
    char number[24];
    snprintf(number, sizeof number, "+%#" PRIxPTR, offset);
    return found.dli_sname ? found.dli_sname + std::string(number) : found.dli_fname + std::string(number);
}

std::string name_places(const std::string& text) {
    std::string named;
    size_t from = 0;
    for (size_t at; (at = text.find(MARK, from)) != std::string::npos;) {
        size_t end = text.find('>', at);
        named += text.substr(from, at - from);
        named += name_place(strtoull(text.c_str() + at + sizeof MARK - 1, nullptr, 16));
        from = end + 1;
    }
    return named + text.substr(from);
}

}  // namespace emu
