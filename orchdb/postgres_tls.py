"""TLS for asyncpg, where it does less than libpq or says less of what is wrong."""

from __future__ import annotations

import os
import ssl
from collections.abc import Mapping

from orchdb.errors import OperationError

SYSTEM = "system"
"""What ``sslrootcert`` may be in the place of a file: whom the system trusts."""


def trusting_the_system(query: Mapping[str, str]) -> ssl.SSLContext:
    """TLS that verifies the server by the certificates that the system trusts, as ``sslrootcert=system`` asks for."""
    check_files(query)
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


def check_files(query: Mapping[str, str]) -> None:
    """Name a file that cannot be read: what Python says of it names none.

    Raises:
        OperationError: There is one.
    """
    if query.get("sslmode") == "disable":
        return
    for key in ("sslrootcert", "sslcrl", "sslcert", "sslkey"):
        path = query.get(key)
        if path is not None and path != SYSTEM and not os.access(path, os.R_OK):
            raise OperationError(f"{key}: the file {path} cannot be read")
