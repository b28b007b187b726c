"""The formulas of the report's section on graphs, written as printed and checked by brute force or autograd."""

import math
from itertools import combinations, pairwise, product

import pytest
import torch

from part3.circulant import CirculantLayer, circle, circulant, dft_matrix, eigenvalues
from part3.gat import GATLayer
from part3.gcn import GCN, GCNLayer
from part3.gcnii import GCNII
from part3.graph import add_self_loops, adjacency, distances, laplacian, normalise
from part3.graph_cnn import GraphAttention, MatrixGraphConvolution, MessageGraphConvolution

EXACT = {"rtol": 0, "atol": 1e-12}


def random_numbers(*shape, seed=0):
    return torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def random_graph(N=12, seed=0):
    """A connected graph: a random tree and a few more edges, as a dense matrix of zeros and ones."""
    generator = torch.Generator().manual_seed(seed)
    A = torch.zeros(N, N, dtype=torch.float64)
    for i in range(1, N):
        A[i, torch.randint(i, (1,), generator=generator)] = 1
    for i, j in torch.randint(N, (N // 3, 2), generator=generator).tolist():
        A[i, j] = float(i != j)
    return ((A + A.t()) > 0).double()


def sparse(A):
    return adjacency(A.nonzero().t(), len(A), torch.float64)


def normalised(A_tilde):
    d = A_tilde.sum(1)
    return A_tilde / (d[:, None] * d[None, :]).sqrt()


def hops_of(A):
    """Distances by brute force: the fewest steps of a walk from one node to the other."""
    N, walks = len(A), torch.eye(len(A), dtype=torch.float64)
    hops = torch.full((N, N), -1)
    for length in range(N):
        hops[(walks > 0) & (hops < 0)] = length
        walks = walks @ A
    return hops


def test_layer_is_a_sum_of_messages_over_neighbours():
    A, H = random_graph(), random_numbers(12, 5)
    layer = GCNLayer(5, 3, torch.Generator().manual_seed(0)).double()
    d = A.sum(1) + 1
    rows = []
    for i in range(12):
        messages = [layer.W.t() @ H[j] / (d[i] * d[j]).sqrt() for j in range(12) if A[i, j] or i == j]
        rows.append(torch.tanh(sum(messages)))
    by_messages = torch.stack(rows)
    torch.testing.assert_close(by_messages, torch.tanh(normalised(A + torch.eye(12)) @ H @ layer.W), **EXACT)
    A_hat = normalise(add_self_loops(sparse(A)))
    torch.testing.assert_close(by_messages, torch.tanh(layer(A_hat, H)), **EXACT)
    torch.testing.assert_close(by_messages, torch.tanh(layer.pass_messages(A_hat, H)), **EXACT)


def test_gcn_layer_is_permutation_equivariant():
    A_hat, H, W = normalised(random_graph() + torch.eye(12)), random_numbers(12, 5), random_numbers(5, 3, seed=1)
    P = torch.eye(12, dtype=torch.float64)[torch.randperm(12, generator=torch.Generator().manual_seed(0))]
    assert not torch.allclose(P @ A_hat @ P.t(), A_hat)
    expected = P @ torch.relu(A_hat @ H @ W)
    torch.testing.assert_close(torch.relu((P @ A_hat @ P.t()) @ (P @ H) @ W), expected, **EXACT)


@pytest.mark.parametrize("seed", range(5))
def test_eigenvalues_of_the_normalised_adjacency(seed):
    A = random_graph(seed=seed)
    A_tilde, one = A + torch.eye(12), torch.eye(12, dtype=torch.float64)
    d, A_hat = A_tilde.sum(1), normalised(A_tilde)
    torch.testing.assert_close(normalise(add_self_loops(sparse(A))).to_dense(), A_hat, **EXACT)
    x = random_numbers(12, seed=seed)
    y = x / d.sqrt()
    for sign in (1, -1):
        expected = 0.5 * (A_tilde * (y[:, None] - sign * y[None, :]).square()).sum()
        torch.testing.assert_close(x @ (one - sign * A_hat) @ x, expected, **EXACT)
    torch.testing.assert_close(A_hat @ d.sqrt(), d.sqrt(), **EXACT)  # the eigenvalue 1
    spectrum = torch.linalg.eigvalsh(A_hat)
    assert spectrum.max() <= 1 + 1e-12
    assert spectrum.min() >= -1 + 2 / d.max() - 1e-12
    projection = torch.outer(d.sqrt(), d.sqrt()) / d.sum()
    torch.testing.assert_close(torch.linalg.matrix_power(A_hat, 2000), projection, rtol=0, atol=1e-8)

    tree = torch.zeros_like(A)  # bipartite, as every tree is
    for i in range(1, 12):
        tree[i, (i - 1) // 2] = tree[(i - 1) // 2, i] = 1
    assert torch.linalg.eigvalsh(normalised(tree)).min() == pytest.approx(-1, abs=1e-12)
    assert torch.linalg.eigvalsh(normalised(tree + one)).min() > -1 + 1e-3


@pytest.mark.parametrize("num_layers", [1, 2, 3, 4])
def test_jacobian_is_zero_beyond_L_hops(num_layers):
    A = random_graph(16, seed=3)
    hops = hops_of(A)
    assert torch.equal(hops, torch.stack([distances(sparse(A), node) for node in range(16)]))
    assert hops.max() > num_layers
    A_hat, sizes = normalised(A + torch.eye(16)), [3] + [4] * num_layers
    weights = [random_numbers(d, n, seed=d + n).abs() for d, n in pairwise(sizes)]  # positive: no path cancels another

    def network(H):
        for W in weights:
            H = torch.relu(A_hat @ H @ W)
        return H

    jacobian = torch.autograd.functional.jacobian(network, random_numbers(16, 3).abs())  # (16, 4, 16, 3)
    influence = jacobian.abs().sum(dim=(1, 3))
    assert (influence[hops > num_layers] == 0).all()
    assert (influence[hops <= num_layers] > 0).all()

    model = GCN(sizes, generator=torch.Generator().manual_seed(0)).double().eval()
    own = torch.autograd.functional.jacobian(
        lambda H: model(normalise(add_self_loops(sparse(A))), H), random_numbers(16, 3)
    )
    assert (own.abs().sum(dim=(1, 3))[hops > num_layers] == 0).all()


def test_jacobian_of_a_linear_network_adds_up_walks():
    A, L = random_graph(seed=4), 3
    A_hat = normalised(A + torch.eye(12))
    weights = [random_numbers(4, 4, seed=seed) for seed in range(L)]

    def network(H):
        for W in weights:
            H = A_hat @ H @ W
        return H

    jacobian = torch.autograd.functional.jacobian(network, random_numbers(12, 4))  # (i, output, k, input)
    walks = torch.linalg.matrix_power(A_hat, L)
    product = (weights[0] @ weights[1] @ weights[2]).t()
    torch.testing.assert_close(jacobian, torch.einsum("ik,oc->iokc", walks, product), **EXACT)
    assert torch.equal(walks > 0, hops_of(A) <= L)


@pytest.mark.parametrize("L", [1, 2, 5, 9])
def test_on_a_chain_L_hops_weigh_three_to_the_minus_L(L):
    n, start = 2 * L + 6, L
    chain = torch.diag(torch.ones(n - 1, dtype=torch.float64), 1)
    A_hat = normalised(chain + chain.t() + torch.eye(n))
    walks = torch.linalg.matrix_power(A_hat, L)
    torch.testing.assert_close(walks[start, start + L], torch.tensor(3.0**-L, dtype=torch.float64), rtol=1e-12, atol=0)
    assert walks[start, start + L + 1] == 0


SIX_2019 = "AB AE AF BC BD CD DF EF".split()  # the drawn graph of UvA November 2019
SIX_2020 = "AB AE AF BD CD DF".split()


def drawn(edges, names):
    """The dense adjacency of a graph of named nodes."""
    return adjacency([(names.index(a), names.index(b)) for a, b in edges], len(names), torch.float64).to_dense()


@pytest.mark.parametrize(
    ("edges", "rows", "updates"),
    [
        (SIX_2019, ["110011", "111100", "011100", "011101", "100011", "100111"], 3),
        (SIX_2020, ["110011", "110100", "001100", "011101", "100010", "100101"], 4),
    ],
)
def test_updates_until_C_is_heard_at_E(edges, rows, updates):
    A = drawn(edges, "ABCDEF")
    A_tilde = A + torch.eye(6)
    assert A_tilde.tolist() == [[float(entry) for entry in row] for row in rows]
    assert distances(sparse(A), 2)[4] == updates
    heard = [torch.linalg.matrix_power(A_tilde, l)[4, 2].item() for l in range(1, updates + 2)]  # noqa: E741
    assert heard[: updates - 1] == [0] * (updates - 1) and heard[updates - 1] == 2 and heard[updates] > 0
    jacobian = torch.autograd.functional.jacobian(
        lambda H: torch.linalg.matrix_power(normalised(A_tilde), updates) @ H, random_numbers(6, 1)
    )
    assert jacobian[4, 0, 2, 0] > 0


def test_the_two_drawn_graphs_of_2025():
    first, second = drawn("12 13 15 23 34".split(), "12345"), drawn("12 13 14 23 34".split(), "1234")
    rows = [[0, 1, 1, 0, 1], [1, 0, 1, 0, 0], [1, 1, 0, 1, 0], [0, 0, 1, 0, 0], [1, 0, 0, 0, 0]]
    assert first.tolist() == rows
    assert second.tolist() == [[0, 1, 1, 1], [1, 0, 1, 0], [1, 1, 0, 1], [1, 0, 1, 0]]
    squared = [[3, 1, 1, 1, 0], [1, 2, 1, 1, 1], [1, 1, 3, 0, 1], [1, 1, 0, 1, 0], [0, 1, 1, 0, 1]]
    assert (first @ first).tolist() == squared
    L = [[3, -1, -1, -1], [-1, 2, -1, 0], [-1, -1, 3, -1], [-1, 0, -1, 2]]
    assert laplacian(sparse(second)).to_dense().tolist() == L


@pytest.mark.parametrize("A", [drawn("12 13 15 23 34".split(), "12345"), random_graph(7, seed=1)])
@pytest.mark.parametrize("n", [1, 2, 3, 4])
def test_entries_of_powers_count_walks(A, n):
    counts = torch.zeros_like(A)
    for walk in product(range(len(A)), repeat=n + 1):
        counts[walk[-1], walk[0]] += all(A[v, u] for u, v in pairwise(walk))
    assert torch.equal(torch.linalg.matrix_power(A, n), counts)
    if n == 2:
        assert torch.equal(counts.diagonal(), A.sum(1))


def test_the_laplacian_compares_a_node_with_its_neighbours():
    A, X = random_graph(), random_numbers(12, 3)
    F = laplacian(sparse(A)) @ X
    for v in range(12):
        neighbours = A[v].nonzero()[:, 0].tolist()
        differences = torch.stack([X[v] - X[u] for u in neighbours])
        torch.testing.assert_close(F[v], differences.sum(0), **EXACT)
        torch.testing.assert_close(F[v], len(neighbours) * (X[v] - X[neighbours].mean(0)), **EXACT)
        assert F[v].norm() <= len(neighbours) * differences.norm(dim=1).max() + 1e-12
    energy = 0.5 * sum(A[u, v] * (X[u] - X[v]).square().sum() for u in range(12) for v in range(12))
    torch.testing.assert_close((X * F).sum(), energy, **EXACT)
    assert torch.linalg.eigvalsh(laplacian(sparse(A)).to_dense()).max() <= 2 * A.sum(1).max()


@pytest.mark.parametrize("A", [drawn("12 13 14 23 34".split(), "1234"), random_graph(7, seed=1)])
def test_under_random_features_the_degree_decides(A):
    """E‖F_v‖² of independent features with mean 0 and variance s² is s² times the squared length of row v of L."""
    L, d = laplacian(sparse(A)).to_dense(), A.sum(1)
    assert torch.equal(L.square().sum(1), d.square() + d)
    X = 2 * random_numbers(len(A), 200_000)
    torch.testing.assert_close((L @ X).square().mean(1), 4 * (d.square() + d), rtol=0.02, atol=0)


def test_for_some_features_node_2_changes_most():
    L = laplacian(sparse(drawn("12 13 14 23 34".split(), "1234")))
    assert (L @ torch.eye(4, dtype=torch.float64)[:, 1:2]).flatten().tolist() == [-1, 2, -1, 0]


def test_without_a_residual_all_nodes_point_one_way():
    A, X = random_graph(), random_numbers(12, 5)
    d, A_hat = A.sum(1) + 1, normalised(A + torch.eye(12))
    smoothed = torch.linalg.matrix_power(A_hat, 2000) @ X
    limit = torch.outer(d.sqrt(), d.sqrt() @ X) / d.sum()
    torch.testing.assert_close(smoothed, limit, rtol=0, atol=1e-8)
    directions = torch.nn.functional.normalize(smoothed, dim=1)
    torch.testing.assert_close(directions @ directions.t(), torch.ones(12, 12, dtype=torch.float64), rtol=0, atol=1e-8)


def test_an_initial_residual_keeps_nodes_apart():
    A, X, alpha = random_graph(), random_numbers(12, 5), 0.1
    A_hat, one, H = normalised(A + torch.eye(12)), torch.eye(12, dtype=torch.float64), random_numbers(12, 5)
    for _ in range(2000):
        H = (1 - alpha) * A_hat @ H + alpha * X
    limit = alpha * torch.linalg.solve(one - (1 - alpha) * A_hat, X)
    torch.testing.assert_close(H, limit, rtol=0, atol=1e-10)
    assert torch.linalg.matrix_rank(limit) == 5

    model = GCNII(5, 5, 2, num_layers=300, lam=0, generator=torch.Generator().manual_seed(0)).double().eval()
    H_0 = torch.relu(X @ model.W_in)  # with λ = 0 no layer has weights
    limit = alpha * torch.linalg.solve(one - (1 - alpha) * A_hat, H_0)
    torch.testing.assert_close(model.embed(normalise(add_self_loops(sparse(A))), X), limit, rtol=0, atol=1e-10)


def test_sampling_neighbours_keeps_the_mean_and_bounds_the_nodes():
    A, H, S = random_graph(), random_numbers(12, 5), 2
    neighbours = A[A.sum(1).argmax()].nonzero()[:, 0].tolist()
    assert len(neighbours) > S
    means = torch.stack([H[list(sample)].mean(0) for sample in combinations(neighbours, S)])  # all equally likely
    torch.testing.assert_close(means.mean(0), H[neighbours].mean(0), **EXACT)
    assert not torch.allclose(torch.relu(means).mean(0), torch.relu(H[neighbours].mean(0)))

    N, S, L, generator = 200, 3, 2, torch.Generator().manual_seed(0)
    read = {0}
    for _ in range(L):  # in the complete graph one layer would read all N
        samples = [torch.randperm(N, generator=generator)[:S].tolist() for _ in read]
        read |= {u for sample in samples for u in sample}
    assert len(read) <= (1 + S) ** L < N


@pytest.mark.parametrize(("offsets", "alike"), [((4,), 3), ((1,), 2), ((1, 6), 2), ((1, 2), 2), ((2,), 1), ((2, 6), 1)])
def test_what_averaging_does_to_signal_and_noise(offsets, alike):
    """On a circle of 12 with labels + + - - + + ..., each node joined to those `offsets` away."""
    y, A = torch.tensor([1.0, 1, -1, -1] * 3, dtype=torch.float64), torch.zeros(12, 12, dtype=torch.float64)
    for i, k in product(range(12), offsets):
        A[i, (i + k) % 12] = A[i, (i - k) % 12] = 1
    A_tilde = A + torch.eye(12)
    d = len(A_tilde[0].nonzero())
    assert ((A_tilde > 0) & (y[:, None] == y)).sum(1).tolist() == [alike] * 12
    A_hat, p = normalised(A_tilde), alike / d
    torch.testing.assert_close(A_hat @ y, (2 * p - 1) * y, **EXACT)  # the signal
    torch.testing.assert_close(A_hat.square().sum(1), torch.ones(12, dtype=torch.float64) / d, **EXACT)  # variance
    noise = A_hat @ random_numbers(12, 100_000)
    torch.testing.assert_close(noise.std(1), torch.full((12,), d**-0.5, dtype=torch.float64), rtol=0.02, atol=0)


def convolution_example():
    """A directed graph as a dense matrix and as edges, node 11 without neighbours; H, W, B."""
    A = (random_numbers(12, 12, seed=3) > 0.8).double()
    A[11] = 0
    receiver, sender = A.nonzero().t()
    return A, torch.stack([sender, receiver]), *(random_numbers(*shape, seed=1) for shape in ((12, 5), (3, 5), (3, 5)))


def test_matrix_form_of_the_mean_convolution():
    A, edge_index, H, W, B = convolution_example()
    h_next = []
    for v in range(12):
        neighbours = [u for u in range(12) if A[v, u]]
        mean = sum(H[u] for u in neighbours) / len(neighbours) if neighbours else torch.zeros_like(H[v])
        h_next.append(torch.tanh(W @ mean + B @ H[v]))
        torch.testing.assert_close((A @ H)[v], sum((H[u] for u in neighbours), torch.zeros_like(H[v])), **EXACT)
    D_inverse = torch.diag(1 / A.sum(1).clamp(min=1))
    torch.testing.assert_close(torch.tanh(D_inverse @ A @ H @ W.t() + H @ B.t()), torch.stack(h_next), **EXACT)
    for Layer in (MatrixGraphConvolution, MessageGraphConvolution):
        layer = Layer(5, 3).double()
        layer.W.data, layer.B.data = W, B
        torch.testing.assert_close(torch.tanh(layer(H, edge_index)).detach(), torch.stack(h_next), **EXACT)


def test_only_B_lets_a_node_hear_itself():
    _A, edge_index, H, W, B = convolution_example()
    edge_index = edge_index[:, edge_index[0] != edge_index[1]]
    layer = MessageGraphConvolution(5, 3).double()
    layer.W.data = W
    for own in (0 * B, B):
        layer.B.data = own
        jacobian = torch.autograd.functional.jacobian(lambda H: layer(H, edge_index), H)
        for v in range(12):
            torch.testing.assert_close(jacobian[v, :, v], own, **EXACT)
    torch.testing.assert_close(layer(H, edge_index)[11], B @ H[11], **EXACT)


def test_attention_over_all_nodes_does_not_see_the_edges():
    A, H = random_graph(), random_numbers(12, 5)
    H[1] = H[0]
    assert not torch.equal(A[0], A[1])
    layer = GraphAttention(5, 3, torch.Generator().manual_seed(0)).double()
    everyone = layer(H, torch.cartesian_prod(torch.arange(12), torch.arange(12)).t())
    torch.testing.assert_close(everyone[0], everyone[1], **EXACT)
    along_edges = layer(H, A.nonzero().t())
    assert not torch.allclose(along_edges[0], along_edges[1])


@pytest.mark.parametrize("n", [3, 4, 7])
def test_adjacency_of_the_circle(n):
    A = torch.tensor([[float((j - i) % n in (1, n - 1)) for j in range(n)] for i in range(n)])
    assert torch.equal(circle(n).to_dense(), A)
    for i in range(1, n):
        assert torch.equal(A[i], A[i - 1].roll(1))  # the row above, moved one place to the right
    assert A[0, n - 1] == A[n - 1, 0] == 1
    assert A.diagonal(1).sum() == A.diagonal(-1).sum() == n - 1


def theta_of(layer, n):
    minus, zero, plus = layer.w.detach()
    return torch.cat([torch.stack([zero, plus]), torch.zeros(n - 3, dtype=torch.float64), minus[None]])


def test_phi_of_the_circulant_layer():
    n, layer = 7, CirculantLayer(torch.Generator().manual_seed(0)).double()
    minus, zero, plus = layer.w.detach()
    H, theta = random_numbers(n, 3), theta_of(layer, 7)
    C = torch.stack([torch.stack([theta[(j - i) % n] for j in range(n)]) for i in range(n)])
    phi = torch.stack([minus * H[(i - 1) % n] + zero * H[i] + plus * H[(i + 1) % n] for i in range(n)])
    torch.testing.assert_close(C @ H, phi, **EXACT)
    torch.testing.assert_close(layer(H).detach(), phi, **EXACT)
    assert torch.equal(circulant(theta), C)


def test_circulant_is_a_cross_correlation():
    n, theta, x = 8, random_numbers(8), random_numbers(8, seed=1)
    correlation = torch.stack([sum(theta[k] * x[(i + k) % n] for k in range(n)) for i in range(n)])
    reversed_theta = torch.stack([theta[-k % n] for k in range(n)])
    convolution = torch.stack([sum(reversed_theta[k] * x[(i - k) % n] for k in range(n)) for i in range(n)])
    torch.testing.assert_close(circulant(theta) @ x, correlation, **EXACT)
    torch.testing.assert_close(convolution, correlation, **EXACT)


def test_shift_and_polynomials_in_it():
    n, theta, x = 6, random_numbers(6), random_numbers(6, seed=1)
    S = circulant(torch.eye(n, dtype=torch.float64)[1])
    assert torch.equal(S @ x, torch.cat([x[1:], x[:1]]))
    polynomial = sum(theta[k] * torch.linalg.matrix_power(S, k) for k in range(n))
    torch.testing.assert_close(polynomial, circulant(theta), **EXACT)


@pytest.mark.parametrize("n", [3, 4, 7])
def test_reflections_need_a_symmetric_filter(n):
    one, (w_0, w_1) = torch.eye(n, dtype=torch.float64), random_numbers(2)
    R, rotation = one[[-i % n for i in range(n)]], one.roll(1, dims=0)
    theta = torch.zeros(n, dtype=torch.float64)
    theta[0], theta[1], theta[-1] = w_0, w_1, w_1 + 1
    C = circulant(theta)
    torch.testing.assert_close(R @ C @ R, C.t(), **EXACT)
    torch.testing.assert_close(rotation @ C, C @ rotation, **EXACT)
    assert not torch.allclose(R @ C, C @ R)
    theta[-1] = w_1
    C = circulant(theta)
    torch.testing.assert_close(R @ C, C @ R, **EXACT)
    torch.testing.assert_close(C, w_0 * one + w_1 * circle(n).to_dense().double(), **EXACT)


def fourier(n):
    """Phi as printed, entry by entry."""
    omega = complex(math.cos(2 * math.pi / n), math.sin(2 * math.pi / n))
    return torch.tensor([[omega ** (u * k) / math.sqrt(n) for k in range(n)] for u in range(n)], dtype=torch.complex128)


@pytest.mark.parametrize("n", [3, 4, 7, 16])
def test_convolution_theorem(n):
    Phi, theta, x = fourier(n), random_numbers(n).to(torch.complex128), random_numbers(n, seed=1).to(torch.complex128)
    torch.testing.assert_close(Phi, dft_matrix(n), **EXACT)
    torch.testing.assert_close(Phi.conj().t() @ Phi, torch.eye(n, dtype=torch.complex128), **EXACT)
    torch.testing.assert_close(Phi, Phi.t(), **EXACT)
    x_hat, theta_hat = Phi.conj().t() @ x, Phi.conj().t() @ theta
    torch.testing.assert_close(x_hat, torch.fft.fft(x, norm="ortho"), **EXACT)  # equation 25
    lam = math.sqrt(n) * Phi @ theta
    C = circulant(theta)
    torch.testing.assert_close(Phi @ (lam * x_hat), C @ x, **EXACT)
    torch.testing.assert_close(Phi @ torch.diag(lam) @ Phi.conj().t(), C, **EXACT)
    torch.testing.assert_close(lam, math.sqrt(n) * theta_hat.conj(), **EXACT)  # theta is real
    torch.testing.assert_close(Phi @ (math.sqrt(n) * theta_hat * x_hat), C.t() @ x, **EXACT)
    for printed in (Phi @ (x_hat * theta_hat), (Phi @ x_hat) * theta_hat, Phi @ (math.sqrt(n) * theta_hat * x_hat)):
        assert not torch.allclose(printed, C @ x)


@pytest.mark.parametrize("n", [3, 4, 7, 16])
def test_fourier_basis_diagonalises_every_circulant(n):
    Phi, theta = fourier(n), random_numbers(n)
    omega = Phi[1, 1] * math.sqrt(n)
    C = circulant(theta).to(torch.complex128)
    for k in range(n):
        eigenvalue = sum(theta[m] * omega ** (m * k) for m in range(n))
        torch.testing.assert_close(C @ Phi[:, k], eigenvalue * Phi[:, k], **EXACT)
        torch.testing.assert_close(eigenvalue, eigenvalues(theta)[k], **EXACT)
    shift = torch.eye(n, dtype=torch.float64)[1]
    torch.testing.assert_close(eigenvalues(shift), torch.stack([omega**k for k in range(n)]), **EXACT)
    theta_hat = Phi.conj().t() @ shift.to(torch.complex128)
    torch.testing.assert_close(theta_hat, torch.stack([omega ** (-k) / math.sqrt(n) for k in range(n)]), **EXACT)


def test_only_circulants_commute_with_the_shift():
    n, theta, eta = 6, random_numbers(6), random_numbers(6, seed=1)
    torch.testing.assert_close(circulant(theta) @ circulant(eta), circulant(eta) @ circulant(theta), **EXACT)
    S, one = circulant(torch.eye(n, dtype=torch.float64)[1]), torch.eye(n, dtype=torch.float64)
    torch.testing.assert_close(circulant(theta) @ S, S @ circulant(theta), **EXACT)
    commutator = torch.kron(S, one) - torch.kron(one, S.t().contiguous())  # of vec(S M - M S)
    assert torch.linalg.matrix_rank(commutator) == n * n - n  # as many solutions as there are circulants


def test_polynomial_filters():
    B = random_graph(14, seed=5)
    laplacian = torch.eye(14, dtype=torch.float64) - normalised(B)
    Lambda, U = torch.linalg.eigh(laplacian)
    a = random_numbers(4, seed=2)  # a polynomial of degree 3
    spectral = U @ torch.diag(sum(a[k] * Lambda**k for k in range(4))) @ U.t()
    polynomial = sum(a[k] * torch.linalg.matrix_power(laplacian, k) for k in range(4))
    torch.testing.assert_close(spectral, polynomial, rtol=0, atol=1e-10)
    assert (hops_of(B) > 3).any()
    assert (polynomial[hops_of(B) > 3] == 0).all()
    first_order = U @ torch.diag(2 - Lambda) @ U.t()
    torch.testing.assert_close(first_order, torch.eye(14) + normalised(B), rtol=0, atol=1e-10)


def attention(A, H, W, a_r, a_s, activation=torch.nn.functional.leaky_relu, slope=0.2):
    """e_ij, alpha_ij and the sum, as printed, node by node; zeros stand where there is no edge."""
    N, alpha = len(A), torch.zeros_like(A)
    for i in range(N):
        neighbours = [j for j in range(N) if A[i, j] or i == j]
        e = torch.stack([activation(a_r @ W.t() @ H[i] + a_s @ W.t() @ H[j], slope) for j in neighbours])
        alpha[i, neighbours] = e.exp() / e.exp().sum()
    return alpha, torch.stack([sum(alpha[i, j] * W.t() @ H[j] for j in range(N)) for i in range(N)])


def attention_example():
    """A, H, W, a_r, a_s."""
    shapes = ((12, 5), (5, 3), (3,), (3,))
    return random_graph(), *(random_numbers(*shape, seed=seed) for seed, shape in enumerate(shapes))


def test_attention_layer_as_printed():
    A, H, *_ = attention_example()
    for concatenate in (True, False):
        layer = GATLayer(5, 3, heads=2, concatenate=concatenate, generator=torch.Generator().manual_seed(0)).double()
        W, a_r, a_s = layer.W.detach(), layer.a_receiver.detach(), layer.a_sender.detach()
        heads = [attention(A, H, W[:, 3 * k : 3 * k + 3], a_r[k], a_s[k])[1] for k in range(2)]
        expected = torch.cat(heads, dim=1) if concatenate else torch.stack(heads).mean(dim=0)
        torch.testing.assert_close(layer(add_self_loops(sparse(A)), H).detach(), expected, **EXACT)
    alpha, _ = attention(*attention_example())
    assert (alpha >= 0).all()
    torch.testing.assert_close(alpha.sum(1), torch.ones(12, dtype=torch.float64), **EXACT)


def test_without_the_leaky_relu_the_listener_has_no_say():
    A, H, W, a_r, a_s = attention_example()
    other = random_numbers(3, seed=9)
    linear, changed = (attention(A, H, W, a, a_s, activation=lambda score, _: score)[0] for a in (a_r, other))
    torch.testing.assert_close(linear, changed, **EXACT)
    assert not torch.allclose(attention(A, H, W, a_r, a_s)[0], attention(A, H, W, other, a_s)[0])


def test_attention_is_permutation_equivariant():
    A, H, W, a_r, a_s = attention_example()
    P = torch.eye(12, dtype=torch.float64)[torch.randperm(12, generator=torch.Generator().manual_seed(0))]
    alpha, output = attention(A, H, W, a_r, a_s)
    alpha_after, output_after = attention(P @ A @ P.t(), P @ H, W, a_r, a_s)
    torch.testing.assert_close(alpha_after, P @ alpha @ P.t(), **EXACT)
    torch.testing.assert_close(output_after, P @ output, **EXACT)
    layer = GATLayer(5, 3, heads=2, generator=torch.Generator().manual_seed(0)).double()
    own, own_after = (layer(add_self_loops(sparse(B)), X) for B, X in ((A, H), (P @ A @ P.t(), P @ H)))
    torch.testing.assert_close(own_after, P @ own, **EXACT)


def test_attention_without_scores_is_the_mean():
    A, H, W, a_r, a_s = attention_example()
    A_tilde = A + torch.eye(12)
    alpha, output = attention(A, H, W, 0 * a_r, 0 * a_s)
    torch.testing.assert_close(alpha, A_tilde / A_tilde.sum(1, keepdim=True), **EXACT)
    torch.testing.assert_close(output, alpha @ H @ W, **EXACT)


def test_all_listeners_rank_speakers_alike():
    _A, H, W, a_r, a_s = attention_example()
    alpha, _ = attention(torch.ones(12, 12, dtype=torch.float64), H, W, a_r, a_s)
    rankings = alpha.argsort(dim=1)
    assert torch.equal(rankings, rankings[:1].expand(12, 12))
    assert not torch.allclose(alpha[0], alpha[1])


def test_a_chain_read_backwards_is_the_same_graph():
    chain = torch.diag(torch.ones(5, dtype=torch.float64), 1)
    A_hat, H = normalised(chain + chain.t() + torch.eye(6)), random_numbers(6, 4)
    weights = [random_numbers(4, 4, seed=1), random_numbers(4, 4, seed=2)]

    def pooled(X):
        for W in weights:
            X = torch.relu(A_hat @ X @ W)
        return X.sum(0)

    torch.testing.assert_close(pooled(H.flip(0)), pooled(H), **EXACT)
    same_words_in_another_order = H[torch.tensor([1, 0, 2, 3, 4, 5])]
    assert not torch.allclose(pooled(same_words_in_another_order), pooled(H))
