"""From part4_training, part4_curves, part4_robustness, part4_corruption_errors and part4_numpy."""

import re
from itertools import pairwise
from pathlib import Path
from statistics import mean

from part4.corruptions import BLUR_SIGMA, CONTRAST_FACTOR, CORRUPTIONS, JPEG_QUALITY, NOISE_STD, SEVERITIES
from part4.experiments.robustness import LABELS, PUBLISHED, REFERENCE
from report.values import Results, Rows, rows_with
from report.values.format import fixed, listed, percent, tabular, thousands

SECTIONS = Path(__file__).resolve().parents[1] / "sections"
KEYS = {"Gaussian noise": "noise", "Gaussian blur": "blur", "contrast": "contrast", "JPEG": "jpeg"}
SETTINGS = {
    "Gaussian noise": ("standard deviation", NOISE_STD),
    "Gaussian blur": ("$\\sigma$ in pixels", BLUR_SIGMA),
    "contrast": ("factor $\\kappa$", CONTRAST_FACTOR),
    "JPEG": ("quality", JPEG_QUALITY),
}
RESULTS = ("training", "curves", "robustness", "corruption_errors")
NUM_TEST = 10_000


def values(results: Results) -> dict[str, str]:
    """Every accuracy, CE and RCE has a key; return those that the report uses."""
    training, curves, robustness, errors = (results(f"part4_{name}") for name in RESULTS)
    parts = (
        of_training(training),
        of_curves(curves),
        of_robustness(robustness),
        of_errors(errors, robustness),
        beside_published(training),
        of_numpy(results("part4_numpy")),
    )
    sections = "".join(path.read_text(encoding="utf-8") for path in sorted(SECTIONS.glob("*.tex")))
    text = re.sub(r"(?<!\\)%.*", "", sections)
    used = set(re.findall(r"\\val\{images-([^}]*)\}", text))
    return {f"images-{key}": value for part in parts for key, value in part.items() if key in used}


def tables(results: Results) -> dict[str, str]:
    """Return ResNet-18's accuracies, every network's CE and RCE, and both beside those of two published answers."""
    training, _, robustness, errors = (results(f"part4_{name}") for name in RESULTS)
    return {
        "images-resnet18": severity_table(robustness),
        "images-corruption-errors": error_table(errors, training),
        "images-published": published_table(errors, training),
    }


def of_training(rows: Rows) -> dict[str, str]:
    found = {"epochs": str(rows[0]["epochs"]), "num-train": thousands(rows[0]["num_train"])}
    for row in rows:
        model = short(row["model"])
        found |= {
            f"{model}-clean": percent(row["test_accuracy"], 1),
            f"{model}-parameters": f"{fixed(row['parameters'] / 1e6, 1)} million",
        }
    return found


def of_curves(rows: Rows) -> dict[str, str]:
    """Return what the last five epochs gained in validation."""
    found: dict[str, str] = {}
    for model in dict.fromkeys(row["model"] for row in rows):
        chosen = sorted(rows_with(rows, model=model), key=lambda row: row["epoch"])
        last, before = chosen[-1], chosen[max(0, len(chosen) - 6)]
        gain = 100 * (last["validation_accuracy"] - before["validation_accuracy"])
        found[f"{short(model)}-last-gain"] = fixed(gain, 1)
    return found


def of_robustness(rows: Rows) -> dict[str, str]:
    accuracy = accuracies(rows)
    standard_errors = [(a * (1 - a) / NUM_TEST) ** 0.5 for a in accuracy.values()]
    found = {"standard-error": fixed(100 * max(standard_errors), 1)}
    for model in dict.fromkeys(row["model"] for row in rows):
        clean, drops = accuracy[model, "clean", 0], {}
        for corruption, key in KEYS.items():
            at = [accuracy[model, corruption, severity] for severity in SEVERITIES]
            drops[corruption] = clean - mean(at)
            steps = [fixed(100 * (before - after), 1) for before, after in pairwise([clean, *at])]
            found[f"{short(model)}-{key}-steps"] = listed(steps)
            found |= {f"{short(model)}-{key}-{severity}": percent(a, 1) for severity, a in zip(SEVERITIES, at)}
            found[f"{short(model)}-{key}-drop"] = fixed(100 * drops[corruption], 1)
    return found


def of_errors(rows: Rows, robustness: Rows) -> dict[str, str]:
    """Return CE and RCE, and beside RCE the reading that subtracts the clean error once."""
    error = {key: 1 - a for key, a in accuracies(robustness).items()}

    def added(model: str, corruption: str) -> float:
        return sum(error[model, corruption, severity] for severity in SEVERITIES) - error[model, "clean", 0]

    found: dict[str, str] = {}
    gaps: dict[tuple[str, str], float] = {}
    for row in rows:
        model, corruption = row["model"], row["corruption"]
        key = f"{short(model)}-{KEYS.get(corruption, 'mean')}"
        found |= {f"{key}-ce": fixed(row["CE"], 2), f"{key}-rce": fixed(row["RCE"], 2)}
        if corruption != "mean":
            once = added(model, corruption) / added(REFERENCE, corruption)
            found[f"{key}-rce-once"] = fixed(once, 2)
            gaps[model, corruption] = abs(row["RCE"] - once)
    model, corruption = max(gaps, key=gaps.__getitem__)
    found |= {
        "reading-gap": fixed(gaps[model, corruption], 2),
        "reading-gap-where": f"{LABELS[model]}, {corruption}",
        "reading-gap-rce": found[f"{short(model)}-{KEYS[corruption]}-rce"],
        "reading-gap-once": found[f"{short(model)}-{KEYS[corruption]}-rce-once"],
    }
    for name in ("CE", "RCE"):
        means = {row["model"]: row[name] for row in rows_with(rows, corruption="mean")}
        found[f"{name.lower()}-order"] = in_order(means)
    return found


def of_numpy(rows: Rows) -> dict[str, str]:
    """Return the mean and the range of the seeds' test accuracies."""
    seeds = rows_with(rows, epoch=1)  # the test accuracy stands in each row of a seed
    found: dict[str, str] = {}
    for key, column in (("numpy", "test_accuracy"), ("linear", "linear_test_accuracy")):
        tested = [row[column] for row in seeds]
        found |= {
            f"{key}-accuracy": percent(mean(tested), 1),
            f"{key}-range": f"{fixed(100 * min(tested), 1)} to {fixed(100 * max(tested), 1)}",
        }
    return found


def severity_table(rows: Rows) -> str:
    """Return ResNet-18's accuracy by corruption and severity, with what the severity is in numbers below."""
    accuracy, body = accuracies(rows), []
    clean = fixed(100 * accuracy[REFERENCE, "clean", 0], 1)
    for corruption in CORRUPTIONS:
        at = [fixed(100 * accuracy[REFERENCE, corruption, severity], 1) for severity in SEVERITIES]
        what, numbers = SETTINGS[corruption]
        body.append([capital(corruption), clean, *at])
        body.append([rf"\footnotesize\quad {what}", "", *(rf"\footnotesize {number:g}" for number in numbers)])
    return tabular(["severity", "clean", *map(str, SEVERITIES)], body, "lrrrrrr")


def error_table(rows: Rows, training: Rows) -> str:
    """Return each network's clean accuracy, then its CE and RCE by corruption and their means."""
    names = [*KEYS, "mean"]
    clean = {row["model"]: fixed(100 * row["test_accuracy"], 1) for row in training}
    body = []
    for model in dict.fromkeys(row["model"] for row in rows):
        of_model = {row["corruption"]: row for row in rows_with(rows, model=model)}
        measures = [fixed(of_model[name][measure], 2) for measure in ("CE", "RCE") for name in names]
        body.append([LABELS[model], clean[model], *measures])
    groups = r" & & \multicolumn{5}{c}{CE} & \multicolumn{5}{c}{RCE} \\ \cmidrule(lr){3-7}\cmidrule(lr){8-12} "
    columns = [name.removeprefix("Gaussian ") for name in names]
    return tabular([groups, "clean", *columns, *columns], body, "lrrrrrrrrrrr")


def beside_published(training: Rows) -> dict[str, str]:
    """Return by how many points the published accuracies are higher than ours."""
    ours = {row["model"]: row["test_accuracy"] for row in training}
    gaps = [100 * (clean - ours[model]) for models in PUBLISHED.values() for model, (clean, *_) in models.items()]
    return {"published-gaps": f"{fixed(min(gaps), 1)} to {fixed(max(gaps), 1)}"}


def published_table(rows: Rows, training: Rows) -> str:
    """Return `three_answers` as a table."""
    spans = [rf"\multicolumn{{3}}{{c}}{{{name}}}" for name in ("clean accuracy", "mean CE", "mean RCE")]
    groups = " & " + " & ".join(spans) + r" \\ \cmidrule(lr){2-4}\cmidrule(lr){5-7}\cmidrule(lr){8-10} "
    return tabular([groups, *["ours", *PUBLISHED] * 3], three_answers(rows, training), "lrrrrrrrrr")


def three_answers(rows: Rows, training: Rows) -> list[list[str]]:
    """Return each network's name, clean accuracies, mean CEs and mean RCEs: ours and those of two published answers."""
    clean, body = {row["model"]: row["test_accuracy"] for row in training}, []
    for row in rows_with(rows, corruption="mean"):
        model = row["model"]
        sources = [(clean[model], row["CE"], row["RCE"]), *(models.get(model) for models in PUBLISHED.values())]
        numbers = [[fixed(100 * n[0], 1), fixed(n[1], 2), fixed(n[2], 2)] if n else ["--"] * 3 for n in sources]
        body.append([LABELS[model], *(text for measure in zip(*numbers) for text in measure)])
    return body


def accuracies(rows: Rows) -> dict[tuple[str, str, int], float]:
    return {(row["model"], row["corruption"], row["severity"]): row["accuracy"] for row in rows}


def in_order(value: dict[str, float]) -> str:
    """Return the networks' names, the lowest value first."""
    return ", ".join(LABELS[model] for model in sorted(value, key=value.__getitem__))


def short(model: str) -> str:
    return model.replace("_", "-")


def capital(text: str) -> str:
    return text[0].upper() + text[1:]
