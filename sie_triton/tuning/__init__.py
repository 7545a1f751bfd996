"""What `tune` measures on a machine: settings of what is built, and what other engines and precisions would give."""
