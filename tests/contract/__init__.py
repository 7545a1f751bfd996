"""What the tests know of SIE's contract: recorded bytes, and facts about its public bundles.

The folder is whole by itself: `recorded` reads it. `renew` writes it, from what was recorded of a reference server.
"""
