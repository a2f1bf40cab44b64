"""The head of a running cluster: where it is, whether it answers, by which token.

What Ray 2.60 keeps private is used here alone, each with its reason.
"""

import os
import re
import secrets
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from foretune.argument_error import Argument, ArgumentError

ANSWER_S = 3.0
"""Seconds within which a head must answer."""
START_S = 600.0
"""Seconds that Ray's own processes have to start; Ray's 30 aren't enough where cores are busy."""


def find_head(address: str) -> str:
    """Returns HOST:PORT of an address; ValueError where it has another form or auto finds none."""
    from ray._private import services  # Ray's own search for running clusters

    named = address
    if address == "auto":
        named = os.environ.get("RAY_ADDRESS") or "auto"
    if named == "auto":
        services.find_gcs_addresses.cache_clear()  # pyright: ignore[reportFunctionMemberAccess]
        # Ray's own choice among several is arbitrary, and with none the newest stale address.
        running = sorted(services.find_gcs_addresses())
        if len(running) == 1:
            return running[0]
        found = "none; run `ray start --head` first"
        if running:
            found = f"{', '.join(running)}; name one as HOST:PORT"
        raise ArgumentError(
            Argument("address"),
            f" auto must find one running cluster on this machine, got {found}.",
        )
    if not re.fullmatch(r"[^\s/:]+:\d{1,5}|\[[0-9A-Fa-f:.]+\]:\d{1,5}", named):
        source = " from RAY_ADDRESS" if named != address else ""
        raise ArgumentError(
            Argument("address"),
            f" must be auto or HOST:PORT of the head (port 6379), got {named}{source}; "
            f"from outside of the cluster use foretune submit --address http://HOST:8265.",
        )
    return named


def check_head(host_port: str) -> None:
    """ValueError unless a head answers, lets us in and counts this machine as a node.

    ray.init alone retries for 20 s (wrong token), 60 s (no node here) or 80 s (nobody there).
    """
    import grpc
    from ray._private import services
    from ray._private.grpc_utils import init_grpc_channel  # TLS and token as Ray has them
    from ray.core.generated import gcs_service_pb2 as messages
    from ray.core.generated import gcs_service_pb2_grpc as stubs

    channel: Any = init_grpc_channel(host_port, options=[("grpc.enable_http_proxy", 0)])
    request = messages.GetAllNodeInfoRequest()  # pyright: ignore[reportAttributeAccessIssue]
    try:
        with channel:
            service = stubs.NodeInfoGcsServiceStub(channel)
            reply = service.GetAllNodeInfo(request, timeout=ANSWER_S)
    except grpc.RpcError as error:
        code = error.code()  # pyright: ignore[reportAttributeAccessIssue]
        if code == grpc.StatusCode.UNAUTHENTICATED:
            raise ArgumentError(
                Argument("address"),
                f" must be a cluster that knows our token, got {host_port}, which refused "
                f"it; copy the head's ~/.ray/auth_token or set RAY_AUTH_TOKEN_PATH to it.",
            ) from None
        raise ArgumentError(
            Argument("address"),
            f" must be a running Ray head, got {host_port}, where none answers within "
            f"{ANSWER_S:g} s ({code.name}); check host and port (6379, not the dashboard's 8265) "
            f"and `ray status`.",
        ) from None
    alive = {node.node_id.hex() for node in reply.node_info_list if node.state == node.ALIVE}
    if not alive & set(services.find_node_ids()):
        raise ArgumentError(
            Argument("address"),
            f" must be a cluster that this machine is a node of, got {host_port}; run on "
            f"its head, or from here foretune submit --address http://HOST:8265 -- COMMAND.",
        )


@contextmanager
def longer_start() -> Iterator[None]:
    """Within its block a node of Ray's has START_S to start, a time that Ray has no setting for."""
    from ray._private import services

    get_node = services.get_node

    def wait_for_node(gcs_address: str, node_id: str) -> Any:
        until = time.monotonic() + START_S
        while True:
            try:
                return get_node(gcs_address, node_id)
            except RuntimeError:  # It hasn't registered yet.
                if time.monotonic() > until:
                    raise
                time.sleep(0.1)

    services.get_node = wait_for_node
    try:
        yield
    finally:
        services.get_node = get_node


def authentication(*, local: bool) -> dict[str, str]:
    """Returns the variables by which this process and the cluster agree on one token.

    What the user set wins. A local cluster gets a token of its own, in the environment alone:
    Ray would write ~/.ray/auth_token, and every later `ray start` would then ask for it.
    """
    mode = os.environ.get("RAY_AUTH_MODE", "")
    if mode.lower() not in ("", "token"):
        return {}
    if os.environ.get("RAY_AUTH_TOKEN"):
        return {"RAY_AUTH_MODE": "token"}
    path = Path(os.environ.get("RAY_AUTH_TOKEN_PATH") or Path.home() / ".ray" / "auth_token")
    if path.is_file():
        return {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN_PATH": str(path)}
    if local:
        return {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": secrets.token_hex(32)}
    if mode:
        raise ValueError(
            f"RAY_AUTH_MODE=token must come with a token, got none at {path}; copy the head's "
            f"there or set RAY_AUTH_TOKEN_PATH."
        )
    return {}


def set_environment(changes: Mapping[str, str]) -> dict[str, str | None]:
    """Sets variables, makes Ray read its own again, returns what was there before."""
    before = {name: os.environ.get(name) for name in changes}
    os.environ.update(changes)
    _read_authentication_again()
    return before


def restore_environment(before: dict[str, str | None]) -> None:
    """Puts variables back as they were, and empties the record: a second call does nothing."""
    if not before:
        return
    for name, value in before.items():
        if value is None:
            os.environ.pop(name, None)
        else:
            os.environ[name] = value
    before.clear()
    _read_authentication_again()


def _read_authentication_again() -> None:
    # Ray reads RAY_AUTH_* once, at import, which is before us wherever ray.tune is imported.
    from ray import _raylet

    raylet: Any = _raylet
    raylet.Config.initialize("")
    raylet.AuthenticationTokenLoader.instance().reset_cache()
