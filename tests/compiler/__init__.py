"""The compiler, stage by stage, and the command line."""
