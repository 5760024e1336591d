"""Policy files: what is read, what is refused, and who makes a quorum."""

from __future__ import annotations

import datetime as dt

import pytest

from audit.ledger.note import SignedNote, Verifier, sign_note
from audit.ledger.quorum import QuorumPolicy
from tests.audit.ledger.ledger_world import START, cosigned, ed25519, refused, witness_lines, witness_vkey

LOG = Verifier.of("example.org/log", ed25519("log").public_key()).vkey()
NESTED = (
    f"# two organisations\nlog {LOG} https://log.example/\n\n{witness_lines('x1', 'x2', 'x3', 'y1', 'y2')}"
    "group x 2 x1 x2 x3\n \t group\ty any y1 y2 \ngroup both all x y\nquorum both\n"
)
TEXT = "example.org/log\n1\n" + "A" * 43 + "=\n"
NOTE = sign_note(TEXT, "example.org/log", ed25519("log"))


@pytest.mark.parametrize(
    ("names", "met"),
    [
        (("x1", "x3", "y2"), True),
        (("x1", "x2", "x3", "y1", "y2"), True),
        (("x1", "y1", "y2"), False),
        (("x1", "x2", "x3"), False),
        (("x1", "x1", "y1"), False),
        ((), False),
        (("both",), False),
        (("x", "y"), False),
    ],
)
def test_nested_groups(names: tuple[str, ...], met: bool) -> None:
    assert QuorumPolicy.parse(NESTED).met_by(names) is met


def test_a_policy_reads_back_from_its_own_text() -> None:
    policy = QuorumPolicy.parse(NESTED)
    assert QuorumPolicy.parse(policy.text()) == policy
    assert "https" not in policy.text(addresses=False) and policy.logs[0].url == "https://log.example/"
    assert policy.describe() == "2 of 2 (both)"


@pytest.mark.parametrize(
    ("text", "same"),
    [
        (QuorumPolicy.parse(NESTED).text(addresses=False), True),
        (NESTED.replace(f"log {LOG} https://log.example/", ""), True),
        (NESTED.replace("group\ty any", "group\ty all"), False),
        (NESTED.replace("quorum both", "quorum x"), False),
        (NESTED.replace(witness_vkey("y2"), witness_vkey("z2")), False),
        (NESTED.replace("quorum both", "quorum none"), False),
        ("quorum none\n", False),
    ],
    ids=range(7),
)
def test_whether_two_policies_ask_the_same(text: str, same: bool) -> None:
    assert QuorumPolicy.parse(NESTED).same_quorum(QuorumPolicy.parse(text)) is same


def test_none_asks_nobody_and_says_so() -> None:
    policy = QuorumPolicy.parse("quorum none")
    verdict = policy.judge(SignedNote.parse(NOTE))
    assert policy.asks_nobody and verdict.met and verdict.since is None and policy.describe() == "none"


W = witness_lines("a", "b")


@pytest.mark.parametrize(
    "text",
    [
        "",
        W,
        W + "quorum a\nquorum a\n",
        W + "quorum c\n",
        "quorum a\n" + W,
        W + "group g 3 a b\nquorum g\n",
        W + "group g 0 a b\nquorum g\n",
        W + "group g 01 a b\nquorum g\n",
        W + "group g +1 a b\nquorum g\n",
        W + "group g ٢ a b\nquorum g\n",
        W + "group g some a b\nquorum g\n",
        W + "group g 1\nquorum g\n",
        W + "group g 1 a a\nquorum g\n",
        W + "group g 1 a\ngroup h 1 a b\nquorum h\n",
        W + "group g 1 a none\nquorum g\n",
        W + "group g 1 g\nquorum g\n",
        W + "group g 1 h\ngroup h 1 a\nquorum g\n",
        W + "group a 1 b\nquorum a\n",
        W + "group none 1 b\nquorum none\n",
        W + f"witness c {witness_vkey('a')}\nquorum c\n",
        W + f"witness a {witness_vkey('c')}\nquorum a\n",
        W + "witness c\nquorum a\n",
        W + f"witness c {LOG}\nquorum a\n",
        W + f"log {witness_vkey('c')}\nquorum a\n",
        W + f"log {LOG}\nlog {LOG}\nquorum a\n",
        W + f"log {LOG} ftp://x\nquorum a\n",
        W + f"log {LOG} https://x y\nquorum a\n",
        W + "require a\nquorum a\n",
        W + "QUORUM a\n",
        W + "quorum a b\n",
        W + "quorum a\r\n",
        W + "quorum a\0\n",
        W + "quorum a\n" + "#" * 70_000,
        "".join(witness_lines(f"w{i}") for i in range(257)) + "quorum w0\n",
    ],
    ids=range(34),
)
def test_policies_that_are_refused(text: str) -> None:
    refused("POLICY_MALFORMED", lambda: QuorumPolicy.parse(text))


def test_a_witness_may_not_use_the_logs_key() -> None:
    from audit.ledger.cosignature import CosignatureVerifier

    same = CosignatureVerifier.of("w.example", ed25519("log").public_key()).vkey()
    refused("POLICY_MALFORMED", lambda: QuorumPolicy.parse(f"log {LOG}\nwitness w {same}\nquorum w\n"))


def test_since_is_the_newest_moment_by_which_a_quorum_had_signed() -> None:
    policy = QuorumPolicy.parse(witness_lines("a", "b", "c") + "group g 2 a b c\nquorum g\n")
    note = NOTE
    for name, hours in (("a", 1), ("b", 3), ("c", 9)):
        note = cosigned(note, name, at=START + dt.timedelta(hours=hours))
    verdict = policy.judge(SignedNote.parse(note))
    assert verdict.met and verdict.since == START + dt.timedelta(hours=3)


def test_a_bad_line_of_a_known_witness_refuses_the_note_even_when_others_are_enough() -> None:
    policy = QuorumPolicy.parse(witness_lines("a", "b") + "group g 1 a b\nquorum g\n")
    forged = SignedNote.parse(cosigned(NOTE.replace(b"\n1\n", b"\n2\n"), "b")).signatures[-1].line()
    note = cosigned(NOTE, "a") + forged.encode()
    refused("COSIGNATURE_BAD", lambda: policy.judge(SignedNote.parse(note)))


def test_unknown_witnesses_count_for_nothing() -> None:
    policy = QuorumPolicy.parse(witness_lines("a", "b") + "group g 2 a b\nquorum g\n")
    verdict = policy.judge(SignedNote.parse(cosigned(NOTE, "a", "stranger")))
    assert not verdict.met and set(verdict.times) == {"a"} and verdict.since is None
