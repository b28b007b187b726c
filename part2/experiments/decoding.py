"""What a model writes when its characters are chosen in other ways (UvA November 2019, question 2.1b and bonus 2.3).

    python -m part2.experiments.decoding --jobs 2

The three runs of `grimm.py` with train.py's defaults, trained where they are not finished, go on with sentences of the
book's held-out tail: greedily, by beam search, at several temperatures, and with top_k and top_p. Results, each a CSV
under report/results/ with a .json beside it:

* part2_decoding: how likely, varied and real the 64 texts of 200 characters of each run and way are, and the book's.
* part2_decoding_short: how often the next 5 or 10 characters are the book's own, at 1,000 places.
* part2_decoding_loops: from where on the greedy texts, 1,000 characters long, repeat themselves for ever.
* part2_decoding_texts: what the first run makes of one beginning.
"""

import re
from argparse import Namespace
from itertools import islice, pairwise
from pathlib import Path
from statistics import mean
from typing import Any, NamedTuple

import torch
from torch import Tensor

from common.command import non_negative_int, positive_int, run_command
from common.experiment import ExperimentParser, read_results, run_sweep, write_results
from common.machine import seeded_generator
from common.paths import readable, short_path
from part2.dataset import HELD_OUT, Corpus, decode, find_text
from part2.experiments.grimm import DEFAULT, SEEDS, share, training_job, words
from part2.model import TextGenerationModel, load_model

NAME = "part2_decoding"
BEAMS = {f"{S} beams": {"beam_size": S} for S in (2, 5, 10)}
WAYS: dict[str, dict[str, Any]] = {
    "greedy": {"temperature": 0},
    **BEAMS,
    **{f"tau {tau:g}": {"temperature": tau} for tau in (0.25, 0.5, 1, 2)},
    "top-k 5": {"temperature": 1, "top_k": 5},
    "top-p 0.9": {"temperature": 1, "top_p": 0.9},
}
SHORT_WAYS = ("greedy", *BEAMS, "tau 1")
BOOK = "the book"
PROMPT_LENGTH = 20
NUM_TEXTS, TEXT_LENGTH = 64, 200
NUM_SHORT, SHORT_LENGTHS = 1_000, (5, 10)
LOOP_LENGTH = 1_000
REPEATED = 20  # so many characters in a row come again only where a text repeats itself
SENTENCE = re.compile(r'[.?!]"?\s+("?[A-Z])')


class Tail(NamedTuple):
    """The book's held-out tail, (N,) character numbers; the vocabulary; all words of the book."""

    tokens: Tensor
    vocabulary: str
    words: set[str]

    def windows(self, places: Tensor, length: int) -> Tensor:
        """Return a prompt and the `length` characters after it, from each of B places: (PROMPT_LENGTH + length, B)."""
        return self.tokens[places + torch.arange(PROMPT_LENGTH + length).unsqueeze(-1)]


def main() -> None:
    args = build_parser().parse_args()
    if not args.committed:
        measure(args)
    rows = read_results(NAME, args.results)
    draw(rows, args.figures)
    for way, found in means(rows).items():
        print(f"{way}: {', '.join(f'{value:.3f} {name}' for name, value in found.items())}")
    print(f"results and figure: {short_path(args.figures / NAME)}.pdf, {short_path(args.results / NAME)}*.csv")


def measure(args: Namespace) -> None:
    """Run what is not finished yet, let the models write, and write the results."""
    runs = run_sweep({seed: training_job("default", seed, args) for seed in args.seeds}, args)
    models = {seed: load_model(folder)[0] for seed, (folder, _) in runs.items()}
    path = find_text(DEFAULT["txt_file"])
    corpus = Corpus(path, HELD_OUT)
    tokens = torch.from_numpy(corpus.tail[1:].astype("int64"))
    tail = Tail(tokens, corpus.vocabulary, set(words(path.read_text(encoding="utf-8"))))
    places = sentences(decode(tokens, tail.vocabulary))

    def write(name: str, rows: list[dict[str, Any]], **provenance: Any) -> None:
        write_results(NAME + name, rows, args.results, seeds=list(models), prompt_length=PROMPT_LENGTH, **provenance)

    rows, texts = compare(models, tail, places, args.ways)
    write("", rows, texts=len(places), length=TEXT_LENGTH)
    write("_texts", texts)
    write("_short", short_texts(models, tail), texts=NUM_SHORT)
    write("_loops", loops(models, tail, places), length=LOOP_LENGTH)


def sentences(text: str) -> Tensor:
    """Return where NUM_TEXTS sentences begin, drawn at random; what is continued from there does not overlap."""
    length = PROMPT_LENGTH + TEXT_LENGTH
    places = [match.start(1) for match in SENTENCE.finditer(text) if match.start(1) + length <= len(text)]
    chosen: list[int] = []
    for k in torch.randperm(len(places), generator=seeded_generator(0, "sentences")):
        if all(abs(places[k] - other) >= length for other in chosen):
            chosen.append(places[k])
    return torch.tensor(chosen[:NUM_TEXTS])


def compare(
    models: dict[int, TextGenerationModel], tail: Tail, places: Tensor, ways: tuple[str, ...]
) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """Return one row for each run and way, the book among them, and the first text of the first run each way."""
    rows, texts = [], []
    book = tail.windows(places, TEXT_LENGTH)  # (PROMPT_LENGTH + TEXT_LENGTH, NUM_TEXTS)
    prompts = book[:PROMPT_LENGTH]
    for seed, model in models.items():
        true = log_probabilities(model, book)
        for way in (BOOK, *ways):
            generator = seeded_generator(seed, f"decoding {way}")
            written = book if way == BOOK else continued(model, prompts, TEXT_LENGTH, generator, **WAYS[way])
            log_p = log_probabilities(model, written)  # (NUM_TEXTS,)
            added = [decode(text, tail.vocabulary) for text in written[PROMPT_LENGTH:].t()]
            rows.append(
                {
                    "seed": seed,
                    "way": way,
                    "log_probability": f"{log_p.mean():.4f}",
                    "likelier_than_book": f"{(log_p > true).double().mean():.4f}",
                    "distinct_pairs": f"{distinct_pairs(added):.4f}",
                    "real_words": f"{real_words(added, tail.words):.4f}",
                    "repeating": f"{mean(map(repeats, added)):.4f}",
                }
            )
            if model is next(iter(models.values())):
                prompt = readable(decode(prompts[:, 0], tail.vocabulary))
                text = {"way": way, "prompt": prompt, "text": readable(added[0]), "log_probability": f"{log_p[0]:.4f}"}
                texts.append(text)
    return rows, texts


def short_texts(models: dict[int, TextGenerationModel], tail: Tail) -> list[dict[str, Any]]:
    """Return, for each run, way and length, how often just that is written which the book has."""
    rows = []
    places = torch.randint(
        len(tail.tokens) - PROMPT_LENGTH - max(SHORT_LENGTHS), (NUM_SHORT,), generator=seeded_generator(0, "short")
    )
    for seed, model in models.items():
        for length in SHORT_LENGTHS:
            book = tail.windows(places, length)
            for way in SHORT_WAYS:
                generator = seeded_generator(seed, f"short {way}")
                written = continued(model, book[:PROMPT_LENGTH], length, generator, **WAYS[way])
                exact = (written == book).all(dim=0).double().mean()
                log_p = log_probabilities(model, written).mean()
                row = {"seed": seed, "length": length, "way": way}
                rows.append({**row, "exact": f"{exact:.4f}", "log_probability": f"{log_p:.4f}"})
    return rows


def loops(models: dict[int, TextGenerationModel], tail: Tail, places: Tensor) -> list[dict[str, Any]]:
    """Return, for each run and place, where the greedy text's loop begins and how long it is; 0 where it has none."""
    rows = []
    for seed, model in models.items():
        added = model.complete(tail.windows(places, 0), LOOP_LENGTH)[PROMPT_LENGTH:]
        for text in added.t():
            start, period = loop(decode(text, tail.vocabulary))
            rows.append({"seed": seed, "start": start, "period": period})
    return rows


def continued(
    model: TextGenerationModel,
    prompts: Tensor,
    length: int,
    generator: torch.Generator,
    beam_size: int | None = None,
    **draws: Any,
) -> Tensor:
    """Return (T, B) prompts and what the model adds to them, (T + length, B)."""
    if beam_size:
        return model.beam_search(prompts, length, beam_size).texts[..., 0]
    characters = islice(model.write(prompts, generator=generator, **draws), length)
    return torch.cat([prompts, torch.stack(list(characters))])


@torch.no_grad()
def log_probabilities(model: TextGenerationModel, texts: Tensor) -> Tensor:
    """Return the log-probability per character, at temperature 1, of what follows the prompt in (T, B) texts: (B,)."""
    log_p = torch.log_softmax(model(texts[:-1]).double(), dim=-1)  # (T - 1, B, K)
    return log_p.gather(-1, texts[1:].unsqueeze(-1))[PROMPT_LENGTH - 1 :, :, 0].mean(dim=0)


def distinct_pairs(texts: list[str]) -> float:
    """Return the share of distinct ones among the pairs of neighbouring words, of all texts together."""
    pairs = [pair for text in texts for pair in pairwise(words(text)[1:-1])]  # the outermost words may be cut
    return share(len(set(pairs)), pairs)


def real_words(texts: list[str], book: set[str]) -> float:
    """Return the share of words that the book has."""
    written = [word for text in texts for word in words(text)[1:-1]]
    return share(sum(word in book for word in written), written)


def repeats(text: str) -> bool:
    """Return whether some REPEATED characters in a row stand in a text twice."""
    runs = [text[k : k + REPEATED] for k in range(len(text) - REPEATED + 1)]
    return len(set(runs)) < len(runs)


def loop(text: str) -> tuple[int, int]:
    """Return from which place on a text is periodic to its end, and the period; (0, 0) if it is not.

    The periodic part has two periods at least, and REPEATED characters.
    """
    for period in range(1, len(text) // 2 + 1):
        start = len(text) - period
        while start and text[start - 1] == text[start - 1 + period]:
            start -= 1
        if len(text) - start >= max(2 * period, REPEATED):
            return start, period
    return 0, 0


def means(rows: list[dict[str, Any]]) -> dict[str, dict[str, float]]:
    """Return, for each way, the means over the runs."""
    found = {}
    for way in dict.fromkeys(row["way"] for row in rows):
        chosen = [row for row in rows if row["way"] == way]
        found[way] = {name: mean(row[name] for row in chosen) for name in list(chosen[0])[2:]}
    return found


def draw(rows: list[dict[str, Any]], folder: Path) -> None:
    """Draw how likely, varied and real the texts of each way are, a dot a run; dotted lines for the book's means."""
    from common.figure import COLOURS, new_figure, save_figure

    labels = {
        "log_probability": "log-probability\nper character (nats)",
        "distinct_pairs": "distinct ones among\nthe pairs of words",
        "real_words": "words that\nthe book has",
    }
    ways = [way for way in dict.fromkeys(row["way"] for row in rows) if way != BOOK]
    figure, panels = new_figure(1, len(labels), height=2.4, sharey=True)
    for axes, (name, label) in zip(panels, labels.items()):
        axes.axvline(means(rows)[BOOK][name], color=COLOURS[1], linestyle=":", label=BOOK)
        for row in rows:
            if row["way"] != BOOK:
                axes.plot(row[name], ways.index(row["way"]), "o", color=COLOURS[0])
        axes.set(xlabel=label)
    panels[0].set_yticks(range(len(ways)), [re.sub("tau (.*)", r"$\\tau = \1$", way) for way in ways])
    panels[0].invert_yaxis()
    panels[0].legend(loc="lower left")
    save_figure(figure, folder / NAME)


def build_parser() -> ExperimentParser:
    parser = ExperimentParser(__doc__, "part2/decoding")
    parser.add_selection("--seeds", SEEDS, "seeds", type=non_negative_int)
    parser.add_selection("--ways", tuple(WAYS), "ways of choosing", choices=tuple(WAYS))
    parser.add_setting("--train_steps", type=positive_int, help="number of steps (default: 10000)")
    return parser


if __name__ == "__main__":
    run_command(main)
