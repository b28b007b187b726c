"""The molecules' own packages, imported before a test is: PyTorch Geometric warns of what PyTorch has deprecated."""

import warnings

with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    try:
        import torch_geometric.datasets
        import torch_geometric.nn  # noqa: F401
    except ModuleNotFoundError:  # the tests are skipped then
        pass
