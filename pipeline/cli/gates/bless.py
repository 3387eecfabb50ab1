"""`vcore bless`: the run that later ones are held against."""

from pathlib import Path
from typing import Annotated

from pipeline.cli.options import Home, argument, option
from pipeline.cli.printing import show


def bless(
    run: Annotated[str, argument("RUN", "A run's id, its beginning, or `latest`.")],
    by: Annotated[str | None, option("--by", "Who blesses it. Default: the user.", metavar="NAME")] = None,
    even_failed: Annotated[bool, option("--even-failed", "Also one that failed, was stopped or is not done.")] = False,
    home: Home = Path(".vcore"),
) -> None:
    """Make a run the baseline of its pipeline: later runs are held against it, and gc keeps what it made."""
    from pipeline.run.gates.baseline import bless as bless_run

    blessing = bless_run(home, run, by, even_failed=even_failed)
    show(f"{blessing.run} is the baseline of its pipeline with seed {blessing.seed}: blessed by {blessing.by}")
