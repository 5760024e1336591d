"""What is acceptable and who may do what: policies judge, and nothing else in the house does.

Start with ``packs/baseline``: ``rules.yaml`` is what must hold, ``limits.yaml`` the numbers, ``tests.yaml`` the proof
that each rule bites. Then, in the order of a request's journey:

* :mod:`policies.pack` loads a pack through :mod:`policies.yamlsource`, :mod:`policies.limits`, :mod:`policies.cel`,
  :mod:`policies.guards` and :mod:`policies.template`, and finds every fault before anybody is judged by it.
* :mod:`policies.uses` works out where a declared use lies and what it is for, and :mod:`policies.artefacts` which
  documents are there by the record and which by the requester's word alone.
* :mod:`policies.engine` answers: ``decide`` before training, ``judge`` after the audits; :mod:`policies.deciding` says
  by which code.
* :mod:`policies.planning` fixes what will be measured and how much of it, by :mod:`policies.statistics`.
* :mod:`policies.gates` reads intervals and says PASS, FAIL or INCONCLUSIVE; :mod:`policies.verdicts` adds the other
rules.
* :mod:`policies.lint` and :mod:`policies.testing` are for authors of packs.
* :mod:`policies.authorization` decides who may call what, by ``packs/access``.
"""
