#!/usr/bin/env python3
"""Plants faults in the CUDA kernels, one at a time, and requires `lenslet kernels test --device emulated:check` with its
default shapes to find each: every barrier, wait, fence and commit removed, and the mistakes of FAULTS.

    python3 tests/planted.py [--lenslet target/release/lenslet] [barriers | faults | FILE.cu[:LINE] …]

Prints a line for each: file:line, found or MISSED, and what was reported. Ends with 1 if any was missed."""

import argparse, os, re, subprocess, sys, tempfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

CUDA = Path(__file__).resolve().parent.parent / "kernels" / "src"
CALL = re.compile(
    r"(?:__syncthreads|__syncwarp|ptx::(?:named_barrier|copy_async_commit|copy_async_wait|bulk_store_commit|bulk_store_wait\w*"
    r"|mbarrier_(?:init|arrive|arrive_expect|wait)|fence_\w+)(?:<[^<>;]*>)?)\([^();]*\);"
)
# Kernel families to test for a file that is none of its own, the quickest first.
FAMILIES = {
    "activation.cuh": ["activation"],
    "attention_backward.cu": ["attention"],
    "attention_tile.cuh": ["attention"],
    "gemm.cu": ["matmul", "linear"],
    "gemm.cuh": ["matmul", "linear"],
    "gemm_partials.cu": ["matmul", "linear"],
    "gemm_simt.cu": ["matmul", "linear"],
    "prelude.cuh": ["l2_normalize", "norm"],
    "random.cuh": ["dropout"],
    "score.cuh": ["loss", "contrastive"],
}
# As file, what a kernel says once, and what the mistake makes of it.
FAULTS = [
    # Sums over a block.
    ("prelude.cuh", "step = WARP / 2; step > 0", "step = WARP / 2; step > 1"),
    ("prelude.cuh", "if (warps == 1) return x;", "return x;"),
    ("prelude.cuh", "lane < warps ? partial[lane]", "lane + 1 < warps ? partial[lane]"),
    ("prelude.cuh", "partial[threadIdx.x / WARP] = x", "partial[threadIdx.x / WARP / 2] = x"),
    ("reduce.cu", "half = team / 2; half > 0", "half = team / 2; half > 1"),
    ("reduce.cu", "sums[j][threadIdx.x + half * outputs]", "sums[j][threadIdx.x + half]"),
    ("reduce.cu", "part * part_rows + member; a < end; a += team", "part * part_rows + member; a < end; a += 2 * team"),
    ("reduce.cu", "min((part + 1) * part_rows, axis)", "(part + 1) * part_rows"),
    ("reduce.cu", "output / vectors % parts", "output / vectors % 1"),
    ("reduce.cu", "out[output] = narrow<U>(total * factor);", "out[output] = narrow<U>(total);"),
    ("reduce.cu", "load<W>(from + i % inner)", "load<W>(from)"),
    ("loss.cu", "row < rows; row += blockDim.x", "row < blockDim.x && row < rows; row += blockDim.x"),
    ("score.cuh", "i < len; i += blockDim.x", "i < blockDim.x && i < len; i += blockDim.x"),
    # Rows longer than a block holds at once, more rows than blocks.
    ("norm.cu", "chunk < (dim); chunk += VALUES", "chunk < 1; chunk += VALUES"),
    ("norm.cu", "if (!loaded || !ONE_CHUNK(dim))", "if (!loaded)"),
    ("norm.cu", "if (!ONE_CHUNK(dim)) x.load_from(row, chunk, dim);\n        FOR_SHARE", "FOR_SHARE"),
    ("norm.cu", "if (!ONE_CHUNK(dim)) sy.load_from(y + first, chunk, dim), sdy.load_from(dy + first, chunk, dim);", ""),
    ("norm.cu", "if (!ONE_CHUNK(dim)) sx.load_from(x + r * dim, chunk, dim), sdy.load_from(dy + r * dim, chunk, dim);", ""),
    ("norm.cu", "if (!ONE_CHUNK(dim)) memory[i + j] = 0;", ""),
    ("norm.cu", "else memory[i + j] += value;", "else memory[i + j] = value;"),
    ("norm.cu", "r < rows; r += gridDim.x", "r < rows; r += 2 * gridDim.x"),
    ("norm.cu", "float centred = x.get(k, j) - mean;", "float centred = x.get(k, j);"),
    ("norm.cu", "(g - average_g - normal * average_gx)", "(g - normal * average_gx)"),
    ("norm.cu", "if (CENTER) db_sums.finish(dim);", ""),
    # Products: splits of k, groups of tiles, batches, tails.
    ("gemm_partials.cu", "split = 1; split < splits", "split = 1; split < splits - 1"),
    ("gemm_partials.cu", "int(place % n)", "int(place % n / W * W % 4)"),
    ("gemm.cuh", "k - k_begin < k_per_split ? k : k_begin + k_per_split", "k"),
    ("gemm.cuh", "int(matrix / batch) * k_per_split", "int(matrix % batch) * k_per_split"),
    ("gemm.cuh", "work.product = matrix % batch", "work.product = 0"),
    ("gemm.cuh", "min(GROUP, tiles_m - first_row)", "min(GROUP, tiles_m)"),
    ("gemm.cuh", "tile / (GROUP * tiles_n) * GROUP", "0"),
    ("gemm.cuh", "if (row >= m || col >= n) return;", "if (row > m || col >= n) return;"),
    ("gemm.cuh", "if (row >= m || col >= n) return;", "if (row >= m || col > n) return;"),
    ("gemm.cuh", "if (partials) store", "if (partials && work.k_begin == 0) store"),
    ("gemm.cuh", "load<N>(to.bias + col)", "load<N>(to.bias)"),
    ("gemm.cuh", "load<N>(to.residual + place)", "load<N>(to.residual + col)"),
    ("gemm.cuh", "pre.at[i] = narrow<T>(y[i])", "pre.at[i] = narrow<T>(activate<ACTIVATION>(y[i]))"),
    ("gemm.cuh", "y[i] += widen(old.at[i])", "y[i] = widen(old.at[i])"),
    ("gemm.cu", "int steps = (work.k_end - work.k_begin + TILE_K - 1) / TILE_K;", "int steps = (work.k_end - work.k_begin) / TILE_K;"),
    ("gemm.cu", "ptx::copy_async_16(chunk(row, place % CHUNKS), inside ? from : matrix, inside);",
     "ptx::copy_async_16(chunk(row, place % CHUNKS), first_row + row < rows ? from : matrix, first_row + row < rows);"),
    ("gemm.cu", "ptx::copy_async_wait<STAGES - 2>();", "ptx::copy_async_wait<STAGES - 1>();"),
    ("gemm.cu", "copy(step + STAGES - 1);", "copy(step + STAGES);"),
    ("gemm.cu", "int lane = threadIdx.x % WARP, row = lane % 8, side_half = lane / 8 % 2, k_half = lane / 16;",
     "int lane = threadIdx.x % WARP, row = lane % 8, side_half = lane / 16, k_half = lane / 8 % 2;"),
    ("gemm.cu", "place < ROWS * COLS; place += THREADS", "place < ROWS * COLS - THREADS; place += THREADS"),
    ("gemm.cu", "store(&rows[lane / 4 + 8][8 * j", "store(&rows[lane / 4 + 7][8 * j"),
    ("gemm_simt.cu", "first_k += TILE_K, now ^= 1", "first_k += TILE_K"),
    ("gemm_simt.cu", "if (k < k_end && side < sides)", "if (side < sides)"),
    ("gemm_simt.cu", "if (k < k_end && side < sides)", "if (k + TILE_K <= k_end && side < sides)"),
    ("gemm_simt.cu", "load<4>(&a[k][row + 64 * i])", "load<4>(&a[k][row])"),
    ("gemm_simt.cu", "col + j / 4 * 64 + j % 4", "col + j"),
    # Attention: the second tile of keys and queries, large scores, rows that see nothing, tails.
    ("attention.cu", "l[half] *= correction;", ""),
    ("attention.cu", "out[n][2 * half + 1] *= correction;", ""),
    ("attention.cu", "m[half] = largest;", "m[half] = fmaxf(m[half], s[0][2 * half]);"),
    ("attention.cu", "float base = largest == -infinity() ? 0.0f : largest;", "float base = 0.0f;"),
    ("attention.cu", "float base = largest == -infinity() ? 0.0f : largest;", "float base = largest;"),
    ("attention.cu", "bool blind = l[half] == 0.0f;", "bool blind = false;"),
    ("attention.cu", "if (next < seen) load_rows", "if (next + STREAMED < seen) load_rows"),
    ("attention.cu", "drop<N>(s, rows, drops, key);", "drop<N>(s, rows, drops, 0);"),
    ("attention.cu", "(m[half] + log2f(l[half])) * LN_2", "m[half] + log2f(l[half])"),
    ("attention_tile.cuh", "bool valid = row < count && column < DIM;", "bool valid = column < DIM;"),
    ("attention_tile.cuh", "bool valid = row < count && column < DIM;", "bool valid = row < count;"),
    ("attention_tile.cuh", "if (lane.row(half) >= count) continue;", "if (lane.row(half) > count) continue;"),
    ("attention_tile.cuh", "if (!ALIGNED && column + 1 < DIM)", "if (!ALIGNED && column + 2 < DIM)"),
    ("attention_tile.cuh", "first_key + 8 * N <= rows.least", "first_key < rows.least"),
    ("attention_tile.cuh", "min(mask.visible(first), mask.visible(first + OWNED - 1))", "mask.visible(first + OWNED - 1)"),
    ("attention_tile.cuh", "visible(min(first + OWNED, queries) - 1)", "visible(first)"),
    ("attention_tile.cuh", "key < prefix ? 0 : max(0, key - offset)", "max(0, key - offset)"),
    ("attention_tile.cuh", "min(queries, end - 1 - offset + window)", "min(queries, end - 1 - offset)"),
    ("attention_tile.cuh", "if (key >= visible || (WINDOW && key < start)) return false;", "if (key >= visible) return false;"),
    ("attention_tile.cuh", "return segment == 0 || (segment == own && segment > 0);", "return segment == 0 || segment == own;"),
    ("attention_tile.cuh", "counter[half] = u64(head * q_len + query) * u64(k_len);", "counter[half] = u64(query) * u64(k_len);"),
    ("attention_tile.cuh", "max(0, min(k_lens[batch], k_len))", "k_len"),
    ("attention_tile.cuh", "lse == -infinity() ? infinity() : lse * LOG2_E", "lse * LOG2_E"),
    ("attention_backward.cu", "head < (kv_head + 1) * group", "head < kv_head * group + 1"),
    ("attention_backward.cu", "counter + u64(column) * u64(k_len) + u64(row)", "counter + u64(column) + u64(row)"),
    ("attention_backward.cu", "ds[n][i] * factor - columns.delta[column]", "ds[n][i] - columns.delta[column]"),
    ("attention_backward.cu", "float one[2] = {1.0f, 1.0f}, scales[2]", "float one[2] = {scale, scale}, scales[2]"),
    ("attention_backward.cu", "mask.first_query(key) / STREAMED * STREAMED", "mask.first_query(key + OWNED - 1)"),
    ("attention_backward.cu", "i < DIM; i += WARP", "i < DIM && i < WARP; i += WARP"),
    ("attention_backward.cu", "columns[0].load(mask, first, row, q_len, lse, delta);", "if (first == start) columns[0].load(mask, first, row, q_len, lse, delta);"),
    # Losses: large logits, second passes over a row, tails.
    ("score.cuh", "sum *= exp_fast(max - larger);", ""),
    ("score.cuh", "sum = sum * exp_fast(max - larger) + other.sum * exp_fast(other.max - larger);", "sum = sum + other.sum * exp_fast(other.max - larger);"),
    ("score.cuh", "float larger = max;", "float larger = 0.0f;"),
    ("score.cuh", "return logf(sum) + (max - score);", "return logf(sum * exp_fast(max)) - score;"),
    ("score.cuh", "float value() const { return max + logf(sum); }", "float value() const { return logf(sum * exp_fast(max)); }"),
    ("loss.cu", "float p = factor * exp_fast(v.at[k] - max);", "float p = factor * exp_fast(v.at[k]) / exp_fast(max);"),
    ("loss.cu", "float p = factor * exp_fast(v.at[k] - max);\n", "float p = j < blockDim.x * W ? factor * exp_fast(v.at[k] - max) : 0.0f;\n"),
    ("loss.cu", "target / W % blockDim.x", "target / W"),
    ("loss.cu", "if (dlogits) fill_zeros(dlogits + row * vocab, vocab);", ""),
    ("loss.cu", "if (targets[i / dim] == ignore) {", "if (false) {"),
    ("contrastive.cu", "int image = first + blockIdx.x;\n    const float* row = dots + i64(blockIdx.x) * groups * n;\n    float scale = expf(*log_scale);",
     "int image = blockIdx.x;\n    const float* row = dots + i64(blockIdx.x) * groups * n;\n    float scale = expf(*log_scale);"),
    ("contrastive.cu", "i = warp; i < images; i += COLUMN_WARPS", "i = warp; i < images && i < COLUMN_WARPS; i += COLUMN_WARPS"),
    ("contrastive.cu", "w = 1; w < COLUMN_WARPS", "w = 2; w < COLUMN_WARPS"),
    ("contrastive.cu", "if (first > 0) lse.merge({col_max[text], col_sum[text]});", ""),
    ("contrastive.cu", "if (j == image) ds -= 2.0f * weight;", "if (j == image) ds -= weight;"),
    ("contrastive.cu", "dot > best.s || dot != dot", "dot > dots[j] || dot != dot"),
    ("contrastive.cu", "return fmaxf(x, 0.0f) + log1pf(exp_fast(-fabsf(x)));", "return logf(1.0f + exp_fast(x));"),
    # Rows of a table: several ranges, tiles of numbers and of columns.
    ("embedding.cu", "range < blockIdx.x; range += THREADS", "range < 0; range += THREADS"),
    ("embedding.cu", "if (w < warp) before += found[w];", ""),
    ("embedding.cu", "places + starts[row / RANGE]", "places"),
    ("embedding.cu", "columns < dim; columns += WARP * W", "columns < 1; columns += WARP * W"),
    ("embedding.cu", "i64 from = __shfl_sync(FULL_WARP, place, __ffs(lanes) - 1);", "i64 from = __shfl_sync(FULL_WARP, place, 31 - __clz(lanes));"),
    ("embedding.cu", "first < count; first += WARP", "first < 1; first += WARP"),
    ("embedding.cu", "first + lane < count ? list[first + lane] : -1", "list[min(first + lane, count - 1)]"),
    # Elements in vectors and by themselves.
    ("copy.cu", "i / block * stride + i % block + offset", "i / block * stride + i % block"),
    ("copy.cu", "store(dst + to.place(i), load<W>(src + from.place(i)));", "dst[to.place(i)] = src[from.place(i)];"),
    ("dropout.cu", "uniform(key, i + j)", "uniform(key, i)"),
    ("random.cuh", "finalise(u32(index) ^ u32(key))", "finalise(u32(index))"),
    ("elementwise.cu", "load<W>(b + i % inner)", "load<W>(b + i / inner)"),
    ("activation.cuh", "(1.0f + 3.0f * GELU_TANH_CUBIC * x * x)", "(1.0f + GELU_TANH_CUBIC * x * x)"),
    ("activation.cuh", "return gate + x * slope * gate * (1.0f - gate);", "return gate + x * gate * (1.0f - gate);"),
    ("patch.cu", "x >= 0 && x < width && y >= 0 && y < height", "x < width && y < height"),
    ("patch.cu", "y += int(rest % rows) * patch - margin;", "y += int(rest % rows) * patch;"),
    ("patch.cu", "min(columns - 1, (x + margin) / patch)", "min(columns - 1, x / patch)"),
    ("rotary.cu", "if (quarter == 1 || quarter == 2) cosine = -cosine;", ""),
    ("rotary.cu", "sine[j] *= direction;", ""),
]
# These define the instructions; what calls them is tested.
WRAPPERS = {"ptx.cuh", "ptx_sm90.cuh"}


def helpers(texts):
    """Functions without arguments that are nothing but barriers: a call is a barrier, too."""
    bodies = re.findall(r"__device__ inline void (\w+)\(\) \{(.*?)\n\}", "\n".join(texts.values()), re.S)
    return [name for name, body in bodies if CALL.search(body) and not CALL.sub("", body).strip()]


def without_barriers(texts):
    """(file, line number, the call, the file's text without it)"""
    call = re.compile("|".join([CALL.pattern, *(rf"\b{name}\(\);" for name in helpers(texts))]))
    for name, text in texts.items():
        if name in WRAPPERS:
            continue
        code = re.sub(r"//[^\n]*", lambda comment: " " * len(comment.group()), text)
        for found in call.finditer(code):
            line = text.count("\n", 0, found.start()) + 1
            yield name, line, found.group(), text[: found.start()] + ";" + text[found.end() :]


def with_faults(texts):
    """(file, line number, the mistake, the file's text with it)"""
    for name, right, wrong in FAULTS:
        text = texts[name]
        if text.count(right) != 1:
            sys.exit(f"{name}: `{right}` is there {text.count(right)} times, expected once: bring FAULTS up to date")
        line = text.count("\n", 0, text.index(right)) + 1
        yield name, line, f"`{right}` → `{wrong}`".replace("\n", " "), text.replace(right, wrong)


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
    arguments.add_argument("only", nargs="*", metavar="FILE[:LINE]", help="barriers, faults, those of a file, or one; all where left out")
    chosen = arguments.parse_args()
    lenslet = str(Path(chosen.lenslet).resolve())
    only = set(chosen.only)
    texts = {path.name: path.read_text() for path in sorted(CUDA.glob("**/*.cu*"))}
    planted = [("barriers", *place) for place in without_barriers(texts)] + [("faults", *place) for place in with_faults(texts)]
    planted = [place for kind, *place in planted if not only or only & {kind, place[0], f"{place[0]}:{place[1]}"}]
    if not planted:
        sys.exit(f"{' '.join(chosen.only)}: nothing to plant there")
    with tempfile.TemporaryDirectory() as folder, ThreadPoolExecutor(os.cpu_count()) as pool:
        cache = str(Path(folder, "cache"))

        def test(sources, families):
            return first_fault(lenslet, families, dict(os.environ, LENSLET_CUDA_SOURCES=str(sources), LENSLET_CACHE=cache))

        def found(place):
            """What is found in the kernels with the changed text of a file."""
            name, _, _, text = place
            sources = tempfile.mkdtemp(dir=folder)
            for file, whole in (texts | {name: text}).items():
                Path(sources, file).write_text(whole)
            # Families that do not find it may leave that to others.
            return test(sources, families_of(name)) or test(sources, [])

        # Where kernels fail as they are, nothing could be said of a change.
        whole = test(CUDA, sorted({family for name, *_ in planted for family in families_of(name)}))
        if whole:
            sys.exit(f"as they are: {whole}")
        missed = 0
        for (name, line, change, _), fault in zip(planted, pool.map(found, planted)):
            missed += fault is None
            print(f"{name}:{line} {change} {'MISSED' if fault is None else 'found: ' + fault}", flush=True)
    print(f"{len(planted)} planted, {missed} missed")
    sys.exit(missed > 0)


if __name__ == "__main__":
    main()
