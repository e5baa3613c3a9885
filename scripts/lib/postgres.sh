# PostgreSQL's programs: tests make clusters of their own with them, and take them away again.
# shellcheck shell=bash

setup_postgres() {
    postgres_there && return
    # The package would make a cluster and start it on port 5432; nobody asked for one.
    say "telling PostgreSQL's package to make no cluster by itself: /etc/postgresql-common/createcluster.d/wolfpack.conf"
    as_root mkdir -p /etc/postgresql-common/createcluster.d
    as_root tee /etc/postgresql-common/createcluster.d/wolfpack.conf >/dev/null <<<'create_main_cluster = off'
    apt_install "initdb, postgres and pg_ctl for the store tests" postgresql
    postgres_there || die "the postgresql package is installed, but no initdb is found"
}

# Debian keeps them out of PATH, in a folder for each version.
postgres_there() {
    local folder
    for folder in /usr/lib/postgresql/*/bin "$(dirname -- "$(command -v initdb || true)")"; do
        [[ -x $folder/initdb && -x $folder/postgres && -x $folder/pg_ctl ]] && return
    done
    return 1
}
