// The network of part2/model.py, character by character: equations 8 to 14, and their gradient backwards in time.
"use strict";

class TextModel {
  // weights: embedding (K, d), W_p (K, n), b_p, and of every layer W_x (4n, d), W_h (4n, n), b, its rows in the order g, i, f, o
  constructor({ vocabulary, never_written, sizes, weights }) {
    this.vocabulary = [...vocabulary];
    this.number = new Map(this.vocabulary.map((character, k) => [character, k]));
    this.neverWritten = never_written;
    [this.K, this.d, this.n] = [sizes.vocabulary, sizes.embedding, sizes.hidden];
    this.embedding = weights.embedding;
    [this.W_p, this.b_p, this.layers] = [weights.W_p, weights.b_p, weights.layers];
  }

  start() {
    return this.layers.map(() => ({ h: new Float64Array(this.n), c: new Float64Array(this.n) }));
  }

  // Read one character; return the new state, every gate, and the logits p of the next character.
  step(character, state) {
    let x = this.embedding.subarray(character * this.d, (character + 1) * this.d);
    const next = this.layers.map((layer, k) => {
      const unit = this.cell(layer, x, state[k]);
      x = unit.h;
      return unit;
    });
    return { state: next, p: affine(this.W_p, x, this.b_p) }; // (14)
  }

  cell({ W_x, W_h, b }, x, before) {
    const n = this.n, a = affine(W_x, x, affine(W_h, before.h, b)); // (4n)
    const [g, i, f, o, c, h] = Array.from({ length: 6 }, () => new Float64Array(n));
    for (let k = 0; k < n; k++) {
      g[k] = Math.tanh(a[k]); // (8)
      i[k] = sigmoid(a[n + k]); // (9)
      f[k] = sigmoid(a[2 * n + k]); // (10)
      o[k] = sigmoid(a[3 * n + k]); // (11)
      c[k] = g[k] * i[k] + before.c[k] * f[k]; // (12)
      h[k] = Math.tanh(c[k]) * o[k]; // (13)
    }
    return { g, i, f, o, c, h };
  }

  // The norm of the gradient of one logit with respect to each embedding that was read, by backpropagation through time.
  // states: what `step` returned as `state` at every character, the last of them before the logit; reach: how far to go back.
  influence(states, logit, reach = states.length) {
    const { n, d, W_p } = this, zeros = this.start(), last = states.length - 1;
    const norms = new Array(states.length).fill(0);
    let later = this.start(); // the gradients by h and c that come from the step after, layer by layer
    for (let t = last; t >= 0 && t > last - reach; t--) {
      let above = t === last ? W_p.subarray(logit * n, (logit + 1) * n) : new Float64Array(n);
      const earlier = [];
      for (let k = this.layers.length - 1; k >= 0; k--) {
        const { W_x, W_h } = this.layers[k], { g, i, f, o, c } = states[t][k];
        const c_before = (t ? states[t - 1] : zeros)[k].c;
        const d_a = new Float64Array(4 * n), d_c = new Float64Array(n);
        for (let j = 0; j < n; j++) {
          const d_h = above[j] + later[k].h[j], tanh_c = Math.tanh(c[j]);
          const d_cell = later[k].c[j] + d_h * o[j] * (1 - tanh_c ** 2);
          d_a[j] = d_cell * i[j] * (1 - g[j] ** 2);
          d_a[n + j] = d_cell * g[j] * i[j] * (1 - i[j]);
          d_a[2 * n + j] = d_cell * c_before[j] * f[j] * (1 - f[j]);
          d_a[3 * n + j] = d_h * tanh_c * o[j] * (1 - o[j]);
          d_c[j] = d_cell * f[j];
        }
        earlier[k] = { h: transposed(W_h, d_a, n), c: d_c };
        above = transposed(W_x, d_a, k ? n : d);
      }
      norms[t] = Math.hypot(...above);
      later = earlier;
    }
    return norms;
  }
}

// softmax(p / temperature), without what is never written; at temperature 0 all of it on the likeliest character
function distribution(p, temperature, neverWritten = []) {
  const allowed = Array.from(p, (value, k) => (neverWritten.includes(k) ? -Infinity : value));
  if (temperature > 0) return softmax(allowed.map((value) => value / temperature));
  const best = allowed.indexOf(Math.max(...allowed));
  return allowed.map((_, k) => Number(k === best));
}

const likeliest = (q, count) => q.map((_, k) => k).sort((a, b) => q[b] - q[a]).slice(0, count);

// One character of a distribution, drawn among its top_k likeliest; `random` gives numbers from 0 up to 1
function draw(q, topK, random) {
  const kept = likeliest(q, topK), total = kept.reduce((sum, k) => sum + q[k], 0);
  let left = random() * total;
  for (const k of kept) if ((left -= q[k]) < 0) return k;
  return kept[0];
}
