"""docs/cli.md has a row for every command, with what `--help` says first, and no other row."""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import typer
from typer.testing import CliRunner

from assay import installation
from assay.v1 import dataset_pb2, identity_pb2
from gateway.cli.app import NOUNS, app
from policies.engine import PolicyEngine

PAGE = Path(__file__).parents[2] / "docs" / "cli.md"


SERVES = {"serve", "witness serve"}
"""Run until they are stopped, and print nothing that a script would read."""


def leaves(command: Any, path: tuple[str, ...] = ()) -> Iterator[tuple[str, Any]]:
    """Every command of the tree by its words."""
    children = getattr(command, "commands", None)
    if children is not None:
        for name, child in children.items():
            yield from leaves(child, (*path, name))
    else:
        yield " ".join(path), command


def commands(root: Any) -> Iterator[tuple[str, str]]:
    """Every command with the first paragraph of its help."""
    for name, command in leaves(root):
        yield name, " ".join((command.help or "").split("\n\n")[0].split())


def test_every_command_has_its_row_and_every_row_its_command() -> None:
    said = dict(re.findall(r"^\| `assay ([a-z -]+)` \| (.*) \|$", PAGE.read_text(), re.MULTILINE))
    assert said == dict(commands(typer.main.get_command(app)))


def test_the_tree_is_walked_to_its_leaves() -> None:
    found = dict(commands(typer.main.get_command(app)))
    assert {"serve", "ledger freeze", "policy publish", "audit compare", "witness serve"} <= set(found)
    assert "ledger" not in found and all(found.values())


def test_help_of_a_noun_names_its_commands() -> None:
    root: Any = typer.main.get_command(app)
    for noun, says in NOUNS.items():
        named = says.rpartition(": ")[2].removesuffix(".").split(", ")
        assert sorted(named) == sorted(root.commands[noun].commands), noun


def test_help_of_an_upload_names_every_format_that_is_taken() -> None:
    root: Any = typer.main.get_command(app)
    names = [n.removeprefix("DATASET_FORMAT_").lower().replace("_", "-") for n in dataset_pb2.DatasetFormat.keys()[1:]]
    for command in ("upload", "import"):
        (option,) = (p for p in root.commands["dataset"].commands[command].params if p.name == "format")
        assert option.help.partition(";")[0].split(", ") == names
    (file,) = (p for p in root.commands["dataset"].commands["upload"].params if p.name == "file")
    assert all(word in file.help for word in ("JSONL", "CSV", "Parquet", "gzip", "zip"))


def test_the_exit_codes_of_help_are_those_of_the_page() -> None:
    """Beside a missing file's 2, which typer gives before a command begins, and the 1 of a check that found a fault."""
    root: Any = typer.main.get_command(app)
    page = dict(re.findall(r"^\| (\d+) \| (.*) \|$", PAGE.read_text(), re.MULTILINE))
    assert re.findall(r"(\d+) ", root.epilog.partition("Exit codes: ")[2].partition(" `assay")[0]) == list(page)
    for words in ("policy lint /no", "audit compare /no /no --trust /no", "permit check /no", "model check-card /no"):
        assert CliRunner().invoke(app, words.split()).exit_code == 2, words
    assert "is not there" in page["2"] and "not there" not in page["3"]
    assert "doctor" in page["1"] and "reperform" in page["1"]


def test_every_command_has_an_example_and_all_but_those_that_serve_print_json() -> None:
    for name, command in leaves(typer.main.get_command(app)):
        assert "Example: assay" in command.help, name
        assert ("--output" in {o for p in command.params for o in p.opts}) == (name not in SERVES), name


def test_a_rule_that_an_example_names_exists_and_can_be_waived_where_it_is_waived() -> None:
    known = {rule.id: rule for rule in PolicyEngine.load().policy().rules}
    named = [
        (name, rule)
        for name, command in leaves(typer.main.get_command(app))
        for rule in re.findall(r"\b[A-Z]{2,}[A-Z0-9]*(?:-[A-Z0-9.]+)+\b", command.help)
    ]
    assert {"approval waive", "policy explain"} <= {name for name, _ in named}
    assert [(name, rule) for name, rule in named if rule not in known] == []
    assert all(known[rule].waivable_by for name, rule in named if name == "approval waive")


def test_every_role_has_its_row_with_the_person_that_init_makes() -> None:
    said = re.findall(r"^\| `(\w+)` \| (\w+) \| .{20,} \|$", PAGE.read_text(), re.MULTILINE)
    made = [(p.role.removeprefix("ROLE_").lower(), p.name) for p in installation.DEFAULT_PEOPLE]
    assert said == made
    assert {f"ROLE_{role.upper()}" for role, _ in said} == set(identity_pb2.Role.keys()) - {"ROLE_UNSPECIFIED"}


@pytest.mark.parametrize("noun", ["job", "dataset", "approval", "permit", "model", "role"])
def test_clients_do_not_wait_for_the_gateways_libraries(noun: str) -> None:
    heavy = ("sqlalchemy", "alembic", "pyhanko", "reportlab", "cel_expr_python", "gateway.application")
    script = f"import sys, gateway.cli.app, gateway.cli.{noun}; print([m for m in {heavy} if m in sys.modules])"
    found = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True, timeout=60)
    assert found.stdout.strip() == "[]"


def test_commands_that_other_pages_show_exist() -> None:
    """A line of a code block or a code span that begins with `assay` begins with a command."""
    known = {name for name, _ in commands(typer.main.get_command(app))} | {"--help"}
    pages = [*PAGE.parent.rglob("*.md"), PAGE.parents[1] / "README.md"]
    shown = [(page.name, words) for page in pages for words in spoken(page.read_text())]
    assert len(shown) > 30
    nouns = {name.split()[0] for name in known if " " in name}
    wrong = [(page, words) for page, words in shown if not _is_command(words, known, nouns)]
    assert wrong == []


def spoken(text: str) -> Iterator[list[str]]:
    """The words after `assay` in code."""
    for block in re.findall(r"^```\w*\n(.*?)^```", text, re.MULTILINE | re.DOTALL):
        for line in block.splitlines():
            if match := re.match(r"(?:\S*/)?assay ([a-z][a-z -]*)", line):
                yield match[1].split()
    for span in re.findall(r"`assay ([a-z][a-z -]*)[^`]*`", re.sub(r"^```.*?^```", "", text, flags=re.M | re.S)):
        yield span.split()


def _is_command(words: list[str], known: set[str], nouns: set[str]) -> bool:
    if words[0] in nouns:
        return len(words) == 1 or f"{words[0]} {words[1]}" in known
    return words[0] in known
