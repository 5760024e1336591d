"""Secrets and names that look real, carry at least 30 bits and can belong to nobody.

Half come from ranges reserved for examples or never issued: telephone numbers 555-0100 to 555-0199 (North American
Numbering Plan), mail domains of RFC 2606, social security areas 900 to 999 with groups 01 to 49 (neither SSN nor
ITIN), the card test range 4000 00. Where the reserved range is narrower than 30 bits, a code beside it adds the rest.
The other half are codes in the shapes of the data's own (:mod:`audit.prepare.code_shapes`), longer than those by at
least one block, so that none is a code of the institution. A shape of seven letters and digits or more may be that of
a country's identity numbers, so blocks stand within it and no such number can be read off the secret. Names are put
together from syllables that make no known name.
"""

from __future__ import annotations

import hashlib
import hmac
import math
import re
import textwrap
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TypeVar

T = TypeVar("T")

_FIRST = (
    "Zelv",
    "Quor",
    "Yxim",
    "Vorb",
    "Threl",
    "Wexa",
    "Drov",
    "Zhem",
    "Ulvi",
    "Kraz",
    "Ophv",
    "Jurq",
    "Nyxo",
    "Brelv",
    "Gwaz",
    "Skel",
)
_MIDDLE = ("ato", "eri", "obu", "ixa", "une", "ary", "evo", "ilu")
_LAST = (
    "thax",
    "quell",
    "dorn",
    "vask",
    "mirn",
    "zelt",
    "prax",
    "wunt",
    "lorv",
    "gext",
    "nidz",
    "shulm",
    "trov",
    "bryx",
    "kanth",
    "fexel",
)
_CONSONANTS = "bcdfghjklmnprstvz"
_VOWELS = "aeiou"
_LETTERS = "ABCDEFGHJKLMNPQRSTUVWXYZ"
_MAIL_DOMAINS = ("example.com", "example.org", "example.net")


class KeyedChoices:
    """An endless stream of choices from HMAC-SHA256(key, label | counter); equal keys and labels give equal choices."""

    def __init__(self, key: bytes, label: str) -> None:
        self._key, self._label, self._counter = key, label.encode(), 0

    def below(self, bound: int) -> int:
        """A uniform integer in [0, bound), without modulo bias; ``bound`` at most 2**64."""
        limit = (1 << 64) - (1 << 64) % bound
        while True:
            message = self._label + b"/" + str(self._counter).encode()
            self._counter += 1
            value = int.from_bytes(hmac.digest(self._key, message, hashlib.sha256)[:8], "big")
            if value < limit:
                return value % bound

    def choice(self, items: Sequence[T]) -> T:
        """One item."""
        return items[self.below(len(items))]

    def digits(self, count: int) -> str:
        """A string of decimal digits."""
        return "".join(str(self.below(10)) for _ in range(count))


@dataclass(frozen=True)
class SecretKind:
    """A family of secrets.

    Attributes:
        name: goes into the canary manifest.
        noun: what a sentence calls it.
        bits: entropy of one draw.
        draw: makes one.
    """

    name: str
    noun: str
    bits: float
    draw: Callable[[KeyedChoices], str]


def made_up_name(choices: KeyedChoices) -> str:
    """A first and a last name that no person bears."""
    first = choices.choice(_FIRST) + choices.choice(_MIDDLE)
    return f"{first} {(choices.choice(_LAST) + choices.choice(_MIDDLE) + choices.choice(_LAST)[-2:]).capitalize()}"


def _phone(c: KeyedChoices) -> str:
    return f"({2 + c.below(8)}{c.below(9)}{c.below(10)}) 555-01{c.digits(2)} ext. {c.digits(6)}"


def _email(c: KeyedChoices) -> str:
    syllables = "".join(c.choice(_CONSONANTS) + c.choice(_VOWELS) for _ in range(4))
    return f"{syllables}{c.digits(3)}@{c.choice(_MAIL_DOMAINS)}"


def _national_id(c: KeyedChoices) -> str:
    group, serial = 1 + c.below(49), 1 + c.below(9999)
    return f"9{c.digits(2)}-{group:02d}-{serial:04d}-{c.choice(_LETTERS)}{c.choice(_LETTERS)}"


def _card(c: KeyedChoices) -> str:
    body = "400000" + c.digits(9)
    number = body + luhn_digit(body)
    grouped = " ".join(number[i : i + 4] for i in range(0, 16, 4))
    return f"{grouped} exp {1 + c.below(12):02d}/{30 + c.below(10)}"


def luhn_digit(body: str) -> str:
    """The check digit of ISO/IEC 7812-1 annex B for a number without one."""
    total = sum(sum(divmod(int(d) * (2 if i % 2 == 0 else 1), 10)) for i, d in enumerate(reversed(body)))
    return str(-total % 10)


RESERVED = (
    SecretKind("phone", "call-back number", math.log2(8 * 9 * 10 * 10**2 * 10**6), _phone),
    SecretKind("email", "e-mail address", math.log2((17 * 5) ** 4 * 10**3 * 3), _email),
    SecretKind("national_id", "identity number", math.log2(10**2 * 49 * 9999 * 24**2), _national_id),
    SecretKind("card", "card", math.log2(10**9 * 12 * 10), _card),
)
"""Kinds from reserved ranges."""

_LEAST_BITS = 30.0
_BLOCK = 4
_LONGEST_RUN = 6
"""Most letters and digits without a block between: no identity or passport number that we know of is as short."""
_WITHIN = "A999"
"""Shape of a block within a code: digits alone could make another number of what stands before or after it."""


def code_in(shape: str) -> SecretKind:
    """Codes in a shape of the data's own, with blocks of four characters added: one at least, and up to 30 bits.

    Of a shape with seven letters and digits or more blocks stand within, so that no seven follow each other without
    one, whatever separates them: ``99999999A`` gives such as ``45995-H140-421X``.

    Args:
        shape: ``A`` stands for a letter, ``9`` for a digit, anything else for itself.
    """
    cut = _cut(shape)
    bits = cut.count("A") * math.log2(len(_LETTERS)) + cut.count("9") * math.log2(10)
    blocks = max(1 if cut == shape else 0, math.ceil((_LEAST_BITS - bits) / (_BLOCK * math.log2(10))))

    def draw(c: KeyedChoices) -> str:
        own = "".join(c.choice(_LETTERS) if s == "A" else c.digits(1) if s == "9" else s for s in cut)
        return "-".join([own, *(c.digits(_BLOCK) for _ in range(blocks))])

    return SecretKind("code", "file code", bits + blocks * _BLOCK * math.log2(10), draw)


def _cut(shape: str) -> str:
    """The shape with a block before each part that would be the seventh letter or digit since the last one."""
    out, since = "", 0
    for separator, run in re.findall(r"([-/]?)([^-/]+)", shape):
        parts = math.ceil(len(run) / _LONGEST_RUN)
        for part in textwrap.wrap(run, math.ceil(len(run) / parts)):
            if since + len(part) > _LONGEST_RUN:
                out, since = f"{out}-{_WITHIN}", 0
            out, since, separator = f"{out}{separator}{part}", since + len(part), "-"
    return out
