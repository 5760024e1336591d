"""A witness: a process of its own, with its own key and memory, that signs only a log which has never gone back.

It speaks c2sp.org/tlog-witness and needs the standard library and ``cryptography``: no gateway, no gateway's database.
Whoever runs it should not be whoever runs the log. A tour: :mod:`~audit.ledger.witness.settings` (its folder),
:mod:`~audit.ledger.witness.store` (what it last signed of each log), :mod:`~audit.ledger.witness.service` (what it
answers), :mod:`~audit.ledger.witness.client` (how a log asks it). ``python -m audit.ledger.witness DIR`` runs one.
"""
