"""Which proxy a server is reached through."""

from __future__ import annotations

from collections.abc import Mapping
from ipaddress import IPv4Address, IPv6Address, ip_address, ip_network
from urllib.parse import urlsplit

SCHEMES = ("http", "https", "socks5", "socks5h")


def proxy_for(base_url: str, proxies: Mapping[str, str]) -> str | None:
    """The URL of the proxy for a server, None where it is reached directly.

    `proxies` is what `urllib.request.getproxies` returns: URLs by scheme (`http`, `https`, `all`), and under `no` the
    hosts that need none. Loopback never does: a proxy would look for the server on its own machine.

    Raises `ValueError` for a proxy that cannot be one, with the name of its variable.
    """
    parts = urlsplit(base_url)
    host = (parts.hostname or "").rstrip(".")
    name = next((name for name in (parts.scheme, "all") if proxies.get(name)), None)
    if name is None or _is_loopback(host) or _is_excepted(host, parts.port, proxies.get("no", "")):
        return None
    proxy = proxies[name].strip()
    if "://" not in proxy:
        proxy = f"http://{proxy}"
    found = urlsplit(proxy)
    if found.scheme not in SCHEMES or not found.hostname:
        raise ValueError(
            f"{name.upper()}_PROXY must be a URL like http://proxy:3128 ({', '.join(SCHEMES)}), got "
            f"{found.scheme}://{found.netloc.rpartition('@')[2]}; unset it, or put {host} into NO_PROXY"
        )
    return proxy


def _is_loopback(host: str) -> bool:
    address = _address(host)
    if address is None:
        return host == "localhost" or host.endswith(".localhost")
    if isinstance(address, IPv6Address) and address.ipv4_mapped is not None:
        address = address.ipv4_mapped
    # A server that listens on all addresses is reached by the unspecified one, on this machine.
    return address.is_loopback or address.is_unspecified


def _is_excepted(host: str, port: int | None, exceptions: str) -> bool:
    return any(_matches(entry, host, port) for entry in exceptions.replace(",", " ").split())


def _matches(entry: str, host: str, port: int | None) -> bool:
    """Whether an entry of `NO_PROXY` means the host: `*`, a domain with all below it, an address, a network."""
    if entry == "*":
        return True
    entry = entry.rpartition("://")[2].lower()
    address = _address(host)
    if address is not None and "/" in entry:
        try:
            return address in ip_network(entry, strict=False)
        except ValueError:
            return False
    if _address(entry) is None:
        entry, colon, wanted = _split_port(entry)
        if colon and wanted != str(port):
            return False
    entry = entry.strip("[]").removeprefix("*").lstrip(".")
    if address is not None:
        return address == _address(entry)
    return bool(entry) and (host == entry or host.endswith(f".{entry}"))


def _split_port(entry: str) -> tuple[str, str, str]:
    head, colon, port = entry.rpartition(":")
    return (head, colon, port) if port.isdigit() and (":" not in head or head.endswith("]")) else (entry, "", "")


def _address(host: str) -> IPv4Address | IPv6Address | None:
    try:
        return ip_address(host.strip("[]").partition("%")[0])
    except ValueError:
        return None
