"""Base models from a local folder or from a Hugging Face hub, where one can be reached.

Either way the same happens: what is wanted goes into a folder beside the final place, is looked through by
:func:`assay.model_scan.scan`, gets a manifest and a scan report, and appears by one rename. A hub is asked for one
commit by its full hash, since a branch or tag is whatever its owner makes of it tomorrow.
"""

from __future__ import annotations

import re
import shutil
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from assay.errors import AlreadyExistsError, InvalidInputError, PreconditionError, UnavailableError
from assay.model_scan import WANTED, scan
from assay.modelfiles import BaseManifest, read_base_manifest
from assay.pinned import assay_home
from trainer.base_models import publish, write_manifest
from trainer.recipes.blocks import demand_importable
from trainer.recipes.fit import demand_tokenizer

_ID = re.compile(r"[a-z0-9][a-z0-9.-]{0,62}")
_REPOSITORY = re.compile(r"[A-Za-z0-9][\w.-]{0,95}/[A-Za-z0-9][\w.-]{0,95}", re.ASCII)
_COMMIT = re.compile(r"[0-9a-f]{40}")


@dataclass(frozen=True)
class Described:
    """What the operator says of a model that comes from elsewhere.

    Attributes:
        id: registry id that jobs will name.
        licence: SPDX identifier.
        provenance: where it came from, in one sentence for the card; made up from the source where empty.
        repository: owner and name on a hub, for a folder, which does not say; a job may name a teacher so.
    """

    id: str
    licence: str
    provenance: str = ""
    repository: str = ""

    def __post_init__(self) -> None:
        if not _ID.fullmatch(self.id):
            raise InvalidInputError("BASE_MODEL_ID", "an id has lower-case letters, digits, dots and dashes")
        if not self.licence:
            raise InvalidInputError("BASE_MODEL_LICENCE", "a base model needs a licence", remedy="name its SPDX id")
        if self.repository and not _REPOSITORY.fullmatch(self.repository):
            raise InvalidInputError("BASE_MODEL_REPOSITORY", "a repository is OWNER/NAME")


def from_folder(folder: Path, described: Described, home: Path | None = None) -> BaseManifest:
    """Copies a model from a local folder into the registry.

    Raises:
        AlreadyExistsError: ``BASE_MODEL_EXISTS``; a model in use is never replaced by another under its id.
        InvalidInputError: ``BASE_MODEL_FOLDER``, or what :func:`assay.model_scan.scan`,
            :func:`trainer.recipes.blocks.demand_importable` or :func:`trainer.recipes.fit.demand_tokenizer` refuses.
        IntegrityError, PreconditionError: likewise.
    """
    if not folder.is_dir():
        raise InvalidInputError("BASE_MODEL_FOLDER", f"{folder} is no folder")
    seen = scan(folder)
    provenance = described.provenance or "from a folder of the operator's, not compared with the publisher's digest"
    source = {"kind": "folder", **({"repository": described.repository} if described.repository else {})}
    with _Staging(described.id, home) as staging:
        for name in seen.files:
            shutil.copyfile(folder / name, staging.fetched / name, follow_symlinks=False)
        return staging.finish(described.licence, provenance, source, seen.left_out)


def from_hub(repo: str, revision: str, described: Described, home: Path | None = None) -> BaseManifest:
    """Fetches one commit of a repository from the hub that ``HF_ENDPOINT`` names.

    Raises:
        InvalidInputError: ``BASE_MODEL_REVISION`` for anything but a full commit hash, ``BASE_MODEL_LICENCE`` when the
            hub names another licence, or what scan and import refuse, as of :func:`from_folder`.
        PreconditionError: ``HUB_OFFLINE`` where ``HF_HUB_OFFLINE`` is set; likewise.
        UnavailableError: ``HUB_UNREACHABLE``.
        AlreadyExistsError: ``BASE_MODEL_EXISTS``.
    """
    from huggingface_hub import HfApi, constants, snapshot_download
    from huggingface_hub.errors import HfHubHTTPError, OfflineModeIsEnabled

    if not _COMMIT.fullmatch(revision):
        raise InvalidInputError(
            "BASE_MODEL_REVISION", "a revision is a full commit hash", remedy="copy the 40 hex digits of the commit"
        )
    if constants.HF_HUB_OFFLINE:
        raise PreconditionError("HUB_OFFLINE", "HF_HUB_OFFLINE is set", remedy="unset it for this one command")
    with _Staging(described.id, home) as staging:
        try:
            info = HfApi().model_info(repo, revision=revision)
            named = [sibling.rfilename for sibling in info.siblings or ()]
            stated = str(getattr(info.card_data, "license", None) or "")
            snapshot_download(repo, revision=revision, local_dir=staging.fetched, allow_patterns=list(WANTED))
        except OfflineModeIsEnabled as error:
            raise PreconditionError("HUB_OFFLINE", "the hub library is in offline mode") from error
        except (HfHubHTTPError, OSError) as error:
            raise UnavailableError(
                "HUB_UNREACHABLE", f"the hub does not give {repo}: {type(error).__name__}"
            ) from error
        if info.sha != revision:
            raise InvalidInputError("BASE_MODEL_REVISION", "the hub answered with another commit than was asked for")
        if stated and stated.lower() != described.licence.lower():
            raise InvalidInputError(
                "BASE_MODEL_LICENCE", f"the hub names the licence {stated[:60]!r}, not {described.licence!r}"
            )
        # What the library keeps for itself.
        shutil.rmtree(staging.fetched / ".cache", ignore_errors=True)
        provenance = described.provenance or f"{repo} at commit {revision} of the publisher's repository"
        source = {"kind": "hub", "repository": repo, "revision": revision, "licence_stated": stated}
        return staging.finish(described.licence, provenance, source, named)


class _Staging:
    """A folder beside the final place, gone when left."""

    def __init__(self, model_id: str, home: Path | None) -> None:
        models = (home or assay_home()) / "models"
        models.mkdir(parents=True, exist_ok=True)
        self._id, self._target = model_id, models / model_id
        if self._target.exists():
            raise AlreadyExistsError(
                "BASE_MODEL_EXISTS", f"{model_id} is installed already", remedy="choose another id, or remove it first"
            )
        self._folder = Path(tempfile.mkdtemp(prefix=f".{model_id}-", dir=models))
        self.fetched = self._folder / "fetched"
        self.fetched.mkdir()

    def __enter__(self) -> _Staging:
        return self

    def __exit__(self, *_: object) -> None:
        shutil.rmtree(self._folder, ignore_errors=True)

    def finish(
        self, licence: str, provenance: str, source: Mapping[str, Any], left_out: Sequence[str] = ()
    ) -> BaseManifest:
        """Scans what was fetched, keeps what gets in and can be tuned, writes manifest and report, and publishes."""
        found = scan(self.fetched, left_out=[name for name in left_out if not (self.fetched / name).exists()])
        whole = self._folder / "whole"
        (whole / "files").mkdir(parents=True)
        for name in found.files:
            (self.fetched / name).rename(whole / "files" / name)
            (whole / "files" / name).chmod(0o644)
        demand_importable(whole / "files")
        demand_tokenizer(whole / "files")
        described = {
            "id": self._id,
            "licence": licence,
            "provenance": provenance,
            "parameters": found.parameters,
            "source": dict(source),
        }
        write_manifest(whole, described, found.report)
        made = read_base_manifest(whole)
        publish(whole, self._target)
        installed = read_base_manifest(self._target)
        if installed.sha256 != made.sha256:
            raise AlreadyExistsError("BASE_MODEL_EXISTS", f"{self._id} was installed by somebody else meanwhile")
        return installed
