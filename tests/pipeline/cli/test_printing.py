"""How numbers and progress are written."""

from pipeline.cli.printing import gib
from stages.harness.documents import Progress


def test_little_memory_is_told_in_mib() -> None:
    assert [gib(amount) for amount in (1.54, 0.1, 0.05, 0.0)] == ["1.5 GiB", "0.1 GiB", "51 MiB", "0 MiB"]


def test_a_phase_without_steps_counts_none() -> None:
    assert [Progress(phase="p", step=step, total=total).count for step, total in ((0, None), (3, None), (0, 9))] == [
        "",
        "3",
        "0/9",
    ]
