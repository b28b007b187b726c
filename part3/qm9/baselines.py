"""Baselines: predictions of the energy that do not know how the atoms are connected."""

import torch
from torch import Tensor
from torch.nn import functional as F

from part3.qm9.molecules import BOND_TYPES, ELEMENTS, Molecules, ScaledMolecules


def fit_counts(train: ScaledMolecules) -> Tensor:
    """Return the weights (10,), float64, of the least-squares fit of the counts to the training z-scores.

    Five are for the atoms of each element, four for the bonds of each type, and the last is the constant.
    """
    # gelsd uses the SVD, because in a small set the counts can be linearly dependent: valences tie bonds to atoms.
    fit = torch.linalg.lstsq(counts(train.molecules).cpu(), z_scores(train).unsqueeze(1), driver="gelsd")
    return fit.solution.squeeze(1)


def baseline_losses(train: ScaledMolecules, test: ScaledMolecules) -> dict[str, tuple[float, float]]:
    """Return mean squared and mean absolute error in z-units, on the test molecules, of two predictions.

    "mean" predicts the training molecules' mean for all; "counts" is the least-squares fit of the counts.
    """
    errors = {"mean": z_scores(test), "counts": z_scores(test) - counts(test.molecules).cpu() @ fit_counts(train)}
    return {name: (error.square().mean().item(), error.abs().mean().item()) for name, error in errors.items()}


def z_scores(molecules: ScaledMolecules) -> Tensor:
    """Return the labels (N,) in float64."""
    return ((molecules.molecules.energies - molecules.mean) / molecules.std).cpu()


def counts(molecules: Molecules) -> Tensor:
    """Return (N, 10) float64: atoms of each element, bonds of each type, and 1."""
    atoms = _count(molecules.elements, len(ELEMENTS), molecules.num_atoms)
    bonds = _count(molecules.bond_types, len(BOND_TYPES), molecules.num_bonds) / 2  # each is listed in both directions
    return torch.cat([atoms, bonds, torch.ones_like(atoms[:, :1])], dim=1)


def _count(kinds: Tensor, num_kinds: int, sizes: Tensor) -> Tensor:
    """Return (N, num_kinds): how often each kind occurs in each molecule, of which number n has sizes[n] entries."""
    molecule = torch.arange(len(sizes), device=sizes.device).repeat_interleave(sizes)
    one_hot = F.one_hot(kinds.long(), num_kinds).double()
    return one_hot.new_zeros(len(sizes), num_kinds).index_add(0, molecule, one_hot)
