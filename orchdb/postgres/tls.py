"""TLS for asyncpg, where it does less than libpq or says less of what is wrong."""

from __future__ import annotations

import os
import ssl
from collections.abc import Mapping

SYSTEM = "system"
"""What ``sslrootcert`` may be in the place of a file: whom the system trusts."""


def trusting_the_system(query: Mapping[str, str]) -> ssl.SSLContext:
    """TLS that verifies the server by the certificates that the system trusts, as ``sslrootcert=system`` asks for."""
    context = ssl.create_default_context()
    if "sslcrl" in query:
        context.load_verify_locations(cafile=query["sslcrl"])
        context.verify_flags |= ssl.VERIFY_CRL_CHECK_CHAIN
    if "sslcert" in query:
        context.load_cert_chain(query["sslcert"], query.get("sslkey"))
    for key, attribute in (
        ("ssl_min_protocol_version", "minimum_version"),
        ("ssl_max_protocol_version", "maximum_version"),
    ):
        if key in query:
            setattr(context, attribute, ssl.TLSVersion[query[key].replace(".", "_")])
    if ssl.HAS_ALPN:
        context.set_alpn_protocols(["postgresql"])
    return context


def unreadable_file(query: Mapping[str, str]) -> str | None:
    """The file that cannot be read, if there is one: what Python says of it names none."""
    if query.get("sslmode") == "disable":
        return None
    files = ((key, query[key]) for key in ("sslrootcert", "sslcrl", "sslcert", "sslkey") if key in query)
    unreadable = (f"{key}={path}" for key, path in files if path != SYSTEM and not os.access(path, os.R_OK))
    return next(unreadable, None)
