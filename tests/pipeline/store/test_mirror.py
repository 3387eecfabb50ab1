"""The remote mirror: two homes that share one, over file:// and in memory; over S3, from a local server, where s3fs is
installed."""

import hashlib
import json
import shutil
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from pipeline.core.errors import StoreError
from pipeline.plan.decide import Decider
from pipeline.plan.graph import build_graph
from pipeline.plan.planning import make_plan
from pipeline.run.execute import Executor, StageOutcome
from pipeline.run.view import View
from pipeline.store.mirror import Mirror
from pipeline.store.store import Artifact, Store
from tests.pipeline.helpers import ORDER, config, make


@pytest.fixture(params=["file", "memory", pytest.param("s3", marks=pytest.mark.slow)])
def url(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    if request.param == "file":
        yield f"file://{tmp_path / 'mirror'}"
    elif request.param == "memory":
        yield f"memory://{uuid.uuid4().hex}/mirror"
    else:
        pytest.importorskip("s3fs", reason="s3fs is not installed: the mirror was not tried on S3")
        server_module = pytest.importorskip(
            "moto.server", reason="moto is not installed: the mirror was not tried on S3"
        )
        server = server_module.ThreadedMotoServer(port=0)
        server.start()
        host, port = server.get_host_and_port()
        for name, value in {
            "AWS_ENDPOINT_URL": f"http://{host}:{port}",
            "AWS_ACCESS_KEY_ID": "x",
            "AWS_SECRET_ACCESS_KEY": "x",
            "AWS_DEFAULT_REGION": "us-east-1",
        }.items():
            monkeypatch.setenv(name, value)
        import s3fs

        s3fs.S3FileSystem.clear_instance_cache()
        bucket = uuid.uuid4().hex
        s3fs.S3FileSystem().mkdir(bucket)
        yield f"s3://{bucket}/mirror"
        server.stop()


def run_all(tmp_path: Path, home: str, url: str) -> list[StageOutcome]:
    """Every stage through the real executor; fails if one would have to be computed."""
    settings = config(tmp_path, f"home={tmp_path / home}", f"execution.mirror={url}")
    executor = Executor(Decider(settings, Store(settings.home_folder)), View(), command="")
    return [executor.ensure(stage) for stage in build_graph(settings)]


def states(tmp_path: Path, home: str, url: str) -> dict[str, tuple[str, str]]:
    settings = config(tmp_path, f"home={tmp_path / home}", f"execution.mirror={url}")
    return {p.stage.name: (p.state, p.reason) for p in make_plan(settings, Store(settings.home_folder))}


def test_what_one_home_made_another_fetches(tmp_path: Path, url: str) -> None:
    make(tmp_path)
    first = run_all(tmp_path, "home", url)
    assert set(states(tmp_path, "other", url).values()) == {("HIT", f"fetched from {url}")}
    assert not list((tmp_path / "other" / "store").iterdir()), "a plan fetches nothing"
    second = run_all(tmp_path, "other", url)
    assert [o.artifact.content_digest() for o in second] == [o.artifact.content_digest() for o in first]
    assert {o.artifact.folder.parents[2].name for o in second} == {"other"}
    assert set(states(tmp_path, "other", url).values()) == {("HIT", "")}
    store = Store(tmp_path / "other")
    assert all(store.find(program, key, reread=True).artifact for program, key, _ in store.artifacts())


def test_an_upload_that_was_cut_off_is_no_artifact_and_is_completed(tmp_path: Path, url: str) -> None:
    make(tmp_path)
    run_all(tmp_path, "home", url)
    mirror = Mirror(url)
    key = next(key for program, key, _ in Store(tmp_path / "home").artifacts() if program == "data")
    manifest = f"{mirror._folder('data', key)}/manifest.json"
    whole = mirror._files.cat_file(manifest)
    mirror._files.pipe_file(manifest, whole[: len(whole) // 2])
    assert mirror.manifest("data", key) is None
    assert states(tmp_path, "other", url)["data"] == ("RUN", "never run")
    run_all(tmp_path, "home", url)
    again, before = (json.loads(text) for text in (mirror._files.cat_file(manifest), whole))
    assert again.pop("upload") != before.pop("upload"), "another upload"
    assert again == before


def test_a_mirrored_file_that_was_changed_is_refused(tmp_path: Path, url: str) -> None:
    make(tmp_path)
    run_all(tmp_path, "home", url)
    mirror = Mirror(url)
    key = next(key for program, key, _ in Store(tmp_path / "home").artifacts() if program == "data")
    (mirrored,) = [file for file in mirror._files.find(mirror._folder("data", key)) if file.endswith("/sft.jsonl")]
    mirror._files.pipe_file(mirrored, b"other")
    with pytest.raises(StoreError, match=r"sft.jsonl of data/.* is not what its manifest says"):
        run_all(tmp_path, "other", url)
    assert not list((tmp_path / "other" / "store").glob("*/*"))


def with_log(tmp_path: Path, home: str, log: str) -> Artifact:
    """The data artifact as another machine makes it: the same content, another log."""
    make(tmp_path, until="data")
    made = make_plan(config(tmp_path), Store(tmp_path / "home"))[0]
    assert made.key is not None
    artifact = Store(tmp_path / "home").find("data", made.key).artifact
    assert artifact is not None
    store = Store(tmp_path / home)
    out = store.work("data", made.key) / "out"
    shutil.copytree(artifact.folder, out)
    (out / "record" / "stage.log").write_text(log)
    (out / "manifest.json").unlink()
    return store.publish("data", made.key, artifact.manifest.draft())


def test_two_that_upload_at_once_leave_one_whole_artifact(
    tmp_path: Path, url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    first, second = with_log(tmp_path, "first", "log of the first"), with_log(tmp_path, "second", "log of the second")
    ours, theirs = Mirror(url), Mirror(url)
    look, looks = theirs.manifest, iter([None])

    def nothing_yet(program: str, key: str) -> Any:
        """There is nothing when the second looks; before it uploads, the first has done so."""
        if next(looks, look) is None:
            assert look(program, key) is None
            assert ours.push(first)
            return None
        return look(program, key)

    monkeypatch.setattr(theirs, "manifest", nothing_yet)
    assert not theirs.push(second)
    fetched = Mirror(url).fetch(Store(tmp_path / "third"), "data", first.key)
    assert fetched is not None
    assert (fetched.folder / "record" / "stage.log").read_text() == "log of the first"
    assert fetched.manifest == first.manifest
    uploads = ours._files.ls(ours._folder("data", first.key), detail=False)
    assert len(uploads) == 2, "a manifest and one upload: that of the second is removed"


def test_the_layout_before_uploads_had_folders_is_read(tmp_path: Path, url: str) -> None:
    artifact = with_log(tmp_path, "first", "log")
    mirror = Mirror(url)
    for file in ("manifest.json", *(entry.path for entry in artifact.manifest.files)):
        target = f"{mirror._folder('data', artifact.key)}/{file}"
        mirror._files.makedirs(target.rpartition("/")[0], exist_ok=True)
        mirror._files.put_file(str(artifact.folder / file), target)
    fetched = mirror.fetch(Store(tmp_path / "other"), "data", artifact.key)
    assert fetched is not None
    assert fetched.content_digest() == artifact.content_digest()
    assert not mirror.push(artifact)


@pytest.mark.parametrize("change", ["path", "absolute", "upload"])
def test_a_manifest_that_leads_elsewhere_is_none(tmp_path: Path, change: str) -> None:
    artifact = with_log(tmp_path, "first", "log")
    mirror = Mirror(f"memory://{uuid.uuid4().hex}/mirror")
    mirror.push(artifact)
    file = f"{mirror._folder('data', artifact.key)}/manifest.json"
    manifest = json.loads(mirror._files.cat_file(file))
    entry = {"size": 4, "sha256": hashlib.sha256(b"evil").hexdigest()}
    if change == "upload":
        manifest["upload"] = "../../elsewhere"
    else:
        outside = "../../../../evil.txt" if change == "path" else str(tmp_path / "evil.txt")
        manifest["files"] = [{"path": outside, **entry}]
        mirror._files.pipe_file(f"{mirror._folder('data', artifact.key)}/{manifest['upload']}/{outside}", b"evil")
    mirror._files.pipe_file(file, json.dumps(manifest).encode())
    assert mirror.fetch(Store(tmp_path / "other" / "home"), "data", artifact.key) is None
    assert not list(tmp_path.rglob("evil.txt"))


def test_a_mirror_that_fails_loses_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    make(tmp_path)
    url = f"file://{tmp_path / 'mirror'}"

    def broken(*arguments: Any, **options: Any) -> None:
        raise OSError("no space left on device")

    monkeypatch.setattr("fsspec.implementations.local.LocalFileSystem.put_file", broken)
    assert {o.state for o in run_all(tmp_path, "home", url)} == {"cached"}
    assert capsys.readouterr().err.count("not uploaded") == len(ORDER)


@pytest.mark.parametrize("wrong", ["nonsense://bucket/mirror", "file:///proc/version/mirror"])
def test_a_mirror_that_cannot_be_used_is_one_clear_error(tmp_path: Path, wrong: str) -> None:
    with pytest.raises(StoreError, match=r"execution\.mirror: the mirror .* cannot be"):
        states(tmp_path, "home", wrong)
    shutil.rmtree(tmp_path / "home", ignore_errors=True)
