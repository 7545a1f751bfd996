"""What is told of requests besides their answers: logs, metrics, traces. Nothing here decides anything."""
