"""The bundled book and poems are what assets/README.md says."""

import json
import re
from collections import Counter

import pytest

from common.data import sha256_of
from part2.dataset import HELD_OUT, Corpus, held_out_batches
from part2.model import PRETRAINED, load_model
from part2.train import evaluate
from tests.harness import ROOT

ASSETS = ROOT / "part2" / "assets"


def test_the_book():
    text = (ASSETS / "grimm.txt").read_bytes().decode("utf-8")
    assert len(text) >= 250_000 and not set(text) - set(map(chr, range(32, 127))) - {"\n"}
    titles = re.findall(r"(?:\A|\n\n\n)([A-Z][A-Z ,'-]+)\n\n", text)
    assert len(titles) >= 50 and len(set(titles)) == len(titles) and "SLEEPING BEAUTY" in titles
    tales = re.split(r"(?:\A|\n\n\n)[A-Z][A-Z ,'-]+\n\n", text)[1:]
    assert min(map(len, tales)) > 4_000


def test_no_sentence_stands_twice():
    text = re.sub(r"(?:\A|\n\n\n)[A-Z][A-Z ,'-]+\n\n", ". ", (ASSETS / "grimm.txt").read_text(encoding="utf-8"))
    sentences = re.split(r"(?<=[.!?])[\"')]*\s+(?=[\"'(]*[A-Z])", text)
    counts = Counter(" ".join(re.findall(r"[a-z0-9']+", sentence.lower())) for sentence in sentences)
    counts.pop("", None)
    assert len(counts) > 2_500
    assert not [sentence for sentence, count in counts.items() if count > 1]


def test_the_quatrains():
    poems = json.loads((ASSETS / "quatrains.json").read_text(encoding="utf-8"))
    clauses = [clause for poem in poems for verse in poem["paragraphs"] for clause in re.split("[，。]", verse)[:2]]
    assert len(poems) >= 36 and len({poem["title"] for poem in poems}) == len(poems)
    assert all(len(poem["paragraphs"]) == 2 for poem in poems)
    assert len(set(clauses)) == 4 * len(poems) and {len(clause) for clause in clauses} == {5, 7}


def test_the_model():
    for line in (PRETRAINED / "sha256").read_text().splitlines():
        checksum, name = line.split()
        assert sha256_of(PRETRAINED / name) == checksum, name
    model, checkpoint = load_model(PRETRAINED)
    corpus = Corpus(ASSETS / "grimm.txt", HELD_OUT)
    assert (checkpoint["vocabulary"], checkpoint["text_checksum"]) == (corpus.vocabulary, corpus.checksum)
    found = evaluate(model, list(held_out_batches(corpus)), "cpu")["held_out_loss"]
    told = json.loads((PRETRAINED / "result.json").read_text())["held_out_loss"]
    assert found == pytest.approx(told, abs=1e-5)
    config = json.loads((PRETRAINED / "config.json").read_text())
    assert config["command"] in (ASSETS / "README.md").read_text() and not config["commit"].endswith("dirty")
