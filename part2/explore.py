"""Look at a trained model in a browser: it writes, reads and remembers on one page, without a server or network.

    python part2/explore.py                                 the model of the tales in assets/
    python part2/explore.py --checkpoint RUN --text FILE    your own

The page holds the weights, and runs the equations itself (`lstm.js`). Computed here is which unit follows what in the
text: whether a quotation is open, the place in the line, ...
"""

import json
import sys
from collections.abc import Callable
from itertools import accumulate
from pathlib import Path
from typing import Any

if not __package__:  # run as a script
    sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
    from common.interrupts import exit_on_interrupt

    exit_on_interrupt()  # while the imports below take their time
import numpy as np
import torch
from torch import Tensor

from common.command import ArgumentParser, non_empty, run_command
from common.errors import InputError
from common.page import floats, write_page
from common.paths import ROOT, short_path
from part2.dataset import HELD_OUT, Corpus, decode, find_text
from part2.model import PRETRAINED, TextGenerationModel, load_model
from part2.poems import PoemCorpus

BEGINNING = "Once upon a time"
STREAMS = 64  # parts of the text that are read side by side
READ = 3_000  # characters of the text that the page shows
SHORTEST, ANALYSED = 1_000, 40_000  # characters, from and up to which units are sought in a text


def main() -> None:
    args = build_parser().parse_args()
    path = Path(args.checkpoint or PRETRAINED)
    folder = path if path.is_dir() else path.parent
    model, checkpoint = load_model(path)
    text = read_text(args.text, args.encoding) if args.text else held_out_text(checkpoint, folder)
    page = Path(args.page or (folder if args.checkpoint else ROOT / "runs" / "part2") / "explore.html")
    write_page(page, Path(__file__).with_name("explore.html"), page_data(model, checkpoint, text, folder))
    print(f"{short_path(page)}: open it in a browser")


def page_data(model: TextGenerationModel, checkpoint: dict[str, Any], text: str, folder: Path) -> dict[str, Any]:
    """Return what the page needs: the model, a text, which units follow what in it, and the samples of its training."""
    vocabulary = checkpoint["vocabulary"]
    return {
        "about": about(model, checkpoint, folder),
        "vocabulary": vocabulary,
        "end": checkpoint["end"],
        "never_written": model.never_written,
        "sizes": {
            "vocabulary": len(vocabulary),
            "embedding": model.embedding.embedding_dim,
            "hidden": model.output.in_features,
        },
        "weights": {
            "embedding": floats(model.embedding.weight),
            "W_p": floats(model.output.weight),
            "b_p": floats(model.output.bias),
            "layers": [{name: floats(getattr(layer, name)) for name in ("W_x", "W_h", "b")} for layer in model.layers],
        },
        "beginning": BEGINNING if set(BEGINNING) <= set(vocabulary) else "",
        "text": text[:READ],
        "units": units(model, vocabulary, text[:ANALYSED]),
        "samples": read_json(folder, "samples.json") or [],
    }


def about(model: TextGenerationModel, checkpoint: dict[str, Any], folder: Path) -> str:
    """Say what the model is, and how well it does."""
    n, layers = model.output.in_features, len(model.layers)
    says = f"{layers} layer{'s' * (layers > 1)} of {n:,} LSTM units, trained"
    arguments = read_json(folder, "config.json").get("arguments", {})
    if arguments.get("poems"):
        says += f" on poems ({Path(arguments['poems']).name})"
    elif arguments.get("txt_file"):
        says += f" on {Path(arguments['txt_file']).name}"
    says += f" for {checkpoint['step']:,} steps"
    if loss := read_json(folder, "result.json").get("held_out_loss"):
        says += f"; {loss:.2f} nats a character on text that training never saw"
    return f"{says}. It runs in this page; nothing is sent anywhere."


def read_json(folder: Path, name: str) -> Any:
    """Return what a run's JSON file holds; an empty dictionary where it is not there, as beside a lone checkpoint."""
    path = folder / name
    try:
        return json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}
    except ValueError:
        raise InputError(f"{short_path(path)} is damaged: no JSON") from None


def read_text(path: str, encoding: str | None) -> str:
    """Return a text file, at most as much as is looked at."""
    corpus = Corpus(path, encoding=encoding)
    return decode(corpus.tokens[:ANALYSED], corpus.vocabulary)


def held_out_text(checkpoint: dict[str, Any], folder: Path) -> str:
    """Return what the model's training kept out of its text or poems, at most as much as is looked at."""
    what = "name a text to read with --text"
    try:
        arguments = read_json(folder, "config.json")["arguments"]
        if arguments["poems"]:
            names = ("poems", "seq_length", "max_vocabulary", "data_dir", "seed")
            poems = PoemCorpus(*(arguments[name] for name in names))
            tokens, vocabulary, checksum = poems.held_out[poems.held_out >= 0], poems.vocabulary, poems.checksum
        else:
            book = Corpus(find_text(arguments["txt_file"]), HELD_OUT, arguments["encoding"])
            tokens, vocabulary, checksum = book.tail[1:], book.vocabulary, book.checksum
    except (KeyError, TypeError):
        raise InputError(f"no config.json beside the checkpoint says what it was trained on: {what}") from None
    except (OSError, InputError) as error:
        raise InputError(f"{error}; {what}") from None
    if checksum != checkpoint["text_checksum"]:
        raise InputError(f"the text is not the one that the model was trained on: {what}")
    return decode(tokens[:ANALYSED], vocabulary)


# Which unit follows what


def units(model: TextGenerationModel, vocabulary: str, text: str) -> dict[str, Any]:
    """Return for each feature the unit that follows it best, and for each layer the units sorted by what they follow.

    One half of the text chooses the unit with the largest correlation, in absolute value; the other half gives the
    correlation r that is told, 0 where there the feature or the unit does not vary.
    """
    numbers = [vocabulary.index(character) for character in text if character in vocabulary]
    n, layers = model.output.in_features, len(model.layers)
    if len(numbers) < SHORTEST:
        return {"features": [], "order": [list(range(n))] * layers, "size": len(numbers)}
    length = len(numbers) // STREAMS
    numbers, half = numbers[: length * STREAMS], length * STREAMS // 2
    values = unit_values(model, torch.tensor(numbers).view(STREAMS, length).t())  # (N, 2 L n)
    read = decode(numbers, vocabulary)
    found, follows = [], []
    for name, feature in FEATURES.items():
        y = np.array(feature(read), dtype=np.float32)  # (N,)
        r = correlations(values[:half], y[:half])
        best = int(np.abs(r).argmax())
        scored = correlations(values[half:, best : best + 1], y[half:])[0]
        kind, layer, unit = np.unravel_index(best, (2, layers, n))
        found.append({"name": name, "kind": "ch"[kind], "layer": int(layer), "unit": int(unit), "r": float(scored)})
        follows.append(r[: layers * n].reshape(layers, n))  # the cells
    order = [by_feature(np.abs(of_layer)) for of_layer in np.stack(follows, axis=1)]
    return {"features": found, "order": order, "size": len(numbers)}


@torch.no_grad()
def unit_values(model: TextGenerationModel, x: Tensor) -> np.ndarray:
    """Return tanh c of every layer, then h of every layer, after each of (T, B) characters: (B T, 2 L n)."""
    inputs, cells, hidden = model.embedding(x), [], []
    for layer in model.layers:
        state, h, c = None, [], []
        for step in inputs:  # one by one, since a layer returns its last cells alone
            _, state = layer.states(step.unsqueeze(0), state)
            h.append(state[0])
            c.append(state[1].tanh())
        inputs = torch.stack(h)  # (T, B, n)
        hidden.append(inputs)
        cells.append(torch.stack(c))
    return torch.cat(cells + hidden, dim=-1).transpose(0, 1).flatten(0, 1).numpy()


def correlations(values: np.ndarray, feature: np.ndarray) -> np.ndarray:
    """Return Pearson's r of each column of (N, n) values with a feature (N,); 0 where one does not vary."""
    values, feature = values - values.mean(axis=0), feature - feature.mean()
    norms = np.sqrt((values**2).sum(axis=0) * (feature**2).sum())
    return np.divide(feature @ values, norms, out=np.zeros(values.shape[1]), where=norms > 1e-12)


def by_feature(closeness: np.ndarray) -> list[int]:
    """Return the units of a (features, n) table, sorted by the feature that each follows best, and by how closely."""
    which, most = closeness.argmax(axis=0), closeness.max(axis=0)
    return np.lexsort((-most, which)).tolist()


def inside_quotation(text: str) -> list[bool]:
    """Whether a quotation is open after each character; an empty line closes it."""
    marks, opened, found = {'"': None, "“": True, "”": False}, False, []
    for before, character in zip("\n" + text, text):
        if character in marks:
            opened = not opened if marks[character] is None else bool(marks[character])
        elif before == character == "\n":
            opened = False
        found.append(opened)
    return found


def in_title(text: str) -> list[bool]:
    """Whether a line's letters are all capitals, for each of its characters."""
    return [line.isupper() for line in text.splitlines(keepends=True) for _ in line]


def after_full_stop(text: str) -> list[bool]:
    """Whether a sentence has ended and the next has not begun, after each character."""
    return list(
        accumulate(
            text,
            lambda ended, character: character in ".!?。！？" or (ended and not character.isalnum()),
            initial=False,
        )
    )[1:]


def counted(goes_on: Callable[[str], bool]) -> Callable[[str], list[int]]:
    """Return a function that counts the characters since the last one at which a count does not go on."""
    return lambda text: list(accumulate(text, lambda count, character: (count + 1) * goes_on(character), initial=0))[1:]


FEATURES: dict[str, Callable[[str], list[Any]]] = {
    "inside quotation marks": inside_quotation,
    "place in the line": counted(lambda character: character != "\n"),
    "place in the word": counted(str.isalpha),
    "in a title": in_title,
    "after a full stop": after_full_stop,
}


def build_parser() -> ArgumentParser:
    parser = ArgumentParser(__doc__)
    add = parser.add_argument
    run = "run folder of part2/train.py (its best weights) or checkpoint file; by default the tales' model in assets/"
    add("--checkpoint", type=non_empty, help=run)
    add("--text", type=non_empty, help="text to read (default: what the training kept out)")
    add("--encoding", type=non_empty, help="of --text (default: as its byte order mark says, else utf-8)")
    add(
        "--page",
        type=non_empty,
        help="file to write (default: explore.html in the run folder, or in runs/part2/)",
    )
    return parser


if __name__ == "__main__":
    run_command(main)
