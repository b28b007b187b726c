"""Lets `train.py` train the NumPy LSTM: PyTorch keeps the parameters, `lstm_numpy.py` computes states and gradients."""

from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from part1 import lstm_numpy
from part1.lstm import LSTM


class NumPyLSTM(LSTM):
    """The LSTM of equations 4-10, its recurrence computed in NumPy, forward and backward, whatever the device."""

    RECURRENCES = ("numpy",)

    def states(self, x: Tensor, state: tuple[Tensor, Tensor] | None = None) -> tuple[Tensor, Tensor]:
        vectors = self.vectors(x)  # (T, B, d)
        if state is None:
            zeros = vectors.new_zeros(vectors.shape[1], self.W_h.shape[1])
            state = zeros, zeros
        return _NumPySequence.apply(vectors, *state, self.W_x, self.W_h, self.b)


class _NumPySequence(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, *tensors: Tensor) -> tuple[Tensor, Tensor]:
        h, c_T, ctx.caches = lstm_numpy.lstm_sequence(*(tensor.detach().cpu().numpy() for tensor in tensors))
        return torch.from_numpy(h).to(tensors[0]), torch.from_numpy(c_T).to(tensors[0])

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad_h: Tensor, grad_c_T: Tensor) -> tuple[Tensor, ...]:
        gradients = lstm_numpy.lstm_sequence_backward(grad_h.cpu().numpy(), grad_c_T.cpu().numpy(), ctx.caches)
        return tuple(torch.from_numpy(gradient).to(grad_h) for gradient in gradients)
