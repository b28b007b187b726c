"""The page of part4/explore.py: images under corruptions, and the network in NumPy at work."""

import json

import numpy as np
import pytest
import torch

from common.run_folder import load_checkpoint
from part4.cifar10 import load_images, normalise, to_unit
from part4.corruptions import jpeg_transform
from part4.networks import get_model
from part4.numpy_network import network_forward
from tests.browser import accessibility_faults
from tests.harness import POSIX

pytestmark = POSIX


@pytest.fixture(scope="module")
def runs(tried, tmp_path_factory):
    folder = tmp_path_factory.mktemp("explored")
    debug = ["--model_name", "debug", "--dataset", "synthetic", "--epochs", 1, "--run_dir", folder / "debug"]
    in_numpy = ["--channels", 3, 4, "--num_epochs", 1, "--num_train", 256, "--run_dir", folder / "numpy"]
    for module, words in (("part4.train", debug), ("part4.train_numpy", in_numpy)):
        ending = tried(module, *words)
        assert ending.code == 0, ending.err
    return folder


@pytest.fixture(scope="module")
def written(tried, runs):
    ending = tried("part4.explore", "--checkpoint", runs / "debug", runs / "numpy")
    assert (ending.code, ending.err) == (0, "")
    return runs / "debug" / "explore.html"


@pytest.fixture
def page(open_page, written):
    return open_page(written)


def first_of_each_class():
    test = load_images("synthetic").test
    return to_unit(test.pixels[torch.stack([(test.labels == label).nonzero()[0, 0] for label in range(10)])])


def test_what_the_network_says_of_a_corrupted_image(page, runs):
    best = load_checkpoint(runs / "debug" / "best.pt")
    model = get_model("debug").eval()
    model.load_state_dict(best["model"])
    images = normalise(jpeg_transform(5)(first_of_each_class()), best["mean"], best["std"])
    p, k = model(images).softmax(dim=1)[3].max(dim=0)
    page.locator(".choices button").nth(3).click()
    said = page.locator("#run-0 .severities tr").nth(4).locator("td").nth(5).locator("div").first
    assert said.text_content() == f"{page.evaluate('data.runs[0].classes')[k]} {round(100 * p.item())} %"
    assert ("wrong" in (said.get_attribute("class") or "")) == (k != 3)
    assert page.locator("#run-0 .severities img").count() == 4 * 6
    assert page.evaluate("[...document.images].every(({ complete, naturalWidth }) => complete && naturalWidth === 32)")


def test_its_network_is_the_one_in_numpy(page, runs):
    weights = load_checkpoint(runs / "numpy" / "checkpoint.pt")["best"]["network"]["weights"]
    data = load_images("synthetic")
    x = normalise(first_of_each_class(), data.mean, data.std).numpy()
    p, caches, _ = network_forward({name: weight.numpy() for name, weight in weights.items()}, x)
    page.get_by_role("tab", name="NumPy").click()
    page.locator("#run-1 .choices button").nth(7).click()
    assert page.locator("#run-1 .maps canvas").count() == 3 + 3 + 4  # filters and maps
    found = page.evaluate(
        """() => {
            const run = data.runs[1], blocks = run.weights.blocks.map(({ W, b }) => ({ W: floats(W), b: floats(b) }));
            const network = { blocks, W_p: floats(run.weights.W_p), b_p: floats(run.weights.b_p) };
            const { steps, p } = runNetwork(network, floats(run.images[7]), run.side);
            return [Array.from(p), ...steps.map(({ r }) => Array.from(r))];
        }"""
    )
    for values, expected in zip(found, [p[7], *(cache.r[7].ravel() for cache in caches)]):
        np.testing.assert_allclose(values, expected, atol=1e-4)


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_it_is_accessible_and_fits_a_narrow_screen(open_page, written, scheme):
    page = open_page(written, width=400, scheme=scheme)
    for tab in page.get_by_role("tab").all():
        tab.click()
        assert accessibility_faults(page) == []
        assert page.evaluate("document.scrollingElement.scrollWidth") <= 400


def test_unfinished_and_foreign_runs_are_one_line(tried, runs, tmp_path):
    copy = tmp_path / "copy"
    copy.mkdir()
    for name in ("config.json", "result.json", "checkpoint.pt"):
        (copy / name).write_bytes((runs / "numpy" / name).read_bytes())
    config = json.loads((copy / "config.json").read_text())
    (copy / "config.json").write_text(json.dumps({**config, "script": "part4/train.py"}))
    ending = tried("part4.explore", "--checkpoint", copy)
    assert ending.code == 2 and "best.pt does not exist" in ending.line
    (copy / "config.json").write_text(json.dumps(config))
    (copy / "result.json").write_text("{}")
    ending = tried("part4.explore", "--checkpoint", copy)
    assert ending.code == 2 and "fits together" in ending.line
