// Matrices, vectors and random numbers of the pages. Vectors are arrays of numbers; a matrix is an array row by row.
"use strict";

const sigmoid = (a) => 1 / (1 + Math.exp(-a));

// W x + a
function affine(W, x, a) {
  const y = new Float64Array(a.length), columns = x.length;
  for (let row = 0, k = 0; row < y.length; row++) {
    let sum = a[row];
    for (let column = 0; column < columns; column++, k++) sum += W[k] * x[column];
    y[row] = sum;
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
