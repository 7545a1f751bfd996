"""The HTTP libraries, each in one file: urllib3 for `SIEClient`, aiohttp for `SIEAsyncClient`, callers' httpx.

URLs are quoted by urllib3 for both clients, so that they ask for the same (`common.py`).
What the files have in common is `exchange`: it takes a `Send` and gives a `Reply` or a `Failure`, and raises
`ValueError` for what makes no request at all.
"""
