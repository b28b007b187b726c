"""The layers of 2021's notebook, called with gradients of either convention: (N, F, OH, OW), or (N, F, OW, OH) as its
text says.
"""

from typing import Any

import numpy as np
import torch
from torch.nn import functional as F

from grading.loading import Code, Unusable


def call(code: Code, name: str, *arguments: Any) -> np.ndarray:
    """Call a layer and return its array; one that takes gradients as (N, F, OW, OH) gets them so.

    Raises:
        Unusable: it is not implemented, or does not return an array.
    """
    function = code.load(name)
    if name.startswith("convolution2D_backward") and takes_width_first(function, name):
        arguments = (np.ascontiguousarray(arguments[0].swapaxes(2, 3)), *arguments[1:])
    return array(code, name, function(*arguments))


def array(code: Code, name: str, found: Any) -> np.ndarray:
    if found is None:
        raise Unusable(f"call {name}", "not implemented: it returns None", code.place(name), is_stub=True)
    if not isinstance(found, np.ndarray):
        raise Unusable(f"call {name}", f"it returned a {type(found).__name__}, not an array", code.place(name))
    return found


def takes_width_first(function: Any, name: str) -> bool:
    """Return whether a function's gradient is (N, F, OW, OH): right when turned, and wrong as it is."""
    generator = np.random.default_rng(0)
    X, W = generator.standard_normal((2, 2, 5, 7)), generator.standard_normal((3, 2, 2, 3))
    grad = generator.standard_normal((2, 3, 4, 5))
    expected = gradients(X, W, (1, 1), grad)[name.endswith("input")]

    def right(given: np.ndarray) -> bool:
        try:
            found = function(np.ascontiguousarray(given), X.copy(), W.copy(), (1, 1))
            return found.shape == expected.shape and np.allclose(found, expected)
        except Exception:
            return False

    return not right(grad) and right(grad.swapaxes(2, 3))


def gradients(X: np.ndarray, W: np.ndarray, stride: tuple[int, int], grad: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return dL/dW and dL/dX of a convolution without padding, by PyTorch."""
    x, w = (torch.from_numpy(one).requires_grad_() for one in (X, W))
    F.conv2d(x, w, stride=stride).backward(torch.from_numpy(grad))
    assert w.grad is not None and x.grad is not None
    return w.grad.numpy(), x.grad.numpy()
