#!/usr/bin/env python3
"""Kills a training run at random moments, again and again, and compares what comes out with a run left in peace.

Weights must be the same to the last byte, and so must every step's loss, learning rate and gradient norm. Needs a built
`lenslet` and nothing else: python3 tests/kills.py --kills 100
"""

import argparse
import hashlib
import json
import pathlib
import random
import signal
import subprocess
import sys
import tempfile
import time

RECIPE = pathlib.Path(__file__).parent.parent / "trainer/tests/recipes/tiny.toml"
KEPT = ("phase", "step", "loss", "lr", "grad_norm", "num_tokens", "mean_token_accuracy")


def command(args, out):
    settings = [word for one in args.set for word in ("--set", one)]
    return [args.lenslet, "train", "--recipe", str(RECIPE), *settings, "--out", str(out), "--resume", "latest"]


def outcome(run):
    lines = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    steps = [[line.get(key) for key in KEPT] for line in lines]
    return hashlib.sha256((run / "model.safetensors").read_bytes()).hexdigest(), steps


def killed(args, out, longest, draw):
    """Runs until it is killed or done; whether it was killed."""
    with open(out.parent / "log.txt", "a") as log:
        process = subprocess.Popen(command(args, out), stdout=log, stderr=log)
    try:
        status = process.wait(draw.uniform(0, longest))
    except subprocess.TimeoutExpired:
        process.send_signal(signal.SIGKILL)
        process.wait()
        return True
    if status != 0:
        sys.exit(f"the run failed by itself, status {status}:\n{(out.parent / 'log.txt').read_text()[-3000:]}")
    return False


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--lenslet", default="target/release/lenslet", help="the binary")
    parser.add_argument("--kills", type=int, default=100)
    parser.add_argument("--seed", type=int, default=0, help="of the moments")
    parser.add_argument("--set", action="append", default=[], help="a setting of the recipe, as in run.dtype=bf16")
    args = parser.parse_args()
    draw = random.Random(args.seed)
    with tempfile.TemporaryDirectory() as folder:
        folder = pathlib.Path(folder)
        begin = time.perf_counter()
        subprocess.run(command(args, folder / "peace"), check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        longest = time.perf_counter() - begin
        expected = outcome(folder / "peace")
        kills = runs = 0
        while kills < args.kills:
            out = folder / f"run-{runs}"
            while killed(args, out, longest, draw):
                kills += 1
            if outcome(out) != expected:
                sys.exit(f"{kills} kills: {out.name} differs from the run left in peace")
            runs += 1
            print(f"{kills} kills, {runs} runs ended as the one left in peace", flush=True)


if __name__ == "__main__":
    main()
