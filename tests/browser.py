"""Pages as their readers open them: from a file, in Chromium, without a network."""

import shutil
import time

import pytest

NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")


def start_browser():
    """Yield a headless Chromium; skip where there is none."""
    sync_api = pytest.importorskip("playwright.sync_api", reason="the pages' tests need playwright")
    program = next(filter(None, map(shutil.which, NAMES)), None)
    if program is None:
        pytest.skip("the pages' tests need Chromium")
    with sync_api.sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=program, args=["--no-sandbox"])  # tests may run as root
        yield browser
        browser.close()


def open_pages(browser):
    """Yield a function that opens a file; at the end no page may have complained or have asked for anything else."""
    faults, contexts = [], []

    def open_page(path, width=1200, scheme="light"):
        context = browser.new_context(viewport={"width": width, "height": 900}, color_scheme=scheme, offline=True)
        contexts.append(context)
        page = context.new_page()
        page.on("console", lambda message: faults.append(message.text))
        page.on("pageerror", lambda error: faults.append(str(error)))
        page.on("request", lambda request: request.url == path.as_uri() or faults.append(request.url[:200]))
        page.goto(path.as_uri())
        return page

    yield open_page
    for context in contexts:
        context.close()
    assert faults == []


def accessibility_faults(page):
    """Return what axe finds wrong with names, roles and contrast of the page as it is now."""
    from axe_playwright_python.sync_playwright import Axe

    return [(found["id"], found["nodes"][0]["html"]) for found in Axe().run(page).response["violations"]]


def wait_until(page, expression, seconds=30):
    """Wait until a JavaScript expression is true (wait_for_function would need what the page's own policy forbids)."""
    end = time.monotonic() + seconds
    while not page.evaluate(expression):
        assert time.monotonic() < end, expression
        page.wait_for_timeout(20)
