"""What the LSTM learns from the fairy tales (UvA spring 2019, questions 2.1 and 2.2; UvA 2021, question 2.4).

    python -m part2.experiments.grimm --jobs 2

Three runs of `train.py` with its defaults, and one of UvA 2021's model (one layer of 1024 units) in bf16. Then, what
they write. Results, each a CSV under report/results/ with a .json beside it:

* part2_grimm_curves: loss and accuracy, the mean over the batches logged since the last row, and on the held-out tail.
* part2_grimm_samples: five greedy texts of 200 characters of the first run, at five stages of its training, and how
  long the longest piece of each is that stands in the book.
* part2_grimm_temperatures: how varied and how real the words are at seven temperatures, over 64 texts of 200 characters
  by the best weights of each run.
* part2_grimm_texts: three texts for each of the handout's temperatures, by the first run's best weights.
* part2_grimm_completions: ten prompts, completed by them.

These are of the default model. The last four are there of UvA 2021's, too, and their names end in _1024; its stages are
a third, two thirds and all of the training.
"""

import json
import re
from argparse import Namespace
from itertools import pairwise
from pathlib import Path
from statistics import mean
from typing import Any

import torch

from common.command import non_negative_int, positive_int, run_command
from common.experiment import ExperimentParser, FinishedRun, read_results, run_sweep, write_results
from common.jobs import Job
from common.machine import seeded_generator
from common.paths import ROOT, readable, short_path
from common.run_folder import read_metrics
from part2.dataset import decode, encode, find_text
from part2.model import TextGenerationModel, load_model

SEEDS = (0, 1, 2)
DEFAULT: dict[str, Any] = {"txt_file": "assets/grimm.txt", "sample_length": 200}
UVA_2021 = {
    **DEFAULT,
    "lstm_hidden_dim": 1024,
    "lstm_num_layers": 1,
    "embedding_size": 256,
    "batch_size": 128,
    "learning_rate": 1e-3,
    "precision": "bf16",
    "num_epochs": 6,
    "eval_every": 127,  # twice an epoch
    "sample_every": 508,  # after two, four and six epochs
}
MODELS = {"default": DEFAULT, "uva2021": UVA_2021}
ENDINGS = {"default": "", "uva2021": "_1024"}  # of the names of their results
NAMES = {"default": "2 x 128 units", "uva2021": "1 x 1024 units"}
RUNS = ROOT / "runs" / "part2"
TEMPERATURES = (0, 0.25, 0.5, 0.75, 1, 1.5, 2)
HANDOUT_TEMPERATURES = (0, 0.5, 1, 2)  # 0: greedy
NUM_TEXTS, TEXT_LENGTH = 64, 200
PROMPTS = (
    "Sleeping beauty is",
    "Once upon a time",
    "The wolf said to the",
    "Deep in the forest there",
    "The old king had three",
    '"Who are you?" asked the',
    "The princess wept and",
    "He opened the door and",
    "On the third day",
    "And so they lived",
)


def main() -> None:
    args = build_parser().parse_args()
    models = args.models if args.committed else measure(args)
    draw_curves(read_results("part2_grimm_curves", args.results), args.figures)
    shares = {model: read_results(f"part2_grimm_temperatures{ENDINGS[model]}", args.results) for model in models}
    draw_temperatures(shares, args.figures)
    for model, rows in shares.items():
        for tau in TEMPERATURES:
            means = (f"{mean_at(tau, rows, name):.3f} {name}" for name in ("real_words", "distinct_pairs"))
            print(f"{NAMES[model]}, temperature {tau:g}: {', '.join(means)}")
    figures = f"{short_path(args.figures)}/part2_grimm_curves.pdf and part2_grimm_temperatures.pdf"
    print(f"figures: {figures}; {short_path(args.results)}/ likewise")


def measure(args: Namespace) -> list[str]:
    """Run what is not finished yet, write the results, and return the models that there are results of."""
    runs = run_sweep({(model, seed): training_job(model, seed, args) for model, seed in chosen_plan(args)}, args)
    settings = {model: settings_of(model, args) for model in args.models}
    seeds, results = sorted({seed for _, seed in runs}), [result for _, result in runs.values()]
    about = {"seeds": seeds, "settings": settings, "results": results}
    write_results("part2_grimm_curves", curves(runs), args.results, **about)
    written = list(dict.fromkeys(model for model, _ in runs))
    for model in written:
        write_texts(model, {seed: folder for (name, seed), (folder, _) in runs.items() if name == model}, args.results)
    return written


def write_texts(model: str, folders: dict[int, Path], results: Path) -> None:
    """Write what a model's runs, one for each seed, have written while they trained and write now."""
    seeds = list(folders)
    trained = {seed: load_model(folder) for seed, folder in folders.items()}

    def write(name: str, rows: list[dict[str, Any]], **provenance: Any) -> None:
        write_results(f"part2_grimm_{name}{ENDINGS[model]}", rows, results, **provenance)

    write("samples", samples(folders[seeds[0]]), seeds=seeds[:1])
    write("temperatures", temperatures(trained), seeds=seeds, texts=NUM_TEXTS, length=TEXT_LENGTH)
    write("texts", texts(*trained[seeds[0]]), seeds=seeds[:1])
    write("completions", completions(*trained[seeds[0]]), seeds=seeds[:1])


def chosen_plan(args: Namespace) -> list[tuple[str, int]]:
    """Return (model, seed) of every run."""
    seeds = {"default": args.seeds or SEEDS, "uva2021": args.seeds or SEEDS[:1]}
    return [(model, seed) for model in args.models for seed in seeds[model]]


def training_job(model: str, seed: int, args: Namespace) -> Job:
    name = f"seed{seed}" if model == "default" else "1024" if seed == SEEDS[0] else f"1024_seed{seed}"
    return Job("part2/train.py", RUNS / f"grimm_study_{name}", {**settings_of(model, args), "seed": seed})


def settings_of(model: str, args: Namespace) -> dict[str, Any]:
    """Return the arguments of a model's runs; --train_steps takes the place of what is counted in its epochs."""
    settings = {**MODELS[model], **args.settings}
    if "train_steps" in settings:
        for name in ("num_epochs", "sample_every"):
            settings.pop(name, None)
    return settings


def curves(runs: dict[tuple[str, int], FinishedRun]) -> list[dict[str, Any]]:
    """Return one row for each evaluation of each run."""
    rows = []
    for (model, seed), (folder, _) in runs.items():
        metrics = {name: dict(pairs) for name, pairs in read_metrics(folder / "metrics.csv").items()}
        last = 0
        for step in metrics["held_out_loss"]:
            row = {"lstm_hidden_dim": MODELS[model].get("lstm_hidden_dim", 128), "seed": seed, "step": step}
            for name in ("loss", "accuracy"):
                row[name] = f"{mean(value for k, value in metrics[name].items() if last < k <= step):.5f}"
                row[f"held_out_{name}"] = f"{metrics[f'held_out_{name}'][step]:.5f}"
            rows.append({**row, "seconds": round(metrics["seconds"][step], 1)})
            last = step
    return rows


def samples(folder: Path) -> list[dict[str, Any]]:
    """Return the greedy texts of a run's stages, and how long the longest piece of each is that the book has."""
    stages = json.loads((folder / "samples.json").read_text(encoding="utf-8"))
    book = find_text(DEFAULT["txt_file"]).read_text(encoding="utf-8")
    return [
        {"step": stage["step"], "text": readable(text), "longest_copy": longest_copy(text, book)}
        for stage in stages
        for text in stage["texts"]
    ]


def longest_copy(text: str, book: str) -> int:
    """Return the length of the longest piece of a text that stands in the book."""
    longest = 0
    for start in range(len(text)):
        while start + longest < len(text) and text[start : start + longest + 1] in book:
            longest += 1
    return longest


def temperatures(models: dict[int, tuple[TextGenerationModel, dict[str, Any]]]) -> list[dict[str, Any]]:
    """Return, for each run and temperature, how varied and how real the words of many texts are."""
    book = set(words(find_text(DEFAULT["txt_file"]).read_text(encoding="utf-8")))
    rows = []
    for seed, (model, checkpoint) in models.items():
        for tau in TEMPERATURES:
            generator = seeded_generator(seed, f"temperature {tau:g}")
            numbers = model.sample(NUM_TEXTS, TEXT_LENGTH, tau, generator)  # (TEXT_LENGTH, NUM_TEXTS)
            # the first and the last word of a text may be cut
            written = [words(decode(text, checkpoint["vocabulary"]))[1:-1] for text in numbers.t()]
            pairs = [pair for text in written for pair in pairwise(text)]
            single = [word for text in written for word in text]
            rows.append(
                {
                    "seed": seed,
                    "temperature": tau,
                    "real_words": f"{share(sum(word in book for word in single), single):.4f}",
                    "distinct_words": f"{share(len(set(single)), single):.4f}",
                    "distinct_pairs": f"{share(len(set(pairs)), pairs):.4f}",
                }
            )
    return rows


def share(number: int, words: list[Any]) -> float:
    """Return the share of the words that are so many; 0 where a model that has hardly learnt has written none."""
    return number / max(1, len(words))


def texts(model: TextGenerationModel, checkpoint: dict[str, Any]) -> list[dict[str, Any]]:
    """Return three texts for each of the handout's temperatures, from the same three first characters."""
    rows = []
    for tau in HANDOUT_TEMPERATURES:
        prompt = torch.tensor([encode("TAH", checkpoint["vocabulary"])])
        numbers = model.complete(prompt, TEXT_LENGTH - 1, tau, seeded_generator(0, f"text {tau:g}"))
        rows += [{"temperature": tau, "text": readable(decode(text, checkpoint["vocabulary"]))} for text in numbers.t()]
    return rows


def completions(model: TextGenerationModel, checkpoint: dict[str, Any]) -> list[dict[str, Any]]:
    """Return what the model adds to each prompt: 100 characters, greedily and at two temperatures."""
    rows = []
    for prompt in PROMPTS:
        for tau in (0, 0.5, 1):
            numbers = torch.tensor(encode(prompt, checkpoint["vocabulary"])).unsqueeze(1)
            added = model.complete(numbers, 100, tau, seeded_generator(0, f"{prompt} {tau:g}"))[len(prompt) :, 0]
            completion = readable(decode(added, checkpoint["vocabulary"]))
            rows.append({"prompt": prompt, "temperature": tau, "completion": completion})
    return rows


def words(text: str) -> list[str]:
    return re.findall(r"[a-z]+(?:'[a-z]+)?", text.lower())


def draw_curves(rows: list[dict[str, Any]], folder: Path) -> None:
    """Draw loss and accuracy of every run against the characters read."""
    from common.figure import COLOURS, LINE_STYLES, new_figure, save_figure

    figure, panels = new_figure(1, 2, height=2.0)
    runs = dict.fromkeys((row["lstm_hidden_dim"], row["seed"]) for row in rows)
    for axes, name in zip(panels, ("loss", "accuracy")):
        labelled = set()
        for n, seed in runs:
            characters = 30 * (64 if n == 128 else 128) / 1e6
            chosen = [row for row in rows if (row["lstm_hidden_dim"], row["seed"]) == (n, seed)]
            read = [row["step"] * characters for row in chosen]
            k = 0 if n == 128 else 1
            style: dict[str, Any] = {"color": COLOURS[k], "linestyle": LINE_STYLES[k], "linewidth": 0.9}
            style["marker"] = "." if len(chosen) == 1 else None  # a line of one point would not be seen
            size = r"$2\times128$" if n == 128 else r"$1\times1024$"
            label = f"{size} units" if n not in labelled else None
            labelled.add(n)
            axes.plot(read, [row[f"held_out_{name}"] for row in chosen], **style, label=label and f"{label}, held out")
            axes.plot(read, [row[name] for row in chosen], **style, alpha=0.4, label=label and f"{label}, training")
        axes.set(xlabel="characters read (millions)", ylabel="cross-entropy (nats)" if name == "loss" else name)
    # The first steps, far off, are left out
    if min(row["held_out_loss"] for row in rows) < 2:
        panels[0].set_ylim(top=2.2)
        panels[1].set_ylim(bottom=0.4)
    panels[0].legend()
    save_figure(figure, folder / "part2_grimm_curves")


def draw_temperatures(shares: dict[str, list[dict[str, Any]]], folder: Path) -> None:
    """Draw every model's share of real words and of distinct word pairs against the temperature, a dot a run."""
    from common.figure import COLOURS, LINE_STYLES, MARKERS, new_figure, save_figure

    figure, panels = new_figure(1, 2, height=2.0)
    titles = {"real_words": "words that the book has", "distinct_pairs": "distinct pairs of words"}
    for axes, (name, title) in zip(panels, titles.items()):
        for k, (model, rows) in enumerate(shares.items()):
            taus, means = (row["temperature"] for row in rows), [mean_at(tau, rows, name) for tau in TEMPERATURES]
            axes.plot(list(taus), [row[name] for row in rows], MARKERS[k], color=COLOURS[k], label=NAMES[model])
            axes.plot(TEMPERATURES, means, color=COLOURS[k], linestyle=LINE_STYLES[k])
        axes.set(xlabel=r"temperature $\tau$", ylabel="share", title=title, ylim=(0, 1.03))
    panels[0].legend(loc="lower left")
    save_figure(figure, folder / "part2_grimm_temperatures")


def mean_at(temperature: float, rows: list[dict[str, Any]], name: str) -> float:
    return mean(row[name] for row in rows if row["temperature"] == temperature)


def build_parser() -> ExperimentParser:
    parser = ExperimentParser(__doc__, "part2/grimm_study")
    parser.add_selection("--models", tuple(MODELS), "train.py's default, or UvA 2021's", choices=tuple(MODELS))
    parser.add_selection("--seeds", None, "seeds (default: 0 1 2; of UvA 2021's model 0)", type=non_negative_int)
    train_steps = "number of steps (default: 10000; of UvA 2021's model 6 epochs)"
    parser.add_setting("--train_steps", type=positive_int, help=train_steps)
    return parser


if __name__ == "__main__":
    run_command(main)
