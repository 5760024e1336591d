"""Names that people bear, as data; ``build.py`` says where they come from."""
