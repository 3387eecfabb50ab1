"""A run's results as tables for papers and spreadsheets, made from its report.json, which older runs have as well."""

from __future__ import annotations

import csv
import io
import re
from typing import Any

NUMBERS = ("checkpoint", "benchmark", "metric", "value", "low", "high", "n", "k", "truncated", "no_answer", "protocol")
_TEX = {
    "\\": r"\textbackslash{}",
    "^": r"\textasciicircum{}",
    "~": r"\textasciitilde{}",
    **{sign: f"\\{sign}" for sign in "&%$#_{}"},
}


def as_csv(report: dict[str, Any]) -> str:
    """One line a checkpoint and benchmark, with the 95 % interval over problems, as shares."""
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow([*NUMBERS, "seed"])
    for row in report["results"]:
        writer.writerow([*(row[name] for name in NUMBERS), report["seed"]])
    return out.getvalue()


def as_latex(report: dict[str, Any]) -> str:
    """One booktabs table: benchmarks down, checkpoints across; per cent with the 95 % interval over problems."""
    cells = {(row["benchmark"], row["checkpoint"]): row for row in report["results"]}
    checkpoints = list(dict.fromkeys(row["checkpoint"] for row in report["results"]))
    lines = [
        "% 95 % intervals over problems, one seed",
        r"\begin{tabular}{lr" + "r" * len(checkpoints) + "}",
        r"\toprule",
    ]
    lines += [" & ".join(["", "$n$", *map(tex, checkpoints)]) + r" \\", r"\midrule"]
    for benchmark in dict.fromkeys(row["benchmark"] for row in report["results"]):
        found = [cells.get((benchmark, checkpoint)) for checkpoint in checkpoints]
        shown = [
            "--" if row is None else rf"${100 * row['value']:.1f}\ [{100 * row['low']:.1f}, {100 * row['high']:.1f}]$"
            for row in found
        ]
        count = next(row["n"] for row in found if row is not None)
        lines.append(" & ".join([tex(benchmark), str(count), *shown]) + r" \\")
    return "\n".join([*lines, r"\bottomrule", r"\end{tabular}", ""])


def tex(text: str) -> str:
    """Text in which nothing is LaTeX."""
    return re.sub(r"[\\^~&%$#_{}]", lambda found: _TEX[found[0]], text)
