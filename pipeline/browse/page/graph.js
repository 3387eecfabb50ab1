"use strict";
// Artifacts as a graph: what each was made from stands to its left.
vcore.graph = (artifacts, shown, here) => {
  const WIDTH = 164, HEIGHT = 40, RIGHT = 206, DOWN = 54;
  const draw = (tag, attributes, ...children) => {
    const made = document.createElementNS("http://www.w3.org/2000/svg", tag);
    for (const [name, value] of Object.entries(attributes)) made.setAttribute(name, String(value));
    made.append(...children);
    return made;
  };
  const inside = new Set(shown);
  const sources = (index) => [...new Set(artifacts[index][6].map((input) => input[1]))].filter((i) => inside.has(i));
  const levels = new Map();
  const level = (index) => {
    if (!levels.has(index)) {
      levels.set(index, 0);
      levels.set(index, Math.max(0, ...sources(index).map((source) => level(source) + 1)));
    }
    return levels.get(index);
  };
  const columns = [];
  for (const index of inside) (columns[level(index)] ||= []).push(index);
  const places = new Map();
  columns.forEach((column, x) => column.forEach((index, y) => places.set(index, [8 + x * RIGHT, 8 + y * DOWN])));

  const edges = [];
  const nodes = [];
  for (const index of inside) {
    const [x, y] = places.get(index);
    for (const source of sources(index)) {
      const [fromX, fromY] = places.get(source);
      const [startX, startY, endY] = [fromX + WIDTH, fromY + HEIGHT / 2, y + HEIGHT / 2];
      const bend = Math.max(30, (x - startX) / 2);
      const curve = `M${startX} ${startY} C${startX + bend} ${startY} ${x - bend} ${endY} ${x - 3} ${endY}`;
      edges.push(draw("path", { d: curve, "marker-end": "url(#arrow)" }));
    }
    const [name, key] = artifacts[index];
    nodes.push(draw("a", { href: vcore.place("artifact", { n: index }), class: index === here ? "here" : "" },
      draw("rect", { x, y, width: WIDTH, height: HEIGHT, rx: 6 }),
      draw("text", { x: x + 10, y: y + 17 }, name),
      draw("text", { x: x + 10, y: y + 32, class: "soft" }, key.slice(0, 12))));
  }
  const tall = Math.max(1, ...columns.map((column) => column.length));
  const [width, height] = [columns.length * RIGHT - RIGHT + WIDTH + 16, tall * DOWN + 4];
  const names = [...inside].map((index) => artifacts[index][0]).join(", ");
  const arrow = draw("marker", { id: "arrow", viewBox: "0 0 8 8", refX: 7, refY: 4, markerWidth: 7, markerHeight: 7,
    orient: "auto" }, draw("path", { d: "M0 0 L8 4 L0 8 z" }));
  const svg = draw("svg", { width, height, role: "group", "aria-label": `what was made from what: ${names}` },
    draw("defs", {}, arrow), ...edges, ...nodes);
  return vcore.element("div", { class: "wide graph" }, svg);
};

// The artifact with everything that it was made from, and what was made from it directly.
vcore.lineage = (artifacts, start) => {
  const found = new Set();
  const walk = (index) => {
    if (index < 0 || found.has(index)) return;
    found.add(index);
    artifacts[index][6].forEach((input) => walk(input[1]));
  };
  walk(start);
  const MOST_USERS = 30;
  artifacts.map((artifact, index) => (artifact[6].some((input) => input[1] === start) ? index : -1))
    .filter((index) => index >= 0).slice(0, MOST_USERS).forEach((index) => found.add(index));
  return [...found];
};
