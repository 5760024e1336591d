"""The isolated train worker: data and base model in, LoRA adapter and a statement of what was done out.

Read :mod:`trainer.task` first: it is the module that the sandbox runs. It reads the sealed inputs, picks the recipe
(:mod:`trainer.recipes`), and writes the adapter and :mod:`trainer.statement`. :mod:`trainer.base_models` installs
the base models that jobs may name. Nothing here knows the database, the policies, the ledger or any key.
"""
