"""Numbers for the tests of formulas, drawn from a seed, and their equality to rounding."""

import torch


def assert_equal(ours, theirs, tolerance=1e-10):
    torch.testing.assert_close(ours, theirs, rtol=0, atol=tolerance)


def numbers(*shape, seed=0):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed + sum(shape)))
