"""Hashes are stable, complete and refuse what has no stable form."""

import ast
import os
from pathlib import Path

import pytest

from pipeline.core.digests import DigestMemo, canonical_json, digest, folder_digest
from pipeline.plan import code
from pipeline.plan.code import code_of
from stages.generate.stage import STAGE as GENERATE
from stages.harness.versions import library_versions
from stages.score.stage import STAGE as SCORE
from stages.sft.stage import STAGE as SFT


def test_canonical_json_ignores_order_but_not_type() -> None:
    assert canonical_json({"b": 1, "a": [1.5, None]}) == '{"a":[1.5,null],"b":1}'
    assert digest({"x": 1}) != digest({"x": 1.0})
    assert digest({"x": True}) != digest({"x": 1})


@pytest.mark.parametrize("value", [{1, 2}, float("nan"), float("inf"), object(), {1: 2}, [b"x"]])
def test_values_without_a_stable_form_raise(value: object) -> None:
    with pytest.raises(TypeError, match=r"\$"):
        canonical_json({"setting": value})


def test_memo_reads_a_changed_file_again(tmp_path: Path) -> None:
    file = tmp_path / "data"
    file.write_text("one")
    memo = DigestMemo(tmp_path / "memo.json")
    first = memo.sha256(file)
    memo.save()
    file.write_text("two")
    os.utime(file, ns=(1, 1))
    again = DigestMemo(tmp_path / "memo.json")
    assert again.sha256(file) != first


def test_memo_does_not_read_an_unchanged_file_twice(tmp_path: Path) -> None:
    file = tmp_path / "data"
    file.write_text("one")
    memo = DigestMemo(tmp_path / "memo.json")
    first = memo.sha256(file)
    memo.save()
    stat = file.stat()
    file.write_text("two")  # same size; put the old times back: only `reread` can see it
    os.utime(file, ns=(stat.st_atime_ns, stat.st_mtime_ns))
    again = DigestMemo(tmp_path / "memo.json")
    assert again.sha256(file) == first
    assert again.sha256(file, reread=True) != first


def test_folder_digest_sees_names_and_contents(tmp_path: Path) -> None:
    memo = DigestMemo(tmp_path / "memo.json")
    folder = tmp_path / "folder"
    (folder / "sub").mkdir(parents=True)
    (folder / "sub" / "a").write_text("1")
    before = folder_digest(folder, memo)
    (folder / ".hidden").write_text("x")
    assert folder_digest(folder, memo) == before
    (folder / "sub" / "a").rename(folder / "sub" / "b")
    assert folder_digest(folder, memo) != before


def test_source_digest_follows_imports_and_stays_out_of_other_stages() -> None:
    score = code_of(SCORE, SCORE.settings())
    assert {
        "stages/score/__main__.py",
        "evaluation/records.py",
        "evaluation/grading.py",
    } <= score.keys()
    assert not any(name.startswith(("stages/sft/", "stages/grpo/", "pipeline/")) for name in score)
    assert any(name.startswith("evaluation/metrics/") for name in score), (
        "metric modules are loaded by path, not imported"
    )


def test_comments_and_docstrings_do_not_count_but_code_does() -> None:
    plain = code._tree_digest(ast.parse("def f():\n    return 1\n"))
    documented = code._tree_digest(ast.parse('"""Module."""\n\ndef f():\n    """Doc."""\n    return 1  # one\n'))
    changed = code._tree_digest(ast.parse("def f():\n    return 2\n"))
    assert plain == documented != changed


def test_versions_in_a_key_carry_no_build_tag() -> None:
    assert "+" not in library_versions(SFT.libraries)["torch"]
    assert library_versions(GENERATE.libraries)["vllm"] != "not installed"


def test_a_memo_that_cannot_be_saved_is_no_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "data").write_text("one")
    memo = DigestMemo(tmp_path / "none" / "memo.json")
    memo.sha256(tmp_path / "data")
    memo.save()


@pytest.mark.parametrize("text", ["{", "[]", '{"/data": null}'])
def test_a_damaged_memo_is_forgotten(tmp_path: Path, text: str) -> None:
    (tmp_path / "memo.json").write_text(text)
    (tmp_path / "data").write_text("one")
    assert len(DigestMemo(tmp_path / "memo.json").sha256(tmp_path / "data")) == 64
