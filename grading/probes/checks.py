"""What probes of several parts look for in the same way."""

from collections.abc import Callable

from torch import Tensor, nn


def check_gradients(net: nn.Module, loss: Callable[[], Tensor], what: str, step: float, tolerance: float) -> None:
    """See that a loss gives every parameter the gradient that finite differences give.

    Args:
        what: that the loss is made of, for messages.
        step: length of the step along each parameter's gradient.
        tolerance: of the slope, beside 2 % of it.
    """
    value = loss()
    assert value.requires_grad, f"the {what} no gradient at all"
    value.backward()
    for name, parameter in net.named_parameters():
        if not parameter.requires_grad:
            continue
        assert parameter.grad is not None, f"{name} gets no gradient"
        assert parameter.grad.any(), f"the gradient of {name} is zero"
        slope = parameter.grad.norm().item()
        change = step * parameter.grad / slope
        parameter.data += change
        rise = loss().item()
        parameter.data -= 2 * change
        measured = (rise - loss().item()) / (2 * step)
        parameter.data += change
        assert abs(measured - slope) < 0.02 * slope + tolerance, (
            f"along the gradient of {name} the loss rises by {measured:.3f} a unit, not by {slope:.3f}: a path is cut"
        )


def check_weights_differ(net: nn.Module) -> None:
    """See that no weight matrix is zero or all one number."""
    for name, parameter in net.named_parameters():
        if parameter.dim() >= 2 and min(parameter.shape) > 1:
            assert parameter.std() > 0, (
                f"{name} starts with all its numbers {parameter.flatten()[0]:g}: units stay equal"
            )
