"""Train a convolutional network to classify CIFAR-10 (question 1.2a).

    python part4/train.py --model_name resnet18                                 150 epochs, as in the handout
    python part4/train.py --model_name debug --dataset synthetic --epochs 3     a few seconds, and no download

Training is by SGD with momentum 0.9 and weight decay 5e-4. The learning rate is divided by 10 after 60 % and again
after 90 % of the training: of the handout's 150 epochs, after 90 and 135. Training images are shifted and mirrored at
random. After every epoch the network is validated, and the weights with the highest accuracy are kept in best.pt; these
are tested in the end. The training loss is that of one batch, so changed, and with dropout in networks that have it; it
can lie above the validation loss. What a step draws depends on the seed and the step alone, so a run can be resumed
anywhere. `part4/experiments/robustness.py` tests on corrupted images.

Several processes train together where torchrun starts them (`common/distributed.py`). They take the same steps as one
process, except for batch normalisation on CPUs, which has statistics of each process's shard (on GPUs, of all shards).
"""

import sys
from argparse import ArgumentTypeError, Namespace
from dataclasses import dataclass
from pathlib import Path
from typing import Any

if not __package__:  # run as a script
    sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
    from common.interrupts import exit_on_interrupt

    exit_on_interrupt()  # while the imports below take their time
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.optim import SGD
from torch.optim.lr_scheduler import LambdaLR

from common.command import (
    ArgumentParser,
    add_run_arguments,
    non_empty,
    positive_float,
    positive_int,
    run_command,
    seed_number,
)
from common.distributed import (
    all_reduce,
    all_reduce_gradients,
    process_group,
    rank_zero_first,
    rank_zero_only,
    shard,
    world_size,
)
from common.errors import CommandError
from common.machine import get_device, seeded_generator
from common.run_folder import RunFolder
from common.training import LoopState, Training, TrainingBatches, default_interval
from part4.cifar10 import DATASETS, augment, load_images, normalise, to_unit
from part4.networks import ARCHITECTURES, PRECISIONS, STEMS, get_model, products_in
from part4.sources import Images

MOMENTUM, WEIGHT_DECAY = 0.9, 5e-4
EPOCHS, MILESTONES, DECAY = 150, (90, 135), 0.1  # of the handout's schedule
EVALUATION_BATCH = 500
COLUMNS = (
    "loss",
    "accuracy",
    "learning_rate",
    "examples_per_second",
    "seconds",
    "validation_loss",
    "validation_accuracy",
)


@dataclass
class State(LoopState):
    """The best epoch so far."""

    highest_accuracy: float = -1.0  # in validation
    best_epoch: int = 0


def main() -> None:
    args = parse_arguments()
    with process_group(args.batch_size, shard_size=2):  # batch normalisation needs more than one image
        train(args)


def train(args: Namespace) -> None:
    # Data
    device = get_device(args.device)
    with rank_zero_first():
        data = load_images(args.dataset, args.data_dir, args.num_train)
    train_images, mean, std = data.train.to(device), data.mean.to(device), data.std.to(device)
    batches = TrainingBatches(len(data.train.labels), args.batch_size, args.seed, drop_last=True)
    train_steps = args.epochs * batches.steps_per_epoch
    args.print_every = args.print_every or default_interval(train_steps, 50)

    # Model and optimizer
    run = RunFolder(args, "part4/train.py", f"{args.model_name}_{args.dataset}_seed{args.seed}", COLUMNS)
    if run.keep("images", data.checksum) != data.checksum:
        raise CommandError(f"{run} was trained on other images: resume it with its own")
    torch.manual_seed(args.seed)  # the weights
    model = get_model(args.model_name, stem=args.stem)
    model = model.to(device, memory_format=torch.channels_last)  # type: ignore[call-overload]
    if world_size() > 1 and device.type == "cuda":
        model = nn.SyncBatchNorm.convert_sync_batchnorm(model)  # there is none for CPUs
    optimizer = SGD(model.parameters(), args.lr, MOMENTUM, weight_decay=WEIGHT_DECAY, fused=True)
    scheduler = LambdaLR(optimizer, lambda step: schedule(step, train_steps))
    state, saved = State(), {"model": model, "optimizer": optimizer, "scheduler": scheduler}
    with Training(run, train_steps, state, args.model_name, **saved) as training:
        while state.step < train_steps:
            pixels, labels = train_images.take(batches.indices(state.step).to(device))  # of several processes, a shard
            pixels = augment(pixels, seeded_generator(args.seed, f"augmentation {state.step}"))
            images = normalise(to_unit(pixels), mean, std)  # (B, 3, 32, 32)
            torch.manual_seed(seeded_generator(args.seed, f"dropout {state.step}").initial_seed())
            state.step += 1

            # Forward, loss, backward, step
            model.train()
            with products_in(args.precision, device):
                logits = model(images)  # (B, K)
            loss = F.cross_entropy(logits.float(), labels, reduction="sum") / args.batch_size
            optimizer.zero_grad()
            loss.backward()
            loss, signal_number = all_reduce_gradients(model, loss, training.signal_number)
            training.check_finite(loss=loss.item())
            optimizer.step()

            # Evaluate
            end_of_epoch = state.step % batches.steps_per_epoch == 0
            logged, values = end_of_epoch or state.step % args.print_every == 0, {}
            if logged:
                values = {
                    "loss": loss.item(),
                    "accuracy": all_reduce((logits.argmax(dim=1) == labels).sum()).item() / args.batch_size,
                    "learning_rate": scheduler.get_last_lr()[0],
                    "examples_per_second": training.per_second(args.batch_size),
                }
                training.show(loss=f"{values['loss']:.3f}", accuracy=f"{values['accuracy']:.3f}")
            if end_of_epoch:
                validation_loss, validation_accuracy = evaluate(model, data.validation, mean, std)
                training.check_finite(validation_loss=validation_loss)
                values |= {"validation_loss": validation_loss, "validation_accuracy": validation_accuracy}
                if validation_accuracy > state.highest_accuracy:
                    state.highest_accuracy = validation_accuracy
                    state.best_epoch = state.step // batches.steps_per_epoch
                    run.save_best(state.step, mean=data.mean, std=data.std, model=model.state_dict())
            scheduler.step()
            training.end_step(values, log=logged, checkpoint=end_of_epoch, signal_number=signal_number)

        # Result
        model.load_state_dict(run.load_best()["model"])
        test_loss, test_accuracy = evaluate(model, data.test, mean, std)
        result = {
            "images": data.name,
            "test_accuracy": test_accuracy,
            "test_loss": test_loss,
            "validation_accuracy": state.highest_accuracy,
            "best_epoch": state.best_epoch,
            "epochs": args.epochs,
            "num_train": len(data.train.labels),
            "parameters": sum(parameter.numel() for parameter in model.parameters()),
            "seconds": round(state.seconds, 2),
        }
        run.write_result(result)
        run.draw_curves("validation", noise="augmentation")
    describe(args.model_name, result, len(data.test.labels), str(run))


def schedule(step: int, train_steps: int) -> float:
    """Return the factor of the learning rate at a step, counted from 0."""
    return DECAY ** sum(step * EPOCHS >= milestone * train_steps for milestone in MILESTONES)


@torch.no_grad()
def evaluate(model: nn.Module, images: Images, mean: Tensor, std: Tensor) -> tuple[float, float]:
    """Return mean cross-entropy in nats and accuracy, in float32 whatever the precision of the training."""
    model.eval()
    loss, correct = 0.0, 0
    indices = shard(torch.arange(len(images.labels)))
    for batch in indices.split(EVALUATION_BATCH):
        pixels, labels = images.take(batch).to(mean.device)
        logits = model(normalise(to_unit(pixels), mean, std).contiguous(memory_format=torch.channels_last))
        loss += F.cross_entropy(logits, labels, reduction="sum").item()
        correct += (logits.argmax(dim=1) == labels).sum().item()
    loss, correct = all_reduce(torch.tensor([loss, correct], dtype=torch.float64)).tolist()
    return loss / len(images.labels), correct / len(images.labels)


@rank_zero_only
def describe(model_name: str, result: dict[str, Any], num_test: int, run: str) -> None:
    print(
        f"{model_name}, {result['images']}: accuracy {result['test_accuracy']:.4f} on {num_test:,} test images, "
        f"{result['validation_accuracy']:.4f} in validation, at epoch {result['best_epoch']} of {result['epochs']}; "
        f"{result['seconds']:.1f} s; run folder {run}"
    )


def batch_size(text: str) -> int:
    value = positive_int(text)
    if value < 2:
        raise ArgumentTypeError(f"must be at least 2, not {text}: batch normalisation needs more than one image")
    return value


def build_parser() -> ArgumentParser:
    parser = ArgumentParser(__doc__)
    add = parser.add_argument
    add("--model_name", choices=("debug", *ARCHITECTURES), default="debug", help="the network; debug is linear")
    add("--stem", choices=STEMS, default="imagenet", help="cifar: first layers that keep the size of small images")
    add("--dataset", choices=DATASETS, default="cifar10", help="synthetic: coloured shapes, drawn without a download")
    add("--num_train", type=positive_int, help="number of training images; default all but those for validation")
    add("--lr", "--learning_rate", type=positive_float, default=0.01, help="learning rate of SGD at first")
    add("--batch_size", type=batch_size, default=128, help="images in each step")
    add("--epochs", type=positive_int, default=EPOCHS, help="passes over the images; --lr falls after 3/5 and 9/10")
    add(
        "--precision",
        choices=PRECISIONS,
        default="float32",
        help="bf16: convolutions and products in bfloat16, on a CPU only where it has instructions for that",
    )
    add("--seed", type=seed_number, default=42, help="seed of weights, order, augmentation and dropout")
    interval = "steps between two logged training batches; default a twentieth of all, at most 50"
    add("--print_every", type=positive_int, help=interval)
    add("--data_dir", type=non_empty, help="folder of the data sets; default $DATA_DIR, else data/")
    add_run_arguments(parser, "part4")
    return parser


def parse_arguments() -> Namespace:
    return build_parser().parse_args()


if __name__ == "__main__":
    run_command(main)
