"""From part3_qm9 and part3_qm9_limits."""

from collections import defaultdict
from math import floor, log10
from statistics import mean

from report.values import Results, Rows
from report.values.format import fixed, mean_std, scientific, tabular, thousands

NAMES = {
    "MLP": ("mlp", "MLP, numbered atoms"),
    "MLP, trained on renumbered atoms": ("mlp-renumbered", "MLP, augmented"),
    "GNN": ("gnn", "GNN (the course's)"),
    "deep GNN": ("deep", "deep GNN"),
    "deep GNN with rings": ("rings", "deep GNN with rings"),
}
FEW = 20_000


def runs_of(rows: Rows) -> dict[tuple[str, bool], Rows]:
    """Return {(model, trained on all molecules or not): rows}."""
    groups = defaultdict(list)
    for row in rows:
        groups[row["model"], row["num_train"] != FEW].append(row)
    return groups


def values(results: Results) -> dict[str, str]:
    """Return the measured numbers of the section."""
    rows = results("part3_qm9")
    groups = runs_of(rows)
    limits = {row["what"]: row for row in results("part3_qm9_limits")}
    largest = max(rows, key=lambda row: row["num_train"])
    line = largest["counts_mae_mev"]
    kcal = mean(row["test_mae_mev"] / row["test_mae_kcal_per_mol"] for row in rows)
    twins = [row for what, row in limits.items() if "look alike" in what]
    by_ring_count = [row["molecules"] for what, row in limits.items() if what.startswith("error") and "ring" in what]
    shifts = [abs(row["permuted_test_mae_mev"] - row["test_mae_mev"]) for row in rows if "GNN" in row["model"]]
    found = {
        "molecules-train": thousands(largest["num_train"]),
        "molecules-test": thousands(sum(by_ring_count)),
        "molecules-mean-error": f"{thousands(largest['mean_mae_mev'])} meV",
        "molecules-counts-error": f"{thousands(line)} meV",
        "molecules-kcal": f"{fixed(kcal, 1)} meV",
        "molecules-largest-shift": f"{scientific(max(shifts))} meV",
        "molecules-twins-plain": thousands(twins[0]["molecules"]),
        "molecules-twins-plain-error": f"{thousands(twins[0]['mev'])} meV",
        "molecules-twins-rings": thousands(twins[1]["molecules"]),
        "molecules-twins-rings-error": f"{fixed(twins[1]['mev'], 2)} meV",
        "molecules-no-stereo": f"{fixed(limits['error, test molecules with no open stereo']['mev'], 1)} meV",
        "molecules-four-stereo": f"{fixed(limits['error, test molecules with 4 or more open stereo']['mev'], 1)} meV",
    }
    full = {key: groups[model, True][0] for model, (key, _) in NAMES.items()}
    few = {key: groups[model, False] for model, (key, _) in NAMES.items()}
    few_renumbered = mean(row["permuted_test_mae_mev"] for row in few["mlp-renumbered"])
    few_rings = mean(row["test_mae_mev"] for row in few["rings"])
    found |= {
        "molecules-mlp-epochs": str(full["mlp"]["epochs"]),
        "molecules-deep-epochs": str(full["deep"]["epochs"]),
        "molecules-mlp-renumbered-few": f"{meV(few_renumbered)} meV",
        "molecules-rings-few": f"{meV(few_rings)} meV",
        "molecules-rings-few-factor": fixed(few_rings / full["rings"]["test_mae_mev"], 1),
        "molecules-rings-kcal": f"{fixed(full['rings']['test_mae_kcal_per_mol'], 2)} kcal/mol",
    }
    for key in ("mlp", "gnn"):
        found[f"molecules-{key}-loss"] = number(full[key]["test_loss"])
        found[f"molecules-{key}-loss-anew"] = number(full[key]["permuted_test_loss"])
    for key in ("mlp", "gnn", "deep", "rings"):
        found[f"molecules-{key}-error"] = f"{meV(full[key]['test_mae_mev'])} meV"
    for key in ("mlp", "mlp-renumbered"):
        found[f"molecules-{key}-error-anew"] = f"{meV(full[key]['permuted_test_mae_mev'])} meV"
    return found


def tables(results: Results) -> dict[str, str]:
    """Return losses and errors, with the atoms numbered as given and anew."""
    groups, rows = runs_of(results("part3_qm9")), []
    for model, (_, title) in NAMES.items():
        (full,), few = groups[model, True], groups[model, False]
        row = [title, thousandths(full["test_loss"]), thousandths(full["permuted_test_loss"])]
        row += [meV(full["test_mae_mev"]), meV(full["permuted_test_mae_mev"])]
        for name in ("test_mae_mev", "permuted_test_mae_mev"):
            spread = [run[name] for run in few]
            row.append(mean_std(spread, 0 if mean(spread) >= 100 else 1))
        rows.append(row)
    header = [
        "",
        r"\multicolumn{2}{c}{loss ($10^{-3}$)}",
        r"\multicolumn{2}{c}{error (meV)}",
        r"\multicolumn{2}{c}{error (meV), 20{,}000} \\" + "\n" + " & given & renumbered" * 3,
    ]
    return {"molecules-errors": tabular(header, rows, "@{}lrrrrrr@{}")}


def meV(x: float) -> str:
    """Return three digits that matter: 10310 -> 10{,}310, 217.4 -> 217, 50.12 -> 50.1."""
    return thousands(x) if x >= 100 else fixed(x, 1)


def number(loss: float) -> str:
    return fixed(loss, 2) if loss >= 1 else scientific(loss, 2)


def thousandths(loss: float) -> str:
    """Return three digits that matter: 0.00118 -> 1.18."""
    return fixed(1000 * loss, max(0, 2 - floor(log10(1000 * loss))))
