# SPDX-License-Identifier: Apache-2.0
"""`junto node hook`: see how this node's webhooks do, and try them."""

import time

import msgspec
import typer

from junto.cli.grid import print_grid
from junto.cli.options import AsJson, Home, Profile, User
from junto.client import connect
from junto.errors import Unavailable
from junto.link.methods import HookStatus, HookTest

app = typer.Typer(help="See how this node's webhooks do, and try them.", no_args_is_help=True)


@app.command("ls")
def ls(home: Home = None, user: User = None, profile: Profile = None, json: AsJson = False) -> None:
    """List the webhooks of node.toml: what waits for each, and how its last attempt went."""
    with connect(home, user=user, profile=profile) as desk:
        hooks = desk.hooks()
    if json:
        print(msgspec.json.encode(hooks).decode())
        return
    if not hooks:
        print("no webhook is set; docs/operating.md says how, under Notices")
        return
    now = time.time()
    print_grid(
        ("webhook", "to", "pending", "given up", "state", "kinds"),
        ((h.hook, h.to, h.pending, h.given_up, _state(h, now), ", ".join(h.kinds)) for h in hooks),
    )


@app.command("test")
def try_all(home: Home = None, user: User = None, profile: Profile = None, json: AsJson = False) -> None:
    """Send a test notice to every webhook, once, and print what came back.

    A webhook that takes it is tried again at once with what waits for it, also after it had answered 410.
    """
    with connect(home, user=user, profile=profile) as desk:
        tests = desk.test_hooks()
    if json:
        print(msgspec.json.encode(tests).decode())
    else:
        for one in tests:
            print(_line(one))
    failed = sum(not one.ok for one in tests)
    if failed:
        raise Unavailable(f"{failed} of {len(tests)} webhooks did not take the test notice")


def _line(test: HookTest) -> str:
    return f"{test.hook}  {test.to}  {test.reply} after {test.seconds:.3f} s"


def _state(hook: HookStatus, now: float) -> str:
    if hook.gone:
        return "stopped: it answered 410; `junto node hook test` starts it again"
    if not hook.last_at:
        return "nothing sent yet"
    last = f"{hook.last_reply}, {max(now - hook.last_at, 0):.0f} s ago"
    if not hook.pending:
        return last
    failing = f"failing ({hook.failures} in a row): " if hook.failures else ""
    return f"{failing}{last}; next attempt in {max(hook.next_at - now, 0):.0f} s"
