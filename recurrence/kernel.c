// The recurrences over a whole sequence on a CPU, forward and backward. Names and equations are those of rnn.py and lstm.py;
// kernel.py compiles this file for each type of tensor, with -DFLOAT32, -DFLOAT64 or -DBFLOAT16, and says what it saves.
//
// Tensors are contiguous and time-first: h, c and grad_h are (T, B, n); gates and d_a (T, B, 4n), g, i, f, o side by side. They
// are `stored` in their own type and computed with as `real`, in which the cells are stored, too. A null pointer stands for zeros.

#include <math.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#ifdef __AVX512BF16__
#include <immintrin.h>
#endif

#define INLINE static inline __attribute__((always_inline))
#define MIN(a, b) ((a) < (b) ? (a) : (b))

// ---- Numbers ---------------------------------------------------------------------------------------------------------------

#if defined(FLOAT64)
typedef double real, stored;
#elif defined(FLOAT32)
typedef float real, stored;
#else
typedef float real;
typedef uint16_t stored;  // bfloat16, the upper half of a float32
#endif

#if defined(FLOAT64) || defined(FLOAT32)
INLINE real load(stored x) { return x; }
INLINE stored store(real x) { return x; }
#else
INLINE real load(stored x) {
  const uint32_t bits = (uint32_t)x << 16;
  real y;
  memcpy(&y, &bits, 4);
  return y;
}

INLINE stored store(real x) {  // to the nearest, and halfway to the even one
  uint32_t bits;
  memcpy(&bits, &x, 4);
  return x != x ? 0x7fc0 : (bits + 0x7fff + (bits >> 16 & 1)) >> 16;
}
#endif

#ifdef FLOAT64
INLINE real exponential(real x) { return exp(x); }
#else
// e^x = 2^k e^r with a whole k and |r| <= log(2) / 2, where Taylor's terms up to r^7 leave less than a rounding error: what a
// compiler turns into vector instructions everywhere. NaN stays NaN.
INLINE real exponential(real x) {
  x = x > 88 ? 88 : x < -87 ? -87 : x;
  const real shifted = x * 1.44269504f + 12582912.f;  // 1.5 * 2^23, which leaves no digit behind the point: k + that
  const real k = shifted - 12582912.f;
  const real r = x - k * 0.693359375f + k * 2.12194440e-4f;  // log(2) in two parts, the first times k exact
  const real e_r = 1 + r * (1 + r * (1 / 2.f + r * (1 / 6.f + r * (1 / 24.f + r * (1 / 120.f + r * (1 / 720.f + r / 5040))))));
  uint32_t bits;
  memcpy(&bits, &shifted, 4);
  bits = (bits + 127) << 23;  // of 2^k
  real power;
  memcpy(&power, &bits, 4);
  return power * e_r;
}
#endif

INLINE real sigmoid(real a) { return 1 / (1 + exponential(-a)); }
INLINE real hyperbolic_tangent(real a) { return 2 * sigmoid(2 * a) - 1; }

// ---- A product X W, W packed once a sequence -------------------------------------------------------------------------------

// ROWS x COLUMNS sums stay in registers while W's numbers come from the L1 cache, which holds DEPTH rows of COLUMNS of them.
#if defined(VECTOR)  // -DVECTOR=64 -DROWS=12 tries another processor's here
#elif defined(__AVX512F__)
#define VECTOR 64  // bytes
#define ROWS 12
#elif defined(__AVX__)
#define VECTOR 32
#define ROWS 6
#else
#define VECTOR 16
#define ROWS 6
#endif
#define LANES (VECTOR / (int64_t)sizeof(real))
#define COLUMNS (2 * LANES)
#define DEPTH 256

typedef real vector __attribute__((vector_size(VECTOR)));

// An item is what one lane takes of a row of X or of a column of W: a number, or two numbers in bfloat16.
#if defined(FLOAT64) || defined(FLOAT32)
#define NUMBERS 1
typedef real item;
typedef vector items;
INLINE vector add_product(vector sum, item x, items w) { return sum + x * w; }
#else
#define NUMBERS 2
typedef uint32_t item;
typedef item items __attribute__((vector_size(VECTOR)));
INLINE vector add_product(vector sum, item x, items w) {
  const items xs = (items){0} + x;
#if defined(__AVX512BF16__) && VECTOR == 64
  return (vector)_mm512_dpbf16_ps((__m512)sum, (__m512bh)xs, (__m512bh)w);
#else
  return sum + (vector)(xs << 16) * (vector)(w << 16) + (vector)(xs & 0xffff0000) * (vector)(w & 0xffff0000);
#endif
}
#endif
#define NUM_ITEMS(K) (((K) + NUMBERS - 1) / NUMBERS)

// Packs COLUMNS columns of the (K, n) matrix whose element (k, j) is W[k * by_k + j * by_j], from column `first` on: item by
// item of all columns. What lies outside of the matrix is 0.
static void pack(int64_t K, int64_t n, const stored* W, int64_t by_k, int64_t by_j, int64_t first, item* packed) {
  stored* at = (stored*)packed;
  for (int64_t k = 0; k < NUM_ITEMS(K) * NUMBERS; k += NUMBERS)
    for (int64_t j = first; j < first + COLUMNS; j++)
      for (int64_t part = k; part < k + NUMBERS; part++) *at++ = part < K && j < n ? W[part * by_k + j * by_j] : 0;
}

INLINE void tile(
    int rows, int64_t K, const item* x, int64_t x_row, const item* w, real* y, int64_t y_row, int is_first) {
  vector sum[ROWS][2];
  for (int r = 0; r < rows; r++) sum[r][0] = sum[r][1] = (vector){0};
  for (int64_t k = 0; k < K; k++, w += COLUMNS) {
    const items left = *(const items*)w, right = *(const items*)(w + LANES);
    for (int r = 0; r < rows; r++) {
      sum[r][0] = add_product(sum[r][0], x[r * x_row + k], left);
      sum[r][1] = add_product(sum[r][1], x[r * x_row + k], right);
    }
  }
  for (int r = 0; r < rows; r++) {
    vector *left = (vector*)(y + r * y_row), *right = left + 1;
    if (!is_first) sum[r][0] += *left, sum[r][1] += *right;
    *left = sum[r][0], *right = sum[r][1];
  }
}

// Y = X W for some rows of X, of K items each, and some panels of COLUMNS columns; a row of Y begins y_row numbers after the last
static void product(int64_t rows, int64_t K, const item* x, const item* w, int64_t panels, real* y, int64_t y_row) {
  const int64_t tiles = (rows + ROWS - 1) / ROWS;
  for (int64_t k = 0; k < K; k += DEPTH)
    for (int64_t p = 0; p < panels; p++)
      for (int64_t i = 0; i < tiles; i++) {
        const int64_t row = rows * i / tiles, depth = MIN(DEPTH, K - k);
        const item *x_at = x + row * K + k, *w_at = w + (p * K + k) * COLUMNS;
        real* y_at = y + row * y_row + p * COLUMNS;
#define TILE(r) case r: tile(r, depth, x_at, K, w_at, y_at, y_row, k == 0); break;
        switch (rows * (i + 1) / tiles - row) {  // the number of rows is a constant in each, and its loops are unrolled
          TILE(1) TILE(2) TILE(3) TILE(4) TILE(5) TILE(6)
#if ROWS == 12
          TILE(7) TILE(8) TILE(9) TILE(10) TILE(11) TILE(12)
#endif
        }
      }
}

// ---- A whole sequence ------------------------------------------------------------------------------------------------------

typedef struct {
  int64_t T, B, n;
  stored *gates, *h;
  real* c;
  const real* c_0;
  const stored* grad_h;
  stored* d_a;
  real* d_c;
} tensors;

// The pointwise half of step t for units j ... j + units - 1 of sequence b; y holds their part of the step's product, and that
// of the next gate WIDTH numbers further on.
typedef void pointwise(const tensors* s, int64_t t, int64_t b, int64_t j, int64_t units, const real* y);

#define PANELS 4                  // of a gate at a time, so that y stays in the L1 cache
#define WIDTH (PANELS * COLUMNS)
#define BLOCK (4 * ROWS)          // sequences at a time

#ifdef _OPENMP
int omp_get_thread_num(void);
int omp_get_num_threads(void);
#else
static int omp_get_thread_num(void) { return 0; }
static int omp_get_num_threads(void) { return 1; }
#endif

// The rows of x as items: as they lie, or copied into `copies` where they end within an item
static const item* as_items(int64_t rows, int64_t K, const stored* x, item* copies) {
  if (K % NUMBERS == 0) return (const item*)x;
  for (int64_t r = 0; r < rows; r++) memcpy(copies + r * NUM_ITEMS(K), x + r * K, K * sizeof(stored));
  return copies;
}

// Goes through all steps, from the last to the first if `back`. The product of a step is X W: X, (B, K), is what `source` holds
// for the step before it, `initial` at the first step. W has n columns for each of G gates; gate by gate, its element (k, j) is
// W[k * by_k + j * by_j]. `final`, where it is not null, becomes the product after the last step.
//
// Each thread takes its share of the sequences through all steps: it waits for nobody, and finds in its cache what its last step
// has left there. Where that share would be small, several threads share its units, and wait for each other at every step.
static void run(
    int threads, const tensors* s, pointwise* step, int64_t G, int64_t K, const stored* W, int64_t by_k, int64_t by_j,
    const stored* initial, const stored* source, int back, stored* final) {
  const int64_t T = s->T, B = s->B, n = s->n, K_items = NUM_ITEMS(K), panels = (n + COLUMNS - 1) / COLUMNS;
  item* packed = aligned_alloc(64, (G * panels * K_items * COLUMNS * sizeof(item) + 63) / 64 * 64);
#pragma omp parallel num_threads(threads)
  {
    const int64_t thread = omp_get_thread_num(), team = omp_get_num_threads();
    int64_t shares = team;
    while (shares > 1 && (B < 16 * shares || team % shares)) shares--;
    const int64_t group = team / shares, share = thread / group, member = thread % group;
    const int64_t b_first = B * share / shares, b_end = B * (share + 1) / shares;
    const int64_t p_first = panels * member / group, p_end = panels * (member + 1) / group;
    real* y = aligned_alloc(64, BLOCK * G * WIDTH * sizeof(real));
    item* copies = calloc(BLOCK * K_items + 1, sizeof(item));
    memset(y, 0, BLOCK * G * WIDTH * sizeof(real));
#pragma omp for
    for (int64_t p = 0; p < G * panels; p++)
      pack(K, n, W + p / panels * n * by_j, by_k, by_j, p % panels * COLUMNS, packed + p * K_items * COLUMNS);
    for (int64_t i = 0; i < T + (final != 0); i++) {
      const int64_t t = back ? T - 1 - i : i;
      const stored* X = i == 0 ? initial : source + (back ? t + 1 : t - 1) * B * K;
      for (int64_t b = b_first; b < b_end; b += BLOCK) {
        const int64_t rows = MIN(BLOCK, b_end - b);
        const item* x = X ? as_items(rows, K, X + b * K, copies) : 0;
        for (int64_t p = p_first; p < p_end; p += PANELS) {
          const int64_t j = p * COLUMNS, some = MIN(PANELS, p_end - p), units = MIN(some * COLUMNS, n - j);
          for (int64_t g = 0; x && g < G; g++)
            product(rows, K_items, x, packed + (g * panels + p) * K_items * COLUMNS, some, y + g * WIDTH, G * WIDTH);
          for (int64_t r = 0; r < rows; r++)
            if (i < T)
              step(s, t, b + r, j, units, y + r * G * WIDTH);
            else
              for (int64_t u = 0; u < units; u++) final[(b + r) * n + j + u] = store(y[r * WIDTH + u]);
        }
      }
      if (group > 1) {
#pragma omp barrier
      }
    }
    free(copies);
    free(y);
  }
  free(packed);
}

// Tells the compiler that a loop's turns do not depend on each other, though pointers might overlap
#if defined(__clang__)
#define INDEPENDENT _Pragma("clang loop vectorize(assume_safety)")
#else
#define INDEPENDENT _Pragma("GCC ivdep")
#endif

// ---- The RNN ---------------------------------------------------------------------------------------------------------------

static void rnn_step(const tensors* s, int64_t t, int64_t b, int64_t j, int64_t units, const real* y) {
  stored* h = s->h + (t * s->B + b) * s->n + j;
  INDEPENDENT
  for (int64_t u = 0; u < units; u++) h[u] = store(hyperbolic_tangent(load(h[u]) + y[u]));  // (1)
}

static void rnn_step_back(const tensors* s, int64_t t, int64_t b, int64_t j, int64_t units, const real* y) {
  const int64_t at = (t * s->B + b) * s->n + j;
  const stored *h = s->h + at, *grad_h = s->grad_h + at;
  stored* d_a = s->d_a + at;
  INDEPENDENT
  for (int64_t u = 0; u < units; u++) d_a[u] = store((load(grad_h[u]) + y[u]) * (1 - load(h[u]) * load(h[u])));
}

// h holds z at first
void rnn_forward(int threads, int64_t T, int64_t B, int64_t n, const stored* W, const stored* h_0, stored* h) {
  const tensors s = {.T = T, .B = B, .n = n, .h = h};
  run(threads, &s, rnn_step, 1, n, W, 1, n, h_0, h, 0, 0);
}

void rnn_backward(
    int threads, int64_t T, int64_t B, int64_t n, const stored* W, stored* h, const stored* grad_h, stored* d_a,
    stored* d_h_0) {
  const tensors s = {.T = T, .B = B, .n = n, .h = h, .grad_h = grad_h, .d_a = d_a};
  run(threads, &s, rnn_step_back, 1, n, W, n, 1, 0, d_a, 1, d_h_0);
}

// ---- The LSTM --------------------------------------------------------------------------------------------------------------

static void lstm_step(const tensors* s, int64_t t, int64_t b, int64_t j, int64_t units, const real* y) {
  const int64_t n = s->n, row = t * s->B + b, at = row * n + j;
  stored *gates = s->gates + row * 4 * n + j, *h = s->h + at;
  real* c = s->c + at;
  const real* c_before = t ? c - s->B * n : s->c_0 + b * n + j;
  INDEPENDENT
  for (int64_t u = 0; u < units; u++) {
    const real g = hyperbolic_tangent(load(gates[u]) + y[u]);         // (4)
    const real i = sigmoid(load(gates[n + u]) + y[WIDTH + u]);          // (5)
    const real f = sigmoid(load(gates[2 * n + u]) + y[2 * WIDTH + u]);  // (6)
    const real o = sigmoid(load(gates[3 * n + u]) + y[3 * WIDTH + u]);  // (7)
    c[u] = g * i + c_before[u] * f;                                     // (8)
    h[u] = store(hyperbolic_tangent(c[u]) * o);                         // (9)
    gates[u] = store(g), gates[n + u] = store(i), gates[2 * n + u] = store(f), gates[3 * n + u] = store(o);
  }
}

static void lstm_step_back(const tensors* s, int64_t t, int64_t b, int64_t j, int64_t units, const real* y) {
  const int64_t n = s->n, row = t * s->B + b, at = row * n + j;
  const stored *gates = s->gates + row * 4 * n + j, *grad_h = s->grad_h + at;
  stored* d_a = s->d_a + row * 4 * n + j;
  const real *c = s->c + at, *c_before = t ? c - s->B * n : s->c_0 + b * n + j;
  real* d_c_at = s->d_c + b * n + j;
  INDEPENDENT
  for (int64_t u = 0; u < units; u++) {
    const real g = load(gates[u]), i = load(gates[n + u]), f = load(gates[2 * n + u]), o = load(gates[3 * n + u]);
    const real d_h = load(grad_h[u]) + y[u], tanh_c = hyperbolic_tangent(c[u]);
    const real d_c = d_c_at[u] + d_h * o * (1 - tanh_c * tanh_c);
    d_a[u] = store(d_c * i * (1 - g * g));
    d_a[n + u] = store(d_c * g * i * (1 - i));
    d_a[2 * n + u] = store(d_c * c_before[u] * f * (1 - f));
    d_a[3 * n + u] = store(d_h * tanh_c * o * (1 - o));
    d_c_at[u] = d_c * f;
  }
}

// gates hold z at first
void lstm_forward(
    int threads, int64_t T, int64_t B, int64_t n, const stored* W, const stored* h_0, const real* c_0, stored* gates,
    stored* h, real* c) {
  const tensors s = {.T = T, .B = B, .n = n, .gates = gates, .h = h, .c = c, .c_0 = c_0};
  run(threads, &s, lstm_step, 4, n, W, 1, n, h_0, h, 0, 0);
}

// d_a may take the gates' memory; d_c holds the gradient of c(T) at first, and in the end that of c(0)
void lstm_backward(
    int threads, int64_t T, int64_t B, int64_t n, const stored* W, stored* gates, real* c, const real* c_0,
    const stored* grad_h, stored* d_a, real* d_c, stored* d_h_0) {
  const tensors s = {
      .T = T, .B = B, .n = n, .gates = gates, .c = c, .c_0 = c_0, .grad_h = grad_h, .d_a = d_a, .d_c = d_c};
  run(threads, &s, lstm_step_back, 1, 4 * n, W, n, 1, 0, d_a, 1, d_h_0);
}
