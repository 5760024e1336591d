"""The isolated worker: sealed tasks in, sealed results and signed statements out. One class serves both workers.

A tour, along the way of a task:

* ``client`` - the gateway's side: hands in a sealed task, follows it, fetches the result.
* ``service`` - the gRPC servicer over mTLS; believes only the gateway's certificate.
* ``supervisor`` - accepts, queues, runs, seals, signs; survives ``kill -9`` through ``spool``.
* ``sandbox`` - bubblewrap + seccomp command line and limits; ``decoys`` - what must be out of reach inside.
* ``entry`` - first code inside the sandbox: proves the cut-off, then imports the allow-listed task module.
* ``task`` - what a task module sees: :class:`~assay.worker.task.TaskContext`.
* ``meter`` - the supervisor's own clock, memory and energy; ``statement`` - what it signs.
* ``doctor`` - what is missing on this machine, and how to get it.
"""
