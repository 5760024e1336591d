"""Generated stub of the vendored `buf/validate/validate.proto`."""
