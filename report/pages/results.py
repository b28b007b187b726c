"""The numbers of docs/results.md that the report has not, and the list of all result files."""

import json
from statistics import mean, stdev

from common.experiment import RESULTS
from part1.experiments import time_gate, variants
from part1.experiments.gradient_flow import mean_norms
from part2.experiments import decoding
from report.pages.format import from_tex, table
from report.values import Results, Rows, rows_with
from report.values.format import scientific, thousands
from report.values.images import three_answers


def values(results: Results) -> dict[str, str]:
    """Return accuracies with their spread, tables, and where every result comes from."""
    citation = results("part3_citation")
    found = {"results-files": files()}
    for dataset in ("cora", "citeseer"):
        for model in ("gcn", "gat"):
            runs = rows_with(citation, dataset=dataset, split="public", model=model)
            accuracies = [100 * row["accuracy"] for row in runs]
            found[f"results-{dataset}-{model}"] = f"{mean(accuracies):.1f} ± {stdev(accuracies):.1f} %"
    found["results-variants"] = variants_table(results("part1_variants"))
    images = three_answers(results("part4_corruption_errors"), results("part4_training"))
    header = [f"{measure}, {answer}" for measure in ("accuracy (%)", "CE", "RCE") for answer in ("ours", "A", "B")]
    found["results-images"] = table(["", *header], images)
    found["results-decoding"] = decoding_table(results("part2_decoding"))
    return found | gradient_ratios(results("part1_grads_over_time")) | gate_errors(results("part1_time_gate"))


def gradient_ratios(rows: Rows) -> dict[str, str]:
    """Return the gradient at the first digit divided by that at the last."""
    found = {}
    for family, model, T in dict.fromkeys((row["family"], row["model"], row["T"]) for row in rows):
        for moment, norms in mean_norms(rows, family, model, T).items():
            ratio = norms[0] / norms[-1]
            text = f"{ratio:.2g}" if ratio >= 0.01 else from_tex(scientific(ratio))
            found[f"results-gradient-{family}-{model}-{moment}"] = text
    return found | {"results-gradient-digits": str(max(row["T"] for row in rows))}


def variants_table(rows: Rows) -> str:
    """Return the mean accuracies with the settings of UvA 2020, at the longest T of each data set."""
    handout, lines = rows_with(rows, family="handout"), []
    for dataset in dict.fromkeys(row["dataset"] for row in handout):
        T = max(row["T"] for row in rows_with(handout, dataset=dataset))
        runs = rows_with(handout, dataset=dataset, T=T)
        cells = [mean_of_runs(rows_with(runs, model=model)) for model in variants.MODELS]
        guess = max(row["largest_class"] for row in runs)
        lines.append([f"{variants.TITLES[dataset]}, T = {T}", *cells, f"{guess:.3f}"])
    return table(["test accuracy (runs)", *variants.MODELS, "the largest class"], lines)


def mean_of_runs(runs: Rows) -> str:
    """Return the mean of runs and their number."""
    return f"{mean(run['test_accuracy'] for run in runs):.3f} ({len(runs)})" if runs else ""


def gate_errors(rows: Rows) -> dict[str, str]:
    """Return the last errors of networks with and without a clock, from the best seed to the worst."""
    found, ends = {}, time_gate.last_rows(rows)
    for key, run in (
        ("lstm", time_gate.Run("LSTM")),
        ("told", time_gate.Run("LSTM told k")),
        ("kept", time_gate.Run("fixed")),
        ("learnt", time_gate.Run("learnt")),
        ("wrong", time_gate.Run("learnt", tau=1.5)),
    ):
        errors = [row["error"] for row in ends[run]]
        found[f"results-gate-{key}"] = f"{min(errors):.1g} to {max(errors):.1g}"
        found[f"results-gate-{key}-steps"] = thousands(max(row["step"] for row in ends[run])).replace("{,}", ",")
    return found


def decoding_table(rows: Rows) -> str:
    """Return how likely, real and varied texts are that were written in some ways."""
    lines = []
    for way in (decoding.BOOK, "greedy", "10 beams", "tau 0.5", "tau 1", "top-p 0.9"):
        runs = rows_with(rows, way=way)
        log_p, words, pairs = (
            mean(row[column] for row in runs) for column in ("log_probability", "real_words", "distinct_pairs")
        )
        shares = (f"{100 * share:.0f} %" for share in (words, pairs))
        lines.append([way.replace("tau", "temperature"), f"{log_p:.2f}", *shares])
    return table(["", "log-probability of a character", "words of the book", "distinct pairs of words"], lines)


def files() -> str:
    """Return a table of report/results/: what made each file, from which commit; a star if files had been changed."""
    sources: dict[tuple[str, str, str], list[str]] = {}
    for path in sorted(RESULTS.glob("*.json")):
        made = json.loads(path.read_text(encoding="utf-8"))
        commit = made["commit"] or "unknown"
        key = (made["command"], commit.replace("-dirty", " *"), made["hardware"])
        sources.setdefault(key, []).append(path.stem)
    lines = [
        [", ".join(f"[{name}](../report/results/{name}.csv)" for name in names), f"`{command}`", *rest]
        for (command, *rest), names in sources.items()
    ]
    return table(["files", "command", "commit", "machine"], lines)
