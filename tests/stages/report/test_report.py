"""The report stage as a program: the same numbers in all three forms, and nothing hostile gets out."""

from __future__ import annotations

import html.parser
import json
import re
import shutil
from pathlib import Path

import pytest

from evaluation.metrics.estimates import wilson_interval
from evaluation.statistics import paired_difference
from tests.stages.report.artifacts import (
    HOSTILE,
    artifact,
    change_manifest,
    complete,
    data,
    first_right,
    report_of,
    run,
    scored,
)

VOID = {"meta", "br", "link", "img", "input", "hr"}


class Page(html.parser.HTMLParser):
    """Checks that elements nest, and keeps their names, ids and references."""

    def __init__(self) -> None:
        super().__init__(convert_charrefs=True)
        self.open: list[str] = []
        self.names: list[str] = []
        self.ids: list[str] = []
        self.references: list[str] = []
        self.text = ""

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.names.append(tag)
        if tag not in VOID:
            self.open.append(tag)
        for name, value in attrs:
            assert not name.startswith("on"), f"{tag} has a handler {name}"
            if name == "id":
                self.ids.append(value or "")
            if name in ("src", "href", "xlink:href", "data", "srcset", "action"):
                self.references.append(value or "")

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.handle_starttag(tag, attrs)
        if tag not in VOID:
            self.handle_endtag(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.text += data


def page_of(folder: Path) -> tuple[str, Page]:
    text = (folder / "out" / "report.html").read_text()
    page = Page()
    page.feed(text)
    page.close()
    assert page.open == [], "every element is closed"
    return text, page


def test_every_form_holds_the_numbers(tmp_path: Path) -> None:
    report = report_of(tmp_path, complete(tmp_path))
    low, high = wilson_interval(10, 20)
    sft = report["results"][1]
    assert (sft["checkpoint"], sft["benchmark"], sft["value"], sft["n"], sft["k"]) == ("sft", "toy", 0.5, 20, 1)
    assert (sft["low"], sft["high"], sft["completion_tokens"], sft["split"]) == (low, high, 9.0, "test")
    expected = paired_difference([1.0] + [0.0] * 19, [1.0] * 10 + [0.0] * 10)
    first = report["comparisons"][0]
    assert (first["difference"], first["low"], first["high"]) == (expected.difference, expected.low, expected.high)
    assert (first["p_value"], first["improved"], first["worsened"]) == (2 / 2**9, 9, 0)
    assert [c["verdict"] for c in report["comparisons"]] == ["higher", "higher"]
    assert {s["name"]: s["state"] for s in report["stages"]} == {
        **dict.fromkeys((s["name"] for s in report["stages"]), "cached"),
        "sft": "ran",
    }
    markdown = (tmp_path / "out" / "report.md").read_text()
    row = next(line for line in markdown.splitlines() if line.startswith("| toy | accuracy"))
    shown = f"50.0 % [{100 * low:.1f}, {100 * high:.1f}]"
    assert row == f"| toy | accuracy | 20 | 1 | 5.0 % [0.9, 23.6] | {shown} | 95.0 % [76.4, 99.1] |"
    text, page = page_of(tmp_path)
    assert '<b><a href="#answers-1">50.0 %</a></b>' in text
    for form in (markdown, page.text):
        assert report["verdict"] in form
        assert all(caveat in form for caveat in report["caveats"])
        assert "9 better, 0 worse" in form
        assert "data 00000000" in form, "lineage"


@pytest.mark.slow
def test_every_table_of_the_markdown_is_whole(tmp_path: Path) -> None:
    report_of(tmp_path, complete(tmp_path))
    lines = (tmp_path / "out" / "report.md").read_text().split("## Sample answers")[0].splitlines()
    heads = [index for index, line in enumerate(lines) if re.fullmatch(r"(\|-+)+\|", line)]
    assert len(heads) == 4
    for index in heads:
        columns = lines[index - 1].count("|")
        rows = [line for line in lines[index + 1 : lines.index("", index)] if line]
        assert rows
        assert {row.count("|") for row in rows} == {columns}


def test_page_stands_alone_and_escapes_what_models_write(tmp_path: Path) -> None:
    inputs = complete(tmp_path)
    report_of(tmp_path, inputs, title="<img src=x onerror=alert(1)>")
    text, page = page_of(tmp_path)
    assert "script" not in page.names
    assert "img" not in page.names
    assert page.text.count("<script>alert('x')</script>") >= 6, "completion and detail of wrong answers, shown as text"
    assert [r for r in page.references if not r.startswith("#")] == [], "the page loads nothing"
    assert not re.search(r"url\((?!#)|@import", text)
    assert page.names.count("svg") == 9, "results, 1 of base, 3 of SFT, 4 of RL"
    assert len(page.ids) == len(set(page.ids)), "several drawings on one page share no id"
    assert {r.removeprefix("#") for r in page.references} <= set(page.ids)
    assert set(re.findall(r"url\(#([^)]*)\)", text)) <= set(page.ids)


@pytest.mark.slow
def test_drawings_follow_the_page_and_do_not_need_colour(tmp_path: Path) -> None:
    report_of(tmp_path, complete(tmp_path))
    text, _ = page_of(tmp_path)
    assert "prefers-color-scheme: dark" in text
    assert "@media print" in text
    svgs = re.findall(r"<svg.*?</svg>", text, flags=re.DOTALL)
    assert all("currentColor" in svg for svg in svgs)
    labels = [re.search(r'aria-label="([^"]*)"', svg) for svg in svgs]
    assert labels[0] is not None
    assert "toy sft 50.0 [29.9, 70.1]" in labels[0][1]
    loss = next(svg for svg in svgs if "weighted" in svg)
    assert "uniform from 1 to 1; weighted from 1.1 to 1.1" in loss
    assert "stroke-dasharray" in loss


@pytest.mark.slow
def test_markdown_holds_no_markup_of_models(tmp_path: Path) -> None:
    report_of(tmp_path, complete(tmp_path))
    markdown = (tmp_path / "out" / "report.md").read_text()
    outside = re.sub(r"^(`{3,})text\n.*?^\1$", "", markdown, flags=re.DOTALL | re.MULTILINE)
    assert "Grader: not equal: &lt;script" in outside
    assert "<script" not in outside
    assert "````" not in outside, "backticks inside a text end no block"
    blocks = re.findall(r"^(`{3,})text\n(.*?)^\1$", markdown, flags=re.DOTALL | re.MULTILINE)
    assert HOSTILE + "\n" in [block for _, block in blocks]


def test_scores_of_different_protocols_are_not_compared(tmp_path: Path) -> None:
    report = report_of(tmp_path, complete(tmp_path, sft_protocol="other"))
    assert [c["verdict"] for c in report["comparisons"]] == ["different protocols"] * 2
    assert "difference" not in report["comparisons"][0]
    assert any("measured under different protocols" in caveat for caveat in report["caveats"])


def test_several_samples_a_problem(tmp_path: Path) -> None:
    base, sft = [["wrong", "correct"]] * 10, [["correct", "correct"]] * 5 + [["wrong", "correct"]] * 5
    inputs = {"data": data(tmp_path, 10), **scored(tmp_path, "base", base), **scored(tmp_path, "sft", sft)}
    report = report_of(tmp_path, inputs)
    assert [(r["metric"], r["value"], r["n"], r["k"]) for r in report["results"]] == [
        ("avg@2", 0.5, 10, 2),
        ("avg@2", 0.75, 10, 2),
    ]
    assert report["results"][0]["pass_at"]["2"]["value"] == 0.75
    assert report["comparisons"][0]["test"] == "exact sign-flip test"
    assert report["comparisons"][0]["improved"] == 5
    markdown = (tmp_path / "out" / "report.md").read_text()
    assert "- toy, base: pass@1 50.0 % [40.0, 60.0], pass@2 75.0 % [65.0, 85.0]" in markdown
    assert "(exact sign-flip test)" in markdown


@pytest.mark.slow
def test_how_thoughts_ended_under_a_budget(tmp_path: Path) -> None:
    inputs = {"data": data(tmp_path, 20), "base": artifact(tmp_path, "base")}
    thinking = {"finished": 11, "forced": 6, "cut": 1, "none": 2}
    report = report_of(tmp_path, inputs | scored(tmp_path, "base", first_right(9), thinking=thinking))
    assert report["results"][0]["thinking"] == thinking
    line = "toy, base: thoughts of at most 512 tokens: finished 55.0 %, forced 30.0 %, cut 5.0 %, none 10.0 %"
    caveat = "toy: the thinking budget ended the thought of 30.0 % (base) of the completions"
    for form in ("report.md", "report.html"):
        text = (tmp_path / "out" / form).read_text()
        assert line in text
        assert caveat in text


def test_without_rl_and_without_transcripts(tmp_path: Path) -> None:
    inputs = {name: path for name, path in complete(tmp_path).items() if "grpo" not in name}
    report = report_of(tmp_path, inputs, transcripts=0)
    assert {r["checkpoint"] for r in report["results"]} == {"base", "sft"}
    text, page = page_of(tmp_path)
    assert HOSTILE not in (tmp_path / "out" / "report.md").read_text()
    assert "Sample answers" not in page.text
    assert "grpo" not in text


@pytest.mark.slow
def test_a_method_without_weights_shows_its_one_loss(tmp_path: Path) -> None:
    inputs = complete(tmp_path)
    (inputs["sft"] / "record" / "metrics.jsonl").write_text(
        '{"step": 1, "loss": 2.0}\n{"step": 2, "loss": 1.5}\n{"step": 3, "loss": NaN}\n'
    )
    report_of(tmp_path, inputs)
    assert "sft, loss, nats per token over optimizer steps: loss from 2 to 1.5" in page_of(tmp_path)[0]


@pytest.mark.slow
def test_a_long_curve_is_drawn_in_bins(tmp_path: Path) -> None:
    inputs = complete(tmp_path)
    rows = [json.dumps({"step": step, "loss": 5.0 - step / 1000}) for step in range(4000)]
    (inputs["sft"] / "record" / "metrics.jsonl").write_text("\n".join(rows))
    report_of(tmp_path, inputs)
    text, page = page_of(tmp_path)
    assert "SFT: training curves, each point the mean of 10 recorded steps" in page.text
    assert "loss from 5 to 1.01" in text
    assert len(text) < 400_000


def test_wrong_answers_show_every_verdict_before_a_second_of_one(tmp_path: Path) -> None:
    verdicts = [["wrong"], ["wrong"], ["correct"], ["timeout"], ["no_answer"], ["correct"], ["correct"]]
    inputs = {"data": data(tmp_path, 7), **scored(tmp_path, "base", verdicts)}
    report_of(tmp_path, inputs, transcripts=2)
    shown = re.findall(
        r"^### toy, base: (.*) \((p\d)\)", (tmp_path / "out" / "report.md").read_text(), flags=re.MULTILINE
    )
    assert shown == [("correct", "p2"), ("correct", "p5"), ("wrong", "p0"), ("timeout", "p3")]


@pytest.mark.slow
@pytest.mark.parametrize("limit", [10, 11])
def test_long_answers_are_cut_in_the_middle_and_say_so(tmp_path: Path, limit: int) -> None:
    report_of(tmp_path, complete(tmp_path), transcript_characters=limit)
    markdown = (tmp_path / "out" / "report.md").read_text()
    assert f"{HOSTILE[: limit - 5]}\n[... {len(HOSTILE) - limit} characters left out ...]\n{HOSTILE[-5:]}\n" in markdown


@pytest.mark.slow
def test_same_inputs_give_the_same_bytes(tmp_path: Path) -> None:
    inputs = complete(tmp_path)
    run(tmp_path, inputs)
    first = {name: (tmp_path / "out" / name).read_bytes() for name in ("report.md", "report.html", "report.json")}
    shutil.rmtree(tmp_path / "out")
    run(tmp_path, inputs)
    assert first == {name: (tmp_path / "out" / name).read_bytes() for name in first}


def test_stages_of_different_origin_are_told_apart(tmp_path: Path) -> None:
    inputs = complete(tmp_path)
    change_manifest(inputs["sft"], versions={"torch": "2.12.0"}, git={"commit": "fedcba9876543210", "dirty": True})
    change_manifest(inputs["grpo"], hardware={"cpu": "a CPU", "cores": 16, "memory_gib": 128.0, "gpu": ["a GPU"]})
    report = report_of(tmp_path, inputs)
    assert report["versions"] == {"torch": "2.13.0, 2.12.0"}
    said = " ".join(report["caveats"])
    assert "different versions of torch" in said
    assert "2.12.0 (sft)" in said
    assert "different commits" in said
    assert "uncommitted changes" in said
    assert "a CPU x 2 and a CPU x 16 a GPU" in said
    assert "fedcba987654+" in page_of(tmp_path)[1].text


@pytest.mark.slow
def test_cost_and_what_was_read_from_outside(tmp_path: Path) -> None:
    inputs = complete(tmp_path)
    assert {stage["cost"]["gpu_hours"] for stage in report_of(tmp_path, inputs)["stages"]} == {0.0}
    assert "No GPU hours: all of it was computed on CPU" in (tmp_path / "out" / "report.md").read_text()
    hardware = {"cpu": "a CPU", "cores": 16, "memory_gib": 128.0, "gpu": ["a GPU", "a GPU"]}
    hub = {"hub": "owner/model", "commit": "d" * 40}
    change_manifest(inputs["base"], preimage={"settings": {}, "outside": {"model": hub}})
    change_manifest(inputs["data"], preimage={"settings": {}, "outside": {"data.sft.0": {"sha256": "e" * 64}}})
    change_manifest(inputs["sft"], hardware=hardware, seconds=1800.0)
    change_manifest(inputs["score.sft"], hardware=hardware)
    change_manifest(inputs["generate.sft"], metrics={"output_tokens": 1_300_000})
    (inputs["sft"] / "record" / "metrics.jsonl").write_text(
        '{"step": 1, "num_tokens": 700.0}\n{"step": 2, "num_tokens": 1500.0}\n'
    )
    stages = {stage["name"]: stage for stage in report_of(tmp_path, inputs)["stages"]}
    assert stages["sft"]["cost"] == {"seconds": 1800.0, "gpu_hours": 1.0, "trained": 1500, "sampled": 0}
    assert stages["score.sft"]["cost"]["gpu_hours"] == 0.0, "grading takes no GPU"
    assert stages["base"]["outside"] == {"model": hub}
    markdown = (tmp_path / "out" / "report.md").read_text()
    for form in (markdown, page_of(tmp_path)[1].text):
        assert "owner/model at commit dddddddddddd" in form
        assert "sha256 eeeeeeeeeeee" in form
        assert "1.0 GPU hours" in form
        assert "1.30 M" in form


@pytest.mark.slow
def test_a_score_leads_to_its_sample_answers(tmp_path: Path) -> None:
    report_of(tmp_path, complete(tmp_path))
    text, page = page_of(tmp_path)
    links = [reference for reference in page.references if reference.startswith("#answers-")]
    assert links == ["#answers-0", "#answers-1", "#answers-2"]
    for link, checkpoint in zip(links, ("base", "sft", "grpo"), strict=True):
        assert text.count(f'<details id="{link[1:]}"><summary>{checkpoint}:') == 1
    assert "answers-" not in (tmp_path / "out" / "report.md").read_text()


def test_token_weights_are_shown_by_trajectory_and_time(tmp_path: Path) -> None:
    inputs = complete(tmp_path)
    row = {"prompt": "q", "tokens": ["a", "<b>", "c"], "weights": [0.1, 1.0, 4.0], "losses": [0.5, 1.0, 2.0]}
    taken = [{"step": step, "rows": [row, {**row, "prompt": "r"}]} for step in (0, 9)]
    (inputs["sft"] / "record" / "token_weights.json").write_text(json.dumps(taken))
    report_of(tmp_path, inputs)
    text = page_of(tmp_path)[0]
    assert '<span style="--w:1.00">x 0.25</span><span style="--w:0.50">x 0.5</span>' in text, "the scale beside them"
    assert [text.count(f"before step {step}<") for step in (1, 10)] == [2, 2]
    assert text.index("before step 10") < text.rindex("before step 1<")
    assert '<span class="up" style="--w:1.00" title="x 4.00, loss 2.00">c</span>' in text
    assert '<span style="--w:1.00" title="x 0.10, loss 0.50">a</span>' in text
    assert '<span style="--w:0.00" title="x 1.00, loss 1.00">&lt;b&gt;</span>' in text
    (inputs["sft"] / "record" / "token_weights.json").write_text('[{"step": 0, "rows": [{"prompt": "q"}]}]')
    assert "the report's input sft" in run(tmp_path, inputs).stderr
