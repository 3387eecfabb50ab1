"""The samples of a generate stage that are done, kept on disk as they come."""

import dataclasses
import json
from pathlib import Path
from typing import Self, TextIO

from evaluation.engines import Sampled
from stages.generate.plan import SampleId


class Finished:
    """Those of the `planned` samples that are done, each written to `path` as it comes: a killed run loses none."""

    def __init__(self, path: Path, planned: set[SampleId]) -> None:
        self.planned = planned
        self.samples: dict[SampleId, Sampled] = {}
        complete = []
        if path.exists():
            lines = path.read_text(encoding="utf-8").split("\n")
            for line in lines[:-1]:  # what follows the last line break was cut by a kill
                row = json.loads(line)
                sample = (row.pop("benchmark"), row.pop("problem_id"), row.pop("sample"))
                if sample in planned and sample not in self.samples:
                    self.samples[sample] = Sampled(**row)
                    complete.append(line)
        path.write_text("".join(line + "\n" for line in complete), encoding="utf-8")
        self._file: TextIO = open(path, "a", encoding="utf-8")  # noqa: SIM115 - closed by __exit__

    @property
    def missing(self) -> int:
        """How many samples are still to be drawn."""
        return len(self.planned) - len(self.samples)

    def add(self, sample: SampleId, sampled: Sampled) -> None:
        """Keep one sample, on disk first."""
        benchmark, problem, number = sample
        row = {"benchmark": benchmark, "problem_id": problem, "sample": number, **dataclasses.asdict(sampled)}
        self._file.write(json.dumps(row, ensure_ascii=False) + "\n")
        self._file.flush()
        self.samples[sample] = sampled

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        self._file.close()
