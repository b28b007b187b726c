// The LSTM's recurrence over a whole sequence, forward and backward (see kernel.py).
//
// All tensors are contiguous. gates, their pre-activations a and d_a are (T, B, 4n), g, i, f, o side by side, of type gate_t, as
// are h, (T+1, B, n) from h(0) on, and d_h; gates may share the memory of a, and d_a that of gates. c, (T+1, B, n), and d_c are
// of type cell_t, in which everything but the products is computed. Names and equations are those of lstm.py.

#include <ATen/ATen.h>
#include <ATen/Parallel.h>
#include <ATen/core/LegacyTypeDispatch.h>
#include <ATen/core/dispatch/Dispatcher.h>
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
void step(int64_t B, int64_t n, const gate_t* a, const cell_t* c_before, gate_t* gates, cell_t* c, gate_t* h) {
  using V = Vector<cell_t>;
  for_all_units<V>(B, n, [=](int64_t b, int64_t j, int64_t k) {
    const int64_t at = b * n + j, at_gates = 4 * b * n + j;
    const gate_t* const a_at = a + at_gates;
    gate_t* const y_at = gates + at_gates;
    const V g = tanh(load<V>(a_at, k));                   // (4)
    const V i = sigmoid(load<V>(a_at + n, k));            // (5)
    const V f = sigmoid(load<V>(a_at + 2 * n, k));        // (6)
    const V o = sigmoid(load<V>(a_at + 3 * n, k));        // (7)
    const V c_t = g * i + load<V>(c_before + at, k) * f;  // (8)
    store(c + at, c_t, k);
    store(h + at, tanh(c_t) * o, k);                      // (9)
    store(y_at, g, k), store(y_at + n, i, k), store(y_at + 2 * n, f, k), store(y_at + 3 * n, o, k);
  });
}

template <typename gate_t, typename cell_t>
void step_back(
    int64_t B, int64_t n, const gate_t* gates, const cell_t* c_before, const cell_t* c, const gate_t* d_h, cell_t* d_c,
    gate_t* d_a) {
  using V = Vector<cell_t>;
  const V one(1);
  for_all_units<V>(B, n, [=](int64_t b, int64_t j, int64_t k) {
    const int64_t at = b * n + j, at_gates = 4 * b * n + j;
    const gate_t* const y_at = gates + at_gates;
    gate_t* const d_at = d_a + at_gates;
    const V g = load<V>(y_at, k), i = load<V>(y_at + n, k), f = load<V>(y_at + 2 * n, k), o = load<V>(y_at + 3 * n, k);
    const V dh = load<V>(d_h + at, k), tanh_c = tanh(load<V>(c + at, k));
    const V dc = load<V>(d_c + at, k) + dh * o * (one - tanh_c * tanh_c);
    store(d_at, dc * i * (one - g * g), k);
    store(d_at + n, dc * g * i * (one - i), k);
    store(d_at + 2 * n, dc * load<V>(c_before + at, k) * f * (one - f), k);
    store(d_at + 3 * n, dh * tanh_c * o * (one - o), k);
    store(d_c + at, dc * f, k);
  });
}

// y + x W, which may take the memory of y; W is dense or in oneDNN's layout.
Tensor plus_product(const Tensor& y, const Tensor& x, const Tensor& W) {
  if (!W.is_mkldnn()) return y.addmm_(x, W);
  static const auto linear = c10::Dispatcher::singleton().findSchemaOrThrow("mkldnn::_linear_pointwise", "binary");
  std::vector<c10::IValue> arguments{x, y, W, c10::IValue(), "add"};
  linear.callBoxed(arguments);
  return arguments[0].toTensor();
}

// Some sequences of the batch: their rows of x[t], as a tensor and where they begin.
struct Share {
  int64_t begin, size;
  Tensor rows(const Tensor& x, int64_t t) const { return x.select(0, t).narrow(0, begin, size); }
  template <typename T> T* at(const Tensor& x, int64_t t) const {
    return x.data_ptr<T>() + (t * x.size(1) + begin) * x.size(2);
  }
};

// Calls body(share). Each thread takes its share of the sequences through all steps: it waits for nobody, and finds in its
// cache what its last step has left there. Where the shares would be small, or the weights, which then every thread reads, do
// not fit into a cache, all threads work on the same step instead.
template <typename Body> void for_shares(int64_t B, const Tensor& W, const Body& body) {
  const bool split = B >= 16 * at::get_num_threads() && W.numel() <= 1 << 21;
  at::parallel_for(0, B, split ? 1 : B, [&](int64_t begin, int64_t end) {
    at::AutoDispatchBelowAutograd nothing_to_record;
    body(Share{begin, end - begin});
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

// W is W_h^T. The first product is that of step `first` (1 where h(0) is zero). gates holds z at first, h and c their index 0.
void forward(const Tensor& gates, const Tensor& c, const Tensor& h, const Tensor& W, int64_t first) {
  with_types(gates, [&](auto gate, auto cell) {
    using gate_t = decltype(gate);
    using cell_t = decltype(cell);
    for_shares(gates.size(1), W, [&](const Share& share) {
      for (int64_t t = 0; t < gates.size(0); t++) {
        const Tensor z_t = share.rows(gates, t), a = t < first ? z_t : plus_product(z_t, share.rows(h, t), W);
        step(
            share.size, h.size(2), a.const_data_ptr<gate_t>(), share.at<cell_t>(c, t), z_t.data_ptr<gate_t>(),
            share.at<cell_t>(c, t + 1), share.at<gate_t>(h, t + 1));
      }
    });
  });
}

// W is W_h. d_c, (1, B, n), holds the gradient of c(T) at first, and in the end that of c(0); d_h_0, (1, B, n), that of h(0).
void backward(
    const Tensor& gates, const Tensor& c, const Tensor& grad_h, const Tensor& d_c, const Tensor& d_h_0, const Tensor& d_a,
    const Tensor& W, int64_t first) {
  with_types(gates, [&](auto gate, auto cell) {
    using gate_t = decltype(gate);
    using cell_t = decltype(cell);
    for_shares(gates.size(1), W, [&](const Share& share) {
      const int64_t T = gates.size(0);
      Tensor d_h = share.rows(grad_h, T - 1).contiguous();
      for (int64_t t = T - 1; t >= 0; t--) {
        step_back(
            share.size, d_h.size(1), share.at<gate_t>(gates, t), share.at<cell_t>(c, t), share.at<cell_t>(c, t + 1),
            d_h.const_data_ptr<gate_t>(), share.at<cell_t>(d_c, 0), share.at<gate_t>(d_a, t));
        if (t < first) return;
        d_h = t ? share.rows(grad_h, t - 1).clone(at::MemoryFormat::Contiguous) : at::zeros_like(d_h);
        d_h = plus_product(d_h, share.rows(d_a, t), W);
      }
      share.rows(d_h_0, 0).copy_(d_h);
    });
  });
}

}  // namespace

TORCH_LIBRARY(lstm_kernel, m) {
  m.def("forward(Tensor(a!) gates, Tensor(b!) c, Tensor(c!) h, Tensor W, int first) -> ()", &forward);
  m.def(
      "backward(Tensor gates, Tensor c, Tensor grad_h, Tensor(a!) d_c, Tensor(b!) d_h_0, Tensor(c!) d_a, Tensor W, int first)"
      " -> ()",
      &backward);
}
