#!/usr/bin/env python3
"""Times training steps of the same vision-language models in turn: ours (`lenslet bench step`), PyTorch's, burn's and candle's.

    python3 benches/peers/step.py --sizes S M --dtypes f32 --threads 2

Needs PyTorch; builds the others. Each of PyTorch's modes lives in a process of its own, eager and compiled; in bf16, weights and
optimiser in bf16 and automatic mixed precision. Round after round each takes a few steps; medians, and the spread as quantiles at
20 and 80 %. Memory is the most that a process ever held.
"""

import argparse
import json
import multiprocessing as mp
import os
import subprocess
import time

from programs import ROOT, build, build_peer, quantiles

PEERS = {
    "burn": ROOT / "target" / "peers" / "burn" / "release" / "burn-peer",
    "candle": ROOT / "target" / "peers" / "candle" / "release" / "step",
}


def held():
    with open("/proc/self/status") as status:
        line = next(line for line in status if line.startswith("VmHWM"))
    return int(line.split()[1]) * 1024


def torch_worker(pipe, size, dtype, threads, mode):
    """Answers a number of steps with their milliseconds, and 0 with the memory."""
    os.environ["OMP_NUM_THREADS"] = str(threads)
    import torch
    from models import SIZES, Vlm

    torch.set_num_threads(threads)
    torch.manual_seed(0)
    shape = SIZES[size]
    model = Vlm(**shape)
    mixed = dtype == "bf16" and mode.endswith("amp")
    if dtype == "bf16" and not mixed:
        model = model.bfloat16()
    kind = torch.bfloat16 if dtype == "bf16" and not mixed else torch.float32
    pixels = (torch.rand(shape["batch"], 3, shape["image"], shape["image"]) * 2 - 1).to(kind)
    ids = torch.randint(0, shape["vocab"], (shape["batch"], shape["text"]))
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-4, betas=(0.9, 0.98), weight_decay=0.05, fused=True)
    run = torch.compile(model) if mode.startswith("compiled") else model

    def step():
        with torch.autocast("cpu", torch.bfloat16, enabled=mixed):
            loss = run(pixels, ids)
        loss.backward()
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        return loss.item()

    for _ in range(3):
        step()
    pipe.send(sum(p.numel() for p in model.parameters()))
    while True:
        count = pipe.recv()
        if count == 0:
            pipe.send(held())
            return
        taken = []
        for _ in range(count):
            begin = time.perf_counter()
            step()
            taken.append(1e3 * (time.perf_counter() - begin))
        pipe.send(taken)


class Torch:
    most = 1000

    def __init__(self, size, dtype, threads, mode):
        self.name = f"PyTorch {mode}"
        self.pipe, other = mp.get_context("spawn").Pipe()
        self.process = mp.get_context("spawn").Process(target=torch_worker, args=(other, size, dtype, threads, mode), daemon=True)
        self.process.start()
        self.parameters = self.pipe.recv()

    def steps(self, count):
        self.pipe.send(count)
        return self.pipe.recv()

    def memory(self):
        self.pipe.send(0)
        peak = self.pipe.recv()
        self.process.join()
        return peak


class Program:
    """One that is started anew for every round, and tells its steps in JSON."""

    def __init__(self, name, command, size, dtype, threads):
        self.name = name
        self.command = [*map(str, command), "--size", size, "--dtype", dtype, "--threads", str(threads)]
        self.peak, self.report = 0, {}
        # A step of the slowest takes minutes: they take one in a round.
        self.most = 1 if self.steps(1)[0] > 5000 else 1000
        self.parameters = self.report["parameters"]

    def steps(self, count):
        done = subprocess.run([*self.command, "--steps", str(count)], capture_output=True, text=True)
        if done.returncode != 0:
            raise RuntimeError(" ".join(done.stderr.split())[:200])
        self.report = json.loads(done.stdout)
        self.peak = max(self.peak, self.report["peak_bytes"])
        return self.report["samples"]

    def memory(self):
        return self.peak


def programs(args, size, dtype, threads):
    """Those that can do it, ours first."""
    ours = Program("Lenslet", [args.lenslet, "bench", "step", "--json"], size, dtype, threads)
    peers = []
    for name in args.peers:
        try:
            peers.append(Program(name, [PEERS[name]], size, dtype, threads))
        except RuntimeError as error:
            print(f"| {size} {dtype}, {threads} | {name} | fails: {error} | | | |", flush=True)
    modes = args.modes or (["eager", "compiled"] if dtype == "f32" else ["eager", "compiled", "eager amp", "compiled amp"])
    return [ours, *(Torch(size, dtype, threads, mode) for mode in modes), *peers]


def compare(args, size, dtype, threads):
    running = programs(args, size, dtype, threads)
    samples = {program.name: [] for program in running}
    for _ in range(args.rounds):
        for program in running:
            samples[program.name] += program.steps(min(args.steps, program.most))
    rows = []
    best = min(quantiles(samples[program.name])[0] for program in running if isinstance(program, Torch))
    for program in running:
        median, p20, p80 = quantiles(samples[program.name])
        row = dict(
            size=size, dtype=dtype, threads=threads, program=program.name, parameters=program.parameters, median_ms=median, p20_ms=p20,
            p80_ms=p80, peak_mib=program.memory() / 2**20, gflops_per_s=running[0].report["flops"] / median / 1e6, ratio=best / median,
        )
        rows.append(row)
        print(
            f"| {size} {dtype}, {threads} | {program.name} | {median:.1f} ({p20:.1f}–{p80:.1f}) | {row['gflops_per_s']:.0f} "
            f"| {row['peak_mib']:.0f} | {row['ratio']:.2f} |",
            flush=True,
        )
    return rows


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--lenslet", default=ROOT / "target" / "release" / "lenslet", help="the binary")
    parser.add_argument("--peers", nargs="*", default=list(PEERS), choices=list(PEERS))
    parser.add_argument("--no-build", action="store_true")
    parser.add_argument("--sizes", nargs="+", default=["S", "M", "L"])
    parser.add_argument("--dtypes", nargs="+", default=["f32", "bf16"])
    parser.add_argument("--threads", nargs="+", type=int, default=[1, 2])
    parser.add_argument("--modes", nargs="*", help="of PyTorch: eager, compiled, 'eager amp', 'compiled amp'")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--steps", type=int, default=5, help="in a round")
    parser.add_argument("--json", help="write the figures there, too")
    args = parser.parse_args()
    if not args.no_build:
        build()
        for peer in args.peers:
            build_peer(peer)
    rows = []
    print("| size and type, threads | program | ms a step (p20–p80) | GFLOP/s | peak MiB | best PyTorch's time over it |\n|---|---|---|---|---|---|")
    for size in args.sizes:
        for dtype in args.dtypes:
            for threads in args.threads:
                rows += compare(args, size, dtype, threads)
                if args.json:
                    with open(args.json, "w") as file:
                        json.dump(rows, file, indent=1)


if __name__ == "__main__":
    main()
