"""Reading YAML: places, extends, overrides, and the errors a user can make."""

from pathlib import Path

import pytest

from pipeline.config.yaml_file import read
from pipeline.core.errors import ConfigError


def write(folder: Path, name: str, text: str) -> Path:
    path = folder / name
    path.write_text(text)
    return path


def test_values_are_plain_and_scientific_notation_is_a_number(tmp_path: Path) -> None:
    document = read(write(tmp_path, "a.yaml", "rate: 1e-5\nflag: true\nnested:\n  list: [1, two]\n"))
    assert document.values == {"rate": 1e-5, "flag": True, "nested": {"list": [1, "two"]}}
    assert type(document.values["rate"]) is float
    assert type(document.values["nested"]["list"][0]) is int


def test_place_is_the_line_that_set_the_value(tmp_path: Path) -> None:
    path = write(tmp_path, "a.yaml", "name: x\nsft:\n  steps: 3\n")
    document = read(path)
    assert document.place(("sft", "steps")) == f"{path}:3"
    assert document.place(("sft", "absent")) == f"{path}:2"
    assert document.place(("nothing",)) == str(path)


def test_extends_merges_mappings_and_replaces_lists(tmp_path: Path) -> None:
    write(tmp_path, "base.yaml", "seed: 0\nsft:\n  steps: 3\n  betas: [1, 2]\n")
    child = write(tmp_path, "child.yaml", "extends: base.yaml\nsft:\n  betas: [9]\n")
    document = read(child)
    assert document.values == {"seed": 0, "sft": {"steps": 3, "betas": [9]}}
    assert document.place(("sft", "betas")) == f"{child}:3"
    assert document.place(("sft", "steps")) == f"{tmp_path / 'base.yaml'}:3"
    assert document.place(("sft", "betas", 1)) == f"{child}:3", "the replaced list leaves no places behind"


def test_overrides_set_values_sections_and_list_items(tmp_path: Path) -> None:
    path = write(tmp_path, "a.yaml", "benchmarks:\n- name: x\n  problems: 5\n")
    document = read(path, ["benchmarks.0.problems=7", "sft.learning_rate=1e-5", "grpo=null"])
    assert document.values["benchmarks"][0]["problems"] == 7
    assert document.values["sft"] == {"learning_rate": 1e-5}
    assert document.values["grpo"] is None
    assert document.place(("benchmarks", 0, "problems")) == "--set benchmarks.0.problems=7"


def test_keys_are_text_whatever_yaml_takes_them_for(tmp_path: Path) -> None:
    path = write(tmp_path, "a.yaml", "snapshot:\n  2024-01-01: {a: 1}\n  7: {a: 2}\n  true: {a: 3}\n")
    document = read(path, ["snapshot.7.a=5"])
    assert document.values == {"snapshot": {"2024-01-01": {"a": 1}, "7": {"a": 5}, "true": {"a": 3}}}
    assert document.place(("snapshot", "2024-01-01")) == f"{path}:2"
    assert document.place(("snapshot", "7", "a")) == "--set snapshot.7.a=5"


@pytest.mark.parametrize(
    ("text", "overrides", "message"),
    [
        ("a: [1\n", [], r"a\.yaml:\d+: not valid YAML"),
        ("a: 1\na: 2\n", [], r"a\.yaml:\d+: not valid YAML.*duplicate"),
        ("- 1\n", [], "is a YAML mapping"),
        ("extends: missing.yaml\n", [], "missing.yaml does not exist"),
        ("extends: a.yaml\n", [], "extends itself"),
        ("extends: [x]\n", [], r"a\.yaml:1: extends takes the path"),
        ("extends: ''\n", [], r"a\.yaml:1: extends takes the path"),
        ("extends: .\n", [], r"is a folder"),
        ('extends: "a\\0b"\n', [], r"a\.yaml:1: extends: holds a null byte"),
        (f"a: {'9' * 400}\n", [], r"a\.yaml:1: a whole number of hundreds of digits"),
        (f"a: {'9' * 5000}\n", [], r"a\.yaml: a number of thousands of digits"),
        ("a: 1\n", [f"a={'9' * 5000}"], "a number of thousands of digits"),
        (f"a: {'[' * 400}{']' * 400}\n", [], r"a\.yaml: nested too deeply"),
        ("a: 1\n", ["a=&x [*x]"], "a value with an anchor that holds itself"),
        ("a: 1\n", ["a"], "KEY=VALUE"),
        ("a: 1\n", ["a.b=2"], "single value, not a section"),
        ("a: [1]\n", ["a.5=2"], "not an index"),
        ("a: 1\n", ["a=[1"], "not valid YAML"),
        ("a: 'x\0y'\n", [], r"a\.yaml: not valid YAML: unacceptable character"),
        ("a: 1\n", ["a='x\0y'"], "the value is not valid YAML"),
        ("a: 2024-12-31\nb:\n  from: 2024-13-01\n", [], r"a\.yaml:3: a date that does not exist"),
    ],
)
def test_mistakes_are_named(tmp_path: Path, text: str, overrides: list[str], message: str) -> None:
    path = write(tmp_path, "a.yaml", text)
    with pytest.raises(ConfigError, match=message):
        read(path, overrides)


def test_extends_knows_the_home_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    write(tmp_path, "base.yaml", "a: 1\n")
    (tmp_path / "below").mkdir()
    assert read(write(tmp_path / "below", "child.yaml", "extends: ~/base.yaml\n")).values == {"a": 1}


def test_missing_file(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="does not exist"):
        read(tmp_path / "none.yaml")


def test_tags_are_refused_and_never_executed(tmp_path: Path) -> None:
    file = tmp_path / "c.yaml"
    for value in ('!!python/object/apply:os.system ["touch ran"]', "!!str 3", "!custom {a: 1}"):
        file.write_text(f"name: x\nseed: {value}\n")
        with pytest.raises(ConfigError, match=r"the YAML tag .* is not allowed") as caught:
            read(file, [])
        assert f"{file}:2" in str(caught.value)
        for override in (f"seed={value}", f"sft.method={{power: {value}}}", f"a=[{value}]"):
            with pytest.raises(ConfigError, match=r"the YAML tag .* is not allowed") as caught:
                read(write(tmp_path, "good.yaml", "name: x\n"), [override])
            assert caught.value.where == f"--set {override}"


def test_an_override_without_a_value_drops_nothing_silently(tmp_path: Path) -> None:
    path = write(tmp_path, "a.yaml", "sft:\n  steps: 3\n")
    with pytest.raises(ConfigError, match=r"--set sft=: an override without a value\n.*sft=null"):
        read(path, ["sft="])


def test_a_mapping_of_another_name_replaces_what_it_extends(tmp_path: Path) -> None:
    (tmp_path / "base.yaml").write_text("name: base\nsft: {method: {name: vcore, kl: 0.1}, learning_rate: 1.0e-3}\n")
    (tmp_path / "other.yaml").write_text("extends: base.yaml\nname: other\nsft: {method: {name: dft}}\n")
    (tmp_path / "same.yaml").write_text("extends: base.yaml\nsft: {method: {name: vcore, epsilon: 1.0e-4}}\n")
    assert read(tmp_path / "other.yaml").values["sft"] == {"method": {"name": "dft"}, "learning_rate": 1e-3}
    assert read(tmp_path / "same.yaml").values["sft"]["method"] == {"name": "vcore", "kl": 0.1, "epsilon": 1e-4}
