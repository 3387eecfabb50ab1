"""What of the training rows is a benchmark's problem: compared by what is asked, whatever instruction stands around
it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from evaluation.benchmarks import get, names
from evaluation.benchmarks.prompts import choice_prompt, maths_prompt
from evaluation.loading import LoadError, load
from evaluation.records import Problem, read_records
from stages.data.overlap import Hit, ReportedQuestions
from stages.data.questions import question, spoken
from tests.stages.data.test_data import jsonl, made, refused


def find(training: dict[str, str], benchmark: str, problems: list[str], ngram: int | None = 13) -> list[Hit]:
    questions = {str(number): question(prompt) for number, prompt in enumerate(problems)}
    return ReportedQuestions({benchmark: questions}, ngram).find(
        {name: [question(prompt)] for name, prompt in training.items()}
    )


def test_a_short_problem_is_found_with_and_without_the_instruction() -> None:
    problems = [maths_prompt("Compute $\\sin 60^\\circ$."), maths_prompt("Compute $2 + 3$.")]
    training = {
        "bare": "compute $\\sin 60^{\\circ}$",
        "told": maths_prompt("Compute $\\sin 60^\\circ$."),
        "half": (
            "Compute $\\sin 60^\\circ$.\n"
            "Please reason step by step, and put the correct answer within \\boxed{} at last."
        ),
        "other": "Compute $\\cos 60^\\circ$.",
        "less": "Compute $2 - 3$.",
    }
    assert [(hit.training, hit.problem) for hit in find(training, "math500", problems)] == [
        ("bare", "0"),
        ("told", "0"),
        ("half", "0"),
    ]


@pytest.mark.parametrize("problems", [1, 2, 3])
def test_an_instruction_that_both_have_is_no_overlap(problems: int) -> None:
    texts = [
        "How many primes are below 7?",
        "What is the area of a circle of radius 5?",
        "Find the sum of all divisors of 28.",
    ]
    training = {"other": maths_prompt("How many squares are below 20?")}
    assert find(training, "exam", [maths_prompt(text) for text in texts[:problems]]) == []


@pytest.mark.parametrize(("problems", "hits"), [(1, 1), (2, 0), (3, 0)])
def test_what_all_problems_share_is_their_instruction(problems: int, hits: int) -> None:
    """Words of the user's own, which nothing says are an instruction: with one problem they may be the problem."""
    around = "You are taking the final examination of the course, and every answer has to be a number. {}"
    texts = [
        "How many primes are below 7?",
        "What is the area of a circle of radius 5?",
        "Find the sum of all divisors of 28.",
    ]
    found = find(
        {"other": around.format("Count the squares.")}, "exam", [around.format(text) for text in texts[:problems]]
    )
    assert len(found) == hits


def test_long_shared_runs_of_real_benchmarks_are_found() -> None:
    texts = [
        "Every morning Aya goes for a nine kilometre long walk and stops at a coffee shop afterwards",
        "Let ABC be a triangle inscribed in a circle and let the tangents at B and C meet at D now",
        "There exist real numbers x and y both greater than one such that their logarithms agree twice over",
    ]
    prompts = {
        "same": texts[0].upper(),
        "inside": f"Solve this: {texts[1]}, then explain.",
        "short": "Let ABC be a triangle inscribed in a circle. Find its area.",
    }
    problems = [maths_prompt(text) for text in texts]
    hits = find(prompts, "aime24", problems)
    assert [(hit.training, hit.problem, bool(hit.shared)) for hit in hits] == [
        ("same", "0", False),
        ("inside", "1", True),
    ]
    assert [hit.training for hit in find(prompts, "aime24", problems, None)] == ["same"]


def test_a_multiple_choice_question_keeps_its_options() -> None:
    prompt = choice_prompt("Which of these is a prime?", ["four", "five"])
    assert question(prompt) == spoken("Which of these is a prime? A) four B) five")
    assert find({"other": "Which of these is a prime?"}, "exam", [prompt]) == []


@pytest.mark.parametrize("name", [name for name in names() if get(name).kind != "choice"])
def test_every_task_of_ours_is_asked_without_its_instruction(name: str, benchmark_data: Path) -> None:
    """A new way of asking has to be made known to `stages.data.questions`: its last words would else end every
    question."""
    try:
        problems = load(get(name), "test", benchmark_data, limit=None if get(name).generate is None else 100)
    except LoadError as error:
        if "does not exist" not in str(error):
            raise
        pytest.skip(f"NOT TESTED ON REAL DATA: {error}")
    questions = [question(problem.prompt) for problem in problems]
    ends = [asked[-6:] for asked in questions]
    starts = [asked[:9] for asked in questions]
    assert max(map(ends.count, ends)) <= len(problems) / 4
    if name != "tiny_code":  # whose task itself begins with the same words
        assert max(map(starts.count, starts)) <= len(problems) / 4
    assert all(questions)


def test_bare_questions_of_real_benchmarks_in_a_users_file_are_refused(tmp_path: Path, benchmark_data: Path) -> None:
    asked = {
        "math500": "Compute $99^2 + 99 + 1$ in your head.",
        "mbpp": "Write a python function to find the volume of a triangular prism.",
    }
    rows = [{"prompt": prompt, "completion": "x"} for prompt in asked.values()]
    source = {"file": jsonl(tmp_path / "leak.jsonl", rows)}
    error = refused(tmp_path, benchmark_data, sft=[source], benchmarks=[{"name": name} for name in asked])
    assert "2 training prompts are benchmark problems" in error.message


def own_benchmark(path: Path, prompt: str, template: str | None = None) -> dict[str, Any]:
    own = {"file": jsonl(path, [{"prompt": prompt, "gold": "4"}]), **({"template": template} if template else {})}
    return {"name": "exam", "own": own}


def test_templates_of_sources_and_of_own_benchmarks_do_not_count(tmp_path: Path) -> None:
    exam = own_benchmark(
        tmp_path / "exam.jsonl", "What is 2 + 2?", "Exam of today. {prompt} Answer with one number only."
    )
    rows = [{"prompt": "What is 2 + 2 ?", "completion": "4"}, {"prompt": "What is 2 + 5?", "completion": "7"}]
    source = {"file": jsonl(tmp_path / "rows.jsonl", rows), "template": "Please solve: {prompt} Put it in a box."}
    error = refused(tmp_path, sft=[source], benchmarks=[exam])
    assert (
        "1 training prompts are benchmark problems, or hold long parts of one: rows.jsonl:1 = exam 1" in error.message
    )


@pytest.mark.parametrize("section", ["sft", "rl"])
@pytest.mark.parametrize("how", [{"on_overlap": "drop"}, {"max_overlap_share": 0.9}])
def test_a_set_of_which_nothing_is_left_stops_the_data_stage(tmp_path: Path, section: str, how: dict[str, Any]) -> None:
    exam = own_benchmark(tmp_path / "exam.jsonl", "What is 2 + 2?")
    leaked = {"file": jsonl(tmp_path / "leak.jsonl", [{"prompt": "What is 2 + 2?", "completion": "4", "answer": "4"}])}
    clean = {"file": jsonl(tmp_path / "clean.jsonl", [{"prompt": "What is 2 + 5?", "completion": "7", "answer": "7"}])}
    sources = {
        name: [{**(leaked if name == section else clean), "columns": {"answer": "answer"}}] for name in ("sft", "rl")
    }
    error = refused(tmp_path, **sources, **how, benchmarks=[exam])
    assert f"data.{section}: all 1 prompts are benchmark problems" in error.message
    assert "leak.jsonl:1 = exam 1" in error.message


def test_files_of_one_name_do_not_hide_each_other(tmp_path: Path) -> None:
    """Their rows had the same ids: of two rows with one id only the later was compared, and both were left out."""
    exam = own_benchmark(tmp_path / "exam.jsonl", "What is 2 + 2?")
    sources = []
    for folder, prompts in (("a", ["What is 2 + 2?", "What is 1 + 1?"]), ("b", ["What is 2 + 5?", "What is 2 + 6?"])):
        (tmp_path / folder).mkdir()
        rows = [{"prompt": prompt, "completion": "x", "answer": "1"} for prompt in prompts]
        sources.append({"file": jsonl(tmp_path / folder / "rows.jsonl", rows), "columns": {"answer": "answer"}})
    output = made(tmp_path, sft=sources, rl=sources, benchmarks=[exam], on_overlap="drop")
    assert [problem.id for problem in read_records(output / "rl.jsonl", Problem)] == [
        "rows.jsonl:2",
        "rows.jsonl#2:1",
        "rows.jsonl#2:2",
    ]
    assert json.loads((output / "summary.json").read_text())["sft"]["by_source"] == {"rows.jsonl": 1, "rows.jsonl#2": 2}


def test_dev_problems_are_compared_by_what_they_ask(tmp_path: Path) -> None:
    train = {
        "file": jsonl(tmp_path / "train.jsonl", [{"prompt": "What is 2 + 5?", "answer": "7"}]),
        "columns": {"answer": "answer"},
    }
    dev = {
        "file": jsonl(tmp_path / "dev.jsonl", [{"prompt": "what is 2+5", "answer": "7"}]),
        "columns": {"answer": "answer"},
    }
    error = refused(tmp_path, rl=[{**train, "template": "Solve. {prompt}"}], dev=[dev])
    assert "1 problems of data.dev are training prompts too: dev.jsonl:1" in error.message


def test_an_rl_problem_that_is_there_twice_is_refused(tmp_path: Path) -> None:
    error = refused(tmp_path, rl=[{"task": "word_problems", "rows": 4}, {"task": "word_problems", "rows": 2}])
    assert "data.rl: the problem train-" in error.message
    assert "is there 2 times" in error.message
