"""MLP versus GNN on QM9: validation curves, test errors, and what renumbering the atoms does to them (question 3.6).

    python -m part3.experiments.qm9 --jobs 3

Five models are each trained once on all training molecules of qm9_g4mp2.csv, and with three seeds on 20,000 of them.
Results: report/results/part3_qm9.csv, one row a run; part3_qm9_curves.csv, the validation losses;
part3_qm9_limits.csv, what limits the best model. Figures: part3_qm9_curves and part3_qm9_errors. The experiment can be
interrupted at any time: when started again, it keeps finished runs and resumes the others.
"""

import csv
from argparse import Namespace
from itertools import product
from pathlib import Path
from statistics import geometric_mean, mean
from typing import Any

import torch
from torch import Tensor
from tqdm import tqdm

from common.command import non_negative_int, positive_int, run_command
from common.data import find_data
from common.errors import CommandError
from common.experiment import ExperimentParser, FinishedRun, read_results, run_sweep, write_results
from common.jobs import Job
from common.paths import ROOT, short_path
from common.run_folder import load_checkpoint, read_metrics
from part3.qm9.data import EDGE_ATTR_DIM, Z_ONE_HOT_DIM, get_labels, split_and_scale
from part3.qm9.molecules import KCAL_PER_MOL, Molecules, ScaledMolecules, import_optional
from part3.qm9.networks import GNN, build_model
from part3.qm9.sources import SPLITS, read_smiles_csv

NAME = "part3_qm9"
RUNS = ROOT / "runs" / "part3" / "qm9" / "compare"
TABLE = "qm9/qm9_g4mp2.csv"
NUM_FEW, SEEDS_FEW, SEEDS_ALL = 20_000, (0, 1, 2), (0,)
ALL = 0  # as a number of training molecules
DEEP = {
    "model": "gnn",
    "gnn_num_blocks": 4,
    "residual": True,
    "counts": True,
    "lr": 3e-3,
    "schedule": "cosine",
    "max_norm": 1.0,
}
MODELS: dict[str, dict[str, Any]] = {
    "MLP": {"model": "mlp"},
    "MLP, trained on renumbered atoms": {"model": "mlp", "permute_training": True},
    "GNN": {"model": "gnn"},  # the course's
    "deep GNN": DEEP,
    "deep GNN with rings": {**DEEP, "max_ring": 6},
}
# On the command line
SHORT_NAMES = dict(zip(("mlp", "mlp_renumbered", "gnn", "deep_gnn", "deep_gnn_rings"), MODELS))
EPOCHS = {model: (36, 24) if "deep" in model else (20, 40) for model in MODELS}  # on all molecules, on 20,000
BEST = "deep GNN with rings"
COLUMNS = (
    "test_loss",
    "permuted_test_loss",
    "test_mae_mev",
    "test_mae_kcal_per_mol",
    "permuted_test_mae_mev",
    "mean_mae_mev",
    "counts_loss",
    "counts_mae_mev",
    "parameters",
    "best_epoch",
    "epochs",
    "seconds",
)


def main() -> None:
    args = build_parser().parse_args()
    if not args.committed:
        measure(args)
    rows, losses = read_results(NAME, args.results), read_results(f"{NAME}_curves", args.results)
    draw_curves(rows, losses, args.figures)
    draw_errors(rows, args.figures)
    for (model, num_train), chosen in by_model(rows).items():
        error = mean(row["test_mae_mev"] for row in chosen)
        permuted = mean(row["permuted_test_mae_mev"] for row in chosen)
        counts = mean(row["counts_mae_mev"] for row in chosen)
        print(
            f"{model}, {num_train:,} training molecules: mean absolute error {error:.1f} meV, renumbered "
            f"{permuted:.1f} meV; {counts / error:.2f} times lower than a linear fit to the counts of atoms and bonds "
            f"({counts:.1f} meV)"
        )
    if args.whole:
        for row in read_results(f"{NAME}_limits"):
            print(f"{row['what']}: {row['mev']} meV ({row['molecules']:,} molecules)")
    print(f"results and figures: {short_path(args.results / NAME)}*.csv, {short_path(args.figures / NAME)}_*.pdf")


def measure(args: Namespace) -> None:
    """Run what is not finished yet, and write the results."""
    table = find_data(TABLE, args.data_dir)
    molecules = read_smiles_csv(table)  # fills the cache before several runs need it at once
    num_all = int((molecules.splits == SPLITS.index("train")).sum())
    if max(args.num_train) > num_all:
        raise CommandError(f"argument --num_train: there are {num_all} training molecules, not {max(args.num_train)}")
    runs = run_sweep({run: training_job(*run, table) for run in chosen_plan(args)}, args)
    rows = table_of(runs, num_all)
    seeds, seconds = sorted({row["seed"] for row in rows}), sum(row["seconds"] for row in rows)
    write_results(NAME, rows, args.results, seeds=seeds, training_seconds=seconds)
    write_results(f"{NAME}_curves", curves(runs), args.results)
    if args.whole:
        best = runs[BEST, ALL, SEEDS_ALL[0]].folder
        write_results(f"{NAME}_limits", limits(table, molecules, best), args.results)


def full_plan() -> list[tuple[str, int, int]]:
    """Return (model, training molecules or ALL, seed) of every run of the whole sweep."""
    return chosen_plan(build_parser().parse_args(["--draw_only"]))


def chosen_plan(args: Namespace) -> list[tuple[str, int, int]]:
    """Return (model, training molecules or ALL, seed) of every run, the longest first."""
    models = [SHORT_NAMES[name] for name in reversed(args.models)]
    plan: list[tuple[str, int, int]] = []
    for num_train in args.num_train:
        seeds = args.seeds or (SEEDS_ALL if num_train == ALL else SEEDS_FEW)
        plan += product(models, [num_train], seeds)
    return plan


def training_job(model: str, num_train: int, seed: int, table: Path) -> Job:
    name = model.replace(",", "").replace(" ", "_")
    epochs_all, epochs_few = EPOCHS[model]
    arguments = {"smiles_csv": str(table), **MODELS[model], "epochs": epochs_all, "seed": seed}
    if num_train:
        arguments |= {"num_train": num_train, "epochs": epochs_few}
    return Job("part3/qm9/train.py", RUNS / f"{name}_{num_train or 'all'}_seed{seed}", arguments)


def table_of(runs: dict[tuple[str, int, int], FinishedRun], num_all: int) -> list[dict[str, Any]]:
    """Return one row a run."""
    rows = []
    for (model, num_train, seed), (_, result) in runs.items():
        row = {"model": model, "num_train": num_train or num_all, "seed": seed}
        rows.append(row | {name: result[name] for name in COLUMNS})
    return sorted(rows, key=lambda row: (list(MODELS).index(row["model"]), -row["num_train"], row["seed"]))


def curves(runs: dict[tuple[str, int, int], FinishedRun]) -> list[dict[str, Any]]:
    """Return the validation loss after every epoch of every run."""
    rows = []
    for (model, num_train, seed), (folder, _) in runs.items():
        losses = read_metrics(folder / "metrics.csv")["validation_loss"]
        for epoch, (_, loss) in enumerate(losses, start=1):
            row = {"model": model, "subset": num_train or "all", "seed": seed, "epoch": epoch}
            rows.append(row | {"validation_loss": f"{loss:.6f}"})
    return rows


def limits(table: Path, molecules: Molecules, best: Path) -> list[dict[str, Any]]:
    """Return what limits the best model: its error by kind of molecule, and molecules that it cannot tell apart.

    Args:
        best: its run folder.
    """
    error = errors_of(best, molecules)
    with table.open(encoding="utf-8", newline="") as file:
        smiles = [line["smiles"] for line in csv.DictReader(file) if line["split"] == "test"]
    test = molecules.take((molecules.splits == SPLITS.index("test")).nonzero().squeeze(1))
    rows = []
    for kind, chosen in (by_rings(test) | by_stereo(smiles)).items():
        mev = f"{error[chosen].mean().item():.2f}"
        rows.append({"what": f"error, test molecules {kind}", "molecules": int(chosen.sum()), "mev": mev})
    for max_ring in (0, MODELS[BEST]["max_ring"]):
        count, deviation = twins(molecules, max_ring)
        rings = f"with rings of up to {max_ring} atoms" if max_ring else "without rings"
        what = f"deviation from their common mean, molecules that look alike to a network {rings}"
        rows.append({"what": what, "molecules": count, "mev": f"{deviation:.2f}"})
    return rows


@torch.no_grad()
def errors_of(folder: Path, molecules: Molecules) -> Tensor:
    """Return a run's absolute error on each test molecule, in meV."""
    checkpoint = load_checkpoint(folder / "best.pt")
    model = build_model(Namespace(**checkpoint["arguments"])).eval()
    model.load_state_dict(checkpoint["model"])
    _, _, test = split_and_scale(molecules)
    errors = [(model.predict(batch).squeeze(1) - get_labels(batch)).abs() for batch in test.batches(1_000)]
    return 1000 * test.std * torch.cat(errors)


def by_rings(molecules: Molecules) -> dict[str, Tensor]:
    """Return which molecules (N,) have how many independent rings: bonds less atoms, plus one."""
    num_rings = molecules.num_bonds // 2 - molecules.num_atoms + 1
    return {
        "without rings": num_rings == 0,
        "with 1 ring": num_rings == 1,
        "with 2 rings": num_rings == 2,
        "with 3 or more rings": num_rings >= 3,
    }


def by_stereo(smiles: list[str]) -> dict[str, Tensor]:
    """Return which molecules (N,) have how many stereocentres and double bonds of unspecified arrangement."""
    chem = import_optional("rdkit.Chem")
    num_open = torch.tensor([len(chem.FindPotentialStereo(chem.MolFromSmiles(text))) for text in smiles])
    found = {f"with {k or 'no'} open stereo": num_open == k for k in range(4)}
    return found | {"with 4 or more open stereo": num_open >= 4}


@torch.no_grad()
def twins(molecules: Molecules, max_ring: int) -> tuple[int, float]:
    """Return how many molecules get the same output as another from a deep GNN, and their mean deviation in meV.

    The weights are random and in float64, so that two outputs are equal only where the network cannot tell the
    molecules apart, whatever it learns. The best prediction for them is the mean of their energies; the deviation is
    from that mean.
    """
    torch.manual_seed(0)
    sizes = (Z_ONE_HOT_DIM, EDGE_ATTR_DIM, 32, 1, MODELS[BEST]["gnn_num_blocks"])
    network = GNN(*sizes, residual=True, max_ring=max_ring).double()
    scaled = ScaledMolecules(molecules, 0.0, 1.0)
    progress = tqdm(scaled.batches(2_000), total=-(-len(scaled) // 2_000), unit="batch", disable=None, leave=False)
    outputs = torch.cat([network.predict(batch) for batch in progress]).squeeze(1)
    values, order = outputs.sort()
    # Relative to the mean, rounding errors stay below 1e-13; different molecules mostly differ by more than 1e-9.
    differs = values.diff() > 1e-11 * values.abs().mean()
    group = torch.zeros_like(order)
    group[order[1:]] = differs.cumsum(0)
    group_sizes = group.bincount()
    means = torch.zeros(len(group_sizes), dtype=torch.float64).index_add(0, group, molecules.energies) / group_sizes
    alike = group_sizes[group] > 1
    return int(alike.sum()), 1000 * (molecules.energies - means[group])[alike].abs().mean().item()


def by_model(rows: list[dict[str, Any]]) -> dict[tuple[str, int], list[dict[str, Any]]]:
    """Return the runs of each model and number of training molecules."""
    groups: dict[tuple[str, int], list[dict[str, Any]]] = {}
    for row in rows:
        groups.setdefault((row["model"], row["num_train"]), []).append(row)
    return groups


def draw_curves(rows: list[dict[str, Any]], losses: list[dict[str, Any]], folder: Path) -> None:
    """Draw the validation loss by epoch, mean and range of the seeds, a panel for each number of training molecules."""
    from common.figure import COLOURS, LINE_STYLES, draw_means, new_figure, save_figure

    sizes = sorted({row["num_train"] for row in rows}, reverse=True)
    figure, panels = new_figure(1, len(sizes), height=2.9, sharey=True)
    labelled = set()
    for axes, num_train in zip(panels, sizes):
        mine = [row for row in rows if row["num_train"] == num_train]
        for k, model in enumerate(MODELS):
            chosen = [row for row in losses if row["model"] == model and size_of(row, sizes) == num_train]
            if chosen:
                points = [(row["epoch"], row["validation_loss"]) for row in chosen]
                style: dict[str, Any] = {"linestyle": LINE_STYLES[k], "color": COLOURS[k]}
                draw_means(axes, points, geometric_mean, **style, label=None if model in labelled else model)
                labelled.add(model)
        label = None if axes is not panels[0] else "counts of atoms and bonds"
        counts = mean(row["counts_loss"] for row in mine)
        axes.axhline(counts, color="0.4", linewidth=0.8, linestyle=":", label=label)
        axes.set(xlabel="epoch", title=f"{num_train:,} training molecules", yscale="log")
    panels[0].set_ylabel("validation loss (z-scores, squared)")
    figure.legend(loc="outside lower center", ncols=2)
    save_figure(figure, folder / f"{NAME}_curves")


def size_of(row: dict[str, Any], sizes: list[int]) -> int:
    """Return the number of training molecules of a row of the curves, which says "all" for the largest."""
    return sizes[0] if row["subset"] == "all" else row["subset"]


def draw_errors(rows: list[dict[str, Any]], folder: Path) -> None:
    """Draw every run's test error, with the atoms numbered as given and renumbered."""
    from common.figure import COLOURS, new_figure, save_figure

    figure, (axes,) = new_figure(height=2.9)
    num_all = max(row["num_train"] for row in rows)
    few = sorted({row["num_train"] for row in rows} - {num_all})
    models = [model for model in MODELS if any(row["model"] == model for row in rows)]
    for row in rows:
        on_all = row["num_train"] == num_all
        number = list(MODELS).index(row["model"])
        y = len(models) - 1 - models.index(row["model"]) + (0.15 if on_all else -0.15)
        size = 6 if on_all else 3.5
        style: dict[str, Any] = {"marker": "o", "linestyle": "", "color": COLOURS[number]}
        axes.plot(row["permuted_test_mae_mev"], y, markersize=size + 2, markerfacecolor="none", **style)
        axes.plot(row["test_mae_mev"], y, markersize=size, **style)
    axes.plot([], [], "o", color="0.4", label="atoms as numbered in the SMILES", markersize=6)
    axes.plot([], [], "o", color="0.4", label="atoms renumbered", markersize=8, markerfacecolor="none")
    if few:
        label = f"{' or '.join(f'{number:,}' for number in few)} training molecules only"
        axes.plot([], [], "o", color="0.4", label=label, markersize=3.5)

    def mark(label: str, value: float) -> None:
        axes.axvline(value, color="0.4", linewidth=0.8, linestyle=":")
        axes.text(value, len(models) - 0.35, label, ha="center", va="bottom", fontsize=7, color="0.3")

    rows_all = [row for row in rows if row["num_train"] == num_all]
    mark("chemical\naccuracy", 1000 * KCAL_PER_MOL)
    mark("counts of atoms\nand bonds", mean(row["counts_mae_mev"] for row in rows_all))
    mark("training\nmean", mean(row["mean_mae_mev"] for row in rows_all))
    axes.set(xscale="log", xlabel="mean absolute error on the test molecules (meV)", ylim=(-0.6, len(models) - 0.4))
    ticks = (30, 100, 300, 1_000, 3_000, 10_000)
    axes.set_xticks(ticks, [f"{tick:,}" for tick in ticks])
    axes.set_xticks([], minor=True)
    axes.set_yticks(range(len(models)), [model.replace(", ", ",\n") for model in reversed(models)])
    figure.legend(loc="outside lower center", ncols=3)
    save_figure(figure, folder / f"{NAME}_errors")


def build_parser() -> ExperimentParser:
    parser = ExperimentParser(__doc__, "part3/qm9/compare")
    parser.add_selection("--models", tuple(SHORT_NAMES), "which networks", choices=tuple(SHORT_NAMES))
    num_train = f"numbers of training molecules, {ALL} for all of them"
    parser.add_selection("--num_train", (ALL, NUM_FEW), num_train, type=non_negative_int)
    parser.add_selection("--seeds", None, "seeds (default: 0 with all molecules, else 0 1 2)", type=non_negative_int)
    epochs = "passes over the training molecules (default: 20 to 40, by network and number)"
    parser.add_setting("--epochs", type=positive_int, help=epochs)
    parser.add_argument("--data_dir", help="folder of the data sets; default $DATA_DIR, else data/")
    return parser


if __name__ == "__main__":
    run_command(main)
