"""`vcore plan` answers in about a second because nothing it imports computes."""

import subprocess
import sys

HEAVY = ("torch", "transformers", "trl", "vllm", "datasets", "peft", "evaluate", "prefect", "matplotlib", "numpy")
SKIP = (
    *(f"pipeline.prefect_.{name}" for name in ("flow", "view", "client", "clock", "schedule", "telling")),
    "pipeline.sweep.report",
    "pipeline.history.page",
    "pipeline.browse.site",
)
"""What runs inside Prefect, or draws a report: imported when that is wanted."""


def test_pipeline_and_settings_import_nothing_heavy() -> None:
    code = (
        "import sys, importlib, pkgutil, pathlib, pipeline, stages\n"
        "for m in pkgutil.walk_packages(pipeline.__path__, 'pipeline.'):\n"
        f"    m.name.startswith({SKIP!r}) or m.name == 'pipeline.__main__' or importlib.import_module(m.name)\n"
        "folders = [pathlib.Path(folder) for folder in stages.__path__]\n"
        "files = [f for d in folders for n in ('settings', 'stage') for f in d.glob(f'[a-z]*/{n}.py')]\n"
        "stages = ['.'.join(['stages', f.parent.name, f.stem]) for f in files]\n"
        "[importlib.import_module(name) for name in stages]\n"
        f"print(len(stages) > 15, [name for name in {HEAVY!r} if name in sys.modules])\n"
    )
    answer = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert answer == "True []\n"
