"""Train a small convolutional network written in NumPy, and beside it a linear classifier on the same images.

    python part4/train_numpy.py                          drawn shapes, without a download
    python part4/train_numpy.py --dataset cifar10

It shows that the gradients of question 1.1 serve. Both models see the same batches, in the same order, and are trained by SGD
with momentum, each at its own learning rate: the linear classifier's default is the best of 0.0001, 0.0003, 0.001 and 0.003 on
CIFAR-10's validation images. After every epoch both are tried on the validation images. What is tested in the end are the
weights of the epoch with the highest validation accuracy.
"""

import math
import sys
import time
from argparse import ArgumentDefaultsHelpFormatter, Namespace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy import ndarray
from torch import Tensor
from tqdm import tqdm

if not __package__:  # run as a script
    sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from common.errors import (
    ArgumentParser,
    CommandError,
    StopRequest,
    fraction,
    non_negative_int,
    positive_float,
    positive_int,
    run_command,
)
from common.run_folder import RunFolder
from part4.cifar10 import CLASSES, DATASETS, SIDE, ImageData, Images, load_images, normalise, to_unit
from part4.numpy_network import (
    Weights,
    draw_weights,
    momentum_step,
    network_backward,
    network_forward,
    softmax_cross_entropy,
)

MODELS = ("network", "linear")
PREFIX = {"network": "", "linear": "linear_"}  # of the columns
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


def main() -> None:
    train(parse_arguments())


def train(args: Namespace) -> None:
    data = load_images(args.dataset, args.data_dir, args.num_train)
    steps_per_epoch = len(data.train.labels) // args.batch_size  # the rest of an epoch, less than a batch, is left out
    if not steps_per_epoch:
        raise CommandError(f"--batch_size {args.batch_size} is more than the {len(data.train.labels):,} training images")
    train_steps = args.num_epochs * steps_per_epoch
    learning_rates = {"network": args.learning_rate, "linear": args.linear_learning_rate}

    generator = np.random.default_rng([args.seed, 0])
    weights = {
        "network": draw_weights(args.channels, SIDE, len(CLASSES), generator),
        "linear": draw_weights([], SIDE, len(CLASSES), generator),
    }
    velocities = {model: {name: np.zeros_like(weight) for name, weight in weights[model].items()} for model in MODELS}
    best = {model: {"accuracy": -1.0, "epoch": 0, "weights": {}} for model in MODELS}
    step, seconds = 0, 0.0

    run = RunFolder(args, f"part4/numpy_{args.dataset}_seed{args.seed}", COLUMNS)
    if run.checkpoint:
        if run.checkpoint["images_checksum"] != data.checksum:
            raise CommandError(f"{run} was trained on other images: resume it with its own")
        step, seconds = run.checkpoint["step"], run.checkpoint["seconds"]
        weights, velocities, best = (convert(run.checkpoint[key], Tensor.numpy) for key in ("model", "velocities", "best"))

    def save() -> None:
        run.save_checkpoint(
            step,
            model=convert(weights, torch.from_numpy),
            velocities=convert(velocities, torch.from_numpy),
            best=convert(best, torch.from_numpy),
            images_checksum=data.checksum,
            seconds=seconds,
        )

    began = time.perf_counter() - seconds
    progress = tqdm(total=train_steps, initial=step, desc=data.name, unit="step", disable=None, leave=False)
    order, order_of = np.zeros(0, np.int64), None
    # Numbers that overflow are met below, where the loss is seen to be none: no need for NumPy's warnings.
    with run, progress, StopRequest() as stop, np.errstate(all="ignore"):
        while step < train_steps:
            started = time.perf_counter()
            epoch, number = divmod(step, steps_per_epoch)
            if order_of != epoch:  # drawn from the epoch's number, so that a resumed run draws the same
                order = np.random.default_rng([args.seed, 1, epoch]).permutation(len(data.train.labels))
                order_of = epoch
            batch = data.train.take(torch.from_numpy(order[number * args.batch_size :][: args.batch_size]))
            x, labels = as_arrays(batch, data)
            step += 1

            values: dict[str, float] = {"epoch": epoch + 1}
            for model in MODELS:
                p, caches, h = network_forward(weights[model], x)
                loss, d_p = softmax_cross_entropy(p, labels)
                if not math.isfinite(loss):
                    raise run.diverged(step, f"the loss of the {model} is {loss:g}")
                gradients = network_backward(weights[model], d_p, caches, h)
                momentum_step(weights[model], velocities[model], gradients, learning_rates[model], args.momentum)
                values[PREFIX[model] + "loss"] = loss
                values[PREFIX[model] + "accuracy"] = float((p.argmax(axis=1) == labels).mean())
            values["examples_per_second"] = args.batch_size / (time.perf_counter() - started)

            evaluated = step % steps_per_epoch == 0
            if evaluated:
                for model in MODELS:
                    loss, accuracy = evaluate(weights[model], data.validation, data)
                    if not math.isfinite(loss):
                        raise run.diverged(step, f"the validation loss of the {model} is {loss:g}")
                    values |= {PREFIX[model] + "validation_loss": loss, PREFIX[model] + "validation_accuracy": accuracy}
                    if accuracy > best[model]["accuracy"]:
                        kept = {name: weight.copy() for name, weight in weights[model].items()}
                        best[model] = {"accuracy": accuracy, "epoch": epoch + 1, "weights": kept}
                progress.set_postfix({model: f"{values[PREFIX[model] + 'validation_accuracy']:.3f}" for model in MODELS})
            seconds = time.perf_counter() - began
            if evaluated or step % args.print_every == 0:
                run.log(step, **values)
            if evaluated or stop.signal_number:
                save()
            progress.update()
            if stop.signal_number:
                message = f"stopped at step {step:,}; go on with: {run.resume_command()}"
                raise CommandError(message, 128 + stop.signal_number)

        tested = {model: evaluate(best[model]["weights"], data.test, data)[1] for model in MODELS}
        run.write_result(
            {
                "images": data.name,
                "train_images": len(data.train.labels),
                "test_images": len(data.test.labels),
                "test_accuracy": tested["network"],
                "linear_test_accuracy": tested["linear"],
                "best_epoch": best["network"]["epoch"],
                "linear_best_epoch": best["linear"]["epoch"],
                "steps": step,
                "seconds": round(seconds, 2),
            }
        )
        from common.figure import draw_curves  # matplotlib takes a second to import, needed only here

        draw_curves(run.read_metrics(), "validation", run.path / "curves")
    print(
        f"{data.name}, {len(data.train.labels):,} training images: accuracy {tested['network']:.4f} on "
        f"{len(data.test.labels):,} test images, linear classifier {tested['linear']:.4f}; "
        f"{args.num_epochs} epochs, {seconds:.1f} s; run folder {run}"
    )


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


def convert(state: Any, function: Any) -> Any:
    """Return nested dictionaries with `function` applied to their arrays: a checkpoint holds tensors."""
    if isinstance(state, dict):
        return {key: convert(value, function) for key, value in state.items()}
    return function(state) if isinstance(state, (ndarray, Tensor)) else state


def parse_arguments() -> Namespace:
    parser = ArgumentParser(description=__doc__.split("\n")[0], formatter_class=ArgumentDefaultsHelpFormatter)
    add = parser.add_argument
    add("--dataset", choices=DATASETS, default="synthetic", help="the images")
    add("--num_train", type=positive_int, help="train on so many of the training images only; default all")
    add("--channels", type=positive_int, nargs="+", default=[16, 32, 64], help="filters of each block")
    add("--batch_size", type=positive_int, default=128, help="images a step")
    add("--learning_rate", "--lr", type=positive_float, default=0.01, help="of the network")
    add("--linear_learning_rate", type=positive_float, default=0.001, help="of the linear classifier")
    add("--momentum", type=fraction, default=0.9, help="of both")
    add("--num_epochs", type=positive_int, default=10, help="passes over the training images")
    add("--seed", type=non_negative_int, default=0, help="of weights and batches")
    add("--print_every", type=positive_int, default=10, help="steps between two logged training batches")
    add("--data_dir", help="folder of the data sets; default $DATA_DIR, else data/")
    add("--run_dir", "--summary_path", help="run folder; by default a new one under runs/part4/")
    add("--resume", action="store_true", help="continue the run in --run_dir, or the last one of this name")
    args = parser.parse_args()
    if len(args.channels) > math.log2(SIDE):
        parser.error(f"argument --channels: {len(args.channels)} blocks halve {SIDE} pixels to nothing; at most 5 fit")
    return args


if __name__ == "__main__":
    run_command(main)
