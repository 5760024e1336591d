"""Probes measure a tuned model beside its base model; they return numbers with intervals and never judge.

The tour: :mod:`~audit.probes.task` runs the probes of an AuditPlan inside the audit worker's sandbox. It reads the
private rows (:mod:`~audit.probes.inputs`) and public sets (:mod:`~audit.probes.sets`), writes them as tokens
(:mod:`~audit.probes.chat`), and has the models score each text once (:mod:`~audit.probes.model`,
:mod:`~audit.probes.passages`, :mod:`~audit.probes.kept_scores`) or go on writing (:mod:`~audit.probes.generation`).

Probes by what they ask. What is given away: :mod:`~audit.probes.privacy`, :mod:`~audit.probes.leakage`,
:mod:`~audit.probes.memorisation` and their neighbours. Who is treated how: :mod:`~audit.probes.fairness`,
:mod:`~audit.probes.counterfactual`, :mod:`~audit.probes.robust`, :mod:`~audit.probes.proxies`,
:mod:`~audit.probes.reasons`, :mod:`~audit.probes.alternatives`, :mod:`~audit.probes.stereotypes`;
:mod:`~audit.probes.groups` names whom a comparison leaves out. What was won and lost: :mod:`~audit.probes.quality`,
:mod:`~audit.probes.calibration`, :mod:`~audit.probes.regression`, :mod:`~audit.probes.safety`,
:mod:`~audit.probes.sanity`. What it costs: :mod:`~audit.probes.cost`, :mod:`~audit.probes.hosting`.

The statistics stand apart, as pure functions: :mod:`~audit.statistics.stats`, :mod:`~audit.statistics.extremes`,
:mod:`~audit.probes.bootstrap`, :mod:`~audit.probes.one_run`; :mod:`~audit.probes.measurements` turns them into
Measurements. :mod:`~audit.probes.reperform` does an audit again from its sealed kit. docs/audits.md explains what each
number means and does not.
"""
