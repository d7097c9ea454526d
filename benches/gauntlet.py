#!/usr/bin/env python3
"""Checks Lenslet on a GPU, then times each kernel beside its reference in PyTorch, sample by sample in turn.

Needs a built `lenslet`, a driver, and a Python with PyTorch; neither cargo nor a network. See benches/README.md.
Without a GPU it runs with --device cpu, or --device emulated --grid tiny, against PyTorch's CPU kernels.
"""

import argparse
import concurrent.futures
import datetime
import json
import os
import pathlib
import platform
import shutil
import statistics
import subprocess
import sys
import tempfile
import time

import torch

RECIPES = pathlib.Path(__file__).parent.parent / "recipes"


def run(command, log, timeout):
    """Runs a check; returns its exit status and the last line it printed."""
    begin = time.perf_counter()
    try:
        done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, timeout=timeout)
        output, status = done.stdout, done.returncode
    except subprocess.TimeoutExpired as late:
        output, status = (late.stdout or b"").decode(errors="replace") + f"\nstopped after {timeout} s", 124
    log.write(f"\n$ {' '.join(command)}\n{output}")
    log.flush()
    lines = [line for line in output.splitlines() if line.strip()]
    seconds = round(time.perf_counter() - begin, 1)
    return {"command": " ".join(command[1:]), "status": status, "seconds": seconds, "says": lines[-1] if lines else ""}


def checks(args, log):
    """Correctness comes before timing: yields what each check found."""
    # Most of a check's time is the compiler's and the oracle's, on one core: the table is shared out.
    with concurrent.futures.ThreadPoolExecutor(os.cpu_count()) as pool:
        yield from pool.map(lambda command: run(command, log, args.timeout), kernel_tests(args))
    if args.device != "cpu":
        yield golden(args)
    steps = {"full": 100, "small": 10, "tiny": 2}[args.grid]
    both = [f"phase1.steps={steps}", f"phase2.steps={steps}", "phase1.warmup=1", "phase2.warmup=1", "eval.limit=2"]
    yield from train(args, "demo", both, log)
    if args.grid == "full":
        yield from train(args, "large", [], log)


def kernel_tests(args):
    """The table of ops against plain loops, and its small end again under the sanitizer's tools, where there are any."""
    test = [args.lenslet, "kernels", "test", "--device", args.device]
    parts = [["--part", f"{part}/{os.cpu_count()}"] for part in range(os.cpu_count())]
    for part in parts:
        yield [*test, "--grid", "full" if args.grid == "full" else "small", *part]
    sanitizer = shutil.which("compute-sanitizer")
    if args.device.startswith("cuda") and sanitizer and not args.no_sanitizer:
        for tool in ("memcheck", "racecheck"):
            for part in parts:
                yield [sanitizer, "--tool", tool, "--error-exitcode", "9", *test, *part]


def golden(args):
    """Keeps what each PTX instruction answers here, in the form kernels/tests/golden has it."""
    command = [args.lenslet, "kernels", "golden", "--device", args.device]
    begin = time.perf_counter()
    done = subprocess.run(command, capture_output=True, text=True)
    file = pathlib.Path(args.out) / "golden.txt"
    file.write_text(done.stdout)
    says = f"{len(done.stdout.splitlines())} lines in {file}" if done.returncode == 0 else done.stderr.strip()
    seconds = round(time.perf_counter() - begin, 1)
    return {"command": " ".join(command[1:]), "status": done.returncode, "seconds": seconds, "says": says}


def train(args, recipe, settings, log):
    """Trains as the recipe says, with CUDA graphs and without; the losses must be the same."""
    losses = []
    for graph in ([], ["--no-graph"]) if args.device.startswith("cuda") else ([],):
        with tempfile.TemporaryDirectory() as folder:
            out = pathlib.Path(folder) / recipe
            command = [args.lenslet, "train", "--recipe", os.path.relpath(RECIPES / f"{recipe}.toml")]
            command += ["--device", args.device, *graph, *(word for one in settings for word in ("--set", one))]
            done = run([*command, "--out", str(out)], log, args.timeout) | {"command": " ".join(command[1:])}
            if done["status"] == 0:
                lines = [json.loads(line) for line in (out / "metrics.jsonl").read_text().splitlines()]
                losses.append([line["loss"] for line in lines])
                done["images_per_s"] = {
                    phase: statistics.median(rates[len(rates) // 2 :])
                    for phase in ("phase1", "phase2")
                    if (rates := [line["samples_per_s"] for line in lines if line["phase"] == phase])
                }
                done["says"] = ", ".join(f"{phase} {rate:.1f} images/s" for phase, rate in done["images_per_s"].items())
                if losses[-1] != losses[0]:
                    done["status"], done["says"] = 1, "losses differ from those with graphs"
            yield done


def bench(args, log):
    """Times every kernel beside its references; shows the lines as they come."""
    command = [args.lenslet, "bench", *([args.only] if args.only else []), "--grid", args.grid, "--device", args.device]
    command += ["--reference", sys.executable, "--json", str(pathlib.Path(args.out) / "bench.json")]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    for line in process.stdout:
        log.write(line)
        log.flush()
        print(line, end="", flush=True)
    return process.wait()


def about(device):
    facts = {
        "device": device,
        "date": datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="seconds"),
        "python": platform.python_version(),
        "torch": torch.__version__,
    }
    if device.startswith("cuda"):
        query = ["nvidia-smi", "--query-gpu=name,driver_version,clocks.sm,clocks.mem", "--format=csv,noheader"]
        facts["gpu"] = subprocess.run(query, capture_output=True, text=True).stdout.strip()
        facts["cuda"], facts["cudnn"] = torch.version.cuda, torch.backends.cudnn.version()
    return facts


def table(results):
    lines = ["| kernel | type | median | rate | ceiling | best reference | speed against it | workspace |", "|---" * 8 + "|"]
    for case in results:
        references = {one["name"]: one for one in case["references"]}
        best = references.get(case["best_reference"])
        ratio = f"{case['speed_against_best']:.2f}×" if best else ""
        ceiling = f"{case['percent']:.0f} %" if case["percent"] is not None else ""
        spaces = [case["workspace_bytes"], best and best["workspace_bytes"]]
        spaces = " against ".join(f"{bytes / 2**20:.1f} MiB" for bytes in spaces if bytes is not None)
        lines.append(
            f"| {case['name']} | {case['dtype']} | {case['seconds'][0] * 1e3:.3f} ms | {case['rate']:.3g} {case['unit']} "
            f"| {ceiling} | {case['best_reference'] or ''} | {ratio} | {spaces} |"
        )
    return "\n".join(lines)


def report(found):
    head = "\n".join(f"- {name}: {value}" for name, value in found["about"].items())
    done = "\n".join(
        f"- `{one['command']}`: {'passed' if one['status'] == 0 else 'FAILED'}, {one['seconds']} s, {one['says']}"
        for one in found["checks"]
    )
    return f"# Lenslet on {found['about'].get('gpu', 'a CPU')}\n\n{head}\n\n{done}\n\n{table(found['results'])}\n"


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--lenslet", default="target/release/lenslet", help="the binary")
    parser.add_argument("--device", default="cuda:0")
    parser.add_argument("--grid", default="full", choices=["tiny", "small", "full"])
    parser.add_argument("--commit", default="unknown", help="the commit the binary was built from")
    parser.add_argument("--out", default="gauntlet", help="folder for results.json, results.md, golden.txt and log.txt")
    parser.add_argument("--skip-checks", action="store_true")
    parser.add_argument("--no-sanitizer", action="store_true", help="leave out compute-sanitizer, which takes longest")
    parser.add_argument("--timeout", type=int, default=600, help="of a check, in seconds")
    parser.add_argument("--only", help="time this family alone")
    args = parser.parse_args()
    out = pathlib.Path(args.out)
    out.mkdir(parents=True, exist_ok=True)
    found = {"about": about(args.device) | {"commit": args.commit}, "checks": [], "results": []}

    def save():
        (out / "results.json").write_text(json.dumps(found, indent=1))
        (out / "results.md").write_text(report(found))

    with open(out / "log.txt", "w") as log:
        for check in [] if args.skip_checks else checks(args, log):
            found["checks"].append(check)
            save()
            print(f"{check['command']}: status {check['status']}, {check['says']}", flush=True)
        status = bench(args, log)
        results = out / "bench.json"
        found["results"] = json.loads(results.read_text()) if results.exists() else []
        save()
    return status or (0 if all(check["status"] == 0 for check in found["checks"]) else 1)


if __name__ == "__main__":
    sys.exit(main())
