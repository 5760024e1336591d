"""Counts tokens as the trainer will see them: the base model's own chat template and tokenizer, without torch."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from assay.errors import UnavailableError
from assay.modelfiles import BASE_FILES
from audit.prepare.rows import Message

_NAMED_TOKENS = ("bos_token", "eos_token", "unk_token", "pad_token")


class TokenCounter:
    """Counts the tokens of conversations for one base model.

    Args:
        models: folder of the base models.
        base_model: registry id.

    Raises:
        UnavailableError: ``BASE_MODEL_MISSING`` when the tokenizer or the chat template is not installed.
    """

    def __init__(self, models: Path, base_model: str) -> None:
        folder = models / base_model / BASE_FILES
        settings = _read_settings(folder, base_model)
        template = folder / "chat_template.jinja"
        source = template.read_text("utf-8") if template.is_file() else settings.get("chat_template")
        if not isinstance(source, str):
            raise UnavailableError(
                "BASE_MODEL_MISSING", f"base model {base_model!r} has no chat template", remedy="install it again"
            )
        from jinja2.sandbox import ImmutableSandboxedEnvironment
        from tokenizers import Tokenizer

        # The two switches are those with which transformers renders chat templates.
        environment = ImmutableSandboxedEnvironment(trim_blocks=True, lstrip_blocks=True)
        self._template = environment.from_string(source)
        self._names = {name: _token_text(settings.get(name)) for name in _NAMED_TOKENS}
        self._tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
        self._tokenizer.no_truncation()

    @property
    def control_tokens(self) -> tuple[str, ...]:
        """Texts that the tokenizer reads as control tokens of the template; no row may hold one."""
        named = {t for t in self._names.values() if t}
        marked = {
            t.content
            for t in self._tokenizer.get_added_tokens_decoder().values()
            if t.special and t.content.startswith("<|")
        }
        return tuple(sorted(named | marked))

    def count(self, messages: Sequence[Message]) -> int:
        """Tokens of a whole conversation, template included."""
        text = self._template.render(messages=messages, add_generation_prompt=False, **self._names)
        return len(self._tokenizer.encode(text, add_special_tokens=False).ids)


def _read_settings(folder: Path, base_model: str) -> dict[str, Any]:
    if not (folder / "tokenizer.json").is_file():
        raise UnavailableError(
            "BASE_MODEL_MISSING",
            f"base model {base_model!r} is not installed here",
            remedy="install it on the audit worker",
        )
    settings = folder / "tokenizer_config.json"
    value = json.loads(settings.read_text("utf-8")) if settings.is_file() else {}
    return value if isinstance(value, dict) else {}


def _token_text(value: Any) -> str:
    return str(value.get("content", "")) if isinstance(value, dict) else str(value or "")
