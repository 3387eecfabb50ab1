"""The store: whole artifacts or none, damage found, keys locked."""

import errno
import json
import multiprocessing
import os
import signal
import time
from pathlib import Path

import pytest

from pipeline.core.errors import StoreError
from pipeline.store.documents import ManifestDraft, Preimage
from pipeline.store.store import Artifact, Store
from stages.harness import documents
from stages.harness.json_files import write_json

MANIFEST = ManifestDraft(stage="data", name="data", key="k1", preimage=Preimage(), seconds=1.0)


def publish(store: Store, key: str = "k1", text: str = "content") -> Artifact:
    out = store.work("data", key) / "out"
    (out / "record").mkdir(parents=True)
    (out / "sub").mkdir()
    (out / "a.txt").write_text(text)
    (out / "sub" / "b.txt").write_text("b")
    (out / "record" / "log").write_text(f"{time.time_ns()}")
    return store.publish("data", key, MANIFEST.model_copy(update={"key": key}))


def _write(folder: Path, text: str) -> None:
    (folder / "manifest.json").write_text(text)


def _change(folder: Path, **fields: object) -> None:
    file = folder / "manifest.json"
    file.write_text(json.dumps({**json.loads(file.read_text()), **fields}))


def test_published_artifact_is_found_whole(tmp_path: Path) -> None:
    store = Store(tmp_path)
    made = publish(store)
    found = store.find("data", "k1").artifact
    assert found is not None
    assert found.manifest == made.manifest
    assert {f.path for f in found.manifest.files} == {"a.txt", "sub/b.txt", "record/log"}
    assert not store.work("data", "k1").exists()


def test_digest_covers_content_and_not_the_record(tmp_path: Path) -> None:
    store = Store(tmp_path)
    first, second, other = publish(store, "k1"), publish(store, "k2"), publish(store, "k3", "other")
    assert first.content_digest() == second.content_digest() != other.content_digest()
    assert first.content_digest(("sub",)) == other.content_digest(("sub",))
    assert first.content_digest(("a.txt",)) != other.content_digest(("a.txt",))


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda folder: (folder / "a.txt").unlink(), "a.txt missing"),
        (lambda folder: (folder / "a.txt").write_text("CONTENT"), "a.txt damaged"),
        (lambda folder: (folder / "a.txt").write_text("much longer"), "a.txt damaged"),
        (lambda folder: (folder / "manifest.json").write_text("{"), "manifest.json unreadable"),
        (lambda folder: (folder / "manifest.json").unlink(), "manifest.json unreadable"),
        *((lambda folder, text=text: _write(folder, text), "manifest.json damaged") for text in ("[]", "null", "{}")),
        (lambda folder: _change(folder, key="k2"), "it belongs to another artifact"),
        (lambda folder: _change(folder, files=None), "damaged: files: "),
        (lambda folder: _change(folder, seconds=None), "damaged: seconds: "),
        (lambda folder: _change(folder, files=[]), "damaged: files: "),
        (lambda folder: _change(folder, files=[{"path": "a.txt"}]), "damaged: files.0.size: "),
        (
            lambda folder: _change(folder, files=[{"path": "../../other", "size": 1, "sha256": ""}]),
            "it names a file outside",
        ),
        (lambda folder: _change(folder, digest="0"), "its digest is not that of its files"),
    ],
)
def test_damage_is_found_and_set_aside(tmp_path: Path, damage: object, message: str) -> None:
    store = Store(tmp_path)
    folder = publish(store).folder
    damage(folder)  # type: ignore[operator]
    found = store.find("data", "k1")
    assert found.artifact is None
    assert message in found.damage
    aside = store.set_aside("data", "k1")
    assert aside.is_dir()
    assert store.find("data", "k1").damage == ""
    publish(store)
    assert store.find("data", "k1").artifact is not None


def test_unpublished_work_is_never_an_artifact(tmp_path: Path) -> None:
    store = Store(tmp_path)
    out = store.work("data", "k1") / "out"
    out.mkdir(parents=True)
    (out / "manifest.json").write_text(json.dumps({**MANIFEST.to_json(), "files": []}))
    assert store.find("data", "k1").artifact is None


def _hold(home: Path, ready: object) -> None:
    with Store(home).lock("data", "k1", lambda who: None):
        ready.set()  # type: ignore[attr-defined]
        time.sleep(60)


def test_lock_waits_for_its_holder_and_a_killed_holder_frees_it(tmp_path: Path) -> None:
    context = multiprocessing.get_context("spawn")
    ready = context.Event()
    holder = context.Process(target=_hold, args=(tmp_path, ready))
    holder.start()
    assert ready.wait(30)
    waited: list[str] = []
    killed = False

    def waiting(who: str) -> None:
        nonlocal killed
        waited.append(who)
        assert holder.pid is not None
        os.kill(holder.pid, signal.SIGKILL)
        killed = True

    with Store(tmp_path).lock("data", "k1", waiting):
        assert killed
    assert waited == [waited[0]]
    assert f"process {holder.pid}" in waited[0]
    holder.join()


def test_folder_that_nobody_may_write() -> None:
    with pytest.raises(StoreError, match="cannot be written"):
        Store(Path("/proc/vcore"))


def test_home_that_is_a_file(tmp_path: Path) -> None:
    (tmp_path / "home").write_text("")
    with pytest.raises(StoreError, match="cannot be written"):
        Store(tmp_path / "home")


def test_a_new_artifact_that_cannot_be_finished_leaves_the_earlier_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = Store(tmp_path)
    before = publish(store)

    def full(*arguments: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patched:
        patched.setattr(documents, "write_json", full)
        with pytest.raises(OSError, match="No space left"):
            publish(store, text="new")
    assert store.find("data", "k1").artifact == before
    rename = os.rename
    with monkeypatch.context() as patched:
        patched.setattr(os, "rename", lambda a, b: full() if str(a).endswith("out") else rename(a, b))
        with pytest.raises(OSError, match="No space left"):
            store.publish("data", "k1", MANIFEST)
    assert store.find("data", "k1").artifact == before
    assert os.listdir(tmp_path / "trash") == []
    assert store.publish("data", "k1", MANIFEST).content_digest() != before.content_digest(), (
        "the payload was still there"
    )
    assert len(os.listdir(tmp_path / "trash")) == 1


def test_what_a_killed_attempt_left_of_its_manifest_is_no_content(tmp_path: Path) -> None:
    store = Store(tmp_path)
    first = publish(store)
    out = store.work("data", "k2") / "out"
    out.mkdir(parents=True)
    (out / ".manifest.json.1234").write_text("{")
    (out / "a.txt").write_text("content")
    second = store.publish("data", "k2", MANIFEST.model_copy(update={"key": "k2"}))
    assert {file.path for file in second.manifest.files} == {"a.txt"}
    assert first.key == "k1"


def test_a_write_that_fails_leaves_nothing_behind(tmp_path: Path) -> None:
    write_json(tmp_path / "a.json", {"a": 1})
    with pytest.raises(TypeError):
        write_json(tmp_path / "a.json", {"a": object()})
    assert os.listdir(tmp_path) == ["a.json"]
    assert json.loads((tmp_path / "a.json").read_text()) == {"a": 1}


@pytest.mark.parametrize("text", ["{", "[]", "{}", '{"key": "k", "preimage": null, "seconds": 1}'])
def test_a_damaged_note_of_what_was_last_is_none(tmp_path: Path, text: str) -> None:
    store = Store(tmp_path)
    made = publish(store).manifest
    store.remember("small", "sft", made.model_copy(update={"seconds": 2.0}))
    store.remember("small", "grpo", made.model_copy(update={"seconds": 3.0}))
    (tmp_path / "latest/small/sft.json").write_text(text)
    assert list(store.latest("small")) == ["grpo"]
    assert store.typical_seconds() == {"grpo": 3.0}


def test_a_store_that_is_looked_into_is_not_written(tmp_path: Path) -> None:
    publish(Store(tmp_path / "home"))
    (tmp_path / "home/cache/digests.json").unlink()
    for name in ("cache", "locks", "trash"):
        (tmp_path / "home" / name).rmdir()
    store = Store.existing(tmp_path / "home")
    assert store.find("data", "k1").artifact is not None
    assert [key for _, key, _ in store.artifacts()] == ["k1"]
    assert sorted(os.listdir(tmp_path / "home")) == ["latest", "runs", "store", "work"]


def test_a_store_on_another_disk_than_its_work_is_refused_at_once(tmp_path: Path) -> None:
    other = Path("/dev/shm")
    if not other.is_dir() or other.stat().st_dev == tmp_path.stat().st_dev:
        pytest.skip("no second file system here: a store on another disk was not tried")
    elsewhere = other / f"vcore-{os.getpid()}"
    elsewhere.mkdir()
    try:
        (tmp_path / "store").symlink_to(elsewhere)
        with pytest.raises(StoreError, match=r"store is on another file system than .*work"):
            Store(tmp_path)
    finally:
        elsewhere.rmdir()
