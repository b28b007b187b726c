"""The numbers of docs/results.md that the report has not, and the list of all result files."""

import json
from statistics import mean, stdev

from common.experiment import RESULTS
from report.pages.format import table
from report.values import Results, rows_with


def values(results: Results) -> dict[str, str]:
    """Return accuracies with their spread, and where every result comes from."""
    citation = results("part3_citation")
    (densenet,) = rows_with(results("part4_training"), model="densenet121")
    found = {"results-files": files(), "results-densenet121-clean": f"{100 * densenet['test_accuracy']:.1f} %"}
    for dataset in ("cora", "citeseer"):
        for model in ("gcn", "gat"):
            runs = rows_with(citation, dataset=dataset, split="public", model=model)
            accuracies = [100 * row["accuracy"] for row in runs]
            found[f"results-{dataset}-{model}"] = f"{mean(accuracies):.1f} ± {stdev(accuracies):.1f} %"
    return found


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
