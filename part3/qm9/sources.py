"""Where molecules come from: the built-in ones, a table of SMILES and energies, or PyTorch Geometric's QM9."""

import csv
import hashlib
import io
import math
import sys
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor
from tqdm import tqdm

from common.command import LARGEST_FLOAT
from common.data import cache_folder, cached_tensors, data_path, input_file
from common.errors import InputError
from common.paths import short_path
from part3.qm9.molecules import BOND_TYPES, ELEMENTS, HARTREE, KCAL_PER_MOL, Molecules, import_optional
from part3.rows import decode_table, numbered_rows

BUILT_IN = Path(__file__).resolve().parent / "assets" / "molecules.csv"
FORMAT = 2  # of the cache; raise it when `read_table` makes something else of a line
MAX_NUM_ATOMS = 29  # of QM9's largest molecules
U0_ATOM = 12  # atomisation energy at 0 K; the course's code took 7, the total energy U0 at 0 K
# Energies at 0 K of the free atoms, B3LYP/6-31G(2df,p), in Hartree; from QM9 (Ramakrishnan et al., 2014).
ATOM_ENERGIES = {"H": -0.500273, "C": -37.846772, "N": -54.583861, "O": -75.064579, "F": -99.718730}
SPLITS = ("train", "valid", "test")
UNKNOWN_SPLIT = len(SPLITS)
KCAL = KCAL_PER_MOL / HARTREE
UNITS = {"hartree": 1.0, "ev": 1 / HARTREE, "kcal/mol": KCAL, "kj/mol": KCAL / 4.184}  # in Hartree
DELIMITERS = (",", ";", "\t")
KINDS = ("atomisation", "total")
# Atomisation energies an atom, in eV: QM9 has -5.8 to -3.0. Graphite has -7.4, and few molecules are bound as weakly as
# F2 (-0.8). Energies in another unit, of which the nearest two differ by 4.184, are outside.
USUAL_PER_ATOM = (-8.0, -1.5)
MAX_HEADER, MAX_SMILES = 100_000, 1_000  # characters
NUM_LISTED = 3  # lines named in a note
NUM_SHOWN, MAX_SHOWN = 12, 30  # columns of a header named in a message, and characters of each


class Columns(NamedTuple):
    """What is read of a table of molecules.

    Names are a column's own; if there is none, the same name in another case or with spaces around is taken.

    Attributes:
        smiles: the column of SMILES.
        energy: the column of energies at 0 K; None: `g4mp2_atom`, or else `u0`.
        unit: of the energies, a key of `UNITS`.
        kind: "total", from which the energies of the free atoms (`ATOM_ENERGIES`) are then subtracted, or
            "atomisation"; None: total for a column that is called u0, else atomisation.
    """

    smiles: str = "smiles"
    energy: str | None = None
    unit: str = "hartree"
    kind: str | None = None


DEFAULT = Columns()


def read_smiles_csv(path: Path, columns: Columns = DEFAULT) -> Molecules:
    """Return the molecules of a table, read once and then taken from a cache.

    A column `split`, if there is one, says train, valid or test. Lines that cannot be used are left out. What has been
    left out, and what looks wrong, is said on stderr.

    Raises:
        ValueError: the file is no whole table, lacks a column, or has no molecule that can be used.
        FileNotFoundError: there is no such file.
    """
    content = input_file(path, "a table with the columns smiles and g4mp2_atom or u0").read_bytes()
    key = hashlib.sha256(content + repr(tuple(columns)).encode()).hexdigest()[:32]
    cache = cache_folder("molecules") / f"{key}_format{FORMAT}.pt"
    table = cached_tensors(cache, lambda: read_table(content, short_path(path), columns))
    for note in table["notes"]:
        print(f"{short_path(path)}: {note}", file=sys.stderr)
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


def read_table(content: bytes, name: str, columns: Columns = DEFAULT) -> dict[str, Any]:
    """Return {"molecules": the fields of `Molecules`, "notes": lines on what was left out and what looks wrong}.

    The columns are separated by commas, semicolons or tabs, whichever the header shows.

    Raises:
        ValueError: the file is no whole table, lacks a column, or has no molecule that can be used.
    """
    if columns.unit not in UNITS or columns.kind not in (None, *KINDS):
        raise InputError(f"unit must be one of {', '.join(UNITS)}, and kind one of {', '.join(KINDS)}, or None")
    text = decode_table(content, name)
    delimiter, header = _read_header(text, columns, name)
    places, is_total = _find_columns(header, columns, name)
    _, *lines = numbered_rows(text, delimiter, name)
    whole = text.endswith(("\n", "\r"))
    if lines and len(lines[-1][1]) < len(header) and not whole:
        raise InputError(f"{name} is truncated: it ends in the middle of line {lines[-1][0]}")

    found: list[Molecules] = []
    numbers: list[int] = []  # the line of each of them
    same: dict[str, list[tuple[int, int]]] = {}  # canonical SMILES: its lines and their splits
    skipped: dict[str, list[int]] = {}
    progress = tqdm(lines, desc=f"reading {name}", unit="molecule", disable=None, leave=False)
    with import_optional("rdkit.rdBase").BlockLogs():  # RDKit's complaints about broken SMILES: they are counted here
        for number, fields in progress:
            try:
                if any(fields[len(header) :]):
                    raise _UnusableLine("more fields than the header")  # such as -0,5 where commas separate
                row = {what: fields[k] if k < len(fields) else "" for what, k in places.items()}
                if any(set(field) & {"\n", "\r"} for field in row.values()):
                    raise InputError(f"{name}, line {number}: a quotation mark there is not closed")
                canonical, molecule = _read_row(row, columns.unit, is_total)
            except _UnusableLine as reason:
                skipped.setdefault(str(reason), []).append(number)
            else:
                found.append(molecule)
                numbers.append(number)
                same.setdefault(canonical, []).append((number, int(molecule.splits)))
    if not found:
        raise InputError(f"{name} has no molecule that can be used" + (f": {_summary(skipped)}" if skipped else ""))
    molecules = Molecules(*(torch.cat(fields, dim=-1) for fields in zip(*found)))
    notes = [
        _note_on_skipped(skipped, len(found)),
        _note_on_energies(molecules, numbers),
        _note_on_repeated(same, "split" in places),
        "" if whole else f"it ends within line {lines[-1][0]}, without a line end: is the file whole?",
    ]
    return {"molecules": molecules._asdict(), "notes": [note for note in notes if note]}


def _read_header(text: str, columns: Columns, name: str) -> tuple[str, list[str]]:
    """Return what separates the columns, and their names: with it as many as possible of those asked for are there."""
    first = next(line for line in io.StringIO(text, newline="") if line.strip())
    if len(first) > MAX_HEADER:
        raise InputError(f"{name} has no header: its first line has {len(first):,} characters")
    headers = {delimiter: next(csv.reader([first], delimiter=delimiter)) for delimiter in DELIMITERS}

    def fitness(delimiter: str) -> tuple[int, int]:
        header = headers[delimiter]
        asked = (columns.smiles, *_energy_columns(columns))
        return sum(bool(_places(header, column)) for column in asked), len(header)

    delimiter = max(DELIMITERS, key=fitness)
    return delimiter, headers[delimiter]


def _find_columns(header: list[str], columns: Columns, name: str) -> tuple[dict[str, int], bool]:
    """Return the places of "smiles", "energy" and, if there is one, "split", and whether the energies are total ones.

    Raises:
        ValueError: a column is missing, or there twice.
    """
    energies = _energy_columns(columns)
    energy = next((column for column in energies if _places(header, column)), energies[0])
    asked = {"smiles": columns.smiles, "energy": energy, "split": "split"}
    places = {what: _places(header, column) for what, column in asked.items()}
    if not (places["smiles"] and places["energy"]):
        names = ", ".join(repr(column[:MAX_SHOWN]) for column in header[:NUM_SHOWN])
        more = ", ..." if len(header) > NUM_SHOWN else ""
        raise InputError(
            f"{name} lacks a column: its first line must name {columns.smiles} and {' or '.join(energies)}, "
            f"and names {names}{more}"
        )
    for what, column in asked.items():
        if len(places[what]) > 1:
            raise InputError(f"{name} has the column {column} twice")
    is_total = energy.strip().lower() == "u0" if columns.kind is None else columns.kind == "total"
    return {what: where[0] for what, where in places.items() if where}, is_total


def _energy_columns(columns: Columns) -> tuple[str, ...]:
    return ("g4mp2_atom", "u0") if columns.energy is None else (columns.energy,)


def _places(header: list[str], column: str) -> list[int]:
    """Return where a header has a column: by its exact name, else by that in another case or with spaces around."""
    exact = [k for k, name in enumerate(header) if name == column]
    return exact or [k for k, name in enumerate(header) if name.strip().lower() == column.strip().lower()]


def _read_row(row: dict[str, str], unit: str, is_total: bool) -> tuple[str, Molecules]:
    """Return the canonical SMILES and the one molecule of a line, given as {"smiles", "energy", "split": text}.

    Raises:
        _UnusableLine: it cannot be used.
    """
    canonical, elements, bonds, bond_types = _graph(row["smiles"])
    energy = _energy(row["energy"]) * UNITS[unit]
    if is_total:
        energy -= sum(ATOM_ENERGIES[ELEMENTS[element]] for element in elements.tolist())
    split = UNKNOWN_SPLIT
    if "split" in row:
        if row["split"].lower() not in SPLITS:
            raise _UnusableLine("an unknown split")
        split = SPLITS.index(row["split"].lower())
    return canonical, Molecules(
        elements=elements,
        num_atoms=torch.tensor([len(elements)]),
        bonds=bonds,
        bond_types=bond_types,
        num_bonds=torch.tensor([len(bond_types)]),
        energies=torch.tensor([energy * HARTREE], dtype=torch.float64),
        splits=torch.tensor([split], dtype=torch.uint8),
    )


def _graph(smiles: str) -> tuple[str, Tensor, Tensor, Tensor]:
    """Return a molecule's canonical SMILES, elements (a,), bonds (2, e) and bond types (e,), hydrogens included."""
    chem = import_optional("rdkit.Chem")
    if len(smiles) > MAX_SMILES:  # which RDKit might need minutes for
        raise _UnusableLine(f"a SMILES of more than {MAX_SMILES:,} characters")
    molecule = chem.MolFromSmiles(smiles)
    if molecule is None or not molecule.GetNumAtoms():
        raise _UnusableLine("broken SMILES")
    canonical = chem.MolToSmiles(molecule)
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
    return canonical, elements, columns[:2], columns[2]


def _energy(text: str) -> float:
    if "," in text:  # -1,234 may be either
        raise _UnusableLine("a comma in the energy (write -0.5, and thousands without a mark)")
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not math.isfinite(value):
        raise _UnusableLine("no energy")
    if abs(value) > LARGEST_FLOAT:
        raise _UnusableLine(f"an energy beyond {LARGEST_FLOAT:g}")
    return value


def _note_on_skipped(skipped: dict[str, list[int]], num_found: int) -> str:
    num_skipped = sum(map(len, skipped.values()))
    if not num_skipped:
        return ""
    return f"{num_skipped:,} of {num_skipped + num_found:,} molecules left out: {_summary(skipped)}"


def _summary(skipped: dict[str, list[int]]) -> str:
    """Say how many lines were left out for each reason, and name the first few."""
    return "; ".join(f"{len(lines):,} with {reason} ({_first_lines(lines)})" for reason, lines in skipped.items())


def _note_on_energies(molecules: Molecules, numbers: list[int]) -> str:
    """Say which molecules' energies, a line number each, are outside of what is usual."""
    per_atom = molecules.energies / molecules.num_atoms
    lowest, highest = USUAL_PER_ATOM
    unusual = ((per_atom < lowest) | (per_atom > highest)) & (molecules.num_atoms > 1)  # one atom has 0
    lines = [numbers[k] for k in unusual.nonzero().flatten().tolist()]
    if not lines:
        return ""
    return (
        f"an unlikely atomisation energy for {len(lines):,} of {len(numbers):,} molecules ({_first_lines(lines)}; the "
        f"median is {per_atom.median().item():.3g} eV an atom, {lowest:g} to {highest:g} is usual): another unit, "
        "a total energy, the other sign, or a mark for a missing value?"
    )


def _note_on_repeated(same: dict[str, list[tuple[int, int]]], has_splits: bool) -> str:
    """Say which molecules the table has in several of its splits or, where it has none, several times.

    Args:
        same: canonical SMILES: the lines that have it, and their splits.
    """
    pairs = []
    for (line, split), *others in same.values():
        other = next((number for number, theirs in others if theirs != split or not has_splits), None)
        if other is not None:
            pairs.append(f"lines {line} and {other}")
    if not pairs:
        return ""
    where = "in several of its splits" if has_splits else "in it several times, so perhaps in several splits"
    more = "; ..." if len(pairs) > NUM_LISTED else ""
    stand = "molecule stands" if len(pairs) == 1 else "molecules stand"
    return f"{len(pairs):,} {stand} {where}, which makes the test easier ({'; '.join(pairs[:NUM_LISTED])}{more})"


def _first_lines(numbers: list[int]) -> str:
    listed = ", ".join(f"line {number}" for number in numbers[:NUM_LISTED])
    return listed + (", ..." if len(numbers) > NUM_LISTED else "")
