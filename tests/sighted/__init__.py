"""Models that read texts and pictures in one row, beside transformers' own."""
