"""A Ray cluster: how it is reached, and whether its machines have the versions of this process."""

from __future__ import annotations

import os
import socket
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from importlib import import_module
from typing import Any

from circuitdsl.errors import UserError

#: the address of a cluster that is started for this run, on this machine
HERE = "here"
#: what an address is
ADDRESS = "an address is HOST:PORT, as `ray start --head` prints it; without one, --ray starts workers here"
#: seconds in which an address answers, and in which every machine says its versions
ANSWERS, SAYS = 5.0, 120.0
#: how a gRPC server, as Ray's are, is greeted, and the kind of what it answers (RFC 9113, 3.4 and 4.1)
HELLO, SETTINGS = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + bytes((0, 0, 0, 4, 0, 0, 0, 0, 0)), b"\x04"
#: the packages that make numbers; a worker has the driver's versions of them
SAME = ("circuitdsl", "torch", "numpy", "transformers", "tokenizers", "transformer-lens")


def said(error: Exception) -> str:
    return next((line.strip() for line in str(error).splitlines() if line.strip()), type(error).__name__)


def ray_itself() -> Any:
    """Ray; raises `UserError` where it is not installed."""
    try:
        return import_module("ray")
    except ImportError:
        raise UserError("this needs Ray, which is not installed", "pip install 'circuitdsl[ray]'") from None


@contextmanager
def connected(ray: Any, address: str) -> Iterator[None]:
    """A connection to a cluster; raises `UserError` where nobody answers."""
    if address not in (HERE, "auto"):
        check_answers(address)
    where = {"address": "local", "include_dashboard": False} if address == HERE else {"address": address}
    try:
        ray.init(**where, logging_level="error", log_to_driver=False)
    except (OSError, RuntimeError, ValueError, ray.exceptions.RayError) as error:
        here = address in (HERE, "auto")
        hint = "start one with: ray start --head" if here else "where it asks for a token, set RAY_AUTH_MODE=token too"
        raise UserError(f"no Ray cluster at {address}: {said(error)}", hint) from None
    try:
        yield
    finally:
        ray.shutdown()


def check_answers(address: str) -> None:
    """Raise `UserError` where nobody answers at an address: Ray itself would ask for minutes."""
    host, _, port = address.partition("://")[2].rpartition(":") if "://" in address else address.rpartition(":")
    try:
        with socket.create_connection((host, int(port)), timeout=ANSWERS) as line:
            if not os.environ.get("RAY_USE_TLS"):
                line.sendall(HELLO)
                if line.recv(9)[3:4] != SETTINGS:
                    raise UserError(f"what answers at {address} is not Ray", hint=ADDRESS)
    except (OSError, ValueError) as error:
        raise UserError(
            f"nobody answers at {address}: {getattr(error, 'strerror', None) or error}",
            hint=ADDRESS,
        ) from None


def alive(ray: Any) -> list[Mapping[str, Any]]:
    return [node for node in ray.nodes() if node["Alive"]]


def of(node: Mapping[str, Any], resource: str) -> float:
    return float(node["Resources"].get(resource, 0))


def gpu_bytes(ray: Any) -> int:
    """The memory of the smallest GPU of a cluster; 0 where there is none, or a machine does not say."""
    found = []
    # the process ends with its call, as it would keep memory of the GPU
    answers = _on_each(ray, _gpu_here, lambda each: of(each, "GPU") > 0, num_gpus=0.01, max_calls=1)
    for answer in answers.values():
        try:
            found.append(int(ray.get(answer, timeout=SAYS)))
        except ray.exceptions.RayError:
            return 0
    return min(found, default=0)


def _gpu_here() -> int:
    """Bytes of memory of the first GPU that this process may use; 0 where there is none."""
    import torch

    return int(torch.cuda.get_device_properties(0).total_memory) if torch.cuda.is_available() else 0


def _on_each(
    ray: Any, function: Callable[[], object], wanted: Callable[[Mapping[str, Any]], bool] = lambda _: True, **how: Any
) -> dict[str, Any]:
    """Ask a function of machines of the cluster, each by its name; `how` are options of a task."""
    from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

    ask = ray.remote(num_cpus=0, **how)(function)
    return {
        node["NodeID"]: ask.options(
            scheduling_strategy=NodeAffinitySchedulingStrategy(node["NodeID"], soft=False)
        ).remote()
        for node in alive(ray)
        if wanted(node)
    }


def refuse_others(ray: Any) -> None:
    """Raise `UserError` where a machine of the cluster has other versions than this process."""
    packages = SAME

    def versions() -> dict[str, str]:
        # sent to the worker as it stands here: another circuitdsl may know nothing of it
        from importlib import import_module
        from importlib.metadata import PackageNotFoundError, version

        found = {}
        for name in packages:
            try:
                own = import_module("circuitdsl.version").__version__ if name == "circuitdsl" else version(name)
                found[name] = str(own)
            except (ImportError, PackageNotFoundError):
                found[name] = "no"
        return found

    answers, ours, wrong = _on_each(ray, versions), versions(), []
    for node, answer in answers.items():
        machine = f"machine {node[:8]}"
        try:
            theirs = ray.get(answer, timeout=SAYS)
        except ray.exceptions.RayError as error:
            if any(each["NodeID"] == node for each in alive(ray)):  # and has not left meanwhile
                wrong.append(f"{machine} does not say its versions: {said(error)}")
            continue
        wrong += [
            f"{machine} has {theirs[name]} {name}, and this process {ours[name]}"
            for name in packages
            if theirs[name] != ours[name]
        ]
    if wrong:
        raise OtherVersions("\n".join(wrong), hint="install the same versions on all machines of the cluster")


class OtherVersions(UserError):
    """Machines that have other versions, a line for each."""

    keep = "\n"
