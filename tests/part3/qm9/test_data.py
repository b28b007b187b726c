"""Molecules as read from SMILES, as batches, and as the flat input of an MLP."""

import csv
import os
import pickle
import re
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest
import torch

pytest.importorskip("torch_geometric", reason='pip install -e ".[molecules]"')
pytest.importorskip("rdkit", reason='pip install -e ".[molecules]"')

from torch_geometric.data import Batch, Data, InMemoryDataset

from common.data import cache_folder
from common.errors import InputError
from part3.qm9 import sources
from part3.qm9.data import (
    EDGE_ATTR_DIM,
    FLAT_INPUT_DIM,
    MAX_NUM_NODES,
    Z_ONE_HOT_DIM,
    get_labels,
    get_mlp_features,
    get_node_features,
    get_qm9,
    split_and_scale,
)
from part3.qm9.molecules import ELEMENTS, HARTREE, KCAL_PER_MOL, Molecules, ScaledMolecules, segment_indices
from part3.qm9.sources import UNITS, Columns, read_built_in, read_smiles_csv, read_table
from tests.harness import ROOT

QM9 = Path(os.environ.get("DATA_DIR") or ROOT / "data") / "qm9"
NEEDS_QM9 = pytest.mark.skipif(not (QM9 / "qm9_g4mp2.csv").exists(), reason="$DATA_DIR/qm9 has no tables of QM9")


@pytest.fixture(autouse=True)
def own_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


def table(*lines, header="smiles,g4mp2_atom"):
    return "\n".join([header, *lines, ""]).encode()


def scaled(*smiles, energies=None):
    """Return molecules with the z-scores 0, 1, 2, ..., or with the given energies in eV."""
    energies = energies or range(len(smiles))
    molecules = read_table(table(*(f"{s},{e / HARTREE}" for s, e in zip(smiles, energies))), "table")["molecules"]
    return ScaledMolecules(Molecules(**molecules), 0.0, 1.0)


def bonds_of(molecule):
    """Return {(from, to): bond type}, having checked that both directions are there and each entry is one-hot."""
    assert (molecule.edge_attr.sum(1) == 1).all() and (molecule.x.sum(1) == 1).all()
    pairs = list(zip(*molecule.edge_index.tolist()))
    found = dict(zip(pairs, molecule.edge_attr.argmax(1).tolist()))
    assert len(found) == len(pairs) and all(found[j, i] == kind for (i, j), kind in found.items())
    return found


def test_methane_ethylene_and_benzene_by_hand():
    methane, ethylene, benzene = scaled("C", "C=C", "c1ccccc1")
    assert methane.x.argmax(1).tolist() == [1, 0, 0, 0, 0]
    assert bonds_of(methane) == {pair: 0 for k in range(1, 5) for pair in ((0, k), (k, 0))}
    assert ethylene.x.argmax(1).tolist() == [1, 1, 0, 0, 0, 0]
    assert {pair for pair, kind in bonds_of(ethylene).items() if kind == 1} == {(0, 1), (1, 0)}
    assert sum(kind == 0 for kind in bonds_of(ethylene).values()) == 2 * 4
    assert benzene.x.argmax(1).tolist() == [1] * 6 + [0] * 6
    kinds = bonds_of(benzene)
    assert {pair for pair, kind in kinds.items() if kind == 3} == {
        pair for k in range(6) for pair in ((k, (k + 1) % 6), ((k + 1) % 6, k))
    }
    assert sum(kind == 0 for kind in kinds.values()) == 2 * 6
    (nitrile,) = scaled("FC#N")
    assert [ELEMENTS[k] for k in nitrile.x.argmax(1).tolist()] == ["F", "C", "N"] and 2 in bonds_of(nitrile).values()


def test_kekule_benzene_is_the_same_molecule():
    one, other = scaled("c1ccccc1", "C1=CC=CC=C1")
    assert torch.equal(one.edge_attr, other.edge_attr) and torch.equal(one.edge_index, other.edge_index)


def test_units():
    assert HARTREE == 27.211386245988
    assert KCAL_PER_MOL == pytest.approx(4184 / (6.02214076e23 * 1.602176634e-19), rel=1e-9)
    found = read_table(table("C,-0.625083"), "table")["molecules"]["energies"]
    assert found.tolist() == [-0.625083 * 27.211386245988]
    total = -0.6 - 37.846772 - 4 * 0.500273  # methane, were its atomisation energy -0.6 Hartree
    found = read_table(table(f"C,{total}", header="smiles,u0"), "table")["molecules"]["energies"]
    assert found.tolist() == pytest.approx([-0.6 * 27.211386245988])


@NEEDS_QM9
def test_both_tables_of_qm9_give_nearly_the_same_atomisation_energy():
    with open(QM9 / "qm9_g4mp2.csv", newline="") as file:
        g4mp2 = {row["smiles"]: row["g4mp2_atom"] for row in csv.DictReader(file)}
    with open(QM9 / "qm9_subset.csv", newline="") as file:
        shared = [(s, u0) for s, u0 in csv.reader(file) if s in g4mp2][:500]
    assert len(shared) == 500
    found = read_table(table(*(",".join(line) for line in shared), header="smiles,u0"), "table")
    b3lyp = found["molecules"]["energies"]
    ours = torch.tensor([float(g4mp2[smiles]) * HARTREE for smiles, _ in shared], dtype=torch.float64)
    assert ((b3lyp - ours) / HARTREE).std() < 0.012


@NEEDS_QM9
def test_the_built_in_molecules_are_facts_of_qm9():
    with open(QM9 / "qm9_g4mp2.csv", newline="") as file:
        facts = {(row["smiles"], row["g4mp2_atom"]) for row in csv.DictReader(file)}
    with open(sources.BUILT_IN, newline="") as file:
        ours = [tuple(line) for line in csv.reader(file)][1:]
    assert len(ours) == len(set(ours)) == 100 and set(ours) <= facts
    assert len(read_built_in().energies) == 100


def test_the_constants():
    assert (MAX_NUM_NODES, Z_ONE_HOT_DIM, EDGE_ATTR_DIM, FLAT_INPUT_DIM) == (29, 5, 4, 3509)


def test_flat_input_holds_elements_then_bonds():
    molecules = scaled("C=C", "O", "[H][H]")
    flat = get_mlp_features(molecules.batch(torch.arange(3)))
    assert flat.shape == (3, FLAT_INPUT_DIM) and flat.dtype == torch.float32
    for row, molecule in zip(flat, molecules):
        n = len(molecule.x)
        atoms, bonds = row[: 29 * 5].view(29, 5), row[29 * 5 :].view(29, 29, 4)
        assert torch.equal(atoms[:n], molecule.x) and not atoms[n:].any()
        assert {(i, j): bonds[i, j].argmax().item() for i, j in bonds.sum(2).nonzero().tolist()} == bonds_of(molecule)


def test_a_molecule_of_30_atoms_has_no_flat_input():
    """Question 3.6a; test_networks.py shows that the GNN takes it."""
    n = 30
    chain = Data(
        x=torch.eye(5)[[1] * n],
        edge_index=torch.tensor([[*range(n - 1), *range(1, n)], [*range(1, n), *range(n - 1)]]),
        edge_attr=torch.eye(4)[[0] * 2 * (n - 1)],
        y=torch.zeros(1, 1),
    )
    with pytest.raises(ValueError, match="room for 29 atoms, and this molecule has 30"):
        get_mlp_features(Batch.from_data_list([chain]))


def test_batches_equal_the_librarys_own():
    molecules = scaled("C", "O=C=O", "[H][H]", "c1ccccc1", "[H]F")
    for chosen in ([0], [3, 1, 4], [2, 2, 0]):
        ours, theirs = molecules.batch(torch.tensor(chosen)), Batch.from_data_list([molecules[k] for k in chosen])
        assert ours.num_graphs == theirs.num_graphs == len(chosen)
        for name in ("x", "edge_index", "edge_attr", "y", "batch", "ptr"):
            assert torch.equal(ours[name], theirs[name]) and ours[name].dtype == theirs[name].dtype, name


def test_molecules_are_a_data_set():
    molecules = scaled("C", "O", "N")
    assert len(molecules) == 3 and len(list(molecules)) == 3
    assert torch.equal(molecules[-1].x, molecules[2].x)
    with pytest.raises(IndexError):
        molecules[3]


def test_chosen_molecules_keep_their_atoms_and_bonds():
    molecules = scaled("C", "O=C=O", "N", "CCO")
    chosen = ScaledMolecules(molecules.molecules.take(torch.tensor([3, 0])), 0.0, 1.0)
    for ours, theirs in zip(chosen, (molecules[3], molecules[0])):
        assert torch.equal(ours.x, theirs.x) and bonds_of(ours) == bonds_of(theirs) and torch.equal(ours.y, theirs.y)


def test_segment_indices():
    assert segment_indices(torch.tensor([2, 0, 3]), torch.tensor([2, 1, 0, 2])).tolist() == [2, 3, 4, 0, 1, 2, 3, 4]


def test_labels_are_z_scores_of_the_training_molecules_alone():
    lines = [f"{'C' * (k + 1)},{-k / 2},{'train' if k < 4 else 'valid' if k < 6 else 'test'}" for k in range(8)]
    molecules = Molecules(**read_table(table(*lines, header="smiles,g4mp2_atom,split"), "table")["molecules"])
    train, valid, test = split_and_scale(molecules)
    energies = torch.tensor([-k / 2 * HARTREE for k in range(8)], dtype=torch.float64)
    mean, std = energies[:4].mean(), energies[:4].std(correction=0)
    labels = torch.cat([get_labels(part.batch(torch.arange(len(part)))) for part in (train, valid, test)])
    assert labels.tolist() == pytest.approx(((energies - mean) / std).tolist())
    assert train.labels.mean().item() == pytest.approx(0, abs=1e-6)
    assert train.labels.std(correction=0).item() == pytest.approx(1)


def test_a_split_of_its_own_is_kept_and_another_is_drawn_once():
    molecules = read_built_in()
    sizes = [len(part) for part in split_and_scale(molecules, seed=1)]
    assert sizes == [81, 9, 10]
    tests = [split_and_scale(molecules, seed=seed)[2].molecules.energies for seed in (1, 2)]
    assert torch.equal(*tests)
    parts = [part.molecules.energies for part in split_and_scale(molecules)]
    assert torch.equal(torch.cat(parts).sort().values, molecules.energies.sort().values)
    few = [split_and_scale(molecules, 20, seed)[0] for seed in (1, 1, 2)]
    assert torch.equal(few[0].molecules.energies, few[1].molecules.energies)
    assert len(few[2]) == 20 and not torch.equal(few[0].molecules.energies, few[2].molecules.energies)
    assert few[0].mean == pytest.approx(few[0].molecules.energies.mean().item())


def test_splits_that_cannot_be_made():
    with pytest.raises(ValueError, match="num_train 82 is more than the 81 training molecules"):
        split_and_scale(read_built_in(), 82)
    with pytest.raises(ValueError, match="none of the 2 molecules is in the valid split"):
        split_and_scale(scaled("C", "O").molecules)
    with pytest.raises(ValueError, match="all training molecules have the same energy"):
        split_and_scale(scaled(*["C"] * 20, energies=[-1.0] * 20).molecules)


def test_unusable_lines_are_counted_listed_and_left_out(tmp_path, capsys):
    lines = [
        "C,-0.6",
        "C((,-0.5",
        "O,",
        "[Si],-0.1",
        "N,much",
        "",
        "xyz,-0.2",
        "), -1",
        "?,-1",
        f"{'C' * 12},-5",
        "O,nan",
        "O,-0.35",
    ]
    (tmp_path / "table.csv").write_bytes(table(*lines))
    for _ in range(2):  # read, and from the cache
        assert len(read_smiles_csv(tmp_path / "table.csv").energies) == 2
        (line,) = capsys.readouterr().err.splitlines()
        assert line.endswith(
            "table.csv: 9 of 11 molecules left out: 4 with broken SMILES (line 3, line 8, line 9, ...); "
            "3 with no energy (line 4, line 6, line 12); 1 with elements other than H C N O F (line 5); "
            "1 with more than 29 atoms (line 11)"
        )


LONG = b"C" * 200_000
REFUSED = {  # tables that end in one line, and what it says after the file's name
    "empty": (b"", "table.csv is empty"),
    "blanks": (b" \n\n \n", "table.csv is empty"),
    "byte order mark alone": (b"\xef\xbb\xbf", "table.csv is empty"),
    "another energy": (b"smiles,energy\nC,-1\n", "name smiles and g4mp2_atom or u0, and names 'smiles', 'energy'"),
    "another smiles": (b"smile,u0\nC,-1\n", "lacks a column: its first line must name smiles and"),
    "no header": (b"C,-0.6\nO,-0.3\n", "and names 'C', '-0.6'"),
    "spaces separate": (b"smiles u0\nC -40.5\n", "and names 'smiles u0'"),
    "bars separate": (b"smiles|u0\nC|-40.5\n", "and names 'smiles|u0'"),
    "title above": (b"My molecules\nsmiles,u0\nC,-40.5\n", "and names 'My molecules'"),
    "separator above": (b"sep=;\nsmiles;u0\nC;-40.5\n", "lacks a column"),
    "many columns": (b",".join(b"c%d" % k for k in range(99)) + b"\n", "'c11', ..."),
    "long name": (b"x" * 5_000 + b",u0\nC,-1\n", "and names '" + "x" * 30 + "', 'u0'"),
    "escape in a name": (b"\x1b[31msmile,u0\nC,-1\n", r"and names '\x1b[31msmile'"),
    "header of 200,000 characters": (LONG + b",u0\nC,-1\n", "has no header: its first line has 200,004 characters"),
    "header in quotation marks": (b'"smiles,u0"\n"C,-40.5"\n', "and names 'smiles,u0'"),
    "smiles twice": (b"smiles,u0,smiles\nC,-1,C\n", "has the column smiles twice"),
    "energies twice": (b"smiles,u0,u0\nC,-1,-1\n", "has the column u0 twice"),
    "splits twice": (b"smiles,u0,split,split\nC,-1,train,test\n", "has the column split twice"),
    "smiles twice but for case": (b"SMILES,u0,Smiles\nC,-1,C\n", "has the column smiles twice"),
    "header alone": (b"smiles,u0\n", "has no molecule that can be used"),
    "header alone, cut": (b"smiles,u0", "has no molecule that can be used"),
    "header and blanks": (b"smiles,u0\n\n,\n  \n", "has no molecule that can be used"),
    "broken SMILES alone": (b"smiles,u0\nC((,-1\n", "has no molecule that can be used: 1 with broken SMILES (line 2)"),
    "decimal commas": (b"smiles;u0\nC;-40,5\n", "1 with a comma in the energy (write -0.5, and thousands without"),
    "decimal commas between commas": (b"smiles,u0\nC,-40,5\n", "1 with more fields than the header (line 2)"),
    "splits of other names": (b"smiles,u0,split\nC,-40.5,dev\n", "1 with an unknown split (line 2)"),
    "no splits": (b"smiles,u0,split\nC,-40.5,\n", "1 with an unknown split (line 2)"),
    "swapped columns": (b"u0,smiles\nC,-40.5\nO,-76\n", "2 with broken SMILES (line 2, line 3)"),
    "names instead of SMILES": (b"smiles,u0\nmethane,-40.5\nwater,-76\n", "2 with broken SMILES (line 2, line 3)"),
    "one column twice asked for": (b"smiles\nC\n", "name smiles and g4mp2_atom or u0, and names 'smiles'"),
    "cut in a SMILES": (b"smiles,u0\nC,-40.5\nCC", "is truncated: it ends in the middle of line 3"),
    "cut before a split": (b"smiles,u0,split\nC,-40.5,train\nO,-76", "is truncated: it ends in the middle of line 3"),
    "cut in quotation marks": (
        b'smiles,u0\nC,-40.5\n"CC',
        "table.csv, line 3: this cannot be read as CSV (unexpected end",
    ),
    "quotation mark opened": (
        b'smiles,u0\n"C,-40.5\nO,-76\n',
        "table.csv, line 2: this cannot be read as CSV (unexpected end",
    ),
    "two opened": (
        b'smiles,u0\n"C,-40.5\n"O,-76\n',
        "table.csv, line 2: this cannot be read as CSV (',' expected after",
    ),
    "quoted lines": (
        b'smiles,u0\nC,-40.5\n"C,-4\nO",-7\n',
        "table.csv, line 3: a quotation mark there",
    ),
    "text after a quotation": (
        b'smiles,u0\n"C"C,-40.5\n',
        "table.csv, line 2: this cannot be read as CSV (',' expected after",
    ),
    "field of 200,000 characters": (
        b"smiles,u0\nC,-40.5\n" + LONG + b",-1\n",
        "table.csv, line 3: this cannot be read as CSV (field larger",
    ),
    "another field of 200,000": (
        b"smiles,u0,name\nC,-40.5," + LONG + b"\n",
        "table.csv, line 2: this cannot be read as CSV (field larger",
    ),
    "Latin-1": (b"smiles,u0,name\nC,-40.5,m\xe9thane\n", "table.csv, line 2: no text in UTF-8 (byte 0xe9)"),
    "bad bytes": (b"smiles,u0\nC,-40.5\n\xff\xfe,-1\n", "line 3: no text in UTF-8 (byte 0xff)"),
    "cut within a character": (b"smiles,u0,name\nC,-40.5,m\xc3", "line 2: no text in UTF-8 (byte 0xc3)"),
    "bad byte after a mark and CR": (b"\xef\xbb\xbfsmiles,u0\rC,-1\r\xff,-1\r", "line 3: no text in UTF-8 (byte 0xff)"),
    "NUL": (b"smiles,u0\nC,-40.5\nO\0,-76\n", "line 3: no text in UTF-8 (byte 0x00)"),
    "NULs at the end": (b"smiles,u0\nC,-40.5\n" + bytes(512), "line 3: no text in UTF-8 (byte 0x00)"),
    "UTF-16": ("smiles,u0\nC,-40.5\n".encode("utf-16"), "line 1: no text in UTF-8 (byte 0xff)"),
    "UTF-16 without a mark": ("smiles,u0\nC,-40.5\n".encode("utf-16-le"), "line 1: no text in UTF-8 (byte 0x00)"),
    "workbook": (b"PK\x03\x04\x00\x00\x80\x81", "no text in UTF-8"),
    "compressed": (b"\x1f\x8b\x08\x00\x00", "line 1: no text in UTF-8 (byte 0x8b)"),
    "picture": (b"\x89PNG\r\n\x1a\n", "line 1: no text in UTF-8 (byte 0x89)"),
    "page": (b"<!DOCTYPE html>\n<html><body>404</body></html>\n", "and names '<!DOCTYPE html>'"),
    "JSON": (b'[{"smiles": "C", "u0": -40.5}]\n', "lacks a column"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_unusable_tables_end_in_one_line(case, tmp_path):
    content, message = REFUSED[case]
    (tmp_path / "table.csv").write_bytes(content)
    with pytest.raises(InputError) as error:
        read_smiles_csv(tmp_path / "table.csv")
    assert message in str(error.value) and "table.csv" in str(error.value)
    assert str(error.value).isprintable() and len(str(error.value)) < 500


LEFT_OUT = {  # lines below "smiles,g4mp2_atom", and why they are left out
    "no energy": ("O,", "no energy"),
    "a short line": ("O", "no energy"),
    "a word": ("O,much", "no energy"),
    "not a number": ("O,nan", "no energy"),
    "infinite": ("O,-inf", "no energy"),
    "beyond float64": ("O,-1e999", "no energy"),
    "beyond float32": ("O,-1e31", "an energy beyond 1e+30"),
    "a unit": ("O,-0.35 Ha", "no energy"),
    "a formula": ("O,=A1", "no energy"),
    "an error of a spreadsheet": ("O,#N/A", "no energy"),
    "a typographer's minus": ("O,\u22120.35", "no energy"),
    "Fortran's exponent": ("O,-0.35D+00", "no energy"),
    "a decimal comma": ('O,"-0,35"', "a comma in the energy (write -0.5, and thousands without a mark)"),
    "thousands": ('O,"-1,234.5"', "a comma in the energy (write -0.5, and thousands without a mark)"),
    "thousands by apostrophes": ("O,-1'234", "no energy"),
    "thousands by spaces": ("O,-1 234", "no energy"),
    "a comma that separates": ("O,-0,35", "more fields than the header"),
    "one field more": ("O,-0.35,train", "more fields than the header"),
    "no SMILES": (",-0.35", "broken SMILES"),
    "blanks for SMILES": ("   ,-0.35", "broken SMILES"),
    "an open ring": ("C1CC,-1", "broken SMILES"),
    "an open bracket": ("C(C,-1", "broken SMILES"),
    "too many bonds": ("C(C)(C)(C)(C)C,-1", "broken SMILES"),
    "an aromatic that is none": ("c1cccc1,-1", "broken SMILES"),
    "an unknown element": ("[Xx],-1", "broken SMILES"),
    "a word for SMILES": ("ethanol,-1", "broken SMILES"),
    "an extension alone": ("|$A$|,-1", "broken SMILES"),
    "a reaction": ("C>>O,-1", "broken SMILES"),
    "another element": ("C[Si],-1", "elements other than H C N O F"),
    "any element": ("*C,-1", "elements other than H C N O F"),
    "large": (f"{'C' * 12},-5", "more than 29 atoms"),
    "very large": (f"{'C' * 900},-5", "more than 29 atoms"),
    "of 130,000 characters": (f"{'C' * 130_000},-5", "a SMILES of more than 1,000 characters"),
    "a quadruple bond": ("C$C,-1", "bonds other than single, double, triple, aromatic"),
    "a dative bond": ("N->O,-1", "bonds other than single, double, triple, aromatic"),
}


@pytest.mark.parametrize("case", LEFT_OUT)
def test_an_unusable_line_is_left_out(case):
    line, reason = LEFT_OUT[case]
    read = read_table(table("C,-0.6", line, "N,-0.44"), "table")
    assert len(read["molecules"]["energies"]) == 2
    assert read["notes"] == [f"1 of 3 molecules left out: 1 with {reason} (line 3)"]


TAKEN = {  # tables of methane and water
    "as it is": b"smiles,g4mp2_atom\nC,-0.6\nO,-0.35\n",
    "byte order mark": b"\xef\xbb\xbfsmiles,g4mp2_atom\nC,-0.6\nO,-0.35\n",
    "Windows": b"smiles,g4mp2_atom\r\nC,-0.6\r\nO,-0.35\r\n",
    "old Macintosh": b"smiles,g4mp2_atom\rC,-0.6\rO,-0.35\r",
    "semicolons": b"smiles;g4mp2_atom\nC;-0.6\nO;-0.35\n",
    "tabs": b"smiles\tg4mp2_atom\nC\t-0.6\nO\t-0.35\n",
    "a name with commas": b"smiles;name (short, long, none);g4mp2_atom\nC;;-0.6\nO;;-0.35\n",
    "quotation marks": b'"smiles","g4mp2_atom"\n"C","-0.6"\n"O","-0.35"\n',
    "other case": b"SMILES,G4MP2_atom\nC,-0.6\nO,-0.35\n",
    "spaces": b" smiles , g4mp2_atom\n C , -0.6\nO, -0.35 \n",
    "other case beside the exact name": b"SMILES,smiles,g4mp2_atom\nx,C,-0.6\nx,O,-0.35\n",
    "other columns twice": b"smiles,a,a,,,g4mp2_atom\nC,,,,,-0.6\nO,,,,,-0.35\n",
    "empty fields after the last": b"smiles,g4mp2_atom\nC,-0.6,,\nO,-0.35,\n",
    "blank lines": b"\n\nsmiles,g4mp2_atom\n\nC,-0.6\n,\n\nO,-0.35\n\n",
    "comments over several lines": b'smiles,g4mp2_atom,why\nC,-0.6,"a\nb"\nO,-0.35,"c, ""d"""\n',
    "both energies": b"smiles,u0,g4mp2_atom\nC,0,-0.6\nO,0,-0.35\n",
    "exponents": b"smiles,g4mp2_atom\nC,-6e-1\nO,-3.5E-01\n",
}


@pytest.mark.parametrize("case", TAKEN)
def test_tables_of_many_kinds_are_read(case):
    read = read_table(TAKEN[case], "table")
    assert read["molecules"]["energies"].tolist() == [-0.6 * HARTREE, -0.35 * HARTREE]
    assert read["molecules"]["num_atoms"].tolist() == [5, 3] and read["notes"] == []


def test_lines_are_numbered_as_in_the_file():
    content = b'\nsmiles,g4mp2_atom,why\r\nC,-0.6,"a\r\nb\r\n"\r\n\r\nO,,\r\nN,x,\r\n'
    assert read_table(content, "table")["notes"] == ["2 of 3 molecules left out: 2 with no energy (line 7, line 8)"]


@pytest.mark.parametrize(
    ("unit", "energy"), [("hartree", -0.6), ("ev", -16.32683), ("kcal/mol", -376.506), ("kj/mol", -1575.3)]
)
def test_own_columns_and_units(unit, energy):
    content = table(f"x,C,{energy}", header="smiles,Molecule,E at")
    read = read_table(content, "table", Columns("molecule", "e AT ", unit))
    assert read["molecules"]["energies"].item() == pytest.approx(-0.6 * HARTREE, rel=1e-5) and not read["notes"]
    total = energy + (-37.846772 - 4 * 0.500273) / UNITS[unit]
    for column, kind in (("U0", None), ("u0", "total"), ("energy", "total")):
        read = read_table(
            table(f"C,{total}", header=f"smiles,{column}"), "table", Columns("smiles", column, unit, kind)
        )
        assert read["molecules"]["energies"].item() == pytest.approx(-0.6 * HARTREE, rel=1e-5)
    read = read_table(table(f"C,{energy}", header="smiles,u0"), "table", Columns(unit=unit, kind="atomisation"))
    assert read["molecules"]["energies"].item() == pytest.approx(-0.6 * HARTREE, rel=1e-5)


def test_columns_that_cannot_be():
    with pytest.raises(InputError, match="table lacks a column: its first line must name smiles and E, and names 's"):
        read_table(table("C,-0.6"), "table", Columns(energy="E"))
    for columns in (Columns(unit="rydberg"), Columns(kind="free")):
        with pytest.raises(InputError, match="unit must be one of hartree, ev, kcal/mol, kj/mol, and kind one of atom"):
            read_table(table("C,-0.6"), "table", columns)


BUILT_IN_ENERGIES = [line.split(",") for line in sources.BUILT_IN.read_text().splitlines()[1:]]


@pytest.mark.parametrize(
    ("factor", "total", "columns"),
    [
        (27.2114, False, Columns()),  # eV taken for Hartree, and so on
        (627.509, False, Columns()),
        (1, False, Columns(unit="ev")),
        (627.509, False, Columns(unit="kj/mol")),
        (2625.5, False, Columns(unit="kcal/mol")),
        (-1, False, Columns()),
        (1, False, Columns(kind="total")),
        (1, True, Columns()),
    ],
)
def test_unlikely_energies_are_named(factor, total, columns, tmp_path, capsys):
    lines = []
    for smiles, energy in BUILT_IN_ENERGIES:
        atoms = sources._graph(smiles)[1].tolist()
        value = float(energy) + (sum(sources.ATOM_ENERGIES[ELEMENTS[atom]] for atom in atoms) if total else 0)
        lines.append(f"{smiles},{factor * value}")
    path = tmp_path / "table.csv"
    path.write_bytes(table(*lines))
    for _ in range(2):  # read, and from the cache
        assert len(read_smiles_csv(path, columns).energies) == 100
        (line,) = capsys.readouterr().err.splitlines()
        number, median = re.search(
            r"table\.csv: an unlikely atomisation energy for (\d+) of 100 molecules \(line \d+, .*; the median is "
            r"(\S+) eV an atom, -8 to -1\.5 is usual\): another unit, a total energy, the other sign",
            line,
        ).groups()
        assert int(number) > 95 and not -8 < float(median) < -1.5


def test_a_single_unlikely_energy_is_named():
    read = read_table(table("C,-0.6", "O,-0.35", "N,9999", "[H],0", "CC,-1.06"), "table")
    (note,) = read["notes"]
    assert note.startswith(
        "an unlikely atomisation energy for 1 of 5 molecules (line 4; the median is -3.17 eV an atom"
    )


def test_molecules_in_several_splits_are_named(tmp_path, capsys):
    lines = ["CCO,-1.2,train", "C,-0.6,train", "OCC,-1.2,test", "C(C)O,-1.2,valid", "[H]C([H])([H])[H],-0.6,train"]
    path = tmp_path / "table.csv"
    path.write_bytes(table(*lines, header="smiles,g4mp2_atom,split"))
    for _ in range(2):  # read, and from the cache
        read_smiles_csv(path)
        (line,) = capsys.readouterr().err.splitlines()
        assert line.endswith(
            "table.csv: 1 molecule stands in several of its splits, which makes the test easier (lines 2 and 4)"
        )
    many = [f"{smiles},{energy}" for smiles, energy in BUILT_IN_ENERGIES[:5] * 2]
    assert read_table(table(*many), "table")["notes"] == [
        "5 molecules stand in it several times, so perhaps in several splits, which makes the test easier "
        "(lines 2 and 7; lines 3 and 8; lines 4 and 9; ...)"
    ]
    assert read_table(table("F[C@H](O)C,-1", "F[C@@H](O)C,-1", header="smiles,g4mp2_atom"), "table")["notes"] == []


def test_a_table_that_may_be_cut_is_named():
    assert read_table(b"smiles,g4mp2_atom\nC,-0.6\nO,-0.3", "table")["notes"] == [
        "it ends within line 3, without a line end: is the file whole?"
    ]


def test_a_missing_table_ends_in_one_line():
    with pytest.raises(FileNotFoundError, match=r"no/table\.csv does not exist"):
        read_smiles_csv(Path("no/table.csv"))


class Evil:
    def __reduce__(self):
        return os.mkdir, (f"{os.getcwd()}/executed",)


@pytest.mark.parametrize("damage", ["truncated", "flipped", "foreign", "pickle", "evil zip"])
def test_a_damaged_cache_is_made_anew(damage, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "table.csv").write_bytes(table("C,-0.6", "O,-0.35"))
    first = read_smiles_csv(tmp_path / "table.csv")
    (cached,) = cache_folder("molecules").iterdir()
    content = bytearray(cached.read_bytes())
    if damage == "truncated":
        cached.write_bytes(content[: len(content) // 2])
    elif damage == "flipped":
        place = content.index(first.energies.numpy().tobytes())
        content[place] ^= 1
        cached.write_bytes(content)
    elif damage == "foreign":
        cached.write_bytes(b"molecules")
    elif damage == "pickle":
        cached.write_bytes(pickle.dumps(Evil()))
    else:
        torch.save(Evil(), cached)
        assert zipfile.is_zipfile(cached)
    again = read_smiles_csv(tmp_path / "table.csv")
    assert all(torch.equal(a, b) for a, b in zip(first, again))
    assert "made anew" in capsys.readouterr().err and not (tmp_path / "executed").exists()
    read_smiles_csv(tmp_path / "table.csv")
    assert capsys.readouterr().err == ""


def test_another_table_has_another_cache(tmp_path):
    path = tmp_path / "table.csv"
    for energy in (-0.6, -0.7):
        path.write_bytes(table(f"C,{energy}"))
        assert read_smiles_csv(path).energies.item() == pytest.approx(energy * HARTREE)
    assert len(list(cache_folder("molecules").iterdir())) == 2
    for columns in (Columns(unit="ev"), Columns(kind="total"), Columns("SMILES"), Columns(energy="g4mp2_atom")):
        read_smiles_csv(path, columns)
    assert read_smiles_csv(path, Columns(unit="ev")).energies.item() == pytest.approx(-0.7)
    assert len(list(cache_folder("molecules").iterdir())) == 6


def as_in_the_library(molecules):
    """Return the molecules as PyTorch Geometric's QM9 holds them: 11 columns of features, 19 targets."""
    items = []
    for k, molecule in enumerate(molecules):
        y = torch.full((1, 19), 100.0)
        y[0, 12] = molecules.molecules.energies[k].float()
        x = torch.cat([molecule.x, torch.rand(len(molecule.x), 6)], dim=1)
        items.append(Data(x=x, edge_index=molecule.edge_index, edge_attr=molecule.edge_attr, y=y))
    dataset = InMemoryDataset()
    dataset._data, dataset.slices = dataset.collate(items)
    return dataset


def test_the_librarys_qm9(monkeypatch, tmp_path):
    ours = scaled(*["C", "O=C=O", "[H][H]", "CCO", "N"] * 6, energies=[-float(k) for k in range(30)])
    asked = []
    monkeypatch.setattr("torch_geometric.datasets.QM9", lambda folder: asked.append(folder) or as_in_the_library(ours))
    parts = get_qm9(str(tmp_path))
    assert asked == [str(tmp_path / "qm9")] and [len(part) for part in parts] == [25, 2, 3]
    by_energy = {round(energy): k for k, energy in enumerate(ours.molecules.energies.tolist())}
    for part in parts:
        for k, molecule in enumerate(part):
            original = ours[by_energy[round(part.molecules.energies[k].item())]]
            assert torch.equal(molecule.x, original.x) and bonds_of(molecule) == bonds_of(original)
            assert molecule.y.item() * part.std + part.mean == pytest.approx(original.y.item(), abs=1e-5)


@pytest.mark.filterwarnings("ignore")  # the library uses what PyTorch has deprecated
def test_the_librarys_qm9_is_read_from_its_text_files(tmp_path):
    """The files it downloads, for 20 molecules; the 16th number of a line is the atomisation energy in kcal/mol."""
    from rdkit import Chem

    raw, smiles = tmp_path / "qm9" / "raw", ["C", "O=C=O", "CC#N", "CCO"] * 5
    raw.mkdir(parents=True)
    with Chem.SDWriter(str(raw / "gdb9.sdf")) as writer:
        for text in smiles:
            molecule = Chem.AddHs(Chem.MolFromSmiles(text))
            molecule.AddConformer(Chem.Conformer(molecule.GetNumAtoms()))
            writer.write(molecule)
    lines = [",".join([f"gdb_{k}", *["0.5"] * 15, str(-100.0 - k), *["0.5"] * 3]) for k in range(20)]
    (raw / "gdb9.sdf.csv").write_text("header\n" + "\n".join(lines) + "\n")
    (raw / "uncharacterized.txt").write_text("line\n" * 9 + "3 CC#N\nend\n")
    for _ in range(2):  # from the text, and from what the library has made of it
        parts = get_qm9(str(tmp_path))
        assert [len(part) for part in parts] == [17, 1, 1]
    energies = torch.cat([part.molecules.energies for part in parts])
    expected = [KCAL_PER_MOL * (-100 - k) for k in range(20) if k != 2]
    assert sorted(energies.tolist()) == pytest.approx(sorted(expected), rel=1e-5)
    theirs = scaled(*smiles)
    for part in parts:
        for k, molecule in enumerate(part):
            original = theirs[round(-100 - part.molecules.energies[k].item() / KCAL_PER_MOL)]
            assert torch.equal(molecule.x, original.x) and bonds_of(molecule) == bonds_of(original)


def test_a_tampered_file_of_the_librarys_is_not_executed(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    processed = tmp_path / "qm9" / "processed"
    processed.mkdir(parents=True)
    for name in ("data_v3.pt", "pre_transform.pt"):
        torch.save(Evil(), processed / name)
        with pytest.raises(ValueError, match=rf"{name} is damaged, or PyTorch Geometric did not write it: remove it"):
            get_qm9(str(tmp_path))
        (processed / name).unlink()
    assert not (tmp_path / "executed").exists()


def test_labels_and_features_of_the_librarys_own_batches():
    batch = Batch.from_data_list(list(as_in_the_library(scaled("C", "O", energies=[-3.0, -2.0]))))
    assert get_labels(batch).tolist() == [-3, -2] and get_node_features(batch).shape == (8, 5)
    assert get_mlp_features(batch).shape == (2, FLAT_INPUT_DIM)


def test_qm9_that_cannot_be_had_ends_in_one_line(monkeypatch, tmp_path):
    def fail(folder):
        raise OSError("<urlopen error\n no route>")

    monkeypatch.setattr("torch_geometric.datasets.QM9", fail)
    with pytest.raises(
        ValueError, match=r"QM9 cannot be loaded from .*qm9 \(<urlopen error no route>\): remove .*raw to download"
    ):
        get_qm9(str(tmp_path))


@pytest.mark.parametrize("package", ["torch_geometric", "rdkit"])
def test_a_missing_package_is_named_with_the_extra_that_has_it(package, tmp_path):
    code = f"import sys, runpy; sys.modules[{package!r}] = None; sys.argv[1:] = ['--run_dir', 'run']; "
    code += f"sys.path.insert(0, {str(ROOT)!r}); "
    code += f"runpy.run_path({str(ROOT / 'part3/qm9/train.py')!r}, run_name='__main__')"
    done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, timeout=120)
    (line,) = done.stderr.splitlines()
    assert done.returncode == 2
    assert line.endswith(f'molecules need {package}, which is not installed: pip install -e ".[molecules]"')
    assert not (tmp_path / "run").exists()
