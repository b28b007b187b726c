"""Many molecules in a few flat tensors, from which a batch is cut without a loop over its molecules."""

import importlib
from collections.abc import Iterator
from types import ModuleType
from typing import TYPE_CHECKING, NamedTuple

import torch
from torch import Tensor

if TYPE_CHECKING:
    from torch_geometric.data import Batch, Data

ELEMENTS = ("H", "C", "N", "O", "F")
BOND_TYPES = ("SINGLE", "DOUBLE", "TRIPLE", "AROMATIC")
HARTREE = 27.211386245988  # eV
KCAL_PER_MOL = 0.0433641042418  # eV


class Molecules(NamedTuple):
    """N molecules with A atoms and E/2 bonds in all, one molecule after the other.

    Attributes:
        elements: (A,) uint8, each atom's index in `ELEMENTS`.
        num_atoms: (N,) int64, the atoms of each molecule.
        bonds: (2, E) uint8, the numbers of two bonded atoms within their molecule; every bond is there both ways.
        bond_types: (E,) uint8, each bond's index in `BOND_TYPES`.
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
        atoms = segment_indices(self.num_atoms, indices)
        bonds = segment_indices(self.num_bonds, indices)
        return Molecules(
            self.elements[atoms],
            self.num_atoms[indices],
            self.bonds[:, bonds],
            self.bond_types[bonds],
            self.num_bonds[indices],
            self.energies[indices],
            self.splits[indices],
        )

    def to(self, device: str | torch.device) -> "Molecules":
        return Molecules(*(tensor.to(device) for tensor in self))


class ScaledMolecules(torch.utils.data.Dataset):
    """Molecules with z-scored energies: a data set of PyTorch Geometric's `Data` that also cuts out whole batches.

    Args:
        molecules: what the data set holds.
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
        pyg = import_optional("torch_geometric.data")
        return pyg.Data(x=batch.x, edge_index=batch.edge_index, edge_attr=batch.edge_attr, y=batch.y)

    def batch(self, indices: Tensor) -> "Batch":
        """Return the molecules of these (B,) numbers as one graph of a atoms and e/2 bonds.

        Its tensors: `x` (a, 5) one-hot elements, `edge_index` (2, e), `edge_attr` (e, 4) one-hot bond types,
        `y` (B, 1) z-scores, `batch` (a,) each atom's molecule, `ptr` (B + 1,) where each molecule begins.
        """
        molecules = self.molecules
        num_atoms, num_bonds = molecules.num_atoms[indices], molecules.num_bonds[indices]
        atoms = segment_indices(molecules.num_atoms, indices, self.first_atom)
        bonds = segment_indices(molecules.num_bonds, indices, self.first_bond)
        ptr = torch.zeros(len(indices) + 1, dtype=torch.int64, device=indices.device)
        torch.cumsum(num_atoms, 0, out=ptr[1:])
        return import_optional("torch_geometric.data").Batch(
            x=self._atoms[molecules.elements[atoms].long()],
            edge_index=molecules.bonds[:, bonds] + ptr[:-1].repeat_interleave(num_bonds),
            edge_attr=self._bonds[molecules.bond_types[bonds].long()],
            y=self.labels[indices].unsqueeze(1),
            batch=torch.arange(len(indices), device=indices.device).repeat_interleave(num_atoms),
            ptr=ptr,
        )

    def batches(self, size: int) -> Iterator["Batch"]:
        """Yield all molecules in their order, `size` at a time."""
        for indices in torch.arange(len(self), device=self.labels.device).split(size):
            yield self.batch(indices)


def segment_indices(sizes: Tensor, chosen: Tensor, starts: Tensor | None = None) -> Tensor:
    """Return the indices of all entries of the chosen segments of a flat tensor.

    Segment k has sizes[k] entries and begins at starts[k], by default where the one before it ends.
    """
    if starts is None:
        starts = sizes.cumsum(0) - sizes
    chosen_sizes = sizes[chosen]
    shifts = starts[chosen] - (chosen_sizes.cumsum(0) - chosen_sizes)
    return torch.arange(int(chosen_sizes.sum()), device=sizes.device) + shifts.repeat_interleave(chosen_sizes)


def import_optional(module: str) -> ModuleType:
    """Import a module of the packages that only molecules need, and return it.

    Raises:
        ModuleNotFoundError: it is not installed.
    """
    try:
        return importlib.import_module(module)
    except ModuleNotFoundError as error:
        package = (error.name or module).split(".")[0]
        message = f'molecules need {package}, which is not installed: pip install -e ".[molecules]"'
        raise ModuleNotFoundError(message, name=package) from None
