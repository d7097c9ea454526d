"""What `lenslet bench --reference` times beside its own kernels: PyTorch's, on the same shapes.

One JSON object a line in, one out for each. A case, as bench describes it, makes its references and answers with their names
and the GPU memory each takes beside arguments and results; {"sample": NAME} answers with the seconds a call took.
"""

import json
import sys
import time

import torch
import torch.nn.functional as F

WARM_UP = 5
# As long as bench's own samples: beyond the clock's grain and a launch's cost.
SAMPLE_SECONDS = 2e-3


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
    if not torch.cuda.is_available():
        return function
    # Cases share code and differ in shape: after eight of them dynamo would give up compiling and time eager kernels.
    torch.compiler.reset()
    return torch.compile(function, dynamic=False)


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
    "peak": lambda *_: {},
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


def sampler(call, device):
    """A function that takes one sample of `call`."""
    clock = Clock(device)
    for _ in range(WARM_UP):
        call()
    calls = max(1, round(SAMPLE_SECONDS / max(clock.time(call, 3), 1e-9)))
    return lambda: clock.time(call, calls)


def open_case(case, device):
    """Samplers of a case's references by name, and their workspaces."""
    torch.backends.cuda.matmul.allow_tf32 = case["dtype"] == "tf32"
    dtype = {"bf16": torch.bfloat16, "f16": torch.float16}.get(case["dtype"], torch.float32)
    calls = REFERENCES[case["family"]](case, dtype, device)
    workspaces = {name: workspace(call, device) for name, call in calls.items()}
    return {name: sampler(call, device) for name, call in calls.items()}, workspaces


def main():
    device = sys.argv[1] if len(sys.argv) > 1 else "cpu"
    samplers = {}
    for line in sys.stdin:
        request = json.loads(line)
        try:
            if "sample" in request:
                answer = {"seconds": samplers[request["sample"]]()}
            else:
                samplers = {}
                samplers, workspaces = open_case(request, device)
                answer = {"references": [{"name": name, "workspace_bytes": workspaces[name]} for name in samplers]}
        except (RuntimeError, torch.OutOfMemoryError) as error:
            answer = {"error": str(error).splitlines()[0]}
        print(json.dumps(answer), flush=True)


if __name__ == "__main__":
    main()
