"""Exit 0 while the proxy in this container answers, else 1 with the reason. Imports nothing of the package.

`/healthz` needs no token and says nothing about Redis or Ollama: a restart of this container would help neither.
"""

import os
import sys
import urllib.request

TIMEOUT_S = 2.0

host, _, port = os.environ.get("CACHEPROXY_ADMIN__LISTEN", "127.0.0.1:11436").rpartition(":")
if host in ("", "0.0.0.0", "[::]"):  # noqa: S104 - compared, not bound
    host = "127.0.0.1"
try:
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    opener.open(f"http://{host}:{port}/healthz", timeout=TIMEOUT_S).close()
except OSError as error:
    sys.exit(f"no answer: {error}")
