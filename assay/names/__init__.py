"""Names that people bear, as data; benchmarks/build_names.py says where they come from."""
