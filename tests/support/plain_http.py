"""HTTP to services under test.

Each client of httpx2 reads the certificates of the world when it is made, for some twenty milliseconds of CPU. Whoever
asks ten times a second whether something has happened would keep a fifth of a core busy with that.
"""

from __future__ import annotations

import ssl
from functools import partial

import httpx2

_NO_CERTIFICATES = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)

get = partial(httpx2.get, trust_env=False, verify=_NO_CERTIFICATES)
"""As ``httpx2.get``, without the certificates and without the environment's proxies."""
