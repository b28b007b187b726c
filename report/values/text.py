"""From the results of part 2: the tales, tiny Shakespeare, the Tang poems, and the benchmark of the model."""

import json
import math
import re
from statistics import mean

from common.experiment import RESULTS
from report.values.format import fixed, percent, tabular

TARGET = 1.42  # nats a character, what we aimed at on tiny Shakespeare
SENTENCE_END = re.compile(r'[.?!]"?\s+("?\S)')
ESCAPES = {character: rf"\{character}" for character in "#$%&_{}"} | {"\\": r"\textbackslash{}", "^": r"\^{}", "~": r"\~{}"}


def values(results):
    return {
        f"text-{key}": text for part in (_tales, _written, _shakespeare, _poems, _speed) for key, text in part(results).items()
    }


def tables(results):
    return {
        "text_samples": _samples_table(results),
        "text_temperatures": _temperatures_table(results),
        "text_completions": _completions_table(results),
        "text_poems": _poems_table(results),
    }


def _tales(results):
    rows = results("part2_grimm_curves")
    runs = [[row for row in rows if (row["lstm_hidden_dim"], row["seed"]) == (128, seed)] for seed in (0, 1, 2)]
    best = [min(run, key=lambda row: row["held_out_loss"]) for run in runs]
    losses = [row["held_out_loss"] for row in best]
    minutes = [run[-1]["seconds"] / 60 for run in runs]
    large = [row for row in rows if row["lstm_hidden_dim"] == 1024]
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
        "large-epoch": fixed(large_best["step"] / (large[1]["step"]), 1),  # two evaluations an epoch
        "large-last-held-out": fixed(large[-1]["held_out_loss"], 2),
        "large-last-training": fixed(large[-1]["loss"], 2),
    }


def _written(results):
    found = {}
    samples = results("part2_grimm_samples")
    loops = [(row["step"], loop(row["text"])) for row in samples]
    lengths = {step: [len(unit) for other, unit in loops if other == step and unit] for step, _ in loops}
    found["loops-long"] = f"{sum(bool(unit) for _, unit in loops)} of {len(loops)}"
    found["loops-short"] = f"{sum(bool(loop(row['text'][:30])) for row in samples)} of {len(samples)}"
    found["loop-first"] = f"{min(lengths[2_000])}"
    found["loop-last"] = f"{min(lengths[10_000])} or {max(lengths[10_000])}"
    found["loops-last"] = f"{len({min(_rotations(unit)) for step, unit in loops if step == 10_000})}"

    rows = results("part2_grimm_temperatures")
    for tau in (0, 0.5, 1, 2):
        chosen = [row for row in rows if row["temperature"] == tau]
        found[f"words-{tau:g}"] = percent(mean(row["real_words"] for row in chosen), 1 if tau else 2)
        found[f"pairs-{tau:g}"] = percent(mean(row["distinct_pairs"] for row in chosen), 1)

    texts = [row["text"] for row in results("part2_grimm_texts") if row["temperature"] == 1]
    texts += [row["prompt"] + row["completion"] for row in results("part2_grimm_completions") if row["temperature"] == 1]
    texts = [text.replace("\\n", "\n") for text in texts]
    starts = [start for text in texts for start in SENTENCE_END.findall(text)]
    quoted = [text for text in texts if '"' in text]
    found["sentences-capital"] = f"{sum(start[-1].isupper() for start in starts)} of {len(starts)}"
    found["quotes-alternate"] = f"{sum(map(quotes_alternate, quoted))} of {len(quoted)}"
    return found


def loop(text):
    """Return the shortest unit that a text ends with, at least twice in a row; None where there is none."""
    for length in range(1, len(text) // 2 + 1):
        if text[-length:] == text[-2 * length : -length]:
            return text[-length:]
    return None


def quotes_alternate(text):
    """Return whether quotation marks open, close, open ... in turn; one after a gap, or at the beginning, opens."""
    opens = [not before.strip() for before in re.findall(r'(^|.)"', text, re.DOTALL)]
    return all(opened == (number % 2 == 0) for number, opened in enumerate(opens))


def _rotations(unit):
    return [unit[k:] + unit[:k] for k in range(len(unit))]


def _shakespeare(results):
    rows, words = results("part2_shakespeare"), results("part2_shakespeare_words")
    found = {}
    for key, name in (("short", "8 minutes"), ("long", "30 minutes")):
        run = [row for row in rows if row["run"] == name]
        found[f"shakespeare-{key}"] = fixed(min(row["held_out_loss"] for row in run), 4)
        found[f"shakespeare-{key}-minutes"] = fixed(run[-1]["minutes"], 1)
    new, known = (row for row in words if row["run"] == "30 minutes")
    return found | {
        "shakespeare-missed": fixed(min(row["held_out_loss"] for row in rows) - TARGET, 3),
        "shakespeare-new-share": percent(new["share_of_characters"], 1),
        "shakespeare-new-loss": fixed(new["loss"], 2),
        "shakespeare-new-contribution": fixed(new["contribution"], 2),
        "shakespeare-known-loss": fixed(known["loss"], 2),
        "shakespeare-known-needed": fixed((TARGET - new["contribution"]) / known["share_of_characters"], 2),
    }


def _poems(results):
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
    first = [row["held_out_loss"] for row in results("part2_poems_inits") if (row["init"], row["epoch"]) == ("zeros", 1)]
    found["init-zeros-first"] = fixed(mean(first), 2)

    rows = results("part2_poems_optimizers")
    last = _last_losses(rows, "optimizer")
    between = [mean(losses) for name, losses in last.items() if name not in ("adam", "sgd")]
    adagrad = {
        epoch: mean(row["held_out_loss"] for row in rows if (row["optimizer"], row["epoch"]) == ("adagrad", epoch))
        for epoch in range(1, 9)
    }
    grid = _json("part2_poems_optimizers")["held_out_loss"]["adagrad"]
    turn = min(adagrad, key=adagrad.get)
    seeds = range(3)
    return found | {
        "adam": fixed(mean(last["adam"]), 2),
        "sgd": fixed(mean(last["sgd"]), 2),
        "between": f"{fixed(min(between), 2)} to {fixed(max(between), 2)}",
        "adam-first": _of_three(sum(min(last, key=lambda name, k=k: last[name][k]) == "adam" for k in seeds)),
        "sgd-last": _of_three(sum(max(last, key=lambda name, k=k: last[name][k]) == "sgd" for k in seeds)),
        "adagrad-best": fixed(adagrad[turn], 2),
        "adagrad-best-epoch": f"{turn}",
        "adagrad-last": fixed(adagrad[8], 2),
        "adagrad-rates": "{}, {} and {}".format(*(fixed(loss, 2) for loss in grid.values())),
    }


def _of_three(number):
    return "all three" if number == 3 else f"{number} of three"


def _last_losses(rows, kind):
    """Return, for each optimizer or initialisation, the seeds' losses after the last epoch."""
    last = max(row["epoch"] for row in rows)
    return {
        choice: [row["held_out_loss"] for row in rows if (row[kind], row["epoch"]) == (choice, last)]
        for choice in dict.fromkeys(row[kind] for row in rows)
    }


def _speed(results):
    rows = {(row["benchmark"], row["variant"]): row for row in results("benchmark_part2")}
    found = {}
    for key, sizes in (("128", "n=128"), ("512", "n=512"), ("1024", "n=1024")):
        for short, variant in (("calls", "float32"), ("float32", "compiled, float32"), ("bf16", "compiled, bf16")):
            (ratio,) = [row["ratio"] for (name, how), row in rows.items() if f"{sizes} " in name and how == f"ours, {variant}"]
            found[f"speed-{key}-{short}"] = fixed(ratio, 2)
    write = {name: rows[f"one character written: {name}", "text of 800"]["value"] for name in ("ours", "ours, whole text")}
    return found | {
        "write": rf"{fixed(write['ours'] / 1e3, 2)}\,ms",
        "write-again": rf"{fixed(write['ours, whole text'] / 1e3, 0)}\,ms",
    }


def _samples_table(results):
    """Five first characters, at five stages in two rows of three; the sixth place shows how the last texts end."""
    rows = results("part2_grimm_samples")
    stages = {step: [row["text"] for row in rows if row["step"] == step] for step in dict.fromkeys(row["step"] for row in rows)}
    columns = [(f"step {step:,}", [text[:30] for text in texts]) for step, texts in stages.items()]
    columns.append(("step 10,000, characters 171 to 200", [text[170:200] for text in stages[10_000]]))
    lines = []
    for group in (columns[:3], columns[3:]):
        lines += ["\\midrule"] if lines else []
        lines.append(" & ".join(rf"\normalfont {title.replace(',', '{,}', 1)}" for title, _ in group) + r" \\")
        lines += [" & ".join(map(_escape, texts)) + r" \\" for texts in zip(*(texts for _, texts in group))]
    column = r">{\ttfamily}l"
    return "\n".join([rf"\begin{{tabular}}{{@{{}}{column * 3}@{{}}}}", r"\toprule", *lines, r"\bottomrule", r"\end{tabular}"])


def _temperatures_table(results, width=92):
    """Two texts for each temperature, the first characters of each; greedy ones are alike, so one is enough."""
    rows = []
    for tau in (0, 0.5, 1, 2):
        texts = [row["text"] for row in results("part2_grimm_texts") if row["temperature"] == tau]
        for number, text in enumerate(texts[:1] if tau == 0 else texts[:2]):
            rows.append(["" if number else f"{tau:g}", _escape(_cut(text, width))])
    return tabular([r"$\tau$", r"\normalfont text"], rows, r"@{}r>{\ttfamily}l@{}")


def _completions_table(results, width=92):
    """What the model adds to four prompts."""
    chosen = {
        "Sleeping beauty is": (0, 0.5, 1),
        '"Who are you?" asked the': (1,),
        "On the third day": (0.5,),
        "And so they lived": (0.5,),
    }
    rows = []
    for prompt, temperatures in chosen.items():
        for tau in temperatures:
            (added,) = [
                row["completion"]
                for row in results("part2_grimm_completions")
                if (row["prompt"], row["temperature"]) == (prompt, tau)
            ]
            text = _cut(prompt + added, width)
            rows.append([f"{tau:g}", rf"\underline{{{_escape(prompt)}}}{_escape(text[len(prompt) :])}"])
    return tabular([r"$\tau$", r"\normalfont text, from the underlined prompt on"], rows, r"@{}r>{\ttfamily}l@{}")


def _poems_table(results):
    """The greedy poem for each first character, two a line."""
    poems = [rf"\zh{{{row['poem']}}}" for row in results("part2_poems") if row["temperature"] == 0]
    lines = [" & ".join(poems[k : k + 2]) + r" \\" for k in range(0, len(poems), 2)]
    return "\n".join([r"\begin{tabular}{@{}ll@{}}", r"\toprule", *lines, r"\bottomrule", r"\end{tabular}"])


def _json(name):
    return json.loads((RESULTS / f"{name}.json").read_text(encoding="utf-8"))


def _cut(text, width):
    """Return a text's first `width` characters, a line end, written as two, counting as one."""
    text = text.replace("\\n", "\n")
    return text[:width].replace("\n", "\\n")


def _escape(text):
    """Return a text as TeX sets it, line ends as hooked arrows."""
    lines = text.split("\\n")
    return r"{$\hookleftarrow$}".join("".join(ESCAPES.get(character, character) for character in line) for line in lines)
