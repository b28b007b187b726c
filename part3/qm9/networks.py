"""An MLP on numbered atoms and a graph network on bonds that predict z-scored energies (questions 3.6b and 3.6d)."""

import sys
from argparse import Namespace
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

if not __package__:  # found by its bare name
    sys.path.insert(0, str(Path(__file__).resolve().parents[2]))
from part3.qm9.data import EDGE_ATTR_DIM, FLAT_INPUT_DIM, Z_ONE_HOT_DIM, get_mlp_features, get_node_features
from part3.qm9.molecules import import_optional

if TYPE_CHECKING:
    from torch_geometric.data import Batch

MAX_VALENCE = 4


class MLP(nn.Module):
    """Linear layers with ReLU between them.

    Args:
        n_inputs: size of the input.
        n_hidden: sizes of the hidden layers, one for each.
        n_outputs: size of the output.
    """

    def __init__(self, n_inputs: int, n_hidden: list[int], n_outputs: int):
        super().__init__()
        sizes = [n_inputs, *n_hidden, n_outputs]
        layers: list[nn.Module] = []
        for size_in, size_out in pairwise(sizes):
            layers += [nn.Linear(size_in, size_out), nn.ReLU()]
        self.layers = nn.Sequential(*layers[:-1])  # no ReLU after the last

    @property
    def device(self) -> torch.device:
        return next(self.parameters()).device

    def forward(self, x: Tensor) -> Tensor:
        """Return (B, n_outputs) for flat molecules (B, n_inputs)."""
        return self.layers(x)

    def predict(self, molecules: "Batch") -> Tensor:
        """Return z-scored energies (B, 1) of a batch."""
        return self(get_mlp_features(molecules).to(next(self.parameters()).dtype))


class GNN(nn.Module):
    """Embedding of the elements, blocks of convolutions, the sum over all atoms, and only then an MLP.

    A block is x -> MFConv(ReLU(RGCNConv(ReLU(x)))): RGCNConv has a weight matrix for each bond type, MFConv one for
    each number of neighbours. An energy grows with the molecule, hence a sum over atoms and not a mean.

    Args:
        n_node_features, n_edge_features: sizes of the one-hot elements and of the one-hot bond types.
        n_hidden: numbers that an atom carries from block to block.
        n_output: size of the output.
        num_convolution_blocks: how many blocks; each lets an atom see two bonds further.
        residual: each block adds to its input and reads it normalised (LayerNorm); the sum over atoms is normalised,
            too. The network uses SiLU instead of ReLU, whose units can stop learning for good after one bad step. This
            way more blocks can be trained, and at higher learning rates.
        counts: add a linear function of the counts of elements and bond types, which is already close to the energy.
        max_ring: tell each atom which rings of up to this many atoms it is in or near; 0 for none.
    """

    def __init__(
        self,
        n_node_features: int,
        n_edge_features: int,
        n_hidden: int,
        n_output: int,
        num_convolution_blocks: int,
        residual: bool = False,
        counts: bool = False,
        max_ring: int = 0,
    ):
        super().__init__()
        pyg = import_optional("torch_geometric.nn")
        self.max_ring = max_ring
        n_rings = max(0, max_ring - 2)  # rings of 3 to max_ring atoms
        self.embedding = nn.Linear(n_node_features + n_rings, n_hidden)
        self.by_bond_type = nn.ModuleList(
            pyg.RGCNConv(n_hidden, n_hidden, n_edge_features, aggr="sum" if residual else "mean")
            for _ in range(num_convolution_blocks)
        )
        self.by_valence = nn.ModuleList(
            pyg.MFConv(n_hidden, n_hidden, max_degree=MAX_VALENCE) for _ in range(num_convolution_blocks)
        )
        self.norms = nn.ModuleList(
            nn.LayerNorm(n_hidden) if residual else nn.Identity() for _ in range(num_convolution_blocks + 1)
        )
        self.residual = residual
        self.activation = nn.SiLU() if residual else nn.ReLU()
        self.output = nn.Sequential(nn.Linear(n_hidden, n_hidden), self.activation, nn.Linear(n_hidden, n_output))
        self.counts = nn.Linear(n_node_features + n_edge_features, n_output) if counts else None

    @property
    def device(self) -> torch.device:
        return self.embedding.weight.device

    def forward(self, x: Tensor, edge_index: Tensor, edge_attr: Tensor, batch_idx: Tensor) -> Tensor:
        """Return (B, n_output) for B molecules with a atoms and e directed bonds in all.

        Args:
            x: (a, n_node_features).
            edge_index: (2, e), from which atom and to which atom.
            edge_attr: (e, n_edge_features), one-hot.
            batch_idx: (a,), each atom's molecule, in order.
        """
        pool = import_optional("torch_geometric.nn").global_add_pool
        num_molecules = int(batch_idx[-1]) + 1
        bond_type = edge_attr.argmax(dim=1)
        features = x
        if self.max_ring:
            features = torch.cat([x, ring_walks(edge_index, batch_idx, self.max_ring).to(x.dtype)], dim=1)
        h = self.embedding(features)
        for by_bond_type, by_valence, norm in zip(self.by_bond_type, self.by_valence, self.norms):
            z = by_bond_type(self.activation(norm(h)), edge_index, bond_type)
            z = by_valence(self.activation(z), edge_index)
            h = h + z if self.residual else z
        y = self.output(pool(self.norms[-1](h), batch_idx, num_molecules))
        if self.counts is not None:
            atoms = pool(x, batch_idx, num_molecules)
            bonds = pool(edge_attr.to(x.dtype), batch_idx[edge_index[0]], num_molecules) / 2  # each is there twice
            y = y + self.counts(torch.cat([atoms, bonds], dim=1))
        return y

    @torch.no_grad()
    def start_from_counts(self, weights: Tensor) -> None:
        """Set the linear function of the counts to `weights` (10,), the constant last, and the rest to 0."""
        assert self.counts is not None, "the network was built without counts"
        self.counts.weight.copy_(weights[:-1])
        self.counts.bias.copy_(weights[-1])
        for parameter in self.output[-1].parameters():
            parameter.zero_()

    def predict(self, molecules: "Batch") -> Tensor:
        """Return z-scored energies (B, 1) of a batch."""
        x = get_node_features(molecules).to(self.embedding.weight.dtype)
        return self(x, molecules.edge_index, molecules.edge_attr, molecules.batch)


def build_model(args: Namespace) -> MLP | GNN:
    """Return the model that the arguments of train.py describe, its weights drawn from the seed."""
    torch.manual_seed(args.seed)
    if args.model == "mlp":
        return MLP(FLAT_INPUT_DIM, args.mlp_hidden_dims, 1)
    sizes = (Z_ONE_HOT_DIM, EDGE_ATTR_DIM, args.gnn_hidden_dims, 1, args.gnn_num_blocks)
    return GNN(*sizes, residual=args.residual, counts=args.counts, max_ring=args.max_ring)


@torch.no_grad()
def ring_walks(edge_index: Tensor, batch_idx: Tensor, max_ring: int) -> Tensor:
    """Return (a, max_ring - 2): each atom's closed walks of 3 to max_ring bonds that never turn back on a bond.

    An atom in a ring of k atoms has two of length k, one in each direction. Their numbers follow a recursion: with
    p_k[i, j] the number of walks of k bonds from i to j, A the adjacency matrix and D the degrees, p_1 = A,
    p_2 = A² - D, and then p_k = p_(k-1) A - p_(k-2) (D - 1).
    """
    num_atoms = batch_idx.bincount()
    first_atom = num_atoms.cumsum(0) - num_atoms
    number = torch.arange(len(batch_idx), device=batch_idx.device) - first_atom[batch_idx]  # within its molecule
    start, end = edge_index
    n = int(num_atoms.max())
    A = torch.zeros(len(num_atoms), n, n, device=batch_idx.device)
    A[batch_idx[start], number[start], number[end]] = 1
    degree = A.sum(1, keepdim=True)  # (B, 1, n)
    before, walks = A, A @ A - torch.diag_embed(degree.squeeze(1))
    found = []
    for _ in range(3, max_ring + 1):
        before, walks = walks, walks @ A - before * (degree - 1)
        found.append(walks.diagonal(dim1=1, dim2=2)[batch_idx, number])
    return torch.stack(found, dim=1)
