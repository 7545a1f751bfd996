"""What `migrate` finds in programs and in stored indexes; the other side is never ours."""
