"""Task modules that run inside the real sandbox in tests. Standard library only."""
