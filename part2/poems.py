"""Tang poems as training sequences (PRML part 2), from the JSON files of the chinese-poetry collection.

A poem is its verses in one line, ended by END; of a longer one the first `max_length` characters are taken.
Shorter ones are padded behind END, where no loss is counted. All but the most frequent characters become RARE.
"""

import json
import re
import sys
import zlib
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch

if not __package__:
    sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from common.data import data_path, input_file, read_zip
from common.distributed import shard, world_size
from common.errors import InputError
from common.paths import short_path
from part2.dataset import IGNORED, Batch

END, RARE = "\n", "□"
FIRST_CHARACTERS = "日紅山夜湖海月"  # the poems that PRML 2.2 asks for begin with these
BUILTIN = Path(__file__).resolve().parent / "assets" / "quatrains.json"
NOTES = re.compile(r"（[^（）]*）|〖[^〖〗]*〗|\[[^\[\]]*\]")  # the editors', within the verses
VERSE = re.compile(r"[\u3400-\u9fff\U00020000-\U0003ffff，。、；：？！]+")


class PoemCorpus:
    """Poems, split 9:1 by poem and encoded.

    Args:
        source: "builtin", "tang", or a zip, folder or file of chinese-poetry JSON.
        max_length: characters of a sequence.
        max_vocabulary: number of characters that are told apart, END and RARE among them.
        data_dir: data folder, where "tang" is looked for.
        seed: of the split.

    Attributes:
        vocabulary: END, RARE and the training poems' most frequent characters, in the order of their code points.
        train, held_out: (number of poems, max_length + 1) character numbers, IGNORED behind a poem's end.
        size: number of poems.
        checksum: CRC-32 of both parts.

    Raises:
        ValueError: the source holds fewer than two poems, or something else.
        FileNotFoundError: there is no such source.
    """

    def __init__(
        self, source: str, max_length: int, max_vocabulary: int = 3_500, data_dir: str | None = None, seed: int = 0
    ):
        poems = read_poems(source, data_dir)
        self.size = len(poems)
        if self.size < 2:
            raise InputError(
                f"{source} holds {self.size} poems: at least two are needed, one to train on and one held out"
            )
        train, held_out = split_poems(poems, seed)
        counts = Counter("".join(train))
        frequent = [character for character, _ in counts.most_common(max(max_vocabulary - 2, 0))]
        self.vocabulary = "".join(sorted([END, RARE, *frequent]))
        self._number = {character: number for number, character in enumerate(self.vocabulary)}
        self.held_out = self._encode(held_out, max_length)
        self.train = self._encode(train, max_length)
        self.checksum = zlib.crc32(self.train.data, zlib.crc32(self.held_out.data))

    def _encode(self, poems: list[str], max_length: int) -> np.ndarray:
        rare = self._number[RARE]
        encoded = np.full((len(poems), max_length + 1), IGNORED, np.int16 if len(self.vocabulary) < 2**15 else np.int32)
        for row, poem in zip(encoded, poems):
            numbers = [self._number.get(character, rare) for character in (poem + END)[: max_length + 1]]
            row[: len(numbers)] = numbers
        return encoded


class PoemBatches:
    """Each epoch all training poems once, in an order of its own."""

    def __init__(self, corpus: PoemCorpus, batch_size: int, seed: int):
        self.corpus, self.batch_size, self.seed = corpus, batch_size, seed
        self.steps_per_epoch = -(-len(corpus.train) // batch_size)

    def batch(self, step: int) -> Batch:
        """Return the batch of training step `step`, counted from 0."""
        epoch, position = divmod(step, self.steps_per_epoch)
        order = np.random.default_rng([self.seed, epoch]).permutation(len(self.corpus.train))
        return _as_batch(self.corpus.train[order[position * self.batch_size :][: self.batch_size]])


def held_out_poems(corpus: PoemCorpus, batch_size: int) -> Iterator[Batch]:
    """Yield the held-out poems, in batches."""
    for start in range(0, len(corpus.held_out), batch_size):
        yield _as_batch(corpus.held_out[start : start + batch_size])


def split_poems(poems: list[str], seed: int) -> tuple[list[str], list[str]]:
    """Return the poems to train on and the tenth that is held out, both in an order drawn from the seed."""
    poems = [poems[index] for index in np.random.default_rng(seed).permutation(len(poems))]
    num_held_out = -(-len(poems) // 10)
    return poems[num_held_out:], poems[:num_held_out]


def read_poems(source: str, data_dir: str | None = None) -> list[str]:
    """Return the different poems of a collection, one line each, without those with gaps or unreadable characters."""
    if source == "builtin":
        files = [BUILTIN.read_bytes()]
    else:
        path = data_path("tang/poet.tang.zip", data_dir) if source == "tang" else Path(source)
        if source == "tang" and not path.exists():
            raise FileNotFoundError(f"{short_path(path)} does not exist: fetch it with `python part2/download.py tang`")
        files = _read_files(path)
    poems = []
    for content in files:
        try:
            texts = ["".join(entry["paragraphs"]) for entry in json.loads(content)]
        except (ValueError, KeyError, TypeError, RecursionError):
            raise InputError(
                f"{source} is not a collection of poems: JSON lists of entries with `paragraphs`"
            ) from None
        poems += [text for text in (NOTES.sub("", text) for text in texts) if VERSE.fullmatch(text)]
    return list(dict.fromkeys(poems))


def _read_files(path: Path) -> list[bytes]:
    if path.is_dir():
        return [file.read_bytes() for file in sorted(path.glob("*.json")) if file.is_file() and _is_wanted(file.name)]
    input_file(path, "builtin, tang, or a zip, folder or file of poems")
    if path.suffix != ".zip":
        return [path.read_bytes()]
    return [content for _, content in sorted(read_zip(path, _is_wanted).items())]


def _is_wanted(name: str) -> bool:
    """Whether a name is that of a JSON file (macOS adds files whose names begin with ._ to its archives)."""
    return name.endswith(".json") and not name.split("/")[-1].startswith("._")


def _as_batch(rows: np.ndarray) -> Batch:
    length = (rows != IGNORED).sum(axis=1).max()
    empty = np.full((-len(rows) % world_size(), rows.shape[1]), IGNORED)  # so that all processes' shares are equal
    rows = shard(np.concatenate([rows, empty]))
    numbers = torch.from_numpy(rows[:, :length].astype(np.int64)).t()  # (T + 1, B)
    return Batch(numbers[:-1].clamp(min=0), numbers[1:], fresh=True)
