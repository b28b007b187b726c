"""Import the packages for molecules before the tests, as PyTorch Geometric triggers PyTorch's deprecation warnings."""

import warnings

with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    try:
        import torch_geometric.datasets
        import torch_geometric.nn  # noqa: F401
    except ModuleNotFoundError:  # the tests are skipped then
        pass
