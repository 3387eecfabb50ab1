"use strict";
// Samples as columns: loaded once for each score, filtered by a pass over all of them.
vcore.VERDICTS = [["c", "correct"], ["w", "wrong"], ["n", "no answer"], ["t", "timeout"], ["e", "grader error"]];
vcore.ENDINGS = [["s", "ended by itself"], ["l", "cut at the limit"], ["p", "prompt too long"], ["u", "not known"]];

vcore.verdict = (letter) => vcore.VERDICTS.find(([known]) => known === letter)[1];

// {number, columns, asked: what each problem can be found by, answered: likewise each sample's answer}
vcore.samplesOf = (() => {
  const prepared = new Map();
  return async (number) => {
    if (!prepared.has(number)) {
      const columns = await vcore.load(`c${number}`);
      prepared.set(number, {
        number,
        columns,
        asked: columns.problems.map((texts) => texts.join("\n").toLowerCase()),
        answered: columns.extracted.map((text) => (text === null ? "" : text.toLowerCase())),
      });
    }
    return prepared.get(number);
  };
})();

// The samples that are wanted, as [score, row, score, row, ...]. Every word of `text` must be in the problem's id, its
// question or gold answer, or in the extracted answer. `verdict`: a letter, or "!c" for everything but correct.
vcore.filterSamples = (sets, { text = "", verdict = "", ending = "" }) => {
  const words = text.toLowerCase().split(/\s+/).filter((word) => word !== "");
  const found = [];
  for (const { number, columns, asked, answered } of sets) {
    const { problem, verdict: verdicts, ending: endings } = columns;
    const has = words.map((word) => asked.map((searched) => searched.includes(word)));
    for (let row = 0; row < problem.length; row += 1) {
      const letter = verdicts[row];
      if (verdict !== "" && (verdict === "!c" ? letter === "c" : letter !== verdict)) continue;
      if (ending !== "" && endings[row] !== ending) continue;
      if (words.every((word, i) => has[i][problem[row]] || answered[row].includes(word))) found.push(number, row);
    }
  }
  return found;
};

// Problems whose share of right samples differs between two scores: [{problem, before, after, rows: [row, row]}].
vcore.flips = (before, after) => {
  const shares = ({ columns }) => {
    const known = new Map();
    columns.problem.forEach((problem, row) => {
      const name = columns.problems[problem][0];
      const one = known.get(name) || { right: 0, samples: 0, row };
      one.right += columns.verdict[row] === "c" ? 1 : 0;
      one.samples += 1;
      known.set(name, one);
    });
    return known;
  };
  const [old, now] = [shares(before), shares(after)];
  const found = [];
  for (const [name, was] of old) {
    const is = now.get(name);
    if (is !== undefined && was.right / was.samples !== is.right / is.samples) {
      found.push({ problem: name, before: was, after: is });
    }
  }
  return found;
};

// What a sample says in full: {question, prompt, completion, extracted, gold, detail}; null where it is not known.
vcore.textsOf = async (number, row) => {
  const { starts } = (await vcore.samplesOf(number)).columns;
  let chunk = starts.length - 1;
  while (starts[chunk] > row) chunk -= 1;
  const { rows, texts } = await vcore.load(`t${number}-${chunk}`);
  const [question, prompt, completion, extracted, gold, detail] = rows[row - starts[chunk]];
  const shared = (place) => (place === null ? null : texts[place]);
  return { question: shared(question), prompt: shared(prompt), completion, extracted, gold: shared(gold), detail };
};
