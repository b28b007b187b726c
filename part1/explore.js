// The page of part1/explore.py: a palindrome, digit by digit, and what each network makes of it.
"use strict";

const UNIT_HEIGHT = 2; // pixels of a unit in a picture
const DRAG = 12; // pixels by which a digit is dragged to change it by one
const QUANTITIES = {
  h: "hidden units, h",
  c: "cells, tanh c",
  i: "input gates, i",
  f: "forget gates, f",
  o: "output gates, o",
  g: "candidates, g",
};
const LOOK_FOR = {
  RNN: "A unit that keeps its colour from the first digits on is a switch, set once.",
  LSTM: "A cell keeps what it holds where its forget gate is near 1 and its input gate near 0.",
};
const random = generator(0);
const drawn = () => Math.floor(10 * random());

const networks = data.networks.map(({ weights, ...network }) => ({
  ...network,
  ...Object.fromEntries(Object.entries(weights).map(([name, numbers]) => [name, floats(numbers)])),
  run: network.model === "LSTM" ? runLSTM : runRNN,
  shown: "h",
}));
let digits = []; // that are read: all of the palindrome but the last

function newPalindrome() {
  const T = Math.min(Math.max(Math.round(+byId("length").value) || 2, 2), 200), half = Array.from({ length: Math.ceil(T / 2) }, drawn);
  byId("length").value = T;
  digits = Array.from({ length: T - 1 }, (_, t) => half[Math.min(t, T - 1 - t)]);
  byId("digits").replaceChildren(...digits.map((_, t) => digitElement(t)));
  byId("change").textContent = "";
  for (const network of networks) network.steps = null;
  update();
}

function digitElement(t) {
  const made = element("span", { tabIndex: 0, role: "spinbutton", ariaLabel: `digit ${t + 1}`, ariaValueMin: "0", ariaValueMax: "9" });
  const turn = (digit) => setDigit(t, ((digit % 10) + 10) % 10);
  made.addEventListener("keydown", (event) => {
    const turned = { ArrowUp: digits[t] + 1, ArrowDown: digits[t] - 1, Home: 0, End: 9 }[event.key] ?? (/^\d$/.test(event.key) ? +event.key : null);
    const neighbour = { ArrowRight: made.nextSibling, ArrowLeft: made.previousSibling }[event.key];
    if (turned !== null) turn(turned);
    else if (neighbour) neighbour.focus();
    else return;
    event.preventDefault();
  });
  made.addEventListener("pointerdown", (event) => {
    const from = digits[t], y = event.clientY;
    made.setPointerCapture(event.pointerId);
    made.onpointermove = (moved) => turn(from + Math.round((y - moved.clientY) / DRAG));
    made.onpointerup = made.onpointercancel = () => (made.onpointermove = null);
  });
  return made;
}

function setDigit(t, digit) {
  if (digits[t] === digit) return;
  const before = networks.map(({ steps }) => best(steps.at(-1).p));
  digits[t] = digit;
  update();
  const says = networks.map(({ name, steps }, k) => {
    const now = best(steps.at(-1).p);
    return before[k] === now ? `${name} still says ${now}` : `${name} says ${now}, no longer ${before[k]}`;
  });
  byId("change").textContent = `Digit ${t + 1} is ${digit}: ${says.join("; ")}.`;
}

const best = (p) => p.indexOf(Math.max(...p));

function update() {
  for (const [t, made] of [...byId("digits").children].entries()) {
    made.textContent = made.ariaValueNow = digits[t];
  }
  for (const network of networks) {
    network.steps = network.run(network, digits).map((step) => ({ ...step, p: answer(network, step) }));
    // The units stand by their last value in the first palindrome, and stay there
    network.order ??= Array.from(network.steps.at(-1).h.keys()).sort((j, k) => network.steps.at(-1).h[k] - network.steps.at(-1).h[j]);
    show(network);
  }
}

function show(network) {
  const { steps, name, parts } = network, p = steps.at(-1).p, said = best(p);
  parts.heading.textContent = `${name} names ${said}, with p = ${p[said].toFixed(2)}: ${said === digits[0] ? "right" : `wrong, the first was ${digits[0]}`}`;
  parts.answers.replaceChildren(
    ...steps.map(({ p }) => {
      const digit = best(p), made = element("span", { textContent: digit, className: digit === digits[0] ? "" : "wrong" });
      made.style.background = `color-mix(in srgb, var(--warm) ${Math.round(70 * p[digit])}%, transparent)`;
      return made;
    })
  );
  drawUnits(network);
}

// A unit a row, a step a column; orange above 0, blue below
function drawUnits({ steps, order, shown, n, parts }) {
  const { canvas } = parts, context = canvas.getContext("2d");
  [canvas.width, canvas.height] = [steps.length, n];
  canvas.style.height = `${UNIT_HEIGHT * n}px`;
  const image = context.createImageData(steps.length, n);
  for (const [row, unit] of order.entries())
    for (const [t, step] of steps.entries()) {
      const value = valueOf(step, shown, unit), colour = value < 0 ? [59, 139, 224] : [232, 133, 12];
      image.data.set([...colour, Math.round(255 * Math.abs(value))], 4 * (row * steps.length + t));
    }
  context.putImageData(image, 0, 0);
}

const valueOf = (step, shown, unit) => (shown === "c" ? Math.tanh(step.c[unit]) : step[shown][unit]);

function makeParts(network) {
  const heading = element("h2"), answers = element("div", { className: "row" });
  const canvas = element("canvas", { role: "img", ariaLabel: `${network.name}: its units over time` });
  const quantity = element("select", {}, ...Object.keys(QUANTITIES).filter((key) => network.model === "LSTM" || key === "h")
    .map((key) => element("option", { value: key, textContent: QUANTITIES[key] })));
  quantity.addEventListener("change", () => {
    network.shown = quantity.value;
    drawUnits(network);
  });
  canvas.addEventListener("pointermove", ({ offsetX, offsetY }) => {
    const t = Math.min(Math.floor((offsetX / canvas.clientWidth) * digits.length), digits.length - 1);
    const row = Math.min(Math.floor((offsetY / canvas.clientHeight) * network.n), network.n - 1);
    const unit = network.order[Math.max(row, 0)], step = network.steps[Math.max(t, 0)], said = best(step.p);
    byId("says").textContent =
      `${network.name} after digit ${Math.max(t, 0) + 1}: unit ${unit + 1} is ${valueOf(step, network.shown, unit).toFixed(2)}; ` +
      `it would say ${said}, with p = ${step.p[said].toFixed(2)}`;
  });
  network.parts = { heading, answers, canvas };
  const about = element("p", { className: "quiet", textContent: `${network.about}. ${LOOK_FOR[network.model]}` });
  const controls = element("div", { className: "controls" }, element("label", {}, "Show ", quantity), about);
  const says = element("p", { className: "quiet", textContent: "What it would answer after each digit:" });
  return element("div", { className: "network" }, heading, controls, says, answers, canvas);
}

byId("networks").append(...networks.map(makeParts));
byId("length").value = data.length;
byId("length").addEventListener("change", newPalindrome);
byId("another").addEventListener("click", newPalindrome);
newPalindrome();
