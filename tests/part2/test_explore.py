"""The page of part2/explore.py: what it computes, in Python and in the browser, and what its reader can do."""

import json

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from part2 import explore
from part2.dataset import decode, encode
from part2.model import load_model
from tests.browser import accessibility_faults, wait_until
from tests.harness import POSIX, ROOT

pytestmark = POSIX
SMALL = "--lstm_num_hidden 16 --embedding_size 8 --batch_size 8 --train_steps 40 --eval_every 20".split()
HOSTILE = (
    "</script><script>window.hacked = true</script><img src=x onerror='window.hacked = true'>\u2028\x1b[31m&amp;\x07 "
)


@pytest.fixture(scope="module")
def run(tried, tmp_path_factory):
    folder = tmp_path_factory.mktemp("explored") / "book"
    ending = tried("part2.train", *SMALL, "--txt_file", "part2/assets/grimm.txt", "--run_dir", folder)
    assert ending.code == 0, ending.err
    return folder


@pytest.fixture(scope="module")
def model(run):
    return load_model(run)


@pytest.fixture(scope="module")
def written(tried, run):
    ending = tried("part2.explore", "--checkpoint", run)
    assert (ending.code, ending.err) == (0, "") and "explore.html" in ending.out
    return run / "explore.html"


@pytest.fixture
def page(open_page, written):
    return open_page(written)


def opened(page, name):
    page.get_by_role("tab", name=name).click()
    return page


# The network in the page


def test_its_logits_are_those_of_pytorch(page, model):
    network, checkpoint = model
    numbers = encode("Once upon a time there was a fox, and it slept.\n", checkpoint["vocabulary"])
    found = page.evaluate(
        """(numbers) => {
            let state = model.start(), p;
            return numbers.map((number) => { ({ state, p } = model.step(number, state)); return Array.from(p); });
        }""",
        numbers,
    )
    expected = network(torch.tensor(numbers).unsqueeze(1))[:, 0]
    torch.testing.assert_close(torch.tensor(found), expected, rtol=0, atol=1e-4)


def test_greedily_it_writes_the_same_text(page, model):
    network, checkpoint = model
    page.get_by_label("Temperature").fill("0")
    stop(page)
    page.get_by_role("button", name="Write").click()
    wait_until(page, "writer.letters.length >= 200")
    found = page.evaluate("writer.letters.slice(0, 200).map(({ character }) => character)")
    prompt = torch.tensor(encode(explore.BEGINNING, checkpoint["vocabulary"])).unsqueeze(1)
    assert found == network.complete(prompt, 200 - len(prompt))[:, 0].tolist()


def stop(page):
    """Stop writing; looked at and clicked in one step, since a text that ends by itself makes the button write anew."""
    page.evaluate("byId('go').textContent === 'Stop' && byId('go').click()")


def test_surprise_and_mean_of_a_line_are_the_cross_entropy(page, model):
    network, checkpoint = model
    text = "The fox slept.\nIt woke."
    numbers = torch.tensor(encode(text, checkpoint["vocabulary"]))
    losses = F.cross_entropy(network(numbers[:-1].unsqueeze(1))[:, 0], numbers[1:], reduction="none")
    read_own(page, text)
    found = page.evaluate("reader.surprise")
    assert found[0] is None
    torch.testing.assert_close(torch.tensor(found[1:]), losses, rtol=0, atol=1e-4)
    means = page.locator("#reading .mean").all_text_contents()
    assert means == [f"{losses[:14].mean():.2f}", f"{losses[14:].mean():.2f}"]


def read_own(page, text):
    opened(page, "Read").get_by_text("Another text").click()
    page.get_by_label("Your text").evaluate("(box, text) => (box.value = text)", text)  # typing a megabyte takes long
    page.get_by_role("button", name="Read it").click()
    wait_until(page, f"reader.states.length === {min(len(text), 3000)}")


def test_what_it_remembers_is_the_gradient_of_the_logit(page, model):
    network, checkpoint = model
    numbers = torch.tensor(encode("Once upon a time there was a fox.", checkpoint["vocabulary"]))
    embedded = network.embedding(numbers[:-1]).detach().unsqueeze(1).requires_grad_()
    h = embedded
    for layer in network.layers:
        h = layer(h)
    network.output(h)[-1, 0, numbers[-1]].backward()
    found = page.evaluate(
        """(numbers) => {
            let state = model.start();
            const states = numbers.slice(0, -1).map((number) => ({ state } = model.step(number, state)).state);
            return [model.influence(states, numbers.at(-1)), model.influence(states, numbers.at(-1), 5)];
        }""",
        numbers.tolist(),
    )
    expected = embedded.grad[:, 0].norm(dim=-1)
    torch.testing.assert_close(torch.tensor(found[0]), expected, rtol=1e-4, atol=1e-7)
    expected[:-5] = 0
    torch.testing.assert_close(torch.tensor(found[1]), expected, rtol=1e-4, atol=1e-7)


def test_a_seed_repeats_a_text(page):
    def text(seed):
        stop(page)
        page.get_by_label("Seed").fill(seed)
        page.get_by_role("button", name="Write").click()
        wait_until(page, "writer.letters.length >= 100")
        return page.evaluate("writer.letters.slice(0, 100).map(({ character }) => character)")

    assert text("1") == text("1") != text("2")


# What its reader can do


def test_another_character_is_taken_and_the_text_goes_on_from_there(page):
    wait_until(page, "writer.letters.length >= 100")
    stop(page)
    before = page.evaluate("writer.letters.slice(0, 100).map(({ character }) => character)")
    page.locator("#written span[data-place='60']").hover()
    choices = page.locator("#alternatives button")
    assert choices.count() == 5
    other = choices.filter(has_not=page.locator("[aria-pressed=true]")).last
    other.click()
    wait_until(page, "writer.letters.length >= 100")
    after = page.evaluate("writer.letters.slice(0, 100).map(({ character }) => character)")
    assert after[:60] == before[:60] and after[60] != before[60]
    assert page.locator("#written").text_content().startswith(explore.BEGINNING)


def test_top_k_of_one_is_greedy(page):
    page.get_by_role("slider", name="Likeliest characters").fill("1")
    page.get_by_label("Temperature").fill("2")
    stop(page)
    page.get_by_role("button", name="Write").click()
    wait_until(page, "writer.letters.length >= 60")
    letters = page.evaluate(
        "writer.letters.slice(writer.given, 60).map(({ character, q }) => [character, likeliest(q, 1)[0]])"
    )
    assert letters and all(character == best for character, best in letters)


def test_tabs_and_characters_answer_to_the_keyboard(page):
    page.get_by_role("tab", name="Write").focus()
    page.keyboard.press("ArrowRight")
    assert page.locator("#read").is_visible() and not page.locator("#write").is_visible()
    wait_until(page, "reader.states.length === reader.letters.length")
    page.locator("#reading").focus()
    place = page.evaluate("reading.place")
    page.keyboard.press("ArrowRight")
    assert page.evaluate("reading.place") == place + 1
    rows = "[reading.place].map((k) => reading.spans[k].offsetTop)[0]"
    row = page.evaluate(rows)
    page.keyboard.press("ArrowDown")
    assert page.evaluate(rows) > row
    page.keyboard.press("ArrowUp")
    assert page.evaluate(rows) == row
    page.get_by_role("tab", name="Read").focus()
    page.keyboard.press("End")
    assert page.locator("#grow").is_visible() and page.locator("#stages h2").count() == len(
        json.loads(page.evaluate("JSON.stringify(data.samples)"))
    )


def test_units_colour_the_text_and_the_strip_chooses_one(page):
    wait_until(opened(page, "Read"), "reader.states.length === reader.letters.length")
    page.get_by_label("Colour by").select_option("f")
    page.locator("#strip i").nth(3).click()
    layer, unit = page.evaluate("[+byId('layer').value - 1, +byId('unit').value - 1]")
    assert [layer, unit] == [0, page.evaluate("data.units.order[0][3]")]
    gate = page.evaluate(f"reader.states[7][{layer}].f[{unit}]")
    colour = page.evaluate("reading.spans[7].style.background")
    assert f"{round(70 * gate)}%" in colour


def test_a_chosen_character_lights_up_what_it_came_from(page):
    wait_until(opened(page, "Remember"), "reader.states.length === reader.letters.length")
    page.locator("#remembered span[data-place='50']").click()
    assert "most came from" in page.locator("#remember-says").text_content()
    assert page.evaluate("remembered.spans.slice(51).every((span) => !span.style.background)")
    page.locator("#remembered span[data-place='0']").click()
    assert page.locator("#remember-says").text_content() == "Nothing was read before it."


@pytest.mark.parametrize("text", [HOSTILE, "☃𝄞 fox ☃", "", HOSTILE * 10_000])
def test_any_text_is_shown_as_text(open_page, tried, run, tmp_path, text):
    path, html = tmp_path / "text", tmp_path / "page.html"
    path.write_text(text + "x", encoding="utf-8")
    ending = tried("part2.explore", "--checkpoint", run, "--text", path, "--page", html)
    assert (ending.code, ending.err) == (0, "")
    page = open_page(html)
    wait_until(opened(page, "Read"), "reader.states.length === reader.letters.length")
    first = (text + "x")[:3000]
    assert page.locator("#reading").evaluate("(box) => reading.spans.map((span) => span.textContent).join('')") == first
    read_own(page, text)
    assert page.evaluate("window.hacked") is None
    assert ("The first 3,000" in page.locator("#cut").text_content()) == (len(text) > 3000)


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_names_roles_and_contrast_are_accessible(open_page, written, scheme):
    page = open_page(written, scheme=scheme)
    wait_until(page, "writer.letters.length >= 200")
    stop(page)
    assert accessibility_faults(page) == []
    for name in ("Read", "Remember", "Grow"):
        wait_until(opened(page, name), "reader.states.length === reader.letters.length")
        assert accessibility_faults(page) == [], name


def test_it_fits_a_narrow_screen(open_page, written):
    page = open_page(written, width=400)
    for name in ("Write", "Read", "Remember", "Grow"):
        opened(page, name)
        assert page.evaluate("document.scrollingElement.scrollWidth") <= 400, name


def test_light_and_dark_change_places(page):
    colours = []
    for _ in range(3):
        colours.append(page.evaluate("getComputedStyle(document.body).backgroundColor"))
        page.locator("#theme").click()
    assert colours[0] == colours[2] != colours[1]


# What is computed in Python


def test_features_of_a_text():
    text = 'A TALE\n\n"Go," he said. "No."\n\nThe'
    found = {name: "".join(str(int(value)) for value in feature(text)) for name, feature in explore.FEATURES.items()}
    assert found == {
        "inside quotation marks": "00000000" + "1111" + "0" * 11 + "1111" + "0" * 6,
        "place in the line": "1234560" + "0" + "".join(str(k) for k in range(1, 21)) + "00123",
        "place in the word": "1012340" + "0" + "0120001201234000120" + "0" + "00123",
        "in a title": "1111111" + "0" * 26,
        "after a full stop": "0" * 21 + "111" + "00" + "1111" + "000",
    }


def test_the_unit_that_follows_is_chosen_on_one_half_and_scored_on_the_other(monkeypatch, model):
    network, checkpoint = model
    text = (ROOT / "part2" / "assets" / "grimm.txt").read_text(encoding="utf-8")[:20_000]
    random = np.random.default_rng(0)

    def values(network, x):
        read = decode(x.t().flatten(), checkpoint["vocabulary"])
        made = random.normal(size=(x.numel(), 2 * 2 * 16)).astype(np.float32)
        made[:, 5] -= 100 * np.array(explore.in_title(read))  # a cell
        made[:, 3 * 16 + 7] += np.array(explore.counted(str.isalpha)(read))  # a hidden unit
        return made

    monkeypatch.setattr(explore, "unit_values", values)
    found = explore.units(network, checkpoint["vocabulary"], text)
    best = {feature["name"]: (feature["kind"], feature["layer"], feature["unit"]) for feature in found["features"]}
    assert best["in a title"] == ("c", 0, 5) and best["place in the word"] == ("h", 1, 7)
    r = {feature["name"]: feature["r"] for feature in found["features"]}
    assert r["in a title"] < -0.8 < 0.8 < r["place in the word"] and abs(r["inside quotation marks"]) < 0.1
    assert sorted(found["order"][0]) == list(range(16))


def test_unit_values_are_the_states_after_each_character(model):
    network, checkpoint = model
    x = torch.tensor(encode("a fox and a crow", checkpoint["vocabulary"])).view(2, 8).t()
    found = torch.from_numpy(explore.unit_values(network, x)).view(2, 8, -1)
    h, (_, c) = network.layers[0].states(network.embedding(x))
    torch.testing.assert_close(found[:, :, 32:48], h.transpose(0, 1))
    torch.testing.assert_close(found[:, -1, :16], c.tanh())
    h, (_, c) = network.layers[1].states(h)
    torch.testing.assert_close(found[:, :, 48:], h.transpose(0, 1))
    torch.testing.assert_close(found[:, -1, 16:32], c.tanh())


def test_a_short_text_says_nothing_of_units(model):
    assert explore.units(*model[:1], model[1]["vocabulary"], "A fox.")["features"] == []


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda run: (run / "config.json").unlink(), "no config.json"),
        (lambda run: (run / "samples.json").write_text("["), "samples.json is damaged"),
        (lambda run: (run / "best.pt").write_bytes(b"x"), "damaged or not a checkpoint"),
    ],
)
def test_a_damaged_run_is_one_line(tried, run, tmp_path, damage, message):
    copy = tmp_path / "run"
    copy.mkdir()
    for name in ("best.pt", "config.json", "samples.json"):
        (copy / name).write_bytes((run / name).read_bytes())
    damage(copy)
    ending = tried("part2.explore", "--checkpoint", copy)
    assert ending.code == 2 and message in ending.line
