"""A run's results as tables for papers and spreadsheets, made from its report.json, which older runs have as well."""

from stages.report.documents import BenchmarkResult, Report
from stages.report.render.tables import booktabs, csv_text, tex

NUMBERS = ("checkpoint", "benchmark", "metric", "value", "low", "high", "n", "k", "truncated", "no_answer", "protocol")


def as_csv(report: Report) -> str:
    """One line a checkpoint and benchmark, with the 95 % interval over problems, as shares."""
    rows = ([*(getattr(result, name) for name in NUMBERS), report.seed] for result in report.results)
    return csv_text([[*NUMBERS, "seed"], *rows])


def as_latex(report: Report) -> str:
    """One booktabs table: benchmarks down, checkpoints across; per cent with the 95 % interval over problems."""

    def row(benchmark: str) -> list[str]:
        results = [report.result(checkpoint, benchmark) for checkpoint in report.checkpoints]
        count = next(result.n for result in results if result is not None)
        return [tex(benchmark), str(count), *map(_cell, results)]

    columns = "lr" + "r" * len(report.checkpoints)
    header = ["", "$n$", *map(tex, report.checkpoints)]
    return booktabs(["95 % intervals over problems, one seed"], columns, header, [*map(row, report.benchmarks)])


def _cell(result: BenchmarkResult | None) -> str:
    if result is None:
        return "--"
    return rf"${100 * result.value:.1f}\ [{100 * result.low:.1f}, {100 * result.high:.1f}]$"
