"""The numbers of the abstract: one or two of each section."""

from statistics import mean

from report.values import Results, Rows, rows_with
from report.values.format import fixed, thousands


def values(results: Results) -> dict[str, str]:
    lengths = results("part1_accuracy_by_length")
    tuned = rows_with(lengths, family="tuned")
    grimm = rows_with(results("part2_grimm_curves"), lstm_hidden_dim=128)
    seeds = {row["seed"] for row in grimm}
    tales = [min(row["held_out_loss"] for row in rows_with(grimm, seed=seed)) for seed in seeds]
    plays = [row["held_out_loss"] for row in rows_with(results("part2_shakespeare"), run="30 minutes")]
    molecules = results("part3_qm9")
    num_train = max(row["num_train"] for row in molecules)
    all_molecules = {row["model"]: row for row in rows_with(molecules, num_train=num_train)}
    mlp, best = all_molecules["MLP"], all_molecules["deep GNN with rings"]
    images = {row["model"]: fixed(100 * row["test_accuracy"], 1) for row in results("part4_training")}
    return {
        "front-rnn-length": str(mastered(lengths, "RNN")),
        "front-lstm-length": str(mastered(lengths, "LSTM")),
        "front-tuned-length": str(max(row["T"] for row in tuned)),
        "front-tuned-accuracy": fixed(min(row["test_accuracy"] for row in tuned), 3),
        "front-tales": fixed(mean(tales), 2),
        "front-plays": fixed(min(plays), 2),
        "front-cora-gcn": cora(results, "gcn"),
        "front-cora-gat": cora(results, "gat"),
        "front-mlp": fixed(mlp["test_mae_mev"], 0),
        "front-mlp-renumbered": thousands(mlp["permuted_test_mae_mev"]),
        "front-gnn": fixed(best["test_mae_mev"], 1),
        "front-vgg": images["vgg11"],
        "front-vgg-bn": images["vgg11_bn"],
    }


def tables(results: Results) -> dict[str, str]:
    """Return nothing: the abstract has no tables."""
    return {}


def mastered(rows: Rows, model: str) -> int:
    """Return the length up to which every default run names at least 99.9 % of the last digits."""
    runs = rows_with(rows, family="handout", model=model)
    shortest_failure = min(row["T"] for row in runs if row["test_accuracy"] < 0.999)
    return max(row["T"] for row in runs if row["T"] < shortest_failure)


def cora(results: Results, model: str) -> str:
    """Return the mean test accuracy on the public split, in per cent."""
    runs = rows_with(results("part3_citation"), dataset="cora", split="public", model=model)
    return fixed(100 * mean(row["accuracy"] for row in runs), 1)
