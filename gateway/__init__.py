"""What clients talk to: domain services over the ledger, and the gRPC server in front of them.

A tour, along the main street: :mod:`gateway.rpc` takes a call, one *domain service* answers it
(:mod:`gateway.datasets`, :mod:`gateway.jobs.service`, :mod:`gateway.approvals`, :mod:`gateway.permits`,
:mod:`gateway.registry`, :mod:`gateway.evidence`, :mod:`gateway.identity_registry`), :mod:`gateway.admission` moves
jobs through the isolated workers, and :mod:`gateway.store` holds rows and encrypted files. :mod:`gateway.application`
puts them together. Every change of state is a unit of work of the ledger's writer, so that state and record commit
together. Nothing here parses a customer's file or imports torch.
"""
