"""The Triton kernels of `gpu.py`: a file of its own because importing Triton takes long, and few have a GPU.

Equations and symbols are those of `lstm.py` and `rnn.py`. In the first four kernels a program takes BLOCK_B sequences
through all steps. It computes BLOCK_N hidden units at a time, the products in blocks of BLOCK_K; what one step needs of
the step before, it reads back from global memory. Three things hold on a GPU that Triton's interpreter does not show:

* What one thread of a program has stored, another may load only after a barrier: `tl.debug_barrier()`, which is
  `__syncthreads()`. One stands at the end of each step. No other program reads these rows.
* Where a tensor has fewer elements than the program has threads, several threads load the same element. Before a
  kernel stores to memory that it has loaded from, a barrier waits until all have.
* `gpu.py` launches with num_stages=1. Triton's software pipelining issues loads early, and it knows nothing of
  dependencies through global memory.

Offsets within one step are 32-bit, those between steps 64-bit. T and B do not make Triton compile again; n does.
"""
# mypy: allow-untyped-defs

import triton
import triton.language as tl


@triton.jit
def _sigmoid(x):
    return 1 / (1 + tl.exp(-x))


@triton.jit
def _tanh(x):
    return 2 * _sigmoid(2 * x) - 1


@triton.jit(do_not_specialize=["T", "B"])
def lstm_forward(
    gates,  # (T, B, 4n): z, and on return g, i, f, o
    h_0,  # (B, n), not read unless has_h_0
    c_0,  # (B, n) float32
    W_h,  # (4n, n)
    h,  # (T, B, n), written
    c,  # (T, B, n) float32, written
    T,
    B,
    n: tl.constexpr,
    has_h_0: tl.constexpr,
    PRECISION: tl.constexpr,
    BLOCK_B: tl.constexpr,
    BLOCK_N: tl.constexpr,
    BLOCK_K: tl.constexpr,
):
    rows = tl.program_id(0) * BLOCK_B + tl.arange(0, BLOCK_B)[:, None]
    step = B.to(tl.int64) * n
    h_before = h_0
    c_before = c_0
    for t in range(T):  # the pointers move from step to step
        k_end = n if has_h_0 else tl.minimum(t, 1) * n  # no product with states that are zero
        for j in range(0, n, BLOCK_N):
            units = j + tl.arange(0, BLOCK_N)[None, :]
            inside = (rows < B) & (units < n)
            at = rows * n + units
            gates_at = gates + rows * (4 * n) + units
            c_t = tl.load(c_before + at, inside, 0.0)
            a_g = tl.load(gates_at, inside, 0.0).to(tl.float32)
            a_i = tl.load(gates_at + n, inside, 0.0).to(tl.float32)
            a_f = tl.load(gates_at + 2 * n, inside, 0.0).to(tl.float32)
            a_o = tl.load(gates_at + 3 * n, inside, 0.0).to(tl.float32)
            for k in range(0, k_end, BLOCK_K):  # from z to a; all loads before the first product wait together
                ks = k + tl.arange(0, BLOCK_K)
                h_k = tl.load(h_before + rows * n + ks[None, :], (rows < B) & (ks[None, :] < n), 0.0)
                W_at = W_h + units * n + ks[:, None]  # (BLOCK_K, BLOCK_N) of W_h^T
                in_W = (units < n) & (ks[:, None] < n)
                W_g = tl.load(W_at, in_W, 0.0)
                W_i = tl.load(W_at + n * n, in_W, 0.0)
                W_f = tl.load(W_at + 2 * n * n, in_W, 0.0)
                W_o = tl.load(W_at + 3 * n * n, in_W, 0.0)
                a_g = tl.dot(h_k, W_g, a_g, input_precision=PRECISION)
                a_i = tl.dot(h_k, W_i, a_i, input_precision=PRECISION)
                a_f = tl.dot(h_k, W_f, a_f, input_precision=PRECISION)
                a_o = tl.dot(h_k, W_o, a_o, input_precision=PRECISION)
            g = _tanh(a_g)  # (4)
            i = _sigmoid(a_i)  # (5)
            f = _sigmoid(a_f)  # (6)
            o = _sigmoid(a_o)  # (7)
            c_t = g * i + c_t * f  # (8)
            tl.debug_barrier()  # all threads have loaded z
            tl.store(gates_at, g, inside)
            tl.store(gates_at + n, i, inside)
            tl.store(gates_at + 2 * n, f, inside)
            tl.store(gates_at + 3 * n, o, inside)
            tl.store(c + at, c_t, inside)
            tl.store(h + at, _tanh(c_t) * o, inside)  # (9)
        tl.debug_barrier()  # h(t) and c(t) are there for all threads
        h_before = h
        c_before = c
        gates += 4 * step
        h += step
        c += step


@triton.jit(do_not_specialize=["T", "B"])
def lstm_backward(
    grad_h,  # (T, B, n)
    d_c,  # (B, n) float32: grad_c_T, and on return d_c[1] * f(1), the gradient of c_0
    gates,  # (T, B, 4n)
    c,  # (T, B, n) float32
    c_0,  # (B, n) float32
    W_h,  # (4n, n)
    d_a,  # (T, B, 4n), written
    T,
    B,
    n: tl.constexpr,
    PRECISION: tl.constexpr,
    BLOCK_B: tl.constexpr,
    BLOCK_N: tl.constexpr,
    BLOCK_K: tl.constexpr,
):
    rows = tl.program_id(0) * BLOCK_B + tl.arange(0, BLOCK_B)[:, None]
    step = B.to(tl.int64) * n
    grad_h += (T - 1) * step
    gates += (T - 1) * (4 * step)
    c += (T - 1) * step
    d_a += (T - 1) * (4 * step)
    for s in range(T):  # from step T down to 1
        c_before = c - step
        if s == T - 1:
            c_before = c_0
        for j in range(0, n, BLOCK_N):
            units = j + tl.arange(0, BLOCK_N)[None, :]
            inside = (rows < B) & (units < n)
            at = rows * n + units
            gate_at = rows * (4 * n) + units
            g = tl.load(gates + gate_at, inside, 0.0).to(tl.float32)
            i = tl.load(gates + gate_at + n, inside, 0.0).to(tl.float32)
            f = tl.load(gates + gate_at + 2 * n, inside, 0.0).to(tl.float32)
            o = tl.load(gates + gate_at + 3 * n, inside, 0.0).to(tl.float32)
            tanh_c = _tanh(tl.load(c + at, inside, 0.0))
            c_t_before = tl.load(c_before + at, inside, 0.0)
            d_c_t = tl.load(d_c + at, inside, 0.0)
            d_h = tl.load(grad_h + at, inside, 0.0).to(tl.float32)
            for k in range(0, tl.minimum(s, 1) * n, BLOCK_K):  # + d_a[t+1] W_h
                ks = k + tl.arange(0, BLOCK_K)
                after_at = d_a + 4 * step + rows * (4 * n) + ks[None, :]
                in_after = (rows < B) & (ks[None, :] < n)
                d_a_g = tl.load(after_at, in_after, 0.0)
                d_a_i = tl.load(after_at + n, in_after, 0.0)
                d_a_f = tl.load(after_at + 2 * n, in_after, 0.0)
                d_a_o = tl.load(after_at + 3 * n, in_after, 0.0)
                W_at = W_h + ks[:, None] * n + units  # (BLOCK_K, BLOCK_N)
                in_W = (ks[:, None] < n) & (units < n)
                W_g = tl.load(W_at, in_W, 0.0)
                W_i = tl.load(W_at + n * n, in_W, 0.0)
                W_f = tl.load(W_at + 2 * n * n, in_W, 0.0)
                W_o = tl.load(W_at + 3 * n * n, in_W, 0.0)
                d_h = tl.dot(d_a_g, W_g, d_h, input_precision=PRECISION)
                d_h = tl.dot(d_a_i, W_i, d_h, input_precision=PRECISION)
                d_h = tl.dot(d_a_f, W_f, d_h, input_precision=PRECISION)
                d_h = tl.dot(d_a_o, W_o, d_h, input_precision=PRECISION)
            d_c_t += d_h * o * (1 - tanh_c * tanh_c)
            tl.debug_barrier()  # all threads have loaded d_c
            tl.store(d_a + gate_at, d_c_t * i * (1 - g * g), inside)
            tl.store(d_a + gate_at + n, d_c_t * g * i * (1 - i), inside)
            tl.store(d_a + gate_at + 2 * n, d_c_t * c_t_before * f * (1 - f), inside)
            tl.store(d_a + gate_at + 3 * n, d_h * tanh_c * o * (1 - o), inside)
            tl.store(d_c + at, d_c_t * f, inside)
        tl.debug_barrier()  # d_a[t] and d_c are there for all threads
        grad_h -= step
        gates -= 4 * step
        c -= step
        d_a -= 4 * step


@triton.jit(do_not_specialize=["T", "B"])
def rnn_forward(
    z,  # (T, B, n)
    h_0,  # (B, n), not read unless has_h_0
    W_hh,  # (n, n)
    h,  # (T, B, n), written
    T,
    B,
    n: tl.constexpr,
    has_h_0: tl.constexpr,
    PRECISION: tl.constexpr,
    BLOCK_B: tl.constexpr,
    BLOCK_N: tl.constexpr,
    BLOCK_K: tl.constexpr,
):
    rows = tl.program_id(0) * BLOCK_B + tl.arange(0, BLOCK_B)[:, None]
    step = B.to(tl.int64) * n
    h_before = h_0
    for t in range(T):
        k_end = n if has_h_0 else tl.minimum(t, 1) * n
        for j in range(0, n, BLOCK_N):
            units = j + tl.arange(0, BLOCK_N)[None, :]
            inside = (rows < B) & (units < n)
            at = rows * n + units
            a = tl.load(z + at, inside, 0.0).to(tl.float32)
            for k in range(0, k_end, BLOCK_K):
                ks = k + tl.arange(0, BLOCK_K)
                h_k = tl.load(h_before + rows * n + ks[None, :], (rows < B) & (ks[None, :] < n), 0.0)
                W_k = tl.load(W_hh + units * n + ks[:, None], (units < n) & (ks[:, None] < n), 0.0)
                a = tl.dot(h_k, W_k, a, input_precision=PRECISION)
            tl.store(h + at, _tanh(a), inside)  # (1)
        tl.debug_barrier()  # h(t) is there for all threads
        h_before = h
        z += step
        h += step


@triton.jit(do_not_specialize=["T", "B"])
def rnn_backward(
    grad_h,  # (T, B, n)
    h,  # (T, B, n)
    W_hh,  # (n, n)
    d_a,  # (T, B, n), written
    T,
    B,
    n: tl.constexpr,
    PRECISION: tl.constexpr,
    BLOCK_B: tl.constexpr,
    BLOCK_N: tl.constexpr,
    BLOCK_K: tl.constexpr,
):
    rows = tl.program_id(0) * BLOCK_B + tl.arange(0, BLOCK_B)[:, None]
    step = B.to(tl.int64) * n
    grad_h += (T - 1) * step
    h += (T - 1) * step
    d_a += (T - 1) * step
    for s in range(T):  # from step T down to 1
        for j in range(0, n, BLOCK_N):
            units = j + tl.arange(0, BLOCK_N)[None, :]
            inside = (rows < B) & (units < n)
            at = rows * n + units
            h_t = tl.load(h + at, inside, 0.0).to(tl.float32)
            d_h = tl.load(grad_h + at, inside, 0.0).to(tl.float32)
            for k in range(0, tl.minimum(s, 1) * n, BLOCK_K):  # + d_a[t+1] W_hh
                ks = k + tl.arange(0, BLOCK_K)
                d_a_k = tl.load(d_a + step + rows * n + ks[None, :], (rows < B) & (ks[None, :] < n), 0.0)
                W_k = tl.load(W_hh + ks[:, None] * n + units, (ks[:, None] < n) & (units < n), 0.0)
                d_h = tl.dot(d_a_k, W_k, d_h, input_precision=PRECISION)
            tl.store(d_a + at, d_h * (1 - h_t * h_t), inside)
        tl.debug_barrier()  # d_a[t] is there for all threads
        grad_h -= step
        h -= step
        d_a -= step


@triton.jit
def lstm_step(
    gates,  # (B, 4n): a(t), and on return g, i, f, o
    c_before,  # (B, n) float32
    h,  # (B, n), written
    c,  # (B, n) float32, written
    count,  # B n
    n: tl.constexpr,
    BLOCK: tl.constexpr,
):
    """All but the product of one step forward."""
    at = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    inside = at < count
    gates += at // n * (4 * n) + at % n
    g = _tanh(tl.load(gates, inside, 0.0).to(tl.float32))  # (4)
    i = _sigmoid(tl.load(gates + n, inside, 0.0).to(tl.float32))  # (5)
    f = _sigmoid(tl.load(gates + 2 * n, inside, 0.0).to(tl.float32))  # (6)
    o = _sigmoid(tl.load(gates + 3 * n, inside, 0.0).to(tl.float32))  # (7)
    c_t = g * i + tl.load(c_before + at, inside, 0.0) * f  # (8)
    tl.debug_barrier()  # all threads have loaded a
    tl.store(gates, g, inside)
    tl.store(gates + n, i, inside)
    tl.store(gates + 2 * n, f, inside)
    tl.store(gates + 3 * n, o, inside)
    tl.store(c + at, c_t, inside)
    tl.store(h + at, _tanh(c_t) * o, inside)  # (9)


@triton.jit
def lstm_step_backward(
    d_h,  # (B, n)
    d_c,  # (B, n) float32: d_c[t+1] * f(t+1), and on return d_c[t] * f(t)
    gates,  # (B, 4n)
    c,  # (B, n) float32
    c_before,  # (B, n) float32
    d_a,  # (B, 4n), written
    count,  # B n
    n: tl.constexpr,
    BLOCK: tl.constexpr,
):
    """All but the product of one step backward."""
    at = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    inside = at < count
    gate_at = at // n * (4 * n) + at % n
    g = tl.load(gates + gate_at, inside, 0.0).to(tl.float32)
    i = tl.load(gates + gate_at + n, inside, 0.0).to(tl.float32)
    f = tl.load(gates + gate_at + 2 * n, inside, 0.0).to(tl.float32)
    o = tl.load(gates + gate_at + 3 * n, inside, 0.0).to(tl.float32)
    tanh_c = _tanh(tl.load(c + at, inside, 0.0))
    d_h_t = tl.load(d_h + at, inside, 0.0).to(tl.float32)
    d_c_t = tl.load(d_c + at, inside, 0.0) + d_h_t * o * (1 - tanh_c * tanh_c)
    c_t_before = tl.load(c_before + at, inside, 0.0)
    tl.debug_barrier()  # all threads have loaded d_c
    tl.store(d_a + gate_at, d_c_t * i * (1 - g * g), inside)
    tl.store(d_a + gate_at + n, d_c_t * g * i * (1 - i), inside)
    tl.store(d_a + gate_at + 2 * n, d_c_t * c_t_before * f * (1 - f), inside)
    tl.store(d_a + gate_at + 3 * n, d_h_t * tanh_c * o * (1 - o), inside)
    tl.store(d_c + at, d_c_t * f, inside)
