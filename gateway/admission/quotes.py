"""What a job will take, said before it starts and recorded with the decision, so that a signed checkpoint covers it.

Every figure follows from the price book, the counted tokens and the base model's size; nobody chose it for the job. The
audit sets what was spent against it later (``cost.quote_usd``, ``cost.quote_ratio``).
"""

from __future__ import annotations

import math
from typing import Any

from assay import canonical
from assay.digests import sha256_bytes
from assay.v1 import policy_input_pb2
from gateway.settings import PriceBook


def quote_record(book: PriceBook, question: policy_input_pb2.IntakeInput) -> dict[str, Any]:
    """The quote as it is recorded; what the price book does not say is left out.

    Members: ``train_tokens``; ``flop`` (6 N D, an upper bound for a frozen base; Kaplan et al. 2020, arXiv 2001.08361);
    ``train_seconds`` and ``audit_seconds`` of one device; ``usd_micros``; ``energy_milliwatt_hours``; hosting for so
    many months; and the digest of the price book, as of its day.
    """
    tokens = question.request.planned_train_tokens
    train = math.ceil(tokens / book.train_tokens_per_second)
    seconds = train + book.audit_seconds
    quote: dict[str, Any] = {
        "train_tokens": tokens,
        "flop": f"{6 * question.base_model.parameters * tokens:.4e}",
        "train_seconds": train,
        "audit_seconds": book.audit_seconds,
        "device": book.device,
        "usd_micros": question.request.quote_usd_micros,
        "price_book_as_of": book.as_of.isoformat(),
        "price_book_sha256": sha256_bytes(canonical.encode(canonical.float_free(book.model_dump(mode="json")))),
    }
    if book.device_watts:
        quote["energy_milliwatt_hours"] = math.ceil(book.device_watts * seconds * 1000 / 3600)
    if book.hosting_usd_micros_per_month:
        quote["hosting_months"] = book.hosting_months
        quote["hosting_usd_micros"] = book.hosting_months * book.hosting_usd_micros_per_month
    return quote
