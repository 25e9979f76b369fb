"""`compress serve`: a websocket server that speaks vosk-server's protocol"""

from compress.serve.limits import Limits
from compress.serve.server import Server, serve_bundle

__all__ = ["Limits", "Server", "serve_bundle"]
