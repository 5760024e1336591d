"""Ports for the services of the demo and of tests."""

from __future__ import annotations

import socket

import pytest

from demo.processes import free_ports


def test_two_who_look_at_once_do_not_find_the_same_ports() -> None:
    found = {free_ports(6) for _ in range(12)}
    assert len(found) >= 11, "looked for one after the other, without binding any"
    assert all(20_000 <= first <= 32_000 - 6 for first in found)


def test_ports_in_use_are_passed_over(monkeypatch: pytest.MonkeyPatch) -> None:
    first = free_ports(2)
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", first))
        draws = iter([first - 20_000, first - 20_001, first - 20_000 + 7])
        monkeypatch.setattr("demo.processes.secrets.randbelow", lambda _: next(draws))
        assert free_ports(2) == first + 7
