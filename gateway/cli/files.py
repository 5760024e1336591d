"""Files that commands read and write: opened before anything is done that cannot be undone."""

from __future__ import annotations

import errno
import json
import os
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from io import BytesIO
from pathlib import Path
from typing import Any, BinaryIO

from google.protobuf.message import Message

from assay.errors import InvalidInputError


@contextmanager
def written(path: Path) -> Iterator[BinaryIO]:
    """Opens a file before the body acts, and puts it at ``path`` once the body has ended; a failure leaves nothing.

    Raises:
        OSError: ``path`` cannot be written; the body has not run then.
    """
    if path.is_dir():
        raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), str(path))
    if path.exists() and not path.is_file():  # such as /dev/stdout, which nothing may replace
        with path.open("wb") as stream:
            yield stream
        return
    partial = path.with_name(f"{path.name}.part")
    with partial.open("wb") as stream:
        try:
            yield stream
        except BaseException:
            partial.unlink()
            raise
    partial.replace(path)


def written_if(path: Path | None) -> Any:
    """As :func:`written`, or a place that keeps nothing where no file was asked for."""
    return nullcontext(BytesIO()) if path is None else written(path)


def write_json(stream: BinaryIO, value: Any) -> None:
    """Writes a value as people can read it too."""
    stream.write(f"{json.dumps(value, indent=1)}\n".encode())


def parse_fault(error: Exception) -> str:
    """What protobuf found, without its list of fields, which has other spellings than files and pages."""
    return str(error).partition("\n Available Fields")[0]


def field_names(message: Message) -> str:
    """The fields of a message as files and pages spell them."""
    return ", ".join(field.name for field in message.DESCRIPTOR.fields)


def read_object(path: Path, reason: str) -> dict[str, Any]:
    """Reads a file that holds one JSON object.

    Raises:
        InvalidInputError: ``reason``.
    """
    try:
        value = json.loads(path.read_text("utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise InvalidInputError(reason, f"{path} cannot be read as JSON") from error
    if not isinstance(value, dict):
        raise InvalidInputError(reason, f"{path} holds no JSON object")
    return value
