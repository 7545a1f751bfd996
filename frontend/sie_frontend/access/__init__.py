"""Who may ask for what, and how much: keys, scopes and limits. No HTTP, no models, and of keys nothing but hashes."""
