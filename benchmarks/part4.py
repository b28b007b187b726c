"""Speed of part 4 beside what a user would take instead; every ratio comes from one run on one machine.

    python -m benchmarks.part4

* The NumPy layers and their backward passes on a batch of CIFAR's size, against PyTorch's, on one thread each; and the
  loops that follow the equations literally, on one image.
* Training steps: the networks as torchvision builds them and as `part4/train.py` runs them. What we change: images with
  the channels last, products in bfloat16, and in VGG one copy of an image's features instead of 49.
* Training images shifted and mirrored: a batch at once, against one image after the other.

Medians over interleaved repeats. Prints a table and writes report/results/benchmark_part4.csv.
"""

import os
from collections.abc import Callable
from types import ModuleType

os.environ["OPENBLAS_NUM_THREADS"] = "1"  # NumPy reads it when it is imported
import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from benchmarks.timing import interleaved_medians, report
from common.command import ArgumentParser, positive_int, run_command
from common.experiment import add_allow_dirty, require_clean_tree, write_results
from common.paths import short_path
from part4 import layers_loops, layers_numpy
from part4.cifar10 import PADDING, augment
from part4.networks import ARCHITECTURES, VGG, get_model, products_in

BATCH, CHANNELS, FILTERS, SIDE = 128, 16, 16, 32


def main() -> None:
    parser = ArgumentParser(__doc__)
    parser.add_argument("--repeats", type=positive_int, default=15, help="repeats of a call; slow calls take a third")
    add_allow_dirty(parser)
    args = parser.parse_args()
    require_clean_tree(args)
    repeats = args.repeats
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    rows = layers(BATCH, {"PyTorch": torch_layers, "ours": ours}, repeats)
    libraries = {"PyTorch": torch_layers, "ours": ours, "ours, as the equation reads": loops}
    rows += layers(1, libraries, max(1, repeats // 3))
    rows += augmentation(repeats)
    torch.set_num_threads(threads)
    rows += training_steps(max(1, repeats // 3))
    print(f"written to {short_path(write_results('benchmark_part4', rows, seeds=[0]))}")


def layers(batch: int, libraries: dict[str, Callable], repeats: int) -> list[dict]:
    """Time a convolution with 3 x 3 filters, 2 x 2 pooling and their gradients, in float32."""
    generator = np.random.default_rng(0)
    X = generator.standard_normal((batch, CHANNELS, SIDE + 2, SIDE + 2), np.float32)  # padded
    W = generator.standard_normal((FILTERS, CHANNELS, 3, 3), np.float32)
    dL_dY = generator.standard_normal((batch, FILTERS, SIDE, SIDE), np.float32)
    calls = {name: library(X, W, dL_dY) for name, library in libraries.items()}
    rows = []
    for function in calls["PyTorch"]:
        variants = {name: functions[function] for name, functions in calls.items()}
        benchmark = f"{function}, {batch} x {CHANNELS} x {SIDE} x {SIDE}"
        rows += report(benchmark, "ms", interleaved_medians(variants, repeats), "PyTorch")
    return rows


def torch_layers(*arrays: np.ndarray) -> dict[str, Callable[[], None]]:
    X, W, dL_dY = map(torch.from_numpy, arrays)
    to_pool = dL_dY.clone().requires_grad_()
    d_pooled = dL_dY[:, :, ::2, ::2].contiguous()
    pooled = F.max_pool2d(to_pool, 2)
    return {
        "convolution": lambda: F.conv2d(X, W),
        "gradient of the filters": lambda: torch.nn.grad.conv2d_weight(X, W.shape, dL_dY),
        "gradient of the input": lambda: torch.nn.grad.conv2d_input(X.shape, W, dL_dY),
        "pooling": lambda: F.max_pool2d(to_pool, 2),
        "gradient through pooling": lambda: torch.autograd.grad(pooled, to_pool, d_pooled, retain_graph=True),
    }


def numpy_layers(module: ModuleType, X: np.ndarray, W: np.ndarray, dL_dY: np.ndarray) -> dict[str, Callable[[], None]]:
    d_pooled = dL_dY[:, :, ::2, ::2].copy()
    return {
        "convolution": lambda: module.convolution2D(X, W, 1, 0),
        "gradient of the filters": lambda: module.convolution2D_backward_filter(dL_dY, X, W, 1),
        "gradient of the input": lambda: module.convolution2D_backward_input(dL_dY, X, W, 1),
        "pooling": lambda: module.pool_forward(dL_dY, 2, 2),
        "gradient through pooling": lambda: module.pool_back(d_pooled, dL_dY, 2, 2),
    }


def ours(*arrays: np.ndarray) -> dict[str, Callable[[], None]]:
    return numpy_layers(layers_numpy, *arrays)


def loops(*arrays: np.ndarray) -> dict[str, Callable[[], None]]:
    return numpy_layers(layers_loops, *arrays)


def training_steps(repeats: int) -> list[dict]:
    rows = []
    for name in ARCHITECTURES:
        variants = {
            "as in torchvision": training_step(name, plain=True),
            "as in torchvision, bf16": training_step(name, "bf16", plain=True),
            "ours, float32": training_step(name),
            "ours, bf16": training_step(name, "bf16"),
        }
        milliseconds = interleaved_medians(variants, repeats)
        rows += report(f"{name}, step of {BATCH} images", "ms", milliseconds, "as in torchvision")
    return rows


def training_step(name: str, precision: str = "float32", plain: bool = False) -> Callable[[], None]:
    """Return a function that takes one step of SGD.

    Args:
        plain: as torchvision does it: contiguous images, VGG with all 49 copies of the features, SGD not fused.
    """
    torch.manual_seed(0)
    memory_format = torch.contiguous_format if plain else torch.channels_last
    model = get_model(name).to(memory_format=memory_format)
    forward = plain_vgg(model) if plain and isinstance(model, VGG) else model
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01, momentum=0.9, weight_decay=5e-4, fused=not plain)
    images = torch.randn(BATCH, 3, SIDE, SIDE).to(memory_format=memory_format)
    labels = torch.randint(10, (BATCH,))

    def step() -> None:
        with torch.autocast("cpu", enabled=precision == "bf16") if plain else products_in(precision, images.device):
            logits = forward(images)
        optimizer.zero_grad()
        F.cross_entropy(logits.float(), labels).backward()
        optimizer.step()

    return step


def plain_vgg(model: VGG) -> nn.Module:
    return nn.Sequential(model.features, model.avgpool, nn.Flatten(), model.classifier)


def augmentation(repeats: int) -> list[dict]:
    generator = torch.Generator().manual_seed(0)
    pixels = torch.randint(256, (BATCH, 3, SIDE, SIDE), generator=generator).byte()
    variants = {
        "one after the other": lambda: torch.stack([augment_one(image, generator) for image in pixels]),
        "ours, the batch at once": lambda: augment(pixels, generator),
    }
    milliseconds = interleaved_medians(variants, repeats)
    return report(f"{BATCH} images shifted and mirrored", "ms", milliseconds, "one after the other")


def augment_one(image: Tensor, generator: torch.Generator) -> Tensor:
    y, x = torch.randint(2 * PADDING + 1, (2,), generator=generator).tolist()
    image = F.pad(image, (PADDING,) * 4)[:, y : y + SIDE, x : x + SIDE]
    return image.flip(2) if torch.rand((), generator=generator) < 0.5 else image


if __name__ == "__main__":
    run_command(main)
