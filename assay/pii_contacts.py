"""Mail addresses, telephone and fax numbers, payment cards: types whose values need more than one expression."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

from assay.pii import Span
from assay.pii_health import luhn_valid

PHONE_REGIONS = ("US", "GB", "DE", "FR", "IL", "IN", "CA", "BR")
"""Whose national ways of writing are tried, as in Presidio."""


class EmailFinder:
    """E-mail addresses, found from the ``@`` outwards, in time linear in the text.

    The score is 1 under a known public suffix and 0.5 under any other alphabetic one, since an intranet's address
    identifies a person just as well. Presidio's own recogniser would fetch the list of suffixes from the network.
    """

    _LOCAL = re.compile(r"[\w!#$%&'*+\-/=?^`{|}~.]{0,63}[\w!#$%&'*+\-/=?^`{|}~]\Z")
    _DOMAIN = re.compile(r"\w+(?:-+\w+)*(?:\.\w+(?:-+\w+)*){1,8}")
    _WINDOW = 255

    def __init__(self) -> None:
        import tldextract

        self._suffixes = tldextract.TLDExtract(suffix_list_urls=(), cache_dir=None, fallback_to_snapshot=True)

    def find(self, text: str) -> Iterator[Span]:
        """Yields the addresses in ``text``."""
        at = text.find("@")
        while at >= 0:
            left = text[max(0, at - 64) : at]
            local = self._LOCAL.search(left)
            domain = self._DOMAIN.match(text, at + 1, min(len(text), at + 1 + self._WINDOW))
            if local and domain and domain.group().rpartition(".")[2].isalpha():
                skip = len(local.group()) - len(local.group().lstrip(".'/|`*_-={}"))
                score = 1.0 if self._suffixes(domain.group()).fqdn else 0.5
                if skip < len(local.group()):
                    yield Span(at - len(local.group()) + skip, domain.end(), "EMAIL_ADDRESS", score)
            at = text.find("@", at + 1)


_CARD = re.compile(r"(?<![\w.,+)-])(?:\d[ -]?){11,18}\d(?![\d]|[.,]\d)")
# Visa, Mastercard (both series) and Maestro, Discover, Diners, Amex, JCB, UATP and Voyager.
_ISSUER = re.compile(r"4|5|6|3|2(?:22[1-9]|2[3-9]|[3-6]|7[01]|720|131)|1800|8")


def find_cards(text: str) -> Iterator[Span]:
    """Payment cards of 12 to 19 digits by issuer range and Luhn's check; Presidio's own lacks several networks."""
    for match in _CARD.finditer(text):
        number = re.sub(r"\D", "", match.group())
        if _ISSUER.match(number) and len(set(number)) > 1 and luhn_valid(number):
            yield Span(match.start(), match.end(), "CREDIT_CARD", 1.0)


_CANDIDATE = re.compile(
    r"(?<![\w$€£¥/+])(?<!\d[.,-])(?:(?:\+|00)\s?)?\(?\+?\d(?:[\d().\-/–]|[ \xa0](?=[\d(.\-/–x])){4,22}\d"
    r"(?:\s?(?:x|ext\.?|extension)\s?\d{1,6})?(?![\w%])"
)
_NANP = re.compile(
    r"(?:(?:\+?|00)1[-. ]?)?(?:\([2-9]\d{2}\)\s?|[2-9]\d{2}[-. ])[2-9]\d{2}[-. ]\d{4}"
    r"(?:\s?(?:x|ext\.?|extension)\s?\d{1,6})?\Z"
)
_DATE = re.compile(r"(?:\d{4}[-./]\d{1,2}[-./]\d{1,2}|\d{1,2}[-./]\d{1,2}[-./](?:\d{4}|\d{2}))\Z")
_CALLS = re.compile(
    r"(?<![^\W\d_])(?:phone|telephone|tel\b|mobile|cell|call|dial|whatsapp|sms|text|hotline|landline|reach|ring|answer|messag|office|desk)"
)
_FAX = re.compile(r"(?<![^\W\d_])(?:fax|facsimile|telefax)")
_AFTER = re.compile(r"[\s(-]{0,3}(?:(fax|facsimile)|(?:phone|mobile|cell|home|office|work|landline|main))\b")
_NEAR = 40
_LEAST_DIGITS, _MOST_DIGITS = 7, 15


class PhoneFinder:
    """Telephone numbers; those that stand after the word "fax" are ``FAX_NUMBER``.

    The library ``phonenumbers`` judges, as in Presidio, but only candidates, not whole texts: its matcher is by far
    the slowest part of Presidio's patterns. A number that no country would issue still counts after a word such as
    "call", with a lower score.
    """

    def __init__(self) -> None:
        import phonenumbers

        self._lib: Any = phonenumbers

    def find(self, text: str, small: str) -> Iterator[Span]:
        """Yields the numbers in ``text``; ``small`` is ``text.lower()``."""
        for match in _CANDIDATE.finditer(text):
            start, value = match.start(), match.group()
            digits = sum(map(str.isdigit, value))
            if not _LEAST_DIGITS <= digits <= _MOST_DIGITS + 7 or _DATE.match(value):
                continue
            near = small[max(0, start - _NEAR) : start]
            fax = next(reversed(list(_FAX.finditer(near))), None)
            after = _AFTER.match(small, match.end())
            named = after is not None or fax is not None or _CALLS.search(near) is not None
            if score := self._score(value, digits, named):
                # In "tel 555 0100, fax 555 0101" the nearer word names the number.
                nearer = fax is not None and not _CALLS.search(near, fax.end() + len(" number"))
                is_fax = after[1] is not None if after is not None else nearer
                yield Span(start, match.end(), "FAX_NUMBER" if is_fax else "PHONE_NUMBER", score)

    def _score(self, value: str, digits: int, named: bool) -> float:
        if _NANP.match(value):
            return 0.85 if named else 0.7
        if self._valid(value):
            return 0.75 if named else 0.4
        return 0.45 if named and digits <= _MOST_DIGITS else 0.0

    def _valid(self, value: str) -> bool:
        regions = PHONE_REGIONS[:1] if value.startswith("+") else PHONE_REGIONS
        return any(self._lib.PhoneNumberMatcher(value, region, leniency=1).has_next() for region in regions)
