"""The page for people: one file, nothing loaded from elsewhere."""

from __future__ import annotations

import base64
import functools
import hashlib
import re
from importlib import resources

_TEMPLATE = resources.files("recall.serving.http") / "templates" / "serving.html"


@functools.cache
def page() -> str:
    """The page's text."""
    return _TEMPLATE.read_text(encoding="utf-8")


def _policy() -> str:
    """Only what the page itself holds may run or style it, and it may talk to its own service alone."""

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
