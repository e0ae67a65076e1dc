#!/bin/sh
# Makes the database cluster in $PGDATA if there is none, then is Postgres. Options are passed on to it.
set -eu
: "${POSTGRES_PASSWORD:?the password of the superuser}" "${POSTGRES_USER:=postgres}" "${POSTGRES_DB:=$POSTGRES_USER}"
if [ ! -s "$PGDATA/PG_VERSION" ]; then
  (umask 077 && printf %s "$POSTGRES_PASSWORD" >/tmp/password)
  initdb -D "$PGDATA" -U "$POSTGRES_USER" --pwfile=/tmp/password --auth=scram-sha-256 -E UTF8 --locale=C.UTF-8 --no-sync
  rm /tmp/password
  printf 'host all all all scram-sha-256\n' >>"$PGDATA/pg_hba.conf"
  if [ "$POSTGRES_DB" != postgres ]; then
    # Before anybody else can connect: no network, a socket that only this container has.
    pg_ctl -D "$PGDATA" -w -s -o '-c listen_addresses= -c unix_socket_directories=/tmp' start
    PGPASSWORD=$POSTGRES_PASSWORD createdb -h /tmp -U "$POSTGRES_USER" "$POSTGRES_DB"
    pg_ctl -D "$PGDATA" -w -s -m fast stop
  fi
fi
exec postgres -D "$PGDATA" -c 'listen_addresses=*' -c unix_socket_directories=/tmp "$@"
