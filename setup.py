"""Build and install maskbench; everything that is not code is in pyproject.toml."""

from setuptools import setup

setup()
