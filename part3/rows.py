"""A table that somebody brings, of graphs or of molecules, as rows whose line in the file is known."""

import codecs
import csv
import io
from collections.abc import Iterator

from common.errors import InputError


def decode_table(content: bytes, name: str) -> str:
    """Return the text of a file, without its byte order mark.

    Raises:
        ValueError: it is not UTF-8 text, or empty. The message names file and line.
    """
    content = content.removeprefix(codecs.BOM_UTF8)
    text, wrong = "", content.find(b"\0")
    try:
        text = content.decode()
    except UnicodeDecodeError as error:
        wrong = error.start
    if wrong >= 0:
        line = len((content[:wrong] + b"x").splitlines())
        found = f"no text in UTF-8 (byte 0x{content[wrong]:02x})"
        raise InputError(f"{name}, line {line}: {found}: save the table as CSV in UTF-8")
    if not text.strip():
        raise InputError(f"{name} is empty")
    return text


def numbered_rows(text: str, delimiter: str, name: str) -> Iterator[tuple[int, list[str]]]:
    """Yield the line at which each row begins, and its values without blanks around them; not of rows without any.

    Raises:
        ValueError: a quotation mark is not closed, or the like. The message names file and line.
    """
    # Strict: a quotation mark that is not closed would else make one value of all lines up to the next one.
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter, skipinitialspace=True, strict=True)
    line = 1
    try:
        for row in reader:
            values = [value.strip() for value in row]
            if any(values):
                yield line, values
            line = reader.line_num + 1
    except csv.Error as error:
        raise InputError(f"{name}, line {line}: this cannot be read as CSV ({error})") from None
