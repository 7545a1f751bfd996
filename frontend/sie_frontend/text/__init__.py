"""Text, the first modality: items' text to token rows. Nothing here knows a queue, Triton or HTTP."""
