// The page of part4/explore.py: images under corruptions, with what a network says of each; and a network at work.
"use strict";

const image = (png, alt) => element("img", { src: `data:image/png;base64,${png}`, alt, className: "picture" });
const percent = (p) => `${Math.round(100 * p)} %`;

// Buttons with pictures, of which one is pressed; `chosen` is told which
function choicesOf({ pictures, labels, classes }, chosen) {
  const buttons = pictures.map((png, k) => {
    const button = element("button", { type: "button" }, image(png, classes[labels[k]]));
    button.addEventListener("click", () => choose(k));
    return button;
  });
  function choose(k) {
    for (const [other, button] of buttons.entries()) button.setAttribute("aria-pressed", other === k);
    chosen(k);
  }
  choose(0);
  return element("div", { className: "choices" }, ...buttons);
}

// Images under corruptions

function corruptionsPanel(run) {
  const { classes, labels, corruptions } = run, table = element("table", { className: "severities" });
  const said = (top, label) => {
    const [[k, p], [second, q]] = top;
    const best = element("div", { textContent: `${classes[k]} ${percent(p)}`, className: k === label ? "" : "wrong" });
    return [best, element("div", { className: "quiet", textContent: `${classes[second]} ${percent(q)}` })];
  };
  const severities = ["none", ...corruptions[0].severities.map((_, s) => s + 1)];
  const choices = choicesOf(run, (k) =>
    table.replaceChildren(
      element("tr", {}, ...["corruption", ...severities].map((title) => element("th", { scope: "col", textContent: title }))),
      ...corruptions.map(({ name, severities }) => {
        const cells = [{ picture: run.pictures[k], top: run.top[k] }, ...severities.map(({ pictures, top }) => ({ picture: pictures[k], top: top[k] }))];
        return element("tr", {}, element("th", { scope: "row", textContent: name }),
          ...cells.map(({ picture, top }, s) => element("td", {}, image(picture, `${classes[labels[k]]}, ${name}, severity ${s}`), ...said(top, labels[k]))));
      })
    )
  );
  const scroll = element("div", { className: "scroll", tabIndex: 0, ariaLabel: "Corruptions and severities" }, table);
  scroll.setAttribute("role", "region");
  return [element("p", { textContent: `${run.about} Below each picture are the two classes that the network finds likeliest; a wrong one is underlined. Choose an image:` }), choices, scroll];
}

// The filters of the network in NumPy, at work

function filtersPanel(run) {
  const { classes, side } = run;
  const network = {
    W_p: floats(run.weights.W_p),
    b_p: floats(run.weights.b_p),
    blocks: run.weights.blocks.map(({ W, b }) => ({ W: floats(W), b: floats(b) })),
  };
  const images = run.images.map(floats), bars = element("table", { className: "bars" }), blocks = element("div");
  const choices = choicesOf(run, (k) => {
    const { steps, p } = runNetwork(network, images[k], side), q = softmax(p);
    bars.replaceChildren(...classes.map((name, c) => {
      const bar = element("div");
      bar.style.width = `${8 * q[c]}rem`;
      const cells = [name + (c === run.labels[k] ? " (it is)" : ""), bar, percent(q[c])];
      return element("tr", {}, ...cells.map((cell) => element("td", {}, cell)));
    }));
    blocks.replaceChildren(...steps.flatMap((step, b) => [
      element("h2", { textContent: `Block ${b + 1}: ${step.filters} maps of ${step.side} × ${step.side}, after ReLU` }),
      element("div", { className: "maps" }, ...Array.from({ length: step.filters }, (_, f) => mapOf(step, f, b, network.blocks[b].W))),
    ]));
  });
  return [element("p", { textContent: `${run.about} It runs in this page: choose an image to see what its filters find. Over each map of block 1 stands its filter, 3 × 3 pixels in colour.` }), choices, bars, blocks];
}

// One map, orange where the filter finds what it looks for; in block 1 its filter, grey where it is 0
function mapOf({ r, side }, f, number, W) {
  const map = r.subarray(f * side ** 2, (f + 1) * side ** 2), largest = Math.max(...map) || 1;
  const canvas = drawn(side, (k) => [232, 133, 12, (255 * map[k]) / largest]);
  canvas.setAttribute("aria-label", `block ${number + 1}, map ${f + 1}`);
  if (number > 0) return canvas;
  const filter = W.subarray(f * 27, (f + 1) * 27), most = Math.max(...filter.map(Math.abs));
  const small = drawn(3, (k) => [...[0, 1, 2].map((c) => 127.5 + (127.5 * filter[c * 9 + k]) / most), 255]);
  small.className = "filter";
  small.setAttribute("aria-label", `filter ${f + 1}`);
  return element("div", {}, small, canvas);
}

function drawn(side, colourOf) {
  const canvas = element("canvas", { width: side, height: side }), context = canvas.getContext("2d"), pixels = context.createImageData(side, side);
  for (let k = 0; k < side ** 2; k++) pixels.data.set(colourOf(k).map(Math.round), 4 * k);
  context.putImageData(pixels, 0, 0);
  canvas.setAttribute("role", "img");
  return canvas;
}

for (const [number, run] of data.runs.entries()) {
  const id = `run-${number}`, panel = element("section", { id, ariaLabel: run.name }, ...(run.corruptions ? corruptionsPanel : filtersPanel)(run));
  panel.setAttribute("role", "tabpanel");
  byId("panels").append(panel);
  const tab = element("button", { type: "button", textContent: run.name });
  tab.setAttribute("role", "tab");
  tab.setAttribute("aria-controls", id);
  document.querySelector('[role="tablist"]').append(tab);
}
makeTabs();
