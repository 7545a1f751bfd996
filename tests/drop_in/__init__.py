"""`sie_triton_fastembed` against the real frontend and against Fastembed itself; nothing of either is made up here."""
