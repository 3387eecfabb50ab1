"""What a chat template makes of a problem: which template, as of which date, and what it may not do unseen."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import trl
from datasets import Dataset

from evaluation.chat import chat_template, check_chat_template, date_in_template, pin_date, render
from evaluation.engines.base import load_tokenizer
from tests.tiny import CHAT_TEMPLATE, make_tiny_tokenizer

PACKAGED = sorted((Path(trl.__file__).parent / "chat_templates").glob("*.jinja"))
FOR_PARTS = ("idefics3", "llava_next", "smolvlm")
"""Templates that take a message as a list of parts, and lose or refuse a text."""


def tokenizer_with(template: Any) -> Any:
    tokenizer = make_tiny_tokenizer()
    tokenizer.chat_template = template
    return tokenizer


def asked(tokenizer: Any, system: str | None = None) -> str:
    return render(tokenizer, "What is 2+2?", system, None)[0]


def saved(folder: Path, **config: Any) -> str:
    """A tokenizer folder without chat_template.jinja, with `config` in its tokenizer_config.json."""
    make_tiny_tokenizer().save_pretrained(folder)
    (folder / "chat_template.jinja").unlink()
    file = folder / "tokenizer_config.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | config))
    return str(folder)


NAMED = [{"name": "tool_use", "template": "TOOLS " + CHAT_TEMPLATE}, {"name": "default", "template": CHAT_TEMPLATE}]


def test_of_named_templates_the_default_is_used(tmp_path: Path) -> None:
    tokenizer = load_tokenizer(saved(tmp_path, chat_template=NAMED))
    assert chat_template(tokenizer) == CHAT_TEMPLATE
    assert asked(tokenizer) == asked(tokenizer_with(CHAT_TEMPLATE))


def test_templates_of_a_folder_beside_the_default_are_kept_and_not_used(tmp_path: Path) -> None:
    load_tokenizer(saved(tmp_path / "list", chat_template=NAMED)).save_pretrained(tmp_path / "files")
    assert (tmp_path / "files" / "additional_chat_templates" / "tool_use.jinja").is_file()
    tokenizer = load_tokenizer(str(tmp_path / "files"))
    assert set(tokenizer.chat_template) == {"default", "tool_use"}
    assert chat_template(tokenizer) == CHAT_TEMPLATE


def test_a_template_in_a_file_goes_before_a_list(tmp_path: Path) -> None:
    """As for transformers."""
    folder = saved(tmp_path, chat_template=NAMED)
    (tmp_path / "chat_template.jinja").write_text("{# own #}" + CHAT_TEMPLATE)
    assert chat_template(load_tokenizer(folder)) == "{# own #}" + CHAT_TEMPLATE


@pytest.mark.parametrize("place", ["list", "folder"])
def test_named_templates_without_a_default_are_refused_by_their_names(tmp_path: Path, place: str) -> None:
    named = [{"name": name, "template": CHAT_TEMPLATE} for name in ("rag", "tool_use")]
    folder = saved(tmp_path, **({"chat_template": named} if place == "list" else {}))
    if place == "folder":
        (tmp_path / "additional_chat_templates").mkdir()
        for template in named:
            (tmp_path / "additional_chat_templates" / f"{template['name']}.jinja").write_text(template["template"])
    with pytest.raises(ValueError, match="chat templates rag, tool_use, and none that is named default"):
        load_tokenizer(folder)


def test_a_template_comes_back_from_its_file_as_it_was(tmp_path: Path) -> None:
    tokenizer = load_tokenizer(saved(tmp_path / "a", chat_template=CHAT_TEMPLATE.replace("{% if", "\r\n{% if")))
    tokenizer.save_pretrained(tmp_path / "b")
    assert chat_template(load_tokenizer(str(tmp_path / "b"))) == chat_template(tokenizer)


@pytest.mark.parametrize(
    ("clock", "at_the_usual_date", "at_a_given_one"),
    [
        ("{{ strftime_now('%d %b %Y') }}", "26 Jul 2024", "03 Feb 2025"),
        ("{{ strftime_now('%Y-%m-%d %H:%M:%S') }}", "2024-07-26 00:00:00", "2025-02-03 04:05:06"),
        ("{% set today = strftime_now('%B %d, %Y') %}{{ today }}", "July 26, 2024", "February 03, 2025"),
        ("{{ strftime_now('%A') if strftime_now is defined else 'no clock' }}", "Friday", "Monday"),
        ("{{ date_string if date_string is defined else strftime_now('%d %b %Y') }}", "26 Jul 2024", "03 Feb 2025"),
        ("{{ date_string | default('09 Sep 2023') }}", "09 Sep 2023", "03 Feb 2025"),
    ],
)
def test_the_date_in_a_template_stands_still(clock: str, at_the_usual_date: str, at_a_given_one: str) -> None:
    tokenizer = tokenizer_with(f"Today: {clock}. {CHAT_TEMPLATE}")
    assert date_in_template(tokenizer)
    pin_date(tokenizer, None)
    assert asked(tokenizer).startswith(f"Today: {at_the_usual_date}. ")
    pin_date(tokenizer, "2025-02-03T04:05:06")
    assert asked(tokenizer).startswith(f"Today: {at_a_given_one}. ")


@pytest.mark.parametrize("path", PACKAGED, ids=lambda path: path.stem)
def test_templates_of_known_models_pass_or_are_refused_for_what_they_lose(path: Path) -> None:
    tokenizer = tokenizer_with(path.read_text(encoding="utf-8"))
    tokenizer.bos_token = "<|im_start|>"
    pin_date(tokenizer, None)
    if path.stem.removesuffix("_training") in FOR_PARTS:
        with pytest.raises(ValueError, match=r"leaves out the user message|refuses a conversation of user"):
            check_chat_template(tokenizer)
    else:
        check_chat_template(tokenizer)
        assert "What is 2+2?" in asked(tokenizer)


TURNS = "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n{% endfor %}"


@pytest.mark.parametrize(
    ("template", "header"),
    [
        (TURNS, r"<\|im_start\|>assistant\\n"),
        (TURNS + "{{ '\n' if add_generation_prompt }}", r"<\|im_start\|>assistant\\n"),
        ("{% for m in messages %}{{ m.role.title() }}: {{ m.content }}\n{% endfor %}", "Assistant: "),
        (TURNS + "{{ eos_token }}", r"start\|>assistant\\n"),
        (
            "{% for m in messages %}{% if m.role == 'user' %}[Q]{{ m.content }}{% else %}[A]{{ m.content }}{% endif %}"
            "{% endfor %}",
            r"\[A\]",
        ),
    ],
    ids=["none", "a line break only", "names", "end of text", "marks"],
)
def test_a_template_that_does_not_open_the_answer_is_refused(template: str, header: str) -> None:
    with pytest.raises(ValueError, match=rf"ignores add_generation_prompt.*{header}"):
        check_chat_template(tokenizer_with(template))


@pytest.mark.parametrize(
    "template",
    [
        "{% for m in messages %}{% if m.role == 'user' %}[INST] {{ m.content }} [/INST]{% else %} {{ m.content }}</s>"
        "{% endif %}{% endfor %}",
        "{% for m in messages %}{% if m.role == 'user' %}### Q:\n{{ m.content | trim }}\n\n### A:\n{% else %}"
        "{{ m.content }}\n\n{% endif %}{% endfor %}",
        "{% for m in messages %}{% if m.role != 'user' %}{{ raise_exception('one question only') }}{% endif %}"
        "{{ m.content }}\n{% endfor %}",
        TURNS + "{{ '<|im_start|>assistant\n<think>\n' if add_generation_prompt }}",
    ],
    ids=["the question's end opens it", "alpaca", "for questions alone", "opens the thought"],
)
def test_a_template_without_a_header_of_its_own_passes(template: str) -> None:
    check_chat_template(tokenizer_with(template))


@pytest.mark.parametrize(
    "template",
    [
        TURNS + "<|im_start|>assistant\n",
        TURNS + "{{ '<|im_start|>assistant\n<think>\n' if add_generation_prompt else '<|im_start|>assistant\n' }}",
        "{% for m in messages %}{{ m.role.title() }}: {{ m.content }}\n{% endfor %}Assistant:",
    ],
    ids=["always", "a thought where asked for", "names"],
)
def test_a_template_that_opens_an_answer_behind_a_finished_one_is_refused(template: str) -> None:
    """SFT would train each answer with the beginning of another."""
    with pytest.raises(ValueError, match=r"does not heed add_generation_prompt.*(?i:assistant).*opens another one"):
        check_chat_template(tokenizer_with(template))


@pytest.mark.parametrize(
    "template",
    [
        TURNS + "{{ '<|im_start|>assistant\n' if messages[-1].role != 'assistant' }}",
        "{% for m in messages %}{{ m.content }}{{ eos_token }}{% endfor %}",
        "{% for m in messages %}{% if m.role == 'user' %}Q: {{ m.content }}\nA:{% else %} {{ m.content }}\n{% endif %}"
        "{% endfor %}{{ eos_token if messages[-1].role == 'assistant' }}",
    ],
    ids=["by the last message", "the same end for all", "end of text behind the last"],
)
def test_a_template_that_ends_where_the_answer_does_passes(template: str) -> None:
    check_chat_template(tokenizer_with(template))


def test_what_a_template_refuses_or_leaves_out_is_said() -> None:
    refuses = tokenizer_with(
        "{% if messages[0].role == 'system' %}{{ raise_exception('no system role') }}{% endif %}" + CHAT_TEMPLATE
    )
    with pytest.raises(ValueError, match="refuses a conversation of system, user: no system role"):
        asked(refuses, "Be brief.")
    silent = tokenizer_with(CHAT_TEMPLATE.replace("in messages", "in messages if message.role != 'system'"))
    assert asked(silent)
    with pytest.raises(ValueError, match=r"leaves out the system message .Be brief"):
        asked(silent, "Be brief.")
    with pytest.raises(ValueError, match="refuses a conversation of user: Expected"):
        asked(tokenizer_with(CHAT_TEMPLATE + "{% if %}"))
    with pytest.raises(ValueError, match="refuses a conversation of user: division"):
        asked(tokenizer_with("{{ 1 / 0 }}"))


def test_trl_renders_as_of_the_same_date() -> None:
    """What SFT is trained on, and what RL asks."""
    tokenizer = tokenizer_with("{{ strftime_now('%Y-%m-%d') }} " + CHAT_TEMPLATE)
    pin_date(tokenizer, "2025-02-03")
    prompt = [{"role": "user", "content": "What is 2+2?"}]
    row = {"prompt": prompt, "completion": [{"role": "assistant", "content": "4"}]}
    rendered = Dataset.from_list([row]).map(trl.apply_chat_template, fn_kwargs={"processing_class": tokenizer})[0]
    assert rendered["prompt"] == asked(tokenizer)
    assert rendered["prompt"].startswith("2025-02-03 ")
    assert rendered["completion"] == "4<|im_end|>\n"
