"""The documentation is read as a stranger would: every command is run, every name looked up."""
