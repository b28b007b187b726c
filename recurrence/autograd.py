"""What PyTorch sees of a recurrence: one operation, with the backward pass that was derived by hand.

Autograd differentiates it once; a second derivative, which `torch.nn.LSTM` does not have either, raises, also where the
loss is linear in the states. `torch.compile` and `torch.export` see an operator that they do not look into, and compile
what stands around it.
"""

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any, NamedTuple, TypeAlias

import torch
from torch import Tensor, library
from torch.autograd import Function

Tensors: TypeAlias = Sequence[Any]  # of Tensor, or None for an input that was left out


class Passes(NamedTuple):
    """A recurrence's two passes on plain tensors, and what PyTorch has to know of them.

    Attributes:
        name: of the operator that a compiled or exported program calls: torch.ops.recurrence.<name>.
        inputs: their types and names, as PyTorch's schemas write them.
        num_outputs: how many of the tensors that the forward pass returns are the caller's.
        forward: (way, *inputs) -> outputs and what else the backward pass needs. With the way "shapes" it computes
            nothing but empty tensors of the right shapes.
        backward: (way, gradients of the outputs, whether the first input needs one, inputs, what `forward` returned) ->
            the inputs' gradients, None where an input is None or needs none.
    """

    name: str
    inputs: str
    num_outputs: int
    forward: Callable[..., Tensors]
    backward: Callable[..., Tensors]

    def run(self, way: str, *inputs: Any) -> list[Tensor]:
        with _as_it_is(inputs[0]):
            return list(self.forward(way, *inputs))

    def run_back(self, way: str, gradients: Tensors, needs_first: bool, inputs: Tensors, results: Tensors) -> Tensors:
        with torch.no_grad(), _as_it_is(inputs[0]):
            return self.backward(way, gradients, needs_first, inputs, results)

    def split(self, tensors: Tensors) -> tuple[Tensors, Tensors]:
        """Return the inputs, and what `forward` returned, of both in a row."""
        num_inputs = len(self.inputs.split(","))
        return tensors[:num_inputs], tensors[num_inputs:]


def operation(passes: Passes) -> Callable[..., tuple[Tensor, ...]]:
    """Return a function (way, *inputs) -> outputs that autograd differentiates by the passes."""
    Operation, operator = _function(passes), _operator(passes)

    def call(way: str, *inputs: Any) -> tuple[Tensor, ...]:
        if torch.compiler.is_compiling():
            results = operator(way, *inputs)
        elif _transforms_are_active():
            results = Operation.apply(way, *inputs)
        elif not torch.is_grad_enabled():
            results = passes.run(way, *inputs)
        else:  # Function.apply, which serves torch.func as well, inspects a signature each time, for 0.1 ms
            results = super(Function, Operation).apply(way, *inputs)
        return tuple(results[: passes.num_outputs])

    return call


def _function(passes: Passes) -> Any:
    """Return the passes as autograd takes them."""

    class BackwardPass(Function):
        @staticmethod
        def forward(way: str, needs_first: bool, *tensors: Any) -> tuple[Tensor | None, ...]:
            gradients, rest = tensors[: passes.num_outputs], tensors[passes.num_outputs :]
            return tuple(passes.run_back(way, gradients, needs_first, *passes.split(rest)))

        @staticmethod
        def setup_context(ctx: Any, inputs: Any, output: Any) -> None:
            pass

        @staticmethod
        def backward(ctx: Any, *gradients: Tensor | None) -> None:
            raise RuntimeError(f"this {passes.name} can be differentiated once only; with recurrence='loop' more often")

    class Operation(Function):
        @staticmethod
        def forward(way: str, *inputs: Any) -> tuple[Tensor, ...]:
            return tuple(passes.run(way, *inputs))

        @staticmethod
        def setup_context(ctx: Any, inputs: Any, output: Any) -> None:
            _keep(ctx, inputs, output)
            ctx.mark_non_differentiable(*output[passes.num_outputs :])
            ctx.set_materialize_grads(False)

        @staticmethod
        def backward(ctx: Any, *gradients: Tensor | None) -> tuple[Any, ...]:
            inputs, results = passes.split(ctx.saved_tensors)
            given = [torch.zeros_like(r) if g is None else g for g, r in zip(gradients[: passes.num_outputs], results)]
            if torch.is_grad_enabled():  # the backward pass is to be differentiated itself
                return None, *BackwardPass.apply(ctx.way, ctx.needs_input_grad[1], *given, *inputs, *results)
            return None, *passes.run_back(ctx.way, given, ctx.needs_input_grad[1], inputs, results)

    return Operation


def _operator(passes: Passes) -> Any:
    """Return the passes as a compiled or exported program calls them."""
    name = f"recurrence::{passes.name}"
    operator: Any = library.custom_op(
        name, passes.run, mutates_args=(), schema=f"(str way, {passes.inputs}) -> Tensor[]"
    )
    operator.register_fake(lambda way, *inputs: passes.run("shapes", *inputs))

    def copied(*arguments: Any) -> list[Tensor]:  # an operator's results share no memory with its inputs
        return [gradient.clone() for gradient in passes.run_back(*arguments) if gradient is not None]

    schema = "(str way, Tensor[] gradients, bool needs_first, Tensor?[] inputs, Tensor[] results) -> Tensor[]"
    backward_operator: Any = library.custom_op(f"{name}_backward", copied, mutates_args=(), schema=schema)
    backward_operator.register_fake(lambda *arguments: [torch.empty_like(x) for x in arguments[3] if x is not None])

    def backward(ctx: Any, gradients: Any) -> tuple[Any, ...]:
        inputs, results = passes.split(ctx.saved_tensors)
        found = iter(backward_operator(ctx.way, gradients[: passes.num_outputs], True, inputs, results))
        return None, *(None if x is None else next(found) for x in inputs)

    operator.register_autograd(backward, setup_context=_keep)
    return operator


def _keep(ctx: Any, inputs: Any, output: Any) -> None:
    """Keep the way and all tensors for the backward pass."""
    ctx.way, *tensors = inputs
    ctx.save_for_backward(*tensors, *output)


def _transforms_are_active() -> bool:
    """Whether a transform of torch.func is at work; yes where this PyTorch does not say."""
    return getattr(torch._C, "_are_functorch_transforms_active", lambda: True)()


def _as_it_is(x: Tensor) -> AbstractContextManager:
    """Return a context without autocast, in which all is computed in the types that the tensors have."""
    if torch.is_autocast_enabled(x.device.type):
        return torch.autocast(x.device.type, enabled=False)
    return nullcontext()
