"""The numbers of the abstract: one or two of each section."""

from statistics import mean

from report.values.format import fixed, thousands


def values(results):
    lengths = results("part1_accuracy_by_length")
    tuned = [row for row in lengths if row["family"] == "tuned"]
    grimm = [row for row in results("part2_grimm_curves") if row["lstm_hidden_dim"] == 128]
    tales = [min(row["held_out_loss"] for row in grimm if row["seed"] == seed) for seed in {row["seed"] for row in grimm}]
    plays = [row["held_out_loss"] for row in results("part2_shakespeare") if row["run"] == "30 minutes"]
    molecules = results("part3_qm9")
    all_molecules = {row["model"]: row for row in molecules if row["num_train"] == max(r["num_train"] for r in molecules)}
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


def tables(results):
    return {}


def mastered(rows, model):
    """The length up to which every default run names at least 99.9 % of the last digits."""
    failed = [r["T"] for r in rows if (r["family"], r["model"]) == ("handout", model) and r["test_accuracy"] < 0.999]
    return max(r["T"] for r in rows if (r["family"], r["model"]) == ("handout", model) and r["T"] < min(failed))


def cora(results, model):
    """Mean test accuracy on the public split, in per cent."""
    setting = ("cora", "public", model)
    return fixed(
        100 * mean(r["accuracy"] for r in results("part3_citation") if (r["dataset"], r["split"], r["model"]) == setting), 1
    )
