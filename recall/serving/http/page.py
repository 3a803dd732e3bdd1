"""Serves HTML pages for people: each is one file that loads nothing from elsewhere."""

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


def page_headers(text: str) -> dict[str, str]:
    """Return the headers of a page: it may use its own script, its own style and its own service only.

    Args:
      text: HTML; its scripts and styles stand in it.
    """

    def hashes(tag: str) -> str:
        blocks = re.findall(rf"<{tag}>(.*?)</{tag}>", text, re.DOTALL)
        digests = (base64.b64encode(hashlib.sha256(block.encode()).digest()).decode() for block in blocks)
        return " ".join(f"'sha256-{digest}'" for digest in digests) or "'none'"

    policy = (
        f"default-src 'none'; connect-src 'self'; img-src data:; script-src {hashes('script')}; "
        f"style-src {hashes('style')}; base-uri 'none'; form-action 'self'; frame-ancestors 'none'"
    )
    return {
        "Content-Security-Policy": policy,
        "X-Content-Type-Options": "nosniff",
        "Referrer-Policy": "no-referrer",
        "Cache-Control": "no-cache",
    }
