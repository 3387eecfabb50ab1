"""The catalogue: which benchmarks there are, in which modules, and that a name loads its module and no other."""

import importlib
import pkgutil
import subprocess
import sys
from pathlib import Path

import pytest

from evaluation import benchmarks
from evaluation.benchmarks import Benchmark, get, modules, names
from evaluation.loading import digest, load


def test_names() -> None:
    contests = {"aime24", "aime25", "amc23", "math500", "olympiadbench", "svamp"}
    fresh = {
        "aime26",
        "hmmt_feb25",
        "hmmt_nov25",
        "hmmt_feb26",
        "brumo25",
        "beyond_aime",
        "gpqa_diamond",
        "imo_answerbench",
    }
    assert set(names()) == contests | fresh | {
        "gsm8k",
        "humaneval",
        "humaneval_plus",
        *(f"livecodebench_v{number}" for number in range(1, 7)),
        "mbpp",
        "mbpp_plus",
        "mbpp_sanitized",
        "noisy_word_problems",
        "ojbench_cpp",
        "ojbench_python",
        "rbench_t",
        "supergpqa",
        "tiny_code",
        "word_problems",
    }
    assert all(get(name).name == name for name in names())


def test_every_benchmark_of_every_module_is_catalogued_there() -> None:
    found = pkgutil.walk_packages(benchmarks.__path__, f"{benchmarks.__name__}.")
    defined = {
        value.name: module.name
        for module in found
        for value in vars(importlib.import_module(module.name)).values()
        if isinstance(value, Benchmark)
    }
    assert {name: modules([name]) for name in names()} == {name: (module,) for name, module in defined.items()}


def test_the_modules_of_several_are_named_once_in_order() -> None:
    here = "evaluation.benchmarks"
    assert modules(["mbpp_sanitized", "aime24", "mbpp"]) == (f"{here}.code.mbpp", f"{here}.maths.aime24")
    assert modules([]) == ()


def test_only_what_is_asked_for_by_name_is_imported() -> None:
    program = (
        "import sys\nfrom evaluation import benchmarks\n"
        "def loaded(): return sorted(m for m in sys.modules if m.startswith('evaluation.benchmarks.'))\n"
        "print(*loaded())\nbenchmarks.get('math500')\nprint(*loaded())"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    at_first, after = (
        {name.removeprefix("evaluation.benchmarks.") for name in line.split()} for line in done.stdout.splitlines()
    )
    assert at_first == {"base", "catalogue"}
    assert after - at_first == {"maths", "maths.math500", "prompts", "rows"}


def test_an_unknown_name_gets_the_nearest() -> None:
    with pytest.raises(ValueError, match=r"unknown benchmark 'aime2'; did you mean 'aime2[456]'"):
        get("aime2")
    with pytest.raises(ValueError, match="known: aime24, aime25, aime26, amc23"):
        get("zzz")


@pytest.mark.parametrize("name", ["humaneval", "humaneval_plus", "mbpp", "mbpp_plus", "mbpp_sanitized"])
def test_code_problems_are_the_ones_this_project_was_checked_against(name: str, benchmark_data: Path) -> None:
    assert digest(load(get(name), "test", benchmark_data)) == get(name).digest is not None
