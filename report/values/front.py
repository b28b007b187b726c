"""The numbers of the abstract, one or two of each section, and the table of questions."""

from statistics import mean

from report.questions import ANSWERS, EDITIONS, Answer
from report.values import Results, Rows, rows_with
from report.values.format import fixed, percent, thousands


def values(results: Results) -> dict[str, str]:
    lengths = results("part1_accuracy_by_length")
    tuned = rows_with(lengths, family="tuned")
    grimm = rows_with(results("part2_grimm_curves"), lstm_hidden_dim=128)
    seeds = {row["seed"] for row in grimm}
    tales = [min(row["held_out_loss"] for row in rows_with(grimm, seed=seed)) for seed in seeds]
    plays = [row["held_out_loss"] for row in rows_with(results("part2_shakespeare"), run="30 minutes")]
    decoding = results("part2_decoding")
    beams = rows_with(decoding, way="10 beams")
    molecules = results("part3_qm9")
    num_train = max(row["num_train"] for row in molecules)
    all_molecules = {row["model"]: row for row in rows_with(molecules, num_train=num_train)}
    mlp, gnn, deep_gnn = (all_molecules[model] for model in ("MLP", "GNN", "deep GNN with rings"))
    images = {row["model"]: fixed(100 * row["test_accuracy"], 1) for row in results("part4_training")}
    return {
        "front-rnn-length": str(mastered(lengths, "RNN")),
        "front-lstm-length": str(mastered(lengths, "LSTM")),
        "front-tuned-length": str(max(row["T"] for row in tuned)),
        "front-tuned-accuracy": fixed(min(row["test_accuracy"] for row in tuned), 3),
        "front-tales": fixed(mean(tales), 2),
        "front-plays": fixed(min(plays), 2),
        "front-beams": fixed(-mean(row["log_probability"] for row in beams), 2),
        "front-book": fixed(-mean(row["log_probability"] for row in rows_with(decoding, way="the book")), 2),
        "front-repeating": percent(mean(row["repeating"] for row in beams)),
        "front-cora-gcn": cora(results, "gcn"),
        "front-cora-gat": cora(results, "gat"),
        "front-deep-gcn": deep(results, "gcn"),
        "front-deep-gcnii": deep(results, "gcnii"),
        "front-mlp": fixed(mlp["test_mae_mev"], 0),
        "front-mlp-renumbered": thousands(mlp["permuted_test_mae_mev"]),
        "front-gnn": fixed(gnn["test_mae_mev"], 0),
        "front-deep-gnn": fixed(deep_gnn["test_mae_mev"], 1),
        "front-vgg": images["vgg11"],
        "front-vgg-bn": images["vgg11_bn"],
    }


def tables(results: Results) -> dict[str, str]:
    """Return the table that leads from each question of each edition to its answer and its code."""
    return {"questions": questions()}


def mastered(rows: Rows, model: str) -> int:
    """Return the length up to which every default run names at least 99.9 % of the last digits."""
    runs = rows_with(rows, family="handout", model=model)
    shortest_failure = min(row["T"] for row in runs if row["test_accuracy"] < 0.999)
    return max(row["T"] for row in runs if row["T"] < shortest_failure)


def cora(results: Results, model: str) -> str:
    """Return the mean test accuracy on the public split, in per cent."""
    runs = rows_with(results("part3_citation"), dataset="cora", split="public", model=model)
    return fixed(100 * mean(row["accuracy"] for row in runs), 1)


def deep(results: Results, model: str) -> str:
    """Return the mean test accuracy on Cora with 32 layers, in per cent."""
    return fixed(100 * mean(row["accuracy"] for row in rows_with(results("part3_depth"), model=model, layers=32)), 1)


def questions() -> str:
    """Return a longtable of all answers: the editions' numbers, what they ask, page and code."""
    columns = rf"*{{{len(EDITIONS) - 1}}}{{L{{21pt}}}}L{{23pt}}L{{87pt}}r>{{\fontseries{{lc}}}}L{{84pt}}"
    caption = (
        "Editions stand in columns, and one row serves all that ask the same. Where no code is named, the question "
        "asks for words only. UvA spring 2018 2.2a and 2.2b are its two questions 2.2."
    )
    words = [name.replace("November", "Nov.").split() for name in EDITIONS.values()]
    names = [[word[0] for word in words], ["".join(word[1:-1]) for word in words], [word[-1] for word in words]]
    head = [r"\toprule", " & ".join([*names[0], "what it asks", "page", "code"]) + r" \\"]
    head += [" & ".join([*row, "", "", ""]) + r" \\" for row in names[1:]] + [r"\midrule"]
    lines = [rf"\begin{{longtable}}{{@{{}}{columns}@{{}}}}", rf"\caption{{{caption}}}\\", *head, r"\endfirsthead"]
    lines += [*head, r"\endhead", r"\bottomrule", r"\endfoot"]
    for part, answers in ANSWERS.items():
        lines.append(rf"\multicolumn{{{len(EDITIONS) + 3}}}{{@{{}}l@{{}}}}{{\textbf{{{part}}}}} \\*")
        lines += [rf"{row_of(answer)} \addlinespace[1.5pt]" for answer in answers] + [r"\addlinespace"]
    return "\n".join([*lines[:-1], r"\end{longtable}"])


def row_of(answer: Answer) -> str:
    """Return a row of the table of questions."""
    numbers = [answer.numbers.get(edition, "") for edition in EDITIONS]
    code = r"\newline".join(rf"\code{{{name}}}" for name in answer.code)
    return " & ".join([*numbers, answer.asks, rf"\pageref{{q:{answer.label}}}", code]) + r" \\"
