"""Stage keys: the digest of everything a stage's result depends on."""

import os
from collections.abc import Iterable, Iterator
from typing import Literal

from pipeline.config.schema import PipelineConfig
from pipeline.core.errors import ConfigError, StageFailed
from pipeline.plan.code import code_now, code_of
from pipeline.plan.external import resolve
from pipeline.plan.graph import Stage
from pipeline.plan.inside import packages, packages_in, user_code_in
from pipeline.plan.interpreters import Interpreters
from pipeline.plan.user_code import READS, UserCode, user_code
from pipeline.store.documents import OutsideInput, Preimage
from pipeline.store.store import Artifact, Store
from stages.harness.declaration import CustomCode, DataPlaces, Origin
from stages.harness.versions import without_builds

STAGE_SCHEMA = 1
"""Raise it when the meaning of a stage's settings or payload changes in a way that its code digest does not show."""


class KeyMaker:
    """Makes the keys of one pipeline's stages.

    What they read from outside the store is resolved once, when it is created, and so are the versions of libraries,
    of a stage that another Python runs those beside that one. A hub is asked for a revision once, and a run has the
    keys that its plan shows.
    """

    def __init__(self, config: PipelineConfig, stages: list[Stage], store: Store) -> None:
        self.seed = config.seed
        self.interpreters = Interpreters(config)
        self._user_code = {
            stage.name: {code.setting: self._read_user_code(stage, code) for code in stage.custom_code}
            for stage in stages
        }
        self._packages = {stage.name: self._find_packages(stage) for stage in stages}
        self._modules = {name: list(_origins(code, "imports")) for name, code in self._user_code.items()}
        """Stage -> modules of the user's, which a process has loaded when it begins."""
        self.origins = {
            name: [*origins, *self._modules[name], *_origins(self._user_code[name], "reads")]
            for name, origins in origins_of(config, stages).items()
        }
        self.outside: dict[str, dict[str, OutsideInput]] = {
            name: {origin.label: resolve(origin, store.memo) for origin in origins}
            for name, origins in self.origins.items()
        }
        """Stage -> label -> what stands for it in the key."""
        kinds = {(self.interpreters.of(stage.name), self.libraries(stage)): stage for stage in stages}
        found = {
            kind: self._versions_now(stage) for kind, stage in kinds.items()
        }  # stages of a kind have the same ones
        self._versions = {s.name: found[self.interpreters.of(s.name), self.libraries(s)] for s in stages}
        self._memo = store.memo
        store.memo.save()

    def libraries(self, stage: Stage) -> tuple[str, ...]:
        """The distributions that a stage computes with, those of the user's own code and of the sandbox among them."""
        more = {name for code in self._user_code[stage.name].values() for name in code.distributions}
        more |= self._packages[stage.name]
        return (*stage.kind.libraries, *sorted(more.difference(stage.kind.libraries)))

    def exact_versions(self, stage: Stage) -> dict[str, str]:
        """Versions of these, and Python's, as they are now beside the interpreter that runs the stage, build tags
        included."""
        return self.interpreters.versions(stage.name, self.libraries(stage), exact=True)

    def code_digests(self, stage: Stage) -> dict[str, str]:
        """Path of each file of the user's own that the stage runs, or reads as it says -> the sha256 in its key."""
        settings = tuple(f"{code.setting}.file" for code in stage.custom_code)
        own = [origin for origin in self.origins[stage.name] if origin.path and origin.label.startswith(settings)]
        return {os.path.realpath(o.path): str(self.outside[stage.name][o.label].sha256) for o in own if o.path}

    def notes(self, stage: Stage) -> list[str]:
        """What the key may not know: a file of the user's own that seems to read others and lists none."""
        silent = sorted({file for code in self._user_code[stage.name].values() for file in code.silent})
        advice = f"an edit of these reruns nothing unless {READS} lists them (docs/keys.md)"
        return [f"{file} seems to read files; {advice}" for file in silent]

    def check_imports(self, stage: Stage) -> None:
        """Raise `ConfigError` for a file of the user's own that imports what is nowhere, and so could not be loaded."""
        interpreter = self.interpreters.of(stage.name)
        python = "this Python does" if interpreter is None else f"{interpreter.python} does"
        for setting, code in self._user_code[stage.name].items():
            for name, place in code.absent.items():
                fix = "Correct the name, install it, or import it in the function that needs it."
                raise ConfigError(f"{place} imports {name}, which {python} not have", where=f"{setting}.file", fix=fix)

    def preimage(self, stage: Stage, inputs: dict[str, Artifact]) -> Preimage:
        """Everything the stage's result depends on; the key is its digest."""
        return self.own(stage).model_copy(
            update={
                "inputs": {name: inputs[name].content_digest(source.select) for name, source in stage.inputs.items()},
                "code": code_of(stage.kind, stage.settings, self._ours(stage)),
                "versions": self._versions[stage.name],
            }
        )

    def own(self, stage: Stage) -> Preimage:
        """The part of the pre-image that the config says of the stage itself, known before its inputs are made."""
        return Preimage(
            stage=stage.program,
            schema=STAGE_SCHEMA,
            settings=stage.settings.identity_settings(),
            seed=self.seed,
            outside=self.outside[stage.name],
        )

    def check_unchanged(self, stage: Stage) -> None:
        """Refuse to start a process under a key whose files or libraries are no longer what they were when it was made.

        A file is read again only where its size, time or inode has changed. A hub's revision needs no look: its commit
        is in the key.

        Raises:
            StageFailed: a file or folder from outside, a source file or a library of the stage has changed.
        """
        self._refuse(stage, [*self._changed_inputs(stage, self.origins[stage.name]), *self._changed_code(stage)])

    def check_inputs(self, stage: Stage) -> None:
        """Refuse to publish what was computed while a file from outside changed: a key never stands for two results.

        The code is left out: a process has loaded it when it begins, custom files after comparing them with the key, so
        that an edit during a long training costs nothing.

        Raises:
            StageFailed: a data file or folder has changed.
        """
        loaded = {f"{code.setting}.file" for code in stage.custom_code} | {o.label for o in self._modules[stage.name]}
        self._refuse(stage, self._changed_inputs(stage, [o for o in self.origins[stage.name] if o.label not in loaded]))

    def check_versions(self, stage: Stage, told: dict[str, str]) -> None:
        """Refuse to publish what other libraries have computed than the key names, as where the node of a job has
        another environment at the same path.

        Args:
            told: library -> exact version, as the process of the stage found them when it began.

        Raises:
            StageFailed: one of them is another one.
        """
        planned = self._versions[stage.name]
        other = [
            f"{name} {version}, not {planned[name]}"
            for name, version in without_builds(told).items()
            if name in planned and planned[name] != version
        ]
        if other:
            message = f"its process ran with {'; '.join(other)} as its key says"
            raise StageFailed(stage.name, message, fix="Give it the same environment everywhere, and run it again.")

    def _refuse(self, stage: Stage, changed: list[str]) -> None:
        if changed:
            message = f"{', '.join(changed)} changed after this run was planned, and its key stands for what was there"
            fix = "Run it again: it is planned anew. Nothing was published under that key; earlier artifacts are whole."
            raise StageFailed(stage.name, message, fix=fix)

    def _changed_inputs(self, stage: Stage, origins: list[Origin]) -> list[str]:
        planned = self.outside[stage.name]
        return [
            f"{origin.label} ({origin.path})"
            for origin in origins
            if origin.path is not None and self._now(origin) != planned[origin.label]
        ]

    def _changed_code(self, stage: Stage) -> list[str]:
        ours = self._ours(stage)
        try:
            code = code_now(stage.kind, stage.settings, ours)
        except (OSError, SyntaxError) as error:
            return [str(error.filename)]
        changed = [name for name, _ in sorted(code.items() ^ code_of(stage.kind, stage.settings, ours).items())]
        versions = self._versions[stage.name].items() ^ self._versions_now(stage).items()
        return list(dict.fromkeys([*changed, *(name for name, _ in sorted(versions))]))

    def _ours(self, stage: Stage) -> frozenset[str]:
        """Modules of this project that the user's own code imports."""
        return frozenset().union(*(code.ours for code in self._user_code[stage.name].values()))

    def _versions_now(self, stage: Stage) -> dict[str, str]:
        return self.interpreters.versions(stage.name, self.libraries(stage))

    def _read_user_code(self, stage: Stage, code: CustomCode) -> UserCode:
        interpreter = self.interpreters.of(stage.name)
        if interpreter is None:
            return user_code(code, stage.kind.libraries)
        return user_code_in(interpreter, code, stage.kind.libraries)

    def _find_packages(self, stage: Stage) -> frozenset[str]:
        """The distributions that the sandbox shows, what they need included. Raises `ConfigError` for one that is not
        installed."""
        names, interpreter = tuple(stage.kind.packages(stage.settings)), self.interpreters.of(stage.name)
        if not names:
            return frozenset()
        return packages(names) if interpreter is None else packages_in(interpreter, names)

    def _now(self, origin: Origin) -> OutsideInput | None:
        try:
            return resolve(origin, self._memo)
        except (ConfigError, OSError):  # it is gone
            return None


def origins_of(config: PipelineConfig, stages: Iterable[Stage]) -> dict[str, list[Origin]]:
    """Stage -> what it reads from outside the store."""
    places = DataPlaces(config.data_folder, config.benchmark_revisions)
    return {stage.name: list(stage.kind.origins(stage.settings, places)) for stage in stages}


def _origins(user: dict[str, UserCode], how: Literal["imports", "reads"]) -> Iterator[Origin]:
    """What custom files import or read, labelled `sft.method.file: curve`."""
    for setting, code in user.items():
        for name, path in sorted((code.modules if how == "imports" else code.reads).items()):
            fix = "Paths in READS start in the folder of the file that lists them." if how == "reads" else ""
            yield Origin(f"{setting}.file: {name}", path=path, fix=fix)
