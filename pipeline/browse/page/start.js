"use strict";
// Which view the address asks for. Views are functions of (site, values of the address) that return elements.
(() => {
  const PLACES = [["runs", "Runs"], ["scores", "Scores"], ["samples", "Samples"], ["flips", "Flips"],
    ["artifacts", "Artifacts"]];
  let asked = 0;

  async function show() {
    asked += 1;
    const mine = asked;
    const [name, values] = window.location.hash.slice(1).split("?", 2);
    const view = vcore.views.get(name) || vcore.views.get("runs");
    let content;
    try {
      content = await view(await vcore.load("site"), new URLSearchParams(values || ""));
    } catch (error) {
      content = [vcore.element("p", { class: "bad" }, error.message)];
    }
    if (mine !== asked) return; // another view was asked for meanwhile
    document.getElementById("view").replaceChildren(...[content].flat());
    document.getElementById("places").replaceChildren(...PLACES.map(([place, title]) => {
      const link = vcore.link(title, place);
      if (place === (name || "runs")) link.setAttribute("aria-current", "page");
      return link;
    }));
  }

  window.addEventListener("hashchange", () => {
    window.scrollTo(0, 0);
    show();
  });
  show();
})();
