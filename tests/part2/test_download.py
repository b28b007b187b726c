"""part2/download.py: verified files, and books without Project Gutenberg's header and licence."""

import hashlib
import sys
import zipfile

import pytest
import torch

import part2.download
from common.command import run_command
from common.data import data_path
from common.errors import CommandError
from part2.download import BOOKS, Book, fetch_tang, without_gutenberg
from part2.poems import read_poems

EBOOK = """\ufeffThe Project Gutenberg EBook of Nothing

Language: English

*** START OF THIS PROJECT GUTENBERG EBOOK NOTHING ***

Produced by Nobody
and Nothing

NOTHING

It was empty.

End of the Project Gutenberg EBook of Nothing,
by Nobody

*** END OF THIS PROJECT GUTENBERG EBOOK NOTHING ***

***** This file should be named 0.txt *****
*** START: FULL LICENSE ***
"""


def download(monkeypatch, *words):
    monkeypatch.setattr(sys, "argv", ["part2/download.py", *map(str, words)])
    run_command(part2.download.main)


@pytest.fixture
def ebook(monkeypatch):
    """A book behind an address, and a network that serves it."""
    content = EBOOK.replace("\n", "\r\n").encode()
    monkeypatch.setitem(
        BOOKS, "grimm", Book("text/grimm.txt", "https://example.org/0.txt", hashlib.sha256(content).hexdigest())
    )
    asked = []

    def serve(url, path, hash_prefix, progress):
        asked.append(url)
        assert hash_prefix == BOOKS["grimm"].sha256
        with open(path, "wb") as file:
            file.write(content)

    monkeypatch.setattr(torch.hub, "download_url_to_file", serve)
    return asked


def test_a_book_is_fetched_once_and_freed_of_header_and_licence(ebook, monkeypatch, tmp_path, capsys):
    for _ in range(2):
        download(monkeypatch, "grimm", "--data_dir", tmp_path, "--output", tmp_path / "out" / "book.txt")
        assert (tmp_path / "out" / "book.txt").read_bytes() == b"NOTHING\n\nIt was empty.\n"
    assert ebook == ["https://example.org/0.txt"]
    out = capsys.readouterr().out
    assert "book.txt: 23 characters, 17 different ones" in out and "python part2/train.py --txt_file" in out


def test_another_file_under_the_name_is_refused(ebook, monkeypatch, tmp_path, capsys):
    (tmp_path / "text").mkdir()
    (tmp_path / "text" / "grimm.txt").write_text("something else")
    with pytest.raises(SystemExit) as stop:
        download(monkeypatch, "grimm", "--data_dir", tmp_path)
    assert stop.value.code == 2 and "is not the expected file (its sha256 differs)" in capsys.readouterr().err


def test_the_poems_are_gathered_into_one_zip(monkeypatch, tmp_path):
    served = {f"poet.tang.{k}.json": f'[{{"paragraphs": ["{chr(0x4E00 + k)}山。"]}}]'.encode() for k in range(3)}
    checksums = tmp_path / "tang.sha256"
    checksums.write_text(
        "".join(f"{hashlib.sha256(content).hexdigest()}  {name}\n" for name, content in served.items())
    )
    monkeypatch.setattr(part2.download, "TANG_CHECKSUMS", checksums)

    def serve(url, path, hash_prefix, progress):
        content = served[url.rsplit("/", 1)[1]]
        assert hash_prefix == hashlib.sha256(content).hexdigest()
        with open(path, "wb") as file:
            file.write(content)

    monkeypatch.setattr(torch.hub, "download_url_to_file", serve)
    archive = fetch_tang(str(tmp_path))
    assert sorted(zipfile.ZipFile(archive).namelist()) == sorted(served)
    assert read_poems("tang", str(tmp_path)) == ["一山。", "丁山。", "丂山。"]
    served.clear()
    assert fetch_tang(str(tmp_path)) == archive  # not fetched again


@pytest.mark.parametrize("name", BOOKS)
def test_the_real_books(name):
    """The checksums are those of the real files; what is left holds no word of Project Gutenberg's."""
    if not data_path(BOOKS[name].name).exists():
        pytest.skip("needs the books in $DATA_DIR")
    text = without_gutenberg(part2.download.fetch_book(BOOKS[name], None))
    assert len(text) > 500_000 and "Project Gutenberg" not in text and "\ufeff" not in text and "\r" not in text


def test_the_checksums_of_the_poems_are_those_of_the_collection():
    archive = data_path("tang/poet.tang.zip")
    if not archive.exists():
        pytest.skip("needs the Tang poems in $DATA_DIR")
    lines = [line.split() for line in part2.download.TANG_CHECKSUMS.read_text().splitlines()]
    with zipfile.ZipFile(archive) as file:
        assert sorted(name for _, name in lines) == sorted(file.namelist())
        assert all(hashlib.sha256(file.read(name)).hexdigest() == checksum for checksum, name in lines)


def test_text_without_marks_stays_as_it_is():
    assert without_gutenberg("*** a story ***\n") == "*** a story ***\n"


def test_no_network(monkeypatch, tmp_path):
    import urllib.error

    def fail(*_, **__):
        raise urllib.error.URLError("no network")

    monkeypatch.setattr(torch.hub, "download_url_to_file", fail)
    with pytest.raises(
        CommandError, match=r"cannot be downloaded \(no network\): put the file at .*tinyshakespeare.txt by hand"
    ):
        part2.download.fetch_book(BOOKS["shakespeare"], str(tmp_path))
