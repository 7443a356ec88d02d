"""`python -m shards inspect|verify`: the package's commands on their own."""

from shards.cli import program

program()
