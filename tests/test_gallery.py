"""The committed pages of docs/gallery/: whole, current, small, and without faults in a browser."""

import re

import pytest

from tests.browser import accessibility_faults, wait_until
from tests.harness import ROOT

GALLERY = ROOT / "docs" / "gallery"
PAGES = {"memory": "part1", "text": "part2", "graphs": "part3", "images": "part4"}
SOURCE = re.compile(r'<(?:link rel="stylesheet" href|script src)="([^"]+)">')


@pytest.mark.parametrize(("name", "part"), PAGES.items())
def test_a_page_is_made_from_the_present_scripts_and_styles(name, part):
    page = (GALLERY / f"{name}.html").read_text(encoding="utf-8")
    template = (ROOT / part / "explore.html").read_text(encoding="utf-8")
    sources = SOURCE.findall(template)
    assert len(sources) >= 4
    for source in sources:
        assert (ROOT / part / source).read_text(encoding="utf-8") in page, f"{source} has changed: run `make gallery`"


def test_all_pages_together_are_small():
    sizes = {path.name: path.stat().st_size for path in GALLERY.iterdir()}
    assert sum(sizes.values()) < 6e6 and sizes["text.html"] < 3e6


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("name", ["index", *PAGES])
def test_a_page_opens_without_faults(open_page, name, scheme):
    page = open_page(GALLERY / f"{name}.html", width=400, scheme=scheme)
    if name == "text":
        wait_until(page, "writer.letters.length >= 200")
        page.locator("#go").click()
    assert accessibility_faults(page) == []
    assert page.evaluate("document.scrollingElement.scrollWidth") <= 400


def test_the_index_leads_to_every_page(open_page):
    page = open_page(GALLERY / "index.html")
    links = page.locator("a").evaluate_all("(links) => links.map((link) => link.getAttribute('href'))")
    assert sorted(links) == sorted(f"{name}.html" for name in PAGES)
