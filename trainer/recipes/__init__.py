"""Ways to tune: :mod:`trainer.recipes.loop` is the loop, :mod:`trainer.recipes.objectives` what it minimises.

A recipe is built from small parts that stand alone: :mod:`trainer.recipes.rows` turns rows into tokens and loss
weights, :mod:`trainer.recipes.plan` fixes the batches of every epoch from the seed, :mod:`trainer.recipes.lora`
attaches and saves the adapter, :mod:`trainer.recipes.checkpoints` stores and restores everything a bit-exact resume
needs.
"""
