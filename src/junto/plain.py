# SPDX-License-Identifier: Apache-2.0
"""Text that other parties wrote, made harmless to print: nothing in it steers a terminal or turns the reading order.

A question, a reason, a name may hold escape sequences, which move the cursor, hide lines and set titles, or marks that
have a line read from right to left. Each such character is shown as the escape by which JSON writes it.
"""

import json


def plain(text: str) -> str:
    """The text with every character but line breaks and tabs that no eye sees as `\\u001b`; the rest as it stands."""
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() or c in "\n\t" else json.dumps(c)[1:-1] for c in text)
