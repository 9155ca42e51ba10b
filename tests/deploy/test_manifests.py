"""Kubernetes, Compose and the image agree with the service and with each other."""

from __future__ import annotations

import re
from pathlib import PurePosixPath
from typing import Any

import pytest
import yaml

from feature_store.redis.url import parse
from service.settings import Settings, host_names
from tests.deploy.queries import DEPLOY, ROOT

KUBERNETES = DEPLOY / "kubernetes"
MANIFESTS: dict[str, dict[str, Any]] = {
    path.stem: yaml.safe_load(path.read_text()) for path in sorted(KUBERNETES.glob("*.yaml"))
}
POD = MANIFESTS["deployment"]["spec"]["template"]["spec"]
CONTAINER = POD["containers"][0]
SET = {variable["name"]: variable["value"] for variable in CONTAINER["env"]}
COMPOSE = yaml.safe_load((ROOT / "docker-compose.yml").read_text())
DOCKERFILE = (ROOT / "Dockerfile").read_text()
APPLICATION = "\n".join(
    (ROOT / "service" / "api" / name).read_text() for name in ("app.py", "operations.py")
)


def settings_of(variables: dict[str, str]) -> Settings:
    """As the service would read them; an unknown one or a bad value raises."""
    return Settings(**{name.removeprefix("QIN_").lower(): v for name, v in variables.items()})


def test_what_is_set_are_settings_and_they_make_sense_together() -> None:
    secret = {"QIN_STORE": "redis://r", "QIN_ADMIN_TOKEN": "0" * 32, "QIN_LOG_USER_KEY": "k" * 16}
    kubernetes = settings_of({**SET, **secret})
    assert kubernetes.metrics_on == "admin"
    assert (kubernetes.writes_at, kubernetes.events_at) == ("admin", "admin")
    image = dict(re.findall(r"^ +(QIN_\w+)=(\S+)", DOCKERFILE, re.MULTILINE))
    assert settings_of(image).host == "0.0.0.0"
    composed = COMPOSE["services"]["service"]["environment"]
    alone = settings_of({**image, **composed, "QIN_WORKERS": "2"})
    assert (alone.writes_at, alone.events_at) == ("service", "service")
    bare = settings_of(image)
    assert (bare.writes_at, bare.events_at) == ("off", "off")


def test_the_encoders_component_fits_the_deployment() -> None:
    folder = KUBERNETES / "encoder"
    component = yaml.safe_load((folder / "kustomization.yaml").read_text())
    assert component["kind"] == "Component"
    (patch,) = [each["path"] for each in component["patches"]]
    patched = yaml.safe_load((folder / patch).read_text())
    assert patched["metadata"]["name"] == MANIFESTS["deployment"]["metadata"]["name"]
    pod = patched["spec"]["template"]["spec"]
    (container,) = pod["containers"]
    assert container["name"] == CONTAINER["name"]
    added = {variable["name"]: variable["value"] for variable in container["env"]}
    settings = settings_of({**added, "QIN_THREADS": SET["QIN_THREADS"]})
    (mount,) = container["volumeMounts"]
    assert (str(settings.encoder), mount["readOnly"]) == (mount["mountPath"], True)
    (volume,) = pod["volumes"]
    assert volume["name"] == mount["name"]
    assert volume["name"] not in {each["name"] for each in POD["volumes"]}
    cores = settings.engine_threads + settings.encoder_threads
    assert container["resources"]["requests"]["cpu"] == str(cores)
    assert "components: [encoder]" in (folder / "kustomization.yaml").read_text()


def test_compose_passes_an_encoder_on_and_mounts_its_folder() -> None:
    composed = COMPOSE["services"]["service"]
    assert composed["environment"]["QIN_ENCODER"] == "${QIN_ENCODER:-}"
    assert "./var/encoders:/srv/encoders:ro" in composed["volumes"]


@pytest.mark.parametrize("probe", ["startupProbe", "readinessProbe", "livenessProbe"])
def test_probes_ask_paths_and_ports_that_there_are(probe: str) -> None:
    asked = CONTAINER[probe]["httpGet"]
    ports = {port["name"]: port["containerPort"] for port in CONTAINER["ports"]}
    assert ports[asked["port"]] == Settings().port
    assert f'"{asked["path"]}"' in APPLICATION
    assert (probe == "livenessProbe") == (asked["path"] == "/livez")


def test_kubernetes_waits_longer_than_a_drain_takes_and_notices_it_in_time() -> None:
    settings = settings_of({k: v for k, v in SET.items() if "ADMIN" not in k})
    waits = int(CONTAINER["lifecycle"]["preStop"]["exec"]["command"][1])
    assert POD["terminationGracePeriodSeconds"] > waits + settings.shutdown_grace_s
    probe = CONTAINER["readinessProbe"]
    assert probe["periodSeconds"] * probe["failureThreshold"] < settings.drain_notice_s
    grace = float(COMPOSE["services"]["service"]["stop_grace_period"].removesuffix("s"))
    assert grace > Settings().shutdown_grace_s


def test_threads_are_the_cores_that_are_requested() -> None:
    assert SET["QIN_THREADS"] == CONTAINER["resources"]["requests"]["cpu"]
    assert "cpu" not in CONTAINER["resources"]["limits"]


def test_nothing_is_written_outside_of_mounted_folders_and_nobody_is_root() -> None:
    assert CONTAINER["securityContext"]["readOnlyRootFilesystem"] is True
    assert POD["securityContext"]["runAsNonRoot"] is True
    assert re.search(rf"^USER {POD['securityContext']['runAsUser']}:", DOCKERFILE, re.MULTILINE)
    mounts = {mount["mountPath"]: mount["name"] for mount in CONTAINER["volumeMounts"]}
    image = dict(re.findall(r"^ +(QIN_\w+)=(\S+)", DOCKERFILE, re.MULTILINE))
    assert {"/tmp", "/tables", image["QIN_BUNDLE"]} <= mounts.keys()
    assert {volume["name"] for volume in POD["volumes"]} == set(mounts.values())
    service = COMPOSE["services"]["service"]
    assert service["read_only"] is True
    assert service["tmpfs"] == ["/tmp"]


def test_folders_that_must_be_the_services_own_lie_below_a_mount() -> None:
    """A mount itself is root's, and the service would refuse it."""
    image = dict(re.findall(r"^ +(QIN_\w+)=(\S+)", DOCKERFILE, re.MULTILINE))
    mounts = {mount["mountPath"] for mount in CONTAINER["volumeMounts"]}
    composed = COMPOSE["services"]["service"]
    writable = {*composed["tmpfs"], "/dev/shm"}
    for folder, places in (
        (SET["QIN_TABLE_FOLDER"], mounts),
        (image["QIN_PRIVATE"], mounts),
        (composed["environment"]["QIN_TABLE_FOLDER"], writable),
        (composed["environment"]["QIN_PRIVATE"], writable),
    ):
        assert str(PurePosixPath(folder).parent) in places


def test_admin_and_metrics_are_not_public() -> None:
    public = [port["targetPort"] for port in MANIFESTS["service"]["spec"]["ports"]]
    assert public == ["http"]
    rules = MANIFESTS["network-policy"]["spec"]["ingress"]
    admin = [rule for rule in rules if {p["port"] for p in rule["ports"]} == {8001}]
    assert len(rules) == 2
    (allowed,) = admin
    assert all("podSelector" in who or "namespaceSelector" in who for who in allowed["from"])
    assert {} not in [who.get("namespaceSelector") for who in allowed["from"]]
    assert int(SET["QIN_ADMIN_PORT"]) == 8001
    monitor = MANIFESTS["pod-monitor"]["spec"]["podMetricsEndpoints"][0]
    assert (monitor["port"], monitor["path"]) == ("admin", "/metrics")


def test_what_takes_writes_from_other_machines_asks_who_they_are() -> None:
    """In Compose they come from this machine alone, past the browser's rules; in Kubernetes they
    are behind the admin token, at a port that is no ingress's."""
    composed = COMPOSE["services"]["service"]
    assert all(port.startswith("127.0.0.1:") for port in composed["ports"])
    assert host_names(composed["environment"]["QIN_ALLOWED_HOSTS"]) == {"service"}
    assert (SET["QIN_WRITES_ON"], SET["QIN_EVENTS_ON"]) == ("admin", "admin")
    ports = MANIFESTS["admin-service"]["spec"]["ports"]
    assert [(p["port"], p["targetPort"]) for p in ports] == [(int(SET["QIN_ADMIN_PORT"]), "admin")]
    assert MANIFESTS["admin-service"]["spec"].get("type", "ClusterIP") == "ClusterIP"


def test_what_the_settings_ask_for_is_let_out() -> None:
    """Name servers (a node's own cache too), the store's default ports, the trace example's."""
    rules = MANIFESTS["network-policy"]["spec"]["egress"]
    names, *others = rules
    assert {(p["port"], p["protocol"]) for p in names["ports"]} == {(53, "UDP"), (53, "TCP")}
    assert {"ipBlock": {"cidr": "169.254.20.10/32"}} in names["to"]
    out = {p["port"] for rule in others if "to" not in rule for p in rule["ports"]}
    asked = {parse(url).addresses[0][1] for url in ("redis://a", "redis+sentinel://a/main")}
    described = str(Settings.model_fields["trace_url"].description)
    collector = re.search(r"http://collector:(\d+)/", described)
    assert collector is not None
    assert out == asked | {int(collector[1])}


def test_the_pods_memory_leaves_room_for_an_inspection() -> None:
    """What a bundle's inspection may reserve is address space; the page says what it takes."""
    limit = CONTAINER["resources"]["limits"]["memory"]
    page = " ".join((ROOT / "docs/deploying.md").read_text().split())
    megabytes = Settings.model_fields["inspection_memory_mb"].default
    assert f"`QIN_INSPECTION_MEMORY_MB` ({megabytes:,} MB)" in page
    assert f"the pod's limit ({limit})" in page


def test_everything_selects_the_same_pods() -> None:
    labels = {"app": "qin"}
    assert MANIFESTS["deployment"]["spec"]["template"]["metadata"]["labels"] == labels
    assert MANIFESTS["service"]["spec"]["selector"] == labels
    assert MANIFESTS["admin-service"]["spec"]["selector"] == labels
    for name, key in (
        ("deployment", "selector"),
        ("disruption-budget", "selector"),
        ("pod-monitor", "selector"),
        ("network-policy", "podSelector"),
    ):
        assert MANIFESTS[name]["spec"][key] == {"matchLabels": labels}
    target = MANIFESTS["autoscaler"]["spec"]["scaleTargetRef"]
    assert (target["kind"], target["name"]) == ("Deployment", "qin")


def test_the_autoscaler_asks_for_what_the_adapter_makes() -> None:
    asked = {m["pods"]["metric"]["name"] for m in MANIFESTS["autoscaler"]["spec"]["metrics"]}
    assert asked == {
        rule["name"]["as"] for rule in MANIFESTS["prometheus-adapter"]["rules"]["custom"]
    }


def test_kustomize_applies_every_manifest_of_a_cluster() -> None:
    listed = set(MANIFESTS["kustomization"]["resources"])
    applied = {f"{name}.yaml" for name, content in MANIFESTS.items() if "kind" in content}
    assert listed == applied - {"kustomization.yaml"}


def test_compose_mounts_files_that_there_are() -> None:
    for service in COMPOSE["services"].values():
        for volume in service.get("volumes", ()):
            source = volume.split(":")[0]
            if source.startswith("./deploy"):
                assert (ROOT / source).exists(), source
            elif not source.startswith("."):
                assert source in COMPOSE["volumes"]
    scraped = yaml.safe_load((DEPLOY / "prometheus/prometheus.yml").read_text())["scrape_configs"]
    (target,) = scraped[0]["static_configs"][0]["targets"]
    name, _, port = target.partition(":")
    assert name in COMPOSE["services"]
    assert int(port) == Settings().port


def test_the_image_holds_no_torch_and_no_room_that_needs_it() -> None:
    assert "[runtime,text,tracing]" in DOCKERFILE
    copied = set(re.findall(r"^COPY (\w+) \w+$", DOCKERFILE, re.MULTILINE))
    assert copied == {"batch", "feature_store", "model_export", "loadtest", "service", "text"}
    assert "HEALTHCHECK" in DOCKERFILE
