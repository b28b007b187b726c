"""Loss on a text: static, in cold windows, and by dynamic evaluation (Krause et al. 2018), which learns as it reads.

    static_losses(model, text).mean()                  # nats a character; the state is carried through the whole text
    cold_losses(model, text).mean()                    # every window from a state of zero, as nanoGPT evaluates
    mean_squares = mean_square_gradients(model, training_text)
    dynamic_losses(model, text, mean_squares, rate=1e-4, decay=1e-3).mean()

In dynamic evaluation a piece of the text is scored, and only then learnt from: with its gradient g, each weight theta
goes to

    theta - rate g / (R + epsilon) + min(decay R / mean(R), 1) (theta_0 - theta)

where theta_0 is the trained weight, R the root of its mean square gradient over the training text, mean(R) the mean
over all weights and epsilon a share of it. So a weight moves by about the rate, whatever the size of its gradients, and
where those are large it is drawn back faster.

A text is a tensor of character numbers, (N,); its first character is read but not scored.
"""

from collections.abc import Iterable

import torch
from torch import Tensor
from torch.nn import functional as F
from tqdm import tqdm

from common.errors import InputError
from part2.model import State, TextGenerationModel

PIECE = 100  # characters that are scored, then learnt from
WINDOW = 256  # characters of a cold window
EPSILON = 0.1  # in shares of mean(R)


def dynamic_losses(
    model: TextGenerationModel, text: Tensor, mean_squares: list[Tensor], rate: float, decay: float, piece: int = PIECE
) -> Tensor:
    """Return the loss of each character, (N - 1,), and leave the model with the weights that it has learnt.

    Args:
        model: in evaluation mode: no dropout.
        mean_squares: of the model's parameters, as `mean_square_gradients` returns them.
    """
    trained = [parameter.detach().clone() for parameter in model.parameters()]
    R = [square.sqrt() for square in mean_squares]
    mean_R = torch.cat([root.flatten() for root in R]).mean()
    rates = [rate / (root + EPSILON * mean_R) for root in R]
    decays = [(decay * root / mean_R).clamp(max=1) for root in R]
    losses, state = [], None
    for x, y in _pieces(text, piece):
        scored, state = _read(model, x, y, state)
        losses.append(scored.detach())
        gradients = torch.autograd.grad(scored.mean(), list(model.parameters()))
        with torch.no_grad():
            for theta, theta_0, g, eta, back in zip(model.parameters(), trained, gradients, rates, decays):
                theta.add_(back * (theta_0 - theta) - eta * g)
    return torch.cat(losses)


def mean_square_gradients(model: TextGenerationModel, text: Tensor, piece: int = PIECE) -> list[Tensor]:
    """Return the mean square of each parameter's gradient over the pieces of a text, in the parameters' order."""
    sums, count, state = [torch.zeros_like(parameter) for parameter in model.parameters()], 0, None
    for x, y in _pieces(text, piece):
        losses, state = _read(model, x, y, state)
        for total, g in zip(sums, torch.autograd.grad(losses.mean(), list(model.parameters()))):
            total += g**2
        count += 1
    return [total / count for total in sums]


@torch.no_grad()
def static_losses(model: TextGenerationModel, text: Tensor, piece: int = PIECE) -> Tensor:
    """Return the loss of each character, (N - 1,), with the state carried through the whole text."""
    losses, state = [], None
    for x, y in _pieces(text, piece):
        scored, state = _read(model, x, y, state)
        losses.append(scored)
    return torch.cat(losses)


@torch.no_grad()
def cold_losses(model: TextGenerationModel, text: Tensor, window: int = WINDOW) -> Tensor:
    """Return the loss of each character, (N - 1,), in windows side by side that are each read from a state of zero."""
    return torch.cat([_read(model, x, y, None)[0] for x, y in _pieces(text, window)])


def _read(model: TextGenerationModel, x: Tensor, y: Tensor, state: State | None) -> tuple[Tensor, State]:
    """Return the loss of each character of a piece, and the state behind it, through which no gradient goes back."""
    logits, state = model.run(x.unsqueeze(1), state)  # (L, 1, K)
    return F.cross_entropy(logits[:, 0], y, reduction="none"), [(h.detach(), c.detach()) for h, c in state]


def _pieces(text: Tensor, length: int) -> Iterable[tuple[Tensor, Tensor]]:
    """Return what is read and, one character later, what is scored, in pieces of up to `length` characters."""
    if len(text) < 2:
        raise InputError(f"the text has {len(text)} characters: one to read and one to predict are needed")
    pieces = list(zip(text[:-1].split(length), text[1:].split(length)))
    return tqdm(pieces, unit="piece", disable=None, leave=False)
