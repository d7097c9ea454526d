#!/usr/bin/env python3
"""Checks Lenslet on a GPU, then times each kernel beside its reference in PyTorch, sample by sample in turn.

Needs a built `lenslet`, a driver, and a Python with PyTorch; neither cargo nor a network. See benches/README.md.
Without a GPU it runs with --device cpu, or --device emulated --grid tiny, against PyTorch's CPU kernels.
"""

import argparse
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
import torch.nn.functional as F

SAMPLES = 30
WARM_UP = 5
RECIPES = pathlib.Path(__file__).parent.parent / "recipes"


def run(command, log, timeout):
    """Runs a check; returns its exit status and the last line it printed."""
    log.write(f"\n$ {' '.join(command)}\n")
    begin = time.perf_counter()
    try:
        done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, timeout=timeout)
        output, status = done.stdout, done.returncode
    except subprocess.TimeoutExpired as late:
        output, status = (late.stdout or b"").decode(errors="replace") + f"\nstopped after {timeout} s", 124
    log.write(output)
    log.flush()
    lines = [line for line in output.splitlines() if line.strip()]
    seconds = round(time.perf_counter() - begin, 1)
    return {"command": " ".join(command[1:]), "status": status, "seconds": seconds, "says": lines[-1] if lines else ""}


def checks(args, log):
    """Correctness comes before timing: yields what each check found."""
    on = ["--device", args.device]
    test = [args.lenslet, "kernels", "test", *on]
    yield run([*test, "--grid", "full" if args.grid == "full" else "small"], log, 600)
    sanitizer = shutil.which("compute-sanitizer")
    if args.device.startswith("cuda") and sanitizer:
        for tool in ("memcheck", "racecheck"):
            yield run([sanitizer, "--tool", tool, "--error-exitcode", "9", *test], log, 600)
    if args.device != "cpu":
        yield golden(args)
    steps = {"full": 100, "small": 10, "tiny": 2}[args.grid]
    both = [f"phase1.steps={steps}", f"phase2.steps={steps}", "phase1.warmup=1", "phase2.warmup=1", "eval.limit=2"]
    yield from train(args, "demo", both, log)
    if args.grid == "full":
        yield from train(args, "large", [], log)


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
            done = run([*command, "--out", str(out)], log, 600) | {"command": " ".join(command[1:])}
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


class Ours:
    """`lenslet bench --serve`, one case open at a time."""

    def __init__(self, lenslet, device, grid):
        command = [lenslet, "bench", "--serve", "--device", device, "--grid", grid]
        self.process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)

    def ask(self, line):
        self.process.stdin.write(line + "\n")
        self.process.stdin.flush()
        answer = self.process.stdout.readline()
        if not answer:
            raise RuntimeError(f"lenslet bench ended at `{line}`")
        return json.loads(answer)


def random(shape, dtype, device):
    return torch.empty(shape, dtype=torch.float32, device=device).uniform_(-1, 1).to(dtype)


def gemm(case, dtype, device):
    m, n, k = case["shape"]
    a = random((k, m) if case["variant"] == "Tn" else (m, k), dtype, device)
    b = random((n, k) if case["variant"] == "Nt" else (k, n), dtype, device)
    a, b = (a.t() if case["variant"] == "Tn" else a), (b.t() if case["variant"] == "Nt" else b)
    out = torch.empty((m, n), dtype=dtype, device=device)
    return {"cuBLAS" if device.startswith("cuda") else "matmul": lambda: torch.matmul(a, b, out=out)}


def attention(case, dtype, device):
    batch, q_len, k_len, q_heads, kv_heads, width = case["shape"]
    backward = case["kernel"].endswith("backward")
    shapes = [(batch, q_heads, q_len, width)] + 2 * [(batch, kv_heads, k_len, width)]
    q, k, v = (random(shape, dtype, device).requires_grad_(backward) for shape in shapes)
    causal, shared = case["variant"] == "Causal", q_heads != kv_heads
    dout = random(shapes[0], dtype, device)

    def attend():
        return F.scaled_dot_product_attention(q, k, v, is_causal=causal, enable_gqa=shared)

    def with_backend(backend):
        def call():
            with torch.nn.attention.sdpa_kernel(backend):
                if not backward:
                    return attend()
                return torch.autograd.grad(saved, (q, k, v), dout, retain_graph=True)

        with torch.nn.attention.sdpa_kernel(backend):
            saved = attend() if backward else None
        return call

    backend = torch.nn.attention.SDPBackend
    names = {"flash": backend.FLASH_ATTENTION, "cuDNN": backend.CUDNN_ATTENTION, "plain": backend.MATH}
    chosen = names if device.startswith("cuda") else {"torch": list(names.values())}
    found = {}
    for name, which in chosen.items():
        try:
            call = with_backend(which)
            call()
            found[name] = call
        except RuntimeError:
            pass  # This back end does not take this shape or type.
    return found


def compiled(function):
    return torch.compile(function, dynamic=False) if torch.cuda.is_available() else function


def norm(case, dtype, device):
    rows, dim = case["shape"]
    backward, rms = case["kernel"].endswith("backward"), case["kernel"].startswith("rms")
    x, w, b = (random(shape, dtype, device).requires_grad_(backward) for shape in [(rows, dim), (dim,), (dim,)])
    forward = compiled((lambda: F.rms_norm(x, (dim,), w)) if rms else (lambda: F.layer_norm(x, (dim,), w, b)))
    if not backward:
        return {"torch": forward}
    y, dy = forward(), random((rows, dim), dtype, device)
    inputs = (x, w) if rms else (x, w, b)
    return {"torch": lambda: torch.autograd.grad(y, inputs, dy, retain_graph=True)}


def pointwise(case, dtype, device):
    (len,) = case["shape"]
    x, y, out = random((len,), dtype, device), random((len,), dtype, device), torch.empty(len, dtype=dtype, device=device)
    return {
        "torch": {
            "copy": lambda: out.copy_(x),
            "add": lambda: torch.add(x, y, out=out),
            "gelu": lambda: F.gelu(x),
            "silu_mul": compiled(lambda: F.silu(x) * y),
        }[case["kernel"]]
    }


def cross_entropy(case, dtype, device):
    rows, dim, vocab = case["shape"]
    x, w = (random(shape, dtype, device).requires_grad_() for shape in [(rows, dim), (vocab, dim)])
    targets = torch.arange(rows, device=device) * 7919 % vocab
    loss = compiled(lambda: F.cross_entropy((x @ w.t()).float(), targets))
    return {"torch": lambda: torch.autograd.grad(loss(), (x, w))}


def clip(case, dtype, device):
    """The loss as open_clip computes it on one GPU."""
    n, dim = case["shape"]
    backward = case["kernel"].endswith("backward")
    image, text = (random((n, dim), dtype, device).requires_grad_(backward) for _ in range(2))
    targets = torch.arange(n, device=device)

    def loss():
        scores = image @ text.t()
        return (F.cross_entropy(scores, targets) + F.cross_entropy(scores.t(), targets)) / 2

    return {"open_clip's": (lambda: torch.autograd.grad(loss(), (image, text))) if backward else loss}


def adamw(case, dtype, device):
    (len,) = case["shape"]
    weights = random((len,), torch.float32, device).requires_grad_()
    weights.grad = random((len,), torch.float32, device)
    optimizer = torch.optim.AdamW([weights], lr=1e-3, betas=(0.9, 0.98), weight_decay=0.1, fused=True)
    low = torch.empty(len, dtype=torch.bfloat16, device=device) if dtype == torch.bfloat16 else None

    def step():
        optimizer.step()
        if low is not None:
            low.copy_(weights.detach())

    return {"torch, fused": step}


REFERENCES = {
    "gemm": gemm,
    "attention": attention,
    "norm": norm,
    "copy": pointwise,
    "elementwise": pointwise,
    "activation": pointwise,
    "loss": cross_entropy,
    "contrastive": clip,
    "optimizer": adamw,
}


def sampler(call, device, seconds):
    """A function that takes one sample of `call`, as long as ours are."""
    clock = Clock(device)
    for _ in range(WARM_UP):
        call()
    calls = max(1, round(seconds / max(clock.time(call, 3), 1e-9)))
    return lambda: clock.time(call, calls)


def workspace(call, device):
    """Bytes of GPU memory a call takes beside its arguments and its results."""
    if not device.startswith("cuda"):
        return None
    call()
    torch.cuda.synchronize()
    torch.cuda.reset_peak_memory_stats()
    results = call()
    torch.cuda.synchronize()
    taken = torch.cuda.max_memory_allocated() - torch.cuda.memory_allocated()
    del results
    return taken


class Clock:
    def __init__(self, device):
        self.cuda = device.startswith("cuda")

    def time(self, call, calls):
        if self.cuda:
            torch.cuda.synchronize()
        begin = time.perf_counter()
        for _ in range(calls):
            call()
        if self.cuda:
            torch.cuda.synchronize()
        return (time.perf_counter() - begin) / calls


def quantiles(seconds):
    ordered = sorted(seconds)
    at = lambda share: ordered[round((len(ordered) - 1) * share)]
    return {"median": statistics.median(ordered), "p20": at(0.2), "p80": at(0.8), "samples": len(ordered)}


def compare(ours, index, dtype, device):
    """One case beside its references: samples of all taken in turn, then the medians' ratios."""
    case = ours.ask(f"open {index} {dtype}")
    if "is not timed in" in case.get("error", ""):
        return None
    if "error" in case:
        return {"index": index, "dtype": dtype, **case}
    if ours.ask("sample").get("error"):
        return case | {"error": "the first sample failed"}
    torch.backends.cuda.matmul.allow_tf32 = dtype == "tf32"
    torch_dtype = {"bf16": torch.bfloat16, "f16": torch.float16}.get(dtype, torch.float32)
    try:
        references = REFERENCES[case["family"]](case, torch_dtype, device)
        case["reference_workspace_bytes"] = {name: workspace(call, device) for name, call in references.items()}
        samplers = {name: sampler(call, device, 2e-3) for name, call in references.items()}
    except (RuntimeError, torch.OutOfMemoryError) as error:
        samplers, case["reference_error"] = {}, str(error).splitlines()[0]
    taken = {name: [] for name in ["ours", *samplers]}
    for _ in range(SAMPLES):
        taken["ours"].append(ours.ask("sample")["seconds"])
        for name, sample in samplers.items():
            taken[name].append(sample())
    case["timings"] = {name: quantiles(seconds) for name, seconds in taken.items()}
    medians = {name: timing["median"] for name, timing in case["timings"].items()}
    mine = medians.pop("ours")
    case["rate"] = case["work"] / mine
    if medians:
        case["best_reference"] = min(medians, key=medians.get)
        case["speed_against_best"] = min(medians.values()) / mine
    return case


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
    lines = ["| kernel | type | median | rate | best reference | speed against it | workspace |", "|---" * 7 + "|"]
    for case in results:
        if "timings" not in case:
            lines.append(f"| {case.get('name', case.get('index'))} | {case['dtype']} | {case.get('error')} | | | | |")
            continue
        scale, unit = (1e12, "TFLOP/s") if case["unit"] == "flops" else (1e9, "GB/s")
        median = case["timings"]["ours"]["median"]
        ratio = f"{case['speed_against_best']:.2f}×" if "speed_against_best" in case else ""
        best = case.get("best_reference", "")
        theirs = case.get("reference_workspace_bytes", {}).get(best)
        spaces = [f"{bytes / 2**20:.1f} MiB" for bytes in (case["workspace_bytes"], theirs) if bytes is not None]
        lines.append(
            f"| {case['name']} | {case['dtype']} | {median * 1e3:.3f} ms | {case['rate'] / scale:.3g} {unit} "
            f"| {best} | {ratio} | {' against '.join(spaces)} |"
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
        ours = Ours(args.lenslet, args.device, args.grid)
        for index, family in enumerate(ours.ask("list")["families"]):
            if args.only and family != args.only:
                continue
            for dtype in ("bf16", "f16", "tf32", "f32"):
                case = compare(ours, index, dtype, args.device if args.device.startswith("cuda") else "cpu")
                if case is None:
                    continue
                found["results"].append(case)
                save()
                print(table([case]).splitlines()[-1], flush=True)
    return 0 if all(check["status"] == 0 for check in found["checks"]) else 1


if __name__ == "__main__":
    sys.exit(main())
