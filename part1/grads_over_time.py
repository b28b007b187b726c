"""The gradient over time, |dL/dh(t)|, of an RNN and an LSTM (question 1.7 of UvA November 2019).

    python part1/grads_over_time.py                               both untrained, palindromes of 100 digits
    python part1/grads_over_time.py --checkpoint RUN [RUN ...]    and runs of train.py, before and after training

The loss L looks at the last step only, so dL/dh(t) is what backpropagation carries from there to step t. Every
palindrome has its own L. Shown are the norm for the first palindrome, and the mean of the norms over all.

The figure and the table, grads_over_time.pdf, .png and .csv, go to the folder --output.
"""

import itertools
import sys
from argparse import Namespace
from copy import deepcopy
from pathlib import Path
from typing import Any

if not __package__:  # run as a script
    sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
    from common.interrupts import exit_on_interrupt

    exit_on_interrupt()  # while the imports below take their time
import torch
from torch import Tensor
from torch.nn import functional as F

from common.command import ArgumentParser, non_empty, positive_int, run_command, seed_number
from common.data import input_file
from common.errors import InputError, reason_of
from common.experiment import write_results
from common.machine import seeded_generator
from common.paths import ROOT, short_path
from common.run_folder import load_checkpoint
from part1.dataset import as_vectors, draw_palindromes
from part1.lstm import LSTM
from part1.vanilla_rnn import VanillaRNN
from recurrence.inputs import input_part
from recurrence.lstm import lstm_states
from recurrence.rnn import rnn_states

NAME = "grads_over_time"
FOLDER = ROOT / "runs" / "part1" / NAME
MODELS: dict[str, type[VanillaRNN | LSTM]] = {"RNN": VanillaRNN, "LSTM": LSTM}


def main() -> None:
    args = build_parser().parse_args()
    curves = {(name, "untrained"): norms for name, norms in untrained_norms(args).items()}
    for run in args.checkpoint:
        models, palindromes = load_run(Path(run), args.batch_size)
        for moment, model in (("before training", models["initial"]), ("after training", models["trained"])):
            curves[short_path(run), moment] = state_gradients(model, palindromes).norm(dim=2)
    folder = Path(args.output)
    write_results(NAME, table(curves), folder, seeds=[args.seed])
    draw(curves, folder)
    for (name, moment), norms in curves.items():
        first, last = norms.mean(dim=1)[[0, -1]]
        print(f"{name}, {moment}: |dL/dh(1)| / |dL/dh({len(norms)})| = {first:.1e} / {last:.1e} = {first / last:.1e}")
    print(f"figure and table: {short_path(folder / NAME)}.pdf, .png and .csv")


def untrained_norms(args: Namespace) -> dict[str, Tensor]:
    """Return |dL/dh(t)| of an untrained RNN and LSTM with train.py's first weights: {model: (T-1, B)}."""
    T = args.input_length + 1
    palindromes = draw_palindromes(args.batch_size, T, seeded_generator(args.seed, "gradient flow"))
    norms = {}
    for name, init in (("RNN", args.rnn_init), ("LSTM", args.lstm_init)):
        weights = seeded_generator(args.seed, "weights")
        model = MODELS[name](T, args.input_dim, args.num_hidden, 10, args.batch_size, init=init, generator=weights)
        norms[name] = state_gradients(model.double(), palindromes).norm(dim=2)  # what vanishes falls below float32
    return norms


def load_run(run_dir: Path, num_palindromes: int) -> tuple[dict[str, VanillaRNN | LSTM], Tensor]:
    """Return the models of a run of train.py, "initial" and "trained", and (num_palindromes, T) palindromes for them.

    Raises:
        FileNotFoundError: the folder has no checkpoint.
        ValueError: the checkpoint is not that of an RNN or an LSTM on palindromes.
    """
    path = run_dir / "checkpoint.pt"
    checkpoint = load_checkpoint(input_file(path, "the checkpoint of a run of part1/train.py"))
    settings = checkpoint["arguments"]
    if settings.get("model_type") not in MODELS or settings.get("dataset", "palindromes") != "palindromes":
        raise InputError(f"{short_path(path)} holds no RNN or LSTM that part1/train.py trained on palindromes")
    try:
        T, seed = settings["input_length"] + 1, settings["seed"]
        sizes = T, settings["input_dim"], settings["num_hidden"], settings["num_classes"], settings["batch_size"]
        weights = seeded_generator(seed, "weights")
        initial = MODELS[settings["model_type"]](*sizes, init=settings["init"], generator=weights).double()
        trained = deepcopy(initial)
        trained.load_state_dict(checkpoint["model"])
    except Exception as error:  # nearly any type, where somebody has made the file by hand
        raise InputError(f"{short_path(path)} holds no model that fits together ({reason_of(error)})") from None
    palindromes = draw_palindromes(num_palindromes, T, seeded_generator(seed, "gradient flow"))
    return {"initial": initial, "trained": trained}, palindromes


def state_gradients(model: VanillaRNN | LSTM, palindromes: Tensor) -> Tensor:
    """Return dL/dh(t) of every palindrome's own cross-entropy L, along all paths: (T-1, B, n) for (B, T) palindromes.

    The gradient of z(t) is d_a[t], and h(t) acts on L directly and through a(t+1) = z(t+1) + W h(t): so
    dL/dh(t) = direct part + W^T d_a[t+1].
    """
    W_x, W, b = (model.W_x, model.W_h, model.b) if isinstance(model, LSTM) else (model.W_hx, model.W_hh, model.b_h)
    x = as_vectors(palindromes[:, :-1], W_x.shape[1]).to(W_x).transpose(0, 1)  # (T-1, B, d)
    z, zeros = input_part(x, W_x, b), x.new_zeros(x.shape[1], W.shape[1])
    h = lstm_states(z, zeros, zeros, W, "bptt")[0] if isinstance(model, LSTM) else rnn_states(z, zeros, W)
    logits = h[-1] @ model.W_ph.t() + model.b_p
    loss = F.cross_entropy(logits, palindromes[:, -1], reduction="sum")  # a sum: each palindrome keeps its own gradient
    d_h, d_a = torch.autograd.grad(loss, (h, z))
    d_h = d_h.clone()
    d_h[:-1] += d_a[1:] @ W.detach()
    return d_h


def table(curves: dict[tuple[str, str], Tensor]) -> list[dict[str, Any]]:
    """Return one row for each curve, (T-1, B) norms by (name, moment), and each step t."""
    return [
        {"name": name, "moment": moment, "t": t, "first_palindrome": f"{first:.5e}", "mean": f"{mean:.5e}"}
        for (name, moment), norms in curves.items()
        for t, (first, mean) in enumerate(zip(norms[:, 0].tolist(), norms.mean(dim=1).tolist()), start=1)
    ]


def draw(curves: dict[tuple[str, str], Tensor], folder: Path) -> None:
    """Draw all curves: the mean as a thick line, dashed for a run before its training, the first palindrome thin."""
    from common.figure import COLOURS, new_figure, save_figure

    figure, (axes,) = new_figure(height=2.6 + 0.16 * len(curves))
    colours = dict(zip(dict.fromkeys(name for name, _ in curves), itertools.cycle(COLOURS)))
    for (name, moment), norms in curves.items():
        steps = range(1, len(norms) + 1)
        style = "--" if moment == "before training" else "-"
        style += "o" if len(norms) == 1 else ""  # a line of one point would not be seen
        axes.plot(steps, norms.mean(dim=1), style, color=colours[name], label=f"{name}, {moment}")
        axes.plot(steps, norms[:, 0], style, color=colours[name], linewidth=0.5, markersize=2)
    axes.set(xlabel="step $t$", ylabel=r"$\|\partial \mathcal{L} / \partial h^{(t)}\|$", yscale="log")
    figure.legend(loc="outside lower center")
    save_figure(figure, folder / NAME)


def build_parser() -> ArgumentParser:
    parser = ArgumentParser(__doc__)
    add = parser.add_argument
    add("--input_length", type=positive_int, default=99, help="digits that are read; the palindrome has one more")
    add("--input_dim", type=int, choices=(1, 10), default=1, help="1: digits as numbers, 10: one-hot")
    add("--num_hidden", type=positive_int, default=128, help="hidden units")
    add("--rnn_init", choices=VanillaRNN.INITS, default="default", help="the RNN's initialisation")
    add("--lstm_init", choices=LSTM.INITS, default="default", help="the LSTM's initialisation")
    add("--seed", type=seed_number, default=0, help="seed of weights and palindromes")
    add("--batch_size", type=positive_int, default=128, help="number of palindromes")
    runs = "folders of finished or interrupted runs of part1/train.py, which keep their own settings"
    add("--checkpoint", nargs="+", type=non_empty, default=[], metavar="RUN", help=runs)
    add("--output", type=non_empty, default=str(FOLDER), help="folder for the figure and the table")
    return parser


if __name__ == "__main__":
    run_command(main)
