"use strict";
// The views of runs, scores and artifacts.
(() => {
  const { element, link, note, table, facts, percent, interval, views } = vcore;
  const PAGE = 200;

  // Rows that can be searched, a page at a time. `rows`: {text: what is searched, cells: made when it is shown};
  // `more`: further values of the address.
  function searchable(rows, titles, kinds, values, view, more) {
    const found = element("div");
    const draw = (words, page) => {
      const wanted = rows.filter((row) => words.every((word) => row.text.includes(word)));
      const shown = wanted.slice(page * PAGE, (page + 1) * PAGE).map((row) => row.cells());
      found.replaceChildren(table(titles, kinds, shown), pages(wanted.length, PAGE, page, (to) => draw(words, to)));
    };
    const field = element("input", { type: "search", placeholder: "search", "aria-label": "search",
      value: values.get("text"),
      input: () => {
        draw(field.value.toLowerCase().split(/\s+/).filter((word) => word), 0);
        history.replaceState(null, "", vcore.place(view, { ...more, text: field.value }));
      } });
    draw((values.get("text") || "").toLowerCase().split(/\s+/).filter((word) => word), 0);
    const form = element("form", { submit: (event) => event.preventDefault() }, field);
    return [form, found];
  }

  vcore.searchable = searchable;

  function pages(count, size, page, go) {
    const last = Math.max(0, Math.ceil(count / size) - 1);
    const [from, to] = [count ? page * size + 1 : 0, Math.min(count, (page + 1) * size)];
    const button = (text, target) => element("button",
      { type: "button", disabled: target < 0 || target > last || null, click: () => go(target) }, text);
    return element("form", { submit: (event) => event.preventDefault() }, button("earlier", page - 1),
      button("later", page + 1), element("small", null, `${from} to ${to} of ${count.toLocaleString("en")}`));
  }

  vcore.pages = pages;

  const samplesLink = (score, number) => (score.samples
    ? link(`${score.samples.toLocaleString("en")} samples`, "samples", { score: number }) : "not in this site");

  function scoreRow(site, number) {
    const score = site.scores[number];
    return [score.benchmark, score.checkpoint, score.metric,
      [element("b", null, percent(score.value)), " ", element("small", null, interval(score))],
      score.n, score.k, link(score.protocol.slice(0, 12), "protocol", { score: number }), samplesLink(score, number)];
  }

  const SCORES = ["benchmark", "checkpoint", "metric", "score, 95 % interval", "n", "k", "protocol", "samples"];
  const SCORE_KINDS = ["", "", "", "score", "number", "number", "", ""];

  const scoresOf = (site, artifacts) => site.scores.map((_, number) => number)
    .filter((number) => artifacts.includes(site.scores[number].artifact));

  // Pairs of checkpoints that follow one another and were measured alike, with samples of both in the site.
  function pairsOf(site, numbers) {
    const pairs = [];
    numbers.forEach((before, i) => {
      const { benchmark } = site.scores[before];
      const after = numbers.slice(i + 1).find((other) => site.scores[other].benchmark === benchmark);
      const alike = after !== undefined && site.scores[before].protocol === site.scores[after].protocol;
      if (alike && site.scores[before].samples && site.scores[after].samples) pairs.push([before, after]);
    });
    return pairs;
  }

  // Of each benchmark of a run, the scores of its checkpoints, one after the other.
  const MOST_LINES = 3;

  function outcome(site, run, scored) {
    const values = new Map();
    run.stages.flatMap((stage) => scored.get(stage[1]) || []).forEach((number) => {
      const { benchmark, value } = site.scores[number];
      values.set(benchmark, [...(values.get(benchmark) || []), (100 * value).toFixed(1)]);
    });
    const lines = [...values].map(([benchmark, each]) => element("div", null, `${benchmark} ${each.join(" → ")} %`));
    const more = lines.length - MOST_LINES;
    return more > 0 ? [...lines.slice(0, MOST_LINES), element("small", null, `and ${more} more`)] : lines;
  }

  const stagesThat = (run, state) => run.stages.filter((stage) => stage[3] === state).length;

  views.set("runs", (site, values) => {
    const scored = new Map(); // artifact -> its scores, found once for all rows and every letter that is typed
    site.scores.forEach(({ artifact }, number) => scored.set(artifact, [...(scored.get(artifact) || []), number]));
    const rows = site.runs.map((run) => ({
      text: `${run.id} ${run.status} ${run.command}`.toLowerCase(),
      cells: () => [link(run.id, "run", { id: run.id }), outcome(site, run, scored),
        element("span", { class: run.status === "failed" ? "bad" : null }, run.status),
        run.started.slice(0, 16), run.seed ?? "", `${stagesThat(run, "ran")} ran, ${stagesThat(run, "cached")} cached`],
    }));
    const left = site.left_out ? ` The samples of ${site.left_out} scores did not fit.` : "";
    return [note(`${site.runs.length} runs, ${site.artifacts.length} artifacts and ${site.samples.toLocaleString("en")}`
      + ` samples of ${site.home}, as of ${site.made.slice(0, 16)} UTC.${left}`),
    ...site.trouble.map((line) => element("p", { class: "note bad" }, line)),
    ...searchable(rows, ["run", "scores, checkpoint by checkpoint", "status", "started", "seed", "stages"],
      ["free", "", "", "", "number", ""], values, "runs")];
  });

  views.set("run", (site, values) => {
    const run = site.runs.find((one) => one.id === values.get("id"));
    if (run === undefined) return note(`There is no run ${values.get("id")} in this site.`);
    const known = run.stages.map((stage) => stage[1]).filter((index) => index >= 0);
    const stageOf = (number) => known.indexOf(site.scores[number].artifact);
    const benchmarkOf = (number) => site.scores[number].benchmark;
    const numbers = scoresOf(site, known).sort((a, b) => benchmarkOf(a).localeCompare(benchmarkOf(b))
      || stageOf(a) - stageOf(b));
    const flips = pairsOf(site, numbers).map(([before, after]) => element("li", null,
      link(`${site.scores[before].benchmark}: ${site.scores[before].checkpoint} → ${site.scores[after].checkpoint}`,
        "flips", { before, after })));
    const stages = run.stages.map(([name, index, key, state, seconds]) => [
      index >= 0 ? link(name, "artifact", { n: index }) : name, state, seconds.toFixed(1),
      element("code", null, key), index >= 0 ? "" : "gone from the store"]);
    const verdict = (word) => element("span", { class: word === "FAIL" ? "bad" : null }, word);
    const gate = run.gate.map(([word, ...rest]) => [verdict(word), ...rest]);
    return [
      element("h2", null, run.id),
      facts([["status", run.status], ["started", run.started], ["seed", run.seed ?? "not known"],
        ["command", element("code", null, run.command)], ...(run.error ? [["error", run.error]] : []),
        ["report", run.report ? element("a", { href: run.report }, "report.html") : "none"]]),
      element("h2", null, "Scores"), table(SCORES, SCORE_KINDS, numbers.map((number) => scoreRow(site, number))),
      ...(gate.length ? [element("h2", null, "Gate: ", verdict(run.overall)),
        table(["verdict", "tier", "benchmark", "checkpoint", "asked and seen"], ["", "", "", "", "free"], gate)] : []),
      ...(flips.length ? [element("h2", null, "What flipped"), element("ul", null, flips)] : []),
      element("h2", null, "What was made from what"), vcore.graph(site.artifacts, known, -1),
      element("h2", null, "Stages"),
      table(["stage", "state", "seconds", "key", ""], ["", "", "number", "code", ""], stages),
    ];
  });

  views.set("scores", (site, values) => {
    const histories = site.histories.map(([name, runs, page]) => element("li", null,
      element("a", { href: page }, name), ` over ${runs} runs`));
    const rows = site.scores.map((score, number) => ({
      text: `${score.benchmark} ${score.checkpoint} ${score.metric} ${score.protocol}`.toLowerCase(),
      cells: () => [...scoreRow(site, number), link(site.artifacts[score.artifact][2].slice(0, 16) || "artifact",
        "artifact", { n: score.artifact })],
    }));
    return [...(histories.length ? [element("h2", null, "Over time"), element("ul", null, histories)] : []),
      element("h2", null, "Every score"),
      ...searchable(rows, [...SCORES, "made"], [...SCORE_KINDS, ""], values, "scores")];
  });

  views.set("protocol", async (site, values) => {
    const number = Number(values.get("score"));
    const score = site.scores[number];
    if (score === undefined) return note(`There is no score ${values.get("score")} in this site.`);
    return [element("h2", null, `Protocol ${score.protocol}`), note(`${score.benchmark}, ${score.checkpoint}`),
      facts(await vcore.load(`p${number}`))];
  });

  views.set("artifacts", (site, values) => {
    const rows = site.artifacts.map(([name, key, made, seconds, bytes, headline], n) => ({
      text: `${name} ${key} ${headline}`.toLowerCase(),
      cells: () => [link(name, "artifact", { n }), element("code", null, key.slice(0, 12)), made.slice(0, 16),
        seconds.toFixed(1), (bytes / 2 ** 20).toFixed(1), headline],
    })).reverse();
    return searchable(rows, ["stage", "key", "made", "seconds", "MiB", ""],
      ["", "code", "", "number", "number", "free"], values, "artifacts");
  });

  views.set("artifact", async (site, values) => {
    const n = Number(values.get("n"));
    if (site.artifacts[n] === undefined) return note(`There is no artifact ${values.get("n")} in this site.`);
    const [name, key, made, seconds, bytes, headline, inputs] = site.artifacts[n];
    const PER_FILE = 100;
    const detail = (await vcore.load(`a${Math.floor(n / PER_FILE)}`))[n % PER_FILE];
    const numbers = scoresOf(site, [n]);
    const runs = site.runs.filter((run) => run.stages.some((stage) => stage[1] === n));
    return [
      element("h2", null, name),
      facts([["key", key], ["made", made], ["seconds", seconds], ["bytes", bytes.toLocaleString("en")],
        ["content", detail.digest], ["commit", detail.commit || "none"], ["command", detail.command || "not known"],
        ...(headline ? [["measured", headline]] : [])]),
      vcore.graph(site.artifacts, vcore.lineage(site.artifacts, n), n),
      ...(inputs.length
        ? [note("Inputs: ", inputs.map(([input, , stage, from]) => `${input} of ${stage} ${from}`).join(", "))] : []),
      ...(numbers.length ? [element("h2", null, "Scores"),
        table(SCORES, SCORE_KINDS, numbers.map((number) => scoreRow(site, number)))] : []),
      element("h2", null, "Runs"),
      element("ul", null, runs.slice(0, PAGE).map((run) => element("li", null, link(run.id, "run", { id: run.id })))),
      ...[["Settings", detail.settings], ["Proof", detail.proof], ["Versions", detail.versions],
        ["Machine", detail.machine]].filter(([, pairs]) => pairs.length)
        .flatMap(([title, pairs]) => [element("h2", null, title), facts(pairs)]),
      element("h2", null, "Files"),
      table(["file", "bytes", "sha256"], ["free", "number", "code"],
        detail.files.map(([path, size, digest]) => [path, size.toLocaleString("en"), digest])),
    ];
  });
})();
