"""Whether a base model's tokenizer, weights and chat template belong together, asked before anything is loaded.

A token beyond the embedding reads memory that is not the model's, or ends the process inside a kernel; a tokenizer of
another model trains on other words than the rows say. The first can be seen from numbers, and is.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from assay.base_demands import context_tokens
from assay.chat_template import ChatTemplate
from assay.errors import InvalidInputError, PreconditionError

_REMEDY = "install the tokenizer files that the model was published with, as a base model of another id, and ask anew"
_SAMPLE = (
    {"role": "user", "content": "What is it?"},
    {"role": "assistant", "content": "A question."},
    {"role": "user", "content": "And this?"},
    {"role": "assistant", "content": "An answer."},
)
# Where a normaliser or a pre-tokenizer that was made anew may part from the one in the file.
_TEXTS = (
    "yes", " yes", "  two  blanks ", "\n\nline\n line\t\ttab", "\u00a0wide\u2003blank\u200b", "don't, I'LL; it's",
    "3,50 € = 1234567.89", "x_1 = [(a<b)]", "Größe, naïve, nai\u0308ve, ﬁne", "好的，谢谢。", "これはテスト",
    "مرحبا بالعالم", "नमस्ते", "🙂👍🏽",
)  # fmt: skip


def read_limits(files: Path) -> tuple[int, int]:
    """Tokens that the model's embedding knows, and tokens that one of its sequences may have.

    Args:
        files: ``files/`` of a base model.
    """
    from transformers import AutoConfig

    config: Any = AutoConfig.from_pretrained(files, local_files_only=True).get_text_config()
    return int(config.vocab_size), context_tokens(config)


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


def demand_tokenizer(files: Path) -> None:
    """Demands a tokenizer that fits, and a chat template that the trainer, the token counts and audits can write with.

    Args:
        files: of a base model that is to be imported, scanned.

    Raises:
        InvalidInputError: ``BASE_TOKENIZER``, also where intake would count other tokens than are trained, or what
            :class:`assay.chat_template.ChatTemplate` says of a template that is none, refuses a conversation of two
            turns or changes its words.
        PreconditionError: ``TOKENIZER_MISMATCH``.
    """
    from transformers import AutoTokenizer

    try:
        tokenizer = AutoTokenizer.from_pretrained(files, local_files_only=True, trust_remote_code=False)
    # Malformed files end it in many ways.
    except Exception as error:
        raise _unfit("the installed transformers makes no tokenizer of its files") from error
    if not tokenizer.is_fast:
        raise _unfit("its tokenizer does not say which characters a token covers (none of the fast ones)")
    demand_fit(tokenizer, read_limits(files)[0])
    own, counted = ChatTemplate.of(tokenizer), ChatTemplate.of_files(files)
    text = own.write(_SAMPLE)
    own.contents(_SAMPLE, text)
    if text != counted.write(_SAMPLE):
        raise _unfit("its chat template writes tokens that its files do not name")
    _demand_one_reading(files, tokenizer, own)


def _demand_one_reading(files: Path, tokenizer: Any, template: ChatTemplate) -> None:
    """Demands that ``tokenizer.json``, with which intake counts, gives the tokens that are trained and audited.

    For most classes transformers makes normaliser and pre-tokenizer anew, by what it thinks of the class, and takes
    little more than the vocabulary from the file.
    """
    from tokenizers import Tokenizer

    counted = Tokenizer.from_file(str(files / "tokenizer.json"))
    counted.no_truncation()
    counted.no_padding()
    written = [template.write(_SAMPLE)]
    written += [template.write((_SAMPLE[0], {"role": "assistant", "content": text})) for text in _TEXTS]
    signs = {t.content for t in counted.get_added_tokens_decoder().values() if t.content in written[0]}
    behind = [f"{sign}{text}" for sign in sorted(signs.union(template.tokens.values())) for text in _TEXTS[:2]]
    for text in (*written, *_TEXTS, *behind):
        if counted.encode(text, add_special_tokens=False).ids != tokenizer(text, add_special_tokens=False)["input_ids"]:
            raise _unfit(
                "its tokenizer.json reads texts otherwise than the tokenizer that transformers makes of its class "
                f"({type(tokenizer).__name__}), so that intake would count other tokens than are trained",
                "choose a revision of which both are one; or, where tokenizer.json is the publisher's, name "
                "PreTrainedTokenizerFast as tokenizer_class in a copy's tokenizer_config.json",
            )


def _unfit(why: str, remedy: str = "choose a revision with the files of a fast tokenizer") -> InvalidInputError:
    return InvalidInputError("BASE_TOKENIZER", why, remedy=remedy)
