"""train.py with all that it imports while it runs, for a process that forks itself for many runs."""

import rdkit.Chem  # noqa: F401
import torch_geometric.nn  # noqa: F401

from part3.qm9.train import main  # noqa: F401
