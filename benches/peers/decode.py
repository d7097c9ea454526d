#!/usr/bin/env python3
"""Decoding on the CPU beside candle's: both programs in turn, round after round, and the ratio of their medians.

Builds both first. The machine's other load hits both alike only over many rounds: look at the spread.
"""

import argparse
import subprocess

from programs import ROOT, build, build_peer, quantiles

PEER = ROOT / "target" / "peers" / "candle" / "release" / "candle-peer"


def sample(program, threads, dtype, prompt, options):
    """Tokens per second of each run: in the prompt, and while decoding."""
    command = [program, "--threads", threads, "--dtype", dtype, "--prompt", prompt]
    command += ["--tokens", options.tokens, "--runs", options.runs]
    done = subprocess.run(list(map(str, command)), check=True, capture_output=True, text=True)
    return [tuple(map(float, line.split())) for line in done.stdout.splitlines()]


def row(what, ours, theirs):
    (a, a20, a80), (b, b20, b80) = quantiles(ours), quantiles(theirs)
    print(f"| {what} | {a:.1f} ({a20:.1f}–{a80:.1f}) | {b:.1f} ({b20:.1f}–{b80:.1f}) | {a / b:.2f} |", flush=True)


def compare(threads, dtype, prompt, options):
    programs = [ROOT / "target" / "release" / "decode", PEER]
    runs = [[], []]
    for _ in range(options.rounds):
        for found, program in zip(runs, programs):
            found += sample(program, threads, dtype, prompt, options)
    ours, theirs = runs
    place = f"{dtype}, {threads} thread{'s' if threads > 1 else ''}"
    row(f"{place}, decoding after {prompt}", [x[1] for x in ours], [x[1] for x in theirs])
    row(f"{place}, prompt of {prompt}", [x[0] for x in ours], [x[0] for x in theirs])


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--runs", type=int, default=2, help="per round and program")
    parser.add_argument("--tokens", type=int, default=32)
    parser.add_argument("--threads", type=int, nargs="+", default=[1, 2])
    parser.add_argument("--prompts", type=int, nargs="+", default=[16, 256])
    parser.add_argument("--dtypes", nargs="+", default=["f32", "bf16"])
    parser.add_argument("--no-build", action="store_true")
    options = parser.parse_args()
    if not options.no_build:
        build("-p", "lenslet-benches", "--bin", "decode")
        build_peer("candle")
    print("| tokens/s, median (p20–p80) | Lenslet | candle | ratio |\n|---|---|---|---|")
    for dtype in options.dtypes:
        for threads in options.threads:
            for prompt in options.prompts:
                compare(threads, dtype, prompt, options)


if __name__ == "__main__":
    main()
