"""The HTTP libraries, each named in one file: urllib3 for `SIEClient`, aiohttp for `SIEAsyncClient`, callers' httpx.

What the files have in common is `exchange`: it takes a `Send` and gives a `Reply` or a `Failure`, and raises
`ValueError` for what makes no request at all.
"""
