"""Names that others have given, to be compared and to be printed."""

import unicodedata


def composed(text):
    """Text in the composed form of Unicode (NFC), in which names are compared.

    macOS and its archives write "ü" as "u" and a mark, a keyboard writes one character. Both are
    one name. What is no text is returned as it is.
    """
    return unicodedata.normalize("NFC", text) if isinstance(text, str) else text


def printable(text):
    r"""Text with ``\x`` in the place of line breaks and of all else that moves the cursor.

    A file may be called anything, and so may what a server sends.
    """
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() else ascii(c)[1:-1] for c in text)


def one_line(message):
    """Text without line breaks, nor anything else that moves the cursor."""
    return printable(" ".join(str(message).split()))


def listed(items, shown=5):
    """Some names for a message: ``a, b, ... (7 in all)``."""
    items = list(items)
    text = ", ".join(map(str, items[:shown]))
    return text if len(items) <= shown else f"{text}, ... ({len(items)} in all)"
