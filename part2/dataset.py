"""A text as one array of character numbers, and the batches that are cut from it.

    dataset = TextDataset("assets/grimm.txt", seq_length=30)
    inputs, targets = dataset[0]                      # (T,) and (T,): the targets are the inputs one character later

`part2/train.py` takes whole batches: `RandomWindows`, the handout's way, or `ContiguousStreams`, where each batch
continues where the last one ended. Batch number k depends on the seed and on k alone, so that a resumed run needs only
its step. Of several processes that train together, each cuts its own windows or streams from the text and reads no
others.
"""

import codecs
import json
import sys
import zlib
from collections.abc import Iterable, Iterator
from hashlib import sha256
from pathlib import Path
from typing import NamedTuple
from uuid import uuid4

import numpy as np
import torch
from torch import Tensor

if not __package__:  # imported from inside part2/, as graders do
    sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from common.data import cache_folder, input_file, replacing, sha256_of, write_atomically
from common.distributed import shard
from common.errors import InputError
from common.paths import short_path

UNKNOWN = "\N{REPLACEMENT CHARACTER}"  # replaces held-out characters that do not occur in the training text
HELD_OUT = 0.1  # share of a text, at its end, that training keeps apart
MAX_HELD_OUT = 1_000_000  # characters: enough for a perplexity of four digits
IN_MEMORY = 64 * 2**20  # bytes: a larger text is encoded to a file
CHUNK = 2**20  # characters read at a time
FORMAT = 1  # of the encoded files; raise it whenever the same text is encoded differently
MARKS = {  # byte order marks; that of UTF-32 begins as that of UTF-16 does
    codecs.BOM_UTF32_LE: "utf-32",
    codecs.BOM_UTF32_BE: "utf-32",
    codecs.BOM_UTF16_LE: "utf-16",
    codecs.BOM_UTF16_BE: "utf-16",
}


class Batch(NamedTuple):
    """What the network reads and what it should predict, time-first.

    inputs: (T, B) int64 character numbers.
    targets: (T, B) int64, the character after each input; IGNORED where there is none.
    fresh: whether the state starts at zero; otherwise it continues from the batch before.
    """

    inputs: Tensor
    targets: Tensor
    fresh: bool


IGNORED = -100  # the target that `F.cross_entropy` leaves out


class TextDataset(torch.utils.data.Dataset):
    """Windows of a text file, by the handout's names.

    Args:
        filename: a text.
        seq_length: T, characters of a window.
        step_size: distance between the windows that `random_select=False` numbers; len counts them in both cases.
        random_select: an item is a window at a random place, drawn from torch's generator, and its number means
            nothing.
        encoding: of the text; by default as its byte order mark says, else UTF-8.

    Raises:
        ValueError: the file is not text, or shorter than a window and one character.
        FileNotFoundError: there is no such file.
    """

    def __init__(
        self,
        filename: str | Path,
        seq_length: int,
        step_size: int = 10,
        random_select: bool = True,
        encoding: str | None = None,
    ):
        self.corpus = Corpus(filename, encoding=encoding)
        self.seq_length, self.step_size, self.random_select = seq_length, step_size, random_select
        self._last_start = _last_start(self.corpus.size, seq_length)

    def __len__(self) -> int:
        return -(-self._last_start // self.step_size) + 1  # the last window ends the text, even off the grid

    def __getitem__(self, item: int) -> tuple[Tensor, Tensor]:
        """Return inputs and targets, (T,) int64 each."""
        if not -len(self) <= item < len(self):
            raise IndexError(f"window {item} of {len(self)}")
        if self.random_select:
            start = int(torch.randint(self._last_start + 1, ()))
        else:
            start = min(item % len(self) * self.step_size, self._last_start)
        inputs, targets = _cut(self.corpus, np.array([start]), self.seq_length)
        return inputs[:, 0], targets[:, 0]

    @property
    def vocabulary_size(self) -> int:
        return len(self.corpus.vocabulary)

    def convert_to_string(self, char_ix: Tensor | list[int]) -> str:
        """Return the text that a sequence of character numbers stands for."""
        return decode(char_ix, self.corpus.vocabulary)


def text_collate_fn(batch: list[tuple[Tensor, Tensor]]) -> tuple[Tensor, Tensor]:
    """Return a data loader's batch of items as inputs and targets, time-first: (T, B) each."""
    inputs, targets = zip(*batch)
    return torch.stack(inputs, dim=1), torch.stack(targets, dim=1)


class Corpus:
    """A text file, encoded once: its sorted vocabulary and one small integer for each character.

    A byte order mark is dropped and every line end becomes a newline. With `held_out`, that share at the text's end is
    kept from training: the vocabulary is that of the part before, and characters that occur in the tail alone become
    UNKNOWN. A file of more than 64 MiB is encoded into the user's cache and read from there, so that memory does not
    grow with it.

    Args:
        encoding: of the text; by default as its byte order mark says, else UTF-8.

    Attributes:
        vocabulary: the characters, in the order of their code points; a character's number is its place.
        size: number of characters.
        num_train: number of characters before the tail.
        checksum: CRC-32 of the encoded text.

    Raises:
        ValueError: the file is empty, no regular file, or not text in this encoding.
        FileNotFoundError: there is no such file.
    """

    def __init__(self, filename: str | Path, held_out: float = 0.0, encoding: str | None = None):
        self.path = input_file(filename, "a text")
        self.encoding = encoding or _marked_encoding(self.path)
        if self.path.stat().st_size > IN_MEMORY:
            self._tokens = None
            key = sha256(f"{FORMAT} {sha256_of(self.path)} {self.encoding} {held_out}".encode()).hexdigest()
            self._file = cache_folder("texts") / f"{key[:32]}.tokens"
            self._open_file(held_out)
        else:
            self._survey(held_out)
            self._tokens = np.concatenate(list(self._encode()))
            self.checksum = zlib.crc32(self._tokens.data)

    @property
    def tokens(self) -> np.ndarray:
        """The encoded text, (size,), in memory or memory-mapped."""
        return np.memmap(self._file, self._dtype, "r") if self._tokens is None else self._tokens

    @property
    def tail(self) -> np.ndarray:
        """The held-out tail and the one character before it, from which its first is predicted."""
        return self.tokens[max(self.num_train - 1, 0) :]

    def windows(self, starts: np.ndarray, length: int) -> np.ndarray:
        """Return `length` characters from each of B places on, (length, B).

        From a file they are read, not mapped: the system maps up to a megabyte around each place that is touched.
        """
        if self._tokens is not None:
            return self._tokens[starts + np.arange(length)[:, None]]
        rows = np.empty((len(starts), length), self._dtype)
        with open(self._file, "rb", buffering=0) as file:
            for row, start in zip(rows, starts.tolist()):
                file.seek(start * rows.itemsize)
                if file.readinto(row.data) != row.nbytes:
                    raise InputError(f"{short_path(self._file)} has been cut: start again, and it is made anew")
        return rows.T

    @property
    def _dtype(self) -> np.dtype:
        return _smallest_type(self.vocabulary)

    def _open_file(self, held_out: float) -> None:
        """Read the attributes from the notes beside the encoded file, or make both."""
        notes = self._file.with_suffix(".json")
        if notes.exists():
            try:
                self._read_notes(notes)
                return
            except (OSError, ValueError, KeyError, TypeError, RecursionError):
                print(f"{short_path(self._file)} is damaged: made anew", file=sys.stderr)
        self._survey(held_out)
        own, self.checksum = self._file.with_name(f"{uuid4().hex}.tokens"), 0  # others may encode the same text
        with replacing(own) as file:
            for tokens in self._encode():
                self.checksum = zlib.crc32(tokens.data, self.checksum)
                file.write(tokens.data)
        own.replace(self._file)
        found = {"vocabulary": self.vocabulary, "checksum": self.checksum}
        found |= {"size": self.size, "num_train": self.num_train}
        write_atomically(notes, json.dumps(found).encode())

    def _read_notes(self, notes: Path) -> None:
        """Take the attributes from the notes, if they are those of the encoded file."""
        found = json.loads(notes.read_text(encoding="utf-8"))
        self.vocabulary, self.checksum = found["vocabulary"], found["checksum"]
        self.size, self.num_train = found["size"], found["num_train"]
        dtype, checksum = _smallest_type(self.vocabulary), 0
        if self._file.stat().st_size != self.size * dtype.itemsize:
            raise ValueError("it has been cut")
        with open(self._file, "rb") as file:
            while content := file.read(CHUNK):
                checksum = zlib.crc32(content, checksum)
        if checksum != self.checksum:
            raise ValueError("its checksum differs")

    def _survey(self, held_out: float) -> None:
        """Find the text's size, where the tail begins, and the vocabulary of the part before it."""
        first_place = np.full(sys.maxunicode + 1, -1)  # of each code point
        self.size = 0
        for codes in self._code_points():
            if (first_place[codes] < 0).any():
                found, places = np.unique(codes, return_index=True)
                new = first_place[found] < 0
                first_place[found[new]] = self.size + places[new]
            self.size += len(codes)
        if not self.size:
            raise InputError(f"{short_path(self.path)} is empty")
        if first_place[0] >= 0:
            raise InputError(
                f"{short_path(self.path)} is no {self.encoding.upper()} text: it holds a NUL character at place "
                f"{first_place[0]:,}; if it has another encoding, such as utf-16-le, name that"
            )
        self.num_train = self.size - min(int(held_out * self.size), MAX_HELD_OUT)
        known = {chr(code) for code in np.flatnonzero((first_place >= 0) & (first_place < self.num_train))}
        if (first_place >= self.num_train).any():
            known.add(UNKNOWN)
        self.vocabulary = "".join(sorted(known))

    def _encode(self) -> Iterator[np.ndarray]:
        number = np.full(sys.maxunicode + 1, max(self.vocabulary.find(UNKNOWN), 0), self._dtype)
        number[[ord(character) for character in self.vocabulary]] = np.arange(len(self.vocabulary))
        for codes in self._code_points():
            yield number[codes]

    def _code_points(self) -> Iterator[np.ndarray]:
        first = True
        try:
            with open(self.path, encoding=self.encoding) as file:
                while text := file.read(CHUNK):
                    text, first = text.removeprefix("\ufeff") if first else text, False  # a byte order mark
                    yield np.frombuffer(text.encode("utf-32-le"), np.uint32)
        except LookupError:
            raise InputError(f"there is no encoding {self.encoding!r} of texts: utf-8, latin-1, utf-16, ...") from None
        except UnicodeError as error:
            fault = _first_fault(self.path) if self.encoding == "utf-8" else " ".join(str(error).split())[:200]
            raise InputError(
                f"{short_path(self.path)} is not {self.encoding.upper()} text: {fault}; name its encoding, such as "
                "latin-1, cp1252 or utf-16"
            ) from None


class RandomWindows:
    """Batches of windows at random places, every place equally likely: the handout's training.

    `steps_per_epoch` counts one window for every `step_size` characters, as len(TextDataset) does.
    """

    def __init__(self, corpus: Corpus, seq_length: int, batch_size: int, seed: int, step_size: int = 10):
        self.corpus, self.seq_length, self.batch_size, self.seed = corpus, seq_length, batch_size, seed
        self._last_start = _last_start(corpus.num_train, seq_length)
        self.steps_per_epoch = max(1, self._last_start // step_size // batch_size)

    def batch(self, step: int) -> Batch:
        """Return the batch of training step `step`, counted from 0."""
        starts = np.random.default_rng([self.seed, step]).integers(self._last_start + 1, size=self.batch_size)
        return Batch(*_cut(self.corpus, shard(starts), self.seq_length), fresh=True)


class ContiguousStreams:
    """The text cut into `batch_size` equal streams that are read side by side, T characters a step.

    A batch continues where the last one ended, so that the state, carried along, knows what came before (truncated
    backpropagation through time). Each epoch starts at another of the first T characters, so that the cuts fall
    elsewhere.
    """

    def __init__(self, corpus: Corpus, seq_length: int, batch_size: int, seed: int):
        self.corpus, self.seq_length, self.batch_size, self.seed = corpus, seq_length, batch_size, seed
        self._stream_length = (corpus.num_train - 1) // batch_size
        self.steps_per_epoch = (self._stream_length - seq_length + 1) // seq_length
        if self.steps_per_epoch < 1:
            raise InputError(
                f"{short_path(corpus.path)} has {corpus.num_train:,} characters to train on, too few for {batch_size} "
                f"streams of {seq_length} a step: take a smaller batch_size or seq_length"
            )

    def batch(self, step: int) -> Batch:
        """Return the batch of training step `step`, counted from 0."""
        epoch, position = divmod(step, self.steps_per_epoch)
        shift = np.random.default_rng([self.seed, epoch]).integers(self.seq_length)
        starts = np.arange(self.batch_size) * self._stream_length + position * self.seq_length + shift
        return Batch(*_cut(self.corpus, shard(starts), self.seq_length), fresh=position == 0)


def held_out_batches(corpus: Corpus, num_streams: int = 16, seq_length: int = 256) -> Iterator[Batch]:
    """Yield the held-out tail as streams that are read side by side, with each of its characters once as a target.

    Each stream starts from a state of zero.
    """
    if corpus.num_train == corpus.size:
        raise InputError(f"{short_path(corpus.path)} is too short to keep a part of it from training")
    tail = corpus.tail.astype(np.int64)
    length = -(-(len(tail) - 1) // num_streams)
    padded = np.full(num_streams * length + 1, IGNORED)
    padded[: len(tail)] = tail
    places = shard(np.arange(num_streams)) * length + np.arange(length)[:, None]  # (length, num_streams)
    inputs, targets = torch.from_numpy(padded[places]).clamp(min=0), torch.from_numpy(padded[places + 1])
    for number, (x, y) in enumerate(zip(inputs.split(seq_length), targets.split(seq_length))):
        yield Batch(x, y, fresh=number == 0)


def unknown_numbers(vocabulary: str) -> list[int]:
    """Return the numbers of what stands for unknown characters, which no training text holds: at most one."""
    return [number for number, character in enumerate(vocabulary) if character == UNKNOWN]


def encode(text: str, vocabulary: str) -> list[int]:
    """Return a text's character numbers.

    Raises:
        ValueError: the vocabulary lacks a character of it, which is named.
    """
    for place, character in enumerate(text, start=1):
        if character not in vocabulary:
            raise InputError(
                f"character {place} of {text!r} is {character!r} (U+{ord(character):04X}), "
                "which the model has never seen"
            )
    return [vocabulary.index(character) for character in text]


def decode(numbers: Iterable[int] | Tensor, vocabulary: str) -> str:
    """Return the text that a sequence of character numbers stands for."""
    return "".join(vocabulary[int(number)] for number in numbers)


def find_text(name: str) -> Path:
    """Return the path of a text, relative to the working directory or to part2/, as in `assets/grimm.txt`."""
    inside = Path(__file__).resolve().parent / name
    return inside if inside.exists() and not Path(name).exists() else Path(name)


def _last_start(size: int, seq_length: int) -> int:
    if size < seq_length + 1:
        raise InputError(
            f"the text has {size:,} characters to train on, but a window of seq_length {seq_length} needs "
            f"{seq_length + 1}"
        )
    return size - seq_length - 1


def _cut(corpus: Corpus, starts: np.ndarray, seq_length: int) -> tuple[Tensor, Tensor]:
    """Return the windows at `starts` and the same one character later, (T, B) each."""
    windows = torch.from_numpy(corpus.windows(starts, seq_length + 1).astype(np.int64))  # (T + 1, B)
    return windows[:-1], windows[1:]


def _marked_encoding(path: Path) -> str:
    """Return the encoding that a file's byte order mark names, or UTF-8."""
    with open(path, "rb") as file:
        beginning = file.read(4)
    return next((encoding for mark, encoding in MARKS.items() if beginning.startswith(mark)), "utf-8")


def _smallest_type(vocabulary: str) -> np.dtype:
    return np.min_scalar_type(len(vocabulary) - 1)


def _first_fault(path: Path) -> str:
    """Say where a file stops being UTF-8."""
    with open(path, "rb") as file:
        for number, line in enumerate(file, start=1):
            try:
                line.decode()
            except UnicodeDecodeError as error:
                return f"line {number:,}, byte {error.start + 1:,} is 0x{line[error.start]:02x}"
    return "it ends within a character"
