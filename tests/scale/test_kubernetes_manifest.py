"""The manifest of the Kubernetes page, against the schemas of Kubernetes itself.

dask-kubernetes turns a DaskCluster into a Deployment for the scheduler, one for each worker, and a Service; their pod
and service specs are those of the manifest word for word, with two more variables for the workers. Validation is
strict: a field that Kubernetes does not know is an error.
"""

from pathlib import Path

import kubernetes_validate
import pytest
import yaml
from distributed.cli import dask_scheduler, dask_worker

PAGE = Path(__file__).resolve().parents[2] / "docs" / "scale" / "kubernetes.md"
VERSIONS = ["1.30.0", kubernetes_validate.latest_version()]


@pytest.fixture(scope="module")
def cluster() -> dict:
    """The block of the page that begins with the name of the file."""
    blocks = [part.removeprefix("yaml\n") for part in PAGE.read_text("utf-8").split("```")]
    (manifest,) = [block for block in blocks if block.startswith("# medwave-cluster.yaml")]
    return yaml.safe_load(manifest)


def deployment(cluster: dict, role: str) -> dict:
    """The Deployment that the operator makes for `role`, scheduler or worker."""
    labels = {"dask.org/cluster-name": cluster["metadata"]["name"], "dask.org/component": role}
    pod = {"metadata": {"labels": labels}, "spec": cluster["spec"][role]["spec"]}
    spec = {"replicas": 1, "selector": {"matchLabels": labels}, "template": pod}
    return {"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": role}, "spec": spec}


def service(cluster: dict) -> dict:
    spec = cluster["spec"]["scheduler"]["service"]
    return {"apiVersion": "v1", "kind": "Service", "metadata": {"name": "medwave-scheduler"}, "spec": spec}


@pytest.mark.parametrize("version", VERSIONS)
def test_kubernetes_knows_every_field(cluster, version):
    assert (cluster["apiVersion"], cluster["kind"]) == ("kubernetes.dask.org/v1", "DaskCluster")
    assert set(cluster["spec"]) == {"worker", "scheduler"}
    assert set(cluster["spec"]["worker"]) == {"replicas", "spec"}
    assert set(cluster["spec"]["scheduler"]) == {"spec", "service"}
    for manifest in (deployment(cluster, "scheduler"), deployment(cluster, "worker"), service(cluster)):
        assert kubernetes_validate.validate(manifest, version, strict=True) == version.removesuffix(".0")


def test_a_misspelt_field_is_found(cluster):
    wrong = deployment(cluster, "worker")
    (container,) = wrong["spec"]["template"]["spec"]["containers"]
    wrong["spec"]["template"]["spec"] = {"containers": [container | {"envfrom": container["envFrom"]}]}
    with pytest.raises(kubernetes_validate.ValidationError, match="envfrom"):
        kubernetes_validate.validate(wrong, VERSIONS[-1], strict=True)


def test_the_service_leads_to_the_ports_of_the_scheduler(cluster):
    (container,) = cluster["spec"]["scheduler"]["spec"]["containers"]
    ports = {port["name"]: port["containerPort"] for port in container["ports"]}
    assert {port["targetPort"]: port["port"] for port in service(cluster)["spec"]["ports"]} == ports
    assert container["readinessProbe"]["httpGet"]["port"] in ports
    labels = deployment(cluster, "scheduler")["spec"]["template"]["metadata"]["labels"]
    assert service(cluster)["spec"]["selector"].items() <= labels.items()


@pytest.mark.parametrize(("role", "command"), [("scheduler", dask_scheduler.main), ("worker", dask_worker.main)])
def test_dask_takes_the_arguments_of_the_containers(cluster, role, command):
    (container,) = cluster["spec"][role]["spec"]["containers"]
    dask, name, *arguments = container["args"]
    assert (dask, name) == ("dask", role)
    found = command.make_context(name, arguments).params
    if role == "worker":
        assert found["nthreads"] == 1
        assert found["resources"] == "memory=28e9"
