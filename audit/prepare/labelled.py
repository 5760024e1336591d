# ruff: noqa: E501 (a table of slots: one a line)
"""A labelled set of texts with personal data that belongs to nobody, to measure what the detector misses.

Texts come from ``labelled_texts.txt`` and a seeded generator; the same seed gives the same texts. Values are drawn
from what is reserved for examples (telephone numbers 555-01xx and the ranges of Ofcom and ARCEP, the documentation
networks of RFC 5737 and 3849, example.com) or never issued (SSN areas 9xx, NPI beginning with 2). Names pair given and
family names of four origins, drawn from another source than the detector's own list.
"""

from __future__ import annotations

import random
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from importlib.resources import files

from assay.pii_health import luhn_valid

SEED = 20261127
TEXTS = 4800

_SLOT = re.compile(r"\{(\w+)\}")
_STATES = "AL AZ CA CO FL GA IL KY MA MI MN NC NJ NM NY OH OR PA TX UT VA WA WI".split()
_STREETS = (
    "Maple Cedar Harbor Sunset Washington Old_Mill Elm Prospect Chestnut Franklin Bay Lincoln Spruce Ridge_View".split()
)
_KINDS = "Street St Avenue Ave Road Rd Boulevard Blvd Lane Ln Drive Dr Court Ct Place Way Terrace Parkway".split()
_CITIES = (
    "Springfield Riverton Fairview Clayton Georgetown Milton Ashland Burlington Dayton Oxford Salem Newport".split()
)
_PLACES = "Paris Hamburg Nairobi Toronto Lisbon Osaka Chicago Mexico Denmark Brazil Warsaw Boston Kenya Prague".split()
_MONTHS = "January February March April May June July August September October November December".split()


@dataclass(frozen=True)
class Label:
    """Personal data at ``text[start:end]``; ``group`` is a name's origin, else empty."""

    start: int
    end: int
    entity_type: str
    group: str = ""


@dataclass(frozen=True)
class LabelledText:
    """A text and everything in it that a detector should find."""

    text: str
    labels: tuple[Label, ...]


def labelled_set(texts: int = TEXTS, seed: int = SEED) -> Iterator[LabelledText]:
    """Yields the set: every template in turn, filled anew each time round."""
    templates = _lines("labelled_texts.txt")
    values = _Values(random.Random(seed))
    for i in range(texts):
        yield _fill(templates[i % len(templates)], values)


def _lines(name: str) -> list[str]:
    text = files("audit.prepare").joinpath(name).read_text("utf-8")
    return [line for line in text.splitlines() if line and not line.startswith("#")]


@cache
def _names() -> Mapping[str, tuple[list[str], list[str]]]:
    rows = [line.split("|") for line in _lines("labelled_names.txt")]
    return {group: (given.split(), family.split()) for group, given, family in rows}


def _fill(template: str, values: _Values) -> LabelledText:
    out, labels, at = "", [], 0
    for slot in _SLOT.finditer(template):
        out += template[at : slot.start()]
        entity_type, value, group = values.draw(slot[1])
        if entity_type:
            labels.append(Label(len(out), len(out) + len(value), entity_type, group))
        out, at = out + value, slot.end()
    return LabelledText(out + template[at:], tuple(labels))


class _Values:
    """Draws values by slot."""

    def __init__(self, rng: random.Random) -> None:
        self._rng = rng

    def draw(self, slot: str) -> tuple[str, str, str]:
        """``(entity type or empty, value, group of a name)``."""
        if slot in ("name", "family"):
            group = self._rng.choice(sorted(_names()))
            given, family = (self._rng.choice(part) for part in _names()[group])
            return "PERSON", family if slot == "family" else f"{given} {family}", group
        entity_type, make = _SLOTS[slot]
        return entity_type, make(self._rng), ""


def _digits(rng: random.Random, n: int) -> str:
    return "".join(str(rng.randrange(10)) for _ in range(n))


def _letters(rng: random.Random, n: int, alphabet: str = "ABCDEFGHJKLMNPQRSTUVWXYZ") -> str:
    return "".join(rng.choice(alphabet) for _ in range(n))


def _with_check(rng: random.Random, prefix: str, length: int, lead: str = "") -> str:
    body = prefix + _digits(rng, length - len(prefix) - 1)
    return next(body + c for c in "0123456789" if luhn_valid(lead + body + c))


def _card(rng: random.Random) -> str:
    """A number with a valid check digit under a prefix that networks publish for tests."""
    prefix, length = rng.choice(
        [("400000", 16), ("222300", 16), ("555555", 16), ("378282", 15), ("601111", 16), ("353011", 16)]
        + [("630400", n) for n in (12, 13, 16, 19)]
        + [("305693", 14)]
    )
    number = _with_check(rng, prefix, length)
    mark = rng.choice(["", "", " ", "-"]) if length == 16 else ""
    return mark.join(number[i : i + 4] for i in range(0, 16, 4)) if mark else number


def _phone(rng: random.Random) -> str:
    area, line = rng.randrange(201, 990), f"01{_digits(rng, 2)}"
    return rng.choice(
        [
            f"({area}) 555-{line}",
            f"{area}-555-{line}",
            f"{area}.555.{line}",
            f"+1 {area} 555 {line}",
            f"+1-{area}-555-{line}",
            f"020 7946 0{_digits(rng, 3)}",
            f"+44 1632 960{_digits(rng, 3)}",
            f"+33 1 99 00 {_digits(rng, 2)} {_digits(rng, 2)}",
        ]
    )


def _iban(rng: random.Random) -> str:
    country, body = rng.choice(
        [("DE", "99999999" + _digits(rng, 10)), ("NL", "TEST" + _digits(rng, 10)), ("GB", "TEST" + _digits(rng, 14))]
    )
    check = 98 - int("".join(str(int(c, 36)) for c in body + country + "00")) % 97
    number = f"{country}{check:02d}{body}"
    return " ".join(number[i : i + 4] for i in range(0, len(number), 4)) if rng.random() < 0.4 else number


def _vin(rng: random.Random) -> str:
    values = {
        **{str(i): i for i in range(10)},
        **dict(zip("ABCDEFGHJKLMNPRSTUVWXYZ", [*range(1, 9), *range(1, 6), 7, 9, *range(2, 10)], strict=True)),
    }
    weights = (8, 7, 6, 5, 4, 3, 2, 10, 0, 9, 8, 7, 6, 5, 4, 3, 2)
    vin = (
        "7ZZ"
        + _letters(rng, 5, "ABCDEFGHJKLMNPRSTUVWXYZ0123456789")
        + "0"
        + _letters(rng, 2).replace("Q", "P")
        + _digits(rng, 6)
    )
    check = sum(w * values[c] for w, c in zip(weights, vin, strict=True)) % 11
    return vin[:8] + "0123456789X"[check] + vin[9:]


def _date(rng: random.Random) -> str:
    y, m, d = rng.randrange(1950, 2027), rng.randrange(1, 13), rng.randrange(1, 29)
    return rng.choice(
        [
            f"{m:02d}/{d:02d}/{y}",
            f"{y}-{m:02d}-{d:02d}",
            f"{_MONTHS[m - 1]} {d}, {y}",
            f"{d} {_MONTHS[m - 1]} {y}",
            f"{d}.{m}.{y}",
        ]
    )


def _street(rng: random.Random) -> str:
    kind = rng.choice(_KINDS)
    street = f"{rng.randrange(1, 9999)} {rng.choice(_STREETS).replace('_', ' ')} {kind}"
    if rng.random() < 0.3:
        street += rng.choice([", Apt ", " Suite ", ", Unit "]) + str(rng.randrange(1, 99))
    if rng.random() < 0.6:
        street += f", {rng.choice(_CITIES)}, {rng.choice(_STATES)} {_zip(rng)}"
    return street


def _zip(rng: random.Random) -> str:
    return f"{rng.randrange(1001, 99951):05d}" + (f"-{_digits(rng, 4)}" if rng.random() < 0.25 else "")


def _email(rng: random.Random) -> str:
    _, (given, family) = rng.choice(sorted(_names().items()))
    user = f"{rng.choice(given)}{rng.choice(['.', '_', ''])}{rng.choice(family)}".lower()
    return f"{user}{rng.randrange(1, 99)}@{rng.choice(['example.com', 'mail.example.org', 'example.net'])}"


def _age(rng: random.Random) -> str:
    return str(rng.randrange(90, 112))


_SLOTS: Mapping[str, tuple[str, Callable[[random.Random], str]]] = {
    "street": ("STREET_ADDRESS", _street),
    "city": ("LOCATION", lambda r: r.choice(_CITIES)),
    "place": ("LOCATION", lambda r: r.choice(_PLACES)),
    "state": ("", lambda r: r.choice(_STATES)),
    "zip": ("ZIP_CODE", _zip),
    "date": ("DATE_TIME", _date),
    "age": ("AGE_OVER_89", _age),
    "oldyear": ("AGE_OVER_89", lambda r: str(r.randrange(1912, 1935))),
    "phone": ("PHONE_NUMBER", _phone),
    "fax": ("FAX_NUMBER", _phone),
    "email": ("EMAIL_ADDRESS", _email),
    "ssn": ("US_SSN", lambda r: rng_join(r, f"9{_digits(r, 2)}", f"{r.randrange(10, 50)}", f"{r.randrange(1, 9999):04d}")),
    "itin": ("US_ITIN", lambda r: f"9{_digits(r, 2)}-{r.randrange(70, 89)}-{_digits(r, 4)}"),
    "nino": ("UK_NINO", lambda r: f"AB {r.randrange(10, 99)} {r.randrange(10, 99)} {r.randrange(10, 99)} {r.choice('ABCD')}"),
    "mrn": ("MEDICAL_RECORD_NUMBER", lambda r: r.choice([_digits(r, 8), f"H{_digits(r, 7)}", f"{_digits(r, 3)}-{_digits(r, 4)}", f"MR-{_digits(r, 6)}"])),
    "plan": ("HEALTH_PLAN_NUMBER", lambda r: r.choice([f"{_letters(r, 3)}{_digits(r, 9)}", f"{_digits(r, 10)}", f"W{_digits(r, 8)}-{_digits(r, 2)}"])),
    "mbi": ("HEALTH_PLAN_NUMBER", lambda r: f"1EG4-TE5-{_letters(r, 2, 'ACDEFGHJKMNPQRTUVWXY')}{_digits(r, 2)}"),
    "account": ("US_BANK_NUMBER", lambda r: _digits(r, r.choice([8, 9, 10, 12]))),
    "iban": ("IBAN_CODE", _iban),
    "card": ("CREDIT_CARD", _card),
    "dl": ("US_DRIVER_LICENSE", lambda r: r.choice([f"{_letters(r, 1)}{_digits(r, 7)}", _digits(r, 9), f"{_letters(r, 1)}{_digits(r, 12)}"])),
    "passport": ("US_PASSPORT", lambda r: r.choice([_digits(r, 9), f"{_letters(r, 1)}{_digits(r, 8)}"])),
    "licence": ("LICENCE_NUMBER", lambda r: r.choice([f"RN{_digits(r, 6)}", f"{_letters(r, 2)}-{_digits(r, 5)}", _digits(r, 7)])),
    "npi": ("LICENCE_NUMBER", lambda r: _with_check(r, "2", 10, "80840")),
    "vin": ("VEHICLE_ID", _vin),
    "plate": ("VEHICLE_ID", lambda r: r.choice([f"{r.randrange(1, 9)}{_letters(r, 3)}{_digits(r, 3)}", f"{_letters(r, 3)}-{_digits(r, 4)}", f"{_letters(r, 2)}{_digits(r, 2)} {_letters(r, 3)}"])),
    "serial": ("DEVICE_SERIAL", lambda r: r.choice([f"SN-{_digits(r, 6)}-{_letters(r, 1)}", f"{_letters(r, 2)}{_digits(r, 8)}", f"PM{_digits(r, 4)}/{_digits(r, 3)}"])),
    "udi": ("DEVICE_SERIAL", lambda r: f"(01){_digits(r, 14)}(21){_digits(r, 6)}"),
    "url": ("URL", lambda r: r.choice([f"https://example.org/u/{_digits(r, 5)}", f"www.example.net/p{_digits(r, 3)}", f"people-{_digits(r, 3)}.example.com/me"])),
    "ip": ("IP_ADDRESS", lambda r: r.choice([f"192.0.2.{r.randrange(1, 255)}", f"203.0.113.{r.randrange(1, 255)}", f"2001:db8::{r.randrange(1, 65535):x}"])),
    "code": ("UNIQUE_CODE", lambda r: r.choice([f"{_letters(r, 2)}-{_digits(r, 6)}", _digits(r, 7), f"C{_digits(r, 5)}-{_digits(r, 2)}"])),
}  # fmt: skip


def rng_join(rng: random.Random, *parts: str) -> str:
    """Joins parts by a hyphen, or by nothing one time in five."""
    return ("" if rng.random() < 0.2 else "-").join(parts)
