"""Where molecules come from: the built-in ones, a table of SMILES and energies, or PyTorch Geometric's QM9."""

import csv
import hashlib
import io
import math
import sys
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from tqdm import tqdm

from common.data import cached_tensors, data_path
from common.errors import InputError
from common.paths import ROOT, short_path
from part3.qm9.molecules import BOND_TYPES, ELEMENTS, HARTREE, Molecules, import_optional

BUILT_IN = Path(__file__).resolve().parent / "assets" / "molecules.csv"
CACHE = ROOT / "data" / "molecules"
FORMAT = 1  # of the cache; raise it when `read_table` makes something else of a line
MAX_NUM_ATOMS = 29  # of QM9's largest molecules
U0_ATOM = 12  # atomisation energy at 0 K; the course's code took 7, the total energy U0 at 0 K
# Energies at 0 K of the free atoms, B3LYP/6-31G(2df,p), in Hartree; from QM9 (Ramakrishnan et al., 2014).
ATOM_ENERGIES = {"H": -0.500273, "C": -37.846772, "N": -54.583861, "O": -75.064579, "F": -99.718730}
SPLITS = ("train", "valid", "test")
UNKNOWN_SPLIT = len(SPLITS)
NUM_LISTED = 3


def read_smiles_csv(path: Path) -> Molecules:
    """Return the molecules of a table, read once and then taken from a cache.

    Its columns: `smiles`; `g4mp2_atom`, the atomisation energy at 0 K, or `u0`, the total energy at 0 K, both in
    Hartree; optionally `split`: train, valid or test. Lines that cannot be used are left out and counted on stderr.

    Raises:
        ValueError: the file is truncated, lacks a column, or has no molecule that can be used.
        FileNotFoundError: there is no such file.
    """
    if not path.is_file():
        raise FileNotFoundError(
            f"{path} does not exist: a table with the columns smiles and g4mp2_atom or u0 is expected"
        )
    content = path.read_bytes()
    cache = CACHE / f"{hashlib.sha256(content).hexdigest()[:32]}_format{FORMAT}.pt"
    table = cached_tensors(cache, lambda: read_table(content, short_path(path)))
    if table["skipped"]:
        print(f"{short_path(path)}: {table['skipped']}", file=sys.stderr)
    return Molecules(**table["molecules"])


def read_built_in() -> Molecules:
    """Return the hundred molecules that come with the project."""
    return Molecules(**read_table(BUILT_IN.read_bytes(), BUILT_IN.name)["molecules"])


def read_qm9(data_dir: str | None) -> Molecules:
    """Return PyTorch Geometric's QM9 (B3LYP), which it downloads to `<data_dir>/qm9` unless it is there.

    Raises:
        ValueError: it can be neither loaded nor downloaded.
    """
    import_optional("rdkit.Chem")  # with RDKit the library downloads text files, without it a pickle
    pyg_datasets = import_optional("torch_geometric.datasets")
    folder = data_path("qm9", data_dir)
    for path in sorted(folder.glob("processed/*.pt")):  # the library would load unsafe files, too
        try:
            torch.load(path, weights_only=True)
        except Exception:
            raise InputError(f"{path} is damaged, or PyTorch Geometric did not write it: remove it") from None
    try:
        dataset = pyg_datasets.QM9(str(folder))
    except Exception as error:  # the network, a zip, a text or a pickle can fail
        reason = " ".join(str(error).split())[:100] or type(error).__name__
        raise InputError(
            f"QM9 cannot be loaded from {folder} ({reason}): remove {folder / 'raw'} to download it again, "
            "or take a table of SMILES, or the built-in molecules"
        ) from None
    return from_geometric(dataset)


def from_geometric(dataset: Any) -> Molecules:
    """Return the molecules of a `torch_geometric.datasets.QM9`."""
    data, slices = dataset._data, dataset.slices
    return Molecules(
        data.x[:, : len(ELEMENTS)].argmax(1).to(torch.uint8),
        slices["x"].diff(),
        data.edge_index.to(torch.uint8),
        data.edge_attr.argmax(1).to(torch.uint8),
        slices["edge_attr"].diff(),
        data.y[:, U0_ATOM].double(),
        torch.full((len(data.y),), UNKNOWN_SPLIT, dtype=torch.uint8),
    )


class _UnusableLine(Exception):
    """A line of a table is left out; the message says why."""


def read_table(content: bytes, name: str) -> dict[str, Any]:
    """Return {"molecules": the fields of `Molecules`, "skipped": a line on what was left out, or ""}.

    Raises:
        ValueError: the table is truncated, lacks a column, or has no molecule that can be used.
    """
    try:
        lines = list(csv.reader(io.StringIO(content.decode("utf-8-sig"), newline="")))
    except (UnicodeDecodeError, csv.Error):
        raise InputError(f"{name} is not a UTF-8 text with comma-separated columns") from None
    header = lines[0] if lines else []
    energy_columns = [column for column in ("g4mp2_atom", "u0") if column in header]
    if "smiles" not in header or not energy_columns:
        raise InputError(f"{name} lacks a column: its first line must name smiles and g4mp2_atom or u0 (in Hartree)")
    if len(lines[-1]) < len(header) and not content.endswith((b"\n", b"\r")):
        raise InputError(f"{name} is truncated: it ends in the middle of line {len(lines)}")

    found: list[Molecules] = []
    skipped: dict[str, list[str]] = {}
    progress = tqdm(lines[1:], desc=f"reading {name}", unit="molecule", disable=None, leave=False)
    with import_optional("rdkit.rdBase").BlockLogs():  # RDKit's complaints about broken SMILES: they are counted here
        for number, line in enumerate(progress, start=2):
            if not line:
                continue
            row = dict.fromkeys(header, "") | dict(zip(header, line))  # a short line lacks its last columns
            try:
                found.append(_read_row(row, energy_columns[0]))
            except _UnusableLine as reason:
                skipped.setdefault(str(reason), []).append(f"line {number}")
    if not found:
        raise InputError(f"{name} has no molecule that can be used" + (f": {_summary(skipped)}" if skipped else ""))
    molecules = {field: torch.cat([getattr(one, field) for one in found], dim=-1) for field in Molecules._fields}
    summary = ""
    if skipped:
        num_skipped = sum(map(len, skipped.values()))
        summary = f"{num_skipped:,} of {num_skipped + len(found):,} molecules left out: {_summary(skipped)}"
    return {"molecules": molecules, "skipped": summary}


def _read_row(row: dict[str, str], energy_column: str) -> Molecules:
    """Return the one molecule of a line, given as {column: text}.

    Raises:
        _UnusableLine: it cannot be used.
    """
    elements, bonds, bond_types = _graph(row["smiles"].strip())
    energy = _energy(row[energy_column])
    if energy_column == "u0":
        energy -= sum(ATOM_ENERGIES[ELEMENTS[element]] for element in elements.tolist())
    split = UNKNOWN_SPLIT
    if "split" in row:
        if row["split"].strip() not in SPLITS:
            raise _UnusableLine("an unknown split")
        split = SPLITS.index(row["split"].strip())
    return Molecules(
        elements=elements,
        num_atoms=torch.tensor([len(elements)]),
        bonds=bonds,
        bond_types=bond_types,
        num_bonds=torch.tensor([len(bond_types)]),
        energies=torch.tensor([energy * HARTREE], dtype=torch.float64),
        splits=torch.tensor([split], dtype=torch.uint8),
    )


def _graph(smiles: str) -> tuple[Tensor, Tensor, Tensor]:
    """Return a molecule's elements (a,), bonds (2, e) and bond types (e,), hydrogens included."""
    chem = import_optional("rdkit.Chem")
    molecule = chem.MolFromSmiles(smiles) if smiles else None
    if molecule is None:
        raise _UnusableLine("broken SMILES")
    molecule = chem.AddHs(molecule)
    symbols = [atom.GetSymbol() for atom in molecule.GetAtoms()]
    if not set(symbols) <= set(ELEMENTS):
        raise _UnusableLine(f"elements other than {' '.join(ELEMENTS)}")
    if len(symbols) > MAX_NUM_ATOMS:
        raise _UnusableLine(f"more than {MAX_NUM_ATOMS} atoms")
    elements = torch.tensor([ELEMENTS.index(symbol) for symbol in symbols], dtype=torch.uint8)
    edges = []
    for bond in molecule.GetBonds():
        kind = bond.GetBondType().name
        if kind not in BOND_TYPES:
            raise _UnusableLine(f"bonds other than {', '.join(BOND_TYPES).lower()}")
        start, end, bond_type = bond.GetBeginAtomIdx(), bond.GetEndAtomIdx(), BOND_TYPES.index(kind)
        edges += [(start, end, bond_type), (end, start, bond_type)]
    columns = torch.tensor(sorted(edges), dtype=torch.uint8).reshape(-1, 3).t()
    return elements, columns[:2], columns[2]


def _energy(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not math.isfinite(value):
        raise _UnusableLine("no energy")
    return value


def _summary(skipped: dict[str, list[str]]) -> str:
    """Say how many lines were left out for each reason, and name the first few."""
    parts = []
    for reason, lines in skipped.items():
        more = ", ..." if len(lines) > NUM_LISTED else ""
        parts.append(f"{len(lines):,} with {reason} ({', '.join(lines[:NUM_LISTED])}{more})")
    return "; ".join(parts)
