"""From part3_citation, part3_receptive_field, part3_depth, part3_bots, part3_convolution_attention and its curves,
part3_qm9, benchmark_part3 and part1_accuracy_by_length."""

from math import hypot, sqrt
from statistics import mean, stdev

from part3.experiments import bots, depth
from part3.experiments.citation import PUBLISHED, by_setting
from report.values import Results, Rows, rows_with
from report.values.format import fixed, mean_std, percent, tabular, thousands

GAT_CITESEER_PUBLISHED = (72.5, 0.7)  # Velickovic et al. (2018), table 2: mean and standard deviation of 100 runs
GCN_CORA_RANDOM_ERROR = 0.5  # Kipf and Welling (2017), table 2: standard error over 10 random splits
ROWS = {
    ("cora", "public"): "Cora, public split",
    ("cora", "random"): "Cora, random splits",
    ("citeseer", "public"): "CiteSeer, public split",
    ("citeseer", "random"): "CiteSeer, random splits",
}
MODELS = {"mlp": "MLP", "gcn": "GCN", "gat": "GAT"}


def values(results: Results) -> dict[str, str]:
    """Return the measured numbers of the section."""
    accuracies = by_setting(results("part3_citation"))
    shares = {(row["layers"], row["hops"]): row["share"] for row in results("part3_receptive_field")}
    benchmarks = {(row["benchmark"], row["variant"]): row["value"] for row in results("benchmark_part3")}
    long = rows_with(results("part1_accuracy_by_length"), family="tuned", model="RNN", T=100)
    (mlp,) = (row for row in results("part3_qm9") if row["model"] == "MLP" and row["num_train"] > 20_000)
    found = {
        "graphs-share-3-of-3": percent(shares[3, 3]),
        "graphs-share-4-of-4": percent(shares[4, 4]),
        "graphs-rnn-100-least": fixed(min(row["test_accuracy"] for row in long), 3),
        "graphs-mlp-as-given": f"{thousands(mlp['test_mae_mev'])} meV",
        "graphs-mlp-renumbered": f"{thousands(mlp['permuted_test_mae_mev'])} meV",
        "graphs-runs": str(min(map(len, accuracies.values()))),
    }
    for dataset in ("cora", "citeseer"):
        gain = mean(accuracies[dataset, "public", "gcn"]) - mean(accuracies[dataset, "public", "mlp"])
        found[f"graphs-gain-{dataset}"] = f"{fixed(gain, 1)} points"
    excess = mean(accuracies["citeseer", "public", "mlp"]) - PUBLISHED["citeseer", "public", "mlp"]
    found["graphs-mlp-citeseer-excess"] = f"{fixed(excess, 1)} points"

    gat, (published, spread) = accuracies["citeseer", "public", "gat"], GAT_CITESEER_PUBLISHED
    below, standard_error = published - mean(gat), hypot(stdev(gat), spread) / sqrt(len(gat))
    found["graphs-gat-citeseer-below"] = f"{fixed(below, 1)} points"
    found["graphs-gat-citeseer-errors"] = fixed(below / standard_error, 1)
    gcn, error = accuracies["cora", "random", "gcn"], GCN_CORA_RANDOM_ERROR
    gcn_below = PUBLISHED["cora", "random", "gcn"] - mean(gcn)
    found["graphs-gcn-cora-random-below"] = f"{fixed(gcn_below, 1)} points"
    found["graphs-gcn-cora-random-errors"] = fixed(gcn_below / hypot(stdev(gcn) / sqrt(len(gcn)), error), 1)
    found["graphs-most-below"] = f"{fixed(max(below, gcn_below), 1)} points"

    last = "GCN, accuracy on cora after 200 epochs, mean of 10"
    found["graphs-last-ours"] = fixed(benchmarks[last, "ours"], 1) + r"\,\%"
    found["graphs-last-library"] = fixed(benchmarks[last, "PyTorch Geometric, dense features"], 1) + r"\,\%"
    memory = benchmarks["GCN, synthetic graph of 1,000,000 nodes, 5,000,000 edges", "memory"]
    found["graphs-memory-million"] = f"{fixed(memory * 2**20 / 1e9, 1)} GB"
    found |= _depth(results("part3_depth")) | _bots(results("part3_bots"))
    return found | _convolution_attention(
        results("part3_convolution_attention"), results("part3_convolution_attention_curves")
    )


def _depth(rows: Rows) -> dict[str, str]:
    test, training, before, after = (
        {model: depth.means_by_layers(rows, model, column) for model in depth.MODELS}
        for column in ("accuracy", "training_accuracy", "distance_initial", "distance_trained")
    )
    found = {
        f"depth-{model}-{layers}": percent(test[model][layers], 1)
        for model, layers in (("gcn", 2), ("gcn", 8), ("gcn", 32), ("gcnii", 2), ("gcnii", 32))
    }
    found["depth-training-32"] = percent(training["gcn"][32], 0)
    found |= {f"depth-before-{layers}": fixed(before["gcn"][layers], 2) for layers in (2, 32)}
    found |= {f"depth-after-{model}-8": fixed(after[model][8], 2) for model in depth.MODELS}
    found["depth-before-gcnii"] = fixed(min(before["gcnii"].values()), 2)
    found["depth-seeds"] = str(len(rows_with(rows, model="gcn", layers=2)))
    return {f"graphs-{key}": text for key, text in found.items()}


def _bots(rows: Rows) -> dict[str, str]:
    settings, found = bots.by_setting(rows), {}
    for key, looks, labels in (
        ("like", "like people", "not labelled"),
        ("different", "different", "not labelled"),
        ("labelled", "different", "labelled"),
    ):
        attention, equal = (settings[looks, labels, weights] for weights in ("attention", "mean"))
        gains = [100 * (a["accuracy"] - b["accuracy"]) for a, b in zip(attention, equal)]
        found[f"apart-{key}"] = fixed(mean(row["told_apart"] for row in attention), 2)
        found[f"share-{key}"] = fixed(mean(row["share"] for row in attention), 2)
        if key != "labelled":
            found[f"gain-{key}"] = rf"${fixed(mean(gains), 1)}\pm{fixed(stdev(gains) / sqrt(len(gains)), 1)}$"
        if key == "different":
            found["better"] = f"{sum(gain > 0 for gain in gains)} of {len(gains)}"
            found["worst"] = fixed(-min(gains), 0)
            found["equal"] = percent(mean(row["accuracy"] for row in equal), 1)
            found["graphs"] = str(len(gains))
    return {f"graphs-bots-{key}": text for key, text in found.items()}


def _convolution_attention(rows: Rows, curves: Rows) -> dict[str, str]:
    found = {}
    for model in ("convolution", "attention"):
        own = rows_with(curves, model=model)
        epochs = list(dict.fromkeys(row["epoch"] for row in own))
        of_epoch = {epoch: rows_with(own, epoch=epoch) for epoch in epochs}
        learnt = next(epoch for epoch in epochs if mean(row["training"] for row in of_epoch[epoch]) >= 0.9)
        found[f"{model}-test"] = mean_std([100 * row["accuracy"] for row in rows_with(rows, model=model)], 1)
        found[f"{model}-learnt"] = str(learnt)
        found[f"{model}-last"] = percent(mean(row["validation"] for row in of_epoch[epochs[-1]]), 1)
    nodes, edges = rows[0]["nodes"], rows[0]["edges"]
    found["scores-edges"], found["scores-all"] = thousands(edges + nodes), thousands(nodes**2)
    found["curves-runs"] = str(len(rows_with(rows, model="attention")))
    return {f"graphs-{key}": text for key, text in found.items()}


def tables(results: Results) -> dict[str, str]:
    """Return the accuracies beside the published ones."""
    accuracies = by_setting(results("part3_citation"))
    rows = []
    for (dataset, split), title in ROWS.items():
        row = [title]
        for model in MODELS:
            number = PUBLISHED.get((dataset, split, model))
            row += [mean_std(accuracies[dataset, split, model], 1), rf"\published{{{number}}}" if number else "--"]
        rows.append(row)
    header = [""] + [cell for title in MODELS.values() for cell in (title, "published")]
    return {"graphs-citation": tabular(header, rows, "@{}lrrrrrr@{}")}
