"""Train a convolutional network to classify CIFAR-10 (question 1.2a).

    python part4/train.py --model_name resnet18                                 150 epochs, the handout's
    python part4/train.py --model_name debug --dataset synthetic --epochs 3     a look at it, in seconds and without a download

SGD with momentum 0.9 and weight decay 5e-4. The learning rate is divided by 10 after 60 % and again after 90 % of the training:
of the handout's 150 epochs, after 90 and 135. Training images are shifted and mirrored at random. After every epoch the network
is validated, and the weights with the highest accuracy there are kept in best.pt; in the end they are tested. What a step draws
depends on the seed and the step alone, so a run can be resumed anywhere. `part4/experiments/robustness.py` tests on corrupted
images.

Several processes train together where torchrun starts them (`common/distributed.py`). They take the same steps as one, save for
batch normalisation on CPUs, which has statistics of each process's share (on GPUs, of all).
"""

import math
import signal
import sys
import time
from argparse import ArgumentDefaultsHelpFormatter, ArgumentTypeError, Namespace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from tqdm import tqdm

if not __package__:  # run as a script
    sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from common.distributed import (
    first_goes_first,
    num_processes,
    process_group,
    rank,
    share,
    total,
    total_gradients,
)
from common.errors import (
    ArgumentParser,
    CommandError,
    StopRequest,
    non_negative_int,
    positive_float,
    positive_int,
    run_command,
)
from common.machine import get_device, seeded_generator
from common.run_folder import RunFolder
from part4.cifar10 import DATASETS, Images, augment, load_images, normalise, to_unit
from part4.networks import ARCHITECTURES, STEMS, get_model

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


def main() -> None:
    args = parse_arguments()
    with process_group(args.batch_size, least=2):  # of one image there are no statistics
        train(args)


def train(args: Namespace) -> None:
    device = get_device(args.device)
    with first_goes_first():
        data = load_images(args.dataset, args.data_dir, args.num_train)
    mean, std = data.mean.to(device), data.std.to(device)
    batches = TrainingBatches(data.train.to(device), args.batch_size, args.seed)
    train_steps = args.epochs * batches.steps_per_epoch

    torch.manual_seed(args.seed)  # the weights
    model = get_model(args.model_name, stem=args.stem).to(device, memory_format=torch.channels_last)
    if num_processes() > 1 and device.type == "cuda":
        model = nn.SyncBatchNorm.convert_sync_batchnorm(model)  # there is none for CPUs
    fused = torch.__version__ >= "2.4"  # one pass over VGG's 129 million weights instead of three; before 2.4 not on the CPU
    optimizer = torch.optim.SGD(model.parameters(), lr=args.lr, momentum=MOMENTUM, weight_decay=WEIGHT_DECAY, fused=fused)
    step, seconds, highest_accuracy, best_epoch = 0, 0.0, -1.0, 0

    run = RunFolder(args, f"part4/{args.model_name}_{args.dataset}_seed{args.seed}", COLUMNS)
    if run.checkpoint:
        if run.checkpoint["images"] != data.checksum:
            raise CommandError(f"{run} was trained on other images: resume it with its own")
        model.load_state_dict(run.checkpoint["model"])
        optimizer.load_state_dict(run.checkpoint["optimizer"])
        step, seconds = run.checkpoint["step"], run.checkpoint["seconds"]
        highest_accuracy, best_epoch = run.checkpoint["highest_accuracy"], run.checkpoint["best_epoch"]

    def save() -> None:
        run.save_checkpoint(
            step,
            images=data.checksum,
            model=model.state_dict(),
            optimizer=optimizer.state_dict(),
            seconds=seconds,
            highest_accuracy=highest_accuracy,
            best_epoch=best_epoch,
        )

    began = time.perf_counter() - seconds
    progress = tqdm(total=train_steps, initial=step, desc=args.model_name, unit="step", disable=rank() > 0 or None, leave=False)
    with run, progress, StopRequest() as stop:
        while step < train_steps:
            started = time.perf_counter()
            learning_rate = args.lr * schedule(step, train_steps)
            for group in optimizer.param_groups:
                group["lr"] = learning_rate
            pixels, labels = batches.batch(step)  # of several processes, this one's share
            pixels = augment(pixels, seeded_generator(args.seed, f"augmentation {step}"))
            images = normalise(to_unit(pixels), mean, std)  # (B, 3, 32, 32)
            torch.manual_seed(seeded_generator(args.seed, f"dropout {step}").initial_seed())
            step += 1

            model.train()
            with torch.autocast(device.type, torch.bfloat16, enabled=args.precision == "bf16"):
                logits = model(images)  # (B, K)
            loss = F.cross_entropy(logits.float(), labels, reduction="sum") / args.batch_size
            optimizer.zero_grad()
            loss.backward()
            loss, stopping = total_gradients(model, loss, stop.signal_number)
            if not math.isfinite(loss.item()):
                raise run.diverged(step, f"the loss is {loss.item():g}")
            optimizer.step()

            end_of_epoch = step % batches.steps_per_epoch == 0
            if end_of_epoch or step % args.print_every == 0:
                values = {
                    "loss": loss.item(),
                    "accuracy": total((logits.argmax(dim=1) == labels).sum()).item() / args.batch_size,
                    "learning_rate": learning_rate,
                    "examples_per_second": args.batch_size / (time.perf_counter() - started),
                }
                progress.set_postfix({name: f"{values[name]:.3f}" for name in ("loss", "accuracy")})
            if end_of_epoch:
                validation_loss, validation_accuracy = evaluate(model, data.validation, mean, std)
                if not math.isfinite(validation_loss):
                    raise run.diverged(step, f"the validation loss is {validation_loss:g}")
                values |= {"validation_loss": validation_loss, "validation_accuracy": validation_accuracy}
                if validation_accuracy > highest_accuracy:
                    highest_accuracy, best_epoch = validation_accuracy, step // batches.steps_per_epoch
                    run.save_best(step, images=data.checksum, mean=data.mean, std=data.std, model=model.state_dict())
            seconds = time.perf_counter() - began
            if end_of_epoch or step % args.print_every == 0:
                run.log(step, **values, seconds=round(seconds, 3))
            if end_of_epoch or stopping:
                save()
            progress.update()
            if stopping:
                message = f"stopped at step {step:,}; go on with: {run.resume_command()}"
                raise CommandError(message, 128 + (stop.signal_number or signal.SIGTERM))

        model.load_state_dict(run.load_best()["model"])
        test_loss, test_accuracy = evaluate(model, data.test, mean, std)
        result = {
            "images": data.name,
            "test_accuracy": test_accuracy,
            "test_loss": test_loss,
            "validation_accuracy": highest_accuracy,
            "best_epoch": best_epoch,
            "epochs": args.epochs,
            "num_train": len(data.train.labels),
            "parameters": sum(parameter.numel() for parameter in model.parameters()),
            "seconds": round(seconds, 2),
        }
        run.write_result(result)
        if rank() > 0:
            return
        from common.figure import draw_curves  # matplotlib takes a second to import, needed only here

        draw_curves(run.read_metrics(), "validation", run.path / "curves")
    describe(args.model_name, result, len(data.test.labels), str(run))


@torch.no_grad()
def evaluate(model: nn.Module, images: Images, mean: Tensor, std: Tensor) -> tuple[float, float]:
    """Return mean cross-entropy in nats and accuracy, in float32 whatever was trained in."""
    model.eval()
    loss, correct = 0.0, 0
    own = Images(*map(share, images))
    for pixels, labels in zip(own.pixels.split(EVALUATION_BATCH), own.labels.split(EVALUATION_BATCH)):
        x = normalise(to_unit(pixels.to(mean.device)), mean, std).contiguous(memory_format=torch.channels_last)
        logits, labels = model(x), labels.to(mean.device)
        loss += F.cross_entropy(logits, labels, reduction="sum").item()
        correct += (logits.argmax(dim=1) == labels).sum().item()
    loss, correct = total(torch.tensor([loss, correct], dtype=torch.float64)).tolist()
    return loss / len(images.labels), correct / len(images.labels)


class TrainingBatches:
    """The training images in a new order each epoch; a step's batch depends on the step and the seed alone.

    What is left over at an epoch's end, less than a batch, is left out: batch normalisation has no use for a few images.
    """

    def __init__(self, images: Images, batch_size: int, seed: int):
        self.images, self.batch_size, self.seed = images, batch_size, seed
        self.steps_per_epoch = len(images.labels) // batch_size
        self._epoch, self._order = -1, torch.empty(0)
        if not self.steps_per_epoch:
            raise CommandError(f"--batch_size {batch_size} is more than the {len(images.labels):,} training images")

    def batch(self, step: int) -> Images:
        """Return the batch of a step, counted from 0."""
        epoch, number = divmod(step, self.steps_per_epoch)
        if epoch != self._epoch:
            order = torch.randperm(len(self.images.labels), generator=seeded_generator(self.seed, f"epoch {epoch}"))
            self._epoch, self._order = epoch, order.to(self.images.labels.device)
        return self.images.take(share(self._order[number * self.batch_size : (number + 1) * self.batch_size]))


def schedule(step: int, train_steps: int) -> float:
    """Return the factor of the learning rate at a step, counted from 0."""
    return DECAY ** sum(step * EPOCHS >= milestone * train_steps for milestone in MILESTONES)


def describe(model_name: str, result: dict[str, Any], num_test: int, run: str) -> None:
    print(
        f"{model_name}, {result['images']}: accuracy {result['test_accuracy']:.4f} on {num_test:,} test images, "
        f"{result['validation_accuracy']:.4f} in validation, at epoch {result['best_epoch']} of {result['epochs']}; "
        f"{result['seconds']:.1f} s; run folder {run}"
    )


def batch_size(text: str) -> int:
    value = int(text)
    if value < 2:
        raise ArgumentTypeError(f"must be at least 2, not {text}: batch normalisation compares images")
    return value


def parse_arguments() -> Namespace:
    parser = ArgumentParser(description=__doc__.split("\n")[0], formatter_class=ArgumentDefaultsHelpFormatter)
    add = parser.add_argument
    add("--model_name", choices=("debug", *ARCHITECTURES), default="debug", help="the network; debug is linear")
    add("--stem", choices=STEMS, default="imagenet", help="cifar: a start that keeps the resolution of small images")
    add("--dataset", choices=DATASETS, default="cifar10", help="synthetic: coloured shapes, without a download")
    add("--num_train", type=positive_int, help="train on so many images; default all that are not validated on")
    add("--lr", "--learning_rate", type=positive_float, default=0.01, help="of SGD, until it falls")
    add("--batch_size", type=batch_size, default=128, help="images a step")
    add("--epochs", type=positive_int, default=EPOCHS, help="times through the training images; sets when --lr falls")
    add("--precision", choices=("float32", "bf16"), default="float32", help="bf16: products in bfloat16")
    add("--seed", type=non_negative_int, default=42, help="of weights, order, augmentation and dropout")
    add("--print_every", type=positive_int, default=50, help="steps between two logged ones")
    add("--data_dir", help="folder of the data sets; default $DATA_DIR, else data/")
    add("--run_dir", "--summary_path", help="run folder; by default a new one under runs/part4/")
    add("--resume", action="store_true", help="continue the run in --run_dir, or the last one of this name")
    add("--device", default="auto", help="auto, cpu, cuda, cuda:1, ...")
    return parser.parse_args()


if __name__ == "__main__":
    run_command(main)
