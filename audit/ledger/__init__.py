"""The evidence log: what happened, in an order nobody can change afterwards without being seen.

A tour, from the bytes outwards. The *format* is pure (standard library and ``cryptography``), so that the stand-alone
verifier shares it: :mod:`~audit.ledger.tree` (RFC 9162 hashes and proofs), :mod:`~audit.ledger.note` (C2SP signed
notes and checkpoints), :mod:`~audit.ledger.records` (the leaf), :mod:`~audit.ledger.evidence` (names and texts of the
evidence bundle). The *log* stands on SQLAlchemy: :mod:`~audit.ledger.schema` (tables and guards),
:mod:`~audit.ledger.sqlite` (connections that cannot rewrite), :mod:`~audit.ledger.store` (reads),
:mod:`~audit.ledger.edge` (the tree's right edge), :mod:`~audit.ledger.writer` (the one writer thread),
:mod:`~audit.ledger.anchor` (the memory outside the database), :mod:`~audit.ledger.startup` (what must hold before
anything is signed) and :mod:`~audit.ledger.ledger` (the face that the gateway sees). :mod:`~audit.ledger.bundle`
exports, by way of the disk (:mod:`~audit.ledger.spool`).
"""
