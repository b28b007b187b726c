// The page of part2/explore.py: write, read, remember, grow.
"use strict";

const LENGTH = 600; // characters that are written at once
const A_FRAME = 10; // characters a frame, so that one can watch
const SLICE = 12; // milliseconds of reading or writing between two frames
const LONGEST = 3000; // characters of a text that is read
const REACH = 200; // characters back for which gradients are computed
const FOLLOWS = 0.5; // correlation from which on a unit is said to follow something

const model = new TextModel({
  ...data,
  weights: {
    embedding: floats(data.weights.embedding),
    W_p: floats(data.weights.W_p),
    b_p: floats(data.weights.b_p),
    layers: data.weights.layers.map(({ W_x, W_h, b }) => ({ W_x: floats(W_x), W_h: floats(W_h), b: floats(b) })),
  },
});
const nextFrame = () => new Promise(requestAnimationFrame);
const shown = (character) => ({ "\n": "↵", "\t": "⇥", " ": "␣" })[character] ?? character;
const round = (value, digits) => value.toFixed(digits).replace("-", "−");

// A number from -1 to 1 as a background
const colour = (value) =>
  `color-mix(in srgb, var(--${value < 0 ? "cold" : "warm"}) ${Math.round(70 * Math.min(1, Math.abs(value)))}%, transparent)`;

// Characters that can be pointed at, or moved over with the arrow keys. `pointed` and `chosen` are told the place.
class Characters {
  constructor(box, pointed, chosen = pointed) {
    Object.assign(this, { box, pointed, spans: [], place: 0 });
    box.addEventListener("pointerover", (event) => event.target.dataset.place && this.move(+event.target.dataset.place));
    box.addEventListener("click", (event) => event.target.dataset.place && chosen(+event.target.dataset.place));
    box.addEventListener("keydown", (event) => {
      const here = this.place;
      const places = { ArrowRight: here + 1, ArrowLeft: here - 1, Home: 0, End: this.spans.length - 1 };
      if (event.key in places) this.move(places[event.key]);
      else if (event.key === "ArrowDown" || event.key === "ArrowUp") this.move(this.nextRow(event.key === "ArrowDown" ? 1 : -1));
      else if (event.key === "Enter") chosen(here);
      else return;
      event.preventDefault();
    });
  }

  clear() {
    this.box.replaceChildren();
    [this.spans, this.place] = [[], 0];
  }

  add(character, className = "", parent = this.box) {
    const span = element("span", { textContent: character === "\n" ? "↵\n" : character, className });
    if (character === "\n") span.classList.add("end");
    span.dataset.place = this.spans.length;
    this.spans.push(span);
    parent.append(span);
    return span;
  }

  cut(length) {
    for (const span of this.spans.splice(length)) span.remove();
    this.place = Math.max(0, length - 1);
  }

  // The place below (1) or above (-1), nearest to the column of this one
  nextRow(direction) {
    const { offsetTop, offsetLeft } = this.spans[this.place];
    let found = this.place, row = null;
    for (let k = this.place + direction; this.spans[k]; k += direction) {
      const span = this.spans[k];
      if (span.offsetTop === offsetTop) continue;
      row ??= span.offsetTop;
      if (span.offsetTop !== row) break;
      const nearer = Math.abs(span.offsetLeft - offsetLeft) <= Math.abs(this.spans[found].offsetLeft - offsetLeft);
      if (nearer || found === this.place) found = k;
    }
    return found;
  }

  move(place) {
    if (!this.spans.length) return;
    this.spans[this.place]?.classList.remove("active");
    this.place = Math.min(Math.max(place, 0), this.spans.length - 1);
    this.spans[this.place].classList.add("active");
    this.spans[this.place].scrollIntoView({ block: "nearest" });
    this.pointed(this.place);
  }
}

// Write

const writer = {
  letters: [], // { character: its number, q: the probabilities of all at its place; null where it was given }
  given: 0,
  state: null,
  p: null,
  random: null,
  running: 0, // counts up, so that an older run notices that it has been replaced
};
const written = new Characters(byId("written"), showAlternatives);

function begin() {
  writer.random = generator(+byId("seed").value);
  [writer.letters, writer.state, writer.p] = [[], model.start(), null];
  written.clear();
  for (const character of byId("beginning").value) {
    if (model.number.has(character)) append(model.number.get(character), null);
    else byId("written").append(element("span", { className: "unknown", textContent: character, title: "never seen in training" }));
  }
  if (!writer.letters.length) append(Math.floor(writer.random() * model.K), null);
  writer.given = writer.letters.length;
  goOn();
}

function append(character, q) {
  const span = written.add(model.vocabulary[character], q ? "" : "given");
  if (q) span.style.background = colour(q[character]);
  writer.letters.push({ character, q });
  ({ state: writer.state, p: writer.p } = model.step(character, writer.state));
}

async function goOn() {
  const run = ++writer.running, goal = writer.letters.length + LENGTH, from = performance.now();
  let count = 0;
  byId("go").textContent = "Stop";
  while (run === writer.running && writer.letters.length < goal && !ended()) {
    const start = performance.now();
    for (let k = 0; k < A_FRAME && performance.now() - start < SLICE && !ended(); k++, count++) {
      const q = distribution(writer.p, +byId("temperature").value, model.neverWritten);
      append(draw(q, +byId("top-k").value, writer.random), distribution(writer.p, 1, model.neverWritten));
    }
    byId("written").scrollTop = byId("written").scrollHeight;
    await nextFrame();
  }
  if (run !== writer.running) return;
  byId("speed").textContent = `${Math.round((1000 * count) / (performance.now() - from)).toLocaleString("en")} characters a second`;
  stop();
}

const ended = () => model.vocabulary[writer.letters.at(-1).character] === data.end && writer.letters.length > writer.given;

function stop() {
  writer.running++;
  byId("go").textContent = "Write";
}

function showAlternatives(place) {
  const { character, q } = writer.letters[place] ?? {}, box = byId("alternatives");
  if (!q) {
    box.replaceChildren(element("span", { className: "quiet", textContent: "This character was given." }));
    return;
  }
  const buttons = likeliest(q, 5).map((k) => {
    const button = element("button", { type: "button", textContent: `${shown(model.vocabulary[k])} ${(100 * q[k]).toFixed(1)} %` });
    button.setAttribute("aria-pressed", k === character);
    button.addEventListener("click", () => replace(place, k, q));
    return button;
  });
  box.replaceChildren(...buttons);
}

// Take another character at a place, and go on from there
function replace(place, character, q) {
  stop();
  const kept = writer.letters.slice(0, place);
  [writer.letters, writer.state] = [kept, model.start()];
  for (const letter of kept) ({ state: writer.state, p: writer.p } = model.step(letter.character, writer.state));
  written.cut(place);
  append(character, q);
  goOn();
}

// Read: every character's surprise, and all units after it

const reader = { letters: [], states: [], surprise: [], numbers: [], run: 0 };
const reading = new Characters(byId("reading"), showUnits);
const remembered = new Characters(byId("remembered"), () => {}, remember);

async function read(text) {
  const run = ++reader.run, all = [...text], letters = all.slice(0, LONGEST);
  Object.assign(reader, { letters, states: [], surprise: [], numbers: [] }); // numbers[t]: null where it was never seen
  const unknown = letters.filter((character) => !model.number.has(character)).length;
  const notes = [];
  if (all.length > LONGEST) notes.push(`The first ${LONGEST.toLocaleString("en")} of ${all.length.toLocaleString("en")} characters.`);
  if (unknown) notes.push(`${unknown.toLocaleString("en")} characters the network has never seen; it skips them.`);
  byId("cut").textContent = notes.join(" ");
  showLines(reading);
  showLines(remembered);
  let state = model.start(), p = null, start = performance.now();
  for (const character of letters) {
    const number = model.number.get(character) ?? null;
    reader.numbers.push(number);
    if (number === null) reader.surprise.push(null);
    else {
      reader.surprise.push(p && -Math.log(distribution(p, 1)[number]));
      ({ state, p } = model.step(number, state));
    }
    reader.states.push(state);
    if (performance.now() - start > SLICE) {
      await nextFrame();
      if (run !== reader.run) return;
      start = performance.now();
    }
  }
  showColours();
  reading.move(Math.min(40, letters.length - 1));
}

// One element a line, with room for its mean surprise at the end
function showLines(view) {
  view.clear();
  let line = null;
  for (const character of reader.letters) {
    if (!line) {
      line = element("span");
      view.box.append(element("div", { className: "line" }, line, element("span", { className: "mean" })));
    }
    view.add(character === "\n" ? "↵" : character, model.number.has(character) ? "" : "unknown", line);
    if (character === "\n") line = null;
  }
}

const chosenUnit = () => ({ kind: byId("colour").value, layer: +byId("layer").value - 1, unit: +byId("unit").value - 1 });

// A unit after a character: cells between -1 and 1, as the output sees them
function valueOf(state, { kind, layer, unit }) {
  const value = state[layer][kind]?.[unit] ?? 0;
  return kind === "c" ? Math.tanh(value) : value;
}

function showColours() {
  const chosen = chosenUnit(), bySurprise = chosen.kind === "surprise";
  for (const [t, span] of reading.spans.entries())
    span.style.background = colour(bySurprise ? (reader.surprise[t] ?? 0) / 6 : valueOf(reader.states[t], chosen));
  let t = 0;
  for (const line of reading.box.children) {
    const losses = Array.from(line.firstChild.children, () => reader.surprise[t++]).filter((loss) => loss !== null);
    line.lastChild.textContent = losses.length ? round(losses.reduce((sum, loss) => sum + loss, 0) / losses.length, 2) : "";
  }
  showUnits(reading.place);
}

function showUnits(place) {
  const chosen = chosenUnit(), state = reader.states[place];
  if (!state) return;
  const kind = chosen.kind === "surprise" ? "c" : chosen.kind;
  byId("strip").replaceChildren(
    ...data.units.order.map((order, layer) =>
      element("div", {}, element("span", { textContent: `layer ${layer + 1}` }), ...order.map((unit) => {
        const cell = element("i", { title: `unit ${unit + 1} of layer ${layer + 1}` });
        cell.style.background = colour(valueOf(state, { kind, layer, unit }));
        cell.classList.toggle("chosen", chosen.kind !== "surprise" && layer === chosen.layer && unit === chosen.unit);
        [cell.dataset.layer, cell.dataset.unit] = [layer, unit];
        return cell;
      })))
  );
  const surprise = reader.surprise[place];
  const parts = [`“${shown(reader.letters[place])}”`];
  if (surprise !== null) parts.push(`${round(surprise, 2)} nats`);
  if (chosen.kind !== "surprise")
    parts.push(`unit ${chosen.unit + 1} of layer ${chosen.layer + 1} is ${round(valueOf(state, chosen), 2)}`);
  byId("strip-says").textContent = parts.join(", ");
}

function choose(kind, layer, unit) {
  byId("colour").value = kind;
  [byId("layer").value, byId("unit").value] = [layer + 1, unit + 1];
  showColours();
}

function showFeatures() {
  const { features, size } = data.units, names = { c: "cell", h: "hidden unit" };
  byId("followed").textContent = features.length
    ? `Of ${size.toLocaleString("en")} characters one half chose the unit for each row, the other gives the correlation r. In the strip ` +
      "the units stand by what their cell follows best."
    : "The text is too short to tell.";
  const rows = features.map(({ name, kind, layer, unit, r }) => {
    const best = `${names[kind]} ${unit + 1} of layer ${layer + 1}`;
    const button = element("button", { type: "button", textContent: "show", ariaLabel: `show ${best}` });
    button.addEventListener("click", () => choose(kind, layer, unit));
    const says = Math.abs(r) >= FOLLOWS ? best : `no unit does; nearest is ${best}`;
    return element("tr", {}, ...[name, says, element("span", { className: "number", textContent: `r = ${round(r, 2)}` }), button].map((cell) => element("td", {}, cell)));
  });
  byId("features").replaceChildren(...rows);
}

// Remember: which earlier characters mattered

function remember(place) {
  const number = reader.numbers[place], states = reader.states.slice(0, place);
  const says = byId("remember-says");
  const read = states.map((_, t) => t).filter((t) => reader.numbers[t] !== null); // what was never seen was not read
  if (number === null || number === undefined || !read.length) {
    says.textContent = "Nothing was read before it.";
    return;
  }
  const norms = model.influence(read.map((t) => states[t]), number, REACH), largest = Math.max(...norms);
  for (const span of remembered.spans) span.style.background = "";
  for (const [k, t] of read.entries()) remembered.spans[t].style.background = colour(norms[k] / largest);
  remembered.spans[place].style.background = "var(--cold)";
  const total = norms.reduce((sum, norm) => sum + norm, 0);
  let back = 0;
  for (let sum = 0; sum < total / 2; back++) sum += norms[norms.length - 1 - back];
  const most = reader.letters[read[norms.indexOf(largest)]], distance = norms.length - norms.indexOf(largest);
  says.textContent =
    `For “${shown(reader.letters[place])}” most came from “${shown(most)}”, ${distance} before; half of the sum from the last ${back}, ` +
    `of at most ${REACH}.`;
}

// Grow

function grow() {
  byId("grow-says").textContent = data.samples.length
    ? "What the network wrote at stages of its training, always the likeliest character, from the same first characters."
    : "There is no samples.json with this model.";
  byId("stages").replaceChildren(
    ...data.samples.map(({ step, texts }) =>
      element("div", {}, element("h2", { textContent: `Step ${step.toLocaleString("en")}` }), ...texts.map((text) => element("p", { textContent: text }))))
  );
}

byId("about").textContent = data.about;
byId("beginning").value = data.beginning;
byId("top-k").max = model.K - model.neverWritten.length;
byId("top-k").value = byId("top-k").max;
[byId("layer").max, byId("unit").max] = [model.layers.length, model.n];
for (const id of ["temperature", "top-k"]) {
  const show = () => (byId(id).nextElementSibling.textContent = byId(id).value);
  byId(id).addEventListener("input", show);
  show();
}
byId("go").addEventListener("click", () => (byId("go").textContent === "Stop" ? stop() : begin()));
for (const id of ["colour", "layer", "unit"]) byId(id).addEventListener("change", showColours);
byId("strip").addEventListener("click", ({ target }) => {
  const { kind } = chosenUnit();
  if (target.dataset.unit) choose(kind === "surprise" ? "c" : kind, +target.dataset.layer, +target.dataset.unit);
});
byId("read-own").addEventListener("click", () => read(byId("own").value));
showFeatures();
grow();
makeTabs((panel) => {
  if (["read", "remember"].includes(panel) && !reader.run) read(data.text);
});
begin();
