"""Columns that a benchmark's file has to have by the config, looked for before anything runs."""

from collections.abc import Sequence

from pipeline.core.errors import ConfigError
from pipeline.plan.graph import Stage
from stages.data.settings import DataSettings
from stages.harness.own_files import BenchmarkColumns


def check_columns(stages: Sequence[Stage]) -> None:
    """Raise `ConfigError` where no row of a file has a column that its benchmark's settings name, or the
    file cannot be read."""
    settings = [stage.settings for stage in stages if isinstance(stage.settings, DataSettings)]
    for benchmark in (benchmark for one in settings for benchmark in one.benchmarks):
        if benchmark.own is None or benchmark.own.columns == BenchmarkColumns():
            continue
        from evaluation.records import RecordError
        from stages.data.own_problems import rows_with_columns
        from stages.harness.context import StageError

        try:
            rows_with_columns(benchmark.own, f"benchmarks.{benchmark.name}.own")
        except StageError as error:
            raise ConfigError(error.message, fix=error.fix) from error
        except (RecordError, OSError) as error:
            fix = "Correct the file; docs/own.md has the forms."
            raise ConfigError(f"benchmark {benchmark.name}: {error}", fix=fix) from error
