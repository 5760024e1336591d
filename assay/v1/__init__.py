"""Generated stubs of `protos/assay/v1`; regenerate with `make proto`."""
