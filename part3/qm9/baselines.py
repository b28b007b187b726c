"""What can be said of an energy without learning anything of how atoms are connected."""

import torch
from torch import Tensor
from torch.nn import functional as F

from part3.qm9.molecules import BOND_TYPES, ELEMENTS, Molecules, ScaledMolecules


def fit_counts(train: ScaledMolecules) -> Tensor:
    """Return the weights (10,), float64, of the line through the training z-scores that has the least squared error.

    Five are for the atoms of each element, four for the bonds of each type, and the last is the constant.
    """
    # The SVD of gelsd: valences tie bonds to atoms, so that in a small set the counts depend on each other.
    return torch.linalg.lstsq(counts(train.molecules).cpu(), z_scores(train).unsqueeze(1), driver="gelsd").solution.squeeze(1)


def baseline_losses(train: ScaledMolecules, test: ScaledMolecules) -> dict[str, tuple[float, float]]:
    """Return mean squared and mean absolute error in z-units, on the test molecules, of two predictions.

    "mean" is the training molecules' mean for all; "counts" the least-squares line in the numbers of atoms and bonds.
    """
    errors = {"mean": z_scores(test), "counts": z_scores(test) - counts(test.molecules).cpu() @ fit_counts(train)}
    return {name: (error.square().mean().item(), error.abs().mean().item()) for name, error in errors.items()}


def z_scores(molecules: ScaledMolecules) -> Tensor:
    """Return the labels (N,) in float64."""
    return ((molecules.molecules.energies - molecules.mean) / molecules.std).cpu()


def counts(molecules: Molecules) -> Tensor:
    """Return (N, 10) float64: atoms of each element, bonds of each type, and 1."""
    columns = []
    for kinds, num_kinds, sizes, share in (
        (molecules.elements, len(ELEMENTS), molecules.num_atoms, 1.0),
        (molecules.bond_types, len(BOND_TYPES), molecules.num_bonds, 0.5),  # each bond stands there twice
    ):
        owner = torch.arange(len(sizes), device=sizes.device).repeat_interleave(sizes)
        ones = F.one_hot(kinds.long(), num_kinds).double() * share
        columns.append(ones.new_zeros(len(sizes), num_kinds).index_add(0, owner, ones))
    return torch.cat([*columns, torch.ones_like(columns[0][:, :1])], dim=1)
