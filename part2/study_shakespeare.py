"""How low the held-out loss on tiny Shakespeare gets in 8 and in 30 minutes on two cores.

    python part2/study_shakespeare.py

The first 90 % of the characters are trained on, the last 10 % held out, as nanoGPT does (its README: 1.88 nats a character in
about three minutes of a laptop's processor, 1.4697 in about three minutes of an A100). Two runs of `train.py`, one after the
other so that each has both cores; time counts everything, evaluations and checkpoints included. The result is
report/results/part2_shakespeare.csv, and the figure of the same name.
"""

import sys
from pathlib import Path
from typing import Any

if not __package__:  # run as a script
    sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from common.errors import run_command
from common.experiment import FIGURES, Job, experiment_parser, read_results, run_jobs, write_results
from common.machine import ROOT, short_path
from common.run_folder import read_metrics
from part2.download import save_book

NAME = "part2_shakespeare"
SETTINGS = {
    "stateful": True,
    "precision": "bf16",
    "embedding_size": 128,
    "lstm_hidden_dim": 512,
    "seq_length": 64,
    "batch_size": 64,
    "schedule": "cosine",
    "max_norm": 1.0,
    "seed": 0,
}
RUNS = {
    "8 minutes": {"lstm_num_layers": 1, "learning_rate": 3e-3, "dropout_keep_prob": 0.6, "train_steps": 4_000},
    "30 minutes": {"lstm_num_layers": 2, "learning_rate": 2e-3, "dropout_keep_prob": 0.5, "train_steps": 8_000},
}
NANOGPT = {"laptop": 1.88, "A100": 1.4697}  # nats a character, its README


def main() -> None:
    args = experiment_parser(__doc__).parse_args()
    if not args.draw_only:
        write_results(NAME, measure(args.jobs), seeds=[0], settings={name: {**SETTINGS, **RUNS[name]} for name in RUNS})
    rows = read_results(NAME)
    draw(rows)
    for name in RUNS:
        best = min((row for row in rows if row["run"] == name), key=lambda row: row["held_out_loss"])
        last = [row for row in rows if row["run"] == name][-1]
        print(f"{name}: {best['held_out_loss']:.4f} nats a character, {last['minutes']:.1f} minutes in all")
    print(f"results and figure: {short_path(FIGURES / NAME)}.pdf, report/results/{NAME}.csv")


def measure(num_parallel: int) -> list[dict[str, Any]]:
    """Return one row for each evaluation of each run."""
    text, rows = save_book("shakespeare"), []
    for name, settings in RUNS.items():
        arguments = {"txt_file": str(text), **SETTINGS, **settings}
        job = Job("part2/train.py", ROOT / "runs" / "part2" / f"shakespeare {name}".replace(" ", "_"), arguments)
        run_jobs([job], num_parallel)
        metrics = read_metrics(job.run_dir / "metrics.csv")
        seconds = dict(metrics["seconds"])
        rows += [
            {"run": name, "step": step, "minutes": round(seconds[step] / 60, 3), "held_out_loss": loss}
            for step, loss in metrics["held_out_loss"]
        ]
    return rows


def draw(rows: list[dict[str, Any]]) -> None:
    """Draw the held-out loss of both runs against time."""
    from common.figure import COLOURS, LINE_STYLES, new_figure, save_figure

    figure, (axes,) = new_figure()
    for k, name in enumerate(RUNS):
        chosen = [row for row in rows if row["run"] == name]
        label = f"{RUNS[name]['lstm_num_layers']} x {SETTINGS['lstm_hidden_dim']} units: "
        label += f"{min(row['held_out_loss'] for row in chosen):.3f}"
        minutes, losses = [row["minutes"] for row in chosen], [row["held_out_loss"] for row in chosen]
        axes.plot(minutes, losses, "o", linestyle=LINE_STYLES[k], color=COLOURS[k], label=label)
    axes.axhline(NANOGPT["A100"], color="0.4", linestyle=":", label=f"nanoGPT on an A100: {NANOGPT['A100']}")
    axes.set(xlabel="minutes on two cores", ylabel="held-out loss (nats a character)", ylim=(1.38, 1.75))
    axes.legend()
    save_figure(figure, FIGURES / NAME)


if __name__ == "__main__":
    run_command(main)
