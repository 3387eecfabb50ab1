"""`vcore plan` answers in about a second because nothing it imports computes."""

import subprocess
import sys

HEAVY = ("torch", "transformers", "trl", "vllm", "datasets", "peft", "evaluate", "prefect", "matplotlib", "numpy")


def test_pipeline_and_settings_import_nothing_heavy() -> None:
    code = (
        "import sys, importlib, pkgutil, pathlib, pipeline, stages\n"
        "for m in pkgutil.iter_modules(pipeline.__path__):\n"
        "    m.name == '__main__' or importlib.import_module(f'pipeline.{m.name}')\n"
        "settings = [f'stages.{m.name}.settings' for m in pkgutil.iter_modules(stages.__path__)"
        " if pathlib.Path(stages.__path__[0], m.name, 'settings.py').is_file()]\n"
        "[importlib.import_module(s) for s in settings]\n"
        f"print(len(settings), [name for name in {HEAVY!r} if name in sys.modules])\n"
    )
    answer = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert answer == "8 []\n"
