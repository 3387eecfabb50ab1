"""The data stage: demonstrations, prompts and benchmark problems, loaded, checked and kept apart."""

from collections.abc import Iterable, Iterator
from pathlib import Path

from evaluation.benchmarks import get, modules
from stages.data.settings import DataSettings, SourceSettings
from stages.harness.declaration import DataPlaces, Origin, StageDeclaration

IN_DATA_DIR = "Check data_dir in the config (or VCORE_DATA_DIR): the file is looked for below it."
LOCAL_BENCHMARK = "Set data_dir (or VCORE_DATA_DIR) to a folder with a local copy; docs/data.md lists the files."
LOCAL_DATASET = (
    "Use `file:` with a local copy instead of `hub:`, or pin `revision:` to a commit that is in the hub's cache here."
)


def _origins(settings: DataSettings, places: DataPlaces) -> Iterator[Origin]:
    for kind, sources in (("sft", settings.sft), ("rl", settings.rl), ("dev", settings.dev)):
        for index, source in enumerate(sources):
            yield from _of_source(f"data.{kind}.{index}", source, places)
    for benchmark in settings.benchmarks:
        if benchmark.own is not None:
            yield Origin(f"benchmarks.{benchmark.name}.own.file", path=Path(benchmark.own.file).expanduser())
        else:
            revision = places.revisions.get(benchmark.name)
            yield from _of_task(f"benchmark {benchmark.name}", benchmark.name, benchmark.split, revision, places)


def _of_source(label: str, source: SourceSettings, places: DataPlaces) -> Iterator[Origin]:
    if source.task is not None:  # where the source names no revision, the task's own counts
        revision = source.revision if source.revision != "main" else None
        yield from _of_task(label, source.task, source.split, revision, places)
    elif source.file is not None:
        yield Origin(label, path=Path(source.file).expanduser())
    elif source.hub is not None:
        yield Origin(label, hub=source.hub, revision=source.revision, fix=LOCAL_DATASET)


def _of_task(label: str, task: str, split: str, revision: str | None, places: DataPlaces) -> Iterator[Origin]:
    source = get(task).sources.get(split)
    if source is None:
        return  # generated from a seed
    if places.folder is not None:
        local = places.folder / source.local
        if source.rows_in:
            yield Origin(label, path=local, holds=source.rows_in, what=f"folder {local}", fix=IN_DATA_DIR)
        elif not source.files:
            yield Origin(label, path=local, fix=IN_DATA_DIR)
        for file in source.files:
            yield Origin(f"{label} {file}", path=local / file, fix=IN_DATA_DIR)
    else:
        yield Origin(label, hub=source.hub, revision=revision or source.revision, fix=LOCAL_BENCHMARK)


def tasks(settings: DataSettings) -> Iterable[str]:
    """Names of the benchmarks whose modules load the rows."""
    sources = [*settings.sft, *settings.rl, *settings.dev]
    yield from (source.task for source in sources if source.task is not None)
    yield from (benchmark.name for benchmark in settings.benchmarks if benchmark.own is None)


def programs(settings: DataSettings) -> Iterable[str]:
    """Modules that run in processes of their own: the grader's, where demonstrations are verified."""
    if any(source.verified for source in settings.sft):
        yield "evaluation.graders.maths_worker"
    if any(source.verify for source in settings.sft):
        yield from ("evaluation.sandbox.child.main", "evaluation.sandbox.child.start")


STAGE = StageDeclaration(
    name="data",
    settings=DataSettings,
    libraries=("datasets", "math-verify", "latex2sympy2_extended", "sympy"),
    packages=lambda s: s.packages,
    loads=lambda s: [*modules(tasks(s)), *programs(s)],
    origins=_origins,
)
