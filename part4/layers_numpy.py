"""Question 1.1 in NumPy alone: padding, convolution and max pooling, with their gradients, as products over patches.

`layers_loops.py` has the same functions beside the sums that they compute; read that first. Here the C x FH x FW
numbers that one output sees become a column of a matrix, one matrix for each image, and each sum is a matrix product:

    Y[n] = W P[n]        dL/dW = sum_n G[n] P[n]^T        dL/dP[n] = W^T G[n]

with W as (F, C FH FW), the patches P[n] as (C FH FW, OH OW) and G = dL/dY as (N, F, OH OW). dL/dX adds each entry of
dL/dP to the number that it was copied from: for one place (u, v) in the filter after the other, all outputs at once.

Images are (N, C, IH, IW), filters (F, C, FH, FW). A stride is (sh, sw), a padding (ph, pw), vertical first; one integer
stands for both. The last rows and columns that no filter position covers are not read. No argument is written to.

Numbers are floating-point or integers. What adds them up does so in int64 if all of them are integers: sums of uint8
would wrap around.
"""

from collections.abc import Iterator

import numpy as np
from numpy import ndarray
from numpy.lib.stride_tricks import sliding_window_view

Pair = int | tuple[int, int]


def zero_padding(X: ndarray, padding: Pair) -> ndarray:
    """Put zeros around images: (N, C, IH, IW) becomes (N, C, IH + 2 ph, IW + 2 pw).

    Raises:
        ValueError: a padding is not an integer of at least 0, or X is not as described (so in all functions).
    """
    check_array(X, "X")
    ph, pw = as_pair(padding, "padding", at_least=0)
    N, C, IH, IW = X.shape
    padded = np.zeros((N, C, IH + 2 * ph, IW + 2 * pw), X.dtype)
    padded[:, :, ph : ph + IH, pw : pw + IW] = X  # not `ph:-ph`, which is empty for a padding of 0
    return padded


def convolution2D(X: ndarray, W: ndarray, stride: Pair, padding: Pair) -> ndarray:
    """Convolve X, (N, C, IH, IW), with W, (F, C, FH, FW), as PyTorch does (the filter is not flipped).

    Returns:
        (N, F, OH, OW), OH = 1 + floor((IH + 2 ph - FH) / sh) and OW likewise.

    Raises:
        ValueError: the numbers of channels differ, the filter is larger than the padded image, or a stride is not an
            integer of at least 1 or a padding not one of at least 0.
    """
    X = zero_padding(X, padding)
    sh, sw = as_pair(stride, "stride")
    check_convolution(X, W)
    X, W = wide(X, W)
    N, F = len(X), len(W)
    OH, OW = output_size(X.shape[2], W.shape[2], sh), output_size(X.shape[3], W.shape[3], sw)
    return (W.reshape(F, -1) @ patches(X, W, sh, sw)).reshape(N, F, OH, OW)


def convolution2D_backward_filter(out_grad: ndarray, X: ndarray, W: ndarray, stride: Pair) -> ndarray:
    """Return dL/dW, (F, C, FH, FW).

    Args:
        out_grad: dL/dY, (N, F, OH, OW).
        X: the input after padding, (N, C, IH, IW).
        W: (F, C, FH, FW); only its shape is read.

    Raises:
        ValueError: the shapes do not fit together.
    """
    sh, sw = as_pair(stride, "stride")
    check_convolution(X, W, out_grad, (sh, sw))
    out_grad, X = wide(out_grad, X)
    N, F, OH, OW = out_grad.shape
    G = out_grad.reshape(N, F, OH * OW)
    return (G @ patches(X, W, sh, sw).transpose(0, 2, 1)).sum(axis=0).reshape(W.shape)


def convolution2D_backward_input(out_grad: ndarray, X: ndarray, W: ndarray, stride: Pair) -> ndarray:
    """Return dL/dX, (N, C, IH, IW); arguments and errors as above, but only the shape of X is read.

    Where X was padded, this is the gradient of the padded input; its middle is the gradient of the image.
    """
    sh, sw = as_pair(stride, "stride")
    check_convolution(X, W, out_grad, (sh, sw))
    out_grad, W = wide(out_grad, W)
    N, F, OH, OW = out_grad.shape
    _, C, FH, FW = W.shape
    dP = W.reshape(F, -1).T @ out_grad.reshape(N, F, OH * OW)  # (N, C FH FW, OH OW)
    dP = dP.reshape(N, C, FH, FW, OH, OW)
    dX = np.zeros(X.shape, dP.dtype)
    for u, v in np.ndindex(FH, FW):
        dX[:, :, u : u + sh * OH : sh, v : v + sw * OW : sw] += dP[:, :, u, v]
    return dX


def pool_forward(X: ndarray, f: int, s: int) -> ndarray:
    """Return the maximum of each f x f window of X, (N, C, IH, IW), at stride s.

    Returns:
        (N, C, OH, OW), OH = 1 + floor((IH - f) / s) and OW likewise.

    Raises:
        ValueError: the window is larger than the image, or f or s is not an integer of at least 1.
    """
    check_array(X, "X")
    f, s = as_pair((f, s), "window size and stride")
    _, _, IH, IW = X.shape
    windows = pool_windows(X, f, s, output_size(IH, f, s), output_size(IW, f, s))
    Y = next(windows).copy()
    for numbers in windows:
        np.maximum(Y, numbers, out=Y)
    return Y


def pool_back(grad_pool: ndarray, X: ndarray, f: int, s: int) -> ndarray:
    """Return dL/dX, (N, C, IH, IW): each window's gradient goes to its maximum; those of overlapping windows add up.

    Where a window has several equal maxima, the first in reading order gets the gradient, as in PyTorch.

    Args:
        grad_pool: dL/dY, (N, C, OH, OW); last rows and columns may be left out, and count as 0.
        X: the input that was pooled, (N, C, IH, IW).

    Raises:
        ValueError: the gradient has more windows than the image, or another number of images or channels.
    """
    f, s = as_pair((f, s), "window size and stride")
    check_pool_gradient(grad_pool, X, f, s)
    (grad_pool,) = wide(grad_pool)
    OH, OW = grad_pool.shape[2:]
    maximum = pool_forward(X, f, s)[:, :, :OH, :OW]
    dX = np.zeros(X.shape, grad_pool.dtype)
    waiting = np.ones(grad_pool.shape, bool)  # windows whose maximum has not been found yet
    with_nan = (maximum != maximum).any()  # a NaN is the maximum of its window, and equals nothing
    for numbers, gradients in zip(pool_windows(X, f, s, OH, OW), pool_windows(dX, f, s, OH, OW)):
        largest = (numbers == maximum) | (numbers != numbers) if with_nan else numbers == maximum
        first = waiting & largest
        gradients += np.where(first, grad_pool, 0)  # writes to dX
        waiting &= ~first
    return dX


def patches(X: ndarray, W: ndarray, sh: int, sw: int) -> ndarray:
    """Return what each output sees of the padded input X: (N, C FH FW, OH OW), copied."""
    windows = sliding_window_view(X, W.shape[2:], axis=(2, 3))[:, :, ::sh, ::sw]  # (N, C, OH, OW, FH, FW)
    N, C, OH, OW, FH, FW = windows.shape
    # A row of the image stays contiguous in the matrix, so that the copy is fast.
    return windows.transpose(0, 1, 4, 5, 2, 3).reshape(N, C * FH * FW, OH * OW)


def pool_windows(X: ndarray, f: int, s: int, OH: int, OW: int) -> Iterator[ndarray]:
    """Yield views of X, (N, C, OH, OW) each: first numbers of all windows, second ones, and so on in reading order."""
    for u, v in np.ndindex(f, f):
        yield X[:, :, u : u + s * OH : s, v : v + s * OW : s]


def output_size(size: int, filter_size: int, stride: int) -> int:
    """Return how many windows of `filter_size` fit into `size` numbers, `stride` apart.

    Raises:
        ValueError: not even one fits.
    """
    if filter_size > size:
        raise ValueError(f"a window of {filter_size} does not fit into an image of {size}, padding included")
    return 1 + (size - filter_size) // stride


def as_pair(value: Pair, name: str, at_least: int = 1) -> tuple[int, int]:
    """Return (vertical, horizontal), for an integer of Python or NumPy or two; True and 1.0 are none.

    Raises:
        ValueError: the value is neither one integer nor two, or one is too small.
    """
    is_pair = isinstance(value, (tuple, list)) or (isinstance(value, ndarray) and value.ndim == 1)
    pair = tuple(value) if is_pair else (value, value)  # type: ignore[arg-type]
    integers = [int(n) for n in pair if isinstance(n, (int, np.integer)) and not isinstance(n, bool)]
    if len(pair) != 2 or len(integers) != 2 or min(integers) < at_least:
        raise ValueError(f"the {name} must be two integers of at least {at_least}, not {value}")
    return integers[0], integers[1]


def wide(*arrays: ndarray) -> list[ndarray]:
    """Return arrays whose products can be added up: if all of them are integers, as int64 (uint64 stays)."""
    dtype = np.result_type(*arrays)
    if dtype.kind in "biu" and dtype.itemsize < 8:
        return [array.astype(np.int64) for array in arrays]
    return list(arrays)


def check_array(array: ndarray, name: str) -> None:
    """Raise a ValueError unless this is an array of numbers with 4 axes; only the first, a batch's, may be empty."""
    if not isinstance(array, ndarray):
        raise ValueError(f"{name} must be a NumPy array, not a {type(array).__name__}")
    if array.ndim != 4 or 0 in array.shape[1:]:
        raise ValueError(f"{name} must have four axes, as (N, C, H, W), none of length 0, not shape {array.shape}")
    if array.dtype.kind not in "biuf":
        raise ValueError(f"{name} must hold floating-point numbers or integers, not {array.dtype}")


def check_convolution(
    X: ndarray, W: ndarray, out_grad: ndarray | None = None, stride: tuple[int, int] = (1, 1)
) -> None:
    """Raise a ValueError if the shapes of input and filters, and of the gradient if given, do not fit together."""
    check_array(X, "X")
    check_array(W, "W")
    if X.shape[1] != W.shape[1]:
        raise ValueError(f"images of {X.shape[1]} channels do not fit filters of {W.shape[1]}")
    sizes = [output_size(X.shape[axis], W.shape[axis], stride[axis - 2]) for axis in (2, 3)]
    if out_grad is not None:
        check_array(out_grad, "out_grad")
        if out_grad.shape != (len(X), len(W), *sizes):
            raise ValueError(f"the output's gradient has shape {out_grad.shape}, the output {(len(X), len(W), *sizes)}")


def check_pool_gradient(grad_pool: ndarray, X: ndarray, f: int, s: int) -> None:
    """Raise a ValueError if the gradient has more windows than the images X, or other numbers of images or channels."""
    check_array(grad_pool, "grad_pool")
    check_array(X, "X")
    N, C, IH, IW = X.shape
    largest = (N, C, output_size(IH, f, s), output_size(IW, f, s))
    if grad_pool.shape[:2] != (N, C) or any(np.greater(grad_pool.shape, largest)):
        raise ValueError(f"the pooled output has shape {largest}; its gradient cannot have shape {grad_pool.shape}")
