// One step of the LSTM's element-wise part, forward and backward, each in one pass over memory (see lstm_kernel.py).
//
// All tensors are contiguous. gates, their pre-activations a and d_a are (B, 4n), g, i, f, o side by side, of type gate_t, as are
// h and d_h, (B, n); gates may share the memory of a, and d_a that of gates. c, c_before and d_c are (B, n) of type cell_t, in
// which everything is computed. Names and equations are those of bptt.py.

#include <ATen/ATen.h>
#include <ATen/Parallel.h>
#include <ATen/cpu/vec/vec.h>
#include <torch/library.h>

namespace {

using at::BFloat16;
using at::Tensor;
template <typename T> using Vector = at::vec::Vectorized<T>;

// The first k elements at p, and k elements back to p; bfloat16 is computed with in float32.
template <typename V, typename T> V load(const T* p, int64_t k) { return V::loadu(p, k); }
template <typename V, typename T> void store(T* p, const V& v, int64_t k) { v.store(p, k); }

template <> Vector<float> load<Vector<float>, BFloat16>(const BFloat16* p, int64_t k) {
  return std::get<0>(at::vec::convert_bfloat16_float(Vector<BFloat16>::loadu(p, k)));
}
template <> void store<Vector<float>, BFloat16>(BFloat16* p, const Vector<float>& v, int64_t k) {
  at::vec::convert_float_bfloat16(v, v).store(p, k);
}

template <typename V> V sigmoid(const V& a) { return V(1) / (V(1) + a.neg().exp()); }
template <typename V> V tanh(const V& a) { return V(2) * sigmoid(V(2) * a) - V(1); }  // a quarter of the time of a.tanh()

// Calls body(b, j, k) for units j ... j+k-1 of sequence b, k at most a vector's size.
template <typename V, typename Body> void for_all_units(int64_t B, int64_t n, const Body& body) {
  at::parallel_for(0, B, 1 + 4096 / (n + 1), [&](int64_t begin, int64_t end) {
    for (int64_t b = begin; b < end; b++)
      for (int64_t j = 0; j < n; j += V::size()) body(b, j, std::min<int64_t>(V::size(), n - j));
  });
}

template <typename gate_t, typename cell_t>
void step(const Tensor& a, const Tensor& c_before, Tensor& gates, Tensor& c, Tensor& h) {
  using V = Vector<cell_t>;
  const int64_t n = c.size(1);
  const auto* const A = a.const_data_ptr<gate_t>();
  auto* const Y = gates.data_ptr<gate_t>();
  const auto* const C_before = c_before.const_data_ptr<cell_t>();
  auto* const C = c.data_ptr<cell_t>();
  auto* const H = h.data_ptr<gate_t>();
  for_all_units<V>(c.size(0), n, [&](int64_t b, int64_t j, int64_t k) {
    const int64_t at = b * n + j, at_gates = 4 * b * n + j;
    const gate_t* const a_at = A + at_gates;
    gate_t* const y_at = Y + at_gates;
    const V g = tanh(load<V>(a_at, k));                   // (4)
    const V i = sigmoid(load<V>(a_at + n, k));            // (5)
    const V f = sigmoid(load<V>(a_at + 2 * n, k));        // (6)
    const V o = sigmoid(load<V>(a_at + 3 * n, k));        // (7)
    const V c_t = g * i + load<V>(C_before + at, k) * f;  // (8)
    store(C + at, c_t, k);
    store(H + at, tanh(c_t) * o, k);                      // (9)
    store(y_at, g, k), store(y_at + n, i, k), store(y_at + 2 * n, f, k), store(y_at + 3 * n, o, k);
  });
}

template <typename gate_t, typename cell_t>
void step_back(const Tensor& gates, const Tensor& c_before, const Tensor& c, const Tensor& d_h, Tensor& d_c, Tensor& d_a) {
  using V = Vector<cell_t>;
  const int64_t n = c.size(1);
  const auto* const Y = gates.const_data_ptr<gate_t>();
  const auto* const C_before = c_before.const_data_ptr<cell_t>();
  const auto* const C = c.const_data_ptr<cell_t>();
  const auto* const D_h = d_h.const_data_ptr<gate_t>();
  auto* const D_c = d_c.data_ptr<cell_t>();
  auto* const D_a = d_a.data_ptr<gate_t>();
  const V one(1);
  for_all_units<V>(c.size(0), n, [&](int64_t b, int64_t j, int64_t k) {
    const int64_t at = b * n + j, at_gates = 4 * b * n + j;
    const gate_t* const y_at = Y + at_gates;
    gate_t* const d_at = D_a + at_gates;
    const V g = load<V>(y_at, k), i = load<V>(y_at + n, k), f = load<V>(y_at + 2 * n, k), o = load<V>(y_at + 3 * n, k);
    const V dh = load<V>(D_h + at, k), tanh_c = tanh(load<V>(C + at, k));
    const V dc = load<V>(D_c + at, k) + dh * o * (one - tanh_c * tanh_c);
    store(d_at, dc * i * (one - g * g), k);
    store(d_at + n, dc * g * i * (one - i), k);
    store(d_at + 2 * n, dc * load<V>(C_before + at, k) * f * (one - f), k);
    store(d_at + 3 * n, dh * tanh_c * o * (one - o), k);
    store(D_c + at, dc * f, k);
  });
}

template <typename Run> void with_types(const Tensor& gates, const Run& run) {
  switch (gates.scalar_type()) {
    case at::kFloat: return run(float(), float());
    case at::kDouble: return run(double(), double());
    case at::kBFloat16: return run(BFloat16(), float());
    default: TORCH_CHECK(false, "no kernel for ", gates.scalar_type());
  }
}

void forward(const Tensor& a, const Tensor& c_before, Tensor gates, Tensor c, Tensor h) {
  with_types(gates, [&](auto gate, auto cell) { step<decltype(gate), decltype(cell)>(a, c_before, gates, c, h); });
}

void backward(const Tensor& gates, const Tensor& c_before, const Tensor& c, const Tensor& d_h, Tensor d_c, Tensor d_a) {
  with_types(gates, [&](auto gate, auto cell) {
    step_back<decltype(gate), decltype(cell)>(gates, c_before, c, d_h, d_c, d_a);
  });
}

}  // namespace

TORCH_LIBRARY(lstm_cell, m) {
  m.def("forward(Tensor a, Tensor c_before, Tensor(a!) gates, Tensor(b!) c, Tensor(c!) h) -> ()", &forward);
  m.def("backward(Tensor gates, Tensor c_before, Tensor c, Tensor d_h, Tensor(a!) d_c, Tensor(b!) d_a) -> ()", &backward);
}
