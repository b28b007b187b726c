"""A gate with a clock: what it does, what it is worth where the rhythm is known, and whether it can find the rhythm.

    python -m part1.experiments.time_gate

Part 2 of UvA spring 2018. Numbers from -1 to 1 are read at t = 1 ... 40. Those at 8, 16, ..., 40 are signals, the rest
are distractors that look the same, and the network must name the sum of the signals, scaled to variance 1. The error is
the mean square on fresh sequences, as a share of that of always answering 0.

* networks: an LSTM; an LSTM that is told k(t) as a second input; phased LSTMs whose units all have the right clock, or
  each a random one, and keep it or learn it.
* tau, s, r_on: learning starts from a wrong value of one of them. Then s is such that a gate is fully open at t = 0,
  tau, 2 tau, ...; `shift` moves that, in periods.
* leak: wrong starts again, with a leak alpha of the closed gate.
* basin: the right clock, kept; what becomes of the trained network's error where tau is changed afterwards.

Finished runs are kept in runs/part1/time_gate/. The results are report/results/part1_time_gate.csv, one row for each
evaluation of a run, and part1_time_gate_basin.csv; the figures part1_time_gate.pdf, which shows the gate itself, and
part1_time_gate_learning.pdf.
"""

import math
from argparse import Namespace
from collections.abc import Callable
from pathlib import Path
from statistics import geometric_mean
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from common.command import non_negative_int, positive_int, run_command
from common.experiment import ExperimentParser, read_results, write_results
from common.machine import seeded_generator
from common.paths import ROOT, short_path
from part1.lstm import LSTM
from part1.phased_lstm import PhasedLSTM, time_gate

NAME, BASIN, LEARNING = "part1_time_gate", "part1_time_gate_basin", "part1_time_gate_learning"
RUNS = ROOT / "runs" / "part1" / "time_gate"
T, P = 40, 8  # steps, and the period of the signals
NUM_HIDDEN, BATCH_SIZE, NUM_TEST = 32, 32, 500
LEARNING_RATE, CLOCK_RATE, MAX_NORM = 3e-3, 1e-2, 1.0  # Adam's, of the weights and of tau, s and r_on
TRAIN_STEPS, LSTM_STEPS, EVAL_EVERY = 400, 3_000, 20
R_ON = 2 / P  # the widest gate that is closed at every distractor
SMALLEST_TAU, SMALLEST_R_ON = 1.0, 0.05  # where learning stops lowering them
SEEDS = (0, 1, 2)
SOLVED = 0.05  # error
FORGET = 1 / (1 + math.exp(-1))  # a forget gate that its bias of 1 alone sets

Rows = list[dict[str, Any]]


class Run(NamedTuple):
    """A network, and the clock with which it starts."""

    network: str
    tau: float = 1.0  # in true periods
    shift: float = 0.0  # of the open gate from the signals, in the gate's periods
    r_on: float = R_ON
    alpha: float = 0.0


NETWORKS = {
    "LSTM": "LSTM",
    "LSTM told k": "LSTM, told $k(t)$",
    "fixed": "right clock, kept",
    "learnt": "right clock, learnt",
    "random fixed": "random clocks, kept",
    "random learnt": "random clocks, learnt",
}
STUDIES = {
    "networks": [Run(network) for network in NETWORKS],
    "tau": [Run("learnt", tau=tau) for tau in (0.5, 0.8, 0.9, 0.95, 1.02, 1.05, 1.1, 1.2, 1.5, 2.0)],
    "s": [Run("learnt", shift=shift) for shift in (0.125, 0.25, 0.375, 0.5)],
    "r_on": [Run("learnt", r_on=r_on) for r_on in (0.1, 0.5, 1.0)],
    "leak": [
        Run("learnt", shift=0.5, alpha=0.001),
        Run("learnt", shift=0.5, alpha=0.1),
        Run("learnt", tau=1.5, alpha=0.1),
    ],
    "basin": [Run("fixed")],
}
BASIN_TAUS = [round(2 ** (k / 70), 4) for k in range(-70, 71)]  # 0.5 ... 2 true periods


def main() -> None:
    args = build_parser().parse_args()
    if not args.draw_only:
        measure(args)
    rows = read_results(NAME, args.results)
    basin = read_results(BASIN, args.results) if "basin" in args.studies else []
    draw_gate(args.figures)
    draw_learning(rows, basin, args.figures)
    for run, ends in last_rows(rows).items():
        errors = ", ".join(f"{row['error']:.3f}" for row in ends)
        clock = f", first tau {run.tau:g}, shift {run.shift:g}, r_on {run.r_on:g}, leak {run.alpha:g}"
        print(f"{run.network}{clock if run.network == 'learnt' else ''}: error {errors}")
    print(f"results and figures: {short_path(args.results / NAME)}*.csv, {short_path(args.figures / NAME)}*.pdf")


def measure(args: Namespace) -> None:
    """Complete the runs and write both tables."""
    ending = f"_train_steps_{args.train_steps}" if args.train_steps else ""
    runs = dict.fromkeys(run for study in args.studies for run in STUDIES[study])
    rows, basin = [], []
    for seed in args.seeds:
        for run in runs:
            name = "_".join(map(str, run)).replace(" ", "_")
            rows += kept(f"{name}_seed{seed}{ending}", training_rows, run, seed, args.train_steps)
        if "basin" in args.studies:
            basin += kept(f"basin_seed{seed}{ending}", basin_rows, seed, args.train_steps)
    write_results(NAME, rows, args.results, seeds=args.seeds)
    if basin:
        write_results(BASIN, basin, args.results, seeds=args.seeds)


def kept(name: str, make_rows: Callable[..., Rows], *arguments: Any) -> Rows:
    """Return the rows of a finished run, which is done if they are not there."""
    if not (RUNS / f"{name}.csv").exists():
        write_results(name, make_rows(*arguments), RUNS)
    return read_results(name, RUNS)


def training_rows(run: Run, seed: int, train_steps: int | None = None) -> Rows:
    """Return a row for each evaluation of a run."""
    return train(run, seed, train_steps)[1]


def train(run: Run, seed: int, train_steps: int | None = None) -> tuple["PhasedSum | LSTM", Rows]:
    """Return the trained network, and a row for each evaluation."""
    told, generator = run.network == "LSTM told k", seeded_generator(seed, "training")
    x_test, y_test = draw_sequences(NUM_TEST, seeded_generator(seed, "test"), told)
    model = make_network(run, seeded_generator(seed, "weights"))
    clock = [model.cell.tau, model.cell.s, model.cell.r_on] if isinstance(model, PhasedSum) else []
    for parameter in clock:
        parameter.requires_grad_(run.network.endswith("learnt"))
    weights = [parameter for parameter in model.parameters() if all(parameter is not one for one in clock)]
    groups: list[dict[str, Any]] = [{"params": weights}, {"params": clock, "lr": CLOCK_RATE}]
    optimizer = torch.optim.Adam(groups, lr=LEARNING_RATE)
    num_steps, rows = train_steps or (TRAIN_STEPS if clock else LSTM_STEPS), []
    for step in range(1, num_steps + 1):
        x, y = draw_sequences(BATCH_SIZE, generator, told)
        loss = F.mse_loss(model(x), y)
        optimizer.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), MAX_NORM)
        optimizer.step()
        if isinstance(model, PhasedSum):
            model.cell.tau.data.clamp_(min=SMALLEST_TAU)
            model.cell.r_on.data.clamp_(SMALLEST_R_ON, 1)
        if step % EVAL_EVERY == 0 or step == num_steps:
            error = f"{error_of(model, x_test, y_test):.4g}"
            rows.append({**run._asdict(), "seed": seed, "step": step, "error": error, **clock_state(model)})
    return model, rows


def draw_sequences(num: int, generator: torch.Generator, told: bool = False) -> tuple[Tensor, Tensor]:
    """Return (num, T, 1) inputs and their targets, (num, 1), of variance 1; with `told` k(t) as a second input."""
    x = 2 * torch.rand(num, T, 1, generator=generator) - 1  # of variance 1/3
    y = x[:, P - 1 :: P].sum(dim=1) / (T // P / 3) ** 0.5
    if told:
        k = time_gate(torch.arange(1.0, T + 1), P, -R_ON * P / 2, R_ON)
        x = torch.cat((x, k[:, None].expand(num, T, 1)), dim=2)
    return x, y


class PhasedSum(nn.Module):
    """A phased LSTM whose last state gives the answer, y = W_y h(T) + b_y."""

    cell: PhasedLSTM

    def __init__(self, cell: PhasedLSTM, generator: torch.Generator):
        super().__init__()
        self.cell = cell
        self.W_y, self.b_y = (
            nn.Parameter(torch.empty(shape).uniform_(-(NUM_HIDDEN**-0.5), NUM_HIDDEN**-0.5, generator=generator))
            for shape in ((1, NUM_HIDDEN), (1,))
        )

    def forward(self, x: Tensor) -> Tensor:
        """Return y, (B, 1), of (B, T, 1) inputs."""
        h, _ = self.cell(x)
        return h[-1] @ self.W_y.T + self.b_y


def make_network(run: Run, generator: torch.Generator) -> PhasedSum | LSTM:
    """Return the network of a run before training, its weights drawn from `generator`."""
    if run.network.startswith("LSTM"):
        return LSTM(T, 2 if run.network == "LSTM told k" else 1, NUM_HIDDEN, 1, BATCH_SIZE, generator=generator)
    tau = torch.full((NUM_HIDDEN,), run.tau * P)
    s = (run.shift - run.r_on / 2) * tau
    if run.network.startswith("random"):  # tau log-uniform from 2 steps to the whole sequence, s anywhere in it
        tau = 2 * (T / 2) ** torch.rand(NUM_HIDDEN, generator=generator)
        s = tau * torch.rand(NUM_HIDDEN, generator=generator)
    return PhasedSum(PhasedLSTM(1, NUM_HIDDEN, tau, s, run.r_on, run.alpha, generator), generator)


@torch.no_grad()
def clock_state(model: PhasedSum | LSTM) -> dict[str, str]:
    """Return what has become of the clocks: how far tau is off, relatively, and how open the gates are to the signals.

    The former is the median over the units and that of the best unit; the latter the share of all k(t), summed over
    units and steps, that falls on signals: 1 with the right clock, and 1/P where the gates know nothing.
    """
    if isinstance(model, LSTM):
        return dict.fromkeys(("tau_error", "best_tau_error", "on_signals"), "")
    cell = model.cell
    k = time_gate(torch.arange(1.0, T + 1)[:, None], cell.tau, cell.s, cell.r_on)  # (T, n)
    off = (cell.tau / P - 1).abs()
    numbers = {"tau_error": off.median(), "best_tau_error": off.min(), "on_signals": k[P - 1 :: P].sum() / k.sum()}
    return {name: f"{number:.4g}" for name, number in numbers.items()}


def basin_rows(seed: int, train_steps: int | None = None) -> Rows:
    """Return the error of a network trained with the right clock, by the tau to which all units are set afterwards."""
    model, _ = train(Run("fixed"), seed, train_steps)
    assert isinstance(model, PhasedSum)
    x_test, y_test = draw_sequences(NUM_TEST, seeded_generator(seed, "test"))
    rows = []
    for tau in BASIN_TAUS:
        with torch.no_grad():
            model.cell.tau.fill_(tau * P)
            model.cell.s.fill_(-R_ON / 2 * tau * P)
        rows.append({"seed": seed, "tau": tau, "error": f"{error_of(model, x_test, y_test):.4g}"})
    return rows


@torch.no_grad()
def error_of(model: nn.Module, x: Tensor, y: Tensor) -> float:
    """Return the mean square error, as a share of that of always answering 0."""
    return ((model(x) - y).square().mean() / y.square().mean()).item()


def last_rows(rows: Rows) -> dict[Run, Rows]:
    """Return the last evaluation of every seed, by run."""
    ends: dict[tuple[Run, int], dict[str, Any]] = {}
    for row in rows:  # in the order of the steps
        ends[run_of(row), row["seed"]] = row
    by_run: dict[Run, Rows] = {}
    for (run, _), row in ends.items():
        by_run.setdefault(run, []).append(row)
    return by_run


def run_of(row: dict[str, Any]) -> Run:
    """Return the run to which a row belongs."""
    return Run(*(row[name] for name in Run._fields))


def draw_gate(folder: Path) -> None:
    """Draw k(t) with tau, s and r_on marked, and what is left of a cell after t steps under gates of several widths."""
    from common.figure import COLOURS, LINE_STYLES, new_figure, save_figure

    figure, (left, right) = new_figure(1, 2, height=2.2, width_ratios=(3, 2))
    tau, s, r_on = 10.0, 3.0, 0.4
    t = torch.linspace(0, 30, 3001)
    left.plot(t, time_gate(t, tau, s, r_on))
    for start in (s - tau, s, s + tau, s + 2 * tau):
        left.axvspan(max(start, 0), min(start + r_on * tau, 30), color=COLOURS[0], alpha=0.1, linewidth=0)
    for start, end, y, text in (
        (0, s, 0.5, "$s$"),
        (s, s + r_on * tau, 1.12, r"$r_{on}\tau$"),
        (s, s + tau, 1.35, r"$\tau$"),
    ):
        left.annotate("", (start, y), (end, y), arrowprops={"arrowstyle": "<->", "shrinkA": 0, "shrinkB": 0})
        left.text((start + end) / 2, y + 0.03, text, ha="center", va="bottom")
    left.set(xlabel="time $t$", ylabel="gate $k(t)$", ylim=(0, 1.6), xlim=(0, 30), yticks=(0, 0.5, 1))

    t = torch.arange(0.0, 101)
    for width, colour, style in zip((None, 0.5, 0.2, 0.05), COLOURS, LINE_STYLES):
        k = torch.ones(101) if width is None else time_gate(t, 40.0, 0.0, width)
        k[0] = 0
        label = "LSTM" if width is None else f"$r_{{on}} = {width}$"
        right.plot(t, (1 - k * (1 - FORGET)).cumprod(0), linestyle=style, color=colour, label=label)
    right.set(xlabel="step $t$", ylabel="share of $c^{(0)}$ that is left", yscale="log")
    right.legend()
    save_figure(figure, folder / NAME)


def draw_learning(rows: Rows, basin: Rows, folder: Path) -> None:
    """Draw a panel each: the networks' errors while they learn; the basin around the right tau; wrong starts."""
    from common.figure import new_figure, save_figure

    figure, panels = new_figure(2, 2, height=2.1, sharey=True)
    draw_networks(rows, panels[0])
    draw_basin(basin, panels[1])
    ends = last_rows(rows)
    draw_starts(ends, ("tau",), panels[2])
    draw_starts(ends, ("shift", "r_on"), panels[3])
    panels[3].set_xlabel("first shift of $s$, in periods, or first $r_{on}$")
    for axes, moment in ((panels[1], r"$\tau$ after training"), (panels[2], r"first $\tau$")):
        axes.set(xscale="log", xlabel=f"{moment}, in true periods", xticks=(0.5, 1, 2), xticklabels=("0.5", "1", "2"))
        axes.xaxis.set_minor_formatter("")
    for axes in panels:
        axes.set_yscale("log")
        axes.axhline(1, color="0.5", linewidth=0.8, linestyle=":")  # always answering 0
    for axes in panels[::2]:
        axes.set_ylabel("error")
    handles, labels = panels[0].get_legend_handles_labels()
    if handles:
        figure.legend(handles, labels, loc="outside upper center", ncols=3)
    save_figure(figure, folder / LEARNING)


def draw_networks(rows: Rows, axes: Any) -> None:
    from common.figure import COLOURS, LINE_STYLES, draw_means

    for (network, label), colour, style in zip(NETWORKS.items(), COLOURS, LINE_STYLES):
        errors = [(row["step"] * BATCH_SIZE, row["error"]) for row in rows if run_of(row) == Run(network)]
        if errors:
            draw_means(axes, errors, geometric_mean, linestyle=style, color=colour, linewidth=0.9, label=label)
    axes.set(xscale="log", xlabel="sequences seen")


def draw_basin(basin: Rows, axes: Any) -> None:
    from common.figure import COLOURS

    axes.axvspan(*basin_bounds(), color="0.85", linewidth=0)
    for seed, colour in zip(dict.fromkeys(row["seed"] for row in basin), COLOURS):
        mine = [row for row in basin if row["seed"] == seed]
        axes.plot([row["tau"] for row in mine], [row["error"] for row in mine], color=colour, linewidth=0.8)


def draw_starts(ends: dict[Run, Rows], names: tuple[str, ...], axes: Any) -> None:
    """Draw the last error of every run that learnt from a wrong start of one of these, leaking ones hollow."""
    from common.figure import COLOURS, MARKERS

    right = Run("learnt")
    for name, colour, marker in zip(names, COLOURS, MARKERS):
        for run, rows in ends.items():
            start = {name: getattr(run, name), "alpha": run.alpha}
            if run == right._replace(**start):
                face = "none" if run.alpha else colour
                axes.plot([start[name]] * len(rows), [row["error"] for row in rows], marker, color=colour, mfc=face)
        axes.plot([], [], marker, color=colour, label={"tau": r"$\tau$", "shift": "$s$", "r_on": "$r_{on}$"}[name])
    if len(names) > 1:
        axes.legend()


def basin_bounds() -> tuple[float, float]:
    """Return between which tau, in true periods, every signal falls into an open gate.

    The m-th of M signals, at mP, does for |mP - m tau| < r_on tau / 2; m = M decides: tau / P is from 1 / (1 + r) to
    1 / (1 - r), r = r_on / (2 M).
    """
    r = R_ON / 2 / (T // P)
    return 1 / (1 + r), 1 / (1 - r)


def build_parser() -> ExperimentParser:
    parser = ExperimentParser(__doc__, "part1/time_gate", jobs=False)
    parser.add_selection("--studies", tuple(STUDIES), "which parts of the experiment", choices=tuple(STUDIES))
    parser.add_selection("--seeds", SEEDS, "seeds", type=non_negative_int)
    steps = f"steps of every run (default: {TRAIN_STEPS}; of an LSTM {LSTM_STEPS:,})"
    parser.add_setting("--train_steps", type=positive_int, help=steps)
    return parser


if __name__ == "__main__":
    run_command(main)
