"""Namespace of the vendored `buf.validate` contract."""
