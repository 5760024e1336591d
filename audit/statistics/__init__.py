"""Intervals as pure functions of numbers, for the preparation and the probes alike; they know neither.

:mod:`~audit.statistics.stats` has those of one sample or two, :mod:`~audit.statistics.extremes` those of the largest
difference and the smallest ratio among groups.
"""
