"""What PyTorch sees of a recurrence: one operation, with the backward pass that was derived by hand.

Autograd differentiates it once; a second derivative, which `torch.nn.LSTM` does not have either, raises, also where the
loss is linear in the states. `torch.compile` and `torch.export` see an operator that they do not look into, and compile
what stands around it.
"""

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from functools import partial
from typing import Any, TypeAlias

import torch
from torch import Tensor
from torch.autograd import Function

Tensors: TypeAlias = Sequence[Any]  # of Tensor, or None for an input that was left out


def operation(
    name: str, inputs: str, forward: Callable[..., Tensors], backward: Callable[..., Tensors], num_outputs: int
) -> Callable[..., tuple[Tensor, ...]]:
    """Return a function (way, *inputs) -> outputs that autograd differentiates by `backward`.

    Args:
        name: of the operator that a compiled or exported program calls: torch.ops.recurrence.<name>.
        inputs: their types and names, as PyTorch's schemas write them.
        forward: (way, *inputs) -> outputs and what else the backward pass needs. With the way "shapes" it computes
            nothing but empty tensors of the right shapes.
        backward: (way, gradients of the outputs, whether the first input needs one, inputs, what `forward` returned) ->
            the inputs' gradients, None where an input is None or needs none.
        num_outputs: how many of the tensors that `forward` returns are the caller's.
    """
    num_inputs = len(inputs.split(","))

    def run(way: str, *inputs: Any) -> list[Tensor]:
        with _as_it_is(inputs[0]):
            return list(forward(way, *inputs))

    def run_back(way: str, gradients: Tensors, needs_first: bool, inputs: Tensors, results: Tensors) -> Tensors:
        with torch.no_grad(), _as_it_is(inputs[0]):
            return backward(way, gradients, needs_first, inputs, results)

    class BackwardPass(Function):
        @staticmethod
        def forward(way: str, needs_first: bool, *tensors: Any) -> tuple[Tensor | None, ...]:
            gradients, rest = tensors[:num_outputs], tensors[num_outputs:]
            return tuple(run_back(way, gradients, needs_first, rest[:num_inputs], rest[num_inputs:]))

        @staticmethod
        def setup_context(ctx: Any, inputs: Any, output: Any) -> None:
            pass

        @staticmethod
        def backward(ctx: Any, *gradients: Tensor | None) -> None:
            raise RuntimeError(f"this {name} can be differentiated once only; with recurrence='loop' more often")

    class Operation(Function):
        @staticmethod
        def forward(way: str, *inputs: Any) -> tuple[Tensor, ...]:
            return tuple(run(way, *inputs))

        @staticmethod
        def setup_context(ctx: Any, inputs: Any, output: Any) -> None:
            ctx.way, *tensors = inputs
            ctx.save_for_backward(*tensors, *output)
            ctx.mark_non_differentiable(*output[num_outputs:])
            ctx.set_materialize_grads(False)

        @staticmethod
        def backward(ctx: Any, *gradients: Tensor | None) -> tuple[Any, ...]:
            inputs, results = ctx.saved_tensors[:num_inputs], ctx.saved_tensors[num_inputs:]
            given = [torch.zeros_like(r) if g is None else g for g, r in zip(gradients[:num_outputs], results)]
            if torch.is_grad_enabled():  # the backward pass is to be differentiated itself
                return None, *BackwardPass.apply(ctx.way, ctx.needs_input_grad[1], *given, *inputs, *results)
            return None, *run_back(ctx.way, given, ctx.needs_input_grad[1], inputs, results)

    def copied(*arguments: Any) -> list[Tensor]:  # an operator's results share no memory with its inputs
        return [gradient.clone() for gradient in run_back(*arguments) if gradient is not None]

    define: Any = partial(torch.library.custom_op, mutates_args=())
    operator = define(f"recurrence::{name}", run, schema=f"(str way, {inputs}) -> Tensor[]")
    operator.register_fake(lambda way, *inputs: run("shapes", *inputs))
    backward_schema = "(str way, Tensor[] gradients, bool needs_first, Tensor?[] inputs, Tensor[] results) -> Tensor[]"
    backward_operator = define(f"recurrence::{name}_backward", copied, schema=backward_schema)
    backward_operator.register_fake(lambda *arguments: [torch.empty_like(x) for x in arguments[3] if x is not None])

    def keep(ctx: Any, inputs: Any, output: Any) -> None:
        ctx.way, *tensors = inputs
        ctx.save_for_backward(*tensors, *output)

    def operator_back(ctx: Any, gradients: Any) -> tuple[Any, ...]:
        inputs, results = ctx.saved_tensors[:num_inputs], ctx.saved_tensors[num_inputs:]
        found = iter(backward_operator(ctx.way, gradients[:num_outputs], True, inputs, results))
        return None, *(None if x is None else next(found) for x in inputs)

    operator.register_autograd(operator_back, setup_context=keep)

    def call(way: str, *inputs: Any) -> tuple[Tensor, ...]:
        if torch.compiler.is_compiling():
            return tuple(operator(way, *inputs)[:num_outputs])
        if _transforms_are_active():
            return Operation.apply(way, *inputs)[:num_outputs]
        if not torch.is_grad_enabled():
            return tuple(run(way, *inputs)[:num_outputs])
        # Function.apply, which serves torch.func as well, inspects the signature of `forward` each time, for 0.1 ms
        return super(Function, Operation).apply(way, *inputs)[:num_outputs]

    return call


def _transforms_are_active() -> bool:
    """Whether a transform of torch.func is at work; yes where this PyTorch does not say."""
    return getattr(torch._C, "_are_functorch_transforms_active", lambda: True)()


def _as_it_is(x: Tensor) -> AbstractContextManager:
    """Return a context without autocast, in which all is computed in the types that the tensors have."""
    if torch.is_autocast_enabled(x.device.type):
        return torch.autocast(x.device.type, enabled=False)
    return nullcontext()
