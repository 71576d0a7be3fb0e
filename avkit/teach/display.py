"""What a notebook shows: pieces of HTML that carry their own words for readers who see only text."""

from __future__ import annotations

from html import escape


class Html:
    """HTML for a notebook's output, with a plain-text twin (for terminals, screen readers and comparisons).

    As the last expression of a cell it is displayed; two of them join with `+`, one above the other.
    """

    def __init__(self, html: str, text: str):
        self.html, self.text = html, text

    def __add__(self, other: Html) -> Html:
        return Html(f"{self.html}\n{other.html}", f"{self.text}\n{other.text}")

    def _repr_html_(self) -> str:
        return self.html

    def __repr__(self) -> str:
        return self.text


def beside(*pieces: Html) -> Html:
    """Pieces side by side, wrapping where the page is narrow."""
    cells = "".join(f'<div style="flex:0 1 auto">{piece.html}</div>' for piece in pieces)
    style = "display:flex;flex-wrap:wrap;gap:1em;align-items:flex-end"
    return Html(f'<div style="{style}">{cells}</div>', "\n".join(piece.text for piece in pieces))


def note(text: str, colour: str = "#0072B2", css_class: str = "avkit-note") -> Html:
    """A sentence or more with a coloured edge. Line breaks in the text are kept."""
    style = f"border-left:4px solid {colour};padding:.4em .8em;margin:.5em 0;white-space:pre-wrap"
    return Html(f'<div class="{css_class}" role="note" style="{style}">{escape(text)}</div>', text)
