"""Tuning jobs: one transition table, one machine that applies it, one service in front.

:mod:`gateway.jobs.transitions` is the table: which event may happen in which state, by whom, under which guard,
leaving which record. :mod:`gateway.jobs.machine` applies one line of it inside the ledger's unit of work.
:mod:`gateway.jobs.service` is what clients reach, :mod:`gateway.jobs.board` tells watchers that something moved,
:mod:`gateway.jobs.views` turns rows into messages.
"""
