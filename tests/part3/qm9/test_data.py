"""Molecules as read from SMILES, as batches, and as the flat input of an MLP."""

import csv
import os
import pickle
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest
import torch

pytest.importorskip("torch_geometric", reason='pip install -e ".[molecules]"')
pytest.importorskip("rdkit", reason='pip install -e ".[molecules]"')

from torch_geometric.data import Batch, Data, InMemoryDataset

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
from part3.qm9.sources import read_built_in, read_smiles_csv, read_table
from tests.harness import ROOT

QM9 = Path(os.environ.get("DATA_DIR") or ROOT / "data") / "qm9"
NEEDS_QM9 = pytest.mark.skipif(not (QM9 / "qm9_g4mp2.csv").exists(), reason="$DATA_DIR/qm9 has no tables of QM9")


@pytest.fixture(autouse=True)
def own_cache(tmp_path, monkeypatch):
    monkeypatch.setattr(sources, "CACHE", tmp_path / "cache")


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


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "lacks a column: its first line must name smiles and g4mp2_atom or u0"),
        (b"smiles,energy\nC,-1\n", "lacks a column"),
        (b"smile,u0\nC,-1\n", "lacks a column"),
        (b"smiles,u0\n", "has no molecule that can be used"),
        (b"smiles,u0\nC((,-1\n", "has no molecule that can be used: 1 with broken SMILES (line 2)"),
        (b"smiles,u0\nC,-40.5\nCC", "is truncated: it ends in the middle of line 3"),
        (b"smiles,u0\n\xff\xfe,-1\n", "is not a UTF-8 text"),
        (b"PK\x03\x04\x00\x00\x80\x81", "is not a UTF-8 text"),
    ],
)
def test_unusable_tables_end_in_one_line(content, message, tmp_path):
    (tmp_path / "table.csv").write_bytes(content)
    with pytest.raises(ValueError) as error:
        read_smiles_csv(tmp_path / "table.csv")
    assert message in str(error.value) and "\n" not in str(error.value)


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
    (cached,) = sources.CACHE.iterdir()
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
    assert len(list(sources.CACHE.iterdir())) == 2


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
