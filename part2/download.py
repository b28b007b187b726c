"""Fetch a book, or the Tang poems, to train on.

    python part2/download.py grimm

Files come over https and must have the sha256 that stands here. Of a Project Gutenberg e-book the text between its
START and END lines is kept, without byte order mark, header and licence. What the data folder has already is not
fetched again.
"""

import io
import re
import shlex
import sys
import zipfile
from pathlib import Path
from typing import NamedTuple
from urllib.parse import quote

if not __package__:  # run as a script
    sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
    from common.interrupts import exit_on_interrupt

    exit_on_interrupt()  # while the imports below take their time
from common.command import (
    ArgumentParser,
    non_empty,
    run_command,
)
from common.data import data_path, find_data, write_atomically
from common.paths import ROOT, short_path


class Book(NamedTuple):
    """A file's place in the data folder, where it can be had, and its checksum."""

    name: str
    url: str
    sha256: str


UVA_2019 = "https://raw.githubusercontent.com/sgraaf/uvadlc_practicals_2019/master/assignment_2/part2/assets/"
BOOKS = {
    "grimm": Book(
        "text/grimm.txt",
        UVA_2019 + "book_EN_grimms_fairy_tails.txt",
        "e6439bd511820742e842e21b75e89b394d3809eec82ca56b506c39ff39d4a7d6",
    ),
    "democracy": Book(
        "text/book_EN_democracy_in_the_US.txt",
        UVA_2019 + "book_EN_democracy_in_the_US.txt",
        "1ba23c5acbb00b0ffbfe48be30273f5b965eaedca5e8dfce55253e6bb24f2ca5",
    ),
    "anna_karenina": Book(
        "text/book_NL_tolstoy_anna_karenina.txt",
        UVA_2019 + "book_NL_tolstoy_anna_karenina.txt",
        "e8516bf15a6636966224617543fa22a129b35655f66fdfe8af224a9802e8e633",
    ),
    "shakespeare": Book(
        "text/tinyshakespeare.txt",
        "https://raw.githubusercontent.com/karpathy/char-rnn/master/data/tinyshakespeare/input.txt",
        "86c4e6aa9db7c042ec79f339dcb96d42b0075e16b8fc2e86bf0ca57e2dc565ed",
    ),
}
TANG = "https://raw.githubusercontent.com/chinese-poetry/chinese-poetry/master/" + quote("全唐诗/")
TANG_CHECKSUMS = Path(__file__).resolve().parent / "assets" / "tang.sha256"
START = re.compile(r"^\*\*\* ?START OF (THE|THIS) PROJECT GUTENBERG EBOOK.*\n(\s*Produced by (.+\n)+)?", re.MULTILINE)
END = re.compile(
    r"^(End of (the )?Project Gutenberg(.*\n)(.+\n)*\s*)?\*\*\* ?END OF (THE|THIS) PROJECT GUTENBERG EBOOK",
    re.MULTILINE,
)


def main() -> None:
    args = build_parser().parse_args()
    train = f"python {shlex.quote(short_path(Path(__file__).with_name('train.py')))}"
    if args.name == "tang":
        print(f"{train} --poems {shlex.quote(short_path(fetch_tang(args.data_dir)))}")
        return
    path = save_book(args.name, args.data_dir, args.output)
    text = path.read_text(encoding="utf-8")
    print(f"{short_path(path)}: {len(text):,} characters, {len(set(text))} different ones")
    print(f"{train} --txt_file {shlex.quote(short_path(path))}")


def save_book(name: str, data_dir: str | None = None, output: str | None = None) -> Path:
    """Write a book, ready to train on, to `output` (default data/books/NAME.txt) and return the path."""
    path = Path(output or ROOT / "data" / "books" / f"{name}.txt")
    path.parent.mkdir(parents=True, exist_ok=True)
    write_atomically(path, without_gutenberg(fetch_book(BOOKS[name], data_dir)).encode())
    return path


def fetch_book(book: Book, data_dir: str | None) -> str:
    """Return a book's text, line ends as newlines and without byte order mark.

    Raises:
        ValueError: it cannot be downloaded, or is not the expected file.
    """
    content = find_data(book.name, data_dir, book.url, book.sha256).read_bytes()
    return content.decode("utf-8-sig").replace("\r\n", "\n")


def fetch_tang(data_dir: str | None) -> Path:
    """Return the zip of the 58 files of Tang poems in the data folder; where it is missing, make it from the files."""
    archive = data_path("tang/poet.tang.zip", data_dir)
    if archive.exists():
        return archive
    files = [line.split() for line in TANG_CHECKSUMS.read_text(encoding="utf-8").splitlines()]
    paths = [find_data(f"tang/{name}", data_dir, TANG + name, sha256) for sha256, name in files]
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as file:
        for path in paths:
            file.write(path, path.name)
    write_atomically(archive, buffer.getvalue())
    return archive


def without_gutenberg(text: str) -> str:
    """Return what stands between the header and the licence of a Project Gutenberg e-book; any other text as it is."""
    start, end = START.search(text), END.search(text)
    return text[start.end() : end.start()].strip() + "\n" if start and end else text


def build_parser() -> ArgumentParser:
    parser = ArgumentParser(__doc__)
    parser.add_argument("name", choices=[*BOOKS, "tang"], help="what to fetch")
    parser.add_argument("--output", type=non_empty, help="file to write the book to; default data/books/NAME.txt")
    parser.add_argument("--data_dir", type=non_empty, help="folder of the data sets; default $DATA_DIR, else data/")
    return parser


if __name__ == "__main__":
    run_command(main)
