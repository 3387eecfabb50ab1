"""What SFT trains on: after exactly the evaluation's prompt the whole demonstration, or a refusal before training."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import trl
from datasets import Dataset
from trl import SFTTrainer

from evaluation import chat
from stages.harness.context import Context, StageError
from stages.sft import run as sft
from stages.sft.encoding import encoded, read_demonstrations, tokens_of
from stages.sft.rendering import LostText, Rendered, render
from stages.sft.settings import SftSettings
from stages.training.checkpoint import load_model_and_tokenizer
from tests.tiny import make_tiny_model, make_tiny_tokenizer, read_stage_run, tiny_demonstrations, write_jsonl

MakeContext = Callable[..., Context[SftSettings]]
PACKAGED = sorted((Path(trl.__file__).parent / "chat_templates").glob("*.jinja"))
ASKED = [{"role": "user", "content": "What is 2 + 3?"}]
THOUGHT, ANSWER = "Two and three,\n\nso five.", "It is \\boxed{5}."
FORMS = {
    "thought in the content": {"content": f"<think>\n{THOUGHT}\n</think>\n\n{ANSWER}"},
    "thought without its opening": {"content": f"{THOUGHT}\n</think>\n\n{ANSWER}"},
    "thought apart": {"content": ANSWER, "reasoning_content": THOUGHT},
    "an empty thought": {"content": f"<think>\n\n</think>\n\n{ANSWER}"},
    "no thought": {"content": ANSWER},
}
CHATML = (
    "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ CONTENT }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\nOPENING{% endif %}"
)
STRIPPING = "m.content.split('</think>')[-1].lstrip('\n')"


def template(content: str = "m.content", opening: str = "") -> str:
    return CHATML.replace("CONTENT", content).replace("OPENING", opening)


def rendered(chat_template: str, form: str | dict[str, str], enable_thinking: bool | None = None) -> Rendered:
    tokenizer = make_tiny_tokenizer()
    tokenizer.bos_token, tokenizer.chat_template = "<bos>", chat_template
    answer = FORMS[form] if isinstance(form, str) else form
    return render(tokenizer, ASKED, {"role": "assistant", **answer}, enable_thinking)


@pytest.mark.parametrize("thinking", [None, True, False])
@pytest.mark.parametrize("path", PACKAGED, ids=lambda path: path.stem)
def test_with_any_packaged_template_a_row_is_whole_after_the_evaluations_prompt_or_refused(
    path: Path, thinking: bool | None
) -> None:
    tokenizer = make_tiny_tokenizer()
    tokenizer.bos_token, tokenizer.chat_template = "<bos>", path.read_text()
    for form in FORMS:
        try:
            row = rendered(path.read_text(), form, thinking)
        except ValueError:  # among them LostText
            continue
        assert row.prompt == chat.render(tokenizer, ASKED[0]["content"], None, thinking)[0]
        written = "".join(row.answer.split())
        assert row.answer.count(ANSWER) == 1
        if form not in ("no thought", "an empty thought"):
            assert written.index("".join(THOUGHT.split())) < written.index("".join(ANSWER.split()))
            assert "<think></think>" not in "".join((row.prompt[-30:] + row.answer).split())
        assert (row.prompt + row.answer).count("<think>") <= 1


@pytest.mark.parametrize(
    ("name", "form", "answer"),
    [
        ("deepseek_r1_distill", "thought in the content", f"{THOUGHT}\n</think>\n\n{ANSWER}<｜end▁of▁sentence｜>"),
        ("deepseek_r1_distill", "thought without its opening", f"{THOUGHT}\n</think>\n\n{ANSWER}<｜end▁of▁sentence｜>"),
        ("deepseek_r1_distill", "thought apart", f"{THOUGHT}\n</think>\n\n{ANSWER}<｜end▁of▁sentence｜>"),
        ("deepseek_r1_distill", "an empty thought", f"\n</think>\n\n{ANSWER}<｜end▁of▁sentence｜>"),
        ("qwen3", "thought in the content", f"<think>\n{THOUGHT}\n</think>\n\n{ANSWER}<|im_end|>\n"),
        ("qwen3", "thought apart", f"<think>\n{THOUGHT}\n</think>\n\n{ANSWER}<|im_end|>\n"),
        ("qwen3", "no thought", f"<think>\n\n</think>\n\n{ANSWER}<|im_end|>\n"),
        ("qwen3_8", "thought in the content", f"{THOUGHT}\n</think>\n\n{ANSWER}<|im_end|>\n"),
        ("qwen2_5", "thought apart", f"<think>\n{THOUGHT}\n</think>\n\n{ANSWER}<|im_end|>\n"),
        ("qwen3_5_nothink", "no thought", f"{ANSWER}<|im_end|>\n"),
        (
            "gptoss",
            "thought apart",
            f"<|channel|>analysis<|message|>{THOUGHT}<|end|><|start|>assistant<|channel|>final<|message|>{ANSWER}"
            "<|return|>",
        ),
    ],
)
def test_where_the_thought_goes(name: str, form: str, answer: str) -> None:
    path = next(path for path in PACKAGED if path.stem == name)
    assert rendered(path.read_text(), form).answer == answer


def test_a_template_that_strips_thoughts_loses_nothing() -> None:
    row = rendered(template(STRIPPING), "thought in the content")
    assert row.answer == f"{FORMS['thought in the content']['content']}<|im_end|>\n"
    assert not row.own
    assert row.lost == pytest.approx(0.6, abs=0.1)
    opened = rendered(template(STRIPPING, "<think>\n"), "thought in the content")
    assert opened.prompt.endswith("assistant\n<think>\n")
    assert opened.answer == f"{THOUGHT}\n</think>\n\n{ANSWER}<|im_end|>\n"


@pytest.mark.parametrize(
    ("chat_template", "form", "message"),
    [
        (
            template(opening="<think>\n"),
            "no thought",
            "ends its prompt with <think>, and demonstrations do not begin so",
        ),
        (template(opening="[THINK]"), "no thought", "ends its prompt with [THINK], and demonstrations do not begin so"),
        (template(opening="<think>\n\n</think>\n\n"), "thought in the content", "with a thought that is over"),
        (template(opening="<think>\n\n</think>\n\n"), "thought apart", "with a thought that is over"),
        (template("m.content if m.role == 'user' else ''"), "no thought", "changes or leaves out what the assistant"),
        (
            template("m.content if m.role == 'user' else m.content | upper"),
            "thought in the content",
            "changes or leaves",
        ),
        (template("m.reasoning if m.reasoning else m.content"), "thought apart", "leaves out reasoning_content"),
    ],
)
def test_what_is_asked_and_learnt_differently_is_refused(chat_template: str, form: str, message: str) -> None:
    with pytest.raises(LostText) as caught:
        rendered(chat_template, form)
    assert message in str(caught.value)
    assert caught.value.fix


@pytest.mark.parametrize("begin", ["[THINK]", "[THINK]\n", "\n[THINK] "])
def test_a_demonstration_that_begins_as_the_prompt_ends_goes_on_from_there(begin: str) -> None:
    row = rendered(template(opening="[THINK]\n"), {"content": f"{begin}Five.[/THINK]5"})
    assert (row.prompt[-8:], row.answer) == ("[THINK]\n", "Five.[/THINK]5<|im_end|>\n")


def test_after_a_closed_thought_the_answer_stands_alone() -> None:
    for form in ("no thought", "an empty thought"):
        assert rendered(template(opening="<think>\n\n</think>\n\n"), form).answer == f"{ANSWER}<|im_end|>\n"


def rows_of(*turns: dict[str, str]) -> list[dict[str, Any]]:
    return [{"id": "a", "prompt": ASKED, "completion": [{"role": "assistant", **turn}]} for turn in turns]


def test_the_prompts_tokens_are_those_of_evaluation_whatever_follows() -> None:
    """A byte-level vocabulary with a token of two line breaks, as most have: text that begins with one would merge."""
    tokenizer = make_tiny_tokenizer()
    tokenizer.add_tokens(["\n\n"])
    text, ids = chat.render(tokenizer, ASKED[0]["content"], None, None)
    tokens = tokens_of([text, text], ["\n5<|im_end|>", "5<|im_end|>"], tokenizer)
    for row, mask in zip(tokens["input_ids"], tokens["completion_mask"], strict=True):
        assert (tuple(row[: len(ids)]), mask.index(1)) == (ids, len(ids))
    assert [tokenizer.decode(row) for row in tokens["input_ids"]] == [f"{text}\n5<|im_end|>", f"{text}5<|im_end|>"]


def test_with_a_plain_template_the_rows_are_trls_own(sft_context: MakeContext) -> None:
    context = sft_context()
    model, tokenizer = load_model_and_tokenizer(context.inputs["model"] / "model", "float32")
    rows = read_demonstrations(context.inputs["data"] / "sft.jsonl")
    pairs = Dataset.from_list([{"prompt": row["prompt"], "completion": row["completion"]} for row in rows])
    plain = SFTTrainer(model, args=sft.trainer_config(context), train_dataset=pairs, processing_class=tokenizer)
    ours = encoded(rows, tokenizer, context.settings, "x", pytest.fail)
    assert ours["input_ids"] == plain.train_dataset["input_ids"]
    supervised = [sum(label != -100 for label in labels) for labels in plain.train_dataset["labels"]]
    assert [sum(mask) for mask in ours["completion_mask"]] == supervised


def test_a_refusal_says_how_many_rows_and_how_much(tmp_path: Path) -> None:
    tokenizer = make_tiny_tokenizer()
    tokenizer.chat_template = template("m.reasoning or m.content")
    rows = rows_of(FORMS["no thought"], FORMS["thought apart"], FORMS["thought apart"])
    with pytest.raises(StageError) as caught:
        encoded(rows, tokenizer, SftSettings(), "x", pytest.fail)
    expected = "the chat template (x) leaves out reasoning_content, though it has a place for thoughts"
    assert caught.value.message.startswith(f"{expected}: 2 of 3 rows, the first a; ")
    assert caught.value.message.endswith("% of its text would not be trained on")


def test_settings_ask_as_generate_and_grpo_do() -> None:
    tokenizer = make_tiny_tokenizer()
    tokenizer.chat_template = template(opening="{{ '<think>\n\n</think>\n\n' if enable_thinking is false else '' }}")
    settings = SftSettings(system_prompt="Use a box.", enable_thinking=False)
    (row,) = encoded(rows_of(FORMS["no thought"]), tokenizer, settings, "x", lambda _: None)
    _, ids = chat.render(tokenizer, ASKED[0]["content"], "Use a box.", False)
    assert tuple(row["input_ids"][: len(ids)]) == ids
    assert row["completion_mask"].index(1) == len(ids)
    own = [{**rows_of(FORMS["no thought"])[0], "prompt": [{"role": "system", "content": "Short."}, *ASKED]}]
    with pytest.raises(StageError, match="a: the problem brings a system message of its own"):
        encoded(own, tokenizer, settings, "x", lambda _: None)


def test_another_prompt_in_evaluation_than_in_training_is_said() -> None:
    tokenizer = make_tiny_tokenizer()
    tokenizer.chat_template = template(opening="{{ '<think>\n\n</think>\n\n' if enable_thinking is false else '' }}")
    plain = rows_of(FORMS["no thought"], FORMS["no thought"])
    rows = [plain[0], {**plain[1], "prompt": [{"role": "system", "content": "Use a box."}, *ASKED]}]
    notes: list[str] = []
    asked_with = {
        "evaluation (exam)": {"system_prompt": None, "enable_thinking": True},
        "grpo": {"system_prompt": "Use a box.", "enable_thinking": False},
    }
    encoded(rows, tokenizer, SftSettings(), "x", notes.append, asked_with)
    end = "rows are learnt after: with system_prompt"
    assert notes == [
        f"evaluation (exam) asks with another prompt than 1 of 2 {end} None, enable_thinking True",
        f"grpo asks with another prompt than 2 of 2 {end} 'Use a box.', enable_thinking False",
    ]


def test_the_stage_trains_on_thoughts_that_the_template_strips_and_says_so(
    sft_context: MakeContext, tmp_path: Path
) -> None:
    rows = tiny_demonstrations(8)
    for row in rows:
        text = row["completion"][0]["content"]
        row["completion"] = [{"role": "assistant", "content": text, "reasoning_content": "2+3=5."}]
    write_jsonl(tmp_path / "data" / "sft.jsonl", rows)
    folder = make_tiny_model(tmp_path / "base" / "model")
    (folder / "chat_template.jinja").write_text(template(STRIPPING, "<think>\n"))
    context = sft_context(inputs={"data": tmp_path / "data", "model": tmp_path / "base"}, max_steps=1)
    sft.run(context)
    (note,) = read_stage_run(context.spec_path.parent, 0, "").notes
    assert note.startswith(
        "8 of 8 answers are written after the evaluation's prompt as they are: the chat template (cha"
    )
    assert "by itself leaves out" in note
