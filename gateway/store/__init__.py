"""Rows and files of the gateway; the only SQL outside the ledger.

:mod:`gateway.store.tables` states the rows, :mod:`gateway.store.migrations` makes them, one module a kind of row
reads and writes them on a connection it is given, :mod:`gateway.store.database` says how a read and a unit of work
are run, and :mod:`gateway.store.blobs` keeps files, encrypted for their unit.
"""
