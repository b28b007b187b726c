"""Many molecules in a few flat tensors, from which a batch is cut without a loop over its molecules."""

import importlib
from types import ModuleType
from typing import TYPE_CHECKING, NamedTuple

import torch
from torch import Tensor

from common.errors import CommandError

if TYPE_CHECKING:
    from torch_geometric.data import Batch, Data

ELEMENTS = ("H", "C", "N", "O", "F")
BOND_TYPES = ("SINGLE", "DOUBLE", "TRIPLE", "AROMATIC")
HARTREE = 27.211386245988  # eV
KCAL_PER_MOL = 0.0433641042418  # eV


class Molecules(NamedTuple):
    """N molecules with A atoms and E/2 bonds in all, one molecule after the other.

    Attributes:
        elements: (A,) uint8, each atom's place in `ELEMENTS`.
        num_atoms: (N,) int64, the atoms of each molecule.
        bonds: (2, E) uint8, the numbers of two bonded atoms within their molecule; every bond stands in both directions.
        bond_types: (E,) uint8, each bond's place in `BOND_TYPES`.
        num_bonds: (N,) int64, the columns of `bonds` of each molecule.
        energies: (N,) float64, atomisation energies at 0 K in eV: the molecule's energy less that of its atoms.
        splits: (N,) uint8, 0 to train on, 1 to validate, 2 to test; 3 where the source does not say.
    """

    elements: Tensor
    num_atoms: Tensor
    bonds: Tensor
    bond_types: Tensor
    num_bonds: Tensor
    energies: Tensor
    splits: Tensor

    def take(self, indices: Tensor) -> "Molecules":
        """Return the molecules of these numbers, in this order."""
        atoms, bonds = places(self.num_atoms, indices), places(self.num_bonds, indices)
        return Molecules(
            self.elements[atoms],
            self.num_atoms[indices],
            self.bonds[:, bonds],
            self.bond_types[bonds],
            self.num_bonds[indices],
            self.energies[indices],
            self.splits[indices],
        )

    def to(self, device: torch.device) -> "Molecules":
        return Molecules(*(tensor.to(device) for tensor in self))


class ScaledMolecules(torch.utils.data.Dataset):
    """Molecules with z-scored energies: a data set of PyTorch Geometric's `Data`, and batches of it cut out at once.

    Args:
        molecules: what it holds.
        mean, std: of the training molecules' energies, in eV.
    """

    def __init__(self, molecules: Molecules, mean: float, std: float):
        self.molecules, self.mean, self.std = molecules, mean, std
        self.labels = ((molecules.energies - mean) / std).float()  # z-scores
        self.first_atom = molecules.num_atoms.cumsum(0) - molecules.num_atoms
        self.first_bond = molecules.num_bonds.cumsum(0) - molecules.num_bonds
        self._atoms = torch.eye(len(ELEMENTS), device=self.labels.device)
        self._bonds = torch.eye(len(BOND_TYPES), device=self.labels.device)

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, index: int) -> "Data":
        if not -len(self) <= index < len(self):
            raise IndexError(f"molecule {index} of {len(self)}")
        batch = self.batch(torch.tensor([index % len(self)], device=self.labels.device))
        data = extra("torch_geometric.data").Data
        return data(x=batch.x, edge_index=batch.edge_index, edge_attr=batch.edge_attr, y=batch.y)

    def batch(self, indices: Tensor) -> "Batch":
        """Return the molecules of these (B,) numbers as one graph of a atoms and e/2 bonds.

        Its tensors: `x` (a, 5) one-hot elements, `edge_index` (2, e), `edge_attr` (e, 4) one-hot bond types,
        `y` (B, 1) z-scores, `batch` (a,) which molecule each atom is of, `ptr` (B + 1,) where each begins.
        """
        molecules, device = self.molecules, indices.device
        num_atoms, num_bonds = molecules.num_atoms[indices], molecules.num_bonds[indices]
        atoms = places(molecules.num_atoms, indices, self.first_atom)
        bonds = places(molecules.num_bonds, indices, self.first_bond)
        ptr = torch.zeros(len(indices) + 1, dtype=torch.int64, device=device)
        torch.cumsum(num_atoms, 0, out=ptr[1:])
        return extra("torch_geometric.data").Batch(
            x=self._atoms[molecules.elements[atoms].long()],
            edge_index=molecules.bonds[:, bonds] + ptr[:-1].repeat_interleave(num_bonds),
            edge_attr=self._bonds[molecules.bond_types[bonds].long()],
            y=self.labels[indices].unsqueeze(1),
            batch=torch.arange(len(indices), device=device).repeat_interleave(num_atoms),
            ptr=ptr,
        )


def places(counts: Tensor, indices: Tensor, first: Tensor | None = None) -> Tensor:
    """Return where the entries of the groups `indices` stand, when group k has counts[k] of them and starts at first[k]."""
    first = counts.cumsum(0) - counts if first is None else first
    chosen = counts[indices]
    shift = first[indices] - (chosen.cumsum(0) - chosen)
    return torch.arange(int(chosen.sum()), device=counts.device) + shift.repeat_interleave(chosen)


def extra(module: str) -> ModuleType:
    """Return a module of the packages that only molecules need.

    Raises:
        CommandError: it is not installed.
    """
    try:
        return importlib.import_module(module)
    except ModuleNotFoundError as error:
        package = (error.name or module).split(".")[0]
        raise CommandError(f'molecules need {package}, which is not installed: pip install -e ".[molecules]"') from None
