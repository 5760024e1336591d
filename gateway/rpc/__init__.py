"""The wire: every public RPC of ``assay.v1`` over mTLS, and nothing else.

``routes`` names the one domain function behind each RPC; ``handlers`` puts the same gates before each of them, one
file a gate in ``interceptors/``; ``errors`` tells refusals, which are recorded, from faults;
``server`` opens the port. No SQL, no policy and no business rule lives here.
"""
