"""Question 1.1 as its sums read: padding, convolution and max pooling with loops; `layers_numpy.py` is the fast one.

Dimensions (height x width): N images of C channels of IH x IW; F filters of FH x FW; OH x OW outputs for each filter.

Forward, with the input x, (N, C, IH, IW), padded already, the filters w, (F, C, FH, FW), and strides sh and sw:

    y[n, f, i, j] = sum_{c, u, v} x[n, c, sh i + u, sw j + v] w[f, c, u, v]

This is what PyTorch calls a convolution: the filter is not flipped. Backward, with g = dL/dy: the derivative of each
product by one factor is the other factor, so

    dL/dw[f, c, u, v] = sum_{n, i, j} g[n, f, i, j] x[n, c, sh i + u, sw j + v]
    dL/dx[n, c, p, q] = sum_{f, i, j, u, v: p = sh i + u, q = sw j + v} g[n, f, i, j] w[f, c, u, v]

Max pooling copies the largest number of each window; only that number gets the window's gradient.

The tests compare both versions with each other and with PyTorch. Arguments and errors are those of `layers_numpy.py`.
"""

from itertools import product

import numpy as np
from numpy import ndarray

from part4.layers_numpy import Pair, as_pair, check_array, check_convolution, check_pool_gradient, output_size, wide


def zero_padding(X: ndarray, padding: Pair) -> ndarray:
    """Copy X, (N, C, IH, IW), into the middle of zeros, (N, C, IH + 2 ph, IW + 2 pw)."""
    check_array(X, "X")
    ph, pw = as_pair(padding, "padding", at_least=0)
    N, C, IH, IW = X.shape
    padded = np.zeros((N, C, IH + 2 * ph, IW + 2 * pw), X.dtype)
    for n, c, p, q in product(range(N), range(C), range(IH), range(IW)):
        padded[n, c, ph + p, pw + q] = X[n, c, p, q]
    return padded


def convolution2D(X: ndarray, W: ndarray, stride: Pair, padding: Pair) -> ndarray:
    """Return the convolution of X, (N, C, IH, IW), with W, (F, C, FH, FW): (N, F, OH, OW)."""
    X = zero_padding(X, padding)
    sh, sw = as_pair(stride, "stride")
    check_convolution(X, W)
    X, W = wide(X, W)
    (N, _, IH, IW), (F, _, FH, FW) = X.shape, W.shape
    Y = np.zeros((N, F, output_size(IH, FH, sh), output_size(IW, FW, sw)), np.result_type(X, W))
    for n, f, i, j in np.ndindex(Y.shape):
        Y[n, f, i, j] = (X[n, :, sh * i : sh * i + FH, sw * j : sw * j + FW] * W[f]).sum()  # over c, u, v
    return Y


def convolution2D_backward_filter(out_grad: ndarray, X: ndarray, W: ndarray, stride: Pair) -> ndarray:
    """Return dL/dW, (F, C, FH, FW), given out_grad = dL/dY, (N, F, OH, OW), and X, the input after padding."""
    sh, sw = as_pair(stride, "stride")
    check_convolution(X, W, out_grad, (sh, sw))
    out_grad, X = wide(out_grad, X)
    _, _, FH, FW = W.shape
    dW = np.zeros(W.shape, np.result_type(out_grad, X))
    for n, f, i, j in np.ndindex(out_grad.shape):
        dW[f] += out_grad[n, f, i, j] * X[n, :, sh * i : sh * i + FH, sw * j : sw * j + FW]
    return dW


def convolution2D_backward_input(out_grad: ndarray, X: ndarray, W: ndarray, stride: Pair) -> ndarray:
    """Return dL/dX, (N, C, IH, IW), given out_grad = dL/dY, (N, F, OH, OW), and X, the input after padding."""
    sh, sw = as_pair(stride, "stride")
    check_convolution(X, W, out_grad, (sh, sw))
    out_grad, W = wide(out_grad, W)
    _, _, FH, FW = W.shape
    dX = np.zeros(X.shape, np.result_type(out_grad, W))
    for n, f, i, j in np.ndindex(out_grad.shape):
        dX[n, :, sh * i : sh * i + FH, sw * j : sw * j + FW] += out_grad[n, f, i, j] * W[f]
    return dX


def pool_forward(X: ndarray, f: int, s: int) -> ndarray:
    """Return the maximum of each f x f window of X, (N, C, IH, IW), at stride s: (N, C, OH, OW)."""
    check_array(X, "X")
    f, s = as_pair((f, s), "window size and stride")
    N, C, IH, IW = X.shape
    Y = np.zeros((N, C, output_size(IH, f, s), output_size(IW, f, s)), X.dtype)
    for n, c, i, j in np.ndindex(Y.shape):
        Y[n, c, i, j] = X[n, c, s * i : s * i + f, s * j : s * j + f].max()
    return Y


def pool_back(grad_pool: ndarray, X: ndarray, f: int, s: int) -> ndarray:
    """Return dL/dX, (N, C, IH, IW), given grad_pool = dL/dY, (N, C, OH, OW) or its leading windows only."""
    f, s = as_pair((f, s), "window size and stride")
    check_pool_gradient(grad_pool, X, f, s)
    (grad_pool,) = wide(grad_pool)
    dX = np.zeros(X.shape, grad_pool.dtype)
    for n, c, i, j in np.ndindex(grad_pool.shape):
        window = X[n, c, s * i : s * i + f, s * j : s * j + f]
        u, v = np.unravel_index(window.argmax(), window.shape)  # the first of equal maxima
        dX[n, c, s * i + u, s * j + v] += grad_pool[n, c, i, j]
    return dX
