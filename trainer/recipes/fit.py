"""Whether a base model's tokenizer and its weights belong together, asked before anything is loaded or trained.

A token beyond the embedding reads memory that is not the model's, or ends the process inside a kernel; a tokenizer of
another model trains on other words than the rows say. The first can be seen from numbers, and is.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from assay.errors import PreconditionError

_REMEDY = "install the tokenizer files that the model was published with, as a base model of another id, and ask anew"


def read_limits(files: Path) -> tuple[int, int]:
    """Tokens that the model's embedding knows, and tokens that one of its sequences may have.

    Args:
        files: ``files/`` of a base model.
    """
    from transformers import AutoConfig

    config: Any = AutoConfig.from_pretrained(files, local_files_only=True).get_text_config()
    # A model without learned or scaled positions states no context.
    return int(config.vocab_size), int(getattr(config, "max_position_embeddings", None) or 1 << 30)


def demand_fit(tokenizer: Any, vocabulary: int) -> None:
    """Demands that every token the tokenizer can give is one that the model knows; fewer are usual, for padding.

    Args:
        tokenizer: of transformers.
        vocabulary: rows of the model's embedding.

    Raises:
        PreconditionError: ``TOKENIZER_MISMATCH``.
    """
    highest = max(tokenizer.get_vocab().values(), default=-1)
    if not 0 <= highest < vocabulary:
        raise PreconditionError(
            "TOKENIZER_MISMATCH",
            f"the base model's tokenizer has tokens up to {highest}, its embedding has {vocabulary} rows",
            remedy=_REMEDY,
        )
    if not tokenizer.chat_template:
        raise PreconditionError(
            "TOKENIZER_MISMATCH", "the base model's tokenizer has no chat template to write rows with", remedy=_REMEDY
        )
