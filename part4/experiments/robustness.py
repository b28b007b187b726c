"""Accuracy of trained networks on clean and on corrupted images, and their corruption errors (question 1.2).

    python -m part4.experiments.robustness --jobs 2                      train the five networks, then test them
    python -m part4.experiments.robustness --models debug vgg11 --dataset synthetic --epochs 1      a sweep of your own
    python -m part4.experiments.robustness --runs RUN ... --name mine    test runs of your own, one for each network

With E_s the top-1 error at severity s of a corruption, E_clean the one on clean images, and R for ResNet-18:

    CE  = (E_1 + ... + E_5) / (E_1^R + ... + E_5^R)                                                               (1)
    RCE = ((E_1 - E_clean) + ... + (E_5 - E_clean)) / ((E_1^R - E_clean^R) + ... + (E_5^R - E_clean^R))           (2)

The handout's brackets leave open whether E_clean is subtracted once or from every term. Here it is subtracted from
every term, as in Hendrycks and Dietterich (2019, section 4, "relative mCE"), whom the handout follows: RCE measures
what the corruption adds.

The results are CSV files under report/results/ with a .json beside each: NAME_training (one row for each network),
NAME_curves (one for each epoch), NAME_robustness (one for each test set) and NAME_corruption_errors; the figures have
similar names. Those of a sweep of your own are in runs/part4/robustness/. The column `images` tells JPEG copies from
the original images: with copies, even the "clean" images have been through JPEG.
"""

import json
import math
from argparse import Namespace
from pathlib import Path
from statistics import mean
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from tqdm import tqdm

from common.command import non_negative_int, positive_int, run_command
from common.errors import CommandError
from common.experiment import ExperimentParser, read_results, run_sweep, write_results
from common.jobs import Job
from common.machine import get_device
from common.paths import ROOT, short_path
from common.run_folder import load_checkpoint, read_metrics
from part4.cifar10 import DATASETS, ImageData, load_images, normalise, to_unit
from part4.corruptions import CORRUPTIONS, SEVERITIES
from part4.experiments.numpy_network import num_images
from part4.networks import ARCHITECTURES, get_model

# A tenth of the handout's epochs, in bfloat16: as much as a CPU can do.
EPOCHS, PRECISION, SEED = 15, "bf16", 42
SETTINGS = {"dataset": "cifar10", "epochs": EPOCHS, "precision": PRECISION, "seed": SEED}
RUNS = ROOT / "runs" / "part4" / "robustness"
REFERENCE = "resnet18"
BATCH = 500
LABELS = {
    "vgg11": "VGG-11",
    "vgg11_bn": "VGG-11 with BN",
    "resnet18": "ResNet-18",
    "resnet34": "ResNet-34",
    "densenet121": "DenseNet-121",
    "debug": "linear",
}
# Two students' answers to UvA 2021's question: accuracy, mean CE and mean RCE after 150 epochs on the original images.
# CE and RCE are computed from the accuracies that stand in their repositories; B's VGG-11 with BN did not train.
PUBLISHED = {
    "A": {
        "vgg11": (0.851, 0.913, 1.226),
        "vgg11_bn": (0.859, 0.948, 1.408),
        "resnet18": (0.805, 1, 1),
        "resnet34": (0.803, 0.993, 0.978),
        "densenet121": (0.822, 1.000, 1.171),
    },
    "B": {
        "vgg11": (0.855, 0.941, 1.175),
        "resnet18": (0.824, 1, 1),
        "resnet34": (0.808, 1.037, 0.940),
        "densenet121": (0.819, 1.054, 1.091),
    },
}


class Run(NamedTuple):
    """A finished training: its folder, config.json and result.json, and the weights that were best in validation."""

    path: Path
    config: dict[str, Any]
    result: dict[str, Any]
    model: nn.Module
    mean: Tensor
    std: Tensor
    checksum: str

    @property
    def name(self) -> str:
        return self.config["arguments"]["model_name"]


def main() -> None:
    args = build_parser().parse_args()
    if not args.committed:
        write_all(args)
    rows, curves = (read_results(f"{args.name}_{table}", args.results) for table in ("robustness", "curves"))
    print_tables(rows)
    draw_severities(rows, args.figures / f"{args.name}_robustness")
    draw_curves(curves, args.figures / f"{args.name}_curves")
    if any(row["model"] == REFERENCE for row in rows):
        draw_reference(rows, args.figures / f"{args.name}_resnet18")
    results, figures = short_path(args.results / args.name), short_path(args.figures / args.name)
    print(f"results: {results}_*.csv; figures: {figures}_*.pdf")


def write_all(args: Namespace) -> None:
    """Train what is not finished yet, test it, and write the results."""
    device = get_device(args.device)
    runs = [load_run(folder, device) for folder in (map(Path, args.runs) if args.runs else train_all(args))]
    check_together(runs)
    data = load_images(runs[0].config["arguments"]["dataset"], args.data_dir)
    seeds = sorted({run.config["arguments"]["seed"] for run in runs})
    rows = measure(runs, data, device)
    write_results(f"{args.name}_training", training_table(runs), args.results, seeds=seeds)
    write_results(f"{args.name}_curves", training_curves(runs), args.results, seeds=seeds)
    write_results(f"{args.name}_robustness", rows, args.results, seeds=seeds)
    if errors := corruption_errors(rows):
        write_results(f"{args.name}_corruption_errors", errors, args.results, seeds=seeds, reference=REFERENCE)


def train_all(args: Namespace) -> list[Path]:
    """Train the networks, and return their run folders."""
    load_images(args.dataset, args.data_dir, args.num_train)  # fills the cache before several runs need it at once
    where = {"data_dir": args.data_dir} if args.data_dir else {}
    jobs = {
        model: Job("part4/train.py", RUNS / model, {"model_name": model, **SETTINGS, **where}) for model in args.models
    }
    return [folder for folder, _ in run_sweep(jobs, args).values()]


def corruption_error(errors: list[float], reference: list[float]) -> float:
    """Return CE: the sum of a network's errors over the severities, divided by that of the reference (equation 1).

    It is NaN where the reference makes no errors.
    """
    return sum(errors) / sum(reference) if sum(reference) else math.nan


def relative_corruption_error(
    errors: list[float], clean: float, reference: list[float], reference_clean: float
) -> float:
    """Return RCE: what corruption adds to a network's error, divided by what it adds to the reference's (equation 2).

    It is NaN where corruption adds nothing to the reference's error.
    """
    added = sum(error - clean for error in errors)
    reference_added = sum(error - reference_clean for error in reference)
    return added / reference_added if reference_added else math.nan


def corruption_errors(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return CE and RCE of every network for each corruption, and their means; no rows if the reference is missing."""
    error = {(row["model"], row["corruption"], row["severity"]): 1 - row["accuracy"] for row in rows}
    if (REFERENCE, "clean", 0) not in error:
        return []
    clean_R, table = error[REFERENCE, "clean", 0], []
    for model in dict.fromkeys(row["model"] for row in rows):
        clean, CE, RCE = error[model, "clean", 0], {}, {}
        for corruption in CORRUPTIONS:
            E = [error[model, corruption, severity] for severity in SEVERITIES]
            E_R = [error[REFERENCE, corruption, severity] for severity in SEVERITIES]
            CE[corruption] = corruption_error(E, E_R)
            RCE[corruption] = relative_corruption_error(E, clean, E_R, clean_R)
        CE["mean"], RCE["mean"] = mean(CE.values()), mean(RCE.values())
        for corruption in CE:
            row = {"images": rows[0]["images"], "model": model, "corruption": corruption}
            table.append({**row, "CE": f"{CE[corruption]:.4f}", "RCE": f"{RCE[corruption]:.4f}"})
    return table


@torch.no_grad()
def measure(runs: list[Run], data: ImageData, device: torch.device) -> list[dict[str, Any]]:
    """Return the accuracy of every run on the clean test images and at each severity of each corruption.

    Raises:
        CommandError: a run was trained on other images than these.
    """
    for run in runs:
        if run.checksum != data.checksum:
            raise CommandError(f"{short_path(run.path)} was trained on other images than the {data.name} found here")
    test_sets = [("clean", 0), *((corruption, severity) for corruption in CORRUPTIONS for severity in SEVERITIES)]
    num_test, rows = len(data.test.labels), []
    for corruption, severity in tqdm(test_sets, desc="testing", unit="test set", disable=None, leave=False):
        transform = CORRUPTIONS[corruption](severity) if severity else None
        correct = [0] * len(runs)
        for pixels, labels in zip(data.test.pixels.split(BATCH), data.test.labels.split(BATCH)):
            images = to_unit(pixels)
            images = (transform(images) if transform else images).to(device)
            for k, run in enumerate(runs):
                x = normalise(images, run.mean, run.std).contiguous(memory_format=torch.channels_last)
                correct[k] += (run.model(x).argmax(dim=1).cpu() == labels).sum().item()
        for run, number in zip(runs, correct):
            row = {"images": data.name, "model": run.name, "corruption": corruption, "severity": severity}
            rows.append({**row, "accuracy": number / num_test})
    order = [run.name for run in runs]
    return sorted(rows, key=lambda row: order.index(row["model"]))


def load_run(folder: Path, device: torch.device) -> Run:
    """Return a finished run.

    Raises:
        CommandError: the folder holds none.
    """
    for file in ("config.json", "result.json", "best.pt", "metrics.csv"):
        if not (folder / file).is_file():
            raise CommandError(f"{short_path(folder)} holds no finished run of part4/train.py: {file} is missing")
    config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    result = json.loads((folder / "result.json").read_text(encoding="utf-8"))
    best = load_checkpoint(folder / "best.pt")
    try:
        model = get_model(best["arguments"]["model_name"], stem=best["arguments"]["stem"])
        model.load_state_dict(best["model"])
        mean, std, checksum = best["mean"].to(device), best["std"].to(device), best["images"]
    except (KeyError, ValueError, RuntimeError):
        raise CommandError(f"{short_path(folder)} holds no run of part4/train.py") from None
    model = model.to(device, memory_format=torch.channels_last).eval()  # type: ignore[call-overload]
    return Run(folder, config, result, model, mean, std, checksum)


def check_together(runs: list[Run]) -> None:
    """Raise a CommandError if two runs are of the same network."""
    for k, run in enumerate(runs):
        for other in runs[:k]:
            if other.name == run.name:
                folders = f"{short_path(other.path)} and {short_path(run.path)}"
                raise CommandError(f"{folders} are both runs of {run.name}: pass one for each network")


def training_table(runs: list[Run]) -> list[dict[str, Any]]:
    """Return one row for each run: its settings and its results."""
    rows = []
    for run in runs:
        arguments, result = run.config["arguments"], run.result
        rows.append(
            {
                "model": run.name,
                "images": result["images"],
                **{key: arguments[key] for key in ("stem", "batch_size", "lr", "precision", "seed")},
                **{key: result[key] for key in ("num_train", "parameters", "epochs", "best_epoch")},
                **{key: f"{result[key]:.4f}" for key in ("validation_accuracy", "test_accuracy")},
                "minutes": f"{result['seconds'] / 60:.1f}",
                "hardware": run.config["hardware"],
            }
        )
    return rows


def training_curves(runs: list[Run]) -> list[dict[str, Any]]:
    """Return one row for each run and epoch: the mean over the logged training batches, and the validation after it."""
    rows = []
    for run in runs:
        metrics, last = read_metrics(run.path / "metrics.csv"), 0
        for epoch, (step, _) in enumerate(metrics["validation_loss"], start=1):
            row = {"model": run.name, "epoch": epoch}
            for name in ("loss", "accuracy"):
                in_training = mean(value for k, value in metrics[name] if last < k <= step)
                in_validation = dict(metrics[f"validation_{name}"])[step]
                row[name] = round(in_training, 5)
                row[f"validation_{name}"] = round(in_validation, 5)
            rows.append(row)
            last = step
    return rows


def print_tables(rows: list[dict[str, Any]]) -> None:
    for model in dict.fromkeys(row["model"] for row in rows):
        accuracy = {(row["corruption"], row["severity"]): row["accuracy"] for row in rows if row["model"] == model}
        images = f"clean images ({rows[0]['images']})"
        print(f"{LABELS[model]}: accuracy {accuracy['clean', 0]:.4f} on {images}; at severities 1 to 5:")
        for corruption in CORRUPTIONS:
            numbers = "".join(f"{accuracy[corruption, severity]:8.4f}" for severity in SEVERITIES)
            print(f"    {corruption:<15}{numbers}")
    for row in corruption_errors(rows):
        print(f"{LABELS[row['model']]:<15} {row['corruption']:<15} CE {row['CE']}  RCE {row['RCE']}")
    if not corruption_errors(rows):
        print(f"CE and RCE compare with {LABELS[REFERENCE]}: pass a run of it, too")


def draw_reference(rows: list[dict[str, Any]], path: Path) -> None:
    """Draw the figure of question 1.2a: ResNet-18's accuracy by severity (0 is clean), one line for each corruption."""
    from common.figure import COLOURS, LINE_STYLES, MARKERS, new_figure, save_figure

    figure, (axes,) = new_figure()
    for k, corruption in enumerate(CORRUPTIONS):
        style: dict[str, Any] = {"color": COLOURS[k], "linestyle": LINE_STYLES[k], "marker": MARKERS[k]}
        axes.plot(*severity_curve(rows, REFERENCE, corruption), **style, label=corruption)
    axes.set(xlabel="severity (0: clean)", ylabel="test accuracy of ResNet-18")
    axes.legend()
    save_figure(figure, path)


def draw_severities(rows: list[dict[str, Any]], path: Path) -> None:
    """Draw accuracy by severity: one panel for each corruption, one line for each network."""
    from common.figure import COLOURS, LINE_STYLES, MARKERS, new_figure, save_figure

    figure, panels = new_figure(2, 2, height=1.8, sharex=True, sharey=True)
    for axes, corruption in zip(panels, CORRUPTIONS):
        for k, model in enumerate(dict.fromkeys(row["model"] for row in rows)):
            style: dict[str, Any] = {"color": COLOURS[k], "linestyle": LINE_STYLES[k], "marker": MARKERS[k]}
            axes.plot(*severity_curve(rows, model, corruption), **style, label=LABELS[model])
        axes.set(title=corruption)
    for axes in panels[2:]:
        axes.set_xlabel("severity (0: clean)")
    for axes in panels[::2]:
        axes.set_ylabel("test accuracy")
    panels[0].legend()
    save_figure(figure, path)


def draw_curves(curves: list[dict[str, Any]], path: Path) -> None:
    """Draw each network's accuracy by epoch, in validation and on the training images, a panel for each network."""
    from common.figure import COLOURS, LINE_STYLES, new_figure, save_figure

    models = list(dict.fromkeys(row["model"] for row in curves))
    figure, panels = new_figure(1, len(models), height=1.7, sharey=True)
    for axes, model in zip(panels, models):
        chosen = [row for row in curves if row["model"] == model]
        epochs = [row["epoch"] for row in chosen]
        marker = "." if len(chosen) == 1 else None  # a line of one point would not be seen
        for k, (column, label) in enumerate({"validation_accuracy": "validation", "accuracy": "training"}.items()):
            style: dict[str, Any] = {"color": COLOURS[k], "linestyle": LINE_STYLES[k], "marker": marker}
            axes.plot(epochs, [row[column] for row in chosen], **style, label=label)
        axes.set_title(LABELS[model], fontsize=8)
        axes.set_xlabel("epoch")
    panels[0].set_ylabel("accuracy")
    panels[0].locator_params(axis="y", nbins=4)
    figure.legend(*panels[0].get_legend_handles_labels(), loc="outside lower center", ncols=2)
    save_figure(figure, path)


def severity_curve(rows: list[dict[str, Any]], model: str, corruption: str) -> tuple[list[int], list[float]]:
    """Return severities, from 0 for clean images, and accuracies."""
    chosen = [row for row in rows if row["model"] == model and row["corruption"] in ("clean", corruption)]
    chosen.sort(key=lambda row: row["severity"])
    return [row["severity"] for row in chosen], [row["accuracy"] for row in chosen]


def build_parser() -> ExperimentParser:
    parser = ExperimentParser(__doc__, "part4/robustness")
    parser.add_selection("--models", tuple(ARCHITECTURES), "which networks; debug is linear", choices=tuple(LABELS))
    parser.add_setting("--epochs", type=positive_int, default=EPOCHS, help="passes over the training images")
    parser.add_setting("--seed", type=non_negative_int, default=SEED, help="seed of every run")
    parser.add_setting("--dataset", choices=DATASETS, default=SETTINGS["dataset"], help="synthetic: coloured shapes")
    parser.add_setting("--num_train", type=num_images, help="number of training images (default: all)")
    parser.add_sweep_argument("--runs", nargs="+", help="test these finished runs instead, one for each network")
    parser.add_sweep_argument("--name", default="part4", help="prefix of the results' and figures' names")
    parser.add_argument("--data_dir", help="folder of the data sets; default $DATA_DIR, else data/")
    parser.add_argument("--device", default="auto", help="device for the tests: auto, cpu, cuda, cuda:1, ...")
    return parser


if __name__ == "__main__":
    run_command(main)
