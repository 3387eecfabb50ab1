"""The store: whole artifacts or none, damage found, keys locked."""

import json
import multiprocessing
import os
import signal
import time
from pathlib import Path

import pytest

from pipeline.errors import StoreError
from pipeline.store import Artifact, Store

MANIFEST = {"stage": "data", "name": "data", "key": "k1", "preimage": {}, "seconds": 1.0}


def publish(store: Store, key: str = "k1", text: str = "content") -> Artifact:
    out = store.work("data", key) / "out"
    (out / "record").mkdir(parents=True)
    (out / "sub").mkdir()
    (out / "a.txt").write_text(text)
    (out / "sub" / "b.txt").write_text("b")
    (out / "record" / "log").write_text(f"{time.time_ns()}")
    return store.publish("data", key, {**MANIFEST, "key": key})


def test_published_artifact_is_found_whole(tmp_path: Path) -> None:
    store = Store(tmp_path)
    made = publish(store)
    found = store.find("data", "k1").artifact
    assert found is not None
    assert found.manifest == made.manifest
    assert {f["path"] for f in found.manifest["files"]} == {"a.txt", "sub/b.txt", "record/log"}
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
    (out / "manifest.json").write_text(json.dumps({**MANIFEST, "files": []}))
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
