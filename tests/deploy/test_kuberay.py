"""The KubeRay manifest runs a command that exists, with what it mounts and is given."""

from __future__ import annotations

import re
import shlex

import typer.main
import yaml

from batch.__main__ import app
from tests.deploy.queries import DEPLOY

JOB = yaml.safe_load((DEPLOY / "kuberay" / "batch.yaml").read_text())["spec"]
CLUSTER = JOB["rayClusterSpec"]


def test_the_entrypoint_is_a_command_with_its_options() -> None:
    shell, flag, script = shlex.split(JOB["entrypoint"])
    assert (shell, flag) == ("sh", "-c")
    words = shlex.split(script)
    assert words[:4] == ["python", "-m", "batch", "score"]
    command = typer.main.get_command(app).commands["score"]  # type: ignore[attr-defined]
    context = command.make_context("score", words[4:], resilient_parsing=False)
    assert context.params["on"] == "ray"
    assert context.params["bundle"].is_relative_to("/srv/models")


def test_all_pods_have_the_models_the_secret_and_the_same_image() -> None:
    groups = [CLUSTER["headGroupSpec"], *CLUSTER["workerGroupSpecs"]]
    images = set()
    for group in groups:
        pod = group["template"]["spec"]
        (container,) = pod["containers"]
        images.add(container["image"])
        volumes = {volume["name"] for volume in pod["volumes"]}
        assert {mount["name"] for mount in container["volumeMounts"]} == volumes
        assert "/srv/models" in {mount["mountPath"] for mount in container["volumeMounts"]}
        assert container["envFrom"] == [{"secretRef": {"name": "qin-batch"}}]
        assert pod["securityContext"]["runAsNonRoot"]
    assert images == {"qin-serving-ray"}


def test_the_cluster_is_of_the_version_that_is_installed_and_can_take_a_job() -> None:
    pinned = (DEPLOY.parent / "constraints.txt").read_text()
    assert f"\nray=={CLUSTER['rayVersion']}\n" in pinned
    assert '"ray[default]"' in (DEPLOY / "kuberay" / "batch.yaml").read_text()


def test_a_login_shell_of_the_image_finds_its_packages() -> None:
    image = (DEPLOY.parent / "Dockerfile").read_text()
    (first,) = re.findall(r"^ENV PATH=(\S+):\$PATH", image, re.MULTILINE)
    assert f"echo 'PATH={first}:$PATH' > /etc/profile.d/" in image
