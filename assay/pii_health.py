# ruff: noqa: E501 (a table of expressions: one a line)
"""Recognisers that Presidio lacks: the identifiers of HIPAA's Safe Harbor, 45 CFR 164.514(b)(2), and postal addresses.

Most are values without a shape of their own, so they are found by the words that name them
(:func:`assay.pii_recognisers.labelled`). Vehicle numbers, IMEI, NPI and DEA numbers carry a check digit and need none.
"""

from __future__ import annotations

import re

from assay.pii_recognisers import Pattern, Recogniser, labelled, words

_CODE = r"[A-Z0-9](?:[A-Z0-9]|[-/](?=[A-Z0-9])){3,23}"
_NUMBERED = r"(?:\s*(?:numbers?|no\b\.?|nr\b\.?|num\b\.?|#|ids?\b|codes?))"

RESTRICTED_ZIP3 = frozenset("036 059 063 102 203 556 692 790 821 823 830 831 878 879 884 890 893".split())
"""Three-digit ZIP areas of 20,000 people or fewer, which Safe Harbor (B) turns into 000.

The list is that of HHS's guidance on de-identification (2012), from the census of 2000; a newer census may differ.
"""

_STATES = (
    "AL|AK|AZ|AR|CA|CO|CT|DE|FL|GA|HI|ID|IL|IN|IA|KS|KY|LA|ME|MD|MA|MI|MN|MS|MO|MT|NE|NV|NH|NJ|NM|NY|NC|ND|OH|OK|OR|PA|"
    "RI|SC|SD|TN|TX|UT|VT|VA|WA|WV|WI|WY|DC|PR"
)
_NUMBER = r"\d{1,5}[A-Za-z]?(?:[-/]\d{1,4}[A-Za-z]?)?"
_CAP = r"[^\W\d_a-z][\w'’.-]{0,30}"
_SHORT = "St|Ave|Rd|Blvd|Ln|Dr|Ct|Pl|Sq|Pkwy|Hwy|Cir|Ter|Trl"
# The commonest of the US Postal Service's street suffixes, and the British ones.
_LONG = "|".join(
    """Alley Avenue Bend Boulevard Branch Bridge Brook Bypass Causeway Circle Close Common Corner Cove Court Creek
    Crescent Crest Crossing Dale Drive Estate Expressway Extension Fields? Flats? Fords? Freeway Gardens? Gateway Glens?
    Green Grove Harbors? Haven Heights Highway Hills? Hollow Islands? Junctions? Knolls? Landing Lane Loop Manors?
    Meadows? Mews Mills? Motorway Mount Orchard Oval Park Parkway Parade Pass Passage Path Pike Pines? Place Plains?
    Plaza Points? Ports? Prairie Ranch Rapids? Ridges? Road Route Row Run Shores? Springs? Spurs? Square Station Street
    Summit Terrace Trace Track Trail Turnpike Unions? Valleys? Views? Villages? Vista Walk Way Wells""".split()
)
_KIND = rf"(?:(?:{_SHORT}|{_LONG})\b\.?)"
_UNIT = r"(?:,?\s+(?:Apt|Apartment|Suite|Ste|Unit|Flat|Floor|Room|Rm|#)\.?\s*#?\w{1,6})?"
_TOWN = rf"(?:,?\s+{_CAP}(?:\s{_CAP}){{0,2}},?\s+(?:{_STATES})\b(?:\s+\d{{5}}(?:-\d{{4}})?)?)?"
_STREET_FIRST = (
    rf"(?<![\w.,/-]){_NUMBER},?\s+(?:(?:N|S|E|W|NE|NW|SE|SW|North|South|East|West)\.?\s+)?"
    rf"(?:(?:{_CAP}|\d{{1,3}}(?:st|nd|rd|th))\s+){{1,4}}{_KIND}{_UNIT}{_TOWN}"
)
_NUMBER_LAST = (
    r"\b(?:Calle|Carrer|Rue|Via|Viale|Piazza|Avenida|Av\.|Rua|Plaza|Paseo|Ulica|ul\.|Ulitsa|Utca|Strada|Largo|Travessa|"
    rf"Chaussée|Allée|Quai|Praça|Camino|Rúa|Corso)\s+(?:(?:de|del|della|di|da|do|dos|la|las|los|le|les|du|des|{_CAP})\s+)"
    rf"{{0,4}}?(?:{_CAP},?\s+)?(?:n[°º.]?\s*)?{_NUMBER}\b"
)
_FRENCH = rf"(?<![\w.,/-]){_NUMBER},?\s+(?:rue|avenue|boulevard|place|chemin|quai|cours|impasse|allée)\s+[\w'’. -]{{2,40}}?{_CAP}"
_SUFFIXED = (
    r"\b[^\W\d_a-z][\w-]{1,30}(?:straße|strasse|str\.|gasse|weg|platz|allee|gata|gatan|gränd|vägen|väg|vej|veien|vegen|"
    r"gade|laan|straat|weg|plein|kade|utca|tie|katu|kuja|tänav|iela|gatve)\s+\d{1,4}\s?[A-Za-z]?(?![\w])"
)
_TWO_WORDS = rf"\b{_CAP}\s+(?:utca|út|tér|ulice|ulica|nám\.|tänav|iela|allé|väg|vej|gt\.)\s+\d{{1,4}}(?![\w])"
# "Parkring 50, Graz, 4251": a street with its number, a town and a postcode, whatever the words mean.
_LISTED = rf"\b{_CAP}(?:[ \t][^\W\d_][\w'’.-]{{0,20}}){{0,4}}[ \t]{_NUMBER}\.?,\s+{_CAP}(?:[ \t/-][^\W\d_][\w'’.-]{{0,20}}){{0,4}},\s+(?:[A-Z]{{1,2}}-?)?\d[\dA-Z]{{2,4}}(?:[ -]\d?[\dA-Z]{{2,3}})?\b"
_BARE_STREET = (
    r"\b(?:[A-Z][a-z]{2,20}\s){1,2}(?:Street|Avenue|Road|Boulevard|Lane|Drive|Parkway|Highway|Terrace|Crescent)\b"
)

_AGE = r"(?:9\d|1[0-2]\d)"
_SPELLED = "ninety(?:[- ](?:one|two|three|four|five|six|seven|eight|nine))?|(?:one|a) hundred(?: and \\w+)?"
_YEARS_BEFORE_1936 = r"(?:18\d\d|19[0-2]\d|193[0-5])"
_MONTHS = "January|February|March|April|May|June|July|August|September|October|November|December"
_SHORT_MONTHS = r"Jan|Feb|Mar|Apr|Jun|Jul|Aug|Sept?|Oct|Nov|Dec"


def _vin(value: str) -> bool | None:
    """Check digit of 49 CFR 565.15(c); European numbers need not carry one."""
    letters = dict(
        zip(
            "ABCDEFGHJKLMNPRSTUVWXYZ",
            (1, 2, 3, 4, 5, 6, 7, 8, 1, 2, 3, 4, 5, 7, 9, 2, 3, 4, 5, 6, 7, 8, 9),
            strict=True,
        )
    )
    weights = (8, 7, 6, 5, 4, 3, 2, 10, 0, 9, 8, 7, 6, 5, 4, 3, 2)
    value = value.upper()
    if not any(map(str.isdigit, value)) or not any(map(str.isalpha, value)):
        return False
    total = sum(w * (int(c) if c.isdigit() else letters[c]) for c, w in zip(value, weights, strict=True))
    return True if "0123456789X"[total % 11] == value[8] else None


def luhn_valid(digits: str) -> bool:
    """Tells whether the last digit is the check digit of ISO/IEC 7812-1 annex B."""
    doubled = sum(sum(divmod(2 * int(d), 10)) for d in digits[-2::-2])
    return (doubled + sum(map(int, digits[-1::-2]))) % 10 == 0


def _npi(value: str) -> bool | None:
    return luhn_valid("80840" + re.sub(r"\D", "", value)) or None


def _dea(value: str) -> bool | None:
    digits = [int(c) for c in value[2:]]
    return (digits[0] + digits[2] + digits[4] + 2 * (digits[1] + digits[3] + digits[5])) % 10 == digits[6]


def _imei(value: str) -> bool | None:
    digits = re.sub(r"\D", "", value)
    return None if luhn_valid(digits) else False


def _zip(value: str) -> bool | None:
    return None if value[:3] != "000" else False


def _fixed(entity: str, regex: str, score: float, *cues: str, **more: object) -> Recogniser:
    return Recogniser(entity, (Pattern(re.compile(regex), score),), cues, **more)  # type: ignore[arg-type]


RECOGNISERS: tuple[Recogniser, ...] = (
    # (B) places smaller than a state
    Recogniser(
        "STREET_ADDRESS",
        tuple(Pattern(re.compile(p), 0.9) for p in (_STREET_FIRST, _NUMBER_LAST, _FRENCH, _SUFFIXED, _TWO_WORDS, _LISTED)),
        gate=re.compile(r"\d"),
    ),
    _fixed("STREET_ADDRESS", _BARE_STREET, 0.6),
    _fixed("STREET_ADDRESS", r"(?i:\bP\.?\s?O\.?\s?Box|\bPostfach|\bPostbus|\bApartado)\s+\d{1,6}\b", 0.8, "box", "post", "apart"),
    Recogniser(
        "ZIP_CODE",
        (
            Pattern(re.compile(rf"\b(?:{_STATES}),?\s+(?P<v>\d{{5}}(?:-\d{{4}})?)(?![\w-])"), 0.8),
            Pattern(re.compile(r"(?i:\bzip(?:\s*codes?)?|\bpost(?:al)?\s?codes?)\b[^\n.;\d]{0,20}(?P<v>\d{5}(?:-\d{4})?)(?![\w-])"), 0.85),
            Pattern(re.compile(r"(?<![\w.,/-])\d{5}-\d{4}(?![\w-])"), 0.45),
            Pattern(re.compile(rf"(?<=,\s){_CAP}(?:\s{_CAP}){{0,2}},?\s(?P<v>\d{{5}})(?![\w-])"), 0.5),
        ),
        gate=re.compile(r"\d{5}"),
        check=_zip,
    ),
    # (C) dates but the year, and ages over 89
    Recogniser(
        "DATE_TIME",
        (
            Pattern(re.compile(r"(?<![\w/.-])(?:\d{4}[-/.](?:0?[1-9]|1[0-2])[-/.](?:0?[1-9]|[12]\d|3[01])|(?:0?[1-9]|[12]\d|3[01])[-/.](?:0?[1-9]|[12]\d|3[01])[-/.](?:\d{4}|\d{2}))(?![\w/-])"), 0.6),
            Pattern(re.compile(rf"\b(?:(?:{_MONTHS}|(?:{_SHORT_MONTHS})\b\.?)\s+\d{{1,2}}(?:st|nd|rd|th)?(?:,?\s+\d{{4}})?|\d{{1,2}}(?:st|nd|rd|th)?\s+(?:of\s+)?(?:{_MONTHS}|(?:{_SHORT_MONTHS})\b\.?)(?:,?\s+\d{{4}})?|\d{{1,2}}-(?:{_SHORT_MONTHS})-\d{{2,4}})\b"), 0.6),
        ),
        gate=re.compile(r"\d"),
    ),
    Recogniser(
        "AGE_OVER_89",
        (
            Pattern(re.compile(rf"(?i)(?<![\w$€£.,-]){_AGE}(?=[\s-]?(?:years?|yrs?)(?:[\s-]old|\s+of\s+age|-old)\b|[\s-]?y/?o\b|\s?-?year-old)"), 0.85),
            Pattern(re.compile(rf"(?i)\b(?:aged?|age\s+of|age\s*[:=]|age\s+is|turn(?:s|ed|ing)|age\s+at\s+\w+\s*[:=]?)\s+(?P<v>{_AGE})(?![\w%.,]\d|\w|%)"), 0.8),
            Pattern(re.compile(rf"(?i)\b(?P<v>{_SPELLED})[\s-]years?[\s-](?:old|of)\b"), 0.85),
            Pattern(re.compile(rf"\b(?P<v>{_AGE})\s?[MF]\b(?=[\s,;.])"), 0.6),
            Pattern(re.compile(rf"(?i)\b(?:born|dob|date of birth|birthday|birth date)\b[^\n;]{{0,24}}?(?P<v>{_YEARS_BEFORE_1936})\b"), 0.8),
        ),
        cues=("9", "1", "ninety", "hundred"),
    ),
    # (H) to (K)
    labelled("MEDICAL_RECORD_NUMBER", rf"mrn|medical\s+records?{_NUMBERED}?|(?:hospital|patient|chart|health\s+record|unit\s+record|admission|encounter){_NUMBERED}", _CODE, "mrn", "record", "patient", "hospital", "chart", "admission", "encounter"),
    labelled("HEALTH_PLAN_NUMBER", rf"(?:health\s*(?:plan|insurance|card)|insurance\s+(?:member|policy|card)|medicare|medicaid|mbi|beneficiary|subscriber|plan\s+member|member|group){_NUMBERED}|(?:health\s+plan|medicare|medicaid|mbi)", _CODE, "health", "insur", "medica", "mbi", "benefic", "subscriber", "member", "group"),
    _fixed("HEALTH_PLAN_NUMBER", r"(?<![\w-])[1-9][AC-HJKMNP-RT-Y][AC-HJKMNP-RT-Y0-9]\d-?[AC-HJKMNP-RT-Y][AC-HJKMNP-RT-Y0-9]\d-?[AC-HJKMNP-RT-Y]{2}\d{2}(?![\w-])", 0.6, gate=re.compile(r"\d[A-Z]")),
    labelled("US_BANK_NUMBER", rf"(?:bank\s+|checking\s+|savings?\s+|current\s+|deposit\s+|loan\s+)?(?:account|acct|a/c){_NUMBERED}?", r"\d(?:\d|[- ](?=\d)){4,19}|[A-Z]{1,3}-?\d{5,14}", "account", "acct", "a/c"),
    labelled("US_DRIVER_LICENSE", rf"(?:driv(?:er|ing)(?:['’]?s)?\s+(?:licen[cs]es?|permit)|driv(?:er|ing)(?:['’]?s)?\s+lic|DL|CDL){_NUMBERED}?", r"[A-Z0-9](?:[A-Z0-9]|-(?=[A-Z0-9])){4,19}", "driv", "dl"),
    labelled("US_PASSPORT", rf"passport{_NUMBERED}?", r"[A-Z]?\d{8,9}", "passport"),
    labelled("US_ITIN", r"itin|individual\s+taxpayer\s+identification(?:\s+number)?", r"9\d{2}[- ]?\d{2}[- ]?\d{4}", "itin", "taxpayer"),
    labelled("US_SSN", r"ssn|social\s+security(?:\s+(?:number|no\b\.?|#))?", r"\d{3}[- .]?\d{2}[- .]?\d{4}", "ssn", "social"),
    labelled("UK_NINO", r"nino|national\s+insurance(?:\s+(?:number|no\b\.?))?", r"[A-Za-z]{2}\s?\d{2}\s?\d{2}\s?\d{2}\s?[A-Da-d]", "nino", "insurance"),
    labelled("LICENCE_NUMBER", rf"(?:medical|nursing|professional|pharmac\w+|physician|bar|teaching|broker|pilot|business)\s+(?:licen[cs]e|certificate){_NUMBERED}?|(?:licen[cs]e|certificate|certification|registration|permit){_NUMBERED}|npi{_NUMBERED}?|dea{_NUMBERED}?", _CODE, "licen", "certif", "registration", "permit", "npi", "dea", score=0.8),
    Recogniser("LICENCE_NUMBER", (Pattern(re.compile(r"(?<![\w-])[12]\d{9}(?![\w-])"), 0.1),), ("npi", "provider"), re.compile(r"\d{10}"), words("npi", "national provider", "provider"), _npi),
    Recogniser("LICENCE_NUMBER", (Pattern(re.compile(r"(?<![\w-])[ABCDEFGHJKLMPRSTUX][A-Z9]\d{7}(?![\w-])"), 0.4),), (), re.compile(r"\d{7}"), None, _dea),
    # (L) vehicles and plates
    Recogniser("VEHICLE_ID", (Pattern(re.compile(r"(?<![\w-])[A-HJ-NPR-Z0-9]{17}(?![\w-])"), 0.4),), (), re.compile(r"[A-HJ-NPR-Z0-9]{17}"), words("vin", "vehicle", "chassis"), _vin),
    labelled("VEHICLE_ID", rf"vin{_NUMBERED}?|(?:licen[cs]e\s+|number\s+|registration\s+|vehicle\s+|car\s+)?plates?{_NUMBERED}?|licen[cs]e\s+tag|(?:vehicle|chassis|car|lorry|truck)(?:\s+(?:identification|registration|serial))?{_NUMBERED}|tag\s+number|registration\s+mark", r"[A-Z0-9]{1,4}(?:[A-Z0-9]|[- ](?=[A-Z0-9]{1,5}(?![\w])))[A-Z0-9]{1,16}", "vin", "plate", "tag", "vehicle", "chassis", "registration mark", "car", "truck", "lorry"),
    # (M) devices
    labelled("DEVICE_SERIAL", rf"(?:serial|device|udi|lot|imei|implant|pacemaker|pump|monitor|meter|sensor|implantable\s+\w+){_NUMBERED}|s/?n\b|serial|udi|imei", rf"\(01\)\d{{14}}(?:\(\d\d\)[A-Za-z0-9-]{{1,20}})*|{_CODE}", "serial", "device", "udi", "lot", "imei", "implant", "pacemaker", "pump", "monitor", "meter", "sensor", "s/n", "sn"),
    _fixed("DEVICE_SERIAL", r"\(01\)\d{14}(?:\(\d\d\)[A-Za-z0-9-]{1,20})*", 0.9, "(01)"),
    _fixed("DEVICE_SERIAL", r"(?<![\w:.-])[0-9A-Fa-f]{2}([:-])(?:[0-9A-Fa-f]{2}\1){4}[0-9A-Fa-f]{2}(?![\w:-])", 0.7, ":", "-"),
    Recogniser("DEVICE_SERIAL", (Pattern(re.compile(r"(?<![\w-])\d{2}[- ]?\d{6}[- ]?\d{6}[- ]?\d(?![\w-])"), 0.6),), ("imei",), None, None, _imei),
    # (N) addresses on the web
    _fixed("URL", r"(?i)\b(?:https?|ftp)://[^\s<>\"']{3,2000}?(?=[.,;:!?)\]]*(?:\s|$|[<>\"']))|\bwww\.[a-z0-9-]{1,63}(?:\.[a-z0-9-]{1,63}){1,6}(?:/[^\s<>\"']{0,2000}?(?=[.,;:!?)\]]*(?:\s|$|[<>\"'])))?", 0.8, "://", "www."),
    _fixed("URL", r"(?i)(?<![\w@./-])(?:[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?\.){1,6}(?:com|org|net|edu|gov|mil|info|biz|io|co|ai|app|dev|uk|de|fr|eu|us|ca|au|nl|ch|at|se|no|dk|fi|it|es|pt|pl|cz|hu|br|in|jp|gl|si|is|cl|nz|be)(?:/[^\s<>\"']{0,2000}?(?=[.,;:!?)\]]*(?:\s|$|[<>\"'])))?(?![\w@-]|\.\w)", 0.5, "."),
    # (R) any other number that is somebody's
    labelled("UNIQUE_CODE", rf"(?:customer|client|employee|staff|student|case|claim|policy|reference|ref|booking|order|ticket|tracking|user|personnel|badge|voter|taxpayer|citizen|national|study|specimen|accession|fingerprint|biometric|visa|prescription|rx){_NUMBERED}|subject{_NUMBERED}?", _CODE, "custom", "client", "employ", "staff", "student", "case", "claim", "policy", "ref", "booking", "order", "ticket", "tracking", "user", "personnel", "badge", "voter", "tax", "citizen", "national", "study", "subject", "specimen", "accession", "finger", "biometric", "visa", "prescription", "rx", score=0.7),
    _fixed("UNIQUE_CODE", r"(?i)(?<![\w-])[0-9a-f]{8}-[0-9a-f]{4}-[1-8][0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}(?![\w-])", 0.9, "-"),
)  # fmt: skip
