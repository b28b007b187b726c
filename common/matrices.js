// Matrices, vectors and random numbers of the pages. Vectors are arrays of numbers; a matrix is an array row by row.
"use strict";

const sigmoid = (a) => 1 / (1 + Math.exp(-a));

// W x + a; four sums side by side, since each addition waits for the one before it
function affine(W, x, a) {
  const y = new Float64Array(a.length), columns = x.length, whole = columns - (columns % 4);
  for (let row = 0, k = 0; row < y.length; row++) {
    let s0 = a[row], s1 = 0, s2 = 0, s3 = 0, column = 0;
    for (; column < whole; column += 4, k += 4) {
      s0 += W[k] * x[column];
      s1 += W[k + 1] * x[column + 1];
      s2 += W[k + 2] * x[column + 2];
      s3 += W[k + 3] * x[column + 3];
    }
    for (; column < columns; column++, k++) s0 += W[k] * x[column];
    y[row] = s0 + s1 + s2 + s3;
  }
  return y;
}

// W^T d
function transposed(W, d, columns) {
  const y = new Float64Array(columns);
  for (let row = 0, k = 0; row < d.length; row++)
    for (let column = 0; column < columns; column++, k++) y[column] += W[k] * d[row];
  return y;
}

// Probabilities, from logits that may be -Infinity
function softmax(p) {
  const largest = Math.max(...p), weights = Array.from(p, (value) => Math.exp(value - largest));
  const total = weights.reduce((sum, weight) => sum + weight, 0);
  return weights.map((weight) => weight / total);
}

// Mulberry32: random numbers that a seed repeats
function generator(seed) {
  return () => {
    seed = (seed + 0x6d2b79f5) | 0;
    let t = Math.imul(seed ^ (seed >>> 15), 1 | seed);
    t = (t + Math.imul(t ^ (t >>> 7), 61 | t)) ^ t;
    return ((t ^ (t >>> 14)) >>> 0) / 2 ** 32;
  };
}
