"""A SLURM cluster of one node on the loopback device, in a folder, gone afterwards."""

import contextlib
import os
import pathlib
import shutil
import socket
import subprocess
import time
from collections.abc import Iterator

PROGRAMS = ("munged", "slurmctld", "slurmd", "sbatch", "srun")
CONF = """
ClusterName=test
SlurmctldHost={host}(127.0.0.1)
SlurmUser=root
SlurmdUser=root
AuthType=auth/munge
AuthInfo=socket={folder}/munge.socket
CryptoType=crypto/munge
SlurmctldPort={controller}
SlurmdPort={daemon}
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/slurmd.pid
SlurmctldLogFile={folder}/slurmctld.log
SlurmdLogFile={folder}/slurmd.log
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
MpiDefault=none
SelectType=select/cons_tres
SchedulerParameters=batch_sched_delay=0,sched_interval=2
ReturnToService=2
JobRequeue=1
NodeName={host} NodeAddr=127.0.0.1 CPUs={cpus} State=UNKNOWN
PartitionName=test Nodes={host} Default=YES MaxTime=INFINITE State=UP
"""


def missing() -> str:
    """Why there can be no cluster here; "" where there can."""
    path = os.environ["PATH"] + os.pathsep + "/usr/sbin"
    absent = [name for name in PROGRAMS if not shutil.which(name, path=path)]
    if absent:
        return f"needs {absent}: Debian's packages slurm-wlm and munge"
    return "" if os.geteuid() == 0 else "needs root, as slurmd does"


class Cluster:
    """Commands of a cluster whose daemons run."""

    def __init__(self, folder: pathlib.Path):
        self.folder = folder
        self.env = {**os.environ, "SLURM_CONF": str(folder / "slurm.conf")}
        self.env["PATH"] += os.pathsep + "/usr/sbin"

    def run(self, *argv: str, **how) -> str:
        """What a command prints; raises CalledProcessError where it fails."""
        how = {"env": self.env, **how}
        done = subprocess.run(argv, capture_output=True, text=True, check=True, timeout=60, **how)
        return done.stdout

    def job(self, number: str) -> dict[str, str]:
        """What SLURM knows of a job, such as JobState, ExitCode and Restarts."""
        shown = self.run("scontrol", "show", "job", number, "--oneliner")
        return dict(word.split("=", 1) for word in shown.split() if "=" in word)

    def wait(self, number: str, states: set[str], seconds: float) -> dict[str, str]:
        """Waits until a job is in one of the states; returns what is known of it then."""
        until = time.monotonic() + seconds
        while (job := self.job(number))["JobState"] not in states:
            assert time.monotonic() < until, f"still {job['JobState']} ({job['Reason']})"
            time.sleep(0.5)
        return job


@contextlib.contextmanager
def cluster(folder: pathlib.Path) -> Iterator[Cluster]:
    """Starts the three daemons in the foreground, as children; ends them in any case."""
    for name in ("state", "spool"):
        (folder / name).mkdir()
    (folder / "munge.key").write_bytes(os.urandom(128))
    (folder / "munge.key").chmod(0o400)
    ports = dict(zip(("controller", "daemon"), free_ports(2), strict=True))
    host = socket.gethostname().partition(".")[0]
    settings = dict(host=host, folder=folder, cpus=os.cpu_count(), **ports)
    (folder / "slurm.conf").write_text(CONF.format(**settings))
    here = Cluster(folder)
    munged = ["munged", "--foreground", "--force", "--origin=127.0.0.1"]
    munged += [f"--key-file={folder}/munge.key", f"--socket={folder}/munge.socket"]
    munged += [f"--{name}-file={folder}/munge.{name}" for name in ("pid", "log", "seed")]
    conf = str(folder / "slurm.conf")
    daemons = [munged, ["slurmctld", "-D", "-f", conf], ["slurmd", "-D", "-f", conf, "-N", host]]
    with contextlib.ExitStack() as stack:
        output = stack.enter_context(open(folder / "daemons.log", "w"))
        for argv in daemons:
            child = subprocess.Popen(argv, env=here.env, stdout=output, stderr=output)
            stack.callback(end, child)
            if argv is munged:
                wait_for(lambda: (folder / "munge.socket").exists())
        wait_for(lambda: "idle" in here.run("sinfo", "--noheader", "--format=%T"))
        stack.callback(here.run, "scancel", "--partition=test", "--signal=KILL", "--full")
        yield here


def end(child: subprocess.Popen) -> None:
    child.terminate()
    try:
        child.wait(10)
    except subprocess.TimeoutExpired:
        child.kill()
        child.wait()


def wait_for(is_so, seconds: float = 30) -> None:
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        with contextlib.suppress(subprocess.CalledProcessError):
            if is_so():
                return
        time.sleep(0.1)
    raise TimeoutError(f"not so after {seconds} s")


def free_ports(count: int) -> list[int]:
    with contextlib.ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _ in range(count)]
        for s in sockets:
            s.bind(("127.0.0.1", 0))
        return [s.getsockname()[1] for s in sockets]
