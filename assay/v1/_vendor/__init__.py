"""Stubs of contracts that others publish; imported only by the generated stubs beside it."""
