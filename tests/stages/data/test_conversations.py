"""Rows in the forms of the data sets that people train on: messages, ShareGPT's turns, nested and listed values."""

from __future__ import annotations

import dataclasses
import gzip
import json
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from evaluation.custom_problems import read_custom
from evaluation.records import Problem, RecordError, read_records
from stages.data.settings import SourceSettings
from stages.harness.context import StageError
from tests.stages.data.test_data import jsonl, made, refused
from tests.tiny import make_tiny_tokenizer

ASKED, ANSWERED, THOUGHT = "What is 2 + 3?", "It is \\boxed{5}.", "Two and three."
USER, ASSISTANT = {"role": "user", "content": ASKED}, {"role": "assistant", "content": ANSWERED}
SYSTEM = {"role": "system", "content": "Answer in a box."}
THINKING = {**ASSISTANT, "reasoning_content": THOUGHT}
SECOND = [{"role": "user", "content": "And 5 + 1?"}, {"role": "assistant", "content": "It is \\boxed{6}."}]
PARTS = [{"type": "text", "text": "What is "}, {"type": "text", "text": "2 + 3?", "image": None}]
HUMAN, GPT = {"from": "human", "value": ASKED}, {"from": "gpt", "value": ANSWERED}
TEXT_PART = [{"type": "text", "text": ANSWERED}]
THOUGHT_PART = {"type": "thinking", "thinking": THOUGHT}
GROUND_TRUTH = {"answer": "reward_model.ground_truth"}
BOTH = [USER, ASSISTANT]
CALL = {"role": "assistant", "content": None, "tool_calls": [{"function": {"name": "add"}}]}

ONE_TURN: dict[str, tuple[dict[str, Any], dict[str, Any], list[dict[str, str]]]] = {
    "OpenR1-Math-220k": (
        {
            "problem": ASKED,
            "solution": "5",
            "answer": "5",
            "generations": [ANSWERED, "other"],
            "messages": BOTH,
        },
        {},
        BOTH,
    ),
    "OpenR1-Math-220k, one of its generations": (
        {"problem": ASKED, "generations": [ANSWERED, "other"], "messages": BOTH},
        {"prompt": "problem", "completion": "generations.0"},
        BOTH,
    ),
    "OpenThoughts-114k": (
        {
            "system": SYSTEM["content"],
            "conversations": [{**HUMAN, "from": "user"}, {**GPT, "from": "assistant"}],
        },
        {"messages": "conversations", "system": "system"},
        [SYSTEM, USER, ASSISTANT],
    ),
    "OpenThoughts3": (
        {"source": "x", "conversations": [HUMAN, GPT]},
        {},
        BOTH,
    ),
    "ShareGPT with a system turn": (
        {
            "id": "1",
            "conversations": [
                {"from": "system", "value": SYSTEM["content"]},
                HUMAN,
                GPT,
            ],
        },
        {},
        [SYSTEM, USER, ASSISTANT],
    ),
    "s1K": (
        {"question": ASKED, "solution": "5", "thinking_trajectories": [THOUGHT], "attempt": ANSWERED},
        {"prompt": "question", "completion": "attempt", "reasoning": "thinking_trajectories"},
        [USER, THINKING],
    ),
    "LIMO": (
        {"question": ASKED, "solution": ANSWERED, "answer": "5"},
        {"prompt": "question", "completion": "solution"},
        BOTH,
    ),
    "WildChat": ({"conversation": [{**USER, "role": "User", "language": "x"}, ASSISTANT]}, {}, BOTH),
    "UltraChat": ({"prompt": ASKED, "prompt_id": "a", "messages": BOTH}, {}, BOTH),
    "Tulu-3": ({"id": "1", "messages": BOTH, "source": "x"}, {}, BOTH),
    "a system message without text": (
        {"messages": [{"role": "system", "content": None}, USER, ASSISTANT]},
        {},
        BOTH,
    ),
    "one column named for both": (
        {"talk": BOTH},
        {"prompt": "talk", "completion": "talk"},
        BOTH,
    ),
    "prompt and completion as messages": (
        {"prompt": [SYSTEM, USER], "completion": [ASSISTANT]},
        {},
        [SYSTEM, USER, ASSISTANT],
    ),
    "prompt as messages, completion as text": (
        {"input": [USER], "output": ANSWERED},
        {"prompt": "input", "completion": "output"},
        BOTH,
    ),
    "prompt as text, completion as messages": ({"prompt": ASKED, "completion": [ASSISTANT]}, {}, BOTH),
    "messages as JSON text": ({"messages": json.dumps(BOTH)}, {}, BOTH),
    "messages as columns": (
        {"messages": {"role": ["user", "assistant"], "content": [ASKED, ANSWERED]}},
        {},
        BOTH,
    ),
    "content in parts": ({"messages": [{**USER, "content": PARTS}, {**ASSISTANT, "content": TEXT_PART}]}, {}, BOTH),
    "reasoning_content": ({"messages": [USER, THINKING]}, {}, [USER, THINKING]),
    "gpt-oss' thinking": (
        {"messages": [{**USER, "thinking": None}, {**ASSISTANT, "thinking": THOUGHT}]},
        {},
        [USER, THINKING],
    ),
    "thinking as a part": (
        {"messages": [{**USER, "content": PARTS}, {**ASSISTANT, "content": [THOUGHT_PART, *TEXT_PART]}]},
        {},
        [USER, THINKING],
    ),
    "metadata in messages": (
        {"messages": [{**USER, "id": 3, "tool_calls": None}, {**ASSISTANT, "tool_calls": [], "weight": 1}]},
        {},
        BOTH,
    ),
    "nested": ({"data": {"chat": BOTH}}, {"messages": "data.chat"}, BOTH),
    "a question after the last answer": ({"messages": [USER, ASSISTANT, USER]}, {}, BOTH),
    "a list of one": ({"prompt": [ASKED], "completion": [ANSWERED]}, {}, BOTH),
}


def rows(output: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (output / "sft.jsonl").read_text().splitlines()]


@pytest.mark.parametrize("name", ONE_TURN)
@pytest.mark.parametrize("ending", [".jsonl", ".parquet"])
def test_a_row_in_the_form_of(tmp_path: Path, name: str, ending: str) -> None:
    row, columns, conversation = ONE_TURN[name]
    path = tmp_path / f"data{ending}"
    if ending == ".jsonl":
        jsonl(path, [row])
    else:
        import pyarrow
        from pyarrow import parquet

        parquet.write_table(pyarrow.Table.from_pylist([row]), path)
    (made_row,) = rows(made(tmp_path, sft=[{"file": str(path), "columns": columns}]))
    assert made_row["prompt"] + made_row["completion"] == conversation


def test_each_answer_is_a_row_or_only_the_last(tmp_path: Path) -> None:
    file = jsonl(tmp_path / "talks.jsonl", [{"messages": [SYSTEM, USER, THINKING, *SECOND]}])
    first, second = rows(made(tmp_path / "all", sft=[{"file": file}]))
    assert (first["id"], second["id"]) == ("talks.jsonl:1.1", "talks.jsonl:1.2")
    assert (first["prompt"], first["completion"]) == ([SYSTEM, USER], [THINKING])
    assert (second["prompt"], second["completion"]) == ([SYSTEM, USER, THINKING, SECOND[0]], [SECOND[1]])
    (last,) = rows(made(tmp_path / "last", sft=[{"file": file, "turns": "last"}]))
    assert (last["id"], last["completion"]) == ("talks.jsonl:1", [SECOND[1]])


def test_only_the_completion_of_two_columns_is_learnt(tmp_path: Path) -> None:
    row = {"prompt": [USER, ASSISTANT, SECOND[0]], "completion": [SECOND[1]]}
    (only,) = rows(made(tmp_path, sft=[{"file": jsonl(tmp_path / "a.jsonl", [row])}]))
    assert (only["prompt"], only["completion"]) == (row["prompt"], row["completion"])


RL: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
    "DAPO-Math-17k": (
        {"prompt": [USER], "reward_model": {"ground_truth": "5", "style": "rule"}, "ability": "MATH"},
        GROUND_TRUTH,
    ),
    "verl's gsm8k": (
        {
            "data_source": "gsm8k",
            "prompt": [USER],
            "reward_model": {"style": "rule", "ground_truth": "5"},
            "extra_info": {"answer": "#### 5"},
        },
        {"prompt": "prompt", "answer": "reward_model.ground_truth"},
    ),
    "Skywork-OR1": (
        {"prompt": [USER], "reward_model": {"ground_truth": '["5"]'}},
        GROUND_TRUTH,
    ),
    "an answer in a list": ({"prompt": ASKED, "answer": ["5"]}, {"answer": "answer"}),
    "a number in a list": ({"prompt": ASKED, "answer": [5]}, {"answer": "answer"}),
    "OpenR1-Math-220k": ({"problem": ASKED, "answer": "5", "messages": BOTH}, {"answer": "answer"}),
    "conversations": ({"conversations": [HUMAN], "answer": "5"}, {"answer": "answer"}),
}


@pytest.mark.parametrize("name", RL)
def test_an_rl_prompt_in_the_form_of(tmp_path: Path, name: str) -> None:
    row, columns = RL[name]
    output = made(tmp_path, rl=[{"file": jsonl(tmp_path / "rl.jsonl", [row]), "columns": columns}])
    (problem,) = read_records(output / "rl.jsonl", Problem)
    assert (problem.prompt, problem.gold, problem.context) == (ASKED, "5", [])


def test_a_gold_answer_may_be_a_number_too_large_for_a_float(tmp_path: Path) -> None:
    file = jsonl(tmp_path / "rl.jsonl", [{"prompt": "a", "answer": 10**400}])
    output = made(tmp_path, rl=[{"file": file, "columns": {"answer": "answer"}}])
    (problem,) = read_records(output / "rl.jsonl", Problem)
    assert problem.gold == str(10**400)


def test_turns_before_a_problem_are_kept_with_it(tmp_path: Path) -> None:
    row = {"prompt": [SYSTEM, USER, ASSISTANT, SECOND[0]], "answer": "6"}
    source = {"file": jsonl(tmp_path / "rl.jsonl", [row]), "columns": {"answer": "answer"}}
    (problem,) = read_records(made(tmp_path, rl=[source]) / "rl.jsonl", Problem)
    assert (problem.context, problem.prompt) == ([SYSTEM, USER, ASSISTANT], SECOND[0]["content"])


def test_turns_before_a_problem_are_asked_alike_by_evaluation_and_rl() -> None:
    from stages.generate.plan import plan_prompts
    from stages.generate.settings import BenchmarkSettings, GenerateSettings
    from stages.grpo.checks import Start
    from stages.grpo.settings import GrpoSettings

    context = [
        {"role": "system", "content": "Use a box."},
        {"role": "user", "content": "What is 1 + 1?"},
        {"role": "assistant", "content": "2"},
    ]
    asked = Problem("1", "rl", "maths", "What is 2 + 1?", "3", context=context)
    tokenizer = make_tiny_tokenizer()
    expected = (
        "<|im_start|>system\nUse a box.<|im_end|>\n<|im_start|>user\nWhat is 1 + 1?<|im_end|>\n"
        "<|im_start|>assistant\n2<|im_end|>\n<|im_start|>user\nWhat is 2 + 1?<|im_end|>\n<|im_start|>assistant\n"
    )
    settings = GenerateSettings(benchmarks=[BenchmarkSettings(name="rl")])
    (planned,) = plan_prompts(settings, {"rl": [asked]}, tokenizer)
    assert planned.text == expected
    start = Start(GrpoSettings(steps=1), Path(), "float32", None, tokenizer, {}, {})
    assert start.render(asked) == (expected, list(planned.token_ids))
    with pytest.raises(StageError, match="rl 1: the problem brings a system message of its own: leave out system_prom"):
        plan_prompts(settings.model_copy(update={"system_prompt": "Be brief."}), {"rl": [asked]}, tokenizer)
    with pytest.raises(StageError, match="1: the problem brings a system message of its own"):
        dataclasses.replace(start, settings=GrpoSettings(steps=1, system_prompt="Be brief.")).render(asked)


def test_problems_of_a_users_benchmark_may_be_messages_in_any_kind_of_file(tmp_path: Path) -> None:
    row = {"prompt": [SYSTEM, USER], "gold": "5"}
    with gzip.open(tmp_path / "exam.json.gz", "wt") as file:
        json.dump([row], file)
    (problem,) = read_custom(tmp_path / "exam.json.gz", "exam", "maths", "{prompt} Box it.")
    assert (problem.context, problem.prompt) == ([SYSTEM], f"{ASKED} Box it.")
    jsonl(tmp_path / "open.jsonl", [{"prompt": BOTH, "gold": "5"}])
    with pytest.raises(RecordError, match=r"open.jsonl:1: prompt: the last message is the assistant's"):
        read_custom(tmp_path / "open.jsonl", "exam", "maths", None)


def test_a_template_words_the_users_message_and_only_where_there_is_one(tmp_path: Path) -> None:
    file = jsonl(tmp_path / "a.jsonl", [{"messages": [SYSTEM, USER, ASSISTANT]}])
    (row,) = rows(made(tmp_path / "one", sft=[{"file": file, "template": "Solve: {prompt}"}]))
    assert row["prompt"] == [SYSTEM, {"role": "user", "content": f"Solve: {ASKED}"}]
    two = jsonl(tmp_path / "b.jsonl", [{"messages": [USER, ASSISTANT, *SECOND]}])
    error = refused(tmp_path / "two", sft=[{"file": two, "template": "Solve: {prompt}"}])
    assert "row 1: the user speaks 2 times, a template words one message" in error.message


def test_demonstrations_in_messages_are_verified(tmp_path: Path) -> None:
    data = [{"messages": BOTH, "answer": ["5"]}, {"messages": BOTH, "answer": "6"}]
    source = {"file": jsonl(tmp_path / "a.jsonl", data), "columns": {"answer": "answer"}, "verified": True}
    assert [row["id"] for row in rows(made(tmp_path, sft=[source]))] == ["a.jsonl:1"]


def test_a_benchmarks_problem_in_an_earlier_turn_is_overlap(tmp_path: Path) -> None:
    exam = jsonl(tmp_path / "exam.jsonl", [{"prompt": ASKED, "gold": "5"}])
    talk = jsonl(tmp_path / "a.jsonl", [{"messages": [USER, ASSISTANT, *SECOND]}])
    benchmarks = [{"name": "exam", "own": {"file": exam}}]
    error = refused(tmp_path, sft=[{"file": talk, "turns": "last"}], benchmarks=benchmarks)
    assert "a.jsonl:1 = exam 1" in error.message


@pytest.mark.parametrize(
    ("row", "columns", "message"),
    [
        ({"messages": [USER, CALL]}, {}, "message 2 has tool_calls: calls of tools are not trained on"),
        ({"messages": [USER, {"role": "tool", "content": "5"}]}, {}, "message 2 has the role 'tool'"),
        (
            {"conversations": [{"from": "human", "value": "a"}, {"from": "function_call", "value": "b"}]},
            {},
            "the role 'function_call'",
        ),
        ({"messages": BOTH, "tools": [{"name": "add"}]}, {}, "offers tools to the model"),
        (
            {"messages": [{"role": "user", "content": [{"type": "image_url", "image_url": "x"}]}]},
            {},
            "a part of the type 'image_url'",
        ),
        ({"messages": [USER, {**ASSISTANT, "weight": 0}]}, {}, "message 2 has a weight of its own"),
        ({"messages": [USER, {**ASSISTANT, "loss_mask": 0}]}, {}, "message 2 has a weight of its own"),
        ({"messages": [USER, {"role": "assistant", "content": " "}]}, {}, "message 2 of the assistant has no text"),
        (
            {"messages": [USER, {**ASSISTANT, "reasoning_content": ["a", "b"]}]},
            {},
            "message 2 has the reasoning_content ['a', 'b'], expected text",
        ),
        ({"messages": [USER, {**ASSISTANT, "thinking": 5}]}, {}, "message 2 has the thinking 5, expected text"),
        (
            {"messages": [USER, {"role": "assistant", "content": "<think>a</think>b", "reasoning_content": "c"}]},
            {},
            "a thought before </think> and another one",
        ),
        (
            {"prompt": "a", "thought": "b", "completion": "<think>c</think>d"},
            {"reasoning": "thought"},
            "a thought before </think> and another one",
        ),
        ({"messages": [USER]}, {}, "row 1: no assistant answers a user in it, there is user"),
        ({"messages": [ASSISTANT]}, {}, "no assistant answers a user in it, there is assistant"),
        ({"messages": [{**SYSTEM, "content": None}]}, {}, "no message has text"),
        ({"messages": [USER, SYSTEM, ASSISTANT]}, {}, "a system message stands after another message"),
        ({"messages": []}, {}, "column 'messages' is [], expected a list of messages"),
        ({"messages": "a"}, {"messages": "messages"}, "column 'messages' is 'a', expected a list of messages"),
        ({"messages": BOTH, "conversations": [USER]}, {}, "its conversation in messages or conversations"),
        ({"prompt": BOTH, "completion": "a"}, {}, "the last message of 'prompt' is the assistant's"),
        ({"prompt": ASKED, "completion": BOTH}, {}, "the first message of 'completion' is the user's"),
        ({"prompt": "a", "completion": ["b", "c"]}, {}, "column 'completion' is ['b', 'c'], expected text"),
        ({"prompt": {"text": "a"}, "completion": "b"}, {}, "column 'prompt' is {'text': 'a'}, expected text"),
        ({"messages": [{**USER, "content": "\ud83d"}, ASSISTANT]}, {}, "message 1 is no valid text"),
        ({"messages": [SYSTEM, USER, ASSISTANT], "system": "Be brief."}, {"system": "system"}, "and one in 'system'"),
    ],
)
def test_a_row_that_is_no_conversation_is_one_clear_error(
    tmp_path: Path, row: dict[str, Any], columns: dict[str, Any], message: str
) -> None:
    error = refused(tmp_path, sft=[{"file": jsonl(tmp_path / "a.jsonl", [row]), "columns": columns}])
    assert message in error.message
    assert error.message.startswith("data.sft.0: row 1")


def test_the_remedy_names_what_to_set(tmp_path: Path) -> None:
    listed = refused(
        tmp_path / "a", sft=[{"file": jsonl(tmp_path / "a.jsonl", [{"prompt": "a", "completion": ["b", "c"]}])}]
    )
    assert listed.fix == "Where every row is so, name one of them: completion.0."
    whole = refused(tmp_path / "b", sft=[{"file": jsonl(tmp_path / "b.jsonl", [{"prompt": BOTH, "completion": "c"}])}])
    assert whole.fix == "Where every row is so, it holds whole conversations: set columns.messages: prompt."
    with pytest.raises(ValidationError, match="messages: holds whole conversations; leave out prompt, completion"):
        SourceSettings.model_validate({"file": "a.jsonl", "columns": {"messages": "messages", "prompt": "question"}})
