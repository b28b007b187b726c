"""The page of part1/explore.py: its networks are those of PyTorch, and its digits can be changed."""

import pytest
import torch

from part1.dataset import draw_palindromes
from part1.grads_over_time import load_run
from tests.browser import accessibility_faults
from tests.harness import POSIX

pytestmark = POSIX
T = 12
SMALL = ("--input_length", T - 1, "--num_hidden", 16, "--train_steps", 20)


@pytest.fixture(scope="module")
def runs(tried, tmp_path_factory):
    folder = tmp_path_factory.mktemp("explored")
    for name, model, d in (("RNN", "RNN", 1), ("LSTM", "LSTM", 10)):
        ending = tried("part1.train", "--model_type", model, "--input_dim", d, *SMALL, "--run_dir", folder / name)
        assert ending.code == 0, ending.err
    return [folder / "RNN", folder / "LSTM"]


@pytest.fixture(scope="module")
def written(tried, runs):
    ending = tried("part1.explore", "--checkpoint", *runs)
    assert (ending.code, ending.err) == (0, "")
    return runs[0] / "explore.html"


@pytest.fixture
def page(open_page, written):
    return open_page(written)


def test_its_networks_are_those_of_pytorch(page, runs):
    palindromes = draw_palindromes(3, T, torch.Generator().manual_seed(0))
    for k, run in enumerate(runs):
        model = load_run(run, 1)[0]["trained"]
        for palindrome in palindromes:
            found = page.evaluate(
                "([k, digits]) => answer(networks[k], networks[k].run(networks[k], digits).at(-1))",
                [k, palindrome[:-1].tolist()],
            )
            expected = model(palindrome[None, :-1]).softmax(dim=1)[0]
            torch.testing.assert_close(torch.tensor(found), expected, rtol=0, atol=1e-5, check_dtype=False)


def test_digits_are_changed_by_keys_and_by_dragging(page):
    first, fifth = (
        page.get_by_role("spinbutton", name="digit 1", exact=True),
        page.get_by_role("spinbutton", name="digit 5"),
    )
    first.focus()
    page.keyboard.press("7")
    page.keyboard.press("ArrowUp")
    page.keyboard.press("ArrowUp")
    page.keyboard.press("ArrowUp")
    assert first.text_content() == "0" and page.evaluate("digits[0]") == 0  # 9 is followed by 0
    assert page.locator("#change").text_content().startswith("Digit 1 is 0: the RNN")
    page.keyboard.press("ArrowRight")
    page.keyboard.press("End")
    assert page.evaluate("digits[1]") == 9
    before, box = page.evaluate("digits[4]"), fifth.bounding_box()
    page.mouse.move(box["x"] + 5, box["y"] + 5)
    page.mouse.down()
    page.mouse.move(box["x"] + 5, box["y"] + 5 - 24)
    page.mouse.up()
    page.mouse.move(box["x"] + 5, box["y"] + 60)
    assert page.evaluate("digits[4]") == (before + 2) % 10


def test_another_length_makes_another_palindrome(page):
    page.get_by_label("Digits of the palindrome").fill("31")
    page.get_by_role("button", name="Another palindrome").click()
    digits = page.evaluate("digits")
    assert len(digits) == 30 and digits[1:] == digits[:0:-1]
    assert page.evaluate("networks.map(({ parts }) => parts.canvas.width)") == [30, 30]


def test_a_picture_shows_the_quantity_chosen(page):
    assert page.locator("select").nth(0).locator("option").count() == 1  # an RNN has no gates
    page.locator("select").nth(1).select_option("i")
    gate = page.evaluate("networks[1].steps[3].i[networks[1].order[2]]")
    pixel = "Array.from(networks[1].parts.canvas.getContext('2d').getImageData(3, 2, 1, 1).data)"
    assert page.evaluate(pixel)[3] == pytest.approx(255 * gate, abs=1)
    page.locator("canvas").nth(1).hover(position={"x": 5, "y": 5})
    assert page.locator("#says").text_content().startswith("the LSTM after digit 1: unit ")


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_it_is_accessible_and_fits_a_narrow_screen(open_page, written, scheme):
    page = open_page(written, width=400, scheme=scheme)
    assert accessibility_faults(page) == []
    assert page.evaluate("document.scrollingElement.scrollWidth") <= 400


@pytest.mark.parametrize("words", [["--model_type", "GRU"], ["--dataset", "bss", "--model_type", "LSTM"]])
def test_other_runs_are_refused_in_one_line(tried, tmp_path, words):
    assert tried("part1.train", *words, "--train_steps", 1, "--num_hidden", 4, "--run_dir", tmp_path / "run").code == 0
    ending = tried("part1.explore", "--checkpoint", tmp_path / "run")
    assert ending.code == 2 and "holds no RNN or LSTM" in ending.line
