"""Train one recurrent network to name the last digit of palindromes, or the class of UvA 2020's sequences.

    python part1/train.py --model_type RNN --input_length 10
    python part1/train.py --model_type LSTM --input_length 999 --preset long_memory
    python part1/train.py --dataset bss --model_type GRU --input_length 6

The network reads `input_length` digits; with the target the palindrome has T = input_length + 1. For UvA 2020's data
sets `input_length` is their length T, and their symbols are embedded. Every `eval_every` steps the network is evaluated
on 2,000 sequences kept out of training. It has converged when it gets at least `converged_accuracy` of them right, by
default 99.5 %, three times in a row. Otherwise training ends after `train_steps`, or, with `patience`, after that many
steps in which the lowest validation loss did not fall by 1 %. The accuracy reported at the end is that on 10,000
further sequences, which neither training nor these rules have seen.

With `curriculum`, training begins with sequences of that `input_length`. Whenever 99.5 % of the last ten batches are
right, they become half as long again, up to `input_length`, and the learning rate is divided by the square root of 1.5.
It goes on falling at the full length: the longer the memory, the more a step of the same size disturbs it.
"""

import math
import sys
from argparse import Namespace
from dataclasses import dataclass, field
from pathlib import Path
from statistics import mean
from typing import Any

if not __package__:  # run as a script
    sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
    from common.interrupts import exit_on_interrupt

    exit_on_interrupt()  # while the imports below take their time
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from common.command import (
    ArgumentParser,
    add_run_arguments,
    non_negative_int,
    positive_float,
    positive_int,
    run_command,
    seed_number,
)
from common.machine import get_device, seeded_generator
from common.optimizers import OPTIMIZERS
from common.run_folder import RunFolder
from common.training import LoopState, Training, default_interval
from part1.bi_lstm import BidirectionalLSTM
from part1.classifier import SequenceClassifier
from part1.dataset import BatchDataset, HeldOutSequences, PalindromeDataset
from part1.datasets import BaumSweetSequenceDataset, BinaryPalindromeDataset, RandomCombinationsDataset
from part1.gru import GRU
from part1.lstm import LSTM
from part1.numpy_module import NumPyLSTM
from part1.peep_lstm import PeepholeLSTM
from part1.vanilla_rnn import VanillaRNN
from recurrence.choice import RECURRENCES, choose_recurrence

MODELS: dict[str, type[SequenceClassifier]] = {
    "RNN": VanillaRNN,
    "LSTM": LSTM,
    "GRU": GRU,
    "biLSTM": BidirectionalLSTM,
    "peepLSTM": PeepholeLSTM,
    "NumPyLSTM": NumPyLSTM,
}
DATASETS: dict[str, Any] = {
    "palindromes": PalindromeDataset,
    "randomcomb": RandomCombinationsDataset,
    "bss": BaumSweetSequenceDataset,
    "bipalindrome": BinaryPalindromeDataset,
}
NUM_VALIDATION, NUM_TEST = 2_000, 10_000
CONVERGED_TIMES = 3
CURRICULUM_GROWTH, NUM_LAST, MASTERED_ACCURACY = 1.5, 10, 0.995
EVAL_EVERY = 100  # steps, at most
# Defaults of UvA 2020's train.py, for its data sets
UVA_2020 = {
    "input_length": 6,
    "num_hidden": 256,
    "batch_size": 256,
    "train_steps": 3_000,
    "optimizer": "adam",
    "init": "kaiming",
}
# Defaults with which a thousand digits are no obstacle, each model with its own way to remember (see
# `reset_parameters`).
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


@dataclass
class State(LoopState):
    """What the rules above go by: how long the training sequences are, and how training has gone so far."""

    length: int = 0  # T of the training sequences
    last_accuracies: list[float] = field(default_factory=list)  # of at most 10 training batches, all of this length
    times_good: int = 0  # evaluations in a row with at least `converged_accuracy`
    lowest_loss: float = math.inf  # in validation; only a fall of at least 1 % lowers it
    lowest_step: int = 0

    @property
    def mastered(self) -> bool:
        return len(self.last_accuracies) == NUM_LAST and mean(self.last_accuracies) >= MASTERED_ACCURACY

    @property
    def converged(self) -> bool:
        return self.times_good == CONVERGED_TIMES

    def out_of_patience(self, patience: int) -> bool:
        return patience > 0 and self.step - self.lowest_step >= patience

    def note_validation(self, loss: float, accuracy: float, converged_accuracy: float) -> None:
        self.times_good = self.times_good + 1 if accuracy >= converged_accuracy else 0
        if loss < 0.99 * self.lowest_loss:
            self.lowest_loss, self.lowest_step = loss, self.step


def main() -> None:
    train(parse_arguments())


def train(args: Namespace) -> None:
    # Data
    device, dataset = get_device(args.device), make_dataset(args.dataset, args.input_length)
    T, vocabulary_size = dataset.seq_length, getattr(dataset, "vocabulary_size", None)  # whose symbols are embedded
    held_out = HeldOutSequences(dataset, NUM_VALIDATION, NUM_TEST, seeded_generator(args.seed, "held out"))
    generator = seeded_generator(args.seed, "training")

    # Model and optimizer
    Model, data = MODELS[args.model_type], "" if args.dataset == "palindromes" else f"{args.dataset}_"
    name = f"{args.model_type}_{data}length{args.input_length}_seed{args.seed}"
    run = RunFolder(args, "part1/train.py", name, COLUMNS, free_arguments=("train_steps", "recurrence"))
    recurrence = choose_recurrence(args.recurrence, Model.RECURRENCES, device, run.recorded("recurrence"))
    run.metadata["recurrence"] = recurrence
    eval_every = run.keep("eval_every", args.eval_every or default_interval(args.train_steps, EVAL_EVERY))
    sizes, weights = (args.input_dim, args.num_hidden, args.num_classes), seeded_generator(args.seed, "weights")
    model = Model(T, *sizes, args.batch_size, device, args.init, weights, recurrence["name"], vocabulary_size)
    optimizer = OPTIMIZERS[args.optimizer](model.parameters(), lr=args.learning_rate)
    state = State(length=make_dataset(args.dataset, min(args.curriculum or T, args.input_length)).seq_length)

    saved = {"model": model, "optimizer": optimizer, "generator": generator}
    with Training(run, args.train_steps, state, args.model_type, **saved) as training:
        while not (state.step == args.train_steps or state.converged or state.out_of_patience(args.patience)):
            state.step += 1
            sequences = draw_batch(held_out, args.batch_size, state.length, generator).to(device)  # (B, L + 1)
            x, target, length = sequences[:, :-1], sequences[:, -1], state.length

            # Forward, loss, backward, clip, step
            logits = model(x)  # (B, K)
            loss = F.cross_entropy(logits, target)
            optimizer.zero_grad()
            loss.backward()
            # What happens here, and why? All gradients are scaled by one factor, so that their joint norm is at most
            # max_norm. Backpropagation through time multiplies T Jacobians, so that the gradient can grow exponentially
            # with T: without the limit a single such step would throw the weights far away. The direction is kept, and
            # a smaller gradient stays as it is: vanishing gradients, the other half of the problem, are not helped.
            gradient_norm = nn.utils.clip_grad_norm_(model.parameters(), max_norm=args.max_norm)  # before clipping
            training.check_finite(loss=loss.item(), gradient_norm=gradient_norm.item())
            optimizer.step()

            # Curriculum
            accuracy = (logits.argmax(dim=1) == target).float().mean().item()
            if args.curriculum and state.mastered:
                state.length = min(int(state.length * CURRICULUM_GROWTH), T)
                state.last_accuracies.clear()
                optimizer.param_groups[0]["lr"] /= CURRICULUM_GROWTH**0.5
            state.last_accuracies = [*state.last_accuracies, accuracy][-NUM_LAST:]

            # Evaluate
            values = {
                "length": length,
                "loss": loss.item(),
                "accuracy": accuracy,
                "gradient_norm": gradient_norm.item(),
                "learning_rate": optimizer.param_groups[0]["lr"],
                "examples_per_second": training.per_second(args.batch_size),
            }
            evaluated = state.step % eval_every == 0 or state.step == args.train_steps
            if evaluated:
                validation_loss, validation_accuracy = evaluate(model, held_out.validation.to(device))
                training.check_finite(validation_loss=validation_loss)
                state.note_validation(validation_loss, validation_accuracy, args.converged_accuracy)
                values |= {"validation_loss": validation_loss, "validation_accuracy": validation_accuracy}
                training.show(loss=f"{loss.item():.3f}", validation_accuracy=f"{validation_accuracy:.3f}")
            training.end_step(values, log=evaluated or state.step % args.print_every == 0, checkpoint=evaluated)

        # Result
        result = {
            "test_accuracy": evaluate(model, held_out.test.to(device))[1],
            "last_10_batches_accuracy": mean(state.last_accuracies),
            "converged": state.converged,
            "steps": state.step,
            "seconds": round(state.seconds, 2),
            "largest_class": held_out.test[:, -1].bincount().max().item() / NUM_TEST,
            "test_sequences": NUM_TEST,
            "test_is_disjoint_from_training": held_out.exclusive,
            "recurrence": recurrence,
        }
        run.write_result(result)
        run.draw_curves("validation")
    describe(args, result, len(state.last_accuracies), str(run))


def describe(args: Namespace, result: dict[str, Any], num_last: int, run: str) -> None:
    sequences, largest = f"palindromes of {args.input_length + 1} digits", ""
    if args.dataset != "palindromes":
        sequences = f"{args.dataset}, T = {args.input_length}"
        largest = f"; always naming the largest class {result['largest_class']:.4f}"
    print(
        f"{args.model_type}, {sequences}: accuracy {result['test_accuracy']:.4f} on {NUM_TEST:,} "
        f"{'unseen' if result['test_is_disjoint_from_training'] else 'fresh'} ones "
        f"({result['last_10_batches_accuracy']:.4f} on the last {num_last} training batches{largest}) after "
        f"{result['steps']:,} steps, {'converged' if result['converged'] else 'not converged'}, "
        f"{result['seconds']:.1f} s; run folder {run}"
    )


def make_dataset(name: str, input_length: int) -> BatchDataset:
    """Return a data set; of palindromes `input_length` digits are read, and the target is one more."""
    return DATASETS[name](input_length + 1 if name == "palindromes" else input_length)


def draw_batch(held_out: HeldOutSequences, num: int, length: int, generator: torch.Generator) -> Tensor:
    """Return (num, L + 1) sequences to train on: of full length, or shorter ones, of which none is held out."""
    if length == held_out.dataset.seq_length:
        return held_out.draw_others(num, generator)
    return type(held_out.dataset)(length).draw(num, generator)


@torch.no_grad()
def evaluate(model: nn.Module, sequences: Tensor) -> tuple[float, float]:
    """Return mean cross-entropy in nats and accuracy over (num, L + 1) sequences, of which the last is the target."""
    loss, correct = 0.0, 0
    for batch in sequences.split(1_000):
        logits, target = model(batch[:, :-1]), batch[:, -1]
        loss += F.cross_entropy(logits, target, reduction="sum").item()
        correct += (logits.argmax(dim=1) == target).sum().item()
    return loss / len(sequences), correct / len(sequences)


def build_parser() -> ArgumentParser:
    parser = ArgumentParser(__doc__)
    add = parser.add_argument
    add("--model_type", choices=MODELS, default="RNN", help="recurrent network")
    defaults = ", ".join(f"{name} {value}" for name, value in UVA_2020.items())
    sets = f"palindromes, or UvA 2020's, which have that edition's defaults: {defaults}"
    add("--dataset", choices=DATASETS, default="palindromes", help=sets)
    length = "digits that are read, of palindromes with one more; of other data sets their length T"
    add("--input_length", type=positive_int, default=10, help=length)
    vectors = "of palindromes 1, digits as numbers, or 10, one-hot; of other data sets the size of an embedding"
    add("--input_dim", type=positive_int, default=1, help=vectors)
    add("--num_classes", type=positive_int, help="number of logits, at least (default: exactly) the data set's classes")
    add("--num_hidden", type=positive_int, default=128, help="hidden units")
    add("--batch_size", type=positive_int, default=128, help="sequences in each step")
    add("--learning_rate", "--lr", type=positive_float, default=1e-3, help="learning rate of the optimizer")
    add("--train_steps", type=positive_int, default=10_000, help="largest number of steps")
    enough = f"validation accuracy that ends training when reached {CONVERGED_TIMES} times in a row; above 1: never"
    add("--converged_accuracy", type=positive_float, default=0.995, help=enough)
    add("--patience", type=non_negative_int, default=0, help="give up after this many steps without progress; 0: never")
    add("--curriculum", type=non_negative_int, default=0, help="--input_length at first; 0: all the time")
    add("--max_norm", "--clip_grad_norm", type=positive_float, default=10.0, help="largest norm of the gradient")
    add("--optimizer", choices=OPTIMIZERS, default="rmsprop", help="momentum is SGD with momentum 0.9")
    inits = "default, kaiming; RNN and LSTMs also: orthogonal; RNN: identity, bistable; LSTMs: chrono"
    add("--init", default="default", help=inits)
    add("--preset", choices=PRESETS, help="other defaults; long_memory: remember a digit for a thousand steps")
    add("--seed", type=seed_number, default=0, help="seed of weights and sequences")
    interval = f"default a twentieth of all, at most {EVAL_EVERY}"
    add("--eval_every", type=positive_int, help=f"steps between two evaluations, each with a checkpoint; {interval}")
    add("--print_every", type=positive_int, default=10, help="steps between two logged training batches")
    ways = ("auto", *RECURRENCES)
    add("--recurrence", choices=ways, default="auto", help="loop: the equations step by step; auto: the fastest")
    add_run_arguments(parser, "part1")
    return parser


def parse_arguments() -> Namespace:
    parser = build_parser()
    chosen, _ = parser.parse_known_args()
    if chosen.dataset != "palindromes":
        parser.set_defaults(**UVA_2020)
    if chosen.preset:
        kin = chosen.model_type.removeprefix("NumPy")
        if kin not in PRESETS[chosen.preset] or chosen.dataset != "palindromes":
            models = " and ".join(PRESETS[chosen.preset])
            parser.error(f"argument --preset: {chosen.preset} is for palindromes, with {models}")
        parser.set_defaults(**PRESETS[chosen.preset][kin])
    args = parser.parse_args()
    check_data(parser, args)
    Model = MODELS[args.model_type]
    if args.init not in Model.INITS:
        parser.error(f"argument --init: {args.model_type} has {', '.join(Model.INITS)}, not {args.init}")
    if args.recurrence not in ("auto", *Model.RECURRENCES):
        parser.error(
            f"argument --recurrence: {args.model_type} has {', '.join(Model.RECURRENCES)}, not {args.recurrence}"
        )
    return args


def check_data(parser: ArgumentParser, args: Namespace) -> None:
    """Set the number of classes, where it is not given, and end the script where the data set lacks what is asked."""
    if args.dataset == "palindromes" and args.input_dim not in (1, 10):
        parser.error(f"argument --input_dim: of palindromes 1, digits as numbers, or 10, one-hot, not {args.input_dim}")
    try:
        classes = make_dataset(args.dataset, args.input_length).num_classes
    except ValueError as error:
        parser.error(f"argument --input_length: {error}")
    args.num_classes = args.num_classes or classes
    if args.num_classes < classes:
        parser.error(f"argument --num_classes: {args.dataset} need at least {classes} classes here")


if __name__ == "__main__":
    run_command(main)
