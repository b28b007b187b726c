"""One's own graph, from a table of its nodes and a table of its edges; and a table of what a network says of each node.

    nodes.csv                          edges.csv
    id,label,split,age,height          source,target
    Ann,red,train,41,1.70              Ann,Bob
    Bob,blue,test,17,1.81              Bob,Cid
    Cid,,,29,1.65

A node's `label` is its class, and empty where that is not known. `split` is train, validation (valid, val), test, or
empty. Without such a column, 60 % of the labelled nodes of each class train, 20 % validate and 20 % test, drawn from
the seed. All other columns are features; they must be numbers, and are taken as they are. Without any, a node's feature
is its own number, one-hot.

An edge is a row of two ids: those in the columns `source` and `target`, or else in the first two; further columns, such
as weights, are not read. A table of edges may do without a header: its first row is an edge if it names a node or holds
a number, unless it names the columns source and target.

Values are separated by commas, semicolons or tabs, and may be quoted. Blanks around them do not count.
"""

import csv
import io
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import chain
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from common.data import input_file, write_atomically
from common.errors import InputError
from common.machine import seeded_generator
from common.paths import readable, short_path
from part3.citation import LabelledGraph
from part3.graph import SparseMatrix, adjacency, identity
from part3.rows import decode_table, numbered_rows

PARTS = ("train", "validation", "test")
SPLITS = {  # how a table may write them
    "train": "train",
    "validation": "validation",
    "valid": "validation",
    "val": "validation",
    "test": "test",
    "": "",
}
NAMES = ("id", "label", "split", "source", "target")  # of columns, in any case


@dataclass
class Nodes:
    """The table of nodes; all lists are as long as it.

    Attributes:
        number: each id's place in the table, counted from 0; in the table's order.
        lines: lines of the file, for messages.
        labels: names of classes; "" where the class is not known.
        splits: "train", "validation", "test" or ""; None if the table has no such column.
        features: (N, d).
    """

    number: dict[str, int]
    lines: list[int]
    labels: list[str]
    splits: list[str] | None
    features: SparseMatrix


def read_graph(nodes_file: str | Path, edges_file: str | Path, directed: bool = False, seed: int = 0) -> LabelledGraph:
    """Return the graph in two tables. Loops are dropped, and an edge that is there twice counts once.

    Args:
        nodes_file, edges_file: paths of the tables.
        directed: messages go from source to target only; else both ways.
        seed: draws the split if the table of nodes has none.

    Raises:
        FileNotFoundError: a table does not exist.
        ValueError: a table cannot be understood, or there is nothing to learn or to test. The message names file and
            line.
    """
    nodes_path, edges_path = input_file(nodes_file, "a table of nodes"), input_file(edges_file, "a table of edges")
    nodes = read_nodes(nodes_path)
    known = set(nodes.labels) - {""}
    if len(known) < 2:
        found = f"every label is {shown(known.pop())}" if known else "no node has a label (a column `label`)"
        raise InputError(f"{short_path(nodes_path)}: {found}: at least two classes are needed")
    by_number = all(name.isdecimal() for name in known)  # 2 before 10
    classes = sorted(known, key=(lambda name: (len(name), name)) if by_number else None)
    place = {name: k for k, name in enumerate(classes)} | {"": -1}
    labels = torch.tensor([place[name] for name in nodes.labels])
    if nodes.splits is None:
        split = draw_split(labels, len(classes), seed)
    else:
        split = {name: torch.tensor([i for i, s in enumerate(nodes.splits) if s == name]).long() for name in PARTS}
    check_split(nodes_path, nodes, classes, labels, split)
    A = adjacency(read_edges(edges_path, nodes.number), len(labels), directed=directed)
    ids = list(nodes.number)
    return LabelledGraph(
        readable(nodes_path.stem), A, nodes.features, labels, len(classes), **split, ids=ids, classes=classes
    )


def draw_split(labels: Tensor, num_classes: int, seed: int) -> dict[str, Tensor]:
    """Return random training, validation and test nodes, 60, 20 and 20 % of each class.

    A small class is drawn for training first, then for the test: every class has a training node.
    """
    order = torch.randperm(len(labels), generator=seeded_generator(seed, "split"))
    parts: dict[str, list[Tensor]] = {name: [] for name in PARTS}
    for label in range(num_classes):
        members = order[labels[order] == label]
        num_train = max(1, len(members) * 3 // 5)
        num_test = min(len(members) - num_train, -(-len(members) // 5))
        parts["train"].append(members[:num_train])
        parts["test"].append(members[num_train : num_train + num_test])
        parts["validation"].append(members[num_train + num_test :])
    return {name: torch.cat(part).sort().values for name, part in parts.items()}


def check_split(path: Path, nodes: Nodes, classes: list[str], labels: Tensor, split: dict[str, Tensor]) -> None:
    """Raise an InputError unless every node in the split has a label, and there are nodes to train on and to test."""
    where = short_path(path)
    for part, members in split.items():
        for node in members[labels[members] < 0].tolist():
            raise InputError(f"{where}, line {nodes.lines[node]}: a {part} node needs a label")
    for part in ("train", "test"):
        if not len(split[part]):
            drawn = "no class has two nodes with a label, one of them for the test"
            raise InputError(f"{where}: {f'the split of no node is {part}' if nodes.splits else drawn}")
    counts = labels[split["train"]].bincount(minlength=len(classes))
    for k in (counts == 0).nonzero().flatten().tolist():
        line = nodes.lines[nodes.labels.index(classes[k])]
        reason = "a network cannot learn a class that it is not shown"
        raise InputError(f"{where}, line {line}: no training node has the label {shown(classes[k])}: {reason}")


def read_nodes(path: Path) -> Nodes:
    """Return the table of nodes."""
    where, rows = short_path(path), read_rows(path)
    line, names = next(rows)
    names = [name.lower() if name.lower() in NAMES else name for name in names]
    for column, name in enumerate(names):
        if not name:
            raise InputError(f"{where}, line {line}: column {column + 1} has no name")
        if name in names[:column]:
            raise InputError(f"{where}, line {line}: two columns have the name {shown(name)}")
    if "id" not in names:
        found = ", ".join(map(shown, names[:5])) + (", ..." if len(names) > 5 else "")
        raise InputError(f"{where}, line {line}: a header with a column `id` is expected, not {found}")

    id_column = names.index("id")
    label_column, split_column = (names.index(name) if name in names else None for name in ("label", "split"))
    features = [column for column, name in enumerate(names) if name not in ("id", "label", "split")]
    number: dict[str, int] = {}
    lines: list[int] = []
    labels, splits, values = [], [], []  # values: of each node (columns, entries) of its features
    for line, row in rows:
        node, there = row[id_column], f"{where}, line {line}"
        if not node:
            raise InputError(f"{there}: the id is missing")
        if node in number:
            raise InputError(f"{there}: the id {shown(node)} is also in line {lines[number[node]]}")
        number[node] = len(number)
        lines.append(line)
        labels.append("" if label_column is None else row[label_column])
        if split_column is not None:
            if row[split_column].lower() not in SPLITS:
                expected = "train, validation (or valid, val), test or nothing"
                raise InputError(f"{there}: the split must be {expected}, not {shown(row[split_column])}")
            splits.append(SPLITS[row[split_column].lower()])
        if features:
            values.append(read_features([row[column] for column in features], [names[c] for c in features], there))
    if not number:
        raise InputError(f"{where} has a header, but no nodes")
    X = identity(len(number))
    if features:
        counts = torch.tensor([len(columns) for columns, _ in values])
        columns, entries = (torch.from_numpy(np.concatenate(part)) for part in zip(*values))
        shape = (len(number), len(features))
        X = SparseMatrix(torch.arange(shape[0]).repeat_interleave(counts), columns, entries, shape)
    return Nodes(number, lines, labels, None if split_column is None else splits, X)


def read_features(texts: list[str], names: list[str], there: str) -> tuple[np.ndarray, np.ndarray]:
    """Return columns and float32 entries of the features of a node that are not zero."""
    try:
        with np.errstate(over="ignore"):
            values = np.array(list(map(float, texts))).astype(np.float32)
        fine = bool(np.isfinite(values).all()) and "_" not in "".join(texts)  # which Python admits: 1_000
    except ValueError:
        fine = False
    if not fine:
        for name, text in zip(names, texts):
            if not is_number(text):
                found = f"not {shown(text)}" if text else "and is missing"
                raise InputError(f"{there}: the feature {shown(name)} must be a finite number, {found}")
    (columns,) = values.nonzero()
    return columns, values[columns]


def is_number(text: str) -> bool:
    """Return whether a text is a number that float32 can hold."""
    try:
        return abs(float(text)) <= torch.finfo(torch.float32).max and "_" not in text
    except ValueError:
        return False


def read_edges(path: Path, number: dict[str, int]) -> Tensor:
    """Return (2, E) int64, the numbers of the edges' nodes, from the table of edges.

    Args:
        number: the number of each id.
    """
    where, rows = short_path(path), read_rows(path)
    line, header = next(rows)
    if len(header) < 2:
        raise InputError(f"{where}, line {line}: two columns are expected, separated by a comma, semicolon or tab")
    names = [name.lower() for name in header]
    source, target = 0, 1
    for name in ("source", "target"):
        if names.count(name) > 1:
            raise InputError(f"{where}, line {line}: two columns have the name {name}")
    if {"source", "target"} <= set(names):
        source, target = names.index("source"), names.index("target")
    elif any(text in number or is_number(text) for text in header[:2]):
        rows = chain([(line, header)], rows)  # no header
    ends: list[tuple[int, int]] = []
    for line, row in rows:
        for text in (row[source], row[target]):
            if text not in number:
                found = f"{shown(text)} is no node's id" if text else "an id is missing"
                raise InputError(f"{where}, line {line}: {found}")
        ends.append((number[row[source]], number[row[target]]))
    if not ends:
        raise InputError(f"{where} has no edges")
    return torch.tensor(ends).t()


def read_rows(path: Path) -> Iterator[tuple[int, list[str]]]:
    """Yield the line and the values of each row, the header first.

    Raises:
        ValueError: the file is empty or cannot be read, or a row has more or fewer values than the first.
    """
    where, width = short_path(path), 0
    text = decode_table(path.read_bytes(), where)
    for line, values in numbered_rows(text, find_delimiter(text), where):
        width = width or len(values)
        if len(values) != width:
            found = f"{len(values)} value{'s' if len(values) > 1 else ''}, but the first row has {width}"
            raise InputError(f"{where}, line {line}: the row has {found}")
        yield line, values
    if not width:
        raise InputError(f"{where} is empty")


def find_delimiter(text: str) -> str:
    """Return the comma, semicolon or tab: which of them the first line has most of, outside quotes."""
    first = text.lstrip().split("\n")[0].split("\r")[0]
    outside = "".join(first.split('"')[::2])
    return max(",;\t", key=outside.count)


def shown(text: str) -> str:
    """Return a value as messages show it: quoted, on one line, and not too long."""
    return f"'{readable(text[:40])}{'...' if len(text) > 40 else ''}'"


def write_predictions(path: Path, graph: LabelledGraph, probabilities: Tensor) -> None:
    """Write one row for each node: id, label and split, where it has them, and the most probable class.

    Args:
        probabilities: (N, K), of each class.
    """
    split = [""] * len(graph.ids)
    for part in PARTS:
        for node in getattr(graph, part).tolist():
            split[node] = part
    text = io.StringIO(newline="")
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(("id", "label", "split", "predicted", "probability"))
    labels = ["" if label < 0 else graph.classes[label] for label in graph.labels.tolist()]
    highest, predicted = probabilities.max(dim=1)
    for row in zip(graph.ids, labels, split, predicted.tolist(), highest.tolist()):
        writer.writerow((*row[:3], graph.classes[row[3]], f"{row[4]:.6f}"))
    write_atomically(path, text.getvalue().encode())
