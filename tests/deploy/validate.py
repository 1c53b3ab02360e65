"""Checks docker/ and k8s/ without a container engine or a cluster.

    python validate.py [--kubectl PROGRAM]

Every manifest is built by kustomize, validated against the Kubernetes schemas, and every pod against the restricted
PodSecurity standard. Without kubectl the resources that a kustomization names are read as they stand.
Needs the packages of requirements.txt. The last line is "N passed, N failed".
"""

import argparse
import pathlib
import re
import subprocess
import sys

import kubernetes_validate
import yaml

REPO = pathlib.Path(__file__).resolve().parents[2]
KUBERNETES = "1.37"
KUSTOMIZATIONS = ["k8s/base", "k8s/example", "k8s/example/client"]
NETWORK_POLICIES = {
    "default-deny-pgbouncer",
    "allow-dns",
    "allow-pgbouncer-from-backend",
    "allow-pgbouncer-to-primary",
    "allow-pgbouncer-to-replica",
    "allow-pgbouncer-peers",
    "allow-metrics-from-monitoring",
}


def main():
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("--kubectl", help="a kubectl with kustomize in it")
    kubectl = arguments.parse_args().kubectl
    report = Report()
    if not kubectl:
        print("no kubectl: kustomizations are read, not built (no name prefixes, labels or images applied)")
    for folder in KUSTOMIZATIONS:
        objects = report.check(f"{folder} builds", lambda: build(REPO / folder, kubectl))
        for thing in objects or []:
            name = f"{folder}: {thing['kind']}/{thing['metadata']['name']}"
            report.check(f"{name} fits the schema of Kubernetes {KUBERNETES}", lambda: fits_schema(thing))
            if "template" in thing.get("spec", {}):
                report.check(f"{name} is restricted", lambda: is_restricted(thing["spec"]["template"]["spec"]))
        if folder == "k8s/base" and objects:
            report.check(f"{folder} fits together", lambda: base_fits_together(objects))
    report.check("docker/Dockerfile", dockerfile)
    report.check("docker/compose.yaml", compose)
    for ini in ["docker/pgbouncer.ini", "k8s/base/pgbouncer.ini"]:
        report.check(ini, lambda: pgbouncer_ini(REPO / ini))
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


def require(condition, message):
    if not condition:
        raise AssertionError(message)


# Kubernetes ----------------------------------------------------------------------------------------------------------


def build(folder, kubectl):
    if kubectl:
        built = subprocess.run([kubectl, "kustomize", folder], capture_output=True, text=True, check=False)
        require(built.returncode == 0, built.stderr.strip())
        text = built.stdout
        require(text.strip(), "kustomize printed nothing")
        return [thing for thing in yaml.safe_load_all(text) if thing]
    return list(read_kustomization(folder))


def read_kustomization(folder):
    kustomization = yaml.safe_load((folder / "kustomization.yaml").read_text())
    for resource in kustomization["resources"]:
        path = folder / resource
        if path.is_dir():
            yield from read_kustomization(path)
        else:
            yield from (thing for thing in yaml.safe_load_all(path.read_text()) if thing)
    for generated in kustomization.get("configMapGenerator", []):
        data = {pathlib.Path(name).name: (folder / name).read_text() for name in generated["files"]}
        yield {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": generated["name"]}, "data": data}


def fits_schema(thing):
    kubernetes_validate.validate(thing, KUBERNETES, strict=True)


def is_restricted(pod):
    """The restricted PodSecurity standard, and what we promise beyond it: a read-only root and a numeric user."""
    for field in ["hostNetwork", "hostPID", "hostIPC"]:
        require(not pod.get(field), f"{field} is set")
    allowed = {"configMap", "csi", "downwardAPI", "emptyDir", "ephemeral", "persistentVolumeClaim", "projected", "secret"}
    for volume in pod.get("volumes", []):
        require(set(volume) - {"name"} <= allowed, f"volume {volume['name']} is of a forbidden kind")
    shared = pod.get("securityContext", {})
    containers = pod["containers"] + pod.get("initContainers", [])
    require(containers, "no containers")
    for container in containers:
        own = container.get("securityContext", {})
        context = {**shared, **own}
        name = container["name"]
        require(context.get("runAsNonRoot") is True, f"{name}: runAsNonRoot is not true")
        require(isinstance(context.get("runAsUser"), int) and context["runAsUser"] > 0, f"{name}: runAsUser is no number above 0")
        require(own.get("allowPrivilegeEscalation") is False, f"{name}: allowPrivilegeEscalation is not false")
        require(own.get("readOnlyRootFilesystem") is True, f"{name}: readOnlyRootFilesystem is not true")
        require(not own.get("privileged"), f"{name}: privileged")
        capabilities = own.get("capabilities", {})
        require(capabilities.get("drop") == ["ALL"], f"{name}: capabilities.drop is not [ALL]")
        require(set(capabilities.get("add", [])) <= {"NET_BIND_SERVICE"}, f"{name}: adds capabilities")
        require(context.get("seccompProfile", {}).get("type") in ("RuntimeDefault", "Localhost"), f"{name}: seccompProfile")
        require(not any("hostPort" in port for port in container.get("ports", [])), f"{name}: hostPort")


def base_fits_together(objects):
    by_kind = {}
    for thing in objects:
        by_kind.setdefault(thing["kind"], []).append(thing)
    (deployment,), (service,), (budget,) = (by_kind[kind] for kind in ["Deployment", "Service", "PodDisruptionBudget"])
    pod = deployment["spec"]["template"]
    labels = pod["metadata"]["labels"].items()
    container = pod["spec"]["containers"][0]
    ports = {port["name"]: port["containerPort"] for port in container["ports"]}

    require(deployment["spec"]["selector"]["matchLabels"].items() <= labels, "the Deployment does not select its pods")
    require(service["spec"]["selector"].items() <= labels, "the Service does not select the pods")
    require(budget["spec"]["selector"]["matchLabels"].items() <= labels, "the PodDisruptionBudget does not select the pods")
    for policy in by_kind["NetworkPolicy"]:
        require(policy["spec"]["podSelector"]["matchLabels"].items() <= labels, f"{policy['metadata']['name']} selects other pods")
    names = {policy["metadata"]["name"] for policy in by_kind["NetworkPolicy"]}
    require(names == NETWORK_POLICIES, f"network policies: {sorted(names ^ NETWORK_POLICIES)}")

    reached = {port["port"]: ports[port["targetPort"]] for port in service["spec"]["ports"]}
    require(reached.get(5432) == 6432 and reached.get(6432) == 6432, f"Service ports {reached}")
    for probe, path in [("startupProbe", "/livez"), ("livenessProbe", "/livez"), ("readinessProbe", "/readyz")]:
        get = container[probe]["httpGet"]
        require((get["path"], ports[get["port"]]) == (path, 9127), f"{probe} asks {get}")
    require(pod["spec"]["automountServiceAccountToken"] is False, "a service account token is mounted")
    require("lifecycle" not in container, "a preStop hook needs programs that the image does not have")

    (config,) = by_kind["ConfigMap"]
    sources = pod["spec"]["volumes"][0]["projected"]["sources"]
    require(sources[0]["configMap"]["name"] == config["metadata"]["name"], "the Deployment mounts another ConfigMap")
    require(sources[1]["secret"]["name"] == "pgweir-userlist", "the Deployment mounts another Secret")
    require("Secret" not in by_kind, "the base brings a Secret")


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
    require("ln -s pgweir /out/usr/bin/pgbouncer" in text, "no pgbouncer alias")


def compose():
    services = yaml.safe_load((REPO / "docker/compose.yaml").read_text())["services"]
    require({"postgres-primary", "postgres-replica", "pgweir"} <= set(services), f"services {sorted(services)}")
    pgweir = services["pgweir"]
    published = {port.rsplit(":", 1)[1] for port in pgweir["ports"]}
    require(published == {"6432", "9127"}, f"ports {pgweir['ports']}")
    require(all(port.startswith("127.0.0.1:") for port in pgweir["ports"]), "published beyond this machine")
    require(pgweir["read_only"] and pgweir["cap_drop"] == ["ALL"], "pgweir's root is writable or keeps capabilities")
    for name, service in services.items():
        for volume in service.get("volumes", []):
            source = volume.split(":")[0]
            if source.startswith("."):
                require((REPO / "docker" / source).is_file(), f"{name} mounts {source}, which is not there")


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
    for key, value in wanted.items():
        require(settings.get(("pgbouncer", key)) == value, f"{key} is not {value}")
    require(("pgbouncer", "logfile") not in settings, "logfile on a read-only root")
    require(any(name == "databases" for name, _ in settings), "no database")


if __name__ == "__main__":
    sys.exit(main())
