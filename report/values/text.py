"""From the results of part 2: the tales, tiny Shakespeare, the Tang poems, and the benchmark of the model."""

import json
import math
import re
from statistics import mean, median
from typing import Any

from common.experiment import RESULTS
from report.values import Results, Rows, rows_with
from report.values.format import fixed, in_per_cent, listed, percent, span, tabular, thousands

MODELS = {"": r"$2\times128$", "_1024": r"$1\times1024$"}  # by how the names of their results end
SENTENCE_END = re.compile(r'[.?!]"?\s+("?\S)')
ESCAPES = {character: rf"\{character}" for character in "#$%&_{}"} | {
    "\\": r"\textbackslash{}",
    "^": r"\^{}",
    "~": r"\~{}",
}


def values(results: Results) -> dict[str, str]:
    """Return all measured numbers of the section."""
    parts = (
        _tales(results),
        _written(results),
        _written_by_the_wide_layer(results),
        _decoding(results),
        _loops(results),
        _shakespeare(results),
        _poems(results),
    )
    return {f"text-{key}": text for part in parts for key, text in part.items()}


def tables(results: Results) -> dict[str, str]:
    """Return what the models have written."""
    return {
        "text_samples": _samples_table(results),
        "text_samples_1024": _wide_samples_table(results),
        "text_shares": _shares_table(results),
        "text_temperatures": _temperatures_table(results),
        "text_completions": _completions_table(results),
        "text_decoding": _decoding_table(results),
        "text_poems": _poems_table(results),
    }


def _tales(results: Results) -> dict[str, str]:
    rows = results("part2_grimm_curves")
    runs = [rows_with(rows, lstm_hidden_dim=128, seed=seed) for seed in (0, 1, 2)]
    best = [min(run, key=lambda row: row["held_out_loss"]) for run in runs]
    losses = [row["held_out_loss"] for row in best]
    minutes = [run[-1]["seconds"] / 60 for run in runs]
    large = rows_with(rows, lstm_hidden_dim=1024)
    large_best = min(large, key=lambda row: row["held_out_loss"])
    return {
        "grimm-loss": fixed(mean(losses), 3),
        "grimm-range": f"{fixed(min(losses), 3)} to {fixed(max(losses), 3)}",
        "grimm-bits": fixed(mean(losses) / math.log(2), 2),
        "grimm-perplexity": fixed(math.exp(mean(losses)), 2),
        "grimm-accuracy": percent(mean(row["held_out_accuracy"] for row in best), 1),
        "grimm-minutes": f"{fixed(min(minutes), 0)} to {fixed(max(minutes), 0)}",
        "grimm-first-training": fixed(mean(run[0]["loss"] for run in runs), 2),
        "grimm-first-held-out": fixed(mean(run[0]["held_out_loss"] for run in runs), 2),
        "grimm-last-held-out": fixed(mean(run[-1]["held_out_loss"] for run in runs), 3),
        "large-loss": fixed(large_best["held_out_loss"], 3),
        "large-perplexity": fixed(math.exp(large_best["held_out_loss"]), 2),
        "large-accuracy": percent(large_best["held_out_accuracy"], 1),
        "large-minutes": fixed(large_best["seconds"] / 60, 1),
        "large-epoch": fixed(large_best["step"] / large[1]["step"], 1),  # two evaluations an epoch
        "large-last-held-out": fixed(large[-1]["held_out_loss"], 2),
        "large-last-training": fixed(large[-1]["loss"], 2),
    }


def _written(results: Results) -> dict[str, str]:
    samples = results("part2_grimm_samples")
    short = [row for row in samples if loop(row["text"][:30])]
    long = [{"step": row["step"], "loop": loop(row["text"])} for row in samples if loop(row["text"])]
    found = {
        "loops-long": f"{len(long)} of {len(samples)}",
        "loops-short": f"{len(short)} of {len(samples)}",
        "loop-first": span([len(row["loop"]) for row in rows_with(long, step=2_000)], 0),
        "loop-last": span([len(row["loop"]) for row in rows_with(long, step=10_000)], 0),
    }
    rows = results("part2_grimm_temperatures")
    found["pairs-0"] = percent(_mean(rows_with(rows, temperature=0), "distinct_pairs"), 1)
    for tau in (0.5, 1, 2):
        found[f"words-{tau:g}"] = percent(_mean(rows_with(rows, temperature=tau), "real_words"), 1)

    completions = rows_with(results("part2_grimm_completions"), temperature=1)
    texts = [row["text"] for row in rows_with(results("part2_grimm_texts"), temperature=1)]
    texts += [row["prompt"] + row["completion"] for row in completions]
    texts = [text.replace("\\n", "\n") for text in texts]
    starts = [start for text in texts for start in SENTENCE_END.findall(text)]
    quoted = [text for text in texts if '"' in text]
    found["sentences-capital"] = f"{sum(start[-1].isupper() for start in starts)} of {len(starts)}"
    found["quotes-alternate"] = f"{sum(map(quotes_alternate, quoted))} of {len(quoted)}"
    return found


def _written_by_the_wide_layer(results: Results) -> dict[str, str]:
    """What the texts of UvA 2021's model are like at three stages."""
    samples = results("part2_grimm_samples_1024")
    stages = [rows_with(samples, step=step) for step in dict.fromkeys(row["step"] for row in samples)]
    curve = rows_with(results("part2_grimm_curves"), lstm_hidden_dim=1024)
    losses = [row["held_out_loss"] for stage in stages for row in rows_with(curve, step=stage[0]["step"])]
    return {
        "large-stage-losses": listed([fixed(loss, 3) for loss in losses]),
        "large-stage-copies": listed([fixed(_mean(stage, "longest_copy"), 0) for stage in stages]),
        "large-loops": f"{sum(bool(loop(row['text'])) for row in samples)} of {len(samples)}",
    }


def _decoding(results: Results) -> dict[str, str]:
    """How likely and varied texts are when characters are chosen in other ways; means over the runs."""
    rows, short = results("part2_decoding"), results("part2_decoding_short")
    found = {}
    for way, key in (("greedy", "greedy"), ("10 beams", "beams-10"), ("tau 1", "drawn"), ("the book", "book")):
        found[f"log-p-{key}"] = f"${fixed(_mean(rows_with(rows, way=way), 'log_probability'), 2)}$"
    beams = [rows_with(rows, way=f"{S} beams") for S in (2, 5, 10)]
    pairs = [_mean(way, "distinct_pairs") for way in beams]
    repeating = [row["repeating"] for way in (rows_with(rows, way="greedy"), *beams) for row in way]
    others = [row for row in rows if row["way"] in ("tau 0.5", "tau 1", "tau 2", "top-k 5", "top-p 0.9", "the book")]
    found |= {
        "book-pairs": percent(_mean(rows_with(rows, way="the book"), "distinct_pairs"), 1),
        "beams-pairs": f"{fixed(100 * min(pairs), 1)} to {percent(max(pairs), 1)}",
        "repeating-beams": percent(min(repeating)),
        "repeating-others": percent(max(row["repeating"] for row in others)),
    }

    exact = {(row["length"], row["way"], row["seed"]): row["exact"] for row in short}
    for length in (5, 10):
        for way, key in (("greedy", "greedy"), ("10 beams", "beams-10"), ("tau 1", "drawn")):
            found[f"exact-{length}-{key}"] = percent(mean(exact[length, way, seed] for seed in range(3)), 1)
    ahead = [all(exact[L, "10 beams", seed] > exact[L, "greedy", seed] for L in (5, 10)) for seed in range(3)]
    return {**found, "exact-runs": _of_three(sum(ahead))}


def _loops(results: Results) -> dict[str, str]:
    """Where the greedy texts begin to repeat themselves for ever."""
    rows = results("part2_decoding_loops")
    loops = [row for row in rows if row["period"]]
    periods, starts = ([row[column] for row in loops] for column in ("period", "start"))
    shown = [row["start"] + 2 * row["period"] for row in loops]  # so many characters show the loop twice
    return {
        "greedy-loops": f"{len(loops)} of {len(rows)}",
        "greedy-loops-start": fixed(median(starts), 0),
        "greedy-loops-last-start": f"{max(starts)}",
        "greedy-loops-periods": span(periods, 0),
        "greedy-loops-in-30": f"{sum(length <= 30 for length in shown)}",
        "greedy-loops-in-200": f"{sum(length <= 200 for length in shown)}",
    }


def _mean(rows: Rows, column: str) -> float:
    return mean(row[column] for row in rows)


def loop(text: str) -> str | None:
    """Return the shortest unit that a text ends with at least twice in a row; None if there is none."""
    for length in range(1, len(text) // 2 + 1):
        if text[-length:] == text[-2 * length : -length]:
            return text[-length:]
    return None


def quotes_alternate(text: str) -> bool:
    """Return whether quotation marks open and close in turn; a mark at the beginning or after a space opens."""
    opens = [not before.strip() for before in re.findall(r'(^|.)"', text, re.DOTALL)]
    return all(opened == (number % 2 == 0) for number, opened in enumerate(opens))


def _shakespeare(results: Results) -> dict[str, str]:
    rows, words = results("part2_shakespeare"), results("part2_shakespeare_words")
    found = {}
    for key, name in (("short", "8 minutes"), ("long", "30 minutes")):
        run = rows_with(rows, run=name)
        found[f"shakespeare-{key}"] = fixed(min(row["held_out_loss"] for row in run), 4)
        found[f"shakespeare-{key}-minutes"] = fixed(run[-1]["minutes"], 1)
    new, known = rows_with(words, run="30 minutes")
    return found | {
        "shakespeare-new-share": percent(new["share_of_characters"], 1),
        "shakespeare-new-loss": fixed(new["loss"], 2),
        "shakespeare-new-contribution": fixed(new["contribution"], 2),
        "shakespeare-known-loss": fixed(known["loss"], 2),
    }


def _poems(results: Results) -> dict[str, str]:
    tang = results("part2_poems_tang")
    best = min(tang, key=lambda row: row["held_out_loss"])
    loss = best["held_out_loss"]
    found = {
        "tang-loss": fixed(loss, 2),
        "tang-bits": fixed(loss / math.log(2), 2),
        "tang-perplexity": fixed(math.exp(loss), 1),
        "tang-mixed": fixed(2**loss, 1),
        "tang-first-perplexity": fixed(math.exp(tang[0]["held_out_loss"]), 0),
        "tang-epoch": f"{best['epoch']}",
        "tang-minutes": fixed(_json("part2_poems_tang")["result"]["seconds"] / 60, 0),
    }
    last = _last_losses(results("part2_poems_inits"), "init")
    for init, losses in last.items():
        found[f"init-{init}"] = fixed(mean(losses), 1 if init == "normal" else 2)
    found["init-difference"] = fixed(max(abs(a - b) for a, b in zip(last["uniform"], last["xavier"])), 3)
    found["init-zeros-first"] = fixed(_mean_loss(results("part2_poems_inits"), init="zeros", epoch=1), 2)

    rows = results("part2_poems_optimizers")
    last = _last_losses(rows, "optimizer")
    between = [mean(losses) for name, losses in last.items() if name not in ("adam", "sgd")]
    lowest = [min(last, key=lambda name: last[name][seed]) for seed in range(3)]
    highest = [max(last, key=lambda name: last[name][seed]) for seed in range(3)]
    adagrad = {epoch: _mean_loss(rows, optimizer="adagrad", epoch=epoch) for epoch in range(1, 9)}
    turn = min(adagrad, key=lambda epoch: adagrad[epoch])
    grid = [fixed(loss, 2) for loss in _json("part2_poems_optimizers")["held_out_loss"]["adagrad"].values()]
    return found | {
        "adam": fixed(mean(last["adam"]), 2),
        "sgd": fixed(mean(last["sgd"]), 2),
        "between": f"{fixed(min(between), 2)} to {fixed(max(between), 2)}",
        "adam-first": _of_three(lowest.count("adam")),
        "sgd-last": _of_three(highest.count("sgd")),
        "adagrad-best": fixed(adagrad[turn], 2),
        "adagrad-best-epoch": f"{turn}",
        "adagrad-last": fixed(adagrad[8], 2),
        "adagrad-rates": listed(grid),
    }


def _of_three(number: int) -> str:
    return "all three" if number == 3 else f"{number} of three"


def _mean_loss(rows: Rows, **wanted: Any) -> float:
    return mean(row["held_out_loss"] for row in rows_with(rows, **wanted))


def _last_losses(rows: Rows, kind: str) -> dict[str, list[float]]:
    """Return, for each optimizer or initialisation, the seeds' losses after the last epoch."""
    last = rows_with(rows, epoch=max(row["epoch"] for row in rows))
    choices = dict.fromkeys(row[kind] for row in rows)
    return {choice: [row["held_out_loss"] for row in rows_with(last, **{kind: choice})] for choice in choices}


def _samples_table(results: Results) -> str:
    """Five first characters, at five stages in two rows of three; the sixth place shows how the last texts end."""
    rows = results("part2_grimm_samples")
    columns = []  # of a title and five texts
    for step in dict.fromkeys(row["step"] for row in rows):
        beginnings = [_escape(row["text"][:30]) for row in rows_with(rows, step=step)]
        columns.append([rf"\normalfont step {thousands(step)}", *beginnings])
    ends = [_escape(row["text"][170:200]) for row in rows_with(rows, step=10_000)]
    columns.append([r"\normalfont step 10{,}000, characters 171 to 200", *ends])
    upper, lower = ([" & ".join(line) + r" \\" for line in zip(*group)] for group in (columns[:3], columns[3:]))
    begin = r"\begin{tabular}{@{}" + 3 * r">{\ttfamily}l" + "@{}}"
    return "\n".join([begin, r"\toprule", *upper, r"\midrule", *lower, r"\bottomrule", r"\end{tabular}"])


def _wide_samples_table(results: Results, width: int = 92) -> str:
    """Five texts of UvA 2021's model at each of three stages, with a bar after 30 characters."""
    samples, rows = results("part2_grimm_samples_1024"), []
    steps = list(dict.fromkeys(row["step"] for row in samples))
    for stage, step in zip(("1/3", "2/3", "3/3"), steps):
        for k, row in enumerate(rows_with(samples, step=step)):
            start, text = _cut(row["text"], 30), _cut(row["text"], width)
            rows.append(["" if k else stage, rf"{_escape(start)}{{\,\vrule\,}}{_escape(text[len(start) :])}"])
    return tabular(["trained", r"\normalfont text"], rows, r"@{}l>{\ttfamily}l@{}")


def _shares_table(results: Results) -> str:
    """The shares of real words and of distinct pairs of words of each model at each temperature, in per cent."""
    rows = []
    for column, title in (("real_words", "words that the book has"), ("distinct_pairs", "distinct pairs of words")):
        for ending, model in MODELS.items():
            found = results(f"part2_grimm_temperatures{ending}")
            taus = sorted({row["temperature"] for row in found})
            means = [_mean(rows_with(found, temperature=tau), column) for tau in taus]
            rows.append([title, model, *map(in_per_cent, means)])
            title = ""
    header = [r"per cent of \dots", "units", *(rf"$\tau={tau:g}$" for tau in taus)]
    return tabular(header, rows, "@{}ll" + "r" * len(taus) + "@{}")


def _temperatures_table(results: Results, width: int = 83) -> str:
    """The beginnings of two texts of each model for each temperature, and of one greedy text."""
    rows = []
    for ending, model in MODELS.items():
        for tau in (0, 0.5, 1, 2):
            texts = [row["text"] for row in rows_with(results(f"part2_grimm_texts{ending}"), temperature=tau)]
            rows.append(["" if tau else model, f"{tau:g}", _escape(_cut(texts[0], width))])
            if tau > 0:
                rows.append(["", "", _escape(_cut(texts[1], width))])
    return tabular(["units", r"$\tau$", r"\normalfont text"], rows, r"@{}lr>{\ttfamily}l@{}")


def _completions_table(results: Results, width: int = 92) -> str:
    """What the model adds to three prompts."""
    chosen = {
        "Sleeping beauty is": (0, 0.5, 1),
        "On the third day": (0.5,),
        "And so they lived": (0.5,),
    }
    rows = []
    for prompt, temperatures in chosen.items():
        for tau in temperatures:
            (row,) = rows_with(results("part2_grimm_completions"), prompt=prompt, temperature=tau)
            text = _cut(prompt + row["completion"], width)
            rows.append([f"{tau:g}", rf"\underline{{{_escape(prompt)}}}{_escape(text[len(prompt) :])}"])
    return tabular([r"$\tau$", r"\normalfont text, from the underlined prompt on"], rows, r"@{}r>{\ttfamily}l@{}")


def _decoding_table(results: Results, width: int = 58) -> str:
    """Of each way of choosing, the means over all texts of all runs, and what it makes of one beginning."""
    rows, measured = [], results("part2_decoding")
    for row in results("part2_decoding_texts"):
        found = rows_with(measured, way=row["way"])
        way = re.sub(r"^tau (.*)", r"$\\tau=\1$", row["way"]).replace("top-k", "top-$k$").replace("top-p", "top-$p$")
        shares = [in_per_cent(_mean(found, column)) for column in ("real_words", "distinct_pairs")]
        rows.append([way, f"${fixed(_mean(found, 'log_probability'), 2)}$", *shares, _escape(_cut(row["text"], width))])
    header = ["way", r"$\frac1L\ln\Pr(y)$", "words", "pairs", r"\normalfont text"]
    return tabular(header, rows, r"@{}lrrr>{\ttfamily}l@{}")


def _poems_table(results: Results) -> str:
    """The greedy poem for each first character, two a line."""
    poems = [rf"\zh{{{row['poem']}}}" for row in rows_with(results("part2_poems"), temperature=0)]
    lines = [" & ".join(poems[k : k + 2]) + r" \\" for k in range(0, len(poems), 2)]
    return "\n".join([r"\begin{tabular}{@{}ll@{}}", r"\toprule", *lines, r"\bottomrule", r"\end{tabular}"])


def _json(name: str) -> Any:
    return json.loads((RESULTS / f"{name}.json").read_text(encoding="utf-8"))


def _cut(text: str, width: int) -> str:
    r"""Return a text's first `width` characters; a line end, written as \n, counts as one."""
    text = text.replace("\\n", "\n")
    return text[:width].replace("\n", "\\n")


def _escape(text: str) -> str:
    """Return a text as TeX sets it, line ends as hooked arrows."""
    lines = ["".join(ESCAPES.get(character, character) for character in line) for line in text.split("\\n")]
    return r"{$\hookleftarrow$}".join(lines)
