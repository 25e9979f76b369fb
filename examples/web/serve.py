"""Serve the page with a bundle at ./bundle/, for this machine alone; standard library only.

    python examples/web/serve.py runs/NAME/bundle        then open http://localhost:8000

A microphone and threads need headers and an address that a browser trusts: localhost is one, the
address of this machine in the network is not (README.md says how a phone gets there).
"""

from __future__ import annotations

import argparse
import functools
import http.server
import sys
from pathlib import Path

PAGE = Path(__file__).parent / "page"
MOUNT = "/bundle/"
# Without the first two a browser gives WASM no threads; the last makes it ask for newer files.
HEADERS = {
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Embedder-Policy": "require-corp",
    "Cache-Control": "no-cache",
}
TYPES = {
    **http.server.SimpleHTTPRequestHandler.extensions_map,
    ".js": "text/javascript",
    ".mjs": "text/javascript",
    ".wasm": "application/wasm",
    ".webmanifest": "application/manifest+json",
}


class Handler(http.server.SimpleHTTPRequestHandler):
    """Files of the page, and of the bundle under MOUNT."""

    extensions_map = TYPES

    def __init__(self, *arguments, bundle: Path, **options) -> None:
        self.bundle = bundle
        super().__init__(*arguments, directory=str(PAGE), **options)

    def translate_path(self, path: str) -> str:
        path = super().translate_path(path)  # which leaves out "..", so that it stays in the page
        mount = PAGE / MOUNT.strip("/")
        inside = Path(path).is_relative_to(mount)
        return str(self.bundle / Path(path).relative_to(mount)) if inside else path

    def list_directory(self, path):
        self.send_error(404, "no such file")

    def end_headers(self) -> None:
        for name, value in HEADERS.items():
            self.send_header(name, value)
        super().end_headers()

    def log_request(self, code="-", size="-") -> None:
        """Only what failed is worth a line."""
        if str(code).startswith(("4", "5")):
            super().log_request(code, size)


def open_server(
    bundle: Path, port: int = 8000, host: str = "127.0.0.1"
) -> http.server.ThreadingHTTPServer:
    """A server that serve_forever() starts; port 0 takes a free one."""
    handler = functools.partial(Handler, bundle=bundle.resolve())
    return http.server.ThreadingHTTPServer((host, port), handler)


def main() -> None:
    parser = argparse.ArgumentParser(description="Serve the page with a bundle.")
    parser.add_argument("bundle", type=Path, help="the folder with bundle.json")
    parser.add_argument("--port", type=int, default=8000)
    parser.add_argument("--host", default="127.0.0.1", help="the address to listen on")
    options = parser.parse_args()
    if not (options.bundle / "bundle.json").is_file():
        sys.exit(f"{options.bundle}/bundle.json: missing: give a bundle made by compress export")
    if not (PAGE / "ort").is_dir():
        sys.exit(f"{PAGE}/ort: missing: run npm ci in {PAGE.parent} first")
    try:
        server = open_server(options.bundle, options.port, options.host)
    except OSError as error:
        sys.exit(f"port {options.port}: {error.strerror}: choose another by --port")
    print(f"http://localhost:{server.server_port}  (Ctrl-C ends it)", flush=True)
    try:
        server.serve_forever()
    except KeyboardInterrupt:
        print()


if __name__ == "__main__":
    main()
