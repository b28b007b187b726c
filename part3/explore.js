// The page of part3/explore.py: news that travels hop by hop, and what trained networks make of their graphs.
"use strict";

const COLOURS = ["#0072b2", "#e69f00", "#009e73", "#cc79a7", "#d55e00", "#56b4e9", "#b8a800", "#8a6d5b", "#7f7f7f"];
const ALL_EDGES = 300; // nodes up to which a graph's edges are all drawn
const SPLITS = { train: "training node", validation: "validation node", test: "test node", "": "in no split" };

function svg(tag, attributes, ...children) {
  const made = document.createElementNS("http://www.w3.org/2000/svg", tag);
  for (const [name, value] of Object.entries(attributes)) made.setAttribute(name, value);
  made.append(...children);
  return made;
}

// Six nodes, hop by hop

const NODES = [..."ABCDEF"];

function matrixOf(edges, kind) {
  const A = NODES.map((v) => NODES.map((u) => Number(edges.includes(u + v) || edges.includes(v + u) || (kind !== "plain" && u === v))));
  if (kind !== "symmetric") return A;
  const degree = A.map((row) => row.reduce((sum, entry) => sum + entry));
  return A.map((row, v) => row.map((entry, u) => entry / Math.sqrt(degree[v] * degree[u])));
}

function power(M, k) {
  let result = M.map((row, v) => row.map((_, u) => Number(u === v)));
  for (; k > 0; k--) result = result.map((row) => M.map((_, u) => row.reduce((sum, entry, w) => sum + entry * M[w][u], 0)));
  return result;
}

function showHops() {
  const edges = byId("six").value.split(" "), kind = byId("matrix").value, k = +byId("layers").value, from = NODES.indexOf(byId("from").value);
  byId("layers").nextElementSibling.textContent = k;
  const P = power(matrixOf(edges, kind), k), write = (entry) => (Number.isInteger(entry) ? entry : entry.toFixed(3));
  const heard = NODES.filter((_, v) => P[v][from] > 0);
  byId("arrived").textContent = `After ${k} ${k === 1 ? "layer" : "layers"} news from ${NODES[from]} is at ${heard.join(", ") || "no node"}.`;
  const shade = (v) => `color-mix(in srgb, var(--warm) ${P[v][from] > 0 ? 75 : 0}%, transparent)`;
  byId("power").replaceChildren(
    element("caption", { textContent: `Power ${k}` }),
    element("tr", {}, element("td"), ...NODES.map((u) => element("th", { textContent: u, scope: "col" }))),
    ...P.map((row, v) => {
      const cells = row.map((entry, u) => {
        const cell = element("td", { textContent: write(entry) });
        if (u === from) cell.style.background = shade(v);
        return cell;
      });
      return element("tr", {}, element("th", { textContent: NODES[v], scope: "row" }), ...cells);
    })
  );
  const place = NODES.map((_, k) => [150 + 100 * Math.sin((k * Math.PI) / 3), 130 - 100 * Math.cos((k * Math.PI) / 3)]);
  const lines = edges.map(([u, v]) => {
    const [[x1, y1], [x2, y2]] = [place[NODES.indexOf(u)], place[NODES.indexOf(v)]];
    return svg("line", { x1, y1, x2, y2, "stroke-width": 2 });
  });
  const circles = NODES.flatMap((name, v) => {
    const [cx, cy] = place[v], circle = svg("circle", { cx, cy, r: 18 });
    circle.style.fill = `color-mix(in srgb, var(--warm) ${P[v][from] > 0 ? 75 : 0}%, var(--ground))`;
    return [circle, svg("text", { x: cx, y: cy }, name)];
  });
  byId("small").replaceChildren(...lines, ...circles);
}

// A trained network's graph

function panelOf(graph, number) {
  const { x, y, classes, ids, labels, predicted, probability, split, receivers, senders, attention } = graph;
  const neighbours = ids.map(() => []); // of each node: those that it hears from, with the weight of each
  for (const [e, receiver] of receivers.entries()) neighbours[receiver].push([senders[e], attention && attention[e]]);
  const [left, right, top, bottom] = [Math.min(...x), Math.max(...x), Math.min(...y), Math.max(...y)];
  const place = (v) => [20 + (960 * (x[v] - left)) / (right - left || 1), 620 - (600 * (y[v] - top)) / (bottom - top || 1)];
  const colour = (k) => COLOURS[k % COLOURS.length], small = ids.length <= ALL_EDGES, r = small ? 9 : 3.5;
  const line = (u, v, more) => {
    const [[x1, y1], [x2, y2]] = [place(u), place(v)];
    return svg("line", { x1, y1, x2, y2, ...more });
  };

  const plot = svg("svg", { viewBox: "0 0 1000 640", class: "plot", tabindex: 0, role: "application",
    "aria-label": `Nodes of ${graph.name}; the arrow keys go from node to node` });
  const drawn = small ? receivers.map((v, e) => [v, senders[e]]).filter(([v, u]) => v < u).map(([v, u]) => line(v, u, {})) : [];
  const near = svg("g", {});
  const circles = ids.map((_, v) => {
    const [cx, cy] = place(v), wrong = labels[v] >= 0 && labels[v] !== predicted[v];
    return svg("circle", { cx, cy, r, fill: labels[v] >= 0 ? colour(labels[v]) : "gray", class: wrong ? "wrong" : "", "data-node": v });
  });
  const names = small ? ids.map((id, v) => svg("text", { x: place(v)[0], y: place(v)[1] - 16 }, id)) : [];
  plot.append(...drawn, near, ...circles, ...names);

  const says = element("p", { role: "status" }), table = element("table"), list = element("div", { className: "neighbours", tabIndex: 0 }, table);
  list.setAttribute("role", "region");
  list.setAttribute("aria-label", "Neighbours");
  let active = 0;
  function show(v) {
    circles[active].classList.remove("active");
    circles[active].setAttribute("r", r);
    active = v;
    circles[v].classList.add("active");
    circles[v].setAttribute("r", 2 * r);
    const known = labels[v] >= 0 ? classes[labels[v]] : "not known";
    const verdict = predicted[v] === labels[v] ? "and so says the network" : `the network says ${classes[predicted[v]]}`;
    says.textContent = `Node ${ids[v]}, ${SPLITS[split[v]]}: ${known}; ${verdict}, with p = ${probability[v].toFixed(2)}. ` +
      `It hears from ${neighbours[v].length} neighbours.`;
    const sorted = [...neighbours[v]].sort((a, b) => (b[1] ?? 0) - (a[1] ?? 0));
    near.replaceChildren(...sorted.map(([u, weight]) => line(v, u, { class: "near", "stroke-width": 1 + 10 * (weight ?? 0.1) })));
    table.replaceChildren(
      element("tr", {}, ...["neighbour", "class", ...(attention ? ["attention"] : [])].map((title) => element("th", { textContent: title, scope: "col" }))),
      ...sorted.map(([u, weight]) => {
        const cells = [ids[u], labels[u] >= 0 ? classes[labels[u]] : "not known"];
        const row = element("tr", {}, ...cells.map((textContent) => element("td", { textContent })));
        if (attention) row.append(element("td", { className: "number", textContent: weight.toFixed(3) }));
        return row;
      })
    );
  }
  const nearest = (event) => {
    const box = plot.getBoundingClientRect();
    const [px, py] = [((event.clientX - box.left) * 1000) / box.width, ((event.clientY - box.top) * 640) / box.height];
    const distance = (v) => Math.hypot(place(v)[0] - px, place(v)[1] - py);
    return ids.reduce((best, _, v) => (distance(v) < distance(best) ? v : best), 0);
  };
  plot.addEventListener("pointermove", (event) => show(nearest(event)));
  plot.addEventListener("keydown", (event) => {
    const step = { ArrowRight: 1, ArrowDown: 1, ArrowLeft: -1, ArrowUp: -1 }[event.key];
    if (!step) return;
    event.preventDefault();
    show((active + step + ids.length) % ids.length);
  });

  const right_ones = ids.filter((_, v) => split[v] === "test" && labels[v] === predicted[v]).length;
  const tested = split.filter((part) => part === "test").length;
  const legend = element("ul", { className: "legend" }, ...classes.map((name, k) => {
    const dot = element("i");
    dot.style.background = colour(k);
    return element("li", {}, dot, name);
  }));
  const what = `Each node stands at the first two principal components of the features that ${graph.model.toUpperCase()} has learnt of it, in the ` +
    `colour of its class; outlined where the network says another. It names the class of ${right_ones.toLocaleString("en")} of ` +
    `${tested.toLocaleString("en")} test nodes.` + (attention ? " Lines are as wide as a neighbour's weight in the first layer; what the weights lack to 1, a node gives to itself." : "");
  const panel = element("section", { id: `graph-${number}` }, element("p", { textContent: what }), legend,
    element("div", { className: "side" }, plot, element("div", { className: "about" }, says, list)));
  panel.setAttribute("role", "tabpanel");
  panel.setAttribute("aria-label", `${graph.name}, ${graph.model}`);
  show(0);
  return panel;
}

for (const name of NODES) byId("from").append(element("option", { textContent: name }));
byId("from").value = "C";
for (const id of ["six", "matrix", "from", "layers"]) byId(id).addEventListener("input", showHops);
showHops();
byId("panels").append(...data.graphs.map(panelOf));
const tabs = [["hops", "Hop by hop"], ...data.graphs.map(({ name, model }, k) => [`graph-${k}`, `${name}, ${model.toUpperCase()}`])];
for (const [id, textContent] of tabs) {
  const tab = element("button", { type: "button", textContent });
  tab.setAttribute("role", "tab");
  tab.setAttribute("aria-controls", id);
  document.querySelector('[role="tablist"]').append(tab);
}
makeTabs();
