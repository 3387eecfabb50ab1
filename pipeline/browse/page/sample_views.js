"use strict";
// The views of samples: the list with its filters, one sample, and what flipped between two scores.
(() => {
  const { element, link, note, table, views } = vcore;
  const PAGE = 100;
  const pre = (text) => element("pre", null, text);
  const verdictClass = (letter) => vcore.verdict(letter).replace(" ", "_");
  const nameOf = (site, number) => `${site.scores[number].benchmark}, ${site.scores[number].checkpoint}`;
  const withSamples = (site) => site.scores.map((_, number) => number).filter((number) => site.scores[number].samples);

  function described(site, number) {
    const score = site.scores[number];
    const [, key, made] = site.artifacts[score.artifact];
    return `${nameOf(site, number)}, ${vcore.percent(score.value)}, ${made.slice(0, 10)} ${key.slice(0, 8)}`;
  }

  function choice(label, options, chosen, change) {
    const made = element("select", { "aria-label": label, change: () => change(made.value) },
      options.map(([value, text]) => element("option", { value, selected: String(value) === chosen }, text)));
    return made;
  }

  views.set("samples", async (site, values) => {
    const scores = withSamples(site);
    if (!scores.length) return note("No sample is in this site.");
    const want = { score: values.get("score") || String(scores[0]), text: values.get("text") || "",
      verdict: values.get("verdict") || "", ending: values.get("ending") || "" };
    const found = element("div");

    async function draw(page) {
      history.replaceState(null, "", vcore.place("samples", want));
      const wanted = scores.filter((number) => want.score === "all" || want.score === String(number));
      const sets = await Promise.all(wanted.map(vcore.samplesOf));
      const started = performance.now();
      const pairs = vcore.filterSamples(sets, want);
      const known = new Map(sets.map((set) => [set.number, set.columns]));
      const rows = [];
      for (let i = 2 * page * PAGE; i < Math.min(pairs.length, 2 * (page + 1) * PAGE); i += 2) {
        const [score, row] = [pairs[i], pairs[i + 1]];
        const columns = known.get(score);
        const [name, question, gold] = columns.problems[columns.problem[row]];
        const letter = columns.verdict[row];
        rows.push([link(`${name} #${columns.sample[row]}`, "sample", { score, row }),
          element("span", { class: verdictClass(letter) }, vcore.verdict(letter)), columns.extracted[row] ?? "–",
          gold, columns.tokens[row] < 0 ? "–" : columns.tokens[row], nameOf(site, score), question]);
      }
      const titles = ["sample", "verdict", "extracted", "gold", "tokens", "score", "question"];
      const kinds = ["free", "", "free", "free", "number", "", "free"];
      const shown = table(titles, kinds, rows);
      found.replaceChildren(shown, vcore.pages(pairs.length / 2, PAGE, page, draw));
      const total = sets.reduce((sum, set) => sum + set.columns.problem.length, 0);
      found.dataset.ms = (performance.now() - started).toFixed(1);
      found.append(note(`Found among ${total.toLocaleString("en")} samples in ${found.dataset.ms} ms.`));
    }

    const set = (name) => (value) => {
      want[name] = value;
      return draw(0);
    };
    const search = element("input", { type: "search", value: want.text, placeholder: "problem, question or answer",
      "aria-label": "words in problem, question or answer", input: () => set("text")(search.value) });
    const form = element("form", { submit: (event) => event.preventDefault() }, search,
      choice("score", [...scores.map((number) => [number, described(site, number)]), ["all", "all scores"]],
        want.score, set("score")),
      choice("verdict", [["", "every verdict"], ["!c", "all but correct"], ...vcore.VERDICTS],
        want.verdict, set("verdict")),
      choice("ending", [["", "however it ended"], ...vcore.ENDINGS], want.ending, set("ending")));
    await draw(0);
    return [form, found];
  });

  // A completion with its reasoning folded, where tags mark it; the prompt may have opened it already.
  function completion(text, prompt) {
    const [open, close] = ["<think>", "</think>"];
    const end = text.lastIndexOf(close);
    const begun = text.trimStart().startsWith(open) || (prompt !== null && prompt.trimEnd().endsWith(open));
    if (end < 0 && !begun) return [pre(text)];
    const thought = end < 0 ? text : text.slice(0, end + close.length);
    const title = `reasoning, ${thought.length.toLocaleString("en")} characters${end < 0 ? ", not closed" : ""}`;
    const folded = element("details", { class: "thought" }, element("summary", null, title),
      element("div", null, pre(thought)));
    return end < 0 ? [folded] : [folded, pre(text.slice(end + close.length).trimStart())];
  }

  async function sampleParts(site, number, row) {
    const { columns } = await vcore.samplesOf(number);
    const texts = await vcore.textsOf(number, row);
    const letter = columns.verdict[row];
    const part = (title, content) => (content === null || content === ""
      ? [] : [element("small", null, title), typeof content === "string" ? pre(content) : content].flat());
    const tokens = columns.tokens[row] < 0 ? "" : `, ${columns.tokens[row]} tokens`;
    const ending = vcore.ENDINGS.find(([known]) => known === columns.ending[row])[1];
    const gone = texts.completion === null ? [note("The completion is not in the store any more.")] : [];
    return [
      element("p", null, element("b", { class: verdictClass(letter) }, vcore.verdict(letter)),
        element("small", null, ` ${nameOf(site, number)}, sample ${columns.sample[row]}`)),
      ...part("extracted", texts.extracted), ...part("gold", texts.gold), ...part("grader", texts.detail), ...gone,
      ...(texts.completion === null ? []
        : part(`completion${tokens}, ${ending}`, completion(texts.completion, texts.prompt))),
      ...(texts.prompt ? [element("details", null, element("summary", null, "prompt as it was sent"),
        element("div", null, pre(texts.prompt)))] : []),
    ];
  }

  views.set("sample", async (site, values) => {
    const [number, row] = [Number(values.get("score")), Number(values.get("row"))];
    if (!site.scores[number]?.samples) return note("The samples of this score are not in this site.");
    const { columns } = await vcore.samplesOf(number);
    const problem = columns.problem[row];
    if (problem === undefined) return note(`This score has no sample ${values.get("row")}.`);
    const texts = await vcore.textsOf(number, row);
    const same = columns.problem.map((other, at) => at).filter((at) => columns.problem[at] === problem);
    const step = (text, to) => (to >= 0 && to < columns.problem.length
      ? [link(text, "sample", { score: number, row: to }), " "] : []);
    return [
      element("h2", null, columns.problems[problem][0]),
      note(...step("earlier", row - 1), ...step("later", row + 1),
        link("all samples of this score", "samples", { score: number }), " ",
        link("artifact", "artifact", { n: site.scores[number].artifact })),
      ...(texts.question ? [element("small", null, "problem"), pre(texts.question)] : []),
      ...await sampleParts(site, number, row),
      ...(same.length > 1 ? [note("Samples of this problem: ", same.flatMap((at, i) => [i ? ", " : "", at === row
        ? element("b", null, columns.sample[at]) : link(columns.sample[at], "sample", { score: number, row: at }),
      ` ${vcore.verdict(columns.verdict[at])}`]))] : []),
    ];
  });

  views.set("flips", async (site, values) => {
    const scores = withSamples(site);
    const alike = (a, b) => ["benchmark", "protocol"].every((name) => site.scores[a][name] === site.scores[b][name]);
    const usual = scores.find((number) => scores.some((other) => other !== number && alike(number, other)));
    if (usual === undefined) return note("No two scores of one benchmark and protocol have samples in this site.");
    const before = Number(values.get("before") ?? usual);
    if (!scores.includes(before)) return note("The samples of this score are not in this site.");
    const partners = scores.filter((other) => other !== before && alike(before, other));
    const after = Number(values.get("after") ?? partners[0]);
    const go = (one, other) => {
      window.location.hash = vcore.place("flips", other === null ? { before: one } : { before: one, after: other });
    };
    const form = element("form", { submit: (event) => event.preventDefault() },
      choice("before", scores.map((n) => [n, described(site, n)]), String(before), (value) => go(value, null)), "→",
      choice("after", partners.map((n) => [n, described(site, n)]), String(after), (value) => go(before, value)));
    if (!partners.includes(after)) return [form, note("These two were not measured alike: nothing is compared.")];
    const found = vcore.flips(...await Promise.all([before, after].map(vcore.samplesOf)));
    const better = (one) => one.after.right / one.after.samples > one.before.right / one.before.samples;
    const rows = found.map((one) => ({
      text: `${one.problem} ${better(one) ? "better" : "worse"}`.toLowerCase(),
      cells: () => [link(one.problem, "pair", { before, after, old: one.before.row, now: one.after.row }),
        `${one.before.right} of ${one.before.samples}`, `${one.after.right} of ${one.after.samples}`,
        element("span", { class: better(one) ? "higher" : "lower" }, better(one) ? "better" : "worse")],
    }));
    const improved = found.filter(better).length;
    return [form, note(`${improved} problems better, ${found.length - improved} worse. Search for better or worse.`),
      ...vcore.searchable(rows, ["problem", "before", "after", ""], ["free", "number", "number", ""],
        new URLSearchParams(), "flips", { before, after })];
  });

  views.set("pair", async (site, values) => {
    const [before, after, old, now] = ["before", "after", "old", "now"].map((name) => Number(values.get(name)));
    if (![before, after].every((number) => site.scores[number]?.samples)) {
      return note("The samples of these scores are not in this site.");
    }
    const { columns } = await vcore.samplesOf(before);
    const texts = await vcore.textsOf(before, old);
    const sides = await Promise.all([[before, old], [after, now]].map(async ([number, row]) => element("div", null,
      await sampleParts(site, number, row))));
    return [element("h2", null, columns.problems[columns.problem[old]][0]),
      note(link("all that flipped", "flips", { before, after }), " ",
        link("all samples before", "sample", { score: before, row: old }), " ",
        link("all samples after", "sample", { score: after, row: now })),
      ...(texts.question ? [element("small", null, "problem"), pre(texts.question)] : []),
      element("div", { class: "pair" }, sides)];
  });
})();
