"""part2/dataset.py: a text becomes numbers, and the numbers batches."""

import functools
import os
import subprocess
import sys
from itertools import pairwise

import numpy as np
import pytest
import torch

import part2.dataset
from part2.dataset import (
    UNKNOWN,
    ContiguousStreams,
    Corpus,
    RandomWindows,
    TextDataset,
    encode,
    find_text,
    held_out_batches,
    text_collate_fn,
)
from tests.harness import ROOT

PIPES = {"capture_output": True, "text": True, "check": True}
TEXT = "".join(chr(97 + k * k % 23) for k in range(500))


@pytest.fixture
def file(tmp_path):
    path = tmp_path / "text.txt"
    path.write_text(TEXT)
    return path


def test_items_are_a_window_and_the_same_one_later(file):
    torch.manual_seed(0)
    dataset = TextDataset(file, seq_length=30)
    for _ in range(20):
        inputs, targets = map(dataset.convert_to_string, dataset[0])
        assert len(inputs) == len(targets) == 30
        assert inputs[1:] == targets[:-1] and inputs + targets[-1] in TEXT
    assert dataset.vocabulary_size == len(set(TEXT))


def test_random_items_follow_torch_s_generator(file):
    dataset = TextDataset(file, seq_length=30)
    draws = []
    for _ in range(2):
        torch.manual_seed(1)
        draws.append([dataset[0][0].tolist() for _ in range(5)])
    assert draws[0] == draws[1] and len({tuple(item) for item in draws[0]}) > 1


@pytest.mark.parametrize("step_size", [1, 7, 10, 1000])
def test_numbered_windows_reach_both_ends_of_the_text(file, step_size):
    dataset = TextDataset(file, 30, step_size, random_select=False)
    windows = [
        dataset.convert_to_string([*inputs, targets[-1]])
        for inputs, targets in map(dataset.__getitem__, range(len(dataset)))
    ]
    starts = list(range(0, 470, step_size))
    assert windows == [TEXT[k : k + 31] for k in [*starts, *([469] if starts[-1] != 469 else [])]]
    assert dataset[-1][1].tolist() == dataset[len(dataset) - 1][1].tolist()
    with pytest.raises(IndexError):
        dataset[len(dataset)]


def test_random_windows_are_all_reachable_and_leave_the_tail_alone(file):
    corpus = Corpus(file, held_out=0.1)
    windows = RandomWindows(corpus, seq_length=30, batch_size=64, seed=0)
    found = set()
    for step in range(200):
        inputs, targets, fresh = windows.batch(step)
        assert inputs.shape == targets.shape == (30, 64) and inputs.dtype == torch.int64 and fresh
        assert torch.equal(inputs[1:], targets[:-1])
        texts = torch.cat((inputs, targets[-1:])).t().tolist()
        found |= {"".join(corpus.vocabulary[k] for k in text) for text in texts}
    assert found == {TEXT[k : k + 31] for k in range(450 - 30)}


def test_a_batch_depends_on_seed_and_step_alone(file):
    corpus = Corpus(file, 0.1)
    for kind in (RandomWindows, ContiguousStreams):
        batches = [
            kind(corpus, 10, 4, seed).batch(step).inputs.tolist() for seed, step in ((0, 3), (0, 3), (0, 4), (1, 3))
        ]
        assert batches[0] == batches[1] != batches[2]
    assert (
        RandomWindows(corpus, 10, 4, 0).batch(3).inputs.tolist()
        != RandomWindows(corpus, 10, 4, 1).batch(3).inputs.tolist()
    )


def test_streams_go_on_where_they_ended(file):
    corpus = Corpus(file, 0.1)
    streams = ContiguousStreams(corpus, seq_length=7, batch_size=3, seed=0)
    beginnings = set()
    for epoch in range(10):
        batches = [streams.batch(epoch * streams.steps_per_epoch + k) for k in range(streams.steps_per_epoch)]
        assert [batch.fresh for batch in batches] == [True] + [False] * (len(batches) - 1)
        read = torch.cat([batch.inputs for batch in batches]).t().tolist()
        said = torch.cat([batch.targets for batch in batches]).t().tolist()
        for stream, targets in zip(read, said):
            text = "".join(corpus.vocabulary[k] for k in stream)
            assert text in TEXT[:450] and len(text) > 449 / 3 - 2 * 7
            assert stream[1:] == targets[:-1]
        beginnings.add(read[0][0])
    assert len(beginnings) > 1


def test_every_held_out_character_is_predicted_once(file):
    corpus = Corpus(file, 0.1)
    streams: list[list[int]] = [[] for _ in range(3)]
    for number, (inputs, targets, fresh) in enumerate(held_out_batches(corpus, num_streams=3, seq_length=5)):
        assert fresh == (number == 0)
        for stream, x, y in zip(streams, inputs.t().tolist(), targets.t().tolist()):
            stream += [(a, b) for a, b in zip(x, y) if b >= 0]
    pairs = [(corpus.vocabulary[a], corpus.vocabulary[b]) for stream in streams for a, b in stream]
    assert pairs == list(pairwise(TEXT[449:]))


def test_what_only_the_tail_shows_is_unknown(tmp_path):
    (tmp_path / "text.txt").write_text("abab" * 25 + "abxyaababa", encoding="utf-8")
    corpus = Corpus(tmp_path / "text.txt", held_out=0.1)
    assert corpus.vocabulary == "ab" + UNKNOWN
    assert "".join(corpus.vocabulary[k] for k in corpus.tokens[-11:]) == "bab" + 2 * UNKNOWN + "aababa"
    assert Corpus(tmp_path / "text.txt").vocabulary == "abxy"


def test_loader_batches_are_time_first_and_workers_differ(file):
    loader = torch.utils.data.DataLoader(TextDataset(file, 30), batch_size=8, num_workers=2, collate_fn=text_collate_fn)
    (inputs, targets), (other, _) = list(loader)[:2]
    assert inputs.shape == targets.shape == (30, 8) and torch.equal(inputs[1:], targets[:-1])
    assert not torch.equal(inputs, other)


def test_the_vocabulary_is_the_same_in_every_process(file):
    command = [sys.executable, "-c", f"from part2.dataset import Corpus; print(Corpus({str(file)!r}).vocabulary)"]
    found = {
        subprocess.run(
            command, cwd=ROOT, env={**os.environ, "PYTHONHASHSEED": seed}, capture_output=True, check=True
        ).stdout
        for seed in "012"
    }
    assert len(found) == 1 and found.pop().decode().strip() == "".join(sorted(set(TEXT)))


def test_line_ends_and_byte_order_mark(tmp_path):
    (tmp_path / "text.txt").write_bytes(
        b"\xef\xbb\xbfone\r\ntwo\rthree\n" + "vier \N{EM DASH} f\u00fcnf \U0001f33f".encode()
    )
    corpus = Corpus(tmp_path / "text.txt")
    assert (
        "".join(corpus.vocabulary[k] for k in corpus.tokens) == "one\ntwo\nthree\nvier \N{EM DASH} f\u00fcnf \U0001f33f"
    )


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "is empty"),
        (b"\xef\xbb\xbf", "is empty"),
        (b"one\ntwo \xff three", "is not UTF-8 text: line 2, byte 5 is 0xff"),
        (b"one\ntw\xc3", "is not UTF-8 text: line 2, byte 3 is 0xc3"),
        (b"one\x00two", "is no UTF-8 text: it holds a NUL character at place 3"),
        (b"short", "the text has 5 characters to train on, but a window of seq_length 30 needs 31"),
    ],
)
def test_files_that_are_no_text(tmp_path, content, message):
    (tmp_path / "text.txt").write_bytes(content)
    with pytest.raises(ValueError, match=message):
        TextDataset(tmp_path / "text.txt", 30)


def test_too_short_for_streams_or_a_tail(tmp_path):
    with pytest.raises(FileNotFoundError, match="does not exist"):
        Corpus(tmp_path / "none.txt")
    (tmp_path / "text.txt").write_text("abcdefghi")
    with pytest.raises(ValueError, match="too few for 4 streams"):
        ContiguousStreams(Corpus(tmp_path / "text.txt"), 3, 4, 0)
    with pytest.raises(ValueError, match="too short to keep a part of it"):
        next(held_out_batches(Corpus(tmp_path / "text.txt", 0.1)))


def test_a_large_text_is_encoded_once_to_a_mapped_file(file, monkeypatch, tmp_path):
    small = Corpus(file, 0.1)
    monkeypatch.setattr(part2.dataset, "IN_MEMORY", 0)
    monkeypatch.setattr(part2.dataset, "CHUNK", 64)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    for _ in range(2):
        large = Corpus(file, 0.1)
        assert isinstance(large.tokens, np.memmap) and np.array_equal(large.tokens, small.tokens)
        for name in ("vocabulary", "size", "num_train", "checksum"):
            assert getattr(large, name) == getattr(small, name)
        assert torch.equal(
            RandomWindows(large, 30, 8, 0).batch(5).inputs, RandomWindows(small, 30, 8, 0).batch(5).inputs
        )
        monkeypatch.setattr(Corpus, "_survey", None)  # the second time nothing is read again
    cache = tmp_path / "recurrent-and-graph-networks" / "texts"
    assert sorted(path.suffix for path in cache.iterdir()) == [".json", ".tokens"]


@pytest.fixture
def encoded(file, monkeypatch, tmp_path):
    """A text that counts as large: a function that reads it, and the encoded file with its notes."""
    monkeypatch.setattr(part2.dataset, "IN_MEMORY", 0)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    Corpus(file, 0.1)
    (tokens,) = (tmp_path / "recurrent-and-graph-networks" / "texts").glob("*.tokens")
    return lambda: Corpus(file, 0.1), tokens, tokens.with_suffix(".json")


def test_a_text_changed_within_its_size_and_time_is_encoded_anew(encoded, file):
    read, _, _ = encoded
    before, stat = read(), file.stat()
    file.write_text(file.read_text().replace("a", "b", 1))
    os.utime(file, ns=(stat.st_atime_ns, stat.st_mtime_ns))
    assert file.stat().st_size == stat.st_size and read().checksum != before.checksum


DAMAGES = {
    "empty": lambda content: b"",
    "a quarter": lambda content: content[: len(content) // 4],
    "longer": lambda content: content + b"x",
    "one byte": lambda content: content[:9] + bytes([content[9] ^ 1]) + content[10:],
    "zeros": lambda content: bytes(len(content)),
}


@pytest.mark.parametrize("damage", DAMAGES.values(), ids=DAMAGES)
@pytest.mark.parametrize("which", ["tokens", "notes", "no tokens", "no notes"])
def test_a_damaged_encoded_text_is_made_anew(encoded, capsys, damage, which):
    read, tokens, notes = encoded
    whole = read().tokens.copy(), tokens.read_bytes(), notes.read_bytes()
    path = tokens if which.endswith("tokens") else notes
    if which.startswith("no "):
        path.unlink()
    else:
        path.write_bytes(damage(path.read_bytes()))
    found = read()
    assert np.array_equal(found.tokens, whole[0]) and (tokens.read_bytes(), notes.read_bytes()) == whole[1:]
    assert capsys.readouterr().err == ("" if which == "no notes" else f"{tokens} is damaged: made anew\n")


def test_an_encoded_text_that_is_cut_while_it_is_read_gives_no_wrong_batches(encoded):
    read, tokens, _ = encoded
    windows = RandomWindows(read(), 30, 64, 0)
    tokens.write_bytes(tokens.read_bytes()[:100])
    with pytest.raises(ValueError, match="has been cut: start again"):
        windows.batch(0)


ENCODINGS = ("utf-8", "utf-8-sig", "utf-16", "utf-16-le", "utf-16-be", "utf-32", "latin-1", "cp1252")


@pytest.mark.parametrize("encoding", ENCODINGS)
@pytest.mark.parametrize("named", [True, False])
def test_texts_in_any_encoding(tmp_path, encoding, named):
    """One with a byte order mark, or in UTF-8, is understood without being told; else the message says what to do."""
    (tmp_path / "text.txt").write_bytes("Müßiggang ist aller Laster Anfang.\r\n".encode(encoding) * 9)
    read = functools.partial(TextDataset, tmp_path / "text.txt", 5, encoding=encoding if named else None)
    if named or encoding in ("utf-8", "utf-8-sig", "utf-16", "utf-32"):
        dataset = read()
        text = dataset.convert_to_string(dataset.corpus.tokens.tolist()).replace("\ufeff", "")
        assert text == "Müßiggang ist aller Laster Anfang.\n" * 9
        return
    with pytest.raises(ValueError, match=r"is not? UTF-8 text: .*name"):
        read()


@pytest.mark.parametrize("encoding", ["klingon", "hex", "rot13", "a\nb", "x" * 1000, "undefined", "utf-16"])
def test_encodings_that_there_are_not_or_that_do_not_fit(file, encoding):
    with pytest.raises(ValueError, match=r"there is no encoding|is not .* text") as error:
        Corpus(file, encoding=encoding).tokens.sum()
    assert len(str(error.value)) < 2000


MEMORY = """
import sys
from pathlib import Path
from part2.dataset import ContiguousStreams, Corpus, RandomWindows

def resident():
    return int(Path("/proc/self/statm").read_text().split()[1]) * 4096 / 2**20

corpus = Corpus(sys.argv[1], 0.1)
before = resident()
for kind in (RandomWindows, ContiguousStreams):
    batches = kind(corpus, 128, 256, 0)
    for step in range(300):
        batches.batch(step)
print(resident() - before, before)
"""


@pytest.mark.slow
@pytest.mark.skipif(not os.path.exists("/proc/self/statm"), reason="reads /proc")
def test_memory_stays_flat_for_a_large_text(tmp_path):
    """240 MB of text: neither encoding it nor reading 600 batches from everywhere in it takes its size in memory."""
    path = tmp_path / "large.txt"
    path.write_text(TEXT * 480_000)
    environment = {**os.environ, "XDG_CACHE_HOME": str(tmp_path)}
    done = subprocess.run([sys.executable, "-c", MEMORY, path], cwd=ROOT, env=environment, **PIPES)
    growth, before = map(float, done.stdout.split())
    reference = subprocess.run(
        [sys.executable, "-c", MEMORY, ROOT / "part2" / "assets" / "grimm.txt"], cwd=ROOT, **PIPES
    )
    assert growth < 20 and before - float(reference.stdout.split()[1]) < 60, done.stdout


def test_encode_names_the_character_it_does_not_know():
    assert encode("baab", "ab") == [1, 0, 0, 1]
    with pytest.raises(
        ValueError, match=r"character 3 of 'ab\u00e9' is '\u00e9' \(U\+00E9\), which the model has never seen"
    ):
        encode("ab\u00e9", "ab")


def test_texts_are_found_from_both_folders(monkeypatch):
    for folder in (ROOT, ROOT / "part2"):
        monkeypatch.chdir(folder)
        assert find_text("assets/grimm.txt").exists()
