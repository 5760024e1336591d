"""The command line, one module a noun.

``app`` assembles the commands; ``session`` opens the mTLS channel as a person; ``output`` prints for people or as JSON;
``files`` opens what a command writes before it acts; ``signing`` makes a person's signatures, on this side of the
wire; ``errors`` maps a status to an exit code.
"""

from gateway.cli.app import main

__all__ = ["main"]
