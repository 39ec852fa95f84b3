from __future__ import annotations

import base64
import hashlib
import re

from exporter import __version__
from exporter.web.board import SupervisorLine
from exporter.web.landing import PAGE_POLICY, page


def test_the_page_names_product_version_links_and_supervisors() -> None:
    """What a person who opens the port wants to know."""
    text = page([SupervisorLine("billing", "solid_queue", "2 workers missing")], "/metrics")
    assert f"jobwarden {__version__}" in text
    assert re.findall(r'href="([^"]+)"', text) == ["/metrics", "/-/healthy", "/-/ready"]
    assert "<td>billing</td><td>solid_queue</td><td>2 workers missing</td>" in text


def test_without_supervisors_the_page_says_so() -> None:
    """No empty table."""
    assert "No supervisor is configured." in page([], "/metrics")
    assert "<table>" not in page([], "/metrics")


def test_H11_hostile_words_are_text() -> None:
    """A process may call itself anything."""
    hostile = "<script>alert('1')</script>&\"\udcff\x1b[31m"
    text = page([SupervisorLine(hostile, hostile, hostile)], "/metrics")
    assert "<script" not in text
    assert text.count("&lt;script&gt;alert(&#x27;1&#x27;)&lt;/script&gt;&amp;&quot;") == 3


def test_H11_the_policy_allows_exactly_the_style_of_the_page() -> None:
    """The hash is that of the style element; nothing else may load."""
    match = re.search("<style>(.*)</style>", page([], "/metrics"))
    assert match is not None
    digest = base64.b64encode(hashlib.sha256(match[1].encode()).digest()).decode()
    assert f"style-src 'sha256-{digest}'" in PAGE_POLICY
    assert PAGE_POLICY.startswith("default-src 'none';")
    assert "unsafe" not in PAGE_POLICY
    assert "script-src" not in PAGE_POLICY
