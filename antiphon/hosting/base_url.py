"""Where a server that listens on some host is reached from this machine."""


def base_url(host: str, port: int) -> str:
    """One that listens everywhere is reached here."""
    if host in ("0.0.0.0", "::"):  # noqa: S104 - compared, not bound
        host = "127.0.0.1"
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"
