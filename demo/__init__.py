"""The demonstration: the real gateway over gRPC, real data, a real model, four jobs.

``run`` is the main street; ``data`` takes the data sets out of packages; ``jobs`` names the four jobs; ``processes``
starts and ends the services and watches memory; ``summary`` writes what happened.
"""
