"""Whether every link of the built book leads somewhere, without a network.

    book.py DIRECTORY

DIRECTORY is what mdbook has built. A link out of it leads to a file of the repository, whose place
below the book's parent is its place below the root. `tests/readme_test.rs` checks the same of the
Markdown; here it is what mdbook made of it. The checkers that others have made either fetch
hundreds of packages or know no mdbook of today.
"""

import sys
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urlsplit

ROOT = Path(__file__).resolve().parents[2]


class Page(HTMLParser):
    """The links of a page, and the places in it that links may name."""

    def __init__(self, path):
        super().__init__()
        self.links, self.ids = [], set()
        self.feed(path.read_text())

    def handle_starttag(self, tag, attributes):
        for name, value in attributes:
            if name in ("href", "src") and value:
                self.links.append(value)
            elif name in ("id", "name") and value:
                self.ids.add(value)


def broken(book):
    pages = {path: Page(path) for path in sorted(book.rglob("*.html"))}
    # The one for a path that does not exist has its links from the top of a site.
    pages = {path: page for path, page in pages.items() if path.name not in ("404.html", "print.html")}
    for path, page in pages.items():
        for link in page.links:
            parts = urlsplit(link)
            if parts.scheme or parts.netloc:
                continue
            target = (path.parent / unquote(parts.path)).resolve() if parts.path else path
            if not target.is_relative_to(book):
                # Of the repository. mdbook takes the name of a document for that of a page.
                target = ROOT / target.relative_to(book.parent)
                if not target.exists() and not target.with_suffix(".md").exists():
                    yield path, link
            elif not target.exists():
                yield path, link
            elif parts.fragment and target in pages and unquote(parts.fragment) not in pages[target].ids:
                yield path, link


def main():
    book = Path(sys.argv[1]).resolve()
    if not (book / "quickstart.html").exists():
        sys.exit(f"no book in {book}")
    found = list(broken(book))
    for path, link in found:
        print(f"{path.relative_to(book)}: {link} leads nowhere")
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
