"""part2/poems.py: which poems are read, and how they become batches."""

import json
import zipfile

import pytest
import torch
from torch.nn import functional as F

from common.data import data_path
from part2.dataset import IGNORED
from part2.poems import END, FIRST_CHARACTERS, RARE, PoemBatches, PoemCorpus, held_out_poems, read_poems


def entry(*paragraphs):
    return {"author": "-", "title": "-", "paragraphs": list(paragraphs)}


@pytest.fixture
def poems(tmp_path):
    """Thirty poems of 4 to 33 characters over a small alphabet, each beginning with a character of its own."""
    texts = [chr(0x4E00 + k) + "山月水"[k % 3] * (k + 1) + "，。" for k in range(30)]
    (tmp_path / "poet.tang.0.json").write_text(json.dumps([entry(text) for text in texts]), encoding="utf-8")
    return tmp_path, texts


def decode(corpus, numbers):
    return "".join(corpus.vocabulary[k] for k in numbers if k != IGNORED)


def test_notes_and_gaps_and_repetitions_are_left_out(tmp_path):
    path = tmp_path / "poems.json"
    kept = ["邏人（一作「叉」）橫鳥道，", "江祖出魚梁。"]
    lost = ["冰□已鏤津。"], ["援綠{𥫗/戢}。"], ["lorem ipsum"], [""], ["又見"], ["又見"]
    path.write_text(json.dumps([entry(*kept), *(entry(*verses) for verses in lost)]), encoding="utf-8")
    assert read_poems(str(path)) == ["邏人橫鳥道，江祖出魚梁。", "又見"]


def test_zip_folder_and_file_are_the_same(poems, tmp_path):
    folder, texts = poems
    with zipfile.ZipFile(tmp_path / "poems.zip", "w") as archive:
        archive.write(folder / "poet.tang.0.json", "tang/poet.tang.0.json")
    for source in (folder, folder / "poet.tang.0.json", tmp_path / "poems.zip"):
        assert read_poems(str(source)) == texts


def test_split_vocabulary_and_rare_characters(poems):
    folder, texts = poems
    corpus = PoemCorpus(str(folder), max_length=50, max_vocabulary=8)
    assert (
        corpus.vocabulary == "".join(sorted(set("山月水，。" + END + RARE) | set(corpus.vocabulary)))
        and len(corpus.vocabulary) == 8
    )
    assert (len(corpus.train), len(corpus.held_out)) == (27, 3)
    everything = [decode(corpus, row) for part in (corpus.train, corpus.held_out) for row in part.tolist()]
    assert sorted(map(len, everything)) == sorted(len(text) + 1 for text in texts)
    assert all(text.endswith(END) and text.count(END) == 1 for text in everything)
    assert sum(text.startswith(RARE) for text in everything) >= 29
    assert PoemCorpus(str(folder), 50, 8, seed=1).checksum != corpus.checksum == PoemCorpus(str(folder), 50, 8).checksum


def test_long_poems_are_cut(poems):
    corpus = PoemCorpus(str(poems[0]), max_length=10)
    assert corpus.train.shape == (27, 11)
    assert all(END not in text or len(text) < 12 for text in (decode(corpus, row) for row in corpus.train.tolist()))
    assert max(batch.inputs.shape[0] for batch in [PoemBatches(corpus, 27, 0).batch(0)]) == 10


def test_an_epoch_reads_every_poem_once_in_a_new_order(poems):
    corpus = PoemCorpus(str(poems[0]), 50)
    batches = PoemBatches(corpus, batch_size=10, seed=0)
    assert batches.steps_per_epoch == 3
    orders = []
    for epoch in range(2):
        read = []
        for step in range(3):
            inputs, targets, fresh = batches.batch(3 * epoch + step)
            assert fresh and inputs.shape == targets.shape and inputs.min() >= 0
            for x, y in zip(inputs.t().tolist(), targets.t().tolist()):
                length = len([k for k in y if k != IGNORED])
                assert x[1:length] == y[: length - 1] and corpus.vocabulary[y[length - 1]] == END
                read.append(decode(corpus, x[:1] + y[:length]))
        assert sorted(read) == sorted(decode(corpus, row) for row in corpus.train.tolist())
        orders.append(read)
    assert orders[0] != orders[1]


def test_padding_counts_for_nothing(poems):
    """The batch's loss is the mean over the characters of its poems, each computed alone."""
    corpus = PoemCorpus(str(poems[0]), 50)
    table = torch.randn(len(corpus.vocabulary), len(corpus.vocabulary), generator=torch.Generator().manual_seed(0))
    (inputs, targets, _) = next(held_out_poems(corpus, 3))
    loss = F.cross_entropy(table[inputs].flatten(0, 1), targets.flatten())
    alone = [
        F.cross_entropy(table[x], y, reduction="none")
        for row in corpus.held_out.tolist()
        for text in [[k for k in row if k != IGNORED]]
        for x, y in [(torch.tensor(text[:-1]), torch.tensor(text[1:]))]
    ]
    assert loss.item() == pytest.approx(torch.cat(alone).mean().item(), rel=1e-5)


def test_builtin_quatrains():
    poems = read_poems("builtin")
    assert len(poems) >= 36 and all(len(poem) in (24, 32) for poem in poems)
    assert {poem[0] for poem in poems} >= set(FIRST_CHARACTERS)


@pytest.mark.skipif(not data_path("tang/poet.tang.zip").exists(), reason="needs the Tang poems in $DATA_DIR")
def test_the_tang_poems():
    corpus = PoemCorpus("tang", max_length=50)
    assert len(corpus.vocabulary) == 3_500 and set(FIRST_CHARACTERS) <= set(corpus.vocabulary)
    assert 45_000 < corpus.size < 57_607 and len(corpus.held_out) == -(-corpus.size // 10)
    rare = (corpus.train == corpus.vocabulary.index(RARE)).sum() / (corpus.train != IGNORED).sum()
    assert 0 < rare < 0.02


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("poems.json", b"no json", "is not a collection of poems"),
        ("poems.json", b'{"a": 1}', "is not a collection of poems"),
        ("poems.json", b"\xff", "is not a collection of poems"),
        ("poems.json", b"[]", "holds 0 poems: at least two are needed"),
        ("poems.zip", b"no zip", r"is damaged, or no zip archive \(BadZipFile\)"),
    ],
)
def test_files_that_hold_no_poems(tmp_path, name, content, message):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(ValueError, match=message):
        PoemCorpus(str(tmp_path / name), 50)


def test_missing_poems(tmp_path):
    with pytest.raises(
        FileNotFoundError, match=r"none does not exist: builtin, tang, or a zip, folder or file of poems is expected"
    ):
        PoemCorpus(str(tmp_path / "none"), 50)
    with pytest.raises(FileNotFoundError, match=r"fetch it with `python part2/download\.py tang`"):
        PoemCorpus("tang", 50, data_dir=str(tmp_path))
