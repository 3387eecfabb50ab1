"use strict";
// What every view uses: data files on demand, and elements whose texts are texts. Nothing here or elsewhere parses a
// text as HTML: what a model wrote is shown, never run.
const vcore = (() => {
  const taken = new Map();
  const asked = new Map();

  function take(name, value) {
    taken.set(name, value);
  }

  // The value of data/NAME.js. A page that was opened as a file may load scripts, and nothing else.
  function load(name) {
    if (!asked.has(name)) {
      asked.set(name, new Promise((resolve, reject) => {
        const script = document.createElement("script");
        script.src = `data/${name}.js`;
        script.onload = () => {
          script.remove();
          if (taken.has(name)) resolve(taken.get(name));
          else reject(new Error(`data/${name}.js holds no data: was the site written to its end?`));
        };
        script.onerror = () => reject(new Error(`data/${name}.js cannot be loaded`));
        document.head.append(script);
      }));
    }
    return asked.get(name);
  }

  function element(tag, attributes, ...children) {
    const made = document.createElement(tag);
    for (const [name, value] of Object.entries(attributes || {})) {
      if (typeof value === "function") made.addEventListener(name, value);
      else if (value !== null && value !== false) made.setAttribute(name, value === true ? "" : String(value));
    }
    made.append(...children.flat().filter((child) => child !== null && child !== undefined).map(
      (child) => (child instanceof Node ? child : String(child))));
    return made;
  }

  const place = (view, values) => `#${view}?${new URLSearchParams(values || {})}`;
  const link = (text, view, values) => element("a", { href: place(view, values) }, text);
  const note = (...texts) => element("p", { class: "note" }, ...texts);

  // `kinds`: class of each column, as in the tables of reports. A cell is a text, an element or a list of both.
  function table(titles, kinds, rows) {
    const cell = (tag) => (content, column) => element(tag, { class: kinds[column] || null }, content);
    const body = rows.map((row) => element("tr", null, row.map(cell("td"))));
    return element("div", { class: "wide" },
      element("table", { class: "small" }, element("tr", null, titles.map(cell("th"))), body));
  }

  const facts = (pairs) => element("dl", null,
    pairs.map(([name, value]) => element("div", null, element("dt", null, name), element("dd", null, value))));

  const percent = (value) => `${(100 * value).toFixed(1)} %`;
  const interval = (one) => `[${(100 * one.low).toFixed(1)}, ${(100 * one.high).toFixed(1)}]`;

  return { take, load, element, place, link, note, table, facts, percent, interval, views: new Map() };
})();
