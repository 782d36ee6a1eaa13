"""Starts several processes of one run on this host, to try what a cluster will do.

  python launch/local.py --processes 2 -- --config quickstart --workdir runs/two

What stands after -- goes to each, as do SIGTERM and SIGINT. A line of output begins with the
number of its process. Returns the exit code that says most: a refusal before what it made of the
other processes. It is for CPUs: one process uses all GPUs of a host.
"""

import argparse
import contextlib
import signal
import socket
import subprocess
import sys
import threading

REFUSALS = (2, 70, 1)  # the others then end with 71 or a signal


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("localhost", 0))
        return probe.getsockname()[1]


def show(number: int, child: subprocess.Popen) -> None:
    """Copies what a process writes, line by line."""
    for line in child.stdout:
        sys.stdout.write(f"{number}: {line}")
        sys.stdout.flush()


def telling(codes: list[int]) -> int:
    """The exit code to return for those of all processes; killed by a signal is 128 + signal."""
    codes = [128 - code if code < 0 else code for code in codes]
    return next((code for code in REFUSALS if code in codes), max(codes))


def run(command: list[str], processes: int) -> int:
    """Starts the processes and waits for all; returns the exit code that says most."""
    command = [*command, "--coordinator", f"localhost:{free_port()}"]
    command += ["--num_processes", str(processes), "--process_id"]
    # Sessions of their own: a terminal's Ctrl-C would reach them twice, which ends them at once.
    how = dict(stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, start_new_session=True)
    children = [subprocess.Popen([*command, str(i)], **how) for i in range(processes)]

    def forward(number: int, frame: object) -> None:
        for child in children:
            with contextlib.suppress(ProcessLookupError):
                child.send_signal(number)

    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, forward)
    shown = [threading.Thread(target=show, args=pair) for pair in enumerate(children)]
    for thread in shown:
        thread.start()
    for thread in shown:
        thread.join()
    return telling([child.wait() for child in children])


def parse(argv: list[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--processes", type=int, required=True, help="how many")
    parser.add_argument("more", nargs="+", help="after --: flags of diffv2iqa_jax.main")
    o = parser.parse_args(argv)
    if o.processes < 1:
        parser.error("--processes must be at least 1")
    return o


def main(argv: list[str] | None = None) -> int:
    """Returns the exit code that says most."""
    o = parse(argv)
    return run([sys.executable, "-m", "diffv2iqa_jax.main", *o.more], o.processes)


if __name__ == "__main__":
    sys.exit(main())
