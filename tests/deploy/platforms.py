"""The platforms that k8s/ has manifests for: which folders make one up, what stands outside of them, who has to reach whom."""

import dataclasses

from cluster import outside

DNS = outside("kube-system", "dns", port=53)
PROMETHEUS = outside("monitoring", "prometheus")


@dataclasses.dataclass
class Platform:
    folders: list
    outside: list
    allowed: list  # (from, to, port of the pod)
    denied: list
    made_by_operator: list = dataclasses.field(default_factory=list)  # (kind, namespace, name), all of them in k8s/README.md


PLATFORMS = {
    "nx": Platform(
        folders=[
            "k8s/overlays/nx-persistent",
            "k8s/overlays/nx-backend",
            "k8s/stores/nx-persistent",
            "k8s/stores/nx-broker",
            "k8s/stores/nx-search",
        ],
        outside=[DNS, PROMETHEUS, outside("nx-backend", "seller")],
        allowed=[
            ("nx-backend/seller", "nx-persistent/nx-pgbouncer", 6432),
            ("nx-backend/seller", "nx-persistent/nx-postgresql-primary", 5432),
            ("nx-backend/seller", "kube-system/dns", 53),
            ("nx-persistent/nx-pgbouncer", "nx-persistent/nx-postgresql-primary", 5432),
            ("nx-persistent/nx-pgbouncer", "nx-persistent/nx-postgresql-replica", 5432),
            ("nx-persistent/nx-pgbouncer", "kube-system/dns", 53),
            ("nx-persistent/nx-postgresql-replica", "nx-persistent/nx-postgresql-primary", 5432),
            ("nx-persistent/nx-redis", "nx-persistent/nx-redis", 16379),
            ("nx-search/nx-debezium", "nx-persistent/nx-postgresql-primary", 5432),
            ("nx-search/nx-debezium", "nx-broker/nx-kafka", 9092),
            ("nx-search/nx-debezium", "nx-search/nx-typesense", 8108),
            ("monitoring/prometheus", "nx-persistent/nx-pgbouncer", 9127),
        ],
        denied=[
            ("nx-backend/seller", "nx-persistent/nx-pgbouncer", 9127),
            ("nx-search/nx-debezium", "nx-persistent/nx-pgbouncer", 6432),
            ("nx-search/nx-debezium", "nx-persistent/nx-postgresql-replica", 5432),
            ("monitoring/prometheus", "nx-persistent/nx-pgbouncer", 6432),
            ("nx-persistent/nx-pgbouncer", "nx-persistent/nx-redis", 6379),
            ("nx-persistent/nx-redis", "nx-persistent/nx-postgresql-primary", 5432),
        ],
    ),
    "data-stack": Platform(
        folders=["k8s/overlays/data-stack", "k8s/stores/data-stack"],
        outside=[DNS, PROMETHEUS, outside("data-stack", "ndp")],
        allowed=[
            ("data-stack/ndp", "data-stack/pgweir", 6432),
            ("data-stack/pgweir", "data-stack/postgresql", 5432),
            ("data-stack/pgweir", "kube-system/dns", 53),
            ("data-stack/pgweir", "data-stack/pgweir", 6432),
            ("data-stack/postgresql-backup", "data-stack/postgresql", 5432),
            ("monitoring/prometheus", "data-stack/pgweir", 9127),
        ],
        denied=[
            ("monitoring/prometheus", "data-stack/pgweir", 6432),
            ("data-stack/pgweir", "data-stack/mysql", 3306),
        ],
    ),
    "dbaas": Platform(
        folders=["k8s/overlays/dbaas"],
        outside=[
            DNS,
            PROMETHEUS,
            outside("linkwarden", "linkwarden"),
            outside("dbaas", "pg-cluster-1", {"cnpg.io/cluster": "pg-cluster"}, 5432),
        ],
        allowed=[
            ("linkwarden/linkwarden", "dbaas/pgbouncer", 6432),
            ("dbaas/pgbouncer", "dbaas/pg-cluster-1", 5432),
            ("dbaas/pgbouncer", "dbaas/pgbouncer", 6432),
            ("dbaas/pgbouncer", "kube-system/dns", 53),
            ("monitoring/prometheus", "dbaas/pgbouncer", 9127),
        ],
        denied=[("linkwarden/linkwarden", "dbaas/pgbouncer", 9127)],
        made_by_operator=[("Secret", "dbaas", "pgbouncer-userlist"), ("Service", "dbaas", "pg-cluster-rw")],
    ),
}
