"""Settings in a TOML file, read into a model that says what may stand there."""

from __future__ import annotations

import tomllib
from pathlib import Path
from typing import Annotated, TypeVar

from pydantic import AfterValidator, BaseModel, ValidationError

from assay.errors import FieldViolation, InvalidInputError, unusable
from assay.identity import check_address

Address = Annotated[str, AfterValidator(check_address)]
"""``host:port`` to listen on or to ask at."""
M = TypeVar("M", bound=BaseModel)


def read(model: type[M], path: Path, remedy: str, **more: object) -> M:
    """Reads settings.

    Args:
        model: what may stand in the file.
        path: of the file.
        remedy: for whoever has no such file.
        more: fields that do not stand there.

    Raises:
        InvalidInputError: ``SETTINGS_MISSING``, ``FILE`` when this user may not read it, or ``SETTINGS`` naming each
            field at fault.
    """
    try:
        raw = tomllib.loads(path.read_text("utf-8"))
    except PermissionError as error:
        raise unusable(error) from error
    except OSError as error:
        raise InvalidInputError("SETTINGS_MISSING", f"cannot read {path.name}", remedy=remedy) from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise InvalidInputError("SETTINGS", f"{path.name} is not TOML: {error}") from error
    try:
        return model.model_validate({**raw, **more})
    except ValidationError as error:
        violations = [FieldViolation(".".join(map(str, e["loc"])), e["msg"]) for e in error.errors()]
        raise InvalidInputError("SETTINGS", f"{path.name} is not valid", violations=violations) from error
