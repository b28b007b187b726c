"""From part4_training, part4_curves, part4_robustness, part4_corruption_errors, part4_numpy and benchmark_part4."""

import re
from collections.abc import Callable
from pathlib import Path
from statistics import mean

from part4.corruptions import BLUR_SIGMA, CONTRAST_FACTOR, CORRUPTIONS, JPEG_QUALITY, NOISE_STD, SEVERITIES
from part4.experiments.robustness import LABELS, REFERENCE
from report.values.format import fixed, percent, tabular, thousands

SECTION = Path(__file__).resolve().parents[1] / "sections" / "images.tex"
KEYS = {"Gaussian noise": "noise", "Gaussian blur": "blur", "contrast": "contrast", "JPEG": "jpeg"}
SETTINGS = {
    "Gaussian noise": ("standard deviation", NOISE_STD),
    "Gaussian blur": ("$\\sigma$ in pixels", BLUR_SIGMA),
    "contrast": ("factor $\\kappa$", CONTRAST_FACTOR),
    "JPEG": ("quality", JPEG_QUALITY),
}
RESULTS = ("training", "curves", "robustness", "corruption_errors")
NUM_TEST = 10_000
FUNCTIONS = {  # of benchmark_part4
    "convolution": "convolution",
    "filters": "gradient of the filters",
    "input": "gradient of the input",
    "pooling": "pooling",
    "pooling-back": "gradient through pooling",
}


def values(results: Callable) -> dict[str, str]:
    """Every accuracy, CE and RCE has a key; returned are the numbers that the section uses."""
    training, curves, robustness, errors = (results(f"part4_{name}") for name in RESULTS)
    parts = (
        of_training(training),
        of_curves(curves),
        of_robustness(robustness),
        of_errors(errors, robustness),
        of_numpy(results("part4_numpy")),
        of_benchmark(results("benchmark_part4")),
    )
    text = re.sub(r"(?<!\\)%.*", "", SECTION.read_text(encoding="utf-8"))
    used = set(re.findall(r"\\val\{images-([^}]*)\}", text))
    return {f"images-{key}": value for part in parts for key, value in part.items() if key in used}


def tables(results: Callable) -> dict[str, str]:
    training, _, robustness, errors = (results(f"part4_{name}") for name in RESULTS)
    return {
        "images-resnet18": severity_table(robustness),
        "images-corruption-errors": error_table(errors, training),
    }


def of_training(rows: list[dict]) -> dict[str, str]:
    found = {
        "epochs": str(rows[0]["epochs"]),
        "num-train": thousands(rows[0]["num_train"]),
    }
    for row in rows:
        model = short(row["model"])
        found |= {
            f"{model}-clean": percent(row["test_accuracy"], 1),
            f"{model}-parameters": f"{fixed(row['parameters'] / 1e6, 1)} million",
            f"{model}-minutes": fixed(row["minutes"], 0),
        }
    return found


def of_curves(rows: list[dict]) -> dict[str, str]:
    """After the last epoch: accuracy on the augmented training images and in validation, and the last five epochs' gain."""
    found = {}
    for model in dict.fromkeys(row["model"] for row in rows):
        chosen = sorted((row for row in rows if row["model"] == model), key=lambda row: row["epoch"])
        last, before = chosen[-1], chosen[max(0, len(chosen) - 6)]
        found |= {
            f"{short(model)}-last-training": percent(last["accuracy"], 1),
            f"{short(model)}-last-validation": percent(last["validation_accuracy"], 1),
            f"{short(model)}-last-gain": fixed(100 * (last["validation_accuracy"] - before["validation_accuracy"]), 1),
        }
    return found


def of_robustness(rows: list[dict]) -> dict[str, str]:
    accuracy = accuracies(rows)
    found = {"standard-error": fixed(100 * max((a * (1 - a) / NUM_TEST) ** 0.5 for a in accuracy.values()), 1)}
    for model in dict.fromkeys(row["model"] for row in rows):
        clean, drops = accuracy[model, "clean", 0], {}
        for corruption, key in KEYS.items():
            at = [accuracy[model, corruption, severity] for severity in SEVERITIES]
            drops[corruption] = clean - mean(at)
            found |= {f"{short(model)}-{key}-{severity}": percent(a, 1) for severity, a in zip(SEVERITIES, at)}
            found[f"{short(model)}-{key}-drop"] = fixed(100 * drops[corruption], 1)
        names = sorted(drops, key=lambda corruption: -drops[corruption])
        found[f"{short(model)}-drop-order"] = ", ".join(names)
    return found


def of_errors(rows: list[dict], robustness: list[dict]) -> dict[str, str]:
    """CE and RCE, and beside RCE the reading that subtracts the clean error once."""
    found, once = {}, {}
    error = {key: 1 - a for key, a in accuracies(robustness).items()}

    def total(model: str, corruption: str) -> float:
        return sum(error[model, corruption, severity] for severity in SEVERITIES)

    for row in rows:
        model, corruption = row["model"], row["corruption"]
        if corruption != "mean":
            added, reference = (total(name, corruption) - error[name, "clean", 0] for name in (model, REFERENCE))
            once[model, corruption] = added / reference
    for row in rows:
        key = f"{short(row['model'])}-{KEYS.get(row['corruption'], 'mean')}"
        found |= {f"{key}-ce": fixed(row["CE"], 2), f"{key}-rce": fixed(row["RCE"], 2)}
        if (row["model"], row["corruption"]) in once:
            found[f"{key}-rce-once"] = fixed(once[row["model"], row["corruption"]], 2)
    gaps = {
        (row["model"], row["corruption"]): row["RCE"] - once[row["model"], row["corruption"]]
        for row in rows
        if row["corruption"] != "mean"
    }
    model, corruption = max(gaps, key=lambda pair: abs(gaps[pair]))
    found |= {
        "reading-gap": fixed(abs(gaps[model, corruption]), 2),
        "reading-gap-where": f"{LABELS[model]}, {corruption}",
        "reading-gap-rce": found[f"{short(model)}-{KEYS[corruption]}-rce"],
        "reading-gap-once": found[f"{short(model)}-{KEYS[corruption]}-rce-once"],
    }
    for name in ("CE", "RCE"):
        means = {row["model"]: row[name] for row in rows if row["corruption"] == "mean"}
        found[f"{name.lower()}-order"] = in_order(means)
    return found


def of_numpy(rows: list[dict]) -> dict[str, str]:
    """Mean over the seeds, and their range."""
    seeds = [row for row in rows if row["epoch"] == 1]  # the tested accuracy stands in each row of a seed
    found = {}
    for key, column in (("numpy", "test_accuracy"), ("linear", "linear_test_accuracy")):
        tested = [row[column] for row in seeds]
        found |= {
            f"{key}-accuracy": percent(mean(tested), 1),
            f"{key}-range": f"{fixed(100 * min(tested), 1)} to {fixed(100 * max(tested), 1)}",
        }
    return found


def of_benchmark(rows: list[dict]) -> dict[str, str]:
    """Ratios of times: to PyTorch's, of loops to the products over patches, of a training step to torchvision's."""
    value = {(row["benchmark"], row["variant"]): row["value"] for row in rows}
    found = {}
    for key, function in FUNCTIONS.items():
        batch, one = (f"{function}, {size} x 16 x 32 x 32" for size in (128, 1))
        found[f"speed-{key}"] = fixed(value[batch, "ours"] / value[batch, "PyTorch"], 1)
        found[f"speed-{key}-loops"] = thousands(value[one, "ours, as the equation reads"] / value[one, "ours"])
    for (benchmark, variant), time in value.items():
        if benchmark.endswith("step of 128 images") and variant.startswith("ours, "):
            model, precision = benchmark.split(",")[0], variant.removeprefix("ours, ")
            found[f"speed-{short(model)}-{precision}"] = fixed(time / value[benchmark, "as in torchvision"], 2)
    return found


def severity_table(rows: list[dict]) -> str:
    """ResNet-18: accuracy by corruption and severity, what the severity is in numbers below."""
    accuracy, body = accuracies(rows), []
    clean = fixed(100 * accuracy[REFERENCE, "clean", 0], 1)
    for corruption in CORRUPTIONS:
        at = [fixed(100 * accuracy[REFERENCE, corruption, severity], 1) for severity in SEVERITIES]
        what, numbers = SETTINGS[corruption]
        body.append([capital(corruption), clean, *at])
        body.append([rf"\footnotesize\quad {what}", "", *(rf"\footnotesize {number:g}" for number in numbers)])
    return tabular(["severity", "clean", *map(str, SEVERITIES)], body, "lrrrrrr")


def error_table(rows: list[dict], training: list[dict]) -> str:
    """Clean accuracy, then CE and RCE by corruption and in the mean, of each network."""
    names = [*KEYS, "mean"]
    clean = {row["model"]: fixed(100 * row["test_accuracy"], 1) for row in training}
    value = {(row["model"], row["corruption"]): (fixed(row["CE"], 2), fixed(row["RCE"], 2)) for row in rows}
    body = [
        [LABELS[model], clean[model], *(value[model, name][k] for k in (0, 1) for name in names)]
        for model in dict.fromkeys(row["model"] for row in rows)
    ]
    groups = r" & & \multicolumn{5}{c}{CE} & \multicolumn{5}{c}{RCE} \\ \cmidrule(lr){3-7}\cmidrule(lr){8-12} "
    header = [groups, "clean", *(2 * [*(name.removeprefix("Gaussian ") for name in names)])]
    return tabular(header, body, "lrrrrrrrrrrr")


def accuracies(rows: list[dict]) -> dict[tuple[str, str, int], float]:
    return {(row["model"], row["corruption"], row["severity"]): row["accuracy"] for row in rows}


def in_order(value: dict[str, float]) -> str:
    """Return the networks' names, the lowest value first."""
    return ", ".join(LABELS[model] for model in sorted(value, key=value.__getitem__))


def short(model: str) -> str:
    return model.replace("_", "-")


def capital(text: str) -> str:
    return text[0].upper() + text[1:]
