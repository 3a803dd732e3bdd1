"""Serves the HTML page for people: one file that loads nothing from elsewhere."""

from __future__ import annotations

import base64
import functools
import hashlib
import re
from importlib import resources

_TEMPLATE = resources.files("recall.serving.http") / "templates" / "serving.html"


@functools.cache
def page() -> str:
    """Return the text of the page."""
    return _TEMPLATE.read_text(encoding="utf-8")


def _policy() -> str:
    """Return a Content-Security-Policy that allows the page's own script, its own style and its own service only."""

    def hashes(tag: str) -> str:
        blocks = re.findall(rf"<{tag}>(.*?)</{tag}>", page(), re.DOTALL)
        digests = (base64.b64encode(hashlib.sha256(block.encode()).digest()).decode() for block in blocks)
        return " ".join(f"'sha256-{digest}'" for digest in digests)

    return (
        f"default-src 'none'; connect-src 'self'; img-src data:; script-src {hashes('script')}; "
        f"style-src {hashes('style')}; base-uri 'none'; form-action 'self'; frame-ancestors 'none'"
    )


PAGE_HEADERS = {
    "Content-Security-Policy": _policy(),
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cache-Control": "no-cache",
}
