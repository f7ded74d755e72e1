# SPDX-License-Identifier: Apache-2.0
"""A figure beside its peer, as `results.json` holds it."""


def figure(
    name: str, value: float, unit: str, aim: str, met: bool | None, peer: str = "", peer_value: float | None = None
) -> dict[str, object]:
    """{name, value, unit, peer, peer_value, ratio, aim, met}; without an aim, `met` is None."""
    return {
        "name": name,
        "value": value,
        "unit": unit,
        "peer": peer,
        "peer_value": peer_value,
        "ratio": value / peer_value if peer_value else None,
        "aim": aim,
        "met": met,
    }
