"""Manifests, Dockerfile and scripts of launch/: valid, and true to the exit codes of `main`."""

import math
import pathlib
import re
import shutil
import subprocess
import tomllib

import jsonschema
import pytest
import yaml

from diffv2iqa_jax import errors, main
from tests import test_wheel

ROOT = pathlib.Path(__file__).parents[2]
LAUNCH = ROOT / "launch"
MANIFESTS = sorted(LAUNCH.glob("*.yaml"))
SCRIPTS = sorted([*LAUNCH.glob("*.sh"), *LAUNCH.glob("*.sbatch")])
CHIPS = ("google.com/tpu", "nvidia.com/gpu")
FINAL = [1, errors.EXIT_CONFIG, errors.EXIT_NOT_FINITE]  # a second try ends the same


def only(needed: dict, optional: dict | None = None) -> dict:
    """A section that has these keys and no others."""
    properties = {**needed, **(optional or {})}
    return {
        "type": "object",
        "properties": properties,
        "required": list(needed),
        "additionalProperties": False,
    }


def many(item: dict) -> dict:
    return {"type": "array", "items": item, "minItems": 1}


TEXT, COUNT = {"type": "string", "minLength": 1}, {"type": "integer", "minimum": 1}
TEXTS = {"type": "object", "additionalProperties": TEXT}
AMOUNT = only({}, {chip: COUNT for chip in CHIPS}) | {"minProperties": 1}
ENV = only(
    {"name": TEXT, "valueFrom": only({"fieldRef": only({"fieldPath": TEXT})})},
)
CONTAINER = only(
    {
        "name": TEXT,
        "image": TEXT,
        "args": many(TEXT),
        "resources": only({"requests": AMOUNT, "limits": AMOUNT}),
    },
    {"env": many(ENV), "volumeMounts": many(only({"name": TEXT, "mountPath": TEXT}))},
)
VOLUME = only(
    {"name": TEXT},
    {
        "persistentVolumeClaim": only({"claimName": TEXT}),
        "emptyDir": only({"medium": {"const": "Memory"}}),
    },
)
POD = only(
    {
        "restartPolicy": {"const": "Never"},  # what a podFailurePolicy needs
        "terminationGracePeriodSeconds": {"type": "integer", "minimum": 120},
        "tolerations": many(
            only({"key": TEXT, "operator": {"const": "Exists"}, "effect": {"const": "NoSchedule"}})
        ),
        "containers": many(CONTAINER) | {"maxItems": 1},
    },
    {
        "hostNetwork": {"const": True},
        "dnsPolicy": {"const": "ClusterFirstWithHostNet"},
        "nodeSelector": TEXTS,
        "volumes": many(VOLUME),
    },
)
CODES = only(
    {"containerName": TEXT, "operator": {"enum": ["In", "NotIn"]}, "values": many(COUNT)},
)
POLICY = only({"action": {"enum": ["FailJob", "Ignore", "Count"]}, "onExitCodes": CODES})
JOB = only(
    {
        "parallelism": COUNT,
        "completions": COUNT,
        "backoffLimit": {"const": 0},
        "podFailurePolicy": only({"rules": many(POLICY)}),
        "template": only({"spec": POD}),
    },
    {"completionMode": {"const": "Indexed"}},
)
RULE = only(
    {
        "name": {"type": "string", "pattern": "^[A-Za-z]([A-Za-z0-9_,:]*[A-Za-z0-9_])?$"},
        "action": {"enum": ["FailJobSet", "RestartJobSet", "RestartJobSetAndIgnoreMaxRestarts"]},
        "onJobFailureReasons": many({"enum": ["PodFailurePolicy", "BackoffLimitExceeded"]}),
    }
)
JOBSET = only(
    {
        "apiVersion": {"const": "jobset.x-k8s.io/v1alpha2"},
        "kind": {"const": "JobSet"},
        "metadata": only({"name": TEXT}, {"annotations": TEXTS}),
        "spec": only(
            {
                "failurePolicy": only({"maxRestarts": COUNT, "rules": many(RULE)}),
                "replicatedJobs": many(
                    only({"name": TEXT, "replicas": COUNT, "template": only({"spec": JOB})})
                ),
            },
            {"network": only({"enableDNSHostnames": {"const": True}})},
        ),
    }
)


@pytest.fixture(params=MANIFESTS, ids=lambda path: path.stem)
def manifest(request) -> dict:
    return yaml.safe_load(request.param.read_text())


def job_of(manifest: dict) -> dict:
    (replicated,) = manifest["spec"]["replicatedJobs"]
    return replicated["template"]["spec"]


def test_a_manifest_is_a_jobset_with_known_keys_only(manifest):
    jsonschema.validate(manifest, JOBSET)
    job_of(manifest)["template"]["spec"]["hostNetwrk"] = True
    with pytest.raises(jsonschema.ValidationError, match="hostNetwrk"):
        jsonschema.validate(manifest, JOBSET)


def test_there_is_a_pod_for_each_host_and_every_chip_is_used(manifest):
    job = job_of(manifest)
    (container,) = job["template"]["spec"]["containers"]
    resources, args = container["resources"], container["args"]
    assert job["parallelism"] == job["completions"]
    assert resources["requests"] == resources["limits"]
    ((kind, chips_of_a_host),) = resources["limits"].items()
    assert {"key": kind, "operator": "Exists", "effect": "NoSchedule"} in job["template"]["spec"][
        "tolerations"
    ]
    if kind == "google.com/tpu":
        topology = job["template"]["spec"]["nodeSelector"]["cloud.google.com/gke-tpu-topology"]
        assert math.prod(map(int, topology.split("x"))) == job["completions"] * chips_of_a_host
    else:
        assert f"--num_processes={job['completions']}" in args


def test_what_is_final_fails_the_whole_set_and_all_else_starts_it_again(manifest):
    (rule,) = job_of(manifest)["podFailurePolicy"]["rules"]
    (container,) = job_of(manifest)["template"]["spec"]["containers"]
    assert rule["action"] == "FailJob"
    codes = rule["onExitCodes"]
    assert codes["operator"] == "In" and codes["values"] == FINAL
    assert codes["containerName"] == container["name"]
    (of_the_set,) = manifest["spec"]["failurePolicy"]["rules"]
    assert of_the_set["action"] == "FailJobSet"
    assert of_the_set["onJobFailureReasons"] == ["PodFailurePolicy"]


def test_pods_on_gpus_find_the_first_by_its_name_and_know_their_own_number():
    manifest = yaml.safe_load((LAUNCH / "jobset_gpu.yaml").read_text())
    (replicated,) = manifest["spec"]["replicatedJobs"]
    (container,) = job_of(manifest)["template"]["spec"]["containers"]
    name = manifest["metadata"]["name"]
    (coordinator,) = (arg for arg in container["args"] if arg.startswith("--coordinator="))
    assert coordinator.startswith(f"--coordinator={name}-{replicated['name']}-0-0.{name}:")
    assert manifest["spec"]["network"] == {"enableDNSHostnames": True}
    assert job_of(manifest)["completionMode"] == "Indexed"
    (variable,) = container["env"]
    assert f"--process_id=$({variable['name']})" in container["args"]
    mounted = {mount["name"] for mount in container["volumeMounts"]}
    assert mounted == {volume["name"] for volume in job_of(manifest)["template"]["spec"]["volumes"]}


def test_the_image_holds_what_a_wheel_needs_and_runs_main():
    lines = [line.split() for line in (LAUNCH / "Dockerfile").read_text().splitlines()]
    copied = [word for words in lines if words[:1] == ["COPY"] for word in words[1:-1]]
    assert sorted(copied) == sorted(test_wheel.SOURCES)
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    text = (LAUNCH / "Dockerfile").read_text()
    assert re.search(r"^ARG EXTRA=(\w+)$", text, re.M)[1] in project["optional-dependencies"]
    python = re.search(r"^FROM python:3\.(\d+)-slim$", text, re.M)[1]
    assert int(python) >= int(project["requires-python"].removeprefix(">=3."))
    assert f'ENTRYPOINT ["python", "-m", "{main.__name__}"]' in text


def lint(program: str, *argv: str) -> None:
    if not shutil.which(program):
        pytest.skip(f"needs {program}")
    done = subprocess.run([program, *argv], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout


def test_the_dockerfile_is_linted():
    lint("hadolint", str(LAUNCH / "Dockerfile"))


@pytest.mark.parametrize("path", SCRIPTS, ids=lambda path: path.name)
def test_scripts_are_linted(path):
    subprocess.run(["bash", "-n", str(path)], check=True)
    lint("shellcheck", "--external-sources", "--source-path=SCRIPTDIR", str(path))
