#!/usr/bin/env python3
"""Removes every barrier, wait, fence and commit of the CUDA kernels, one at a time, and requires `lenslet kernels test
--device emulated:check` with its default shapes to find each.

    python3 tests/barriers.py [--lenslet target/release/lenslet] [FILE.cu[:LINE] …]

Prints a line for each: file:line, found or MISSED, and what was reported. Ends with 1 if any was missed."""

import argparse, os, re, shutil, subprocess, sys, tempfile
from concurrent.futures import ThreadPoolExecutor
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


def families_of(name):
    return FAMILIES.get(name, [Path(name).stem])


def main():
    arguments = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    arguments.add_argument("--lenslet", default=CUDA.parent.parent / "target" / "release" / "lenslet")
    arguments.add_argument("only", nargs="*", metavar="FILE[:LINE]", help="those of a file, or one; all where left out")
    chosen = arguments.parse_args()
    lenslet = str(Path(chosen.lenslet).resolve())
    only = set(chosen.only)
    removed = [place for place in places() if not only or only & {place[0], f"{place[0]}:{place[1]}"}]
    if not removed:
        sys.exit(f"{' '.join(chosen.only)}: there is no barrier")
    with tempfile.TemporaryDirectory() as folder, ThreadPoolExecutor(os.cpu_count()) as pool:
        cache = str(Path(folder, "cache"))

        def test(sources, families):
            return first_fault(lenslet, families, dict(os.environ, LENSLET_CUDA_SOURCES=str(sources), LENSLET_CACHE=cache))

        def without(place):
            """What is found where the call at `place` is left out."""
            name, line, _, text = place
            sources = Path(folder, f"{name}-{line}")
            shutil.copytree(CUDA, sources)
            Path(sources, name).write_text(text)
            # Families that do not find it may leave that to others.
            return test(sources, families_of(name)) or test(sources, [])

        # Where kernels fail as they are, nothing could be said of a barrier.
        whole = test(CUDA, sorted({family for name, *_ in removed for family in families_of(name)}))
        if whole:
            sys.exit(f"with every barrier: {whole}")
        missed = 0
        for (name, line, call, _), fault in zip(removed, pool.map(without, removed)):
            missed += fault is None
            print(f"{name}:{line} {call} {'MISSED' if fault is None else 'found: ' + fault}", flush=True)
    print(f"{len(removed)} removed, {missed} missed")
    sys.exit(missed > 0)


if __name__ == "__main__":
    main()
