"""Checks the built site: each link leads to a file, and no page loads anything from the network.

Zensical checks links between pages. It does not check pictures, the navigation and other files.
"""

from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urlsplit

_LINKS = {"a": "href", "link": "href", "script": "src", "img": "src", "source": "src"}


class _Links(HTMLParser):
    """Collects (tag, address) of all links and resources of a page."""

    def __init__(self) -> None:
        super().__init__()
        self.found: list[tuple[str, str]] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        """Remember the address of one tag."""
        address = dict(attrs).get(_LINKS.get(tag, ""))
        if address:
            self.found.append((tag, address))


def faults_of(site: Path) -> list[str]:
    """Return one line for each link of a site that leads nowhere or loads from the network."""
    return [
        f"{page.relative_to(site)}: {fault}"
        for page in sorted(site.rglob("*.html"))
        if page.name != "404.html"  # its links are absolute, for a server
        for fault in _faults_of_page(page, site)
    ]


def _faults_of_page(page: Path, site: Path) -> list[str]:
    parser = _Links()
    parser.feed(page.read_text(encoding="utf-8"))
    faults = []
    for tag, address in parser.found:
        parts = urlsplit(address)
        if parts.scheme or parts.netloc:
            if tag != "a" and parts.scheme != "data":
                faults.append(f"<{tag}> loads {address} from the network")
            continue
        target = (page.parent / unquote(parts.path)).resolve() if parts.path else page.resolve()
        if not (target.is_file() and target.is_relative_to(site.resolve())):
            faults.append(f"<{tag}> leads to {address}, which is no file of the site")
    return faults
