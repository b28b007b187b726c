"""Each statement of part3/circulant.py, in double precision, for odd and even n."""

import numpy as np
import pytest
import torch

from part3.circulant import CirculantLayer, circle, circulant, dft_matrix, eigenvalues
from part3.graph import distances

SIZES = pytest.mark.parametrize("n", [3, 6, 11])


def close(a, b):
    torch.testing.assert_close(a, b, rtol=0, atol=1e-12)


def random_filters(n):
    return torch.randn(2, n, dtype=torch.float64, generator=torch.Generator().manual_seed(n))


@SIZES
def test_the_circle_joins_each_node_to_the_one_before_and_after(n):
    """Question 3.2."""
    A = circle(n)
    theta = torch.zeros(n)
    theta[[1, -1]] = 1
    assert torch.equal(A.to_dense(), circulant(theta))
    assert distances(A, 0).tolist() == [min(i, n - i) for i in range(n)]


def test_the_matrix_is_equation_23():
    w_0, w_1, w_before = 1.0, 2.0, 3.0
    theta = torch.tensor([w_0, w_1, 0, 0, w_before])
    expected = [
        [w_0, w_1, 0, 0, w_before],
        [w_before, w_0, w_1, 0, 0],
        [0, w_before, w_0, w_1, 0],
        [0, 0, w_before, w_0, w_1],
        [w_1, 0, 0, w_before, w_0],
    ]
    assert circulant(theta).tolist() == expected


@SIZES
def test_the_layer_is_the_matrix(n):
    """Question 3.3a; also that a node depends on itself and its neighbours on the circle, and on no others."""
    layer = CirculantLayer(torch.Generator().manual_seed(0)).double()
    H = torch.randn(n, 4, dtype=torch.float64)
    close(layer(H), circulant(layer.filter(n)) @ H)
    jacobian = torch.autograd.functional.jacobian(lambda h: layer(h[:, None])[:, 0], H[:, 0])
    assert torch.equal(jacobian != 0, (circle(n).to_dense() + torch.eye(n)) > 0)


@SIZES
def test_it_is_a_circular_cross_correlation_and_a_convolution_with_the_reversed_filter(n):
    """Question 3.3b."""
    theta, x = random_filters(n)
    close(circulant(theta) @ x, torch.tensor([sum(theta[k] * x[(i + k) % n] for k in range(n)) for i in range(n)]))
    reversed_filter = theta.roll(-1).flip(0)  # theta_{-k}
    convolution = torch.tensor([sum(reversed_filter[k] * x[(i - k) % n] for k in range(n)) for i in range(n)])
    close(circulant(theta) @ x, convolution)


@SIZES
def test_theta_tilde_shifts_by_one(n):
    """Question 3.3, the second b."""
    theta_tilde = torch.zeros(n, dtype=torch.float64)
    theta_tilde[1] = 1
    x = torch.arange(n, dtype=torch.float64)
    assert (circulant(theta_tilde) @ x).tolist() == [*range(1, n), 0]


@SIZES
def test_the_dft_is_numpys_and_unitary(n):
    Phi, (x, _) = dft_matrix(n), random_filters(n)
    close(Phi.mH @ Phi, torch.eye(n, dtype=torch.complex128))
    close(Phi.mH @ x.to(torch.complex128), torch.from_numpy(np.fft.fft(x.numpy(), norm="ortho")))


@SIZES
def test_the_dft_diagonalises_every_circulant(n):
    """Question 3.4a: the columns of Phi are eigenvectors; the handout's eigenvalues are not right as they stand."""
    theta, _ = random_filters(n)
    Phi, C, lambdas = dft_matrix(n), circulant(theta).to(torch.complex128), eigenvalues(theta)
    close(C @ Phi, Phi * lambdas)
    close(Phi @ torch.diag(lambdas) @ Phi.mH, C)
    close(lambdas, n**0.5 * (Phi.mH @ theta.to(torch.complex128)).conj())
    shift = torch.eye(n, dtype=torch.complex128)[1]  # (0, 1, 0, ..., 0)
    for wrong in (Phi.mH @ shift, n**0.5 * Phi.mH @ shift):
        assert (circulant(shift) @ Phi - Phi * wrong).abs().max() > 0.1
    symmetric = (theta + theta.roll(-1).flip(0)) / 2  # theta_k = theta_{-k}
    close(eigenvalues(symmetric), n**0.5 * Phi.mH @ symmetric.to(torch.complex128))


@SIZES
def test_the_convolution_theorem(n):
    """Equation 24, with its brackets."""
    theta, x = random_filters(n)
    Phi = dft_matrix(n)
    x_hat = Phi.mH @ x.to(torch.complex128)
    close(Phi @ (eigenvalues(theta) * x_hat), (circulant(theta) @ x).to(torch.complex128))


@SIZES
def test_circulants_commute_so_that_the_layer_is_shift_equivariant(n):
    """Question 3.4b; a matrix that is not circulant does not commute with the shift."""
    theta, eta = random_filters(n)
    close(circulant(theta) @ circulant(eta), circulant(eta) @ circulant(theta))
    layer, H = CirculantLayer().double(), torch.randn(n, 2, dtype=torch.float64)
    close(layer(H.roll(1, dims=0)), layer(H).roll(1, dims=0))
    other = torch.diag(theta)
    assert (other @ eta.roll(1) - (other @ eta).roll(1)).abs().max() > 0.1
