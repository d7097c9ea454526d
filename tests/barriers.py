#!/usr/bin/env python3
"""Removes every barrier, wait, fence and commit of the CUDA kernels, one at a time, and requires `lenslet kernels test
--device emulated:check` with its default shapes to find each.

    python3 tests/barriers.py [--lenslet target/release/lenslet] [FILE.cu[:LINE] …]

Prints a line for each: file:line, found or MISSED, and what was reported. Ends with 1 if any was missed."""

import argparse, os, re, shutil, subprocess, sys, tempfile
from pathlib import Path

CUDA = Path(__file__).resolve().parent.parent / "kernels" / "cuda"
CALL = re.compile(
    r"(?:__syncthreads|__syncwarp|ptx::(?:named_barrier|copy_async_commit|copy_async_wait|bulk_store_commit|bulk_store_wait\w*"
    r"|mbarrier_(?:init|arrive|arrive_expect|wait)|fence_\w+)(?:<[^<>;]*>)?)\([^();]*\);"
)
# Kernel families to test for a file that is none of its own, the quickest first.
FAMILIES = {
    "attention_tile.cuh": ["attention"],
    "gemm.cu": ["matmul", "linear"],
    "gemm_simt.cu": ["matmul"],
    "prelude.cuh": ["l2_normalize", "norm"],
}
# These define the instructions; what calls them is tested.
WRAPPERS = {"ptx.cuh", "ptx_sm90.cuh"}


def helpers(texts):
    """Functions without arguments that are nothing but barriers: a call is a barrier, too."""
    bodies = re.findall(r"__device__ inline void (\w+)\(\) \{(.*?)\n\}", "\n".join(texts.values()), re.S)
    return [name for name, body in bodies if CALL.search(body) and not CALL.sub("", body).strip()]


def places():
    """(file, line number, the call, the file's text without it)"""
    texts = {path.name: path.read_text() for path in sorted(CUDA.glob("*.cu*")) if path.name not in WRAPPERS}
    call = re.compile("|".join([CALL.pattern, *(rf"\b{name}\(\);" for name in helpers(texts))]))
    for name, text in texts.items():
        code = re.sub(r"//[^\n]*", lambda comment: " " * len(comment.group()), text)
        for found in call.finditer(code):
            line = text.count("\n", 0, found.start()) + 1
            yield name, line, found.group(), text[: found.start()] + ";" + text[found.end() :]


def first_fault(lenslet, families, environment):
    """The first line that a test printed of a difference or fault; None if all passed."""
    command = [lenslet, "kernels", "test", "--device", "emulated:check", *families]
    with subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True) as run:
        for line in run.stdout:
            if re.match(r"\d+ passed, 0 failed", line):
                continue
            run.kill()
            if "does not compile" in line or line.startswith("error"):
                sys.exit(f"{' '.join(command)}: {line}{run.stdout.read()}")
            return line.strip()
    if run.returncode:
        sys.exit(f"{' '.join(command)}: ended with {run.returncode}")
    return None


def main():
    arguments = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    arguments.add_argument("--lenslet", default=CUDA.parent.parent / "target" / "release" / "lenslet")
    arguments.add_argument("only", nargs="*", metavar="FILE[:LINE]", help="those of a file, or one; all where left out")
    chosen = arguments.parse_args()
    lenslet = str(Path(chosen.lenslet).resolve())
    missed = tested = 0
    with tempfile.TemporaryDirectory() as folder:
        sources = Path(folder, "cuda")
        environment = dict(os.environ, LENSLET_CUDA_SOURCES=str(sources), LENSLET_CACHE=str(Path(folder, "cache")))
        for name, line, call, without in places():
            if chosen.only and not {name, f"{name}:{line}"} & set(chosen.only):
                continue
            shutil.copytree(CUDA, sources)
            Path(sources, name).write_text(without)
            families = FAMILIES.get(name, [Path(name).stem])
            # Families that do not find it may leave that to others.
            fault = first_fault(lenslet, families, environment) or first_fault(lenslet, [], environment)
            shutil.rmtree(sources)
            tested += 1
            missed += fault is None
            print(f"{name}:{line} {call} {'MISSED' if fault is None else 'found: ' + fault}", flush=True)
    if not tested:
        sys.exit(f"{' '.join(chosen.only)}: there is no barrier")
    print(f"{tested} removed, {missed} missed")
    sys.exit(missed > 0)


if __name__ == "__main__":
    main()
