"""Train a small convolutional network written in NumPy, and a linear classifier on the same images to compare it with.

    python part4/train_numpy.py                          drawn shapes, no download
    python part4/train_numpy.py --dataset cifar10

A network that learns shows that the gradients of question 1.1 are right. Both models see the same batches, in the same
order, and are trained by SGD with momentum, each at its own learning rate: the linear classifier's default is the best
of 0.0001, 0.0003, 0.001 and 0.003 on CIFAR-10's validation images. After every epoch both are validated. The weights of
the epoch with the highest validation accuracy are tested in the end.
"""

import math
import sys
from argparse import Namespace
from collections.abc import Callable
from pathlib import Path
from typing import Any

if not __package__:  # run as a script
    sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
    from common.interrupts import exit_on_interrupt

    exit_on_interrupt()  # while the imports below take their time
import numpy as np
import torch
from numpy import ndarray
from torch import Tensor

from common.command import (
    ArgumentParser,
    add_run_arguments,
    fraction,
    non_empty,
    positive_float,
    positive_int,
    run_command,
    seed_number,
)
from common.errors import CommandError
from common.run_folder import RunFolder
from common.training import LoopState, Training, TrainingBatches, default_interval
from part4.cifar10 import DATASETS, ImageData, load_images, normalise, to_unit
from part4.numpy_network import (
    Weights,
    draw_weights,
    momentum_step,
    network_backward,
    network_forward,
    softmax_cross_entropy,
)
from part4.sources import CLASSES, SIDE, Images

MODELS = {"network": "", "linear": "linear_"}  # the prefix of each model's columns
COLUMNS = (
    "epoch",
    "loss",
    "accuracy",
    "linear_loss",
    "linear_accuracy",
    "examples_per_second",
    "validation_loss",
    "validation_accuracy",
    "linear_validation_loss",
    "linear_validation_accuracy",
)


class NumPyBatches(TrainingBatches):
    """Batches in an order that NumPy draws."""

    def order(self, epoch: int) -> Tensor:
        return torch.from_numpy(np.random.default_rng([self.seed, 1, epoch]).permutation(self.num_examples))


class Arrays:
    """Nested dictionaries of arrays, which a checkpoint holds as tensors; a resumed run's replace them in place."""

    def __init__(self, arrays: dict[str, Any]):
        self.arrays = arrays

    def state_dict(self) -> dict[str, Any]:
        return convert(self.arrays, torch.from_numpy)

    def load_state_dict(self, saved: dict[str, Any]) -> None:
        self.arrays.update(convert(saved, Tensor.numpy))


def main() -> None:
    train(parse_arguments())


def train(args: Namespace) -> None:
    # Data
    data = load_images(args.dataset, args.data_dir, args.num_train)
    batches = NumPyBatches(len(data.train.labels), args.batch_size, args.seed, drop_last=True)
    train_steps = args.num_epochs * batches.steps_per_epoch

    # Models
    name = f"numpy_{args.dataset}_seed{args.seed}"
    run = RunFolder(args, "part4/train_numpy.py", name, COLUMNS, free_arguments=("num_epochs",))
    if run.keep("images", data.checksum) != data.checksum:
        raise CommandError(f"{run} was trained on other images: resume it with its own")
    print_every = run.keep("print_every", args.print_every or default_interval(train_steps, 10))
    generator = np.random.default_rng([args.seed, 0])
    channels = {"network": args.channels, "linear": []}
    learning_rates = {"network": args.learning_rate, "linear": args.linear_learning_rate}
    weights = {model: draw_weights(channels[model], SIDE, len(CLASSES), generator) for model in MODELS}
    velocities = {model: {name: np.zeros_like(weight) for name, weight in weights[model].items()} for model in MODELS}
    best: dict[str, dict[str, Any]] = {model: {"accuracy": -1.0, "epoch": 0, "weights": {}} for model in MODELS}

    state = LoopState()
    saved = {"model": Arrays(weights), "velocities": Arrays(velocities), "best": Arrays(best)}
    # A loss that overflows ends the training below, so NumPy need not warn about it.
    with np.errstate(all="ignore"), Training(run, train_steps, state, data.name, **saved) as training:
        while state.step < train_steps:
            epoch = 1 + state.step // batches.steps_per_epoch
            x, labels = as_arrays(data.train.take(batches.indices(state.step)), data)
            state.step += 1

            # Forward, loss, backward, step
            values: dict[str, float] = {"epoch": epoch}
            for model, prefix in MODELS.items():
                p, caches, h = network_forward(weights[model], x)
                loss, d_p = softmax_cross_entropy(p, labels)
                training.check_finite(**{f"loss_of_the_{model}": loss})
                gradients = network_backward(weights[model], d_p, caches, h)
                momentum_step(weights[model], velocities[model], gradients, learning_rates[model], args.momentum)
                values[f"{prefix}loss"] = loss
                values[f"{prefix}accuracy"] = float((p.argmax(axis=1) == labels).mean())
            values["examples_per_second"] = training.per_second(args.batch_size)

            # Evaluate
            evaluated = state.step % batches.steps_per_epoch == 0
            if evaluated:
                for model, prefix in MODELS.items():
                    loss, accuracy = evaluate(weights[model], data.validation, data)
                    training.check_finite(**{f"validation_loss_of_the_{model}": loss})
                    values |= {f"{prefix}validation_loss": loss, f"{prefix}validation_accuracy": accuracy}
                    training.show(**{model: f"{accuracy:.3f}"})
                    if accuracy > best[model]["accuracy"]:
                        kept = {name: weight.copy() for name, weight in weights[model].items()}
                        best[model] = {"accuracy": accuracy, "epoch": epoch, "weights": kept}
            training.end_step(values, log=evaluated or state.step % print_every == 0, checkpoint=evaluated)

        # Result
        test_accuracy = {model: evaluate(best[model]["weights"], data.test, data)[1] for model in MODELS}
        result = {
            "images": data.name,
            "train_images": len(data.train.labels),
            "test_images": len(data.test.labels),
            "test_accuracy": test_accuracy["network"],
            "linear_test_accuracy": test_accuracy["linear"],
            "best_epoch": best["network"]["epoch"],
            "linear_best_epoch": best["linear"]["epoch"],
            "steps": state.step,
            "seconds": round(state.seconds, 2),
        }
        run.write_result(result)
        run.draw_curves("validation")
    describe(result, args.num_epochs, str(run))


def evaluate(weights: Weights, images: Images, data: ImageData) -> tuple[float, float]:
    """Return mean cross-entropy in nats and accuracy over some images."""
    loss, correct = 0.0, 0
    for indices in torch.arange(len(images.labels)).split(500):
        x, labels = as_arrays(images.take(indices), data)
        p, _, _ = network_forward(weights, x)
        loss += softmax_cross_entropy(p, labels)[0] * len(labels)
        correct += int((p.argmax(axis=1) == labels).sum())
    return loss / len(images.labels), correct / len(images.labels)


def as_arrays(images: Images, data: ImageData) -> tuple[ndarray, ndarray]:
    """Return normalised pixels, (N, 3, 32, 32) float32, and labels, (N,)."""
    return normalise(to_unit(images.pixels), data.mean, data.std).numpy(), images.labels.numpy()


def convert(value: Any, function: Callable[[Any], Any]) -> Any:
    """Return nested dictionaries with `function` applied to the arrays or tensors in them."""
    if isinstance(value, dict):
        return {key: convert(item, function) for key, item in value.items()}
    return function(value) if isinstance(value, (ndarray, Tensor)) else value


def describe(result: dict[str, Any], num_epochs: int, run: str) -> None:
    print(
        f"{result['images']}, {result['train_images']:,} training images: accuracy {result['test_accuracy']:.4f} on "
        f"{result['test_images']:,} test images, linear classifier {result['linear_test_accuracy']:.4f}; "
        f"{num_epochs} epochs, {result['seconds']:.1f} s; run folder {run}"
    )


def build_parser() -> ArgumentParser:
    parser = ArgumentParser(__doc__)
    add = parser.add_argument
    add("--dataset", choices=DATASETS, default="synthetic", help="synthetic: coloured shapes, drawn without a download")
    add("--num_train", type=positive_int, help="number of training images; default all but those for validation")
    add("--channels", type=positive_int, nargs="+", default=[16, 32, 64], help="filters of each block")
    add("--batch_size", type=positive_int, default=128, help="images in each step")
    add("--learning_rate", "--lr", type=positive_float, default=0.01, help="learning rate of the network")
    add("--linear_learning_rate", type=positive_float, default=0.001, help="learning rate of the linear classifier")
    add("--momentum", type=fraction, default=0.9, help="momentum of both models")
    add("--num_epochs", type=positive_int, default=10, help="passes over the training images")
    add("--seed", type=seed_number, default=0, help="seed of weights and batches")
    interval = "steps between two logged training batches; default a twentieth of all, at most 10"
    add("--print_every", type=positive_int, help=interval)
    add("--data_dir", type=non_empty, help="folder of the data sets; default $DATA_DIR, else data/")
    add_run_arguments(parser, "part4", device=False)
    return parser


def parse_arguments() -> Namespace:
    parser = build_parser()
    args = parser.parse_args()
    if len(args.channels) > math.log2(SIDE):
        parser.error(f"argument --channels: {len(args.channels)} blocks halve {SIDE} pixels to nothing; at most 5 fit")
    return args


if __name__ == "__main__":
    run_command(main)
