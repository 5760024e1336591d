"""The fuzz targets under hypothesis: noise, and true inputs with a few bytes changed, cut, doubled or swapped."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from assay.errors import NotFoundError
from tests.fuzz.targets import TARGETS, Finding, demand, seeds

SEEDS = {name: seeds(name) for name in TARGETS}
EXAMPLES = 150


@pytest.mark.parametrize("name", TARGETS)
def test_every_true_input_is_accepted(name: str) -> None:
    assert all(TARGETS[name](seed) is (name != "certificate") for seed in SEEDS[name])


@st.composite
def damaged(draw: st.DrawFn, name: str) -> bytes:
    """A true input with one to four edits."""
    data = bytearray(draw(st.sampled_from(SEEDS[name])))
    for _ in range(draw(st.integers(1, 4))):
        at = draw(st.integers(0, len(data)))
        length = draw(st.sampled_from([0, 1, 1, 4, 32, 200]))
        piece = draw(st.binary(max_size=4) | st.sampled_from([bytes(data[at : at + length]), b"\n", b"=", b"9" * 20]))
        data[at : at + length] = piece
    return bytes(data)


@pytest.mark.parametrize("name", TARGETS)
@settings(max_examples=EXAMPLES)
@given(data=st.data())
def test_damaged_inputs_are_refused_by_name_or_read_as_they_are(name: str, data: st.DataObject) -> None:
    TARGETS[name](data.draw(damaged(name)))


@pytest.mark.parametrize("name", TARGETS)
@settings(max_examples=EXAMPLES)
@given(data=st.binary(max_size=600))
def test_noise(name: str, data: bytes) -> None:
    if name != "tile":
        assert not TARGETS[name](data)
    else:
        TARGETS[name](data)


@settings(max_examples=300)
@given(st.from_regex(r"/tile/[0-9a-z]{1,8}/[x0-9/]{1,20}(\.p/[0-9]{1,4})?", fullmatch=True) | st.text(max_size=40))
def test_tile_paths_have_one_spelling(text: str) -> None:
    """The path of a hash tile or entry bundle, as monitors ask for it."""
    from audit.ledger.tiles import _TILE, index_of
    from tests.audit.ledger.test_tiles import path_of

    match = _TILE.fullmatch(text)
    if match is None:
        return
    try:
        number = index_of(match["n"])
    except NotFoundError:
        return
    assert path_of(number) == match["n"]


def test_a_finding_is_not_taken_for_a_refusal() -> None:
    """The harness itself: what a target finds must come out."""
    with pytest.raises(Finding):
        demand(False, "x")
