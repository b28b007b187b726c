"""The page of part3/explore.py: hops, what trained networks say of each node, and attention."""

import json

import pytest
import torch

from part3.explore import load_run
from part3.graph import add_self_loops, adjacency, normalise
from tests.browser import accessibility_faults
from tests.harness import POSIX

pytestmark = POSIX
NODES = "id,label,split,f1,f2\n" + "".join(
    f"{name},{label},{split},{k},{k % 2}\n"
    for k, (name, label, split) in enumerate(
        [("<b>a</b>", "x", "train"), ("b", "y", "train"), ("c", "x", "val"), ("d", "", ""), ("e", "y", "test")]
    )
)
EDGES = "source,target\n<b>a</b>,b\nb,c\nc,d\nd,e\n"


@pytest.fixture(scope="module")
def runs(tried, tmp_path_factory):
    folder = tmp_path_factory.mktemp("explored")
    (folder / "nodes.csv").write_text(NODES)
    (folder / "edges.csv").write_text(EDGES)
    own = ["--nodes", folder / "nodes.csv", "--edges", folder / "edges.csv", "--model", "gat"]
    for name, words in (("club", []), ("own", own)):
        ending = tried("part3.train", *words, "--epochs", 20, "--run_dir", folder / name)
        assert ending.code == 0, ending.err
    return folder


@pytest.fixture(scope="module")
def written(tried, runs):
    ending = tried("part3.explore", "--checkpoint", runs / "club", runs / "own")
    assert (ending.code, ending.err) == (0, "")
    return runs / "club" / "explore.html"


@pytest.fixture
def page(open_page, written):
    return open_page(written)


@pytest.mark.parametrize("edition", ["UvA November 2019", "UvA 2020"])
def test_powers_are_those_of_the_matrix(page, edition):
    page.get_by_role("combobox", name="Graph").select_option(label=edition)
    edges = page.get_by_role("combobox", name="Graph").input_value().split()
    A = adjacency([("ABCDEF".index(u), "ABCDEF".index(v)) for u, v in edges], 6)
    dense = {"plain": A, "loops": add_self_loops(A), "symmetric": normalise(add_self_loops(A))}
    for kind, matrix in dense.items():
        for k in (0, 1, 3):
            found = page.evaluate(f"power(matrixOf(byId('six').value.split(' '), '{kind}'), {k})")
            expected = torch.linalg.matrix_power(matrix.to_dense().double(), k)
            torch.testing.assert_close(torch.tensor(found).double(), expected, rtol=0, atol=1e-6)


def test_news_from_c_reaches_e_after_three_layers_or_four(page):
    for edition, needed in (("UvA November 2019", 3), ("UvA 2020", 4)):
        page.get_by_role("combobox", name="Graph").select_option(label=edition)
        for k in range(6):
            page.get_by_label("Layers").fill(str(k))
            assert ("E" in page.locator("#arrived").text_content().split(" is at ")[1]) == (k >= needed)


def test_it_shows_what_the_network_says(page, runs):
    model, A, graph, _ = load_run(runs / "club")
    probability, predicted = model.eval()(A, graph.features).softmax(dim=1).max(dim=1)
    page.get_by_role("tab", name="karate, GCN").click()
    page.locator("#graph-0 .plot").focus()
    page.keyboard.press("ArrowRight")  # to the second member
    says = page.locator("#graph-0 .about p").text_content()
    assert says.startswith("Node 2, test node: the instructor") and f"p = {probability[1]:.2f}" in says
    assert ("so says the network" in says) == (predicted[1] == 0)
    assert page.locator("#graph-0 table tr").count() == 1 + int((graph.A.rows == 1).sum())
    assert page.locator("#graph-0 circle.wrong").count() == int((predicted != graph.labels).sum())


def test_attention_of_a_node_sums_to_one_with_its_own(page, runs):
    model, A, graph, _ = load_run(runs / "own")
    layer = model.layers[0]
    alpha = layer.attention(A, (graph.features @ layer.W).unflatten(1, (layer.heads, -1))).mean(dim=1)
    page.get_by_role("tab", name="GAT").click()
    page.locator("#graph-1 circle").nth(1).hover()
    shown = sorted(map(float, page.locator("#graph-1 td.number").all_text_contents()))
    expected = sorted(alpha[(A.rows == 1) & (A.columns != 1)].tolist())
    assert shown == pytest.approx(expected, abs=6e-4) and sum(shown) < 1


def test_names_are_shown_as_text(page):
    page.get_by_role("tab", name="GAT").click()
    page.locator("#graph-1 circle").nth(1).hover()
    assert page.locator("#graph-1 td").filter(has_text="<b>a</b>").count() == 1
    page.locator("#graph-1 circle").nth(3).hover()
    assert "in no split: not known" in page.locator("#graph-1 .about p").text_content()


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_it_is_accessible_and_fits_a_narrow_screen(open_page, written, scheme):
    page = open_page(written, width=400, scheme=scheme)
    for tab in page.get_by_role("tab").all():
        tab.click()
        assert accessibility_faults(page) == []
        assert page.evaluate("document.scrollingElement.scrollWidth") <= 400


def test_a_run_without_its_graph_or_network_is_one_line(tried, runs, tmp_path):
    for name, message in (("nothing", "does not exist"), ("other", "another graph"), ("model", "fits together")):
        copy = tmp_path / name
        copy.mkdir()
        config = json.loads((runs / "club" / "config.json").read_text())
        if name == "other":
            config["arguments"]["nodes"], config["arguments"]["edges"] = (
                str(runs / "nodes.csv"),
                str(runs / "edges.csv"),
            )
        if name == "model":
            config["arguments"]["num_hidden"] = 3
        if name != "nothing":
            (copy / "config.json").write_text(json.dumps(config))
            (copy / "checkpoint.pt").write_bytes((runs / "club" / "checkpoint.pt").read_bytes())
        ending = tried("part3.explore", "--checkpoint", copy)
        assert ending.code == 2 and message in ending.line
