"""The metrics as `evaluate` modules: loaded by path, without a hub, in a fresh process as a stage has it."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from evaluation import metrics
from evaluation.metrics import METRICS, load_metric
from evaluation.metrics.estimates import wilson_interval


def test_accuracy_with_its_interval() -> None:
    found = load_metric("accuracy_ci").compute(predictions=[1, 0, 1, 1], references=["a", "b", "c", "d"])
    low, high = wilson_interval(3, 4)
    assert found == {"accuracy": 0.75, "low": low, "high": high, "n": 4, "k": 1}


def test_several_samples_a_problem() -> None:
    predictions, references = [1, 0, 1, 1, 0, 0], ["a", "a", "b", "b", "c", "c"]
    assert load_metric("accuracy_ci").compute(predictions=predictions, references=references)["accuracy"] == 0.5
    found = load_metric("pass_at_k").compute(predictions=predictions, references=references, k=2)
    assert (found["pass_at_k"], found["n"], found["k"]) == (pytest.approx(2 / 3), 3, 2)


def test_majority() -> None:
    found = load_metric("maj_at_k").compute(
        predictions=[1, 1, 0, 1, 0, 0], references=list("aaabbb"), votes=["r", "r", "x", "r", "y", ""]
    )
    assert (found["maj_at_k"], found["n"], found["k"]) == (0.75, 2, 3)


def test_bad_input_is_refused() -> None:
    with pytest.raises(ValueError, match="equally many"):
        load_metric("accuracy_ci").compute(predictions=[1, 0, 1], references=["a", "a", "b"])
    with pytest.raises(ValueError, match="pass@3 cannot be estimated"):
        load_metric("pass_at_k").compute(predictions=[1, 0], references=["a", "a"], k=3)
    with pytest.raises(ValueError, match="a prediction is not 0 or 1"):
        load_metric("pass_at_k").compute(predictions=[2, 0], references=["a", "a"])
    with pytest.raises(TypeError, match="unexpected keyword argument 'k'"):
        load_metric("accuracy_ci").compute(predictions=[1, 0], references=["a", "a"], k=2)
    with pytest.raises(ValueError, match="unknown metric 'f1'; there are accuracy_ci, maj_at_k, pass_at_k"):
        load_metric("f1")


def test_a_metric_says_how_it_is_used() -> None:
    for name in METRICS:
        assert "references: id of the problem" in load_metric(name).inputs_description
        assert load_metric(name).description.partition(".")[0].endswith(("problems", "right", "interval"))


@pytest.mark.slow
def test_loading_by_path_offline_and_without_torch(tmp_path: Path) -> None:
    program = (
        "import json, sys\nfrom evaluation.metrics import load_metric\n"
        "found = load_metric('pass_at_k').compute(predictions=[1, 0], references=['a', 'b'])\n"
        "heavy = sorted({'torch', 'transformers'} & set(sys.modules))\nimport transformers\n"
        "import evaluate, pathlib, evaluation.metrics as m\n"
        "again = evaluate.load(str(pathlib.Path(m.__file__).parent), 'accuracy_ci')\n"
        "again = again.compute(predictions=[1], references=['a'])\n"
        "print(json.dumps([found['pass_at_k'], heavy, again['accuracy'], bool(transformers.__version__)]))"
    )
    environment = os.environ | {"HF_HUB_OFFLINE": "1", "HF_HOME": str(tmp_path)}
    out = subprocess.run(
        [sys.executable, "-c", program], env=environment, capture_output=True, text=True, check=True
    ).stdout
    assert json.loads(out.splitlines()[-1]) == [0.5, [], 1.0, True]


@pytest.mark.slow
def test_loading_by_path_where_this_package_is_not(tmp_path: Path) -> None:
    """Isolated (-I), elsewhere, the package blocked by name: what a user has who copied the folder out of it."""
    shutil.copytree(Path(metrics.__file__).parent, tmp_path / "mine")
    program = """
import sys
sys.modules["evaluation"] = None
import json
import evaluate
asked = {"predictions": [1, 0, 1, 1], "references": ["a", "a", "b", "b"]}
found = {name: evaluate.load("mine/metrics.py", name).compute(**asked) for name in ("accuracy_ci", "pass_at_k")}
found["maj_at_k"] = evaluate.load("mine/metrics.py", "maj_at_k").compute(**asked, votes=["r", "x", "r", "r"])
try:
    evaluate.load("mine/metrics.py")
except ValueError as error:
    print(error)
print(json.dumps(found))
"""
    environment = {
        "HF_HUB_OFFLINE": "1",
        "HF_HOME": str(tmp_path / "home"),
        "HOME": str(tmp_path),
        "PATH": os.environ["PATH"],
    }
    done = subprocess.run(
        [sys.executable, "-I", "-c", program],
        cwd=tmp_path,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    asked = {"predictions": [1, 0, 1, 1], "references": ["a", "a", "b", "b"]}
    *_, refused, results = done.stdout.splitlines()
    assert refused == "unknown metric 'default'; there are accuracy_ci, maj_at_k, pass_at_k"
    assert json.loads(results) == {
        "accuracy_ci": load_metric("accuracy_ci").compute(**asked),
        "pass_at_k": load_metric("pass_at_k").compute(**asked),
        "maj_at_k": load_metric("maj_at_k").compute(**asked, votes=["r", "x", "r", "r"]),
    }


def test_pass_at_one_has_the_interval_of_the_average() -> None:
    asked = {"predictions": [1, 0, 1, 1, 0, 0, 1, 0, 0, 0, 0, 1], "references": list("aaaabbbbcccc")}
    average, first = load_metric("accuracy_ci").compute(**asked), load_metric("pass_at_k").compute(**asked, k=1)
    assert (first["pass_at_k"], first["low"], first["high"]) == (average["accuracy"], average["low"], average["high"])
