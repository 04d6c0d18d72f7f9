"""The HTTP door, and the client and command line that speak to it."""

from importlib.metadata import version

VERSION = version("efface")
