"""The isolated worker: sealed tasks in, sealed results and signed statements out. One class serves both workers.

A tour, along the way of a task:

* ``client`` - the gateway's side: hands in a sealed task, follows it, fetches the result.
* ``service`` - the gRPC servicer over mTLS; believes only the gateway's certificate.
* ``supervisor`` - accepts, queues, runs, seals, signs; survives ``kill -9`` through ``spool``.
* ``admit`` - what is demanded of a sealed task before it is kept; ``slots`` - one task a device at a time.
* ``launch`` and ``attempt`` - one run: start, prove, open the inputs, hand over the order, follow, measure, end.
* ``sandbox`` - bubblewrap and its limits; ``seccomp`` - the system-call filter; ``decoys`` - what must be out of reach.
* ``disk`` and ``memory`` - what a task takes of the machine, watched from outside.
* ``entry`` - first code inside the sandbox: runs the ``probes``; then ``running`` imports the allow-listed task module.
* ``task`` - what a task module sees: :class:`~assay.worker.task.TaskContext`.
* ``meter`` - the supervisor's own clock, memory and energy; ``statement`` - what it signs; ``finish`` - seals all.
* ``recovery`` - what a start makes of an earlier life's spool; ``diagnosis`` - what this machine lacks.
"""
