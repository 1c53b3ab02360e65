"""Checks docker/ and k8s/ without a container engine or a cluster.

    python validate.py [--kubectl PROGRAM]

Every folder of manifests is built by kustomize and validated against the Kubernetes schemas, every pod against the
restricted PodSecurity standard. The folders of a platform are then looked at as one cluster (cluster.py, platforms.py).
Needs the packages of requirements.txt. The last line is "N passed, N failed".
"""

import argparse
import pathlib
import re
import subprocess
import sys

import kubernetes_validate
import yaml

from cluster import Cluster, containers, pods_of, require, template_of
from platforms import PLATFORMS

REPO = pathlib.Path(__file__).resolve().parents[2]
KUBERNETES = "1.37"


def main():
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("--kubectl", default="kubectl", help="a kubectl with kustomize in it")
    kubectl = arguments.parse_args().kubectl
    report = Report()
    built = {}
    for path in sorted((REPO / "k8s").rglob("kustomization.yaml")):
        folder = str(path.parent.relative_to(REPO))
        built[folder] = report.check(f"{folder} builds", lambda: build(path.parent, kubectl)) or []
        for thing in built[folder]:
            name = f"{folder}: {thing['kind']}/{thing['metadata']['name']}"
            report.check(f"{name} fits the schema of Kubernetes {KUBERNETES}", lambda: fits_schema(thing))
            if template_of(thing):
                report.check(f"{name} is restricted", lambda: is_restricted(template_of(thing)["spec"]))
    report.check("k8s/base is what its README says", lambda: base(built["k8s/base"]))
    report.check("k8s: every overlay and store belongs to a platform", lambda: belong_to_platforms(built))
    for name, platform in PLATFORMS.items():
        check_platform(report, name, platform, [thing for folder in platform.folders for thing in built[folder]])
    for text in ["primary.sh", "replica.sh"]:
        report.check(f"k8s/stores: {text} is that of docker/initdb", lambda: is_copy(text))
    report.check("docker/Dockerfile", dockerfile)
    for path in sorted((REPO / "docker").rglob("compose.yaml")):
        report.check(str(path.relative_to(REPO)), lambda: compose(path))
    report.check("docker/compose.yaml: pgweir", compose_pgweir)
    for path in [REPO / "docker/pgbouncer.ini", *sorted((REPO / "k8s").rglob("pgbouncer.ini"))]:
        report.check(str(path.relative_to(REPO)), lambda: pgbouncer_ini(path))
    return report.close()


class Report:
    """Counts checks; one that raises has failed."""

    def __init__(self):
        self.passed = self.failed = 0

    def check(self, name, run):
        try:
            result = run()
        except Exception as error:  # noqa: BLE001 - whatever it is, it is this check's failure
            self.failed += 1
            print(f"FAILED {name}: {error}")
            return None
        self.passed += 1
        print(f"ok     {name}")
        return result

    def close(self):
        print(f"{self.passed} passed, {self.failed} failed")
        return 1 if self.failed else 0


# Kubernetes ----------------------------------------------------------------------------------------------------------


def build(folder, kubectl):
    built = subprocess.run([kubectl, "kustomize", folder], capture_output=True, text=True, check=False)
    require(built.returncode == 0, built.stderr.strip())
    things = [thing for thing in yaml.safe_load_all(built.stdout) if thing]
    require(things, "kustomize printed nothing")
    return things


def fits_schema(thing):
    kubernetes_validate.validate(thing, KUBERNETES, strict=True)


def is_restricted(pod):
    """The restricted PodSecurity standard and a numeric user; of the pooler also a read-only root."""
    for field in ["hostNetwork", "hostPID", "hostIPC"]:
        require(not pod.get(field), f"{field} is set")
    allowed = {"configMap", "csi", "downwardAPI", "emptyDir", "ephemeral", "persistentVolumeClaim", "projected", "secret"}
    for volume in pod.get("volumes", []):
        require(set(volume) - {"name"} <= allowed, f"volume {volume['name']} is of a forbidden kind")
    shared = pod.get("securityContext", {})
    for container in containers(pod):
        own = container.get("securityContext", {})
        context = {**shared, **own}
        name = container["name"]
        require(context.get("runAsNonRoot") is True, f"{name}: runAsNonRoot is not true")
        require(isinstance(context.get("runAsUser"), int) and context["runAsUser"] > 0, f"{name}: runAsUser is no number above 0")
        require(own.get("allowPrivilegeEscalation") is False, f"{name}: allowPrivilegeEscalation is not false")
        require(name != "pgweir" or own.get("readOnlyRootFilesystem") is True, f"{name}: readOnlyRootFilesystem is not true")
        require(not own.get("privileged"), f"{name}: privileged")
        capabilities = own.get("capabilities", {})
        require(capabilities.get("drop") == ["ALL"], f"{name}: capabilities.drop is not [ALL]")
        require(set(capabilities.get("add", [])) <= {"NET_BIND_SERVICE"}, f"{name}: adds capabilities")
        require(context.get("seccompProfile", {}).get("type") in ("RuntimeDefault", "Localhost"), f"{name}: seccompProfile")
        has_short_name(container["image"])
        require(not any("hostPort" in port for port in container.get("ports", [])), f"{name}: hostPort")


def base(objects):
    (pod,) = [pod for thing in objects for pod in pods_of(thing)]
    (container,) = pod.spec["containers"]
    (service,) = [thing for thing in objects if thing["kind"] == "Service"]
    reached = {port["port"]: pod.port(port["targetPort"]) for port in service["spec"]["ports"]}
    require(reached == {5432: 6432, 6432: 6432, 9127: 9127}, f"Service ports {reached}")
    for probe, path in [("startupProbe", "/livez"), ("livenessProbe", "/livez"), ("readinessProbe", "/readyz")]:
        get = container[probe]["httpGet"]
        require((get["path"], pod.port(get["port"])) == (path, 9127), f"{probe} asks {get}")
    require(pod.spec["automountServiceAccountToken"] is False, "a service account token is mounted")
    require("lifecycle" not in container, "a preStop hook needs programs that the image does not have")
    require(not any(thing["kind"] == "Secret" for thing in objects), "the base brings a Secret")


def belong_to_platforms(built):
    known = {folder for platform in PLATFORMS.values() for folder in platform.folders} | {"k8s/base", "k8s/policies"}
    require(known == set(built), f"{sorted(known ^ set(built))}")
    readme = (REPO / "k8s/README.md").read_text()
    for folder in built:
        name = folder.removeprefix("k8s/") + "/"
        require(f"`{name}`" in readme, f"k8s/README.md does not say what {name} is")


def check_platform(report, name, platform, objects):
    cluster = Cluster(objects, platform.outside, platform.made_by_operator)
    readme = (REPO / "k8s/README.md").read_text()
    report.check(f"{name}: names", cluster.check_names)
    report.check(f"{name}: Services, budgets and workloads find their pods", cluster.check_selectors)
    report.check(f"{name}: ConfigMaps, Secrets, claims and ports are there", cluster.check_references)
    report.check(f"{name}: network policies name what is there", cluster.check_policies)
    for kind, namespace, made in platform.made_by_operator:
        report.check(f"{name}: {kind} {made} is documented", lambda: require(f"`{made}`" in readme, "not in k8s/README.md"))
    inis = [thing for thing in cluster.of_kind("ConfigMap") if "pgbouncer.ini" in thing["data"]]
    report.check(f"{name}: one pooler", lambda: require(len(inis) == 1, f"{len(inis)} ConfigMaps with a pgbouncer.ini"))
    for thing in inis:
        text = thing["data"]["pgbouncer.ini"]
        report.check(f"{name}: auth_file", lambda: cluster.check_userlist(text))
        report.check(f"{name}: hosts", lambda: cluster.check_database_hosts(thing["metadata"]["namespace"], text))
    for flows, expected in [(platform.allowed, True), (platform.denied, False)]:
        for source, target, port in flows:
            outcome = "may" if expected else "may not"
            ends = [cluster.pod(source), cluster.pod(target)]
            report.check(
                f"{name}: {source} {outcome} talk to {target}:{port}",
                lambda: require(cluster.may_talk(*ends, port) is expected, "by these policies it is the other way round"),
            )


def is_copy(name):
    """kustomize reads no files outside of its folder."""
    own, original = (REPO / folder / name for folder in ["k8s/stores/nx-persistent", "docker/initdb"])
    require(own.read_text() == original.read_text(), "they differ")


# Docker --------------------------------------------------------------------------------------------------------------


def dockerfile():
    text = (REPO / "docker/Dockerfile").read_text().replace("\\\n", " ")
    lines = [line.split(None, 1) for line in text.splitlines() if line.strip() and not line.startswith("#")]
    instructions = [(word[0], word[1] if len(word) > 1 else "") for word in lines]
    last_from = max(index for index, (word, _) in enumerate(instructions) if word == "FROM")
    require(sum(word == "FROM" for word, _ in instructions) > 1, "one stage only")
    final = dict(instructions[last_from:])
    require(re.fullmatch(r"[1-9]\d*:[1-9]\d*", final.get("USER", "")), f"USER {final.get('USER')} is not numeric")
    require("RUN" not in final, "RUN in the release stage needs a shell")
    require(final["ENTRYPOINT"].startswith("["), "ENTRYPOINT needs a shell")
    health = final["HEALTHCHECK"].split("CMD", 1)[1].strip()
    require(health == '["/usr/bin/pgweir", "healthcheck"]', f"HEALTHCHECK {health}")
    require(set(final["EXPOSE"].split()) >= {"6432", "9127"}, f"EXPOSE {final['EXPOSE']}")
    for alias in ["pgbouncer", "pg_isready"]:
        require(f"ln -s pgweir /out/usr/bin/{alias}" in text, f"no {alias} alias")
    for foreign in ["# syntax", "--mount"]:
        require(foreign not in text, f"{foreign}: the classic builder cannot do it, or a registry is needed")


def has_short_name(image):
    """Where images come from is for the cluster's administrators to say."""
    first = image.split("/")[0]
    require("/" not in image or not re.search(r"[.:]|^localhost$", first), f"{image} names a registry")


def compose(path):
    parts = yaml.safe_load(path.read_text())
    require("name" not in parts, "docker-compose 1 refuses name:")
    services = parts["services"]
    for name, service in services.items():
        has_short_name(service["image"])
        for other in service.get("depends_on", {}):
            require(other in services, f"{name} depends on {other}, which is not there")
        for volume in service.get("volumes", []):
            source = volume.split(":")[0]
            if source.startswith("."):
                require((path.parent / source).is_file(), f"{name} mounts {source}, which is not there")
        if service["image"].startswith("pgweir"):
            require(service["read_only"] and service["cap_drop"] == ["ALL"], "pgweir's root is writable or keeps capabilities")


def compose_pgweir():
    services = yaml.safe_load((REPO / "docker/compose.yaml").read_text())["services"]
    require({"postgres-primary", "postgres-replica", "pgweir"} <= set(services), f"services {sorted(services)}")
    pgweir = services["pgweir"]
    published = {port.rsplit(":", 1)[1] for port in pgweir["ports"]}
    require(published == {"6432", "9127"}, f"ports {pgweir['ports']}")
    require(all(port.startswith("127.0.0.1:") for port in pgweir["ports"]), "published beyond this machine")


def pgbouncer_ini(path):
    section, settings = None, {}
    for number, line in enumerate(path.read_text().splitlines(), 1):
        line = line.strip()
        if line.startswith("[") and line.endswith("]"):
            section = line[1:-1]
        elif line and line[0] not in ";#":
            require("=" in line and section, f"line {number}: {line}")
            key, value = (part.strip() for part in line.split("=", 1))
            require((section, key) not in settings, f"line {number}: {key} is set twice")
            settings[section, key] = value
    wanted = {"listen_port": "6432", "http_port": "9127", "listen_addr": "0.0.0.0", "http_listen_addr": "0.0.0.0"}
    defaults = {"listen_port": "6432", "http_port": "9127"}
    for key, value in wanted.items():
        require(settings.get(("pgbouncer", key), defaults.get(key)) == value, f"{key} is not {value}")
    require(("pgbouncer", "logfile") not in settings, "logfile on a read-only root")
    require(any(name == "databases" for name, _ in settings), "no database")


if __name__ == "__main__":
    sys.exit(main())
