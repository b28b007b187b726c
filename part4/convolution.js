// The network of part4/numpy_network.py on one image: what each block computes, and the logits.
"use strict";

// Equations 1 to 3: 3 x 3 filters with padding 1, ReLU, and the largest of each 2 x 2 window
function block({ W, b }, h, side) {
  const F = b.length, C = h.length / side ** 2, half = Math.floor(side / 2);
  const r = new Float64Array(F * side ** 2), pooled = new Float64Array(F * half ** 2);
  for (let f = 0; f < F; f++)
    for (let y = 0; y < side; y++)
      for (let x = 0; x < side; x++) {
        let a = b[f];
        for (let c = 0; c < C; c++)
          for (let i = -1; i <= 1; i++)
            for (let j = -1; j <= 1; j++)
              if (y + i >= 0 && y + i < side && x + j >= 0 && x + j < side)
                a += W[((f * C + c) * 3 + i + 1) * 3 + j + 1] * h[(c * side + y + i) * side + x + j];
        const value = Math.max(a, 0), place = (f * half + (y >> 1)) * half + (x >> 1);
        r[(f * side + y) * side + x] = value;
        if (y >> 1 < half && x >> 1 < half) pooled[place] = Math.max(pooled[place], value);
      }
  return { r, h: pooled, side, filters: F };
}

function runNetwork({ blocks, W_p, b_p }, image, side) {
  const steps = [];
  let h = image;
  for (const weights of blocks) {
    const step = block(weights, h, side);
    steps.push(step);
    [h, side] = [step.h, Math.floor(side / 2)];
  }
  return { steps, p: affine(W_p, h, b_p) }; // (4)
}
