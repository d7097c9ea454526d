#!/usr/bin/env python3
"""Reads a run's TensorBoard files with TensorBoard's own reader and compares them with its metrics.jsonl.

Every step must be there once under every tag, with the value the log has, and none beyond the log's last. Needs
`pip install tensorboard`: python3 tests/tensorboard_files.py runs/demo
"""

import argparse
import json
import math
import pathlib
import sys

from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

OF_RUN = {
    "samples_per_s": "throughput/samples_per_s",
    "tokens_per_s": "throughput/tokens_per_s",
    "data_wait_share": "throughput/data_wait_share",
    "mfu": "throughput/mfu",
    "memory_bytes": "memory/bytes",
}


def expected(run):
    """Tags with what they should hold: (step of the run, value), in order."""
    tags = {}
    for number, line in enumerate((run / "metrics.jsonl").read_text().splitlines(), start=1):
        line = json.loads(line)
        phase = line.pop("phase")
        for key, value in line.items():
            if key != "step":
                tags.setdefault(OF_RUN.get(key, f"{phase}/{key}"), []).append((number, value))
    steps = sum(1 for _ in (run / "metrics.jsonl").open())
    if (run / "eval.json").exists():
        for key, value in json.loads((run / "eval.json").read_text()).items():
            tags[f"eval/{key}"] = [(steps, value)]
    return tags


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("run", type=pathlib.Path, help="a run's folder")
    run = parser.parse_args().run
    board = EventAccumulator(str(run / "tensorboard"), size_guidance={"scalars": 0, "tensors": 0})
    board.Reload()
    found = {tag: [(event.step, event.value) for event in board.Scalars(tag)] for tag in board.Tags()["scalars"]}
    wanted = expected(run)
    if found.keys() != wanted.keys():
        sys.exit(f"tags differ: {sorted(found.keys() ^ wanted.keys())}")
    for tag, values in wanted.items():
        seen = found[tag]
        if tag.startswith("eval/"):
            # A run that was over and gone on with is measured once more.
            seen = seen[-1:]
        same = len(seen) == len(values) and all(
            a == b and math.isclose(x, y, rel_tol=1e-6, abs_tol=1e-30) for (a, x), (b, y) in zip(seen, values)
        )
        if not same:
            sys.exit(f"{tag}: TensorBoard has {seen[:3]} … {len(seen)}, the log {values[:3]} … {len(values)}")
    print(f"{run}: {len(found)} tags, {max(len(values) for values in found.values())} steps, as in metrics.jsonl")


if __name__ == "__main__":
    main()
