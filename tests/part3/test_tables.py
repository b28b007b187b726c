"""part3/tables.py: graphs as people write them down, a hundred tables that are wrong, and the table of predictions."""

import csv
import re

import pytest
import torch

from common.errors import InputError
from part3.citation import load_graph, random_split
from part3.tables import draw_split, read_graph, write_predictions
from tests.part3.test_citation import NEEDS

NODES = "id,label,split,x,y\nann,red,train,0.5,1\nbob,blue,train,0,-2e3\ncid,red,test,1,0\ndan,,,0,0\n"
EDGES = "source,target\nann,bob\nbob,cid\n"


@pytest.fixture
def read(tmp_path):
    """Return a function that reads a graph from the texts, or bytes, of its two tables."""

    def reading(nodes=NODES, edges=EDGES, **options):
        for name, content in (("nodes.csv", nodes), ("edges.csv", edges)):
            (tmp_path / name).write_bytes(content if isinstance(content, bytes) else content.encode())
        return read_graph(tmp_path / "nodes.csv", tmp_path / "edges.csv", **options)

    return reading


def write_tables(graph, folder, features=True):
    """Write a graph as nodes.csv and edges.csv, features as repr of their floats, classes by number."""
    split = [""] * len(graph.labels)
    for part in ("train", "validation", "test"):
        for node in getattr(graph, part).tolist():
            split[node] = part
    X = graph.features.to_dense().tolist() if features else [[]] * len(split)
    with open(folder / "nodes.csv", "w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(["id", "label", "split", *(f"w{k}" for k in range(len(X[0])))])
        for node, label, part, row in zip(graph.ids, graph.labels.tolist(), split, X):
            writer.writerow([node, "" if label < 0 else label, part, *map(repr, row)])
    with open(folder / "edges.csv", "w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(["source", "target"])
        pairs = zip(graph.A.rows.tolist(), graph.A.columns.tolist())
        writer.writerows((graph.ids[i], graph.ids[j]) for i, j in pairs if i < j)
    return folder / "nodes.csv", folder / "edges.csv"


def same(a, b):
    """Return whether two graphs are equal but for their names and those of their classes."""
    a.classes = b.classes
    return a.checksum() == b.checksum()


def test_a_graph_is_what_its_tables_say(read):
    graph = read()
    assert graph.name == "nodes" and graph.ids == ["ann", "bob", "cid", "dan"] and graph.classes == ["blue", "red"]
    assert graph.labels.tolist() == [1, 0, 1, -1]
    assert (graph.train.tolist(), graph.validation.tolist(), graph.test.tolist()) == ([0, 1], [], [2])
    assert graph.features.to_dense().tolist() == [[0.5, 1], [0, -2000], [1, 0], [0, 0]]
    assert graph.A.to_dense().nonzero().tolist() == [[0, 1], [1, 0], [1, 2], [2, 1]]


@pytest.mark.parametrize(
    "nodes",
    [
        NODES.replace(",", ";"),
        NODES.replace(",", "\t"),
        NODES.replace(",", ", "),
        NODES.replace("\n", "\r\n"),
        NODES.replace("\n", "\r"),
        NODES.replace("\n", "\n\n"),
        NODES.rstrip("\n"),
        NODES + ",,,,\n",
        "\ufeff" + NODES,
        NODES.replace("id,label,split", "ID,Label,SPLIT"),
        NODES.replace("train", "Train"),
        re.sub(r"(\w+)", r'"\1"', NODES, count=3),
        NODES.replace(",0.5,1", ",+5e-1, 1.0 "),
    ],
)
def test_ways_of_writing_the_nodes(read, nodes):
    assert same(read(nodes), read())


@pytest.mark.parametrize(
    "edges",
    [
        "ann,bob\nbob,cid\n",  # no header
        "from,to\nann,bob\nbob,cid\n",
        "Target;weight;Source\nbob;3;ann\ncid;4;bob\n",
        "from\tto\tweight\nann\tbob\t1\nbob\tcid\t2\n",
        "source,target\nann,bob\nbob,ann\nann,bob\ncid,bob\nann,ann\ndan,dan\n",  # both ways, twice, loops
        '"source","target"\n"ann","bob"\nbob , cid\n',
    ],
)
def test_ways_of_writing_the_edges(read, edges):
    assert same(read(edges=edges), read())


def test_ids_and_labels_may_be_any_text(read):
    nodes = 'id;label;split\n"a;b";"two\nlines";train\n"say ""hi""";é;train\n=1+1;é;test\n日本;é;validation\n'
    graph = read(nodes, '"a;b";日本\n=1+1;"say ""hi"""\n')
    assert graph.ids == ["a;b", 'say "hi"', "=1+1", "日本"] and graph.classes == ["two\nlines", "é"]
    assert len(graph.A.values) == 4


def test_numbers_as_labels_are_in_their_order(read):
    nodes = "id,label,split\n" + "".join(f"{k},{k},train\n" for k in (10, 9, 2)) + "5,2,test\n"
    assert read(nodes, "9,10\n").classes == ["2", "9", "10"]


def test_a_header_that_names_no_node_is_no_edge_and_one_that_does_is(read):
    nodes = "id,label,split\nsource,a,train\ntarget,b,train\nfrom,b,test\n"
    assert len(read(nodes, "source,target\nfrom,target\n").A.values) == 2  # the names of the columns come first
    assert len(read(nodes, "from,source\nfrom,target\n").A.values) == 4
    assert len(read(nodes, "a,b\nfrom,target\n").A.values) == 2


def test_directed_edges_carry_messages_from_source_to_target(read):
    graph = read(directed=True)
    assert graph.A.to_dense().nonzero().tolist() == [[1, 0], [2, 1]]  # A_ij: from j to i
    assert read(edges="target,source\nbob,ann\ncid,bob\n", directed=True).checksum() == graph.checksum()


def test_without_features_a_node_s_own_number_is_one(read):
    assert torch.equal(
        read("id,label,split\n7,a,train\n8,b,train\n9,a,test\n", "7,8\n").features.to_dense(), torch.eye(3)
    )


def test_without_a_split_each_class_is_split_by_the_seed(read):
    nodes = "id,label\n" + "".join(f"{k},{'abc'[k % 3] if k < 60 else ''}\n" for k in range(70))
    graph = read(nodes, "0,1\n", seed=1)
    for part, expected in (("train", [12] * 3), ("validation", [4] * 3), ("test", [4] * 3)):
        assert graph.labels[getattr(graph, part)].bincount().tolist() == expected
    assert len(torch.cat([graph.train, graph.validation, graph.test]).unique()) == 60
    assert torch.equal(read(nodes, "0,1\n", seed=1).test, graph.test)
    assert not torch.equal(read(nodes, "0,1\n", seed=2).test, graph.test)
    other = random_split(graph, 5)
    assert other.labels[other.train].bincount().tolist() == [12] * 3 and len(other.test) == 12


@pytest.mark.parametrize(
    "members, sizes", [(1, (1, 0, 0)), (2, (1, 0, 1)), (3, (1, 1, 1)), (5, (3, 1, 1)), (7, (4, 1, 2)), (10, (6, 2, 2))]
)
def test_classes_of_any_size_are_split(members, sizes):
    split = draw_split(torch.zeros(members).long(), 1, seed=0)
    assert tuple(len(split[part]) for part in ("train", "validation", "test")) == sizes


def with_row(number, row, table=NODES):
    rows = table.splitlines()
    rows[number - 1] = row
    return "\n".join(rows) + "\n"


# What is wrong with a table of nodes, the line, and what the message must hold
WRONG_NODES = [
    ("", None, "is empty"),
    ("\n \n", None, "is empty"),
    ("\ufeff", None, "is empty"),
    (",,\n,,\n", None, "is empty"),
    ('"",""\n', None, "is empty"),
    (b"\xff\xfei\0d\0", 1, "no text in UTF-8"),
    (NODES.encode("utf-16"), 1, "no text in UTF-8"),
    (NODES.replace("cid", "cïd").encode("latin-1"), 4, "no text in UTF-8"),
    (NODES.replace("\n", "\r").replace("cid", "cïd").encode("latin-1"), 4, "no text in UTF-8"),
    (NODES.replace("cid", "c\0d"), 4, "no text in UTF-8 (byte 0x00)"),
    (b"\x89PNG\r\n\x1a\n", 1, "no text in UTF-8"),
    (b"PK\x03\x04\0\0", 1, "no text in UTF-8 (byte 0x00)"),
    ("x" * 200_000, 1, "field larger than field limit"),
    (NODES + "e," + "x" * 200_000 + ",,0,0\n", 6, "field larger than field limit"),
    ("id,label,split,x,y\n", None, "no nodes"),
    ("id\n", None, "no nodes"),
    ("name,label\nann,red\n", 1, "a header with a column `id` is expected, not 'name', 'label'"),
    ("ann,red,train\nbob,blue,test\n", 1, "a header with a column `id`"),
    ("1,2,3,4,5,6\n1,2,3,4,5,6\n", 1, "not '1', '2', '3', '4', '5', ..."),
    ("id label\nann red\n", 1, "a header with a column `id` is expected, not 'id label'"),
    ("id|label\nann|red\n", 1, "not 'id|label'"),
    ("{\n", 1, "not '{'"),
    ("<html>\n", 1, "not '<html>'"),
    ("\x1b[31m,b\n", 1, r"not '\x1b[31m', 'b'"),
    ("id,label,id\na,b,c\n", 1, "two columns have the name 'id'"),
    ("id,ID\na,b\n", 1, "two columns have the name 'id'"),
    ("id,label,Label\na,b,c\n", 1, "two columns have the name 'label'"),
    ("id,x,x\na,1,2\n", 1, "two columns have the name 'x'"),
    (",id,label\n0,a,b\n", 1, "column 1 has no name"),
    ("id,label,\na,b,\n", 1, "column 3 has no name"),
    ("\n\nid,x,x\na,1,2\n", 3, "two columns have the name 'x'"),
    (with_row(3, "bob,blue,train,0"), 3, "the row has 4 values, but the first row has 5"),
    (with_row(3, "bob,blue,train,0,1,2"), 3, "the row has 6 values"),
    (with_row(3, "bob"), 3, "the row has 1 value,"),
    (with_row(3, "bob;blue;train;0;1"), 3, "the row has 1 value,"),
    (with_row(3, "bob,blue,train,0,5,"), 3, "the row has 6 values"),
    (with_row(3, '"bob,blue,train,0,5'), 3, "cannot be read as CSV"),
    (with_row(3, '"bob"b,blue,train,0,5'), 3, "cannot be read as CSV"),
    (with_row(3, ",blue,train,0,5"), 3, "the id is missing"),
    (with_row(3, "  ,blue,train,0,5"), 3, "the id is missing"),
    (with_row(3, "ann,blue,train,0,5"), 3, "the id 'ann' is also in line 2"),
    (with_row(5, " ann ,,,0,5"), 5, "the id 'ann' is also in line 2"),
    (with_row(5, "x" * 100), 5, "the row has 1 value,"),
    (NODES + NODES, 6, "the split must be train, validation (or valid, val), test or nothing, not 'split'"),
    (with_row(3, "bob,blue,train,zero,5"), 3, "the feature 'x' must be a finite number, not 'zero'"),
    (with_row(3, "bob,blue,train,0,"), 3, "the feature 'y' must be a finite number, and is missing"),
    (with_row(3, "bob,blue,train, ,5"), 3, "the feature 'x' must be a finite number, and is missing"),
    (with_row(3, "bob,blue,train,nan,5"), 3, "the feature 'x' must be a finite number, not 'nan'"),
    (with_row(3, "bob,blue,train,0,NaN"), 3, "the feature 'y'"),
    (with_row(3, "bob,blue,train,inf,5"), 3, "not 'inf'"),
    (with_row(3, "bob,blue,train,-Infinity,5"), 3, "not '-Infinity'"),
    (with_row(3, "bob,blue,train,1e39,5"), 3, "not '1e39'"),
    (with_row(3, "bob,blue,train,1e999,5"), 3, "not '1e999'"),
    (with_row(3, "bob,blue,train,1_000,5"), 3, "not '1_000'"),
    (with_row(3, 'bob,blue,train,"1,5",5'), 3, "not '1,5'"),
    (with_row(3, "bob,blue,train,0x10,5"), 3, "not '0x10'"),
    (with_row(3, "bob,blue,train,1+2j,5"), 3, r"not '1+2j'"),
    (with_row(3, "bob,blue,train,True,5"), 3, "not 'True'"),
    (with_row(3, "bob,blue,train,50%,5"), 3, "not '50%'"),
    (with_row(3, "bob,blue,train,1 2,5"), 3, "not '1 2'"),
    (with_row(3, "bob,blue,train,--1,5"), 3, "not '--1'"),
    (with_row(3, "bob,blue,train,\x07,5"), 3, r"not '\x07'"),
    (with_row(3, f"bob,blue,train,{'y' * 1000},5"), 3, f"not '{'y' * 40}...'"),
    (with_row(5, "dan,,,?,0"), 5, "not '?'"),
    (with_row(3, "bob,blue,Trian,0,5"), 3, "the split must be"),
    (with_row(3, "bob,blue,0,0,5"), 3, "nothing, not '0'"),
    (with_row(3, "bob,train,blue,0,5"), 3, "nothing, not 'blue'"),
    (with_row(2, "ann,,train,0,5"), 2, "a train node needs a label"),
    (with_row(4, "cid,,test,0,5"), 4, "a test node needs a label"),
    (with_row(5, "dan,,val,0,5"), 5, "a validation node needs a label"),
    (NODES.replace("\n", "\n\n").replace("dan,,,", "dan,,test,"), 9, "a test node needs a label"),
    (NODES.replace("test", "val"), None, "the split of no node is test"),
    (NODES.replace("train", ""), None, "the split of no node is train"),
    (NODES.replace("train", "").replace("test", ""), None, "the split of no node is train"),
    (with_row(3, "bob,blue,,0,5"), 3, "no training node has the label 'blue'"),
    (with_row(3, "bob,blue,test,0,5"), 3, "no training node has the label 'blue'"),
    (with_row(5, "dan,green,test,0,5"), 5, "no training node has the label 'green'"),
    (NODES.replace("blue", "red"), None, "every label is 'red': at least two classes are needed"),
    (NODES.replace("blue", "").replace("red", ""), None, "no node has a label"),
    ("id,x\na,1\nb,2\n", None, "no node has a label (a column `label`): at least two classes are needed"),
    ("id\na\nb\n", None, "no node has a label"),
    ("id,class\na,red\nb,blue\n", 2, "the feature 'class' must be a finite number, not 'red'"),
    ("id,label\na,red\nb,blue\n", None, "no class has two nodes with a label, one of them for the test"),
    ("id,label\na,red\nb,\n", None, "every label is 'red'"),
]
NUMBERED = "id,label,split\n1,a,train\n2,b,train\n3,b,test\n"
# The same of a table of edges, to the nodes of NODES
WRONG_EDGES = [
    ("", None, "is empty"),
    ("\n", None, "is empty"),
    (b"\xff", 1, "no text in UTF-8"),
    ("source,target\nann,b\xf6b\n".encode("latin-1"), 2, "no text in UTF-8"),
    ("source,target\nann,\0bob\n", 2, "no text in UTF-8 (byte 0x00)"),
    ("source,target\n", None, "has no edges"),
    ("source,target\n\n,\n", None, "has no edges"),
    ("from,to\n", None, "has no edges"),
    ("source\nann\n", 1, "two columns are expected, separated by a comma, semicolon or tab"),
    ("ann bob\nbob cid\n", 1, "two columns are expected"),
    ("source,target,source\nann,bob,cid\n", 1, "two columns have the name source"),
    ("source,Target,TARGET\nann,bob,cid\n", 1, "two columns have the name target"),
    ("source,target\nann,eve\n", 2, "'eve' is no node's id"),
    ("source,target\nann,bob\neve,cid\n", 3, "'eve' is no node's id"),
    ("source,target\nAnn,bob\n", 2, "'Ann' is no node's id"),
    ("source,target\nann,\n", 2, "an id is missing"),
    ("source,target\n,bob\n", 2, "an id is missing"),
    ("source,target\nann\n", 2, "the row has 1 value,"),
    ("source,target\nann,bob\nann,bob,cid\n", 3, "the row has 3 values, but the first row has 2"),
    ("source,target\nann;bob\n", 2, "the row has 1 value,"),
    ('source,target\nann,"bob\n', 2, "cannot be read as CSV"),
    ("ann,eve\nann,bob\n", 1, "'eve' is no node's id"),  # a first row that names a node is an edge
    ("eve,ann\nann,bob\n", 1, "'eve' is no node's id"),
    ("1,2\nann,bob\n", 1, "'1' is no node's id"),  # and so is one of numbers
    ("from,to\nann,bob\nfrom,to\n", 3, "'from' is no node's id"),
    ("weight,source,target\n1,ann,eve\n", 2, "'eve' is no node's id"),
    ("source,weight\nann,3\n", 2, "'3' is no node's id"),
    (NODES, 2, "'red' is no node's id"),
    ("source,target\n\n\nann,\x1b[2J\n", 4, r"'\x1b[2J' is no node's id"),
    (f"source,target\nann,{'z' * 500}\n", 2, f"'{'z' * 40}...' is no node's id"),
    ("source,target\n" + "ann,bob\n" * 1000 + "ann,bo\n", 1002, "'bo' is no node's id"),
]


@pytest.mark.parametrize(
    "table, content, line, message",
    [("nodes.csv", *case) for case in WRONG_NODES] + [("edges.csv", *case) for case in WRONG_EDGES],
)
def test_a_wrong_table_is_refused_in_one_line_that_names_it(read, tmp_path, table, content, line, message):
    with pytest.raises(InputError) as refusal:
        read(**{table.removesuffix(".csv"): content})
    text = str(refusal.value)
    assert message in text and text.isprintable() and len(text) < 400
    assert re.match(re.escape(str(tmp_path / table)) + (rf", line {line}: " if line else r"(:| has| is) "), text), text


def test_numbers_are_ids_like_any_other(read):
    assert len(read(NUMBERED, "1,2\n2,3\n").A.values) == 4
    for edges, line in (("1,4\n2,3\n", 1), ("5,4\n2,3\n", 1), ("source,target\n1,2\n1.0,2\n", 3), ("1,2\n01,2\n", 2)):
        with pytest.raises(InputError, match=rf"edges\.csv, line {line}: '.*' is no node's id"):
            read(NUMBERED, edges)


def test_a_table_that_is_not_there_or_no_file(tmp_path):
    (tmp_path / "nodes.csv").write_text(NODES)
    with pytest.raises(FileNotFoundError, match=r"edges\.csv does not exist: a table of edges is expected"):
        read_graph(tmp_path / "nodes.csv", tmp_path / "edges.csv")
    with pytest.raises(InputError, match="is a folder: a table of nodes is expected"):
        read_graph(tmp_path, tmp_path / "edges.csv")


def test_the_karate_club_from_tables_is_the_karate_club(tmp_path):
    club = load_graph("karate")
    assert same(read_graph(*write_tables(club, tmp_path, features=False)), club)


@pytest.mark.slow
@pytest.mark.parametrize("name", [pytest.param(name, marks=NEEDS[name]) for name in ("cora", "citeseer")])
def test_citation_graphs_from_tables_are_those_of_planetoid(tmp_path, name):
    graph = load_graph(name)
    assert same(read_graph(*write_tables(graph, tmp_path)), graph)


def test_predictions_have_a_row_for_each_node(read, tmp_path):
    nodes = 'id,label,split\n"a,b",red,train\nbob,blue,train\n"c\nd",red,test\ndan,,\n'
    graph = read(nodes, "bob,dan\n")
    write_predictions(tmp_path / "out.csv", graph, torch.tensor([[0.25, 0.75], [1, 0], [0.5, 0.5], [0.1, 0.9]]))
    with open(tmp_path / "out.csv", newline="", encoding="utf-8") as file:
        assert list(csv.reader(file)) == [
            ["id", "label", "split", "predicted", "probability"],
            ["a,b", "red", "train", "red", "0.750000"],
            ["bob", "blue", "train", "blue", "1.000000"],
            ["c\nd", "red", "test", "blue", "0.500000"],
            ["dan", "", "", "red", "0.900000"],
        ]
