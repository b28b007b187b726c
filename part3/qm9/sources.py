"""Where molecules come from: the built-in ones, a table of SMILES and energies, or PyTorch Geometric's QM9."""

import csv
import hashlib
import io
import math
import sys
import zipfile
from pathlib import Path

import torch
from torch import Tensor
from tqdm import tqdm

from common.data import data_path
from common.errors import CommandError
from common.machine import ROOT, short_path
from common.run_folder import write_atomically
from part3.qm9.molecules import BOND_TYPES, ELEMENTS, HARTREE, Molecules, extra

BUILT_IN = Path(__file__).resolve().parent / "assets" / "molecules.csv"
CACHE = ROOT / "data" / "molecules"
FORMAT = 1  # of the cache; to be raised with any change to what `read_table` makes of a line
MAX_NUM_ATOMS = 29  # of QM9's largest molecules
NUM_QM9 = 130_831
U0_ATOM = 12  # atomisation energy at 0 K; the course's code took 7, the total energy U0 at 0 K
# Energies at 0 K of the free atoms, B3LYP/6-31G(2df,p), in Hartree; from QM9 (Ramakrishnan et al., 2014).
ATOM_ENERGIES = {"H": -0.500273, "C": -37.846772, "N": -54.583861, "O": -75.064579, "F": -99.718730}
SPLITS = ("train", "valid", "test")
UNKNOWN_SPLIT = len(SPLITS)
NUM_LISTED = 3


def read_smiles_csv(path: Path) -> Molecules:
    """Return the molecules of a table, read once and then taken from a cache.

    Its columns: `smiles`; `g4mp2_atom`, the atomisation energy at 0 K, or `u0`, the total energy at 0 K, both in Hartree;
    perhaps `split`, each line train, valid or test. What cannot be used is counted and said on stderr, and left out.

    Raises:
        CommandError: the file is missing, is truncated, lacks a column, or has no molecule that can be used.
    """
    if not path.is_file():
        raise CommandError(f"{path} does not exist: --smiles_csv names a table with the columns smiles and g4mp2_atom or u0")
    content = path.read_bytes()
    cached = CACHE / f"{hashlib.sha256(content).hexdigest()[:32]}.pt"
    table = _load_cached(cached)
    if table is None:
        table = read_table(content, short_path(path))
        buffer = io.BytesIO()
        torch.save(table, buffer)
        cached.parent.mkdir(parents=True, exist_ok=True)
        write_atomically(cached, buffer.getvalue())
    if table["skipped"]:
        print(f"{short_path(path)}: {table['skipped']}", file=sys.stderr)
    return Molecules(**table["molecules"])


def read_built_in() -> Molecules:
    """Return the hundred molecules that come with the project."""
    return Molecules(**read_table(BUILT_IN.read_bytes(), BUILT_IN.name)["molecules"])


def read_qm9(data_dir: str | None) -> Molecules:
    """Return PyTorch Geometric's QM9 (B3LYP), which it downloads to `<data_dir>/qm9` unless it is there.

    Raises:
        CommandError: it cannot be had.
    """
    extra("rdkit.Chem")  # with RDKit the download is made of text files, without it a pickle
    folder, library = data_path("qm9", data_dir), extra("torch_geometric.datasets")
    for path in sorted(folder.glob("processed/*.pt")):  # the library would load what is not safe, too
        try:
            torch.load(path, weights_only=True)
        except Exception:
            raise CommandError(f"{path} is damaged or not the library's: remove it") from None
    try:
        dataset = library.QM9(str(folder))
    except Exception as error:  # of the network, of a zip, of a text, of a pickle
        reason = " ".join(str(error).split())[:100] or type(error).__name__
        raise CommandError(
            f"QM9 cannot be had in {folder} ({reason}): remove {folder / 'raw'} to download it anew, "
            "or name a table with --smiles_csv, or leave --dataset away for the built-in molecules"
        ) from None
    return from_geometric(dataset)


def from_geometric(dataset: object) -> Molecules:
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


def read_table(content: bytes, name: str) -> dict[str, object]:
    """Return {"format", "molecules": the fields of `Molecules`, "skipped": a line on what was left out, or ""}."""
    try:
        lines = list(csv.reader(io.StringIO(content.decode("utf-8-sig"), newline="")))
    except (UnicodeDecodeError, csv.Error):
        raise CommandError(f"{name} is no UTF-8 text with comma-separated columns") from None
    header, *lines = lines or [[]]
    energy_column = next((column for column in ("g4mp2_atom", "u0") if column in header), None)
    if "smiles" not in header or energy_column is None:
        raise CommandError(f"{name} lacks a column: its first line must name smiles and g4mp2_atom or u0 (in Hartree)")
    if lines and len(lines[-1]) < len(header) and not content.endswith((b"\n", b"\r")):
        raise CommandError(f"{name} is truncated: it ends in the middle of line {len(lines) + 1}")

    columns: dict[str, list[Tensor] | list[float]] = {field: [] for field in Molecules._fields}
    skipped: dict[str, list[str]] = {}
    with extra("rdkit.rdBase").BlockLogs():  # its complaints about broken SMILES: they are counted here
        for number, line in enumerate(tqdm(lines, desc=f"reading {name}", unit="molecule", disable=None, leave=False), start=2):
            if not line:
                continue
            row = dict(zip(header, line))
            graph, energy = _graph(row.get("smiles", "").strip()), _energy(row.get(energy_column, ""))
            split = row.get("split", "").strip()
            if isinstance(graph, str) or energy is None or ("split" in header and split not in SPLITS):
                reason = graph if isinstance(graph, str) else "no energy" if energy is None else "an unknown split"
                skipped.setdefault(reason, []).append(f"line {number}")
                continue
            elements, bonds, bond_types = graph
            if energy_column == "u0":
                energy -= sum(ATOM_ENERGIES[ELEMENTS[element]] for element in elements.tolist())
            values = (elements, len(elements), bonds, bond_types, len(bond_types), energy * HARTREE)
            for field, value in zip(columns, (*values, SPLITS.index(split) if split else UNKNOWN_SPLIT)):
                columns[field].append(value)
    if not columns["energies"]:
        raise CommandError(f"{name} has no molecule that can be used" + (f": {_summary(skipped)}" if skipped else ""))
    molecules = {
        "elements": torch.cat(columns["elements"]),
        "num_atoms": torch.tensor(columns["num_atoms"]),
        "bonds": torch.cat(columns["bonds"], dim=1),
        "bond_types": torch.cat(columns["bond_types"]),
        "num_bonds": torch.tensor(columns["num_bonds"]),
        "energies": torch.tensor(columns["energies"], dtype=torch.float64),
        "splits": torch.tensor(columns["splits"], dtype=torch.uint8),
    }
    total = sum(map(len, skipped.values()))
    summary = f"{total:,} of {total + len(columns['energies']):,} molecules left out: {_summary(skipped)}" if skipped else ""
    return {"format": FORMAT, "molecules": molecules, "skipped": summary}


def _graph(smiles: str) -> tuple[Tensor, Tensor, Tensor] | str:
    """Return a molecule's elements (a,), bonds (2, e) and bond types (e,), hydrogens included, or why there are none."""
    chem = extra("rdkit.Chem")
    molecule = chem.MolFromSmiles(smiles) if smiles else None
    if molecule is None:
        return "broken SMILES"
    molecule = chem.AddHs(molecule)
    symbols = [atom.GetSymbol() for atom in molecule.GetAtoms()]
    if not set(symbols) <= set(ELEMENTS):
        return f"elements other than {' '.join(ELEMENTS)}"
    if len(symbols) > MAX_NUM_ATOMS:
        return f"more than {MAX_NUM_ATOMS} atoms"
    edges = []
    for bond in molecule.GetBonds():
        start, end, kind = bond.GetBeginAtomIdx(), bond.GetEndAtomIdx(), bond.GetBondType().name
        if kind not in BOND_TYPES:
            return f"bonds other than {', '.join(BOND_TYPES).lower()}"
        edges += [(start, end, BOND_TYPES.index(kind)), (end, start, BOND_TYPES.index(kind))]
    flat = torch.tensor(sorted(edges), dtype=torch.uint8).reshape(-1, 3).t()
    return torch.tensor([ELEMENTS.index(symbol) for symbol in symbols], dtype=torch.uint8), flat[:2], flat[2]


def _energy(text: str) -> float | None:
    try:
        value = float(text)
    except ValueError:
        return None
    return value if math.isfinite(value) else None


def _summary(skipped: dict[str, list[str]]) -> str:
    """Say how many lines each reason has left out, and name the first few."""
    parts = []
    for reason, lines in skipped.items():
        more = ", ..." if len(lines) > NUM_LISTED else ""
        parts.append(f"{len(lines):,} with {reason} ({', '.join(lines[:NUM_LISTED])}{more})")
    return "; ".join(parts)


def _load_cached(path: Path) -> dict[str, object] | None:
    """Return a cached table, or None where there is none or where it is damaged: then it is made anew."""
    if not path.exists():
        return None
    try:
        content = path.read_bytes()
        if bad := zipfile.ZipFile(io.BytesIO(content)).testzip():  # torch.load itself does not compare the checksums
            raise ValueError(f"checksum of {bad}")
        table = torch.load(io.BytesIO(content), weights_only=True)
        return table if table["format"] == FORMAT and set(table["molecules"]) == set(Molecules._fields) else None
    except Exception as error:  # torch.load raises many types for damaged and foreign files
        print(f"{short_path(path)} is damaged ({type(error).__name__}): made anew", file=sys.stderr)
        return None
