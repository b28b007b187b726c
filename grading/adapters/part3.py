"""Molecules: the MLP and the GNN of 2021, called through the submission's own compute_loss.

What a network is fed is compute_loss's business: bonds may become types there or in forward, the MLP's features may be
made in either. So predictions are read by a criterion that looks at what it is given. Molecules are made here as
PyTorch Geometric's `Batch`: random graphs with 11 columns of atom features, one-hot bonds, and 19 equal targets,
whichever of them the submission reads.
"""

import importlib
from typing import Any

import torch
from torch import Tensor, nn

from grading.loading import Code, NotJudged, Unusable

FLAT = 3509


class SpyLoss(nn.MSELoss):
    """The mean squared error, which remembers what it was given."""

    def __init__(self) -> None:
        super().__init__()
        self.seen: list[tuple[Any, Any]] = []

    def forward(self, predicted: Tensor, target: Tensor) -> Tensor:
        self.seen.append((predicted, target))
        if predicted.shape != target.shape and predicted.numel() == target.numel():
            return ((predicted - target) ** 2).mean()  # without the warning, which would end nothing
        return super().forward(predicted, target)


class Network:
    """A submission's MLP or GNN, its parameters drawn anew unless its `own_init` is wanted.

    Raises:
        Unusable: it cannot be constructed, or gives no prediction for a batch.
    """

    def __init__(self, code: Code, name: str, blocks: int = 2, own_init: bool = False):
        self.code, self.name = code, name
        sizes = (
            {"n_inputs": FLAT, "n_hidden": [32, 16], "n_outputs": 1}
            if name == "MLP"
            else {"n_node_features": 5, "n_edge_features": 4, "n_hidden": 16, "n_output": 1}
        )
        if name == "GNN":
            sizes["num_convolution_blocks"] = blocks
        self.net = code.construct(name, sizes)
        if not own_init:
            draw_parameters(self.net)
        self.net.eval()

    def predict(self, batch: Any) -> Tensor:
        """Return the predictions (B, 1) of a batch."""
        try:
            spy = SpyLoss()
            self.code.load("compute_loss")(self.net, batch, spy)
            output = spy.seen[0][0]
        except Exception:
            output = self._directly(batch)
        if not isinstance(output, Tensor) or output.numel() != batch.num_graphs:
            shape = tuple(output.shape) if isinstance(output, Tensor) else type(output).__name__
            message = f"{batch.num_graphs} molecules gave {shape}, not a prediction for each"
            raise Unusable(f"call {self.name}", message, self.code.place(self.name, "forward"))
        return output.reshape(-1, 1)

    def _directly(self, batch: Any) -> Any:
        """Call the network itself, with one-hot bonds or with their types."""
        key = f"call {self.name}"
        if self.name == "MLP":
            features = self.code.load("get_mlp_features")(batch)
            return self.code.call(key, self.net, features)
        x, ends, bonds = batch.x[:, :5], batch.edge_index, batch.edge_attr
        try:
            return self.code.call(key, self.net, x, ends, bonds, batch.batch)
        except Unusable as first:
            if first.is_stub:
                raise
            try:
                return self.code.call(key, self.net, x, ends, bonds.argmax(1), batch.batch)
            except Unusable:
                raise first from None


def draw_parameters(net: nn.Module) -> None:
    for parameter in net.parameters():
        nn.init.uniform_(parameter, -0.3, 0.3)


def loader(batches: list[list[Any]]) -> Any:
    """Return PyTorch Geometric's loader of molecules, in batches of the first one's size; it has a `.dataset`."""
    graphs = [graph for batch in batches for graph in batch]
    return pyg("torch_geometric.loader").DataLoader(graphs, batch_size=len(batches[0]))


def pyg(module: str) -> Any:
    try:
        return importlib.import_module(module)
    except ImportError:
        raise NotJudged("molecules need PyTorch Geometric, which is not installed here") from None


def graph(**tensors: Tensor) -> Any:
    return pyg("torch_geometric.data").Data(**tensors)


def together(graphs: list[Any]) -> Any:
    return pyg("torch_geometric.data").Batch.from_data_list(graphs)


def molecule(num_atoms: int, edge_index: Tensor | None = None, target: float | None = None) -> Any:
    """A random tree with one ring more where it is large enough, random elements and bond types."""
    if edge_index is None:
        pairs = [(k, int(torch.randint(max(0, k - 3), k, ()))) for k in range(1, num_atoms)]
        pairs += [(0, num_atoms - 1)] if num_atoms > 8 else []
        edge_index = torch.tensor([pair for i, j in pairs for pair in ((i, j), (j, i))]).long().reshape(-1, 2).t()
    kinds = torch.randint(4, (edge_index.shape[1] // 2,))
    x = torch.cat([torch.eye(5)[torch.randint(5, (num_atoms,))], torch.rand(num_atoms, 6)], dim=1)
    edge_attr = torch.eye(4)[kinds.repeat_interleave(2) if edge_index.shape[1] != 10 else kinds.repeat(2)]
    y = torch.randn(1, 1).expand(1, 19) if target is None else torch.full((1, 19), target)
    return graph(x=x, edge_index=edge_index.contiguous(), edge_attr=edge_attr, y=y.clone(), z=x[:, 0].long())


def molecules(number: int, target: float | None = None) -> list[Any]:
    return [molecule(int(torch.randint(6, 20, ())), target=target) for _ in range(number)]


def renumbered(batch: Any) -> Any:
    """The same molecules with the atoms of each in reverse order."""
    graphs = []
    for one in batch.to_data_list():
        last, reverse = len(one.x) - 1, one.clone()
        reverse.x, reverse.edge_index = one.x.flip(0), last - one.edge_index
        graphs.append(reverse)
    return together(graphs)


def labels(batch: Any) -> Tensor:
    return batch.y[:, 0]
