"""Publication: only what a quorum cosigned leaves the house; a log that forked signs nothing more."""

from __future__ import annotations

import datetime as dt
import sqlite3
import time
from collections.abc import Callable, Iterator
from concurrent.futures import TimeoutError as FutureTimeout
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from audit.ledger import fork, publisher
from audit.ledger.cosignature import CLOCK_SKEW, CosignatureVerifier
from audit.ledger.fork import Evidence
from audit.ledger.httpd import Answer, Limits, Request, Server
from audit.ledger.note import Verifier
from audit.ledger.publication import PublishedNotes, Unwitnessed
from audit.ledger.publisher import Publisher, contradiction, demand_one_history
from audit.ledger.quorum import QuorumPolicy
from audit.ledger.witness.client import WitnessClient
from audit.ledger.witness.service import MAX_BODY, Witness
from audit.ledger.witness.store import WitnessStore
from tests.audit.ledger.ledger_world import ORIGIN, START, Story, World, cosigned, ed25519, refused, witness_lines
from tests.audit.ledger.witness_world import LOG_KEY, MemoryLog, leaf

SECONDS = 30


@dataclass
class Town:
    """Real witnesses over HTTP, by name, that can be shut and opened again."""

    folder: Path
    log: Verifier
    servers: dict[str, Server] = field(default_factory=dict)
    ports: dict[str, int] = field(default_factory=dict)
    witnesses: dict[str, Witness] = field(default_factory=dict)
    now: dict[str, dt.datetime] = field(default_factory=dict)

    def open(self, *names: str, answer: Callable[[Request], Answer] | None = None) -> None:
        for name in names:
            store = WitnessStore(self.folder / f"{name}.db")
            witness = Witness(
                f"{name}.example/w",
                ed25519(f"witness {name}"),
                {ORIGIN: (self.log,)},
                store,
                self.folder / name,
                lambda name=name: self.now.get(name, START),  # type: ignore[misc]
            )
            self.witnesses[name] = witness
            listen = f"127.0.0.1:{self.ports.get(name, 0)}"
            self.servers[name] = Server(listen, answer or witness.handle, None, Limits(max_body=MAX_BODY))
            self.ports[name] = self.servers[name].port
            self.servers[name].start()

    def shut(self, name: str) -> None:
        self.servers.pop(name).close()

    def policy(self, quorum: str) -> QuorumPolicy:
        lines = []
        for name in self.ports:
            lines.append(witness_lines(name).strip() + f" http://127.0.0.1:{self.ports[name]}/\n")
        return QuorumPolicy.parse("".join(lines) + quorum)


@pytest.fixture
def town(world: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Town]:
    monkeypatch.setattr(publisher, "FIRST_RETRY_SECONDS", 0.05)
    monkeypatch.setattr(publisher, "LAST_RETRY_SECONDS", 0.2)
    made = Town(tmp_path, world.ledger.verifier)
    yield made
    for server in made.servers.values():
        server.close()


@pytest.fixture
def publish(world: World, town: Town, tmp_path: Path) -> Iterator[Callable[[str], Publisher]]:
    made: list[Publisher] = []

    def start(quorum: str) -> Publisher:
        policy = town.policy(quorum)
        clients = [WitnessClient(witness, None, 2.0) for witness in policy.witnesses.values()]
        one = Publisher(
            world.ledger, policy, clients, PublishedNotes(tmp_path / "published.db"), tmp_path / "forks", lambda: START
        )
        one.start()
        made.append(one)
        return one

    yield start
    for one in made:
        one.close()


def is_published(one: Publisher, index: int) -> None:
    one.covered(index).result(SECONDS)


def eventually(holds: Callable[[], bool]) -> None:
    end = time.monotonic() + SECONDS
    while not holds():
        assert time.monotonic() < end
        time.sleep(0.01)


def test_every_record_is_covered_once_a_quorum_has_cosigned(world: World, town: Town, publish: Callable) -> None:
    town.open("a")
    one = publish("quorum a\n")
    indices = [world.append_one() for _ in range(20)]
    is_published(one, indices[-1])
    size, note = one.latest()
    assert size == world.ledger.size and one.state == ""
    assert one.policy.judge(fork.SignedNote.parse(note)).met
    first = one.covering(indices[3])
    assert first[0] > indices[3] and first == one.covering(indices[3]) and one.at(first[0]) == first[1]
    assert fork.read_head(first[1], [world.ledger.verifier]).root == world.ledger.root(first[0])


def test_nothing_is_published_without_the_witness_and_all_once_it_is_there(
    world: World, town: Town, publish: Callable
) -> None:
    town.open("a")
    town.shut("a")
    one = publish("quorum a\n")
    index = world.append_one()
    waiting = one.covered(index)
    with pytest.raises(FutureTimeout):
        waiting.result(0.5)
    for call in (one.latest, lambda: one.covering(index)):
        refused("QUORUM_NOT_MET", call)
    assert one.at(world.ledger.size) == b"" and one.state.startswith("QUORUM_NOT_MET: a: WITNESS_UNREACHABLE")
    assert world.append_one() == index + 1, "a missing witness does not keep records out"
    town.open("a")
    waiting.result(SECONDS)
    is_published(one, index + 1)


def test_two_of_three_do_and_the_dead_one_holds_nobody_up(world: World, town: Town, publish: Callable) -> None:
    town.open("a", "b", "c")
    town.shut("b")
    one = publish("group g 2 a b c\nquorum g\n")
    for _ in range(5):
        is_published(one, world.append_one())
    assert set(one.policy.judge(fork.SignedNote.parse(one.latest()[1])).times) == {"a", "c"}


def test_one_of_three_does_not(world: World, town: Town, publish: Callable) -> None:
    town.open("a", "b", "c")
    town.shut("b")
    town.shut("c")
    one = publish("group g 2 a b c\nquorum g\n")
    with pytest.raises(FutureTimeout):
        one.covered(world.append_one()).result(1.0)
    refused("QUORUM_NOT_MET", one.latest)


def test_closing_tells_who_waits(world: World, town: Town, publish: Callable) -> None:
    town.open("a")
    town.shut("a")
    one = publish("quorum a\n")
    waiting = one.covered(world.append_one())
    one.close()
    refused("QUORUM_NOT_MET", lambda: waiting.result(1))


def test_a_publisher_that_starts_again_goes_on_where_the_witness_is(
    world: World, town: Town, publish: Callable
) -> None:
    town.open("a")
    first = publish("quorum a\n")
    index = world.append_one()
    is_published(first, index)
    covering = first.covering(index)
    first.close()
    world.append_one()
    second = publish("quorum a\n")
    is_published(second, world.append_one())
    assert second.covering(index) == covering


@pytest.mark.parametrize(
    "answer",
    [
        Answer(200, b""),
        Answer(200, b"rubbish\n"),
        Answer(200, "— a.example/w AAAAAAAAAAAA\n".encode()),
        Answer(200, b"x" * 300_000),
        Answer(404),
        Answer(403),
        Answer(500),
        Answer(409),
        Answer(409, b"-5\n", "text/x.tlog.size"),
        Answer(409, b"9" * 30, "text/x.tlog.size"),
        Answer(409, b"99999\n", "text/x.tlog.size"),
        Answer(422, b"\x00\xff"),
        Answer(302, b"", headers={"Location": "http://127.0.0.1/"}),
    ],
    ids=range(13),
)
def test_a_witness_that_talks_nonsense_is_no_quorum_and_stops_nothing(
    world: World, town: Town, publish: Callable, answer: Answer
) -> None:
    town.open("a", answer=lambda request: answer)
    one = publish("quorum a\n")
    index = world.append_one()
    with pytest.raises(FutureTimeout):
        one.covered(index).result(0.7)
    assert world.ledger.stopped == "" and one.state.startswith("QUORUM_NOT_MET: a: ")
    assert world.append_one() == index + 1


def files(folder: Path) -> list[Evidence]:
    return [Evidence.parse(path.read_bytes()) for path in sorted((folder / "forks").glob("*.json"))]


def stopped(world: World, one: Publisher, kind: str, folder: Path) -> Evidence:
    """Waits for the halt; demands its name, the file with both notes, and that nothing is signed or published."""
    refused("QUORUM_NOT_MET", lambda: one.covered(world.ledger.size).result(SECONDS))
    assert world.ledger.stopped == kind and one.state.startswith(kind)
    refused("LEDGER_STOPPED", world.append_one)
    (evidence,) = files(folder)
    assert evidence.kind == kind and all(evidence.notes)
    refused(kind, lambda: demand_one_history(world.ledger, folder / "forks", [], START))
    return evidence


def test_rollback_attack_4_is_seen_by_the_witness_when_the_anchor_is_rolled_back_too(
    world: World, town: Town, publish: Callable, tmp_path: Path
) -> None:
    town.open("a")
    known = MemoryLog("others", 30)
    assert town.witnesses["a"].add_checkpoint(known.request(0)).status == 200
    one = publish("quorum a\n")
    evidence = stopped(world, one, "LOG_ROLLED_BACK", tmp_path)
    assert [fork.read_head(n, [world.ledger.verifier]).size for n in evidence.notes] == [30, world.ledger.size]


def test_fork_attack_5_and_10_another_history_under_the_right_key(
    world: World, town: Town, publish: Callable, tmp_path: Path
) -> None:
    """Somebody with the stolen key had the witness sign another history; the genuine log cannot go on beside it."""
    town.open("a")
    thief = MemoryLog("thief", 3)
    assert town.witnesses["a"].add_checkpoint(thief.request(0)).status == 200
    for _ in range(9):
        world.append_one()
    one = publish("quorum a\n")
    evidence = stopped(world, one, "LOG_FORKED", tmp_path)
    older, newer = (fork.read_head(n, [world.ledger.verifier]) for n in evidence.notes)
    assert (older.size, newer.size) == (3, 10) and evidence.proof
    assert fork.compare(*evidence.notes, [world.ledger.verifier], evidence.proof) == "INCONSISTENT"


def test_split_view_attack_12_at_one_size_is_proof_for_everybody(
    world: World, town: Town, publish: Callable, tmp_path: Path
) -> None:
    town.open("a")
    one = publish("quorum a\n")
    for _ in range(4):
        is_published(one, world.append_one())
    shown_to_others = MemoryLog("others", 5)
    assert town.witnesses["a"].add_checkpoint(shown_to_others.request(5)).status == 422
    world.append_one()
    evidence = stopped(world, one, "LOG_FORKED", tmp_path)
    assert fork.proves_split(evidence, [world.ledger.verifier])


@pytest.mark.parametrize("kind", ["INCONSISTENT", "SPLIT_VIEW", "LOG_ROLLED_BACK"])
def test_a_witness_names_its_evidence_as_it_likes_and_the_log_stops_for_good(
    world: World, town: Town, publish: Callable, tmp_path: Path, kind: str
) -> None:
    """The notes are genuine; by the name that the witness gave them the next start would not have looked for them."""
    notes = (MemoryLog("one", 1).note(), MemoryLog("two", 1).note())
    claimed = Evidence(kind, "some.other/log", START - dt.timedelta(9), notes, (leaf("x", 1),), "nothing to see")

    def answer(request: Request) -> Answer:
        if request.method == "POST":
            return Answer(422, b"LOG_FORKED\n")
        return Answer(200, claimed.encode()) if request.path.endswith("fork") else Answer(404)

    town.open("a", answer=answer)
    world.append_one()
    evidence = stopped(world, publish("quorum a\n"), "LOG_FORKED", tmp_path)
    assert (evidence.notes, evidence.origin, evidence.found, evidence.proof) == (notes, ORIGIN, START, ())


def test_key_swap_attack_9_gets_no_cosignature(world: World, town: Town, publish: Callable) -> None:
    town.log = Verifier.of(ORIGIN, ed25519("the key before").public_key())
    town.open("a")
    one = publish("quorum a\n")
    with pytest.raises(FutureTimeout):
        one.covered(world.append_one()).result(0.7)
    assert "refused with 403" in one.state and world.ledger.stopped == ""


def test_a_witness_cannot_stop_the_log_with_a_note_that_the_log_never_signed(
    world: World, town: Town, publish: Callable
) -> None:
    forged = MemoryLog("forged", 50).note(key=ed25519("thief"))
    evidence = Evidence("LOG_FORKED", ORIGIN, START, (forged, MemoryLog("other", 50).note(key=ed25519("thief"))))

    def answer(request: Request) -> Answer:
        if request.method == "POST":
            return Answer(409, b"50\n", "text/x.tlog.size")
        return Answer(200, evidence.encode() if request.path.endswith("fork") else forged)

    town.open("a", answer=answer)
    one = publish("quorum a\n")
    with pytest.raises(FutureTimeout):
        one.covered(world.append_one()).result(0.7)
    assert world.ledger.stopped == "" and one.state.startswith("QUORUM_NOT_MET")


def test_a_log_that_was_rolled_back_starts_again_once_its_records_are_back(world: World, tmp_path: Path) -> None:
    """The evidence is judged again at every start: what was a rollback is none once the records are restored."""
    for _ in range(5):
        world.append_one()
    old = world.ledger.checkpoint_at(2) or b""
    evidence = Evidence("LOG_ROLLED_BACK", ORIGIN, START, (world.ledger.checkpoint(), old))
    evidence.write(tmp_path / "forks")
    demand_one_history(world.ledger, tmp_path / "forks", [world.ledger.checkpoint()], START)


def test_the_published_notes_are_a_second_anchor(world: World, tmp_path: Path) -> None:
    larger = MemoryLog("true", 9).note()
    refused("LOG_ROLLED_BACK", lambda: demand_one_history(world.ledger, tmp_path / "forks", [larger], START))
    other = MemoryLog("false", 1).note()
    refused("LOG_FORKED", lambda: demand_one_history(world.ledger, tmp_path / "other", [other], START))
    assert len(list((tmp_path / "forks").iterdir())) == len(list((tmp_path / "other").iterdir())) == 1


def test_damaged_evidence_and_strangers_notes_stop_nothing(world: World, tmp_path: Path) -> None:
    (tmp_path / "forks").mkdir()
    (tmp_path / "forks" / "log-forked-0.json").write_bytes(b"{}")
    stranger = MemoryLog("false", 9).note(key=ed25519("stranger"))
    demand_one_history(world.ledger, tmp_path / "forks", [stranger, b"rubbish"], START)
    assert contradiction(world.ledger, [stranger], START) is None


def test_published_notes_are_append_only(tmp_path: Path) -> None:
    notes = PublishedNotes(tmp_path / "p.db")
    for size, note in ((3, b"three"), (3, b"three again"), (7, b"seven")):
        notes.add(size, note)
    assert notes.latest() == (7, b"seven") and notes.at(3) == b"three again" and notes.at(4) == b""
    assert notes.covering(2) == (3, b"three again"), "the newest of that size, with every cosignature"
    assert notes.covering(3) == (7, b"seven") and notes.covering(7) == (0, b"")
    other = sqlite3.connect(tmp_path / "p.db", isolation_level=None)
    for statement in (
        "DELETE FROM published",
        "UPDATE published SET size = 9",
        "INSERT INTO published VALUES (4, 6, x'00')",
        "INSERT INTO published VALUES (9, 9, x'00')",
        "INSERT OR REPLACE INTO published VALUES (2, 9, x'00')",
    ):
        with pytest.raises(sqlite3.DatabaseError, match="published"):
            other.execute(statement)


def test_quorum_none_publishes_at_once(world: World) -> None:
    one = Unwitnessed(world.ledger)
    index = world.append_one()
    assert one.covered(index).done() and one.policy.asks_nobody and one.state == ""
    assert one.latest() == world.ledger.head() and one.covering(index) == world.ledger.covering_checkpoint(index)
    assert one.at(99) == b""


def test_a_cosignature_is_renewed_when_it_grows_old(world: World, town: Town, tmp_path: Path) -> None:
    town.open("a")
    policy = town.policy("quorum a\n")
    now = [START]
    client = WitnessClient(policy.witnesses["a"], None, 2.0)
    town.witnesses["a"]._clock = lambda: now[0]
    one = Publisher(world.ledger, policy, [client], PublishedNotes(tmp_path / "p.db"), tmp_path / "f", lambda: now[0])
    one._round()
    first = one.latest()[1]
    one._round()
    assert one.latest()[1] == first, "nothing is asked while the cosignature is young"
    now[0] += publisher.REFRESH + dt.timedelta(seconds=1)
    one._round()
    size, note = one.latest()
    assert size == world.ledger.size and policy.judge(fork.SignedNote.parse(note)).since == now[0]
    one._notes.close()


AHEAD = START + CLOCK_SKEW + dt.timedelta(seconds=1)


def cosigners(one: Publisher) -> dict[str, dt.datetime]:
    return dict(one.policy.judge(fork.SignedNote.parse(one.latest()[1])).times)


def test_a_witness_whose_clock_is_ahead_is_left_out_and_asked_again(
    world: World, town: Town, publish: Callable, caplog: pytest.LogCaptureFixture
) -> None:
    town.open("a", "b", "c")
    town.now = {"b": AHEAD, "c": AHEAD - dt.timedelta(seconds=1)}
    one = publish("group g 1 a b c\nquorum g\n")
    is_published(one, world.append_one())
    eventually(lambda: "witness b: COSIGNATURE_FUTURE" in caplog.text and len(cosigners(one)) == 2)
    assert cosigners(one) == {"a": START, "c": town.now["c"]} and world.ledger.stopped == ""
    town.now.clear()
    eventually(lambda: cosigners(one).get("b") == START)
    assert caplog.text.count("COSIGNATURE_FUTURE") == 1, "said once, not at every try"


def test_without_the_witness_whose_clock_is_ahead_there_is_no_quorum(
    world: World, town: Town, publish: Callable
) -> None:
    town.open("a")
    town.now = {"a": AHEAD}
    one = publish("quorum a\n")
    waiting = one.covered(world.append_one())
    with pytest.raises(FutureTimeout):
        waiting.result(0.5)
    assert one.state.startswith("QUORUM_NOT_MET: a: COSIGNATURE_FUTURE")
    town.now.clear()
    waiting.result(SECONDS)


@pytest.mark.parametrize("frozen", [False, True], ids=["a quiet log", "a frozen log"])
def test_what_was_published_with_a_time_to_come_heals(
    world: World, town: Town, publish: Callable, tmp_path: Path, frozen: bool
) -> None:
    """An earlier release took it; nothing more is appended, so that this checkpoint is the one that stays."""
    town.open("a")
    if frozen:
        Story(world).found().act("oscar", "log.frozen", "freeze", {"origin": ORIGIN}, unit="system")
        refused("LOG_FROZEN", world.append_one)
    size, note = world.ledger.head()
    kept = PublishedNotes(tmp_path / "published.db")
    kept.add(size, cosigned(note, "a", at=START + dt.timedelta(days=3650)))
    kept.close()
    town.now = {"a": AHEAD}
    one = publish("quorum a\n")
    eventually(lambda: one._asked[0].trouble.startswith("COSIGNATURE_FUTURE"))
    town.now.clear()
    eventually(lambda: cosigners(one) == {"a": START})
    assert one.latest()[0] == size and one.latest()[1].startswith(fork.SignedNote.parse(note).text.encode())


@pytest.mark.parametrize("url", ["", "https://x/y?z", "https:///nobody"])
def test_a_witness_without_an_address_is_refused(url: str) -> None:
    key = CosignatureVerifier.of("a.example/w", LOG_KEY.public_key()).vkey()
    policy = QuorumPolicy.parse(f"witness a {key} {url}\nquorum a\n")
    refused("WITNESS_ADDRESS", lambda: WitnessClient(policy.witnesses["a"], None))
