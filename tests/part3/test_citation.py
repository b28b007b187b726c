"""part3/citation.py: the club, the Planetoid files, and files that someone has tampered with."""

import collections
import hashlib
import os
import pickle
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch

from common.data import data_path
from common.errors import CommandError
from common.pickles import load_pickle
from part3 import citation
from part3.citation import load_graph, random_split
from part3.graph import adjacency

NEEDS = {
    name: pytest.mark.skipif(
        not all(data_path(f"planetoid/ind.{name}.{part}").exists() for part in citation.PARTS),
        reason=f"the Planetoid files of {name} are not in $DATA_DIR/planetoid",
    )
    for name in citation.CITATION_GRAPHS
}
# Nodes, features, classes, undirected edges (without loops and repetitions), entries of the features, and nodes without
# a class.
SIZES = {
    "cora": (2708, 1433, 7, 5278, 49216, 0),
    "citeseer": (3327, 3703, 6, 4552, 105165, 15),
    "pubmed": (19717, 500, 3, 44324, 988031, 0),
}
GRAPHS = pytest.mark.parametrize("name", [pytest.param(name, marks=NEEDS[name]) for name in SIZES])


def test_the_club_is_networkx_s():
    networkx = pytest.importorskip("networkx")
    club, graph = networkx.karate_club_graph(), load_graph("karate")
    assert torch.equal(graph.A.to_dense(), torch.from_numpy(networkx.to_numpy_array(club, weight=None)).float())
    assert graph.labels.tolist() == [int(club.nodes[i]["club"] == "Officer") for i in club]
    assert graph.train.tolist() == [0, 33] and len(graph.test) == 32 and not len(graph.validation)


@GRAPHS
def test_sizes_and_public_split(name):
    graph = load_graph(name)
    N, d, K, edges, entries, unknown = SIZES[name]
    assert graph.A.shape == (N, N) and len(graph.A.values) == 2 * edges and graph.num_classes == K
    assert graph.features.shape == (N, d) and len(graph.features.values) == entries
    assert int((graph.labels < 0).sum()) == unknown and int(graph.labels.max()) == K - 1
    assert graph.labels[graph.train].bincount().tolist() == [20] * K
    assert len(graph.validation) == 500 and len(graph.test) == 1000
    everyone = torch.cat([graph.train, graph.validation, graph.test])
    assert len(everyone.unique()) == len(everyone) and (graph.labels[everyone] >= 0).all()
    sums = graph.features.row_sums()
    assert torch.allclose(sums[sums != 0], torch.ones(1)) and int((sums == 0).sum()) >= unknown


# The files name modules that NumPy and SciPy have moved since.
@pytest.mark.filterwarnings("ignore::DeprecationWarning")
@GRAPHS
def test_features_labels_and_edges_are_those_of_the_files(name):
    """Read once more with SciPy and the ordinary unpickler, as the data's authors do."""
    pytest.importorskip("scipy")

    def load(part):
        with open(data_path(f"planetoid/ind.{name}.{part}"), "rb") as file:
            return pickle.load(file, encoding="latin1")

    tx, ty, ally, links = load("tx"), load("ty"), load("ally"), load("graph")
    graph = load_graph(name)
    order = np.loadtxt(data_path(f"planetoid/ind.{name}.test.index"), dtype=int)
    for row in (0, 17, 999):
        words = tx[row].toarray()[0]
        found = graph.features.to_dense()[order[row]].numpy()
        assert np.allclose(found, words / max(words.sum(), 1)) and graph.labels[order[row]] == ty[row].argmax()
    assert graph.labels[: len(ally)].tolist() == ally.argmax(axis=1).tolist()
    for node in (0, 100, 2000):
        assert set(graph.A.columns[graph.A.rows == node].tolist()) >= set(links[node]) - {node}


@NEEDS["citeseer"]
def test_nodes_that_citeseers_files_leave_out_keep_their_places():
    graph = load_graph("citeseer")
    unknown = (graph.labels < 0).nonzero().flatten()
    assert unknown.tolist() == sorted(set(range(2312, 3327)) - set(graph.test.tolist()))
    assert not torch.isin(graph.features.rows, unknown).any()
    degrees = graph.A.row_sums()
    assert (degrees[unknown] > 0).all() and int((degrees == 0).sum()) == 48


def test_random_splits_are_as_large_as_the_public_one_and_differ_by_seed():
    club = load_graph("karate")
    splits = [random_split(club, seed) for seed in range(20)]
    for split in splits:
        assert split.labels[split.train].tolist() == [0, 1] and len(split.test) == 32
        assert not torch.isin(split.train, split.test).any()
    assert len({tuple(split.train.tolist()) for split in splits}) > 10
    assert torch.equal(random_split(club, 3).test, splits[3].test)


def test_random_splits_keep_each_class_s_number_of_training_nodes():
    club = load_graph("karate")
    club.train, club.validation, club.test = torch.tensor([0, 1, 2, 33]), torch.tensor([3]), torch.arange(4, 14)
    split = random_split(club, 0)
    assert split.labels[split.train].bincount().tolist() == [3, 1]
    assert len(split.validation) == 1 and len(split.test) == 10


def test_nodes_and_classes_have_names():
    club = load_graph("karate")
    assert club.ids[0] == "1" and club.ids[-1] == "34" and club.classes[0] == "the instructor"
    club.ids, club.classes = [], []
    assert random_split(club, 0).ids[-1] == "33" and random_split(club, 0).classes == ["0", "1"]


@pytest.mark.parametrize("part", ["ids", "classes", "labels", "train", "test", "A", "features"])
def test_the_checksum_is_of_everything(part):
    club, other = load_graph("karate"), load_graph("karate")
    assert club.checksum() == other.checksum()
    changed = {
        "ids": club.ids[::-1],
        "classes": ["left", "right"],
        "labels": 1 - club.labels,
        "train": club.train.flip(0),
        "test": club.test[1:],
        "A": adjacency([(0, 1)], 34),
        "features": club.features.with_values(2 * club.features.values),
    }
    setattr(other, part, changed[part])
    assert club.checksum() != other.checksum()


@NEEDS["citeseer"]
def test_random_splits_of_citeseer_leave_out_nodes_without_a_class():
    split = random_split(load_graph("citeseer"), 0)
    assert split.labels[split.train].bincount().tolist() == [20] * 6
    everyone = torch.cat([split.train, split.validation, split.test])
    assert len(split.validation) == 500 and len(split.test) == 1000 and len(everyone.unique()) == 1620
    assert (split.labels[everyone] >= 0).all()


class Hostile:
    """A pickle of this would delete a file when it is read."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return os.remove, (self.path,)


def test_a_pickle_that_names_a_function_is_refused_before_anything_is_called(tmp_path):
    victim = tmp_path / "victim"
    victim.write_text("alive")
    for content in (pickle.dumps(Hostile(str(victim)), protocol=2), pickle.dumps(print, protocol=2)):
        with pytest.raises(ValueError, match=r"refused.*names (posix|nt|__builtin__)\.(remove|print)"):
            load_pickle(content, "a file", citation.ADMITTED)
    assert victim.read_text() == "alive"


@pytest.mark.parametrize(
    "content", [b"", b"no pickle", b"\x80\x02]q\x00(K\x01", pickle.dumps(np.zeros(3), protocol=2)[:-20]]
)
def test_a_damaged_pickle_is_refused(content):
    with pytest.raises(ValueError, match="a file is refused: damaged, or no data file"):
        load_pickle(content, "a file", citation.ADMITTED)


def test_what_the_files_need_is_admitted():
    links = collections.defaultdict(list, {0: [1, 2]})
    assert load_pickle(pickle.dumps(links, protocol=2), "a file", citation.ADMITTED) == links


@NEEDS["cora"]
@pytest.mark.parametrize("damage", ["truncated", "tampered", "missing"])
def test_a_wrong_file_is_refused_by_its_checksum(damage, tmp_path, monkeypatch):
    for part in citation.PARTS:
        (tmp_path / "planetoid").mkdir(exist_ok=True)
        shutil.copy(data_path(f"planetoid/ind.cora.{part}"), tmp_path / "planetoid")
    path = tmp_path / "planetoid" / "ind.cora.graph"
    content = path.read_bytes()
    path.chmod(0o600)
    expected = "ind.cora.graph is not the expected file"
    if damage == "truncated":
        path.write_bytes(content[:1000])
    elif damage == "tampered":
        path.write_bytes(pickle.dumps(Hostile(str(tmp_path / "planetoid")), protocol=2))
    else:
        path.unlink()
        monkeypatch.setattr(citation, "URL", "https://localhost:1/")
        expected = "put the file at .*ind.cora.graph by hand"
    with pytest.raises(CommandError, match=expected):
        load_graph("cora", str(tmp_path))


def test_every_file_that_is_read_has_a_checksum():
    sums = dict(line.split()[::-1] for line in citation.CHECKSUMS.read_text().splitlines())
    wanted = {f"ind.{name}.{part}" for name in citation.CITATION_GRAPHS for part in citation.PARTS}
    assert wanted <= sums.keys() and all(len(value) == 64 for value in sums.values())
    for name in wanted:
        path = Path(data_path(f"planetoid/{name}"))
        assert not path.exists() or hashlib.sha256(path.read_bytes()).hexdigest() == sums[name]
