"""A small convolutional network and all its gradients in NumPy alone, built from the layers of question 1.1.

L blocks of convolution, ReLU and max pooling, then a linear layer and softmax. With x = h(0), (N, C, S, S), block k is

    a(k) = W_k * h(k-1) + b_k      3 x 3 filters, padding 1: the side stays        (1)
    r(k) = max(a(k), 0)                                                            (2)
    h(k) = maxpool(r(k))           2 x 2 windows at stride 2: the side halves      (3)

and with h(L) as one vector, (N, D), and the labels y

    p = W_p h(L) + b_p             logits, (N, K)                                  (4)
    loss = -mean_n log softmax(p_n)[y_n]                                           (5)

Without blocks, L = 0, this is the linear classifier. d_a stands for the gradient of the loss with respect to a.
"""

from typing import NamedTuple

import numpy as np
from numpy import ndarray

from part4.layers_numpy import (
    convolution2D,
    convolution2D_backward_filter,
    convolution2D_backward_input,
    pool_back,
    pool_forward,
    zero_padding,
)

FILTER, PADDING, WINDOW = 3, 1, 2
Weights = dict[str, ndarray]  # W_1 (F, C, 3, 3), b_1 (F,), W_2, b_2, ..., W_p (K, D), b_p (K,)


class BlockCache(NamedTuple):
    """What a block's backward pass needs from its forward pass."""

    padded: ndarray  # h(k-1), zero-padded
    r: ndarray


def draw_weights(channels: list[int], side: int, num_classes: int, generator: np.random.Generator) -> Weights:
    """Return float32 weights for images of 3 channels and `side` x `side` pixels.

    Filters have variance 2 / (9 C), which keeps the activations' size through ReLU (He et al. 2015). The last layer
    starts close to 0, so that all classes are equally likely at first.

    Args:
        channels: filters of each block; none for the linear classifier.

    Raises:
        ValueError: the image is too small for so many blocks.
    """
    weights, C = {}, 3
    for k, F in enumerate(channels, start=1):
        scale = (2 / (C * FILTER**2)) ** 0.5
        weights[f"W_{k}"] = scale * generator.standard_normal((F, C, FILTER, FILTER), np.float32)
        weights[f"b_{k}"] = np.zeros(F, np.float32)
        C, side = F, side // WINDOW
    if not side:
        raise ValueError(f"{len(channels)} blocks halve the side to nothing")
    D = C * side**2
    weights["W_p"] = 0.1 / D**0.5 * generator.standard_normal((num_classes, D), np.float32)
    weights["b_p"] = np.zeros(num_classes, np.float32)
    return weights


def network_forward(weights: Weights, x: ndarray) -> tuple[ndarray, list[BlockCache], ndarray]:
    """Return the logits p, (N, K), of images x, (N, 3, S, S), each block's cache, and the last block's output h(L)."""
    h, caches = x, []
    for k in range(1, num_blocks(weights) + 1):
        padded = zero_padding(h, PADDING)
        a = convolution2D(padded, weights[f"W_{k}"], 1, 0) + weights[f"b_{k}"][:, None, None]  # (1)
        r = np.maximum(a, 0)  # (2)
        h = pool_forward(r, WINDOW, WINDOW)  # (3)
        caches.append(BlockCache(padded, r))
    p = h.reshape(len(h), -1) @ weights["W_p"].T + weights["b_p"]  # (4)
    return p, caches, h


def network_backward(weights: Weights, d_p: ndarray, caches: list[BlockCache], h: ndarray) -> Weights:
    """Return the gradient of every weight, by name, given d_p, (N, K), and what the forward pass returned."""
    gradients = {"W_p": d_p.T @ h.reshape(len(h), -1), "b_p": d_p.sum(axis=0)}  # (4)
    d_h = (d_p @ weights["W_p"]).reshape(h.shape)
    for k in range(len(caches), 0, -1):
        padded, r = caches[k - 1]
        d_r = pool_back(d_h, r, WINDOW, WINDOW)  # (3)
        d_a = d_r * (r > 0)  # (2): a > 0 where r > 0
        gradients[f"W_{k}"] = convolution2D_backward_filter(d_a, padded, weights[f"W_{k}"], 1)  # (1)
        gradients[f"b_{k}"] = d_a.sum(axis=(0, 2, 3))
        if k > 1:  # the gradient of the images is not needed
            d_padded = convolution2D_backward_input(d_a, padded, weights[f"W_{k}"], 1)
            d_h = d_padded[:, :, PADDING:-PADDING, PADDING:-PADDING]
    return gradients


def softmax_cross_entropy(p: ndarray, labels: ndarray) -> tuple[float, ndarray]:
    """Return the loss (5) in nats of logits p, (N, K), and labels, (N,), and its gradient (softmax(p) - onehot) / N."""
    p = p - p.max(axis=1, keepdims=True)  # does not change the softmax, and no exponential overflows
    exponentials = np.exp(p)
    sums = exponentials.sum(axis=1, keepdims=True)
    rows = np.arange(len(labels))
    loss = float((np.log(sums[:, 0]) - p[rows, labels]).mean())
    d_p = exponentials / sums
    d_p[rows, labels] -= 1
    return loss, d_p / len(labels)


def momentum_step(
    weights: Weights, velocities: Weights, gradients: Weights, learning_rate: float, momentum: float
) -> None:
    """Change weights w and velocities v in place: v <- momentum v + gradient, w <- w - learning_rate v."""
    for name, gradient in gradients.items():
        velocities[name] *= momentum
        velocities[name] += gradient
        weights[name] -= learning_rate * velocities[name]


def num_blocks(weights: Weights) -> int:
    return len(weights) // 2 - 1
