"""How far the gradient travels back through time: the norm of dL/dh(t) against t (question 1.1).

    python -m part1.experiments.gradient_flow --jobs 2

The loss L looks at the last step only, so dL/dh(t) is what backpropagation carries from there to step t: for the RNN a
product of T-1-t Jacobians diag(1 - h^2) W_hh. It is shown at initialisation and after training, for both models in both
settings of `accuracy_by_length.py`, whose runs are used where they are finished and trained where not. The result is
report/results/part1_gradient_flow.csv, and the figure of the same name.
"""

from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from common.command import run_command
from common.experiment import FIGURES, ExperimentParser, read_results, run_jobs, write_results
from common.jobs import Executor
from common.machine import seeded_generator
from common.paths import short_path
from common.run_folder import load_checkpoint
from part1.dataset import as_vectors, draw_palindromes
from part1.experiments.accuracy_by_length import SETTINGS, training_job
from part1.lstm import LSTM
from part1.vanilla_rnn import VanillaRNN
from recurrence.inputs import input_part
from recurrence.lstm import lstm_states
from recurrence.rnn import rnn_states

NAME = "part1_gradient_flow"
LENGTHS = (10, 30, 60)
SEEDS = (0, 1, 2)
NUM_PALINDROMES = 500
MODELS = {"RNN": VanillaRNN, "LSTM": LSTM}


def main() -> None:
    args = ExperimentParser(__doc__).parse_args()
    if not args.draw_only:
        write_results(NAME, measure(args.executor), seeds=SEEDS)
    rows = read_results(NAME)
    draw(rows)
    for family, model in SETTINGS:
        for T in LENGTHS:
            mean = mean_norms(rows, family, model, T)
            ratios = ", ".join(
                f"{mean[moment][0] / mean[moment][-1]:.1e} {moment}" for moment in ("initial", "trained")
            )
            print(f"{family} {model}, T = {T}: |dL/dh(1)| / |dL/dh(T-1)| = {ratios}")
    print(f"results and figure: {short_path(FIGURES / NAME)}.pdf, report/results/{NAME}.csv")


def measure(executor: Executor) -> list[dict[str, Any]]:
    """Return one row for each family, model, length, seed, moment and step t."""
    plan = [(family, model, T, seed) for family, model in SETTINGS for T in LENGTHS for seed in SEEDS]
    jobs = [training_job(*run) for run in plan]
    run_jobs(jobs, executor)
    rows = []
    for (family, name, T, seed), job in zip(plan, jobs):
        for moment, norms in gradient_norms(job.run_dir, NUM_PALINDROMES).items():
            rows += [
                {"family": family, "model": name, "T": T, "seed": seed, "moment": moment, "t": t, "norm": f"{norm:.5e}"}
                for t, norm in enumerate(norms.tolist(), start=1)
            ]
    return rows


def gradient_norms(run_dir: Path, num_palindromes: int) -> dict[str, Tensor]:
    """Return |dL/dh(t)| of a finished run, before and after training, means over palindromes: (T-1,) each."""
    checkpoint = load_checkpoint(run_dir / "checkpoint.pt")
    settings = checkpoint["arguments"]
    T, seed = settings["input_length"] + 1, settings["seed"]
    sizes = T, settings["input_dim"], settings["num_hidden"], settings["num_classes"], settings["batch_size"]
    model = MODELS[settings["model_type"]](*sizes, init=settings["init"], generator=seeded_generator(seed, "weights"))
    model.double()  # what vanishes falls below float32
    palindromes = draw_palindromes(num_palindromes, T, seeded_generator(seed, "gradient flow"))
    norms = {}
    for moment in ("initial", "trained"):
        if moment == "trained":
            model.load_state_dict(checkpoint["model"])
        norms[moment] = state_gradients(model, palindromes).norm(dim=2).mean(dim=1)
    return norms


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


def mean_norms(rows: list[dict[str, Any]], family: str, model: str, T: int) -> dict[str, list[float]]:
    """Return the geometric mean over seeds for t = 1 ... T-1, at both moments."""
    curves = {}
    for moment in ("initial", "trained"):
        chosen = [r for r in rows if (r["family"], r["model"], r["T"], r["moment"]) == (family, model, T, moment)]
        norms = torch.tensor([[r["norm"] for r in chosen if r["t"] == t] for t in range(1, T)], dtype=torch.float64)
        curves[moment] = norms.log().mean(dim=1).exp().tolist()
    return curves


def draw(rows: list[dict[str, Any]]) -> None:
    """Draw one panel for each model and setting: full lines after training, dotted ones before."""
    from common.figure import COLOURS, new_figure, save_figure

    figure, panels = new_figure(2, 2, sharex=True)
    for axes, (family, model) in zip(panels, SETTINGS):
        for colour, T in zip(COLOURS, LENGTHS):
            for moment, style in (("initial", ":"), ("trained", "-")):
                label = f"$T = {T}$" if moment == "trained" else None
                axes.plot(range(1, T), mean_norms(rows, family, model, T)[moment], style, color=colour, label=label)
        axes.set(yscale="log", title=f"{model}, {family}")
    panels[0].plot([], [], ":", color="0.4", label="before training")
    panels[0].legend()
    for axes in panels[::2]:
        axes.set_ylabel(r"$\|\partial \mathcal{L} / \partial h^{(t)}\|$")
    for axes in panels[2:]:
        axes.set_xlabel("step $t$")
    save_figure(figure, FIGURES / NAME)


if __name__ == "__main__":
    run_command(main)
