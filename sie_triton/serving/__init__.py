"""The commands that start, tune and examine servers. Nothing here compiles."""
