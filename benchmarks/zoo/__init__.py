"""The fault zoo: how often a planted fault is missed, and how often a clean model is failed.

The tour: :mod:`~benchmarks.zoo.faults` lists the faults, their strengths and seeds; :mod:`~benchmarks.zoo.data` writes
the rows of a cell; :mod:`~benchmarks.zoo.bad_trainer` is a train task that goes wrong on purpose, run by
:mod:`~benchmarks.zoo.worker` in the product's own sandbox; :mod:`~benchmarks.zoo.run` submits one ordinary job a cell
to an ordinary gateway and notes what became of it in ``cells.jsonl``; :mod:`~benchmarks.zoo.report` counts, and
:mod:`~benchmarks.zoo.page` tells it.
"""
