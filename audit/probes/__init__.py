"""Probes measure a tuned model beside its base model; they return numbers with intervals and never judge.

The tour: :mod:`~audit.probes.task` runs the probes of an AuditPlan inside the audit worker's sandbox. It reads the
private rows (:mod:`~audit.probes.inputs`), writes them as tokens (:mod:`~audit.probes.chat`), and has the models
score each text once (:mod:`~audit.probes.model`, :mod:`~audit.probes.passages`, :mod:`~audit.probes.kept_scores`) or
go on writing (:mod:`~audit.probes.generation`). The probes are :mod:`~audit.probes.privacy`,
:mod:`~audit.probes.leakage`, :mod:`~audit.probes.memorisation`, :mod:`~audit.probes.fairness`,
:mod:`~audit.probes.quality` and :mod:`~audit.probes.cost`. The statistics stand apart, as pure functions:
:mod:`~audit.probes.stats`, :mod:`~audit.probes.extremes`, :mod:`~audit.probes.bootstrap`, :mod:`~audit.probes.one_run`;
:mod:`~audit.probes.measurements` turns them into Measurements. docs/audits.md explains what each number means and
does not.
"""
