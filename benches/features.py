#!/usr/bin/env python3
"""What keeping a frozen encoder's features saves: one pass over a data set, recomputing and with features kept, in turn.

A ViT-B/16 at 224 pixels, frozen, a new projector in front of a small decoder, LLaVA conversations. Losses of both must be the
same, number by number. Needs a built `lenslet`: python3 benches/features.py
"""

import argparse
import json
import math
import os
import pathlib
import statistics
import subprocess
import sys
import tempfile

RECIPE = """
[run]
name = "features"
[data]
source = "llava"
path = "{data}/flags/caption-llava.jsonl"
images = "{data}/flags/images"
max_tokens = 64
[model.vision]
image_size = 224
patch_size = 16
hidden_size = 768
num_hidden_layers = 12
num_attention_heads = 12
intermediate_size = 3072
[model.adapter]
kind = "mlp"
[phase2]
steps = {steps}
batch_size = {batch}
lr = 1e-3
rules = [{{ match = "vision_model.*", freeze = true }}]
[eval]
samples = 0
attention = 0
limit = 1
"""


def train(args, folder, name, kept):
    """Seconds of each step, and its loss."""
    out = folder / name
    command = [args.lenslet, "train", "--recipe", str(folder / "recipe.toml"), "--out", str(out)]
    settings = [f"phase2.cache_features={str(kept).lower()}", f"run.dtype={args.dtype}"]
    for setting in settings:
        command += ["--set", setting]
    environment = os.environ | {"LENSLET_CACHE": str(folder / "cache")}
    done = subprocess.run(command, env=environment, capture_output=True, text=True)
    if done.returncode != 0:
        sys.exit(done.stderr)
    lines = [json.loads(line) for line in (out / "metrics.jsonl").read_text().splitlines()]
    return [args.batch / line["samples_per_s"] for line in lines], [line["loss"] for line in lines]


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--lenslet", default="target/release/lenslet", help="the binary")
    parser.add_argument("--data", default=os.environ.get("LENSLET_DATA", "../shared/data"), help="holds flags/")
    parser.add_argument("--dtype", default="f32")
    parser.add_argument("--batch", type=int, default=16)
    parser.add_argument("--rounds", type=int, default=3)
    args = parser.parse_args()
    data = pathlib.Path(args.data).resolve()
    records = len((data / "flags/caption-llava.jsonl").read_text().splitlines())
    steps = math.ceil(records / args.batch)
    with tempfile.TemporaryDirectory() as folder:
        folder = pathlib.Path(folder)
        (folder / "recipe.toml").write_text(RECIPE.format(data=data, steps=steps, batch=args.batch))
        train(args, folder, "filling", True)
        seconds, ratios = {False: [], True: []}, []
        for number in range(args.rounds):
            losses = {}
            for kept in (False, True):
                taken, losses[kept] = train(args, folder, f"{number}-{kept}", kept)
                seconds[kept].append(sum(taken))
            ratios.append(seconds[False][-1] / seconds[True][-1])
            if losses[False] != losses[True]:
                sys.exit(f"losses differ: {losses}")
    for kept, name in ((False, "recomputed"), (True, "kept")):
        print(f"{name:<11}{statistics.median(seconds[kept]):8.2f} s a pass of {records} images, {steps} steps")
    print(f"{'ratio':<11}{statistics.median(ratios):8.1f} ({min(ratios):.1f} to {max(ratios):.1f}); all losses the same")


if __name__ == "__main__":
    main()
