#!/usr/bin/env python3
"""Lets one call of a training run that touches a file fail, again and again, and compares what comes out with a run left in peace.

Each run meets one fault at a random call: the process is killed before it or in the middle of a write, the disk is full, damaged or
read-only, a call is interrupted, a write is short. It then goes on by `--resume latest` without one. No run may be lost, none may
panic or fail without a word, and each must end with the same weights and steps. Needs a built `lenslet`, a C compiler and Linux:
python3 tests/faults.py --faults 500
"""

import argparse
import collections
import os
import pathlib
import random
import shutil
import subprocess
import sys
import tempfile

from kills import command, outcome

# Calls that are made again when a signal interrupts them; of the others no local disk says so.
AGAIN = ("open", "write", "fsync", "ftruncate")
KINDS = ("kill", "half-kill", "ENOSPC", "EIO", "EROFS", "EINTR", "short")


def train(args, out, **fault):
    """Runs to the end, or to the fault; how it ended and what it said."""
    environment = dict(os.environ, **{name: str(value) for name, value in fault.items()})
    if fault:
        environment["LD_PRELOAD"] = str(args.library)
    done = subprocess.run(command(args, out), env=environment, capture_output=True, text=True, errors="replace", timeout=120)
    return done.returncode, done.stderr


def fail(message):
    sys.exit(f"faults.py: {message}")


def one(args, folder, expected, kind, at):
    """One run with one fault; the call that failed."""
    out, log = folder / "run", folder / "call"
    shutil.rmtree(out, ignore_errors=True)
    log.unlink(missing_ok=True)
    status, said = train(args, out, FAULT_AT=at, FAULT_KIND=kind, FAULT_LOG=log)
    call = log.read_text().strip() if log.exists() else "none"
    about = f"{kind} at call {at}, {call}: status {status}: {said[-500:]}"
    if "panicked" in said or status not in (0, 1, -9):
        fail(f"neither done nor refused: {about}")
    if status == 1 and "error: " not in said:
        fail(f"nothing is said: {about}")
    if (kind == "short" or kind == "EINTR" and call in AGAIN) and status != 0:
        fail(f"such a call is made again: {about}")
    status, said = train(args, out)
    if status != 0:
        fail(f"the run is lost: {about}; then {said[-500:]}")
    if outcome(out) != expected:
        fail(f"differs from the run left in peace: {about}")
    return call


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--lenslet", default="target/release/lenslet", help="the binary")
    parser.add_argument("--faults", type=int, default=500)
    parser.add_argument("--seed", type=int, default=0, help="of the calls")
    parser.add_argument("--set", action="append", default=[], help="a setting of the recipe")
    args = parser.parse_args()
    draw = random.Random(args.seed)
    met = collections.Counter()
    with tempfile.TemporaryDirectory() as folder:
        folder = pathlib.Path(folder)
        args.library = folder / "faults.so"
        source = pathlib.Path(__file__).parent / "faults.c"
        subprocess.run(["cc", "-shared", "-fPIC", "-O1", "-o", args.library, source, "-ldl"], check=True)
        status, said = train(args, folder / "peace", FAULT_AT=0, FAULT_COUNT=folder / "count")
        if status != 0:
            fail(f"the run fails by itself: {said[-500:]}")
        calls, expected = int((folder / "count").read_text()), outcome(folder / "peace")
        for number in range(args.faults):
            kind = KINDS[number % len(KINDS)]
            met[f"{kind} {one(args, folder, expected, kind, draw.randint(1, calls))}"] += 1
            if number % 50 == 49:
                print(f"{number + 1} faults among {calls} calls: no run lost, all ended as the one left in peace", flush=True)
        print(", ".join(f"{what} {count}" for what, count in sorted(met.items())))


if __name__ == "__main__":
    main()
