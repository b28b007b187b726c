// The networks of part1/vanilla_rnn.py and part1/lstm.py over one sequence: each returns all it computes, step by step.
"use strict";

// A digit as the network reads it: the number itself, or one-hot
const vector = (digit, d) => (d === 1 ? [digit] : Array.from({ length: d }, (_, k) => Number(k === digit)));

function runRNN({ W_hx, W_hh, b_h, d, n }, digits) {
  let h = new Float64Array(n);
  return digits.map((digit) => {
    h = affine(W_hx, vector(digit, d), affine(W_hh, h, b_h)).map(Math.tanh); // (1)
    return { h };
  });
}

function runLSTM({ W_x, W_h, b, d, n }, digits) {
  let h = new Float64Array(n), c = new Float64Array(n);
  return digits.map((digit) => {
    const a = affine(W_x, vector(digit, d), affine(W_h, h, b)); // of g, i, f, o: (4n)
    const g = a.subarray(0, n).map(Math.tanh); // (4)
    const [i, f, o] = [1, 2, 3].map((gate) => a.subarray(gate * n, (gate + 1) * n).map(sigmoid)); // (5), (6), (7)
    c = c.map((before, k) => g[k] * i[k] + before * f[k]); // (8)
    h = c.map((cell, k) => Math.tanh(cell) * o[k]); // (9)
    return { g, i, f, o, c, h };
  });
}

// What the network would answer at a step: the probabilities of the digits
const answer = ({ W_ph, b_p }, { h }) => softmax(affine(W_ph, h, b_p)); // (2) and (10)
