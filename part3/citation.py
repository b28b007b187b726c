"""Graphs for node classification: Zachary's karate club, built in, and the citation graphs Cora, CiteSeer and PubMed.

    load_graph("cora")          reads $DATA_DIR/planetoid/ind.cora.*, or downloads these files over https

Papers mostly cite papers of their own field, so the few labelled ones tell something about their neighbours. The
Planetoid files (Yang et al. 2016) are Python pickles, and a pickle is a program: each file must have the sha256 in
assets/planetoid.sha256, and even then the unpickler that reads it can make only arrays, lists and dictionaries.
`part3/tables.py` reads other graphs.
"""

from collections import defaultdict
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from common.data import checksum_of, find_data
from common.machine import seeded_generator
from common.paths import short_path
from common.pickles import load_pickle
from part3.graph import SparseMatrix, adjacency, identity

CITATION_GRAPHS = ("cora", "citeseer", "pubmed")
URL = "https://raw.githubusercontent.com/kimiyoung/planetoid/master/data/"
CHECKSUMS = Path(__file__).resolve().parent / "assets" / "planetoid.sha256"
PARTS = ("y", "tx", "ty", "allx", "ally", "graph", "test.index")
TRAINING_NODES_A_CLASS, NUM_VALIDATION, NUM_TEST = 20, 500, 1000  # in Planetoid's split, and in random ones

# Zachary (1977), "An information flow model for conflict and fission in small groups": who met whom outside the club.
# Members are counted from 0; each friendship is listed under the smaller number.
FRIENDS = {
    0: (1, 2, 3, 4, 5, 6, 7, 8, 10, 11, 12, 13, 17, 19, 21, 31),
    1: (2, 3, 7, 13, 17, 19, 21, 30),
    2: (3, 7, 8, 9, 13, 27, 28, 32),
    3: (7, 12, 13),
    4: (6, 10),
    5: (6, 10, 16),
    6: (16,),
    8: (30, 32, 33),
    9: (33,),
    13: (33,),
    14: (32, 33),
    15: (32, 33),
    18: (32, 33),
    19: (33,),
    20: (32, 33),
    22: (32, 33),
    23: (25, 27, 29, 32, 33),
    24: (25, 27, 31),
    25: (31,),
    26: (29, 33),
    27: (33,),
    28: (31, 33),
    29: (32, 33),
    30: (32, 33),
    31: (32, 33),
    32: (33,),
}
CLUB_SIZE, INSTRUCTOR, ADMINISTRATOR = 34, 0, 33
WITH_THE_INSTRUCTOR = (0, 1, 2, 3, 4, 5, 6, 7, 8, 10, 11, 12, 13, 16, 17, 19, 21)  # after the club split


@dataclass
class LabelledGraph:
    """A graph of N nodes, split into training, validation and test nodes.

    Attributes:
        A: (N, N) adjacency, zeros and ones, without self-loops; symmetric unless the graph is directed.
        features: (N, d), sparse; in the graphs of this file each row sums to 1, or is empty.
        labels: (N,) int64 classes; -1 where the class is not known.
        num_classes: K.
        train, validation, test: the numbers of the nodes in each.
        ids, classes: names of the N nodes and of the K classes; by default their numbers.
    """

    name: str
    A: SparseMatrix
    features: SparseMatrix
    labels: Tensor
    num_classes: int
    train: Tensor
    validation: Tensor
    test: Tensor
    ids: list[str] = field(default_factory=list)
    classes: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.ids = self.ids or [str(node) for node in range(len(self.labels))]
        self.classes = self.classes or [str(number) for number in range(self.num_classes)]

    def checksum(self) -> str:
        """Return the sha256 of everything but the graph's name, in hexadecimal."""
        A, X = self.A, self.features
        parts = (A.rows, A.columns, X.rows, X.columns, X.values, self.labels, self.train, self.validation, self.test)
        return checksum_of(parts, repr((self.ids, self.classes, A.shape, X.shape, list(map(len, parts)))))


def load_graph(name: str, data_dir: str | None = None) -> LabelledGraph:
    """Return "karate", "cora", "citeseer" or "pubmed", with its public split.

    Raises:
        ValueError: a file is not there and cannot be downloaded, or is not the expected one.
    """
    return karate_club() if name == "karate" else citation_graph(name, data_dir)


def karate_club() -> LabelledGraph:
    """Return the club: knowing only the instructor's and the administrator's sides, which did the others choose?

    A member's features are its own number, one-hot. There are no validation nodes.
    """
    edges = [(member, friend) for member, friends in FRIENDS.items() for friend in friends]
    labels = torch.ones(CLUB_SIZE, dtype=torch.int64)
    labels[list(WITH_THE_INSTRUCTOR)] = 0
    return LabelledGraph(
        "karate",
        adjacency(edges, CLUB_SIZE),
        identity(CLUB_SIZE),
        labels,
        num_classes=2,
        train=torch.tensor([INSTRUCTOR, ADMINISTRATOR]),
        validation=torch.empty(0, dtype=torch.int64),
        test=torch.arange(1, CLUB_SIZE - 1),
        ids=[str(member + 1) for member in range(CLUB_SIZE)],  # Zachary counts from 1
        classes=["the instructor", "the administrator"],
    )


def citation_graph(name: str, data_dir: str | None = None) -> LabelledGraph:
    """Return a citation graph with Planetoid's split: 20 training nodes a class, 500 validation and 1,000 test nodes.

    15 nodes of CiteSeer, numbered among the test nodes, have no row in the files (the literature calls them isolated,
    though other papers cite them). They keep their place in the graph, without features or class, and are in no split.
    """
    y, tx, ty, allx, ally, graph, test = (read_part(name, part, data_dir) for part in PARTS)
    num_nodes = max(int(test.max()) + 1, len(ally) + len(ty))
    rows = np.concatenate([np.arange(len(ally)), test])  # the nodes to which the rows of allx, then of tx belong
    labels = torch.full((num_nodes,), -1)
    labels[torch.from_numpy(rows)] = torch.from_numpy(np.concatenate([ally, ty]).argmax(axis=1))
    edges = [(node, neighbour) for node, neighbours in graph.items() for neighbour in neighbours]
    return LabelledGraph(
        name,
        adjacency(edges, num_nodes),
        bags_of_words([allx, tx], rows, num_nodes),
        labels,
        num_classes=y.shape[1],
        train=torch.arange(len(y)),
        validation=torch.arange(len(y), len(y) + NUM_VALIDATION),
        test=torch.from_numpy(np.sort(test)),
    )


def random_split(graph: LabelledGraph, seed: int) -> LabelledGraph:
    """Return the graph with random training, validation and test nodes, as many as it has.

    Of each class as many are drawn for training as the graph has; validation and test nodes whatever their class.
    """
    order = torch.randperm(len(graph.labels), generator=seeded_generator(seed, "split"))
    order = order[graph.labels[order] >= 0]
    counts = graph.labels[graph.train].bincount(minlength=graph.num_classes).tolist()
    train = torch.cat([order[graph.labels[order] == label][:count] for label, count in enumerate(counts)])
    others = order[~torch.isin(order, train)]
    validation, others = others[: len(graph.validation)], others[len(graph.validation) :]
    return replace(graph, train=train, validation=validation, test=others[: len(graph.test)])


def bags_of_words(matrices: list["CompressedRows"], rows: np.ndarray, num_nodes: int) -> SparseMatrix:
    """Return (N, d) features, each row summing to 1.

    Args:
        matrices: the counts of words, one below the other.
        rows: the nodes to which their rows belong.
    """
    counts = np.concatenate([np.diff(matrix.indptr) for matrix in matrices])
    node = torch.from_numpy(np.repeat(rows, counts)).long()
    word = torch.from_numpy(np.concatenate([matrix.indices for matrix in matrices])).long()
    value = torch.from_numpy(np.concatenate([matrix.data for matrix in matrices])).float()
    X = SparseMatrix(node, word, value, (num_nodes, matrices[0]._shape[1]))
    return X.with_values(X.values / X.row_sums()[X.rows])


def read_part(name: str, part: str, data_dir: str | None = None) -> Any:
    """Return the contents of the Planetoid file ind.<name>.<part>.

    Raises:
        ValueError: the file cannot be downloaded, or its sha256 is not the expected one.
    """
    file = f"ind.{name}.{part}"
    sums = dict(line.split()[::-1] for line in CHECKSUMS.read_text(encoding="utf-8").splitlines())
    path = find_data(f"planetoid/{file}", data_dir, URL + file, sums[file])
    content = path.read_bytes()
    if part == "test.index":
        return np.array(content.split(), dtype=np.int64)
    return load_pickle(content, short_path(path), ADMITTED)


class CompressedRows:
    """Stands for `scipy.sparse.csr_matrix`, so that SciPy is not needed: data, indices, indptr and _shape."""

    data: np.ndarray
    indices: np.ndarray
    indptr: np.ndarray
    _shape: tuple[int, int]


ADMITTED = {  # what the files name beyond arrays and lists
    ("scipy.sparse.csr", "csr_matrix"): CompressedRows,
    ("collections", "defaultdict"): defaultdict,
}
