"""The isolated audit worker and the evidence.

Two rooms run only inside a sealed task of the audit worker: ``prepare`` reads the customer's file, scans it for
personal data, makes the four splits and plants the canaries; ``probes`` measures the tuned model. They share
``statistics``, pure functions of numbers, and know nothing else of one another. Three rooms hold the evidence:
``ledger`` remembers (records, tree, checkpoints, proofs), ``cards`` prints, and ``verify`` checks a bundle offline,
with neither server nor database.
"""
