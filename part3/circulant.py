"""Circles, circulant matrices and the Fourier transform (questions 3.2 to 3.4), with the conventions stated exactly.

Indices are counted from 0 and taken modulo n. The matrix of equation 23 is C(θ)_ij = θ_{j-i}: its first row is
θ = (w_0, w_1, 0, ..., 0, w_{-1}), and each further row is the one above, moved one place to the right. With
Φ_uk = e^{+2πi uk/n} / √n, the matrix behind equations 25 and 26, x̂ = Φ* x is the DFT of x, and:

    (C(θ) x)_i = Σ_k θ_k x_{i+k}                  3.3b: circular cross-correlation, the "convolution" of neural
                                                  networks; strictly a circular convolution with the filter θ_{-k}
    C((0, 1, 0, ..., 0)) x = (x_1, ..., x_{n-1}, x_0)     3.3b: a shift by one
    C(θ) = Φ diag(λ) Φ*,  λ = √n Φ θ              3.4a: every circulant has the columns of Φ as eigenvectors
    C(θ) x = Φ (λ ⊙ x̂)                            equation 24, the convolution theorem
    C(θ) C(η) = C(η) C(θ)                         3.4b: with η the shift: a circulant layer is shift equivariant

Where the handout is imprecise:

* It calls the columns of Φ the eigenvalues; they are the eigenvectors.
* It calls the eigenvalues the DFT of θ. With equation 23's C and equation 25's DFT they are λ = √n Φ θ: the factor √n
  comes from the 1/√n in equation 25, and Φ stands in place of Φ* because C is a cross-correlation. For a real θ this is
  √n times the complex conjugate of θ̂; for a symmetric filter, w_1 = w_{-1}, λ = √n θ̂.
* Equation 24 needs brackets: Φ applies to the product x̂ ⊙ λ.
* ω_n = e^{-2πi ku/n} contains the indices k and u, which only its powers should bring in, and its sign is not the one
  that equation 26 needs: it should be ω_n = e^{+2πi/n} and Φ_uk = ω_n^{uk} / √n. The matrix as printed leaves out the
  exponent 0 of its second row.
* H has one row for each of the n nodes and D columns: it is n × D, not D × n.
"""

import math

import torch
from torch import Tensor, nn

from part3.graph import SparseMatrix, adjacency


def circle(n: int) -> SparseMatrix:
    """Return the (n, n) adjacency of the circle, which joins node i to i - 1 and i + 1 modulo n (question 3.2)."""
    node = torch.arange(n)
    return adjacency(torch.stack([node, (node + 1) % n]), n)


def circulant(theta: Tensor) -> Tensor:
    """Return C(θ), (n, n), of an (n,) filter: C_ij = θ_{(j - i) mod n} (equation 23)."""
    node = torch.arange(len(theta), device=theta.device)
    return theta[(node[None, :] - node[:, None]) % len(theta)]


def dft_matrix(n: int) -> Tensor:
    """Return the unitary Φ, (n, n) complex128: Φ_uk = e^{2πi uk/n} / √n; Φ* x is the DFT of x, Φ x̂ its inverse (26)."""
    node = torch.arange(n)
    angle = 2 * math.pi / n * (torch.outer(node, node) % n).double()  # uk modulo n: exact also where uk is large
    return torch.polar(torch.full_like(angle, 1 / math.sqrt(n)), angle)


def eigenvalues(theta: Tensor) -> Tensor:
    """Return the (n,) complex eigenvalues of C(θ), λ = √n Φ θ; the k-th belongs to the k-th column of Φ."""
    n = len(theta)
    return math.sqrt(n) * dft_matrix(n) @ theta.to(torch.complex128)


class CirculantLayer(nn.Module):
    """F_θ(H) = C(θ) H with θ = (w_0, w_1, 0, ..., 0, w_{-1}): a convolution with a kernel of size 3 (question 3.3a).

    At node i, φ = w_{-1} h_{i-1} + w_0 h_i + w_1 h_{i+1}: it sums over h_i and its neighbours only, with the same three
    weights at every node.
    """

    def __init__(self, generator: torch.Generator | None = None):
        super().__init__()
        self.w = nn.Parameter(torch.randn(3, generator=generator))  # w_{-1}, w_0, w_1

    def forward(self, H: Tensor) -> Tensor:
        """Return (n, D) from the (n, D) features of a circle's n nodes, n at least 3."""
        before, after = H.roll(1, dims=0), H.roll(-1, dims=0)  # h_{i-1}, h_{i+1}
        return self.w[0] * before + self.w[1] * H + self.w[2] * after

    def filter(self, n: int) -> Tensor:
        """Return θ, (n,), for a circle of n nodes."""
        return torch.cat([self.w[1:], self.w.new_zeros(n - 3), self.w[:1]])
