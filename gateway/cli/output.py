"""Printing: tables for people, JSON for programs."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from enum import StrEnum
from typing import Annotated, Any

import typer
from google.protobuf import json_format
from google.protobuf.message import Message
from rich.console import Console
from rich.table import Table
from rich.text import Text

from assay.errors import InvalidInputError


class Output(StrEnum):
    """How to print."""

    TEXT = "text"
    JSON = "json"


OutputOption = Annotated[Output, typer.Option("--output", "-o", help="text for people, json for programs.")]

console = Console(soft_wrap=True)
_wide = Console(soft_wrap=True, width=1 << 16)
"""For a file or a pipe: a table takes what its longest cells need, so that a line of it is a row."""
progress_console = Console(stderr=True)


def as_dict(message: Message) -> dict[str, Any]:
    """A protobuf message as plain data, with the field names of the contract."""
    return json_format.MessageToDict(message, preserving_proto_field_name=True)


def emit(output: Output, data: Message | Mapping[str, Any] | Sequence[Any], text: Iterable[Any] = ()) -> None:
    """Prints ``data`` as JSON, or ``text`` (rich renderables or plain lines) for people."""
    if output is Output.JSON:
        plain = as_dict(data) if isinstance(data, Message) else data
        typer.echo(json.dumps(plain, indent=2, ensure_ascii=False, default=str))
        return
    printer = console if console.is_terminal else _wide
    for item in text:
        # Text from outside never becomes markup or a control sequence on a terminal.
        printer.print(safe(item) if isinstance(item, str) else item)


def safe(text: str) -> Text:
    """Text without control characters, so that a name cannot paint the terminal."""
    return Text("".join(c if c in "\n\t" or c.isprintable() else "�" for c in text))


def table(columns: Sequence[str], rows: Iterable[Sequence[object]], title: str | None = None) -> Table:
    """A table whose cells are plain text, broken where the terminal ends and never cut: names are typed again."""
    out = Table(title=title, title_justify="left", header_style="bold", box=None, pad_edge=False)
    for column in columns:
        out.add_column(column, overflow="fold")
    for row in rows:
        out.add_row(*[safe("" if cell is None else str(cell)) for cell in row])
    return out


def state_name(name: str) -> str:
    """``STATE_AWAITING_APPROVAL`` as people say it."""
    return name.removeprefix("STATE_")


def usd(micros: int) -> str:
    """Millionths of a US dollar as money."""
    return f"${micros / 1e6:,.6f}"


def micros(dollars: float) -> int:
    """US dollars as millionths.

    Raises:
        InvalidInputError: ``MAX_USD`` for what is no sum, or beyond 63 bits of them.
    """
    if not abs(dollars) * 1e6 < 1 << 63:
        raise InvalidInputError("MAX_USD", f"--max-usd: {dollars} is no sum of money", remedy="such as 25 or 0.5")
    return round(dollars * 1e6)


def every_page(call: Callable[[Any], Any], request: Any) -> Any:
    """The answers of all pages of a listing as one."""
    answer = page = call(request)
    while page.next_page_token:
        request.page_token = page.next_page_token
        page = call(request)
        answer.MergeFrom(page)
    answer.ClearField("next_page_token")
    return answer


def more(answer: Any) -> list[str]:
    """The line under a listing that has another page; none under the last."""
    return [f"more: --page-token {answer.next_page_token}"] if answer.next_page_token else []
