"""Train one recurrent network on a task beyond palindromes: copy, adding, or recall of a digit shown at some time.

    python part1/memory_tasks.py --task copy --model_type LSTM --init chrono --length 1000
    python part1/memory_tasks.py --task recall --model_type GRU --init chrono --length 1000
    python part1/memory_tasks.py --task adding --model_type RNN --init orthogonal --length 100

* copy (Hochreiter and Schmidhuber 1997; Arjovsky et al. 2016): 10 symbols of 8 kinds, T - 1 blanks, a delimiter, 10
  blanks: L = T + 20 steps. The answer, at every step, is a blank up to the delimiter, and after it the 10 symbols. The
  baseline, which remembers nothing, guesses the symbols: 10 ln 8 / (T + 20) nats.
* adding (Hochreiter and Schmidhuber 1997): T numbers uniform in [0, 1], two of which are marked, one in each half. The
  answer, after the last, is their sum. The baseline always answers 1, with a mean square error of 1/6, the variance.
* recall: T digits, one of which is marked, at a step drawn uniformly: palindromes' harder sibling, since what matters
  may come at any time and the others look the same. The answer, after the last, is that digit. The baseline: ln 10.

With `curriculum` training begins at that T. Whenever the loss on 250 validation sequences is below 5 % of the baseline,
this T is mastered, and T becomes half as long again, up to `length`. That one is mastered, and the task solved, when
the loss is below 5 % three times in a row.

What a training may cost is counted in steps read: a batch of sequences of L steps counts L, whatever its size, so that
all models get the same amount of computation; validation does not count. An evaluation follows every `eval_every`
batches, of short sequences every 2,000 steps read. Training ends when the task is solved, or when the budget does not
last until the next evaluation. The loss reported at the end is that on 2,000 fresh sequences of full length.
"""

import math
import sys
from argparse import Namespace
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

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
from common.run_folder import RunFolder
from common.training import LoopState, Training
from part1.gru import GRU
from part1.lstm import LSTM
from part1.vanilla_rnn import VanillaRNN
from recurrence.choice import RECURRENCES, choose_recurrence

NUM_SYMBOLS, NUM_KINDS = 10, 8  # to be copied
BLANK, DELIMITER = NUM_KINDS, NUM_KINDS + 1
NUM_VALIDATION, NUM_TEST, EVALUATED_TOGETHER = 250, 2_000, 50
MASTERED, SOLVED_TIMES = 0.05, 3  # share of the baseline
CURRICULUM_GROWTH = 1.5
READ_BETWEEN = 2_000  # steps between two evaluations, at least
NEAR = 0.04  # a sum counts as right if it is off by less (Hochreiter and Schmidhuber 1997)
COLUMNS = (
    "steps_read",
    "length",
    "loss",
    "accuracy",
    "gradient_norm",
    "examples_per_second",
    "validation_loss",
    "validation_accuracy",
    "relative_loss",
)


def draw_copy(num: int, T: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """Return (num, T + 20, 10) one-hot vectors of symbols, blanks and the delimiter, and (num, T + 20) answers."""
    symbols = torch.randint(NUM_KINDS, (num, NUM_SYMBOLS), generator=generator)
    blanks = torch.full((num, T + NUM_SYMBOLS), BLANK)
    x = torch.cat((symbols, blanks), dim=1)
    x[:, T + NUM_SYMBOLS - 1] = DELIMITER
    return F.one_hot(x, DELIMITER + 1).float(), torch.cat((blanks, symbols), dim=1)


def draw_adding(num: int, T: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """Return (num, T, 2) pairs of a number and a marker, which is 1 twice and else 0, and (num,) sums."""
    numbers, half = torch.rand(num, T, generator=generator), T // 2
    first = torch.randint(half, (num,), generator=generator)
    second = torch.randint(half, T, (num,), generator=generator)
    markers = (F.one_hot(first, T) + F.one_hot(second, T)).float()
    return torch.stack((numbers, markers), dim=2), (numbers * markers).sum(dim=1)


def draw_recall(num: int, T: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """Return (num, T, 11) one-hot digits, each with a marker, which is 1 once and else 0, and (num,) marked digits."""
    digits = torch.randint(10, (num, T), generator=generator)
    place = torch.randint(T, (num, 1), generator=generator)
    x = torch.cat((F.one_hot(digits, 10), F.one_hot(place, T).transpose(1, 2)), dim=2)
    return x.float(), digits.gather(1, place).squeeze(1)


class Task(NamedTuple):
    """What training needs of a task. T is at least 2.

    Attributes:
        draw: returns (num, L, input_dim) inputs and (num,) or, of a task with an answer at every step, (num, L) targets
            of a number of sequences of one T, drawn from a CPU generator.
        input_dim: size of the input at a step.
        num_outputs: number of logits; 1 where the target is a number.
        more_steps: L - T.
        baseline: the lowest loss without memory, by T.
    """

    draw: Callable[[int, int, torch.Generator], tuple[Tensor, Tensor]]
    input_dim: int
    num_outputs: int
    more_steps: int
    baseline: Callable[[int], float]


TASKS = {
    "copy": Task(draw_copy, 10, 9, 20, lambda T: NUM_SYMBOLS * math.log(NUM_KINDS) / (T + 2 * NUM_SYMBOLS)),
    "adding": Task(draw_adding, 2, 1, 0, lambda T: 1 / 6),
    "recall": Task(draw_recall, 11, 10, 0, lambda T: math.log(10)),
}


class BiasedGRU(GRU):
    """The GRU of `gru.py` with biases, for the tasks here: a constant 1 is a further input.

    UvA 2020 prints the GRU without biases. The last column of W_x, the constant's weights, is what it lacks:
    [b_z; b_r; b_c].
    """

    INITS = (*GRU.INITS, "chrono")

    def add_recurrence(self, d: int, n: int) -> None:
        super().add_recurrence(d + 1, n)

    def vectors(self, x: Tensor) -> Tensor:
        """Return x(1) ... x(T), (T, B, d + 1), with the constant behind them."""
        x = super().vectors(x)
        return torch.cat((x, x.new_ones(*x.shape[:2], 1)), dim=2)

    @torch.no_grad()
    def reset_parameters(
        self, init: str = "default", generator: torch.Generator | None = None, seq_length: int = 1
    ) -> None:
        """Draw all parameters anew.

        * default, kaiming: see `SequenceClassifier.reset_parameters`.
        * chrono: as default, with b_z = -log U(1, T-1) and the other biases zero: of h a share z is replaced at each
          step, so that the forgetting times 1 / z are spread over the whole sequence (Tallec and Ollivier 2018).
        """
        super().reset_parameters(init, generator, seq_length)
        if init == "chrono":
            b_z, b_r, b_c = self.W_x[:, -1].chunk(3)  # views
            b_z.copy_(-torch.empty(self.num_hidden).uniform_(1, max(seq_length - 1, 1), generator=generator).log())
            b_r.zero_()
            b_c.zero_()


MODELS: dict[str, type[VanillaRNN] | type[LSTM] | type[BiasedGRU]] = {"RNN": VanillaRNN, "LSTM": LSTM, "GRU": BiasedGRU}


@dataclass
class State(LoopState):
    """What the rules above go by."""

    length: int = 0  # T of the training sequences
    steps_read: int = 0
    batches: int = 0  # since the last evaluation
    times_good: int = 0  # evaluations in a row, at this T, with a loss below MASTERED
    mastered: dict[int, int] = field(default_factory=dict)  # the steps read by then, by T

    def note_validation(self, relative_loss: float, full_length: int) -> None:
        self.batches, self.times_good = 0, self.times_good + 1 if relative_loss < MASTERED else 0
        if self.times_good == (SOLVED_TIMES if self.length == full_length else 1):
            self.mastered[self.length] = self.steps_read
            if self.length < full_length:
                self.length, self.times_good = min(int(self.length * CURRICULUM_GROWTH), full_length), 0


def main() -> None:
    train(parse_arguments())


def train(args: Namespace) -> None:
    # Data
    device, task = get_device(args.device), TASKS[args.task]
    generator = seeded_generator(args.seed, "training")

    # Model and optimizer
    Model = MODELS[args.model_type]
    name = f"{args.task}_{args.model_type}_{args.init}_length{args.length}_seed{args.seed}"
    run = RunFolder(args, "part1/memory_tasks.py", name, COLUMNS, free_arguments=("budget", "recurrence"))
    recurrence = choose_recurrence(args.recurrence, Model.RECURRENCES, device, run.recorded("recurrence"))
    run.metadata["recurrence"] = recurrence
    sizes, weights = (task.input_dim, args.num_hidden, task.num_outputs), seeded_generator(args.seed, "weights")
    L = args.length + task.more_steps
    model = Model(L, *sizes, args.batch_size, device, args.init, weights, recurrence["name"])
    optimizer = torch.optim.Adam(model.parameters(), lr=args.learning_rate)
    state = State(length=first_length(args))
    most_batches = args.budget // (state.length + task.more_steps)

    saved = {"model": model, "optimizer": optimizer, "generator": generator}
    with Training(run, most_batches, state, args.model_type, **saved) as training:
        while args.length not in state.mastered and lasts(args, state):
            state.step, state.batches, T = state.step + 1, state.batches + 1, state.length
            x, y = task.draw(args.batch_size, T, generator)  # (B, L, d), (B,) or (B, L)
            x, y, state.steps_read = x.to(device), y.to(device), state.steps_read + x.shape[1]

            # Forward, loss, backward, clip, step
            p = predict(model, x, y)
            loss = loss_of(p, y)
            optimizer.zero_grad()
            loss.backward()
            gradient_norm = nn.utils.clip_grad_norm_(model.parameters(), max_norm=args.max_norm)  # before clipping
            training.check_finite(loss=loss.item())
            if gradient_norm.isfinite():  # over a thousand steps it can explode beyond all floats, and has no direction
                optimizer.step()

            # Evaluate
            values: dict[str, float] = {}
            if evaluated := state.batches == batches_between(task, T, args.eval_every):
                held_out = seeded_generator(args.seed, f"validation, T = {T}")
                validation_loss, validation_accuracy = evaluate(model, task, T, NUM_VALIDATION, held_out, device)
                relative_loss = validation_loss / task.baseline(T)
                state.note_validation(relative_loss, args.length)
                values = {
                    "steps_read": state.steps_read,
                    "length": T,
                    "loss": loss.item(),
                    "accuracy": accuracy_of(p, y),
                    "gradient_norm": gradient_norm.item(),
                    "examples_per_second": training.per_second(args.batch_size),
                    "validation_loss": validation_loss,
                    "validation_accuracy": validation_accuracy,
                    "relative_loss": relative_loss,
                }
                training.show(T=f"{T:,}", steps_read=f"{state.steps_read:,}", relative_loss=f"{relative_loss:.3f}")
            training.end_step(values, log=evaluated, checkpoint=evaluated)

        # Result
        test_loss, test_accuracy = evaluate(
            model, task, args.length, NUM_TEST, seeded_generator(args.seed, "test"), device
        )
        result = {
            "solved": args.length in state.mastered,
            "longest_mastered": max(state.mastered, default=0),
            "mastered": state.mastered,
            "steps_read": state.steps_read,
            "steps": state.step,
            "seconds": round(state.seconds, 2),
            "test_loss": test_loss,
            "test_accuracy": test_accuracy,
            "baseline": task.baseline(args.length),
            "test_sequences": NUM_TEST,
            "recurrence": recurrence,
        }
        run.write_result(result)
        draw_curve(run)
    describe(args, result, str(run))


def describe(args: Namespace, result: dict[str, Any], run: str) -> None:
    longest = f"longest T mastered {result['longest_mastered']:,}" if result["mastered"] else "no T mastered"
    print(
        f"{args.model_type} ({args.init}), {args.task}, T = {args.length:,}: "
        f"{'solved' if result['solved'] else f'not solved, {longest}'} after {result['steps_read']:,} steps read; "
        f"test loss {result['test_loss']:.4f}, baseline {result['baseline']:.4f}, "
        f"accuracy {result['test_accuracy']:.4f} on {NUM_TEST:,} fresh sequences; "
        f"{result['seconds']:.1f} s; run folder {run}"
    )


def first_length(args: Namespace) -> int:
    """Return the T with which training begins."""
    return min(args.curriculum or args.length, args.length)


def lasts(args: Namespace, state: State) -> bool:
    """Whether the budget lasts until the next evaluation; between two evaluations it does."""
    task = TASKS[args.task]
    steps = batches_between(task, state.length, args.eval_every) * (state.length + task.more_steps)
    return state.batches > 0 or state.steps_read + steps <= args.budget


def batches_between(task: Task, T: int, eval_every: int) -> int:
    """Return the number of batches between two evaluations."""
    return max(eval_every, math.ceil(READ_BETWEEN / (T + task.more_steps)))


def predict(model: VanillaRNN | LSTM | GRU, x: Tensor, y: Tensor) -> Tensor:
    """Return the outputs p for inputs (B, L, d): of every step, (B, L, K), for targets (B, L); of the last, (B, K)."""
    states = model.states(x)
    h = states[0] if isinstance(states, tuple) else states  # h(1) ... h(L), (L, B, n)
    return model.output(h.transpose(0, 1) if y.dim() == 2 else h[-1])


def loss_of(p: Tensor, y: Tensor) -> Tensor:
    """Return the mean square error of numbers (B, 1), or the mean cross-entropy of logits (B, K) or (B, L, K)."""
    if y.is_floating_point():
        return F.mse_loss(p.squeeze(1), y)
    return F.cross_entropy(p.flatten(0, -2), y.flatten())


def accuracy_of(p: Tensor, y: Tensor) -> float:
    """Return the share that is right: of sums, of digits or, of the copies, of the symbols after the delimiter."""
    if y.is_floating_point():
        right = (p.squeeze(1) - y).abs() < NEAR
    else:
        right = p.argmax(dim=-1) == y
    return (right[:, -NUM_SYMBOLS:] if y.dim() == 2 else right).double().mean().item()


@torch.no_grad()
def evaluate(
    model: VanillaRNN | LSTM | GRU, task: Task, T: int, num: int, generator: torch.Generator, device: torch.device
) -> tuple[float, float]:
    """Return mean loss and accuracy on `num` sequences, a multiple of EVALUATED_TOGETHER, drawn from `generator`."""
    loss, accuracy, parts = 0.0, 0.0, num // EVALUATED_TOGETHER
    for _ in range(parts):
        x, y = (tensor.to(device) for tensor in task.draw(EVALUATED_TOGETHER, T, generator))
        p = predict(model, x, y)
        loss += loss_of(p, y).item() / parts
        accuracy += accuracy_of(p, y) / parts
    return loss, accuracy


def evaluations(metrics: dict[str, list[tuple[int, float]]]) -> list[tuple[int, int, float]]:
    """Return steps read, T, and the validation loss as a share of the baseline, of each row of a run's metrics.csv."""
    columns = ([value for _, value in metrics[name]] for name in ("steps_read", "length", "relative_loss"))
    return [(int(steps_read), int(T), loss) for steps_read, T, loss in zip(*columns)]


def draw_curve(run: RunFolder) -> None:
    """Draw curves.png and curves.pdf: by steps read the validation loss as a share of the baseline, and T."""
    from common.figure import new_figure, save_figure  # Matplotlib takes a second to import

    steps_read, lengths, losses = zip(*evaluations(run.read_metrics()))
    figure, (left, right) = new_figure(1, 2)
    left.plot(steps_read, losses, marker=".", linewidth=0.8)
    left.axhline(MASTERED, color="0.5", linestyle=":", label="mastered")
    left.set(xlabel="steps read", ylabel="validation loss / baseline", yscale="log")
    left.legend()
    right.plot(steps_read, lengths, marker=".", drawstyle="steps-pre")
    right.set(xlabel="steps read", ylabel="$T$", yscale="log")
    save_figure(figure, run.path / "curves")


def build_parser() -> ArgumentParser:
    parser = ArgumentParser(__doc__)
    add = parser.add_argument
    add("--task", choices=TASKS, default="copy", help="what is to be remembered")
    add("--model_type", choices=MODELS, default="RNN", help="recurrent network; the GRU has biases here")
    inits = "default, kaiming; RNN and LSTM also: orthogonal; RNN: identity, bistable; LSTM and GRU: chrono"
    add("--init", default="default", help=inits)
    add("--length", type=positive_int, default=100, help="T, which tells how long to remember; at least 2")
    add("--curriculum", type=non_negative_int, default=10, help="T at first; 0: --length all the time")
    add("--budget", type=positive_int, default=1_000_000, help="largest number of steps read")
    add("--num_hidden", type=positive_int, default=128, help="hidden units")
    add("--batch_size", type=positive_int, default=32, help="sequences in each batch")
    add("--learning_rate", "--lr", type=positive_float, default=3e-3, help="learning rate of Adam")
    add("--max_norm", type=positive_float, default=1.0, help="largest norm of the gradient")
    add("--seed", type=seed_number, default=0, help="seed of weights and sequences")
    interval = f"batches between two evaluations, each with a checkpoint; more until {READ_BETWEEN:,} steps are read"
    add("--eval_every", type=positive_int, default=20, help=interval)
    ways = ("auto", *RECURRENCES)
    add("--recurrence", choices=ways, default="auto", help="loop: the equations step by step; auto: the fastest")
    add_run_arguments(parser, "part1")
    return parser


def parse_arguments() -> Namespace:
    parser = build_parser()
    args = parser.parse_args()
    Model = MODELS[args.model_type]
    if args.init not in Model.INITS:
        parser.error(f"argument --init: {args.model_type} has {', '.join(Model.INITS)}, not {args.init}")
    if args.recurrence not in ("auto", *Model.RECURRENCES):
        parser.error(
            f"argument --recurrence: {args.model_type} has {', '.join(Model.RECURRENCES)}, not {args.recurrence}"
        )
    if args.length < 2:
        parser.error(f"argument --length: must be at least 2, not {args.length}")
    if args.curriculum == 1:
        parser.error("argument --curriculum: must be 0 or at least 2, not 1")
    if not lasts(args, State(length=first_length(args))):
        parser.error(f"argument --budget: {args.budget:,} steps read do not last until the first evaluation")
    return args


if __name__ == "__main__":
    run_command(main)
