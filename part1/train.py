"""Train one recurrent network to name the last digit of palindromes.

    python part1/train.py --model_type RNN --input_length 10
    python part1/train.py --model_type LSTM --input_length 999 --preset long_memory

The network reads `input_length` digits; with the target the palindrome has T = input_length + 1. Every `eval_every` steps it
is tried on 2,000 palindromes kept out of training. It has converged when it gets at least 99.5 % of them right three times
in a row. Else training ends after `train_steps`, or, with `patience`, after so many steps in which the lowest validation loss
did not fall by 1 %. The accuracy reported in the end is that on 10,000 further palindromes, which neither training nor
these rules have seen.

With `curriculum` training begins with palindromes of which so few digits are read. Whenever 99.5 % of the last ten batches are
right they get half as long again, up to `input_length`, and the learning rate is divided by the square root of 1.5. It goes on
falling at the full length: the longer the memory, the more a step of the same size disturbs it.
"""

import math
import sys
import time
from argparse import ArgumentDefaultsHelpFormatter, Namespace
from collections import deque
from pathlib import Path
from statistics import mean

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from tqdm import tqdm

if not __package__:  # run as a script
    sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
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
from part1.dataset import HeldOutPalindromes, draw_palindromes
from part1.lstm import LSTM
from part1.numpy_module import NumPyLSTM
from part1.optimizers import OPTIMIZERS
from part1.vanilla_rnn import VanillaRNN

MODELS = {"RNN": VanillaRNN, "LSTM": LSTM, "NumPyLSTM": NumPyLSTM}
NUM_VALIDATION, NUM_TEST = 2_000, 10_000
CONVERGED_ACCURACY, CONVERGED_TIMES = 0.995, 3
CURRICULUM_GROWTH = 1.5
# Defaults with which a thousand digits are no obstacle, each model with its own way to remember (see `reset_parameters`).
PRESETS = {
    "long_memory": {
        "RNN": {
            "input_dim": 10,
            "init": "bistable",
            "optimizer": "momentum",
            "learning_rate": 0.01,
            "max_norm": 1.0,
            "eval_every": 20,
        },
        "LSTM": {
            "input_dim": 10,
            "init": "chrono",
            "optimizer": "adam",
            "learning_rate": 3e-3,
            "max_norm": 1.0,
            "curriculum": 20,
            "eval_every": 50,
        },
    }
}
COLUMNS = (
    "length",
    "loss",
    "accuracy",
    "gradient_norm",
    "learning_rate",
    "examples_per_second",
    "validation_loss",
    "validation_accuracy",
)


def main() -> None:
    train(parse_arguments())


def train(args: Namespace) -> None:
    device = get_device(args.device)
    model = MODELS[args.model_type](
        args.input_length + 1,
        args.input_dim,
        args.num_hidden,
        args.num_classes,
        args.batch_size,
        device,
        args.init,
        seeded_generator(args.seed, "weights"),
    )
    optimizer = OPTIMIZERS[args.optimizer](model.parameters(), lr=args.learning_rate)
    held_out = HeldOutPalindromes(args.input_length + 1, NUM_VALIDATION, NUM_TEST, seeded_generator(args.seed, "held out"))
    generator = seeded_generator(args.seed, "training")
    length = min(args.curriculum or args.input_length, args.input_length) + 1  # of the training palindromes
    step, seconds, times_good, lowest_loss, lowest_step = 0, 0.0, 0, math.inf, 0
    last_accuracies: deque[float] = deque(maxlen=10)

    run = RunFolder(args, f"part1/{args.model_type}_length{args.input_length}_seed{args.seed}", COLUMNS)
    if run.checkpoint:
        model.load_state_dict(run.checkpoint["model"])
        optimizer.load_state_dict(run.checkpoint["optimizer"])
        generator.set_state(run.checkpoint["generator"])
        step, seconds, times_good, length = (run.checkpoint[key] for key in ("step", "seconds", "times_good", "length"))
        lowest_loss, lowest_step = run.checkpoint["lowest_loss"], run.checkpoint["lowest_step"]
        last_accuracies.extend(run.checkpoint["last_accuracies"])

    def save() -> None:
        run.save_checkpoint(
            step,
            model=model.state_dict(),
            optimizer=optimizer.state_dict(),
            generator=generator.get_state(),
            seconds=seconds,
            times_good=times_good,
            length=length,
            lowest_loss=lowest_loss,
            lowest_step=lowest_step,
            last_accuracies=list(last_accuracies),
        )

    began = time.perf_counter() - seconds
    progress = tqdm(total=args.train_steps, initial=step, desc=args.model_type, unit="step", disable=None, leave=False)
    with run, progress, StopRequest() as stop:
        while step < args.train_steps and times_good < CONVERGED_TIMES and step - lowest_step < (args.patience or math.inf):
            started = time.perf_counter()
            step += 1

            if length == args.input_length + 1:
                palindromes = held_out.draw_others(args.batch_size, generator)
            else:  # of the curriculum: shorter ones, none of which is held out
                palindromes = draw_palindromes(args.batch_size, length, generator)
            palindromes = palindromes.to(device)  # (B, T)
            x, target = palindromes[:, :-1], palindromes[:, -1]
            logits = model(x)  # (B, K)
            loss = F.cross_entropy(logits, target)
            optimizer.zero_grad()
            loss.backward()
            # What happens here, and why? All gradients are scaled by one factor, so that their joint norm is at most
            # max_norm; a smaller one stays as it is. Backpropagation through time multiplies T Jacobians, so that the
            # gradient can grow exponentially with T: without the limit a single such step would throw the weights far
            # away. The direction is kept. Vanishing gradients, the other half of the problem, are not helped by it.
            gradient_norm = nn.utils.clip_grad_norm_(model.parameters(), max_norm=args.max_norm)  # the norm before clipping
            if not (math.isfinite(loss.item()) and math.isfinite(gradient_norm.item())):
                raise run.diverged(step, f"the loss is {loss.item():g}, the gradient's norm {gradient_norm.item():g}")
            optimizer.step()

            accuracy = (logits.argmax(dim=1) == target).float().mean().item()
            if args.curriculum and len(last_accuracies) == 10 and mean(last_accuracies) >= CONVERGED_ACCURACY:
                length = min(int(length * CURRICULUM_GROWTH), args.input_length + 1)
                optimizer.param_groups[0]["lr"] /= CURRICULUM_GROWTH**0.5
                last_accuracies.clear()
            last_accuracies.append(accuracy)
            elapsed = time.perf_counter() - started
            seconds = time.perf_counter() - began
            values = {
                "length": palindromes.shape[1],
                "loss": loss.item(),
                "accuracy": accuracy,
                "gradient_norm": gradient_norm.item(),
                "learning_rate": optimizer.param_groups[0]["lr"],
                "examples_per_second": args.batch_size / elapsed,
            }
            evaluated = step % args.eval_every == 0 or step == args.train_steps
            if evaluated:
                validation_loss, validation_accuracy = evaluate(model, held_out.validation.to(device))
                if not math.isfinite(validation_loss):
                    raise run.diverged(step, f"the validation loss is {validation_loss:g}")
                times_good = times_good + 1 if validation_accuracy >= CONVERGED_ACCURACY else 0
                if validation_loss < 0.99 * lowest_loss:
                    lowest_loss, lowest_step = validation_loss, step
                values |= {"validation_loss": validation_loss, "validation_accuracy": validation_accuracy}
                progress.set_postfix(loss=f"{loss.item():.3f}", validation_accuracy=f"{validation_accuracy:.3f}")
            if evaluated or step % args.print_every == 0:
                run.log(step, **values)
            if evaluated or stop.signal_number:
                save()
            progress.update()
            if stop.signal_number:
                message = f"stopped at step {step:,}; go on with: {run.resume_command()}"
                raise CommandError(message, 128 + stop.signal_number)

        _, test_accuracy = evaluate(model, held_out.test.to(device))
        run.write_result(
            {
                "test_accuracy": test_accuracy,
                "last_10_batches_accuracy": mean(last_accuracies),
                "converged": times_good == CONVERGED_TIMES,
                "steps": step,
                "seconds": round(seconds, 2),
                "test_palindromes": NUM_TEST,
                "test_is_disjoint_from_training": held_out.exclusive,
            }
        )
        from common.figure import draw_curves  # matplotlib takes a second to import, needed only here

        draw_curves(run.read_metrics(), "validation", run.path / "curves")
    print(
        f"{args.model_type}, palindromes of {args.input_length + 1} digits: accuracy {test_accuracy:.4f} on {NUM_TEST:,} "
        f"{'unseen' if held_out.exclusive else 'fresh'} ones ({mean(last_accuracies):.4f} on the last "
        f"{len(last_accuracies)} training batches) after {step:,} steps, "
        f"{'converged' if times_good == CONVERGED_TIMES else 'not converged'}, {seconds:.1f} s; run folder {run}"
    )


@torch.no_grad()
def evaluate(model: nn.Module, palindromes: Tensor) -> tuple[float, float]:
    """Return mean cross-entropy in nats and accuracy of the last digit over (num, T) palindromes."""
    loss, correct = 0.0, 0
    for batch in palindromes.split(1_000):
        logits, target = model(batch[:, :-1]), batch[:, -1]
        loss += F.cross_entropy(logits, target, reduction="sum").item()
        correct += (logits.argmax(dim=1) == target).sum().item()
    return loss / len(palindromes), correct / len(palindromes)


def parse_arguments() -> Namespace:
    parser = ArgumentParser(description=__doc__.split("\n")[0], formatter_class=ArgumentDefaultsHelpFormatter)
    add = parser.add_argument
    add("--model_type", choices=MODELS, default="RNN", help="the recurrence")
    add("--input_length", type=positive_int, default=10, help="digits read; the palindrome has one more")
    add("--input_dim", type=int, choices=(1, 10), default=1, help="1: digits as numbers, 10: one-hot")
    add("--num_classes", type=positive_int, default=10, help="number of logits, at least the 10 digits")
    add("--num_hidden", type=positive_int, default=128, help="hidden units")
    add("--batch_size", type=positive_int, default=128, help="palindromes a step")
    add("--learning_rate", "--lr", type=positive_float, default=1e-3, help="of the optimizer")
    add("--train_steps", type=positive_int, default=10_000, help="at most this many steps")
    add("--patience", type=non_negative_int, default=0, help="give up after this many steps without progress; 0: never")
    add("--curriculum", type=non_negative_int, default=0, help="digits read at first, growing to --input_length; 0: all")
    add("--max_norm", "--clip_grad_norm", type=positive_float, default=10.0, help="limit of the gradient's norm")
    add("--optimizer", choices=OPTIMIZERS, default="rmsprop", help="momentum is SGD with momentum 0.9")
    add("--init", default="default", help="default, orthogonal; for the RNN also identity, bistable; for the LSTMs chrono")
    add("--preset", choices=PRESETS, help="other defaults: long_memory remembers a digit for a thousand steps")
    add("--seed", type=non_negative_int, default=0, help="of weights and palindromes")
    add("--eval_every", type=positive_int, default=100, help="steps between two evaluations, each with a checkpoint")
    add("--print_every", type=positive_int, default=10, help="steps between two logged training batches")
    add("--run_dir", "--summary_path", help="run folder; by default a new one under runs/part1/")
    add("--resume", action="store_true", help="continue the run in --run_dir, or the last one of this name")
    add("--device", default="auto", help="auto, cpu, cuda, cuda:1, ...")
    chosen, _ = parser.parse_known_args()
    if chosen.preset:
        parser.set_defaults(**PRESETS[chosen.preset][chosen.model_type.removeprefix("NumPy")])
    args = parser.parse_args()
    if args.num_classes < 10:
        parser.error("argument --num_classes: the ten digits need at least 10 classes")
    inits = MODELS[args.model_type].INITS
    if args.init not in inits:
        parser.error(f"argument --init: {args.model_type} knows {', '.join(inits)}, not {args.init}")
    return args


if __name__ == "__main__":
    run_command(main)
