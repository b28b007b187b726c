"""The LSTM and all its gradients in NumPy alone (PRML, part 1).

Dimensions: T time steps, B sequences in a batch, d inputs, n hidden units. A batch is a matrix of rows, so that the
handout's W x stands here as x @ W.T. W_x = [W_gx; W_ix; W_fx; W_ox], (4n, d), and W_h, (4n, n), and b, (4n,), hold the
four gates in the order g, i, f, o.

* Question 1: `lstm_step` and, mirroring it line by line, `lstm_step_backward`.
* Question 2, backpropagation through time: `lstm_sequence` and `lstm_sequence_backward`.

d_a stands for dL/da, the gradient of the loss L along every path from a.
"""

from typing import NamedTuple

import numpy as np
from numpy import ndarray


class StepCache(NamedTuple):
    """What a step's backward pass needs of its forward pass."""

    x: ndarray
    h_before: ndarray
    c_before: ndarray
    W_x: ndarray
    W_h: ndarray
    g: ndarray
    i: ndarray
    f: ndarray
    o: ndarray
    tanh_c: ndarray


class StepGradients(NamedTuple):
    """The gradient of the loss with respect to everything that a step computes (c, gates) or takes."""

    c: ndarray  # (B, n)
    g: ndarray  # (B, n)
    i: ndarray  # (B, n)
    f: ndarray  # (B, n)
    o: ndarray  # (B, n)
    x: ndarray  # (B, d)
    h_before: ndarray  # (B, n)
    c_before: ndarray  # (B, n)
    W_x: ndarray  # (4n, d)
    W_h: ndarray  # (4n, n)
    b: ndarray  # (4n,)


class SequenceGradients(NamedTuple):
    """The gradient of the loss with respect to everything that a sequence takes."""

    x: ndarray  # (T, B, d)
    h_0: ndarray  # (B, n)
    c_0: ndarray  # (B, n)
    W_x: ndarray  # (4n, d)
    W_h: ndarray  # (4n, n)
    b: ndarray  # (4n,)


def lstm_step(
    x: ndarray, h_before: ndarray, c_before: ndarray, W_x: ndarray, W_h: ndarray, b: ndarray
) -> tuple[ndarray, ndarray, StepCache]:
    """Return h(t) and c(t), (B, n) each, and the cache, from x(t), (B, d), h(t-1) and c(t-1), (B, n) each (4-9)."""
    a = x @ W_x.T + h_before @ W_h.T + b  # (B, 4n)
    a_g, a_i, a_f, a_o = np.split(a, 4, axis=1)
    g = np.tanh(a_g)  # (4)
    i = sigmoid(a_i)  # (5)
    f = sigmoid(a_f)  # (6)
    o = sigmoid(a_o)  # (7)
    c = g * i + c_before * f  # (8)
    tanh_c = np.tanh(c)
    h = tanh_c * o  # (9)
    return h, c, StepCache(x, h_before, c_before, W_x, W_h, g, i, f, o, tanh_c)


def lstm_step_backward(d_h: ndarray, d_c: ndarray, cache: StepCache) -> StepGradients:
    """Return all gradients, from d_h = dL/dh(t) and d_c, the part of dL/dc(t) that does not pass through h(t).

    Both are (B, n).
    """
    x, h_before, c_before, W_x, W_h, g, i, f, o, tanh_c = cache
    d_o = d_h * tanh_c  # (9)
    d_c = d_c + d_h * o * (1 - tanh_c**2)
    d_g = d_c * i  # (8)
    d_i = d_c * g
    d_f = d_c * c_before
    d_c_before = d_c * f
    d_a_g = d_g * (1 - g**2)  # (4): tanh' = 1 - tanh^2
    d_a_i = d_i * i * (1 - i)  # (5): sigma' = sigma (1 - sigma)
    d_a_f = d_f * f * (1 - f)  # (6)
    d_a_o = d_o * o * (1 - o)  # (7)
    d_a = np.concatenate((d_a_g, d_a_i, d_a_f, d_a_o), axis=1)  # (B, 4n)
    return StepGradients(
        c=d_c,
        g=d_g,
        i=d_i,
        f=d_f,
        o=d_o,
        x=d_a @ W_x,
        h_before=d_a @ W_h,
        c_before=d_c_before,
        W_x=d_a.T @ x,
        W_h=d_a.T @ h_before,
        b=d_a.sum(axis=0),
    )


def lstm_sequence(
    x: ndarray, h_0: ndarray, c_0: ndarray, W_x: ndarray, W_h: ndarray, b: ndarray
) -> tuple[ndarray, ndarray, list[StepCache]]:
    """Return h(1) ... h(T), (T, B, n), the last cell state c(T), (B, n), and the caches, from x, (T, B, d)."""
    h, c, states, caches = h_0, c_0, [], []
    for x_t in x:
        h, c, cache = lstm_step(x_t, h, c, W_x, W_h, b)
        states.append(h)
        caches.append(cache)
    return np.stack(states), c, caches


def lstm_sequence_backward(grad_h: ndarray, grad_c_T: ndarray, caches: list[StepCache]) -> SequenceGradients:
    """Return the gradients by backpropagation through time.

    A state acts on the loss directly and through the next step; a weight acts at every step, so its gradients add up.

    Args:
        grad_h: (T, B, n), the part of dL/dh(t) that does not pass through h(t+1).
        grad_c_T: (B, n), the part of dL/dc(T) that does not pass through h(T).
    """
    d_h, d_c, d_x = np.zeros_like(grad_c_T), grad_c_T, []
    d_W_x = d_W_h = d_b = np.zeros((), grad_h.dtype)
    for grad_h_t, cache in zip(grad_h[::-1], caches[::-1]):
        step = lstm_step_backward(grad_h_t + d_h, d_c, cache)
        d_h, d_c = step.h_before, step.c_before
        d_x.append(step.x)
        d_W_x, d_W_h, d_b = d_W_x + step.W_x, d_W_h + step.W_h, d_b + step.b
    return SequenceGradients(np.stack(d_x[::-1]), d_h, d_c, d_W_x, d_W_h, d_b)


def sigmoid(a: ndarray) -> ndarray:
    """Return 1 / (1 + exp(-a)), written so that no exponential overflows."""
    return 0.5 * (1 + np.tanh(0.5 * a))
