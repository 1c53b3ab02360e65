"""Objects as kustomize builds them, looked at as one cluster: do they find each other, and may they talk?"""

import dataclasses
import re


def require(condition, message):
    if not condition:
        raise AssertionError(message)


@dataclasses.dataclass
class Pod:
    """One of a workload's pods. What the manifests do not bring (an application, an operator's pods) has no spec."""

    namespace: str
    name: str
    labels: dict
    ports: dict  # name: number
    spec: dict = dataclasses.field(default_factory=dict)

    def port(self, wanted):
        """A port by its name or number, if the pod says that it has it."""
        number = self.ports.get(wanted, wanted)
        return number if number in self.ports.values() else None


def outside(namespace, name, labels=None, port=None):
    return Pod(namespace, name, labels or {"app": name}, {"port": port} if port else {})


class Cluster:
    def __init__(self, objects, outside_pods=(), made_by_operator=()):
        self.objects = objects
        self.made_by_operator = set(made_by_operator)
        self.own_pods = [pod for thing in objects for pod in pods_of(thing)]
        self.pods = self.own_pods + list(outside_pods)
        self.namespaces = {pod.namespace: {} for pod in self.pods}
        for thing in self.of_kind("Namespace"):
            self.namespaces[thing["metadata"]["name"]] = thing["metadata"].get("labels", {})
        for name, labels in self.namespaces.items():
            labels["kubernetes.io/metadata.name"] = name

    def of_kind(self, *kinds):
        return [thing for thing in self.objects if thing["kind"] in kinds]

    def named(self, kind, namespace, name):
        found = [t for t in self.of_kind(kind) if (t["metadata"].get("namespace"), t["metadata"]["name"]) == (namespace, name)]
        return found[0] if found else None

    def pod(self, path):
        namespace, name = path.split("/")
        (found,) = [pod for pod in self.pods if (pod.namespace, pod.name) == (namespace, name)]
        return found

    def selected(self, namespace, selector):
        return [pod for pod in self.pods if pod.namespace == namespace and matches(selector, pod.labels)]

    # References ------------------------------------------------------------------------------------------------------

    def check_names(self):
        """Nothing stands twice, and nothing outside the namespaces that are there."""
        seen = set()
        for thing in self.objects:
            name = (thing["kind"], thing["metadata"].get("namespace"), thing["metadata"]["name"])
            require(name not in seen, f"{name} is there twice")
            seen.add(name)
            require(thing["kind"] == "Namespace" or name[1] in self.namespaces, f"{name} has no namespace")

    def check_selectors(self):
        for thing in self.of_kind("Deployment", "StatefulSet"):
            labels = thing["spec"]["template"]["metadata"]["labels"]
            require(matches(thing["spec"]["selector"], labels), f"{title(thing)} does not select its pods")
        for thing in self.of_kind("PodDisruptionBudget"):
            found = self.selected(thing["metadata"]["namespace"], thing["spec"]["selector"])
            require(found, f"{title(thing)} selects nothing")
        for thing in self.of_kind("Service"):
            found = self.selected(thing["metadata"]["namespace"], {"matchLabels": thing["spec"]["selector"]})
            require(found, f"{title(thing)} selects nothing")
            require(len({pod.name for pod in found}) == 1, f"{title(thing)} selects several workloads")
            for port in thing["spec"]["ports"]:
                target = port.get("targetPort", port["port"])
                require(found[0].port(target), f"{title(thing)}: the pods have no port {target}")
        for thing in self.of_kind("StatefulSet"):
            service = self.named("Service", thing["metadata"]["namespace"], thing["spec"]["serviceName"])
            require(service, f"{title(thing)} names a Service that is not there")

    def check_references(self):
        """Every ConfigMap, Secret, claim and account that a pod names, down to the key."""
        for pod in self.own_pods:
            for kind, name, key in references(pod.spec):
                if (kind, pod.namespace, name) in self.made_by_operator:
                    continue
                found = self.named(kind, pod.namespace, name)
                require(found, f"{pod.name}: {kind} {name} is not there")
                keys = {**found.get("data", {}), **found.get("stringData", {})}
                require(key is None or key in keys, f"{pod.name}: {kind} {name} has no {key}")
            mounted = {mount["name"] for container in containers(pod.spec) for mount in container.get("volumeMounts", [])}
            volumes = {volume["name"] for volume in pod.spec.get("volumes", [])} | set(pod.spec["claims"])
            require(mounted == volumes, f"{pod.name}: volumes {sorted(mounted ^ volumes)}")
            for container in containers(pod.spec):
                for probe in ["startupProbe", "livenessProbe", "readinessProbe"]:
                    action = container.get(probe, {})
                    for port in [action[how]["port"] for how in ["httpGet", "tcpSocket"] if how in action]:
                        require(pod.port(port), f"{pod.name}: {probe} asks port {port}")

    def check_database_hosts(self, namespace, ini):
        """The hosts of [databases] are Services."""
        for hosts in re.findall(r"^[^;\n]*\bhost=(\S+)", ini, re.MULTILINE):
            for host in hosts.split(","):
                name, where, *_ = [*host.split("."), namespace][:2] if "." in host else [host, namespace]
                made = ("Service", where, name) in self.made_by_operator
                require(made or self.named("Service", where, name), f"there is no Service {name} in {where}")

    def check_userlist(self, ini):
        """The pods that have this ConfigMap have its auth_file beside it, as a file or as a folder of Secrets."""
        (auth_file,) = re.findall(r"^auth_file = /etc/pgbouncer/(\S+)$", ini, re.MULTILINE)
        for pod in self.own_pods:
            sources = [volume.get("projected", {}).get("sources", []) for volume in pod.spec.get("volumes", [])]
            paths = [item["path"] for source in sum(sources, []) for item in source.get("secret", {}).get("items", [])]
            mounts = [mount["mountPath"] for container in containers(pod.spec) for mount in container.get("volumeMounts", [])]
            if "/etc/pgbouncer" in mounts:
                require(any(f"{path}/".startswith(f"{auth_file}/") for path in paths), f"{pod.name}: no {auth_file}")

    # Network ---------------------------------------------------------------------------------------------------------

    def check_policies(self):
        for policy in self.of_kind("NetworkPolicy"):
            namespace, spec = policy["metadata"]["namespace"], policy["spec"]
            chosen = self.selected(namespace, spec["podSelector"])
            require(chosen, f"{title(policy)} selects nothing")
            for value in values_of(spec["podSelector"], "app"):
                require(any(pod.labels.get("app") == value for pod in chosen), f"{title(policy)}: there is no {value}")
            for direction, end in [("ingress", "from"), ("egress", "to")]:
                require(direction not in spec or direction.title() in spec["policyTypes"], f"{title(policy)}: {direction}")
                for rule in spec.get(direction, []):
                    for peer in rule[end]:
                        peers = [pod for pod in self.pods if self.is_peer(peer, namespace, pod)]
                        require(peers, f"{title(policy)}: nobody is {peer}")
                        targets = chosen if direction == "ingress" else peers
                        for port in rule["ports"]:
                            known = any(pod.port(port["port"]) for pod in targets)
                            require(known, f"{title(policy)}: nobody has port {port['port']}")

    def may_talk(self, source, target, port):
        require(target.port(port), f"{target.name} has no port {port}")
        return self.lets("egress", source, target, target, port) and self.lets("ingress", target, source, target, port)

    def lets(self, direction, pod, other, target, port):
        """Whether the policies on `pod` let `other` be the other end; all, where there is none for the direction."""
        end = "to" if direction == "egress" else "from"
        policies = [
            policy["spec"]
            for policy in self.of_kind("NetworkPolicy")
            if policy["metadata"]["namespace"] == pod.namespace
            and direction.title() in policy["spec"]["policyTypes"]
            and matches(policy["spec"]["podSelector"], pod.labels)
        ]
        return not policies or any(
            any(self.is_peer(peer, pod.namespace, other) for peer in rule[end])
            and any(target.port(wanted["port"]) == port for wanted in rule["ports"])
            for spec in policies
            for rule in spec.get(direction, [])
        )

    def is_peer(self, peer, namespace, pod):
        if "namespaceSelector" in peer:
            if not matches(peer["namespaceSelector"], self.namespaces[pod.namespace]):
                return False
        elif pod.namespace != namespace:
            return False
        return matches(peer.get("podSelector", {}), pod.labels)


def title(thing):
    return f"{thing['kind']}/{thing['metadata']['name']}"


def template_of(thing):
    """The pod template of a workload."""
    spec = thing.get("spec", {})
    return spec.get("jobTemplate", {}).get("spec", spec).get("template")


def pods_of(thing):
    template = template_of(thing)
    if template:
        spec = dict(template["spec"], claims=[claim["metadata"]["name"] for claim in thing["spec"].get("volumeClaimTemplates", [])])
        ports = [port for container in containers(spec) for port in container.get("ports", [])]
        ports = {port["name"]: port["containerPort"] for port in ports}
        meta = thing["metadata"]
        yield Pod(meta.get("namespace"), meta["name"], template["metadata"]["labels"], ports, spec)


def containers(pod):
    return pod["containers"] + pod.get("initContainers", [])


def references(pod):
    """(kind, name, key) for all that a pod needs; without a key the whole object."""
    if "serviceAccountName" in pod:
        yield "ServiceAccount", pod["serviceAccountName"], None
    for volume in pod.get("volumes", []):
        for source in [volume, *volume.get("projected", {}).get("sources", [])]:
            for field, kind, naming in [("configMap", "ConfigMap", "name"), ("secret", "Secret", "name"), ("secret", "Secret", "secretName")]:
                named = source.get(field, {})
                if naming in named:
                    yield kind, named[naming], None
                    for item in named.get("items", []):
                        yield kind, named[naming], item["key"]
        if "persistentVolumeClaim" in volume:
            yield "PersistentVolumeClaim", volume["persistentVolumeClaim"]["claimName"], None
    for container in containers(pod):
        for variable in container.get("env", []):
            for field, kind in [("secretKeyRef", "Secret"), ("configMapKeyRef", "ConfigMap")]:
                named = variable.get("valueFrom", {}).get(field)
                if named:
                    yield kind, named["name"], named["key"]


def matches(selector, labels):
    for key, value in selector.get("matchLabels", {}).items():
        if labels.get(key) != value:
            return False
    for wanted in selector.get("matchExpressions", []):
        require(wanted["operator"] == "In", f"operator {wanted['operator']}")
        if labels.get(wanted["key"]) not in wanted["values"]:
            return False
    return True


def values_of(selector, key):
    return [value for wanted in selector.get("matchExpressions", []) if wanted["key"] == key for value in wanted["values"]]
