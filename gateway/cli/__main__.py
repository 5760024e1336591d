"""``python -m gateway.cli`` is ``assay``."""

from gateway.cli.app import main

main()
