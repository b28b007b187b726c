"""A page as one HTML file: its scripts, styles and data are written into it, so that it needs no server and no network.

A template is an HTML file that names its scripts and styles beside it, as any page does, and has an empty
`<script type="application/json" id="data">`. It is shown with a double click, or put on any static host.
"""

import base64
import json
import re
from pathlib import Path
from typing import Any

import numpy as np
from torch import Tensor

from common.data import write_atomically

STYLE = re.compile(r'<link rel="stylesheet" href="([^"]+)">')
SCRIPT = re.compile(r'<script src="([^"]+)"></script>')
DATA = '<script type="application/json" id="data"></script>'


def write_page(path: Path, template: Path, data: dict[str, Any]) -> None:
    """Write a template as one file, with `data` as the JSON that its scripts read."""
    page = template.read_text(encoding="utf-8")
    page = STYLE.sub(lambda found: f"<style>\n{_beside(template, found[1])}</style>", page)
    page = SCRIPT.sub(lambda found: f"<script>\n{_beside(template, found[1])}</script>", page)
    # "<" would let a text end the script's element
    content = json.dumps(data, ensure_ascii=False, separators=(",", ":")).replace("<", "\\u003c")
    page = page.replace(DATA, DATA.replace("></", f">{content}</"))
    path.parent.mkdir(parents=True, exist_ok=True)
    write_atomically(path, page.encode(errors="backslashreplace"))


def floats(values: Tensor) -> str:
    """Return a tensor's numbers for the page: float32, little-endian, row by row, in base64."""
    numbers = np.ascontiguousarray(values.detach().cpu().numpy(), dtype="<f4")
    return base64.b64encode(numbers.tobytes()).decode()


def _beside(template: Path, name: str) -> str:
    return (template.parent / name).read_text(encoding="utf-8")
