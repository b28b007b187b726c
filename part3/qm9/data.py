"""What the networks of question 3.6 read of a molecule and what they predict, by the names of the course's data.py.

A molecule is a graph. Atoms are nodes, one-hot H C N O F, hydrogens included; bonds are edges in both directions,
one-hot single, double, triple or aromatic. The label is the z-scored atomisation energy at 0 K (`U0_atom`): the
molecule's energy less that of its atoms, negative, in eV. The course's code used column 7 of PyTorch Geometric's QM9,
but that is the total energy U0, which is little more than a count of the atoms; column 12 is the atomisation energy.

Question 3.6a. Molecules have 3 to 29 atoms, but an MLP has an input of fixed size. If all of QM9 is known, including
the test molecules, one can pad to 29 atoms: 29 one-hot elements and 29 x 29 one-hot bonds, 3509 numbers. A molecule of
30 atoms then does not fit.
"""

import sys
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch import Tensor

if not __package__:  # found by its bare name
    sys.path.insert(0, str(Path(__file__).resolve().parents[2]))
from common.errors import InputError
from common.machine import seeded_generator
from part3.qm9.molecules import Molecules, ScaledMolecules
from part3.qm9.sources import SPLITS, U0_ATOM, UNKNOWN_SPLIT, read_qm9

if TYPE_CHECKING:
    from torch_geometric.data import Batch

MAX_NUM_NODES = 29
Z_ONE_HOT_DIM = 5
EDGE_ATTR_DIM = 4
FLAT_INPUT_DIM = MAX_NUM_NODES * Z_ONE_HOT_DIM + MAX_NUM_NODES**2 * EDGE_ATTR_DIM  # 3509
VALIDATION_SHARE, TEST_SHARE = 0.09, 0.10  # of a source without a split of its own


def get_qm9(data_dir: str | None = None, device: str | torch.device = "cpu") -> tuple[ScaledMolecules, ...]:
    """Return QM9's training, validation and test molecules, their energies z-scored by the training molecules alone.

    Raises:
        ValueError: QM9 is not in the folder and cannot be downloaded.
    """
    return split_and_scale(read_qm9(data_dir), device=device)


def get_node_features(molecules: "Batch") -> Tensor:
    """Return the one-hot elements (a, 5) of a batch's atoms."""
    return molecules.x[:, :Z_ONE_HOT_DIM]


def get_labels(molecules: "Batch") -> Tensor:
    """Return the z-scored atomisation energies (B,) of a batch."""
    column = U0_ATOM if molecules.y.shape[1] > U0_ATOM else 0  # PyTorch Geometric's own QM9 has 19 columns, ours one
    return molecules.y[:, column]


def get_mlp_features(molecules: "Batch") -> Tensor:
    """Return a batch padded to 29 atoms and flattened, (B, 3509): question 3.6b.

    First come the 29 x 5 elements, then the 29 x 29 x 4 bonds; atoms are in the order of their numbers in the molecule.

    Raises:
        ValueError: a molecule has more than 29 atoms (question 3.6a).
    """
    x = get_node_features(molecules)
    start, end = molecules.edge_index
    molecule, ptr = molecules.batch, molecules.ptr
    largest = int(ptr.diff().max())
    if largest > MAX_NUM_NODES:
        raise ValueError(f"the MLP's input has room for {MAX_NUM_NODES} atoms, and this molecule has {largest}")
    number = torch.arange(len(x), device=x.device) - ptr[molecule]  # of each atom within its molecule
    atoms = x.new_zeros(len(ptr) - 1, MAX_NUM_NODES, Z_ONE_HOT_DIM)
    atoms[molecule, number] = x
    bonds = x.new_zeros(len(ptr) - 1, MAX_NUM_NODES, MAX_NUM_NODES, EDGE_ATTR_DIM)
    bonds[molecule[start], number[start], number[end]] = molecules.edge_attr.to(x.dtype)
    return torch.cat([atoms.flatten(1), bonds.flatten(1)], dim=1)


def split_and_scale(
    molecules: Molecules, num_train: int | None = None, seed: int = 0, device: str | torch.device = "cpu"
) -> tuple[ScaledMolecules, ...]:
    """Return training, validation and test molecules, z-scored with the training molecules' mean and deviation.

    The source's own split is kept; otherwise one is drawn, the same for every seed, so that runs can be compared.

    Args:
        num_train: use only this many of the training molecules, drawn with `seed`.

    Raises:
        ValueError: a split would be empty, or there are fewer training molecules than asked for.
    """
    N, splits = len(molecules.splits), molecules.splits.long()
    if (splits == UNKNOWN_SPLIT).all():
        num_valid, num_test = int(VALIDATION_SHARE * N), int(TEST_SHARE * N)
        sizes = torch.tensor([N - num_valid - num_test, num_valid, num_test])
        order = torch.randperm(N, generator=seeded_generator(0, "split"))
        splits[order] = torch.arange(len(SPLITS)).repeat_interleave(sizes)
    parts = [(splits == number).nonzero().squeeze(1) for number in range(len(SPLITS))]
    for name, part in zip(SPLITS, parts):
        if len(part) == 0:
            raise InputError(f"none of the {N:,} molecules is in the {name} split")
    if num_train:
        num_all = len(parts[0])
        if num_train > num_all:
            raise InputError(f"num_train {num_train} is more than the {num_all:,} training molecules")
        order = torch.randperm(num_all, generator=seeded_generator(seed, "training molecules"))
        parts[0] = parts[0][order[:num_train]]
    energies = molecules.energies[parts[0]]
    mean, std = energies.mean().item(), energies.std(correction=0).item()
    if not std > 0:
        raise InputError("all training molecules have the same energy: there is nothing to learn")
    return tuple(ScaledMolecules(molecules.take(part).to(device), mean, std) for part in parts)
