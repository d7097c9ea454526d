"""What the comparisons with other programs share: building them, and how many times are told in short."""

import os
import pathlib
import statistics
import subprocess

ROOT = pathlib.Path(__file__).resolve().parents[2]


def build(*ours):
    """Ours, in the release profile, by cargo's arguments."""
    subprocess.run(["cargo", "build", "--release", "--locked", *ours], cwd=ROOT, check=True)


def build_peer(name):
    """Builds the cargo project `name` beside this file, into a folder that is returned."""
    target = ROOT / "target" / "peers" / name
    # The peers choose much of their SIMD when they are compiled; ours chooses when it runs.
    env = {**os.environ, "RUSTFLAGS": "-C target-cpu=native", "CARGO_TARGET_DIR": str(target)}
    subprocess.run(["cargo", "build", "--release", "--locked"], cwd=ROOT / "benches" / "peers" / name, env=env, check=True)
    return target / "release"


def quantiles(values):
    """Median, p20 and p80."""
    if len(values) == 1:
        return (values[0],) * 3
    cuts = statistics.quantiles(values, n=5, method="inclusive")
    return statistics.median(values), cuts[0], cuts[3]
